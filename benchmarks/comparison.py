"""Compare all systems at equal compute:  python benchmarks/comparison.py --run FOLDER [--preset tiny] [--seeds 1]

Adds to results/studies/comparison.json, and for the first seed writes three notes of each row to results/clips/comparison. The run folder holds the
three tokenizers and the trained systems of each seed; a run that was interrupted continues from them. At `tiny` the notes are two octaves of one
velocity of a SoundFont; --data takes others, as scripts/reproduce_weights.py does. Compare times only within one result.
"""
import argparse, json, sys, time
from pathlib import Path
from mars.ablations import run_experiment
from mars.baselines.comparison import comparison_data
from mars.data import SoundFontNotes
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'scripts'))
from reproduce_weights import QUICK, MODEL, every, open_data, split_by_names

RESULTS = Path(__file__).resolve().parent.parent/'results'
SPLIT = RESULTS.parent/'scripts'/'split.json'
TOKENIZER_STEPS = dict(tiny=dict(mars=400, sat=260, rvq=260))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--run', type=Path, required=True, help='folder of the tokenizers mars, sat and rvq, and of the systems')
    ap.add_argument('--preset', default='tiny')
    ap.add_argument('--seeds', type=int, default=1)
    ap.add_argument('--budget', type=float, help="floating-point operations of each system's training")
    ap.add_argument('--positions', type=int, default=0, help='positions in the trunk a step of a system; 0 is 32 notes')
    ap.add_argument('--repeats', type=int, default=3, help='of each timing')
    ap.add_argument('--n', type=int, default=120, help='notes of the evaluation')
    ap.add_argument('--n-f0', type=int, default=64, help='notes whose pitch is measured by pYIN')
    ap.add_argument('--data', action='append',
                    help='auto, additive, an .sf2 or .sf3 file, or a folder in NSynth layout; may be repeated')
    ap.add_argument('--split', type=Path, default=SPLIT, help='of --data')
    ap.add_argument('--max-notes', type=int, default=10**9, help='training notes of --data, evenly spaced')
    ap.add_argument('--steps', type=json.loads, default={}, metavar='JSON',
                    help='of the tokenizers, such as {"mars": 400, "sat": 260, "rvq": 260}')
    ap.add_argument('--lr', type=float, help='of the systems')
    ap.add_argument('--device', default='cpu')
    ap.add_argument('--quick', action='store_true', help='two pitches and one velocity of --data, to test a command')
    ap.add_argument('--out', type=Path, default=RESULTS)
    return ap

def main(argv=None, shared={}, **options): # shared: arguments of `comparison_data`; options: of the experiment
    a = parser().parse_args(argv)
    splits, notes, gpu = None, None, a.device != 'cpu'
    if a.data:
        split = json.loads(a.split.read_text())['model']
        train, _, test = split_by_names(open_data(a.data, QUICK if a.quick else MODEL), split)
        splits = every(train, a.max_notes), test
    else: notes = SoundFontNotes(pitches=range(48, 72), velocities=(100,), label='key')
    data = comparison_data(a.preset, notes, a.run, n=a.n, device=a.device, splits=splits,
                           steps=a.steps or TOKENIZER_STEPS.get(a.preset, {}), **shared)
    if gpu: options['batches'] = 1, 16, 256
    layouts = options.pop('layouts', () if gpu else ('tiny', 'small'))
    (a.out/'studies').mkdir(parents=True, exist_ok=True)
    for seed in range(a.seeds):
        start = time.perf_counter()
        first = {} if seed else dict(clips=a.out/'clips'/'comparison', layouts=layouts)
        run_experiment('comparison', a.preset, seed, a.out/'studies'/'comparison.json', data=data, budget=a.budget,
                       repeats=a.repeats, device=a.device, trained=a.run/f'systems-{seed}', n_f0=a.n_f0,
                       positions_per_step=a.positions, settings=dict(lr=a.lr) if a.lr else {}, **first, **options)
        print(f'seed {seed}: {time.perf_counter()-start:.0f} s', flush=True)

if __name__ == '__main__': main()
