/**
 * A registry whose background workers are played by the test: the supervisor's rounds are the
 * library's, but what they start is no process. It is a backend of this process that claims the
 * row, and runs until the test ends it, or until it dies, which is to close its registry.
 *
 * That no worker runs twice they prove themselves: each holds a lock of its row while it runs.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { Registry, type WorkerSpec } from "../lib/mod.ts";
import { Backend } from "../lib/backend.ts";
import {
  type Attempt,
  claim,
  isOwn,
  markOutcome,
  markReady,
  markStarted,
  restartsOf,
  terminate,
} from "../lib/workers/lifecycle.ts";
import { isRunning, register } from "../lib/workers/rows.ts";
import { attemptOf, Rounds } from "../lib/workers/rounds.ts";
import { encodeSpec } from "../lib/workers/spec.ts";
import {
  BACKEND,
  CRASHES,
  CRASHES_BEFORE,
  databaseIds,
  DUE_AT,
  ENDS,
  FREE,
  isAlive,
  KILL_AT,
  liveBackends,
  PAUSE,
  READY,
  RETURNED,
  ROWS_MAX,
  RUNS,
  STARTING,
  STATE,
  STATIC,
  STOPPED,
  SUPERVISOR,
  TABLE_BYTES,
  TABLE_NAME,
  TEMPLATE,
  TERMINATE,
  WAITING,
  WorkerTable,
} from "../lib/workers/table.ts";
import type { Scene } from "./_scene.ts";

/** What all the workers here are, unless told otherwise. */
export function specOf(name: string, more: Partial<WorkerSpec> = {}): WorkerSpec {
  return { name, module: "data:text/javascript,", restartTime: 0, grace: 60_000, ...more };
}

/** A backend of this process in some database, and the registry that it is of. */
function join(dir: string, name: string, database: string): [Registry, Backend] {
  const registry = Registry.openSync(name, {
    ...{ dir, database, maxBackends: 32, maxSegments: 512 },
  });
  const backend = Backend.open(dir, name, database, {
    mode: "attach",
    maxBackends: 0,
    maxSegments: 0,
    timeout_ms: 10_000,
  });
  return [registry, backend];
}

/** A worker that runs. */
class Runner {
  readonly attempt: Attempt;
  readonly backend: Backend;
  readonly #registry: Registry;
  readonly #table: WorkerTable;

  private constructor(registry: Registry, backend: Backend, attempt: Attempt) {
    this.#registry = registry;
    this.backend = backend;
    this.#table = WorkerTable.open(backend);
    this.attempt = attempt;
  }

  /** Runs from its claim until it is ready; undefined: it came too late. */
  static start(place: BackgroundTable, attempt: Attempt, number: number): Runner | undefined {
    const [registry, backend] = join(place.scene.dir, place.name, `runner ${number}`);
    const runner = new Runner(registry, backend, attempt);
    const table = runner.#table;
    if (!table.changeSync(() => claim(table, attempt, process.pid))) {
      runner.die();
      return undefined;
    }
    const runs = registry.getNamedSegmentSync(`runs ${attempt.slot}`, 8);
    assert(runs.lock.tryAcquire(), `row ${attempt.slot} runs twice`);
    table.changeSync(() => markStarted(table, attempt));
    table.changeSync(() => markReady(table, attempt));
    return runner;
  }

  get isOwn(): boolean {
    return isOwn(this.#table, this.attempt);
  }

  /** Says how it ends, and is gone. */
  end(outcome = RETURNED, code = 0, reason = ""): void {
    const table = this.#table;
    table.changeSync(() => markOutcome(table, this.attempt, outcome, code, reason));
    this.die();
  }

  die(): void {
    this.#registry.close();
    this.backend.release();
  }
}

export class BackgroundTable {
  readonly scene: Scene;
  readonly name: string;
  readonly registry: Registry;
  readonly backend: Backend;
  readonly table: WorkerTable;
  /** By row. */
  readonly runners = new Map<number, Runner>();
  /** How often each row was claimed. */
  readonly claims = new Map<number, number>();
  #rounds: Rounds;
  #count = 0;

  constructor(scene: Scene, name: string) {
    this.scene = scene;
    this.name = name;
    [this.registry, this.backend] = join(scene.dir, name, "default");
    this.table = WorkerTable.open(this.backend);
    this.#rounds = new Rounds(this.table);
  }

  get(slot: number, field: number): number {
    return this.table.get(slot, field);
  }

  /** Rows that are not free. */
  get rows(): number[] {
    return Array.from({ length: ROWS_MAX }, (_, slot) => slot)
      .filter((slot) => this.get(slot, STATE) !== FREE);
  }

  register(spec: WorkerSpec): number {
    return this.registry.registerBackgroundWorker(spec).slot;
  }

  /** A user's backend in a database. */
  visit(database: string): () => void {
    const [registry, backend] = join(this.scene.dir, this.name, database);
    return () => {
      registry.close();
      backend.release();
    };
  }

  change(change: (table: WorkerTable) => void): void {
    this.table.changeSync(() => change(this.table));
  }

  /** Whether somebody has died who held the table's lock, and nobody has had it since. */
  get isAbandoned(): boolean {
    const { lock } = this.backend.ownSegmentSync(TABLE_NAME, TABLE_BYTES);
    lock.acquireSync("exclusive", { timeout: 10_000 });
    try {
      return lock.abandoned;
    } finally {
      lock.release();
    }
  }

  /** Another supervisor comes, which knows of nothing. */
  elect(): void {
    this.#rounds = new Rounds(this.table);
    this.change((table) => table.setHead(SUPERVISOR, this.backend.id | 0));
  }

  /** Nobody supervises any more. */
  resign(): void {
    this.change((table) => table.setHead(SUPERVISOR, 0));
  }

  /** One round. What is to be started is returned; what is to end is ended. */
  round(): { starts: Attempt[]; hasWork: boolean } {
    const sequence = this.table.changesOf(undefined);
    const before = this.table.word(sequence);
    const live = liveBackends(this.backend).filter(({ database }) =>
      !database.startsWith("runner")
    );
    const { starts, signals } = this.table.changeSync(() =>
      this.#rounds.look(live, () => databaseIds(this.backend))
    );
    for (const { slot, signal } of signals) {
      // All have a long grace: nobody is killed before it is over.
      assertEquals(signal, "SIGTERM", `to row ${slot}`);
      this.runners.get(slot)?.end();
      this.runners.delete(slot);
    }
    return {
      starts: starts.map(({ attempt }) => attempt),
      // As for a supervisor: each change leads to another round.
      hasWork: this.table.word(sequence) !== before,
    };
  }

  /** A worker that was started for this attempt; false: it came too late. */
  run(attempt: Attempt): boolean {
    const runner = Runner.start(this, attempt, this.#count++);
    if (runner === undefined) return false;
    const { slot } = attempt;
    this.runners.set(slot, runner);
    this.claims.set(slot, (this.claims.get(slot) ?? 0) + 1);
    return true;
  }

  /** A worker ends, or dies without a word, or in spite of one. */
  end(slot: number, ...how: Parameters<Runner["end"]>): void {
    this.runners.get(slot)?.end(...how);
    this.runners.delete(slot);
  }

  die(slot: number): void {
    this.runners.get(slot)?.die();
    this.runners.delete(slot);
  }

  /** Rounds until nothing is to be done any more; pauses are over at once. */
  settle(): void {
    for (let round = 0;; round++) {
      assert(round < 20, "it never comes to rest");
      const { starts, hasWork } = this.round();
      const paused = this.rows.filter((slot) =>
        // Also of one that somebody had started, and was about to put off.
        [WAITING, STARTING].includes(this.get(slot, STATE)) && this.table.time(slot, DUE_AT) > 0
      );
      this.change((table) => {
        for (const slot of paused) table.setTime(slot, DUE_AT, 0);
      });
      for (const attempt of starts) {
        assert(!this.table.has(attempt.slot, TERMINATE), "a terminated worker is started");
        assert(this.run(attempt), `row ${attempt.slot} cannot be claimed`);
      }
      if (!hasWork && paused.length === 0) break;
    }
    this.assertAtRest();
  }

  /** Nothing is half-done: every row is one that a supervisor has nothing to do for. */
  assertAtRest(): void {
    const { table } = this;
    for (const slot of this.rows) {
      const state = this.get(slot, STATE);
      const at = `row ${slot} in state ${state}`;
      assert(table.spec(slot) !== undefined, `${at} has no spec`);
      assert(this.get(slot, ENDS) <= this.get(slot, RUNS), at);
      if (state === STOPPED) continue;
      assert(!table.has(slot, TERMINATE | PAUSE), `${at} is to end`);
      if (state === TEMPLATE || state === WAITING) continue;
      assertEquals(state, READY, at);
      assertEquals(this.runners.get(slot)?.isOwn, true, `${at} is nobody's`);
      assert(isAlive(this.backend, this.get(slot, BACKEND)), `${at} is a dead one's`);
      assertEquals(table.time(slot, KILL_AT), 0, `${at} is to be killed`);
    }
    for (const slot of this.runners.keys()) assert(isRunning(table, slot), `row ${slot} was left`);
  }

  /** Every worker can be ended, and every row be used again, to the last one. */
  assertEndsAndFills(): void {
    this.change((table) => {
      for (const slot of this.rows) terminate(table, slot, 60_000);
    });
    this.settle();
    assertEquals(this.runners.size, 0);
    const kept = this.rows.filter((slot) => this.table.has(slot, STATIC)).length;
    for (const slot of this.rows) assertEquals(this.get(slot, STATE), STOPPED, `row ${slot}`);
    const { bytes } = encodeSpec(specOf("filler"), null);
    this.change((table) => {
      const filler = { spec: bytes, isTemplate: false, isStatic: false };
      for (let i = kept; i < ROWS_MAX; i++) assert(register(table, filler), `only ${i} rows`);
      assertEquals(register(table, filler), undefined);
      for (const slot of this.rows) terminate(table, slot, 0);
    });
  }

  /** The row of a worker by its name that has not stopped, or the only one. */
  rowOf(name: string): number {
    const found = this.rows.filter((slot) => this.table.spec(slot)?.name === name);
    return found.find((slot) => this.get(slot, STATE) !== STOPPED) ?? found[0] ?? -1;
  }

  /** How often it was restarted, and how many crashes in a row that were for. */
  countsOf(slot: number): [restarts: number, crashes: number] {
    const crashes = isRunning(this.table, slot) ? CRASHES_BEFORE : CRASHES;
    return [restartsOf(this.table, slot), this.get(slot, crashes)];
  }

  /** Which start a row waits for somebody to claim. */
  attemptOf(slot: number): Attempt {
    assertEquals(this.get(slot, STATE), STARTING);
    return attemptOf(this.table, slot);
  }

  /** Also for a registry in which somebody has died: it is gone, and its name is free. */
  destroy(): void {
    for (const slot of [...this.runners.keys()]) this.die(slot);
    this.registry.close();
    this.backend.release();
    assert(Registry.destroy(this.name, { dir: this.scene.dir }));
  }
}
