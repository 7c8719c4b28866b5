"""The repository: its metadata, the imports of its modules, and the structure of its notebooks."""
import ast, configparser, json, os, re, runpy, subprocess, sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
MODULES = sorted('.'.join(p.relative_to(ROOT/'mars').with_suffix('').parts) for p in (ROOT/'mars').rglob('*.py') if not p.stem.startswith('_'))
# Heavy or optional packages, which a function imports when it needs them
LAZY = 'matplotlib seaborn librosa sklearn fluidsynth frechet_audio_distance torchvision transformers IPython'.split()

def names(requirements): return {Requirement(r).name.lower() for r in requirements}

@pytest.fixture(scope='module')
def declared():
    "The arguments that setup.py hands to setuptools"
    import setuptools
    found, real, here = {}, setuptools.setup, os.getcwd()
    setuptools.setup = lambda **kwargs: found.update(kwargs)
    os.chdir(ROOT)
    try: runpy.run_path('setup.py')
    finally: setuptools.setup = real; os.chdir(here)
    return found

def run_python(code):
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])

# ---- metadata ----

def test_distribution_is_called_mars_spectrogram(declared):
    assert declared['name'] == 'mars-spectrogram'
    assert declared['packages'][0] == 'mars'
    assert 'mars=mars.cli:main' in declared['entry_points']['console_scripts']

def test_ten_packages_of_the_card_are_declared(declared):
    extras = {k: names(v) for k, v in declared['extras_require'].items()}
    assert {'torch', 'torchaudio', 'librosa', 'numpy', 'matplotlib', 'fastprogress'} <= names(declared['install_requires'])
    assert {'jupyterlab', 'seaborn'} <= extras['nb']
    assert 'frechet-audio-distance' in extras['fad']
    assert 'gradio' in extras['app'] and 'swift-f0' in extras['f0']
    assert {'nbdev'} | extras['nb'] | extras['app'] | extras['fad'] | extras['f0'] <= extras['dev']

def test_runtime_brings_no_notebook_tools(declared):
    assert not names(declared['install_requires']) & {'nbdev', 'fastcore', 'jupyterlab', 'seaborn', 'frechet-audio-distance'}

def test_upper_bounds_only_where_a_newer_release_fails(declared):
    "An unnecessary bound conflicts with other packages of an environment."
    bounds = {r.name: str(r.specifier) for r in map(Requirement, declared['install_requires']) if any(s.operator not in ('>=', '>', '!=') for s in r.specifier)}
    assert set(bounds) == {'fastprogress'} and declared['python_requires'] == '>=3.10'
    assert {f'Programming Language :: Python :: 3.{v}' for v in range(10, 15)} <= set(declared['classifiers'])

def test_extras_that_cannot_follow_python_carry_markers(declared):
    new = {'python_version': '3.14', 'platform_machine': 'x86_64'}
    assert [r for r in declared['extras_require']['fad'] if Requirement(r).marker.evaluate(new)] == []
    assert names(declared['extras_require']['dev']) >= {'frechet-audio-distance', 'torchvision', 'pysfizz'}

def test_constraints_pin_every_requirement_within_its_range(declared):
    lines = (ROOT/'constraints.txt').read_text(encoding='utf-8').splitlines()
    pins = {r.name.lower(): r for r in map(Requirement, (x for x in lines if x and not x.startswith('#')))}
    for req in map(Requirement, declared['install_requires']+declared['extras_require']['dev']):
        pin = pins[re.sub('[-_.]+', '-', req.name.lower())]
        (spec,) = pin.specifier
        assert spec.operator == '==' and spec.version in req.specifier, f'{pin} does not fit {req}'

def test_readme_and_ci_use_the_same_test_command():
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    assert readme.index('bash scripts/demo.sh') < readme.index('bash scripts/test.sh') < readme.index('pip install . && mars generate')
    assert 'bash scripts/test.sh' in (ROOT/'.ci'/'run').read_text(encoding='utf-8')

def test_readme_links_resolve():
    readme = re.sub(r'```.*?```', '', (ROOT/'README.md').read_text(encoding='utf-8'), flags=re.S)
    targets = re.findall(r'\]\(([^)\s#]+)', readme)+re.findall(r'(?:src|href)="([^"#]+)', readme)
    missing = [t for t in targets if not re.match(r'[a-z]+:', t) and not (ROOT/t).exists()]
    assert not missing

# ---- imports ----

def test_import_mars_is_light():
    loaded = run_python('import sys, json, mars; print(json.dumps(sorted({m.split(".")[0] for m in sys.modules})))')
    assert not set(loaded) & {'torch', 'numpy', 'pandas', 'scipy', 'accelerate', 'nbdev', 'fastcore', *LAZY}

@pytest.mark.skipif('cmx' not in MODULES, reason='mars.cmx is not there yet')
def test_cmx_needs_torch_only():
    new = run_python('import sys, json, torch; old = {m.split(".")[0] for m in sys.modules}\n'
        'import mars.cmx; print(json.dumps(sorted({m.split(".")[0] for m in sys.modules}-old-set(sys.stdlib_module_names))))')
    assert new == ['mars']

def test_no_module_needs_nbdev_or_loads_heavy_packages():
    imports = ''.join(f'import mars.{m}\n' for m in MODULES)
    loaded = run_python(f'import sys, json\n{imports}print(json.dumps(sorted({{m.split(".")[0] for m in sys.modules}})))')
    assert not set(loaded) & {'nbdev', 'fastcore', 'execnb', *LAZY}

# ---- files ----

def tracked():
    done = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True)
    if done.returncode: pytest.skip('not a git clone')
    return [f for f in map(os.fsdecode, done.stdout.split(b'\0')) if f and (ROOT/f).exists()]

def test_top_level_notebooks_are_the_paper():
    assert [p.stem for p in NOTEBOOKS if p.parent == ROOT/'nbs'] == ['00_cmx', '01_stft', '02_tokenizer', '03_var', '04_train', '05_eval', '06_ablations', 'index']
    assert not [p for p in NOTEBOOKS if p.parent != ROOT/'nbs' and re.match(r'\d', p.stem)], 'inside folders the sidebar gives the order'

def test_no_stub_is_tracked(): assert not [f for f in tracked() if f.endswith('.pyi')]

def written(path):
    "The text of a file; of a notebook the sources of its cells, without outputs."
    text = path.read_text(encoding='utf-8')
    return '\n'.join(source(c) for c in json.loads(text)['cells']) if path.suffix == '.ipynb' else text

@pytest.mark.parametrize('word', ['../shared', 'sitting', 'borrowed'])
def test_product_names_no_particular_machine(word):
    kinds = '.py', '.ipynb', '.md', '.sh', '.yml', '.json', '.js', '.css'
    files = [f for f in tracked() if (f.startswith(('mars/', 'nbs/', 'scripts/', 'benchmarks/')) or f in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')) and f.endswith(kinds)]
    assert len(files) > 100
    found = {f: m[0] for f in files if (m := re.search(rf'(?<![A-Za-z]){re.escape(word)}\b.{{0,60}}', written(ROOT/f)))}
    assert not found

def test_quarto_yml_is_a_relative_link():
    assert os.readlink(ROOT/'nbs'/'_quarto.yml') == os.path.join('..', '_quarto.yml')

def test_tracked_files_stay_under_48_mib():
    assert sum((ROOT/f).lstat().st_size for f in tracked()) < 48*2**20

def test_settings_name_the_version_of_the_package():
    cfg = configparser.ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    init = (ROOT/'mars'/'__init__.py').read_text(encoding='utf-8')
    assert f'__version__ = "{cfg["DEFAULT"]["version"]}"' in init

# ---- notebooks ----

def source(cell): return ''.join(cell['source'])

@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.relative_to(ROOT/'nbs').with_suffix('').as_posix())
def notebook(request): return request.param, json.loads(request.param.read_text(encoding='utf-8'))

def test_notebook_is_small(notebook):
    assert notebook[0].stat().st_size < 2*2**20

def test_title_cell_holds_title_and_subtitle_only(notebook):
    "nbdev drops everything else of that cell from the pages"
    first = notebook[1]['cells'][0]
    lines = [x for x in source(first).splitlines() if x.strip()]
    assert first['cell_type'] == 'markdown' and lines[0].startswith('# ')
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith('> '))

def test_imports_are_in_separate_cells(notebook):
    "The docs build runs each cell with an import in a new namespace, where the rest of that cell fails."
    for cell in notebook[1]['cells']:
        text = source(cell)
        if cell['cell_type'] != 'code' or 'nbdev_export()' in text or re.search(r'^#\|\s*(export|exports|exporti|eval: *false)\b', text, re.M): continue
        try: tree = ast.parse(text)
        except SyntaxError: continue  # a magic
        if not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(tree)): continue
        mixed = [n for n in tree.body if not isinstance(n, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))]
        assert not mixed, f'move the import out of this cell:\n{text}'

def test_notebook_ends_with_the_hidden_export_cell(notebook):
    path, nb = notebook
    if not any(source(c).startswith('#| default_exp') for c in nb['cells']): pytest.skip('it exports nothing')
    last = source(nb['cells'][-1])
    assert last.startswith('#| hide') and 'nbdev.nbdev_export()' in last

def test_the_last_exported_cell_is_followed_by_another(notebook):
    "nbdev_docs reads the cell after each cell of `#| exports`, without hidden ones."
    shown = [source(c) for c in notebook[1]['cells'] if not re.search(r'^#\|\s*(hide|export|exporti|default_exp|include: *false)\b', source(c), re.M)]
    last = shown[-1]
    public = [n.name for n in ast.parse(last).body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != '_'] if last.startswith('#| exports') else True
    assert public, 'an example is missing: '+last[:80]

def test_notebook_has_saved_outputs(notebook):
    code = [c for c in notebook[1]['cells'] if c['cell_type'] == 'code']
    if not code: pytest.skip('no code')
    assert any(c['outputs'] for c in code)

def test_outputs_are_clean(notebook):
    "No errors, no warnings, no progress bars"
    for cell in notebook[1]['cells']:
        for out in cell.get('outputs', []):
            assert out['output_type'] != 'error', source(cell)
            if out['output_type'] == 'stream':
                assert out['name'] == 'stdout', ''.join(out['text'])
                assert '\r' not in ''.join(out['text']), source(cell)

def test_notebook_has_no_absolute_paths(notebook):
    folders = '|'.join(['root', 'home', 'Users', 'work', 'farm'])
    pattern = re.compile(rf'(?<![\w.~)}}])/(?:{folders})/[\w.]|/tmp/')
    def strings(x, key=''):
        if isinstance(x, dict):
            for k, v in x.items(): yield from strings(v, k)
        elif isinstance(x, list):
            if all(isinstance(v, str) for v in x): yield from strings(''.join(x), key)
            else:
                for v in x: yield from strings(v, key)
        elif isinstance(x, str) and not re.match('image/(png|jpeg)', key): yield re.sub(r'base64,[A-Za-z0-9+/=\s]+', '', x)
    found = [s[max(0, m.start()-40):m.end()+40] for s in strings(notebook[1]['cells']) for m in [pattern.search(s)] if m]
    assert not found
