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
import type { Segment } from "./segment.ts";
import type { AsyncWaitOptions } from "./wait.ts";

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
  readonly #open: () => Segment;

  /** The signal's name. */
  readonly name: string;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(name: string, open: () => Segment) {
    this.name = name;
    this.#open = open;
  }

  /** How many notifications there have been, as 32 bits. */
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
    return segment.notify(0, count);
  }

  /**
   * Waits for the next notification, or for one since `since`. Blocks the thread.
   *
   * @returns the present {@linkcode sequence}.
   * @throws {DsmrError} `TIMEOUT`, `CLOSED`. {@linkcode RangeError}: the timeout.
   */
  waitSync(options?: SignalWaitOptions): number {
    const { since = this.sequence, timeout } = options ?? {};
    const outcome = this.#open().waitSync(0, since, timeout === undefined ? {} : { timeout });
    if (outcome === "timed-out") throw this.#late(timeout);
    return this.sequence;
  }

  /**
   * As {@linkcode waitSync}, without blocking.
   *
   * @throws As {@linkcode waitSync}; the signal's reason.
   */
  async wait(options?: SignalWaitOptions & AsyncWaitOptions): Promise<number> {
    const { since = this.sequence, ...waiting } = options ?? {};
    const outcome = await this.#open().wait(0, since, waiting);
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
    return this.#iterate(this.sequence, options);
  }

  async *#iterate(
    since: number,
    options: { signal?: AbortSignal } | undefined,
  ): AsyncIterableIterator<number> {
    for (;;) {
      const now = await this.wait({ since, ...options });
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
