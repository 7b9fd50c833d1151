/**
 * Locks by name, with the semantics of the Web Locks specification, among all who have a registry
 * open: `registry.locks`.
 *
 * Requests stand in a shared table. Each task of this isolate that wants to change it queues
 * here, so that what is asked first comes first, whoever holds the table up.
 *
 * The hardest race is an abort at the very moment of the grant, which another process makes. The
 * answer: whether the callback runs is decided here, in one turn. An abort before it takes the
 * request out of the table, whatever has become of it there; after it an abort has no effect.
 *
 * @module
 */

import { onAbort } from "./aborts.ts";
import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { check, native, nothing } from "./ffi/native.ts";
import type { LockMode } from "./lock_arguments.ts";
import { impatiently, reconsider, wait } from "./wait.ts";
import {
  checkArguments,
  nameFromTable,
  nameInTable,
  type WebLock,
  type WebLockOptions,
} from "./web_locks_arguments.ts";
import { closed, full, Request, stolen } from "./web_locks_request.ts";
import { type EncodedName, encodeLockName, type Manner, RequestTable } from "./web_locks_table.ts";

/** A request, as {@linkcode WebLocks.query} sees it. */
export interface WebLockInfo {
  /** The lock's name. */
  name: string;
  /** How it is held, or to be held. */
  mode: LockMode;
  /** Whose it is: the {@linkcode Registry.backendId}, as a string. */
  clientId: string;
  /** Only of locks of the caller's own database. Those of other databases are left out. */
  scope?: "database";
}

/** What {@linkcode WebLocks.query} returns. */
export interface WebLocksSnapshot {
  /** The locks that are held. */
  held: WebLockInfo[];
  /** The requests that wait. */
  pending: WebLockInfo[];
}

/** Many changes at once, but not so many that others wait long. */
const BATCH = 64;
/** Before something is tried again that no event announces. */
const PAUSE_MS = 20;

/** A change of the table. False: there is no room for it yet. */
interface Change {
  run(table: RequestTable): boolean;
  fail(cause: unknown): void;
  /** It ends a request: that must come to pass. */
  readonly isLast: boolean;
}

/**
 * Locks by name, among all processes, runtimes and Workers that have the registry open: what
 * `navigator.locks` is in one program, with the semantics of the Web Locks specification. Comes
 * from {@linkcode Registry.locks}.
 *
 * A lock comes with the request for it and goes with its last holder, and there may be any number
 * of names. When a process dies, or a Worker is terminated, or a registry is closed, its locks
 * are free, and its requests gone.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * using registry = Registry.openSync("doc-web-locks-class");
 * await registry.locks.request("report of May", async (lock) => {
 *   console.log("nobody else writes the", lock?.name);
 *   await Promise.resolve();
 * });
 * Registry.destroy("doc-web-locks-class");
 * ```
 */
export class WebLocks {
  readonly #backend: Backend;
  #table: RequestTable | undefined;
  /** Those in the table. */
  readonly #requests = new Map<number, Request>();
  #queuedCount = 0;
  #changes: Change[] = [];
  #isChanging = false;
  #isListening = false;
  #isWatching = false;
  readonly #end = new AbortController();

  /**
   * Internal: comes from the registry.
   *
   * @ignore
   */
  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /**
   * Waits for the lock `name`, runs `callback` with it, and lets go when the promise that it
   * returns has settled. Requests for one name are granted in the order in which they were made.
   * As `navigator.locks.request`. Waiting keeps the program alive.
   *
   * @param name Anything up to 255 characters (UTF-16 code units) that does not begin with "-";
   * up to 243 with `scope: "database"`.
   * @param callback Gets the lock; or null, with `ifAvailable`, when it is not to be had.
   * @returns what the callback returns, awaited. Nothing is thrown but by rejection.
   *
   * @throws what the callback throws; the signal's reason.
   * @throws {DOMException} `AbortError`: somebody has stolen the lock. `NotSupportedError`: the
   * name begins with "-", or the options contradict each other.
   * @throws {TypeError} An argument of the wrong type.
   * @throws {DsmrError} `NAME_TOO_LONG`. `CLOSED`: the registry was closed or destroyed; also
   * while the lock was waited for or held. Where one thread has opened a registry and database
   * several times, that is when the last `Registry` object of them is closed, whichever of them the
   * request was made by: they are one client. `NO_SPACE`: there are a million requests, or no
   * memory, or this backend holds 128 locks of segments. `REGISTRY_FULL`: no place for the table in
   * the registry. `CORRUPT`: the table was overwritten; who holds a lock may have lost it.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-web-locks-request");
   * const isOurs = await registry.locks.request("migration", { ifAvailable: true }, (lock) => {
   *   return lock !== null; // null: another process is at it
   * });
   * console.log(isOurs); // true
   * Registry.destroy("doc-web-locks-request");
   * ```
   */
  request<Result>(
    name: string,
    callback: (lock: WebLock | null) => Result,
  ): Promise<Awaited<Result>>;
  /** The same, with options. */
  request<Result>(
    name: string,
    options: WebLockOptions,
    callback: (lock: WebLock | null) => Result,
  ): Promise<Awaited<Result>>;
  async request<Result>(
    ...args: [string, unknown, unknown?]
  ): Promise<Awaited<Result>> {
    const { name, mode, manner, scope, signal, callback } = checkArguments<Result>(args);
    signal?.throwIfAborted();
    if (scope === "database") this.#backend.checkDatabase();
    const request = new Request(Object.freeze({ name, mode }));
    const encoded = encodeLockName(nameInTable(name, scope, this.#backend.databaseId));
    this.#change((table) => this.#enter(table, request, encoded, manner))
      .catch((cause) => request.granted.reject(cause));
    const stopListening = signal && onAbort(signal, () => {
      request.end(signal.reason);
      // A registry that is closed has let go of it already.
      this.#change((table) => this.#leave(table, request), true).catch(() => {});
    });
    let lock: WebLock | null;
    try {
      lock = await request.granted.promise;
      // Between the grant and this turn.
      request.throwIfOver();
    } finally {
      stopListening?.();
    }
    if (lock === null) return await callback(null);
    try {
      return await Promise.race([run(callback, lock), request.lost.promise]);
    } finally {
      await this.#release(request);
    }
  }

  /**
   * Who holds and who waits for what, in the whole registry: a snapshot, in the order in which
   * the requests were made. As `navigator.locks.query`.
   *
   * @throws {DsmrError} `CLOSED`, `NO_SPACE`, `REGISTRY_FULL`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-web-locks-query");
   * await registry.locks.request("a", async () => {
   *   const { held } = await registry.locks.query();
   *   console.log(held[0]?.clientId === String(registry.backendId)); // true
   * });
   * Registry.destroy("doc-web-locks-query");
   * ```
   */
  async query(): Promise<WebLocksSnapshot> {
    const snapshot: WebLocksSnapshot = { held: [], pending: [] };
    await this.#change((table) => {
      for (const { name: inTable, mode, owner, isHeld } of table.list()) {
        const { name, databaseId } = nameFromTable(inTable);
        if (databaseId !== 0 && databaseId !== this.#backend.databaseId) continue;
        const info: WebLockInfo = { name, mode, clientId: String(owner) };
        if (databaseId !== 0) info.scope = "database";
        (isHeld ? snapshot.held : snapshot.pending).push(info);
      }
      return true;
    });
    return snapshot;
  }

  /**
   * Internal: the registry is being closed.
   *
   * From the first line on no request enters the table: what is queued here to change it does
   * nothing any more, though letting go of the table's lock may run it. So all that there are to
   * be told are those of now, and nobody else ever tells them anything.
   *
   * @ignore
   */
  close(): void {
    this.#end.abort();
    const requests = [...this.#requests];
    for (const [, request] of requests) {
      // Before the table is touched: what one lets go of must be granted to none of them.
      this.#forget(request);
      request.end(closed());
      request.lost.reject(closed());
    }
    for (const change of this.#changes.splice(0)) change.fail(closed());
    try {
      // At once, if it is to be had at once; else those who wait notice that we have left.
      const table = this.#table;
      table?.tryChange(() => {
        for (const [row] of requests) table.leave(row);
      });
    } catch {
      // The registry was destroyed, or is damaged: nobody waits any more.
    }
  }

  // ---- the table ------------------------------------------------------------------------

  /** Changes the table, after all changes that were asked for before. */
  #change(run: (table: RequestTable) => boolean, isLast = false): Promise<void> {
    return new Promise((resolve, fail) => {
      if (this.#end.signal.aborted) throw closed();
      this.#changes.push({
        run: (table) => {
          try {
            if (!run(table)) return false;
            resolve();
          } catch (cause) {
            fail(cause);
          }
          return true;
        },
        fail,
        isLast,
      });
      void this.#work();
    });
  }

  async #work(): Promise<void> {
    if (this.#isChanging) return;
    this.#isChanging = true;
    try {
      while (this.#changes.length > 0) {
        if (native().calls.dsmr_registry_is_usable(this.#backend.handle) !== 1) throw closed();
        let table = this.#table;
        if (table?.isUsable !== true) table = this.#table = await this.#open();
        const opened = table;
        let isFull = false;
        const change = (): void => {
          isFull = this.#workAt(opened);
        };
        // In this turn, if possible: then what is asked first comes first also among clients.
        if (!table.tryChange(change)) await table.change(change);
        if (this.#requests.size > 0) this.#listen(table);
        if (isFull) await this.#grow(table);
      }
    } catch (cause) {
      this.#failChanges(cause);
    } finally {
      this.#isChanging = false;
    }
  }

  /** Makes room for the first change, or tells it why there is none. */
  async #grow(table: RequestTable): Promise<void> {
    const [first] = this.#changes;
    const why = await table.grow().then(
      (isGrown) => isGrown ? undefined : full(),
      (error) => error,
    );
    if (why === undefined || this.#changes[0] !== first) return;
    this.#changes.shift();
    first?.fail(why);
  }

  /** The table is not to be had. */
  #failChanges(cause: unknown): void {
    const isClosed = this.#end.signal.aborted;
    // Too many other locks are held here, or there is no memory: that passes.
    const passes = !isClosed && cause instanceof DsmrError && cause.code === "NO_SPACE";
    for (const change of this.#changes.splice(0)) {
      if (passes && change.isLast) this.#changes.push(change);
      else change.fail(isClosed ? closed() : cause);
    }
    if (this.#changes.length > 0) setTimeout(() => void this.#work(), PAUSE_MS);
  }

  /** True: there is no room for the next change. */
  #workAt(table: RequestTable): boolean {
    for (let i = 0; i < BATCH; i++) {
      const change = this.#changes.shift();
      if (change === undefined) break;
      if (change.run(table)) continue;
      this.#changes.unshift(change);
      return true;
    }
    return false;
  }

  #open(): Promise<RequestTable> {
    return RequestTable.open(this.#backend, {
      granted: (row) => this.#granted(row),
      stolen: (row) => this.#stolen(row),
    });
  }

  // ---- requests, with the table's lock held -----------------------------------------------

  #enter(
    table: RequestTable,
    request: Request,
    name: EncodedName,
    manner: Manner,
  ): boolean {
    if (request.isOver) return true;
    const entered = table.enter(name, request.lock.mode, manner);
    if (entered.outcome === "full") return false;
    if (entered.outcome === "refused") {
      request.granted.resolve(null);
      return true;
    }
    const double = this.#requests.get(entered.row);
    if (double !== undefined) {
      // The row has been given out twice: neither has it to itself.
      this.#forget(double);
      double.granted.reject(table.damaged());
      double.lost.reject(table.damaged());
      throw table.damaged();
    }
    request.row = entered.row;
    this.#requests.set(entered.row, request);
    if (entered.outcome === "held") request.granted.resolve(request.lock);
    else this.#setQueued(request, true);
    return true;
  }

  #setQueued(request: Request, isQueued: boolean): void {
    if (request.isQueued === isQueued) return;
    request.isQueued = isQueued;
    this.#queuedCount += isQueued ? 1 : -1;
    if (this.#queuedCount > 1) return;
    reconsider();
    if (this.#queuedCount === 1) void this.#watchDeaths();
  }

  #granted(row: number): void {
    const request = this.#requests.get(row);
    if (request === undefined) return;
    this.#setQueued(request, false);
    request.granted.resolve(request.lock);
  }

  #stolen(row: number): void {
    const request = this.#requests.get(row);
    if (request === undefined) return;
    // It was held; that the callback learns it first is what the specification says.
    this.#granted(row);
    this.#forget(request);
    request.lost.reject(stolen(request.lock.name));
  }

  #forget(request: Request): void {
    if (request.row === undefined) return;
    this.#requests.delete(request.row);
    request.row = undefined;
    this.#setQueued(request, false);
  }

  #leave(table: RequestTable, request: Request): boolean {
    const { row } = request;
    if (row === undefined) return true;
    this.#forget(request);
    if (!table.leave(row)) request.lost.reject(stolen(request.lock.name));
    return true;
  }

  /** Lets go, if it is still held; throws why it is not. */
  async #release(request: Request): Promise<void> {
    if (request.row !== undefined) await this.#change((table) => this.#leave(table, request), true);
    await Promise.race([request.lost.promise, undefined]);
  }

  // ---- what others do ---------------------------------------------------------------------

  /** Hears of grants and thefts; from the first request on, until the registry is closed. */
  #listen(table: RequestTable): void {
    if (this.#isListening) return;
    this.#isListening = true;
    this.#end.signal.addEventListener("abort", () => table.unlisten());
    void table.listen(
      () => this.#isListening,
      (cause) => {
        this.#isListening = false;
        this.#fail(cause);
      },
      () => this.#queuedCount === 0,
    );
  }

  /** While requests of this isolate wait: lets nobody wait for the dead. */
  async #watchDeaths(): Promise<void> {
    if (this.#isWatching) return;
    this.#isWatching = true;
    // Nothing that the library counts: there may be dead already, so the first look is at once.
    const seen = new Uint32Array([0xffffffff]);
    const bytes = new Uint8Array(seen.buffer);
    const { calls, error } = native();
    const { handle } = this.#backend;
    try {
      while (this.#queuedCount > 0) {
        const [before] = seen;
        await wait({
          attempt: () => check(calls.dsmr_registry_watch(handle, bytes, error.bytes)),
          late: () => undefined,
          isWeak: () => this.#queuedCount === 0,
        }, { signal: this.#end.signal });
        // Nothing has come or gone: somebody is dead, and stays so until somebody clears up.
        const clear = () => calls.dsmr_backends(handle, nothing, 0, error.bytes);
        if (seen[0] === before && impatiently(handle, clear) < 0) {
          await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        }
        if (this.#queuedCount === 0) break;
        await this.#change((table) => {
          table.sweep();
          return true;
        });
      }
    } catch (cause) {
      this.#fail(cause);
    } finally {
      this.#isWatching = false;
    }
  }

  /** Nothing is heard of grants and thefts any more: the registry is gone, or memory is. */
  #fail(cause: unknown): void {
    // All have been told.
    if (this.#end.signal.aborted) return;
    const requests = [...this.#requests.values()];
    for (const request of requests) {
      request.granted.reject(cause);
      request.lost.reject(cause);
    }
    // After that: what one lets go of must be granted to none of them.
    for (const request of requests) {
      this.#change((table) => this.#leave(table, request), true).catch(() => this.#forget(request));
    }
  }
}

/** Runs it at once; what it throws is a rejection, too. */
async function run<Result>(
  callback: (lock: WebLock) => Result,
  lock: WebLock,
): Promise<Awaited<Result>> {
  return await callback(lock);
}
