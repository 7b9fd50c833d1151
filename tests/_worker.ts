/**
 * The Worker of the tests: commands and reports as messages.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { Agent, type Command, type Report } from "./_agent.ts";

const gate = new Int32Array((workerData as { gate: SharedArrayBuffer }).gate);

function report(report: Report): void {
  parentPort?.postMessage(report);
}

const agent = new Agent({
  report,
  waitForGo(): void {
    Atomics.wait(gate, 0, 0);
    Atomics.store(gate, 0, 0);
  },
  give(given: ArrayBuffer): void {
    parentPort?.postMessage({ given }, [given]);
  },
});

parentPort?.on("message", (command: Command) => report(agent.run(command)));
report({ said: "ready" });
