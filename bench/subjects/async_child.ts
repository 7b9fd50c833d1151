/**
 * One side of the rows of what does not block. Started by async.ts in each runtime; each line of
 * input is a question, and is answered with a line.
 *
 *     async_child.ts DIRECTORY
 *
 *     pairs                          ns a pair: "name ns name ns ..."
 *     contend sync|async MS ROUND    "COUNT MS"
 *     relay KIND ROLE ROUNDS NUMBER  when it was woken and when it let go, in ns, by turns
 *     hold COUNT                     holds so many locks of segment "many"
 *     wait COUNT                     so many tasks wait for them
 *     loop MS                        delays of the event loop, in us: immediates ";" timers
 *     idle MS                        CPU time used meanwhile, in us
 *     unwait                         all of them give up
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { type LWLock, Registry } from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";
import { clockOffset } from "./below.ts";

const SYNC_PAIRS = 20_000;
const ASYNC_PAIRS = 5000;
const REQUESTS = 500;
const BATCH = 64;
/** A backend holds at most 128 locks, and each database has a backend of its own. */
const LOCKS_OF_BACKEND = 125;
/** What a busy server does in a turn of its loop. */
const WORK_US = 50;

const [dir = ""] = process.argv.slice(2);
const registry = Registry.openSync("lock", { dir });
const { lock } = registry.getNamedSegmentSync("data", 4096);

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/* ---- uncontended --------------------------------------------------------------------------- */

// A function for each, or the compiler would make one that suits all of them and none.
const subjects: Subject[] = [
  {
    name: "sync",
    count: SYNC_PAIRS,
    run: (count) => {
      for (let i = 0; i < count; i++) {
        lock.acquireSync();
        lock.release();
      }
    },
  },
  {
    name: "acquire",
    count: ASYNC_PAIRS,
    run: async (count) => {
      for (let i = 0; i < count; i++) {
        await lock.acquire();
        lock.release();
      }
    },
  },
  {
    name: "with",
    count: ASYNC_PAIRS,
    run: async (count) => {
      for (let i = 0; i < count; i++) await lock.with("exclusive", () => {});
    },
  },
  {
    name: "request",
    count: REQUESTS,
    run: async (count) => {
      for (let i = 0; i < count; i++) await registry.locks.request("name", () => {});
    },
  },
];

/* ---- contended ----------------------------------------------------------------------------- */

const barrier = new Int32Array(registry.getNamedSegmentSync("async-barrier", 64).buffer);

/** Resolves when both sides have come so often. */
async function meet(round: number): Promise<void> {
  Atomics.add(barrier, 0, 1);
  while (Atomics.load(barrier, 0) < 2 * round) await pause(0);
}

async function contend(kind: string, milliseconds: number, round: number): Promise<string> {
  await meet(round);
  const started = performance.now();
  let elapsed = 0;
  let count = 0;
  for (; elapsed < milliseconds; count += BATCH) {
    for (let i = 0; i < BATCH; i++) {
      if (kind === "sync") lock.acquireSync();
      else await lock.acquire();
      lock.release();
    }
    elapsed = performance.now() - started;
  }
  return `${count} ${elapsed}`;
}

/* ---- hand-over ----------------------------------------------------------------------------- */

/** Lets the other one go on, and waits until it lets us. */
interface Baton {
  pass(): void;
  /** Until the other one has passed it for the `turn`th time. */
  take(turn: number): void | Promise<void>;
  end(): void;
}

/**
 * Three locks in rotation: each takes the next one and lets go of the one it had; the other is
 * one behind, so it waits for just that one.
 */
function lockBaton(number: string, role: number, isSync: boolean): Baton {
  const segment = registry.getNamedSegmentSync(`relay-${number}`, 192);
  const three = [0, 64, 128].map((at) => segment.lockAt(at));
  const at = (i: number): LWLock => {
    const found = three[i % 3];
    if (found === undefined) throw new Error(`no lock ${i}`);
    return found;
  };
  let own = role === 0 ? 0 : 2;
  at(own).acquireSync();
  return {
    pass: () => at(own++).release(),
    take: () => isSync ? at(own + 1).acquireSync() : at(own + 1).acquire(),
    end: () => at(own).release(),
  };
}

function wordBaton(number: string, role: number, isSync: boolean): Baton {
  const segment = registry.getNamedSegmentSync(`relay-${number}`, 192);
  const words = new Int32Array(segment.buffer);
  const [own, other] = role === 0 ? [0, 64] : [64, 0];
  return {
    pass: () => {
      Atomics.add(words, own / 4, 1);
      segment.notify(own);
    },
    take: isSync
      ? (turn) => void segment.waitSync(other, turn - 1)
      : (turn) => segment.wait(other, turn - 1).then(() => {}),
    end: () => {},
  };
}

function signalBaton(number: string, role: number): Baton {
  const [own, other] = [role, 1 - role].map((side) => registry.signal(`${number}-${side}`));
  if (own === undefined || other === undefined) throw new Error("no signals");
  return {
    pass: () => void own.notify(),
    take: (turn) => other.wait({ since: turn - 1 }).then(() => {}),
    end: () => {},
  };
}

async function relay(kind: string, role: number, rounds: number, number: string): Promise<string> {
  const isSync = kind.endsWith("Sync");
  const baton = kind.startsWith("acquire")
    ? lockBaton(number, role, isSync)
    : kind.startsWith("wait")
    ? wordBaton(number, role, isSync)
    : signalBaton(number, role);
  const offset = clockOffset(dir);
  const now = () => Number(process.hrtime.bigint() + offset);
  const times = new Float64Array(2 * rounds);
  await meet(Number(number));
  // Not an await where there is nothing to wait for: that would be a turn of its own.
  for (let turn = 1; turn <= rounds; turn++) {
    if (role === 0 && !kind.startsWith("acquire")) {
      times[2 * turn - 1] = now();
      baton.pass();
    }
    const taken = baton.take(turn);
    if (taken !== undefined) await taken;
    times[2 * turn - 2] = now();
    if (role === 1 || kind.startsWith("acquire")) {
      times[2 * turn - 1] = now();
      baton.pass();
    }
  }
  baton.end();
  return [...times].join(" ");
}

/* ---- many waits ---------------------------------------------------------------------------- */

const many = (from: Registry, count: number): LWLock[] => {
  const segment = from.getNamedSegmentSync("many");
  return Array.from({ length: count }, (_, i) => segment.lockAt(i * 64));
};

const holders: Registry[] = [];

function hold(count: number): string {
  for (let first = 0; first < count; first += LOCKS_OF_BACKEND) {
    const holder = Registry.openSync("lock", { dir, database: `holder ${first}` });
    holders.push(holder);
    for (const lock of many(holder, count).slice(first, first + LOCKS_OF_BACKEND)) {
      lock.acquireSync();
    }
  }
  return "held";
}

let giveUp = new AbortController();
let waits: Promise<void>[] = [];

async function wait(count: number): Promise<string> {
  giveUp = new AbortController();
  const { signal } = giveUp;
  waits = many(registry, count).map((lock) => lock.acquire("exclusive", { signal }));
  for (const wait of waits) wait.catch(() => {});
  await pause(50);
  return "waiting";
}

async function unwait(): Promise<string> {
  giveUp.abort();
  const ends = await Promise.allSettled(waits);
  waits = [];
  const wrong = ends.filter(({ status }) => status !== "rejected");
  if (wrong.length > 0) throw new Error(`${wrong.length} of ${ends.length} waits have ended`);
  return "given up";
}

/** Some work in each turn; how late timers are, and how long immediates take. */
async function loop(milliseconds: number): Promise<string> {
  const immediates: number[] = [];
  const timers: number[] = [];
  let isOver = false;
  const ticking = (async () => {
    while (!isOver) {
      const due = performance.now() + 1;
      await pause(1);
      timers.push((performance.now() - due) * 1000);
    }
  })();
  const end = performance.now() + milliseconds;
  while (performance.now() < end) {
    const begun = performance.now();
    while (performance.now() - begun < WORK_US / 1000) { /* Work. */ }
    const asked = performance.now();
    await new Promise((resolve) => setImmediate(resolve));
    immediates.push((performance.now() - asked) * 1000);
  }
  isOver = true;
  await ticking;
  const list = (times: number[]) => times.map((time) => time.toFixed(1)).join(" ");
  return `${list(immediates)};${list(timers)}`;
}

async function idle(milliseconds: number): Promise<string> {
  const before = process.cpuUsage();
  await pause(milliseconds);
  const { user, system } = process.cpuUsage(before);
  return String(user + system);
}

/* ---- questions ----------------------------------------------------------------------------- */

async function answer(line: string): Promise<string> {
  const [what, first = "", ...more] = line.split(" ");
  const [second = "", third = "", fourth = ""] = more;
  if (what === "pairs") return await turn(subjects);
  if (what === "contend") return await contend(first, Number(second), Number(third));
  if (what === "relay") return await relay(first, Number(second), Number(third), fourth);
  if (what === "hold") return hold(Number(first));
  if (what === "wait") return await wait(Number(first));
  if (what === "unwait") return await unwait();
  if (what === "loop") return await loop(Number(first));
  if (what === "idle") return await idle(Number(first));
  throw new Error(`no such question: ${line}`);
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${await answer(line)}\n`);
}
for (const holder of holders) holder.close();
registry.close();
