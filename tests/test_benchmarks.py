"""The benchmarks at miniature size: that they run, and that what they print can be true. Never how fast."""
import contextlib, functools, io, json, math, sys
from pathlib import Path
import pytest, torch

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='module')
def bench():
    "benchmarks/tokenizer.py, in miniature and on one preset"
    with pytest.MonkeyPatch.context() as m:
        m.syspath_prepend(str(ROOT/'benchmarks'))
        for name in ('common', 'tokenizer'): m.delitem(sys.modules, name, raising=False)
        import tokenizer
        yield lambda *args: tokenizer.main(['--quick', '--presets', 'tiny', '--device', 'cpu', '--batch', '8', '--repeats', '1', *map(str, args)])
        for name in ('common', 'tokenizer'): del sys.modules[name]
    torch.compiler.reset()

@pytest.fixture(scope='module')
def run(bench, tmp_path_factory):
    "All parts: (what main returned, what it printed, what it wrote)"
    out, printed = tmp_path_factory.mktemp('bench')/'bench.json', io.StringIO()
    with pytest.MonkeyPatch.context() as m, contextlib.redirect_stdout(printed):
        m.setattr(torch, 'compile', functools.partial(torch.compile, backend='aot_eager')) # traces the model, and needs no C++ compiler
        result = bench('--out', out)
    return result, printed.getvalue(), json.loads(out.read_text())

def test_tables_and_file(run):
    result, printed, written = run
    assert written == result and set(result) == {'about', 'presets', 'folds', 'lookup'}
    assert all(f'\n{title}' in printed for title in ('Device', 'Passes', 'Forward and backward in fp32', 'Nearest code'))
    about = result['about']
    assert set(about['peak']) == {'fp32', 'bf16'} and min(about['peak'].values()) > 0 and about['threads'] >= 1 and about['memory_gib'] > 0.1

def test_passes(run):
    rows = {(r['pass'], r['variant']): r for r in run[0]['presets']}
    assert set(rows) == {(p, f'{how} {dtype}') for p in ('encode', 'decode', 'train') for how in ('eager', 'compiled') for dtype in ('fp32', 'bf16')}
    assert not any('error' in r for r in rows.values())
    for r in rows.values(): assert r['batch'] == 8 and r['notes/s'] == pytest.approx(8000/r['ms']) and min(r['GFLOP/s'], r['MFU %'], r['MiB']) > 0
    plain = {p: rows[p, 'eager fp32'] for p in ('encode', 'decode', 'train')}
    assert all(r['speed x'] == r['memory x'] == 1 for r in plain.values())
    assert plain['train']['MiB'] > 2*plain['encode']['MiB'] # gradients, optimizer state and what is kept for the backward pass
    work = {p: r['GFLOP/s']*r['ms'] for p, r in plain.items()}
    assert 2 < work['train']/(work['encode'] + work['decode']) < 4 # a backward pass is about twice its forward pass

def test_larger_patches_cost_what_cmx_costs(run):
    rows = run[0]['folds']
    assert [(r['factor'], r['patches']) for r in rows] == [(1, 32), (2, 16), (4, 8), (8, 4)]
    for r in rows:
        assert r['cmx: parameters'] == r['patch: parameters'] and min(r['cmx: ms'], r['patch: ms']) > 0
        assert r['cmx: memory x'] == pytest.approx(r['patch: memory x'], rel=0.1)
    memory = [r['cmx: memory x'] for r in rows]
    assert memory[0] == 1 and memory == sorted(memory, reverse=True)

def test_lookups_agree(run):
    rows = {r['lookup']: r for r in run[0]['lookup']}
    assert {(r['rows'], r['codes']) for r in rows.values()} == {(8*30, 16384)} and min(r['agree %'] for r in rows.values()) > 99
    assert rows['blocks of 2^18']['MiB'] < rows['all similarities']['MiB']/2

def test_a_failing_compile_is_a_row(bench, monkeypatch):
    class Broken(torch.nn.Module): # has the weights, but does not run
        def __init__(self, module): super().__init__(); self.__dict__.update(module.__dict__)
        def forward(self, *args): raise RuntimeError('no compiler here\nand a long story')
    monkeypatch.setattr(torch, 'compile', lambda module, **kwargs: Broken(module))
    rows = bench('--parts', 'presets')['presets']
    assert {r['variant'] for r in rows if 'error' in r} == {'compiled fp32', 'compiled bf16'}
    assert {r['error'] for r in rows if 'error' in r} == {'RuntimeError: no compiler here'}
    assert all(r['ms'] > 0 for r in rows if r['variant'].startswith('eager'))

def test_half_the_batch_when_memory_ends(bench):
    from common import halve_on_oom
    asked = []
    def measure(batch):
        asked.append(batch)
        if batch > 3: raise torch.OutOfMemoryError('CUDA out of memory')
        return batch
    assert halve_on_oom(measure, 16) == 2 and asked == [16, 8, 4, 2]
    with pytest.raises(torch.OutOfMemoryError): halve_on_oom(lambda batch: measure(9), 1)

def test_peak_bytes_is_the_peak(bench):
    from common import peak_bytes
    def fn():
        a = torch.zeros(2**18) # 1 MiB
        b = a + 1
        del a
        return b + 1
    assert peak_bytes(fn, torch.device('cpu')) == pytest.approx(2*2**20, rel=1e-4) # beside them the scalar 1

@pytest.mark.parametrize('args, message', [(['--repeats', '0'], 'at least 1'), (['--out', 'nowhere/x.json'], 'does not exist')])
def test_bad_input(bench, capsys, args, message):
    with pytest.raises(SystemExit) as stop: bench('--parts', 'peak', *args)
    assert stop.value.code == 2 and message in capsys.readouterr().err

def test_tokenizer_capacity(monkeypatch, tmp_path):
    "The benchmark of capacity compares like with like: all on the same unseen notes, no baseline with more bits."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import tokenizer_capacity
    r = tokenizer_capacity.main(['--quick', '--strips', '--steps', '3', '--out', str(tmp_path/'l.json')])
    assert json.loads((tmp_path/'l.json').read_text()) == r
    rows, bits = r['rows'], r['rows']['tokenizer']['bits']
    assert bits == 111*8 and {'mean of the pitch', 'mean of the family'} < set(rows) and sum(k.startswith('k-means') for k in rows) == 2
    assert all(0 < v['relative_mse'] < 3 and v['bits'] <= bits for v in rows.values()) and r['steps'] == 3
    assert r['waves']['oracle']['all'] < r['waves']['tokenizer']['all']
    assert all(s <= a for s, a in zip(r['usage']['share'], r['usage']['attainable']))

def test_tokenizer_capacity_of_a_trained_model(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import tokenizer_capacity
    from mars.pipeline import Mars
    cfg = Mars.from_pretrained('small', 'cpu').tokenizer.cfg
    r = tokenizer_capacity.main(['--quick', '--model', 'small', '--no-kmeans', '--out', str(tmp_path/'l.json')])
    assert r['rows']['tokenizer']['bits'] == int(cfg.n_tokens*math.log2(cfg.codebook_size)) and set(r['frame_noise']) == {'4 hops', '6 hops', '8 hops', 'no distance'} and r['model'] == 'small' and 'steps' not in r and not r['curve']
    assert r['rows']['tokenizer']['mse'] < r['rows']['mean of the family']['mse']

def test_training(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    for name in ('common', 'train'): monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv('MARS_CACHE', str(tmp_path))
    import train
    r = train.main(['--presets', 'tiny', '--batch', '2', '--steps', '6', '--matmul', '256', '--device', 'cpu', '--out', str(tmp_path/'t.json')])
    assert json.loads((tmp_path/'t.json').read_text()) == r
    assert [row['stage'] for row in r['stages']] == ['tokenizer', 'tokenizer + GAN', 'var']
    for row in r['stages']: assert min(row[k] for k in ('notes/s', 'loader notes/s', 'plain notes/s', 'GFLOP/s', 'MFU %', 'peak MiB', 'foreseen MiB')) > 0

# ---- benchmarks/sampling.py ----

@pytest.fixture
def sampling(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import sampling
    yield sampling
    del sys.modules['sampling']

def test_the_most_often_right_of_the_nearest_is_chosen(sampling):
    variants = dict(near=dict(frechet=100, pitch=.6), right=dict(frechet=109, pitch=.7), far=dict(frechet=111, pitch=.9), same=dict(frechet=105, pitch=.7))
    assert sampling.choose(variants) == 'same' and sampling.choose({k: variants[k] for k in ('far', 'near')}) == 'near'

def test_a_choice_is_written_into_the_model(sampling, tmp_path):
    import shutil
    from mars.data import AdditiveNotes
    from mars.pipeline import Mars, find_model
    shutil.copytree(find_model('small'), tmp_path/'m')
    ways = [dict(cfg_scale=1., top_k=3), dict(temperature=.5)]
    chosen = sampling.main(['--model', str(tmp_path/'m'), '--n', '8', '--seeds', '1', '--out', str(tmp_path/'s.json'), '--write'], AdditiveNotes(pitches=range(56, 60), velocities=(100,)), ways)
    said = json.loads((tmp_path/'s.json').read_text())
    assert list(said['variants']) == ['cfg_scale=1 top_k=3', 'temperature=0.5'] and said['chosen'] == chosen in ways and said['notes'] == 8
    assert Mars.from_pretrained(tmp_path/'m').sampling() == chosen and said['real']['frechet'] < 1e-3

def test_quality_check(monkeypatch, tmp_path):
    "benchmarks/quality_check.py on an untrained model: every family and pitch is measured, a control click is detected, the clips are there."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import numpy as np, quality_check
    from mars.pipeline import Mars
    from mars.tokenizer import Tokenizer, TokenizerConfig
    from mars.var import VAR, VARConfig
    tok = Tokenizer(TokenizerConfig.preset('tiny'))
    Mars(tok, VAR(VARConfig.preset('tiny'), tok.cfg).bind(tok)).save_pretrained(tmp_path/'m')
    found = quality_check.run(str(tmp_path/'m'), [50, 62], 0, tmp_path/'clips')
    assert len(found['notes']) == 22 == len(list((tmp_path/'clips').glob('*.mp3'))) and {r['pitch'] for r in found['notes']} == {50, 62}
    tone = .5*np.sin(2*np.pi*440*np.arange(64000)/16000)
    said = quality_check.measure(tone, 69)
    assert abs(said['cents']) < 5 and said['click'] < quality_check.CLICK < said['control_click'] and said['clipped'] == 0
    hurt = tone.copy(); hurt[30000] += .1
    ratio, second, _ = quality_check.click(hurt)
    assert ratio > quality_check.CLICK and abs(second - 30000/16000) < .03 and quality_check.measure(2*tone.clip(-.4, .4), 69)['peak'] == pytest.approx(.8)

def test_scale_ablation(monkeypatch, tmp_path):
    "benchmarks/scale_ablation.py: with no map given the notes are samples of the model, with all of them reconstructions."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import scale_ablation
    from mars.data import AdditiveNotes
    from mars.pipeline import Mars
    m, notes = Mars.from_pretrained('small', 'cpu'), AdditiveNotes(pitches=range(56, 60), velocities=(100,))
    rows = scale_ablation.main(['--n', '8', '--out', str(tmp_path/'k.json')], notes)
    K = len(m.tokenizer.cfg.scales)
    assert [r['n_given'] for r in rows] == [*range(K+1)] and rows[-1]['tokens'] == m.tokenizer.cfg.n_tokens and json.loads((tmp_path/'k.json').read_text())['rows'] == rows
    data = scale_ablation.study_data(m, notes.select(scale_ablation.evenly_spaced(torch.arange(len(notes)), 8)))
    (tokens, labels), settings = data.sets['held_out'], m.sampling({})
    known = {k: v for k, v in labels.items() if k in m.var.label_embed.sizes}
    torch.testing.assert_close(scale_ablation.sample_finer_scales(m, tokens, labels, 0, **settings), m.tokens_to_image(m.var.generate(known, 8, seed=0, **settings)))
    torch.testing.assert_close(scale_ablation.sample_finer_scales(m, tokens, labels, K, **settings), m.tokens_to_image(tokens))

# ---- benchmarks/classifier.py, comparison.py, latency.py

def fresh(monkeypatch, *names):
    for folder in ('benchmarks', 'scripts'): monkeypatch.syspath_prepend(str(ROOT/folder))
    for name in (*names, 'reproduce_weights'): monkeypatch.delitem(sys.modules, name, raising=False)

def test_classifier(monkeypatch, tmp_path):
    "The packaged classifier on the test side of a split; --write changes its config.json and no weight."
    import shutil
    from mars.data import AdditiveNotes
    from mars.parts.classifier import Classifier, find_classifier
    fresh(monkeypatch, 'classifier')
    import classifier
    (tmp_path/'scripts').mkdir()
    (tmp_path/'scripts'/'split.json').write_text(json.dumps(dict(classifier=dict(valid=['organ_*'], test=['flute_*']))))
    monkeypatch.setattr(classifier, 'ROOT', tmp_path)
    shutil.copytree(find_classifier('classifier'), tmp_path/'c')
    before, notes = Classifier.from_pretrained(tmp_path/'c'), AdditiveNotes(None, (60, 67), (100,))
    r = classifier.main(['--classifier', str(tmp_path/'c'), '--griffin-lim', '2', '--out', str(tmp_path/'r.json'), '--write'], notes)
    assert {k: v['notes'] for k, v in r.items()} == dict(valid=6, soundfont=6, soundfont_griffinlim=2)
    written, after = json.loads((tmp_path/'r.json').read_text()), Classifier.from_pretrained(tmp_path/'c')
    assert written['results']['soundfont']['pitch'] == r['soundfont']['pitch'] and written['size'] > 10**6 and written['notes_per_second'] > 0
    assert after.digest == before.digest and after.info['accuracy']['soundfont']['pitch'] == round(r['soundfont']['pitch'], 4) != before.info['accuracy']['soundfont']['pitch']

def test_comparison_continues_from_its_run_folder(monkeypatch, tmp_path):
    from mars.ablations import load_results
    from mars.baselines import comparison as systems
    fresh(monkeypatch, 'comparison')
    import comparison
    def evaluate_systems(data, prepared, seed, keep, **kwargs): # in place of the metrics: the generated waves
        wave = torch.cat([*systems.make_notes(*prepared['MARS, next-scale'][:2], data, data.test.batch(list(keep))[1], {}, seed)])
        return dict(sum=float(wave.abs().sum())), {'MARS, next-scale': (32767*wave).short()}
    monkeypatch.setattr(systems, 'evaluate_systems', evaluate_systems)
    monkeypatch.setattr(systems, 'result_json', lambda result: json.dumps(dict(rows=result)))
    (tmp_path/'split.json').write_text(json.dumps(dict(model=dict(test=['*_801', '*_802']))))
    quick = dict(width=2, dimension=8, lstm=1, code_dim=4, codebook_size=16)
    def run():
        comparison.main(['--run', str(tmp_path/'run'), '--data', 'additive', '--quick', '--split', str(tmp_path/'split.json'), '--n', '4', '--repeats', '0', '--budget', '1e9', '--steps', '{"mars": 2, "sat": 1, "rvq": 1}', '--out', str(tmp_path)],
                        shared=dict(n_tune=2, shapes=dict(sat={**quick, 'lengths': (1, 8, 40, 200)}, rvq={**quick, **systems.rvq(2)})), systems=['MARS, next-scale'], layouts=())
        result, = load_results('comparison', tmp_path/'studies', 'tiny')
        return result
    first = run()
    assert [*first['systems']] == ['MARS, next-scale'] and first['notes']['train'] == 22 and len([*(tmp_path/'clips'/'comparison'/'MARS_next-scale').glob('*.mp3')]) > 0
    monkeypatch.setattr(systems, 'train_system', lambda *args, **kwargs: 1/0) # nothing is trained again
    again = run()
    assert again['rows'] == first['rows'] and again['systems']['MARS, next-scale']['steps'] == first['systems']['MARS, next-scale']['steps']

def test_latency(monkeypatch, tmp_path):
    fresh(monkeypatch, 'latency')
    import latency
    monkeypatch.setattr(latency, 'time_layouts', lambda size, device, repeats, n, guided: {'AAR, next-scale': dict(passes=16, tokens=1171, seconds=1. + n + guided)})
    rows = latency.main(['--device', 'cpu', '--repeats', '1', '--out', str(tmp_path/'l.json')])
    written, committed = json.loads((tmp_path/'l.json').read_text()), json.loads((ROOT/'results'/'benchmarks'/'latency-h100.json').read_text())
    assert written['rows'] == rows and written['about']['device'] == 'CPU' and [r['layouts']['AAR, next-scale']['seconds'] for r in rows] == [2, 3, 2, 65]
    assert [[r[k] for k in ('size', 'how', 'notes')] for r in committed['rows']] == [[r[k] for k in ('size', 'how', 'notes')] for r in rows] and 'H100' in committed['about']['device']

@pytest.mark.parametrize('script', sorted(p.stem for p in (ROOT/'benchmarks').glob('*.py') if p.stem != 'common'))
def test_the_first_line_says_purpose_and_command(script):
    "And the results that a script names are there."
    import ast, re
    said = ast.get_docstring(ast.parse((ROOT/'benchmarks'/f'{script}.py').read_text()))
    assert f'python benchmarks/{script}.py' in said.splitlines()[0]
    for path in re.findall(r'results/[\w./-]+\.json', said): assert (ROOT/path).exists(), path
