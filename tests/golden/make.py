"""Outputs of the packaged weights, kept so that a change of the code can be told from a change of behaviour.

`python tests/golden/make.py` writes golden.safetensors and golden.json beside this file; tests/test_golden.py compares.
Run it only when outputs are meant to change (new weights, another sampling rule), and say so in the commit.
"""
import hashlib, json, platform
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
import mars
from mars.data import NSynth
from mars.eval import density_coverage, frechet_distance, inception_score, kad, kid, ndb
from mars.pipeline import Mars

HERE = Path(__file__).parent
EXAMPLES = Path(mars.__file__).parent/'examples'  # 47 recorded notes under CC0
LABELS = dict(pitch=[43, 57, 60, 72], family=['keyboard', 'guitar', 'string', 'reed'], source=['acoustic', 'electronic', 'acoustic', 'acoustic'], velocity=[100, 75, 100, 50])
GREEDY = dict(temperature=0)
CASES = dict(  # name -> (settings, seed); each is four notes
    greedy=({**GREEDY, 'cfg_scale': 0.}, 0),
    greedy_guided=({**GREEDY, 'cfg_scale': 2.}, 0),
    greedy_constant_guidance=({**GREEDY, 'cfg_scale': 1.5, 'cfg_ramp': False}, 0),
    temperature=(dict(cfg_scale=0., temperature=.8, top_k=0, top_p=0.), 1),
    top_k=(dict(cfg_scale=0., temperature=1., top_k=20, top_p=0.), 2),
    top_p=(dict(cfg_scale=1., temperature=1., top_k=0, top_p=.9), 3),
    all_of_them=(dict(cfg_scale=2., temperature=.8, top_k=20, top_p=.95), 4),
    per_scale=(dict(cfg_scale=[0., 0., 1., 1., 2., 2., 3., 3.], temperature=[1., 1., 1., .9, .8, .7, .6, .5], top_k=20), 5))

def processor():
    "What decides the last digit: the processor, its kernels, and the versions of torch and numpy."
    info = Path('/proc/cpuinfo')
    names = {line.split(':', 1)[1].strip() for line in info.read_text().splitlines() if line.startswith(('model name', 'model\t', 'stepping'))} if info.exists() else {platform.processor()}
    flags = torch.backends.cpu.get_cpu_capability()
    return ' '.join([*sorted(names), flags, f'torch {torch.__version__}', f'numpy {np.__version__}', f'{torch.get_num_threads()} threads'])

def coarse(spec): return F.avg_pool2d(spec, 8)[:, 0]  # (B, 1, 512, 256) -> (B, 64, 32)

@torch.no_grad()
def outputs():
    "Name -> tensor: tokens (int16), spectrograms averaged over 8 x 8 cells, waveforms, metrics."
    model, notes, out = Mars.from_pretrained('small'), NSynth(EXAMPLES), {}
    ids = {k: torch.tensor([{'keyboard': 4, 'guitar': 3, 'string': 8, 'reed': 7, 'acoustic': 0, 'electronic': 1}.get(v, v) for v in values]) for k, values in LABELS.items()}
    for name, (settings, seed) in CASES.items():
        tokens = model.var.generate(ids, seed=seed, **settings)
        out[f'tokens/{name}'] = torch.cat(tokens, 1).short()
        if name.startswith('greedy'):
            spec = model.cmx.unfold(model.tokenizer.decode(tokens))
            out[f'spec/{name}'] = coarse(spec)
            out[f'wave/{name}'] = model.spectrogram.decode(spec, n_iter=4, seed=0)[:, ::16].half()
    waves = torch.stack([notes[i][0] for i in range(len(notes))])
    images = model.cmx.fold(model.spectrogram.encode(waves))
    tokens = model.tokenizer.encode(images)
    out['tokens/encode'] = torch.cat(tokens, 1).short()
    out['spec/encode'] = coarse(model.cmx.unfold(images))[::6]
    spec = model.cmx.unfold(model.tokenizer.decode(tokens))
    out['spec/reconstruct'] = coarse(spec)[::6]
    out['wave/generate'] = model.generate(**LABELS, seed=7, n_iter=8)[:, ::16].half()
    back = model.reconstruct(waves[::6], n_iter=8)
    out['wave/reconstruct'] = back[:, ::16].half()
    out['tokens/reference'] = torch.cat(reference_tokens(model, ids, waves[10:14]), 1).short()
    x, y = coarse(model.cmx.unfold(images)).flatten(1), coarse(spec).flatten(1)
    x, y = x[:, ::128], y[:, ::128]  # 16 numbers a note
    dc, bins = density_coverage(x, y, k=3), ndb(x.repeat(2, 1), y, k=5)
    values = [frechet_distance(x, y), kid(x, y, subsets=10, subset_size=40, seed=0)[0], kad(x, y), bins.ndb_over_k, bins.js, inception_score(x), dc.density, dc.coverage]
    out['metrics'] = torch.tensor(values, dtype=torch.float64)
    return {k: v.contiguous() for k, v in out.items()}

def reference_tokens(model, ids, waves):
    "Greedy tokens of notes conditioned on a reference sound each."
    from mars.parts.classifier import Classifier
    return model.var.generate({**ids, 'reference': Classifier.from_pretrained().features(waves)}, seed=0, cfg_scale=1., **GREEDY)

def digest(x): return hashlib.sha256(x.numpy().tobytes()).hexdigest()

def main():
    from safetensors.torch import save_file
    made = outputs()
    save_file(made, HERE/'golden.safetensors')
    (HERE/'golden.json').write_text(json.dumps(dict(processor=processor(), sha256={k: digest(v) for k, v in made.items()}), indent=1) + '\n')
    for k, v in made.items(): print(f'{k:32} {str(tuple(v.shape)):18} {v.dtype}')

if __name__ == '__main__': main()
