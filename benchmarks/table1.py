"""Rows of the paper's Table 1 on the same notes:  python benchmarks/table1.py --run FOLDER --data SOURCE [--train]

Trains DDSP (--run), DiffWave (--diffwave) and the WaveNet autoencoder (--wavenet) on the training side of the notes
(--train; an interrupted run continues) and evaluates them and MARS on the test side; a baseline without a folder is
left out. Rows are reference, anchor, Griffin-Lim oracle and reconstructions, paired with the test notes, other real
notes, and notes generated from labels; those of TokenSynth (--tokensynth) come from tokensynth_notes.py. Notes are
those of --data at pitches 36 to 96 and two velocities; scripts/split.json names the held-out instruments, which no
model was trained on. Prints three tables and writes them as JSON (--out), where rows of an earlier call with the same
notes and settings are kept. The committed result is results/benchmarks/table1-small.json, shown in
nbs/baselines/table1.ipynb.
"""
import argparse, json, sys, time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch
from mars.baselines.ddsp import DDSPConfig, cached_f0, train_ddsp
from mars.baselines.diffwave import DiffWaveConfig, train_diffwave
from mars.baselines.wavenet import WaveNetConfig, train_wavenet
from mars.cli.data import with_data
from mars.data import Batches, NSynth
from mars.data.notes import FAMILIES, SOURCES
from mars.evaluation.protocol import Bins, Frechet, Inception, LabelAccuracy, LogitKID, NearestError, PairedError, Pitch
from mars.evaluation.protocol import Comparison, MelPCA, NoteSet, ProtocolConfig, Row, bins_for, extract_features
from mars.evaluation.protocol import as_int16, columns_table, griffin_lim_oracle, iter_batches, lowpass, result_json
from mars.evaluation.protocol import training_copies, write_notes
from mars.evaluation.report import weights_digest
from mars.parts.classifier import Classifier
from mars.parts.files import SAMPLE_RATE, write_atomic
from mars.parts.inference import generate
from mars.pipeline import Mars
from mars.train import TrainConfig
from mars.training.log import read_log
from mars.training.tokens import names_hash
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'scripts'))
from reproduce_weights import QUICK, open_data, split_by_names

ROOT = Path(__file__).resolve().parent.parent
GRID = [dict(pitches=range(36, 97), velocities=(50, 100))]
COLUMNS = ('f0 notes', 'f0 within 50 cents', 'f0, octaves folded', 'f0 median cents', 'accuracy pitch',
           'accuracy family', 'NDB/k', 'PKID', 'IKID', 'PIS', 'IIS', 'MSE', 'MAE', 'MSE paired', 'MAE paired',
           'mel distance', 'STFT distance', 'Fréchet distance, mel-PCA', 'Fréchet distance, classifier')

def open_sides(args):
    "Training and test notes."
    split = json.loads(args.split.read_text())['model']
    train, _, test = split_by_names(open_data(args.data, QUICK if args.quick else GRID), split)
    return train, test

# ---- rows

def anchor(waves):
    "The anchor of the listening test of Vinay and Lerch: 1 kHz low-pass and 8 bits."
    return (lowpass(waves, 1000.)*128).round().clamp(-128, 127)/128

@dataclass(frozen=True)
class RowMaker:
    "How the notes of a row are made, and at what cost."
    block:str            # 'reference', 'reconstruction' or 'generated'
    make:Callable        # (int16 test notes (b, N), index of the first) -> notes (b, N)
    parameters:int=None  # of the networks that are used
    floats:int|str=None  # numbers per note that carry the information, or tokens
    steps:int=None       # of training
    paired:bool=True     # note i is a version of test note i; generated notes never are
    seconds:float=None   # a note, where it is not the time of `make`
    batch_size:int=16    # notes at a time

def n_parameters(*nets): return sum(p.numel() for net in nets for p in net.parameters())

def steps_of(m, *stages): return sum(m.info[f'train_{stage}']['steps'] for stage in stages)

def part(labels, i, n): return {k: v[i:i+n] for k, v in labels.items()}

def mars_rows(args, ref, m): # name -> RowMaker
    "Rows of MARS and of the reference."
    ls, options = m.spectrogram, dict(n_iter=args.n_iter, seed=args.seed)
    def oracle(w, i): return griffin_lim_oracle(w, ls, m.cmx, first=i, **options)
    def rebuilt(w, i): return m.decode(m.encode(w), first=i, **options)
    def generated(w, i):
        tokens = generate(m.var, part(ref.labels, i, len(w)), len(w), seed=args.seed, first=i, **m.sampling())
        return m.decode(tokens, first=i, **options)
    codec, tokens = n_parameters(m.tokenizer), f'{m.tokenizer.cfg.n_tokens} tokens'
    return {'reference': RowMaker('reference', lambda w, i: w),
            'anchor, 1 kHz and 8 bits': RowMaker('reference', lambda w, i: anchor(w)),
            'Griffin-Lim oracle': RowMaker('reference', oracle, floats=ls.shape[-2]*ls.shape[-1]),
            'MARS reconstruction': RowMaker('reconstruction', rebuilt, codec, tokens, steps_of(m, 'tokenizer')),
            'MARS generated': RowMaker('generated', generated, codec + n_parameters(m.var), None, steps_of(m, 'var'))}

def training_row(ref, train): # name -> RowMaker
    "Real notes of training instruments with pitch and family of the test notes, where there are enough of them."
    try: chosen = training_copies(NoteSet(train, name='training notes'), ref.labels)
    except ValueError as e:
        print(f'no row of other real notes: {e}', flush=True)
        return {}
    return {'other real notes': RowMaker('reference', lambda w, i: chosen[i:i+len(w)], paired=False)}

def ddsp_rows(args, ref, m):
    "Rows of the baseline, as `mars_rows`; estimates of f0 are cached in the run folder."
    def decode(features, i): return m.decode(features, seed=args.seed, first=i)
    def by_label(w, i): return decode(m.encode(w, ref.labels['pitch'][i:i+len(w)]), i)
    def by_estimate(w, i):
        estimates = cached_f0(ref.source, 'estimator', args.run/'test')[:, :1]
        return decode(m.encode(w, f0=estimates[i:i+len(w)]), i)
    def generated(w, i):
        return decode(m.var.generate(part(ref.labels, i, len(w)), seed=args.seed, first=i), i)
    sizes = n_parameters(m.tokenizer), m.tokenizer.cfg.floats_per_note, steps_of(m, 'ddsp')
    return {'DDSP reconstruction, f0 of the label': RowMaker('reconstruction', by_label, *sizes),
            'DDSP generated': RowMaker('generated', generated, sizes[0], None, sizes[2]),
            'DDSP reconstruction, f0 estimated': RowMaker('reconstruction', by_estimate, *sizes)}

def diffwave_rows(args, ref, m):
    "Rows of DiffWave, as `mars_rows`; one that is conditioned on labels reconstructs nothing."
    decoding = dict(seed=args.seed, schedule=args.schedule)
    def decode(mel, i):
        with torch.autocast(m.device.type, torch.bfloat16, enabled=args.bf16): return m.decode(mel, first=i, **decoding)
    def rebuilt(w, i): return decode(m.encode(w), i)
    def generated(w, i): return decode(m.var.generate(part(ref.labels, i, len(w)), seed=args.seed, first=i), i)
    net, steps = n_parameters(m.tokenizer), steps_of(m, 'diffwave')
    if m.tokenizer.labels is not None:
        return {f'Label DiffWave generated, {args.schedule}': RowMaker('generated', generated, net, None, steps)}
    both = net + n_parameters(m.var)
    floats = m.tokenizer.cfg.floats_per_note
    return {f'DiffWave reconstruction, {args.schedule}': RowMaker('reconstruction', rebuilt, net, floats, steps),
            f'DiffWave generated, {args.schedule}': RowMaker('generated', generated, both, None, steps)}

def wavenet_rows(args, ref, m):
    "Rows of the WaveNet autoencoder, as `mars_rows`; the labels of a note are part of its conditioning or not."
    def plain(w, i): return m.decode(m.encode(w), seed=args.seed, first=i)
    def by_label(w, i): return m.decode(m.encode(w, **part(ref.labels, i, len(w))), seed=args.seed, first=i)
    def generated(w, i):
        return m.decode(m.var.generate(part(ref.labels, i, len(w)), seed=args.seed, first=i, **m.sampling()))
    sizes = n_parameters(m.tokenizer), m.tokenizer.cfg.floats_per_note, steps_of(m, 'wavenet')
    size = dict(batch_size=128) # a pass computes one sample of each note
    rows = {'WaveNet reconstruction': RowMaker('reconstruction', plain, *sizes, **size),
            'WaveNet generated': RowMaker('generated', generated, sizes[0], None, sizes[2], **size)}
    with_labels = {'WaveNet reconstruction, with labels': RowMaker('reconstruction', by_label, *sizes, **size)}
    return rows | (with_labels if m.tokenizer.label_embed is not None else {})

@dataclass(frozen=True)
class Baseline:
    "A baseline that is trained and evaluated here."
    option:str      # attribute of the arguments with its run folder
    config:type     # its shape
    train:Callable  # trains one
    rows:Callable   # (arguments, test notes, model) -> dict of RowMaker

BASELINES = dict(ddsp=Baseline('run', DDSPConfig, train_ddsp, ddsp_rows),
                 diffwave=Baseline('diffwave', DiffWaveConfig, train_diffwave, diffwave_rows),
                 wavenet=Baseline('wavenet', WaveNetConfig, train_wavenet, wavenet_rows))

def requested(args): # -> iterator of (name, baseline, run folder)
    "The baselines of --parts that have a folder."
    for name, baseline in BASELINES.items():
        folder = getattr(args, baseline.option)
        if folder is not None and name in args.parts: yield name, baseline, folder

def train(args, notes):
    "Train the requested baselines, each from its newest checkpoint if there is one."
    options = dict(info=with_data({}, notes), progress=False, resume=True, device=args.device)
    for name, baseline, folder in requested(args):
        settings = TrainConfig.preset(args.preset, name, **args.settings)
        mel = {}
        if name == 'diffwave':
            mel = dict(mel_train=TrainConfig.preset(args.preset, 'label_to_mel', **args.mel_settings))
        baseline.train(notes, settings, baseline.config.preset(args.preset, **args.shape), folder, **mel, **options)

# ---- TokenSynth, which runs in an environment of its own

def write_requests(folder, ref, train, seed):
    "Write labels of the test notes, and for each a random training note of its family and source, or of its family."
    import soundfile
    rng, pools = np.random.default_rng(seed), defaultdict(list)
    for i, note in enumerate(train.notes):
        for key in ((note.family, note.source), note.family): pools[key].append(i)
    (folder/'timbre').mkdir(parents=True, exist_ok=True)
    requests = []
    for i, note in enumerate(ref.source.notes):
        pool = pools[note.family, note.source] or pools[note.family]
        if not pool: raise ValueError(f'no training note of the family {note.family}; leave it out of the test notes')
        path = f'timbre/{i:04d}.wav'
        soundfile.write(folder/path, NoteSet(train)[[int(rng.choice(pool))]][0].numpy(), SAMPLE_RATE)
        requests.append(dict(pitch=note.pitch, velocity=note.velocity, family=note.family, source=note.source,
                             timbre=path))
    about = dict(digest=names_hash(ref.source), families=FAMILIES, sources=SOURCES, notes=requests)
    write_atomic(folder/'requests.json', json.dumps(about, indent=1) + '\n')

def add_tokensynth(args, ref, result): # -> dict of RowMaker
    "Row of the notes that tokensynth_notes.py wrote for these test notes."
    info = json.loads((args.tokensynth/'info.json').read_text(encoding='utf-8'))
    notes = NSynth(args.tokensynth)
    labels = [[(n.pitch, n.velocity, n.family, n.source) for n in side] for side in (notes.notes, ref.source.notes)]
    if info['digest'] != names_hash(ref.source) or labels[0] != labels[1]:
        raise ValueError(f'{args.tokensynth} has notes for other labels; write the requests and the notes again')
    if result.get('tokensynth') != info: result['rows'].pop('TokenSynth generated', None)
    result['tokensynth'] = info
    def generated(w, i): return notes.batch(range(i, i + len(w)))[0]
    return {'TokenSynth generated': RowMaker('generated', generated, info['parameters'], seconds=info['seconds'])}

# ---- measurement

class RowMeter:
    "Measures the columns of Table 1, pitch and labels, and errors of pairs for one row after another."
    def __init__(self, args, ref):
        self.pca, self.classifier, self.ref = MelPCA.load(), Classifier.from_pretrained(), ref
        self.cfg = ProtocolConfig(seed=args.seed, n_f0=args.n_f0, n_resamples=args.n_resamples)
        bins = bins_for(len(ref))
        self.metrics = [Bins(self.pca.name, bins)] if bins else []
        for head, letter in (('pitch', 'P'), ('family', 'I')):
            self.metrics += [LogitKID(head, f'{letter}KID'), Inception(head, f'{letter}IS')]
        self.metrics += [LabelAccuracy(), NearestError(), PairedError(), Pitch(), Frechet(self.pca.name),
                         Frechet('classifier')]
        self.data = self.features(ref)

    def features(self, notes): return extract_features(notes, [self.pca], self.classifier)

    def __call__(self, name, maker): # -> dict of columns, and the notes
        ref, start = self.ref, time.perf_counter()
        notes = write_notes((maker.make(w, i) for i, w in iter_batches(ref, maker.batch_size)), len(ref), None,
                            ref.labels, name)
        seconds = (time.perf_counter() - start)/len(ref) if maker.seconds is None else maker.seconds
        row = Row(name, notes, paired=maker.paired and maker.block != 'generated')
        c = Comparison(ref, row, self.data, self.features(notes), torch.arange(len(ref)), None, self.cfg)
        columns = dict(block=maker.block, parameters=maker.parameters, floats=maker.floats, steps=maker.steps,
                       seconds=seconds)
        for metric in self.metrics:
            if metric.applies(c): columns |= metric(c)
        print(f'{name}: {seconds:.2f} s a note', flush=True)
        return columns, notes

# ---- clips

CLIP_NOTES, CLIP_SECONDS = 5, 2

def clip_rows(ref): # -> indices
    "Evenly spaced notes; neighbours in the data are of one instrument."
    n = min(CLIP_NOTES, len(ref))
    return [round((j + .5)*len(ref)/n) for j in range(n)]

def clip_names(ref): # -> list of 'NUMBER-PITCH-FAMILY'
    notes = [ref.source.notes[i] for i in clip_rows(ref)]
    return [f'{j}-{note.pitch:03d}-{note.family}' for j, note in enumerate(notes, 1)]

def clip_folder(folder, row): return folder/row.replace(' ', '_').replace(',', '')

def save_clips(folder, ref, waves):
    "Write the beginnings of notes, one wave for each of `clip_rows`, as small MP3 files."
    import soundfile
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('*.mp3'): old.unlink()
    for name, wave in zip(clip_names(ref), waves):
        clip = as_int16(torch.as_tensor(wave)[None])[0, :CLIP_SECONDS*SAMPLE_RATE].float()/32768
        soundfile.write(folder/f'{name}.mp3', clip.numpy(), SAMPLE_RATE, format='MP3', compression_level=.9)

def add_clips(folder, ref, makers, measured):
    "Write the clips of rows that were measured now, and of others that have none."
    chosen = clip_rows(ref)
    for name, maker in makers.items():
        place = clip_folder(folder, name)
        if name in measured: save_clips(place, ref, measured[name])
        elif not place.exists(): save_clips(place, ref, [maker.make(ref[[i]], i)[0] for i in chosen])

# ---- the file

CURVE_KEYS = 'step', 'loss', 'harmonic_db', 'noise_db', 'level_db', 'lr', 'seconds'

def elapsed_seconds(rows): # of a stage, in the order of the log -> list; the clock of a resumed run starts at 0
    "Training time at each row of a log, over all sessions."
    total, last, out = 0., 0., []
    for seconds in (r['seconds'] for r in rows):
        total += seconds - last if seconds >= last else seconds
        last = seconds
        out.append(total)
    return out

def learning_curve(folder, stage, n=60): # -> list of dicts
    "About n rows of the log of a stage, and its last; seconds count all sessions."
    rows = [r for r in read_log(folder) if r['stage'] == stage]
    rows = [{**r, 'seconds': t} for r, t in zip(rows, elapsed_seconds(rows))]
    shown = rows[:-1:max(1, len(rows)//n)] + rows[-1:]
    return [{k: r[k] if k == 'step' else round(float(r[k]), 6) for k in CURVE_KEYS if k in r} for r in shown]

def about(args, ref, train):
    "What the rows have in common."
    test = ref.source
    return dict(notes=len(ref), digest=names_hash(test), instruments=len(test.instruments), pitch_labels=test.label,
                train_notes=len(train), train_instruments=len(train.instruments), n_iter=args.n_iter,
                n_resamples=args.n_resamples, seed=args.seed, model=args.model)

def read_stored(path, info):
    "The result of an earlier call with the same notes and settings."
    new = dict(info=info, rows={}, baselines={})
    if not path.exists(): return new
    old = json.loads(path.read_text(encoding='utf-8'))
    return old if old['info'] == info else new

def describe_baseline(folder, m, rows): # -> dict: config, train, versions, weights, rows, curves
    "How a baseline was trained, and the learning curve of each stage."
    stages = {k.removeprefix('train_'): v for k, v in m.info.items() if k.startswith('train_')}
    net, prior = m.saved()
    about = dict(config=asdict(net.cfg), train=stages, versions=m.info['versions'], rows=[*rows],
                 weights=weights_digest(network=net, prior=prior),
                 curves={stage: learning_curve(folder, stage) for stage in stages})
    return about | ({'f0': m.info['f0']} if 'f0' in m.info else {})

def add_baseline(args, ref, result, name, baseline, folder): # -> dict of RowMaker
    "Describe a baseline in the result, and drop rows of another run."
    m = Mars.from_pretrained(folder, args.device or 'cpu')
    makers = baseline.rows(args, ref, m)
    if name == 'diffwave' and m.tokenizer.labels is not None: name = 'diffwave, labels'
    new, old = describe_baseline(folder, m, makers), result['baselines'].get(name)
    if old and old['weights'] == new['weights']: new['rows'] = [*dict.fromkeys(old['rows'] + new['rows'])]
    elif old: result['rows'] = {k: v for k, v in result['rows'].items() if k not in old['rows']}
    result['baselines'][name] = new
    return makers

def evaluate(args, ref, train):
    "Measure the rows of --parts that the file does not have; each is written when it is complete."
    result, makers, measured = read_stored(args.out, about(args, ref, train)), {}, {}
    if 'mars' in args.parts:
        makers |= mars_rows(args, ref, Mars.from_pretrained(args.model)) | training_row(ref, train)
    for name, baseline, folder in requested(args):
        makers |= add_baseline(args, ref, result, name, baseline, folder)
    if args.tokensynth and 'tokensynth' in args.parts: makers |= add_tokensynth(args, ref, result)
    missing = {k: v for k, v in makers.items() if k not in result['rows']}
    meter = RowMeter(args, ref) if missing else None
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name, maker in missing.items():
        result['rows'][name], notes = meter(name, maker)
        if args.clips: measured[name] = notes[clip_rows(ref)]
        write_atomic(args.out, result_json(result) + '\n')
    if args.clips:
        add_clips(args.clips, ref, makers, measured)
        result['clips'] = clip_names(ref)
    write_atomic(args.out, result_json(result) + '\n')
    return json.loads(args.out.read_text(encoding='utf-8'))

def print_blocks(rows):
    "Print one table for each block."
    def value(v): return SimpleNamespace(**v) if isinstance(v, dict) else v
    for block in ('reference', 'reconstruction', 'generated'):
        shown = {k: {c: value(v) for c, v in r.items()} for k, r in rows.items() if r['block'] == block}
        columns = [c for c in COLUMNS if any(r.get(c) is not None for r in shown.values())]
        text = {c: {k: str(r[c] or '') for k, r in shown.items()} for c in ('parameters', 'floats', 'steps')}
        print(f'\n{block}\n', *columns_table(shown, columns, text=text), sep='\n', flush=True)

# ---- command

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--run', type=Path, help='run folder of the DDSP baseline')
    ap.add_argument('--wavenet', type=Path, help='run folder of the WaveNet autoencoder')
    ap.add_argument('--diffwave', type=Path, metavar='FOLDER',
                    help='run folder of DiffWave; without it, it has no rows')
    ap.add_argument('--requests', type=Path, metavar='FOLDER', help='write labels and timbres for tokensynth_notes.py')
    ap.add_argument('--tokensynth', type=Path, metavar='FOLDER', help='notes that tokensynth_notes.py wrote')
    ap.add_argument('--schedule', default='fast', choices=('fast', 'full'),
                    help='reverse steps of DiffWave; default: %(default)s')
    ap.add_argument('--bf16', action='store_true', help='sample DiffWave in bfloat16')
    ap.add_argument('--mel-settings', type=json.loads, default={}, metavar='JSON',
                    help="as --settings, of DiffWave's label-to-mel stage")
    ap.add_argument('--data', action='append', required=True,
                    help="auto, additive, an .sf2 or .sf3 file, or a folder in NSynth's layout; repeatable")
    ap.add_argument('--train', action='store_true', help='train the baselines first, or continue their training')
    ap.add_argument('--preset', default='small', help='size of the baselines; default: %(default)s')
    ap.add_argument('--settings', type=json.loads, default={}, metavar='JSON',
                    help='fields of its training, such as {"steps": 1000}; the others are those of the preset')
    ap.add_argument('--shape', type=json.loads, default={}, metavar='JSON',
                    help='fields of its shape, such as {"window": 0.5}; the others are those of the preset')
    ap.add_argument('--parts', default='mars,ddsp,diffwave,wavenet,tokensynth',
                    help='rows to measure, or baselines to train; the others are kept; default: %(default)s')
    ap.add_argument('--split', type=Path, default=ROOT/'scripts'/'split.json', help='JSON file: held-out instruments')
    ap.add_argument('--quick', action='store_true', help='two pitches and one velocity of --data, to test a command')
    ap.add_argument('--model', default='small', help='MARS: a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--n', type=int, default=256, help='test notes, at least 20; default: %(default)s')
    ap.add_argument('--n-f0', type=int, default=64, help='notes whose pitch pYIN measures; default: %(default)s')
    ap.add_argument('--n-iter', type=int, default=32, help='iterations of Griffin-Lim; default: %(default)s')
    ap.add_argument('--n-resamples', type=int, default=50, help='resamples of an interval; default: %(default)s')
    ap.add_argument('--seed', type=int, default=0, help='of the choice of notes and of generation')
    ap.add_argument('--device',
                    help='cpu, cuda or mps, of the training (default: the first available) and of DiffWave (cpu)')
    ap.add_argument('--clips', type=Path, help='a folder for the first two seconds of five notes of each row as MP3')
    ap.add_argument('--out', type=Path, help='a JSON file')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    notes, test = open_sides(args)
    print(f'{len(notes)} training notes of {len(notes.instruments)} instruments, {len(test)} test notes of '
          f'{len(test.instruments)}', flush=True)
    if args.train: train(args, notes)
    chosen = sorted(Batches(test, min(args.n, len(test)), args.seed).at(0).tolist())
    ref = NoteSet(test.select(chosen), name='the test notes')
    if args.requests: write_requests(args.requests, ref, notes, args.seed)
    if not args.out: return None
    result = evaluate(args, ref, notes)
    print_blocks(result['rows'])
    return result

if __name__ == '__main__': main()
