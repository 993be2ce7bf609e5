// The model in a worker: load the runtime and the file, classify photos, and take newer versions.

import { Environment, loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "./litert_core.js";
import { exposeTensor } from "./litert_file.js";
import { toPixels } from "./pixels.js";
import { fetchNewest, fetchOnce, forgetOthers, keep, keepFiles } from "./storage.js";

const BASE = new URL(".", import.meta.url);
const SPEC = new URL("model.json", BASE).href;
const P_VALUE = "p_value";

let current = null;

/** Load the newest version, if it is not loaded yet. Returns what is known of it. */
export async function load(onProgress) {
  const text = await fetchNewest(SPEC);
  const spec = JSON.parse(text);
  if (current?.spec.model.sha256 === spec.model.sha256) {
    current.spec = spec;
    return describe();
  }
  const runtime = spec.runtime[(await supportsFeature("relaxedSimd")) ? "relaxed_simd" : "compatible"];
  const needed = [spec.model, runtime.wasm];
  const totalBytes = needed.reduce((sum, file) => sum + file.size_bytes, 0);
  let loadedBytes = 0;
  const [model, wasm] = await Promise.all(needed.map((file) => fetchOnce(file, BASE, (numBytes) => {
    loadedBytes += numBytes;
    onProgress({ loadedBytes, totalBytes });
  })));
  if (!current) {
    // WebGPU is right only on its first call on some phones (LiteRT#8065), so no device is looked for.
    Environment.create = async () => new Environment({ webGpuDevice: null });
    self.Module = { wasmBinary: wasm.bytes, printErr: log };
    await loadLiteRt(new URL(runtime.script, BASE).href);
  }
  const [compiled, areKept] = await Promise.all([
    compile(model.bytes, spec), keepFiles([...spec.scripts, runtime.script], BASE)]);
  // The description after all that it names, and what nothing names any more after that: what is kept is complete.
  const isKept = areKept && model.isKept && wasm.isKept && (await keep(SPEC, text));
  if (isKept) await forgetOthers(needed.map(({ url }) => url), BASE);
  current?.compiled.delete();
  current = { spec, compiled, isKept };
  return describe();
}

/** Classify a photo; the result is one of the page's API (/api/classify). */
export async function classify(blob, image) {
  const startMs = performance.now();
  const { spec, compiled } = current;
  const [details] = compiled.getInputDetails();
  const pixels = await toPixels(blob, details.shape[1]);
  const input = new Tensor(details.dtype === "float32" ? normalize(pixels, spec) : pixels, Array.from(details.shape));
  let outputs = [];
  try {
    outputs = await compiled.run([input]);
    const [values, pValues] = await Promise.all(outputs.map((output) => output.data()));
    return { image, ...interpret(values, pValues?.[0], spec), latency_ms: Math.round(10 * (performance.now() - startMs)) / 10 };
  } finally {
    for (const tensor of [input, ...outputs]) tensor.delete();
  }
}

// The runtime tells of each of its parts that it starts.
const log = (line) => { if (!/^(INFO|WARNING): /.test(line)) console.error(line); };

const describe = () => {
  const { spec, isKept } = current;
  return {
    name: spec.name,
    version: spec.version,
    classNames: spec.class_names,
    coverage: spec.limits?.coverage ?? null,
    isOffline: isKept,
  };
};

async function compile(bytes, spec) {
  const exposed = spec.limits && exposeTensor(bytes, P_VALUE);
  if (spec.limits && !exposed) throw new Error(`The model must have a tensor ${P_VALUE}, as its limits say. Export it again.`);
  const compiled = await loadAndCompile(exposed || bytes, { accelerator: "wasm" });
  const [input] = compiled.getInputDetails();
  const [output] = compiled.getOutputDetails();
  const isClassifier = input.shape.length === 4 && input.shape[1] === input.shape[2] && input.shape[3] === 3
    && ["uint8", "float32"].includes(input.dtype) && output.dtype === "float32" && output.shape[1] === spec.class_names.length;
  if (isClassifier) return compiled;
  compiled.delete();
  throw new Error("The model must take one square RGB image, and return a float32 for each class. "
    + `Received: ${input.dtype} [${input.shape}] and ${output.dtype} [${output.shape}]. Export it again.`);
}

function normalize(pixels, { mean, std }) {
  return Float32Array.from(pixels, (value, index) => Math.fround(value - mean[index % mean.length]) / std[index % std.length]);
}

// As the graph does, in `export.limits`: a p-value k / (M + 1) of a whole k is refused where k is at most
// refused_share * (M + 1); the tolerance is for the roundings of float32.
const TOLERANCE = 1e-6;

/** Return the fields of a prediction, of the model's outputs. */
export function interpret(values, pValue, spec) {
  const ranked = spec.class_names.map((label, index) => [label, values[index]]).sort(([, one], [, other]) => other - one);
  const [[label, probability]] = ranked;
  if (!ranked.every(([, value]) => value >= 0 && value <= 1)) {
    throw new Error(`The model must return probabilities of 0 to 1. Received: ${ranked}. Export it again.`);
  }
  const least = Math.min(probability, Math.fround(spec.limits?.min_probability ?? 0));
  return {
    label,
    probability,
    probabilities: Object.fromEntries(ranked),
    is_sure: probability >= spec.threshold,
    model_version: spec.version,
    p_value: spec.limits ? pValue : null,
    is_known: spec.limits ? pValue > spec.limits.refused_share * (1 + TOLERANCE) : null,
    prediction_set: spec.limits ? ranked.filter(([, value]) => value >= least).map(([name]) => name) : null,
  };
}
