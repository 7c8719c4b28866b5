"""The SAT experiments at unit-test size: properties that hold with little training; and the committed results."""
import json, math
from dataclasses import replace
from pathlib import Path
import pytest
import torch
from mars.baselines.aar import SATDiscriminatorConfig, SATConfig
from mars.ablations import load_results, run_experiment
from mars.data import AdditiveNotes
from mars.parts.config import EXPERIMENTS
from mars.studies.sat import PeriodAdversarialLoss, PeriodDiscriminatorConfig, PeriodDiscriminator, WAVE_CONFIGS, StudyTrainingModule
from mars.studies.sat import WaveVariant, WindowedSAT, cost_metrics, wave_train_settings, clip_features, gradient_scale, seam_jump
from mars.studies.sat import discriminator_variants, scale_list_variants, init_tokenizer, design_variants, phi_variants, rvq_variants, prior_data
from mars.studies.sat import token_entropy, train_wave_variant, wave_data, wave_metrics, width_variants, window_variants

RESULTS = Path(__file__).resolve().parent.parent/'results'/'studies'
BODY = dict(n_samples=3200, ratios=(4, 4, 2, 2), width=2, dimension=16, lstm=1, code_dim=4, codebook_size=16)
CFG, FULL = SATConfig(**BODY), SATConfig(**WAVE_CONFIGS['tiny'])
FEW = AdditiveNotes(None, (60, 67), (100,))
NAMES = 'sat-scales', 'sat-rvq', 'sat-width', 'sat-discriminators', 'sat-windows', 'sat-sharing', 'sat-design'

@pytest.fixture(scope='module')
def data(): return wave_data(notes=FEW, device='cpu')

def short(name, data, **kwargs): return run_experiment(name, data=data, steps=2, repeats=1, device='cpu', **BODY, **kwargs)

def finite(x): return all(map(finite, x.values() if isinstance(x, dict) else x)) if isinstance(x, (dict, list)) else not isinstance(x, float) or math.isfinite(x)

# --- variants

def test_every_claim_has_an_experiment(): assert set(NAMES) <= set(EXPERIMENTS)

def test_scale_lists_of_the_paper_and_of_equal_length():
    variants = scale_list_variants(FULL, 'tiny')
    n = {name: variant.n_tokens for name, variant in variants.items()}
    assert n['quadratic, 16'] == FULL.n_tokens == 309 and n['logarithmic, 8'] < n['logarithmic, 16'] < n['quadratic, 16'] < n['linear, 16']
    assert abs(n['linear, 12'] - n['quadratic, 16']) <= 8 and len(variants) == 5

def test_plain_codebooks_at_equal_and_more_bits():
    variants = rvq_variants(FULL, 'tiny')
    assert [a.n_tokens for a in variants.values()] == [309, 300, 500] and variants['RVQ, 6'].cfg.n_phi == 0
    assert abs(variants['RVQ, 6'].kbps/variants['SAT'].kbps - 1) < .05 and variants['SAT'].kbps == pytest.approx(309*6/.5/1000)

def test_latents_keep_the_proportions_of_the_released_ones():
    assert [(a.cfg.dimension, a.cfg.code_dim) for a in width_variants(FULL, 'tiny').values()] == [(32, 8), (128, 8), (16, 16), (32, 2)]
    assert len(width_variants(SATConfig(**WAVE_CONFIGS['small']), 'small')) == 4

@pytest.mark.parametrize('preset', ['tiny', 'small'])
def test_discriminators_of_the_variants(preset):
    configs = [a.discriminator for a in discriminator_variants(FULL, preset).values()]
    assert configs[0] is None and [len(c.windows) for c in configs[1:]] == [5, 2, 5] and isinstance(configs[3], PeriodDiscriminatorConfig)

def test_windows_and_whole_clips_of_equal_length():
    variants = window_variants(FULL, 'tiny')
    assert {a.n_samples for a in variants.values()} == {16000} and [a.n_tokens for a in variants.values()] == [618, 618, 600]
    assert variants['whole, list x 2'].cfg.lengths[0] == 2 and variants['whole, own list'].cfg.lengths[0] == 1 and variants['whole, own list'].cfg.n_frames == 100

def test_convolutions_of_the_variants(): assert [len(init_tokenizer(replace(a, init='torch'), torch.zeros(1, 8000)).quantizer.phi) for a in phi_variants(FULL, 'tiny').values()] == [6, 0, 1, 16]

def test_each_design_variant_changes_one_thing():
    base, *rest = design_variants(FULL, 'tiny').values()
    for variant in rest: assert sum(getattr(variant, k) != getattr(base, k) for k in ('cfg', 'windows', 'discriminator', 'init', 'per_scale_gradient', 'revive')) == 1

# --- parts of the variants

@pytest.mark.parametrize('windows', [1, 2, 4])
@torch.no_grad()
def test_windows_are_coded_independently(data, windows):
    clips = data.clips('train', 3200*windows)[:3]
    tok = init_tokenizer(WaveVariant(CFG, windows), clips).eval()
    one = WindowedSAT(CFG).eval(); one.load_state_dict(tok.state_dict())
    tokens, other = tok.encode(clips), clips.clone()
    assert [t.shape for t in tokens] == [(3*windows, n) for n in CFG.lengths]
    assert torch.allclose(tok.decode(tokens)[:, -3200:], one.decode(one.encode(clips[:, -3200:])), atol=1e-5)
    other[:, -3200:] = 0; other[:, -1] = .1
    assert torch.allclose(tok.decode(tok.encode(other))[:, :-3200], tok.decode(tokens)[:, :-3200], atol=1e-5)
    assert torch.allclose(tok(clips)[0].clamp(-1, 1), tok.decode(tokens), atol=1e-4)

@pytest.mark.parametrize('lengths', [(), (1, 5, 18, 50), (50, 50)])
def test_the_gradient_of_a_step_for_every_scale(data, lengths):
    cfg, clips = replace(CFG, lengths=lengths), data.clips('train', 3200)[:2]
    one, each = (init_tokenizer(WaveVariant(cfg, per_scale_gradient=e), clips) for e in (False, True))
    assert gradient_scale(one, clips) == pytest.approx(1, abs=1e-5) and gradient_scale(each, clips) == pytest.approx(len(cfg.lengths), rel=1e-4)
    with torch.no_grad(): assert torch.equal(one(clips)[0], each(clips)[0])

def test_initialisations(data):
    clips = data.clips('train', 3200)[:8]
    toks = {s: init_tokenizer(WaveVariant(CFG, init=s), clips) for s in ('data', 'calibrated', 'torch')}
    with torch.no_grad(): spread = {s: t.latent(clips).std((0, 2, 3)).mean().item() for s, t in toks.items()}
    assert spread['data'] == pytest.approx(1, abs=1e-2) and spread['calibrated'] == pytest.approx(1, abs=1e-2) and spread['torch'] < .5
    assert torch.equal(toks['calibrated'].quantizer.codebook, toks['torch'].quantizer.codebook) and not torch.equal(toks['data'].quantizer.codebook, toks['calibrated'].quantizer.codebook)
    with pytest.raises(ValueError, match="init must be one of data, calibrated, torch, got 'x'"): WaveVariant(CFG, init='x')

@pytest.mark.parametrize('period', [2, 3, 7])
def test_a_period_discriminator_runs_along_its_period(period):
    torch.manual_seed(0)
    disc, wave = PeriodDiscriminator(period, 2), torch.randn(1, 210, requires_grad=True)
    logits, maps = disc(wave)
    g, = torch.autograd.grad(logits[..., 1].sum(), wave)
    assert set(g[0].nonzero().flatten().remainder(period).tolist()) == {1} and len(maps) == 4
    assert disc(torch.randn(2, 211))[0].shape[0] == 2 # of any length

def test_discriminators_of_both_kinds(data):
    clips, cfg = data.clips('train', 3200)[:2], PeriodDiscriminatorConfig.preset('tiny', periods=(2, 5), windows=(128,), width=2, start=0., warmup=0)
    module = StudyTrainingModule(init_tokenizer(WaveVariant(CFG), clips), wave_train_settings('tiny', 0, 4), cfg)
    assert isinstance(module.adversary, PeriodAdversarialLoss) and len(module.adversary.disc(clips)) == 3
    module.step = 1
    loss, metrics = module(clips)
    loss.backward()
    assert {'gen_loss', 'feature_loss'} <= metrics.keys() and module.adversary.update(1, *module.recent[0])['disc_loss'] > 0
    assert type(StudyTrainingModule(init_tokenizer(WaveVariant(CFG), clips), wave_train_settings('tiny', 0, 4), SATDiscriminatorConfig.preset('tiny', windows=(128,))).adversary).__name__ == 'SATAdversarialLoss'
    with pytest.raises(ValueError, match='at least 2 samples'): PeriodDiscriminatorConfig(periods=())

# --- metrics

def test_notes_of_other_instruments(data):
    assert len(data.train) == len(data.labels['train']['pitch']) and data.info['train_instruments'] and len(data.test) > 8
    assert data.clips('test', 100).abs().max() <= 1 and data.clips('train', 3200).abs().amax(1).min() > .009
    assert not any(torch.equal(a, b) for a in data.train for b in data.test)

def test_an_exact_copy_has_no_error(data):
    class Copy:
        windows, cfg = 1, CFG
        def encode(self, x): self.seen = getattr(self, 'seen', []) + [x]; return [torch.zeros(len(x), n).long() for n in CFG.lengths]
        def decode(self, t): return self.seen.pop(0)
    clips = data.clips('test', 3200)
    e = wave_metrics(Copy(), clips)
    assert e['mel'] == e['db_active'] == e['stft'] == 0 and e['frechet'] < 1e-9 and e['used'] == 1/16 and e['perplexity'] == pytest.approx(1)

def test_jumps_at_seams():
    x = torch.sin(torch.arange(1000)/50)[None].repeat(2, 1)
    y = x.clone(); y[:, 500:] += .5
    assert seam_jump(y, 2) > 20 and seam_jump(y, 5) < 2   # a jump elsewhere is none at the seams
    z = torch.randn(4, 4000, generator=torch.Generator().manual_seed(0))
    assert seam_jump(z, 400) == pytest.approx(1, abs=.1)

def test_features_of_clips_of_any_length():
    x = torch.randn(3, 8000)*.1
    assert clip_features(x).shape == clip_features(x[:, :3200]).shape == (3, 16)

def test_entropy_of_tokens():
    half = [torch.tensor([[0, 0], [1, 1]]), torch.zeros(2, 6, dtype=torch.long)]
    assert token_entropy(half, 4) == pytest.approx(math.log(2)*2/8, abs=1e-6)

def test_costs_cover_the_whole_step(data):
    base = WaveVariant(CFG)
    gan = replace(base, discriminator=SATDiscriminatorConfig.preset('tiny', windows=(128,), width=2, start=.5))
    facts = cost_metrics(dict(base=base, gan=gan, two=replace(base, windows=2), lstm=replace(base, cfg=replace(CFG, lstm=2))), data, wave_train_settings('tiny', 0), repeats=1)
    g = {k: f['gflop'] for k, f in facts.items()}
    assert g['gan'] > g['base'] and g['two'] == pytest.approx(2*g['base'], rel=.02)
    # a layer of an LSTM with 32 channels: 8*32*32 multiplications a frame, forwards and twice backwards, in encoder and decoder
    assert g['lstm'] - g['base'] == pytest.approx(2*50*8*32*32*2*3/1e9, rel=.05)
    assert facts['gan']['parameters'] == facts['base']['parameters'] and all(f['step_seconds'] > 0 for f in facts.values())

def test_a_variant_is_trained_once_and_reproducibly(data):
    variant, train = WaveVariant(CFG), wave_train_settings('tiny', 3, 3)
    tok, curve, _ = train_wave_variant(variant, data, train)
    assert train_wave_variant(variant, data, train)[0] is tok and len(curve) == 3
    data.trained.clear()
    again = train_wave_variant(variant, data, train)
    assert again[1] == curve and all(torch.equal(a, b) for a, b in zip(tok.state_dict().values(), again[0].state_dict().values()))

def test_no_revival(data):
    train = replace(wave_train_settings('tiny', 0, 6), revive_every=1, revive_patience=1)
    a, b = (train_wave_variant(WaveVariant(CFG, revive=r), data, train)[0] for r in (True, False))
    assert not torch.equal(a.quantizer.codebook, b.quantizer.codebook)

def test_the_transformer_is_not_trained_on_the_requested_notes(data):
    sets, clips = prior_data(init_tokenizer(WaveVariant(CFG), data.clips('train', 3200)).eval(), WaveVariant(CFG), data)
    n = {k: len(t[0]) for k, (t, _) in sets.items()}
    assert n['train'] + n['held_out'] == len(data.train) and n['held_out'] == len(clips) and n['new_instruments'] == len(data.test)
    assert torch.equal(sets['held_out'][1]['pitch'], data.labels['train']['pitch'][n['train']:])
    assert not any(torch.equal(a, b) for a in clips for b in data.clips('train', 3200)[:n['train']])

# --- whole experiments

@pytest.mark.parametrize('name', ['sat-rvq', 'sat-sharing', 'sat-design'])
def test_run_experiment(data, name, tmp_path):
    result = short(name, data, out=tmp_path/f'{name}.json')
    assert finite(result) and load_results(name, tmp_path, 'tiny') == [json.loads(json.dumps(result))]
    variants = result['variants']
    assert variants[result['base']]['time_ratio'] == 1 and all(len(a['curve']) == 2 and a['mel'] > 0 and 0 < a['used'] <= a['attainable'] <= 1 for a in variants.values())
    if name == 'sat-design':
        assert {k: round(a['gradient']) for k, a in variants.items()} == {k: 16 if 'per scale' in k else 1 for k in variants}
        assert variants['default']['curve'][0] == variants['straight-through per scale']['curve'][0] != variants['PyTorch initialisation']['curve'][0]
    if name == 'sat-sharing': assert all(0 < a['ce'] < 10 and a['learned'] == pytest.approx(a['entropy'] - a['ce']) and a['generated'] > 0 and a['reconstructed'] > 0 for a in variants.values())

def test_windows_are_measured_at_their_seams(data):
    variants = short('sat-windows', data)['variants']
    assert all(a['jump'] > 0 and a['jump_real'] == variants['2 windows']['jump_real'] for a in variants.values())

def test_command_line(tmp_path):
    from mars.cli import main
    if main(['ablate', 'sat-rvq', '--steps', '1', '--device', 'cpu', '--out', str(tmp_path/'x.json')]) == 2: pytest.fail('the command does not know sat-rvq')
    assert json.loads((tmp_path/'x.json').read_text())[0]['steps'] == 1

# --- the committed results

@pytest.mark.parametrize('name', NAMES)
def test_committed_results(name):
    runs = load_results(name, RESULTS, 'tiny')
    assert [r['seed'] for r in runs] == [*range(len(runs))] and len({(r['steps'], r['batch_size'], json.dumps(r['data'])) for r in runs}) == 1
    own = dict(zip(NAMES, (scale_list_variants, rvq_variants, width_variants, discriminator_variants, window_variants, phi_variants, design_variants)))[name](FULL, 'tiny')
    for r in runs:
        assert finite(r) and [*r['variants']] == [*own] and r['experiment'] == name and 'SoundFont' in r['data']['source'] and r['data']['test_instruments'] >= 10
        for k, a in r['variants'].items(): assert a['tokens'] == own[k].n_tokens and a['lengths'] == list(own[k].cfg.lengths) and len(a['curve']) == r['steps'] and a['mel'] < 45
