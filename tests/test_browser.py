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
