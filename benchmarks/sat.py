"""Run the experiments of nbs/studies/sat with several seeds:  python benchmarks/sat.py [sat-scales ...] [--seeds 0 1 2]

Prints the variants of each run as a table. Adds each run to results/studies/<experiment>.json; seeds that the file
contains already are skipped unless --again is given. Times are comparable only within one run.
"""
import argparse, time
from pathlib import Path
from mars.ablations import read_results, run_experiment, summary
from mars.data import SoundFontNotes
from mars.studies.sat import wave_data

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
NAMES = ['sat-scales', 'sat-rvq', 'sat-sharing', 'sat-design', 'sat-windows', 'sat-discriminators', 'sat-width']
COLUMNS = 'tokens', 'mel', 'db_active', 'frechet', 'used'

def training_notes():
    "Every fourth pitch from 36 to 96 of the SoundFont, at velocity 100."
    notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
    return notes.filter(pitches=range(36, 97, 4), velocities=(100,))

def is_done(path, preset, seed):
    "Whether the file contains a run with this preset and seed."
    return any((r['preset'], r['seed']) == (preset, seed) for r in read_results(path))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('names', nargs='*', default=NAMES, help=f'some of {", ".join(NAMES)}; default: all')
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, help="optimiser steps of each variant, >= 1; default: the experiment's own")
    ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    ap.add_argument('--again', action='store_true', help='repeat seeds that the file contains already')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--out', type=Path, default=RESULTS, help='folder of the JSON files; default: results/studies')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    data = wave_data(args.preset, training_notes(), args.device)
    for name in args.names:
        for seed in args.seeds:
            out, start = args.out/f'{name}.json', time.perf_counter()
            if is_done(out, args.preset, seed) and not args.again: continue
            result = run_experiment(name, args.preset, seed, out, data=data, steps=args.steps, device=args.device)
            table = summary([result], COLUMNS).to_string()
            print(f'{name}, seed {seed}: {time.perf_counter()-start:.0f} s\n{table}', flush=True)

if __name__ == '__main__': main()
