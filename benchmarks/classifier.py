"""Train, measure and release the classifier of the package: mars/weights/classifier/ and results/classifier.json.

    OMP_NUM_THREADS=1 python benchmarks/classifier.py --out runs/classifier [--real ../shared/data/notes] [--steps 3000] [--resume]

Notes of Fluid (R3) and, where the folder is there, recorded ones; no instrument is on two sides. About half an hour on one core.
"""
import argparse, json, time
from pathlib import Path
import torch
from mars.evaluation.classifier import measure_classifier, train_classifier
from mars.parts.classifier import Classifier, ClassifierConfig
from mars.data import NSynth, SoundFontNotes
from mars.pipeline import find_model
from mars.stft import LogSpectrogram
from mars.train import TrainConfig
from mars.training.log import versions

ROOT = Path(__file__).resolve().parent.parent
MIDDLE, ENDS = dict(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127)), dict(pitches=(*range(21, 36), *range(97, 109)), velocities=(50, 100))
THIN = (25, 75, 127) # what training takes of the middle register: neighbouring velocities mostly share a sample
# Recorded instruments, by the source's names. Those of the test come from other repositories than the rest, or at least are other instruments
# of a repository; the stops of the one organ and the singers of one session are on several sides. Fluid's renderings are left out.
REAL_TEST = ('growlybass', 'killer-bass', 'dsm-bass-pizz', 'dsm-bass-arco', 'emilyguitar', 'salamander', 'cp80', 'unitra-all_all_all', 'unitra-flutes', 'bear-sax',
             'weresax', 'tonejs-violin', 'berklee-femalevoices_oo2', 'berklee-malevoice_aa', 'ixox', 'war-tuba', 'tonejs-xylophone', 'cowsynth-natural', 'cowsynth-tuned')
REAL_VALID = ('swagbass', 'martin', 'pianet', 'unitra-violin', 'mtg-sop', 'berklee-malevoice_oo')
FLUID = ('fluid-piano', 'fluid-e_piano')

def soundfont_sides(middle, ends):
    "The split of the middle register, which training of the models uses too, and the outer octaves of the same instruments with it."
    sides = middle.split_by_instrument(valid=0.06, test=0.14, seed=0)
    return [side + part if len(part := ends.select([n.instrument in set(side.instruments) for n in ends.notes])) else side for side in sides]

def real_sides(notes):
    "Recorded notes by the lists above."
    names = {note.instrument: e['x_name'] for note, e in zip(notes.notes, notes.examples.values())}
    side = lambda name: 'test' if name in REAL_TEST else 'valid' if name in REAL_VALID else None if name in FLUID else 'train'
    return [notes.select([side(names[n.instrument]) == s for n in notes.notes]) for s in ('train', 'valid', 'test')]

def through(ls, n_iter): # what Griffin-Lim leaves of a wave
    return lambda waves: ls.decode(ls.encode(waves), n_iter=n_iter)

def every(notes, n):
    "At most n notes, evenly spaced."
    return notes.select(range(0, len(notes), -(-len(notes)//n)))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, required=True, help='run folder')
    p.add_argument('--real', type=Path, default=ROOT/'../shared/data/notes', help='recorded notes in the layout of NSynth')
    p.add_argument('--preset', default='small')
    p.add_argument('--steps', type=int, default=3000)
    p.add_argument('--lr', type=float, default=2e-3)
    p.add_argument('--griffin-lim', type=int, default=120, help='test notes that are measured after Griffin-Lim as well')
    p.add_argument('--weights', type=Path, help='where the half precision goes; mars/weights/classifier for a release')
    p.add_argument('--result', type=Path, help='a JSON file; results/classifier.json for a release')
    p.add_argument('--resume', action='store_true')
    a = p.parse_args(argv)
    middle, ends = SoundFontNotes(**MIDDLE), SoundFontNotes(**ENDS)
    (train, valid, _), (_, _, test) = soundfont_sides(middle.filter(velocities=THIN), ends), soundfont_sides(middle, ends)
    tests = dict(soundfont=test)
    said = dict(soundfont=dict(font=ends.fonts[0].info['name'], licence='MIT', train=len(train), valid=len(valid), test=len(test), split='valid 0.06, test 0.14, seed 0'))
    valid = every(valid, 1500)
    if a.real.exists():
        parts = real_sides(NSynth(a.real))
        said['real'] = dict(credits=[f'{c.source} ({c.licence})' for c in parts[0].credits], train=len(parts[0]), valid=len(parts[1]), test=len(parts[2]), repeats=3, test_instruments=list(REAL_TEST), valid_instruments=list(REAL_VALID), left_out=list(FLUID))
        train, valid, tests['real'] = train + parts[0] + parts[0] + parts[0], valid + parts[1], parts[2]
    print(f'{len(train)} training notes (recorded ones three times), {len(valid)} for validation, {({k: len(v) for k, v in tests.items()})} for the test', flush=True)
    began, cfg = time.perf_counter(), ClassifierConfig.preset(a.preset)
    settings = TrainConfig.preset(a.preset, 'classifier', steps=a.steps, lr=a.lr, precision='bf16', save_every=500, log_every=50)
    clf = train_classifier(train, valid, settings, cfg, a.out, progress=False, info=dict(data=said), valid_every=250, resume=a.resume)
    clf.info['train_seconds'] = time.perf_counter() - began
    release(clf, valid, tests, a)

def notes_per_second(clf, notes):
    "Of CPU time, which is what one quiet core would give; the best of five."
    waves, took = notes.batch(range(128))[0], []
    for _ in range(5):
        start = time.process_time()
        clf.judge(waves)
        took.append(time.process_time() - start)
    return len(waves)/min(took)

def release(clf, valid, tests, a):
    folder = a.weights or a.out/'half'
    clf.save_pretrained(folder, half=True)
    clf = Classifier.from_pretrained(folder)
    ls = LogSpectrogram()
    results = dict(valid=measure_classifier(clf, valid), **{k: measure_classifier(clf, v) for k, v in tests.items()})
    for k, v in tests.items(): results[f'{k}_griffinlim'] = measure_classifier(clf, every(v, a.griffin_lim), change=through(ls, 32))
    clf.info['accuracy'] = {k: {m: round(r[m], 4) for m in ('pitch', 'pitch_1', 'pitch_octave', 'family', 'family_by_instrument', 'source')} | dict(notes=r['notes'], instruments=r['instruments']) for k, r in results.items()}
    clf.info['calibration'] = {k: {h: round(v, 4) for h, v in r['ece'].items()} for k, r in results.items()}
    clf.save_pretrained(folder, half=True)
    size = (folder/'classifier.safetensors').stat().st_size
    speed = notes_per_second(clf, tests['soundfont'])
    out = dict(describe=clf.describe(), size=size, notes_per_second=speed, versions=versions(torch.device('cpu')), results=results)
    (a.result or a.out/'result.json').write_text(json.dumps(out, indent=1))
    for k, r in results.items(): print(f"{k:22}{r['notes']:6} notes  pitch {r['pitch']:.3f} +-1 {r['pitch_1']:.3f} octave {r['pitch_octave']:.3f}  family {r['family']:.3f} by instrument {r['family_by_instrument']:.3f}  source {r['source']:.3f}"
                                       f"  ece {r['ece_raw']['pitch']:.3f}->{r['ece']['pitch']:.3f}, {r['ece_raw']['family']:.3f}->{r['ece']['family']:.3f}")
    print(f'{size} bytes, {speed:.0f} notes/s, {clf.digest}')

if __name__ == '__main__': main()
