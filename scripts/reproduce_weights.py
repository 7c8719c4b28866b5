"""Train the packaged weights again, on one GPU:  python scripts/reproduce_weights.py --out FOLDER [--stages ...]

The commands of this release, which train tokenizer and transformer, vocoder and mel-PCA, and classifier:

    python scripts/reproduce_weights.py --out runs/small --stages tokenizer,var,further --hold-out 0.05 \\
      --renderer tinysoundfont --workers 16 --data FluidR3Mono_GM.sf3 --data MuseScore_General_Lite.sf3 \\
      --data recorded --data recorded --data recorded --data recorded
    python scripts/reproduce_weights.py --out runs/fluid --stages vocoder,melpca --data FluidR3_GM.sf2
    python scripts/reproduce_weights.py --out runs/classifier --stages classifier --renderer tinysoundfont \\
      --steps 3000 --data FluidR3_GM.sf2 --data MuseScore_General_Lite.sf3 \\
      --data recorded --data recorded --data recorded --data more --data more --data more
    python scripts/reproduce_weights.py --out runs/corrected --stages corrected --init runs/small/further \\
      --old-classifier FOLDER --hold-out 0.05 --renderer tinysoundfont --measure 192 \\
      --data FluidR3Mono_GM.sf3 --data MuseScore_General_Lite.sf3 (and --data recorded, --data more six times each)

Prints the errors of the trained models. OUT/model, OUT/further, OUT/vocoder and OUT/classifier are run folders;
OUT/weights holds the files of the package, in half precision; OUT/training.json holds errors and learning curves.
`benchmarks/sampling.py --write` then chooses the model's sampling settings. A checkpoint is saved every 250 steps and
on SIGTERM. The same command with --resume continues from it and, on the CPU, ends with the same weights.

Data. A SoundFont (Debian: fluid-soundfont-gm, fluidr3mono-gm-soundfont, musescore-general-soundfont-small) is rendered
at pitches 36 to 96 and five velocities; for the classifier at two velocities, and at pitches 21 to 35 and 97 to 108 at
one. Labels are the pitches that sound. `recorded` and `more` are folders in NSynth's layout; a source that is named n
times counts n times in training. The package contains 47 of the recorded notes (mars/examples); CREDITS.md lists the
sources of all. scripts/split.json names the instruments of the validation and test sides, of the model and of the
classifier; an instrument that shares recordings with one of those is on the same side. --hold-out removes that share
of the pitches of the remaining instruments.

Settings. `RECIPES['small']` has those of this release. Tokenizer and transformer: bfloat16 on one H100, 4,259 steps of
256 notes, then 2,856 and, from those weights, 1,623 more; 38,958 training notes (recorded ones counted four times). No
discriminator. Vocoder: 2,880 of the 4,000 steps, then 500 at a learning rate of 1.5e-3 in bfloat16, on the CPU.
Classifier: 3,000 steps in bfloat16 on the CPU, with the weights of the best of the validations every 250 steps. Stage
`corrected`: 750 steps of 32 notes in bfloat16 on the CPU, on 7,000 evenly spaced training notes and one augmented
variant of each, from the weights of the stage `further`, which were trained with an earlier classifier and on pitches
of keys (--old-classifier maps its features). A GPU's sums differ from run to run: a new run gives equivalent weights,
not identical ones.
"""
import argparse, json
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
import torch
from mars.data import AdditiveNotes, NSynth, SoundFontNotes, default_notes
from mars.data.augment import AugmentedNotes
from mars.eval import cents_error, f0
from mars.evaluation.classifier import measure_classifier, train_classifier
from mars.evaluation.protocol import MelPCA, NoteSet
from mars.parts.classifier import Classifier, ClassifierConfig
from mars.parts.reference import reference_config, reference_encoder
from mars.parts.device import pick_device
from mars.parts.files import write_atomic
from mars.parts.vocoder import Vocoder, VocoderConfig, train_vocoder, vocoder_train_config
from mars.pipeline import Mars
from mars.tokenizer import TokenizerConfig
from mars.train import TrainConfig, train_tokenizer, train_var
from mars.training.checkpoints import CheckpointManager
from mars.training.log import read_log, versions
from mars.training.reconstruction import reconstruction_error
from mars.training.self_correction import CorrectionConfig, SelfCorrection
from mars.training.tokens import SameInstrumentSampler, embed_notes, tokenize
from mars.var import VARConfig

ROOT = Path(__file__).resolve().parent.parent
GPU = dict(batch_size=256, final_lr_ratio=0.02, log_every=50)
RECIPES = dict(  # differences from the presets
    small=dict(tokenizer=dict(steps=4259, lr=1e-3, warmup=150, ema=0.999, **GPU),
               var=dict(steps=2856, lr=1e-3, warmup=150, ema=0.999, **GPU),
               var_config=dict(reference_dim=128, reference_dropout=0.5),
               further=dict(steps=1623, lr=8e-4, warmup=60, ema=0.998, **GPU),
               corrected=dict(steps=750, batch_size=32, lr=3e-4, warmup=40, final_lr_ratio=0.02, weight_decay=0.1,
                              ema=0.995, precision='bf16', save_every=100, log_every=1),
               vocoder=dict(steps=4000),
               classifier=dict(steps=3000, lr=2e-3, precision='bf16', save_every=500, log_every=50)),
    tiny={})
OUTPUTS = dict(  # a stage is complete when OUT contains this file
    tokenizer='model/config.json', var='model/var.safetensors', further='further/var.safetensors',
    corrected='corrected/var.safetensors',
    vocoder='vocoder/vocoder.json', classifier='classifier/config.json', melpca='weights/melpca/melpca.safetensors')
CURVE = ('stage', 'step', 'lr', 'recon', 'vq', 'loss', 'grad_norm', 'revived', 'skipped', 'valid', 'seconds',
         'notes_per_second', 'memory_mib')
CORRECTED = dict(config=dict(dropout=0.1), objective=dict(self_correction=0.3, scale_weight='sqrt'))
MODEL = [dict(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127))]
CLASSIFIER = [dict(pitches=range(36, 97), velocities=(40, 110)),
              dict(pitches=(*range(21, 36), *range(97, 109)), velocities=(100,))]
QUICK = [dict(pitches=(60, 66), velocities=(100,))]

# ---- notes

def join(sources):
    "The notes of several sources as one set."
    first, *rest = sources
    for notes in rest: first = first + notes
    return first

def open_source(name, grids, renderer='auto'):
    "Open one source of notes: 'auto', 'additive', a SoundFont, or a folder in NSynth's layout."
    if name == 'additive': return join(AdditiveNotes(None, **grid) for grid in grids)
    if name == 'auto': return join(default_notes(**grid) for grid in grids)
    if Path(name).suffix in ('.sf2', '.sf3'):
        return join(SoundFontNotes(name, renderer=renderer, **grid) for grid in grids)
    return NSynth(name, split=None).filter(pitches=sorted({p for grid in grids for p in grid['pitches']}))

def open_data(names, grids=MODEL, renderer='auto'):
    "Open several sources as one; a name that is given n times counts n times."
    return join(open_source(name, grids, renderer) for name in names)

def every(notes, n):
    "At most n notes, evenly spaced."
    return notes.select(range(0, len(notes), max(1, -(-len(notes)//n))))

def side_of(instrument, patterns):
    "The first of unused, test and valid with a matching pattern, else train."
    for side in ('unused', 'test', 'valid'):
        if any(fnmatch(instrument, pattern) for pattern in patterns.get(side, ())): return side
    return 'train'

def split_by_names(notes, patterns):
    """Split by patterns of instrument names (keys valid, test, unused) -> train, valid, test. An instrument that shares
    recordings with a held-out one is on its side."""
    sides = {instrument: side_of(instrument, patterns) for instrument in notes.instruments}
    def recordings(instrument): return {*notes.recordings.get(instrument, ())}
    for held_out in ('test', 'valid'):
        shared = {r for instrument, side in sides.items() if side == held_out for r in recordings(instrument)}
        for instrument, side in sides.items():
            if side == 'train' and shared & recordings(instrument): sides[instrument] = held_out
    return [notes.select([i for i, note in enumerate(notes.notes) if sides[note.instrument] == side])
            for side in ('train', 'valid', 'test')]

@dataclass
class Sides:
    "The notes of the model or of the classifier."
    grids:list    # pitches and velocities that were rendered
    notes:object  # all notes
    train:object
    held:object   # held-out pitches of training instruments
    valid:object
    test:object

def open_sides(args, which):
    "Open and split the notes of 'model' or 'classifier'; repeated sources count in training only."
    grids = QUICK if args.quick else dict(model=MODEL, classifier=CLASSIFIER)[which]
    patterns = json.loads(args.split.read_text())[which]
    notes = open_data(args.data, grids, args.renderer)
    train, *_ = split_by_names(notes, patterns)
    _, valid, test = split_by_names(open_data(dict.fromkeys(args.data), grids, args.renderer), patterns)
    for name, side in dict(training=train, validation=valid, test=test).items():
        if not len(side):
            raise SystemExit(f'the {name} side of {args.split} has none of these notes; name its instruments there, '
                             'or give other --data')
    train, held = train.split_by_pitch(args.hold_out) if which == 'model' else (train, train.select([]))
    return Sides(grids, notes, train, held, valid, test)

def _render_part(job):
    names, grids, renderer, first, step = job
    notes = open_data(names, grids, renderer)
    for i in range(first, len(notes), step): notes.samples(i)

def render(args):
    "Render all notes in several processes; later passes read the cache."
    grids = QUICK if args.quick else MODEL + CLASSIFIER*('classifier' in args.stages)
    jobs = [([*dict.fromkeys(args.data)], grids, args.renderer, i, args.workers) for i in range(args.workers)]
    with get_context('spawn').Pool(args.workers) as pool: pool.map(_render_part, jobs, chunksize=1)

def note_keys(notes): return {(n.instrument, n.pitch, n.velocity, n.note_str) for n in notes.notes}

def describe_data(args, sides):
    "The training notes, for config.json."
    keys, sources = {name: note_keys(getattr(sides, name)) for name in ('train', 'held', 'valid', 'test')}, {}
    for name, times in Counter(args.data).items():
        source_keys = note_keys(open_source(name, sides.grids, args.renderer))
        counts = {side: len(source_keys & k) for side, k in keys.items()}
        instruments = len({instrument for instrument, *_ in source_keys & keys['train']})
        sources[Path(name).name] = dict(notes=counts['train'], times=times, instruments=instruments,
                                        held_out_pitches=counts['held'], valid=counts['valid'], test=counts['test'])
    pitches, velocities = [n.pitch for n in sides.train.notes], [n.velocity for n in sides.train.notes]
    families = {}
    for n in sides.train.notes: families.setdefault(n.family, set()).add(n.source)
    credits = sorted({f'{c.source} ({c.licence}): {c.attribution}' for c in sides.notes.credits})
    return dict(label='sound', notes=len(sides.train), instruments=len(sides.train.instruments),
                held_out=sides.test.instruments + sides.valid.instruments, pitches=[min(pitches), max(pitches)],
                velocities=[min(velocities), max(velocities)],
                families={family: sorted(sources) for family, sources in sorted(families.items())},
                hold_out=args.hold_out, renderer=args.renderer, sources=sources, credits=credits)

# ---- training

def log_stage(stage): return 'var' if stage in ('further', 'corrected') else stage

def train_config(args, stage):
    "The training settings of a stage."
    options = {**RECIPES[args.preset].get(stage, {})}
    if args.steps: options |= dict(steps=args.steps, log_every=1)
    if args.batch_size: options |= dict(batch_size=args.batch_size)
    if stage == 'vocoder': return vocoder_train_config(args.preset, **options)
    return TrainConfig.preset(args.preset, log_stage(stage), **options)

def train_transformer(args, stage, train, folder, **options):
    "Train the transformer ('var'), or continue from its weights with new settings ('further')."
    m, further = Mars.from_pretrained(args.out/'model'), stage == 'further'
    if further: m.info = {**m.info, 'before': m.info['train_var']}
    if not (folder/'config.json').exists():
        Mars(m.tokenizer, None, m.cmx, m.spectrogram, m.info).save_pretrained(folder)
    fields = RECIPES[args.preset].get('var_config', {})
    cfg = reference_config(VARConfig, fields).preset(args.preset, **fields)
    train_var(train, m, train_config(args, stage), cfg, folder, init=m.var if further else None, **options)

def adapt_reference(m, old, new, notes):
    """Replace the layer that embeds reference sounds: the features of `new` are mapped to those of `old` by least
    squares first. Returns the share of the variance of the old features that the map explains."""
    x, y = (embed_notes(notes, encoder).double() for encoder in (new, old))
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram = (x - mean_x).T @ (x - mean_x)
    ridge = 1e-3*gram.diagonal().mean()*torch.eye(len(gram), dtype=gram.dtype)
    A = torch.linalg.solve(gram + ridge, (x - mean_x).T @ (y - mean_y)) # y is about (x - mean_x) A + mean_y
    layer = m.var.label_embed.reference
    weight, bias = layer.weight.double(), layer.bias.double()
    layer.weight.data = (weight @ A.T).float()
    layer.bias.data = (bias + weight @ (mean_y - mean_x @ A)).float()
    error = (x - mean_x) @ A + mean_y - y
    return 1 - float(error.square().sum()/(y - mean_y).square().sum())

def train_corrected(args, train, folder, **options):
    "Continue from the weights of --init with corrected labels, augmentation, dropout and self-correction."
    m, train = Mars.from_pretrained(args.init), AugmentedNotes(every(train, args.notes))
    fields = {**vars(m.var.cfg), **CORRECTED['config']}
    m.info = {**m.info, 'further': m.info['train_var']}
    if args.old_classifier:
        old, new = Classifier.from_pretrained(args.old_classifier), Classifier.from_pretrained()
        m.info['reference_map'] = adapt_reference(m, old, new, every(train.parent, 2000))
        print(f'old features explained by the new ones: {m.info["reference_map"]:.3f}', flush=True)
    if not (folder/'config.json').exists():
        Mars(m.tokenizer, None, m.cmx, m.spectrogram, m.info).save_pretrained(folder)
    objective = SelfCorrection(CorrectionConfig(**CORRECTED['objective']))
    train_var(train, m, train_config(args, 'corrected'), type(m.var.cfg).from_dict(fields), folder, init=m.var,
              objective=objective, **options)

def fit_melpca(notes, folder):
    folder.mkdir(parents=True, exist_ok=True)
    MelPCA().fit(NoteSet(notes, name='the training notes')).save(folder/'melpca.safetensors')

def train_stage(args, stage, sides):
    "Train one stage in its run folder, from its checkpoint if there is one."
    folder, train = (args.out/OUTPUTS[stage]).parent, sides.train
    if stage == 'melpca': return fit_melpca(train, folder)
    cfg, options = train_config(args, stage), dict(device=args.device, progress=args.progress, resume=True)
    if stage == 'tokenizer': train_tokenizer(train, cfg, TokenizerConfig.preset(args.preset), folder, **options)
    elif stage == 'vocoder': train_vocoder(train, cfg, VocoderConfig.preset(args.preset), folder, **options)
    elif stage == 'classifier':
        train_classifier(train, every(sides.valid, 1500), cfg, ClassifierConfig.preset(args.preset), folder,
                         valid_every=args.valid_every, **options)
    elif stage == 'corrected': train_corrected(args, train, folder, **options)
    else: train_transformer(args, stage, train, folder, **options)

# ---- results

@torch.no_grad()
def cross_entropy(m, notes):
    """Nats a token by teacher forcing, given the labels and, for a model with reference conditioning, given the labels
    and another note of the instrument."""
    tokens, labels = tokenize(notes, m)
    labels = {k: v for k, v in labels.items() if k in m.var.label_embed.sizes}
    conditions, totals = {'nats a token, labels': labels}, Counter()
    if 'reference' in m.var.label_embed.nulls:
        embeddings = embed_notes(notes, reference_encoder(m.var.cfg, None, m.device))
        index = torch.as_tensor(SameInstrumentSampler(notes).at(0, range(len(notes))))
        conditions['nats a token, like'] = {**labels, 'reference': embeddings[index].to(m.device)}
    for name, condition in conditions.items():
        for i in range(0, len(notes), 64):
            batch = [t[i:i+64] for t in tokens]
            loss, _ = m.var.loss(batch, {k: v[i:i+64] for k, v in condition.items()})
            totals[name] += float(loss)*len(batch[0])
    return {name: totals[name]/len(notes) for name in conditions}

def share_in_tune(waves, notes):
    "Share of waves within 50 cents of the pitch of their note; an unvoiced wave (NaN) counts as wrong."
    cents = [float(cents_error(float(f0(wave).midi), note.pitch)) for wave, note in zip(waves, notes.notes)]
    return sum(abs(c) <= 50 for c in cents)/len(notes)

def measure_pitch(m, notes, **sampling):
    "Share in tune of real notes and of notes generated with the same labels."
    labels = {k: [getattr(note, k) for note in notes.notes] for k in ('pitch', 'family', 'source', 'velocity')}
    generated = share_in_tune(m.generate(**labels, seed=0, progress=False, **sampling), notes)
    real = share_in_tune((notes[i][0] for i in range(len(notes))), notes)
    return dict(notes=len(notes), generated=generated, real=real, **sampling)

def measure(m, sets, n):
    "Errors of the tokenizer and cross-entropy of the transformer on n notes of each set, and the generated pitch."
    subsets, results = {name: every(notes, n) for name, notes in sets.items() if len(notes)}, {}
    for name, notes in subsets.items():
        error = reconstruction_error(m, notes)
        if m.var: error |= cross_entropy(m, notes)
        results[f'reconstruction, {name}'] = dict(notes=len(notes), **error)
    if m.var: results['pitch within 50 cents'] = measure_pitch(m, subsets['seen'], top_k=20, cfg_scale=2.)
    return results

def learning_curve(folder, stage, n=100):
    "About n rows of a stage's log, and its last."
    def compact(row): return {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items() if k in CURVE}
    rows = [row for row in read_log(folder) if row['stage'] == stage]
    return [compact(row) for row in rows[::max(1, len(rows)//n)] + rows[-1:]]

def release_model(args, stage, sides, data):
    "Write tokenizer and transformer in half precision, with data and results in config.json -> results."
    m = Mars.from_pretrained((args.out/OUTPUTS[stage]).parent, args.device or pick_device())
    sets = {'seen': sides.train, 'seen, held out': sides.held, 'valid': sides.valid, 'test': sides.test}
    results = measure(m, sets, args.measure)
    m.info |= dict(data=data, results=results)
    if args.note: m.info['note'] = args.note
    m.save_pretrained(args.out/'weights'/args.preset, half=True)
    return results

def release_vocoder(args, data):
    vocoder = Vocoder.from_pretrained(args.out/'vocoder')
    vocoder.info['data'] = data
    vocoder.save(args.out/'weights'/'vocoder', half=True)

def release_classifier(args, test, data):
    "Write the classifier in half precision, with data and accuracy in config.json -> accuracy."
    classifier = Classifier.from_pretrained(args.out/'classifier')
    result, keys = measure_classifier(classifier, test), ('pitch', 'pitch_1', 'pitch_octave', 'family', 'source')
    accuracy = {k: result[k] for k in ('notes', 'instruments', *keys)}
    classifier.info |= dict(data=data, accuracy=dict(test=accuracy))
    classifier.save_pretrained(args.out/'weights'/'classifier', half=True)
    return accuracy

def release(args, sides):
    "Write the weights of all stages in half precision -> results."
    results, data = {}, {which: describe_data(args, s) for which, s in sides.items()}
    last = next((stage for stage in ('corrected', 'further', 'var', 'tokenizer') if stage in args.stages), None)
    if last: results |= release_model(args, last, sides['model'], data['model'])
    if 'vocoder' in args.stages: release_vocoder(args, data['model'])
    if 'classifier' in args.stages:
        results['classifier, test'] = release_classifier(args, sides['classifier'].test, data['classifier'])
    return results

# ---- command

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, required=True, help='folder of the run')
    ap.add_argument('--preset', default='small', choices=[*RECIPES], help='default: %(default)s')
    ap.add_argument('--stages', default='tokenizer,var,further',
                    help=f'some of {", ".join(OUTPUTS)}; default: %(default)s')
    ap.add_argument('--data', action='append',
                    help="auto, additive, an .sf2 or .sf3 file, or an NSynth folder; repeatable; default: auto")
    ap.add_argument('--split', type=Path, default=ROOT/'scripts'/'split.json',
                    help='JSON file: patterns of the held-out instruments; default: scripts/split.json')
    ap.add_argument('--init', default='small',
                    help='folder or packaged weights that the stage corrected starts from; default: %(default)s')
    ap.add_argument('--old-classifier', type=Path, metavar='FOLDER',
                    help="the classifier that --init was trained with, where it is not the packaged one")
    ap.add_argument('--notes', type=int, default=7000,
                    help='training notes of the stage corrected, at most; default: %(default)s')
    ap.add_argument('--hold-out', type=float, default=0., metavar='SHARE',
                    help='share of the pitches of training instruments to hold out, 0 to 1; default: %(default)s')
    ap.add_argument('--renderer', default='auto', help='auto, fluidsynth or tinysoundfont; default: %(default)s')
    ap.add_argument('--workers', type=int, default=1, help='processes that render notes, >= 1; default: %(default)s')
    ap.add_argument('--resume', action='store_true', help='continue an interrupted run')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--steps', type=int, help="optimiser steps of every stage, >= 1; default: the recipe's")
    ap.add_argument('--batch-size', type=int, help="notes a step, >= 1; default: the recipe's")
    ap.add_argument('--valid-every', type=int, default=250,
                    help='steps of the classifier between validations; default: %(default)s')
    ap.add_argument('--measure', type=int, default=96, metavar='N',
                    help='notes of each side to evaluate; default: %(default)s')
    ap.add_argument('--note', default='', help='a sentence for config.json')
    ap.add_argument('--quick', action='store_true', help='two pitches and one velocity of every instrument, for a test')
    ap.add_argument('--progress', action='store_true', help='show progress bars')
    return ap

def has_started(args, stage):
    "Whether OUT contains a checkpoint or the result of a stage."
    path = args.out/OUTPUTS[stage]
    return path.exists() or bool(CheckpointManager(path.parent, log_stage(stage), {}).files())

def parse_args(argv):
    "Parse and check the arguments; `stages` becomes a list in the order of training."
    ap = parser()
    args = ap.parse_args(argv)
    stages = args.stages.split(',')
    if unknown := sorted({*stages} - {*OUTPUTS}):
        ap.error(f'stage {unknown[0]!r} is unknown; choose some of {", ".join(OUTPUTS)}')
    args.stages, args.data = [stage for stage in OUTPUTS if stage in stages], args.data or ['auto']
    for stage, required in dict(var='tokenizer', further='var').items():
        if stage in stages and required not in stages and not (args.out/OUTPUTS[required]).exists():
            ap.error(f'stage {stage} needs the stage {required}; add it to --stages')
    started = [stage for stage in args.stages if has_started(args, stage)]
    if started and not args.resume:
        ap.error(f'{args.out} holds a {started[0]} already; add --resume to continue, or choose another folder')
    return args

def notes_of(stage): return 'classifier' if stage == 'classifier' else 'model'

def main(argv=None):
    args = parse_args(argv)
    if args.workers > 1: render(args)
    sides = {which: open_sides(args, which) for which in dict.fromkeys(map(notes_of, args.stages))}
    for stage in args.stages:
        if (args.out/OUTPUTS[stage]).exists(): continue
        s = sides[notes_of(stage)]
        print(f'{stage}: {len(s.train)} training notes of {len(s.train.instruments)} instruments; held out: '
              f'{len(s.held)} by pitch, {len(s.valid)} and {len(s.test)} by instrument', flush=True)
        train_stage(args, stage, s)
    results = release(args, sides)
    names, curves = dict(var='transformer', further='transformer_further', corrected='transformer_corrected'), {}
    for stage in args.stages:
        if stage == 'melpca': continue
        curves[names.get(stage, stage)] = learning_curve((args.out/OUTPUTS[stage]).parent, log_stage(stage))
    summary = dict(info=versions(pick_device(args.device)), results=results, curves=curves)
    write_atomic(args.out/'training.json', json.dumps(summary, indent=1))
    print(json.dumps(results, indent=1))
    return 0

if __name__ == '__main__': raise SystemExit(main())
