/**
 * C structures in byte buffers, by the offsets that the library itself reports.
 *
 * @module
 */

/** Offset and size of each field, and under the empty name the size of the whole. */
export type Fields = ReadonlyMap<string, { offset: number; size: number }>;

const decoder = new TextDecoder();

/** One C structure, or an array of them. */
export class Record {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly #fields: Fields;
  readonly #size: number;

  constructor(fields: Fields, count = 1) {
    this.#fields = fields;
    this.#size = fields.get("")?.size ?? 0;
    this.bytes = new Uint8Array(this.#size * count);
    this.#view = new DataView(this.bytes.buffer);
  }

  #at(field: string, index: number): number {
    const place = this.#fields.get(field);
    if (place === undefined) throw new Error(`The native library has no field ${field}.`);
    return index * this.#size + place.offset;
  }

  u32(field: string, index = 0): number {
    return this.#view.getUint32(this.#at(field, index), true);
  }

  i32(field: string, index = 0): number {
    return this.#view.getInt32(this.#at(field, index), true);
  }

  /** A count of bytes, nanoseconds or such: exact below 2^53. */
  u64(field: string, index = 0): number {
    return Number(this.big(field, index));
  }

  big(field: string, index = 0): bigint {
    return this.#view.getBigUint64(this.#at(field, index), true);
  }

  text(field: string, length: number, index = 0): string {
    const at = this.#at(field, index);
    return decoder.decode(this.bytes.subarray(at, at + length));
  }

  setU32(field: string, value: number): void {
    this.#view.setUint32(this.#at(field, 0), value, true);
  }

  setU64(field: string, value: number): void {
    this.setBig(field, BigInt(value));
  }

  setBig(field: string, value: bigint): void {
    this.#view.setBigUint64(this.#at(field, 0), value, true);
  }

  /** Cut at the field's size, at a character's start. */
  setText(field: string, text: string): void {
    const at = this.#at(field, 0);
    const size = this.#fields.get(field)?.size ?? 0;
    new TextEncoder().encodeInto(text, this.bytes.subarray(at, at + size));
  }
}
