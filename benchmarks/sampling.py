"""Choose how a model samples, on validation instruments:  python benchmarks/sampling.py --model runs/small/weights/small --out results/evaluation/sampling-small.json --write

Every setting samples notes with the labels of the same notes of Fluid (R3), the validation side of the report's split, and the metrics of
nbs/studies/prediction score them, as means over the seeds. Among the settings whose Fréchet distance is at most that of real training notes with
the same labels (or at most 1.1 times the least, if that is more), the one with the best pitch accuracy is chosen. The bound by training notes was
added after a first look at these results. The standard error of a pitch accuracy of 0.8 on 128 notes is 0.035, so several settings are
usually equally good; the file has all of them. --write puts the choice into the model's config.json.
"""
import argparse, json, statistics
from pathlib import Path
import torch
from mars.data import SoundFontNotes
from mars.parts.files import write_atomic
from mars.pipeline import Mars, find_model
from mars.studies.prediction import evenly_spaced, study_data, sweep
from mars.evaluation.protocol import iter_batches
from mars.evaluation.report import select_matching, make_splits
from mars.training.log import versions

WAYS = [*(dict(cfg_scale=s, top_k=20) for s in (1., 2., 3.)), *(dict(cfg_scale=s, top_k=20, cfg_ramp=False) for s in (1., 2., 3.)),
        dict(cfg_scale=2., top_p=.9), dict(cfg_scale=2., temperature=.8), dict(cfg_scale=2., top_k=20, temperature=.8), *(dict(cfg_scale=s, top_k=20, temperature=.8, cfg_ramp=False) for s in (1., 2.))]

def name_of(way): return ' '.join(f'{k}={v:g}' for k, v in way.items())

def copies(data, train): # -> scores of real training notes with the labels of the judge's notes, or None where there are too few
    notes = select_matching(train, data.evaluator.labels, 'training copies')
    return None if isinstance(notes, str) else data.evaluator(torch.cat([data.model.wave_to_image(w.to(data.model.device)) for _, w in iter_batches(notes, 64)]))

def choose(variants, enough=0.): # name -> scores, means over seeds -> name
    "The rule of the docstring."
    enough = max(enough, 1.1*min(a['frechet'] for a in variants.values()))
    return max((k for k, a in variants.items() if a['frechet'] <= enough), key=lambda k: (variants[k]['pitch'], -variants[k]['frechet']))

def main(argv=None, notes=None, ways=WAYS):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--model', default='small', help='a run folder, or the name of released weights')
    p.add_argument('--n', type=int, default=192, help='notes of each draw')
    p.add_argument('--seeds', type=int, default=2)
    p.add_argument('--device', default='cpu')
    p.add_argument('--out', type=Path, required=True, help='a JSON file')
    p.add_argument('--write', action='store_true', help='put the choice into config.json')
    a = p.parse_args(argv)
    folder = find_model(a.model)
    m = Mars.from_pretrained(folder, a.device)
    sides = make_splits(SoundFontNotes(pitches=range(36, 97), label='key')) if notes is None else None
    notes = sides.valid if sides else notes
    data = study_data(m, notes.select(evenly_spaced(torch.arange(len(notes)), a.n)))
    perfect, runs = sides and copies(data, sides.train), []
    for seed in range(a.seeds):
        runs.append(sweep('sampling', data, {name_of(w): w for w in ways}, 'small', seed, 0))
        for k, x in runs[-1]['variants'].items(): print(f"{seed}  {k:32} Frechet {x['frechet']:6.1f}  pitch {x['pitch']:.3f}  family {x['family']:.3f}  density {x['density']:.2f}  coverage {x['coverage']:.2f}", flush=True)
    mean = {k: {s: statistics.mean(r['variants'][k][s] for r in runs) for s in ('frechet', 'pitch', 'octave', 'family', 'density', 'coverage')} for k in runs[0]['variants']}
    chosen = choose(mean, perfect['frechet'] if perfect else 0.)
    real = {who: {s: said[s] for s in ('frechet', 'pitch', 'octave', 'family')} for who, said in dict(real=data.info['real'], reconstructed=data.info['reconstructed'], training_notes=perfect).items() if said}
    way = next(w for w in ways if name_of(w) == chosen)
    write_atomic(a.out, json.dumps(dict(about=versions(m.device), model=str(a.model), notes=len(data.evaluator.features), seeds=a.seeds, chosen=way, variants=mean, **real), indent=1))
    if a.write:
        config = json.loads((folder/'config.json').read_text())
        config['info']['sampling'] = way
        write_atomic(folder/'config.json', json.dumps(config, indent=1))
    print('chosen:', chosen)
    return way

if __name__ == '__main__': main()
