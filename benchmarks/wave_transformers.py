"""Train transformers on tokens of waves and measure their pitch:  python benchmarks/wave_transformers.py --run FOLDER

Takes the tokenizers of benchmarks/wave_tokenizers.py in the same folder and trains AAR on SAT, and flat, delayed and
masked (MAGNeT) prediction on RVQ. With --seconds 1 they are trained on the first second of the notes. Sampling
settings are chosen by the pitch of some held-out notes of known instruments, and measured on others: the share of
generated notes within 50 cents of the requested pitch by pYIN with Wilson's 95 % interval, the same for the
tokenizer's reconstructions (the ceiling), and the Fréchet distance of mel features. Each transformer has a run
folder; an interrupted run continues. Rows are added to those in --out. --clips writes a few generated notes of each as
MP3.
"""
import argparse, json
from pathlib import Path
import torch
from mars.baselines.aar import BaselineConfig, WaveMars
from mars.baselines.comparison import save_clips
from mars.baselines.magnet import DelayPatternConfig, DelayPatternLM, FlatPatternLM, MAGNeT, MAGNeTConfig
from mars.baselines.magnet import generate_hybrid
from mars.eval import frechet_distance
from mars.evaluation.protocol import as_int16
from mars.parts.device import pick_device
from mars.parts.files import write_atomic
from mars.parts.inference import generate
from mars.pipeline import Mars
from mars.studies.prediction import study_splits
from mars.studies.sat import clip_features
from mars.train import TrainConfig, train_var
from mars.training.log import versions
from mars.training.tokens import spread
from mars.var import VAR
from common import device_name, print_table
from wave_tokenizers import agreement, open_data, pitches, training_log

TRANSFORMERS = dict(aar=('sat', VAR, BaselineConfig), flat=('rvq', FlatPatternLM, BaselineConfig),
                    delayed=('rvq', DelayPatternLM, DelayPatternConfig), magnet=('rvq', MAGNeT, MAGNeTConfig))
USUAL = dict(plain={}, top_p=dict(top_p=.9), guided=dict(cfg_scale=2., top_p=.9), argmax=dict(temperature=0.))
MASKED = {'source': {}, 'guidance 2': dict(cfg_scale=2.), 'guidance 2, t 1': dict(cfg_scale=2., temperature=1.),
          'no guidance, t 1': dict(cfg_scale=0., temperature=1.),
          'windows, prod': dict(cfg_scale=2., temperature=1., span_arrangement='stride1'),
          'windows, max': dict(cfg_scale=2., temperature=1., span_arrangement='stride1', span_scoring='max'),
          'chunks, prod': dict(cfg_scale=2., temperature=1., span_scoring='prod')}

def window(m, seconds): # pipeline -> pipeline of a part of the notes, with the same weights
    "Shorten the notes of a tokenizer."
    n = round(seconds*m.sample_rate)
    return m if n == m.n_samples else WaveMars(m.tokenizer.resized(n), info=m.info)

def train(name, notes, run, seconds, preset, fields, device): # -> pipeline with a transformer
    "Train a transformer in a folder, or load the one that is there."
    tokens, model, config = TRANSFORMERS[name]
    folder = run/f'{name}-{seconds:g}s'
    if not (folder/'config.json').exists():
        m = window(Mars.from_pretrained(run/tokens, device), seconds)
        train_var(notes, m, TrainConfig.preset('tiny', 'var', **fields), config.preset(preset), folder, model=model,
                  device=device, progress=False, resume=folder.exists())
    return Mars.from_pretrained(folder, device)

def sample(var, labels, settings, seed=0, batch_size=16): # -> token maps (n, s_k)
    "Sample a note for each request."
    n, parts = len(labels['pitch']), []
    settings = dict(settings)
    delayed, frames = settings.pop('delayed', None), settings.pop('prompt_frames', 0)
    for i in range(0, n, batch_size):
        some = {k: labels[k][i:i+batch_size] for k in var.label_embed.sizes}
        options = dict(seed=seed, first=i, **settings)
        if delayed is None: parts.append(generate(var, some, len(some['pitch']), **options))
        else: parts.append(generate_hybrid(var, delayed, frames, some, prompt_settings=dict(top_p=.9), **options))
    return [torch.cat(t) for t in zip(*parts)]

def measure(waves, pitch, reference): # (n, N), (n,), features -> dict
    "Pitch accuracy, and Fréchet distance to the notes."
    return dict(within=agreement(pitches(waves), pitch),
                frechet=float(frechet_distance(reference, clip_features(waves))))

def count_passes(var):
    "Passes through the transformer for a note."
    return sum(var.validate_sampling().steps) if isinstance(var, MAGNeT) else len(var.pass_lengths)

def evaluate(m, settings, tune, test): # pipeline, name -> settings, notes of two sets -> dict, waves
    "Choose settings on one set of requests, and measure them on another."
    n = m.n_samples
    def load(notes):
        waves, labels = notes.batch(range(len(notes)))
        return waves[:, :n].float()/32768, labels
    def decode(labels, options): return m.decode(sample(m.var, labels, options)).cpu()
    (_, wanted), (waves, labels) = load(tune), load(test)
    tried = {name: agreement(pitches(decode(wanted, s)), wanted['pitch'].numpy())[0] for name, s in settings.items()}
    best = max(tried, key=tried.get)
    pitch, reference = labels['pitch'].numpy(), clip_features(waves)
    reconstruction, generated = m.decode(m.encode(waves)).cpu(), decode(labels, settings[best])
    return dict(sampling=best, tried=tried, passes=count_passes(m.var), tokens=m.tokenizer.cfg.n_tokens,
                parameters=sum(p.numel() for p in m.var.parameters()), notes=measure(waves, pitch, reference),
                reconstruction=measure(reconstruction, pitch, reference),
                generated=measure(generated, pitch, reference)), generated

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('names', nargs='*', default=[*TRANSFORMERS], help=f'of {", ".join(TRANSFORMERS)}; default: all')
    ap.add_argument('--run', type=Path, required=True, help='folder of the tokenizers and the transformers')
    ap.add_argument('--seconds', type=float, default=4., help='of a note, from its start; default: %(default)g')
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, default=4000, help='optimiser steps; default: %(default)s')
    ap.add_argument('--batch-size', type=int, default=16, help='notes a step; default: %(default)s')
    ap.add_argument('--lr', type=float, default=2e-3, help='peak learning rate; default: %(default)s')
    ap.add_argument('--seed', type=int, default=0, help='of weights and batches; default: %(default)s')
    ap.add_argument('--data', help="auto, additive, an .sf2 or .sf3 file, or a folder in NSynth's layout")
    ap.add_argument('--n', type=int, default=96, help='requests; default: %(default)s')
    ap.add_argument('--n-tune', type=int, default=32, help='requests that choose the settings; default: %(default)s')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--out', type=Path, help='a JSON file')
    ap.add_argument('--clips', type=Path, help='folder of MP3 files; default: none are written')
    return ap

def main(argv=None, notes=None):
    "notes: in place of those of --data."
    args = parser().parse_args(argv)
    notes = notes or open_data(args.data)
    training, held_out, _, _ = study_splits(notes)
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(1))
    tune, test = held_out.select(order[:args.n_tune]), held_out.select(order[args.n_tune:][:args.n])
    fields = dict(steps=args.steps, batch_size=args.batch_size, lr=args.lr, seed=args.seed)
    device, result = pick_device(args.device), dict(rows={})
    for name in args.names:
        m = train(name, training, args.run, args.seconds, args.preset, fields, device)
        settings = dict(MASKED if name == 'magnet' else USUAL)
        if name == 'magnet' and 'delayed' in args.names:
            delayed = train('delayed', training, args.run, args.seconds, args.preset, fields, device).var
            settings['rescoring'] = dict(cfg_scale=2., temperature=1., rescorer=delayed)
            settings['hybrid'] = dict(cfg_scale=2., temperature=1., delayed=delayed, prompt_frames=m.var.n_frames//4)
        row, waves = evaluate(m, settings, tune, test)
        log = training_log(args.run/f'{name}-{args.seconds:g}s', 'loss')
        result['rows'][name] = dict(row, train=m.info['train_var'], training=log)
        some = spread(len(test), 3)
        if args.clips: save_clips(args.clips, {name: as_int16(waves[some])}, [test.notes[i] for i in some])
        print_table(name, [dict(settings=k, within=v) for k, v in row['tried'].items()])
    result |= dict(info=dict(versions(device), device=device_name(device)), preset=args.preset, seconds=args.seconds,
                   requests=len(test), training_notes=len(training))
    if args.out:
        before = json.loads(args.out.read_text())['rows'] if args.out.exists() else {}
        write_atomic(args.out, json.dumps(dict(result, rows={**before, **result['rows']}), indent=1) + '\n')
    def table_row(name, r):
        g, ceiling = r['generated'], r['reconstruction']
        return dict(row=name, settings=r['sampling'], passes=r['passes'], within=g['within'][0],
                    ceiling=ceiling['within'][0], frechet=g['frechet'], floor=ceiling['frechet'])
    print_table('generation', [table_row(n, r) for n, r in result['rows'].items()])
    return result

if __name__ == '__main__': main()
