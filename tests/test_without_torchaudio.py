"The package works where torchaudio is installed but cannot be loaded, as with a mismatched build of torch."
import json, os, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = '''
import importlib.abc, importlib.machinery, sys
class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'torchaudio': return importlib.machinery.ModuleSpec(name, self)
    def create_module(self, spec): raise OSError('Could not load this library: libtorchaudio.so')
    def exec_module(self, module): pass
sys.meta_path.insert(0, Broken())
'''
NOTE = ['--n-iter', '1', '--seed', '0', '--json']
DATA = ['--data', 'additive', '--families', 'guitar,flute,organ', '--pitches', '48-63', '--velocities', '50,100']
FAST = ['--n', '20', '--n-iter', '1', '--n-resamples', '10', '--n-f0', '2', '--n-train', '100', '--seeds', '1', '--seed', '0', '--json']
COMMANDS = [['generate', '--pitch', '60', '--family', 'guitar', '--out', 'notes', *NOTE],
            ['generate', '--pitch', '64', '--reference', 'notes/guitar-060.wav', '--out', 'reference', *NOTE],
            ['evaluate', *DATA, '--out', 'report', *FAST]]

def run_python(code, folder):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'}
    return subprocess.run([sys.executable, '-c', code], cwd=folder, env=env, text=True, capture_output=True, timeout=600)

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "The files of all commands, run in one process."
    out = tmp_path_factory.mktemp('mars')
    done = run_python(f'{BLOCK}from mars.cli import main\nfor argv in {COMMANDS}: assert main(argv) in (None, 0), argv\nassert "torchaudio" not in sys.modules', out)
    assert done.returncode == 0, done.stderr
    return out

def test_torchaudio_is_blocked(tmp_path):
    done = run_python(f'{BLOCK}import torchaudio', tmp_path)
    assert done.returncode == 1 and 'OSError: Could not load this library' in done.stderr

def test_no_module_names_torchaudio():
    assert [p.name for p in sorted((ROOT/'mars').rglob('*.py')) if 'torchaudio' in p.read_text(encoding='utf-8')] == []

def test_notes_are_generated_from_labels_and_from_a_reference(folder):
    import soundfile
    for name in ('notes', 'reference'):
        wave, rate = soundfile.read(next((folder/name).glob('*.wav')))
        assert (wave.shape, rate) == ((64000,), 16000) and abs(wave).max() > .01

def test_a_model_is_evaluated(folder):
    report = json.loads((folder/'report/report.json').read_text(encoding='utf-8'))
    assert {'generated', 'reconstruction', 'Griffin-Lim oracle'} <= set(report['rows'])
