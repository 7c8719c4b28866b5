"""Measure training speed of both stages and of the loader:  python benchmarks/train.py [--presets tiny small] [--batch 16] [--steps 8] [--out results/benchmarks/train-cpu.json]

loader  int16 rows of a converted NSynth folder -> spectrogram -> CMX image on the device, notes/s
stage   `train_tokenizer` (with and without its PatchGAN) and `train_var` as they are, notes/s of the steps after the first few,
        model FLOP/s and MFU (tokenizer or transformer alone) of the measured matmul peak, and peak memory (of the GPU, or of the
        whole process on a CPU) beside what `mars.training.budget.step_memory` foresees for a step in bf16
plain   a bare loop of forward, backward, clip and AdamW on one batch that lies ready, in float32 and without GAN

Stage two reads tokens that were computed once, so only stage one waits for the loader. Each ratio is one of medians.
"""
import argparse, json, statistics, tempfile, time
from functools import partial
from pathlib import Path
import torch
from torch import nn
from mars.cmx import CMX
from mars.data import NSynth, write_nsynth_fixture
from mars.parts.files import write_atomic
from mars.parts.discriminator import DiscriminatorConfig
from mars.training.budget import step_memory
from mars.parts.device import pick_device
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, param_groups, train_tokenizer, train_var
from mars.training.log import RunLog
from mars.training.tokens import Images
from mars.var import VAR, VARConfig
from common import device_info, flops, print_table, seconds

def see(waves): return CMX.fit().fold(LogSpectrogram().encode(waves))

def loader(notes, device, batch):
    images = Images(notes, see, device, max_cached=0)
    idx = [i % len(notes) for i in range(batch)]
    images(idx) # converts the set and opens it
    return batch/statistics.median(seconds(lambda: images(idx), device) for _ in range(5))

def step_seconds(train_stage, steps):
    "Median seconds of a step of a stage, without its first three."
    log = RunLog()
    train_stage(log=log)
    times = [r['seconds'] for r in log.rows]
    return statistics.median(b-a for a, b in zip(times[3:], times[4:])), log.rows[-1]['memory_mib']

def plain_seconds(model, loss_of, steps):
    "Median seconds of a step of a bare loop."
    opt, times = torch.optim.AdamW(param_groups(model.train(), 0.), lr=1e-5, betas=(0.9, 0.95), fused=next(model.parameters()).is_cuda), []
    device = next(model.parameters()).device
    def step():
        opt.zero_grad(); loss_of().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.); opt.step()
    return statistics.median([seconds(step, device) for _ in range(steps)][3:])

def bench(preset, args, notes, device, peak):
    batch, cfg = args.batch, TokenizerConfig.preset(preset)
    common = dict(steps=args.steps, batch_size=batch, log_every=1, save_every=0, warm_start=0)
    var_cfg, load = VARConfig.preset(preset), loader(notes, device, batch)
    precision = 'bf16' if device.type == 'cuda' else 'fp32'
    tok = Tokenizer(cfg).to(device)
    image = Images(notes, see, device, max_cached=0)([i % len(notes) for i in range(batch)])[0]
    tokens, var = tok.eval().encode(image), VAR(var_cfg, cfg).bind(tok).to(device)
    gan = DiscriminatorConfig.preset(preset, start=0., weight=0.5)
    first = partial(train_tokenizer, notes, TrainConfig.preset(preset, 'tokenizer', **common), cfg, device=device, progress=False)
    second = partial(train_var, notes, tok, TrainConfig.preset(preset, 'var', **{**common, 'revive_every': 0}), var_cfg, device=device, progress=False)
    losses = {'tokenizer': (tok, lambda: tok(image)[1]['total']), 'var': (var, lambda: var.loss(tokens)[0])}
    stages, rows = {'tokenizer': first, 'tokenizer + GAN': partial(first, discriminator=gan), 'var': second}, []
    for name, stage in stages.items():
        model, loss_of = losses[name.split()[0]]
        took, memory = step_seconds(stage, args.steps)
        bare = plain_seconds(model, loss_of, args.steps)
        work = flops(lambda: loss_of().backward())
        m = step_memory(cfg, gan if 'GAN' in name else None, var_cfg if name == 'var' else None)
        rows.append({'preset': preset, 'stage': name, 'batch': batch, 'notes/s': batch/took, 'loader notes/s': load, 'loader x': load*took/batch,
                     'plain notes/s': batch/bare, 'against plain x': bare/took, 'GFLOP/s': work/took/1e9, 'MFU %': 100*work/took/peak[precision], 'peak MiB': memory, 'foreseen MiB': (m['fixed'] + batch*m['per_note'])/2**20})
    return rows

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--presets', nargs='+', default=['tiny', 'small'], choices=['tiny', 'small', 'paper'])
    ap.add_argument('--batch', type=int, default=16)
    ap.add_argument('--steps', type=int, default=8, help='at least 6; the first three are not counted')
    ap.add_argument('--device')
    ap.add_argument('--matmul', type=int, default=2048, help='side of the matmul whose speed is the peak')
    ap.add_argument('--out', type=Path, help='a JSON file for all rows')
    args = ap.parse_args(argv)
    if args.steps < 6 or args.batch < 1: ap.error('--steps must be at least 6 and --batch at least 1')
    device = pick_device(args.device)
    result = dict(about=device_info(device, args.matmul))
    with tempfile.TemporaryDirectory() as folder:
        write_nsynth_fixture(folder)
        notes = NSynth(folder, split='train')
        result['stages'] = [r for p in args.presets for r in bench(p, args, notes, device, result['about']['peak'])]
    print_table('Training', result['stages'])
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
