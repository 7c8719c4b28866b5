"""The packaged weights: size, names and pitch."""
import json
from pathlib import Path
import pytest
import mars
from mars.eval import cents_error, f0
from mars.pipeline import Mars
from mars.tokenizer import TokenizerConfig

WEIGHTS = Path(mars.__file__).parent/'weights'
pytestmark = pytest.mark.skipif(not (WEIGHTS/'small/config.json').exists(), reason='no weights are packaged')

def test_all_weights_together_stay_under_28_mib():
    assert sum(p.stat().st_size for p in WEIGHTS.rglob('*.safetensors')) < 28*2**20

def test_small_describes_itself():
    info = json.loads((WEIGHTS/'small/config.json').read_text())['info']
    assert info['data']['credits'] and info['data']['held_out'] and info['versions']['torch'] and info['results']
    assert info['versions']['device'] and info['train_var']['steps'] and info['objective']['self_correction']

def test_the_presets_named_small_are_the_packaged_shape():
    from mars.parts.reference import ReferenceVARConfig
    m = Mars.from_pretrained('small')
    assert m.tokenizer.cfg == TokenizerConfig.preset('small')
    assert m.var.cfg == ReferenceVARConfig.preset('small', reference_dim=m.var.cfg.reference_dim, reference_dropout=m.var.cfg.reference_dropout)

def test_small_warns_outside_its_training_labels(tmp_path, capsys):
    from mars.cli import main
    card = str(Mars.from_pretrained('small').generate_model_card())
    assert 'MIDI pitches 36 to 96' in card and 'Pitch labels are the pitches that sound' in card
    ask = ['generate', '--pitch', '24,108', '--n-iter', '1', '--out', str(tmp_path), '--json']
    assert main(ask) == 0 and 'pitch 24, 108 is outside 36..96' in capsys.readouterr().err
    assert main([*ask, '--strict']) == 2 and main(['generate', '--family', 'flute', '--source', 'synthetic', '--out', str(tmp_path), '--strict']) == 2
    assert 'flute was acoustic, not synthetic' in capsys.readouterr().err

def test_small_generates_the_requested_pitch():
    m = Mars.from_pretrained('small')
    pitches = [43, 48, 53, 57, 60, 67]
    waves = m.generate(pitch=pitches, family='keyboard', source='acoustic', velocity=100, seed=0, top_k=5, cfg_scale=2., n_iter=8)
    assert waves.shape == (6, 64000) and waves.abs().max() <= 1 and waves.abs().amax(-1).min() > 0.05
    right = [abs(float(cents_error(float(f0(w).midi), p))) <= 50 for w, p in zip(waves, pitches)]
    assert sum(right) >= 3, right # 4 to 6 over seeds; a model that ignores pitch has one

def test_the_command_line_finds_it(tmp_path):
    from mars.cli import main
    ask = ['generate', '--pitch', '60', '--family', 'guitar', '--n-iter', '4', '--out', str(tmp_path), '--json']
    assert main([*ask, '--seed', '1']) == 0
    first = (tmp_path/'guitar-060.wav').read_bytes()
    assert len(first) > 100_000
    assert main([*ask, '--seed', '2']) == 0 # the existing file stays
    assert sorted(p.name for p in tmp_path.glob('*.wav')) == ['guitar-060-2.wav', 'guitar-060.wav'] and (tmp_path/'guitar-060.wav').read_bytes() == first
    assert main([*ask, '--seed', '2', '--overwrite', '--phase', 'vocoder']) == 0 # the default
    assert (tmp_path/'guitar-060.wav').read_bytes() == (tmp_path/'guitar-060-2.wav').read_bytes() != first
