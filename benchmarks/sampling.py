"""Choose a model's sampling settings:  python benchmarks/sampling.py --model FOLDER --out FILE.json [--write]

Each of `SETTINGS` samples notes with the labels of the same notes of Fluid (R3), the validation side of the split of
the report, and the metrics of nbs/studies/prediction evaluate them, averaged over seeds. Prints a line for each setting
and seed; writes the averages of all settings to --out (committed: results/evaluation/sampling-small.json). --write
stores the choice in the model's config.json.

The choice is the setting with the best pitch accuracy among those whose Fréchet distance is at most that of real
training notes with the same labels (or at most 1.1 times the least, if that is more). The bound by training notes was
added after a first look at the results. The standard error of a pitch accuracy of 0.8 on 128 notes is 0.035, so several
settings are usually equally good.
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

SETTINGS = [
    dict(cfg_scale=1., top_k=20), dict(cfg_scale=2., top_k=20), dict(cfg_scale=3., top_k=20),
    dict(cfg_scale=1., top_k=20, cfg_ramp=False), dict(cfg_scale=2., top_k=20, cfg_ramp=False),
    dict(cfg_scale=3., top_k=20, cfg_ramp=False), dict(cfg_scale=2., top_p=.9), dict(cfg_scale=2., temperature=.8),
    dict(cfg_scale=2., top_k=20, temperature=.8), dict(cfg_scale=1., top_k=20, temperature=.8, cfg_ramp=False),
    dict(cfg_scale=2., top_k=20, temperature=.8, cfg_ramp=False)]
REAL_SCORES = 'frechet', 'pitch', 'octave', 'family'
SCORES = (*REAL_SCORES, 'density', 'coverage')

def setting_name(setting): return ' '.join(f'{k}={v:g}' for k, v in setting.items())

def score_training_notes(data, train):
    "Scores of real training notes with the labels of the evaluated notes; None where there are too few."
    notes = select_matching(train, data.evaluator.labels, 'training copies')
    if isinstance(notes, str): return None
    device = data.model.device
    return data.evaluator(torch.cat([data.model.wave_to_image(w.to(device)) for _, w in iter_batches(notes, 64)]))

def choose(variants, bound=0.):
    "Name of the setting with the best pitch accuracy among Fréchet distances up to `bound`; variants: name -> scores."
    bound = max(bound, 1.1*min(scores['frechet'] for scores in variants.values()))
    near = {name: scores for name, scores in variants.items() if scores['frechet'] <= bound}
    return max(near, key=lambda name: (near[name]['pitch'], -near[name]['frechet']))

def run_sweeps(data, settings, seeds):
    "Scores of each setting (name -> scores), means over seeds."
    by_name, runs = {setting_name(s): s for s in settings}, []
    for seed in range(seeds):
        runs.append(sweep('sampling', data, by_name, 'small', seed, 0)['variants'])
        for name, scores in runs[-1].items():
            print(f'{seed}  {name:32}', *(f'{k} {scores[k]:.3g}' for k in SCORES), flush=True)
    return {name: {k: statistics.mean(run[name][k] for run in runs) for k in SCORES} for name in by_name}

def write_setting(folder, setting):
    "Store the setting in the model's config.json."
    config = json.loads((folder/'config.json').read_text())
    config['info']['sampling'] = setting
    write_atomic(folder/'config.json', json.dumps(config, indent=1))

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--n', type=int, default=192, help='notes for each setting and seed; default: %(default)s')
    ap.add_argument('--seeds', type=int, default=2, help='number of seeds, from 0; default: %(default)s')
    ap.add_argument('--device', default='cpu', help='cpu, cuda or mps; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    ap.add_argument('--write', action='store_true', help="store the choice in the model's config.json")
    return ap

def main(argv=None, notes=None, settings=SETTINGS):
    "notes: validation notes in place of Fluid's, without training notes to compare with."
    args = parser().parse_args(argv)
    folder = find_model(args.model)
    m = Mars.from_pretrained(folder, args.device)
    splits = make_splits(SoundFontNotes(pitches=range(36, 97))) if notes is None else None
    notes = splits.valid if splits else notes
    data = study_data(m, notes.select(evenly_spaced(torch.arange(len(notes)), args.n)))
    training_notes = score_training_notes(data, splits.train) if splits else None
    means = run_sweeps(data, settings, args.seeds)
    chosen = choose(means, training_notes['frechet'] if training_notes else 0.)
    setting = next(s for s in settings if setting_name(s) == chosen)
    real = dict(real=data.info['real'], reconstructed=data.info['reconstructed'], training_notes=training_notes)
    real = {name: {k: scores[k] for k in REAL_SCORES} for name, scores in real.items() if scores}
    result = dict(info=versions(m.device), model=str(args.model), notes=len(data.evaluator.features), seeds=args.seeds,
                  chosen=setting, variants=means, **real)
    write_atomic(args.out, json.dumps(result, indent=1))
    if args.write: write_setting(folder, setting)
    print('chosen:', chosen)
    return setting

if __name__ == '__main__': main()
