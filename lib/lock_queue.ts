/**
 * The tasks of one isolate that want the same lock.
 *
 * The lock belongs to the backend, that is to the isolate as a whole. Its tasks share it by this
 * queue: in the order in which they came, those that want it shared together. The first of the
 * queue waits for the rest of the world; the others wait for it.
 *
 * @module
 */

import type { LockMode } from "./lock_arguments.ts";
import { type AsyncWaitOptions, wait } from "./wait.ts";

/** What the queue does with the lock itself. All of it throws what the lock throws. */
export interface QueuedLock {
  /** One attempt that sets a watch where it fails: 0, 1 (it was abandoned), or the watch. */
  watch(mode: LockMode): number;
  /** Takes back what `watch` has left. */
  cancel(): void;
  /** Lets go, if it is held. */
  free(): void;
  /** Whether this isolate holds it, by whatever call. */
  isHeld(): boolean;
  /** Whether somebody elsewhere waits to come in. */
  isWanted(): boolean;
  /** What a task that has waited too long is told. */
  late(timeout: number): unknown;
}

/** One task's share of the lock. */
export interface LockHold {
  /** Whether an exclusive holder had died inside before. */
  readonly abandoned: boolean;
}

class Task {
  readonly mode: LockMode;
  readonly resolve: (hold: LockHold) => void;
  readonly reject: (reason: unknown) => void;
  timer: ReturnType<typeof setTimeout> | undefined;
  signal: AbortSignal | undefined;
  onAbort: (() => void) | undefined;

  constructor(
    mode: LockMode,
    resolve: (hold: LockHold) => void,
    reject: (reason: unknown) => void,
  ) {
    this.mode = mode;
    this.resolve = resolve;
    this.reject = reject;
  }

  /** Stops listening for reasons to give up. */
  end(): void {
    if (this.timer !== undefined) clearTimeout(this.timer);
    if (this.onAbort !== undefined) this.signal?.removeEventListener("abort", this.onAbort);
  }
}

/** An outcome of the native wait: not to be had before this isolate itself lets go. */
const HELD_HERE = 2;
/** The longest delay that timers keep exactly. */
const TIMER_MAX_MS = 0x7fffffff;

/** The queue of one lock. */
export class LockQueue {
  readonly #lock: QueuedLock;
  #tasks: Task[] = [];
  readonly #holds = new Set<LockHold>();
  #mode: LockMode = "exclusive";
  /** Ends the native wait of the first task, while there is one. */
  #waiting: AbortController | undefined;

  constructor(lock: QueuedLock) {
    this.#lock = lock;
  }

  /** How many tasks hold the lock. */
  get holders(): number {
    return this.#holds.size;
  }

  /** Whether it has not been taken away. */
  has(hold: LockHold): boolean {
    return this.#holds.has(hold);
  }

  /** How many tasks wait for it. */
  get waiters(): number {
    return this.#tasks.length;
  }

  /** Shares what tasks of this isolate hold already, if nobody is to be kept waiting by that. */
  join(mode: LockMode): LockHold | undefined {
    if (this.#holds.size === 0 || this.#tasks.length > 0) return undefined;
    if (mode !== "shared" || this.#mode !== "shared" || this.#lock.isWanted()) return undefined;
    return this.#add("shared", false);
  }

  /** Notes that a task has the lock, which has just been acquired natively. */
  adopt(mode: LockMode, abandoned: boolean): LockHold {
    return this.#add(mode, abandoned);
  }

  #add(mode: LockMode, abandoned: boolean): LockHold {
    const hold = { abandoned };
    this.#mode = mode;
    this.#holds.add(hold);
    return hold;
  }

  /** Waits for the lock behind all who came before. */
  enqueue(mode: LockMode, { timeout, signal }: AsyncWaitOptions): Promise<LockHold> {
    return new Promise((resolve, reject) => {
      const task = new Task(mode, resolve, reject);
      this.#tasks.push(task);
      this.pump();
      if (!this.#tasks.includes(task)) return;
      if (signal !== undefined) {
        task.signal = signal;
        task.onAbort = () => this.#giveUp(task, signal.reason);
        signal.addEventListener("abort", task.onAbort);
      }
      if (timeout !== undefined && timeout !== Infinity) {
        this.#expire(task, timeout, performance.now() + timeout);
      }
    });
  }

  #expire(task: Task, timeout: number, until: number): void {
    const left = until - performance.now();
    if (left <= 0) {
      this.#giveUp(task, this.#lock.late(timeout));
    } else {
      task.timer = setTimeout(
        () => this.#expire(task, timeout, until),
        Math.min(left, TIMER_MAX_MS),
      );
    }
  }

  #giveUp(task: Task, reason: unknown): void {
    const place = this.#tasks.indexOf(task);
    if (place < 0) return;
    this.#tasks.splice(place, 1);
    task.end();
    if (place === 0) this.pause();
    task.reject(reason);
    this.pump();
  }

  /** Ends the native wait, so that this isolate can use the lock otherwise. Then `pump`. */
  pause(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.abort();
  }

  /** Lets the first task wait for the lock, if there is one and nothing of ours is in its way. */
  pump(): void {
    if (this.#waiting !== undefined || this.#tasks.length === 0) return;
    if (this.#holds.size > 0 || this.#lock.isHeld()) return;
    const [task] = this.#tasks;
    if (task === undefined) return;
    const waiting = new AbortController();
    this.#waiting = waiting;
    wait({
      attempt: () => {
        // Sync code has taken it before the first attempt, which waits for the doorbell. Its
        // release pumps.
        if (this.#lock.isHeld()) {
          this.#waiting = undefined;
          return HELD_HERE;
        }
        const outcome = this.#lock.watch(task.mode);
        // In the same turn: nothing can come between the lock and the task.
        if (outcome <= 1) this.#grant(task, outcome === 1);
        return outcome;
      },
      giveUp: () => this.#lock.cancel(),
      late: () => undefined,
    }, { signal: waiting.signal }).catch((error) => {
      // Paused, or the task has given up: it is told by whoever did that.
      if (this.#waiting !== waiting) return;
      this.#waiting = undefined;
      this.#tasks.shift();
      task.end();
      task.reject(error);
      this.pump();
    });
  }

  #grant(task: Task, abandoned: boolean): void {
    this.#waiting = undefined;
    this.#tasks.shift();
    task.end();
    task.resolve(this.#add(task.mode, abandoned));
    if (task.mode !== "shared") return;
    // Those behind it that want the same came before anybody who asks from now on.
    while (this.#tasks[0]?.mode === "shared") {
      const next = this.#tasks.shift();
      next?.end();
      next?.resolve(this.#add("shared", false));
    }
  }

  /** One task lets go; the last one frees the lock. Does nothing the second time. */
  drop(hold: LockHold): void {
    if (!this.#holds.delete(hold) || this.#holds.size > 0) return;
    try {
      this.#lock.free();
    } finally {
      this.pump();
    }
  }

  /** The lock is not held any more, whatever the tasks believe; the waiting ones try again. */
  forgetHolds(): void {
    this.#holds.clear();
    this.pause();
    this.pump();
  }
}
