"use strict";
// Decisions on their way: each stays in the browser until the server says that it is on its disk.

const CALL_S = 15;
const MOST_WAIT_S = 8;

const find = (id) => document.getElementById(id);
const randomText = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const chooseWait = (numTries) => Math.min(2 ** (numTries - 1), MOST_WAIT_S) * (0.75 + Math.random() / 2);
const pause = (waitS) => new Promise((resolve) => { setTimeout(resolve, 1000 * waitS); });
const CUT_OFF = "The server cannot be reached.";

// Returns the status, 0 where the server cannot be reached, and what it sent.
async function call(path, content) {
  const options = { signal: AbortSignal.timeout(1000 * CALL_S) };
  if (content !== undefined) {
    Object.assign(options, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
  }
  try {
    const response = await fetch(path, options);
    return { status: response.status, body: await response.json().catch(() => ({})) };
  } catch {
    return { status: 0, body: {} };
  }
}

const mayPass = (status) => status < 200 || status === 401 || status === 408 || status === 429 || status >= 500;

class Outbox {
  // The functions: saved(entry, body), refused(entry, status, body), delayed(numWaiting, reason, status).
  constructor(place, functions) {
    this.prefix = `review.${place}.`;
    this.functions = functions;
    this.waiting = this.load();
    this.isSending = false;
    this.wake = () => {};
    this.numAdded = 0;
  }

  // What a closed page left comes first.
  load() {
    try {
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix)).sort();
      return keys.map((key) => ({ ...JSON.parse(localStorage.getItem(key)), key }));
    } catch {
      return [];
    }
  }

  get photos() {
    return this.waiting.map((entry) => entry.sha256);
  }

  add(entry) {
    this.numAdded += 1;
    const order = `${String(Date.now()).padStart(15, "0")}.${String(this.numAdded).padStart(6, "0")}`;
    const key = `${this.prefix}${order}.${entry.id}`;
    try {
      localStorage.setItem(key, JSON.stringify(entry));
    } catch {
      // The browser keeps nothing: the decision is sent all the same.
    }
    this.waiting.push({ ...entry, key });
    this.send();
  }

  retry() {
    this.wake();
    this.send();
  }

  async send() {
    if (this.isSending) return;
    this.isSending = true;
    let numTries = 0;
    while (this.waiting.length) {
      const { key, ...entry } = this.waiting[0];
      const { status, body } = await call("/api/decisions", entry);
      if (mayPass(status)) {
        numTries += 1;
        this.functions.delayed(this.waiting.length, body.error ?? CUT_OFF, status);
        await Promise.race([pause(chooseWait(numTries)), new Promise((resolve) => { this.wake = resolve; })]);
        continue;
      }
      numTries = 0;
      this.waiting.shift();
      try {
        localStorage.removeItem(key);
      } catch {
        // It keeps nothing.
      }
      if (status === 200) this.functions.saved(entry, body);
      else this.functions.refused(entry, status, body);
    }
    this.isSending = false;
  }
}
