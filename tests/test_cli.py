"""The `mars` command as a process: help without torch, errors, real Ctrl-C, broken pipes, one JSON object."""
import json, os, pty, signal, subprocess, sys, time
from pathlib import Path
import pytest
from mars.cli import EXAMPLES, GROUPS, bars, field_docs, main, parser, plain

ROOT = Path(__file__).resolve().parent.parent
RUN = 'import sys; from mars.cli import main; raise SystemExit(main())'
FEW = ['--data', 'additive', '--families', 'organ', '--pitches', '60-63', '--velocities', '100']
SMALL = ['--image-shape', '2,256,256', '--width', '32', '--encoder-depth', '1', '--decoder-depth', '1', '--codebook-size', '16', '--warm-start', '8', '--batch-size', '2', '--log-every', '1']

def start(*argv, code=RUN, **kw):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'}
    # pytest itself may run with SIGINT ignored, which children inherit
    return subprocess.Popen([sys.executable, '-c', code, *map(str, argv)], env=env, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                            **{**dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE), **kw})

def finish(p, seconds=300): out, err = p.communicate(timeout=seconds); return p.returncode, out, err

def wait_for(condition, p, seconds=100):
    end = time.monotonic() + seconds
    while not condition():
        assert p.poll() is None, p.communicate()
        assert time.monotonic() < end, 'it never came so far'
        time.sleep(.02)

# --- help

@pytest.mark.parametrize('argv', [['--help'], ['--version'], ['generate', '--help'], ['evaluate', '--help'], ['train', '--help'], ['data', '--help']])
def test_help_loads_nothing_heavy(argv):
    code = f'import sys\nfrom mars.cli import main\ntry: main({argv})\nexcept SystemExit: pass\nprint(sorted({{m.split(".")[0] for m in sys.modules}} & {{"torch", "numpy", "pandas", "scipy", "soundfile", "fastprogress", "huggingface_hub", "accelerate"}}), file=sys.stderr)'
    status, out, err = finish(start(code=code))
    assert (status, err.strip()) == (0, '[]') and out.startswith(('usage: mars', 'mars '))

def test_the_listing_has_each_verb_on_one_line(capsys):
    with pytest.raises(SystemExit) as e: main(['--help'])
    lines = capsys.readouterr().out.splitlines()
    verbs = next(a for a in parser()._actions if a.dest == 'verb').choices
    assert e.value.code == 0 and max(map(len, lines)) <= 88
    for v in verbs: assert len([x for x in lines if x.startswith(f'  {v} ')]) == 1, v
    assert [x for x in lines if x.startswith('  mars demo')]

@pytest.mark.parametrize('verb', [v for names in GROUPS.values() for v in names] + [f'train {s}' for s in ('tokenizer', 'var', 'vocoder', 'classifier', 'sat', 'aar', 'magnet', 'ar')])
def test_every_verb_explains_itself(verb, capsys):
    if verb not in next(a for a in parser()._actions if a.dest == 'verb').choices and ' ' not in verb: pytest.skip('not there yet')
    with pytest.raises(SystemExit) as e: main([*verb.split(), '--help'])
    out = capsys.readouterr().out
    assert e.value.code == 0 and out.startswith(f'usage: mars {verb} ') and 'example:' in out and '--json' in out or verb == 'train'
    assert 'SUPPRESS' not in out and 'MISSING' not in out and 'default: None' not in out and 'default: False)' not in out.split('fields of')[0]

def test_examples_are_commands_that_parse():
    "All but what names data of the reader's"
    for name, text in EXAMPLES.items():
        for line in text.splitlines():
            words = line.split()
            assert words[0] == 'mars'
            if words[1] in next(a for a in parser()._actions if a.dest == 'verb').choices: assert parser().parse_args(words[1:]).verb == words[1]

def test_fields_have_help_and_defaults_by_size(capsys):
    from mars.train import TrainConfig
    assert field_docs(TrainConfig)['steps'] == 'optimiser steps'
    with pytest.raises(SystemExit): main(['train', 'tokenizer', '--help'])
    out = ' '.join(capsys.readouterr().out.split())
    assert '--steps INT optimiser steps (default: tiny 600, small 6000,' in out and 'fields of AdversaryConfig' in out

def test_version(capsys):
    import mars
    with pytest.raises(SystemExit) as e: main(['--version'])
    assert e.value.code == 0 and capsys.readouterr().out == f'mars {mars.__version__}\n'

# --- refusals

@pytest.mark.parametrize('argv, said', [
    ((), 'required: VERB'), (('generat',), 'did you mean generate?'), (('sing',), 'choose one of demo'), (('generate', '--phase', 'moon'), "'moon' is no --phase"), (('generate', '--n', 'x'), 'invalid int'),
    (('demo',), 'required: --out'), (('train', 'tokenizer'), 'required: --out'), (('train', 'tokeniser', '--out', 'x'), 'did you mean tokenizer?'), (('ablate', 'cmy'), 'did you mean cmx?'),
    (('generate', '--nonsense'), 'unrecognized arguments: --nonsense')])
def test_the_parser_refuses_in_one_sentence(argv, said, capsys):
    with pytest.raises(SystemExit) as e: main([*argv])
    out, err = capsys.readouterr()
    assert e.value.code == 2 and out == '' and said in err and len(err.strip().splitlines()) == 1 and err.startswith('mars: ')

def test_errors_without_a_text_and_unknown_ones(monkeypatch, capsys):
    import mars.cli as cli
    def raising(e):
        def run(a): raise e
        monkeypatch.setattr(cli, 'run_data', run)
    for e in (ValueError('one\ntwo'), OSError(), MemoryError()):
        raising(e)
        if isinstance(e, MemoryError):
            with pytest.raises(MemoryError): main(['data', 'nsynth']) # not foreseen: a traceback helps more
        else: assert main(['data', 'nsynth']) == 2 and capsys.readouterr().err == f'mars: {"one" if str(e) else "OSError"}\n'

# --- stdout is the result's

def test_one_json_object_and_nothing_else(monkeypatch, capsys):
    import mars.cli as cli
    def run(a):
        print('noise'); import warnings; warnings.warn('mind')
        return dict(x=float('nan'), y=[1, Path('p')]), 'a line'
    monkeypatch.setattr(cli, 'run_data', run)
    assert main(['data', 'nsynth', '--json']) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == dict(x=None, y=[1, 'p']) and out.count('\n') == 1 and 'noise' in err and 'mars: mind' in err
    assert main(['data', 'nsynth']) == 0 and capsys.readouterr().out == 'a line\n'

def test_plain():
    import numpy as np, torch
    assert plain(dict(a=np.float32(2), b=torch.tensor([1, 2]), c=(float('inf'),), d={1: True})) == dict(a=2., b=[1, 2], c=[None], d={'1': True})

def test_bars_draw_on_a_terminal_alone(capsys):
    import fastprogress.fastprogress as fp
    before = fp.progress_bar
    for on in (False, True):
        with bars(on):
            bar = fp.progress_bar(range(3))
            for _ in bar: bar.comment = 'loss'
        assert ('100.00%' in capsys.readouterr().out) == on
    assert fp.progress_bar is before

BAR = '''
import sys, mars.cli as cli
def run(a):
    from fastprogress.fastprogress import progress_bar
    for _ in progress_bar(range(3)): pass
    return dict(done=3), 'done'
cli.run_data = run
raise SystemExit(cli.main())'''

def test_a_terminal_sees_bars_on_stderr():
    "With a real pseudo-terminal for stderr"
    for argv, drawn in ((['data', 'nsynth'], True), (['data', 'nsynth', '--json'], False)):
        master, slave = pty.openpty()
        p = start(*argv, code=BAR, stderr=slave)
        out = p.communicate(timeout=100)[0]
        os.close(slave)
        try: seen = os.read(master, 65536).decode()
        except OSError: seen = ''
        os.close(master)
        assert p.returncode == 0 and ('100.00%' in seen) == drawn, seen
        assert out == ('done\n' if drawn else '{"done": 3}\n')
    status, out, err = finish(start('data', 'nsynth', code=BAR))
    assert (status, out, err) == (0, 'done\n', '')

# --- pipes

@pytest.mark.parametrize('argv', [['--help'], ['data', 'nsynth', '--json'], ['data', 'nsynth']])
def test_a_reader_that_went_away(argv):
    read, write = os.pipe()
    p = start(*argv, code=BAR, stdout=write)
    os.close(read); os.close(write)
    err = p.communicate(timeout=100)[1]
    assert (p.returncode, err) == (141, '')

# --- Ctrl-C, by a real SIGINT

def test_ctrl_c_in_training_saves_and_resumes(tmp_path, capsys):
    out = tmp_path/'run folder'
    argv = ['train', 'tokenizer', '--out', out, *FEW, *SMALL, '--steps', '60', '--json']
    p = start(*argv)
    wait_for(lambda: (out/'metrics.jsonl').exists() and (out/'metrics.jsonl').stat().st_size > 200, p, 300)
    p.send_signal(signal.SIGINT)
    status, said, err = finish(p)
    assert (status, said) == (130, '') and len(err.splitlines()) == 1, err
    kept, = (out/'checkpoints').iterdir()
    steps = int(kept.stem.split('-')[1])
    assert 0 < steps < 60 and err.startswith(f'mars: interrupted; {steps} steps are kept, go on with: mars train tokenizer --out ') and f"'{out}'" in err and err.endswith('--resume\n')
    assert not [f for f in out.rglob('*') if f.name.endswith('.part')] and not (out/'config.json').exists()
    assert main([*map(str, argv), '--resume']) == 0 and json.loads(capsys.readouterr().out)['steps'] == 60
    rows = [json.loads(x)['step'] for x in (out/'metrics.jsonl').read_text().splitlines()]
    assert rows == list(range(60)) and (out/'config.json').exists() # went on from where it was

WAIT = '''
import sys, time, mars.cli as cli
def run(a):
    print('ready', file=sys.stderr, flush=True)
    {body}
cli.run_data = run
raise SystemExit(cli.main())'''

@pytest.mark.parametrize('body', ['time.sleep(60)', 'try: time.sleep(60)\n    except KeyboardInterrupt as e: raise ImportError("torn out of an import")', 'import threading; threading.Event().wait(60)'])
def test_ctrl_c_elsewhere(body):
    p = start('data', 'nsynth', code=WAIT.format(body=body))
    assert p.stderr.readline() == 'ready\n'
    began = time.monotonic()
    p.send_signal(signal.SIGINT)
    assert finish(p) == (130, '', 'mars: interrupted\n') and time.monotonic() - began < 20

def test_ctrl_c_while_a_file_is_written(tmp_path, monkeypatch):
    from mars.parts.files import write_whole
    (tmp_path/'a').write_text('old')
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(os, 'fsync', stop)
    with pytest.raises(KeyboardInterrupt): write_whole(tmp_path/'a', 'new')
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('a', 'old')]

def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit): main(['--version'])
    assert signal.getsignal(signal.SIGINT) is before

def test_sigterm_keeps_its_own_status(tmp_path):
    p = start('data', 'nsynth', code=WAIT.format(body='raise SystemExit(143)'))
    assert finish(p)[0] == 143

@pytest.mark.parametrize('out', [['--out', 'OUT'], ['--out=OUT']])
def test_an_interrupted_run_says_how_to_go_on(tmp_path, out):
    from mars.cli import how_to_go_on
    (tmp_path/'checkpoints').mkdir()
    (tmp_path/'checkpoints'/'tokenizer-000000012.safetensors').touch()
    argv = ['train', 'tokenizer', *(x.replace('OUT', str(tmp_path)) for x in out)]
    said = how_to_go_on(argv)
    assert said.startswith('; 12 steps are kept') and said.endswith(f'{argv[-1]} --resume') and how_to_go_on(['generate', *argv[2:]]) == ''
