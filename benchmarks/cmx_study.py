"""The paper's CMX study at tiny size, several seeds:  python benchmarks/cmx_study.py [--steps 150] [--seeds 3]

Writes results/cmx-tiny-<seed>.json, which 06_ablations.ipynb reads. Times are meant as ratios inside one file.
"""
import argparse
from pathlib import Path
from mars.ablations import run_experiment, summary

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--preset', default='tiny')
ap.add_argument('--steps', type=int, default=150)
ap.add_argument('--seeds', type=int, default=3)
ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results')
args = ap.parse_args()
args.out.mkdir(exist_ok=True)
results = [run_experiment('cmx', args.preset, seed, args.out/f'cmx-{args.preset}-{seed}.json', steps=args.steps) for seed in range(args.seeds)]
print(summary(results).to_string())
