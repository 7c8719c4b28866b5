"""Runs that are killed, odd files, damaged downloads, bounded memory: what users of such a program meet."""
import builtins, io, json, os, shutil, time
from pathlib import Path
import numpy as np
import pytest, torch
import mars.parts.files as files
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.files import JOURNAL, finish_save, make_folder, save_together, sweep, temporary_path
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, train_var
from mars.var import VAR, VARConfig

CFG = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
LS = dict(n_fft=128, hop_length=64, n_frames=32)
VAR_SHAPE = dict(depth=1, width=32, heads=2, drop_path=0.)

def make(seed=0, var=True):
    torch.manual_seed(seed)
    tok = Tokenizer(CFG)
    return Mars(tok, VAR(VARConfig.preset('tiny', **VAR_SHAPE), CFG).bind(tok) if var else None, spectrogram=LogSpectrogram(**LS), cmx=CMX(2, 1), info=dict(seed=seed))

# --- kill -9 at every file operation

class Kill(BaseException): "Stands for `kill -9`: from here on the process does nothing to any file."

OPERATIONS = [(os, name) for name in ('open', 'replace', 'rename', 'unlink', 'mkdir', 'rmdir', 'fsync')] + [(builtins, 'open'), (io, 'open')]
WRITING = os.O_WRONLY | os.O_RDWR

def killed_at(n, monkeypatch, f):
    "Run a function and kill it at its file operation n -> True, or False if it ended before."
    left, dead = [n], []
    def guarded(owner, name, real):
        def run(*args, **kw):
            if name == 'open':
                mode = args[1] if len(args) > 1 else kw.get('mode', kw.get('flags', 'r'))
                if not (mode & WRITING if isinstance(mode, int) else set(mode) & set('wax+')): return real(*args, **kw)
            left[0] -= 1
            if left[0] < 0:
                dead.append(name)
                raise Kill
            return real(*args, **kw)
        return run
    with monkeypatch.context() as patch:
        for owner, name in OPERATIONS: patch.setattr(owner, name, guarded(owner, name, getattr(owner, name)))
        try: f()
        except BaseException:
            if not dead: raise
    return bool(dead)

def every_kill(monkeypatch, prepare, f):
    "Yield after every kill, with everything prepared before each; the last one is the run that is not killed."
    for n in range(1000):
        prepare()
        dead = killed_at(n, monkeypatch, f)
        monkeypatch.setattr(files, '_is_running', lambda pid: False)
        yield n
        monkeypatch.undo()
        if not dead: return
    raise AssertionError('it does not end')

def fresh(folder, *models):
    shutil.rmtree(folder, ignore_errors=True)
    for m in models: m.save_pretrained(folder)

def weights_of(m): return {k: v.clone() for net in (m.tokenizer, m.var) if net is not None for k, v in net.state_dict().items()}
def same(a, b): return (a.var is None) == (b.var is None) and all(torch.equal(v, weights_of(b)[k]) for k, v in weights_of(a).items())

@pytest.mark.parametrize('before, after', [(None, 'full'), ('tokenizer', 'full'), ('full', 'other'), ('full', 'other tokenizer')])
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(before, after, tmp_path, monkeypatch):
    models = dict(full=make(0), tokenizer=make(0, var=False), other=make(1))
    models['other tokenizer'] = make(1, var=False)
    out, seen = tmp_path/'m', set()
    for n in every_kill(monkeypatch, lambda: fresh(out, *([models[before]] if before else [])), lambda: models[after].save_pretrained(out)):
        if before is None and not (out/'config.json').exists() and not (out/JOURNAL).exists(): continue
        m = Mars.from_pretrained(out)
        seen.add(m.info['seed'] if m.var is not None else ('tokenizer', m.info['seed']))
        assert any(same(m, models[k]) and m.info == models[k].info for k in (before, after) if k), n
        sweep(out)
        assert not [p.name for p in out.iterdir() if p.name.startswith('.')] and same(Mars.from_pretrained(out), m)
    assert n > 8 and len(seen) == (2 if before else 1)
    assert same(m, models[after])

def test_stage_two_leaves_the_files_of_stage_one_alone(tmp_path):
    make(0, var=False).save_pretrained(tmp_path)
    before = (tmp_path/'tokenizer.safetensors').stat()
    m = Mars.from_pretrained(tmp_path)
    Mars(m.tokenizer, make(0).var, m.cmx, m.spectrogram).save_pretrained(tmp_path)
    after = (tmp_path/'tokenizer.safetensors').stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns) and Mars.from_pretrained(tmp_path).var is not None

@pytest.mark.parametrize('kind', ['classifier', 'vocoder', 'flow'])
def test_other_models_are_saved_as_a_whole_too(kind, tmp_path, monkeypatch):
    from mars.baselines.flow import Flow, FlowConfig, FlowMars
    from mars.parts.classifier import Classifier, ClassifierConfig
    from mars.parts.vocoder import Vocoder, VocoderConfig
    def new(seed):
        torch.manual_seed(seed)
        if kind == 'classifier': return Classifier(ClassifierConfig.preset('tiny'))
        if kind == 'vocoder': return Vocoder(VocoderConfig.preset('tiny'))
        return FlowMars(Flow(FlowConfig.preset('tiny', depth=1, width=32, heads=2)))
    load = dict(classifier=lambda: Classifier.from_pretrained(tmp_path/'m'), vocoder=lambda: Vocoder.from_pretrained(tmp_path/'m'), flow=lambda: FlowMars.from_pretrained(tmp_path/'m'))[kind]
    def state(m): return (m.var if kind == 'flow' else m).state_dict()
    def save(m): m.save(tmp_path/'m') if kind == 'vocoder' else m.save_pretrained(tmp_path/'m')
    def equal(a, b): return all(torch.equal(v, state(b)[k]) for k, v in state(a).items())
    old, m = new(0), new(1)
    def prepare():
        shutil.rmtree(tmp_path/'m', ignore_errors=True)
        save(old)
    for _ in every_kill(monkeypatch, prepare, lambda: save(m)): assert equal(load(), old) or equal(load(), m)
    assert equal(load(), m)

def test_a_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    make(0).save_pretrained(tmp_path)
    for n in range(4):
        written = iter(range(n))
        def fsync(fd):
            if next(written, None) is None: raise OSError(28, 'No space left on device')
        with monkeypatch.context() as patch:
            patch.setattr(os, 'fsync', fsync)
            with pytest.raises(ValueError, match='cannot be written .No space left on device'): make(1).save_pretrained(tmp_path)
        assert same(Mars.from_pretrained(tmp_path), make(0)) and not [p for p in tmp_path.iterdir() if p.name.startswith('.')]

def test_a_journal_moves_files_of_its_own_folder_only(tmp_path):
    out, victim = tmp_path/'m', tmp_path/'victim'
    make(0).save_pretrained(out)
    victim.write_text('mine')
    left = temporary_path(out/'x')
    left.write_text('theirs')
    for changes in ({'../victim': left.name}, {'../victim': None}, {'config.json': '../victim'}, {'config.json': 'README.md'}):
        (out/JOURNAL).write_text(json.dumps(changes))
        assert same(Mars.from_pretrained(out), make(0)) and victim.read_text() == 'mine' and left.exists()

# --- what killed runs left

def dead_name(path, suffix='.part'): return (p := temporary_path(path, suffix)).with_name(p.name.replace(f'-{os.getpid()}-', '-4999999-'))

def test_the_next_run_sweeps_what_a_killed_one_left(tmp_path):
    mine, others = [temporary_path(tmp_path/'a'), tmp_path/'.hidden', tmp_path/'.a.part'], [dead_name(tmp_path/'b'), dead_name(tmp_path/'notes', '.notes')]
    for path in (*mine, others[0]): path.write_text('x')
    others[1].mkdir()
    (others[1]/'row').write_text('x')
    make_folder(tmp_path)
    assert all(p.exists() for p in mine) and not any(p.exists() for p in others)
    far = tmp_path/('.c.ffffffff-1-00000000.part')
    far.write_text('x')
    sweep(tmp_path)
    assert far.exists() # of another machine, which may still be writing
    os.utime(far, (0, 0))
    sweep(tmp_path)
    assert not far.exists()

def test_the_probe_and_temporary_files_touch_nothing_of_the_user(tmp_path):
    (tmp_path/'.probe').write_text('mine')
    (tmp_path/'target').write_text('target')
    make_folder(tmp_path)
    assert (tmp_path/'.probe').read_text() == 'mine'
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool: assert len(list(pool.map(make_folder, [tmp_path/'new']*40))) == 40
    real = files.temporary_path
    def planted(path, suffix='.part'): # as if somebody had guessed the name
        path = real(path, suffix)
        path.symlink_to(tmp_path/'target')
        return path
    files.temporary_path = planted
    try:
        with pytest.raises(ValueError, match='cannot be written'): files.write_atomic(tmp_path/'a', 'x')
    finally: files.temporary_path = real
    assert (tmp_path/'target').read_text() == 'target' and not (tmp_path/'a').exists()
