"The rectified flow: straight paths, orders of the solvers, gradients, guidance, seeds, folders, resume and errors, at unit-test size."
import json, math
import pytest
import torch
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.baselines.flow import Flow, FlowConfig, FlowMars, time_shift, nfe, note_noise, train_flow
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.train import TrainConfig
from mars.training.log import RunLog, read_log
from mars.var import VARConfig

SMALL = dict(image_shape=(2, 32, 32), patch=(4, 16))
ALL = dict(pitch=[50, 60, 70], family=[0, 3, 10], source=[0, 1, 2], velocity=[1, 64, 127])
SPEC = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)
NOTES = AdditiveNotes('flute_acoustic_800', range(60, 68), (100,))

def make(loud=1., **kwargs):
    "A random flow with open gates: blocks and labels influence the output."
    torch.manual_seed(0)
    flow = Flow(FlowConfig.preset('tiny', **{'gamma_init': 1., **SMALL, **kwargs})).eval()
    with torch.no_grad():
        for t in flow.label_embed.tables.values(): t.weight.mul_(10*loud)
    return flow

class Toy(Flow):
    "A flow with given end points."
    def __init__(self, end, shift=1.):
        super().__init__(FlowConfig.preset('tiny', shift=shift, **SMALL))
        self.end, self.seen = end, []
    def forward(self, x, t, labels):
        self.seen.append((len(x), round(t[0].item(), 4)))
        return self.end(x, t[:, None, None, None])

@pytest.fixture(scope='module')
def flow(): return make()

# --- paths

@pytest.mark.parametrize('steps, method', [(1, 'euler'), (3, 'euler'), (1, 'heun'), (5, 'heun')])
def test_straight_paths_are_exact_in_any_number_of_steps(steps, method):
    goal = torch.rand(2, 32, 32)*2 - 1
    made = Toy(lambda x, t: goal.expand_as(x)).generate(n=3, steps=steps, method=method, seed=0)
    assert torch.equal(made, goal.expand(3, 2, 32, 32))

def test_the_line_and_its_velocity_are_those_of_the_end():
    "One step of Euler from any point of a line goes along (end - x_t)/(1 - t), which is end - noise."
    x, e = torch.randn(2, 3, 5).unbind(0)
    for t in (0., .2, .9): torch.testing.assert_close((x - ((1-t)*e + t*x))/(1-t), x - e, atol=1e-5, rtol=1e-5)

def test_orders_of_the_solvers():
    toy = Toy(lambda x, t: t*.04*x/((1-t)**2 + t**2*.04)) # of normal data with deviation 0.2
    exact = .2*note_noise(0, 0, 2, (2, 32, 32))
    rms = lambda **kw: (toy.generate(n=2, seed=0, **kw) - exact).square().mean().sqrt().item()
    euler, heun = ([rms(steps=s, method=m) for s in (16, 32, 64)] for m in ('euler', 'heun'))
    assert all(1.7 < a/b < 2.3 for a, b in zip(euler, euler[1:])) and all(3.3 < a/b for a, b in zip(heun, heun[1:]))
    assert all(h < e for h, e in zip(heun, euler))

@pytest.mark.parametrize('steps, method, n', [(1, 'euler', 1), (7, 'euler', 7), (1, 'heun', 1), (7, 'heun', 13)])
def test_calls(steps, method, n):
    toy = Toy(lambda x, t: x)
    toy.generate(n=2, steps=steps, method=method, seed=0)
    assert len(toy.seen) == nfe(steps, method) == n and {b for b, _ in toy.seen} == {2}
    assert toy.seen[0][1] == 0 and max(t for _, t in toy.seen) < 1
    toy.seen.clear()
    toy.generate(n=2, steps=steps, method=method, seed=0, cfg_scale=1.)
    assert len(toy.seen) == n and {b for b, _ in toy.seen} == {4}

def test_warped_times():
    u = torch.linspace(0, 1, 9)
    assert torch.equal(time_shift(u, 1.), u)
    t = time_shift(u, 4.)
    assert t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all() and (t.diff().diff() > 0).all() and t[4] == .2
    toy = Toy(lambda x, t: x, shift=4.)
    toy.generate(steps=8, method='euler', seed=0)
    torch.testing.assert_close(torch.tensor([t for _, t in toy.seen]), t[:-1], atol=1e-4, rtol=0)

def test_stream_ends_with_the_result_of_generate(flow):
    parts = [*flow.stream(ALL, seed=3, steps=4, cfg_scale=1.)]
    assert len(parts) == 4 and all(p.shape == (3, 2, 32, 32) and p.abs().max() <= 1 for p in parts)
    assert torch.equal(parts[-1], flow.generate(ALL, seed=3, steps=4, cfg_scale=1.))

# --- the network

def test_trunk_sizes_equal_those_of_var():
    for name in ('tiny', 'small', 'paper'):
        a, b = FlowConfig.preset(name), VARConfig.preset(name)
        assert (a.depth, a.width, a.heads, a.shared_adaln, a.drop_path) == (b.depth, b.width, b.heads, b.shared_adaln, b.drop_path)
    assert FlowConfig.from_dict(json.loads(json.dumps(dict(SMALL)))).patch_shape == (16, 128)

def test_gradients_reach_all_weights():
    flow = make().train()
    flow.loss(torch.rand(64, 2, 32, 32), dict(pitch=torch.randint(128, (64,)), family=3, source=0, velocity=100))[0].backward()
    assert [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.any()] == []

@torch.no_grad()
def test_every_patch_depends_on_all_patches_time_and_labels(flow):
    x, t, labels = torch.randn(1, 2, 32, 32), torch.tensor([.5]), flow.label_embed.check(dict(pitch=60))
    y, other = flow(x, t, labels), x.clone()
    other[..., :4, :16] += 1
    moved = lambda z: (z - y).abs().view(1, 2, 8, 4, 2, 16).amax((0, 1, 3, 5))
    assert (moved(flow(other, t, labels)) > 0).all()
    assert (moved(flow(x, t + .1, labels)) > 0).all() and (moved(flow(x, t, flow.label_embed.check(dict(pitch=61)))) > 0).all()

@torch.no_grad()
def test_initial_output_does_not_depend_on_noise(flow):
    "x_0 is independent of the note, and t*x_t is 0 at t = 0."
    labels = flow.label_embed.check({})
    a, b = (flow(torch.randn(1, 2, 32, 32), torch.zeros(1), labels) for _ in range(2))
    assert torch.equal(a, b)

def test_warm_start_preserves_patches():
    "With as many channels as directions, the output layer inverts the input layer up to a scale for each direction."
    torch.manual_seed(0)
    image = torch.rand(50, 2, 32, 32) @ torch.rand(32, 32)/16 - 1
    flow = make(width=128, heads=2).warm_start(image)
    scale = (flow.to_patch.weight.T @ flow.to_patch.weight).diag().sqrt()
    assert torch.equal(flow.to_patch.bias > -1.5, torch.ones(128, dtype=torch.bool))
    joint = flow.patch_embed.weight @ flow.to_patch.weight
    assert (joint - joint.diag().diag()).abs().max() < 1e-3*joint.diag().abs().max() and (scale > 0).all()
    mean = flow.patch_embed(flow.to_patch.bias)
    assert mean.abs().max() < 1e-4

def test_loss_is_the_weighted_error():
    class Blind(Flow):
        def forward(self, x, t, labels): self.t = t; return torch.zeros_like(x)
    m, image = Blind(FlowConfig.preset('tiny', **SMALL)).eval(), torch.ones(500, 2, 32, 32)
    loss, seen = m.loss(image)
    assert seen['error'] == 1
    torch.testing.assert_close(loss, (1/(1 - m.t).clamp(min=.3)**2).mean())
    assert m.loss(image)[0] == loss # in evaluation the times stay the same
    assert (m.t < .2).float().mean() > .4 # bent: half of them below 1/5
    m.train(); m.loss(image); t = m.t; m.loss(image)
    assert not torch.equal(t, m.t)

# --- guidance, labels, seeds

@torch.no_grad()
def test_guidance(flow):
    by = lambda **kw: flow.generate(ALL, seed=1, steps=3, **kw)
    assert torch.equal(by(), by(cfg_scale=0)) and (by() - by(cfg_scale=2.)).abs().max() > 1e-3
    one = flow.generate(ALL, seed=1, steps=1, cfg_scale=2.)
    x, t = note_noise(1, 0, 3, (2, 32, 32)), torch.zeros(3)
    y, null = flow(x, t, flow.label_embed.check(ALL)), flow(x, t, flow.label_embed.check({}, 3))
    torch.testing.assert_close(one, (3*y - 2*null).clamp(-1, 1), atol=1e-5, rtol=0)

@torch.no_grad()
def test_a_note_depends_on_seed_and_index_only(flow):
    six = dict(pitch=torch.arange(50, 56))
    whole = flow.generate(six, seed=1, steps=3)
    torch.testing.assert_close(flow.generate(dict(pitch=[53, 54]), seed=1, first=3, steps=3), whole[3:5], atol=1e-5, rtol=0)
    assert ((flow.generate(six, seed=2, steps=3) - whole).abs().amax((1, 2, 3)) > 1e-3).all()
    assert not torch.equal(flow.generate(six, steps=2), flow.generate(six, steps=2))
    e = note_noise(0, 0, 200, (64,))
    assert abs(e.mean()) < .05 and abs(e.std() - 1) < .05 and torch.equal(e[7:9], note_noise(0, 7, 2, (64,)))

@pytest.mark.parametrize('kwargs, says', [(dict(steps=0), 'steps must be a whole number >= 1, got 0'), (dict(steps=2.5), 'got 2.5'), (dict(steps=True), 'got True'), (dict(method='rk4'), "method must be one of euler, heun, got 'rk4'"), (dict(cfg_scale=-1), r'cfg_scale must be in \[0, 1000\], got -1'),
    (dict(cfg_scale=math.nan), 'got nan'), (dict(cfg_scale='1'), "got '1'"), (dict(n=0), 'at least one note'), (dict(seed=-1), 'seed is -1'), (dict(first=-1), 'first is -1'),
    (dict(labels=dict(pitch=128)), 'label pitch is 128'), (dict(labels=dict(colour=1)), "'colour' is unknown")])
def test_invalid_arguments_are_refused(flow, kwargs, says):
    with pytest.raises(ValueError, match=says) as e: flow.generate(**kwargs)
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('kwargs, says', [(dict(patch=(5, 16)), 'patch must divide the sides of an image of 32x32, got 5x16'), (dict(shift=0.), 'shift must be > 0, got 0'), (dict(reference_dim=8), "no field 'reference_dim'"), (dict(patch=(4,)), 'patch must be 2 numbers >= 1'), (dict(heads=5), 'must be a multiple of heads'), (dict(image_shape=(2, 0, 32)), 'image_shape must be 3 numbers >= 1'), (dict(colour=1), "no field 'colour'")])
def test_invalid_shapes_are_refused(kwargs, says):
    with pytest.raises(ValueError, match=says): FlowConfig.preset('tiny', **{**SMALL, **kwargs})

# --- training and folders

def run(out=None, steps=6, **kwargs):
    train = TrainConfig.preset('tiny', 'flow', steps=steps, batch_size=4, save_every=3, log_every=1)
    return train_flow(NOTES, train, FlowConfig.preset('tiny', image_shape=(2, 32, 32), patch=(4, 16)), out, device='cpu', progress=False, spectrogram=SPEC, **kwargs)

def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())

def test_training_run_folder_and_resume(tmp_path):
    m = run(tmp_path/'a')
    assert same(m.var, run().var) # the seed decides a run
    rows = read_log(tmp_path/'a')
    assert [r['step'] for r in rows] == [*range(6)] and {'loss', 'error', 'lr', 'grad_norm'} <= set(rows[0]) and {r['stage'] for r in rows} == {'flow'}
    assert 'flow' in json.loads((tmp_path/'a'/'settings.json').read_text())
    (tmp_path/'a'/'flow.safetensors').unlink(); (tmp_path/'a'/'config.json').unlink()
    again = run(tmp_path/'a', resume=True)
    assert same(again.var, m.var) and [r['step'] for r in read_log(tmp_path/'a')] == [*range(6)]
    with pytest.raises(ValueError, match='made with another train'): run(tmp_path/'a', steps=8, resume=True)

def test_folder(tmp_path):
    m = FlowMars(make(), spectrogram=SPEC, info=dict(data='none'))
    m.save_pretrained(tmp_path)
    again = FlowMars.from_pretrained(tmp_path)
    assert same(m.var, again.var) and again.info == m.info and again.cmx == m.cmx and again.var.cfg == m.var.cfg
    assert torch.equal(again.var.generate(ALL, seed=1, steps=2), m.var.generate(ALL, seed=1, steps=2))
    m.save_pretrained(tmp_path, half=True)
    assert FlowMars.from_pretrained(tmp_path, dtype='bfloat16').dtype == torch.bfloat16
    config = json.loads((tmp_path/'config.json').read_text())
    for change, says in ((dict(kind='cat'), 'holds no flow'), (dict(format=2), 'must be 1, got 2'), (dict(flow=3), 'damaged')):
        (tmp_path/'config.json').write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=says): FlowMars.from_pretrained(tmp_path)
    (tmp_path/'config.json').write_text(json.dumps(config))
    (tmp_path/'flow.safetensors').write_bytes(b'no')
    with pytest.raises(ValueError, match='damaged'): FlowMars.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError): FlowMars.from_pretrained(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='info cannot be saved'): FlowMars(make(), spectrogram=SPEC, info=dict(x=SPEC)).save_pretrained(tmp_path)

def test_has_the_methods_of_mars():
    m = FlowMars(make(), spectrogram=SPEC)
    waves = m.generate(pitch=[60, 61, 62], family='flute', seed=1, steps=2, n_iter=2, batch_size=2, progress=False)
    assert waves.shape == (3, SPEC.n_samples) and waves.dtype == torch.float32 and waves.abs().max() <= 1
    assert torch.equal(waves, torch.cat([*m.stream(pitch=[60, 61, 62], family='flute', seed=1, steps=2, n_iter=2, batch_size=2, progress=False)]))
    *_, (spec, wave) = m.preview(pitch=60, seed=1, steps=3, n_iter=2)
    assert spec.shape == (1, 1, 64, 32) and wave.shape == (1, SPEC.n_samples)
    assert torch.equal(spec, m.tokens_to_spec(m.var.generate(dict(pitch=60), seed=1, steps=3)))
    assert isinstance(m, Mars) and 'FlowMars' in repr(m) and m.device.type == 'cpu'
    m.half()
    assert m.var.generate(dict(pitch=60), steps=2, seed=0, cfg_scale=1.).dtype == torch.float32
    with pytest.raises(ValueError, match='no tokens to encode'): m.encode(waves)
    with pytest.raises(ValueError, match='no tokens to encode'): m.reconstruct(waves)
    with pytest.raises(ValueError, match="got 'kazoo'"): m.generate(family='kazoo')
    with pytest.raises(ValueError, match='but the flow makes'): FlowMars(make(), CMX(1, 1), SPEC)

def test_overfits_a_few_notes():
    "Requested with all trained labels, because an untrained null embedding changes a note arbitrarily."
    log, notes = RunLog(), AdditiveNotes('flute_acoustic_800', range(60, 76, 4), (100,))
    train, cfg = TrainConfig.preset('tiny', 'flow', steps=200, batch_size=4, log_every=10), FlowConfig.preset('tiny', label_drop=0., label_drop_each=0., **SMALL)
    m = train_flow(notes, train, cfg, device='cpu', progress=False, log=log, spectrogram=SPEC)
    waves, labels = notes.batch(range(4))
    real, made = m.wave_to_image(waves.float()/32768), m.var.generate(labels, seed=0)
    far = (made[:, None] - real).square().mean((2, 3, 4))
    assert torch.equal(far.argmin(1), torch.arange(4)) and far.diag().mean() < .25*real.var(0).mean(), far # 0.04 to 0.10 over seeds and kernels; the mean of all has 0.75
    assert log.rows[-1]['loss'] < .1*log.rows[0]['loss'] # 0.001 to 0.011
