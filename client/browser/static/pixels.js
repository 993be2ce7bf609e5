// From a photo to the pixels that the model sees, as the client makes them (classifier_client/preprocessing.py): upright,
// without colour management, transparency over white (in a GIF over black), and resized to a square.

import { computeWeights, resizeColumns, resizeRows } from "./resize.js";
import { takeOrientation, turn } from "./webp.js";

const BAND_PIXELS = 2_000_000;

/** A photo that cannot be classified; its message is for the person whose photo it is. */
export class PhotoError extends Error {}

/** Decode and resize an encoded image (a Blob) to uint8 [sizePx, sizePx, 3], RGB. */
export async function toPixels(blob, sizePx) {
  if (!blob.size) throw new PhotoError("This file is empty. Choose the photo again.");
  const head = String.fromCharCode(...new Uint8Array(await readHead(blob)));
  const isWebP = /^RIFF....WEBP/s.test(head);
  const { orientation, image: encoded } = isWebP ? await takeOrientation(blob) : { orientation: 1, image: blob };
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const image = await createImageBitmap(encoded, options).catch(() => { throw new PhotoError(explain(head)); });
  try {
    const pixels = resize(image, sizePx, head.startsWith("GIF8") ? "#000" : "#fff");
    // The square is turned and not the photo: as good, and smaller.
    return orientation === 1 ? pixels : turn(pixels, sizePx, orientation);
  } finally {
    image.close();
  }
}

async function readHead(blob) {
  try {
    return await blob.slice(0, 12).arrayBuffer();
  } catch {
    throw new PhotoError("This file cannot be read any more: it was changed, moved or deleted. Choose it again.");
  }
}

// The sentences of serving/web/unreadable.py. A browser does not say what is wrong with an image.
function explain(head) {
  if (head.slice(4, 8) === "ftyp") {
    return "This is a HEIC or AVIF picture, or a film, which cannot be read here. Send the photo as a JPEG.";
  }
  if (/^(\xff\xd8|\x89PNG|GIF8|BM|RIFF....WEBP)/s.test(head)) {
    return "This photo is damaged, or was cut short on its way. Send the original again.";
  }
  return "This file is not a photo that can be read here. Send a JPEG, PNG, GIF, BMP or WebP picture.";
}

// In bands: a phone has no room for a canvas of a large photo.
function resize(image, sizePx, ground) {
  const { width, height } = image;
  const bandHeight = Math.min(height, Math.max(1, Math.floor(BAND_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, bandHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = ground;
  const columnWeights = computeWeights(width, sizePx);
  const rows = new Uint8ClampedArray(height * sizePx * 3);
  for (let first = 0; first < height; first += bandHeight) {
    const numRows = Math.min(bandHeight, height - first);
    context.fillRect(0, 0, width, numRows);
    context.drawImage(image, 0, first, width, numRows, 0, 0, width, numRows);
    resizeRows(context.getImageData(0, 0, width, numRows).data, numRows, columnWeights, rows, first);
  }
  return new Uint8Array(resizeColumns(rows, sizePx, computeWeights(height, sizePx)).buffer);
}
