"""Evaluate a model on held-out notes:  python benchmarks/evaluate.py --out runs/report [--real FOLDER | --seen]

The reference set is held-out instruments of Fluid (R3), recorded notes (--real, a folder in NSynth's layout) or
held-out pitches of training instruments (--seen). Class means and training copies use training notes of Fluid (R3),
pitches 36 to 96, in all three cases. Writes the report into --out and prints one line of it. The committed results are
results/evaluation/small-{fluid,real,seen}.json.
"""
import argparse, json
from pathlib import Path
from mars.data import NSynth, SoundFontNotes
from mars.pipeline import find_model
from mars.evaluation.report import Splits, compact_report, evaluate_model, load_model, make_splits, summary_line

PITCHES = range(36, 97)

def seen_splits(model, splits):
    "Splits whose reference is held-out pitches of the training instruments; SystemExit if training held out none."
    config = json.loads((find_model(model)/'config.json').read_text())
    share = config['info'].get('data', {}).get('hold_out')
    if not share:
        raise SystemExit(f'the training of {model} held out no notes of its training instruments; '
                         'see --hold-out of scripts/reproduce_weights.py')
    rest, held_out = splits.train.split_by_pitch(share)
    description = (f'reference: held-out notes of the training instruments, {share:.0%} of their pitches; '
                   'validation: instruments that were held out')
    return Splits(held_out, splits.test, rest, description)

def real_splits(folder, splits):
    "Splits whose reference is the recorded notes of a folder, without its renderings of Fluid."
    notes = NSynth(folder, pitches=PITCHES)
    recorded = [not e.get('x_name', '').startswith('fluid-') for e in notes.examples.values()]
    return make_splits(notes.select(recorded), splits.train)

def choose_splits(args):
    "The splits of a command and their name in the report."
    splits = make_splits(SoundFontNotes(pitches=PITCHES))
    if args.seen: return seen_splits(args.model, splits), 'Fluid (R3), held-out pitches of seen instruments'
    if args.real: return real_splits(args.real, splits), 'recorded notes, pitches 36-96, without renderings of Fluid'
    return splits, 'Fluid (R3), pitches 36-96'

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--name', help='name of the model in the report; default: the last part of --model')
    reference = ap.add_mutually_exclusive_group()
    reference.add_argument('--real', type=Path, help="folder of recorded notes in NSynth's layout; default: Fluid (R3)")
    reference.add_argument('--seen', action='store_true', help='held-out pitches of the training instruments')
    ap.add_argument('--n', type=int, default=256, help='notes of each row, at least 2; default: %(default)s')
    ap.add_argument('--n-f0', type=int, default=64,
                    help='notes of each row whose pitch is measured; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='folder of the report')
    ap.add_argument('--result', type=Path, help='a JSON file for the compact report')
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    splits, data = choose_splits(args)
    names = dict(model=args.name or Path(args.model).name, data=data, train_data='Fluid (R3), the training side')
    model = load_model(args.model, args.device)
    result = evaluate_model(model, splits, args.n, args.out, progress=True, about=dict(names=names),
                            n_f0=args.n_f0)
    if args.result: args.result.write_text(compact_report(result), encoding='utf-8')
    print(summary_line(result, args.out))

if __name__ == '__main__': main()
