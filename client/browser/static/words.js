// What a person reads of a prediction, and a screen reader says: the same as result.html.j2 writes.

const NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

export const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;

/** Return the words for a prediction, as the API has it; `coverage` is that of its sets, 0–1. */
export function describe(result, coverage) {
  const share = percent(result.probability);
  if (result.is_known === false) {
    const count = Object.keys(result.probabilities).length;
    const verdict = `This does not look like any of the ${NUMBERS[count] ?? `${count} classes`}.`;
    const note = result.p_value > 0 ? `Only 1 in ${Math.round(1 / result.p_value)} known photos looks so unlike the others.`
      : "No known photo looks so unlike the others.";
    const hint = `It resembles ${result.label} most, with ${share}.`;
    return { state: "refused", verdict, note, hint, said: `${verdict} ${note} ${hint}` };
  }
  const hasSet = result.prediction_set?.length > 1;
  const set = hasSet ? `Probably one of: ${result.prediction_set.join(", ")}.` : "";
  const hint = hasSet ? `Such a list holds the right one for ${Math.round(100 * coverage)} of 100 photos like those that `
    + "the model was tested on." : "";
  if (result.is_sure) {
    return { state: "sure", verdict: result.label, share, note: set, hint, said: `${result.label}, ${share}${set && `. ${set}`}` };
  }
  const other = set || "It may be something else, or something that the model has not learned.";
  const note = `The closest is ${result.label}, with ${share}. ${other}`;
  return { state: "unsure", verdict: "Not sure", note, hint, said: `not sure, closest is ${result.label}, ${share}${set && `. ${set}`}` };
}
