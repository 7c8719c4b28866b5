"mars evaluate: notes, rows, warnings, memory and invalid input."
import json
from pathlib import Path
import pytest, torch
import mars.evaluation.report as report
from mars.cli import main
from mars.parts.classifier import Classifier
from mars.data import AdditiveNotes, NSynth, NoteFolder, write_nsynth_fixture
from mars.parts.files import save_wave
from mars.pipeline import Mars
from mars.evaluation.protocol import MelPCA, NoteSet, ProtocolConfig, Row
from mars.evaluation.report import Splits, memorisation_alarms, compact_report, describe_model, sample_reference, evaluate_model, select_matching
from mars.evaluation.report import report_notes, load_model, seed_spread, read_report, make_splits, summary_line
from mars.evaluation.report import report_markdown, sample_training_notes, generate_timed
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.var import VAR, VARConfig

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)
FAST = dict(n_iter=1, n_resamples=10, n_f0=4, n_train=100, seeds=1, batch_size=8)
ROWS = ['reference itself', 'real, other half', 'real, validation', 'true-phase oracle', 'Griffin-Lim oracle', 'reconstruction', 'generated', 'low-pass 3.5 kHz', 'noise 20 dB', 'class mean', 'training copies', 'training copies, through the model']

@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    tok = Tokenizer(TokenizerConfig.preset('tiny'))
    var = VAR(VARConfig.preset('tiny'), tok.cfg); var.bind(tok)
    return Mars(tok, var)

@pytest.fixture(scope='module')
def sides(): return make_splits(AdditiveNotes(('guitar', 'flute', 'organ'), pitches=range(48, 64), velocities=(50, 100)))

@pytest.fixture(scope='module')
def made(model, sides, tmp_path_factory):
    out = tmp_path_factory.mktemp('report')
    return evaluate_model(model, sides, 20, out, top_k=4, **FAST), out

def make_rows_of(model, ref, write, copies='none', **settings):
    "The rows of a report for a few notes."
    cfg = report.EvaluationConfig(seeds=1, **settings)
    return report.make_rows(report.RowContext(model, ref, cfg, write, copies=copies))[0]

# Which notes

def test_sides_of_a_source_share_no_instrument(sides):
    names = [set(s.instruments) for s in (sides.test, sides.valid, sides.train)]
    assert all(names) and not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2]) and 'seed=0' in sides.description
    with pytest.raises(ValueError, match='three of a family'): make_splits(AdditiveNotes(('guitar_acoustic_800',), pitches=(60,)))

def test_nsynth_uses_its_own_splits(tmp_path):
    write_nsynth_fixture(tmp_path)
    s = make_splits(NSynth(tmp_path, 'test'))
    assert (s.test.folder.name, s.train.folder.name) == ('nsynth-test', 'nsynth-train') and s.description.startswith('reference: the notes of nsynth-test')
    few = make_splits(NSynth(tmp_path, 'test').filter(pitches=(60,)))
    assert {n.pitch for n in few.test.notes} == {60} and few.train is not None

def test_a_plain_folder_is_used_whole(tmp_path, sides):
    for i in range(2): save_wave(tmp_path/f'{sides.test.notes[i].family}_acoustic_00{i}-060-100.wav', sides.test[i][0])
    s = make_splits(NoteFolder(tmp_path), sides.train)
    assert len(s.test) == 2 and s.valid is None and s.train is sides.train

def test_separate_training_notes_are_used(tmp_path):
    from mars.data import NSynth, write_nsynth_fixture
    from mars.evaluation.report import training_split
    root = write_nsynth_fixture(tmp_path, dict(train=(0,), test=(1,)), ('organ', 'flute'), (60,), (100,), None)
    assert len(training_split(NSynth(root, 'train'))) == 2
    with pytest.raises(ValueError, match='holds no training notes'): training_split(NSynth(root, 'test'))

def test_filters_do_not_move_an_instrument_to_another_side(sides):
    from mars.evaluation.report import filter_splits
    some = filter_splits(sides, pitches=[sides.test.notes[0].pitch], families=None)
    assert {n.note_str for n in some.test.notes} < {n.note_str for n in sides.test.notes} and some.train is sides.train
    with pytest.raises(ValueError, match='no reference note has'): filter_splits(sides, pitches=[0])

def test_reference_and_held_out_half(sides):
    labels, names = sides.test.targets, [n.instrument for n in sides.test.notes]
    a, b = sample_reference(labels, 24, names)
    assert len({*a.tolist(), *b.tolist()}) == 48 and all((labels[k][a] == labels[k][b]).all() for k in ('pitch', 'family'))
    assert sample_reference(labels, 24, names)[0].tolist() == a.tolist() != sample_reference(labels, 24, names, seed=1)[0].tolist()
    lone = sample_reference(labels, 60)
    assert 'these notes hold 48 pairs' in lone[1] and len(set(lone[0].tolist())) == 60

def test_the_reference_can_be_matched_by_other_splits(sides):
    labels, valid, train = sides.test.targets, sides.valid.filter(pitches=range(48, 52)), sides.train
    both = lambda n: sample_reference(labels, n, seed=3, others=(valid.targets, train.targets))
    rows, others = both(12)
    assert set(labels['pitch'][rows].tolist()) <= {48, 49, 50, 51} and len(others) == 12
    picked = {k: v[rows] for k, v in labels.items()}
    assert isinstance(select_matching(valid, picked, 'v'), NoteSet) and isinstance(select_matching(train, picked, 't'), NoteSet)
    rows = both(30)[0] # more than valid holds: training notes still match
    picked = {k: v[rows] for k, v in labels.items()}
    most = select_matching(valid, picked, 'v')
    assert 'use n of at most' in most and isinstance(select_matching(train, picked, 't'), NoteSet)
    assert isinstance(both(96)[1], str) # all of them

def test_the_sample_prefers_the_labels_of_the_reference(sides):
    ref = NoteSet(sides.test).subset(range(20))
    pairs = lambda labels: list(zip(labels['pitch'].tolist(), labels['family'].tolist()))
    same = sum(p in set(pairs(ref.labels)) for p in pairs(sides.train.targets))
    for n in (same//2, same, same+10):
        s, said = sample_training_notes(sides.train, ref.labels, n)
        assert said == dict(notes=len(sides.train), searched=n, same_labels=same, same_labels_searched=min(n, same)) and len(s) == n
        assert sum(p in set(pairs(ref.labels)) for p in pairs(s.labels)) == min(n, same)
    assert len(sample_training_notes(sides.train, dict(pitch=[20], family=[0]), 30)[0]) == 30 # where no label fits
    assert select_matching(None, ref.labels, 'x') == 'there are no such notes' and 'no reference note' in select_matching(sides.train, dict(pitch=torch.tensor([20]), family=torch.tensor([0])), 'x')

# The model

def test_generated_notes_equal_those_of_generate(model, sides):
    labels = {k: v[:5] for k, v in sides.test.targets.items()}
    got = torch.cat([*generate_timed(model, labels, spent := [], 7, 1, batch_size=2, temperature=.9)])
    assert torch.equal(got, model.generate(**{k: v.tolist() for k, v in labels.items()}, seed=7, n_iter=1, batch_size=2, temperature=.9, progress=False))
    assert [s[0] for s in spent] == [2, 2, 1] and all(min(s) > 0 for s in spent)

def test_a_model_is_identified_by_its_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert describe_model(load_model(tmp_path, 'cpu'))['digest'] == describe_model(model)['digest'] != describe_model(Mars(model.tokenizer))['digest']
    with pytest.raises(ValueError, match='generates no notes'): load_model('classifier', 'cpu')

# The report

def test_every_row_names_its_phase_method(made):
    result, out = made
    assert list(result['rows']) == ROWS == list(result['settings']['phases']) and list(result['left_out']) == ['FAD (VGGish)', 'memorisation', 'Fréchet distance, mel-PCA', 'Fréchet distance, classifier']
    how = result['settings']['phases']
    assert how['generated'] == how['reconstruction'] == how['Griffin-Lim oracle'] == 'griffinlim 1' and how['true-phase oracle'] == 'true' and how['training copies'] == 'recorded'
    text = (out/'table.md').read_text(encoding='utf-8')
    assert '| row | phase | NDB/k | PKID | IKID | PIS | IIS | MSE | MAE |' in text and '| generated | griffinlim 1 |' in text and 'MARS generated' in text and 'value by value' in text
    assert not list(out.glob('.notes-*')) and sorted(p.name for p in out.iterdir()) == result['files']

def test_the_report_names_its_inputs(made, model):
    result, out = made
    s = json.loads((out/'report.json').read_text(encoding='utf-8'))['settings']
    assert s['model']['digest'] == describe_model(model)['digest'] and s['classifier']['digest'] == Classifier.from_pretrained().digest
    assert s['embedders']['mel-PCA']['digest'] == MelPCA.load().digest and len(s['reference']) == 16 and s['sampling'] == dict(top_k=4) and s['seed'] == 0
    assert {'torch', 'mars', 'python', 'device'} <= set(s['versions']) and s['data']['test']['families'] == dict(flute=32, guitar=32, organ=32) and 'held out' in s['split']
    assert result['speed']['notes_per_second'] > 0 and result['memory']['process_mib'] > 100 and result['seconds']['make generated'] > 0

def test_order_of_rows(made):
    r = made[0]['rows']
    v = lambda row, m: getattr(r[row][m], 'value', r[row][m])
    for m in ('MSE paired', 'mel distance'): assert v('true-phase oracle', m) < v('Griffin-Lim oracle', m) < v('reconstruction', m)
    KAD = 'KAD, mel-PCA'
    assert v('reference itself', 'MSE') == v('reference itself', 'STFT distance') == v('reference itself', 'KL pitch') == 0
    assert abs(v('true-phase oracle', KAD)) < v('generated', KAD) and v('real, other half', KAD) < v('generated', KAD) and 'MSE paired' not in r['generated'] and r['generated']['KL pitch'].value > r['true-phase oracle']['KL pitch'].value

def test_a_compact_report_prints_like_the_full_one(made, tmp_path):
    result, out = made
    (tmp_path/'a.json').write_text(compact_report(result), encoding='utf-8')
    short, long = read_report(tmp_path/'a.json'), read_report(out/'report.json')
    assert (tmp_path/'a.json').stat().st_size < 60000 and list(short['rows']) == list(long['rows'])
    for name, row in long['rows'].items():
        for k, v in row.items():
            a, b = (getattr(x, 'value', x) for x in (short['rows'][name][k], v))
            assert a == pytest.approx(b, rel=1e-4) if b is not None else a is None
    assert report_markdown(long).splitlines()[4:8] == report_markdown(result).splitlines()[4:8]

def test_a_tokenizer_alone_has_reconstruction_rows(model, sides):
    result = evaluate_model(Mars(model.tokenizer), Splits(sides.test), 20, **FAST | dict(n_f0=1), swap_share=0.)
    assert 'swapped' not in result and 'swapped codes' not in report_markdown(result)
    assert 'no transformer' in result['left_out']['generated'] and 'generated' not in result['rows'] and 'reconstruction' in result['rows'] and result['speed'] is None
    assert result['left_out']['training copies'] == 'no training notes are given' and result['left_out']['real, validation'] == 'there are no such notes'

def test_memorisation_alarms():
    quiet, loud = ({f'memorisation {k}': v for k, v in dict(quantile_share=q, quantile_p=p, median_ratio=m, c_t=c, auth=.5).items()} for q, p, m, c in ((.01, .6, 1., 0.), (1., 0., .01, -9.)))
    chance = quiet | {'memorisation quantile_share': .06, 'memorisation quantile_p': .05} # six of 100 notes
    assert memorisation_alarms(dict(a=quiet, b=loud, c={}, d=chance)) == dict(a=[], b=['quantile_share', 'median_ratio', 'c_t'], d=[])

def test_training_copies_raise_every_alarm(sides):
    "The notes and features of a real report without a model: 120 held-out notes, copies, notes of the third instrument."
    from mars.evaluation.protocol import evaluate
    many = make_splits(AdditiveNotes(('guitar', 'flute', 'organ'), pitches=range(40, 80), velocities=(100,)))
    ref = NoteSet(many.test)
    near = sample_training_notes(many.train, ref.labels, 120)[0]
    result = evaluate(ref, [Row('real, validation', select_matching(many.valid, ref.labels, 'valid')), Row('training copies', select_matching(many.train, ref.labels, 'training copies'))], near, [MelPCA.load()], cfg=ProtocolConfig(n_f0=0, n_resamples=10))
    assert memorisation_alarms(result['rows'])['training copies'] == ['quantile_share', 'median_ratio', 'c_t'] and result['rows']['training copies']['NDB k'] == 10

def test_several_seeds_are_several_rows(model, sides):
    result = evaluate_model(model, Splits(sides.test), 20, **FAST | dict(seeds=2, n_f0=0))
    a, b = (result['rows'][k] for k in ('generated', 'generated, run 2'))
    mean, std = result['seed_spread']['MSE']
    assert mean == pytest.approx((a['MSE'].value + b['MSE'].value)/2) and std == pytest.approx(abs(a['MSE'].value - b['MSE'].value)/2**.5) and std > 0
    assert seed_spread(dict(generated=a)) == {} and any(v.startswith('Over 2 seeds') for v in report_notes(result))

def test_the_models_vocoder_is_used_and_named(model, sides):
    from mars.parts.vocoder import Vocoder, VocoderConfig
    torch.manual_seed(5)
    own, says = Mars(model.tokenizer, vocoder=Vocoder(VocoderConfig.preset('tiny'))), {}
    assert describe_model(own)['vocoder'] is None and describe_model(own, 'vocoder')['vocoder']['own'] and not describe_model(model, 'vocoder')['vocoder']['own']
    assert describe_model(own, 'vocoder')['vocoder']['digest'] != describe_model(model, 'vocoder')['vocoder']['digest']
    ref = NoteSet(sides.test).subset(range(2))
    for name, m in dict(own=own, packaged=model).items():
        rows = {row.name: row.notes for row in make_rows_of(m, ref, lambda waves, name: torch.cat([*waves]), phase='vocoder', n_iter=0, batch_size=2)}
        says[name] = rows['vocoder oracle']
    spec = model.spectrogram.encode(ref[:])
    assert torch.equal(says['own'][:, 16:64000], own.spec_to_wave(spec, 0, 0, 'vocoder')[:, 16:64000]) and not torch.equal(says['own'], says['packaged'])

def test_notes_below_the_table(made):
    said = '\n'.join(report_notes(made[0]))
    for words in ('The reference has 3 of the 3 families', 'The training copies are real training notes', 'training notes were searched for copies', 'of the pairs behind', 'Silent or clipped notes', 'pitch 95.8%', 'calibration error', 'It was trained on', 'too few for 64 features'): assert words in said
    assert all(v in (made[1]/'table.md').read_text(encoding='utf-8') for v in report_notes(made[0])) and summary_line(*made).startswith('20 notes a row; KAD, mel-PCA: ')

def test_reconstructed_training_copies_have_a_row(model, sides):
    ref = NoteSet(sides.test).subset(range(2))
    rows = {row.name: row for row in make_rows_of(model, ref, lambda waves, name: NoteSet(torch.cat([*waves]), name=name), copies=ref, n_iter=1, batch_size=2)}
    decoded = rows[report.DECODED_COPIES]
    assert torch.equal(decoded.notes[:], rows['reconstruction'].notes[:]) and rows['training copies'].notes is ref and decoded.phase == 'griffinlim 1'
    loud = dict(settings=dict(notes=9, data=dict(pairs_of_one_instrument=None), classifier={}), rows={'training copies': dict(silent=0, clipped=0)}, left_out={}, speed=None, memory=dict(process_mib=1), seconds=dict(total=1))
    said = {k: ' '.join(report_notes(loud | dict(alarms={'training copies': [*report.ALARMS], report.DECODED_COPIES: v}))) for k, v in dict(silent=[], raised=['c_t']).items()}
    assert 'is not detected' in said['silent'] and 'the copies raise c_t' in said['raised'] and 'They raise all alarms' in said['raised']

@pytest.mark.parametrize('path', sorted((ROOT/'results'/'evaluation').glob('small-*.json')), ids=lambda p: p.stem)
def test_committed_reports_can_be_written_again(path):
    text = report_markdown(read_report(path))
    assert '| training copies |' in text and '## Details' in text and 'nan s' not in text

# Memory

def test_no_batch_grows_with_n(model, sides, monkeypatch):
    "The largest number of notes that any step reads, generates or stores at a time."
    def most(n):
        seen = []
        get, conv, spec, measure = NoteSet.__getitem__, report.write_notes, Mars.tokens_to_spec, report.evaluate
        def watched(waves, *a, **kw): return conv((seen.append(len(w)) or w for w in waves), *a, **kw)
        with monkeypatch.context() as p:
            p.setattr(NoteSet, '__getitem__', lambda self, rows: (seen.append(len(w := get(self, rows))), w)[1])
            p.setattr(report, 'write_notes', watched)
            p.setattr(Mars, 'tokens_to_spec', lambda self, tokens, *a: (seen.append(len(tokens[0])), spec(self, tokens, *a))[1])
            p.setattr(report, 'evaluate', lambda ref, rows, *a, **kw: measure(ref, [row for row in rows if row.name in ('reconstruction', 'generated', 'training copies')], *a, **kw)) # all are made, three measured
            evaluate_model(model, Splits(sides.test, None, sides.train), n, **FAST | dict(batch_size=2, n_f0=1, measure_batch_size=4))
        return max(seen)
    assert most(20) == most(40) == 16 # the search for the nearest note reads four blocks at a time

# Bad input

def test_invalid_arguments_are_refused(model, sides, tmp_path):
    (tmp_path/'file').write_text('')
    ev = lambda test, *a, **kw: evaluate_model(model, Splits(test), *a, out=tmp_path/'none', **kw)
    for call, message in [(lambda: ev(sides.test, 10), 'n must be >= 20, got 10'), (lambda: ev(sides.test, 97), 'n is 97 and the reference holds 96 notes'), (lambda: ev(sides.test, 20, phase='x'), "got 'x'"),
                      (lambda: ev(sides.test, 20, n_iter=-1), 'n_iter must be >= 0, got -1'), (lambda: ev(sides.test, 20, n_resamples=3), 'n_resamples must be >= 10, got 3'), (lambda: ev(sides.test, 20, seeds=0), 'seeds must be >= 1, got 0'), (lambda: ev(sides.test, 20, n_train=5), 'n_train must be >= 100, got 5'), (lambda: ev(sides.test.select([]), 20), 'reference is empty'),
                      (lambda: ev(AdditiveNotes('organ', pitches=range(5, 12)), 20), '21-108 of the classifier'),
                      (lambda: evaluate_model(model, Splits(sides.test), 20, tmp_path/'file'/'x'), 'cannot be written'), (lambda: load_model('small', 'abacus'), 'device')]:
        with pytest.raises(ValueError, match=message): call()
    assert [p.name for p in tmp_path.iterdir()] == ['file']

def test_a_failed_evaluation_leaves_no_files(model, sides, tmp_path):
    with pytest.raises(ValueError, match='top_k'): evaluate_model(model, Splits(sides.test), 20, tmp_path/'out', top_k=-3, **FAST)
    assert not (tmp_path/'out').exists() or not list((tmp_path/'out').iterdir())

def test_command_line(model, tmp_path, capsys):
    model.save_pretrained(tmp_path/'m')
    argv = ['evaluate', '--model', tmp_path/'m', '--data', 'additive', '--families', 'organ,flute', '--pitches', '50-61', '--velocities', '100', '--n', 20, '--n-iter', 1, '--n-resamples', 10, '--n-f0', 2, '--n-train', 100, '--seeds', 1]
    assert main([*map(str, argv), '--out', str(tmp_path/'a'), '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['settings']['filters']['families'] == ['organ', 'flute'] and said['settings']['names']['data'] == 'additive' and set(said['rows']) >= {'generated', 'training copies'}
    for bad, say in [(['--n', '500'], 'the reference holds 24 notes'), (['--model', 'classifier'], 'generates no notes'), (['--model', 'nowhere'], 'there is no model'), (['--data', 'nowhere'], "no data 'nowhere'")]:
        assert main([*map(str, argv), *bad, '--out', str(tmp_path/'b')]) == 2
        err = capsys.readouterr().err
        assert err.startswith('mars: ') and err.count('\n') == 1 and say in err
    assert not (tmp_path/'b').exists()

def test_default_iterations_equal_those_of_decode(model, monkeypatch):
    from mars.parts.vocoder import Vocoder, VocoderConfig
    from mars.parts.config import PHASES
    asked = []
    own = Mars(model.tokenizer, vocoder=Vocoder(VocoderConfig.preset('tiny', n_iter=7)))
    spec = torch.full((1, *model.spectrogram.shape), -1.)
    spec[..., 40, :] = 0.
    for m, phase in ((model, 'griffinlim'), (model, 'pghi'), (model, 'vocoder'), (own, 'vocoder')):
        n = report.default_n_iter(m, phase)
        assert torch.equal(m.spec_to_wave(spec, None, 0, phase), m.spec_to_wave(spec, n, 0, phase)) and not torch.equal(m.spec_to_wave(spec, n + 1, 0, phase), m.spec_to_wave(spec, n, 0, phase))
    assert report.default_n_iter(own, 'vocoder') == 7

# Swapped codes

def test_the_report_has_a_row_of_swapped_codes_for_each_map(made, model, tmp_path):
    result, out = made
    swapped, K = result['swapped'], len(model.tokenizer.cfg.scales)
    assert swapped['notes'] == FAST['n_f0'] and [r['map'] for r in swapped['rows']] == [*range(K + 1)]
    assert all(r['share'] == .1 and r['Fréchet distance'] is None for r in swapped['rows'][1:])
    again = read_report(out/'report.json')['swapped']['rows']
    assert [r['MSE'].value for r in again] == [r['MSE'].value for r in swapped['rows']]
    (tmp_path/'short.json').write_text(report.compact_report(result))
    for r in (result, read_report(out/'report.json'), read_report(tmp_path/'short.json')):
        lines = report_markdown(r).splitlines()
        i = lines.index('## Reconstruction with swapped codes')
        assert lines[i+4].startswith('| row | tokens | share | replaced | within |') and f'| map {K}, 10% |' in lines[i+6+K]

def test_swapped_codes_are_near_and_the_other_maps_stay(model):
    q, g = model.tokenizer.quantizer, torch.Generator().manual_seed(0)
    tokens = [torch.randint(0, q.codebook_size, (5, h*w), generator=g) for h, w in q.scales]
    new = report.swap_codes(q, tokens, 2, 1., neighbours=3, seed=1)
    assert all(torch.equal(a, b) for k, (a, b) in enumerate(zip(tokens, new)) if k != 2)
    codes = torch.nn.functional.normalize(q.codes(2).detach(), dim=-1) if q.lookup == 'cosine' else q.codes(2).detach()
    distance = torch.cdist(codes[tokens[2]], codes)
    rank = (distance < distance.gather(-1, new[2][..., None])).sum(-1) # the code itself is at rank 0
    assert rank.min() >= 1 and rank.max() <= 3 and len(rank.unique()) == 3
    one = report.swap_codes(q, [t[3:4] for t in tokens], 2, 1., neighbours=3, seed=1, first=3)
    assert torch.equal(one[2], new[2][3:4])

def test_the_share_of_swapped_codes_is_checked():
    with pytest.raises(ValueError, match='swap_share'): report.EvaluationConfig(swap_share=1.5)
