"""The packaged weights reproduce golden.safetensors: exactly on the same processor and versions, closely elsewhere."""
import json, sys
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file

HERE = Path(__file__).parent/'golden'
sys.path.insert(0, str(HERE))
import make  # noqa: E402
sys.path.pop(0)

GOLDEN, RECORD = load_file(HERE/'golden.safetensors'), json.loads((HERE/'golden.json').read_text())
SPEC, WAVE, METRIC = 1e-4, 5e-3, 1e-4  # largest relative RMS error; other kernels (SSE, AVX2, AVX-512, 1 or 2 threads) stayed below 1e-7, 2e-4 and 3e-8

@pytest.fixture(scope='module')
def outputs(): return make.outputs()

def equal_share(kind, outputs):
    names = [k for k in GOLDEN if k.startswith('tokens/') and kind(k)]
    return torch.cat([(GOLDEN[k] == outputs[k]).flatten() for k in names]).double().mean().item()

def relative(a, b): return ((a.double() - b.double()).square().mean()/a.double().square().mean()).sqrt().item()

def test_golden_files_are_complete(outputs): assert {k: (v.shape, v.dtype) for k, v in GOLDEN.items()} == {k: (v.shape, v.dtype) for k, v in outputs.items()}

def test_greedy_tokens(outputs): assert equal_share(lambda k: 'greedy' in k or 'reference' in k, outputs) >= .99

def test_encoded_tokens(outputs): assert equal_share(lambda k: 'encode' in k, outputs) >= .99

def test_sampled_tokens(outputs): # a token that flips changes all finer ones of its note
    assert equal_share(lambda k: not any(s in k for s in ('greedy', 'encode', 'reference')), outputs) >= .9

@pytest.mark.parametrize('name', [k for k in GOLDEN if k.startswith(('spec/', 'wave/')) or k == 'metrics'])
def test_spectrograms_waveforms_and_metrics(outputs, name):
    limit = dict(spec=SPEC, wave=WAVE, metrics=METRIC)[name.split('/')[0]]
    assert relative(GOLDEN[name], outputs[name]) <= limit

def test_bit_identical_on_the_same_processor(outputs):
    if make.processor() != RECORD['processor']: pytest.skip(f'recorded on {RECORD["processor"]}, this is {make.processor()}')
    assert {k: make.digest(v) for k, v in outputs.items()} == RECORD['sha256']

def test_a_changed_weight_is_detected(outputs):
    changed = {k: v.clone() for k, v in outputs.items()}
    changed['tokens/greedy'][:, 200:] += 1
    assert equal_share(lambda k: 'greedy' in k or 'reference' in k, changed) < .99
