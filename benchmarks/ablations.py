"""Run the experiments of nbs/06_ablations with several seeds:  python benchmarks/ablations.py [cmx gan ...] [--preset tiny] [--seeds 0 1 2]

Adds to results/ablations/<experiment>.json. Notes come from the SoundFont that `mars.data` finds, or from --data as in `mars ablate`.
"""
import argparse
from pathlib import Path
from mars.parts.config import EXPERIMENTS
from mars.ablations import run_experiment, summary
from mars.cli.data import open_notes
from mars.data import SoundFontNotes

RESULTS = Path(__file__).resolve().parent.parent/'results'/'ablations'

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('names', nargs='*', help='experiments; all if none is given')
ap.add_argument('--preset', default='tiny')
ap.add_argument('--steps', type=int)
ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
ap.add_argument('--data', help='auto, additive, an .sf2 or .sf3 file, or a folder of notes')
ap.add_argument('--out', type=Path, default=RESULTS)
args = ap.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
if args.data: notes = open_notes(args.data, 'train', 'key')
else:
    notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
    notes = notes.filter(pitches=range(36, 97, 4), velocities=(100,))
for seed in args.seeds:
    for name in args.names or EXPERIMENTS:
        result = run_experiment(name, args.preset, seed, args.out/f'{name}.json', notes=notes, steps=args.steps)
        print(f"{name}, seed {seed}: {result['info']['wall_seconds']:.0f} s\n{summary([result]).to_string()}", flush=True)
