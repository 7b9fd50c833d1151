/**
 * Which segments the running code is initialising: a callback that asked for its own segment
 * would wait for itself for ever.
 *
 * @module
 */

import type { AsyncLocalStorage } from "node:async_hooks";

/** A segment that is being initialised. */
export interface Initialization {
  readonly name: string;
  /** The database whose name it is, or 0. */
  readonly databaseId: number;
  /** Which registry; the isolate may have several backends in it. */
  readonly instance: bigint;
  /** Whether it has been published or given up since. */
  isOver(): boolean;
}

/** What is being initialised, from the outermost callback inwards. */
interface Scope {
  readonly initialization: Initialization;
  readonly outer: Scope | undefined;
}

let scopes: AsyncLocalStorage<Scope> | undefined;
/** Those of the sync callbacks that are running, which nothing else of this thread does then. */
const running: Initialization[] = [];

/** Runs an init callback; what it calls, however much later, is inside it. */
export async function insideInit<Result>(
  initialization: Initialization,
  callback: () => Result,
): Promise<Awaited<Result>> {
  // Only now: not everybody has asynchronous callbacks.
  scopes ??= new (await import("node:async_hooks")).AsyncLocalStorage<Scope>();
  return await scopes.run({ initialization, outer: scopes.getStore() }, callback);
}

/** The same for a sync callback: what it calls until it returns is inside it. */
export function insideInitSync<Result>(
  initialization: Initialization,
  callback: () => Result,
): Result {
  running.push(initialization);
  try {
    return callback();
  } finally {
    running.pop();
  }
}

/** Whether the running code belongs to the callback that initialises the segment. */
export function isInsideInit(instance: bigint, databaseId: number, name: string): boolean {
  const isIt = (it: Initialization): boolean =>
    it.instance === instance && it.databaseId === databaseId && it.name === name && !it.isOver();
  if (running.some(isIt)) return true;
  for (let scope = scopes?.getStore(); scope !== undefined; scope = scope.outer) {
    if (isIt(scope.initialization)) return true;
  }
  return false;
}
