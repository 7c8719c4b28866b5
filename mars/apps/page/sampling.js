// Tokens from logits, as mars.parts.sampling does it: temperature, top-k, top-p, and the inverse of the cumulative
// distribution at a given uniform number. Float32 is rounded where PyTorch rounds it.

const f32 = Math.fround;

/** Guidance, temperature, top-k and top-p of each of K scales. A list sets a value for each scale. */
export function scaleSettings(K, { cfg_scale = 0, cfg_ramp = true, temperature = 1, top_k = 0, top_p = 0 } = {}) {
  const each = v => (Array.isArray(v) ? v : Array(K).fill(v ?? 0));
  let guidance = each(cfg_scale);
  if (cfg_ramp && !Array.isArray(cfg_scale) && K > 1) guidance = guidance.map((s, k) => (s * k) / (K - 1));
  const [temperatures, ks, ps] = [temperature, top_k, top_p].map(each);
  return guidance.map((s, k) => ({ guidance: s, temperature: temperatures[k], topK: ks[k], topP: ps[k] }));
}

/** The k greatest values of a row, greatest first. */
export function greatest(row, k) {
  if (k >= row.length || k > 64) return Float32Array.from(row).sort().reverse().subarray(0, k);
  const best = new Float32Array(k).fill(-Infinity);
  for (const v of row) {
    if (v <= best[k - 1]) continue;
    let i = k - 1;
    for (; i > 0 && best[i - 1] < v; i--) best[i] = best[i - 1];
    best[i] = v;
  }
  return best;
}

function smallestKept(row, topK, topP) {
  const nucleus = topP > 0 && topP < 1;
  if (!topK && !nucleus) return -Infinity;
  const best = greatest(row, topK || row.length);
  if (!nucleus) return best[best.length - 1];
  const p = Array.from(best, v => Math.exp(v - best[0])),
    total = p.reduce((a, b) => a + b, 0);
  let count = 0;
  for (let sum = 0; count < best.length && sum < topP; count++) sum += p[count] / total;
  return best[Math.max(count, 1) - 1];
}

function argmax(row) {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
}

const bits = new DataView(new ArrayBuffer(4));
function below(x) {
  // the next smaller positive float32
  bits.setFloat32(0, x);
  bits.setUint32(0, bits.getUint32(0) - 1);
  return bits.getFloat32(0);
}

function sampleRow(logits, u, { temperature, topK, topP }) {
  const top = logits[argmax(logits)];
  if (!Number.isFinite(top)) throw new Error('the logits of the model are not finite');
  if (temperature === 0) return argmax(logits);
  const row = temperature === 1 ? logits : logits.map(v => f32(v - top) / Math.max(temperature, 1e-38));
  const smallest = smallestKept(row, topK, topP),
    cdf = new Float32Array(row.length),
    peak = row[argmax(row)];
  let total = 0,
    sum = 0;
  for (let i = 0; i < row.length; i++) total += cdf[i] = row[i] < smallest ? 0 : Math.exp(f32(row[i] - peak));
  for (let i = 0; i < row.length; i++) cdf[i] = sum += f32(cdf[i] / total);
  const end = cdf[row.length - 1],
    target = Math.min(f32(u * end), below(end));
  let low = 0,
    high = row.length - 1;
  while (low < high) {
    // the first code whose cumulative probability is above the target
    const middle = (low + high) >> 1;
    if (cdf[middle] > target) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Tokens of a map: logits (n*V), uniform numbers (n) and the settings of its scale -> Int32Array (n). */
export function sampleMap(logits, uniforms, settings) {
  const n = uniforms.length,
    V = logits.length / n;
  return Int32Array.from({ length: n }, (_, i) =>
    sampleRow(logits.subarray(i * V, (i + 1) * V), uniforms[i], settings),
  );
}
