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
import { randomFrom } from "./_random.ts";

export type WordsCommand =
  /** Opens the registry, segment "a" and signal "s". */
  | { do: "open"; dir: string }
  /** Is killed just before, or after, the n-th change of shared memory from now on. */
  | { do: "die"; change: number; when: "before" | "after" }
  /** Is stopped just before it; may be given again. */
  | { do: "stop"; change: number }
  /** Waits so many times on word `at`; reports how each has ended, but first `waits`. */
  | { do: "wait"; at: number; count: number; timeout?: number }
  | { do: "waitSync"; at: number; timeout: number }
  /** Ends all waits. */
  | { do: "abort" }
  | { do: "notify"; count: number }
  /** The same of the signal. */
  | { do: "signalWait" }
  | { do: "signalNotify" | "signalNotifyAll" | "dropSignal" }
  | { do: "sweep" }
  /** Waits and notifies at random; reports an Account. */
  | { do: "storm"; seed: number; milliseconds: number };

/** What came of a storm. */
export interface Account {
  /** Waits on the word that were notified, and how many notify() says that it has woken. */
  ok: number;
  woken: number;
  /** The same of the signal. */
  ended: number;
  counted: number;
  /** Waits for the signal that have ended with the number that they had begun with. */
  unmoved: number;
}

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

async function storm(seed: number, milliseconds: number): Promise<Account> {
  if (registry === undefined || segment === undefined) throw new Error("Open first.");
  const words = segment;
  const signal = registry.signal("s");
  const random = randomFrom(seed);
  const account: Account = { ok: 0, woken: 0, ended: 0, counted: 0, unmoved: 0 };
  const until = performance.now() + milliseconds;
  const turn = () => new Promise((resolve) => setTimeout(resolve, random() * 2));
  const options = () =>
    random() < 0.5
      ? { timeout: random() * 3 }
      : { timeout: 50, signal: AbortSignal.timeout(Math.floor(random() * 3)) };
  const onWord = async (): Promise<void> => {
    const outcome = random() < 0.1
      ? words.waitSync(0, 0, { timeout: random() })
      : await words.wait(0, 0, options()).catch((error) => expected(error));
    if (outcome === "ok") account.ok++;
  };
  const onSignal = async (): Promise<void> => {
    const since = signal.sequence;
    try {
      const now = random() < 0.1
        ? signal.waitSync({ since, timeout: random() })
        : await signal.wait(random() < 0.5 ? options() : { ...options(), since });
      account.ended++;
      if (now === since) account.unmoved++;
    } catch (error) {
      expected(error);
    }
  };
  const task = async (): Promise<void> => {
    while (performance.now() < until) {
      const dice = random();
      if (dice < 0.4) await onWord();
      else if (dice < 0.8) await onSignal();
      else if (dice < 0.9) account.woken += words.notify(0, 1 + Math.floor(random() * 3));
      else if (dice < 0.97) account.counted += signal.notify() ? 1 : 0;
      else account.counted += signal.notifyAll();
      if (random() < 0.1) await turn();
    }
  };
  await Promise.all(Array.from({ length: 8 }, task));
  return account;
}

/** Anything but the end of a wait by itself is a failure. */
function expected(error: unknown): void {
  const isOver = error instanceof DsmrError
    ? error.code === "TIMEOUT"
    : error instanceof Error && error.name === "TimeoutError";
  if (!isOver) throw error;
}

type Change = "store" | "compareExchange" | "add" | "or";

/** Called before and after each change of shared memory; counts them. */
let onChange: ((when: "before" | "after") => void) | undefined;

/** All that the library changes shared memory by, the native library aside. */
for (const name of ["store", "compareExchange", "add", "or"] satisfies Change[]) {
  const original = Atomics[name] as (...args: unknown[]) => unknown;
  const watched = (...args: unknown[]): unknown => {
    onChange?.("before");
    const result = original(...args);
    onChange?.("after");
    return result;
  };
  Object.assign(Atomics, { [name]: watched });
}

/** Sends itself a signal at a change. */
function signalAt(change: number, at: "before" | "after", signal: NodeJS.Signals): void {
  let count = 0;
  onChange = (when) => {
    if (when === at && ++count === change) process.kill(process.pid, signal);
  };
  report("armed");
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
      return signalAt(command.change, command.when, "SIGKILL");
    case "stop":
      return signalAt(command.change, "before", "SIGSTOP");
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
    case "storm":
      return end(storm(command.seed, command.milliseconds).then((it) => JSON.stringify(it)));
    case "sweep":
      return report(backend?.parking.sweep().parked);
  }
}

createInterface({ input: process.stdin }).on("line", (line) => run(JSON.parse(line)));
writeSync(1, JSON.stringify({ pid: process.pid }) + "\n");
