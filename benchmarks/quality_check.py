"""Check generated notes for pitch, level and clicks:  python benchmarks/quality_check.py [--model small] [--pitches 45,60,75] [--seed 0]

Writes results/evaluation/quality-check-small.json and results/clips/quality-check. Every note comes from
`mars generate --pitch 45,60,75 --family F --seed 0 --json`, called in this process, with default settings and without selection.
Measured on the WAV that the command wrote:

midi, cents    pitch by pYIN (mars.eval.f0), and its distance from the requested one; null where no pitch was found
peak, rms      largest sample, 0 to 1; RMS in dB of full scale from 0.1 to 2 s
clipped        samples at full scale (within one step of 16 bits)
click          the fourth difference of the samples, which is small in a smooth wave and large at a jump: its largest value in a
               block of 20 ms, relative to the louder of the block's two sides, each the median of the largest values in three
               blocks; the maximum over the note, without the first 100 ms and without blocks whose largest value is below a
               thousandth of the peak. Attack and release are loud on one side and count little; a click is loud on neither
click_at       its second, and the fourth difference there relative to the peak; a jump of a tenth of the peak gives 0.6
control_click  `click` after one sample at 1.5 s was moved by a tenth of the peak: what a click would score in this note
edges          the first and the last sample relative to the peak: a note that does not begin or end near 0 clicks there
"""
import argparse, contextlib, hashlib, io, json, tempfile, time
from pathlib import Path
import numpy as np
import soundfile
from mars.cli import main
from mars.data import FAMILIES, SoundFontNotes
from mars.parts.files import load_wave, write_atomic
from mars.eval import cents_error, f0
from mars.pipeline import find_model
from mars.training.log import versions

CLICK = 2 # times its surroundings; a wave without clicks stays well below, see the notebook

def click(wave, rate=16000): # -> ratio, second, fourth difference there relative to the peak
    "How far the worst short burst of roughness exceeds both its sides."
    size, peak = rate//50, np.abs(wave).max()
    roughness = np.abs(np.diff(np.asarray(wave, float), 4))
    blocks = roughness[:len(roughness)//size*size].reshape(-1, size).max(1)
    worst = 0., 0., 0.
    for b in range(5, len(blocks)-3):
        if blocks[b] <= peak/1000: continue
        surroundings = max(np.median(blocks[b-3:b]), np.median(blocks[b+1:b+4]))
        worst = max(worst, (blocks[b]/max(surroundings, 1e-9), b*size/rate, blocks[b]/peak))
    return worst

def measure(wave, pitch):
    "All measurements of one note."
    x, midi = np.asarray(wave, float), f0(wave).midi
    peak, control = np.abs(x).max(), x.copy()
    control[24000] += .1*peak
    ratio, *click_at = click(x)
    voiced = not np.isnan(midi)
    return dict(
        midi=round(midi, 2) if voiced else None, cents=round(float(cents_error(midi, pitch)), 1) if voiced else None,
        peak=round(float(peak), 4), rms=round(float(10*np.log10(np.square(x[1600:32000]).mean() + 1e-12)), 1),
        clipped=int((np.abs(x) >= 32766/32768).sum()), click=round(float(ratio), 2),
        click_at=[round(float(v), 4) for v in click_at], control_click=round(float(click(control)[0]), 2),
        edges=[round(float(abs(v)/max(peak, 1e-9)), 4) for v in (x[0], x[-1])])

def shell(*words):
    "The JSON that `mars` prints for these words."
    output = io.StringIO()
    with contextlib.redirect_stdout(output): main([*words, '--json'])
    return json.loads(output.getvalue())

def real_clicks(pitches, every=3): # -> dict, or None without a SoundFont
    "How many real notes exceed the threshold."
    try: notes = SoundFontNotes(pitches=pitches, velocities=(100,), label='key')
    except (FileNotFoundError, ValueError): return None
    ratios = [float(click(notes[i][0].numpy())[0]) for i in range(0, len(notes), every)]
    return dict(notes=len(ratios), above=sum(r > CLICK for r in ratios), font=notes.fonts[0].name)

def save_clip(wave, file):
    "Write the first two seconds as MP3, with a short fade."
    file.parent.mkdir(parents=True, exist_ok=True)
    fade = np.r_[np.ones(31200), np.linspace(1, 0, 800)]
    soundfile.write(file, wave[:32000]*fade, 16000, format='MP3', compression_level=.8)

def run(model, pitches, seed, clips=None):
    "Generate with one command for each family, and measure everything."
    start, rows, pitch_list = time.perf_counter(), [], ','.join(map(str, pitches))
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as d:
            files = shell('generate', '--model', model, '--pitch', pitch_list, '--family', family, '--seed', str(seed),
                          '--out', d)['files']
            for pitch, file in zip(pitches, files):
                wave = load_wave(file).numpy()
                rows.append(dict(family=family, pitch=pitch, **measure(wave, pitch)))
                if clips: save_clip(wave, Path(clips)/f'{family}-{pitch:03d}.mp3')
    weights = b''.join(f.read_bytes() for f in sorted(find_model(model).glob('*.safetensors')))
    return dict(command=f'mars generate --model {model} --pitch {pitch_list} --family F --seed {seed} --json', model=model,
                weights=hashlib.sha256(weights).hexdigest(), seed=seed, click_threshold=CLICK, notes=rows,
                seconds=round(time.perf_counter() - start, 1), versions=versions('cpu'))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--model', default='small')
    p.add_argument('--pitches', default='45,60,75', type=lambda s: [int(x) for x in s.split(',')])
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', default='results/evaluation/quality-check-small.json')
    p.add_argument('--clips', default='results/clips/quality-check')
    a = p.parse_args()
    results = dict(run(a.model, a.pitches, a.seed, a.clips), real_clicks=real_clicks(a.pitches))
    write_atomic(a.out, (json.dumps(results, indent=1) + '\n').encode())
    for r in results['notes']: print(*(f'{k} {v}' for k, v in r.items()))
    print(results['seconds'], 's')
