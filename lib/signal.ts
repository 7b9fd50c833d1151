/**
 * Signals: PostgreSQL's condition variables and latches, by name.
 *
 * A signal is a number in a segment of the library's own that grows with each notification, and
 * those who wait for it to grow. Who has seen the number cannot miss what comes after: a wait
 * names the number that it has seen, and does not begin when it is another one by now.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { describe, encodeName, quote } from "./ffi/native.ts";
import type { Segment } from "./segment.ts";
import { type AsyncWaitOptions, checkWaitOptions } from "./wait.ts";

/** Names of segments have two bytes more, and those are ours. */
const NAME_MAX = 61;
const PREFIX = "\u0001!";

/** What a signal's segment is called. Refuses names that signals cannot have. */
export function segmentOfSignal(name: string): string {
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

/** A message without the names of the library's own segments, which nobody knows. */
function inOthersWords(name: string, message: string): string {
  let text = message;
  // The native library shows "?" for what is not to be printed.
  for (const mark of ["\u0001", "?"]) {
    text = text.replaceAll(`segment "${mark}!${name}"`, "it")
      .replaceAll(`segment "${mark}parking"`, "the table of those who wait");
  }
  return text;
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

function checkSince(since: unknown): number | undefined {
  // As omitted, which the types do not say.
  if (since === undefined || since === null) return undefined;
  if (typeof since !== "number") {
    throw new TypeError(`\`since\` is ${describe(since)}, not a number.`);
  }
  if (Number.isInteger(since) && since >= 0 && since <= 0xffffffff) return since;
  throw new RangeError(
    `\`since\` is ${since}; it must be a whole number from 0 to 4294967295, as \`sequence\` gives.`,
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
  readonly #segment: () => Segment;

  /** The signal's name. */
  readonly name: string;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(name: string, segment: () => Segment) {
    this.name = name;
    this.#segment = segment;
    // Who asks for a signal has one, or hears why not.
    this.#open();
  }

  #open(): Segment {
    try {
      return this.#segment();
    } catch (thrown) {
      throw ofSignal(this.name, thrown);
    }
  }

  /**
   * How many notifications there have been, as 32 bits.
   *
   * @throws {DsmrError} `CLOSED`.
   */
  get sequence(): number {
    return Atomics.load(new Int32Array(this.#open().buffer), 0) >>> 0;
  }

  /**
   * Wakes one of those who wait; as ConditionVariableSignal.
   *
   * @returns whether there was one.
   * @throws {DsmrError} `CLOSED`. `TIMEOUT`: a stopped process is in the middle of the same.
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
    const segment = this.#open();
    Atomics.add(new Int32Array(segment.buffer), 0, 1);
    try {
      return segment.notify(0, count);
    } catch (thrown) {
      throw ofSignal(this.name, thrown);
    }
  }

  /**
   * Waits for the next notification, or for one since `since`. Blocks the thread.
   *
   * @returns the present {@linkcode sequence}.
   * @throws {DsmrError} `TIMEOUT`. `CLOSED`: also while waiting. `NO_SPACE`: 16,384 waits are
   * pending in the registry. {@linkcode RangeError}: the timeout, or `since`.
   * {@linkcode TypeError}: an option of the wrong type.
   */
  waitSync(options?: SignalWaitOptions): number {
    const { timeout } = checkWaitOptions(options);
    const segment = this.#open();
    const since = checkSince(options?.since) ?? this.sequence;
    let outcome: string;
    try {
      outcome = segment.waitSync(0, since, timeout === undefined ? {} : { timeout });
    } catch (thrown) {
      throw ofSignal(this.name, thrown);
    }
    if (outcome === "timed-out") throw this.#late(timeout);
    return this.sequence;
  }

  /**
   * As {@linkcode waitSync}, without blocking.
   *
   * @throws As {@linkcode waitSync}; the signal's reason.
   */
  async wait(options?: SignalWaitOptions & AsyncWaitOptions): Promise<number> {
    const waiting = checkWaitOptions(options);
    const since = checkSince(options?.since);
    waiting.signal?.throwIfAborted();
    const segment = this.#open();
    const seen = since ?? this.sequence;
    let outcome: string;
    try {
      outcome = await segment.wait(0, seen, waiting);
    } catch (thrown) {
      // An abort's reason may be anything, also an error of ours: it stays what it is.
      const { signal } = waiting;
      throw signal?.aborted === true && thrown === signal.reason
        ? thrown
        : ofSignal(this.name, thrown);
    }
    if (outcome === "timed-out") throw this.#late(waiting.timeout);
    return this.sequence;
  }

  #late(timeout: number | undefined): DsmrError {
    return new DsmrError(
      "TIMEOUT",
      `Signal "${this.name}" was not notified within ${timeout} ms.`,
      timeout === undefined ? {} : { requested: timeout },
    );
  }

  /**
   * The notifications from now on. Each turn of the loop gets how many there were since the last:
   * one that comes while the loop's body runs is not missed.
   *
   * @throws {DsmrError} `CLOSED`. The signal's reason.
   */
  notifications(options?: { signal?: AbortSignal }): AsyncIterableIterator<number> {
    const { signal } = checkWaitOptions(options);
    return this.#iterate(this.sequence, signal === undefined ? {} : { signal });
  }

  async *#iterate(
    since: number,
    options: { signal?: AbortSignal },
  ): AsyncIterableIterator<number> {
    for (;;) {
      const now = await this.wait({ since, ...options });
      // Who has counted up wakes a moment later. If we have counted that one, it is not news.
      if (now === since) continue;
      yield now - since >>> 0;
      since = now;
    }
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
