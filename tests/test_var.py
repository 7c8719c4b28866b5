"""The next-scale transformer at unit-test size: order, cache, guidance, labels, seeds and precision."""
import copy, json, math, pickle, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
import mars.parts.sampling, mars.var
from mars.parts.product import ProductTokenizer, ProductTokenizerConfig, ProductVAR
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.parts.conditioning import LabelEmbedding
from mars.parts.sampling import note_uniforms, sample, scale_settings, top_values
from mars.parts.inference import GraphedSampler, OneDNNLinear, Sampler, generate, onednn_copy, onednn_linear, stream
from mars.parts.reference import reference_config
from mars.var import Trunk, VAR, VARConfig, scale_mask, scale_indices

ROOT = Path(__file__).resolve().parents[1]
SMALL = dict(image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
CFG = TokenizerConfig.preset('tiny', **SMALL)
ALL = dict(pitch=[50, 60, 70], family=[0, 3, 10], source=[0, 1, 2], velocity=[1, 64, 127])

def make(tok_cfg=CFG, sharp=50., **kwargs):
    "A random model with open gates and an enlarged head: blocks and labels influence the output."
    torch.manual_seed(0)
    var = VAR(reference_config(VARConfig, kwargs).preset('tiny', **{'gamma_init': 1., **kwargs}), tok_cfg).eval()
    with torch.no_grad(): var.bind(Tokenizer(tok_cfg)).head.weight.mul_(sharp)
    return var

def draw(var, B): return [torch.randint(var.tok_cfg.codebook_size, (B, n)) for n in var.lengths]
def flat(tokens): return torch.cat(tokens, 1)

@pytest.fixture(scope='module')
def var(): return make()

def heard(var, *args, **kwargs):
    "Tokens of a generation, and the logits it sampled from."
    seen, score = [], var.logits
    var.logits = lambda h: seen.append(score(h)) or seen[-1]
    try: return var.generate(*args, **kwargs), torch.cat(seen, 1)
    finally: del var.logits

# --- the cache against teacher forcing

MODELS = dict(base={}, shared=dict(shared_adaln=True), dots=dict(qk_norm=False), heads=dict(width=96, heads=3), instruments=dict(n_instruments=4))

@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('cfg_scale', [0., 2.5, [0, 3, 0, 1]])
@torch.no_grad()
def test_cached_logits_equal_teacher_forced_logits(name, cfg_scale):
    var = make(sharp=10., **MODELS[name])
    tokens, got = heard(var, ALL, cfg_scale=cfg_scale, seed=1, top_k=50, top_p=.9)
    s = torch.tensor([v[0] for v in scale_settings(4, 256, cfg_scale)])[var.scale_index][:, None]
    torch.testing.assert_close(got, (1+s)*var(tokens, ALL) - s*var(tokens), atol=1e-4, rtol=0)

@pytest.mark.parametrize('preset, kwargs, tok', [('tiny', {}, {}), ('small', {}, {}), ('paper', dict(depth=2, width=1024, heads=16), {}),
                                                 ('tiny', {}, dict(scales=((1, 1), (2, 1), (4, 2)))), ('tiny', {}, dict(scales=(4,)))])
@torch.no_grad()
def test_agreement_at_the_presets(preset, kwargs, tok):
    torch.manual_seed(0)
    var = VAR(VARConfig.preset(preset, gamma_init=.1, **kwargs), TokenizerConfig.preset(preset, **tok)).eval()
    tokens, got = heard(var, dict(pitch=[60, 40]), seed=0, cfg_scale=1.)
    s = torch.tensor([v[0] for v in scale_settings(len(var.lengths), var.tok_cfg.codebook_size, 1.)])[var.scale_index][:, None]
    torch.testing.assert_close(got, (1+s)*var(tokens, dict(pitch=[60, 40])) - s*var(tokens), atol=1e-4, rtol=0)

@pytest.mark.parametrize('kwargs', [{}, dict(cfg_scale=2., cfg_ramp=False), dict(cfg_scale=3.)])
@torch.no_grad()
def test_temperature_zero_is_greedy_teacher_forcing(var, kwargs):
    tokens = var.generate(ALL, temperature=0, **kwargs)
    s = torch.tensor([v[0] for v in scale_settings(4, 256, **kwargs)])[var.scale_index][:, None]
    assert torch.equal(flat(tokens), ((1+s)*var(tokens, ALL) - s*var(tokens)).argmax(-1))

@pytest.mark.parametrize('k', [1, 2, 3])
@pytest.mark.parametrize('name', MODELS)
@torch.no_grad()
def test_finer_scales_never_change_coarser_logits(name, k):
    var = make(**MODELS[name])
    tokens, upto = draw(var, 3), sum(var.lengths[:k+1])
    a, b = var(tokens, ALL), var(tokens[:k] + draw(var, 3)[k:], ALL)
    torch.testing.assert_close(a[:, :upto], b[:, :upto], atol=1e-5, rtol=0)
    if k < 3: assert (a - b)[:, upto:].abs().max() > 1e-2

def test_no_gradient_flows_from_coarse_logits_to_finer_inputs(var):
    z = torch.randn(1, sum(var.lengths)-1, CFG.code_dim, requires_grad=True)
    cond = var.label_embed(var.label_embed.check({}))
    x = torch.cat([cond[:, None] + var.start, var.embed(z)], 1) + var.position_embedding()
    y = var.logits(var.trunk(x, var.trunk.modulation(cond), var.mask))
    for k, first in enumerate([0, 1, 5, 14]):
        grad, = torch.autograd.grad(y[:, first:first+var.lengths[k]].sum(), z, retain_graph=True)
        seen = grad[0].abs().sum(-1) > 0
        assert seen[:first+var.lengths[k]-1].all() and not seen[first+var.lengths[k]-1:].any()

def test_attention_mask():
    mask, level = scale_mask([1, 4, 9]), scale_indices([1, 4, 9])
    assert all(mask[i, j] == (level[j] <= level[i]) for i in range(14) for j in range(14))

def test_an_overfit_model_reproduces_its_notes():
    torch.manual_seed(0)
    var = VAR(VARConfig.preset('tiny', label_drop=0., label_drop_each=0.), CFG).bind(Tokenizer(CFG))
    tokens, labels = draw(var, 8), dict(pitch=torch.arange(60, 68), family=torch.arange(8))
    opt = torch.optim.AdamW(var.parameters(), lr=4e-3, betas=(.9, .95), weight_decay=0)
    for _ in range(80): # 50 are enough for every seed
        loss, per = var.loss(tokens, labels)
        opt.zero_grad(); loss.backward()
        nn.utils.clip_grad_norm_(var.parameters(), 1.)
        opt.step()
    assert (per['accuracy'] == 1).all()
    assert torch.equal(flat(var.eval().generate(labels, temperature=0)), flat(tokens))
    assert torch.equal(flat(var.generate(labels, temperature=.1, top_k=20, seed=0)), flat(tokens))

# --- labels

@pytest.mark.parametrize('name', ['pitch', 'family', 'source', 'velocity', 'instrument'])
def test_a_null_is_unconditional(name):
    var = make(n_instruments=5)
    tokens, rest = draw(var, 3), {**ALL, 'instrument': [0, 1, 4]}
    given = rest.pop(name)
    without = var(tokens, rest)
    for null in (-1, [-1]*3, torch.full((3,), -1), None): assert torch.equal(without, var(tokens, {**rest, name: null}))
    assert all((var(tokens, {**rest, name: given}) - without)[i].abs().max() > 1e-3 for i in range(3))
    table = var.label_embed.tables[name].weight
    grad, = torch.autograd.grad(without.square().sum(), table)
    assert not grad[:-1].any() and grad[-1].any()  # what was asked in training elsewhere cannot reach an unlabelled note
    with torch.no_grad(): table[:-1].normal_()
    assert torch.equal(without, var(tokens, rest))

@torch.no_grad()
def test_guidance_uses_the_fully_unconditional_logits(var):
    other = copy.deepcopy(var)
    for t in other.label_embed.tables.values(): t.weight[:-1].normal_()
    tokens = draw(var, 3)
    assert torch.equal(var(tokens), other(tokens)) and not torch.equal(var(tokens, ALL), other(tokens, ALL))

def test_subsets_scalars_and_lists(var):
    assert [len(t) for t in var.generate()] == [1]*4
    assert [tuple(t.shape) for t in var.generate(n=3)] == [(3, n) for n in var.lengths]
    assert all(t.dtype == torch.int64 and 0 <= t.min() and t.max() < 256 for t in var.generate(n=3))
    a = var.generate(dict(pitch=60, family=[3, 3, 3]), seed=0)
    for same in (dict(pitch=torch.tensor([60]*3), family=3), dict(pitch=np.array([60]*3), family=torch.tensor(3), source=None)):
        assert torch.equal(flat(a), flat(var.generate(same, 3, seed=0)))

def test_label_dropout_is_per_sample():
    embed = LabelEmbedding(VARConfig().label_sizes, 8, .1, .2)
    labels = embed.check(dict(pitch=60, family=3, source=0, velocity=75), 4000)
    torch.manual_seed(0)
    gone = torch.stack([v < 0 for v in embed.drop(labels).values()])
    assert abs(gone.float().mean() - (1-.9*.8)) < .02 and abs(gone.all(0).float().mean() - (.1+.9*.2**4)) < .02

def test_dropout_of_labels_in_training_only():
    var = make(label_drop=1., label_drop_each=0.)
    tokens = draw(var, 3)
    assert not torch.equal(var(tokens, ALL), var(tokens))
    assert torch.equal(var.train()(tokens, ALL), var(tokens))

# --- seeds and batches

def test_a_note_depends_on_seed_and_index_only(var):
    kwargs = dict(cfg_scale=2., top_k=100, top_p=.95)
    six = dict(pitch=torch.arange(50, 56))
    whole = flat(var.generate(six, seed=7, **kwargs))
    assert torch.equal(whole, flat(var.generate(six, seed=7, **kwargs)))
    for first, n in ((0, 1), (0, 4), (2, 3), (5, 1)):
        assert torch.equal(flat(var.generate(dict(pitch=six['pitch'][first:first+n]), seed=7, first=first, **kwargs)), whole[first:first+n])
    assert (flat(var.generate(six, seed=8, **kwargs)) != whole).any(1).all()
    same = flat(var.generate(dict(pitch=50), 6, seed=7, **kwargs))
    assert len({tuple(t.tolist()) for t in same}) == 6
    a, b = flat(var.generate(six)), flat(var.generate(six))
    assert not torch.equal(a, b)  # no seed, another draw

def test_uniforms():
    u = note_uniforms(3, 0, 50, 400)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - .5) < .01 and torch.equal(u[20], note_uniforms(3, 20, 1, 400)[0])
    assert len(u.flatten().unique()) > 19900 and not torch.equal(u, note_uniforms(2**40 + 3, 0, 50, 400))

@pytest.mark.parametrize('cfg_scale, rows', [(0, 3), (0., 3), ([0]*4, 3), (1.5, 6), ([0, 0, 0, 1], 6)])
def test_one_pass_a_scale_and_no_second_batch_without_guidance(var, cfg_scale, rows):
    seen = []
    hook = var.trunk.register_forward_hook(lambda m, args, out: seen.append(tuple(args[0].shape[:2])))
    try: var.generate(ALL, cfg_scale=cfg_scale)
    finally: hook.remove()
    assert seen == [(rows, n) for n in var.lengths]

def test_modulation_is_computed_once(var):
    seen = []
    modulation, var.trunk.modulation = var.trunk.modulation, lambda c: seen.append(len(c)) or modulation(c)
    try: var.generate(ALL, cfg_scale=1.)
    finally: del var.trunk.modulation
    assert seen == [6]

def test_stream_shows_every_scale(var):
    parts = list(var.stream(ALL, seed=3, cfg_scale=1.))
    assert [len(p) for p in parts] == [1, 2, 3, 4]
    tok, whole = Tokenizer(CFG).eval(), var.generate(ALL, seed=3, cfg_scale=1.)
    for part in parts:
        assert all(torch.equal(a, b) for a, b in zip(part, whole))
        assert tok.decode(part).shape == (3, *CFG.image_shape)

def test_settings_by_scale(var):
    by = lambda **kw: flat(var.generate(ALL, seed=1, **kw))
    assert torch.equal(by(cfg_scale=3.), by(cfg_scale=[0, 1, 2, 3])) and torch.equal(by(cfg_scale=3., cfg_ramp=False), by(cfg_scale=(3,)*4))
    assert torch.equal(by(temperature=.7, top_k=9, top_p=.8), by(temperature=[.7]*4, top_k=torch.tensor([9]*4), top_p=np.full(4, .8)))
    greedy, mixed = by(temperature=0), by(temperature=[0, 0, 1, 1])
    assert torch.equal(greedy[:, :5], mixed[:, :5]) and not torch.equal(greedy[:, 5:], mixed[:, 5:])
    assert torch.equal(by(top_k=None, top_p=None), by(top_k=0, top_p=1))

# --- sampling

def counts(p, n=200000, **kw):
    torch.manual_seed(0)
    return torch.bincount(sample(p.log().expand(n, len(p)), torch.rand(n), **kw), minlength=len(p))/n

def test_samples_follow_the_distribution():
    p = torch.tensor([.05, .5, .3, .15])
    cut = lambda *keep: torch.stack([p[i] if i in keep else torch.tensor(0.) for i in range(4)])/sum(p[i] for i in keep)
    for kw, want in ((dict(), p), (dict(top_k=2), cut(1, 2)), (dict(top_p=.6), cut(1, 2)), (dict(top_p=.96), p), (dict(top_p=.94), cut(1, 2, 3)), (dict(top_p=1e-9), cut(1)),
                     (dict(top_k=3, top_p=.8), cut(1, 2)), (dict(top_k=4), p), (dict(temperature=2.), p**.5/(p**.5).sum()), (dict(temperature=1e-42), cut(1))):
        assert (counts(p, **kw) - want).abs().max() < .005, kw

def test_the_ends_of_the_unit_interval_select_codes_with_nonzero_probability():
    logits = torch.full((2000, 300), -math.inf)
    logits[:, 20:200] = torch.randn(2000, 180)
    for u in (0., 1 - 2**-24):
        for kw in ({}, dict(top_k=30), dict(top_p=.5)):
            i = sample(logits, torch.full((2000,), u), **kw)
            assert (20 <= i).all() and (i < 200).all()

def test_top_values_are_those_of_topk():
    x = torch.randn(7, 5, 100)
    assert torch.equal(top_values(x, 13), x.topk(13).values)

def test_onednn_linear():
    x, w, b = torch.randn(3, 500, 64), torch.randn(80, 64), torch.randn(80)  # enough for oneDNN
    for bias in (b, None):
        want = F.linear(x, w, bias)
        with torch.no_grad():
            torch.testing.assert_close(onednn_linear(x, w, bias), want, atol=1e-4, rtol=1e-5)
            torch.testing.assert_close(onednn_linear(x, w, bias, gelu=True), F.gelu(want, approximate='tanh'), atol=1e-4, rtol=1e-5)
    assert onednn_linear(x, w.requires_grad_(), b).requires_grad
    with torch.no_grad(): assert onednn_linear(x.bfloat16(), w.bfloat16(), None).dtype == torch.bfloat16

@torch.no_grad()
def test_a_onednn_copy_shares_the_weights_and_gives_the_same_logits():
    var = make(width=128, heads=2)
    fast, tokens = onednn_copy(var), [t.repeat(8, 1) for t in draw(var, 3)] # enough tokens for oneDNN
    assert type(var.trunk.blocks[0].mlp[0]) is nn.Linear and type(fast.trunk.blocks[0].mlp[0]) is OneDNNLinear
    assert fast.trunk.blocks[0].mlp[0].gelu and type(fast.trunk.blocks[0].mlp[1]) is nn.Identity and not fast.trunk.blocks[0].mlp[2].gelu
    assert [p.data_ptr() for p in fast.parameters()] == [p.data_ptr() for p in var.parameters()]
    torch.testing.assert_close(fast(tokens), var(tokens), atol=1e-3, rtol=1e-4)
    var.head.weight.mul_(2) # a change of the model is one of the copy
    torch.testing.assert_close(fast(tokens), var(tokens), atol=1e-3, rtol=1e-4)

@pytest.mark.parametrize('settings', [{}, dict(cfg_scale=2.), dict(cfg_scale=2., cfg_ramp=False, top_k=20, top_p=.9, temperature=[1, .9, .8, 0])])
@pytest.mark.parametrize('kwargs', [{}, dict(shared_adaln=True), dict(reference_dim=8)])
def test_the_sampler_gives_the_tokens_of_the_plain_loop(settings, kwargs):
    var = make(**kwargs)
    assert torch.equal(flat(generate(var, ALL, seed=3, **settings)), flat(var.generate(ALL, seed=3, **settings)))
    for a, b in zip(stream(var, ALL, seed=3, **settings), var.stream(ALL, seed=3, **settings)): assert torch.equal(flat(a), flat(b))

# --- precision

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_models_compute_logits_in_float32(dtype):
    var = make(sharp=1.).to(dtype)
    h = torch.randn(2, 3, 64).to(dtype)
    assert torch.allclose(var.logits(h), F.linear(h.float(), var.head.weight.float(), var.head.bias.float()), atol=1e-6)
    tokens, got = heard(var, ALL, seed=0, cfg_scale=2., top_k=50)
    assert got.dtype == torch.float32 and not torch.equal(got, got.to(dtype).float())
    s = torch.tensor([v[0] for v in scale_settings(4, 256, 2.)])[var.scale_index][:, None]
    assert (got - (1+s)*var(tokens, ALL) + s*var(tokens)).abs().max() < (.05 if dtype == torch.bfloat16 else .01)
    assert var(tokens, ALL).dtype == torch.float32

def test_autocast_training_step():
    var = make().train()
    with torch.autocast('cpu', torch.bfloat16): loss, per = var.loss(draw(var, 3), ALL)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in var.parameters())

# --- recorded passes

class Tape(TorchDispatchMode):
    "Replaces a CUDA graph on the CPU: records every operation with its tensors; `replay` repeats them on the same memory."
    def __init__(self): super().__init__(); self.ops = []
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.ops.append((func, args, kwargs or {}, out))
        return out
    def replay(self):
        for func, args, kwargs, out in self.ops:
            new = func(*args, **kwargs)
            for a, b in zip(*[(t,) if isinstance(t, torch.Tensor) else t if isinstance(t, (tuple, list)) else () for t in (out, new)]):
                if isinstance(a, torch.Tensor) and a.data_ptr() != b.data_ptr(): a.copy_(b)

@pytest.mark.parametrize('settings', [{}, dict(cfg_scale=2.), dict(top_k=20, top_p=.9, temperature=[1, .9, .8, 0]), dict(cfg_scale=2., cfg_ramp=False, top_p=.5)])
@pytest.mark.parametrize('shared', [False, True])
@torch.no_grad()
def test_passes_can_be_recorded(monkeypatch, settings, shared):
    monkeypatch.setattr(mars.parts.sampling, 'top_values', lambda x, k: x.topk(k).values)
    var = make(shared_adaln=shared)
    run = Sampler(var, 3, scale_settings(4, 256, **settings))
    tapes = [Tape() for _ in range(4)]
    for k, tape in enumerate(tapes):
        with tape: run.run_pass(k)
    run.run_pass = lambda k: tapes[k].replay()
    for seed, labels in ((5, ALL), (6, dict(pitch=[70, 60, 50])), (5, ALL)):
        *_, got = run.stream(var.label_embed.check(labels, 3), note_uniforms(seed, 0, 3, 30))
        assert torch.equal(flat(got), flat(var.generate(labels, seed=seed, **settings)))
    var.head.weight.mul_(-1)  # weights are read where they lie, as a graph would
    *_, got = run.stream(var.label_embed.check(ALL), note_uniforms(5, 0, 3, 30))
    assert torch.equal(flat(got), flat(var.generate(ALL, seed=5, **settings)))

def test_graphs_need_cuda_and_failures_warn(var, monkeypatch):
    with pytest.raises(ValueError, match='graph=True needs a model on a CUDA device'): generate(var, graph=True)
    class Broken:
        def __init__(self): raise RuntimeError('no stream\nhere')
    monkeypatch.setattr(torch.cuda, 'Stream', Broken)
    with pytest.warns(UserWarning, match=r'run one by one \(no stream\)'): run = GraphedSampler(Sampler(var, 1, scale_settings(4, 256)))
    *_, got = run.stream(var.label_embed.check({}), note_uniforms(5, 0, 1, 30))
    assert torch.equal(flat(got), flat(var.generate(seed=5)))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@torch.no_grad()
def test_graphs_on_a_gpu():
    var = make().cuda()
    for kwargs in (dict(cfg_scale=2., top_k=20, top_p=.9), dict(temperature=0)):
        for seed in (1, 2):
            a, b = (flat(generate(var, ALL, seed=seed, graph=g, **kwargs)).cpu() for g in (True, False))
            assert (a == b).float().mean() > .99
    assert len(var._samplers) == 2 and all('run_pass' in vars(p.sampler) for p in var._samplers.values()) # replayed
    assert torch.equal(flat(generate(var, ALL, seed=1, temperature=0)), flat(generate(var, ALL, seed=1, temperature=0)))

@torch.no_grad()
def test_recorded_passes_are_stored_and_used_by_one_generation_at_a_time(monkeypatch):
    "The cache of graphs, on a CPU that reports itself as a GPU and records nothing."
    var, made = make(), []
    class OnGPU(torch.nn.Parameter): is_cuda = True
    var.start = OnGPU(var.start.data)
    class Graph:
        def __init__(self, sampler, k): self.sampler, self.k = sampler, k
        def replay(self): Sampler.run_pass(self.sampler, self.k)
    monkeypatch.setattr(mars.parts.inference, 'record_passes', lambda sampler: made.append(sampler) or [Graph(sampler, k) for k in range(4)])
    want = flat(generate(var, ALL, seed=1, graph=False))
    assert torch.equal(flat(generate(var, ALL, seed=1)), want) and len(made) == 1
    generate(var, ALL, seed=2)
    assert len(made) == 1
    a, b = stream(var, ALL, seed=1), stream(var, ALL, seed=2)  # in turns: each with buffers of its own
    for one, other in zip(a, b): pass
    assert torch.equal(flat(one), want) and torch.equal(flat(other), flat(generate(var, ALL, seed=2, graph=False))) and len(made) == 2
    for t in (.5, .6, .7): generate(var, ALL, seed=1, temperature=t)
    assert len(made) == 5 and len(var._samplers) == 2
    generate(var, ALL, seed=1, temperature=.6)
    assert len(made) == 5
    var.head.weight.data = var.head.weight.data.clone()  # moved: the old addresses are no longer the model's
    generate(var, ALL, seed=1, temperature=.6)
    assert len(made) == 6
    for _ in stream(var, ALL, seed=1, temperature=.6): break
    del _
    assert torch.equal(flat(generate(var, ALL, seed=1)), want)

def test_models_can_be_copied(var):
    for other in (copy.deepcopy(var), pickle.loads(pickle.dumps(var))):
        assert torch.equal(flat(other.generate(ALL, seed=1)), flat(var.generate(ALL, seed=1)))

# --- the trunk on its own

@pytest.mark.parametrize('shared', [False, True])
@torch.no_grad()
def test_the_trunk_is_reusable_by_other_models(shared):
    torch.manual_seed(0)
    trunk = Trunk(64, 2, 2, shared_adaln=shared, gamma_init=1.).eval()
    x, mods = torch.randn(3, 10, 64), trunk.modulation(torch.randn(3, 64))
    causal = torch.ones(10, 10).tril().bool()
    cache = trunk.cache(3, 10)
    one_by_one = torch.cat([trunk(x[:, i:i+1], mods, cache=cache) for i in range(10)], 1)
    torch.testing.assert_close(one_by_one, trunk(x, mods, causal), atol=1e-5, rtol=1e-5)
    free = trunk(x, mods)                                          # bidirectional, as masked prediction needs
    torch.testing.assert_close(free, trunk(x, mods, torch.ones(10, 10).bool()), atol=1e-5, rtol=1e-5)
    own = torch.stack([causal, causal.T, torch.ones(10, 10).bool()])[:, None] # a mask for each sample
    torch.testing.assert_close(trunk(x, mods, own)[2], free[2], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='make it longer'): trunk(x, mods, cache=trunk.cache(3, 9))

@torch.no_grad()
def test_adaptive_norm_is_the_formula():
    torch.manual_seed(0)
    trunk = Trunk(32, 1, 2, gamma_init=1.).eval()
    x, cond, block = torch.randn(2, 5, 32), torch.randn(2, 32), trunk.blocks[0]
    nn.init.normal_(block.ada.weight); nn.init.normal_(trunk.head_ada.weight)
    g1, g2, s1, s2, b1, b2 = block.ada(F.silu(cond))[:, None].chunk(6, -1)
    ln = lambda y: F.layer_norm(y, (32,), eps=1e-6)
    y = x + g1*block.attention(ln(x)*(1+s1) + b1)
    y = y + g2*block.mlp(ln(y)*(1+s2) + b2)
    s, b = trunk.head_ada(F.silu(cond))[:, None].chunk(2, -1)
    torch.testing.assert_close(trunk(x, trunk.modulation(cond)), ln(y)*(1+s) + b, atol=2e-5, rtol=1e-5)

@torch.no_grad()
def test_attention_is_the_formula():
    torch.manual_seed(0)
    for qk_norm in (True, False):
        att, x = mars.var.Attention(32, 2, qk_norm), torch.randn(2, 5, 32)
        att.q_bias.normal_(); att.v_bias.normal_()
        if qk_norm: att.log_scale.copy_(torch.tensor([1., 9.])[:, None, None])  # 9 is over ln 100 and clamped
        q, k, v = [F.linear(x, w).view(2, 5, 2, 16).transpose(1, 2) for w in att.qkv.weight.chunk(3)]
        q, v = q + att.q_bias.view(2, 1, 16), v + att.v_bias.view(2, 1, 16)
        if qk_norm: a = F.normalize(q, dim=-1)@F.normalize(k, dim=-1).mT*torch.tensor([math.e, 100.])[:, None, None]
        else: a = q@k.mT/4
        want = att.proj((a.softmax(-1)@v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(att(x), want, atol=1e-4, rtol=1e-4)

def test_stochastic_depth():
    var = make(drop_path=.9, depth=3, width=64, heads=2)
    assert [b.p_drop for b in var.trunk.blocks] == pytest.approx([0, .45, .9])
    tokens = draw(var, 3)
    assert torch.equal(var(tokens), var(tokens))
    var.train()
    assert not torch.equal(var(tokens), var(tokens))

def test_initialisation():
    torch.manual_seed(0)
    var = VAR(VARConfig(depth=8), TokenizerConfig.preset('paper'))
    w, std = 512, math.sqrt(1/(3*512))
    close = lambda t, want: t.std().item() == pytest.approx(want, rel=.05)
    b = var.trunk.blocks[3]
    assert close(b.attention.qkv.weight, std) and close(b.mlp[0].weight, std) and close(var.position, std) and close(var.label_embed.tables['pitch'].weight, std)
    assert close(b.attention.proj.weight, std/4) and close(b.mlp[2].weight, std/4)  # sqrt(2*8)
    assert close(b.ada.weight[:2*w], std*1e-3) and close(b.ada.weight[2*w:], std/2) and close(var.trunk.head_ada.weight, std/2) and close(var.head.weight, std*.02)
    assert all(not p.any() for n, p in var.named_parameters() if n.endswith('bias'))
    assert var.trunk.blocks[0].attention.log_scale.exp().mean().item() == pytest.approx(4)

# --- the loss

def test_untrained_loss_is_uniform_and_tokens_have_equal_weight():
    var = make(sharp=.02)
    tokens = draw(var, 3)
    loss, per = var.loss(tokens, ALL)
    assert loss.item() == pytest.approx(math.log(256), abs=.05)
    logits = var(tokens, ALL)
    parts = [F.cross_entropy(l.flatten(0, 1), t.flatten()) for l, t in zip(logits.split(var.lengths, 1), tokens)]
    torch.testing.assert_close(per['loss'], torch.stack(parts))
    assert loss.item() == pytest.approx((per['loss']@torch.tensor(var.lengths).float()/30).item(), rel=1e-5)
    greedy = var.generate(ALL, temperature=0)
    assert (var.loss(greedy, ALL)[1]['accuracy'] == 1).all()

# --- sizes

def millions(depth, V=16384, classes=12, scales=None, branches=1, **kw):
    model, config, more = (VAR, TokenizerConfig, {}) if branches == 1 else (ProductVAR, ProductTokenizerConfig, dict(branches=branches))
    t = config.preset('paper', codebook_size=V, **more, **(dict(scales=scales) if scales else {}))
    with torch.device('meta'): m = model(VARConfig(depth=depth, **kw), t)
    return (sum(p.numel() for p in m.parameters()) - sum(p.numel() for p in m.label_embed.parameters()) + classes*m.cfg.width)/1e6

@pytest.mark.parametrize('want, kw', [(46.9, dict(depth=8)), (141.6, dict(depth=12)), (321.5, dict(depth=16)), (227.1, dict(depth=16, shared_adaln=True)), (614.9, dict(depth=20)),
    (1050, dict(depth=24)), (338.3, dict(depth=16, branches=2)), (310.3, dict(depth=16, V=4096, classes=1001, scales=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16))),
    (2354, dict(depth=36, V=4096, classes=1001, scales=(1, 2, 3, 4, 6, 9, 13, 18, 24, 32), shared_adaln=True))])
def test_parameter_counts(want, kw): assert millions(**kw) == pytest.approx(want, rel=1e-3)

# --- product quantization

@torch.no_grad()
def test_branches():
    torch.manual_seed(0)
    cfg = ProductTokenizerConfig.preset('tiny', **SMALL, branches=2)
    tok, var = ProductTokenizer(cfg).eval(), ProductVAR(VARConfig.preset('tiny', gamma_init=1.), cfg).eval()
    var.bind(tok)
    var.head.weight.mul_(50)
    tokens = var.generate(ALL, seed=0, cfg_scale=1.)
    assert [tuple(t.shape) for t in tokens] == [(3, n, 2) for n in var.lengths] and (flat(tokens)[..., 0] != flat(tokens)[..., 1]).any()
    assert torch.equal(flat(var.generate(dict(pitch=ALL['pitch'][1:]), seed=0, first=1)), flat(var.generate(dict(pitch=ALL['pitch']), seed=0))[1:])
    greedy = var.generate(ALL, temperature=0)
    logits = var(greedy, ALL)
    assert logits.shape == (3, 30, 2, 256) and torch.equal(logits.argmax(-1), flat(greedy))
    loss, per = var.loss(tokens, ALL)
    logits = var(tokens, ALL)
    want = sum(F.cross_entropy(logits[:, :, i].flatten(0, 1), flat(tokens)[..., i].flatten()) for i in range(2))/2
    torch.testing.assert_close(loss, want)
    assert per['loss'].shape == per['accuracy'].shape == (4,)
    assert [tok.decode(part).shape for part in var.stream(ALL, seed=0)] == [(3, *cfg.image_shape)]*4
    with pytest.raises(ValueError, match='token map 0'): var([t[..., 0] for t in tokens])

# --- bad input: one sentence each

NAN = float('nan')
@pytest.mark.parametrize('kwargs, message', [
    (dict(labels=dict(pitch=128)), 'label pitch is 128, outside 0..127'), (dict(labels=dict(pitch=[60, -2])), 'label pitch is -2, outside'), (dict(labels=dict(velocity=0)), 'label velocity is 0, outside 1..127'),
    (dict(labels=dict(family=11)), 'label family is 11'), (dict(labels=dict(source=3)), 'label source is 3'), (dict(labels=dict(colour=1)), "'colour' is unknown"), (dict(labels=dict(pitch=60.5)), 'must hold integers'),
    (dict(labels=dict(pitch=True)), 'must hold integers'), (dict(labels=dict(pitch='C4')), 'give whole numbers'), (dict(labels=dict(pitch=2**70)), 'give whole numbers'), (dict(labels=dict(pitch=[[60]])), r'shape \(1, 1\)'),
    (dict(labels=dict(pitch=[60, 61], family=[1, 2, 3])), 'label pitch has shape'), (dict(labels=dict(pitch=[60, 61]), n=3), 'there are 3 notes'), (dict(labels=dict(pitch=[])), 'empty list'), (dict(labels=[60]), 'give a dict'),
    (dict(n=0), 'at least one note'), (dict(n=-1), 'at least one note'), (dict(n=2.5), 'at least one note'), (dict(n='3'), 'at least one note'),
    (dict(cfg_scale=-1), 'cfg_scale is -1'), (dict(cfg_scale=NAN), 'cfg_scale is nan'), (dict(cfg_scale=math.inf), 'cfg_scale is inf'), (dict(cfg_scale=[1, 2]), 'one for each of the 4 scales'), (dict(cfg_scale=[0, 0, 0, NAN]), 'cfg_scale is nan'),
    (dict(temperature=-.1), 'temperature is -0.1'), (dict(temperature=NAN), 'temperature is nan'), (dict(temperature='hot'), 'temperature'), (dict(temperature=None), 'temperature is None'),
    (dict(top_k=257), 'top_k is 257; it must be a whole number in 0..256'), (dict(top_k=-1), 'top_k is -1'), (dict(top_k=2.5), 'top_k is 2.5'), (dict(top_k=[1, 2, 3, 300]), 'top_k is 300'),
    (dict(top_p=2), 'top_p is 2'), (dict(top_p=-.1), 'top_p is -0.1'), (dict(top_p=NAN), 'top_p is nan'), (dict(top_p='x'), 'top_p'),
    (dict(seed=-1), 'seed is -1'), (dict(seed=1.5), 'seed is 1.5'), (dict(seed='x'), "seed is 'x'"), (dict(seed=True), 'seed is True')])
def test_invalid_input_raises_one_sentence(var, kwargs, message):
    with pytest.raises(ValueError, match=message) as e: var.generate(**kwargs)
    assert '\n' not in str(e.value)

def test_invalid_tokens_raise_one_sentence(var):
    tokens = draw(var, 2)
    with pytest.raises(ValueError, match='teacher forcing needs all 4'): var(tokens[:2])
    with pytest.raises(ValueError, match='teacher forcing needs all 4'): var([])
    with pytest.raises(ValueError, match='one B >= 1'): var([t[:0] for t in tokens])
    with pytest.raises(ValueError, match='token map 3'): var(tokens[:3] + [tokens[3][:1]])
    with pytest.raises(ValueError, match='must be int64 in 0..255'): var(tokens[:3] + [tokens[3] + 256])
    with pytest.raises(ValueError, match='there are 2 notes'): var(tokens, dict(pitch=[1, 2, 3]))
    with pytest.raises(ValueError, match='codebook_size differ'): var.bind(Tokenizer(TokenizerConfig.preset('tiny', **{**SMALL, 'codebook_size': 128})))

@pytest.mark.parametrize('kwargs, message', [(dict(depth=0), 'depth must be >= 1, got 0'), (dict(depth=2, width=65, heads=2), 'multiple of heads, got 65 and 2'), (dict(heads=-1), 'heads must be >= 0, got -1'), (dict(label_drop=1.5), 'label_drop must be in .0, 1., got 1.5'),
    (dict(drop_path=float('nan')), 'drop_path must be finite, got nan'), (dict(mlp_ratio=0.), 'mlp_ratio must be > 0, got 0.0'), (dict(n_instruments=-1), 'n_instruments must be >= 0, got -1')])
def test_invalid_configs_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message): VARConfig(**kwargs)

def test_size_rule(): assert [(c.width, c.heads, c.depth) for c in map(VARConfig.preset, ('tiny', 'small', 'paper'))] == [(64, 2, 2), (256, 4, 5), (1024, 16, 16)]

# --- the benchmark, at miniature size: that it runs and what it says, never how fast

def test_benchmark(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT/'benchmarks'/'var.py'), '--quick', '--device', 'cpu', '--json', str(tmp_path/'out.json')], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    out = json.loads((tmp_path/'out.json').read_text())
    assert (out['passes'], out['tokens'], out['loop_agreement']) == (4, 30, 1.) and out['matmul_gflops'] > 0 and out['bandwidth_gb'] > 0
    for guided in ('plain', 'guided'):
        r = out[guided]
        assert list(r['stages']) == ['tokens', 'decode', 'phase'] and list(r['batches']) == ['1', '2'] and r['note'] == pytest.approx(sum(t['least'] for t in r['stages'].values()))
        for name in ('flat', 'loop'): assert r[name]['ratio'] == pytest.approx(r[name]['baseline']['least']/r[name]['sampler']['least'])
        assert set(r['roofline']) == {'bandwidth', 'gflop', 'flops'}
    gflop = lambda rows: (rows*(2*30*2*12*64**2 + (1 + 4*5 + 9*14 + 16*30)*4*64*2 + 2*14*64**2) + 2*30*256*64)/1e9
    assert out['plain']['roofline']['gflop'] == pytest.approx(gflop(1)) and out['guided']['roofline']['gflop'] == pytest.approx(gflop(2))
    for said in ('roofline', 'one token a pass', 'plain next-scale loop', 'notes/s'): assert said in done.stdout

def test_generation_in_training_mode_is_determined_by_the_seed():
    cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
    torch.manual_seed(0)
    v = VAR(VARConfig.preset('tiny', gamma_init=1., drop_path=0.9, depth=3, width=64), cfg).train()
    with torch.no_grad(): v.head.weight.mul_(50)
    a, b = v.generate(n=4, seed=1), v.generate(n=4, seed=1)
    assert v.training and all(torch.equal(x, y) for x, y in zip(a, b))
    assert all(torch.equal(x, y) for x, y in zip(a, v.eval().generate(n=4, seed=1)))

@pytest.mark.parametrize('dtype', [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype):
    cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
    v = VAR(VARConfig.preset('tiny'), cfg).eval()
    assert all(torch.equal(a, b) for a, b in zip(v.generate(dict(pitch=torch.tensor([60, 61], dtype=dtype)), seed=0), v.generate(dict(pitch=[60, 61]), seed=0)))

def test_extreme_settings_do_not_crash():
    cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
    torch.manual_seed(0)
    v = VAR(VARConfig.preset('tiny'), cfg).eval()
    best = v.generate(temperature=0, seed=0)
    for kw in (dict(top_p=1e-50), dict(temperature=1e-50)): assert all(torch.equal(a, b) for a, b in zip(v.generate(seed=0, **kw), best))
    assert len(v.generate(cfg_scale=torch.tensor(2.), seed=0)) == 4
    for kw, words in ((dict(cfg_scale=1e39), '0..1000'), (dict(cfg_scale={0: 1, 1: 1, 2: 1, 3: 1}), 'is a dict'), (dict(first=-1), 'first is -1'), (dict(labels=0), 'give a dict')):
        with pytest.raises(ValueError, match=words.replace('.', r'\.')): v.generate(**kw)

@pytest.mark.parametrize('kw', [dict(drop_path=1.), dict(gamma_init=float('nan')), dict(mlp_ratio=float('inf')), dict(depth=0)])
def test_config_refuses_untrainable_models(kw):
    with pytest.raises(ValueError, match=next(iter(kw))): VARConfig.preset('tiny', **kw)
