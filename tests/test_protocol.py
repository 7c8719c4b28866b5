"Sets of notes, embedders, label matching, reference rows and the table of mars.evaluation.protocol."
import ast, json, math, os, sys, types
from pathlib import Path
import numpy as np, pytest, torch
from mars.cmx import CMX
from mars.evaluation.protocol import CAVEATS, MelPCA, NoteSet, PAPER_ROWS, ProtocolConfig, Row, VGGISH_FILES, VGGish
from mars.evaluation.protocol import add_noise, as_int16, plot_bins
from mars.evaluation.protocol import bins_for, iter_batches, check_labels, class_means, embed_notes, evaluate
from mars.evaluation.protocol import griffin_lim_oracle, lowpass, match_labels, training_copies, plot_features
from mars.evaluation.protocol import result_json, save_report, write_notes, table_markdown, true_phase_oracle
from mars.evaluation.protocol import worst_and_best
from mars.eval import ndb
from mars.stft import LogSpectrogram

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)
N = 8000

def tones(n, seed, labels=None):
    "Tones of random pitch, level and decay, and their labels."
    g = np.random.default_rng(seed)
    pitch = np.asarray(labels['pitch']) if labels else np.arange(n) % 12 + 55
    t = np.arange(N)/16000
    x = [np.sin(2*np.pi*440*2**((p-69)/12)*t*h + g.uniform(0, 6))*np.exp(-t*g.uniform(0, 6))/h for p in pitch for h in [1]]
    w = torch.from_numpy(.5*np.array(x)*g.uniform(.5, 1, (n, 1))).float()
    return NoteSet(w, dict(pitch=pitch, family=np.arange(n) % 2), name=f'set {seed}')

class Stub:
    "A classifier that predicts pitch from the strongest bin, and family from the level."
    digest = 'stub'
    def predict(self, waves): return self.features(waves), self.logits(waves)
    def features(self, waves): return torch.fft.rfft(waves.float()/32768).abs()[:, 50:450].unflatten(1, (8, 50)).mean(-1)
    def logits(self, waves):
        hz = torch.fft.rfft(waves.float(), 4*N).abs().argmax(1)*16000/(4*N)
        pitch = torch.full((len(waves), 128), -math.inf)
        pitch[:, 21:109] = -(torch.arange(21, 109) - (69+12*torch.log2(hz.clamp(min=20)/440))[:, None]).abs()
        return dict(pitch=pitch, family=torch.nn.functional.one_hot((waves.abs().amax(1) > 12000).long(), 11).float())
    def describe(self): return dict(pitch_accuracy=1.)

@pytest.fixture(scope='module')
def pca(): return MelPCA(6, 16, 2).fit(tones(120, 9))

# Sets of notes

def test_noteset_reads_everything_as_int16(tmp_path):
    w = torch.rand(5, N, generator=torch.Generator().manual_seed(0))*2-1
    np.save(tmp_path/'w.npy', as_int16(w).numpy())
    sets = [NoteSet(w), NoteSet(w.numpy()), NoteSet(as_int16(w)), NoteSet(np.load(tmp_path/'w.npy', mmap_mode='r'))]
    for s in sets: assert torch.equal(s[:], as_int16(w)) and torch.equal(s[[4, 0]], as_int16(w)[[4, 0]]) and s[1:3].dtype == torch.int16 and len(s) == 5
    assert [i for i, _ in iter_batches(sets[0], 2)] == [0, 2, 4] and torch.equal(torch.cat([b for _, b in iter_batches(sets[0], 2)]), as_int16(w))

def test_noteset_of_a_source():
    from mars.data import AdditiveNotes
    src = AdditiveNotes('flute', pitches=(60, 64), velocities=(100,))
    s = NoteSet(src)
    assert s.shape == (6, 64000) and torch.equal(s[2:4], src.batch([2, 3])[0]) and s.labels['pitch'].tolist() == src.targets['pitch'].tolist()

def test_as_int16_equals_the_samples_of_a_wav(tmp_path):
    sf = pytest.importorskip('soundfile')
    x = torch.rand(N, generator=torch.Generator().manual_seed(1))*2.2-1.1
    from mars.parts.files import to_int16
    assert np.array_equal(as_int16(x).numpy(), to_int16(x.numpy()))

def test_write_notes_writes_a_file(tmp_path):
    s = tones(7, 0)
    made = write_notes((w for _, w in iter_batches(s, 3)), 7, tmp_path/'made.npy', s.labels, 'made')
    assert isinstance(made.waves, np.memmap) and torch.equal(made[:], s[:]) and np.load(tmp_path/'made.npy').shape == (7, N)

def test_invalid_sets_are_refused():
    w = torch.zeros(3, N)
    for call, message in [(lambda: NoteSet(w, rate=44), 'must be in 1000'), (lambda: NoteSet(w[0]), 'at least one note'), (lambda: NoteSet(w[:0]), 'at least one note'),
                      (lambda: NoteSet(w[:, :100]), '4096 samples'), (lambda: NoteSet(w, dict(pitch=[1])), 'one label per note'), (lambda: NoteSet(w*math.nan)[:], 'NaN or infinite'),
                      (lambda: NoteSet(w.int())[:], 'int16'), (lambda: write_notes([w], 4, None), 'ended after 3 of 4'), (lambda: write_notes([w, w], 4, None), 'more than the 4')]:
        with pytest.raises(ValueError, match=message): call()

# Labels

def test_match_labels():
    g = np.random.default_rng(0)
    have = dict(pitch=g.integers(60, 64, 400), family=g.integers(0, 3, 400)); want = dict(pitch=g.integers(60, 64, 50), family=g.integers(0, 3, 50))
    rows = match_labels(have, want)
    assert len(set(rows.tolist())) == 50 and all((have[k][rows] == want[k]).all() for k in have)
    assert match_labels(have, want).tolist() == rows.tolist() != match_labels(have, want, seed=1).tolist()
    with pytest.raises(ValueError, match='2 notes of pitch 60 are requested and 1 are available'): match_labels(dict(pitch=[60, 61]), dict(pitch=[60, 60]), ('pitch',))
    with pytest.raises(ValueError, match="'family' is missing"): match_labels(dict(pitch=[60]), dict(pitch=[60]))

def test_check_labels():
    a, b = tones(24, 0), tones(24, 1)
    check_labels(a, b)
    moved = NoteSet(b[:], dict(b.labels, pitch=b.labels['pitch']+1), name='moved')
    for other, message in [(moved, 'another label mix'), (tones(20, 1), 'equal numbers'), (NoteSet(b[:][:, :5000], b.labels), 'one length'), (NoteSet(b[:], b.labels, 44100), 'are at 44100 Hz')]:
        with pytest.raises(ValueError, match=message): check_labels(a, other)

# Embedders

def test_mel_pca_is_principal_components():
    from mars.eval import mel_features
    s = tones(90, 3)
    p = MelPCA(5, 12, 3).fit(s, size=17)
    x = mel_features(s[:], 12, 3).double(); z = (x-x.mean(0))/x.std(0, correction=0).clamp(min=.01)
    lam = torch.linalg.svdvals(z).square()/90
    got = p.embed(s[:]).double()
    assert got.var(0, correction=0) == pytest.approx(lam[:5], rel=1e-3) and p.explained == pytest.approx(float(lam[:5].sum()/lam.sum()), rel=1e-4)
    assert torch.allclose(got, MelPCA(5, 12, 3).fit(s, size=90).embed(s[:]).double(), atol=1e-3)   # blocks do not matter

def test_mel_pca_saves_its_settings(pca, tmp_path):
    s = tones(4, 0)
    pca.save(tmp_path/'a.safetensors')
    again = MelPCA.load(tmp_path/'a.safetensors')
    assert torch.equal(again.embed(s[:]), pca.embed(s[:])) and again.digest == pca.digest != MelPCA(6, 16, 2).fit(tones(120, 8)).digest and again.explained == pca.explained
    (tmp_path/'b.safetensors').write_bytes((tmp_path/'a.safetensors').read_bytes()[:200])
    for call, kind, message in [(lambda: MelPCA.load(tmp_path/'b.safetensors'), ValueError, 'damaged'), (lambda: MelPCA.load(tmp_path/'none'), FileNotFoundError, 'fit a MelPCA'),
                            (lambda: MelPCA().embed(s[:]), ValueError, 'not fitted'), (lambda: MelPCA().save(tmp_path/'c'), ValueError, 'not fitted'), (lambda: MelPCA(64).fit(s), ValueError, 'at least 65')]:
        with pytest.raises(kind, match=message): call()

def test_embed_set(pca):
    s = tones(11, 0)
    class Windows:
        name, rate, dim = 'windows', 16000, 2
        def embed(self, w): return torch.stack([w[:, :4000].float().mean(1), w[:, 4000:].float().mean(1)], 1).repeat_interleave(2, 0)
    assert embed_notes(Windows(), s, 4).shape == (11, 2, 2) and torch.allclose(embed_notes(pca, s, 4), embed_notes(pca, s, 5), atol=1e-4)
    class Wrong(Windows): dim = 3
    class Fast(Windows): rate = 48000
    with pytest.raises(ValueError, match=r'must return \(notes\*windows, 3\)'): embed_notes(Wrong(), s)
    with pytest.raises(ValueError, match='48000 Hz'): embed_notes(Fast(), s)

# VGGish: the weights cannot be had here, so a checkout with random weights takes their place

def fake_hub(folder):
    repo = folder/'harritaylor_torchvggish_master'; repo.mkdir(parents=True); (folder/'checkpoints').mkdir()
    for f in VGGISH_FILES: (folder/f).write_bytes(b'weights')
    (repo/'hubconf.py').write_text("""import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__(); self.embeddings = torch.nn.Sequential(torch.nn.Linear(15360, 128), torch.nn.ReLU()); self.postprocess = True
    def forward(self, x, fs):
        if len(x) < 15600: raise RuntimeError('short')
        return self.embeddings(torch.as_tensor(x[:len(x)//15360*15360]).float().view(-1, 15360))
def vggish(**kwargs): torch.manual_seed(0); return Net()
""")

def test_vggish_names_missing_files(tmp_path, monkeypatch):
    import importlib.util
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: None if name == 'frechet_audio_distance' else real(name, *a))
    with pytest.raises(ImportError, match=r'mars-spectrogram\[fad\]'): VGGish(tmp_path)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *a: object() if name == 'frechet_audio_distance' else real(name, *a))
    with pytest.raises(FileNotFoundError, match='vggish-10086976.pth.*vggish_pca_params.*harritaylor_torchvggish_master'): VGGish(tmp_path)
    (tmp_path/'checkpoints').mkdir(); (tmp_path/VGGISH_FILES[0]).write_bytes(b'x')
    with pytest.raises(FileNotFoundError) as e: VGGish(tmp_path)
    assert '10086976' not in str(e.value) and 'pca_params' in str(e.value)

def test_vggish_works_offline_and_changes_no_state(tmp_path, monkeypatch):
    "The package is replaced; its arguments are tested."
    seen = {}
    class FrechetAudioDistance:
        def __init__(self, **kw): seen.update(kw, offline=os.environ.get('HF_HUB_OFFLINE'), hub=torch.hub.get_dir()); self.model = torch.hub.load(repo_or_dir='harritaylor/torchvggish', model='vggish')
        def get_embeddings(self, x, sr):
            rows = []
            try:
                for w in x: rows.append(self.model(w, sr).detach().numpy())
            except RuntimeError: pass
            return np.concatenate(rows) if rows else np.zeros((0, 128))
    import importlib.util
    module = types.ModuleType('frechet_audio_distance'); module.FrechetAudioDistance = FrechetAudioDistance
    module.__spec__ = importlib.util.spec_from_loader('frechet_audio_distance', None)
    monkeypatch.setitem(sys.modules, 'frechet_audio_distance', module); monkeypatch.delenv('HF_HUB_OFFLINE', raising=False)
    fake_hub(tmp_path); hub, load = torch.hub.get_dir(), torch.hub.load
    v = VGGish(tmp_path)
    assert seen == dict(model_name='vggish', sample_rate=16000, use_pca=False, use_activation=False, verbose=False, offline='1', hub=str(tmp_path))
    assert torch.hub.get_dir() == hub and torch.hub.load is load and 'HF_HUB_OFFLINE' not in os.environ and len(v.digest) == 16
    assert v.embed(torch.rand(3, 64000)).shape == (12, 128) and embed_notes(v, NoteSet(torch.rand(3, 64000)), 2).shape == (3, 4, 128)
    with pytest.raises(ValueError, match='at least 15600'): v.embed(torch.rand(2, 15500))
    class Drops(FrechetAudioDistance):
        def get_embeddings(self, x, sr): return super().get_embeddings(x[:-1], sr)
    v.fad.__class__ = Drops
    with pytest.raises(ValueError, match='dropped notes'): v.embed(torch.rand(3, 64000))

# Reference rows

def test_lowpass_and_noise():
    t = torch.arange(N)/16000
    low, high = (.4*torch.sin(2*math.pi*f*t)[None] for f in (1000, 6000))
    assert torch.allclose(lowpass(low+high), low, atol=2e-3) and lowpass(high).abs().max() < 1e-3
    noisy = add_noise(torch.cat([low, high]))
    snr = 10*torch.log10(low.square().mean()/(noisy[0]-low[0]).square().mean())
    assert float(snr) == pytest.approx(20, abs=.2) and torch.equal(add_noise(high, first=1)[0], noisy[1]) and not torch.equal(add_noise(low, seed=1)[0], noisy[0])
    assert add_noise(torch.zeros(1, N)).abs().max() == 0   # silence stays silent

def test_oracles():
    ls, s = LogSpectrogram(), tones(3, 0)
    x = s[:].float()/32768
    true, found = true_phase_oracle(s[:], ls), griffin_lim_oracle(s[:], ls, n_iter=8)
    assert true.shape == found.shape == x.shape and max(true.abs().max(), found.abs().max()) <= 1
    snr = lambda y: float(10*torch.log10(x.square().sum()/(x-y).square().sum()))
    assert snr(true) > 35 and snr(found) < 20
    assert torch.equal(griffin_lim_oracle(s[:], ls, CMX.fit(ls.shape[1:], (256, 256)), n_iter=8), found)   # folding is exact
    assert torch.equal(griffin_lim_oracle(s[2:], ls, n_iter=8, first=2), found[2:])

def test_class_means():
    s, ls = tones(24, 0), LogSpectrogram()
    means = list(class_means(s, [55, 60, 55], ls=ls, n_iter=2, size=5))
    want = ls.decode(ls.encode(s[[0, 12]]).mean(0, keepdim=True), n_iter=2)[:, :N]
    assert len(means) == 3 and torch.equal(means[0], means[2]) and means[0].shape == (1, N) and torch.allclose(means[0].float()/32768, want, atol=2e-3)
    with pytest.raises(ValueError, match='no note of pitch 99'): list(class_means(s, [99]))

def test_training_copies():
    train, request = tones(48, 0), tones(24, 1)
    m = training_copies(train, request.labels)
    assert all((m.labels[k] == request.labels[k]).all() for k in request.labels) and all((w == train[:]).all(1).any() for w in m[:])

# The table

@pytest.fixture(scope='module')
def result(pca):
    ref, train = tones(120, 0), tones(240, 5)
    noise = NoteSet(add_noise(ref[:], snr=0.), ref.labels, name='noise')
    rows = [Row('real', tones(120, 1)), Row('copy of reference', ref, paired=True), Row('noise', noise, paired=True), Row('training copies', training_copies(train, ref.labels))]
    return evaluate(ref, rows, train, [pca], Stub(), ProtocolConfig(n_f0=4, n_resamples=12, batch_size=50))

def test_evaluate_orders_the_rows(result):
    r = result['rows']; v = lambda row, m: getattr(r[row][m], 'value', r[row][m])
    FD = 'Fréchet distance, mel-PCA'
    assert v('copy of reference', FD) < 1e-6 and v('copy of reference', FD) < v('real', FD) < v('noise', FD) and v('real', 'KAD, mel-PCA') < v('noise', 'KAD, mel-PCA')
    assert v('copy of reference', 'MSE') == v('copy of reference', 'mel distance') == v('copy of reference', 'MSE paired') == 0 < v('noise', 'MSE paired')
    assert v('training copies', 'memorisation quantile_share') == 1 and v('real', 'memorisation quantile_share') < .15 and v('training copies', 'memorisation median_ratio') < .01
    assert v('real', 'accuracy pitch') > .95 and v('real', 'PIS') > 1.5 and v('copy of reference', 'NDB/k') < .2 < v('noise', 'NDB/k') and r['real']['NDB k'] == 10
    assert 'MSE paired' not in r['real'] and r['real'][FD].low < r['real'][FD].value < r['real'][FD].high and r['real']['PKID, Nistal floor'] == pytest.approx(2/119)
    copy = r['copy of reference'][FD]; assert copy.low == 0 and copy.high < 1e-6   # drawn together
    assert v('copy of reference', 'KL pitch') == v('copy of reference', 'KL family') == 0 and abs(v('real', 'PKID')) < 1 and v('copy of reference', 'IKID') < v('noise', 'IKID')

def test_evaluate_records_its_settings(result, pca):
    s = result['settings']
    hits = result['rows']['noise']['f0 within 50 cents']
    assert hits.low <= hits.value <= hits.high and result['rows']['noise']['f0 notes'] == 4
    assert s['notes'] == 120 and s['train_notes'] == 240 and s['embedders']['mel-PCA'] == dict(dim=6, digest=pca.digest) and s['classifier'] == dict(digest='stub', pitch_accuracy=1.)
    data = json.loads(result_json(result))
    assert data['rows']['noise']['MSE']['value'] == result['rows']['noise']['MSE'].value and data['settings']['seed'] == 0 and 'NaN' not in result_json(result)
    text = table_markdown(result)
    table = [l for l in text.splitlines() if l.startswith('|')]
    assert table[0].startswith('| row | NDB/k | PKID | IKID | PIS | IIS | MSE | MAE | Fréchet distance, mel-PCA |') and '| MARS generated | 0.15 | 0.0066 |' in text
    assert all(c in text for c in CAVEATS) and all(len(v) == 8 for v in PAPER_ROWS.values()) and len({l.count('|') for l in table[:6]}) == len({l.count('|') for l in table[6:]}) == 1

def test_evaluate_is_reproducible_for_any_block_size(pca):
    ref, row = tones(24, 0), tones(24, 1)
    a, b = (evaluate(ref, [Row('x', row)], embedders=[pca], cfg=ProtocolConfig(n_f0=0, n_resamples=10, batch_size=n))['rows']['x'] for n in (24, 7))
    assert set(a) == set(b) and all(getattr(a[k], 'value', a[k]) == pytest.approx(getattr(b[k], 'value', b[k]), rel=1e-4, abs=1e-6) for k in a)

def test_silence_and_clipping_are_counted_on_both_sides(pca):
    ref = tones(24, 0)
    w = ref[:].float()/32768; w[0] = 0; w[1] = (50*w[1]).clamp(-1, 1)
    out = evaluate(NoteSet(w, ref.labels), [Row('x', NoteSet(w, ref.labels), paired=True)], embedders=[pca], cfg=ProtocolConfig(n_f0=2, n_resamples=10))['rows']['x']
    assert (out['silent'], out['clipped'], out['MSE paired'].value, out['mel distance'].value) == (1, 1, 0, 0)

def test_invalid_tables_are_refused(pca):
    ref = tones(24, 0)
    other = NoteSet(ref[:], dict(ref.labels, family=[5]*24), name='other')
    broken = NoteSet(torch.full((24, N), math.nan), ref.labels, name='broken')
    for call, message in [(lambda: evaluate(ref, [], embedders=[pca]), 'at least one of each'), (lambda: evaluate(ref, [Row('x', ref)]), 'no embedder'), (lambda: evaluate(tones(10, 0), [Row('x', tones(10, 1))], embedders=[pca]), 'at least 20'),
                      (lambda: evaluate(ref, [Row('x', tones(36, 0))], embedders=[pca]), 'equal numbers'), (lambda: evaluate(ref, [Row('x', other)], embedders=[pca]), 'another label mix'),
                      (lambda: evaluate(ref, [Row('x', broken)], embedders=[pca]), 'broken hold NaN')]:
        with pytest.raises(ValueError, match=message): call()

def test_bins_and_plots(result):
    assert [bins_for(n) for n in (99, 100, 250, 600, 4096)] == [None, 10, 20, 50, 100]
    assert len(plot_features(result).axes) == 3 and plot_bins(ndb(result['features']['reference'], result['features']['noise'], 10), 'noise').axes[0].get_title().startswith('noise NDB')
    ref = tones(6, 0)
    w = ref[:].float()/32768; w[3] = 0; w[1] = w[1]*.97
    order = worst_and_best(ref, NoteSet(w), 2, size=4)
    assert [i for i, _ in order[:2]] == [3, 1] and order[2][1] == order[3][1] == 0

def test_save_report(result, tmp_path):
    ref = tones(8, 0)
    names = save_report(result, tmp_path/'a'/'b', ref, dict(same=ref))
    assert names == sorted(p.name for p in (tmp_path/'a'/'b').iterdir()) and {'report.json', 'table.md', 'features.png', 'ndb-0.png', 'listen.html'} <= set(names)
    assert json.loads((tmp_path/'a'/'b'/'report.json').read_text())['settings']['notes'] == 120 and (tmp_path/'a'/'b'/'ndb-0.png').read_bytes()[:4] == b'\x89PNG'
    (tmp_path/'file').write_text('')
    with pytest.raises(ValueError, match='cannot be written'): save_report(result, tmp_path/'file'/'x')

def test_import_is_cheap():
    tree = ast.parse((ROOT/'mars/evaluation/protocol.py').read_text())
    names = {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names} | {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert not names & {'sklearn', 'scipy', 'matplotlib', 'matplotlib.pyplot', 'librosa', 'pandas', 'frechet_audio_distance'}

# Pitch by two estimators

def pitch_columns(result): return {k: v for k, v in result['rows']['same'].items() if k.startswith('f0')}

def test_two_estimators_of_pitch(monkeypatch, pca):
    "Either and both count note by note; a missing package is left out with one sentence."
    import mars.evaluation.protocol as protocol
    from mars.eval import F0
    ref = tones(24, 0)
    labels = iter(ref.labels['pitch'].tolist())
    wrong, truth = iter([1]*6 + [0]*18), {}
    def first(wave, rate):
        p = truth[wave.numpy().tobytes()] = next(labels)
        return F0(p + 12*next(wrong), 1.)
    hits = iter([0]*3 + [1]*3 + [0]*4 + [1]*14) # wrong in half of the notes that the first misses, and in four others
    def second(wave, rate): return F0(truth[wave.numpy().tobytes()] + 3 - 3*next(hits), 1.)
    monkeypatch.setattr(protocol, 'f0', first)
    monkeypatch.setattr(protocol, 'f0_swift', second)
    monkeypatch.setattr(protocol, 'check_f0_swift', lambda: None)
    cfg = ProtocolConfig(n_f0=24, n_resamples=10)
    result = evaluate(ref, [Row('same', ref, True)], embedders=[pca], cfg=cfg)
    columns = {k: getattr(v, 'value', v)*24 for k, v in pitch_columns(result).items()}
    assert columns['f0 within 50 cents'] == pytest.approx(18) and columns['f0, octaves folded'] == pytest.approx(24)
    assert columns['f0 within 50 cents, SwiftF0'] == columns['f0, octaves folded, SwiftF0'] == pytest.approx(17)
    assert columns['f0 within 50 cents, either'] == pytest.approx(21)
    assert columns['f0 within 50 cents, both'] == pytest.approx(14) and 'f0, SwiftF0' not in result['left_out']

def test_a_second_estimator_that_is_not_installed(monkeypatch, pca):
    import mars.evaluation.protocol as protocol
    monkeypatch.setattr(protocol, 'check_f0_swift', lambda: 'not installed')
    ref, cfg = tones(24, 0), ProtocolConfig(n_f0=2, n_resamples=10)
    result = evaluate(ref, [Row('same', ref, True)], embedders=[pca], cfg=cfg)
    assert result['left_out']['f0, SwiftF0'] == 'not installed'
    assert set(pitch_columns(result)) == {'f0 within 50 cents', 'f0, octaves folded', 'f0 median cents', 'f0 notes'}
    silent = evaluate(ref, [Row('same', ref, True)], embedders=[pca], cfg=ProtocolConfig(n_f0=0, n_resamples=10))
    assert 'f0, SwiftF0' not in silent['left_out']
