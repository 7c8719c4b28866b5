"""Run notebooks in a kernel and save their outputs:  python scripts/run_notebooks.py nbs/00_cmx.ipynb [more]

Writes the notebooks with new outputs, and prints the time and size of each. Cells that `nbdev_test` skips
(`#| eval: false`, and flags of `tst_flags`) are skipped and keep their saved outputs, unless --flags names their flag.
The WAV files in audio players become MP3 files of a fifth of the size, and pictures get a palette of 256 colours;
--compress does only that and runs nothing. Run `nbdev_clean` afterwards.
"""
import argparse, base64, configparser, io, os, re, sys, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).resolve().parent.parent
WAV = re.compile('data:audio/(?:x-)?wav;base64,([A-Za-z0-9+/=]+)')
cfg = configparser.ConfigParser(delimiters=['='], interpolation=None)
cfg.read(ROOT/'settings.ini')
MIN_PICTURE = 20000 # characters; smaller ones stay
MAX_ERROR = 4 # of 255, root mean square of a colour channel
TST_FLAGS = cfg['DEFAULT']['tst_flags'].split()

def directives(source):
    "The nbdev directives of a cell, such as 'eval: false'."
    return [m[1].strip() for m in re.finditer(r'^#\s*\|\s*(.+)$', source, re.M)]

class Runner(NotebookClient):
    "Runs the cells without a directive in `skip`."
    skip = ()
    async def async_execute_cell(self, cell, *args, **kwargs):
        if any(d in self.skip or d.replace(' ', '') == 'eval:false' for d in directives(cell.source)): return cell
        return await super().async_execute_cell(cell, *args, **kwargs)

def as_mp3(match):
    "A match of `WAV` as an MP3 data URL."
    import soundfile
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(match[1])))
    data = io.BytesIO()
    soundfile.write(data, wave, rate, format='MP3', compression_level=.3)
    return 'data:audio/mpeg;base64,' + base64.b64encode(data.getvalue()).decode()

def with_palette(png):
    "A base64 PNG with at most 256 colours; the same where the colours would differ, as in a photograph."
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == 'P': return png
    image = image.convert('RGB')
    few = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    if max(ImageStat.Stat(ImageChops.difference(image, few.convert('RGB'))).rms) > MAX_ERROR: return png
    out = io.BytesIO()
    few.save(out, 'PNG', optimize=True)
    return base64.b64encode(out.getvalue()).decode() + '\n'

def compress_outputs(nb):
    "Convert WAV to MP3 and reduce the colours of pictures in all outputs."
    for cell in nb.cells:
        for data in (out['data'] for out in cell.get('outputs', ()) if 'data' in out):
            if 'text/html' in data:
                page = WAV.sub(as_mp3, data['text/html'])
                data['text/html'] = re.sub('type="audio/(x-)?wav"', 'type="audio/mpeg"', page)
            if len(data.get('image/png', '')) > MIN_PICTURE: data['image/png'] = with_palette(data['image/png'])
    return nb

def run(path, flags=()):
    "Run a notebook and save it."
    nb = nbformat.read(path, as_version=4)
    runner = Runner(nb, timeout=None, kernel_name='python3', resources=dict(metadata=dict(path=str(path.parent))))
    runner.skip = set(TST_FLAGS) - set(flags)
    runner.execute()
    nbformat.write(compress_outputs(nb), path)

def all_notebooks(): return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('notebooks', nargs='*', type=Path, help='default: every notebook of nbs/')
    ap.add_argument('--compress', action='store_true', help='run nothing, only compress the saved outputs')
    ap.add_argument('--flags', nargs='*', default=[], choices=TST_FLAGS, help='run the cells with these flags, too')
    args = ap.parse_args(argv)
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    for path in args.notebooks or all_notebooks():
        start = time.perf_counter()
        if args.compress: nbformat.write(compress_outputs(nbformat.read(path, as_version=4)), path)
        else: run(path.resolve(), args.flags)
        print(f'{path}: {time.perf_counter()-start:.1f} s, {path.stat().st_size/2**20:.2f} MiB', file=sys.stderr)

if __name__ == '__main__': main()
