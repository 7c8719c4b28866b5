"""Run the experiments of nbs/studies/sat with several seeds:  python benchmarks/sat.py [sat-scales sat-rvq ...] [--preset tiny] [--seeds 0 1 2]

Adds to results/studies/<experiment>.json and skips the seeds that are there, unless --again is given. Compare times only within one result.
"""
import argparse, time
from pathlib import Path
from mars.ablations import read_results, run_experiment, summary
from mars.data import SoundFontNotes
from mars.studies.sat import wave_data

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('names', nargs='*', default=['sat-scales', 'sat-rvq', 'sat-sharing', 'sat-design', 'sat-windows', 'sat-discriminators', 'sat-width'])
ap.add_argument('--preset', default='tiny')
ap.add_argument('--steps', type=int)
ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
ap.add_argument('--again', action='store_true')
ap.add_argument('--device', help='cpu, cuda or mps; if not given, the first that is there of cuda, mps and cpu')
ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results'/'studies')
a = ap.parse_args()
notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127)).filter(pitches=range(36, 97, 4), velocities=(100,))
data = wave_data(a.preset, notes, a.device)
for name in a.names:
    for seed in a.seeds:
        out, start = a.out/f'{name}.json', time.perf_counter()
        if not a.again and any((r['preset'], r['seed']) == (a.preset, seed) for r in read_results(out)): continue
        result = run_experiment(name, a.preset, seed, out, data=data, steps=a.steps, device=a.device)
        print(f'{name}, seed {seed}: {time.perf_counter()-start:.0f} s\n{summary([result], ("tokens", "mel", "db_active", "frechet", "used")).to_string()}', flush=True)
