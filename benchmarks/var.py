"""Measure the time of a generated note, and of two baselines:  python benchmarks/var.py [--preset small] [--device cpu] [--dtype float32] [--json results/benchmarks/var-cpu.json]

Prints: the time of each stage at batch 1 (tokens, decode, phase); notes per second against the batch; the share of the
roofline that the tokens reach (weight bytes over memory bandwidth at batch 1, FLOPs over the matrix peak at the best
batch, both measured here, in the precision of the run); and the ratio to two baselines with the same weights: one token a
pass (T passes, cached, recorded like ours), and the plain next-scale loop of `VAR.generate` in float32. Times are the least of several runs, what the machine does
when left alone. Weights are random: time does not depend on them.
"""
import argparse, copy, json, os, platform, statistics, time
import torch
from mars.baselines.next_token import NextToken
from mars.parts.inference import generate, onednn_linear
from mars.parts.device import cast_network, pick_device, pick_dtype
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig

FILTERS = dict(tiny=dict(top_p=.96), small=dict(top_k=600, top_p=.96), paper=dict(top_k=900, top_p=.96))

# ---- the clock and the machine

def sync():
    if torch.cuda.is_available(): torch.cuda.synchronize()

def seconds(f, repeats):
    "Median and least seconds of several runs after a first one."
    f(); times = []
    for _ in range(repeats):
        sync(); start = time.perf_counter()
        f()
        sync(); times.append(time.perf_counter() - start)
    return dict(median=statistics.median(times), least=min(times))

def versus(f, g, repeats):
    "Seconds of both, run in turns, so that a machine that slows down slows both."
    f(); g(); times = [], []
    for _ in range(repeats):
        for run, kept in zip((f, g), times): kept.append(seconds(run, 1)['median'])
    return [dict(median=statistics.median(t), least=min(t)) for t in times]

def machine(device, dtype, quick):
    "Matrix peak in FLOP/s and memory bandwidth in bytes/s, measured."
    n = 256 if quick else 2048 if device.type == 'cpu' else 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    x = torch.ones((2**20 if quick else 2**26 if device.type == 'cpu' else 2**30), device=device)
    read = lambda: x.view(-1, 2**16).sum(-1)
    def product():
        with torch.no_grad(): onednn_linear(a, b)
    return dict(flops=2*n**3/seconds(product, 10)['least'], bandwidth=4*x.numel()/seconds(read, 10)['least'])

# ---- baseline 1: one token a pass

def next_token(v):
    "The same weights in flat next-token order: T passes of one token, with the same cache, guidance, sampling and recording."
    if v.pass_lengths[0] > 1: raise ValueError(f'the first scale holds {v.pass_lengths[0]} tokens; this comparison needs one that holds a single token')
    flat = NextToken(v.cfg, v.tok_cfg)
    flat.load_state_dict(v.state_dict())
    return cast_network(flat.to(v.start.device), v.start.dtype).eval()

# ---- what a note costs

def costs(v, guided):
    "Weights that a pass must read, those read once a note, and FLOPs of a note."
    c, V, T, rows = v.cfg, v.tok_cfg.codebook_size, sum(v.lengths), 1 + guided
    block, once = int((4 + 2*c.mlp_ratio)*c.width**2), (6*(1 if c.shared_adaln else c.depth) + 2)*c.width**2
    attention = sum(n*sum(v.lengths[:k+1]) for k, n in enumerate(v.lengths))*4*c.width*c.depth
    return dict(each_pass=c.depth*block + V*c.width, once=once, flops=rows*(2*T*c.depth*block + attention + 2*once) + 2*T*V*c.width)

# ---- the run

def build(preset, device, dtype, depth, quick):
    tok_cfg = TokenizerConfig.preset(preset, **(dict(image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4)) if quick else {}))
    torch.manual_seed(0)
    tok = Tokenizer(tok_cfg)
    var = VAR(VARConfig.preset(preset, gamma_init=1., **(dict(depth=depth, width=0, heads=0) if depth else {})), tok_cfg).bind(tok)
    return Mars(tok, var, spectrogram=LogSpectrogram(n_fft=128, hop_length=64, n_frames=32) if quick else None).to(device, dtype)

@torch.no_grad()
def bench(preset='small', device='cpu', dtype='float32', batches=(1, 4, 16), cfg_scale=1.5, depth=None, repeats=5, quick=False, flat=True, filtered=False):
    device, dtype = pick_device(device), pick_dtype(dtype)
    if quick: preset, batches, repeats = 'tiny', (1, 2), 1
    m = build(preset, device, dtype, depth, quick)
    v, ask, filters = m.var, dict(pitch=60, family=3), FILTERS[preset] if filtered else {}
    K, T, limit, size = len(v.lengths), sum(v.lengths), machine(device, dtype, quick), dtype.itemsize
    out = dict(preset=preset, filters=filters, depth=v.cfg.depth, passes=K, tokens=T, parameters=sum(p.numel() for p in v.parameters()), device=torch.cuda.get_device_name() if device.type == 'cuda' else platform.machine(),
               threads=torch.get_num_threads(), cores=os.cpu_count(), dtype=str(dtype).removeprefix('torch.'), torch=torch.__version__, matmul_gflops=limit['flops']/1e9, bandwidth_gb=limit['bandwidth']/1e9)
    for guided, s in (('plain', 0.), ('guided', cfg_scale)):
        make = lambda n: generate(v, ask, n, seed=0, cfg_scale=s, **filters)
        tokens = make(1)
        spec = m.tokens_to_spec(tokens)
        stages = dict(tokens=seconds(lambda: make(1), repeats), decode=seconds(lambda: m.tokens_to_spec(tokens), repeats), phase=seconds(lambda: m.spec_to_wave(spec), repeats))
        row = dict(stages=stages, note=sum(t['least'] for t in stages.values()))
        row['real_time'] = m.spectrogram.n_samples/m.spectrogram.sample_rate/row['note']
        row['batches'] = {}
        for n in batches:
            many = make(n)
            specs = m.tokens_to_spec(many)
            t = {**{name: seconds(f, max(1, repeats//2))['least'] for name, f in dict(tokens=lambda: make(n), decode=lambda: m.tokens_to_spec(many), phase=lambda: m.spec_to_wave(specs)).items()}}
            row['batches'][n] = dict(tokens=n/t['tokens'], notes=n/sum(t.values()))
        c = costs(v, bool(s))
        row['roofline'] = dict(bandwidth=size*(K*c['each_pass'] + c['once'])/limit['bandwidth']/stages['tokens']['least'], gflop=c['flops']/1e9,
                               flops=max(b['tokens'] for b in row['batches'].values())*c['flops']/limit['flops'])
        out[guided] = row
    compare(out, m, ask, cfg_scale, filters, repeats, flat)
    return out

def compare(out, m, ask, cfg_scale, filters, repeats, flat):
    "Add the two baselines at batch 1, with and without guidance; the plain loop is float32 whatever the precision of the run."
    v = m.var
    other = next_token(v) if flat else None
    sides = dict(plain=0., guided=cfg_scale)
    ours = lambda s: lambda: generate(v, ask, 1, seed=0, cfg_scale=s, **filters)
    def add(guided, name, theirs, s, repeats):
        mine, other = versus(ours(s), theirs, repeats)
        out[guided][name] = dict(ours=mine, theirs=other, ratio=other['least']/mine['least'])
    for guided, s in sides.items():
        if flat: add(guided, 'flat', lambda: other.generate(ask, 1, seed=0, cfg_scale=s, **filters), s, max(1, repeats//2))
    plain = copy.deepcopy(v).float()
    greedy = dict(cfg_scale=cfg_scale, temperature=0)
    out['plain_agrees'] = (torch.cat(generate(plain, ask, 1, **greedy), 1) == torch.cat(plain.generate(ask, 1, **greedy), 1)).float().mean().item()
    for guided, s in sides.items(): add(guided, 'loop', lambda: plain.generate(ask, 1, seed=0, cfg_scale=s, **filters), s, repeats)

def report(out):
    ms = lambda t: f'{1e3*t["least"]:8.1f} ms'
    print(f'{out["preset"]}, depth {out["depth"]}, {out["parameters"]/1e6:.1f} M parameters, {out["passes"]} passes for {out["tokens"]} tokens; {out["device"]}, {out["threads"]} of {out["cores"]} cores, '
          f'{out["dtype"]}, torch {out["torch"]}; measured here: {out["matmul_gflops"]:.0f} GFLOP/s, {out["bandwidth_gb"]:.1f} GB/s; {out["filters"] or "no filters"}')
    for g in ('plain', 'guided'):
        r = out[g]
        print(f'\n{"without" if g == "plain" else "with"} guidance: a note in {r["note"]:.3f} s, {r["real_time"]:.0f}x real time')
        for name, t in r['stages'].items(): print(f'  {name:8}{ms(t)} (median {1e3*t["median"]:.1f})')
        for n, b in r['batches'].items(): print(f'  batch {n:4}: {b["tokens"]:8.1f} notes/s as tokens, {b["notes"]:8.1f} as sound')
        print(f'  roofline: {r["roofline"]["bandwidth"]:.0%} of the bandwidth at batch 1, {r["roofline"]["flops"]:.0%} of the matrix peak at the best batch ({r["roofline"]["gflop"]:.1f} GFLOP a note)')
        for name, title in (('flat', 'one token a pass'), ('loop', 'plain next-scale loop')):
            if name in r: print(f'  {title:22}{ms(r[name]["theirs"])} against {ms(r[name]["ours"])}: {r[name]["ratio"]:.2f}x' + (f' (passes: {out["tokens"]/out["passes"]:.1f}x)' if name == 'flat' else ''))
    print(f'\nthe plain loop writes {out["plain_agrees"]:.1%} of the same tokens at temperature 0')

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', default='small', choices=['tiny', 'small', 'paper'])
    ap.add_argument('--device', default=None, help='default: the GPU if there is one')
    ap.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16', 'float16'])
    ap.add_argument('--batches', type=int, nargs='+', default=[1, 4, 16])
    ap.add_argument('--cfg-scale', type=float, default=1.5)
    ap.add_argument('--depth', type=int, help="the transformer's depth in place of the preset's")
    ap.add_argument('--repeats', type=int, default=5)
    ap.add_argument('--no-flat', action='store_true', help='leave the next-token baseline out')
    ap.add_argument('--filter', action='store_true', help="sample with top_k and top_p (the preset's usual values) in place of the whole distribution")
    ap.add_argument('--quick', action='store_true', help='miniature shapes, one repeat: does it run?')
    ap.add_argument('--json', help='write the figures to this file')
    a = ap.parse_args()
    out = bench(a.preset, a.device, a.dtype, a.batches, a.cfg_scale, a.depth, a.repeats, a.quick, not a.no_flat, a.filter)
    report(out)
    if a.json: open(a.json, 'w').write(json.dumps(out, indent=1))
