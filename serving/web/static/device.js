// The choice to look at photos in this browser: load the model, say how far that is, and remember the choice.

const CHOICE = "on-device";

const find = (id) => document.getElementById(id);
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

export class Device {
  #box = find("on-device");
  #note = find("device-note");
  #progress = find("device-progress");
  #loading = null;

  /** `onChange` is called when the person chooses otherwise. */
  constructor(onChange) {
    this.#box.checked = remember() === "yes";
    if (this.#box.checked) this.#load().catch(() => {});
    this.#box.addEventListener("change", () => {
      remember(this.#box.checked ? "yes" : "no");
      if (this.#box.checked) this.#load().catch(() => {});
      else this.#note.textContent = "Photos are sent to this page's server.";
      onChange();
    });
  }

  get isChosen() { return this.#box.checked; }

  /** Classify a photo, once the model is loaded. */
  async classify(file, name) {
    return (await this.#load()).classify(file, { name });
  }

  #load() {
    this.#loading ??= this.#open();
    return this.#loading;
  }

  async #open() {
    this.#note.textContent = "The model is loading…";
    try {
      const [{ load }, { keepPage }] = await Promise.all([import("../device/classifier.js"), import("../device/offline.js")]);
      const classifier = await load({ onProgress: ({ loadedBytes, totalBytes }) => {
        this.#progress.hidden = false;
        this.#progress.value = loadedBytes / totalBytes;
        this.#note.textContent = `The model is loading… ${megabytes(loadedBytes)} of ${megabytes(totalBytes)} MB`;
      } });
      const isKept = classifier.info.isOffline && await keepPage("/");
      this.#note.textContent = `Photos do not leave this device. ${isKept ? "This works without a network from now on."
        : "This browser does not keep the model for when there is no network."}`;
      return classifier;
    } catch (error) {
      this.#loading = null; // The next photo tries again.
      this.#note.textContent = `The model cannot be loaded here. ${error.message}`;
      throw error;
    } finally {
      this.#progress.hidden = true;
    }
  }
}

function remember(choice) {
  try {
    if (choice) localStorage.setItem(CHOICE, choice);
    return localStorage.getItem(CHOICE);
  } catch {
    return null; // Forbidden, as in some private windows: the choice lasts as long as the page.
  }
}
