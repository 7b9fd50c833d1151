/**
 * Background workers of a backend's registry: registered, listed, supervised.
 *
 * @module
 */

import type { Backend } from "../backend.ts";
import { DsmrError } from "../errors.ts";
import { check, messageOf, native } from "../ffi/native.ts";
import { BackgroundWorker, type HandleHost } from "./handle.ts";
import { listBackends } from "../listing.ts";
import { drop } from "./lifecycle.ts";
import { discard, isLeftOver, parentOf, register, type RowId, tableFull } from "./rows.ts";
import { encodeSpec, type WorkerSpec } from "./spec.ts";
import type { RegistryPlace, Supervisor } from "./supervisor.ts";
import {
  DATABASE_ID,
  electionOf,
  FREE,
  GENERATION,
  isAlive,
  ROWS_MAX,
  STATE,
  STATIC,
  SUPERVISOR,
  TEMPLATE,
  WorkerTable,
} from "./table.ts";
import { listWorkers, type WorkerInfo } from "./view.ts";

/** What a backend has to do with background workers. */
class Workers implements HandleHost {
  readonly #backend: Backend;
  readonly #end = new AbortController();
  #table: WorkerTable | undefined;
  #supervisor: Supervisor | undefined;
  #isWilling = false;
  readonly #failed = new AbortController();
  readonly database: string;

  constructor(backend: Backend) {
    this.#backend = backend;
    this.database = describe(backend).database;
    backend.atRelease(() => this.#close());
  }

  /** Aborted, with the reason, when this isolate has had to give up supervising. */
  get failed(): AbortSignal {
    return this.#failed.signal;
  }

  table(): WorkerTable {
    if (this.#end.signal.aborted) {
      throw new DsmrError("CLOSED", "The worker's registry was closed. Open it again.");
    }
    // Throws if the registry was destroyed: what is mapped then is nobody's word any more.
    describe(this.#backend);
    this.failed.throwIfAborted();
    if (this.#table?.isUsable !== true) this.#table = WorkerTable.open(this.#backend);
    return this.#table;
  }

  isSupervising(): boolean {
    if (!this.#isWilling) return false;
    if (this.#supervisor?.isElected === true) return true;
    // Nobody else does, and we cannot while we block.
    const table = this.table();
    return !isAlive(this.#backend, table.head(SUPERVISOR));
  }

  supervise(place: RegistryPlace): void {
    if (this.#isWilling) return;
    // Here, so that the call that opens the registry is told if there is no room.
    const table = this.table();
    electionOf(this.#backend);
    this.#isWilling = true;
    void this.#begin(table, place);
  }

  async #begin(table: WorkerTable, place: RegistryPlace): Promise<void> {
    try {
      // Only now: most programs that open a registry do not supervise.
      const { Supervisor } = await import("./supervisor.ts");
      if (this.#end.signal.aborted) return;
      this.#supervisor = new Supervisor(table, place, (cause) => this.#giveUp(cause, place));
    } catch (cause) {
      this.#giveUp(cause, place);
    }
  }

  /**
   * The supervisor cannot go on. That is no reason to end its program, which perhaps does something
   * quite different: from here on every call that has to do with workers throws the error.
   */
  #giveUp(cause: unknown, { name }: RegistryPlace): void {
    this.#supervisor = undefined;
    this.#isWilling = false;
    this.#failed.abort(cause);
    say(`no more background workers of registry "${name}" are supervised by this program`, cause);
  }

  register(spec: WorkerSpec, addin: string | null): BackgroundWorker {
    const { stored, bytes } = encodeSpec(spec, addin);
    const table = this.table();
    const since = addin === null ? 0 : this.#attachedSince();
    const id = table.changeSync(() => {
      const known = addin === null ? undefined : findStatic(table, addin, stored.name);
      if (known !== undefined) {
        if (!isLeftOver(table, known.slot, since)) return known;
        discard(table, known.slot);
      }
      const isTemplate = stored.scope === "database";
      const id = register(table, { spec: bytes, isTemplate, isStatic: addin !== null });
      if (id === undefined) throw tableFull();
      return id;
    });
    const worker = new BackgroundWorker(this, id, stored);
    const { notify } = spec;
    if (typeof notify === "function") void this.#notify(worker, notify);
    return worker;
  }

  /** When the first of those attached who live now. */
  #attachedSince(): number {
    const backends = listBackends(this.#backend.handle);
    return Math.min(...backends.map(({ attachedAt }) => attachedAt.getTime()));
  }

  async #notify(
    worker: BackgroundWorker,
    notify: NonNullable<WorkerSpec["notify"]>,
  ): Promise<void> {
    try {
      await worker.follow((event) => {
        // What it throws is its own: reported as any event listener's error is.
        queueMicrotask(() => notify(event));
      }, this.#end.signal);
    } catch (error) {
      if (this.#end.signal.aborted) return;
      // Destroyed: there is nothing to tell any more.
      if (error instanceof DsmrError && ["CLOSED", "DETACHED"].includes(error.code)) return;
      say(`notify of background worker "${worker.name}" hears of nothing more`, error);
    }
  }

  /** The table, if there is one; throws `CLOSED`, as `table` does. */
  #found(): WorkerTable | undefined {
    describe(this.#backend);
    this.failed.throwIfAborted();
    return WorkerTable.find(this.#backend);
  }

  list(): WorkerInfo[] {
    const table = this.#found();
    return table === undefined ? [] : table.changeSync(() => listWorkers(table));
  }

  dropDatabase(drop: () => number | undefined): boolean {
    let isAsked = false;
    let dropped: number | undefined;
    const ask = (): void => {
      isAsked = true;
      dropped = drop();
    };
    try {
      const table = this.#found();
      if (table === undefined) ask();
      else {
        table.changeSync(() => {
          ask();
          if (dropped !== undefined) this.#endDatabase(table, dropped);
        });
      }
    } catch (error) {
      // The workers' table is overwritten: the database goes all the same, and then that is said.
      const isDamaged = error instanceof DsmrError && error.code === "CORRUPT";
      if (!isAsked && (isDamaged || this.failed.aborted)) ask();
      throw error;
    }
    return dropped !== undefined;
  }

  terminateDatabase(databaseId: number): void {
    const table = this.#found();
    table?.changeSync(() => this.#endDatabase(table, databaseId));
  }

  #endDatabase(table: WorkerTable, databaseId: number): void {
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      if (table.get(slot, STATE) === FREE || table.get(slot, STATE) === TEMPLATE) continue;
      if (table.get(slot, DATABASE_ID) !== databaseId) continue;
      if (parentOf(table, slot) === undefined) continue;
      drop(table, slot, table.spec(slot)?.grace ?? 0);
    }
  }

  #close(): void {
    this.#end.abort();
    this.#supervisor?.end();
  }
}

/** Tells people of a trouble that no call can throw. One line. */
function say(what: string, cause: unknown): void {
  console.error(`dsmr: ${what}: ${messageOf(cause).replaceAll(/\s+/g, " ")}`);
}

const all = new WeakMap<Backend, Workers>();

function workersOf(backend: Backend): Workers {
  let workers = all.get(backend);
  if (workers === undefined) all.set(backend, workers = new Workers(backend));
  return workers;
}

function findStatic(table: WorkerTable, addin: string, name: string): RowId | undefined {
  for (let slot = 0; slot < ROWS_MAX; slot++) {
    if (table.get(slot, STATE) === FREE || !table.has(slot, STATIC)) continue;
    const spec = table.spec(slot);
    if (spec?.addin !== addin || spec.name !== name) continue;
    return { slot, generation: table.get(slot, GENERATION) };
  }
  return undefined;
}

function describe(backend: Backend): { id: number; database: string } {
  const { calls, error, record } = native();
  const info = record("dsmr_registry_info");
  check(calls.dsmr_registry_describe(backend.handle, info.bytes, error.bytes));
  return {
    id: info.u32("database_id"),
    database: info.text("database", info.u32("database_length")),
  };
}

/** The id of the database that a backend is in. */
export function databaseIdOf(backend: Backend): number {
  return describe(backend).id;
}

/** Registers a worker; each call makes one more. */
export function registerDynamic(backend: Backend, spec: WorkerSpec): BackgroundWorker {
  return workersOf(backend).register(spec, null);
}

/**
 * Registers a worker of an add-in, unless some backend has done so already: the add-in's name and
 * the worker's say which it is. One that has stopped stays stopped as long as somebody is attached
 * who was then; after that the server starts anew, and its workers with it.
 */
export function registerStatic(
  backend: Backend,
  addin: string,
  spec: WorkerSpec,
): BackgroundWorker {
  return workersOf(backend).register(spec, addin);
}

/** The workers of a registry. */
export function workersIn(backend: Backend): WorkerInfo[] {
  return workersOf(backend).list();
}

/** Makes a backend willing to supervise, until it is released. */
export function supervise(backend: Backend, place: RegistryPlace): void {
  workersOf(backend).supervise(place);
}

/** The id of the backend that supervises; undefined if nobody does. */
export function supervisorOf(backend: Backend): number | undefined {
  const id = WorkerTable.find(backend)?.head(SUPERVISOR) ?? 0;
  return isAlive(backend, id) ? id >>> 0 : undefined;
}

/**
 * Drops a database, and tells its workers to end for good. `drop` does the former, and returns the
 * database's id, or undefined if there is none of the name. It does so with the lock of the workers'
 * table held, under which a worker that is being started opens its database: either it has opened
 * the one that is dropped, or it sees that there is none, and does not make it anew.
 *
 * Killed after the drop, with the lock: the supervisor sees workers whose database is gone.
 */
export function dropWithWorkers(backend: Backend, drop: () => number | undefined): boolean {
  return workersOf(backend).dropDatabase(drop);
}

/** Tells the workers of a database that was dropped to end, for good. */
export function terminateDatabase(backend: Backend, databaseId: number): void {
  workersOf(backend).terminateDatabase(databaseId);
}
