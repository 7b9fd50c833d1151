/**
 * The child process of the tests: commands as lines of JSON on stdin, reports on stdout.
 *
 * @module
 */

import { readSync, writeSync } from "node:fs";
import process from "node:process";
import { Agent, type Command, type Report } from "./_agent.ts";

const decoder = new TextDecoder();
const chunk = new Uint8Array(65536);
let pending = "";

/** Blocks: an init callback must be able to wait for the test. Undefined: the test has ended. */
function readLine(): string | undefined {
  for (;;) {
    const end = pending.indexOf("\n");
    if (end >= 0) {
      const line = pending.slice(0, end);
      pending = pending.slice(end + 1);
      return line;
    }
    const length = readSync(0, chunk);
    if (length === 0) return undefined;
    pending += decoder.decode(chunk.subarray(0, length), { stream: true });
  }
}

function report(report: Report): void {
  writeSync(1, JSON.stringify(report) + "\n");
}

const agent = new Agent({
  report,
  waitForGo(): void {
    if (readLine() === undefined) process.exit(1);
  },
});

report({ pid: process.pid });
for (let line = readLine(); line !== undefined; line = readLine()) {
  report(agent.run(JSON.parse(line) as Command));
}
