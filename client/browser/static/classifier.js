// Classify photos in the browser: no photo leaves the device. `classifier.d.ts` says what there is.

const REFRESH_MS = 60_000;

/** What cannot be classified; `isPhoto` says whether the photo is the reason. */
export class ClassifierError extends Error {
  constructor(message, { isPhoto = false } = {}) {
    super(message);
    this.name = "ClassifierError";
    this.isPhoto = isPhoto;
  }
}

/** Load the model in a worker. */
export async function load({ onProgress = () => {} } = {}) {
  const classifier = new Classifier();
  try {
    await classifier.refresh({ onProgress });
    return classifier;
  } catch (error) {
    classifier.close();
    throw error;
  }
}

let loading = null;

/** Classify one photo; the first call loads the model. */
export async function classify(photo) {
  loading ??= load().catch((error) => { loading = null; throw error; });
  return (await loading).classify(photo);
}

class Classifier {
  #worker = new Worker(new URL("worker.js", import.meta.url));
  #calls = new Map();
  #lastId = 0;
  #refreshedMs = -Infinity;

  info = null;

  constructor() {
    this.#worker.addEventListener("message", ({ data }) => this.#receive(data));
    this.#worker.addEventListener("error", (event) => this.#fail(event.message || "The model's worker cannot be loaded."));
  }

  /** Take the newest version of the model, if it is another one. */
  async refresh({ onProgress = () => {} } = {}) {
    this.#refreshedMs = performance.now();
    this.info = await this.#call({ call: "load" }, onProgress);
    return this.info;
  }

  async classify(photo, { name = photo.name ?? "photo" } = {}) {
    const result = await this.#call({ call: "classify", photo, name });
    // A newer version is taken between photos; the one in use goes on where that fails.
    if (performance.now() - this.#refreshedMs > REFRESH_MS) this.refresh().catch((error) => console.warn(error.message));
    return result;
  }

  close() {
    this.#worker.terminate();
    this.#fail("The classifier is closed.");
  }

  #call(message, onProgress) {
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, ...message });
    });
  }

  #receive({ id, progress, result, error }) {
    const call = this.#calls.get(id);
    if (!call) return;
    if (progress) {
      call.onProgress?.(progress);
      return;
    }
    this.#calls.delete(id);
    if (error) call.reject(new ClassifierError(error.message, { isPhoto: error.kind === "PhotoError" }));
    else call.resolve(result);
  }

  #fail(message) {
    for (const { reject } of this.#calls.values()) reject(new ClassifierError(message));
    this.#calls.clear();
  }
}
