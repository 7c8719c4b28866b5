// node --test tests/page   (tests/test_browser.py runs it, and gives the numbers of the Python package in KNOWN)
import test from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
const page = new URL('../../mars/apps/page/', import.meta.url);
const { noteCycles, noteUniforms, seedState } = await import(new URL('random.js', page));
const { greatest, sampleMap, scaleSettings } = await import(new URL('sampling.js', page));
const { FFT, Spectrogram, prepare } = await import(new URL('spectrogram.js', page));
const { crc32, sfzText, wavBytes, zipBytes } = await import(new URL('files.js', page));

const known = JSON.parse(readFileSync(process.env.KNOWN));
const close = (a, b, eps) => { assert.equal(a.length, b.length); a.forEach((v, i) => assert.ok(Math.abs(v - b[i]) <= eps, `${i}: ${v} and ${b[i]}`)); };

test('seed sequence', () => { for (const { numbers, words } of known.seeds) assert.deepEqual(seedState(numbers, words.length), words); });
test('uniform numbers', () => { for (const { seed, index, values } of known.uniforms) assert.deepEqual([...noteUniforms(seed, index, values.length)], values); });
test('initial phases', () => { for (const { seed, index, values } of known.cycles) assert.deepEqual([...noteCycles(seed, index, values.length)], values); });

test('transform of every size', () => {
  for (const n of [4, 8, 16, 128, 1024]) {
    const re = Float64Array.from({ length: n }, (_, i) => Math.sin(i*i)), im = re.map((_, i) => Math.cos(3*i)), [a, b] = [re.slice(), im.slice()], fft = new FFT(n);
    fft.forward(a, b);
    const k = 3;  // one bin by definition
    let sr = 0, si = 0;
    for (let i = 0; i < n; i++) { const c = Math.cos(2*Math.PI*k*i/n), s = -Math.sin(2*Math.PI*k*i/n); sr += re[i]*c - im[i]*s; si += re[i]*s + im[i]*c; }
    close([a[k], b[k]], [sr, si], 1e-9*n);
    fft.inverse(a, b);
    close([...a].map(v => v/n), [...re], 1e-12*n);
    close([...b].map(v => v/n), [...im], 1e-12*n);
  }
  assert.throws(() => new FFT(1000), /power of two, got 1000/);
});

test('spectrogram of a wave', () => {
  const { config, n_samples, wave, spec, sound } = known.spectrogram, ls = new Spectrogram(config, n_samples);
  close([...ls.encode(Float32Array.from(wave))], spec, 1e-3);
  const back = ls.decode(Float32Array.from(spec), { iterations: 1, seed: 5 });
  close([...back], sound, 2e-4);
});

test('Griffin-Lim reaches the magnitude', () => {
  const { config, n_samples, spec } = known.spectrogram, ls = new Spectrogram(config, n_samples);
  const distance = iterations => { const back = ls.encode(ls.decode(Float32Array.from(spec), { iterations })); return back.reduce((s, v, i) => s + (v - spec[i])**2, 0)/spec.length; };
  assert.ok(distance(64) < .5*distance(0));
});

test('tokens', () => {
  for (const { logits, V, u, settings, tokens } of known.samples) {
    const [s] = scaleSettings(1, settings);
    assert.deepEqual([...sampleMap(Float32Array.from(logits), Float32Array.from(u), s)], tokens, JSON.stringify(settings));
  }
  assert.throws(() => sampleMap(Float32Array.of(NaN, NaN), Float32Array.of(0), { temperature: 1 }), /not finite/);
});

test('greatest values and settings of the scales', () => {
  const row = Float32Array.from({ length: 300 }, (_, i) => (i*7919) % 301);
  for (const k of [1, 5, 64, 65, 300]) assert.deepEqual([...greatest(row, k)], [...row].sort((a, b) => b - a).slice(0, k));
  assert.deepEqual(scaleSettings(3, { cfg_scale: 2 }).map(s => s.guidance), [0, 1, 2]);
  assert.deepEqual(scaleSettings(3, { cfg_scale: [1, 5, 2] }).map(s => s.guidance), [1, 5, 2]);
});

test('preparation', () => {
  for (const { wave, rate, prepared } of known.prepared) close([...prepare(Float32Array.from(wave), rate, prepared.length)], prepared, 1e-6);
  assert.throws(() => prepare(new Float32Array(100), 16000, 100), /silent/);
});

test('files', () => {
  assert.equal(crc32(new TextEncoder().encode('123456789')), 0xcbf43926);
  const wav = wavBytes(Float32Array.of(0, 1, -1, 2), 16000), view = new DataView(wav.buffer);
  assert.deepEqual([wav.length, view.getUint32(24, true), view.getInt16(46, true), view.getInt16(48, true), view.getInt16(50, true)], [52, 16000, 32767, -32767, 32767]);
  const sfz = sfzText([{ pitch: 63, name: 'b.wav' }, { pitch: 60, name: 'a.wav' }], ['note']);
  assert.match(sfz, /^\/\/ note\n[^]*sample=a.wav lokey=0 hikey=61 pitch_keycenter=60\n.*sample=b.wav lokey=62 hikey=127 pitch_keycenter=63\n$/);
  process.stdout.write(`ZIP ${Buffer.from(zipBytes({ 'a.sfz': sfz, 'samples/ü.wav': wav })).toString('base64')}\n`);
});
