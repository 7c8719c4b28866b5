"""Measure at which scale the pitch is decided:  python benchmarks/scale_ablation.py --model small --out results/evaluation/scale-ablation-small.json

Notes of validation instruments are encoded. For every k the first k maps are kept, the model samples the others from the notes' labels with its
own sampling settings, and the metrics of nbs/studies/prediction score the result: k = 0 is generation, all maps are the reconstruction.
"""
import argparse, json
from pathlib import Path
import torch
from mars.data import SoundFontNotes
from mars.parts.files import write_whole
from mars.parts.editing import free_tokens, redraw
from mars.pipeline import Mars
from mars.studies.prediction import evenly_spaced, study_data
from mars.evaluation.report import real_sides
from mars.training.log import versions

SCORES = 'frechet', 'pitch', 'octave', 'family', 'density', 'coverage'

def kept(m, tokens, labels, k, seed=0, size=32, **settings): # -> images
    "Keep k maps of every note and sample the rest."
    out = []
    for i in range(0, len(tokens[0]), size):
        mine, said = [t[i:i+size] for t in tokens], {name: v[i:i+size] for name, v in labels.items() if name in m.var.labels.sizes}
        new = redraw(m.var, m.tokenizer.quantizer.decode(mine), free_tokens(m, k), said, seed=seed, first=i, **settings)
        out.append(m.tokens_to_image([*mine[:k], *new[k:]]))
    return torch.cat(out)

def main(argv=None, notes=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='small', help='a run folder, or the name of released weights')
    p.add_argument('--n', type=int, default=128, help='notes')
    p.add_argument('--device', default='cpu')
    p.add_argument('--out', type=Path, required=True, help='a JSON file')
    a = p.parse_args(argv)
    m = Mars.from_pretrained(a.model, a.device)
    notes = real_sides(SoundFontNotes(pitches=range(36, 97))).valid if notes is None else notes
    data = study_data(m, notes.select(evenly_spaced(torch.arange(len(notes)), a.n)))
    (tokens, labels), settings = data.sets['held_out'], m.sampling({})
    found = []
    for k in range(len(tokens) + 1):
        said = data.evaluator(kept(m, tokens, labels, k, **settings))
        found.append(dict(kept=k, tokens=sum(m.var.lengths[:k]), **{s: said[s] for s in SCORES}))
        print(*(f'{name} {v:.3g}' for name, v in found[-1].items()), flush=True)
    write_whole(a.out, json.dumps(dict(info=versions(m.device), model=str(a.model), notes=len(tokens[0]), sampling=settings, real={s: data.info['real'][s] for s in SCORES}, rows=found), indent=1))
    return found

if __name__ == '__main__': main()
