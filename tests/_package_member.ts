/**
 * The Worker of `_package_program.ts`, and its background worker.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import type { WorkerContext } from "@dsmr/registry";

parentPort?.on("message", async () => {
  const { Registry } = await import("@dsmr/registry");
  const registry = Registry.openSync("test", { dir: workerData as string });
  Atomics.add(new Int32Array(registry.getNamedSegmentSync("a", 64).buffer), 0, 1);
  parentPort?.postMessage("opened");
});
parentPort?.postMessage("started");

/** Of the background worker. */
export default function main(ctx: WorkerContext): Promise<void> {
  ctx.ready();
  return new Promise((resolve) => ctx.signal.addEventListener("abort", () => resolve()));
}
