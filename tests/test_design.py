"""The public names that weights and outside code rely on, at unit-test size."""
import inspect
import pytest, torch
from mars.cmx import CMX, demultiplex, multiplex, multiplex_nd
from mars.data import NSynth, Note, NoteFolder, SoundFontNotes
from mars.eval import density_coverage, frechet_distance, inception_score, kad, kid, ndb
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import STRIPS, Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig

SMALL = dict(image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))

@pytest.fixture(params=[SMALL, dict(SMALL, resample_tokens=False), dict(SMALL, scales=((1, 1), (2, 1), (4, 2))), dict(SMALL, scales=(4,)), dict(SMALL, lookup='euclidean')],
                ids=['design', 'literal', 'rectangles', 'one scale', 'euclidean'])
def cfg(request): return TokenizerConfig.preset('tiny', **request.param)

@pytest.mark.parametrize('f, names', [
    (multiplex, 'x f t layout'), (demultiplex, 'y f t layout'), (frechet_distance, 'x y'), (kid, 'x y subsets subset_size seed'), (kad, 'x y sigma'),
    (ndb, 'reference query k alpha seed'), (inception_score, 'logits splits'), (density_coverage, 'reference query k'),
    (LogSpectrogram.__init__, 'self sample_rate n_fft hop_length n_frames'), (LogSpectrogram.decode, 'self spec n_iter seed phase'),
    (SoundFontNotes.__init__, 'self path programs pitches velocities normalize'), (NSynth.__init__, 'self root split'), (NoteFolder.__init__, 'self folder'),
    (Tokenizer.decode, 'self tokens n_scales'), (VAR.generate, 'self labels n cfg_scale cfg_ramp top_k top_p temperature seed'),
    (Mars.generate, 'self n pitch family source velocity seed'), (Mars.reconstruct, 'self wave sample_rate'), (Mars.save_pretrained, 'self folder')])
def test_signatures(f, names):
    assert list(inspect.signature(f).parameters)[:len(names.split())] == names.split()

def test_tokens(cfg):
    torch.manual_seed(0)
    tok, image = Tokenizer(cfg).eval(), torch.rand(3, *cfg.image_shape)*2 - 1
    tokens = tok.encode(image)
    assert [(t.dtype, tuple(t.shape)) for t in tokens] == [(torch.int64, (3, h*w)) for h, w in cfg.scales]
    recon, losses = tok(image)
    assert set(losses) == {'recon', 'vq', 'commit', 'total'} and all(v.ndim == 0 for v in losses.values())
    torch.testing.assert_close(recon.clamp(-1, 1), tok.decode(tokens), atol=1e-4, rtol=0)
    assert tok.decode(tokens, 1).shape == image.shape

def test_training_reaches_every_weight(cfg):
    torch.manual_seed(0)
    tok, image = Tokenizer(cfg).train(), torch.rand(8, *cfg.image_shape)*2 - 1
    tok.warm_start(image)(image)[1]['total'].backward()
    idle = [n for n, p in tok.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not [n for n in idle if not n.startswith('quantizer.phi')]  # a phi that no scale uses stays as it is

def test_var(cfg):
    torch.manual_seed(0)
    tok, var = Tokenizer(cfg).eval(), VAR(VARConfig.preset('tiny', gamma_init=1.), cfg).eval()
    assert not any(n.startswith('quantizer') for n, _ in var.named_parameters())
    with torch.no_grad(): var.bind(tok).head.weight.mul_(50)
    labels = dict(pitch=torch.tensor([50, 60, 70]), family=torch.tensor([0, 3, -1]))
    tokens = var.generate(labels, temperature=0)
    logits = var(tokens, labels)
    assert logits.shape == (3, cfg.n_tokens, cfg.codebook_size) and logits.dtype == torch.float32
    assert torch.equal(logits.argmax(-1), torch.cat(tokens, 1))
    assert tok.decode(tokens).shape == (3, *cfg.image_shape)

def test_var_trains_with_dropped_labels(cfg):
    torch.manual_seed(0)
    var = VAR(VARConfig.preset('tiny', gamma_init=1., shared_adaln=True), cfg).train()
    loss, per = var.loss([torch.randint(256, (4, h*w)) for h, w in cfg.scales], dict(pitch=torch.arange(4)))
    loss.backward()
    assert loss.isfinite() and per['loss'].shape == (len(cfg.scales),)

def test_instrument_label_is_optional():
    cfg = TokenizerConfig.preset('tiny', **SMALL)
    assert len(VAR(VARConfig.preset('tiny', n_instruments=5), cfg).eval().generate(dict(instrument=[0, 4]))) == 4
    with pytest.raises(ValueError, match="'instrument' is unknown"): VAR(VARConfig.preset('tiny'), cfg).generate(dict(instrument=1))

def test_path_at_another_size(tmp_path):
    torch.manual_seed(0)
    ls = LogSpectrogram(n_fft=128, hop_length=64, n_frames=32)
    cfg = TokenizerConfig.preset('tiny', **SMALL)
    tok = Tokenizer(cfg)
    m = Mars(tok, VAR(VARConfig.preset('tiny'), cfg).bind(tok), spectrogram=ls)
    assert m.generate(3, pitch=60, seed=0, n_iter=2).shape == (3, ls.n_samples)
    m.save_pretrained(tmp_path/'model')
    again = Mars.from_pretrained(tmp_path/'model')
    assert torch.equal(again.generate(3, pitch=60, seed=0, n_iter=2), m.generate(3, pitch=60, seed=0, n_iter=2))

def test_spec_and_note():
    ls = LogSpectrogram()
    spec = ls.encode(torch.randn(64000)*0.1)
    assert spec.shape == (1, 1, 512, 256) and ls.magnitude(spec).shape == (1, 1, 513, 256) and ls.decode(spec, n_iter=1).shape == (1, 64000)
    assert (Note(60, 100, 'guitar', 'acoustic', 'guitar_acoustic_000').family_id, CMX.fit().channels, STRIPS['patch']) == (3, 2, (8, 128))
    assert multiplex_nd(torch.zeros(1, 4, 4, 4), (2, 2, 2)).shape == (8, 2, 2, 2)
