"""DiffWave: schedules, sampler, step code, mel spectrogram, network, crops, label-to-mel stage, folders, training and the command, at unit-test size."""
import itertools, json, math
import pytest, torch
from mars.baselines.diffwave import (DiffWave, DiffWaveConfig, DiffWaveMars, MelUpsampler, add_noise, aligned_steps, alpha_bars, crop_notes, crop_starts, log_mel, mel_flow, noise_stream, pad_frames,
                                     reverse_process, sample_waves, sampling_schedule, step_code, train_diffwave, training_betas)
from mars.cli import main
from mars.data import AdditiveNotes
from mars.evaluation.report import describe_model, generate_timed
from mars.parts.config import PIPELINES
from mars.parts.files import load_wave, save_wave
from mars.pipeline import Mars
from mars.train import TrainConfig
from mars.training.log import read_log

torch.set_num_threads(1)
TINY = dict(channels=4, layers=2, cycle=2, step_width=8, crop=1024, mel_width=8, mel_depth=1, mel_heads=1)
NOTES = AdditiveNotes(('flute_acoustic_800', 'organ_electronic_800'), range(60, 64), (100,))
LABELS = dict(pitch=[60, 62], family=['flute', 'organ'], velocity=100)

def config(**shape): return DiffWaveConfig.preset('tiny', **{**TINY, **shape})

def network(**shape):
    "A network whose predictions are not zero."
    torch.manual_seed(0)
    net = DiffWave(config(**shape)).eval()
    torch.nn.init.normal_(net.output.weight, std=.1)
    return net

def make(flow=True, **shape):
    net = network(**shape)
    return DiffWaveMars(net, mel_flow(net.cfg) if flow and net.labels is None else None, dict(notes=8))

def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())

# --- schedules and sampler

def test_published_schedules():
    for steps, last, left in ((50, .05, .52884), (200, .02, .36357)):
        betas = training_betas(steps)
        assert len(betas) == steps and float(betas[0]) == pytest.approx(1e-4) and float(betas[-1]) == pytest.approx(last)
        assert float(alpha_bars(betas)[-1].sqrt()) == pytest.approx(left, abs=1e-5)
        assert torch.allclose(aligned_steps(betas, steps), torch.arange(steps).double())
    assert sampling_schedule('fast', 200)[0].tolist() == [.0001, .001, .01, .05, .2, .7]
    assert sampling_schedule('fast', 50)[1].tolist() == pytest.approx([0, .894, 4.087, 10.452, 22.992, 42.919], abs=1e-3)

def test_forward_process():
    torch.manual_seed(0)
    x0, t = torch.full((3, 40000), .5), torch.tensor([0, 25, 199])
    x, bar = add_noise(x0, t, torch.randn_like(x0), 200), alpha_bars(training_betas(200))[t].float()
    assert ((x.mean(1) - .5*bar.sqrt()).abs() < 5*((1 - bar)/40000).sqrt()).all()
    assert ((x.var(1)/(1 - bar) - 1).abs() < 5*math.sqrt(2/40000)).all()

def gaussian(betas, times, mean, std):
    bars = dict(zip(times.tolist(), alpha_bars(betas).tolist()))
    return lambda x, t: math.sqrt(1-bars[t])/(bars[t]*std**2 + 1-bars[t])*(x - math.sqrt(bars[t])*mean)

@pytest.mark.parametrize('schedule, steps, std, expected', [('full', 50, .1, .08394), ('full', 50, .3, .28070), ('full', 200, .1, .09345), ('full', 200, .3, .29267), ('fast', 50, .1, .06491), ('fast', 50, .3, .21250)])
def test_sampler_for_gaussian_data(schedule, steps, std, expected):
    "With the optimal prediction, the deviation of the samples is known; a clamp between the steps would change it."
    torch.manual_seed(0)
    betas, times = sampling_schedule(schedule, steps)
    x = reverse_process(gaussian(betas, times, 0., std), (torch.randn(1, 2**15) for _ in itertools.count()), betas, times)
    assert float(x.std()) == pytest.approx(expected, rel=5/math.sqrt(2**16))

def test_the_mean_of_the_data_survives_with_many_steps():
    torch.manual_seed(0)
    betas, times = sampling_schedule('full', 200)
    x = reverse_process(gaussian(betas, times, 2.5, .01), (torch.randn(1, 2**12) for _ in itertools.count()), betas, times)
    assert float(x.mean()) == pytest.approx(2.5, abs=.02) # and is not clamped

def test_a_certain_prediction_returns_the_wave():
    torch.manual_seed(0)
    x0, bars = torch.randn(2, 500), alpha_bars(training_betas(50))
    betas, times = sampling_schedule('full', 50)
    def predict(x, t): return (x - bars[round(t)].sqrt()*x0)/(1 - bars[round(t)]).sqrt()
    torch.testing.assert_close(reverse_process(predict, iter(torch.randn(50, 2, 500)), betas, times).float(), x0, atol=1e-5, rtol=0)

def test_the_wave_is_clamped_once_at_the_end(monkeypatch):
    from mars.baselines import diffwave
    net, seen, mel = network(), [], torch.zeros(1, 1, 80, 8)
    forward = net.forward
    monkeypatch.setattr(net, 'forward', lambda x, t, c: (seen.append(x), forward(x, t, c))[1])
    raw = []
    process = diffwave.reverse_process
    monkeypatch.setattr(diffwave, 'reverse_process', lambda *args: (raw.append(process(*args)), raw[-1])[1])
    wave = sample_waves(net, mel)
    assert len(seen) == 6 and max(x.abs().max() for x in seen) > 2 and raw[0].abs().max() > 1
    assert torch.equal(wave, raw[0].clamp(-1, 1))

def test_noise_depends_on_seed_and_index_only():
    both, second = noise_stream(3, 0, 2, 50), noise_stream(3, 1, 1, 50)
    for _ in range(3): assert torch.equal(next(both)[1:], next(second))
    assert not torch.equal(next(noise_stream(3, 0, 1, 50)), next(noise_stream(4, 0, 1, 50)))
    a = noise_stream(0, 0, 1, 20000)
    x, y = next(a)[0], next(a)[0]
    assert abs(float((x*y).mean())) < 5/math.sqrt(20000) and float(x.std()) == pytest.approx(1, abs=.03)

# --- network

def test_step_code():
    code = step_code(torch.tensor([0., 1., 10.452, 49.]))
    assert code.shape == (4, 128) and torch.equal(code[0], torch.cat([torch.zeros(64), torch.ones(64)]))
    assert float(code[1, 0]) == pytest.approx(math.sin(1)) and float(code[3, 127]) == pytest.approx(math.cos(49e-4), abs=1e-6)

def test_published_parameters():
    count = lambda **k: sum(p.numel() for p in DiffWave(DiffWaveConfig.preset('paper', **k)).parameters())
    base, large = 2_619_971, 6_885_315
    assert (count(), count(channels=128, diffusion_steps=200)) == (base, large) and abs(base/2.64e6 - 1) < .01 and abs(large/6.91e6 - 1) < .01
    assert DiffWaveConfig.preset('paper').receptive_field == 6139 and DiffWaveConfig.preset('paper').floats_per_note == 20000

@pytest.mark.parametrize('loss, expected', [('l1', math.sqrt(2/math.pi)), ('l2', 1.)])
def test_first_loss(loss, expected):
    torch.manual_seed(0)
    net = DiffWave(config(loss=loss))
    assert net.loss(torch.rand(8, 4096), net.condition(torch.zeros(8, 1, 80, 20))).item() == pytest.approx(expected, abs=.02)

def test_receptive_field():
    net = network(layers=7, cycle=3) # 1, 2, 4, 1, 2, 4, 1
    assert net.cfg.receptive_field == 31
    x, c = torch.randn(1, 512, requires_grad=True), net.condition(torch.zeros(1, 1, 80, 6))
    net(x, torch.tensor([7]), c)[0, 300].backward()
    touched = x.grad[0].nonzero().flatten()
    assert (touched.min(), touched.max()) == (285, 315)

@pytest.mark.parametrize('conditioner', ['mel', 'labels'])
def test_gradients_reach_all_weights(conditioner):
    net = network(conditioner=conditioner).train()
    waves, labels = NOTES.batch(range(4))
    c = net.condition(pad_frames(log_mel(waves[:, :1024]))) if conditioner == 'mel' else net.labels(labels)
    net.loss(waves[:, :1024]/32768, c).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []

def test_the_prediction_depends_on_step_and_condition():
    net, x = network(), torch.randn(1, 1024)
    a, b = (net.condition(pad_frames(torch.full((1, 1, 80, 4), v))) for v in (-1., 0.))
    with torch.no_grad(): y = [net(x, torch.tensor([t]), c) for t, c in ((3, a), (3., a), (40, a), (3, b))]
    assert torch.equal(y[0], y[1]) and not torch.allclose(y[0], y[2]) and not torch.allclose(y[0], y[3])

@pytest.mark.parametrize('shape, says', [(dict(crop=1000), 'crop must be a multiple of 256 samples, got 1000'), (dict(crop=64256), 'crop must be in'), (dict(diffusion_steps=60), 'diffusion_steps must be one of 50, 200'), (dict(conditioner='text'), 'conditioner must be one of mel, labels'),
                                         (dict(mel_width=10, mel_heads=4), 'mel_width must be a multiple of mel_heads'), (dict(colour=1), "no field 'colour'")])
def test_invalid_shapes_are_refused(shape, says):
    with pytest.raises(ValueError, match=says): config(**shape)

# --- mel spectrogram and crops

@pytest.mark.parametrize('hz', [440, 3000])
def test_mel_of_a_sine(hz):
    from librosa import mel_frequencies
    mel = log_mel(torch.sin(2*math.pi*hz*torch.arange(16128)/16000)[None])[0, 0, :, 20]
    centres = torch.from_numpy(mel_frequencies(82, fmin=0, fmax=8000)[1:-1])
    assert abs(int(mel.argmax()) - int((centres - hz).abs().argmin())) <= 1 and -.3 < float(mel.max()) <= 1

def test_mel_of_integers_and_silence():
    waves = NOTES.batch([0])[0]
    torch.testing.assert_close(log_mel(waves), log_mel(waves.float()/32768))
    assert log_mel(waves).shape == (1, 1, 80, 250) and (log_mel(torch.zeros(1, 1024)) == -1).all()

def test_a_crop_has_the_condition_of_the_note():
    torch.manual_seed(0)
    up, mel, wave = MelUpsampler().double(), torch.randn(2, 1, 80, 20).double(), torch.randn(2, 20*256)
    whole, start = up(pad_frames(mel)), torch.tensor([0, 13])
    crop, part = crop_notes(wave, mel, start, 7)
    for i, s in enumerate(start.tolist()):
        assert torch.equal(crop[i], wave[i, s*256:(s+7)*256])
        torch.testing.assert_close(up(part)[i], whole[i, :, s*256:(s+7)*256], atol=1e-12, rtol=0)

def test_crops_are_chosen_by_energy():
    torch.manual_seed(0)
    u = torch.rand(4000)
    silent = crop_starts(torch.zeros(4000, 6400), 5, u)
    assert silent.min() == 0 and silent.max() == 20 and float((silent < 7).float().mean()) == pytest.approx(1/3, abs=.04)
    pulse = torch.zeros(4000, 6400)
    pulse[:, 11*256 + 100] = 1
    inside = crop_starts(pulse, 5, u).sub(9).abs() <= 2
    assert float(inside.float().mean()) == pytest.approx(.5 + .5*5/21, abs=.03)
    assert (crop_starts(torch.ones(3, 1280), 5, torch.tensor([0., .5, .999])) == 0).all() # the whole wave

# --- pipeline and folders

def test_has_the_methods_of_mars():
    m = make()
    waves = m.generate(**LABELS, steps=2, seed=1, batch_size=1, progress=False)
    assert waves.shape == (2, 64000) and waves.dtype == torch.float32 and waves.isfinite().all() and waves.abs().max() <= 1
    torch.testing.assert_close(m.generate(**LABELS, steps=2, seed=1), waves, atol=1e-5, rtol=0)
    assert not torch.allclose(m.var.generate(dict(pitch=60), steps=2, seed=1), m.var.generate(dict(pitch=60), steps=2, seed=2))
    assert isinstance(m, Mars) and m.device.type == 'cpu' and PIPELINES.find('diffwave') is DiffWaveMars
    assert repr(m).startswith('DiffWaveMars(0.00 M, 0.01 M flow, 20000 floats a note') and m.schedule == 'fast'
    for call, says in ((lambda: m.edit(waves), 'no token maps'), (lambda: m.generate(pitch=60, top_k=3), 'top_k is not a setting'), (lambda: m.generate(family='kazoo'), "got 'kazoo'"), (lambda: make(flow=False).generate(pitch=60), 'cannot generate'),
                       (lambda: m.to(dtype='bfloat16'), 'computes in float32, got bfloat16'), (lambda: m.reconstruct(torch.zeros(64000)), 'silent'), (lambda: m.generate(schedule='slow'), "schedule must be one of fast, full, got 'slow'"),
                       (lambda: m.reconstruct(NOTES[0][0], schedule='slow'), "got 'slow'"), (lambda: DiffWaveMars(network(), schedule='x'), "got 'x'"), (lambda: m.generate(steps=0), 'steps must be a whole number')):
        with pytest.raises(ValueError, match=says) as e: call()
        assert '\n' not in str(e.value)

def test_candidates_levels_and_previews():
    m = make()
    assert m.generate(pitch=60, seed=0, steps=1, n_candidates=2, normalize='peak').abs().max() == pytest.approx(.89, abs=.01)
    (spec, wave), = m.preview(pitch=60, seed=1, steps=1)
    assert spec.shape == (1, 1, 512, 256) and wave.shape == (1, 64000)

def test_reconstruct():
    m, waves = make(flow=False), torch.stack([NOTES[0][0], NOTES[3][0]])
    both = m.reconstruct(waves, batch_size=1)
    assert both.shape == (2, 64000) and both.dtype == torch.float32 and both.abs().max() <= 1
    mel = m.encode(waves)
    assert mel.shape == (2, 1, 80, 250) and torch.equal(mel, log_mel(waves))
    torch.testing.assert_close(m.decode(mel[1:], first=1), m.reconstruct(waves, prepare=False)[1:], atol=2e-3, rtol=0) # which limits the peak to 0.999
    few = mel[..., 5:13].repeat(3, 1, 1, 1) # more than are decoded at a time
    wave = m.decode(few)
    torch.testing.assert_close(m.decode(few[5:], first=5), wave[5:], atol=1e-5, rtol=0)
    assert wave.shape == (6, 2048) and not torch.allclose(m.decode(few, seed=1), wave, atol=1e-3) and not torch.allclose(wave[0], wave[2], atol=1e-3)

def test_schedule_of_a_call_and_of_a_model(monkeypatch):
    from mars.baselines import diffwave
    used, process = [], diffwave.reverse_process
    monkeypatch.setattr(diffwave, 'reverse_process', lambda predict, noise, betas, times: (used.append(len(betas)), process(lambda x, t: x, noise, betas, times))[1])
    m, wave = make(), NOTES[0][0]
    m.reconstruct(wave); m.reconstruct(wave, schedule='full'); m.generate(pitch=60, steps=1); m.generate(pitch=60, steps=1, schedule='full'); m.generate(pitch=60, steps=1)
    assert used == [6, 50, 6, 50, 6]
    m.schedule = 'full'
    m.reconstruct(wave)
    assert used[-1] == 50

def test_global_conditioner():
    m = make(conditioner='labels')
    a, b = m.generate(pitch=[60, 61], family='flute', seed=0)
    assert not torch.allclose(a, b, atol=1e-3) and a.abs().max() <= 1 and m.tokenizer.cfg.floats_per_note == 0
    assert torch.equal(m.generate(2, seed=0)[1], m.generate(2, seed=0)[1]) # without labels
    for call, says in ((lambda: m.reconstruct(NOTES[0][0]), 'conditioned on labels and cannot reconstruct'), (lambda: m.generate(pitch=128), 'label pitch is 128'), (lambda: m.generate(pitch=60, steps=3), 'steps is not a setting')):
        with pytest.raises(ValueError, match=says): call()

@pytest.mark.parametrize('conditioner', ['mel', 'labels'])
def test_folder(tmp_path, conditioner):
    m = make(conditioner=conditioner)
    m.schedule = 'full'
    m.save_pretrained(tmp_path)
    again = Mars.from_pretrained(tmp_path)
    assert type(again) is DiffWaveMars and same(m.tokenizer, again.tokenizer) and same(m.var, again.var) and again.info == m.info and again.tokenizer.cfg == m.tokenizer.cfg and again.schedule == 'full'
    assert torch.equal(again.generate(pitch=60, seed=1, schedule='fast'), m.generate(pitch=60, seed=1, schedule='fast'))
    assert (tmp_path/'mel.safetensors').exists() == (conditioner == 'mel') and describe_model(again)['tokenizer']['channels'] == 4

def test_damaged_folders_are_refused(tmp_path):
    m = make()
    m.save_pretrained(tmp_path, half=True)
    assert Mars.from_pretrained(tmp_path).dtype == torch.float32
    with pytest.raises(ValueError, match='computes in float32'): Mars.from_pretrained(tmp_path, dtype='float16')
    config = json.loads((tmp_path/'config.json').read_text())
    for change, says in ((dict(kind='cat'), 'holds no DiffWave'), (dict(format=2), 'must be 1, got 2'), (dict(diffwave=3), 'damaged'), (dict(schedule='x'), 'schedule must be'), (dict(diffwave={**config['diffwave'], 'channels': 9}), 'does not fit its config.json')):
        (tmp_path/'config.json').write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=says): DiffWaveMars.from_pretrained(tmp_path)
    (tmp_path/'config.json').write_text(json.dumps(config))
    (tmp_path/'mel.safetensors').write_bytes(b'no')
    with pytest.raises(ValueError, match='damaged'): Mars.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match='info cannot be saved'): DiffWaveMars(m.tokenizer, None, dict(x=DiffWave)).save_pretrained(tmp_path)
    make(flow=False).save_pretrained(tmp_path/'b')
    assert Mars.from_pretrained(tmp_path/'b').var is None

# --- training

def run(out=None, steps=5, shape={}, mel_steps=4, **kwargs):
    train = TrainConfig.preset('tiny', 'diffwave', steps=steps, batch_size=4, save_every=3, log_every=1)
    mel = TrainConfig.preset('tiny', 'label_to_mel', steps=mel_steps, batch_size=4, save_every=3, log_every=1)
    return train_diffwave(NOTES, train, config(**shape), out, mel_train=mel, device='cpu', progress=False, **kwargs)

def test_training_run_folder_and_resume(tmp_path):
    m, out = run(tmp_path/'a', info=dict(data='none')), tmp_path/'a'
    again = run()
    assert same(m.tokenizer, again.tokenizer) and same(m.var, again.var) # the seed decides a run
    rows = read_log(out)
    assert [(r['stage'], r['step']) for r in rows] == [*(('diffwave', i) for i in range(5)), *(('label_to_mel', i) for i in range(4))] and {'loss', 'lr', 'grad_norm'} <= set(rows[0])
    assert m.info['data'] == 'none' and m.info['notes'] == 8 and m.info['train_diffwave']['steps'] == 5 and m.info['train_label_to_mel']['steps'] == 4
    for name in ('diffwave.safetensors', 'mel.safetensors', 'config.json', 'checkpoints/diffwave-000000005.safetensors'): (out/name).unlink()
    again = run(out, resume=True, info=dict(data='none')) # from step 3 of both stages
    assert same(again.tokenizer, m.tokenizer) and same(again.var, m.var) and again.info == m.info
    assert sorted((r['stage'], r['step']) for r in read_log(out)) == [(r['stage'], r['step']) for r in rows]
    assert torch.equal(Mars.from_pretrained(out).generate(pitch=60, seed=1, steps=1), again.generate(pitch=60, seed=1, steps=1))
    with pytest.raises(ValueError, match='made with another train'): run(out, steps=6, resume=True)
    with pytest.raises(ValueError, match='made with another shape'): run(out, shape=dict(channels=5), resume=True)
    with pytest.raises(ValueError, match='no compiled step'): train_diffwave(NOTES, TrainConfig.preset('tiny', 'diffwave', compile=True))

def test_a_run_resumed_in_the_second_stage_does_not_repeat_the_first(tmp_path, monkeypatch):
    from mars.baselines import diffwave
    m, calls, loss = run(tmp_path), [], diffwave.diffwave_loss
    (tmp_path/'mel.safetensors').unlink()
    (tmp_path/'config.json').unlink()
    monkeypatch.setattr(diffwave, 'diffwave_loss', lambda *args: (calls.append(1), loss(*args))[1])
    again = run(tmp_path, resume=True)
    assert not calls and same(again.tokenizer, m.tokenizer) and same(again.var, m.var)

def test_averaged_weights_survive_a_resume_between_the_stages(tmp_path):
    def train(**kwargs):
        settings = TrainConfig.preset('tiny', 'diffwave', steps=3, batch_size=4, ema=.5)
        return train_diffwave(NOTES, settings, config(conditioner='labels'), tmp_path, device='cpu', progress=False, **kwargs)
    m = train()
    assert same(train(resume=True).tokenizer, m.tokenizer)

def test_global_conditioner_trains(tmp_path):
    m = run(tmp_path, shape=dict(conditioner='labels', loss='l1'))
    assert {r['stage'] for r in read_log(tmp_path)} == {'diffwave'} and 'train_label_to_mel' not in m.info and m.var is m.tokenizer.labels
    assert torch.equal(Mars.from_pretrained(tmp_path).generate(pitch=60, seed=1), m.generate(pitch=60, seed=1))

def test_learns_to_denoise_a_note():
    notes = AdditiveNotes(('organ_electronic_800',), (60,), (100,))
    from mars.training.log import RunLog
    log = RunLog()
    train = TrainConfig.preset('tiny', 'diffwave', steps=80, batch_size=2, lr=1e-2, log_every=1)
    train_diffwave(notes, train, config(channels=8, layers=4, cycle=4, crop=512), mel_train=TrainConfig.preset('tiny', 'label_to_mel', steps=1, batch_size=1), device='cpu', progress=False, log=log)
    losses = [r['loss'] for r in log.rows if r.get('stage') != 'label_to_mel']
    assert sum(losses[60:80]) < .5*sum(losses[:20]), losses

def test_command(tmp_path, capsys):
    shape = [x for k, v in TINY.items() for x in (f'--{k.replace("_", "-")}', str(v))]
    data = ['--data', 'additive', '--families', 'organ', '--pitches', '60-63', '--velocities', '100', '--device', 'cpu']
    out = str(tmp_path/'run')
    command = ['train', 'diffwave', '--out', out, *data, '--batch-size', '4', *shape, '--mel-steps', '2']
    assert main([*command, '--steps', '3', '--conditioner', 'labels']) == 2 and '--mel-steps has no effect' in capsys.readouterr().err
    assert main([*command, '--steps', '3', '--json']) == 0
    assert json.loads(capsys.readouterr().out) == dict(folder=out, stage='diffwave', notes=12, steps=3)
    assert main([*command, '--steps', '4', '--resume']) == 2 # another schedule of the learning rate
    m = Mars.from_pretrained(out)
    assert m.info['data']['pitches'] == [60, 63] and m.info['data']['credits'] and m.info['train_label_to_mel']['steps'] == 2
    capsys.readouterr()
    assert main(['generate', '--model', out, '--pitch', '60,62', '--family', 'organ', '--source', 'electronic', '--velocity', '100', '--seed', '3', '--set', 'steps=1', '--out', str(tmp_path/'n'), '--json']) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])['files']
    expected = m.generate(pitch=[60, 62], family='organ', source='electronic', velocity=100, seed=3, steps=1)[1]
    assert torch.allclose(torch.as_tensor(load_wave(files[1])).float().flatten(), expected, atol=1e-4)
    save_wave(tmp_path/'in.wav', NOTES[0][0])
    assert main(['reconstruct', str(tmp_path/'in.wav'), '--model', out, '--out', str(tmp_path/'back')]) == 0
    assert (tmp_path/'back'/'in-reconstructed.wav').exists()
    assert main(['edit', str(tmp_path/'in.wav'), '--model', out, '--out', str(tmp_path/'edit')]) == 2

def test_evaluation_generates_the_notes_of_the_pipeline():
    m, times = make(), []
    labels = m.var.label_embed.check(LABELS | dict(family=[4, 6]))
    m.info['sampling'] = dict(steps=1)
    waves = torch.cat([*generate_timed(m, labels, times, seed=1, batch_size=1, steps=1)])
    torch.testing.assert_close(waves, m.generate(pitch=[60, 62], family=[4, 6], velocity=100, seed=1, batch_size=1, progress=False), atol=1e-5, rtol=0)
    assert [row[0] for row in times] == [1, 1]
