"""Train the packaged weights again, on one GPU: notes, then tokenizer, transformer, vocoder, classifier and mel-PCA.

    python scripts/reproduce_weights.py --out runs/small --stages tokenizer,var,further --hold-out 0.05 --renderer tinysoundfont --workers 16 \\
      --data FluidR3Mono_GM.sf3 --data MuseScore_General_Lite.sf3 --data recorded --data recorded --data recorded --data recorded
    python scripts/reproduce_weights.py --out runs/fluid --stages vocoder,melpca --data FluidR3_GM.sf2
    python scripts/reproduce_weights.py --out runs/classifier --stages classifier --data FluidR3_GM.sf2 --data recorded --data recorded --data recorded

Every 250 steps, and on SIGTERM, a checkpoint is saved. The same command with --resume continues from it and, on the CPU, ends with the
same weights. OUT/model, OUT/further, OUT/vocoder and OUT/classifier are run folders; OUT/weights holds what the package ships, in half
precision; OUT/training.json holds errors and learning curves. `benchmarks/sampling.py --write` then chooses how the model samples.

Data. A SoundFont (Debian: fluid-soundfont-gm, fluidr3mono-gm-soundfont, musescore-general-soundfont-small) is rendered at pitches 36..96 and
five velocities; for the classifier at three velocities, and at 21..35 and 97..108 at two. `recorded` is a folder in NSynth's layout; a source that
is named n times counts n times in training. The package ships 47 of the recorded notes (mars/examples); CREDITS.md lists the sources of all.
scripts/split.json names the instruments of the validation and test sides, of the model and of the classifier; an instrument that shares
recordings with one of those is on the same side. --hold-out removes that share of the pitches of the remaining instruments.

Settings of the weights of this release are in `RECIPES['small']`. Tokenizer and transformer: bfloat16 on one H100, 4,259 steps of 256 notes, then
2,856 and, from those weights, 1,623 more; 38,958 training notes (recorded ones counted four times). No discriminator. Vocoder: 2,880 of the 4,000
steps, then 500 at a learning rate of 1.5e-3 in bfloat16, on the CPU. Classifier: 3,000 steps in bfloat16 on the CPU, with the weights of the best of
the validations that happen every 250 steps. A GPU's sums differ from run to run, so a new run gives equivalent weights, not identical ones.
"""
import argparse, json
from collections import Counter
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
import torch
from mars.data import AdditiveNotes, NSynth, SoundFontNotes, default_notes
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
from mars.training.tokens import SameInstrumentSampler, embed_notes, tokenize
from mars.var import VARConfig

ROOT = Path(__file__).resolve().parent.parent
GPU = dict(batch_size=256, final_lr_ratio=0.02, log_every=50)
RECIPES = dict( # what differs from the presets
    small=dict(tokenizer=dict(steps=4259, lr=1e-3, warmup=150, ema=0.999, **GPU),
               var=dict(steps=2856, lr=1e-3, warmup=150, ema=0.999, **GPU), var_config=dict(reference_dim=128, reference_dropout=0.5),
               further=dict(steps=1623, lr=8e-4, warmup=60, ema=0.998, **GPU),
               vocoder=dict(steps=4000), classifier=dict(steps=3000, lr=2e-3, precision='bf16', save_every=500, log_every=50)),
    tiny={})
MADE = dict(tokenizer='model/config.json', var='model/var.safetensors', further='further/var.safetensors', vocoder='vocoder/vocoder.json',
            classifier='classifier/config.json', melpca='weights/melpca/melpca.safetensors') # a stage is done when OUT holds this file
CURVE = 'stage', 'step', 'lr', 'recon', 'vq', 'loss', 'grad_norm', 'revived', 'skipped', 'valid', 'seconds', 'notes_per_second', 'memory_mib'
MODEL = [dict(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127))]
CLASSIFIER = [dict(pitches=range(36, 97), velocities=(25, 75, 127)), dict(pitches=(*range(21, 36), *range(97, 109)), velocities=(50, 100))]
QUICK = [dict(pitches=(60, 66), velocities=(100,))]

# ---- notes

def open_source(name, grids, renderer='auto'):
    "Open one source of notes: 'auto', 'additive', a SoundFont, or a folder in NSynth's layout."
    if name == 'additive': return join(AdditiveNotes(None, **g) for g in grids)
    if name == 'auto': return join(default_notes(**g, label='key') for g in grids)
    if Path(name).suffix in ('.sf2', '.sf3'): return join(SoundFontNotes(name, renderer=renderer, **g, label='key') for g in grids)
    return NSynth(name, split=None).filter(pitches=sorted({p for g in grids for p in g['pitches']}))

def join(sources):
    first, *rest = sources
    for notes in rest: first = first + notes
    return first

def open_data(names, grids=MODEL, renderer='auto'):
    "Open several sources as one; a name that is given n times counts n times."
    return join(open_source(name, grids, renderer) for name in names)

def split_by_names(notes, sides): # sides: dict of lists of patterns of instruments: valid, test, unused
    "Split as a dict of patterns says; an instrument that shares recordings with a held-out one is on its side."
    side = {i: next((s for s in ('unused', 'test', 'valid') if any(fnmatch(i, p) for p in sides.get(s, ()))), 'train') for i in notes.instruments}
    for s in ('test', 'valid'):
        keys = {k for i, where in side.items() if where == s for k in notes.recordings.get(i, ())}
        side |= {i: s for i, where in side.items() if where == 'train' and keys & {*notes.recordings.get(i, ())}}
    return [notes.select([i for i, n in enumerate(notes.notes) if side[n.instrument] == s]) for s in ('train', 'valid', 'test')]

def make_sides(a, which): # -> namespace: grids, notes (all), train, held (pitches of training instruments), valid, test
    "Open and split the notes of the model or of the classifier; repeated sources count in training only."
    grids, sides = QUICK if a.quick else dict(model=MODEL, classifier=CLASSIFIER)[which], json.loads(a.split.read_text())[which]
    notes = open_data(a.data, grids, a.renderer)
    train, (_, valid, test) = split_by_names(notes, sides)[0], split_by_names(open_data(dict.fromkeys(a.data), grids, a.renderer), sides)
    for name, side in dict(training=train, validation=valid, test=test).items():
        if not len(side): raise SystemExit(f'the {name} side of {a.split} has none of these notes; name its instruments there, or give other --data')
    train, held = train.split_by_pitch(a.hold_out) if which == 'model' else (train, train.select([]))
    return SimpleNamespace(grids=grids, notes=notes, train=train, held=held, valid=valid, test=test)

def _render(job):
    names, grids, renderer, part, parts = job
    notes = open_data(names, grids, renderer)
    for i in range(part, len(notes), parts): notes.samples(i)

def render(a):
    "Make all notes in several processes; later passes read the cache."
    grids = QUICK if a.quick else MODEL + CLASSIFIER*('classifier' in a.stages)
    with get_context('spawn').Pool(a.workers) as pool: pool.map(_render, [([*dict.fromkeys(a.data)], grids, a.renderer, i, a.workers) for i in range(a.workers)], chunksize=1)

def key_of(note): return note.instrument, note.pitch, note.velocity, note.note_str

def describe_data(a, s):
    "What a config.json says of the notes behind its weights."
    keys = {name: {key_of(n) for n in getattr(s, name).notes} for name in ('train', 'held', 'valid', 'test')}
    sources = {}
    for name, times in Counter(a.data).items():
        mine = {key_of(n) for n in open_source(name, s.grids, a.renderer).notes}
        sources[Path(name).name] = dict(notes=len(mine & keys['train']), times=times, instruments=len({k[0] for k in mine & keys['train']}),
                                        held_out_pitches=len(mine & keys['held']), valid=len(mine & keys['valid']), test=len(mine & keys['test']))
    pitches = [n.pitch for n in s.train.notes]
    return dict(notes=len(s.train), instruments=len(s.train.instruments), held_out=s.test.instruments + s.valid.instruments, pitches=[min(pitches), max(pitches)],
                hold_out=a.hold_out, renderer=a.renderer, sources=sources, credits=sorted({f'{c.source} ({c.licence}): {c.attribution}' for c in s.notes.credits}))

# ---- training

def settings(a, stage):
    "The training settings of a stage."
    own = {**RECIPES[a.preset].get(stage, {}), **({'steps': a.steps, 'log_every': 1} if a.steps else {}), **({'batch_size': a.batch_size} if a.batch_size else {})}
    return vocoder_train_config(a.preset, **own) if stage == 'vocoder' else TrainConfig.preset(a.preset, 'var' if stage == 'further' else stage, **own)

def train_stage(a, stage, train, valid):
    "Train one stage in its run folder, from its checkpoint if there is one."
    folder, how = (a.out/MADE[stage]).parent, dict(device=a.device, progress=a.progress)
    if stage == 'tokenizer': train_tokenizer(train, settings(a, stage), TokenizerConfig.preset(a.preset), folder, resume=True, **how)
    if stage in ('var', 'further'):
        first = Mars.from_pretrained(a.out/'model')
        info = first.info if stage == 'var' else {**first.info, 'before': first.info['train_var']}
        if not (folder/'config.json').exists(): Mars(first.tokenizer, None, first.cmx, first.spectrogram, info).save_pretrained(folder)
        fields = RECIPES[a.preset].get('var_config', {})
        cfg = reference_config(VARConfig, fields).preset(a.preset, **fields)
        first.info = info
        train_var(train, first, settings(a, stage), cfg, folder, resume=True, init=first.var if stage == 'further' else None, **how)
    if stage == 'vocoder': train_vocoder(train, settings(a, stage), VocoderConfig.preset(a.preset), folder, resume=True, **how)
    if stage == 'classifier': train_classifier(train, every(valid, 1500), settings(a, stage), ClassifierConfig.preset(a.preset), folder, valid_every=a.valid_every, resume=True, **how)
    if stage == 'melpca': folder.mkdir(parents=True, exist_ok=True); MelPCA().fit(NoteSet(train, name='the training notes')).save(folder/'melpca.safetensors')

def every(notes, n):
    "At most n notes, evenly spaced."
    return notes.select(range(0, len(notes), max(1, -(-len(notes)//n))))

# ---- what is written

@torch.no_grad()
def nats(m, notes):
    "Cross-entropy of a set's tokens by teacher forcing, from the labels and, where the model knows it, another note of the instrument."
    tokens, labels = tokenize(notes, m)
    labels = {k: v for k, v in labels.items() if k in m.var.label_embed.sizes}
    ears = reference_encoder(m.var.cfg, None, m.device) if 'reference' in m.var.label_embed.nulls else None
    ways = {'nats a token, labels': {}}
    if ears: ways['nats a token, like'] = dict(reference=embed_notes(notes, ears)[torch.as_tensor(SameInstrumentSampler(notes).at(0, range(len(notes))))].to(m.device))
    out = {}
    for name, more in ways.items():
        total = 0.
        for i in range(0, len(notes), 64):
            part = {k: v[i:i+64] for k, v in {**labels, **more}.items()}
            total += float(m.var.loss([t[i:i+64] for t in tokens], part)[0])*len(tokens[0][i:i+64])
        out[name] = total/len(notes)
    return out

def measure(m, sets, n, top_k=20, cfg_scale=2.):
    "Errors of the tokenizer and cross-entropy of the transformer on each set, and the pitch of generated notes by pYIN."
    some = {name: every(s, n) for name, s in sets.items() if len(s)}
    out = {f'reconstruction, {name}': dict(notes=len(s), **reconstruction_error(m, s), **(nats(m, s) if m.var else {})) for name, s in some.items()}
    if not m.var: return out
    seen = some['seen']
    asked = {k: [getattr(note, k) for note in seen.notes] for k in ('pitch', 'family', 'source', 'velocity')}
    made = m.generate(**asked, seed=0, top_k=top_k, cfg_scale=cfg_scale, progress=False)
    def in_tune(waves): # an unvoiced note is NaN and counts as wrong
        return sum(abs(float(cents_error(float(f0(w).midi), note.pitch))) <= 50 for w, note in zip(waves, seen.notes))/len(seen)
    return {**out, 'pitch within 50 cents': dict(notes=len(seen), generated=in_tune(made), real=in_tune(seen[i][0] for i in range(len(seen))), top_k=top_k, cfg_scale=cfg_scale)}

def curve(folder, stage, most=100):
    "About a hundred rows of a stage's log, and its last."
    rows = [r for r in read_log(folder) if r['stage'] == stage]
    return [{k: round(v, 6) if isinstance(v, float) else v for k, v in r.items() if k in CURVE} for r in rows[::max(1, len(rows)//most)] + rows[-1:]]

def release(a, sides):
    "Write the weights in half precision, with what they were trained on and how well they do -> results."
    results, weights, data = {}, a.out/'weights', {which: describe_data(a, s) for which, s in sides.items()}
    if model := next((s for s in ('further', 'var', 'tokenizer') if s in a.stages), None):
        m, s = Mars.from_pretrained((a.out/MADE[model]).parent, a.device or pick_device()), sides['model']
        results |= measure(m, {'seen': s.train, 'seen, held out': s.held, 'valid': s.valid, 'test': s.test}, a.measure)
        m.info |= dict(data=data['model'], results=results, **({'note': a.note} if a.note else {}))
        m.save_pretrained(weights/a.preset, half=True)
    if 'vocoder' in a.stages:
        vocoder = Vocoder.from_pretrained(a.out/'vocoder')
        vocoder.info['data'] = data['model']
        vocoder.save(weights/'vocoder', half=True)
    if 'classifier' in a.stages:
        classifier = Classifier.from_pretrained(a.out/'classifier')
        found = measure_classifier(classifier, sides['classifier'].test)
        results['classifier, test'] = {k: found[k] for k in ('notes', 'instruments', 'pitch', 'pitch_1', 'pitch_octave', 'family', 'source')}
        classifier.info |= dict(data=data['classifier'], accuracy=dict(test=results['classifier, test']))
        classifier.save_pretrained(weights/'classifier', half=True)
    return results

def begun(a, stage):
    "Whether OUT holds a checkpoint or the end of a stage."
    return (a.out/MADE[stage]).exists() or bool(CheckpointManager((a.out/MADE[stage]).parent, 'var' if stage == 'further' else stage, {}).files())

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, required=True, help='folder of the run')
    ap.add_argument('--preset', default='small', choices=[*RECIPES])
    ap.add_argument('--stages', default='tokenizer,var,further', help=f'some of {", ".join(MADE)}')
    ap.add_argument('--data', action='append', help='auto, additive, an .sf2 or .sf3 file, or a folder in NSynth layout; may be given again')
    ap.add_argument('--split', type=Path, default=ROOT/'scripts'/'split.json', help='JSON file: patterns of the held-out instruments')
    ap.add_argument('--hold-out', type=float, default=0., metavar='SHARE', help='of the pitches of the training instruments, see Notes.split_by_pitch')
    ap.add_argument('--renderer', default='auto', help='of SoundFonts: auto, fluidsynth or tinysoundfont')
    ap.add_argument('--workers', type=int, default=1, help='processes that render notes')
    ap.add_argument('--resume', action='store_true', help='continue a run that was interrupted')
    ap.add_argument('--device', help='cpu or cuda; the GPU if there is one')
    ap.add_argument('--steps', type=int, help="optimiser steps of every stage, in place of the recipe's")
    ap.add_argument('--batch-size', type=int, help="notes a step, in place of the recipe's")
    ap.add_argument('--valid-every', type=int, default=250, help='steps of the classifier between validations')
    ap.add_argument('--measure', type=int, default=96, metavar='N', help='notes of each side to measure on')
    ap.add_argument('--note', default='', help='a sentence for config.json')
    ap.add_argument('--quick', action='store_true', help='two pitches and one velocity of every instrument, to rehearse a command')
    ap.add_argument('--progress', action='store_true', help='show bars')
    a = ap.parse_args(argv)
    if bad := sorted({*a.stages.split(',')} - {*MADE}): ap.error(f'stage {bad[0]!r} is unknown; choose some of {", ".join(MADE)}')
    a.stages, a.data = [s for s in MADE if s in a.stages.split(',')], a.data or ['auto']
    for stage, needs in dict(var='tokenizer', further='var').items():
        if stage in a.stages and needs not in a.stages and not (a.out/MADE[needs]).exists(): ap.error(f'stage {stage} needs the stage {needs}; add it to --stages')
    if not a.resume and (mine := next((s for s in a.stages if begun(a, s)), None)):
        ap.error(f'{a.out} holds a {mine} already; add --resume to continue, or choose another folder')
    if a.workers > 1: render(a)
    sides = {which: make_sides(a, which) for which in dict.fromkeys('classifier' if s == 'classifier' else 'model' for s in a.stages)}
    for stage in a.stages:
        if (a.out/MADE[stage]).exists(): continue
        s = sides['classifier' if stage == 'classifier' else 'model']
        print(f'{stage}: {len(s.train)} notes of {len(s.train.instruments)} instruments to train on; held out: {len(s.held)} by pitch, {len(s.valid)} and {len(s.test)} by instrument', flush=True)
        train_stage(a, stage, s.train, s.valid)
    results = release(a, sides)
    names = dict(tokenizer='tokenizer', var='transformer', further='transformer_further')
    curves = {names.get(s, s): curve((a.out/MADE[s]).parent, 'var' if s == 'further' else s) for s in a.stages if s != 'melpca'}
    write_atomic(a.out/'training.json', json.dumps(dict(about=versions(pick_device(a.device)), results=results, curves=curves), indent=1))
    print(json.dumps(results, indent=1))
    return 0

if __name__ == '__main__': raise SystemExit(main())
