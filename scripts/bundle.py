"""Pack what a borrowed GPU needs into one small folder, and unpack what comes back:

    python scripts/bundle.py pack --out bundle --soundfont FILE.sf3 [--notes FOLDER] [--have numpy scipy ...] -- --preset small
    python scripts/bundle.py unpack PIECES --to FOLDER

`pack` copies the package, `scripts/release.py` and the SoundFont, turns recorded notes (a folder in NSynth layout) into
Ogg Vorbis, fetches the wheels that a machine with torch alone lacks, and writes `run.sh`. There:

    bash bundle/run.sh OUT [more arguments of scripts/release.py]

goes from data to results with the Python of $PYTHON (python3 if unset). It needs no network, no pip and no root; the
wheels are unzipped into a folder beside them. What must come back lies in OUT/pieces, in files of at most 16 MiB.
"""
import argparse, json, shutil, subprocess, sys
from pathlib import Path

ROOT, MIB = Path(__file__).resolve().parent.parent, 2**20
# what the path from notes to weights imports beside torch and the standard library
NEEDS = ('numpy', 'safetensors', 'fastprogress', 'soundfile', 'cffi', 'pycparser', 'tinysoundfont')
RUN = '''#!/usr/bin/env bash
# From data to results:  bash run.sh OUT [more arguments of scripts/release.py]
set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
python=${{PYTHON:-python3}}
out=$1; shift
if [ ! -d "$here/site" ]; then
  rm -rf "$here/site.part"
  mkdir "$here/site.part"
  for wheel in "$here"/wheels/*.whl; do [ ! -e "$wheel" ] || "$python" -m zipfile -e "$wheel" "$here/site.part"; done
  mv "$here/site.part" "$here/site"
fi
export PYTHONPATH="$here:$here/site${{PYTHONPATH:+:$PYTHONPATH}}" MARS_CACHE="${{MARS_CACHE:-$here/cache}}" PYTHONUNBUFFERED=1
exec "$python" "$here/scripts/release.py" --out "$out" {args} "$@"
'''

def pins():
    "Exact versions from constraints.txt."
    lines = [line.split(';')[0].strip() for line in (ROOT/'constraints.txt').read_text().splitlines() if '==' in line]
    return dict(line.lower().split('==') for line in lines)

def wheels(names, to, python):
    "Fetch wheels for Linux on x86-64; without their dependencies, which NEEDS lists."
    to.mkdir()
    known = pins()
    for name in names:
        version = known.get(name, dict(tinysoundfont='0.3.7').get(name))
        platforms = [x for n in (39, 35, 34, 31, 28, 27, 24, 17, 12, 5) for x in ('--platform', f'manylinux_2_{n}_x86_64')] + ['--platform', 'manylinux2014_x86_64', '--platform', 'manylinux1_x86_64', '--platform', 'any']
        subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:', '--python-version', python, '--implementation', 'cp', *platforms, '-d', str(to), f'{name}=={version}' if version else name], check=True)

def compress(source, to, most):
    "Copy a folder in NSynth layout, or as many of its notes, spread evenly, with its sounds as Ogg Vorbis."
    import soundfile
    examples = json.loads((source/'examples.json').read_text())
    names = sorted(examples)
    names = names[::-(-len(names)//most)]
    (to/'audio').mkdir(parents=True)
    (to/'examples.json').write_text(json.dumps({n: examples[n] for n in names}))
    for name in names:
        path = next(p for p in (source/'audio'/f'{name}{suffix}' for suffix in ('.wav', '.flac', '.ogg')) if p.exists())
        samples, rate = soundfile.read(path, dtype='float32')
        soundfile.write(to/'audio'/f'{name}.ogg', samples, rate, format='OGG', subtype='VORBIS')

def size(path): return sum(p.stat().st_size for p in Path(path).rglob('*') if p.is_file())

def pack(a):
    if a.out.exists(): raise SystemExit(f'{a.out} is there already; remove it or choose another folder')
    a.out.mkdir(parents=True)
    shutil.copytree(ROOT/'mars', a.out/'mars', ignore=shutil.ignore_patterns('__pycache__', 'weights'))
    (a.out/'scripts').mkdir()
    shutil.copy(ROOT/'scripts/release.py', a.out/'scripts')
    data = []
    for font in a.soundfont or ():
        shutil.copy(font, a.out)
        data.append(Path(font).name)
    for folder in a.notes or ():
        compress(folder, a.out/'notes'/folder.name, a.most_notes)
        data.append(f'notes/{folder.name}')
    wheels([n for n in NEEDS if n not in a.have], a.out/'wheels', a.python)
    quote = lambda x: "'" + x.replace("'", "'\\''") + "'"
    args = [f'--data "$here"/{quote(d)}' for d in data] + [quote(x) for x in a.release if x != '--']
    (a.out/'run.sh').write_text(RUN.format(args=' '.join(args)))
    parts = {p.name: size(p) if p.is_dir() else p.stat().st_size for p in a.out.iterdir()}
    total = sum(parts.values())
    print(json.dumps({k: f'{v/MIB:.1f} MiB' for k, v in sorted(parts.items(), key=lambda x: -x[1])} | {'all': f'{total/MIB:.1f} MiB'}, indent=1))
    if total > a.most*MIB: raise SystemExit(f'{a.out} holds {total/MIB:.1f} MiB, more than {a.most}; leave out what the list shows as largest: name packages that are there with --have, take a smaller SoundFont, fewer notes')

def unpack(a):
    sys.path.insert(0, str(ROOT))
    from mars.machines import join
    import io, tarfile
    for listing in sorted(a.pieces.glob('*.json')):
        data = join(a.pieces, listing.stem)
        if listing.stem in ('release', 'done', 'log'):
            with tarfile.open(fileobj=io.BytesIO(data)) as t: t.extractall(a.to, filter='data')
            print(listing.stem, '->', a.to)
        else: print(f'{listing.stem}: a stage in training; go on with scripts/release.py --take {a.pieces}')

def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = ap.add_subparsers(required=True, metavar='VERB')
    p = verbs.add_parser('pack', help='make the folder')
    p.set_defaults(run=pack)
    p.add_argument('--out', type=Path, required=True)
    p.add_argument('--soundfont', action='append', type=Path, help='an .sf3 or .sf2 file')
    p.add_argument('--notes', action='append', type=Path, help='a folder in NSynth layout')
    p.add_argument('--most-notes', type=int, default=600, help='of each folder of recorded notes')
    p.add_argument('--have', nargs='*', default=[], metavar='PACKAGE', help=f'packages that are there already, of {", ".join(NEEDS)}')
    p.add_argument('--python', default='3.12', help='of the machine')
    p.add_argument('--most', type=float, default=50., help='MiB; with the repo beside it the whole must stay under 60')
    p.add_argument('release', nargs='*', help='after --: arguments of scripts/release.py')
    u = verbs.add_parser('unpack', help='put the pieces together')
    u.set_defaults(run=unpack)
    u.add_argument('pieces', type=Path)
    u.add_argument('--to', type=Path, required=True)
    a = ap.parse_args(argv)
    a.run(a)

if __name__ == '__main__': main()
