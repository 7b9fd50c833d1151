/**
 * The supervisor's rounds: what is to be done for each row of the worker table, and what follows
 * from it outside.
 *
 * A round is made with the table's lock held, in one synchronous stretch, by the backend that the
 * header names. It starts and kills nothing: it says what is to be started and killed.
 *
 * @module
 */

import process from "node:process";
import type { Backend } from "../backend.ts";
import { settle } from "./ends.ts";
import {
  type Attempt,
  beginAttempt,
  condemn,
  drop,
  endAttempt,
  goOnTerminating,
  setKillAt,
  stop,
  terminate,
} from "./lifecycle.ts";
import { instancesOf, isCurrent, isDamaged, isRunning, parentOf, register } from "./rows.ts";
import { type Member } from "./member.ts";
import { GRACE_MS, type StoredSpec } from "./spec.ts";
import {
  ATTEMPT,
  BACKEND,
  DATABASE_ID,
  DROPPED,
  DUE_AT,
  FREE,
  GENERATION,
  isAlive,
  KILL_AT,
  type LiveBackend,
  PAUSE,
  ROWS_MAX,
  STARTER,
  STARTING,
  STATE,
  STOPPED,
  TEMPLATE,
  TERMINATE,
  WAITING,
  type WorkerTable,
} from "./table.ts";

/** As many are started at once: the others wait until these have claimed their rows. */
const STARTING_MAX = 16;
/** What has not claimed its row by then is stuck: a start takes milliseconds. */
const CLAIM_MAX_MS = 60_000;
/** Between two kills of what does not die; and how long to wait for a dead child's end. */
const AGAIN_MS = 1000;
/** How long a thread may take to end that has said how it ends. */
const LAST_WORD_MS = 10_000;
/** The longest delay that a row can ask for; more is a clock that was set back. */
export const DUE_MAX_MS = 60_000;

/** A worker to be started. */
export interface Start {
  attempt: Attempt;
  spec: StoredSpec;
  database: string;
}

/** What a pass has found to do. */
export interface Tasks {
  starts: Start[];
  signals: { slot: number; signal: "SIGTERM" | "SIGKILL"; member: Member | undefined }[];
  /** Milliseconds until something is due. */
  next: number;
}

/** An attempt as the key of a map. */
export function keyOf({ slot, generation, attempt }: Attempt): string {
  return `${slot}.${generation}.${attempt}`;
}

/** Which attempt of which worker a row is at. */
export function attemptOf(table: WorkerTable, slot: number): Attempt {
  return {
    slot,
    generation: table.get(slot, GENERATION),
    attempt: table.get(slot, ATTEMPT),
  };
}

/** What one supervisor knows of what it has started. */
export class Rounds {
  readonly #table: WorkerTable;
  readonly #backend: Backend;
  /** By attempt: what this isolate has started and not yet seen the end of. */
  readonly members: Map<string, Member> = new Map();
  /** Attempts that are being started in this turn or the next. */
  readonly #launching = new Set<string>();
  /** Attempts that were told to end, by a signal. */
  readonly #told = new Set<string>();
  /** Threads that are terminated: see `condemn`. */
  readonly #condemned = new Set<string>();
  /** Whether there is anything to watch, after the last round. */
  hasWork: boolean = false;

  constructor(table: WorkerTable) {
    this.#table = table;
    this.#backend = table.backend;
  }

  /** What has been started of the tasks that a round gave. */
  launched(key: string, member: Member): void {
    this.#launching.delete(key);
    this.members.set(key, member);
  }

  /** What this isolate has started for the row's present attempt. */
  memberOf(slot: number): Member | undefined {
    return this.members.get(keyOf(attemptOf(this.#table, slot)));
  }

  /** Looks at all rows. With the lock held. `listDatabases`: the ids of those that there are now. */
  look(live: LiveBackend[], listDatabases: () => ReadonlySet<number>): Tasks {
    const table = this.#table;
    let known: ReadonlySet<number> | undefined;
    const databases = (): ReadonlySet<number> => known ??= listDatabases();
    const tasks: Tasks = { starts: [], signals: [], next: Infinity };
    const users = this.#users(live);
    const now = Date.now();
    this.hasWork = false;
    this.#dropSuperseded();
    // First, for it may throw: nothing is being started yet that nobody would start then.
    this.#endOrphans(databases);
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      if (table.get(slot, STATE) === TEMPLATE) this.#makeInstances(slot, live, databases);
    }
    let starting = 0;
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      if (table.get(slot, STATE) === STARTING && this.#isOurs(slot)) starting++;
    }
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      const state = table.get(slot, STATE);
      if (state === FREE || state === TEMPLATE) continue;
      if (state === STOPPED) {
        this.#bury(slot, live);
        continue;
      }
      if (state === WAITING && table.has(slot, TERMINATE)) {
        goOnTerminating(table, slot);
        continue;
      }
      if (isRunning(table, slot)) this.#watch(slot, now, tasks);
      else if (state === STARTING) this.#watchStart(slot, tasks);
      if (table.get(slot, STATE) !== WAITING && table.get(slot, STATE) !== STARTING) {
        if (!isRunning(table, slot) && isDamaged(table, slot)) stop(table, slot, DAMAGED);
        this.hasWork ||= isRunning(table, slot);
        continue;
      }
      const spec = table.spec(slot);
      if (spec === undefined) {
        stop(table, slot, DAMAGED);
        continue;
      }
      if (table.get(slot, STATE) === STARTING && this.#isOurs(slot)) {
        this.hasWork = true;
        continue;
      }
      if (!this.#isDue(slot, spec, users)) continue;
      this.hasWork = true;
      const left = this.#timeLeft(slot, spec, now);
      if (left > 0) tasks.next = Math.min(tasks.next, left);
      else if (starting < STARTING_MAX) {
        starting++;
        const database = table.database(slot) || "default";
        const generation = table.get(slot, GENERATION);
        const attempt = { slot, generation, attempt: beginAttempt(table, slot) };
        this.#launching.add(keyOf(attempt));
        tasks.starts.push({ attempt, spec, database });
      }
    }
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      if (table.get(slot, STATE) === TEMPLATE) this.#endTemplate(slot);
    }
    return tasks;
  }

  /** Whether this very supervisor has started the row's present attempt, or is about to. */
  #isOurs(slot: number): boolean {
    const key = keyOf(attemptOf(this.#table, slot));
    return this.#table.get(slot, STARTER) === (this.#backend.id | 0) &&
      (this.members.has(key) || this.#launching.has(key));
  }

  /** The backends that are neither this one nor workers. */
  #users(live: LiveBackend[]): LiveBackend[] {
    const table = this.#table;
    const workers = new Set<number>();
    const pids = new Set<number>();
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      if (isRunning(table, slot)) workers.add(table.get(slot, BACKEND) >>> 0);
      if (table.get(slot, STATE) !== STARTING) continue;
      // It may have attached, and not have claimed yet; its claim leads to another pass.
      const member = this.members.get(keyOf(attemptOf(table, slot)));
      pids.add(member?.isThread === true ? process.pid : member?.pid ?? 0);
    }
    return live.filter(({ id, pid }) =>
      id !== this.#backend.id && !workers.has(id) && !pids.has(pid)
    );
  }

  /** Whether what a worker's first start depends on has come to pass. */
  #isDue(slot: number, spec: StoredSpec, users: LiveBackend[]): boolean {
    const table = this.#table;
    if (table.get(slot, ATTEMPT) > 0 || spec.startTime === "registry-start") return true;
    if (spec.startTime === "first-attach") return users.length > 0;
    const id = table.get(slot, DATABASE_ID);
    return users.some((user) => id === 0 ? user.database !== "default" : user.databaseId === id);
  }

  #timeLeft(slot: number, spec: StoredSpec, now: number): number {
    const left = this.#table.time(slot, DUE_AT) - now;
    // Nobody waits longer than that, unless the clock was set back.
    return left > Math.max(DUE_MAX_MS, spec.restartTime) + AGAIN_MS ? 0 : left;
  }

  /** A row that a process or thread has claimed. */
  #watch(slot: number, now: number, tasks: Tasks): void {
    const table = this.#table;
    const key = keyOf(attemptOf(table, slot));
    const member = this.members.get(key);
    if (!isAlive(this.#backend, table.get(slot, BACKEND))) {
      // Of what we have started we are told more, a moment later.
      const isTold = member === undefined || member.end !== undefined;
      if (member !== undefined) member.deadSince ??= now;
      if (isTold || now - (member?.deadSince ?? now) >= AGAIN_MS) {
        settle(table, slot, member?.end);
        this.members.delete(key);
        this.#told.delete(key);
        this.#condemned.delete(key);
      } else {
        tasks.next = Math.min(tasks.next, AGAIN_MS);
      }
      return;
    }
    if (!table.has(slot, TERMINATE | PAUSE)) return;
    const killAt = table.time(slot, KILL_AT);
    if (!this.#told.has(key)) {
      this.#told.add(key);
      tasks.signals.push({ slot, signal: "SIGTERM", member });
    }
    if (killAt === 0) {
      const grace = table.spec(slot)?.grace ?? GRACE_MS;
      setKillAt(table, slot, now + grace, grace);
      return;
    }
    // A thread ends itself when its grace is over, unless it blocks. To terminate it in the middle of
    // that would be to interrupt it wherever it is, perhaps with the table's lock.
    let left = killAt + (member?.isThread === true ? AGAIN_MS : 0) - now;
    if (left <= 0 && member?.isThread === true && !this.#condemned.has(key)) {
      if (condemn(table, slot)) this.#condemned.add(key);
      else left += LAST_WORD_MS;
    }
    if (left <= 0) tasks.signals.push({ slot, signal: "SIGKILL", member });
    tasks.next = Math.min(tasks.next, left > 0 ? left : AGAIN_MS);
  }

  /** A row that nobody has claimed yet. */
  #watchStart(slot: number, tasks: Tasks): void {
    const table = this.#table;
    const key = keyOf(attemptOf(table, slot));
    const member = this.members.get(key);
    if (member?.end !== undefined) {
      settle(table, slot, member.end);
      this.members.delete(key);
    } else if (table.has(slot, TERMINATE)) {
      endAttempt(table, slot, true);
      tasks.next = 0;
    } else if (member !== undefined) {
      // Its end is told to us; until then it keeps its row.
      const left = member.startedAt + CLAIM_MAX_MS - Date.now();
      if (left <= 0) tasks.signals.push({ slot, signal: "SIGKILL", member });
      tasks.next = Math.min(tasks.next, left > 0 ? left : AGAIN_MS);
    }
  }

  /** Kills what was started in vain: nobody can claim with its number any more. */
  #dropSuperseded(): void {
    const table = this.#table;
    for (const [key, member] of this.members) {
      const { slot, generation, attempt } = member.attempt;
      const isPresent = isCurrent(table, member.attempt) &&
        table.get(slot, GENERATION) === generation && table.get(slot, ATTEMPT) === attempt &&
        (isRunning(table, slot) || table.get(slot, STATE) === STARTING);
      if (isPresent) continue;
      if (member.end !== undefined) this.members.delete(key);
      else member.signal("SIGKILL");
    }
  }

  // ---- databases -----------------------------------------------------------------------------

  /** A worker for each database that somebody is in, unless it was dropped under them. */
  #makeInstances(
    slot: number,
    live: LiveBackend[],
    databases: () => ReadonlySet<number>,
  ): void {
    const table = this.#table;
    if (table.has(slot, TERMINATE)) return;
    const template = { slot, generation: table.get(slot, GENERATION) };
    const known = new Set(instancesOf(table, template).map((row) => table.get(row, DATABASE_ID)));
    for (const { databaseId, database } of live) {
      if (known.has(databaseId)) continue;
      known.add(databaseId);
      if (!databases().has(databaseId)) continue;
      // Without room: when a row becomes free, that is a change, and this is tried again.
      register(table, {
        spec: table.specBytes(slot),
        isTemplate: false,
        isStatic: false,
        parent: template,
        database: { id: databaseId, name: database },
      });
    }
  }

  #endTemplate(slot: number): void {
    const table = this.#table;
    if (!table.has(slot, TERMINATE)) {
      if (isDamaged(table, slot)) stop(table, slot, DAMAGED);
      return;
    }
    goOnTerminating(table, slot);
  }

  /**
   * Ends workers whose database is gone, or whose template is: somebody has died before he could
   * tell them. That a database is not there counts only if it is so now that the lock is held, for
   * whoever makes a row for one has seen it.
   */
  #endOrphans(databases: () => ReadonlySet<number>): void {
    const table = this.#table;
    for (let slot = 0; slot < ROWS_MAX; slot++) {
      if (table.get(slot, STATE) === FREE) continue;
      const parent = parentOf(table, slot);
      if (parent === undefined) continue;
      const grace = table.spec(slot)?.grace ?? GRACE_MS;
      if (!databases().has(table.get(slot, DATABASE_ID))) drop(table, slot, grace);
      else if (!isCurrent(table, parent)) terminate(table, slot, grace);
    }
  }

  /** Frees the row of a worker whose database is gone, once nobody is in it any more. */
  #bury(slot: number, live: LiveBackend[]): void {
    const table = this.#table;
    if (!table.has(slot, DROPPED) || parentOf(table, slot) === undefined) return;
    const id = table.get(slot, DATABASE_ID);
    if (!live.some(({ databaseId }) => databaseId === id)) table.set(slot, STATE, FREE);
  }
}

const DAMAGED = "its row in shared memory is damaged: somebody has overwritten it";
