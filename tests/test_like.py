"""The label like=: a sound to resemble, from the embedding of a note to the note that is made."""
import json, math
import numpy as np
import pytest
import torch
from mars.nexttoken import NextToken
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig, LabelEmbedding, Passes, drop_labels, note_uniforms, scale_settings

CFG = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
D = 6

def make(model=VAR, **kwargs):
    "A random model whose blocks and labels matter."
    torch.manual_seed(0)
    var = model(VARConfig.preset('tiny', **{'gamma_init': 1., 'like_dim': D, **kwargs}), CFG).eval()
    with torch.no_grad(): var.bind(Tokenizer(CFG)).head.weight.mul_(50)
    return var

def draw(var, B): return [torch.randint(CFG.codebook_size, (B, n)) for n in var.lengths]
def flat(tokens): return torch.cat(tokens, 1)

@pytest.fixture(scope='module')
def var(): return make()

@pytest.fixture(scope='module')
def sounds(): return torch.rand(3, D, generator=torch.Generator().manual_seed(1))

ALL = dict(pitch=[50, 60, 70], family=[0, 3, 10], source=[0, 1, 2], velocity=[1, 64, 127])
NONE = torch.full((D,), math.nan)

# --- what is left out changes nothing

def test_without_it_a_model_is_what_it_was(var):
    plain = make(like_dim=0)
    assert set(var.state_dict()) - set(plain.state_dict()) == {'labels.like.weight', 'labels.like.bias', 'labels.no_like.weight'}
    assert not any('like' in k for k in plain.state_dict()) and 'like' not in plain.labels.check({})
    assert VARConfig.from_dict({k: v for k, v in VARConfig.preset('tiny').kept().items()}) == VARConfig.preset('tiny')
    assert not {'like_dim', 'like_drop'} & set(VARConfig.preset('tiny', like_drop=.3).kept()) and VARConfig.preset('tiny', like_dim=4, like_drop=.3).kept()['like_drop'] == .3

def test_without_it_chance_is_used_as_before():
    "The numbers that version 0.1 drew for weights, for the labels dropped and for the codes."
    torch.manual_seed(0)
    labels = LabelEmbedding(VARConfig.preset('tiny').labels, 64)
    after = torch.rand(())
    torch.manual_seed(0)
    tables = [torch.nn.Embedding(n+1, 64) for n in VARConfig.preset('tiny').labels.values()]
    for t in tables: torch.nn.init.trunc_normal_(t.weight, std=math.sqrt(1/192))
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(tables, labels.tables.values()))
    assert torch.rand(()) == after
    many = labels.check(dict(pitch=60, family=3), 50)
    torch.manual_seed(1)
    gone = torch.rand(50) < .3
    want = {k: v.masked_fill(gone | (torch.rand(50) < .2), -1) for k, v in many.items()}
    torch.manual_seed(1)
    assert all(torch.equal(v, want[k]) for k, v in drop_labels(many, .3, .2, .9).items())

# --- the label

@pytest.mark.parametrize('model', [VAR, NextToken])
@torch.no_grad()
def test_a_null_is_no_sound(model, sounds):
    var = make(model)
    tokens = draw(var, 3)
    without = var(tokens, ALL)
    for null in (None, NONE, NONE.expand(3, -1), NONE.numpy()): assert torch.equal(without, var(tokens, {**ALL, 'like': null}))
    given = var(tokens, {**ALL, 'like': sounds})
    assert all((given - without)[i].abs().max() > 1e-2 for i in range(3))
    mixed = var(tokens, {**ALL, 'like': torch.stack([sounds[0], NONE, sounds[2]])})
    torch.testing.assert_close(mixed, torch.stack([given[0], without[1], given[2]]), atol=1e-5, rtol=0)
    assert (var(tokens, {**ALL, 'like': torch.zeros(D)}) - without).abs().max() > 1e-2

@torch.no_grad()
def test_scale_and_type_do_not_matter(var, sounds):
    tokens = draw(var, 3)
    want = var(tokens, dict(like=sounds))
    for same in (1e-3*sounds, 1e4*sounds, sounds.double(), sounds.numpy(), np.float64(7)*sounds.numpy()): torch.testing.assert_close(var(tokens, dict(like=same)), want, atol=1e-4, rtol=0)
    torch.testing.assert_close(var(tokens, dict(like=sounds[0]))[:1], want[:1], atol=1e-4, rtol=0)

def test_what_is_learned_of_null_and_sounds_is_apart(var, sounds):
    weights = [var.labels.like.weight, var.labels.no_like.weight]
    for like, reached in ((sounds, (True, False)), (None, (False, True))):
        grads = torch.autograd.grad(var(draw(var, 3), {**ALL, 'like': like}).square().sum(), weights, allow_unused=True)
        assert [g is not None and bool(g.any()) and bool(g.isfinite().all()) for g in grads] == [*reached]

def test_it_is_dropped_alone_and_with_the_others(sounds):
    labels = make().labels.check({**{k: v[0] for k, v in ALL.items()}, 'like': sounds[0]}, 20000)
    torch.manual_seed(0)
    out = drop_labels(labels, .1, 0., .3)
    lost, others = out['like'].isnan().all(1), torch.stack([out[k] < 0 for k in ALL]).all(0)
    assert torch.equal(lost, out['like'].isnan().any(1)) and torch.equal(out['like'][~lost], labels['like'][~lost])
    assert abs(lost.float().mean() - (1 - .9*.7)) < .015 and abs(others.float().mean() - .1) < .01 and bool(lost[others].all())
    assert not drop_labels(labels, 0., 1., 0.)['like'].isnan().any() and drop_labels(labels, 0., 0., 1.)['like'].isnan().all()

def test_it_is_dropped_in_training_only(sounds):
    var = make(label_drop=0., label_drop_each=0., like_drop=1.)
    tokens = draw(var, 3)
    for training in (True, False):
        var.train(training)
        with torch.no_grad(): assert torch.allclose(var(tokens, {**ALL, 'like': sounds}), var(tokens, ALL), atol=1e-6) is training

# --- generation

@pytest.mark.parametrize('model', [VAR, NextToken])
@pytest.mark.parametrize('cfg_scale', [0., 2.5])
@torch.no_grad()
def test_cached_logits_are_the_teacher_forced_ones(model, cfg_scale, sounds):
    var, seen = make(model), []
    score = var.score
    var.score = lambda h: seen.append(score(h)) or seen[-1]
    asked = {**ALL, 'like': torch.stack([sounds[0], NONE, sounds[1]])}
    tokens = var.generate(asked, cfg_scale=cfg_scale, seed=1, top_k=50)
    del var.score
    s = torch.tensor([v[0] for v in scale_settings(4, 256, cfg_scale)])[var.scale_of][:, None]
    torch.testing.assert_close(torch.cat(seen, 1), (1+s)*var(tokens, asked) - s*var(tokens), atol=2e-4, rtol=0)

def test_a_note_is_its_seed_index_and_sound(var, sounds):
    whole = flat(var.generate(dict(pitch=60, like=sounds), seed=3))
    assert torch.equal(flat(var.generate(dict(pitch=60, like=sounds[1:]), seed=3, first=1)), whole[1:])
    assert torch.equal(flat(var.generate(dict(pitch=60, like=sounds[0]), 3, seed=3))[:1], whole[:1])
    assert torch.equal(flat([*var.stream(dict(pitch=60, like=sounds), seed=3)][-1]), whole)
    assert (flat(var.generate(dict(pitch=60, like=sounds.flip(0)), seed=3))[0] != whole[0]).any() and torch.equal(flat(var.generate(dict(pitch=60, like=sounds.flip(0)), seed=3))[1], whole[1])

@torch.no_grad()
def test_recorded_buffers_are_filled_anew(var, sounds):
    "What a replay of recorded passes reads: fixed buffers, written by each run."
    passes, u = Passes(var, 3, scale_settings(4, 256, 1.)), note_uniforms(5, 0, 3, 30)
    address = passes.ids['like'].data_ptr()
    for like in (sounds, None, sounds.flip(0)):
        *_, got = passes.run(var.labels.check({**ALL, 'like': like}), u)
        assert torch.equal(flat(got), flat(var.generate({**ALL, 'like': like}, seed=5, cfg_scale=1.))) and passes.ids['like'].data_ptr() == address

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_models(dtype, sounds):
    var = make()
    for name, child in var.named_children():
        if name != 'quantizer': child.to(dtype)
    for p in var._parameters.values(): p.data = p.data.to(dtype)
    out = var(draw(var, 3), {**ALL, 'like': 1e6*sounds})
    assert out.dtype == torch.float32 and out.isfinite().all() and len(flat(var.generate(dict(like=sounds), seed=0, cfg_scale=1.))) == 3

@pytest.mark.parametrize('like, message', [
    (torch.rand(D+1), f'give {D} floats'), (torch.rand(2, D), 'there are 3 notes'), (torch.rand(1, 1, D), f'give {D} floats'), (torch.ones(D, dtype=torch.int64), f'give {D} floats'),
    ('piano', 'label like is str'), (torch.tensor([math.nan, *[1.]*(D-1)]), 'nothing but NaN'), (torch.tensor([math.inf, *[1.]*(D-1)]), 'infinity'), (60, f'give {D} floats'), ([], f'give {D} floats')])
def test_bad_embeddings_get_one_sentence(var, like, message):
    with pytest.raises(ValueError, match=message) as e: var.generate(dict(pitch=60, like=like), 3)
    assert '\n' not in str(e.value) and len(str(e.value)) < 200

def test_a_model_without_it_says_so():
    with pytest.raises(ValueError, match='has like_dim 0'): make(like_dim=0).generate(dict(like=torch.rand(D)))

@pytest.mark.parametrize('kwargs, message', [(dict(like_dim=-1), 'like_dim is -1'), (dict(like_dim=2.5), 'like_dim is 2.5'), (dict(like_drop=1.5), 'like_drop is 1.5'), (dict(like_drop=-.1), 'like_drop is -0.1')])
def test_configs_that_make_no_model(kwargs, message):
    with pytest.raises(ValueError, match=message): VARConfig.preset('tiny', **kwargs)
