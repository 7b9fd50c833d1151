/**
 * What `dsmr top` costs those whom it looks at: the same work in turns, with it and without.
 *
 *   deno run -A bench/subjects/top_cost.ts [rounds, default 15]
 *
 * A round is half a second of uncontended lock pairs, and of attaching and detaching a segment,
 * which takes the lock of the registry's tables that top takes, too. It looks ten times a second
 * here, where it does so once by default. Prints the quickest and the median round of each.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Registry } from "../../lib/mod.ts";

const rounds = Number(process.argv[2] ?? 15);
const ROUND_MS = 500;
const BATCH = 1000;

const dir = mkdtempSync("/dev/shm/dsmr-top-cost-");
const registry = Registry.openSync("busy", { dir });
for (let i = 0; i < 50; i++) registry.getNamedSegmentSync(`segment ${i}`, 4096);
const { lock } = registry.getNamedSegmentSync("hot", 4096);
registry.getNamedSegmentSync("comes and goes", 4096);

/** Nanoseconds for each, on average over half a round. */
function measure(work: () => void): number {
  const begin = performance.now();
  let count = 0;
  let now = begin;
  while (now - begin < ROUND_MS / 2) {
    for (let i = 0; i < BATCH; i++) work();
    count += BATCH;
    now = performance.now();
  }
  return (now - begin) * 1e6 / count;
}

const works: { readonly [name: string]: () => void } = {
  "lock pair": () => {
    lock.acquireSync("exclusive");
    lock.release();
  },
  "attach and detach": () => {
    registry.getNamedSegmentSync("comes and goes", 4096).detach();
  },
};

/** Runs top until the result is called; it has looked once when this resolves. */
async function top(): Promise<() => Promise<void>> {
  const tool = join(fileURLToPath(new URL("../../tool/main.ts", import.meta.url)));
  const run = process.versions["deno"] === undefined ? ["run"] : ["run", "--quiet", "-A"];
  const args = [...run, tool, "top", "busy", "--dir", dir, "--interval", "0.1"];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.on("exit", () => resolve()));
  await new Promise<void>((resolve) => child.stdout.once("data", () => resolve()));
  child.stdout.resume();
  return () => (child.kill("SIGTERM"), ended);
}

const results = new Map<string, number[]>();

function note(what: string, nanoseconds: number): void {
  const all = results.get(what) ?? [];
  all.push(nanoseconds);
  results.set(what, all);
}

try {
  for (const work of Object.values(works)) measure(work); // until it is compiled
  for (let i = 0; i < rounds; i++) {
    for (const [name, work] of Object.entries(works)) note(`${name}, alone`, measure(work));
    const stop = await top();
    for (const [name, work] of Object.entries(works)) note(`${name}, watched`, measure(work));
    await stop();
  }
} finally {
  registry.close();
  rmSync(dir, { recursive: true, force: true });
}

console.log(`${"".padEnd(28)}${"quickest".padStart(12)}${"median".padStart(12)}`);
for (const [what, all] of [...results].sort(([a], [b]) => a < b ? -1 : 1)) {
  const sorted = all.toSorted((a, b) => a - b);
  const [quickest = NaN, median = NaN] = [sorted[0], sorted[Math.floor(sorted.length / 2)]];
  const ns = (value: number): string => `${value.toFixed(1)} ns`.padStart(12);
  console.log(`${what.padEnd(28)}${ns(quickest)}${ns(median)}`);
}
