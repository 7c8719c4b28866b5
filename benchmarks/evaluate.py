"""Judge a model by instruments of Fluid (R3) that its training left out, by notes held out of those it knows, or by recorded notes: results/evaluate-*.json.

    OMP_NUM_THREADS=1 python benchmarks/evaluate.py --model runs/small --n 256 --out runs/report --result results/evaluate-small-fluid.json [--real ../shared/data/notes | --seen]

Training notes of Fluid (R3), pitches 36-96, stand behind the memoriser and the class mean in all of them. Minutes on one core; with several threads on a busy machine it is slower, not faster.
"""
import argparse, json
from pathlib import Path
from mars.data import NSynth, SoundFontNotes
from mars.pipeline import find_model
from mars.report import Sides, compact_report, evaluate_model, real_sides, report_line

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='small', help='a run folder, or the name of released weights')
    p.add_argument('--name', help='what the report calls the model')
    which = p.add_mutually_exclusive_group()
    which.add_argument('--real', type=Path, help='recorded notes in the layout of NSynth; without it instruments of Fluid')
    which.add_argument('--seen', action='store_true', help='notes of the instruments to learn from that the training held out')
    p.add_argument('--n', type=int, default=256, help='notes of each row')
    p.add_argument('--out', type=Path, required=True, help='folder of the report')
    p.add_argument('--result', type=Path, help='a JSON file for the short form')
    p.add_argument('--device', help='cpu, cuda or mps; if not given, the first that is there of cuda, mps and cpu')
    a = p.parse_args(argv)
    sides, data = real_sides(SoundFontNotes(pitches=range(36, 97))), 'Fluid (R3), pitches 36-96'
    if a.seen:
        held = json.loads((find_model(a.model)/'config.json').read_text())['info'].get('data', {}).get('hold_out')
        if not held: raise SystemExit(f'the training of {a.model} held out no notes of the instruments that it learned from; see --hold-out of scripts/release.py')
        rest, seen = sides.train.hold_out(held)
        sides, data = Sides(seen, sides.test, rest, f'reference: notes of the instruments to learn from that were held out, {held:.0%} of their pitches; validation: instruments that were held out'), 'Fluid (R3), held-out pitches of seen instruments'
    if a.real:
        real = NSynth(a.real, pitches=range(36, 97))
        sides = real_sides(real.select([not e.get('x_name', '').startswith('fluid-') for e in real.examples.values()]), sides.train) # those are Fluid's own sounds
        data = 'recorded notes, pitches 36-96, without renderings of Fluid'
    about = dict(names=dict(model=a.name or Path(a.model).name, data=data, train_data='Fluid (R3), the training side'), split=sides.said)
    result = evaluate_model(a.model, sides.test, a.n, a.out, sides.train, sides.valid, device=a.device, progress=True, about=about)
    if a.result: a.result.write_text(compact_report(result), encoding='utf-8')
    print(report_line(result, a.out))

if __name__ == '__main__': main()
