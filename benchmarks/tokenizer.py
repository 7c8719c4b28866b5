"""Measure speed and memory of the tokenizer:  python benchmarks/tokenizer.py [--presets tiny] [--out FILE.json]

Prints one table for each of --parts, and writes all rows to --out (committed: results/benchmarks/tokenizer-cpu.json).

peak     fp32 and bf16 matmul peak of the device, which MFU is relative to; always measured
presets  encode, decode and training step (forward, backward, AdamW; no GAN), eager and compiled, fp32 and bf16
cmx      forward and backward at CMX factors 1, 2, 4, 8 on one spectrogram with one patch size: fewer patches each time
patch    the same without CMX and with larger patches: the networks that `twin_config` of 06_ablations proves equal
lookup   the quantizer's lookup in blocks against the whole distance matrix

Variants of one table run in turn (A B A B ...); compare medians only within one table of one run.
MFU is relative to a peak measured at the start, and other load on the machine distorts it; the ratios stay valid.
Memory is the peak of parameters, buffers, optimiser state and all that the pass allocates. `first call s` includes the
compilation, unless torch finds it in its cache on disk.
"""
import argparse, copy, json, math
from dataclasses import replace
from functools import partial
from pathlib import Path
import torch, torch.nn.functional as F
from mars.ablations import twin_config
from mars.cmx import CMX
from mars.parts.files import write_atomic
from mars.parts.device import pick_device
from mars.parts.codebook import nearest_code
from mars.tokenizer import PRESETS, Tokenizer, TokenizerConfig
from common import device_info, flops, halve_on_oom, peak_bytes, print_table, seconds, state_bytes, time_interleaved

BATCH = dict(cpu=dict(tiny=16, small=4, paper=1), cuda=dict(tiny=32, small=256, paper=128))
PARTS = ['peak', 'presets', 'cmx', 'patch', 'lookup']
FOLDS = {1: CMX(1, 1), 2: CMX(2, 1), 4: CMX(2, 2), 8: CMX(4, 2)}
QUICK = dict(image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))

def config(name, quick):
    "The configuration of a preset; `quick` shrinks its image to 32x32."
    return TokenizerConfig.preset(name, **(QUICK if quick else {}))

# ---- encode, decode and training step

def make_passes(tok, image, bf16, tokens=None, opt=None):
    "Encode, decode and train as functions of the number of notes."
    def cast(fn):
        def run(n):
            with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16): return fn(n)
        return run
    loss = cast(lambda n: tok(image[:n])[1]['total'])
    def train(n):
        tok.zero_grad()
        loss(n).backward()
        if opt: opt.step()
    encode, decode = cast(lambda n: tok.encode(image[:n])), cast(lambda n: tok.decode([t[:n] for t in tokens]))
    return dict(encode=encode, decode=decode, train=train)

def make_variants(tok, compiled):
    "name -> (tokenizer, bf16), all with the same weights."
    variants = {'eager fp32': (tok, False), 'eager bf16': (tok, True)}
    if compiled:
        copied = copy.copy(tok)
        modules = {name: torch.compile(getattr(tok, name), dynamic=False) for name in compiled}
        copied._modules = {**tok._modules, **modules}
        variants |= {'compiled fp32': (copied, False), 'compiled bf16': (copied, True)}
    return variants

def first_calls(fns, device):
    "Call each function once, which compiles it -> (seconds by name, error message by name of a failing compilation)."
    times, failed = {}, {}
    for name, fn in fns.items():
        try: times[name] = seconds(fn, device)
        except Exception as e:
            if isinstance(e, torch.OutOfMemoryError) or not name.startswith('compiled'): raise
            failed[name] = f'{type(e).__name__}: {(str(e).strip() or "no message").splitlines()[0]}'
    return times, failed

def pass_flops(fn, batch):
    "FLOPs of a pass over a batch; position embeddings cost the same for any batch."
    one, two = flops(partial(fn, 1)), flops(partial(fn, 2))
    return one + (batch-1)*(two-one) if batch > 1 else one

def bench_pass(kind, runs, tok, opt, batch, args, device, peak):
    "Rows of one pass (encode, decode or train), one for each variant."
    fns = {name: partial(passes[kind], batch) for name, passes in runs.items()}
    first, failed = first_calls(fns, device)
    times = time_interleaved({name: fns[name] for name in first}, args.repeats, device)
    work, rows = pass_flops(runs['eager fp32'][kind], batch), []
    for name, fn in fns.items():
        row = {'batch': batch, 'pass': kind, 'variant': name}
        rows.append(row)
        if name in failed: row['error'] = failed[name]; continue
        tok.zero_grad()
        t, memory = times[name], state_bytes(tok, opt if kind == 'train' else None) + peak_bytes(fn, device)
        if name == 'eager fp32': eager = memory
        row |= {'ms': 1e3*t, 'notes/s': batch/t, 'speed x': times['eager fp32']/t, 'GFLOP/s': work/t/1e9,
                'MFU %': 100*work/t/peak[name.split()[1]], 'MiB': memory/2**20, 'memory x': memory/eager,
                'first call s': first[name]}
    return rows

def bench_preset(name, args, device, peak, batch):
    "Rows of a preset: each pass in each variant."
    torch.manual_seed(0)
    torch.compiler.reset()
    cfg = config(name, args.quick)
    tok = Tokenizer(cfg).to(device)
    # a learning rate of 0: AdamW does its usual work and every step has the same weights
    opt = torch.optim.AdamW(tok.parameters(), lr=0., fused=device.type == 'cuda')
    image = torch.rand(batch, *cfg.image_shape, device=device)*2 - 1
    models, tokens, rows = make_variants(tok, args.compile), tok.eval().encode(image), []
    runs = {v: make_passes(m, image, bf16, tokens, opt) for v, (m, bf16) in models.items()}
    for kind in ('encode', 'decode', 'train'):
        for m, _ in models.values(): m.train(kind == 'train')
        rows += [{'preset': name, **row} for row in bench_pass(kind, runs, tok, opt, batch, args, device, peak)]
    return rows

# ---- CMX and larger patches

def fold_networks(name, kinds, args, device, batch):
    "(factor, kind) -> (tokenizer, training step), all on one spectrogram."
    torch.manual_seed(0)
    cfg, networks = config(name, args.quick), {}
    _, H, W = cfg.image_shape  # a spectrogram of twice the height folds into it
    spec = torch.rand(batch, 1, 2*H, W, device=device)*2 - 1
    for factor, cmx in FOLDS.items():
        folded = replace(cfg, image_shape=cmx.image_shape((2*H, W)))
        for kind in kinds:
            tok = Tokenizer(folded if kind == 'cmx' else twin_config(folded, cmx)).to(device).train()
            image = (cmx.fold(spec) if kind == 'cmx' else spec).contiguous()
            networks[factor, kind] = tok, partial(make_passes(tok, image, device.type == 'cuda')['train'], batch)
    return networks

def bench_folds(name, kinds, args, device, batch):
    "A row for each factor; ratios to factor 1 of the first kind."
    networks = fold_networks(name, kinds, args, device, batch)
    fns, memory, rows = {key: fn for key, (_, fn) in networks.items()}, {}, []
    time_interleaved(fns, 1, device)  # warm up
    times = time_interleaved(fns, args.repeats, device)
    for key, (tok, fn) in networks.items():
        tok.zero_grad()
        memory[key] = state_bytes(tok) + peak_bytes(fn, device)
    base = 1, kinds[0]
    for factor in FOLDS:
        patches = math.prod(networks[factor, kinds[0]][0].cfg.grid)
        row = {'preset': name, 'batch': batch, 'factor': factor, 'patches': patches}
        for kind in kinds:
            key, tok = (factor, kind), networks[factor, kind][0]
            shape, patch = ('x'.join(map(str, s)) for s in (tok.cfg.image_shape, tok.cfg.patch))
            row |= {f'{kind}: shape': f'{shape} / {patch}', f'{kind}: ms': 1e3*times[key],
                    f'{kind}: time x': times[key]/times[base], f'{kind}: memory x': memory[key]/memory[base],
                    f'{kind}: parameters': sum(p.numel() for p in tok.parameters())}
        rows.append(row)
    return rows

# ---- lookup

def all_similarities(x, e): return (x @ e.T).argmax(-1)
def cdist(x, e): return torch.cdist(x, e).argmin(-1)
def expanded_distance(x, e): return (x.pow(2).sum(-1, keepdim=True) - 2*x @ e.T + e.pow(2).sum(-1)).argmin(-1)

LOOKUPS = {'nearest_code': nearest_code, 'blocks of 2^18': partial(nearest_code, block=2**18),
           'blocks of 2^26': partial(nearest_code, block=2**26), 'all similarities': all_similarities,
           'torch.cdist': cdist, 'x^2 - 2xe + e^2': expanded_distance}

def bench_lookup(args, device, batch):
    "A row for each lookup. The vectors have length 1, where all lookups must agree."
    torch.manual_seed(0)
    cfg = config('paper', args.quick)
    x, e = (F.normalize(torch.randn(n, cfg.code_dim, device=device), dim=-1)
            for n in (cfg.n_tokens*batch, cfg.codebook_size))
    fns = {name: partial(fn, x, e) for name, fn in LOOKUPS.items()}
    codes = {name: fn() for name, fn in fns.items()}
    times, rows = time_interleaved(fns, args.repeats, device), []
    for name, t in times.items():
        agree = (codes[name] == codes['nearest_code']).float().mean().item()
        rows.append({'lookup': name, 'rows': len(x), 'codes': len(e), 'ms': 1e3*t, 'time x': t/times['nearest_code'],
                     'MiB': peak_bytes(fns[name], device)/2**20, 'agree %': 100*agree})
    return rows

# ---- command

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--presets', nargs='+', default=list(PRESETS), choices=list(PRESETS), help='default: all')
    ap.add_argument('--parts', nargs='+', default=PARTS, choices=PARTS, help='default: all')
    ap.add_argument('--batch', type=int, help='notes of a pass, at least 1; default: by preset and device')
    ap.add_argument('--repeats', type=int, default=10, help='timed calls of each variant, >= 1; default: %(default)s')
    ap.add_argument('--compile', nargs='*', default=['encoder', 'decoder'], choices=['encoder', 'decoder', 'quantizer'],
                    help='modules to compile, each separately; without a value, none; default: encoder decoder')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--quick', action='store_true', help='images of 32x32: tests the script, not the speed')
    ap.add_argument('--out', type=Path, help='a JSON file for all rows')
    return ap

def parse_args(argv):
    ap = parser()
    args = ap.parse_args(argv)
    if args.repeats < 1 or (args.batch or 1) < 1: ap.error('--repeats and --batch must be at least 1')
    if args.out and not args.out.resolve().parent.is_dir():
        ap.error(f'{args.out} cannot be written: its folder does not exist; make it first')
    return args

def print_info(info):
    rates = {f'{name} TFLOP/s': v/1e12 for name, v in info['peak'].items()}
    row = {k: v for k, v in info.items() if k != 'peak'} | rates
    print_table('Device; the peak is that of a square matmul', [row])

def main(argv=None):
    args = parse_args(argv)
    device = pick_device(args.device)
    gpu = device.type == 'cuda'
    def by_preset(bench, *more):
        "Rows of all presets, with half the batch where memory runs out."
        rows = []
        for name in args.presets:
            batch = args.batch or BATCH[device.type][name]
            rows += halve_on_oom(partial(bench, name, *more), batch)
        return rows
    result = dict(info=device_info(device, 256 if args.quick else 8192 if gpu else 2048))
    print_info(result['info'])
    if 'presets' in args.parts:
        result['presets'] = by_preset(bench_preset, args, device, result['info']['peak'])
        title = 'Passes; ratios (x) to eager fp32, MFU of the measured peak of the same precision'
        print_table(title, result['presets'])
    if kinds := [k for k in ('cmx', 'patch') if k in args.parts]:
        result['folds'] = by_preset(bench_folds, kinds, args, device)
        print_table(f'Forward and backward in {"bf16" if gpu else "fp32"}, CMX and larger patches on the same '
                    'spectrogram; ratios to the first row of a preset', result['folds'])
    if 'lookup' in args.parts:
        batch = args.batch or BATCH[device.type]['paper' if gpu else 'tiny']
        result['lookup'] = halve_on_oom(partial(bench_lookup, args, device), batch)
        print_table('Nearest code; ratios to nearest_code', result['lookup'])
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
