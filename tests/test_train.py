"""Training that survives: kill -9, signals, damaged checkpoints, full disks, losses that are no number."""
import json, os, random, resource, signal, subprocess, sys, time, warnings
from pathlib import Path
import numpy as np
import pytest, torch
from mars.train import Checkpoints, TrainConfig, autocast, random_state, read_log, set_random_state

ROOT = Path(__file__).resolve().parent.parent
CODE = '''
import sys, torch, warnings
torch.set_num_threads(1)
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.discriminator import AdversaryConfig
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import TokenizerConfig
from mars.train import TrainConfig, train_tokenizer, train_var
from mars.var import VARConfig
out, resume, stage = sys.argv[1], sys.argv[2] == 'resume', sys.argv[3]
kw = dict(a.split('=') for a in sys.argv[4:])
notes = AdditiveNotes(('organ', 'flute'), range(60, 64), (100,))
ls = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)
cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
common = dict(batch_size=4, log_every=1, save_every=5, ema=0.9)
if stage == 'tokenizer':
    train = TrainConfig.preset('tiny', steps=int(kw.get('steps', 60)), revive_every=7, revive_patience=3, **common)
    train_tokenizer(notes, train, cfg, out=out, progress=False, cmx=CMX(2, 1), spectrogram=ls, resume=resume,
                    adversary=AdversaryConfig.preset('tiny', start=0.3, width=8, layers=1, warmup=3, norm='batch', lecam=0.01))
else:
    m = Mars.from_pretrained(out)
    train_var(notes, m.tokenizer, TrainConfig.preset('tiny', 'var', steps=int(kw.get('steps', 60)), **common), VARConfig.preset('tiny', drop_path=0.1), out=out, progress=False,
              cmx=m.cmx, spectrogram=m.spectrogram, info=m.info, resume=resume)
print('finished')
'''

def start(out, resume, stage, *kw, **popen):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen([sys.executable, '-c', CODE, str(out), 'resume' if resume else 'new', stage, *kw], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)

def finish(*args, **kw):
    p = start(*args, **kw)
    out, err = p.communicate(timeout=300)
    return p.returncode, out, err

def when_logged(p, folder, stage, step):
    "Wait until a stage has logged a step."
    while p.poll() is None:
        try:
            if any(r['stage'] == stage and r['step'] >= step for r in read_log(folder)): return
        except FileNotFoundError: pass
        time.sleep(0.005)
    raise AssertionError(p.communicate())

def strip(rows): return [{k: v for k, v in r.items() if k not in ('seconds', 'notes_per_second', 'memory_mib')} for r in rows]

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "A run of both stages that nothing interrupted."
    out = tmp_path_factory.mktemp('whole')
    for stage in ('tokenizer', 'var'):
        code, _, err = finish(out, False, stage)
        assert code == 0, err
    return out

def test_kill_9_at_any_moment(whole, tmp_path):
    rng = random.Random(0)
    for stage in ('tokenizer', 'var'):
        for attempt, upto in enumerate((rng.randrange(6, 20), rng.randrange(25, 40), rng.randrange(45, 55))):
            p = start(tmp_path, attempt > 0, stage)
            when_logged(p, tmp_path, stage, upto)
            p.kill(); p.communicate()
            assert p.returncode == -signal.SIGKILL
        code, out, err = finish(tmp_path, True, stage)
        assert code == 0 and 'finished' in out, err
        assert (tmp_path/f'{stage}.safetensors').read_bytes() == (whole/f'{stage}.safetensors').read_bytes()
    assert strip(read_log(tmp_path)) == strip(read_log(whole))

def test_sigterm_saves_and_exits(whole, tmp_path):
    p = start(tmp_path, False, 'tokenizer')
    when_logged(p, tmp_path, 'tokenizer', 11)
    p.terminate(); p.communicate()
    assert p.returncode == 143
    done = int(Checkpoints(tmp_path, 'tokenizer', {}).files()[0].stem.split('-')[1])
    assert done == read_log(tmp_path)[-1]['step'] + 1 and done > 11
    assert finish(tmp_path, True, 'tokenizer')[0] == 0
    assert (tmp_path/'tokenizer.safetensors').read_bytes() == (whole/'tokenizer.safetensors').read_bytes()

def test_a_damaged_checkpoint_is_named_and_the_one_before_used(whole, tmp_path):
    p = start(tmp_path, False, 'tokenizer')
    when_logged(p, tmp_path, 'tokenizer', 32)
    p.kill(); p.communicate()
    newest, before = Checkpoints(tmp_path, 'tokenizer', {}).files()
    newest.write_bytes(newest.read_bytes()[:-1000])
    code, _, err = finish(tmp_path, True, 'tokenizer')
    assert code == 0 and newest.name in err and 'damaged' in err
    assert (tmp_path/'tokenizer.safetensors').read_bytes() == (whole/'tokenizer.safetensors').read_bytes()

def test_a_full_disk_stops_the_run_with_a_sentence_and_nothing_half_written(tmp_path):
    def no_room(): # files may grow to 2 MB only, as on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    code, _, err = finish(tmp_path, False, 'tokenizer', preexec_fn=no_room)
    assert code == 1 and 'cannot be written' in err.splitlines()[-1]
    assert not list((tmp_path/'checkpoints').iterdir()) and not (tmp_path/'tokenizer.safetensors').exists()
    assert finish(tmp_path, True, 'tokenizer')[0] == 0  # with room again it starts anew

def test_other_settings_are_refused(tmp_path):
    p = start(tmp_path, False, 'tokenizer')
    when_logged(p, tmp_path, 'tokenizer', 12)
    p.kill(); p.communicate()
    code, _, err = finish(tmp_path, True, 'tokenizer', 'steps=70')
    assert code == 1 and 'was made with another train' in err

def tiny_fit(bad_at, **kw):
    from mars.train import RunLog, fit
    torch.manual_seed(0)
    model, log, seen = torch.nn.Linear(4, 1), RunLog(), []
    x = torch.randn(8, 4)
    def loss_of(step):
        seen.append(model.weight.detach().clone())
        loss = (model(x) - 1).pow(2).mean()
        return (loss*float('nan') if step in bad_at else loss), {}
    fit(model, loss_of, TrainConfig.preset('tiny', steps=30, log_every=1, **kw), log, progress=False)
    return model, log.rows, seen

def test_steps_without_a_number_are_skipped_and_counted():
    model, rows, seen = tiny_fit({5, 6, 20})
    assert rows[-1]['skipped'] == 3 and model.weight.isfinite().all()
    assert torch.equal(seen[5], seen[6]) and torch.equal(seen[6], seen[7]) and not torch.equal(seen[7], seen[8])

def test_too_many_of_them_in_a_row_end_the_run_with_the_last_good_weights(tmp_path):
    with pytest.raises(FloatingPointError, match='for 4 steps up to step 13'): tiny_fit({3, *range(10, 30)}, max_bad=4)
    from mars.train import RunLog, fit
    torch.manual_seed(0)
    model, saved = torch.nn.Linear(4, 1), Checkpoints(tmp_path, 'tokenizer', {})
    good = []
    def loss_of(step):
        if step == 8: good.append(model.weight.detach().clone())
        loss = (model(torch.ones(2, 4)) - 1).pow(2).mean()
        return (loss*float('inf') if step >= 8 else loss), {}
    with pytest.raises(FloatingPointError): fit(model, loss_of, TrainConfig.preset('tiny', steps=30, max_bad=3), RunLog(), progress=False, saved=saved)
    step, tensors = saved.load()
    assert step == 8 and torch.equal(tensors['model/weight'], good[0])

def test_random_generators_come_back():
    random.seed(1); np.random.seed(2); torch.manual_seed(3)
    random.gauss(0, 1); np.random.randn()  # both keep the second of a pair
    state = {k: v.clone() for k, v in random_state(torch.device('cpu')).items()}
    draw = lambda: (random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), torch.rand(3).tolist())
    first = draw()
    set_random_state(state, torch.device('cpu'))
    assert draw() == first

def test_half_a_line_of_a_killed_log_is_left_out(tmp_path):
    (tmp_path/'metrics.jsonl').write_text(json.dumps(dict(stage='var', step=0)) + '\n{"stage": "va')
    assert [r['step'] for r in read_log(tmp_path)] == [0]

def test_records_of_a_run(whole):
    rows = read_log(whole)
    assert {r['stage'] for r in rows} == {'tokenizer', 'var'} and len(rows) == 120
    for r in rows: assert r['notes_per_second'] > 0 and r['memory_mib'] > 10 and r['skipped'] == 0 and r['grad_norm'] > 0
    info = json.loads((whole/'config.json').read_text())
    text = json.dumps(info)
    assert torch.__version__ in text and '"seed"' in text and 'versions' in text

def test_a_new_run_forgets_the_checkpoints_of_an_older_one(tmp_path):
    from mars.train import RunLog, fit
    saved = Checkpoints(tmp_path, 'tokenizer', {}, keep=2)
    for step in (900, 950): saved.save(step, dict(a=torch.zeros(1)))
    model = torch.nn.Linear(4, 1)
    fit(model, lambda step: (model(torch.ones(2, 4)).pow(2).mean(), {}), TrainConfig.preset('tiny', steps=12, save_every=5), RunLog(), progress=False, saved=saved)
    assert [p.name for p in saved.files()] == ['tokenizer-000000010.safetensors', 'tokenizer-000000005.safetensors']

@pytest.mark.parametrize('kw, words', [(dict(epochs=-1.), 'epochs is -1.0'), (dict(save_every=-1), 'save_every is -1'), (dict(keep_last=0), 'keep_last is 0'), (dict(max_bad=0), 'max_bad is 0')])
def test_settings_refused(kw, words):
    with pytest.raises(ValueError, match=words): TrainConfig.preset('tiny', **kw)

@pytest.mark.parametrize('device, half', [('cpu', False), ('mps', False), ('cuda', True)])
def test_automatic_precision_is_bf16_on_cuda_alone(monkeypatch, device, half):
    made = {}
    monkeypatch.setattr(torch, 'autocast', lambda kind, dtype, enabled: made.update(kind=kind, enabled=enabled))
    autocast(TrainConfig.preset('tiny'), device)
    assert made == dict(kind=device, enabled=half)

def test_a_state_of_the_cpu_goes_on_to_a_gpu(monkeypatch):
    state = random_state(torch.device('cpu'))
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda *a: pytest.fail('there is no state of a GPU in it'))
    set_random_state(state, torch.device('cuda'))

def test_stage_two_goes_on_with_its_own_tokenizer_only(whole, tmp_path):
    import shutil
    shutil.copytree(whole, tmp_path/'run')
    config = json.loads((tmp_path/'run/config.json').read_text())
    from safetensors.torch import load_file, save_file
    path = tmp_path/'run/tokenizer.safetensors'
    save_file({k: v + 0.01 if k == 'decoder.mask' else v for k, v in load_file(path).items()}, path)
    (tmp_path/'run/config.json').write_text(json.dumps({**config, 'var': None}))
    code, _, err = finish(tmp_path/'run', True, 'var')
    assert code == 1 and 'was made with another tokenizer' in err

def test_a_resumed_run_keeps_its_tracker():
    from mars.train import RunLog, fit
    class Tracker:
        rows, ended = [], False
        def log(self, values, step):
            assert not self.ended
            self.rows.append(step)
        def finish(self): self.ended = True
    model = torch.nn.Linear(4, 1)
    log = RunLog(trackers=[t := Tracker()])
    log.rewind('tokenizer', 0)
    fit(model, lambda step: (model(torch.ones(2, 4)).pow(2).mean(), {}), TrainConfig.preset('tiny', steps=3, log_every=1), log, progress=False)
    log.close()
    assert t.rows == [0, 1, 2] and t.ended

def test_sigterm_in_the_last_step_is_heard(tmp_path):
    from mars.train import RunLog, fit
    model, saved = torch.nn.Linear(4, 1), Checkpoints(tmp_path, 'tokenizer', {})
    def loss_of(step): return model(torch.ones(2, 4)).pow(2).mean(), {}
    def after(step): # too late for the step to know of it
        if step == 4: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as e: fit(model, loss_of, TrainConfig.preset('tiny', steps=5), RunLog(), progress=False, after=after, saved=saved)
    assert e.value.code == 143 and saved.load()[0] == 5
    fit(model, loss_of, TrainConfig.preset('tiny', steps=5), RunLog(), progress=False, saved=saved, resume=True)

def test_a_run_in_an_old_folder_starts_its_log_anew(tmp_path):
    from mars.train import RunLog, fit
    model = torch.nn.Linear(4, 1)
    for _ in range(2):
        fit(model, lambda step: (model(torch.ones(2, 4)).pow(2).mean(), {}), TrainConfig.preset('tiny', steps=3, log_every=1), log := RunLog(tmp_path), progress=False)
        log.close()
    assert [r['step'] for r in read_log(tmp_path)] == [0, 1, 2]
