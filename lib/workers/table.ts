/**
 * The worker table: what background workers there are in a registry, and how each is, in a
 * segment of the library's own.
 *
 * Rows outlive everybody, also who registered the worker: they belong to the registry. They are
 * changed under the segment's lock, in one synchronous stretch each. What a row is stands in its
 * STATE alone. A change prepares the other words, which mean nothing in the old state, or not yet,
 * and then stores the one word that commits it: the state, or one flag, or the attempt. So if a
 * process dies in the middle of a change, the row is as before or as after it; whoever gets the
 * lock abandoned has nothing to mend, and wakes everybody, for the dead one may have stored and
 * not told. Texts (why a worker has ended) may then be those of an end that did not come to pass;
 * they are read only in states that are stored after them, and overwritten before.
 *
 * Nothing in here is trusted: the places of rows and of their words come from the code, lengths
 * are cut at what there is room for, and a spec that is not one is an error of that row.
 *
 * Who waits for a change sleeps on a word: the table's SEQUENCE, which grows with every change, or
 * a row's CHANGES. It is looked at first, then the row, then it is slept on: nothing is missed.
 *
 * @module
 */

import type { Backend } from "../backend.ts";
import { DsmrError } from "../errors.ts";
import { check, native, readAll } from "../ffi/native.ts";
import { listDatabases } from "../listing.ts";
import { type LWLock, runInside } from "../lwlock.ts";
import { handleOf, type Segment } from "../segment.ts";
import { type AsyncWaitOptions, impatiently, patiently, wait } from "../wait.ts";
import { decodeSpec, SPEC_BYTES_MAX, type StoredSpec } from "./spec.ts";

/** The segment's name. */
export const TABLE_NAME = "\u0001workers";
/** How many workers there can be. */
export const ROWS_MAX = 256;
const ROW_BYTES = 4096;
const HEADER_BYTES = 4096;
export const TABLE_BYTES: number = HEADER_BYTES + ROWS_MAX * ROW_BYTES;

// Words of the header.
const SEQUENCE = 0;
/** The id of the backend that supervises; 0 if none does. Also when it is dead. */
export const SUPERVISOR = 1;
/** By slot: the ids of the backends that would supervise. */
export const CANDIDATES = 16;
export const SLOTS = 256;

// Words of a row.
export const STATE = 0;
/** Grows each time that the row is given out. */
export const GENERATION = 1;
const CHANGES = 2;
export const FLAGS = 3;
/** Grows each time before the worker is started: who was started with another number is late. */
export const ATTEMPT = 4;
/** The supervisor that has started this attempt. */
export const STARTER = 5;
/** The worker's backend, once it has claimed the row. */
export const BACKEND = 6;
/** Of its process: for people. */
export const PID = 7;
/** How it has ended, in its own words: an OUTCOME. Of a thread that is terminated, the supervisor's. */
export const OUTCOME = 8;
export const EXIT_CODE = 9;
/** How often its function was entered; the last of these that was ready; how many have ended. */
export const RUNS = 10;
export const READY_RUN = 11;
export const ENDS = 12;
export const RESTARTS = 13;
/** In a row, without a good run in between. */
export const CRASHES = 14;
/** Of the worker of a database: the row (index + 1) and its generation of which it is one. */
export const PARENT = 15;
export const PARENT_GENERATION = 16;
export const DATABASE_ID = 17;
const SPEC_LENGTH = 18;
const REASON_LENGTH = 19;
const DATABASE_LENGTH = 20;
/** Milliseconds from being told to end to KILL_AT. */
export const GRACE = 21;
/** What RESTARTS and CRASHES were before the attempt. */
export const RESTARTS_BEFORE = 22;
export const CRASHES_BEFORE = 23;
// Wall-clock milliseconds, two words each; 0 is never.
/** Not to be started before. */
export const DUE_AT = 24;
export const STARTED_AT = 26;
/** When it is to be killed if it has not ended. Means something only with TERMINATE or PAUSE. */
export const KILL_AT = 28;
export const REGISTERED_AT = 30;
export const STOPPED_AT = 32;

// Bytes of a row.
const REASON_AT = 256;
const REASON_BYTES = 512;
const DATABASE_AT = 768;
const DATABASE_BYTES = 64;
const SPEC_AT = ROW_BYTES - SPEC_BYTES_MAX;

/** States of a row. The order counts: from CLAIMED to READY a process is at it. */
export const FREE = 0;
/** To be started, now or at DUE_AT. */
export const WAITING = 1;
/** A process or thread was started for the attempt, and has not claimed it yet. */
export const STARTING = 2;
/** Claimed; its module is being loaded. */
export const CLAIMED = 3;
export const STARTED = 4;
export const READY = 5;
/** For good. */
export const STOPPED = 6;
/** Not a worker itself: one is made from it for each database. */
export const TEMPLATE = 7;

/** Flags. To stop, for good. */
export const TERMINATE = 1;
/** To stop, and to be started by the next supervisor. */
export const PAUSE = 2;
/** Of an add-in: the row is kept, so that it is not registered a second time. */
export const STATIC = 4;
/** It has ended by itself, well. Means something only in STOPPED. */
export const UNREGISTERED = 8;
/** Its database is gone. */
export const DROPPED = 16;

/** A worker's own word on its end. */
export const SILENT = 0;
export const RETURNED = 1;
export const THREW = 2;
/** It has called for the process' end: with EXIT_CODE. */
export const EXITED = 3;
/** An error that nobody has caught, outside of its function. */
export const BROKE = 4;
/** It was told to end by SIGTERM or SIGINT, by nobody of ours, and did. */
export const SIGNALLED = 5;
/** It was terminated, its grace is over, and it ends its process by force. */
export const OVERDUE = 6;

/** The segment whose lock the supervisor holds. */
export function electionOf(backend: Backend): Segment {
  return backend.ownSegmentSync("\u0001supervisor", 64);
}

/** A live backend, as far as supervising needs it. */
export interface LiveBackend {
  id: number;
  pid: number;
  databaseId: number;
  database: string;
}

/** The backends that live. Clears the dead ones away. */
export function liveBackends(backend: Backend): LiveBackend[] {
  const { calls, error } = native();
  const { infos, count } = readAll(
    "dsmr_backend_info",
    (bytes, capacity) => calls.dsmr_backends(backend.handle, bytes, capacity, error.bytes),
  );
  return Array.from({ length: count }, (_, i) => ({
    id: infos.u32("backend_id", i),
    pid: infos.u32("pid", i),
    databaseId: infos.u32("database_id", i),
    database: infos.text("database", infos.u32("database_length", i), i),
  }));
}

/** The ids of the databases that there are. Throws `TIMEOUT` soon if somebody stopped is at them. */
export function databaseIds(backend: Backend): Set<number> {
  const { handle } = backend;
  return new Set(impatiently(handle, () => listDatabases(handle)).map(({ id }) => id));
}

/**
 * Whether a backend of this id lives. Asks the kernel. Where it cannot tell, the registry being
 * gone, nobody is taken for dead: the next call for the table says what the matter is.
 */
export function isAlive(backend: Backend, id: number): boolean {
  if (id === 0) return false;
  if (id >>> 0 === backend.id) return true;
  return native().calls.dsmr_backend_is_alive(backend.handle, id >>> 0) !== 0;
}

/** The table, attached. */
export class WorkerTable {
  readonly backend: Backend;
  readonly #segment: Segment;
  readonly #words: Int32Array;
  readonly #times: Float64Array;
  readonly #bytes: Uint8Array;
  /** Rows that were changed in the change that is going on. */
  readonly #changed = new Set<number>();
  #hasChanged = false;

  private constructor(backend: Backend, segment: Segment) {
    this.backend = backend;
    this.#segment = segment;
    this.#words = new Int32Array(segment.buffer);
    this.#times = new Float64Array(segment.buffer);
    this.#bytes = new Uint8Array(segment.buffer);
  }

  /** The registry's table; made if it is not there. */
  static open(backend: Backend): WorkerTable {
    return new WorkerTable(backend, backend.ownSegmentSync(TABLE_NAME, TABLE_BYTES));
  }

  /** The registry's table, or undefined: nobody has ever registered a worker. */
  static find(backend: Backend): WorkerTable | undefined {
    const segment = backend.current(TABLE_NAME) ?? backend.lookup(TABLE_NAME);
    return segment === null ? undefined : new WorkerTable(backend, segment);
  }

  /** Whether the memory is still attached. */
  get isUsable(): boolean {
    return this.#words.length > 0;
  }

  // ---- the lock ----------------------------------------------------------------------------

  /** Runs `change` with the lock held; blocks while another process is at it, some microseconds. */
  changeSync<Result>(change: () => Result): Result {
    this.#checkOpen();
    // No task of ours has it, of whatever backend: they change and let go in one turn.
    this.#told((lock) => lock.acquireSync("exclusive", { timeout: 10_000 }));
    return this.#release(change);
  }

  /** The same, without blocking should that process be stopped. */
  async change<Result>(change: () => Result, options?: AsyncWaitOptions): Promise<Result> {
    this.#checkOpen();
    if (this.#told((lock) => lock.tryAcquire())) return this.#release(change);
    return await runInside(this.#segment.lock, () => this.#inside(change), options);
  }

  /** Does something with the segment's lock; where there is none any more, that is said of the table. */
  #told<Result>(action: (lock: LWLock) => Result): Result {
    try {
      return action(this.#segment.lock);
    } catch (cause) {
      if (!(cause instanceof DsmrError) || cause.code !== "CORRUPT") throw cause;
      throw new DsmrError(
        "CORRUPT",
        "The registry's table of background workers is damaged: somebody has overwritten its lock. " +
          "Destroy the registry, and open it anew.",
        { cause },
      );
    }
  }

  #release<Result>(change: () => Result): Result {
    try {
      return this.#inside(change);
    } finally {
      this.#segment.lock.release();
    }
  }

  #inside<Result>(change: () => Result): Result {
    const { lock } = this.#segment;
    if (lock.abandoned) {
      for (let slot = 0; slot < ROWS_MAX; slot++) this.#changed.add(slot);
      this.#hasChanged = true;
      this.#tell();
      lock.markConsistent();
    }
    try {
      return change();
    } finally {
      this.#tell();
    }
  }

  /** Wakes who sleeps on what has changed. With the lock held: who dies before leaves it abandoned. */
  #tell(): void {
    if (!this.#hasChanged) return;
    this.#hasChanged = false;
    for (const slot of this.#changed) this.#grow(this.#place(slot) + CHANGES);
    this.#changed.clear();
    this.#grow(SEQUENCE);
  }

  #grow(place: number): void {
    Atomics.add(this.#words, place, 1);
    native().calls.dsmr_word_wake(handleOf(this.#segment), place * 4, 0, 0x7fffffff);
  }

  #checkOpen(): void {
    if (this.isUsable) return;
    throw new DsmrError("CLOSED", "The registry was closed. Open it again.");
  }

  // ---- words ---------------------------------------------------------------------------------

  #place(slot: number): number {
    return (HEADER_BYTES + slot * ROW_BYTES) / 4;
  }

  /** A word of the header. */
  head(word: number): number {
    return Atomics.load(this.#words, word);
  }

  setHead(word: number, value: number): void {
    Atomics.store(this.#words, word, value);
    this.#hasChanged = true;
  }

  get(slot: number, field: number): number {
    return Atomics.load(this.#words, this.#place(slot) + field);
  }

  set(slot: number, field: number, value: number): void {
    Atomics.store(this.#words, this.#place(slot) + field, value);
    this.#changed.add(slot);
    this.#hasChanged = true;
  }

  /** A time. What is none is taken for 0. */
  time(slot: number, field: number): number {
    const time = this.#times[(this.#place(slot) + field) / 2] ?? 0;
    return time > 0 && time < 8.64e15 ? time : 0;
  }

  setTime(slot: number, field: number, value: number): void {
    this.#times[(this.#place(slot) + field) / 2] = value;
    this.#changed.add(slot);
    this.#hasChanged = true;
  }

  has(slot: number, flag: number): boolean {
    return (this.get(slot, FLAGS) & flag) !== 0;
  }

  raise(slot: number, flag: number): void {
    if (!this.has(slot, flag)) this.set(slot, FLAGS, this.get(slot, FLAGS) | flag);
  }

  // ---- texts ---------------------------------------------------------------------------------

  #text(slot: number, at: number, length: number, most: number): Uint8Array {
    const begin = HEADER_BYTES + slot * ROW_BYTES + at;
    // A copy: decoders refuse shared memory, and nobody may change it meanwhile.
    return this.#bytes.slice(begin, begin + Math.min(Math.max(length, 0), most));
  }

  #setText(slot: number, at: number, field: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, HEADER_BYTES + slot * ROW_BYTES + at);
    this.set(slot, field, bytes.length);
  }

  /** The worker of a row; undefined if somebody has overwritten it. */
  spec(slot: number): StoredSpec | undefined {
    return decodeSpec(this.specBytes(slot));
  }

  specBytes(slot: number): Uint8Array {
    return this.#text(slot, SPEC_AT, this.get(slot, SPEC_LENGTH), SPEC_BYTES_MAX);
  }

  setSpec(slot: number, bytes: Uint8Array): void {
    this.#setText(slot, SPEC_AT, SPEC_LENGTH, bytes);
  }

  /** Why the worker has ended; "" if there is nothing to say. */
  reason(slot: number): string {
    const length = this.get(slot, REASON_LENGTH);
    return new TextDecoder().decode(this.#text(slot, REASON_AT, length, REASON_BYTES));
  }

  /** Cut at what there is room for. */
  setReason(slot: number, reason: string): void {
    const bytes = new Uint8Array(REASON_BYTES);
    const { written } = new TextEncoder().encodeInto(reason, bytes);
    this.#setText(slot, REASON_AT, REASON_LENGTH, bytes.subarray(0, written));
  }

  database(slot: number): string {
    const length = this.get(slot, DATABASE_LENGTH);
    return new TextDecoder().decode(this.#text(slot, DATABASE_AT, length, DATABASE_BYTES));
  }

  setDatabase(slot: number, name: string): void {
    this.#setText(slot, DATABASE_AT, DATABASE_LENGTH, new TextEncoder().encode(name));
  }

  // ---- waiting -------------------------------------------------------------------------------

  /** The word that changes when the row does, or when any does. */
  changesOf(slot: number | undefined): number {
    return slot === undefined ? SEQUENCE : this.#place(slot) + CHANGES;
  }

  word(place: number): number {
    return Atomics.load(this.#words, place);
  }

  /** Waits until the word is not `seen` any more. */
  async changed(
    place: number,
    seen: number,
    options: AsyncWaitOptions,
    isWeak: () => boolean,
  ): Promise<void> {
    const attempt = (): number => {
      this.#checkOpen();
      return this.#status(
        native().calls.dsmr_word_watch(handleOf(this.#segment), place * 4, 0, seen >>> 0),
      );
    };
    await wait({ attempt, late: () => undefined, isWeak }, options);
  }

  /** Blocks while the word is `seen`, for a slice and at most `timeout` ms. */
  sleepSync(place: number, seen: number, timeout: number): void {
    const handle = handleOf(this.#segment);
    const slice = Math.min(Math.ceil(timeout), 0x7fffffff);
    this.#status(native().calls.dsmr_word_wait(handle, place * 4, 0, seen >>> 0, slice));
  }

  #status(status: number): number {
    if (status >= 0) return status;
    const code = native().codeOf.get(status) ?? "CLOSED";
    throw new DsmrError(
      code,
      code === "CLOSED" || code === "DETACHED"
        ? "The registry was closed or destroyed while its workers were waited for. Open it again."
        : "The workers cannot be waited for: the process is out of memory or threads. Close what it " +
          "does not need, or raise its limits (ulimit -a).",
    );
  }
}

/** Waits until backends or segments have come or gone. Clears the dead away. */
export class Arrivals {
  readonly #backend: Backend;
  readonly #seen = new Uint32Array(1);

  constructor(backend: Backend) {
    this.#backend = backend;
    this.#attempt();
  }

  #attempt(): number {
    const { calls, error } = native();
    const bytes = new Uint8Array(this.#seen.buffer);
    return check(calls.dsmr_registry_watch(this.#backend.handle, bytes, error.bytes));
  }

  async next(options: AsyncWaitOptions, isWeak: () => boolean): Promise<void> {
    await wait({ attempt: () => this.#attempt(), late: () => undefined, isWeak }, options);
    const { handle } = this.#backend;
    await patiently(() => impatiently(handle, () => liveBackends(this.#backend)), options);
  }
}
