"""Time generation with other token layouts:  python benchmarks/latency.py --out FILE.json

The layouts are those of AAR, a residual quantizer and MAGNeT. The networks have random weights, because time does not
depend on them, and only tokens are generated. Prints and writes the seconds and the number of passes of each layout;
the committed file is results/benchmarks/latency-h100.json.
"""
import argparse, json
from pathlib import Path
import torch
from mars.baselines.comparison import time_layouts
from mars.parts.device import pick_device
from mars.parts.files import write_atomic

CASES = ('small', 'plain', 1), ('small', 'guided', 1), ('tiny', 'plain', 1), ('small', 'plain', 64)  # size, mode, notes

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--device', help='cpu, cuda or mps; default: the first available of cuda, mps and cpu')
    ap.add_argument('--repeats', type=int, default=3, help='runs of each timing, at least 1; default: %(default)s')
    ap.add_argument('--out', type=Path, required=True, help='a JSON file')
    return ap

def main(argv=None, cases=CASES):
    args = parser().parse_args(argv)
    device, rows = pick_device(args.device), []
    for size, mode, n in cases:
        layouts = time_layouts(size, device, args.repeats, n, mode == 'guided')
        rows.append(dict(size=size, how=mode, notes=n, layouts=layouts))
        print(size, mode, n, {name: f"{t['seconds']:.3f} s" for name, t in layouts.items()}, flush=True)
    info = dict(device=torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU', torch=torch.__version__)
    write_atomic(args.out, json.dumps(dict(info=info, rows=rows), indent=1) + '\n')
    return rows

if __name__ == '__main__': main()
