"""Two processes on the CPU compute what one computes with the whole batch; only the first writes."""
import json, os, signal, socket, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import pytest, torch
from safetensors.torch import load_file
from forked import Run
from mars.baselines.aar import SATConfig, SATDiscriminatorConfig, train_sat
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.discriminator import DiscriminatorConfig
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import TokenizerConfig
from mars.train import TrainConfig, train_tokenizer, train_var
from mars.training.distributed import split_batch
from mars.training.log import read_log
from mars.var import VARConfig

ROOT = Path(__file__).resolve().parent.parent
LS = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)

def train_stage(out, stage, steps=12, resume=False, drop=0., norm='group', gan=.5, **kw):
    "Train one stage in a folder, in each process of a run."
    notes = AdditiveNotes(('organ', 'flute'), range(60, 64), (100,), cache=False)
    train = dict(batch_size=8, log_every=1, save_every=5, ema=0.9, steps=steps, revive_every=2, revive_patience=2) | kw
    how = dict(out=out, device='cpu', progress=False)
    if stage == 'tokenizer':
        cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4), quantizer_dropout=drop)
        gan = DiscriminatorConfig.preset('tiny', weight=gan, start=0.3, width=8, layers=1, warmup=3, norm=norm, lecam=0.01)
        train_tokenizer(notes, TrainConfig.preset('tiny', **train), cfg, cmx=CMX(2, 1), spectrogram=LS, discriminator=gan, resume=resume, **how)
    elif stage == 'sat':
        cfg = SATConfig(n_samples=3200, ratios=(4, 4, 2, 2), lengths=(1, 5, 18, 50), width=4, dimension=16, lstm=1, code_dim=8, codebook_size=16, n_phi=2)
        disc = SATDiscriminatorConfig.preset('tiny', windows=(256, 64), width=2, warmup=1, feature_weight=0.) # feature matching divides by a mean of its own half
        train_sat(notes, TrainConfig.preset('tiny', 'sat', **train), cfg, discriminator=disc, **how)
    else:
        m, shape = Mars.from_pretrained(out, 'cpu'), VARConfig.preset('tiny', label_drop=0., label_drop_each=0., drop_path=drop)
        train_var(notes, m, TrainConfig.preset('tiny', 'var', **train), shape, resume=resume, **how)

def _train(out, stage, kw):
    import mars.training.distributed as distributed
    distributed.TIMEOUT = kw.pop('timeout', distributed.TIMEOUT)
    train_stage(out, stage, **kw)

def start(n, folder, stage, **kw): # -> runs
    "Start a run of n processes with the environment that torchrun would give them."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    common = dict(WORLD_SIZE=str(n), LOCAL_WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    envs = [dict(common, RANK=str(i), LOCAL_RANK=str(i)) if n > 1 else {} for i in range(n)]
    return [Run(f'{folder}/process{i}', _train, str(folder), stage, kw, env=env) for i, env in enumerate(envs)]

def launch(n, folder, stage, **kw):
    for run in start(n, folder, stage, **kw):
        status, text = run.wait()
        assert status == 0, text[-3000:]

def accelerate_launch(n, folder, stages):
    "Start a script with `accelerate launch`, as a user would."
    script = folder.parent/'script.py'
    script.write_text('from test_processes import train_stage\nfrom mars.training.distributed import exit_processes\nimport sys, torch\ntorch.set_num_threads(1)\n'
                      'for stage in sys.argv[2:]: train_stage(sys.argv[1], stage)\nexit_processes()\n')
    options = ['--multi_gpu', '--num_processes', str(n), '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no']
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}:{ROOT/"tests"}'}
    p = subprocess.run([sys.executable, '-m', 'accelerate.commands.launch', *options, str(script), str(folder), *stages], env=env, capture_output=True, text=True, timeout=500)
    assert p.returncode == 0, p.stderr[-3000:]

def close(a, b, eps=2e-5):
    a, b = (load_file(f) for f in (a, b))
    assert a.keys() == b.keys()
    worst = max((a[k].float() - b[k].float()).abs().max().item() for k in a)
    assert worst < eps, worst

@pytest.fixture(scope='module')
def one(tmp_path_factory):
    out = tmp_path_factory.mktemp('one')/'run'
    for stage in ('tokenizer', 'var'): launch(1, out, stage)
    return out

@pytest.fixture(scope='module')
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp('two')/'run'
    accelerate_launch(2, out, ('tokenizer', 'var'))
    return out

def test_both_processes_end_with_the_same_weights(one, two):
    for stage in ('tokenizer', 'var'): close(one/f'{stage}.safetensors', two/f'{stage}.safetensors')

def test_processes_log_equal_losses_and_one_writes(one, two):
    a, b = read_log(one), read_log(two)
    assert [(r['stage'], r['step']) for r in a] == [(r['stage'], r['step']) for r in b] # no line twice
    for r, q in zip(a, b):
        for key in ('loss', 'recon', 'vq', 'grad_norm', 'disc_loss', 'adv_weight', 'real_logit', 'lecam'):
            if key in r: assert r[key] == pytest.approx(q[key], rel=1e-3, abs=1e-5), (key, r['step'])
        for key in ('usage', 'perplexity', 'revived'):
            if key in r: assert r[key] == pytest.approx(q[key], rel=1e-3), (key, r['step'])
    assert any(r.get('revived') for r in a), 'no code was revived: the test shows nothing of it'
    assert [json.loads((f/'config.json').read_text())['info']['processes'] for f in (one, two)] == [1, 2]

def test_two_processes_resume_bit_identically(tmp_path):
    whole, parts, kw = tmp_path/'whole', tmp_path/'parts', dict(drop=.5, norm='batch')
    launch(2, whole, 'tokenizer', **kw)
    launch(2, parts, 'tokenizer', **kw)
    newest = sorted((parts/'checkpoints').iterdir())[-1]
    newest.unlink() # as if the run had been killed between step 5 and step 10
    for f in ('config.json', 'tokenizer.safetensors'): (parts/f).unlink()
    launch(2, parts, 'tokenizer', resume=True, **kw)
    assert (whole/'tokenizer.safetensors').read_bytes() == (parts/'tokenizer.safetensors').read_bytes()

def test_sigterm_to_one_process_stops_both(tmp_path):
    runs = start(2, tmp_path, 'tokenizer', steps=10**4, gan=0.)
    while not (tmp_path/'metrics.jsonl').exists() or not read_log(tmp_path):
        assert all(r.alive for r in runs), runs[0].text + runs[1].text
        time.sleep(.01)
    os.kill(runs[1].process.pid, signal.SIGTERM)
    assert [r.wait()[0] for r in runs] == [143, 143]
    done = int(max((tmp_path/'checkpoints').iterdir()).stem.split('-')[1])
    assert done == read_log(tmp_path)[-1]['step'] + 1

@pytest.mark.parametrize('number, message', [(signal.SIGSTOP, 'has not answered for 5 s'), (signal.SIGKILL, 'has ended|has not answered for 5 s')])
def test_a_process_that_stops_answering_is_reported(number, message, tmp_path):
    import re
    runs = start(2, tmp_path, 'tokenizer', steps=10**4, gan=0., timeout=5)
    while not (tmp_path/'metrics.jsonl').exists() or not read_log(tmp_path):
        assert all(r.alive for r in runs), runs[0].text + runs[1].text
        time.sleep(.01)
    os.kill(runs[1].process.pid, number)
    status, text = runs[0].wait(120)
    runs[1].process.kill()
    assert status == 1 and re.search(f'ValueError: another process of this run ({message}): start all of them again with --resume', text), text[-1500:]

def test_processes_and_micro_batches_combine(tmp_path):
    kw = dict(revive_every=0, steps=6, gan=0.) # the PatchGAN's adaptive weight is one of each part, and revivals pick from the last
    launch(1, tmp_path/'one', 'tokenizer', **kw)
    launch(2, tmp_path/'two', 'tokenizer', accumulate=2, **kw)
    close(tmp_path/'one'/'tokenizer.safetensors', tmp_path/'two'/'tokenizer.safetensors')

def test_two_processes_train_a_wave_tokenizer_like_one(tmp_path):
    for n in (1, 2): launch(n, tmp_path/str(n), 'sat', steps=4)
    close(*(tmp_path/n/'tokenizer.safetensors' for n in '12'))
    keys = 'loss', 'recon', 'vq', 'commit', 'gen_loss', 'disc_loss', 'disc_grad_norm', 'usage', 'perplexity', 'revived'
    for r, q in zip(*(read_log(tmp_path/n) for n in '12'), strict=True):
        assert r.keys() == q.keys()
        for key in {*keys} & {*r}: assert r[key] == pytest.approx(q[key], rel=1e-3, abs=1e-5), (key, r['step'])
    assert any(r['revived'] for r in read_log(tmp_path/'1')), 'no code was revived: the test shows nothing of it'

def test_a_batch_must_divide_evenly():
    with pytest.raises(ValueError, match='8 notes cannot be shared by 3 processes'): split_batch(range(8), SimpleNamespace(num_processes=3, process_index=0))
    assert split_batch([3, 1, 2, 0], SimpleNamespace(num_processes=2, process_index=1)) == [2, 0]
