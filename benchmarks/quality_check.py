"""Check generated notes for pitch, level and clicks:  python benchmarks/quality_check.py [--model small] [--pitches 45,60,75] [--seed 0]

Writes results/evaluation/quality-check-small.json and results/clips/quality-check. Every note comes from `mars generate --pitch 45,60,75 --family F --seed 0 --json`, called in this process, with the defaults of the shell
for all else. No second try, no choice among seeds. Measured on the WAV that the command wrote:

heard, cents  the pitch by pYIN (mars.eval.f0), and its distance from the asked one; null where no pitch was found
peak, rms     largest sample, 0 to 1; RMS in dB of full scale from 0.1 to 2 s
clipped       samples at full scale (within one step of 16 bits)
click         the fourth difference of the samples, which a smooth wave hardly has and a jump has in full: its largest value in a block of 20 ms,
              against the louder of the block's two sides, each the median of the largest values in the three blocks there; the maximum over the
              note, without the first 100 ms and without blocks whose largest value is below a thousandth of the peak; `where` is its second, and
              the fourth difference there against the peak, which a jump of a tenth of the peak brings to 0.6. Attack and release
              are edges, loud on one side, and count little; a click is loud on neither
planted       the same after one sample at 1.5 s was moved by a tenth of the peak: what a click would have scored in this very note
edges         the first and the last sample, each against the peak: a note that does not begin or end near 0 clicks there
"""
import argparse, contextlib, hashlib, io, json, tempfile, time
from pathlib import Path
import numpy as np
import soundfile
from mars.cli import main
from mars.data import FAMILIES, SoundFontNotes
from mars.parts.files import load_wave, write_whole
from mars.eval import cents_error, f0
from mars.pipeline import find_model
from mars.training.log import versions

CLICK = 2 # times its surroundings; a wave without clicks stays well below, see the notebook

def click(wave, rate=16000): # -> ratio, second where it is, fourth difference there against the peak
    "How far the worst short burst of roughness stands above both its sides."
    size = rate//50
    x = np.abs(np.diff(np.asarray(wave, float), 4))
    top = x[:len(x)//size*size].reshape(-1, size).max(1)
    sides = lambda b: max(np.median(top[b-3:b]), np.median(top[b+1:b+4]))
    worth = [b for b in range(5, len(top)-3) if top[b] > np.abs(wave).max()/1000]
    return max(((top[b]/max(sides(b), 1e-9), b*size/rate, top[b]/np.abs(wave).max()) for b in worth), default=(0., 0., 0.))

def measure(wave, pitch):
    "All that is said of one note."
    x, heard = np.asarray(wave, float), f0(wave).midi
    peak, hurt = np.abs(x).max(), x.copy()
    hurt[24000] += .1*peak
    return dict(heard=None if np.isnan(heard) else round(heard, 2), cents=None if np.isnan(heard) else round(float(cents_error(heard, pitch)), 1), peak=round(float(peak), 4),
                rms=round(float(10*np.log10(np.square(x[1600:32000]).mean() + 1e-12)), 1), clipped=int((np.abs(x) >= 32766/32768).sum()),
                click=round(float(click(x)[0]), 2), where=[round(float(v), 4) for v in click(x)[1:]], planted=round(float(click(hurt)[0]), 2), edges=[round(float(abs(v)/max(peak, 1e-9)), 4) for v in (x[0], x[-1])])

def shell(*words):
    "The JSON that `mars` prints for these words."
    said = io.StringIO()
    with contextlib.redirect_stdout(said): main([*words, '--json'])
    return json.loads(said.getvalue())

def real_clicks(pitches, every=3): # -> dict, or None without a SoundFont
    "The same of real notes, which nobody has made: how often they pass the limit."
    try: notes = SoundFontNotes(pitches=pitches, velocities=(100,))
    except (FileNotFoundError, ValueError): return None
    found = [float(click(notes[i][0].numpy())[0]) for i in range(0, len(notes), every)]
    return dict(notes=len(found), above=sum(c > CLICK for c in found), font=notes.fonts[0].name)

def run(model, pitches, seed, clips=None):
    "One command for each family, and everything measured."
    began, rows = time.perf_counter(), []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as d:
            files = shell('generate', '--model', model, '--pitch', ','.join(map(str, pitches)), '--family', family, '--seed', str(seed), '--out', d)['files']
            for pitch, file in zip(pitches, files):
                wave = load_wave(file).numpy()
                rows.append(dict(family=family, pitch=pitch, **measure(wave, pitch)))
                if clips:
                    out = Path(clips)/f'{family}-{pitch:03d}.mp3'
                    out.parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(out, wave[:32000]*np.r_[np.ones(31200), np.linspace(1, 0, 800)], 16000, format='MP3', compression_level=.8)
    weights = hashlib.sha256(b''.join(f.read_bytes() for f in sorted(find_model(model).glob('*.safetensors')))).hexdigest()
    return dict(command=f'mars generate --model {model} --pitch {",".join(map(str, pitches))} --family F --seed {seed} --json', model=model, weights=weights, seed=seed, click_from=CLICK,
                notes=rows, seconds=round(time.perf_counter() - began, 1), versions=versions('cpu'))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--model', default='small')
    p.add_argument('--pitches', default='45,60,75', type=lambda s: [int(x) for x in s.split(',')])
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', default='results/evaluation/quality-check-small.json')
    p.add_argument('--clips', default='results/clips/quality-check')
    a = p.parse_args()
    found = dict(run(a.model, a.pitches, a.seed, a.clips), real_clicks=real_clicks(a.pitches))
    write_whole(a.out, (json.dumps(found, indent=1) + '\n').encode())
    for r in found['notes']: print(*(f'{k} {v}' for k, v in r.items()))
    print(found['seconds'], 's')
