/**
 * Waiting on words of segments, as Atomics.wait, Atomics.waitAsync and Atomics.notify do within
 * one process: exactly, in the order of arrival, and counted.
 *
 * Whoever waits parks a row under the word's address, then looks whether the word still is what
 * it expects; whoever notifies has changed the word before, and then looks for rows. Both looks
 * and both changes are atomic and in that order, so one of the two sees the other. A notifier
 * that finds nobody parked under the word's bucket makes no call at all.
 *
 * The kernel's own queues cannot be it: one thread waits there for all tasks of its process, and
 * a wake-up that comes while it is busy would be counted as "nobody".
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import type { Segment } from "./segment.ts";
import { SharedTable, STATE, tableSize, USER } from "./shared_table.ts";
import type { AsyncWaitOptions } from "./wait.ts";

/** How a wait on a word ended: as `Atomics.wait` says. */
export type WordWait = "ok" | "not-equal" | "timed-out";

const PARKED = 1;
const NOTIFIED = 2;

// Words of a row: which word of which segment, and the next and previous row under its bucket.
const SEGMENT = USER;
const SEGMENT_HIGH = USER + 1;
const OFFSET = USER + 2;
const OFFSET_HIGH = USER + 3;
const NEXT = USER + 4;
const PREVIOUS = USER + 5;

const BUCKETS = 1024;
/** A bucket: how many are parked under it, the first and the last (index + 1). */
const BUCKET_WORDS = 3;

const shape = { headerWords: BUCKETS * BUCKET_WORDS, rowWords: 12, rows: 16_384 };
/** The segment that a registry's parked rows are in. */
export const PARKING_NAME = "\u0001parking";
/** Its size in bytes. */
export const PARKING_SIZE: number = tableSize(shape);

/** Between two searches for rows of the dead, when there is no room. */
const SWEEP_PAUSE_MS = 1000;
/** How long one that gives up waits for the table, which a stopped process may have. */
const GIVE_UP_MS = 100;

/** A task that waits, by its row. */
interface Waiter {
  /** It has given up, and could not say so yet: a notification is for the next one. */
  isGone?: boolean;
  /** Of the word's segment. */
  id: number;
  resolve(outcome: WordWait): void;
  reject(cause: unknown): void;
}

/** A word, as rows name it. */
interface Address {
  id: number;
  offset: number;
}

/** The parked waits of a registry. */
export class Parking {
  readonly #backend: Backend;
  readonly #table: SharedTable;
  readonly #waiters = new Map<number, Waiter>();
  #sweptAt = -Infinity;

  constructor(backend: Backend, segment: Segment) {
    this.#backend = backend;
    this.#table = new SharedTable(backend, segment, shape, {
      rebuild: () => this.#rebuild(),
      receive: (row) => this.#receive(row),
      bury: (row) => {
        this.#unchain(row);
        this.#table.free(row);
      },
    });
  }

  /** Whether its memory is still attached. */
  get isUsable(): boolean {
    return this.#table.isUsable;
  }

  #bucket({ id, offset }: Address): number {
    const hash = Math.imul(id % 2 ** 32, 0x9e3779b1) ^ Math.imul(offset % 2 ** 32, 0x85ebca6b);
    return this.#table.header + ((hash >>> 16 ^ hash) & (BUCKETS - 1)) * BUCKET_WORDS;
  }

  #addressOf(row: number): Address {
    const table = this.#table;
    const place = table.place(row);
    return {
      id: (table.word(place + SEGMENT_HIGH) >>> 0) * 2 ** 32 + (table.word(place + SEGMENT) >>> 0),
      offset: (table.word(place + OFFSET_HIGH) >>> 0) * 2 ** 32 +
        (table.word(place + OFFSET) >>> 0),
    };
  }

  #chain(row: number, bucket: number): void {
    const table = this.#table;
    const last = table.word(bucket + 2);
    table.set(table.place(row) + NEXT, 0);
    table.set(table.place(row) + PREVIOUS, last);
    if (last === 0) table.set(bucket + 1, row + 1);
    else table.set(table.place(last - 1) + NEXT, row + 1);
    table.set(bucket + 2, row + 1);
    table.set(bucket, table.word(bucket) + 1);
  }

  /** Takes a parked row out of its bucket. One that is notified is in none any more. */
  #unchain(row: number): void {
    const table = this.#table;
    const place = table.place(row);
    if (table.word(place + STATE) !== PARKED) return;
    const bucket = this.#bucket(this.#addressOf(row));
    const next = table.word(place + NEXT);
    const previous = table.word(place + PREVIOUS);
    if (previous === 0) table.set(bucket + 1, next);
    else table.set(table.place(previous - 1) + NEXT, next);
    if (next === 0) table.set(bucket + 2, previous);
    else table.set(table.place(next - 1) + PREVIOUS, previous);
    table.set(bucket, table.word(bucket) - 1);
  }

  #rebuild(): void {
    const table = this.#table;
    for (let i = 0; i < BUCKETS * BUCKET_WORDS; i++) table.set(table.header + i, 0);
    const rows: number[] = [];
    for (let row = 0; row < table.used; row++) {
      const state = table.word(table.place(row) + STATE);
      if (state === PARKED) rows.push(row);
      // The dead one may have been about to tell its owner.
      if (state === NOTIFIED) this.#tell(row);
    }
    rows.sort((a, b) => table.compareBirths(a, b));
    for (const row of rows) this.#chain(row, this.#bucket(this.#addressOf(row)));
  }

  /** Parks this backend under a word. With the lock held. Undefined: it is not `expected`. */
  #park(address: Address, load: () => number, expected: number): number | undefined {
    const table = this.#table;
    let row = table.take();
    // Sweeping looks at every row, and everybody else waits: not for each of those that find none.
    if (row === undefined && performance.now() - this.#sweptAt > SWEEP_PAUSE_MS) {
      table.sweep();
      this.#sweptAt = performance.now();
      row = table.take();
    }
    if (row === undefined) {
      throw new DsmrError(
        "NO_SPACE",
        `${shape.rows} waits on words are pending in this registry, which is all it has room for.`,
        { actual: shape.rows, requested: shape.rows + 1 },
      );
    }
    const place = table.place(row);
    table.set(place + SEGMENT, address.id % 2 ** 32 | 0);
    table.set(place + SEGMENT_HIGH, Math.floor(address.id / 2 ** 32) | 0);
    table.set(place + OFFSET, address.offset % 2 ** 32 | 0);
    table.set(place + OFFSET_HIGH, Math.floor(address.offset / 2 ** 32) | 0);
    table.set(place + STATE, PARKED);
    this.#chain(row, this.#bucket(address));
    let isExpected = false;
    try {
      // After that: whoever changes the word from here on sees the row.
      isExpected = load() === expected;
    } finally {
      if (!isExpected) {
        this.#unchain(row);
        table.free(row);
      }
    }
    return isExpected ? row : undefined;
  }

  /** Ends a wait. With the lock held. False: it was notified already. */
  #unpark(row: number): boolean {
    const table = this.#table;
    const isParked = table.word(table.place(row) + STATE) === PARKED;
    this.#unchain(row);
    table.unpost(row);
    table.free(row);
    return isParked;
  }

  #receive(row: number): void {
    const waiter = this.#waiters.get(row);
    this.#waiters.delete(row);
    const address = this.#addressOf(row);
    this.#table.free(row);
    waiter?.resolve("ok");
    if (waiter?.isGone === true) this.#wake(address, 1);
  }

  waitSync(address: Address, load: () => number, expected: number, timeout: number): WordWait {
    const table = this.#table;
    const until = performance.now() + timeout;
    const row = table.changeSync(() => this.#park(address, load, expected));
    if (row === undefined) return "not-equal";
    const place = table.place(row) + STATE;
    for (;;) {
      const left = until - performance.now();
      if (table.word(place) !== PARKED || left <= 0) break;
      // Throws when the registry goes; then nobody looks at the row any more.
      table.sleepSync(place, PARKED, left);
    }
    return table.changeSync(() => this.#unpark(row)) ? "timed-out" : "ok";
  }

  async wait(
    address: Address,
    load: () => number,
    expected: number,
    { timeout = Infinity, signal }: AsyncWaitOptions,
  ): Promise<WordWait> {
    signal?.throwIfAborted();
    const table = this.#table;
    const until = performance.now() + timeout;
    const ended: Waiter & PromiseWithResolvers<WordWait> = {
      id: address.id,
      ...Promise.withResolvers<WordWait>(),
    };
    let row: number | undefined;
    try {
      row = await table.change(() => {
        const row = this.#park(address, load, expected);
        // In the same turn: it may be notified before we go on.
        if (row !== undefined) this.#waiters.set(row, ended);
        return row;
      }, { timeout, ...(signal === undefined ? {} : { signal }) });
    } catch (error) {
      // A stopped process has the table.
      if (error instanceof DsmrError && error.code === "TIMEOUT") return "timed-out";
      throw error;
    }
    if (row === undefined) return "not-equal";
    const parked = row;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let late: ReturnType<typeof setTimeout> | undefined;
    /** Ends the wait, unless a notification that was meant for it has come first. */
    const giveUp = (finish: () => void): void => {
      const end = (): void => {
        if (this.#waiters.get(parked) !== ended) return;
        this.#waiters.delete(parked);
        const wasParked = this.#unpark(parked);
        if (ended.isGone === true) {
          if (!wasParked) this.#wake(address, 1);
        } else if (wasParked) finish();
        else ended.resolve("ok");
        if (this.#waiters.size === 0) table.unlisten();
      };
      if (table.tryChange(end)) return;
      late = setTimeout(() => {
        ended.isGone = true;
        finish();
      }, GIVE_UP_MS);
      table.change(end).catch(ended.reject);
    };
    const onAbort = (): void => giveUp(() => ended.reject(signal?.reason));
    const expire = (): void => {
      const left = until - performance.now();
      if (left <= 0) giveUp(() => ended.resolve("timed-out"));
      else timer = setTimeout(expire, Math.min(left, 0x7fffffff));
    };
    if (timeout !== Infinity) expire();
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener("abort", onAbort);
    void table.listen(() => this.#waiters.size > 0, (cause) => {
      const all = [...this.#waiters.values()];
      this.#waiters.clear();
      for (const waiter of all) waiter.reject(cause);
    });
    try {
      return await ended.promise;
    } finally {
      if (timer !== undefined) clearTimeout(timer);
      if (late !== undefined) clearTimeout(late);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** A segment is being detached: ends the waits for its words. */
  leave(id: number, cause: DsmrError): void {
    const leaving = [...this.#waiters].filter(([, waiter]) => waiter.id === id);
    if (leaving.length === 0) return;
    this.#table.change(() => {
      for (const [row, waiter] of leaving) {
        if (this.#waiters.get(row) !== waiter) continue;
        this.#waiters.delete(row);
        if (this.#unpark(row)) waiter.reject(cause);
        else waiter.resolve("ok");
      }
      if (this.#waiters.size === 0) this.#table.unlisten();
    }).catch(() => {
      for (const [, waiter] of leaving) waiter.reject(cause);
    });
  }

  /** Wakes at most `count` of those who wait on a word; returns how many. */
  notify(address: Address, count: number): number {
    const table = this.#table;
    if (table.word(this.#bucket(address)) === 0) return 0;
    return table.changeSync(() => this.#wake(address, count));
  }

  /** The same, with the lock held. */
  #wake(address: Address, count: number): number {
    const table = this.#table;
    let woken = 0;
    let row = table.word(this.#bucket(address) + 1) - 1;
    for (let steps = table.used; row >= 0 && woken < count; steps--) {
      if (steps < 0 || row >= table.used) throw table.damaged();
      const next = table.word(table.place(row) + NEXT) - 1;
      if (this.#isAt(row, address)) {
        if (table.isAlive(row)) {
          this.#notify(row);
          woken++;
        } else {
          this.#unchain(row);
          table.free(row);
        }
      }
      row = next;
    }
    return woken;
  }

  #isAt(row: number, { id, offset }: Address): boolean {
    const table = this.#table;
    const place = table.place(row);
    return table.word(place + OFFSET) === (offset % 2 ** 32 | 0) &&
      table.word(place + SEGMENT) === (id % 2 ** 32 | 0) &&
      table.word(place + SEGMENT_HIGH) === (Math.floor(id / 2 ** 32) | 0) &&
      table.word(place + OFFSET_HIGH) === (Math.floor(offset / 2 ** 32) | 0);
  }

  #notify(row: number): void {
    this.#unchain(row);
    this.#table.set(this.#table.place(row) + STATE, NOTIFIED);
    this.#tell(row);
  }

  /** Both ways: whether the row's owner blocks or not is its own business. */
  #tell(row: number): void {
    this.#table.wake(this.#table.place(row) + STATE);
    this.#table.post(row);
  }
}
