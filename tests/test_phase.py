"Phase reconstruction: metrics, PGHI by heap and by tree, and the vocoder (folder, training, Mars, command line)."
import json, math, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import mars.parts.phase
from mars.cli import main
from mars.data import AdditiveNotes
from mars.parts.phase import heap_integrate, integrate, onset, partial_noise, pghi, phase_gradient
from mars.parts.phase import phase_differences, pre_echo, refine, n_active_frames, stft_distance, tree_integrate
from mars.parts.vocoder import Crops, TRAIN_PRESETS, Vocoder, VocoderConfig, model_reconstructions, step_loss, train_vocoder
from mars.parts.vocoder import vocoder_train_config, von_mises_loss
from mars.pipeline import Mars
from mars.stft import LogSpectrogram, get_phase_method, griffin_lim
from mars.parts.config import PHASES
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.training.log import RunLog

ROOT = Path(__file__).resolve().parent.parent
SMALL = dict(n_fft=256, hop_length=64, n_frames=64)
TINY = VocoderConfig(width=8, dilations=(1, 2), n_iter=2)  # reaches over 4 frames

def tone(pitch, n=64000, delay=0):
    t, f0 = torch.arange(n-delay)/16000, 440*2**((pitch-69)/12)
    wave = sum(torch.sin(2*math.pi*f0*k*t+k)*torch.exp(-t*(.5+.2*k))/k for k in range(1, 8) if f0*k < 7500)
    return F.pad(.89*wave/wave.abs().max(), (delay, 0))

@pytest.fixture(scope='module')
def small(): return LogSpectrogram(**SMALL)

@pytest.fixture(scope='module')
def spec(small): return small.encode(torch.stack([tone(p, 4000, 700) for p in (57, 69, 76)]))

@pytest.fixture(scope='module')
def vocoder(small):
    torch.manual_seed(0)
    return Vocoder(TINY, small).eval()

@pytest.fixture(scope='module')
def notes(): return AdditiveNotes(('guitar_acoustic_800', 'flute_acoustic_800'), range(60, 68, 2), (100,))

# --- measures

def test_distance_grows_with_the_error():
    wave = tone(60)[None]
    noise = torch.randn(1, 64000, generator=torch.Generator().manual_seed(0))
    totals = [float(stft_distance(wave, wave+g*noise).total) for g in (0, 1e-4, 1e-3, 1e-2)]
    assert totals[0] == 0 and totals == sorted(totals) and totals[-1] > 10*totals[1]

def test_distance_of_each_note_is_independent():
    a, b = torch.stack([tone(60), tone(67)]), torch.stack([tone(61), tone(67)*.9])
    both, one = stft_distance(a, b), stft_distance(a[1:], b[1:])
    assert torch.allclose(both.total[1:], one.total) and torch.allclose(one.convergence, torch.tensor([.1]), atol=1e-5)
    assert stft_distance((a*32767).short(), (a*32767).short()).total.eq(0).all()

@pytest.mark.parametrize('f', [stft_distance, pre_echo, partial_noise])
def test_metrics_refuse_incomparable_waves(f):
    with pytest.raises(ValueError, match='must have equal shapes'): f(torch.randn(2, 9000), torch.randn(2, 8000))
    with pytest.raises(ValueError, match='reference 1 is silent'): f(torch.stack([torch.randn(9000), torch.zeros(9000)]), torch.randn(2, 9000))
    with pytest.raises(ValueError, match='NaN'): f(torch.randn(1, 9000), torch.full((1, 9000), float('nan')))

@pytest.mark.parametrize('db', [-20, -45])
def test_pre_echo_in_db(db):
    burst = torch.randn(1, 6000, generator=torch.Generator().manual_seed(3))
    before = torch.randn(1, 3000, generator=torch.Generator().manual_seed(4))*10**(db/20)
    found = pre_echo(F.pad(burst, (3000, 0)), torch.cat([before, burst], 1))
    assert abs(float(found)-db) < .8
    assert pre_echo(F.pad(burst, (100, 0)), F.pad(burst, (100, 0))).isnan().all()

def test_onset_is_the_first_loud_sample():
    wave = torch.zeros(2, 1000); wave[0, 300:] = 1.; wave[1, 100:] = 5e-3; wave[1, 700:] = -1.
    assert onset(wave).tolist() == [300, 700] and onset(wave, within=60).tolist() == [300, 100]

@pytest.mark.parametrize('db', [-30, -50])
def test_noise_between_partials_in_db(db):
    sine = tone(69)*0 + torch.sin(torch.arange(64000)*2*math.pi*440/16000)
    noise = torch.randn(64000, generator=torch.Generator().manual_seed(5))*math.sqrt(.5)*10**(db/20)
    assert abs(float(partial_noise(sine, sine+noise))-db) < .3

# --- PGHI

def test_gradient_is_exact_for_a_gaussian_window():
    "A sine and a click with a long Gaussian window, where the theory is exact."
    n, hop, gamma = 256, 32, .08*256**2
    window = torch.exp(-math.pi*(torch.arange(n, dtype=torch.double)-n/2).square()/gamma)
    t = torch.arange(4096, dtype=torch.double)
    click = torch.zeros(4096, dtype=torch.double); click[2010] = 1.
    for wave, axis in ((torch.cos(2*math.pi*.2013*t), 0), (click, 1)):
        S = torch.stft(wave[None], n, hop, window=window, return_complex=True)
        guess = phase_gradient(S.abs().clamp(min=1e-200).log(), hop, n, gamma)[axis]
        on = S.abs() > .3*S.abs().max()
        on[..., :6], on[..., -6:] = False, False
        error = torch.polar(torch.ones_like(guess), guess-phase_differences(S.to(torch.complex128), hop, n)[axis]).angle()[on]
        assert on.sum() > 20 and error.abs().max() < 5e-3

def test_phase_differences_of_a_spectrogram_reproduce_it(small, spec):
    S = small.stft(torch.stack([tone(57, 4000), tone(69, 4000, 700)]))[:, 0]
    for method in (tree_integrate, heap_integrate):
        phases = integrate(S.abs(), *phase_differences(S, 64, 256), 64, 256, tolerance=1e-7, method=method)
        made = torch.istft(S.abs()*phases, 256, 64, window=small.window())
        true = torch.istft(S, 256, 64, window=small.window())
        assert float(stft_distance(true, made).convergence.max()) < .02

@pytest.mark.parametrize('shape', [(1, 7), (7, 1), (2, 2), (9, 14), (14, 9)])
@pytest.mark.parametrize('share', [0., .3])
def test_heap_and_tree_agree_on_consistent_gradients(shape, share):
    rng = np.random.default_rng(hash(shape) % 1000)
    m, truth = rng.random(shape)+.01, rng.normal(size=shape)*4
    m[rng.random(shape) < share] = 0.
    a, d, start = np.diff(truth, axis=1, prepend=0), np.diff(truth, axis=0, prepend=0), rng.random(shape)
    heap, tree = (f(m, a, d, start) for f in (heap_integrate, tree_integrate))
    assert np.allclose(heap, tree) and np.array_equal(tree[m == 0], start[m == 0])

@pytest.mark.parametrize('shape, seed, quiet', [((4, 5), 1, 0.), ((12, 9), 2, 0.), ((9, 14), 3, .4), ((1, 20), 4, 0.), ((20, 1), 5, .2), ((40, 30), 6, .1)])
def test_tree_is_the_maximum_spanning_tree(shape, seed, quiet):
    "Against Kruskal's algorithm in plain Python, with inconsistent differences: another path gives another phase."
    rng = np.random.default_rng(seed)
    m, a, d, start = rng.random(shape)+.01, rng.normal(size=shape), rng.normal(size=shape), rng.random(shape)
    m[rng.random(shape) < quiet] = 0.
    F_, T = shape
    links = [((f, t), (f, t+1), a[f, t+1]) for f in range(F_) for t in range(T-1)] + [((f, t), (f+1, t), d[f+1, t]) for f in range(F_-1) for t in range(T)]
    links = [(p, q, s) for p, q, s in links if m[p] > 0 and m[q] > 0]
    links.sort(key=lambda l: -(math.log(min(m[l[0]], m[l[1]]))+1e-3*math.log(max(m[l[0]], m[l[1]]))))
    region, phase = {p: {p} for p in zip(*np.nonzero(m))}, np.zeros(shape)
    for p, q, s in links:
        if region[p] is region[q]: continue
        shift = phase[p]+s-phase[q]
        for r in region[q]: phase[r] += shift
        region[p] |= region[q]
        for r in region[q]: region[r] = region[p]
    for group in region.values(): # the strongest cell of each region has phase 0
        zero = phase[max(group, key=lambda r: m[r])]
        for r in group: phase[r] -= zero
    phase[m == 0] = start[m == 0]
    assert np.allclose(tree_integrate(m, a, d, start), phase, atol=1e-9)

def test_pghi_does_not_depend_on_the_batch(small, spec):
    M = small.magnitude(spec)[:, 0]
    whole = pghi(M, 256, 64, seed=3)
    assert torch.equal(whole[1:], pghi(M[1:], 256, 64, seed=3, first=1))
    assert torch.allclose(whole.abs(), torch.ones_like(M), atol=1e-5)
    assert torch.equal(pghi(M*0, 256, 64, seed=None).angle().abs() % math.pi < 1e-5, torch.ones_like(M, dtype=torch.bool))

def test_pghi_is_a_better_start_than_random_phases(small, spec):
    wave = small.istft(small.stft(torch.stack([tone(p, 4000, 700) for p in (57, 69, 76)])))
    made = [small.decode(spec, n_iter=8, phase=p) for p in ('griffinlim', 'pghi')]
    chance, start = (float(stft_distance(wave, w).total.mean()) for w in made)
    assert start < .8*chance

def test_silence_stays_silent(small):
    for phase in ('pghi', Vocoder(TINY, small).magnitude_to_wave): assert (small.decode(torch.full((2, *small.shape), -1.), phase=phase) == 0).all()

# --- refining

def test_refine_preserves_a_consistent_sound(small, spec):
    "The phases of a wave are in both sets: projections and reflections leave them unchanged."
    S = small.stft(torch.stack([tone(p, 4000, 700) for p in (57, 69)]))[:, 0]
    phases = torch.where(S.abs() > 0, S/S.abs().clamp(min=1e-20), 1.)
    made, true = refine(S.abs(), phases, small.window(), 64, 20), small.istft(S[:, None])
    assert float(stft_distance(true, made[:, :true.shape[-1]]).convergence.max()) < 1e-3

def test_refine_beats_griffin_lim_from_the_same_start(small, spec):
    M, wave = small.magnitude(spec)[:, 0], small.istft(small.stft(torch.stack([tone(p, 4000, 700) for p in (57, 69, 76)])))
    angles = pghi(M, 256, 64)
    distance = lambda w: float(stft_distance(wave, w[:, :wave.shape[-1]]).total.mean())
    assert distance(refine(M, angles, small.window(), 64, 32)) < distance(griffin_lim(M, small.window(), 256, 64, 32, angles=angles))
    assert torch.allclose(refine(M, angles, small.window(), 64, 1), griffin_lim(M, small.window(), 256, 64, 1, angles=angles), atol=1e-6)

def test_trailing_silence_is_skipped(small):
    M = torch.rand(1, 129, 64); M[..., 30:] = 0
    assert n_active_frames(M, 256, 64) == 35 and n_active_frames(M[..., :20], 256, 64) == 20 and n_active_frames(M*0, 256, 64) == 5
    wave = PHASES['pghi'](small, M, 4, 0, 0)
    assert wave.shape == (1, 63*64) and (wave[:, 34*64:] == 0).all() and wave[:, :30*64].abs().max() > 0

# --- the registry

def test_stft_does_not_need_phase():
    "Other methods register when their module is imported; until then the error names the module."
    code = """
import sys, mars.stft
assert 'mars.parts.phase' not in sys.modules
try: mars.stft.get_phase_method('pghi')
except ValueError as e: assert 'import mars.parts.phase' in str(e)
else: assert False
import mars.parts.phase
assert mars.stft.get_phase_method('pghi') is mars.stft.PHASES['pghi']"""
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)

def test_get_phase_method(small, spec):
    assert get_phase_method('pghi') is PHASES['pghi'] and get_phase_method(max) is max
    with pytest.raises(ValueError, match='choose one of griffinlim, pghi, vocoder'): get_phase_method('wavenet')
    assert torch.equal(small.decode(spec), small.decode(spec, n_iter=64))
    assert torch.equal(small.decode(spec, phase='pghi'), small.decode(spec, n_iter=32, phase='pghi'))

# --- the vocoder

def test_sizes():
    for name in VocoderConfig.presets():
        v = Vocoder(VocoderConfig.preset(name))
        assert sum(p.numel() for p in v.parameters()) < 3e6
        assert VocoderConfig.from_dict(json.loads(json.dumps(v.cfg.__dict__))) == v.cfg
    assert set(VocoderConfig.presets()) == set(TRAIN_PRESETS) == {'tiny', 'small', 'paper'}

@pytest.mark.parametrize('fields, message', [(dict(width=0), 'width must be >= 1, got 0'), (dict(fold=3), 'fold must divide the 512 bins, got 3'), (dict(dilations=[0]), 'dilations must be integers >= 1'), (dict(n_iter=-1), 'n_iter must be >= 0, got -1'), (dict(depth=3), "no field 'depth'")])
def test_invalid_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message): Vocoder(VocoderConfig.from_dict(fields))

def test_a_step_depends_on_frames_within_reach(vocoder, small, spec):
    far = spec.clone(); far[..., 40:] = -1.
    (a, _), (b, _) = vocoder(spec), vocoder(far)
    reach = vocoder.cfg.context + 2  # and the theory's own slope
    assert torch.allclose(a[..., :40-reach], b[..., :40-reach], atol=1e-5) and not torch.allclose(a[..., 38:40], b[..., 38:40], atol=1e-3)

def test_the_frames_before_the_first_are_its_mirror_image(vocoder, spec):
    m = vocoder.cfg.context + 3
    whole = torch.cat([spec[..., 1:m+1].flip(-1), spec], -1)
    for a, b in zip(vocoder(spec), vocoder(whole)): assert torch.allclose(a[..., 1:], b[..., m+1:], atol=1e-4)

def test_loss_is_a_likelihood():
    angle, kappa = torch.linspace(-math.pi, math.pi, 2001), torch.tensor([.01, 1., 30.])
    density = torch.exp(-von_mises_loss(torch.polar(kappa, torch.full((3,), .7))[:, None].expand(3, 2001), angle.expand(3, 2001)))
    assert torch.allclose(torch.trapezoid(density, angle), torch.full((3,), 2*math.pi), atol=1e-2)

def test_the_true_phases_have_less_loss(vocoder, small):
    "A network that predicts the true differences with certainty has less loss than the theoretical one."
    S = small.stft(tone(69, 4000, 700)[None])[:, 0]
    class Oracle(torch.nn.Module):
        spectrogram = small
        def forward(self, spec): return tuple(torch.polar(torch.full_like(s, 50.), s) for s in phase_differences(S[:, :-1], 64, 256))
    best, seen = step_loss(Oracle(), S)
    assert best < step_loss(vocoder, S)[0]-1 and float(seen['advance']) == pytest.approx(1, abs=1e-4)

def test_vocoder_wave(vocoder, small, spec):
    M = small.magnitude(spec)[:, 0]
    whole = vocoder.magnitude_to_wave(small, M, None, 5)
    assert whole.shape == (3, small.n_padded) and torch.equal(whole, vocoder.magnitude_to_wave(small, M, 2, 5))
    assert torch.equal(whole[1:], vocoder.magnitude_to_wave(small, M[1:], 2, 5, first=1))
    with pytest.raises(ValueError, match='n_fft must be 256, as in the training of this vocoder, got 1024'): vocoder.magnitude_to_wave(LogSpectrogram(), torch.zeros(1, 513, 256))

def test_vocoder_folder(vocoder, small, spec, tmp_path):
    vocoder.save(tmp_path/'v')
    again, M = Vocoder.from_pretrained(tmp_path/'v'), small.magnitude(spec)[:, 0]
    assert torch.equal(again.magnitude_to_wave(small, M), vocoder.magnitude_to_wave(small, M)) and again.spectrogram.config == small.config
    vocoder.save(tmp_path/'h', half=True)
    assert (tmp_path/'h'/'vocoder.safetensors').stat().st_size < .7*(tmp_path/'v'/'vocoder.safetensors').stat().st_size
    config = json.loads((tmp_path/'v'/'vocoder.json').read_text())
    for change, message in ((dict(format=9), 'format 9'), (dict(vocoder=dict(width=16)), 'does not fit'), (dict(spectrogram=None), 'damaged')):
        (tmp_path/'v'/'vocoder.json').write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message): Vocoder.from_pretrained(tmp_path/'v')
    (tmp_path/'h'/'vocoder.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='vocoder.safetensors is missing'): Vocoder.from_pretrained(tmp_path/'h')
    with pytest.raises(FileNotFoundError, match='mars train vocoder --out FOLDER'): Vocoder.from_pretrained(tmp_path/'nowhere')

# --- training

def test_crops(notes):
    ls = LogSpectrogram()
    crops = Crops(notes, ls, batch_size=6, frames=12, seed=1)
    S, seen = crops(3)
    assert S.shape == (6, 513, 12) and torch.equal(S, crops(3)[0]) and not torch.equal(S, crops(4)[0]) and torch.equal(seen, crops(3)[1])
    assert torch.equal(torch.cat([crops(3, i, 3)[0] for i in range(3)]), torch.cat([S[i::3] for i in range(3)]))
    with pytest.raises(ValueError, match='frames must be in 1..256, got 300'): Crops(notes, ls, frames=300)

def test_margins_equal_those_of_a_mirrored_wave(notes):
    ls, m = LogSpectrogram(), 3
    crops = Crops(notes, ls, batch_size=8, frames=12, seed=1, margin=m)
    for S, spec in (crops(i) for i in range(4)):
        assert S.shape == (8, 513, 18) and spec.shape == (8, 1, 512, 18)
        for s, x in zip(S, spec):
            if torch.equal(s[:, :m], s[:, m+1:2*m+1].flip(-1).conj()): break
        else: continue
        assert torch.equal(x[..., :m], x[..., m+1:2*m+1].flip(-1))
        break
    else: raise AssertionError('no piece began at the first frame')
    wave = tone(60)[None]
    mirrored = torch.stft(torch.cat([wave[:, 1:1537].flip(1), wave], 1), 1024, 256, window=ls.window(), return_complex=True)
    assert torch.allclose(mirrored[..., 3:6], ls.stft(wave)[:, 0, :, 1:4].flip(-1).conj(), atol=2e-3)

def test_a_margin_is_an_input_without_loss(vocoder, small):
    S = small.stft(tone(69, 4000, 700)[None])[:, 0]
    part = S[..., :24].clone(); part[..., 20:] *= 1j  # wrong phases, in the margin alone
    assert torch.allclose(step_loss(vocoder, part, margin=4)[0], step_loss(vocoder, S[..., :24], margin=4)[0], atol=1e-5)
    assert not torch.allclose(step_loss(vocoder, part)[0], step_loss(vocoder, S[..., :24])[0], atol=1e-3)

def test_copies_of_a_model(vocoder, small, notes):
    torch.manual_seed(0)
    tok = Tokenizer(TokenizerConfig.preset('tiny', image_shape=(2, 64, 64), patch=8, scales=(1, 2, 3, 4)))
    m = Mars(tok, spectrogram=small)
    idx, specs = copies = model_reconstructions(notes, m, 3)
    assert len(idx) == 3 and specs.shape == (3, 128, 64) and specs.dtype == torch.float16
    assert torch.equal(specs[1:2], m.tokens_to_spec(m.encode(notes.batch([int(idx[1])])[0]/32768))[:, 0].half())
    S, seen = Crops(notes, small, 8, 10, reconstructions=copies, share=1.)(0)
    assert not torch.allclose(seen[:, 0], Crops(notes, small, 8, 10)(0)[1][:, 0]) and S.shape == (8, 129, 10)
    loss, _ = step_loss(vocoder, S, seen)
    assert loss.isfinite() and not torch.equal(loss, step_loss(vocoder, S)[0])

def test_training_resumes_where_it_stopped(notes, tmp_path):
    settings = vocoder_train_config('tiny', steps=6, batch_size=4, log_every=1, save_every=3, warmup=2)
    run = lambda **kw: train_vocoder(notes, settings, TINY, progress=False, frames=8, margin=2, **kw)
    log = RunLog()
    whole = run(log=log)
    assert [r['step'] for r in log.rows] == list(range(6)) and all(r['stage'] == 'vocoder' for r in log.rows)
    class Stop(Exception): pass
    class Half(RunLog):
        def __call__(self, **row):
            if row['step'] == 4: raise Stop
            super().__call__(**row)
    with pytest.raises(Stop): run(out=tmp_path, log=Half())
    resumed = run(out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters()))
    assert {'vocoder.json', 'vocoder.safetensors', 'metrics.jsonl', 'checkpoints'} <= {p.name for p in tmp_path.iterdir()}
    assert Vocoder.from_pretrained(tmp_path).info['notes'] == len(notes)
    still = train_vocoder(notes, vocoder_train_config('tiny', steps=1, lr=1e-9, batch_size=2, ema=0., warmup=0), TINY, progress=False, frames=8, init_from=whole)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole.parameters(), still.parameters()))

def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('MARS_CACHE', str(tmp_path/'cache'))
    args = ['train', 'vocoder', '--data', 'additive', '--pitches', '60,64', '--steps', '2', '--batch-size', '2', '--width', '8', '--dilations', '1', '--json', '--out', str(tmp_path/'v')]
    assert main(args) == 0 and json.loads(capsys.readouterr().out)['stage'] == 'vocoder'
    assert Vocoder.from_pretrained(tmp_path/'v').cfg.dilations == (1,)
    with pytest.raises(SystemExit): main(['generate', '--phase', 'wavenet'])

# --- in a model

def test_mars_saves_and_loads_its_vocoder(vocoder, small, tmp_path):
    torch.manual_seed(0)
    tok = Tokenizer(TokenizerConfig.preset('tiny', image_shape=(2, 64, 64), patch=8, scales=(1, 2, 3, 4)))
    m = Mars(tok, spectrogram=small, vocoder=vocoder)
    m.save_pretrained(tmp_path)
    again = Mars.from_pretrained(tmp_path)
    wave = tone(69, 4000)
    a, b, plain = again.reconstruct(wave, phase='vocoder'), m.reconstruct(wave, phase=vocoder.magnitude_to_wave), m.reconstruct(wave)
    assert torch.equal(a, b) and not torch.equal(a, plain)

def test_the_error_without_weights_names_the_remedy(monkeypatch, small, spec, tmp_path):
    monkeypatch.setattr(mars.parts.vocoder.mars, '__file__', str(tmp_path/'mars'/'__init__.py'))
    mars.parts.vocoder._packaged.cache_clear()
    with pytest.raises(FileNotFoundError, match='mars train vocoder'): small.decode(spec, phase='vocoder')
    mars.parts.vocoder._packaged.cache_clear()

def test_packaged_weights():
    "The packaged weights load, fit the default spectrogram, and are better than PGHI on a held-out note."
    if not (ROOT/'mars'/'weights'/'vocoder'/'vocoder.json').exists(): pytest.skip('no weights in this clone')
    ls, waves = LogSpectrogram(), torch.stack([tone(50, delay=3000), tone(64, delay=3000)])
    S = ls.stft(waves)[:, 0]
    with torch.no_grad(): guess = Vocoder.from_pretrained()(ls.encode(waves))
    theory = phase_gradient((ls.encode(waves)[:, 0])*(-math.log(ls.floor)/2))
    w = S[:, :-1].abs()
    share = [[float((torch.cos(g-t)*w).sum()/w.sum()) for g, t in zip(gs, phase_differences(S[:, :-1]))] for gs in ([g.angle() for g in guess], theory)]
    assert sum(share[0]) > sum(share[1])
    assert ls.decode(ls.encode(waves), n_iter=1, phase='vocoder').isfinite().all()

# --- the benchmark

def test_benchmark(monkeypatch, tmp_path, vocoder):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    for name in ('common', 'phase'): monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv('MARS_CACHE', str(tmp_path/'cache'))
    import phase
    few = 'Griffin-Lim 64', 'PGHI', 'PGHI + 16', 'vocoder', 'other'
    monkeypatch.setattr(phase, 'methods', lambda *args, real=phase.methods: {k: f for k, f in real(*args).items() if k in few})
    Vocoder(TINY).save(tmp_path/'v')
    out, threads = tmp_path/'p.json', torch.get_num_threads()
    try:
        phase.main(['--additive', '--notes', '2', '--parts', 'pghi', '--out', str(out)])
        r = phase.main(['--additive', '--notes', '2', '--parts', 'vocoder', 'cores', '--vocoder', str(tmp_path/'v'), '--other', str(tmp_path/'v'), '--cores', 'vocoder', '--time-notes', '1', '--rounds', '1', '--add', '--out', str(out)])
    finally: torch.set_num_threads(threads)
    assert json.loads(out.read_text()) == json.loads(json.dumps(r))
    rows = {row['method']: row for row in r['delayed']}
    assert set(rows) == {'true note', 'true phase', 'Griffin-Lim 64', 'PGHI', 'PGHI + 16', 'vocoder', 'other'} and rows['true note']['stft'] == 0
    assert rows['true phase']['stft'] < rows['PGHI + 16']['stft'] and rows['other']['stft'] == rows['vocoder']['stft']
    assert {c['method'] for c in r['cores']} <= set(few) and all(c['one note'] > 0 and c['two workers'] > 0 for c in r['cores'])
    for name, row in rows.items():
        if not name.startswith('true'): assert 0 < row['stft'] < 3 and row['ms'] > 0 and row['pre-echo'] > rows['true note']['pre-echo'] and row['frechet'] >= 0
    assert r['info']['vocoder']['parameters'] > 0

def test_the_command_trains_from_initial_weights_and_on_reconstructions(tmp_path, capsys):
    from mars.cli import main
    from mars.pipeline import Mars
    from mars.tokenizer import Tokenizer, TokenizerConfig
    torch.manual_seed(0)
    Mars(Tokenizer(TokenizerConfig.preset('tiny'))).save_pretrained(tmp_path/'m')
    few = ['--data', 'additive', '--families', 'organ', '--pitches', '60-63', '--velocities', '100', '--steps', '2', '--batch-size', '2', '--json']
    assert main(['train', 'vocoder', '--out', str(tmp_path/'a'), *few]) == 0
    assert main(['train', 'vocoder', '--out', str(tmp_path/'b'), '--init-from', str(tmp_path/'a'), '--reconstructions', str(tmp_path/'m'), '--n-reconstructions', '3', *few]) == 0
    a, b = (Vocoder.from_pretrained(tmp_path/k) for k in 'ab')
    assert a.cfg == b.cfg and not torch.equal(a.stem.weight, b.stem.weight) and (a.stem.weight - b.stem.weight).abs().max() < .05 # two small steps from the start
    capsys.readouterr()
    assert main(['train', 'vocoder', '--out', str(tmp_path/'c'), '--init-from', str(tmp_path/'a'), '--width', '8', *few]) == 2 and 'fixes the shape' in capsys.readouterr().err
    assert main(['ablate', 'labels', '--steps', '3']) == 2 and 'trains nothing' in capsys.readouterr().err
    assert main(['ablate', 'cmx', '--model', 'small']) == 2 and 'trains its own models' in capsys.readouterr().err

def test_the_packaged_vocoder_is_not_one_of_the_current_folder(tmp_path, monkeypatch):
    Vocoder(VocoderConfig.preset('tiny')).save(tmp_path/'vocoder')
    monkeypatch.chdir(tmp_path)
    assert Vocoder.from_pretrained().cfg.width == 32 and Vocoder.from_pretrained('vocoder').cfg.width == 16

def test_initial_weights_must_match(tmp_path):
    from mars.data import AdditiveNotes
    notes, settings = AdditiveNotes(('organ',), pitches=(60, 62), velocities=(100,)), vocoder_train_config('tiny', steps=1, batch_size=2)
    start = Vocoder(VocoderConfig.preset('tiny'), LogSpectrogram(hop_length=128, n_frames=512))
    assert train_vocoder(notes, settings, progress=False, frames=8, init_from=start).spectrogram.hop_length == 128
    with pytest.raises(ValueError, match='another config or spectrogram'): train_vocoder(notes, settings, VocoderConfig.preset('tiny', width=8), progress=False, frames=8, init_from=start)

def test_the_seed_affects_undetermined_cells_only():
    M = torch.rand(2, 513, 8) + .1
    assert torch.equal(pghi(M, seed=0), pghi(M, seed=1)) # nothing is left to chance
    M[:, 100:] *= 1e-7
    a, b = pghi(M, seed=0), pghi(M, seed=1)
    assert torch.equal(a[:, :100], b[:, :100]) and not torch.equal(a[:, 100:], b[:, 100:]) and torch.equal(a[1:], pghi(M[1:], seed=0, first=1))

def test_silent_frames_are_removed():
    from mars.parts.phase import wave_from_phases
    ls, seen = LogSpectrogram(), []
    wave = torch.sin(torch.arange(64000)*.3)*(torch.arange(64000) < 16000)
    M = ls.magnitude(ls.encode(wave))[:, 0]
    find = lambda m, first: (seen.append(m.shape[-1]), pghi(m, ls.n_fft, ls.hop_length))[1]
    short = wave_from_phases(ls, M, find, 8)
    assert seen == [n_active_frames(M)] and 60 < seen[0] < 75 and short.shape == (1, 255*256)
    whole = refine(M, pghi(M, ls.n_fft, ls.hop_length), ls.window(), ls.hop_length, 8)
    assert (short - whole).abs().max() < 1e-3*whole.abs().max()
