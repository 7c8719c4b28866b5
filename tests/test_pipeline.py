"""Mars: labels, batches, previews, precision, files and errors, on waves of a quarter of a second."""
import copy, json, os, subprocess, sys, warnings
from pathlib import Path
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
import mars.pipeline
from mars.cmx import CMX
from mars.data import FAMILIES, SOURCES
from mars.parts.conditioning import label_ids
from mars.parts.device import DTYPES, in_batches, pick_device, pick_dtype
from mars.parts.files import load_weights, save_weights
from mars.pipeline import Mars, find_model
from mars.stft import LogSpectrogram
from mars.parts.product import ProductMars, ProductTokenizer, ProductTokenizerConfig, ProductVAR
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig

ROOT = Path(__file__).resolve().parents[1]
CFG = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))

def make(info=None, **kwargs):
    torch.manual_seed(0)
    tok = Tokenizer(CFG)
    var = VAR(VARConfig.preset('tiny', gamma_init=1., **kwargs), CFG).bind(tok)
    with torch.no_grad(): var.head.weight.mul_(50)
    return Mars(tok, var, spectrogram=LogSpectrogram(n_fft=128, hop_length=64, n_frames=32), info=info)

@pytest.fixture(scope='module')
def m(): return make()

@pytest.fixture(scope='module')
def waves(m):
    t = torch.arange(m.spectrogram.n_samples)/16000
    return torch.stack([.5*torch.sin(2*torch.pi*f*t) for f in (300., 500., 900.)])

def wide(m, n, **kwargs): return m.generate(n, n_iter=2, **kwargs)

# --- the path

def test_encode_and_decode_are_the_steps_of_the_path(m, waves):
    image, tokens = m.wave_to_image(waves), m.encode(waves)
    assert image.shape == (3, 2, 32, 32) and all(torch.equal(a, b) for a, b in zip(tokens, m.tokenizer.encode(image)))
    spec = m.tokens_to_spec(tokens)
    assert spec.shape == m.spectrogram.encode(waves).shape and torch.equal(spec, m.cmx.unfold(m.tokenizer.decode(tokens)))
    assert torch.equal(m.spec_to_wave(spec, n_iter=3, seed=4), m.decode(tokens, n_iter=3, seed=4))
    assert torch.equal(m.reconstruct(waves, n_iter=3, seed=4, prepare=False), m.decode(tokens, n_iter=3, seed=4))
    assert torch.equal(m.tokens_to_spec(tokens, 2), m.tokens_to_spec(tokens[:2])) and not torch.equal(m.tokens_to_spec(tokens, 2), spec)

def test_waves_are_cpu_floats_that_do_not_clip(m):
    loud = make()
    decode = loud.spectrogram.decode
    loud.spectrogram.decode = lambda *a, **k: 7*decode(*a, **k)
    for w in (wide(m, 3, seed=0), wide(loud, 3, seed=0)): assert w.dtype == torch.float32 and w.device.type == 'cpu' and w.shape == (3, m.spectrogram.n_samples) and w.abs().max() <= 1
    assert (wide(loud, 3, seed=0).abs().amax(-1) - .999).abs().max() < 1e-6

def test_waves_begin_at_zero(m, waves):
    spec = m.wave_to_image(waves)
    made = m.spec_to_wave(m.image_to_spec(spec), n_iter=3, seed=4)
    raw = m.spectrogram.decode(m.image_to_spec(spec), n_iter=3, seed=4)
    n = m.sample_rate//1000
    assert (raw[:, 0].abs() > .01).any() and not made[:, 0].any() and torch.equal(made[:, n:], raw[:, n:])
    assert (made[:, :n].abs() <= raw[:, :n].abs()).all()

# --- labels

def test_labels_by_name_and_number(m):
    a = wide(m, None, family=['flute', 'guitar'], source='acoustic', pitch=60, seed=1)
    for kw in (dict(family=[2, 3], source=0, pitch=[60, 60]), dict(family=torch.tensor([2, 3]), source=[0, 'acoustic'], pitch=np.array([60, 60]))):
        assert torch.equal(a, wide(m, 2, seed=1, **kw))
    assert wide(m, None).shape[0] == 1 and wide(m, 4).shape[0] == 4
    assert torch.equal(wide(m, 2, pitch=[60, None], seed=1), wide(m, 2, pitch=[60, -1], seed=1))
    assert FAMILIES[2:4] == ('flute', 'guitar') or list(FAMILIES[2:4]) == ['flute', 'guitar'] and SOURCES[0] == 'acoustic'

def test_each_label_changes_the_result(m):
    base = dict(pitch=60, family=2, source=0, velocity=50)
    first = wide(m, None, **base, seed=1)
    for name, other in dict(pitch=72, family='vocal', source='synthetic', velocity=127).items():
        assert not torch.equal(first, wide(m, None, **{**base, name: other}, seed=1)), name

def test_instruments(tmp_path):
    m = make(n_instruments=3, info=dict(instruments=['oak', 'elm', 'yew']))
    assert torch.equal(wide(m, None, instrument='elm', seed=1), wide(m, None, instrument=1, seed=1))
    assert not torch.equal(wide(m, None, instrument='elm', seed=1), wide(m, None, instrument='yew', seed=1))
    m.save_pretrained(tmp_path/'m')
    assert torch.equal(wide(Mars.from_pretrained(tmp_path/'m'), None, instrument='elm', seed=1), wide(m, None, instrument='elm', seed=1))
    with pytest.raises(ValueError, match="instrument must be one of oak, elm, yew, got 'fir'"): wide(m, None, instrument='fir')
    with pytest.raises(ValueError, match='label instrument is 3, outside 0..2'): wide(m, None, instrument=3)

def test_labels_outside_the_training_range():
    "A one-line warning, an error with strict=True, and neither inside the range or for models without a record."
    m = make(info=dict(data=dict(pitches=[36, 96], velocities=[25, 127], families=dict(flute=['acoustic'], bass=['electronic', 'synthetic']))))
    for labels, text in ((dict(pitch=[24, 60, 108]), 'pitch 24, 108 is outside 36..96'), (dict(velocity=3), 'velocity 3 is outside 25..127'),
                         (dict(family='flute', source=['acoustic', 'synthetic']), 'flute was acoustic, not synthetic'), (dict(family='organ'), 'there were no notes of family organ')):
        with pytest.warns(UserWarning) as said: wave = wide(m, None, **labels, seed=1)
        assert [str(w.message) for w in said] == [f'the training notes do not cover these labels, and the model may not follow them: {text}'] and len(wave)
        with pytest.raises(ValueError, match=f'the training notes do not cover these labels: {text}'): m.generate(**labels, strict=True)
    for call in (lambda x: next(m.preview(**x)), lambda x: m.edit(torch.rand(2000) - .5, labels=x), lambda x: m.interpolate(dict(pitch=60), x), lambda x: m.interpolate(x, dict(pitch=60))):
        with pytest.warns(UserWarning, match='pitch 24 is outside 36..96'): call(dict(pitch=24))
    with pytest.raises(ValueError, match='pitch 24 is outside'): m.interpolate(dict(pitch=60), dict(pitch=24), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        wide(m, None, pitch=[36, None], family='bass', velocity=25, strict=True), wide(make(), None, pitch=1, strict=True)

# --- batches

@pytest.mark.parametrize('batch_size', [1, 2, 3, 5, 99])
def test_batch_size_changes_nothing(m, batch_size):
    labels = dict(pitch=[50, 51, 52, 53, 54], seed=3, cfg_scale=1., top_k=40)
    assert torch.allclose(wide(m, None, **labels), wide(m, None, batch_size=batch_size, progress=False, **labels), atol=1e-3)
    tokens = lambda size: [m.var.generate(dict(pitch=labels['pitch'][i:i+size]), seed=3, first=i) for i in range(0, 5, size)]
    assert torch.equal(torch.cat([torch.cat(t, 1) for t in tokens(5)]), torch.cat([torch.cat(t, 1) for t in tokens(batch_size)]))

def test_stream_equals_generate(m):
    parts = list(m.stream(5, pitch=60, seed=2, n_iter=2, batch_size=2, progress=False))
    assert [len(p) for p in parts] == [2, 2, 1]
    assert torch.allclose(torch.cat(parts), wide(m, 5, pitch=60, seed=2), atol=1e-3)
    endless = m.stream(10**6, n_iter=2, batch_size=2, progress=False)  # nothing but the first batch is made
    assert next(endless).shape[0] == 2

def test_a_batch_that_does_not_fit_is_halved(waves, monkeypatch):
    m, sizes = make(), []
    whole, generate = wide(m, 7, seed=2), mars.pipeline.generate
    def small(var, labels, n, **kw):
        sizes.append(n)
        if n > 2: raise torch.OutOfMemoryError('CUDA out of memory')
        return generate(var, labels, n, **kw)
    monkeypatch.setattr(mars.pipeline, 'generate', small)
    assert torch.allclose(wide(m, 7, seed=2), whole, atol=1e-3) and sizes == [7, 3, 1, 2, 4, 2, 2]
    def none(var, labels, n, **kw): raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    monkeypatch.setattr(mars.pipeline, 'generate', none)
    with pytest.raises(ValueError, match='one note does not fit into memory'): wide(m, 7)
    def other(var, labels, n, **kw): raise RuntimeError('something else')
    monkeypatch.setattr(mars.pipeline, 'generate', other)
    with pytest.raises(RuntimeError, match='something else'): wide(m, 7)

def test_progress(m, capsys):
    wide(m, 3, batch_size=2, progress=False)
    assert capsys.readouterr().out == ''
    wide(m, 3)
    assert capsys.readouterr().out == ''
    wide(m, 3, batch_size=2)
    assert '100.00%' in capsys.readouterr().out

def test_reconstruct_splits(m, waves):
    assert torch.allclose(m.reconstruct(waves, n_iter=2), m.reconstruct(waves, n_iter=2, batch_size=1), atol=1e-3)
    assert m.reconstruct(waves[0], n_iter=1).shape == (1, waves.shape[1])

# --- previews

def test_preview_ends_with_the_note(m):
    kw = dict(pitch=[60, 61], seed=4, cfg_scale=[0, 1, 1, 2], temperature=.9)
    seen = list(m.preview(n_iter=2, **kw))
    assert len(seen) == 4 and all(s.shape == (2, 1, 64, 32) and w.shape == (2, m.spectrogram.n_samples) for s, w in seen)
    assert torch.equal(seen[-1][1], wide(m, None, **kw))
    assert all(not torch.equal(a[0], b[0]) for a, b in zip(seen, seen[1:]))
    assert torch.equal(seen[1][0], m.tokens_to_spec(m.var.generate(dict(pitch=[60, 61]), **{k: v for k, v in kw.items() if k != 'pitch'}), 2))

def test_two_branches(tmp_path, waves):
    torch.manual_seed(0)
    cfg = ProductTokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4), branches=2)
    tok = ProductTokenizer(cfg)
    m = ProductMars(tok, ProductVAR(VARConfig.preset('tiny'), cfg).bind(tok), spectrogram=LogSpectrogram(n_fft=128, hop_length=64, n_frames=32))
    assert wide(m, 3, pitch=60, seed=0, cfg_scale=1.).isfinite().all() and m.reconstruct(waves, n_iter=1).shape == waves.shape
    m.save_pretrained(tmp_path)
    assert torch.equal(wide(Mars.from_pretrained(tmp_path), 2, seed=0), wide(m, 2, seed=0))
    assert wide(m.half(), 2, seed=0).isfinite().all()

# --- precision and devices

@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision(waves, dtype):
    m, small = make(), make().to(dtype=dtype)
    assert small.dtype == DTYPES[dtype]
    for net in (small.tokenizer, small.var):
        own = [(n, v) for n, v in net.state_dict().items() if v.is_floating_point()]
        assert all(v.dtype == (torch.float32 if n.startswith('quantizer') else DTYPES[dtype]) for n, v in own)
        assert torch.equal(net.quantizer.codebook, m.var.quantizer.codebook)
    w = wide(small, 3, seed=0, cfg_scale=1.)
    assert w.dtype == torch.float32 and w.isfinite().all()
    assert (torch.cat(small.encode(waves), 1) == torch.cat(m.encode(waves), 1)).float().mean() > .8
    tokens = m.encode(waves)
    assert (small.tokens_to_spec(tokens) - m.tokens_to_spec(tokens)).abs().max() < .1 and small.tokens_to_spec(tokens).dtype == torch.float32
    back = small.to(dtype='float32')
    assert back.dtype == torch.float32 and (back.tokens_to_spec(tokens) - m.tokens_to_spec(tokens)).abs().max() < .1

def test_half_is_float16_and_does_not_change_the_tokenizer(waves):
    m = make()
    tok, before = m.tokenizer, m.tokenizer.decode(m.encode(waves))
    assert m.half() is m and m.dtype == torch.float16 and m.to() is m
    m.tokens_to_spec(m.encode(waves))
    assert not tok.decoder._forward_pre_hooks
    assert (m.to(dtype=torch.float32).tokenizer.decode(m.encode(waves)) - before).abs().max() < 2

@pytest.mark.parametrize('how', ['load', 'save', 'both'])
def test_half_precision_files(tmp_path, waves, how):
    m = make()
    m.save_pretrained(tmp_path/'full')
    m.save_pretrained(tmp_path/'half', half=True)
    size = lambda d: sum(p.stat().st_size for p in (tmp_path/d).glob('*.safetensors'))
    assert size('half') < .6*size('full')
    got = Mars.from_pretrained(tmp_path/('full' if how == 'load' else 'half'), dtype='bfloat16' if how != 'save' else None)
    assert got.dtype == (torch.bfloat16 if how != 'save' else torch.float32)
    assert wide(got, 2, seed=0).isfinite().all() and (got.tokens_to_spec(m.encode(waves)) - m.tokens_to_spec(m.encode(waves))).abs().max() < .1
    got.save_pretrained(tmp_path/'again')
    assert torch.equal(wide(Mars.from_pretrained(tmp_path/'again', dtype=got.dtype), 2, seed=0), wide(got, 2, seed=0))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', list(DTYPES))
def test_a_gpu(waves, dtype):
    m, gpu = make(), make().to('cuda', dtype)
    assert gpu.device.type == 'cuda'
    w = wide(gpu, 3, pitch=60, seed=0, cfg_scale=1., top_k=50)
    assert w.device.type == 'cpu' and w.isfinite().all()
    assert (torch.cat(gpu.encode(waves), 1).cpu() == torch.cat(m.encode(waves), 1)).float().mean() > (.99 if dtype == 'float32' else .8)
    assert torch.equal(w, wide(gpu, 3, pitch=60, seed=0, cfg_scale=1., top_k=50))
    assert gpu.to('cpu').device.type == 'cpu' and not hasattr(gpu.var, '_samplers')

def test_devices_and_dtypes():
    assert pick_device('cpu').type == 'cpu' and pick_dtype() == torch.float32 and pick_dtype('float16') == pick_dtype(torch.float16) == torch.float16
    for bad in ('abacus', 3.5):
        with pytest.raises(ValueError, match='device must be cpu, cuda or mps, got'): pick_device(bad)
    for bad in ('int8', torch.int64, 16):
        with pytest.raises(ValueError, match='dtype must be one of float32, bfloat16, float16, got'): pick_dtype(bad)
    with pytest.raises(ValueError, match='CUDA device'): pick_device('cuda:99')

def pretend(monkeypatch, cuda, mps):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: mps)
    monkeypatch.setenv('PYTORCH_ENABLE_MPS_FALLBACK', '1')

@pytest.mark.parametrize('cuda, mps, default', [(True, True, 'cuda'), (True, False, 'cuda'), (False, True, 'mps'), (False, False, 'cpu')])
def test_the_default_device_is_cuda_then_mps_then_the_cpu(monkeypatch, cuda, mps, default):
    pretend(monkeypatch, cuda, mps)
    assert pick_device().type == pick_device('').type == default and pick_device('cpu').type == 'cpu'
    for name, there in dict(cuda=cuda, mps=mps).items():
        if there: assert pick_device(name).type == pick_device(torch.device(name)).type == name
        else:
            with pytest.raises(ValueError, match=f'no {name.upper()} device is available: use cpu'): pick_device(name)

@pytest.mark.parametrize('value', [None, '0'])
def test_mps_without_fallback_warns(monkeypatch, value):
    pretend(monkeypatch, False, True)
    monkeypatch.delenv('PYTORCH_ENABLE_MPS_FALLBACK') if value is None else monkeypatch.setenv('PYTORCH_ENABLE_MPS_FALLBACK', value)
    with pytest.warns(UserWarning, match='import mars before torch, or set PYTORCH_ENABLE_MPS_FALLBACK=1'): assert pick_device().type == 'mps'

@pytest.mark.parametrize('first, value', [('import mars', '1'), ('sys.modules["torch"] = None; import mars', 'None'), ('os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = "0"; import mars', '0')])
@pytest.mark.parametrize('platform', ['darwin', 'linux'])
def test_the_mps_fallback_is_set_before_torch_is_imported(platform, first, value):
    code = f'import os, sys; sys.platform = {platform!r}; {first}; print(os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK"))'
    env = {k: v for k, v in os.environ.items() if k != 'PYTORCH_ENABLE_MPS_FALLBACK'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**env, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.strip() == (value if platform == 'darwin' or value == '0' else 'None'), done.stderr

class OnMPS(torch.Tensor):
    "A tensor on the CPU that reports the device MPS and refuses float64."
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None):
        if getattr(f, '__self__', None) is torch.Tensor.device: return torch.device('mps')
        name = f.__name__
        if name in ('cpu', 'numpy', 'tolist', 'item') or (name == 'to' and 'cpu' in map(str, args[1:])):
            return f(*(a.as_subclass(torch.Tensor) if isinstance(a, cls) else a for a in args), **(kwargs or {}))
        out = super().__torch_function__(f, types, args, kwargs)
        if isinstance(out, cls) and out.dtype in (torch.float64, torch.complex128): raise TypeError('the MPS framework does not support float64')
        return out

def on_mps(x): return x.as_subclass(OnMPS)

def test_the_fake_mps_has_no_float64():
    x = on_mps(torch.ones(2))
    assert x.device.type == 'mps' and type((x + 1)[0]) is OnMPS and type(x.cpu().double()) is torch.Tensor
    for f in (lambda: x.double(), lambda: x.to(torch.float64), lambda: x.sum(dtype=torch.float64)):
        with pytest.raises(TypeError, match='float64'): f()

def test_mps_never_uses_float64():
    "Each of these computes in float64, on the CPU if the device has none; the result equals that of the CPU."
    from mars import eval as metrics
    from mars.evaluation.classifier import calibration_error, fit_temperature
    from mars.baselines.flow import Flow, FlowConfig
    g = torch.Generator().manual_seed(0)
    x, y, labels = torch.randn(40, 5, generator=g), torch.randn(40, 5, generator=g), torch.randint(5, (40,), generator=g)
    waves = torch.randn(2, 64000, generator=g)*.1
    for f in (metrics.frechet_distance, metrics.kad, lambda a, b: metrics.kid(a, b, 2, 20)[0], lambda a, b: metrics.density_coverage(a, b).coverage, lambda a, b: metrics.posterior_kl(a, b).sum()):
        assert f(on_mps(x), on_mps(y)) == f(x, y)
    assert metrics.inception_score(on_mps(x)) == metrics.inception_score(x)
    assert calibration_error(on_mps(x), on_mps(labels)) == calibration_error(x, labels) and fit_temperature(on_mps(x), on_mps(labels)) == fit_temperature(x, labels)
    for make in (lambda: Tokenizer(TokenizerConfig.preset('tiny')), lambda: Flow(FlowConfig.preset('tiny'))):
        image, nets = torch.rand(4, 2, 256, 256, generator=g)*2 - 1, []
        for i in (image, on_mps(image)):
            torch.manual_seed(0)
            nets.append(make().warm_start(i))
        for a, b in zip(*(n.state_dict().values() for n in nets)): assert torch.equal(a, b)

# --- files

def test_save_and_load_round_trip(m, tmp_path, waves):
    m.save_pretrained(tmp_path/'a'/'b')
    again = Mars.from_pretrained(tmp_path/'a'/'b')
    assert sorted(p.name for p in (tmp_path/'a'/'b').iterdir()) == ['README.md', 'config.json', 'tokenizer.safetensors', 'var.safetensors']
    assert torch.equal(wide(again, 3, seed=1), wide(m, 3, seed=1)) and torch.equal(again.reconstruct(waves, n_iter=2), m.reconstruct(waves, n_iter=2))
    assert repr(again) == repr(m) and again.spectrogram.config == m.spectrogram.config

def test_tokenizer_alone(tmp_path, waves):
    m = make()
    m.save_pretrained(tmp_path)
    Mars(m.tokenizer, spectrogram=m.spectrogram).save_pretrained(tmp_path)
    alone = Mars.from_pretrained(tmp_path)
    assert alone.var is None and not (tmp_path/'var.safetensors').exists() and alone.half().reconstruct(waves, n_iter=1).isfinite().all()
    for ask in (lambda: alone.generate(), lambda: next(alone.stream()), lambda: next(alone.preview())):
        with pytest.raises(ValueError, match='has no transformer and cannot generate; train one with `mars train var'): ask()

def test_damaged_files(tmp_path):
    m = make()
    m.save_pretrained(tmp_path)
    config = tmp_path/'config.json'
    text = config.read_text()
    for new, message in ((text[:50], 'config.json is damaged'), (text.replace('"format": 1', '"format": 9'), 'has format 9'), (text.replace('"codebook_size": 256', '"codebook_size": 128'), 'does not fit its config.json'),
                         (json.dumps([1]), 'config.json is damaged'), (text.replace('"depth": 2', '"depth": -2'), 'depth must be >= 1, got -2')):
        config.write_text(new)
        with pytest.raises(ValueError, match=message): Mars.from_pretrained(tmp_path)
    config.write_text(text)
    save_weights(VAR(m.var.cfg, CFG), tmp_path/'var.safetensors')
    with pytest.raises(ValueError, match='trained on another tokenizer'): Mars.from_pretrained(tmp_path)
    bad = copy.deepcopy(m.var)
    with torch.no_grad(): bad.start[0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='start contains NaN or infinity and is not saved'): save_weights(bad, tmp_path/'var.safetensors')
    save_file(bad.state_dict(), tmp_path/'var.safetensors')
    with pytest.raises(ValueError, match='start contains NaN or infinity'): Mars.from_pretrained(tmp_path)
    (tmp_path/'var.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='var.safetensors is missing'): Mars.from_pretrained(tmp_path)

def test_unserialisable_info_leaves_the_folder_unchanged(m, tmp_path):
    m.save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match='info cannot be saved'): Mars(m.tokenizer, m.var, spectrogram=m.spectrogram, info=dict(a=object())).save_pretrained(tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}

def test_unknown_arguments_are_refused(m, tmp_path):
    for wrong in (dict(torch_dtype='float16'), dict(divice='cpu'), dict(revison='main')):
        with pytest.raises(TypeError, match=f"from_pretrained has no argument '{[*wrong][0]}': it has name, device, dtype, revision"): Mars.from_pretrained('small', **wrong)
    with pytest.raises(TypeError, match="save_pretrained has no argument 'haf'"): m.save_pretrained(tmp_path/'x', haf=True)
    with pytest.raises(TypeError, match='private needs push_to_hub=True'): m.save_pretrained(tmp_path/'x', private=True)
    assert not (tmp_path/'x').exists()
    with pytest.raises(FileNotFoundError): Mars.from_pretrained('no-such-model', revision='main')

def test_missing_model_is_refused():
    with pytest.raises(FileNotFoundError, match='mars train tokenizer'): find_model('no-such-model')

# --- bad input: one sentence each

@pytest.mark.parametrize('kwargs, message', [
    (dict(n=0), 'ask for at least one note'), (dict(n='3'), 'ask for at least one note'), (dict(n=2.5), 'ask for at least one note'), (dict(pitch=200), 'label pitch is 200, outside 0..127'),
    (dict(velocity=0), 'outside 1..127'), (dict(family='kazoo'), "got 'kazoo'"), (dict(pitch='C4'), "got 'C4'"), (dict(pitch=60.5), 'must be an id or a name'), (dict(pitch=[]), 'empty list'),
    (dict(pitch=[60, 61], velocity=[1, 2, 3]), 'label pitch has shape'), (dict(n=3, pitch=[60, 61]), 'there are 3 notes'), (dict(instrument=3), "'instrument' is unknown"),
    (dict(cfg_scale=-1), 'cfg_scale is -1'), (dict(cfg_scale=float('nan')), 'cfg_scale is nan'), (dict(temperature=-1), 'temperature is -1'), (dict(temperature=[1, 1]), 'one for each of the 4 scales'),
    (dict(top_k=257), 'top_k is 257'), (dict(top_p=1.5), 'top_p is 1.5'), (dict(seed=-1), 'seed is -1'), (dict(seed='x'), "seed is 'x'"), (dict(batch_size=0), 'batch_size must be an integer >= 1, got 0'), (dict(batch_size=1.5), 'batch_size must be an integer >= 1, got 1.5'),
    (dict(batch_size=None), 'batch_size must be an integer >= 1, got None')])
def test_invalid_requests_are_refused(m, kwargs, message):
    with pytest.raises(ValueError, match=message) as e: m.generate(**kwargs)
    assert '\n' not in str(e.value)

def test_invalid_waves_are_refused(m, waves):
    for bad, message in ((torch.zeros(2, 5000), 'is silent'), (torch.full((5000,), float('nan')), 'NaN'), (torch.zeros(2, 2, 50), 'wave')):
        with pytest.raises(ValueError, match=message): m.reconstruct(bad)
    for rate in (0, -1, 1.5, True, 'x'):
        with pytest.raises(ValueError, match='whole Hz'): m.reconstruct(waves, sample_rate=rate)
    with pytest.raises(ValueError, match='batch_size must be an integer >= 1, got 0'): m.reconstruct(waves, batch_size=0)

def test_other_rates_and_lengths_warn(m, waves):
    with pytest.warns(UserWarning, match='resampled from 8000 to 16000'): assert m.reconstruct(waves[:, :1000], sample_rate=8000, n_iter=1).shape == waves.shape
    with pytest.warns(UserWarning, match='was cut to'): m.reconstruct(torch.cat([waves, waves], 1), n_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        m.reconstruct(waves, n_iter=1)

def test_mismatched_parts_are_refused(m):
    with pytest.raises(ValueError, match='makes images'): Mars(m.tokenizer, cmx=CMX(2, 2))
    with pytest.raises(ValueError, match='another tokenizer config'): Mars(Tokenizer(TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 4))), m.var, spectrogram=m.spectrogram)

def test_label_ids():
    assert label_ids('guitar', FAMILIES) == 3 and label_ids(None) is None and label_ids(['bass', 3, None], FAMILIES).tolist() == [0, 3, -1]
    for bad in (True, 60.7, [60.7], object(), 2**40):
        with pytest.raises(ValueError, match='must be an id or a name'): label_ids(bad)

def test_in_batches_keeps_order():
    got = list(in_batches(lambda i, n: torch.arange(i, i+n), 10, 4))
    assert [g.tolist() for g in got] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]

def test_save_and_load_weights(tmp_path):
    a, b, path = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), tmp_path/'a.safetensors'
    save_weights(a, path, half=True)
    assert torch.equal(load_weights(b, path).weight, a.weight.half().float()) and b.weight.dtype == torch.float32
    with pytest.raises(ValueError, match='the first is weight'): load_weights(torch.nn.Linear(3, 5), path)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match='is damaged'): load_weights(b, path)
