"""Type checking of the package and of a program that uses it."""
import os, subprocess, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Modules with complaints. Take one out, run this test, and see.
NOT_YET = set('''
ablations apps.instruments baselines.aar baselines.comparison baselines.flow baselines.magnet data.folder
data.notes data.nsynth data.rendered data.soundfont parts.editing parts.product parts.vocoder studies.magnet
studies.prediction studies.sat baselines.ddsp baselines.diffwave baselines.wavenet evaluation.selection'''.split())

# A modest beginning. Networks hold parts that may be None, classes narrow what their parents take, and empty lists are given no type.
CONFIG = '''[mypy]
python_version = 3.11
implicit_optional = True
ignore_missing_imports = True
check_untyped_defs = True
disable_error_code = used-before-def, var-annotated, union-attr, override
[mypy-torch.*,torchaudio.*,pandas.*,scipy.*,sklearn.*,librosa.*,matplotlib.*,accelerate.*,fastprogress.*,safetensors.*]
follow_imports = skip
# The packages that these and huggingface_hub import: the complaints are the same without them, in a quarter of the time
[mypy-transformers.*,wandb.*,onnx.*,onnxscript.*,onnxruntime.*,gradio.*,IPython.*]
follow_imports = skip
'''

def mypy(folder, *what):
    (folder/'mypy.ini').write_text(CONFIG)
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'MYPYPATH')} | {'MYPYPATH': str(folder)}
    done = subprocess.run([sys.executable, '-m', 'mypy', '--config-file', 'mypy.ini', '--cache-dir', 'cache', *what], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stderr
    return [x for x in done.stdout.splitlines() if ': error:' in x]

def module_of(line): # of mypy's output: mars/parts/files.py:3: error: ... -> parts.files
    return '.'.join(Path(line.split(':')[0]).with_suffix('').parts[1:]).removesuffix('.__init__')

def test_types_are_shipped(): assert "'py.typed'" in (ROOT/'setup.py').read_text() and (ROOT/'mars'/'py.typed').exists()

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('checked')
    (folder/'mars').symlink_to(ROOT/'mars')
    return folder

@pytest.fixture(scope='module')
def complaints(folder): return mypy(folder, 'mars')

def test_checked_modules_still_pass(complaints):
    new = [x for x in complaints if module_of(x) not in NOT_YET]
    assert not new, '\n'.join(new)

def test_the_list_of_unchecked_modules_is_minimal(complaints):
    assert NOT_YET <= {module_of(f'{p.relative_to(ROOT)}:') for p in (ROOT/'mars').rglob('*.py')}
    clean = NOT_YET - {module_of(x) for x in complaints}
    assert not clean, f'{", ".join(sorted(clean))} pass now: take them out of NOT_YET'

USER = '''
import mars
from mars import Mars, Tokenizer, TokenizerConfig
m = Mars.from_pretrained('small', 'cpu')
wave = m.generate(2, pitch=[60, 64], family='flute', seed=1)
back = m.reconstruct(wave, sample_rate=16000)
m.save_pretrained('folder', half=True)
m.push_to_hub('me/notes')
tok = Tokenizer(TokenizerConfig(patch=(8, 8)))
tokens = tok.encode(wave)
n: int = m.sample_rate
spec = mars.LogSpectrogram().encode(wave)
cmx = mars.CMX.fit()
'''
WRONG = {"m.reconstruct(wave, sample_rate='high')": 'arg-type', 'm.genrate()': 'attr-defined', 'mars.Venus': 'attr-defined', "m.generate(seed='x')": 'arg-type', 'm.save_pretrained()': 'call-arg'}

def test_a_program_that_uses_the_package(folder):
    "The installed package under a user's type checker: no complaint for correct calls, one for wrong ones."
    (folder/'user.py').write_text(USER + '\n'.join(WRONG) + '\n')
    found, first = [x for x in mypy(folder, 'user.py') if x.startswith('user.py')], len(USER.splitlines()) + 1
    assert [(int(x.split(':')[1]), x.rsplit('[', 1)[1].rstrip(']')) for x in found] == list(zip(range(first, first + len(WRONG)), WRONG.values())), found
