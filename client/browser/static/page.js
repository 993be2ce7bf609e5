// The page of `python -m export.web_app`: photos in, results out, all in this browser.

import { load } from "./classifier.js";
import { keepPage } from "./offline.js";
import { describe, percent } from "./words.js";

const find = (id) => document.getElementById(id);
const opening = open();

async function open() {
  try {
    const classifier = await load({ onProgress: ({ loadedBytes, totalBytes }) => {
      find("progress").value = loadedBytes / totalBytes;
      find("state").textContent = `The model is loading… ${(loadedBytes / 1e6).toFixed(1)} of ${(totalBytes / 1e6).toFixed(1)} MB`;
    } });
    const { name, version, classNames, isOffline } = classifier.info;
    find("classes").textContent = `Show a photo, and the model says which it is: ${classNames.join(", ")}. Photos stay on this device.`;
    const isKept = isOffline && (await keepPage("./"));
    find("state").textContent = `Model ${name}${version && `, version ${version}`}. `
      + (isKept ? "This page works without a network from now on." : "This browser does not keep the page for when there is no network.");
    document.body.dataset.state = "ready";
    return classifier;
  } catch (error) {
    find("state").textContent = `The model cannot be loaded. ${error.message}`;
    document.body.dataset.state = "failed";
    throw error;
  } finally {
    find("progress").hidden = true;
  }
}

async function show(file) {
  const card = document.createElement("li");
  const [image, name, verdict, note, bars] = ["img", "p", "h2", "p", "ul"].map((tag) => document.createElement(tag));
  card.append(image, name, verdict, note, bars);
  find("results").prepend(card);
  image.alt = `Your photo ${file.name}`;
  image.src = URL.createObjectURL(file);
  const forget = () => URL.revokeObjectURL(image.src);
  image.addEventListener("load", forget);
  image.addEventListener("error", () => { forget(); image.remove(); });
  name.textContent = file.name;
  verdict.textContent = "Looking…";
  try {
    const classifier = await opening;
    const result = await classifier.classify(file);
    const words = describe(result, classifier.info.coverage);
    card.className = words.state;
    verdict.textContent = [words.verdict, words.share].filter(Boolean).join(" ");
    note.textContent = [words.note, words.hint].filter(Boolean).join(" ");
    bars.replaceChildren(...Object.entries(result.probabilities).map(([label, probability]) => {
      const row = document.createElement("li");
      row.textContent = `${label} ${percent(probability)}`;
      return row;
    }));
    find("announcer").textContent = `${file.name}: ${words.said}`;
  } catch (error) {
    card.className = "failed";
    verdict.textContent = "No answer";
    note.textContent = error.message;
    find("announcer").textContent = `${file.name}: ${error.message}`;
  }
}

const input = find("files");
input.addEventListener("change", () => { Array.from(input.files).forEach(show); input.value = ""; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); Array.from(event.dataTransfer.files).forEach(show); });
document.addEventListener("paste", (event) => Array.from(event.clipboardData?.files ?? []).forEach(show));
