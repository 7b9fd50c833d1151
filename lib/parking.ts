/**
 * Waiting on words of segments, as Atomics.wait, Atomics.waitAsync and Atomics.notify do within
 * one process: exactly, in the order of arrival, and counted.
 *
 * Whoever waits parks a row under the word's address, then looks whether the word still is what
 * it expects; whoever notifies has changed the word before, and then looks for rows. Both looks
 * and both changes are atomic and in that order, so one of the two sees the other. A notifier
 * that finds nobody parked under the word's bucket makes no call at all.
 *
 * The hardest race is between a notification and the end of a wait by itself, and there is one
 * answer: the row's state. It leaves PARKED once, by one atomic exchange, to NOTIFIED (or
 * ENDED) by who notifies or to GONE by who waits. So a wait that says "ok" was counted by exactly one notifier,
 * and one that says "timed-out" by none; and giving up needs no lock, which a stopped process may
 * have. All else (chains, mail, who frees the row) follows, under the table's lock.
 *
 * A notifier that dies leaves the lock abandoned: rows that it has made NOTIFIED are told by
 * whoever gets the lock next, the others still are PARKED. So a wait ends by it, or goes on as
 * if it had not come.
 *
 * The kernel's own queues cannot be it: one thread waits there for all tasks of its process, and
 * a wake-up that comes while it is busy would be counted as "nobody".
 *
 * @module
 */

import { onAbort } from "./aborts.ts";
import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import type { Segment } from "./segment.ts";
import { FREE, OWNER, PATIENCE_MS, SharedTable, STATE, tableSize, USER } from "./shared_table.ts";
import type { AsyncWaitOptions } from "./wait.ts";

/** How a wait on a word ended: as `Atomics.wait` says. */
export type WordWait = "ok" | "not-equal" | "timed-out";

const PARKED = 1;
/** Its owner is to be told, or has been, and will free it. In no chain. */
const NOTIFIED = 2;
/** Its owner has given up, and will free it. Still in its chain. */
const GONE = 3;
/** As NOTIFIED, but what it waits for is no more. */
const ENDED = 4;

// Words of a row: which word of which segment, and the next and previous row under its bucket.
const SEGMENT = USER;
const SEGMENT_HIGH = USER + 1;
const OFFSET = USER + 2;
const OFFSET_HIGH = USER + 3;
const NEXT = USER + 4;
const PREVIOUS = USER + 5;

const BUCKETS = 1024;
/**
 * A bucket: how many are parked under it, the first and the last (index + 1).
 *
 * The number is read without the lock, by who would notify nobody. So it is never less than the
 * number of live rows that are PARKED, not even while the chains are made anew.
 */
const BUCKET_WORDS = 3;

const shape = { headerWords: BUCKETS * BUCKET_WORDS, rowWords: 12, rows: 16_384 };
/** The segment that a registry's parked rows are in. */
export const PARKING_NAME = "\u0001parking";
/** Its size in bytes. */
export const PARKING_SIZE: number = tableSize(shape);

/** Between two searches for rows of the dead, when there is no room. */
const SWEEP_PAUSE_MS = 1000;
/** How long one that blocks waits for the table to take out its row, before others do it later. */
const TIDY_MS = 100;

/** A task that waits, by its row. */
interface Waiter {
  /** Of the word's segment. */
  id: number;
  resolve(outcome: WordWait): void;
  reject(cause: unknown): void;
}

/** Of a wait, beside what every wait has. */
export interface ParkOptions extends AsyncWaitOptions {
  /**
   * A notification is one only when its notifier is through with all that it does under the lock.
   * So a wait that was notified is not over before that, should it give up meanwhile.
   */
  isWhole?: boolean;
}

/** What a wait is rejected with that somebody has ended, for there is nothing to wait for any more. */
export class WaitEnded extends Error {}

/** A word, as rows name it. */
export interface Address {
  /** Of its segment. */
  id: number;
  /** In bytes. */
  offset: number;
}

/**
 * Whether to wait, asked when the row is parked: whoever changes the word from here on sees it.
 * False: the word says that there is nothing to wait for.
 */
export type MayWait = () => boolean;

/** The parked waits of a registry. */
export class Parking {
  readonly #backend: Backend;
  readonly #table: SharedTable;
  readonly #waiters = new Map<number, Waiter>();
  /** Rows of ours that nobody waits by any more, and that could not be freed yet. */
  readonly #left = new Set<number>();
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
  }

  /** Takes a row out of its bucket, unless it is notified: then it is in none any more. */
  #unchain(row: number): void {
    const state = this.#table.word(this.#table.place(row) + STATE);
    if (state === PARKED || state === GONE) this.#unlink(row);
  }

  #unlink(row: number): void {
    const table = this.#table;
    const place = table.place(row);
    const bucket = this.#bucket(this.#addressOf(row));
    const next = table.word(place + NEXT);
    const previous = table.word(place + PREVIOUS);
    if (previous === 0) table.set(bucket + 1, next);
    else table.set(table.place(previous - 1) + NEXT, next);
    if (next === 0) table.set(bucket + 2, previous);
    else table.set(table.place(next - 1) + PREVIOUS, previous);
    // Last: it is not parked any more by now, or its owner is dead.
    table.set(bucket, table.word(bucket) - 1);
  }

  #rebuild(): void {
    const table = this.#table;
    for (let i = 0; i < BUCKETS; i++) {
      const bucket = table.header + i * BUCKET_WORDS;
      table.put(bucket + 1, 0);
      table.put(bucket + 2, 0);
    }
    const rows: number[] = [];
    for (let row = 0; row < table.used; row++) {
      const state = table.word(table.place(row) + STATE);
      if (state === PARKED || state === GONE) rows.push(row);
      // The dead one may have been about to tell its owner.
      if (state === NOTIFIED || state === ENDED) this.#tell(row);
    }
    rows.sort((a, b) => table.compareBirths(a, b));
    const counts = new Map<number, number>();
    for (const row of rows) {
      const bucket = this.#bucket(this.#addressOf(row));
      this.#chain(row, bucket);
      counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
    }
    // Each from what it was, which may be too many, to what it is: never to less in between.
    for (let i = 0; i < BUCKETS; i++) {
      const bucket = table.header + i * BUCKET_WORDS;
      table.put(bucket, counts.get(bucket) ?? 0);
    }
  }

  /** Parks this backend under a word. With the lock held. Undefined: it need not wait. */
  #park(address: Address, mayWait: MayWait): number | undefined {
    const table = this.#table;
    this.#tidy();
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
    this.#evict(row);
    const place = table.place(row);
    table.set(place + SEGMENT, address.id % 2 ** 32 | 0);
    table.set(place + SEGMENT_HIGH, Math.floor(address.id / 2 ** 32) | 0);
    table.set(place + OFFSET, address.offset % 2 ** 32 | 0);
    table.set(place + OFFSET_HIGH, Math.floor(address.offset / 2 ** 32) | 0);
    table.set(place + STATE, PARKED);
    const bucket = this.#bucket(address);
    table.set(bucket, table.word(bucket) + 1);
    this.#chain(row, bucket);
    let isWaiting = false;
    try {
      // After that: whoever changes the word from here on sees the row.
      isWaiting = mayWait();
    } finally {
      if (!isWaiting) {
        this.#unlink(row);
        table.free(row);
      }
    }
    return isWaiting ? row : undefined;
  }

  /** The table gives a row out that we still have: who waits by it is not heard of any more. */
  #evict(row: number): void {
    const table = this.#table;
    this.#left.delete(row);
    const waiter = this.#waiters.get(row);
    if (waiter === undefined) return;
    this.#waiters.delete(row);
    waiter.reject(table.damaged());
    throw table.damaged();
  }

  /**
   * Ends the wait of a row of ours, with or without the lock; returns the state that it was in:
   * PARKED, or what it was notified of before. In either case nobody waits by it any more, and it
   * is to be left behind.
   */
  #giveUp(row: number): number {
    return this.#table.exchange(this.#table.place(row) + STATE, PARKED, GONE);
  }

  /** Frees the rows that were left behind. With the lock held. */
  #tidy(): void {
    for (const row of this.#left) {
      this.#left.delete(row);
      const place = this.#table.place(row);
      // Overwritten: what it is now is not ours to free.
      if (this.#table.word(place + STATE) === FREE) continue;
      if (this.#table.word(place + OWNER) !== this.#table.self) continue;
      this.#unchain(row);
      this.#table.unpost(row);
      this.#table.free(row);
    }
  }

  /** As soon as the table is to be had: now, as a rule, unless who has it is stopped. */
  #tidySoon(): void {
    const table = this.#table;
    table.change(() => {
      this.#tidy();
      if (this.#waiters.size === 0) table.unlisten();
    }).catch((cause) => {
      // What is closed or destroyed needs no tidying. Else whoever still waits is to know.
      if (table.isUsable) this.#fail(cause);
    });
  }

  #fail(cause: unknown): void {
    const all = [...this.#waiters.values()];
    this.#waiters.clear();
    for (const waiter of all) waiter.reject(cause);
  }

  #receive(row: number): void {
    const state = this.#table.word(this.#table.place(row) + STATE);
    const waiter = this.#waiters.get(row);
    this.#waiters.delete(row);
    this.#left.delete(row);
    this.#table.free(row);
    if (waiter !== undefined) this.#answer(waiter, state);
  }

  /** Tells a task what its row was notified of. */
  #answer(waiter: Waiter, state: number): void {
    if (state === NOTIFIED) waiter.resolve("ok");
    else waiter.reject(state === ENDED ? new WaitEnded() : this.#table.damaged());
  }

  /**
   * The same for one that has waited long enough: when the notifier is through, as its mail would.
   * That does not come if the state is not a notification but damage, or the notifier is stopped.
   */
  async #answerWhole(row: number, waiter: Waiter): Promise<void> {
    const table = this.#table;
    try {
      await table.change(() => {
        if (this.#waiters.get(row) !== waiter) return;
        const state = table.word(table.place(row) + STATE);
        if (state !== NOTIFIED && state !== ENDED) throw table.damaged();
        table.unpost(row);
        this.#receive(row);
      }, { timeout: PATIENCE_MS });
    } catch (cause) {
      if (this.#waiters.get(row) !== waiter) return;
      this.#waiters.delete(row);
      this.#left.add(row);
      waiter.reject(cause);
    }
  }

  /** Blocks. `timeout` in ms. */
  waitSync(address: Address, mayWait: MayWait, timeout: number, isWhole = false): WordWait {
    const table = this.#table;
    const until = performance.now() + timeout;
    let row: number | undefined;
    try {
      row = table.changeSync(() => this.#park(address, mayWait), Math.min(timeout, PATIENCE_MS));
    } catch (error) {
      if (!isTimeout(error) || timeout >= PATIENCE_MS) throw error;
      // Others were at the table all the time.
      return mayWait() ? "timed-out" : "not-equal";
    }
    if (row === undefined) return "not-equal";
    const place = table.place(row) + STATE;
    try {
      for (;;) {
        const left = until - performance.now();
        if (table.word(place) !== PARKED || left <= 0) break;
        // Throws when the registry goes; then nobody looks at the row any more.
        table.sleepSync(place, PARKED, left);
      }
      const state = this.#giveUp(row);
      // The lock is to be had when the notifier is through.
      if (state !== PARKED && isWhole) table.changeSync(() => undefined);
      if (state === ENDED) throw new WaitEnded();
      if (state !== PARKED && state !== NOTIFIED) throw table.damaged();
      return state === PARKED ? "timed-out" : "ok";
    } finally {
      this.#leaveSync(row);
    }
  }

  #leaveSync(row: number): void {
    const table = this.#table;
    if (!table.isUsable) return;
    // Also if sleeping has failed: nobody is to count it.
    this.#giveUp(row);
    this.#left.add(row);
    try {
      table.changeSync(() => this.#tidy(), TIDY_MS);
    } catch {
      // A stopped process has it; or the registry is gone, which the caller is told.
      this.#tidySoon();
    }
  }

  /** The same without blocking. */
  async wait(
    address: Address,
    mayWait: MayWait,
    { timeout = Infinity, signal, isWhole = false }: ParkOptions,
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
        const row = this.#park(address, mayWait);
        // In the same turn: it may be notified before we go on.
        if (row !== undefined) this.#waiters.set(row, ended);
        return row;
      }, { timeout, ...(signal === undefined ? {} : { signal }) });
    } catch (error) {
      if (!isTimeout(error) || (signal?.aborted === true && error === signal.reason)) throw error;
      // Others were at the table all the time.
      return mayWait() ? "timed-out" : "not-equal";
    }
    if (row === undefined) return "not-equal";
    const parked = row;
    let timer: ReturnType<typeof setTimeout> | undefined;
    /** Ends the wait, unless a notification that was meant for it has come first. */
    const giveUp = (finish: () => void): void => {
      // When the table has gone, who listens to it tells.
      if (this.#waiters.get(parked) !== ended || !table.isUsable) return;
      const state = this.#giveUp(parked);
      if (state !== PARKED && isWhole) return void this.#answerWhole(parked, ended);
      this.#waiters.delete(parked);
      this.#left.add(parked);
      if (state === PARKED) finish();
      else this.#answer(ended, state);
      this.#tidySoon();
    };
    const abort = (): void => giveUp(() => ended.reject(signal?.reason));
    const expire = (): void => {
      const left = until - performance.now();
      if (left <= 0) giveUp(() => ended.resolve("timed-out"));
      else timer = setTimeout(expire, Math.min(left, 0x7fffffff));
    };
    if (timeout !== Infinity) expire();
    let stopListening: (() => void) | undefined;
    if (signal?.aborted === true) abort();
    else if (signal !== undefined) stopListening = onAbort(signal, abort);
    void table.listen(() => this.#waiters.size > 0, (cause) => this.#fail(cause));
    try {
      return await ended.promise;
    } finally {
      if (timer !== undefined) clearTimeout(timer);
      stopListening?.();
    }
  }

  /** A segment is being detached: ends the waits for its words. */
  leave(id: number, cause: DsmrError): void {
    const leaving = [...this.#waiters].filter(([, waiter]) => waiter.id === id);
    if (leaving.length === 0) return;
    const { isUsable } = this.#table;
    for (const [row, waiter] of leaving) {
      // The table may be gone already: then everybody will notice that the row's owner is.
      const state = isUsable ? this.#giveUp(row) : PARKED;
      this.#waiters.delete(row);
      this.#left.add(row);
      if (state === PARKED) waiter.reject(cause);
      else this.#answer(waiter, state);
    }
    if (isUsable) this.#tidySoon();
  }

  /** Wakes at most `count` of those who wait on a word; returns how many. */
  notify(address: Address, count: number): number {
    const table = this.#table;
    if (table.word(this.#bucket(address)) === 0) return 0;
    return table.changeSync(() => this.#wake(address, count));
  }

  /**
   * Notifies and does more, before any of those can go on or another can be parked. Its `wake` is
   * as `notify`, or `end`s the waits with `WaitEnded`. Who dies in it leaves waits that have ended
   * though the rest was not done.
   */
  change<Result>(
    change: (wake: (address: Address, count: number, how?: "end") => number) => Result,
  ): Result {
    return this.#table.changeSync(() =>
      change((address, count, how) => this.#wake(address, count, how === "end" ? ENDED : NOTIFIED))
    );
  }

  /**
   * Buries the rows of the dead. How many rows have ever been in use at a time, how many are now,
   * and how many of these are parked.
   */
  sweep(): { used: number; taken: number; parked: number } {
    const table = this.#table;
    return table.changeSync(() => {
      this.#tidy();
      table.sweep();
      const { used } = table;
      const states = Array.from({ length: used }, (_, row) => table.word(table.place(row) + STATE));
      const taken = states.filter((state) => state !== FREE).length;
      const parked = states.filter((state) => state === PARKED).length;
      return { used, taken, parked };
    });
  }

  /** The same, with the lock held. */
  #wake(address: Address, count: number, state: number = NOTIFIED): number {
    const table = this.#table;
    let woken = 0;
    let row = table.word(this.#bucket(address) + 1) - 1;
    for (let steps = table.used; row !== -1 && woken < count; steps--) {
      if (steps === 0) throw table.damaged();
      const next = table.word(table.place(row) + NEXT) - 1;
      if (this.#isAt(row, address)) {
        if (!table.isAlive(row)) {
          this.#unlink(row);
          table.free(row);
        } else if (this.#notify(row, state)) woken++;
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

  /** False: it has given up. */
  #notify(row: number, state: number): boolean {
    const table = this.#table;
    if (table.exchange(table.place(row) + STATE, PARKED, state) !== PARKED) return false;
    this.#unlink(row);
    this.#tell(row);
    return true;
  }

  /** Both ways: whether the row's owner blocks or not is its own business. */
  #tell(row: number): void {
    this.#table.wake(this.#table.place(row) + STATE);
    this.#table.post(row);
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof DsmrError && error.code === "TIMEOUT";
}
