/**
 * A process that is killed in the middle of changing the tables of background workers of many
 * registries: commands as lines of JSON on stdin, reports on stdout.
 *
 * It does the same in each of them. At the n-th change of the n-th table it does not die yet, but
 * turns to the next registry, and comes no more back to this one. In the last of them, at the last
 * change, it is killed. So one death leaves every table as if its process had been killed there,
 * with the lock held; for nobody looks at them before.
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { Registry, type WorkerSpec } from "../lib/mod.ts";
import { Backend } from "../lib/backend.ts";
import {
  type Attempt,
  claim,
  markOutcome,
  markReady,
  markStarted,
  pause,
  terminate,
} from "../lib/workers/lifecycle.ts";
import { isRunning } from "../lib/workers/rows.ts";
import type { Member } from "../lib/workers/member.ts";
import { attemptOf, keyOf, Rounds } from "../lib/workers/rounds.ts";
import {
  CANDIDATES,
  databaseIds,
  EXITED,
  liveBackends,
  RETURNED,
  ROWS_MAX,
  STARTING,
  STATE,
  SUPERVISOR,
  THREW,
  WorkerTable,
} from "../lib/workers/table.ts";
import { registerStatic } from "../lib/workers/workers.ts";
import { watchTableChanges } from "./_table_changes.ts";

/** What is done to a table. */
export type Deed =
  | { do: "register"; spec: WorkerSpec; addin?: string }
  | { do: "terminate"; slot: number; grace: number }
  | { do: "dropDatabase"; database: string }
  /** Is elected, and makes a round. `told`: has seen those that are dead by now end so. */
  | { do: "supervise"; told?: { code: number } }
  /** The same, and what it starts ends at once with this code: another round. */
  | { do: "startInVain"; code: number }
  /** Ends as a supervisor that nobody follows. */
  | { do: "pauseAll" }
  /** Runs a worker from its claim to its end. */
  | { do: "work"; attempt: Attempt; how: keyof typeof outcomes }
  | { do: "list" };

export type VictimCommand =
  /** Reports how many steps it takes. */
  | { do: "count"; dir: string; registry: string; deed: Deed }
  /** Dies in all of these, one step later in each; or reports where that was not to be. */
  | { do: "die"; dir: string; registries: { name: string; step: number }[]; deed: Deed };

export interface VictimReport {
  pid?: number;
  steps?: number;
  survived?: string;
}

/** What a worker writes down of its end. */
const outcomes = {
  returns: [RETURNED, 0, ""],
  throws: [THREW, 1, "thrown"],
  exits: [EXITED, 3, ""],
} as const;

/** A member as far as a round looks at it. */
function endedMember(attempt: Attempt, code: number): Member {
  const end = { code, signal: null };
  return { attempt, isThread: false, end, signal: () => {} } as unknown as Member;
}

function superviseIn(table: WorkerTable, told: { code: number } | undefined): Rounds {
  const { backend } = table;
  const self = backend.id | 0;
  table.changeSync(() => table.setHead(CANDIDATES + (self & 0xff), self));
  table.changeSync(() => table.setHead(SUPERVISOR, self));
  const rounds = new Rounds(table);
  for (let slot = 0; told !== undefined && slot < ROWS_MAX; slot++) {
    if (!isRunning(table, slot)) continue;
    const attempt = attemptOf(table, slot);
    rounds.launched(keyOf(attempt), endedMember(attempt, told.code));
  }
  table.changeSync(() => rounds.look(liveBackends(backend), () => databaseIds(backend)));
  return rounds;
}

function work(
  registry: Registry,
  table: WorkerTable,
  attempt: Attempt,
  how: keyof typeof outcomes,
): void {
  if (!table.changeSync(() => claim(table, attempt, process.pid))) throw new Error("No claim.");
  const runs = registry.getNamedSegmentSync(`runs ${attempt.slot}`, 8);
  if (!runs.lock.tryAcquire()) throw new Error("It runs twice.");
  table.changeSync(() => markStarted(table, attempt));
  table.changeSync(() => markReady(table, attempt));
  const [outcome, code, reason] = outcomes[how];
  table.changeSync(() => markOutcome(table, attempt, outcome, code, reason));
}

function perform(dir: string, name: string, deed: Deed): void {
  const registry = Registry.openSync(name, { dir, database: "default" });
  const backend = Backend.open(dir, name, "default", {
    mode: "attach",
    maxBackends: 0,
    maxSegments: 0,
    timeout_ms: 10_000,
  });
  const table = WorkerTable.open(backend);
  isArmed = true;
  switch (deed.do) {
    case "register":
      if (deed.addin === undefined) registry.registerBackgroundWorker(deed.spec);
      else registerStatic(backend, deed.addin, deed.spec);
      break;
    case "terminate":
      table.changeSync(() => terminate(table, deed.slot, deed.grace));
      break;
    case "dropDatabase":
      registry.dropDatabase(deed.database);
      break;
    case "supervise":
      superviseIn(table, deed.told);
      break;
    case "startInVain": {
      const rounds = superviseIn(table, undefined);
      for (let slot = 0; slot < ROWS_MAX; slot++) {
        if (table.get(slot, STATE) !== STARTING) continue;
        const attempt = attemptOf(table, slot);
        rounds.launched(keyOf(attempt), endedMember(attempt, deed.code));
      }
      table.changeSync(() => rounds.look(liveBackends(backend), () => databaseIds(backend)));
      break;
    }
    case "pauseAll":
      table.changeSync(() => {
        table.setHead(SUPERVISOR, 0);
        for (let slot = 0; slot < ROWS_MAX; slot++) pause(table, slot, 60_000);
      });
      break;
    case "work":
      work(registry, table, deed.attempt, deed.how);
      break;
    case "list":
      Array.from(registry.workers());
      break;
  }
  isArmed = false;
}

/** Whether changes are counted: not those of the preparation. */
let isArmed = false;
let onStep: () => void = () => {};
watchTableChanges(() => {
  if (isArmed) onStep();
});

function report(report: VictimReport): void {
  writeSync(1, JSON.stringify(report) + "\n");
}

function dieIn(
  dir: string,
  [first, ...others]: { name: string; step: number }[],
  deed: Deed,
): void {
  if (first === undefined) process.kill(process.pid, "SIGKILL");
  else {
    let steps = 0;
    onStep = () => {
      if (++steps !== first.step) return;
      isArmed = false;
      dieIn(dir, others, deed);
    };
    perform(dir, first.name, deed);
    // Also of one further up: nobody comes back.
    report({ survived: `${first.name}: ${steps} steps, not ${first.step}` });
    process.exit(1);
  }
}

function run(command: VictimCommand): void {
  if (command.do === "die") return dieIn(command.dir, command.registries, command.deed);
  let steps = 0;
  onStep = () => void steps++;
  perform(command.dir, command.registry, command.deed);
  report({ steps });
}

createInterface({ input: process.stdin }).on(
  "line",
  (line) => run(JSON.parse(line) as VictimCommand),
);
report({ pid: process.pid });
