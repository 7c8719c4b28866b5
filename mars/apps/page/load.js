// Files of the page: fetched with progress, kept in the browser's cache, unpacked. Nothing is asked of another host.

async function openCache(prefix, version) {
  if (!globalThis.caches) return null; // only secure addresses have one
  try {
    for (const name of await caches.keys())
      if (name.startsWith(prefix) && name !== prefix + version) await caches.delete(name);
    return await caches.open(prefix + version);
  } catch {
    return null;
  } // blocked by a setting
}

async function readAll(response, onBytes) {
  const reader = response.body.getReader(),
    parts = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    onBytes(value.length);
  }
  return new Blob(parts);
}

/** The files of a folder: `loader(name)` gives an ArrayBuffer, `onBytes(n)` is called as they arrive. */
export class Files {
  constructor(base, version) {
    this.base = base;
    this.cache = openCache(`mars:${new URL(base).pathname}:`, version);
  }

  async has(names) {
    const cache = await this.cache;
    return !!cache && (await Promise.all(names.map(name => cache.match(this.base + name)))).every(Boolean);
  }

  async get(name, onBytes = () => {}) {
    const cache = await this.cache,
      url = this.base + name,
      kept = await cache?.match(url);
    const response = kept ?? (await fetch(url));
    if (!response.ok) throw new Error(`${name} could not be loaded (status ${response.status}).`);
    const blob = await readAll(response, onBytes);
    if (!kept)
      try {
        await cache?.put(url, new Response(blob));
      } catch {
        /* the cache is full */
      }
    const [a, b] = new Uint8Array(await blob.slice(0, 2).arrayBuffer()); // a server may have declared and so removed gzip
    if (!name.endsWith('.gz') || a !== 0x1f || b !== 0x8b) return blob.arrayBuffer();
    return new Response(blob.stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
  }
}
