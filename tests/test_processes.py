"""Two processes on the CPU do what one does with the whole batch; only the first writes."""
import json, os, subprocess, sys
from pathlib import Path
import pytest, torch
from safetensors.torch import load_file
from mars.train import TrainConfig
from mars.training.distributed import Team
from mars.training.log import read_log

ROOT = Path(__file__).resolve().parent.parent
CODE = '''
import sys, torch
torch.set_num_threads(1)
from mars.baselines.aar import JudgeConfig, SATConfig, train_sat
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.discriminator import AdversaryConfig
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import TokenizerConfig
from mars.train import Team, TrainConfig, train_tokenizer, train_var
from mars.var import VARConfig
out, stage = sys.argv[1:3]
kw = dict(a.split('=') for a in sys.argv[3:])
steps, resume, drop = int(kw.get('steps', 12)), 'resume' in kw, float(kw.get('drop', 0))
notes = AdditiveNotes(('organ', 'flute'), range(60, 64), (100,), cache=False)
ls = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)
cfg = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4), quantizer_dropout=drop)
common = dict(batch_size=8, log_every=1, save_every=5, ema=0.9, steps=steps, accumulate=int(kw.get('accumulate', 1)))
if stage == 'tokenizer':
    train = TrainConfig.preset('tiny', revive_every=int(kw.get('revive', 2)), revive_patience=2, **common)
    train_tokenizer(notes, train, cfg, out=out, device='cpu', progress=False, cmx=CMX(2, 1), spectrogram=ls, resume=resume,
                    adversary=AdversaryConfig.preset('tiny', weight=float(kw.get('gan', 0.5)), start=0.3, width=8, layers=1, warmup=3, norm=kw.get('norm', 'group'), lecam=0.01))
elif stage == 'sat':
    cfg = SATConfig(n_samples=3200, ratios=(4, 4, 2, 2), lengths=(1, 5, 18, 50), width=4, dimension=16, lstm=1, code_dim=8, codebook_size=16, n_phi=2)
    judges = JudgeConfig.preset('tiny', windows=(256, 64), width=2, warmup=1, feature_weight=0.) # feature matching divides by a mean of its own half
    train_sat(notes, TrainConfig.preset('tiny', 'sat', revive_every=2, revive_patience=2, **common), cfg, out, 'cpu', False, adversary=judges)
else:
    m = Mars.from_pretrained(out)
    train_var(notes, m.tokenizer, TrainConfig.preset('tiny', 'var', **common), VARConfig.preset('tiny', label_drop=0., label_drop_each=0., drop_path=drop), out=out, device='cpu', progress=False,
              cmx=m.cmx, spectrogram=m.spectrogram, info=m.info, resume=resume)
Team('cpu').leave()
'''

def launch(n, folder, *args, launcher='torchrun'):
    folder.mkdir(exist_ok=True)
    script = folder.parent/'script.py'
    script.write_text(CODE)
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    before = {1: [], 2: dict(torchrun=['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'],
        accelerate=['-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines', '1', '--mixed_precision', 'no', '--dynamo_backend', 'no'])[launcher]}[n]
    p = subprocess.run([sys.executable, *before, str(script), str(folder), *args], env=env, capture_output=True, text=True, timeout=300)
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
def two(tmp_path_factory, one):
    out = tmp_path_factory.mktemp('two')/'run'
    launch(2, out, 'tokenizer', launcher='accelerate')
    launch(2, out, 'var')
    return out

def test_both_end_with_the_same_weights(one, two):
    for stage in ('tokenizer', 'var'): close(one/f'{stage}.safetensors', two/f'{stage}.safetensors')

def test_they_log_the_same_and_one_of_them_writes(one, two):
    a, b = read_log(one), read_log(two)
    assert [(r['stage'], r['step']) for r in a] == [(r['stage'], r['step']) for r in b] # no line twice
    for r, q in zip(a, b):
        for key in ('loss', 'recon', 'vq', 'grad_norm', 'disc_loss', 'adv_weight', 'real_logit', 'lecam'):
            if key in r: assert r[key] == pytest.approx(q[key], rel=1e-3, abs=1e-5), (key, r['step'])
        for key in ('usage', 'perplexity', 'revived'):
            if key in r: assert r[key] == pytest.approx(q[key], rel=1e-3), (key, r['step'])
    assert any(r.get('revived') for r in a), 'no code was revived: the test shows nothing of it'
    config = [json.loads((f/'config.json').read_text())['info']['processes'] for f in (one, two)]
    assert config == [1, 2]

def test_a_run_of_two_is_resumed_by_two_bit_for_bit(tmp_path):
    whole, parts = tmp_path/'whole', tmp_path/'parts'
    kw = 'drop=0.5', 'norm=batch'
    launch(2, whole, 'tokenizer', *kw)
    launch(2, parts, 'tokenizer', *kw)
    newest = sorted((parts/'checkpoints').iterdir())[-1]
    newest.unlink() # as if the run had been killed between step 5 and step 10
    for f in ('config.json', 'tokenizer.safetensors'): (parts/f).unlink()
    launch(2, parts, 'tokenizer', 'resume=1', *kw)
    assert (whole/'tokenizer.safetensors').read_bytes() == (parts/'tokenizer.safetensors').read_bytes()

def test_processes_and_parts_of_a_batch_go_together(tmp_path):
    kw = 'revive=0', 'steps=6', 'gan=0' # the PatchGAN's adaptive weight is one of each part, and revivals pick from the last
    launch(1, tmp_path/'one', 'tokenizer', *kw)
    launch(2, tmp_path/'two', 'tokenizer', 'accumulate=2', *kw)
    close(tmp_path/'one'/'tokenizer.safetensors', tmp_path/'two'/'tokenizer.safetensors')

def test_two_train_a_tokenizer_of_waves_as_one_does(tmp_path):
    for n in (1, 2): launch(n, tmp_path/str(n), 'sat', 'steps=7')
    close(*(tmp_path/n/'tokenizer.safetensors' for n in '12'))
    for r, q in zip(*(read_log(tmp_path/n) for n in '12'), strict=True):
        for key in ('loss', 'recon', 'vq', 'commit', 'gen_loss', 'disc_loss', 'disc_grad_norm', 'usage', 'perplexity', 'revived'): assert key not in r if key not in q else r[key] == pytest.approx(q[key], rel=1e-3, abs=1e-5), (key, r['step'])
    assert any(r['revived'] for r in read_log(tmp_path/'1')), 'no code was revived: the test shows nothing of it'

def test_a_batch_must_be_shared_evenly(monkeypatch):
    team = Team('cpu')
    team.n = 3
    with pytest.raises(ValueError, match='8 notes cannot be shared by 3 processes'): team.share(range(8))
