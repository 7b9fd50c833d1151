/**
 * What a process or a Worker does for the tests of the async forms. It lives on its event loop:
 * several commands may pend at once, and each reports when it has ended.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { DsmrError, type LockMode, Registry, type Segment } from "../lib/mod.ts";
import type { Report } from "./_agent.ts";

interface At {
  segment: string;
  /** The lock, or the word, at this place. Default: the segment's own lock; word 0. */
  at?: number;
}

export type AsyncCommand =
  | { do: "open"; dir: string }
  | { do: "get"; segment: string; size?: number }
  /** Asks with an async init callback that does this. */
  | { do: "init"; segment: string; size?: number; how: "fill" | "hold" | "reject" | "never" }
  | ({ do: "acquire"; mode?: LockMode; timeout?: number } & At)
  | ({ do: "release" | "releaseLater" | "state" | "acquireSync" | "wait" | "waitSync" } & At)
  | { do: "waitForVar"; segment: string; expected: number }
  /** Waits for the first locks of the segment at once, and lets go of each when it has it. */
  | { do: "acquireAll"; segment: string; count: number }
  /** Waits on the word so many times at once; reports how many were told. */
  | { do: "waitAll"; segment: string; count: number }
  | ({ do: "notify"; count?: number } & At)
  /** Of the registry's signal of that name. */
  | {
    do: "signal";
    name: string;
    how: "notify" | "notifyAll" | "wait" | "waitSync";
    since?: number;
  }
  /** Reports whether there was one. */
  | { do: "dropSignal"; name: string }
  /** Notifies in every turn of the loop, until told to go. */
  | { do: "signalUntilGo"; name: string }
  /** Waits on the signal so many times at once. */
  | { do: "signalWaits"; name: string; count: number }
  /** Notifies so many times, in several turns of the loop. */
  | { do: "signalMany"; name: string; count: number }
  /** Goes through notifications until there were so many; reports how many it was told of. */
  | { do: "signalCount"; name: string; count: number }
  /** Reports the first change from now on, as "type name-or-pid". */
  | { do: "watch" }
  | { do: "drop"; segment: string }
  /** Takes the lock and lets go of it for ever: so many microseconds inside and outside. */
  | { do: "contend"; segment: string; inside: number; outside: number }
  /** How often the event loop has turned since the first of these. Keeps it turning. */
  | { do: "count" }
  /** Waits for the lock, for the first time in this isolate; then blocks for it at once. */
  | { do: "syncBeforeFirst"; segment: string }
  /** Nothing: the reply tells that the loop goes on. */
  | { do: "answer" }
  /** How many watching threads this process has. Linux only. */
  | { do: "threads" }
  /** Starts Workers that do these commands, the last of which pends, and terminates them. */
  | { do: "workers"; count: number; commands: AsyncCommand[] }
  /** Starts a Worker whose last command blocks on word 0, and notifies it. */
  | { do: "workerWoken"; segment: string; commands: AsyncCommand[] }
  | { do: "close" };

let turns = 0;
let registry: Registry | undefined;
let goOn: (() => void) | undefined;
const segments = new Map<string, Segment>();

function opened(): Registry {
  if (registry === undefined) throw new Error("This agent has no registry.");
  return registry;
}

function attached(name: string): Segment {
  const segment = segments.get(name);
  if (segment === undefined) throw new Error(`This agent has no segment "${name}".`);
  return segment;
}

function lockOf({ segment, at }: At): Segment["lock"] {
  return at === undefined ? attached(segment).lock : attached(segment).lockAt(at);
}

function failure(error: unknown): Report {
  if (!(error instanceof Error)) return { ok: false, error: String(error) };
  const report: Report = { ok: false, error: error.name, message: error.message };
  if (error instanceof DsmrError) report.code = error.code;
  return report;
}

function report(report: Report): void {
  if (isMainThread) process.stdout.write(JSON.stringify(report) + "\n");
  else parentPort?.postMessage(report);
}

function spin(microseconds: number): void {
  const end = performance.now() + microseconds / 1000;
  while (performance.now() < end) { /* Nothing. */ }
}

/** SIGKILL and SIGSTOP. */
const UNBLOCKABLE = 0x40100n;
/** The two that the C library keeps for itself: programs cannot block them. */
const LIBC_SIGNALS = 0x180000000n;

/** The signals that a thread of this process has blocked; none if it has just ended. */
function blockedSignals(task: string): bigint {
  let status: string;
  try {
    status = readFileSync(`/proc/self/task/${task}/status`, "utf8");
  } catch {
    return 0n;
  }
  return BigInt(`0x${/^SigBlk:\s*(\S+)/m.exec(status)?.[1] ?? "0"}`);
}

/** The watching thread is the one that has every signal blocked. */
export function watchingThreads(): number {
  let count = 0;
  for (const task of readdirSync("/proc/self/task")) {
    let blocked: bigint;
    // In a thread that is being made these are blocked, too, until it runs: look again.
    do blocked = blockedSignals(task); while ((blocked & LIBC_SIGNALS) === LIBC_SIGNALS);
    if ((blocked | LIBC_SIGNALS | UNBLOCKABLE) === 0xffffffffffffffffn) count++;
  }
  return count;
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

async function contend(segment: Segment, inside: number, outside: number): Promise<never> {
  for (;;) {
    for (let i = 0; i < 100; i++) {
      segment.lock.acquireSync();
      spin(inside);
      segment.lock.release();
      spin(outside);
    }
    await turn();
  }
}

/** Starts a Worker and has it do the commands; calls `begun` when it is at the last one. */
async function inWorker(
  commands: AsyncCommand[],
  begun: (last: Promise<Report>) => void | Promise<void>,
): Promise<void> {
  const worker = new Worker(new URL("./_async_child.ts", import.meta.url));
  try {
    const last = Promise.withResolvers<Report>();
    last.promise.catch(() => {});
    const isAtLast = new Promise<void>((resolve, reject) => {
      worker.on("error", (error) => {
        reject(error);
        last.reject(error);
      });
      let next = 0;
      worker.on("message", (message: Report) => {
        if (message.ok === false) reject(new Error(JSON.stringify(message)));
        if (next === commands.length) {
          if (message.said === "begun" && message.ok === undefined) resolve();
          else last.resolve(message);
          return;
        }
        if (message.said === "begun") return;
        worker.postMessage(commands[next++]);
        // What blocks cannot say that it has begun.
        if (next === commands.length && commands.at(-1)?.do === "waitSync") resolve();
      });
    });
    await isAtLast;
    await begun(last.promise);
  } finally {
    await worker.terminate();
  }
}

async function perform(command: AsyncCommand): Promise<Report> {
  switch (command.do) {
    case "open":
      registry = Registry.openSync("test", { dir: command.dir });
      return { backendId: registry.backendId };
    case "get":
      segments.set(
        command.segment,
        opened().getNamedSegmentSync(command.segment, command.size),
      );
      return {};
    case "init": {
      let initialised = false;
      const segment = await opened().getNamedSegment(command.segment, command.size, async (s) => {
        initialised = true;
        const bytes = new Uint8Array(s.buffer);
        bytes.fill(1);
        if (command.how !== "fill") report({ holding: true });
        if (command.how === "hold") await new Promise<void>((resolve) => goOn = resolve);
        if (command.how === "never") await new Promise<void>(() => {});
        if (command.how === "reject") {
          await new Promise<void>((resolve) => goOn = resolve);
          throw new Error("as planned");
        }
        bytes.fill(2);
      });
      segments.set(command.segment, segment);
      return { initialised, value: new Uint8Array(segment.buffer)[0] ?? -1 };
    }
    case "acquire": {
      const lock = lockOf(command);
      await lock.acquire(
        command.mode,
        command.timeout === undefined ? {} : { timeout: command.timeout },
      );
      return { held: lock.heldByMe(command.mode ?? "exclusive"), abandoned: lock.abandoned };
    }
    case "acquireSync":
      lockOf(command).acquireSync();
      return {};
    case "release":
      lockOf(command).release();
      return {};
    case "releaseLater": {
      const segment = attached(command.segment);
      const word = new Int32Array(segment.buffer, 128, 1);
      await new Promise((resolve) => setTimeout(resolve, 50));
      lockOf(command).release();
      Atomics.add(word, 0, 1);
      segment.notify(128);
      return {};
    }
    case "state":
      return { held: lockOf(command).heldByMe(), abandoned: lockOf(command).abandoned };
    case "waitForVar": {
      const state = await attached(command.segment).lock.waitForVar(0, BigInt(command.expected));
      return { released: state.released, value: Number(state.value) };
    }
    case "wait":
      return { said: await attached(command.segment).wait(command.at ?? 0, 0) };
    case "waitSync":
      return { said: attached(command.segment).waitSync(command.at ?? 0, 0) };
    case "waitAll": {
      const segment = attached(command.segment);
      const all = Array.from({ length: command.count }, () => segment.wait(0, 0));
      return { value: (await Promise.all(all)).filter((outcome) => outcome === "ok").length };
    }
    case "acquireAll": {
      const segment = attached(command.segment);
      let served = 0;
      await Promise.all(Array.from({ length: command.count }, async (_, i) => {
        const lock = segment.lockAt(i * 64);
        await lock.acquire();
        if (lock.heldByMe("exclusive")) served++;
        lock.release();
      }));
      return { value: served };
    }
    case "notify":
      return { value: attached(command.segment).notify(command.at ?? 0, command.count) };
    case "signal": {
      const signal = opened().signal(command.name);
      if (command.how === "notify") return { value: signal.notify() ? 1 : 0 };
      if (command.how === "notifyAll") return { value: signal.notifyAll() };
      const options = command.since === undefined ? {} : { since: command.since };
      if (command.how === "waitSync") return { value: signal.waitSync(options) };
      return { value: await signal.wait(options) };
    }
    case "dropSignal":
      return { value: opened().dropSignal(command.name) ? 1 : 0 };
    case "signalUntilGo": {
      const signal = opened().signal(command.name);
      let isOver = false;
      goOn = () => isOver = true;
      while (!isOver) {
        signal.notify();
        await turn();
      }
      return {};
    }
    case "signalWaits": {
      const signal = opened().signal(command.name);
      await Promise.all(Array.from({ length: command.count }, () => signal.wait()));
      return {};
    }
    case "signalMany": {
      const signal = opened().signal(command.name);
      for (let i = 0; i < command.count; i++) {
        signal.notifyAll();
        if (i % 3 === 0) await turn();
      }
      return {};
    }
    case "signalCount": {
      let value = 0;
      for await (const count of opened().signal(command.name)) {
        value += count;
        if (value >= command.count) break;
      }
      return { value };
    }
    case "watch": {
      const { value: change } = await opened().watch().next();
      if (change === undefined) throw new Error("The watch has ended.");
      const what = "segment" in change ? change.segment.name : change.backend.pid;
      return { said: `${change.type} ${what}` };
    }
    case "drop":
      return { value: opened().dropSegment(command.segment) ? 1 : 0 };
    case "contend":
      return await contend(attached(command.segment), command.inside, command.outside);
    case "syncBeforeFirst": {
      const { lock } = attached(command.segment);
      const waiting = lock.acquire();
      report({ holding: true });
      lock.acquireSync();
      // The doorbell is hung meanwhile, and the first attempt made.
      for (let i = 0; i < 20; i++) await turn();
      const { held } = await perform({ do: "state", segment: command.segment });
      lock.release();
      await waiting;
      return { held: held === true && lock.heldByMe("exclusive") };
    }
    case "count":
      if (turns === 0) count();
      return { value: turns };
    case "answer":
      return {};
    case "threads":
      return { value: watchingThreads() };
    case "workers": {
      const { commands, count } = command;
      for (let i = 0; i < count; i += 5) {
        await Promise.all(
          Array.from({ length: Math.min(5, count - i) }, () => inWorker(commands, () => turn())),
        );
      }
      return {};
    }
    case "workerWoken": {
      const segment = attached(command.segment);
      let value = 0;
      let said: string | undefined;
      await inWorker(command.commands, async (last) => {
        while ((value = segment.notify(0)) === 0) await turn();
        ({ said } = await last);
      });
      return { value, said: said ?? "nothing" };
    }
    case "close":
      opened().close();
      return {};
  }
}

function take(command: AsyncCommand | { go: true }): void {
  if ("go" in command) return goOn?.();
  const done = perform(command).then((result) => ({ ok: true, ...result }), failure);
  report({ said: "begun" });
  void done.then(report);
}

/** Counts turns of the event loop from now on, which keeps it going. */
function count(): void {
  turns++;
  setTimeout(count);
}

/** Takes commands until there are no more; then ends when nothing pends. */
export function runAgent(): void {
  if (isMainThread) {
    createInterface({ input: process.stdin })
      .on("line", (line) => take(JSON.parse(line)));
    report({ pid: process.pid });
  } else {
    parentPort?.on("message", take);
    report({ said: "ready" });
  }
}
