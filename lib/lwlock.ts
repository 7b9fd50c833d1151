/**
 * The lock: exclusive or shared, across processes, which no crash can wedge.
 *
 * Rejected: taking a free lock without a call of the library, by `Atomics` on the lock's own bytes.
 * In Deno an atomic operation on a typed array is a call of V8's built-in code, 8 ns for each, and a
 * pair takes two, while the whole pair of FFI calls takes 15; only Bun compiles it to an instruction.
 * And the journal would have to be mapped into JavaScript, where a detach must take it away again.
 *
 * @module
 */

import type { DsmrError } from "./errors.ts";
import { checkOptions } from "./ffi/native.ts";
import type { Calls } from "./ffi/symbols.ts";
import {
  ABANDONED,
  BUSY,
  checkCallback,
  encodeTimeoutOf,
  encodeValue,
  halves,
  Hold,
  type LockMode,
  modeNumber,
  NOT_YET,
  type Repair,
  SHARED,
  STATE_ABANDONED,
  type VarState,
  type WaitOptions,
} from "./lock_arguments.ts";
import type { LockHold, LockQueue } from "./lock_queue.ts";
import { LockTasks } from "./lock_tasks.ts";
import { NativeLock } from "./native_lock.ts";
import { isPromise } from "./promise.ts";
import type { Segment } from "./segment.ts";
import { type AsyncWaitOptions, checkWaitOptions } from "./wait.ts";

// For the other modules of this package, and for nobody else: not members of the class.

/** The lock's segment was detached, or all its locks released: no task holds it any more. */
export let forgetHolds: (lock: LWLock) => void;
/**
 * Runs `change` with the lock held exclusively, in the turn in which it is acquired: see the
 * queue's `run`. Nobody mends: the change sees that the lock is abandoned.
 */
export let runInside: <Result>(
  lock: LWLock,
  change: () => Result,
  options: AsyncWaitOptions | undefined,
) => Promise<Result>;
/** Whether tasks of this isolate wait for it. `tryAcquire` comes before them, if it is free by now. */
export let isAwaited: (lock: LWLock) => boolean;

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
 *   amounts[0]! -= 10;
 *   amounts[1]! += 10;
 * });
 * Registry.destroy("doc-lock");
 * ```
 */
export class LWLock {
  readonly #handle: number;
  readonly #calls: Calls;
  readonly #lock: NativeLock;
  /** The tasks that use the async forms; from the first of them on. */
  #tasks: LockTasks | undefined;
  /** Theirs. */
  #queue: LockQueue | undefined;

  static {
    forgetHolds = (lock) => lock.#tasks?.forgetHolds();
    runInside = (lock, change, options) => lock.#ownTasks().run(change, options);
    isAwaited = (lock) => lock.#queue !== undefined && lock.#queue.waiters > 0;
  }

  /**
   * Internal: made by the segment, never by hand.
   *
   * @ignore
   */
  constructor(
    segment: Segment,
    handle: number,
    gone: () => DsmrError | undefined,
    repair: () => Repair | undefined,
  ) {
    this.#lock = new NativeLock(segment, handle, gone, repair);
    this.#handle = handle;
    this.#calls = this.#lock.calls;
  }

  #ownTasks(): LockTasks {
    this.#tasks ??= new LockTasks(this.#lock);
    this.#queue = this.#tasks.queue;
    return this.#tasks;
  }

  /**
   * Takes the lock; as LWLockAcquire. Blocks the thread until it is to be had.
   *
   * It is to be had, too, when its exclusive holder has died inside and may have left the data
   * half-changed: give the segment a `repair`, or look at {@linkcode abandoned} then.
   *
   * What tasks of this program hold shared, sync code shares with them when it asks for it
   * shared: at once, also past others who wait. It is free when each has let go of its share.
   *
   * @throws {DsmrError} `TIMEOUT`; `ALREADY_HELD`: by sync code of this backend, in any mode;
   * `DEADLOCK`: a task of this program holds it, which could not go on; or its holder waits, in
   * the end, for this backend (found after some 20 ms; exactly one of the cycle gets it);
   * `NO_SPACE`: 128 locks are held; `ABANDONED`: the `repair` callback threw
   * (see `cause`), the lock is released and still abandoned; `CORRUPT`: the lock was overwritten, or
   * names a holder that does not hold it; `DETACHED`, `CLOSED`. After
   * any of these it is not held.
   */
  acquireSync(mode: LockMode = "exclusive", options?: WaitOptions): void {
    const number = modeNumber(mode);
    const timeout = options === undefined ? -1 : encodeTimeoutOf(options);
    const status = this.#calls.dsmr_lock_acquire(this.#handle, number, timeout);
    if (status === 0) return;
    const share = this.#acquireSlowly(status, number, timeout);
    if (share !== undefined) this.#tasks?.keep(share);
  }

  /** As `acquireSync`, for one that gives it back with `#giveBack`. */
  #takeSync(mode: LockMode, options: WaitOptions | undefined): LockHold | undefined {
    const number = modeNumber(mode);
    const timeout = encodeTimeoutOf(options);
    const status = this.#calls.dsmr_lock_acquire(this.#handle, number, timeout);
    return status === 0 ? undefined : this.#acquireSlowly(status, number, timeout);
  }

  #giveBack(share: LockHold | undefined): void {
    if (share !== undefined) this.#tasks?.drop(share);
    // It may have been let go, or taken away: what tasks hold by now is theirs.
    else if (this.#tasks?.areInside !== true && this.#lock.held > 0) this.release();
  }

  /** Returns its share of what tasks hold; undefined: this isolate has just acquired it. */
  #acquireSlowly(status: number, mode: number, timeout: number): LockHold | undefined {
    const tasks = this.#tasks;
    const share = mode === SHARED ? tasks?.join(status) : undefined;
    if (share !== undefined) return share;
    const hasPaused = tasks?.pause(status) === true;
    if (hasPaused) status = this.#calls.dsmr_lock_acquire(this.#handle, mode, timeout);
    try {
      // In slices, so that a Worker that waits can be terminated.
      while (status === BUSY) status = this.#calls.dsmr_lock_acquire(this.#handle, mode, timeout);
      status = this.#lock.lastTry(status, mode);
      this.#lock.check(status, timeout);
    } catch (error) {
      if (hasPaused) tasks.resume();
      throw error;
    }
    if (status === ABANDONED) this.#mend();
    return undefined;
  }

  #mend(): void {
    this.#lock.mend(() => this.#tasks?.forgetHolds());
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
    if (this.#tasks?.isInTheWay(status) === true) return this.#tasks.tryAcquire(mode);
    this.#lock.check(status);
    this.#mend();
    return true;
  }

  /**
   * Takes the lock without blocking: as {@linkcode acquireSync}, but other tasks of the program
   * go on meanwhile. Tasks of one isolate get it in the order in which they asked; those that
   * want it shared hold it together, and each lets go with {@linkcode release}.
   *
   * An aborted or timed-out wait leaves nothing behind, and never owns the lock.
   *
   * @throws {DsmrError} As {@linkcode acquireSync}, but for `ALREADY_HELD` and `DEADLOCK`: what
   * this isolate holds it may let go of. The signal's reason. {@linkcode RangeError}: the timeout.
   */
  async acquire(mode: LockMode = "exclusive", options?: AsyncWaitOptions): Promise<void> {
    const tasks = this.#ownTasks();
    tasks.keep(await tasks.hold(mode, options));
  }

  /**
   * Runs `callback` with the lock held, and lets go when it has ended, or the promise that it
   * returns has settled. One that never settles keeps the lock until the segment is detached, the
   * registry closed, or the program ends; as these come in the middle of it, a lock held
   * exclusively is {@linkcode abandoned} then. Whoever waits behind it is told.
   *
   * @returns what the callback returns, awaited.
   * @throws As {@linkcode acquire}; what the callback throws.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-with");
   * const segment = registry.getNamedSegmentSync("total", 8);
   * await segment.lock.with("exclusive", async () => {
   *   new BigInt64Array(segment.buffer)[0] = await Promise.resolve(1n);
   * }, { timeout: 1000 });
   * Registry.destroy("doc-with");
   * ```
   */
  async with<Result>(
    mode: LockMode,
    callback: () => Result,
    options?: AsyncWaitOptions,
  ): Promise<Awaited<Result>> {
    checkCallback(callback);
    const tasks = this.#ownTasks();
    const hold = await tasks.hold(mode, options);
    try {
      return await callback();
    } finally {
      tasks.drop(hold);
    }
  }

  /**
   * Takes the lock until the end of a `using` block: `using held = await lock.hold();`
   *
   * @throws As {@linkcode acquire}.
   */
  async hold(mode: LockMode = "exclusive", options?: AsyncWaitOptions): Promise<Disposable> {
    const tasks = this.#ownTasks();
    const hold = await tasks.hold(mode, options);
    return new Hold(() => tasks.drop(hold));
  }

  /**
   * As {@linkcode acquireOrWaitSync}, without blocking.
   *
   * @returns whether the lock is held now; let go of it with {@linkcode release}.
   * @throws As {@linkcode acquire}.
   */
  async acquireOrWait(options?: AsyncWaitOptions): Promise<boolean> {
    return await this.#ownTasks().acquireOrWait(options);
  }

  /**
   * As {@linkcode waitForVarSync}, without blocking. The holder may be this isolate itself,
   * where another task changes the variable or lets go.
   *
   * @throws As {@linkcode waitForVarSync}, but for `ALREADY_HELD` and `DEADLOCK`; the signal's
   * reason. {@linkcode RangeError}: the timeout.
   */
  async waitForVar(
    byteOffset: number,
    expected: bigint,
    options?: AsyncWaitOptions,
  ): Promise<VarState> {
    const checked = checkWaitOptions(options);
    const value = encodeValue(expected);
    const outcome = await this.#ownTasks().watchVariable(byteOffset, value, checked);
    return { released: outcome === 0, value: value[0] ?? 0n };
  }

  /**
   * Lets go; as LWLockRelease. Where tasks and sync code of this program hold it shared together:
   * of one share that {@linkcode acquire}, {@linkcode acquireSync} or {@linkcode tryAcquire} has
   * taken, never of what a callback or a `using` block holds.
   *
   * @throws {DsmrError} `NOT_HELD`: not by this backend. `DETACHED`, `CLOSED`.
   */
  release(): void {
    if (this.#queue !== undefined && this.#queue.busy > 0) return this.#ownTasks().release();
    const status = this.#calls.dsmr_lock_release(this.#handle);
    if (status !== 0) this.#lock.check(status);
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
    checkCallback(callback);
    const share = this.#takeSync(mode, options);
    let result: Result;
    try {
      result = callback();
    } finally {
      // Unless the callback has done so, or has detached the segment.
      this.#giveBack(share);
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
    const share = this.#takeSync(mode, options);
    return new Hold(() => this.#giveBack(share));
  }

  /**
   * Takes the lock exclusively if it is free; otherwise waits until it is let go, and does not
   * take it. As LWLockAcquireOrWait: for work that one does for all who came meanwhile.
   *
   * @returns whether the lock is held now.
   * @throws {DsmrError} As {@linkcode acquireSync}.
   */
  acquireOrWaitSync(options?: WaitOptions): boolean {
    const timeout = encodeTimeoutOf(options);
    const started = new Uint8Array(8);
    const attempt = (): number =>
      this.#calls.dsmr_lock_acquire_or_wait(this.#handle, started, timeout);
    let status = attempt();
    const tasks = this.#tasks;
    const hasPaused = tasks?.pause(status) === true;
    if (hasPaused) status = attempt();
    while (status === NOT_YET) status = attempt();
    // It may have spent its time on clearing a dead holder away.
    if (this.#lock.isLate(status)) status = attempt();
    if (hasPaused && (status === BUSY || status < 0)) tasks.resume();
    this.#lock.check(status, timeout);
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
   * `ALREADY_HELD`: exclusively, by this backend, and `DEADLOCK`: by a task of it, which could
   * not go on; or the holder waits, in the end, for this backend. `TIMEOUT`. `CORRUPT`: the lock
   * was overwritten. `DETACHED`, `CLOSED`.
   */
  waitForVarSync(byteOffset: number, expected: bigint, options?: WaitOptions): VarState {
    const [low, high] = halves(byteOffset);
    const timeout = encodeTimeoutOf(options);
    const started = new Uint8Array(8);
    const value = encodeValue(expected);
    const bytes = new Uint8Array(value.buffer);
    const attempt = (): number =>
      this.#calls.dsmr_lock_wait_for_variable(this.#handle, low, high, bytes, started, timeout);
    let status = attempt();
    while (status === BUSY) status = attempt();
    // It may have spent its time on clearing a dead holder away.
    if (this.#lock.isLate(status)) status = attempt();
    const tasks = this.#tasks;
    if (tasks?.isInTheWay(status) === true && tasks.areInside) throw tasks.inside();
    this.#lock.check(status, timeout, byteOffset);
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
    checkOptions(options);
    const [low, high] = halves(byteOffset);
    const bytes = new Uint8Array(encodeValue(value).buffer);
    const release = options?.release === true ? 1 : 0;
    // With tasks the release is the queue's business, too.
    const isQueued = this.#tasks !== undefined;
    this.#lock.check(
      this.#calls.dsmr_lock_update_variable(this.#handle, low, high, bytes, isQueued ? 0 : release),
      -1,
      byteOffset,
    );
    if (isQueued && release === 1) this.release();
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
    this.#lock.check(this.#calls.dsmr_lock_mark_consistent(this.#handle));
  }

  #state(): number {
    return this.#lock.check(this.#calls.dsmr_lock_state(this.#handle));
  }
}
