/**
 * Registries: named control regions that processes attach to.
 *
 * @module
 */

import { type Addin, checkAddins } from "./addins/addin.ts";
import { lookupShmem } from "./addins/handle.ts";
import { addinsOf, type Opening } from "./addins/hooks.ts";
import type { Backend } from "./backend.ts";
import { type Change, changes } from "./changes.ts";
import { DsmrError } from "./errors.ts";
import { describe, encodeTimeout } from "./ffi/native.ts";
import {
  type BackendInfo,
  countDatabases,
  type DatabaseInfo,
  listBackends,
  listDatabases,
  listRegistries,
  listSegments,
  listTranches,
  listWaits,
  type RegistryInfo,
  type SegmentInfo,
  type TrancheInfo,
  type WaitInfo,
} from "./listing.ts";
import type { LWLock } from "./lwlock.ts";
import {
  dropSegment,
  getNamedSegment,
  getNamedSegmentSync,
  lookupSegment,
} from "./named_segments.ts";
import { attachBackend, destroyRegistry, dropDatabase } from "./opening.ts";
import {
  type AsyncInitCallback,
  directory,
  type DirectoryOptions,
  type InitCallback,
  type OpenOptions,
  type ScopeOptions,
  type SegmentRequest,
} from "./requests.ts";
import { backendOfSegment, handleOf, Segment } from "./segment.ts";
import { dropSignal, Signal } from "./signal.ts";
import { makeTranche, type Tranche } from "./tranche.ts";
import { type AsyncWaitOptions, checkWaitOptions, patiently, TABLE_PATIENCE_MS } from "./wait.ts";
import type { WebLocks } from "./web_locks.ts";
import type { BackgroundWorker } from "./workers/handle.ts";
import type { WorkerSpec } from "./workers/spec.ts";
import type { WorkerInfo } from "./workers/view.ts";
import {
  dropWithWorkers,
  registerDynamic,
  registerStatic,
  supervise,
  workersIn,
} from "./workers/workers.ts";

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
   * native library cannot be loaded, or the file system cannot do this. With add-ins also
   * `EXISTS`: two have one name; `INIT_FAILED`: a hook threw, see `cause`, or returned a promise,
   * or closed the registry; `NO_SPACE`, `TRANCHES_FULL`: no room for what they request;
   * `INIT_RECURSION`, `DEADLOCK`: their hooks would wait for themselves; what their allocations
   * throw. This backend is not left behind then.
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
    const addins = checkAddins(options?.addins);
    const registry = Registry.#attach(name, options, encodeTimeout(options?.timeout));
    if (addins.length === 0) return registry;
    try {
      addinsOf(registry.#backend, name)
        .startSync(addins, registry.#opening(), options?.timeout ?? OPEN_TIMEOUT_MS);
    } catch (cause) {
      registry.close();
      throw cause;
    }
    return registry;
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
    const addins = checkAddins(options?.addins);
    const waiting = { timeout: OPEN_TIMEOUT_MS, ...checkWaitOptions(options) };
    const registry = await patiently(
      () => Promise.resolve(Registry.#attach(name, options, TABLE_PATIENCE_MS)),
      waiting,
    );
    if (addins.length === 0) return registry;
    try {
      await addinsOf(registry.#backend, name).start(addins, registry.#opening(), waiting);
    } catch (cause) {
      registry.close();
      throw cause;
    }
    return registry;
  }

  #opening(): Opening {
    return {
      registry: this,
      isOpen: () => this.#isOpen,
      registerStatic: (addin, spec) => registerStatic(this.#open(), addin, spec),
    };
  }

  static #attach(name: string, options: OpenOptions | undefined, timeout_ms: number): Registry {
    const { backend, dir, database } = attachBackend(name, options, timeout_ms);
    try {
      if (options?.supervise === true) supervise(backend, { dir, name });
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
    return destroyRegistry(name, options);
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
   * backend, or is another task of this program. `TIMEOUT`. `NO_SPACE`, `REGISTRY_FULL`: no
   * room, nothing is left behind. `PERMISSION`, `CORRUPT`: its file is refused, or the runtime
   * must not use memory. `CLOSED`: the registry was closed or destroyed.
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
    return getNamedSegmentSync(this.#open(), name, size, init, options);
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
    return await getNamedSegment(this.#open(), name, size, init, options);
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
  lookupSegment(name: string, options?: ScopeOptions): Segment | null {
    return lookupSegment(this.#open(), name, options);
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
  dropSegment(name: string, options?: ScopeOptions): boolean {
    return dropSegment(this.#open(), name, options);
  }

  /**
   * The databases of the registry, sorted by name: the scopes of what is asked for with
   * `scope: "database"`. Opening a registry with `database` makes it.
   *
   * @throws {DsmrError} `CLOSED`, `TIMEOUT`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-databases", { database: "tenant-a" });
   * registry.getNamedSegmentSync("settings", 64, undefined, { scope: "database" });
   * for (const { name, id, segments } of registry.databases()) {
   *   console.log(`${name} is ${id}: ${segments} segments`); // tenant-a is 1: 1 segments
   * }
   * Registry.destroy("doc-databases");
   * ```
   */
  databases(): IterableIterator<DatabaseInfo> {
    return countDatabases(this.#open().handle).values();
  }

  /**
   * Drops a database with its segments, as {@linkcode dropSegment} does: who has them attached
   * keeps the memory. Backends that have it open stay; what they ask for with
   * `scope: "database"` is `CLOSED` from here on, what is global goes on. Who opens the name
   * from now on gets a new database, with another id and nothing in it. Its background workers are
   * told to end, for good; one that is just being started does not make it anew.
   *
   * All of it is one step to others, also if this process is killed in the middle.
   *
   * @returns false if there was none.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `CLOSED`. `TIMEOUT`: a process is stopped in
   * the middle of changing the registry's tables, or the workers'; nothing was dropped. `CORRUPT`:
   * the table of background workers was overwritten; the database is gone all the same.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * Registry.openSync("doc-drop-database", { database: "tenant-b" }).close();
   * using registry = Registry.openSync("doc-drop-database");
   * console.log(registry.dropDatabase("tenant-b")); // true
   * console.log(registry.dropDatabase("tenant-b")); // false
   * Registry.destroy("doc-drop-database");
   * ```
   */
  dropDatabase(name: string): boolean {
    const backend = this.#open();
    return dropWithWorkers(backend, () => {
      const id = listDatabases(backend.handle).find((database) => database.name === name)?.id;
      return dropDatabase(backend, name) ? id ?? 0 : undefined;
    });
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
    return makeTranche(backend, name, segment === undefined ? 0 : handleOf(segment));
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
   * What the startup hook of an add-in has returned, which the registry was opened with.
   *
   * @throws {DsmrError} `NOT_FOUND`: it was not, or is still starting. `CLOSED`.
   *
   * @example
   * ```ts
   * import { defineAddin, Registry } from "@dsmr/registry";
   *
   * const clock = defineAddin({ name: "clock", startup: () => ({ now: () => Date.now() }) });
   * using registry = Registry.openSync("doc-startup", { addins: [clock] });
   * console.log(registry.addin(clock).now());
   * Registry.destroy("doc-startup");
   * ```
   */
  addin<Started>(addin: Addin<Started>): Started {
    return addinsOf(this.#open(), this.name).result(addin) as Started;
  }

  /**
   * The locks of a tranche that an add-in's request hook has requested; as
   * GetNamedLWLockTranche. The same in every process.
   *
   * @throws {DsmrError} `NOT_FOUND`: nobody has requested it, or it was made by
   * {@linkcode newTranche}. `CORRUPT`, `CLOSED`.
   *
   * @example
   * ```ts
   * import { defineAddin, Registry } from "@dsmr/registry";
   *
   * const queue = defineAddin({
   *   name: "queue",
   *   request: (ctx) => ctx.requestTranche("queue", 2),
   * });
   * using registry = Registry.openSync("doc-tranche", { addins: [queue] });
   * const [head, tail] = registry.getTranche("queue");
   * head?.withSync("exclusive", () => tail?.withSync("exclusive", () => {}));
   * Registry.destroy("doc-tranche");
   * ```
   */
  getTranche(name: string): LWLock[] {
    return addinsOf(this.#open(), this.name).tranche(name);
  }

  /**
   * What an add-in has allocated by this name, in its `init` hook, here or elsewhere; as
   * dynpgext_lookup_shmem. Its callback has always ended.
   *
   * @returns null if there is none, or it is still being initialised.
   * @throws {DsmrError} As {@linkcode lookupSegment}.
   *
   * @example
   * ```ts
   * import { defineAddin, Registry } from "@dsmr/registry";
   *
   * const extension = defineAddin({
   *   name: "my_ext",
   *   init(handle) {
   *     handle.allocateShmem({
   *       name: "my_ext:0.1:value",
   *       size: 1024,
   *       callback: (segment, payload) => void new Int32Array(segment.buffer).fill(payload),
   *       payload: 7,
   *     });
   *   },
   * });
   * using registry = Registry.openSync("doc-shmem", { addins: [extension] });
   * const value = registry.lookupShmem("my_ext:0.1:value");
   * console.log(value && new Int32Array(value.buffer)[0]); // 7
   * Registry.destroy("doc-shmem");
   * ```
   */
  lookupShmem(name: string): Segment | null {
    return lookupShmem(this, name);
  }

  /**
   * The signal `name`: something that processes wait for and notify each other of. It is there
   * as soon as somebody has asked for it, and stays until it is dropped, or as long as the
   * registry.
   *
   * @param name 1 to 61 bytes of UTF-8, without NUL and slash. Signals and segments have names
   * of their own.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `REGISTRY_FULL`, `NO_SPACE`, `CLOSED`,
   * `TIMEOUT`.
   */
  signal(name: string): Signal {
    this.#open();
    return new Signal(name, () => this.#open());
  }

  /**
   * Removes a signal: whoever waits for it is rejected with `NOT_FOUND`, in every process, and so
   * is whatever else is done with the {@linkcode Signal} objects that mean it. The name is free:
   * who asks for it from now on gets a new signal, whose {@linkcode Signal.sequence} begins at 0.
   * The room that it takes in the registry is free when each process that has it has noticed, by
   * using it, or has closed the registry.
   *
   * @returns false if there was none.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `CLOSED`. `TIMEOUT`: a stopped process was
   * in the middle of changing who waits, or the registry's tables, for 10 s; the signal is as it
   * was, or dropped: try again. A process killed in here leaves it in one of the two states.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-drop-signal");
   * registry.signal("jobs-of-monday");
   * console.log(registry.dropSignal("jobs-of-monday")); // true
   * console.log(registry.dropSignal("jobs-of-monday")); // false
   * Registry.destroy("doc-drop-signal");
   * ```
   */
  dropSignal(name: string): boolean {
    return dropSignal(name, this.#open());
  }

  /**
   * The segments and backends that come and go from now on; should a stopped process be in the
   * middle of changing the registry's tables just now: from when it has gone on, and the loop has
   * begun. What comes and goes again between two turns of the loop is not seen. A backend that dies
   * is noticed without anybody's doing. Waiting keeps the program alive; `return()` ends it at once.
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
   * table. `CORRUPT`: the table or its lock was overwritten.
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
   * its segments are detached (every view of their buffers with them), its backend is gone, and
   * its waits and requests for {@linkcode locks} end as `CLOSED`. Until then they go on, also those
   * that were begun by this object. Does nothing the second time.
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
