"""Train a model from sounds to weights, in as many sittings as it takes:

    python scripts/release.py --out runs/small --preset small
    python scripts/release.py --out runs/small --preset small --seconds 540      # stop in time, and pack what is to come back
    python scripts/release.py --out runs/small --preset small --take pieces     # go on elsewhere from such a package

Stages: render or read the notes, split them by instrument, train the tokenizer, train the transformer on its tokens and,
with --stages tokenizer,var,vocoder,classifier (or any of them), the vocoder and the judge of the evaluation; measure
on instruments that were held out, write weights in half precision. A second call goes on where the first
one stopped. What is to leave the machine lies in OUT/pieces, in files of at most 16 MiB: after an unfinished sitting
the running stage and those that are done, at the end the weights, the results and the curves.

The weights of today come from scripts/weights.sh, which calls this script for two shapes side by side on one H100, with (kit: the mono versions of
Fluid (R3) and MuseScore General from Debian's fluidr3mono-gm-soundfont and musescore-general-soundfont-small, recorded notes)

    TOK=350 VAR=210 SHAPES='B={"lookup":"euclidean","patch":[2,256],"scales":[[1,1],[2,1],[4,1],[8,1],[16,1],[32,1],[64,1],[128,1]]}|{"depth":5,"like_dim":128,"like_drop":0.5,"drop_path":0.1}'

and the transformer went on alone, by `--init` and `"seconds": 75`, lr 8e-4, ema 0.998 (results/small-training.json has all curves, those of the
other shape too, and is made by scripts/describe.py, as are `info.note` and `info.results`; `info.sampling` is by benchmarks/sampling.py).
"""
import argparse, io, json, os, shutil, signal, sys, tarfile, threading, time
from fnmatch import fnmatch
from pathlib import Path
import torch
from mars.evaluation.classifier import measure_classifier, train_classifier
from mars.parts.classifier import Classifier, ClassifierConfig
from mars.data import AdditiveNotes, NSynth, SoundFontNotes, default_notes
from mars.parts.files import write_whole
from mars.parts.discriminator import AdversaryConfig
from mars.DROP import cut, hand_over, join, take_over
from mars.training.budget import parts_for
from mars.parts.vocoder import Vocoder, VocoderConfig, train_vocoder, vocoder_settings
from mars.pipeline import Mars
from mars.evaluation.report import compact_report, evaluate_model, report_line
from mars.tokenizer import TokenizerConfig
from mars.parts.classifier import listener
from mars.train import TrainConfig, reconstruction_error, train_tokenizer, train_var
from mars.training.checkpoints import Checkpoints
from mars.training.log import RunLog, read_log, versions
from mars.training.tokens import Kin, embed_notes, tokenize
from mars.var import VARConfig

STAGES = dict(tokenizer='', var='', vocoder='vocoder', classifier='classifier') # and where in OUT each one trains
MADE = dict(tokenizer=('config.json', 'tokenizer.safetensors'), var=('var.safetensors',), vocoder=('vocoder/vocoder.json', 'vocoder/vocoder.safetensors'), classifier=('classifier/config.json', 'classifier/classifier.safetensors'))

def split_by_names(notes, file):
    "Sides as a JSON file says: patterns of instruments under 'valid' and 'test'; what shares recordings with one of those goes with it."
    said = json.loads(Path(file).read_text())
    side = {i: next((s for s in ('test', 'valid') if any(fnmatch(i, p) for p in said[s])), 'train') for i in notes.instruments}
    for s in ('test', 'valid'):
        keys = {k for i, where in side.items() if where == s for k in notes.kin.get(i, ())}
        side |= {i: s for i, where in side.items() if where == 'train' and keys & {*notes.kin.get(i, ())}}
    return [notes.select([i for i, n in enumerate(notes.notes) if side[n.instrument] == s]) for s in ('train', 'valid', 'test')]

def _render(job):
    data, quick, renderer, part, parts = job
    notes = open_data(data, quick, renderer)
    for i in range(part, len(notes), parts): notes.row(i)

def render(data, quick, renderer, workers):
    "Make all notes in several processes; later passes read the cache."
    from multiprocessing import get_context
    with get_context('spawn').Pool(workers) as pool: pool.map(_render, [(data, quick, renderer, i, workers) for i in range(workers)], chunksize=1)

def in_time(stage, seconds, train, run, notes):
    "Settings for a stage that may take so long: its steps from a short trial on some notes."
    if not seconds: return train
    log, some, trial = RunLog(), notes.select([*range(0, len(notes), max(1, len(notes)//2048))]), min(100, train.steps)
    run(some, TrainConfig.from_dict({**vars(train), 'steps': trial, 'log_every': 2, 'save_every': 0, 'seconds': min(10., seconds)}), log)
    a, b = log.rows[len(log.rows)//3], log.rows[-1]
    each = (b['seconds'] - a['seconds'])/(b['step'] - a['step']) if b is not a else b['seconds']/(b['step'] + 1)
    steps = max(1, round(.97*seconds/each))
    print(f'{stage}: {1000*each:.1f} ms a step of {train.batch_size} notes, {steps} steps in {seconds:.0f} s', flush=True)
    return TrainConfig.from_dict({**vars(train), 'steps': steps, 'seconds': float(seconds)})

def open_data(names, quick, renderer='auto'):
    "The notes of all sources, joined; and what is to be said of them."
    grid = dict(pitches=range(60, 72, 6), velocities=(100,)) if quick else dict(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127))
    def one(name):
        if name == 'additive': return AdditiveNotes(None, *grid.values())
        if name == 'auto': return default_notes(pitches=grid['pitches'], velocities=grid['velocities'])
        if Path(name).suffix in ('.sf2', '.sf3'): return SoundFontNotes(name, renderer=renderer, **grid)
        return NSynth(name, split=None).filter(pitches=grid['pitches'])
    first, *rest = map(one, names)
    for notes in rest: first = first + notes
    return first

def pack_files(folder, names, out, name):
    "Some files of a folder as one tar, cut into pieces; nothing where none of them is there."
    if not any((folder/n).exists() for n in names): return []
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w') as t:
        for n in names:
            if (folder/n).exists(): t.add(folder/n, n)
    return cut(tar.getvalue(), out, name)

def unpack_files(folder, name, to):
    with tarfile.open(fileobj=io.BytesIO(join(folder, name))) as t: t.extractall(to, filter='data')

@torch.no_grad()
def nats(m, notes):
    "Cross-entropy of a set's tokens by teacher forcing, with the labels and, where the model knows it, another note to resemble."
    tokens, labels = tokenize(notes, m)
    out, ears = {}, listener(m.var.cfg, None, m.device)
    shown = embed_notes(notes, ears)[torch.as_tensor(Kin(notes).at(0, range(len(notes))))].to(m.device) if ears else None
    for name, more in dict(labels={}, **(dict(like=dict(like=shown)) if ears else {})).items():
        parts = []
        for i in range(0, len(notes), 64):
            cut = lambda d: {k: v[i:i+64] for k, v in d.items()}
            parts.append(float(m.var.loss([t[i:i+64] for t in tokens], {**cut({k: v for k, v in labels.items() if k in m.var.labels.sizes}), **cut(more)})[0])*len(tokens[0][i:i+64]))
        out[f'nats a token, {name}'] = sum(parts)/len(notes)
    return out

def measure(m, sets, a):
    "Errors of the tokenizer, cross-entropy of the transformer, and the pitch of generated notes where pYIN (librosa) is installed."
    some = lambda s: [*range(0, len(s), max(1, len(s)//a.measure))][:a.measure]
    out = {f'reconstruction, {name}': dict(notes=len(some(s)), **reconstruction_error(m, s.select(some(s))), **nats(m, s.select(some(s)))) for name, s in sets.items() if len(s)}
    try: import librosa
    except ImportError: return out
    from mars.eval import cents_error, f0
    notes = sets['seen']
    pick = [notes.notes[i] for i in some(notes)]
    waves = m.generate(pitch=[n.pitch for n in pick], family=[n.family for n in pick], source=[n.source for n in pick], velocity=[n.velocity for n in pick], seed=0, top_k=a.top_k, cfg_scale=a.cfg_scale, progress=False)
    cents = [abs(float(cents_error(float(f0(w).midi), n.pitch))) for w, n in zip(waves, pick)]
    real = [abs(float(cents_error(float(f0(notes[i][0]).midi), notes.notes[i].pitch))) for i in some(notes)]
    right = lambda c: sum(x <= 50 for x in c)/len(c) # an unvoiced note is NaN and counts as wrong
    return {**out, 'pitch within 50 cents': dict(notes=len(pick), generated=right(cents), real=right(real), top_k=a.top_k, cfg_scale=a.cfg_scale)}

def curves(run):
    "The log without its lists, every so often."
    rows = read_log(run)
    keep = ('stage', 'step', 'lr', 'recon', 'vq', 'loss', 'grad_norm', 'revived', 'skipped', 'seconds', 'notes_per_second', 'memory_mib', 'disc_loss', 'adv_weight', 'real_logit', 'fake_logit', 'valid')
    some = [r for stage in STAGES for rs in [[r for r in rows if r['stage'] == stage]] for r in rs[::max(1, len(rs)//150)] + rs[-1:]]
    return [{k: round(v, 6) if isinstance(v, float) else v for k, v in r.items() if k in keep} for r in some]

def take(pieces, run):
    "Unpack an earlier sitting into a run folder that has come no further."
    there = [name for name in ('done', 'log', *STAGES) if (pieces/f'{name}.json').exists()]
    if not there: raise SystemExit(f'{pieces} holds no pieces of a sitting; give the folder that one left')
    for stage, where in STAGES.items():
        if stage in there: print(f'{stage}: taken over at step', take_over(pieces, stage, run/where), flush=True)
    for name in ('done', 'log'):
        if name in there: unpack_files(pieces, name, run)

def pack(a, pieces, results):
    "Write the release, and its pieces."
    write_whole(a.out/'results.json', json.dumps(results, indent=1))
    return pack_files(a.out, [f'weights/{name}' for stage in STAGES for name in MADE[stage]] + ['results.json', *(f'weights/{name}.json' for name in ('report', 'report-seen'))], pieces, 'release')

def train_model(a, stage, train_notes, one, two, cfg, var, gan, first):
    "One of the two stages of the model, or nothing where it is done."
    if stage == 'tokenizer':
        if (a.out/'config.json').exists(): return
        one = in_time(stage, a.spend.get(stage), one, lambda notes, train, log: train_tokenizer(notes, train, cfg, None, a.device, progress=False, log=log, adversary=gan), train_notes)
        return train_tokenizer(train_notes, one, cfg, a.out, a.device, progress=False, adversary=gan, resume=True)
    m = Mars.from_pretrained(a.out)
    if m.var is not None: return
    two = in_time(stage, a.spend.get(stage), two, lambda notes, train, log: train_var(notes, m.tokenizer, train, var, None, a.device, progress=False, log=log), train_notes)
    train_var(train_notes, m.tokenizer, two, var, a.out, a.device, progress=False, info=m.info, resume=True, init=first and first.var)

def train_beside(a, stage, train_notes, valid):
    "The vocoder or the classifier, or nothing where it is done."
    out = a.out/stage
    if all((a.out/name).exists() for name in MADE[stage]): return
    if stage == 'vocoder': train_vocoder(train_notes, vocoder_settings(a.preset, **a.train_vocoder), VocoderConfig.preset(a.preset, **a.vocoder), out, a.device, progress=False, resume=True)
    else: train_classifier(train_notes, valid, TrainConfig.preset(a.preset, 'classifier', **a.train_classifier), ClassifierConfig.preset(a.preset, **a.classifier), out, a.device, progress=False, valid_every=a.valid_every, resume=True)

def finish_beside(a, stages, test):
    "Write the vocoder and the classifier in half precision, and measure the latter -> results."
    if 'vocoder' in stages: Vocoder.from_pretrained(a.out/'vocoder').save(a.out/'weights'/'vocoder', half=True)
    if 'classifier' not in stages: return {}
    Classifier.from_pretrained(a.out/'classifier').save_pretrained(a.out/'weights'/'classifier', half=True)
    said = measure_classifier(Classifier.from_pretrained(a.out/'weights'/'classifier'), test)
    return {'classifier, test': {k: said[k] for k in ('notes', 'instruments', 'pitch', 'pitch_1', 'pitch_octave', 'family', 'source')}}

def finish_model(a, train_notes, held, valid, test, credits):
    "Write the model in half precision and measure it -> results; what it wrote so far stays if the time ends meanwhile."
    m = Mars.from_pretrained(a.out, a.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    m.info |= dict(data=dict(notes=len(train_notes), instruments=len(train_notes.instruments), held_out=test.instruments + valid.instruments, pitches=[min(n.pitch for n in train_notes.notes), max(n.pitch for n in train_notes.notes)], hold_out=a.hold_out, renderer=a.renderer, credits=credits), **({'note': a.note} if a.note else {}))
    m.save_pretrained(a.out/'weights', half=True)
    yield {}
    m.info['results'] = measure(m, {'seen': train_notes, 'seen, held out': held, 'valid': valid, 'test': test}, a) if m.var else {}
    m.save_pretrained(a.out/'weights', half=True)
    yield m.info['results']

def judge(a, train_notes, held, valid, test):
    "Write the report of the weights, by instruments that were held out and by held-out notes of the others -> what lies where."
    said = {}
    for name, notes, other in (('report', test, valid), ('report-seen', held, test)):
        if (n := min(a.evaluate, len(notes))) < 20:
            if len(notes): print(f'{name}: {n} notes are too few to judge', flush=True)
            continue
        r = evaluate_model(a.out/'weights', notes, n, a.out/name, train_notes, other, classifier=own_classifier(a), device=a.device, about=dict(names=dict(model=a.out.name, data=name)))
        write_whole(a.out/'weights'/f'{name}.json', compact_report(r))
        print(report_line(r, a.out/name), flush=True)
        said[name] = f'weights/{name}.json'
    return said

def own_classifier(a):
    "The classifier of this run where it trained one; None is the one in the package."
    return Classifier.from_pretrained(a.out/'weights'/'classifier') if (a.out/'weights'/'classifier'/'config.json').exists() else None

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', type=Path, required=True)
    ap.add_argument('--preset', default='small')
    ap.add_argument('--data', action='append', help='auto, additive, an .sf2 or .sf3 file, or a folder in NSynth layout; may be given again')
    ap.add_argument('--device')
    ap.add_argument('--stages', default='tokenizer,var', help='which of tokenizer, var, vocoder and classifier')
    ap.add_argument('--valid-every', type=int, default=250, help='steps of the classifier between validations')
    ap.add_argument('--seconds', type=float, help='stop after so long, at the end of a step')
    ap.add_argument('--take', type=Path, help='pieces of an earlier sitting')
    for name, what in dict(tokenizer='TokenizerConfig', var='VARConfig', train_tokenizer='stage one', train_var='stage two', gan='AdversaryConfig', vocoder='VocoderConfig', train_vocoder='its training', classifier='ClassifierConfig', train_classifier='its training').items():
        ap.add_argument(f'--{name.replace("_", "-")}', type=json.loads, default={}, metavar='JSON', help=f'fields of {what}')
    ap.add_argument('--init', type=Path, help='folder of a trained model: its tokenizer is taken, its transformer is trained further')
    ap.add_argument('--memory', type=float, help='GiB of the GPU: compute steps in parts that fit')
    ap.add_argument('--note', default='', help="a sentence for config.json, such as 'provisional: ...'")
    ap.add_argument('--measure', type=int, default=96, help='notes to measure')
    ap.add_argument('--evaluate', type=int, metavar='N', help='judge the weights by N notes a row, with every reference row: reports in OUT/report and, with --hold-out, OUT/report-seen')
    ap.add_argument('--top-k', type=int, default=20)
    ap.add_argument('--cfg-scale', type=float, default=1.)
    ap.add_argument('--split', type=Path, help="JSON file: patterns of instruments under 'valid' and 'test'; without it split_by_instrument")
    ap.add_argument('--hold-out', type=float, default=0., metavar='SHARE', help='pitches of the instruments to learn from that are held out, see Notes.hold_out')
    ap.add_argument('--renderer', default='auto', help='of SoundFonts: auto, fluidsynth or tinysoundfont')
    ap.add_argument('--workers', type=int, default=1, help='processes that render notes')
    ap.add_argument('--spend', type=json.loads, default={}, metavar='JSON', help='seconds of a stage, such as {"tokenizer": 200}: its steps are then set by a short trial, and it cannot be resumed')
    ap.add_argument('--render-only', action='store_true', help='make the notes and stop')
    ap.add_argument('--quick', action='store_true', help='a dozen notes, to rehearse a command')
    a = ap.parse_args(argv)
    start, pieces = time.time(), a.out/'pieces'
    if a.take: take(a.take, a.out)
    shutil.rmtree(pieces, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)) # a stage in training finishes its step and saves first
    if a.seconds:
        timer = threading.Timer(max(1, a.seconds), os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
    stages = [s for s in STAGES if s in a.stages.split(',')]
    if bad := sorted({*a.stages.split(',')} - {*STAGES}): raise SystemExit(f'there is no stage {bad[0]!r}; choose among {", ".join(STAGES)}')
    if 'var' in stages and 'tokenizer' not in stages and not a.init and not (a.out/'config.json').exists(): raise SystemExit('a transformer needs a tokenizer; add that stage, or name a model in --init')
    files, data = [], a.data or ['auto']
    if a.workers > 1: render(data, a.quick, a.renderer, a.workers)
    notes = open_data(data, a.quick, a.renderer)
    if a.render_only: return print(f'{len(notes)} notes after {time.time()-start:.0f} s')
    train_notes, valid, test = split_by_names(notes, a.split) if a.split else notes.split_by_instrument(valid=0.06, test=0.14, seed=0)
    train_notes, held = train_notes.hold_out(a.hold_out)
    print(f'{len(train_notes)} notes of {len(train_notes.instruments)} instruments to learn from; held out: {len(valid)} and {len(test)} notes, {len(held)} of instruments to learn from', flush=True)
    cfg, gan, var = TokenizerConfig.preset(a.preset, **a.tokenizer), AdversaryConfig.preset(a.preset, **a.gan), VARConfig.preset(a.preset, **a.var)
    one, two = TrainConfig.preset(a.preset, 'tokenizer', **a.train_tokenizer), TrainConfig.preset(a.preset, 'var', **a.train_var)
    if a.memory: one, two = TrainConfig.from_dict({**vars(one), 'accumulate': parts_for(a.memory, cfg, one, gan)}), TrainConfig.from_dict({**vars(two), 'accumulate': parts_for(a.memory, cfg, two, var=var, notes=len(train_notes))})
    first = Mars.from_pretrained(a.init) if a.init else None
    if first and not (a.out/'config.json').exists(): Mars(first.tokenizer, None, first.cmx, first.spectrogram, dict(first.info, before=first.info.get('train_var'))).save_pretrained(a.out)
    stage = stages[0]
    try:
        for stage in stages:
            if STAGES[stage]: train_beside(a, stage, train_notes, valid)
            else: train_model(a, stage, train_notes, one, two, cfg, var, gan, first)
            print(f'{stage} after {time.time()-start:.0f} s', flush=True)
    except SystemExit as e:
        if e.code != 143: raise
        run = a.out/STAGES[stage]
        begun = Checkpoints(run, stage, {}).files() # none where it was stopped while it prepared
        files = (hand_over(run, stage, pieces) if begun else []) + pack_files(a.out, [f'{w}/metrics.jsonl'.lstrip('/') for w in {*STAGES.values()}], pieces, 'log')
        files += pack_files(a.out, [name for s in stages[:stages.index(stage)] for name in MADE[s]], pieces, 'done')
        print(f'stopped in stage {stage} after {time.time()-start:.0f} s; {len(files)} files in {pieces}', flush=True)
        return 0
    made = dict(about=versions(torch.device(a.device or ('cuda' if torch.cuda.is_available() else 'cpu'))), results={}, curves=[row for where in sorted({STAGES[s] for s in stages}) for row in curves(a.out/where)])
    credits = sorted({f'{c.source} ({c.licence}): {c.attribution}' for c in notes.credits})
    try:
        made['results'] |= finish_beside(a, stages, test)
        for results in finish_model(a, train_notes, held, valid, test, credits) if (a.out/'config.json').exists() else [{}]:
            made['results'] |= results
            files = pack(a, pieces, made) # before it measures as well, so that nothing is lost if the time ends meanwhile
        print(json.dumps(made['results'], indent=1))
        if a.evaluate and (a.out/'config.json').exists():
            made['reports'] = judge(a, train_notes, held, valid, test)
            files = pack(a, pieces, made)
    except SystemExit as e:
        if e.code != 143: raise
        print('stopped while it measured', flush=True)
    print(f'done after {time.time()-start:.0f} s; {len(files)} files in {pieces}', flush=True)
    return 0

if __name__ == '__main__': raise SystemExit(main())
