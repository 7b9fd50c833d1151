/**
 * A rate limiter that all processes of a server share: so many requests a second, together.
 *
 * A token bucket in a segment. The bucket fills as time goes by; a request takes a token or is
 * turned away. The lock is held for some hundred nanoseconds, so it is taken without waiting for
 * the event loop; a process that is killed inside leaves at most a token too few or too many,
 * which `repair` sets right by starting with an empty bucket.
 *
 * @module
 */

import { type Registry, type Segment } from "../lib/mod.ts";

const TOKENS = 0;
/** When the bucket was filled last, in milliseconds since 1970: one clock for all processes. */
const FILLED_AT = 1;

/** A limiter, attached. */
export class RateLimiter {
  readonly #segment: Segment;
  readonly #numbers: Float64Array;
  readonly #perSecond: number;
  readonly #burst: number;

  constructor(registry: Registry, name: string, perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#segment = registry.getNamedSegmentSync(name, 16, (segment) => {
      new Float64Array(segment.buffer).set([burst, Date.now()]);
    }, {
      repair: (segment) => new Float64Array(segment.buffer).set([0, Date.now()]),
    });
    this.#numbers = new Float64Array(this.#segment.buffer);
  }

  /** Takes a token if there is one. */
  async allows(): Promise<boolean> {
    const { lock } = this.#segment;
    // Free, as a rule. If not, other requests go on while this one waits.
    if (!lock.tryAcquire()) await lock.acquire();
    try {
      const now = Date.now();
      const numbers = this.#numbers;
      const seconds = Math.max(now - (numbers[FILLED_AT] ?? now), 0) / 1000;
      const tokens = Math.min((numbers[TOKENS] ?? 0) + seconds * this.#perSecond, this.#burst);
      numbers[FILLED_AT] = now;
      numbers[TOKENS] = tokens >= 1 ? tokens - 1 : tokens;
      return tokens >= 1;
    } finally {
      lock.release();
    }
  }
}
