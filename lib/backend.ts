/**
 * This isolate's backends: one for each registry and database, however often it is opened.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import {
  check,
  encodeName,
  encodeTimeout,
  fateOf,
  lastError,
  messageOf,
  native,
  nothing,
} from "./ffi/native.ts";
import type { Record } from "./ffi/record.ts";
import { type Initialization, isInsideInit } from "./init_scope.ts";
import { listDatabases } from "./listing.ts";
import { inOwnWords } from "./own_names.ts";
import { Parking } from "./parking.ts";
import { PARKING_NAME, PARKING_SIZE } from "./parking_rows.ts";
import { encodeScope, keyOf, type Scope } from "./scope.ts";
import { forgetLocks, handleOf, isTransferred, type Lifetime, Segment } from "./segment.ts";
import {
  type AsyncWaitOptions,
  impatiently,
  patiently,
  retryAll,
  TABLE_PATIENCE_MS,
  wait,
} from "./wait.ts";
import { WebLocks } from "./web_locks.ts";

/** What a backend is opened with; see `OpenOptions` of the registry. */
export interface BackendOptions {
  mode: "open" | "create" | "attach" | "look";
  maxBackends: number;
  maxSegments: number;
  timeout_ms: number;
}

/** What a segment is asked for with. 0 bytes: whatever is there. */
export interface SegmentOptions {
  size: number;
  lifetime: Lifetime;
  timeout_ms: number;
  /** Default: global. */
  scope?: Scope;
  /** The hash of what is in it. Default: 0, which is any. */
  layout?: bigint;
  /** What is thrown when it is there with another layout, whose hash this is. */
  otherLayout?(hash: bigint): DsmrError;
  /** Nothing needs to be put there: `begin` publishes it in the turn in which it makes it. */
  isZero?: boolean;
}

/** By every directory, name and database that a backend has been asked for by. */
const backends = new Map<string, Backend>();

/** What a lookup has found. */
let lookupTicket: Record | undefined;

/** One slot in a registry, shared by all `Registry` objects of the isolate that mean it. */
export class Backend {
  readonly #handle: number;
  readonly #database: string;
  readonly #databaseId: number;
  /** Tells the registry from all others, by whatever path it was found. */
  readonly #instance: bigint;
  /** What each name means, as far as we have attached it; by `keyOf`, as the next one. */
  readonly #byName = new Map<string, Segment>();
  /** Everything attached, by handle; also what has lost its name since. */
  readonly #attached = new Map<number, Segment>();
  /** By name: initialisations that this backend is at; settled when they are over. */
  readonly #initializing = new Map<
    string,
    PromiseWithResolvers<void> & { segment: Segment }
  >();
  #parking: Parking | undefined;
  #webLocks: WebLocks | undefined;
  #useCount = 1;
  #isClosed = false;
  readonly #endings: (() => void)[] = [];

  readonly id: number;

  private constructor(handle: number, database: string) {
    this.#handle = handle;
    this.#database = database;
    const { calls, error, record } = native();
    const info = record("dsmr_registry_info");
    check(calls.dsmr_registry_describe(handle, info.bytes, error.bytes));
    this.id = info.u32("backend_id");
    this.#instance = info.big("instance");
    this.#databaseId = info.u32("database_id");
  }

  /** The isolate's backend for this place; a new one if there is none that can be used. */
  static open(dir: string, name: string, database: string, options: BackendOptions): Backend {
    const encodedName = encodeName("registry", name);
    const encodedDatabase = encodeName("database", database);
    const key = `${dir.replace(/\/+$/, "")}\0${name}\0${database}`;
    // Of the listings: 0 would be as long as the library pleases.
    const patience = options.timeout_ms < 0 ? 0 : Math.max(options.timeout_ms, 1);
    const known = backends.get(key);
    if (known !== undefined && known.#isUsable() && known.#hasDatabase(patience)) {
      if (options.mode === "create") {
        throw new DsmrError(
          "EXISTS",
          `Cannot create registry "${name}": it is there, in ${dir}, and open in this program. ` +
            'Open it without mode "create", or destroy it first.',
        );
      }
      known.#useCount++;
      return known;
    }
    const handle = openNative(dir, encodedName, encodedDatabase, options);
    try {
      const backend = impatiently(handle, () => new Backend(handle, database), patience);
      // Perhaps we have it by another path: through a link, for instance.
      for (const other of new Set(backends.values())) {
        if (other.#database !== database || other.#instance !== backend.#instance) continue;
        if (!other.#isUsable() || !other.#hasDatabase(patience)) continue;
        native().calls.dsmr_registry_close(handle);
        backends.set(key, other);
        other.#useCount++;
        return other;
      }
      backends.set(key, backend);
      return backend;
    } catch (error) {
      native().calls.dsmr_registry_close(handle);
      throw error;
    }
  }

  #isUsable(): boolean {
    return native().calls.dsmr_registry_is_usable(this.#handle) === 1;
  }

  /** Whether the database has not been dropped since. */
  #hasDatabase(patience: number): boolean {
    const all = impatiently(this.#handle, () => listDatabases(this.#handle), patience);
    return all.some(({ id }) => id === this.#databaseId);
  }

  /** Refuses what is asked for in the scope of a database that was dropped. */
  checkDatabase(): void {
    try {
      if (this.#hasDatabase(TABLE_PATIENCE_MS)) return;
    } catch (error) {
      // A stopped process is in the registry's tables: nobody drops anything just now.
      if (error instanceof DsmrError && error.code === "TIMEOUT") return;
      throw error;
    }
    throw new DsmrError(
      "CLOSED",
      `Database "${this.#database}" was dropped. Open the registry with it again for a new one.`,
    );
  }

  /** The number of the database that it has opened; never given twice in a registry. */
  get databaseId(): number {
    return this.#databaseId;
  }

  /** Tells the registry from all others. */
  get instance(): bigint {
    return this.#instance;
  }

  get handle(): number {
    return this.#handle;
  }

  /** Whether its last user has left. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Has something done when the last user leaves, before anything is detached. */
  atRelease(ending: () => void): void {
    this.#endings.push(ending);
  }

  /** The last user that leaves closes it. */
  release(): void {
    if (--this.#useCount > 0) return;
    this.#isClosed = true;
    for (const ending of this.#endings.splice(0)) ending();
    this.#webLocks?.close();
    for (const segment of [...this.#attached.values()]) segment.detach();
    for (const [key, backend] of backends) if (backend === this) backends.delete(key);
    native().calls.dsmr_registry_close(this.#handle);
    // What waits for something of the registry finds out.
    retryAll();
  }

  /** Lets go of every lock; returns how many were held. */
  releaseAll(): number {
    const count = check(native().calls.dsmr_lock_release_all(this.#handle));
    for (const segment of [...this.#attached.values()]) forgetLocks(segment);
    return count;
  }

  /** The attached segment of this key, if it is still what that means. Two calls at most. */
  current(key: string): Segment | undefined {
    const segment = this.#byName.get(key);
    if (segment === undefined) return undefined;
    // The memory is of no use to us any more: attach it anew.
    if (isTransferred(segment)) {
      segment.detach();
      return undefined;
    }
    return native().calls.dsmr_segment_is_current(handleOf(segment)) === 1 ? segment : undefined;
  }

  lookup(name: string, scope: Scope = "global"): Segment | null {
    const { calls, error, number, record } = native();
    const encoded = encodeName("segment", name);
    // One for all: it is filled by the call and read before anything else runs.
    const ticket = lookupTicket ??= record("dsmr_segment_ticket");
    const status = calls.dsmr_segment_lookup(
      this.#handle,
      encoded,
      encoded.length,
      encodeScope(scope),
      ticket.bytes,
      error.bytes,
    );
    if (status === number("DSMR_E_NOT_FOUND")) return null;
    check(status);
    return this.#adopt(name, scope, ticket, number("DSMR_FOUND"));
  }

  /**
   * Attaches the segment, or starts to initialise it; blocks the thread while another backend
   * is at it. One that is not `found` is to be committed or detached by the caller.
   */
  beginSync(name: string, options: SegmentOptions): Segment {
    const beginning = new Beginning(this.#handle, name, options);
    for (;;) {
      const status = beginning.attempt();
      if (status !== beginning.wait) {
        return this.#adopt(name, options.scope ?? "global", beginning.ticket, status);
      }
      // In slices: between two of them a runtime can terminate a Worker (Bun does, Deno 2.9 not).
      check(beginning.sleep());
    }
  }

  /**
   * The same without blocking. One that is not `found` is to be ended by `commit` or a detach,
   * and then by `endInitializing`: tasks of this isolate that ask meanwhile wait for that. So
   * undefined means that another task has begun.
   */
  async begin(
    name: string,
    options: SegmentOptions,
    waiting: AsyncWaitOptions,
  ): Promise<{ segment: Segment; isOurs: boolean } | undefined> {
    const timeout = waiting.timeout ?? Infinity;
    const { scope = "global" } = options;
    const key = keyOf(name, scope);
    const patient = { ...options, timeout_ms: TABLE_PATIENCE_MS };
    const beginning = new Beginning(this.#handle, name, patient, true);
    let begun: { segment: Segment; isOurs: boolean } | undefined;
    await wait({
      attempt: () => {
        for (;;) {
          if (this.#initializing.has(key)) return 0;
          const status = beginning.attempt();
          const watch = beginning.watch(status);
          if (watch > 0) return watch;
          if (watch === 0) continue;
          const isOurs = status === native().number("DSMR_INITIALIZE");
          const segment = this.#adopt(name, scope, beginning.ticket, status);
          begun = { segment, isOurs };
          if (isOurs && options.isZero) this.#commitZero(segment);
          else if (isOurs) this.startInitializing(segment);
          return 0;
        }
      },
      giveUp: () => beginning.giveUp(),
      late: () => beginning.late(timeout),
    }, waiting);
    return begun;
  }

  /** The caller initialises a fresh segment. */
  startInitializing(segment: Segment): Initialization {
    const { name, scope } = segment;
    this.#initializing.set(keyOf(name, scope), { segment, ...Promise.withResolvers<void>() });
    return this.initialization(segment);
  }

  /** What `startInitializing` has begun. */
  initialization(segment: Segment): Initialization {
    const { name, scope } = segment;
    const key = keyOf(name, scope);
    return {
      name,
      databaseId: scope === "global" ? 0 : this.#databaseId,
      instance: this.#instance,
      isOver: () => this.#initializing.get(key)?.segment !== segment,
    };
  }

  /** Whether the running code belongs to the callback that initialises the segment. */
  isInsideInit(name: string, scope: Scope): boolean {
    return isInsideInit(this.#instance, scope === "global" ? 0 : this.#databaseId, name);
  }

  /** Settles when a task of this backend is through with initialising `key`; or undefined. */
  initializing(key: string): Promise<void> | undefined {
    return this.#initializing.get(key)?.promise;
  }

  /**
   * The initialisation that has been started is over, however it went. Does nothing the
   * second time, when somebody else may be at it already.
   */
  endInitializing(segment: Segment): void {
    const key = keyOf(segment.name, segment.scope);
    const initializing = this.#initializing.get(key);
    if (initializing?.segment !== segment) return;
    this.#initializing.delete(key);
    initializing.resolve();
  }

  #commitZero(segment: Segment): void {
    try {
      this.commit(segment);
    } catch (cause) {
      segment.detach();
      throw cause;
    }
  }

  /** A segment of the library's own, all zero at first. */
  async ownSegment(name: string, size: number): Promise<Segment> {
    // In one turn: another backend of this thread may want the same, and must not meet it half-made.
    const request: SegmentOptions = { size, lifetime: "registry", timeout_ms: 0, isZero: true };
    for (;;) {
      const known = this.current(name);
      if (known !== undefined) return known;
      const begun = await patiently((left) => this.begin(name, request, left), {})
        .catch((thrown) => {
          throw inOwnWords(thrown);
        });
      if (begun !== undefined) return begun.segment;
    }
  }

  /** The same; blocks, but only while another makes it, and at most `timeout_ms`. */
  ownSegmentSync(name: string, size: number, timeout_ms: number = 10_000): Segment {
    const known = this.current(name);
    if (known !== undefined) return known;
    let segment: Segment;
    try {
      segment = this.beginSync(name, { size, lifetime: "registry", timeout_ms });
    } catch (thrown) {
      throw inOwnWords(thrown);
    }
    // Half-made it would keep the others waiting for as long as this backend lives.
    if (!segment.found && this.#byName.get(name) !== segment) this.#commitZero(segment);
    return segment;
  }

  /** What waits on words of segments. */
  get parking(): Parking {
    return this.#parkingWithin(10_000);
  }

  /** The same without blocking, unless undefined: a stopped process holds the registry's tables. */
  get parkingNow(): Parking | undefined {
    try {
      return this.#parkingWithin(TABLE_PATIENCE_MS);
    } catch (error) {
      if (error instanceof DsmrError && error.code === "TIMEOUT") return undefined;
      throw error;
    }
  }

  /** Then: when that one has gone on. */
  async parkingLater(waiting: AsyncWaitOptions): Promise<Parking> {
    return await patiently(() => this.#parkingWithin(TABLE_PATIENCE_MS), waiting);
  }

  #parkingWithin(timeout_ms: number): Parking {
    if (this.#parking?.isUsable !== true) {
      const segment = this.ownSegmentSync(PARKING_NAME, PARKING_SIZE, timeout_ms);
      this.#parking = new Parking(this, segment);
    }
    return this.#parking;
  }

  /** A segment is being detached: nobody waits for its words any more. */
  leaveWords(id: number, cause: () => DsmrError): void {
    this.#parking?.leave(id, cause);
  }

  /** The locks by name. */
  get webLocks(): WebLocks {
    return this.#webLocks ??= new WebLocks(this);
  }

  /** Publishes a segment that beginSync has started. */
  commit(segment: Segment): void {
    const { calls, error } = native();
    check(calls.dsmr_segment_commit(handleOf(segment), error.bytes));
    this.#byName.set(keyOf(segment.name, segment.scope), segment);
  }

  #adopt(name: string, scope: Scope, ticket: Record, status: number): Segment {
    const handle = ticket.u32("segment");
    const found = status === native().number("DSMR_FOUND");
    // The library gives the same handle for what is attached already.
    const known = this.#attached.get(handle);
    if (known !== undefined) return known;
    let buffer: ArrayBuffer;
    try {
      buffer = native().runtime.view(ticket.big("address"), ticket.u64("size"));
    } catch (cause) {
      native().calls.dsmr_segment_detach(handle);
      if (!(cause instanceof RangeError)) {
        throw new DsmrError(
          "PERMISSION",
          `Cannot use the memory of segment "${name}": ${messageOf(cause)} ` +
            native().runtime.permissionAdvice,
          { cause },
        );
      }
      throw new DsmrError(
        "NO_SPACE",
        `This runtime cannot make an ArrayBuffer of the ${ticket.u64("size")} bytes of ` +
          `segment "${name}". Use several smaller segments.`,
        { cause, requested: ticket.u64("size") },
      );
    }
    const about = { scope, found, handle, id: ticket.u64("id"), layout: ticket.big("layout") };
    const segment = new Segment(this, name, about, buffer);
    this.#attached.set(handle, segment);
    if (found) this.#byName.set(keyOf(name, scope), segment);
    return segment;
  }

  /** Called by the segment once its buffer is detached: by itself, or by a transfer before. */
  detachSegment(segment: Segment, isOurs: boolean): void {
    const handle = handleOf(segment);
    this.#attached.delete(handle);
    const key = keyOf(segment.name, segment.scope);
    if (this.#byName.get(key) === segment) this.#byName.delete(key);
    this.endInitializing(segment);
    const { calls } = native();
    // Somebody has transferred the buffer, and may hold the address for ever.
    if (!isOurs) calls.dsmr_segment_park(handle);
    calls.dsmr_segment_detach(handle);
  }
}

/** One request for a segment, as the library takes it. */
class Beginning {
  readonly #registry: number;
  readonly #name: string;
  readonly #encoded: Uint8Array<ArrayBuffer>;
  readonly #request: Record;
  readonly ticket: Record;
  /** What `attempt` returns when another backend is at it. */
  readonly wait: number;
  /** What it returns when space is to be reserved first. */
  readonly #reserve: number;
  readonly #size: [number, number];
  readonly #otherLayout: SegmentOptions["otherLayout"];

  constructor(registry: number, name: string, options: SegmentOptions, isAsync = false) {
    const { number, record } = native();
    this.#registry = registry;
    this.#name = name;
    this.#encoded = encodeName("segment", name);
    this.ticket = record("dsmr_segment_ticket");
    this.#request = record("dsmr_segment_request");
    this.#request.setU64("size", options.size);
    this.#request.setU32("lifetime", number(`DSMR_LIFETIME_${options.lifetime.toUpperCase()}`));
    this.#request.setU32("timeout_ms", options.timeout_ms);
    this.#request.setU32("is_async", isAsync ? 1 : 0);
    this.#request.setU32("scope", encodeScope(options.scope ?? "global"));
    this.#request.setBig("layout", options.layout ?? 0n);
    this.#otherLayout = options.otherLayout;
    this.wait = number("DSMR_WAIT");
    this.#reserve = number("DSMR_RESERVE");
    this.#size = [options.size % 2 ** 32, Math.floor(options.size / 2 ** 32)];
  }

  attempt(): number {
    const { calls, error, number } = native();
    const status = calls.dsmr_segment_begin(
      this.#registry,
      this.#encoded,
      this.#encoded.length,
      this.#request.bytes,
      this.ticket.bytes,
      error.bytes,
    );
    if (status === number("DSMR_E_LAYOUT_MISMATCH") && this.#otherLayout !== undefined) {
      throw this.#otherLayout(error.big("actual"));
    }
    return check(status);
  }

  /** Sleeps for a slice. */
  sleep(): number {
    const { calls, error } = native();
    return calls.dsmr_segment_wait(
      this.#registry,
      this.#encoded,
      this.#encoded.length,
      this.#request.bytes,
      this.ticket.bytes,
      error.bytes,
    );
  }

  /** What there is to wait for after an attempt: a watch; 0: attempt again; -1: nothing. */
  watch(status: number): number {
    const { calls, error } = native();
    if (status === this.wait) {
      return check(calls.dsmr_segment_watch(this.#registry, this.ticket.bytes, error.bytes));
    }
    if (status !== this.#reserve) return -1;
    const outcome = calls.dsmr_segment_reserve(this.#registry, ...this.#size, 0);
    if (outcome >= 0) return outcome;
    const code = native().codeOf.get(outcome) ?? "NO_SPACE";
    throw new DsmrError(
      code,
      code === "CLOSED"
        ? `Cannot reserve space for segment "${this.#name}": its registry ` +
          `${fateOf(this.#registry)}. Open it again.`
        : `Cannot reserve space for segment "${this.#name}": the process is out of memory, ` +
          "threads or file descriptors. Close some, or raise its limits (ulimit -a).",
    );
  }

  /** Gives the space back that was reserved for nothing. */
  giveUp(): void {
    native().calls.dsmr_segment_reserve(this.#registry, ...this.#size, 1);
  }

  /** The error of a request that has waited too long. */
  late(timeout: number): unknown {
    this.#request.setU32("timeout_ms", encodeTimeout(timeout));
    const status = this.sleep();
    if (status < 0) return lastError(status);
    return new DsmrError(
      "TIMEOUT",
      `Segment "${this.#name}" was not to be had within ${timeout} ms. Give it more time.`,
      { requested: timeout },
    );
  }
}

function openNative(
  dir: string,
  name: Uint8Array<ArrayBuffer>,
  database: Uint8Array<ArrayBuffer>,
  options: BackendOptions,
): number {
  const { calls, error, number, record, runtime } = native();
  const directory = new TextEncoder().encode(dir);
  const request = record("dsmr_registry_options");
  request.setU32("mode", number(`DSMR_MODE_${options.mode.toUpperCase()}`));
  request.setU32("backend_count_max", options.maxBackends);
  request.setU32("segment_count_max", options.maxSegments);
  request.setU32("timeout_ms", options.timeout_ms);
  request.setText("label", runtime.label);
  const handle = calls.dsmr_registry_open(
    name.length === 0 ? nothing : name,
    name.length,
    directory,
    directory.length,
    database.length === 0 ? nothing : database,
    database.length,
    request.bytes,
    error.bytes,
  );
  if (handle < 0) throw lastError(handle);
  return handle;
}
