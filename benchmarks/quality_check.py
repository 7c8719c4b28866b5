"""Check generated notes for pitch, level and clicks:  python benchmarks/quality_check.py [--model small] [--seed 0]

Every note comes from `mars generate --pitch 45,60,75 --family F --seed 0 --json`, called in this process, with default
settings and without selection. Prints the measurements of each WAV file that the command wrote; writes them to
results/evaluation/quality-check-small.json, and the first two seconds of each note to results/clips/quality-check.

midi, cents    pitch by pYIN (mars.eval.f0), and its distance from the requested pitch; null for an unvoiced note
peak, rms      largest sample, 0 to 1; RMS in dB of full scale from 0.1 to 2 s
clipped        samples at full scale (within one step of 16 bits)
click          maximum over blocks of 20 ms of r/max(before, after): r is the largest absolute fourth difference of the
               samples in a block, `before` and `after` are medians of r over three blocks. The fourth difference is
               small in a smooth wave and large at a jump. Attack and release raise one side, a click neither. The first
               100 ms and blocks with r below a thousandth of the peak are left out
click_at       time of that block in seconds, and r relative to the peak; a jump of a tenth of the peak gives 0.6
control_click  `click` with one sample at 1.5 s moved by a tenth of the peak: the value of a click in this note
edges          the first and the last sample relative to the peak: a note that does not begin or end near 0 clicks there
"""
import argparse, contextlib, hashlib, io, json, tempfile, time
from pathlib import Path
import numpy as np
import soundfile
from mars.cli import main as mars_command
from mars.data import FAMILIES, SoundFontNotes
from mars.parts.files import load_wave, write_atomic
from mars.eval import cents_error, f0
from mars.pipeline import find_model
from mars.training.log import versions

RATE = 16000
CLICK = 2  # threshold of `click`; real notes stay below it, see nbs/evaluation/audit

def click(wave, rate=RATE):
    "(ratio, time in s, fourth difference relative to the peak) of the block that exceeds both its sides the most."
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
    peak, control, voiced = np.abs(x).max(), x.copy(), not np.isnan(midi)
    control[int(1.5*RATE)] += .1*peak
    ratio, *click_at = click(x)
    power = np.square(x[RATE//10:2*RATE]).mean()
    return dict(
        midi=round(midi, 2) if voiced else None, cents=round(float(cents_error(midi, pitch)), 1) if voiced else None,
        peak=round(float(peak), 4), rms=round(float(10*np.log10(power + 1e-12)), 1),
        clipped=int((np.abs(x) >= 32766/32768).sum()), click=round(float(ratio), 2),
        click_at=[round(float(v), 4) for v in click_at], control_click=round(float(click(control)[0]), 2),
        edges=[round(float(abs(v)/max(peak, 1e-9)), 4) for v in (x[0], x[-1])])

def run_command(*args):
    "The JSON that `mars` prints for these arguments."
    output = io.StringIO()
    with contextlib.redirect_stdout(output): mars_command([*args, '--json'])
    return json.loads(output.getvalue())

def count_real_clicks(pitches, every=3):
    "Number of real notes above the threshold, as a dict; None without a SoundFont."
    try: notes = SoundFontNotes(pitches=pitches, velocities=(100,))
    except (FileNotFoundError, ValueError): return None
    ratios = [float(click(notes[i][0].numpy())[0]) for i in range(0, len(notes), every)]
    return dict(notes=len(ratios), above=sum(r > CLICK for r in ratios), font=notes.fonts[0].name)

def save_clip(wave, file):
    "Write the first two seconds as MP3, with a fade-out of 50 ms."
    file.parent.mkdir(parents=True, exist_ok=True)
    fade = np.r_[np.ones(31200), np.linspace(1, 0, 800)]
    soundfile.write(file, wave[:2*RATE]*fade, RATE, format='MP3', compression_level=.8)

def measure_family(model, family, pitches, seed, clips=None):
    "Generate the notes of a family with one command -> a row for each pitch."
    rows, pitch_list = [], ','.join(map(str, pitches))
    with tempfile.TemporaryDirectory() as folder:
        files = run_command('generate', '--model', model, '--pitch', pitch_list, '--family', family,
                            '--seed', str(seed), '--out', folder)['files']
        for pitch, file in zip(pitches, files):
            wave = load_wave(file).numpy()
            rows.append(dict(family=family, pitch=pitch, **measure(wave, pitch)))
            if clips: save_clip(wave, Path(clips)/f'{family}-{pitch:03d}.mp3')
    return rows

def run(model, pitches, seed, clips=None):
    "Generate and measure the notes of all families."
    start, rows = time.perf_counter(), []
    for family in FAMILIES: rows += measure_family(model, family, pitches, seed, clips)
    weights = b''.join(f.read_bytes() for f in sorted(find_model(model).glob('*.safetensors')))
    pitch_list = ','.join(map(str, pitches))
    command = f'mars generate --model {model} --pitch {pitch_list} --family F --seed {seed} --json'
    return dict(command=command, model=model, weights=hashlib.sha256(weights).hexdigest(), seed=seed,
                click_threshold=CLICK, notes=rows, seconds=round(time.perf_counter() - start, 1),
                versions=versions('cpu'))

def parse_pitches(text): return [int(x) for x in text.split(',')]

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--pitches', default='45,60,75', type=parse_pitches, help='MIDI, 0 to 127; default: %(default)s')
    ap.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    ap.add_argument('--out', default='results/evaluation/quality-check-small.json', help='a JSON file')
    ap.add_argument('--clips', default='results/clips/quality-check', help='folder of the MP3 files')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    result = run(args.model, args.pitches, args.seed, args.clips)
    result['real_clicks'] = count_real_clicks(args.pitches)
    write_atomic(args.out, (json.dumps(result, indent=1) + '\n').encode())
    for row in result['notes']: print(*(f'{k} {v}' for k, v in row.items()))
    print(result['seconds'], 's')

if __name__ == '__main__': main()
