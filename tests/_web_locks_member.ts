/**
 * A process, or a Worker of one, that uses locks by name as a test tells it to: commands as lines
 * of JSON on stdin, or as messages; reports likewise.
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { Registry, type WebLockOptions } from "../lib/mod.ts";
import { randomFrom } from "./_random.ts";

/** Reports `granted <id>`, or `null <id>`; when it has ended `done <id>` or `<error> <id>`. */
export interface RequestCommand {
  do: "request";
  id: number;
  name: string;
  options?: WebLockOptions;
  abortable?: boolean;
}

export type LocksCommand =
  | { do: "open"; dir: string }
  | RequestCommand
  /** Lets the callback end; ends the waiting. Reports nothing. */
  | { do: "end" | "abort"; id: number }
  /** Reports that all before has been done. */
  | { do: "sync" | "close" }
  /** Reports `held <n> pending <n>`. */
  | { do: "query" }
  /** Gets a signal at the n-th store to shared memory from now on. Reports nothing. */
  | { do: "die"; store: number; signal: "SIGKILL" | "SIGSTOP" }
  /** Holds so many names all at once, and lets go of them; reports `many`. */
  | { do: "many"; count: number }
  /** Requests at random, and watches over who else is there. Reports `storm <count>`. */
  | { do: "storm"; seed: number; milliseconds: number }
  /** Listens to nobody any more: ends when nothing is left to do. */
  | { do: "finish" }
  /** Of a host: starts a Worker, or ends it. */
  | { do: "start" | "terminate"; number: number }
  | { worker: number; command: LocksCommand };

let registry: Registry | undefined;
const ends = new Map<number, PromiseWithResolvers<void>>();
const controllers = new Map<number, AbortController>();
const workers = new Map<number, Worker>();

function report(said: string): void {
  if (isMainThread) writeSync(1, JSON.stringify({ said }) + "\n");
  else parentPort?.postMessage(said);
}

function opened(): Registry {
  if (registry === undefined) throw new Error("There is no registry.");
  return registry;
}

function request({ id, name, options, abortable }: RequestCommand): void {
  const end = Promise.withResolvers<void>();
  ends.set(id, end);
  const controller = new AbortController();
  controllers.set(id, controller);
  opened().locks.request(
    name,
    { ...options, ...(abortable === true ? { signal: controller.signal } : {}) },
    (lock) => {
      report(`${lock === null ? "null" : "granted"} ${id}`);
      return end.promise;
    },
  ).then(
    () => report(`done ${id}`),
    (error) => report(`${error.code === "CLOSED" ? "CLOSED" : error.name} ${id}`),
  );
}

const NAMES = 4;

/** Whoever holds a name alone writes its backend's id there; the dead leave theirs behind. */
async function storm(seed: number, milliseconds: number): Promise<void> {
  const { locks, backendId } = opened();
  const owners = new Int32Array(opened().getNamedSegmentSync("owners", NAMES * 4).buffer);
  const random = randomFrom(seed);
  const end = performance.now() + milliseconds;
  let count = 0;
  const isWrong = (found: number): boolean =>
    found !== 0 && (found === backendId || [...opened().backends()].some(({ id }) => id === found));
  const inside = async (place: number, isShared: boolean): Promise<void> => {
    const found = isShared
      ? Atomics.load(owners, place)
      : Atomics.exchange(owners, place, backendId);
    if (isWrong(found)) report(`VIOLATION: ${found} is in ${place}, and so is ${backendId}`);
    if (random() < 0.5) await new Promise((resolve) => setTimeout(resolve));
    if (isShared) {
      // Those that died here before may have left it; but nobody has come since.
      if (Atomics.load(owners, place) !== found) report(`VIOLATION: shared with one in ${place}`);
    } else if (Atomics.compareExchange(owners, place, backendId, 0) !== backendId) {
      report(`VIOLATION: another came to ${place}`);
    }
    count++;
  };
  const task = async (): Promise<void> => {
    while (performance.now() < end) {
      const place = Math.floor(random() * NAMES);
      const mode = random() < 0.4 ? "shared" : "exclusive";
      const dice = random();
      const options: WebLockOptions = { mode };
      if (dice < 0.2) options.ifAvailable = true;
      else if (dice < 0.4) options.signal = AbortSignal.timeout(Math.floor(random() * 3));
      await locks.request(
        `storm ${place}`,
        options,
        (lock) => lock === null ? undefined : inside(place, mode === "shared"),
      ).catch((error) => {
        if (error.name !== "TimeoutError") throw error;
      });
      // Others of this program have their turn.
      if (dice < 0.2) await new Promise((resolve) => setTimeout(resolve));
    }
  };
  await Promise.all(Array.from({ length: 8 }, task));
  report(`storm ${count}`);
}

async function many(count: number): Promise<void> {
  const { locks, backendId } = opened();
  const end = Promise.withResolvers<void>();
  let granted = 0;
  const all = Array.from({ length: count }, (_, i) =>
    locks.request(`${backendId} has ${i}`, () => {
      if (++granted === count) end.resolve();
      return end.promise;
    }));
  await Promise.all(all);
  report("many");
}

function dieAt(store: number, signal: "SIGKILL" | "SIGSTOP"): void {
  const original = Atomics.store;
  let count = 0;
  const counting = (words: Int32Array, index: number, value: number): number => {
    if (++count === store) process.kill(process.pid, signal);
    return original(words, index, value);
  };
  Object.assign(Atomics, { store: counting });
}

function start(number: number): void {
  const worker = new Worker(new URL(import.meta.url));
  workers.set(number, worker);
  worker.on("message", (said: string) => {
    writeSync(1, JSON.stringify({ worker: number, said }) + "\n");
  });
}

async function run(command: LocksCommand): Promise<void> {
  if ("worker" in command) return workers.get(command.worker)?.postMessage(command.command);
  switch (command.do) {
    case "open":
      registry = Registry.openSync("test", { dir: command.dir });
      return report("open");
    case "request":
      return request(command);
    case "end":
      return ends.get(command.id)?.resolve();
    case "abort":
      return controllers.get(command.id)?.abort();
    case "sync":
      await opened().locks.query();
      return report("sync");
    case "query": {
      const { held, pending } = await opened().locks.query();
      return report(`held ${held.length} pending ${pending.length}`);
    }
    case "close":
      opened().close();
      return report("close");
    case "die":
      return dieAt(command.store, command.signal);
    case "many":
      return many(command.count);
    case "storm":
      return storm(command.seed, command.milliseconds);
    case "finish":
      return lines?.close();
    case "start":
      return start(command.number);
    case "terminate":
      await workers.get(command.number)?.terminate();
      return report("terminated");
  }
}

const lines = isMainThread ? createInterface({ input: process.stdin }) : undefined;
lines?.on("line", (line) => void run(JSON.parse(line) as LocksCommand));
lines?.on("close", () => process.stdin.destroy());
if (isMainThread) writeSync(1, JSON.stringify({ pid: process.pid }) + "\n");
else {
  parentPort?.on("message", (command: LocksCommand) => void run(command));
  report("ready");
}
