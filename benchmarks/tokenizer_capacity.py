"""Measure a tokenizer on unseen instruments at equal bits:  python benchmarks/tokenizer_capacity.py --preset tiny --minutes 6 --out results/benchmarks/tokenizer-capacity-tiny.json

With --model it measures a trained one instead: --model small --out results/benchmarks/tokenizer-trained-small.json.

Trains for --minutes (or --steps) on notes of one set of instruments and measures on notes of others:
the mean spectrogram of the same pitch, of the same family, k-means vector quantization of raw patches at no more
bits a note, and the tokenizer. With it: how much frames of one note differ that share no sample (the noise floor, which no code of so few bits can represent), the learning curve, code usage on all unseen notes, and the distance of
whole reconstructions (with Griffin-Lim) beside Griffin-Lim on the true magnitudes.
"""
import argparse, json, math, time
import numpy as np, torch
from sklearn.cluster import MiniBatchKMeans
from mars.ablations import run_info
from mars.cmx import CMX
from mars.data import AdditiveNotes, SoundFontNotes
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.parts.codebook import code_usage
from mars.evaluation.report import make_splits
from mars.stft import LogSpectrogram, active_frames, log_spectral_distance
from mars.tokenizer import STRIPS, TokenizerConfig, patchify, unpatchify
from mars.train import TrainConfig, train_tokenizer
from mars.training.log import RunLog
from mars.training.tokens import Images, tokenize

def spectra(notes, ls):
    "All spectrograms of a set (N, 1, F, T), in half precision."
    images = Images(notes, lambda waves: CMX(1, 1).fold(ls.encode(waves)), max_cached=0)
    return torch.cat([images(range(i, min(i+64, len(notes))))[0].half() for i in range(0, len(notes), 64)])

def errors(spec, guess, ls):
    "MSE, relative MSE, RMS in dB on active frames; `guess` maps indices to spectrograms."
    sums = torch.zeros(6, dtype=torch.double)
    for i in range(0, len(spec), 64):
        idx = torch.arange(i, min(i+64, len(spec)))
        x = spec[idx].float()
        err, on = (x - guess(idx)).double().pow(2), active_frames(x, floor=ls.floor).view(len(x), 1, 1, -1).expand_as(x)
        sums += torch.stack([err.sum(), torch.tensor(err.numel()), err[on].sum(), on.sum(), x.double().sum(), x.double().pow(2).sum()])
    mse, active, mean = sums[0]/sums[1], sums[2]/sums[3], sums[4]/sums[1]
    return dict(mse=mse.item(), relative_mse=(mse/(sums[5]/sums[1] - mean**2)).item(), db_active=active.sqrt().item()*-10*math.log10(ls.floor))

def class_mean(train, train_notes, test_notes, key):
    "Guess every note by the mean of the training notes with the same label."
    means, rest = {}, train.float().mean(0)
    for name, rows in train_notes.labels.reset_index(drop=True).groupby(key): means[name] = train[rows.index.tolist()].float().mean(0)
    labels = test_notes.labels[key].tolist()
    return lambda idx: torch.stack([means.get(labels[i], rest) for i in idx])

def kmeans(train, patch, V, cmx, seed=0):
    "Guess every patch of the folded image by the nearest of V centres."
    g = torch.Generator().manual_seed(seed)
    some = cmx.fold(train[torch.randperm(len(train), generator=g)[:min(len(train), 600)]].float())
    x = patchify(some, patch).flatten(0, 1)
    x = x[torch.randperm(len(x), generator=g)[:max(20*V, 20000)]]
    centres = torch.from_numpy(MiniBatchKMeans(V, batch_size=2048, n_init=1, max_iter=8, max_no_improvement=5, random_state=seed).fit(x.numpy()).cluster_centers_).float()
    bias = -0.5*centres.pow(2).sum(-1)
    def guess(spec):
        image = cmx.fold(spec.float())
        p = patchify(image, patch)
        return cmx.unfold(unpatchify(centres[(p @ centres.T + bias).argmax(-1)], image.shape[1:], patch))
    return guess

def kmeans_shapes(bits, image_shape, most=4096, shapes=((16, 16), (16, 32), (8, 64), (8, 128), (4, 256), (2, 256), (1, 256), (4, 128), (2, 128), (4, 64), (32, 32), (8, 32), (16, 8))):
    "Patch shapes, and codebook sizes with which a note's patches fit into so many bits."
    _, H, W = image_shape
    for ph, pw in shapes:
        n = (H//ph)*(W//pw)
        V = min(most if ph*pw < 1024 else most//4, 2**(bits//n)) # large patches are too few for more centres
        if V >= 2: yield (ph, pw), V

def waves_beside_oracle(m, notes, idx, n_iter=64):
    "Mean log-spectral distance in dB, all and active frames, of Griffin-Lim on true and on decoded magnitudes."
    ls, (waves, _) = m.spectrogram, notes.batch(idx)
    spec = ls.encode(waves)
    on = active_frames(spec, floor=ls.floor)
    made = dict(oracle=ls.decode(spec, n_iter=n_iter), tokenizer=m.reconstruct(waves.float()/32768 if not waves.is_floating_point() else waves))
    return {k: dict(all=float(log_spectral_distance(spec, ls.encode(w), None, ls.floor).mean()), active=float(log_spectral_distance(spec, ls.encode(w), on, ls.floor).mean())) for k, w in made.items()}

def frame_noise(spec, lags=(4, 6, 8)):
    "Half the mean squared difference of frames so many hops apart, and a straight line through these at no distance: the noise floor of a smooth image."
    half = lambda k: sum(float((x[..., k:].float() - x[..., :-k].float()).pow(2).mean())*len(x) for x in spec.split(64))/len(spec)/2
    seen = [half(k) for k in lags] # windows of 1024 samples that are 4 hops of 256 apart share no sample
    slope, start = np.polyfit(lags, seen, 1)
    return {**{f'{k} hops': v for k, v in zip(lags, seen)}, 'no distance': float(start)}

def data(quick, trained=False):
    if trained and not quick:
        sides = make_splits(SoundFontNotes(pitches=range(36, 97, 2), velocities=(50, 75, 100), label='key'))
        return sides.train, sides.valid, sides.test
    if quick: notes = AdditiveNotes(None, range(60, 72, 6), (100,))
    else: notes = SoundFontNotes(pitches=range(36, 85, 2), velocities=(50, 75, 100, 127), label='key')
    return notes.split_by_instrument(valid=0., test=0.2 if not quick else 0.34, seed=0)

def steps_for(minutes, train_notes, train, cfg):
    "How many optimiser steps fit, from ten timed ones."
    log = RunLog()
    train_tokenizer(train_notes, TrainConfig.from_dict({**vars(train), 'steps': 12, 'log_every': 1}), cfg, log=log, progress=False)
    return max(50, round(60*minutes/((log.rows[-1]['seconds'] - log.rows[1]['seconds'])/10)))

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', default='tiny')
    ap.add_argument('--model', help='measure a trained one instead: a run folder, or the name of released weights')
    ap.add_argument('--strips', action='store_true', help='patches that are narrow in frequency and long in time')
    ap.add_argument('--config', type=json.loads, default={}, help='more fields of TokenizerConfig as JSON, such as {"patch": [4, 256], "scales": [[1, 1], [8, 1], [64, 1]]}')
    ap.add_argument('--no-kmeans', action='store_true', help='leave out the slowest baseline')
    ap.add_argument('--shapes', help='patches of k-means, such as 2x256,4x256; all of them if not given')
    ap.add_argument('--minutes', type=float, default=5.)
    ap.add_argument('--steps', type=int)
    ap.add_argument('--batch-size', type=int)
    ap.add_argument('--lr', type=float)
    ap.add_argument('--precision', help='fp32 or bf16; bf16 on a GPU and fp32 elsewhere if not given')
    ap.add_argument('--quick', action='store_true', help='a few synthesised notes, for tests')
    ap.add_argument('--out')
    a = ap.parse_args(argv)
    m = Mars.from_pretrained(a.model, 'cpu') if a.model else None
    start, ls, cmx = time.perf_counter(), m.spectrogram if m else LogSpectrogram(), m.cmx if m else CMX.fit()
    train_notes, _, test_notes = data(a.quick, bool(m))
    cfg = m.tokenizer.cfg if m else TokenizerConfig.preset(a.preset, **{**(STRIPS if a.strips else {}), **a.config})
    own = {k: v for k, v in dict(batch_size=a.batch_size, lr=a.lr, steps=a.steps, precision=a.precision).items() if v}
    train = TrainConfig.preset(a.preset, log_every=25, **own)
    spec, seen = spectra(test_notes, ls), spectra(train_notes, ls)
    if not a.steps and not m: train = TrainConfig.from_dict({**vars(train), 'steps': steps_for(a.minutes, train_notes, train, cfg)})
    bits = int(cfg.n_tokens*math.log2(cfg.codebook_size))
    print(f'{len(train_notes)} notes of {len(train_notes.instruments)} instruments to learn from, {len(test_notes)} of {len(test_notes.instruments)} others; '
          f'{a.model if m else f"{train.steps} steps of {train.batch_size}"}; {bits} bits a note', flush=True)
    rows = {f'mean of the {key}': dict(bits=0, **errors(spec, class_mean(seen, train_notes, test_notes, key), ls)) for key in ('pitch', 'family')}
    shapes = dict(shapes=[tuple(map(int, s.split('x'))) for s in a.shapes.split(',')]) if a.shapes else {}
    for patch, V in () if a.no_kmeans else kmeans_shapes(bits, cfg.image_shape, **(dict(most=16, shapes=((16, 32), (4, 256))) if a.quick else shapes)):
        n = cfg.image_shape[1]//patch[0]*(cfg.image_shape[2]//patch[1])
        guess = kmeans(seen, patch, V, cmx)
        rows[f'k-means {patch[0]}x{patch[1]}, {V} codes'] = dict(bits=int(n*math.log2(V)), **errors(spec, lambda idx: guess(spec[idx]), ls))
        print(*list(rows.items())[-1], flush=True)
    del seen
    log, trained = RunLog(), time.perf_counter()
    if not m: m = Mars(train_tokenizer(train_notes, train, cfg, log=log, progress=False), None, cmx, ls)
    trained = time.perf_counter() - trained
    tokens, _ = tokenize(test_notes, m)
    decode = lambda idx: m.cmx.unfold(m.tokenizer.decode([t[idx] for t in tokens]).float())
    rows['tokenizer'] = dict(bits=bits, **errors(spec, decode, ls))
    usage = {k: v.tolist() for k, v in code_usage(tokens, cfg.codebook_size).items()}
    idx = list(range(0, len(test_notes), max(1, len(test_notes)//24)))[:24]
    how = dict(model=a.model) if a.model else dict(preset=a.preset, strips=a.strips, config=a.config, steps=train.steps, batch_size=train.batch_size, lr=train.lr, precision=train.precision)
    result = dict(experiment='tokenizer-capacity', **how, train_notes=len(train_notes), train_instruments=len(train_notes.instruments),
                  test_notes=len(test_notes), test_instruments=len(test_notes.instruments), rows=rows, frame_noise=frame_noise(spec), usage=usage, waves=waves_beside_oracle(m, test_notes, idx),
                  curve=[dict(step=r['step'], seconds=r['seconds'], recon=r['recon'], vq=r['vq'], revived=r['revived']) for r in log.rows], train_seconds=trained, about=run_info(start))
    if a.out: write_atomic(a.out, json.dumps(result, indent=1))
    for k, v in rows.items(): print(f'{k:28} {v["bits"]:5} bits   MSE {v["mse"]:.4f}   relative {v["relative_mse"]:.3f}   {v["db_active"]:.1f} dB on active frames')
    print('usage', {k: [round(i, 3) for i in v] if isinstance(v, list) else round(v, 3) for k, v in usage.items()})
    print('half the squared difference of frames', {k: round(v, 4) for k, v in result['frame_noise'].items()})
    print('log-spectral distance, dB', result['waves'])
    return result

if __name__ == '__main__': main()
