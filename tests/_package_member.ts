/**
 * The Worker of `_package_program.ts`.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";

parentPort?.on("message", async () => {
  const { Registry } = await import("@dsmr/registry");
  const registry = Registry.openSync("test", { dir: workerData as string });
  Atomics.add(new Int32Array(registry.getNamedSegmentSync("a", 64).buffer), 0, 1);
  parentPort?.postMessage("opened");
});
parentPort?.postMessage("started");
