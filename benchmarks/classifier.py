"""Measure a classifier on held-out instruments:  OMP_NUM_THREADS=1 python benchmarks/classifier.py [--recorded FOLDER] --out FILE.json

The test instruments (scripts/split.json) of Fluid (R3) and, with --recorded, of recorded notes in NSynth's layout, as they are and
after Griffin-Lim. --write puts accuracy and calibration into the config.json of the classifier. scripts/reproduce_weights.py
trains it; the committed result is results/evaluation/classifier.json.
"""
import argparse, json, sys, time
from pathlib import Path
import torch
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

def test_sides(recorded=None, fluid=None): # -> (validation notes, {name: test notes})
    "Validation and test notes of all sources."
    split = json.loads((ROOT/'scripts'/'split.json').read_text())['classifier']
    few, all_notes = (fluid or join(SoundFontNotes(**g, label='key') for g in grids) for grids in (CLASSIFIER, [MODEL[0], CLASSIFIER[1]]))
    valid, tests = every(split_by_names(few, split)[1], 1500), dict(soundfont=split_by_names(all_notes, split)[2])
    if recorded:
        _, more, tests['real'] = split_by_names(NSynth(recorded, split=None), split)
        valid = valid + more
    return valid, tests

def notes_per_second(clf, notes):
    "Notes per second of CPU time, the best of five."
    waves, seconds = notes.batch(range(min(128, len(notes))))[0], []
    for _ in range(5):
        start = time.process_time()
        clf.predict(waves)
        seconds.append(time.process_time() - start)
    return len(waves)/min(seconds)

def write_accuracy(clf, name, results):
    "Put a summary of the results into the classifier's config.json."
    counts = {k: dict(notes=r['notes'], instruments=r['instruments']) for k, r in results.items()}
    clf.info['accuracy'] = {k: {m: round(r[m], 4) for m in SUMMARY} | counts[k] for k, r in results.items()}
    clf.info['calibration'] = {k: {h: round(v, 4) for h, v in r['ece'].items()} for k, r in results.items()}
    clf.save_pretrained(find_classifier(name), half=True)

def print_result(name, r):
    "One line of accuracies."
    before, after = r['ece_raw'], r['ece']
    print(f"{name:22}{r['notes']:6} notes  pitch {r['pitch']:.3f} +-1 {r['pitch_1']:.3f} octave {r['pitch_octave']:.3f}  "
          f"family {r['family']:.3f} by instrument {r['family_by_instrument']:.3f}  source {r['source']:.3f}  "
          f"ece {before['pitch']:.3f}->{after['pitch']:.3f}, {before['family']:.3f}->{after['family']:.3f}")

def main(argv=None, fluid=None): # fluid: notes in place of the SoundFont's
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--classifier', default='classifier', help='a folder, or the name of weights in the package')
    p.add_argument('--recorded', type=Path, help='recorded notes in the layout of NSynth')
    p.add_argument('--griffin-lim', type=int, default=120, help='test notes that are also measured after Griffin-Lim')
    p.add_argument('--out', type=Path, required=True, help='a JSON file')
    p.add_argument('--write', action='store_true', help='put the summary into config.json')
    a = p.parse_args(argv)
    clf, ls, (valid, tests) = Classifier.from_pretrained(a.classifier), LogSpectrogram(), test_sides(a.recorded, fluid)
    def after_griffin_lim(waves): return ls.decode(ls.encode(waves), n_iter=32)
    results = dict(valid=measure_classifier(clf, valid)) | {k: measure_classifier(clf, v) for k, v in tests.items()}
    for k, v in tests.items():
        results[f'{k}_griffinlim'] = measure_classifier(clf, every(v, a.griffin_lim), transform=after_griffin_lim)
    size = (find_classifier(a.classifier)/'classifier.safetensors').stat().st_size
    speed = notes_per_second(clf, tests['soundfont'])
    report = dict(describe=clf.describe(), size=size, notes_per_second=speed, versions=versions(torch.device('cpu')),
                  results=results)
    write_atomic(a.out, json.dumps(report, indent=1))
    if a.write: write_accuracy(clf, a.classifier, results)
    for k, r in results.items(): print_result(k, r)
    print(f'{size} bytes, {speed:.0f} notes/s, {clf.digest}')
    return results

if __name__ == '__main__': main()
