"""How to encode longer sounds and higher rates (06_ablations, section 2):  python benchmarks/growth.py --steps 2000

Trains the tokenizers of the experiment `growth`: 4 s at 16 kHz, and 8 s, 16 s and 44.1 kHz each with CMX, with larger
rectangular patches, and with tokens that grow in proportion. Every finished variant is kept in --folder, and the next
call continues with the others; a finished seed is added to --out. The notes are those of benchmarks/ablations.py.
"""
import argparse, json
from pathlib import Path
from ablations import RESULTS, training_notes
from mars.ablations import add_result, check_results_file, run_experiment, summary
from mars.parts.files import make_folder, write_atomic

COLUMNS = 'tokens', 'kbps', 'parameters', 'gflop', 'memory_ratio', 'db_active', 'attack_ms', 'seconds'

def read_finished(file, settings):
    "Finished variants of a seed; ValueError for those of other settings."
    if not file.exists(): return {}
    stored = json.loads(file.read_text())
    if stored['settings'] != settings:
        raise ValueError(f'{file} holds variants of other settings; give another --folder')
    return stored['variants']

def run_seed(args, seed, notes):
    "Run or continue the experiment with one seed."
    file = args.folder/f'{args.preset}-{seed}.json'
    settings = dict(preset=args.preset, seed=seed, steps=args.steps, precision=args.precision, notes=len(notes))
    finished = read_finished(file, settings)
    def keep(name, row):
        finished[name] = row
        write_atomic(file, json.dumps(dict(settings=settings, variants=finished)))
        errors = f"{row['db_active']:.2f} dB, attack {row['attack_ms']:.0f} ms"
        print(f"seed {seed}, {name}: {errors}, {row['seconds']:.0f} s", flush=True)
    return run_experiment('growth', args.preset, seed, notes=notes, steps=args.steps, precision=args.precision,
                          finished=dict(finished), on_variant=keep)

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', default='tiny', help='tiny, small or paper; default: %(default)s')
    ap.add_argument('--steps', type=int, default=2000, help='optimiser steps of each variant; default: %(default)s')
    ap.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
    ap.add_argument('--precision', default='fp32', choices=('fp32', 'bf16'), help='default: %(default)s')
    ap.add_argument('--data', help='auto, additive, an .sf2 or .sf3 file, or a folder of notes')
    ap.add_argument('--folder', type=Path, default=Path('runs/growth'),
                    help='of finished variants; default: %(default)s')
    ap.add_argument('--out', type=Path, default=RESULTS/'growth.json', help='a JSON file; default: the committed one')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    check_results_file(args.out, 'growth')
    make_folder(args.folder)
    notes = training_notes(args.data)
    for seed in args.seeds:
        result = run_seed(args, seed, notes)
        add_result(args.out, result)
        columns = [*COLUMNS, *(k for k in next(reversed(result['variants'].values())) if k.startswith('level'))]
        print(summary([result], [c for c in columns if all(c in v for v in result['variants'].values())]).to_string())
    return result

if __name__ == '__main__': main()
