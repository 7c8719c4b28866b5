"LogSpectrogram, Griffin-Lim and distances, on more shapes than the notebook and on recorded notes."
import math
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mars.data import example_notes
from mars.stft import LogSpectrogram, active_frames, compress, expand, griffin_lim, level_db
from mars.parts.config import PHASES
from mars.stft import log_spectral_distance, mel_filters, random_phases, plot_specs

SMALL = dict(n_fft=256, hop_length=64, n_frames=64)  # a quarter of a second

def tone(pitch, n=64000):
    t, f0 = torch.arange(n)/16000, 440*2**((pitch-69)/12)
    wave = sum(torch.sin(2*math.pi*f0*k*t+k)*torch.exp(-t*(.5+.2*k))/k for k in range(1, 8) if f0*k < 7500)
    return .89*wave/wave.abs().max()

@pytest.fixture(scope='module')
def ls(): return LogSpectrogram()

@pytest.fixture(scope='module')
def waves(): return torch.stack([tone(p) for p in (40, 57, 71)])

@pytest.fixture(scope='module')
def small(): return LogSpectrogram(**SMALL)

@pytest.fixture(scope='module')
def small_spec(small): return small.encode(torch.stack([tone(p, 4000) for p in (45, 57, 64, 69, 76)]))

# --- encode

@pytest.mark.parametrize('n', [1, 513, 63999, 64000, 64001, 90000])
def test_any_length_gives_the_same_shape(ls, n):
    spec = ls.encode(torch.randn(2, n)*.1)
    assert spec.shape == (2, 1, 512, 256) and spec.dtype == torch.float32
    assert -1 <= spec.min() and spec.max() <= 1

def test_padding_and_cutting_are_silent(ls, waves):
    assert torch.equal(ls.encode(waves[:, :50000]), ls.encode(F.pad(waves[:, :50000], (0, 20000))))
    assert torch.equal(ls.encode(torch.cat([waves, waves], 1)), ls.encode(waves))

def test_encode_matches_the_documented_formula(ls, waves):
    S = torch.stft(F.pad(waves, (0, 1280)), 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    x = 1 + .4*torch.log10((S[:, None, :512]/512).clamp(1e-5, 1))
    assert (ls.encode(waves)-x).abs().max() < 1e-5

def test_full_scale_and_silence_map_to_the_ends(ls):
    assert ls.encode(torch.ones(64000))[0, 0, 0, 100] == pytest.approx(1, abs=1e-6)
    assert (ls.encode(torch.zeros(2, 64000)) == -1).all()
    assert (ls.encode(torch.full((64000,), 1e-6)) == -1).all()

def test_int16_numpy_and_halves(ls, waves):
    ints = (waves*32767).round().short()
    assert torch.equal(ls.encode(ints), ls.encode(ints/32768))
    assert torch.equal(ls.encode(ints.numpy()), ls.encode(ints))
    assert torch.equal(ls.encode(waves.double().numpy()), ls.encode(waves))
    for half in (torch.bfloat16, torch.float16): assert torch.equal(ls.encode(waves.to(half)), ls.encode(waves.to(half).float()))

def test_casts_and_autocast_do_not_change_the_result(ls, waves):
    spec = ls.encode(waves)
    assert torch.equal(LogSpectrogram().half().encode(waves), spec)
    with torch.autocast('cpu', torch.bfloat16): assert torch.equal(ls.encode(waves), spec)
    assert not list(ls.parameters()) and not ls.state_dict()

@pytest.mark.parametrize('wave, says', [
    (torch.zeros(0), 'at least one sample'), (torch.zeros(0, 64000), 'at least one sample'), (torch.tensor(1.), r'\(N,\) or \(B, N\)'),
    (torch.zeros(1, 1, 9), r'\(1, 1, 9\)'), (torch.tensor([1., math.nan]), 'NaN or infinity'), (torch.tensor([math.inf, 0]), 'NaN or infinity'),
    (torch.zeros(9, dtype=torch.int32), 'int32'), (torch.zeros(9, dtype=torch.bool), 'bool'), (torch.zeros(9, dtype=torch.complex64), 'complex64')])
def test_invalid_waves_are_refused(ls, wave, says):
    with pytest.raises(ValueError, match=says): ls.encode(wave)

def test_gradient(small):
    wave = tone(60, 4000)
    loud = small.encode(wave) > 0  # far from the floor, where the logarithm is nearly straight over a small step
    total = lambda x: small.encode(x)[loud].double().sum()
    x = wave.clone().requires_grad_()
    total(x).backward()
    step = 1e-3*x.grad/x.grad.norm()
    assert x.grad.isfinite().all()
    assert float(total(wave+step)-total(wave-step))/2 == pytest.approx(float(x.grad@step), rel=.02)
    quiet = (tone(60, 4000)*1e-7).requires_grad_()
    small.encode(quiet).sum().backward()
    assert (quiet.grad == 0).all()

# --- decode

def test_floor_is_exactly_zero(ls):
    spec = torch.full((2, 1, 512, 256), -1.)
    assert (ls.magnitude(spec) == 0).all() and (ls.magnitude(spec-1) == 0).all()
    assert (ls.decode(spec, n_iter=3) == 0).all()

def test_magnitude_is_the_inverse(ls, waves):
    spec = ls.encode(waves)
    M, S = ls.magnitude(spec), ls.stft(waves).abs()
    assert M.shape == (3, 1, 513, 256) and (M[:, :, -1] == 0).all()
    heard = spec > -1
    assert ((M[:, :, :-1]/S[:, :, :-1])[heard]-1).abs().max() < 1e-4
    assert (M[:, :, :-1][~heard] == 0).all()
    assert torch.equal(ls.magnitude(spec+3), torch.where(F.pad(spec, (0, 0, 0, 1), value=-5) >= -1, torch.tensor(512.), torch.tensor(0.)))

def test_levels_are_preserved(ls, waves):
    loud, soft = ls.decode(ls.encode(waves[:2])), ls.decode(ls.encode(waves[:2]*10**(-12/20)))
    assert (level_db(soft)-level_db(loud)+12).abs().max() < .1
    assert (level_db(loud)-level_db(waves[:2])).abs().max() < .5

@pytest.mark.parametrize('i', [3, 26, 33])
def test_levels_are_preserved_on_a_recorded_note(ls, i):
    wave = example_notes()[i][0]
    loud, soft = ls.decode(ls.encode(wave)), ls.decode(ls.encode(wave*10**(-12/20)))
    assert float(level_db(soft)-level_db(loud)) == pytest.approx(-12, abs=.1)
    assert float(level_db(loud)-level_db(wave)) == pytest.approx(0, abs=.5)

def test_a_note_depends_on_seed_and_index_only(small, small_spec):
    whole = small.decode(small_spec, n_iter=4, seed=3)
    pieces = torch.cat([small.decode(small_spec[i:i+2], n_iter=4, seed=3, first=i) for i in (0, 2, 4)])
    assert whole.shape == (5, small.n_samples) and torch.equal(whole, pieces)
    assert torch.equal(whole, small.decode(small_spec, n_iter=4, seed=3))
    assert not torch.equal(whole, small.decode(small_spec, n_iter=4, seed=4))
    same = small_spec[:1].expand(2, -1, -1, -1)
    assert not torch.equal(*small.decode(same, n_iter=1))
    assert torch.equal(*small.decode(same, n_iter=1, seed=None))

def test_the_global_generator_is_unchanged(small, small_spec):
    before = torch.get_rng_state()
    small.decode(small_spec, n_iter=1)
    assert torch.equal(before, torch.get_rng_state())

def test_one_note_without_batch(small, small_spec):
    assert torch.equal(small.decode(small_spec[0], n_iter=2), small.decode(small_spec[:1], n_iter=2))

def test_more_iterations_reduce_the_error(small, small_spec):
    off = [float(log_spectral_distance(small_spec, small.encode(small.decode(small_spec, n_iter=n)), active_frames(small_spec)).mean()) for n in (0, 8, 64)]
    assert off[0] > off[1] > off[2]

@pytest.mark.parametrize('spec, kw, says', [
    (torch.zeros(512, 256), {}, r'\(B, 1, 512, 256\), got \(512, 256\)'), (torch.zeros(2, 2, 256, 256), {}, r'\(2, 2, 256, 256\)'),
    (torch.zeros(0, 1, 512, 256), {}, r'\(0, 1, 512, 256\)'), (torch.full((1, 1, 512, 256), math.nan), {}, 'NaN'),
    (torch.zeros(1, 1, 512, 256, dtype=torch.int64), {}, 'int64'), (torch.zeros(1, 1, 512, 256), dict(n_iter=-1), 'n_iter must be an integer >= 0, got -1'),
    (torch.zeros(1, 1, 512, 256), dict(n_iter=2.5), 'n_iter must be an integer >= 0, got 2.5'), (torch.zeros(1, 1, 512, 256), dict(seed=-4), 'seed must be an integer >= 0, got -4'),
    (torch.zeros(1, 1, 512, 256), dict(first=-1), 'first must be an integer >= 0, got -1'), (torch.zeros(1, 1, 512, 256), dict(phase='pghj'), "'pghj' is unknown: choose one of .*griffinlim")])
def test_invalid_specs_are_refused(ls, spec, kw, says):
    with pytest.raises(ValueError, match=says): ls.decode(spec, **kw)

def test_phase_methods_can_be_added(small, small_spec, monkeypatch):
    seen = {}
    def silence(ls, magnitude, n_iter, seed, first):
        seen.update(shape=tuple(magnitude.shape), n_iter=n_iter, seed=seed, first=first)
        return magnitude.new_zeros(len(magnitude), ls.n_padded)
    monkeypatch.setitem(PHASES, 'silence', silence)
    assert (small.decode(small_spec, n_iter=7, seed=2, phase='silence', first=3) == 0).all()
    assert seen == dict(shape=(5, 129, 64), n_iter=7, seed=2, first=3)

# --- the layout

@pytest.mark.parametrize('kw, says', [(dict(n_fft=1023), 'n_fft must be an even integer >= 4, got 1023'), (dict(hop_length=0), r'hop_length must be in \[1, 512\], got 0'), (dict(hop_length=513), r'hop_length must be in \[1, 512\], got 513'),
    (dict(floor=1.), r'floor must be in \(0, 1\), got 1.0'), (dict(n_frames=2), 'n_frames must be >= 4, got 2'), (dict(duration=4.1), r'duration must be in \(0, 4.08\] s, got 4.1')])
def test_invalid_layouts_are_refused(kw, says):
    with pytest.raises(ValueError, match=says): LogSpectrogram(**kw)

def test_other_sizes():
    long = LogSpectrogram(n_frames=512, duration=8)
    assert (long.n_samples, long.n_padded, long.shape) == (128000, 130816, (1, 512, 512))
    cd = LogSpectrogram(sample_rate=44100, n_fft=2048, hop_length=512, n_frames=352)
    assert cd.encode(torch.zeros(176400)).shape == (1, 1, *cd.shape[1:])
    assert LogSpectrogram(**cd.config).config == cd.config
    assert LogSpectrogram(n_frames=4).n_samples == 768

# --- against torchaudio, which is the reference

@pytest.fixture(scope='module')
def torchaudio():
    "A torchaudio build that does not match torch raises OSError."
    return pytest.importorskip('torchaudio', exc_type=(ImportError, OSError))

@pytest.mark.parametrize('rate, n_fft, n_mels, norm', [(16000, 1024, 128, 'slaney'), (16000, 2048, 64, None), (44100, 2048, 96, 'slaney'), (24000, 64, 16, 'slaney')])
def test_mel_filters_agree_with_torchaudio(torchaudio, rate, n_fft, n_mels, norm):
    theirs = torchaudio.functional.melscale_fbanks(n_fft//2+1, 0., rate/2, n_mels, rate, norm=norm, mel_scale='slaney')
    ours = mel_filters(n_fft, n_mels, rate, norm)
    assert ours.dtype == theirs.dtype and ours.is_contiguous()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)

@pytest.mark.parametrize('n_fft, hop, momentum', [(256, 64, .99), (256, 128, .5), (256, 100, .99), (128, 32, 0.)])
def test_griffin_lim_agrees_with_torchaudio(torchaudio, n_fft, hop, momentum):
    x = torch.randn(2, 3, 20*hop, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(n_fft, dtype=torch.float64)
    M = torch.stft(x.flatten(0, 1), n_fft, hop, window=window, return_complex=True).abs().unflatten(0, (2, 3))
    for n_iter in (0, 1, 20):
        ours = griffin_lim(M, window, n_fft, hop, n_iter, momentum)
        theirs = torchaudio.functional.griffinlim(M, window, n_fft, hop, n_fft, 1., n_iter, momentum, None, False)
        assert ours.shape == theirs.shape and (ours-theirs).norm() < 1e-6*theirs.norm()
    single = griffin_lim(M.float(), window.float(), n_fft, hop, 4, momentum)
    theirs = torchaudio.functional.griffinlim(M.float(), window.float(), n_fft, hop, n_fft, 1., 4, momentum, None, False)
    assert (single-theirs).norm() < 1e-4*theirs.norm()

def test_griffin_lim_preserves_a_true_phase(small, waves):
    S = small.stft(waves)[:, 0]
    kept = griffin_lim(S.abs(), small.window(), 256, 64, n_iter=5, angles=S/S.abs().clamp(min=1e-20))
    x = F.pad(waves[:, :small.n_samples], (0, small.n_padded-small.n_samples))
    assert (kept-x).norm() < 1e-3*x.norm()
    assert griffin_lim(S[0].abs(), small.window(), 256, 64, n_iter=1, length=99).shape == (99,)

def test_random_phases_are_uniform():
    a = random_phases(3, (129, 64), seed=1)
    assert a.dtype == torch.complex64 and (a.abs()-1).abs().max() < 1e-6
    assert a.mean().abs() < .02 and torch.equal(a[2:], random_phases(1, (129, 64), seed=1, first=2))

# --- measures

def test_compress_and_expand():
    x = torch.linspace(-1, 1, 201)
    assert (compress(expand(x))-x).abs().max() < 1e-5 and expand(x)[0] == 0
    for floor in (1e-2, 1e-3, 1e-5, 3e-6): assert compress(torch.tensor([floor, 0.]), floor).tolist() == [-1, -1]

def test_log_spectral_distance():
    a = torch.rand(2, 1, 512, 256)-.5
    assert log_spectral_distance(a, a+.2).tolist() == pytest.approx([10, 10], rel=1e-4)
    half = torch.zeros(2, 256, dtype=torch.bool); half[:, :128] = True
    b = a.clone(); b[..., 128:] += 1
    assert log_spectral_distance(a, b, half).tolist() == [0, 0] and log_spectral_distance(a, b).tolist() == pytest.approx([25, 25], rel=1e-4)
    assert log_spectral_distance(a, b, half & False).isnan().all()
    with pytest.raises(ValueError, match='must have equal shapes'): log_spectral_distance(a, a[:1])

def test_active_frames(ls):
    wave = torch.zeros(2, 64000)
    wave[0, :16000] = torch.sin(torch.arange(16000)*.3)
    active = active_frames(ls.encode(wave))
    assert active.dtype == torch.bool and active[0, :60].all() and not active[0, 70:].any() and not active[1].any()
    assert torch.equal(active, active_frames(ls.encode(wave*.3)))

def test_level_db():
    assert level_db(torch.full((2, 100), .1)).tolist() == pytest.approx([-20, -20], abs=1e-4)
    assert level_db(np.zeros(4, dtype=np.int16)).tolist() == [-math.inf]

def test_plot_specs(tmp_path, small, small_spec):
    import matplotlib
    matplotlib.use('Agg')
    fig = plot_specs(small_spec, titles=[f'note {i}' for i in range(5)], ls=small, cols=3)
    assert [ax.get_title() for ax in fig.axes[:5]] == [f'note {i}' for i in range(5)]
    fig.savefig(tmp_path/'a.png')
    assert (tmp_path/'a.png').stat().st_size > 1000
    _, axes = matplotlib.pyplot.subplots(1, 2)
    assert plot_specs(small_spec[:2], axes=axes) is axes[0].figure
    matplotlib.pyplot.close('all')
    with pytest.raises(ValueError, match='empty'): plot_specs([])
    with pytest.raises(ValueError, match='1 titles, 5 specs'): plot_specs(small_spec, titles=['a'])

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
def test_on_a_gpu(ls, waves):
    spec = ls.encode(waves.cuda())
    assert spec.is_cuda and (expand(spec.cpu())-expand(ls.encode(waves))).abs().max() < 1e-5
    wave = ls.decode(spec)
    assert wave.is_cuda and (level_db(wave.cpu())-level_db(waves)).abs().max() < .5
