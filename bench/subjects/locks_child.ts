/**
 * The JavaScript side of the lock rows. Started by locks.ts in each runtime.
 *
 *     locks_child.ts DIRECTORY     answers each line of input with a round:
 *                                  "pairs", or "contend MODE MILLISECONDS ROUND"
 *
 * @module
 */

import { readSync, writeSync } from "node:fs";
import process from "node:process";
import { native } from "../../lib/ffi/native.ts";
import { type LockMode, Registry } from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";
import { openBelowTheApi } from "./below.ts";

const PAIRS = 20_000;
const BATCH = 64;

const [dir = ""] = process.argv.slice(2);
const registry = Registry.openSync("lock", { dir });
const { lock } = registry.getNamedSegmentSync("data", 4096);
const { calls } = native();

/** The next bytes of the input; empty at its end. Blocks, and leaves the event loop alone. */
function read(): string {
  const bytes = new Uint8Array(256);
  return new TextDecoder().decode(bytes.subarray(0, readSync(0, bytes)));
}

function pairsThrough(mode: LockMode, count: number): void {
  for (let i = 0; i < count; i++) {
    lock.acquireSync(mode);
    lock.release();
  }
}

const { segmentHandle, lockHandle } = openBelowTheApi(dir);
const shared = native().number("DSMR_SHARED");
const exclusive = native().number("DSMR_EXCLUSIVE");
const rawPairs = (mode: number) => (count: number) => {
  for (let i = 0; i < count; i++) {
    calls.dsmr_lock_acquire(lockHandle, mode, -1);
    calls.dsmr_lock_release(lockHandle);
  }
};
// A function for each, or the compiler would make one that suits all of them and none.
const subjects: Subject[] = [
  { name: "exclusive", count: PAIRS, run: (count) => pairsThrough("exclusive", count) },
  { name: "shared", count: PAIRS, run: (count) => pairsThrough("shared", count) },
  { name: "raw_exclusive", count: PAIRS, run: rawPairs(exclusive) },
  { name: "raw_shared", count: PAIRS, run: rawPairs(shared) },
  {
    name: "cheap_calls",
    count: PAIRS,
    run: (count) => {
      for (let i = 0; i < count; i++) {
        calls.dsmr_segment_is_current(segmentHandle);
        calls.dsmr_segment_is_current(segmentHandle);
      }
    },
  },
];

const barrier = new Int32Array(registry.getNamedSegmentSync("barrier", 4096).buffer);

function contend(mode: LockMode, milliseconds: number, round: number): string {
  // Both are there: go.
  Atomics.add(barrier, 0, 1);
  while (Atomics.load(barrier, 0) < 2 * round) { /* The other one comes at once. */ }
  const started = performance.now();
  let elapsed = 0;
  let count = 0;
  for (; elapsed < milliseconds; count += BATCH) {
    pairsThrough(mode, BATCH);
    elapsed = performance.now() - started;
  }
  return `${count} ${elapsed}`;
}

for (let line = read(); line !== ""; line = read()) {
  const [what, mode = "", milliseconds, round] = line.trim().split(" ");
  const answer = what === "pairs"
    ? await turn(subjects)
    : contend(mode as LockMode, Number(milliseconds), Number(round));
  writeSync(1, `${answer}\n`);
}
registry.close();
