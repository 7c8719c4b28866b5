"""Notes of another rate and length: sources, caches, training, commands."""
import base64, io, json, math, re
import numpy as np, pytest, soundfile, torch
from mars.apps.instruments import export_instrument, play_midi, shift
from mars.ablations import run_experiment
from mars.baselines.ddsp import train_ddsp
from mars.baselines.diffwave import train_diffwave
from mars.baselines.wavenet import train_wavenet
from mars.cli.dispatch import main
from mars.data import AdditiveNotes, AugmentedNotes, NoteFolder, NoteFormat, NSynth
from mars.eval import f0, full_scale_power, log_mel, mel_distance, nearest_mel_error, octave_energy, octave_levels
from mars.evaluation.classifier import measure_classifier, train_classifier
from mars.evaluation.protocol import MelPCA, NoteSet, ProtocolConfig, Row, as_int16, evaluate, note_waves
from mars.evaluation.report import Splits, evaluate_model, read_report
from mars.parts.codec import Codec, cross_fade, reconstruct_long, window_starts
from mars.parts.editing import predict_labels
from mars.parts.files import save_wave
from mars.parts.vocoder import train_vocoder
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, train_tokenizer, train_var
from mars.training.tokens import embed_notes, names_hash

FORMATS = [NoteFormat(44100, 1.), NoteFormat(16000, 8.), NoteFormat(48000, 2., 1.)]

def notes(format=None): return AdditiveNotes('flute_acoustic_800', (60, 64), 100, format=format)

def frequency(wave, rate): # of the loudest partial
    x = np.abs(np.fft.rfft(wave*np.hanning(len(wave)), 8*len(wave)))
    return x.argmax()*rate/8/len(wave)

@pytest.mark.parametrize('format', FORMATS, ids=str)
def test_a_source_has_the_rate_and_length_of_its_format(format):
    ds = notes(format)
    wave, note = ds[0]
    rate = format.sample_rate
    assert wave.shape == (format.n_samples,) and ds.batch([1, 0])[0].shape == (2, format.n_samples)
    assert abs(frequency(wave[rate//5:int(format.hold*rate)].numpy(), rate)/261.63 - 1) < 0.003
    held, after = wave[int((format.hold - .1)*rate):int(format.hold*rate)], wave[-int(.05*rate):]
    assert after.abs().max() < 0.2*held.abs().max()
    assert ds.select([0]).format == (ds + ds).format == AugmentedNotes(ds).format == format
    assert AugmentedNotes(ds).samples(3).shape == (format.n_samples,)

def test_formats_do_not_mix():
    with pytest.raises(ValueError, match='are 4 s at 16000 Hz, of another 1 s at 44100 Hz: open both in one format'):
        notes() + notes(FORMATS[0])
    assert len({names_hash(notes(f)) for f in (None, *FORMATS)}) == 4 and names_hash(notes(NoteFormat())) == names_hash(notes())

@pytest.mark.parametrize('wrong, words', [(dict(sample_rate=4000), 'sample_rate'), (dict(seconds=0.), 'seconds'), (dict(seconds=2., held=3.), 'held must be at most the 2 seconds')])
def test_a_wrong_format_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words): NoteFormat(**wrong)

@pytest.fixture
def recording(tmp_path): # 2 s at 48 kHz, a partial of 12 kHz above 440 Hz
    t, folder = np.arange(96000)/48000, tmp_path/'sounds'
    folder.mkdir()
    save_wave(folder/'flute_acoustic_001-069-100.wav', 0.5*np.sin(2*np.pi*440*t) + 0.3*np.sin(2*np.pi*12000*t), 48000)
    return folder

def test_a_folder_is_read_at_the_rate_of_its_format_and_cached(recording, tmp_path):
    with pytest.warns(UserWarning, match='not at 44100 Hz'): ds = NoteFolder(recording, cache=tmp_path/'c', format=FORMATS[0])
    first, again = ds.samples(0).copy(), ds.samples(0)
    spectrum = np.abs(np.fft.rfft(first))
    assert len(first) == 44100 and (first == again).all() and 0.5 < spectrum[12000]/spectrum[440] < 0.7
    with pytest.warns(UserWarning, match='not 8 s long'): long = NoteFolder(recording, cache=tmp_path/'c', format=FORMATS[1])
    assert len(long.samples(0)) == 128000 and not long.samples(0)[33000:].any()
    assert len([*(tmp_path/'c').glob('notefolder-*')]) == 2

def test_nsynth_layout_is_resampled(tmp_path):
    audio = tmp_path/'audio'
    audio.mkdir()
    wave, note = notes()[0]
    save_wave(audio/'flute_acoustic_800-060-100.wav', wave)
    labels = dict(pitch=60, velocity=100, instrument_str=note.instrument, instrument_family=2, instrument_source=0)
    (tmp_path/'examples.json').write_text(json.dumps({'flute_acoustic_800-060-100': labels}))
    wave = NSynth(tmp_path, cache=False, format=FORMATS[0])[0][0]
    assert len(wave) == 44100 and abs(frequency(wave[8820:].numpy(), 44100)/261.63 - 1) < 0.003

@pytest.mark.parametrize('rate, seconds, frames', [(16000, 4., 256), (16000, 8., 512), (44100, 4., 768), (44100, 8., 1536), (16000, 4.1, 512)])
def test_the_spectrogram_of_a_length_folds_into_256_columns(rate, seconds, frames):
    ls = LogSpectrogram.for_duration(rate, seconds)
    assert (ls.n_frames, ls.n_samples, ls.sample_rate) == (frames, round(rate*seconds), rate) and ls.n_padded >= ls.n_samples
    codec = Codec(Tokenizer(TokenizerConfig.preset('tiny', image_shape=(frames//128, 256, 256))), spectrogram=ls)
    wave = torch.rand(1, ls.n_samples) - 0.5
    image = codec.wave_to_image(wave)
    assert image.shape == (1, frames//128, 256, 256) and torch.equal(codec.image_to_spec(image), ls.encode(wave))

def test_train_generate_and_reconstruct_at_another_rate(tmp_path, capsys):
    run, common = str(tmp_path/'run'), ['--data', 'additive', '--families', 'flute', '--pitches', '60', '--velocities', '100', '--steps', '2', '--batch-size', '2', '--json']
    main(['train', 'tokenizer', *common, '--sample-rate', '32000', '--seconds', '2', '--out', run])
    main(['train', 'var', *common, '--out', run])
    m = Mars.from_pretrained(run)
    assert (m.sample_rate, m.n_samples, m.tokenizer.cfg.image_shape) == (32000, 64000, (2, 256, 256))
    assert m.info['format'] == dict(sample_rate=32000, seconds=2., held=0.)
    main(['generate', '--model', run, '--pitch', '60', '--family', 'flute', '--out', str(tmp_path/'g'), '--json'])
    main(['reconstruct', '--model', run, str(tmp_path/'g'/'flute-060.wav'), '--out', str(tmp_path/'r'), '--json'])
    for file in (tmp_path/'g'/'flute-060.wav', tmp_path/'r'/'flute-060-reconstructed.wav'):
        info = soundfile.info(file)
        assert (info.samplerate, info.frames) == (32000, 64000)
    main(['evaluate', '--model', run, '--data', 'additive', '--n', '20', '--seeds', '1', '--n-f0', '4', '--n-train', '100', '--n-resamples', '10', '--n-iter', '1',
          '--out', str(tmp_path/'e'), '--json'])
    report = read_report(tmp_path/'e'/'report.json')
    s, rows, text = report['settings'], report['rows'], (tmp_path/'e'/'table.md').read_text()
    assert (s['rate'], s['samples']) == (32000, 64000) and s['embedders']['mel-PCA']['n_samples'] == s['classifier']['n_samples'] == 64000
    assert 'The notes are 2 s at 32000 Hz' in text and 'mel-PCA and the classifier cut or padded with silence to 4 s' in text
    exact, lowpass = rows['true-phase oracle'], rows['low-pass 3.5 kHz']
    assert rows['reference itself']['f0 within 50 cents'].value == 1 and abs(exact['level 8-16 kHz'].value) < 1 and lowpass['level 8-16 kHz'].value < -40
    assert abs(lowpass['level 1-2 kHz'].value) < 0.2 and 'level 16-16 kHz' not in exact and '| 8-16 kHz |' in text
    page = (tmp_path/'e'/'listen.html').read_text()
    player = base64.b64decode(re.search('base64,([^"]*)"', page)[1])
    assert soundfile.info(io.BytesIO(player)).samplerate == 32000

def test_a_model_of_another_format_starts_from_trained_weights(tmp_path, capsys):
    "--init with --seconds stretches the patch layers, and the transformer continues on the new tokens."
    few = ['--data', 'additive', '--families', 'flute', '--pitches', '60-63', '--velocities', '100', '--batch-size', '4', '--json']
    a, b = str(tmp_path/'a'), str(tmp_path/'b')
    still = ['--steps', '1', '--lr', '1e-9', '--ema', '0', '--revive-every', '0']
    for argv in (['tokenizer', '--out', a, '--steps', '4'], ['var', '--out', a, '--steps', '2'],
                 ['tokenizer', '--init', a, '--seconds', '8', '--out', b, *still], ['var', '--init', a, '--out', b, *still]):
        assert main(['train', *argv, *few]) == 0
    old, new = Mars.from_pretrained(a), Mars.from_pretrained(b)
    assert new.n_samples == 2*old.n_samples and new.tokenizer.cfg.image_shape == (4, 256, 256) and new.info['format']['seconds'] == 8
    torch.testing.assert_close(new.var.head.weight, old.var.head.weight)
    image = old.wave_to_image(notes().batch([0, 1])[0])
    slow = new.cmx.fold(old.cmx.unfold(image).repeat_interleave(2, -1))
    with torch.no_grad(): torch.testing.assert_close(new.tokenizer.encoder(slow), old.tokenizer.encoder(image), atol=1e-3, rtol=1e-3)
    assert main(['train', 'tokenizer', '--init', b, '--decoder-only', '--steps', '2', '--lr', '0.01', '--out', str(tmp_path/'d'), *few]) == 0
    refined = Mars.from_pretrained(tmp_path/'d')
    long = new.wave_to_image(notes(NoteFormat(seconds=8.)).batch([0, 1])[0])
    assert all(torch.equal(x, y) for x, y in zip(refined.tokenizer.encode(long), new.tokenizer.encode(long)))
    assert not torch.equal(refined.tokenizer.decoder.to_pixels.weight, new.tokenizer.decoder.to_pixels.weight)
    assert main(['train', 'tokenizer', '--decoder-only', '--out', str(tmp_path/'e'), *few]) == 2 and '--decoder-only continues from a trained tokenizer' in capsys.readouterr().err
    assert main(['train', 'tokenizer', '--init', b, '--n-fft', '2048', '--out', str(tmp_path/'c'), *few, *still]) == 0
    assert Mars.from_pretrained(tmp_path/'c').spectrogram.n_fft == 2048

def test_a_start_from_another_format_needs_the_same_tokens():
    small, other = (Tokenizer(TokenizerConfig.preset('tiny', codebook_size=n)) for n in (256, 128))
    with pytest.raises(ValueError, match='differs in its image only'): train_tokenizer(notes(), TrainConfig.preset('tiny', steps=1), small.cfg, init=Codec(other), progress=False)

def test_a_model_refuses_notes_of_another_format():
    m = Codec(Tokenizer(TokenizerConfig.preset('tiny')))
    with pytest.raises(ValueError, match='the notes are 1 s at 44100 Hz and the model takes 4 s at 16000 Hz; open them in its format'):
        train_var(notes(FORMATS[0]), m, TrainConfig.preset('tiny', 'var', steps=1))
    with pytest.raises(ValueError, match='the notes are 2 s at 48000 Hz and the model takes 4 s at 16000 Hz'):
        train_tokenizer(notes(FORMATS[2]), TrainConfig.preset('tiny', steps=1), spectrogram=LogSpectrogram())

def test_an_evaluation_refuses_notes_of_another_format():
    with pytest.raises(ValueError, match='the reference notes are 8 s at 16000 Hz and the model generates 4 s at 16000 Hz; open the notes in its format'):
        evaluate_model(Mars(Tokenizer(TokenizerConfig.preset('tiny'))), Splits(notes(FORMATS[1])), 20)

@pytest.mark.parametrize('rate', [16000, 44100])
def test_errors_and_levels_are_measured_at_the_rate(rate):
    t = torch.arange(rate)/rate
    low, high = (0.4*torch.sin(2*torch.pi*hz*t) for hz in (440., 0.4*rate))
    wave, band = low + high, math.floor(math.log2(0.4*rate/125)) + 1
    levels = octave_levels(octave_energy(wave[None], rate), octave_energy((low + high/2)[None], rate))
    assert levels[band] == pytest.approx(-6.02, abs=.05) and levels[2] == pytest.approx(0, abs=.05)
    assert octave_energy(wave[None], rate).sum() == pytest.approx(wave.square().sum().item(), rel=1e-3)
    near = nearest_mel_error(torch.stack([low, wave]), wave[None]/10**0.5, sample_rate=rate)
    assert near.index[0] == 1 and mel_distance(wave, low, rate)[0] > mel_distance(wave, wave/1.01, rate)[0]
    assert log_mel(wave, sample_rate=rate).shape == (128, 1 + rate//round(.016*rate))
    assert abs(log_mel(low, full_scale_power(rate), sample_rate=rate).max() - (1 + 20*math.log10(.4)/80)) < .05

def test_networks_take_notes_at_16_khz():
    wave = torch.sin(2*torch.pi*440*torch.arange(44100)/44100)[None]
    out = note_waves(as_int16(wave/2), 44100, MelPCA(n_samples=64000))
    assert out.shape == (1, 64000) and out.dtype == torch.int16 and not out[0, 16000:].any()
    assert abs(frequency(out[0, 1000:15000].numpy(), 16000)/440 - 1) < 1e-3 and note_waves(out, 16000, object()) is out

def test_short_notes_have_no_pitch_and_say_so():
    short = NoteSet(torch.randn(24, 8000, generator=torch.Generator().manual_seed(0)).mul(.1), dict(pitch=[60]*24, family=[0]*24), 44100)
    result = evaluate(short, [Row('same', short, True)], embedders=[MelPCA(4, 8, 4).fit(short)], cfg=ProtocolConfig(n_f0=4, n_resamples=10))
    assert 'notes of 0.181406 s are too short for a pitch' in result['left_out']['f0'] and 'f0 within 50 cents' not in result['rows']['same']
    assert result['rows']['same']['level 16-22.1 kHz'].value == 0 == result['rows']['same']['MSE'].value

class Lossless: # a codec whose tokens are the spectrogram
    spectrogram, sample_rate = LogSpectrogram(), 16000
    spec_to_wave = Codec.spec_to_wave
    vocoder = None
    def encode(self, wave): return self.spectrogram.encode(wave)
    def tokens_to_spec(self, tokens, n_scales): return tokens

@pytest.mark.parametrize('seconds', [2, 4.5, 13, 60])
def test_a_long_recording_keeps_its_level_and_has_no_clicks(seconds):
    t = torch.arange(round(seconds*16000))/16000
    wave = 0.3*torch.sin(2*torch.pi*440*t)*(20*t).clamp(max=1)*(20*t.flip(0)).clamp(max=1) # a border would be a dip
    out = reconstruct_long(Lossless(), wave, n_iter=32)
    assert out.shape == (1, len(wave))
    level = out[0, :len(wave)//1600*1600].view(-1, 1600).square().mean(1).sqrt()[1:-1]
    level = 20*torch.log10(level/0.2121)
    assert level.abs().max() < 2 and level.max() - level.min() < 1
    assert out[0, 1600:-1600].diff(n=4).abs().max() < 3*wave.diff(n=4).abs().max()

def test_windows_cover_a_recording():
    for n in (1, 249, 250, 251, 469, 470, 3000):
        starts = window_starts(n, 250, 219)
        covered = {f for s in starts for f in range(s, s + 250)}
        assert set(range(n)) <= covered and (len(starts) == 1 or starts[-1] + 31 < n)

def test_overlapping_spectrograms_are_cross_faded():
    specs = torch.stack([torch.full((1, 4, 10), v) for v in (-1., 0., 1.)])
    out = cross_fade(specs, 7)[0, 0, 0]
    assert out.shape == (24,) and out[:7].eq(-1).all() and out[17:].eq(1).all() and out[10:14].eq(0).all()
    torch.testing.assert_close(out[7:10], torch.tensor([-.75, -.5, -.25]))

@pytest.mark.parametrize('wrong, words', [(dict(overlap=3.), 'overlap must be in 0..2 s'), (dict(wave=torch.rand(2, 100000)), 'takes one sound, got 2')])
def test_a_wrong_long_reconstruction_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words): reconstruct_long(Lossless(), **dict(wave=torch.rand(100000)) | wrong)

@pytest.mark.parametrize('name, train', [('DDSP', train_ddsp), ('DiffWave', train_diffwave), ('WaveNet', train_wavenet), ('the experiment cmx', lambda n: run_experiment('cmx', notes=n)),
                                         ('the classifier', lambda n: measure_classifier(None, n)), ('the classifier', lambda n: train_classifier(n, n))])
def test_models_of_one_format_refuse_others(name, train):
    with pytest.raises(ValueError, match=f'{name} takes notes of 4 s at 16000 Hz, got 1 s at 44100 Hz; open the notes in that format'): train(notes(FORMATS[0]))

def test_labels_of_an_edit_are_predicted_at_other_rates():
    class Ear:
        def logits(self, x): self.heard = x; return dict(pitch=torch.eye(128)[[61]*len(x)], family=torch.eye(11)[[4]*len(x)])
    m = Mars(Tokenizer(TokenizerConfig.preset('tiny', image_shape=(2, 256, 256))), spectrogram=LogSpectrogram(44100, n_frames=256, duration=1.))
    m.classifier = Ear()
    assert predict_labels(m, 0.5*torch.sin(2*torch.pi*440*torch.arange(44100)/44100)[None])['pitch'].tolist() == [61]
    heard = m.classifier.heard
    assert heard.shape == (1, 64000) and abs(frequency(heard[0, 1000:15000].numpy(), 16000)/440 - 1) < 1e-3 and heard[0, 40000:47000].any() # continued

def test_references_are_embedded_at_16_khz():
    class Classifier:
        digest = 'x'
        def features(self, waves): return waves[:, 1000:1002].float()
    slow, fast = (embed_notes(notes(f), Classifier()) for f in (None, NoteFormat(32000, 4.)))
    assert slow.shape == fast.shape == (2*len(notes())//2, 2) and (slow - fast).abs().max() < 0.1*slow.abs().max() + 0.02

def test_a_vocoder_refuses_notes_of_another_rate():
    with pytest.raises(ValueError, match='the notes are 1 s at 44100 Hz and the vocoder takes 16000 Hz; open them at that rate'): train_vocoder(notes(FORMATS[0]), progress=False)

class Synth:
    "A model that generates the additive notes of a format, 20 cents sharp."
    classifier = None
    def __init__(self, format):
        self.format, self.sample_rate, self.n_samples = format, format.sample_rate, format.n_samples
        self.info = dict(data=dict(pitches=[55, 67]), format=dict(sample_rate=format.sample_rate, seconds=format.seconds, held=format.held))
    def stream(self, n, *, pitch, velocity=None, family=None, source=None, seed=0, progress=None):
        def one(i):
            wave = shift(AdditiveNotes(family[i], pitch[i], 100, format=self.format)[0][0].numpy(), 20)[:self.n_samples]
            return torch.from_numpy(np.pad(wave, (0, self.n_samples - len(wave))))
        return (torch.stack([one(i)]) for i in range(n))

@pytest.mark.parametrize('format', [NoteFormat(44100, 2.), NoteFormat(16000, 8., 5.)], ids=str)
def test_an_instrument_has_the_rate_and_length_of_the_model(format, tmp_path):
    m, rate = Synth(format), format.sample_rate
    made = export_instrument(m, tmp_path/'sfz', 'organ', pitches=(58, 62), velocities=100, tries=1, loop=True)
    for row in made['samples']:
        wave, found = soundfile.read(tmp_path/'sfz'/row['file'])
        assert (found, len(wave)) == (rate, format.n_samples) and row['cents'] == pytest.approx(20, abs=3)
        start, end = row['loop']
        assert end + 1 == round(format.hold*rate)*5//6 and 11/30 < (end - start)/(format.hold*rate) < 17/30
        held = np.concatenate([wave[:end + 1], wave[start:end + 1]])
        assert np.abs(np.diff(held))[end - 50:end + 50].max() < 1.5*np.abs(np.diff(wave)).max()
    plain = export_instrument(m, tmp_path/'wav', 'organ', 'electronic', pitches=60, velocities=100, tries=1, format='wav')
    ds = NSynth(tmp_path/'wav', cache=False, format=format)
    assert json.loads((tmp_path/'wav'/'examples.json').read_text())[ds.notes[0].note_str]['sample_rate'] == rate
    assert soundfile.info(plain['folder'] + '/' + plain['samples'][0]['file']).frames == format.n_samples
    assert abs(f0(ds[0][0], rate).midi - 60) < 0.05

def test_a_tune_has_the_rate_of_the_model(tmp_path):
    import mido
    track = mido.MidiTrack(m for i, p in enumerate((60, 64)) for m in (mido.Message('note_on', note=p, velocity=100), mido.Message('note_off', note=p, time=960*(1 + 3*i))))
    file = mido.MidiFile(ticks_per_beat=480)
    file.tracks.append(track)
    file.save(tmp_path/'a.mid')
    wave, about = play_midi(Synth(NoteFormat(44100, 2.)), tmp_path/'a.mid', tmp_path/'a.wav', family='organ', tries=1, release=.1)
    info = soundfile.info(tmp_path/'a.wav')
    assert info.samplerate == about['sample_rate'] == 44100 and info.frames == len(wave) and 5 < about['seconds'] < 5.2
    first, long = wave[4410:39690], wave[int(3.5*44100):int(4.8*44100)] # the second is held for 4 s by a loop of its 2 s
    assert abs(f0(first, 44100).midi - 60) < .1 and abs(f0(long, 44100).midi - 64) < .1 and np.abs(long).max() > .05

def test_a_model_of_very_short_notes_is_no_instrument(tmp_path):
    with pytest.raises(ValueError, match='generates notes of 0.2 s, and a pitch needs at least 0.3 s; take another model'):
        export_instrument(Synth(NoteFormat(16000, 0.2)), tmp_path/'i', 'organ')
    assert not (tmp_path/'i').exists()

@pytest.mark.parametrize('format, n_fft', [(NoteFormat(44100, 1.), 2048), (NoteFormat(16000, 8.), 1024)], ids=str)
def test_the_exported_graphs_have_the_spectrogram_of_the_format(format, n_fft):
    ort = pytest.importorskip('onnxruntime')
    from mars.apps.browser import check_page
    from mars.parts.onnx_graphs import onnx_files
    from mars.var import VAR, VARConfig
    ls = LogSpectrogram.for_duration(format.sample_rate, format.seconds, n_fft, n_fft//4)
    tok = Tokenizer(TokenizerConfig.preset('tiny', image_shape=(ls.shape[1]*ls.shape[2]//256**2, 256, 256)))
    var = VAR(VARConfig.preset('tiny'), tok.cfg)
    var.bind(tok)
    m = Mars(tok, var, spectrogram=ls)
    check_page(m)
    files = onnx_files(m, 'float', ('encoder', 'decoder'))
    about = json.loads(files['model.json'])
    assert (about['n_samples'], about['spectrogram']) == (format.n_samples, ls.config)
    spec = ls.encode(torch.rand(1, format.n_samples) - 0.5)
    image, tokens = ort.InferenceSession(files['encoder.onnx']).run(None, dict(spec=spec.numpy()))[:2]
    want = torch.cat(m.tokenizer.encode(m.cmx.fold(spec)), 1)
    assert (torch.as_tensor(tokens) == want).float().mean() > 0.95
