/**
 * A segment: shared memory with a name, attached.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { check, describe, native } from "./ffi/native.ts";
import { halves, type Repair } from "./lock_arguments.ts";
import { forgetHolds, LWLock } from "./lwlock.ts";
import type { Scope } from "./scope.ts";
import { backendOf, Tranche } from "./tranche.ts";
import type { WordWait } from "./parking.ts";
import { type AsyncWaitOptions, checkWaitOptions, retryAll } from "./wait.ts";

/** What a backend knows of a segment that it has attached. */
export interface Attachment {
  scope: Scope;
  found: boolean;
  handle: number;
  id: number;
  /** The hash of its layout, or 0. */
  layout: bigint;
}

/** How long a segment stays. */
export type Lifetime = "registry" | "attached";

// For the other modules of this package, and for nobody else: not members of the class.

/** The number by which the library knows the segment. */
export let handleOf: (segment: Segment) => number;
/** The hash of the layout that it was made with, or 0. */
export let layoutOf: (segment: Segment) => bigint;
/** Whether somebody has taken the buffer away, by sending it to another thread for instance. */
export let isTransferred: (segment: Segment) => boolean;
/** No task holds any of the segment's locks any more. */
export let forgetLocks: (segment: Segment) => void;
/** The backend that has attached it. */
export let backendOfSegment: (segment: Segment) => Backend;
/** The number that tells it from all others of its registry. */
export let idOf: (segment: Segment) => number;
/** What mends the data when the segment's lock was abandoned. */
export let setRepair: (segment: Segment, repair: Repair | undefined) => void;
/** As `initLock`, for many: without a handle and an object for each. */
export let makeLock: (segment: Segment, byteOffset: number, tranche: Tranche) => void;

/**
 * A segment that this backend has attached. Comes from
 * {@linkcode Registry.getNamedSegmentSync} or {@linkcode Registry.lookupSegment}; the same
 * object for the same segment, until it is detached.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * const registry = Registry.openSync("doc-segment");
 * const segment = registry.getNamedSegmentSync("counters", 64);
 * const counters = new Int32Array(segment.buffer);
 * Atomics.add(counters, 0, 1); // atomic across processes
 *
 * segment.detach();
 * registry.close();
 * Registry.destroy("doc-segment");
 * ```
 */
export class Segment implements Disposable {
  static {
    handleOf = (segment) => segment.#handle;
    layoutOf = (segment) => segment.#layout;
    backendOfSegment = (segment) => segment.#backend;
    idOf = (segment) => segment.#id;
    isTransferred = (segment) => segment.#isAttached && segment.#buffer.detached;
    forgetLocks = (segment) => {
      if (segment.#lock !== undefined) forgetHolds(segment.#lock);
      for (const lock of segment.#locks.values()) forgetHolds(lock);
    };
    makeLock = (segment, byteOffset, tranche) => segment.#makeLock(byteOffset, tranche);
    setRepair = (segment, repair) => {
      if (repair !== undefined) segment.#repair = repair;
    };
  }

  readonly #backend: Backend;
  readonly #handle: number;
  readonly #buffer: ArrayBuffer;
  readonly #locks = new Map<number, LWLock>();
  #isAttached = true;
  #lock: LWLock | undefined;
  #repair: Repair | undefined;
  readonly #id: number;
  readonly #layout: bigint;
  /** All of it, as words; made when it is first asked for. */
  #ints: Int32Array | undefined;

  /** The segment's name. */
  readonly name: string;
  /** Whose name it is: the registry's, or that of the database which this backend has opened. */
  readonly scope: Scope;
  /** Its size in bytes. */
  readonly size: number;
  /** False for the backend that initialised the segment, true for every other. */
  readonly found: boolean;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(
    backend: Backend,
    name: string,
    attachment: Attachment,
    buffer: ArrayBuffer,
  ) {
    this.#backend = backend;
    this.#handle = attachment.handle;
    this.#id = attachment.id;
    this.#layout = attachment.layout;
    this.#buffer = buffer;
    this.name = name;
    this.scope = attachment.scope;
    this.size = buffer.byteLength;
    this.found = attachment.found;
  }

  /**
   * The shared bytes themselves: nothing is copied. All backends see every write; use
   * `Atomics` on typed arrays over it where they meet. It is detached by
   * {@linkcode detach}, and with it every view: their later use throws, or reads undefined.
   *
   * Transferring it to another thread leaves an empty one here. The registry, asked again,
   * then gives a new object, and what was transferred reads as zeros.
   *
   * @throws {DsmrError} `DETACHED` after {@linkcode detach} or the registry's `close()`.
   */
  get buffer(): ArrayBuffer {
    if (!this.#isAttached) throw this.#detached();
    return this.#buffer;
  }

  #detached(): DsmrError {
    return new DsmrError(
      "DETACHED",
      `Segment "${this.name}" is detached. Ask the registry for it again.`,
    );
  }

  /** Why its locks cannot be used, if that is so. */
  #gone(): DsmrError | undefined {
    if (this.#isAttached) return undefined;
    if (!this.#backend.isClosed) return this.#detached();
    return new DsmrError(
      "CLOSED",
      `The registry of segment "${this.name}" was closed. Open it again, and ask it for the segment.`,
    );
  }

  /**
   * The lock that the segment carries, outside of {@linkcode buffer}. Use it for what several
   * processes change at once.
   *
   * @throws {DsmrError} `DETACHED`; `NO_SPACE`: the process is out of memory or handles.
   */
  get lock(): LWLock {
    void this.buffer;
    if (this.#lock === undefined) {
      const { calls, error } = native();
      const handle = check(calls.dsmr_lock_of_segment(this.#handle, error.bytes));
      this.#lock = new LWLock(this, handle, () => this.#gone(), () => this.#repair);
    }
    return this.#lock;
  }

  /**
   * Makes the 64 bytes at `byteOffset` a lock of the tranche. Belongs into the init callback:
   * once, before anybody uses it. The bytes are the lock's from then on.
   *
   * @param byteOffset A multiple of 64.
   * @throws {DsmrError} `SIZE_INVALID`: the offset is misaligned or outside. `NOT_FOUND`: the
   * tranche. `ALREADY_HELD`: there is a lock, and it is held. `DETACHED`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-locks");
   * const segment = registry.getNamedSegmentSync("buckets", 128, (fresh) => {
   *   const buckets = registry.newTranche("buckets");
   *   for (let at = 0; at < 128; at += 64) fresh.initLock(at, buckets);
   * });
   * segment.lockAt(64).withSync("shared", () => {});
   * Registry.destroy("doc-locks");
   * ```
   */
  initLock(byteOffset: number, tranche: Tranche): LWLock {
    this.#makeLock(byteOffset, tranche);
    return this.lockAt(byteOffset);
  }

  #makeLock(byteOffset: number, tranche: Tranche): void {
    void this.buffer;
    if (!(tranche instanceof Tranche)) {
      throw new TypeError(`The tranche is ${describe(tranche)}, not a Tranche of newTranche().`);
    }
    if (backendOf(tranche).instance !== this.#backend.instance) {
      throw new DsmrError(
        "NOT_FOUND",
        `Tranche "${tranche.name}" is of another registry than segment "${this.name}". Make one ` +
          "with newTranche() of the segment's registry.",
      );
    }
    const { calls, error } = native();
    const [low, high] = halves(byteOffset);
    check(calls.dsmr_lock_init(this.#handle, low, high, tranche.id, error.bytes));
  }

  /**
   * The lock at `byteOffset`, which {@linkcode initLock} has made, here or elsewhere.
   *
   * @throws {DsmrError} `SIZE_INVALID`: the offset is misaligned or outside. `CORRUPT`: there
   * is no lock. `DETACHED`, `NO_SPACE`.
   */
  lockAt(byteOffset: number): LWLock {
    void this.buffer;
    const known = this.#locks.get(byteOffset);
    if (known !== undefined) return known;
    const { calls, error } = native();
    const [low, high] = halves(byteOffset);
    const handle = check(calls.dsmr_lock_at(this.#handle, low, high, error.bytes));
    const lock = new LWLock(this, handle, () => this.#gone(), () => undefined);
    this.#locks.set(byteOffset, lock);
    return lock;
  }

  /**
   * Waits until the 32 bits at `byteOffset` are notified: `Atomics.wait` across processes.
   * Blocks the thread.
   *
   * @param byteOffset A multiple of 4.
   * @param expected Waits only if they have this value, as a signed or unsigned number.
   * @returns `"ok"`: notified, and counted by exactly one {@linkcode notify}; `"not-equal"`: they had
   * another value; `"timed-out"`: counted by none.
   * @throws {DsmrError} `SIZE_INVALID`: the offset. `NO_SPACE`: 16,384 waits on words are pending
   * in the registry, or this backend holds 128 locks. `DETACHED`, `CLOSED`: also while waiting. `TIMEOUT`: a stopped process was in
   * the middle of the same for 10 s. {@linkcode RangeError}: the timeout.
   */
  waitSync(byteOffset: number, expected: number, options?: { timeout?: number }): WordWait {
    const word = this.#word(byteOffset);
    const { timeout = Infinity } = checkWaitOptions(options);
    const isExpected = (): boolean => word.load() === (expected | 0);
    return this.#backend.parking.waitSync(word, isExpected, timeout);
  }

  /**
   * As {@linkcode waitSync}, without blocking: `Atomics.waitAsync` across processes.
   *
   * @throws As {@linkcode waitSync}; the signal's reason.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-wait");
   * const segment = registry.getNamedSegmentSync("flags", 4);
   * const waiting = segment.wait(0, 0, { timeout: 1000 });
   * Atomics.store(new Int32Array(segment.buffer), 0, 1);
   * segment.notify(0);
   * console.log(await waiting); // "ok", or "not-equal" where the store came first
   * Registry.destroy("doc-wait");
   * ```
   */
  async wait(byteOffset: number, expected: number, options?: AsyncWaitOptions): Promise<WordWait> {
    const checked = checkWaitOptions(options);
    const word = this.#word(byteOffset);
    const isExpected = (): boolean => word.load() === (expected | 0);
    // In this turn, as a rule: whoever notifies in the next one finds it parked.
    const parking = this.#backend.parkingNow;
    if (parking !== undefined) return await parking.wait(word, isExpected, checked);
    const { timeout = Infinity, signal } = checked;
    const until = performance.now() + timeout;
    try {
      const made = await this.#backend.parkingLater(checked);
      const left = Math.max(until - performance.now(), 0);
      return await made.wait(word, isExpected, { ...checked, timeout: left });
    } catch (error) {
      if (signal?.aborted === true && error === signal.reason) throw error;
      if (!(error instanceof DsmrError) || error.code !== "TIMEOUT") throw error;
      // The tables were not to be had in that time.
      return isExpected() ? "timed-out" : "not-equal";
    }
  }

  /**
   * Wakes who waits for the 32 bits at `byteOffset`, in the order in which they came:
   * `Atomics.notify` across processes. Change them first. Costs some nanoseconds when nobody
   * waits.
   *
   * @param count How many at most. Default: all.
   * @returns how many.
   * @throws {DsmrError} `SIZE_INVALID`: the offset. `DETACHED`, `CLOSED`. `TIMEOUT`: a stopped
   * process was in the middle of the same for 10 s. {@linkcode RangeError}: the count.
   */
  notify(byteOffset: number, count: number = Infinity): number {
    if (!(count >= 0)) throw new RangeError(`The count is ${count}; it must be 0 or more.`);
    return this.#backend.parking.notify(this.#word(byteOffset), Math.floor(count));
  }

  #word(byteOffset: number): { id: number; offset: number; load: () => number } {
    const { buffer } = this;
    if (
      !Number.isSafeInteger(byteOffset) || byteOffset < 0 || byteOffset % 4 !== 0 ||
      byteOffset + 4 > this.size
    ) {
      throw new DsmrError(
        "SIZE_INVALID",
        `Byte ${describe(byteOffset)} is no place for 4 bytes in segment "${this.name}" of ` +
          `${this.size} bytes: it must be a multiple of 4, with room behind it.`,
        typeof byteOffset === "number" ? { actual: this.size, requested: byteOffset } : {},
      );
    }
    this.#ints ??= new Int32Array(buffer, 0, Math.floor(this.size / 4));
    const ints = this.#ints;
    const load = (): number => {
      // Throws when it has been detached meanwhile.
      void this.buffer;
      return Atomics.load(ints, byteOffset / 4);
    };
    return { id: this.#id, offset: byteOffset, load };
  }

  /**
   * Gives the memory back: detaches {@linkcode buffer} and every view of it, then unmaps. The
   * segment stays for others, unless its lifetime is `"attached"` and this was the last
   * backend. Does nothing the second time. Inside the init callback it gives the segment up.
   * Locks of the segment that are held are let go as if this backend had died.
   *
   * Await a runtime's own work on the buffer first (files, sockets, compression): what it reads
   * or writes from here on is not the segment any more.
   */
  detach(): void {
    if (!this.#isAttached) return;
    this.#isAttached = false;
    const isOurs = !this.#buffer.detached;
    // Nothing is copied: the bytes are not ours to move. The result is dropped.
    if (isOurs) this.#buffer.transfer();
    this.#backend.detachSegment(this, isOurs);
    // Whoever waits for something in it finds out.
    this.#backend.leaveWords(this.#id, () => this.#detached());
    forgetLocks(this);
    retryAll();
  }

  /** Detaches: for `using`. */
  [Symbol.dispose](): void {
    this.detach();
  }
}
