// WAV files, SFZ instruments, and ZIP archives without compression.

/** Samples in [-1, 1] -> bytes of a 16-bit mono WAV file. */
export function wavBytes(wave, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length)),
    text = (at, s) => [...s].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, 'RIFF');
  view.setUint32(4, 36 + 2 * wave.length, true);
  text(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, 'data');
  view.setUint32(40, 2 * wave.length, true);
  wave.forEach((v, i) => view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(v * 32767))), true));
  return new Uint8Array(view.buffer);
}

/** An SFZ instrument of samples {pitch, name}, each played for the keys nearest to it. */
export function sfzText(samples, about = []) {
  const sorted = [...samples].sort((a, b) => a.pitch - b.pitch),
    middle = i => Math.floor((sorted[i].pitch + sorted[i + 1].pitch) / 2);
  const regions = sorted.map(({ pitch, name }, i) => {
    const low = i ? middle(i - 1) + 1 : 0,
      high = i + 1 < sorted.length ? middle(i) : 127;
    return `<region> sample=${name} lokey=${low} hikey=${high} pitch_keycenter=${pitch}`;
  });
  return [...about.map(line => `// ${line}`), '', '<group> ampeg_release=0.3 loop_mode=no_loop', ...regions, ''].join(
    '\n',
  );
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

export function crc32(bytes) {
  let c = 0xffffffff;
  for (const b of bytes) c = TABLE[(c ^ b) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

/** {name: bytes or string} -> bytes of a ZIP archive whose files are stored as they are. */
export function zipBytes(files) {
  const parts = [],
    directory = [];
  let offset = 0,
    size = 0;
  const entry = (signature, name, data, crc, more) => {
    // a local header, or with `more` one of the directory
    const view = new DataView(new ArrayBuffer((more ? 46 : 30) + name.length)),
      bytes = new Uint8Array(view.buffer);
    view.setUint32(0, signature, true);
    let at = 4;
    if (more) {
      view.setUint16(at, 20, true);
      at += 2;
    }
    view.setUint16(at, 20, true);
    view.setUint16(at + 2, 0x800, true); // names are UTF-8
    view.setUint16(at + 8, 0x21, true); // 1 January 1980
    view.setUint32(at + 10, crc, true);
    view.setUint32(at + 14, data.length, true);
    view.setUint32(at + 18, data.length, true);
    view.setUint16(at + 22, name.length, true);
    if (more) view.setUint32(42, offset, true);
    bytes.set(name, more ? 46 : 30);
    return bytes;
  };
  for (const [path, content] of Object.entries(files)) {
    const encode = s => new TextEncoder().encode(s),
      name = encode(path),
      data = typeof content === 'string' ? encode(content) : content,
      crc = crc32(data);
    directory.push(entry(0x02014b50, name, data, crc, true));
    const local = entry(0x04034b50, name, data, crc, false);
    parts.push(local, data);
    offset += local.length + data.length;
  }
  for (const d of directory) size += d.length;
  const end = new DataView(new ArrayBuffer(22)),
    n = directory.length;
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, n, true);
  end.setUint16(10, n, true);
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  const all = [...parts, ...directory, new Uint8Array(end.buffer)],
    out = new Uint8Array(all.reduce((s, p) => s + p.length, 0));
  let at = 0;
  for (const p of all) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}
