"""Run the experiments of nbs/studies/prediction with several seeds:  python benchmarks/prediction.py [--only order ladder labels guidance]

Adds to results/studies/{order,ladder,labels,guidance}.json: the first two with transformers trained here at `tiny`, the others with the
packaged model. Compare times only within one result. One tokenizer is trained for all seeds.
"""
import argparse, time
from pathlib import Path
from mars.ablations import run_experiment
from mars.data import SoundFontNotes
from mars.studies.prediction import prediction_data, sweep_data

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--only', nargs='+', default=['order', 'ladder', 'labels', 'guidance'])
ap.add_argument('--seeds', type=int, default=3)
ap.add_argument('--steps', type=int, default=400, help='of each transformer')
ap.add_argument('--tokenizer-steps', type=int, default=400)
ap.add_argument('--most', type=int, default=120, help='notes that are judged')
ap.add_argument('--model', default='small', help='of labels and guidance: a folder, or the name of weights in the package')
ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results'/'studies')
a = ap.parse_args()
notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127)).filter(velocities=(100,))
made = {}
def data(kind):
    if kind not in made: made[kind] = prediction_data('tiny', notes.filter(pitches=range(48, 72)), 'cpu', a.tokenizer_steps, a.max_notes) if kind == 'tiny' else sweep_data(a.model, notes=notes, max_notes=a.max_notes, device='cpu')
    return made[kind]

for seed in range(a.seeds):
    for name in a.only:
        preset, more = ('tiny', dict(steps=a.steps)) if name in ('order', 'ladder') else ('small', {})
        if name == 'order' and seed == 0: more['timed'] = ('small',)
        start = time.perf_counter()
        run_experiment(name, preset, seed, a.out/f'{name}.json', data=data(preset), device='cpu', **more)
        print(f'{name} {seed}: {time.perf_counter()-start:.0f} s', flush=True)
