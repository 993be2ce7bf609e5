/** What a model says of a photo; the same fields as the web page's API has. */
export interface Prediction {
  /** The photo's name. */
  image: string;
  /** The most probable class. */
  label: string;
  /** Of that class, 0–1. */
  probability: number;
  /** Of every class, the most probable first. */
  probabilities: Record<string, number>;
  /** Whether the probability reaches the threshold. */
  is_sure: boolean;
  /** Conformal p-value of the photo under those that the model knows, 0–1; small is strange. Null where it does not tell. */
  p_value: number | null;
  /** Whether it looks like one of the classes. */
  is_known: boolean | null;
  /** The labels that together hold the truth, the most probable first. */
  prediction_set: string[] | null;
  model_version: string;
  latency_ms: number;
}

export interface Progress {
  loadedBytes: number;
  totalBytes: number;
}

export interface LoadOptions {
  /** Called while files arrive. */
  onProgress?: (progress: Progress) => void;
}

export interface ModelInfo {
  name: string;
  version: string;
  classNames: string[];
  /** Of how many photos the right label is in the prediction set, 0–1. Null where the model does not tell. */
  coverage: number | null;
  /** Whether all that the model needs is kept in the browser. */
  isOffline: boolean;
}

/** What cannot be classified, or loaded. */
export class ClassifierError extends Error {
  /** Whether the photo is the reason; then the message is for the person whose photo it is. */
  isPhoto: boolean;
}

export interface Classifier {
  readonly info: ModelInfo;
  /** Classify one photo, an encoded image such as a File. */
  classify(photo: Blob, options?: { name?: string }): Promise<Prediction>;
  /** Take the newest version of the model, if it is another one; `classify` looks for one every minute. */
  refresh(options?: LoadOptions): Promise<ModelInfo>;
  /** End the worker. */
  close(): void;
}

/** Load the model in a worker. */
export function load(options?: LoadOptions): Promise<Classifier>;

/** Classify one photo; the first call loads the model. */
export function classify(photo: Blob): Promise<Prediction>;
