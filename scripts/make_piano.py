"""Generate the notes of the piano on the front page:  python scripts/make_piano.py [--weights small]

Generates a note for each family and every third semitone, with the model's own settings (`Mars.sampling`). While the
best pitch so far is further than --cents from the requested one, another seed is tried, up to --seeds: clips are
selected by pitch only. Prints how many notes are within 50 cents. Writes to nbs/piano a script for each family with its
clips (MP3 in base64, because a page opened from a folder may not fetch files) and piano.json with the requests,
measurements and selected seeds. A few minutes on one core.
"""
import argparse, base64, hashlib, io, json, os, time
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import numpy as np, soundfile as sf
from mars.eval import f0
from mars.pipeline import Mars

ROOT = Path(__file__).resolve().parent.parent
SOURCES = dict(keyboard='acoustic', guitar='acoustic', bass='electronic', flute='acoustic', reed='acoustic',
               brass='acoustic', string='acoustic', vocal='acoustic', mallet='acoustic', organ='electronic',
               synth_lead='synthetic')
QUALITY = .9  # libsndfile's compression: at 16 kHz mono about 24 kbit/s

def midi_to_hz(pitch): return 440*2**((pitch-69)/12)

def pitch_error(wave, pitch):
    "Cents from the requested pitch, searched within two octaves; None for an unvoiced note."
    fmin, fmax = max(26.7, midi_to_hz(pitch)/2.1), min(4435, midi_to_hz(pitch)*2.1)
    midi = f0(wave.numpy(), fmin=fmin, fmax=fmax).midi
    return None if np.isnan(midi) else 100*(midi-pitch)

def distance(cents): return float('inf') if cents is None else abs(cents)

def choose(m, family, pitches, args):
    "{pitch: (wave, seed, seeds tried, cents of the first seed)}: the note nearest in pitch of those tried."
    best, errors, first_errors, tries = {}, {}, {}, {}
    remaining = list(pitches)
    for seed in range(args.seeds):
        if not remaining: break
        waves = m.generate(pitch=remaining, family=family, source=SOURCES[family], velocity=100, seed=seed,
                           phase=args.phase, batch_size=17, progress=False)
        for pitch, wave in zip(remaining, waves):
            cents = pitch_error(wave, pitch)
            first_errors.setdefault(pitch, cents)
            if pitch not in best or distance(cents) < distance(errors[pitch]):
                best[pitch], errors[pitch] = (wave, seed), cents
            tries[pitch] = seed + 1
        remaining = [pitch for pitch in remaining if distance(errors[pitch]) > args.cents]
    return {pitch: (*take, tries[pitch], first_errors[pitch]) for pitch, take in best.items()}

def clip(wave, seconds, rate):
    "The first seconds of a note at a peak of 0.7, with a fade-out."
    x = wave.numpy()[:round(seconds*rate)].copy()
    fade = round(.25*rate)
    x[-fade:] *= np.linspace(1, 0, fade, dtype=x.dtype)**2
    return x*(.7/max(float(np.abs(x).max()), 1e-4))

def encode_mp3(x, rate):
    "The bytes of an MP3 file."
    file = io.BytesIO()
    sf.write(file, x, rate, format='MP3', subtype='MPEG_LAYER_III', compression_level=QUALITY, bitrate_mode='CONSTANT')
    return file.getvalue()

def digest(folder):
    "Hash of the weights; tests/test_site.py compares it with the packaged ones."
    sha = hashlib.sha256()
    for name in ('tokenizer.safetensors', 'var.safetensors'): sha.update((folder/name).read_bytes())
    return sha.hexdigest()[:16]

def family_record(m, family, pitches, args):
    "The clips (for the page) and the measured notes (for piano.json) of one family."
    clips, notes = {}, []
    for pitch, (wave, seed, tries, first) in sorted(choose(m, family, pitches, args).items()):
        x = clip(wave, args.seconds, m.sample_rate)
        mp3, measured = encode_mp3(x, m.sample_rate), f0(wave.numpy())
        midi = None if np.isnan(measured.midi) else measured.midi
        notes.append(dict(pitch=pitch, f0=None if midi is None else round(midi, 3),
                          cents=None if midi is None else round(100*(midi-pitch), 1), voiced=round(measured.voiced, 3),
                          seed=seed, tries=tries, first_seed_cents=None if first is None else round(first, 1),
                          bytes=len(mp3)))
        clips[pitch] = base64.b64encode(mp3).decode()
    return clips, notes

def count_right(notes, key='cents'): return sum(distance(note[key]) < 50 for note in notes)

def write_family(path, family, clips, notes):
    "Write the script of a family -> its size in bytes."
    data = dict(cents={note['pitch']: note['cents'] for note in notes}, clips=clips)
    script = f'(window.MARS_PIANO ??= {{}}).{family} = '+json.dumps(data, separators=(',', ':'))+';\n'
    path.write_text(script, encoding='utf-8')
    return len(script)

def write_record(args, m, families, pitches):
    "Write made.js (the keys of the piano) and piano.json (how the clips were made)."
    notes, packaged = [note for f in families.values() for note in f['notes']], ROOT/'mars'/'weights'/args.weights
    record = dict(
        weights=args.weights, digest=digest(packaged if packaged.is_dir() else Path(args.weights)), notes=len(notes),
        right=count_right(notes), first_seed_right=count_right(notes, 'first_seed_cents'),
        chosen_by='the distance of f0 (pYIN) from the requested pitch', seeds=args.seeds, near_enough_cents=args.cents,
        velocity=100, sampling=m.sampling(), phase=args.phase, seconds=args.seconds, sample_rate=m.sample_rate,
        codec='MP3, mono', families=families)
    keys = dict(first=pitches[0], last=pitches[-1], step=pitches.step, families=list(families))
    (args.out/'made.js').write_text(f'window.MARS_PIANO_ABOUT = {json.dumps(keys)};\n', encoding='utf-8')
    (args.out/'piano.json').write_text(json.dumps(record, indent=1)+'\n', encoding='utf-8')
    return record

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--weights', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--out', type=Path, default=ROOT/'nbs'/'piano', help='default: nbs/piano')
    ap.add_argument('--families', nargs='*', default=list(SOURCES), choices=list(SOURCES), help='default: all')
    ap.add_argument('--pitches', nargs=3, type=int, default=[36, 84, 3], metavar=('FIRST', 'LAST', 'STEP'),
                    help='MIDI, 0 to 127; default: 36 84 3')
    ap.add_argument('--seeds', type=int, default=4, help='most seeds to try for a note, >= 1; default: %(default)s')
    ap.add_argument('--cents', type=float, default=15,
                    help='try no further seed within this distance, >= 0; default: %(default)s')
    ap.add_argument('--seconds', type=float, default=2.5, help='length of a clip, 0.25 to 4; default: %(default)s')
    ap.add_argument('--phase', default='griffinlim', choices=['griffinlim', 'pghi', 'vocoder'],
                    help='phase reconstruction method; default: %(default)s')
    return ap

def main(argv=None):
    args, start = parser().parse_args(argv), time.perf_counter()
    m = Mars.from_pretrained(args.weights)
    args.out.mkdir(parents=True, exist_ok=True)
    first, last, step = args.pitches
    pitches, families, size = range(first, last+1, step), {}, 0
    for family in args.families:
        clips, notes = family_record(m, family, pitches, args)
        families[family] = dict(source=SOURCES[family], notes=notes)
        n_bytes = write_family(args.out/f'{family}.js', family, clips, notes)
        size += n_bytes
        print(f'{family}: {count_right(notes)} of {len(notes)} notes within 50 cents; {n_bytes//1024} KiB, '
              f'{time.perf_counter()-start:.0f} s so far', flush=True)
    record = write_record(args, m, families, pitches)
    print(f'{record["right"]} of {record["notes"]} notes within 50 cents, {size/2**20:.2f} MiB, '
          f'{time.perf_counter()-start:.0f} s')

if __name__ == '__main__': main()
