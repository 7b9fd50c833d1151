/**
 * The tasks of one isolate that want the same lock.
 *
 * The lock belongs to the backend, that is to the isolate as a whole. Its tasks share it by this
 * queue: in the order in which they came, those that want it shared together. The first of the
 * queue waits for the rest of the world; the others wait for it.
 *
 * @module
 */

import { onAbort } from "./aborts.ts";
import { DsmrError } from "./errors.ts";
import type { LockMode } from "./lock_arguments.ts";
import {
  type AsyncWaitOptions,
  type Deadline,
  reasonOf,
  startDeadline,
  TABLE_PAUSE_MS,
  wait,
} from "./wait.ts";

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
  /** It has the lock. Must not throw. */
  readonly take: (hold: LockHold) => void;
  readonly reject: (reason: unknown) => void;
  deadline: Deadline | undefined;
  stopListening: (() => void) | undefined;
  isQueued = true;
  previous: Task | undefined;
  next: Task | undefined;

  constructor(
    mode: LockMode,
    take: (hold: LockHold) => void,
    reject: (reason: unknown) => void,
  ) {
    this.mode = mode;
    this.take = take;
    this.reject = reject;
  }
}

/** Tasks in the order in which they came. Linked: all of ten thousand may give up at once. */
class TaskList {
  #first: Task | undefined;
  #last: Task | undefined;
  #length = 0;

  get first(): Task | undefined {
    return this.#first;
  }

  get length(): number {
    return this.#length;
  }

  add(task: Task): void {
    task.previous = this.#last;
    if (this.#last === undefined) this.#first = task;
    else this.#last.next = task;
    this.#last = task;
    this.#length++;
  }

  /** Takes a task out, which stops listening for reasons to give up. */
  remove(task: Task): void {
    const { previous, next } = task;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    task.previous = task.next = undefined;
    task.isQueued = false;
    this.#length--;
    task.deadline?.end();
    task.stopListening?.();
  }
}

/** An outcome of the native wait: not to be had before this isolate itself lets go. */
const HELD_HERE = 2;

/** The queue of one lock. */
export class LockQueue {
  readonly #lock: QueuedLock;
  readonly #tasks = new TaskList();
  readonly #holds = new Set<LockHold>();
  #mode: LockMode = "exclusive";
  /** How many tasks hold the lock or wait for it: a plain field, for the release of sync code. */
  busy = 0;
  /** The native wait, while there is one: for the first task, and in its mode. */
  #waiting: { readonly mode: LockMode; readonly end: AbortController } | undefined;

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
    if (mode !== "shared" || this.#tasks.length > 0) return undefined;
    return this.#lock.isWanted() ? undefined : this.joinAnyway();
  }

  /**
   * Shares what tasks of this isolate hold already, if they hold it shared; also past others who
   * wait: for sync code, which cannot wait for them, as they wait for its isolate.
   */
  joinAnyway(): LockHold | undefined {
    if (this.#holds.size === 0 || this.#mode !== "shared") return undefined;
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
    this.busy++;
    return hold;
  }

  /** Waits for the lock behind all who came before. */
  enqueue(mode: LockMode, options: AsyncWaitOptions): Promise<LockHold> {
    return new Promise((resolve, reject) => this.#append(new Task(mode, resolve, reject), options));
  }

  /**
   * Runs `change` with the lock held exclusively, behind all who came before, in the very turn in
   * which it is acquired, and lets go in that turn, too: no other code of this isolate ever meets
   * the lock held. What comes next in the queue gets its turn by a microtask, not from in here:
   * ten thousand changes in a row must not be ten thousand calls deep.
   */
  run<Result>(change: () => Result, options: AsyncWaitOptions): Promise<Result> {
    return new Promise((resolve, reject) => {
      const take = (hold: LockHold): void => {
        try {
          let result: Result;
          try {
            result = change();
          } finally {
            this.#leave(hold);
          }
          resolve(result);
        } catch (error) {
          reject(error);
        }
        queueMicrotask(() => this.pump());
      };
      this.#append(new Task("exclusive", take, reject), options);
    });
  }

  #append(task: Task, { timeout, signal }: AsyncWaitOptions): void {
    this.#tasks.add(task);
    this.busy++;
    this.pump();
    if (!task.isQueued) return;
    if (signal !== undefined) {
      task.stopListening = onAbort(signal, () => this.#giveUp(task, signal.reason));
    }
    task.deadline = startDeadline(
      timeout,
      () => this.#giveUp(task, reasonOf(() => this.#lock.late(timeout ?? Infinity))),
    );
  }

  #remove(task: Task): void {
    this.#tasks.remove(task);
    this.busy--;
  }

  #giveUp(task: Task, reason: unknown): void {
    if (!task.isQueued) return;
    this.#remove(task);
    task.reject(reason);
    // The next one takes over the place among those who wait elsewhere, if it wants the same.
    if (this.#tasks.first?.mode !== this.#waiting?.mode) this.pause();
    this.pump();
  }

  /** Ends the native wait, so that this isolate can use the lock otherwise. Then `pump`. */
  pause(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.end.abort();
  }

  /** Lets the first task wait for the lock, if there is one and nothing of ours is in its way. */
  pump(): void {
    if (this.#waiting !== undefined || this.#holds.size > 0) return;
    const task = this.#tasks.first;
    if (task === undefined || this.#lock.isHeld()) return;
    const waiting = { mode: task.mode, end: new AbortController() };
    this.#waiting = waiting;
    wait({
      attempt: () => {
        // Sync code has taken it before the first attempt, which waits for the doorbell. Its
        // release pumps.
        if (this.#lock.isHeld()) {
          this.#waiting = undefined;
          return HELD_HERE;
        }
        const outcome = this.#lock.watch(waiting.mode);
        // In the same turn: nothing can come between the lock and the task.
        if (outcome <= 1) this.#grant(outcome === 1);
        return outcome;
      },
      giveUp: () => this.#lock.cancel(),
      late: () => undefined,
    }, { signal: waiting.end.signal }).catch((error) => {
      // Paused, or the task has given up: it is told by whoever did that.
      if (this.#waiting !== waiting) return;
      this.#waiting = undefined;
      if (error instanceof DsmrError && error.code === "TIMEOUT") {
        // Its holder is dead, and a stopped process keeps it from being cleared away.
        setTimeout(() => this.pump(), TABLE_PAUSE_MS);
        return;
      }
      // Damage is found by looking for a while: not by each of them anew.
      const isForAll = error instanceof DsmrError && error.code === "CORRUPT";
      do {
        const first = this.#tasks.first;
        if (first === undefined) return;
        this.#remove(first);
        first.reject(error);
      } while (isForAll);
      this.pump();
    });
  }

  /** The lock has been acquired natively, in the mode of the first task. */
  #grant(abandoned: boolean): void {
    this.#waiting = undefined;
    const task = this.#tasks.first;
    if (task === undefined) return;
    this.#remove(task);
    task.take(this.#add(task.mode, abandoned));
    if (task.mode !== "shared") return;
    // Those behind it that want the same came before anybody who asks from now on.
    for (let next = this.#tasks.first; next?.mode === "shared"; next = this.#tasks.first) {
      this.#remove(next);
      next.take(this.#add("shared", false));
    }
  }

  /** One share is given back; with the last one the lock is free. */
  #leave(hold: LockHold): void {
    if (!this.#holds.delete(hold)) return;
    this.busy--;
    if (this.#holds.size === 0) this.#lock.free();
  }

  /** One task lets go; the last one frees the lock. Does nothing the second time. */
  drop(hold: LockHold): void {
    try {
      this.#leave(hold);
    } finally {
      this.pump();
    }
  }

  /** The lock is not held any more, whatever the tasks believe; the waiting ones try again. */
  forgetHolds(): void {
    this.busy -= this.#holds.size;
    this.#holds.clear();
    this.pause();
    this.pump();
  }
}
