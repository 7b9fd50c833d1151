/**
 * What tests of locks by name have in common.
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import type { WebLock, WebLockInfo, WebLockOptions, WebLocksSnapshot } from "../lib/mod.ts";

/** What `navigator.locks` and `registry.locks` have in common. */
export interface Locks {
  request<Result>(
    name: string,
    callback: (lock: WebLock | null) => Result,
  ): Promise<Awaited<Result>>;
  request<Result>(
    name: string,
    options: WebLockOptions,
    callback: (lock: WebLock | null) => Result,
  ): Promise<Awaited<Result>>;
  query(): Promise<WebLocksSnapshot>;
}

/** A request whose callback is under the test's control. */
export interface Held {
  /** Resolves when the callback runs. */
  granted: Promise<WebLock | null>;
  /** Lets the callback end, with this. */
  end(value?: unknown): void;
  /** What `request` has returned. */
  result: Promise<unknown>;
}

/** Makes a request that is held until it is ended. */
export function hold(locks: Locks, name: string, options: WebLockOptions = {}): Held {
  const granted = Promise.withResolvers<WebLock | null>();
  const ended = Promise.withResolvers<unknown>();
  const result = locks.request(name, options, (lock) => {
    granted.resolve(lock);
    return ended.promise;
  });
  result.catch(granted.reject);
  granted.promise.catch(() => {});
  return { granted: granted.promise, end: ended.resolve, result };
}

let nameCount = 0;

/** A name that no other test has. */
export function freshName(): string {
  return `name ${++nameCount}`;
}

/** Whether it has settled, after everything that was on its way has happened. */
export async function isPending(locks: Locks, promise: Promise<unknown>): Promise<boolean> {
  let hasSettled = false;
  promise.then(() => hasSettled = true, () => hasSettled = true);
  for (let turn = 0; turn < 3; turn++) {
    await locks.query();
    await new Promise((resolve) => setTimeout(resolve));
  }
  return !hasSettled;
}

/** The modes of what is held and of what waits for a name, in order. */
export async function modes(locks: Locks, name: string): Promise<[string[], string[]]> {
  const { held, pending } = await locks.query();
  const of = (infos: WebLockInfo[]) =>
    infos.filter((info) => info.name === name).map(({ mode }) => mode as string);
  return [of(held), of(pending)];
}

/** The promise is rejected with an error of this name. */
export async function rejectsWith(promise: Promise<unknown>, name: string): Promise<void> {
  const error = await assertRejects(() => promise) as Error;
  assertEquals(error.name, name, String(error));
}

/** Calls with what TypeScript would refuse. */
export function requestOf(locks: Locks): (...args: unknown[]) => Promise<unknown> {
  return (...args) => Reflect.apply(locks.request, locks, args) as Promise<unknown>;
}

/** A callback that must not run. */
export function never(): never {
  throw new Error("This callback must not run.");
}

/** Defines a test of what the specification says; each gets a name of its own. */
export type Check = (what: string, body: (locks: Locks, name: string) => Promise<void>) => void;
