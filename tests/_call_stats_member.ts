/**
 * A process that counts calls, and can be made to die at any of its stores: commands as lines of
 * JSON on stdin, reports on stdout.
 *
 * @module
 */

import process from "node:process";
import { type CallStats, callStats } from "../examples/call_stats/call_stats.ts";
import type { CallRow } from "../examples/call_stats/call_table.ts";
import { Registry } from "../lib/mod.ts";
import { callsOf } from "./_call_stats_traffic.ts";
import { commands, readLine, report } from "./_line_protocol.ts";

/** What such a process can be told. */
export type StatsCommand =
  | { do: "open"; dir: string; registry: string }
  | { do: "record"; calls: [name: string, ms: number][] }
  /** The calls of {@linkcode callsOf}. */
  | { do: "storm"; seed: number; count: number; nameCount: number }
  /**
   * Records calls of 1 ms by this name and ever new ones until it is killed. Words 0 and 1 of
   * segment `tally` tell how many it has begun and ended.
   */
  | { do: "tally"; name: string }
  | { do: "rows" }
  | { do: "reset" }
  /** Dies, or reports and waits for a line, before the n-th store to any memory from here on. */
  | { do: "atStore"; n: number; then: "die" | "hold" };

export interface StatsReport {
  ok?: boolean;
  pid?: number;
  message?: string;
  rows?: CallRow[];
  isHolding?: boolean;
}

/** What changes memory, of all that the library and the add-in call. */
function atStore(n: number, happens: () => void): void {
  let count = 0;
  const guard = <Target extends object>(target: Target, ...names: (keyof Target)[]): void => {
    for (const name of names) {
      const original = target[name] as (...args: unknown[]) => unknown;
      target[name] = function (this: unknown, ...args: unknown[]): unknown {
        if (++count === n) happens();
        return original.apply(this, args);
      } as Target[keyof Target];
    }
  };
  guard(Atomics, "store", "add", "exchange", "compareExchange");
  guard(DataView.prototype, "setUint32");
  guard(Uint8Array.prototype, "set", "fill");
}

let registry: Registry | undefined;

function stats(): CallStats {
  if (registry === undefined) throw new Error("Not open.");
  return registry.addin(callStats);
}

function tally(name: string): never {
  const segment = registry?.lookupSegment("tally");
  const words = new Int32Array(segment?.buffer ?? new ArrayBuffer(0));
  for (let i = 0;; i++) {
    // New names, too: they take the lock. Not so many that the table is full.
    if (i % 100 === 0 && i < 10_000) stats().record(`${name} ${i}`, 1);
    Atomics.add(words, 0, 1);
    stats().record(name, 1);
    Atomics.add(words, 1, 1);
  }
}

function answer(command: StatsCommand): StatsReport {
  switch (command.do) {
    case "open":
      registry = Registry.openSync(command.registry, { dir: command.dir, addins: [callStats] });
      return {};
    case "record":
      for (const [name, ms] of command.calls) stats().record(name, ms);
      return {};
    case "storm":
      for (const [name, ms] of callsOf(command.seed, command.count, command.nameCount)) {
        stats().record(name, ms);
      }
      return {};
    case "tally":
      return tally(command.name);
    case "rows":
      return { rows: stats().rows() };
    case "reset":
      return { rows: stats().reset() };
    case "atStore":
      atStore(command.n, () => {
        if (command.then === "die") process.kill(process.pid, "SIGKILL");
        report({ isHolding: true } satisfies StatsReport);
        readLine();
      });
      return {};
  }
}

for (const command of commands<StatsCommand>()) {
  try {
    report({ ok: true, ...answer(command) } satisfies StatsReport);
  } catch (error) {
    report({ ok: false, message: String(error) } satisfies StatsReport);
  }
}
