"""Run the experiments of nbs/studies/sat with several seeds:  python benchmarks/sat.py [sat-scales sat-rvq ...] [--preset tiny] [--seeds 0 1 2]

Adds to results/studies/<experiment>.json and skips the seeds in it, unless --again is given. Compare times only within one result.
"""
import argparse, time
from pathlib import Path
from mars.ablations import read_results, run_experiment, summary
from mars.data import SoundFontNotes
from mars.studies.sat import wave_data

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
NAMES = ['sat-scales', 'sat-rvq', 'sat-sharing', 'sat-design', 'sat-windows', 'sat-discriminators', 'sat-width']
COLUMNS = 'tokens', 'mel', 'db_active', 'frechet', 'used'

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('names', nargs='*', default=NAMES)
ap.add_argument('--preset', default='tiny')
ap.add_argument('--steps', type=int)
ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
ap.add_argument('--again', action='store_true')
ap.add_argument('--device', help='cpu, cuda or mps; by default the first available of cuda, mps and cpu')
ap.add_argument('--out', type=Path, default=RESULTS)
args = ap.parse_args()
notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
data = wave_data(args.preset, notes.filter(pitches=range(36, 97, 4), velocities=(100,)), args.device)
for name in args.names:
    for seed in args.seeds:
        out, start = args.out/f'{name}.json', time.perf_counter()
        if not args.again and any((r['preset'], r['seed']) == (args.preset, seed) for r in read_results(out)): continue
        result = run_experiment(name, args.preset, seed, out, data=data, steps=args.steps, device=args.device)
        print(f'{name}, seed {seed}: {time.perf_counter()-start:.0f} s\n{summary([result], COLUMNS).to_string()}', flush=True)
