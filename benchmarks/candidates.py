"""Measure pitch with and without candidates:  python benchmarks/candidates.py --out results/benchmarks/candidates.json

Generates a note for the labels of each recorded example note (within the model's pitch range) with one and with k
candidates, for several seeds, and prints and writes the share within 50 cents of the requested pitch by
`mars.eval.f0` (pYIN), which does not take part in the choice, and its standard error.
"""
import argparse, json, math
from pathlib import Path
import torch
from mars.data import example_notes
from mars.eval import cents_error, f0
from mars.parts.files import write_atomic
from mars.pipeline import Mars

LABELS = 'pitch', 'family', 'source', 'velocity'

def share_in_tune(m, notes, k, seed, n_iter):
    "Share of the generated notes within 50 cents of the requested pitch."
    labels = {name: [getattr(note, name) for note in notes] for name in LABELS}
    waves = m.generate(**labels, n_candidates=k, seed=seed, n_iter=n_iter, progress=False)
    midi, pitch = torch.tensor([float(f0(w).midi) for w in waves]), torch.tensor(labels['pitch'])
    return sum(abs(float(c)) <= 50 for c in cents_error(midi.numpy(), pitch.numpy()))/len(notes)

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder, or the name of packaged weights')
    ap.add_argument('--k', type=int, default=4, help='candidates of each note, 2 or more')
    ap.add_argument('--n', type=int, help='notes; all example notes in the range by default')
    ap.add_argument('--seeds', type=int, default=3, help='number of seeds')
    ap.add_argument('--n-iter', type=int, default=16, help='iterations of Griffin-Lim')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    a = ap.parse_args(argv)
    m = Mars.from_pretrained(a.model)
    low, high = m.info.get('data', {}).get('pitches', (0, 127))
    notes = [note for _, note in example_notes() if low <= note.pitch <= high][:a.n]
    rows = {str(k): [share_in_tune(m, notes, k, seed, a.n_iter) for seed in range(a.seeds)] for k in (1, a.k)}
    mean = {k: sum(v)/len(v) for k, v in rows.items()}
    error = {k: math.sqrt(p*(1 - p)/(len(notes)*a.seeds)) for k, p in mean.items()}
    result = dict(notes=len(notes), n_iter=a.n_iter, torch=torch.__version__, by_seed=rows, mean=mean, error=error)
    write_atomic(a.out, json.dumps(result, indent=1) + '\n')
    for k, p in mean.items(): print(f'{k} candidates: {p:.3f} ± {error[k]:.3f}, by seed {rows[k]}')
    return result

if __name__ == '__main__': main()
