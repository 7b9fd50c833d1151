/**
 * One of several processes at one lock, as contention.c. Started by contention.ts in each runtime.
 *
 *     contention_child.ts DIRECTORY NUMBER
 *
 *     use ARRIVALS WRITE_PERCENT MILLISECONDS     how long, in ns, and how often it had it;
 *                                                 begins when so many have arrived, ever
 *
 * @module
 */

import { readSync, writeSync } from "node:fs";
import process from "node:process";
import { Registry } from "../../lib/mod.ts";

const BATCH = 32;

const [dir = "", number] = process.argv.slice(2);
const registry = Registry.openSync("lock", { dir });
const segment = registry.getNamedSegmentSync("data", 4096);
const { lock } = segment;
const data = new Float64Array(segment.buffer, 0, 8);
const barrier = registry.getNamedSegmentSync("barrier", 64);
const arrived = new Int32Array(barrier.buffer);
let random = 2463534242 + Number(number) | 0;

/** Asleep until everybody is there: with more processes than cores, spinning would keep them away. */
function meet(everybody: number): void {
  Atomics.add(arrived, 0, 1);
  barrier.notify(0);
  for (let now = 0; (now = Atomics.load(arrived, 0)) < everybody;) barrier.waitSync(0, now);
}

function use(writePercent: number): void {
  for (let i = 0; i < BATCH; i++) {
    random ^= random << 13;
    random ^= random >>> 17;
    random ^= random << 5;
    if ((random >>> 0) % 100 < writePercent) {
      lock.acquireSync("exclusive");
      data[0] = (data[0] ?? 0) + 1;
      lock.release();
    } else {
      lock.acquireSync("shared");
      void data[0];
      lock.release();
    }
  }
}

function contend(everybody: number, writePercent: number, milliseconds: number): string {
  meet(everybody);
  const started = performance.now();
  let elapsed = 0;
  let count = 0;
  for (; elapsed < milliseconds; count += BATCH) {
    use(writePercent);
    elapsed = performance.now() - started;
  }
  return `${(elapsed * 1e6).toFixed(0)} ${count}`;
}

const bytes = new Uint8Array(256);
for (let length = readSync(0, bytes); length > 0; length = readSync(0, bytes)) {
  const line = new TextDecoder().decode(bytes.subarray(0, length));
  const [, everybody, writePercent, milliseconds] = line.trim().split(" ").map(Number);
  const answer = contend(everybody ?? 1, writePercent ?? 100, milliseconds ?? 1);
  writeSync(1, `${answer}\n`);
}
registry.close();
