"""Measure which maps carry the pitch:  python benchmarks/swapped_codes.py --out FILE.json

Reconstructs notes of test instruments of Fluid (R3), the split of the report, and replaces 5, 10 and 20 % of the tokens
of one map at a time by one of the 16 nearest codes; all other maps are kept (`mars.evaluation.report.swap_codes`).
Prints and writes for each map and share the notes within 50 cents of the label by pYIN, the paired change from the
reconstruction, the pitch accuracy of the classifier, the Fréchet distance of the report and the log-mel MSE, with 95 %
intervals over notes. Rows that --out holds from a run with the same settings are not measured again.
"""
import argparse, json
from pathlib import Path
import torch
from mars.data import SoundFontNotes
from mars.evaluation.protocol import MelPCA, NoteSet, format_cell, result_json
from mars.evaluation.report import SwapTest, make_splits, swapped_name
from mars.parts.classifier import Classifier
from mars.parts.files import write_atomic
from mars.pipeline import Mars
from mars.studies.prediction import evenly_spaced
from mars.training.log import versions

SHARES = .2, .1, .05
COLUMNS = 'replaced', 'within', 'within, change', 'classifier', 'Fréchet distance', 'MSE'

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--n', type=int, default=256, help='notes; default: %(default)s')
    ap.add_argument('--n-iter', type=int, default=16, help='iterations of Griffin-Lim; default: %(default)s')
    ap.add_argument('--neighbours', type=int, default=16, help='near codes to choose from; default: %(default)s')
    ap.add_argument('--device', default='cpu', help='cpu, cuda or mps; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    return ap

def main(argv=None, notes=None, shares=SHARES):
    "notes: in place of the test notes of Fluid."
    args = parser().parse_args(argv)
    m = Mars.from_pretrained(args.model, args.device)
    notes = notes or make_splits(SoundFontNotes(pitches=range(36, 97), label='key')).test
    notes = notes.select(evenly_spaced(torch.arange(len(notes)), args.n))
    settings = dict(model=str(args.model), notes=len(notes), n_iter=args.n_iter, neighbours=args.neighbours)
    old = json.loads(args.out.read_text(encoding='utf-8')) if args.out.exists() else {}
    known = {(r['map'], r['share']): r for r in old['rows']} if old.get('settings') == settings else {}
    clf, embedder = Classifier.from_pretrained(device=m.device), MelPCA.load(device=m.device)
    test = SwapTest(m, NoteSet(notes, name='the test notes'), clf, embedder, args.n_iter)
    rows, scales = [], range(len(m.tokenizer.cfg.scales))
    for k, share in [(-1, 0.), *((k, share) for share in shares for k in reversed(scales))]:
        row = known.get((k + 1, share))
        if row is None: row = test.row(k, share, args.neighbours) if k >= 0 else test.reconstruction()
        rows.append(row)
        result = dict(info=versions(m.device), settings=settings, instruments=len(notes.instruments), rows=rows)
        write_atomic(args.out, result_json(result) + '\n')
        done = json.loads(result_json(row))
        print(f'{swapped_name(row):16} {share:4.0%}', *(f'{c} {short(done[c])}' for c in COLUMNS), sep='  ', flush=True)
    return json.loads(args.out.read_text(encoding='utf-8'))

def short(v): # a number, an interval as a dict, or None
    if isinstance(v, dict): return f"{v['value']:.3g} ({v['low']:.3g} to {v['high']:.3g})"
    return format_cell(v)

if __name__ == '__main__': main()
