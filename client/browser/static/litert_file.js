// Make a hidden tensor of a LiteRT file an output. What a model says of its limits are tensors that are no outputs
// (export/litert_limits.py), and the runtime for browsers reads outputs alone. The file is a flatbuffer (schema:
// tensorflow/lite/schema/schema.fbs); fields are numbered as the schema has them.

const MODEL = { subgraphs: 2, signatures: 7 };
const SUBGRAPH = { tensors: 0, outputs: 2 };
const TENSOR = { name: 3 };

/**
 * Return the bytes of a file with a tensor as its last output, without signatures, which would name too few outputs.
 *
 * The bytes handed in are changed, too. `null` where there is no such tensor, and then they are as they were.
 */
export function exposeTensor(bytes, name) {
  const file = new Flatbuffer(bytes);
  const model = file.follow(0);
  const [subgraph] = file.tables(model, MODEL.subgraphs);
  const index = file.tables(subgraph, SUBGRAPH.tensors).findIndex((tensor) => file.text(tensor, TENSOR.name) === name);
  if (index < 0) return null;
  const signatures = file.field(model, MODEL.signatures);
  if (signatures) file.view.setUint32(file.follow(signatures), 0, true);
  const field = file.field(subgraph, SUBGRAPH.outputs);
  const outputs = [...file.elements(field).map((position) => file.number(position)), index];
  // References point forward: the longer list stands at the end, after what else there is, and the field refers to it.
  const end = Math.ceil(bytes.length / 4) * 4;
  const longer = new Uint8Array(end + 4 * (1 + outputs.length));
  longer.set(bytes);
  const view = new DataView(longer.buffer);
  [outputs.length, ...outputs].forEach((number, position) => view.setUint32(end + 4 * position, number, true));
  view.setUint32(field, end - field, true);
  return longer;
}

class Flatbuffer {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  number(position) { return this.view.getUint32(position, true); }

  follow(position) { return position + this.number(position); }

  /** Return the position of a table's field; 0 where it is not there. */
  field(table, number) {
    const layout = table - this.view.getInt32(table, true);
    const offset = 4 + 2 * number;
    const found = offset < this.view.getUint16(layout, true) ? this.view.getUint16(layout + offset, true) : 0;
    return found && table + found;
  }

  /** Return the positions of the elements, of four bytes each, of the vector that a field refers to. */
  elements(field) {
    if (!field) return [];
    const vector = this.follow(field);
    return Array.from({ length: this.number(vector) }, (_, index) => vector + 4 + 4 * index);
  }

  tables(table, number) { return this.elements(this.field(table, number)).map((position) => this.follow(position)); }

  text(table, number) {
    const field = this.field(table, number);
    if (!field) return "";
    const start = this.follow(field);
    return new TextDecoder().decode(this.bytes.subarray(start + 4, start + 4 + this.number(start)));
  }
}
