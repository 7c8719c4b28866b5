"""Measure speed and memory of the tokenizer:  python benchmarks/tokenizer.py [--presets tiny small paper] [--parts presets cmx patch lookup] [--out results/benchmarks/tokenizer-cpu.json]

peak     fp32 and bf16 matmul peak of the device, which MFU is compared with; always measured
presets  encode, decode and training step (forward, backward, AdamW; no adversary), eager and compiled, fp32 and bf16
cmx      forward and backward at CMX factors 1, 2, 4, 8 on the same spectrogram with the same patch, hence fewer and fewer patches
patch    the same without CMX and with larger patches: the networks that `twin_config` of 06_ablations finds equal
lookup   the quantizer's lookup in blocks against the whole distance matrix

Variants of one table run in turn (A B A B ...), and their medians are compared; the times of two tables, or of two runs, are not.
MFU compares with a peak measured at the start, so it needs a machine with nothing else to do; the ratios do not.
Memory is the peak of parameters, buffers, optimizer state and all that the pass allocates. `first call s` holds the
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

def config(name, quick): return TokenizerConfig.preset(name, **(QUICK if quick else {}))

def passes(tok, image, bf16, tokens=None, opt=None):
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
    return dict(encode=cast(lambda n: tok.encode(image[:n])), decode=cast(lambda n: tok.decode([t[:n] for t in tokens])), train=train)

def variants(tok, compiled):
    "name -> (tokenizer, bf16), all on the same weights."
    out = {'eager fp32': (tok, False), 'eager bf16': (tok, True)}
    if compiled:
        other = copy.copy(tok)
        other._modules = {**tok._modules, **{m: torch.compile(getattr(tok, m), dynamic=False) for m in compiled}}
        out.update({'compiled fp32': (other, False), 'compiled bf16': (other, True)})
    return out

def first_calls(fns, device):
    "Call each once, which compiles it: seconds by name, and one line for each compiled one that fails."
    took, failed = {}, {}
    for name, fn in fns.items():
        try: took[name] = seconds(fn, device)
        except Exception as e:
            if isinstance(e, torch.OutOfMemoryError) or not name.startswith('compiled'): raise
            failed[name] = f'{type(e).__name__}: {(str(e).strip() or "no message").splitlines()[0]}'
    return took, failed

def bench_preset(name, args, device, peak, batch):
    torch.manual_seed(0)
    torch.compiler.reset()
    cfg = config(name, args.quick)
    tok = Tokenizer(cfg).to(device)
    opt = torch.optim.AdamW(tok.parameters(), lr=0., fused=device.type == 'cuda') # the usual work, but each step meets the same weights
    image = torch.rand(batch, *cfg.image_shape, device=device)*2 - 1
    models, tokens, rows = variants(tok, args.compile), tok.eval().encode(image), []
    runs = {v: passes(m, image, bf16, tokens, opt) for v, (m, bf16) in models.items()}
    for kind in ('encode', 'decode', 'train'):
        for m, _ in models.values(): m.train(kind == 'train')
        fns = {v: partial(run[kind], batch) for v, run in runs.items()}
        first, failed = first_calls(fns, device)
        times = time_interleaved({v: fns[v] for v in first}, args.repeats, device)
        one, two = (flops(partial(runs['eager fp32'][kind], n)) for n in (1, 2)) # positions cost the same for any batch
        work = one + (batch-1)*(two-one) if batch > 1 else one
        for v in fns:
            row = {'preset': name, 'batch': batch, 'pass': kind, 'variant': v}
            rows.append(row)
            if v in failed: row['error'] = failed[v]; continue
            tok.zero_grad()
            memory, t = state_bytes(tok, opt if kind == 'train' else None) + peak_bytes(fns[v], device), times[v]
            if v == 'eager fp32': eager = memory
            row.update({'ms': 1e3*t, 'notes/s': batch/t, 'speed x': times['eager fp32']/t, 'GFLOP/s': work/t/1e9, 'MFU %': 100*work/t/peak[v.split()[1]],
                        'MiB': memory/2**20, 'memory x': memory/eager, 'first call s': first[v]})
    return rows

def bench_folds(name, kinds, args, device, batch):
    torch.manual_seed(0)
    cfg, variants = config(name, args.quick), {}
    _, H, W = cfg.image_shape # a spectrogram of twice the height folds into it
    spec = torch.rand(batch, 1, 2*H, W, device=device)*2 - 1
    for factor, cmx in FOLDS.items():
        folded = replace(cfg, image_shape=cmx.image_shape((2*H, W)))
        for kind in kinds:
            tok = Tokenizer(folded if kind == 'cmx' else twin_config(folded, cmx)).to(device).train()
            image = (cmx.fold(spec) if kind == 'cmx' else spec).contiguous()
            variants[factor, kind] = tok, partial(passes(tok, image, device.type == 'cuda')['train'], batch)
    fns = {key: fn for key, (_, fn) in variants.items()}
    time_interleaved(fns, 1, device) # warm up
    times, memory, rows = time_interleaved(fns, args.repeats, device), {}, []
    for key, (tok, fn) in variants.items():
        tok.zero_grad()
        memory[key] = state_bytes(tok) + peak_bytes(fn, device)
    for factor in FOLDS:
        row = {'preset': name, 'batch': batch, 'factor': factor, 'patches': math.prod(variants[factor, kinds[0]][0].cfg.grid)}
        for kind in kinds:
            tok, key, base = variants[factor, kind][0], (factor, kind), (1, kinds[0])
            shape, patch = ('x'.join(map(str, s)) for s in (tok.cfg.image_shape, tok.cfg.patch))
            row.update({f'{kind}: shape': f'{shape} / {patch}', f'{kind}: ms': 1e3*times[key], f'{kind}: time x': times[key]/times[base],
                        f'{kind}: memory x': memory[key]/memory[base], f'{kind}: parameters': sum(p.numel() for p in tok.parameters())})
        rows.append(row)
    return rows

LOOKUPS = {
    'nearest_code': nearest_code, 'blocks of 2^18': partial(nearest_code, block=2**18), 'blocks of 2^26': partial(nearest_code, block=2**26),
    'all similarities': lambda x, e: (x @ e.T).argmax(-1),
    'torch.cdist': lambda x, e: torch.cdist(x, e).argmin(-1),
    'x^2 - 2xe + e^2': lambda x, e: (x.pow(2).sum(-1, keepdim=True) - 2*x @ e.T + e.pow(2).sum(-1)).argmin(-1)}

def bench_lookup(args, device, batch):
    torch.manual_seed(0)
    cfg = config('paper', args.quick)
    x, e = (F.normalize(torch.randn(n, cfg.code_dim, device=device), dim=-1) for n in (cfg.n_tokens*batch, cfg.codebook_size)) # on the sphere, all find the same code
    fns = {name: partial(fn, x, e) for name, fn in LOOKUPS.items()}
    found = {name: fn() for name, fn in fns.items()}
    times = time_interleaved(fns, args.repeats, device)
    return [{'lookup': name, 'rows': len(x), 'codes': len(e), 'ms': 1e3*t, 'time x': t/times['nearest_code'], 'MiB': peak_bytes(fns[name], device)/2**20,
             'agree %': 100*(found[name] == found['nearest_code']).float().mean().item()} for name, t in times.items()]

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--presets', nargs='+', default=list(PRESETS), choices=list(PRESETS))
    ap.add_argument('--parts', nargs='+', default=PARTS, choices=PARTS)
    ap.add_argument('--batch', type=int, help='notes; default: by preset and device')
    ap.add_argument('--repeats', type=int, default=10, help='timed calls of each variant')
    ap.add_argument('--compile', nargs='*', default=['encoder', 'decoder'], choices=['encoder', 'decoder', 'quantizer'], help='what is compiled, each by itself; nothing leaves these rows out')
    ap.add_argument('--device')
    ap.add_argument('--quick', action='store_true', help='images of 32x32: shows that it runs, not how fast')
    ap.add_argument('--out', type=Path, help='a JSON file for all rows')
    args = ap.parse_args(argv)
    if args.repeats < 1 or (args.batch or 1) < 1: ap.error('--repeats and --batch must be at least 1')
    if args.out and not args.out.resolve().parent.is_dir(): ap.error(f'{args.out} cannot be written: its folder does not exist; make it first')
    device = pick_device(args.device)
    batch = lambda name: args.batch or BATCH[device.type][name]
    kinds, precision = [k for k in ('cmx', 'patch') if k in args.parts], 'bf16' if device.type == 'cuda' else 'fp32'
    result = dict(about=device_info(device, 256 if args.quick else 8192 if device.type == 'cuda' else 2048))
    peak = result['about']['peak']
    print_table('Device; the peak is that of a square matmul', [{k: v for k, v in result['about'].items() if k != 'peak'} | {f'{k} TFLOP/s': v/1e12 for k, v in peak.items()}])
    if 'presets' in args.parts:
        result['presets'] = [r for p in args.presets for r in halve_on_oom(partial(bench_preset, p, args, device, peak), batch(p))]
        print_table('Passes; ratios (x) to eager fp32, MFU of the measured peak of the same precision', result['presets'])
    if kinds:
        result['folds'] = [r for p in args.presets for r in halve_on_oom(partial(bench_folds, p, kinds, args, device), batch(p))]
        print_table(f'Forward and backward in {precision}, CMX and larger patches on the same spectrogram; ratios to the first row of a preset', result['folds'])
    if 'lookup' in args.parts:
        result['lookup'] = halve_on_oom(partial(bench_lookup, args, device), args.batch or BATCH[device.type]['paper' if device.type == 'cuda' else 'tiny'])
        print_table('Nearest code; ratios to nearest_code', result['lookup'])
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
