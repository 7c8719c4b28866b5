// All computation, away from the interface: the model by onnxruntime-web, and the sound.
import { Files } from './load.js';
import { Model } from './model.js';
import { Spectrogram, prepare } from './spectrogram.js';

let files, model, spectrogram, about;
const notes = new Map(); // key -> running sums, for the coarse versions of the last notes
const KEPT = 2;

function remember(key, sums) {
  notes.delete(key);
  notes.set(key, sums);
  if (notes.size > KEPT) notes.delete(notes.keys().next().value);
}

const NAMES = {
  wasm: ['ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm.gz'],
  webgpu: ['ort.jspi.bundle.min.mjs', 'ort-wasm-simd-threaded.jspi.wasm.gz'],
};

async function webgpu() {
  // the runtime for WebGPU waits for the GPU by JavaScript Promise Integration
  try {
    return !!(globalThis.WebAssembly.Suspending && (await navigator.gpu?.requestAdapter()));
  } catch {
    return false;
  }
}

async function start(backend, onBytes) {
  const [script, binary] = NAMES[backend],
    wasmBinary = await files.get(`runtime/${binary}`, onBytes);
  const ort = await import(new URL(`runtime/${script}`, files.base));
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: 1, proxy: false });
  ort.env.logLevel = 'error';
  const opened = new Model(
    about,
    ort,
    name => files.get(`model/${name}`, onBytes),
    backend === 'webgpu' ? ['webgpu', 'wasm'] : ['wasm'],
  );
  await opened.open('generation');
  return opened;
}

async function check(opened) {
  // a note at temperature 0, compared with the tokens of the Python package: share that is equal
  const { tokens } = await opened.generate(about.check.labels, { temperature: 0 });
  const all = tokens.flatMap(t => [...t]);
  return all.filter((t, i) => t === about.check.tokens[i]).length / all.length;
}

const jobs = {
  async about({ base }) {
    const response = await fetch(base + 'model.json');
    if (!response.ok) throw new Error(`model.json could not be loaded (status ${response.status}).`);
    about = await response.json();
    if (about.missing) return { about };
    files = new Files(base, about.version);
    spectrogram = new Spectrogram(about.spectrogram, about.n_samples);
    const parts = backend => [
      `runtime/${NAMES[backend][1]}`,
      ...['labels', 'transformer', 'quantizer', 'decoder'].map(n => `model/${n}.onnx`),
    ];
    return { about, cached: (await files.has(parts('wasm'))) || (await files.has(parts('webgpu'))) };
  },

  async load({ backend }, send) {
    const wanted = backend === 'auto' ? ((await webgpu()) ? 'webgpu' : 'wasm') : backend;
    let loaded = 0,
      fallback = '';
    const onBytes = n => send('progress', { loaded: (loaded += n) });
    for (const name of wanted === 'webgpu' ? ['webgpu', 'wasm'] : ['wasm']) {
      try {
        const opened = await start(name, onBytes);
        send('checking', {});
        const equal = await check(opened);
        if (name === 'webgpu' && equal < 0.9)
          throw new Error(`only ${Math.round(100 * equal)} % of the tokens are those of the Python package`);
        model = opened;
        return { backend: name, equal, fallback };
      } catch (e) {
        if (name === 'wasm') throw e;
        fallback = e.message;
      }
    }
  },

  async generate({ key, labels, options, iterations, keep }, send) {
    const begin = performance.now();
    const { tokens, sums } = await model.generate(labels, options, (k, t) => send('map', { k, tokens: t }));
    if (keep) remember(key, sums);
    const sampled = performance.now(),
      spec = await model.decode(sums.at(-1));
    send('spec', { spec });
    const decoded = performance.now(),
      wave = spectrogram.decode(spec, { iterations, seed: options.seed });
    return {
      tokens,
      spec,
      wave,
      ms: { tokens: sampled - begin, spectrogram: decoded - sampled, sound: performance.now() - decoded },
    };
  },

  async coarse({ key, k, sound, seed, iterations }) {
    // the note as the first k+1 maps have it
    const sums = notes.get(key);
    if (!sums) return {};
    const spec = await model.decode(sums[k]);
    return { spec, wave: sound ? spectrogram.decode(spec, { iterations, seed }) : null };
  },

  async encode({ key, wave, iterations }, send) {
    const prepared = prepare(wave, about.spectrogram.sample_rate, about.n_samples),
      spec = spectrogram.encode(prepared);
    send('prepared', { wave: prepared, spec });
    await model.open('encoding');
    const { image, tokens } = await model.encode(spec);
    send('image', { image });
    tokens.forEach((t, k) => send('map', { k, tokens: t }));
    const sums = await model.sums(tokens),
      recon = await model.decode(sums.at(-1));
    remember(key, sums);
    send('spec', { spec: recon });
    return { tokens, spec: recon, wave: spectrogram.decode(recon, { iterations }) };
  },
};

let queue = Promise.resolve();
onmessage = ({ data: { id, job, ...args } }) => {
  const send = (type, content) => postMessage({ id, type, ...content });
  queue = queue.then(async () => {
    try {
      send('done', await jobs[job](args, send));
    } catch (e) {
      send('error', { message: e?.message || String(e) });
    }
  });
};
