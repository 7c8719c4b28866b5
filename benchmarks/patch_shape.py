"""Compare square patches with patches that are long in time, at equal steps:  python benchmarks/patch_shape.py [--steps 600]

Prints, for the tokenizer's reconstructions of the demo's eight notes, how many keep their pitch (pYIN, 50 cents), and the
relative MSE on all 48 training notes.
"""
import argparse
import torch
from mars.cli.demo import demo_notes, demo_requests, measure_pitch
from mars.pipeline import Mars
from mars.tokenizer import STRIPS, TokenizerConfig
from mars.train import TrainConfig, train_tokenizer
from mars.training.reconstruction import reconstruction_error

SHAPES = dict(square={}, strips=STRIPS)

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--steps', type=int, default=600)
ap.add_argument('--shapes', nargs='+', default=[*SHAPES], choices=[*SHAPES])
args = ap.parse_args()
notes = demo_notes()
waves, requested = zip(*[notes[i] for i in demo_requests(notes)])
for name in args.shapes:
    cfg = TokenizerConfig.preset('tiny', **SHAPES[name])
    m = Mars(train_tokenizer(notes, TrainConfig.preset('tiny', steps=args.steps), cfg, progress=False))
    right = sum(r['right'] for r in measure_pitch(m.reconstruct(torch.stack(waves)), requested))
    relative = reconstruction_error(m, notes)['relative_mse']
    print(f'{name}: {cfg.n_tokens} tokens, {right} of {len(requested)} pitches right, relative MSE {relative:.3f}', flush=True)
