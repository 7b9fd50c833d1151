/**
 * Arrays of what is no number: of structs, locks, atomics, texts.
 *
 * @module
 */

import { describe } from "./ffi/native.ts";
import { readText, writeText } from "./struct_text.ts";

/** Longer arrays make the object for an element anew each time: kept, they would fill the heap. */
const KEPT_MAX = 65_536;

function checkIndex(index: number, count: number, name: string): void {
  // Fails for what is no number, too.
  if (index >= 0 && index < count && Number.isInteger(index)) return;
  if (typeof index !== "number") {
    throw new TypeError(`An index of field "${name}" is ${describe(index)}.`);
  }
  throw new RangeError(
    `Field "${name}" has elements 0 to ${count - 1}; there is no element ${index}.`,
  );
}

/**
 * Elements that are objects: structs, locks, atomics, arrays. The object of an element is made when
 * it is first asked for, and kept, up to 65,536 elements; in longer arrays it is made each time, and
 * one that is used in a loop is best held by the program.
 */
export class FieldArray<T> implements Iterable<T> {
  readonly #name: string;
  readonly #make: (index: number) => T;
  readonly #kept: (T | undefined)[] | undefined;

  /** How many elements there are. */
  readonly length: number;

  /**
   * Internal: made by a view, never by hand.
   *
   * @ignore
   */
  constructor(name: string, length: number, make: (index: number) => T) {
    this.#name = name;
    this.#make = make;
    this.length = length;
    this.#kept = length <= KEPT_MAX ? new Array(length) : undefined;
  }

  /**
   * The element. Unlike an array's `at`, it does not count from the end.
   *
   * @throws {RangeError} there is no such element. What the element throws: a lock what
   * {@linkcode Segment.lockAt} does.
   */
  at(index: number): T {
    return this.#kept?.[index] ?? this.#first(index);
  }

  #first(index: number): T {
    checkIndex(index, this.length, this.#name);
    const element = this.#make(index);
    if (this.#kept !== undefined) this.#kept[index] = element;
    return element;
  }

  /** All elements, from the first on. */
  *[Symbol.iterator](): Iterator<T> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

/** Texts of fixed size, one behind the other. */
export class TextArray implements Iterable<string> {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #size: number;
  readonly #name: string;

  /** How many there are. */
  readonly length: number;

  /**
   * Internal: made by a view, never by hand.
   *
   * @ignore
   */
  constructor(bytes: Uint8Array<ArrayBuffer>, size: number, length: number, name: string) {
    this.#bytes = bytes;
    this.#size = size;
    this.#name = name;
    this.length = length;
  }

  #of(index: number): Uint8Array<ArrayBuffer> {
    checkIndex(index, this.length, this.#name);
    // Unlike subarray it throws when the buffer is detached.
    const { buffer, byteOffset } = this.#bytes;
    if (buffer.detached) throw new TypeError(`Field "${this.#name}" is of a detached buffer.`);
    return new Uint8Array(buffer, byteOffset + index * this.#size, this.#size);
  }

  /**
   * The text at this index.
   *
   * @throws {RangeError} there is no such element. {@linkcode TypeError}: the buffer is detached.
   */
  at(index: number): string {
    return readText(this.#of(index));
  }

  /**
   * Puts a text there, whole or not at all.
   *
   * @throws As assigning to a {@linkcode text}. {@linkcode RangeError}: there is no such element.
   * {@linkcode TypeError}: the buffer is detached.
   */
  set(index: number, value: string): void {
    writeText(this.#of(index), value, `${this.#name}[${index}]`);
  }

  /** All of them, from the first on. */
  *[Symbol.iterator](): Iterator<string> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}
