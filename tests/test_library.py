"""`import mars`: lazy names, input forms of waves, and model cards."""
import ast, importlib, json, os, shutil, subprocess, sys, warnings
from pathlib import Path
import numpy as np, pytest, torch
import huggingface_hub
import mars
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.codec import as_waves, CARD_MARK
from mars.pipeline import Mars, find_model
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.parts.reference import reference_config
from mars.var import VAR, VARConfig

ROOT = Path(__file__).resolve().parent.parent
CFG = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))

def make(info=None, **kwargs):
    torch.manual_seed(0)
    tok = Tokenizer(CFG)
    config = reference_config(VARConfig, kwargs).preset('tiny', gamma_init=1., **kwargs)
    return Mars(tok, VAR(config, CFG).bind(tok), spectrogram=LogSpectrogram(n_fft=128, hop_length=64, n_frames=32), info=info)

@pytest.fixture(scope='module')
def m(): return make(dict(data=dict(notes=9, instruments=2, pitches=[40, 50], credits=['Bells (CC0): A. Maker'], held_out=['bell_2']), note='provisional',
                          results=dict(reconstruction=dict(mse=.5, deep=dict(er=1))), train_var=dict(steps=7, lr=.1), versions=dict(torch='2')))

@pytest.fixture(scope='module')
def tone(m): return .5*torch.sin(torch.arange(m.spectrogram.n_samples)*.3)

# --- the package

def test_all_is_short_and_every_name_has_its_module():
    assert len(mars.__all__) < 16 and mars.__all__ == sorted(mars.__all__) and {'Mars', 'LogSpectrogram', 'CMX', 'Tokenizer', 'VAR'} <= {*mars.__all__}
    assert mars.Mars is Mars and mars.CMX is CMX and mars.VAR is VAR and mars.LogSpectrogram is LogSpectrogram and mars.Tokenizer is Tokenizer
    assert {*mars.__all__} <= {*dir(mars)} and '__version__' in dir(mars)
    for name in mars.__all__:
        home = importlib.import_module(f'mars.{mars._HOMES[name]}')
        assert name in getattr(home, '__all__', vars(home)) # a package re-exports what its modules list
    names = {}
    exec('from mars import *', names)
    assert {*mars.__all__} <= {*names}
    with pytest.raises(AttributeError, match="no 'Venus'; it has CMX"): mars.Venus
    assert not hasattr(mars, '_nothing')

def test_type_checkers_see_the_lazy_names():
    "The imports under TYPE_CHECKING equal the table."
    tree = ast.parse(Path(mars.__file__).read_text())
    seen = {a.name: n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level for a in n.names}
    assert seen == mars._HOMES == {n: mars._HOMES[n] for n in mars.__all__}

@pytest.mark.parametrize('name', ['cli', 'data', 'parts', 'apps'])
def test_modules_are_imported_lazily(name):
    code = f'import sys, mars; a = "mars.{name}" in sys.modules; mars.{name}.__name__; print(a, "mars.{name}" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.split() == ['False', 'True'], done.stderr

def test_nbdev_preserves_the_names_and_updates_the_version(tmp_path):
    "nbdev_export calls update_version on the package"
    from nbdev.config import update_version
    shutil.copy(mars.__file__, tmp_path/'__init__.py')
    old = (tmp_path/'__init__.py').read_text()
    (tmp_path/'__init__.py').write_text(old.replace(mars.__version__, '0.0.1'))
    update_version(tmp_path)
    assert (tmp_path/'__init__.py').read_text() == old

# --- waves

FORMS = dict(mono=lambda x: x, numpy=lambda x: x.numpy(), float64=lambda x: x.double().numpy(), batch=lambda x: x[None], channels_last=lambda x: torch.stack([x, x], 1).numpy(), one_channel=lambda x: x[:, None],
             stereo=lambda x: torch.stack([x, x])[None], stereo_last=lambda x: torch.stack([x, x], 1)[None].numpy(), int16=lambda x: (x*32767).to(torch.int16).numpy(), listed=lambda x: [x.numpy()], numbers=lambda x: x.tolist(),
             grad=lambda x: x.clone().requires_grad_(), strided=lambda x: x.repeat_interleave(2).numpy()[::2])

@pytest.mark.parametrize('form', FORMS)
def test_every_input_form_gives_the_same_wave(m, tone, form):
    given = FORMS[form](tone)
    assert torch.allclose(as_waves(given), tone[None], atol=1e-4) and as_waves(given).dtype == torch.float32
    back = m.reconstruct(given, n_iter=2)
    assert back.shape == (1, m.n_samples) and torch.allclose(back, m.reconstruct(tone, n_iter=2), atol=.05 if form == 'int16' else 1e-4)

def test_several_waves(m, tone):
    two = torch.stack([tone, tone.flip(0)])
    assert m.reconstruct(two, n_iter=1).shape == m.reconstruct([tone, tone.flip(0).numpy()], n_iter=1).shape == (2, m.n_samples)
    x = as_waves([tone, tone[:100]])
    assert x.shape == (2, len(tone)) and not x[1, 100:].any()
    assert as_waves(torch.stack([two, two], 1)).shape == (2, len(tone))          # (B, C, N)
    assert torch.allclose(as_waves(np.stack([two.numpy(), 0*two.numpy()], 1))[0], tone/2, atol=1e-6)

@pytest.mark.parametrize('rate', [8000, 22050, 44100, np.int64(48000)])
def test_sample_rates_are_converted_with_a_warning(rate):
    t = np.arange(int(rate)//2)/rate
    with pytest.warns(UserWarning, match=f'resampled from {rate} to 16000'): x = as_waves(.5*np.sin(2*np.pi*440*t), rate)
    assert abs(x.shape[1] - 8000) <= 1
    peak = torch.fft.rfft(x[0]).abs().argmax().item()*16000/x.shape[1]
    assert abs(peak - 440) < 3
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        as_waves(np.ones(9)*.1, 16000)

@pytest.mark.parametrize('bad, rate, why', [
    ('note.wav', 16000, 'is str and no wave'), (None, 16000, 'NoneType'), (torch.zeros(0), 16000, 'at least one sample'), (torch.zeros(2, 0), 16000, 'at least one sample'), ([], 16000, 'at least one sample'), (torch.zeros(50), 16000, 'wave 0 is silent'), (torch.tensor([[.5], [0.]]).expand(2, 40), 16000, 'wave 1 is silent'),
    (torch.full((9,), float('nan')), 16000, 'NaN'), (np.full(9, np.inf), 16000, 'NaN or infinity'), (torch.ones(9, dtype=torch.int32), 16000, 'must be float'), (torch.ones(1, 1, 1, 9), 16000, 'shape'), (torch.ones(2, 9, 30), 16000, '9 channels'),
    (torch.ones(9), 0, 'whole Hz, got 0'), (torch.ones(9), 44.1, 'whole Hz, got 44.1'), (torch.ones(9), True, 'whole Hz, got True'), (torch.ones(9), '44100', "whole Hz, got '44100'"), ([torch.ones(9), torch.zeros(0)], 16000, 'at least one sample')])
def test_invalid_audio_raises_one_sentence(m, bad, rate, why):
    with pytest.raises(ValueError, match=why): m.reconstruct(bad, rate)
    with pytest.raises(ValueError, match=why.replace('wave 0', 'reference 0').replace('wave 1', 'reference 1')): as_waves(bad, rate, name='reference')

def test_references_accept_the_same_input_forms():
    m = make(reference_dim=128)
    notes = AdditiveNotes(('organ', 'flute'), range(60, 61), (100,), cache=False)
    x = notes[0][0]
    want = m.embed_reference(x)
    assert want.shape == (128,)
    for given, shape in ((torch.stack([x, x], 1), (128,)), (x.tolist(), (128,)), (x[None], (1, 128)), (torch.stack([x, x])[None], (1, 128)), ([x, x], (2, 128))):
        got = m.embed_reference(given)
        assert got.shape == shape and torch.allclose(got, want.expand(shape), atol=1e-3)
    from mars.parts.files import resample
    double = resample(x.numpy(), 16000, 32000)
    with pytest.warns(UserWarning, match='reference was resampled from 32000'): far = m.embed_reference(double, 32000)
    assert torch.nn.functional.cosine_similarity(far, want, 0) > .98 > torch.nn.functional.cosine_similarity(m.embed_reference(double), want, 0)
    with pytest.warns(UserWarning, match='resampled'): a = m.generate(reference=double, reference_rate=32000, seed=1, n_iter=1, temperature=0)
    assert a.shape == (1, m.n_samples)

# --- models that travel

def test_a_folder_loads_offline_with_its_card(m, tmp_path):
    m.save_pretrained(tmp_path/'a'/'b')
    assert sorted(p.name for p in (tmp_path/'a'/'b').iterdir()) == ['README.md', 'config.json', 'tokenizer.safetensors', 'var.safetensors']
    for name in (tmp_path/'a'/'b', str(tmp_path/'a'/'b')): assert torch.equal(Mars.from_pretrained(name).generate(seed=1, n_iter=1), m.generate(seed=1, n_iter=1))
    assert find_model('small').name == 'small' and isinstance(m, huggingface_hub.ModelHubMixin)

def test_the_model_card_agrees_with_config_json(m, tmp_path):
    m.save_pretrained(tmp_path)
    card = huggingface_hub.ModelCard.load(tmp_path/'README.md')
    assert card.data.license == 'apache-2.0' and card.data.library_name == 'mars-spectrogram' and 'audio-generation' in card.data.tags
    for text in ('9 notes of 2 instruments', 'pitches 40 to 50', 'bell_2', 'Bells (CC0): A. Maker', '> provisional', '| reconstruction, mse | 0.5 |', '| reconstruction, deep, er | 1 |', 'steps 7', 'torch 2', '## Limits', '## Licence and credits'): assert text in card.text, text
    make().save_pretrained(tmp_path) # another model in its place: another card
    text = (tmp_path/'README.md').read_text()
    assert 'Bells' not in text and text.count('not recorded') == 3 and 'None recorded' in text
    (tmp_path/'README.md').write_text('my own words')
    m.save_pretrained(tmp_path)
    assert (tmp_path/'README.md').read_text() == 'my own words'
    assert CARD_MARK in text and 'generate' in text and 'generate' not in Mars(Tokenizer(CFG), spectrogram=m.spectrogram).generate_model_card().text.split('## Limits')[0].replace('audio-generation', '')

def test_model_card_of_the_packaged_weights():
    card = Mars.from_pretrained('small').generate_model_card()
    assert 'Default sampling settings: cfg_scale' in card.text
    credits = json.loads((find_model('small')/'config.json').read_text())['info']['data']['credits']
    assert credits and all(c in card.text for c in credits) and '| measured | value |' in card.text

class Hub:
    "Replaces HfApi: records its arguments."
    calls = []
    def __init__(self, token=None): self.token = token
    def create_repo(self, repo_id, private=None, exist_ok=False):
        self.calls.append(('create', repo_id, private, self.token))
        return type('Url', (), dict(repo_id=repo_id))()
    def upload_folder(self, repo_id, folder_path, **kwargs):
        self.calls.append(('upload', repo_id, {p.name: p.read_bytes() for p in Path(folder_path).iterdir()}, kwargs['commit_message']))
        return 'the address'

def test_push_to_hub(m, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.hub_mixin, 'HfApi', Hub)
    assert m.push_to_hub('me/notes', private=True, token='t', commit_message='first') == 'the address'
    (_, repo, private, token), (_, _, files, message) = Hub.calls
    assert (repo, private, token, message) == ('me/notes', True, 't', 'first') and sorted(files) == ['README.md', 'config.json', 'tokenizer.safetensors', 'var.safetensors']
    (tmp_path/'got').mkdir()
    for name, data in files.items(): (tmp_path/'got'/name).write_bytes(data)
    assert torch.equal(Mars.from_pretrained(tmp_path/'got').generate(seed=1, n_iter=1), m.generate(seed=1, n_iter=1))
    Hub.calls.clear()
    assert m.save_pretrained(tmp_path/'me', push_to_hub=True, repo_id='me/again') == 'the address' and Hub.calls[1][1] == 'me/again'
    assert m.save_pretrained(tmp_path/'me') is None

def test_a_hub_model_loads_from_the_cache(m, tmp_path):
    "The cache layout of a download: offline, the snapshot of a revision is found by owner/name."
    repo, commit = tmp_path/'models--me--notes', 'a'*40
    m.save_pretrained(repo/'snapshots'/commit)
    (repo/'refs').mkdir()
    (repo/'refs'/'main').write_text(commit)
    again = Mars.from_pretrained('me/notes', cache_dir=tmp_path, local_files_only=True)
    assert torch.equal(again.generate(seed=1, n_iter=1), m.generate(seed=1, n_iter=1))
    for name in ('me/other', 'nobody'):
        with pytest.raises(FileNotFoundError, match='mars train tokenizer'): Mars.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)

def test_a_missing_folder_is_not_requested_from_the_hub(tmp_path, monkeypatch):
    (tmp_path/'runs').mkdir()
    monkeypatch.chdir(tmp_path)
    def never(*args, **kwargs): raise AssertionError('the hub was asked')
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', never)
    for name in ('runs/first', './runs/first', '/no/such', 'a/b/c', 'nothing'):
        with pytest.raises(FileNotFoundError, match='no such folder'): Mars.from_pretrained(name)
