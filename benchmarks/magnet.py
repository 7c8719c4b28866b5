"""Run the experiments of nbs/studies/magnet with several seeds:  python benchmarks/magnet.py [--only spans ...]

Prints the time of each run. Adds each run to results/studies/{decoding,spans,context,rescore,hybrid,parts}.json.
All seeds share one tokenizer: the one of --tokenizer, or one that is trained first. Models that several experiments
share are trained once per seed. Times are comparable only within one run.
"""
import argparse, time
from pathlib import Path
import torch
from mars.ablations import run_experiment
from mars.data import SoundFontNotes
from mars.studies.magnet import GUIDANCE, frame_data

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
NAMES = ['decoding', 'spans', 'context', 'rescore', 'hybrid', 'parts']

def training_notes():
    "Pitches 48 to 71 of the SoundFont, at velocity 100."
    notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
    return notes.filter(velocities=(100,), pitches=range(48, 72))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--only', nargs='+', default=NAMES, help=f'some of {", ".join(NAMES)}; default: all')
    ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    ap.add_argument('--steps', type=int, default=200, help='optimiser steps of each transformer; default: %(default)s')
    ap.add_argument('--tokenizer', help='folder of a tokenizer of frames; default: train one with six codebooks of 256')
    ap.add_argument('--tokenizer-steps', type=int, default=400, help='optimiser steps; default: %(default)s')
    ap.add_argument('--guidance', type=float, default=GUIDANCE,
                    help='guidance scale of all experiments but the sweep, >= 0; default: %(default)s')
    ap.add_argument('--max-notes', type=int, default=32, help='notes of the evaluation; default: %(default)s')
    ap.add_argument('--out', type=Path, default=RESULTS, help='folder of the JSON files; default: results/studies')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    data = frame_data('tiny', args.tokenizer, training_notes(), 'cpu', args.tokenizer_steps, args.max_notes)
    for seed in args.seeds:
        for name in args.only:
            options = {} if name == 'parts' else dict(guidance=args.guidance)
            if name == 'parts' and seed == 0: options['timed'] = ('small',)
            start, out = time.perf_counter(), args.out/f'{name}.json'
            run_experiment(name, 'tiny', seed, out, data=data, steps=args.steps, device='cpu', **options)
            print(f'{name} {seed}: {time.perf_counter()-start:.0f} s', flush=True)

if __name__ == '__main__': main()
