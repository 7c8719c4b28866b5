"""Run notebooks in a real kernel and save their outputs: what `nbdev_test` does not do.

    python scripts/run_notebooks.py nbs/00_cmx.ipynb [more] [--flags slow cuda]
    python scripts/run_notebooks.py --players [notebooks]    # runs nothing: only makes the saved players small

Cells that `nbdev_test` skips (`#| eval: false`, and flags of `tst_flags`) are skipped here as well and keep the
outputs they were saved with, unless their flag is named by --flags. Players hold MP3 then, a fifth of the WAV that
IPython puts there. Run `nbdev_clean` afterwards.
"""
import argparse, base64, configparser, io, os, re, sys, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient

root = Path(__file__).resolve().parent.parent
cfg = configparser.ConfigParser(delimiters=['='], interpolation=None)
cfg.read(root/'settings.ini')
TST_FLAGS = cfg['DEFAULT']['tst_flags'].split()

def directives(source): return [m[1].strip() for m in re.finditer(r'^#\s*\|\s*(.+)$', source, re.M)]

class Runner(NotebookClient):
    skip = ()
    async def async_execute_cell(self, cell, *args, **kwargs):
        found = directives(cell.source)
        if any(d in self.skip or d.replace(' ', '') == 'eval:false' for d in found): return cell
        return await super().async_execute_cell(cell, *args, **kwargs)

def as_mp3(match):
    import soundfile
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(match[1])))
    data = io.BytesIO()
    soundfile.write(data, wave, rate, format='MP3', compression_level=.3)
    return 'data:audio/mpeg;base64,' + base64.b64encode(data.getvalue()).decode()

def small_players(nb):
    "Turn WAV into MP3 in all outputs."
    for cell in nb.cells:
        for out in cell.get('outputs', ()):
            page = out.get('data', {}).get('text/html')
            if page: out['data']['text/html'] = re.sub('type="audio/(x-)?wav"', 'type="audio/mpeg"', re.sub('data:audio/(?:x-)?wav;base64,([A-Za-z0-9+/=]+)', as_mp3, page))
    return nb

def run(path, flags=()):
    nb = nbformat.read(path, as_version=4)
    runner = Runner(nb, timeout=None, kernel_name='python3', resources=dict(metadata=dict(path=str(path.parent))))
    runner.skip = set(TST_FLAGS) - set(flags)
    runner.execute()
    nbformat.write(small_players(nb), path)

if __name__ == '__main__':
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('notebooks', nargs='*', type=Path, help='default: every notebook of nbs/')
    ap.add_argument('--players', action='store_true', help='run nothing, make saved players small')
    ap.add_argument('--flags', nargs='*', default=[], choices=TST_FLAGS, help='flagged cells to run too')
    args = ap.parse_args()
    os.environ['PYTHONPATH'] = os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')])
    for path in args.notebooks or sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts):
        start = time.perf_counter()
        if args.players: nbformat.write(small_players(nbformat.read(path, as_version=4)), path)
        else: run(path.resolve(), args.flags)
        print(f'{path}: {time.perf_counter()-start:.1f} s, {path.stat().st_size/2**20:.2f} MiB', file=sys.stderr)
