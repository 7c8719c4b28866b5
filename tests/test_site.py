"""The built site: each page of `_docs` in headless Chromium, at desktop and at phone width, and the sound of the piano.

`scripts/test.sh` builds `_docs` first. The same tests hold for Quarto's pages and for those of its stand-in.
"""
import base64, functools, hashlib, io, json, os, posixpath, re, shutil, subprocess, sys, threading
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

import numpy as np, pytest, yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS, PIANO = ROOT/'_docs', ROOT/'nbs'/'piano'
MADE = json.loads((PIANO/'piano.json').read_text(encoding='utf-8'))
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
PHONE = dict(width=375, height=740)

NAMES = sorted(p.relative_to(ROOT/'nbs').as_posix() for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)

# ---- what needs no browser ----

def contents(items):
    for item in items:
        if 'section' in item: yield from contents(item['contents'])
        else: yield item['href']

def test_sidebar_names_every_notebook_once():
    named = list(contents(yaml.safe_load((ROOT/'nbs'/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']))
    assert sorted(named) == NAMES, 'add the notebook to nbs/sidebar.yml'
    assert named[0] == 'index.ipynb'

def clips(family):
    "{pitch: MP3} of a family, and the cents of its keys."
    text = (PIANO/f'{family}.js').read_text(encoding='utf-8')
    data = json.loads(re.fullmatch(r'\(window\.MARS_PIANO \?\?= \{\}\)\.\w+ = (.*);\n', text)[1])
    return {int(p): base64.b64decode(c) for p, c in data['clips'].items()}, {int(p): c for p, c in data['cents'].items()}

def test_piano_clips_match_the_packaged_weights():
    found = hashlib.sha256()
    for name in ('tokenizer.safetensors', 'var.safetensors'): found.update((ROOT/'mars'/'weights'/MADE['weights']/name).read_bytes())
    assert MADE['digest'] == found.hexdigest()[:16], 'the clips are of other weights: run `python scripts/make_piano.py`, then `python scripts/draw_path.py`'

def test_piano_is_small_and_complete():
    assert sum(p.stat().st_size for p in PIANO.iterdir()) < 2.5*2**20  # of the 8 MB that a page may weigh, the repository has room for so much
    about = json.loads(re.search(r'= (.*);', (PIANO/'made.js').read_text())[1])
    assert about['families'] == list(MADE['families']) and len(about['families']) >= 10
    for family, made in MADE['families'].items():
        have, cents = clips(family)
        assert list(have) == list(range(about['first'], about['last']+1, about['step'])) == [n['pitch'] for n in made['notes']]
        assert cents == {n['pitch']: n['cents'] for n in made['notes']}
        assert [len(c) for c in have.values()] == [n['bytes'] for n in made['notes']]

@pytest.mark.parametrize('family', ['flute', 'bass'])
def test_clips_have_the_listed_length_and_pitch(family):
    import soundfile as sf
    from mars.eval import f0
    notes = [n for n in MADE['families'][family]['notes'] if n['cents'] is not None and abs(n['cents']) < 50 and n['voiced'] > .9]
    assert notes, f'{family} has no note in tune'
    for n in notes[:3]:
        x, rate = sf.read(io.BytesIO(clips(family)[0][n['pitch']]), dtype='float32')
        assert x.ndim == 1 and abs(len(x)/rate-MADE['seconds']) < .2 and .4 < np.abs(x).max() <= 1
        assert abs(100*(f0(x, rate).midi-n['f0'])) < 25

def test_piano_record_counts_right():
    notes = [n for f in MADE['families'].values() for n in f['notes']]
    def right(key): return sum(n[key] is not None and abs(n[key]) < 50 for n in notes)
    assert MADE['notes'] == len(notes) and MADE['right'] == right('cents') and MADE['first_seed_right'] == right('first_seed_cents')

@pytest.mark.parametrize('name', ['path.svg', 'path-tall.svg'])
def test_path_drawing_is_a_valid_svg(name):
    svg = ET.parse(ROOT/'nbs'/'images'/name).getroot()
    words = ' '.join(t.text for t in svg.iter('{http://www.w3.org/2000/svg}text'))
    for word in ('wave', 'spec', 'image', 'tokens', 'VAR'): assert word in words
    assert len(list(svg.iter('{http://www.w3.org/2000/svg}image'))) > 10

def test_results_table_matches_the_results_files():
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    named = re.findall(r'`results/(evaluation/small-[\w-]+\.json)`', readme)
    assert len(named) == 2
    def value(v): return v[0] if isinstance(v, list) else v['value'] if isinstance(v, dict) else v
    def mean_over_seeds(rows):
        runs = [rows[k] for k in ('generated', 'generated, run 2', 'generated, run 3')]
        return {key: sum(value(run[key]) for run in runs)/3 for key in runs[0] if value(runs[0][key]) is not None}
    held_out, recordings = (mean_over_seeds(json.loads((ROOT/'results'/n).read_text(encoding='utf-8'))['rows']) for n in named)
    for title, key in {'f0 within 50 cents': 'f0 within 50 cents', 'pitch accuracy': 'accuracy pitch', 'family accuracy': 'accuracy family'}.items():
        assert re.search(rf'\| {title}[^|]*\| - \| \*\*{100*value(held_out[key]):.0f} %\*\*', readme), title
        assert f'{100*value(recordings[key]):.0f} % (' in readme
    assert re.search(rf"\| Fréchet distance[^|]*\| - \| \*\*{value(held_out['Fréchet distance, mel-PCA']):.0f}\*\*", readme)

def test_readme_is_short():
    text = re.sub(r'```.*?```|<[^>]+>|\]\([^)]*\)', ' ', (ROOT/'README.md').read_text(encoding='utf-8'), flags=re.S)
    assert len(re.findall(r"[A-Za-z0-9'’.-]*[A-Za-z][\w'’.-]*", text)) < 900

def test_external_scripts_and_nested_links_are_removed(tmp_path):
    "The lines that Quarto adds to a notebook with HTML outputs, and nbdev's version of [`X`](x.ipynb)."
    page = ('<head><script src="site_libs/a.js"></script>\n<script src="https://cdn.example.org/require.min.js" integrity="sha512-x" crossorigin="anonymous"></script>\n'
            '<script src="https://cdn.example.org/jquery.min.js" data-relocate-top="true"></script>\n'
            '<script type="application/javascript">define(\'jquery\', [],function() {return window.jQuery;})</script>\n<script>let x = 1</script></head><a href="x.html">[<code>X</code>](https://example.org/x.html#x)</a>')
    (tmp_path/'a.html').write_text(page)
    subprocess.run([sys.executable, str(ROOT/'scripts'/'own_site.py')], env=dict(os.environ, QUARTO_PROJECT_OUTPUT_DIR=str(tmp_path)), check=True)
    assert (tmp_path/'a.html').read_text() == '<head><script src="site_libs/a.js"></script>\n<script>let x = 1</script></head><a href="x.html"><code>X</code></a>'

def test_tables_of_pandas_are_marked(tmp_path):
    "Text is aligned left, digits do not wrap, and a second run changes nothing."
    def table(*cells): return '<table class="dataframe"><tr><th>in_use</th></tr><tr>'+''.join(f'<td>{c}</td>' for c in cells)+'</tr></table>'
    (tmp_path/'a.html').write_text(table('0.12 ± 0.01', 'NaN', 'yes')+table('1.0', 'a claim of more than forty letters, which wraps'))
    marked = ('<table class="dataframe digits"><tr><th>in_<wbr>use</th></tr><tr><td>0.12 ± 0.01</td><td>NaN</td><td class="words">yes</td></tr></table>'
              '<table class="dataframe"><tr><th>in_<wbr>use</th></tr><tr><td>1.0</td><td class="words long">a claim of more than forty letters, which wraps</td></tr></table>')
    for _ in range(2):
        subprocess.run([sys.executable, str(ROOT/'scripts'/'own_site.py'), str(tmp_path)], check=True)
        assert (tmp_path/'a.html').read_text() == marked

def test_workflows_run_the_same_commands():
    flows = {p.stem: yaml.safe_load(p.read_text(encoding='utf-8')) for p in (ROOT/'.github'/'workflows').glob('*.yml')}
    runs = {name: '\n'.join(s.get('run', '') for job in flow['jobs'].values() for s in job['steps']) for name, flow in flows.items()}
    assert 'bash .ci/run' in runs['ci']
    assert 'nbdev_docs' in runs['site'] and 'tests/test_site.py' in runs['site'] and 'tests/bin' not in runs['site']

# ---- the browser ----

def find_browser():
    if os.environ.get('MARS_BROWSER'): return os.environ['MARS_BROWSER']
    return next(filter(None, map(shutil.which, BROWSERS)), None)

@pytest.fixture(scope='module')
def browser():
    if not (DOCS/'index.html').exists(): pytest.skip('the site is not built: run `nbdev_docs`, or all of `bash scripts/test.sh`')
    try: from playwright.sync_api import sync_playwright
    except ImportError: pytest.skip("playwright is missing: pip install -e '.[dev]'")
    path = find_browser()
    if not path:
        # where it could have been installed, its lack is a fault
        if os.environ.get('CI') and shutil.which('apt-get'): pytest.fail('no Chromium here, though scripts/setup.sh installs it')
        pytest.skip('no Chromium here: install it (Debian: apt-get install chromium) or name one in MARS_BROWSER')
    with sync_playwright() as p:
        # `--autoplay-policy` stays as people have it: a press must be enough to start the sound
        opened = p.chromium.launch(executable_path=path, args=['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--mute-audio',
            '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'])
        yield opened
        opened.close()

@contextmanager
def served(folder):
    "A folder behind HTTP, as on a static host"
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()

@pytest.fixture(scope='module')
def host():
    with served(DOCS) as address: yield address

LOOK = r'''async () => {
  const wait = (make, ms = 15000) => Promise.race([new Promise(make), new Promise(done => setTimeout(() => done('late'), ms))]);
  const images = [...document.images];
  images.forEach(i => { i.loading = 'eager'; });
  await Promise.all(images.map(i => i.complete ? 0 : wait(done => { i.onload = i.onerror = done; })));
  const sounds = [...document.querySelectorAll('audio')];
  await Promise.all(sounds.map(a => a.readyState >= 1 || a.error ? 0 : wait(done => {
    a.preload = 'metadata'; a.onloadedmetadata = a.onerror = done;
    a.querySelectorAll('source').forEach(s => { s.onerror = done; });
  })));
  const shown = [...document.querySelectorAll('pre.sourceCode')].filter(p => !p.closest('details, .api'));
  const bare = document.body.cloneNode(true);
  bare.querySelectorAll('math, pre, code, script, style, svg').forEach(e => e.remove());
  return {
    title: document.title, h1: document.querySelectorAll('h1').length,
    ids: [...document.querySelectorAll('[id]')].map(e => e.id), links: [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href')),
    images: images.map(i => ({ src: i.src.slice(0, 80), alt: i.getAttribute('alt'), width: i.naturalWidth, height: i.naturalHeight })),
    sounds: sounds.map(a => ({ duration: a.duration, error: a.error?.message ?? null })),
    math: [...document.querySelectorAll('math')].map(m => ({ tex: m.querySelector('annotation')?.textContent ?? '', block: m.getAttribute('display') === 'block',
      box: [m.getBoundingClientRect().width, m.getBoundingClientRect().height], wrong: !!m.querySelector('merror') })),
    raw: bare.textContent.match(/\$\$|\\[a-zA-Z]+[{_^]|\\\(|\\\[|\]\(http|\]\(\w+\.(ipynb|html)/g),
    unset: document.querySelectorAll('.math, .katex-error').length,
    apis: [...document.querySelectorAll('.api')].map(a => ({ blocks: [...a.querySelectorAll('pre')].map(p => p.innerText.trim()), table: [...a.querySelectorAll('thead th')].map(h => h.innerText) })),
    shown: shown.map(p => p.innerText), folds: document.querySelectorAll('details:has(pre.sourceCode)').length, open: document.querySelectorAll('details[open]:has(pre.sourceCode)').length,
    narrow: shown.filter(p => p.scrollWidth > p.clientWidth+1 && Math.max(...p.innerText.split('\n').map(l => l.length)) <= 120).map(p => p.innerText.slice(0, 80)),
  };
}'''

def page_of(notebook): return re.sub(r'(^|/)\d+[a-zA-Z]*_', r'\1', notebook.removesuffix('.ipynb'))+'.html'
PAGES = set(map(page_of, NAMES))

class Seen(dict):
    "{page: measurements}: each page is opened once, on first use."
    def __init__(self, page, host):
        super().__init__()
        self.page, self.host, self.errors, self.asked = page, host, [], []
        page.on('console', lambda m: self.errors.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: self.errors.append(str(e)))
        page.on('request', lambda r: self.asked.append(r.url))
        page.on('response', lambda r: self.errors.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    def __missing__(self, name):
        self.errors.clear(), self.asked.clear()
        self.page.set_viewport_size(dict(width=1280, height=900))
        answer = self.page.goto(f'{self.host}/{name}', wait_until='load')
        found = self.page.evaluate(LOOK) | dict(status=answer.status, wide=self.page.evaluate('document.documentElement.scrollWidth'))
        self.page.set_viewport_size(PHONE)
        found['phone'] = self.page.evaluate('document.documentElement.scrollWidth')
        self[name] = found | dict(errors=list(self.errors), foreign=[u for u in self.asked if not u.startswith((self.host, 'data:', 'blob:'))])
        return self[name]

@pytest.fixture(scope='module')
def seen(browser, host):
    context = browser.new_context()
    yield Seen(context.new_page(), host)
    context.close()

@pytest.fixture(params=NAMES, ids=lambda n: n.removesuffix('.ipynb'))
def found(request, seen): return page_of(request.param), seen[page_of(request.param)], request.param

def test_page_opens_without_an_error(found):
    _, page, _ = found
    assert page['status'] == 200 and page['title'] and page['h1'] >= 1
    assert not page['errors']

def test_page_makes_no_external_requests(found): assert not found[1]['foreign']

def test_page_links_resolve(found, seen):
    name, page, _ = found
    broken = []
    for link in page['links']:
        if re.match('[a-z]+:', link): continue
        path, _, frag = link.partition('#')
        path = unquote(urlparse(path).path)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        if (DOCS/path).is_dir(): path = posixpath.normpath(f'{path}/index.html')
        if not (DOCS/path).exists() or (frag and path in PAGES and unquote(frag) not in seen[path]['ids']): broken.append(link)
    assert not broken

def test_page_images_have_size_and_alt_text(found):
    for image in found[1]['images']: assert image['width'] > 1 and image['height'] > 1 and image['alt'] is not None, image

def test_page_players_have_a_duration(found):
    "As many players as the notebook has, each with a finite length"
    _, page, notebook = found
    cells = json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))['cells']
    hidden = re.compile(r'^#\| *(hide|include: *false|output: *false)', re.M)
    shown = [''.join(o['data']['text/html']) for c in cells if not hidden.search(''.join(c['source'])) for o in c.get('outputs', []) if 'text/html' in o.get('data', {})]
    assert len(page['sounds']) >= sum(x.count('<audio') for x in shown)
    for sound in page['sounds']: assert sound['error'] is None and sound['duration'] and .05 < sound['duration'] < 60, sound

def test_page_formulas_are_rendered(found):
    _, page, notebook = found
    wrong = [m for m in page['math'] if m['wrong'] or min(m['box']) < 2]
    assert not wrong and not page['unset'] and not page['raw']
    cells = json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))['cells']
    prose = re.sub(r'```.*?```|`[^`\n]*`', '', '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown'), flags=re.S)
    assert sum(m['block'] for m in page['math']) >= prose.count('$$')//2

def test_page_fits_desktop_and_phone(found):
    "Only scrollable boxes are wider than the screen."
    assert found[1]['wide'] <= 1280 and found[1]['phone'] <= PHONE['width']

def test_page_shows_a_signature_once(found):
    "An API entry has one signature, without `def`, and no code block around it repeats the definition."
    _, page, notebook = found
    cells = json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))['cells']
    assert bool(page['apis']) == any(re.search(r'^#\| *exports?\n(?:.*\n)*?(?:def|class) [a-zA-Z]', ''.join(c['source']), re.M) for c in cells)
    for entry in page['apis']:
        assert len(entry['blocks']) == 1 and not re.match('(async )?(def|class) ', entry['blocks'][0]), entry
        assert not entry['table'] or entry['table'][0] == 'argument' and 'description' in entry['table'], entry
    names = {re.search(r'^[\w.]+', entry['blocks'][0], re.M)[0] for entry in page['apis']}
    again = [n for n in names for code in page['shown'] if re.search(rf'^(async def|def|class) {re.escape(n)}\b', code, re.M)]
    assert not again

def test_page_folds_the_source(found):
    _, page, notebook = found
    cells = json.loads((ROOT/'nbs'/notebook).read_text(encoding='utf-8'))['cells']
    assert not page['open'] and page['folds'] == sum(bool(re.search(r'^#\| *exports$', ''.join(c['source']), re.M)) for c in cells)

def test_page_fits_lines_of_120_columns(found): assert not found[1]['narrow']

# ---- the first screen, and a dark one ----

def test_first_screen_has_drawing_sounds_and_piano(visit, host):
    page = visit(f'{host}/index.html')
    page.wait_for_selector('.piano-keys button')
    ends = page.evaluate("['.hero img', '.hero audio', '.piano-keys'].flatMap(s => [...document.querySelectorAll(s)].map(e => e.getBoundingClientRect().bottom))")
    assert len(ends) == 6 and max(ends) <= 900

CONTRAST = r'''() => {
  const parse = c => (c.match(/[\d.]+/g) || []).map(Number);
  const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const rgb = (...layers) => { canvas.clearRect(0, 0, 1, 1); layers.forEach(l => { canvas.fillStyle = l; canvas.fillRect(0, 0, 1, 1); }); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => c.slice(0, 3).map(v => v/255).map(v => v <= .03928 ? v/12.92 : ((v+.055)/1.055)**2.4).reduce((s, v, i) => s+v*[.2126, .7152, .0722][i], 0);
  const under = e => { const layers = []; for (; e; e = e.parentElement) { const s = getComputedStyle(e); if (s.backgroundImage !== 'none') return null; layers.unshift(s.backgroundColor); } return layers; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), seen = new Map(), bad = [];
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !e.checkVisibility({ visibilityProperty: true }) || e.closest('svg, script, style, option') || e.disabled) continue;
    const layers = under(e), color = getComputedStyle(e).color;
    if (!layers) continue;
    const key = layers.join()+color;
    if (!seen.has(key)) { const ground = rgb('#fff', ...layers), [a, b] = [light(ground), light(rgb('#fff', ...layers, color))]; seen.set(key, (Math.max(a, b)+.05)/(Math.min(a, b)+.05)); }
    if (seen.get(key) < 4.5) bad.push([seen.get(key).toFixed(1), e.tagName, e.className, walk.currentNode.textContent.trim().slice(0, 40)]);
  }
  const grounds = [...document.querySelectorAll('figure.output img, .cell-output img')].map(i => getComputedStyle(i).backgroundColor);
  return { ground: rgb('#fff', getComputedStyle(document.body).backgroundColor), bad, grounds };
}'''

@pytest.mark.parametrize('name', ['index', 'cmx', 'evaluation/report', 'guides/quickstart'])
def test_page_can_be_read_in_light_and_dark(visit, host, name):
    "Text has a contrast of at least 4.5 (WCAG AA), and plots have a white background."
    for scheme in ('light', 'dark'):
        found = visit(f'{host}/{name}.html', color_scheme=scheme).evaluate(CONTRAST)
        assert (max(found['ground'][:3]) < 80) == (scheme == 'dark')
        assert not found['bad'] and set(found['grounds']) <= {'rgb(255, 255, 255)'}

# ---- search ----

@pytest.fixture(scope='module')
def visit(browser):
    "A page in a separate context that records its audio output; closed at the end."
    contexts = []
    def open_(url, **settings):
        contexts.append(browser.new_context(**(dict(viewport=dict(width=1280, height=900)) | settings)))
        page = contexts[-1].new_page()
        page.add_init_script(RECORD)
        page.goto(url, wait_until='load')
        return page
    yield open_
    for context in contexts: context.close()

def search(page, term):
    "Addresses and texts of the hits, in the search box of the stand-in or of Quarto."
    if page.locator('#page-search').count():
        page.fill('#page-search', term)
        hits = page.locator('#page-results a')
    else:
        page.locator('#quarto-search button, .aa-DetachedSearchButton').first.click()
        page.locator('.aa-Input').fill(term)
        page.wait_for_timeout(1500)
        hits = page.locator('.aa-Item a')
    return [(h.get_attribute('href'), h.inner_text()) for h in hits.all()]

@pytest.mark.parametrize('start', ['tokenizer.html', 'parts/quantizer.html'])
def test_search_result_links_to_the_term(visit, host, start):
    page = visit(f'{host}/{start}')
    hits = search(page, 'demultiplex')
    assert hits and any('cmx' in href for href, _ in hits)
    page.goto(urljoin(page.url, hits[0][0]))
    assert 'demultiplex' in page.locator('body').inner_text().lower()

@pytest.mark.parametrize('term', ['attention mask', 'checkpoint', 'classifier-free guidance', 'inpainting'])
def test_search_finds_a_term_of_the_field(visit, host, term):
    page = visit(f'{host}/index.html')
    hits = [h for h in search(page, term) if h[0]]
    assert hits
    page.goto(urljoin(page.url, hits[0][0]))
    assert term in page.locator('main').first.text_content().lower()

def test_search_finds_nothing_for_nonsense(visit, host): assert not [h for h in search(visit(f'{host}/index.html'), 'xqzvkj') if h[0]]

# ---- the piano ----

RECORD = r'''(() => {
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode && !window.HEARD) {
      const tap = this.context.createScriptProcessor(2048, 1, 1), heard = window.HEARD = { rate: this.context.sampleRate, blocks: [] };
      tap.onaudioprocess = e => heard.blocks.push(e.inputBuffer.getChannelData(0).slice());
      connect.call(this, tap);
      connect.call(tap, to);
    }
    return connect.call(this, to, ...rest);
  };
})();'''

def heard(page, seconds, drop=True):
    "(samples, rate) of the audio output in the next seconds."
    if drop: page.evaluate('window.HEARD && (HEARD.blocks.length = 0)')
    page.wait_for_function(f'window.HEARD && HEARD.blocks.length*2048 > {seconds}*HEARD.rate', timeout=20000)
    data, rate = page.evaluate('''() => { const x = new Float32Array(HEARD.blocks.length*2048); HEARD.blocks.forEach((b, i) => x.set(b, 2048*i));
        const bytes = new Uint8Array(x.buffer); let s = ''; for (let i = 0; i < bytes.length; i += 32768) s += String.fromCharCode(...bytes.subarray(i, i+32768)); return [btoa(s), HEARD.rate]; }''')
    return np.frombuffer(base64.b64decode(data), np.float32).copy(), rate

def pitch(samples, rate):
    from mars.eval import f0
    start = np.flatnonzero(np.abs(samples) > .02*np.abs(samples).max())[0]
    return f0(samples[start:], int(rate)).midi

def in_tune(family, low=48, high=76, cents=25):
    "Notes of a family that are in tune and sustained, whose pitch pYIN can measure."
    notes = [n for n in MADE['families'][family]['notes'] if low <= n['pitch'] <= high and n['cents'] is not None and abs(n['cents']) < cents and n['voiced'] > .9]
    if not notes: pytest.skip(f'{family} has no note in tune between {low} and {high}: make the piano from better weights')
    return notes

def key(page, midi): return page.locator(f'.piano-keys [data-pitch="{midi}"]')
def point(page, midi, part=.9):
    key(page, midi).scroll_into_view_if_needed()
    box = key(page, midi).bounding_box()
    return box['x']+box['width']/2, box['y']+box['height']*part

def hold(page, midi, seconds=1.3):
    "Press a key with the mouse, record, and release it."
    page.mouse.move(*point(page, midi))
    page.mouse.down()
    out = heard(page, seconds, drop=False)
    page.mouse.up()
    return out

def choose(page, family):
    page.select_option('.piano-family', family)
    page.wait_for_function(f'window.MARS_PIANO?.{family}')

def test_pressed_key_sounds_at_its_pitch_and_stops(visit, host):
    page, note = visit(f'{host}/index.html'), in_tune('flute', 60)[0]
    choose(page, 'flute')
    x, rate = hold(page, note['pitch'])
    assert abs(100*(pitch(x, rate)-note['f0'])) < 20 and abs(100*(pitch(x, rate)-note['pitch'])) < 50
    page.wait_for_timeout(900)
    assert np.abs(heard(page, .2)[0]).max() < .01*np.abs(x).max()

@pytest.mark.parametrize('by', [-1, 1])
def test_key_in_between_is_resampled_to_its_pitch(visit, host, by):
    note = in_tune('flute')[-1]
    page = visit(f'{host}/index.html')
    choose(page, 'flute')
    x, rate = hold(page, note['pitch']+by)
    assert abs(100*(pitch(x, rate)-by-note['f0'])) < 25
    assert 'resampled' in page.locator('.piano-says').inner_text()

def test_letter_keys_play_and_do_not_affect_the_search(visit, host):
    "Key A plays the C marked A, here moved to an octave with a note in tune; Z and X move the octave."
    page, note = visit(f'{host}/index.html'), in_tune('flute', 60, 71)[0]
    choose(page, 'flute')
    key(page, 60).focus()
    letter = ['KeyA', 'KeyW', 'KeyS', 'KeyE', 'KeyD', 'KeyF', 'KeyT', 'KeyG', 'KeyY', 'KeyH', 'KeyU', 'KeyJ'][note['pitch']-60]
    for z in ('KeyZ', 'KeyX'): page.keyboard.press(z)
    page.keyboard.down(letter)
    x, rate = heard(page, 1.3, drop=False)
    assert key(page, note['pitch']).get_attribute('class').split().count('down') == 1
    page.keyboard.up(letter)
    assert abs(100*(pitch(x, rate)-note['f0'])) < 20
    assert not page.evaluate("document.activeElement.matches('input[type=search], .aa-Input')")

def test_touch_plays_at_phone_width(visit, host):
    page, note = visit(f'{host}/index.html', viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2), in_tune('flute', 60, 76)[0]
    choose(page, 'flute')
    assert 8 <= page.locator('.piano-keys .white').count() <= 15
    page.locator('.piano-ring input').check()
    page.touchscreen.tap(*point(page, note['pitch']))
    x, rate = heard(page, 1.3, drop=False)
    assert abs(100*(pitch(x, rate)-note['f0'])) < 20

def test_two_keys_sound_together_and_volume_holds(visit, host):
    page = visit(f'{host}/index.html')
    choose(page, 'flute')
    key(page, 60).focus()
    page.keyboard.down('KeyA'), page.keyboard.down('KeyG')
    loud = np.abs(heard(page, .6, drop=False)[0]).max()
    assert page.locator('.piano-keys .down').count() == 2
    page.keyboard.up('KeyA'), page.keyboard.up('KeyG')
    page.fill('.piano-volume', '0')
    page.wait_for_timeout(900)
    assert loud > .05 and np.abs(hold(page, 60, .4)[0][-4096:]).max() < 1e-3

def test_piano_is_accessible(visit, host):
    page = visit(f'{host}/index.html')
    assert page.get_by_label('Family').count() == 1 and page.get_by_label('Volume').count() == 1
    assert page.locator('.piano-keys[role=group][aria-label]').count() == 1 and page.locator('.piano-says[role=status]').count() == 1
    labels = page.locator('.piano-keys button').evaluate_all('keys => keys.map(k => k.getAttribute("aria-label"))')
    assert labels[0].startswith('C') and len(set(labels)) == len(labels)
    assert page.locator('.piano-keys button[tabindex="0"]').count() == 1
    key(page, 60).focus()
    page.keyboard.press('ArrowRight')
    assert page.evaluate('document.activeElement.getAttribute("aria-label")') == 'C sharp 4'
    page.keyboard.press('Enter')
    page.wait_for_function('document.querySelector(".piano-says").textContent.includes("MIDI 61")')

def test_every_family_loads_and_sounds(visit, host):
    page = visit(f'{host}/index.html')
    options = page.locator('.piano-family option').evaluate_all('os => os.map(o => o.value)')
    assert options == list(MADE['families'])
    page.mouse.move(*point(page, 60))
    for family in options:
        choose(page, family)
        page.mouse.down()
        page.wait_for_function('window.HEARD && HEARD.blocks.slice(-4).some(b => b.some(v => Math.abs(v) > 0.01))', timeout=15000)
        page.mouse.up()

def test_piano_and_search_work_from_a_folder(visit):
    "No server: scripts and clips come from file addresses. Quarto's search needs one"
    page, note = visit((DOCS/'index.html').as_uri()), in_tune('flute', 60)[0]
    choose(page, 'flute')
    x, rate = hold(page, note['pitch'])
    assert abs(100*(pitch(x, rate)-note['f0'])) < 20
    if page.locator('#page-search').count(): assert search(page, 'quantizer')
