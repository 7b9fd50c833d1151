/**
 * How a worker looks from outside.
 *
 * @module
 */

import { refresh } from "./ends.ts";
import { restartsOf, runsOf } from "./lifecycle.ts";
import { instancesOf, isCurrent, type RowId } from "./rows.ts";
import type { StoredSpec, WorkerStartTime } from "./spec.ts";
import {
  ENDS,
  EXIT_CODE,
  FREE,
  GENERATION,
  PID,
  READY,
  READY_RUN,
  REGISTERED_AT,
  ROWS_MAX,
  STARTED,
  STARTED_AT,
  STATE,
  STOPPED,
  TEMPLATE,
  UNREGISTERED,
  type WorkerTable,
} from "./table.ts";

/**
 * How a worker is. `"not-yet-started"`: nothing of it runs yet, or again. `"started"`: its function
 * was entered. `"ready"`: it has said so. `"stopped"`: it has ended for good.
 */
export type WorkerState = "not-yet-started" | "started" | "ready" | "stopped";

/** A background worker, as {@linkcode Registry.workers} sees it. */
export interface WorkerInfo {
  /** Its name. */
  name: string;
  /** Its type. */
  type: string;
  /** Whether it is one in all, or one of each database. */
  scope: "global" | "database";
  /** Its database; null for a global one. */
  database: string | null;
  /** How it is. */
  state: WorkerState;
  /** Its process, or the one that its thread is in, while it runs. */
  pid: number | null;
  /** Why it has ended the last time, where there is something to say. */
  reason: string | null;
  /** With which code. Null: by a signal, or not yet. */
  exitCode: number | null;
  /** How often it has been restarted. */
  restarts: number;
  /** When it starts. */
  startTime: WorkerStartTime;
  /** How long after an error it is restarted, in milliseconds. */
  restartTime: "never" | number;
  /** What runs it. */
  runtime: "deno" | "bun";
  /** Whether it is a thread of the supervisor's process. */
  thread: boolean;
  /** The module's URL. */
  module: string;
  /** The function that the module exports. */
  function: string;
  /** The add-in whose static worker it is. */
  addin: string | null;
  /** When it was registered. */
  registeredAt: Date;
  /** When its process has started, while it runs. */
  startedAt: Date | null;
}

/** What there is to know of a worker, for those who wait for something. */
export interface WorkerView {
  state: WorkerState;
  pid: number | null;
  reason: string | null;
  exitCode: number | null;
  restarts: number;
  database: string | null;
  /** How often its function was entered, was ready, has ended. */
  runs: number;
  readyRun: number;
  ends: number;
}

const GONE: WorkerView = {
  state: "stopped",
  pid: null,
  reason: "its row was given to another worker since",
  exitCode: null,
  restarts: 0,
  database: null,
  runs: 0,
  readyRun: 0,
  ends: 0,
};

function stateOf(state: number): WorkerState {
  if (state === STARTED) return "started";
  if (state === READY) return "ready";
  return state === STOPPED ? "stopped" : "not-yet-started";
}

function viewRow(table: WorkerTable, slot: number): WorkerView {
  refresh(table, slot);
  const exitCode = table.get(slot, EXIT_CODE);
  return {
    state: stateOf(table.get(slot, STATE)),
    pid: table.get(slot, PID) || null,
    reason: table.reason(slot) || null,
    exitCode: exitCode < 0 ? null : exitCode,
    restarts: restartsOf(table, slot),
    database: table.database(slot) || null,
    runs: runsOf(table, slot),
    readyRun: table.get(slot, READY_RUN),
    ends: table.get(slot, ENDS),
  };
}

const order: WorkerState[] = ["ready", "started", "not-yet-started", "stopped"];

/** How a worker is. With the lock held. Of one for each database: how the most advanced one is. */
export function view(table: WorkerTable, id: RowId, database: string): WorkerView {
  if (!isCurrent(table, id)) return GONE;
  refresh(table, id.slot);
  if (table.get(id.slot, STATE) !== TEMPLATE) return viewRow(table, id.slot);
  const all = instancesOf(table, id).map((slot) => viewRow(table, slot));
  const own = all.find((one) => one.database === database);
  const isStopped = all.length > 0 && all.every(({ state }) => state === "stopped");
  const sum = (field: "runs" | "readyRun" | "ends" | "restarts"): number =>
    all.reduce((total, one) => total + one[field], 0);
  return {
    state: order.find((state) => all.some((one) => one.state === state)) ?? "not-yet-started",
    pid: own?.pid ?? null,
    reason: own?.reason ?? (isStopped ? all[0]?.reason ?? null : null),
    exitCode: own?.exitCode ?? null,
    restarts: sum("restarts"),
    database: null,
    runs: sum("runs"),
    readyRun: sum("readyRun"),
    ends: sum("ends"),
  };
}

/** All workers, in the order in which they were registered. */
export function listWorkers(table: WorkerTable): WorkerInfo[] {
  const found: WorkerInfo[] = [];
  for (let slot = 0; slot < ROWS_MAX; slot++) {
    const state = table.get(slot, STATE);
    if (state === FREE || state === TEMPLATE) continue;
    // One that has ended well is not registered any more.
    if (state === STOPPED && table.has(slot, UNREGISTERED)) continue;
    const spec = table.spec(slot);
    found.push({ ...describeSpec(spec), ...infoOf(table, slot) });
  }
  return found.sort((a, b) => a.registeredAt.getTime() - b.registeredAt.getTime());
}

function infoOf(table: WorkerTable, slot: number) {
  const { state, pid, reason, exitCode, restarts, database } = viewRow(table, slot);
  const startedAt = table.time(slot, STARTED_AT);
  return {
    ...{ state, pid, reason, exitCode, restarts, database },
    registeredAt: new Date(table.time(slot, REGISTERED_AT)),
    startedAt: pid === null || startedAt === 0 ? null : new Date(startedAt),
  };
}

/** Of a row that somebody has overwritten, what there is to say. */
const UNKNOWN = {
  name: "",
  type: "",
  scope: "global",
  startTime: "registry-start",
  restartTime: "never",
  runtime: "deno",
  thread: false,
  module: "",
  function: "",
  addin: null,
} as const;

function describeSpec(spec: StoredSpec | undefined) {
  if (spec === undefined) return UNKNOWN;
  const { name, type, scope, startTime, restartTime, runtime, thread, module, addin } = spec;
  return {
    ...{ name, type, scope, startTime, runtime, thread, module, addin },
    restartTime: restartTime < 0 ? "never" as const : restartTime,
    function: spec.function,
  };
}

/** The generation that a row has. */
export function idOf(table: WorkerTable, slot: number): RowId {
  return { slot, generation: table.get(slot, GENERATION) };
}
