"""The WaveNet autoencoder: mu-law, decoder, encoder, crops, queues, prior, folders, training and the command, at unit-test size."""
import json, math
import pytest, torch
import torch.nn.functional as F
from mars.baselines.wavenet import (CODES, ZERO, QueueSampler, WaveNet, WaveNetConfig, WaveNetDecoder, WaveNetEncoder, WaveNetMars, WaveNetPrior, choose_crops, code_inputs, crop_levels, crop_weights, invert_cdf,
                                    label_rows, mu_law_decode, mu_law_encode, sample_codes, sample_notes, train_wavenet, wavenet_loss)
from mars.cli import main
from mars.data import AdditiveNotes
from mars.evaluation.report import describe_model
from mars.parts.config import PIPELINES
from mars.parts.files import load_wave, save_wave
from mars.parts.sampling import sample
from mars.pipeline import Mars
from mars.train import TrainConfig
from mars.training.log import read_log

torch.set_num_threads(1)
TINY = dict(width=6, skip=8, layers=3, cycle=3, encoder_width=5, encoder_layers=2, z_dim=3, label_dim=4, crop=512, components=3, prior_notes=8)
NOTES = AdditiveNotes(('flute_acoustic_800', 'organ_electronic_800'), range(60, 64), (100,))
LABELS = dict(pitch=[60, 62, 64], family=['flute', 'organ', 'flute'], velocity=100)
SHORT = dict(seconds=.02)

def make(prior=True, **shape):
    torch.manual_seed(0)
    cfg = WaveNetConfig.preset('tiny', **{**TINY, **shape})
    net = WaveNet(cfg).eval()
    if not prior: return WaveNetMars(net)
    return WaveNetMars(net, WaveNetPrior(cfg).fit(torch.randn(8, 125, cfg.z_dim), NOTES.targets), dict(notes=8, sampling=SHORT))

def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())

# --- mu-law

def test_all_codes_survive():
    assert torch.equal(mu_law_encode(mu_law_decode(torch.arange(CODES))), torch.arange(CODES))
    assert mu_law_encode(torch.tensor([1., 2., 0., -1e-6, -1., -2.])).tolist() == [255, 255, 128, 127, 0, 0] # +1 has no code of its own
    assert mu_law_decode(torch.tensor([ZERO])).item() == 0 and mu_law_decode(torch.arange(CODES)).diff().min() > 0
    torch.testing.assert_close(mu_law_decode(torch.tensor([ZERO - 1, ZERO + 1])), torch.tensor([-8.586e-5, 2.633e-4]), atol=1e-7, rtol=1e-3)

def test_formula():
    x = torch.linspace(-.999, .999, 1001, dtype=torch.float64)
    expected = [math.floor(128*math.copysign(math.log(1 + 255*abs(v))/math.log(256), v)) + 128 for v in x.tolist()]
    assert (mu_law_encode(x) - torch.tensor(expected)).abs().max() == 0

@pytest.mark.parametrize('peak, db', [(.9, 38.7), (.01, 34.)])
def test_signal_to_noise_ratio_of_a_sine(peak, db):
    x = peak*torch.sin(2*math.pi*440.3*torch.arange(64000)/16000)
    noise = mu_law_decode(mu_law_encode(x)) - x
    assert 10*math.log10(x.square().mean()/noise.square().mean()) == pytest.approx(db, abs=.15)

# --- networks

def test_published_parameters_and_receptive_field():
    paper = WaveNet(WaveNetConfig.preset('paper'))
    assert [sum(p.numel() for p in net.parameters()) for net in (paper.encoder, paper.decoder, paper)] == [1_976_336, 59_827_712, 61_804_048]
    assert paper.cfg.receptive_field == 6141 and paper.cfg.floats_per_note == 2000
    assert paper.label_embed is None # as the released configuration

@pytest.mark.parametrize('layers, cycle', [(3, 3), (5, 2), (1, 1)])
def test_a_logit_sees_its_receptive_field(layers, cycle):
    torch.manual_seed(0)
    cfg = WaveNetConfig.preset('tiny', **{**TINY, 'layers': layers, 'cycle': cycle})
    decoder, x = WaveNetDecoder(cfg), torch.randn(1, 512, requires_grad=True)
    gradient, = torch.autograd.grad(decoder(x, torch.randn(1, cfg.cond_dim, 1))[0, :, 300].square().sum(), x)
    assert gradient[0].nonzero().flatten().tolist() == [*range(300 - cfg.receptive_field, 300)]

@torch.no_grad()
def test_a_latent_changes_nothing_before_its_frame():
    net, codes, z = make(False).tokenizer, torch.randint(0, 256, (1, 2048)), torch.randn(1, 4, 3)
    before = net.decoder(code_inputs(codes), net.condition(z))
    z[:, 2] += 1
    changed = (net.decoder(code_inputs(codes), net.condition(z)) != before).any(1)[0]
    assert not changed[:1024].any() and changed[1024:1536].all() and not changed[1536 + net.cfg.receptive_field:].any()

@torch.no_grad()
def test_latents_are_the_mean_of_512_samples():
    encoder = WaveNetEncoder(WaveNetConfig.preset('tiny', **TINY))
    x = torch.randn(2, 1536)
    h = encoder.start(x[:, None])
    for dilated, mix in zip(encoder.dilated, encoder.mix): h = h + mix(dilated(h.relu()).relu())
    torch.testing.assert_close(encoder(x), encoder.to_z(h).unflatten(-1, (3, 512)).mean(-1).mT)
    assert encoder(torch.randn(2, 64000)).shape == (2, 125, 3)

def test_an_untrained_output_has_the_loss_of_a_uniform_guess():
    net = make(False).tokenizer
    torch.nn.init.zeros_(net.decoder.to_logits.weight), torch.nn.init.zeros_(net.decoder.to_logits.bias)
    loss, metrics = wavenet_loss(net, (torch.rand(2, 1024)*2 - 1, {k: v[:2] for k, v in NOTES.targets.items()}))
    assert loss.item() == pytest.approx(math.log(256)) and set(metrics) == {'loss', 'level_db'}

def test_gradients_reach_all_weights():
    net = make(False, label_dropout=0.).tokenizer.train()
    waves, labels = NOTES.batch(range(4))
    wavenet_loss(net, (waves[:, :1024]/32768, labels))[0].backward()
    unused = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == [f'decoder.layers.2.residual.{p}' for p in ('weight', 'bias')] # of the last layer, whose output is not read

def test_half_precision_of_a_gpu_changes_the_loss_little():
    net, batch = make(False).tokenizer, (torch.rand(2, 512)*2 - 1, {k: v[:2] for k, v in NOTES.targets.items()})
    with torch.autocast('cpu', torch.bfloat16): half = wavenet_loss(net, batch)[0]
    assert half.dtype == torch.float32 and half.item() == pytest.approx(wavenet_loss(net, batch)[0].item(), rel=.01)

def test_labels_condition_the_decoder_and_are_dropped_in_training():
    net, codes = make(False, label_dropout=.5).tokenizer, torch.randint(0, 256, (64, 512))
    labels = {k: v[:1].expand(64) for k, v in NOTES.targets.items()}
    with torch.no_grad():
        given, none = net.condition(torch.zeros(64, 1, 3), labels), net.condition(torch.zeros(64, 1, 3))
        assert (given != none).any(1).all()
        dropped = (net.train().condition(torch.zeros(64, 1, 3), labels) == none).all(1).float().mean()
    assert .2 < dropped < .8
    plain = make(False, label_dim=0).tokenizer
    assert torch.equal(plain(codes[:2], labels), plain(codes[:2])) and plain.condition(torch.zeros(1, 1, 3)).shape == (1, 3, 1)

@pytest.mark.parametrize('shape, says', [(dict(crop=1000), 'crop must be a multiple of 512'), (dict(cycle=11), 'cycle must be in'), (dict(crop=64512), 'crop must be in'), (dict(label_dropout=1.), 'label_dropout'), (dict(colour=1), "no field 'colour'")])
def test_invalid_shapes_are_refused(shape, says):
    with pytest.raises(ValueError, match=says): WaveNetConfig.preset('tiny', **shape)

# --- crops

def burst(n=8, samples=4096): # almost silent notes with one loud part
    wave = 1e-4*torch.randn(n, 64000)
    wave[:, 20480:20480+samples] = torch.randn(n, samples)*.3
    return wave

@pytest.mark.parametrize('batch', [1, 2, 7, 8, 9])
def test_a_batch_is_never_near_silent_only(batch):
    torch.manual_seed(0)
    wave = burst(batch)
    for _ in range(20):
        levels = choose_crops(wave, 1024, torch.rand(batch)).square().mean(1).sqrt()
        assert (levels[[i for i in range(batch) if i % 8 != 7]] > .05).all()

def test_weights_of_crops():
    levels = torch.tensor([[1., .5, .011, .009, 0.]]).expand(8, -1)
    weights = crop_weights(levels)
    torch.testing.assert_close(weights[0], torch.tensor([1., .5, .011, 0., 0.])) # 40 dB below the loudest is the limit
    assert torch.equal(weights[7], torch.ones(5)) and torch.equal(crop_weights(torch.zeros(2, 3)), torch.ones(2, 3))

def test_levels_and_contents_of_crops():
    wave = torch.randn(2, 64000)
    levels = crop_levels(wave, 1024)
    assert levels.shape == (2, 124)
    torch.testing.assert_close(levels[1, 17], wave[1, 17*512:17*512+1024].square().mean().sqrt())
    assert torch.equal(choose_crops(wave, 64000, torch.rand(2)), wave)
    first, last = (choose_crops(wave, 1024, torch.full((2,), u, dtype=torch.float64)) for u in (0., 1 - 1e-12))
    assert torch.equal(first, wave[:, :1024]) and torch.equal(last, wave[:, -1024:])

def test_crops_are_chosen_in_proportion_to_their_level():
    wave = torch.ones(1, 64000)
    wave[:, 32000:] = .5
    starts = torch.arange(64000.)[None]
    u = (torch.arange(4000) + .5)/4000
    chosen = torch.stack([choose_crops(wave, 512, u[i:i+1])[0, 0] for i in range(0, 4000, 4)])
    assert (chosen == 1).float().mean() == pytest.approx(2/3, abs=.02)

# --- queues

@pytest.mark.parametrize('layers, cycle, n', [(3, 3, 2), (5, 2, 1), (10, 10, 1), (1, 1, 3)])
def test_queues_equal_teacher_forcing(layers, cycle, n):
    torch.manual_seed(0)
    cfg = WaveNetConfig.preset('tiny', **{**TINY, 'layers': layers, 'cycle': cycle})
    decoder, codes, cond = WaveNetDecoder(cfg).double(), torch.randint(0, 256, (n, 1536)), torch.randn(n, cfg.cond_dim, 3).double()
    steps = []
    with torch.no_grad():
        sampler = QueueSampler(decoder, cond)
        for t in range(1536):
            steps.append(sampler.logits(t))
            sampler.put(t, codes[:, t])
        expected = decoder(code_inputs(codes).double(), cond)
    torch.testing.assert_close(torch.stack(steps, -1), expected, atol=1e-12, rtol=1e-10)
    assert torch.equal(sampler.codes(1536).long(), codes) and sampler.codes(9).shape == (n, 9)

@torch.no_grad()
def test_sampled_codes_are_those_of_teacher_forcing():
    cfg = WaveNetConfig.preset('tiny', **TINY)
    torch.manual_seed(1)
    decoder, cond, u = WaveNetDecoder(cfg), torch.randn(2, cfg.cond_dim, 2), torch.rand(2, 700)
    codes = sample_codes(decoder, cond, u).long()
    logits = decoder(code_inputs(F.pad(codes, (0, 324), value=ZERO)), cond)[..., :700]
    assert (sample(logits.mT, u) == codes).float().mean() == 1 and len(codes.unique()) > 100
    assert torch.equal(sample_codes(decoder, cond[:1], u[:1]).long()[0], codes[0]) # alone or in a batch
    greedy = sample_codes(decoder, cond, u, temperature=0).long()
    logits = decoder(code_inputs(F.pad(greedy, (0, 324), value=ZERO)), cond)[..., :700]
    assert torch.equal(logits.argmax(1), greedy)

def test_law_of_the_samples():
    logits, u = torch.tensor([[0., 1., 2., -math.inf]]), (torch.arange(10000)[:, None] + .5)/10000
    for temperature in (.5, 1., 3.):
        shares = invert_cdf(logits.expand(10000, -1), u, temperature).bincount(minlength=4)/10000
        torch.testing.assert_close(shares, (logits[0]/temperature).softmax(0), atol=2e-4, rtol=0)
    assert invert_cdf(logits, torch.tensor([[1 - 2**-22]])).item() == 2 and invert_cdf(logits, torch.tensor([[0.]])).item() == 0

def test_damaged_weights_are_reported():
    m = make()
    torch.nn.init.constant_(m.tokenizer.decoder.to_logits.bias, math.nan)
    with pytest.raises(ValueError, match='NaN or infinite'): m.generate(pitch=60)

def test_the_rest_is_silence():
    net = make(False).tokenizer
    codes = sample_notes(net, torch.randn(2, 125, 3), NOTES.targets and {k: v[:2] for k, v in NOTES.targets.items()}, torch.rand(2, 64000), seconds=.01)
    assert codes.shape == (2, 64000) and codes.dtype == torch.uint8 and (codes[:, 160:] == ZERO).all() and (codes[:, :160] != ZERO).any()

# --- prior

def test_prior_recovers_a_linear_gaussian():
    torch.manual_seed(0)
    cfg, n = WaveNetConfig.preset('tiny', **{**TINY, 'z_dim': 2}), 1500
    labels = dict(pitch=torch.randint(40, 80, (n,)), family=torch.randint(0, 2, (n,)), source=torch.zeros(n).long(), velocity=torch.randint(25, 127, (n,)))
    z = (labels['pitch'].float() - 60)[:, None, None]/24*torch.tensor([1., 0]) + (5*labels['family'] + torch.randn(n))[:, None, None]*torch.tensor([0, 1.])
    prior = WaveNetPrior(cfg).fit(z.expand(n, 125, 2), labels)
    ask = {k: torch.full((500,), v) for k, v in dict(pitch=72, family=1, source=0, velocity=60).items()}
    x = prior.latents(ask, torch.randn(500, cfg.components))
    assert float(x[..., 0].mean()) == pytest.approx(.5, abs=.02) and float(x[..., 1].mean()) == pytest.approx(5, abs=.15)
    assert float(x[..., 1].mean(1).std()) == pytest.approx(1, rel=.15) and x[..., 0].mean(1).std() < .02
    assert 'net' not in dict(prior.named_modules()) and len([*prior.parameters()]) == 0

@pytest.mark.parametrize('kwargs, says', [(dict(temperature=-1), 'temperature is -1; give a number >= 0'), (dict(temperature=math.nan), 'temperature is nan'), (dict(temperature=True), 'temperature is True'), (dict(latent_temperature=-1), 'latent_temperature is -1'), (dict(seconds=0), 'seconds is 0'),
                                          (dict(seconds=5), 'seconds is 5'), (dict(n=0), 'at least one note'), (dict(seed=-1), 'seed is -1'), (dict(labels=dict(pitch=128)), 'label pitch is 128'), (dict(labels=dict(colour=1)), "'colour' is unknown")])
def test_invalid_requests_are_refused(kwargs, says):
    with pytest.raises(ValueError, match=says) as e: make().var.generate(**kwargs)
    assert '\n' not in str(e.value)

def test_an_unfitted_or_unbound_prior_generates_nothing():
    cfg = WaveNetConfig.preset('tiny', **TINY)
    with pytest.raises(ValueError, match='no decoder'): WaveNetPrior(cfg).generate()
    with pytest.raises(ValueError, match='not fitted'): WaveNetMars(WaveNet(cfg), WaveNetPrior(cfg)).generate()

def test_temperature_of_the_latents():
    m = make()
    _, a, b = (m.var.generate(dict(pitch=[60, 60]), latent_temperature=t, temperature=0., seconds=.02, seed=0)[0] for t in (1., 0., 0.))
    assert torch.equal(a, b) and torch.equal(a[0], a[1]) # the mean of the labels, twice

# --- pipeline and folders

def test_has_the_methods_of_mars():
    m = make()
    waves = m.generate(**LABELS, seed=1, batch_size=2, progress=False)
    assert waves.shape == (3, 64000) and waves.dtype == torch.float32 and waves.isfinite().all() and waves.abs().max() <= 1 and not waves[:, 320:].any()
    assert torch.equal(m.generate(**LABELS, seed=1), waves) and not torch.equal(m.generate(**LABELS, seed=2), waves)
    assert m.generate(**LABELS, seed=1, seconds=.03)[:, 320:].any()
    assert m.generate(pitch=60, family='organ', seed=0, n_candidates=2, normalize='peak').abs().max() == pytest.approx(.89, abs=.01)
    (spec, wave), = m.preview(pitch=60, family='flute', seed=1)
    assert spec.shape == (1, 1, 512, 256) and torch.equal(wave, m.generate(pitch=60, family='flute', seed=1))
    assert isinstance(m, Mars) and 'WaveNetMars' in repr(m) and m.device.type == 'cpu' and PIPELINES.find('wavenet') is WaveNetMars
    for call, says in ((lambda: m.edit(waves), 'no token maps'), (lambda: m.generate(pitch=60, top_k=3), 'top_k is not a setting of a wavenet transformer'), (lambda: m.generate(family='kazoo'), "got 'kazoo'"), (lambda: make(prior=False).generate(pitch=60), 'cannot generate'),
                       (lambda: m.to(dtype='bfloat16'), 'computes in float32, got bfloat16'), (lambda: m.reconstruct(torch.zeros(64000)), 'silent'), (lambda: m.reconstruct(NOTES[0][0], pitch=128), 'label pitch is 128'), (lambda: m.reconstruct(NOTES[0][0], colour=1), "'colour' is unknown")):
        with pytest.raises(ValueError, match=says): call()

def test_reconstruct():
    m, wave = make(), torch.stack([NOTES[0][0], NOTES[3][0]])
    plain, by_label = m.reconstruct(wave), m.reconstruct(wave, pitch=[60, 63], family='flute')
    assert plain.shape == (2, 64000) and plain.abs().max() <= 1 and not torch.equal(plain, by_label)
    assert torch.equal(m.reconstruct(wave, pitch=[60, 63], family='flute', batch_size=1)[1], by_label[1])
    assert m.reconstruct(wave[0], seconds=.05)[:, 320:].any() and not m.reconstruct(wave[0])[:, 320:].any()
    z, labels = m.encode(wave, pitch=[60, 63], family='flute')
    assert z.shape == (2, 125, 3) and labels.tolist() == [[60, 2, -1, -1], [63, 2, -1, -1]] and torch.equal(labels, label_rows(dict(pitch=[60, 63], family=2), 2))
    assert torch.equal(m.decode([z, labels], seed=4), m.decode([z, labels], seed=4)) and not torch.equal(m.decode([z, labels], seed=4), m.decode([z, labels], seed=5))
    assert torch.equal(m.decode([z[1:], labels[1:]], seed=4, first=1)[0], m.decode([z, labels], seed=4)[1])
    assert torch.equal(m.encode((wave*32768).to(torch.int16))[0], z)
    with pytest.warns(UserWarning, match='padded to 64000'): assert m.reconstruct(wave[0, :20000]).shape == (1, 64000)

def test_folder(tmp_path):
    m = make()
    m.save_pretrained(tmp_path)
    again = Mars.from_pretrained(tmp_path)
    assert type(again) is WaveNetMars and same(m.tokenizer, again.tokenizer) and same(m.var, again.var) and again.info == m.info and again.tokenizer.cfg == m.tokenizer.cfg
    assert torch.equal(again.generate(**LABELS, seed=1), m.generate(**LABELS, seed=1))
    assert describe_model(again)['tokenizer']['crop'] == 512
    m.save_pretrained(tmp_path, half=True)
    assert Mars.from_pretrained(tmp_path).dtype == torch.float32
    with pytest.raises(ValueError, match='computes in float32'): Mars.from_pretrained(tmp_path, dtype='float16')
    config = json.loads((tmp_path/'config.json').read_text())
    for change, says in ((dict(kind='cat'), 'holds no WaveNet model'), (dict(format=2), 'must be 1, got 2'), (dict(wavenet=3), 'damaged'), (dict(wavenet={**config['wavenet'], 'width': 9}), 'does not fit its config.json')):
        (tmp_path/'config.json').write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=says): WaveNetMars.from_pretrained(tmp_path)
    (tmp_path/'config.json').write_text(json.dumps(config))
    (tmp_path/'wavenet.safetensors').write_bytes(b'no')
    with pytest.raises(ValueError, match='damaged'): Mars.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match='info cannot be saved'): WaveNetMars(m.tokenizer, None, dict(x=WaveNet)).save_pretrained(tmp_path)
    make(prior=False).save_pretrained(tmp_path/'b')
    assert Mars.from_pretrained(tmp_path/'b').var is None

# --- training

def run(out=None, steps=6, shape={}, **kwargs):
    train = TrainConfig.preset('tiny', 'wavenet', **{**dict(steps=steps, batch_size=4, save_every=3, log_every=1), **kwargs.pop('train', {})})
    return train_wavenet(NOTES, train, WaveNetConfig.preset('tiny', **{**TINY, **shape}), out, device='cpu', progress=False, **kwargs)

def test_training_run_folder_and_resume(tmp_path):
    m = run(tmp_path/'a', info=dict(data='none'))
    assert same(m.tokenizer, run().tokenizer) # the seed decides a run
    rows = read_log(tmp_path/'a')
    assert [r['step'] for r in rows] == [*range(6)] and {'loss', 'level_db', 'lr', 'grad_norm'} <= set(rows[0]) and {r['stage'] for r in rows} == {'wavenet'}
    assert m.info['data'] == 'none' and m.info['notes'] == 8 and m.info['train_wavenet']['steps'] == 6
    assert 'wavenet' in json.loads((tmp_path/'a'/'settings.json').read_text())
    for name in ('wavenet', 'prior'): (tmp_path/'a'/f'{name}.safetensors').unlink()
    (tmp_path/'a'/'config.json').unlink()
    again = run(tmp_path/'a', resume=True) # from step 3, the last checkpoint
    assert same(again.tokenizer, m.tokenizer) and same(again.var, m.var) and [r['step'] for r in read_log(tmp_path/'a')] == [*range(6)]
    assert torch.equal(Mars.from_pretrained(tmp_path/'a').generate(pitch=60, seed=1, **SHORT), again.generate(pitch=60, seed=1, **SHORT))
    with pytest.raises(ValueError, match='made with another train'): run(tmp_path/'a', steps=8, resume=True)
    with pytest.raises(ValueError, match='made with another shape'): run(tmp_path/'a', shape=dict(z_dim=2), resume=True)
    with pytest.raises(ValueError, match='no compiled step'): train_wavenet(NOTES, TrainConfig.preset('tiny', 'wavenet', compile=True))

def test_micro_batches_average_to_the_batch():
    a, b = (run(steps=1, shape=dict(label_dropout=0.), train=dict(accumulate=k)).tokenizer for k in (1, 2))
    assert all(torch.allclose(v, b.state_dict()[k], atol=1e-3) for k, v in a.state_dict().items()) and not same(a, make(False).tokenizer)

def test_overfits_a_note():
    from mars.training.log import RunLog
    log, notes = RunLog(), AdditiveNotes(('organ_electronic_800',), (72,), (100,))
    train = TrainConfig.preset('tiny', 'wavenet', steps=40, batch_size=2, lr=1e-2, log_every=1)
    train_wavenet(notes.select([0, 0]), train, WaveNetConfig.preset('tiny', **{**TINY, 'width': 16, 'skip': 32}), device='cpu', progress=False, log=log)
    assert log.rows[-1]['loss'] < .75*log.rows[0]['loss'], [r['loss'] for r in log.rows]

def test_command(tmp_path, capsys):
    shape = [x for k, v in TINY.items() for x in (f'--{k.replace("_", "-")}', str(v))]
    data = ['--data', 'additive', '--families', 'organ', '--pitches', '60-63', '--velocities', '100', '--device', 'cpu']
    out = str(tmp_path/'run')
    assert main(['train', 'wavenet', '--out', out, *data, '--steps', '3', '--batch-size', '4', *shape, '--json']) == 0
    assert json.loads(capsys.readouterr().out) == dict(folder=out, stage='wavenet', notes=12, steps=3)
    m = Mars.from_pretrained(out)
    assert m.info['data']['pitches'] == [60, 63] and m.info['data']['credits']
    assert main(['generate', '--model', out, '--pitch', '60,62', '--family', 'organ', '--source', 'electronic', '--velocity', '100', '--seed', '3', '--set', 'seconds=0.02', '--out', str(tmp_path/'n'), '--json']) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])['files']
    expected = m.generate(pitch=[60, 62], family='organ', source='electronic', velocity=100, seed=3, **SHORT)[1]
    assert torch.allclose(torch.as_tensor(load_wave(files[1])).float().flatten(), expected, atol=1e-4)
    m.info['sampling'] = SHORT
    m.save_pretrained(out)
    save_wave(tmp_path/'in.wav', NOTES[0][0])
    assert main(['reconstruct', str(tmp_path/'in.wav'), '--model', out, '--out', str(tmp_path/'back')]) == 0
    assert (tmp_path/'back'/'in-reconstructed.wav').exists()
    assert main(['edit', str(tmp_path/'in.wav'), '--model', out, '--out', str(tmp_path/'edit')]) == 2

def test_evaluation_protocol(tmp_path, capsys):
    make().save_pretrained(tmp_path/'m')
    assert main(['evaluate', '--model', str(tmp_path/'m'), '--data', 'additive', '--families', 'organ,flute', '--pitches', '50-61', '--velocities', '100', '--n', '20', '--n-iter', '1', '--n-resamples', '10', '--n-f0', '2',
                 '--n-train', '100', '--seeds', '1', '--out', str(tmp_path/'a'), '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert {'generated', 'reconstruction'} <= set(result['rows']) and result['settings']['phases']['generated'] == 'of the decoder'
