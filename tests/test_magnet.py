"""MAGNeT, delayed and flat next-token prediction: order, cache, windows, spans, schedules, decoding, prompts, rescoring."""
import copy, math
import pytest
import torch
import torch.nn.functional as F
from test_var import Tape
import mars.baselines.magnet, mars.parts.inference, mars.parts.sampling, mars.var
from mars.baselines.aar import SAT, BaselineConfig, SATConfig
from mars.baselines.magnet import DelayPatternConfig, DelayPatternLM, FlatPatternLM, MAGNeT, MAGNeTConfig, delay
from mars.baselines.magnet import generate_hybrid, mask_schedule, remask, expected_mask_rates, span_scores, n_spans_for_rate, undelay, spans_from_starts
from mars.baselines.next_token import NextToken
from mars.parts.sampling import note_uniforms, scale_settings
from mars.var import VARConfig

K, T, V = 3, 50, 32
UNIT = SATConfig.preset('tiny', n_samples=16000, lengths=(T,)*K, n_phi=0, width=4, dimension=16, code_dim=8, codebook_size=V, lstm=1)
ALL = dict(pitch=[50, 60, 70], family=[0, 3, 10], source=[0, 1, 2], velocity=[1, 64, 127])
SYSTEMS = [FlatPatternLM, DelayPatternLM, MAGNeT]

def make(model, sharp=50., cfg=UNIT, seed=0, **kwargs):
    "A random model with open gates and an enlarged head: blocks and labels influence the output."
    torch.manual_seed(seed)
    m = model(model.config(**{**dict(depth=2, width=32, heads=2, gamma_init=1.), **kwargs}), cfg).eval()
    with torch.no_grad(): m.head.weight.mul_(sharp)
    return m

def draw(B=3, seed=0): return [torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed+q)) for q in range(K)]
def flat(tokens): return torch.cat(tokens, 1)
def change(tokens, q, t):
    tokens = [x.clone() for x in tokens]
    tokens[q][:, t] = (tokens[q][:, t] + 1) % V
    return tokens

@pytest.fixture(scope='module', params=SYSTEMS, ids=lambda m: m.system)
def model(request): return make(request.param)
@pytest.fixture(scope='module')
def magnet(): return make(MAGNeT)

# --- shapes

def test_systems_and_configs():
    assert [m.system for m in SYSTEMS] == ['flat', 'delayed', 'magnet'] and VARConfig.presets() != BaselineConfig.presets()
    for m in SYSTEMS:
        c = m.config.preset('tiny')
        assert (c.depth, c.width, c.heads) == (4, 128, 4) and type(c) is m.config and m.config.from_dict(vars(c)) == c

@pytest.mark.parametrize('size, millions', [('tiny', 2.3), ('small', 42), ('paper', 311)])
def test_parameters_at_the_sizes_of_the_comparison(size, millions):
    for model in (DelayPatternLM, MAGNeT):
        with torch.device('meta'): m = model(model.config.preset(size), SATConfig(lengths=(200,)*4, n_phi=0))
        assert abs(sum(p.numel() for p in m.parameters())/1e6/millions - 1) < .03

@pytest.mark.parametrize('make_config, says', [(lambda: MAGNeTConfig(span=0), 'span must be >= 1, got 0'), (lambda: MAGNeTConfig(context=-1), 'context must be >= 0, got -1'), (lambda: MAGNeTConfig(prompt_rate=2.), r'prompt_rate must be in \[0, 1\], got 2'),
    (lambda: DelayPatternConfig(codebook_dropout=-.1), r'codebook_dropout must be in \[0, 1\], got -0.1'), (lambda: MAGNeTConfig(width=33, heads=2), 'must be a multiple of heads'), (lambda: MAGNeT(MAGNeTConfig(depth=1, span=51), UNIT), r'span must be in 1\.\.50, the number of frames, got 51'),
    *[(lambda m=m: m(m.config(depth=1), SATConfig.preset('tiny')), 'lengths=') for m in SYSTEMS]])
def test_invalid_shapes_are_refused(make_config, says):
    with pytest.raises(ValueError, match=says): make_config()

# --- (k) the delay pattern

@pytest.mark.parametrize('shape', [(2, 1, 5), (1, 3, 8), (2, 6, 4)])
def test_delay_round_trip(shape):
    x = torch.randint(9, shape)
    y = delay(x, 9)
    assert y.shape == (*shape[:2], shape[1]+shape[2]-1) and torch.equal(undelay(y), x)
    assert (y == 9).sum() == shape[0]*shape[1]*(shape[1]-1)
    for q in range(shape[1]):
        for t in range(shape[2]): assert torch.equal(y[:, q, t+q], x[:, q, t])

# --- (f) the cache against teacher forcing

@pytest.mark.parametrize('order', [FlatPatternLM, DelayPatternLM])
@pytest.mark.parametrize('kwargs', [{}, dict(cfg_scale=2.5, top_k=9), dict(cfg_scale=[0, 3, 1], top_p=.8), dict(cfg_scale=2., cfg_ramp=True)])
@torch.no_grad()
def test_cached_logits_equal_teacher_forced_logits(order, kwargs, monkeypatch):
    m, seen = make(order, sharp=10.), []
    module = mars.parts.inference if order is FlatPatternLM else mars.baselines.magnet
    real = module.sample
    monkeypatch.setattr(module, 'sample', lambda y, *args: seen.append(y) or real(y, *args))
    tokens = m.generate(ALL, seed=1, **kwargs)
    each = scale_settings(K, V, **{'cfg_ramp': order is FlatPatternLM, **{k: v for k, v in kwargs.items() if k.startswith('cfg')}})
    s = torch.tensor([e[0] for e in each])[:, None, None]
    want = ((1+s)*m(tokens, ALL).unflatten(1, (K, T)) - s*m(tokens).unflatten(1, (K, T))) # (B, K, T, V)
    if order is FlatPatternLM: got = torch.cat(seen, 1).unflatten(1, (T, K)).transpose(1, 2)
    elif seen[0].ndim == 4: got = undelay(torch.cat(seen, 1).transpose(1, 2))
    else: got = undelay(torch.stack([torch.cat(seen[q::K], 1) for q in range(K)], 1))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)

def test_flat_is_next_token_in_another_order():
    "With equal weights, the interleaved tokens as one long map of another tokenizer have equal logits."
    m, tokens = make(FlatPatternLM), draw()
    assert {k: v.shape for k, v in m.state_dict().items()} == {k: v.shape for k, v in make(NextToken, cfg=UNIT).state_dict().items()}
    seen, forward = [], m.trunk.forward
    m.trunk.forward = lambda x, *a, **k: seen.append(x.shape[1]) or forward(x, *a, **k)
    shown = [*m.stream(ALL, seed=0)]
    assert seen == [1]*K*T and [len(s) for s in shown] == [1, 2, 3]
    for part in shown: assert all(torch.equal(a, b) for a, b in zip(part, shown[-1]))

@torch.no_grad()
def test_delayed_order_samples_a_column_per_pass():
    m, seen = make(DelayPatternLM), []
    forward = m.trunk.forward
    m.trunk.forward = lambda x, *a, **k: seen.append(tuple(x.shape[:2])) or forward(x, *a, **k)
    shown = [*m.stream(ALL, seed=0)]
    assert seen == [(3, 1)]*(T+K-1) and [len(s) for s in shown] == [1, 2, 3]
    for part in shown: assert all(torch.equal(a, b) for a, b in zip(part, shown[-1]))
    for n in (1, 7, T-1, T): assert all(torch.equal(a, b[:, :n]) for a, b in zip(m.generate(ALL, seed=0, frames=n), shown[-1]))

# --- (g) what may not be seen

@torch.no_grad()
def test_next_token_attends_to_earlier_tokens_only():
    step = torch.arange(T) + torch.arange(K)[:, None]
    for order, at in ((FlatPatternLM, torch.arange(T)*K + torch.arange(K)[:, None]), (DelayPatternLM, step)):
        m, tokens = make(order), draw()
        for q, t in ((0, 0), (0, 20), (1, 20), (2, 20), (2, T-1)):
            moved = (m(change(tokens, q, t), ALL) - m(tokens, ALL)).abs().amax((0, 2)).view(K, T) > 0
            assert torch.equal(moved, at > at[q, t]), (order, q, t)

@torch.no_grad()
def test_dropped_codebooks_have_no_influence():
    m, tokens, shown = make(DelayPatternLM), draw(), torch.tensor([1, 2, 3])
    moved = (m(change(tokens, 1, 20), ALL, shown) - m(tokens, ALL, shown)).abs().amax((1, 2)) > 0
    assert moved.tolist() == [False, True, True]
    assert torch.equal(m(tokens, ALL, torch.full((3,), K)), m(tokens, ALL))

@torch.no_grad()
def test_later_codebooks_and_masked_tokens_have_no_influence(magnet):
    tokens, masked = draw(), torch.arange(T).expand(3, T) % 7 < 3
    for k in range(K):
        before = magnet(tokens, ALL, k, masked)
        for q in range(K):
            for t in (21, 24): # masked, and not
                moved = bool((magnet(change(tokens, q, t), ALL, k, masked) != before).any())
                assert moved == (q < k or (q == k and t == 24)), (k, q, t)

@pytest.mark.parametrize('context', [5, 2])
@torch.no_grad()
def test_the_window_of_later_stages(context):
    "A frame just outside leaves a one-layer output unchanged, one just inside does not; the window grows with depth."
    for depth in (1, 2, 3):
        m, tokens = make(MAGNeT, depth=depth, context=context), draw()
        moved = (m(change(tokens, 0, 25), ALL, 1) - m(tokens, ALL, 1)).abs().amax((0, 2)) > 0
        assert moved.nonzero().flatten().tolist() == [*range(25-context*depth, 26+context*depth)]
        none = torch.zeros(3, T, dtype=torch.bool)
        assert ((m(change(tokens, 0, 25), ALL, 0, none) - m(tokens, ALL, 0, none)).abs().amax((0, 2)) > 0).all() # stage 0 sees all

@torch.no_grad()
def test_a_context_of_0_is_unlimited():
    m, tokens = make(MAGNeT, depth=1, context=0), draw()
    assert ((m(change(tokens, 0, 0), ALL, 2) - m(tokens, ALL, 2)).abs().amax((0, 2)) > 0).all()

@torch.no_grad()
def test_stages_of_a_batch_equal_those_of_single_notes(magnet):
    tokens, stage, masked = draw(), torch.tensor([2, 0, 1]), torch.rand(3, T) < .5
    mixed = magnet(tokens, ALL, stage, masked)
    for i, k in enumerate(stage.tolist()):
        torch.testing.assert_close(mixed[i:i+1], magnet([t[i:i+1] for t in tokens], {n: v[i:i+1] for n, v in ALL.items()}, k, masked[i:i+1]), atol=1e-4, rtol=0)

# --- (h) spans

def test_span_table():
    for p, n in {1: 1, 5: 4, 10: 7, 25: 19, 50: 42, 64: 58, 75: 74, 90: 107, 95: 126, 99: 157, 100: 198}.items(): assert n_spans_for_rate(p/100, 200) == n
    assert [n_spans_for_rate(p/100, 200, 1) for p in (0, 1, 10, 50, 100)] == [1, 2, 20, 100, 200]
    for L in (2, 3, 10): # the formula, by counting
        for n in (1, 5, 20): assert abs(expected_mask_rates(30, L)[n].item() - (1 - math.comb(30-L, n)/math.comb(30, n))) < 1e-12
    assert n_spans_for_rate(0., 200) == 1 and n_spans_for_rate(1., 2, 3) == 1 and (expected_mask_rates(200).diff() >= 0).all()

@pytest.mark.parametrize('span', [1, 3, 10])
def test_span_counts_give_the_requested_mask_rates(span):
    torch.manual_seed(0)
    for rate in (.1, .5, .9):
        masked = spans_from_starts(torch.rand(2000, 200).argsort(1).argsort(1) < n_spans_for_rate(rate, 200, span), span)
        assert -.005*span < masked.float().mean().item() - rate < span/200 + .005 # cut short at the end, and whole spans only

def test_widen_spans():
    starts = torch.zeros(1, 9, dtype=torch.bool)
    starts[0, [0, 4, 5, 8]] = True
    assert spans_from_starts(starts, 3)[0].int().tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1] and torch.equal(spans_from_starts(starts, 1), starts)

def test_random_numbers_of_training():
    m = make(MAGNeT, prompt_rate=.5)
    stage, masked, prompt = m.mask_sampler(3000, torch.Generator().manual_seed(1))
    assert stage.bincount().tolist() == [1000]*3 and masked.any(1).all()
    assert not (masked & (torch.arange(T) < prompt[:, None])).any() and .45 < (prompt > 0).float().mean() < .55 and prompt.max() < T
    free = make(MAGNeT).mask_sampler(3000, torch.Generator().manual_seed(1))
    assert free[2] is None and abs(free[1].float().mean() - 2/math.pi) < .02
    assert all(torch.equal(a, b) for a, b in zip(m.mask_sampler(9), m.mask_sampler(9))) # evaluation is repeatable
    m.train(); torch.manual_seed(0)
    assert not all(torch.equal(a, b) for a, b in zip(m.mask_sampler(9)[:2], m.mask_sampler(9)[:2]))
    first = {tuple(m.mask_sampler(1)[0].tolist()) for _ in range(60)}
    assert first == {(0,), (1,), (2,)} # also a single note gets every stage

# --- loss

@torch.no_grad()
def test_loss_is_the_mean_over_masked_tokens(magnet):
    tokens, g = draw(8), lambda: torch.Generator().manual_seed(3)
    labels = dict(pitch=torch.arange(60, 68))
    stage, masked, _ = magnet.mask_sampler(8, g())
    logits = magnet(tokens, labels, stage, masked)
    one = [F.cross_entropy(logits[i][masked[i]], tokens[stage[i]][i][masked[i]], reduction='none') for i in range(8)]
    loss, per = magnet.loss(tokens, labels, g())
    torch.testing.assert_close(loss, torch.cat(one).mean())
    for k in range(K): torch.testing.assert_close(per['loss'][k], torch.cat([c for c, s in zip(one, stage) if s == k]).mean())
    assert torch.equal(magnet.loss(tokens, labels)[0], magnet.loss(tokens, labels)[0]) # no generator: the same masks always

@torch.no_grad()
def test_a_stage_without_notes_has_a_finite_loss(magnet):
    loss, per = magnet.loss([t[:1] for t in draw()], None)
    assert per['loss'].isfinite().all() and per['accuracy'].isfinite().all() and (per['loss'] == loss).all()

@torch.no_grad()
def test_losses_of_next_token():
    for order in (FlatPatternLM, DelayPatternLM):
        m, tokens = make(order), draw()
        ce = F.cross_entropy(m(tokens, ALL).flatten(0, 1), flat(tokens).flatten(), reduction='none').view(3, K, T)
        loss, per = m.loss(tokens, ALL)
        torch.testing.assert_close(loss, ce.mean()); torch.testing.assert_close(per['loss'], ce.mean((0, 2)))

def test_codebook_dropout_in_training_only():
    m, tokens, seen = make(DelayPatternLM, codebook_dropout=1., label_drop=0., label_drop_each=0.), draw(300), []
    embed = m.embed
    m.embed = lambda c: seen.append(c) or embed(c)
    m.loss(tokens)
    m.train(); torch.manual_seed(0); m.loss(tokens)
    count = [(c[:, :, K-1:T] == V).all(-1) for c in seen] # (B, K): is the codebook missing
    assert not count[0].any() and not count[1][:, 0].any() and .2 < count[1][:, 1].float().mean() < .5 and .5 < count[1][:, 2].float().mean() < .8

# --- (i) decoding

def test_step_table():
    assert [n for n, _ in mask_schedule(66, 20)] == [66, 65, 65, 63, 62, 60, 58, 55, 52, 48, 44, 40, 36, 31, 26, 21, 16, 10, 5, 1]
    assert [n for n, _ in mask_schedule(66, 10)] == [66, 64, 62, 57, 50, 42, 32, 22, 11, 1]
    m = make(MAGNeT)
    run = m.sampler(m, 1, m.validate_sampling(steps=(20, 10, 10)))
    assert [s[3] for s in run.settings[:20]][::19] == [9, 0] and run.settings[0][4] == pytest.approx(2.85) and run.settings[19][4] == .01
    assert run.settings[20][4] == pytest.approx(2.7) and [s[2] for s in run.settings[20:30]] == [n for n, _ in mask_schedule(17, 10)] # 50 frames are 17 chunks
    assert {s[3] for s in m.sampler(m, 1, m.validate_sampling(cfg_ramp=False)).settings} == {9}

def watch(m, n=3, labels=ALL, prompt=None, **settings):
    "For each step: stage, masked before, columns after."
    d, seen = m.validate_sampling(prompt=0 if prompt is None else prompt[0].shape[1], **settings), []
    run = m.sampler(m, n, d)
    run.set_inputs(m.label_embed.check(labels, n), note_uniforms(0, 0, n, m.n_uniforms(d)))
    if prompt is not None: run.prompt.copy_(torch.stack(prompt, 1))
    for j, (k, *_) in enumerate(run.settings):
        run.run_pass(j)
        seen.append((k, run.masked.clone(), run.columns.clone()))
    return seen

DECODINGS = [dict(), dict(span_scoring='prod'), dict(span_arrangement='stride1'), dict(span_arrangement='stride1', span_scoring='max'), dict(span_arrangement='stride1', temperature=0, cfg_scale=1., steps=(7, 3, 1))]

@pytest.mark.parametrize('settings', DECODINGS)
@pytest.mark.parametrize('prompted', [None, 11, 49])
@torch.no_grad()
def test_fixed_tokens_never_change_and_no_mask_remains(magnet, settings, prompted):
    prompt = None if prompted is None else [t[:, :prompted] for t in draw(seed=9)]
    before, P = None, prompted or 0
    for k, masked, columns in watch(magnet, prompt=prompt, **settings):
        assert masked.any(1).all() and not masked[:, :P].any() and (columns[:, :k+1] < V).all() and (columns[:, k+1:] == V).all()
        if before is not None:
            assert torch.equal(columns[:, :k], before[2][:, :k])
            if k == before[0]: assert not (masked & ~before[1]).any() and torch.equal(columns[:, k][~masked], before[2][:, k][~masked])
            else: assert masked[:, P:].all()
        before = k, masked, columns
    if prompt is not None: assert torch.equal(before[2][:, :, :P], torch.stack(prompt, 1))
    made = magnet.generate(ALL, seed=0, prompt=prompt, **settings)
    assert torch.equal(torch.stack(made, 1), before[2])

@torch.no_grad()
def test_chunks_are_masked_whole_and_the_last_may_be_short(magnet):
    for k, masked, _ in watch(magnet):
        assert len({*masked[0, :3].tolist()}) == 1 and torch.equal(masked[:, 0:48:3], masked[:, 2:48:3]) and torch.equal(masked[:, 48], masked[:, 49])

@pytest.mark.parametrize('score', ['max', 'prod'])
def test_span_scores(score):
    p, masked = torch.rand(4, 11), torch.rand(4, 11) < .6
    f = (lambda p: 1 - max(p, default=0)) if score == 'max' else (lambda p: sum(-math.log(v) for v in p))
    for stride in (1, 3):
        got = span_scores(p, masked, 3, stride, score)
        for i in range(4):
            want = [f([v.item() for v, m in zip(p[i, a:a+3], masked[i, a:a+3]) if m]) - 1e4*(~masked[i, a:a+3]).sum().item() for a in range(0, 11, stride)]
            torch.testing.assert_close(got[i], torch.tensor(want), atol=2e-3, rtol=0)

@pytest.mark.parametrize('span', [1, 3, 7])
def test_remasked_windows_agree_with_a_sequential_search(span):
    torch.manual_seed(0)
    p, masked = torch.rand(5, 23), torch.rand(5, 23) < .8
    for count in range(1, masked.sum(1).min().item()+1):
        got = remask(p, masked, count, span, 'stride1', 'prod')
        for i in range(5):
            fallen = torch.zeros(23, dtype=torch.bool)
            for w in span_scores(p[i:i+1], masked[i:i+1], span, 1, 'prod')[0].argsort(descending=True, stable=True):
                fallen[w:w+span] = True
                if (fallen & masked[i]).sum() >= count: break
            assert torch.equal(got[i], fallen & masked[i]) and count <= got[i].sum() < count+span

@torch.no_grad()
def test_the_least_probable_chunks_are_masked_again():
    p = torch.full((1, 12), .9); p[0, 6:9] = .1
    assert remask(p, torch.ones(1, 12, dtype=torch.bool), 1, 3, 'nonoverlap', 'max')[0].nonzero().flatten().tolist() == [6, 7, 8]
    p[0, 7] = .95 # one sure token saves the chunk by 'max', not by 'prod'
    assert remask(p, torch.ones(1, 12, dtype=torch.bool), 1, 3, 'nonoverlap', 'max')[0].nonzero().flatten().tolist() == [0, 1, 2]
    assert remask(p, torch.ones(1, 12, dtype=torch.bool), 1, 3, 'nonoverlap', 'prod')[0].nonzero().flatten().tolist() == [6, 7, 8]

# --- (j) guidance

@pytest.mark.parametrize('cfg_scale', [0., 2.])
@torch.no_grad()
def test_guided_logits(magnet, cfg_scale, monkeypatch):
    seen, real = [], mars.parts.sampling.sample
    monkeypatch.setattr(mars.baselines.magnet, 'sample', lambda y, *args: seen.append(y) or real(y, *args))
    steps = watch(magnet, cfg_scale=cfg_scale, steps=4)
    for (k, masked, columns), y, s in zip(steps, seen, [3*[0]]*12 if not cfg_scale else [[2*m for _, m in mask_schedule(17, 4)][j % 4] for j in range(12)]):
        s = s if cfg_scale else 0
        tokens = [*columns.clamp(max=V-1).unbind(1)]
        want = (1+s)*magnet(tokens, ALL, k, masked) - s*magnet(tokens, None, k, masked)
        torch.testing.assert_close(y, want, atol=1e-3, rtol=1e-4)

@torch.no_grad()
def test_without_labels_guidance_changes_nothing(magnet):
    assert torch.equal(flat(magnet.generate(n=2, seed=0, cfg_scale=0, temperature=0)), flat(magnet.generate(n=2, seed=0, cfg_scale=3., temperature=0)))

# --- (l) learning

@pytest.mark.parametrize('system', SYSTEMS, ids=lambda m: m.system)
def test_an_overfit_model_reproduces_its_notes(system):
    torch.manual_seed(0)
    m = system(system.config(depth=2, width=64, heads=2, label_drop=0., label_drop_each=0.), UNIT)
    steps, tokens, labels = 250 if system is MAGNeT else 100, draw(8), dict(pitch=torch.arange(60, 68))
    opt = torch.optim.AdamW(m.parameters(), lr=4e-3, betas=(.9, .95), weight_decay=0)
    for i in range(steps):
        loss, per = m.loss(tokens, labels)
        opt.param_groups[0]['lr'] = 4e-3*min(1, i/20)*(1-i/steps)
        opt.zero_grad(); loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.)
        opt.step()
    m.eval()
    loss, per = m.loss(tokens, labels)
    assert loss < .1 and (per['accuracy'] > .99).all() # 0.0001 to 0.001 over seeds
    assert (flat(m.generate(labels, temperature=0, cfg_scale=0)) == flat(tokens)).float().mean() > .99
    if system is MAGNeT: assert (flat(m.generate(labels, seed=0, cfg_scale=0, span_arrangement='stride1')) == flat(tokens)).float().mean() > .97

# --- prompts, hybrid, rescorer

@torch.no_grad()
def test_prompts_are_attended_to_as_in_training():
    tokens, P = draw(), 5
    for prompt, sees in ((0., False), (.5, True)):
        m = make(MAGNeT, prompt_rate=prompt, depth=1)
        a, b = (m.generate(ALL, seed=0, prompt=[t[:, :P] for t in x], steps=1, temperature=0) for x in (tokens, change(tokens, 2, 0)))
        assert (a[0] != b[0]).any() == sees # the third codebook of the prompt, at the first stage

@torch.no_grad()
def test_hybrid():
    m, ar = make(MAGNeT, prompt_rate=.5), make(DelayPatternLM)
    made = generate_hybrid(m, ar, 20, ALL, seed=5)
    assert [tuple(t.shape) for t in made] == [(3, T)]*K and all(torch.equal(a, b) for a, b in zip(made, generate_hybrid(m, ar, 20, ALL, seed=5)))
    begun = ar.generate(ALL, frames=20, seed=5 + 2**40)
    assert all(torch.equal(a[:, :20], b) for a, b in zip(made, begun))
    assert torch.equal(flat(generate_hybrid(m, ar, 0, ALL, seed=5)), flat(m.generate(ALL, seed=5)))
    parts = generate_hybrid(m, ar, 20, {k: v[1:] for k, v in ALL.items()}, seed=5, first=1)
    assert all(torch.equal(a[1:], b) for a, b in zip(made, parts))
    with pytest.raises(ValueError, match=r'prompt_frames must be in 0\.\.49, got 50'): generate_hybrid(m, ar, 50)
    with pytest.raises(ValueError, match='different tokenizers'): generate_hybrid(m, make(DelayPatternLM, cfg=SATConfig.from_dict({**vars(UNIT), 'codebook_size': 16})), 5)

@torch.no_grad()
def test_rescorer():
    m, ar = make(MAGNeT), make(DelayPatternLM, seed=1)
    plain, at = flat(m.generate(ALL, seed=0)), lambda w, **k: flat(m.generate(ALL, seed=0, rescorer=ar, rescore_weight=w, **k))
    assert torch.equal(at(1), plain) and not torch.equal(at(.5), plain) and not torch.equal(at(0), at(.5))
    tokens = draw()
    x = torch.stack(tokens, 1)
    cond = ar.label_embed(ar.label_embed.check(ALL, 3))
    for q in range(K):
        known = torch.cat([x[:, :q+1], torch.full_like(x[:, q+1:], V)], 1)
        want = ar(tokens, ALL, torch.full((3,), q+1)).unflatten(1, (K, T))[:, q].softmax(-1).gather(-1, tokens[q][..., None])[..., 0]
        torch.testing.assert_close(ar.token_probability(known, q, cond, ar.trunk.modulation(cond)), want)
    with pytest.raises(ValueError, match='rescorer must be a DelayPatternLM, got a FlatPatternLM'): m.generate(rescorer=make(FlatPatternLM))
    with pytest.raises(ValueError, match='other labels'): m.generate(rescorer=make(DelayPatternLM, n_instruments=3))

# --- seeds, errors, modes

@torch.no_grad()
def test_a_note_depends_on_seed_and_index_only(model):
    kwargs = dict(span_arrangement='stride1') if isinstance(model, MAGNeT) else dict(cfg_scale=1., top_p=.9)
    whole = flat(model.generate(dict(pitch=torch.arange(50, 56)), seed=1, **kwargs))
    assert torch.equal(flat(model.generate(dict(pitch=[53, 54]), seed=1, first=3, **kwargs)), whole[3:5])
    assert (flat(model.generate(dict(pitch=torch.arange(50, 56)), seed=2, **kwargs)) != whole).float().mean() > .1
    assert flat(model.generate(n=2)).shape == (2, K*T) and flat(model.generate()).shape == (1, K*T)

@pytest.mark.parametrize('kwargs, says', [(dict(cfg_scale=-1), 'cfg_scale is -1'), (dict(top_k=V+1), 'top_k is 33'), (dict(top_p=2), 'top_p is 2'), (dict(n=0), 'at least one note'),
    (dict(temperature=float('nan')), 'temperature is nan'), (dict(seed=-1), 'seed is -1'), (dict(labels=dict(pitch=128)), 'label pitch is 128'), (dict(labels=dict(colour=1)), "'colour' is unknown"),
    (dict(cfg_scale=[1, 2]), 'cfg_scale lists 2 values'), (dict(graph=True), 'needs a model on a CUDA device')])
def test_invalid_requests_are_refused(model, kwargs, says):
    with pytest.raises(ValueError, match=says) as e: model.generate(**kwargs)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('kwargs, says', [(dict(steps=0), 'steps of a stage must be a whole number >= 1, got 0'), (dict(steps=[1, 2]), 'each of the 3 stages, got 2'), (dict(steps=[1, 2, 'x']), "got 'x'"), (dict(span_arrangement='any'), "span_arrangement must be one of nonoverlap, stride1, got 'any'"), (dict(span_scoring='sum'), "span_scoring must be one of max, prod, got 'sum'"),
    (dict(rescore_weight=1.5), r'rescore_weight must be in \[0, 1\], got 1.5'), (dict(prompt=[torch.zeros(1, 5)]), 'a list of 3 token maps'), (dict(prompt=[torch.zeros(1, 5)]*3), 'must be int64'), (dict(prompt=[torch.full((1, 5), V)]*3), 'values 32..32'),
    (dict(prompt=[torch.zeros(1, T, dtype=torch.long)]*3), r'must have 1\.\.49 frames, got 50'), (dict(prompt=[torch.zeros(2, 5, dtype=torch.long)]*3, n=3), 'as many as are generated, got 2')])
def test_invalid_requests_for_masked_decoding_are_refused(magnet, kwargs, says):
    with pytest.raises(ValueError, match=says): magnet.generate(**kwargs)
    with pytest.raises(ValueError, match=r'frames must be in 1\.\.50, or None for all, got 0'): make(DelayPatternLM).generate(frames=0)

def test_invalid_tokens_are_refused(model):
    with pytest.raises(ValueError, match='needs all 3'): model(draw()[:2])
    with pytest.raises(ValueError, match='must be int64 in 0..31'): model([t + V for t in draw()])
    with pytest.raises(ValueError, match='does not fit'): model.bind(SAT(SATConfig.from_dict({**vars(UNIT), 'code_dim': 4})))

def test_generation_does_not_depend_on_training_mode(model):
    "Generation uses no stochastic depth and no label dropout, also in training mode."
    m = make(type(model), drop_path=.5, label_drop=1.)
    want = flat(m.generate(ALL, seed=0))
    assert torch.equal(flat(m.train().generate(ALL, seed=0)), want) and m.training

def test_models_can_be_copied_and_saved(model):
    other = make(type(model), seed=3)
    other.load_state_dict(model.state_dict())
    for m in (other, copy.deepcopy(model)): assert torch.equal(flat(m.generate(ALL, seed=1)), flat(model.generate(ALL, seed=1)))

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision(model, dtype):
    from mars.parts.device import cast_network
    m = cast_network(copy.deepcopy(model), dtype)
    for k, t in enumerate(m.generate(ALL, seed=0)): assert t.shape == (3, T) and 0 <= t.min() and t.max() < V
    y = m(draw(), ALL)
    assert y.dtype == torch.float32 and y.isfinite().all()

def test_labels_are_dropped_per_note(magnet):
    m, seen = make(MAGNeT, label_drop=.5, label_drop_each=0.).train(), []
    forward = m.label_embed.forward
    m.label_embed.forward = lambda labels: seen.append(labels['pitch']) or forward(labels)
    torch.manual_seed(0)
    m.loss(draw(200), dict(pitch=60))
    assert .4 < (seen[0] < 0).float().mean() < .6

# --- recorded passes

@pytest.mark.parametrize('system, settings', [(FlatPatternLM, dict(cfg_scale=2.)), (DelayPatternLM, dict(cfg_scale=2., top_p=.9)), (DelayPatternLM, dict(cfg_scale=[0, 1, 2], top_k=5)), (MAGNeT, {}), (MAGNeT, dict(span_arrangement='stride1', steps=4, top_k=5))],
                         ids=lambda v: getattr(v, 'system', None))
@torch.no_grad()
def test_passes_can_be_recorded(system, settings, monkeypatch):
    "Each pass reads and writes fixed buffers: replayed from a tape, like a CUDA graph, it gives the same tokens."
    monkeypatch.setattr(mars.parts.sampling, 'top_values', lambda x, k: x.topk(k).values)
    m = make(system)
    d = m.validate_sampling(**settings)
    run = m.sampler(m, 3, d)
    tapes = [Tape() for _ in run.settings]
    for k, tape in enumerate(tapes):
        with tape: run.run_pass(k)
    run.run_pass = lambda k: tapes[k].replay()
    for seed, labels in ((5, ALL), (6, dict(pitch=[70, 60, 50]))):
        *_, got = run.stream(m.label_embed.check(labels, 3), note_uniforms(seed, 0, 3, m.n_uniforms(d)))
        assert torch.equal(flat(got), flat(m.generate(labels, seed=seed, **settings)))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('system', SYSTEMS, ids=lambda m: m.system)
@torch.no_grad()
def test_graphs_on_a_gpu(system):
    m = make(system).cuda()
    for kwargs in (dict(cfg_scale=2., top_k=20, top_p=.9), dict(temperature=0)):
        a, b = (flat(m.generate(ALL, seed=1, graph=g, **kwargs)).cpu() for g in (True, False))
        assert (a == b).float().mean() > .9

# --- folders

def test_a_folder_stores_system_and_config(model, tmp_path):
    from mars.baselines.aar import WaveMars
    from mars.pipeline import Mars
    m = make(type(model), **{MAGNeT: dict(span=2, prompt_rate=.2), DelayPatternLM: dict(codebook_dropout=.3)}.get(type(model), {}))
    tok = SAT(UNIT)
    WaveMars(tok, m.bind(tok)).save_pretrained(tmp_path)
    again = Mars.from_pretrained(tmp_path)
    assert type(again.var) is type(model) and again.var.cfg == m.cfg
    assert torch.equal(flat(again.var.generate(ALL, seed=1)), flat(m.generate(ALL, seed=1)))
    assert again.generate(pitch=60, n=2, seed=0).shape == (2, 16000)
