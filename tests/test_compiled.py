"""The compiled step computes what the plain loop computes, without waiting for the device."""
import warnings
from types import SimpleNamespace
import pytest, torch
import mars.train
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.codec import Codec
from mars.parts.discriminator import DiscriminatorConfig
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, TrainingModule, default_callbacks, fit, train_tokenizer, train_var
from mars.training import compiled
from mars.training.compiled import CompiledStep, DeviceNotes, StepCounter, plain_reason, record_graph
from mars.training.log import RunLog
from mars.training.self_correction import CorrectionConfig, SelfCorrection
from mars.var import VARConfig

SHAPE = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
TRANSFORMS = dict(cmx=CMX(2, 1), spectrogram=LogSpectrogram(n_fft=128, hop_length=64, n_frames=32))

def train_stage(stage, compile, steps=20, out=None, resume=False, discriminator=None, log=None, **kw):
    "Train a stage of fixed random notes -> (rows of the log, trained model)."
    notes, log = AdditiveNotes(('organ', 'flute'), range(60, 64), (100,)), log or RunLog()
    cfg = dict(steps=steps, batch_size=8, log_every=4, ema=.99, revive_every=7, revive_patience=3, save_every=6, compile=compile)
    cfg = TrainConfig.preset('tiny', 'tokenizer' if stage == 'tokenizer' else 'var', **{**cfg, **kw})
    how = dict(log=log, out=out, resume=resume, device='cpu', progress=False)
    if stage == 'tokenizer': model = train_tokenizer(notes, cfg, SHAPE, discriminator=discriminator, **TRANSFORMS, **how)
    else:
        torch.manual_seed(0)
        objective = SelfCorrection(CorrectionConfig(self_correction=.3)) if stage == 'objective' else None
        var = VARConfig.preset('tiny', depth=1, drop_path=.1, dropout=.1)
        model = train_var(notes, Codec(Tokenizer(SHAPE), **TRANSFORMS), cfg, var, objective=objective, **how)
    timed = 'seconds', 'notes_per_second', 'memory_mib'
    return [{k: v for k, v in r.items() if k not in timed} for r in log.rows], model

@pytest.fixture
def uncompiled(monkeypatch): monkeypatch.setattr(CompiledStep, 'backend', None)

@pytest.mark.parametrize('stage', ['tokenizer', 'var', 'objective'])
@pytest.mark.parametrize('kw', [{}, dict(precision='bf16')], ids=['fp32', 'bf16'])
def test_the_step_equals_the_plain_loop(stage, kw, uncompiled):
    (rows, plain), (same, model) = (train_stage(stage, compile, **kw) for compile in (False, True))
    assert rows == same
    for p, q in zip(plain.parameters(), model.parameters()): assert torch.allclose(p, q, atol=1e-6)

def test_a_traced_step_equals_the_plain_loop(monkeypatch):
    monkeypatch.setattr(CompiledStep, 'backend', 'aot_eager') # torch.compile without its code generator
    torch._dynamo.utils.counters.clear()
    (rows, _), (same, _) = (train_stage('var', compile, steps=8) for compile in (False, True))
    assert not torch._dynamo.utils.counters['graph_break'] # the whole loss is one graph
    for a, b in zip(rows, same): assert a['loss'] == pytest.approx(b['loss'], rel=1e-6) and a['accuracy'] == pytest.approx(b['accuracy'])

@pytest.mark.parametrize('stage', ['tokenizer', 'var'])
def test_resuming_a_compiled_step_is_bit_identical(stage, uncompiled, tmp_path):
    class Interrupted(RunLog):
        def __call__(self, **row):
            super().__call__(**row)
            if row['step'] == 8: raise KeyboardInterrupt
    _, whole = train_stage(stage, True, out=tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): train_stage(stage, True, out=tmp_path/'run', log=Interrupted(tmp_path/'run'))
    _, again = train_stage(stage, True, out=tmp_path/'run', resume=True)
    for p, q in zip(whole.parameters(), again.parameters()): assert torch.equal(p, q)

def test_a_run_continues_with_the_other_step(uncompiled, tmp_path):
    "The format of checkpoints does not depend on `compile`."
    for compile in (False, True):
        class Interrupted(RunLog):
            def __call__(self, **row):
                super().__call__(**row)
                if row['step'] == 8: raise KeyboardInterrupt
        folder = tmp_path/str(compile)
        with pytest.raises(KeyboardInterrupt): train_stage('var', compile, out=folder, log=Interrupted(folder))
        rows, _ = train_stage('var', not compile, out=folder, resume=True)
        assert rows == [r for r in train_stage('var', False)[0] if r['step'] > 4]

@pytest.mark.parametrize('kw, reason', [(dict(accumulate=2), 'gradient accumulation'), (dict(discriminator=DiscriminatorConfig.preset('tiny', start=.5, width=8, layers=1)), 'adversarial training')])
def test_other_runs_keep_the_plain_loop(kw, reason, monkeypatch):
    seen, parts = [], []
    monkeypatch.setattr(compiled, 'plain_reason', lambda learn: seen.append(plain_reason(learn)) or seen[-1])
    monkeypatch.setattr(compiled, 'compile_parts', lambda *p: parts.extend(type(m).__name__ for m in p))
    train_stage('tokenizer', True, steps=2, **kw)
    assert seen == [reason] and parts == ['Encoder', 'Decoder']

def test_several_processes_keep_the_plain_loop():
    learn = SimpleNamespace(accelerator=SimpleNamespace(num_processes=2))
    assert plain_reason(learn) == 'several processes'

@pytest.mark.parametrize('stage', ['tokenizer', 'var', 'objective'])
@pytest.mark.parametrize('compile', [False, True])
def test_unlogged_steps_read_nothing_on_the_host(stage, compile, uncompiled, monkeypatch):
    counter = StepCounter()
    monkeypatch.setattr(mars.train, 'default_callbacks', lambda *a, **kw: [counter, *default_callbacks(*a, **kw)])
    with counter: train_stage(stage, compile, steps=6, revive_every=0)
    assert counter.steps == 3 and counter.per_step()['operations'] > 100 and counter.reads == []

def test_the_counter_sees_reads():
    x, learn = torch.ones(3), SimpleNamespace(logging=False)
    with StepCounter() as counter:
        bool(x[0])
        counter.before_step(learn)
        bool(x[0]), x[1].item(), x.cpu(), x.nonzero()
        counter.after_fit(learn)
        x[2].item()
    assert len(counter.reads) == 4 and torch.ones(1).cpu() == 1 and counter.per_step()['reads'] == 4

def test_non_finite_steps_are_skipped(uncompiled):
    torch.manual_seed(0)
    model, x, seen = torch.nn.Linear(4, 1), torch.randn(8, 4), []
    def square(model, x):
        loss = (model(x) - 1).pow(2).mean()
        return loss, dict(loss=loss.detach())
    class Weights:
        def before_step(self, learn): seen.append(model.weight.detach().clone())
    cfg, log = TrainConfig.preset('tiny', steps=8, log_every=1), RunLog()
    fit(TrainingModule(model, square), lambda step, micro_batch: x*(torch.nan if step == 3 else 1.), cfg,
        default_callbacks(cfg, log, extra=[CompiledStep(), Weights()]))
    assert log.rows[-1]['skipped'] == 1 and torch.equal(seen[3], seen[4]) and not torch.equal(seen[4], seen[5])

def test_labels_are_checked_once_before_training():
    with pytest.raises(ValueError, match='label pitch is 128, outside 0..127'):
        DeviceNotes([torch.zeros(2, 1).long()], dict(pitch=torch.tensor([128, 3])), dict(pitch=128))

def test_tokens_of_product_codes_and_none_labels():
    maps = [torch.randint(40000, (6, n, 2)) for n in (1, 4)]
    stored, pick = DeviceNotes(maps, {}), torch.tensor([5, 1])
    assert stored.targets[0].dtype == torch.int32
    assert all(torch.equal(a, b[pick]) and a.dtype == torch.int64 for a, b in zip(stored(pick)[0], maps)) and stored(pick)[1] == {}

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_graph_equals_the_uncompiled_step(): # not run without a GPU
    x, total = torch.ones(4, device='cuda'), torch.zeros(4, device='cuda')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        graph, out = record_graph(lambda: total.add_(x))
    graph.replay()
    assert torch.equal(out, x)
