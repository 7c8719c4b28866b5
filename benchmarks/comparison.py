"""Compare all systems at equal compute:  python benchmarks/comparison.py --run FOLDER [--preset tiny] [--seeds 0 1]

Prints the time of each seed, adds its results to results/studies/comparison.json and, for seed 0, writes three notes of
each row to results/clips/comparison. The run folder holds the three tokenizers and the trained systems of each seed; an
interrupted run continues from them. Tokenizers of waves need longer training than the others: with the same notes and
run folder, benchmarks/wave_tokenizers.py trains sat and rvq first. The notes are two octaves of a SoundFont at one
velocity, and the evaluation takes held-out notes of the training instruments and notes of other instruments;
--data replaces them, as in scripts/reproduce_weights.py. Times are comparable only within one result.
"""
import argparse, json, sys, time
from pathlib import Path
from mars.ablations import run_experiment
from mars.baselines.comparison import comparison_data
from mars.data import SoundFontNotes
from mars.studies.prediction import study_splits
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'scripts'))
from reproduce_weights import QUICK, MODEL, every, open_data, split_by_names

RESULTS = Path(__file__).resolve().parent.parent/'results'
SPLIT = RESULTS.parent/'scripts'/'split.json'
TOKENIZER_STEPS = dict(tiny=dict(mars=400, sat=260, rvq=260))

def open_splits(args):
    "Return the training notes and the held-out notes."
    if not args.data:
        notes = SoundFontNotes(pitches=range(48, 72), velocities=(100,), label='key')
        train, held_out, new, _ = study_splits(notes)
        return train, held_out + new
    split = json.loads(args.split.read_text())['model']
    train, _, test = split_by_names(open_data(args.data, QUICK if args.quick else MODEL), split)
    return every(train, args.max_notes), test

def add_data_arguments(ap):
    ap.add_argument('--data', action='append',
                    help="auto, additive, an .sf2 or .sf3 file, or a folder in NSynth's layout; repeatable")
    ap.add_argument('--split', type=Path, default=SPLIT, help='JSON file: held-out instruments of --data')
    ap.add_argument('--max-notes', type=int, default=10**9, help='training notes, evenly spaced; default: all')
    ap.add_argument('--quick', action='store_true', help='two pitches and one velocity of --data, to test a command')

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--run', type=Path, required=True, help='folder of the tokenizers and of the systems')
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--seeds', type=int, nargs='+', default=[0],
                    help='clips and times of the layouts are those of seed 0; default: 0')
    ap.add_argument('--budget', type=float, help="FLOPs of each system's training, > 0; default: the preset's")
    ap.add_argument('--positions', type=int, default=0,
                    help='positions in the trunk for each training step; 0 (default) is 32 notes')
    ap.add_argument('--repeats', type=int, default=3, help='runs of each timing; default: %(default)s')
    ap.add_argument('--n', type=int, default=120, help='notes of the evaluation; default: %(default)s')
    ap.add_argument('--n-f0', type=int, default=64, help='notes whose pitch pYIN measures; default: %(default)s')
    add_data_arguments(ap)
    ap.add_argument('--steps', type=json.loads, default={}, metavar='JSON',
                    help='optimiser steps of the tokenizers, such as {"mars": 400, "sat": 260, "rvq": 260}')
    ap.add_argument('--lr', type=float, help="learning rate of the systems, > 0; default: the preset's")
    ap.add_argument('--device', default='cpu', help='cpu, cuda or mps; default: %(default)s')
    ap.add_argument('--out', type=Path, default=RESULTS, help='folder of studies/ and clips/; default: results')
    return ap

def main(argv=None, shared={}, **options):
    "shared: arguments of `comparison_data`; options: arguments of the experiment."
    args = parser().parse_args(argv)
    gpu = args.device != 'cpu'
    steps = {**TOKENIZER_STEPS.get(args.preset, {}), **args.steps}
    data = comparison_data(args.preset, None, args.run, n=args.n, device=args.device, splits=open_splits(args),
                           steps=steps, **shared)
    if gpu: options['batches'] = 1, 16, 256
    layouts = options.pop('layouts', () if gpu else ('tiny', 'small'))
    options['settings'] = dict(lr=args.lr) if args.lr else {}
    (args.out/'studies').mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        start = time.perf_counter()
        first = {} if seed else dict(clips=args.out/'clips'/'comparison', layouts=layouts)
        run_experiment('comparison', args.preset, seed, args.out/'studies'/'comparison.json', data=data,
                       budget=args.budget, repeats=args.repeats, device=args.device,
                       trained=args.run/f'systems-{seed}', n_f0=args.n_f0, positions_per_step=args.positions,
                       **first, **options)
        print(f'seed {seed}: {time.perf_counter()-start:.0f} s', flush=True)

if __name__ == '__main__': main()
