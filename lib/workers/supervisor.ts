/**
 * The supervisor: starts background workers, and sees to it that they run, or have ended.
 *
 * Every backend that is opened with `supervise: true` is willing. One of them holds the lock of a
 * segment of the library's own, exclusively, as long as it lives; the others wait for it. When it
 * dies, the next one has it some milliseconds later. It writes its id into the table's header, and
 * goes through all rows: what runs it watches, what was being started it starts anew. Why no worker
 * runs twice, whoever dies when, is told in lifecycle.ts.
 *
 * It does not hang on to the lock: `releaseAll()` of the program takes it away. Then the next one
 * supervises at once; this one finds another id in the header when it wants to do something, and
 * queues again. The processes that it has started stay its children. Their ends it does not tell
 * the other, who has them from the worker's own word, and from the death of its backend.
 *
 * It sleeps on the table's sequence, and on backends that come and go; children tell their ends;
 * what is due at a time has a timer. Every one of these leads to a `pass` through the rows, which
 * changes what is to be changed, under the table's lock, and then does what is to be done outside
 * (start, kill), without it. A pass that changes nothing wakes nobody.
 *
 * @module
 */

import process from "node:process";
import type { Backend } from "../backend.ts";
import { DsmrError } from "../errors.ts";
import { check, lastError, messageOf, native } from "../ffi/native.ts";
import { handleOf, type Segment } from "../segment.ts";
import { impatiently, patiently, reconsider, wait } from "../wait.ts";
import { pause } from "./lifecycle.ts";
import { isRunning } from "./rows.ts";
import { isProcessOf, kill, Member } from "./member.ts";
import { attemptOf, DUE_MAX_MS, keyOf, Rounds, type Start } from "./rounds.ts";
import { GRACE_MS } from "./spec.ts";
import {
  Arrivals,
  BACKEND,
  CANDIDATES,
  databaseIds,
  electionOf,
  isAlive,
  type LiveBackend,
  liveBackends,
  ROWS_MAX,
  SLOTS,
  STARTING,
  STATE,
  SUPERVISOR,
  WorkerTable,
} from "./table.ts";

/** Before a pass is tried again that could not be made. */
const LATER_MS = 1000;
/** Who hears of a destroyed registry by itself does so within that time. */
const HEARING_MS = 1000;

/** Where the registry is. */
export interface RegistryPlace {
  dir: string;
  name: string;
}

/** A backend that is willing to supervise, or does. */
export class Supervisor {
  readonly #backend: Backend;
  readonly #table: WorkerTable;
  readonly #place: RegistryPlace;
  readonly #giveUp: (cause: unknown) => void;
  readonly #end = new AbortController();
  readonly #onExit = (): void => this.end();
  readonly #rounds: Rounds;
  #lock = 0;
  #isElected = false;
  #isPassing = false;
  #isKicked = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `giveUp`: is called once, with the reason, if it cannot go on. */
  constructor(table: WorkerTable, place: RegistryPlace, giveUp: (cause: unknown) => void) {
    this.#backend = table.backend;
    this.#place = place;
    this.#giveUp = giveUp;
    this.#table = table;
    this.#rounds = new Rounds(table);
    process.on("exit", this.#onExit);
    void this.#guard(() => this.#run());
  }

  /** Whether this backend is the one that supervises. */
  get isElected(): boolean {
    return this.#isElected;
  }

  get #hasEnded(): boolean {
    return this.#end.signal.aborted;
  }

  /** Runs something until the end; what ends it otherwise is dealt with. */
  async #guard(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (cause) {
      if (this.#hasEnded) return;
      const isOver = cause instanceof DsmrError &&
        (cause.code === "CLOSED" || cause.code === "DETACHED");
      if (isOver) {
        this.#leave();
        // The registry was destroyed. Its workers have heard it, too.
        this.#dismiss(() => true, HEARING_MS);
        return;
      }
      this.#fail(cause);
    }
  }

  /** Gives up, as if closed: so another one that is willing has the lock, and tries. */
  #fail(cause: unknown): void {
    let why = cause;
    try {
      this.end();
    } catch (worse) {
      why = new AggregateError([cause, worse], `${messageOf(cause)} Then: ${messageOf(worse)}`);
    }
    this.#giveUp(why);
  }

  // ---- election ------------------------------------------------------------------------------

  async #run(): Promise<void> {
    const { signal } = this.#end;
    const table = this.#table;
    const slot = this.#backend.id & 0xff;
    await table.change(() => table.setHead(CANDIDATES + slot, this.#backend.id | 0), { signal });
    const { handle } = this.#backend;
    const segment = await patiently(
      () => impatiently(handle, () => electionOf(this.#backend)),
      { signal },
    );
    for (;;) {
      // The last one may be dead, and others keep it from being cleared away for a moment.
      await patiently(() => this.#elect(segment), { signal });
      await table.change(() => table.setHead(SUPERVISOR, this.#backend.id | 0), { signal });
      this.#isElected = true;
      await this.#supervise();
      this.#isElected = false;
      this.#release();
    }
  }

  async #elect(segment: Segment): Promise<void> {
    const { calls, error, number } = native();
    this.#lock = check(calls.dsmr_lock_of_segment(handleOf(segment), error.bytes));
    const attempt = (): number => {
      void segment.buffer;
      const status = calls.dsmr_lock_watch(this.#lock, number("DSMR_EXCLUSIVE"));
      if (status >= 0) return status;
      calls.dsmr_lock_explain(this.#lock, status, -1, error.bytes);
      throw lastError(status);
    };
    const outcome = await wait({
      attempt,
      giveUp: () => void calls.dsmr_lock_cancel(this.#lock),
      late: () => undefined,
      // Being willing keeps no program alive.
      isWeak: () => true,
    }, { signal: this.#end.signal });
    // What the last one has left half-done is in the rows.
    if (outcome === number("DSMR_LOCK_ABANDONED")) calls.dsmr_lock_mark_consistent(this.#lock);
  }

  #release(): void {
    const { calls } = native();
    // The state also tells whether others hold it.
    if (calls.dsmr_lock_state(this.#lock) % 4 > 0) calls.dsmr_lock_release(this.#lock);
  }

  /** Until another one supervises. */
  async #supervise(): Promise<void> {
    const term = new AbortController();
    const { signal } = term;
    const onEnd = (): void => term.abort(this.#end.signal.reason);
    this.#end.signal.addEventListener("abort", onEnd);
    const isWeak = (): boolean => !this.#rounds.hasWork;
    const arrivals = new Arrivals(this.#backend);
    const table = this.#table;
    const place = table.changesOf(undefined);
    const robbed = Promise.withResolvers<void>();
    this.#kick = () => {
      this.#isKicked = true;
      if (!this.#isPassing) this.#passes(signal).then(robbed.resolve, robbed.reject);
    };
    const follow = async (next: () => Promise<void>): Promise<void> => {
      for (;;) {
        await next();
        this.#kick();
      }
    };
    const changes = async (): Promise<void> => {
      for (let seen = table.word(place);;) {
        await table.changed(place, seen, { signal }, isWeak);
        seen = table.word(place);
        this.#kick();
      }
    };
    const following = [changes(), follow(() => arrivals.next({ signal }, isWeak))];
    // The race is told of the first; the others end by the abort.
    for (const promise of [...following, robbed.promise]) promise.catch(() => {});
    this.#kick();
    try {
      await Promise.race([robbed.promise, ...following]);
    } finally {
      this.#kick = () => {};
      this.#end.signal.removeEventListener("abort", onEnd);
      term.abort();
      clearTimeout(this.#timer);
      this.#rounds.hasWork = false;
      reconsider();
    }
  }

  /** Has the rows looked at. */
  #kick: () => void = () => {};

  /** Never settles while this is the supervisor. */
  async #passes(signal: AbortSignal): Promise<void> {
    this.#isPassing = true;
    try {
      while (this.#isKicked && !signal.aborted) {
        this.#isKicked = false;
        if (!await this.#tryPass(signal)) return;
      }
    } finally {
      this.#isPassing = false;
    }
    // Kicked again later.
    await new Promise(() => {});
  }

  // ---- a pass through the rows ---------------------------------------------------------------

  /** As `#pass`; later, while a stopped process is in the middle of changing the tables. */
  async #tryPass(signal: AbortSignal): Promise<boolean> {
    try {
      return await this.#pass(signal);
    } catch (error) {
      if (!(error instanceof DsmrError) || error.code !== "TIMEOUT") throw error;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#kick(), LATER_MS);
      return true;
    }
  }

  /** False: somebody else supervises. */
  async #pass(signal: AbortSignal): Promise<boolean> {
    const table = this.#table;
    const live = liveBackends(this.#backend);
    const tasks = await table.change(() => {
      if (table.head(SUPERVISOR) !== (this.#backend.id | 0)) return undefined;
      return this.#rounds.look(live, () => databaseIds(this.#backend));
    }, { signal });
    if (tasks === undefined || signal.aborted) return false;
    for (const task of tasks.starts) void this.#guard(() => this.#launch(task));
    for (const { slot, signal, member } of tasks.signals) this.#signal(slot, signal, member, live);
    clearTimeout(this.#timer);
    if (tasks.next !== Infinity) {
      this.#timer = setTimeout(() => this.#kick(), Math.min(Math.max(tasks.next, 0), DUE_MAX_MS));
    }
    reconsider();
    return true;
  }

  // ---- what is done without the lock ---------------------------------------------------------

  async #launch({ attempt, spec, database }: Start): Promise<void> {
    const key = keyOf(attempt);
    const orders = {
      ...attempt,
      worker: spec.name,
      ...this.#place,
      database,
      instance: String(this.#backend.instance),
    };
    const member = await Member.start(orders, spec, () => this.#kick());
    this.#rounds.launched(key, member);
    // Closed in between: it will find that it is too late.
    if (this.#hasEnded) member.signal("SIGKILL");
    else this.#kick();
  }

  #signal(
    slot: number,
    signal: "SIGTERM" | "SIGKILL",
    member: Member | undefined,
    live: LiveBackend[],
  ): void {
    member?.signal(signal);
    const table = this.#table;
    // A thread is in a process that is not ours to kill.
    if (table.spec(slot)?.thread !== false) return;
    // The number as the backend gave it, not the row's; and asked once more just before.
    const id = table.get(slot, BACKEND) >>> 0;
    const pid = live.find((backend) => backend.id === id)?.pid;
    if (pid === undefined || pid <= 1 || pid === process.pid) return;
    // It may be a child of our child: where the runtime's program is a script, for instance.
    if (pid === member?.pid) return;
    const attempt = attemptOf(table, slot);
    if (isProcessOf(pid, attempt, this.#backend.instance) && isAlive(this.#backend, id)) {
      kill(pid, signal);
    }
  }

  // ---- the end -------------------------------------------------------------------------------

  /** Nothing happens here any more. */
  #leave(): void {
    this.#end.abort();
    process.off("exit", this.#onExit);
    clearTimeout(this.#timer);
    this.#isElected = false;
  }

  /**
   * Hands over to another one that is willing; if there is none, tells the workers to stop until
   * there is. Does not wait for that; but the program does, at most for their grace.
   */
  end(): void {
    if (this.#hasEnded) return;
    this.#leave();
    const table = this.#table;
    const self = this.#backend.id | 0;
    const paused = new Set<string>();
    let isLost = false;
    try {
      const live = liveBackends(this.#backend);
      const slots = table.changeSync(() => {
        if (table.head(CANDIDATES + (self & 0xff)) === self) {
          table.setHead(CANDIDATES + (self & 0xff), 0);
        }
        if (table.head(SUPERVISOR) !== self) return [];
        const isAlone = !this.#hasHeir();
        table.setHead(SUPERVISOR, 0);
        const slots: number[] = [];
        for (let slot = 0; slot < ROWS_MAX; slot++) {
          const isStarting = table.get(slot, STATE) === STARTING;
          if (!isStarting && !isRunning(table, slot)) continue;
          const spec = table.spec(slot);
          const key = keyOf(attemptOf(table, slot));
          // Our threads may end with us.
          if (!isAlone && this.#rounds.memberOf(slot)?.isThread !== true) continue;
          pause(table, slot, spec?.grace ?? GRACE_MS);
          paused.add(key);
          if (!isStarting) slots.push(slot);
        }
        return slots;
      });
      for (const slot of slots) {
        const member = this.#rounds.memberOf(slot);
        if (member === undefined) this.#signal(slot, "SIGTERM", undefined, live);
      }
    } catch (error) {
      // Destroyed; or a stopped process has the table, and it is as if we had died.
      if (!(error instanceof DsmrError)) throw error;
      isLost = error.code === "CLOSED" || error.code === "DETACHED";
    }
    this.#release();
    this.#dismiss((key) => isLost || paused.has(key), isLost ? HEARING_MS : 0);
  }

  /** Whether another live backend would supervise. With the lock held. */
  #hasHeir(): boolean {
    const table = this.#table;
    for (let slot = 0; slot < SLOTS; slot++) {
      const id = table.head(CANDIDATES + slot);
      if (id !== 0 && id !== (this.#backend.id | 0) && isAlive(this.#backend, id)) return true;
    }
    return false;
  }

  /**
   * Sees to it that what we have started, and which is to end, does so. `hearing`: how much longer
   * than its grace it has, where it hears by itself that its registry is gone.
   */
  #dismiss(isMeant: (key: string) => boolean, hearing: number): void {
    for (const [key, member] of this.#rounds.members) {
      if (member.end !== undefined || !isMeant(key)) continue;
      if (hearing === 0) member.signal("SIGTERM");
      member.hold();
      // A thread ends itself then, unless it blocks: not to be interrupted in the middle of that.
      const more = member.isThread ? HEARING_MS : hearing;
      const timer = setTimeout(() => member.signal("SIGKILL"), member.grace + more);
      member.whenEnded(() => clearTimeout(timer));
    }
  }
}
