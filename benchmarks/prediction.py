"""Run the experiments of nbs/studies/prediction with several seeds:  python benchmarks/prediction.py [--only order ...]

Prints the time of each run. Adds each run to results/studies/{order,ladder,labels,guidance}.json. `order` and `ladder`
train transformers at `tiny`, all with one tokenizer; `labels` and `guidance` sample from the packaged model. Times are
comparable only within one run.
"""
import argparse, time
from pathlib import Path
from mars.ablations import run_experiment
from mars.data import SoundFontNotes
from mars.studies.prediction import prediction_data, sweep_data

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
NAMES = ['order', 'ladder', 'labels', 'guidance']
TRAINED = 'order', 'ladder'  # experiments that train transformers

def load_data(args):
    "The data of each preset that the chosen experiments use."
    notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
    notes, data = notes.filter(velocities=(100,)), {}
    if set(args.only) & set(TRAINED):
        subset = notes.filter(pitches=range(48, 72))
        data['tiny'] = prediction_data('tiny', subset, 'cpu', args.tokenizer_steps, args.max_notes)
    if set(args.only) - set(TRAINED):
        data['small'] = sweep_data(args.model, notes=notes, max_notes=args.max_notes, device='cpu')
    return data

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--only', nargs='+', default=NAMES, help=f'some of {", ".join(NAMES)}; default: all')
    ap.add_argument('--seeds', type=int, default=3, help='number of seeds, from 0; default: %(default)s')
    ap.add_argument('--steps', type=int, default=400, help='optimiser steps of each transformer; default: %(default)s')
    ap.add_argument('--tokenizer-steps', type=int, default=400, help='optimiser steps; default: %(default)s')
    ap.add_argument('--max-notes', type=int, default=120, help='notes of the evaluation; default: %(default)s')
    ap.add_argument('--model', default='small',
                    help='model of `labels` and `guidance`: a folder or packaged weights; default: %(default)s')
    ap.add_argument('--out', type=Path, default=RESULTS, help='folder of the JSON files; default: results/studies')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    data = load_data(args)
    for seed in range(args.seeds):
        for name in args.only:
            preset, options = ('tiny', dict(steps=args.steps)) if name in TRAINED else ('small', {})
            if name == 'order' and seed == 0: options['timed'] = ('small',)
            start, out = time.perf_counter(), args.out/f'{name}.json'
            run_experiment(name, preset, seed, out, data=data[preset], device='cpu', **options)
            print(f'{name} {seed}: {time.perf_counter()-start:.0f} s', flush=True)

if __name__ == '__main__': main()
