/**
 * Loaded before the library in the process of a background worker: has it killed at one of its
 * changes of the workers' table, or counts them. Which, the worker's name says. Only at its first
 * start: at the next one it lives.
 *
 * @module
 */

import { appendFileSync } from "node:fs";
import process from "node:process";
import type { Orders } from "../lib/workers/member.ts";
import { watchTableChanges } from "./_table_changes.ts";

const { worker, attempt } = JSON.parse(process.argv.at(-1) ?? "") as Orders;
const log = process.env["DSMR_TEST_STEPS"] ?? "";
const last = Number(/^dies at (\d+)$/.exec(worker)?.[1]);

if (attempt === 1) {
  let steps = 0;
  watchTableChanges(() => {
    if (++steps !== last) return;
    appendFileSync(log, `${worker}\n`);
    process.kill(process.pid, "SIGKILL");
  });
  process.on("exit", () => appendFileSync(log, `${worker}: ${steps}\n`));
}
