// The EXIF orientation of a WebP, which some browsers apply and others do not (RFC 9649, 2.3 and 2.7; Exif 2.3, 4.6.2).

const ORIENTATION = 0x0112;

/** Return the orientation of a WebP, 1 to 8, and the image (a Blob) without it, for any browser to decode alike. */
export async function takeOrientation(blob) {
  const view = new DataView(await blob.arrayBuffer());
  for (let start = 12; start + 8 <= view.byteLength;) {
    const length = view.getUint32(start + 4, true);
    if (readName(view, start) === "EXIF") {
      const orientation = readOrientation(view, start + 8);
      for (let byte = 0; byte < 4; byte++) view.setUint8(start + byte, 0x58);
      return { orientation, image: new Blob([view], { type: blob.type }) };
    }
    start += 8 + length + length % 2;
  }
  return { orientation: 1, image: blob };
}

function readOrientation(view, start) {
  try {
    const tiff = readName(view, start) === "Exif" ? start + 6 : start;
    const isLittle = view.getUint16(tiff) === 0x4949;
    const directory = tiff + view.getUint32(tiff + 4, isLittle);
    const numEntries = view.getUint16(directory, isLittle);
    for (let entry = directory + 2; entry < directory + 2 + 12 * numEntries; entry += 12) {
      if (view.getUint16(entry, isLittle) !== ORIENTATION) continue;
      const value = view.getUint16(entry + 8, isLittle);
      return value >= 1 && value <= 8 ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // what is cut short has no orientation
  }
  return 1;
}

function readName(view, start) {
  return String.fromCharCode(...[0, 1, 2, 3].map((byte) => view.getUint8(start + byte)));
}

/** Turn a square image, uint8 [sizePx, sizePx, 3], upright. */
export function turn(pixels, sizePx, orientation) {
  const turned = new Uint8Array(pixels.length);
  const last = sizePx - 1;
  for (let y = 0; y < sizePx; y++) {
    for (let x = 0; x < sizePx; x++) {
      let [row, column] = orientation < 5 ? [y, x] : [x, y];
      if ([3, 4, 6, 7].includes(orientation)) row = last - row;
      if ([2, 3, 7, 8].includes(orientation)) column = last - column;
      const from = 3 * (row * sizePx + column);
      turned.set(pixels.subarray(from, from + 3), 3 * (y * sizePx + x));
    }
  }
  return turned;
}
