"""The bundle for a borrowed GPU, rehearsed where nothing is installed but torch and what the bundle brings."""
import importlib.metadata as metadata, json, os, re, subprocess, sys, time, zipfile
from pathlib import Path
import pytest
from mars.data import write_nsynth_fixture
from mars.training.log import read_log

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'scripts'))
import bundle

def closure(names):
    "Distributions and all that they require here."
    found, todo = {}, list(names)
    while todo:
        name = re.split(r'[^A-Za-z0-9._-]', todo.pop())[0].lower()
        if name in found: continue
        try: found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError: continue
        todo += [r for r in found[name].requires or () if 'extra ==' not in r]
    return found.values()

def link(dists, folder):
    "Links to what the distributions brought, and to nothing else."
    folder.mkdir()
    for dist in dists:
        for top in {f.parts[0] for f in dist.files or () if f.parts[0] != '..'}:
            source = Path(dist.locate_file(top))
            if source.exists() and not (folder/top).exists(): (folder/top).symlink_to(source)

def as_wheel(dist, folder):
    "A zip of what a distribution brought, as its wheel would be."
    with zipfile.ZipFile(folder/f'{dist.name}-{dist.version}.whl', 'w') as z:
        for f in dist.files:
            if f.parts[0] != '..' and '__pycache__' not in f.parts and 'tests' not in f.parts: z.write(dist.locate_file(f), f.as_posix())

@pytest.fixture(scope='module')
def machine(tmp_path_factory):
    "A bundle, and a Python that sees torch alone beside it."
    here = tmp_path_factory.mktemp('machine')
    shape = dict(tokenizer=dict(width=32, encoder_depth=1, decoder_depth=1, codebook_size=32, scales=[1, 2, 4]), train_tokenizer=dict(steps=120, batch_size=4, warm_start=8, ema=0.9, warmup=5), train_var=dict(steps=120, batch_size=4), gan=dict(weight=0))
    args = [x for k, v in shape.items() for x in (f'--{k.replace("_", "-")}', json.dumps(v))]
    recorded = write_nsynth_fixture(here/'recorded', dict(test=(0, 1, 2)), ('guitar', 'organ'), (60, 66), (100,), None)/'nsynth-test'
    bundle.main(['pack', '--out', str(here/'bundle'), '--notes', str(recorded), '--most-notes', '10', '--have', *bundle.NEEDS, '--', '--preset', 'tiny', '--data', 'additive', '--quick', '--measure', '2', *args])
    assert len(list((here/'bundle/notes/nsynth-test/audio').glob('*.ogg'))) == 6 # every second of twelve
    link(closure(['torch']), here/'torch')
    for name in bundle.NEEDS: # wheels made of what is installed here, instead of fetched ones
        if name != 'tinysoundfont': as_wheel(metadata.distribution(name), here/'bundle/wheels')
    python = here/'python'
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{here/"torch"}"\nexec {sys.executable} -S -s "$@"\n')
    python.chmod(0o755)
    env = {**os.environ, 'PYTHON': str(python), 'OMP_NUM_THREADS': '1', 'MARS_CACHE': str(here/'cache')}
    env.pop('PYTHONPATH', None)
    def run(out, *more, stop=None):
        p = subprocess.Popen(['bash', 'bundle/run.sh', str(out.relative_to(here)), *more], cwd=here, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while stop and p.poll() is None:
            if (out/'metrics.jsonl').exists() and any((r['stage'], r['step']) >= stop for r in read_log(out)):
                p.terminate(); break
            time.sleep(0.01)
        out, err = p.communicate(timeout=600)
        assert p.returncode == 0, err[-3000:]
        return out
    return here, run

def test_the_machine_is_bare(machine):
    here, _ = machine
    p = subprocess.run([str(here/'python'), '-c', 'import torch\ntry: import pandas\nexcept ImportError: print("bare")'], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': ''})
    assert p.stdout.strip() == 'bare', p.stderr

def test_from_data_to_results_in_three_sittings(machine):
    here, run = machine
    first = run(here/'one', stop=('tokenizer', 10))
    assert 'stopped in stage tokenizer' in first
    second = run(here/'two', '--take', str(here/'one/pieces'), stop=('var', 10))
    assert 'tokenizer: taken over at step' in second and 'stopped in stage var' in second
    last = run(here/'two', '--take', 'two/pieces') # in the same folder, as on the same machine
    assert 'var: taken over at step' in last and 'done after' in last
    bundle.main(['unpack', str(here/'two/pieces'), '--to', str(here/'back')])
    from mars.pipeline import Mars
    m = Mars.from_pretrained(here/'back/weights')
    assert m.generate(2, pitch=60, seed=0, n_iter=1).shape == (2, 64000)
    results = json.loads((here/'back/results.json').read_text())
    assert 0 < results['results']['reconstruction, test']['mse'] < 1
    for stage, end in (('tokenizer', 119), ('var', 119)): assert [r['step'] for r in results['curves'] if r['stage'] == stage][-1] == end

def test_what_is_no_sitting_is_refused(machine, tmp_path):
    here, _ = machine
    p = subprocess.run(['bash', 'bundle/run.sh', 'nothing', '--take', str(tmp_path)], cwd=here, env={**os.environ, 'PYTHON': str(here/'python')}, capture_output=True, text=True)
    assert p.returncode and 'holds no pieces of a sitting' in p.stderr

def test_a_bundle_that_is_too_large_is_refused(tmp_path):
    (tmp_path/'big.sf3').write_bytes(bytes(3*2**20))
    with pytest.raises(SystemExit, match='more than 2.0; leave out what the list shows as largest'):
        bundle.main(['pack', '--out', str(tmp_path/'b'), '--soundfont', str(tmp_path/'big.sf3'), '--have', *bundle.NEEDS, '--most', '2'])
    with pytest.raises(SystemExit, match='is there already'): bundle.main(['pack', '--out', str(tmp_path/'b')])
