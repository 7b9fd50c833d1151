/**
 * A background worker in the hands of who has registered it.
 *
 * @module
 */

import { onAbort } from "../aborts.ts";
import { DsmrError } from "../errors.ts";
import { terminate } from "./lifecycle.ts";
import { isCurrent, type RowId } from "./rows.ts";
import { checkGrace, type StoredSpec, type WorkerEvent } from "./spec.ts";
import { Arrivals, isAlive, STATE, SUPERVISOR, TEMPLATE, type WorkerTable } from "./table.ts";
import { view, type WorkerState, type WorkerView } from "./view.ts";
import type { WaitOptions } from "../lock_arguments.ts";
import { encodeTimeoutOf } from "../lock_arguments.ts";
import { type AsyncWaitOptions, checkWaitOptions } from "../wait.ts";

/** How a worker has ended for good. */
export interface WorkerEnd {
  /** With which code; null: by a signal, or it has never run. */
  exitCode: number | null;
  /** Why, where there is something to say: null for one that has returned. */
  reason: string | null;
}

/** What a handle needs of those who have made it. */
export interface HandleHost {
  /** The registry's table; throws `CLOSED`. */
  table(): WorkerTable;
  /** The backend's own database. */
  readonly database: string;
  /** Aborted when this isolate has had to give up supervising; `table` throws the reason then. */
  readonly failed: AbortSignal;
  /** Whether this isolate is the one that supervises, or would be. */
  isSupervising(): boolean;
}

/**
 * A background worker that was registered. Comes from
 * {@linkcode Registry.registerBackgroundWorker}; PostgreSQL's `BackgroundWorkerHandle`.
 *
 * Of a worker for each database it says how the most advanced of them is, and the pid of the one
 * in this backend's database.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * using registry = Registry.openSync("doc-worker-handle", { supervise: true });
 * const worker = registry.registerBackgroundWorker({
 *   name: "once",
 *   module: "data:text/javascript,export default ({ ready }) => ready()",
 * });
 * console.log(await worker.waitForShutdown()); // { exitCode: 0, reason: null }
 * Registry.destroy("doc-worker-handle");
 * ```
 */
export class BackgroundWorker {
  readonly #host: HandleHost;
  readonly #id: RowId;
  readonly #grace: number;
  /** Which row of the table it is, for tests and for people. */
  readonly slot: number;

  /** The worker's name. */
  readonly name: string;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(host: HandleHost, id: RowId, spec: StoredSpec) {
    this.#host = host;
    this.#id = id;
    this.#grace = spec.grace;
    this.slot = id.slot;
    this.name = spec.name;
  }

  #view(): WorkerView {
    const table = this.#host.table();
    return table.changeSync(() => view(table, this.#id, this.#host.database));
  }

  /**
   * How it is now; of a worker whose row was given to another one since, `"stopped"`.
   *
   * @throws {DsmrError} `CLOSED`. `TIMEOUT`: a stopped process is in the middle of changing the
   * table. So do the other properties.
   */
  get state(): WorkerState {
    return this.#view().state;
  }

  /** Its process, while it runs. */
  get pid(): number | null {
    return this.#view().pid;
  }

  /** Why it has ended the last time: an error's message, a signal, an exit code. */
  get reason(): string | null {
    return this.#view().reason;
  }

  /** With which code it has ended the last time. Null: by a signal, or not yet. */
  get exitCode(): number | null {
    return this.#view().exitCode;
  }

  /** How often it has been restarted. */
  get restarts(): number {
    return this.#view().restarts;
  }

  /**
   * Waits until its function has been entered; as WaitForBackgroundWorkerStartup. Also when that
   * is long ago, and it has ended since. Keeps the program alive.
   *
   * @returns the pid that it had, or null if it has ended since.
   * @throws {DsmrError} `INIT_FAILED`: it has stopped without that; the message says why.
   * `TIMEOUT`, `CLOSED`. The signal's reason.
   */
  async waitForStartup(options?: AsyncWaitOptions): Promise<number | null> {
    return await this.#wait("start", hasStarted, options);
  }

  /**
   * As {@linkcode waitForStartup}; blocks the thread.
   *
   * @throws As {@linkcode waitForStartup}; `DEADLOCK`: this very thread supervises.
   */
  waitForStartupSync(options?: WaitOptions): number | null {
    return this.#waitSync("start", hasStarted, options);
  }

  /**
   * Waits until it has called `ready()`, as {@linkcode waitForStartup} waits for its start.
   *
   * @throws As {@linkcode waitForStartup}.
   */
  async waitForReady(options?: AsyncWaitOptions): Promise<number | null> {
    return await this.#wait("get ready", wasReady, options);
  }

  /**
   * As {@linkcode waitForReady}; blocks the thread.
   *
   * @throws As {@linkcode waitForStartupSync}.
   */
  waitForReadySync(options?: WaitOptions): number | null {
    return this.#waitSync("get ready", wasReady, options);
  }

  /**
   * Waits until it has ended for good; as WaitForBackgroundWorkerShutdown. A restart is no end.
   *
   * @throws {DsmrError} `TIMEOUT`, `CLOSED`. The signal's reason.
   */
  async waitForShutdown(options?: AsyncWaitOptions): Promise<WorkerEnd> {
    return await this.#wait("end", hasEnded, options);
  }

  /**
   * As {@linkcode waitForShutdown}; blocks the thread.
   *
   * @throws As {@linkcode waitForShutdown}; `DEADLOCK`: this very thread supervises.
   */
  waitForShutdownSync(options?: WaitOptions): WorkerEnd {
    return this.#waitSync("end", hasEnded, options);
  }

  /**
   * Tells it to end, and never to start again; as TerminateBackgroundWorker. Its `ctx.signal` is
   * aborted and it gets SIGTERM; what has not ended after the grace is killed. Does not wait:
   * {@linkcode waitForShutdown} does. Does nothing to one that has ended.
   *
   * @param options `grace`: in milliseconds. Default: as it was registered.
   * @throws {DsmrError} `CLOSED`, `TIMEOUT`. {@linkcode RangeError}: the grace.
   */
  terminate(options?: { grace?: number }): void {
    const grace = checkGrace(options?.grace, this.#grace);
    const table = this.#host.table();
    table.changeSync(() => {
      if (isCurrent(table, this.#id)) terminate(table, this.#id.slot, grace);
    });
  }

  /** The word that changes with it. */
  #place(table: WorkerTable): number {
    // Of a template, any change may be one of its workers'.
    const isOne = table.get(this.#id.slot, STATE) !== TEMPLATE;
    return table.changesOf(isOne ? this.#id.slot : undefined);
  }

  async #wait<Result>(
    what: string,
    done: (seen: WorkerView, name: string) => Result | undefined,
    options: AsyncWaitOptions | undefined,
  ): Promise<Result> {
    const { timeout = Infinity, signal } = checkWaitOptions(options);
    signal?.throwIfAborted();
    const until = performance.now() + timeout;
    for (;;) {
      const table = this.#host.table();
      const place = this.#place(table);
      const seen = table.word(place);
      const result = done(await table.change(() => this.#look(table)), this.name);
      if (result !== undefined) return result;
      const left = until - performance.now();
      if (left <= 0) throw this.#late(what, timeout);
      const { failed } = this.#host;
      await changeOrDeath(table, place, seen, { signal, failed, timeout: left }, () => false);
    }
  }

  #look(table: WorkerTable): WorkerView {
    return view(table, this.#id, this.#host.database);
  }

  #waitSync<Result>(
    what: string,
    done: (seen: WorkerView, name: string) => Result | undefined,
    options: WaitOptions | undefined,
  ): Result {
    encodeTimeoutOf(options);
    const timeout = options?.timeout ?? Infinity;
    const until = performance.now() + timeout;
    for (;;) {
      const table = this.#host.table();
      const place = this.#place(table);
      const seen = table.word(place);
      const result = done(this.#view(), this.name);
      if (result !== undefined) return result;
      if (this.#host.isSupervising()) throw this.#deadlock(what);
      const left = until - performance.now();
      if (left <= 0) throw this.#late(what, timeout);
      // For a slice: where nobody supervises, nobody tells of a death.
      table.sleepSync(place, seen, left);
    }
  }

  #late(what: string, timeout: number): DsmrError {
    const table = this.#host.table();
    const isSupervised = isAlive(table.backend, table.head(SUPERVISOR));
    return new DsmrError(
      "TIMEOUT",
      `Worker "${this.name}" did not ${what} within ${timeout} ms.` +
        (isSupervised
          ? " Give it more time, or see what it prints."
          : " Nobody supervises: open the registry with supervise: true."),
      { requested: timeout },
    );
  }

  #deadlock(what: string): DsmrError {
    return new DsmrError(
      "DEADLOCK",
      `Worker "${this.name}" cannot ${what} while this thread blocks, for it is the one that ` +
        "supervises the workers. Use the asynchronous form.",
    );
  }

  /**
   * Internal: calls back with what becomes of it. Keeps no program alive.
   *
   * @ignore
   */
  async follow(notify: (event: WorkerEvent) => void, signal: AbortSignal): Promise<void> {
    let last: WorkerView | undefined;
    for (;;) {
      const table = this.#host.table();
      const place = this.#place(table);
      const seen = table.word(place);
      const now = await table.change(() => this.#look(table), { signal });
      for (const type of eventsBetween(last, now)) notify(this.#event(type, now));
      if (now.state === "stopped") return;
      last = now;
      const { failed } = this.#host;
      await changeOrDeath(table, place, seen, { signal, failed }, () => true);
    }
  }

  #event(type: WorkerEvent["type"], now: WorkerView): WorkerEvent {
    const { database, pid, restarts } = now;
    const hasEnded = type === "restarting" || type === "stopped";
    const { reason, exitCode } = hasEnded ? now : { reason: null, exitCode: null };
    return { type, name: this.name, database, pid, reason, exitCode, restarts };
  }
}

function failed(name: string, what: string, { reason, exitCode }: WorkerView): DsmrError {
  const why = reason ?? (exitCode === null ? "it was stopped" : `exit code ${exitCode}`);
  return new DsmrError("INIT_FAILED", `Worker "${name}" has stopped before it ${what}: ${why}`);
}

// What is waited for: undefined as long as it has not come to pass. A pid of 0 never is.

function hasStarted(seen: WorkerView, name: string): number | null | undefined {
  if (seen.runs > 0) return seen.pid;
  if (seen.state === "stopped") throw failed(name, "had started", seen);
  return undefined;
}

function wasReady(seen: WorkerView, name: string): number | null | undefined {
  if (seen.readyRun > 0) return seen.pid;
  if (seen.state === "stopped") throw failed(name, "was ready", seen);
  return undefined;
}

function hasEnded({ state, exitCode, reason }: WorkerView): WorkerEnd | undefined {
  return state === "stopped" ? { exitCode, reason } : undefined;
}

/** What has happened from one look to the next; what came and went in between included. */
function eventsBetween(last: WorkerView | undefined, now: WorkerView): WorkerEvent["type"][] {
  const events: WorkerEvent["type"][] = [];
  const from = last ?? { runs: 0, readyRun: 0, ends: 0, restarts: 0, state: "not-yet-started" };
  let isOpen = from.runs > from.ends;
  for (let run = from.runs; run <= now.runs; run++) {
    if (run > from.runs) {
      if (isOpen) events.push("restarting");
      events.push("started");
      isOpen = true;
    }
    if (run === now.readyRun && now.readyRun > from.readyRun) events.push("ready");
  }
  if (now.state === "stopped") events.push("stopped");
  else if (now.restarts > from.restarts && !events.includes("restarting")) {
    // Also one that could not even start.
    events.splice(now.runs > from.runs && now.runs > now.ends ? 0 : events.length, 0, "restarting");
  }
  return events;
}

/** Waits until the word has changed, or somebody has died, whom perhaps nobody else misses. */
async function changeOrDeath(
  table: WorkerTable,
  place: number,
  seen: number,
  { timeout = Infinity, signal, failed }: {
    timeout?: number;
    signal?: AbortSignal | undefined;
    failed: AbortSignal;
  },
  isWeak: () => boolean,
): Promise<void> {
  const arrivals = new Arrivals(table.backend);
  const end = new AbortController();
  const ends = [signal, failed].filter((one) => one !== undefined);
  const forget = ends.map((one) => {
    const abort = (): void => end.abort(one.reason);
    if (one.aborted) abort();
    return onAbort(one, abort);
  });
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => {
    if (timeout !== Infinity) timer = setTimeout(resolve, Math.min(timeout, 0x7fffffff));
  });
  const options = { signal: end.signal };
  const events = [
    table.changed(place, seen, options, isWeak),
    arrivals.next(options, isWeak),
  ];
  // Those that do not come first end by the abort.
  for (const event of events) event.catch(() => {});
  try {
    await Promise.race([...events, late]);
  } finally {
    for (const stop of forget) stop();
    clearTimeout(timer);
    end.abort();
  }
}
