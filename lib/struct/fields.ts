/**
 * Fields that are no mere numbers: atomics, locks, texts, bytes, arrays.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import { describe } from "../ffi/native.ts";
import type { LWLock } from "../lwlock.ts";
import { FieldArray, TextArray } from "./arrays.ts";
import { AtomicBigint, AtomicNumber } from "./atomics.ts";
import { type Accessor, Field, ObjectField, PLACE, type Placed, ValueField } from "./field.ts";
import type { Place } from "./place.ts";
import { ScalarField } from "./scalars.ts";
import { readText, writeText } from "./text.ts";

/** Bytes that a struct may have, and elements that an array may. */
export const SIZE_MAX = 2 ** 40;

class AtomicNumberField extends ObjectField<AtomicNumber> {
  readonly #array: typeof Int32Array | typeof Uint32Array;

  constructor(type: string, array: typeof Int32Array | typeof Uint32Array) {
    super(type, 4, 4);
    this.#array = array;
  }

  override make(place: Place): AtomicNumber {
    return new AtomicNumber(new this.#array(place.buffer, place.offset, 1), place);
  }
}

class AtomicBigintField extends ObjectField<AtomicBigint> {
  readonly #array: typeof BigInt64Array | typeof BigUint64Array;

  constructor(type: string, array: typeof BigInt64Array | typeof BigUint64Array) {
    super(type, 8, 8);
    this.#array = array;
  }

  override make(place: Place): AtomicBigint {
    return new AtomicBigint(new this.#array(place.buffer, place.offset, 1));
  }
}

/** A number of 32 bits, with a sign, that several processes change at once. */
export const atomicI32: ObjectField<AtomicNumber> = new AtomicNumberField("atomicI32", Int32Array);
/** A number of 32 bits, 0 or more, that several processes change at once. */
export const atomicU32: ObjectField<AtomicNumber> = new AtomicNumberField("atomicU32", Uint32Array);
/** A bigint of 64 bits, with a sign, that several processes change at once. */
export const atomicI64: ObjectField<AtomicBigint> = new AtomicBigintField(
  "atomicI64",
  BigInt64Array,
);
/** A bigint of 64 bits, 0 or more, that several processes change at once. */
export const atomicU64: ObjectField<AtomicBigint> = new AtomicBigintField(
  "atomicU64",
  BigUint64Array,
);

/** A lock's bytes, and its alignment: a cache line. The library is asked when one is made. */
const LOCK_SIZE = 64;

class LockField extends ObjectField<LWLock> {
  constructor() {
    super("lwlock", LOCK_SIZE, LOCK_SIZE);
  }

  /** Not before it is asked for: in the init callback there is no lock yet. */
  override accessorAt(offset: number): Accessor<LWLock> {
    return {
      get(): LWLock {
        return (this as unknown as Placed)[PLACE].lock(offset);
      },
    };
  }

  override make(place: Place): LWLock {
    return place.lock(0);
  }

  override *locks(offset: number): Iterable<number> {
    yield offset;
  }

  override get hasLocks(): boolean {
    return true;
  }
}

/**
 * A lock, 64 bytes aligned to 64. {@linkcode Struct.init} makes it, inside the init callback; read,
 * it is the {@linkcode LWLock}. Needs a view of a segment.
 */
export const lwlock: ObjectField<LWLock> = new LockField();

function checkCount(what: string, count: number, size: number): void {
  if (typeof count !== "number") throw new TypeError(`The ${what} is ${describe(count)}.`);
  if (Number.isSafeInteger(count) && count >= 1 && count * size <= SIZE_MAX) return;
  throw new DsmrError(
    "SIZE_INVALID",
    `The ${what} is ${count}; it must be a whole number from 1 to ${Math.floor(SIZE_MAX / size)}.`,
    { actual: SIZE_MAX, requested: count },
  );
}

class TextField extends ValueField<string> {
  constructor(size: number) {
    super(`text(${size})`, size, 1);
  }

  override accessorAt(offset: number, name: string): Accessor<string> {
    const { size } = this;
    return {
      get(): string {
        return readText(this, offset, size);
      },
      set(value: string): void {
        writeText(this, offset, size, value, name);
      },
    };
  }

  override make(): string {
    throw new TypeError("A text is no object.");
  }
}

/**
 * A text of up to `size` bytes of UTF-8, with NULs behind a shorter one; C's `char[size]`, which
 * has no NUL when it is full. It is assigned whole or not at all: too long is an error, and
 * never a text that was cut. It is no atomic: use a lock where others read it meanwhile.
 *
 * Assigning throws a {@linkcode DsmrError} `SIZE_INVALID` for one that is too long, a `RangeError`
 * for one with a NUL or half a surrogate pair. Reading what is no UTF-8 gives U+FFFD for it.
 *
 * @param size In bytes, 1 or more.
 * @throws {DsmrError} `SIZE_INVALID`: the size.
 */
export function text(size: number): ValueField<string> {
  checkCount("size of a text", size, 1);
  return new TextField(size);
}

class BytesField extends ObjectField<Uint8Array<ArrayBuffer>> {
  constructor(size: number) {
    super(`bytes(${size})`, size, 1);
  }

  override make(place: Place): Uint8Array<ArrayBuffer> {
    return new Uint8Array(place.buffer, place.offset, this.size);
  }
}

/**
 * So many bytes, read as a `Uint8Array` over them.
 *
 * @param size In bytes, 1 or more.
 * @throws {DsmrError} `SIZE_INVALID`: the size.
 */
export function bytes(size: number): ObjectField<Uint8Array<ArrayBuffer>> {
  checkCount("size of bytes", size, 1);
  return new BytesField(size);
}

class ArrayField<T> extends ObjectField<T> {
  readonly #element: Field<unknown>;
  readonly #count: number;
  readonly #make: (place: Place, name: string) => T;

  constructor(
    element: Field<unknown>,
    count: number,
    make: (place: Place, name: string) => T,
  ) {
    super(`array(${element.type}, ${count})`, element.size * count, element.align);
    this.#element = element;
    this.#count = count;
    this.#make = make;
  }

  override make(place: Place, name: string): T {
    return this.#make(place, name);
  }

  override lines(name: string, offset: number): string[] {
    const inner = this.#element.lines(`${name}[]`, 0);
    // Of a scalar there is nothing more to say.
    return [...super.lines(name, offset), ...inner.slice(1)];
  }

  override *locks(offset: number): Iterable<number> {
    if (!this.hasLocks) return;
    for (let i = 0; i < this.#count; i++) {
      yield* this.#element.locks(offset + i * this.#element.size);
    }
  }

  override get hasLocks(): boolean {
    return this.#element.hasLocks;
  }
}

/**
 * So many of another field, one behind the other; C's `element[count]`. Of numbers and bigints it
 * is the typed array itself, of booleans a `Uint8Array`; of texts a {@linkcode TextArray}; of all
 * else, such as structs, a {@linkcode FieldArray}.
 *
 * @param count 1 or more.
 * @throws {DsmrError} `SIZE_INVALID`: the count. {@linkcode TypeError}: the element is no field.
 */
export function array<T, A>(element: ScalarField<T, A>, count: number): ObjectField<A>;
/** Of texts. */
export function array(element: ValueField<string>, count: number): ObjectField<TextArray>;
/** Of all else. */
export function array<T>(element: ObjectField<T>, count: number): ObjectField<FieldArray<T>>;
export function array(element: Field<unknown>, count: number): ObjectField<unknown> {
  if (!(element instanceof Field)) {
    throw new TypeError(`The element of an array is ${describe(element)}, not a field.`);
  }
  checkCount("count of an array", count, element.size);
  const { size } = element;
  if (element instanceof ScalarField) {
    const { arrayMaker } = element as ScalarField<unknown, unknown>;
    return new ArrayField(
      element,
      count,
      ({ buffer, offset }) => new arrayMaker(buffer, offset, count),
    );
  }
  if (element instanceof TextField) {
    return new ArrayField(element, count, (place, name) => {
      const all = new DataView(place.buffer, place.offset, count * size);
      return new TextArray(all, size, count, name);
    });
  }
  return new ArrayField(
    element,
    count,
    (place, name) =>
      new FieldArray(
        name,
        count,
        (index) => element.make(place.at(index * size), `${name}[${index}]`),
      ),
  );
}
