/**
 * The JavaScript side of the lock rows. Started by locks.ts in each runtime.
 *
 *     lock_child.ts DIRECTORY turns     answers each line of input with a round:
 *                                       "pairs", or "contend MODE MILLISECONDS ROUND"
 *     lock_child.ts DIRECTORY ping SEGMENT ROLE ROUNDS    as ping.c, kind dsmr
 *     lock_child.ts DIRECTORY wait      the waiter of death.c
 *
 * @module
 */

import { readSync, writeSync } from "node:fs";
import process from "node:process";
import { native } from "../lib/ffi/native.ts";
import { type LockMode, Registry } from "../lib/mod.ts";
import { clockOffset, openBelowTheApi } from "./below.ts";

const PAIRS = 20_000;
const BATCH = 64;

const [dir = "", what, ...words] = process.argv.slice(2);
const registry = Registry.openSync("lock", { dir });
const data = registry.getNamedSegmentSync("data", 4096);
const { lock } = data;
const { calls } = native();

/** The next bytes of the input; empty at its end. Blocks, and leaves the event loop alone. */
function read(): string {
  const bytes = new Uint8Array(256);
  return new TextDecoder().decode(bytes.subarray(0, readSync(0, bytes)));
}

/* ---- turns ------------------------------------------------------------------------------ */

function pairsThrough(mode: LockMode, count: number): void {
  for (let i = 0; i < count; i++) {
    lock.acquireSync(mode);
    lock.release();
  }
}

function takeTurns(): void {
  const { segmentHandle, lockHandle } = openBelowTheApi(dir);
  const shared = native().number("DSMR_SHARED");
  const exclusive = native().number("DSMR_EXCLUSIVE");
  const rawPairs = (mode: number) => {
    for (let i = 0; i < PAIRS; i++) {
      calls.dsmr_lock_acquire(lockHandle, mode, -1);
      calls.dsmr_lock_release(lockHandle);
    }
  };
  // A function for each, or the compiler would make one that suits all of them and none.
  const subjects: [string, () => void][] = [
    ["exclusive", () => pairsThrough("exclusive", PAIRS)],
    ["shared", () => pairsThrough("shared", PAIRS)],
    ["raw_exclusive", () => rawPairs(exclusive)],
    ["raw_shared", () => rawPairs(shared)],
    ["cheap_calls", () => {
      for (let i = 0; i < PAIRS; i++) {
        calls.dsmr_segment_is_current(segmentHandle);
        calls.dsmr_segment_is_current(segmentHandle);
      }
    }],
  ];
  const barrier = new Int32Array(registry.getNamedSegmentSync("barrier", 4096).buffer);

  for (let line = read(); line !== ""; line = read()) {
    const [command, mode = "", milliseconds, round] = line.trim().split(" ");
    if (command === "pairs") {
      const answer = subjects.map(([name, run]) => {
        const started = performance.now();
        run();
        return `${name} ${((performance.now() - started) * 1e6 / PAIRS).toFixed(3)}`;
      });
      writeSync(1, `${answer.join(" ")}\n`);
    } else {
      // Both are there: go.
      Atomics.add(barrier, 0, 1);
      while (Atomics.load(barrier, 0) < 2 * Number(round)) { /* The other one comes at once. */ }
      const started = performance.now();
      let elapsed = 0;
      let count = 0;
      for (; elapsed < Number(milliseconds); count += BATCH) {
        pairsThrough(mode as LockMode, BATCH);
        elapsed = performance.now() - started;
      }
      writeSync(1, `${count} ${elapsed}\n`);
    }
  }
}

/* ---- ping-pong -------------------------------------------------------------------------- */

function ping(segmentName: string, role: number, rounds: number): void {
  const segment = registry.getNamedSegmentSync(segmentName, 4096);
  const own = segment.lockAt(role * 64);
  const other = segment.lockAt(64 - role * 64);
  const ownVariable = 128 + role * 64;
  const otherVariable = 192 - role * 64;
  const arrived = new Int32Array(segment.buffer, 256, 1);
  const meet = (everyone: number) => {
    Atomics.add(arrived, 0, 1);
    while (Atomics.load(arrived, 0) < everyone) { /* The other one comes at once. */ }
  };
  const times = new Float64Array(rounds);
  own.acquireSync("exclusive");
  meet(2);
  for (let round = 1; round <= rounds; round++) {
    const started = performance.now();
    if (role === 0) own.updateVar(ownVariable, BigInt(round));
    const { value } = other.waitForVarSync(otherVariable, BigInt(round - 1));
    if (value !== BigInt(round)) throw new Error(`${value} instead of ${round}`);
    if (role === 1) own.updateVar(ownVariable, BigInt(round));
    times[round - 1] = (performance.now() - started) * 1e3 / 2;
  }
  // The other one may still be looking at our lock.
  meet(4);
  if (role === 0) console.log([...times].map((time) => time.toFixed(2)).join(" "));
}

/* ---- the waiter of death.c -------------------------------------------------------------- */

function wait(): void {
  const acquired = new BigInt64Array(data.buffer, 0, 1);
  const offset = clockOffset(dir);
  while (read() !== "") {
    lock.acquireSync("exclusive");
    Atomics.store(acquired, 0, process.hrtime.bigint() + offset);
    if (!lock.abandoned) throw new Error("the lock is not abandoned");
    lock.markConsistent();
    lock.release();
    writeSync(1, "a");
  }
}

if (what === "turns") takeTurns();
else if (what === "ping") ping(words[0] ?? "", Number(words[1]), Number(words[2]));
else if (what === "wait") wait();
else throw new Error("usage: lock_child.ts DIRECTORY turns|ping|wait");
registry.close();
