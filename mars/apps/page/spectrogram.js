// Waves and spectrograms, as mars.stft: short-time Fourier transform, log magnitudes in [-1, 1], and fast Griffin-Lim.
import { noteCycles } from './random.js';

/** Complex Fourier transform of a power of two, in place in (re, im): Stockham's algorithm with radix 4. */
export class FFT {
  constructor(n) {
    if (n < 4 || n & (n - 1)) throw new Error(`the length of a transform must be a power of two, got ${n}`);
    this.n = n;
    [this.bufferRe, this.bufferIm] = [new Float64Array(n), new Float64Array(n)];
    [this.cos, this.sin] = [Math.cos, Math.sin].map(f =>
      Float64Array.from({ length: n }, (_, i) => f((-2 * Math.PI * i) / n)),
    );
  }

  forward(re, im) {
    const { n, cos, sin } = this;
    let a = re,
      b = im,
      c = this.bufferRe,
      d = this.bufferIm,
      s = 1,
      size = n;
    for (; size >= 4; size >>= 2, s <<= 2) {
      const q1 = size >> 2,
        step = n / size;
      for (let p = 0; p < q1; p++) {
        const w1r = cos[p * step],
          w1i = sin[p * step],
          w2r = cos[2 * p * step],
          w2i = sin[2 * p * step],
          w3r = cos[3 * p * step],
          w3i = sin[3 * p * step];
        const i0 = s * p,
          i1 = s * (p + q1),
          i2 = s * (p + 2 * q1),
          i3 = s * (p + 3 * q1),
          o = 4 * s * p;
        for (let q = 0; q < s; q++) {
          const ar = a[i0 + q],
            ai = b[i0 + q],
            br = a[i1 + q],
            bi = b[i1 + q],
            cr = a[i2 + q],
            ci = b[i2 + q],
            dr = a[i3 + q],
            di = b[i3 + q];
          const pr = ar + cr,
            pi = ai + ci,
            mr = ar - cr,
            mi = ai - ci,
            sr = br + dr,
            si = bi + di,
            jr = di - bi,
            ji = br - dr;
          c[o + q] = pr + sr;
          d[o + q] = pi + si;
          const xr = mr - jr,
            xi = mi - ji,
            yr = pr - sr,
            yi = pi - si,
            zr = mr + jr,
            zi = mi + ji;
          c[o + s + q] = xr * w1r - xi * w1i;
          d[o + s + q] = xr * w1i + xi * w1r;
          c[o + 2 * s + q] = yr * w2r - yi * w2i;
          d[o + 2 * s + q] = yr * w2i + yi * w2r;
          c[o + 3 * s + q] = zr * w3r - zi * w3i;
          d[o + 3 * s + q] = zr * w3i + zi * w3r;
        }
      }
      [a, b, c, d] = [c, d, a, b];
    }
    if (size === 2) {
      for (let q = 0; q < s; q++) {
        const ar = a[q],
          ai = b[q],
          br = a[q + s],
          bi = b[q + s];
        c[q] = ar + br;
        d[q] = ai + bi;
        c[q + s] = ar - br;
        d[q + s] = ai - bi;
      }
      [a, b] = [c, d];
    }
    if (a !== re) {
      re.set(a);
      im.set(b);
    }
  }

  inverse(re, im) {
    // times n
    this.forward(im, re);
  }
}

export class Spectrogram {
  /** `config` is that of LogSpectrogram; n_samples the length of a wave. */
  constructor({ sample_rate, n_fft, hop_length, n_frames, floor }, nSamples) {
    Object.assign(this, {
      rate: sample_rate,
      n: n_fft,
      hop: hop_length,
      frames: n_frames,
      floor,
      nSamples,
      bins: n_fft / 2 + 1,
    });
    this.fft = new FFT(n_fft);
    this.window = Float64Array.from({ length: n_fft }, (_, i) =>
      Math.fround(0.5 - 0.5 * Math.cos((2 * Math.PI * i) / n_fft)),
    );
    [this.re, this.im] = [new Float64Array(n_fft), new Float64Array(n_fft)];
  }

  /** Frames (T*bins) of a wave of (T-1)*hop samples: {re, im}, row t the spectrum of frame t. */
  stft(wave, T, out = { re: new Float32Array(T * this.bins), im: new Float32Array(T * this.bins) }) {
    const { n, hop, bins, window, re, im } = this,
      N = (T - 1) * hop,
      half = n / 2;
    const padded = this.padded?.length === N + n ? this.padded : (this.padded = new Float64Array(N + n));
    padded.set(wave.subarray(0, N), half);
    for (let i = 1; i <= half; i++) {
      padded[half - i] = wave[i];
      padded[half + N - 1 + i] = wave[N - 1 - i];
    }
    for (let t = 0; t < T; t += 2) {
      // two real frames in one complex transform
      const a = t * hop,
        b = Math.min(t + 1, T - 1) * hop,
        second = t + 1 < T;
      for (let i = 0; i < n; i++) {
        re[i] = padded[a + i] * window[i];
        im[i] = second ? padded[b + i] * window[i] : 0;
      }
      this.fft.forward(re, im);
      const u = t * bins,
        v = u + bins;
      for (let k = 0; k < bins; k++) {
        const j = (n - k) & (n - 1),
          pr = re[k],
          pi = im[k],
          qr = re[j],
          qi = im[j];
        out.re[u + k] = 0.5 * (pr + qr);
        out.im[u + k] = 0.5 * (pi - qi);
        if (second) {
          out.re[v + k] = 0.5 * (pi + qi);
          out.im[v + k] = 0.5 * (qr - pr);
        }
      }
    }
    return out;
  }

  gain(T) {
    // one over the summed squares of the windows at each sample
    if (this.gains?.length === (T - 1) * this.hop) return this.gains;
    const { n, hop, window } = this,
      sum = new Float64Array((T - 1) * hop + n);
    for (let t = 0; t < T; t++) for (let i = 0; i < n; i++) sum[t * hop + i] += window[i] ** 2;
    return (this.gains = sum.subarray(n / 2, n / 2 + (T - 1) * hop).map(v => 1 / v));
  }

  istft(S, T) {
    const { n, hop, bins, window, re, im } = this,
      N = (T - 1) * hop,
      gain = this.gain(T),
      half = n / 2;
    const sum = this.sum?.length === N + n ? this.sum.fill(0) : (this.sum = new Float64Array(N + n));
    for (let t = 0; t < T; t += 2) {
      const u = t * bins,
        second = t + 1 < T,
        v = second ? u + bins : u;
      for (let k = 0; k < bins; k++) {
        const edge = k === 0 || k === half,
          ar = S.re[u + k],
          ai = edge ? 0 : S.im[u + k];
        const br = second ? S.re[v + k] : 0,
          bi = second && !edge ? S.im[v + k] : 0,
          j = (n - k) & (n - 1);
        re[k] = ar - bi;
        im[k] = ai + br;
        re[j] = ar + bi;
        im[j] = br - ai;
      }
      this.fft.inverse(re, im);
      for (let i = 0; i < n; i++) sum[t * hop + i] += (re[i] * window[i]) / n;
      if (second) for (let i = 0; i < n; i++) sum[(t + 1) * hop + i] += (im[i] * window[i]) / n;
    }
    const wave = new Float32Array(N);
    for (let i = 0; i < N; i++) wave[i] = sum[half + i] * gain[i];
    return wave;
  }

  /** Wave -> spectrogram (bins-1, frames) in [-1, 1], the rows bins from low to high. */
  encode(wave) {
    const T = this.frames,
      padded = new Float32Array((T - 1) * this.hop),
      spec = new Float32Array((this.bins - 1) * T);
    padded.set(wave.subarray(0, Math.min(this.nSamples, wave.length)));
    const { re, im } = this.stft(padded, T),
      scale = 2 / Math.log10(this.floor);
    for (let t = 0; t < T; t++)
      for (let k = 0; k < this.bins - 1; k++) {
        const i = t * this.bins + k,
          level = Math.hypot(re[i], im[i]) / (this.n / 2);
        spec[k * T + t] = level > this.floor ? 1 - scale * Math.log10(Math.min(level, 1)) : -1;
      }
    return spec;
  }

  magnitude(spec) {
    // -> (frames, bins), zero at the highest bin
    const T = this.frames,
      out = new Float32Array(T * this.bins);
    for (let k = 0; k < this.bins - 1; k++)
      for (let t = 0; t < T; t++) {
        const x = spec[k * T + t];
        if (x > -1) out[t * this.bins + k] = (this.floor ** ((1 - Math.min(x, 1)) / 2) * this.n) / 2;
      }
    return out;
  }

  /** Spectrogram -> wave (nSamples), |x| <= 1, by fast Griffin-Lim (Perraudin et al. 2013) from random phases. */
  decode(spec, { iterations = 64, seed = 0, index = 0, momentum = 0.99 } = {}) {
    const { bins, frames, hop, n } = this,
      M = this.magnitude(spec),
      cycles = noteCycles(seed, index, bins * frames);
    let last = frames - 1; // silent frames at the end stay silent
    while (last >= 0 && M.subarray(last * bins, (last + 1) * bins).every(v => v === 0)) last--;
    const T = Math.max(n / hop + 2, Math.min(frames, last + 2 + n / hop)),
      size = Math.min(T, frames) * bins,
      length = size / bins;
    const make = () => ({ re: new Float32Array(size), im: new Float32Array(size) });
    let S = make(),
      now = make(),
      before = make();
    for (let t = 0; t < length; t++)
      for (let k = 0; k < bins; k++) {
        const i = t * bins + k,
          angle = 2 * Math.PI * cycles[k * frames + t];
        S.re[i] = M[i] * Math.cos(angle);
        S.im[i] = M[i] * Math.sin(angle);
      }
    const alpha = momentum / (1 + momentum);
    for (let round = 0; round < iterations; round++) {
      this.stft(this.istft(S, length), length, now);
      for (let i = 0; i < size; i++) {
        const re = now.re[i] - alpha * before.re[i],
          im = now.im[i] - alpha * before.im[i],
          scale = M[i] / Math.sqrt(re * re + im * im + 1e-32);
        S.re[i] = re * scale;
        S.im[i] = im * scale;
      }
      [now, before] = [before, now];
    }
    const wave = new Float32Array(this.nSamples);
    wave.set(this.istft(S, length).subarray(0, this.nSamples));
    return finish(wave, this.rate);
  }
}

function finish(wave, rate) {
  // a short fade-in, and no peak above full scale
  const fade = Math.floor(rate / 1000);
  for (let i = 0; i < fade; i++) wave[i] *= Math.sin(((Math.PI / 2) * i) / fade) ** 2;
  const peak = peakOf(wave);
  return peak > 0.999 ? wave.map(v => (v * 0.999) / peak) : wave;
}

export function peakOf(wave) {
  let peak = 0;
  for (const v of wave) peak = Math.max(peak, Math.abs(v));
  return peak;
}

/** DC offset and silence in front removed, level set, cut or padded to n samples, as mars.parts.preparation. */
export function prepare(wave, rate, n) {
  let x = Float32Array.from(wave),
    peak = peakOf(x);
  if (!(peak >= 1e-5)) throw new Error('The sound is silent.');
  const sounding = v => Math.abs(v) > 1e-5 * peak,
    first = x.findIndex(sounding),
    end = x.findLastIndex(sounding) + 1;
  const dc = x.subarray(first, end).reduce((a, b) => a + b, 0) / (end - first);
  if (Math.abs(dc) > 0.02 * peak) {
    for (let i = first; i < end; i++) x[i] -= dc;
    peak = peakOf(x);
    if (peak < 1e-5) throw new Error('The sound is a constant.');
  }
  const noise = 2 * peakOf(x.subarray(0, Math.max(1, Math.floor(rate / 100))));
  const threshold = Math.min(Math.max(noise, peak * 10 ** (-50 / 20)), peak * 10 ** (-30 / 20));
  const start = x.findIndex(v => Math.abs(v) > threshold),
    onset = start > 0.03 * rate ? start - Math.floor(0.005 * rate) : 0;
  const out = new Float32Array(n);
  out.set(x.subarray(onset, onset + n));
  const level = peakOf(out) / 0.89;
  return level > 0.891 && level < 1.122 ? out : out.map(v => v / level);
}
