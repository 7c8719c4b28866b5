"""Measure the time of a generated note and of two baselines:  python benchmarks/var.py [--preset small] [--json FILE]

Prints, and writes to --json (committed: results/benchmarks/var-cpu.json):

stages    the time of each stage at batch 1 (tokens, decode, phase)
batches   notes per second against the batch size
roofline  the share of the roofline that sampling reaches: weight bytes over memory bandwidth at batch 1, FLOPs over the
          matmul peak at the best batch, both measured at the start in the precision of the run
flat      one token a pass with the same weights: T passes, cached and recorded in the same way
loop      the plain next-scale loop of `VAR.generate`, in float32

Times are the least of several runs, which excludes other load on the machine. Weights are random, because time does not
depend on them.
"""
import argparse, copy, json, os, statistics
from functools import partial
import torch
from mars.baselines.next_token import NextToken
from mars.parts.inference import generate, onednn_linear
from mars.parts.device import cast_network, pick_device, pick_dtype
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig
from common import device_name, seconds

FILTERS = dict(tiny=dict(top_p=.96), small=dict(top_k=600, top_p=.96), paper=dict(top_k=900, top_p=.96))
LABELS = dict(pitch=60, family=3)

# ---- timing and the machine

def summarise(times): return dict(median=statistics.median(times), least=min(times))

def time_runs(fn, repeats, device):
    "Median and least seconds of several runs after a first one."
    fn()
    return summarise([seconds(fn, device) for _ in range(repeats)])

def time_pair(a, b, repeats, device):
    "Median and least seconds of two functions, run in turn because the machine's load changes -> two dicts."
    times = [[time_runs(fn, 1, device)['least'] for fn in (a, b)] for _ in range(repeats)]
    return [summarise(t) for t in zip(*times)]

@torch.no_grad()
def measure_machine(device, dtype, quick):
    "Matmul peak in FLOP/s and memory bandwidth in bytes/s, measured."
    n, size = (256, 2**20) if quick else (2048, 2**26) if device.type == 'cpu' else (8192, 2**30)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    x = torch.ones(size, device=device)
    matmul = time_runs(lambda: onednn_linear(a, b), 10, device)['least']
    read = time_runs(lambda: x.view(-1, 2**16).sum(-1), 10, device)['least']
    return dict(flops=2*n**3/matmul, bandwidth=4*x.numel()/read)

# ---- the models

def build_model(preset, device, dtype, depth, quick):
    "An untrained Mars of a preset, or of another depth; `quick` shrinks its shapes."
    small_image = dict(image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4)) if quick else {}
    tok_cfg = TokenizerConfig.preset(preset, **small_image)
    torch.manual_seed(0)
    tok = Tokenizer(tok_cfg)
    size = dict(depth=depth, width=0, heads=0) if depth else {}
    var = VAR(VARConfig.preset(preset, gamma_init=1., **size), tok_cfg).bind(tok)
    spectrogram = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32) if quick else None
    return Mars(tok, var, spectrogram=spectrogram).to(device, dtype)

def next_token(var):
    "The same weights in flat next-token order: T passes of one token, with the same cache, guidance and recording."
    if var.pass_lengths[0] > 1:
        raise ValueError(f'the first scale must hold a single token, got {var.pass_lengths[0]}; choose another preset')
    flat = NextToken(var.cfg, var.tok_cfg)
    flat.load_state_dict(var.state_dict())
    return cast_network(flat.to(var.start.device), var.start.dtype).eval()

def compute_costs(var, guided):
    "Weights that every pass reads, those that are read once a note, and FLOPs of a note."
    cfg, V, T, rows = var.cfg, var.tok_cfg.codebook_size, sum(var.lengths), 1 + guided
    block = int((4 + 2*cfg.mlp_ratio)*cfg.width**2)
    per_note = (6*(1 if cfg.shared_adaln else cfg.depth) + 2)*cfg.width**2
    attention = sum(n*sum(var.lengths[:k+1]) for k, n in enumerate(var.lengths))*4*cfg.width*cfg.depth
    flops = rows*(2*T*cfg.depth*block + attention + 2*per_note) + 2*T*V*cfg.width
    return dict(each_pass=cfg.depth*block + V*cfg.width, per_note=per_note, flops=flops)

# ---- measurements

def time_stages(m, sample, n, repeats, device):
    "Median and least seconds of the stages of n notes: tokens, decode, phase."
    tokens = sample(n)
    spec = m.tokens_to_spec(tokens)
    stages = dict(tokens=lambda: sample(n), decode=lambda: m.tokens_to_spec(tokens), phase=lambda: m.spec_to_wave(spec))
    return {name: time_runs(fn, repeats, device) for name, fn in stages.items()}

def compute_roofline(var, guided, machine, tokens_seconds, best_speed):
    "Share of the bandwidth at batch 1 and of the matmul peak at `best_speed` notes per second."
    costs, passes = compute_costs(var, guided), len(var.lengths)
    n_bytes = var.start.dtype.itemsize*(passes*costs['each_pass'] + costs['per_note'])
    return dict(bandwidth=n_bytes/machine['bandwidth']/tokens_seconds, gflop=costs['flops']/1e9,
                flops=best_speed*costs['flops']/machine['flops'])

def measure_generation(m, sample, guided, batches, machine, repeats, device):
    "Stages at batch 1, speed against the batch, and roofline."
    stages, speeds = time_stages(m, sample, 1, repeats, device), {}
    note = sum(t['least'] for t in stages.values())
    for n in batches:
        times = {k: t['least'] for k, t in time_stages(m, sample, n, max(1, repeats//2), device).items()}
        speeds[n] = dict(tokens=n/times['tokens'], notes=n/sum(times.values()))
    best_speed = max(speed['tokens'] for speed in speeds.values())
    roofline = compute_roofline(m.var, guided, machine, stages['tokens']['least'], best_speed)
    real_time = m.spectrogram.n_samples/m.spectrogram.sample_rate/note
    return dict(stages=stages, note=note, real_time=real_time, batches=speeds, roofline=roofline)

def compare_baselines(m, sampling, repeats, flat, device):
    "Times of one note by `generate` and by each baseline, and their ratio. The loop is float32 in every run."
    baselines, times = dict(loop=(copy.deepcopy(m.var).float().generate, repeats)), {}
    if flat: baselines['flat'] = next_token(m.var).generate, max(1, repeats//2)
    for name, (fn, n) in baselines.items():
        sampler = partial(generate, m.var, LABELS, 1, seed=0, **sampling)
        sampler_time, time = time_pair(sampler, partial(fn, LABELS, 1, seed=0, **sampling), n, device)
        times[name] = dict(sampler=sampler_time, baseline=time, ratio=time['least']/sampler_time['least'])
    return times

def loop_agreement(var, cfg_scale):
    "Share of equal tokens of the fast sampler and of the plain loop, at temperature 0 in float32."
    var, greedy = copy.deepcopy(var).float(), dict(cfg_scale=cfg_scale, temperature=0)
    fast, plain = (torch.cat(fn(LABELS, 1, **greedy), 1) for fn in (partial(generate, var), var.generate))
    return (fast == plain).float().mean().item()

@torch.no_grad()
def bench(args):
    "All measurements of a run."
    device, dtype = pick_device(args.device), pick_dtype(args.dtype)
    preset, batches, repeats = ('tiny', (1, 2), 1) if args.quick else (args.preset, args.batches, args.repeats)
    m = build_model(preset, device, dtype, args.depth, args.quick)
    var, filters = m.var, FILTERS[preset] if args.filter else {}
    machine = measure_machine(device, dtype, args.quick)
    result = dict(preset=preset, filters=filters, depth=var.cfg.depth, passes=len(var.lengths), tokens=sum(var.lengths),
                  parameters=sum(p.numel() for p in var.parameters()), device=device_name(device),
                  threads=torch.get_num_threads(), cores=os.cpu_count(), dtype=str(dtype).removeprefix('torch.'),
                  torch=torch.__version__, matmul_gflops=machine['flops']/1e9, bandwidth_gb=machine['bandwidth']/1e9)
    for mode, scale in dict(plain=0., guided=args.cfg_scale).items():
        sampling = dict(cfg_scale=scale, **filters)
        def sample(n): return generate(var, LABELS, n, seed=0, **sampling)
        result[mode] = measure_generation(m, sample, bool(scale), batches, machine, repeats, device)
        result[mode] |= compare_baselines(m, sampling, repeats, not args.no_flat, device)
    result['loop_agreement'] = loop_agreement(var, args.cfg_scale)
    return result

# ---- report

def milliseconds(t): return f'{1e3*t["least"]:8.1f} ms'

def print_mode(mode, row, result):
    "Print the measurements with or without guidance."
    guidance = 'without' if mode == 'plain' else 'with'
    print(f'\n{guidance} guidance: a note in {row["note"]:.3f} s, {row["real_time"]:.0f}x real time')
    for name, t in row['stages'].items(): print(f'  {name:8}{milliseconds(t)} (median {1e3*t["median"]:.1f})')
    for n, speed in row['batches'].items():
        print(f'  batch {n:4}: {speed["tokens"]:8.1f} notes/s as tokens, {speed["notes"]:8.1f} as sound')
    r = row['roofline']
    print(f'  roofline: {r["bandwidth"]:.0%} of the bandwidth at batch 1, {r["flops"]:.0%} of the matmul peak at the '
          f'best batch ({r["gflop"]:.1f} GFLOP a note)')
    for name, title in dict(flat='one token a pass', loop='plain next-scale loop').items():
        if name not in row: continue
        t, passes = row[name], f' (passes: {result["tokens"]/result["passes"]:.1f}x)' if name == 'flat' else ''
        times = f'{milliseconds(t["baseline"])} against {milliseconds(t["sampler"])}'
        print(f'  {title:22}{times}: {t["ratio"]:.2f}x{passes}')

def print_result(result):
    r = result
    print(f'{r["preset"]}, depth {r["depth"]}, {r["parameters"]/1e6:.1f} M parameters, {r["passes"]} passes for '
          f'{r["tokens"]} tokens; {r["device"]}, {r["threads"]} of {r["cores"]} cores, {r["dtype"]}, '
          f'torch {r["torch"]}; measured: {r["matmul_gflops"]:.0f} GFLOP/s, {r["bandwidth_gb"]:.1f} GB/s; '
          f'{r["filters"] or "no filters"}')
    for mode in ('plain', 'guided'): print_mode(mode, r[mode], r)
    print(f'\nthe plain loop samples {r["loop_agreement"]:.1%} of the same tokens at temperature 0')

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', default='small', choices=['tiny', 'small', 'paper'], help='default: %(default)s')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'],
                    help='default: %(default)s')
    ap.add_argument('--batches', type=int, nargs='+', default=[1, 4, 16], help='notes, each >= 1; default: 1 4 16')
    ap.add_argument('--cfg-scale', type=float, default=1.5, help='guidance scale, > 0; default: %(default)s')
    ap.add_argument('--depth', type=int, help="blocks of the transformer, at least 1; default: the preset's")
    ap.add_argument('--repeats', type=int, default=5, help='runs of each timing, at least 1; default: %(default)s')
    ap.add_argument('--no-flat', action='store_true', help='leave out the next-token baseline')
    ap.add_argument('--filter', action='store_true', help="sample with the preset's usual top_k and top_p")
    ap.add_argument('--quick', action='store_true', help='tiny shapes, one repeat: tests the script, not the speed')
    ap.add_argument('--json', help='a JSON file for all measurements')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    result = bench(args)
    print_result(result)
    if args.json: write_atomic(args.json, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
