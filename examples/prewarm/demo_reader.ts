/**
 * One of the demo's processes that read, started by demo.ts in either runtime:
 *
 *   demo_reader.ts <registry> <options of the add-in, as JSON> <folder with the data> <seed>
 *
 * It says when it is ready, reads when a line comes in, reports, and ends with its input.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { Registry } from "../../lib/mod.ts";
import { checkBlock, skewedBlocks } from "./demo_data.ts";
import { prewarm, type PrewarmOptions } from "./prewarm.ts";

/** How many blocks a process reads; and how many of these are "the first". */
export const READS = 3000;
export const FIRST_READS = 100;

/** What a reader says on stdout, in a line of JSON. */
export type Report =
  | { kind: "ready" }
  /** How many of its reads, and of the first of them, were found in the cache. */
  | { kind: "done"; hits: number; firstHits: number };

function main(name: string, options: PrewarmOptions, folder: string, seed: number): void {
  const warm = prewarm(options);
  const registry = Registry.openSync(name, { mode: "attach", addins: [warm] });
  const { cache } = registry.addin(warm);
  const report = (report: Report): void => void process.stdout.write(JSON.stringify(report) + "\n");

  const lines = createInterface({ input: process.stdin });
  lines.once("line", () => {
    let firstHits = 0;
    let count = 0;
    for (const { path, block, number } of skewedBlocks(folder, seed, READS)) {
      checkBlock(cache.read(path, block), number);
      if (++count === FIRST_READS) firstHits = cache.hits;
    }
    report({ kind: "done", hits: cache.hits, firstHits });
  });
  lines.on("close", () => registry.close());
  report({ kind: "ready" });
}

// The demo imports the numbers above; as a program it runs.
if (process.argv.length === 6) {
  const [, , name = "", options = "", folder = "", seed = ""] = process.argv;
  main(name, JSON.parse(options) as PrewarmOptions, folder, Number(seed));
}
