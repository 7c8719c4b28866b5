"""The `mars` command as a process: help without torch, errors, real Ctrl-C, broken pipes, one JSON object."""
import json, os, pty, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest
from mars.cli import main
from mars.cli.arguments import field_docs
from mars.cli.dispatch import COMMANDS, Interrupt, parser, progress_bars, resume_hint, to_json

ROOT = Path(__file__).resolve().parent.parent
RUN = 'import sys; from mars.cli import main; raise SystemExit(main())'
FEW = ['--data', 'additive', '--families', 'organ', '--pitches', '60-63', '--velocities', '100']
SMALL = ['--image-shape', '2,256,256', '--width', '32', '--encoder-depth', '1', '--decoder-depth', '1', '--codebook-size', '16',
         '--warm-start', '8', '--batch-size', '2', '--log-every', '1']
STAGES = [c.name for c in COMMANDS['train'].stages]

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
        assert time.monotonic() < end, 'timeout'
        time.sleep(.02)

# --- help

HEAVY = 'torch', 'numpy', 'pandas', 'scipy', 'soundfile', 'fastprogress', 'huggingface_hub', 'accelerate'
LIGHT = [['--help'], ['--version'], ['generate', '--help'], ['evaluate', '--help'], ['train', '--help'], ['data', '--help']]

def test_help_loads_nothing_heavy():
    code = f'''
import sys
from mars.cli import main
for argv in {LIGHT}:
    try: main(argv)
    except SystemExit as e: assert e.code == 0
    print(argv, sorted({{m.split(".")[0] for m in sys.modules}} & {set(HEAVY)}), file=sys.stderr)'''
    status, out, err = finish(start(code=code))
    assert (status, err.splitlines()) == (0, [f'{argv} []' for argv in LIGHT]) and out.startswith('usage: mars ')

def test_help_lists_each_subcommand_on_one_line(capsys):
    with pytest.raises(SystemExit) as e: main(['--help'])
    lines = capsys.readouterr().out.splitlines()
    assert e.value.code == 0 and max(map(len, lines)) <= 88 and not [x for x in lines if '[...]' in x]
    for name in COMMANDS: assert len([x for x in lines if x.startswith(f'  {name} ')]) == 1, name
    assert [x for x in lines if x.startswith('  mars demo')]

@pytest.mark.parametrize('name', [*COMMANDS, *(f'train {s}' for s in STAGES)])
def test_every_subcommand_has_help(name, capsys):
    with pytest.raises(SystemExit) as e: main([*name.split(), '--help'])
    out = capsys.readouterr().out
    assert e.value.code == 0 and out.startswith(f'usage: mars {name} ') and '\nexample' in out and '--json' in out
    assert 'SUPPRESS' not in out and 'MISSING' not in out and 'default: None' not in out
    assert 'default: False)' not in out.split('fields of')[0]

@pytest.mark.parametrize('name, flags', [('generate', ['--pitch 0..127', '--velocity 1..127', '--top-p 0..1', '--temperature X', '--set NAME=VALUE']),
    ('evaluate', ['--n-resamples N', '--pitches 0..127']), ('edit', ['--time START,END', '--freq LOW,HIGH']), ('export', ['--release SECONDS']),
    ('app', ['--port 0..65535']), ('train tokenizer', ['--disc-weight FLOAT', '--memory GIB', '--lr FLOAT']), ('train sat', ['--rvq K', '--disc-weight'])])
def test_help_shows_units_and_ranges(name, flags, capsys):
    with pytest.raises(SystemExit): main([*name.split(), '--help'])
    out = capsys.readouterr().out
    for flag in flags: assert f'  {flag}' in out, flag

def test_examples_parse():
    for command in [*COMMANDS.values(), *COMMANDS['train'].stages]:
        assert command.examples, command.name
        for line in command.examples:
            program, *argv = line.split()
            assert program == 'mars' and parser().parse_args(argv).subcommand == argv[0]

def test_fields_have_help_and_defaults_by_size(capsys):
    from mars.train import TrainConfig
    assert field_docs(TrainConfig)['steps'] == 'optimiser steps'
    with pytest.raises(SystemExit): main(['train', 'tokenizer', '--help'])
    out = ' '.join(capsys.readouterr().out.split())
    assert '--steps INT optimiser steps (>= 1; default: tiny 600, small 6000,' in out and 'fields of DiscriminatorConfig' in out

def test_version(capsys):
    import mars
    with pytest.raises(SystemExit) as e: main(['--version'])
    assert e.value.code == 0 and capsys.readouterr().out == f'mars {mars.__version__}\n'

# --- refusals

@pytest.mark.parametrize('argv, message', [
    ((), 'required: SUBCOMMAND'), (('generat',), "got 'generat'; did you mean generate?"), (('sing',), 'subcommand must be one of demo'),
    (('generate', '--phase', 'moon'), "--phase must be one of griffinlim, pghi, vocoder, got 'moon'"),
    (('generate', '--n', 'x'), "--n must be a whole number, got 'x'"), (('generate', '--pitch', '60,200'), '--pitch must be in 0..127, got 200'),
    (('generate', '--pitch', '64-60'), 'the lower end of a range first'), (('generate', '--top-p', '1.5'), '--top-p must be in 0..1, got 1.5'),
    (('generate', '--temperature', 'nan'), '--temperature must be >= 0, got nan'), (('generate', '--set', 'steps'), 'must be like name=value'),
    (('app', '--port', '70000'), '--port must be in 0..65535, got 70000'), (('edit', 'x.wav', '--time', '1-2'), 'two numbers'),
    (('demo',), 'required: --out'), (('train', 'tokenizer'), 'required: --out'), (('ablate', 'cmy'), 'did you mean cmx?'),
    (('train', 'tokeniser', '--out', 'x'), 'did you mean tokenizer?'), (('generate', '--nonsense'), 'unrecognized arguments: --nonsense')])
def test_parser_errors_are_one_sentence(argv, message, capsys):
    with pytest.raises(SystemExit) as e: main([*argv])
    out, err = capsys.readouterr()
    assert e.value.code == 2 and out == '' and message in err and len(err.strip().splitlines()) == 1 and err.startswith('mars: ')

def use(monkeypatch, run): # in the place of what `mars data` does
    monkeypatch.setitem(COMMANDS, 'data', replace(COMMANDS['data'], run=run))

@pytest.mark.parametrize('error, line', [(ValueError('one\ntwo'), 'one'), (OSError(), 'OSError'), (ValueError('x\x00'), 'x\x00'),
    (MemoryError(), 'this needs more memory than there is; use smaller sizes, a shorter file or fewer notes'), (RecursionError(), 'an input is nested too deeply')])
def test_errors_are_one_sentence(monkeypatch, capsys, error, line):
    def run(a): raise error
    use(monkeypatch, run)
    assert main(['data', 'nsynth']) == 2 and capsys.readouterr().err == f'mars: {line}\n'

def test_unexpected_errors_keep_their_traceback(monkeypatch):
    def run(a): raise AssertionError
    use(monkeypatch, run)
    with pytest.raises(AssertionError): main(['data', 'nsynth'])

# --- stdout is the result's

def test_json_prints_one_object_only(monkeypatch, capsys):
    def run(a):
        print('noise'); import warnings; warnings.warn('mind')
        return dict(x=float('nan'), y=[1, Path('p')]), 'a line'
    use(monkeypatch, run)
    assert main(['data', 'nsynth', '--json']) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == dict(x=None, y=[1, 'p']) and out.count('\n') == 1 and 'noise' in err and 'mars: mind' in err
    assert main(['data', 'nsynth']) == 0 and capsys.readouterr().out == 'a line\n'

def test_to_json():
    import numpy as np, torch
    assert to_json(dict(a=np.float32(2), b=torch.tensor([1, 2]), c=(float('inf'),), d={1: True})) == dict(a=2., b=[1, 2], c=[None], d={'1': True})

def test_progress_bars_are_shown_on_a_terminal_only(capsys):
    import fastprogress.fastprogress as fp
    before = fp.progress_bar
    for on in (False, True):
        with progress_bars(on):
            bar = fp.progress_bar(range(3))
            for _ in bar: bar.comment = 'loss'
        assert ('100.00%' in capsys.readouterr().out) == on
    assert fp.progress_bar is before

FAKE = '''
import sys, threading, time
from dataclasses import replace
from mars.cli import main
from mars.cli.dispatch import COMMANDS
def run(a):
    {body}
COMMANDS['data'] = replace(COMMANDS['data'], run=run)
raise SystemExit(main())'''
BAR = FAKE.format(body="""from fastprogress.fastprogress import progress_bar
    for _ in progress_bar(range(3)): pass
    return dict(done=3), 'done'""")

def test_progress_bars_go_to_stderr():
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
def test_closed_pipe_ends_without_a_traceback(argv):
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
    status, stdout, err = finish(p)
    assert (status, stdout) == (130, '') and len(err.splitlines()) == 1, err
    checkpoint, = (out/'checkpoints').iterdir()
    steps = int(checkpoint.stem.split('-')[1])
    assert 0 < steps < 60 and err.startswith(f'mars: interrupted; a checkpoint holds {steps} steps, continue with: mars train tokenizer --out ') and f"'{out}'" in err and err.endswith('--resume\n')
    assert not [f for f in out.rglob('*') if f.name.endswith('.part')] and not (out/'config.json').exists()
    assert main([*map(str, argv), '--resume']) == 0 and json.loads(capsys.readouterr().out)['steps'] == 60
    rows = [json.loads(x)['step'] for x in (out/'metrics.jsonl').read_text().splitlines()]
    assert rows == list(range(60)) and (out/'config.json').exists() # went on from where it was

WAIT = FAKE.replace('    {body}', "    print('ready', file=sys.stderr, flush=True)\n    {body}")

@pytest.mark.parametrize('body', ['time.sleep(60)', 'try: time.sleep(60)\n    except KeyboardInterrupt as e: raise ImportError("torn out of an import")', 'import threading; threading.Event().wait(60)'])
def test_ctrl_c_outside_training(body):
    p = start('data', 'nsynth', code=WAIT.format(body=body))
    assert p.stderr.readline() == 'ready\n'
    began = time.monotonic()
    p.send_signal(signal.SIGINT)
    assert finish(p) == (130, '', 'mars: interrupted\n') and time.monotonic() - began < 20

def test_ctrl_c_while_a_file_is_written(tmp_path, monkeypatch):
    from mars.parts.files import write_atomic
    (tmp_path/'a').write_text('old')
    def stop(*args): raise KeyboardInterrupt
    monkeypatch.setattr(os, 'fsync', stop)
    with pytest.raises(KeyboardInterrupt): write_atomic(tmp_path/'a', 'new')
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('a', 'old')]

def test_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit): main(['--version'])
    assert signal.getsignal(signal.SIGINT) is before

def test_sigterm_has_its_own_exit_status(tmp_path):
    p = start('data', 'nsynth', code=WAIT.format(body='raise SystemExit(143)'))
    assert finish(p)[0] == 143

@pytest.mark.parametrize('out', [['--out', 'OUT'], ['--out=OUT']])
def test_an_interrupted_run_prints_how_to_resume(tmp_path, out):
    (tmp_path/'checkpoints').mkdir()
    (tmp_path/'checkpoints'/'tokenizer-000000012.safetensors').touch()
    argv = ['train', 'tokenizer', *(x.replace('OUT', str(tmp_path)) for x in out)]
    hint = resume_hint(argv)
    assert hint.startswith('; a checkpoint holds 12 steps') and hint.endswith(f'{argv[-1]} --resume') and resume_hint(['generate', *argv[2:]]) == ''

def test_ctrl_c_calls_the_sigterm_handler():
    seen, old = [], signal.signal(signal.SIGTERM, lambda *args: seen.append(args[0]))
    try:
        interrupt = Interrupt()
        interrupt.seen = 0
        interrupt.notice()
        assert seen == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt): interrupt.notice() # the second one stops at once
    finally: signal.signal(signal.SIGTERM, old)

def test_training_continues_from_the_weights_of_a_model(tmp_path, capsys):
    "--init takes tokenizer and transformer, --augment doubles the notes, levers of self-correction are flags."
    from mars.pipeline import Mars
    a, b = str(tmp_path/'a'), str(tmp_path/'b')
    data = ['--data', 'additive', '--families', 'guitar,flute', '--pitches', '60-61', '--velocities', '100', '--steps', '2', '--batch-size', '4', '--json']
    for argv in (['tokenizer', '--out', a], ['var', '--out', a], ['tokenizer', '--init', a, '--out', b],
                 ['var', '--init', a, '--augment', '1', '--self-correction', '0.3', '--dropout', '0.1', '--out', b]):
        assert main(['train', *argv, *data]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line['notes'] for line in lines] == [12, 12, 12, 24]
    info = Mars.from_pretrained(b).info
    assert info['objective']['self_correction'] == 0.3 and Mars.from_pretrained(b).var.cfg.dropout == 0.1
    assert main(['train', 'tokenizer', '--init', a, '--width', '32', '--out', str(tmp_path/'c'), *data]) == 2
    assert 'fixes the shape; omit --width or --init' in capsys.readouterr().err
