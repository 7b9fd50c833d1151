/**
 * Registries: named control regions that processes attach to.
 *
 * @module
 */

import { Backend, TABLE_PATIENCE_MS } from "./backend.ts";
import { type Change, changes } from "./changes.ts";
import { DsmrError } from "./errors.ts";
import {
  check,
  describe,
  encodeName,
  encodeTimeout,
  messageOf,
  native,
  nothing,
  quote,
} from "./ffi/native.ts";
import {
  type BackendInfo,
  listBackends,
  listRegistries,
  listSegments,
  listTranches,
  listWaits,
  type RegistryInfo,
  type SegmentInfo,
  type TrancheInfo,
  type WaitInfo,
} from "./listing.ts";
import { insideInit, isInsideInit } from "./init_scope.ts";
import { isPromise } from "./promise.ts";
import {
  type AsyncInitCallback,
  checkOwnName,
  checkRequest,
  checkSize,
  directory,
  type DirectoryOptions,
  type InitCallback,
  initFailed,
  limit,
  type OpenOptions,
  recursion,
  type SegmentRequest,
  stillInitializing,
} from "./requests.ts";
import { backendOfSegment, handleOf, Segment, setRepair } from "./segment.ts";
import { segmentOfSignal, Signal } from "./signal.ts";
import { Tranche } from "./tranche.ts";
import { type AsyncWaitOptions, checkWaitOptions, patiently, within } from "./wait.ts";
import type { WebLocks } from "./web_locks.ts";
import type { BackgroundWorker } from "./workers/handle.ts";
import type { WorkerSpec } from "./workers/spec.ts";
import type { WorkerInfo } from "./workers/view.ts";
import { registerDynamic, supervise, workersIn } from "./workers/workers.ts";

/** How long opening waits for a stopped process in the registry's tables, by default. */
const OPEN_TIMEOUT_MS = 10_000;

/**
 * A named registry, attached by this isolate (a process, or one Worker of it).
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * using registry = Registry.openSync("doc-registry");
 * const hits = registry.getNamedSegmentSync("hits", 4096, (segment) => {
 *   new Int32Array(segment.buffer)[0] = 1000; // in exactly one process
 * });
 * console.log(hits.found ? "initialised by another" : "initialised here");
 * Registry.destroy("doc-registry");
 * ```
 */
export class Registry implements Disposable {
  readonly #backend: Backend;
  #isOpen = true;

  /** The registry's name. */
  readonly name: string;
  /** The directory that it is in. */
  readonly dir: string;
  /** The database that was opened. */
  readonly database: string;

  private constructor(backend: Backend, name: string, dir: string, database: string) {
    this.#backend = backend;
    this.name = name;
    this.dir = dir;
    this.database = database;
  }

  /**
   * Attaches to the registry `name`, and creates it when it is not there. The same registry
   * and database opened again in the same isolate share one backend; it lasts until the last
   * of them is closed.
   *
   * Blocks only while another process is in the middle of changing the registry's tables.
   *
   * @throws {TypeError} An option of the wrong type. {@linkcode RangeError}: the timeout.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `SIZE_INVALID`: an argument.
   * `EXISTS`, `NOT_FOUND`: as `mode` says, or there is no such directory. `NO_SPACE`,
   * `BACKENDS_FULL`, `REGISTRY_FULL`: no room. `PERMISSION`, `CORRUPT`, `VERSION_MISMATCH`:
   * the file is refused. `TIMEOUT`: a stopped process holds the tables. `UNSUPPORTED`: the
   * native library cannot be loaded, or the file system cannot do this. Nothing is left
   * behind.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * const registry = Registry.openSync("doc-open", { maxSegments: 16 });
   * registry.close();
   * Registry.destroy("doc-open");
   * ```
   */
  static openSync(name: string, options?: OpenOptions): Registry {
    return Registry.#attach(name, options, encodeTimeout(options?.timeout));
  }

  /**
   * As {@linkcode openSync}, without blocking: while a stopped process holds the registry's
   * tables, other tasks of the program go on.
   *
   * @throws As {@linkcode openSync}; the signal's reason.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = await Registry.open("doc-open-async", { signal: AbortSignal.timeout(1000) });
   * console.log(registry.name);
   * Registry.destroy("doc-open-async");
   * ```
   */
  static async open(name: string, options?: OpenOptions & AsyncWaitOptions): Promise<Registry> {
    return await patiently(
      () => Promise.resolve(Registry.#attach(name, options, TABLE_PATIENCE_MS)),
      { timeout: OPEN_TIMEOUT_MS, ...checkWaitOptions(options) },
    );
  }

  static #attach(name: string, options: OpenOptions | undefined, timeout_ms: number): Registry {
    const { database = "default", mode = "open", supervise: isWilling = false, ...rest } =
      options ?? {};
    if (database === "") {
      throw new DsmrError("NAME_INVALID", "The database name is empty. Omit it, or name one.");
    }
    if (mode !== "open" && mode !== "create" && mode !== "attach") {
      throw new TypeError(`The mode is ${quote(mode)}, not "open", "create" or "attach".`);
    }
    if (typeof isWilling !== "boolean") {
      throw new TypeError(`supervise is ${quote(isWilling)}, not true or false.`);
    }
    const dir = directory(rest);
    const backend = Backend.open(dir, name, database, {
      mode,
      maxBackends: limit("maxBackends", rest.maxBackends, "DSMR_BACKENDS_MAX"),
      maxSegments: limit("maxSegments", rest.maxSegments, "DSMR_SEGMENTS_MAX"),
      timeout_ms,
    });
    try {
      if (isWilling) supervise(backend, { dir, name });
    } catch (error) {
      backend.release();
      throw error;
    }
    return new Registry(backend, name, dir, database);
  }

  /**
   * The registries of a directory, those of other users left out, sorted by name. One that
   * is damaged is listed with its `problem`.
   *
   * @throws {DsmrError} `NOT_FOUND`, `PERMISSION`: the directory.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * for (const { name, backends, segments } of Registry.list()) {
   *   console.log(`${name}: ${backends} backends, ${segments} segments`);
   * }
   * ```
   */
  static list(options?: DirectoryOptions): IterableIterator<RegistryInfo> {
    return listRegistries(directory(options)).values();
  }

  /**
   * Destroys a registry and all its segments; also one that is corrupt, which this is the way
   * to get rid of. Backends that are attached keep the memory they have mapped; whatever else
   * they do with the registry is `CLOSED`. The name is free at once.
   *
   * @returns false if there was none.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `PERMISSION`, `TIMEOUT`. A process
   * killed in here leaves a registry that the next open, list or destroy finishes off.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * Registry.openSync("doc-destroy").close();
   * console.log(Registry.destroy("doc-destroy")); // true
   * console.log(Registry.destroy("doc-destroy")); // false
   * ```
   */
  static destroy(name: string, options?: DirectoryOptions): boolean {
    const { calls, error } = native();
    const encoded = encodeName("registry", name);
    const dir = new TextEncoder().encode(directory(options));
    const status = calls.dsmr_registry_destroy(
      encoded.length === 0 ? nothing : encoded,
      encoded.length,
      dir,
      dir.length,
      error.bytes,
    );
    return check(status) === 1;
  }

  /**
   * The number of this isolate's backend: unique among the backends of the registry, and not
   * used again for a long time (16 million uses of the same slot) after it has left.
   */
  get backendId(): number {
    return this.#open().id;
  }

  /**
   * The segment `name`: attached if it is there, else created with `size` bytes, all zero,
   * and initialised by `init`. Of all backends that ask, exactly one runs `init`; the others
   * block until it is done (see `timeout`). If it throws or its process dies, the next one
   * takes over, on zeroed memory. PostgreSQL's `GetNamedDSMSegment`.
   *
   * No lock is held while `init` runs, and it may ask for other segments. Asking for a segment
   * that is attached already gives the same object and costs some nanoseconds.
   *
   * Blocks the thread, and with it the event loop, while another backend initialises.
   *
   * @param name 1 to 63 bytes of UTF-8, without NUL and slash.
   * @param size In bytes. Omitted: whatever is there.
   * @param init Fills the memory. Omitted: it stays zero.
   *
   * @throws {TypeError} `init` or an option of the wrong type. {@linkcode RangeError}: the
   * timeout.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `SIZE_INVALID`: an argument.
   * `SIZE_MISMATCH`: it is there with another size. `NOT_FOUND`: it is not there, and no size
   * was given. `INIT_FAILED`: `init` threw, see `cause`, or returned a promise, or
   * detached the segment; the segment is free again.
   * `INIT_RECURSION`: asked for by its own `init`. `DEADLOCK`: its initialiser waits for this
   * backend. `TIMEOUT`. `NO_SPACE`, `REGISTRY_FULL`: no room, nothing is left behind.
   * `PERMISSION`, `CORRUPT`: its file is refused, or the runtime must not use memory. `CLOSED`: the registry was closed or
   * destroyed.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-get");
   * const limits = registry.getNamedSegmentSync("limits", 8, (segment, perSecond) => {
   *   new Float64Array(segment.buffer)[0] = perSecond;
   * }, { arg: 250 });
   * console.log(new Float64Array(limits.buffer)[0]); // 250, in every process
   * Registry.destroy("doc-get");
   * ```
   */
  getNamedSegmentSync<Argument = undefined>(
    name: string,
    size?: number,
    init?: InitCallback<Argument>,
    options?: SegmentRequest<Argument>,
  ): Segment {
    const backend = this.#open();
    checkOwnName(name);
    if (init !== undefined || options) checkRequest(init, options);
    const known = backend.current(name);
    if (known !== undefined && (size === undefined || size === known.size)) {
      if (options) setRepair(known, options.repair);
      return known;
    }
    const { arg, lifetime = "registry", timeout, repair } = options ?? {};
    const segment = backend.beginSync(name, {
      size: size === undefined ? 0 : checkSize(name, size),
      lifetime,
      timeout_ms: encodeTimeout(timeout),
    });
    setRepair(segment, repair);
    if (segment.found) return segment;
    try {
      const result: unknown = init?.(segment, arg as Argument);
      if (isPromise(result)) {
        throw new TypeError(
          "The callback returned a promise, but the segment must be complete when it returns. Await " +
            "first, or use getNamedSegment, which awaits it.",
          { cause: result },
        );
      }
    } catch (cause) {
      segment.detach();
      throw initFailed(name, `failed: ${messageOf(cause)}`, cause);
    }
    this.#commit(backend, segment);
    return segment;
  }

  #commit(backend: Backend, segment: Segment): void {
    try {
      void segment.buffer;
    } catch (cause) {
      if (this.#isOpen) throw initFailed(segment.name, "detached it.", cause);
      const closed = new DsmrError("CLOSED", `Registry "${this.name}" was closed.`, { cause });
      throw initFailed(segment.name, "closed the registry.", closed);
    }
    try {
      backend.commit(segment);
    } catch (cause) {
      segment.detach();
      throw cause;
    }
  }

  /**
   * As {@linkcode getNamedSegmentSync}, without blocking: while another backend initialises,
   * other tasks of the program go on. `init` may be asynchronous: the segment is published when
   * the promise that it returns is fulfilled. If it rejects, or its process dies, the next one
   * takes over. Tasks of the same program wait for each other, too.
   *
   * @throws As {@linkcode getNamedSegmentSync}, but for `DEADLOCK`; the signal's reason.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-get-async");
   * const answer = await registry.getNamedSegment("answer", 8, async (segment) => {
   *   new Float64Array(segment.buffer)[0] = await Promise.resolve(42);
   * });
   * console.log(new Float64Array(answer.buffer)[0]); // 42, in every process
   * Registry.destroy("doc-get-async");
   * ```
   */
  async getNamedSegment<Argument = undefined>(
    name: string,
    size?: number,
    init?: AsyncInitCallback<Argument>,
    options?: SegmentRequest<Argument> & AsyncWaitOptions,
  ): Promise<Segment> {
    const backend = this.#open();
    checkOwnName(name);
    if (init !== undefined || options) checkRequest(init, options);
    const waiting = checkWaitOptions(options);
    waiting.signal?.throwIfAborted();
    const { arg, lifetime = "registry", repair } = options ?? {};
    const request = { size: size === undefined ? 0 : checkSize(name, size), lifetime };
    const { segment, isOurs } = await patiently(async (left) => {
      for (;;) {
        const known = backend.current(name);
        if (known !== undefined && (size === undefined || size === known.size)) {
          return { segment: known, isOurs: false };
        }
        const other = backend.initializing(name);
        if (other === undefined) {
          const begun = await backend.begin(name, { ...request, timeout_ms: 0 }, left);
          if (begun !== undefined) return begun;
          continue;
        }
        if (isInsideInit(backend, name)) throw recursion(name);
        await within(other, left, () => stillInitializing(name, waiting.timeout));
      }
    }, waiting);
    setRepair(segment, repair);
    if (!isOurs) return segment;
    try {
      try {
        if (init !== undefined) {
          await insideInit(backend, name, () => init(segment, arg as Argument));
        }
      } catch (cause) {
        segment.detach();
        throw initFailed(name, `failed: ${messageOf(cause)}`, cause);
      }
      this.#commit(backend, segment);
    } finally {
      backend.endInitializing(segment);
    }
    return segment;
  }

  /**
   * The segment `name` as it is, attached; or null when it is not there, or still being
   * initialised. Never waits for another's initialisation; gives up with `TIMEOUT` after 10 s
   * if a stopped process holds the registry's tables.
   *
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `CLOSED`, `NO_SPACE`, `PERMISSION`,
   * `CORRUPT`, `TIMEOUT`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-lookup");
   * console.log(registry.lookupSegment("nobody-made-this")); // null
   * Registry.destroy("doc-lookup");
   * ```
   */
  lookupSegment(name: string): Segment | null {
    checkOwnName(name);
    const backend = this.#open();
    return backend.current(name) ?? backend.lookup(name);
  }

  /**
   * Removes the segment's name. Backends that have it attached keep their memory until they
   * detach; who asks for the name from now on gets a new segment. One that is still being
   * initialised is not there yet, and is left alone. Never waits for another's
   * initialisation; gives up with `TIMEOUT` after 10 s if a stopped process holds the
   * registry's tables.
   *
   * @returns false if there was none.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `CLOSED`, `TIMEOUT`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-drop");
   * registry.getNamedSegmentSync("scratch", 64);
   * console.log(registry.dropSegment("scratch")); // true
   * Registry.destroy("doc-drop");
   * ```
   */
  dropSegment(name: string): boolean {
    checkOwnName(name);
    const backend = this.#open();
    const { calls, error } = native();
    const encoded = encodeName("segment", name);
    return check(
      calls.dsmr_segment_drop(
        backend.handle,
        encoded.length === 0 ? nothing : encoded,
        encoded.length,
        error.bytes,
      ),
    ) === 1;
  }

  /**
   * The segments of the registry, sorted by name: one consistent snapshot, taken by this call.
   *
   * @throws {DsmrError} `CLOSED`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-segments");
   * registry.getNamedSegmentSync("a", 64);
   * console.log([...registry.segments()].map((segment) => segment.name)); // [ "a" ]
   * Registry.destroy("doc-segments");
   * ```
   */
  segments(): IterableIterator<SegmentInfo> {
    return listSegments(this.#open().handle).values();
  }

  /**
   * The backends that are attached and alive: one consistent snapshot, taken by this call.
   * What dead ones have left is cleared away on the way.
   *
   * @throws {DsmrError} `CLOSED`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-backends");
   * for (const { pid, program } of registry.backends()) console.log(pid, program);
   * Registry.destroy("doc-backends");
   * ```
   */
  backends(): IterableIterator<BackendInfo> {
    return listBackends(this.#open().handle).values();
  }

  /**
   * The backends that wait for a lock, and who holds it: a snapshot.
   *
   * @throws {DsmrError} `CLOSED`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-waits");
   * for (const { pid, tranche, mode, since } of registry.waits()) {
   *   console.log(pid, "waits for", tranche, mode, "since", since);
   * }
   * Registry.destroy("doc-waits");
   * ```
   */
  waits(): IterableIterator<WaitInfo> {
    return listWaits(this.#open().handle).values();
  }

  /**
   * Makes a tranche: a named family of locks for {@linkcode Segment.initLock}, visible to
   * every process as what a wait is for; as LWLockNewTrancheId. A registry has room for
   * 1,024.
   *
   * @param name Need not be unique.
   * @param options `segment`: the tranche goes when this segment is removed. Otherwise it
   * stays until {@linkcode Tranche.drop}.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `TRANCHES_FULL`, `CLOSED`.
   */
  newTranche(name: string, options?: { segment?: Segment }): Tranche {
    const backend = this.#open();
    const segment = options?.segment;
    if (segment !== undefined && !(segment instanceof Segment)) {
      throw new TypeError(`The segment is ${describe(segment)}, not a Segment.`);
    }
    if (segment !== undefined && backendOfSegment(segment) !== backend) {
      throw new DsmrError(
        "NOT_FOUND",
        `Segment "${segment.name}" was attached through another registry than "${this.name}". ` +
          "Ask this one for it.",
      );
    }
    const { calls, error } = native();
    const encoded = encodeName("tranche", name);
    const id = calls.dsmr_tranche_new(
      backend.handle,
      encoded.length === 0 ? nothing : encoded,
      encoded.length,
      segment === undefined ? 0 : handleOf(segment),
      error.bytes,
    );
    return new Tranche(backend, name, check(id));
  }

  /**
   * The tranches and what was waited for in them, those of the segments' own locks included:
   * a snapshot.
   *
   * @throws {DsmrError} `CLOSED`.
   */
  tranches(): IterableIterator<TrancheInfo> {
    return listTranches(this.#open().handle).values();
  }

  /**
   * The signal `name`: something that processes wait for and notify each other of. It is there
   * as soon as somebody has asked for it, and stays as long as the registry.
   *
   * @param name 1 to 61 bytes of UTF-8, without NUL and slash. Signals and segments have names
   * of their own.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `REGISTRY_FULL`, `NO_SPACE`, `CLOSED`,
   * `TIMEOUT`.
   */
  signal(name: string): Signal {
    const segment = segmentOfSignal(name);
    this.#open();
    return new Signal(name, () => this.#open().ownSegmentSync(segment, 64));
  }

  /**
   * The segments and backends that come and go from now on. What comes and goes again between
   * two turns of the loop is not seen. A backend that dies is noticed without anybody's doing.
   *
   * @throws {DsmrError} `CLOSED`: also while waiting. The signal's reason.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-watch");
   * const changes = registry.watch();
   * registry.getNamedSegmentSync("new", 64);
   * for await (const change of changes) {
   *   if (change.type === "segment-created") console.log(change.segment.name); // "new"
   *   break;
   * }
   * Registry.destroy("doc-watch");
   * ```
   */
  watch(options?: { signal?: AbortSignal }): AsyncIterableIterator<Change> {
    const { signal } = checkWaitOptions(options);
    return changes(this.#open(), signal === undefined ? {} : { signal });
  }

  /**
   * Lets go of every lock that this backend holds; as LWLockReleaseAll, for recovery from an
   * error.
   *
   * @returns how many.
   * @throws {DsmrError} `CLOSED`.
   */
  releaseAll(): number {
    return this.#open().releaseAll();
  }

  /**
   * Locks by name, as `navigator.locks` has them, but among all processes, runtimes and Workers
   * that have the registry open.
   *
   * @throws {DsmrError} `CLOSED`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-web-locks");
   * const port = await registry.locks.request("leader", () => {
   *   return 8080; // nobody else is here, in no process
   * });
   * console.log(port); // 8080
   * Registry.destroy("doc-web-locks");
   * ```
   */
  get locks(): WebLocks {
    return this.#open().webLocks;
  }

  /**
   * Registers a background worker: a process, or a thread, that runs a module's function for the
   * registry, once in all or once for each database. A backend that was opened with
   * `supervise: true` starts it, here or in another process, and sees to it: when the function
   * returns, the worker is not registered any more; when it throws, it is started again after
   * `restartTime`; when it crashes, likewise, with pauses that grow. Whoever is killed at whatever
   * point, a worker never runs twice. As RegisterDynamicBackgroundWorker. Does not wait.
   *
   * The worker outlives the backend that registers it. A registry has room for 256.
   *
   * @throws {TypeError} The worker, or a part of it, is of the wrong type. {@linkcode RangeError}:
   * `restartTime` or `grace`.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`: a name. `SIZE_INVALID`: all of it takes
   * more than 3,072 bytes of JSON. `REGISTRY_FULL`: 256 workers are registered, or there is no room
   * for the table. `NO_SPACE`, `CLOSED`. `TIMEOUT`: a stopped process is in the middle of changing
   * the table. Nothing is registered then.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-workers", { supervise: true });
   * const worker = registry.registerBackgroundWorker({
   *   name: "saver",
   *   // As a rule: new URL("./saver.ts", import.meta.url)
   *   module: "data:text/javascript,export default ({ ready }) => ready()",
   * });
   * const { exitCode, reason } = await worker.waitForShutdown();
   * console.log(exitCode, reason); // 0 null
   * Registry.destroy("doc-workers");
   * ```
   */
  registerBackgroundWorker(spec: WorkerSpec): BackgroundWorker {
    return registerDynamic(this.#open(), spec);
  }

  /**
   * The background workers, those that have stopped for a reason included, as long as there is
   * room: a snapshot.
   *
   * @throws {DsmrError} `CLOSED`. `TIMEOUT`: a stopped process is in the middle of changing the
   * table.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-workers-list");
   * for (const { name, state, pid } of registry.workers()) console.log(name, state, pid);
   * Registry.destroy("doc-workers-list");
   * ```
   */
  workers(): IterableIterator<WorkerInfo> {
    return workersIn(this.#open()).values();
  }

  /**
   * Leaves the registry. When this was the isolate's last one for this registry and database,
   * its segments are detached (every view of their buffers with them) and its backend is
   * gone. Does nothing the second time.
   */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#backend.release();
  }

  /** Closes: for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #open(): Backend {
    if (!this.#isOpen) {
      throw new DsmrError("CLOSED", `Registry "${this.name}" is closed. Open it again.`);
    }
    return this.#backend;
  }
}
