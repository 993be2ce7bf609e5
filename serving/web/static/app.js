// The page works without this script, as a plain form. With it each photo is shown at once and has a result of its own.

import { describe, percent } from "../device/words.js";

const SENDING_AT_ONCE = 2;
const MOST_TRIES = 12;
const MOST_BACKOFF_S = 16;
// Timers hold no more than 24 days.
const MOST_WAIT_S = 86_400;

const find = (id) => document.getElementById(id);
const form = find("form");
const maxPhotos = Number(form.dataset.maxPhotos);
const maxBytes = Number(form.dataset.maxBytes);
// A photo waits here, or is being sent, or is done: so it is never sent twice at once.
const waiting = [];
let numSending = 0;
// Until then nothing is sent: the service is busy, or gone, for all photos alike.
let restEndsMs = 0;
let restTimer;
// Where the model may run in this browser: `Device` of device.js.
let device = null;

const pause = (waitS) => new Promise((resolve) => { setTimeout(resolve, 1000 * waitS); });
// What a browser would not show, or what turns the text behind it around, is no part of a name.
const cleanName = (name) => name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "");
const announce = (text) => { find("announcer").textContent = text; };

function addPhotos(files) {
  const photos = Array.from(files);
  if (!photos.length) return;
  const taken = photos.slice(0, maxPhotos).map((file) => new Photo(file));
  find("results-section").hidden = false;
  find("results").prepend(...taken.map((photo) => photo.card));
  const left = photos.length - taken.length;
  find("left-out").hidden = !left;
  find("left-out").textContent = left ? `The first ${maxPhotos} photos are looked at; ${left} more ${left === 1 ? "is" : "are"} left out.` : "";
  announce(`${taken.length} ${taken.length === 1 ? "photo" : "photos"} added.`);
  taken.forEach((photo) => photo.start());
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  taken[0].card.scrollIntoView({ block: "nearest", behavior: isCalm ? "auto" : "smooth" });
}

// RFC 9110, 10.2.3: seconds, or a date, which is by the server's clock.
function readRetryAfter(value, date) {
  const seconds = /^\d+$/.test(value ?? "") ? Number(value) : (Date.parse(value) - (Date.parse(date) || Date.now())) / 1000;
  return seconds > 0 ? Math.min(seconds, MOST_WAIT_S) : 0;
}

// Never sooner than the service says, later with every try, and at random, or all who were refused would come back at once.
function chooseWait(leastS, numTries) {
  return Math.max(leastS, Math.min(2 ** (numTries - 1), MOST_BACKOFF_S)) * (1 + Math.random() / 2);
}

const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

function sendNext() {
  clearTimeout(restTimer);
  const restMs = restEndsMs - performance.now();
  if (restMs > 0) {
    restTimer = setTimeout(sendNext, restMs);
    return;
  }
  if (form.dataset.device && !device) return; // Not known yet whether the person chose to send nothing.
  while (numSending < SENDING_AT_ONCE && waiting.length) {
    numSending += 1;
    const photo = waiting.shift();
    if (device?.isChosen) photo.look();
    else photo.send();
  }
}

class Photo {
  constructor(file) {
    this.file = file;
    this.name = cleanName(file.name);
    this.numTries = 0;
    this.request = null;
    this.card = find("result-template").content.firstElementChild.cloneNode(true);
    const part = (selector) => this.card.querySelector(selector);
    [this.verdict, this.note, this.hint, this.progress, this.again, this.stop, this.bars, this.meta] =
      [".verdict", ".note", ".hint", "progress", ".again", ".stop", ".bars", ".meta"].map(part);
    this.barRow = this.bars.firstElementChild;
    this.bars.replaceChildren();
    part(".file bdi").textContent = this.name;
    this.again.setAttribute("aria-label", `Try again: ${this.name}`);
    this.stop.setAttribute("aria-label", `Cancel: ${this.name}`);
    this.progress.setAttribute("aria-label", `Progress of ${this.name}`);
    this.again.addEventListener("click", () => { this.numTries = 0; this.start(); this.stop.focus(); });
    this.stop.addEventListener("click", () => { this.cancel(); this.again.focus(); });
    const image = part("img");
    const url = URL.createObjectURL(file);
    image.alt = `Your photo ${this.name}`;
    image.addEventListener("load", () => URL.revokeObjectURL(url));
    image.addEventListener("error", () => { URL.revokeObjectURL(url); image.remove(); });
    image.src = url;
  }

  start() {
    if (this.file.size > maxBytes) {
      this.fail(`This photo is larger than ${maxBytes / 1e6} MB. Send a smaller copy.`);
      return;
    }
    this.wait();
  }

  wait(note = "") {
    this.show("busy", "Waiting…", note);
    waiting.push(this);
    sendNext();
  }

  cancel() {
    const position = waiting.indexOf(this);
    if (position >= 0) waiting.splice(position, 1);
    const request = this.request;
    this.request = null;
    request?.abort();
    this.fail("", { verdict: "Cancelled", canRetry: true });
  }

  send() {
    const request = new XMLHttpRequest();
    this.request = request;
    const body = new FormData();
    body.append("photo", this.file, this.file.name);
    request.open("POST", "/api/classify");
    const token = find("token");
    if (token) request.setRequestHeader("Authorization", `Bearer ${token.value.trim()}`);
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      this.progress.value = event.loaded / event.total;
      this.verdict.textContent = `Sending… ${Math.floor(100 * event.loaded / event.total)} %`;
    });
    request.upload.addEventListener("load", () => {
      this.progress.removeAttribute("value");
      this.verdict.textContent = "Looking…";
    });
    request.addEventListener("loadend", () => {
      this.receive(request).finally(() => {
        numSending -= 1;
        sendNext();
      });
    });
    this.show("busy", "Sending…");
    request.send(body);
  }

  // On this device: nothing is sent.
  async look() {
    this.show("busy", "Looking…");
    const request = { abort() {} };
    this.request = request;
    const outcome = await device.classify(this.file, this.name).then((result) => () => this.succeed(result),
      (error) => () => this.fail(error.message, { canRetry: !error.isPhoto }));
    if (this.request === request) { // Else it was cancelled.
      this.request = null;
      outcome();
    }
    numSending -= 1;
    sendNext();
  }

  async receive(request) {
    // A file that went, or changed, since it was chosen cannot be sent, which looks like a service that is gone.
    const isGone = request.status === 0 && this.request === request && !await isReadable(this.file);
    if (this.request !== request) return; // Cancelled.
    this.request = null;
    if (isGone) {
      this.fail("This file cannot be read any more: it was changed, moved or deleted. Choose it again.");
      return;
    }
    let response = {};
    try {
      response = JSON.parse(request.responseText);
    } catch {
      // Nothing arrived, or a proxy responded.
    }
    const result = response.results?.[0];
    if (result?.label !== undefined) this.succeed(result);
    else if (result) this.fail(result.error);
    else if ([0, 429, 502, 503, 504].includes(request.status)) this.retryLater(request, response.error);
    else {
      this.fail(response.error ?? "The photo cannot be looked at.", { canRetry: true });
      if (request.status === 401) find("token")?.focus();
    }
  }

  retryLater(request, error) {
    const reason = error ?? "This page's service cannot be reached. Nothing is wrong with the photo.";
    if (request.status !== 429) watchModel();
    this.numTries += 1;
    const leastS = readRetryAfter(request.getResponseHeader("Retry-After"), request.getResponseHeader("Date"));
    const waitS = chooseWait(leastS, this.numTries);
    restEndsMs = Math.max(restEndsMs, performance.now() + 1000 * waitS);
    if (this.numTries >= MOST_TRIES) {
      this.fail(`${reason} Try again later.`, { canRetry: true });
      return;
    }
    const shown = waitS < 120 ? `${Math.ceil(waitS)}\u00a0s` : `${Math.ceil(waitS / 60)}\u00a0minutes`;
    this.wait(`${reason} It is sent again by itself in ${shown}.`);
  }

  succeed(result) {
    const { state, verdict, share = "", note = "", hint = "", said } = describe(result, form.dataset.coverage);
    this.show(state, verdict, note, hint);
    if (share) {
      const written = document.createElement("span");
      written.className = "share";
      written.textContent = share;
      this.verdict.append(" ", written);
    }
    this.bars.replaceChildren(...Object.entries(result.probabilities).map(([label, probability]) => {
      const row = this.barRow.cloneNode(true);
      row.querySelector(".label").textContent = label;
      row.querySelector(".share").textContent = percent(probability);
      row.querySelector("rect").setAttribute("width", `${(100 * probability).toFixed(1)}%`);
      return row;
    }));
    this.meta.textContent = `Model version ${result.model_version || "unknown"}, ${Math.round(result.latency_ms)} ms`;
    announce(`${this.name}: ${said}`);
  }

  fail(reason, { verdict = "No answer", canRetry = false } = {}) {
    this.show("failed", verdict, reason);
    this.again.hidden = !canRetry;
    announce(`${this.name}: ${reason || verdict}`);
  }

  show(state, verdict, note = "", hint = "") {
    this.card.dataset.state = state;
    this.card.classList.remove("busy", "sure", "unsure", "refused", "failed");
    this.card.classList.add(state);
    this.progress.hidden = this.stop.hidden = state !== "busy";
    this.again.hidden = true;
    this.progress.removeAttribute("value");
    this.verdict.textContent = verdict;
    this.note.textContent = note;
    this.hint.textContent = hint;
  }
}

let isWatching = false;

async function watchModel() {
  if (isWatching) return;
  isWatching = true;
  for (let numTries = 1; ; numTries += 1) {
    const response = await fetch("/readyz").catch(() => null);
    find("model-gone").hidden = Boolean(response?.ok);
    if (response?.ok) break;
    await pause(chooseWait(readRetryAfter(response?.headers.get("Retry-After"), response?.headers.get("Date")), numTries));
  }
  isWatching = false;
}

async function addSample(button) {
  const response = await fetch(button.querySelector("img").src).catch(() => null);
  if (response?.ok) addPhotos([new File([await response.blob()], button.value, { type: "image/jpeg" })]);
  else announce("The sample cannot be fetched.");
}

function listen() {
  document.documentElement.classList.add("js");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    form.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) form.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    form.classList.remove("over");
    addPhotos(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => addPhotos(event.clipboardData?.files ?? []));
  for (const input of [find("files"), find("camera")]) {
    input.addEventListener("change", () => { addPhotos(input.files); input.value = ""; });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.submitter?.name === "sample") addSample(event.submitter);
  });
  if (!find("model-gone").hidden) watchModel();
}

listen();

if (form.dataset.device) {
  try {
    const { Device } = await import(form.dataset.device);
    device = new Device(() => { restEndsMs = 0; sendNext(); });
  } catch (error) {
    device = { isChosen: false };
    find("device-note").textContent = `Looking on this device is not possible now. ${error.message}`;
    find("on-device").disabled = true;
  }
  sendNext();
}
