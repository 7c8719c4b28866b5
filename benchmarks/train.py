"""Measure training speed of both stages and of the loader:  python benchmarks/train.py [--presets tiny] [--out FILE]

Prints a table and writes its rows to --out (committed: results/benchmarks/train-cpu.json).

loader  int16 rows of a converted NSynth folder -> spectrogram -> CMX image on the device, notes/s
stage   `train_tokenizer` (with and without its PatchGAN) and `train_var`: ms a step and notes/s without the first
        steps, model TFLOP/s and MFU (tokenizer or transformer alone) of the measured matmul peak, and peak memory (of
        the GPU, or of the process on a CPU) next to the prediction of `mars.training.budget.step_memory` in bf16
step    'plain' is the training loop; 'compiled' is `CompiledStep` (--compile; the default on a GPU)
counts  of a step that is not logged: kernels and launches by the host (GPU only, by the profiler), host waits (GPU:
        CUDA's sync debug mode; CPU: operations that read a value) and eager operations (CPU only, of the plain loop)
plain   a loop of forward, backward, clip and AdamW on one batch that is already on the device, in float32, without GAN

Stage two reads tokens that were computed once, so only stage one waits for the loader. Ratios are ratios of medians.
"""
import argparse, json, statistics, tempfile, warnings
from functools import partial
from pathlib import Path
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
import mars.train
from mars.cmx import CMX
from mars.data import NSynth, write_nsynth_fixture
from mars.parts.files import write_atomic
from mars.parts.discriminator import DiscriminatorConfig
from mars.training.budget import step_memory
from mars.parts.device import pick_device
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, default_callbacks, param_groups, train_tokenizer, train_var
from mars.training.compiled import StepCounter
from mars.training.log import RunLog
from mars.training.tokens import Images
from mars.var import VAR, VARConfig
from common import device_info, flops, print_table, seconds

WARMUP = 3  # steps, or spans between logged steps, that are not timed

def wave_to_image(waves): return CMX.fit().fold(LogSpectrogram().encode(waves))

def loader_speed(images, index, device):
    "Notes per second of loading a batch, from the median of five."
    images(index)  # converts the set and opens it
    return len(index)/statistics.median(seconds(lambda: images(index), device) for _ in range(5))

def stage_seconds(train_stage, every):
    "Mean seconds of a step between logged steps, without compilation and recording, and the peak memory in MiB."
    log = RunLog()
    train_stage(log=log)
    times = [r['seconds'] for r in log.rows if r['step'] % every == 0]
    spans = [b-a for a, b in zip(times, times[1:])]
    return statistics.median(spans[WARMUP:] or spans[-1:])/every, log.rows[-1]['memory_mib']

class WaitCounter:
    "A callback that counts how often unlogged steps wait for the GPU (CUDA's sync debug mode)."
    def __init__(self): self.steps, self.waits, self.caught = 0, 0, None

    def stop(self):
        if not self.caught: return
        torch.cuda.set_sync_debug_mode('default')
        self.waits += sum('synchroniz' in str(w.message) for w in self.messages)
        self.caught.__exit__(None, None, None)
        self.caught = None

    def before_step(self, learn):
        self.stop()
        if learn.logging: return
        self.steps, self.caught = self.steps + 1, warnings.catch_warnings(record=True)
        self.messages = self.caught.__enter__()
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')

    def after_fit(self, learn): self.stop()
    def close(self, learn): self.stop()

class KernelCounter:
    "A callback that profiles the last unlogged steps of a run: kernels on the GPU, and launches by the host."
    def __init__(self, steps): self.first, self.steps, self.counts, self.profiler = steps//2, 0, [], None

    def stop(self):
        if self.profiler is None: return
        torch.cuda.synchronize()
        self.profiler.__exit__(None, None, None)
        events = self.profiler.events()
        launches = [e for e in events if e.name in ('cudaGraphLaunch', 'cudaLaunchKernel', 'cudaLaunchKernelExC',
                                                    'cuLaunchKernel', 'cuLaunchKernelEx')]
        kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA and 'Mem' not in e.name]
        self.counts.append((len(kernels), len(launches)))
        self.profiler = None

    def before_step(self, learn):
        self.stop()
        if learn.logging or learn.step < self.first: return
        self.profiler = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        self.profiler.__enter__()

    def after_fit(self, learn): self.stop()
    def close(self, learn): self.stop()

def run_with(callback, train_stage):
    "Train with one more callback, which is called first."
    def callbacks(*args, **kwargs): return [callback, *default_callbacks(*args, **kwargs)]
    mars.train.default_callbacks = callbacks
    try: train_stage()
    finally: mars.train.default_callbacks = default_callbacks
    return callback

def step_counts(train_stage, steps, compiled, device):
    "Kernels, launches, host waits and eager operations of an unlogged step; what cannot be known here is absent."
    if device.type == 'cuda':
        waits = run_with(WaitCounter(), train_stage)
        counts = run_with(KernelCounter(steps), train_stage).counts
        kernels, launches = (statistics.median(c) for c in zip(*counts))
        return {'kernels': kernels, 'launches': launches, 'host waits': waits.waits/max(1, waits.steps)}
    if compiled: return {} # a compiled step dispatches no single operations
    with StepCounter() as counter: run_with(counter, train_stage)
    return {'host waits': counter.per_step()['reads'], 'operations': counter.per_step()['operations']}

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
    "The rows of a stage, one for each step; `memory` is the prediction of `step_memory`."
    device, rows = next(model.parameters()).device, []
    plain = plain_seconds(model, compute_loss, args.steps)
    work = flops(lambda: compute_loss().backward())
    for compiled in (False, True)[:1 + args.compile]:
        run = partial(train_stage, compiled)
        stage, stage_mib = stage_seconds(run, log_every(args.steps))
        speed = {'ms': 1e3*stage, 'notes/s': args.batch/stage, 'plain notes/s': args.batch/plain,
                 'against plain x': plain/stage, 'TFLOP/s': work/stage/1e12, 'MFU %': 100*work/stage/peak}
        rows.append({'stage': name, 'step': 'compiled' if compiled else 'plain', 'batch': args.batch, **speed,
                     **step_counts(run, args.steps, compiled, device), 'peak MiB': stage_mib,
                     'predicted MiB': (memory['fixed'] + args.batch*memory['per_note'])/2**20})
    return rows

def log_every(steps): return max(2, steps//8) # steps between logged ones

def bench_preset(preset, args, notes, device, peak):
    "Rows of a preset: tokenizer, tokenizer with GAN, transformer."
    index = [i % len(notes) for i in range(args.batch)]
    cfg, var_cfg = TokenizerConfig.preset(preset), VARConfig.preset(preset)
    images = Images(notes, wave_to_image, device, max_cached=0)
    load, image = loader_speed(images, index, device), images(index)[0]
    tok = Tokenizer(cfg).to(device)
    tokens, var = tok.eval().encode(image), VAR(var_cfg, cfg).bind(tok).to(device)
    gan = DiscriminatorConfig.preset(preset, start=0., weight=0.5)
    common = dict(steps=args.steps, batch_size=args.batch, log_every=log_every(args.steps), save_every=0, warm_start=0,
                  revive_every=0)
    how = dict(device=device, progress=False)
    def first(compiled, **kwargs):
        train_cfg = TrainConfig.preset(preset, 'tokenizer', **common, compile=compiled)
        return train_tokenizer(notes, train_cfg, cfg, **how, **kwargs)
    def second(compiled, **kwargs):
        train_cfg = TrainConfig.preset(preset, 'var', **common, compile=compiled)
        return train_var(notes, tok, train_cfg, var_cfg, **how, **kwargs)
    def tokenizer_loss(): return tok(image)[1]['total']
    def var_loss(): return var.loss(tokens)[0]
    stages = {'tokenizer': (first, tok, tokenizer_loss, step_memory(cfg, None, None)),
              'tokenizer + GAN': (partial(first, discriminator=gan), tok, tokenizer_loss, step_memory(cfg, gan, None)),
              'var': (second, var, var_loss, step_memory(cfg, None, var_cfg))}
    rows = []
    for name, stage in stages.items():
        for row in bench_stage(name, *stage, args, peak):
            rows.append({'preset': preset, **row, 'loader notes/s': load, 'loader x': load/row['notes/s']})
    return rows

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--presets', nargs='+', default=['tiny', 'small'], choices=['tiny', 'small', 'paper'],
                    help='default: tiny small')
    ap.add_argument('--batch', type=int, default=16, help='notes of a step, at least 1; default: %(default)s')
    ap.add_argument('--steps', type=int, default=8,
                    help='steps of each stage, at least 6, better 64 on a GPU; the first third is not counted; '
                         'default: %(default)s')
    ap.add_argument('--compile', action=argparse.BooleanOptionalAction,
                    help='measure the compiled step too, which takes minutes; default: on a GPU')
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
    if args.compile is None: args.compile = device.type == 'cuda'
    result = dict(info=device_info(device, args.matmul), stages=[])
    peak = result['info']['peak']['bf16' if device.type == 'cuda' else 'fp32']
    with tempfile.TemporaryDirectory() as folder:
        write_nsynth_fixture(folder)
        notes = NSynth(folder, split='train')
        for preset in args.presets: result['stages'] += bench_preset(preset, args, notes, device, peak)
    print_table('Training', result['stages'])
    if device.type != 'cuda':
        print('\nNot measured without a GPU: kernels and launches a step, memory of the GPU, speed and MFU in bf16, '
              'and the CUDA graph.\nHost waits are counted by operations that read a value; operations are those of '
              'the plain loop.')
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
