/**
 * Calls for the tests of the call statistics, and what they must add up to.
 *
 * @module
 */

import type { CallRow } from "../examples/call_stats/call_table.ts";
import { randomFrom } from "./_random.ts";

/** Calls at random, but the same for the same seed; by names `name 0` and so on. */
export function* callsOf(
  seed: number,
  count: number,
  nameCount: number,
): Iterable<[name: string, ms: number]> {
  const random = randomFrom(seed);
  for (let i = 0; i < count; i++) {
    // Whole microseconds.
    yield [`name ${Math.floor(random() * nameCount)}`, Math.floor(random() * 1e6) / 1000];
  }
}

/** The rows that these calls must give, by name. Sums are of whole nanoseconds. */
export function expectedRows(
  calls: Iterable<[name: string, ms: number]>,
): Map<string, CallRow> {
  const all = new Map<string, { calls: number; total: number; min: number; max: number }>();
  for (const [name, ms] of calls) {
    const row = all.get(name) ?? { calls: 0, total: 0, min: Infinity, max: 0 };
    const ns = Math.round(ms * 1e6);
    all.set(name, {
      calls: row.calls + 1,
      total: row.total + ns,
      min: Math.min(row.min, ns),
      max: Math.max(row.max, ns),
    });
  }
  return new Map(
    [...all].map(([name, { calls, total, min, max }]) => {
      const totalMs = total / 1e6;
      const row = {
        name,
        calls,
        totalMs,
        meanMs: totalMs / calls,
        minMs: min / 1e6,
        maxMs: max / 1e6,
      };
      return [name, row];
    }),
  );
}
