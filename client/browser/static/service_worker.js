"use strict";
// Serve what was kept where there is no network. What is kept, and what is newer, `storage.js` and the page decide.

const CACHE = "on-device";
const OWN_FOLDER = new URL(".", self.location).pathname;

self.addEventListener("install", () => { self.skipWaiting(); });
self.addEventListener("activate", (event) => { event.waitUntil(self.clients.claim()); });

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  // The URL of such a file changes with its content.
  if (url.searchParams.has("v")) event.respondWith(takeKept(request));
  else if (url.href === self.registration.scope || url.pathname.startsWith(OWN_FOLDER)) event.respondWith(takeNewest(request));
});

async function takeKept(request) {
  const kept = await (await caches.open(CACHE)).match(request);
  return kept ?? takeNewest(request);
}

async function takeNewest(request) {
  const cache = await caches.open(CACHE);
  let response;
  try {
    response = await fetch(request);
  } catch (error) {
    const kept = await cache.match(request);
    if (kept) return kept;
    throw error;
  }
  // `storage.js` keeps these itself, once all are checked.
  if (response.ok && !/\.(wasm|tflite|json)$/.test(new URL(request.url).pathname)) await keep(cache, request, response.clone());
  return response;
}

async function keep(cache, request, response) {
  try {
    await cache.delete(request, { ignoreSearch: true }); // Its former content.
    await cache.put(request, response);
  } catch (error) {
    console.warn(`not kept: ${request.url} (${error.message})`); // No room; what was kept stays usable.
  }
}
