"""Measure cost and quality of phase reconstruction methods:  python benchmarks/phase.py [--notes 32] [--out FILE.json]

Notes of test instruments (FluidR3, the test side of the split by instrument), spread over instruments, pitches and
velocities, are encoded to spectrograms and decoded. Prints a table for each part and writes all rows to --out
(committed: results/benchmarks/phase.json).

delayed  the notes begin after 0.25 s of silence, which leaves room for a pre-echo
plain    the main rows without that silence
model    with --model: the main rows from spectrograms that the model's tokenizer reconstructs, against the true notes

`true phase` combines the true phases with the magnitudes of the spectrogram. Griffin-Lim is the fast variant, momentum
0.99, unless the row's name differs. PGHI and the vocoder are followed by mars.parts.phase.refine, except in rows named
`fast Griffin-Lim`.

stft       multi-resolution STFT distance: convergence + log magnitude, means over mars.parts.phase.RESOLUTIONS
mel dB     mean absolute difference of log-mel spectrograms (mars.eval.log_mel_error)
pre-echo   power in the 64 ms before the attack relative to the true note after it, dB, mean over notes
stft / GL-128  `stft` relative to Griffin-Lim 128, with a 95 % bootstrap interval over notes (`low`, `high`) and
               `median note`, the median of the ratios of single notes
noise      power between the partials, per cell of a 4096-point STFT, dB, mean over notes
frechet    Fréchet distance of mars.eval.mel_features between the true and the decoded notes
ms         processor time of a note on one thread, median; `against GL-64` is relative to Griffin-Lim 64

`cores` is the wall-clock time of a note on two cores, over --time-notes of the notes without silence, in ms:
one note     one process with two threads, notes one after the other
two workers  two parallel processes with one thread each: half of the time of a note in one process
Each note is timed --rounds times; the value is the mean over notes of each note's minimum.
"""
import argparse, json, math, multiprocessing, os, statistics, time
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from mars.data import AdditiveNotes, SoundFontNotes
from mars.parts.files import write_atomic
from mars.eval import frechet_distance, log_mel_error, mel_features
from mars.pipeline import Mars
from mars.parts.phase import HANN_GAMMA, RESOLUTIONS, heap_integrate, partial_noise, pghi, pre_echo, refine
from mars.parts.phase import stft_distance, wave_from_phases
from mars.parts.vocoder import Vocoder, _has_fast_bfloat16
from mars.stft import LogSpectrogram, griffin_lim, random_phases
from common import print_table

def sample_test_notes(n, additive=False):
    "n notes of test instruments, (n, 64000), and their names."
    if additive: notes = AdditiveNotes(pitches=range(36, 97, 7))
    else:
        notes = SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127), label='key')
        notes = notes.split_by_instrument(valid=0.06, test=0.14, seed=0).test
    rng, rows = np.random.default_rng(0), {}
    for i, note in enumerate(notes.notes): rows.setdefault(note.instrument, []).append(i)
    names = sorted(rows)
    idx = [int(rng.choice(rows[names[i % len(names)]])) for i in range(n)]
    return notes.batch(idx)[0].float()/32768, [notes.notes[i].note_str for i in idx]

# gamma/n^2: as wide as Hann (it ends at 5 % of its peak), and one that ends at 0.04 %
GAUSS = {'wide': HANN_GAMMA, 'narrow': .1}

def gaussian(ls, name):
    "The Gaussian window in a method's name, or None."
    for key, gamma in GAUSS.items():
        if f'{key} Gauss' in name:
            return torch.exp(-math.pi*(torch.arange(ls.n_fft) - ls.n_fft/2).square()/(gamma*ls.n_fft**2))

# A method is a function of (magnitude (1, 513, 256), index of the note) that returns a wave (1, N).

def decode(ls, n, phases, momentum=.99, window=None):
    "Method: fast Griffin-Lim from phases(magnitude, index), None for phase zero."
    window = ls.window() if window is None else window
    return lambda m, i: griffin_lim(m, window, ls.n_fft, ls.hop_length, n, momentum, phases(m, i))

def random_start(m, i): return random_phases(1, first=i)
def zero_start(m, i): return None
def pghi_start(m, i): return pghi(m, first=i)

def griffin_lim_methods(ls):
    "Fast and plain Griffin-Lim, from random and from zero phases."
    methods = {}
    for n in (16, 32, 64, 128, 256):
        for momentum, no_momentum in ((.99, ''), (0., ', no momentum')):
            methods[f'Griffin-Lim {n}{no_momentum}'] = decode(ls, n, random_start, momentum)
            methods[f'Griffin-Lim {n}{no_momentum}, zero start'] = decode(ls, n, zero_start, momentum)
    for n in (64, 128):
        def refined(m, i, n=n): return refine(m, random_start(m, i), ls.window(), ls.hop_length, n)
        methods[f'refine {n}, random start'] = refined
    return methods

def pghi_methods(ls):
    "PGHI with and without refinement, and by heap integration."
    methods = {}
    for n in (0, 16, 32, 48, 64, 128):
        methods[f'PGHI + {n}' if n else 'PGHI'] = lambda m, i, n=n: wave_from_phases(ls, m, pghi_start, n, i)
    for n in (32, 64, 128): methods[f'PGHI + {n}, fast Griffin-Lim'] = decode(ls, n, pghi_start)
    methods['PGHI, heap'] = decode(ls, 0, lambda m, i: pghi(m, first=i, method=heap_integrate))
    return methods

def window_methods(ls):
    "PGHI and Griffin-Lim with each Gaussian window."
    methods = {}
    for key, relative_gamma in GAUSS.items():
        window, gamma = gaussian(ls, f'{key} Gauss'), relative_gamma*ls.n_fft**2
        def start(m, i, gamma=gamma): return pghi(m, gamma=gamma, first=i)
        methods[f'PGHI, {key} Gauss'] = decode(ls, 0, start, window=window)
        methods[f'PGHI + 64, {key} Gauss'] = decode(ls, 64, start, window=window)
        methods[f'Griffin-Lim 128, {key} Gauss'] = decode(ls, 128, random_start, window=window)
    return methods

def vocoder_methods(ls, vocoder, name, counts):
    "A vocoder's phases with each number of refinement steps."
    return {f'{name} + {n}' if n else name: lambda m, i, n=n: vocoder.magnitude_to_wave(ls, m, n, 0, i) for n in counts}

def methods(ls, parts, vocoder, other=None):
    "Name -> method; names that end in 'Gauss' need the magnitudes of that window."
    chosen = {f'Griffin-Lim {n}': decode(ls, n, random_start) for n in (64, 128)}
    if 'griffinlim' in parts: chosen = griffin_lim_methods(ls)
    if 'pghi' in parts: chosen |= pghi_methods(ls)
    if 'window' in parts: chosen |= window_methods(ls)
    if 'vocoder' in parts:
        chosen |= vocoder_methods(ls, vocoder, 'vocoder', (0, 8, 16, 32, 48, 64, 128))
        def start(m, i): return vocoder.estimate_phases(m, 0, i)
        for n in (32, 64): chosen[f'vocoder + {n}, fast Griffin-Lim'] = decode(ls, n, start)
    if other: chosen |= vocoder_methods(ls, other, 'other', (0, 32, 48))
    return chosen

def magnitudes(ls, waves, window, model=None):
    "Magnitudes of the encoded notes; those of another window are not encoded."
    if model: return ls.magnitude(model.tokens_to_spec(model.encode(waves)))[:, 0]
    if window is None: return ls.magnitude(ls.encode(waves))[:, 0]
    padded = F.pad(waves, (0, ls.n_padded-ls.n_samples))
    S = torch.stft(padded, ls.n_fft, ls.hop_length, window=window, return_complex=True)
    S[:, -1] = 0
    return S.abs()

def nan_mean(x):
    "Mean without NaN; None if all are NaN."
    return float(x[~x.isnan()].mean()) if (~x.isnan()).any() else None

def row(name, true, decoded, ms):
    "The metrics of a method; `each` is the distance of each note, removed by `measure`."
    d = stft_distance(true, decoded)
    return {'method': name, 'stft': float(d.total.mean()), 'convergence': float(d.convergence.mean()),
            'log magnitude': float(d.log_magnitude.mean()), 'mel dB': log_mel_error(true, decoded).mae_db,
            'pre-echo': nan_mean(pre_echo(true, decoded)), 'noise': nan_mean(partial_noise(true, decoded)),
            'frechet': frechet_distance(mel_features(true), mel_features(decoded)), 'ms': ms, 'each': d.total}

def run_method(ls, f, M):
    "Decode each note; return the waves and the median processor time in ms."
    waves, times = [], []
    for i in range(len(M)):
        start = time.process_time()
        waves.append(f(M[i:i+1], i)[:, :ls.n_samples])
        times.append(1000*(time.process_time()-start))
    return torch.cat(waves), statistics.median(times)

def measure(ls, waves, chosen, model=None, base=None):
    "A row for each method, and for the true notes and the true phases."
    M, phases = magnitudes(ls, waves, None), ls.stft(waves)[:, 0].angle()
    angles = torch.polar(torch.ones_like(phases), phases)
    oracle = griffin_lim(M, ls.window(), n_iter=0, angles=angles)[:, :ls.n_samples]
    rows = [row('true note', waves, waves, None), row('true phase', waves, oracle, None)]
    for name, f in chosen.items():
        rows.append(row(name, waves, *run_method(ls, f, magnitudes(ls, waves, gaussian(ls, name), model))))
    by_name = {r['method']: r for r in rows}
    if 'Griffin-Lim 64' in by_name: base = by_name['Griffin-Lim 64']['ms']
    reference = by_name['Griffin-Lim 128']['each'] if 'Griffin-Lim 128' in by_name else None
    for r in rows:
        r['against GL-64'], each = r['ms'] and base and r['ms']/base, r.pop('each')
        if reference is not None: r |= ratio(each, reference)
    return rows

def ratio(each, reference, n_resamples=2000):
    "stft relative to Griffin-Lim 128: ratio of the means, its 95 % bootstrap interval over notes, and the median note."
    idx = torch.randint(len(each), (n_resamples, len(each)), generator=torch.Generator().manual_seed(0))
    low, high = (each[idx].mean(1)/reference[idx].mean(1)).quantile(torch.tensor([.025, .975])).tolist()
    return {'stft / GL-128': float(each.mean()/reference.mean()), 'low': low, 'high': high,
            'median note': float((each/reference).median())}

@torch.no_grad()
def minimum_times(M, f, rounds):
    "Minimum wall-clock time of each note, ms."
    times = torch.full((len(M),), math.inf)
    f(M[:1], 0)
    for _ in range(rounds):
        for i in range(len(M)):
            start = time.perf_counter()
            f(M[i:i+1], i)
            times[i] = min(times[i], 1000*(time.perf_counter()-start))
    return times

def worker(args, name, M, barrier, queue):
    "One of two parallel processes."
    torch.set_num_threads(1)
    f, M = open_methods(args)[name], torch.from_numpy(M)
    f(M[:1], 0)
    barrier.wait()
    queue.put(minimum_times(M, f, args.rounds).tolist())  # a list: a tensor would be lost with the worker's memory

def open_methods(args):
    "The methods of a run."
    return methods(LogSpectrogram(), args.parts, *open_vocoders(args))

TIMED = ('Griffin-Lim 64', 'Griffin-Lim 128', 'PGHI + 32', 'PGHI + 64', 'PGHI + 128', 'vocoder', 'vocoder + 32',
         'vocoder + 48', 'vocoder + 64')

def cores(args, M):
    "Wall-clock times of a note on two cores."
    rows, context = [], multiprocessing.get_context('spawn')
    for name, f in open_methods(args).items():
        if name not in args.cores: continue
        torch.set_num_threads(2)
        one = minimum_times(M, f, args.rounds)
        torch.set_num_threads(1)
        barrier, queue = context.Barrier(2), context.Queue()
        workers = [context.Process(target=worker, args=(args, name, M.numpy(), barrier, queue)) for _ in range(2)]
        for w in workers: w.start()
        two = torch.tensor([queue.get(timeout=600) for _ in workers]).mean(0)/2
        for w in workers: w.join()
        rows.append({'method': name, 'one note': float(one.mean()), 'slowest': float(one.max()),
                     'two workers': float(two.mean())})
    return rows

MAIN_METHODS = {'Griffin-Lim 64', 'Griffin-Lim 128', 'PGHI', 'PGHI + 32', 'PGHI + 64', 'vocoder', 'vocoder + 32',
                'vocoder + 48', 'vocoder + 64', 'vocoder + 64, fast Griffin-Lim', 'other', 'other + 32', 'other + 48'}

def merge(old, result):
    "Add the rows of an earlier result that this run does not measure."
    reference = {'Griffin-Lim 64', 'Griffin-Lim 128', 'true note', 'true phase'}
    for part in set(old) - {'info'}:
        if part not in result:
            result[part] = old[part]
            continue
        new = {r['method'] for r in result[part]} - reference
        rows = [r for r in old[part] if r['method'] not in new]
        names = {r['method'] for r in rows}
        result[part] = rows + [r for r in result[part] if r['method'] not in names]
    for key in ('model', 'vocoder', 'other', 'cores'):
        result['info'][key] = result['info'].get(key) or old['info'].get(key)

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ['griffinlim', 'pghi', 'window', 'vocoder', 'cores']
    ap.add_argument('--parts', nargs='+', default=parts, choices=parts, help='method groups, and `cores`; default: all')
    ap.add_argument('--notes', type=int, default=32, help='notes of the test, at least 2; default: %(default)s')
    ap.add_argument('--vocoder', default='vocoder', help="folder of a trained vocoder; default: the package's own")
    ap.add_argument('--methods', nargs='+', metavar='NAME', help='names of rows; default: all')
    ap.add_argument('--cores', nargs='+', metavar='NAME', default=TIMED, help='rows that are timed on two cores')
    ap.add_argument('--other', help='folder of a second vocoder, measured in its own rows')
    ap.add_argument('--time-notes', type=int, default=12, help='notes timed on two cores; default: %(default)s')
    ap.add_argument('--rounds', type=int, default=5, help='timings of each of these notes, >= 1; default: %(default)s')
    ap.add_argument('--additive', action='store_true', help='notes of the additive synthesiser, without a SoundFont')
    ap.add_argument('--model', help='folder of a model whose tokenizer reconstructs the spectrograms of `model`')
    ap.add_argument('--out', type=Path, help='a JSON file for all rows')
    ap.add_argument('--add', action='store_true', help='keep the rows of --out that this run does not measure')
    return ap

def open_vocoders(args):
    "The vocoder and the second one; None for those that are not measured."
    vocoder = Vocoder.from_pretrained(args.vocoder) if 'vocoder' in args.parts else None
    return vocoder, Vocoder.from_pretrained(args.other) if args.other else None

def describe(names, vocoder, other):
    "The notes, versions and vocoders behind a result."
    info = dict(notes=names, torch=torch.__version__, threads=1, resolutions=RESOLUTIONS, vocoder=None,
                other=other and other.info)
    if vocoder: info['vocoder'] = dict(parameters=sum(p.numel() for p in vocoder.parameters()), info=vocoder.info)
    return info

def measure_parts(args, waves, chosen, info):
    "Rows of `delayed`, `plain`, `model` and `cores`; adds the model and the timing to `info`."
    ls, main_methods = LogSpectrogram(), {name: f for name, f in chosen.items() if name in MAIN_METHODS}
    result = dict(info=info, delayed=measure(ls, F.pad(waves, (4000, 0))[:, :64000], chosen))
    base = next((r['ms'] for r in result['delayed'] if r['method'] == 'Griffin-Lim 64'), None)
    result['plain'] = measure(ls, waves, main_methods, base=base)
    if args.model:
        model = Mars.from_pretrained(args.model)
        result['model'], info['model'] = measure(ls, waves, main_methods, model, base), repr(model)
    if 'cores' in args.parts:
        result['cores'] = cores(args, magnitudes(ls, waves[:args.time_notes], None))
        info['cores'] = dict(notes=min(args.time_notes, len(waves)), rounds=args.rounds,
                             bfloat16=_has_fast_bfloat16(), load=os.getloadavg()[0])
    return result

@torch.no_grad()
def main(argv=None):
    ap = parser()
    args = ap.parse_args(argv)
    if args.notes < 2: ap.error(f'--notes must be at least 2, got {args.notes}')
    torch.set_num_threads(1)
    waves, names = sample_test_notes(args.notes, args.additive)
    vocoder, other = open_vocoders(args)
    chosen = methods(LogSpectrogram(), args.parts, vocoder, other)
    if args.methods: chosen = {name: f for name, f in chosen.items() if name in args.methods}
    result = measure_parts(args, waves, chosen, describe(names, vocoder, other))
    if args.add and args.out and args.out.exists():
        old = json.loads(args.out.read_text())
        if old['info']['notes'] != names: ap.error(f'--add needs a file of the same notes, and {args.out} has others')
        merge(old, result)
    for part in ('delayed', 'plain', 'model', 'cores'):
        if part in result: print_table(part, result[part])
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
