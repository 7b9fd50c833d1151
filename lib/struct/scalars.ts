/**
 * Fields that are numbers, bigints and booleans.
 *
 * A view is an object with the innards of a `DataView`, and accessors of its layout on its
 * prototype. Engines inline `getUint32` and its like by what the object is inside, which is the
 * same for all layouts. And it is safe: on a detached buffer reads and stores throw.
 *
 * Measured against it, after forty other layouts, in the tightest loops of one field:
 * - typed arrays held by the view, closures over the index: the same, but for stores in Deno, 0.3
 *   ns and not 0.5. Making a view costs four times as much in Bun. On a detached buffer a store is
 *   lost without a word.
 * - generated source, a class for each layout: as those, and 1.5 ns and not 3.3 for `view.total +=
 *   x` with an `f64` in Bun. It would need `new Function`.
 * Nobody sees such differences beside the rest of a program; everybody sees a lost store.
 *
 * Each kind has accessors of its own in the source: engines keep what they learn about a call with
 * the source of it, and a helper that all kinds share would be slow in all.
 *
 * @module
 */

import { type Accessor, ValueField } from "./field.ts";

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** A typed array over a buffer, of a given class. */
type ArrayMaker<A> = new (buffer: ArrayBuffer, byteOffset: number, length: number) => A;

/** A number, a bigint or a boolean; `A` is the typed array that an array of them is. */
export class ScalarField<T, A> extends ValueField<T> {
  readonly #accessor: (offset: number) => Accessor<T>;
  /** @ignore */
  readonly arrayMaker: ArrayMaker<A>;

  /** @ignore */
  constructor(
    type: string,
    size: number,
    arrayMaker: ArrayMaker<A>,
    accessor: (offset: number) => Accessor<T>,
  ) {
    super(type, size, size);
    this.arrayMaker = arrayMaker;
    this.#accessor = accessor;
  }

  /** @ignore */
  override accessorAt(offset: number): Accessor<T> {
    return this.#accessor(offset);
  }

  /** @ignore */
  override make(): T {
    throw new TypeError(`A ${this.type} is no object.`);
  }
}

const {
  getInt8,
  setInt8,
  getUint8,
  setUint8,
  getInt16,
  setInt16,
  getUint16,
  setUint16,
  getInt32,
  setInt32,
  getUint32,
  setUint32,
  getFloat32,
  setFloat32,
  getFloat64,
  setFloat64,
  getBigInt64,
  setBigInt64,
  getBigUint64,
  setBigUint64,
} = DataView.prototype;

/** A whole number, -128 to 127. */
export const i8: ScalarField<number, Int8Array<ArrayBuffer>> = new ScalarField(
  "i8",
  1,
  Int8Array,
  (offset) => ({
    get(): number {
      return getInt8.call(this, offset);
    },
    set(value: number): void {
      setInt8.call(this, offset, value);
    },
  }),
);

/** A whole number, 0 to 255. */
export const u8: ScalarField<number, Uint8Array<ArrayBuffer>> = new ScalarField(
  "u8",
  1,
  Uint8Array,
  (offset) => ({
    get(): number {
      return getUint8.call(this, offset);
    },
    set(value: number): void {
      setUint8.call(this, offset, value);
    },
  }),
);

/** A whole number of 16 bits, with a sign. */
export const i16: ScalarField<number, Int16Array<ArrayBuffer>> = new ScalarField(
  "i16",
  2,
  Int16Array,
  (offset) => ({
    get(): number {
      return getInt16.call(this, offset, isLittleEndian);
    },
    set(value: number): void {
      setInt16.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A whole number of 16 bits, 0 or more. */
export const u16: ScalarField<number, Uint16Array<ArrayBuffer>> = new ScalarField(
  "u16",
  2,
  Uint16Array,
  (offset) => ({
    get(): number {
      return getUint16.call(this, offset, isLittleEndian);
    },
    set(value: number): void {
      setUint16.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A whole number of 32 bits, with a sign. */
export const i32: ScalarField<number, Int32Array<ArrayBuffer>> = new ScalarField(
  "i32",
  4,
  Int32Array,
  (offset) => ({
    get(): number {
      return getInt32.call(this, offset, isLittleEndian);
    },
    set(value: number): void {
      setInt32.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A whole number of 32 bits, 0 or more. */
export const u32: ScalarField<number, Uint32Array<ArrayBuffer>> = new ScalarField(
  "u32",
  4,
  Uint32Array,
  (offset) => ({
    get(): number {
      return getUint32.call(this, offset, isLittleEndian);
    },
    set(value: number): void {
      setUint32.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A floating-point number of 32 bits; C's `float`. */
export const f32: ScalarField<number, Float32Array<ArrayBuffer>> = new ScalarField(
  "f32",
  4,
  Float32Array,
  (offset) => ({
    get(): number {
      return getFloat32.call(this, offset, isLittleEndian);
    },
    set(value: number): void {
      setFloat32.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A floating-point number of 64 bits; C's `double`. */
export const f64: ScalarField<number, Float64Array<ArrayBuffer>> = new ScalarField(
  "f64",
  8,
  Float64Array,
  (offset) => ({
    get(): number {
      return getFloat64.call(this, offset, isLittleEndian);
    },
    set(value: number): void {
      setFloat64.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A bigint of 64 bits, with a sign. */
export const i64: ScalarField<bigint, BigInt64Array<ArrayBuffer>> = new ScalarField(
  "i64",
  8,
  BigInt64Array,
  (offset) => ({
    get(): bigint {
      return getBigInt64.call(this, offset, isLittleEndian);
    },
    set(value: bigint): void {
      setBigInt64.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** A bigint of 64 bits, 0 or more. */
export const u64: ScalarField<bigint, BigUint64Array<ArrayBuffer>> = new ScalarField(
  "u64",
  8,
  BigUint64Array,
  (offset) => ({
    get(): bigint {
      return getBigUint64.call(this, offset, isLittleEndian);
    },
    set(value: bigint): void {
      setBigUint64.call(this, offset, value, isLittleEndian);
    },
  }),
);

/** True or false, one byte; C's `bool`. Any byte but 0 reads as true. */
export const bool: ScalarField<boolean, Uint8Array<ArrayBuffer>> = new ScalarField(
  "bool",
  1,
  Uint8Array,
  (offset) => ({
    get(): boolean {
      return getUint8.call(this, offset) !== 0;
    },
    set(value: boolean): void {
      setUint8.call(this, offset, value ? 1 : 0);
    },
  }),
);
