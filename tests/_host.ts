/**
 * A child process with Workers: a line is a command for the main thread, or
 * `{ worker, what }` for a Worker. Reports carry the number of their Worker.
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { Worker } from "node:worker_threads";
import { Agent, type Command, hashOf, type Report } from "./_agent.ts";

type Line =
  | Command
  /** Reports what the buffers that Workers gave away hash to. */
  | { do: "given" }
  | { worker: number; what: "start" | "go" | "end" | Command };

interface Member {
  worker: Worker;
  gate: Int32Array;
}

const members = new Map<number, Member>();
const given: Uint8Array[] = [];

function report(report: Report & { worker?: number }): void {
  writeSync(1, JSON.stringify(report) + "\n");
}

const agent = new Agent({
  report,
  waitForGo(): void {
    throw new Error("The main thread of a host cannot wait: its Workers need it.");
  },
});

function start(number: number): void {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL("./_worker.ts", import.meta.url), {
    workerData: { gate: gate.buffer },
  });
  members.set(number, { worker, gate });
  worker.on("message", (message: Report | { given: ArrayBuffer }) => {
    if ("given" in message) given.push(new Uint8Array(message.given));
    else report({ worker: number, ...message });
  });
  worker.on("error", (error) => {
    process.stderr.write(`Worker ${number}: ${error}\n`);
    process.exit(1);
  });
}

async function tell(number: number, what: "start" | "go" | "end" | Command): Promise<void> {
  if (what === "start") return start(number);
  const member = members.get(number);
  if (member === undefined) throw new Error(`There is no Worker ${number}.`);
  if (what === "go") {
    Atomics.store(member.gate, 0, 1);
    Atomics.notify(member.gate, 0);
  } else if (what === "end") {
    await member.worker.terminate();
    report({ worker: number, said: "terminated" });
  } else {
    member.worker.postMessage(what);
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const parsed = JSON.parse(line) as Line;
  if ("worker" in parsed) void tell(parsed.worker, parsed.what);
  else if (parsed.do === "given") report({ ok: true, hashes: given.map(hashOf) });
  else report(agent.run(parsed));
});
lines.on("close", () => process.exit(0));
report({ pid: process.pid });
