"""Compare levers against memorising and against sampling errors:  python benchmarks/levers.py --out FILE.json

Every arm of `ARMS` trains the transformer of --model further, for equal steps on the same training notes, and then
samples notes with the labels of notes of unseen instruments, with paired seeds. Reported for each arm, with 95 %
intervals, and as paired differences from teacher forcing: nats a token of training notes, of held-out pitches of the
same instruments and of unseen instruments, by scale; the same after maps were replaced by the model's own samples, with
corrected targets (`own samples`); the share of sampled notes within 50 cents of the requested pitch (pYIN); Fréchet
distance, density and coverage. Reference conditioning is off.

--data names sources as scripts/reproduce_weights.py does, and the split is that of scripts/split.json. --work keeps one
file for each arm and seed: the same command continues where it stopped. --out is committed as
results/benchmarks/levers-small.json.
"""
import argparse, json, statistics, sys
from pathlib import Path
import numpy as np
import torch
from mars.data.augment import AugmentedNotes
from mars.eval import cents_error, f0
from mars.parts.device import pick_device, seed_all
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.studies.prediction import generate_images, study_data
from mars.train import TrainConfig, TrainingModule, default_callbacks, fit
from mars.training.log import RunLog, versions
from mars.training.run import init_from
from mars.training.self_correction import CorrectionConfig, SelfCorrection, corrupted_path, encode_notes
from mars.training.self_correction import neighbour_table
from mars.var import VAR
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'scripts'))
from reproduce_weights import MODEL, every, open_data, split_by_names

ARMS = { # differences from teacher forcing
    'teacher forcing': {},
    'dropout': dict(dropout=0.1),
    'self-correction': dict(self_correction=0.3),
    'student forcing': dict(self_correction=0.3, student_forcing=0.25),
    'scale weights': dict(scale_weight='sqrt'),
    'augmentation': dict(augment=True),
    'all': dict(dropout=0.1, self_correction=0.3, student_forcing=0.25, scale_weight='sqrt', augment=True)}
N_ITER = 16 # of Griffin-Lim
SCORES = 'frechet', 'pitch', 'family', 'density', 'coverage'

# ---- data

def open_sets(args):
    "Notes: {'train', 'held-out pitches', 'unseen instruments'}."
    patterns = json.loads(args.split.read_text())['model']
    train, valid, test = split_by_names(open_data(args.data, MODEL, args.renderer), patterns)
    train, held = train.split_by_pitch(0.05)
    sets = {'train': every(train, args.notes), 'held-out pitches': every(held, args.measure),
            'unseen instruments': every(valid + test, args.measure)}
    return sets, every(valid + test, args.n)

def encode(notes, m):
    "Encoder outputs and labels of a set of notes."
    labels = {k: v.to(m.device) for k, v in notes.targets.items() if k in m.var.label_embed.sizes}
    return encode_notes(notes, m), labels

# ---- training

def train_arm(m, data, arm, seed, args):
    "Train the transformer of `m` further on (latents, labels) -> VAR."
    options = {**arm}
    latents, labels = data['variants'] if options.pop('augment', False) else data['train']
    cfg = type(m.var.cfg).from_dict({**vars(m.var.cfg), 'dropout': options.pop('dropout', 0.)})
    objective = SelfCorrection(CorrectionConfig(**options))
    if options.get('self_correction'): objective.table = neighbour_table(m.var.quantizer.codes(0), 16)
    seed_all(seed)
    var = m.transformer(VAR)(cfg, m.tokenizer.cfg).bind(m.tokenizer).to(m.device)
    init_from(var, m.var)
    order = torch.Generator().manual_seed(seed)
    rows = [torch.randint(len(latents), (args.batch_size,), generator=order) for _ in range(args.steps)]
    def batch(step, micro_batch): return [latents[rows[step]]], {k: v[rows[step]] for k, v in labels.items()}
    train = TrainConfig(stage='var', steps=args.steps, batch_size=args.batch_size, lr=args.lr, warmup=args.steps//8,
                        weight_decay=0.05, precision=args.precision, seed=seed)
    fit(TrainingModule(var, objective), batch, train, default_callbacks(train, RunLog(), progress=False))
    return var.eval()

# ---- measurement

@torch.no_grad()
def note_nats(var, latents, labels, own_samples=False):
    "Nats a token of every note, by scale (N, K); with `own_samples` along a path of samples, with corrected targets."
    generator, parts = torch.Generator(latents.device).manual_seed(0), []
    for i in range(0, len(latents), 32):
        f, label = latents[i:i+32], {k: v[i:i+32] for k, v in labels.items()}
        used = targets = var.quantizer.encode(f)
        if own_samples:
            p = var(used, label).softmax(-1)
            sampled = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view(p.shape[:2]).split(var.lengths, 1)
            used, targets = corrupted_path(var.quantizer, f, lambda k, tokens: sampled[k])
        z = var(used, label).log_softmax(-1)
        nats = -z.gather(-1, torch.cat(list(targets), 1)[..., None])[..., 0]
        parts.append(torch.stack([x.mean(1) for x in nats.split(var.lengths, 1)], 1))
    return torch.cat(parts)

def mean_over_tokens(nats, lengths): # (N, K) -> (N,)
    return nats @ torch.tensor(lengths, dtype=nats.dtype)/sum(lengths)

def measure_arm(var, m, data, study, seed):
    "Scores of one arm and seed: plain numbers, and per-note lists for the paired differences."
    nats, out = {}, dict(by_scale={}, notes={})
    for name in ('train', 'held-out pitches', 'unseen instruments'):
        latents, labels = data[f'{name}, measured']
        nats[name] = note_nats(var, latents, labels)
    nats['own samples'] = note_nats(var, *data['unseen instruments, measured'], own_samples=True)
    for name, x in nats.items():
        out['by_scale'][name] = [round(v, 4) for v in x.mean(0).tolist()]
        out['notes'][f'nats, {name}'] = [round(v, 4) for v in mean_over_tokens(x, var.lengths).tolist()]
    image = generate_images(var, study, seed, **m.sampling({}))
    out['notes']['within 50 cents'] = within_50_cents(m, image, study)
    scores = study.evaluator(image)
    out['scores'] = {k: scores[k] for k in SCORES}
    return out

def within_50_cents(m, image, study): # -> 0 or 1 for every note
    "Which generated images have the requested pitch (pYIN)."
    pitches, waves = study.evaluator.labels['pitch'].tolist(), []
    for i in range(0, len(image), 16): waves += list(m.image_to_wave(image[i:i+16], n_iter=N_ITER, first=i).cpu())
    return [int(abs(cents_error(float(f0(wave).midi), pitch)) <= 50) for wave, pitch in zip(waves, pitches)]

def summarise(runs, base):
    "Means over notes and seeds, and paired differences from the arm `base` with 95 % intervals."
    def stack(arm, key): return np.array([run['notes'][key] for run in runs[arm]], float) # (seeds, notes)
    def half_width(x): return 1.96*x.mean(0).std(ddof=1)/len(x[0])**0.5
    out = {}
    for arm, arm_runs in runs.items():
        row = dict(seeds=len(arm_runs), **{k: arm_runs[0][k] for k in ('by_scale',) if k in arm_runs[0]})
        for key in arm_runs[0]['notes']:
            x = stack(arm, key)
            row[key] = [float(x.mean()), float(half_width(x))]
            shared = min(len(x), len(runs[base]))
            d = x[:shared] - stack(base, key)[:shared]
            row[f'{key}, difference'] = [float(d.mean()), float(half_width(d))]
        row |= {k: statistics.mean(run['scores'][k] for run in arm_runs) for k in arm_runs[0]['scores']}
        row |= {f'{k}, seeds': [run['scores'][k] for run in arm_runs] for k in arm_runs[0]['scores']}
        out[arm] = row
    return out

# ---- command

def add_arguments(ap, steps, batch_size, lr, notes):
    "Arguments that experiments on the packaged model share, with their defaults."
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--data', action='append', help='sources of notes; repeatable; default: auto')
    ap.add_argument('--split', type=Path, default=ROOT/'scripts'/'split.json', help='patterns of held-out instruments')
    ap.add_argument('--renderer', default='auto', help='auto, fluidsynth or tinysoundfont; default: %(default)s')
    ap.add_argument('--seeds', type=int, default=2, help='default: %(default)s')
    ap.add_argument('--steps', type=int, default=steps, help='default: %(default)s')
    ap.add_argument('--batch-size', type=int, default=batch_size, help='notes a step; default: %(default)s')
    ap.add_argument('--lr', type=float, default=lr, help='peak learning rate; default: %(default)s')
    ap.add_argument('--precision', default='auto', choices=('auto', 'fp32', 'bf16'), help='default: %(default)s')
    ap.add_argument('--notes', type=int, default=notes, help='training notes; default: %(default)s')
    ap.add_argument('--n', type=int, default=256, help='sampled notes of an arm and seed; default: %(default)s')
    ap.add_argument('--device', help='default: the first available of cuda, mps and cpu')
    ap.add_argument('--work', type=Path, required=True, help='folder of the results of each arm and seed')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    return ap

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--arms', default=','.join(ARMS), help='default: all')
    ap.add_argument('--measure', type=int, default=192, help='notes of each set for the nats; default: %(default)s')
    return add_arguments(ap, steps=80, batch_size=32, lr=3e-4, notes=4000)

def run_arms(args, arms, prepare, run_arm):
    "Run every arm and seed that has no result in `args.work`; return all results, {arm: one for each seed}."
    args.data = args.data or ['auto']
    args.work.mkdir(parents=True, exist_ok=True)
    def file(arm, seed): return args.work/f'{arm.replace(" ", "-")}-{seed}.json'
    ready = None
    for seed in range(args.seeds):
        for arm in arms:
            if file(arm, seed).exists(): continue
            ready = ready or prepare(args)
            result = run_arm(arm, seed, args, *ready)
            write_atomic(file(arm, seed), json.dumps(result))
            print(arm, seed, {k: round(statistics.mean(v), 5) for k, v in result['notes'].items()}, result['scores'],
                  flush=True)
    return {arm: [json.loads(file(arm, seed).read_text()) for seed in range(args.seeds)] for arm in arms}

def write_summary(args, runs, base, settings, **more):
    "Write means and differences of all arms to `args.out`, and print them."
    real = {k: runs[base][0]['real'][k] for k in SCORES[1:]}
    summary = dict(info=versions(pick_device(args.device)), settings={k: getattr(args, k) for k in settings}, real=real,
                   **more, arms=summarise(runs, base))
    write_atomic(args.out, json.dumps(summary, indent=1))
    for arm, row in summary['arms'].items():
        print(f'{arm:18}', *(f'{k} {row[k][0]:.4f} ({row[f"{k}, difference"][0]:+.4f} ± '
                             f'{row[f"{k}, difference"][1]:.4f})' for k in runs[arm][0]['notes']))
    return summary

def prepare(args):
    "The model, latents and labels of all sets, and the evaluator."
    m = Mars.from_pretrained(args.model, args.device or pick_device())
    sets, evaluated = open_sets(args)
    data = {f'{name}, measured': encode(every(notes, args.measure), m) for name, notes in sets.items()}
    data['train'] = encode(sets['train'], m)
    data['variants'] = encode(AugmentedNotes(sets['train']), m)
    print({name: len(latents) for name, (latents, _) in data.items()}, flush=True)
    return m, data, study_data(m, evaluated)

def run_arm(arm, seed, args, m, data, study):
    result = measure_arm(train_arm(m, data, ARMS[arm], seed, args), m, data, study, seed)
    return dict(result, real=study.info['real'])

def main(argv=None):
    args = parser().parse_args(argv)
    arms = args.arms.split(',')
    runs = run_arms(args, arms, prepare, run_arm)
    settings = 'steps', 'batch_size', 'lr', 'notes', 'measure', 'n', 'seeds', 'precision'
    return write_summary(args, runs, 'teacher forcing', settings, options={arm: ARMS[arm] for arm in arms})

if __name__ == '__main__': main()
