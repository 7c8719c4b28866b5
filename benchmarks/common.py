"""What the benchmarks share: the device and its measured peak, interleaved timing, FLOPs, peak memory, tables."""
import gc, os, platform, statistics, time
from contextlib import nullcontext
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)

def seconds(fn, device):
    if device.type == 'cuda': torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if device.type == 'cuda': torch.cuda.synchronize()
    return time.perf_counter() - start

def interleaved(fns, repeats, device):
    "Median seconds of each function of a dict, called in turn (A B A B ...), so that a busy machine is busy for all."
    took = [{name: seconds(fn, device) for name, fn in fns.items()} for _ in range(repeats)]
    return {name: statistics.median(t[name] for t in took) for name in fns}

def matmul_peak(device, size, repeats=10):
    "FLOP/s of the best square matmul: {'fp32': ..., 'bf16': ...}. fp32 is true fp32: TF32 stays off, as torch has it."
    def best(dtype):
        a, b = torch.randn(2, size, size, device=device, dtype=dtype)
        return 2*size**3/min(seconds(lambda: a @ b, device) for _ in range(repeats))
    return {name: best(dtype) for name, dtype in DTYPES.items()}

def about(device, size):
    "The device, its memory and its measured peak."
    if device.type == 'cuda': name, memory = (p := torch.cuda.get_device_properties(device)).name, p.total_memory
    else: name, memory = f'CPU ({platform.machine()})', os.sysconf('SC_PAGE_SIZE')*os.sysconf('SC_PHYS_PAGES')
    return dict(device=name, memory_gib=memory/2**30, threads=torch.get_num_threads(),
                torch=torch.__version__, python=platform.python_version(), matmul_size=size, peak=matmul_peak(device, size))

def flops(fn):
    "FLOPs of the matmuls and convolutions that a pass makes. Attention counts as its matmuls: fused kernels are partly unknown to the counter, or recompute."
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = nullcontext() # the totals need none, and torch's fails where a module under no_grad gets a view of a parameter
    counter.mod_tracker.parents = {'Global'}
    with counter, sdpa_kernel(SDPBackend.MATH): fn()
    return counter.get_total_flops()

def held_bytes(model, opt=None):
    "Bytes of parameters, buffers and optimizer state."
    state = [v for s in opt.state.values() for v in s.values()] if opt else []
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers(), *state])

def peak_bytes(fn, device):
    "Most bytes that a pass allocates on top of what is there: CUDA's counter, or the sum of the profiler's allocations and frees on a CPU."
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        fn(); torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as p: fn()
    now = peak = 0
    for e in sorted((e for e in p.profiler.kineto_results.events() if e.name() == '[memory]'), key=lambda e: e.start_ns()):
        now += e.nbytes()
        peak = max(peak, now)
    return peak

def halving(measure, batch):
    "`measure(batch)`, with half the batch as often as the device runs out of memory."
    while True:
        try: return measure(batch)
        except torch.OutOfMemoryError:
            if batch == 1: raise
        batch //= 2
        gc.collect(); torch.cuda.empty_cache()

def show(v):
    if isinstance(v, float): return f'{v:,.0f}' if abs(v) >= 100 else f'{v:.3g}'
    return f'{v:,}' if isinstance(v, int) else '-' if v is None else str(v)

def table(title, rows):
    "Print rows (dicts) as a markdown table; a key that a row lacks is a dash."
    keys = list(dict.fromkeys(k for r in rows for k in r))
    cells = [keys, *([show(r.get(k)) for k in keys] for r in rows)]
    width = [max(map(len, c)) for c in zip(*cells)]
    line = lambda c: '| ' + ' | '.join(s.ljust(w) for s, w in zip(c, width)) + ' |'
    print(f'\n{title}\n', line(cells[0]), '|' + '|'.join('-'*(w+2) for w in width) + '|', *map(line, cells[1:]), sep='\n', flush=True)
