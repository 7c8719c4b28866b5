"""Rows of the paper's Table 1 on the same notes:  python benchmarks/table1.py --run FOLDER --data SOURCE [--train]

Trains DDSP (--run), DiffWave (--diffwave) and the WaveNet autoencoder (--wavenet) on the training side of the notes
(--train; an interrupted run continues) and evaluates them and MARS on the test side; a baseline without a folder is
left out. Rows are reference, anchor, Griffin-Lim oracle and reconstructions, paired with the test notes, and notes
generated from their labels. Notes are those of --data at pitches 36 to 96 and two velocities; scripts/split.json names
the held-out instruments, which no model was trained on. Prints three tables and writes them as JSON (--out), where rows
of an earlier call with the same notes and settings are kept. The committed result is
results/benchmarks/table1-small.json.
"""
import argparse, json, sys, time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
import torch
from mars.baselines.ddsp import DDSPConfig, cached_f0, train_ddsp
from mars.baselines.diffwave import DiffWaveConfig, train_diffwave
from mars.baselines.wavenet import WaveNetConfig, train_wavenet
from mars.cli.data import with_data
from mars.data import Batches
from mars.evaluation.protocol import Frechet, LabelAccuracy, MelPCA, NearestError, NoteSet, PairedError, Pitch
from mars.evaluation.protocol import Comparison, ProtocolConfig, Row, columns_table, extract_features, lowpass
from mars.evaluation.protocol import griffin_lim_oracle, iter_batches, result_json, write_notes
from mars.evaluation.report import weights_digest
from mars.parts.classifier import Classifier
from mars.parts.files import write_atomic
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
           'accuracy family', 'MSE', 'MAE', 'MSE paired', 'MAE paired', 'mel distance', 'STFT distance',
           'Fréchet distance, mel-PCA', 'Fréchet distance, classifier')

def open_sides(args):
    "Training and test notes."
    split = json.loads(args.split.read_text())['model']
    train, _, test = split_by_names(open_data(args.data, QUICK if args.quick else GRID), split)
    return train, test

def train(args, notes):
    "Train the baselines of --parts that have a folder, each from its newest checkpoint if there is one."
    options = dict(info=with_data({}, notes), progress=False, resume=True, device=args.device)
    mel = dict(mel_train=TrainConfig.preset(args.preset, 'label_to_mel', **args.mel_settings))
    baselines = dict(ddsp=(args.run, DDSPConfig, train_ddsp, {}),
                     diffwave=(args.diffwave, DiffWaveConfig, train_diffwave, mel),
                     wavenet=(args.wavenet, WaveNetConfig, train_wavenet, {}))
    for name, (folder, config, run, more) in baselines.items():
        if folder is None or name not in args.parts: continue
        settings = TrainConfig.preset(args.preset, name, **args.settings)
        run(notes, settings, config.preset(args.preset, **args.shape), folder, **more, **options)

# ---- rows

def anchor(waves):
    "The anchor of the listening test of Vinay and Lerch: 1 kHz low-pass and 8 bits."
    return (lowpass(waves, 1000.)*128).round().clamp(-128, 127)/128

def n_parameters(*nets): return sum(p.numel() for net in nets for p in net.parameters())

def steps_of(m, *stages): return sum(m.info[f'train_{stage}']['steps'] for stage in stages)

def part(labels, i, n): return {k: v[i:i+n] for k, v in labels.items()}

def mars_rows(args, ref, m):
    "Rows without the baseline: name -> (block, f of waves and the index of the first, parameters, floats, steps)."
    ls, options = m.spectrogram, dict(n_iter=args.n_iter, seed=args.seed)
    def oracle(w, i): return griffin_lim_oracle(w, ls, m.cmx, first=i, **options)
    def rebuilt(w, i): return m.decode(m.encode(w), first=i, **options)
    def generated(w, i):
        tokens = generate(m.var, part(ref.labels, i, len(w)), len(w), seed=args.seed, first=i, **m.sampling())
        return m.decode(tokens, first=i, **options)
    codec, tokens = n_parameters(m.tokenizer), f'{m.tokenizer.cfg.n_tokens} tokens'
    return {'reference': ('reference', lambda w, i: w, None, None, None),
            'anchor, 1 kHz and 8 bits': ('reference', lambda w, i: anchor(w), None, None, None),
            'Griffin-Lim oracle': ('reference', oracle, None, ls.shape[-2]*ls.shape[-1], None),
            'MARS reconstruction': ('reconstruction', rebuilt, codec, tokens, steps_of(m, 'tokenizer')),
            'MARS generated': ('generated', generated, codec + n_parameters(m.var), None, steps_of(m, 'var'))}

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
    return {'DDSP reconstruction, f0 of the label': ('reconstruction', by_label, *sizes),
            'DDSP generated': ('generated', generated, sizes[0], None, sizes[2]),
            'DDSP reconstruction, f0 estimated': ('reconstruction', by_estimate, *sizes)}

def diffwave_rows(args, ref, m):
    "Rows of DiffWave, as `mars_rows`; one that is conditioned on labels reconstructs nothing."
    decoding = dict(seed=args.seed, schedule=args.schedule)
    def rebuilt(w, i): return m.decode(m.encode(w), first=i, **decoding)
    def generated(w, i):
        return m.decode(m.var.generate(part(ref.labels, i, len(w)), seed=args.seed, first=i), first=i, **decoding)
    net, steps = n_parameters(m.tokenizer), steps_of(m, 'diffwave')
    if m.tokenizer.labels is not None:
        return {f'Label DiffWave generated, {args.schedule}': ('generated', generated, net, None, steps)}
    both = net + n_parameters(m.var)
    return {f'DiffWave reconstruction, {args.schedule}': ('reconstruction', rebuilt, net,
                                                          m.tokenizer.cfg.floats_per_note, steps),
            f'DiffWave generated, {args.schedule}': ('generated', generated, both, None, steps)}

def wavenet_rows(args, ref, m):
    "Rows of the WaveNet autoencoder, as `mars_rows`; the labels of a note are part of its conditioning or not."
    def plain(w, i): return m.decode(m.encode(w), seed=args.seed, first=i)
    def by_label(w, i): return m.decode(m.encode(w, **part(ref.labels, i, len(w))), seed=args.seed, first=i)
    def generated(w, i):
        return m.decode(m.var.generate(part(ref.labels, i, len(w)), seed=args.seed, first=i, **m.sampling()))
    sizes = n_parameters(m.tokenizer), m.tokenizer.cfg.floats_per_note, steps_of(m, 'wavenet')
    rows = {'WaveNet reconstruction': ('reconstruction', plain, *sizes),
            'WaveNet generated': ('generated', generated, sizes[0], None, sizes[2])}
    with_labels = {'WaveNet reconstruction, with labels': ('reconstruction', by_label, *sizes)}
    return rows | (with_labels if m.tokenizer.label_embed is not None else {})

class RowMeter:
    "Measures the cheap columns of the protocol for one row after another."
    def __init__(self, args, ref):
        self.pca, self.classifier, self.ref = MelPCA.load(), Classifier.from_pretrained(), ref
        self.cfg = ProtocolConfig(seed=args.seed, n_f0=args.n_f0, n_resamples=args.n_resamples)
        self.metrics = [LabelAccuracy(), NearestError(), PairedError(), Pitch(), Frechet(self.pca.name),
                        Frechet('classifier')]
        self.data = self.features(ref)

    def features(self, notes): return extract_features(notes, [self.pca], self.classifier)

    def __call__(self, name, block, f, parameters, floats, steps): # -> dict of columns
        ref, start = self.ref, time.perf_counter()
        notes = write_notes((f(w, i) for i, w in iter_batches(ref, 16)), len(ref), None, ref.labels, name)
        seconds = (time.perf_counter() - start)/len(ref)
        row = Row(name, notes, paired=block != 'generated')
        c = Comparison(ref, row, self.data, self.features(notes), torch.arange(len(ref)), None, self.cfg)
        columns = dict(block=block, parameters=parameters, floats=floats, steps=steps, seconds=seconds)
        for metric in self.metrics:
            if metric.applies(c): columns |= metric(c)
        print(f'{name}: {seconds:.2f} s a note', flush=True)
        return columns

def save_clips(folder, ref, rows, n=2, samples=16000):
    "Write the first second of n notes of every row as one small MP3."
    import soundfile
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [round((j + .5)*len(ref)/n) for j in range(n)]
    for name, (_, f, *_) in rows.items():
        clip = torch.cat([torch.as_tensor(f(ref[[i]], i))[0, :samples] for i in chosen])
        clip = clip/32768 if clip.dtype == torch.int16 else clip
        path = folder/f'{name.replace(", ", " ").replace(" ", "-")}.mp3'
        soundfile.write(path, clip.float().numpy(), 16000, format='MP3', compression_level=.6)

def learning_curve(folder, stage, n=60):
    "About n rows of the log of the training, and its last."
    rows = [r for r in read_log(folder) if r['stage'] == stage]
    keys = 'step', 'loss', *(('harmonic_db', 'noise_db') if stage == 'ddsp' else ()), 'lr', 'seconds'
    shown = rows[::max(1, len(rows)//n)] + rows[-1:]
    return [{k: r[k] if k == 'step' else round(float(r[k]), 6) for k in keys} for r in shown]

def about(args, ref, train):
    "What the rows have in common."
    test = ref.source
    return dict(notes=len(ref), digest=names_hash(test), instruments=len(test.instruments), pitch_labels=test.label,
                train_notes=len(train), train_instruments=len(train.instruments), n_iter=args.n_iter,
                n_resamples=args.n_resamples, seed=args.seed, model=args.model)

def read_stored(path, info):
    "The result of an earlier call with the same notes and settings."
    if not path.exists(): return dict(info=info, rows={})
    old = json.loads(path.read_text(encoding='utf-8'))
    return old if old['info'] == info else dict(info=info, rows={})

def describe_run(folder, m):
    "How the baseline was trained, and its learning curve."
    about = dict(config=asdict(m.tokenizer.cfg), f0=m.info['f0'], train=m.info['train_ddsp'],
                 versions=m.info['versions'], weights=weights_digest(ddsp=m.tokenizer, prior=m.var))
    return about, learning_curve(folder, 'ddsp')

def describe_diffwave(folder, m):
    "How DiffWave was trained, and its learning curves."
    trained = {k.removeprefix('train_'): v for k, v in m.info.items() if k.startswith('train_')}
    return dict(config=asdict(m.tokenizer.cfg), train=trained, versions=m.info['versions'],
                weights=weights_digest(diffwave=m.tokenizer, mel=None if m.tokenizer.labels else m.var),
                curves={stage: learning_curve(folder, stage) for stage in trained})

def describe_wavenet(folder, m):
    "How the WaveNet autoencoder was trained, at what cost, and its learning curve."
    rows = [r for r in read_log(folder) if r['stage'] == 'wavenet']
    curve = [{k: r[k] if k == 'step' else round(float(r[k]), 6) for k in ('step', 'loss', 'level_db', 'seconds')}
             for r in rows[::max(1, len(rows)//60)] + rows[-1:]]
    return dict(config=asdict(m.tokenizer.cfg), train=m.info['train_wavenet'], versions=m.info['versions'], curve=curve,
                weights=weights_digest(wavenet=m.tokenizer, prior=m.var))

def add_wavenet(args, ref, result):
    "Describe the WaveNet autoencoder in the result, drop rows of another run, and return its rows."
    m, old = Mars.from_pretrained(args.wavenet), result.get('wavenet')
    result['wavenet'] = describe_wavenet(args.wavenet, m)
    if old and old['weights'] != result['wavenet']['weights']:
        result['rows'] = {k: v for k, v in result['rows'].items() if not k.startswith('WaveNet')}
    return wavenet_rows(args, ref, m)

def evaluate(args, ref, train):
    "Measure the rows of --parts that the file does not have; each is written when it is complete."
    result, makers = read_stored(args.out, about(args, ref, train)), {}
    if 'mars' in args.parts: makers |= mars_rows(args, ref, Mars.from_pretrained(args.model))
    if 'wavenet' in args.parts and args.wavenet: makers |= add_wavenet(args, ref, result)
    if 'ddsp' in args.parts and args.run:
        m, old = Mars.from_pretrained(args.run), result.get('ddsp')
        result['ddsp'], result['curve'] = describe_run(args.run, m)
        if old and old['weights'] != result['ddsp']['weights']: # rows of another run
            result['rows'] = {k: v for k, v in result['rows'].items() if not k.startswith('DDSP')}
        makers |= ddsp_rows(args, ref, m)
    if 'diffwave' in args.parts and args.diffwave:
        m = Mars.from_pretrained(args.diffwave, args.device or 'cpu')
        name = 'Label DiffWave' if m.tokenizer.labels is not None else 'DiffWave'
        old, result[name] = result.get(name), describe_diffwave(args.diffwave, m)
        if old and old['weights'] != result[name]['weights']: # rows of another run
            result['rows'] = {k: v for k, v in result['rows'].items() if not k.startswith(name)}
        makers |= diffwave_rows(args, ref, m)
    missing = {k: v for k, v in makers.items() if k not in result['rows']}
    meter = RowMeter(args, ref) if missing else None
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name, maker in missing.items():
        result['rows'][name] = meter(name, *maker)
        write_atomic(args.out, result_json(result) + '\n')
    if args.clips: save_clips(args.clips, ref, makers)
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
    ap.add_argument('--schedule', default='fast', choices=('fast', 'full'),
                    help='reverse steps of DiffWave; default: %(default)s')
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
    ap.add_argument('--parts', default='mars,ddsp,diffwave,wavenet',
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
    ap.add_argument('--clips', type=Path, help='a folder for a short MP3 of each row')
    ap.add_argument('--out', type=Path, help='a JSON file')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    notes, test = open_sides(args)
    print(f'{len(notes)} training notes of {len(notes.instruments)} instruments, {len(test)} test notes of '
          f'{len(test.instruments)}', flush=True)
    if args.train: train(args, notes)
    if not args.out: return None
    chosen = sorted(Batches(test, min(args.n, len(test)), args.seed).at(0).tolist())
    result = evaluate(args, NoteSet(test.select(chosen), name='the test notes'), notes)
    print_blocks(result['rows'])
    return result

if __name__ == '__main__': main()
