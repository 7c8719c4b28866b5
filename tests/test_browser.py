"""The model in the page: its modules under Node, its graphs in onnxruntime, and the built page in Chromium.

`scripts/test.sh` builds `_docs/browser` first. Without npm the built page has no model, and the tests of it are skipped.
"""
import base64, io, json, os, re, shutil, subprocess, warnings, zipfile
from pathlib import Path

import numpy as np, pytest, torch

from mars.cmx import CMX
from mars.parts.codec import fade_in
from mars.parts.onnx_graphs import OnnxModel, check_exportable, export_onnx, onnx_files
from mars.parts.preparation import prepare_wave
from mars.parts.sampling import note_uniforms, sample
from mars.pipeline import Mars
from mars.stft import LogSpectrogram, random_phases
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT/'_docs'/'browser'

def numbers(x): return np.asarray(x, np.float64).ravel().tolist()

# ---- modules of the page ----

def known_samples(rng):
    for settings in (dict(temperature=0), dict(), dict(temperature=.8, top_k=20), dict(top_p=.7), dict(temperature=1.3, top_k=100, top_p=.9), dict(top_k=1)):
        logits, u = rng.normal(0, 3, (16, 300)).astype(np.float32), rng.random(16, np.float32)
        u[:2] = 0, 1 - 2**-24
        tokens = sample(torch.from_numpy(logits), torch.from_numpy(u), **settings)
        yield dict(logits=numbers(logits), V=300, u=numbers(u), settings=settings, tokens=tokens.tolist())

def known_prepared(rng):
    t = np.arange(4000)/8000
    for wave in (.3*np.sin(900*t), np.concatenate([np.zeros(500), .9*np.sin(500*t)]), .1*np.sin(500*t) + .2, 1e-3*rng.normal(0, 1, 4000) + (t > .2)*np.sin(3000*t)):
        x, _ = prepare_wave(wave.astype(np.float32), 8000, length=3000)
        yield dict(wave=numbers(wave), rate=8000, prepared=numbers(np.pad(x, (0, 3000-len(x)))))

@pytest.fixture(scope='module')
def known(tmp_path_factory):
    "Numbers of the Python package that the page must reproduce."
    rng, ls = np.random.default_rng(0), LogSpectrogram(n_fft=128, hop_length=32, n_frames=40)
    wave = (.5*np.sin(.2*np.arange(ls.n_samples)) + .05*rng.normal(0, 1, ls.n_samples)).astype(np.float32)
    spec = ls.encode(wave)
    sound = fade_in(ls.decode(spec, n_iter=1, seed=5), ls.sample_rate//1000)
    sound = sound/sound.abs().max().div(.999).clamp(min=1)
    content = dict(
        seeds=[dict(numbers=n, words=np.random.SeedSequence(n).generate_state(5).tolist()) for n in ([0], [1, 2, 3], [2**40+7, 0, 1], [5, 2**33, 2**70, 9])],
        uniforms=[dict(seed=s, index=i, values=numbers(note_uniforms(s, i, 1, 99))) for s, i in ((0, 0), (7, 3), (2**35, 1))],
        cycles=[dict(seed=s, index=i, values=numbers(random_phases(1, (50, 20), s, i).angle()/(2*np.pi) % 1)) for s, i in ((0, 0), (2**31, 4))],
        spectrogram=dict(config=ls.config, n_samples=ls.n_samples, wave=numbers(wave), spec=numbers(spec), sound=numbers(sound)),
        samples=[*known_samples(rng)], prepared=[*known_prepared(rng)])
    for row in content['cycles']:  # the angle is rounded; the numbers themselves are
        state = np.random.SeedSequence([row['seed'], row['index']]).generate_state(1)[0]
        exact = torch.rand(50, 20, generator=torch.Generator().manual_seed(int(state)))
        np.testing.assert_allclose(row['values'], numbers(exact), atol=1e-6)
        row['values'] = numbers(exact)
    path = tmp_path_factory.mktemp('known')/'known.json'
    path.write_text(json.dumps(content))
    return path

@pytest.fixture(scope='module')
def node(known):
    if not shutil.which('node'): pytest.skip('Node is missing: install Node 20 or newer')
    files = sorted(map(str, (ROOT/'tests'/'page').glob('*.test.mjs')))
    return subprocess.run(['node', '--test', '--test-reporter=tap', *files], env=dict(os.environ, KNOWN=str(known)), capture_output=True, text=True, timeout=300)

def test_modules_reproduce_the_python_package(node): assert node.returncode == 0, node.stdout[-4000:] + node.stderr

def test_zip_archive_can_be_read(node):
    made = re.search(r'ZIP ([\w+/=]+)', node.stdout)[1]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(made))) as z:
        assert z.testzip() is None and z.namelist() == ['a.sfz', 'samples/ü.wav']
        assert z.read('samples/ü.wav')[:4] == b'RIFF' and b'<region>' in z.read('a.sfz')

# ---- graphs ----

TINY = dict(image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))

def tiny(**cfg):
    torch.manual_seed(0)
    tok = Tokenizer(TokenizerConfig.preset('tiny', **(TINY | cfg))).eval()
    return Mars(tok, VAR(VARConfig.preset('tiny', gamma_init=1.), tok.cfg).bind(tok), spectrogram=LogSpectrogram(n_fft=128, hop_length=64, n_frames=32))

def test_quantizer_graph_of_square_maps(tmp_path):
    pytest.importorskip('onnxscript')
    m = tiny(n_phi=2)
    for name, data in onnx_files(m, 'float', names=('quantizer',)).items():
        (tmp_path/name).write_bytes(data.encode() if isinstance(data, str) else data)
    graphs, rng, total, expected = OnnxModel(tmp_path), np.random.default_rng(0), np.zeros((3, 8, 4, 4), np.float32), 0
    ends = np.cumsum([0, 1, 4, 9, 16])
    for k in range(3):
        tokens = rng.integers(0, 256, (3, ends[k+1]-ends[k]))
        total, x = graphs.run('quantizer', tokens=tokens, positions=np.arange(ends[k], ends[k+1]), total=total, following=np.arange(ends[k+1], ends[k+2]))
        with torch.no_grad():
            expected, z = m.var.next_input(k, torch.from_numpy(tokens), expected)
            np.testing.assert_allclose(x, m.var.embed(z), atol=1e-5)
        np.testing.assert_allclose(total, expected, atol=1e-5)

def test_models_without_graphs_are_refused():
    m = tiny()
    m.var.__class__ = type('Other', (VAR,), dict(stream=lambda self: None, system='other'))
    with pytest.raises(ValueError, match='a other transformer on MultiScaleQuantizer tokens cannot be exported'): check_exportable(m)
    m.var = None
    with pytest.raises(ValueError, match='no transformer'): onnx_files(m)

def test_spectrograms_that_the_page_cannot_transform_are_refused(tmp_path):
    from mars.apps.browser import export_web
    m = tiny()
    m.spectrogram = LogSpectrogram(n_fft=96, hop_length=32, n_frames=32)
    with pytest.raises(ValueError, match='n_fft must be a power of two for the page, got 96'): export_web(m, tmp_path/'page')
    m.spectrogram = LogSpectrogram(n_fft=128, hop_length=48, n_frames=32)
    with pytest.raises(ValueError, match='hop_length must divide n_fft=128'): export_web(m, tmp_path/'page')
    assert not (tmp_path/'page').exists()

@pytest.mark.parametrize('args, message', [(('--format', 'web', '--family', 'flute'), '--family has no effect with --format web'), (('--format', 'onnx', '--runtime', 'x'), '--runtime has no effect')])
def test_options_of_an_instrument_are_refused_with_a_model(args, message, tmp_path, capsys):
    from mars.cli import main
    assert main(['export', *args, '--out', str(tmp_path/'x')]) == 2 and message in capsys.readouterr().err and not (tmp_path/'x').exists()

# ---- the built page ----

from test_site import browser, host, served # noqa: E402, F401: fixtures

@pytest.fixture(scope='module')
def built():
    if not (PAGE/'model.json').exists(): pytest.skip('the page is not built: run `nbdev_docs`, or all of `bash scripts/test.sh`')
    about = json.loads((PAGE/'model.json').read_text(encoding='utf-8'))
    if 'missing' in about: pytest.skip(about['missing'])
    return about

@pytest.fixture(scope='module')
def small(): return Mars.from_pretrained('small')

REQUESTS = [(dict(pitch=60, velocity=100, family=3, source=0), 0), (dict(pitch=72, velocity=75, family=2, source=0), 1), (dict(pitch=48, velocity=127, family=0), 7)]

def python_tokens(small, labels, seed, **settings):
    return torch.cat(small.var.generate(labels, seed=seed, **small.sampling(settings)), 1)[0].tolist()

def test_onnxruntime_gives_the_tokens_and_the_spectrogram(built, small):
    pytest.importorskip('onnxruntime')
    graphs, labels = OnnxModel(PAGE), dict(pitch=[60, 72, 48], velocity=100, family=[3, 2, 0])
    tokens, spec = graphs.generate(labels, 3, seed=0, temperature=0)
    expected = small.var.generate({k: torch.tensor(v) for k, v in labels.items()}, seed=0, **small.sampling(dict(temperature=0)))
    np.testing.assert_array_equal(np.concatenate(tokens, 1), torch.cat(expected, 1))
    np.testing.assert_allclose(spec, small.tokens_to_spec(expected), atol=1e-4)
    spec = spec.repeat(3, 0) # 9 notes: more rows than `nearest_code` compares at a time
    same = np.concatenate(graphs.encode(spec), 1) == torch.cat(small.tokenizer.encode(small.cmx.fold(torch.from_numpy(spec))), 1).numpy()
    assert same.mean() > .99

class Watch:
    "A page, its console errors, and its requests."
    def __init__(self, browser, **settings):
        self.context = browser.new_context(**settings)
        self.page, self.errors, self.asked = self.context.new_page(), [], []
        self.page.set_default_timeout(300_000)
        self.page.on('console', lambda m: self.errors.append(m.text) if m.type in ('error', 'warning') else None)
        self.page.on('pageerror', lambda e: self.errors.append(str(e)))
        self.page.on('request', lambda r: self.asked.append(r.url))

@pytest.fixture(scope='module')
def loaded(browser, host, built): # noqa: F811
    "The page in a folder of the site, its model loaded by the keyboard."
    watch = Watch(browser, viewport=dict(width=1280, height=900))
    watch.page.goto(f'{host}/browser/')
    watch.page.locator('#load').wait_for()
    watch.page.locator('#load').focus()
    watch.page.keyboard.press('Enter')
    watch.page.wait_for_selector('#tools:not([hidden])')
    yield watch
    watch.context.close()

def ask(page, labels, seed): # -> tokens, spectrogram, wave
    made = page.evaluate('''([labels, seed]) => mars.note(labels, {seed}).then(n => [n.tokens.flatMap(t => [...t]), [...n.spec], [...n.wave]])''', [labels, seed])
    return made[0], *(np.array(x, np.float32) for x in made[1:])

@pytest.mark.parametrize('labels, seed', REQUESTS)
def test_page_gives_the_tokens_and_the_pitch_of_python(loaded, small, labels, seed):
    from mars.eval import f0
    tokens, spec, wave = ask(loaded.page, labels, seed)
    assert tokens == python_tokens(small, labels, seed)
    expected = small.tokens_to_spec([t[None] for t in torch.tensor(tokens).split(small.var.lengths)])
    np.testing.assert_allclose(spec, expected.flatten(), atol=1e-3)
    assert wave.shape == (64000,) and np.abs(wave).max() <= 1
    assert abs(f0(wave, 16000).midi - f0(small.spec_to_wave(expected, seed=seed)[0], 16000).midi) < .5

def test_form_shows_maps_and_saves_a_wav(loaded):
    page = loaded.page
    page.get_by_label('Family').select_option(label='flute')
    assert page.get_by_label('Source').locator('option').all_inner_texts() == ['any', 'acoustic']
    page.get_by_label('Seed', exact=True).fill('3')
    page.get_by_role('button', name='Next seed').click()
    page.get_by_label('Seed', exact=True).focus()
    page.keyboard.press('Enter')
    page.wait_for_selector('#maps button:nth-child(7):not([disabled])')
    assert page.locator('#maps button').count() == 8 and 'Generated in' in page.locator('#said').inner_text()
    assert 'flute, C4, velocity 100, seed 4' in page.locator('#spectrogram').get_attribute('aria-label')
    assert page.locator('#player').evaluate('a => a.duration') == 4
    with page.expect_download() as saved: page.get_by_role('button', name='Save WAV').click()
    assert saved.value.suggested_filename == 'flute-060-100.wav' and Path(saved.value.path()).stat().st_size == 44 + 2*64000

def test_keyboard_plays_and_an_instrument_is_saved(loaded):
    page = loaded.page
    labels = page.locator('#keys button').evaluate_all('keys => keys.map(k => k.getAttribute("aria-label"))')
    assert len(labels) == len(set(labels)) == 25 and labels[1] == 'C sharp 3' and page.locator('#keys [tabindex="0"]').count() == 1
    page.locator('#keys [tabindex="0"]').focus()
    page.keyboard.press('ArrowUp')
    assert page.evaluate('document.activeElement.getAttribute("aria-label")') == 'C4'
    page.keyboard.press('Enter')  # the note of the form, which is kept
    page.locator('#played:has-text("C4 after 0.")').wait_for()
    page.locator('#instrument [name=low]').fill('60'), page.locator('#instrument [name=high]').fill('63')
    with page.expect_download() as saved: page.get_by_role('button', name='Save SFZ').click()
    with zipfile.ZipFile(saved.value.path()) as z:
        assert z.namelist() == ['flute.sfz', 'samples/flute-060.wav', 'samples/flute-063.wav']
        assert 'pitch_keycenter=63' in z.read('flute.sfz').decode()

def test_a_sound_is_encoded_as_in_python(loaded, small, tmp_path):
    import soundfile
    wave = np.sin(2*np.pi*440/16000*np.arange(64000))*np.exp(-np.arange(64000)/16000)*.89
    soundfile.write(tmp_path/'tone.wav', wave, 16000, subtype='FLOAT')
    loaded.page.set_input_files('#file', tmp_path/'tone.wav')
    loaded.page.wait_for_selector('#own-maps button:nth-child(8):not([disabled])')
    assert loaded.page.locator('#heard').inner_text() == 'tone.wav: 255 tokens of 12 bits, 383 bytes for 4 s.'
    assert loaded.page.locator('#channels canvas').count() == 2
    colors = np.frombuffer(base64.b64decode(loaded.page.evaluate('btoa(String.fromCharCode(...mars.about.colors))')), np.uint8).reshape(-1, 3)
    shown = loaded.page.locator('#own-maps canvas:first-child').evaluate_all('cs => cs.map(c => [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data])')
    tokens = small.encode(torch.from_numpy(wave).float())
    same = [np.all(np.array(s).reshape(-1, 4)[::-1, :3] == colors[t[0].numpy()], 1) for s, t in zip(shown, tokens)]
    assert np.concatenate(same).mean() > .95 # sums of a transform are rounded differently

def test_a_file_that_is_no_sound_gets_one_sentence(loaded, tmp_path):
    (tmp_path/'text.wav').write_text('no sound')
    loaded.page.set_input_files('#file', tmp_path/'text.wav')
    loaded.page.get_by_text('text.wav is not a sound that this browser can read.').wait_for()

def test_page_fits_a_phone(loaded):
    loaded.page.set_viewport_size(dict(width=390, height=844))
    assert loaded.page.evaluate('document.documentElement.scrollWidth') <= 390
    assert loaded.page.locator('#keys button').count() == 13
    loaded.page.set_viewport_size(dict(width=1280, height=900))

def test_page_has_no_errors_and_asks_no_other_host(loaded, host): # noqa: F811
    assert not loaded.errors
    assert not [u for u in loaded.asked if not u.startswith((host, 'blob:', 'data:'))]

def test_second_visit_takes_the_model_from_the_cache(loaded, host): # noqa: F811
    page = loaded.context.new_page()
    asked = []
    page.on('request', lambda r: asked.append(r.url))
    page.goto(f'{host}/browser/')
    page.get_by_text('Checking the model').or_(page.get_by_text('Ready, by')).first.wait_for(timeout=300_000)
    assert not [u for u in asked if '/model/' in u or u.endswith('.wasm.gz')]
    page.close()

@pytest.mark.parametrize('script, message', [('delete window.WebAssembly', 'This browser has no WebAssembly'), ('delete window.DecompressionStream', 'no DecompressionStream')])
def test_a_browser_without_a_part_gets_a_message(browser, host, built, script, message): # noqa: F811
    watch = Watch(browser)
    watch.page.add_init_script(script)
    watch.page.goto(f'{host}/browser/')
    watch.page.locator('#support').wait_for()
    assert message in watch.page.locator('#support').inner_text() and not watch.page.locator('#load').is_visible()
    assert not [u for u in watch.asked if '/model/' in u] and not watch.errors
    watch.context.close()

def test_a_build_without_the_runtime_says_so(browser, tmp_path): # noqa: F811
    from mars.apps.browser import write_page
    write_page(tmp_path/'browser', dict(missing='The model is not part of this build.'), dict(home='../index.html', guide='../guides/browser.html'))
    watch = Watch(browser)
    with served(tmp_path) as address:
        watch.page.goto(f'{address}/browser/')
        watch.page.get_by_text('The model is not part of this build.').wait_for()
        assert not watch.page.locator('#load').is_visible() and not watch.errors
        assert watch.page.get_by_role('link', name='How this page works').get_attribute('href') == '../guides/browser.html'
    watch.context.close()
