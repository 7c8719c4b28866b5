"""Run the experiments of nbs/06_ablations with several seeds:  python benchmarks/ablations.py [cmx gan ...]

Prints the variants of each run as a table. Adds each run to results/ablations/<experiment>.json.
The notes come from the SoundFont that `mars.data` finds, or from --data as in `mars ablate`.
"""
import argparse
from pathlib import Path
from mars.parts.config import EXPERIMENTS
from mars.ablations import run_experiment, summary
from mars.cli.data import open_notes
from mars.data import SoundFontNotes

RESULTS = Path(__file__).resolve().parent.parent/'results'/'ablations'

def training_notes(data=None):
    "Notes from `data`, or every fourth pitch from 36 to 96 at velocity 100 of the SoundFont."
    if data: return open_notes(data, 'train', 'key')
    notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
    return notes.filter(pitches=range(36, 97, 4), velocities=(100,))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('names', nargs='*', help='experiments; default: all')
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, help="optimiser steps of each variant, >= 1; default: the experiment's own")
    ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    ap.add_argument('--data', help='auto, additive, an .sf2 or .sf3 file, or a folder of notes')
    ap.add_argument('--out', type=Path, default=RESULTS, help='folder of the JSON files; default: results/ablations')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    notes = training_notes(args.data)
    for seed in args.seeds:
        for name in args.names or EXPERIMENTS:
            result = run_experiment(name, args.preset, seed, args.out/f'{name}.json', notes=notes, steps=args.steps)
            seconds = result['info']['wall_seconds']
            print(f'{name}, seed {seed}: {seconds:.0f} s\n{summary([result]).to_string()}', flush=True)

if __name__ == '__main__': main()
