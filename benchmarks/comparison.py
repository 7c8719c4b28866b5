"""All systems on notes of SoundFonts, at equal compute:  python benchmarks/comparison.py --tokenizers DIR [--seeds 1]

Writes results/comparison-<preset>-<seed>.json, and for the first seed a few notes of each row as MP3 in results/clips; baselines/comparison.ipynb reads both.
The three tokenizers are trained once, into DIR, unless they lie there. Times are meant as ratios inside one file.

At `tiny` the notes are two octaves of one velocity of the SoundFont that is found. On a GPU, --preset small takes the notes and the split
of scripts/release.py (--data, --split), and processes beside each other share the work:

    python benchmarks/comparison.py ... --only layouts                      # the sources' layouts, before anything is trained
    python benchmarks/comparison.py ... --only sat --seconds 200 &          # one tokenizer each; that of MARS comes from scripts/release.py
    python benchmarks/comparison.py ... --only rvq --seconds 200 &
    python benchmarks/comparison.py ... --only 'AAR, next-scale;MAGNeT' &   # some of the systems, kept in DIR/systems
    python benchmarks/comparison.py ...                                     # whatever is left, and the judge
"""
import argparse, json, sys, time
from pathlib import Path
import torch
from mars.baselines.aar import SATConfig, rvq, scale_lengths, train_sat
from mars.ablations import run_experiment
from mars.baselines.comparison import SYSTEMS, keep_system, layout_times, shared_data, train_system
from mars.data import SoundFontNotes
from mars.train import TrainConfig
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'scripts'))
from release import in_time, open_data, split_by_names

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--tokenizers', type=Path, required=True, help='folder of the tokenizers mars, sat and rvq')
ap.add_argument('--preset', default='tiny')
ap.add_argument('--seeds', type=int, default=1)
ap.add_argument('--budget', type=float, help="floating-point operations of each system's training")
ap.add_argument('--rows', type=int, default=0, help='positions that the trunk sees in a step of a system; 0 is 32 notes')
ap.add_argument('--repeats', type=int, default=3, help='of each timing')
ap.add_argument('--n', type=int, default=120, help='notes that are judged')
ap.add_argument('--n-f0', type=int, default=64, help='notes whose pitch is measured by pYIN')
ap.add_argument('--data', action='append', help='as for scripts/release.py')
ap.add_argument('--split', type=Path, help='as for scripts/release.py')
ap.add_argument('--most', type=int, default=10**9, help='training notes of --data that are used, spread evenly')
ap.add_argument('--device', default='cpu')
ap.add_argument('--only', help="'layouts', 'sat', 'rvq', or names of systems between semicolons")
ap.add_argument('--lr', type=float, help='of the systems')
ap.add_argument('--seconds', type=float, help='of training one tokenizer')
ap.add_argument('--quick', action='store_true', help='a dozen notes, to rehearse a command')
ap.add_argument('--out', type=Path, default=Path(__file__).resolve().parent.parent/'results')
a = ap.parse_args()

def write(name, x): (a.out/name).write_text(json.dumps(x, indent=1))

if a.only == 'layouts':
    rows, about = [], dict(device=torch.cuda.get_device_name() if a.device == 'cuda' else 'CPU', torch=torch.__version__)
    for size, how, n in (('small', 'plain', 1), ('small', 'guided', 1), ('tiny', 'plain', 1), ('small', 'plain', 64)):
        rows.append(dict(size=size, how=how, notes=n, layouts=layout_times(size, a.device, a.repeats, n, how == 'guided')))
        write('layouts.json', dict(about, rows=rows))
    raise SystemExit(print(json.dumps(rows)))
sides = None
if a.data:
    train_notes, valid, test = split_by_names(open_data(a.data, a.quick), a.split) if a.split else open_data(a.data, a.quick).split_by_instrument(valid=.06, test=.14, seed=0)
    sides = train_notes.select([*range(0, len(train_notes), max(1, -(-len(train_notes)//a.most)))]), test
notes = None if sides else SoundFontNotes(pitches=range(36, 97), velocities=(25, 50, 75, 100, 127)).filter(velocities=(100,)).filter(pitches=range(48, 72))
if a.only in ('sat', 'rvq'):
    cfg = SATConfig.preset(a.preset, **(rvq(6) if a.only == 'rvq' else dict(lengths=scale_lengths(200))))
    train, log = TrainConfig.preset(a.preset, 'sat', **(dict(log_every=25, save_every=0) if a.seconds else {})), None
    train = in_time(a.only, a.seconds, train, lambda notes, t, log: train_sat(notes, t, cfg, None, a.device, progress=False, log=log), train_notes)
    train_sat(train_notes, train, cfg, a.tokenizers/a.only, a.device, progress=False)
    raise SystemExit
data = shared_data(a.preset, notes, a.tokenizers, n=a.n, device=a.device, sides=sides, steps=dict(mars=400, sat=260, rvq=260) if a.preset == 'tiny' else {})
more = dict(lr=a.lr) if a.lr else {}
if a.only:
    for name in a.only.split(';'):
        start = time.perf_counter()
        keep_system(*train_system(SYSTEMS[name], data, a.budget, rows=a.rows, **more), a.tokenizers/'systems'/name)
        print(f'{name}: {time.perf_counter()-start:.0f} s', flush=True)
    raise SystemExit
gpu = dict(batches=(1, 16, 256)) if a.device == 'cuda' else {}
for seed in range(a.seeds):
    start = time.perf_counter()
    first = dict(clips=a.out/'clips', layouts=() if gpu else ('tiny', 'small')) if not seed else {}
    run_experiment('comparison', a.preset, seed, a.out/f'comparison-{a.preset}-{seed}.json', data=data, budget=a.budget, repeats=a.repeats, device=a.device, trained=a.tokenizers/'systems', rows=a.rows, settings=more, n_f0=a.n_f0, **first, **gpu)
    print(f'seed {seed}: {time.perf_counter()-start:.0f} s', flush=True)
