// The model: five ONNX graphs, and the loop over the scales as in VAR.generate.
import { noteUniforms } from './random.js';
import { sampleMap, scaleSettings } from './sampling.js';

const GRAPHS = { generation: ['labels', 'transformer', 'quantizer', 'decoder'], encoding: ['encoder'] };

export class Model {
  /** `about` is model.json, `ort` onnxruntime-web, `load(name)` gives the bytes of a graph. */
  constructor(about, ort, load, providers = ['wasm']) {
    Object.assign(this, { about, ort, load, providers, sessions: {} });
    this.lengths = about.scales.map(([h, w]) => h * w);
    this.starts = this.lengths.map((_, k) => this.lengths.slice(0, k).reduce((a, b) => a + b, 0));
  }

  async open(kind) {
    for (const name of GRAPHS[kind]) {
      this.sessions[name] ??= await this.ort.InferenceSession.create(new Uint8Array(await this.load(`${name}.onnx`)), {
        executionProviders: this.providers,
        graphOptimizationLevel: 'all',
        logSeverityLevel: 3,
      });
    }
  }

  async run(name, inputs) {
    return this.sessions[name].run(inputs);
  }
  floats(data, shape) {
    return new this.ort.Tensor('float32', data, shape);
  }
  ints(data, shape) {
    return new this.ort.Tensor('int64', BigInt64Array.from(data, BigInt), shape);
  }
  positions(k) {
    const n = this.lengths[k];
    return this.ints(
      Array.from({ length: n }, (_, i) => this.starts[k] + i),
      [n],
    );
  }
  /** The first half of a tensor along an axis. */
  firstHalf({ data, dims }, axis) {
    const size = dims.slice(axis).reduce((a, b) => a * b, 1),
      half = new Float32Array(data.length / 2);
    for (let i = 0; i < data.length; i += size) half.set(data.subarray(i, i + size / 2), i / 2);
    return this.floats(
      half,
      dims.map((n, i) => (i === axis ? n / 2 : n)),
    );
  }
  emptySum() {
    const {
      code_dim,
      latent: [h, w],
    } = this.about;
    return this.floats(new Float32Array(code_dim * h * w), [1, code_dim, h, w]);
  }

  /** Add the tokens of scale k to the running sum: {sum, next}, the latter the input of the next pass. */
  async add(k, tokens, sum) {
    const last = this.lengths.length - 1;
    return this.run('quantizer', {
      tokens: this.ints(tokens, [1, tokens.length]),
      positions: this.positions(k),
      total: sum,
      following: this.positions(Math.min(k + 1, last)),
    });
  }

  /**
   * Sample a note. `labels` holds ids, what is missing is no label; `onMap(k, tokens, sum)` is called after each scale.
   * Returns {tokens, sums}: K Int32Arrays, and the running sum after each scale.
   */
  async generate(labels, { seed = 0, index = 0, ...settings } = {}, onMap = () => {}) {
    const { about, lengths } = this,
      K = lengths.length,
      names = Object.keys(about.labels),
      D = about.width;
    const scales = scaleSettings(K, { ...about.sampling, ...settings }),
      guided = scales.some(s => s.guidance > 0);
    let N = guided ? 2 : 1;
    const uniforms = noteUniforms(seed, index, this.starts[K - 1] + lengths[K - 1]);
    const row = names.map(name => labels[name] ?? -1),
      rows = guided ? [...row, ...row.map(() => -1)] : row;
    let { x, blocks, last } = await this.run('labels', { labels: this.ints(rows, [N, names.length]) });
    let past = this.floats(new Float32Array(0), [about.depth, 2, N, about.heads, 0, D / about.heads]),
      sum = this.emptySum();
    const tokens = [],
      sums = [];
    for (let k = 0; k < K; k++) {
      const s = scales[k].guidance;
      if (N === 2 && !scales.slice(k).some(s => s.guidance > 0)) {
        // no guidance any more: drop the half without labels
        [x, blocks, last, past] = [
          this.firstHalf(x, 0),
          this.firstHalf(blocks, 2),
          this.firstHalf(last, 1),
          this.firstHalf(past, 2),
        ];
        N = 1;
      }
      const mix = this.floats(Float32Array.from(N === 2 ? [1 + s, -s] : [1]), [1, N]);
      const pass = await this.run('transformer', { x, positions: this.positions(k), blocks, last, mix, past });
      past = pass.present;
      tokens.push(
        sampleMap(pass.logits.data, uniforms.subarray(this.starts[k], this.starts[k] + lengths[k]), scales[k]),
      );
      const step = await this.add(k, tokens[k], sum);
      sums.push((sum = step.sum));
      onMap(k, tokens[k]);
      if (k + 1 === K) break;
      const next = step.next.data,
        both = new Float32Array(N * next.length);
      for (let i = 0; i < N; i++) both.set(next, i * next.length);
      x = this.floats(both, [N, lengths[k + 1], D]);
    }
    return { tokens, sums };
  }

  /** A running sum -> spectrogram (bins*frames). */
  async decode(sum) {
    return (await this.run('decoder', { total: sum })).spec.data;
  }

  /** A spectrogram -> {image, tokens}: the CMX image, and K Int32Arrays. */
  async encode(spec) {
    const { n_fft, n_frames } = this.about.spectrogram;
    const out = await this.run('encoder', { spec: this.floats(spec, [1, 1, n_fft / 2, n_frames]) });
    const all = Int32Array.from(out.tokens.data, Number);
    return { image: out.image.data, tokens: this.lengths.map((n, k) => all.slice(this.starts[k], this.starts[k] + n)) };
  }

  /** K token maps -> the running sums after each scale. */
  async sums(tokens) {
    const sums = [];
    for (let k = 0; k < tokens.length; k++)
      sums.push((await this.add(k, tokens[k], sums[k - 1] ?? this.emptySum())).sum);
    return sums;
  }
}
