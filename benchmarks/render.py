"""Measure how fast a SoundFont is rendered on one core:  python benchmarks/render.py [--notes 300] [--soundfont FILE]

Includes synthesis, resampling, checks, conversion to 16 bits and the cache. Prints notes per second of wall-clock time
and of CPU time, for rendering and for reading the cache. Writes no file.
"""
import argparse, os, tempfile, time
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np
from mars.data import SoundFontNotes
from common import cpu_name

def measure(notes, index):
    "Notes per second of wall-clock time and of CPU time."
    wall, cpu = time.perf_counter(), time.process_time()
    for i in index: notes.samples(int(i))
    return len(index)/(time.perf_counter() - wall), len(index)/(time.process_time() - cpu)

def parser():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--notes', type=int, default=300, help='notes to render, at least 1; default: %(default)s')
    ap.add_argument('--soundfont', help='an .sf2 or .sf3 file; default: the one that mars.data finds')
    ap.add_argument('--renderer', default='auto', help='auto, fluidsynth or tinysoundfont; default: %(default)s')
    return ap

def main(argv=None):
    args = parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as cache:
        notes = SoundFontNotes(args.soundfont, renderer=args.renderer, cache=cache, label='key')
        index = np.linspace(0, len(notes) - 1, args.notes).astype(int)  # all programs, in the order of a first pass
        notes.samples(1)  # opens the file and the cache
        source = f'{notes.renderer}, {notes.fonts[0].name}, {args.notes} notes of {len(notes.instruments)} instruments'
        machine = f'{cpu_name()}, {os.cpu_count()} cores'
        for name in ('render', 'cached'):
            wall, cpu = measure(notes, index)
            print(f'{name}: {wall:.0f} notes/s wall, {cpu:.0f} notes/s CPU ({source}, {machine})')

if __name__ == '__main__': main()
