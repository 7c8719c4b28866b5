"""The MAGNeT experiments at unit-test size: properties that hold with little training; and the committed results."""
import json, math
from pathlib import Path
import pytest
import torch
import torch.nn.functional as F
import mars.studies.magnet
from mars.ablations import load_results, run_experiment
from mars.baselines.aar import SAT, SATConfig, WaveMars, rvq
from mars.data import AdditiveNotes
from mars.baselines.magnet import DelayPatternLM, MAGNeT
from mars.parts.config import EXPERIMENTS
from mars.studies.magnet import GUIDANCE, TRUNKS, token_agreement, train_frame_model, compare_motion, frame_data, leak, loudness
from mars.studies.magnet import span_cross_entropy, masked_cross_entropy, motion, select_moving_notes, part_calls, evaluate_variant
from mars.studies.magnet import span_masks, has_tremolo
from mars.pipeline import Mars
from mars.studies.prediction import transformer_settings
from mars.tokenizer import STRIPS, Tokenizer, TokenizerConfig

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
FEW = AdditiveNotes(('guitar_acoustic_800', 'flute_acoustic_800'), range(44, 76), (100,))
UNIT = dict(n_samples=16000, width=4, dimension=16, code_dim=8, codebook_size=32, lstm=1)
NAMES = ('decoding', 'spans', 'context', 'rescore', 'hybrid', 'parts')
K, T = 3, 50

@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return WaveMars(SAT(SATConfig.preset('tiny', **UNIT, **rvq(K, T))).warm_start(FEW.batch(range(0, 64, 4))[0][:, :16000].float()/32768))

@pytest.fixture(scope='module')
def data(model): return frame_data(tokenizer=model, notes=FEW, device='cpu', max_notes=8)

@pytest.fixture(scope='module')
def magnet(data): return train_frame_model(MAGNeT, data, 'tiny', transformer_settings('tiny', 0, 2, data))[0]

def finite(x): return all(map(finite, x.values() if isinstance(x, dict) else x)) if isinstance(x, (dict, list)) else not isinstance(x, float) or math.isfinite(x)

# --- what all variants share

def test_waves_are_evaluated_without_griffin_lim(data, model):
    assert data.info['real']['frechet'] < 1e-6 < data.info['reconstructed']['frechet']
    held = data.evaluator.labels['pitch']
    assert len(held) == 8 and torch.equal(held, data.sets['held_out'][1]['pitch'])
    wave = torch.rand(2, 16000) - .5
    features, logits = data.evaluator.embed(wave)
    assert torch.equal(features, data.evaluator.pca.embed(F.pad(wave, (0, 48000)))) and logits['pitch'].shape == (2, 128)

def test_a_folder_gives_the_same_tokens(data, model, tmp_path):
    model.save_pretrained(tmp_path)
    again = frame_data(tokenizer=tmp_path, notes=FEW, device='cpu', max_notes=8)
    assert all(torch.equal(a, b) for s in ('train', 'held_out') for a, b in zip(data.sets[s][0], again.sets[s][0]))

def test_a_tokenizer_is_trained_where_none_is_given(model, monkeypatch):
    seen = []
    monkeypatch.setattr(mars.studies.magnet, 'train_sat', lambda notes, train, cfg, **kw: seen.append((len(notes), train.steps, train.stage, cfg.lengths, cfg.n_phi)) or model.tokenizer)
    assert frame_data(notes=FEW, device='cpu', steps=7, max_notes=8).model.tokenizer is model.tokenizer
    assert seen == [(56, 7, 'sat', (200,)*6, 0)]

def test_scales_and_spectrograms_are_refused():
    with pytest.raises(ValueError, match='56 tokens in maps of 1 to 50'): frame_data(tokenizer=WaveMars(SAT(SATConfig.preset('tiny', **UNIT, lengths=(1, 5, 50), n_phi=1))), notes=FEW, device='cpu')
    with pytest.raises(ValueError, match='maps of equal length is needed'): frame_data(tokenizer=Mars(Tokenizer(TokenizerConfig.preset('tiny', **STRIPS))), notes=FEW, device='cpu')

def test_evaluations_are_cached(data, magnet, monkeypatch):
    a = evaluate_variant(magnet, data, 0, cfg_scale=1., steps=2)
    assert evaluate_variant(magnet, data, 0, steps=2, cfg_scale=1.) is a
    assert evaluate_variant(magnet, data, 1, cfg_scale=1., steps=2) != a != evaluate_variant(magnet, data, 0, cfg_scale=0., steps=2)
    two = [train_frame_model(DelayPatternLM, data, 'tiny', transformer_settings('tiny', s, 1, data), codebook_dropout=.5)[0] for s in (0, 1)]
    b, c = (evaluate_variant(magnet, data, 0, steps=3, rescorer=d, rescore_weight=0.) for d in two)
    assert b is not c # rescorers that look alike are two

# --- leaking

class CopyNeighbour(torch.nn.Module):
    "Predicts the token of the nearest visible frame within `reach`."
    n_frames, lengths = 200, [200]
    def __init__(self, reach): super().__init__(); self.reach = reach
    def forward(self, tokens, labels, stage, masked):
        t = tokens[stage]
        y = torch.zeros(*t.shape, 32)
        for d in sorted(range(-self.reach, self.reach+1), key=abs, reverse=True):
            if d: y = torch.where((~masked.roll(d, 1))[..., None], 50.*F.one_hot(t.roll(d, 1), 32), y)
        return y

@pytest.mark.parametrize('reach, hidden', [(1, 3), (2, 5), (5, 11)])
def test_leak_rises_where_the_span_hides_what_the_model_used(reach, hidden):
    found = leak(CopyNeighbour(reach), [torch.full((3, 200), 4)], {})
    for L, (nats,) in zip(found['spans'], found['nats']): assert nats == pytest.approx(math.log(32) if L >= hidden else 0, abs=1e-4)

def test_leak_of_a_real_model_uses_the_same_tokens(data, magnet, monkeypatch):
    seen = []
    real = mars.studies.magnet.masked_cross_entropy
    monkeypatch.setattr(mars.studies.magnet, 'masked_cross_entropy', lambda model, tokens, labels, stage, masked: seen.append((stage, masked[0].nonzero().flatten().tolist())) or real(model, tokens, labels, stage, masked))
    found = leak(magnet, *data.sets['held_out'], spans=(1, 3), spacing=20)
    assert seen == [(k, at) for at in ([10, 30], [9, 10, 11, 29, 30, 31]) for k in range(K)] and torch.tensor(found['nats']).shape == (2, K)
    with pytest.raises(ValueError, match='spans of 21 frames every 20'): leak(magnet, *data.sets['held_out'], spacing=20)

def test_scores_equal_those_of_the_loss(data, magnet):
    tokens, labels = data.sets['held_out']
    stage, masked, _ = magnet.mask_sampler(8)
    with torch.no_grad(): want = magnet.loss(tokens, labels)[0].item()
    got = torch.stack([masked_cross_entropy(magnet, [t[i:i+1] for t in tokens], {k: v[i:i+1] for k, v in labels.items()}, stage[i].item(), masked[i:i+1])[0] for i in range(8)])
    assert got[masked].mean().item() == pytest.approx(want, abs=1e-5)

@pytest.mark.parametrize('span', [1, 3, 10])
def test_span_masks(span):
    m = span_masks(3000, 200, span)
    assert torch.equal(m, span_masks(3000, 200, span)) and m.any(1).all() and abs(m.float().mean() - 2/math.pi) < .02
    runs = (m & ~F.pad(m, (1, 0))[:, :-1]).sum(1)
    assert (m[:, :-span].sum(1) >= span*(m[:, :-span] & ~F.pad(m, (1, 0))[:, :-1][:, :-span]).sum(1) - span).all() and runs.min() >= 1

def test_masked_ce(data, magnet):
    a = span_cross_entropy(magnet, data, 3)
    assert a['mean'] == pytest.approx(sum(a['by_stage'])/K) and 0 < a['mean'] < 5 and span_cross_entropy(magnet, data, 3) == a != span_cross_entropy(magnet, data, 1)

def test_agreement():
    blocks = torch.randint(32, (50, 20)).repeat_interleave(10, 1)
    found = token_agreement([blocks, torch.randint(32, (2000, 200))], (1, 5, 10))
    assert [round(found[str(lag)][0], 1) for lag in (1, 5, 10)] == [.9, .5, 0] and max(abs(v[1]) for v in found.values()) < .005

# --- motion

def tone(period=None, decay=0., depth=.3, seconds=4, f=220.):
    t = torch.arange(16000*seconds, dtype=torch.double)/16000
    return .5*(2*math.pi*f*t).sin()*10**(-decay*t/20)*(1 + (depth*(2*math.pi*t/period).sin() if period else 0))

@pytest.mark.parametrize('period', [.12, .17, .25, .4])
@pytest.mark.parametrize('decay', [0., 10.])
def test_motion_finds_known_tremolo_and_decay(period, decay):
    m = motion(tone(period, decay)[None])
    assert m['period'].item() == pytest.approx(period, abs=.011) and m['decay'].item() == pytest.approx(decay, abs=.6) and has_tremolo(m).item()

def test_motion_finds_no_tremolo_in_a_steady_tone():
    m = motion(torch.stack([tone(decay=5.), tone(), torch.zeros(64000, dtype=torch.double)]))
    assert not has_tremolo(m).any() and m['depth'].max() < .1 and finite(m['strength'].tolist())
    assert loudness(torch.zeros(1, 16000)).eq(-80).all()
    with pytest.raises(ValueError, match='waves of at least a second'): motion(torch.zeros(1, 8000))

def test_moving_notes_and_their_comparison(data, model):
    moving = select_moving_notes(data.notes, model, 8)
    assert len(moving.labels['pitch']) == 8 == len(moving.real['decay']) and moving.half == 4
    rest = motion(model.wave_to_image(data.notes.batch(range(56))[0]))['decay']
    assert moving.real['decay'][4:].min() >= rest.sort(descending=True).values[7] - 1e-9 # at most four steeper ones stand in the first half
    same = compare_motion(moving.real, moving)
    assert same['decay_error'] == 0 and same['same_period'] == same['tremolo']
    from types import SimpleNamespace
    made = lambda period: motion(torch.stack([tone(period)]*2 + [tone(decay=12.)]*2))
    known = SimpleNamespace(real=made(.2), half=2)
    assert compare_motion(made(.2), known)['same_period'] == 1 and compare_motion(made(.3), known) ['same_period'] == 0 == compare_motion(made(None), known)['tremolo']

# --- time

def test_calls_of_the_parts_are_counted(magnet, model):
    calls = part_calls(magnet, model.tokenizer, 2, 1., steps=[4, 3, 2])
    assert {k: often for k, (_, often) in calls.items()} == {'trunk, first stage': 4, 'trunk, later stages': 5, 'heads and sampling': 9, 'remasking': 6, 'decoder': 1}
    shapes = {k: f() for k, (f, _) in calls.items()}
    assert shapes['trunk, first stage'].shape == (4, T, 64) and shapes['remasking'].shape == (2, T) and shapes['decoder'].shape == (2, 16000)

def test_part_counts_equal_the_calls_of_a_generation(magnet, model, monkeypatch):
    seen = []
    for name in ('hidden_states', 'codebook_logits'): monkeypatch.setattr(MAGNeT, name, lambda self, *a, f=getattr(MAGNeT, name), name=name: seen.append(name) or f(self, *a))
    magnet.generate(dict(pitch=60), 1, seed=0, steps=[4, 3, 2])
    assert seen.count('hidden_states') == seen.count('codebook_logits') == 9

# --- the experiments

OPTIONS = dict(spans=dict(spans=(1, 3), leak_spans=(1, 3), spacing=20), context={}, rescore=dict(weights=(1., 0.), batches=(1,), repeats=1), hybrid=dict(prompts=(0, 12), batches=(1,), repeats=1),
            parts=dict(batches=(1,), guidances=(0.,), repeats=1), decoding=dict(scales=(0.,)))
VARIANTS = dict(spans=['1', '3'], context=['5', '0'], rescore=['1', '0'], hybrid=['0', '12', 'next-token'], decoding=[*dict.fromkeys(f'{s:g}' for s in sorted({0., GUIDANCE})), 'stride1', 'half the steps', 'temperature 1'])

@pytest.mark.parametrize('name', NAMES)
def test_experiments(name, data, tmp_path):
    out = run_experiment(name, seed=0, out=tmp_path/'r.json', data=data, steps=2, device='cpu', **OPTIONS[name])
    assert json.loads((tmp_path/'r.json').read_text()) == [json.loads(json.dumps(out))]
    assert finite(out) and out['experiment'] == name and out['steps'] == 2 and out['trunk'] == TRUNKS['tiny']
    if name == 'parts':
        size = out['sizes']['tiny, 3 codebooks']
        assert size['passes'] == dict(magnet=40, delayed=52, flat=150) and all(t['speed_up']['magnet'] == 1 for t in size['times'].values())
    else: assert [*out['variants']] == VARIANTS[name] and all(a['frechet'] > 0 for a in out['variants'].values())

def test_one_model_is_in_four_experiments(data):
    "The default model, trained once: its scores do not depend on the experiment."
    spans, context, rescore, decoding = (run_experiment(n, data=data, steps=2, device='cpu', **OPTIONS[n])['variants'] for n in ('spans', 'context', 'rescore', 'decoding'))
    assert spans['3']['frechet'] == context['5']['frechet'] == rescore['1']['frechet'] == decoding[f'{GUIDANCE:g}']['frechet']
    assert spans['3']['ce']['3'] == context['5']['ce'] and spans['1']['ce'] != spans['3']['ce'] and context['0']['ce'] != context['5']['ce']
    assert rescore['0']['frechet'] != rescore['1']['frechet']

def test_experiments_are_registered(): assert set(NAMES) <= set(EXPERIMENTS)

# --- the committed results

@pytest.mark.parametrize('name', NAMES)
def test_committed_results(name):
    runs = load_results(name, RESULTS)
    assert len({r['seed'] for r in runs}) == len(runs) >= 1
    for r in runs:
        assert r['experiment'] == name and r['preset'] == 'tiny' and finite(r) and r['info']['wall_seconds'] > 0 and r['info']['device'].startswith('CPU')
        assert r['data']['source'] == 'SoundFontNotes' and r['data']['tokenizer']['lengths'] == [200]*6 and r['data']['real']['frechet'] < 1e-6 and r['steps'] == runs[0]['steps']
        if name != 'parts': assert [*r['variants']] == [*runs[0]['variants']] and r['guidance'] == GUIDANCE
