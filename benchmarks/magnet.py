"""Run the experiments of nbs/studies/magnet with several seeds:  python benchmarks/magnet.py [--only decoding spans ...] [--tokenizer FOLDER]

Adds to results/studies/{decoding,spans,context,rescore,hybrid,parts}.json. Compare times only within one result. One tokenizer serves all
seeds: the one in FOLDER, or one trained first. Models that several experiments share are trained once a seed.
"""
import argparse, time
from pathlib import Path
import torch
from mars.ablations import run_experiment
from mars.data import SoundFontNotes
from mars.studies.magnet import GUIDANCE, frame_data

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--only', nargs='+', default=['decoding', 'spans', 'context', 'rescore', 'hybrid', 'parts'])
ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
ap.add_argument('--steps', type=int, default=200, help='of each transformer')
ap.add_argument('--tokenizer', help='folder of a tokenizer of frames; by default six codebooks of 256 are trained')
ap.add_argument('--tokenizer-steps', type=int, default=400)
ap.add_argument('--guidance', type=float, default=GUIDANCE, help='of everything but the sweep')
ap.add_argument('--max-notes', type=int, default=32, help='notes of the evaluation')
ap.add_argument('--out', type=Path, default=RESULTS)
args = ap.parse_args()
torch.set_num_threads(1)
notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
notes = notes.filter(velocities=(100,), pitches=range(48, 72))
data = frame_data('tiny', args.tokenizer, notes, 'cpu', args.tokenizer_steps, args.max_notes)

for seed in args.seeds:
    for name in args.only:
        options = {} if name == 'parts' else dict(guidance=args.guidance)
        if name == 'parts' and seed == 0: options['timed'] = ('small',)
        start = time.perf_counter()
        run_experiment(name, 'tiny', seed, args.out/f'{name}.json', data=data, steps=args.steps, device='cpu', **options)
        print(f'{name} {seed}: {time.perf_counter()-start:.0f} s', flush=True)
