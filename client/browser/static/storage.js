// Fetch what the model needs, keep it in the browser, and take it from there when the network is gone.

/** Where all is kept; the service worker reads it, too. */
export const CACHE = "on-device";

/** Fetch the text of a file that may have changed; without a network that of the copy that was kept. */
export async function fetchNewest(url) {
  try {
    const response = await fetch(url, { cache: "no-cache" });
    if (!response.ok) throw new Error(`${url} must be there. The host says ${response.status}.`);
    return await response.text();
  } catch (error) {
    const kept = await (await openCache())?.match(url);
    if (kept) return kept.text();
    throw error;
  }
}

/**
 * Fetch a file whose URL changes with its content, once, and check it.
 *
 * `file` has `url`, `size_bytes` and `sha256`; `onBytes` is called with the number of bytes that arrived since the last call.
 * Returns the bytes, and whether they are kept for when there is no network.
 */
export async function fetchOnce({ url, size_bytes: size, sha256 }, base, onBytes) {
  const address = new URL(url, base).href;
  const cache = await openCache();
  const kept = await cache?.match(address);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    onBytes(bytes.length);
    return { bytes, isKept: true };
  }
  const bytes = await download(address, size, onBytes);
  await check(bytes, sha256, address);
  return { bytes, isKept: await keep(address, bytes) };
}

/** Keep the content of a file; return whether that succeeded. */
export async function keep(url, content) {
  const cache = await openCache();
  try {
    await cache?.put(url, new Response(content));
    return Boolean(cache);
  } catch {
    return false; // No room.
  }
}

/** Forget models and runtimes below `base` that are no longer needed. */
export async function forgetOthers(urls, base) {
  const needed = urls.map((url) => new URL(url, base).href);
  const cache = await openCache();
  for (const { url } of (await cache?.keys()) ?? []) {
    if (url.startsWith(base.href) && /\.(tflite|wasm)\?/.test(url) && !needed.includes(url)) await cache.delete(url);
  }
}

/** Keep small files, or their newest content; return whether that succeeded. */
export async function keepFiles(urls, base) {
  const cache = await openCache();
  try {
    await cache?.addAll(urls.map((url) => new Request(new URL(url, base), { cache: "no-cache" })));
    return Boolean(cache);
  } catch {
    return false;
  }
}

// Browsers have it on HTTPS and on this machine alone.
async function openCache() {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch {
    return undefined; // Forbidden, as in some private windows.
  }
}

async function download(address, size, onBytes) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} must be there. The host says ${response.status}.`);
  const bytes = new Uint8Array(size);
  const reader = response.body.getReader();
  let position = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (position + value.length > size) throw new Error(`${address} must have ${size} bytes, and has more. Load the page again.`);
    bytes.set(value, position);
    position += value.length;
    onBytes(value.length);
  }
  if (position < size) throw new Error(`${address} must have ${size} bytes. Received: ${position}. Load the page again.`);
  return bytes;
}

async function check(bytes, sha256, address) {
  if (!globalThis.crypto?.subtle) return; // As `caches`. Without HTTPS nothing vouches for the checksum either.
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) throw new Error(`${address} must have the checksum ${sha256}. Received: ${found}. Load the page again.`);
}

