/**
 * What a worker's process or thread does: it opens the registry, claims its row, loads the module,
 * calls the function, writes down how that went, and ends.
 *
 * Nothing of the user's runs before the claim: why a worker never runs twice is told in
 * lifecycle.ts. The backend that claims is kept in use here, so that user code that closes its
 * registry does not make the worker look dead while it runs.
 *
 * @module
 */

import process from "node:process";
import { Backend } from "../backend.ts";
import { DsmrError } from "../errors.ts";
import { describe, messageOf, quote, textOf } from "../ffi/native.ts";
import { Registry } from "../registry.ts";
import type { WorkerContext } from "./context.ts";
import { BROKEN_CODE, uncaught } from "./ends.ts";
import {
  type Attempt,
  claim,
  isCondemned,
  isOwn,
  isWanted,
  markOutcome,
  markReady,
  markStarted,
  restartsOf,
} from "./lifecycle.ts";
import { NO_EXIT_CODE } from "./rows.ts";
import type { Orders } from "./member.ts";
import type { StoredSpec } from "./spec.ts";
import {
  BROKE,
  DATABASE_ID,
  EXITED,
  GRACE,
  KILL_AT,
  OVERDUE,
  PAUSE,
  RETURNED,
  SIGNALLED,
  TERMINATE,
  THREW,
  WorkerTable,
} from "./table.ts";
import { TABLE_PATIENCE_MS } from "../wait.ts";

/** How long to wait for a process that is stopped in the middle of changing a table. */
const PATIENCE_MS = 10_000;

/** How a worker has ended, or must. */
interface Outcome {
  outcome: number;
  code: number;
  reason: string;
}

/** What it has thrown, in its own words; of what is no error and no text, that it was thrown. */
function reasonOf(cause: unknown): string {
  const isText = cause instanceof Error || typeof cause === "string";
  return isText ? textOf(cause) : `threw ${textOf(cause)}`;
}

/**
 * Imports the user's module. By a module that nobody could mistake for something to rewrite: JSR
 * warns of an import() here whose argument it cannot know, because it might be one that an import
 * map changes. It is an absolute URL, so it never is.
 */
async function load(module: string): Promise<Record<string, unknown>> {
  // @ts-ignore: Deno looks into such a module for its types, tsc does not.
  const { default: load } = await import("data:text/javascript,export default (u)=>import(u)");
  return await load(module);
}

/** A registry entered for a worker: the backend that is to claim the row, and for the user's code. */
interface Place {
  table: WorkerTable;
  /** Of the same backend. Opened anew when the code is to run, it could be another database. */
  registry: Registry;
}

/** The registry in the worker's database; undefined: it was destroyed meanwhile. */
function attach(
  { dir, name, database, instance }: Orders,
  mode: "attach" | "look",
  timeout_ms: number,
): Backend | undefined {
  try {
    const options = { mode, maxBackends: 0, maxSegments: 0, timeout_ms };
    const backend = Backend.open(dir, name, database, options);
    if (String(backend.instance) === instance) return backend;
    backend.release();
    return undefined;
  } catch (error) {
    if (error instanceof DsmrError && error.code === "NOT_FOUND") return undefined;
    throw error;
  }
}

/**
 * Enters the registry in the worker's database; undefined if the worker is not wanted any more.
 *
 * The database may have been dropped since the worker was started, and another one of its name may
 * be there. So who comes for a worker of a database opens it in mode "look", which makes none, and
 * compares its number, which is never given twice. What is dropped from there on is dropped for this
 * backend: its code gets `CLOSED`, and makes nothing anew. The database of a global worker is made,
 * as by any program, but not before the row is found to want the worker.
 */
function enter(orders: Orders): Place | undefined {
  const { dir, name, database } = orders;
  const onlooker = attach(orders, "look", PATIENCE_MS);
  if (onlooker === undefined) return undefined;
  try {
    const seen = WorkerTable.find(onlooker);
    if (seen === undefined) return undefined;
    const until = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return seen.changeSync(() => {
          if (!isWanted(seen, orders)) return undefined;
          const id = seen.get(orders.slot, DATABASE_ID);
          const mode = id === 0 ? "attach" : "look";
          const backend = attach(orders, mode, TABLE_PATIENCE_MS);
          const table = backend && WorkerTable.find(backend);
          if (table === undefined) return undefined;
          if (id !== 0 && id !== table.backend.databaseId) return undefined;
          const registry = Registry.openSync(name, {
            ...{ dir, database, mode, timeout: TABLE_PATIENCE_MS },
          });
          return registry.backendId === table.backend.id ? { table, registry } : undefined;
        });
      } catch (error) {
        // A stopped process is in the registry's tables: let the others at the workers' meanwhile.
        const isLate = error instanceof DsmrError && error.code === "TIMEOUT";
        if (!isLate || performance.now() >= until) throw error;
      }
    }
  } finally {
    // Else it would be taken for somebody's who has come: a worker may be waiting for that.
    onlooker.release();
  }
}

class Run {
  readonly #orders: Orders;
  readonly #attempt: Attempt;
  readonly #table: WorkerTable;
  readonly #registry: Registry;
  readonly #spec: StoredSpec;
  readonly #stop = new AbortController();
  /** The signal of the system by which it was told to end. */
  #signal: string | undefined;
  #hasReturned = false;
  readonly #isThread: boolean;
  #hasSaid = false;
  #isCondemned = false;

  private constructor(
    orders: Orders,
    { table, registry }: Place,
    spec: StoredSpec,
    isThread: boolean,
  ) {
    this.#isThread = isThread;
    const { slot, generation, attempt } = orders;
    this.#orders = orders;
    this.#attempt = { slot, generation, attempt };
    this.#table = table;
    this.#registry = registry;
    this.#spec = spec;
  }

  /** Claims the row; undefined if this attempt is not wanted any more. */
  static claim(orders: Orders, isThread: boolean): Run | undefined {
    const place = enter(orders);
    if (place === undefined) return undefined;
    const { table } = place;
    return table.changeSync(() => {
      const spec = table.spec(orders.slot);
      if (spec === undefined) return undefined;
      return claim(table, orders, process.pid) ? new Run(orders, place, spec, isThread) : undefined;
    });
  }

  /** Until the worker has ended. */
  async run(): Promise<Outcome> {
    process.on("exit", (code) => {
      if (this.#hasReturned) return;
      const outcome = this.#signal === undefined ? EXITED : SIGNALLED;
      // As the system does: a parent is told the lowest eight bits. Runtimes differ here, and in
      // threads nobody does that.
      this.#note({ outcome, code: code & 0xff, reason: this.#endedBy() });
    });
    const broke = (cause: unknown): void => {
      console.error(cause);
      this.#note({
        outcome: BROKE,
        code: BROKEN_CODE,
        reason: uncaught(reasonOf(cause)),
      });
      this.exit(BROKEN_CODE);
    };
    process.on("uncaughtException", broke);
    process.on("unhandledRejection", broke);
    if (!this.#isThread) {
      for (const name of ["SIGTERM", "SIGINT"] as const) {
        process.on(name, () => {
          this.#signal ??= name;
          this.#abort(`The worker is to end: ${name}.`);
        });
      }
    }
    // Keeps the program alive, too, should the function wait for nothing but its signal.
    void this.#listen();
    const outcome = await this.#call();
    this.#note(outcome);
    this.#hasReturned = true;
    return outcome;
  }

  #endedBy(): string {
    return this.#signal === undefined ? "" : `ended by ${this.#signal}`;
  }

  async #call(): Promise<Outcome> {
    const { module, function: name } = this.#spec;
    try {
      const exported = await load(module);
      const main = exported[name];
      if (typeof main !== "function") {
        if (name in exported) {
          const what = describe(main);
          throw new TypeError(
            `${quote(module)} exports ${quote(name)}, but that is ${what}, not a function`,
          );
        }
        const names = Object.keys(exported).map(quote).join(", ") || "nothing";
        throw new TypeError(`${quote(module)} exports no function ${quote(name)}, but ${names}`);
      }
      const context = this.#context();
      this.#table.changeSync(() => markStarted(this.#table, this.#attempt));
      await main(context);
    } catch (cause) {
      // Destroyed: whatever it throws is no news, and there is nobody to tell.
      if (this.#stop.signal.aborted && cause === this.#stop.signal.reason) return this.#returned();
      console.error(cause);
      return { outcome: THREW, code: 1, reason: reasonOf(cause) };
    }
    return this.#returned();
  }

  #returned(): Outcome {
    const isOrdered = this.#signal === undefined;
    return {
      outcome: isOrdered ? RETURNED : SIGNALLED,
      code: isOrdered ? 0 : 1,
      reason: this.#endedBy(),
    };
  }

  #context(): WorkerContext {
    const { database } = this.#orders;
    const table = this.#table;
    return Object.freeze({
      registry: this.#registry,
      arg: this.#spec.arg,
      name: this.#spec.name,
      type: this.#spec.type,
      database: this.#spec.scope === "database" ? database : null,
      restarts: restartsOf(table, this.#attempt.slot),
      signal: this.#stop.signal,
      ready: () => table.changeSync(() => markReady(table, this.#attempt)),
    });
  }

  /** Writes down how it has ended; the first word counts. */
  #note({ outcome, code, reason }: Outcome): void {
    const table = this.#table;
    try {
      table.changeSync(() => {
        if (!this.#hasSaid && isCondemned(table, this.#attempt)) {
          this.#isCondemned = true;
          return;
        }
        this.#hasSaid = true;
        // Told by the supervisor's signal and its flag: that is no signal of somebody else.
        const isOrdered = table.has(this.#attempt.slot, TERMINATE | PAUSE);
        const isPlain = outcome === SIGNALLED && isOrdered;
        markOutcome(table, this.#attempt, isPlain ? RETURNED : outcome, code, reason);
      });
    } catch (error) {
      // Destroyed; or a stopped process has the table: then it looks like a crash, as it would if
      // this process were killed now.
      if (!(error instanceof DsmrError)) throw error;
    }
  }

  #abort(reason: string): void {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort(new DOMException(reason, "AbortError"));
    const { slot } = this.#attempt;
    const table = this.#table;
    const killAt = table.isUsable ? table.time(slot, KILL_AT) : 0;
    const most = killAt === 0 ? this.#spec.grace : table.get(slot, GRACE);
    const grace = killAt === 0 ? most : Math.min(killAt - Date.now(), most);
    // Here, too: perhaps nobody supervises. And of a registry that is gone nobody knows.
    setTimeout(() => this.#kill(), Math.max(grace, 0));
  }

  /** The grace is over. */
  #kill(): void {
    if (this.#table.isUsable) {
      // Reads as the supervisor's SIGKILL does, whichever of the two comes first.
      if (this.#table.has(this.#attempt.slot, TERMINATE)) {
        this.#note({ outcome: OVERDUE, code: NO_EXIT_CODE, reason: "" });
      } else if (this.#isThread) {
        this.#note({ outcome: EXITED, code: BROKEN_CODE, reason: this.#endedBy() });
      }
    }
    this.exit(BROKEN_CODE);
  }

  /** Ends the process or thread; but not a thread that is about to be terminated: see `condemn`. */
  exit(code: number): void {
    if (!this.#isThread || !this.#isCondemned) process.exit(code);
  }

  /** Hears from the row that it is to end. */
  async #listen(): Promise<void> {
    const table = this.#table;
    const { slot } = this.#attempt;
    const place = table.changesOf(slot);
    try {
      for (;;) {
        const seen = table.word(place);
        if (table.has(slot, TERMINATE)) this.#abort("The worker is terminated.");
        if (table.has(slot, PAUSE)) this.#abort("The worker's supervisor has gone.");
        // Nobody does that to a worker that lives; unless the row was overwritten.
        if (!isOwn(table, this.#attempt)) this.#abort("The worker has lost its row.");
        await table.changed(place, seen, {}, () => this.#hasReturned);
      }
    } catch (cause) {
      if (!(cause instanceof DsmrError)) throw cause;
      this.#abort(`The worker's registry is gone: ${cause.message}`);
    }
  }
}

/**
 * Claims the row. If that cannot be done, the registry being damaged or a stopped process having
 * the table, says so in one line, and ends the process or thread with code 70. Its parent is told
 * that, as far as it can write it down.
 */
function claimOrExit(orders: Orders, isThread: boolean): Run | undefined {
  try {
    return Run.claim(orders, isThread);
  } catch (error) {
    if (!(error instanceof DsmrError)) throw error;
    // Destroyed meanwhile, as in `attach`.
    if (error.code === "CLOSED") return undefined;
    const { worker, name, dir } = orders;
    console.error(
      `dsmr: background worker ${quote(worker)} cannot claim its row in registry ${quote(name)} ` +
        `in ${dir}, and ends with code ${BROKEN_CODE}: ` +
        messageOf(error).replaceAll(/\s+/g, " "),
    );
    process.exit(BROKEN_CODE);
  }
}

/** Runs the worker that the orders name, and ends the process or thread. */
export async function runWorker(orders: Orders, isThread: boolean): Promise<void> {
  const run = claimOrExit(orders, isThread);
  if (run === undefined) process.exit(0);
  const { code } = await run.run();
  run.exit(code);
}
