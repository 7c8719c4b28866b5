"""Compare patches and token maps of equal bits:  python benchmarks/patch_shape.py --work FOLDER --out FILE.json

Trains a tokenizer at `tiny` with each shape of `SHAPES`, for equal steps on the same rendered notes, and measures it on
notes of unseen instruments. All shapes have eight maps of 255 tokens together and 128 tokens in the last map, so a note
takes the same number of bits; they divide the plane of frequency and time differently. Reported with 95 % intervals
over notes, and as paired differences from `128 x 1`:

- error: root mean square in dB on active frames
- attack: error of the rise time, from 20 to 3 dB below the maximum of the first second, in ms
- release: mean absolute error of the level in the 0.5 s after 3 s, when the key is released, in dB
- vibrato: error of the depth of frequency modulation of 3 to 9 Hz, in cents, on notes of at least 5 cents
- tremolo: error of the depth of modulation of the level at these frequencies, in dB

--work keeps one file for each shape and seed: the same command continues where it stopped. --out is committed as
results/benchmarks/patch-shape.json.
"""
import argparse, json
from pathlib import Path
import numpy as np
import torch
from mars.data import default_notes
from mars.evaluation.report import make_splits
from mars.parts.device import pick_device
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.stft import active_frames
from mars.tokenizer import TokenizerConfig
from mars.train import TrainConfig, train_tokenizer
from mars.training.log import RunLog, versions
from mars.training.tokens import spread

COARSE = tuple((2**k, 1) for k in range(6))
SHAPES = { # differences of the configuration from `tiny`
    '128 x 1': dict(patch=(2, 256), scales=(*COARSE, (64, 1), (128, 1))),
    '64 x 2': dict(patch=(4, 128), scales=(*COARSE, (64, 1), (64, 2))),
    '32 x 4': dict(patch=(8, 64), scales=(*COARSE, (32, 2), (32, 4))),
    '16 x 8': dict(patch=(16, 32), scales=(*COARSE[:5], (16, 2), (16, 4), (16, 8)))}
FRAME = 0.016 # s
DB = 100. # range of a spectrogram's values from -1 to 1
BAND = 3., 9. # Hz of vibrato

# ---- details of a note

def level(magnitude): # (B, F, T) -> (B, T) dB
    return 10*np.log10(np.maximum((magnitude**2).sum(1), 1e-12))

def rise_time(x): # (B, T) dB -> (B,) ms
    "Time from 20 to 3 dB below the maximum of the first second."
    first = x[:, :round(1/FRAME)]
    top = first.max(1)
    def crossing(row, threshold): # in frames, interpolated
        i = int(np.argmax(row >= threshold))
        return i - (row[i] - threshold)/(row[i] - row[i-1]) if i else 0.
    return 1000*FRAME*np.array([crossing(r, t - 3) - crossing(r, t - 20) for r, t in zip(first, top)])

def depth(x): # (B, T) -> (B,) amplitude of the modulation from 0.5 to 2.5 s
    "Amplitude of the strongest sine in the band of vibrato."
    x = x[:, round(.5/FRAME):round(2.5/FRAME)]
    x = x - np.stack([np.polyval(np.polyfit(np.arange(x.shape[1]), row, 2), np.arange(x.shape[1])) for row in x])
    window = np.hanning(x.shape[1])
    f = np.fft.rfftfreq(x.shape[1], FRAME)
    spectrum = 2*np.abs(np.fft.rfft(x*window))/window.sum()
    return spectrum[:, (f >= BAND[0]) & (f <= BAND[1])].max(1)

def frequency_track(magnitude, pitch, bin_hz): # (B, F, T), (B,) MIDI -> (B, T) cents
    "Centroid of the strongest harmonic between 0.8 and 4 kHz, or of the first above, within a third of its distance."
    tracks = []
    for mag, p in zip(magnitude, pitch):
        hz = 440*2**((p - 69)/12)
        harmonics = [h for h in range(1, 65) if 800 <= h*hz <= 4000] or [1]
        def around(h): return slice(max(1, round((h - 1/3)*hz/bin_hz)), min(len(mag), round((h + 1/3)*hz/bin_hz) + 1))
        best = max(harmonics, key=lambda h: (mag[around(h)]**2).sum())
        rows = around(best)
        power = mag[rows]**2 + 1e-12
        center = (np.arange(rows.start, rows.stop)[:, None]*power).sum(0)/power.sum(0)*bin_hz
        tracks.append(1200*np.log2(center/(best*hz)))
    return np.stack(tracks)

def details(spec, recon, ls, pitch): # (B, 1, F, T) each, (B,) -> dict of (B,)
    "Errors of a reconstruction, note by note; NaN where a note has no vibrato."
    active = active_frames(spec).view(len(spec), 1, 1, -1)
    square = ((spec - recon)*DB/2)**2*active
    a, b = (ls.magnitude(x)[:, 0].numpy() for x in (spec, recon))
    bin_hz = ls.sample_rate/ls.n_fft
    la, lb = level(a), level(b)
    after = slice(round(3/FRAME), round(3.5/FRAME))
    audible = la[:, after] > la.max(1, keepdims=True) - 60
    change = np.abs(la - np.maximum(lb, la.max(1, keepdims=True) - 80))[:, after]
    vibrato = depth(frequency_track(a, pitch, bin_hz)), depth(frequency_track(b, pitch, bin_hz))
    return dict(
        error=(square.sum((1, 2, 3))/(active.sum((1, 2, 3))*spec.shape[2])).sqrt().numpy(),
        attack=np.abs(rise_time(la) - rise_time(lb)),
        release=np.where(audible.any(1), (change*audible).sum(1)/np.maximum(audible.sum(1), 1), np.nan),
        vibrato=np.where(vibrato[0] >= 5, np.abs(vibrato[0] - vibrato[1]), np.nan),
        tremolo=np.abs(depth(la) - depth(lb)))

# ---- training and measurement

@torch.no_grad()
def measure(m, notes):
    "Errors of all notes: name -> list."
    parts = []
    for i in range(0, len(notes), 32):
        waves, labels = notes.batch(range(i, min(i+32, len(notes))))
        spec = m.spectrogram.encode(waves)
        recon = m.cmx.unfold(m.tokenizer.decode(m.tokenizer.encode(m.cmx.fold(spec))))
        parts.append(details(spec, recon, m.spectrogram, labels['pitch'].numpy()))
    return {k: [None if np.isnan(v) else round(float(v), 4) for part in parts for v in part[k]] for k in parts[0]}

def train_shape(shape, notes, seed, args):
    "Train a tokenizer of a shape -> model, learning curve."
    cfg = TokenizerConfig.preset('tiny', **SHAPES[shape], codebook_size=args.codebook_size, resample_tokens=True)
    train = TrainConfig.preset('tiny', steps=args.steps, batch_size=args.batch_size, lr=args.lr, seed=seed, ema=.99)
    log = RunLog()
    tok = train_tokenizer(notes, train, cfg, log=log, device=args.device, progress=False)
    losses = [row['recon'] for row in log.rows if 'recon' in row]
    step = max(1, len(losses)//40)
    return Mars(tok.cpu()), [round(float(np.mean(losses[i:i+step])), 5) for i in range(0, len(losses), step)]

def summarise(runs):
    "Means over notes and seeds, and paired differences from the first shape, with 95 % intervals over notes."
    def rows(shape, key): return np.array([run['notes'][key] for run in runs[shape]], float).mean(0)
    def with_interval(x): # None for fewer than two notes
        return [round(float(v), 4) for v in (x.mean(), 1.96*x.std(ddof=1)/len(x)**.5)] if len(x) > 1 else None
    base, out = next(iter(runs)), {}
    for shape, found in runs.items():
        out[shape] = dict(seeds=len(found), curves=[run['curve'] for run in found])
        for key in found[0]['notes']:
            x, reference = rows(shape, key), rows(base, key)
            keep = ~np.isnan(x) & ~np.isnan(reference)
            out[shape][key] = with_interval(x[keep])
            out[shape][f'{key}, difference'] = with_interval((x - reference)[keep])
    return out

# ---- command

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--shapes', nargs='+', default=[*SHAPES], choices=[*SHAPES], help='default: all')
    ap.add_argument('--seeds', type=int, default=2, help='default: %(default)s')
    ap.add_argument('--steps', type=int, default=1000, help='optimiser steps of each tokenizer; default: %(default)s')
    ap.add_argument('--batch-size', type=int, default=16, help='notes a step; default: %(default)s')
    ap.add_argument('--lr', type=float, default=2e-3, help='peak learning rate; default: %(default)s')
    ap.add_argument('--codebook-size', type=int, default=1024, help='default: %(default)s')
    ap.add_argument('--notes', type=int, default=1000, help='training notes; default: %(default)s')
    ap.add_argument('--measure', type=int, default=256, help='notes of unseen instruments; default: %(default)s')
    ap.add_argument('--device', help='default: the first available of cuda, mps and cpu')
    ap.add_argument('--work', type=Path, required=True, help='folder of the results of each shape and seed')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    return ap

def main(argv=None, notes=None):
    args = parser().parse_args(argv)
    args.device = args.device or pick_device()
    args.work.mkdir(parents=True, exist_ok=True)
    def file(shape, seed): return args.work/f'{shape.replace(" ", "")}-{seed}.json'
    splits = make_splits(notes or default_notes(pitches=range(36, 97)))
    train, test = (x.select(spread(len(x), n)) for x, n in ((splits.train, args.notes), (splits.test, args.measure)))
    for seed in range(args.seeds):
        for shape in args.shapes:
            if file(shape, seed).exists(): continue
            m, curve = train_shape(shape, train, seed, args)
            result = dict(notes=measure(m, test), curve=curve, tokens=m.tokenizer.cfg.n_tokens)
            write_atomic(file(shape, seed), json.dumps(result))
            scores = {k: np.mean([x for x in v if x is not None] or [np.nan]) for k, v in result['notes'].items()}
            print(shape, seed, *(f'{k} {v:.2f}' for k, v in scores.items()), flush=True)
    runs = {shape: [json.loads(file(shape, seed).read_text()) for seed in range(args.seeds)] for shape in args.shapes}
    settings = {k: getattr(args, k) for k in ('seeds', 'steps', 'batch_size', 'lr', 'codebook_size')}
    result = dict(info=versions(args.device), settings=settings, notes=dict(train=len(train), test=len(test)),
                  shapes=summarise(runs))
    write_atomic(args.out, json.dumps(result, indent=1))
    return result

if __name__ == '__main__': main()
