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
 * 2. A row leaves CLAIMED, STARTED and READY only in `settle`, which asks the kernel first whether
 *    the backend that has claimed it is dead. A backend dies with its process or thread and not
 *    before: the lock by which the kernel knows it goes when the last thread that could run code
 *    has gone. (The bootstrap keeps a use of the backend that user code cannot close.)
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

import { DsmrError } from "../errors.ts";
import { SPEC_BYTES_MAX } from "./spec.ts";
import {
  ATTEMPT,
  BACKEND,
  BROKE,
  CLAIMED,
  CRASHES,
  CRASHES_BEFORE,
  DATABASE_ID,
  DROPPED,
  DUE_AT,
  ENDS,
  EXIT_CODE,
  EXITED,
  FLAGS,
  FREE,
  GENERATION,
  GRACE,
  isAlive,
  KILL_AT,
  OUTCOME,
  OVERDUE,
  PARENT,
  PARENT_GENERATION,
  PAUSE,
  PID,
  READY,
  READY_RUN,
  REGISTERED_AT,
  RESTARTS,
  RESTARTS_BEFORE,
  RETURNED,
  ROWS_MAX,
  RUNS,
  SIGNALLED,
  SILENT,
  STARTED,
  STARTED_AT,
  STARTER,
  STARTING,
  STATE,
  STATIC,
  STOPPED,
  STOPPED_AT,
  SUPERVISOR,
  TEMPLATE,
  TERMINATE,
  THREW,
  UNREGISTERED,
  WAITING,
  type WorkerTable,
} from "./table.ts";

/** The least pause after a crash; the most; and how long a run must be to forget crashes. */
const CRASH_PAUSE_MS = 100;
const CRASH_PAUSE_MAX_MS = 60_000;
const GOOD_RUN_MS = 60_000;
/** With which code a worker ends for an error that nobody has caught, or that is ours. */
export const BROKEN_CODE = 70;
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

/** How often its function was entered: of an attempt that has not come to that, as before it. */
export function runsOf(table: WorkerTable, slot: number): number {
  return table.get(slot, table.get(slot, STATE) === CLAIMED ? ENDS : RUNS);
}

/** How often it was restarted: while it is being started or runs, as before that. */
export function restartsOf(table: WorkerTable, slot: number): number {
  const isAtIt = isRunning(table, slot) || table.get(slot, STATE) === STARTING;
  return table.get(slot, isAtIt ? RESTARTS_BEFORE : RESTARTS);
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

/** How a process has ended, as its parent is told. */
export interface ProcessEnd {
  code: number | null;
  signal: string | null;
  /** It could not be started. */
  error?: string;
}

/** In words. */
export function describeEnd(end: ProcessEnd | undefined): string {
  if (end?.error !== undefined) return end.error;
  if (end?.signal !== undefined && end.signal !== null) return `killed by ${end.signal}`;
  if (end?.code !== undefined && end.code !== null) return `exit code ${end.code}`;
  return "its process has died without a word: it was killed, or has crashed";
}

/** In words, an error that nobody has caught. */
export function uncaught(message: string): string {
  return `an error that nobody has caught: ${message}`;
}

/** How an attempt has gone. */
interface Verdict {
  kind: "well" | "error" | "crash" | "signalled";
  reason: string;
  exitCode: number | null;
}

function judge(table: WorkerTable, slot: number, end: ProcessEnd | undefined): Verdict {
  const reason = table.reason(slot);
  const outcome = isRunning(table, slot) ? table.get(slot, OUTCOME) : SILENT;
  // A thread whose error came to us: not every runtime lets it hear of that itself.
  const isCaught = isRunning(table, slot) && end?.error !== undefined;
  if (isCaught && (outcome === SILENT || outcome === EXITED)) {
    return { kind: "crash", reason: uncaught(end?.error ?? ""), exitCode: BROKEN_CODE };
  }
  switch (outcome) {
    case RETURNED:
      return { kind: "well", reason: "", exitCode: 0 };
    case THREW:
      return { kind: "error", reason, exitCode: 1 };
    case SIGNALLED:
      return { kind: "signalled", reason, exitCode: 1 };
    case BROKE:
      return { kind: "crash", reason, exitCode: table.get(slot, EXIT_CODE) };
    case EXITED: {
      const code = table.get(slot, EXIT_CODE);
      return judgeCode(code, `exit code ${code}`);
    }
    case OVERDUE:
      return { kind: "crash", reason: "", exitCode: null };
    default:
      if (!isRunning(table, slot)) {
        const what = `could not be started: ${describeEnd(end)}`;
        return { kind: "crash", reason: what, exitCode: end?.code ?? null };
      }
      if (end?.code !== undefined && end.code !== null) {
        return judgeCode(end.code, describeEnd(end));
      }
      return { kind: "crash", reason: describeEnd(end), exitCode: null };
  }
}

/**
 * Whether a terminated worker had to be killed: it has said so itself just before, or said nothing,
 * its grace was over, and what is told of its end, if anything is, is how a kill looks. (Of a thread
 * that was terminated each runtime tells a code of its own.)
 */
function wasKilled(table: WorkerTable, slot: number, end: ProcessEnd | undefined): boolean {
  if (!isRunning(table, slot)) return false;
  const outcome = table.get(slot, OUTCOME);
  if (outcome !== SILENT) return outcome === OVERDUE;
  const killAt = table.time(slot, KILL_AT);
  if (killAt === 0 || Date.now() < killAt || end?.error !== undefined) return false;
  // A script that has started the runtime may have died of the SIGTERM before.
  const isKill = end?.signal === "SIGKILL" || end?.signal === "SIGTERM";
  return end === undefined || isKill || table.spec(slot)?.thread === true;
}

function judgeCode(code: number, reason: string): Verdict {
  if (code === 0) return { kind: "well", reason: "", exitCode: 0 };
  return { kind: code === 1 ? "error" : "crash", reason, exitCode: code };
}

/** How long after so many crashes in a row, in milliseconds. */
export function crashPause(restartTime: number, crashes: number): number {
  const least = Math.max(restartTime, CRASH_PAUSE_MS);
  // A restart time that is longer than the most is kept all the same.
  const most = Math.max(CRASH_PAUSE_MAX_MS, restartTime);
  return Math.min(least * 2 ** Math.min(Math.max(crashes - 1, 0), 30), most);
}

/**
 * The attempt is over: what becomes of the worker. The caller has made sure that the backend that
 * has claimed the row is dead; or, where nobody has, that nobody can.
 */
export function settle(table: WorkerTable, slot: number, end?: ProcessEnd): void {
  const { kind, reason, exitCode } = judge(table, slot, end);
  const code = exitCode ?? NO_EXIT_CODE;
  const spec = table.spec(slot);
  const now = Date.now();
  const ranFor = isRunning(table, slot) ? now - (table.time(slot, STARTED_AT) || now) : 0;
  const wasPaused = table.has(slot, PAUSE);
  const supervisor = table.head(SUPERVISOR);
  const isOrphan = table.get(slot, STARTER) !== supervisor || supervisor === 0;
  const runs = runsOf(table, slot);
  for (const field of [RUNS, ENDS]) {
    if (table.get(slot, field) !== runs) table.set(slot, field, runs);
  }
  const wait = (pause: number): void => {
    table.setReason(slot, reason);
    table.set(slot, EXIT_CODE, code);
    table.set(slot, PID, 0);
    table.setTime(slot, DUE_AT, pause === 0 ? 0 : now + pause);
    table.set(slot, STATE, WAITING);
  };
  if (table.has(slot, TERMINATE) && wasKilled(table, slot, end)) {
    const grace = table.get(slot, GRACE);
    stop(table, slot, `terminated; killed after its grace of ${grace} ms`, NO_EXIT_CODE);
  } else if (table.has(slot, TERMINATE)) {
    stop(table, slot, "terminated", code);
  } else if (spec === undefined) {
    stop(table, slot, `its row is damaged; the last thing known is: ${reason || kind}`, code);
  } else if (wasPaused || kind === "signalled" && isOrphan) {
    // Together with its supervisor, by Ctrl-C for instance: the next one starts it.
    wait(0);
  } else if (kind === "well") {
    stop(table, slot, "", 0, true);
  } else if (spec.restartTime < 0) {
    stop(table, slot, reason, code);
  } else {
    let pause = spec.restartTime;
    if (kind === "crash") {
      const before = ranFor >= GOOD_RUN_MS ? 0 : Math.max(table.get(slot, CRASHES_BEFORE), 0);
      const crashes = before + 1;
      table.set(slot, CRASHES, crashes);
      pause = crashPause(pause, crashes);
    } else {
      table.set(slot, CRASHES, 0);
    }
    table.set(slot, RESTARTS, table.get(slot, RESTARTS_BEFORE) + 1);
    wait(pause);
  }
}

/**
 * Brings a row to rest, for whoever looks at it: a worker that is being terminated by somebody who
 * has died; and a dead one, where no supervisor will settle it.
 */
export function refresh(table: WorkerTable, slot: number): void {
  if (table.has(slot, TERMINATE)) goOnTerminating(table, slot);
  if (!isRunning(table, slot) || isAlive(table.backend, table.get(slot, BACKEND))) return;
  if (isAlive(table.backend, table.head(SUPERVISOR))) return;
  settle(table, slot);
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

/** Makes this backend the one that runs the worker; false: it came too late. */
export function claim(
  table: WorkerTable,
  { slot, generation, attempt }: Attempt,
  pid: number,
): boolean {
  const isOurs = table.get(slot, STATE) === STARTING &&
    table.get(slot, GENERATION) === generation && table.get(slot, ATTEMPT) === attempt;
  if (!isOurs) return false;
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

/** Whether a row's numbers are those of no state. */
export function isDamaged(table: WorkerTable, slot: number): boolean {
  const state = table.get(slot, STATE);
  if (state === FREE || state === STOPPED) return false;
  return state < FREE || state > TEMPLATE || table.specBytes(slot).length > SPEC_BYTES_MAX ||
    table.spec(slot) === undefined;
}
