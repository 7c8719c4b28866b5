"""What a sitting of scripts/sitting.sh brought back, as one file:  python benchmarks/sitting.py OUT [--result results/gpu-sitting.json]

OUT holds logs.tar, sat.tar, rvq.tar, tokenizer.safetensors and var.safetensors. The tokenizers are judged here, on the CPU, by
notes of Fluid (R3) whose instruments none of them has learned from.
"""
import argparse, io, json, shutil, tarfile, tempfile
from pathlib import Path
import torch
import mars.baselines.aar
from mars.parts.classifier import Classifier
from mars.data import SoundFontNotes
from mars.eval import cents_error, f0, frechet_distance
from mars.pipeline import Mars
from mars.evaluation.protocol import MelPCA
from mars.evaluation.report import SPLIT

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('out', type=Path)
ap.add_argument('--n', type=int, default=96, help='notes to judge by')
ap.add_argument('--n-f0', type=int, default=32)
ap.add_argument('--result', type=Path, default=Path(__file__).resolve().parent.parent/'results/gpu-sitting.json')
a = ap.parse_args()

def rows(name): return [json.loads(line) for line in (folder/'logs'/name).read_text().splitlines()]
def curve(rows, keys, n=25): return [{k: round(r[k], 5) for k in keys if k in r} for r in rows[::max(1, len(rows)//n)] + rows[-1:]]

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    for name in ('logs', 'sat', 'rvq'): tarfile.open(a.out/f'{name}.tar').extractall(folder, filter='data')
    (folder/'mars').mkdir()
    for f in (a.out/'tokenizer.safetensors', a.out/'var.safetensors', folder/'logs'/'config.json'): shutil.copy(f, folder/'mars')
    layouts, own, cost = json.loads((folder/'logs'/'layouts.json').read_text()), rows('metrics.jsonl'), ('step', 'recon', 'vq', 'mel', 'loss', 'seconds', 'notes_per_second', 'memory_mib')
    result = dict(about=dict(device=layouts['device'], torch=layouts['torch'], shared='up to five processes shared the card; the two layouts of one note at small had it nearly alone'), layouts=layouts['rows'],
                  curves={'mars': curve([r for r in own if r['stage'] == 'tokenizer'], cost), 'transformer': curve([r for r in own if r['stage'] == 'var'], cost), **{k: curve(rows(f'{k}.jsonl'), cost) for k in ('sat', 'rvq')}},
                  measured=json.loads((folder/'logs'/'results.json').read_text())['results'])
    test = SoundFontNotes(pitches=range(36, 97)).split_by_instrument(**SPLIT).test
    waves, labels = test.select(torch.randperm(len(test), generator=torch.Generator().manual_seed(1))[:a.n].sort().values).batch(range(a.n))
    waves, judge, pca = waves.float()/32768, Classifier.from_pretrained(), MelPCA.load()
    def heard(x):
        said, step = judge.judge(x)[1], max(1, a.n//a.n_f0)
        near = [abs(float(cents_error(float(f0(w).midi), int(p)))) <= 50 for w, p in zip(x[::step], labels['pitch'][::step])]
        right = {k: float((said[k].argmax(1) == labels[k]).float().mean()) for k in ('pitch', 'family')}
        return {'Fréchet distance, mel-PCA': float(frechet_distance(pca.embed(waves), pca.embed(x))), **right, 'f0 within 50 cents': sum(near)/len(near)}
    result['rows'] = {'reference itself': heard(waves)}
    for name in ('mars', 'sat', 'rvq', 'small'):
        m = Mars.from_pretrained(name if name == 'small' else folder/name)
        result['rows']['reconstruction, ' + dict(small='the packaged small of that day').get(name, name)] = heard(torch.cat([m.reconstruct(waves[i:i+16], n_iter=32) for i in range(0, a.n, 16)]))
a.result.write_text(json.dumps(result, indent=1))
print(json.dumps(result['rows'], indent=1))
