"""Make the sounds of the piano on the front page from the weights of the package:  python scripts/make_piano.py

For each family and every third semitone it generates a note; while the pitch of the best one so far is further than
--cents from the one asked, it tries another seed, up to --seeds. So the clips are chosen by their pitch, and by
nothing else; they are drawn with the model's own settings (`Mars.sampling`). It writes to nbs/piano a script per family with its clips (MP3, in base64, since a page opened from a
folder may not fetch files) and piano.json, which records what was asked, measured and chosen. A few minutes on one core.
"""
import argparse, base64, hashlib, io, json, os, time
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
import numpy as np, soundfile as sf, torch
from mars.eval import f0
from mars.pipeline import Mars

ROOT = Path(__file__).resolve().parent.parent
SOURCES = dict(keyboard='acoustic', guitar='acoustic', bass='electronic', flute='acoustic', reed='acoustic', brass='acoustic', string='acoustic',
    vocal='acoustic', mallet='acoustic', organ='electronic', synth_lead='synthetic')
QUALITY = .9  # libsndfile's compression: at 16 kHz mono about 24 kbit/s

def hz(pitch): return 440*2**((pitch-69)/12)

def miss(wave, pitch):
    "Cents from the asked pitch, looking two octaves around it; None where pYIN hears no pitch"
    found = f0(wave.numpy(), fmin=max(26.7, hz(pitch)/2.1), fmax=min(4435, hz(pitch)*2.1)).midi
    return None if np.isnan(found) else 100*(found-pitch)

def badness(cents): return float('inf') if cents is None else abs(cents)

def choose(m, family, pitches, args):
    "{pitch: (wave, seed, seeds tried, cents of the first seed)}: the note nearest in pitch of those tried"
    best, open_ = {}, list(pitches)
    for seed in range(args.seeds):
        if not open_: break
        waves = m.generate(pitch=open_, family=family, source=SOURCES[family], velocity=100, seed=seed, phase=args.phase, batch_size=17, progress=False)
        for pitch, wave in zip(open_, waves):
            cents = miss(wave, pitch)
            old = best.get(pitch, (wave, seed, 0, cents, cents))
            best[pitch] = (*((wave, seed) if badness(cents) < badness(old[4]) else old[:2]), seed+1, old[3], min(cents, old[4], key=badness))
        open_ = [p for p in open_ if badness(best[p][4]) > args.cents]
    return {p: b[:4] for p, b in best.items()}

def clip(wave, seconds, rate):
    "The first seconds of a note at a peak of 0.7, faded out"
    x = wave.numpy()[:round(seconds*rate)].copy()
    fade = round(.25*rate)
    x[-fade:] *= np.linspace(1, 0, fade, dtype=x.dtype)**2
    return x*(.7/max(float(np.abs(x).max()), 1e-4))

def mp3(x, rate):
    file = io.BytesIO()
    sf.write(file, x, rate, format='MP3', subtype='MPEG_LAYER_III', compression_level=QUALITY, bitrate_mode='CONSTANT')
    return file.getvalue()

def digest(folder):
    "Of the weights, so that a test can tell clips of other ones"
    both = hashlib.sha256()
    for name in ('tokenizer.safetensors', 'var.safetensors'): both.update((folder/name).read_bytes())
    return both.hexdigest()[:16]

def family_record(m, family, pitches, args):
    "What is in the page (clips) and what is in the record (notes) of one family"
    clips, notes = {}, []
    for pitch, (wave, seed, tries, first) in sorted(choose(m, family, pitches, args).items()):
        x = clip(wave, args.seconds, m.sample_rate)
        blob, found = mp3(x, m.sample_rate), f0(wave.numpy())
        voiced = not np.isnan(found.midi)
        notes.append(dict(pitch=pitch, f0=round(found.midi, 3) if voiced else None, cents=round(100*(found.midi-pitch), 1) if voiced else None,
            voiced=round(found.voiced, 3), seed=seed, tries=tries, first_seed_cents=None if first is None else round(first, 1), bytes=len(blob)))
        clips[pitch] = base64.b64encode(blob).decode()
    return clips, notes

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--weights', default='small', help='as for Mars.from_pretrained (default: %(default)s)')
    ap.add_argument('--out', type=Path, default=ROOT/'nbs'/'piano')
    ap.add_argument('--families', nargs='*', default=list(SOURCES), choices=list(SOURCES))
    ap.add_argument('--pitches', nargs=3, type=int, default=[36, 84, 3], metavar=('FIRST', 'LAST', 'STEP'))
    ap.add_argument('--seeds', type=int, default=4, help='seeds tried at most for a note (default: %(default)s)')
    ap.add_argument('--cents', type=float, default=15, help='near enough: try no further seed (default: %(default)s)')
    ap.add_argument('--seconds', type=float, default=2.5)
    ap.add_argument('--phase', default='griffinlim', choices=['griffinlim', 'pghi', 'vocoder'])
    args = ap.parse_args()
    m, start = Mars.from_pretrained(args.weights), time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    pitches, families, size = range(args.pitches[0], args.pitches[1]+1, args.pitches[2]), {}, 0
    for family in args.families:
        clips, notes = family_record(m, family, pitches, args)
        families[family] = dict(source=SOURCES[family], notes=notes)
        cents = {n['pitch']: n['cents'] for n in notes}
        text = f'(window.MARS_PIANO ??= {{}}).{family} = '+json.dumps(dict(cents=cents, clips=clips), separators=(',', ':'))+';\n'
        (args.out/f'{family}.js').write_text(text, encoding='utf-8')
        size += len(text)
        right = sum(badness(n['cents']) < 50 for n in notes)
        print(f'{family}: {right} of {len(notes)} notes within 50 cents; {len(text)//1024} KiB, {time.perf_counter()-start:.0f} s so far', flush=True)
    notes = [n for f in families.values() for n in f['notes']]
    right, first = (sum(badness(n[k]) < 50 for n in notes) for k in ('cents', 'first_seed_cents'))
    weights = ROOT/'mars'/'weights'/args.weights if (ROOT/'mars'/'weights'/args.weights).is_dir() else Path(args.weights)
    made = dict(weights=args.weights, digest=digest(weights), notes=len(notes), right=right, first_seed_right=first,
        chosen_by='the distance of f0 (pYIN) from the pitch asked', seeds=args.seeds, near_enough_cents=args.cents, velocity=100, sampling=m.sampling(),
        phase=args.phase, seconds=args.seconds, sample_rate=m.sample_rate, codec='MP3, mono', families=families)
    about = dict(first=pitches[0], last=pitches[-1], step=pitches.step, families=list(families))
    (args.out/'made.js').write_text(f'window.MARS_PIANO_ABOUT = {json.dumps(about)};\n', encoding='utf-8')
    (args.out/'piano.json').write_text(json.dumps(made, indent=1)+'\n', encoding='utf-8')
    print(f'{right} of {len(notes)} notes within 50 cents, {size/2**20:.2f} MiB, {time.perf_counter()-start:.0f} s')

if __name__ == '__main__': main()
