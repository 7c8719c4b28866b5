"""The experiments of 06_ablations with several seeds:  python benchmarks/ablations.py [cmx gan ...] [--preset tiny] [--seeds 0 1 2]

Writes results/<experiment>-<preset>-<seed>.json, which the notebook reads. Notes come from the SoundFont that
`mars.data.soundfont` finds (about 1,000 of them are rendered and cached the first time), or from --data as `mars ablate` has it.
"""
import argparse
from pathlib import Path
from mars.parts.config import EXPERIMENTS
from mars.ablations import run_experiment, summary
from mars.cli import open_notes
from mars.data import SoundFontNotes

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('names', nargs='*', help='experiments; all if none is given')
ap.add_argument('--preset', default='tiny')
ap.add_argument('--steps', type=int)
ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
ap.add_argument('--data', help='auto, additive, an .sf2 or .sf3 file, or a folder of notes')
ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results')
args = ap.parse_args()
args.out.mkdir(exist_ok=True)
if args.data: notes = open_notes(args.data, 'train')
else: notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127)).filter(pitches=range(36, 97, 4), velocities=(100,))
for seed in args.seeds:
    for name in args.names or EXPERIMENTS:
        result = run_experiment(name, args.preset, seed, args.out/f'{name}-{args.preset}-{seed}.json', notes=notes, steps=args.steps)
        print(f"{name}, seed {seed}: {result['about']['wall_seconds']:.0f} s\n{summary([result]).to_string()}", flush=True)
