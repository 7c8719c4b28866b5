"""scripts/release.py at miniature size: every stage trains, can be stopped, and goes on elsewhere from the pieces that it left."""
import functools, json, os, signal, sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
FEW = json.dumps(dict(steps=4, batch_size=4, save_every=0, log_every=1))
ARGS = ['--preset', 'tiny', '--device', 'cpu', '--data', 'additive', '--quick', '--measure', '2', '--valid-every', '2',
        *(x for stage in ('tokenizer', 'var', 'vocoder', 'classifier') for x in (f'--train-{stage}', FEW))]
ALL = ['--stages', 'tokenizer,var,vocoder,classifier']

@pytest.fixture
def release(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT/'scripts'))
    monkeypatch.setenv('MARS_CACHE', str(tmp_path/'cache'))
    before = signal.getsignal(signal.SIGTERM)
    import release
    yield release
    signal.signal(signal.SIGTERM, before)
    del sys.modules['release']

def stop_in(monkeypatch, where, at=2):
    "SIGTERM in the middle of a step of a stage, once; `where` is a function that each of its steps calls."
    module, name = where.rsplit('.', 1)
    real, calls = getattr(sys.modules[module], name), []
    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == at: os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)
    monkeypatch.setattr(sys.modules[module], name, stopping)

def steps(folder):
    from mars.training.log import read_log
    return [r['step'] for r in read_log(folder)]

@pytest.mark.parametrize('stage, where', [('vocoder', 'mars.parts.vocoder.step_loss'), ('classifier', 'mars.evaluation.classifier.augment')])
def test_a_stage_beside_the_model_goes_on_elsewhere(release, monkeypatch, tmp_path, capsys, stage, where):
    one, two = tmp_path/'one', tmp_path/'two'
    with monkeypatch.context() as m:
        stop_in(m, where)
        assert release.main(['--out', str(one), *ARGS, *ALL]) == 0
    assert f'stopped in stage {stage}' in capsys.readouterr().out and not (one/'weights').exists()
    assert steps(one/stage) == [0, 1] and not (one/stage/release.MADE[stage][1].split('/')[1]).exists()
    assert release.main(['--out', str(two), '--take', str(one/'pieces'), *ARGS, *ALL]) == 0
    assert f'{stage}: taken over at step 2' in capsys.readouterr().out and steps(two/stage) == [0, 1, 2, 3]
    for name in release.MADE['var'] + ('tokenizer.safetensors',): assert (one/name).read_bytes() == (two/name).read_bytes() # what was done is not done again
    said = json.loads((two/'results.json').read_text())
    assert said['results']['classifier, test']['notes'] > 0 and {r['stage'] for r in said['curves']} == {*release.STAGES}

def test_stages_that_were_asked_for_and_no_others(release, tmp_path):
    from mars.parts.classifier import Classifier
    from mars.parts.vocoder import Vocoder
    assert release.main(['--out', str(tmp_path/'o'), *ARGS, '--stages', 'classifier,vocoder']) == 0
    assert Classifier.from_pretrained(tmp_path/'o'/'weights'/'classifier').info['notes'] and Vocoder.from_pretrained(tmp_path/'o'/'weights'/'vocoder').info['notes']
    assert not (tmp_path/'o'/'config.json').exists() and sorted(json.loads((tmp_path/'o'/'results.json').read_text())['results']) == ['classifier, test']
    from mars.DROP import join
    assert len(join(tmp_path/'o'/'pieces', 'release')) > 1000

def test_what_makes_no_sense_is_refused(release, tmp_path):
    for stages, word in (('tokeniser', "no stage 'tokeniser'"), ('var', 'needs a tokenizer')):
        with pytest.raises(SystemExit, match=word): release.main(['--out', str(tmp_path/'o'), *ARGS, '--stages', stages])

def test_notes_of_seen_instruments_are_held_out_and_judged(release, monkeypatch, tmp_path):
    out = tmp_path/'o'
    monkeypatch.setattr(release, 'evaluate_model', functools.partial(release.evaluate_model, seeds=1, n_iter=2, draws=10, n_f0=4)) # a short report
    # every note twice, so that twenty of seen instruments can be held out
    assert release.main(['--out', str(out), *ARGS, '--data', 'additive', '--hold-out', '.55', '--evaluate', '20']) == 0
    said, config = json.loads((out/'results.json').read_text()), json.loads((out/'weights'/'config.json').read_text())
    assert config['info']['data']['hold_out'] == .55 and said['results']['reconstruction, seen, held out']['notes'] > 0
    assert {*said['reports']} == {'report', 'report-seen'}
    for name in said['reports']:
        report = json.loads((out/'weights'/f'{name}.json').read_text())
        assert report['settings']['notes'] == 20 and {'reference itself', 'reconstruction', 'generated'} <= {*report['rows']}
        assert (out/name/'table.md').exists()
    from mars.DROP import join
    assert b'report.json' in join(out/'pieces', 'release')

@pytest.fixture(scope='module')
def made_of_a_kit(tmp_path_factory):
    "scripts/weights.sh on a CPU: a kit of recorded notes, two shapes, weights and logs in the end."
    tmp_path = tmp_path_factory.mktemp('kit')
    import subprocess, tarfile
    from mars.data import write_nsynth_fixture
    kit = tmp_path/'kit'
    kit.mkdir()
    notes = write_nsynth_fixture(tmp_path/'fixture', splits=dict(train=(0, 1)), families=('organ', 'brass', 'flute'), pitches=(60, 66), velocities=(100,), extra_pitch=None)/'nsynth-train'
    with tarfile.open(kit/'notes.tar', 'w') as t: t.add(notes, 'notes')
    (kit/'split.json').write_text(json.dumps(dict(valid=['organ_*_800'], test=['brass_*_801'])))
    shape = '{"scales": [1, 2, 4]}|{}'
    env = {**os.environ, 'PYTHON': sys.executable, 'WORK': str(tmp_path/'work'), 'SHAPES': f'one={shape}\ntwo={shape}', 'DEVICE': 'cpu', 'PRESET': 'tiny', 'QUICK': '--quick',
           'TOK': '1', 'VAR': '1', 'BATCH': '4', 'VBATCH': '4', 'WORKERS': '1', 'MEASURE': '2', 'WAIT': '400', 'PYTHONPATH': str(ROOT)}
    said = subprocess.run(['bash', str(ROOT/'scripts/weights.sh'), str(kit), str(tmp_path/'out'), 'start'], env=env, capture_output=True, text=True, timeout=500)
    made = {p.name for p in (tmp_path/'out').iterdir()}
    assert made == {'one.tokenizer', 'one.var', 'two.tokenizer', 'two.var', 'logs.tar.gz'}, said.stdout[-3000:] + said.stderr[-2000:]
    with tarfile.open(tmp_path/'out'/'logs.tar.gz') as t:
        assert {'one.jsonl', 'two.jsonl', 'one.config.json', 'log.txt'} <= set(t.getnames())
        t.extractall(tmp_path/'logs', filter='data')
    return tmp_path

def test_weights_are_described(made_of_a_kit, release, capsys):
    "scripts/describe.py on what weights.sh left: curves, counts by source, errors; other notes than those of the training are refused."
    import describe, shutil
    tmp, model = made_of_a_kit, made_of_a_kit/'model'
    model.mkdir()
    for part in ('tokenizer', 'var'): shutil.copy(tmp/'out'/f'one.{part}', model/f'{part}.safetensors')
    shutil.copy(tmp/'logs'/'one.config.json', model/'config.json')
    args = [str(tmp/'logs'), '--name', 'one', '--beside', 'two', '--model', str(model), '--out', str(tmp/'training.json'), '--split', str(tmp/'kit'/'split.json'), '--quick', '--n', '2', '--note', 'from a kit']
    notes = ['--data', str(tmp/'work'/'notes')]
    with pytest.raises(SystemExit, match='give the --data, --split and --renderer of its training'): describe.main([*args, *notes])
    said = describe.main([*args, *4*notes])
    info = json.loads((model/'config.json').read_text())['info']
    assert json.loads((tmp/'training.json').read_text()) == said and {*said['curves']} == {*said['beside']['curves']} == {'tokenizer', 'transformer'} and said['curves']['tokenizer'][0]['step'] == 0
    n = info['data']['sources']['notes']
    assert n['times'] == 4 and 4*n['notes'] == info['data']['notes'] and info['note'] == 'from a kit' and info['results'] == said['results']
