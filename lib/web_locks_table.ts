/**
 * The requests for locks by name, of all processes, in a shared table: who holds what, who waits
 * for what, and who comes next. Deliberates as the Web Locks specification does.
 *
 * A row is a request, queued or held. The rows of names with the same hash are chained, and in a
 * chain, for each name, those that hold come before those that wait, who stand in the order in
 * which they came. So one look from the front tells whether a request can be granted.
 *
 * The hardest race is a death between letting go of one lock and granting the next. The answer:
 * the table's lock is then abandoned, and whoever gets it looks at every queue again, and writes
 * to every owner of a lock, whether that was written before or not.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import type { LockMode } from "./lock_arguments.ts";
import type { Segment } from "./segment.ts";
import { FREE, OWNER, SharedTable, STATE, tableSize, USER } from "./shared_table.ts";

const QUEUED = 1;
const HELD = 2;
/** Was held, until somebody stole it. In no chain; its owner frees it. */
const STOLEN = 3;

// Words of a row.
const MODE = USER;
const HASH = USER + 1;
/** In UTF-16 code units; with WIDE if they take two bytes each. */
const LENGTH = USER + 2;
/** In the chain: index + 1, or 0. */
const NEXT = USER + 3;
const PREVIOUS = USER + 4;
const NAME = USER + 5;

const WIDE = 0x1000;
const EXCLUSIVE = 1;
const SHARED = 2;

/** How long names may be, in UTF-16 code units: what `length` of a string says. */
export const NAME_LENGTH_MAX = 255;
const NAME_WORDS = 128;

const BUCKETS = 1024;
/** The first and the last row of a chain (index + 1). */
const BUCKET_WORDS = 2;

const shape = {
  headerWords: BUCKETS * BUCKET_WORDS,
  rowWords: NAME + NAME_WORDS,
  rows: 1024,
  extents: 10,
};

/** How many requests there can be: the table doubles until then. */
export const REQUESTS_MAX: number = shape.rows * 2 ** shape.extents;

/** A name as rows have it: whatever is in the string, lone surrogates included. */
export interface EncodedName {
  length: number;
  hash: number;
  words: Int32Array;
}

const units = new Uint16Array(NAME_WORDS * 2);
const unitBytes = new Uint8Array(units.buffer);
const unitWords = new Int32Array(units.buffer);

/** The name must not be too long. */
export function encodeLockName(name: string): EncodedName {
  const { length } = name;
  unitWords.fill(0);
  let isWide = false;
  for (let i = 0; i < length; i++) if (name.charCodeAt(i) > 0xff) isWide = true;
  for (let i = 0; i < length; i++) {
    if (isWide) units[i] = name.charCodeAt(i);
    else unitBytes[i] = name.charCodeAt(i);
  }
  const words = unitWords.slice(0, Math.ceil(isWide ? length / 2 : length / 4));
  let hash = length;
  for (const word of words) hash = Math.imul(hash ^ word, 0x9e3779b1) ^ hash >>> 15;
  return { length: length | (isWide ? WIDE : 0), hash: hash ^ hash >>> 16, words };
}

/** How a request is made: waits its turn, takes what is free, takes it from whoever has it. */
export type Manner = "queue" | "try" | "steal";

/** A request, as it is listed. */
export interface ListedRequest {
  name: string;
  mode: LockMode;
  owner: number;
  isHeld: boolean;
}

/** Whom the table tells about rows of this backend; all with the lock held. */
export interface Owner {
  /** Perhaps not for the first time. */
  granted(row: number): void;
  /** Was held, though `granted` may not have been called. The row is gone. */
  stolen(row: number): void;
}

/** What came of a request. `full`: nothing, the table must grow first. */
export type Entered =
  | { outcome: "held"; row: number }
  | { outcome: "queued"; row: number }
  | { outcome: "refused" }
  | { outcome: "full" };

/** The table, attached. All but `open`, `change` and `isUsable` with the lock held. */
export class RequestTable extends SharedTable {
  readonly #owner: Owner;

  constructor(backend: Backend, segment: Segment, owner: Owner) {
    super(backend, segment, shape, {
      rebuild: () => this.#rebuild(),
      receive: (row) => this.#receive(row),
      bury: (row) => this.#bury(row),
    });
    this.#owner = owner;
  }

  /** Attaches the registry's table; makes it where there is none. */
  static async open(backend: Backend, owner: Owner): Promise<RequestTable> {
    const segment = await backend.ownSegment("\u0001locks", tableSize(shape));
    return new RequestTable(backend, segment, owner);
  }

  // ---- chains ---------------------------------------------------------------------------

  #bucket(place: number): number {
    return this.header + (this.word(place + HASH) & (BUCKETS - 1)) * BUCKET_WORDS;
  }

  #chain(row: number): void {
    const place = this.place(row);
    const bucket = this.#bucket(place);
    const last = this.word(bucket + 1);
    this.set(place + NEXT, 0);
    this.set(place + PREVIOUS, last);
    this.set(last === 0 ? bucket : this.place(last - 1) + NEXT, row + 1);
    this.set(bucket + 1, row + 1);
  }

  #chainFirst(row: number): void {
    const place = this.place(row);
    const bucket = this.#bucket(place);
    const first = this.word(bucket);
    this.set(place + NEXT, first);
    this.set(place + PREVIOUS, 0);
    this.set(first === 0 ? bucket + 1 : this.place(first - 1) + PREVIOUS, row + 1);
    this.set(bucket, row + 1);
  }

  #unchain(place: number): void {
    const bucket = this.#bucket(place);
    const next = this.word(place + NEXT);
    const previous = this.word(place + PREVIOUS);
    this.set(previous === 0 ? bucket : this.place(previous - 1) + NEXT, next);
    this.set(next === 0 ? bucket + 1 : this.place(next - 1) + PREVIOUS, previous);
  }

  /**
   * Shows the requests for the name of a row, those that hold first, until `look` returns true.
   * It may take out what it is shown.
   */
  #each(place: number, look: (row: number, place: number) => boolean): void {
    let row = this.word(this.#bucket(place)) - 1;
    for (let steps = this.used; row !== -1; steps--) {
      if (steps === 0) throw this.damaged();
      const other = this.place(row);
      const next = this.word(other + NEXT) - 1;
      if (this.#isSameName(place, other) && look(row, other)) return;
      row = next;
    }
  }

  #isSameName(one: number, other: number): boolean {
    if (this.word(one + HASH) !== this.word(other + HASH)) return false;
    const length = this.word(one + LENGTH);
    if (length !== this.word(other + LENGTH)) return false;
    const end = NAME + wordsOf(length);
    for (let i = NAME; i < end; i++) {
      if (this.word(one + i) !== this.word(other + i)) return false;
    }
    return true;
  }

  #rebuild(): void {
    for (let i = 0; i < BUCKETS * BUCKET_WORDS; i++) this.set(this.header + i, 0);
    const rows: Record<number, number[]> = { [QUEUED]: [], [HELD]: [], [STOLEN]: [] };
    for (let row = 0; row < this.used; row++) rows[this.word(this.place(row) + STATE)]?.push(row);
    const { [QUEUED]: queued = [], [HELD]: held = [], [STOLEN]: stolen = [] } = rows;
    for (const some of [held, queued]) {
      some.sort((a, b) => this.compareBirths(a, b));
      for (const row of some) this.#chain(row);
    }
    for (const row of [...held, ...stolen]) this.post(row);
    for (const row of queued) this.#serve(this.place(row));
  }

  // ---- deliberation ---------------------------------------------------------------------

  /** Whether a request for the name of `place` must wait. */
  #isBlocked(place: number): boolean {
    const isShared = this.word(place + MODE) === SHARED;
    let isBlocked = false;
    this.#each(place, (_, other) => {
      isBlocked = !isShared || this.word(other + STATE) !== HELD ||
        this.word(other + MODE) !== SHARED;
      return isBlocked;
    });
    return isBlocked;
  }

  /** Grants what can be granted of the name of `place`: the first in the queue, and so on. */
  #serve(place: number): void {
    let isHeld = false;
    let isHeldAlone = false;
    this.#each(place, (row, other) => {
      const isShared = this.word(other + MODE) === SHARED;
      if (this.word(other + STATE) !== HELD) {
        if (isShared ? isHeldAlone : isHeld) return true;
        this.set(other + STATE, HELD);
        if (this.word(other + OWNER) === this.self) this.#owner.granted(row);
        else this.post(row);
      }
      isHeld = true;
      if (!isShared) isHeldAlone = true;
      return false;
    });
  }

  #steal(row: number, place: number): void {
    this.#unchain(place);
    this.set(place + STATE, STOLEN);
    if (this.word(place + OWNER) !== this.self) return this.post(row);
    this.unpost(row);
    this.#receive(row);
  }

  #receive(row: number): void {
    const state = this.word(this.place(row) + STATE);
    if (state === HELD) this.#owner.granted(row);
    if (state !== STOLEN) return;
    this.free(row);
    this.#owner.stolen(row);
  }

  /** Takes a row out that is in no mailbox. */
  #bury(row: number): void {
    const place = this.place(row);
    const isChained = this.word(place + STATE) !== STOLEN;
    if (isChained) this.#unchain(place);
    this.free(row);
    // The row still has its name.
    if (isChained) this.#serve(place);
  }

  // ---- what an owner does ---------------------------------------------------------------

  /** Makes a request of this backend. */
  enter({ length, hash, words }: EncodedName, mode: LockMode, manner: Manner): Entered {
    let row = this.take();
    if (row === undefined) {
      this.sweep();
      row = this.take();
    }
    if (row === undefined) return { outcome: "full" };
    const place = this.place(row);
    this.set(place + MODE, mode === "shared" ? SHARED : EXCLUSIVE);
    this.set(place + HASH, hash);
    this.set(place + LENGTH, length);
    for (let i = 0; i < words.length; i++) this.set(place + NAME + i, words[i] ?? 0);
    if (manner === "steal") {
      this.#each(place, (other, at) => {
        if (this.word(at + STATE) !== HELD) return true;
        this.#steal(other, at);
        return false;
      });
      this.set(place + STATE, HELD);
      this.#chainFirst(row);
      return { outcome: "held", row };
    }
    let isBlocked = this.#isBlocked(place);
    // Perhaps by the dead, whom nobody has needed to notice yet.
    if (isBlocked && manner === "try" && this.#buryDead(place)) isBlocked = this.#isBlocked(place);
    if (isBlocked && manner === "try") {
      this.free(row);
      return { outcome: "refused" };
    }
    this.set(place + STATE, isBlocked ? QUEUED : HELD);
    this.#chain(row);
    return isBlocked ? { outcome: "queued", row } : { outcome: "held", row };
  }

  /** Whether there were dead ones among those who hold or wait for the name of `place`. */
  #buryDead(place: number): boolean {
    const dead: number[] = [];
    this.#each(place, (row) => {
      if (!this.isAlive(row)) dead.push(row);
      return false;
    });
    for (const row of dead) {
      this.unpost(row);
      this.#bury(row);
    }
    return dead.length > 0;
  }

  /** Ends a request of this backend, held or not. False: it has been stolen. */
  leave(row: number): boolean {
    const place = this.place(row);
    const state = this.word(place + STATE);
    if (state === FREE || this.word(place + OWNER) !== this.self) throw this.damaged();
    const isStolen = state === STOLEN;
    this.unpost(row);
    this.#bury(row);
    return !isStolen;
  }

  /** All requests of the living, in the order in which they were made. */
  list(): ListedRequest[] {
    this.sweep();
    const rows: number[] = [];
    for (let row = 0; row < this.used; row++) {
      const state = this.word(this.place(row) + STATE);
      if (state === QUEUED || state === HELD) rows.push(row);
    }
    rows.sort((a, b) => this.compareBirths(a, b));
    return rows.map((row) => {
      const place = this.place(row);
      return {
        name: this.#name(place),
        mode: this.word(place + MODE) === SHARED ? "shared" : "exclusive",
        owner: this.word(place + OWNER) >>> 0,
        isHeld: this.word(place + STATE) === HELD,
      };
    });
  }

  #name(place: number): string {
    const length = this.word(place + LENGTH);
    const count = Math.min(length & (WIDE - 1), NAME_LENGTH_MAX);
    for (let i = 0; i < wordsOf(length); i++) unitWords[i] = this.word(place + NAME + i);
    const some = (length & WIDE) !== 0 ? units : unitBytes;
    return String.fromCharCode(...some.subarray(0, count));
  }
}

/** How many words a name takes. */
function wordsOf(length: number): number {
  const count = length & (WIDE - 1);
  return Math.min(Math.ceil((length & WIDE) !== 0 ? count / 2 : count / 4), NAME_WORDS);
}
