"""Robust training: kill -9, signals, damaged checkpoints, full disks, NaN and infinite losses."""
import json, os, random, shutil, signal, time, traceback
from pathlib import Path
import numpy as np
import pytest, torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from forked import Run
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.codec import Codec
from mars.parts.discriminator import DiscriminatorConfig
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainingModule, TrainConfig, default_callbacks, fit, train_tokenizer, train_var
from mars.training.checkpoints import CheckpointManager, random_state, set_random_state
from mars.training.distributed import make_accelerator
from mars.training.log import RunLog, read_log
from mars.var import VARConfig

STEPS = 40

def train_stage(out, resume, stage, steps=STEPS):
    "Train one stage in a folder, with all state that a checkpoint stores."
    notes = AdditiveNotes(('organ', 'flute'), range(60, 64), (100,))
    common = dict(steps=steps, batch_size=4, log_every=1, save_every=5, ema=0.9)
    how = dict(out=out, progress=False, resume=resume, device='cpu')
    if stage == 'tokenizer':
        cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
        gan = DiscriminatorConfig.preset('tiny', start=0.3, width=8, layers=1, warmup=3, norm='batch', lecam=0.01)
        train = TrainConfig.preset('tiny', revive_every=7, revive_patience=3, **common)
        ls = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)
        train_tokenizer(notes, train, cfg, cmx=CMX(2, 1), spectrogram=ls, discriminator=gan, **how)
    else:
        m, train = Mars.from_pretrained(out, 'cpu'), TrainConfig.preset('tiny', 'var', **common)
        shape = VARConfig.preset('tiny', depth=1, width=32, heads=2, drop_path=0.)
        train_var(notes, m, train, shape, **how)
    print('finished')

def start(out, resume, stage, **kw): return Run(out, train_stage, str(out), resume, stage, **kw)
def finish(out, resume, stage, **kw): return start(out, resume, stage, **kw).wait()
def weights(folder, stage): return (folder/f'{stage}.safetensors').read_bytes()
def files(folder, stage): return CheckpointManager(folder, stage, {}).files()

def when_logged(run, folder, stage, step):
    "Wait until a stage has logged a step."
    while run.alive:
        try:
            if any(r['stage'] == stage and r['step'] >= step for r in read_log(folder)): return
        except FileNotFoundError: pass
        time.sleep(0.002)
    raise AssertionError(run.text)

def strip(rows): return [{k: v for k, v in r.items() if k not in ('seconds', 'notes_per_second', 'memory_mib')} for r in rows]

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "An uninterrupted run of both stages."
    out = tmp_path_factory.mktemp('whole')
    for stage in ('tokenizer', 'var'):
        status, text = finish(out, False, stage)
        assert status == 0, text
    return out

def test_kill_9_at_any_moment(whole, tmp_path):
    rng = random.Random(0)
    for stage in ('tokenizer', 'var'):
        for attempt, step in enumerate((rng.randrange(6, 12), rng.randrange(14, 22), rng.randrange(24, 30))):
            run = start(tmp_path, attempt > 0, stage)
            when_logged(run, tmp_path, stage, step)
            assert run.send(signal.SIGKILL) == -signal.SIGKILL
        status, text = finish(tmp_path, True, stage)
        assert status == 0 and 'finished' in text, text
        assert weights(tmp_path, stage) == weights(whole, stage)
    assert strip(read_log(tmp_path)) == strip(read_log(whole))

def test_sigterm_saves_and_exits(whole, tmp_path):
    run = start(tmp_path, False, 'tokenizer')
    when_logged(run, tmp_path, 'tokenizer', 11)
    assert run.send(signal.SIGTERM) == 143
    done = int(files(tmp_path, 'tokenizer')[0].stem.split('-')[1])
    assert done == read_log(tmp_path)[-1]['step'] + 1 and done > 11
    assert finish(tmp_path, True, 'tokenizer')[0] == 0
    assert weights(tmp_path, 'tokenizer') == weights(whole, 'tokenizer')

def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(whole, tmp_path):
    run = start(tmp_path, False, 'tokenizer')
    when_logged(run, tmp_path, 'tokenizer', 22)
    run.send(signal.SIGKILL)
    newest, _ = files(tmp_path, 'tokenizer')
    newest.write_bytes(newest.read_bytes()[:-1000])
    status, text = finish(tmp_path, True, 'tokenizer')
    assert status == 0 and newest.name in text and 'damaged' in text
    assert weights(tmp_path, 'tokenizer') == weights(whole, 'tokenizer')

def test_a_full_disk_stops_the_run_and_leaves_no_partial_files(tmp_path):
    status, text = finish(tmp_path, False, 'tokenizer', file_limit=200_000)
    assert status == 1 and 'cannot be written' in text.splitlines()[-1]
    assert not list((tmp_path/'checkpoints').iterdir()) and not (tmp_path/'tokenizer.safetensors').exists()
    train_stage(tmp_path, True, 'tokenizer', steps=3) # with room again it starts from the beginning

def test_other_settings_are_refused(whole):
    with pytest.raises(ValueError, match='was made with another train'): train_stage(whole, True, 'tokenizer', steps=STEPS+1)

class Model(torch.nn.Linear):
    "A linear model with fixed initial weights."
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(4, 1)

def square(model, x):
    loss = (model(x) - 1).pow(2).mean()
    return loss, dict(loss=loss.detach())

def run_fit(out=None, factors={}, model=None, resume=False, log=None, extra=(), **kw): # factors: step -> factor of the input
    "Train a linear model -> (model, log); NaN and infinite factors give such losses."
    torch.manual_seed(1)
    model, log, cfg, x = model or Model(), log or RunLog(), TrainConfig.preset('tiny', **{**dict(steps=30, log_every=1), **kw}), torch.randn(8, 4)
    manager = CheckpointManager(out, 'tokenizer', {}, cfg.keep_last) if out else None
    callbacks = default_callbacks(cfg, log, extra=extra, checkpoints=manager, resume=resume)
    fit(TrainingModule(model, square), lambda step, micro_batch: x*factors.get(step, 1.), cfg, callbacks)
    return model, log

class Weights: # a callback
    def __init__(self): self.seen = []
    def before_step(self, learn): self.seen.append(learn.module.model.weight.detach().clone())

@pytest.mark.parametrize('fused', [True, False]) # MPS has no fused optimiser that skips steps
def test_non_finite_steps_are_skipped_and_counted(fused):
    class Fused:
        def setup(self, learn):
            for settings in (learn.opt.defaults, *learn.opt.param_groups): settings['fused'] = fused
    model, log = run_fit(factors={5: np.nan, 6: np.inf, 20: np.nan}, extra=[w := Weights(), Fused()])
    seen = w.seen
    assert log.rows[-1]['skipped'] == 3 and model.weight.isfinite().all()
    assert torch.equal(seen[5], seen[6]) and torch.equal(seen[6], seen[7]) and not torch.equal(seen[7], seen[8])

def test_too_many_non_finite_steps_end_the_run_with_the_last_good_weights(tmp_path):
    with pytest.raises(FloatingPointError, match='for 4 steps up to step 13'):
        run_fit(factors={s: np.nan for s in (3, *range(10, 30))}, max_nonfinite=4)
    w = Weights()
    with pytest.raises(FloatingPointError): # counted in steps that are not logged, and noticed in step 10
        run_fit(tmp_path, factors={s: np.inf for s in range(8, 30)}, max_nonfinite=3, log_every=10, extra=[w])
    step, tensors = CheckpointManager(tmp_path, 'tokenizer', {}).load()
    assert step == 8 and torch.equal(tensors['model/model.weight'], w.seen[8])

def test_random_generators_are_restored():
    random.seed(1); np.random.seed(2); torch.manual_seed(3)
    random.gauss(0, 1); np.random.randn()  # both keep the second of a pair
    state = {k: v.clone() for k, v in random_state(torch.device('cpu')).items()}
    draw = lambda: (random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), torch.rand(3).tolist())
    first = draw()
    set_random_state(state, torch.device('cpu'))
    assert draw() == first

def test_a_truncated_last_line_of_the_log_is_ignored(tmp_path):
    (tmp_path/'metrics.jsonl').write_text(json.dumps(dict(stage='var', step=0)) + '\n{"stage": "va')
    assert [r['step'] for r in read_log(tmp_path)] == [0]

def test_log_and_config_of_a_run(whole):
    rows = read_log(whole)
    assert {r['stage'] for r in rows} == {'tokenizer', 'var'} and len(rows) == 2*STEPS
    for r in rows: assert r['notes_per_second'] > 0 and r['memory_mib'] > 10 and r['skipped'] == 0 and r['grad_norm'] > 0
    info = json.loads((whole/'config.json').read_text())
    text = json.dumps(info)
    assert torch.__version__ in text and '"seed"' in text and 'versions' in text

def test_a_new_run_removes_the_checkpoints_of_an_older_one(tmp_path):
    manager = CheckpointManager(tmp_path, 'tokenizer', {}, keep=2)
    for step in (900, 950): manager.save(step, dict(a=torch.zeros(1)))
    run_fit(tmp_path, steps=12, save_every=5)
    assert [p.name for p in manager.files()] == ['tokenizer-000000010.safetensors', 'tokenizer-000000005.safetensors']

@pytest.mark.parametrize('kw, words', [
    (dict(epochs=-1.), 'epochs must be >= 0, got -1.0'), (dict(save_every=-1), 'save_every must be >= 0, got -1'),
    (dict(keep_last=0), 'keep_last must be >= 1, got 0'), (dict(max_nonfinite=0), 'max_nonfinite must be >= 1, got 0'),
    (dict(accumulate=3), 'accumulate must divide the batch_size of 16, got 3'), (dict(stage='x'), "stage must be one of .*, got 'x'")])
def test_invalid_settings_are_refused(kw, words):
    with pytest.raises(ValueError, match=words): TrainConfig(**kw)

def test_automatic_precision_is_bf16_on_cuda_only(monkeypatch):
    assert make_accelerator('cpu').mixed_precision == 'no' and make_accelerator('cpu', 'bf16').mixed_precision == 'bf16'
    monkeypatch.setattr('mars.training.distributed.pick_device', torch.device)
    assert make_accelerator('mps').mixed_precision == 'no' and make_accelerator('cuda:1').mixed_precision == 'bf16'
    assert make_accelerator('cuda:1', 'fp32').mixed_precision == 'no' and make_accelerator('cuda:1').device == torch.device('cuda:1')
    make_accelerator('cpu')

def test_a_cpu_state_resumes_on_a_gpu(monkeypatch):
    state = random_state(torch.device('cpu'))
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda *a: pytest.fail('there is no state of a GPU in it'))
    set_random_state(state, torch.device('cuda'))

def test_stage_two_resumes_with_its_own_tokenizer_only(whole, tmp_path):
    shutil.copytree(whole, tmp_path/'run')
    config, path = json.loads((tmp_path/'run/config.json').read_text()), tmp_path/'run/tokenizer.safetensors'
    save_file({k: v + 0.01 if k == 'decoder.mask' else v for k, v in load_file(path).items()}, path)
    (tmp_path/'run/config.json').write_text(json.dumps({**config, 'var': None}))
    with pytest.raises(ValueError, match='was made with another tokenizer'): train_stage(tmp_path/'run', True, 'var')

def test_a_resumed_run_continues_its_tracker():
    class Tracker:
        rows, ended = [], False
        def log(self, values, step):
            assert not self.ended
            self.rows.append(step)
        def finish(self): self.ended = True
    log = RunLog(trackers=[t := Tracker()])
    log.rewind('tokenizer', 0)
    run_fit(log=log, steps=3)
    log.close()
    assert t.rows == [0, 1, 2] and t.ended

class SignalAt: # a callback
    def __init__(self, step, event): setattr(self, event, lambda learn: learn.step == step and os.kill(os.getpid(), signal.SIGTERM))

@pytest.mark.parametrize('event', ['after_step', 'after_fit']) # also too late for the last step to notice
def test_sigterm_in_the_last_step(tmp_path, event):
    with pytest.raises(SystemExit) as e: run_fit(tmp_path, steps=5, extra=[SignalAt(4, event)])
    assert e.value.code == 143 and CheckpointManager(tmp_path, 'tokenizer', {}).load()[0] == 5
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert torch.equal(run_fit(tmp_path, steps=5, resume=True)[0].weight, run_fit(steps=5)[0].weight)

def test_a_new_run_in_an_old_folder_restarts_the_log(tmp_path):
    for _ in range(2): run_fit(log=(log := RunLog(tmp_path)), steps=3)[1].close()
    assert [r['step'] for r in read_log(tmp_path)] == [0, 1, 2]

def test_micro_batches_give_the_same_step():
    x, grads = torch.randn(8, 4), []
    for n in (1, 4):
        model, cfg = Model(), TrainConfig(steps=3, batch_size=8, accumulate=n, log_every=1)
        fit(TrainingModule(model, square), lambda step, micro_batch: x[micro_batch::n], cfg, default_callbacks(cfg, log := RunLog()))
        grads.append([(r['loss'], r['grad_norm']) for r in log.rows])
    assert np.allclose(*grads, rtol=1e-5)

def test_averaged_weights_replace_the_trained_ones():
    class Spy:
        def after_fit(self, learn): self.weight = learn.params[0].detach().clone()
    (plain, _), (averaged, _) = run_fit(), run_fit(ema=.9, extra=[spy := Spy()])
    assert torch.equal(spy.weight, plain.weight) and not torch.equal(averaged.weight, plain.weight)

class HostReads(TorchDispatchMode):
    "Counts operations that wait for a GPU, that is, read tensor values on the host."
    READS = {'aten._local_scalar_dense.default', 'aten.nonzero.default', 'aten.is_nonzero.default', 'aten.equal.default', 'aten.masked_select.default'}
    def __init__(self): super().__init__(); self.reads, self.on = [], False
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.on and str(func) in self.READS: self.reads.append(''.join(traceback.format_stack(limit=6)[:-1]))
        return func(*args, **(kwargs or {}))
    def before_step(self, learn): self.on = not learn.logging
    def after_fit(self, learn): self.on = False

@pytest.mark.parametrize('stage', ['tokenizer', 'gan', 'var'])
def test_unlogged_steps_do_not_synchronise_with_the_device(stage, monkeypatch):
    monkeypatch.setattr('mars.train.default_callbacks', lambda *a, **kw: [reads, *default_callbacks(*a, **kw)])
    notes, train = AdditiveNotes(('organ', 'flute'), range(60, 64), (100,)), dict(steps=5, batch_size=4, log_every=4, ema=.9, revive_every=0)
    cfg, ls = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4)), LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)
    how, transforms = dict(device='cpu', progress=False), dict(cmx=CMX(2, 1), spectrogram=ls)
    with HostReads() as reads:
        if stage == 'var': train_var(notes, Codec(Tokenizer(cfg), **transforms), TrainConfig.preset('tiny', 'var', **train), VARConfig.preset('tiny', depth=1, drop_path=.1), **how)
        else: train_tokenizer(notes, TrainConfig.preset('tiny', **train), cfg, discriminator=DiscriminatorConfig.preset('tiny', start=0., width=8, layers=1) if stage == 'gan' else None, **transforms, **how)
    assert not reads.reads, f'{len(reads.reads)} reads, the first:\n{reads.reads[0]}'
