/**
 * Waiting without blocking: what every async form of the library waits by.
 *
 * A wait is an attempt that is repeated. The attempt is a native call that either says how it
 * went, or sets a watch and returns its id. When the watch fires, the library's watching thread
 * writes a byte to this isolate's doorbell, a socket in the event loop, and the attempt is made
 * again, here. So whatever is acquired is acquired on this thread, in this turn of the loop: an
 * abort or a timeout can only come before it, and then nothing is held, or after it, and then
 * the promise has been settled already.
 *
 * @module
 */

import { onAbort } from "./aborts.ts";
import { DsmrError } from "./errors.ts";
import { check, checkOptions, describe, messageOf, native } from "./ffi/native.ts";
import type { Listener, Runtime } from "./ffi/symbols.ts";

/** How long to wait, and when to give up. */
export interface AsyncWaitOptions {
  /** In milliseconds. Default: for ever. */
  timeout?: number;
  /** Ends the waiting when it is aborted: the promise is rejected with its reason. */
  signal?: AbortSignal;
}

/** Ids of watches are larger than every outcome. */
const OUTCOME_MAX = 0xffff;
/** The longest delay that timers keep exactly. */
const TIMER_MAX_MS = 0x7fffffff;

/** Calls back when a time is over, however long it is. */
export class Deadline {
  readonly #until: number;
  readonly #expired: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** At once when there is no time: before this returns. */
  constructor(timeout: number, expired: () => void) {
    this.#until = performance.now() + timeout;
    this.#expired = expired;
    this.#look();
  }

  #look(): void {
    const left = this.#until - performance.now();
    if (left <= 0) this.#expired();
    else this.#timer = setTimeout(() => this.#look(), Math.min(left, TIMER_MAX_MS));
  }

  /** Does not call any more. */
  end(): void {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
  }
}

/** What is to be told; if it cannot be made, what was thrown: a wait must end either way. */
export function reasonOf(make: () => unknown): unknown {
  try {
    return make();
  } catch (error) {
    return error;
  }
}

/** The deadline of an option; none for one that never comes. */
export function startDeadline(
  timeout: number | undefined,
  expired: () => void,
): Deadline | undefined {
  return timeout === undefined || timeout === Infinity ? undefined : new Deadline(timeout, expired);
}

/** By the id of the watch that has been set for it. */
const pending = new Map<number, Wait>();
let listener: Listener | undefined;
let listening: Promise<void> | undefined;

/**
 * As many as go on in one turn. Each may have acquired a lock that its task lets go of a moment
 * later, and a backend can hold 128: so the tasks run before the next ones try.
 */
const IN_ONE_TURN = 32;
const ids = new Uint32Array(IN_ONE_TURN);
const idBytes = new Uint8Array(ids.buffer);

/** Of those whose wait may be weak. */
const perhapsWeak = new Set<Wait>();
let isHolding = false;

/** Keeps the program alive, or does not: after a wait has become weak, or is not any more. */
export function reconsider(): void {
  let strong = pending.size;
  for (const wait of perhapsWeak) if (wait.isWeak) strong--;
  if (listener === undefined || strong > 0 === isHolding) return;
  isHolding = strong > 0;
  listener.hold(isHolding);
}

/** Makes what is due go on; also those whose watch was ended by a detach or a close. */
function answer(): void {
  const count = native().calls.dsmr_doorbell_answer(idBytes, ids.length);
  // All of them first: a step may set watches, and so answer in between.
  const fired = [...ids.subarray(0, count)].map((id) => {
    const wait = pending.get(id);
    pending.delete(id);
    return wait;
  });
  for (const wait of fired) wait?.step();
  // The doorbell rings again only when all have been answered.
  if (count === ids.length) setTimeout(answer);
  reconsider();
}

/** Listens to this isolate's doorbell, from the first wait on. */
async function listen(): Promise<void> {
  const { calls, error, runtime } = native();
  const descriptor = check(calls.dsmr_doorbell(error.bytes));
  const gone = (cause: unknown): void => {
    // Nobody but a program that closes descriptors that are not its own does that.
    for (const wait of [...pending.values()]) wait.fail(brokenDoorbell(cause));
  };
  listener = await listenTo(runtime, descriptor, answer, gone);
}

/** Has the runtime listen to a descriptor; says which versions can, where this one cannot. */
export async function listenTo(
  runtime: Runtime,
  descriptor: number,
  ring: () => void,
  gone: (cause: unknown) => void,
): Promise<Listener> {
  try {
    return await runtime.listen(descriptor, ring, gone);
  } catch (cause) {
    throw new DsmrError(
      "UNSUPPORTED",
      `Cannot wait without blocking: ${runtime.label} made no socket of the descriptor ` +
        `${descriptor}: ${messageOf(cause)} Use Deno 2.7.12 or Bun 1.4.0, or later, or the calls ` +
        "that end in Sync.",
      { cause },
    );
  }
}

function brokenDoorbell(cause: unknown): DsmrError {
  return new DsmrError(
    "UNSUPPORTED",
    "The socket by which waits are told has been closed by other code of this program. " +
      "Nothing that waits can go on in it. Start it anew, and see what closes descriptors that " +
      "it has not opened.",
    { cause },
  );
}

/**
 * Makes every wait try again: after something was detached or closed, so that those that wait
 * for it find out.
 */
export function retryAll(): void {
  if (pending.size === 0) return;
  const all = [...pending];
  pending.clear();
  for (const [id, wait] of all) {
    native().calls.dsmr_watch_end(id);
    wait.step();
  }
  reconsider();
}

/** What a wait needs to know. */
export interface WaitRequest {
  /**
   * One native attempt. An outcome up to 65,535 ends the wait; a larger number is a watch. What
   * it throws ends the wait, too.
   */
  attempt(): number;
  /** Takes back what the attempt has left in shared memory, when the wait is given up. */
  giveUp?(): void;
  /** What a wait that takes too long is rejected with. */
  late(): unknown;
  /** Whether the program may end meanwhile. Default: no. When it changes: `reconsider`. */
  isWeak?(): boolean;
}

class Wait {
  readonly #request: WaitRequest;
  readonly #resolve: (outcome: number) => void;
  readonly #reject: (reason: unknown) => void;
  #stopListening: (() => void) | undefined;
  #watch = 0;
  #deadline: Deadline | undefined;
  #hasEnded = false;

  constructor(
    request: WaitRequest,
    { timeout, signal }: AsyncWaitOptions,
    resolve: (outcome: number) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#request = request;
    this.#resolve = resolve;
    this.#reject = reject;
    if (request.isWeak !== undefined) perhapsWeak.add(this);
    this.step();
    if (this.#hasEnded) return;
    if (signal !== undefined) {
      this.#stopListening = onAbort(signal, () => this.fail(signal.reason));
    }
    this.#deadline = startDeadline(timeout, () => this.fail(reasonOf(() => request.late())));
  }

  /** Whether it is pending without keeping the program alive. */
  get isWeak(): boolean {
    return pending.has(this.#watch) && this.#request.isWeak?.() === true;
  }

  /** Attempts, and ends, or watches. */
  step(): void {
    // One that has given up must not acquire anything.
    if (this.#hasEnded) return;
    this.#watch = 0;
    let outcome: number;
    try {
      outcome = this.#request.attempt();
    } catch (error) {
      this.#end();
      this.#reject(error);
      return;
    }
    if (outcome > OUTCOME_MAX) {
      this.#watch = outcome;
      pending.set(outcome, this);
    } else {
      this.#end();
      this.#resolve(outcome);
    }
  }

  /** Gives up. */
  fail(reason: unknown): void {
    if (this.#hasEnded) return;
    native().calls.dsmr_watch_end(this.#watch);
    pending.delete(this.#watch);
    this.#end();
    try {
      this.#request.giveUp?.();
      this.#reject(reason);
    } catch (error) {
      this.#reject(error);
    }
    reconsider();
  }

  #end(): void {
    this.#hasEnded = true;
    perhapsWeak.delete(this);
    this.#deadline?.end();
    this.#stopListening?.();
  }
}

/**
 * Attempts until there is an outcome; settles with it, with the signal's reason, or with what
 * `late` makes. The first attempt is made when the doorbell hangs: at once, but for the first
 * wait of the isolate.
 */
export async function wait(request: WaitRequest, options: AsyncWaitOptions): Promise<number> {
  const { signal } = options;
  signal?.throwIfAborted();
  if (listener === undefined) {
    listening ??= listen().catch((error) => {
      listening = undefined;
      throw error;
    });
    await listening;
    signal?.throwIfAborted();
  }
  return await new Promise<number>((resolve, reject) => {
    new Wait(request, options, resolve, reject);
    reconsider();
  });
}

/** Checks the options of an async call. */
export function checkWaitOptions(options: AsyncWaitOptions | undefined): AsyncWaitOptions {
  checkOptions(options);
  // As omitted, which the types do not say.
  const timeout = options?.timeout ?? undefined;
  const signal = options?.signal ?? undefined;
  if (timeout !== undefined && (typeof timeout !== "number" || !(timeout >= 0))) {
    throw new RangeError(
      `The timeout is ${describe(timeout)}; it must be 0 or more milliseconds, or omitted.`,
    );
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(`The signal is ${describe(signal)}, not an AbortSignal.`);
  }
  return {
    // Not -0.
    ...(timeout === undefined ? {} : { timeout: timeout + 0 }),
    ...(signal === undefined ? {} : { signal }),
  };
}

/** Waits for a promise of this isolate, that never rejects, no longer than the options say. */
export function within(
  promise: Promise<void>,
  { timeout, signal }: AsyncWaitOptions,
  late: () => unknown,
): Promise<void> {
  return new Promise((resolve, reject) => {
    // It may expire before it is assigned.
    let deadline: Deadline | undefined = undefined;
    let stopListening: (() => void) | undefined;
    const end = (): void => {
      deadline?.end();
      stopListening?.();
    };
    const abort = (): void => {
      end();
      reject(signal?.reason);
    };
    if (signal?.aborted === true) return abort();
    if (signal !== undefined) stopListening = onAbort(signal, abort);
    deadline = startDeadline(timeout, () => {
      end();
      reject(reasonOf(late));
    });
    promise.then(() => {
      end();
      resolve();
    });
  });
}

/** Between two looks at tables that a stopped process holds. */
export const TABLE_PAUSE_MS = 20;
/** How long the async forms block, at most, for a stopped process in the registry's tables. */
export const TABLE_PATIENCE_MS = 5;

/**
 * Makes sync calls of a registry give up soon while a stopped process holds its tables: those
 * that have no timeout of their own. `patience` in ms; 0 is what they have anyhow.
 */
export function impatiently<Result>(
  registry: number,
  calls: () => Result,
  patience: number = TABLE_PATIENCE_MS,
): Result {
  const { dsmr_registry_patience } = native().calls;
  dsmr_registry_patience(registry, patience);
  try {
    return calls();
  } finally {
    dsmr_registry_patience(registry, 0);
  }
}

/**
 * Repeats what gives up at once while a stopped process holds a registry's tables, until the
 * time is over. `action` gets what is left of it.
 */
export async function patiently<Result>(
  action: (left: AsyncWaitOptions) => Result,
  { timeout, signal }: AsyncWaitOptions,
): Promise<Awaited<Result>> {
  const until = timeout === undefined ? Infinity : performance.now() + timeout;
  for (;;) {
    signal?.throwIfAborted();
    const left = Math.max(until - performance.now(), 0);
    try {
      return await action({ timeout: left, ...(signal === undefined ? {} : { signal }) });
    } catch (error) {
      const isBusy = error instanceof DsmrError && error.code === "TIMEOUT";
      if (!isBusy || performance.now() >= until) throw error;
    }
    await within(
      new Promise((resolve) => setTimeout(resolve, TABLE_PAUSE_MS)),
      signal === undefined ? {} : { signal },
      () => undefined,
    );
  }
}
