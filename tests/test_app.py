"""The page of `mars app`, served by the command and operated in headless Chromium; its waves are compared."""
import base64, io, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np, pytest

ROOT = Path(__file__).resolve().parent.parent
PHONE = dict(width=375, height=740)

@contextmanager
def chromium():
    from playwright.sync_api import sync_playwright
    from test_site import find_browser
    path = find_browser()
    if not path:
        if os.environ.get('CI') and shutil.which('apt-get'): pytest.fail('no Chromium here, though scripts/setup.sh installs it')
        pytest.skip('no Chromium here: install it (Debian: apt-get install chromium) or name one in MARS_BROWSER')
    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=path, args=['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--mute-audio',
            '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'])
        yield opened
        opened.close()

def panel(page, title):
    page.get_by_role('tab', name=title).click()
    return page.get_by_role('tabpanel').filter(visible=True)

def press(page, title):
    "Press the button of the open tab and wait for new text."
    here = page.get_by_role('tabpanel').filter(visible=True)
    here.evaluate("e => e.querySelectorAll('li').forEach(x => { x.textContent = ''; })") # the text of the last press
    here.get_by_role('button', name=title, exact=True).click()
    here.get_by_text(re.compile('measured pitch|no pitch')).first.wait_for(timeout=240000)
    page.wait_for_timeout(500) # for the players to load
    return here

def drop(here, file):
    "Choose a file in the open tab, in place of the present one."
    if here.get_by_label('Clear').count(): here.get_by_label('Clear').first.click()
    here.locator('input[type=file]').first.set_input_files(file)
    here.locator('audio').first.wait_for(state='attached')

def screenshot(m): # -> bytes of a PNG; for the notebook, whose event loop playwright's simple interface refuses
    def take():
        from mars.apps.web import serve
        server = serve(m)
        try:
            with chromium() as browser:
                page = browser.new_page(viewport=dict(width=1100, height=820))
                page.goto(server.address)
                press(page, 'Generate')
                page.wait_for_timeout(1500) # the waveforms are drawn
                return page.screenshot()
        finally: server.close()
    with ThreadPoolExecutor(1) as pool: return pool.submit(take).result()

# ---- the command ----

def command(*argv):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))), PYTHONUNBUFFERED='1')
    process = subprocess.Popen([sys.executable, '-c', 'from mars.cli import main; raise SystemExit(main())', *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # a test run in the background ignores it, and so would its children
    process.began = time.time() - 1
    return process

def address_of(process):
    "The printed line with the page's address."
    for line in process.stderr:
        if found := re.search(r'http://\S+', line): return found[0]
    pytest.fail(f'mars app ended with {process.wait()}')

@pytest.fixture(scope='module')
def running():
    pytest.importorskip('gradio')
    process = command('app', '--model', 'small', '--device', 'cpu', '--port', '0')
    watchdog = threading.Timer(600, process.kill)
    watchdog.start()
    yield process, address_of(process)
    if process.poll() is None: process.send_signal(signal.SIGINT)
    process.wait(30)
    watchdog.cancel()

@pytest.fixture(scope='module')
def page(running):
    "The page, with all its errors and all external requests."
    with chromium() as browser:
        page = browser.new_page(viewport=dict(width=1280, height=900))
        page.errors, page.foreign = [], []
        page.on('console', lambda m: page.errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: page.errors.append(str(e)))
        page.on('request', lambda r: page.foreign.append(r.url) if not r.url.startswith((running[1], 'data:', 'blob:')) else None)
        page.goto(running[1])
        page.get_by_role('tab', name='Generate').wait_for(timeout=60000)
        yield page

def number(here, label, value):
    "Type into the field of a slider."
    field = here.get_by_label(f'number input for {label}')
    field.fill(str(value))
    field.press('Tab')

BYTES = "async url => { const b = new Uint8Array(await (await fetch(url)).arrayBuffer()); let s = ''; for (let i = 0; i < b.length; i += 32768) s += String.fromCharCode(...b.subarray(i, i+32768)); return btoa(s) }"

def sounds(here):
    "(samples, rate) of every player with a sound in a tab."
    import soundfile
    here.locator('audio').first.wait_for(state='attached', timeout=20000)
    urls = filter(None, (player.get_attribute('src') for player in here.locator('audio').all()))
    return [soundfile.read(io.BytesIO(base64.b64decode(here.page.evaluate(BYTES, url))), dtype='float32') for url in urls]

@pytest.fixture(scope='module')
def wave(tmp_path_factory):
    from mars.data import AdditiveNotes
    from mars.parts.files import save_wave
    x = AdditiveNotes(('organ_electronic_800',), (60,), (100,))[0][0]
    return str(save_wave(tmp_path_factory.mktemp('app')/'organ.wav', x)), x

def test_page_has_title_and_tabs(page):
    assert page.title() == 'MARS' and page.locator('h1').inner_text() == 'MARS'
    assert [t.inner_text() for t in page.get_by_role('tab').filter(visible=True).all()] == ['Generate', 'Reconstruct', 'Edit']

def test_generated_notes_equal_those_of_the_library(page):
    from mars.pipeline import Mars
    here = panel(page, 'Generate')
    press(page, 'Generate')
    made, m = sounds(here), Mars.from_pretrained('small', device='cpu')
    want = m.generate(2, pitch=60, family='flute', velocity=100, seed=0, progress=False).numpy()
    assert len(made) == 2
    for (x, rate), y in zip(made, want): assert rate == 16000 and np.abs(x-y).max() < 2e-3
    assert here.locator('img[src^="data:image"], img[src*="/file="], .matplotlib img').filter(visible=True).count() >= 1

def test_an_uploaded_sound_is_reconstructed(page, wave):
    from mars.eval import f0
    here = panel(page, 'Reconstruct')
    drop(here, wave[0])
    press(page, 'Reconstruct')
    assert re.search(r'From 255 tokens.*distance [\d.]+ dB', here.inner_text())
    mine, back = sounds(here)[-2:]
    assert np.abs(mine[0]-wave[1].numpy()).max() < 1e-3
    assert abs(100*(f0(back[0]).midi-60)) < 50

def test_edit_changes_the_span_only(page, wave):
    here = panel(page, 'Edit')
    drop(here, wave[0])
    number(here, 'from (s)', 1)
    number(here, 'to (s)', 2)
    press(page, 'Edit')
    mine, *made = [x for x, _ in sounds(here)[-3:]]
    assert len(made) == 2
    for x in made:
        assert np.array_equal(x[:16000], mine[:16000]) and np.array_equal(x[32000:], mine[32000:]) and np.abs(x-mine).max() > .01

def test_errors_are_shown_as_one_sentence(page, wave):
    here = panel(page, 'Edit')
    drop(here, wave[0])
    number(here, 'from (s)', 3)
    number(here, 'to (s)', 2)
    here.get_by_role('button', name='Edit', exact=True).click()
    page.get_by_text('the range from 3 to 2 s is empty').first.wait_for(timeout=20000)
    number(here, 'from (s)', 1)

def test_generation_works_with_an_empty_seed_field(page):
    here = panel(page, 'Generate')
    number(here, 'pitch', 62)
    here.get_by_label('seed').fill('')
    press(page, 'Generate')
    assert len(sounds(here)) == 2 and 'Sample 2' in here.inner_text()

def test_a_generated_note_can_be_reconstructed(page, running):
    here = panel(page, 'Reconstruct')
    def sources(): return {a.get_attribute('src') for a in here.locator('audio').all()}
    before, end = sources(), time.time() + 60
    here.get_by_role('button', name='Take a note of the model').click()
    while not sources() - before and time.time() < end: page.wait_for_timeout(300)
    page.wait_for_timeout(500)
    press(page, 'Reconstruct')
    mine, back = sounds(here)[-2:]
    assert mine[1] == 16000 and np.abs(mine[0]).max() > .01 and back[0].shape == mine[0].shape == (64000,)

def test_no_errors_and_no_external_requests(page):
    assert not page.foreign
    assert not page.errors

def test_page_fits_a_phone(page):
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(500)
    for title in ('Generate', 'Reconstruct', 'Edit'):
        panel(page, title)
        assert page.evaluate('document.documentElement.scrollWidth') <= PHONE['width'], title

def test_ctrl_c_exits_cleanly_and_leaves_no_files(running, page):
    process, _ = running
    kept = [f for f in Path(tempfile.gettempdir()).glob('mars-app-*') if f.stat().st_mtime >= process.began]
    assert any(f.rglob('*.wav') for f in kept)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and not [f for f in kept if f.exists()]

def test_sigterm_exits_cleanly():
    process = command('app', '--port', '0')
    address_of(process)
    kept = [f for f in Path(tempfile.gettempdir()).glob('mars-app-*') if f.stat().st_mtime >= process.began]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0 and kept and not [f for f in kept if f.exists()]

@pytest.mark.parametrize('argv, word', [(['--port', 'TAKEN'], 'is in use; give another with --port'), (['--model', 'nowhere'], "no model 'nowhere'"),
                                        (['--host', '::1'], "got '::1'; use 127.0.0.1")])
def test_invalid_arguments_print_one_line(argv, word, capsys):
    pytest.importorskip('gradio')
    from mars.cli import main
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        port = str(s.getsockname()[1])
        assert main(['app', *(port if x == 'TAKEN' else x for x in argv)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('mars: ') and word in err and err.count('\n') == 1
