/**
 * Locks in words.
 *
 * @module
 */

import type { LockInfo } from "../lib/mod.ts";
import { since } from "./text.ts";

/** Which lock that is: "jobs", or "queue in jobs+128". */
export function lockName({ tranche, segment, byteOffset }: LockInfo): string {
  const place = byteOffset === null ? segment : `${segment}+${byteOffset}`;
  return tranche === place ? place : `${tranche} in ${place}`;
}

/** A lock that is held, or waited for. */
export function lockText(lock: LockInfo): string {
  const waiting = lock.since === null ? "" : ` for ${since(lock.since)}`;
  return `${lockName(lock)} (${lock.mode}${waiting})`;
}
