"""Measure a classifier on held-out instruments:  python benchmarks/classifier.py [--recorded FOLDER] --out FILE.json

Test notes are those of the test instruments (scripts/split.json) of Fluid (R3) and, with --recorded, of recorded notes
in NSynth's layout: unchanged, after Griffin-Lim, with half a second of silence in front, and cut off after a second.
Pitch labels are the pitches that sound. Prints a line of accuracies for each set and writes them with the
speed to --out (committed: results/evaluation/classifier.json). --write stores accuracy and calibration in the
classifier's config.json. Set OMP_NUM_THREADS=1 to time one core. scripts/reproduce_weights.py trains the classifier.
"""
import argparse, json, sys, time
from pathlib import Path
import torch
import torch.nn.functional as F
from mars.evaluation.classifier import measure_classifier
from mars.parts.classifier import Classifier, find_classifier
from mars.data import NSynth, SoundFontNotes
from mars.parts.files import write_atomic
from mars.stft import LogSpectrogram
from mars.training.log import versions
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'scripts'))
from reproduce_weights import CLASSIFIER, MODEL, every, join, split_by_names

SUMMARY = 'pitch', 'pitch_1', 'pitch_octave', 'family', 'family_by_instrument', 'source'

def open_soundfont(grids): return join(SoundFontNotes(**grid) for grid in grids)

def open_sets(recorded=None, fluid=None):
    "Validation notes and {name: test notes}; `recorded` lists folders, `fluid` is used in place of the SoundFont."
    split = json.loads((ROOT/'scripts'/'split.json').read_text())['classifier']
    valid = every(split_by_names(fluid or open_soundfont(CLASSIFIER), split)[1], 1500)
    tests = dict(soundfont=split_by_names(fluid or open_soundfont([MODEL[0], CLASSIFIER[1]]), split)[2])
    if recorded:
        notes = join(NSynth(folder, split=None) for folder in recorded)
        _, recorded_valid, tests['real'] = split_by_names(notes, split)
        valid = valid + recorded_valid
    return valid, tests

def notes_per_second(clf, notes):
    "Notes per second of CPU time, the best of five."
    waves, seconds = notes.batch(range(min(128, len(notes))))[0], []
    for _ in range(5):
        start = time.process_time()
        clf.predict(waves)
        seconds.append(time.process_time() - start)
    return len(waves)/min(seconds)

def delay(waves): return F.pad(waves, (8000, 0))[:, :waves.shape[1]]

def shorten(waves): return F.pad(waves[:, :16000], (0, waves.shape[1] - 16000))

def measure_sets(clf, valid, tests, n_changed):
    "Results of the validation notes, the test notes, and the test notes after changes."
    ls = LogSpectrogram()
    def griffin_lim(waves): return ls.decode(ls.encode(waves), n_iter=32)
    results = dict(valid=measure_classifier(clf, valid)) | {k: measure_classifier(clf, v) for k, v in tests.items()}
    for name, notes in tests.items():
        for change, transform in dict(griffinlim=griffin_lim, late=delay, short=shorten).items():
            results[f'{name}_{change}'] = measure_classifier(clf, every(notes, n_changed), transform=transform)
    return results

def write_accuracy(clf, name, results):
    "Store a summary of the results in the classifier's config.json."
    counts = {k: dict(notes=r['notes'], instruments=r['instruments']) for k, r in results.items()}
    clf.info['accuracy'] = {k: {m: round(r[m], 4) for m in SUMMARY} | counts[k] for k, r in results.items()}
    clf.info['calibration'] = {k: {h: round(v, 4) for h, v in r['ece'].items()} for k, r in results.items()}
    clf.save_pretrained(find_classifier(name), half=True)

def print_result(name, r):
    "Print one line of accuracies and calibration errors."
    raw, ece = r['ece_raw'], r['ece']
    print(f"{name:22}{r['notes']:6} notes  pitch {r['pitch']:.3f} +-1 {r['pitch_1']:.3f} "
          f"octave {r['pitch_octave']:.3f}  family {r['family']:.3f} by instrument {r['family_by_instrument']:.3f}  "
          f"source {r['source']:.3f}  "
          f"ece {raw['pitch']:.3f}->{ece['pitch']:.3f}, {raw['family']:.3f}->{ece['family']:.3f}")

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--classifier', default='classifier', help='a folder or packaged weights; default: %(default)s')
    ap.add_argument('--recorded', type=Path, action='append',
                    help="folder of recorded notes in NSynth's layout; repeatable")
    ap.add_argument('--changed', type=int, default=200,
                    help='test notes that are also measured after changes, at least 1; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    ap.add_argument('--write', action='store_true', help="store the summary in the classifier's config.json")
    return ap

def main(argv=None, fluid=None):
    "fluid: notes in place of the SoundFont's."
    args = parser().parse_args(argv)
    clf, (valid, tests) = Classifier.from_pretrained(args.classifier), open_sets(args.recorded, fluid)
    results = measure_sets(clf, valid, tests, args.changed)
    size = (find_classifier(args.classifier)/'classifier.safetensors').stat().st_size
    speed = notes_per_second(clf, tests['soundfont'])
    report = dict(describe=clf.describe(), size=size, notes_per_second=speed, versions=versions(torch.device('cpu')),
                  results=results)
    write_atomic(args.out, json.dumps(report, indent=1))
    if args.write: write_accuracy(clf, args.classifier, results)
    for name, r in results.items(): print_result(name, r)
    print(f'{size} bytes, {speed:.0f} notes/s, {clf.digest}')
    return results

if __name__ == '__main__': main()
