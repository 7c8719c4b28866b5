"""The experiments of 06_ablations at a sixteenth of their size: properties that hold at any size, not which variant is better."""
import json, math
from pathlib import Path
import pytest, torch

from mars import ablations
from mars.ablations import Variant, SIZES, bits_per_note, count_parameters, difference, load_results, map_sides, parameters_by_term
from mars.parts.config import EXPERIMENTS
from mars.ablations import read_results, run_experiment, summary, token_counts
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.product import ProductTokenizerConfig
from mars.stft import LogSpectrogram
from mars.tokenizer import TokenizerConfig
from mars.train import TrainConfig, train_tokenizer
from mars.training.log import RunLog
from mars.training.reconstruction import MelLoss

ROOT = Path(__file__).resolve().parent.parent
NAMES = 'cmx twin gan content growth truncation scales codes sharing rate'.split()
FACTS = {'patches', 'tokens', 'bits', 'kbps', 'parameters', 'activation_bytes', 'gflop', 'step_seconds', 'seconds', 'mse', 'mae', 'relative_mse', 'db_active', 'frechet', 'used', 'attainable', 'curve', 'memory_ratio'}

@pytest.fixture(scope='module')
def small():
    "A spectrogram of 128x64 and a few notes of 33 instruments"
    return dict(spectrogram=LogSpectrogram(n_fft=256, hop_length=64, n_frames=64), notes=AdditiveNotes(None, (60, 67), (100,)))

@pytest.fixture(scope='module')
def ran(small, tmp_path_factory):
    "Each experiment, run once with two steps: name -> (result, written results)."
    done, folder = {}, tmp_path_factory.mktemp('results')
    def run(name):
        if name not in done:
            path = folder/f'{name}.json'
            done[name] = run_experiment(name, steps=2, out=path, **small), json.loads(path.read_text())[0]
        return done[name]
    return run

@pytest.mark.parametrize('name', NAMES)
def test_an_experiment_runs_and_is_written(ran, name):
    result, written = ran(name)
    assert written == json.loads(json.dumps(result))
    assert {'experiment', 'preset', 'seed', 'steps', 'batch_size', 'lr', 'base', 'notes', 'data', 'variants', 'info'} <= set(result)
    assert (result['experiment'], result['steps'], result['seed'], result['preset']) == (name, 2, 0, 'tiny') and result['base'] in result['variants']
    assert {'wall_seconds', 'device', 'torch', 'python'} == set(result['info'])
    assert result['data']['train_instruments'] > 0 < result['data']['test_instruments'] and result['data']['source']
    for variant in result['variants'].values():
        assert FACTS <= set(variant) and len(variant['curve']) == 2
        assert all(math.isfinite(v) for k, v in variant.items() if isinstance(v, float))
        assert 0 < variant['used'] <= 1 and variant['mse'] > 0 and variant['mae'] > 0 and variant['frechet'] >= 0 and variant['bits'] >= variant['tokens']
    assert len(summary([result, result])) == len(result['variants'])

@pytest.mark.parametrize('name', [n for n in NAMES if n not in ('content', 'growth')])
def test_bits_equal_those_of_the_tokens(small, name):
    "Counted on the tokens of an untrained tokenizer."
    ls = small['spectrogram']
    variants = getattr(ablations, f'{name}_variants')('tiny', ls) if name != 'truncation' else {'a': Variant(ablations.tokenizer_config('tiny', ls, CMX(2, 1)), CMX(2, 1))}
    for variant in variants.values():
        tokens = variant.build(variant.cfg).encode(torch.rand(1, *variant.cfg.image_shape)*2 - 1)
        assert sum(t.numel() for t in tokens)*math.log2(variant.cfg.codebook_size) == bits_per_note(variant.cfg)
        assert max(int(t.max()) for t in tokens) < variant.cfg.codebook_size

def test_bits_per_second_use_the_length_of_the_sound(ran):
    for name in ('codes', 'content'):
        for label, variant in ran(name)[0]['variants'].items():
            seconds = 63*64/16000*(1 if name == 'codes' else round(float(label.split(' s')[0])/0.252))
            assert variant['kbps'] == pytest.approx(variant['bits']/seconds/1000, rel=1e-3)

def test_equal_seeds_give_equal_curves(small):
    a, b, c = (run_experiment('truncation', steps=2, seed=s, **small)['variants'] for s in (0, 0, 1))
    for name in a:
        same = lambda x: {k: v for k, v in x[name].items() if 'seconds' not in k}
        assert same(a) == same(b) and a[name]['curve'] != c[name]['curve']

def test_the_twin_has_the_losses_of_the_folded_variant(small):
    "No GAN, fp32: equal to 1e-7 until rounding changes a code, in one of five seeds; then within 1/100 of another seed."
    variants = run_experiment('twin', steps=50, **small)['variants']
    a, b = (torch.tensor(variants[name]['curve']) for name in ('folded', 'twin'))
    assert len(a) == 50 and (a - b)[:3].abs().max() < 1e-4 and (a - b).abs().mean() < 2e-3 # another seed: 0.02
    assert a[-10:].mean() < 0.3*a[:10].mean(), 'it must have learned, or equality means little' # 0.07 to 0.08

def test_variants_of_cmx(ran):
    variants = ran('cmx')[0]['variants']
    assert [a['patches'] for a in variants.values()] == [256, 64, 64, 256, 64, 256, 64]
    for a, b in (('folded', 'twin'), ('unfolded', 'folded, same tokens')):
        assert variants[a]['parameters'] == variants[b]['parameters'] and variants[a]['activation_bytes'] == pytest.approx(variants[b]['activation_bytes'], rel=0.02) and variants[a]['gflop'] == variants[b]['gflop']
    assert variants['unfolded']['memory_ratio'] > 1.5 and variants['folded']['memory_ratio'] == variants['folded']['time_ratio'] == 1
    assert len({a['bits'] for a in variants.values()}) == 1

def test_the_discriminators_of_gan_change_the_training(small):
    variants = run_experiment('gan', steps=3, **small)['variants']
    curves = {name: tuple(a['curve']) for name, a in variants.items()}
    assert {c[0] for n, c in curves.items() if n.startswith('folded')} == {curves['folded'][0]}, 'the same start'
    assert len(set(curves.values())) == len(curves)

def test_the_content_experiment_uses_the_same_tokens(ran):
    variants = ran('content')[0]['variants']
    assert len({a['tokens'] for a in variants.values()}) == len({a['patches'] for a in variants.values()}) == 1
    grows = [a['parameters'] for a in variants.values()]
    assert grows[:3] == sorted(grows[:3]) and grows[3:] == sorted(grows[3:])

def test_growing_tokens_grow_with_the_content(ran):
    variants = ran('growth')[0]['variants']
    base = variants['0.252 s, 16 kHz, base']
    assert len(variants) == 9 and base['memory_ratio'] == 1
    for content, k in (('0.504 s, 16 kHz', 2), ('0.252 s, 44.1 kHz', 3)):
        cmx, patches, wide, both = (variants[f'{content}, {name}'] for name in ('CMX', 'larger patches', 'CMX, more tokens', 'more patches, more tokens'))
        assert cmx['tokens'] == patches['tokens'] == base['tokens'] and wide['tokens'] == both['tokens'] == k*base['tokens']
        assert cmx['parameters'] == patches['parameters'] and both['patches'] == k*base['patches'] == k*wide['patches']
        assert base['gflop'] < cmx['gflop'] < wide['gflop'] < both['gflop']
    assert base['attack_ms'] >= 0 and 'level 4-8 kHz' in base and 'level 8-16 kHz' in variants['0.252 s, 44.1 kHz, CMX']

def test_variants_are_measured_at_half_of_the_training(ran):
    "Half of two steps is one; the metrics are those of the end."
    for v in ran('truncation')[0]['variants'].values():
        assert set(v['half']) == {'mse', 'mae', 'relative_mse', 'db_active', 'frechet'} and v['half']['mse'] != v['mse']

@pytest.mark.parametrize('name, keep', [('growth', 3), ('twin', 1)])
def test_an_interrupted_experiment_continues(ran, small, name, keep, monkeypatch, tmp_path):
    "Finished variants are kept and not trained again, the result is that of an uninterrupted run, and other settings are refused."
    whole, trained, run = ran(name)[0]['variants'], [], ablations.run_variant
    def interrupted(variants, n, *args, **kwargs):
        trained.append(n)
        if len(trained) == keep + 1: raise KeyboardInterrupt
        return run(variants, n, *args, **kwargs)
    monkeypatch.setattr(ablations, 'run_variant', interrupted)
    settings = dict(steps=2, resume=tmp_path, out=tmp_path/'r.json', **small)
    with pytest.raises(KeyboardInterrupt): run_experiment(name, **settings)
    file, = tmp_path.glob('*.json')
    assert [*json.loads(file.read_text())['variants']] == [*whole][:keep]
    with pytest.raises(ValueError, match='holds variants of other settings'): run_experiment(name, **{**settings, 'steps': 3})
    again = run_experiment(name, **settings)['variants']
    assert trained[keep+1:] == [*whole][keep:] and [*again] == [*whole]
    assert all(again[n]['curve'] == whole[n]['curve'] for n in whole) and not file.exists() and (tmp_path/'r.json').exists()

def test_detail_metrics_are_zero_for_the_same_and_see_a_slower_attack():
    ls, t = LogSpectrogram(), torch.arange(64000)/16000
    x, slow = (ls.encode(0.3*torch.sin(2*torch.pi*5000*t)*(t/rise).clamp(0, 1)) for rise in (0.1, 0.6))
    same, other = (ablations.detail_metrics(lambda _: (y, None), x, ls) for y in (x, slow))
    assert same['attack_ms'] == same['level 4-8 kHz'] == 0 and abs(other['attack_ms'] - 400) < 40 and -3 < other['level 4-8 kHz'] < 0
    two = torch.cat([x[..., :250], slow[..., :251]], -1)
    assert (ablations.attack_times(two, LogSpectrogram(n_frames=501, duration=8.), 2)[0] - torch.tensor([0.08, 0.48])).abs().max() < 0.04

def test_truncation_alone_is_less_than_a_truncated_variant(ran):
    result = ran('truncation')[0]
    assert 0 < result['references']['truncation alone']['mse'] < result['variants']['truncated']['mse']
    assert len({a['bits'] for a in result['variants'].values()}) == 1

def test_rate_goes_from_half_to_two_kbit_at_full_size():
    kbps = [bits_per_note(a.cfg)/4000 for a in ablations.rate_variants('tiny', LogSpectrogram()).values()]
    assert 0.45 < kbps[0] < 0.5 and 2 < kbps[-1] < 2.1 and kbps == sorted(kbps)

@pytest.mark.parametrize('preset', SIZES)
@pytest.mark.parametrize('name', [n for n in NAMES if n not in ('content', 'growth', 'truncation')])
def test_variants_can_be_built_at_every_size(name, preset):
    variants = getattr(ablations, f'{name}_variants')(preset, LogSpectrogram())
    assert len({(a.cfg, a.cmx, a.build, a.discriminator, a.unfold, a.mel_weight) for a in variants.values()}) == len(variants), 'two variants are the same'
    for variant in variants.values(): assert variant.spec_to_image(torch.zeros(1, 1, 512, 256)).shape[1:] == variant.cfg.image_shape and bits_per_note(variant.cfg) > 0

def test_schedules():
    "AAR's totals at 75 positions, and scale lists that end at the latent map."
    floor = lambda s: [int(c + 1e-9) for c in token_counts(s, 16, 75).tolist()]
    assert sum(floor('linear')) == 601 and sum(floor('quadratic')) == 455
    for s in ('linear', 'quadratic', 'logarithmic'):
        for K in (8, 10, 16):
            sides = map_sides(s, K, 8)
            assert len(sides) == K and sides[0] == 1 and sides[-1] == 8 and list(sides) == sorted(sides)
    with pytest.raises(ValueError, match="got 'cubic'"): token_counts('cubic', 8, 64)

@pytest.mark.parametrize('own', [dict(branches=2), dict(layer_scale=0.), dict(n_phi=1), dict(image_shape=(6, 64, 256), patch=(8, 16))])
def test_parameters_by_term_add_up(own):
    config = ProductTokenizerConfig if 'branches' in own else TokenizerConfig
    cfg = config.preset('tiny', **own)
    assert sum(parameters_by_term(cfg).values()) == count_parameters(cfg)

def test_difference_interval_is_student_t():
    results = [dict(variants=dict(a=dict(x=v), b=dict(x=0.))) for v in (1., 2., 3.)]
    mean, half = difference(results, 'x', 'a', 'b')
    assert mean == 2 and half == pytest.approx(4.302653/math.sqrt(3), rel=1e-6) # t of two degrees of freedom
    assert math.isnan(difference(results[:1], 'x', 'a', 'b')[1])
    assert 'no difference shown' in ablations.format_difference(results, 'x', 'a', 'b')

def test_results_of_two_sizes_are_separate(tmp_path):
    (tmp_path/'cmx.json').write_text(json.dumps([dict(experiment='cmx', preset=preset, seed=0) for preset in ('small', 'tiny')]))
    assert [r['preset'] for r in load_results('cmx', tmp_path, 'small')] == ['small'] and len(load_results('cmx', tmp_path)) == 2
    with pytest.raises(FileNotFoundError, match='no results of'): load_results('cmx', tmp_path, 'huge')
    with pytest.raises(FileNotFoundError, match='mars ablate gan --out .*gan.json'): load_results('gan', tmp_path)

def test_runs_are_appended_to_one_file(monkeypatch, tmp_path, capsys):
    "`mars ablate` adds a seed, replaces an equal one, and leaves the file unchanged if it fails."
    from mars.cli import main
    out, runs = tmp_path/'cmx.json', []
    def fake(preset, seed, **kwargs): return runs.append(seed) or dict(experiment='cmx', preset=preset, seed=seed, run=len(runs), variants={})
    monkeypatch.setitem(EXPERIMENTS, 'cmx', fake)
    def ablate(*more): return main(['ablate', 'cmx', '--out', str(out), *more])
    for seed in (1, 0): assert ablate('--seed', str(seed)) == 0
    assert [(r['seed'], r['run']) for r in read_results(out)] == [(0, 2), (1, 1)]
    assert ablate('--seed', '1') == 0 and [(r['seed'], r['run']) for r in read_results(out)] == [(0, 2), (1, 3)]
    assert ablate('--seed', '1', '--preset', 'small') == 0 and len(read_results(out)) == 3 and len(load_results('cmx', tmp_path, 'tiny')) == 2
    assert [p.name for p in tmp_path.iterdir()] == ['cmx.json'] # nothing half-written
    monkeypatch.setitem(EXPERIMENTS, 'gan', lambda **kwargs: 1/0)
    assert main(['ablate', 'gan', '--out', str(out)]) == 2 and "holds results of 'cmx'" in capsys.readouterr().err

def test_ablate_all_goes_through_experiments_and_seeds(monkeypatch, tmp_path, capsys):
    "--resume skips the seeds in the files; --steps is passed on where an experiment has steps."
    from mars.cli import evaluation, main
    calls = []
    def trains(preset, seed, steps=None, finished=None, **kwargs): return calls.append(('trains', seed, steps)) or dict(experiment='trains', preset=preset, seed=seed, steps=steps)
    def fixed(preset, seed, **kwargs): return calls.append(('fixed', seed, kwargs.get('steps'))) or dict(experiment='fixed', preset=preset, seed=seed)
    monkeypatch.setattr(evaluation, 'experiments', lambda: dict(trains=trains, fixed=fixed))
    for name, function in dict(trains=trains, fixed=fixed).items(): monkeypatch.setitem(EXPERIMENTS, name, function)
    def ablate(*more): return main(['ablate', 'all', '--out', str(tmp_path), '--steps', '7', '--resume', *more])
    assert ablate('--seeds', '2') == 0 and calls == [('fixed', 0, None), ('trains', 0, 7), ('fixed', 1, None), ('trains', 1, 7)]
    assert ablate('--seeds', '3') == 0 and calls[4:] == [('fixed', 2, None), ('trains', 2, 7)]
    assert [r['seed'] for r in read_results(tmp_path/'trains.json')] == [0, 1, 2]
    assert main(['ablate', 'trains', '--resume']) == 2 and 'give --out FILE.json' in capsys.readouterr().err
    assert main(['ablate', 'trains', '--seeds', '2']) == 2 and 'give --out FILE.json' in capsys.readouterr().err

@pytest.mark.parametrize('content', ['[{"experiment": "cmx", "preset": "tiny"', '{"experiment": "cmx"}', '[{"seed": 0}]', '[3]'])
def test_a_damaged_file_of_results_is_refused_before_the_run(monkeypatch, tmp_path, capsys, content):
    from mars.cli import main
    (tmp_path/'cmx.json').write_text(content)
    monkeypatch.setitem(EXPERIMENTS, 'cmx', lambda **kwargs: 1/0)
    assert main(['ablate', 'cmx', '--out', str(tmp_path/'cmx.json')]) == 2
    message = capsys.readouterr().err
    assert 'is damaged or holds no list of results' in message and message.count('\n') == 1 and (tmp_path/'cmx.json').read_text() == content
    with pytest.raises(ValueError, match='is damaged'): load_results('cmx', tmp_path)

@pytest.mark.parametrize('args, says', [(dict(name='magic'), "experiment 'magic' is unknown: choose one of"), (dict(name='cmx', preset='huge'), "preset must be one of tiny, small, got 'huge'"),
                                        (dict(name='cmx', out='no/such/folder/x.json'), 'its folder does not exist'),
                                        (dict(name='cmx', notes=AdditiveNotes('flute', (60,), (100,)).select([0])), 'too few to hold any instrument out')])
def test_invalid_arguments_raise_one_sentence(args, says):
    with pytest.raises(ValueError, match=says) as e: run_experiment(**args)
    assert '\n' not in str(e.value)

def test_mel_weight_trains_and_is_off_by_default(small):
    "The option of stage one: logged, and 0 for equal images."
    cfg = TokenizerConfig.preset('tiny', image_shape=(2, 64, 64), patch=16, scales=(1, 2, 4))
    logs = {}
    for w in (0., 0.5):
        train_tokenizer(small['notes'], TrainConfig.preset('tiny', steps=3, batch_size=4, log_every=1, mel_weight=w), cfg, log=(log := RunLog()), progress=False, spectrogram=small['spectrogram'])
        logs[w] = log.rows
    assert 'mel' not in logs[0.][0] and logs[0.5][0]['mel'] > 0 and logs[0.][0]['recon'] == logs[0.5][0]['recon'] and logs[0.][2]['recon'] != logs[0.5][2]['recon']
    image = torch.rand(2, 2, 64, 64)*2 - 1
    assert MelLoss(small['spectrogram'], CMX(2, 1))(image, image) == 0
    with pytest.raises(ValueError, match='mel_weight must be >= 0, got -1'): TrainConfig(mel_weight=-1.)

def test_cli_passes_the_notes(monkeypatch, capsys):
    from mars.cli import main
    seen = {}
    monkeypatch.setitem(EXPERIMENTS, 'cmx', lambda **kwargs: seen.update(kwargs) or dict(variants={}))
    assert main(['ablate', 'cmx', '--data', 'additive', '--seed', '3', '--json']) == 0
    assert len(seen['notes']) > 1000 and seen['seed'] == 3
    assert main(['ablate', 'cmx', '--json']) == 0 and seen['notes'] is None

@pytest.mark.parametrize('name', [n for n in NAMES if n != 'growth' or (ROOT/'results'/'ablations'/'growth.json').exists()])
def test_committed_results(name):
    "Seeds of each experiment at `tiny`, with equal versions and notes: three, or one with an error for each held-out note."
    results = load_results(name, ROOT/'results'/'ablations', 'tiny')
    seeds = [r['seed'] for r in results]
    assert seeds == [*range(len(seeds))] and all(r['experiment'] == name for r in results)
    assert len(seeds) >= 3 or all(len(v['db_by_note']) == r['data']['test'] for r in results for n, v in r['variants'].items())
    assert len({(r['steps'], json.dumps(r['data'], sort_keys=True), r['info']['torch'], tuple(r['variants'])) for r in results}) == 1
