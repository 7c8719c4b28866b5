"""Labelled notes: labels, sources, splits, cache, NSynth on a synthesised fixture, and error messages."""
import hashlib, http.server, io, json, os, tarfile, threading, warnings
from pathlib import Path
import numpy as np
import pytest, soundfile, torch
import mars
from mars import data
from mars.data import AdditiveNotes, Batches, ConcatNotes, FAMILIES, NSynth, Note, NoteFolder, Notes, SOURCES
from mars.data import SoundFontNotes, batches, default_notes, download_nsynth, example_notes, labels_dict, parse_note_str
from mars.data import unpack_nsynth, write_nsynth_fixture
from mars.parts.files import load_wave, save_wave
from mars.data import find_renderer, find_soundfont

def _ready():
    try: return find_soundfont() is not None and find_renderer() is not None
    except (ValueError, FileNotFoundError): return False

needs_soundfont = pytest.mark.skipif(not _ready(), reason='no SoundFont or no renderer is installed')

@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch): monkeypatch.setenv('MARS_CACHE', str(tmp_path_factory.mktemp('cache')))

@pytest.fixture(scope='session')
def fixture(tmp_path_factory): return write_nsynth_fixture(tmp_path_factory.mktemp('nsynth'))

@pytest.fixture
def small(): return AdditiveNotes(('organ', 'keyboard', 'flute'), pitches=(48, 60), velocities=(50, 100))

# labels

def test_note():
    note = Note(60, 100, 'synth_lead', 'synthetic', 'synth_lead_synthetic_001')
    assert (note.family_id, note.source_id, note.note_str) == (9, 2, 'synth_lead_synthetic_001-060-100')
    assert parse_note_str(note.note_str) == note == parse_note_str(f'some/where/{note.note_str}.WAV')
    assert Note(np.int64(60), 100, 9, 2, '001').note_str == note.note_str
    with pytest.raises(AttributeError): note.pitch = 61

@pytest.mark.parametrize('change, message', [
    (dict(pitch=128), 'pitch must be an integer in 0..127, got 128'), (dict(pitch=60.5), 'pitch must be an integer in 0..127, got 60.5'),
    (dict(velocity=0), 'velocity must be an integer in 1..127, got 0'), (dict(family='drums'), "family must be one of bass, brass.*, got 'drums'"),
    (dict(family=11), 'family must be one of .* or an id in 0..10, got 11'), (dict(source='wood'), "source must be one of acoustic, .*got 'wood'"), (dict(instrument='a b'), "instrument must be a string without spaces and slashes, got 'a b'")])
def test_note_refuses_invalid_values(change, message):
    with pytest.raises(ValueError, match=message): Note(**(dict(pitch=60, velocity=100, family='organ', source='acoustic', instrument='organ_acoustic_000') | change))

@pytest.mark.parametrize('name', ['piano.wav', 'organ_acoustic_000-60', 'drums_acoustic_000-060-100', 'organ_acoustic_000-200-100', 'acoustic_000-060-100'])
def test_parse_refuses_invalid_names(name):
    with pytest.raises(ValueError, match='name must be family_source_III-PPP-VVV, such as .*, got'): parse_note_str(name)

def test_labels_dict():
    labels = labels_dict([Note(60, 100, 'vocal', 'acoustic', 'x'), Note(21, 25, 'bass', 'synthetic', 'y')])
    assert {k: v.tolist() for k, v in labels.items()} == dict(pitch=[60, 21], family=[10, 0], source=[0, 2], velocity=[100, 25])
    assert all(v.dtype == torch.int64 for v in labels.values())

# one interface

def check_source(ds):
    "The interface of every source."
    wave, note = ds[0]
    assert wave.shape == (64000,) and wave.dtype == torch.float32 and wave.isfinite().all() and 0 < wave.abs().max() <= 1
    assert isinstance(note, Note) and ds[-1][1] == ds.notes[-1] and len(ds.labels) == len(ds)
    assert {'pitch', 'velocity', 'family', 'source', 'instrument', 'note_str'} <= set(ds.labels.columns)
    assert ds.labels.note_str[0] == note.note_str
    index = [len(ds) - 1, 0]
    waves, labels = ds.batch(index)
    assert waves.dtype == torch.int16 and waves.shape == (2, 64000) and torch.equal(waves[1].float()/32768, wave)
    assert labels['pitch'].tolist() == [ds.notes[i].pitch for i in index] and {v.dtype for v in labels.values()} == {torch.int64}
    assert all(torch.equal(labels[k], v) for k, v in labels_dict([ds.notes[i] for i in index]).items())
    with pytest.raises(IndexError): ds[len(ds)]
    with pytest.raises(IndexError): ds.batch([len(ds)])
    assert ds.credits and all(c.source and c.licence and c.attribution for c in ds.credits)

def test_every_source_implements_the_interface(small, fixture, tmp_path):
    both = small + NSynth(fixture, 'test')
    for ds in (small, NSynth(fixture, 'train'), NoteFolder(fixture/'nsynth-test'/'audio'), both, small.select([3, 1]), both.filter(families='organ')): check_source(ds)
    assert len(both) == len(small) + len(NSynth(fixture, 'test')) and isinstance(both + small, ConcatNotes) and len((both + small).parts) == 3
    assert len(both.credits) == 2
    assert small.batch([])[0].shape == (0, 64000)

def test_select_and_filter(small):
    assert [n.note_str for n in small.select([5, 0, -1]).notes] == [small.notes[i].note_str for i in (5, 0, -1)]
    mask = small.labels.pitch == 60
    assert len(small.select(mask)) == 18 and set(small.select(mask).labels.pitch) == {60}
    some = small.filter(families=('organ', 4), pitches=range(50, 70), velocities=100, sources=['acoustic', 'electronic'])
    assert len(some) == 6 and some.families == ['keyboard', 'organ']
    assert torch.equal(some.filter(families='organ')[0][0], next(w for w, n in small if n == some.filter(families='organ').notes[0]))
    with pytest.raises(ValueError, match=r"none of the 36 notes has pitch \[61\]: relax the filter"): small.filter(pitches=61)
    with pytest.raises(ValueError, match="family must be one of"): small.filter(families='drums')
    with pytest.raises(ValueError, match='mask must have 36 entries, one per note, got 3'): small.select([True, False, True])
    with pytest.raises(IndexError): small.select([36])

# splits

def names(views): return [set(view.instruments) for view in views]

def test_split_by_instrument(small):
    splits = train, valid, test = small.split_by_instrument()
    assert sum(map(len, splits)) == len(small) and splits.missing == [] == train.missing
    assert not any(a & b for a, b in zip(names(splits), names(splits)[1:] + names(splits)[:1]))
    assert all(view.families == ['flute', 'keyboard', 'organ'] for view in splits)
    shuffled = small.select(np.random.default_rng(0).permutation(len(small)))
    assert names(shuffled.split_by_instrument()) == names(splits) == names(small.split_by_instrument())
    assert any(names(small.split_by_instrument(seed=s)) != names(splits) for s in range(1, 5))
    assert len(small.split_by_instrument(valid=0)[1]) == 0 and small.split_by_instrument(valid=0, test=0).missing == []
    with pytest.raises(ValueError, match='must be shares with a sum below 1, got 0.5 and 0.5'): small.split_by_instrument(0.5, 0.5)

def test_split_lists_missing_families():
    ds = AdditiveNotes(('organ', 'flute_acoustic_800', 'flute_acoustic_801'), 60, 100)
    train, valid, test = splits = ds.split_by_instrument()
    assert splits.missing == train.missing == test.missing == ['flute']
    assert train.families == ['flute', 'organ'] and valid.families == test.families == ['organ']

class Fake(Notes):
    "Labels only, with named shared recordings."
    def __init__(self, n, recordings, family='organ'):
        super().__init__([Note(60, 100, f, 'acoustic', f'{f}_acoustic_{i:03d}') for f in ([family] if isinstance(family, str) else family) for i in range(n)], recordings=recordings)

def test_shared_recordings_are_on_one_side():
    recordings = {f'organ_acoustic_{i:03d}': {f'tape {i//2}'} for i in range(10)}
    recordings['organ_acoustic_001'].add('disc'), recordings['organ_acoustic_002'].add('disc') # joins 0-3 over two keys
    for seed in range(20):
        sides = [{int(i[-3:]) for i in view.instruments} for view in Fake(10, recordings).split_by_instrument(seed=seed)]
        assert all(side & group in (set(), group) for side in sides for group in ({0, 1, 2, 3}, {4, 5}, {6, 7}, {8, 9})) and all(sides)
    many = Fake(30, {}).split_by_instrument()
    assert [len(view) for view in many] == [24, 3, 3]

def test_a_recording_of_two_families_stays_in_train():
    ds = Fake(4, {'organ_acoustic_000': {'tape'}, 'reed_acoustic_000': {'tape'}}, ('organ', 'reed'))
    for seed in range(10):
        train, valid, test = ds.split_by_instrument(seed=seed)
        assert {'organ_acoustic_000', 'reed_acoustic_000'} <= set(train.instruments) and valid.families == test.families == ['organ', 'reed']

# batches

def test_batches():
    plan = Batches(10, 4, seed=3)
    assert sorted(np.concatenate([plan.at(s) for s in range(5)]).tolist()) == sorted([*range(10)]*2)
    assert np.array_equal(plan.at(7), Batches(10, 4, seed=3).at(7)) and not np.array_equal(plan.at(0), Batches(10, 4, seed=4).at(0))
    late = list(batches(10, 4, seed=3, steps=2, start=5))
    assert np.array_equal(late, [plan.at(5), plan.at(6)]) and len(list(batches(10, 4))) == 3
    assert plan.at(0).dtype == np.int64 and Batches(2, 5).at(0).shape == (5,)
    with pytest.raises(ValueError, match='must be at least 1, got 10 notes and batch_size 0'): Batches(10, 0)

# additive synthesis

def test_additive_notes():
    ds = AdditiveNotes(pitches=(21, 60, 108), velocities=(25, 127))
    assert ds.families == list(FAMILIES) and len(ds) == 11*3*3*2 and ds._note_cache is None
    waves = ds.batch(range(len(ds)))[0].float()/32768
    assert torch.allclose(waves.abs().amax(1), torch.tensor(0.89), atol=1e-3) and (waves[:, -1] == 0).all()
    rms = lambda lo, hi: (waves[:, lo:hi]**2).mean(1)
    assert (rms(63000, 64000) < 0.01*rms(47000, 48000) + 1e-7).all()
    low = [w.numpy().tobytes() for w, n in zip(waves, ds.notes) if n.pitch < 108] # at 108 one partial is left, so that all sound alike
    assert len(set(low)) == len(low) and torch.equal(ds[5][0], AdditiveNotes(pitches=(21, 60, 108), velocities=(25, 127))[5][0])

@pytest.mark.parametrize('pitch', [33, 60, 84])
def test_additive_pitch(pitch):
    wave, f0 = AdditiveNotes('organ', pitch, 100)[0][0], 440*2**((pitch - 69)/12)
    spectrum = torch.fft.rfft(wave[:48000]*torch.hann_window(48000), 96000).abs()
    near = torch.arange(round(f0*6*0.97), round(f0*6*1.03) + 1) # six bins a hertz
    assert abs(12*np.log2(near[spectrum[near].argmax()].item()/6/f0)) < 0.2

def test_additive_refuses_invalid_arguments():
    with pytest.raises(ValueError, match="instruments must be families .*, got 'kazoo'"): AdditiveNotes('kazoo')
    with pytest.raises(ValueError, match='pitch must be an integer in 0..127, got 200'): AdditiveNotes(pitches=200)

# waves

def test_save_and_load(tmp_path, small):
    wave = small[0][0]
    for name in ('a.wav', 'b.flac'): assert torch.equal(load_wave(save_wave(tmp_path/name, wave)), wave)
    soundfile.write(tmp_path/'c.wav', np.stack([wave[::2]]*2, 1), 8000)
    with pytest.warns(UserWarning, match='c.wav is resampled from 8000 to 16000 Hz'): assert load_wave(tmp_path/'c.wav').shape == (64000,)
    with pytest.raises(FileNotFoundError, match='no file .*none.wav'): load_wave(tmp_path/'none.wav')

@pytest.mark.parametrize('bad, message', [(torch.full((9,), float('nan')), 'NaN or infinity: nothing is written'), (torch.full((9,), 1.5), 'has a peak of 1.5 > 1'),
                                          (torch.zeros(2, 9), 'must have shape'), (torch.zeros(0), 'must have shape')])
def test_save_refuses_invalid_waves(tmp_path, bad, message):
    with pytest.raises(ValueError, match=message): save_wave(tmp_path/'a.wav', bad)
    assert not list(tmp_path.iterdir())

def test_a_failed_save_leaves_no_files(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='cannot be written .*: choose another folder'): save_wave(tmp_path/'no'/'a.wav', torch.zeros(9))
    save_wave(tmp_path/'a.wav', torch.zeros(9))
    before = (tmp_path/'a.wav').read_bytes()
    def full(fd): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(ValueError, match='No space left on device'): save_wave(tmp_path/'a.wav', torch.ones(99))
    assert [f.name for f in tmp_path.iterdir()] == ['a.wav'] and (tmp_path/'a.wav').read_bytes() == before

# a folder

@pytest.fixture
def folder(tmp_path, small):
    for i in range(3): save_wave(tmp_path/f'{small.notes[i].note_str}.wav', small[i][0])
    return tmp_path

def test_note_folder(folder, small):
    ds = NoteFolder(folder)
    assert set(ds.labels.note_str) == {n.note_str for n in small.notes[:3]}
    assert all(torch.equal(ds[i][0], small[small.notes.index(ds.notes[i])][0]) for i in range(3))

def test_note_folder_csv(tmp_path, small):
    wave = small[0][0].numpy()
    soundfile.write(tmp_path/'a.ogg', np.stack([wave]*2, 1)[:30000], 16000)
    soundfile.write(tmp_path/'b.mp3', np.interp(np.arange(0, 64000, 1/2.75625), np.arange(64000), wave), 44100)
    (tmp_path/'l.csv').write_text('file,pitch,velocity,family,source,instrument\na.ogg,60,100,organ,acoustic,mine\nb.mp3,61,25,vocal,synthetic,yours\n')
    with pytest.warns(UserWarning) as said: ds = NoteFolder(tmp_path, tmp_path/'l.csv')
    assert 'such as b.mp3' in str(said[0].message) and 'resampled' in str(said[0].message) and 'padded or cut, such as a.ogg' in str(said[1].message)
    check_source(ds)
    assert ds.notes[1] == Note(61, 25, 'vocal', 'synthetic', 'yours') and (ds[0][0][30000:] == 0).all()
    assert np.corrcoef(ds[1][0][8000:40000], wave[8000:40000])[0, 1] > 0.9

@pytest.mark.parametrize('table, message', [
    ('file,pitch\na.wav,60\n', 'l.csv has no column velocity: it needs file, pitch'),
    ('file,pitch,velocity,family,source,instrument\nz.wav,60,100,organ,acoustic,x\n', 'names .*z.wav, which does not exist'),
    ('file,pitch,velocity,family,source,instrument\na.wav,60,300,organ,acoustic,x\n', 'l.csv, file a.wav: velocity must be an integer in 1..127, got 300')])
def test_note_folder_refuses_invalid_csv(tmp_path, table, message):
    save_wave(tmp_path/'a.wav', torch.full((64000,), 0.1))
    (tmp_path/'l.csv').write_text(table)
    with pytest.raises(ValueError, match=message): NoteFolder(tmp_path, tmp_path/'l.csv')

NAME = 'organ_acoustic_000-060-100.wav'
def text(path): path.write_text('this is a text')
def empty(path): soundfile.write(path, np.zeros(0), 16000)
def silent(path): soundfile.write(path, np.zeros(64000), 16000)
def broken(path): soundfile.write(path, np.full(64000, np.nan, np.float32), 16000, subtype='FLOAT')

@pytest.mark.parametrize('write, message', [(text, 'is not a readable audio file'), (empty, 'is empty: it holds no samples'),
                                            (silent, 'is silent: leave it out'), (broken, 'contains NaN or infinity')])
def test_invalid_audio_files_are_refused(tmp_path, write, message):
    write(tmp_path/NAME)
    with pytest.raises(ValueError, match=f'{NAME} {message}'): NoteFolder(tmp_path)[0]
    with pytest.raises(ValueError, match=f'{NAME} {message}'): load_wave(tmp_path/NAME)

def folder_of(tmp_path, wave, **kwargs):
    soundfile.write(tmp_path/NAME, wave.astype(np.float32), 16000, subtype='FLOAT')
    return NoteFolder(tmp_path, cache=False, **kwargs)

def test_folder_removes_silence_and_dc_and_sets_the_level(tmp_path, small):
    "Leading silence, DC offset and level are corrected; prepare=False leaves the wave unchanged."
    note = small[0][0].numpy()
    late = .1*np.pad(note, (8000, 0)) + .05
    with pytest.warns(UserWarning, match=rf'{NAME}: 0.50 s of silence in front removed, DC offset of 0.05 removed, level changed by \+20.0 dB; `mars data check'): wave = folder_of(tmp_path, late)[0][0]
    assert abs(wave.abs().max() - .89) < .02 and max(np.corrcoef(wave[2000 + lag:10000 + lag], note[2000:10000])[0, 1] for lag in range(-400, 100)) > .99
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert np.abs(folder_of(tmp_path, late[:64000], prepare=False)[0][0] - late[:64000]).max() < 1e-4
    with pytest.raises(ValueError, match=f'{NAME} holds a constant of 0.1 and no sound'): folder_of(tmp_path, np.full(64000, .1))[0]
    with pytest.raises(ValueError, match=f'{NAME} is silent in its first 4 s'): folder_of(tmp_path, np.pad(note, (64000, 0)), prepare=False)[0]

def harmonics(x, f0=250.): # share of the power that is not at f0, for a sine of whole periods
    power = np.abs(np.fft.rfft(x))**2
    power[0] = 0
    return 1 - power[round(f0*len(x)/16000)]/power.sum()

def test_samples_above_full_scale_are_scaled_and_channels_that_cancel_are_not_averaged(tmp_path):
    "No distortion (23 % when clipped), no silent note."
    sine = np.sin(2*np.pi*250*np.arange(64000)/16000)
    with pytest.warns(UserWarning, match=f'{NAME} has a peak of 2, above full scale: it is scaled to 1'): wave = folder_of(tmp_path, 2*sine, prepare=False)[0][0]
    assert wave.abs().max() > .99 and harmonics(wave.numpy()) < 1e-6 < harmonics(np.clip(2*sine, -1, 1))
    with pytest.warns(UserWarning, match=f'the channels of .*{NAME} cancel each other: channel 1 is used'): wave = folder_of(tmp_path, np.stack([.5*sine, -.4*sine], 1), prepare=False)[0][0]
    assert np.abs(wave - .5*sine).max() < 1e-4

def test_data_check(tmp_path, capsys):
    "Faults of a folder, and of one that is nothing but well, from the shell."
    from mars.cli import main
    wave = AdditiveNotes('organ_electronic_800', 60, 100)[0][0].numpy()
    faults = {60: wave, 48: wave + .001, 61: np.pad(.9*wave, (1600, 0))[:64000], 62: np.full(64000, .3), 63: wave.clip(-.4, .4)*2.49}
    for pitch, x in faults.items(): soundfile.write(tmp_path/f'organ_electronic_000-{pitch:03d}-100.wav', x, 16000)
    assert main(['data', 'check', str(tmp_path), '--json', '--report', str(tmp_path/'all.csv')]) == 0
    found = {int(row['pitch']): row['problems'] for row in json.loads(capsys.readouterr().out)['problems']}
    assert found[48] == ['octave'] and found[61] == ['pitch', 'late', 'level'][:len(found[61])] and 'dc' in found[62] and 'clipped' in found[63] and 60 not in found
    assert len((tmp_path/'all.csv').read_text().splitlines()) == 6
    assert main(['data', 'check']) == 2 and 'mars data check FOLDER' in capsys.readouterr().err

def test_folder_refuses_invalid_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'): NoteFolder(tmp_path/'none')
    with pytest.raises(ValueError, match='holds no wav, flac, ogg, mp3 or aiff file'): NoteFolder(tmp_path)
    save_wave(tmp_path/'piano.wav', torch.full((64000,), 0.1))
    with pytest.raises(ValueError, match="got 'piano'"): NoteFolder(tmp_path)

# the cache

def test_cache_is_filled_by_the_first_pass(fixture, tmp_path, monkeypatch):
    ds = NSynth(fixture, 'test', cache=tmp_path)
    first = ds.prepare(progress=False).batch(range(len(ds)))[0]
    assert (tmp_path/ds._note_cache.folder.name/'labels.csv').is_file() and not list(tmp_path.glob('.making*'))
    again = NSynth(fixture, 'test', cache=tmp_path)
    monkeypatch.setattr(NSynth, '_load', None) # a read past the cache would now fail
    assert torch.equal(again.batch(range(len(ds)))[0], first)
    assert NSynth(fixture, 'test', families='organ', cache=tmp_path)._note_cache.folder != ds._note_cache.folder

@pytest.mark.parametrize('harm, message', [('truncate', 'notes.int16 has 1000 bytes, not'), ('flip', 'note 3 of the cache .* is damaged and is computed again'),
                                           ('lose', 'crc.uint32 is missing'), ('about', 'about.json belongs to other notes')])
def test_damaged_cache_is_reported_and_rebuilt(fixture, tmp_path, harm, message):
    ds = NSynth(fixture, 'test', cache=tmp_path).prepare(progress=False)
    folder, good = ds._note_cache.folder, ds.batch(range(len(ds)))[0]
    if harm == 'truncate': os.truncate(folder/'notes.int16', 1000)
    elif harm == 'lose': (folder/'crc.uint32').unlink()
    elif harm == 'about': (folder/'about.json').write_text('{}')
    else:
        with open(folder/'notes.int16', 'r+b') as f:
            f.seek(3*128000 + 500)
            f.write(b'\x55\xaa')
    again = NSynth(fixture, 'test', cache=tmp_path)
    with pytest.warns(UserWarning, match=message): assert torch.equal(again.batch(range(len(ds)))[0], good)
    assert str(folder) in str(again._note_cache.folder)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(NSynth(fixture, 'test', cache=tmp_path).batch(range(len(ds)))[0], good)

def test_cache_on_a_full_or_unwritable_disk(fixture, tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    ds = NSynth(fixture, 'test', cache=tmp_path/'file'/'x')
    with pytest.warns(UserWarning, match='notes are not cached: their cache cannot be written'): wave = ds[0][0]
    ds = NSynth(fixture, 'test', cache=tmp_path)
    def full(self, i, row): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(data.NoteCache, 'put', full)
    with pytest.warns(UserWarning, match='notes are no longer cached: .*No space left'): assert torch.equal(ds[0][0], wave)
    assert torch.equal(ds[0][0], wave)

@pytest.mark.parametrize('how', ['folder', 'nsynth', 'replaced'])
def test_caches_depend_on_file_contents(tmp_path, how):
    "Two sets with equal names, sizes and times, and a replaced file with an unchanged time."
    def write(root, pitch):
        wave, = AdditiveNotes('organ_electronic_800', pitch, 100).batch([0])[0]
        if how == 'nsynth':
            write_nsynth_fixture(root, dict(test=(0,)), ('organ',), (60,), (100,), None)
            root = root/'nsynth-test'/'audio'
        root.mkdir(exist_ok=True)
        file = save_wave(root/'organ_electronic_800-060-100.wav', wave.float()/32768)
        os.utime(file, (1e9, 1e9))
        return wave
    places = [tmp_path/'a', tmp_path/('a' if how == 'replaced' else 'b')]
    for place, pitch in zip(places, (60, 72)):
        wave = write(place, pitch)
        ds = NSynth(place, 'test', cache=tmp_path/'cache') if how == 'nsynth' else NoteFolder(place, cache=tmp_path/'cache')
        assert torch.equal(ds.batch([0])[0][0], wave)

def test_files_are_read_once(tmp_path, monkeypatch):
    from mars.parts import files
    paths = [save_wave(tmp_path/f'{i}.wav', torch.full((9,), .1*i)) for i in range(3)]
    monkeypatch.setattr(files.time, 'time_ns', lambda t=files.time.time_ns(): t + 10**10) # the files are old
    first = files.content_hash(paths, tmp_path/'index.json')
    read, hash_of = [], files._file_hash
    monkeypatch.setattr(files, '_file_hash', lambda path: read.append(path) or hash_of(path))
    assert files.content_hash(paths, tmp_path/'index.json') == first and not read
    save_wave(paths[1], torch.full((9,), -.1))
    assert files.content_hash(paths, tmp_path/'index.json') != first and read == [paths[1]]
    assert files.content_hash([paths[0], *paths], tmp_path/'x'/'index.json') != files.content_hash([*paths, paths[2]], tmp_path/'index.json')

def test_threads_fill_the_same_cache(fixture, tmp_path):
    one, two = (NSynth(fixture, 'test', cache=tmp_path/str(k)).prepare(progress=False, workers=k) for k in (1, 4))
    assert torch.equal(one.batch(range(len(one)))[0], two.batch(range(len(two)))[0]) and np.array_equal(one._note_cache.checksums, two._note_cache.checksums)

# NSynth

def test_nsynth_fixture_has_the_layout_of_nsynth(fixture):
    ds = NSynth(fixture, 'train')
    assert len(ds) == 11*2*3*2 + 1 and ds.families == list(FAMILIES) and {n.source for n in ds.notes} == set(SOURCES)
    assert not set(ds.instruments) & set(NSynth(fixture, 'test').instruments)
    assert max(n.pitch for n in ds.notes) == 112 and 'synth_lead' in {n.family for n in ds.notes}
    examples = json.loads((fixture/'nsynth-train'/'examples.json').read_text())
    example = examples[ds.notes[0].note_str]
    assert set(example) == {'note', 'note_str', 'instrument', 'instrument_str', 'pitch', 'velocity', 'sample_rate', 'qualities', 'qualities_str', 'instrument_family',
                            'instrument_family_str', 'instrument_source', 'instrument_source_str'} and len(example['qualities']) == 10
    assert any(e['qualities_str'] == [] for e in examples.values())
    info = soundfile.info(fixture/'nsynth-train'/'audio'/f'{ds.notes[0].note_str}.wav')
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (16000, 64000, 1, 'PCM_16')
    assert all(parse_note_str(name) == note for name, note in zip(ds.labels.note_str, ds.notes))
    assert torch.equal(ds[5][0], next(w for w, n in AdditiveNotes(ds.notes[5].instrument, ds.notes[5].pitch, ds.notes[5].velocity)))

def test_nsynth_folders_and_filters(fixture, tmp_path):
    assert len(NSynth(fixture/'nsynth-test')) == len(NSynth(fixture/'nsynth-test', 'test')) == len(NSynth(fixture, split='test'))
    some = NSynth(fixture, 'train', families=['organ', 'reed'], sources='electronic', pitches=range(21, 61), velocities=127)
    assert {(n.family, n.source, n.velocity) for n in some.notes} == {('organ', 'electronic', 127)} and {n.pitch for n in some.notes} == {21, 60}
    for call, message in ((lambda: NSynth(fixture, 'holdout'), "split must be one of train, valid, test, got 'holdout'"),
                          (lambda: NSynth(fixture, 'valid'), 'has no split valid: it holds train, test'), (lambda: NSynth(fixture), 'split must be one of train, test for .*, got None'),
                          (lambda: NSynth(fixture/'nsynth-test', 'train'), 'has no split train'), (lambda: NSynth(tmp_path), 'it holds no examples.json'),
                          (lambda: NSynth(fixture, 'test', pitches=50), 'none of the 67 notes has pitch .50.: relax the filter')):
        with pytest.raises(ValueError, match=message): call()
    with pytest.raises(FileNotFoundError, match='mars data nsynth'): NSynth(tmp_path/'none')

def test_nsynth_reports_a_missing_file(tmp_path):
    write_nsynth_fixture(tmp_path, dict(test=(0,)), ('organ',), (60,), (100, 127), None)
    (tmp_path/'nsynth-test'/'audio'/'organ_electronic_800-060-127.wav').unlink()
    with pytest.raises(ValueError, match='lacks 1 of 2 files, such as organ_electronic_800-060-127.wav'): NSynth(tmp_path, 'test')

def test_example_notes():
    ds = example_notes()
    assert len(ds) == 47 and len(ds.instruments) == 27 and len(ds.families) == 9 and len(ds.credits) == 21
    check_source(ds)
    assert len(ds.filter(families='string')) == 6
    train, valid, test = splits = ds.split_by_instrument(0.2, 0.2)
    assert splits.missing == [] and sum(map(len, splits)) == 47 and all(view.families == ds.families for view in splits)
    assert all(credit.licence.startswith('CC0-1.0') for credit in ds.credits)

@needs_soundfont
def test_fluid_renderings_are_split_with_fluid(tmp_path):
    "Renderings of FluidR3 in a published set (see x_name) are on the same side as its programs 0 and 4."
    write_nsynth_fixture(tmp_path, dict(test=(0, 1, 2)), ('keyboard',), (60,), (100,), None)
    file = tmp_path/'nsynth-test'/'examples.json'
    examples = json.loads(file.read_text())
    next(e for e in examples.values() if e['instrument_str'] == 'keyboard_acoustic_801')['x_name'] = 'fluid-piano'
    file.write_text(json.dumps(examples))
    both = NSynth(tmp_path, cache=False) + SoundFontNotes(programs=range(8), velocities=100, pitches=(48, 60), cache=False, label='key')
    if 'Fluid' not in both.parts[1].fonts[0].name: pytest.skip('the SoundFont is not FluidR3')
    for seed in range(6):
        for view in both.split_by_instrument(seed=seed):
            found = [name in view.instruments for name in ('keyboard_acoustic_801', 'keyboard_acoustic_FluidR3GM.000.000')]
            assert found[0] == found[1]

# download

class Server(http.server.BaseHTTPRequestHandler):
    "Serves one body with ranges; the first reply ends after `cut` bytes."
    body, cut, seen, ranges = b'', None, [], True
    def do_GET(self):
        cls = type(self)
        cls.seen.append(self.headers.get('Range'))
        if self.path != '/nsynth-test.tar.gz': return self.send_error(404)
        start = int(self.headers['Range'][6:-1]) if self.headers.get('Range') and cls.ranges else 0
        if start >= len(cls.body): return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(cls.body) - start))
        if start: self.send_header('Content-Range', f'bytes {start}-{len(cls.body)-1}/{len(cls.body)}')
        self.end_headers()
        data, cls.cut = cls.body[start:][:cls.cut], None
        self.wfile.write(data)
    def log_message(self, *args): pass

@pytest.fixture
def server():
    kind = type('Mine', (Server,), dict(seen=[]))
    served = http.server.ThreadingHTTPServer(('127.0.0.1', 0), kind)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    kind.url = f'http://127.0.0.1:{served.server_port}/nsynth-{{split}}.tar.gz'
    yield kind
    served.shutdown()
    served.server_close()

@pytest.fixture(scope='session')
def archive(tmp_path_factory):
    root = write_nsynth_fixture(tmp_path_factory.mktemp('one'), dict(test=(0,)), ('organ', 'synth_lead'), (60,), (127,), None)
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode='w:gz') as tar: tar.add(root/'nsynth-test', 'nsynth-test')
    return body.getvalue()

def test_download(server, archive, tmp_path):
    server.body, known = archive, hashlib.sha256(archive).hexdigest()
    server.cut = 1000
    args = dict(url=server.url, expected=known, progress=False)
    with pytest.raises(ValueError, match=f'broke off after 1000 of {len(archive)} bytes: run the command again to resume'): download_nsynth('test', tmp_path, **args)
    assert [f.name for f in tmp_path.iterdir()] == ['nsynth-test.jsonwav.tar.gz.part']
    folder = download_nsynth('test', tmp_path, **args)
    assert server.seen == [None, 'bytes=1000-'] and {f.name for f in tmp_path.iterdir()} == {'nsynth-test', 'cache'}
    assert json.loads((folder/'source.json').read_text()) == dict(url=server.url.format(split='test'), bytes=len(archive), sha256=known, checked=True)
    ds = NSynth(tmp_path, 'test')
    assert len(ds) == 2 and ds._note_cache.folder.parent == tmp_path/'cache' and ds._note_cache.checksums.all()
    download_nsynth('test', tmp_path, **args)
    assert len(server.seen) == 2 # nothing is fetched twice

def test_download_from_a_server_without_ranges(server, archive, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data.nsynth, 'NSYNTH_HASHES', {})
    server.body, server.ranges, server.cut = archive, False, 500
    with pytest.raises(ValueError, match='broke off'): download_nsynth('test', tmp_path, url=server.url, progress=False)
    folder = download_nsynth('test', tmp_path, url=server.url, progress=True)
    assert 'is known; the SHA-256 of this file is ' + hashlib.sha256(archive).hexdigest() in capsys.readouterr().out
    assert json.loads((folder/'source.json').read_text())['checked'] is False

def test_invalid_downloads_are_refused(server, archive, tmp_path):
    server.body = archive
    with pytest.raises(ValueError, match='has the SHA-256 .*, not 0f9ba5d62beb.*deleted'): download_nsynth('test', tmp_path, url=server.url, progress=False)
    with pytest.raises(ValueError, match='answered 404'): download_nsynth('valid', tmp_path, url=server.url, progress=False)
    with pytest.raises(ValueError, match="split must be one of train, valid, test, got 'all'"): download_nsynth('all', tmp_path)
    with pytest.raises(ValueError, match='broke off .*: run the command again'): download_nsynth('test', tmp_path, url='http://127.0.0.1:9/x', progress=False)
    (tmp_path/'file').write_text('')
    with pytest.raises(ValueError, match='cannot be written'): download_nsynth('test', tmp_path/'file'/'x', url=server.url)
    assert [f.name for f in tmp_path.iterdir()] == ['file']

def member(name, data=b'x', kind=tarfile.REGTYPE, link=''):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data) if kind == tarfile.REGTYPE else 0, kind, link
    return info, data

def write_tar(path, *members):
    with tarfile.open(path, 'w:gz') as tar:
        for info, data in members: tar.addfile(info, io.BytesIO(data))
    return path

@pytest.mark.parametrize('bad, message', [
    (member('../evil'), 'holds ../evil, a path that leaves its folder'), (member('/etc/evil'), 'a path that leaves its folder'),
    (member('nsynth-test/audio/../../../evil.wav'), 'a path that leaves its folder'), (member('nsynth-test/audio/a.wav', kind=tarfile.SYMTYPE, link='/etc/passwd'), 'a link or a device'),
    (member('nsynth-test/audio/a.wav', kind=tarfile.LNKTYPE, link='x'), 'a link or a device'), (member('nsynth-test/audio/a.wav', kind=tarfile.CHRTYPE), 'a link or a device'),
    (member('nsynth-test/audio/big.wav', b'0'*3000), 'unpacks to more than NSynth')])
def test_unpack_refuses_invalid_archives(tmp_path, bad, message):
    path = write_tar(tmp_path/'a.tar.gz', member('nsynth-test/examples.json', b'{}'), bad)
    with pytest.raises(ValueError, match=message): unpack_nsynth(path, tmp_path/'nsynth-test', 'test', max_bytes=2000)
    assert [f.name for f in tmp_path.iterdir()] == ['a.tar.gz'] and not (tmp_path.parent/'evil').exists()

def test_unpack_reports_damaged_archives(tmp_path, archive):
    for name, content in (('cut', archive[:len(archive)//2]), ('text', b'no archive'), ('other', None)):
        path = tmp_path/f'{name}.tar.gz'
        path.write_bytes(content) if content else write_tar(path, member('nsynth-valid/examples.json', b'{}'), member('notes.txt'))
        with pytest.raises(ValueError, match=f'{name}.tar.gz (cannot be unpacked|holds no nsynth-test/examples.json)'): unpack_nsynth(path, tmp_path/'nsynth-test', 'test')
        assert not (tmp_path/'nsynth-test').exists() and not list(tmp_path.glob('.nsynth*'))

# SoundFonts

@needs_soundfont
def test_soundfont_notes(tmp_path):
    ds = SoundFontNotes(programs=[0, 19], pitches=(60, 100), velocities=(100,), cache=tmp_path)
    check_source(ds)
    assert len(ds.instruments) == 2 and torch.allclose(ds[0][0].abs().max(), torch.tensor(0.89), atol=1e-3)
    same = SoundFontNotes(programs=[0, 19], pitches=(60, 100), velocities=(100,), cache=tmp_path)
    other = SoundFontNotes(programs=[0, 19], pitches=(60, 100), velocities=(100,), normalize=None, cache=tmp_path)
    assert same._note_cache.folder == ds._note_cache.folder != other._note_cache.folder

@needs_soundfont
def test_silent_keys_are_left_out_without_rendering(monkeypatch):
    monkeypatch.setattr(data.rendered, 'render_note', None)
    ds = SoundFontNotes(cache=False, label='key')
    if 'FluidR3' not in ds.fonts[0].name: pytest.skip('the SoundFont is not FluidR3')
    assert len(ds) == 38400 and len(ds.instruments) == 94 and ds.families == list(FAMILIES)
    basses = SoundFontNotes(programs=[43], velocities=100, cache=False, label='key')
    assert {n.pitch for n in basses.notes} == set(range(21, 58))
    train, valid, test = splits = ds.split_by_instrument()
    assert splits.missing == [] and all(view.families == list(FAMILIES) for view in splits)

@needs_soundfont
def test_soundfont_notes_refuse_invalid_arguments():
    with pytest.raises(ValueError, match='program 47 has no NSynth family .timpani: NSynth has no drums.: leave it out'): SoundFontNotes(programs=[47])
    with pytest.raises(ValueError, match='program must be in 0..127, got 200'): SoundFontNotes(programs=[200])
    with pytest.raises(ValueError, match='has no program 1 in bank 77'): SoundFontNotes(programs=[(77, 1)])
    with pytest.raises(ValueError, match='SoundFontNotes has no notes: relax its filters'): SoundFontNotes(programs=[43], pitches=100)
    with pytest.raises(ValueError, match="normalize must be 'peak' or None, got 'rms'"): SoundFontNotes(normalize='rms')
    font = find_soundfont()
    with pytest.raises(ValueError, match='SoundFonts must have different names, got'): SoundFontNotes([font, font])
    with pytest.raises(FileNotFoundError, match='no SoundFont at nowhere.sf2'): SoundFontNotes('nowhere.sf2')

@needs_soundfont
def test_two_soundfonts():
    fonts = [p for p in (Path('/usr/share/sounds/sf2/FluidR3_GM.sf2'), Path('/usr/share/sounds/sf3/MuseScore_General_Lite.sf3')) if p.is_file()]
    if len(fonts) < 2: pytest.skip('only one SoundFont is installed')
    ds = SoundFontNotes(fonts, programs=[*range(8), *range(16, 21)], pitches=60, velocities=100, cache=False, label='key')
    assert len(ds.instruments) == 26 and len(ds.credits) == 2
    for seed in range(4): # MuseScore General descends from Fluid (R3): a program is on the same side in both
        for view in ds.split_by_instrument(seed=seed):
            fluid, muse = ({name.split('.', 1)[1] for name in view.instruments if part in name} for part in ('FluidR3GM', 'MuseScore'))
            assert fluid == muse

def test_without_a_soundfont(monkeypatch, capsys):
    monkeypatch.setattr(data.rendered, 'find_soundfont', lambda: None)
    with pytest.raises(FileNotFoundError, match='no SoundFont found: apt install fluid-soundfont-gm'): SoundFontNotes()
    ds = default_notes(instruments=('organ', 'keyboard'), pitches=range(48, 72), velocities=(100,))
    assert isinstance(ds, AdditiveNotes) and 'notes from the additive synthesiser (no SoundFont found' in capsys.readouterr().out

@needs_soundfont
def test_with_a_soundfont(capsys):
    assert isinstance(default_notes(programs=[19], pitches=60), SoundFontNotes) and 'by' in capsys.readouterr().out

# credits

def test_credits(tmp_path):
    records = data.write_credits(tmp_path/'CREDITS.md', [AdditiveNotes('organ', 60, 100)])
    text = (tmp_path/'CREDITS.md').read_text()
    assert all(credit.source in text and credit.licence in text for credit in records) and 'Frank Wen' in text and 'S. Christian Collins' in text
    assert text.count('Permission is hereby granted') == 1
    save_wave(tmp_path/NAME, torch.full((64000,), 0.1))
    with pytest.raises(ValueError, match='licence of the folder .* is unknown'): data.write_credits(tmp_path/'x.md', [NoteFolder(tmp_path)])
    assert not (tmp_path/'x.md').exists()

def test_committed_credits_are_up_to_date(tmp_path):
    "mars/CREDITS.md equals the output of `write_credits` for SoundFonts, recorded examples and packaged weights."
    package, top = Path(mars.__file__).parent/'CREDITS.md', Path(__file__).resolve().parent.parent/'CREDITS.md'
    assert package.read_text() == top.read_text()
    records = data.write_credits(tmp_path/'CREDITS.md')
    assert (tmp_path/'CREDITS.md').read_text() == package.read_text()
    assert {*data.example_notes().credits, *data.recording_credits()} < {*records} and len(data.recording_credits()) == 48

@pytest.mark.parametrize('model', ['small', 'classifier'])
def test_all_sources_of_the_weights_are_credited(model):
    info, text = json.loads((Path(mars.__file__).parent/'weights'/model/'config.json').read_text())['info'], (Path(mars.__file__).parent/'CREDITS.md').read_text()
    names = info['data']['credits']
    assert len(names) > 20 and all(name.split(' (')[0] in text for name in names)

def test_nsynth_from_download_to_batches(server, tmp_path):
    "download, check, unpack, convert, train both stages, evaluate, generate: with the commands for the real NSynth."
    from mars.cli import main
    from mars.pipeline import Mars
    from mars.training.reconstruction import reconstruction_error
    root = write_nsynth_fixture(tmp_path/'published', dict(train=(0, 1), test=(2,)), ('organ', 'synth_lead'))
    for split in ('test', 'train'):
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode='w:gz') as tar: tar.add(root/f'nsynth-{split}', f'nsynth-{split}')
        server.body = body.getvalue()
        download_nsynth(split, tmp_path/'nsynth', url=server.url.format(split='test'), expected=hashlib.sha256(server.body).hexdigest(), progress=False)
    assert sorted(p.name for p in (tmp_path/'nsynth').iterdir()) == ['cache', 'nsynth-test', 'nsynth-train']
    common = ['--data', str(tmp_path/'nsynth'), '--out', str(tmp_path/'run'), '--json', '--steps', '3', '--batch-size', '4']
    assert main(['train', 'tokenizer', *common, '--warm-start', '8', '--width', '32', '--codebook-size', '32']) == 0
    assert main(['train', 'var', *common]) == 0
    m, test = Mars.from_pretrained(tmp_path/'run'), NSynth(tmp_path/'nsynth', 'test')
    assert m.info['notes'] == len(NSynth(tmp_path/'nsynth', 'train')) != len(test)
    assert 0 < reconstruction_error(m, test)['mse'] < 1
    assert m.generate(pitch=60, family='organ', n_iter=1, seed=0).shape == (1, 64000)
