/**
 * Fields that are numbers, bigints and booleans.
 *
 * @module
 */

import { ValueField } from "./field.ts";
import { gone, isLittleEndian, type Kind, type Memory } from "./memory.ts";

/** A typed array over a buffer, of a given class. */
type ArrayMaker<A> = new (buffer: ArrayBuffer, byteOffset: number, length: number) => A;

type ScalarType = Exclude<Kind, "data"> | "i64" | "u64" | "bool";

/** A number, a bigint or a boolean; `A` is the typed array that an array of them is. */
export class ScalarField<T, A> extends ValueField<T> {
  /** @ignore */
  declare readonly kind: Kind;
  /** @ignore */
  readonly arrayMaker: ArrayMaker<A>;

  /** @ignore */
  constructor(type: ScalarType, size: number, arrayMaker: ArrayMaker<A>) {
    super(type, size, size);
    this.kind = type === "bool" ? "u8" : type === "i64" || type === "u64" ? "data" : type;
    this.arrayMaker = arrayMaker;
  }

  /**
   * Only where views.ts may not generate the same as source: every kind shares this.
   *
   * @ignore
   */
  override read(memory: Memory, offset: number): T {
    return this.#read(memory, offset) as T;
  }

  #read(memory: Memory, offset: number): unknown {
    const { kind, type } = this;
    if (kind === "data") {
      const { data } = memory;
      return type === "i64"
        ? data.getBigInt64(offset, isLittleEndian)
        : data.getBigUint64(offset, isLittleEndian);
    }
    const value = memory[kind][offset / this.size] ?? gone();
    return type === "bool" ? value !== 0 : value;
  }

  /** @ignore */
  override write(memory: Memory, offset: number, value: T): void {
    const { kind, type } = this;
    if (kind === "data") {
      const { data } = memory;
      if (type === "i64") data.setBigInt64(offset, value as bigint, isLittleEndian);
      else data.setBigUint64(offset, value as bigint, isLittleEndian);
      return;
    }
    const index = offset / this.size;
    const array = memory[kind];
    array[index] = type === "bool" ? (value ? 1 : 0) : value as number;
    if (array[index] === undefined) gone();
  }

  /** @ignore */
  override make(): T {
    throw new TypeError(`A ${this.type} is no object.`);
  }
}

/** A whole number, -128 to 127. */
export const i8: ScalarField<number, Int8Array<ArrayBuffer>> = new ScalarField("i8", 1, Int8Array);
/** A whole number, 0 to 255. */
export const u8: ScalarField<number, Uint8Array<ArrayBuffer>> = new ScalarField(
  "u8",
  1,
  Uint8Array,
);
/** A whole number of 16 bits, with a sign. */
export const i16: ScalarField<number, Int16Array<ArrayBuffer>> = new ScalarField(
  "i16",
  2,
  Int16Array,
);
/** A whole number of 16 bits, 0 or more. */
export const u16: ScalarField<number, Uint16Array<ArrayBuffer>> = new ScalarField(
  "u16",
  2,
  Uint16Array,
);
/** A whole number of 32 bits, with a sign. */
export const i32: ScalarField<number, Int32Array<ArrayBuffer>> = new ScalarField(
  "i32",
  4,
  Int32Array,
);
/** A whole number of 32 bits, 0 or more. */
export const u32: ScalarField<number, Uint32Array<ArrayBuffer>> = new ScalarField(
  "u32",
  4,
  Uint32Array,
);
/** A floating-point number of 32 bits; C's `float`. */
export const f32: ScalarField<number, Float32Array<ArrayBuffer>> = new ScalarField(
  "f32",
  4,
  Float32Array,
);
/** A floating-point number of 64 bits; C's `double`. */
export const f64: ScalarField<number, Float64Array<ArrayBuffer>> = new ScalarField(
  "f64",
  8,
  Float64Array,
);
/** A bigint of 64 bits, with a sign. */
export const i64: ScalarField<bigint, BigInt64Array<ArrayBuffer>> = new ScalarField(
  "i64",
  8,
  BigInt64Array,
);
/** A bigint of 64 bits, 0 or more. */
export const u64: ScalarField<bigint, BigUint64Array<ArrayBuffer>> = new ScalarField(
  "u64",
  8,
  BigUint64Array,
);
/** True or false, one byte; C's `bool`. Any byte but 0 reads as true. */
export const bool: ScalarField<boolean, Uint8Array<ArrayBuffer>> = new ScalarField(
  "bool",
  1,
  Uint8Array,
);
