"""Killed runs, unusual files, damaged downloads and bounded memory."""
import builtins, io, json, os, shutil, time
from pathlib import Path
import numpy as np
import pytest, torch
import mars.parts.files as files
from mars.cmx import CMX
from mars.data import AdditiveNotes
from mars.parts.files import JOURNAL, finish_save, make_folder, save_together, sweep, temporary_path
from mars.pipeline import Mars
from mars.stft import LogSpectrogram
from mars.tokenizer import Tokenizer, TokenizerConfig
from mars.train import TrainConfig, train_var
from mars.var import VAR, VARConfig

CFG = TokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4))
LS = dict(n_fft=128, hop_length=64, n_frames=32)
VAR_SHAPE = dict(depth=1, width=32, heads=2, drop_path=0.)

def make(seed=0, var=True):
    torch.manual_seed(seed)
    tok = Tokenizer(CFG)
    return Mars(tok, VAR(VARConfig.preset('tiny', **VAR_SHAPE), CFG).bind(tok) if var else None, spectrogram=LogSpectrogram(**LS), cmx=CMX(2, 1), info=dict(seed=seed))

# --- kill -9 at every file operation

class Kill(BaseException): "Stands for `kill -9`: from here on the process does nothing to any file."

OPERATIONS = [(os, name) for name in ('open', 'replace', 'rename', 'unlink', 'mkdir', 'rmdir', 'fsync')] + [(builtins, 'open'), (io, 'open')]
WRITING = os.O_WRONLY | os.O_RDWR

def killed_at(n, monkeypatch, f, seen=None):
    "Run a function and kill it at its file operation n -> True, or False if it ended before; `seen` collects the operations."
    left, dead = [n], []
    def guarded(owner, name, real):
        def run(*args, **kw):
            if name == 'open':
                mode = args[1] if len(args) > 1 else kw.get('mode', kw.get('flags', 'r'))
                if not (mode & WRITING if isinstance(mode, int) else set(mode) & set('wax+')): return real(*args, **kw)
            left[0] -= 1
            if seen is not None: seen.append(name)
            if left[0] < 0:
                dead.append(name)
                raise Kill
            return real(*args, **kw)
        return run
    with monkeypatch.context() as patch:
        for owner, name in OPERATIONS: patch.setattr(owner, name, guarded(owner, name, getattr(owner, name)))
        try: f()
        except BaseException:
            if not dead: raise
    return bool(dead)

def every_kill(monkeypatch, prepare, f, step=1):
    "Yield after every kill, with everything prepared before each; the last one is the run that is not killed."
    for n in range(0, 1000, step):
        prepare()
        dead = killed_at(n, monkeypatch, f)
        monkeypatch.setattr(files, '_is_running', lambda pid: False)
        yield n
        monkeypatch.undo()
        if not dead: return
    raise AssertionError('it does not end')

def fresh(folder, template):
    shutil.rmtree(folder, ignore_errors=True)
    if template.exists(): shutil.copytree(template, folder)

def weights_of(m): return {k: v.clone() for net in (m.tokenizer, m.var) if net is not None for k, v in net.state_dict().items()}
def same(a, b): return (a.var is None) == (b.var is None) and all(torch.equal(v, weights_of(b)[k]) for k, v in weights_of(a).items())

@pytest.mark.parametrize('before, after', [(None, 'full'), ('tokenizer', 'full'), ('full', 'other'), ('full', 'other tokenizer')])
def test_a_killed_save_leaves_the_old_or_the_new_model(before, after, tmp_path, monkeypatch):
    models = dict(full=make(0), tokenizer=make(0, var=False), other=make(1))
    models['other tokenizer'] = make(1, var=False)
    out, template, seen = tmp_path/'m', tmp_path/'template', set()
    if before: models[before].save_pretrained(template)
    for n in every_kill(monkeypatch, lambda: fresh(out, template), lambda: models[after].save_pretrained(out)):
        if before is None and not (out/'config.json').exists() and not (out/JOURNAL).exists(): continue
        m = Mars.from_pretrained(out)
        seen.add(m.info['seed'] if m.var is not None else ('tokenizer', m.info['seed']))
        assert any(same(m, models[k]) and m.info == models[k].info for k in (before, after) if k), n
        before_sweep = {p.name: p.read_bytes() for p in out.iterdir() if not p.name.startswith('.')}
        sweep(out)
        assert before_sweep == {p.name: p.read_bytes() for p in out.iterdir()}
    assert n > 8 and len(seen) == (2 if before else 1)
    assert same(m, models[after])

def test_stage_two_does_not_change_the_files_of_stage_one(tmp_path):
    make(0, var=False).save_pretrained(tmp_path)
    before = (tmp_path/'tokenizer.safetensors').stat()
    m = Mars.from_pretrained(tmp_path)
    Mars(m.tokenizer, make(0).var, m.cmx, m.spectrogram).save_pretrained(tmp_path)
    after = (tmp_path/'tokenizer.safetensors').stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns) and Mars.from_pretrained(tmp_path).var is not None

@pytest.mark.parametrize('kind', ['classifier', 'vocoder', 'flow', 'ddsp', 'diffwave', 'wavenet'])
def test_other_models_are_saved_atomically(kind, tmp_path, monkeypatch):
    from mars.baselines.ddsp import DDSP, DDSPConfig, DDSPMars
    from mars.baselines.diffwave import DiffWave, DiffWaveConfig, DiffWaveMars
    from mars.baselines.flow import Flow, FlowConfig, FlowMars
    from mars.baselines.wavenet import WaveNet, WaveNetConfig, WaveNetMars
    from mars.parts.classifier import Classifier, ClassifierConfig
    from mars.parts.vocoder import Vocoder, VocoderConfig
    def new(seed):
        torch.manual_seed(seed)
        if kind == 'classifier': return Classifier(ClassifierConfig.preset('tiny'))
        if kind == 'vocoder': return Vocoder(VocoderConfig.preset('tiny'))
        if kind == 'ddsp': return DDSPMars(DDSP(DDSPConfig.preset('tiny', width=8)))
        if kind == 'diffwave': return DiffWaveMars(DiffWave(DiffWaveConfig.preset('tiny', channels=4, layers=2, cycle=2, step_width=8)))
        if kind == 'wavenet': return WaveNetMars(WaveNet(WaveNetConfig.preset('tiny', layers=2)))
        return FlowMars(Flow(FlowConfig.preset('tiny', depth=1, width=32, heads=2)))
    load = dict(classifier=lambda: Classifier.from_pretrained(tmp_path/'m'), vocoder=lambda: Vocoder.from_pretrained(tmp_path/'m'), flow=lambda: FlowMars.from_pretrained(tmp_path/'m'), ddsp=lambda: DDSPMars.from_pretrained(tmp_path/'m'), diffwave=lambda: DiffWaveMars.from_pretrained(tmp_path/'m'), wavenet=lambda: WaveNetMars.from_pretrained(tmp_path/'m'))[kind]
    def state(m): return dict(flow=lambda: m.var, ddsp=lambda: m.tokenizer, diffwave=lambda: m.tokenizer, wavenet=lambda: m.tokenizer).get(kind, lambda: m)().state_dict()
    def save(m): m.save(tmp_path/'m') if kind == 'vocoder' else m.save_pretrained(tmp_path/'m')
    def equal(a, b): return all(torch.equal(v, state(b)[k]) for k, v in state(a).items())
    old, m = new(0), new(1)
    save(old)
    shutil.copytree(tmp_path/'m', tmp_path/'template')
    for _ in every_kill(monkeypatch, lambda: fresh(tmp_path/'m', tmp_path/'template'), lambda: save(m)): assert equal(load(), old) or equal(load(), m)
    assert equal(load(), m)

def test_a_full_disk_preserves_the_old_model(tmp_path, monkeypatch):
    make(0).save_pretrained(tmp_path)
    for n in range(4):
        written = iter(range(n))
        def fsync(fd):
            if next(written, None) is None: raise OSError(28, 'No space left on device')
        with monkeypatch.context() as patch:
            patch.setattr(os, 'fsync', fsync)
            with pytest.raises(ValueError, match='cannot be written .No space left on device'): make(1).save_pretrained(tmp_path)
        assert same(Mars.from_pretrained(tmp_path), make(0)) and not [p for p in tmp_path.iterdir() if p.name.startswith('.')]

def test_a_journal_moves_files_of_its_own_folder_only(tmp_path):
    out, victim = tmp_path/'m', tmp_path/'victim'
    make(0).save_pretrained(out)
    victim.write_text('mine')
    left = temporary_path(out/'x')
    left.write_text('theirs')
    for changes in ({'../victim': left.name}, {'../victim': None}, {'config.json': '../victim'}, {'config.json': 'README.md'}):
        (out/JOURNAL).write_text(json.dumps(changes))
        assert same(Mars.from_pretrained(out), make(0)) and victim.read_text() == 'mine' and left.exists()

# --- what killed runs left

def dead_name(path, suffix='.part'): return (p := temporary_path(path, suffix)).with_name(p.name.replace(f'-{os.getpid()}-', '-4999999-'))

def test_the_next_run_removes_files_of_a_killed_run(tmp_path):
    mine, others = [temporary_path(tmp_path/'a'), tmp_path/'.hidden', tmp_path/'.a.part'], [dead_name(tmp_path/'b'), dead_name(tmp_path/'notes', '.notes')]
    for path in (*mine, others[0]): path.write_text('x')
    others[1].mkdir()
    (others[1]/'row').write_text('x')
    make_folder(tmp_path)
    assert all(p.exists() for p in mine) and not any(p.exists() for p in others)
    far = tmp_path/('.c.ffffffff-1-00000000.part')
    far.write_text('x')
    sweep(tmp_path)
    assert far.exists() # of another machine, which may still be writing
    os.utime(far, (0, 0))
    sweep(tmp_path)
    assert not far.exists()

def test_temporary_files_do_not_overwrite_user_files(tmp_path):
    (tmp_path/'.probe').write_text('mine')
    (tmp_path/'target').write_text('target')
    make_folder(tmp_path)
    assert (tmp_path/'.probe').read_text() == 'mine'
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool: assert len(list(pool.map(make_folder, [tmp_path/'new']*40))) == 40
    real = files.temporary_path
    def planted(path, suffix='.part'): # as if somebody had guessed the name
        path = real(path, suffix)
        path.symlink_to(tmp_path/'target')
        return path
    files.temporary_path = planted
    try:
        with pytest.raises(ValueError, match='cannot be written'): files.write_atomic(tmp_path/'a', 'x')
    finally: files.temporary_path = real
    assert (tmp_path/'target').read_text() == 'target' and not (tmp_path/'a').exists()

# --- state of a run

def few(): return AdditiveNotes(('organ', 'flute'), range(60, 62), (100,))

def stage_two(out, **kw):
    m = Mars.from_pretrained(out)
    train = TrainConfig.preset('tiny', 'var', **{**dict(steps=2, batch_size=4, log_every=1, save_every=1), **kw})
    return train_var(few(), m, train, VARConfig.preset('tiny', **VAR_SHAPE), out, device='cpu', progress=False)

def test_killed_transformer_training_leaves_a_loadable_tokenizer_and_resumes(tmp_path, monkeypatch):
    template, out = tmp_path/'template', tmp_path/'run'
    make(0, var=False).save_pretrained(template)
    stage_two(template, steps=1) # the caches, of another run of the same notes
    old = weights_of(make(0, var=False))
    points = 0
    for n in every_kill(monkeypatch, lambda: fresh(out, template), lambda: stage_two(out), 3):
        tok = Mars.from_pretrained(out).tokenizer.state_dict()
        assert all(torch.equal(v, tok[k]) for k, v in old.items()), n
        files.unlock_folder(out) # as the end of a process does
        points += 1
    assert points > 8 and Mars.from_pretrained(out).info['train_var']['steps'] == 2

def test_a_damaged_cache_of_tokens_is_computed_again(tmp_path):
    from safetensors.torch import load_file
    make(0, var=False).save_pretrained(tmp_path)
    clean = stage_two(tmp_path).state_dict()
    path = tmp_path/'tokens.safetensors'
    whole, tokens = path.read_bytes(), {k: v.clone() for k, v in load_file(path).items()}
    for bit in (0, 6): # another token; a token that does not exist
        damaged = bytearray(whole)
        damaged[-4*16 + bit//8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        again = stage_two(tmp_path).state_dict()
        assert all(torch.equal(v, again[k]) for k, v in clean.items()) and all(torch.equal(v, tokens[k]) for k, v in load_file(path).items())

@pytest.mark.parametrize('field, value', [('step', '7'), ('config', '{"lr": 2.0}')])
def test_the_hash_of_a_checkpoint_covers_its_step_and_its_settings(field, value, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file
    from mars.training.checkpoints import CheckpointManager
    manager = CheckpointManager(tmp_path, 'var', dict(lr=1.))
    manager.save(3, dict(a=torch.arange(3.)))
    path, = manager.files()
    with safe_open(path, 'pt') as f: meta, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    save_file(tensors, path, {**meta, field: value})
    with pytest.warns(UserWarning, match='is damaged and was skipped .its contents do not match their hash'): assert manager.load() is None

def locked(): return [str(folder) for folder, lock in files._LOCKS.items() if lock.is_locked]

def test_two_runs_in_one_folder(tmp_path):
    from filelock import FileLock
    make(0, var=False).save_pretrained(tmp_path)
    with FileLock(tmp_path/'.lock'): # the other run
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        with pytest.raises(ValueError, match='another run is writing to .*: wait for its end or choose another folder'): stage_two(tmp_path)
        assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    stage_two(tmp_path)
    assert not locked()
    settings = (tmp_path/'settings.json').read_bytes()
    with pytest.raises(ValueError, match='was made with another'): stage_two_resume(tmp_path)
    assert not locked() and settings == (tmp_path/'settings.json').read_bytes()

def stage_two_resume(out):
    m = Mars.from_pretrained(out)
    train = TrainConfig.preset('tiny', 'var', steps=9, batch_size=4, save_every=1)
    train_var(few(), m, train, VARConfig.preset('tiny', **VAR_SHAPE), out, device='cpu', progress=False, resume=True)

def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    m = make(0)
    m.save_pretrained(tmp_path)
    bad = make(1)
    with torch.no_grad(): bad.var.start[0, 0, 0] = float('inf')
    with pytest.raises(ValueError, match='start contains NaN or infinity and is not saved: train again with a lower lr'): bad.save_pretrained(tmp_path)
    with torch.no_grad(): bad.var.start[0, 0, 0] = 1e6
    with pytest.raises(ValueError, match='infinity in half precision and is not saved: save it in full precision'): bad.save_pretrained(tmp_path, half=True)
    assert same(Mars.from_pretrained(tmp_path), m)

@pytest.mark.parametrize('dtype', [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_type_are_refused(dtype, tmp_path):
    from safetensors.torch import load_file, save_file
    make(0).save_pretrained(tmp_path)
    state = load_file(tmp_path/'var.safetensors')
    state['start'] = state['start'].to(dtype)
    save_file(state, tmp_path/'var.safetensors')
    with pytest.raises(ValueError, match=f'var.safetensors holds start as {dtype}, not torch.float32'): Mars.from_pretrained(tmp_path)

# --- downloads

def gz_tar(*members, compress=True):
    import gzip, tarfile
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode='w', format=tarfile.PAX_FORMAT) as tar:
        for name, data, *extra in members:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), dict(extra[0]) if extra else {}
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(body.getvalue(), 6) if compress else body.getvalue()

@pytest.fixture(scope='session')
def split(tmp_path_factory):
    "Files of a small split: name -> bytes."
    from mars.data import write_nsynth_fixture
    root = write_nsynth_fixture(tmp_path_factory.mktemp('split'), dict(test=(0,)), ('organ',), (60,), (127,), None)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob('*')) if p.is_file()}

def unpack(data, folder):
    from mars.data import unpack_nsynth
    (folder/'a.tar.gz').write_bytes(data)
    return unpack_nsynth(folder/'a.tar.gz', folder/'nsynth-test', 'test')

def test_every_flipped_bit_of_an_archive_is_detected(split, tmp_path):
    body, rng, unnoticed = gz_tar(*split.items()), np.random.default_rng(0), []
    for i in [*rng.integers(10, len(body), 40), len(body) - 6, len(body) - 2]: # also in the checksum and the length
        damaged = bytearray(body)
        damaged[i] ^= 1 << int(rng.integers(8))
        try: unpack(bytes(damaged), tmp_path)
        except ValueError as e: assert 'a.tar.gz' in str(e) and '\n' not in str(e)
        else:
            assert (tmp_path/'nsynth-test'/'examples.json').read_bytes() == split['nsynth-test/examples.json']
            unnoticed += [i] if any((tmp_path/k).read_bytes() != v for k, v in split.items()) else []
            shutil.rmtree(tmp_path/'nsynth-test')
        assert {p.name for p in tmp_path.iterdir()} == {'a.tar.gz'}
    assert not unnoticed

BAD_EXAMPLES = [(b'', 'is damaged'), (b'{"a"', 'is damaged'), (b'[]', 'must hold an object'), (b'{}', 'must hold an object'), (b'\xff', 'is damaged'), (b'['*100000, 'is damaged'),
    (dict(instrument_family=11), 'instrument_family must be an id in 0..10, got 11'), (dict(instrument_family=-1), 'in 0..10, got -1'), (dict(instrument_source=True), 'got True'),
    (dict(pitch=None), 'pitch must be of type int, got None'), (dict(pitch=True), 'pitch must be of type int, got True'), (dict(pitch=128), 'pitch must be an integer in 0..127, got 128'), (dict(velocity=[]), 'velocity must be of type int'), (dict(instrument_str=3), 'instrument must be a string'),
    ('pitch', 'has no pitch'), ('instrument_source', 'has no instrument_source'), ([1], 'must be an object with labels')]

def examples_with(change, data):
    "examples.json with its first entry changed: fields replaced, a field left out, or another value."
    if isinstance(change, bytes): return change
    examples = json.loads(data)
    name = next(iter(examples))
    if isinstance(change, dict): examples[name].update(change)
    elif isinstance(change, str): del examples[name][change]
    else: examples[name] = change
    return json.dumps(examples).encode()

@pytest.mark.parametrize('change, message', BAD_EXAMPLES)
def test_examples_are_checked_in_a_folder_and_before_they_are_put_in_place(change, message, split, tmp_path):
    from mars.data import NSynth
    bad = examples_with(change, split['nsynth-test/examples.json'])
    with pytest.raises(ValueError, match=message) as e: unpack(gz_tar(*{**split, 'nsynth-test/examples.json': bad}.items()), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {'a.tar.gz'} and len(str(e.value)) < 500
    (tmp_path/'examples.json').write_bytes(bad)
    with pytest.raises(ValueError, match=message): NSynth(tmp_path)

def test_examples_as_a_pipe_are_refused(tmp_path):
    from mars.data import NSynth
    os.mkfifo(tmp_path/'examples.json')
    with pytest.raises(ValueError): NSynth(tmp_path)

def test_archive_headers_have_a_size_limit(split, tmp_path, monkeypatch):
    import tarfile, mars.data.nsynth as nsynth
    bombs = dict(pax=gz_tar(('nsynth-test/x', b'', dict(comment='x'*10**6))), names=gz_tar(*((f'{i}', b'') for i in range(3000))))
    monkeypatch.setattr(nsynth, 'MAX_HEADERS', 2000)
    for body in bombs.values():
        with pytest.raises(ValueError, match='is rejected: its headers are not those of NSynth'): unpack(body, tmp_path)
    header = tarfile.TarInfo('x')
    header.type, header.size = tarfile.XHDTYPE, 512
    chain = (header.tobuf() + b'11 a=bcdef\n'.ljust(512, b'\0'))*2000
    import gzip
    with pytest.raises(ValueError, match='is rejected: its headers are not those of NSynth'): unpack(gzip.compress(chain), tmp_path)
    with pytest.raises(ValueError, match='unpacks to more than NSynth'): nsynth.unpack_nsynth(_padded(split, tmp_path), tmp_path/'nsynth-test', 'test', max_bytes=-(1 << 30) + 300000)
    assert not (tmp_path/'nsynth-test').exists()

def _padded(split, tmp_path): # zeros behind the archive
    import gzip
    (tmp_path/'p.tar.gz').write_bytes(gzip.compress(gz_tar(*split.items(), compress=False) + bytes(10**6)))
    return tmp_path/'p.tar.gz'

class Reply:
    "A server of one reply after another: (status, headers, body), or raw bytes."
    def __init__(self, *replies):
        import socketserver, threading
        replies, self.seen = list(replies), []
        class Handler(socketserver.StreamRequestHandler):
            def handle(handler):
                lines = []
                while (line := handler.rfile.readline()).strip(): lines.append(line.decode().strip())
                self.seen.append(next((x[7:] for x in lines if x.startswith('Range: ')), None))
                reply = replies.pop(0)
                if isinstance(reply, bytes): return handler.wfile.write(reply)
                status, headers, body = reply
                head = ''.join(f'{k}: {v}\r\n' for k, v in headers.items())
                handler.wfile.write(f'HTTP/1.1 {status} x\r\nConnection: close\r\n{head}\r\n'.encode() + body)
        self.server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(.05,), daemon=True).start()
        self.url = f'http://127.0.0.1:{self.server.server_address[1]}/x'
    def __enter__(self): return self
    def __exit__(self, *args): self.server.shutdown(); self.server.server_close()

BODY = bytes(range(200))
def ok(body=BODY, status=200, **headers): return status, {'Content-Length': len(body), **{k.replace('_', '-'): v for k, v in headers.items()}}, body

def get(server, path, **kw):
    from mars.data.nsynth import download_file
    return download_file(server.url, path, progress=False, **kw)

@pytest.mark.parametrize('reply', [b'', b'nonsense\r\n\r\n', b'HTTP/1.1 abc\r\n\r\n', b'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n', b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    b'HTTP/1.1 200 OK\r\n' + b'a: b\r\n'*200 + b'\r\n', (302, dict(Location='file:///etc/passwd'), b''), (302, dict(Location='http://['), b''), (500, {}, b'')])
def test_broken_replies_raise_one_sentence(reply, tmp_path):
    with Reply(reply) as server:
        with pytest.raises(ValueError, match='broke off|answered') as e: get(server, tmp_path/'f')
    assert '\n' not in str(e.value) and not (tmp_path/'f').exists()

def test_a_partial_download_is_resumed_at_its_end(tmp_path):
    path, part = tmp_path/'f', tmp_path/'f.part'
    def rest(start, **kw): return ok(BODY[start:], 206, **kw)
    part.write_bytes(BODY[:50])
    with Reply(rest(60, Content_Range='bytes 60-199/200'), ok()) as server:
        with pytest.raises(ValueError, match='did not send the bytes from 50 on; the part is deleted.: run the command again'): get(server, path)
        get(server, path)
        assert path.read_bytes() == BODY and server.seen == ['bytes=50-', None]
    for reply in (rest(50, Content_Range='bytes 50-199/200'), rest(50, Content_Range='bytes 50-199/*'), ok()): # the last one sends everything again
        part.write_bytes(BODY[:50])
        with Reply(reply) as server: get(server, path)
        assert path.read_bytes() == BODY
    part.write_bytes(BODY[:50])
    with Reply(rest(50)) as server:
        with pytest.raises(ValueError, match='the part is deleted'): get(server, path)
    for reply in ((416, {'Content-Range': 'bytes */200'}, b''), rest(0, Content_Range='bytes 300-400/200')): # longer than the file
        part.write_bytes(BODY + b'more')
        with Reply(reply) as server:
            with pytest.raises(ValueError, match='deleted'): get(server, path)
        assert not part.exists()
    part.write_bytes(BODY)
    with Reply((416, {'Content-Range': 'bytes */200'}, b'')) as server: get(server, path) # it was complete
    (tmp_path/'mine').write_text('mine')
    part.symlink_to(tmp_path/'mine')
    with Reply(ok()) as server:
        with pytest.raises(ValueError): get(server, path)
    assert (tmp_path/'mine').read_text() == 'mine'
    with pytest.raises(ValueError, match='url must begin with https://'): files_url(tmp_path)

def files_url(tmp_path):
    from mars.data.nsynth import download_file
    download_file(f'file://{tmp_path}/mine', tmp_path/'g')

def test_an_existing_archive_is_verified_and_deleted_if_damaged(split, tmp_path):
    import hashlib
    from mars.data import download_nsynth
    body, archive = gz_tar(*split.items()), tmp_path/'nsynth-test.jsonwav.tar.gz'
    archive.write_bytes(body)
    with pytest.raises(ValueError, match='has the SHA-256 .*, not 0f9ba5d6.*: it is deleted; run the command again'): download_nsynth('test', tmp_path, progress=False)
    assert not archive.exists()
    damaged = bytearray(body)
    damaged[len(body)//2] ^= 1
    with Reply(ok(bytes(damaged)), ok(body), ) as server:
        with pytest.raises(ValueError, match='the archive is deleted: run the command again to download it'):
            download_nsynth('test', tmp_path, server.url, hashlib.sha256(damaged).hexdigest(), progress=False)
        assert [p.name for p in tmp_path.iterdir()] == []
        folder = download_nsynth('test', tmp_path, server.url, hashlib.md5(body).hexdigest(), progress=False)
    source = json.loads((folder/'source.json').read_text())
    assert source['checked'] is True and source['md5'] == hashlib.md5(body).hexdigest()

def test_a_full_disk_preserves_the_archive(split, tmp_path, monkeypatch):
    from mars.data import download_nsynth
    archive = tmp_path/'nsynth-test.jsonwav.tar.gz'
    archive.write_bytes(gz_tar(*split.items()))
    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'copyfileobj', full)
        with pytest.raises(ValueError, match='cannot be written .No space left on device.: free some space'):
            download_nsynth('test', tmp_path, expected=__import__('hashlib').md5(archive.read_bytes()).hexdigest(), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]

def test_a_killed_download_is_complete_after_the_next(split, tmp_path, monkeypatch):
    from mars.data import NSynth, download_nsynth
    import hashlib
    body = gz_tar(*split.items())
    def prepare():
        shutil.rmtree(tmp_path/'d', ignore_errors=True)
        (tmp_path/'d').mkdir()
        (tmp_path/'d'/'nsynth-test.jsonwav.tar.gz').write_bytes(body)
    def run(): download_nsynth('test', tmp_path/'d', expected=hashlib.sha256(body).hexdigest(), progress=False)
    for n in every_kill(monkeypatch, prepare, run):
        run() if (tmp_path/'d'/'nsynth-test').exists() or (tmp_path/'d'/'nsynth-test.jsonwav.tar.gz').exists() else prepare()
        assert not [p.name for p in (tmp_path/'d').iterdir() if p.name.startswith('.')], n
    assert n > 10 and len(NSynth(tmp_path/'d', 'test')) == 1

# --- audio files

def claim(path, offset, value, size, order='little'):
    data = bytearray(path.read_bytes())
    data[offset:offset+size] = value.to_bytes(size, order)
    path.write_bytes(data)
    return path

@pytest.fixture
def note(tmp_path): return files.save_wave(tmp_path/'note.wav', .5*np.sin(np.arange(64000)*.1))

@pytest.mark.parametrize('rate', [0, 1, 2, 999, 768001, 10**7, 10**8, 2**32 - 1])
def test_implausible_sample_rates_are_refused(note, rate):
    with pytest.raises(ValueError, match='must be in 1000..768000 whole Hz|is not a readable audio file'): files.read_audio(claim(note, 24, rate, 4))

def measured(f): # peak MiB of Python's and numpy's allocations
    import tracemalloc
    tracemalloc.start()
    try: out = f()
    finally:
        peak = tracemalloc.get_traced_memory()[1]/2**20
        tracemalloc.stop()
    return out, peak

def test_only_what_is_needed_is_read(tmp_path):
    import soundfile
    path = tmp_path/'long.flac'
    with soundfile.SoundFile(path, 'w', 16000, 2) as f: # half an hour in a small file
        for _ in range(30): f.write(np.full((60*16000, 2), .25))
    assert path.stat().st_size < 10**6
    with pytest.warns(UserWarning, match='is longer than 4 s and is cut'): wave, peak = measured(lambda: files.load_wave(path, seconds=4))
    assert wave.shape == (64000,) and peak < 20
    (wave, rate), peak = measured(lambda: files.read_audio(path, 2))
    assert wave.shape == (32000,) and peak < 20
    data = bytearray(path.read_bytes()) # STREAMINFO: 36 bits of the number of samples end at byte 26
    data[21] = data[21] & 0xf0 | 0xf
    data[22:26] = b'\xff'*4
    path.write_bytes(data)
    with pytest.raises(ValueError, match='is longer than 3600 s: cut it'): files.read_audio(path)
    assert measured(lambda: files.read_audio(path, 2))[1] < 20

def test_truncated_and_irregular_files_are_refused(note, tmp_path):
    whole = note.read_bytes()
    note.write_bytes(whole[:-2000])
    with pytest.raises(ValueError, match='is cut off after 63000 samples: copy it again'): files.read_audio(note)
    assert len(files.read_audio(note, 1)[0]) == 16000 # the part that is needed is there
    note.write_bytes(whole[:40] + b'\xff'*4 + whole[44:]) # written to a pipe, of unknown length
    assert len(files.read_audio(note)[0]) == 64000
    os.mkfifo(tmp_path/'pipe.wav')
    for path, error in ((tmp_path/'pipe.wav', ValueError), (tmp_path, ValueError), ('/dev/zero', ValueError), (tmp_path/'none', FileNotFoundError)):
        with pytest.raises(error, match='is not a regular file|no file'): files.load_wave(path)

def test_a_folder_takes_aiff_leaves_hidden_files_out_and_refuses_pipes(tmp_path):
    import soundfile
    from mars.data import NoteFolder
    name = 'organ_electronic_800-060-100'
    soundfile.write(tmp_path/f'{name}.aiff', .5*np.sin(np.arange(64000)*.1), 16000)
    (tmp_path/f'._{name}.wav').write_bytes(b'macOS')
    assert len(NoteFolder(tmp_path, cache=False)) == 1 and NoteFolder(tmp_path, cache=False)[0][0].abs().max() > .4
    os.mkfifo(tmp_path/'organ_electronic_800-061-100.wav')
    with pytest.raises((ValueError, FileNotFoundError)): NoteFolder(tmp_path, cache=False)

def test_memory_errors_raise_one_sentence(note, monkeypatch):
    def full(*args): raise MemoryError
    monkeypatch.setattr(files, '_read_blocks', full)
    with pytest.raises(ValueError, match='note.wav does not fit into memory: cut it'): files.read_audio(note)

# --- the command line

def refusal(capsys, *argv):
    "Run `mars` in this process -> its one sentence."
    from mars.cli import main
    try: status = main([*map(str, argv)])
    except SystemExit as e: status = e.code
    err = capsys.readouterr().err.splitlines()
    assert status == 2 and err and err[-1].startswith('mars: '), (status, err)
    return err[-1]

FEW = '--data additive --families organ --pitches 60 --velocities 100 --steps 1 --batch-size 2 --warm-start 2'.split()

@pytest.mark.parametrize('flags, message', [
    ('--weight-decay=-1', 'weight_decay must be >= 0, got -1'), ('--weight-decay NaN', 'weight_decay must be finite, got nan'), ('--lr 1e400', 'lr must be finite, got inf'), ('--final-lr-ratio NaN', 'must be finite, got nan'),
    ('--memory 0', 'memory must be above 0 GiB'), ('--memory nan', 'memory must be above 0 GiB, got nan'), ('--betas []', r'betas must be two numbers in \[0, 1\), got \(\)'), ('--betas [NaN,1]', 'betas must be a list of finite numbers, got nan'),
    ('--betas [0.9]', 'betas must be two numbers'), ('--seed 99999999999999999999', 'seed must be below 2..63'), ('--scales [[1e400,1]]', 'scales must be a list of finite numbers, got inf'), ('--image-shape [NaN,1,1]', 'image_shape must be a list of finite numbers'),
    ('--width 1000000000', 'this needs more memory than there is'), ('--patch null', 'patch must be a list of numbers, got None'), ('--clip nan', "clip must be of type float, got 'nan'")])
def test_settings_of_training_are_refused(flags, message, tmp_path, capsys):
    import re
    assert re.search(message, refusal(capsys, 'train', 'tokenizer', '--out', tmp_path/'o', *FEW, *flags.split()))
    assert not [p for p in (tmp_path/'o').rglob('*') if p.suffix == '.safetensors']

@pytest.mark.parametrize('command, message', [
    ('generate --family=-1', "--family must be a name or an id, got '-1'"), ('generate --pitch 60-', "--pitch must be like 60, 60,64,67 or 48-72 or C4, got '60-'"), ('generate --pitch=--', '--pitch needs a value'), ('generate --pitch -1', 'must be like 60'),
    ('generate --pitch 0-99999999999999999999', '--pitch must be in 0..127, got 99999999999999999999'), ('generate --pitch 0-999999999', 'must be in 0..127, got 999999999'), ('generate --n 1000000000', '--n must be in 1..1000000, got 1000000000'),
    ('generate --n-iter 1' + '0'*30, '--n-iter must be'), ('generate --n-iter 10001', '--n-iter must be in 0..10000'), ('generate --temperature inf', '--temperature must be'), ('generate --seed ' + '9'*30, '--seed must be below 2**63'), ('generate --velocity C4', '--velocity must be like 60'),
    ('generate --set n=3', '--set cannot give n; use --n'), ('generate --set steps=' + '['*3000, 'steps is not a setting of a next-scale transformer'), ('edit NOTE --time nan,1', "--time must be finite, got 'nan,1'"), ('edit NOTE --n 99999999', '--n must be in 1..1000'),
    ('evaluate --batch-size 0', '--batch-size must be >= 1, got 0'), ('demo --out d --steps-var -1', '--steps-var must be >= 1, got -1'), ('reconstruct .', 'is not a regular file'), ('reconstruct none.wav', 'no file none.wav')], ids=lambda x: x[:40])
def test_arguments_are_refused(command, message, note, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *(str(note) if x == 'NOTE' else x for x in command.split()))

def test_pitches_by_name():
    from mars.cli.arguments import note_number, pitches
    assert pitches('C4,E4-F#4,48') == [60, 64, 65, 66, 48] and pitches('A0-C8') == list(range(21, 109)) and pitches(' c4 ') == [60] and pitches('C-1,Bb3') == [0, 58]
    assert [note_number(x) for x in ('B♭3', 'F♯4', '7')] == [58, 66, 7]

@pytest.mark.parametrize('command', ['generate', 'edit', 'reconstruct', 'demo'])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(command, note, tmp_path, monkeypatch, capsys):
    (tmp_path/'file').write_text('')
    make(0).save_pretrained(tmp_path/'m')
    def work(*args, **kw): raise AssertionError('it works')
    for name in ('edit', 'reconstruct', 'decode'): monkeypatch.setattr(Mars, name, work)
    model = [] if command == 'demo' else ['--model', tmp_path/'m']
    assert 'cannot be written' in refusal(capsys, command, *([note] if command in ('edit', 'reconstruct') else []), *model, '--out', tmp_path/'file'/'x')

def test_generate_writes_notes_as_they_come(tmp_path, monkeypatch, capsys):
    from mars.cli import main
    make(0).save_pretrained(tmp_path/'m')
    seen, decode = [], Mars.decode
    def spy(self, *args, **kw):
        seen.append(len(list((tmp_path/'out').glob('*.wav'))))
        return decode(self, *args, **kw)
    monkeypatch.setattr(Mars, 'decode', spy)
    assert main(['generate', '--model', str(tmp_path/'m'), '--n', '40', '--n-iter', '1', '--out', str(tmp_path/'out'), '--json']) == 0
    assert seen == [0, 16, 32] and len(json.loads(capsys.readouterr().out)['files']) == 40

# --- config.json

SIZES = ['width', 'encoder_depth', 'decoder_depth', 'n_phi', 'mlp_ratio', 'codebook_size', 'code_dim', 'heads']

@pytest.mark.parametrize('part, field', [('tokenizer', k) for k in SIZES] + [('var', k) for k in ('width', 'depth', 'mlp_ratio', 'heads', 'n_instruments')])
@pytest.mark.parametrize('value', [10**6, 10**9])
def test_a_small_config_cannot_ask_for_much_memory(part, field, value, tmp_path):
    make(0).save_pretrained(tmp_path)
    config = json.loads((tmp_path/'config.json').read_text())
    config[part][field] = value
    (tmp_path/'config.json').write_text(json.dumps(config))
    began = time.monotonic()
    def load():
        with pytest.raises(ValueError): Mars.from_pretrained(tmp_path)
    assert measured(load)[1] < 200 and time.monotonic() - began < 20 # seconds; building would take minutes

def test_two_branches_of_a_million(tmp_path):
    from mars.parts.product import ProductMars, ProductTokenizer, ProductTokenizerConfig
    cfg = ProductTokenizerConfig.preset('tiny', image_shape=(2, 32, 32), patch=8, scales=(1, 2, 3, 4), branches=2)
    ProductMars(ProductTokenizer(cfg), spectrogram=LogSpectrogram(**LS)).save_pretrained(tmp_path)
    config = json.loads((tmp_path/'config.json').read_text())
    config['tokenizer']['branches'] = 10**6
    (tmp_path/'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError): Mars.from_pretrained(tmp_path)

def test_logits_that_overflow_are_an_error(tmp_path):
    m = make(0)
    with torch.no_grad(): m.var.start.fill_(1e38)
    with torch.no_grad(): m.var.head.weight.fill_(1e38)
    with pytest.raises(ValueError, match='the logits of the model are NaN or infinite'): m.generate(1, n_iter=1, seed=0)

# --- bounded fuzzing

def odd_values(): return [None, True, -1, 0, 3, 10**6, 10**30, .5, float('nan'), float('inf'), 'x', '', [], {}, [[]], [10**6]*3, [0, 0, 0]]

def test_random_changes_of_config_json_are_refused_in_a_sentence(tmp_path):
    make(0).save_pretrained(tmp_path)
    text, rng, end = (tmp_path/'config.json').read_text(), np.random.default_rng(0), time.monotonic() + 8
    base = json.loads(text)
    places = [(k,) for k in base] + [(k, j) for k in ('spectrogram', 'cmx', 'tokenizer', 'var') for j in base[k]]
    while time.monotonic() < end:
        config = json.loads(text)
        for _ in range(int(rng.integers(1, 3))):
            *way, last = places[rng.integers(len(places))]
            values = odd_values()
            target = config[way[0]] if way and isinstance(config[way[0]], dict) else config
            target[last] = values[rng.integers(len(values))]
        (tmp_path/'config.json').write_text(json.dumps(config))
        try: Mars.from_pretrained(tmp_path)
        except ValueError as e: assert '\n' not in str(e) and len(str(e)) < 500, config

def test_random_command_lines_end_with_a_status(capsys, tmp_path, monkeypatch):
    hypothesis = pytest.importorskip('hypothesis')
    from hypothesis import strategies as st
    from mars.cli.dispatch import parser
    flags = ['--pitch', '--family', '--n', '--seed', '--n-iter', '--time', '--freq', '--top-p', '--set', '--velocity', '--keep-scales', '--temperature']
    text = st.one_of(st.text(max_size=12), st.from_regex(r'-?[0-9,.\-eC#b]{0,14}', fullmatch=True), st.sampled_from(['--', '-', 'nan', '1e400', '=', 'C4-', '9'*40, '['*999]))
    @hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.lists(st.tuples(st.sampled_from(flags), text), max_size=4))
    def run(pairs):
        try: parser().parse_args(['edit', 'x.wav', *(f'{k}={v}' for k, v in pairs)])
        except SystemExit as e: assert e.code in (0, 2)
    run()
    assert all(line.startswith('mars: ') for line in capsys.readouterr().err.replace('\x85', '').split('\nmars: ')[0].split('\n')[:1] if line)

def test_random_labels_are_refused_in_a_sentence():
    hypothesis = pytest.importorskip('hypothesis')
    from hypothesis import strategies as st
    m = make(0)
    scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([10**30, b'x', 1j, object()]))
    value = st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(st.text(max_size=2), scalar, max_size=2))
    from mars.parts.conditioning import resolve_labels
    @hypothesis.settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.dictionaries(st.sampled_from(['pitch', 'family', 'source', 'velocity']), value, max_size=4), st.one_of(st.none(), st.integers(-3, 5), scalar))
    def run(labels, n):
        try: resolve_labels(m, n, dict(labels))
        except ValueError as e: assert '\n' not in str(e)
    with __import__('warnings').catch_warnings():
        __import__('warnings').simplefilter('ignore')
        run()

# --- threads

def test_threads_of_openmp_sleep_while_they_wait():
    import subprocess, sys
    code = 'import sys; {}import mars, os; print(os.environ.get("OMP_WAIT_POLICY"))'
    env = {k: v for k, v in os.environ.items() if k != 'OMP_WAIT_POLICY'} | dict(PYTHONPATH=os.getcwd())
    def seen(first): return subprocess.run([sys.executable, '-c', code.format(first)], capture_output=True, text=True, env=env).stdout.strip()
    assert seen('') == 'PASSIVE' and seen('sys.modules["torch"] = None; ') == 'None'

def test_a_note_by_griffin_lim_uses_one_thread(monkeypatch):
    import mars.stft
    seen, real, before = [], mars.stft._fast_griffin_lim, torch.get_num_threads()
    def spy(*args):
        seen.append(torch.get_num_threads())
        return real(*args)
    monkeypatch.setattr(mars.stft, '_fast_griffin_lim', spy)
    torch.set_num_threads(2)
    try:
        LogSpectrogram().decode(torch.rand(2, 1, 512, 256), n_iter=1)
        assert seen == [1, 1] and torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)

# --- the page

@pytest.fixture(scope='module')
def page():
    pytest.importorskip('gradio')
    from mars.apps.web import serve
    server = serve(make(0), port=0)
    yield server
    server.close()

def ask(page, path, data=None, **headers):
    import urllib.request, urllib.error
    body = None if data is None else data if isinstance(data, bytes) else json.dumps(data).encode()
    request = urllib.request.Request(page.address.rstrip('/') + path, body, {'Content-Type': 'application/json', **{k.replace('_', '-'): v for k, v in headers.items()}})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply: return reply.status, reply.read().decode()
    except urllib.error.HTTPError as e: return e.code, e.read().decode()

def test_the_endpoints_of_the_page_and_their_arguments_have_names(page):
    named = json.loads(ask(page, '/gradio_api/info')[1])['named_endpoints']
    assert {*named} == {'/generate', '/reconstruct', '/edit'}
    names = {k: [p['parameter_name'] for p in v['parameters']] for k, v in named.items()}
    assert names['/generate'][:6] == ['pitch', 'family', 'source', 'velocity', 'n', 'seed'] and names['/reconstruct'][:2] == ['file', 'n_scales'] and names['/edit'][:4] == ['file', 'keep_scales', 'start', 'end']

UPLOAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\ntext\r\n--x--\r\n'

@pytest.mark.parametrize('headers, status', [({}, 200), (dict(Origin='OWN'), 200), (dict(Origin='https://example.org'), 403), (dict(Origin='null'), 403), (dict(Origin='http://127.0.0.1:1'), 403),
    (dict(Sec_Fetch_Site='cross-site'), 403), (dict(Sec_Fetch_Site='same-origin'), 200), (dict(Host='example.org'), 400)])
def test_uploads_of_other_sites_are_refused(page, headers, status):
    headers = {k: page.address.rstrip('/') if v == 'OWN' else v for k, v in headers.items()}
    assert ask(page, '/gradio_api/upload', UPLOAD, **{'Content_Type': 'multipart/form-data; boundary=x', **headers})[0] == status
    assert ask(page, '/', **headers)[0] == (200 if 'Sec_Fetch_Site' in headers else status) # a link from another site may open the page

@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('url', ['http://example.org/x.wav', 'https://127.0.0.1/x.wav', 'file:///etc/passwd', '/etc/passwd'])
def test_addresses_in_the_place_of_files_are_refused(page, url, place, monkeypatch):
    from gradio import processing_utils
    asked = []
    async def download(*args, **kw): asked.append(args)
    for name in ('async_ssrf_protected_download', 'async_ssrf_protected_get'): monkeypatch.setattr(processing_utils, name, download)
    data = [None, 4, 0, 'griffinlim']
    data[place] = dict(path=url, meta=dict(_type='gradio.FileData'))
    event = json.loads(ask(page, '/gradio_api/call/reconstruct', dict(data=data))[1])['event_id']
    assert 'event: error' in ask(page, f'/gradio_api/call/reconstruct/{event}')[1] and not asked

def test_the_queue_is_bounded_and_files_are_removed(page):
    from mars.apps.web import MAX_WAITING, PAGE_FOLDER, page_folder
    assert page.blocks._queue.max_size == MAX_WAITING == 16 and page.blocks.delete_cache == (600, 3600)
    import tempfile
    assert PAGE_FOLDER.fullmatch(Path(page.folder.name).name)
    dead = Path(page.folder.name.replace(f'-{os.getpid()}-', '-4999999-'))
    dead.mkdir()
    (dead/'x.wav').write_text('x')
    page_folder().cleanup()
    assert not dead.exists() and Path(page.folder.name).exists()

def test_the_page_reads_only_the_beginning_of_a_sound(note):
    from mars.apps.web import open_sound
    with pytest.raises(ValueError, match='the sample rate of note.wav must be in 1000..768000 whole Hz, got 10000000'): open_sound(make(0), claim(note, 24, 10**7, 4))

def test_behind_a_socks_proxy(monkeypatch):
    httpx = pytest.importorskip('httpx')
    pytest.importorskip('gradio')
    from mars.apps.web import gradio, without_proxies
    monkeypatch.setenv('ALL_PROXY', 'socks5://127.0.0.1:9')
    monkeypatch.setenv('NO_PROXY', 'example.org')
    monkeypatch.delenv('no_proxy', raising=False)
    with without_proxies(): httpx.Client().close() # gradio makes one when it is imported; without socksio that fails behind a proxy
    gradio()
    assert os.environ['NO_PROXY'] == 'example.org' and 'no_proxy' not in os.environ

# --- MIDI

def test_the_messages_of_a_midi_file_are_bounded(tmp_path):
    from mars.parts.midi import read_midi
    track = b'\0\x90\x3c\x40' + b'\1\x3c\x00\0\x3c\x40'*200_000
    head = b'MThd' + (6).to_bytes(4, 'big') + b'\0\0\0\1\0\x60'
    (tmp_path/'a.mid').write_bytes(head + b'MTrk' + len(track).to_bytes(4, 'big') + track)
    with pytest.raises(ValueError, match='more than 300000 messages'): read_midi(tmp_path/'a.mid')
    (tmp_path/'b.mid').write_bytes(head + bytes(17 << 20))
    with pytest.raises(ValueError, match='larger than 16 MiB'): read_midi(tmp_path/'b.mid')
    os.mkfifo(tmp_path/'c.mid')
    with pytest.raises((ValueError, FileNotFoundError)): read_midi(tmp_path/'c.mid')

# --- locales

def test_text_files_name_their_encoding():
    import ast
    for path in Path(files.__file__).parent.parent.rglob('*.py'):
        for call in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(call, ast.Call) or any(k.arg == 'encoding' for k in call.keywords): continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, 'id', '')
            mode = call.args[1].value if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) else 'r'
            text = name in ('read_text', 'write_text') or (isinstance(call.func, ast.Name) and name == 'open' and 'b' not in str(mode))
            assert not text or (name == 'write_text' and len(call.args) > 1), f'{path}:{call.lineno}'

def test_letters_that_the_terminal_lacks_are_escaped(monkeypatch):
    from dataclasses import replace
    from mars.cli import main
    from mars.cli.dispatch import COMMANDS
    import sys
    monkeypatch.setitem(COMMANDS, 'data', replace(COMMANDS['data'], run=lambda a: ({}, 'Flöte 笛')))
    out = io.TextIOWrapper(io.BytesIO(), encoding='ascii')
    monkeypatch.setattr(sys, 'stdout', out)
    assert main(['data', 'nsynth']) == 0
    out.flush()
    assert out.buffer.getvalue() == b'Fl\\xf6te \\u7b1b\n'

@pytest.mark.parametrize('size, given, used', [(100, [], 100), (300, [], 256), (300, ['--n', '40'], 40)])
def test_the_default_number_of_notes_of_an_evaluation_fits_the_set(size, given, used, tmp_path, monkeypatch):
    from types import SimpleNamespace
    import mars.evaluation.report as report, mars.cli.evaluation as command
    from mars.cli.dispatch import parser
    from mars.parts.classifier import Classifier
    seen = []
    class Stop(Exception): pass
    def evaluate(m, splits, n, *args, **kw):
        seen.append(n)
        raise Stop
    monkeypatch.setattr(report, 'evaluate_model', evaluate)
    monkeypatch.setattr(report, 'load_model', lambda *args: make(0))
    monkeypatch.setattr(Classifier, 'from_pretrained', lambda *args: None)
    monkeypatch.setattr(command, 'reference_notes', lambda a, m: (SimpleNamespace(test=Sized(size)), {}))
    with pytest.raises(Stop): command.run_evaluate(parser().parse_args(['evaluate', '--out', str(tmp_path), *given]))
    assert seen == [used]

class Sized(list):
    "A set of so many notes."
    label = 'sound'
    def __init__(self, n): super().__init__(range(n))

# --- names and labels of users' files

@pytest.mark.parametrize('name, labels', [
    ('Cello A3 mf.wav', ('string', 'acoustic', 57, 80)), ('piano_pp_C#4.wav', ('keyboard', 'acoustic', 61, 33)), ('Trumpet-060.wav', ('brass', 'acoustic', 60, 100)), ('electric guitar (E2) ff.flac', ('guitar', 'electronic', 40, 112)),
    ('Synth Lead Bb-1.wav', ('synth_lead', 'synthetic', 10, 100)), ('Violin/G3.wav', ('string', 'acoustic', 55, 100)), ('01 - Flute - D5 - fff.aif', ('flute', 'acoustic', 74, 126)), ('ALTO_SAX_EB4.WAV', ('reed', 'acoustic', 63, 100))])
def test_names_of_sample_libraries_are_read(name, labels):
    from mars.data.folder import read_name
    note = read_name(Path('library')/name)
    assert (note.family, note.source, note.pitch, note.velocity) == labels

@pytest.mark.parametrize('name', ['Cello.wav', 'Thing A3.wav', '.wav', 'Cello 1 2.wav', 'Cello 60 61.wav', 'Cello A33.wav'])
def test_other_names_are_refused_with_a_remedy(name):
    from mars.data.folder import read_name
    with pytest.raises(ValueError, match='names no (pitch: add one|known instrument: add the family).*or give a CSV of labels'): read_name(name)

def test_labels_of_a_folder(tmp_path, capsys):
    from mars.cli import main
    from mars.data import NoteFolder
    for name in ('Cello A3 mf', 'Cello C4 mf'): files.save_wave(tmp_path/f'{name}.wav', .5*np.sin(np.arange(64000)*.1))
    with pytest.warns(UserWarning, match='2 of 2 names were read so: Cello A3 mf.wav as string_acoustic_cello-057-080, Cello C4'): assert NoteFolder(tmp_path, cache=False).instruments == ['string_acoustic_cello']
    (tmp_path/'l.csv').write_text('file,pitch,velocity,family,source,instrument\nCello A3 mf.wav,A3,80,string,acoustic,mine\nCello C4 mf.wav,C4,80,string,acoustic,mine\n', encoding='utf-8')
    assert main(['data', 'check', str(tmp_path), '--labels', str(tmp_path/'l.csv'), '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['notes'] == 2 and {p['pitch'] for p in result['problems']} <= {57, 60}
    assert 'no file' in refusal(capsys, 'train', 'tokenizer', '--data', tmp_path, '--labels', tmp_path/'none.csv', '--out', tmp_path/'o')

def test_killed_commands_leave_whole_files(tmp_path, monkeypatch, capsys, note):
    import soundfile
    from mars.cli import main
    make(0).save_pretrained(tmp_path/'m')
    out = tmp_path/'out'
    for command in (['generate', '--n', '2'], ['reconstruct', str(note)]):
        argv = [*command, '--model', str(tmp_path/'m'), '--n-iter', '1', '--out', str(out), '--json']
        for n in every_kill(monkeypatch, lambda: shutil.rmtree(out, ignore_errors=True), lambda: main(argv), 2):
            frames = make(0).n_samples if command[0] == 'generate' else soundfile.info(note).frames
            for path in out.glob('[!.]*') if out.exists() else (): assert soundfile.info(path).frames == frames, n
            make_folder(out) # the next run
            assert not [p.name for p in out.iterdir() if p.name.startswith('.')]
        assert n > 4
