"use strict";
// What opens over the page or beside the photo: the opinion, and the question for the token.

function showOpinion() {
  if (!current) return;
  const { given, suggested, score, why, photo } = current.item;
  const facts = [["Given label", given ?? "none"], ["Model suggests", suggested ?? "nothing"],
    ["How sure", score === null ? "unknown" : `${(100 * score).toFixed(1)} % that the given label is wrong`], ["Shown because", why], ["File", photo]];
  find("opinion-facts").replaceChildren(...facts.map(([term, text]) => {
    const row = document.createElement("div");
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = text;
    row.append(dt, dd);
    return row;
  }));
  find("confirm").hidden = given === null;
  find("opinion").hidden = false;
  find("show-opinion").setAttribute("aria-expanded", "true");
  announce(`Given label: ${given ?? "none"}. The model suggests ${suggested ?? "nothing"}.`);
}

function hideOpinion() {
  find("opinion").hidden = true;
  find("show-opinion").setAttribute("aria-expanded", "false");
}

const toggleOpinion = () => { if (find("opinion").hidden) showOpinion(); else hideOpinion(); };

function askToken() {
  const dialog = find("token-dialog");
  if (!dialog) return Promise.resolve();
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => { dialog.addEventListener("close", resolve, { once: true }); });
}

async function enterToken(event) {
  event.preventDefault();
  const response = await fetch("/api/token", { method: "POST", body: find("token").value }).catch(() => null);
  find("token-error").textContent = response?.ok ? "" : "That is not the token, or the server is away.";
  if (!response?.ok) return;
  find("token-dialog").close();
  outbox.retry();
}
