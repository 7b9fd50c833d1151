/**
 * The waiter of death.c, in JavaScript: takes the lock of a holder that has been killed.
 *
 *     death_child.ts DIRECTORY
 *
 * @module
 */

import { readSync, writeSync } from "node:fs";
import process from "node:process";
import { Registry } from "../../lib/mod.ts";
import { clockOffset } from "./below.ts";

const [dir = ""] = process.argv.slice(2);
const registry = Registry.openSync("lock", { dir });
const data = registry.getNamedSegmentSync("data", 4096);
const { lock } = data;
const acquired = new BigInt64Array(data.buffer, 0, 1);
const offset = clockOffset(dir);
const bytes = new Uint8Array(16);
while (readSync(0, bytes) > 0) {
  lock.acquireSync("exclusive");
  Atomics.store(acquired, 0, process.hrtime.bigint() + offset);
  if (!lock.abandoned) throw new Error("the lock is not abandoned");
  lock.markConsistent();
  lock.release();
  writeSync(1, "a");
}
registry.close();
