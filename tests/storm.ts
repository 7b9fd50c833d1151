/**
 * The storm, for minutes: `deno task storm`.
 *
 *   deno task storm                 120 s
 *   deno task storm 600             so many seconds
 *   deno task storm 60 4711         beginning with this seed
 *
 * It goes in rounds, each with a registry and a seed of its own, so that the history of a round
 * fits into memory. The first fault ends it, with exit code 1 and the seed of its round; a
 * seed repeats what members and killer intend, not how the machine interleaves them.
 * `tests/storm_test.ts` runs one short round.
 *
 * @module
 */

import process from "node:process";
import { Scene } from "./_scene.ts";
import { runStorm, summary } from "./_storm.ts";

const ROUND_SECONDS = 15;

const [seconds = 120, firstSeed = Date.now() % 1_000_000] = process.argv.slice(2).map(Number);
if (!(seconds > 0) || !Number.isInteger(firstSeed)) {
  console.error("usage: deno task storm [seconds [seed]]");
  process.exit(2);
}

let scene: Scene | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => void scene?.end().finally(() => process.exit(130)));
}

const end = performance.now() + seconds * 1000;
for (let seed = firstSeed; performance.now() < end; seed++) {
  scene = new Scene();
  try {
    const left = (end - performance.now()) / 1000;
    const storm = await runStorm(scene, { seed, seconds: Math.min(ROUND_SECONDS, left) });
    console.log(`seed ${seed}: ${summary(storm)}`);
  } catch (error) {
    console.error(`FAILED ${error instanceof Error ? error.stack : error}`);
    process.exitCode = 1;
    break;
  } finally {
    await scene.end();
  }
}
