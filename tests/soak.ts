/**
 * The soak: `deno task soak`.
 *
 *   deno task soak                 ten minutes
 *   deno task soak 60              so many seconds
 *   deno task soak 60 4711         with this seed
 *
 * A seed repeats what members and killer intend, not how the machine interleaves them. The last
 * line is `N passed, N failed`; the gate runs a minute of it.
 *
 * @module
 */

import process from "node:process";
import { Scene } from "./_scene.ts";
import { Soak } from "./_soak.ts";

const [seconds = 600, seed = Date.now() % 1_000_000] = process.argv.slice(2).map(Number);
if (!(seconds > 0) || !Number.isInteger(seed)) {
  console.error("usage: deno task soak [seconds [seed]]");
  process.exit(2);
}

const scene = new Scene();
let soak: Soak | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    soak?.stop();
    void scene.end().finally(() => process.exit(130));
  });
}

console.log(`soak: ${seconds} s, seed ${seed}`);
let failed = 0;
let passed = 0;
try {
  soak = new Soak(scene, seconds, seed);
  for (const { what, trouble, details } of await soak.run()) {
    if (trouble === undefined) passed++;
    else failed++;
    console.log(`${trouble === undefined ? "ok    " : "FAILED"} ${what}`);
    console.log(`       ${trouble ?? details}`);
  }
} catch (error) {
  failed++;
  console.log(`FAILED ${error instanceof Error ? error.stack : error}`);
} finally {
  await scene.end();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
