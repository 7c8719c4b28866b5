"""The benchmarks at tiny sizes: they run, and their results are consistent. Speed is not tested."""
import contextlib, functools, io, json, math, sys
from pathlib import Path
import pytest, torch
from mars.pipeline import Mars

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='module')
def bench():
    "benchmarks/tokenizer.py with images of 32x32, on one preset"
    with pytest.MonkeyPatch.context() as m:
        m.syspath_prepend(str(ROOT/'benchmarks'))
        for name in ('common', 'tokenizer'): m.delitem(sys.modules, name, raising=False)
        import tokenizer
        options = ['--quick', '--presets', 'tiny', '--device', 'cpu', '--batch', '8', '--repeats', '1']
        yield lambda *args: tokenizer.main([*options, *map(str, args)])
        for name in ('common', 'tokenizer'): del sys.modules[name]
    torch.compiler.reset()

@pytest.fixture(scope='module')
def run(bench, tmp_path_factory):
    "All parts: (returned result, printed text, written JSON)"
    out, printed = tmp_path_factory.mktemp('bench')/'bench.json', io.StringIO()
    with pytest.MonkeyPatch.context() as m, contextlib.redirect_stdout(printed):
        # this backend traces the model and needs no C++ compiler
        m.setattr(torch, 'compile', functools.partial(torch.compile, backend='aot_eager'))
        result = bench('--out', out)
    return result, printed.getvalue(), json.loads(out.read_text())

def test_tables_and_file(run):
    result, printed, written = run
    assert written == result and set(result) == {'info', 'presets', 'folds', 'lookup'}
    titles = 'Device', 'Passes', 'Forward and backward in fp32', 'Nearest code'
    assert all(f'\n{title}' in printed for title in titles)
    info = result['info']
    assert set(info['peak']) == {'fp32', 'bf16'} and min(info['peak'].values()) > 0
    assert info['threads'] >= 1 and info['memory_gib'] > 0.1

def test_passes(run):
    rows = {(r['pass'], r['variant']): r for r in run[0]['presets']}
    variants = 'eager fp32', 'eager bf16', 'compiled fp32', 'compiled bf16'
    assert set(rows) == {(p, variant) for p in ('encode', 'decode', 'train') for variant in variants}
    assert not any('error' in r for r in rows.values())
    for r in rows.values():
        assert r['batch'] == 8 and r['notes/s'] == pytest.approx(8000/r['ms'])
        assert min(r['GFLOP/s'], r['MFU %'], r['MiB']) > 0
    plain = {p: rows[p, 'eager fp32'] for p in ('encode', 'decode', 'train')}
    assert all(r['speed x'] == r['memory x'] == 1 for r in plain.values())
    assert plain['train']['MiB'] > 2*plain['encode']['MiB'] # gradients, optimiser state, activations
    work = {p: r['GFLOP/s']*r['ms'] for p, r in plain.items()}
    assert 2 < work['train']/(work['encode'] + work['decode']) < 4 # a backward pass is about twice its forward pass

def test_larger_patches_cost_the_same_as_cmx(run):
    rows = run[0]['folds']
    assert [(r['factor'], r['patches']) for r in rows] == [(1, 32), (2, 16), (4, 8), (8, 4)]
    for r in rows:
        assert r['cmx: parameters'] == r['patch: parameters'] and min(r['cmx: ms'], r['patch: ms']) > 0
        assert r['cmx: memory x'] == pytest.approx(r['patch: memory x'], rel=0.1)
    memory = [r['cmx: memory x'] for r in rows]
    assert memory[0] == 1 and memory == sorted(memory, reverse=True)

def test_lookups_agree(run):
    rows = {r['lookup']: r for r in run[0]['lookup']}
    assert {(r['rows'], r['codes']) for r in rows.values()} == {(8*30, 16384)}
    assert min(r['agree %'] for r in rows.values()) > 99
    assert rows['blocks of 2^18']['MiB'] < rows['all similarities']['MiB']/2

def test_a_failed_compilation_is_reported_in_its_row(bench, monkeypatch):
    class Broken(torch.nn.Module): # has the weights, but fails
        def __init__(self, module):
            super().__init__()
            self.__dict__.update(module.__dict__)
        def forward(self, *args): raise RuntimeError('no compiler here\nand more lines')
    monkeypatch.setattr(torch, 'compile', lambda module, **kwargs: Broken(module))
    rows = bench('--parts', 'presets')['presets']
    assert {r['variant'] for r in rows if 'error' in r} == {'compiled fp32', 'compiled bf16'}
    assert {r['error'] for r in rows if 'error' in r} == {'RuntimeError: no compiler here'}
    assert all(r['ms'] > 0 for r in rows if r['variant'].startswith('eager'))

def test_halve_on_oom(bench):
    from common import halve_on_oom
    batches = []
    def measure(batch):
        batches.append(batch)
        if batch > 3: raise torch.OutOfMemoryError('CUDA out of memory')
        return batch
    assert halve_on_oom(measure, 16) == 2 and batches == [16, 8, 4, 2]
    with pytest.raises(torch.OutOfMemoryError): halve_on_oom(lambda batch: measure(9), 1)

def test_peak_bytes(bench):
    from common import peak_bytes
    def fn():
        a = torch.zeros(2**18) # 1 MiB
        b = a + 1
        del a
        return b + 1
    assert peak_bytes(fn, torch.device('cpu')) == pytest.approx(2*2**20, rel=1e-4) # and the scalar 1

@pytest.mark.parametrize('args, message', [
    (['--repeats', '0'], 'at least 1'), (['--out', 'nowhere/x.json'], 'does not exist')])
def test_invalid_arguments_are_refused(bench, capsys, args, message):
    with pytest.raises(SystemExit) as stop: bench('--parts', 'peak', *args)
    assert stop.value.code == 2 and message in capsys.readouterr().err

def test_tokenizer_capacity(monkeypatch, tmp_path):
    "All rows are measured on the same unseen notes, and no baseline has more bits than the tokenizer."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import tokenizer_capacity
    r = tokenizer_capacity.main(['--quick', '--strips', '--steps', '3', '--out', str(tmp_path/'l.json')])
    assert json.loads((tmp_path/'l.json').read_text()) == r
    rows, bits = r['rows'], r['rows']['tokenizer']['bits']
    assert bits == 111*8 and {'mean of the pitch', 'mean of the family'} < set(rows)
    assert sum(k.startswith('k-means') for k in rows) == 2
    assert all(0 < v['relative_mse'] < 3 and v['bits'] <= bits for v in rows.values()) and r['steps'] == 3
    assert r['waves']['oracle']['all'] < r['waves']['tokenizer']['all']
    assert all(s <= a for s, a in zip(r['usage']['share'], r['usage']['attainable']))

def test_tokenizer_capacity_of_a_trained_model(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import tokenizer_capacity
    from mars.pipeline import Mars
    cfg = Mars.from_pretrained('small', 'cpu').tokenizer.cfg
    r = tokenizer_capacity.main(['--quick', '--model', 'small', '--no-kmeans', '--out', str(tmp_path/'l.json')])
    assert r['rows']['tokenizer']['bits'] == int(cfg.n_tokens*math.log2(cfg.codebook_size))
    assert set(r['frame_noise']) == {'4 hops', '6 hops', '8 hops', 'no distance'}
    assert r['model'] == 'small' and 'steps' not in r and not r['curve']
    assert r['rows']['tokenizer']['mse'] < r['rows']['mean of the family']['mse']

def test_training(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    for name in ('common', 'train'): monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv('MARS_CACHE', str(tmp_path))
    # without a C++ compiler; with a PatchGAN, the parts
    monkeypatch.setattr('mars.training.compiled.CompiledStep.backend', None)
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **kwargs: None)
    import train
    r = train.main(['--presets', 'tiny', '--batch', '2', '--steps', '6', '--matmul', '256', '--device', 'cpu', '--compile',
                    '--out', str(tmp_path/'t.json')])
    assert json.loads((tmp_path/'t.json').read_text()) == r
    assert [(row['stage'], row['step']) for row in r['stages']] == [(stage, step) for stage in ('tokenizer', 'tokenizer + GAN', 'var')
                                                                    for step in ('plain', 'compiled')]
    columns = 'ms', 'notes/s', 'loader notes/s', 'plain notes/s', 'TFLOP/s', 'MFU %', 'peak MiB', 'predicted MiB', 'operations'
    for row in r['stages'][::2]: assert min(row[k] for k in columns) > 0 and row['host waits'] == 0
    printed = capsys.readouterr().out
    assert 'Not measured without a GPU: kernels' in printed and '| kernels' not in printed

# ---- benchmarks/patch_shape.py ----

@pytest.fixture
def patch_shape(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import patch_shape
    yield patch_shape
    del sys.modules['patch_shape']

def test_shapes_have_equal_bits(patch_shape):
    from mars.tokenizer import TokenizerConfig
    for name, shape in patch_shape.SHAPES.items():
        cfg = TokenizerConfig.preset('tiny', **shape)
        assert cfg.n_tokens == 255 and cfg.scales[-1] == tuple(map(int, name.split(' x '))) == cfg.latent

def test_details_of_known_tones(patch_shape):
    "A modulation of 40 cents or 3 dB at 5.5 Hz, an onset of 0.2 s and a release of 0.3 s are found, and nothing else."
    import numpy as np
    from mars.stft import LogSpectrogram
    ls, t = LogSpectrogram(), np.arange(64000)/16000
    def tone(cents=0, db=0, onset=.001, release=.05):
        phase = 2*np.pi*np.cumsum(220*2**(cents/1200*np.sin(11*np.pi*t)))/16000
        x = sum(np.sin(k*phase)/k for k in range(1, 30))*10**(db/20*np.sin(11*np.pi*t))
        return torch.from_numpy(.2*x*np.clip(t/onset, 0, 1)*np.exp(-np.clip(t-3, 0, None)/release)).float()
    spec = ls.encode(torch.stack([tone(), tone(40), tone(db=3), tone(onset=.2), tone(release=.3)]))
    plain, vibrato, tremolo, slow, long = (patch_shape.details(spec[[i, 1, 4]], spec[[0, 1, 4]], ls, np.full(3, 57)) for i in range(5))
    assert vibrato['vibrato'][0] == pytest.approx(40, abs=4) and np.isnan(plain['vibrato'][0])
    assert tremolo['tremolo'][0] == pytest.approx(3, abs=.3) and plain['tremolo'][0] == 0
    assert 80 < slow['attack'][0] < 200 and plain['attack'][0] == 0
    assert long['release'][0] > 10 and plain['release'][0] == 0
    assert all(np.nan_to_num(d[key][1:]).max() == 0 for d in (plain, slow) for key in d)

def test_shapes_are_trained_and_resumed(patch_shape, monkeypatch, tmp_path):
    from mars.data import AdditiveNotes
    args = ['--shapes', '128 x 1', '16 x 8', '--seeds', '1', '--steps', '2', '--batch-size', '4', '--notes', '8', '--measure', '6',
            '--codebook-size', '32', '--work', str(tmp_path/'w'), '--out', str(tmp_path/'o.json'), '--device', 'cpu']
    notes = AdditiveNotes(pitches=range(60, 64), velocities=(100,))
    result = patch_shape.main(args, notes)
    row = result['shapes']['16 x 8']
    assert row['error'][0] > 0 and row['error, difference'][0] == pytest.approx(row['error'][0] - result['shapes']['128 x 1']['error'][0], abs=1e-3)
    monkeypatch.setattr(patch_shape, 'train_shape', None)
    assert patch_shape.main(args, notes) == result == json.loads((tmp_path/'o.json').read_text())

# ---- benchmarks/sampling.py ----

@pytest.fixture
def sampling(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import sampling
    yield sampling
    del sys.modules['sampling']

def test_choose_takes_the_best_pitch_accuracy_within_the_distance_bound(sampling):
    variants = dict(near=dict(frechet=100, pitch=.6), right=dict(frechet=109, pitch=.7),
                    far=dict(frechet=111, pitch=.9), same=dict(frechet=105, pitch=.7))
    assert sampling.choose(variants) == 'same'
    assert sampling.choose({k: variants[k] for k in ('far', 'near')}) == 'near'

def test_the_chosen_setting_is_stored_in_the_model(sampling, monkeypatch, tmp_path):
    import shutil
    from mars.data import AdditiveNotes
    from mars.pipeline import Mars, find_model
    shutil.copytree(find_model('small'), tmp_path/'m')
    notes = AdditiveNotes(pitches=range(56, 60), velocities=(100,))
    settings = [dict(cfg_scale=1., top_k=3), dict(temperature=.5)]
    other = AdditiveNotes(pitches=range(60, 64), velocities=(100,))
    monkeypatch.setattr(sampling, 'recorded_notes', lambda paths: other if paths == ['r'] else None)
    args = ['--model', str(tmp_path/'m'), '--n', '8', '--seeds', '1', '--out', str(tmp_path/'s.json'), '--write', '--recorded', 'r']
    chosen = sampling.main(args, notes, settings)
    result = json.loads((tmp_path/'s.json').read_text())
    assert list(result['variants']) == ['cfg_scale=1 top_k=3', 'temperature=0.5']
    assert result['chosen'] == chosen in settings and result['notes'] == 8
    assert Mars.from_pretrained(tmp_path/'m').sampling() == chosen and result['real']['frechet'] < 1e-3
    assert result['recorded'].keys() == result['variants'].keys() and result['recorded'] != result['variants']

def test_choice_for_two_sets_of_notes_is_the_least_ratio_in_the_worse_set(sampling):
    first = dict(a=dict(frechet=100, pitch=.9), b=dict(frechet=130, pitch=.9), c=dict(frechet=120, pitch=.8), d=dict(frechet=250, pitch=.9))
    second = dict(a=dict(frechet=400, pitch=.9), b=dict(frechet=280, pitch=.9), c=dict(frechet=220, pitch=.9), d=dict(frechet=200, pitch=.9))
    assert sampling.choose_for_all(dict(rendered=first, recorded=second)) == 'b' # c loses pitch, a and d the second or first set
    assert sampling.choose_for_all(dict(rendered=first)) == 'a'
    first['c']['pitch'] = .88
    assert sampling.choose_for_all(dict(rendered=first, recorded=second)) == 'c'

def test_recorded_notes_are_of_the_validation_side(sampling, tmp_path):
    names = ['guitar_acoustic_900', 'guitar_electronic_900', 'guitar_acoustic_904'] # of the sides valid, test and train
    (tmp_path/'audio').mkdir()
    import soundfile
    rows = {}
    for i, name in enumerate(names):
        note_str = f'{name}-060-100'
        rows[note_str] = dict(note=i, note_str=note_str, instrument=i, instrument_str=name, pitch=60, velocity=100, sample_rate=16000,
                              instrument_family=3, instrument_source=i % 2)
        soundfile.write(tmp_path/'audio'/f'{note_str}.wav', torch.sin(torch.arange(64000)*.1).numpy()*.5, 16000)
    (tmp_path/'examples.json').write_text(json.dumps(rows))
    assert [n.instrument for n in sampling.recorded_notes([str(tmp_path)]).notes] == ['guitar_acoustic_900']

def test_settings_per_scale_change_the_last_maps_only(sampling):
    settings = sampling.per_scale_settings(dict(cfg_scale=2., top_k=20, temperature=.8), 8, 4096)
    base = settings.pop('packaged')
    assert base['cfg_scale'] == pytest.approx([2*k/7 for k in range(8)]) and base['temperature'] == [.8]*8
    assert 'top-k 20 on 3' not in settings and len(settings) == 10 # the model's own top-k
    for s in settings.values():
        assert s != base and all(s[k][:5] == base[k][:5] for k in base)
    assert settings['temperature 0.1 on 3']['temperature'] == [.8]*5 + [.1]*3
    assert settings['no guidance on 2']['cfg_scale'] == base['cfg_scale'][:6] + [0., 0.]

def test_the_rule_of_paired_differences(sampling):
    "Better in one without being worse in the other; the largest share within 50 cents among several."
    pair = lambda within, frechet: dict(within=[0, *within], frechet=[0, *frechet])
    even, up, down = (-1, 1), (.1, 1), (-1, -.1)
    pairs = dict(even=pair(even, even), pitch=pair(up, even), distance=pair(even, down), trade=pair(up, up), lost=pair(down, down))
    scores = {k: dict(within=[.5], frechet=1) for k in pairs} | dict(distance=dict(within=[.6], frechet=1))
    assert sampling.choose_paired(pairs, scores) == 'distance'
    assert sampling.choose_paired({k: pairs[k] for k in ('even', 'trade', 'lost')}, scores) == 'packaged'

def test_paired_differences_have_the_known_sign(sampling):
    "The same notes with some pitches corrected and features nearer to the real ones."
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=g).numpy()
    real, cents = dict(features=x), torch.linspace(0, 99, 64).numpy()
    base, better = dict(cents=cents, features=x + 1), dict(cents=cents/2, features=x + .5)
    wide, narrow = sampling.pair_with(real, [base], [better], (.99, .5))
    assert wide['within'][0] == pytest.approx(31/64, abs=.02) and wide['within'][1] > 0
    assert wide['frechet'][0] == pytest.approx(4*(.25 - 1), abs=1e-6)
    assert wide['within'][2] - wide['within'][1] > 2*(narrow['within'][2] - narrow['within'][1])
    assert sampling.pair_with(real, [base], [base], (.95,))[0] == dict(within=[0, 0, 0], frechet=[0, 0, 0])

def test_settings_per_scale_resume(sampling, monkeypatch, tmp_path):
    "What was measured is not sampled again; --stored-only summarises it; another number of notes is refused."
    from mars.data import AdditiveNotes
    notes, calls = AdditiveNotes(pitches=range(56, 60), velocities=(100,)), []
    def fake(self, *args): # in place of sampling and pYIN
        calls.append(args)
        n = len(self.labels['pitch'])
        g = torch.Generator().manual_seed(len(calls))
        return dict(cents=torch.randn(n, generator=g).numpy()*50, pitch=torch.ones(n).bool().numpy(), family=torch.ones(n).bool().numpy(),
                    features=torch.randn(n, 3, generator=g).numpy())
    monkeypatch.setattr(sampling.NoteMeasure, 'sample', fake)
    monkeypatch.setattr(sampling.NoteMeasure, 'real', fake)
    def pair(real, base, runs, levels): # in place of resampling: the number of seeds of both
        return [dict(within=[len(base), 0, 0], frechet=[len(runs), 0, 0]) for _ in levels]
    monkeypatch.setattr(sampling, 'pair_with', pair)
    args = ['--per-scale', '--n', '8', '--seeds', '2', '--out', str(tmp_path/'s.json')]
    first = sampling.main(args, notes)
    n = len(first['scores']) # settings; one that is the model's own is not measured twice
    assert n >= 10 and len(calls) == 1 + 2*n and first['scores']['packaged']['seeds'] == 2 and first['not_measured'] == []
    assert sampling.main(args, notes)['differences'] == first['differences'] and len(calls) == 1 + 2*n
    (tmp_path/'s'/'3-0.npz').unlink(), (tmp_path/'s'/'3-1.npz').unlink()
    partial = sampling.main([*args, '--stored-only'], notes)
    assert len(calls) == 1 + 2*n and len(partial['not_measured']) == 1 and len(partial['differences']) == n - 2
    with pytest.raises(SystemExit, match='holds 8 notes, not 9'): sampling.main([*args[:2], '9', *args[3:]], notes)

def test_f0(monkeypatch, tmp_path):
    "Both estimators find synthesised notes; either is at least and both at most each."
    pytest.importorskip('swift_f0')
    fresh(monkeypatch, 'f0', 'common')
    import f0
    from mars.data import AdditiveNotes
    r = f0.main(['--n', '4', '--out', str(tmp_path/'f.json')], AdditiveNotes('flute', pitches=(60, 72), velocities=(100,)))
    s, = r['sets'].values()
    assert s['within']['pYIN'][0] == s['within']['SwiftF0'][0] == s['within']['both'][0] == 1 and s['notes'] == 4
    import numpy as np
    got = f0.shares(dict(a=np.array([60, 72, np.nan]), b=np.array([60., 60, 61])), np.array([60, 60, 61]))
    assert [round(got[k][0], 3) for k in ('a', 'b', 'either', 'both')] == [.333, 1, 1, .333]

def test_swapped_codes(monkeypatch, tmp_path):
    "A row for each map and share, resumed from the file; no swap is the reconstruction."
    fresh(monkeypatch, 'swapped_codes')
    import swapped_codes
    from mars.data import AdditiveNotes
    notes = AdditiveNotes(pitches=range(56, 60), velocities=(100,))
    args = ['--n', '4', '--n-iter', '1', '--out', str(tmp_path/'s.json')]
    rows = swapped_codes.main(args, notes, shares=(0., 1.))['rows']
    assert [(r['map'], r['share']) for r in rows] == [(0, 0.), *((k, s) for s in (0., 1.) for k in range(8, 0, -1))]
    clean = {k: rows[0][k] for k in ('within', 'classifier', 'MSE')}
    assert all({k: r[k] for k in clean} == clean and r['replaced'] == 0 for r in rows[1:9])
    assert all(r['replaced'] == r['tokens'] == 2**(r['map'] - 1) and r['MSE'] != clean['MSE'] for r in rows[9:])
    def never(*args): raise AssertionError('measured again')
    monkeypatch.setattr(swapped_codes.SwapTest, 'row', never)
    assert swapped_codes.main(args, notes, shares=(0., 1.))['rows'] == rows

def test_quality_check(monkeypatch, tmp_path):
    "An untrained model: every family and pitch is measured, a control click is detected, and the clips are written."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import numpy as np, quality_check
    from mars.pipeline import Mars
    from mars.tokenizer import Tokenizer, TokenizerConfig
    from mars.var import VAR, VARConfig
    tok = Tokenizer(TokenizerConfig.preset('tiny'))
    Mars(tok, VAR(VARConfig.preset('tiny'), tok.cfg).bind(tok)).save_pretrained(tmp_path/'m')
    notes = quality_check.run(str(tmp_path/'m'), [50, 62], 0, tmp_path/'clips')['notes']
    assert len(notes) == 22 == len(list((tmp_path/'clips').glob('*.mp3'))) and {r['pitch'] for r in notes} == {50, 62}
    tone = .5*np.sin(2*np.pi*440*np.arange(64000)/16000)
    row = quality_check.measure(tone, 69)
    assert abs(row['cents']) < 5 and row['click'] < quality_check.CLICK < row['control_click'] and row['clipped'] == 0
    clicking = tone.copy()
    clicking[30000] += .1
    ratio, second, _ = quality_check.click(clicking)
    assert ratio > quality_check.CLICK and abs(second - 30000/16000) < .03
    assert quality_check.measure(2*tone.clip(-.4, .4), 69)['peak'] == pytest.approx(.8)

def test_scale_ablation(monkeypatch, tmp_path):
    "With no map given the notes are samples of the model, with all maps given reconstructions."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import scale_ablation
    from mars.data import AdditiveNotes
    from mars.pipeline import Mars
    from mars.tokenizer import Tokenizer, TokenizerConfig
    from mars.var import VAR, VARConfig
    torch.manual_seed(0)
    tok, notes = Tokenizer(TokenizerConfig.preset('tiny')), AdditiveNotes(pitches=range(56, 60), velocities=(100,))
    Mars(tok, VAR(VARConfig.preset('tiny', gamma_init=1.), tok.cfg).bind(tok)).save_pretrained(tmp_path/'m')
    m = Mars.from_pretrained(tmp_path/'m', 'cpu')
    rows = scale_ablation.main(['--model', str(tmp_path/'m'), '--n', '8', '--out', str(tmp_path/'k.json')], notes)
    K = len(m.tokenizer.cfg.scales)
    assert [r['n_given'] for r in rows] == [*range(K+1)] and rows[-1]['tokens'] == m.tokenizer.cfg.n_tokens
    assert json.loads((tmp_path/'k.json').read_text())['rows'] == rows
    data = scale_ablation.study_data(m, notes.select(scale_ablation.evenly_spaced(torch.arange(len(notes)), 8)))
    (tokens, labels), settings = data.sets['held_out'], m.sampling({})
    known = {k: v for k, v in labels.items() if k in m.var.label_embed.sizes}
    sampled, reconstructed = (scale_ablation.sample_finer_scales(m, tokens, labels, k, **settings) for k in (0, K))
    torch.testing.assert_close(sampled, m.tokens_to_image(m.var.generate(known, 8, seed=0, **settings)))
    torch.testing.assert_close(reconstructed, m.tokens_to_image(tokens))

# ---- benchmarks/classifier.py, comparison.py, latency.py

def fresh(monkeypatch, *names):
    for folder in ('benchmarks', 'scripts'): monkeypatch.syspath_prepend(str(ROOT/folder))
    for name in (*names, 'reproduce_weights'): monkeypatch.delitem(sys.modules, name, raising=False)

def test_classifier(monkeypatch, tmp_path):
    "The packaged classifier on the test side of a split; --write changes its config.json and no weights."
    import shutil
    from mars.data import AdditiveNotes
    from mars.parts.classifier import Classifier, find_classifier
    fresh(monkeypatch, 'classifier')
    import classifier
    (tmp_path/'scripts').mkdir()
    split = dict(classifier=dict(valid=['organ_*'], test=['flute_*']))
    (tmp_path/'scripts'/'split.json').write_text(json.dumps(split))
    monkeypatch.setattr(classifier, 'ROOT', tmp_path)
    shutil.copytree(find_classifier('classifier'), tmp_path/'c')
    before, notes = Classifier.from_pretrained(tmp_path/'c'), AdditiveNotes(None, (60, 67), (100,))
    args = ['--classifier', str(tmp_path/'c'), '--changed', '2', '--out', str(tmp_path/'r.json'), '--write']
    r = classifier.main(args, notes)
    assert {k: v['notes'] for k, v in r.items()} == dict(valid=6, soundfont=6, soundfont_griffinlim=2, soundfont_late=2, soundfont_short=2)
    written, after = json.loads((tmp_path/'r.json').read_text()), Classifier.from_pretrained(tmp_path/'c')
    assert written['results']['soundfont']['pitch'] == r['soundfont']['pitch']
    assert written['size'] > 10**6 and written['notes_per_second'] > 0 and after.digest == before.digest
    old, new = (clf.info['accuracy']['soundfont']['pitch'] for clf in (before, after))
    assert new == round(r['soundfont']['pitch'], 4) != old

def test_comparison_resumes_from_its_run_folder(monkeypatch, tmp_path):
    from mars.ablations import load_results
    from mars.baselines import comparison as systems
    fresh(monkeypatch, 'comparison')
    import comparison
    def evaluate_systems(data, prepared, seed, keep, **kwargs): # in place of the metrics: the generated waves
        labels = data.test.batch(list(keep))[1]
        wave = torch.cat([*systems.make_notes(*prepared['MARS, next-scale'][:2], data, labels, {}, seed)])
        return dict(sum=float(wave.abs().sum())), {'MARS, next-scale': (32767*wave).short()}
    monkeypatch.setattr(systems, 'evaluate_systems', evaluate_systems)
    monkeypatch.setattr(systems, 'result_json', lambda result: json.dumps(dict(rows=result)))
    (tmp_path/'split.json').write_text(json.dumps(dict(model=dict(test=['*_801', '*_802']))))
    quick = dict(width=2, dimension=8, lstm=1, code_dim=4, codebook_size=16)
    def run():
        args = ['--run', str(tmp_path/'run'), '--data', 'additive', '--quick', '--split', str(tmp_path/'split.json'),
                '--n', '4', '--repeats', '0', '--budget', '1e9', '--steps', '{"mars": 2, "sat": 1, "rvq": 1}',
                '--out', str(tmp_path)]
        shapes = dict(sat={**quick, 'lengths': (1, 8, 40, 200)}, rvq={**quick, **systems.rvq(2)})
        comparison.main(args, shared=dict(n_tune=2, shapes=shapes), systems=['MARS, next-scale'], layouts=())
        result, = load_results('comparison', tmp_path/'studies', 'tiny')
        return result
    first = run()
    assert [*first['systems']] == ['MARS, next-scale'] and first['notes']['train'] == 22
    assert [*(tmp_path/'clips'/'comparison'/'MARS_next-scale').glob('*.mp3')]
    monkeypatch.setattr(systems, 'train_system', lambda *args, **kwargs: 1/0) # nothing is trained again
    second = run()
    assert second['rows'] == first['rows']
    assert second['systems']['MARS, next-scale']['steps'] == first['systems']['MARS, next-scale']['steps']

def test_wave_tokenizers_and_transformers(monkeypatch, tmp_path):
    "Both tokenizers are measured and not trained twice; transformers of one second find their settings."
    fresh(monkeypatch, 'wave_tokenizers', 'wave_transformers', 'common')
    import wave_tokenizers, wave_transformers
    x = torch.randn(2, 8000)
    assert torch.allclose(wave_tokenizers.snr(x, .9*x), torch.tensor(20.), atol=1e-3)
    from mars.data import AdditiveNotes
    notes = AdditiveNotes(('guitar', 'flute'), range(40, 76), (100,))
    some = '--run', str(tmp_path/'run'), '--preset', 'tiny', '--steps', '2', '--batch-size', '2', '--device', 'cpu'
    two = [*some, '--n', '2', '--out']
    wave_tokenizers.main([*two, str(tmp_path/'a.json'), '--clips', str(tmp_path/'clips')], notes)
    rows = json.loads((tmp_path/'a.json').read_text())['rows']
    assert [*rows] == ['notes', 'sat', 'rvq'] and rows['notes']['within'][0] == 1 > rows['rvq']['within'][0]
    assert rows['rvq']['tokens'] == 800 and rows['sat']['training']['steps'] == 2 and rows['sat']['snr'] < 10
    assert len([*(tmp_path/'clips'/'sat').glob('*.mp3')]) == 2
    monkeypatch.setattr(wave_tokenizers, 'train_sat', lambda *args, **kwargs: 1/0)
    wave_tokenizers.main(['rvq', *two, str(tmp_path/'c.json')], notes)
    assert json.loads((tmp_path/'c.json').read_text())['rows']['rvq'] == rows['rvq']
    monkeypatch.setattr(wave_transformers, 'MASKED', dict(source={}, short=dict(steps=1)))
    names = ['delayed', 'magnet']
    result = wave_transformers.main([*names, *two, str(tmp_path/'b.json'), '--n-tune', '2', '--seconds', '1'], notes)
    assert [*result['rows']] == names and result['seconds'] == 1 and result['requests'] == 2
    magnet = result['rows']['magnet']
    assert [*magnet['tried']] == ['source', 'short', 'rescoring', 'hybrid'] and magnet['passes'] == 50
    assert result['rows']['delayed']['passes'] == 53 and 0 <= magnet['generated']['within'][0] <= 1
    assert Mars.from_pretrained(tmp_path/'run'/'magnet-1s').tokenizer.cfg.n_samples == 16000

def test_latency(monkeypatch, tmp_path):
    fresh(monkeypatch, 'latency')
    import latency
    def time_layouts(size, device, repeats, n, guided):
        return {'AAR, next-scale': dict(passes=16, tokens=1171, seconds=1. + n + guided)}
    monkeypatch.setattr(latency, 'time_layouts', time_layouts)
    rows = latency.main(['--device', 'cpu', '--repeats', '1', '--out', str(tmp_path/'l.json')])
    committed_file = ROOT/'results'/'benchmarks'/'latency-h100.json'
    written, committed = (json.loads(path.read_text()) for path in (tmp_path/'l.json', committed_file))
    assert written['rows'] == rows and written['info']['device'] == 'CPU' and 'H100' in committed['info']['device']
    assert [r['layouts']['AAR, next-scale']['seconds'] for r in rows] == [2, 3, 2, 65]
    cases = [[[r[k] for k in ('size', 'how', 'notes')] for r in table] for table in (committed['rows'], rows)]
    assert cases[0] == cases[1]

@pytest.mark.parametrize('script', sorted(p.stem for p in (ROOT/'benchmarks').glob('*.py') if p.stem != 'common'))
def test_the_first_line_has_purpose_and_command(script):
    "The results files that a docstring names exist."
    import ast, re
    doc = ast.get_docstring(ast.parse((ROOT/'benchmarks'/f'{script}.py').read_text()))
    assert f':  python benchmarks/{script}.py' in doc.splitlines()[0]
    for path in re.findall(r'results/[\w./-]+\.json', doc): assert (ROOT/path).exists(), path

def test_cpu_name(bench, tmp_path):
    import platform
    from common import cpu_name
    (tmp_path/'cpuinfo').write_text('processor\t: 0\nmodel name\t: Fast CPU @ 2.0GHz\n'*2)
    assert cpu_name(tmp_path/'cpuinfo') == f'Fast CPU @ 2.0GHz ({platform.machine()})'
    assert cpu_name(tmp_path/'missing') == platform.machine()

def test_candidates(monkeypatch, tmp_path):
    "benchmarks/candidates.py: a share and its error for one candidate and for k."
    fresh(monkeypatch, 'candidates')
    import candidates
    r = candidates.main(['--n', '2', '--k', '2', '--seeds', '1', '--n-iter', '1', '--out', str(tmp_path/'c.json')])
    assert json.loads((tmp_path/'c.json').read_text()) == r and r['notes'] == 2 and set(r['mean']) == {'1', '2'}
    assert all(0 <= v <= 1 and r['by_seed'][k] == [v] for k, v in r['mean'].items())

def test_table1(tmp_path, monkeypatch):
    "The DDSP baseline is trained, its rows join those of MARS in one file, and rows of the same notes are kept."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import table1
    (tmp_path/'split.json').write_text(json.dumps(dict(model=dict(valid=['*_800'], test=['*_801']))))
    def call(*more): return table1.main(['--run', str(tmp_path/'run'), '--data', 'additive', '--quick', '--preset', 'tiny', '--settings', '{"steps": 2}', '--split', str(tmp_path/'split.json'), '--n', '8', '--n-f0', '1', '--n-iter', '1',
                                         '--n-resamples', '10', '--device', 'cpu', '--out', str(tmp_path/'t.json'), *more])
    first = call('--parts', 'mars')
    both = call('--parts', 'ddsp', '--train', '--clips', str(tmp_path/'clips'))
    assert {k: both['rows'][k] for k in first['rows']} == first['rows'] and len(both['rows']) == 9
    ddsp = both['baselines']['ddsp']
    assert ddsp['train']['ddsp']['steps'] == 2 and [r['step'] for r in ddsp['curves']['ddsp']][-1] == 1 and both['info'] == first['info']
    assert ddsp['rows'] == [k for k in both['rows'] if k.startswith('DDSP')] and both['rows']['other real notes'].get('MSE paired') is None
    rows = both['rows']
    assert rows['reference']['MSE paired']['value'] == 0 < rows['Griffin-Lim oracle']['MSE paired']['value'] < rows['anchor, 1 kHz and 8 bits']['MSE paired']['value'] # the anchor lacks all high partials
    assert {r['block'] for r in rows.values()} == {'reference', 'reconstruction', 'generated'} and rows['DDSP generated'].get('MSE paired') is None
    assert rows['DDSP reconstruction, f0 of the label']['floats'] == 1 + 125 + 125*16 and both['clips'] == [p.stem for p in sorted((tmp_path/'clips'/'DDSP_generated').glob('*.mp3'))] and len(both['clips']) == 5
    assert len([*(tmp_path/'clips').iterdir()]) == 3
    shape = '{"channels": 4, "layers": 2, "cycle": 2, "step_width": 8, "crop": 512, "mel_width": 8, "mel_depth": 1, "mel_heads": 1}'
    def diffwave(*more): return call('--parts', 'diffwave', '--diffwave', str(tmp_path/'dw'), '--train', '--shape', shape, '--mel-settings', '{"steps": 1}', *more)
    three = diffwave()
    assert three['baselines']['diffwave']['train']['diffwave']['steps'] == 2 and {*three['baselines']['diffwave']['curves']} == {'diffwave', 'label_to_mel'} and {k: three['rows'][k] for k in rows} == rows
    assert three['rows']['DiffWave reconstruction, fast']['floats'] == 20000 and three['rows']['DiffWave reconstruction, fast']['MSE paired']['value'] > 0
    assert three['rows']['DiffWave generated, fast']['block'] == 'generated' and len(three['rows']) == 11
    assert call('--parts', 'diffwave')['rows'] == three['rows'] # no folder, no rows
    assert table1.elapsed_seconds([dict(seconds=s) for s in (2., 5., 1., 4.)]) == [2., 5., 6., 9.] # resumed after the second row
    assert table1.anchor(torch.tensor([[0, 5000, -20000]*3000], dtype=torch.int16)).mul(128).frac().abs().max() == 0

def test_table1_wavenet(tmp_path, monkeypatch):
    "The WaveNet autoencoder is trained; its rows are reconstructions with and without labels, and generated notes."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import table1
    (tmp_path/'split.json').write_text(json.dumps(dict(model=dict(valid=['*_800'], test=['*_801']))))
    common = ['--wavenet', str(tmp_path/'run'), '--data', 'additive', '--quick', '--preset', 'tiny', '--split', str(tmp_path/'split.json'), '--parts', 'ddsp,wavenet']
    assert table1.main([*common, '--train', '--settings', '{"steps": 2, "batch_size": 2}', '--shape', '{"prior_notes": 8}', '--device', 'cpu']) is None
    path = tmp_path/'run'/'config.json' # notes of 20 ms
    path.write_text(json.dumps({**(c := json.loads(path.read_text())), 'info': {**c['info'], 'sampling': dict(seconds=.02)}}))
    result = table1.main([*common, '--n', '20', '--n-f0', '1', '--n-iter', '1', '--n-resamples', '10', '--out', str(tmp_path/'t.json')])
    rows = result['rows']
    assert {*rows} == {'WaveNet reconstruction', 'WaveNet reconstruction, with labels', 'WaveNet generated'} and all(r['steps'] == 2 and r['seconds'] > 0 for r in rows.values())
    assert rows['WaveNet reconstruction']['floats'] == 2000 and rows['WaveNet generated'].get('MSE paired') is None and rows['WaveNet reconstruction']['MSE paired']['value'] > 0
    assert result['baselines']['wavenet']['train']['wavenet']['batch_size'] == 2 and [r['step'] for r in result['baselines']['wavenet']['curves']['wavenet']] == [0, 1]

def stub_tokensynth(monkeypatch):
    "The classes and arguments of tokensynth 0.0.4, without weights: a sine at the pitch of the MIDI file."
    from types import ModuleType, SimpleNamespace
    class Net(torch.nn.Linear):
        def __init__(self): super().__init__(2, 2) # 6 parameters
    class TokenSynth(Net):
        @classmethod
        def from_pretrained(cls, path=None, aug=True, device=None): return cls()
        def synthesize(self, clap_embedding, midi_fname, top_p=None, top_k=None, guidance_scale=None):
            assert clap_embedding.shape == (1, 512) and top_k == 9
            return torch.tensor([int(Path(midi_fname).read_text().split()[0])])
    class CLAP:
        def __init__(self, device=None): self.clap = Net()
        def encode_audio(self, audio):
            assert soundfile.info(audio).samplerate == 16000
            return torch.zeros(1, 512)
        def encode_text(self, text): return torch.ones(1, 512)
    class DACDecoder:
        def __init__(self, device=None): self.dac_model = Net()
        def decode(self, tokens):
            f0 = 440*2**((tokens.item() - 69)/12)
            return .5*torch.sin(2*torch.pi*f0*torch.arange(70000)[None]/16000) # longer than a note
    import soundfile
    class PrettyMIDI:
        def __init__(self): self.instruments = []
        def write(self, path): Path(path).write_text(' '.join(str(n.pitch) for i in self.instruments for n in i.notes if n.end < 5))
    midi, package = ModuleType('pretty_midi'), ModuleType('tokensynth')
    midi.PrettyMIDI, midi.Instrument, midi.Note = PrettyMIDI, lambda program: SimpleNamespace(notes=[]), SimpleNamespace
    package.TokenSynth, package.CLAP, package.DACDecoder = TokenSynth, CLAP, DACDecoder
    monkeypatch.setitem(sys.modules, 'pretty_midi', midi)
    monkeypatch.setitem(sys.modules, 'tokensynth', package)

def test_table1_tokensynth(tmp_path, monkeypatch):
    "Requests for TokenSynth, notes of a stub in NSynth's layout, and their row; one sentence without the package."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import table1, tokensynth_notes
    (tmp_path/'split.json').write_text(json.dumps(dict(model=dict(valid=['*_800'], test=['*_801']))))
    common = ['--data', 'additive', '--quick', '--split', str(tmp_path/'split.json'), '--n', '20', '--parts', 'tokensynth']
    table1.main([*common, '--requests', str(tmp_path/'ask')])
    call = [str(tmp_path/'ask'), '--out', str(tmp_path/'out'), '--device', 'cpu']
    monkeypatch.setitem(sys.modules, 'tokensynth', None)
    with pytest.raises(SystemExit, match='tokensynth.*an environment of its own'): tokensynth_notes.main(call)
    assert not (tmp_path/'out').exists()
    stub_tokensynth(monkeypatch)
    info = tokensynth_notes.main(call)
    assert (info['parameters'], info['top_k']) == (18, 10) and info['seconds'] > 0
    asked = json.loads((tmp_path/'ask'/'requests.json').read_text())
    examples = json.loads((tmp_path/'out'/'examples.json').read_text())
    assert [(e['pitch'], e['instrument_family_str']) for e in examples.values()] == [(n['pitch'], n['family']) for n in asked['notes']]
    result = table1.main([*common, '--tokensynth', str(tmp_path/'out'), '--n-f0', '4', '--n-resamples', '10', '--out', str(tmp_path/'t.json')])
    row = result['rows']['TokenSynth generated']
    assert (row['block'], row['parameters'], row['seconds']) == ('generated', 18, info['seconds']) and row['f0 within 50 cents']['value'] == 1
    assert tokensynth_notes.main(call)['seconds'] == info['seconds'] # all notes are there
    with pytest.raises(ValueError, match='other labels'): table1.main([*common, '--tokensynth', str(tmp_path/'out'), '--seed', '1', '--out', str(tmp_path/'t.json')])
    assert [tokensynth_notes.snap_velocity(v) for v in (1, 75, 76, 120)] == [25, 50, 100, 127]
    def offline(cls, **kw): raise OSError('no network')
    monkeypatch.setattr(sys.modules['tokensynth'].TokenSynth, 'from_pretrained', classmethod(offline))
    with pytest.raises(SystemExit, match='weights of TokenSynth are not available'): tokensynth_notes.main(call)

def test_table1_results_are_complete():
    "Rows of every baseline, learning curves of every stage, and clips of every row in the committed files."
    result, clips = json.loads((ROOT/'results/benchmarks/table1-small.json').read_text(encoding='utf-8')), ROOT/'results/clips/table1'
    for baseline in result['baselines'].values():
        assert {*baseline['rows']} <= {*result['rows']} and {*baseline['curves']} == {*baseline['train']}
    folders = {row.replace(' ', '_').replace(',', '') for row in result['rows']} if 'clips' in result else set()
    files = [*clips.glob('*/*.mp3')]
    assert {f.parent.name for f in files} == folders and len(files) == len(folders)*len(result.get('clips', ()))
    assert sum(f.stat().st_size for f in files) < 700000

@pytest.mark.parametrize('script, options', [
    ('levers', ['--arms', 'teacher forcing,student forcing', '--measure', '4']), ('decoder', ['--maps', '2'])])
def test_experiments_on_a_model(script, options, monkeypatch, tmp_path):
    "An untrained model: every arm and seed has a file, differences from the base are paired, a second call trains nothing."
    fresh(monkeypatch, 'levers', 'decoder', 'reproduce_weights')
    import importlib
    from mars.data import AdditiveNotes
    from mars.pipeline import Mars
    from mars.tokenizer import Tokenizer, TokenizerConfig
    from mars.var import VAR, VARConfig
    experiment = importlib.import_module(script)
    torch.manual_seed(0)
    tok = Tokenizer(TokenizerConfig.preset('tiny'))
    Mars(tok, VAR(VARConfig.preset('tiny', gamma_init=1.), tok.cfg).bind(tok)).save_pretrained(tmp_path/'m')
    notes = AdditiveNotes(pitches=range(56, 60), velocities=(100,))
    monkeypatch.setattr(experiment, 'split_by_names', lambda notes, patterns: notes.split_by_instrument())
    monkeypatch.setattr(experiment, 'open_data', lambda *args: notes)
    monkeypatch.setattr(importlib.import_module('levers'), 'N_ITER', 1)
    args = ['--model', str(tmp_path/'m'), '--notes', '8', '--steps', '2', '--batch-size', '4', '--seeds', '1', '--n', '10',
            '--work', str(tmp_path/'w'), '--out', str(tmp_path/'r.json'), '--device', 'cpu', *options]
    result = experiment.main(args)
    base, other, *_ = result['arms'].values()
    assert len(list((tmp_path/'w').glob('*-0.json'))) == len(result['arms'])
    for key in (k for k in base if k.endswith(', difference')):
        name = key.removesuffix(', difference')
        assert base[key] == [0, 0] and other[name][0] - base[name][0] == pytest.approx(other[key][0])
    def never(*args): raise AssertionError('measured again')
    monkeypatch.setattr(experiment, 'run_arm', never)
    assert experiment.main(args)['arms'] == result['arms']

def test_formats_from_packaged_weights(monkeypatch, tmp_path):
    "Tokens and sampling settings are those of the packaged model."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import formats
    args = ['--quick', '--init', 'small', '--decoder-only', '--steps', '1', '--var-steps', '1', '--batch-size', '2', '--n-measure', '2', '--n-iter', '1', '--folder', str(tmp_path)]
    r = formats.main([*args, '--models', '16000 Hz, 8 s'])['models']['16000 Hz, 8 s']
    packaged, m = Mars.from_pretrained('small'), Mars.from_pretrained(tmp_path/'16000Hz-8s')
    assert r['untrained']['generated']['in_tune']['generated'] == 1 and set(r['untrained']['reconstructed']['levels']) == {'reconstructed', 'oracle'}
    assert r['sizes']['ratios']['memory'] > 1 and r['sizes']['ratios']['time'] > 0
    assert r['init'] == 'small' and r['decoder_only'] and r['train']['tokenizer']['revive_every'] == 0
    assert torch.equal(m.tokenizer.quantizer.codebook, packaged.tokenizer.quantizer.codebook) and m.var.cfg == packaged.var.cfg
    assert m.info['sampling'] == packaged.info['sampling'] and m.n_samples == 128000

def test_formats(monkeypatch, tmp_path, capsys):
    "Both models are trained, measured and added to the file; a second call trains nothing, and other settings are refused."
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    import formats
    args = ['--quick', '--steps', '2', '--var-steps', '2', '--batch-size', '2', '--n-measure', '2', '--n-iter', '1', '--folder', str(tmp_path/'runs'), '--out', str(tmp_path/'f.json'), '--clips', str(tmp_path/'clips')]
    for name in formats.MODELS: result = formats.main([*args, '--models', name])
    assert json.loads((tmp_path/'f.json').read_text()) == json.loads(json.dumps(result)) and [*result['models']] == [*formats.MODELS]
    for name, (format, n_fft) in formats.MODELS.items():
        r = result['models'][name]
        assert (r['sizes']['samples'], r['sizes']['sample_rate']) == (format.n_samples, format.sample_rate) and [*r['sizes']['image']][1:] == [256, 256]
        assert r['generated']['in_tune']['real'] == r['reconstructed']['in_tune']['oracle'] == 1 and set(r['generated']['in_tune']) == {'real', 'generated'}
        assert set(r['reconstructed']['levels']) == {'reconstructed', 'oracle'} and abs(r['reconstructed']['levels']['oracle']['2-4 kHz']) < 3
        assert len(r['clips']) and {f.stem for f in (tmp_path/'clips').rglob('generated/*.mp3')} >= {*r['clips']}
        assert all(math.isfinite(loss) for s in ('tokenizer', 'var') for _, loss in r['curves'][s]['losses']) and r['train']['var']['steps'] == 2 and r['error']['db_active'] > 0
    assert '8-16 kHz' in result['models']['44100 Hz, 4 s']['generated']['levels']['generated'] and '8-16 kHz' not in r['generated']['levels']['generated']
    monkeypatch.setattr(formats, 'train_tokenizer', None), monkeypatch.setattr(formats, 'train_var', None)
    again = formats.main([*args, '--models', '16000 Hz, 8 s'])
    assert again['models']['16000 Hz, 8 s']['generated'] == r['generated']
    with pytest.raises(ValueError, match='holds a run with other settings; give another --folder'): formats.main([*args, '--models', '16000 Hz, 8 s', '--seed', '1'])
    with pytest.raises(SystemExit): formats.main([*args, '--decoder-only'])
    assert '--decoder-only needs --init' in capsys.readouterr().err
    with pytest.raises(SystemExit): formats.main([*args, '--n-measure', '0'])
    assert 'must be at least 1' in capsys.readouterr().err and formats.numbers('36-40:2') == [36, 38, 40] and formats.numbers('5,7') == [5, 7]
