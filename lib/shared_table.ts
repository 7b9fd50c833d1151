/**
 * A table in a segment of the library's own: rows that belong to backends, and a mailbox for
 * each backend. What waits on words and what waits for named locks stand in such tables.
 *
 * Everything is changed under the segment's lock, in one synchronous stretch. The hardest race
 * is a death in the middle of one. The answer: what a row is stands in its first word alone,
 * which is stored last when it comes and first when it goes; all links (free rows, mailboxes,
 * the user's chains) follow from the rows' words, and whoever gets the lock abandoned makes
 * them anew. Rows of the dead are taken out by whoever meets them.
 *
 * A table may grow: by extents, further segments, each of which has as many rows as all before it
 * together. They stay. Whoever makes one says so in the header when it is there; whoever gets the
 * lock attaches what it does not have yet before it looks at rows.
 *
 * Whoever can attach a table can write what he likes into it. So nothing in it is believed that
 * leads to a place: rows are looked up by their number, which must be one of a row that there is,
 * every walk ends after as many steps as there are rows, and an extent is attached only if it is
 * there. What does not fit is CORRUPT, for whoever meets it.
 *
 * A backend sleeps on one word, its mailbox's, however many rows it has: whoever changes a row
 * of another backend posts it there and wakes.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { fateOf, native } from "./ffi/native.ts";
import { isAwaited, runInside } from "./lwlock.ts";
import { inOwnWords, titleOf } from "./own_names.ts";
import { handleOf, type Segment } from "./segment.ts";
import { type AsyncWaitOptions, wait } from "./wait.ts";

/** The words that every row begins with. */
export const STATE = 0;
/** The id of the backend whose row it is. */
export const OWNER = 1;
/** The next free row, or the next in the mailbox: index + 1, or 0. */
const LINK = 2;
/** Whether it is in its owner's mailbox. */
const POSTED = 3;
/** Grows with each row given out: the order in which they came (two words). */
const BORN = 4;
const BORN_HIGH = 5;
/** The first word that is the user's. */
export const USER = 6;

/** A row that nobody has. */
export const FREE = 0;

const BACKENDS = 256;

/** How long what blocks waits for the lock, which a stopped process may have. */
export const PATIENCE_MS = 10_000;

/** A place in an extent is its number times this, and the word in it; the first segment is 0. */
const EXTENT_PLACES = 2 ** 28;

// Words of the header.
const FIRST_FREE = 0;
/** How many rows have ever been given out. */
const USED = 1;
const LAST_BORN = 2;
const LAST_BORN_HIGH = 3;
/** How many extents there are beside the first segment. */
const EXTENTS = 4;
/** Mailboxes: a word to sleep on, and the first row, for each slot. */
const MAIL_WORD = 16;
const MAIL_FIRST = MAIL_WORD + BACKENDS;
/** Where the user's own header begins. */
const HEADER = MAIL_FIRST + BACKENDS;

/** What a table is made of. */
export interface TableShape {
  /** Of the user's own header. */
  headerWords: number;
  /** Of a row, the table's own included. */
  rowWords: number;
  /** Of the first segment. */
  rows: number;
  /** How often it may double. Default: never. */
  extents?: number;
}

/** What the user of a table does; all with the lock held. */
export interface TableUser {
  /** Makes the user's links anew from the rows. */
  rebuild(): void;
  /** Gets a row of this backend that somebody has posted to it. */
  receive(row: number): void;
  /** Takes a row out whose owner is dead, and frees it. */
  bury(row: number): void;
}

/** How many bytes the segment of a table needs. */
export function tableSize({ headerWords, rowWords, rows }: TableShape): number {
  return (HEADER + headerWords + rows * rowWords) * 4;
}

/** One table, attached. */
export class SharedTable {
  readonly #backend: Backend;
  readonly #segment: Segment;
  readonly #shape: TableShape;
  readonly #user: TableUser;
  /** Ends the wait for mail, while there is one. */
  #listening: AbortController | undefined;
  /** Of the first segment and the extents that are attached. */
  readonly #parts: Int32Array[];
  /** The first segment. Every access is in bounds, or undefined. */
  readonly words: Int32Array;
  /** The place of the user's header. */
  readonly header: number = HEADER;

  constructor(backend: Backend, segment: Segment, shape: TableShape, user: TableUser) {
    this.#backend = backend;
    this.#segment = segment;
    this.#shape = shape;
    this.#user = user;
    this.words = new Int32Array(segment.buffer);
    this.#parts = [this.words];
  }

  /** Whether the segments are still attached. */
  get isUsable(): boolean {
    for (const part of this.#parts) if (part.length === 0) return false;
    return true;
  }

  /** This backend's id, as it stands in rows. */
  get self(): number {
    return this.#backend.id | 0;
  }

  word(place: number): number {
    if (place < EXTENT_PLACES) return Atomics.load(this.words, place);
    return Atomics.load(this.#extent(place), place % EXTENT_PLACES);
  }

  set(place: number, value: number): void {
    if (place < EXTENT_PLACES) Atomics.store(this.words, place, value);
    else Atomics.store(this.#extent(place), place % EXTENT_PLACES, value);
  }

  /** Stores what is not there already: repairing writes no more than it must. */
  put(place: number, value: number): void {
    if (this.word(place) !== value) this.set(place, value);
  }

  /**
   * Changes the state of a row of the first segment if it is `expected`, with or without the
   * lock; returns what it was.
   */
  exchange(place: number, expected: number, value: number): number {
    return Atomics.compareExchange(this.words, place, expected, value);
  }

  #extent(place: number): Int32Array {
    const part = this.#parts[Math.floor(place / EXTENT_PLACES)];
    if (part === undefined) throw this.damaged();
    return part;
  }

  /** The place of a row's first word. Throws unless there is such a row. */
  place(row: number): number {
    const { headerWords, rows, rowWords } = this.#shape;
    // As far as it is attached: what is not is beyond what the header says, too.
    if (row < 0 || row >= rows * 2 ** (this.#parts.length - 1)) throw this.damaged();
    if (row < rows) return HEADER + headerWords + row * rowWords;
    const extent = 32 - Math.clz32(Math.floor(row / rows));
    return extent * EXTENT_PLACES + (row - rows * 2 ** (extent - 1)) * rowWords;
  }

  /** All rows that have ever been given out. */
  get used(): number {
    const used = this.word(USED) >>> 0;
    if (used > this.capacity) throw this.damaged();
    return used;
  }

  /** All rows that there are. */
  get capacity(): number {
    return this.#shape.rows * 2 ** this.#extentCount;
  }

  get #extentCount(): number {
    return Math.min(this.word(EXTENTS) >>> 0, this.#shape.extents ?? 0);
  }

  /** Whether all extents are attached. Says nothing without the lock. */
  get #isWhole(): boolean {
    return this.#parts.length > this.#extentCount;
  }

  /** Makes the next extent, or attaches it: that must be there, for the header says so. */
  async #extend(how: "make" | "attach"): Promise<void> {
    const { rows, rowWords } = this.#shape;
    const extent = this.#parts.length;
    const size = rows * 2 ** (extent - 1) * rowWords * 4;
    const name = `${this.#segment.name}${extent}`;
    let segment: Segment;
    try {
      segment = await this.#backend.ownSegment(name, how === "make" ? size : 0);
    } catch (cause) {
      const isMissing = cause instanceof DsmrError && cause.code === "NOT_FOUND";
      throw isMissing ? this.damaged() : cause;
    }
    if (segment.size < size) throw this.damaged();
    // Another task may have come first.
    this.#parts[extent] ??= new Int32Array(segment.buffer);
  }

  /** Doubles the table, when `take` finds no row. False: it must not become larger. */
  async grow(): Promise<boolean> {
    const extent = await this.change(() => this.#extentCount) + 1;
    if (extent > (this.#shape.extents ?? 0)) return false;
    while (this.#parts.length <= extent) await this.#extend("make");
    await this.change(() => this.set(EXTENTS, Math.max(extent, this.#extentCount)));
    return true;
  }

  // ---- the lock -------------------------------------------------------------------------

  /**
   * Runs `change` with the lock held; blocks while another process is at it, some microseconds,
   * and at most `timeout` ms.
   */
  changeSync<Result>(change: () => Result, timeout: number = PATIENCE_MS): Result {
    return this.#told(() => {
      // No task of ours has it, of whatever backend: they change and let go in one turn.
      this.#segment.lock.acquireSync("exclusive", { timeout });
      return this.#change(change);
    });
  }

  /**
   * The same, without blocking should that process be stopped. `options` are for the time until
   * the change begins.
   *
   * Changes of one isolate are made in the order in which they were asked for. The race: another
   * process has the lock when the first is asked for, which therefore queues, and has let go when
   * the second is. That one must not take it, free as it is, or of two waits on a word the later
   * one would be parked first, and notified first. So where somebody queues, all do. (One that
   * meets a table that has grown loses its place: locks by name, whose table does, have a queue.)
   */
  async change<Result>(change: () => Result, options?: AsyncWaitOptions): Promise<Result> {
    try {
      return await this.#changeSoon(change, options);
    } catch (thrown) {
      // An abort's reason is the caller's, whatever it is.
      if (options?.signal?.aborted === true && thrown === options.signal.reason) throw thrown;
      throw inOwnWords(thrown);
    }
  }

  async #changeSoon<Result>(
    change: () => Result,
    options: AsyncWaitOptions | undefined,
  ): Promise<Result> {
    const { lock } = this.#segment;
    for (;;) {
      if (!isAwaited(lock) && lock.tryAcquire()) {
        if (this.#isWhole) return this.#change(change);
        lock.release();
      } else {
        const changed = await runInside(
          lock,
          () => this.#isWhole ? { result: this.#inside(change) } : undefined,
          options,
        );
        if (changed !== undefined) return changed.result;
      }
      // Somebody has made the table larger.
      if (!this.#isWhole) await this.#extend("attach");
    }
  }

  /** The same if it is to be had at once. Else nothing has been done, and it returns false. */
  tryChange(change: () => void): boolean {
    return this.#told(() => {
      const { lock } = this.#segment;
      if (!lock.tryAcquire()) return false;
      const isWhole = this.#isWhole;
      if (isWhole) this.#change(change);
      else lock.release();
      return isWhole;
    });
  }

  /** Does it; what it throws does not tell of segments that are nobody's business. */
  #told<Result>(action: () => Result): Result {
    try {
      return action();
    } catch (thrown) {
      throw inOwnWords(thrown);
    }
  }

  #change<Result>(change: () => Result): Result {
    try {
      return this.#inside(change);
    } finally {
      this.#segment.lock.release();
    }
  }

  #inside<Result>(change: () => Result): Result {
    const { lock } = this.#segment;
    if (lock.abandoned) {
      this.#repair();
      lock.markConsistent();
    }
    return change();
  }

  #repair(): void {
    const used = this.used;
    this.put(FIRST_FREE, 0);
    for (let slot = 0; slot < BACKENDS; slot++) this.put(MAIL_FIRST + slot, 0);
    for (let row = used - 1; row >= 0; row--) {
      const place = this.place(row);
      if (this.word(place + STATE) === FREE) {
        this.#link(row, FIRST_FREE);
        continue;
      }
      const mailbox = MAIL_FIRST + (this.word(place + OWNER) & 0xff);
      if (this.word(place + POSTED) !== 0) this.#link(row, mailbox);
    }
    this.put(USED, used);
    this.#user.rebuild();
    // Those that were to be woken by the dead one.
    for (let slot = 0; slot < BACKENDS; slot++) {
      if (this.word(MAIL_FIRST + slot) !== 0) this.#ring(slot);
    }
  }

  #link(row: number, first: number): void {
    this.set(this.place(row) + LINK, this.word(first));
    this.set(first, row + 1);
  }

  /** Takes the first row off a list; -1 if there is none. */
  #unlink(first: number): number {
    const row = this.word(first) - 1;
    if (row !== -1) this.set(first, this.word(this.place(row) + LINK));
    return row;
  }

  /** The error for links that lead nowhere. */
  damaged(): DsmrError {
    return new DsmrError(
      "CORRUPT",
      `The registry is damaged, in ${titleOf(this.#segment.name)}: what is there does not fit ` +
        "together. Destroy the registry.",
    );
  }

  // ---- rows, with the lock held -----------------------------------------------------------

  /** A row of this backend, without a state yet; undefined if all are in use. */
  take(): number | undefined {
    let row = this.#unlink(FIRST_FREE);
    if (row < 0) {
      row = this.used;
      if (row >= this.capacity) return undefined;
      this.set(USED, row + 1);
    }
    const place = this.place(row);
    // Nobody else's, if the links are what they must be.
    if (this.word(place + STATE) !== FREE) throw this.damaged();
    let born = this.word(LAST_BORN) + 1 | 0;
    if (born === 0) this.set(LAST_BORN_HIGH, this.word(LAST_BORN_HIGH) + 1 | 0);
    this.set(LAST_BORN, born);
    born = this.word(LAST_BORN);
    this.set(place + BORN, born);
    this.set(place + BORN_HIGH, this.word(LAST_BORN_HIGH));
    this.set(place + POSTED, 0);
    this.set(place + OWNER, this.self);
    return row;
  }

  /** Gives a row back that is in no mailbox. */
  free(row: number): void {
    this.set(this.place(row) + STATE, FREE);
    this.#link(row, FIRST_FREE);
  }

  /** Takes a row out of its owner's mailbox, if it is there. */
  unpost(row: number): void {
    const place = this.place(row);
    if (this.word(place + POSTED) === 0) return;
    this.set(place + POSTED, 0);
    let link = MAIL_FIRST + (this.word(place + OWNER) & 0xff);
    for (let steps = this.used; steps >= 0; steps--) {
      const next = this.word(link) - 1;
      if (next === row) {
        this.set(link, this.word(place + LINK));
        return;
      }
      // Of the last row: it is in the list, or the list is none.
      link = this.place(next) + LINK;
    }
    throw this.damaged();
  }

  /** Which of two rows came first: negative if it was `a`. */
  compareBirths(a: number, b: number): number {
    const high = (this.word(this.place(a) + BORN_HIGH) >>> 0) -
      (this.word(this.place(b) + BORN_HIGH) >>> 0);
    if (high !== 0) return high;
    return (this.word(this.place(a) + BORN) >>> 0) - (this.word(this.place(b) + BORN) >>> 0);
  }

  /** Whether the owner of a row lives. One native call. */
  isAlive(row: number): boolean {
    const owner = this.word(this.place(row) + OWNER);
    if (owner === this.self) return true;
    return native().calls.dsmr_backend_is_alive(this.#backend.handle, owner >>> 0) === 1;
  }

  /** Buries the rows of the dead. Asks the kernel once for each backend that has rows. */
  sweep(): void {
    const lives = new Map<number, boolean>();
    for (let row = 0; row < this.used; row++) {
      const place = this.place(row);
      if (this.word(place + STATE) === FREE) continue;
      const owner = this.word(place + OWNER);
      let isAlive = lives.get(owner);
      if (isAlive === undefined) lives.set(owner, isAlive = this.isAlive(row));
      if (isAlive) continue;
      this.unpost(row);
      this.#user.bury(row);
    }
  }

  // ---- mail ----------------------------------------------------------------------------------

  /** Tells a row's owner that it has changed. With the lock held. */
  post(row: number): void {
    const place = this.place(row);
    if (this.word(place + POSTED) !== 0) return;
    const slot = this.word(place + OWNER) & 0xff;
    this.set(place + POSTED, 1);
    this.#link(row, MAIL_FIRST + slot);
    this.#ring(slot);
  }

  #ring(slot: number): void {
    Atomics.add(this.words, MAIL_WORD + slot, 1);
    native().calls.dsmr_word_wake(handleOf(this.#segment), (MAIL_WORD + slot) * 4, 0, 0x7fffffff);
  }

  /** Wakes who sleeps on a word of the first segment. */
  wake(place: number): void {
    native().calls.dsmr_word_wake(handleOf(this.#segment), place * 4, 0, 0x7fffffff);
  }

  /** Blocks while a word of the first segment is `expected`, for a slice and at most `timeout` ms. */
  sleepSync(place: number, expected: number, timeout: number): void {
    this.#checkOpen(
      native().calls.dsmr_word_wait(
        handleOf(this.#segment),
        place * 4,
        0,
        expected >>> 0,
        Number.isFinite(timeout) ? Math.min(Math.ceil(timeout), 0x7fffffff) : -1,
      ),
    );
  }

  /**
   * Hands on what comes into this backend's mailbox, as long as `isNeeded`. Keeps the program
   * alive meanwhile, unless it `isWeak`. Never rejects: what ends it is told to `failed`.
   */
  async listen(
    isNeeded: () => boolean,
    failed: (cause: unknown) => void,
    isWeak: () => boolean = () => false,
  ): Promise<void> {
    if (this.#listening !== undefined) return;
    const listening = new AbortController();
    this.#listening = listening;
    const mail = MAIL_WORD + (this.self & 0xff);
    try {
      while (isNeeded() && !listening.signal.aborted) {
        // Closed since somebody has put a row there.
        if (!this.isUsable) this.#checkOpen(native().number("DSMR_E_CLOSED"));
        const seen = this.word(mail);
        await this.change(() => this.#empty());
        if (!isNeeded()) break;
        await wait({ attempt: () => this.#watch(mail, seen), late: () => undefined, isWeak }, {
          signal: listening.signal,
        });
      }
    } catch (cause) {
      if (!listening.signal.aborted) failed(cause);
    }
    this.#listening = undefined;
    // Somebody may have come while we were about to end.
    if (isNeeded()) await this.listen(isNeeded, failed, isWeak);
  }

  /** Nobody needs the mail any more: does not keep the program alive. */
  unlisten(): void {
    this.#listening?.abort();
  }

  #watch(place: number, seen: number): number {
    const { calls } = native();
    return this.#checkOpen(
      calls.dsmr_word_watch(handleOf(this.#segment), place * 4, 0, seen >>> 0),
    );
  }

  #checkOpen(status: number): number {
    if (status >= 0) return status;
    const code = native().codeOf.get(status) ?? "CLOSED";
    throw new DsmrError(
      code,
      code === "CLOSED" || code === "DETACHED"
        ? `The registry ${fateOf(this.#backend.handle)} while there was something to wait for in ` +
          `${titleOf(this.#segment.name)}. Open it again.`
        : `There is no waiting for ${titleOf(this.#segment.name)}: the process is out of memory, ` +
          "threads or watches. Close what it does not need, or raise its limits (ulimit -a).",
    );
  }

  #empty(): void {
    const mailbox = MAIL_FIRST + (this.self & 0xff);
    const rows: number[] = [];
    for (let row = this.#unlink(mailbox); row >= 0; row = this.#unlink(mailbox)) {
      if (rows.length === this.used) throw this.damaged();
      this.set(this.place(row) + POSTED, 0);
      rows.push(row);
    }
    // The last one posted came out first.
    for (const row of rows.reverse()) {
      // An earlier backend of our slot may have left it behind.
      if (this.word(this.place(row) + OWNER) !== this.self) this.#user.bury(row);
      else this.#user.receive(row);
    }
  }
}
