"""Files next to the code, the two notebooks that run anywhere, and `mars.apps.troubleshooting`."""
import ast, configparser, json, re, shutil, sys, types
from pathlib import Path

import pytest, yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
NEWCOMERS = 'guides/quickstart', 'guides/your_sounds'
read = lambda name: (ROOT/name).read_text(encoding='utf-8')
parser = configparser.ConfigParser(delimiters=['='], interpolation=None)
parser.read(ROOT/'settings.ini', encoding='utf-8')
CFG = parser['DEFAULT']

def cells(name): return json.loads(read(f'nbs/{name}.ipynb'))['cells']
def source(cell): return ''.join(cell['source'])
def code(name): return [source(c) for c in cells(name) if c['cell_type'] == 'code']
def links(text): return re.findall(r'\]\(([^)\s#]+)', re.sub(r'```.*?```', '', text, flags=re.S))

# ---- CITATION.cff, CHANGELOG.md, CONTRIBUTING.md ----

@pytest.fixture(scope='module')
def citation(): return yaml.safe_load(read('CITATION.cff'))

def test_citation_agrees_with_settings(citation):
    assert citation['version'] == CFG['version'] and citation['license'] == 'Apache-2.0' and CFG['license'] == 'apache2'
    assert citation['repository-code'] == CFG['git_url'] and citation['url'] == CFG['doc_host'] + CFG['doc_baseurl']
    assert [a['name'] for a in citation['authors']] == [CFG['author']]

def test_citation_has_the_required_fields(citation):
    "The required keys and the types of Citation File Format 1.2.0."
    assert citation['cff-version'] == '1.2.0' and {'message', 'title', 'authors'} <= set(citation) and citation['type'] == 'software'
    known = set('abstract authors cff-version commit contact date-released doi identifiers keywords license license-url message preferred-citation references repository repository-artifact repository-code title type url version'.split())
    assert set(citation) <= known
    for ref in citation['references']: assert {'authors', 'title', 'type'} <= set(ref)

def test_citation_refers_to_the_paper(citation):
    (paper,) = [r for r in citation['references'] if '2509.26007' in r['url']]
    assert paper['type'] == 'article' and len(paper['authors']) == 3 and all({'family-names', 'given-names'} <= set(a) for a in paper['authors'])
    assert 'preferred-citation' not in citation # the software is not the paper

def test_changelog_has_its_format():
    text = read('CHANGELOG.md')
    heads = re.findall(r'^## \[([^\]]+)\]', text, re.M)
    assert heads[0] == 'Unreleased' and all(re.fullmatch(r'\d+\.\d+\.\d+', h) for h in heads[1:])
    assert heads[1:] == sorted(heads[1:], key=lambda h: [int(i) for i in h.split('.')], reverse=True)
    assert set(re.findall(r'^### (.+)', text, re.M)) <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security', 'Known limits'}
    for head in heads: assert re.search(rf'^\[{re.escape(head)}\]: {re.escape(CFG["git_url"])}', text, re.M), f'no link for {head}'
    assert CFG['version'] in heads or f'will be {CFG["version"]}' in text

def test_changelog_names_the_subcommands():
    import argparse
    from mars.cli.dispatch import parser
    verbs = set(next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices)
    assert {'demo', 'train', 'generate'} <= verbs
    assert not [v for v in verbs if f'`{v}`' not in read('CHANGELOG.md') and f'`mars {v}' not in read('CHANGELOG.md')]

@pytest.mark.parametrize('name', ['CHANGELOG.md', 'CONTRIBUTING.md'])
def test_links_resolve(name):
    assert not [t for t in links(read(name)) if not re.match('[a-z]+:', t) and not (ROOT/t).exists()]

def test_contributing_names_existing_files():
    text = read('CONTRIBUTING.md')
    for path in re.findall(r'\b(?:scripts|nbs|tests)/[\w./]+\.\w+', text): assert (ROOT/path).exists(), path
    for command in set(re.findall(r'nbdev_\w+', text)) - {'nbdev_export'}: assert shutil.which(command) or (Path(sys.executable).parent/command).exists(), command
    assert CFG['tst_flags'].split()[1:] == re.findall(r'`#\| (slow|cuda)`', text)
    assert len(text.split()) < 800, 'it is to be one page'

def test_files_are_in_the_source_distribution():
    listed = read('MANIFEST.in').split()
    assert {'CHANGELOG.md', 'CONTRIBUTING.md', 'CITATION.cff'} <= set(listed)

def test_index_links_every_notebook():
    table = '\n'.join(line for c in cells('index') if c['cell_type'] == 'markdown' for line in source(c).splitlines() if line.startswith('|'))
    named = {t for t in links(table) if t.endswith('.ipynb')}
    assert named == {p.relative_to(ROOT/'nbs').as_posix() for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts} - {'index.ipynb'}

# ---- notebooks that run anywhere ----

@pytest.fixture(params=NEWCOMERS)
def name(request): return request.param

def test_links_to_colab_fit_the_repository(name):
    url = f'https://colab.research.google.com/github/{CFG["user"]}/{CFG["repo"]}/blob/{CFG["branch"]}/nbs/{name}.ipynb'
    assert url in source(cells(name)[2]) + source(cells(name)[1])
    pictures = [t for c in cells(name) if c['cell_type'] == 'markdown' for t in re.findall(r'!\[[^\]]*\]\(([^)]+)\)|<img[^>]+src="([^"]+)', source(c))]
    assert not pictures # the docs site asks nothing of other hosts

@pytest.mark.parametrize('colab, there, expected', [(True, False, 1), (True, True, 0), (False, False, 0), (False, True, 0)])
def test_first_cells_install_only_on_colab(name, colab, there, expected, monkeypatch):
    import importlib.util
    asked, shell = [], types.SimpleNamespace(run_line_magic=lambda magic, line: asked.append((magic, line)))
    if colab: monkeypatch.setitem(sys.modules, 'google.colab', types.ModuleType('google.colab'))
    else: monkeypatch.delitem(sys.modules, 'google.colab', raising=False)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, package=None: object() if there else None)
    scope = dict(get_ipython=lambda: shell)
    for text in code(name)[:2]: exec(TransformerManager().transform_cell(text), scope)
    assert asked == [('pip', f'install -q git+{CFG["git_url"]}')]*expected

def test_needs_nothing_but_the_package(name):
    "No export, no test tools, no repository files: it runs with the wheel alone."
    text = '\n'.join(code(name))
    assert not re.search(r'^#\|', text, re.M) and '../' not in text
    tops = {(n.module or '').split('.')[0] if isinstance(n, ast.ImportFrom) else a.name.split('.')[0]
            for t in code(name)[2:] for n in ast.walk(ast.parse(t)) if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names}
    here = {Requirement(r).name.replace('-', '_') for r in CFG['requirements'].split()} | {'mars', 'IPython'}
    assert tops <= here | set(sys.stdlib_module_names)

def test_user_paths_are_set_once_and_empty(name):
    asked = [t for t in code(name) if re.match(r'MY_\w+ = ', t)]
    assert asked and all(re.match(r'MY_\w+ = None #', t) for t in asked)

# ---- mars.apps.troubleshooting ----

@pytest.fixture(scope='module')
def model():
    import torch
    from mars.pipeline import Mars
    from mars.tokenizer import STRIPS, Tokenizer, TokenizerConfig
    from mars.var import VAR, VARConfig
    torch.manual_seed(0)
    tok = Tokenizer(TokenizerConfig.preset('tiny', **STRIPS)).eval()
    return Mars(tok, VAR(VARConfig.preset('tiny'), tok.cfg).bind(tok))

@pytest.fixture(scope='module')
def notes():
    from mars.data import AdditiveNotes
    return AdditiveNotes(('guitar_acoustic_800', 'flute_acoustic_800'), (60, 64), (50, 100))

def test_untrained_model_fails_the_diagnosis(model, notes):
    from mars.apps.troubleshooting import diagnose
    findings = {f.name: f for f in diagnose(model, notes)}
    # later scales do not reduce the error, and the model ignores all labels
    assert [f.ok for f in findings.values()][1:] == [False]*4
    assert all(('FAIL' in str(f)) != f.ok and (f.remedy in str(f)) != f.ok for f in findings.values())
    # the source is the same in all notes
    assert {name.split()[3] for name in findings if name.startswith('label gain')} == {'pitch', 'family', 'velocity'}

def test_diagnosis_does_not_change_the_model(model, notes):
    import torch
    from mars.apps.troubleshooting import diagnose
    before = {k: v.clone() for k, v in [*model.tokenizer.state_dict().items(), *model.var.state_dict().items()]}
    state, hits = torch.get_rng_state(), model.tokenizer.quantizer.hits.clone()
    assert diagnose(model, notes) == diagnose(model, notes)
    assert all(torch.equal(before[k], v) for k, v in [*model.tokenizer.state_dict().items(), *model.var.state_dict().items()])
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(hits, model.tokenizer.quantizer.hits)

def test_other_labels_differ_from_the_given_ones():
    import torch
    from mars.apps.troubleshooting import _other_values
    labels = torch.tensor([3, 60, 3, 7, 99])
    other = _other_values(labels)
    assert (other != labels).all() and set(other.tolist()) <= set(labels.tolist())
    assert _other_values(torch.tensor([5, 5])) is None

def test_label_gain_is_positive_for_a_used_label(model, notes, monkeypatch):
    "A transformer whose logits are shifted to the true tokens of a pitch has a gain for the pitch label only."
    import torch, torch.nn.functional as F
    from mars.training.tokens import tokenize
    from mars.apps.troubleshooting import label_gain
    tokens, labels = tokenize(notes, model)
    book = {int(p): torch.cat([t[i:i+1] for t in tokens], 1)[0] for i, p in enumerate(labels['pitch'])}
    def loss(tokens, labels):
        aim = torch.stack([book[int(p)] for p in labels['pitch']])
        logits = 5.*F.one_hot(aim, model.tokenizer.cfg.codebook_size)
        return F.cross_entropy(logits.flatten(0, 1), torch.cat(tokens, 1).flatten()), {}
    monkeypatch.setattr(model.var, 'loss', loss)
    gain = label_gain(model, notes)
    assert gain['pitch'] > 0.1 and gain['family'] == gain['velocity'] == 0

def test_map_plots_show_every_map(model, notes):
    from mars.training.tokens import tokenize
    from mars.apps.troubleshooting import plot_maps
    cfg = model.tokenizer.cfg
    fig = plot_maps([t[:2] for t in tokenize(notes, model)[0]], cfg.scales, cfg.codebook_size, ['a', 'b'])
    shown = [ax.images[0].get_array().shape for ax in fig.axes]
    assert shown == [tuple(s) for s in cfg.scales]*2
