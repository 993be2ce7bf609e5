// Keep a page, so that it opens without a network.

import { CACHE } from "./storage.js";

/** Register the service worker, and keep the page with all that it has loaded; return whether that succeeded. */
export async function keepPage(scope) {
  if (!navigator.serviceWorker) return false; // Browsers have it on HTTPS and on this machine alone.
  try {
    await navigator.serviceWorker.register(new URL("service_worker.js", import.meta.url), { scope });
    await navigator.serviceWorker.ready;
    const loaded = performance.getEntriesByType("resource").map((entry) => new URL(entry.name))
      .filter((url) => url.origin === location.origin && isPart(url));
    const urls = new Set([new URL(scope, location).href, ...loaded.map((url) => url.href)]);
    await (await caches.open(CACHE)).addAll(Array.from(urls));
    return true;
  } catch (error) {
    console.warn(`the page is not kept: ${error.message}`);
    return false;
  }
}

const isPart = (url) => /\.(js|css|svg|jpg|webmanifest)$/.test(url.pathname);
