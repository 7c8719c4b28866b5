"""Measure cost and quality of phase reconstruction methods:  python benchmarks/phase.py [--parts griffinlim pghi window vocoder cores] [--notes 32] [--vocoder FOLDER] [--out results/benchmarks/phase.json]

Notes of instruments that no training saw (FluidR3, the test side of the split by instrument), spread over instruments, pitches
and velocities, are turned into spectrograms and back. They begin after 0.25 s of silence, so that there is room for a pre-echo;
`plain` repeats the main rows with the note at once, as notes are stored; with --model, `model` repeats them from the spectrograms that
the tokenizer of that model makes of these notes, against the true notes. `true phase` has the true phases and the magnitudes of the
spectrogram: what no method can fall below but by chance. Griffin-Lim is the fast one, momentum 0.99, unless a row says otherwise;
what follows PGHI and the vocoder is mars.parts.phase.refine unless a row says `fast Griffin-Lim`.

stft       multi-resolution STFT distance: convergence + log magnitude, means over the resolutions of mars.parts.phase.RESOLUTIONS
mel dB     mean absolute difference of log-mel spectrograms (mars.eval.log_mel_error)
pre-echo   power in the 64 ms before the attack against that of the true note after it, dB, mean over notes
stft / GL-128  that over the same of Griffin-Lim 128, with `low` and `high`, between which it lies in 95 % of the draws of notes
               with replacement, and `median note`, the middle one of the notes' own ratios
noise      power between the partials, per cell of a 4096-point STFT, dB, mean over notes
frechet    Frechet distance of mars.eval.mel_features between the true notes and the same notes rebuilt
ms         processor time of a note on one thread, median; against GL-64: the ratio to 64 iterations of Griffin-Lim

`cores` is the time of a note on two cores, by the clock, over --time-notes of the notes as they are stored, in ms:
one note     one process with two threads, notes one after the other
two workers  two processes with one thread each, at work on the same notes at the same time: half of the time that a note takes in one
Each note is timed --rounds times and its least time counts, since other work on the machine can only add to it; the mean over notes is given.
"""
import argparse, json, math, multiprocessing, os, statistics, time
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from mars.data import AdditiveNotes, SoundFontNotes
from mars.parts.files import write_whole
from mars.eval import frechet_distance, log_mel_error, mel_features
from mars.pipeline import Mars
from mars.parts.phase import HANN_GAMMA, RESOLUTIONS, wave_from_phases, heap_integrate, partial_noise, pghi, pre_echo, refine
from mars.parts.phase import stft_distance
from mars.parts.vocoder import Vocoder, _has_fast_bfloat16
from mars.stft import LogSpectrogram, griffin_lim, random_phases
from common import print_table

def unseen(n, additive=False):
    "n notes of unseen instruments, (n, 64000), and what they are."
    notes = AdditiveNotes(pitches=range(36, 97, 7)) if additive else SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127))
    test = notes.split_by_instrument(valid=0.06, test=0.14, seed=0)[2] if not additive else notes
    rng, rows = np.random.default_rng(0), {}
    for i, note in enumerate(test.notes): rows.setdefault(note.instrument, []).append(i)
    names = sorted(rows)
    idx = [int(rng.choice(rows[names[i % len(names)]])) for i in range(n)]
    return test.batch(idx)[0].float()/32768, [test.notes[i].note_str for i in idx]

GAUSS = {'wide': HANN_GAMMA, 'narrow': .1}  # gamma/n^2: as wide as Hann (it ends at 5 % of its peak), and one that ends at 0.04 %

def gaussian(ls, name):
    "The Gaussian window that a method's name asks for, or None."
    share = next((g for key, g in GAUSS.items() if f'{key} Gauss' in name), None)
    return share and torch.exp(-math.pi*(torch.arange(ls.n_fft) - ls.n_fft/2).square()/(share*ls.n_fft**2))

def methods(ls, parts, vocoder, other=None):
    "name -> f(magnitude (1, 513, 256), index of the note) -> wave (1, N); names that end in 'Gauss' want the magnitudes of that window."
    window, out = ls.window(), {}
    find = lambda m, n, angles, momentum=.99, window=window: griffin_lim(m, window, ls.n_fft, ls.hop_length, n, momentum, angles)
    if 'griffinlim' in parts:
        for n in (16, 32, 64, 128, 256):
            for momentum in (.99, 0.):
                for start in ('random', 'zero'):
                    angles = lambda i, start=start: random_phases(1, first=i) if start == 'random' else None
                    name = f'Griffin-Lim {n}' + (', no momentum' if momentum == 0 else '') + (', zero start' if start == 'zero' else '')
                    out[name] = lambda m, i, n=n, momentum=momentum, angles=angles: find(m, n, angles(i), momentum)
        for n in (64, 128): out[f'refine {n}, random start'] = lambda m, i, n=n: refine(m, random_phases(1, first=i), window, ls.hop_length, n)
    else:
        for n in (64, 128): out[f'Griffin-Lim {n}'] = lambda m, i, n=n: find(m, n, random_phases(1, first=i))
    if 'pghi' in parts:
        for n in (0, 16, 32, 48, 64, 128): out[f'PGHI + {n}' if n else 'PGHI'] = lambda m, i, n=n: wave_from_phases(ls, m, lambda x, j: pghi(x, first=j), n, i)
        for n in (32, 64, 128): out[f'PGHI + {n}, fast Griffin-Lim'] = lambda m, i, n=n: find(m, n, pghi(m, first=i))
        out['PGHI, heap'] = lambda m, i: find(m, 0, pghi(m, first=i, method=heap_integrate))
    if 'window' in parts:
        for key, share in GAUSS.items():
            w, gamma = gaussian(ls, f'{key} Gauss'), share*ls.n_fft**2
            for n in (0, 64): out[f'PGHI + {n}, {key} Gauss' if n else f'PGHI, {key} Gauss'] = lambda m, i, n=n, w=w, gamma=gamma: find(m, n, pghi(m, gamma=gamma, first=i), window=w)
            out[f'Griffin-Lim 128, {key} Gauss'] = lambda m, i, w=w: find(m, 128, random_phases(1, first=i), window=w)
    if 'vocoder' in parts:
        for n in (0, 8, 16, 32, 48, 64, 128): out[f'vocoder + {n}' if n else 'vocoder'] = lambda m, i, n=n: vocoder.magnitude_to_wave(ls, m, n, 0, i)
        for n in (32, 64): out[f'vocoder + {n}, fast Griffin-Lim'] = lambda m, i, n=n: find(m, n, vocoder.estimate_phases(m, 0, i))
    if other:
        for n in (0, 32, 48): out[f'other + {n}' if n else 'other'] = lambda m, i, n=n: other.magnitude_to_wave(ls, m, n, 0, i)
    return out

def magnitudes(ls, waves, window, model=None):
    "Through the spectrogram, or as they are where the window is another."
    if model: return ls.magnitude(model.tokens_to_spec(model.encode(waves)))[:, 0]
    if window is None: return ls.magnitude(ls.encode(waves))[:, 0]
    S = torch.stft(F.pad(waves, (0, ls.n_padded-ls.n_samples)), ls.n_fft, ls.hop_length, window=window, return_complex=True)
    S[:, -1] = 0
    return S.abs()

def row(name, true, made, ms):
    d, quiet = stft_distance(true, made), lambda x: float(x[~x.isnan()].mean()) if (~x.isnan()).any() else None
    return {'method': name, 'stft': float(d.total.mean()), 'convergence': float(d.convergence.mean()), 'log magnitude': float(d.log_magnitude.mean()),
            'mel dB': log_mel_error(true, made).mae_db, 'pre-echo': quiet(pre_echo(true, made)), 'noise': quiet(partial_noise(true, made)),
            'frechet': frechet_distance(mel_features(true), mel_features(made)), 'ms': ms, 'each': d.total}

def measure(ls, waves, chosen, model=None, base=None):
    M, phases = magnitudes(ls, waves, None), ls.stft(waves)[:, 0].angle()
    oracle = griffin_lim(M, ls.window(), n_iter=0, angles=torch.polar(torch.ones_like(phases), phases))[:, :ls.n_samples]
    rows = [row('true note', waves, waves, None), row('true phase', waves, oracle, None)]
    for name, f in chosen.items():
        M, made, took = magnitudes(ls, waves, gaussian(ls, name), model), [], []
        for i in range(len(M)):
            start = time.process_time()
            made.append(f(M[i:i+1], i)[:, :ls.n_samples])
            took.append(1000*(time.process_time()-start))
        rows.append(row(name, waves, torch.cat(made), statistics.median(took)))
    base = next((r['ms'] for r in rows if r['method'] == 'Griffin-Lim 64'), base)
    long = next((r['each'] for r in rows if r['method'] == 'Griffin-Lim 128'), None)
    for r in rows:
        r['against GL-64'], each = r['ms'] and base and r['ms']/base, r.pop('each')
        if long is not None: r |= ratio(each, long)
    return rows

def ratio(each, long, draws=2000):
    "stft over that of Griffin-Lim 128: the ratio of the means, where it lies in 95 % of the draws of notes, and the note in the middle."
    pick = torch.randint(len(each), (draws, len(each)), generator=torch.Generator().manual_seed(0))
    low, high = (each[pick].mean(1)/long[pick].mean(1)).quantile(torch.tensor([.025, .975])).tolist()
    return {'stft / GL-128': float(each.mean()/long.mean()), 'low': low, 'high': high, 'median note': float((each/long).median())}

@torch.no_grad()
def least(M, f, rounds):
    "The least time of each note, ms."
    took = torch.full((len(M),), math.inf)
    f(M[:1], 0)
    for _ in range(rounds):
        for i in range(len(M)):
            start = time.perf_counter()
            f(M[i:i+1], i)
            took[i] = min(took[i], 1000*(time.perf_counter()-start))
    return took

def work(args, name, M, ready, answers):
    "One of the two workers."
    torch.set_num_threads(1)
    f, M = pick(args)[name], torch.from_numpy(M)
    f(M[:1], 0)
    ready.wait()
    answers.put(least(M, f, args.rounds).tolist())  # a list: a tensor would be lost with the worker's memory

def pick(args):
    "The methods of a run."
    vocoder, other = (Vocoder.from_pretrained(v) if v else None for v in (args.vocoder if 'vocoder' in args.parts else None, args.other))
    return methods(LogSpectrogram(), args.parts, vocoder, other)

TIMED = 'Griffin-Lim 64', 'Griffin-Lim 128', 'PGHI + 32', 'PGHI + 64', 'PGHI + 128', 'vocoder', 'vocoder + 32', 'vocoder + 48', 'vocoder + 64'

def cores(args, M):
    "Times of a note on two cores."
    rows, context = [], multiprocessing.get_context('spawn')
    for name, f in ((k, f) for k, f in pick(args).items() if k in args.cores):
        torch.set_num_threads(2)
        one = least(M, f, args.rounds)
        torch.set_num_threads(1)
        ready, answers = context.Barrier(2), context.Queue()
        workers = [context.Process(target=work, args=(args, name, M.numpy(), ready, answers)) for _ in range(2)]
        for w in workers: w.start()
        two = torch.tensor([answers.get(timeout=600) for _ in workers]).mean(0)/2
        for w in workers: w.join()
        rows.append({'method': name, 'one note': float(one.mean()), 'slowest': float(one.max()), 'two workers': float(two.mean())})
    return rows

@torch.no_grad()
def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ['griffinlim', 'pghi', 'window', 'vocoder', 'cores']
    ap.add_argument('--parts', nargs='+', default=parts, choices=parts)
    ap.add_argument('--notes', type=int, default=32)
    ap.add_argument('--vocoder', default='vocoder', help='folder of a trained vocoder; the package\'s own if not given')
    ap.add_argument('--methods', nargs='+', help='only the rows of these names')
    ap.add_argument('--cores', nargs='+', default=TIMED, help='the methods that are timed on two cores')
    ap.add_argument('--other', help='folder of another vocoder, for rows of its own')
    ap.add_argument('--time-notes', type=int, default=12, help='notes that are timed on two cores')
    ap.add_argument('--rounds', type=int, default=5, help='times that each of them is timed')
    ap.add_argument('--additive', action='store_true', help='notes of the additive synthesiser, where there is no SoundFont')
    ap.add_argument('--model', help='folder of a model whose tokenizer makes the spectrograms of `model`')
    ap.add_argument('--out', type=Path, help='a JSON file for all rows')
    ap.add_argument('--add', action='store_true', help='keep the rows of that file which this run does not measure')
    args = ap.parse_args(argv)
    if args.notes < 2: ap.error('--notes must be at least 2')
    torch.set_num_threads(1)
    ls, (waves, names) = LogSpectrogram(), unseen(args.notes, args.additive)
    vocoder = Vocoder.from_pretrained(args.vocoder) if 'vocoder' in args.parts else None
    other = Vocoder.from_pretrained(args.other) if args.other else None
    chosen = {k: f for k, f in methods(ls, args.parts, vocoder, other).items() if not args.methods or k in args.methods}
    main_ones = {'Griffin-Lim 64', 'Griffin-Lim 128', 'PGHI', 'PGHI + 32', 'PGHI + 64', 'vocoder', 'vocoder + 32', 'vocoder + 48', 'vocoder + 64',
                 'vocoder + 64, fast Griffin-Lim', 'other', 'other + 32', 'other + 48'}
    short = {k: f for k, f in chosen.items() if k in main_ones}
    result = dict(about=dict(notes=names, torch=torch.__version__, threads=1, resolutions=RESOLUTIONS,
                             vocoder=vocoder and dict(parameters=sum(p.numel() for p in vocoder.parameters()), info=vocoder.info), other=other and other.info),
                  delayed=measure(ls, F.pad(waves, (4000, 0))[:, :64000], chosen))
    base = next((r['ms'] for r in result['delayed'] if r['method'] == 'Griffin-Lim 64'), None)
    result['plain'] = measure(ls, waves, short, base=base)
    if args.model:
        model = Mars.from_pretrained(args.model)
        result['model'], result['about']['model'] = measure(ls, waves, short, model, base), repr(model)
    if 'cores' in args.parts:
        result['cores'] = cores(args, magnitudes(ls, waves[:args.time_notes], None))
        result['about']['cores'] = dict(notes=min(args.time_notes, len(waves)), rounds=args.rounds, bfloat16=_has_fast_bfloat16(), load=os.getloadavg()[0])
    if args.add and args.out and args.out.exists():
        old = json.loads(args.out.read_text())
        if old['about']['notes'] != names: ap.error('--add needs a file of the same notes')
        for part in set(old) - {'about'}:
            if part not in result: result[part] = old[part]; continue
            new = {r['method'] for r in result[part]} - {'Griffin-Lim 64', 'Griffin-Lim 128', 'true note', 'true phase'}
            kept = [r for r in old[part] if r['method'] not in new]
            result[part] = kept + [r for r in result[part] if r['method'] not in {k['method'] for k in kept}]
        result['about']['model'] = result['about'].get('model') or old['about'].get('model')
        for key in ('vocoder', 'other', 'cores'): result['about'][key] = result['about'].get(key) or old['about'].get(key)
    for part in ('delayed', 'plain', 'model', 'cores'):
        if part in result: print_table(part, result[part])
    if args.out: write_whole(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
