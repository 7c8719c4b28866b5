// The interface: form, token maps, keyboard and files. All computation is in worker.js.
import { clear, drawTokens, drawValues } from './draw.js';
import { sfzText, wavBytes, zipBytes } from './files.js';
import { Piano, noteName } from './piano.js';

const $ = id => document.getElementById(id),
  base = new URL('.', import.meta.url).href;
const MB = bytes => (bytes / 1e6).toFixed(0),
  seconds = ms => (ms / 1000).toFixed(2);
const plain = name => name.replaceAll('_', ' ');

// ---- the worker: one job at a time, the most urgent first ----

class Jobs {
  constructor() {
    this.worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
    this.waiting = [];
    this.running = null;
    this.worker.onmessage = ({ data: { type, ...content } }) => {
      const { on, done, fail } = this.running;
      if (type !== 'done' && type !== 'error') return on[type]?.(content);
      this.running = null;
      type === 'done' ? done(content) : fail(new Error(content.message));
      this.next();
    };
    this.worker.onerror = e => {
      this.running?.fail(new Error(e.message || 'the worker could not start'));
    };
  }

  /** Run a job; `on` holds functions for its messages; waiting jobs of the same `group` are dropped if `replace`. */
  run(job, args = {}, on = {}, { urgency = 1, group = null, replace = false } = {}) {
    if (replace) this.drop(group);
    return new Promise((done, fail) => {
      this.waiting.push({ job, args, on, done, fail, urgency, group });
      this.next();
    });
  }

  drop(group) {
    const [out, stay] = [[], []];
    for (const w of this.waiting) (w.group === group ? out : stay).push(w);
    this.waiting = stay;
    for (const w of out) w.done(null); // a dropped job has no result
  }

  next() {
    if (this.running || !this.waiting.length) return;
    const most = Math.max(...this.waiting.map(w => w.urgency)),
      at = this.waiting.findIndex(w => w.urgency === most);
    [this.running] = this.waiting.splice(at, 1);
    this.worker.postMessage({ id: 0, job: this.running.job, ...this.running.args });
  }
}

// ---- sound ----

let context, output;
function wake() {
  context ??= new AudioContext();
  if (!output) {
    output = new GainNode(context, { gain: +$('volume').value });
    output.connect(context.destination);
  }
  if (context.state === 'suspended') context.resume();
}

function play(wave) {
  if (!context) return;
  const buffer = new AudioBuffer({ length: wave.length, sampleRate: about.spectrogram.sample_rate });
  buffer.copyToChannel(wave, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(output);
  source.start();
}

const urls = new Map();
function fill(audio, wave, start = false) {
  URL.revokeObjectURL(urls.get(audio));
  const url = URL.createObjectURL(new Blob([wavBytes(wave, about.spectrogram.sample_rate)], { type: 'audio/wav' }));
  urls.set(audio, url);
  audio.src = url;
  if (start) audio.play().catch(() => {}); // the browser may refuse a sound that nobody asked for
}

function save(bytes, name, type) {
  const url = URL.createObjectURL(new Blob([bytes], { type }));
  Object.assign(document.createElement('a'), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// ---- pictures ----

const specShape = () => [about.spectrogram.n_fft / 2, about.spectrogram.n_frames];

class Maps {
  /** Buttons for the maps of a note: tokens, and the spectrogram of the maps so far. */
  constructor(root) {
    this.root = root;
    this.buttons = about.scales.map(([h, w], k) => {
      const button = Object.assign(document.createElement('button'), { type: 'button', disabled: true });
      button.innerHTML = `<canvas role="img" aria-hidden="true"></canvas><canvas class="thumb" role="img" aria-hidden="true"></canvas><span>${h} × ${w}</span>`;
      button.setAttribute('aria-label', `Map ${k + 1}: ${h} by ${w} tokens. Play the note as it is after this map`);
      button.onclick = () => this.choose(k);
      return button;
    });
    root.replaceChildren(...this.buttons);
    this.start(null, {});
  }

  start(key, options) {
    Object.assign(this, { key, options });
    this.buttons.forEach((b, k) => {
      b.disabled = true;
      const [tokens, thumb] = b.querySelectorAll('canvas');
      clear(tokens, ...about.scales[k]);
      clear(thumb, 4, 4);
    });
  }

  tokens(k, tokens) {
    this.buttons.forEach((b, i) => b.classList.toggle('new', i === k));
    drawTokens(this.buttons[k].querySelector('canvas'), tokens, about.scales[k], about.colors);
  }

  spec(k, spec) {
    this.buttons[k].classList.remove('new');
    drawValues(this.buttons[k].querySelector('.thumb'), spec, ...specShape(), 4);
    this.buttons[k].disabled = false;
  }

  async fill(spec) {
    // the last map, then the coarser ones while nothing else waits
    const last = this.buttons.length - 1,
      key = this.key;
    this.spec(last, spec);
    for (let k = 0; k < last; k++) {
      const made = await jobs.run('coarse', { key, k }, {}, { urgency: 0, group: 'coarse' });
      if (key !== this.key || !made?.spec) return; // another note has taken its place
      this.spec(k, made.spec);
    }
  }

  async choose(k) {
    wake();
    const { seed, iterations } = this.options,
      made = await jobs.run('coarse', { key: this.key, k, sound: true, seed, iterations }, {}, { urgency: 3 });
    if (made?.wave) play(made.wave);
  }
}

// ---- the model ----

let about,
  jobs,
  piano,
  maps,
  ownMaps,
  current = null,
  backend = '';
const kept = new Map(),
  KEPT = 60; // notes that were generated

function labelsOf(form, pitch) {
  const labels = { pitch: pitch ?? +form.pitch.value, velocity: +form.velocity.value };
  for (const name of ['family', 'source']) if (form[name].value !== '') labels[name] = +form[name].value;
  return labels;
}

function optionsOf(form) {
  const options = { seed: Math.max(0, Math.floor(+form.seed.value || 0)) };
  for (const name of ['cfg_scale', 'top_k', 'temperature'])
    if (form[name].value !== '') options[name] = spread(about.sampling[name], +form[name].value);
  return options;
}

/** A value of a field; where the model's own setting is a list over the scales, the list scaled to this maximum. */
function spread(own, value) {
  if (!Array.isArray(own) || !(Math.max(...own) > 0)) return value;
  return own.map(v => (v * value) / Math.max(...own));
}

/** Generate a note: {tokens, spec, wave, ms, key}. The same request gives the note that is kept. */
async function note(labels, options, iterations = 64, on = {}, { keep = false, ...manner } = {}) {
  const key = JSON.stringify([labels, options, iterations]);
  if (!kept.has(key)) {
    const made = await jobs.run('generate', { key, labels, options, iterations, keep }, on, manner);
    if (!made) return null;
    kept.set(key, { ...made, key });
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(key);
}

const nameOf = ({ family, pitch, velocity }) =>
  [
    family === undefined ? 'note' : about.families[family],
    String(pitch).padStart(3, '0'),
    String(velocity).padStart(3, '0'),
  ].join('-');

async function generate() {
  const form = $('request'),
    labels = labelsOf(form),
    options = optionsOf(form),
    iterations = Math.max(0, Math.min(500, Math.floor(+form.iterations.value || 0)));
  const key = JSON.stringify([labels, options, iterations]);
  kept.delete(key); // shown anew, map by map
  wake();
  $('generate').disabled = true;
  maps.start(key, { ...options, iterations });
  $('said').textContent = 'Sampling ...';
  const begin = performance.now();
  try {
    const made = await note(
      labels,
      options,
      iterations,
      {
        map: ({ k, tokens }) => maps.tokens(k, tokens),
        spec: ({ spec }) => drawValues($('spectrogram'), spec, ...specShape()),
      },
      { urgency: 3, keep: true },
    );
    const name = labels.family === undefined ? 'a note' : plain(about.families[labels.family]);
    $('said').textContent =
      `Generated in ${seconds(performance.now() - begin)} s: tokens ${seconds(made.ms.tokens)} s, spectrogram ${seconds(made.ms.spectrogram)} s, sound ${seconds(made.ms.sound)} s.`;
    $('spectrogram').setAttribute(
      'aria-label',
      `Spectrogram of ${name}, ${noteName(labels.pitch)}, velocity ${labels.velocity}, seed ${options.seed}`,
    );
    current = { wave: made.wave, name: nameOf(labels) };
    $('save-wav').disabled = false;
    fill($('player'), made.wave, true);
    maps.fill(made.spec);
    marks();
  } catch (e) {
    $('said').textContent = `The note could not be generated: ${e.message}`;
  }
  $('generate').disabled = false;
}

// ---- keyboard ----

function request(pitch) {
  const form = $('request');
  return [labelsOf(form, pitch), optionsOf(form), Math.max(0, Math.min(500, Math.floor(+form.iterations.value || 0)))];
}

function marks() {
  for (const pitch of piano.pitches)
    piano.key(pitch).classList.toggle('ready', kept.has(JSON.stringify(request(pitch))));
}

function flash(pitch) {
  const key = piano.key(pitch);
  key?.classList.add('down');
  setTimeout(() => key?.classList.remove('down'), 400);
}

async function press(pitch) {
  wake();
  const key = piano.key(pitch),
    begin = performance.now();
  key.classList.add('busy');
  try {
    const made = await note(...request(pitch), {}, { urgency: 2, group: 'keys', replace: true });
    if (!made) return; // another key was pressed meanwhile
    play(made.wave);
    flash(pitch);
    $('played').textContent = `${noteName(pitch)} after ${seconds(performance.now() - begin)} s.`;
  } catch (e) {
    $('played').textContent = e.message;
  } finally {
    key.classList.remove('busy');
    marks();
  }
}

async function several(pitches, onDone) {
  // one after the other, so that a pressed key comes first
  const made = [];
  for (const pitch of pitches) {
    made.push({ pitch, ...(await note(...request(pitch), {}, { urgency: 1 })) });
    onDone(made.length / pitches.length);
    marks();
  }
  return made;
}

async function allKeys() {
  const button = $('all'),
    pitches = piano.pitches;
  button.disabled = true;
  try {
    await several(pitches, part => {
      $('played').textContent = `${Math.round(part * pitches.length)} of ${pitches.length} keys generated.`;
    });
  } catch (e) {
    $('played').textContent = e.message;
  }
  button.disabled = false;
}

async function saveInstrument(e) {
  e.preventDefault();
  const form = $('instrument'),
    bar = $('sfz-progress'),
    button = $('save-sfz'),
    labels = labelsOf($('request')),
    rate = about.spectrogram.sample_rate;
  const [low, high, step] = ['low', 'high', 'step'].map(n => Math.floor(+form[n].value)),
    pitches = [];
  for (let p = low; p <= high && step > 0; p += step) pitches.push(p);
  if (!pitches.length) return ($('played').textContent = `From ${low} to ${high} there is no note.`);
  Object.assign(bar, { hidden: false, value: 0 });
  button.disabled = true;
  try {
    const made = await several(pitches, part => {
        bar.value = part;
      }),
      folder = nameOf(labels).replace(/-\d+-\d+$/, '');
    const samples = made.map(({ pitch, wave }) => ({
      pitch,
      name: `samples/${folder}-${String(pitch).padStart(3, '0')}.wav`,
      wave,
    }));
    const files = {
      [`${folder}.sfz`]: sfzText(samples, [
        `${plain(folder)}, velocity ${labels.velocity}, seed ${optionsOf($('request')).seed}`,
      ]),
    };
    for (const s of samples) files[s.name] = wavBytes(s.wave, rate);
    save(zipBytes(files), `${folder}.zip`, 'application/zip');
    $('played').textContent = `${folder}.zip has ${samples.length} notes. Their pitches were not measured.`;
  } catch (error) {
    $('played').textContent = error.message;
  }
  bar.hidden = true;
  button.disabled = false;
}

// ---- a sound of one's own ----

async function read(file) {
  // -> mono samples at the model's rate
  const rate = about.spectrogram.sample_rate;
  if (file.size > 60e6) throw new Error('The file is larger than 60 MB.');
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, rate, rate).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is not a sound that this browser can read.`);
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i)),
    power = x => x.reduce((s, v) => s + v * v, 0);
  const mean = channels[0].map((_, i) => channels.reduce((s, c) => s + c[i], 0) / channels.length),
    powers = channels.map(power);
  return power(mean) >= 0.1 * Math.max(...powers) ? mean : channels[powers.indexOf(Math.max(...powers))];
}

async function own(file) {
  if (!file) return;
  const says = $('heard');
  says.textContent = `Reading ${file.name} ...`;
  try {
    const wave = await read(file),
      key = `own ${performance.now()}`;
    says.textContent = 'Encoding ...';
    ownMaps.start(key, { seed: 0, iterations: 64 });
    const made = await jobs.run(
      'encode',
      { key, wave, iterations: 64 },
      {
        prepared: ({ wave, spec }) => {
          $('own').hidden = false;
          fill($('own-player'), wave);
          drawValues($('own-spec'), spec, ...specShape());
        },
        image: ({ image }) => showChannels(image),
        map: ({ k, tokens }) => ownMaps.tokens(k, tokens),
        spec: ({ spec }) => drawValues($('own-recon'), spec, ...specShape()),
      },
      { urgency: 3 },
    );
    fill($('recon-player'), made.wave);
    ownMaps.fill(made.spec);
    const n = about.scales.reduce((s, [h, w]) => s + h * w, 0);
    says.textContent = `${file.name}: ${n} tokens of ${Math.round(Math.log2(about.codebook_size))} bits, ${Math.round((n * Math.log2(about.codebook_size)) / 8)} bytes for ${about.n_samples / about.spectrogram.sample_rate} s.`;
  } catch (e) {
    says.textContent = e.message;
  }
}

function showChannels(image) {
  const [C, H, W] = about.image;
  $('channels').replaceChildren(
    ...Array.from({ length: C }, (_, c) => {
      const figure = document.createElement('figure'),
        canvas = document.createElement('canvas');
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `Channel ${c + 1} of the CMX image`);
      drawValues(canvas, image.subarray(c * H * W, (c + 1) * H * W), H, W);
      figure.append(
        canvas,
        Object.assign(document.createElement('figcaption'), { textContent: `channel ${c + 1}: ${H} × ${W}` }),
      );
      return figure;
    }),
  );
}

// ---- start ----

function options(select, names, any) {
  select.replaceChildren(new Option(any, ''), ...names.map(([id, name]) => new Option(plain(name), id)));
}

function sourcesOf(family) {
  const known = family === '' ? null : about.trained.families?.[about.families[+family]];
  return about.sources.map((name, id) => [id, name]).filter(([, name]) => !known || known.includes(name));
}

function setSources() {
  const form = $('request'),
    list = sourcesOf(form.family.value),
    before = form.source.value;
  options(form.source, list, 'any');
  form.source.value = list.some(([id]) => String(id) === before) ? before : list.length ? list[0][0] : '';
}

function setForm() {
  const form = $('request'),
    [low, high] = about.trained.pitches ?? [21, 108],
    [soft, loud] = about.trained.velocities ?? [1, 127];
  const families = about.families
    .map((name, id) => [id, name])
    .filter(([, name]) => !about.trained.families || name in about.trained.families);
  options(form.family, families, 'any');
  form.family.value = (families.find(([, n]) => n === 'keyboard') ?? families[0])?.[0] ?? '';
  setSources();
  Object.assign(form.pitch, { min: low, max: high, value: 60 });
  Object.assign(form.velocity, { min: soft, max: loud, value: 100 });
  for (const name of ['cfg_scale', 'top_k', 'temperature']) {
    const value = about.sampling[name] ?? { cfg_scale: 0, top_k: 0, temperature: 1 }[name];
    form[name].value = Array.isArray(value) ? Math.max(...value) : value;
  }
  form.top_k.max = about.codebook_size;
  const small = $('instrument');
  Object.assign(small.low, { min: low, max: high, value: Math.max(low, 48) });
  Object.assign(small.high, { min: low, max: high, value: Math.min(high, 72) });
  showValues();
}

function showValues() {
  const form = $('request');
  $('pitch-name').textContent = noteName(+form.pitch.value);
  $('velocity-name').textContent = form.velocity.value;
  form.pitch.setAttribute('aria-valuetext', `${noteName(+form.pitch.value)}, MIDI ${form.pitch.value}`);
}

async function load() {
  $('load').hidden = true;
  $('progress').hidden = false;
  const total = backend === 'webgpu' ? about.bytes.webgpu : about.bytes.wasm;
  $('state').textContent = 'Loading ...';
  const wanted = new URLSearchParams(location.search).get('backend');
  try {
    const done = await jobs.run(
      'load',
      { backend: ['wasm', 'webgpu'].includes(wanted) ? wanted : 'auto' },
      {
        progress: ({ loaded }) => {
          $('progress').value = Math.min(1, loaded / total);
          $('state').textContent = `Loading: ${MB(loaded)} of ${MB(total)} MB`;
        },
        checking: () => {
          $('progress').removeAttribute('value');
          $('state').textContent = 'Checking the model with a first note ...';
        },
      },
    );
    backend = done.backend;
    const tokens = `${Math.round(100 * done.equal)} % of a test note's tokens are those of the Python package`;
    $('state').textContent =
      `Ready, by ${backend === 'webgpu' ? 'WebGPU' : 'WebAssembly'}${done.fallback ? ' (WebGPU was left: ' + done.fallback + ')' : ''}; ${tokens}.`;
    $('progress').hidden = true;
    $('tools').hidden = false;
    return done;
  } catch (e) {
    $('progress').hidden = true;
    $('load').hidden = false;
    $('state').textContent = `The model could not be loaded: ${e.message}`;
    throw e;
  }
}

function connect() {
  maps = new Maps($('maps'));
  ownMaps = new Maps($('own-maps'));
  const [low, high] = about.trained.pitches ?? [21, 108];
  piano = new Piano($('keys'), { low, high, press });
  piano.onshow = marks;
  clear($('spectrogram'), ...specShape());
  const rate = about.spectrogram.sample_rate;
  for (const e of document.querySelectorAll('.axes'))
    e.textContent = `0 to ${about.n_samples / rate} s, 0 to ${rate / 2000} kHz`;
  $('request').addEventListener('submit', e => {
    e.preventDefault();
    generate();
  });
  $('request').addEventListener('input', e => {
    if (e.target.name === 'family') setSources();
    showValues();
    marks();
  });
  $('dice').onclick = () => {
    const seed = $('request').seed;
    seed.value = (+seed.value || 0) + 1;
    marks();
  };
  $('save-wav').onclick = () => save(wavBytes(current.wave, rate), `${current.name}.wav`, 'audio/wav');
  $('down').onclick = () => piano.move(-12);
  $('up').onclick = () => piano.move(12);
  $('all').onclick = () => {
    wake();
    allKeys();
  };
  $('volume').oninput = () => {
    if (output) output.gain.value = +$('volume').value;
  };
  $('instrument').addEventListener('submit', saveInstrument);
  $('file').onchange = e => own(e.target.files[0]);
  const drop = $('drop');
  drop.addEventListener('dragover', e => {
    e.preventDefault();
    drop.classList.add('over');
  });
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', e => {
    e.preventDefault();
    drop.classList.remove('over');
    own(e.dataTransfer.files[0]);
  });
  marks();
}

async function main() {
  if (document.documentElement.dataset.unsupported) return;
  jobs = new Jobs();
  let cached;
  try {
    ({ about, cached } = await jobs.run('about', { base }));
  } catch (e) {
    $('loading').hidden = false;
    $('load').hidden = true;
    return ($('state').textContent = e.message);
  }
  for (const [name, href] of Object.entries(about.links ?? {}))
    for (const a of document.querySelectorAll(`[data-link="${name}"]`)) a.href = href;
  if (about.missing) {
    const place = $('support');
    place.textContent = about.missing;
    place.hidden = false;
    return;
  }
  about.colors = Uint8Array.from(atob(about.colors), c => c.charCodeAt(0));
  $('size').textContent = ` (${MB(about.bytes.wasm)} MB)`;
  $('loading').hidden = false;
  setForm();
  connect();
  let loading;
  const once = () =>
    (loading ??= load().catch(e => {
      loading = null;
      throw e;
    }));
  $('load').onclick = () => once().catch(() => {});
  // For the console: await mars.load(); (await mars.note({pitch: 60, family: 3}, {seed: 1})).tokens
  window.mars = {
    about,
    load: once,
    note: async (labels, options = {}, iterations = 64) => {
      await once();
      return note(labels, { seed: 0, ...options }, iterations);
    },
  };
  if (cached) once().catch(() => {});
}

main();
