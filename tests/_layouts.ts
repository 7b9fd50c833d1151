/**
 * What the tests of remembered layouts and their child processes have in common.
 *
 * @module
 */

import type { BackendOptions } from "../lib/backend.ts";
import { describeLayout, hashOf, type Layout } from "../lib/struct/layout.ts";

export const openOptions: BackendOptions = {
  mode: "open",
  maxBackends: 32,
  maxSegments: 64,
  timeout_ms: 10_000,
};

/** A layout of its own for each number. */
export function layoutOf(number: number, extra = ""): Layout {
  const size = 8 * (number + 1);
  const description = describeLayout(size, 8, [`field${number}: u64 at ${number * 8}${extra}`]);
  return { size, align: 8, hash: hashOf(description), description };
}
