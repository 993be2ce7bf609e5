"use strict";
// One photo at a time: the next one is loaded while a person looks at this one, and decisions go out in their order.

// n, s, u and m have a meaning of their own.
const CLASS_KEYS = "123456789abcdefghijklopqrtvwxyz";
const MOST_UNDONE = 500;
const AHEAD = 1;
const CHOOSING_POLL_S = 2;

const place = document.body.dataset.place;
const keep = (store, name, value) => { try { store.setItem(name, value); } catch { /* The browser keeps nothing. */ } };
const recall = (store, name) => { try { return store.getItem(name); } catch { return null; } };

// A copy of this tab must have an id of its own: what is read is kept again only when the page goes.
const client = recall(sessionStorage, "review.client") ?? randomText();
try { sessionStorage.removeItem("review.client"); } catch { /* The browser keeps nothing. */ }
addEventListener("pagehide", () => keep(sessionStorage, "review.client", client));

let who = "";
let current = null;
const ahead = [];
const broken = new Set();
const made = JSON.parse(recall(sessionStorage, `review.made.${place}`) ?? "[]");
let classNames = [];
let isFilling = false;
let numDecided = 0;
let conflict = null;

const announce = (text) => { find("state").textContent = text; };
const quote = (decision) => (decision.decision === "label" ? `“${decision.label}”` : { none: "none of these", skip: "skip" }[decision.decision]);
const nameOf = (person) => person || "Somebody";

const outbox = new Outbox(place, {
  saved(entry, body) {
    showTrouble("");
    const isNew = entry.decision === "label" && !classNames.includes(entry.label);
    showProgress(body);
    const note = isNew ? `New class: ${quote(entry)}, which the source does not have. ` : "";
    announce(entry.decision === "undo" ? "Undone, and saved." : `Saved: ${quote(entry)}. ${note}${body.left} left.`);
    if (body.other) showConflict(entry, body.other);
    fill();
  },
  refused(entry, status, body) {
    if (entry.decision === "undo" && status === 409) {
      const other = body.other;
      announce(other ? `Not undone: ${nameOf(other.who)} decided ${quote(other)} on this photo since. Decide again if you see it differently.`
        : "Not undone: that decision does not count any more.");
      return;
    }
    showTrouble(`A decision, ${quote(entry)}, cannot be saved: ${body.error ?? `status ${status}`}`);
  },
  delayed(count, reason, status) {
    const what = count === 1 ? "1 decision is" : `${count} decisions are`;
    showTrouble(`${what} not saved yet. ${reason} They stay in this browser and are sent again by themselves.`);
    if (status === 401) askToken();
  },
});

function showTrouble(text) {
  find("trouble").hidden = !text;
  if (find("trouble").textContent !== text) find("trouble").textContent = text;
}

function showConflict(entry, other) {
  conflict = entry;
  find("conflict-photo").src = `/photos/${entry.sha256}`;
  find("conflict-text").textContent = `${nameOf(other.who)} decided ${quote(other)} on this photo in the meantime. Yours, ${quote(entry)}, is later and counts.`;
  find("conflict").hidden = false;
}

function showProgress(body) {
  find("progress").textContent = `${body.done} done, ${body.left} left`;
  const people = Object.entries(body.people).map(([person, count]) => `${nameOf(person)} ${count}`);
  find("people").textContent = people.length ? `Decided: ${people.join(", ")}` : "";
  if (JSON.stringify(body.classes) !== JSON.stringify(classNames)) showClasses(body.classes);
}

function showClasses(names) {
  classNames = names;
  find("classes").replaceChildren(...names.map((label, position) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    const text = document.createElement("bdi");
    text.textContent = label;
    button.append(text);
    if (CLASS_KEYS[position]) {
      const key = document.createElement("kbd");
      key.textContent = CLASS_KEYS[position];
      button.append(" ", key);
    }
    button.addEventListener("click", () => decide("label", label));
    return button;
  }));
}

// Loads photos until there is one to look at and the next one.
async function fill() {
  if (isFilling) return;
  isFilling = true;
  for (let numTries = 0; !current || ahead.length < AHEAD;) {
    const held = [current?.item, ...ahead.map((each) => each.item)].filter(Boolean).map((item) => item.sha256);
    const known = [...held, ...outbox.photos, ...broken];
    const { status, body } = await call(`/api/next?client=${client}&held=${known.slice(-100).join(",")}`);
    const loaded = status === 200 && body.item ? await load(body.item) : null;
    if (status !== 200 || loaded === undefined) {
      if (!current) showTrouble(`${body.error ?? CUT_OFF} It is tried again by itself.`);
      if (status === 401) await askToken();
      numTries += 1;
      await pause(chooseWait(numTries));
      continue;
    }
    if (!outbox.waiting.length) showTrouble("");
    numTries = 0;
    showProgress(body);
    if (loaded) add(loaded);
    if (!body.item) {
      if (!current) showEmpty(body);
      if (!body.choosing || ahead.length || current) break;
      await pause(CHOOSING_POLL_S);
    }
  }
  isFilling = false;
}

function add(loaded) {
  if ([current, ...ahead].some((each) => each?.item.sha256 === loaded.item.sha256)) return; // undone meanwhile
  if (current) ahead.push(loaded);
  else show(loaded);
}

// Returns the item with its image; null where the photo is passed over, and undefined where the server is away.
async function load(item) {
  const image = new Image();
  image.src = `/photos/${item.sha256}`;
  image.alt = "The photo to decide on";
  try {
    await image.decode();
    return { item, image };
  } catch {
    const { status, body } = await call(image.src);
    if (mayPass(status) && status !== 200) return undefined;
    broken.add(item.sha256);
    find("passed").textContent = body.error ?? `A photo is passed over, since it cannot be shown: ${item.photo}`;
    return null;
  }
}

function show(loaded) {
  current = loaded;
  find("frame").replaceChildren(loaded.image);
  hideOpinion();
  setEnabled(true);
  if (find("state").textContent === "Loading…") announce("");
}

function showEmpty(body) {
  const text = document.createElement("p");
  const trouble = body.choice_error && ` No photos were chosen: ${body.choice_error}`;
  const nothing = broken.size ? "No photo that is left can be shown. The foot of the page says why." : "There is nothing to decide: no label of the newest run is doubted.";
  const end = body.done ? "All is decided. Train with it below." : nothing;
  text.textContent = body.choosing ? "Photos are being chosen. This takes up to a minute…" : `${end}${trouble}`;
  find("frame").replaceChildren(text);
  hideOpinion();
  setEnabled(false);
  if (find("state").textContent === "Loading…") announce("");
}

function setEnabled(isEnabled) {
  for (const button of document.querySelectorAll("#classes button, #none, #skip, #show-opinion, #new-class button")) button.disabled = !isEnabled;
}

const makeId = () => `${client}.${numDecided += 1}.${randomText()}`;

function decide(decision, label = null) {
  if (!current) return;
  const { item } = current;
  const entry = { id: makeId(), sha256: item.sha256, photo: item.photo, decision, label, who };
  made.push({ item, id: entry.id });
  made.splice(0, made.length - MOST_UNDONE);
  keep(sessionStorage, `review.made.${place}`, JSON.stringify(made));
  announce(`Saving ${quote(entry)}…`);
  // A click must not leave the focus on a button that Enter presses again for the next photo.
  if (find("controls").contains(document.activeElement)) find("frame").focus({ preventScroll: true });
  current = null;
  if (ahead.length) show(ahead.shift());
  else setEnabled(false);
  outbox.add(entry);
  fill();
}

async function undo() {
  const last = made.pop();
  if (!last) {
    announce("There is nothing to undo.");
    return;
  }
  keep(sessionStorage, `review.made.${place}`, JSON.stringify(made));
  announce("Undoing…");
  const { item, id } = last;
  outbox.add({ id: makeId(), sha256: item.sha256, photo: item.photo, decision: "undo", label: null, who, undoes: id });
  const loaded = await load(item);
  if (!loaded) return;
  if (current) ahead.unshift(current);
  show(loaded);
}

function confirmGiven() {
  if (find("opinion").hidden) announce("Press m first: it shows the given label, which Enter then confirms.");
  else if (current?.item.given) decide("label", current.item.given);
}

function setWho(person) {
  who = person;
  find("who").value = find("who-shown").textContent = who;
}

function press(event) {
  const isTyping = event.target.closest("input, dialog");
  if (isTyping || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !find("use-keys").checked) return;
  const position = CLASS_KEYS.indexOf(event.key.toLowerCase());
  const actions = { n: () => decide("none"), s: () => decide("skip"), u: undo, m: toggleOpinion, "?": () => find("help-dialog").showModal() };
  const action = actions[event.key.toLowerCase()];
  if (event.key === "Enter") {
    if (event.target.closest("button, a, summary")) return;
    confirmGiven();
  } else if (action) action();
  else if (event.key.length === 1 && position >= 0 && classNames[position] !== undefined) decide("label", classNames[position]);
  else return;
  event.preventDefault();
}

function listen() {
  document.addEventListener("keydown", press);
  const clicks = { none: () => decide("none"), skip: () => decide("skip"), undo, "show-opinion": toggleOpinion, confirm: confirmGiven,
    "show-help": () => find("help-dialog").showModal(), "change-who": () => find("who-dialog").showModal(),
    "keep-mine": () => { find("conflict").hidden = true; }, "take-theirs": takeTheirs };
  for (const [id, action] of Object.entries(clicks)) find(id).addEventListener("click", action);
  find("new-class").addEventListener("submit", (event) => {
    event.preventDefault();
    const label = find("class-name").value.trim();
    find("class-error").textContent = label && !/[\p{C}\p{Zl}\p{Zp}]/u.test(label) ? "" : "A class needs a name that can be printed.";
    if (!label || find("class-error").textContent) return;
    find("class-name").value = "";
    decide("label", label);
  });
  find("who-form").addEventListener("submit", (event) => {
    const person = find("who").value.trim();
    if (!person) return;
    setWho(person);
    keep(localStorage, "review.who", who);
  });
  find("who-dialog").addEventListener("close", () => { if (!who) find("who-dialog").showModal(); });
  find("token-form")?.addEventListener("submit", enterToken);
  find("use-keys").checked = recall(localStorage, "review.keys") !== "off";
  find("use-keys").addEventListener("change", () => keep(localStorage, "review.keys", find("use-keys").checked ? "on" : "off"));
  addEventListener("online", () => outbox.retry());
}

function takeTheirs() {
  outbox.add({ ...conflict, id: makeId(), decision: "undo", label: null, undoes: conflict.id });
  find("conflict").hidden = true;
}

function begin() {
  const known = recall(localStorage, "review.who");
  setWho(known ?? document.body.dataset.who);
  listen();
  if (known === null) {
    find("who-dialog").showModal();
    find("who").select();
  }
  setEnabled(false);
  outbox.send();
  fill();
  new TrainingView({ ended: () => { ahead.length = 0; fill(); }, announce }).watch();
}

begin();
