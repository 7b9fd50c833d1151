/**
 * The memory under views: typed arrays over one stretch of a buffer, which all views of the stretch
 * share.
 *
 * A detached buffer is what this has to be careful of. Typed arrays over one have no elements:
 * reading gives undefined, which is never a value and so tells, at no cost, for engines know that
 * an element is a number. Storing is lost without a word. So whoever has stored reads the element
 * again: afterwards and not before, for a value's own `valueOf` may detach the buffer, too. Asking
 * for `array.length` would cost four times the store.
 *
 * Bigints go through a `DataView`, which throws by itself: in Bun that takes half the time of a
 * `BigUint64Array`, where reading makes an object each time; in Deno a tenth of a nanosecond more.
 *
 * @module
 */

import type { Place } from "./place.ts";

/** By which of its properties a memory is read: a typed array, or for bigints `data`. */
export type Kind = "i8" | "u8" | "i16" | "u16" | "i32" | "u32" | "f32" | "f64" | "data";

/** For a `DataView`, which is for one order of bytes as well as for the other. */
export const isLittleEndian: boolean = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** For kinds that nobody reads: a typed array all the same, so that all memories look the same. */
const NONE = {
  i8: new Int8Array(),
  u8: new Uint8Array(),
  i16: new Int16Array(),
  u16: new Uint16Array(),
  i32: new Int32Array(),
  u32: new Uint32Array(),
  f32: new Float32Array(),
  f64: new Float64Array(),
  data: new DataView(new ArrayBuffer(0)),
};

/** The arrays of some kinds over a stretch, from its first byte on. */
export class Memory {
  /** Where the stretch begins; for locks. */
  readonly place: Place;
  readonly i8: Int8Array<ArrayBuffer>;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly i16: Int16Array<ArrayBuffer>;
  readonly u16: Uint16Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly f32: Float32Array<ArrayBuffer>;
  readonly f64: Float64Array<ArrayBuffer>;
  readonly data: DataView<ArrayBuffer>;

  /** @param size In bytes; a multiple of the size of each kind. */
  constructor(place: Place, size: number, kinds: ReadonlySet<Kind>) {
    const { buffer, offset } = place;
    const has = (kind: Kind): boolean => kinds.has(kind);
    this.place = place;
    this.i8 = has("i8") ? new Int8Array(buffer, offset, size) : NONE.i8;
    this.u8 = has("u8") ? new Uint8Array(buffer, offset, size) : NONE.u8;
    this.i16 = has("i16") ? new Int16Array(buffer, offset, size / 2) : NONE.i16;
    this.u16 = has("u16") ? new Uint16Array(buffer, offset, size / 2) : NONE.u16;
    this.i32 = has("i32") ? new Int32Array(buffer, offset, size / 4) : NONE.i32;
    this.u32 = has("u32") ? new Uint32Array(buffer, offset, size / 4) : NONE.u32;
    this.f32 = has("f32") ? new Float32Array(buffer, offset, size / 4) : NONE.f32;
    this.f64 = has("f64") ? new Float64Array(buffer, offset, size / 8) : NONE.f64;
    this.data = has("data") ? new DataView(buffer, offset, size) : NONE.data;
  }
}

/** What is thrown where an element is not there. */
export function gone(): never {
  throw new TypeError(
    "The buffer of this view is detached. Ask the registry for the segment again, and make a view.",
  );
}
