"""Rendering from SoundFonts. Tests are skipped if no SoundFont or no renderer is installed."""
import os, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
from mars.data import soundfont, tuning
from mars.data import GM_RANGES, SoundFont, SoundFontNotes, find_renderer, find_soundfont, gm_label, gm_programs
from mars.data import render_note, sounding_pitch
from mars.cli.data import with_data
from mars.parts.codec import card_data
from mars.parts.files import resample
from small_soundfont import COARSE, FINE, SCALE, write_soundfont

def _ready():
    try: return find_soundfont() is not None and find_renderer() is not None
    except (ValueError, FileNotFoundError): return False

needs_soundfont = pytest.mark.skipif(not _ready(), reason='no SoundFont or no renderer is installed')

def level(wave, start, seconds=0.01):
    "RMS in dB of a part."
    i = int(start*16000)
    return 20*np.log10(np.sqrt((wave[i:i + int(seconds*16000)]**2).mean()) + 1e-9)

@pytest.fixture(scope='module')
def font(): return find_soundfont()

def test_every_program_is_mapped_once():
    covered = [p for lo, hi, *_ in GM_RANGES for p in range(lo, hi + 1)]
    assert covered == list(range(128))
    assert {p for p in range(128) if gm_label(p) is None} == {47, 55, *range(88, 104), *range(112, 128)}
    assert len(gm_programs()) == 94 and gm_label(19) == ('organ', 'acoustic')
    with pytest.raises(ValueError, match='program must be in 0..127, got 128'): gm_label(128)

@pytest.mark.parametrize('rate', [8000, 22050, 44100, 48000])
def test_resample_preserves_a_tone(rate):
    t, u = np.arange(rate)/rate, np.arange(16000)/16000
    wave = resample(np.sin(2*np.pi*1000*t).astype(np.float32), rate)
    assert wave.shape == (16000,)
    assert np.abs(wave - np.sin(2*np.pi*1000*u))[800:-800].max() < 2e-3

def test_resample_removes_frequencies_above_nyquist():
    t = np.arange(48000)/48000
    assert np.abs(resample(np.sin(2*np.pi*9000*t), 48000))[800:-800].max() < 1e-3

@needs_soundfont
@pytest.mark.parametrize('pitch', [48, 60, 72])
def test_organ_is_held_and_released(font, pitch):
    wave = render_note(font, pitch, 100, program=19)
    assert wave.shape == (64000,) and wave.dtype == np.float32 and abs(np.abs(wave).max() - 0.89) < 1e-4
    before, after, end = level(wave, 2.99), level(wave, 3.0), level(wave, 3.9, 0.1)
    assert abs(after - before) < 6 and end < before - 20
    bend = np.abs(np.diff(wave, 2)) # a click is a jump: it would stand out in the second difference
    assert bend[47900:48300].max() < 1.5*bend[32000:47900].max()

@needs_soundfont
def test_notes_are_independent(font):
    keys = [(19, 60), (0, 100), (24, 43), (73, 84)]
    one = [render_note(font, pitch, 75, program) for program, pitch in keys]
    two = [render_note(font, pitch, 75, program) for program, pitch in reversed(keys)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(one, two))

SWEEP = """
import sys, numpy as np
from mars.data.soundfont import *
from mars.parts.files import peak_normalize
font, n = SoundFont(find_soundfont()), 0
for program in gm_programs():
    for pitch in (21, 60, 108):
        for velocity in (25, 127):
            if (0, program) not in font.presets or not font.sounds(0, program, pitch, velocity): continue
            wave = render_note(font.path, pitch, velocity, program, normalize=None)
            assert np.isfinite(wave).all() and 0 < np.abs(wave).max() <= 1, (program, pitch, velocity)
            assert abs(np.abs(peak_normalize(wave)).max() - 0.89) < 1e-3, (program, pitch, velocity)
            n += 1
print(n)
"""

@needs_soundfont
def test_every_mapped_program_renders():
    "In a separate process: a renderer that hangs or crashes fails only this test."
    done = subprocess.run([sys.executable, '-c', SWEEP], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 400

@needs_soundfont
def test_level_is_preserved_without_normalisation(font):
    soft, loud = (np.abs(render_note(font, 60, v, 0, normalize=None)).max() for v in (25, 127))
    assert loud > 4*soft

def test_invalid_soundfonts_are_refused(tmp_path):
    (tmp_path/'a.sf2').write_bytes(b'not a sound font at all')
    (tmp_path/'b.sf2').write_bytes(b'')
    (tmp_path/'c.sf2').write_bytes(b'RIFF' + (4).to_bytes(4, 'little') + b'sfbk')
    for name in 'ab':
        with pytest.raises(ValueError, match=f'{name}.sf2 is not a SoundFont'): SoundFont(tmp_path/f'{name}.sf2')
    with pytest.raises(ValueError, match='c.sf2 is a damaged SoundFont'): SoundFont(tmp_path/'c.sf2')
    with pytest.raises(FileNotFoundError, match='no SoundFont at .*d.sf2'): SoundFont(tmp_path/'d.sf2')

@needs_soundfont
def test_damaged_soundfonts_are_refused(font, tmp_path):
    data = Path(font).read_bytes()
    (tmp_path/'cut.sf2').write_bytes(data[:len(data)//2])
    with pytest.raises(ValueError, match='cut.sf2 is a damaged SoundFont'): SoundFont(tmp_path/'cut.sf2')

def _renderer():
    try: return find_renderer() is not None
    except ValueError: return False

@pytest.mark.skipif(not _renderer(), reason='no SoundFont renderer is installed')
def test_notes_are_labelled_by_the_sounding_pitch(tmp_path, monkeypatch):
    "Coarse tuning, scale tuning, and a fine tuning between labels: measured, not read from the tables."
    font = write_soundfont(tmp_path/'sine.sf2', {16: {}, 17: {COARSE: -12}, 31: {COARSE: 24}, 80: {SCALE: 50}, 81: {FINE: 40}})
    ds = SoundFontNotes(font, pitches=(55, 60, 61), velocities=100, cache=tmp_path/'cache')
    table = ds.pitch_offset.set_index(ds.pitch_offset.instrument.str[-3:])
    assert table.offset.to_dict() == {'016': 0, '017': -12, '031': 24, '080': 0, '081': 0} and table.kind['080'] == 'scaled' and abs(table.cents['081'] - 40) < 3
    assert {(program, key) for _, _, program, key, _ in ds.keys} >= {(16, 60), (17, 72), (31, 36), (80, 50), (80, 62)}
    assert all(abs(sounding_pitch(wave).midi - note.pitch) < (.5 if note.instrument.endswith('081') else .3) for wave, note in ds)
    assert ds.label == 'sound' == ds.labels.attrs['label'] == ds.select([0]).label and set(ds.corrections) == {n for n in ds.instruments if n[-3:] in ('017', '031', '080')}
    monkeypatch.setattr(tuning, 'render_note', None)  # measured once
    assert SoundFontNotes(font, pitches=(55, 60, 61), velocities=100, cache=tmp_path/'cache').keys == ds.keys
    by_key = SoundFontNotes(font, pitches=(55, 60, 61), velocities=100, cache=tmp_path/'cache', label='key')
    assert by_key.label == 'key' and {key for *_, key, _ in by_key.keys} == {55, 60, 61} and by_key.pitch_offset.empty and not by_key.corrections
    with pytest.raises(ValueError, match="label must be 'sound' or 'key', got 'name'"): SoundFontNotes(font, label='name')
    info = with_data({}, ds)['data']
    assert info['label'] == 'sound' and info['velocities'] == [100, 100] and info['families']['organ'] == ['electronic'] and set(info['corrected']) == set(ds.corrections)
    card = card_data(SimpleNamespace(info=dict(data=info)))
    assert any('Pitch labels are the pitches that sound' in line for line in card) and any('corrected: ' in line and '-12 semitones' in line for line in card)
    assert 'corrected' not in with_data({}, by_key)['data'] and with_data({}, by_key)['data']['label'] == 'key'

@pytest.mark.skipif(not _renderer(), reason='no SoundFont renderer is installed')
def test_a_replaced_soundfont_is_detected(tmp_path):
    "Equal name, size and time; different contents."
    waves = []
    for coarse in (0, 12):
        font = write_soundfont(tmp_path/'a.sf2', {16: {COARSE: coarse}})
        os.utime(font, (1e9, 1e9))
        waves.append(SoundFontNotes(font, pitches=60, velocities=100, cache=tmp_path/'cache', label='key')[0][0])
    assert round(sounding_pitch(waves[1]).midi - sounding_pitch(waves[0]).midi) == 12

@needs_soundfont
def test_organs_and_harmonics_of_fluid(font, tmp_path):
    if 'FluidR3_GM' not in Path(font).name: pytest.skip('the SoundFont is not FluidR3')
    ds = SoundFontNotes(font, programs=[16, 18, 31], pitches=60, velocities=100, cache=tmp_path)
    assert ds.pitch_offset.offset.tolist() == [-24, -12, 24] and [key for _, _, _, key, _ in ds.keys] == [84, 72, 36]

def test_soundfont_search_path(tmp_path, monkeypatch):
    monkeypatch.setenv('MARS_SOUNDFONT', str(tmp_path/'x.sf2'))
    with pytest.raises(FileNotFoundError, match='MARS_SOUNDFONT must name a file, got .*x.sf2'): find_soundfont()
    (tmp_path/'x.sf2').write_bytes(b'')
    assert find_soundfont() == tmp_path/'x.sf2'
    monkeypatch.delenv('MARS_SOUNDFONT')
    monkeypatch.setattr(soundfont, 'SOUNDFONT_FOLDERS', (str(tmp_path/'none'),))
    assert find_soundfont() is None

def test_a_missing_renderer_is_reported(monkeypatch):
    for name in ('fluidsynth', 'tinysoundfont'): monkeypatch.setitem(sys.modules, name, None) # None makes the import fail
    with pytest.raises(ValueError, match='apt install libfluidsynth3'): find_renderer()
    with pytest.raises(ValueError, match="renderer must be one of auto, fluidsynth, tinysoundfont, got 'symusic'"): find_renderer('symusic')
    with pytest.raises(ValueError, match='fluidsynth cannot be used'): soundfont.FluidSynth('x.sf2')
    with pytest.raises(ValueError, match='tinysoundfont cannot be used'): soundfont.TinySoundFont('x.sf2')

@needs_soundfont
def test_silence_is_refused(font):
    class Silent:
        name = 'fluidsynth'
        def __init__(self, path, rate): self.rate = rate
        def render(self, *key): return np.full(192000, self.value, np.float32)
    for value, message in ((0., 'renders to silence'), (5., 'renders to a peak of 5'), (float('nan'), 'renders to a peak of nan')):
        Silent.value = value
        soundfont._local.pid = None # forget the open renderers
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(soundfont.RENDERERS, 'fluidsynth', Silent)
            with pytest.raises(ValueError, match=message): render_note(font, 60, renderer='fluidsynth')
    soundfont._local.pid = None

@needs_soundfont
def test_tinysoundfont_agrees(font):
    pytest.importorskip('tinysoundfont')
    for program in (0, 19, 73):
        waves = [render_note(font, 60, 100, program, renderer=name) for name in ('fluidsynth', 'tinysoundfont')]
        spectra = [np.abs(np.fft.rfft(w[:48000])) for w in waves]
        assert np.corrcoef(*spectra)[0, 1] > 0.8
        again = render_note(font, 60, 100, program, renderer='tinysoundfont')
        assert level(again, 3.9, 0.1) < level(again, 2.9, 0.1) - 6

def test_nested_and_overlapping_zone_tables_are_refused():
    "A preset of 1,000 zones with 1,000 zones each, and bags that run backwards, end in a sentence at once."
    from mars.data import soundfont as s
    def tables(n, backwards=False):
        gen = lambda op: np.array([(op, 0, 0)]*n + [(0, 0, 0)], s._TABLES['pgen'])
        bag = np.zeros(n + 1, s._TABLES['pbag'])
        bag[bag.dtype.names[0]] = np.arange(n + 1)[::-1] if backwards else np.arange(n + 1)
        t = {name: np.zeros(2, dtype) for name, dtype in s._TABLES.items()}
        t['phdr']['bag'], t['inst']['bag'] = (0, n), (0, n)
        t['shdr']['end'] = 1
        return t | dict(pbag=bag, ibag=bag, pgen=gen(s._INSTRUMENT), igen=gen(s._SAMPLE))
    assert len(s._read_presets(tables(100))) == 1
    with pytest.raises(ValueError, match='more than 200000 zones'): s._read_presets(tables(1000))
    with pytest.raises(ValueError, match='not in order'): s._read_presets(tables(100, backwards=True))
