"""Run the experiments of nbs/06_ablations with several seeds:  python benchmarks/ablations.py [cmx gan ...]

Prints the variants of each run as a table. Adds each run to results/ablations/<experiment>.json. With --resume, runs
whose results are there are skipped, and finished variants of an interrupted run are kept in <--out>/unfinished.
The notes come from the SoundFont that `mars.data` finds, or from --data as in `mars ablate`.
"""
import argparse
from pathlib import Path
from mars.parts.config import EXPERIMENTS
from mars.ablations import has_result, run_experiment, summary
from mars.cli.data import open_notes
from mars.data import SoundFontNotes
from mars.parts.files import make_folder

RESULTS = Path(__file__).resolve().parent.parent/'results'/'ablations'

def training_notes(data=None):
    "Notes from `data`, or every second pitch from 36 to 96 at velocity 100 of the SoundFont."
    if data: return open_notes(data, 'train', 'key')
    notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
    return notes.filter(pitches=range(36, 97, 2), velocities=(100,))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('names', nargs='*', help='experiments; default: all')
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, help="optimiser steps of each variant, >= 1; default: the experiment's own")
    ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    ap.add_argument('--data', help='auto, additive, an .sf2 or .sf3 file, or a folder of notes')
    ap.add_argument('--out', type=Path, default=RESULTS, help='folder of the JSON files; default: results/ablations')
    ap.add_argument('--resume', action='store_true', help='skip runs with results, continue an interrupted one')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    notes, work = training_notes(args.data), make_folder(args.out/'unfinished') if args.resume else None
    for seed in args.seeds:
        for name in args.names or EXPERIMENTS:
            file = args.out/f'{name}.json'
            if args.resume and has_result(file, args.preset, seed, args.steps): continue
            result = run_experiment(name, args.preset, seed, file, resume=work, notes=notes, steps=args.steps)
            seconds = result['info']['wall_seconds']
            print(f'{name}, seed {seed}: {seconds:.0f} s\n{summary([result]).to_string()}', flush=True)

if __name__ == '__main__': main()
