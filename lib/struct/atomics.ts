/**
 * Atomic fields of a struct: small objects that mean one number in shared memory.
 *
 * @module
 */

import type { WordWait } from "../parking.ts";
import type { Place } from "./place.ts";
import type { AsyncWaitOptions } from "../wait.ts";

/**
 * A 32-bit number that several processes change at once: what `Atomics` does, on this field.
 * Every call is one sequentially consistent operation. Numbers are taken as `Atomics` takes
 * them: modulo 2 to the 32.
 *
 * After the segment's `detach()` every call throws: a `TypeError` those on the memory, `DETACHED`
 * those that wait and notify.
 *
 * @example
 * ```ts
 * import { atomicU32, Registry, struct } from "@dsmr/registry";
 *
 * const layout = struct({ hits: atomicU32 });
 * using registry = Registry.openSync("doc-atomic");
 * const view = layout.view(registry.getNamedSegmentSync("page", layout.size));
 * view.hits.add(1); // no hit is lost, however many processes count
 * console.log(view.hits.load());
 * Registry.destroy("doc-atomic");
 * ```
 */
export class AtomicNumber {
  readonly #array: Int32Array | Uint32Array;
  readonly #place: Place;

  /**
   * Internal: made by a view, never by hand.
   *
   * @ignore
   */
  constructor(array: Int32Array | Uint32Array, place: Place) {
    this.#array = array;
    this.#place = place;
  }

  /** The number. */
  load(): number {
    return Atomics.load(this.#array, 0);
  }

  /** Sets it. */
  store(value: number): void {
    Atomics.store(this.#array, 0, value);
  }

  /** Adds to it; returns what it was. */
  add(value: number): number {
    return Atomics.add(this.#array, 0, value);
  }

  /** Subtracts from it; returns what it was. */
  sub(value: number): number {
    return Atomics.sub(this.#array, 0, value);
  }

  /** Keeps the bits that `value` has, too; returns what it was. */
  and(value: number): number {
    return Atomics.and(this.#array, 0, value);
  }

  /** Sets the bits that `value` has; returns what it was. */
  or(value: number): number {
    return Atomics.or(this.#array, 0, value);
  }

  /** Flips the bits that `value` has; returns what it was. */
  xor(value: number): number {
    return Atomics.xor(this.#array, 0, value);
  }

  /** Sets it; returns what it was. */
  exchange(value: number): number {
    return Atomics.exchange(this.#array, 0, value);
  }

  /** Sets it if it is `expected`; returns what it was, which tells whether it was set. */
  compareExchange(expected: number, replacement: number): number {
    return Atomics.compareExchange(this.#array, 0, expected, replacement);
  }

  /**
   * Waits until somebody notifies; see {@linkcode Segment.wait}.
   *
   * @throws As {@linkcode Segment.wait}. {@linkcode DsmrError} `UNSUPPORTED`: the view is over a
   * mere buffer.
   */
  async wait(expected: number, options?: AsyncWaitOptions): Promise<WordWait> {
    const { offset } = this.#place;
    return await this.#place.segment("Waiting").wait(offset, expected, options);
  }

  /** As {@linkcode wait}; blocks the thread. */
  waitSync(expected: number, options?: { timeout?: number }): WordWait {
    return this.#place.segment("Waiting").waitSync(this.#place.offset, expected, options);
  }

  /**
   * Wakes who waits for it; see {@linkcode Segment.notify}.
   *
   * @param count How many at most. Default: all.
   * @returns how many.
   * @throws As {@linkcode Segment.notify}. {@linkcode DsmrError} `UNSUPPORTED`: the view is over a
   * mere buffer.
   */
  notify(count?: number): number {
    return this.#place.segment("Notifying").notify(this.#place.offset, count);
  }
}

/**
 * A 64-bit number that several processes change at once; see {@linkcode AtomicNumber}. Numbers
 * are taken modulo 2 to the 64. There is no waiting for it: futexes are 32 bits wide.
 */
export class AtomicBigint {
  readonly #array: BigInt64Array | BigUint64Array;

  /**
   * Internal: made by a view, never by hand.
   *
   * @ignore
   */
  constructor(array: BigInt64Array | BigUint64Array) {
    this.#array = array;
  }

  /** The number. */
  load(): bigint {
    return Atomics.load(this.#array, 0);
  }

  /** Sets it. */
  store(value: bigint): void {
    Atomics.store(this.#array, 0, value);
  }

  /** Adds to it; returns what it was. */
  add(value: bigint): bigint {
    return Atomics.add(this.#array, 0, value);
  }

  /** Subtracts from it; returns what it was. */
  sub(value: bigint): bigint {
    return Atomics.sub(this.#array, 0, value);
  }

  /** Keeps the bits that `value` has, too; returns what it was. */
  and(value: bigint): bigint {
    return Atomics.and(this.#array, 0, value);
  }

  /** Sets the bits that `value` has; returns what it was. */
  or(value: bigint): bigint {
    return Atomics.or(this.#array, 0, value);
  }

  /** Flips the bits that `value` has; returns what it was. */
  xor(value: bigint): bigint {
    return Atomics.xor(this.#array, 0, value);
  }

  /** Sets it; returns what it was. */
  exchange(value: bigint): bigint {
    return Atomics.exchange(this.#array, 0, value);
  }

  /** Sets it if it is `expected`; returns what it was, which tells whether it was set. */
  compareExchange(expected: bigint, replacement: bigint): bigint {
    return Atomics.compareExchange(this.#array, 0, expected, replacement);
  }
}
