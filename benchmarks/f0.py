"""Two pitch estimators on real notes:  python benchmarks/f0.py --real FOLDER ... --out results/benchmarks/f0.json

Measures pYIN (`mars.eval.f0`) and SwiftF0 (`mars.eval.f0_swift`, extra f0) on notes of test instruments of Fluid (R3),
all pitches from 21 to 108, and on the recorded notes of each folder in NSynth's layout. Prints and writes the share of
notes within 50 cents of the label by each estimator, by either and by both, with Wilson's 95 % intervals; the same with
octaves folded and by range; the median error; and CPU milliseconds a note. The labels of the SoundFont are sounding
pitches (`mars.data.tuning`), those of recorded notes are taken as they are.
"""
import argparse, json, time
from pathlib import Path
import numpy as np, torch
from mars.data import NSynth, SoundFontNotes
from mars.eval import cents_error, f0, f0_swift, share_interval
from mars.evaluation.report import make_splits
from mars.parts.files import write_atomic
from mars.training.log import versions
from common import print_table

RANGES = {'21 to 35': (21, 35), '36 to 96': (36, 96), '97 to 108': (97, 108)}
ESTIMATORS = dict(pYIN=f0, SwiftF0=f0_swift)

def sample_notes(notes, n, seed=0): # -> int16 waves (n, N), pitches (n,)
    "Sample notes at random."
    rows = torch.randperm(len(notes), generator=torch.Generator().manual_seed(seed))[:n].sort().values
    waves, labels = notes.batch(rows.tolist())
    return waves, labels['pitch'].numpy()

def measure(waves): # -> estimator -> (n,) MIDI numbers, and milliseconds a note
    "Measure all waves by each estimator."
    midi, ms = {}, {}
    for name, estimate in ESTIMATORS.items():
        estimate(waves[0].float()/32768) # loads the estimator
        start = time.process_time()
        midi[name] = np.array([estimate(w.float()/32768).midi for w in waves])
        ms[name] = 1000*(time.process_time() - start)/len(waves)
    return midi, ms

def shares(midi, pitch, fold=False): # -> column -> [value, low, high]
    "Shares within 50 cents by each estimator, by either and by both."
    hits = {name: np.abs(cents_error(m, pitch, fold)) <= 50 for name, m in midi.items()}
    hits |= {'either': np.any([*hits.values()], 0), 'both': np.all([*hits.values()], 0)}
    values = {name: share_interval(h) for name, h in hits.items()}
    return {name: [v.value, v.low, v.high] for name, v in values.items()}

def evaluate_set(notes, n):
    "All values of one set of notes."
    waves, pitch = sample_notes(notes, n)
    midi, ms = measure(waves)
    cents = {name: float(np.nanmedian(np.abs(cents_error(m, pitch)))) for name, m in midi.items()}
    ranges = {name: (low <= pitch) & (pitch <= high) for name, (low, high) in RANGES.items()}
    by_range = {name: dict(notes=int(rows.sum()), within=shares({k: m[rows] for k, m in midi.items()}, pitch[rows]))
                for name, rows in ranges.items() if rows.any()}
    unvoiced = {name: int(np.isnan(m).sum()) for name, m in midi.items()}
    return dict(notes=len(pitch), of_notes=len(notes), instruments=len(notes.instruments),
                within=shares(midi, pitch), folded=shares(midi, pitch, True), median_cents=cents, unvoiced=unvoiced,
                by_range=by_range, ms_per_note=ms)

def main(argv=None, notes=None):
    "notes: in place of the test notes of Fluid."
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--real', type=Path, nargs='*', default=[], help="folders of recorded notes in NSynth's layout")
    ap.add_argument('--n', type=int, default=240, help='notes of each set; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    args = ap.parse_args(argv)
    sources = {'Fluid (R3), test instruments': notes or make_splits(SoundFontNotes(pitches=range(21, 109))).test}
    sources |= {f'recorded, {folder.name}': NSynth(folder) for folder in args.real}
    result = dict(info=versions(torch.device('cpu')), sets={})
    for name, source in sources.items():
        result['sets'][name] = s = evaluate_set(source, args.n)
        rows = [dict(range='all', notes=s['notes'], **{k: v[0] for k, v in s['within'].items()}),
                dict(range='all, octaves folded', notes=s['notes'], **{k: v[0] for k, v in s['folded'].items()})]
        rows += [dict(range=r, notes=v['notes'], **{k: x[0] for k, x in v['within'].items()})
                 for r, v in s['by_range'].items()]
        print_table(name, rows)
        write_atomic(args.out, json.dumps(result, indent=1) + '\n')
    return result

if __name__ == '__main__': main()
