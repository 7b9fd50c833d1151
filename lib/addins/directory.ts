/**
 * The directory of the main area: which add-ins took part, and what lies where in it.
 *
 * A segment of the library's own with three tables of rows alike: the add-ins and their regions,
 * the requested tranches and their locks, the areas that `initStruct` has given out. The first
 * two are written once, before the segment is published. Areas come later, under the add-in
 * init lock, and the hardest case is a death in the middle of that. The answer: holds of the lock
 * that make areas are numbered. A row's mark is the number of the hold in which it was made; the
 * header tells which hold was the last to end well. One atomic store of that number, which nothing
 * before it can be moved behind, publishes all that the hold has made. Rows with a later mark are
 * leftovers of one that failed, half written perhaps: they count for nothing, and the next that
 * makes areas takes them out first, so that its own number never publishes them.
 *
 * Nothing in here is trusted: it is shared memory, and whatever does not fit is `CORRUPT`.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import type { Segment } from "../segment.ts";

/** The directory's segment. */
export const DIRECTORY_NAME = "\u0001addins";
/** The main area's segment. */
export const MAIN_NAME = "\u0001main";

/** Places in the main area are multiples of this: each can be a lock. */
export const UNIT = 64;

/** "adi1": the format. */
const MAGIC = 0x31696461;

// Words of the header.
const AT_MAGIC = 0;
const AT_ADDINS = 1;
const AT_TRANCHES = 2;
/** The last hold that ended well. */
const AT_COMMITTED = 3;
/** The last hold that made areas. */
const AT_HOLD = 4;
const AT_PID = 5;
const AT_LABEL_LENGTH = 6;
// Float64s of the header, by byte.
const AT_MAIN_SIZE = 32;
const AT_CREATED = 40;
/** The creator's program. */
const AT_LABEL = 64;
const LABEL_MAX = 64;
/** The add-in init lock. */
export const AT_LOCK = 128;
const HEADER = 192;

// A row.
const ROW = 88;
const AT_LENGTH = 0;
/** Of a tranche: its id; of an area: the hold that made it, or 0. */
const AT_MARK = 4;
const AT_OFFSET = 8;
/** In bytes; of a tranche: how many locks. */
const AT_SIZE = 16;
const AT_NAME = 24;
const NAME_MAX = 63;

/** How many fit. */
export const ADDINS_MAX = 64;
/** How many fit. */
export const REQUESTED_TRANCHES_MAX = 256;
/** How many fit. */
export const AREAS_MAX = 256;

const FIRST_ADDIN = HEADER;
const FIRST_TRANCHE = FIRST_ADDIN + ADDINS_MAX * ROW;
const FIRST_AREA = FIRST_TRANCHE + REQUESTED_TRANCHES_MAX * ROW;

/** The size of the directory's segment. */
export const DIRECTORY_SIZE: number = FIRST_AREA + AREAS_MAX * ROW;

/** One row. */
export interface Place {
  name: string;
  /** Where in the main area, in bytes. */
  offset: number;
  /** In bytes; of a tranche: how many locks. */
  size: number;
}

/** What the request hooks have asked for, and where it was put. */
export interface Plan {
  mainSize: number;
  addins: readonly Place[];
  tranches: readonly (Place & { id: number })[];
}

/** Who sized the main area. */
export interface Creator {
  pid: number;
  /** Its runtime, as "deno 2.9.6". */
  program: string;
  createdAt: Date;
  addins: string[];
}

/** Rounded up to whole units. */
export function inUnits(size: number): number {
  return Math.ceil(size / UNIT) * UNIT;
}

/** The directory, attached. */
export class AddinDirectory {
  readonly #registry: string;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #view: DataView;

  /** Without looking at what is in it: see `check`. */
  constructor(registry: string, segment: Segment) {
    const { buffer } = segment;
    this.#registry = registry;
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
    this.#view = new DataView(buffer);
  }

  /** Fills a fresh one; nobody else sees it before it is published. */
  fill(plan: Plan, program: string, pid: number): void {
    const label = new TextEncoder().encode(program).subarray(0, LABEL_MAX);
    this.#words[AT_ADDINS] = plan.addins.length;
    this.#words[AT_TRANCHES] = plan.tranches.length;
    this.#words[AT_PID] = pid;
    this.#words[AT_LABEL_LENGTH] = label.length;
    this.#bytes.set(label, AT_LABEL);
    this.#view.setFloat64(AT_MAIN_SIZE, plan.mainSize, true);
    this.#view.setFloat64(AT_CREATED, Date.now(), true);
    plan.addins.forEach((addin, i) => this.#write(FIRST_ADDIN + i * ROW, addin, 0));
    plan.tranches.forEach((tranche, i) => {
      this.#write(FIRST_TRANCHE + i * ROW, tranche, tranche.id);
    });
    this.#words[AT_MAGIC] = MAGIC;
  }

  /** Throws unless it is a directory that makes sense. */
  check(): void {
    if (this.#bytes.length !== DIRECTORY_SIZE || this.#words[AT_MAGIC] !== MAGIC) {
      throw this.damaged("it does not begin as one, or is of another version");
    }
    const { mainSize } = this;
    if (!Number.isSafeInteger(mainSize) || mainSize < 0 || mainSize % UNIT !== 0) {
      throw this.damaged(`the main area would have ${mainSize} bytes`);
    }
    for (const row of this.#rows(AT_ADDINS, FIRST_ADDIN, ADDINS_MAX)) this.#read(row, 1);
    for (const row of this.#rows(AT_TRANCHES, FIRST_TRANCHE, REQUESTED_TRANCHES_MAX)) {
      this.#read(row, UNIT);
    }
  }

  /** In bytes; 0: there is none, for nothing was requested. */
  get mainSize(): number {
    return this.#view.getFloat64(AT_MAIN_SIZE, true);
  }

  get creator(): Creator {
    const length = Math.min(this.#words[AT_LABEL_LENGTH] ?? 0, LABEL_MAX);
    const createdAt = new Date(this.#view.getFloat64(AT_CREATED, true));
    if (Number.isNaN(createdAt.getTime())) throw this.damaged("the time is none");
    return {
      pid: this.#words[AT_PID] ?? 0,
      program: new TextDecoder().decode(this.#bytes.subarray(AT_LABEL, AT_LABEL + length)),
      createdAt,
      addins: this.#rows(AT_ADDINS, FIRST_ADDIN, ADDINS_MAX).map((at) => this.#read(at, 1).name),
    };
  }

  /** The region of an add-in that took part. */
  addin(name: string): Place | undefined {
    return this.#find(this.#rows(AT_ADDINS, FIRST_ADDIN, ADDINS_MAX), name, 1);
  }

  /** A requested tranche. */
  tranche(name: string): Place | undefined {
    const rows = this.#rows(AT_TRANCHES, FIRST_TRANCHE, REQUESTED_TRANCHES_MAX);
    return this.#find(rows, name, UNIT);
  }

  // ---- areas, with the init lock held exclusively ---------------------------------------------

  /** The areas that are there for everybody. */
  ready(): Place[] {
    const committed = this.#committed;
    return this.#areaRows().filter((row) => this.#mark(row) !== 0 && this.#mark(row) <= committed)
      .map((row) => this.#read(row, 1));
  }

  /** All areas, those of the running hold included. */
  all(): Place[] {
    return this.#areaRows().filter((row) => this.#mark(row) !== 0)
      .map((row) => this.#read(row, 1));
  }

  /**
   * A hold is going to make its first area: takes out what earlier ones have left that did not
   * end well, and returns its number. A death in here leaves what is not done yet to the next.
   */
  begin(): number {
    const committed = this.#committed;
    for (const row of this.#areaRows()) {
      if (this.#mark(row) > committed) this.#view.setUint32(row + AT_MARK, 0, true);
    }
    const hold = Math.max(committed, Atomics.load(this.#words, AT_HOLD)) + 1;
    if (hold > 0xffffffff) throw this.damaged("its numbers are used up");
    Atomics.store(this.#words, AT_HOLD, hold);
    return hold;
  }

  /**
   * Notes an area down, which counts when the hold ends well. False: no row is left.
   *
   * A death in here leaves a free row, or one of a hold that never ended.
   */
  add(area: Place, hold: number): boolean {
    const row = this.#areaRows().find((row) => this.#mark(row) === 0);
    if (row === undefined) return false;
    this.#write(row, area, hold);
    return true;
  }

  /**
   * The hold has ended well: all its areas are there from here on, by one store. Unless the lock
   * was taken away from it, and another has made areas since: those are not its to publish.
   */
  commit(hold: number): void {
    if (Atomics.load(this.#words, AT_HOLD) === hold) Atomics.store(this.#words, AT_COMMITTED, hold);
  }

  // ---- rows -------------------------------------------------------------------------------------

  get #committed(): number {
    return Atomics.load(this.#words, AT_COMMITTED);
  }

  #mark(row: number): number {
    return this.#view.getUint32(row + AT_MARK, true);
  }

  #areaRows(): number[] {
    return Array.from({ length: AREAS_MAX }, (_, i) => FIRST_AREA + i * ROW);
  }

  #rows(atCount: number, first: number, max: number): number[] {
    const count = this.#words[atCount] ?? 0;
    if (count > max) throw this.damaged(`${count} rows, where ${max} fit`);
    return Array.from({ length: count }, (_, i) => first + i * ROW);
  }

  #find(rows: number[], name: string, unit: number): Place | undefined {
    for (const row of rows) {
      const place = this.#read(row, unit);
      if (place.name === name) return place;
    }
    return undefined;
  }

  /** `unit`: how many bytes one of `size` takes. */
  #read(row: number, unit: number): Place {
    const length = this.#view.getUint32(row + AT_LENGTH, true);
    const offset = this.#view.getFloat64(row + AT_OFFSET, true);
    const size = this.#view.getFloat64(row + AT_SIZE, true);
    const isWhole = Number.isSafeInteger(offset) && Number.isSafeInteger(size);
    if (
      length === 0 || length > NAME_MAX || !isWhole || offset < 0 || size < 0 ||
      offset % UNIT !== 0 || !(offset + size * unit <= this.mainSize)
    ) {
      throw this.damaged("a row whose size, place or name makes no sense");
    }
    const name = this.#bytes.subarray(row + AT_NAME, row + AT_NAME + length);
    return { name: new TextDecoder().decode(name), offset, size };
  }

  #write(row: number, { name, offset, size }: Place, mark: number): void {
    const encoded = new TextEncoder().encode(name);
    this.#bytes.set(encoded, row + AT_NAME);
    this.#view.setUint32(row + AT_LENGTH, encoded.length, true);
    this.#view.setUint32(row + AT_MARK, mark, true);
    this.#view.setFloat64(row + AT_OFFSET, offset, true);
    this.#view.setFloat64(row + AT_SIZE, size, true);
  }

  /** The error for what makes no sense. */
  damaged(how: string): DsmrError {
    return new DsmrError(
      "CORRUPT",
      `The directory of the main area of registry "${this.#registry}" is damaged: ${how}. ` +
        "Destroy the registry.",
    );
  }
}
