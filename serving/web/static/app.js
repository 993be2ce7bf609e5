"use strict";
// The page works without this script, as a plain form. With it each photo is shown at once and has a result of its own.

const SENDING_AT_ONCE = 2;
const MOST_TRIES = 12;
const RETRY_S = 3;
const POLL_MS = 2000;

const find = (id) => document.getElementById(id);
const form = find("form");
const maxPhotos = Number(form.dataset.maxPhotos);
const maxBytes = Number(form.dataset.maxBytes);
const waiting = [];
const later = new Set();
let numSending = 0;

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const announce = (text) => { find("announcer").textContent = text; };

function addPhotos(files) {
  const photos = Array.from(files);
  if (!photos.length) return;
  const taken = photos.slice(0, maxPhotos).map((file) => new Photo(file));
  find("results-section").hidden = false;
  find("results").prepend(...taken.map((photo) => photo.card));
  const left = photos.length - taken.length;
  find("left-out").hidden = !left;
  find("left-out").textContent = left ? `The first ${maxPhotos} photos are looked at; ${left} more are left out.` : "";
  announce(`${taken.length} ${taken.length === 1 ? "photo" : "photos"} added.`);
  taken.forEach((photo) => photo.start());
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  taken[0].card.scrollIntoView({ block: "nearest", behavior: isCalm ? "auto" : "smooth" });
}

function sendNext() {
  while (numSending < SENDING_AT_ONCE && waiting.length) {
    numSending += 1;
    waiting.shift().send();
  }
}

class Photo {
  constructor(file) {
    this.file = file;
    this.numTries = 0;
    this.card = find("result-template").content.firstElementChild.cloneNode(true);
    const part = (selector) => this.card.querySelector(selector);
    [this.verdict, this.note, this.progress, this.again, this.bars, this.meta] =
      [".verdict", ".note", "progress", ".again", ".bars", ".meta"].map(part);
    this.barRow = this.bars.firstElementChild;
    this.bars.replaceChildren();
    part(".file").textContent = file.name;
    this.again.setAttribute("aria-label", `Try again: ${file.name}`);
    this.progress.setAttribute("aria-label", `Progress of ${file.name}`);
    this.again.addEventListener("click", () => { this.numTries = 0; this.start(); });
    const image = part("img");
    const url = URL.createObjectURL(file);
    image.alt = `Your photo ${file.name}`;
    image.addEventListener("load", () => URL.revokeObjectURL(url));
    image.addEventListener("error", () => { URL.revokeObjectURL(url); image.remove(); });
    image.src = url;
  }

  start() {
    if (this.file.size > maxBytes) {
      this.fail(`This photo is larger than ${maxBytes / 1e6} MB. Send a smaller copy.`);
      return;
    }
    this.again.hidden = true;
    this.show("busy", "Waiting…");
    waiting.push(this);
    sendNext();
  }

  send() {
    const request = new XMLHttpRequest();
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
      numSending -= 1;
      this.receive(request);
      sendNext();
    });
    this.show("busy", "Sending…");
    request.send(body);
  }

  receive(request) {
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
    const reason = error ?? "This page's service cannot be reached. Nothing is wrong with the photo; send it again shortly.";
    if (request.status !== 429) watchModel();
    this.numTries += 1;
    if (this.numTries >= MOST_TRIES) {
      this.fail(reason, { canRetry: true });
      return;
    }
    const wait = Number(request.getResponseHeader("Retry-After")) || RETRY_S;
    this.show("busy", "Waiting…", `${reason} That happens by itself in ${wait}\u00a0s.`);
    later.add(this);
    setTimeout(() => this.resume(), 1000 * wait);
  }

  resume() {
    if (later.delete(this)) this.start();
  }

  succeed(result) {
    const share = percent(result.probability);
    if (result.is_sure) {
      this.show("sure", `${result.label} `);
      const written = document.createElement("span");
      written.className = "share";
      written.textContent = share;
      this.verdict.append(written);
    } else {
      this.show("unsure", "Not sure", `The closest is ${result.label}, with ${share}. `
        + "It may be something else, or something that the model has not learned.");
    }
    this.bars.replaceChildren(...Object.entries(result.probabilities).map(([label, probability]) => {
      const row = this.barRow.cloneNode(true);
      row.querySelector(".label").textContent = label;
      row.querySelector(".share").textContent = percent(probability);
      row.querySelector("rect").setAttribute("width", `${(100 * probability).toFixed(1)}%`);
      return row;
    }));
    this.meta.textContent = `Model version ${result.model_version || "unknown"}, ${Math.round(result.latency_ms)} ms`;
    announce(`${this.file.name}: ${result.is_sure ? result.label : `not sure, closest is ${result.label}`}, ${share}`);
  }

  fail(reason, { canRetry = false } = {}) {
    this.show("failed", "No answer", reason);
    this.again.hidden = !canRetry;
    announce(`${this.file.name}: ${reason}`);
  }

  show(state, verdict, note) {
    this.card.dataset.state = state;
    this.card.classList.remove("busy", "sure", "unsure", "failed");
    this.card.classList.add(state);
    this.progress.hidden = state !== "busy";
    this.verdict.textContent = verdict;
    if (note !== undefined) this.note.textContent = note;
    else if (state !== "busy") this.note.textContent = "";
  }
}

let isWatching = false;

async function watchModel() {
  if (isWatching) return;
  isWatching = true;
  for (;;) {
    const response = await fetch("/readyz").catch(() => null);
    find("model-gone").hidden = Boolean(response?.ok);
    if (response?.ok) break;
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
  }
  isWatching = false;
  later.forEach((photo) => photo.resume());
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
  document.addEventListener("paste", (event) => addPhotos(event.clipboardData.files));
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
