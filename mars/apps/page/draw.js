// Pictures on canvases: spectrograms, channels and token maps. Low frequencies are at the bottom.

const MAGMA = [
  [0, 0, 4],
  [28, 16, 68],
  [79, 18, 123],
  [129, 37, 129],
  [181, 54, 122],
  [229, 80, 100],
  [251, 135, 97],
  [254, 194, 135],
  [252, 253, 191],
];
const PALETTE = Uint8ClampedArray.from({ length: 256 * 3 }, (_, i) => {
  const x = (Math.floor(i / 3) / 255) * (MAGMA.length - 1),
    a = Math.min(Math.floor(x), MAGMA.length - 2);
  return MAGMA[a][i % 3] + (x - a) * (MAGMA[a + 1][i % 3] - MAGMA[a][i % 3]);
});

function paint(canvas, height, width, color) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d'),
    image = context.createImageData(width, height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = 4 * ((height - 1 - y) * width + x);
      image.data.set(color(y, x), at);
      image.data[at + 3] = 255;
    }
  context.putImageData(image, 0, 0);
}

/** Values in [-1, 1], rows from low to high frequency. `every` takes the maximum of that many rows, for small pictures. */
export function drawValues(canvas, values, height, width, every = 1) {
  paint(canvas, Math.floor(height / every), width, (y, x) => {
    let v = -1;
    for (let i = 0; i < every; i++) v = Math.max(v, values[(y * every + i) * width + x]);
    const at = 3 * Math.round(127.5 * (Math.max(-1, Math.min(1, v)) + 1));
    return PALETTE.subarray(at, at + 3);
  });
}

/** Tokens of a map (h*w), in the colours of their codes (3 bytes each). */
export function drawTokens(canvas, tokens, [h, w], colors) {
  paint(canvas, h, w, (y, x) => colors.subarray(3 * tokens[y * w + x], 3 * tokens[y * w + x] + 3));
}

export function clear(canvas, height, width) {
  paint(canvas, height, width, () => PALETTE.subarray(0, 3));
}
