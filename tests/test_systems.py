"""The baselines as models at unit-test size: a common folder format, command line and evaluation."""
import json
from dataclasses import asdict
import pytest, torch
from mars.baselines.aar import SAT, SATConfig, BaselineConfig, WaveMars, rvq
from mars.cli import main
from mars.cli.dispatch import normalize
from mars.cli.training import transformer_of
from mars.parts.files import load_wave, save_wave
from mars.baselines.magnet import DelayPatternLM, DelayPatternConfig, FlatPatternLM, MAGNeT, MAGNeTConfig
from mars.baselines.next_token import NextToken
from mars.pipeline import Mars
from mars.parts.config import PIPELINES, SYSTEMS
from mars.evaluation.report import describe_model, load_model
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig

torch.set_num_threads(1)
BODY = dict(width=2, dimension=8, lstm=1, code_dim=4, codebook_size=16)
SCALES, FRAMES = (SATConfig.preset('tiny', **BODY, **layout) for layout in (dict(lengths=(1, 8, 40, 200), n_phi=2), rvq(2)))
SHAPE = dict(depth=1, width=32, heads=1)
MODELS = {'aar': (VAR, BaselineConfig, SCALES, {}), 'next-token': (NextToken, BaselineConfig, SCALES, {}), 'flat': (FlatPatternLM, BaselineConfig, FRAMES, {}),
          'delayed': (DelayPatternLM, DelayPatternConfig, FRAMES, {}), 'magnet': (MAGNeT, MAGNeTConfig, FRAMES, dict(steps=[3, 2]))}

def make(name):
    torch.manual_seed(0)
    model, config, cfg, _ = MODELS[name]
    tok = SAT(cfg).warm_start(torch.randn(2, 64000)*.1)
    return WaveMars(tok, model(config.preset('tiny', **SHAPE), cfg).bind(tok), info=dict(notes='none'))

@pytest.fixture(scope='module', params=MODELS)
def saved(request, tmp_path_factory):
    m, folder = make(request.param), tmp_path_factory.mktemp(request.param)
    m.save_pretrained(folder)
    return m, folder, MODELS[request.param][3]

# --- folders

def test_a_folder_records_its_system(saved):
    m, folder, more = saved
    again = Mars.from_pretrained(folder)
    assert type(again) is WaveMars and type(again.var) is type(m.var) and asdict(again.var.cfg) == asdict(m.var.cfg) and again.tokenizer.cfg == m.tokenizer.cfg and again.info == m.info
    for a, b in zip(m.var.state_dict().values(), again.var.state_dict().values()): assert torch.equal(a, b)
    assert torch.equal(again.generate(pitch=[60, 64], seed=3, **more), m.generate(pitch=[60, 64], seed=3, **more))

def test_every_system_is_registered():
    for name in SYSTEMS: assert SYSTEMS.find(name).system == name
    assert PIPELINES.find(None) is Mars and PIPELINES.find('wave') is WaveMars
    with pytest.raises(ValueError, match="prediction order 'sideways' is unknown: choose one of"): SYSTEMS.find('sideways')
    with pytest.raises(ValueError, match="kind of model 'movie' is unknown: choose one of"): PIPELINES.find('movie')

def test_mismatched_parts_are_refused(tmp_path):
    m, other = make('aar'), make('magnet')
    with pytest.raises(ValueError, match='another tokenizer config'): WaveMars(m.tokenizer, other.var)
    m.save_pretrained(tmp_path/'a'); other.save_pretrained(tmp_path/'b')
    (tmp_path/'a'/'var.safetensors').write_bytes((tmp_path/'b'/'var.safetensors').read_bytes())
    with pytest.raises(ValueError, match='does not fit its config.json'): Mars.from_pretrained(tmp_path/'a')
    c = json.loads((tmp_path/'b'/'config.json').read_text())
    (tmp_path/'b'/'config.json').write_text(json.dumps({**c, 'kind': 'movie'}))
    with pytest.raises(ValueError, match="kind of model 'movie'"): Mars.from_pretrained(tmp_path/'b')

# --- the same methods as Mars

def test_a_note_depends_on_seed_and_index_only(saved):
    m, _, more = saved
    whole = m.generate(pitch=[60, 62, 64], seed=5, **more)
    assert whole.shape == (3, 64000) and whole.isfinite().all() and whole.abs().max() <= 1
    torch.testing.assert_close(m.generate(pitch=[60, 62, 64], seed=5, batch_size=1, **more), whole, atol=1e-4, rtol=0)
    assert not torch.equal(m.generate(pitch=[60, 62, 64], seed=6, **more), whole)

def test_previews_end_with_the_note(saved):
    m, _, more = saved
    shown = [*m.preview(1, pitch=60, seed=2, **more)]
    assert len(shown) == len(m.tokenizer.cfg.lengths) and all(spec.shape == (1, 1, 512, 256) and wave.shape == (1, 64000) for spec, wave in shown)
    torch.testing.assert_close(shown[-1][1], m.generate(1, pitch=60, seed=2, **more), atol=1e-5, rtol=0)

@pytest.mark.parametrize('call, says', [(lambda m: m.generate(pitch=300), 'label pitch is 300'), (lambda m: m.generate(family='kazoo'), "got 'kazoo'"), (lambda m: m.generate(pitch=60, seed=-1), 'seed is -1'),
    (lambda m: m.generate(pitch=60, temperature=-1), 'temperature is -1'), (lambda m: m.generate(pitch=60, wings=2), 'wings is not a setting'), (lambda m: m.reconstruct(torch.zeros(64000)), 'silent'),
    (lambda m: m.reconstruct(torch.full((64000,), float('nan'))), 'NaN'), (lambda m: m.reconstruct(torch.randn(64000), sample_rate=0), 'must be in 1000..768000 whole Hz, got 0'), (lambda m: m.generate(pitch=60, batch_size=0), 'batch_size must be an integer >= 1, got 0')])
def test_errors_equal_those_of_mars(saved, call, says):
    m = saved[0]
    with pytest.raises(ValueError, match=says) as mine: call(m)
    tok = Tokenizer(TokenizerConfig.preset('tiny'))
    with pytest.raises(ValueError) as theirs: call(Mars(tok, VAR(VARConfig.preset('tiny'), tok.cfg).bind(tok)))
    assert str(mine.value).replace(m.var.system, '') == str(theirs.value).replace('next-scale', '')

def test_other_rates_and_lengths(saved):
    m = saved[0]
    wave = torch.sin(torch.arange(20000)/20)*.5
    with pytest.warns(UserWarning, match='padded to 64000'): back = m.reconstruct(wave, prepare=False)
    assert torch.equal(back[0], m.tokenizer.decode(m.tokenizer.encode(torch.nn.functional.pad(wave, (0, 44000))[None]))[0])
    with pytest.warns(UserWarning, match='resampled from 32000'): assert m.reconstruct(torch.randn(128000)*.1, sample_rate=32000).shape == (1, 64000)

@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision(saved, dtype):
    m, folder, more = saved
    half = Mars.from_pretrained(folder, dtype=dtype)
    wave = half.generate(pitch=[60, 64], seed=3, **more)
    assert half.dtype == getattr(torch, dtype) and wave.dtype == torch.float32 and wave.isfinite().all()
    torch.testing.assert_close(half.reconstruct(torch.randn(1, 64000)*.1).std(), m.reconstruct(torch.randn(1, 64000)*.1).std(), rtol=.3, atol=.02)

# --- the command

def test_generate_and_reconstruct(saved, tmp_path, capsys):
    m, folder, more = saved
    ask = [x for k, v in more.items() for x in ('--set', f'{k}={",".join(map(str, v))}')]
    assert main(['generate', '--model', str(folder), '--pitch', '60,64', '--seed', '3', '--out', str(tmp_path/'n'), '--json', *ask]) == 0
    files = json.loads(capsys.readouterr().out)['files']
    assert torch.allclose(torch.as_tensor(load_wave(files[1])).float().flatten(), m.generate(pitch=[60, 64], seed=3, **more)[1], atol=1e-4)
    save_wave(tmp_path/'in.wav', torch.sin(torch.arange(64000)/20)*.5)
    assert main(['reconstruct', str(tmp_path/'in.wav'), '--model', str(folder), '--out', str(tmp_path/'back')]) == 0
    assert (tmp_path/'back'/'in-reconstructed.wav').exists()

def test_evaluate_accepts_a_wave_model(tmp_path, capsys):
    make('aar').save_pretrained(tmp_path/'m')
    assert main(['evaluate', '--model', str(tmp_path/'m'), '--data', 'additive', '--families', 'organ,flute', '--pitches', '50-61', '--velocities', '100', '--n', '20', '--n-iter', '1', '--n-resamples', '10', '--n-f0', '2',
                 '--n-train', '100', '--seeds', '1', '--out', str(tmp_path/'a'), '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert {'generated', 'reconstruction', 'Griffin-Lim oracle'} <= set(said['rows']) and said['settings']['phases']['generated'] == 'of the decoder' and said['settings']['phases']['Griffin-Lim oracle'] == 'griffinlim 1'
    assert describe_model(load_model(tmp_path/'m', 'cpu'))['tokenizer']['lengths'] == [1, 8, 40, 200]

def test_the_tokenizer_determines_compatible_systems():
    waves, frames = make('aar'), make('magnet')
    picture = Mars(Tokenizer(TokenizerConfig.preset('tiny')))
    fits = dict(var=(waves, frames, picture), aar=(waves, frames), magnet=(frames,), ar=(waves, frames, picture))
    for stage, good in fits.items():
        for m in (waves, frames, picture):
            if m in good: assert issubclass(transformer_of(stage, m)[0], VAR)
            else:
                with pytest.raises(ValueError, match=f'{stage} needs a tokenizer'): transformer_of(stage, m)
    assert [transformer_of('ar', frames, p)[0] for p in (None, 'delayed', 'flat')] == [DelayPatternLM, DelayPatternLM, FlatPatternLM]
    with pytest.raises(ValueError, match='a delayed ar needs'): transformer_of('ar', waves, 'delayed')

def test_the_system_option_may_replace_the_stage():
    assert normalize(['train', '--out', 'x', '--system', 'aar', '--steps', '3']) == ['train', 'aar', '--out', 'x', '--steps', '3']
    for argv in (['train', 'aar'], ['train', '--system'], ['generate', '--system', 'aar'], []): assert normalize(argv) == argv
