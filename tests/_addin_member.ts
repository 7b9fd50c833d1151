/**
 * A process that opens a registry with add-ins: commands as lines of JSON on stdin, reports on
 * stdout. What the hooks do is told step by step; a step can hold until the test says go on, and
 * the process can be made to die at any of its stores.
 *
 * @module
 */

import { appendFileSync } from "node:fs";
import process from "node:process";
import {
  type Addin,
  type AddinHandle,
  defineAddin,
  DsmrError,
  type MainAreaStruct,
  Registry,
  type RequestContext,
  type Scope,
  type StartupContext,
} from "../lib/mod.ts";
import { commands, readLine, report } from "./_line_protocol.ts";

/** What a hook does, in order. */
export type HookStep =
  | { space: number }
  | { tranche: string; count: number }
  /** Appends a line to the log that all processes share. */
  | { log: string }
  /** Reports that it is here, and blocks until the test says so. */
  | { hold: string }
  | { throw: string }
  /** Dies before the n-th store to any memory from here on. */
  | { dieAtStore: number }
  /** Runs these with the add-in init lock held. */
  | { locked: HookStep[] }
  /** Takes a part of the main area, and fills its words with the value if it is fresh. */
  | { part: string; size: number; value: number; inside?: HookStep[] }
  /** Adds 1 to the first word of a part, which it has taken before. */
  | { bump: string }
  | { shmem: string; size: number; value: number; scope?: Scope; inside?: HookStep[] };

export interface AddinSpec {
  name: string;
  request?: HookStep[];
  startup?: HookStep[];
  init?: HookStep[];
}

export type MemberCommand =
  | {
    do: "open";
    dir: string;
    name?: string;
    database?: string;
    addins: AddinSpec[];
    isAsync?: boolean;
  }
  /** Opens once more, in the same isolate, with these add-ins. */
  | { do: "openMore"; addins: AddinSpec[] }
  | { do: "tranche"; tranche: string; lock?: number; what?: "acquire" | "try" | "release" }
  | { do: "lookup"; shmem: string }
  | { do: "parts" };

export interface MemberReport {
  ok?: boolean;
  pid?: number;
  holding?: string;
  code?: string;
  message?: string;
  cause?: string;
  preloaded?: Record<string, boolean>;
  /** By name: what was taken, and whether fresh memory was all zero. */
  parts?: Record<string, { found: boolean; wasZero: boolean; value: number }>;
  /** Of the tranche by this name. */
  count?: number;
  ids?: (number | null)[];
  held?: boolean;
  found?: boolean;
  size?: number;
  value?: number;
}

const log = process.env.ADDIN_LOG ?? "";
const parts = new Map<string, { area: MainAreaStruct; wasZero: boolean }>();
const preloaded: Record<string, boolean> = {};
let registry: Registry | undefined;

function wordsOf({ segment, byteOffset, byteLength }: MainAreaStruct): Int32Array {
  return new Int32Array(segment.buffer, byteOffset, byteLength / 4);
}

/** From here on the n-th store is never made: by whatever call the library makes stores. */
function dieAtStore(n: number): void {
  let count = 0;
  const guard = <Target extends object>(target: Target, name: keyof Target): void => {
    const original = target[name] as (...args: unknown[]) => unknown;
    target[name] = function (this: unknown, ...args: unknown[]): unknown {
      if (++count === n) process.kill(process.pid, "SIGKILL");
      return original.apply(this, args);
    } as Target[keyof Target];
  };
  guard(Atomics, "store");
  guard(DataView.prototype, "setUint32");
  guard(DataView.prototype, "setFloat64");
  guard(Uint8Array.prototype, "set");
  guard(Uint8Array.prototype, "fill");
}

type Context = Partial<RequestContext & StartupContext & AddinHandle>;

function run(steps: HookStep[], ctx: Context): void {
  for (const step of steps) {
    if ("space" in step) ctx.requestSpace?.(step.space);
    else if ("tranche" in step) ctx.requestTranche?.(step.tranche, step.count);
    else if ("log" in step) appendFileSync(log, `${process.pid} ${step.log}\n`);
    else if ("throw" in step) throw new Error(step.throw);
    else if ("dieAtStore" in step) dieAtStore(step.dieAtStore);
    else if ("locked" in step) {
      ctx.addinInitLock?.withSync("exclusive", () => run(step.locked, ctx));
    } else if ("hold" in step) {
      report({ holding: step.hold } satisfies MemberReport);
      if (readLine() === undefined) process.exit(1);
    } else if ("bump" in step) {
      const part = parts.get(step.bump);
      if (part !== undefined) Atomics.add(wordsOf(part.area), 0, 1);
    } else if ("part" in step) {
      const { part, size, value, inside = [] } = step;
      ctx.addinInitLock?.withSync("exclusive", () => {
        const area = ctx.initStruct?.(part, size);
        if (area === undefined) throw new Error("No part.");
        parts.set(part, { area, wasZero: area.bytes.every((byte) => byte === 0) });
        if (!area.found) wordsOf(area).fill(value);
        run(inside, ctx);
      });
    } else {
      const { shmem, size, value, scope, inside = [] } = step;
      ctx.allocateShmem?.({
        name: shmem,
        size,
        ...(scope && { scope }),
        callback: (segment, payload) => {
          run(inside, ctx);
          new Int32Array(segment.buffer).fill(payload);
        },
        payload: value,
      });
    }
  }
}

/** The same object for the same add-in, as a program has it. */
const addins = new Map<string, Addin>();

function addinOf(spec: AddinSpec): Addin {
  const key = JSON.stringify(spec);
  const addin = addins.get(key) ?? define(spec);
  addins.set(key, addin);
  return addin;
}

function define({ name, request, startup, init }: AddinSpec): Addin {
  return defineAddin({
    name,
    ...(request && { request: (ctx) => run(request, ctx) }),
    startup: (ctx) => {
      preloaded[name] = ctx.preloaded;
      run(startup ?? [], ctx);
    },
    ...(init && { init: (handle) => run(init, handle) }),
  });
}

function partsReport(): MemberReport {
  const entries = [...parts].map(([name, { area, wasZero }]) => {
    return [name, { found: area.found, wasZero, value: wordsOf(area)[0] ?? NaN }] as const;
  });
  return { parts: Object.fromEntries(entries), preloaded };
}

async function answer(command: MemberCommand): Promise<MemberReport> {
  switch (command.do) {
    case "open": {
      const { dir, name = "test", database = "default", isAsync = false } = command;
      const options = { dir, database, addins: command.addins.map(addinOf) };
      registry = isAsync ? await Registry.open(name, options) : Registry.openSync(name, options);
      return partsReport();
    }
    case "openMore":
      Registry.openSync(registry?.name ?? "", {
        dir: registry?.dir ?? "",
        database: registry?.database ?? "",
        addins: command.addins.map(addinOf),
      });
      return partsReport();
    case "tranche": {
      const { tranche, lock = 0, what } = command;
      const locks = registry?.getTranche(tranche) ?? [];
      const ids = [...registry?.tranches() ?? []].filter(({ name }) => name === tranche);
      if (what === "acquire") locks[lock]?.acquireSync();
      if (what === "release") locks[lock]?.release();
      const held = what === "try" ? locks[lock]?.tryAcquire() : locks[lock]?.heldByMe();
      return { count: locks.length, ids: ids.map(({ id }) => id), held: held === true };
    }
    case "lookup": {
      const segment = registry?.lookupShmem(command.shmem) ?? null;
      if (segment === null) return { found: false };
      return {
        found: true,
        size: segment.size,
        value: new Int32Array(segment.buffer, 0, 1)[0] ?? NaN,
      };
    }
    case "parts":
      return partsReport();
  }
}

function failure(error: unknown): MemberReport {
  if (!(error instanceof Error)) return { ok: false, message: String(error) };
  return {
    ok: false,
    message: error.message,
    ...(error instanceof DsmrError ? { code: error.code } : {}),
    ...(error.cause instanceof Error ? { cause: error.cause.message } : {}),
  };
}

for (const command of commands<MemberCommand>()) {
  report(await answer(command).then((report) => ({ ok: true, ...report }), failure));
}
