"""Run the experiments of nbs/studies/prediction with several seeds:  python benchmarks/prediction.py [--only order ladder labels guidance]

Adds to results/studies/{order,ladder,labels,guidance}.json: the first two with transformers trained here at `tiny`, the others with the
packaged model. Compare times only within one result. One tokenizer is trained for all seeds.
"""
import argparse, time
from functools import cache
from pathlib import Path
from mars.ablations import run_experiment
from mars.data import SoundFontNotes
from mars.studies.prediction import prediction_data, sweep_data

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
TRAINED = 'order', 'ladder' # experiments that train transformers

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--only', nargs='+', default=['order', 'ladder', 'labels', 'guidance'])
ap.add_argument('--seeds', type=int, default=3)
ap.add_argument('--steps', type=int, default=400, help='of each transformer')
ap.add_argument('--tokenizer-steps', type=int, default=400)
ap.add_argument('--max-notes', type=int, default=120, help='notes of the evaluation')
ap.add_argument('--model', default='small', help='of labels and guidance: a folder, or the name of weights in the package')
ap.add_argument('--out', type=Path, default=RESULTS)
args = ap.parse_args()
notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key').filter(velocities=(100,))

@cache
def data(preset):
    if preset == 'small': return sweep_data(args.model, notes=notes, max_notes=args.max_notes, device='cpu')
    return prediction_data('tiny', notes.filter(pitches=range(48, 72)), 'cpu', args.tokenizer_steps, args.max_notes)

for seed in range(args.seeds):
    for name in args.only:
        preset, options = ('tiny', dict(steps=args.steps)) if name in TRAINED else ('small', {})
        if name == 'order' and seed == 0: options['timed'] = ('small',)
        start = time.perf_counter()
        run_experiment(name, preset, seed, args.out/f'{name}.json', data=data(preset), device='cpu', **options)
        print(f'{name} {seed}: {time.perf_counter()-start:.0f} s', flush=True)
