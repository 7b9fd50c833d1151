/**
 * How a process of the tests is told what to do, where it must be able to block: a command is a line
 * of JSON on stdin, a report one on stdout. It begins with a report of its pid, and lasts until its
 * stdin ends, which is when the test has.
 *
 * @module
 */

import { readSync, writeSync } from "node:fs";
import process from "node:process";

const decoder = new TextDecoder();
const chunk = new Uint8Array(65536);
let pending = "";

/** Blocks until the test says something. Undefined: it has ended. */
export function readLine(): string | undefined {
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

/** Tells the test something, at once. */
export function report(report: object): void {
  writeSync(1, JSON.stringify(report) + "\n");
}

/** The commands, one after the other. */
export function* commands<Command>(): Generator<Command> {
  report({ pid: process.pid });
  for (let line = readLine(); line !== undefined; line = readLine()) {
    yield JSON.parse(line) as Command;
  }
}
