/**
 * How a worker's attempt has gone, and what becomes of its row then. All of it with the table's
 * lock held.
 *
 * The hardest race is a death while another one's end is settled: it is settled again, and must not
 * come out otherwise. The answer stands in lifecycle.ts.
 *
 * @module
 */

import { goOnTerminating, runsOf, stop } from "./lifecycle.ts";
import { isRunning, NO_EXIT_CODE } from "./rows.ts";
import {
  BACKEND,
  BROKE,
  CRASHES,
  CRASHES_BEFORE,
  DUE_AT,
  ENDS,
  EXIT_CODE,
  EXITED,
  GRACE,
  isAlive,
  KILL_AT,
  OUTCOME,
  OVERDUE,
  PAUSE,
  PID,
  RESTARTS,
  RESTARTS_BEFORE,
  RETURNED,
  RUNS,
  SIGNALLED,
  SILENT,
  STARTED_AT,
  STARTER,
  STATE,
  SUPERVISOR,
  TERMINATE,
  THREW,
  WAITING,
  type WorkerTable,
} from "./table.ts";

/** The least pause after a crash; the most; and how long a run must be to forget crashes. */
const CRASH_PAUSE_MS = 100;
const CRASH_PAUSE_MAX_MS = 60_000;
const GOOD_RUN_MS = 60_000;
/** With which code a worker ends for an error that nobody has caught, or that is ours. */
export const BROKEN_CODE = 70;

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
