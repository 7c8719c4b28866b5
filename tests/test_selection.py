"""The weights of a run are chosen by samples: the rule, planted weights, resume, and runs without it."""
import json, math
import pytest, torch
from torch import nn
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.evaluation.selection import Measurement, SampleSelection, SelectionConfig, not_below, pooled_mel, prefer
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, TrainingModule, default_callbacks, fit, train_var
from mars.training.log import RunLog, read_log
from mars.var import VAR, VARConfig

CFG = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
LS = dict(n_fft=128, hop_length=64, n_frames=32)
SHAPE = VARConfig.preset('tiny', depth=1, width=32, heads=2, drop_path=.1)

def notes(): return AdditiveNotes(('organ', 'flute'), range(60, 64), (100,))
def valid(): return AdditiveNotes(('organ', 'flute'), range(64, 68), (100,))

# --- the rule

def hits(*rows): return torch.tensor([r in rows for r in range(64)])

@pytest.mark.parametrize('lost, gained, eligible', [(3, 0, True), (4, 0, False), (9, 4, True), (12, 4, False), (0, 9, True)])
def test_interval_of_paired_shares(lost, gained, eligible):
    record = hits(*range(40))
    assert not_below(hits(*range(lost, 40), *range(40, 40 + gained)), record) == eligible

def test_pitch_comes_first_and_small_losses_do_not_add_up():
    series = [(40, 9.), (60, 9.), (58, 8.), (56, 7.), (54, 6.), (20, 1.), (59, 8.5)]
    kept = record = None
    for step, (n, frechet) in enumerate(series):
        new = Measurement(step, hits(*range(n)), frechet)
        if record is None or new.hits.sum() > record.hits.sum(): record = new
        if prefer(new, kept, record): kept = new
    assert (kept.step, record.step) == (2, 1) # 58 is within the interval of 60, 56 is not, although it is within that of 58

# --- planted weights

class Sines:
    "A codec whose tokens are two numbers for each note, its pitch and its second harmonic: tones of one sine or two."
    kind, device = None, torch.device('cpu')
    spectrogram = LogSpectrogram()
    def wave_to_image(self, wave): return self.spectrogram.encode(wave)
    def image_to_spec(self, image): return image
    def tokens_to_spec(self, tokens):
        t, (pitch, second) = torch.arange(64000)/16000, (x[:, None] for x in tokens)
        phase = 2*math.pi*440*2**((pitch - 69)/12)*t
        return self.spectrogram.encode(.4*torch.sin(phase) + .4*second*torch.sin(2*phase))

class Detuned(nn.Module):
    "A transformer that is out of tune by `weight[0]` semitones; `weight[1]` is the level of the second harmonic."
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
    def generate(self, labels, n, seed=None, first=0): return labels['pitch'] + self.weight[0], self.weight[1].expand(n)

class Plant: # a callback
    def __init__(self, weights): self.weights = weights
    def after_step(self, learn): learn.params[0].data.copy_(torch.tensor(self.weights[learn.step]))

def real(level=.8):
    notes = AdditiveNotes(('organ',), range(60, 84), (100,))
    codec = Sines()
    codec.wave_to_image = lambda wave: codec.tokens_to_spec([codec.pitches, torch.full_like(codec.pitches, level)])
    codec.pitches = notes.targets['pitch'].float()
    return notes, codec

@pytest.mark.parametrize('average', [0., 1e-9]) # without and with averaged weights, which are those of the step here
def test_the_planted_weights_are_kept(average):
    planted = [(3., .8), (.2, 0.), (.1, .8), (.2, .3), (0., 0.), (-2., .8)] # in tune: steps 2 to 5; like the real notes: step 3
    model, (labels, codec) = Detuned(), real()
    selection = SampleSelection(SelectionConfig(every=1, notes=24), labels).prepare(codec, {})
    cfg, log = TrainConfig(steps=6, batch_size=4, log_every=1, ema=average), RunLog()
    def loss(model, batch): return (l := (0*model.weight).sum()), dict(loss=l.detach())
    fit(TrainingModule(model, loss), lambda step, micro_batch: None, cfg, default_callbacks(cfg, log, [Plant(planted)], last=[selection]))
    assert [r['in_tune'] for r in log.rows] == [0, 1, 1, 1, 1, 0]
    assert [r['kept_step'] for r in log.rows] == [1, 2, 3, 3, 3, 3]
    assert model.weight.tolist() == pytest.approx(planted[2]) and selection.result['step'] == 3
    assert min((r['frechet'], r['step']) for r in log.rows[1:5])[1] == 2

# --- runs

def model(seed=0):
    torch.manual_seed(seed)
    return Mars(Tokenizer(CFG), spectrogram=LogSpectrogram(**LS), cmx=CMX(2, 1))

def selected(every=2, **kw): return SampleSelection(SelectionConfig(every=every, notes=8, **kw), valid())

def train(out=None, selection=None, callback=None, **kw):
    cfg = TrainConfig.preset('tiny', 'var', **{**dict(steps=8, batch_size=4, log_every=1, save_every=3, ema=.8), **kw.pop('train', {})})
    return train_var(notes(), model(), cfg, SHAPE, out, device='cpu', progress=False, selection=selection, **kw)

def rows(folder): return [{k: v for k, v in r.items() if k not in ('seconds', 'notes_per_second', 'memory_mib')} for r in read_log(folder)]
def same(a, b): return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))

def test_training_itself_is_not_changed(tmp_path):
    plain, chosen = train(tmp_path/'plain'), train(tmp_path/'chosen', selected())
    extra = 'in_tune', 'frechet', 'kept_step'
    assert [{k: v for k, v in r.items() if k not in extra} for r in rows(tmp_path/'chosen')] == rows(tmp_path/'plain')
    last = next(r for r in rows(tmp_path/'chosen')[::-1])
    config = json.loads((tmp_path/'chosen'/'config.json').read_text())['info']['selection']
    assert config['step'] == last['kept_step'] and config['every'] == 2
    assert 'selection' not in (tmp_path/'plain'/'config.json').read_text() + (tmp_path/'plain'/'settings.json').read_text()
    if last['kept_step'] == 8: assert same(plain, chosen)
    loaded = Mars.from_pretrained(tmp_path/'chosen').var
    assert same(loaded, chosen)

@pytest.mark.parametrize('best', [4, 8])
def test_the_kept_weights_are_the_averaged_ones_of_their_step(best, monkeypatch):
    from mars.evaluation.selection import ValidationLabels
    from mars.train import EMA
    averages, real = {}, EMA.after_step
    def after_step(self, learn):
        real(self, learn)
        averages[learn.step + 1] = [a.clone() for a in self.average]
    monkeypatch.setattr(EMA, 'after_step', after_step)
    monkeypatch.setattr(ValidationLabels, 'measure', lambda self, var, step, sampling: Measurement(step, hits(), abs(step - best)))
    trained = train(selection=selected(every=4))
    params = [p for p in trained.parameters() if p.requires_grad]
    assert all(torch.equal(p, a) for p, a in zip(params, averages[best]))

class Stop(Exception): pass

@pytest.mark.parametrize('stop', [4, 7])
def test_a_resumed_run_keeps_the_same_weights(stop, tmp_path, monkeypatch):
    whole = train(tmp_path/'whole', selected())
    real = RunLog.__call__
    def call(self, **row):
        real(self, **row)
        if row['step'] == stop: raise Stop
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, '__call__', call)
        with pytest.raises(Stop): train(tmp_path/'broken', selected())
    resumed = train(tmp_path/'broken', selected(), resume=True)
    assert same(whole, resumed) and rows(tmp_path/'whole') == rows(tmp_path/'broken')
    info = [json.loads((tmp_path/name/'config.json').read_text())['info']['selection'] for name in ('whole', 'broken')]
    assert info[0] == info[1]

def test_resuming_with_another_selection_is_refused(tmp_path):
    train(tmp_path, selected())
    for other in (selected(every=4), selected(seed=1)):
        with pytest.raises(ValueError, match='another selection'): train(tmp_path, other, resume=True)

# --- bad input

def test_labels_that_cannot_be_measured_are_refused():
    with pytest.raises(ValueError, match='4 validation notes have pitches in 21..108, and a selection needs 8'):
        train(selection=SampleSelection(SelectionConfig(every=2), valid().select(range(4))))
    with pytest.raises(ValueError, match='every must be at least 1'): SampleSelection(SelectionConfig(), valid())
    with pytest.raises(ValueError, match='notes must be >= 8, got 4'): SelectionConfig(every=2, notes=4)

def test_features_do_not_depend_on_the_batch():
    ls = LogSpectrogram(**LS)
    spec = ls.encode(torch.randn(3, ls.n_samples)*.1)
    assert torch.allclose(pooled_mel(spec, ls)[1], pooled_mel(spec[1:2], ls)[0], atol=1e-6) and pooled_mel(spec, ls).shape == (3, 128)

# --- shell

def shell(*argv):
    from mars.cli import main
    return main([str(a) for a in argv])

def test_selection_from_the_shell(tmp_path, capsys):
    model().save_pretrained(tmp_path/'run')
    flags = ('train', 'var', '--data', 'additive', '--pitches', '60-83', '--velocities', '100', '--out', tmp_path/'run', '--steps', 4, '--batch-size', 4, '--depth', 1, '--width', 32, '--heads', 2, '--json')
    assert shell(*flags, '--select-every', 2, '--select-notes', 8) == 0
    result = json.loads(capsys.readouterr().out)
    info = json.loads((tmp_path/'run'/'config.json').read_text())['info']
    whole = len(AdditiveNotes().filter(pitches=range(60, 84), velocities=[100]))
    assert info['selection']['step'] in (2, 4) and info['notes'] == result['notes'] < whole
    assert shell(*flags, '--select-data', 'additive') == 2 and '--select-data needs --select-every' in capsys.readouterr().err
    assert shell(*flags, '--select-every', 2, '--select-data', 'additive') == 0
    assert json.loads(capsys.readouterr().out)['notes'] == whole
