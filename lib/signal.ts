/**
 * Signals: PostgreSQL's condition variables and latches, by name.
 *
 * A signal is a number in a segment of the library's own that grows with each notification, and
 * those who wait for it to grow. Who has seen the number cannot miss what comes after: a wait
 * names the number that it has seen, and does not begin when it is another one by now.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { describe, encodeName, quote } from "./ffi/native.ts";
import { WaitEnded, type WordWait } from "./parking.ts";
import type { Segment } from "./segment.ts";
import {
  addressOf,
  attach,
  drop,
  isCurrent,
  isDropped,
  mayWait,
  noticedDrop,
  notify,
  NUMBER_MAX,
  numberOf,
} from "./signal_words.ts";
import { Turns } from "./turns.ts";
import { type AsyncWaitOptions, checkWaitOptions } from "./wait.ts";

/** Names of segments have two bytes more, and those are ours. */
const NAME_MAX = 61;
const PREFIX = "\u0001!";

/** What a signal's segment is called. Refuses names that signals cannot have. */
function segmentOfSignal(name: string): string {
  const { length } = encodeName("signal", name);
  if (length === 0) {
    throw new DsmrError(
      "NAME_INVALID",
      `The signal name is empty. Give it 1 to ${NAME_MAX} bytes of UTF-8.`,
    );
  }
  if (length > NAME_MAX) {
    throw new DsmrError(
      "NAME_TOO_LONG",
      `The signal name ${quote(name)} has ${length} bytes of UTF-8, ${NAME_MAX} are allowed. ` +
        "Shorten it.",
      { actual: length, requested: NAME_MAX },
    );
  }
  if (/[\0/]/.test(name)) {
    throw new DsmrError(
      "NAME_INVALID",
      `The signal name ${quote(name)} has a NUL or a slash in it. Names have neither.`,
    );
  }
  return `${PREFIX}${name}`;
}

/** A message without the name of the signal's segment, which nobody knows. */
function inOthersWords(name: string, message: string): string {
  // The native library shows "?" for what is not to be printed.
  return message.replaceAll(`segment "${PREFIX}${name}"`, "it")
    .replaceAll(`segment "?!${name}"`, "it");
}

/** What went wrong with the library's own segments, told of the signal. */
function ofSignal(name: string, thrown: unknown): unknown {
  if (!(thrown instanceof DsmrError)) return thrown;
  const { code, message, actual, requested, errno } = thrown;
  const signal = `Signal "${name}"`;
  switch (code) {
    case "DETACHED":
    case "CLOSED":
      return new DsmrError(
        "CLOSED",
        `${signal} is gone: its registry was closed or destroyed. Open it again.`,
        { cause: thrown },
      );
    case "TIMEOUT":
      return new DsmrError(
        "TIMEOUT",
        `${signal} cannot be used: a stopped process is in the middle of changing who waits. ` +
          "Continue or end it.",
        { cause: thrown },
      );
    default:
      return new DsmrError(
        code,
        `${signal}: ${inOthersWords(name, message)}`,
        {
          cause: thrown,
          ...(actual === undefined ? {} : { actual }),
          ...(requested === undefined ? {} : { requested }),
          ...(errno === undefined ? {} : { errno }),
        },
      );
  }
}

function droppedError(name: string): DsmrError {
  return new DsmrError(
    "NOT_FOUND",
    `Signal "${name}" was dropped. Ask the registry for it again to get a new one.`,
  );
}

/** As `Registry.dropSignal`. */
export function dropSignal(name: string, backend: Backend): boolean {
  const segmentName = segmentOfSignal(name);
  try {
    const segment = backend.current(segmentName) ?? backend.lookup(segmentName);
    return segment !== null && drop(backend, segment);
  } catch (thrown) {
    throw ofSignal(name, thrown);
  }
}

function checkSince(since: unknown): number | undefined {
  // As omitted, which the types do not say.
  if (since === undefined || since === null) return undefined;
  if (typeof since !== "number") {
    throw new TypeError(`\`since\` is ${describe(since)}, not a number.`);
  }
  if (Number.isInteger(since) && since >= 0 && since <= NUMBER_MAX) return since;
  throw new RangeError(
    `\`since\` is ${since}; it must be a whole number from 0 to ${NUMBER_MAX}, as \`sequence\` gives.`,
  );
}

/** Options of {@linkcode Signal.waitSync}. */
export interface SignalWaitOptions {
  /** In milliseconds. Default: for ever. */
  timeout?: number;
  /**
   * A {@linkcode Signal.sequence} seen before: if there was a notification since then, the wait
   * is over at once. Default: the present one.
   */
  since?: number;
}

/**
 * Something that processes wait for and notify each other of. Comes from
 * {@linkcode Registry.signal}.
 *
 * It carries no data: that is in segments. Change the data, then notify; look at the data, then
 * wait, again and again. {@linkcode sequence} is for looking without missing anything.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * using registry = Registry.openSync("doc-signal");
 * const jobs = registry.signal("jobs");
 * const seen = jobs.sequence;
 * jobs.notify(); // in another process, as a rule
 * await jobs.wait({ since: seen, timeout: 1000 });
 * Registry.destroy("doc-signal");
 * ```
 */
export class Signal {
  readonly #backend: () => Backend;
  readonly #segment: Segment;

  /** The signal's name. */
  readonly name: string;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(name: string, backend: () => Backend) {
    const segmentName = segmentOfSignal(name);
    this.name = name;
    this.#backend = backend;
    try {
      // Who asks for a signal has one, or hears why not.
      this.#segment = attach(backend(), segmentName);
    } catch (thrown) {
      throw ofSignal(name, thrown);
    }
  }

  /** Throws unless the signal is still there. */
  #open(): void {
    try {
      this.#backend();
    } catch (thrown) {
      throw ofSignal(this.name, thrown);
    }
    const segment = this.#segment;
    if (isDropped(segment)) throw droppedError(this.name);
    if (isCurrent(segment)) return;
    // The mark is set before the name goes: it may have come between the two questions.
    if (isDropped(segment)) throw droppedError(this.name);
    throw ofSignal(this.name, new DsmrError("CLOSED", "The registry was destroyed."));
  }

  #explained(thrown: unknown): unknown {
    const isDetached = thrown instanceof DsmrError && thrown.code === "DETACHED";
    if (isDetached && noticedDrop(this.#segment)) return droppedError(this.name);
    return ofSignal(this.name, thrown);
  }

  /**
   * How many notifications there have been, as 31 bits.
   *
   * @throws {DsmrError} `CLOSED`. `NOT_FOUND`: the signal was dropped.
   */
  get sequence(): number {
    this.#open();
    return numberOf(this.#segment);
  }

  /**
   * Wakes one of those who wait, the first; as ConditionVariableSignal. Costs no system call and
   * takes no lock when nobody waits.
   *
   * @returns whether there was one. Not counted is who has not got as far as to sleep: that wait
   * sees that the number has grown, and ends by itself.
   * @throws {DsmrError} `CLOSED`. `NOT_FOUND`: the signal was dropped. `TIMEOUT`: a stopped process
   * is in the middle of the same; nobody was notified.
   */
  notify(): boolean {
    return this.#notify(1) > 0;
  }

  /**
   * Wakes all who wait; as ConditionVariableBroadcast.
   *
   * @returns how many there were.
   * @throws As {@linkcode notify}.
   */
  notifyAll(): number {
    return this.#notify(Infinity);
  }

  #notify(count: number): number {
    this.#open();
    try {
      return notify(this.#backend(), this.#segment, count);
    } catch (thrown) {
      throw this.#explained(thrown);
    }
  }

  /**
   * What comes of a wait that has ended: the number; an error; or undefined, to wait again, since
   * whoever has ended it has died before the number grew or the signal was dropped.
   */
  #outcome(seen: number, outcome: WordWait, timeout: number | undefined): number | undefined {
    if (outcome === "timed-out") throw this.#late(timeout);
    let dropped: boolean;
    let number: number;
    try {
      dropped = isDropped(this.#segment);
      number = numberOf(this.#segment);
    } catch (thrown) {
      // Closed since it was woken.
      throw this.#explained(thrown);
    }
    // A notification that came before the end counts.
    if (number !== seen) return number;
    if (dropped) throw droppedError(this.name);
    return undefined;
  }

  /** Throws what a wait has failed with; unless it is to wait again. */
  #failed(thrown: unknown): void {
    if (!(thrown instanceof WaitEnded)) throw this.#explained(thrown);
    if (isDropped(this.#segment)) throw droppedError(this.name);
    // Whoever was about to drop it has died before it was.
  }

  /**
   * Waits for the next notification, or for one since `since`. Blocks the thread.
   *
   * @returns the present {@linkcode sequence}: never that from before the wait.
   * @throws {DsmrError} `TIMEOUT`. `CLOSED`, `NOT_FOUND` (the signal was dropped): also while
   * waiting. `NO_SPACE`: 16,384 waits are pending in the registry, or this
   * backend holds 128 locks. {@linkcode RangeError}: the
   * timeout, or `since`. {@linkcode TypeError}: an option of the wrong type.
   */
  waitSync(options?: SignalWaitOptions): number {
    const { timeout } = checkWaitOptions(options);
    const until = performance.now() + (timeout ?? Infinity);
    const since = checkSince(options?.since);
    const seen = since ?? this.sequence;
    for (;;) {
      this.#open();
      let outcome: WordWait;
      try {
        const left = Math.max(until - performance.now(), 0);
        outcome = this.#backend().parking.waitSync(
          addressOf(this.#segment),
          () => mayWait(this.#segment, seen),
          left,
          true,
        );
      } catch (thrown) {
        this.#failed(thrown);
        continue;
      }
      const number = this.#outcome(seen, outcome, timeout);
      if (number !== undefined) return number;
    }
  }

  /**
   * As {@linkcode waitSync}, without blocking.
   *
   * @throws As {@linkcode waitSync}; the signal's reason.
   */
  async wait(options?: SignalWaitOptions & AsyncWaitOptions): Promise<number> {
    const { timeout, signal } = checkWaitOptions(options);
    const until = performance.now() + (timeout ?? Infinity);
    const since = checkSince(options?.since);
    signal?.throwIfAborted();
    const seen = since ?? this.sequence;
    for (;;) {
      this.#open();
      let outcome: WordWait;
      try {
        const left = Math.max(until - performance.now(), 0);
        outcome = await this.#backend().parking.wait(
          addressOf(this.#segment),
          () => mayWait(this.#segment, seen),
          {
            timeout: left,
            isWhole: true,
            ...(signal === undefined ? {} : { signal }),
          },
        );
      } catch (thrown) {
        // An abort's reason may be anything, also an error of ours: it stays what it is.
        if (signal?.aborted === true && thrown === signal.reason) throw thrown;
        this.#failed(thrown);
        continue;
      }
      const number = this.#outcome(seen, outcome, timeout);
      if (number !== undefined) return number;
    }
  }

  #late(timeout: number | undefined): DsmrError {
    return new DsmrError(
      "TIMEOUT",
      `Signal "${this.name}" was not notified within ${timeout} ms. Give it more time, or see ` +
        "who is to notify it.",
      timeout === undefined ? {} : { requested: timeout },
    );
  }

  /**
   * The notifications from now on. Each turn of the loop gets how many there were since the last:
   * one that comes while the loop's body runs is not missed.
   *
   * `return()` ends it at once, also while a `next()` is pending: that one is the last, or gets the
   * notification that has woken it already.
   *
   * @throws {DsmrError} `CLOSED`. `NOT_FOUND`: the signal was dropped, also while waiting. The
   * signal's reason.
   */
  notifications(options?: { signal?: AbortSignal }): AsyncIterableIterator<number> {
    const { signal } = checkWaitOptions(options);
    let since = this.sequence;
    return new Turns(async (signal) => {
      const now = await this.wait({ since, signal });
      const count = now - since & NUMBER_MAX;
      since = now;
      return count;
    }, signal === undefined ? {} : { signal });
  }

  /**
   * As {@linkcode notifications}: `for await (const count of signal)`.
   *
   * @example
   * ```ts
   * import { Registry } from "@dsmr/registry";
   *
   * using registry = Registry.openSync("doc-signal-loop");
   * const jobs = registry.signal("jobs");
   * setTimeout(() => jobs.notifyAll(), 10);
   * for await (const count of jobs) {
   *   console.log(count, "notified");
   *   break;
   * }
   * Registry.destroy("doc-signal-loop");
   * ```
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<number> {
    return this.notifications();
  }
}
