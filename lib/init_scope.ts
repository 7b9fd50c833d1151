/**
 * Which segments the running task is initialising: a callback that asked for its own segment
 * would wait for itself for ever.
 *
 * @module
 */

import type { AsyncLocalStorage } from "node:async_hooks";

/** What is being initialised, from the outermost callback inwards. */
interface Scope {
  readonly name: string;
  /** Which registry: the backend that is at it. */
  readonly backend: object;
  readonly outer: Scope | undefined;
}

let scopes: AsyncLocalStorage<Scope> | undefined;

/** Runs an init callback; what it calls, however much later, is inside it. */
export async function insideInit<Result>(
  backend: object,
  name: string,
  callback: () => Result,
): Promise<Awaited<Result>> {
  // Only now: not everybody has asynchronous callbacks.
  scopes ??= new (await import("node:async_hooks")).AsyncLocalStorage<Scope>();
  return await scopes.run({ name, backend, outer: scopes.getStore() }, callback);
}

/** Whether the running task belongs to the callback that initialises the segment. */
export function isInsideInit(backend: object, name: string): boolean {
  for (let scope = scopes?.getStore(); scope !== undefined; scope = scope.outer) {
    if (scope.backend === backend && scope.name === name) return true;
  }
  return false;
}
