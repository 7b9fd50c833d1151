/**
 * A program of somebody who has installed the package: copied into a project of its own, it starts
 * Workers that open a registry at the same time, then opens it itself. Prints how it went.
 *
 *   program DIRECTORY WORKERS
 *   program DIRECTORY supervise    starts a background worker instead
 *
 * @module
 */

import process from "node:process";
import { Worker } from "node:worker_threads";

const [directory = "", count = "0"] = process.argv.slice(2);

try {
  if (count === "supervise") await supervise();
  else await share();
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  console.log(JSON.stringify({ ok: false, code, message }));
}

async function supervise(): Promise<void> {
  const { Registry } = await import("@dsmr/registry");
  using registry = Registry.openSync("test", { dir: directory, supervise: true });
  const module = new URL("./member.ts", import.meta.url);
  const worker = registry.registerBackgroundWorker({ name: "member", module });
  await worker.waitForReady({ timeout: 100_000 });
  worker.terminate();
  console.log(JSON.stringify({ ok: true, ...await worker.waitForShutdown() }));
}

async function share(): Promise<void> {
  const workers = Array.from({ length: Number(count) }, () => {
    const worker = new Worker(new URL("./member.ts", import.meta.url), { workerData: directory });
    return { worker, started: said(worker, "started"), opened: said(worker, "opened") };
  });
  // All are ready, and none has loaded the library.
  await Promise.all(workers.map(({ started }) => started));
  for (const { worker } of workers) worker.postMessage("open");
  await Promise.all(workers.map(({ opened }) => opened));

  const { Registry } = await import("@dsmr/registry");
  using registry = Registry.openSync("test", { dir: directory });
  const segment = registry.getNamedSegmentSync("a", 64);
  const visits = Atomics.add(new Int32Array(segment.buffer), 0, 1) + 1;
  const backends = [...registry.backends()].length;
  console.log(JSON.stringify({ ok: true, visits, backends, maps: await maps() }));
  await Promise.all(workers.map(({ worker }) => worker.terminate()));
}

/** Resolves when the Worker says this; rejects when it fails. */
function said(worker: Worker, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.on("message", (message: unknown) => message === what && resolve());
    worker.on("error", reject);
  });
}

/** What of the library is mapped: one line for each file. Nothing where we may not look. */
async function maps(): Promise<string[]> {
  if (count === "0") return [];
  const { readFileSync } = await import("node:fs");
  const lines = readFileSync("/proc/self/maps", "utf8").split("\n");
  const files = lines.filter((line) => /libdsmr|dsmr-cache/.test(line))
    // The device, the inode and the name.
    .map((line) => line.split(/\s+/).slice(3, 6).join(" "));
  return [...new Set(files)];
}
