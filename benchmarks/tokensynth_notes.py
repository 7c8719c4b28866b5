"""Notes of TokenSynth for the labels of Table 1:  python benchmarks/tokensynth_notes.py REQUESTS --out FOLDER

TokenSynth 0.0.4 (Kim et al. 2025, MIT) needs torch < 2.6 and numpy 1.23.5, which MARS does not support, so it is no
extra of the package: run this script with Python 3.10 or 3.11 in an environment of its own, with
`pip install -r benchmarks/tokensynth-requirements.txt`. It downloads the weights from the Hugging Face hub and imports
nothing of MARS.

    python benchmarks/table1.py --data SOURCE --requests REQUESTS     # in the environment of MARS: labels and timbres
    python benchmarks/tokensynth_notes.py REQUESTS --out FOLDER       # here
    python benchmarks/table1.py --data SOURCE --tokensynth FOLDER --parts tokensynth --out results/benchmarks/FILE

A timbre is the CLAP vector of a random *training* note of the family and the source (--timbre text: of words such as
"acoustic flute"). FOLDER has the layout of NSynth, and info.json names settings and seconds a note. A note that is in
FOLDER is kept, so an interrupted run continues. The file name is not tokensynth.py, which would hide the package.
"""
import argparse, json, sys, time, wave
from pathlib import Path
import numpy as np

RATE, SAMPLES = 16000, 64000 # Hz; 4 s
RELEASE = 3.                 # s, as in NSynth; TokenSynth leaves out notes that end at 5 s or later
VELOCITIES = 25, 50, 100, 127 # those it knows; others become the nearest, 75 the lower one

def synthesizer_settings(top_k): # -> arguments of `TokenSynth.synthesize`
    "Top-k sampling; TokenSynth keeps k MIDI tokens and k + 1 audio tokens, so k audio tokens are asked with k - 1."
    return dict(top_k=top_k - 1)

def write_midi(path, pitch, velocity):
    "Write one note from 0 to 3 s."
    import pretty_midi
    midi, instrument = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    instrument.notes.append(pretty_midi.Note(velocity=velocity, pitch=pitch, start=0., end=RELEASE))
    midi.instruments.append(instrument)
    midi.write(str(path))

def snap_velocity(velocity): # 1..127 -> the velocity that TokenSynth generates
    return min(VELOCITIES, key=lambda v: abs(v - velocity))

def note_name(i, note): # unique, in the order of the requests
    return f"{note['family']}_{note['source']}_{i:04d}-{note['pitch']:03d}-{note['velocity']:03d}"

def fit_length(x): # (n,) float -> (64000,) int16
    "Cut or pad to 4 s and round to 16 bits."
    x = np.asarray(x, np.float64).reshape(-1)[:SAMPLES]
    return (np.pad(x, (0, SAMPLES - len(x)))*32767).round().clip(-32768, 32767).astype('<i2')

def write_wav(path, x):
    "Write (64000,) int16 samples; a file is complete or absent."
    part = path.with_suffix('.part')
    with wave.open(str(part), 'wb') as f:
        f.setnchannels(1), f.setsampwidth(2), f.setframerate(RATE)
        f.writeframes(x.tobytes())
    part.replace(path)

class Model:
    "TokenSynth, its timbre encoder and its codec decoder."
    def __init__(self, device=None):
        import torch
        from tokensynth import CLAP, DACDecoder, TokenSynth
        self.torch = torch
        self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self.synth = TokenSynth.from_pretrained(aug=True, device=self.device)
        self.clap, self.decoder = CLAP(device=self.device), DACDecoder(device=self.device)

    @property
    def n_parameters(self):
        nets = self.synth, self.clap.clap, self.decoder.dac_model
        return sum(p.numel() for net in nets for p in net.parameters())

    def timbre(self, source): # path of a WAV, or text -> (1, 512)
        with self.torch.no_grad():
            return self.clap.encode_audio(str(source)) if isinstance(source, Path) else self.clap.encode_text(source)

    def note(self, timbre, midi, seed, **settings): # -> (n,) at 16 kHz
        self.torch.manual_seed(seed)
        with self.torch.no_grad():
            tokens = self.synth.synthesize(timbre, str(midi), **settings) # (1, frames, 9); batches of one only
            return self.decoder.decode(tokens).numpy()

def timbre_of(note, requests, kind): # -> path of a WAV, or text
    return requests/note['timbre'] if kind == 'audio' else f"{note['source']} {note['family']}"

def entry(note, ids): # of examples.json
    "Labels of a note as NSynth has them."
    return dict(pitch=note['pitch'], velocity=note['velocity'], instrument_str=f"{note['family']}_{note['source']}_000",
                instrument_family=ids['families'].index(note['family']), instrument_family_str=note['family'],
                instrument_source=ids['sources'].index(note['source']), instrument_source_str=note['source'])

def generate(model, requests, out, kind='audio', top_k=10, seed=0): # -> info, which is also written
    "Generate a note for each request."
    asked = json.loads((requests/'requests.json').read_text(encoding='utf-8'))
    (out/'audio').mkdir(parents=True, exist_ok=True)
    before = json.loads((out/'info.json').read_text(encoding='utf-8')) if (out/'info.json').exists() else {}
    settings, seconds = synthesizer_settings(top_k), []
    names = [note_name(i, note) for i, note in enumerate(asked['notes'])]
    for i, (name, note) in enumerate(zip(names, asked['notes'])):
        path, start = out/'audio'/f'{name}.wav', time.perf_counter()
        if path.exists(): continue
        write_midi(out/'note.mid', note['pitch'], note['velocity'])
        timbre = model.timbre(timbre_of(note, requests, kind))
        write_wav(path, fit_length(model.note(timbre, out/'note.mid', seed + i, **settings)))
        seconds.append(time.perf_counter() - start)
        print(f'{name}: {seconds[-1]:.1f} s', flush=True)
    (out/'note.mid').unlink(missing_ok=True)
    info = dict(model='tokensynth 0.0.4, token_synth_aug', digest=asked['digest'], timbre=kind, top_k=top_k, seed=seed,
                parameters=model.n_parameters, seconds=sum(seconds)/len(seconds) if seconds else before.get('seconds'),
                device=str(model.device), velocities=sorted({snap_velocity(n['velocity']) for n in asked['notes']}))
    examples = {name: entry(note, asked) for name, note in zip(names, asked['notes'])}
    (out/'examples.json').write_text(json.dumps(examples, indent=1), encoding='utf-8')
    (out/'info.json').write_text(json.dumps(info, indent=1), encoding='utf-8')
    return info

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('requests', type=Path, help='the folder that table1.py --requests wrote')
    ap.add_argument('--out', type=Path, required=True, help='a folder for the notes')
    ap.add_argument('--timbre', default='audio', choices=('audio', 'text'), help='default: %(default)s')
    ap.add_argument('--top-k', type=int, default=10, help='audio tokens to sample from; default: %(default)s')
    ap.add_argument('--seed', type=int, default=0, help='of the first note; default: %(default)s')
    ap.add_argument('--device', help='cpu or cuda; default: the first available')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    if args.top_k < 2: sys.exit(f'--top-k must be at least 2, got {args.top_k}')
    if not (args.requests/'requests.json').exists():
        sys.exit(f'{args.requests} has no requests.json: write it with python benchmarks/table1.py --requests')
    try: model = Model(args.device)
    except ImportError as e:
        sys.exit(f'{e}: install benchmarks/tokensynth-requirements.txt in an environment of its own')
    except Exception as e: # the hub, the cache and torch.load have many ways to fail
        sys.exit(f'the weights of TokenSynth are not available ({type(e).__name__}): they are downloaded from the '
                 'Hugging Face hub (KyungsuKim/TokenSynth), or read from its folder in the user cache')
    return generate(model, args.requests, args.out, args.timbre, args.top_k, args.seed)

if __name__ == '__main__': main()
