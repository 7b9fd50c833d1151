/**
 * The rows of those who wait on words, in a shared table: chained by what they wait for, in the
 * order in which they came.
 *
 * The hardest race is between a notification and the end of a wait by itself, at the moment of
 * either; what answers it is the state of a row, as `parking.ts` says. Who dies in here leaves the
 * lock abandoned, and the chains are made anew from the rows.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import type { Segment } from "./segment.ts";
import { FREE, OWNER, SharedTable, STATE, tableSize, USER } from "./shared_table.ts";

export const PARKED: number = 1;
/** Its owner is to be told, or has been, and will free it. In no chain. */
export const NOTIFIED: number = 2;
/** Its owner has given up, and will free it. Still in its chain. */
export const GONE: number = 3;
/** As NOTIFIED, but what it waits for is no more. */
export const ENDED: number = 4;

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

/** How many can be parked at a time. */
export const ROWS = 16_384;
const shape = { headerWords: BUCKETS * BUCKET_WORDS, rowWords: 12, rows: ROWS };
/** The segment that a registry's parked rows are in. */
export const PARKING_NAME = "\u0001parking";
/** Its size in bytes. */
export const PARKING_SIZE: number = tableSize(shape);

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

/** The table, attached. With the lock held, but for what says otherwise. */
export class ParkedRows extends SharedTable {
  /** `receive` gets a row of this backend that somebody has notified. */
  constructor(backend: Backend, segment: Segment, receive: (row: number) => void) {
    super(backend, segment, shape, {
      rebuild: () => this.#rebuild(),
      receive,
      bury: (row) => {
        this.unchain(row);
        this.free(row);
      },
    });
  }

  #bucket({ id, offset }: Address): number {
    const hash = Math.imul(id % 2 ** 32, 0x9e3779b1) ^ Math.imul(offset % 2 ** 32, 0x85ebca6b);
    return this.header + ((hash >>> 16 ^ hash) & (BUCKETS - 1)) * BUCKET_WORDS;
  }

  #addressOf(row: number): Address {
    const place = this.place(row);
    return {
      id: (this.word(place + SEGMENT_HIGH) >>> 0) * 2 ** 32 + (this.word(place + SEGMENT) >>> 0),
      offset: (this.word(place + OFFSET_HIGH) >>> 0) * 2 ** 32 +
        (this.word(place + OFFSET) >>> 0),
    };
  }

  #chain(row: number, bucket: number): void {
    const last = this.word(bucket + 2);
    this.set(this.place(row) + NEXT, 0);
    this.set(this.place(row) + PREVIOUS, last);
    if (last === 0) this.set(bucket + 1, row + 1);
    else this.set(this.place(last - 1) + NEXT, row + 1);
    this.set(bucket + 2, row + 1);
  }

  /** Takes a row out of its bucket, unless it is notified: then it is in none any more. */
  unchain(row: number): void {
    const state = this.word(this.place(row) + STATE);
    if (state === PARKED || state === GONE) this.#unlink(row);
  }

  #unlink(row: number): void {
    const place = this.place(row);
    const bucket = this.#bucket(this.#addressOf(row));
    const next = this.word(place + NEXT);
    const previous = this.word(place + PREVIOUS);
    if (previous === 0) this.set(bucket + 1, next);
    else this.set(this.place(previous - 1) + NEXT, next);
    if (next === 0) this.set(bucket + 2, previous);
    else this.set(this.place(next - 1) + PREVIOUS, previous);
    // Last: it is not parked any more by now, or its owner is dead.
    this.set(bucket, this.word(bucket) - 1);
  }

  #rebuild(): void {
    for (let i = 0; i < BUCKETS; i++) {
      const bucket = this.header + i * BUCKET_WORDS;
      this.put(bucket + 1, 0);
      this.put(bucket + 2, 0);
    }
    const rows: number[] = [];
    for (let row = 0; row < this.used; row++) {
      const state = this.word(this.place(row) + STATE);
      if (state === PARKED || state === GONE) rows.push(row);
      // The dead one may have been about to tell its owner.
      if (state === NOTIFIED || state === ENDED) this.#tell(row);
    }
    rows.sort((a, b) => this.compareBirths(a, b));
    const counts = new Map<number, number>();
    for (const row of rows) {
      const bucket = this.#bucket(this.#addressOf(row));
      this.#chain(row, bucket);
      counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
    }
    // Each from what it was, which may be too many, to what it is: never to less in between.
    for (let i = 0; i < BUCKETS; i++) {
      const bucket = this.header + i * BUCKET_WORDS;
      this.put(bucket, counts.get(bucket) ?? 0);
    }
  }

  /** The state of a row. */
  state(row: number): number {
    return this.word(this.place(row) + STATE);
  }

  /** Whether a row is still one of ours. */
  isOurs(row: number): boolean {
    return this.state(row) !== FREE && this.word(this.place(row) + OWNER) === this.self;
  }

  /** Whether nobody is parked under a word, nor under another of its bucket. With or without the lock. */
  isEmptyAt(address: Address): boolean {
    return this.word(this.#bucket(address)) === 0;
  }

  /** Parks a row, that was taken for it, under a word. False: it need not wait, and is free again. */
  park(row: number, address: Address, mayWait: MayWait): boolean {
    const place = this.place(row);
    this.set(place + SEGMENT, address.id % 2 ** 32 | 0);
    this.set(place + SEGMENT_HIGH, Math.floor(address.id / 2 ** 32) | 0);
    this.set(place + OFFSET, address.offset % 2 ** 32 | 0);
    this.set(place + OFFSET_HIGH, Math.floor(address.offset / 2 ** 32) | 0);
    this.set(place + STATE, PARKED);
    const bucket = this.#bucket(address);
    this.set(bucket, this.word(bucket) + 1);
    this.#chain(row, bucket);
    let isWaiting = false;
    try {
      // After that: whoever changes the word from here on sees the row.
      isWaiting = mayWait();
    } finally {
      if (!isWaiting) {
        this.#unlink(row);
        this.free(row);
      }
    }
    return isWaiting;
  }

  /**
   * Ends the wait of a row of ours, with or without the lock; returns the state that it was in:
   * PARKED, or what it was notified of before. In either case nobody waits by it any more, and it
   * is to be left behind.
   */
  giveUp(row: number): number {
    return this.exchange(this.place(row) + STATE, PARKED, GONE);
  }

  /** Wakes at most `count` of those who are parked under a word; returns how many. */
  notify(address: Address, count: number, state: number = NOTIFIED): number {
    let woken = 0;
    let row = this.word(this.#bucket(address) + 1) - 1;
    for (let steps = this.used; row !== -1 && woken < count; steps--) {
      if (steps === 0) throw this.damaged();
      const next = this.word(this.place(row) + NEXT) - 1;
      if (this.#isAt(row, address)) {
        if (!this.isAlive(row)) {
          this.#unlink(row);
          this.free(row);
        } else if (this.#tryNotify(row, state)) woken++;
      }
      row = next;
    }
    return woken;
  }

  #isAt(row: number, { id, offset }: Address): boolean {
    const place = this.place(row);
    return this.word(place + OFFSET) === (offset % 2 ** 32 | 0) &&
      this.word(place + SEGMENT) === (id % 2 ** 32 | 0) &&
      this.word(place + SEGMENT_HIGH) === (Math.floor(id / 2 ** 32) | 0) &&
      this.word(place + OFFSET_HIGH) === (Math.floor(offset / 2 ** 32) | 0);
  }

  /** False: it has given up. */
  #tryNotify(row: number, state: number): boolean {
    if (this.exchange(this.place(row) + STATE, PARKED, state) !== PARKED) return false;
    this.#unlink(row);
    this.#tell(row);
    return true;
  }

  /** Both ways: whether the row's owner blocks or not is its own business. */
  #tell(row: number): void {
    this.wake(this.place(row) + STATE);
    this.post(row);
  }
}
