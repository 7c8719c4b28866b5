"""Measure a tokenizer on unseen instruments:  python benchmarks/tokenizer_capacity.py --preset tiny --minutes 6

Trains a tokenizer for --minutes (or --steps) on some instruments and evaluates it on the notes of others; with --model
it evaluates a trained one. Baselines of at most as many bits a note: the mean spectrogram of the same pitch or family,
and k-means vector quantization of raw patches. Also measures the noise floor (the difference of frames of one note that
share no sample, which no code of so few bits can represent), the code usage on all unseen notes and the log-spectral
distance of reconstructed waves, next to Griffin-Lim on the true magnitudes.

Prints a line for each row, and writes rows and learning curve to --out (committed:
results/benchmarks/tokenizer-capacity-tiny.json, results/benchmarks/tokenizer-capacity-small.json, and for
`--model small` results/benchmarks/tokenizer-trained-small.json).
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

SHAPES = ((16, 16), (16, 32), (8, 64), (8, 128), (4, 256), (2, 256), (1, 256), (4, 128), (2, 128), (4, 64), (32, 32),
          (8, 32), (16, 8))  # patches of k-means, rows x columns
MAX_CENTRES = 4096
TIMED_STEPS = 10

# ---- notes and errors

def open_notes(quick, trained=False):
    "Training and test notes of different instruments; `trained` takes the splits of the report."
    if trained and not quick:
        notes = SoundFontNotes(pitches=range(36, 97, 2), velocities=(50, 75, 100), label='key')
        splits = make_splits(notes)
        return splits.train, splits.test
    if quick: notes = AdditiveNotes(None, range(60, 72, 6), (100,))
    else: notes = SoundFontNotes(pitches=range(36, 85, 2), velocities=(50, 75, 100, 127), label='key')
    train, _, test = notes.split_by_instrument(valid=0., test=0.34 if quick else 0.2, seed=0)
    return train, test

def compute_spectrograms(notes, ls):
    "All spectrograms of a set (N, 1, F, T), in half precision."
    images = Images(notes, lambda waves: CMX(1, 1).fold(ls.encode(waves)), max_cached=0)
    return torch.cat([images(range(i, min(i+64, len(notes))))[0].half() for i in range(0, len(notes), 64)])

def measure_error(spec, predict, ls):
    "MSE, relative MSE and RMS in dB on active frames; `predict` maps indices to spectrograms."
    squared = count = active_squared = active_count = total = total_squared = 0.
    for i in range(0, len(spec), 64):
        idx = torch.arange(i, min(i+64, len(spec)))
        x = spec[idx].float()
        error = (x - predict(idx)).double().square()
        active = active_frames(x, floor=ls.floor).view(len(x), 1, 1, -1).expand_as(x)
        squared, count = squared + error.sum(), count + error.numel()
        active_squared, active_count = active_squared + error[active].sum(), active_count + active.sum().item()
        total, total_squared = total + x.double().sum(), total_squared + x.double().square().sum()
    mse, variance = squared/count, total_squared/count - (total/count)**2
    rms_db = (active_squared/active_count).sqrt().item()*-10*math.log10(ls.floor)
    return dict(mse=mse.item(), relative_mse=(mse/variance).item(), db_active=rms_db)

def frame_noise(spec, lags=(4, 6, 8)):
    """Noise floor of a smooth image: half the mean squared difference of frames `lags` hops apart, extrapolated
    linearly to no distance. Windows of 1024 samples that are 4 hops of 256 apart share no sample."""
    def half_difference(lag):
        sums = [float((x[..., lag:].float() - x[..., :-lag].float()).square().mean())*len(x) for x in spec.split(64)]
        return sum(sums)/len(spec)/2
    differences = [half_difference(lag) for lag in lags]
    _, intercept = np.polyfit(lags, differences, 1)
    return {**{f'{lag} hops': d for lag, d in zip(lags, differences)}, 'no distance': float(intercept)}

# ---- baselines

def class_mean(train, train_notes, test_notes, key):
    "Predict the mean of the training notes with the same label, or of all notes for a new label."
    groups = train_notes.labels.reset_index(drop=True).groupby(key)
    means = {label: train[rows.index.tolist()].float().mean(0) for label, rows in groups}
    overall, labels = train.float().mean(0), test_notes.labels[key].tolist()
    return lambda idx: torch.stack([means.get(labels[i], overall) for i in idx])

def kmeans_centres(train, patch, V, cmx, seed=0):
    "V centres (V, ph*pw*C) of the patches of up to 600 training notes."
    g = torch.Generator().manual_seed(seed)
    subset = torch.randperm(len(train), generator=g)[:min(len(train), 600)]
    x = patchify(cmx.fold(train[subset].float()), patch).flatten(0, 1)
    x = x[torch.randperm(len(x), generator=g)[:max(20*V, 20000)]]
    kmeans = MiniBatchKMeans(V, batch_size=2048, n_init=1, max_iter=8, max_no_improvement=5, random_state=seed)
    return torch.from_numpy(kmeans.fit(x.numpy()).cluster_centers_).float()

def kmeans_reconstruction(train, patch, V, cmx):
    "A function that replaces every patch of the folded image by the nearest of V centres."
    centres = kmeans_centres(train, patch, V, cmx)
    bias = -0.5*centres.square().sum(-1)
    def reconstruct(spec):
        image = cmx.fold(spec.float())
        codes = (patchify(image, patch) @ centres.T + bias).argmax(-1)
        return cmx.unfold(unpatchify(centres[codes], image.shape[1:], patch))
    return reconstruct

def kmeans_sizes(bits, image_shape, shapes=SHAPES, max_centres=MAX_CENTRES):
    "(patch, V, patches a note) whose codes need at most `bits` a note."
    _, H, W = image_shape
    for ph, pw in shapes:
        n = (H//ph)*(W//pw)
        limit = max_centres if ph*pw < 1024 else max_centres//4  # large patches are too few for more centres
        V = min(limit, 2**(bits//n))
        if V >= 2: yield (ph, pw), V, n

def measure_baselines(spec, train, train_notes, test_notes, sizes, cmx, ls):
    "Rows of the class means and of k-means with each of `sizes`."
    rows = {}
    for key in ('pitch', 'family'):
        predict = class_mean(train, train_notes, test_notes, key)
        rows[f'mean of the {key}'] = dict(bits=0, **measure_error(spec, predict, ls))
    for patch, V, n in sizes:
        reconstruct = kmeans_reconstruction(train, patch, V, cmx)
        error = measure_error(spec, lambda idx: reconstruct(spec[idx]), ls)
        name = f'k-means {patch[0]}x{patch[1]}, {V} codes'
        rows[name] = dict(bits=int(n*math.log2(V)), **error)
        print(name, rows[name], flush=True)
    return rows

# ---- the tokenizer

def steps_in(minutes, notes, train_cfg, cfg):
    "The number of optimiser steps that fit, at least 50, from ten timed ones."
    log, timed = RunLog(), TrainConfig.from_dict({**vars(train_cfg), 'steps': TIMED_STEPS + 2, 'log_every': 1})
    train_tokenizer(notes, timed, cfg, log=log, progress=False)
    step_seconds = (log.rows[-1]['seconds'] - log.rows[1]['seconds'])/TIMED_STEPS
    return max(50, round(60*minutes/step_seconds))

def wave_distances(m, notes, idx, n_iter=64):
    "Mean log-spectral distance in dB, on all and on active frames, of Griffin-Lim on true and on decoded magnitudes."
    ls, (waves, _) = m.spectrogram, notes.batch(idx)
    spec = ls.encode(waves)
    active = active_frames(spec, floor=ls.floor)
    floats = waves if waves.is_floating_point() else waves.float()/32768
    decoded = dict(oracle=ls.decode(spec, n_iter=n_iter), tokenizer=m.reconstruct(floats))
    def distance(wave, mask): return float(log_spectral_distance(spec, ls.encode(wave), mask, ls.floor).mean())
    return {name: dict(all=distance(wave, None), active=distance(wave, active)) for name, wave in decoded.items()}

def measure_tokenizer(m, spec, notes):
    "Error on all notes, code usage, and the distances of 24 reconstructed waves."
    tokens, _ = tokenize(notes, m)
    def predict(idx): return m.cmx.unfold(m.tokenizer.decode([t[idx] for t in tokens]).float())
    usage = {k: v.tolist() for k, v in code_usage(tokens, m.tokenizer.cfg.codebook_size).items()}
    idx = list(range(0, len(notes), max(1, len(notes)//24)))[:24]
    return measure_error(spec, predict, m.spectrogram), usage, wave_distances(m, notes, idx)

# ---- command

def parse_shapes(text): return [tuple(map(int, shape.split('x'))) for shape in text.split(',')]

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--model', help='evaluate a trained model: a run folder or packaged weights')
    ap.add_argument('--strips', action='store_true', help='patches that are narrow in frequency and long in time')
    ap.add_argument('--config', type=json.loads, default={}, metavar='JSON',
                    help='fields of TokenizerConfig, such as {"patch": [4, 256], "scales": [[1, 1], [8, 1], [64, 1]]}')
    ap.add_argument('--no-kmeans', action='store_true', help='leave out the slowest baseline')
    ap.add_argument('--shapes', type=parse_shapes, default=SHAPES, metavar='HxW,...',
                    help='patches of k-means, such as 2x256,4x256; default: thirteen shapes')
    ap.add_argument('--minutes', type=float, default=5., help='training time in minutes, > 0; default: %(default)s')
    ap.add_argument('--steps', type=int, help='optimiser steps, at least 1; default: as many as fit into --minutes')
    ap.add_argument('--batch-size', type=int, help="notes a step, at least 1; default: the preset's")
    ap.add_argument('--lr', type=float, help="learning rate, > 0; default: the preset's")
    ap.add_argument('--precision', help='fp32 or bf16; default: bf16 on a GPU and fp32 elsewhere')
    ap.add_argument('--quick', action='store_true', help='a few synthesised notes, to test the script')
    ap.add_argument('--out', help='a JSON file')
    return ap

def make_configs(args, m, train_notes):
    "Configurations of the tokenizer and of its training."
    if m: cfg = m.tokenizer.cfg
    else: cfg = TokenizerConfig.preset(args.preset, **{**(STRIPS if args.strips else {}), **args.config})
    options = dict(batch_size=args.batch_size, lr=args.lr, steps=args.steps, precision=args.precision)
    train_cfg = TrainConfig.preset(args.preset, log_every=25, **{k: v for k, v in options.items() if v})
    if not (args.steps or m):
        steps = steps_in(args.minutes, train_notes, train_cfg, cfg)
        train_cfg = TrainConfig.from_dict({**vars(train_cfg), 'steps': steps})
    return cfg, train_cfg

def describe_run(args, train_cfg, train_notes, test_notes):
    "The model or the training settings, and the numbers of notes and instruments."
    settings = dict(model=args.model) if args.model else dict(
        preset=args.preset, strips=args.strips, config=args.config,
        **{k: getattr(train_cfg, k) for k in ('steps', 'batch_size', 'lr', 'precision')})
    return dict(**settings, train_notes=len(train_notes), train_instruments=len(train_notes.instruments),
                test_notes=len(test_notes), test_instruments=len(test_notes.instruments))

def print_result(result):
    for name, row in result['rows'].items():
        print(f'{name:28} {row["bits"]:5} bits   MSE {row["mse"]:.4f}   relative {row["relative_mse"]:.3f}   '
              f'{row["db_active"]:.1f} dB on active frames')
    usage = {k: [round(i, 3) for i in v] if isinstance(v, list) else round(v, 3) for k, v in result['usage'].items()}
    print('code usage', usage)
    print('half the squared difference of frames', {k: round(v, 4) for k, v in result['frame_noise'].items()})
    print('log-spectral distance, dB', result['waves'])

def main(argv=None):
    args, start = parser().parse_args(argv), time.perf_counter()
    m = Mars.from_pretrained(args.model, 'cpu') if args.model else None
    ls, cmx = (m.spectrogram, m.cmx) if m else (LogSpectrogram(), CMX.fit())
    train_notes, test_notes = open_notes(args.quick, bool(m))
    cfg, train_cfg = make_configs(args, m, train_notes)
    spec, train_spec = compute_spectrograms(test_notes, ls), compute_spectrograms(train_notes, ls)
    bits = int(cfg.n_tokens*math.log2(cfg.codebook_size))
    settings = describe_run(args, train_cfg, train_notes, test_notes)
    print(*(f'{k} {v}' for k, v in settings.items()), f'{bits} bits a note', sep=', ', flush=True)
    limits = dict(shapes=((16, 32), (4, 256)), max_centres=16) if args.quick else dict(shapes=args.shapes)
    sizes = [] if args.no_kmeans else kmeans_sizes(bits, cfg.image_shape, **limits)
    rows = measure_baselines(spec, train_spec, train_notes, test_notes, sizes, cmx, ls)
    del train_spec
    log, train_start = RunLog(), time.perf_counter()
    if not m: m = Mars(train_tokenizer(train_notes, train_cfg, cfg, log=log, progress=False), None, cmx, ls)
    train_seconds = time.perf_counter() - train_start
    error, usage, waves = measure_tokenizer(m, spec, test_notes)
    rows['tokenizer'] = dict(bits=bits, **error)
    curve = [{k: r[k] for k in ('step', 'seconds', 'recon', 'vq', 'revived')} for r in log.rows]
    result = dict(experiment='tokenizer-capacity', **settings, rows=rows, frame_noise=frame_noise(spec),
                  usage=usage, waves=waves, curve=curve, train_seconds=train_seconds, info=run_info(start))
    if args.out: write_atomic(args.out, json.dumps(result, indent=1))
    print_result(result)
    return result

if __name__ == '__main__': main()
