/**
 * The rows of the worker table: which worker has which, and how they are given out and back. All of
 * it with the table's lock held.
 *
 * A row is given out by its STATE, which is stored last, and back by the same: whoever dies in the
 * middle has left it free. So nothing leaks. Of several that belong together, a template and the
 * workers made of it, the template goes first; what is left without one ends (see rounds.ts).
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import { SPEC_BYTES_MAX } from "./spec.ts";
import {
  ATTEMPT,
  BACKEND,
  CLAIMED,
  CRASHES,
  CRASHES_BEFORE,
  DATABASE_ID,
  DUE_AT,
  ENDS,
  EXIT_CODE,
  FLAGS,
  FREE,
  GENERATION,
  GRACE,
  isAlive,
  KILL_AT,
  OUTCOME,
  PARENT,
  PARENT_GENERATION,
  PID,
  READY,
  READY_RUN,
  REGISTERED_AT,
  RESTARTS,
  RESTARTS_BEFORE,
  ROWS_MAX,
  RUNS,
  STARTED,
  STARTED_AT,
  STARTER,
  STATE,
  STATIC,
  STOPPED,
  STOPPED_AT,
  TEMPLATE,
  WAITING,
  type WorkerTable,
} from "./table.ts";

/** A code that no process ends with. */
export const NO_EXIT_CODE = -1;

/** One row, as long as it is of one worker. */
export interface RowId {
  slot: number;
  generation: number;
}

/** A new row's particulars. */
export interface Registration {
  spec: Uint8Array;
  isTemplate: boolean;
  isStatic: boolean;
  parent?: RowId;
  database?: { id: number; name: string };
}

/** Whether the row is still the worker's. */
export function isCurrent(table: WorkerTable, { slot, generation }: RowId): boolean {
  return table.get(slot, GENERATION) === generation && table.get(slot, STATE) !== FREE;
}

/** Whether a process or thread has claimed the row, and not been settled. */
export function isRunning(table: WorkerTable, slot: number): boolean {
  const state = table.get(slot, STATE);
  return state === CLAIMED || state === STARTED || state === READY;
}

/** Whether nobody needs the row, though it was not given back: its worker has stopped. */
function isReusable(table: WorkerTable, slot: number): boolean {
  if (table.get(slot, STATE) !== STOPPED || table.has(slot, STATIC)) return false;
  const parent = parentOf(table, slot);
  // One of a database is kept as long as its template: or it would be made anew.
  return parent === undefined || !isCurrent(table, parent) ||
    table.get(parent.slot, STATE) !== TEMPLATE;
}

/** The template of which it was made. */
export function parentOf(table: WorkerTable, slot: number): RowId | undefined {
  const parent = table.get(slot, PARENT) - 1;
  if (parent < 0 || parent >= ROWS_MAX) return undefined;
  return { slot: parent, generation: table.get(slot, PARENT_GENERATION) };
}

/** The workers that were made of a template. */
export function instancesOf(table: WorkerTable, { slot, generation }: RowId): number[] {
  const found: number[] = [];
  for (let row = 0; row < ROWS_MAX; row++) {
    if (table.get(row, STATE) === FREE || table.get(row, PARENT) !== slot + 1) continue;
    if (table.get(row, PARENT_GENERATION) === generation) found.push(row);
  }
  return found;
}

/** Gives a worker a row. Undefined: all are in use. */
export function register(table: WorkerTable, worker: Registration): RowId | undefined {
  let slot = -1;
  for (let row = 0; row < ROWS_MAX; row++) {
    if (table.get(row, STATE) === FREE) {
      slot = row;
      break;
    }
    // Those that have stopped can be read as long as there is room.
    if (isReusable(table, row)) {
      const isOlder = slot < 0 ||
        table.time(row, REGISTERED_AT) < table.time(slot, REGISTERED_AT);
      if (isOlder) slot = row;
    }
  }
  if (slot < 0) return undefined;
  table.set(slot, STATE, FREE);
  const generation = table.get(slot, GENERATION) + 1 | 0;
  table.set(slot, GENERATION, generation);
  for (
    const field of [
      ...[ATTEMPT, STARTER, BACKEND, PID, OUTCOME, RUNS, READY_RUN, ENDS, RESTARTS, CRASHES],
      ...[PARENT, PARENT_GENERATION, DATABASE_ID, GRACE, RESTARTS_BEFORE, CRASHES_BEFORE],
    ]
  ) table.set(slot, field, 0);
  for (const field of [DUE_AT, STARTED_AT, STOPPED_AT, KILL_AT]) table.setTime(slot, field, 0);
  table.set(slot, EXIT_CODE, NO_EXIT_CODE);
  table.set(slot, FLAGS, worker.isStatic ? STATIC : 0);
  table.setTime(slot, REGISTERED_AT, Date.now());
  table.setReason(slot, "");
  table.setDatabase(slot, worker.database?.name ?? "");
  table.set(slot, DATABASE_ID, worker.database?.id ?? 0);
  if (worker.parent !== undefined) {
    table.set(slot, PARENT, worker.parent.slot + 1);
    table.set(slot, PARENT_GENERATION, worker.parent.generation);
  }
  table.setSpec(slot, worker.spec);
  table.set(slot, STATE, worker.isTemplate ? TEMPLATE : WAITING);
  return { slot, generation };
}

/** The error for a table without a free row. */
export function tableFull(): DsmrError {
  return new DsmrError(
    "REGISTRY_FULL",
    `All ${ROWS_MAX} rows for background workers are in use in this registry. Terminate some, or ` +
      "let them return: the rows of workers that have stopped are used again.",
    { actual: ROWS_MAX, requested: ROWS_MAX + 1 },
  );
}

/**
 * Whether a static worker is left over from an earlier run of the server: it has stopped, or died
 * with everybody else, before the first of those came who are attached now. It is registered anew
 * then, as a postmaster that starts does; one that has stopped since stays stopped. The times are
 * the clock's: where that jumps, a worker starts once more or once less, never twice at a time.
 *
 * @param since When the first of all live backends attached.
 */
export function isLeftOver(table: WorkerTable, slot: number, since: number): boolean {
  const state = table.get(slot, STATE);
  if (state === STOPPED) return table.time(slot, STOPPED_AT) < since;
  if (state === TEMPLATE) {
    const id = { slot, generation: table.get(slot, GENERATION) };
    const instances = instancesOf(table, id);
    return instances.length > 0 && instances.every((row) => isLeftOver(table, row, since));
  }
  const runner = table.get(slot, BACKEND);
  return runner !== 0 && !isAlive(table.backend, runner) && table.time(slot, STARTED_AT) < since;
}

/**
 * Frees the row of a left-over worker, and those of its instances. The template first: a new one
 * is made of it then in any case. Instances whose template is gone end; one that is kept while the
 * other instances are gone would pass for what is left of a worker of this server, and stay stopped.
 */
export function discard(table: WorkerTable, slot: number): void {
  const id = { slot, generation: table.get(slot, GENERATION) };
  const instances = table.get(slot, STATE) === TEMPLATE ? instancesOf(table, id) : [];
  for (const row of [slot, ...instances]) table.set(row, STATE, FREE);
}

/** Whether a row's numbers are those of no state. */
export function isDamaged(table: WorkerTable, slot: number): boolean {
  const state = table.get(slot, STATE);
  if (state === FREE || state === STOPPED) return false;
  return state < FREE || state > TEMPLATE || table.specBytes(slot).length > SPEC_BYTES_MAX ||
    table.spec(slot) === undefined;
}
