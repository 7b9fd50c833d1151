/**
 * What the tasks of one isolate do with a lock, and sync code that meets them.
 *
 * Natively the isolate either holds the lock or does not. Where it does, it is by sync code, of
 * which nothing is noted down here, or by shares, one for each task, and for each sync call that
 * has joined tasks: never by both. So a release knows whose it is: the native lock's while there
 * are no shares, else one of the shares that are nobody's in particular; a callback's or a
 * `using` block's is given back by these alone.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { native } from "./ffi/native.ts";
import {
  ABANDONED,
  BUSY,
  EXCLUSIVE,
  halves,
  type LockMode,
  modeNumber,
  STATE_WANTED,
} from "./lock_arguments.ts";
import { type LockHold, LockQueue } from "./lock_queue.ts";
import type { NativeLock } from "./native_lock.ts";
import {
  type AsyncWaitOptions,
  checkWaitOptions,
  patiently,
  wait,
  type WaitRequest,
} from "./wait.ts";

/** Stands for no variable. */
const NO_VARIABLE = [0xffffffff, 0xffffffff] as const;

/** The tasks that use the async forms of a lock. */
export class LockTasks {
  readonly #lock: NativeLock;
  /** Tells by its `busy` whether any task is about. */
  readonly queue: LockQueue;
  /** The shares that `release` lets go of; the others are a callback's or a `using`'s. */
  readonly #anonymous: LockHold[] = [];

  constructor(lock: NativeLock) {
    this.#lock = lock;
    const { calls, handle } = lock;
    this.queue = new LockQueue({
      watch: (mode) => lock.check(calls.dsmr_lock_watch(handle, modeNumber(mode))),
      cancel: () => void calls.dsmr_lock_cancel(handle),
      free: () => lock.free(),
      isHeld: () => lock.held > 0,
      isWanted: () => (calls.dsmr_lock_state(handle) & STATE_WANTED) !== 0,
      late: (timeout) => lock.failure("TIMEOUT", timeout),
    });
  }

  /** Whether the lock is held by shares. */
  get areInside(): boolean {
    return this.queue.holders > 0;
  }

  /** The segment was detached, or all its locks released: no task holds it any more. */
  forgetHolds(): void {
    this.#anonymous.length = 0;
    this.queue.forgetHolds();
  }

  /** A share that `release` is to let go of, unless it has been taken away. */
  keep(share: LockHold): void {
    if (this.queue.has(share)) this.#anonymous.push(share);
  }

  drop(share: LockHold): void {
    this.queue.drop(share);
  }

  release(): void {
    if (this.areInside) {
      const share = this.#anonymous.pop();
      if (share === undefined) throw this.#lock.failure("NOT_HELD");
      this.queue.drop(share);
      return;
    }
    this.#lock.check(this.#lock.calls.dsmr_lock_release(this.#lock.handle));
    this.queue.pump();
  }

  // ---- sync code --------------------------------------------------------------------------

  /** Whether a sync call failed because of tasks of this isolate. */
  isInTheWay(status: number): boolean {
    return this.queue.busy > 0 && native().codeOf.get(status) === "ALREADY_HELD";
  }

  /** A sync call that wants it shared shares what tasks hold shared. */
  join(status: number): LockHold | undefined {
    return this.isInTheWay(status) ? this.queue.joinAnyway() : undefined;
  }

  /**
   * Whether a sync call failed because a task waits, too: it goes on when the call is through and
   * `resume` called, or `release`. The call is to try again. Throws if a task holds the lock.
   */
  pause(status: number): boolean {
    if (status >= 0 || !this.isInTheWay(status)) return false;
    if (this.areInside) throw this.inside();
    this.queue.pause();
    return true;
  }

  resume(): void {
    this.queue.pump();
  }

  /** The error of a sync call that would wait for a task. */
  inside(): DsmrError {
    return new DsmrError(
      "DEADLOCK",
      `A task of this program holds the lock of segment "${this.#lock.segment.name}". Blocking ` +
        "here would keep it from ever letting go. Await the async form instead.",
    );
  }

  /** A `tryAcquire` that tasks are in the way of. */
  tryAcquire(mode: LockMode): boolean {
    const lock = this.#lock;
    if (this.areInside) {
      const share = this.queue.join(mode);
      if (share !== undefined) this.#anonymous.push(share);
      return share !== undefined;
    }
    this.queue.pause();
    const status = lock.calls.dsmr_lock_try(lock.handle, modeNumber(mode));
    if (status === BUSY || status < 0) this.queue.pump();
    lock.check(status);
    if (status === ABANDONED) this.mend();
    return status !== BUSY;
  }

  // ---- tasks --------------------------------------------------------------------------------

  mend(): void {
    this.#lock.mend(() => this.forgetHolds());
  }

  /** Takes a share of the lock, behind all who came before. */
  async hold(mode: LockMode, options: AsyncWaitOptions | undefined): Promise<LockHold> {
    const lock = this.#lock;
    const number = modeNumber(mode);
    const checked = this.#checkBegin(options);
    const queue = this.queue;
    let hold: LockHold | undefined;
    if (queue.waiters === 0) {
      hold = queue.join(mode);
      if (hold === undefined && queue.holders === 0) {
        const status = lock.calls.dsmr_lock_try(lock.handle, number);
        if (status === 0 || status === ABANDONED) hold = queue.adopt(mode, status === ABANDONED);
        // What sync code of this isolate holds it will let go of.
        else if (native().codeOf.get(status) !== "ALREADY_HELD") lock.check(status);
      }
    }
    hold ??= await queue.enqueue(mode, checked);
    // It may have been taken away since, by releaseAll or a detach.
    if (hold.abandoned && queue.has(hold)) this.mend();
    return hold;
  }

  #checkBegin(options: AsyncWaitOptions | undefined): AsyncWaitOptions {
    const checked = checkWaitOptions(options);
    checked.signal?.throwIfAborted();
    this.#lock.checkAttached();
    return checked;
  }

  /** Runs `change` in the turn in which the lock is acquired. */
  async run<Result>(change: () => Result, options: AsyncWaitOptions | undefined): Promise<Result> {
    return await this.queue.run(change, this.#checkBegin(options));
  }

  async acquireOrWait(options: AsyncWaitOptions | undefined): Promise<boolean> {
    const lock = this.#lock;
    const checked = this.#checkBegin(options);
    const queue = this.queue;
    if (queue.busy > 0 || lock.held > 0) {
      // Its own isolate has it: wait in the queue, and take it for no longer than that.
      queue.drop(await queue.enqueue("exclusive", checked));
      return false;
    }
    const status = lock.calls.dsmr_lock_try(lock.handle, EXCLUSIVE);
    if (status === 0 || status === ABANDONED) {
      this.#anonymous.push(queue.adopt("exclusive", status === ABANDONED));
      if (status === ABANDONED) this.mend();
      return true;
    }
    lock.check(status);
    // Until another backend has let go: also when this isolate has it by then.
    await this.watchVariable(undefined, new BigUint64Array(1), checked, true);
    return false;
  }

  /**
   * Without an offset: until the lock is let go. 0: nobody holds it exclusively, or, as `endsHere`
   * says, this isolate does. 1: as the library.
   */
  async watchVariable(
    byteOffset: number | undefined,
    value: BigUint64Array<ArrayBuffer>,
    options: AsyncWaitOptions,
    endsHere = false,
  ): Promise<number> {
    const { calls, handle } = this.#lock;
    const [low, high] = byteOffset === undefined ? NO_VARIABLE : halves(byteOffset);
    const bytes = new Uint8Array(value.buffer);
    const timeout = options.timeout ?? -1;
    const request: WaitRequest = {
      attempt: () => {
        if (endsHere && this.#lock.held === EXCLUSIVE) return 0;
        const status = calls.dsmr_lock_watch_variable(handle, low, high, bytes);
        return this.#lock.check(status, timeout, byteOffset);
      },
      late: () => this.#lock.failure("TIMEOUT", timeout),
    };
    // The holder may be dead, and a stopped process keep it from being cleared away.
    return await patiently((left) => wait(request, left), options);
  }
}
