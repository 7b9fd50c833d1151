/**
 * How a worker's row goes from one state to the next. All of it with the table's lock held.
 *
 *     FREE -> WAITING -> STARTING -> CLAIMED -> STARTED -> READY
 *               ^ |          |          |          |         |
 *               | +----------+----------+--- ended +---------+-> STOPPED
 *               +--------- (restart, or pause) ----+
 *
 * No worker ever runs twice, because:
 *
 * 1. User code runs only in who has claimed the row. A claim is made under the lock, and only if
 *    the state is STARTING and the row's generation and attempt are those that the claimer was
 *    started with. The attempt is raised under the lock before each start. So of all that were
 *    ever started for a row, the last one alone can claim it, and only once: then it is CLAIMED.
 * 2. A row leaves CLAIMED, STARTED and READY only in `settle` (ends.ts), and only when the kernel has
 *    said that the backend that has claimed it is dead. A backend dies with its process or thread
 *    and not before: the lock by which the kernel knows it goes when the last thread that could run
 *    code has gone. (The bootstrap keeps a use of the backend that user code cannot close.)
 *
 * Neither depends on who supervises, nor on how many believe that they do. Who may supervise is
 * settled by a lock of its own (see supervisor.ts), so that work is not done twice; but a
 * supervisor that was robbed of it does no harm: it looks at the header's SUPERVISOR under the lock
 * before each change. Numbers of processes decide nothing: they may be used again.
 *
 * What others see when somebody dies at each point:
 *
 * - The supervisor, before it has raised the attempt: WAITING; the next one starts the worker.
 * - After that, before the spawn: STARTING by a STARTER that is not the supervisor any more; the
 *   next one raises the attempt, and spawns.
 * - After the spawn, before the claim: the same. The child that comes late finds another attempt,
 *   and ends without a word. If it comes before the next supervisor, it claims, and is adopted.
 * - After the claim: the row says CLAIMED to READY, and its backend lives: adopted. Its end is
 *   noticed as any backend's death is; how it has ended, it has written itself.
 * - While terminating: the flag is in the row, and until when. The next one goes on with it; where
 *   no process is at the row, whoever looks does, for then nothing is left to be done but words. Of
 *   a worker of each database the template has the flag first: all of them end, or none.
 * - While a restart is due: WAITING, with the time at which it is.
 * - The worker, before its claim: its parent is told by the system and settles; if that is dead,
 *   too, as above. In the middle of claiming: STATE is stored last, so it has not claimed. After
 *   it: CLAIMED by a dead backend; no outcome written means that it has crashed.
 * - The worker, while it writes its outcome: OUTCOME is stored last; without it, it has crashed.
 * - Whoever settles, before STATE is stored: the next one judges anew, by the same words, and comes
 *   to the same. So `settle` changes no word that it goes by. What it counts it counts from what was
 *   there before the attempt (RESTARTS_BEFORE), not from what it may have counted already; and what
 *   the attempt itself has counted (RUNS) is as many as have ended, plus one, and means nothing as
 *   long as the row is CLAIMED. What only the dead one knew, being the parent, is lost.
 * - Who drops a database, between that and telling its workers: the supervisor sees that they are
 *   of a database that is not there, and terminates them.
 * - Both at once: a supervisor that comes later finds a dead backend, and settles.
 * - Nobody supervises: who looks at a row settles it (`refresh`), so what is told is true. Nothing
 *   is started.
 * - A supervisor that is stopped (SIGSTOP) is alive: nothing is started or killed until it goes on
 *   or dies. What runs goes on, and hears that it is to end from the row itself.
 * - The registry destroyed: every call says CLOSED. The worker's bootstrap hears it, and ends.
 *
 * @module
 */

import { instancesOf, isRunning, NO_EXIT_CODE, type RowId } from "./rows.ts";
import {
  ATTEMPT,
  BACKEND,
  CLAIMED,
  CRASHES,
  CRASHES_BEFORE,
  DROPPED,
  DUE_AT,
  ENDS,
  EXIT_CODE,
  FLAGS,
  FREE,
  GENERATION,
  GRACE,
  KILL_AT,
  OUTCOME,
  OVERDUE,
  PAUSE,
  PID,
  READY,
  READY_RUN,
  RESTARTS,
  RESTARTS_BEFORE,
  RUNS,
  SILENT,
  STARTED,
  STARTED_AT,
  STARTER,
  STARTING,
  STATE,
  STOPPED,
  STOPPED_AT,
  TEMPLATE,
  TERMINATE,
  UNREGISTERED,
  WAITING,
  type WorkerTable,
} from "./table.ts";

/** How often its function was entered: of an attempt that has not come to that, as before it. */
export function runsOf(table: WorkerTable, slot: number): number {
  return table.get(slot, table.get(slot, STATE) === CLAIMED ? ENDS : RUNS);
}

/** How often it was restarted: while it is being started or runs, as before that. */
export function restartsOf(table: WorkerTable, slot: number): number {
  const isAtIt = isRunning(table, slot) || table.get(slot, STATE) === STARTING;
  return table.get(slot, isAtIt ? RESTARTS_BEFORE : RESTARTS);
}

// ---- by the supervisor -----------------------------------------------------------------------

/** Raises the attempt; the caller starts a process or thread with the number returned. */
export function beginAttempt(table: WorkerTable, slot: number): number {
  // Of one that nobody has claimed, half-settled perhaps, they are those of the attempt already.
  if (table.get(slot, STATE) === WAITING) {
    table.set(slot, RESTARTS_BEFORE, table.get(slot, RESTARTS));
    table.set(slot, CRASHES_BEFORE, table.get(slot, CRASHES));
  }
  // Whoever was started before can claim it no more from here on.
  const attempt = table.get(slot, ATTEMPT) + 1 | 0;
  table.set(slot, ATTEMPT, attempt);
  table.set(slot, STARTER, table.backend.id | 0);
  table.set(slot, BACKEND, 0);
  table.set(slot, PID, 0);
  table.set(slot, OUTCOME, SILENT);
  table.setTime(slot, KILL_AT, 0);
  table.setTime(slot, STARTED_AT, 0);
  table.set(slot, FLAGS, table.get(slot, FLAGS) & ~PAUSE);
  table.set(slot, STATE, STARTING);
  return attempt;
}

/** Takes a start back that nobody has claimed, and nobody will. */
export function endAttempt(table: WorkerTable, slot: number, isForGood: boolean): void {
  table.set(slot, ATTEMPT, table.get(slot, ATTEMPT) + 1 | 0);
  table.set(slot, RESTARTS, table.get(slot, RESTARTS_BEFORE));
  table.set(slot, CRASHES, table.get(slot, CRASHES_BEFORE));
  if (isForGood) stop(table, slot, terminated(table, slot), table.get(slot, EXIT_CODE));
  else {
    table.setTime(slot, DUE_AT, 0);
    table.set(slot, STATE, WAITING);
  }
}

/**
 * The supervisor is about to terminate a thread. The race: where both have been kept from running for
 * a while, the thread ends itself, its grace being over, in the moment in which it is terminated; and
 * a thread of Deno 2.9 may then spin for ever: process.exit() there loops until it is interrupted,
 * which one that is being terminated may have been already. So the row's OUTCOME, which only the
 * claimer writes otherwise, tells which of the two it is to be: who stores it first, with the lock
 * held, goes on.
 * False: the thread has said its last word itself, and is ending.
 */
export function condemn(table: WorkerTable, slot: number): boolean {
  if (table.get(slot, OUTCOME) !== SILENT) return false;
  table.set(slot, OUTCOME, OVERDUE);
  return true;
}

/** Whether that was done to a thread which has not said anything yet: it is to do nothing more. */
export function isCondemned(table: WorkerTable, attempt: Attempt): boolean {
  return isOwn(table, attempt) && table.get(attempt.slot, OUTCOME) !== SILENT;
}

/** Why a worker that nothing runs of has stopped. */
function terminated(table: WorkerTable, slot: number): string {
  return runsOf(table, slot) === 0 ? "terminated before it had started" : "terminated";
}

/** Nothing will start it any more. `isWell`: it has ended by itself, and is not listed any more. */
export function stop(
  table: WorkerTable,
  slot: number,
  reason: string,
  exitCode: number = NO_EXIT_CODE,
  isWell: boolean = false,
): void {
  const flags = table.get(slot, FLAGS);
  // Not only raised: somebody may have died here who knew more of its end than we do.
  const now = isWell ? flags | UNREGISTERED : flags & ~UNREGISTERED;
  if (now !== flags) table.set(slot, FLAGS, now);
  table.setReason(slot, reason);
  table.set(slot, EXIT_CODE, exitCode);
  table.set(slot, PID, 0);
  table.setTime(slot, STOPPED_AT, Date.now());
  table.set(slot, STATE, STOPPED);
}

// ---- by whoever has a say --------------------------------------------------------------------

/** When it is to be killed; the flag that makes it count was raised before. */
export function setKillAt(table: WorkerTable, slot: number, at: number, grace: number): void {
  table.set(slot, GRACE, grace);
  table.setTime(slot, KILL_AT, at);
}

/**
 * Tells a worker to end for good, and to be killed if it takes longer than that. The flag is what
 * counts; what follows from it is done by whoever comes next if this process dies in between.
 */
export function terminate(table: WorkerTable, slot: number, grace: number): void {
  const state = table.get(slot, STATE);
  if (state === FREE || state === STOPPED) return;
  // For those of its instances that do not know of it yet.
  if (state === TEMPLATE && !table.has(slot, TERMINATE)) table.set(slot, GRACE, grace);
  table.raise(slot, TERMINATE);
  if (!isRunning(table, slot)) return goOnTerminating(table, slot);
  const before = table.time(slot, KILL_AT);
  const killAt = Date.now() + grace;
  if (before === 0 || killAt < before) setKillAt(table, slot, killAt, grace);
}

/** What follows from the flag for a row at which no process is: it stops. */
export function goOnTerminating(table: WorkerTable, slot: number): void {
  const state = table.get(slot, STATE);
  if (state === STARTING) return endAttempt(table, slot, true);
  if (state === WAITING) {
    return stop(table, slot, terminated(table, slot), table.get(slot, EXIT_CODE));
  }
  if (state !== TEMPLATE) return;
  const instances = instancesOf(table, { slot, generation: table.get(slot, GENERATION) });
  for (const instance of instances) {
    if (!table.has(instance, TERMINATE)) terminate(table, instance, table.get(slot, GRACE));
  }
  if (instances.every((row) => table.get(row, STATE) === STOPPED)) {
    stop(table, slot, "terminated");
  }
}

/** Tells a worker to end, and to be started by the next supervisor. */
export function pause(table: WorkerTable, slot: number, grace: number): void {
  if (table.get(slot, STATE) === STARTING) return endAttempt(table, slot, false);
  if (!isRunning(table, slot)) return;
  table.raise(slot, PAUSE);
  // Not before the flag: a time without one would count for whoever terminates it much later.
  if (table.time(slot, KILL_AT) === 0) setKillAt(table, slot, Date.now() + grace, grace);
}

/** The worker's database is gone. */
export function drop(table: WorkerTable, slot: number, grace: number): void {
  table.raise(slot, DROPPED);
  terminate(table, slot, grace);
}

// ---- by the worker ---------------------------------------------------------------------------

/** Which start of which row somebody was started for. */
export interface Attempt extends RowId {
  attempt: number;
}

/** Whether nobody has claimed the row for this start, and it is still to be claimed. */
export function isWanted(table: WorkerTable, { slot, generation, attempt }: Attempt): boolean {
  return table.get(slot, STATE) === STARTING && table.get(slot, GENERATION) === generation &&
    table.get(slot, ATTEMPT) === attempt;
}

/** Makes this backend the one that runs the worker; false: it came too late. */
export function claim(table: WorkerTable, attempt: Attempt, pid: number): boolean {
  const { slot } = attempt;
  if (!isWanted(table, attempt)) return false;
  table.set(slot, BACKEND, table.backend.id | 0);
  table.set(slot, PID, pid);
  table.setTime(slot, STARTED_AT, Date.now());
  table.set(slot, STATE, CLAIMED);
  return true;
}

/** Whether the row is still this backend's, by this attempt. */
export function isOwn(table: WorkerTable, { slot, generation, attempt }: Attempt): boolean {
  return isRunning(table, slot) && table.get(slot, GENERATION) === generation &&
    table.get(slot, ATTEMPT) === attempt && table.get(slot, BACKEND) === (table.backend.id | 0);
}

/** The function is about to be entered. */
export function markStarted(table: WorkerTable, attempt: Attempt): void {
  if (!isOwn(table, attempt)) return;
  table.setTime(attempt.slot, STARTED_AT, Date.now());
  table.set(attempt.slot, RUNS, table.get(attempt.slot, ENDS) + 1 | 0);
  table.set(attempt.slot, STATE, STARTED);
}

/** The worker says that it is ready. */
export function markReady(table: WorkerTable, attempt: Attempt): void {
  if (!isOwn(table, attempt) || table.get(attempt.slot, STATE) !== STARTED) return;
  table.set(attempt.slot, READY_RUN, table.get(attempt.slot, RUNS));
  table.set(attempt.slot, STATE, READY);
}

/** The worker's word on its end; the first one counts. */
export function markOutcome(
  table: WorkerTable,
  attempt: Attempt,
  outcome: number,
  exitCode: number,
  reason: string,
): void {
  const { slot } = attempt;
  if (!isOwn(table, attempt) || table.get(slot, OUTCOME) !== SILENT) return;
  if (reason !== "") table.setReason(slot, reason);
  table.set(slot, EXIT_CODE, exitCode);
  table.set(slot, OUTCOME, outcome);
}
