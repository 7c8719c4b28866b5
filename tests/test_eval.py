"The metrics of mars.eval against closed forms, torchmetrics, scipy and librosa, and on invalid input."
import ast, json, math, sys
from pathlib import Path
import numpy as np, pytest, torch
from mars.eval import F0, cents_error, check_f0_swift, density_coverage, f0, f0_accuracy, f0_swift, frechet_distance, frechet_floor
from mars.eval import frechet_infinity, inception_score, interval, kad, kid, kid_nistal, kid_nistal_floor
from mars.eval import label_accuracy, log_mel, log_mel_error, mel_distance, mel_features, memorisation, ndb
from mars.eval import nearest_mel_error, posterior_kl, proportion_z, share_interval, stft_distance, vendi_score

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)

def normal(n, d, seed, mean=0., std=1.):
    return mean + std*torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

def tone(pitch, partials=12, seconds=4., decay=1., seed=0):
    t, f = np.arange(int(seconds*16000))/16000, 440*2**((pitch-69)/12)
    phase = np.random.default_rng(seed).uniform(0, 2*np.pi, partials)
    x = sum(np.sin(2*np.pi*h*f*t+phase[h-1])/h for h in range(1, partials+1) if h*f < 7600)
    x = x*np.minimum(1, t/.01)*np.exp(-decay*t)
    return (.89*x/np.abs(x).max()).astype(np.float32)

# Fréchet distance

@pytest.mark.parametrize('n,m,d', [(300, 200, 8), (64, 64, 128), (40, 90, 64), (3, 2, 5)])
def test_frechet_agrees_with_sqrtm(n, m, d):
    from scipy.linalg import sqrtm
    x, y = normal(n, d, 0).numpy(), normal(m, d, 1, .3, 1.4).numpy()
    S, T = np.cov(x.T), np.cov(y.T)
    want = ((x.mean(0)-y.mean(0))**2).sum() + np.trace(S) + np.trace(T) - 2*np.trace(np.real(sqrtm(S @ T)))
    got = frechet_distance(x, y)
    assert isinstance(got, float) and got == pytest.approx(want, rel=1e-5, abs=1e-5)
    assert got == pytest.approx(frechet_distance(y, x), rel=1e-9)

def test_frechet_identity_rotation_scale_and_types():
    x, y = normal(100, 12, 0), normal(80, 12, 1, .5)
    q = torch.linalg.qr(normal(12, 12, 2)).Q
    assert frechet_distance(x, x) < 1e-9 and frechet_distance(normal(20, 100, 3), normal(20, 100, 3)) < 1e-9
    assert frechet_distance(x@q, y@q) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(5*x, 5*y) == pytest.approx(25*frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x, x[torch.randperm(100)]) < 1e-9
    assert frechet_distance(x.numpy(), y.float()) == pytest.approx(frechet_distance(x, y), rel=1e-5)
    assert frechet_distance(x.float().requires_grad_(), y) == pytest.approx(frechet_distance(x, y), rel=1e-5)

def test_frechet_two_by_two():
    def exact(S, seed):
        S = torch.tensor(S, dtype=torch.float64); x = normal(30, 2, seed); x -= x.mean(0)
        return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T @ torch.linalg.cholesky(S).T
    assert frechet_distance(exact([[2., 1.], [1., 2.]], 0), exact([[1., 0.], [0., 3.]], 1)) == pytest.approx(.5166852265, abs=1e-9)

@pytest.mark.parametrize('d,n', [(16, 2000), (128, 1000)])
def test_frechet_floor(d, n):
    got = np.mean([frechet_distance(normal(n, d, 2*s), normal(n, d, 2*s+1)) for s in range(4)])
    want = frechet_floor(torch.ones(d), n)
    assert want == pytest.approx(2*d/n + d*(d+1)/(2*(n-1)))
    assert got == pytest.approx(want, rel=.1)

class Identity(torch.nn.Module):
    "A feature module for torchmetrics: one row of features per note."
    def __init__(self, d): super().__init__(); self.num_features = d
    def forward(self, x): return x.flatten(1)

def test_frechet_agrees_with_torchmetrics():
    metric = pytest.importorskip('torchmetrics.image.fid').FrechetInceptionDistance
    x, y = normal(300, 24, 0).float(), normal(250, 24, 1, .2, 1.3).float()
    m = metric(feature=Identity(24), normalize=False, input_img_size=(1, 4, 6)).set_dtype(torch.float64)
    m.update(x.view(-1, 1, 4, 6), real=True); m.update(y.view(-1, 1, 4, 6), real=False)
    assert frechet_distance(x, y) == pytest.approx(float(m.compute()), abs=1e-4)

# KID and KAD

def test_kid_agrees_with_torchmetrics():
    metric = pytest.importorskip('torchmetrics.image.kid').KernelInceptionDistance
    x, y = normal(200, 24, 0).float(), normal(200, 24, 1, .2, 1.1).float()
    m = metric(feature=Identity(24), subsets=3, subset_size=200)
    m.update(x.view(-1, 1, 4, 6), real=True); m.update(y.view(-1, 1, 4, 6), real=False)
    mean, std = kid(x, y, subsets=3, subset_size=200)
    assert mean == pytest.approx(float(m.compute()[0]), abs=1e-4) and std < 1e-9

def test_kid_exact_and_closed_form():
    x = torch.tensor([[0.], [1.]])
    assert kid(x, x, subsets=2, subset_size=2) == (-3.5, 0.)
    mean, std = kid(normal(3000, 8, 0), normal(3000, 8, 1, .5), subsets=10)
    assert mean == pytest.approx(1.1171875, rel=.06)
    assert abs(kid(normal(3000, 64, 0), normal(3000, 64, 1), subsets=10)[0]) < .003

def test_kid_subsets_by_seed_and_without_replacement():
    x, y = normal(60, 4, 0), normal(70, 4, 1)
    assert kid(x, y, 5, 40) == kid(x, y, 5, 40) != kid(x, y, 5, 40, seed=1)
    assert kid(x, y[:60], 4, 60)[1] < 1e-9   # a full subset is the whole set, whatever the draw

@pytest.mark.parametrize('d,mean,v,s,want', [(8, .5, 1, 4, 6.74745), (8, 0, 2, 4, 2.81324), (128, .1, 1, 16, .301126)])
def test_kad_closed_form(d, mean, v, s, want):
    values = [kad(normal(800, d, 2*i), normal(800, d, 2*i+1, mean, v**.5), s) for i in range(8)]
    assert abs(np.mean(values)-want) < 4*np.std(values)/np.sqrt(7)

def test_kad_width_null_and_slices():
    x, y = normal(1500, 6, 0), normal(1300, 6, 1)
    sigma = float(np.median(torch.pdist(x).numpy()))
    assert kad(x, y) == pytest.approx(kad(x, y, sigma), rel=1e-9)
    k = lambda a, b: torch.exp(-torch.cdist(a, b)**2/(2*sigma**2))
    off = lambda a: (k(a, a).sum()-len(a))/(len(a)*(len(a)-1))
    assert kad(x, y) == pytest.approx(100*float(off(x)+off(y)-2*k(x, y).mean()), abs=1e-9)
    assert abs(np.mean([kad(normal(500, 6, 2*s), normal(500, 6, 2*s+1)) for s in range(10)])) < .02
    assert kad(x+1, y) > .5

# NDB

@pytest.mark.parametrize('p,n1,q,n2,z,value', [(.1, 1000, .2, 500, -5.370862, 7.836e-8), (.02, 10000, .024, 4096, -1.498149, .134094),
                                               (.02, 10000, .0255, 4096, -2.039518, .041388), (.02, 10000, 0, 4096, 9.115868, 7.8e-20)])
def test_proportion_z(p, n1, q, n2, z, value):
    got = proportion_z(p, n1, q, n2)
    assert float(got[0]) == pytest.approx(z, abs=1e-6) and float(got[1]) == pytest.approx(value, rel=2e-3)

def test_proportion_z_without_samples():
    z, value = proportion_z([0., 1., .5], 100, [0., 1., .5], 100)
    assert z.tolist() == [0, 0, 0] and value.tolist() == [1, 1, 1]

def test_ndb_null_identity_and_lost_mode():
    centres = 2*normal(10, 8, 99)
    def blobs(n, seed, modes=10): return centres[torch.arange(n) % modes] + normal(n, 8, seed)
    ref = blobs(4000, 0)
    null = np.mean([ndb(blobs(4000, 10+s), blobs(2000, 20+s), 50, seed=s).ndb_over_k for s in range(3)])
    lost, same = ndb(ref, blobs(1800, 2, modes=9), 50), ndb(ref, ref, 50)
    assert null < .1 and lost.ndb_over_k > .12 and same.ndb == 0 and same.js < .01
    assert lost.ndb == lost.different.sum() == round(50*lost.ndb_over_k) and lost.js > .02
    assert lost.p.sum() == pytest.approx(1) and lost.q.sum() == pytest.approx(1) and lost.p.shape == (50,)
    again = ndb(ref, blobs(1800, 2, modes=9), 50)
    assert (again.p == lost.p).all() and again.js == lost.js

def test_ndb_disjoint_sets():
    one = torch.cat([normal(200, 4, 0), normal(200, 4, 1)+50])
    r = ndb(one, normal(300, 4, 2)+50, k=2)
    assert r.ndb == 2 and sorted(r.q.tolist()) == [0, 1] and 0 < r.js < math.log(2)

# Inception score

def test_inception_score_oracles():
    assert inception_score(torch.zeros(40, 6)) == pytest.approx(1)
    assert inception_score(torch.eye(11).repeat(5, 1).log()) == pytest.approx(11)
    assert inception_score(np.log([[.9, .1], [.1, .9]])) == pytest.approx(1.444935, abs=1e-6)
    counts = torch.tensor([843, 269, 180, 652, 766, 202, 502, 235, 306, 0, 141])
    assert inception_score(1000*torch.eye(11).repeat_interleave(counts, 0)) == pytest.approx(8.39, abs=.005)

def test_inception_score_bounds_and_splits():
    logits = 3*normal(200, 7, 0)
    assert 1 < inception_score(logits) < 7
    mean, std = inception_score(logits, splits=10)
    assert 1 < mean < inception_score(logits) and std > 0
    assert inception_score(logits+100) == pytest.approx(inception_score(logits))

def test_inception_score_agrees_with_torchmetrics():
    metric = pytest.importorskip('torchmetrics.image.inception').InceptionScore
    logits = 2*normal(300, 24, 0).float()
    m = metric(feature=Identity(24), splits=1); m.update(logits.view(-1, 1, 4, 6))
    assert inception_score(logits) == pytest.approx(float(m.compute()[0]), abs=1e-4)

# Density and coverage

def naive_density_coverage(x, y, k=5):
    d, e = np.linalg.norm(x[:, None]-x, axis=-1), np.linalg.norm(x[:, None]-y, axis=-1)
    r = np.sort(d, 1)[:, k][:, None]
    return (e < r).sum()/(k*len(y)), (e < r).any(1).mean()

def test_density_coverage_agrees_with_the_definition_across_slices():
    x, y = normal(700, 5, 0), normal(600, 5, 1, .2)
    r = density_coverage(x, y)
    assert (r.density, r.coverage) == pytest.approx(naive_density_coverage(x.numpy(), y.numpy()))
    same, far = density_coverage(x, x), density_coverage(x, x+99)
    assert (same.density, same.coverage) == (1, 1) and (far.density, far.coverage) == (0, 0)

def test_density_coverage_null():
    N = 1000
    r = [density_coverage(normal(N, 16, s), normal(N, 16, 50+s)) for s in range(3)]
    assert np.mean([v.density for v in r]) == pytest.approx(1, abs=.06)
    assert np.mean([v.coverage for v in r]) == pytest.approx(1 - math.prod((N-j)/(2*N-j) for j in range(1, 6)), abs=.012)

def test_coverage_rises_with_copies_and_falls_with_a_lost_mode():
    centres = 3*normal(5, 8, 9)
    blobs = lambda n, seed, modes=5: centres[torch.arange(n) % modes] + normal(n, 8, seed)
    x = blobs(1000, 0)
    fresh, lost, copied = (density_coverage(x, v).coverage for v in (blobs(1000, 1), blobs(1000, 2, 4), x))
    assert lost < .85 < fresh < copied == 1

# Bad input, for all of them

PAIRS = dict(frechet_distance=frechet_distance, kid=lambda x, y: kid(x, y, 2, 5), kad=kad, ndb=lambda x, y: ndb(x, y, 3), density_coverage=density_coverage)

@pytest.mark.parametrize('name', PAIRS)
def test_invalid_features_are_refused(name):
    good, fn = normal(20, 4, 0), PAIRS[name]
    hole, infinite = good.clone(), good.clone(); hole[3, 1] = math.nan; infinite[0, 0] = math.inf
    for x, y, message in [(hole, good, 'NaN or infinite values in 1 of 20'), (good, hole, 'NaN'), (good, infinite, 'infinite'),
                      (good[0], good, r'has shape \(4,\)'), (good, good[None], 'has shape'), (good, good[:, :3], 'same embedder'),
                      (good[:0], good, 'has 0 rows'), (good, good[:0], 'has 0 rows')]:
        with pytest.raises(ValueError, match=message): fn(x, y)

def test_too_few_rows_and_invalid_settings_are_refused():
    x = normal(20, 4, 0)
    for call, message in [(lambda: frechet_distance(x[:1], x), 'x has 1 rows'), (lambda: kid(x, x), 'smaller subset_size'), (lambda: kid(x, x, 3, 1), 'subset_size >= 2, got 3 and 1'),
                      (lambda: kad(x, x[:1]), 'y has 1 rows'), (lambda: kad(x, x, 0), 'must be positive'), (lambda: kad(0*x, x), 'rows repeat'),
                      (lambda: ndb(x, x), 'needs at least 200'), (lambda: ndb(x, x, 1), 'k must be >= 2, got 1'), (lambda: density_coverage(x[:5], x), 'needs at least 6'),
                      (lambda: density_coverage(x, x, 0), 'k must be >= 1, got 0'), (lambda: inception_score(x, 0), 'splits must be >= 1, got 0'), (lambda: inception_score(x, 21), 'needs at least 21'),
                      (lambda: inception_score(x[0]), 'has shape'), (lambda: inception_score(x*math.nan), 'NaN'), (lambda: inception_score(x[:, :1]*math.inf), 'infinite')]:
        with pytest.raises(ValueError, match=message): call()

# Log-mel

def test_log_mel_agrees_with_librosa():
    librosa = pytest.importorskip('librosa')
    x = tone(50, 28, 1.)
    power = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=1024, hop_length=256, n_mels=128, fmax=8000)
    want = (librosa.power_to_db(power, ref=np.max, amin=1e-30, top_db=80)+80)/80
    got = log_mel(x).numpy()
    assert got.shape == want.shape == (128, 63) and np.abs(got-want).max() < 1e-3
    assert got.max() == 1 and got.min() >= 0

def test_log_mel_error_known_answers():
    x = .1*torch.randn(3, 16000, generator=torch.Generator().manual_seed(1))
    step = 20*math.log10(2)/80
    for other in (x/2, x*2):   # louder than the reference counts as well
        e = log_mel_error(x, other)
        assert e.mae == pytest.approx(step, abs=1e-5) and e.mse == pytest.approx(step**2, abs=1e-5) and e.mae_db == pytest.approx(6.0206, abs=1e-3)
    clean = log_mel_error(x, x)
    assert clean.mse == clean.mae == clean.active_mse == clean.active_mae == clean.active_relative_mse == 0
    one = [log_mel_error(x[i], x[i]+.01*x[0].flip(0)) for i in range(3)]
    assert log_mel_error(x, x+.01*x[0].flip(0)).mse == pytest.approx(np.mean([e.mse for e in one]), rel=1e-5)

def test_log_mel_error_on_active_frames():
    x = torch.from_numpy(tone(60)); x[16000:] = 0
    e = log_mel_error(x, x/2)
    assert 3*e.mae < e.active_mae <= 20*math.log10(2)/80+1e-6   # three quarters of the clip agree for free
    assert 0 < e.active_relative_mse < 1

def test_mel_features():
    w = torch.stack([torch.from_numpy(tone(p, seconds=1.)) for p in range(40, 110)])
    f = mel_features(w)
    assert f.shape == (70, 128) and torch.isfinite(f).all() and 0 <= f.min() and f.max() < 1.1
    assert torch.allclose(f[66:], mel_features(w[66:])) and mel_features(w, bands=8, frames=3).shape == (70, 24)
    assert mel_features(torch.zeros(2, 16000)).abs().sum() == 0 and (mel_features(w/2) <= f).all()

def test_invalid_waves_are_refused():
    x = torch.from_numpy(tone(60, seconds=1.))
    for call, message in [(lambda: log_mel(x[:1000]), 'needs at least 1024'), (lambda: log_mel(x*math.nan), 'NaN or infinite samples'), (lambda: log_mel(0*x), 'silent'),
                      (lambda: log_mel(x[None, None]), 'has shape'), (lambda: log_mel_error(x, x[:-1]), 'one length'), (lambda: log_mel_error(0*x, x), 'silent'),
                      (lambda: mel_features(x), 'pass a batch'), (lambda: f0(x[None]), 'one mono clip'), (lambda: f0(x[:3000]), 'needs at least 4096'),
                      (lambda: f0(x*math.inf), 'infinite'), (lambda: f0(x, fmin=100, fmax=50), 'must hold, got 100 and 50')]:
        with pytest.raises(ValueError, match=message): call()

# f0

@pytest.mark.parametrize('partials,pitches', [(1, [21, 36, 60, 84, 108]), (12, [21, 27, 38, 49, 60, 71, 72, 83, 94, 104, 108])])
def test_f0_over_the_range(partials, pitches):
    found = [f0(tone(p, partials, decay=.5)) for p in pitches]
    assert np.abs(cents_error([r.midi for r in found], pitches)).max() < 20
    assert min(r.voiced for r in found) > .9

def test_f0_finds_short_periods():
    "Two partials at 3.7 kHz: the coarse pass finds three periods as one."
    assert abs(cents_error(f0(tone(106, 3, seed=14)).midi, 106)) < 20

def test_f0_other_rates_types_and_short_notes():
    x = tone(57)
    assert abs(cents_error(f0(torch.from_numpy(x)).midi, 57)) < 20
    assert cents_error(f0(x[::2], sample_rate=8000).midi, 57) == pytest.approx(0, abs=20)
    assert f0(x).hz == pytest.approx(220, rel=.01)
    assert abs(cents_error(f0(tone(85, decay=15.)).midi, 85)) < 20   # a xylophone's length

def test_f0_of_silence_and_noise():
    noise = .1*torch.randn(64000, generator=torch.Generator().manual_seed(0))
    for wave in (noise, torch.zeros(64000)):
        r = f0(wave)
        assert isinstance(r, F0) and math.isnan(r.midi) and math.isnan(r.hz) and r.voiced == 0

def test_cents_error():
    assert cents_error(60.25, 60) == 25 and isinstance(cents_error(60, 60), float)
    assert cents_error(72.1, 60, fold=True) == pytest.approx(10) and cents_error(47.9, 60, fold=True) == pytest.approx(-10)
    assert np.isnan(cents_error([math.nan, 60], [60, 60])).tolist() == [True, False]

def swift(): pytest.importorskip('swift_f0')

def partials(amplitudes, hz, offset=0., n=24000):
    "A tone of partials 1, 2, 3, ... with given amplitudes."
    t = np.arange(n)/16000
    return (offset + .2*sum(a*np.sin(2*np.pi*hz*k*t) for k, a in enumerate(amplitudes, 1))).astype(np.float32)

def test_f0_swift_over_the_range():
    "The network itself covers 31 to 96."
    swift()
    pitches = [21, 27, 30, 38, 60, 83, 96, 97, 104, 108]
    found = [f0_swift(tone(p, 12, decay=.5)) for p in pitches]
    assert np.abs(cents_error([r.midi for r in found], pitches)).max() < 20 and min(r.voiced for r in found) > .8

@pytest.mark.parametrize('pitch', [57, 69])
@pytest.mark.parametrize('amplitudes', [(0, 1, 1/2, 1/3, 1/4), (.2, 1, .1, .5), (.3, .1, 1, 0, 0, .4), (1, 0, .5, 0, .3)])
def test_f0_swift_makes_no_octave_error(amplitudes, pitch):
    "The fundamental missing, the second or third partial dominant, odd partials alone."
    swift()
    assert abs(cents_error(f0_swift(partials(amplitudes, 440*2**((pitch - 69)/12))).midi, pitch)) < 35

def test_f0_swift_takes_a_dominant_third_partial_of_a_low_tone():
    "A known limit, named in the notebook."
    swift()
    assert f0_swift(partials((.3, .1, 1, 0, 0, .4), 440*2**((38 - 69)/12))).midi == pytest.approx(38 + 12*math.log2(3), abs=.3)

def test_f0_swift_of_signals_without_a_pitch():
    swift()
    noise = np.random.default_rng(0).standard_normal(64000).astype(np.float32)
    for wave in (.1*noise, 1e-3*noise, np.zeros(64000), np.full(64000, .5), 1e-5*tone(60)):
        r = f0_swift(wave)
        assert isinstance(r, F0) and math.isnan(r.midi) and r.voiced == 0

def test_f0_swift_ignores_a_constant_offset_and_takes_other_rates():
    swift()
    x = partials((1, .5, .3), 220.)
    assert f0_swift(x).midi == pytest.approx(f0_swift(x + .3).midi, abs=.02) == pytest.approx(57, abs=.2)
    assert f0_swift(torch.from_numpy(tone(57)[::2].copy()), sample_rate=8000).midi == pytest.approx(57, abs=.2)
    for wave, message in ((x[None], 'one mono clip'), (x[:3000], 'needs at least 4096'), (x*math.inf, 'infinite')):
        with pytest.raises(ValueError, match=message): f0_swift(wave)

def test_f0_swift_that_is_not_installed(monkeypatch):
    "The error names the extra; checks of the clip come first."
    import mars.eval
    mars.eval._swift_detector.cache_clear()
    monkeypatch.setitem(sys.modules, 'swift_f0', None)
    with pytest.raises(ImportError, match=r"pip install 'mars-spectrogram\[f0\]'"): f0_swift(tone(60))
    assert 'not installed' in check_f0_swift()
    with pytest.raises(ValueError, match='one mono clip'): f0_swift(tone(60)[None])

def test_f0_on_recorded_notes():
    from mars.data import example_notes
    midi, pitch = zip(*[(f0(wave).midi, note.pitch) for wave, note in [example_notes()[i] for i in range(0, 47, 2)]])
    share = [float(np.mean(np.abs(cents_error(midi, pitch, fold)) < 50)) for fold in (False, True)]
    assert share[0] > .85 and share[1] > .95

def test_import_is_cheap():
    "Heavy and optional packages are imported inside the functions that need them."
    tree = ast.parse((ROOT/'mars/eval.py').read_text())
    names = {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names} | {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert names <= {'math', 'dataclasses', 'functools', 'numpy', 'torch', 'torch.nn.functional', 'stft'}  # mars.stft imports no more than torch itself

# Extrapolation, intervals

def test_frechet_infinity_removes_the_bias():
    pairs = [(normal(300, 12, 2*s), normal(300, 12, 2*s+1)) for s in range(8)]   # truth: 0
    plain, one, both = (np.mean([f(x, y) for x, y in pairs]) for f in (frechet_distance, lambda x, y: frechet_infinity(x, y).value, lambda x, y: frechet_infinity(x, y, shrink_reference=True).value))
    floor = frechet_floor(torch.ones(12), 300)
    assert plain == pytest.approx(floor, rel=.1) and one == pytest.approx(floor/2, rel=.3) and abs(both) < .12*floor

def test_frechet_infinity_is_a_line_over_notes():
    x, y = normal(4000, 16, 0), normal(2000, 16, 1)
    r = frechet_infinity(x, y, n_sizes=6)
    assert r.sizes.tolist() == sorted(r.sizes.tolist()) and r.sizes[0] == 500 and r.sizes[-1] == 2000 and r.distances[-1] == pytest.approx(frechet_distance(x, y))
    assert r.r2 > .9 and r.slope > 0 and abs(r.value) < .02 < r.distances[0] and frechet_infinity(x, y, n_sizes=6).value == r.value
    windows = frechet_infinity(x.view(1000, 4, 16), y.view(500, 4, 16), n_sizes=6)
    assert windows.sizes[-1] == 500 and windows.distances[-1] == pytest.approx(frechet_distance(x, y))

def test_frechet_infinity_of_paired_rows():
    x = normal(400, 12, 0); y = x + .3*normal(400, 12, 1)
    truth = 12*(math.sqrt(1.09)-1)**2
    assert frechet_infinity(x, y, paired=True).value == pytest.approx(truth, abs=.05) and frechet_infinity(x, y, shrink_reference=True).value < -.15
    with pytest.raises(ValueError, match='equal numbers'): frechet_infinity(x, y[1:], paired=True)

def test_interval_of_a_mean():
    x = normal(900, 1, 0)[:, 0]
    for method in ('subsample', 'bootstrap'):
        r = interval(torch.mean, x, method=method, n_resamples=600)
        assert r.std == pytest.approx(float(x.std())/30, rel=.12) and r.value == pytest.approx(float(x.mean()))
        assert r.low < r.value < r.high and r.high-r.low == pytest.approx(3.92*r.std, rel=.12)
    assert interval(torch.mean, x, n_resamples=20) == interval(torch.mean, x, n_resamples=20) != interval(torch.mean, x, n_resamples=20, seed=1)

def test_interval_resamples_tuples_together():
    x = normal(50, 3, 0)
    r = interval(lambda s, z: float((s[0]-s[1]).abs().sum()), (x, x.clone()), x, n_resamples=12, method='bootstrap')
    assert (r.value, r.low, r.high) == (0, 0, 0)

def test_interval_of_a_frechet_distance_is_not_shifted_by_repeats():
    x, y = normal(100, 10, 0), normal(100, 10, 1)
    r = interval(frechet_distance, x, y, n_resamples=40)
    assert r.low < frechet_distance(x, y) < r.high
    g = np.random.default_rng(0)
    plain = [frechet_distance(x[g.integers(100, size=100)], y[g.integers(100, size=100)]) for _ in range(40)]
    assert np.quantile(plain, .025) > r.value   # what the plain bootstrap would say

# KID of the public code

@pytest.mark.parametrize('n,m', [(40, 40), (40, 25)])
def test_kid_nistal_is_the_formula_with_its_diagonal(n, m):
    x, y = normal(n, 6, 0).numpy(), normal(m, 6, 1, .4).numpy()
    k = lambda a, b: 16/(16+((a[:, None]-b)**2).sum(-1))
    assert kid_nistal(x, y) == pytest.approx(k(x, x).sum()/(n*(n-1)) + k(y, y).sum()/(m*(m-1)) - 2*k(x, y).mean(), abs=1e-9)
    assert kid_nistal_floor(n, m) == pytest.approx(1/(n-1)+1/(m-1))

def test_kid_nistal_floor_is_its_mean_for_equal_distributions():
    values = [kid_nistal(normal(1000, 11, 2*s), normal(1000, 11, 2*s+1)) for s in range(8)]
    assert np.mean(values) == pytest.approx(kid_nistal_floor(1000), rel=.1) and kid_nistal_floor(4096) == pytest.approx(.000488, abs=1e-6)

# Labels

def test_posterior_kl():
    p, q = torch.tensor([[.9, .1], [.5, .5]]), torch.tensor([[.5, .5], [.9, .1]])
    assert posterior_kl(p.log(), q.log()) == pytest.approx(np.sum((p*(p/q).log()).numpy(), 1), abs=1e-6)
    x = 3*normal(30, 9, 0); x[:, 0] = -math.inf
    assert posterior_kl(x, x).max() == 0 and posterior_kl(x, x+5).max() < 1e-9 and posterior_kl(x, x.roll(1, 0)).min() > 0

def test_label_accuracy():
    pitch, family = torch.full((5, 128), -math.inf), torch.zeros(5, 11)
    pitch[torch.arange(5), [60, 48, 61, 72, 60]] = 1.; family[torch.arange(5), [0, 1, 2, 3, 4]] = 1
    got = label_accuracy(dict(pitch=pitch, family=family), dict(pitch=[60, 60, 60, 60, -1], family=[0, 1, 2, 0, -1], velocity=[1]*5))
    assert {k: v.tolist() for k, v in got.items()} == dict(pitch=[True, False, False, False], octave=[True, True, False, True], family=[True, True, True, False])
    for labels, message in [(dict(pitch=[60]*4), 'one label per note'), (dict(family=[11]*5), 'outside the classifier'), (dict(velocity=[1]*5), 'nothing to compare')]:
        with pytest.raises(ValueError, match=message): label_accuracy(dict(pitch=pitch, family=family), labels)

def test_f0_accuracy():
    r = f0_accuracy([60.2, 71.9, math.nan, 64], [60, 60, 60, 60])
    assert vars(r) == pytest.approx(dict(within=.25, folded=.5, median_cents=400, folded_cents=20, voiced=.75))
    silent = f0_accuracy([math.nan]*2, [60, 61])
    assert silent.within == silent.folded == silent.voiced == 0 and math.isnan(silent.median_cents)

# Copies and diversity

def test_memorisation_null_and_copies():
    make = lambda n, s: 1.5*normal(6, 10, 99)[torch.arange(n) % 6] + normal(n, 10, s)
    train, test, fresh = make(1500, 0), make(1000, 1), make(1000, 2)
    null, copied = memorisation(train, test, fresh), memorisation(train, test, torch.cat([train[:500], fresh[:500]]))
    assert null.quantile_share < .03 and null.median_ratio == pytest.approx(1, abs=.05) and null.auth == pytest.approx(null.auth_test, abs=.05) and abs(null.c_t) < 1.6
    assert copied.quantile_share == pytest.approx(.505, abs=.01) and copied.median_ratio < .5 and copied.auth < null.auth-.2 and copied.c_t < -3
    near = memorisation(train, test, train[:1000]+.05*normal(1000, 10, 5))   # copies with a little noise are copies
    assert near.quantile_share > .99 and near.median_ratio < .1 and near.c_t < -5

def test_memorisation_agrees_with_the_definition():
    train, test, query = normal(70, 3, 0), normal(110, 3, 1), normal(90, 3, 2, .3)
    r, d = memorisation(train, test, query, cells=1), lambda a, b: np.linalg.norm(a[:, None].numpy()-b.numpy(), axis=-1)
    q, t, own = d(query, train), d(test, train), d(train, train)+1e9*np.eye(70)
    assert r.quantile_share == pytest.approx((q.min(1) < np.quantile(t.min(1), .01)).mean()) and r.median_ratio == pytest.approx(torch.tensor(q.min(1)).median()/torch.tensor(t.min(1)).median())
    assert r.auth == pytest.approx((q.min(1) > own.min(1)[q.argmin(1)]).mean()) and r.auth_test == pytest.approx((t.min(1) > own.min(1)[t.argmin(1)]).mean())
    from scipy.stats import mannwhitneyu
    u = mannwhitneyu(q.min(1), t.min(1)).statistic
    assert r.c_t == pytest.approx((u-90*110/2)/np.sqrt(90*110*201/12))

def test_proportion_interval_is_wilson():
    r = share_interval([True]*9 + [False])
    lo, hi = r.low, r.high # both solve (p - x)^2 = z^2 x(1-x)/n
    for x in (lo, hi): assert (.9-x)**2 == pytest.approx(1.959964**2*x*(1-x)/10, rel=1e-6)
    sure = share_interval([1]*64)
    assert (sure.value, sure.high) == (1, 1) and sure.low == pytest.approx(.943, abs=.001) and share_interval([0]*64).low == 0
    with pytest.raises(ValueError, match="at least one"): share_interval([])

def test_vendi_score():
    assert vendi_score(torch.eye(9).repeat(2, 1)) == pytest.approx(9) and vendi_score(np.ones((5, 3))) == pytest.approx(1)
    x = normal(30, 12, 0)
    k = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)/30
    lam = torch.linalg.eigvalsh(k).clamp(min=1e-15)
    assert vendi_score(x) == pytest.approx(float(torch.exp(-(lam*lam.log()).sum())), rel=1e-6)
    assert vendi_score(x[torch.randperm(30)]) == pytest.approx(vendi_score(x)) and vendi_score(5*x) == pytest.approx(vendi_score(x))

# Distances of waves

def test_mel_and_stft_distance():
    x = .1*torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    assert mel_distance(x, x).tolist() == stft_distance(x, x).tolist() == [0, 0, 0]
    y = x.flip(0)
    assert mel_distance(x, y) == pytest.approx(mel_distance(y, x)) and mel_distance(x, y)[1] == 0 < mel_distance(x, y)[0]
    want = 0
    for w in (2048, 512):
        A, B = (np.abs(torch.stft(v, w, w//4, window=torch.hann_window(w), return_complex=True)[0].numpy()) for v in (x, y))
        want += np.abs(np.log10(np.maximum(A, 1e-5)**2)-np.log10(np.maximum(B, 1e-5)**2)).mean() + np.abs(A-B).mean()
    assert stft_distance(x, y)[0] == pytest.approx(want, rel=1e-4)
    louder = [mel_distance(x, x+s*y)[0] for s in (.1, .3, 1)]
    assert louder == sorted(louder)

def test_mel_distance_uses_the_filter_bank_of_librosa():
    librosa = pytest.importorskip('librosa')
    x, y = (.1*np.random.default_rng(s).standard_normal(8000).astype(np.float32) for s in (0, 1))
    want = 0
    for w, m in ((2048, 150), (512, 80)):
        A, B = (librosa.feature.melspectrogram(y=v, sr=16000, n_fft=w, hop_length=w//4, n_mels=m, power=1, pad_mode='reflect') for v in (x, y))
        want += 2*np.abs(np.log10(np.maximum(A, 1e-5))-np.log10(np.maximum(B, 1e-5))).mean() + np.abs(A-B).mean()
    assert mel_distance(x, y)[0] == pytest.approx(want, rel=1e-4)

def test_nearest_mel_error_over_blocks_and_types():
    ref = torch.stack([torch.from_numpy(tone(p, 8, 1.)) for p in range(40, 75)])
    q = torch.stack([torch.from_numpy(tone(p, 8, 1., seed=3)) for p in (44.3, 60, 70.4)])
    r, one = nearest_mel_error(ref, q, block=8), nearest_mel_error(ref, q, block=64)
    assert (r.index == one.index).all() and r.index.tolist() == [4, 20, 30] and r.mse == pytest.approx(one.mse) and r.mae == pytest.approx(one.mae)
    power = lambda w: log_mel(w, ref=torch.full((len(w),), 2542.))
    d = (power(q)[:, None]-power(ref)).square().mean((-1, -2))
    assert r.mse == pytest.approx(d.min(1).values.numpy(), rel=1e-4)
    whole = (ref*32767).to(torch.int16)
    exact = nearest_mel_error(whole.numpy(), whole[5:8])
    assert exact.mse.tolist() == [0, 0, 0] and exact.index.tolist() == [5, 6, 7]

def test_invalid_input_of_the_other_metrics():
    x, w = normal(40, 4, 0), torch.zeros(2, 4000)
    hole = x.clone(); hole[0, 0] = math.nan
    for call, message in [(lambda: frechet_infinity(hole, x), 'NaN'), (lambda: frechet_infinity(x, x, min_size=30), 'pass at least 60'), (lambda: frechet_infinity(x, x, n_sizes=2), 'n_sizes must be >= 3'),
                      (lambda: interval(torch.mean, x, method='jackknife'), 'subsample'), (lambda: interval(torch.mean, x, n_resamples=3), 'n_resamples must be >= 10'), (lambda: interval(torch.mean, x[:3]), 'at least 4'),
                      (lambda: interval(torch.mean, (x, x[1:])), 'equal numbers'), (lambda: kid_nistal(x, hole), 'NaN'), (lambda: kid_nistal(x, x[:, :2]), 'same embedder'),
                      (lambda: posterior_kl(x, x[1:]), 'pair the notes'), (lambda: posterior_kl(x, hole), 'NaN'), (lambda: f0_accuracy([], []), 'at least one'),
                      (lambda: memorisation(x, x, x), 'at least 100'), (lambda: memorisation(x, x.repeat(5, 1), x), 'split by instrument'), (lambda: vendi_score(0*x), 'no direction'),
                      (lambda: mel_distance(w, w[:, :3000]), 'one length'), (lambda: mel_distance(w[:, :1500], w[:, :1500]), 'at least 2048'), (lambda: stft_distance(w*math.nan, w), 'NaN'),
                      (lambda: nearest_mel_error(w, w[:0]), 'at least one of each'), (lambda: nearest_mel_error(w, w[:, :2000]), 'one length'), (lambda: mel_features(w.int()), 'int16')]:
        with pytest.raises(ValueError, match=message): call()

def test_order_and_precision_do_not_matter():
    x, y = normal(300, 8, 0), normal(300, 8, 1, .3)
    p = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    for f in (frechet_distance, lambda a, b: kad(a, b, 3.), kid_nistal, lambda a, b: density_coverage(a, b).coverage, lambda a, b: kid(a, b, 1, 300)[0]):
        assert f(x, y[p]) == pytest.approx(f(x, y), rel=1e-9) and f(x.float(), y.float()) == pytest.approx(f(x, y), rel=1e-4)
