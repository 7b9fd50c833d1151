/**
 * A member of a soak, in Deno and in Bun: some tasks that do at random whatever one can wait
 * for, with and without blocking.
 *
 *   _soak_member.ts DIRECTORY LIFE SEED DEEDS SAMPLE_MS
 *
 * It ends when it is told to, or after so many deeds (0: never), and then by itself: nothing that
 * it has left pending keeps it. SAMPLE_MS: how often it tells what it uses (0: never).
 *
 * @module
 */

import { readdirSync, readFileSync, writeSync } from "node:fs";
import process from "node:process";
import { Registry } from "../lib/mod.ts";
import { randomFrom } from "./_random.ts";
import { Deeds } from "./_soak_deeds.ts";
import { DEADLINE, killedWord, type Line, type Sample, STOP, TASKS } from "./_soak_layout.ts";

const [dir = "", ...numbers] = process.argv.slice(2);
const [life = 0, seed = 0, deedsMax = 0, sampleMs = 0] = numbers.map(Number);

function print(line: Line): void {
  writeSync(1, JSON.stringify(line) + "\n");
}

function fail(error: unknown): never {
  const what = error instanceof Error ? error.stack ?? error.message : String(error);
  print({ violation: `life ${life}: ${what}` });
  // The others need not find what we leave behind.
  Atomics.store(control, killedWord(life), 1);
  process.exit(1);
}

process.on("unhandledRejection", fail);

const registry = Registry.openSync("soak", { dir, mode: "attach" });
const control = new Int32Array(registry.getNamedSegmentSync("control").buffer);
const counts: Record<string, number> = {};
let deedCount = 0;

function isOver(): boolean {
  return Atomics.load(control, STOP) !== 0 || Date.now() / 1000 > (control[DEADLINE] ?? 0) ||
    (deedsMax > 0 && deedCount >= deedsMax);
}

async function runTask(task: number): Promise<void> {
  const deeds = new Deeds({ registry, control, dir, life, task, random: randomFrom(seed + task) });
  while (!isOver()) {
    const name = await deeds.one();
    counts[name] = (counts[name] ?? 0) + 1;
    deedCount++;
    // Many deeds never wait: let timers and mail have their turn.
    if (deedCount % 16 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
}

/** Garbage first: what is left is what somebody still holds. */
function collect(): void {
  const { Bun, gc } = globalThis as {
    Bun?: { gc(force: boolean): void };
    gc?: () => void;
  };
  Bun?.gc(true);
  gc?.();
}

function entries(folder: string): number {
  try {
    return readdirSync(folder).length;
  } catch {
    return 0; // Not on this system.
  }
}

function ownMemory(rss: number): number {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    return Number(/^RssAnon:\s*(\d+) kB/m.exec(status)?.[1]) * 1024;
  } catch {
    return rss;
  }
}

function sample(): Sample {
  collect();
  const { rss, heapUsed } = process.memoryUsage();
  return {
    at: performance.now(),
    rss,
    own: ownMemory(rss),
    heap: heapUsed,
    descriptors: entries("/proc/self/fd"),
    threads: entries("/proc/self/task"),
  };
}

async function takeSamples(): Promise<void> {
  let next = performance.now() + sampleMs;
  while (!isOver()) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(100, sampleMs)));
    if (performance.now() < next) continue;
    next += sampleMs;
    print({ sample: sample(), deeds: counts });
  }
}

try {
  print({ pid: process.pid });
  const tasks = Array.from({ length: TASKS }, (_, task) => runTask(task));
  if (sampleMs > 0) tasks.push(takeSamples());
  await Promise.all(tasks);
  await new Deeds({ registry, control, dir, life, task: TASKS, random: Math.random }).farewell();
  print({ deeds: counts });
  registry.close();
} catch (error) {
  fail(error);
}
