"""Measure at which scale the pitch is decided:  python benchmarks/scale_ablation.py --model small --out results/evaluation/scale-ablation-small.json

Notes of validation instruments are encoded. For every k the first k maps are given, the model samples the others from the notes' labels with its
own sampling settings, and the result is evaluated as in nbs/studies/prediction: k = 0 is generation, all maps are the reconstruction.
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

def sample_finer_scales(m, tokens, labels, k, seed=0, size=32, **settings): # -> images
    "Keep the first k maps of every note and sample the rest."
    images = []
    for i in range(0, len(tokens[0]), size):
        given = [t[i:i+size] for t in tokens]
        known = {name: v[i:i+size] for name, v in labels.items() if name in m.var.label_embed.sizes}
        latent = m.tokenizer.quantizer.decode(given)
        new = edit_tokens(m.var, latent, free_tokens(m, k), known, seed=seed, first=i, **settings)
        images.append(m.tokens_to_image([*given[:k], *new[k:]]))
    return torch.cat(images)

def main(argv=None, notes=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='small', help='a run folder, or the name of released weights')
    p.add_argument('--n', type=int, default=128, help='notes')
    p.add_argument('--device', default='cpu')
    p.add_argument('--out', type=Path, required=True, help='a JSON file')
    a = p.parse_args(argv)
    m = Mars.from_pretrained(a.model, a.device)
    notes = make_splits(SoundFontNotes(pitches=range(36, 97), label='key')).valid if notes is None else notes
    data = study_data(m, notes.select(evenly_spaced(torch.arange(len(notes)), a.n)))
    (tokens, labels), settings, rows = data.sets['held_out'], m.sampling({}), []
    for k in range(len(tokens) + 1):
        scores = data.evaluator(sample_finer_scales(m, tokens, labels, k, **settings))
        rows.append(dict(n_given=k, tokens=sum(m.var.lengths[:k]), **{s: scores[s] for s in SCORES}))
        print(*(f'{name} {v:.3g}' for name, v in rows[-1].items()), flush=True)
    real = {s: data.info['real'][s] for s in SCORES}
    result = dict(info=versions(m.device), model=str(a.model), notes=len(tokens[0]), sampling=settings, real=real, rows=rows)
    write_atomic(a.out, json.dumps(result, indent=1))
    return rows

if __name__ == '__main__': main()
