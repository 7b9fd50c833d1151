/**
 * A process that reads through the cache of blocks, or saves lists, and can be made to die at any
 * of its stores: commands as lines of JSON on stdin, reports on stdout.
 *
 * @module
 */

import process from "node:process";
import type { BlockCache, CachedFile } from "../examples/prewarm/block_cache.ts";
import { saveList, type SaveStep } from "../examples/prewarm/block_list.ts";
import { prewarm, type PrewarmOptions } from "../examples/prewarm/prewarm.ts";
import { Registry } from "../lib/mod.ts";
import { checkContent, randomBlocks } from "./_prewarm_data.ts";
import { commands, report } from "./_line_protocol.ts";

/** What such a process can be told. */
export type PrewarmCommand =
  | { do: "open"; dir: string; options: PrewarmOptions }
  /** Reads blocks at random, and checks what it gets. */
  | { do: "readRandom"; folder: string; seed: number; count: number }
  /** Reads a block, and checks it. */
  | { do: "read"; path: string; block: number }
  /** Is killed before the n-th store to any memory from here on, or behind the next exchange. */
  | { do: "dieAtStore"; n: number; afterExchange?: boolean }
  /** Saves a list, and is killed at the step. */
  | { do: "save"; file: string; list: CachedFile[]; dieAt: SaveStep };

export interface PrewarmReport {
  ok?: boolean;
  pid?: number;
  message?: string;
  hits?: number;
  misses?: number;
}

const die = (): void => void process.kill(process.pid, "SIGKILL");

/** Dies before the n-th call of what changes memory; also in the middle of copying a block. */
function dieAtStore(n: number, afterExchange: boolean): void {
  let isCounting = !afterExchange;
  let count = 0;
  const step = (name?: PropertyKey): void => {
    if (isCounting && ++count === n) die();
    if (name === "exchange") isCounting = true;
  };
  const guard = <Target extends object>(target: Target, ...names: (keyof Target)[]): void => {
    for (const name of names) {
      const original = target[name] as (...args: unknown[]) => unknown;
      target[name] = function (this: unknown, ...args: unknown[]): unknown {
        step(name);
        return original.apply(this, args);
      } as Target[keyof Target];
    }
  };
  guard(Atomics, "store", "add", "exchange", "compareExchange");
  guard(Uint8Array.prototype, "fill");
  const set = Uint8Array.prototype.set;
  Uint8Array.prototype.set = function (source: ArrayLike<number>, offset: number = 0): void {
    step();
    set.call(this, Array.from(source).slice(0, source.length / 2), offset);
    step();
    set.call(this, source, offset);
  };
}

let cache: BlockCache | undefined;

function opened(): BlockCache {
  if (cache === undefined) throw new Error("Not open.");
  return cache;
}

function answer(command: PrewarmCommand): PrewarmReport {
  switch (command.do) {
    case "open": {
      const warm = prewarm(command.options);
      const registry = Registry.openSync("test", { dir: command.dir, addins: [warm] });
      cache = registry.addin(warm).cache;
      return {};
    }
    case "readRandom": {
      const { folder, seed, count } = command;
      for (const { path, block } of randomBlocks(folder, seed, count)) {
        checkContent(opened().read(path, block), path, block);
      }
      break;
    }
    case "read": {
      const { path, block } = command;
      checkContent(opened().read(path, block), path, block);
      break;
    }
    case "dieAtStore":
      dieAtStore(command.n, command.afterExchange ?? false);
      return {};
    case "save": {
      const { file, list, dieAt } = command;
      saveList(file, list, (step) => {
        if (step === dieAt) die();
      });
      return {};
    }
  }
  const { hits, misses } = opened();
  return { hits, misses };
}

for (const command of commands<PrewarmCommand>()) {
  try {
    report({ ok: true, ...answer(command) } satisfies PrewarmReport);
  } catch (error) {
    report({ ok: false, message: String(error) } satisfies PrewarmReport);
  }
}
