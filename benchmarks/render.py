"""Notes per second that a SoundFont renders on one core: python benchmarks/render.py

    OMP_NUM_THREADS=1 python benchmarks/render.py [--notes 300] [--soundfont FILE] [--renderer fluidsynth]

Includes synthesis, resampling, checks, conversion to 16 bits and the cache. Prints notes per second of wall-clock
time and of CPU time, for rendering and for reading the cache.
"""
import argparse, os, platform, sys, tempfile, time
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
from mars.data import SoundFontNotes

def measure(ds, index):
    "Notes per second, of wall-clock time and of CPU time."
    wall, cpu = time.perf_counter(), time.process_time()
    for i in index: ds.samples(int(i))
    return len(index)/(time.perf_counter() - wall), len(index)/(time.process_time() - cpu)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--notes', type=int, default=300)
    ap.add_argument('--soundfont')
    ap.add_argument('--renderer', default='auto')
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        ds = SoundFontNotes(args.soundfont, renderer=args.renderer, cache=cache, label='key')
        index = np.linspace(0, len(ds) - 1, args.notes).astype(int) # all programs, in the order of a first pass
        ds.samples(1) # opens the file and the cache
        for name, (wall, cpu) in (('render', measure(ds, index)), ('cached', measure(ds, index))):
            print(f'{name}: {wall:.0f} notes/s wall, {cpu:.0f} notes/s CPU ({ds.renderer}, {ds.fonts[0].name}, '
                  f'{args.notes} notes of {len(ds.instruments)} instruments, '
                  f'{platform.machine()}, {os.cpu_count()} cores)')
    sys.exit(0)
