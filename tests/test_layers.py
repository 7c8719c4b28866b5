"""Imports point one way: a module imports only from rows above its own in `LAYERS`."""
import ast
from pathlib import Path
import pytest
import mars

PACKAGE = Path(mars.__file__).parent
LAYERS = '''
cmx parts.config parts.codebook parts.preparation parts.midi parts.loudness
parts.files parts.device parts.warm_start parts.sampling parts.quantizer stft
parts.candidates
tokenizer parts.discriminator parts.phase data.notes
data.soundfont data.folder data.nsynth data.augment
data.tuning
data.rendered
data.check
data
parts.conditioning parts.classifier
var
parts.inference
parts.codec parts.onnx_graphs
training.settings training.distributed training.log training.checkpoints
training.tokens
training.self_correction
training.plots training.reconstruction training.callbacks
training.run
training.compiled
parts.reference
train
training.budget parts.vocoder parts.editing
pipeline
parts.product
eval
evaluation.classifier evaluation.protocol evaluation.selection
evaluation.report
baselines.next_token baselines.seanet
baselines.masked baselines.aar baselines.flow
baselines.magnet baselines.ddsp baselines.table1
baselines.diffwave baselines.wavenet
baselines
ablations
studies.prediction
studies.sat studies.magnet
baselines.comparison
apps.instruments apps.troubleshooting apps.browser
apps.web
cli.arguments
cli.data
cli.sounds cli.training
cli.demo cli.evaluation
cli.dispatch
cli'''
ROW = {name: i for i, row in enumerate(LAYERS.strip().splitlines()) for name in row.split()}
EMPTY = {'parts', 'training', 'evaluation', 'studies', 'apps'}  # packages without code

def module_name(path, package=PACKAGE):
    "mars/parts/files.py -> 'parts.files', mars/data/__init__.py -> 'data'"
    parts = path.relative_to(package).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)

def sources(package=PACKAGE): return {module_name(p, package): p for p in sorted(package.rglob('*.py')) if p.stem != '_modidx' and p != package/'__init__.py'}

def imported(node, here, is_package):
    "The modules of `mars` in an import statement or an import_module call, and the imported names."
    if isinstance(node, ast.Import): return [(a.name[5:], '') for a in node.names if a.name.startswith('mars.')]
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', getattr(node.func, 'id', '')) in ('import_module', '__import__'):
        return [(a.value[5:], '') for a in node.args if isinstance(a, ast.Constant) and str(a.value).startswith('mars.')]
    if not isinstance(node, ast.ImportFrom): return []
    base = (node.module or '').split('.') if node.level == 0 else ['mars', *here.split('.')[:len(here.split('.')) + is_package - node.level], *(node.module or '').split('.')]
    base = [b for b in base if b]
    if base[0] != 'mars': return []
    return [('.'.join([*base[1:], a.name]), '') if '.'.join([*base[1:], a.name]) in ROW else ('.'.join(base[1:]), a.name) for a in node.names]

def arrows(package=PACKAGE):
    "(from, to) -> names, over all statements: at the top, in functions, under TYPE_CHECKING."
    out = {}
    for here, path in sources(package).items():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            for there, name in imported(node, here, path.stem == '__init__'):
                if there and there != here: out.setdefault((here, there), set()).add(name)
    return out

def wrong(arrows):
    def own(here, there): return ROW[here] > ROW.get(there, 10**6) or (here in ('data', 'cli') and there.startswith(f'{here}.'))
    return [f'{here} -> {there} ({", ".join(sorted(filter(None, names))) or "the module"})' for (here, there), names in sorted(arrows.items())
            if there not in EMPTY and not own(here, there)]

def test_every_module_has_a_layer(): assert {*sources()} - EMPTY == {*ROW}

def test_imports_point_down(): assert not wrong(arrows()), 'imports that point up or across:\n' + '\n'.join(wrong(arrows()))

def test_no_lookup_by_module_name(): # a registry holds objects, not addresses
    found = [m for m, p in sources().items() if 'import_module' in p.read_text(encoding='utf-8') and m != 'data.soundfont'] # whose renderers are third-party modules
    assert not found

@pytest.mark.parametrize('line', ['from mars.pipeline import Mars', 'from ..pipeline import Mars', 'def f():\n    from mars.pipeline import Mars',
                                  'if TYPE_CHECKING:\n    from mars.pipeline import Mars', 'import mars.pipeline', 'import_module("mars.pipeline")'])
def test_an_upward_import_is_detected(tmp_path, line):
    (tmp_path/'parts').mkdir()
    (tmp_path/'parts'/'files.py').write_text(line)
    assert [w.startswith('parts.files -> pipeline') for w in wrong(arrows(tmp_path))] == [True]
    if 'Mars' in line: assert 'Mars' in wrong(arrows(tmp_path))[0]
