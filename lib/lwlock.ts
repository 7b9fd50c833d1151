/**
 * The lock: exclusive or shared, across processes, which no crash can wedge.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { buildAdvice, describe, encodeTimeout, lastError, native, quote } from "./ffi/native.ts";
import type { Calls } from "./ffi/symbols.ts";
import { isPromise } from "./promise.ts";
import type { Segment } from "./segment.ts";

/** One holder, or many. */
export type LockMode = "exclusive" | "shared";

/** How long to wait. */
export interface WaitOptions {
  /** In milliseconds. Default: for ever. */
  timeout?: number;
}

/** Mends a segment's data after an exclusive holder of its lock has died inside. */
export type Repair = (segment: Segment) => void;

/** What {@linkcode LWLock.waitForVarSync} found. */
export interface VarState {
  /** True when nobody holds the lock exclusively any more. */
  released: boolean;
  /** The variable's value, where it has another one than expected; else the expected one. */
  value: bigint;
}

// Named in TypeScript, asserted against the library when the first lock is made.
const SHARED = 1;
const EXCLUSIVE = 2;
const ABANDONED = 1;
const BUSY = 2;
const NOT_YET = 3;
const STATE_ABANDONED = 4;

function assertNumbers(): void {
  const { number } = native();
  const expected = {
    DSMR_SHARED: SHARED,
    DSMR_EXCLUSIVE: EXCLUSIVE,
    DSMR_LOCK_ABANDONED: ABANDONED,
    DSMR_LOCK_BUSY: BUSY,
    DSMR_LOCK_NOT_YET: NOT_YET,
  };
  for (const [name, value] of Object.entries(expected)) {
    if (number(name) !== value) {
      throw new DsmrError(
        "VERSION_MISMATCH",
        `${name} is ${number(name)} in the native library and ${value} in the TypeScript. ` +
          `The library is of another version. ${buildAdvice}.`,
      );
    }
  }
}

function modeNumber(mode: LockMode): number {
  if (mode === "exclusive") return EXCLUSIVE;
  if (mode === "shared") return SHARED;
  throw new TypeError(`The mode is ${quote(mode)}, not "exclusive" or "shared".`);
}

/**
 * A lock in a segment: PostgreSQL's LWLock, with timeouts, and with recovery.
 *
 * Held by a backend (a process, or one Worker of it). Taking and releasing it uncontended is
 * one atomic operation each, without a system call. Comes from {@linkcode Segment.lock} or
 * {@linkcode Segment.lockAt}.
 *
 * When a holder dies, the others go on. A shared holder is just taken out of it. An exclusive
 * one may have left the data half-changed: the lock is then {@linkcode abandoned}, which the
 * next exclusive owner finds, mends and clears with {@linkcode markConsistent}; the segment's
 * `repair` callback, if it was given, does both before the acquiring call returns.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * using registry = Registry.openSync("doc-lock");
 * const segment = registry.getNamedSegmentSync("account", 16);
 * const amounts = new Float64Array(segment.buffer);
 * segment.lock.withSync("exclusive", () => {
 *   amounts[0] -= 10;
 *   amounts[1] += 10;
 * });
 * Registry.destroy("doc-lock");
 * ```
 */
export class LWLock {
  readonly #segment: Segment;
  readonly #handle: number;
  readonly #calls: Calls;
  readonly #repair: () => Repair | undefined;

  /**
   * Internal: made by the segment, never by hand.
   *
   * @ignore
   */
  constructor(segment: Segment, handle: number, repair: () => Repair | undefined) {
    assertNumbers();
    this.#segment = segment;
    this.#handle = handle;
    this.#calls = native().calls;
    this.#repair = repair;
  }

  /**
   * Takes the lock; as LWLockAcquire. Blocks the thread until it is to be had.
   *
   * @throws {DsmrError} `TIMEOUT`; `ALREADY_HELD`: by this backend, in any mode; `DEADLOCK`:
   * its holder waits, in the end, for this backend (found after some 20 ms; exactly one of the
   * cycle gets it); `NO_SPACE`: 128 locks are held; `ABANDONED`: the `repair` callback threw
   * (see `cause`), the lock is released and still abandoned; `DETACHED`, `CLOSED`. After
   * any of these it is not held.
   */
  acquireSync(mode: LockMode = "exclusive", options?: WaitOptions): void {
    const number = modeNumber(mode);
    const timeout = options ? encodeTimeout(options.timeout) : -1;
    const status = this.#calls.dsmr_lock_acquire(this.#handle, number, timeout);
    if (status !== 0) this.#acquireSlowly(status, number, timeout);
  }

  #acquireSlowly(status: number, mode: number, timeout: number): void {
    // In slices, so that a Worker that waits can be terminated.
    while (status === BUSY) status = this.#calls.dsmr_lock_acquire(this.#handle, mode, timeout);
    this.#check(status, timeout);
    if (status === ABANDONED) this.#mend();
  }

  /**
   * Takes the lock if it is free at once; as LWLockConditionalAcquire. Never waits.
   *
   * @returns false if it is not, and nothing has changed.
   * @throws {DsmrError} As {@linkcode acquireSync}, but for `TIMEOUT` and `DEADLOCK`.
   */
  tryAcquire(mode: LockMode = "exclusive"): boolean {
    const status = this.#calls.dsmr_lock_try(this.#handle, modeNumber(mode));
    if (status === 0) return true;
    if (status === BUSY) return false;
    this.#check(status, -1);
    this.#mend();
    return true;
  }

  /**
   * Lets go; as LWLockRelease.
   *
   * @throws {DsmrError} `NOT_HELD`: not by this backend. `DETACHED`, `CLOSED`.
   */
  release(): void {
    const status = this.#calls.dsmr_lock_release(this.#handle);
    if (status !== 0) this.#check(status, -1);
  }

  /**
   * Runs `callback` with the lock held, and releases it however that ends.
   *
   * @returns what the callback returns.
   * @throws As {@linkcode acquireSync}; what the callback throws; a `TypeError` if it returns
   * a promise, for the lock is released when it returns. The promise is its `cause`; what it
   * does later is told nowhere else.
   */
  withSync<Result>(mode: LockMode, callback: () => Result, options?: WaitOptions): Result {
    this.acquireSync(mode, options);
    let result: Result;
    try {
      result = callback();
    } finally {
      // Unless the callback has done so, or has detached the segment.
      if (this.#calls.dsmr_lock_state(this.#handle) % 4 > 0) this.release();
    }
    if (isPromise(result)) {
      throw new TypeError(
        "The callback returned a promise, but the lock was released when it returned. Await " +
          "first, and take the lock for what is synchronous. The promise is the cause of this " +
          "error; if it fails, nothing else tells.",
        { cause: result },
      );
    }
    return result;
  }

  /**
   * Takes the lock until the end of a `using` block.
   *
   * @throws {DsmrError} As {@linkcode acquireSync}.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-hold");
   * const segment = registry.getNamedSegmentSync("data", 8);
   * {
   *   using _held = segment.lock.holdSync("exclusive");
   *   new Int32Array(segment.buffer)[0] = 1;
   * }
   * Registry.destroy("doc-hold");
   * ```
   */
  holdSync(mode: LockMode = "exclusive", options?: WaitOptions): Disposable {
    this.acquireSync(mode, options);
    return new Hold(() => {
      if (this.#calls.dsmr_lock_state(this.#handle) % 4 > 0) this.release();
    });
  }

  /**
   * Takes the lock exclusively if it is free; otherwise waits until it is let go, and does not
   * take it. As LWLockAcquireOrWait: for work that one does for all who came meanwhile.
   *
   * @returns whether the lock is held now.
   * @throws {DsmrError} As {@linkcode acquireSync}.
   */
  acquireOrWaitSync(options?: WaitOptions): boolean {
    const timeout = encodeTimeout(options?.timeout);
    const started = new Uint8Array(8);
    let status: number;
    do {
      status = this.#calls.dsmr_lock_acquire_or_wait(this.#handle, started, timeout);
    } while (status === NOT_YET);
    this.#check(status, timeout);
    if (status === BUSY) return false;
    if (status === ABANDONED) this.#mend();
    return true;
  }

  /**
   * Waits until nobody holds the lock exclusively, or the eight bytes at `byteOffset` of the
   * segment are not `expected` any more; as LWLockWaitForVar. Does not take the lock. The
   * holder changes them with {@linkcode updateVar}.
   *
   * @throws {DsmrError} `SIZE_INVALID`: the offset is no multiple of 8 inside the segment.
   * `ALREADY_HELD`: exclusively, by this backend. `TIMEOUT`, `DETACHED`, `CLOSED`.
   */
  waitForVarSync(byteOffset: number, expected: bigint, options?: WaitOptions): VarState {
    const [low, high] = halves(byteOffset);
    const timeout = encodeTimeout(options?.timeout);
    const started = new Uint8Array(8);
    const value = new BigUint64Array([BigInt.asUintN(64, expected)]);
    const bytes = new Uint8Array(value.buffer);
    let status: number;
    do {
      status = this.#calls.dsmr_lock_wait_for_variable(
        this.#handle,
        low,
        high,
        bytes,
        started,
        timeout,
      );
    } while (status === BUSY);
    this.#check(status, timeout);
    return { released: status === 0, value: value[0] ?? 0n };
  }

  /**
   * Stores `value` to the eight bytes at `byteOffset` of the segment and wakes who waits for
   * them; as LWLockUpdateVar, and with `release` as LWLockReleaseClearVar. The lock must be
   * held exclusively.
   *
   * @throws {DsmrError} `NOT_HELD`, `SIZE_INVALID`, `DETACHED`, `CLOSED`.
   */
  updateVar(byteOffset: number, value: bigint, options?: { release?: boolean }): void {
    const [low, high] = halves(byteOffset);
    const bytes = new Uint8Array(new BigUint64Array([BigInt.asUintN(64, value)]).buffer);
    const release = options?.release === true ? 1 : 0;
    this.#check(
      this.#calls.dsmr_lock_update_variable(this.#handle, low, high, bytes, release),
      -1,
    );
  }

  /** Whether this backend holds it, in any mode or in the given one; as LWLockHeldByMe. */
  heldByMe(mode?: LockMode): boolean {
    const held = this.#state() % 4;
    return mode === undefined ? held !== 0 : held === modeNumber(mode);
  }

  /**
   * Whether an exclusive holder has died inside, and nobody has called
   * {@linkcode markConsistent} since. The lock works all the same; who takes it exclusively
   * should look, and mend the data.
   */
  get abandoned(): boolean {
    return (this.#state() & STATE_ABANDONED) !== 0;
  }

  /**
   * Says that the data is in order again. The lock must be held exclusively.
   *
   * @throws {DsmrError} `NOT_HELD`, `DETACHED`, `CLOSED`.
   */
  markConsistent(): void {
    this.#check(this.#calls.dsmr_lock_mark_consistent(this.#handle), -1);
  }

  #state(): number {
    return this.#check(this.#calls.dsmr_lock_state(this.#handle), -1);
  }

  /** The lock is ours, exclusively, and was abandoned. */
  #mend(): void {
    const repair = this.#repair();
    if (repair === undefined) return;
    try {
      const result: unknown = repair(this.#segment);
      if (isPromise(result)) {
        throw new TypeError(
          "The repair callback returned a promise. The data must be in order when it returns.",
          { cause: result },
        );
      }
    } catch (cause) {
      if (this.#calls.dsmr_lock_state(this.#handle) % 4 > 0) this.release();
      throw new DsmrError(
        "ABANDONED",
        `The repair callback of segment "${this.#segment.name}" threw. The lock was released, ` +
          "and is still abandoned: the next owner tries.",
        { cause },
      );
    }
    this.markConsistent();
  }

  #check(status: number, timeout: number): number {
    if (status >= 0) return status;
    // Throws DETACHED, where that is the reason.
    void this.#segment.buffer;
    this.#calls.dsmr_lock_explain(this.#handle, status, timeout, native().error.bytes);
    throw lastError(status);
  }
}

class Hold implements Disposable {
  readonly #release: () => void;

  constructor(release: () => void) {
    this.#release = release;
  }

  [Symbol.dispose](): void {
    this.#release();
  }
}

/** An offset as the library takes it; what cannot be one is refused there. */
export function halves(byteOffset: number): [number, number] {
  if (!Number.isSafeInteger(byteOffset) || byteOffset < 0) {
    throw new DsmrError(
      "SIZE_INVALID",
      `The byte offset is ${describe(byteOffset)}; it must be a whole number from 0 on.`,
      typeof byteOffset === "number" ? { requested: byteOffset } : {},
    );
  }
  return [byteOffset % 2 ** 32, Math.floor(byteOffset / 2 ** 32)];
}
