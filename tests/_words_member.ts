/**
 * A process that waits on words and signals, and dies in the midst of it: commands as lines of JSON
 * on stdin, reports likewise.
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { DsmrError, Registry, type Segment } from "../lib/mod.ts";
import { Backend } from "../lib/backend.ts";

export type WordsCommand =
  /** Opens the registry, segment "a" and signal "s". */
  | { do: "open"; dir: string }
  /** Is killed just before, or after, the n-th change of shared memory from now on. */
  | { do: "die"; change: number; when: "before" | "after" }
  /** Waits so many times on word `at`; reports how each has ended, but first `waits`. */
  | { do: "wait"; at: number; count: number; timeout?: number }
  | { do: "waitSync"; at: number; timeout: number }
  /** Ends all waits. */
  | { do: "abort" }
  | { do: "notify"; count: number }
  /** The same of the signal. */
  | { do: "signalWait" }
  | { do: "signalNotify" | "signalNotifyAll" | "dropSignal" }
  | { do: "sweep" };

let registry: Registry | undefined;
let segment: Segment | undefined;
let backend: Backend | undefined;
const abort = new AbortController();

function report(said: unknown): void {
  writeSync(1, JSON.stringify({ said: String(said) }) + "\n");
}

function end(promise: Promise<unknown>): void {
  promise.then(report, (error) => report(error instanceof DsmrError ? error.code : error.name));
}

type Change = "store" | "compareExchange" | "add" | "or";

/** All that the library changes shared memory by, the native library aside. */
function dieAt(change: number, when: "before" | "after"): void {
  let count = 0;
  for (const name of ["store", "compareExchange", "add", "or"] satisfies Change[]) {
    const original = Atomics[name] as (...args: unknown[]) => unknown;
    const counting = (...args: unknown[]): unknown => {
      const isIt = ++count === change;
      if (isIt && when === "before") process.kill(process.pid, "SIGKILL");
      const result = original(...args);
      if (isIt) process.kill(process.pid, "SIGKILL");
      return result;
    };
    Object.assign(Atomics, { [name]: counting });
  }
}

function run(command: WordsCommand): unknown {
  if (command.do === "open") {
    registry = Registry.openSync("test", { dir: command.dir });
    segment = registry.getNamedSegmentSync("a", 64);
    registry.signal("s");
    backend = Backend.open(command.dir, "test", "default", {
      mode: "attach",
      maxBackends: 0,
      maxSegments: 0,
      timeout_ms: 1000,
    });
    return report("open");
  }
  if (registry === undefined || segment === undefined) throw new Error("Open first.");
  switch (command.do) {
    case "die":
      dieAt(command.change, command.when);
      return report("armed");
    case "wait":
      for (let i = 0; i < command.count; i++) {
        const { timeout = Infinity } = command;
        end(segment.wait(command.at, 0, { timeout, signal: abort.signal }));
      }
      return report("waits");
    case "waitSync":
      return report(segment.waitSync(command.at, 0, { timeout: command.timeout }));
    case "abort":
      return abort.abort();
    case "notify":
      return report(segment.notify(0, command.count));
    case "signalWait":
      end(registry.signal("s").wait({ signal: abort.signal }));
      return report("waits");
    case "signalNotify":
      return report(registry.signal("s").notify());
    case "signalNotifyAll":
      return report(registry.signal("s").notifyAll());
    case "dropSignal":
      return report(registry.dropSignal("s"));
    case "sweep":
      return report(backend?.parking.sweep().parked);
  }
}

createInterface({ input: process.stdin }).on("line", (line) => run(JSON.parse(line)));
writeSync(1, JSON.stringify({ pid: process.pid }) + "\n");
