"""The prediction experiments at unit-test size: properties that hold with little training; and the committed results."""
import json, math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
import pytest
import torch
import mars.parts.inference
from mars.ablations import load_results, run_experiment
from mars.data import AdditiveNotes
from mars.baselines.next_token import NextToken
from mars.parts.config import EXPERIMENTS
from mars.studies.prediction import time_aar_layouts, aar_top_k, cross_entropy, evenly_spaced, generate_images, time_interleaved
from mars.studies.prediction import prediction_data, time_ladder, ladder_steps, transformer_settings, speed_up, sweep_data, train_transformer
from mars.tokenizer import TokenizerConfig
from mars.parts.inference import Sampler, generate
from mars.var import VAR, VARConfig

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
FEW = AdditiveNotes(('guitar_acoustic_800', 'flute_acoustic_800'), range(44, 76), (100,))
COMMITTED = dict(order='tiny', ladder='tiny', labels='small', guidance='small')

@pytest.fixture(scope='module')
def data(): return prediction_data(notes=FEW, steps=3, device='cpu')

@pytest.fixture(scope='module')
def swept(data):
    data.model.var = train_transformer(VAR, VARConfig.preset('tiny'), data, transformer_settings('tiny', 0, 2, data))[0]
    return sweep_data(data.model, notes=FEW, max_notes=8)

def finite(x): return all(map(finite, x.values() if isinstance(x, dict) else x)) if isinstance(x, (dict, list)) else not isinstance(x, float) or math.isfinite(x)

# --- what all variants share

def test_held_out_notes_are_not_trained_on(data):
    notes = {k: {tuple(r) for r in torch.stack([v for v in labels.values()], 1).tolist()} for k, (_, labels) in data.sets.items()}
    assert len(notes['train']) + len(notes['held_out']) == len(FEW) and not notes['train'] & notes['held_out']
    held = data.sets['held_out'][1]['pitch']
    assert len(held.unique()) > 2 and set(held.tolist()) & set(data.sets['train'][1]['pitch'].tolist()) # no pitch is kept from all instruments
    assert {k: v.tolist() for k, v in data.sets['held_out'][1].items()} == {k: v.tolist() for k, v in data.evaluator.labels.items()}

def test_real_notes_have_zero_distance_from_themselves(data):
    real, back = data.info['real'], data.info['reconstructed']
    assert real['frechet'] < 1e-6 < .1 < back['frechet'] and real['kl_pitch'] < 1e-6 < back['kl_pitch']
    assert finite(real) and finite(back)

def test_cross_entropy_is_the_mean_over_tokens(data):
    variant = train_transformer(NextToken, VARConfig.preset('tiny'), data, transformer_settings('tiny', 0, 1, data))[0]
    got, (tokens, labels) = cross_entropy(variant, data)['held_out'], data.sets['held_out']
    with torch.no_grad(): want = torch.nn.functional.cross_entropy(variant(tokens, labels).flatten(0, 1), torch.cat(tokens, 1).flatten())
    assert got['mean'] == pytest.approx(want.item(), abs=1e-5) and len(got['by_scale']) == 6

def test_generated_notes_do_not_depend_on_the_batch(data):
    variant = train_transformer(VAR, VARConfig.preset('tiny'), data, transformer_settings('tiny', 0, 1, data))[0]
    assert torch.allclose(generate_images(variant, data, 1), generate_images(variant, data, 1, batch_size=2), atol=1e-5)

def test_a_model_is_trained_once_and_reproducibly(data):
    cfg, train = VARConfig.preset('tiny'), transformer_settings('tiny', 3, 2, data)
    first = train_transformer(VAR, cfg, data, train)
    assert train_transformer(VAR, cfg, data, train) is first and train_transformer(NextToken, cfg, data, train)[0] is not first[0]
    data.trained.clear()
    again = train_transformer(VAR, cfg, data, train)
    assert again[1] == first[1] and torch.equal(again[0].head.weight, first[0].head.weight) and train.batch_size == min(32, len(data.sets['train'][0][0]))

def test_evenly_spaced():
    assert evenly_spaced(torch.arange(10), 4).tolist() == [0, 3, 6, 9] and evenly_spaced(torch.arange(3), 8).tolist() == [0, 1, 2]

@pytest.mark.parametrize('n', [4, 9, 63])
def test_too_few_notes_are_refused_before_training(n, monkeypatch):
    monkeypatch.setattr('mars.train.train_tokenizer', lambda *a, **k: pytest.fail('trained'))
    with pytest.raises(ValueError, match=f'at least 64 notes of the training instruments are needed, .* got {n}'): prediction_data(notes=FEW.select(range(n)), device='cpu')

def test_too_few_notes_to_evaluate_are_refused(data):
    with pytest.raises(ValueError, match='^at least 8 notes are needed for the evaluation, got 7'): sweep_data(data.model, notes=FEW, max_notes=7)
    with pytest.raises(ValueError, match='^at least 8 notes are needed for the evaluation, got 1'): sweep_data(data.model, notes=FEW.select([0]))

def test_a_sweep_records_whether_its_instruments_were_held_out(swept, data):
    assert swept.info['held_out'] is False # two instruments: none to spare
    many = AdditiveNotes(('guitar',), range(60, 68), (100,)) # three instruments: one of them is held back
    test = many.split_by_instrument(valid=.06, test=.14, seed=0)[2]
    out = sweep_data(data.model, notes=many, max_notes=8)
    assert out.info['held_out'] is True and out.info['evaluated'] == min(8, len(test)) and set(out.evaluator.labels['pitch'].tolist()) <= set(range(60, 68))

# --- time

def test_time_interleaved_alternates_the_calls():
    called = []
    took = time_interleaved(dict(a=lambda: called.append('a'), b=lambda: called.append('b')), 2)
    assert called == ['a', 'b']*3 and set(took) == {'a', 'b'} and min(took.values()) > 0

def test_the_upper_bound_is_the_ratio_of_passes():
    pair = [m(VARConfig.preset('tiny'), TokenizerConfig()).eval() for m in (VAR, NextToken)]
    out = speed_up(*pair, batches=(1,), repeats=1)
    assert out['passes'] == [10, 286] and out['ceiling'] == 28.6
    b = out['batches']['1']
    assert b['speed_up'] == pytest.approx(b['flat']/b['scale']) and b['share_of_ceiling'] == pytest.approx(b['speed_up']/28.6)

def test_each_step_of_the_ladder_records_its_passes_once(monkeypatch):
    "The cache of graphs, on a CPU that reports itself as a GPU and records nothing; steps of the ladder share models."
    class OnGPU(torch.nn.Parameter): is_cuda = True
    made, cfg = [], VARConfig.preset('tiny')
    model = VAR(cfg, TokenizerConfig.preset('tiny')).eval()
    model.start = OnGPU(model.start.data)
    def record(sampler):
        made.append((sampler.n, str(sampler.settings), sampler.var.head.weight.data_ptr()))
        return [SimpleNamespace(replay=partial(Sampler.run_pass, sampler, k)) for k in range(len(sampler.settings))]
    monkeypatch.setattr(mars.parts.inference, 'record_passes', record)
    samplings = {name: (model, sampling) for name, (make, norm, sampling) in ladder_steps(50).items() if norm}
    out = time_ladder(samplings, repeats=3, batches=(1, 2))
    assert [*out] == [*samplings] and all([*t] == ['seconds_1', 'seconds_2'] and min(t.values()) > 0 for t in out.values())
    assert len(made) == len(set(made)) == 2*len(samplings) and len({m[2] for m in made}) == len(samplings) and model.head.weight.data_ptr() not in {m[2] for m in made}
    made.clear()
    time_interleaved({name: (lambda w=w: generate(model, n=1, seed=0, **w)) for name, (_, w) in samplings.items()}, 3)
    assert len(made) == 4*len(samplings) # on one model each call would evict what another has recorded

def test_time_aar_layouts():
    out = time_aar_layouts(VARConfig.preset('tiny'), 'cpu', 1)
    assert {k: (v['passes'], v['tokens']) for k, v in out.items()} == dict(scale=(16, 455), flat=(455, 455), flat_750=(750, 750), delayed_750=(84, 840))

# --- the experiments

def test_steps_of_the_ladder_change_one_thing_each():
    samplings = [*ladder_steps(50).values()]
    assert [sum(a != b for a, b in zip(x, y)) for x, y in zip(samplings, samplings[1:])] == [1]*5
    assert samplings[-1][2] == dict(cfg_scale=2., top_k=50, top_p=.95)

def test_aar_top_k(data): assert aar_top_k(data) == 50 and data.model.tokenizer.cfg.codebook_size == 256

@pytest.mark.parametrize('name', ['order', 'ladder'])
def test_trained_experiments(name, data, tmp_path):
    out = run_experiment(name, seed=1, out=tmp_path/'r.json', data=data, steps=2, repeats=1, device='cpu')
    assert json.loads((tmp_path/'r.json').read_text()) == [json.loads(json.dumps(out))]
    assert finite(out) and out['seed'] == 1 and out['steps'] == 2 and out['info']['torch'] == torch.__version__
    assert [*out['variants']] == (['next-scale', 'next-token'] if name == 'order' else [*ladder_steps(50)])
    assert all(0 < a['ce']['held_out']['mean'] < 20 for a in out['variants'].values())

@pytest.mark.parametrize('name', ['labels', 'guidance'])
def test_sweeps(name, swept):
    out = run_experiment(name, data=swept, scales=(0., 3.), n_resamples=10, device='cpu')
    assert finite(out) and [*out['variants']] == (['0', '3'] if name == 'labels' else ['0 ramp', '3 ramp', '3 constant'])
    for a in out['variants'].values():
        for k, (low, high) in a['interval'].items(): assert low <= a[k] + 1e-9 and a[k] <= high + 1e-9, k
    again = run_experiment(name, data=swept, scales=(3.,), n_resamples=10, device='cpu')['variants']
    assert all(out['variants'][k] == v for k, v in again.items())

def test_the_command_lists_the_experiments():
    from mars.cli.dispatch import parser
    for name in ('cmx', *COMMITTED): assert parser().parse_args(['ablate', name]).name == name
    assert set(COMMITTED) <= set(EXPERIMENTS)

# --- the committed results

@pytest.mark.parametrize('name', COMMITTED)
def test_committed_results(name):
    runs = load_results(name, RESULTS)
    assert len({r['seed'] for r in runs}) == len(runs) >= (3 if name in ('order', 'ladder') else 1)
    for r in runs:
        assert r['experiment'] == name and r['preset'] == COMMITTED[name] and finite(r) and r['info']['wall_seconds'] > 0 and r['info']['device'].startswith('CPU')
        assert r['data']['source'] == 'SoundFontNotes' and [*r['variants']] == [*runs[0]['variants']] and (COMMITTED[name] == 'tiny' or all('interval' in a for a in r['variants'].values())) and r['data']['real']['frechet'] < 1e-6
