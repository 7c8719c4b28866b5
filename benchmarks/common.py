"""Shared by the benchmarks: the device and its measured peak, interleaved timing, FLOPs, peak memory, tables."""
import gc, os, platform, statistics, time
from contextlib import nullcontext
from pathlib import Path
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16)

def seconds(fn, device):
    "Seconds of one call."
    if device.type == 'cuda': torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if device.type == 'cuda': torch.cuda.synchronize()
    return time.perf_counter() - start

def time_interleaved(fns, repeats, device):
    "Median seconds of each function of a dict, called in turn (A B A B ...) to share the machine's other load."
    rounds = [{name: seconds(fn, device) for name, fn in fns.items()} for _ in range(repeats)]
    return {name: statistics.median(r[name] for r in rounds) for name in fns}

def matmul_peak(device, size, repeats=10):
    "FLOP/s of the fastest square matmul: {'fp32': ..., 'bf16': ...}. TF32 is off, which is torch's default."
    def best(dtype):
        a, b = torch.randn(2, size, size, device=device, dtype=dtype)
        return 2*size**3/min(seconds(lambda: a @ b, device) for _ in range(repeats))
    return {name: best(dtype) for name, dtype in DTYPES.items()}

def cpu_name(cpuinfo='/proc/cpuinfo'):
    "The processor's model name and architecture; the architecture alone where there is no /proc/cpuinfo."
    try: lines = Path(cpuinfo).read_text(encoding='utf-8').splitlines()
    except OSError: lines = []
    models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return f'{models[0]} ({platform.machine()})' if models else platform.machine()

def device_name(device):
    "Name of the GPU or of the processor."
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()

def device_info(device, size):
    "The device, its memory and its measured peak, by square matmuls of `size` rows."
    if device.type == 'cuda': memory = torch.cuda.get_device_properties(device).total_memory
    else: memory = os.sysconf('SC_PAGE_SIZE')*os.sysconf('SC_PHYS_PAGES')
    return dict(device=device_name(device), memory_gib=memory/2**30, threads=torch.get_num_threads(),
                torch=torch.__version__, python=platform.python_version(), matmul_size=size,
                peak=matmul_peak(device, size))

def flops(fn):
    "FLOPs of matmuls and convolutions. Attention is counted as its matmuls, because fused kernels are not."
    counter = FlopCounterMode(display=False)
    # the totals need no module tracker, and torch's fails if a module under no_grad gets a view of a parameter
    counter.mod_tracker = nullcontext()
    counter.mod_tracker.parents = {'Global'}
    with counter, sdpa_kernel(SDPBackend.MATH): fn()
    return counter.get_total_flops()

def state_bytes(model, opt=None):
    "Bytes of parameters, buffers and optimiser state."
    state = [v for s in opt.state.values() for v in s.values()] if opt else []
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers(), *state])

def peak_bytes(fn, device):
    "Peak bytes allocated by a call: CUDA's counter, or the profiler's allocations and frees on a CPU."
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        fn()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as p: fn()
    events = [e for e in p.profiler.kineto_results.events() if e.name() == '[memory]']
    allocated = peak = 0
    for e in sorted(events, key=lambda e: e.start_ns()):
        allocated += e.nbytes()
        peak = max(peak, allocated)
    return peak

def halve_on_oom(measure, batch):
    "`measure(batch)`, with half the batch each time the device runs out of memory."
    while True:
        try: return measure(batch)
        except torch.OutOfMemoryError:
            if batch == 1: raise
        batch //= 2
        gc.collect()
        torch.cuda.empty_cache()

def format_value(v):
    "Format a cell of a table; None is a dash."
    if isinstance(v, float): return f'{v:,.0f}' if abs(v) >= 100 else f'{v:.3g}'
    return f'{v:,}' if isinstance(v, int) else '-' if v is None else str(v)

def print_table(title, rows):
    "Print rows (dicts) as a markdown table; a missing key is a dash."
    keys = list(dict.fromkeys(k for r in rows for k in r))
    cells = [keys, *([format_value(r.get(k)) for k in keys] for r in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    def line(row): return '| ' + ' | '.join(s.ljust(w) for s, w in zip(row, widths)) + ' |'
    rule = '|' + '|'.join('-'*(w+2) for w in widths) + '|'
    print(f'\n{title}\n', line(cells[0]), rule, *map(line, cells[1:]), sep='\n', flush=True)
