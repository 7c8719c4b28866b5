"""scripts/reproduce_weights.py at `tiny`: every stage trains, resumes, uses the split and records its data."""
import json, os, signal, sys
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SIDES = dict(valid=['organ_*_80[12]'], test=['brass_*_801'])
ALL = 'tokenizer,var,further,vocoder,classifier,melpca'
WEIGHTS = ('model/tokenizer', 'model/var', 'further/var', 'vocoder/vocoder', 'classifier/classifier',
           'weights/melpca/melpca')

@pytest.fixture(scope='module')
def script():
    with pytest.MonkeyPatch.context() as m:
        m.syspath_prepend(str(ROOT/'scripts'))
        import reproduce_weights
        yield reproduce_weights
        del sys.modules['reproduce_weights']

@pytest.fixture(scope='module')
def run(script, tmp_path_factory):
    "run(folder, more arguments): 60 notes, each twice."
    tmp = tmp_path_factory.mktemp('cache')
    (tmp/'split.json').write_text(json.dumps(dict(model=SIDES, classifier={**SIDES, 'unused': ['flute_*']})))
    args = ['--preset', 'tiny', '--device', 'cpu', '--data', 'additive', '--data', 'additive', '--quick',
            '--measure', '2', '--valid-every', '2', '--steps', '4', '--batch-size', '4',
            '--split', str(tmp/'split.json')]
    with pytest.MonkeyPatch.context() as m:
        m.setenv('MARS_CACHE', str(tmp))
        yield lambda out, *more: script.main(['--out', str(out), *args, *more])

@pytest.fixture(scope='module')
def whole(run, tmp_path_factory):
    "The folder of an uninterrupted run of all stages."
    out = tmp_path_factory.mktemp('whole')/'run'
    assert run(out, '--stages', ALL, '--hold-out', '.3', '--note', 'a test') == 0
    return out

def stop_in(monkeypatch, where, at):
    "SIGTERM during the call number `at` of a function that every step of a stage calls."
    module, name = where.rsplit('.', 1)
    real, calls = getattr(sys.modules[module], name), []
    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == at: os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)
    monkeypatch.setattr(sys.modules[module], name, stopping)

def steps(folder, stage):
    from mars.training.log import read_log
    return [r['step'] for r in read_log(folder) if r['stage'] == stage]

def test_a_run_stopped_in_every_stage_ends_with_the_same_weights(run, whole, monkeypatch, tmp_path, capsys):
    out, more = tmp_path/'run', ['--stages', ALL, '--hold-out', '.3', '--note', 'a test']
    each_step = 'mars.train.lr_at' # each stage is stopped in its second step: a resumed one calls it twice more
    stages = dict(tokenizer='model', var='model', further='further', vocoder='vocoder', classifier='classifier')
    for i, (name, folder) in enumerate(stages.items()):
        stage = 'var' if name == 'further' else name
        with monkeypatch.context() as m:
            stop_in(m, each_step, 2 if i == 0 else 4)
            with pytest.raises(SystemExit) as stop: run(out, *more, *(['--resume'] if i else []))
        assert stop.value.code == 143 and steps(out/folder, stage) == [0, 1]
        if i == 0:
            with pytest.raises(SystemExit): run(out, *more)
            assert 'holds a tokenizer already; add --resume' in capsys.readouterr().err
    assert run(out, *more, '--resume') == 0
    for name in WEIGHTS:
        a, b = (load_file(f/f'{name}.safetensors') for f in (out, whole))
        assert {*a} == {*b} and all(torch.equal(a[k], b[k]) for k in a), name
    assert steps(out/'further', 'var') == [0, 1, 2, 3]

def test_weights_are_saved_in_half_precision_and_load(whole):
    from mars.evaluation.protocol import MelPCA
    from mars.parts.classifier import Classifier
    from mars.parts.vocoder import Vocoder
    from mars.pipeline import Mars
    small = whole/'weights'/'tiny'
    assert Mars.from_pretrained(small).generate(1, pitch=60, seed=0, n_iter=1).shape == (1, 64000)
    weights = load_file(small/'var.safetensors').values()
    assert {str(v.dtype) for v in weights if v.is_floating_point()} == {'torch.float16'}
    a, b = (load_file(f/'var.safetensors') for f in (whole/'model', whole/'further'))
    assert not all((a[k] == b[k]).all() for k in a) # the second run has trained
    assert Vocoder.from_pretrained(whole/'weights'/'vocoder').info['data']['notes']
    assert MelPCA.load(whole/'weights'/'melpca'/'melpca.safetensors').explained > 0
    assert Classifier.from_pretrained(whole/'weights'/'classifier').info['accuracy']['test']['notes'] == 2

def test_config_json_describes_the_notes(whole):
    info = json.loads((whole/'weights'/'tiny'/'config.json').read_text())['info']
    data, training = info['data'], json.loads((whole/'training.json').read_text())
    source = data['sources']['additive']
    assert source['times'] == 2 and 2*source['notes'] == data['notes'] and source['held_out_pitches'] > 0
    assert (source['valid'], source['test']) == (4, 2) and data['hold_out'] == .3 and data['pitches'] == [60, 66]
    assert sorted(data['held_out']) == ['brass_acoustic_801', 'organ_electronic_801', 'organ_electronic_802']
    assert any('The MARS engineers' in c for c in data['credits'])
    assert info['note'] == 'a test' and info['before']['steps'] == 4
    sets = {f'reconstruction, {s}' for s in ('seen', 'seen, held out', 'valid', 'test')}
    assert sets | {'pitch within 50 cents'} == {*info['results']}
    assert {*training['curves']} == {'tokenizer', 'transformer', 'transformer_further', 'vocoder', 'classifier'}
    assert training['results']['classifier, test']['notes'] == 2
    classifier_data = json.loads((whole/'weights'/'classifier'/'config.json').read_text())['info']['data']
    assert classifier_data['instruments'] == 27 # without the flutes

def test_no_instrument_and_no_shared_recording_is_on_two_sides(script):
    from mars.data import AdditiveNotes
    notes = AdditiveNotes(None, (60,), (100,))
    tapes = dict(brass_acoustic_801='tape 1', guitar_acoustic_800='tape 1', flute_acoustic_800='tape 2')
    notes.recordings = {instrument: {tape} for instrument, tape in tapes.items()}
    train, valid, test = script.split_by_names(notes, {**SIDES, 'unused': ['reed_*']})
    assert test.instruments == ['brass_acoustic_801', 'guitar_acoustic_800']
    assert valid.instruments == ['organ_electronic_801', 'organ_electronic_802']
    assert 'flute_acoustic_800' in train.instruments and len(train.instruments) == 33 - 4 - 3
    assert not [i for i in train.instruments if i.startswith('reed')]

def test_recipe_matches_the_packaged_weights(script):
    "Shapes and all settings; the number of steps was set by a time limit."
    from dataclasses import asdict
    from mars.tokenizer import TokenizerConfig
    from mars.train import TrainConfig
    from mars.parts.reference import ReferenceVARConfig
    config, small = json.loads((ROOT/'mars/weights/small/config.json').read_text()), script.RECIPES['small']
    not_in_recipe = 'steps', 'seconds', 'save_every'
    def comparable(cfg):
        return {k: tuple(v) if isinstance(v, list) else v for k, v in cfg.items() if k not in not_in_recipe}
    assert TokenizerConfig.preset('small') == TokenizerConfig.from_dict(config['tokenizer'])
    assert ReferenceVARConfig.preset('small', **small['var_config']) == ReferenceVARConfig.from_dict(config['var'])
    for stage, key in dict(tokenizer='train_tokenizer', var='before', further='further', corrected='train_var').items():
        packaged, kind = config['info'][key], 'tokenizer' if stage == 'tokenizer' else 'var'
        recipe = asdict(TrainConfig.preset('small', kind, **small[stage]))
        assert comparable(packaged) == {k: recipe[k] for k in comparable(packaged)}, stage
        assert recipe['steps'] <= packaged['steps']

@pytest.mark.parametrize('stages, message', [
    ('tokeniser', "stage 'tokeniser' is unknown"), ('var', 'stage var needs the stage tokenizer'),
    ('further', 'stage further needs the stage var')])
def test_stages_that_cannot_run_are_refused(run, tmp_path, capsys, stages, message):
    with pytest.raises(SystemExit) as stop: run(tmp_path/'o', '--stages', stages)
    assert stop.value.code == 2 and message in capsys.readouterr().err and not (tmp_path/'o').exists()

def test_a_split_without_these_notes_is_refused(run, tmp_path):
    (tmp_path/'s.json').write_text(json.dumps(dict(model=dict(valid=['organ_*'], test=['piano_*']))))
    with pytest.raises(SystemExit, match='the test side of .* has none of these notes'):
        run(tmp_path/'o', '--stages', 'tokenizer', '--split', str(tmp_path/'s.json'))
