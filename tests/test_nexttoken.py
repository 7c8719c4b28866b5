"""The next-token baseline: causality, cache, passes, guidance, seeds, errors and folders, at unit-test size."""
import json
import pytest
import torch
from test_var import ALL, CFG, MODELS, SMALL, draw, flat, heard, make as make_var
from mars.data import AdditiveNotes
from mars.baselines.next_token import NextToken
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.parts.codec import Codec
from mars.parts.config import pipeline_of
from mars.parts.product import ProductTokenizerConfig
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, train_var
from mars.parts.sampling import note_uniforms, scale_settings
from mars.parts.inference import Sampler, generate
from mars.var import VAR, VARConfig

def make(tok_cfg=CFG, sharp=50., **kwargs):
    "The random model of test_var, in next-token order."
    torch.manual_seed(0)
    kind = pipeline_of(tok_cfg)
    model = kind.transformer(NextToken)(VARConfig.preset('tiny', **{'gamma_init': 1., **kwargs}), tok_cfg).eval()
    with torch.no_grad(): model.bind(kind.tokenizer_cls(tok_cfg)).head.weight.mul_(sharp)
    return model

TWO = ProductTokenizerConfig.preset('tiny', **SMALL, branches=2)
WIDE = TokenizerConfig.preset('tiny', **{**SMALL, 'scales': (2, 4)}) # a first scale of several tokens

@pytest.fixture(scope='module')
def model(): return make()

def draw_for(m): return [torch.randint(m.tok_cfg.codebook_size, (2, n, *[2]*(m.tok_cfg is TWO))) for n in m.lengths]

# --- order

@pytest.mark.parametrize('cfg', [CFG, TWO, WIDE])
@torch.no_grad()
def test_a_token_attends_to_earlier_tokens_only(cfg):
    m = make(cfg)
    tokens = draw_for(m)
    before, T = m(tokens), sum(m.lengths)
    for t in range(T):
        other = flat(tokens).clone()
        other[:, t] = (other[:, t] + 1) % 256
        moved = (m([*other.split(m.lengths, 1)]) - before).abs().flatten(2).amax((0, 2))
        assert moved[:t+1].max() == 0
        if t+1 < T: assert (moved[t+1:] > 0).all(), t

@torch.no_grad()
def test_labels_reach_every_token(model):
    tokens = draw(model, 2)
    assert ((model(tokens, dict(pitch=60)) - model(tokens, dict(pitch=61))).abs().amax((0, 2)) > 0).all()

def test_the_trunk_and_all_weights_equal_those_of_var():
    a, b = make(), make_var()
    assert {k: v.shape for k, v in a.state_dict().items()} == {k: v.shape for k, v in b.state_dict().items()}
    assert type(a.trunk) is type(b.trunk)
    for k, v in b.state_dict().items(): assert torch.equal(a.state_dict()[k], v), k # and drawn alike

# --- cache

@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('cfg_scale', [0., 2.5, [0, 3, 0, 1]])
@torch.no_grad()
def test_cached_logits_equal_teacher_forced_logits(name, cfg_scale):
    m = make(sharp=10., **MODELS[name])
    tokens, got = heard(m, ALL, cfg_scale=cfg_scale, seed=1, top_k=50, top_p=.9)
    s = torch.tensor([v[0] for v in scale_settings(4, 256, cfg_scale)])[m.scale_index][:, None]
    torch.testing.assert_close(got, (1+s)*m(tokens, ALL) - s*m(tokens), atol=1e-4, rtol=0)

def uncached(m, labels, n, u=None):
    "Greedy tokens by the whole teacher-forced network, once for every token."
    done = torch.zeros(n, sum(m.lengths), *[2]*(m.tok_cfg is TWO), dtype=torch.long)
    for t in range(sum(m.lengths)): done[:, t] = m([*done.split(m.lengths, 1)], labels)[:, t].argmax(-1)
    return done

@pytest.mark.parametrize('cfg', [CFG, TWO, WIDE])
@torch.no_grad()
def test_cached_equals_uncached_token_for_token(cfg):
    m = make(cfg)
    assert torch.equal(uncached(m, ALL, 3), flat(m.generate(ALL, temperature=0)))

# --- passes

@pytest.mark.parametrize('cfg', [CFG, TWO, WIDE])
@torch.no_grad()
def test_one_pass_per_token_and_every_scale_is_streamed(cfg):
    m, seen = make(cfg), []
    forward = m.trunk.forward
    m.trunk.forward = lambda x, *args, **kwargs: seen.append(x.shape[:2]) or forward(x, *args, **kwargs)
    shown = [*m.stream(dict(pitch=60), n=2, seed=0)]
    assert seen == [(2, 1)]*sum(m.lengths)
    assert [len(s) for s in shown] == [*range(1, len(m.lengths)+1)]
    assert [t.shape[:2] for t in shown[-1]] == [(2, n) for n in m.lengths]
    for part in shown: assert all(torch.equal(a, b) for a, b in zip(part, shown[-1]))

@torch.no_grad()
def test_settings_of_a_scale_apply_to_its_tokens(model):
    p = Sampler(model, 1, scale_settings(4, 256, cfg_scale=3., temperature=[1, 2, 3, 4]))
    assert [s[0] for s in p.settings] == [0]*1 + [1]*4 + [2]*9 + [3]*16
    assert [s[1] for s in p.settings] == [1]*1 + [2]*4 + [3]*9 + [4]*16

@torch.no_grad()
def test_passes_can_be_recorded(model):
    "Each pass reads and writes fixed buffers: replayed from a tape, like a CUDA graph, it gives the same tokens."
    from test_var import Tape
    run = Sampler(model, 3, scale_settings(4, 256))
    tapes = [Tape() for _ in run.settings]
    for k, tape in enumerate(tapes):
        with tape: run.run_pass(k)
    run.run_pass = lambda k: tapes[k].replay()
    for seed, labels in ((5, ALL), (6, dict(pitch=[70, 60, 50]))):
        *_, got = run.stream(model.label_embed.check(labels, 3), note_uniforms(seed, 0, 3, 30))
        assert torch.equal(flat(got), flat(model.generate(labels, seed=seed)))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@torch.no_grad()
def test_graphs_on_a_gpu():
    m = make().cuda()
    for kwargs in (dict(cfg_scale=2., top_k=20, top_p=.9), dict(temperature=0)):
        a, b = (flat(m.generate(ALL, seed=1, graph=g, **kwargs)).cpu() for g in (True, False))
        assert (a == b).float().mean() > .99

# --- seeds and errors

def test_a_note_depends_on_seed_and_index_only(model):
    whole = flat(model.generate(dict(pitch=torch.arange(50, 56)), seed=1))
    assert torch.equal(flat(model.generate(dict(pitch=[53, 54]), seed=1, first=3)), whole[3:5])
    assert (flat(model.generate(dict(pitch=torch.arange(50, 56)), seed=2)) != whole).float().mean() > .1

@pytest.mark.parametrize('kwargs, says', [(dict(cfg_scale=-1), 'cfg_scale is -1'), (dict(top_k=257), 'top_k is 257'), (dict(top_p=2), 'top_p is 2'), (dict(n=0), 'at least one note'),
    (dict(temperature=float('nan')), 'temperature is nan'), (dict(seed=-1), 'seed is -1'), (dict(labels=dict(pitch=128)), 'label pitch is 128'), (dict(labels=dict(colour=1)), "'colour' is unknown"),
    (dict(cfg_scale=[1, 2]), 'cfg_scale lists 2 values'), (dict(graph=True), 'needs a model on a CUDA device')])
def test_invalid_requests_are_refused_as_by_var(model, kwargs, says):
    with pytest.raises(ValueError, match=says) as mine: model.generate(**kwargs)
    with pytest.raises(ValueError) as theirs: generate(make_var(), **kwargs)
    assert str(mine.value) == str(theirs.value) and '\n' not in str(mine.value)

def test_invalid_tokens_are_refused(model):
    with pytest.raises(ValueError, match='needs all 4'): model(draw(model, 2)[:2])
    with pytest.raises(ValueError): model([t + 256 for t in draw(model, 2)])
    with pytest.raises(ValueError, match='does not fit'): model.bind(Tokenizer(TokenizerConfig.preset('tiny', **SMALL, code_dim=4)))

# --- training and folders

SPEC = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)

def test_trained_by_train_var_and_saved_with_its_order(tmp_path):
    torch.manual_seed(0)
    notes, tok = AdditiveNotes('flute_acoustic_800', range(60, 68), (100,)), Tokenizer(CFG)
    for name in 'ab': (tmp_path/name).mkdir()
    run = lambda model, out: train_var(notes, Codec(tok, spectrogram=SPEC), TrainConfig.preset('tiny', 'var', steps=3, batch_size=4), VARConfig.preset('tiny'), out, device='cpu', progress=False, model=model)
    trained = run(NextToken, tmp_path/'a')
    again = Mars.from_pretrained(tmp_path/'a')
    assert type(trained) is NextToken and type(again.var) is NextToken
    assert torch.equal(flat(again.var.generate(dict(pitch=60), seed=1)), flat(trained.generate(dict(pitch=60), seed=1)))
    run(VAR, tmp_path/'b')
    assert 'system' not in json.loads((tmp_path/'b'/'config.json').read_text()) and type(Mars.from_pretrained(tmp_path/'b').var) is VAR
    path = tmp_path/'a'/'config.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()), system='backwards')))
    with pytest.raises(ValueError, match="order 'backwards'"): Mars.from_pretrained(tmp_path/'a')

def test_learns_the_labels():
    torch.manual_seed(0)
    m, tokens = make(sharp=1.).train(), [torch.randint(256, (4, n)) for n in (1, 4, 9, 16)]
    opt = torch.optim.AdamW(m.parameters(), lr=4e-3)
    m.cfg = VARConfig.preset('tiny', label_drop=0., label_drop_each=0.)
    for _ in range(60): # 40 are enough for every seed
        loss, _ = m.loss(tokens, dict(pitch=[60, 61, 62, 63]))
        opt.zero_grad(); loss.backward(); opt.step()
    m.eval()
    assert (flat(m.generate(dict(pitch=[60, 61, 62, 63]), temperature=0)) == flat(tokens)).float().mean() > .95
