"""Compare square patches with patches long in time:  python benchmarks/patch_shape.py [--steps 600]

Trains a tokenizer at `tiny` with each shape, for equal steps. Prints how many of the demo's eight notes keep their
pitch when they are reconstructed (pYIN, within 50 cents), and the relative MSE on all 48 training notes.
"""
import argparse
import torch
from mars.cli.demo import demo_notes, demo_requests, measure_pitch
from mars.pipeline import Mars
from mars.tokenizer import STRIPS, TokenizerConfig
from mars.train import TrainConfig, train_tokenizer
from mars.training.reconstruction import reconstruction_error

SHAPES = dict(square={}, strips=STRIPS)

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--steps', type=int, default=600, help='optimiser steps of each tokenizer; default: %(default)s')
    ap.add_argument('--shapes', nargs='+', default=[*SHAPES], choices=[*SHAPES], help='default: both')
    return ap

def main(argv=None):
    args, notes = parser().parse_args(argv), demo_notes()
    waves, requests = zip(*[notes[i] for i in demo_requests(notes)])
    for name in args.shapes:
        cfg = TokenizerConfig.preset('tiny', **SHAPES[name])
        m = Mars(train_tokenizer(notes, TrainConfig.preset('tiny', steps=args.steps), cfg, progress=False))
        right = sum(r['right'] for r in measure_pitch(m.reconstruct(torch.stack(waves)), requests))
        mse = reconstruction_error(m, notes)['relative_mse']
        pitches = f'{right} of {len(requests)} pitches right'
        print(f'{name}: {cfg.n_tokens} tokens, {pitches}, relative MSE {mse:.3f}', flush=True)

if __name__ == '__main__': main()
