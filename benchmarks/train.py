"""Measure training speed of both stages and of the loader:  python benchmarks/train.py [--presets tiny] [--out FILE]

Prints a table and writes its rows to --out (committed: results/benchmarks/train-cpu.json).

loader  int16 rows of a converted NSynth folder -> spectrogram -> CMX image on the device, notes/s
stage   `train_tokenizer` (with and without its PatchGAN) and `train_var`: notes/s without the first steps, model FLOP/s
        and MFU (tokenizer or transformer alone) of the measured matmul peak, and peak memory (of the GPU, or of the
        whole process on a CPU) next to the prediction of `mars.training.budget.step_memory` for a step in bf16
plain   a loop of forward, backward, clip and AdamW on one batch that is already on the device, in float32, without GAN

Stage two reads tokens that were computed once, so only stage one waits for the loader. Ratios are ratios of medians.
"""
import argparse, json, statistics, tempfile
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

WARMUP = 3  # steps that are not timed

def wave_to_image(waves): return CMX.fit().fold(LogSpectrogram().encode(waves))

def loader_speed(images, index, device):
    "Notes per second of loading a batch, from the median of five."
    images(index)  # converts the set and opens it
    return len(index)/statistics.median(seconds(lambda: images(index), device) for _ in range(5))

def stage_seconds(train_stage):
    "Median seconds of a step of a stage, and its peak memory in MiB."
    log = RunLog()
    train_stage(log=log)
    times = [r['seconds'] for r in log.rows][WARMUP:]
    return statistics.median(b-a for a, b in zip(times, times[1:])), log.rows[-1]['memory_mib']

def plain_seconds(model, compute_loss, steps):
    "Median seconds of a step of a plain training loop."
    device = next(model.parameters()).device
    groups = param_groups(model.train(), 0.)
    opt = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.95), fused=device.type == 'cuda')
    def step():
        opt.zero_grad()
        compute_loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.)
        opt.step()
    return statistics.median([seconds(step, device) for _ in range(steps)][WARMUP:])

def bench_stage(name, train_stage, model, compute_loss, memory, args, peak):
    "The row of a stage; `memory` is the prediction of `step_memory`."
    stage, stage_mib = stage_seconds(train_stage)
    plain = plain_seconds(model, compute_loss, args.steps)
    work = flops(lambda: compute_loss().backward())
    return {'stage': name, 'batch': args.batch, 'notes/s': args.batch/stage, 'plain notes/s': args.batch/plain,
            'against plain x': plain/stage, 'GFLOP/s': work/stage/1e9, 'MFU %': 100*work/stage/peak,
            'peak MiB': stage_mib, 'predicted MiB': (memory['fixed'] + args.batch*memory['per_note'])/2**20}

def bench_preset(preset, args, notes, device, peak):
    "Rows of a preset: tokenizer, tokenizer with GAN, transformer."
    index = [i % len(notes) for i in range(args.batch)]
    cfg, var_cfg = TokenizerConfig.preset(preset), VARConfig.preset(preset)
    images = Images(notes, wave_to_image, device, max_cached=0)
    load, image = loader_speed(images, index, device), images(index)[0]
    tok = Tokenizer(cfg).to(device)
    tokens, var = tok.eval().encode(image), VAR(var_cfg, cfg).bind(tok).to(device)
    gan = DiscriminatorConfig.preset(preset, start=0., weight=0.5)
    common = dict(steps=args.steps, batch_size=args.batch, log_every=1, save_every=0, warm_start=0)
    tokenizer_cfg = TrainConfig.preset(preset, 'tokenizer', **common)
    transformer_cfg = TrainConfig.preset(preset, 'var', **common, revive_every=0)
    first = partial(train_tokenizer, notes, tokenizer_cfg, cfg, device=device, progress=False)
    second = partial(train_var, notes, tok, transformer_cfg, var_cfg, device=device, progress=False)
    def tokenizer_loss(): return tok(image)[1]['total']
    def var_loss(): return var.loss(tokens)[0]
    stages = {'tokenizer': (first, tok, tokenizer_loss, step_memory(cfg, None, None)),
              'tokenizer + GAN': (partial(first, discriminator=gan), tok, tokenizer_loss, step_memory(cfg, gan, None)),
              'var': (second, var, var_loss, step_memory(cfg, None, var_cfg))}
    rows = []
    for name, stage in stages.items():
        row = bench_stage(name, *stage, args, peak)
        rows.append({'preset': preset, **row, 'loader notes/s': load, 'loader x': load/row['notes/s']})
    return rows

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--presets', nargs='+', default=['tiny', 'small'], choices=['tiny', 'small', 'paper'],
                    help='default: tiny small')
    ap.add_argument('--batch', type=int, default=16, help='notes of a step, at least 1; default: %(default)s')
    ap.add_argument('--steps', type=int, default=8,
                    help=f'steps of each stage, at least 6; the first {WARMUP} are not counted; default: %(default)s')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--matmul', type=int, default=2048,
                    help='rows of the square matmul whose speed is the peak; default: %(default)s')
    ap.add_argument('--out', type=Path, help='a JSON file for all rows')
    return ap

def main(argv=None):
    ap = parser()
    args = ap.parse_args(argv)
    if args.steps < 6 or args.batch < 1: ap.error('--steps must be at least 6 and --batch at least 1')
    device = pick_device(args.device)
    result = dict(info=device_info(device, args.matmul), stages=[])
    peak = result['info']['peak']['bf16' if device.type == 'cuda' else 'fp32']
    with tempfile.TemporaryDirectory() as folder:
        write_nsynth_fixture(folder)
        notes = NSynth(folder, split='train')
        for preset in args.presets: result['stages'] += bench_preset(preset, args, notes, device, peak)
    print_table('Training', result['stages'])
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
