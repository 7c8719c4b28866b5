"""Measure which scale determines the pitch:  python benchmarks/scale_ablation.py --model small --out FILE.json

Encodes notes of validation instruments. For every k the first k maps are given and the model samples the others from
the notes' labels with its own sampling settings; the result is evaluated as in nbs/studies/prediction. k = 0 is
generation, k = K is reconstruction. Prints a line for each k and writes all rows to --out (committed:
results/evaluation/scale-ablation-small.json).
"""
import argparse, json
from pathlib import Path
import torch
from mars.data import SoundFontNotes
from mars.parts.files import write_atomic
from mars.parts.editing import free_tokens, edit_tokens
from mars.pipeline import Mars
from mars.studies.prediction import evenly_spaced, study_data
from mars.evaluation.report import make_splits
from mars.training.log import versions

SCORES = 'frechet', 'pitch', 'octave', 'family', 'density', 'coverage'

def sample_finer_scales(m, tokens, labels, k, seed=0, size=32, **settings):
    "Keep the first k maps of every note and sample the rest -> images (B, C, H, W)."
    images = []
    for i in range(0, len(tokens[0]), size):
        given = [t[i:i+size] for t in tokens]
        batch_labels = {name: v[i:i+size] for name, v in labels.items() if name in m.var.label_embed.sizes}
        latent = m.tokenizer.quantizer.decode(given)
        new = edit_tokens(m.var, latent, free_tokens(m, k), batch_labels, seed=seed, first=i, **settings)
        images.append(m.tokens_to_image([*given[:k], *new[k:]]))
    return torch.cat(images)

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--n', type=int, default=128, help='notes, at least 2; default: %(default)s')
    ap.add_argument('--device', default='cpu', help='cpu, cuda or mps; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    return ap

def main(argv=None, notes=None):
    "notes: in place of the validation notes of Fluid (R3)."
    args = parser().parse_args(argv)
    m = Mars.from_pretrained(args.model, args.device)
    notes = make_splits(SoundFontNotes(pitches=range(36, 97))).valid if notes is None else notes
    data = study_data(m, notes.select(evenly_spaced(torch.arange(len(notes)), args.n)))
    (tokens, labels), settings, rows = data.sets['held_out'], m.sampling({}), []
    for k in range(len(tokens) + 1):
        scores = data.evaluator(sample_finer_scales(m, tokens, labels, k, **settings))
        rows.append(dict(n_given=k, tokens=sum(m.var.lengths[:k]), **{s: scores[s] for s in SCORES}))
        print(*(f'{name} {v:.3g}' for name, v in rows[-1].items()), flush=True)
    real = {s: data.info['real'][s] for s in SCORES}
    result = dict(info=versions(m.device), model=str(args.model), notes=len(tokens[0]), sampling=settings, real=real,
                  rows=rows)
    write_atomic(args.out, json.dumps(result, indent=1))
    return rows

if __name__ == '__main__': main()
