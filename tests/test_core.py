"""The size of the code: the modules that implement the paper stay small, lines and functions short."""
import ast
from pathlib import Path
import numpy as np
import pytest
import mars

PACKAGE = Path(mars.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
CORE = [PACKAGE/f'{m}.py' for m in ('cmx', 'stft', 'parts/quantizer', 'tokenizer', 'parts/discriminator', 'var', 'train')]
MODULES = sorted(p for p in PACKAGE.rglob('*.py') if p.stem != '_modidx')
SCRIPTS = sorted([*(ROOT/'benchmarks').glob('*.py'), *(ROOT/'scripts').glob('*.py')])
SHELL = sorted((ROOT/'scripts').glob('*.sh'))
FOREIGN = ('reference_dim', 'reference_encoder', 'branches', 'ProductQuantizer', 'CUDAGraph', 'mkldnn', 'all_reduce', 'baselines')

def definitions(path, kinds):
    "(name, number of lines) of each function or class, the docstring and the documented parameters included."
    return [(n.name, n.end_lineno - n.lineno + 1) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds)]

def statements(path):
    "(name, number of lines of the body) of each function."
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    return [(n.name, n.end_lineno - n.body[0].lineno + 1) for n in functions]

def test_the_core_has_fewer_than_2000_lines():
    lines = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in CORE}
    assert sum(lines.values()) < 2000, lines

@pytest.mark.parametrize('path', MODULES + SCRIPTS, ids=lambda p: f'{p.parent.name}/{p.name}')
def test_lines_have_at_most_120_columns(path):
    text = path.read_text()
    names = [n for n in ast.parse(text).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__']
    generated = {i for n in names for i in range(n.lineno, n.end_lineno + 1)} # nbdev_export wraps at its own width
    lines = [line for i, line in enumerate(text.splitlines(), 1) if i not in generated and not line.startswith('# %%')]
    long = [line for line in lines if len(line) > 120]
    assert not long, '\n'.join([path.name, *long])

@pytest.mark.parametrize('path', SHELL, ids=lambda p: p.name)
def test_shell_scripts_have_at_most_120_columns(path):
    assert not [line for line in path.read_text().splitlines() if len(line) > 120]

def test_functions_of_the_core_are_short():
    lengths = [n for p in CORE for _, n in statements(p)]
    assert np.quantile(lengths, .9) <= 25, sorted(((n, name) for p in CORE for name, n in statements(p)), reverse=True)[:10]

def test_classes_of_the_core_fit_on_a_screen():
    long = [(n, name) for p in CORE for name, n in definitions(p, ast.ClassDef) if n > 60]
    assert not long, long

@pytest.mark.parametrize('path', CORE, ids=lambda p: p.stem)
def test_the_core_has_no_options_or_optimised_paths(path):
    assert not [word for word in FOREIGN if word in path.read_text()]
