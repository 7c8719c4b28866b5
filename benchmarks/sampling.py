"""Choose a model's sampling settings:  python benchmarks/sampling.py --model FOLDER --out FILE.json [--write]

Each of `SETTINGS` samples notes with the labels of the same notes of Fluid (R3), the validation side of the split of
the report, and the metrics of nbs/studies/prediction evaluate them, averaged over seeds. Prints a line for each setting
and seed; writes the averages of all settings to --out (committed: results/evaluation/sampling-small.json). --write
stores the choice in the model's config.json.

The choice is the setting with the best pitch accuracy among those whose Fréchet distance is at most that of real
training notes with the same labels (or at most 1.1 times the least, if that is more). The bound by training notes was
added after a first look at the results. The standard error of a pitch accuracy of 0.8 on 128 notes is 0.035, so several
settings are usually equally good.

With --recorded the settings are also evaluated on recorded notes, those of the validation side of scripts/split.json,
and the choice is a compromise: of the settings whose pitch accuracy is within 0.03 of the best on each set of notes,
the one whose largest ratio to the least Fréchet distance of a set is smallest. This rule was written before the first
run on recordings.

With --per-scale the model's own setting is changed on the last maps only: temperature, top-k and guidance of the last
one to three. All settings sample the same notes with the same random numbers, so the differences from the model's
setting are paired (committed: results/evaluation/sampling-per-scale-small.json). Pitch is measured by pYIN and by the
classifier; the Fréchet distance is that of the mel-PCA features to the real notes. Each setting and seed is stored in
--run and is not sampled again. The rule was written before the first run: a setting is better if the interval of its
difference from the model's setting excludes zero in its favour for the share within 50 cents or for the Fréchet
distance, and to its disadvantage for neither. Intervals are normal, over notes, at the level 1 - 0.05/settings. Of
several better settings the one with the largest share within 50 cents is chosen; with none, the model's own stays.
"""
import argparse, json, statistics, sys
from pathlib import Path
from statistics import NormalDist
import numpy as np, torch
from mars.data import SoundFontNotes
from mars.eval import cents_error, density_coverage, f0, frechet_distance, interval, share_interval
from mars.parts.classifier import Classifier
from mars.parts.files import write_atomic
from mars.parts.inference import generate
from mars.parts.sampling import scale_settings
from mars.pipeline import Mars, find_model
from mars.studies.prediction import evenly_spaced, study_data, sweep
from mars.evaluation.protocol import MelPCA, iter_batches
from mars.evaluation.report import select_matching, make_splits
from mars.training.log import versions
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'scripts'))
from reproduce_weights import open_data, split_by_names

SETTINGS = [
    dict(cfg_scale=2., top_k=20, temperature=.8), dict(cfg_scale=2., temperature=.8),
    *(dict(cfg_scale=scale, top_k=20, temperature=.8, cfg_ramp=False) for scale in (.5, 1., 1.5, 2., 3.)),
    *(dict(cfg_scale=scale, temperature=.8, cfg_ramp=False) for scale in (1., 2.))]
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

def choose_for_all(sets, near=0.03):
    "Name of the setting that suits all sets of notes; sets: name -> variants."
    names = next(iter(sets.values())).keys()
    def loss(name, key, sign): # greatest loss against the best of a set
        return max(sign(v[name][key], [scores[key] for scores in v.values()]) for v in sets.values())
    allowed = [n for n in names if loss(n, 'pitch', lambda x, every: max(every) - x) <= near] or [*names]
    return min(allowed, key=lambda n: loss(n, 'frechet', lambda x, every: x/min(every)))

def recorded_notes(paths):
    "The validation side of folders in NSynth's layout."
    patterns = json.loads((ROOT/'scripts'/'split.json').read_text())['model']
    return split_by_names(open_data(paths), patterns)[1]

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

def per_scale_settings(base, K, codebook_size):
    "Name -> setting: the base, and changes of it on the last maps."
    guidance, temperatures, top_ks, top_ps = map(list, zip(*scale_settings(K, codebook_size, **base)))
    base = dict(cfg_scale=guidance, temperature=temperatures, top_k=top_ks, top_p=top_ps)
    def change(n=3, **values): return base | {k: base[k][:K-n] + [v]*n for k, v in values.items()}
    settings = {'packaged': base} | {f'temperature {t:g} on 3': change(temperature=t) for t in (1., .7, .4, .1)}
    settings |= {f'top-k {k} on 3': change(top_k=k) for k in (4, 20, 100)}
    settings |= {f'no guidance on {n}': change(n, cfg_scale=0.) for n in (1, 2, 3)}
    settings['no guidance, temperature 0.1 on 3'] = change(cfg_scale=0., temperature=.1)
    return {name: s for name, s in settings.items() if name == 'packaged' or s != base}

class NoteMeasure:
    "Measure images note by note: f0 in cents from the label, the classifier's pitch and family, mel-PCA features."
    def __init__(self, m, labels):
        self.m, self.labels = m, labels
        self.classifier, self.pca = Classifier.from_pretrained().to(m.device), MelPCA.load(device=m.device)

    @torch.no_grad()
    def __call__(self, image, first): # -> dict of arrays, a row per note
        labels = {k: v[first:first+len(image)].numpy() for k, v in self.labels.items()}
        wave = self.m.image_to_wave(image, n_iter=16, first=first)
        logits = self.classifier.logits(wave)
        hits = {k: logits[k].argmax(1).cpu().numpy() == labels[k] for k in ('pitch', 'family')}
        cents = np.array([cents_error(f0(w).midi, p) for w, p in zip(wave.cpu(), labels['pitch'])])
        return dict(cents=cents, **hits, features=self.pca.embed(wave).cpu().numpy())

    def sample(self, setting, seed, size=32): # -> dict of arrays over all notes
        "Sample a note for each label and measure it."
        m, parts = self.m, []
        for i in range(0, len(self.labels['pitch']), size):
            batch = {k: v[i:i+size] for k, v in self.labels.items() if k in m.var.label_embed.sizes}
            tokens = generate(m.var, batch, len(batch['pitch']), seed=seed, first=i, **setting)
            parts.append(self(m.tokens_to_image(tokens), i))
        return join_parts(parts)

    def real(self, waves, size=32): # int16 (n, N) -> dict of arrays
        "Measure real notes, through the same phase reconstruction."
        blocks = [w.to(self.m.device).float()/32768 for w in waves.split(size)]
        return join_parts([self(self.m.wave_to_image(w), size*i) for i, w in enumerate(blocks)])

def join_parts(parts): return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

def stored(path, n, make):
    "Arrays of n rows of a file, made first where there is none."
    if path.exists():
        with np.load(path) as f: arrays = dict(f)
        if len(arrays['cents']) == n: return arrays
        raise SystemExit(f"{path} holds {len(arrays['cents'])} notes, not {n}: give another folder with --run")
    arrays = make()
    part = path.with_suffix('.part')
    with part.open('wb') as f: np.savez(f, **arrays)
    part.replace(path)
    return arrays

def in_tune(runs): # list of dicts, one a seed -> (n,) share of the seeds within 50 cents; unvoiced is a miss
    return np.mean([np.abs(r['cents']) <= 50 for r in runs], 0)

def frechet_to(reference): # -> function of features (n, seeds, d): mean over seeds of the distance
    return lambda x: statistics.mean(frechet_distance(reference, x[:, s]) for s in range(x.shape[1]))

def features_of(runs): return np.stack([r['features'] for r in runs], 1) # (n, seeds, d)

def pair_with(real, base, runs, levels):
    "Differences of a setting from the base: for each level, metric -> [value, low, high], normal over notes."
    def difference(sets): return frechet_to(sets[0])(sets[1]) - frechet_to(sets[0])(sets[2])
    pitch = interval(torch.mean, in_tune(runs) - in_tune(base), method='bootstrap')
    distance = interval(difference, (real['features'], features_of(runs), features_of(base)), n_resamples=100)
    def ends(v, level):
        half_width = NormalDist().inv_cdf((1 + level)/2)*v.std
        return [v.value, v.value - half_width, v.value + half_width]
    return [dict(within=ends(pitch, level), frechet=ends(distance, level)) for level in levels]

def scores_of(real, runs):
    "Scores of a setting, means over seeds; the share within 50 cents with its interval."
    folded = [np.abs((r['cents'] + 600) % 1200 - 600) <= 50 for r in runs]
    within = share_interval(np.concatenate([np.abs(r['cents']) <= 50 for r in runs]))
    dc = [density_coverage(real['features'], r['features'], k=min(5, len(r['features']) - 1)) for r in runs]
    return dict(seeds=len(runs), within=[within.value, within.low, within.high], folded=float(np.mean(folded)),
                pitch=float(np.mean([r['pitch'] for r in runs])), family=float(np.mean([r['family'] for r in runs])),
                frechet=frechet_to(real['features'])(features_of(runs)),
                density=statistics.mean(x.density for x in dc), coverage=statistics.mean(x.coverage for x in dc))

def choose_paired(pairs, scores):
    "Name of the setting that the rule of --per-scale chooses; pairs: name -> differences from the packaged setting."
    def better(p): return p['within'][1] > 0 or p['frechet'][2] < 0
    def worse(p): return p['within'][2] < 0 or p['frechet'][1] > 0
    names = [name for name, p in pairs.items() if better(p) and not worse(p)]
    return max(names, key=lambda name: (scores[name]['within'][0], -scores[name]['frechet']), default='packaged')

def summarise(real, arms):
    "Scores, paired differences at 95 % and at the level of the rule, and the choice; arms: name -> list of runs."
    level, base = 1 - .05/max(len(arms) - 1, 1), arms['packaged']
    scores = {name: scores_of(real, runs) for name, runs in arms.items()}
    pairs = {name: pair_with(real, base, runs, (.95, level)) for name, runs in arms.items() if name != 'packaged'}
    at_95, at_level = ({name: p[i] for name, p in pairs.items()} for i in (0, 1))
    return dict(level=level, scores=scores, differences_95=at_95, differences=at_level,
                chosen=choose_paired(at_level, scores))

def run_per_scale(args, m, notes):
    "The per-scale settings, one seed after another -> the result, which is written after each seed."
    waves, labels = notes.batch(range(len(notes)))
    measure, (low, high) = NoteMeasure(m, labels), m.info.get('data', {}).get('pitches', (0, 127))
    settings = per_scale_settings(m.sampling({}), len(m.tokenizer.cfg.scales), m.tokenizer.cfg.codebook_size)
    args.run.mkdir(parents=True, exist_ok=True)
    real, arms, result = stored(args.run/'real.npz', len(notes), lambda: measure.real(waves)), {}, {}
    about = dict(info=versions(m.device), model=str(args.model), notes=len(notes), pitches=[low, high],
                 instruments=len({n.instrument for n in notes.notes}), settings=settings)
    for seed in range(args.seeds):
        for i, (name, setting) in enumerate(settings.items()):
            path = args.run/f'{i}-{seed}.npz'
            if args.stored_only and not path.exists(): continue
            arms.setdefault(name, []).append(stored(path, len(notes), lambda: measure.sample(setting, seed)))
            row = scores_of(real, arms[name][-1:])
            print(seed, f'{name:34}', *(f'{k} {np.ravel(v)[0]:.3g}' for k, v in row.items()), flush=True)
        missing = [name for name in settings if name not in arms]
        result = about | dict(real=scores_of(real, [real]), not_measured=missing) | summarise(real, arms)
        write_atomic(args.out, json.dumps(result, indent=1) + '\n')
    print('chosen:', result['chosen'])
    return result

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--model', default='small', help='a run folder or packaged weights; default: %(default)s')
    ap.add_argument('--n', type=int, default=192, help='notes for each setting and seed; default: %(default)s')
    ap.add_argument('--seeds', type=int, default=2, help='number of seeds, from 0; default: %(default)s')
    ap.add_argument('--device', default='cpu', help='cpu, cuda or mps; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    ap.add_argument('--write', action='store_true', help="store the choice in the model's config.json")
    ap.add_argument('--recorded', action='append', default=[], help='a folder of recorded notes; repeatable')
    ap.add_argument('--per-scale', action='store_true', help='change the packaged setting on the last maps')
    ap.add_argument('--run', type=Path, help='with --per-scale: folder of what was measured; default: by --out')
    ap.add_argument('--stored-only', action='store_true', help='with --per-scale: only what --run holds')
    return ap

def main(argv=None, notes=None, settings=SETTINGS):
    "notes: validation notes in place of Fluid's, without training notes to compare with."
    args = parser().parse_args(argv)
    folder = find_model(args.model)
    m = Mars.from_pretrained(folder, args.device)
    splits = make_splits(SoundFontNotes(pitches=range(36, 97))) if notes is None else None
    notes = splits.valid if splits else notes
    if args.per_scale:
        args.run = args.run or args.out.with_suffix('')
        return run_per_scale(args, m, notes.select(evenly_spaced(torch.arange(len(notes)), args.n)))
    def prepare(notes): return study_data(m, notes.select(evenly_spaced(torch.arange(len(notes)), args.n)))
    data = prepare(notes)
    training_notes = score_training_notes(data, splits.train) if splits else None
    means = run_sweeps(data, settings, args.seeds)
    chosen, recorded = choose(means, training_notes['frechet'] if training_notes else 0.), None
    if args.recorded:
        recorded = run_sweeps(prepare(recorded_notes(args.recorded)), settings, args.seeds)
        chosen = choose_for_all(dict(rendered=means, recorded=recorded))
    setting = next(s for s in settings if setting_name(s) == chosen)
    real = dict(real=data.info['real'], reconstructed=data.info['reconstructed'], training_notes=training_notes)
    real = {name: {k: scores[k] for k in REAL_SCORES} for name, scores in real.items() if scores}
    result = dict(info=versions(m.device), model=str(args.model), notes=len(data.evaluator.features), seeds=args.seeds,
                  chosen=setting, variants=means, **real, **(dict(recorded=recorded) if recorded else {}))
    write_atomic(args.out, json.dumps(result, indent=1))
    if args.write: write_setting(folder, setting)
    print('chosen:', chosen)
    return setting

if __name__ == '__main__': main()
