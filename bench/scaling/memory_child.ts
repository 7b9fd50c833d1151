/**
 * What things cost a process: private memory that it has written to, before and after.
 *
 *     memory_child.ts DIRECTORY
 *
 * Answers one line: "segment bytes lock bytes backend bytes wait bytes", each for one of many.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { type LWLock, Registry, type Segment } from "../../lib/mod.ts";

const SEGMENTS = 1000;
const LOCKS = 4000;
const BACKENDS = 60;
const WAITS = 1000;

const [dir = ""] = process.argv.slice(2);
const registry = Registry.openSync("memory", { dir, mode: "attach" });

/** What nobody else has, and what is not on disk: the cost of this process. */
function privateBytes(): number {
  const text = readFileSync("/proc/self/smaps_rollup", "utf8");
  return Number(/^Private_Dirty: +(\d+) kB/m.exec(text)?.[1] ?? NaN) * 1024;
}

const kept: unknown[] = [];

/** Bytes for each of the `count` things that `make` makes. */
function cost(count: number, make: (i: number) => unknown): number {
  const before = privateBytes();
  for (let i = 0; i < count; i++) kept.push(make(i));
  return Math.max(0, privateBytes() - before) / count;
}

function measure(): string {
  // Once, so that code is compiled and tables are there.
  cost(50, (i): Segment => registry.getNamedSegmentSync(`segment-${i}`));
  const many = registry.getNamedSegmentSync("many");
  cost(50, (i): LWLock => many.lockAt(i * 64));
  cost(2, (i): Registry => Registry.openSync("memory", { dir, database: `first-${i}` }));

  const segment = cost(SEGMENTS - 50, (i) => registry.getNamedSegmentSync(`segment-${i + 50}`));
  const lock = cost(LOCKS - 50, (i) => many.lockAt((i + 50) * 64));
  const backend = cost(
    BACKENDS,
    (i) => Registry.openSync("memory", { dir, database: `database-${i}` }),
  );
  const wait = cost(WAITS, () => many.wait(LOCKS * 64, 0));
  return `segment ${segment} lock ${lock} backend ${backend} wait ${wait}`;
}

for await (const _ of createInterface({ input: process.stdin })) {
  process.stdout.write(`${measure()}\n`);
}
// Ends with waits pending.
process.exit();
