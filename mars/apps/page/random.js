// The random numbers of the Python package: NumPy's SeedSequence and Philox for the tokens, the Mersenne Twister of
// PyTorch's CPU generator for the initial phases. A seed gives the same numbers in both.

const words = n => {
  // a whole number as 32-bit words, lowest first
  const out = [];
  for (let v = BigInt(n); v > 0n || !out.length; v >>= 32n) out.push(Number(v & 0xffffffffn));
  return out;
};

// ---- numpy.random.SeedSequence ----

const mix = (x, y) => {
  const r = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) >>> 0;
  return (r ^ (r >>> 16)) >>> 0;
};

function hasher(start, factor) {
  let constant = start;
  return value => {
    value = (value ^ constant) >>> 0;
    constant = Math.imul(constant, factor) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
}

/** `n` 32-bit words of SeedSequence(numbers).generate_state(n). */
export function seedState(numbers, n) {
  const entropy = numbers.flatMap(words),
    hash = hasher(0x43b0d7e5, 0x931e8875),
    pool = [];
  for (let i = 0; i < 4; i++) pool.push(hash(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  for (const word of entropy.slice(4)) for (let to = 0; to < 4; to++) pool[to] = mix(pool[to], hash(word));
  const out = hasher(0x8b51f9dd, 0x58f38ded);
  return Array.from({ length: n }, (_, i) => out(pool[i % 4]));
}

// ---- Philox 4x64, 10 rounds (Salmon et al. 2011) ----

const M64 = (1n << 64n) - 1n;

function philox(counter, key) {
  let [a, b, c, d] = counter,
    [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const p = 0xd2e7470ee14c6c93n * a,
      q = 0xca5a826395121157n * c;
    [a, b, c, d] = [(q >> 64n) ^ b ^ k0, q & M64, (p >> 64n) ^ d ^ k1, p & M64];
    k0 = (k0 + 0x9e3779b97f4a7c15n) & M64;
    k1 = (k1 + 0xbb67ae8584caa73bn) & M64;
  }
  return [a, b, c, d];
}

/** The uniform numbers in [0, 1) of note `index`, as `note_uniforms` of mars.parts.sampling. */
export function noteUniforms(seed, index, length) {
  const w = seedState([seed, index, 1], 4).map(BigInt),
    key = [w[0] | (w[1] << 32n), w[2] | (w[3] << 32n)];
  const out = new Float32Array(length);
  for (let i = 0, counter = 1n; i < length; counter++) {
    for (const word of philox([counter, 0n, 0n, 0n], key)) {
      if (i < length) out[i++] = Number((word & 0xffffffffn) >> 8n) / 2 ** 24;
      if (i < length) out[i++] = Number(word >> 40n) / 2 ** 24;
    }
  }
  return out;
}

// ---- Mersenne Twister (Matsumoto and Nishimura 1998) ----

function twister(seed) {
  const N = 624,
    state = new Uint32Array(N);
  state[0] = seed;
  for (let i = 1; i < N; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  let at = N;
  return () => {
    if (at === N) {
      for (let i = 0; i < N; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
        state[i] = state[(i + 397) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** Initial phases in cycles, `length` numbers in [0, 1), as `random_phases` of mars.stft. */
export function noteCycles(seed, index, length) {
  const next = twister(seedState([seed, index], 1)[0]),
    out = new Float32Array(length);
  for (let i = 0; i < length; i++) out[i] = (next() & 0xffffff) / 2 ** 24;
  return out;
}
