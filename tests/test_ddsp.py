"""The DDSP autoencoder: synthesiser, loudness, loss, fundamental, prior, folders, training and the command, at unit-test size."""
import json, math
import pytest, torch
from mars.baselines.ddsp import (DDSP, DDSPConfig, DDSPMars, DDSPPrior, cached_f0, corrected_f0, estimated_f0, exp_sigmoid, fill_labels, filtered_noise, frame_loudness, harmonic_amplitudes, midi_to_hz,
                                 noise_filter, oscillator_bank, phase_of, reverberate, spectral_loss, train_ddsp, upsample_f0, window_start)
from mars.cli import main
from mars.data import AdditiveNotes
from mars.eval import cents_error, f0 as pyin
from mars.evaluation.report import describe_model
from mars.parts.config import PIPELINES
from mars.parts.files import load_wave, save_wave
from mars.pipeline import Mars
from mars.train import TrainConfig
from mars.training.log import read_log

torch.set_num_threads(1)
TINY = dict(width=8, layers=1, harmonics=6, bands=9, hop=1000, window=.25, components=3)
NOTES = AdditiveNotes(('flute_acoustic_800', 'organ_electronic_800'), range(60, 64), (100,))
LABELS = dict(pitch=[60, 62, 64], family=['flute', 'organ', 'flute'], velocity=100)

def make(prior=True, **shape):
    torch.manual_seed(0)
    cfg = DDSPConfig.preset('tiny', **{**TINY, **shape})
    ddsp = DDSP(cfg).eval()
    if not prior: return DDSPMars(ddsp)
    fitted = DDSPPrior(cfg).fit(-20 + torch.randn(8, cfg.frames), torch.randn(8, 125, cfg.z_dim), NOTES.targets)
    return DDSPMars(ddsp, fitted, dict(notes=8))

def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())

# --- oscillators

@pytest.mark.parametrize('f0, hop', [(27.5, 64), (440., 100), (1975.5, 256)])
def test_the_bank_is_a_sum_of_sines(f0, hop):
    frames, c = 64000//hop, torch.rand(12, dtype=torch.float64)
    wave = oscillator_bank(phase_of(upsample_f0(torch.full((1, frames), f0, dtype=torch.float64), hop)), c.expand(1, frames+1, 12), hop)[0]
    n = torch.arange(frames*hop, dtype=torch.float64)
    assert (wave - sum(a*torch.sin(2*math.pi*k*f0*(n+1)/16000) for k, a in enumerate(c, 1))).abs().max() < 1e-6

def test_blocks_do_not_change_the_bank():
    phase, a = torch.rand(2, 640, dtype=torch.float64), torch.rand(2, 11, 5)
    torch.testing.assert_close(oscillator_bank(phase, a, 64, block=1), oscillator_bank(phase, a, 64))

def test_phase_does_not_drift_in_float32():
    f0 = torch.full((1, 64000), 4186.01)
    exact = 4186.01*64000/16000 % 1
    error = abs(float(phase_of(f0)[0, -1]) - exact)
    assert min(error, 1-error) < 1e-3*4186/16000*16 # of the float32 frequency itself

def test_amplitudes_are_interpolated_by_hann_windows():
    wave = oscillator_bank(torch.full((1, 8), .25), torch.tensor([[[1.], [0.], [0.]]]), 4)[0]
    torch.testing.assert_close(wave[:4], .5 + .5*torch.cos(math.pi*torch.arange(4)/4), atol=1e-6, rtol=0)
    assert wave[4:].abs().max() == 0

@pytest.mark.parametrize('f0, audible', [(1000., 7), (999., 8), (7999., 1), (8000., 0), (100., 20)])
def test_nothing_sounds_at_or_above_nyquist(f0, audible):
    a = harmonic_amplitudes(torch.full((1, 3, 1), .7), torch.rand(1, 3, 20) + .1, torch.full((1, 3), f0))
    assert ((a > 0).sum(-1) == audible).all() and (a[..., :audible] > 0).all()
    torch.testing.assert_close(a.sum(-1), torch.full((1, 3), .7 if audible else 0.), atol=1e-6, rtol=0)

def test_no_energy_is_folded_back():
    a = harmonic_amplitudes(torch.ones(1, 251, 1), torch.ones(1, 251, 100), torch.full((1, 251), 2900.))
    wave = oscillator_bank(phase_of(torch.full((1, 16000), 2900.)), a, 64)[0]
    power = torch.fft.rfft(wave*torch.hann_window(16000)).abs().square()
    at = {round(h): float(power[h-3:h+4].sum()/power.sum()) for h in (2900, 5800)}
    assert sum(at.values()) > .9999 # 8,700 Hz would be at 7,300

# --- noise

def test_a_flat_filter_is_one_tap():
    taps = noise_filter(torch.full((2, 33), .3))
    assert (taps[:, 32] - .3).abs().max() < 1e-6 and taps.abs().sum() < .6 + 1e-4
    noise = torch.rand(1, 640)*2 - 1
    torch.testing.assert_close(filtered_noise(torch.full((1, 10, 33), .3), noise), .3*noise, atol=1e-6, rtol=0)

@pytest.mark.parametrize('band, variance', [(0, 1/1024), (20, 1/512), (64, 1/1024)])
def test_energy_of_one_band(band, variance):
    magnitudes = torch.nn.functional.one_hot(torch.tensor(band), 65).double()
    taps = noise_filter(magnitudes)
    assert float(taps.square().sum()/3) == pytest.approx(variance, rel=1e-6)
    response = torch.fft.rfft(taps).abs()
    assert float(response[band]) == pytest.approx(.5 if 0 < band < 64 else .5, abs=1e-6)
    torch.manual_seed(0)
    wave = filtered_noise(magnitudes.float().expand(1, 4000, 65), torch.rand(1, 256000)*2 - 1)
    assert float(wave.var()) == pytest.approx(variance, rel=.1)

def test_requested_energies_of_bands():
    torch.manual_seed(0)
    shape = torch.zeros(65)
    shape[8:20], shape[40:52] = .8, .2
    wave = filtered_noise(shape.expand(1, 2048, 65), torch.rand(1, 2**17)*2 - 1)[0]
    power = torch.fft.rfft(wave).abs().square()/2**17
    def level(low, high): return float((3*power[int(low*2**17/16000):int(high*2**17/16000)].mean()).sqrt())
    assert level(1250, 2250) == pytest.approx(.8, rel=.03) and level(5250, 6250) == pytest.approx(.2, rel=.03) and level(3000, 4500) < .01

def test_reverberation_adds_the_convolution():
    x, h = torch.randn(2, 300), torch.randn(40)
    dry = torch.nn.functional.conv1d(torch.nn.functional.pad(x, (39, 0))[:, None], torch.cat([torch.zeros(1), h[1:]]).flip(0)[None, None])[:, 0]
    torch.testing.assert_close(reverberate(x, h), x + dry, atol=1e-4, rtol=1e-4)
    m = make(reverb=16)
    loss = spectral_loss(sum(m.tokenizer(torch.randn(2, 64000)*.1, torch.full((2, 1), 220.), 1, 4)), torch.randn(2, 4000)*.1)
    loss.backward()
    assert m.tokenizer.response.grad[1:].abs().min() > 0 and m.tokenizer.response.grad[0] == 0

# --- controls, loudness, loss

def test_range_of_the_controls():
    x = exp_sigmoid(torch.tensor([0., -5., 60., -60.]))
    torch.testing.assert_close(x, torch.tensor([.405399, 1.979e-5, 2., 1e-7]), atol=2e-7, rtol=1e-4)

@pytest.mark.parametrize('hz, db', [(1000, 19.81), (125, 3.80)])
def test_loudness_of_a_unit_sine(hz, db):
    wave = torch.sin(2*math.pi*hz*torch.arange(64000)/16000)[None]
    level = frame_loudness(wave, 64)
    assert level.shape == (1, 1000) and float(level[0, 500]) == pytest.approx(db, abs=.02)
    torch.testing.assert_close(frame_loudness(wave/10, 64)[0, 10:-10], level[0, 10:-10] - 20, atol=1e-3, rtol=0)

def test_silence():
    assert (frame_loudness(torch.zeros(2, 6400), 64) == -80).all()
    x = torch.zeros(1, 4096, requires_grad=True)
    for target in (torch.zeros(1, 4096), torch.randn(1, 4096)): assert torch.autograd.grad(spectral_loss(x, target), x)[0].isfinite().all()
    m = make()
    loss = spectral_loss(sum(m.tokenizer.train()(torch.zeros(2, 64000), torch.full((2, 1), 220.), 0, 4)), torch.zeros(2, 4000))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in m.tokenizer.parameters() if p.grad is not None)

def test_loss_ignores_sign_and_grows_with_the_difference():
    x = torch.randn(2, 4096)*.1
    assert spectral_loss(x, -x) < 1e-3 < spectral_loss(x, 1.01*x) < spectral_loss(x, 2*x)

# --- fundamental

@pytest.mark.parametrize('family', ['organ', 'guitar', 'brass'])
@pytest.mark.parametrize('pitch', [40, 60, 84])
def test_octave_check(family, pitch):
    wave, note = AdditiveNotes(f'{family}', (pitch,), (100,))[0]
    assert corrected_f0(wave, pitch)[1] == 0 and corrected_f0(wave, pitch + 12)[1] == -1
    for label in (pitch, pitch + 12): assert abs(1200*math.log2(corrected_f0(wave, label)[0]/midi_to_hz(pitch))) < 15

@pytest.mark.parametrize('cents', [-40, 0, 23])
def test_detuned_notes_are_tuned(cents):
    n, f0 = torch.arange(64000), midi_to_hz(62 + cents/100)
    wave = sum(torch.sin(2*math.pi*k*f0*n/16000)/k for k in range(1, 6))
    assert corrected_f0(wave, 62)[2] == pytest.approx(cents, abs=2)

def test_estimator_of_the_evaluation():
    wave, note = NOTES[1]
    assert estimated_f0(wave) == pytest.approx(pyin(wave).hz)
    torch.manual_seed(0)
    assert 20 < estimated_f0(torch.randn(64000)*torch.exp(-torch.arange(64000)/40.)) < 4500 # a click

# --- network

def test_published_parameters():
    paper = DDSP(DDSPConfig.preset('paper'))
    assert sum(p.numel() for p in paper.encoder.parameters()) == 843_852 and sum(p.numel() for p in paper.parameters()) == 7_251_186
    assert paper.cfg.frames == 1000 and paper.cfg.window_frames == 1000

def test_gradients_reach_all_weights():
    ddsp = make(prior=False).tokenizer.train()
    waves, _ = NOTES.batch(range(4))
    spectral_loss(sum(ddsp(waves/32768, torch.full((4, 1), 262.), 8, 4)), torch.randn(4, 4000)*.1).backward()
    assert [n for n, p in ddsp.named_parameters() if p.grad is None or not p.grad.any()] == []

@torch.no_grad()
def test_a_window_equals_the_same_part_of_the_note():
    ddsp, waves = make(prior=False).tokenizer, NOTES.batch(range(2))[0]/32768
    controls = ddsp.decoder(*ddsp.encode(waves, torch.tensor([[261.6], [311.1]])))
    noise = torch.rand(2, 64000)*2 - 1
    whole, part = ddsp.synthesize(controls, noise), ddsp.synthesize(controls, noise[:, 5000:9000], 5)
    torch.testing.assert_close(part[0], whole[0][:, 5000:9000], atol=1e-5, rtol=0)
    torch.testing.assert_close(part[1][:, 100:3900], whole[1][:, 5100:8900], atol=1e-5, rtol=0) # without the neighbours' overlap
    for start in (0, 5, 60): torch.testing.assert_close(ddsp(waves, torch.tensor([[261.6], [311.1]]), start, 4)[0], whole[0][:, start*1000:][:, :4000], atol=1e-5, rtol=0)

def test_windows_begin_at_the_onset_in_a_quarter_of_the_steps():
    cfg = DDSPConfig.preset('small')
    starts = torch.tensor([window_start(cfg, 0, step) for step in range(3000)])
    assert .2 < (starts == 0).float().mean() < .3 and starts.max() == cfg.frames - cfg.window_frames and window_start(cfg, 0, 7) == starts[7]
    assert window_start(DDSPConfig.preset('paper'), 0, 1) == 0

@pytest.mark.parametrize('shape, says', [(dict(hop=300), 'hop must divide the 64000 samples'), (dict(window=.1), 'window must be at least 0.128 s'), (dict(bands=1), 'bands must be >= 2'), (dict(f0_source='crepe'), 'must be one of label, estimator'), (dict(colour=1), "no field 'colour'")])
def test_invalid_shapes_are_refused(shape, says):
    with pytest.raises(ValueError, match=says): DDSPConfig.preset('tiny', **shape)

# --- prior

def test_prior_recovers_a_linear_gaussian():
    torch.manual_seed(0)
    cfg, n = DDSPConfig.preset('tiny', **{**TINY, 'z_dim': 2}), 1500
    labels = dict(pitch=torch.randint(40, 80, (n,)), family=torch.randint(0, 2, (n,)), source=torch.zeros(n).long(), velocity=torch.randint(25, 127, (n,)))
    loudness = -30 + 5*labels['family'].float()[:, None] + 3*torch.randn(n, 1).expand(n, cfg.frames)
    z = (labels['pitch'].float() - 60)[:, None, None].expand(n, 125, 2)/24
    prior = DDSPPrior(cfg).fit(loudness, z, labels)
    f0, level, code = prior.generate(dict(pitch=72, family=1, source=0, velocity=60), 300, seed=0)
    assert float(level.mean()) == pytest.approx(-25, abs=.7) and float(level.mean(1).std()) == pytest.approx(3, rel=.2)
    assert float(code.mean()) == pytest.approx(.5, abs=.02) and torch.allclose(f0, torch.tensor(midi_to_hz(72.)))
    _, still, _ = prior.generate(dict(pitch=72, family=1, source=0, velocity=60), 4, seed=0, temperature=0)
    assert (still - still[0]).abs().max() < 1e-4 and float(still.mean()) == pytest.approx(-25, abs=.5)

def test_missing_labels_come_from_a_training_note_that_agrees():
    prior = make().var
    full = fill_labels(prior.label_embed.check(dict(family=6), 50), prior.rows.long(), torch.rand(50))
    assert (full['family'] == 6).all() and (full['source'] == 1).all() and {*full['pitch'].tolist()} <= {60, 61, 62, 63} and len({*full['pitch'].tolist()}) > 1
    assert {k: v.tolist() for k, v in fill_labels(prior.label_embed.check(dict(pitch=90, family=1, source=2, velocity=3)), prior.rows.long(), torch.zeros(1)).items()} == dict(pitch=[90], family=[1], source=[2], velocity=[3])

@pytest.mark.parametrize('kwargs, says', [(dict(temperature=-1), 'temperature is -1; give a number >= 0'), (dict(temperature=math.nan), 'temperature is nan'), (dict(temperature=True), 'temperature is True'), (dict(n=0), 'at least one note'), (dict(seed=-1), 'seed is -1'), (dict(labels=dict(pitch=128)), 'label pitch is 128'), (dict(labels=dict(colour=1)), "'colour' is unknown")])
def test_invalid_requests_are_refused(kwargs, says):
    with pytest.raises(ValueError, match=says) as e: make().var.generate(**kwargs)
    assert '\n' not in str(e.value)

def test_an_unfitted_prior_generates_nothing():
    with pytest.raises(ValueError, match='not fitted'): DDSPPrior(DDSPConfig.preset('tiny', **TINY)).generate()

# --- pipeline and folders

def test_has_the_methods_of_mars():
    m = make()
    waves = m.generate(**LABELS, seed=1, batch_size=2, progress=False)
    assert waves.shape == (3, 64000) and waves.dtype == torch.float32 and waves.isfinite().all() and waves.abs().max() <= 1
    torch.testing.assert_close(m.generate(**LABELS, seed=1), waves, atol=1e-5, rtol=0)
    assert not torch.equal(m.generate(**LABELS, seed=2), waves)
    assert m.generate(pitch=60, family='organ', seed=0, n_candidates=2, normalize='peak').abs().max() == pytest.approx(.89, abs=.01)
    (spec, wave), = m.preview(pitch=60, family='flute', seed=1)
    assert spec.shape == (1, 1, 512, 256) and wave.shape == (1, 64000)
    assert isinstance(m, Mars) and 'DDSPMars' in repr(m) and m.device.type == 'cpu' and PIPELINES.find('ddsp') is DDSPMars
    for call, says in ((lambda: m.edit(waves), 'no token maps'), (lambda: m.generate(pitch=60, top_k=3), 'top_k is not a setting of a ddsp transformer'), (lambda: m.generate(family='kazoo'), "got 'kazoo'"), (lambda: make(prior=False).generate(pitch=60), 'cannot generate'),
                       (lambda: m.to(dtype='bfloat16'), 'computes in float32, got bfloat16'), (lambda: m.reconstruct(torch.zeros(64000)), 'silent')):
        with pytest.raises(ValueError, match=says): call()

def test_reconstruct():
    m, wave = make(), NOTES[0][0]
    by_label, by_estimate = m.reconstruct(wave, pitch=60), m.reconstruct(wave)
    assert by_label.shape == (1, 64000) and by_label.abs().max() <= 1
    assert m.encode(wave, 60)[0].item() == pytest.approx(261.6, rel=.01) and m.encode(wave)[0].item() == pytest.approx(261.6, rel=.01)
    assert (by_label - by_estimate).abs().max() > 0 # tuned differently by a few cents
    assert torch.equal(m.reconstruct(torch.stack([wave, NOTES[3][0]]), pitch=[60, 63], batch_size=1)[0], by_label[0])
    harmonic, noise = m.synthesize(m.encode(wave, 60))
    torch.testing.assert_close(m.decode(m.encode(wave, 60)), (harmonic + noise)/(harmonic + noise).abs().max().div(.999).clamp(min=1))
    with pytest.warns(UserWarning, match='padded to 64000'): assert m.reconstruct(wave[:20000]).shape == (1, 64000)

def test_folder(tmp_path):
    m = make()
    m.save_pretrained(tmp_path)
    again = Mars.from_pretrained(tmp_path)
    assert type(again) is DDSPMars and same(m.tokenizer, again.tokenizer) and same(m.var, again.var) and again.info == m.info and again.tokenizer.cfg == m.tokenizer.cfg
    assert torch.equal(again.generate(**LABELS, seed=1), m.generate(**LABELS, seed=1))
    assert describe_model(again)['tokenizer']['hop'] == 1000
    m.save_pretrained(tmp_path, half=True)
    assert Mars.from_pretrained(tmp_path).dtype == torch.float32
    with pytest.raises(ValueError, match='computes in float32'): Mars.from_pretrained(tmp_path, dtype='float16')
    config = json.loads((tmp_path/'config.json').read_text())
    for change, says in ((dict(kind='cat'), 'holds no DDSP model'), (dict(format=2), 'must be 1, got 2'), (dict(ddsp=3), 'damaged'), (dict(ddsp={**config['ddsp'], 'width': 9}), 'does not fit its config.json')):
        (tmp_path/'config.json').write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=says): DDSPMars.from_pretrained(tmp_path)
    (tmp_path/'config.json').write_text(json.dumps(config))
    (tmp_path/'ddsp.safetensors').write_bytes(b'no')
    with pytest.raises(ValueError, match='damaged'): Mars.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match='info cannot be saved'): DDSPMars(m.tokenizer, None, dict(x=DDSP)).save_pretrained(tmp_path)
    make(prior=False).save_pretrained(tmp_path/'b')
    assert Mars.from_pretrained(tmp_path/'b').var is None

# --- training

def run(out=None, steps=6, shape={}, **kwargs):
    train = TrainConfig.preset('tiny', 'ddsp', steps=steps, batch_size=4, save_every=3, log_every=1)
    return train_ddsp(NOTES, train, DDSPConfig.preset('tiny', **{**TINY, **shape}), out, device='cpu', progress=False, **kwargs)

def test_training_run_folder_and_resume(tmp_path):
    m = run(tmp_path/'a', info=dict(data='none'))
    assert same(m.tokenizer, run().tokenizer) # the seed decides a run
    rows = read_log(tmp_path/'a')
    assert [r['step'] for r in rows] == [*range(6)] and {'loss', 'harmonic_db', 'noise_db', 'lr', 'grad_norm'} <= set(rows[0]) and {r['stage'] for r in rows} == {'ddsp'}
    assert m.info['data'] == 'none' and m.info['notes'] == 8 and m.info['train_ddsp']['steps'] == 6 and m.info['f0']['source'] == 'label, octave checked'
    assert 'ddsp' in json.loads((tmp_path/'a'/'settings.json').read_text())
    for name in ('ddsp', 'prior'): (tmp_path/'a'/f'{name}.safetensors').unlink()
    (tmp_path/'a'/'config.json').unlink()
    again = run(tmp_path/'a', resume=True) # from step 3, the last checkpoint
    assert same(again.tokenizer, m.tokenizer) and same(again.var, m.var) and [r['step'] for r in read_log(tmp_path/'a')] == [*range(6)]
    assert torch.equal(Mars.from_pretrained(tmp_path/'a').generate(pitch=60, seed=1), again.generate(pitch=60, seed=1))
    with pytest.raises(ValueError, match='made with another train'): run(tmp_path/'a', steps=8, resume=True)
    with pytest.raises(ValueError, match='made with another shape'): run(tmp_path/'a', shape=dict(z_dim=3), resume=True)
    with pytest.raises(ValueError, match='no compiled step'): train_ddsp(NOTES, TrainConfig.preset('tiny', 'ddsp', compile=True))

def test_both_sources_of_f0_train(tmp_path):
    few = NOTES.select(range(2))
    for source in ('label', 'estimator'):
        table = cached_f0(few, source)
        assert (cents_error(69 + 12*torch.log2(table[:, 0]/440).numpy(), [60, 61]).__abs__() < 10).all()
    m = run(tmp_path/'e', steps=1, shape=dict(f0_source='estimator'))
    assert m.info['f0'] == dict(source='pYIN') and (tmp_path/'e'/'f0.safetensors').exists()

def test_overfits_two_notes():
    notes = AdditiveNotes(('organ_electronic_800',), (60, 67), (100,))
    train = TrainConfig.preset('tiny', 'ddsp', steps=60, batch_size=2, lr=1e-2, log_every=10)
    from mars.training.log import RunLog
    log = RunLog()
    train_ddsp(notes, train, DDSPConfig.preset('tiny', window=.25), device='cpu', progress=False, log=log)
    assert log.rows[-1]['loss'] < .45*log.rows[0]['loss'], [r['loss'] for r in log.rows]

def test_command(tmp_path, capsys):
    shape = [x for k, v in TINY.items() for x in (f'--{k.replace("_", "-")}', str(v))]
    data = ['--data', 'additive', '--families', 'organ', '--pitches', '60-63', '--velocities', '100', '--device', 'cpu']
    out = str(tmp_path/'run')
    assert main(['train', 'ddsp', '--out', out, *data, '--steps', '3', '--batch-size', '4', *shape, '--json']) == 0
    assert json.loads(capsys.readouterr().out) == dict(folder=out, stage='ddsp', notes=12, steps=3)
    assert main(['train', 'ddsp', '--out', out, *data, '--steps', '4', '--batch-size', '4', *shape, '--resume']) in (0, 2)
    m = Mars.from_pretrained(out)
    assert m.info['data']['pitches'] == [60, 63] and m.info['data']['credits']
    assert main(['generate', '--model', out, '--pitch', '60,62', '--family', 'organ', '--source', 'electronic', '--velocity', '100', '--seed', '3', '--out', str(tmp_path/'n'), '--json']) == 0
    files = json.loads(capsys.readouterr().out.splitlines()[-1])['files']
    expected = m.generate(pitch=[60, 62], family='organ', source='electronic', velocity=100, seed=3)[1]
    assert torch.allclose(torch.as_tensor(load_wave(files[1])).float().flatten(), expected, atol=1e-4)
    save_wave(tmp_path/'in.wav', NOTES[0][0])
    assert main(['reconstruct', str(tmp_path/'in.wav'), '--model', out, '--out', str(tmp_path/'back')]) == 0
    assert (tmp_path/'back'/'in-reconstructed.wav').exists()
    assert main(['edit', str(tmp_path/'in.wav'), '--model', out, '--out', str(tmp_path/'edit')]) == 2

def test_evaluation_protocol(tmp_path, capsys):
    m = make()
    m.save_pretrained(tmp_path/'m')
    assert main(['evaluate', '--model', str(tmp_path/'m'), '--data', 'additive', '--families', 'organ,flute', '--pitches', '50-61', '--velocities', '100', '--n', '20', '--n-iter', '1', '--n-resamples', '10', '--n-f0', '2',
                 '--n-train', '100', '--seeds', '1', '--out', str(tmp_path/'a'), '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert {'generated', 'reconstruction'} <= set(said['rows']) and said['settings']['phases']['generated'] == 'of the decoder'
