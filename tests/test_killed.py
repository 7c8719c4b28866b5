"""Commands killed at a file operation: what is left loads or is missing, never a mixture, and the next run completes it."""
import random, shutil
from types import SimpleNamespace
import numpy as np
import pytest, soundfile, torch
import mars.apps.instruments as instruments
import mars.evaluation.protocol as protocol
import mars.parts.files as files
from mars.cli import main
from mars.cmx import CMX
from mars.parts.files import make_folder, save_wave
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.train import TrainConfig, train_tokenizer
from test_field import CFG, LS, few, fresh, killed_at, make, same

def some_kills(monkeypatch, prepare, f, n, seed=0):
    "Yield after kills at n of the file operations, with everything prepared before each; then without one."
    prepare()
    assert not killed_at(10**9, monkeypatch, f, seen := [])
    points = sorted(random.Random(seed).sample(range(len(seen)), min(n, len(seen))))
    assert len(points) > 3
    for point in points:
        prepare()
        assert killed_at(point, monkeypatch, f)
        with monkeypatch.context() as patch:
            patch.setattr(files, '_is_running', lambda pid: False) # of the process that was killed
            yield point
    prepare()
    f()

def contents(folder): return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}
def tone(i=0): return .5*np.sin(np.arange(64000)*(.1 + .01*i))

class Case:
    "A command: what is in the folder before, the run, and what must hold after a kill."
    points = 8
    def __init__(self, tmp_path): self.out, self.old = tmp_path/'out', tmp_path/'old'; self.setup(tmp_path)
    def prepare(self): fresh(self.out, self.old)
    def states(self): # contents of the old folder and of the new one
        self.prepare(); self.run()
        return contents(self.old), {k: v for k, v in contents(self.out).items() if not k.startswith('.')}
    def check(self): # files of the old folder or those of the new one, and no others
        make_folder(self.out) # the next run
        assert contents(self.out) in self.folders

class Tokenizer(Case):
    points = 5
    def setup(self, tmp_path):
        make(0).save_pretrained(self.old)
        train(tmp_path/'whole')
        self.whole = Mars.from_pretrained(tmp_path/'whole')
    def run(self): train(self.out)
    def check(self):
        files.unlock_folder(self.out) # as the end of a process does
        m = Mars.from_pretrained(self.out)
        assert same(m, make(0)) or same(m, self.whole)
        train(self.out, resume=True)
        assert same(Mars.from_pretrained(self.out), self.whole)
        assert not [p.name for p in self.out.iterdir() if p.name.startswith('.') and p.name != '.lock']

def train(out, **kw):
    cfg = TrainConfig.preset('tiny', steps=2, batch_size=4, log_every=1, save_every=1)
    train_tokenizer(few(), cfg, CFG, out, CMX(2, 1), LogSpectrogram(**LS), device='cpu', progress=False, **kw)

class Demo(Case):
    def setup(self, tmp_path):
        patch('mars.cli.demo.figure_png', lambda fig: fig)
        patch('mars.stft.plot_specs', lambda specs, **kw: specs[0].numpy().tobytes())
        self.m, self.number = Mars(make(0).tokenizer, None, CMX(2, 1), LogSpectrogram(**LS)), 0
        self.write(self.old)
        self.number = 1
        self.folders = self.states()
    def write(self, out):
        from mars.cli.demo import write_demo
        wave = torch.from_numpy(tone(self.number)[:self.m.n_samples]).float()
        row = dict(family='organ', pitch=60, f0=60., cents=0., right=True)
        write_demo(make_folder(out), self.m, [SimpleNamespace(family='organ', pitch=60 + i) for i in range(2)], [torch.stack([wave]*2)]*3, [[row]*2]*3, ['a fact'], ['us'])
    def run(self): self.write(self.out)

class Evaluate(Case):
    def setup(self, tmp_path):
        patch('mars.evaluation.protocol.result_json', lambda result: result['text'])
        patch('mars.evaluation.protocol.plot_features', lambda result, names: None)
        patch('mars.evaluation.protocol._png', lambda fig: b'png')
        self.write(self.old, 'old')
        self.folders = self.states()
    def write(self, out, text):
        from mars.evaluation.report import scratch_folder
        result = dict(text=text, features={}, settings=dict(ndb_bins=0), rows={})
        make_folder(out)
        with scratch_folder(out) as scratch:
            (scratch/'notes').write_bytes(b'generated notes')
            protocol.save_report(result, out, table=text)
    def run(self): self.write(self.out, 'new')

class Edit(Case):
    def setup(self, tmp_path):
        make(0).save_pretrained(tmp_path/'model')
        save_wave(tmp_path/'note.wav', tone())
        flags = '--time 0.02,0.1 --pitch 60 --family organ --source electronic --velocity 100 --n 3 --n-iter 1 --seed 1 --json'
        self.argv = ['edit', str(tmp_path/'note.wav'), '--model', str(tmp_path/'model'), '--out', str(self.out), *flags.split()]
        self.old.mkdir()
        self.new = self.states()[1]
        assert len(self.new) == 3
    def run(self):
        assert main(self.argv) == 0
    def check(self): # each file is whole, and is that of a run without a kill
        make_folder(self.out)
        assert contents(self.out).items() <= self.new.items()

class Bank(Case):
    "A bank of two samples, so that nothing is generated again."
    def setup(self, tmp_path):
        from mars.data import AdditiveNotes
        self.banks = []
        for level in (.3, .8):
            samples = {}
            for pitch in (60, 64):
                request = instruments.NoteRequest(pitch, 100, 'organ', 'electronic')
                wave = AdditiveNotes('organ', pitch, 100)[0][0].numpy()*np.float32(level)
                samples[request] = instruments.Sample(request, wave, float(pitch), 1)
            self.banks.append(samples)
        self.samples = self.banks[0]
        m = SimpleNamespace(info=dict(data=dict(pitches=[48, 72])))
        case = self
        class Fake(instruments.SampleBank):
            def __init__(self, *args, **kw): super().__init__(m); self.samples = case.samples
            def check(self, requests): pass
            def fetch(self, requests): return [self.samples[r] for r in requests]
        patch('mars.apps.instruments.SampleBank', Fake)
        self.m = m
        self.write(self.old)
        self.samples = self.banks[1]
        self.folders = self.states()
    def run(self): self.write(self.out)

class Export(Bank):
    format, index = 'sfz', '*.sfz'
    points = 12
    def write(self, out):
        instruments.export_instrument(self.m, out, 'organ', 'electronic', pitches=[60, 64], velocities=[100], format=self.format, loop=True)
    def check(self): # an index belongs to its samples: all old or all new
        make_folder(self.out)
        for sub in ('samples', 'audio'):
            if (self.out/sub).exists(): make_folder(self.out/sub)
        if list(self.out.glob(self.index)): assert contents(self.out) in self.folders
        for wav in self.out.rglob('*.wav'): assert soundfile.info(wav).frames > 1000
        self.run()
        assert contents(self.out) == self.folders[1]

class ExportNSynth(Export): format, index, points = 'wav', 'examples.json', 6

class Play(Bank):
    def setup(self, tmp_path):
        import mido
        tune = mido.MidiFile(tracks=[mido.MidiTrack([mido.Message('note_on', note=60, time=0), mido.Message('note_off', note=60, time=480)])])
        tune.save(tmp_path/'tune.mid')
        self.tune = tmp_path/'tune.mid'
        super().setup(tmp_path)
    def write(self, out): instruments.play_midi(self.m, self.tune, out/'tune.wav', 'organ', 'electronic', velocities=(100,))

@pytest.mark.parametrize('case', [Tokenizer, Demo, Evaluate, Edit, Export, ExportNSynth, Play])
def test_a_killed_command(case, tmp_path, monkeypatch):
    global patch
    with pytest.MonkeyPatch.context() as stubs:
        patch = stubs.setattr
        case = case(tmp_path)
        for _ in some_kills(monkeypatch, case.prepare, case.run, case.points): case.check()
        case.check()

def test_a_killed_check_of_data_leaves_no_half_table(tmp_path, monkeypatch, capsys):
    from mars.cli.data import run_check
    import mars.data
    rows = [dict(note=f'note {i}', pitch=60, f0=60., semitones=0., peak=.9, dc=0., onset=0., problems=[], reason='') for i in range(100)]
    monkeypatch.setattr(mars.data, 'check_notes', lambda *args, **kw: rows)
    monkeypatch.setattr(mars.data, 'check_summary', lambda rows: '')
    a = SimpleNamespace(folder='additive', split='test', labels=None, n=1, json=True, report=str(tmp_path/'report.csv'))
    def prepare(): shutil.rmtree(tmp_path); tmp_path.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for n in range(20):
            prepare()
            dead = killed_at(n, patch, lambda: run_check(a))
            assert not (tmp_path/'report.csv').exists() or len((tmp_path/'report.csv').read_text().splitlines()) == 101
            if not dead: break
    assert 1 < n < 19 and (tmp_path/'report.csv').exists()
