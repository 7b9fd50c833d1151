/**
 * A worker's module that takes its time to load: it says so in the worker's record, and goes on
 * when the test has taken that back.
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../lib/mod.ts";
import { ENDS, recordOf } from "./_background_worker.ts";

const { dir, name } = JSON.parse(process.argv.at(-1) ?? "") as { dir: string; name: string };
const registry = Registry.openSync(name, { dir });
const words = new Int32Array(recordOf(registry, "slow").buffer);
Atomics.store(words, ENDS, -1);
while (Atomics.load(words, ENDS) === -1) await new Promise((resolve) => setTimeout(resolve, 5));

export { default } from "./_background_worker.ts";
