"""Evaluate a model on held-out notes:  python benchmarks/evaluate.py --out runs/report [--real FOLDER | --seen] [--result FILE.json]

The reference is held-out instruments of Fluid (R3), or recorded notes (--real, a folder in NSynth's layout), or held-out pitches
of training instruments (--seen). Class means and training copies use training notes of Fluid (R3), pitches 36-96, in all three.
The committed results are results/evaluation/small-{fluid,real,seen}.json.
"""
import argparse, json
from pathlib import Path
from mars.data import NSynth, SoundFontNotes
from mars.pipeline import find_model
from mars.evaluation.report import Splits, compact_report, evaluate_model, load_model, make_splits, summary_line

PITCHES = range(36, 97)

def seen_splits(model, splits): # -> Splits whose reference is held-out pitches of training instruments
    config = json.loads((find_model(model)/'config.json').read_text())
    share = config['info'].get('data', {}).get('hold_out')
    if not share:
        raise SystemExit(f'the training of {model} held out no notes of its training instruments; '
                         'see --hold-out of scripts/reproduce_weights.py')
    rest, held_out = splits.train.split_by_pitch(share)
    description = (f'reference: held-out notes of the training instruments, {share:.0%} of their pitches; '
                   'validation: instruments that were held out')
    return Splits(held_out, splits.test, rest, description)

def real_splits(folder, splits): # -> Splits whose reference is recorded notes
    notes = NSynth(folder, pitches=PITCHES)
    own = [not e.get('x_name', '').startswith('fluid-') for e in notes.examples.values()] # Fluid's own sounds are left out
    return make_splits(notes.select(own), splits.train)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='small', help='a run folder, or the name of released weights')
    p.add_argument('--name', help='name of the model in the report')
    which = p.add_mutually_exclusive_group()
    which.add_argument('--real', type=Path, help='recorded notes in the layout of NSynth; without it, instruments of Fluid')
    which.add_argument('--seen', action='store_true', help='held-out pitches of the training instruments')
    p.add_argument('--n', type=int, default=256, help='notes of each row')
    p.add_argument('--out', type=Path, required=True, help='folder of the report')
    p.add_argument('--result', type=Path, help='a JSON file for the compact report')
    p.add_argument('--device', help='cpu, cuda or mps; the default is the first available of cuda, mps and cpu')
    a = p.parse_args(argv)
    splits, data = make_splits(SoundFontNotes(pitches=PITCHES, label='key')), 'Fluid (R3), pitches 36-96'
    if a.seen: splits, data = seen_splits(a.model, splits), 'Fluid (R3), held-out pitches of seen instruments'
    if a.real:
        splits, data = real_splits(a.real, splits), 'recorded notes, pitches 36-96, without renderings of Fluid'
    names = dict(model=a.name or Path(a.model).name, data=data, train_data='Fluid (R3), the training side')
    model = load_model(a.model, a.device)
    result = evaluate_model(model, splits, a.n, a.out, progress=True, about=dict(names=names))
    if a.result: a.result.write_text(compact_report(result), encoding='utf-8')
    print(summary_line(result, a.out))

if __name__ == '__main__': main()
