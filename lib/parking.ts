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
import {
  type Address,
  ENDED,
  type MayWait,
  NOTIFIED,
  PARKED,
  ParkedRows,
  ROWS,
} from "./parking_rows.ts";
import { FREE, PATIENCE_MS, STATE } from "./shared_table.ts";
import type { AsyncWaitOptions } from "./wait.ts";

/** How a wait on a word ended: as `Atomics.wait` says. */
export type WordWait = "ok" | "not-equal" | "timed-out";

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

/** The parked waits of a registry. */
export class Parking {
  readonly #table: ParkedRows;
  readonly #waiters = new Map<number, Waiter>();
  /** Rows of ours that nobody waits by any more, and that could not be freed yet. */
  readonly #left = new Set<number>();
  /**
   * Rows by which this thread blocks. Letting go of the table's lock lets tasks that queue for it
   * take it in the same turn, and such a task may find the mail of a row that was notified just
   * then: it is not to be freed under the one who blocks.
   */
  readonly #blocked = new Set<number>();
  #sweptAt = -Infinity;

  constructor(backend: Backend, segment: Segment) {
    this.#table = new ParkedRows(backend, segment, (row) => this.#receive(row));
  }

  /** Whether its memory is still attached. */
  get isUsable(): boolean {
    return this.#table.isUsable;
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
        `${ROWS} waits on words are pending in this registry, which is all it has room for. ` +
          "Let some of them end first.",
        { actual: ROWS, requested: ROWS + 1 },
      );
    }
    this.#evict(row);
    return table.park(row, address, mayWait) ? row : undefined;
  }

  /** The table gives a row out that we still have: who waits by it is not heard of any more. */
  #evict(row: number): void {
    const table = this.#table;
    this.#left.delete(row);
    if (this.#blocked.has(row)) throw table.damaged();
    const waiter = this.#waiters.get(row);
    if (waiter === undefined) return;
    this.#waiters.delete(row);
    waiter.reject(table.damaged());
    throw table.damaged();
  }

  /** Frees the rows that were left behind. With the lock held. */
  #tidy(): void {
    for (const row of this.#left) {
      this.#left.delete(row);
      // Overwritten: what it is now is not ours to free.
      if (!this.#table.isOurs(row)) continue;
      this.#table.unchain(row);
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
    // Who blocks by it sees its state, and frees it.
    if (this.#blocked.has(row)) return;
    const state = this.#table.state(row);
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
        const state = table.state(row);
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
      row = table.changeSync(() => {
        const row = this.#park(address, mayWait);
        if (row !== undefined) this.#blocked.add(row);
        return row;
      }, Math.min(timeout, PATIENCE_MS));
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
      const state = this.#table.giveUp(row);
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
    this.#blocked.delete(row);
    if (!table.isUsable) return;
    // Also if sleeping has failed: nobody is to count it.
    this.#table.giveUp(row);
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
      const state = this.#table.giveUp(parked);
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
  leave(id: number, cause: () => DsmrError): void {
    const leaving = [...this.#waiters].filter(([, waiter]) => waiter.id === id);
    if (leaving.length === 0) return;
    // Made only where it is told: it notes down where it was made, at length.
    const reason = cause();
    const { isUsable } = this.#table;
    for (const [row, waiter] of leaving) {
      // The table may be gone already: then everybody will notice that the row's owner is.
      const state = isUsable ? this.#table.giveUp(row) : PARKED;
      this.#waiters.delete(row);
      this.#left.add(row);
      if (state === PARKED) waiter.reject(reason);
      else this.#answer(waiter, state);
    }
    if (isUsable) this.#tidySoon();
  }

  /** Wakes at most `count` of those who wait on a word; returns how many. */
  notify(address: Address, count: number): number {
    const table = this.#table;
    if (table.isEmptyAt(address)) return 0;
    return table.changeSync(() => table.notify(address, count));
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
      change((address, count, how) =>
        this.#table.notify(address, count, how === "end" ? ENDED : NOTIFIED)
      )
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
      const states = Array.from({ length: used }, (_, row) => table.state(row));
      const taken = states.filter((state) => state !== FREE).length;
      const parked = states.filter((state) => state === PARKED).length;
      return { used, taken, parked };
    });
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof DsmrError && error.code === "TIMEOUT";
}
