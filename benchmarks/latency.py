"""Time generation with the token layouts of AAR, a residual quantizer and MAGNeT:  python benchmarks/latency.py [--device cuda] --out results/benchmarks/latency-h100.json

The networks have random weights, since time does not depend on them; only tokens are made. nbs/baselines/comparison shows the file.
"""
import argparse, json
from pathlib import Path
import torch
from mars.baselines.comparison import time_layouts
from mars.parts.device import pick_device
from mars.parts.files import write_atomic

CASES = ('small', 'plain', 1), ('small', 'guided', 1), ('tiny', 'plain', 1), ('small', 'plain', 64)

def main(argv=None, cases=CASES):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--device', help='cpu or cuda; the GPU if there is one')
    ap.add_argument('--repeats', type=int, default=3, help='of each timing')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    a = ap.parse_args(argv)
    device = pick_device(a.device)
    about = dict(device=torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU', torch=torch.__version__)
    rows = [dict(size=size, how=how, notes=n, layouts=time_layouts(size, device, a.repeats, n, how == 'guided')) for size, how, n in cases]
    write_atomic(a.out, json.dumps(dict(about=about, rows=rows), indent=1) + '\n')
    for r in rows: print(r['size'], r['how'], r['notes'], {k: f"{v['seconds']:.3f} s" for k, v in r['layouts'].items()})
    return rows

if __name__ == '__main__': main()
