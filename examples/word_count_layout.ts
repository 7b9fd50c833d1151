/**
 * The segment in which several processes count words together. word_table.c reads the same
 * layout; who changes one changes the other, and VERSION.
 *
 * All numbers are unsigned and little-endian, as on every machine that this runs on.
 *
 *   HEADER, 32 bytes, written by the initialiser
 *   offset size
 *    0     4   magic            "WORD"
 *    4     4   version
 *    8     4   text_size        bytes in the whole text
 *   12     4   chunk_count
 *   16     4   area_size        bytes in each result area
 *   20     4   initialiser      its backend id
 *   24     8   reserved
 *
 *   CHUNK TABLE, 32 bytes for each chunk, from offset 32 on
 *    0     4   state            see below
 *    4     4   start            offset of the chunk in the text; initialiser
 *    8     4   end              offset behind it; initialiser
 *   12     4   records_size     bytes used in its area; the claimer, before DONE
 *   16     4   worker           backend id of who counted it; likewise
 *   20     4   taken_from       backend id of a dead claimer, or 0; likewise
 *   24     8   reserved
 *
 *   RESULT AREAS, one for each chunk, right behind the table: records without gaps
 *    0     4   count
 *    4     1   length           1 to 63
 *    5     -   the word         letters a to z
 *
 * A chunk's state is one word:
 *
 *   FREE --> backend id of who has claimed it --> DONE
 *
 * FREE becomes a claim by compare-and-exchange, so a chunk has one claimer. The claimer alone
 * writes the chunk's area, then stores DONE, and whoever reads DONE sees the area complete. A
 * claimer that dies leaves its id in the state. Anybody may then exchange it for their own id
 * and count the chunk anew; what the dead one may have written is overwritten. So each chunk
 * counts once, whenever a process is killed.
 *
 * @module
 */

import { WORD_LENGTH_MAX } from "./words.ts";

/** The segment's name in the registry. */
export const SEGMENT_NAME = "words";

/** The most bytes of text in a chunk. */
export const CHUNK_SIZE_MAX = 65536;

const MAGIC = 0x44524f57;
const VERSION = 1;

/**
 * Room for any chunk. A different word of n letters costs n + 5 bytes here and, with what ends
 * it, n + 1 in the text. That is at most twice as much, but for 26 words of one letter and
 * 676 of two, which cost up to 728 bytes more.
 */
const AREA_SIZE = 2 * CHUNK_SIZE_MAX + 1024;

const FREE = 0;
const DONE = 0xffffffff;

const HEADER_SIZE = 32;
const CHUNK_SIZE = 32;
const RECORD_SIZE = 5; // without the word

/** Indexes of 32-bit words: of the header's, and of those in a row of the chunk table. */
const header = { magic: 0, version: 1, textSize: 2, chunkCount: 3, areaSize: 4, initialiser: 5 };
const row = { state: 0, start: 1, end: 2, recordsSize: 3, worker: 4, takenFrom: 5 };

/** A chunk that this process has claimed. */
export interface Claim {
  chunk: number;
  /** Backend id of the dead process that had claimed it before, or 0. */
  takenFrom: number;
}

/** The bytes that a segment for these cuts must have. */
export function segmentSize(cuts: number[]): number {
  return HEADER_SIZE + (cuts.length - 1) * (CHUNK_SIZE + AREA_SIZE);
}

/** Fills a fresh segment: the init callback's work. */
export function initialise(buffer: ArrayBuffer, cuts: number[], backendId: number): void {
  const words = new Uint32Array(buffer);
  words[header.magic] = MAGIC;
  words[header.version] = VERSION;
  words[header.textSize] = cuts.at(-1) ?? 0;
  words[header.chunkCount] = cuts.length - 1;
  words[header.areaSize] = AREA_SIZE;
  words[header.initialiser] = backendId;
  for (let chunk = 0; chunk < cuts.length - 1; chunk++) {
    const at = (HEADER_SIZE + chunk * CHUNK_SIZE) / 4;
    words[at + row.start] = cuts[chunk] ?? 0;
    words[at + row.end] = cuts[chunk + 1] ?? 0;
  }
}

/** An initialised segment. */
export class WordSegment {
  readonly #words: Uint32Array;
  readonly #view: DataView;
  readonly textSize: number;
  readonly chunkCount: number;
  /** Backend id of the process that ran the init callback. */
  readonly initialiser: number;

  constructor(buffer: ArrayBuffer) {
    this.#words = new Uint32Array(buffer);
    this.#view = new DataView(buffer);
    this.textSize = this.#word(header.textSize);
    this.chunkCount = this.#word(header.chunkCount);
    this.initialiser = this.#word(header.initialiser);
    if (
      this.#word(header.magic) !== MAGIC || this.#word(header.version) !== VERSION ||
      this.#word(header.areaSize) !== AREA_SIZE ||
      buffer.byteLength !== HEADER_SIZE + this.chunkCount * (CHUNK_SIZE + AREA_SIZE)
    ) {
      throw new Error(`segment "${SEGMENT_NAME}" is not of this layout`);
    }
  }

  /** Claims the first free chunk. */
  claimFree(backendId: number): Claim | undefined {
    for (let chunk = 0; chunk < this.chunkCount; chunk++) {
      if (this.#exchange(chunk, FREE, backendId)) return { chunk, takenFrom: 0 };
    }
    return undefined;
  }

  /** Claims a chunk whose claimer is not alive any more. */
  claimFromDead(backendId: number, isAlive: (backendId: number) => boolean): Claim | undefined {
    for (let chunk = 0; chunk < this.chunkCount; chunk++) {
      const claimer = this.#state(chunk);
      if (claimer === FREE || claimer === DONE || isAlive(claimer)) continue;
      if (this.#exchange(chunk, claimer, backendId)) return { chunk, takenFrom: claimer };
    }
    return undefined;
  }

  /** Publishes what the claimer has counted. */
  finish(claim: Claim, backendId: number, counts: Map<string, number>): void {
    const start = this.#areaOf(claim.chunk);
    let at = start;
    for (const [word, count] of counts) {
      this.#view.setUint32(at, count, true);
      this.#view.setUint8(at + 4, word.length);
      for (let i = 0; i < word.length; i++) {
        this.#view.setUint8(at + RECORD_SIZE + i, word.charCodeAt(i));
      }
      at += RECORD_SIZE + word.length;
    }
    this.#setField(claim.chunk, row.recordsSize, at - start);
    this.#setField(claim.chunk, row.worker, backendId);
    this.#setField(claim.chunk, row.takenFrom, claim.takenFrom);
    Atomics.store(this.#words, this.#rowOf(claim.chunk) + row.state, DONE);
  }

  isDone(chunk: number): boolean {
    return this.#state(chunk) === DONE;
  }

  get isAllDone(): boolean {
    for (let chunk = 0; chunk < this.chunkCount; chunk++) if (!this.isDone(chunk)) return false;
    return true;
  }

  get doneBytes(): number {
    let bytes = 0;
    for (let chunk = 0; chunk < this.chunkCount; chunk++) {
      const { start, end } = this.range(chunk);
      if (this.isDone(chunk)) bytes += end - start;
    }
    return bytes;
  }

  /** Where the chunk is in the text. */
  range(chunk: number): { start: number; end: number } {
    const start = this.#field(chunk, row.start);
    const end = this.#field(chunk, row.end);
    if (start > end || end > this.textSize) throw new Error(`chunk ${chunk} has no place`);
    return { start, end };
  }

  /** Whether the middle of the text lies in this chunk. */
  isMiddle(chunk: number): boolean {
    const { start, end } = this.range(chunk);
    return start <= this.textSize / 2 && this.textSize / 2 < end;
  }

  /** Who counted a chunk that is done, and which dead process had it before (0: none). */
  credit(chunk: number): { worker: number; takenFrom: number } {
    return {
      worker: this.#field(chunk, row.worker),
      takenFrom: this.#field(chunk, row.takenFrom),
    };
  }

  /** What was counted in all chunks. */
  total(): Map<string, number> {
    const counts = new Map<string, number>();
    for (let chunk = 0; chunk < this.chunkCount; chunk++) {
      if (!this.isDone(chunk)) throw new Error(`chunk ${chunk} is not counted yet`);
      this.#addRecords(chunk, counts);
    }
    return counts;
  }

  #addRecords(chunk: number, counts: Map<string, number>): void {
    const start = this.#areaOf(chunk);
    const size = this.#field(chunk, row.recordsSize);
    if (size > AREA_SIZE) throw new Error(`chunk ${chunk} has ${size} bytes of records`);
    for (let at = start; at < start + size;) {
      const count = this.#view.getUint32(at, true);
      const length = this.#view.getUint8(at + 4);
      const next = at + RECORD_SIZE + length;
      if (length < 1 || length > WORD_LENGTH_MAX || next > start + size) {
        throw new Error(`chunk ${chunk} has a record of ${length} letters`);
      }
      const letters = new Uint8Array(this.#view.buffer, at + RECORD_SIZE, length);
      const word = String.fromCharCode(...letters);
      counts.set(word, (counts.get(word) ?? 0) + count);
      at = next;
    }
  }

  #state(chunk: number): number {
    return Atomics.load(this.#words, this.#rowOf(chunk) + row.state);
  }

  #exchange(chunk: number, from: number, to: number): boolean {
    return Atomics.compareExchange(this.#words, this.#rowOf(chunk) + row.state, from, to) === from;
  }

  #rowOf(chunk: number): number {
    return (HEADER_SIZE + chunk * CHUNK_SIZE) / 4;
  }

  #areaOf(chunk: number): number {
    return HEADER_SIZE + this.chunkCount * CHUNK_SIZE + chunk * AREA_SIZE;
  }

  #word(index: number): number {
    return this.#words[index] ?? 0;
  }

  #field(chunk: number, field: number): number {
    return this.#word(this.#rowOf(chunk) + field);
  }

  #setField(chunk: number, field: number, value: number): void {
    this.#words[this.#rowOf(chunk) + field] = value;
  }
}
