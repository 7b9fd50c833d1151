/**
 * One of several processes that share a record: most read it, one writes.
 *
 *     reading_child.ts DIRECTORY FOLDER
 *
 *     open STORE                  dsmr, lmdb or redis: "ready", or why it is absent
 *     read MILLISECONDS           reads as often as it can: how long, in ns, and how often
 *     write MILLISECONDS          writes once a millisecond: how often
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { Absent } from "../peers/library.ts";
import { openLmdb } from "../peers/lmdb.ts";
import { openRedis } from "../peers/redis.ts";
import { openDsmr, RECORD_BYTES, type Store } from "../peers/store.ts";

const BATCH = 16;

const [dir = "", folder = ""] = process.argv.slice(2);
const stores = new Map<string, Store>();
let store: Store = openDsmr(dir);
stores.set("dsmr", store);

async function open(name: string): Promise<string> {
  try {
    const found = stores.get(name) ??
      (name === "lmdb" ? openLmdb(dir, folder) : await openRedis(dir, folder));
    stores.set(name, store = found);
    return "ready";
  } catch (error) {
    if (error instanceof Absent) return error.message;
    throw error;
  }
}

async function read(milliseconds: number): Promise<string> {
  const started = performance.now();
  let elapsed = 0;
  let count = 0;
  for (; elapsed < milliseconds; count += BATCH) {
    const reading = store.read(BATCH);
    if (reading !== undefined) await reading;
    // lmdb looks for what others have written when the event loop has turned.
    await new Promise((resolve) => setImmediate(resolve));
    elapsed = performance.now() - started;
  }
  return `${(elapsed * 1e6).toFixed(0)} ${count}`;
}

async function write(milliseconds: number): Promise<string> {
  const record = new Uint8Array(RECORD_BYTES);
  const end = performance.now() + milliseconds;
  let count = 0;
  while (performance.now() < end) {
    await store.write(record.fill(count++));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return `${count}`;
}

for await (const line of createInterface({ input: process.stdin })) {
  const [what, value = ""] = line.split(" ");
  const answer = what === "open"
    ? await open(value)
    : what === "read"
    ? await read(Number(value))
    : await write(Number(value));
  process.stdout.write(`${answer}\n`);
}
for (const one of stores.values()) one.end();
process.exit();
