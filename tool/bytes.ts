/**
 * Bytes for people: as hex and text, and as the fields of a layout.
 *
 * @module
 */

/** Bytes in a line. */
const LINE = 16;
/** Lines handed out at once. */
const CHUNK_LINES = 2048;

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");

/** Bytes as hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => hex(byte, 2)).join("");
}

function hexLine(bytes: Uint8Array, offset: number): string {
  const numbers = Array.from(bytes, (byte) => hex(byte, 2));
  const left = numbers.slice(0, LINE / 2).join(" ").padEnd(LINE / 2 * 3 - 1);
  const right = numbers.slice(LINE / 2).join(" ").padEnd(LINE / 2 * 3 - 1);
  const text = Array.from(
    bytes,
    (byte) => byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".",
  ).join("");
  return `${hex(offset, 8)}  ${left}  ${right}  |${text}|`;
}

/** Lines of hex and text, some at once; lines equal to the one before are one line: "*". */
export function* hexLines(bytes: Uint8Array, offset: number): Generator<string> {
  let chunk: string[] = [];
  let before: string | undefined;
  let isRepeating = false;
  for (let at = 0; at < bytes.length; at += LINE) {
    const line = bytes.subarray(at, at + LINE);
    const key = line.length === LINE ? line.join() : undefined;
    if (key !== undefined && key === before) {
      if (!isRepeating) chunk.push("*\n");
      isRepeating = true;
    } else {
      chunk.push(hexLine(line, offset + at) + "\n");
      isRepeating = false;
    }
    before = key;
    if (chunk.length >= CHUNK_LINES) {
      yield chunk.join("");
      chunk = [];
    }
  }
  chunk.push(hex(offset + bytes.length, 8) + "\n");
  yield chunk.join("");
}

/** A field of a layout, and what is in it. */
export interface FieldValue {
  name: string;
  /** As the layout calls it: "i32", "text(12)", "array(f32, 3)". */
  type: string;
  /** In the segment; null for fields of the elements of an array. */
  offset: number | null;
  /** Null where it is no value: a lock, a struct (its fields follow), an array of such. */
  value: string | number | boolean | (string | number | boolean)[] | null;
}

type Reader = { size: number; read: (view: DataView, at: number) => string | number | boolean };

const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

// Bigints and what is no number in JSON (NaN) are text.
const fraction = (value: number): string | number => Number.isFinite(value) ? value : String(value);

const readers: { readonly [type: string]: Reader } = {
  i8: { size: 1, read: (view, at) => view.getInt8(at) },
  u8: { size: 1, read: (view, at) => view.getUint8(at) },
  i16: { size: 2, read: (view, at) => view.getInt16(at, little) },
  u16: { size: 2, read: (view, at) => view.getUint16(at, little) },
  i32: { size: 4, read: (view, at) => view.getInt32(at, little) },
  u32: { size: 4, read: (view, at) => view.getUint32(at, little) },
  i64: { size: 8, read: (view, at) => String(view.getBigInt64(at, little)) },
  u64: { size: 8, read: (view, at) => String(view.getBigUint64(at, little)) },
  f32: { size: 4, read: (view, at) => fraction(view.getFloat32(at, little)) },
  f64: { size: 8, read: (view, at) => fraction(view.getFloat64(at, little)) },
  bool: { size: 1, read: (view, at) => view.getUint8(at) !== 0 },
  atomicI32: { size: 4, read: (view, at) => view.getInt32(at, little) },
  atomicU32: { size: 4, read: (view, at) => view.getUint32(at, little) },
  atomicI64: { size: 8, read: (view, at) => String(view.getBigInt64(at, little)) },
  atomicU64: { size: 8, read: (view, at) => String(view.getBigUint64(at, little)) },
};

/** Elements of an array that are shown. */
const ELEMENTS_MAX = 32;

function readerOf(type: string): Reader | undefined {
  if (Object.hasOwn(readers, type)) return readers[type];
  const [, kind, count = ""] = /^(text|bytes)\((\d{1,15})\)$/.exec(type) ?? [];
  const size = Number(count);
  if (kind === "text") {
    return {
      size,
      read: ({ buffer, byteOffset }, at) => {
        const bytes = new Uint8Array(buffer as ArrayBuffer, byteOffset + at, size);
        const end = bytes.indexOf(0);
        return new TextDecoder("utf-8", { ignoreBOM: true })
          .decode(end < 0 ? bytes.slice() : bytes.slice(0, end));
      },
    };
  }
  if (kind !== "bytes") return undefined;
  return {
    size,
    read: ({ buffer, byteOffset }, at) => {
      const length = Math.min(size, ELEMENTS_MAX);
      const shown = new Uint8Array(buffer as ArrayBuffer, byteOffset + at, length);
      return toHex(shown) + (size > length ? "..." : "");
    },
  };
}

function valueOf(type: string, view: DataView, offset: number): FieldValue["value"] {
  const fits = (size: number): boolean => offset + size <= view.byteLength;
  const reader = readerOf(type);
  if (reader !== undefined) return fits(reader.size) ? reader.read(view, offset) : null;
  const [, element = "", count = ""] = /^array\((\w+), (\d{1,15})\)$/.exec(type) ?? [];
  const one = readerOf(element);
  if (one === undefined || !fits(one.size * Number(count))) return null;
  const shown = Math.min(Number(count), ELEMENTS_MAX);
  const values = Array.from({ length: shown }, (_, i) => one.read(view, offset + i * one.size));
  return Number(count) > shown ? [...values, "..."] : values;
}

/**
 * The fields that a layout's description tells of, with what is in the buffer at the moment. The
 * description comes from shared memory: a line that makes no sense is left out, and a field that
 * does not fit has no value.
 */
export function fieldValues(description: string, buffer: ArrayBuffer): FieldValue[] {
  const view = new DataView(buffer);
  const fields: FieldValue[] = [];
  for (const line of description.split("\n")) {
    const [, name, type, at] = /^([^\s(:]+): (.+) at (\d{1,15})$/.exec(line) ?? [];
    if (name === undefined || type === undefined) continue;
    // An offset of a field in an array's element is one in the element.
    const isElement = name.includes("[]");
    const offset = isElement ? null : Number(at);
    fields.push({
      name,
      type,
      offset,
      value: offset === null ? null : valueOf(type, view, offset),
    });
  }
  return fields;
}
