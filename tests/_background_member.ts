/**
 * A process of the tests of background workers: it supervises, or registers, or attaches.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { type BackgroundWorker, DsmrError, Registry, type WorkerSpec } from "../lib/mod.ts";
import type { Report } from "./_agent.ts";
import { beginAttempt } from "../lib/workers/lifecycle.ts";
import { STATE, SUPERVISOR, WAITING, WorkerTable } from "../lib/workers/table.ts";
import { Backend } from "../lib/backend.ts";
import { registerStatic, supervisorOf } from "../lib/workers/workers.ts";
import { watchTableChanges } from "./_table_changes.ts";

export type BackgroundCommand =
  | { do: "open"; dir: string; database?: string; supervise?: boolean }
  | { do: "register"; spec: WorkerSpec }
  | { do: "registerStatic"; addin: string; spec: WorkerSpec }
  /** Of the worker that was registered last. */
  | { do: "waitForStartupSync" | "waitForReadySync" | "waitForShutdownSync"; timeout?: number }
  | { do: "terminate" }
  /** Whether this process supervises. */
  | { do: "isSupervisor" }
  /** Raises the attempt of the first worker that is to be started, as a supervisor, and dies. */
  | { do: "beginAndDie"; dir: string }
  /** Is killed at the n-th change of the workers' table from here on. */
  | { do: "dieAtChange"; change: number }
  | { do: "releaseAll" }
  | { do: "close" }
  | { do: "exit" };

let registry: Registry | undefined;
let backend: Backend | undefined;
let worker: BackgroundWorker | undefined;

function opened(): Registry {
  if (registry === undefined) throw new Error("This member has no registry.");
  return registry;
}

function attach(dir: string, database = "default"): Backend {
  return Backend.open(dir, "test", database, {
    mode: "open",
    maxBackends: 0,
    maxSegments: 0,
    timeout_ms: 10_000,
  });
}

function run(command: BackgroundCommand): Report {
  switch (command.do) {
    case "open": {
      const { dir, database = "default", supervise = false } = command;
      registry = Registry.openSync("test", { dir, database, supervise });
      backend = attach(dir, database);
      return { ok: true, value: registry.backendId };
    }
    case "register":
      worker = opened().registerBackgroundWorker(command.spec);
      return { ok: true, value: worker.slot };
    case "registerStatic":
      if (backend === undefined) throw new Error("This member has no registry.");
      worker = registerStatic(backend, command.addin, command.spec);
      return { ok: true, value: worker.slot };
    case "waitForStartupSync":
    case "waitForReadySync":
    case "waitForShutdownSync": {
      const { timeout } = command;
      const result = worker?.[command.do](timeout === undefined ? {} : { timeout });
      return { ok: true, said: JSON.stringify(result) };
    }
    case "terminate":
      worker?.terminate();
      return { ok: true };
    case "isSupervisor":
      return {
        ok: true,
        found: backend !== undefined && supervisorOf(backend) === backend.id,
      };
    case "beginAndDie": {
      const own = attach(command.dir);
      const table = WorkerTable.open(own);
      table.changeSync(() => {
        table.setHead(SUPERVISOR, own.id | 0);
        for (let slot = 0; slot < 256; slot++) {
          if (table.get(slot, STATE) !== WAITING) continue;
          beginAttempt(table, slot);
          return;
        }
      });
      process.kill(process.pid, "SIGKILL");
      return { ok: true };
    }
    case "dieAtChange": {
      let steps = 0;
      watchTableChanges(() => {
        if (++steps === command.change) process.kill(process.pid, "SIGKILL");
      });
      return { ok: true };
    }
    case "releaseAll":
      return { ok: true, value: opened().releaseAll() };
    case "close":
      registry?.close();
      backend?.release();
      return { ok: true };
    case "exit":
      process.exit(0);
  }
}

function answer(command: BackgroundCommand): Report {
  try {
    return run(command);
  } catch (error) {
    if (!(error instanceof Error)) return { ok: false, error: String(error) };
    const report: Report = { ok: false, error: error.name, message: error.message };
    if (error instanceof DsmrError) report.code = error.code;
    return report;
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line) as BackgroundCommand)) + "\n");
});
// The test has ended, or lets it end.
lines.on("close", () => registry?.close());
process.stdout.write(JSON.stringify({ pid: process.pid }) + "\n");
