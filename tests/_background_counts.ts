/** A background worker that counts its starts in the registry, and stays until it is told to end. */

import type { WorkerContext } from "../lib/mod.ts";

export async function main(ctx: WorkerContext): Promise<void> {
  const words = new Int32Array(ctx.registry.getNamedSegmentSync("runs", 8).buffer);
  Atomics.add(words, 0, Number(ctx.arg));
  ctx.ready();
  await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
}

/** Counts, and returns. */
export function once(ctx: WorkerContext): void {
  const words = new Int32Array(ctx.registry.getNamedSegmentSync("runs", 8).buffer);
  Atomics.add(words, 0, 1);
}
