/**
 * Arrays of what is no number: of structs, locks, atomics, texts.
 *
 * @module
 */

import { describe } from "../ffi/native.ts";
import { readText, writeText } from "./text.ts";

/** Longer arrays make the object for an element anew each time: kept, they would fill the heap. */
const KEPT_MAX = 65_536;

/** What is thrown for an index that there is not. */
export function badIndex(index: number, count: number, name: string): Error {
  return typeof index === "number"
    ? new RangeError(
      `Field "${name}" has elements 0 to ${count - 1}; there is no element ${index}.`,
    )
    : new TypeError(`An index of field "${name}" is ${describe(index)}.`);
}

function checkIndex(index: number, count: number, name: string): void {
  // Fails for what is no number, too.
  if (index >= 0 && index < count && Number.isInteger(index)) return;
  throw badIndex(index, count, name);
}

/**
 * Elements that are objects: structs, locks, atomics, arrays.
 *
 * Of structs that have only numbers, texts and locks, each call makes a view, which engines
 * leave out again where nobody keeps it. All else is made when it is first asked for, and kept,
 * up to 65,536 elements; in longer arrays it is made each time.
 */
export abstract class FieldArray<T> implements Iterable<T> {
  /** How many elements there are. */
  declare readonly length: number;

  /**
   * Internal: made by a view, never by hand.
   *
   * @ignore
   */
  constructor(length: number) {
    this.length = length;
  }

  /**
   * The element. Unlike an array's `at`, it does not count from the end.
   *
   * @throws {RangeError} there is no such element. What the element throws: a lock what
   * {@linkcode Segment.lockAt} does.
   */
  abstract at(index: number): T;

  /** All elements, from the first on. */
  *[Symbol.iterator](): Iterator<T> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

/** Of elements that have objects of their own. */
export class KeptArray<T> extends FieldArray<T> {
  readonly #name: string;
  readonly #make: (index: number) => T;
  /** Stays empty in a long one. */
  readonly #kept: (T | undefined)[];

  constructor(name: string, length: number, make: (index: number) => T) {
    super(length);
    this.#name = name;
    this.#make = make;
    this.#kept = new Array(length <= KEPT_MAX ? length : 0);
  }

  override at(index: number): T {
    const kept = this.#kept[index];
    return kept === undefined ? this.#first(index) : kept;
  }

  #first(index: number): T {
    checkIndex(index, this.length, this.#name);
    const element = this.#make(index);
    if (this.length <= KEPT_MAX) this.#kept[index] = element;
    return element;
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

  /**
   * The text at this index.
   *
   * @throws {RangeError} there is no such element. {@linkcode TypeError}: the buffer is detached.
   */
  at(index: number): string {
    checkIndex(index, this.length, this.#name);
    return readText(this.#bytes, index * this.#size, this.#size);
  }

  /**
   * Puts a text there, whole or not at all.
   *
   * @throws As assigning to a {@linkcode text}. {@linkcode RangeError}: there is no such element.
   * {@linkcode TypeError}: the buffer is detached.
   */
  set(index: number, value: string): void {
    checkIndex(index, this.length, this.#name);
    const name = `${this.#name}[${index}]`;
    writeText(this.#bytes, index * this.#size, this.#size, value, name);
  }

  /** All of them, from the first on. */
  *[Symbol.iterator](): Iterator<string> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}
