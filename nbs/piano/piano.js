// A piano of generated notes, in plain Web Audio. The clips of a family come as a script (made by scripts/make_piano.py),
// not by fetch, which a page opened from a folder may not use. Keys without a clip of their own play the nearest one faster or slower.
(() => {
  const root = document.querySelector('.piano'), about = window.MARS_PIANO_ABOUT;
  if (!root || !about || !window.AudioContext) return;
  const folder = new URL('.', document.currentScript?.src || new URL('piano/piano.js', location.href)).href;
  const NAMES = ['C', 'C♯', 'D', 'D♯', 'E', 'F', 'F♯', 'G', 'G♯', 'A', 'A♯', 'B'], WHITE = [0, 2, 4, 5, 7, 9, 11];
  const HAND = ['KeyA', 'KeyW', 'KeyS', 'KeyE', 'KeyD', 'KeyF', 'KeyT', 'KeyG', 'KeyY', 'KeyH', 'KeyU', 'KeyJ', 'KeyK', 'KeyO', 'KeyL', 'KeyP', 'Semicolon'];
  const LETTERS = 'AWSEDFTGYHUJKOLP;';
  const name = p => NAMES[p % 12] + (Math.floor(p / 12) - 1), white = p => WHITE.includes(p % 12), clamp = (x, a, b) => Math.max(a, Math.min(b, x));
  const nearest = p => clamp(about.first + Math.round((p - about.first) / about.step) * about.step, about.first, about.last);
  const tuned = c => c !== null && Math.abs(c) < 50;
  const signed = c => `${c < 0 ? '−' : '+'}${Math.abs(c).toFixed(0)}`;

  root.innerHTML = `<div class="piano-bar">
    <label>Family <select class="piano-family">${about.families.map(f => `<option value="${f}">${f.replace('_', ' ')}</option>`).join('')}</select></label>
    <label>Volume <input class="piano-volume" type="range" min="0" max="1" step="0.05" value="0.7"></label>
    <label class="piano-ring"><input type="checkbox"> let ring</label>
    <span class="piano-octave" role="group" aria-label="Octave"><button type="button" data-by="-12" aria-label="An octave down">‹</button><button type="button" data-by="12" aria-label="An octave up">›</button></span>
    </div><div class="piano-keys" role="group" aria-label="Piano keyboard: arrow keys move, Enter plays; or play with the letters from A to semicolon, Z and X change the octave"></div>
    <p class="piano-says" role="status" aria-live="polite"></p>`;
  const $ = s => root.querySelector(s), keys = $('.piano-keys'), says = $('.piano-says'), family = $('.piano-family'), volume = $('.piano-volume'), ring = $('.piano-ring input');
  let context, out, at = 60, base = 60;
  const buffers = new Map(), voices = new Map(), pointers = new Map(), loading = new Map();
  const data = f => (window.MARS_PIANO || {})[f];

  // ---- sound ----

  function load(f) {
    if (!loading.has(f)) loading.set(f, new Promise((done, fail) => {
      const script = Object.assign(document.createElement('script'), { src: `${folder}${f}.js`, onload: done, onerror: () => fail(new Error(`no clips of ${f}`)) });
      document.head.append(script);
    }));
    return loading.get(f);
  }

  function wake() {
    if (!context) {
      context = new AudioContext({ latencyHint: 'interactive' });
      out = new DynamicsCompressorNode(context, { threshold: -12, ratio: 6, attack: 0.002 });
      out.connect(context.destination);
    }
    if (context.state === 'suspended') context.resume();
  }

  async function clip(f, pitch) {
    const id = `${f} ${pitch}`;
    if (!buffers.has(id)) buffers.set(id, (async () => {
      await load(f);
      const bytes = Uint8Array.from(atob(data(f).clips[pitch]), c => c.charCodeAt(0));
      const buffer = await context.decodeAudioData(bytes.buffer), x = buffer.getChannelData(0);
      // MP3 begins with silence whose length depends on the decoder
      const peak = x.reduce((m, v) => Math.max(m, Math.abs(v)), 0), first = x.findIndex(v => Math.abs(v) > 0.02 * peak);
      return { buffer, offset: Math.max(0, first / buffer.sampleRate - 0.004) };
    })());
    return buffers.get(id);
  }

  async function press(pitch) {
    wake();
    release(pitch, true);
    const voice = {}, f = family.value, from = nearest(pitch);
    voices.set(pitch, voice);
    draw(pitch);
    try {
      const { buffer, offset } = await clip(f, from);
      voice.source = new AudioBufferSourceNode(context, { buffer, playbackRate: 2 ** ((pitch - from) / 12) });
      voice.gain = new GainNode(context, { gain: Number(volume.value) ** 2 });
      voice.source.connect(voice.gain).connect(out);
      voice.source.start(0, offset);
      if (voice.left) fade(voice, 0.3);
      voice.source.onended = () => { if (voices.get(pitch) === voice) { voices.delete(pitch); draw(pitch); } };
      const cents = data(f).cents[from], heard = cents === null ? 'no pitch was measured' : `measured ${signed(cents)} cents off`;
      says.textContent = `${f.replace('_', ' ')}, ${name(pitch)} (MIDI ${pitch}): ` + (pitch === from ? heard : `the note ${name(from)}, ${heard}, resampled`);
    } catch { says.textContent = `The clips of ${f} could not be loaded.`; }
  }

  function fade(voice, wait = 0, time = 0.07) {
    const when = context.currentTime + wait;
    voice.gain.gain.setTargetAtTime(0, when, time);
    voice.source.stop(when + 8 * time);
  }

  function release(pitch, again) {
    const voice = voices.get(pitch);
    if (!voice) return;
    voices.delete(pitch);
    draw(pitch);
    if (!again && ring.checked) return;
    if (voice.source) fade(voice, 0, again ? 0.01 : 0.07); else voice.left = true;  // it sounds shortly once its clip is there
  }

  // ---- keys ----

  const key = p => keys.querySelector(`[data-pitch="${p}"]`);
  const draw = p => key(p)?.classList.toggle('down', voices.has(p));

  function layout(force) {
    const all = [...Array(about.last - about.first + 1).keys()].map(i => about.first + i);
    const whites = clamp(Math.floor(keys.clientWidth / 26), 8, all.filter(white).length);
    if (!force && layout.whites === whites) return;
    layout.whites = whites;
    // As many white keys as there is room for, from a C on, so that those of the letters are among them
    const view = c => { const keys = all.filter(p => p >= c), end = keys.filter(white)[whites - 1]; return keys.filter(p => p <= (end ?? -1)); };
    const starts = all.filter(p => p % 12 === 0 && p <= base), reach = Math.min(base + LETTERS.length - 1, about.last);
    const from = starts.find(c => view(c).at(-1) >= reach) ?? (view(base).length ? base : all.filter(white).at(-whites));
    const shown = view(from);
    at = clamp(at, shown[0], shown.at(-1));
    const held = keys.contains(document.activeElement);
    let left = 0;
    keys.replaceChildren(...shown.map(p => {
      const button = Object.assign(document.createElement('button'), { type: 'button', className: white(p) ? 'white' : 'black', tabIndex: p === at ? 0 : -1 });
      button.dataset.pitch = p;
      button.setAttribute('aria-label', name(p).replace('♯', ' sharp '));
      button.innerHTML = `<span>${p % 12 ? '' : name(p)}</span><kbd aria-hidden="true">${LETTERS[p - base] || ''}</kbd>`;
      if (white(p)) left++; else button.style.left = `${100 * left / whites}%`;
      return button;
    }));
    keys.style.setProperty('--whites', whites);
    $('[data-by="-12"]').disabled = base - 12 < about.first;
    $('[data-by="12"]').disabled = base + 24 > about.last;
    mark();
    if (held) key(at)?.focus();
  }

  function mark() {
    const cents = data(family.value)?.cents;
    keys.querySelectorAll('button').forEach(b => b.classList.toggle('off', !!cents && !tuned(cents[nearest(Number(b.dataset.pitch))])));
  }

  function shift(by) {
    if (base + by < about.first || base + by + 12 > about.last) return;
    base += by;
    layout(true);
  }

  function focus(p) {
    if (!key(p)) return;
    key(at)?.setAttribute('tabindex', -1);
    at = p;
    key(p).setAttribute('tabindex', 0);
    key(p).focus({ preventScroll: true });
  }

  const under = e => Number(document.elementFromPoint(e.clientX, e.clientY)?.closest('.piano-keys button')?.dataset.pitch) || null;
  keys.addEventListener('pointerdown', e => {
    const p = under(e);
    if (!p || e.button) return;
    e.preventDefault();
    focus(p);
    pointers.set(e.pointerId, p);
    press(p);
  });
  addEventListener('pointermove', e => {
    if (!pointers.has(e.pointerId)) return;
    const p = under(e), was = pointers.get(e.pointerId);
    if (p === was) return;
    if (was) release(was);
    pointers.set(e.pointerId, p);
    if (p) press(p);
  });
  const lift = e => { const p = pointers.get(e.pointerId); pointers.delete(e.pointerId); if (p) release(p); };
  addEventListener('pointerup', lift);
  addEventListener('pointercancel', lift);
  addEventListener('blur', () => { pointers.clear(); [...voices.keys()].forEach(p => release(p)); });
  keys.addEventListener('contextmenu', e => e.preventDefault());

  const asked = e => {
    const i = HAND.indexOf(e.code);
    if (i >= 0) return base + i;
    return ['Enter', 'Space'].includes(e.code) && e.target.dataset.pitch ? Number(e.target.dataset.pitch) : null;
  };
  root.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.tagName === 'SELECT') return;
    const p = asked(e), step = { ArrowLeft: -1, ArrowRight: 1 }[e.code], octave = { KeyZ: -12, KeyX: 12 }[e.code];
    if (p === null && !octave && !(step && e.target.dataset.pitch)) return;
    // The page has letters of its own, for its search
    e.preventDefault();
    e.stopPropagation();
    if (step) focus(at + step);
    else if (octave) { if (!e.repeat) shift(octave); }
    else if (!e.repeat && p <= about.last) press(p);
  });
  root.addEventListener('keyup', e => { const p = asked(e); if (p !== null) release(p); });
  root.addEventListener('focusout', e => { if (!root.contains(e.relatedTarget) && !pointers.size) [...voices.keys()].forEach(p => release(p)); });

  root.querySelectorAll('.piano-octave button').forEach(b => b.addEventListener('click', () => shift(Number(b.dataset.by))));
  const choose = () => load(family.value).then(mark, () => { says.textContent = `The clips of ${family.value} could not be loaded.`; });
  family.addEventListener('change', choose);
  new ResizeObserver(() => layout()).observe(keys);
  layout(true);
  says.textContent = 'Click a key, or choose one and play with the letters shown.';
  // The first family is fetched when the piano is near, not with the page
  new IntersectionObserver((seen, watch) => { if (seen.some(s => s.isIntersecting)) { watch.disconnect(); choose(); } }, { rootMargin: '300px' }).observe(root);
})();
