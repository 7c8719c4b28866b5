"""All systems on notes of a SoundFont, at equal compute:  python benchmarks/comparison.py --tokenizers DIR [--seeds 1]

Writes results/comparison-tiny-<seed>.json, and for the first seed a few notes of each row as MP3 in results/clips; 08b_comparison.ipynb reads both.
The three tokenizers are trained once, into DIR, unless they lie there. Times are meant as ratios inside one file.
"""
import argparse, time
from pathlib import Path
from mars.ablations import run_experiment
from mars.comparison import shared_data
from mars.data import SoundFontNotes

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--tokenizers', type=Path, required=True, help='folder of the tokenizers mars, sat and rvq')
ap.add_argument('--seeds', type=int, default=1)
ap.add_argument('--budget', type=float, help="floating-point operations of each system's training")
ap.add_argument('--repeats', type=int, default=3, help='of each timing')
ap.add_argument('--n', type=int, default=120, help='notes that are judged')
ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results')
a = ap.parse_args()
notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127)).filter(velocities=(100,)).filter(pitches=range(48, 72))
data = shared_data('tiny', notes, a.tokenizers, n=a.n, device='cpu', steps=dict(mars=400, sat=260, rvq=260))
for seed in range(a.seeds):
    start = time.perf_counter()
    first = dict(clips=a.out/'clips', layouts=('tiny', 'small')) if not seed else {}
    run_experiment('comparison', 'tiny', seed, a.out/f'comparison-tiny-{seed}.json', data=data, budget=a.budget, repeats=a.repeats, device='cpu', **first)
    print(f'seed {seed}: {time.perf_counter()-start:.0f} s', flush=True)
