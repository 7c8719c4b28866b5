"Masked prediction: masks, no leak, passes, agreement of training and generation, seeds, errors, at unit-test size."
import math
import pytest
import torch
from test_var import ALL, CFG, MODELS, SMALL, Tape, draw, flat, make as make_var
from mars.baselines.aar import SATConfig
from mars.data import AdditiveNotes
from mars.parts.inference import generate
from mars.baselines.masked import MaskedSampler, MaskedScale, mask_spans, masked_counts, passes_per_scale
from mars.baselines.next_token import NextToken
from mars.parts.codec import Codec
from mars.parts.config import pipeline_of
from mars.parts.device import cast_network
from mars.parts.product import ProductTokenizerConfig
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, train_var
from mars.parts.sampling import note_uniforms, scale_settings
from mars.parts.reference import ReferenceVARConfig
from mars.var import VAR, VARConfig

def make(tok_cfg=CFG, sharp=50., **kwargs):
    "The random model of test_var with masked prediction, where known tokens influence the output."
    torch.manual_seed(0)
    kind = pipeline_of(tok_cfg)
    model = kind.transformer(MaskedScale)(VARConfig.preset('tiny', **{'gamma_init': 1., **kwargs}), tok_cfg).eval()
    with torch.no_grad():
        if isinstance(tok_cfg, TokenizerConfig): model.bind(kind.tokenizer_cls(tok_cfg))
        model.head.weight.mul_(sharp)
    return model

TWO = ProductTokenizerConfig.preset('tiny', **SMALL, branches=2)
WIDE = TokenizerConfig.preset('tiny', **{**SMALL, 'scales': (3, 4)}) # a first scale of several passes
WAVE = SATConfig.preset('tiny', n_samples=16000, lengths=(50,)*3, n_phi=0, codebook_size=32, code_dim=8, width=4, dimension=16) # residual codebooks over time
CFGS = dict(square=CFG, two=TWO, wide=WIDE, wave=WAVE)

@pytest.fixture(scope='module')
def model(): return make()

def drawn(m, B=3): return [torch.randint(m.tok_cfg.codebook_size, (B, n, *[2]*(m.tok_cfg is TWO))) for n in m.lengths]

# --- masks

@pytest.mark.parametrize('shape', [(1, 1), (1, 5), (5, 1), (4, 4), (32, 2), (3, 7)])
def test_the_masked_share_is_exact(shape):
    rate, n = torch.linspace(0, 1, 65), math.prod(shape)
    mask = mask_spans(shape, rate)
    assert mask.shape == (65, n) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [max(1, math.ceil(r*n)) for r in rate.tolist()]

@pytest.mark.parametrize('shape, long', [((1, 24), 1), ((24, 1), 0), ((24, 2), 0), ((6, 24), 1), ((12, 12), 1)])
def test_spans_lie_along_the_longer_side(shape, long):
    "Three masked cells are one span, or several where the edge cuts one."
    mask = mask_spans(shape, torch.full((200,), 3/math.prod(shape))).view(200, *shape)
    line = mask.sum(1 + long)
    whole = line.amax(1) == 3
    assert whole.float().mean() > .7
    steps = mask.long().diff(dim=1 + long, prepend=torch.zeros_like(mask.narrow(1 + long, 0, 1)).long())
    assert ((steps > 0).sum((1, 2)) == 1).float().mean() > .7

def test_single_cells_and_seeded_masks():
    g = lambda seed: torch.Generator().manual_seed(seed)
    r = torch.full((100,), .5)
    assert torch.equal(mask_spans((8, 8), r, 3, g(1)), mask_spans((8, 8), r, 3, g(1))) and not torch.equal(mask_spans((8, 8), r, 3, g(1)), mask_spans((8, 8), r, 3, g(2)))
    lone = lambda m: (m[:, 1:-1] & ~m[:, :-2] & ~m[:, 2:]).sum()
    assert lone(mask_spans((1, 64), r, 1)) > 5*lone(mask_spans((1, 64), r, 3))

def test_masks_of_a_batch(model):
    "Rates differ between notes and scales, with the mean of the cosine; small maps are fully masked."
    torch.manual_seed(0)
    known = model.sample_known(3000)
    assert not known[0].any() and not known[1].any() # of 1 and 4 tokens
    share = torch.stack([(~k).float().mean(1) for k in known[2:]])
    assert (share > 0).all() and ((share.mean(1) - 2/math.pi).abs() < .05).all()
    assert torch.corrcoef(share)[0, 1].abs() < .1

# --- order

def test_weights_equal_those_of_var_and_one_layer():
    a, b = make(), make_var()
    extra = {k for k in a.state_dict() if k not in b.state_dict()}
    assert extra == {'known_embed.weight', 'known_embed.bias'} and not {*b.state_dict()} - {*a.state_dict()}
    for k, v in b.state_dict().items(): assert k.startswith('quantizer') or torch.equal(a.state_dict()[k], v), k # and drawn alike
    assert MaskedScale.system == 'masked-scale' and len({MaskedScale.system, VAR.system, NextToken.system}) == 3

@pytest.mark.parametrize('name', CFGS)
@torch.no_grad()
def test_masked_tokens_do_not_leak(name):
    "Logits up to scale k do not depend on the masked tokens of scale k."
    m = make(CFGS[name])
    tokens, known = drawn(m), m.sample_known(3)
    for k, (t, seen) in enumerate(zip(tokens, known)):
        wide = seen if m.tok_cfg is not TWO else seen[..., None]
        other = [*tokens[:k], torch.where(wide, t, (t + 1) % m.tok_cfg.codebook_size), *tokens[k+1:]]
        moved = (m(other, ALL, known) - m(tokens, ALL, known)).abs().flatten(2).amax(2).split(m.lengths, 1)
        assert all(x.max() == 0 for x in moved[:k+1])
        if k+1 < len(tokens): assert (moved[k+1].amax(1) > 0).all()

@pytest.mark.parametrize('name', CFGS)
@torch.no_grad()
def test_a_known_token_changes_its_scale(name):
    m = make(CFGS[name])
    tokens, k = drawn(m), len(m.lengths) - 1
    known = [torch.zeros(3, n, dtype=torch.bool) for n in m.lengths]
    none = m(tokens, ALL, known)
    assert torch.equal(none, m(tokens, ALL))
    known[k][:, 0] = True
    one = m(tokens, ALL, known)
    assert ((one - none).abs().flatten(2).amax(2).split(m.lengths, 1)[k] > 0).all()
    tokens[k][:, 0] = (tokens[k][:, 0] + 1) % m.tok_cfg.codebook_size
    assert ((m(tokens, ALL, known) - one).abs().flatten(2).amax(2).split(m.lengths, 1)[k] > 0).all()

def test_the_loss_is_that_of_masked_tokens(model):
    tokens, known = drawn(model), model.sample_known(3)
    loss, per = model.loss(tokens, ALL, known)
    ce = torch.nn.functional.cross_entropy(model(tokens, ALL, known).flatten(0, 1), flat(tokens).flatten(), reduction='none')
    masked = ~flat(known)
    torch.testing.assert_close(loss, ce[masked.flatten()].mean())
    torch.testing.assert_close(per['loss'][3], ce.view(3, -1)[:, 14:][masked[:, 14:]].mean())
    assert per['loss'].shape == per['accuracy'].shape == (4,)
    assert model.loss(tokens, ALL)[0] == model.loss(tokens, ALL)[0] # in evaluation the masks are fixed
    model.train()
    try: assert model.loss(tokens, ALL)[0] != model.loss(tokens, ALL)[0]
    finally: model.eval()
    loss, per = make(TWO).loss(drawn(make(TWO)), ALL)
    assert loss.isfinite() and per['loss'].shape == (4,)

def test_gradients_reach_all_weights():
    m = make(sharp=1.).train()
    m.loss(drawn(m), ALL)[0].backward()
    assert [n for n, p in m.named_parameters() if p.grad is None or not p.grad.any()] == []

# --- passes

def test_step_counts():
    for n in range(1, 70):
        for steps in {1, 2, min(n, 8), n}:
            if steps > n: continue
            left = masked_counts(n, steps) + [0]
            assert left[0] == n and len(left) == steps+1 and all(a > b for a, b in zip(left, left[1:]))
    assert masked_counts(64, 8) == [64, 62, 59, 53, 45, 35, 24, 12]

def test_default_and_requested_passes(model):
    assert passes_per_scale(model.lengths) == [1, 1, 4, 4] and model.n_passes == 10
    assert passes_per_scale([1, 2, 4, 8, 32, 64]) == [1, 1, 1, 4, 6, 8]
    for steps, want in ((6, [1, 1, 6, 6]), (100, [1, 1, 9, 16]), ([1, 1, 2, 3], [1, 1, 2, 3])): assert passes_per_scale(model.lengths, steps) == want

@pytest.mark.parametrize('name', CFGS)
@pytest.mark.parametrize('kwargs', [dict(temperature=0), dict(cfg_scale=2., top_k=20, top_p=.9), dict(temperature=.7, cfg_scale=1., cfg_ramp=False)])
@torch.no_grad()
def test_one_pass_per_scale_is_next_scale(name, kwargs):
    m = make(CFGS[name])
    v = pipeline_of(m.tok_cfg).transformer(VAR)(m.cfg, m.tok_cfg).eval()
    v.load_state_dict({k: x for k, x in m.state_dict().items() if not k.startswith('known')})
    assert torch.equal(flat(m.generate(ALL, steps=1, seed=3, **kwargs)), flat(v.generate(ALL, seed=3, **kwargs)))

def trace(m, *args, **kwargs):
    "A generation; for each scale its passes (tokens, known ones); the logits of all passes."
    seen, scores, see, score = [[] for _ in m.lengths], [], m.embed_known, m.logits
    m.embed_known = lambda k, tokens, known: seen[k].append((tokens, known)) or see(k, tokens, known)
    m.logits = lambda h: scores.append(score(h)) or scores[-1]
    try: made = m.generate(*args, **kwargs)
    finally: del m.embed_known, m.logits
    return made, seen, scores

@pytest.mark.parametrize('name', CFGS)
@pytest.mark.parametrize('cfg_scale', [0., 2.5])
@torch.no_grad()
def test_generation_agrees_with_teacher_forcing(name, cfg_scale):
    m = make(CFGS[name], sharp=10.)
    made, seen, scores = trace(m, ALL, seed=1, cfg_scale=cfg_scale)
    assert len(scores) == m.n_passes
    known = [s[-1][1] if s else torch.zeros(3, n, dtype=torch.bool) for s, n in zip(seen, m.lengths)]
    last = torch.cat([scores[i-1] for i in torch.tensor(passes_per_scale(m.lengths)).cumsum(0)], 1)
    s = torch.tensor([v[0] for v in scale_settings(len(m.lengths), m.tok_cfg.codebook_size, cfg_scale)])[m.scale_index][:, None]
    if m.tok_cfg is TWO: s = s[..., None]
    torch.testing.assert_close(last, (1+s)*m(made, ALL, known) - s*m(made, {}, known), atol=1e-4, rtol=0)

@pytest.mark.parametrize('name', CFGS)
@torch.no_grad()
def test_kept_tokens_stay_and_are_the_most_probable(name):
    m = make(CFGS[name])
    made, seen, scores = trace(m, ALL, seed=1)
    at = [0, *torch.tensor(passes_per_scale(m.lengths)).cumsum(0).tolist()]
    for k, maps in enumerate(seen):
        assert [int((~kept).sum(1)[0]) for _, kept in maps] == masked_counts(m.lengths[k], passes_per_scale(m.lengths)[k])[1:]
        before = torch.zeros(3, m.lengths[k], dtype=torch.bool)
        for (tokens, kept), logits in zip(maps, scores[at[k]:]):
            assert (before <= kept).all() and torch.equal(tokens[kept], made[k][kept])
            p = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
            p = p.sum(-1) if m.tok_cfg is TWO else p
            new, rest = kept & ~before, ~kept
            assert (p.masked_fill(~new, math.inf).amin(1) >= p.masked_fill(~rest, -math.inf).amax(1)).all()
            before = kept

@torch.no_grad()
def test_no_guidance_is_conditional(model):
    a = flat(model.generate(ALL, seed=1))
    assert torch.equal(a, flat(model.generate(ALL, seed=1, cfg_scale=0))) and torch.equal(a, flat(model.generate(ALL, seed=1, cfg_scale=[0]*4)))
    assert not torch.equal(a, flat(model.generate(ALL, seed=1, cfg_scale=4.)))
    assert not torch.equal(a, flat(model.generate(seed=1, n=3)))

@torch.no_grad()
def test_stream_yields_every_scale(model):
    parts = [*model.stream(ALL, seed=3, cfg_scale=1.)]
    assert [len(p) for p in parts] == [1, 2, 3, 4]
    for part in parts: assert all(torch.equal(a, b) for a, b in zip(part, parts[-1]))
    assert torch.equal(flat(parts[-1]), flat(model.generate(ALL, seed=3, cfg_scale=1.)))

@pytest.mark.parametrize('name', ['square', 'two', 'wide'])
@torch.no_grad()
def test_passes_can_be_recorded(name):
    "Replayed from a tape, like a CUDA graph, the passes of a scale sample the same tokens."
    m = make(CFGS[name])
    settings = m.validate_sampling(cfg_scale=1.)
    run = MaskedSampler(m, 3, settings)
    tapes = [Tape() for _ in run.settings]
    for k, tape in enumerate(tapes):
        with tape: run.run_pass(k)
    run.run_pass = lambda k: tapes[k].replay()
    for seed, labels in ((5, ALL), (6, dict(pitch=[70, 60, 50]))):
        u = note_uniforms(seed, 0, 3, m.n_uniforms(settings))
        *_, got = run.stream(m.label_embed.check(labels, 3), u)
        assert torch.equal(flat(got), flat(m.generate(labels, seed=seed, cfg_scale=1.)))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@torch.no_grad()
def test_graphs_on_a_gpu():
    m = make().cuda()
    for kwargs in (dict(cfg_scale=2., top_k=20, top_p=.9), dict(temperature=0)):
        a, b = (flat(m.generate(ALL, seed=1, graph=g, **kwargs)).cpu() for g in (True, False))
        assert (a == b).float().mean() > .99

# --- seeds and errors

@pytest.mark.parametrize('name', ['square', 'two'])
def test_a_note_depends_on_seed_and_index_only(name):
    m, six = make(CFGS[name]), dict(pitch=torch.arange(50, 56))
    whole = flat(m.generate(six, seed=1, cfg_scale=1., top_k=100))
    assert torch.equal(flat(m.generate(dict(pitch=[53, 54]), seed=1, first=3, cfg_scale=1., top_k=100)), whole[3:5])
    assert (flat(m.generate(six, seed=2, cfg_scale=1., top_k=100)) != whole).flatten(1).any(1).all()

@pytest.mark.parametrize('kwargs, says', [(dict(cfg_scale=-1), 'cfg_scale is -1'), (dict(top_k=257), 'top_k is 257'), (dict(top_p=2), 'top_p is 2'), (dict(n=0), 'at least one note'),
    (dict(temperature=float('nan')), 'temperature is nan'), (dict(seed=-1), 'seed is -1'), (dict(labels=dict(pitch=128)), 'label pitch is 128'), (dict(labels=dict(colour=1)), "'colour' is unknown"),
    (dict(cfg_scale=[1, 2]), 'cfg_scale lists 2 values'), (dict(graph=True), 'needs a model on a CUDA device')])
def test_invalid_arguments_are_refused_as_by_var(model, kwargs, says):
    with pytest.raises(ValueError, match=says) as mine: model.generate(**kwargs)
    with pytest.raises(ValueError) as theirs: generate(make_var(), **kwargs)
    assert str(mine.value) == str(theirs.value) and '\n' not in str(mine.value)

@pytest.mark.parametrize('steps, says', [*((x, f'steps must be a whole number >= 1, .*got {x!r}') for x in (0, -1, 2.5, True, 'many')), ([1, 2], 'a list of one for each of the 4 scales'),
    ([2, 1, 1, 1], r'steps of scale 0 \(1 tokens\) must be in 1\.\.1, got 2'), ([1, 1, 10, 1], r'must be in 1\.\.9, got 10'), ([1, 1, 1, 0], 'steps of scale 3 .* got 0'), ([1, 1, 1, 1.5], 'got 1.5')])
def test_invalid_steps_are_refused(model, steps, says):
    with pytest.raises(ValueError, match=says): model.generate(steps=steps)

def test_invalid_tokens_are_refused(model):
    with pytest.raises(ValueError, match='needs all 4'): model(draw(model, 2)[:2])
    with pytest.raises(ValueError, match='needs all 4'): model.loss(draw(model, 2)[:2])
    with pytest.raises(ValueError): model.loss([t + 256 for t in draw(model, 2)])
    with pytest.raises(ValueError, match='does not fit'): model.bind(Tokenizer(TokenizerConfig.preset('tiny', **SMALL, code_dim=4)))

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision(dtype):
    m = cast_network(make(), dtype)
    made = m.generate(ALL, seed=1, cfg_scale=1.)
    assert [t.shape for t in made] == [(3, n) for n in m.lengths]
    assert m(made, ALL, m.sample_known(3)).dtype == torch.float32

@pytest.mark.parametrize('name', MODELS)
@torch.no_grad()
def test_every_shape_of_trunk(name):
    m = make(**MODELS[name])
    assert [t.shape for t in m.generate(ALL, seed=1, cfg_scale=1.)] == [(3, n) for n in m.lengths]

@torch.no_grad()
def test_reference_conditioning():
    m = MaskedScale(ReferenceVARConfig.preset('tiny', gamma_init=1., reference_dim=8), CFG).eval()
    with torch.no_grad(): m.head.weight.mul_(50)
    a, b = (flat(m.generate(dict(pitch=[60, 61], reference=torch.eye(8)[i]), seed=1, cfg_scale=1.)) for i in (0, 1))
    assert a.shape == (2, 30) and not torch.equal(a, b)

# --- training

SPEC = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)

def test_trained_by_train_var(tmp_path):
    torch.manual_seed(0)
    notes, tok = AdditiveNotes('flute_acoustic_800', range(60, 68), (100,)), Tokenizer(CFG)
    run = lambda: train_var(notes, Codec(tok, spectrogram=SPEC), TrainConfig.preset('tiny', 'var', steps=3, batch_size=4), VARConfig.preset('tiny'), device='cpu', progress=False, model=MaskedScale)
    trained, again = run(), run()
    assert type(trained) is MaskedScale
    Mars(tok, trained, spectrogram=SPEC).save_pretrained(tmp_path)
    m = Mars.from_pretrained(tmp_path)
    assert type(m.var) is MaskedScale and m.generate(pitch=60, seed=1, steps=2, cfg_scale=1., top_k=10, n_iter=1).shape == (1, SPEC.n_samples)
    for k, v in trained.state_dict().items(): assert torch.equal(v, again.state_dict()[k]), k

def test_overfits_eight_notes():
    torch.manual_seed(0)
    m = MaskedScale(VARConfig.preset('tiny', label_drop=0., label_drop_each=0.), CFG).bind(Tokenizer(CFG))
    tokens, labels = draw(m, 8), dict(pitch=torch.arange(60, 68), family=torch.arange(8))
    opt = torch.optim.AdamW(m.parameters(), lr=4e-3, betas=(.9, .95), weight_decay=0)
    for _ in range(120): # 100 are enough for every seed
        loss, per = m.loss(tokens, labels)
        opt.zero_grad(); loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.)
        opt.step()
    assert (per['accuracy'] == 1).all()
    m.eval()
    for steps in (None, 1, 2): assert torch.equal(flat(m.generate(labels, temperature=0, steps=steps)), flat(tokens))
    assert torch.equal(flat(m.generate(labels, temperature=.1, top_k=20, seed=0)), flat(tokens))
