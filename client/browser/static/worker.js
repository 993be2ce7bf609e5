"use strict";
// A classic worker, because LiteRT's loader calls importScripts; the rest are modules. One call after the other.

const opening = import("./session.js");
let queue = Promise.resolve();

async function respond({ id, call, photo, name }) {
  try {
    const session = await opening;
    const result = call === "load"
      ? await session.load((progress) => postMessage({ id, progress }))
      : await session.classify(photo, name);
    postMessage({ id, result });
  } catch (error) {
    postMessage({ id, error: { kind: error.constructor.name, message: String(error.message ?? error) } });
  }
}

addEventListener("message", ({ data }) => { queue = queue.then(() => respond(data)); });
