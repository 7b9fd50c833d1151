/**
 * What other people's libraries take for the same work, in one runtime. in_deno.ts and in_bun.ts
 * add what only their runtime has. Each line of input is answered with a round; the first line of
 * output says what is absent, as JSON.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { Registry } from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";
import { Absent } from "./library.ts";
import { openLmdb } from "./lmdb.ts";
import { properLockfile } from "./proper_lockfile.ts";
import { openRedis, redisLock } from "./redis.ts";
import { openDsmr, type Store } from "./store.ts";

/** Where the run's folder is, where the packages are, and whether there is a Redis server. */
const [dir = "", folder = "", redis = ""] = process.argv.slice(2);

/** The folder of the run. */
export const runDir: string = dir;

const subjects: Subject[] = [];
const absent: string[] = [];
const endings: (() => void)[] = [];

/** Adds a subject, and does it once: what cannot be done should fail before anything is timed. */
export async function add(name: string, count: number, run: Subject["run"]): Promise<void> {
  await run(1);
  subjects.push({ name, count, run });
}

/** Adds a store's subjects. */
export async function addStore(name: string, count: number, store: Store): Promise<void> {
  await add(`update:${name}`, count, (count) => store.increment(count));
  await add(`read:${name}`, count, (count) => store.read(count));
  endings.push(() => store.end());
}

/** Tries to add something; what is absent, or does not work here, is noted. */
async function tryTo(name: string, action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    absent.push(error instanceof Absent ? error.message : `${name}: does not work here: ${error}`);
  }
}

/** Deno's own, within one process. */
interface LockManager {
  request(name: string, callback: () => void): Promise<void>;
}

/** Answers until the input ends. */
export async function answer(): Promise<void> {
  const registry = Registry.openSync("lock", { dir });
  const { lock } = registry.getNamedSegmentSync(`data-${process.pid}`, 4096);
  await add("lock:dsmr", 5000, (count) => {
    for (let i = 0; i < count; i++) {
      lock.acquireSync();
      lock.release();
    }
  });
  await add("lock:dsmr-async", 2000, async (count) => {
    for (let i = 0; i < count; i++) {
      await lock.acquire();
      lock.release();
    }
  });
  await add("lock:dsmr-request", 300, async (count) => {
    for (let i = 0; i < count; i++) await registry.locks.request("name", () => {});
  });
  const { locks } = navigator as { locks?: LockManager };
  if (locks === undefined) absent.push("navigator.locks: this runtime has none");
  else {
    await add("lock:navigator", 300, async (count) => {
      for (let i = 0; i < count; i++) await locks.request("name", () => {});
    });
  }
  await addStore("dsmr", 5000, openDsmr(dir));
  await tryTo("lmdb", () => addStore("lmdb", 300, openLmdb(dir, folder)));
  await tryTo("proper-lockfile", async () => {
    const pair = properLockfile(dir, folder);
    await add("lock:lockfile", 10, async (count) => {
      for (let i = 0; i < count; i++) await pair();
    });
  });
  if (redis !== "") {
    await tryTo("Redis", async () => {
      await addStore("redis", 50, await openRedis(dir, folder));
      const { pair, end } = await redisLock(dir, folder);
      endings.push(end);
      await add("lock:redis", 25, async (count) => {
        for (let i = 0; i < count; i++) await pair();
      });
    });
  }

  process.stdout.write(`${JSON.stringify(absent)}\n`);
  for await (const _ of createInterface({ input: process.stdin })) {
    process.stdout.write(`${await turn(subjects)}\n`);
  }
  for (const end of endings) end();
  registry.close();
  process.exit();
}
