// Resize as Pillow's BILINEAR does: a triangle filter as wide as a pixel of the result, first along the rows, then along the
// columns, in integers. The same bits as `Image.resize` gives the client: its 8-bit arithmetic (src/libImaging/Resample.c).

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);
const CHANNELS = 3;

/** Return, for each sample of the result, which samples it is made of and their weights, in units of 2 ** -22. */
export function computeWeights(size, resultSize) {
  const scale = size / resultSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: resultSize }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), size);
    const weights = Array.from({ length: end - first }, (_, offset) => {
      const distance = Math.abs((first + offset - centre + 0.5) * (1 / support));
      return distance < 1 ? 1 - distance : 0;
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return { first, weights: Int32Array.from(weights, (weight) => Math.trunc(0.5 + (weight / total) * (1 << PRECISION_BITS))) };
  });
}

/** Resize rows of RGBA to RGB of as many columns as there are weights, into `result` from its row `firstRow` on. */
export function resizeRows(rgba, numRows, columnWeights, result, firstRow) {
  const rowLength = rgba.length / numRows;
  const resultLength = columnWeights.length * CHANNELS;
  for (let row = 0; row < numRows; row += 1) {
    const start = row * rowLength;
    let position = (firstRow + row) * resultLength;
    for (const { first, weights } of columnWeights) {
      let red = HALF, green = HALF, blue = HALF;
      let source = start + first * 4;
      for (let index = 0; index < weights.length; index += 1, source += 4) {
        const weight = weights[index];
        red += rgba[source] * weight;
        green += rgba[source + 1] * weight;
        blue += rgba[source + 2] * weight;
      }
      result[position] = red >> PRECISION_BITS;
      result[position + 1] = green >> PRECISION_BITS;
      result[position + 2] = blue >> PRECISION_BITS;
      position += CHANNELS;
    }
  }
}

/** Resize the columns of RGB; return as many rows as there are weights. `rows` is clamped to 0–255, as is the result. */
export function resizeColumns(rows, width, rowWeights) {
  const rowLength = width * CHANNELS;
  const result = new Uint8ClampedArray(rowWeights.length * rowLength);
  const sums = new Int32Array(rowLength);
  rowWeights.forEach(({ first, weights }, row) => {
    sums.fill(HALF);
    weights.forEach((weight, index) => {
      const start = (first + index) * rowLength;
      for (let column = 0; column < rowLength; column += 1) sums[column] += rows[start + column] * weight;
    });
    for (let column = 0; column < rowLength; column += 1) result[row * rowLength + column] = sums[column] >> PRECISION_BITS;
  });
  return result;
}
