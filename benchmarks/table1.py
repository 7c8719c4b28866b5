"""Rows of the paper's Table 1 on the same notes:  python benchmarks/table1.py --run FOLDER --data SOURCE [--train]

Trains the DDSP baseline on the training side of the notes (--train; an interrupted run continues) and evaluates it and
MARS on the test side: reference, anchor, Griffin-Lim oracle and reconstructions, paired with the test notes, and notes
generated from their labels. Notes are those of --data at pitches 36 to 96 and two velocities; scripts/split.json names
the held-out instruments, which neither model was trained on. Prints a table and writes it as JSON (--out).
"""
import argparse, json, sys, time
from dataclasses import asdict
from pathlib import Path
import torch
from mars.baselines.ddsp import DDSPConfig, train_ddsp
from mars.cli.data import with_data
from mars.data import Batches
from mars.evaluation.protocol import Frechet, LabelAccuracy, MelPCA, NearestError, NoteSet, PairedError, Pitch
from mars.evaluation.protocol import Comparison, ProtocolConfig, Row, columns_table, extract_features, lowpass
from mars.evaluation.protocol import griffin_lim_oracle, iter_batches, result_json, write_notes
from mars.parts.classifier import Classifier
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.train import TrainConfig
from mars.training.log import read_log, versions
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'scripts'))
from reproduce_weights import QUICK, open_data, split_by_names

ROOT = Path(__file__).resolve().parent.parent
GRID = [dict(pitches=range(36, 97), velocities=(50, 100))]
COLUMNS = ('f0 within 50 cents', 'f0, octaves folded', 'f0 median cents', 'accuracy pitch', 'accuracy family', 'MSE',
           'MAE', 'MSE paired', 'MAE paired', 'mel distance', 'STFT distance', 'Fréchet distance, mel-PCA',
           'Fréchet distance, classifier')
SIZES = 'parameters', 'floats', 'steps', 'seconds'

def open_sides(args):
    "Training and test notes."
    split = json.loads(args.split.read_text())['model']
    train, _, test = split_by_names(open_data(args.data, QUICK if args.quick else GRID), split)
    return train, test

def train(args, notes):
    "Train the baseline in --run, from its newest checkpoint if there is one."
    given = dict(steps=args.steps) if args.steps else {}
    settings = TrainConfig.preset(args.preset, 'ddsp', **given)
    train_ddsp(notes, settings, DDSPConfig.preset(args.preset), args.run, info=with_data({}, notes), progress=False,
               resume=True, device=args.device)

# ---- rows

def anchor(waves):
    "The anchor of the listening test of Vinay and Lerch: 1 kHz low-pass and 8 bits."
    return (lowpass(waves, 1000.)*128).round().clamp(-128, 127)/128

def timed_rows(args, ref, ddsp, mars):
    "Rows and their costs: name -> (block, NoteSet, dict of SIZES)."
    labels, n_iter, out = ref.labels, args.n_iter, {}
    size = dict(ddsp=sum(p.numel() for p in ddsp.tokenizer.parameters()),
                codec=sum(p.numel() for p in mars.tokenizer.parameters()),
                var=sum(p.numel() for p in mars.var.parameters()))
    steps = {k: (m.info.get(f'train_{k}') or {}).get('steps') for k, m in (('ddsp', ddsp), ('tokenizer', mars),
                                                                           ('var', mars))}
    spec = ddsp.spectrogram.shape[-1]*ddsp.spectrogram.shape[-2]
    tokens, floats = mars.tokenizer.cfg.n_tokens, ddsp.tokenizer.cfg.floats_per_note
    def add(name, block, f, **sizes):
        start = time.perf_counter()
        notes = write_notes((f(w, i) for i, w in iter_batches(ref, 16)), len(ref), None, labels, name)
        out[name] = block, notes, dict(seconds=(time.perf_counter() - start)/len(ref), **sizes)
    def part(i, n): return {k: v[i:i+n] for k, v in labels.items()}
    def by_labels(w, i): return ddsp.decode(ddsp.encode(w, labels['pitch'][i:i+len(w)]), seed=args.seed, first=i)
    def by_estimator(w, i): return ddsp.decode(ddsp.encode(w), seed=args.seed, first=i)
    def mars_codec(w, i): return mars.decode(mars.encode(w), n_iter=n_iter, seed=args.seed, first=i)
    def mars_generated(w, i):
        return mars.decode(mars.var.generate(part(i, len(w)), seed=args.seed, first=i, **mars.sampling()),
                           n_iter=n_iter, seed=args.seed, first=i)
    def ddsp_generated(w, i):
        return ddsp.decode(ddsp.var.generate(part(i, len(w)), seed=args.seed, first=i), seed=args.seed, first=i)
    add('reference', 'reference', lambda w, i: w)
    add('anchor, 1 kHz and 8 bits', 'reference', lambda w, i: anchor(w))
    add('Griffin-Lim oracle', 'reference',
        lambda w, i: griffin_lim_oracle(w, mars.spectrogram, mars.cmx, n_iter, args.seed, i), floats=spec)
    add('MARS reconstruction', 'reconstruction', mars_codec, parameters=size['codec'], floats=f'{tokens} tokens',
        steps=steps['tokenizer'])
    ddsp_sizes = dict(parameters=size['ddsp'], floats=floats, steps=steps['ddsp'])
    add('DDSP reconstruction, f0 of the label', 'reconstruction', by_labels, **ddsp_sizes)
    add('DDSP reconstruction, f0 estimated', 'reconstruction', by_estimator, **ddsp_sizes)
    add('MARS generated', 'generated', mars_generated, parameters=size['codec'] + size['var'], steps=steps['var'])
    add('DDSP generated', 'generated', ddsp_generated, parameters=size['ddsp'], steps=steps['ddsp'])
    return out

def measure(args, ref, rows):
    "The cheap columns of the protocol for every row."
    pca, classifier = MelPCA.load(), Classifier.from_pretrained()
    cfg = ProtocolConfig(seed=args.seed, n_f0=args.n_f0, n_resamples=args.n_resamples)
    metrics = [LabelAccuracy(), NearestError(), PairedError(), Pitch(), Frechet(pca.name), Frechet('classifier')]
    data, table = extract_features(ref, [pca], classifier), {}
    for name, (block, notes, sizes) in rows.items():
        row = Row(name, notes, paired=block != 'generated')
        c = Comparison(ref, row, data, extract_features(notes, [pca], classifier), torch.arange(len(ref)), None, cfg)
        table[name] = dict(block=block, **sizes)
        for metric in metrics:
            if metric.applies(c): table[name] |= metric(c)
    return table

def learning_curve(folder, n=60):
    "About n rows of the log of the training, and its last."
    rows = [r for r in read_log(folder) if r['stage'] == 'ddsp']
    keys = 'step', 'loss', 'harmonic_db', 'noise_db', 'lr', 'seconds'
    shown = rows[::max(1, len(rows)//n)] + rows[-1:]
    return [{k: r[k] if k == 'step' else round(float(r[k]), 6) for k in keys} for r in shown]

# ---- command

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--run', type=Path, required=True, help='run folder of the DDSP baseline')
    ap.add_argument('--data', action='append', required=True,
                    help="auto, additive, an .sf2 or .sf3 file, or a folder in NSynth's layout; repeatable")
    ap.add_argument('--train', action='store_true', help='train the baseline first, or continue its training')
    ap.add_argument('--preset', default='small', help='size of the baseline; default: %(default)s')
    ap.add_argument('--steps', type=int, help="steps of its training, >= 1; default: the preset's")
    ap.add_argument('--split', type=Path, default=ROOT/'scripts'/'split.json', help='JSON file: held-out instruments')
    ap.add_argument('--quick', action='store_true', help='two pitches and one velocity of --data, to test a command')
    ap.add_argument('--model', default='small', help='MARS: a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--n', type=int, default=256, help='test notes, at least 20; default: %(default)s')
    ap.add_argument('--n-f0', type=int, default=64, help='notes whose pitch pYIN measures; default: %(default)s')
    ap.add_argument('--n-iter', type=int, default=32, help='iterations of Griffin-Lim; default: %(default)s')
    ap.add_argument('--n-resamples', type=int, default=50, help='resamples of an interval; default: %(default)s')
    ap.add_argument('--seed', type=int, default=0, help='of the choice of notes and of generation')
    ap.add_argument('--device', help='cpu, cuda or mps, of the training; default: the first available')
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
    ref = NoteSet(test.select(chosen), name='the test notes')
    ddsp, mars = Mars.from_pretrained(args.run), Mars.from_pretrained(args.model)
    table = measure(args, ref, timed_rows(args, ref, ddsp, mars))
    info = dict(notes=len(ref), instruments=len(test.select(chosen).instruments), train_notes=len(notes),
                train_instruments=len(notes.instruments), preset=args.preset, n_f0=args.n_f0, n_iter=args.n_iter,
                seed=args.seed, model=args.model, f0=ddsp.info['f0'], config=asdict(ddsp.tokenizer.cfg),
                train=ddsp.info['train_ddsp'], **versions(torch.device('cpu')))
    result = dict(info=info, rows=table, curve=learning_curve(args.run))
    write_atomic(args.out, result_json(result) + '\n')
    for block in ('reference', 'reconstruction', 'generated'):
        rows = {k: v for k, v in table.items() if v['block'] == block}
        columns = [c for c in COLUMNS if any(c in r for r in rows.values())]
        print(f'\n{block}\n', *columns_table(rows, columns), sep='\n', flush=True)
    return result

if __name__ == '__main__': main()
