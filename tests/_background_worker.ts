/**
 * The background workers of the tests. Each keeps a record of itself in a segment, and notes if
 * there is another one of it: whoever runs holds the segment's lock.
 *
 * @module
 */

import process from "node:process";
import { Registry, type Segment, type WorkerContext } from "../lib/mod.ts";

/** Words of a record. */
export const RUNS = 0;
/** How often two of it were there at once. */
export const DOUBLES = 1;
export const PID = 2;
/** How often its signal was aborted. */
export const ABORTS = 3;
/** How often it has ended by itself. */
export const ENDS = 4;
/** What the test says to it. */
export const ORDER = 5;
/** Whether it was aborted because its registry is gone. */
export const LOST = 6;

/** The record of a worker. */
export function recordOf(registry: Registry, name: string, database?: string | null): Segment {
  const suffix = database === undefined || database === null ? "" : ` of ${database}`;
  return registry.getNamedSegmentSync(`record of ${name}${suffix}`, 64);
}

/** Runs the body as the only one of its name; notes if it is not. */
async function alone(
  ctx: WorkerContext,
  body: (words: Int32Array) => void | Promise<void>,
): Promise<void> {
  const segment = recordOf(ctx.registry, ctx.name, ctx.database);
  const words = new Int32Array(segment.buffer);
  const isAlone = segment.lock.tryAcquire();
  if (!isAlone) Atomics.add(words, DOUBLES, 1);
  else if (segment.lock.abandoned) segment.lock.markConsistent();
  Atomics.store(words, PID, process.pid);
  Atomics.add(words, RUNS, 1);
  segment.notify(RUNS * 4);
  ctx.signal.addEventListener("abort", () => {
    Atomics.add(words, ABORTS, 1);
    if (String(ctx.signal.reason).includes("gone:")) Atomics.store(words, LOST, 1);
  });
  try {
    await body(words);
  } finally {
    Atomics.add(words, ENDS, 1);
    // Not after a destroy.
    if (isAlone && Atomics.load(words, LOST) === 0) segment.lock.release();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

/** Runs until it is told to end. */
export default async function steady(ctx: WorkerContext): Promise<void> {
  await alone(ctx, async () => {
    ctx.ready();
    await aborted(ctx.signal);
  });
}

/** Started, and never ready. */
export async function unready(ctx: WorkerContext): Promise<void> {
  await alone(ctx, () => aborted(ctx.signal));
}

/** Returns at once. */
export async function once(ctx: WorkerContext): Promise<void> {
  await alone(ctx, () => {});
}

/** Says that it is ready, and returns. */
export async function greets(ctx: WorkerContext): Promise<void> {
  await alone(ctx, () => ctx.ready());
}

/** Throws so many times (`arg`), then returns. */
export async function throws(ctx: WorkerContext): Promise<void> {
  await alone(ctx, (words) => {
    const run = Atomics.load(words, RUNS);
    if (run <= Number(ctx.arg)) throw new Error(`failure number ${run}`);
  });
}

/** Ends in the way that `arg` names. */
export async function ends(ctx: WorkerContext): Promise<void> {
  await alone(ctx, async () => {
    const how = ctx.arg;
    if (typeof how === "number") process.exit(how);
    if (how === "kill") process.kill(process.pid, "SIGKILL");
    if (how === "uncaught") setTimeout(() => JSON.parse("no JSON"), 1);
    if (how === "rejection") void Promise.reject(new Error("nobody catches this"));
    await aborted(ctx.signal);
  });
}

/** Does not end when it is told to, but its event loop goes on. */
export async function deaf(ctx: WorkerContext): Promise<void> {
  await alone(ctx, async () => {
    ctx.ready();
    // A timer of its own, so that it also lives when nobody listens any more.
    setInterval(() => {}, 1000);
    await new Promise(() => {});
  });
}

/** Never returns to its event loop, until the test tells it to. */
export async function blocks(ctx: WorkerContext): Promise<void> {
  await alone(ctx, (words) => {
    ctx.ready();
    while (Atomics.load(words, ORDER) === 0) { /* Nothing. */ }
  });
}

/** Closes its registry while it runs. */
export async function closes(ctx: WorkerContext): Promise<void> {
  await alone(ctx, async () => {
    ctx.registry.close();
    ctx.ready();
    await aborted(ctx.signal);
  });
}

/** Writes down what it was called with. */
export async function tells(ctx: WorkerContext): Promise<void> {
  await alone(ctx, () => {
    const { arg, name, type, database, restarts } = ctx;
    const text = JSON.stringify({
      arg,
      name,
      type,
      database,
      restarts,
      registry: ctx.registry.name,
      opened: ctx.registry.database,
    });
    const bytes = new TextEncoder().encode(text);
    ctx.registry.getNamedSegmentSync(`told by ${name}`, 1024, (segment) => {
      new Uint8Array(segment.buffer).set(bytes);
    });
  });
}

export const notAFunction = 42;
