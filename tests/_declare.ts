/**
 * How suites declare their tests: each goes to the runner, or to whoever collects the suite to
 * run it elsewhere, as `in_workers_test.ts` does.
 *
 * @module
 */

import { after as runnerAfter, test as runnerTest } from "node:test";

type Body = () => void | Promise<void>;

/** A test that has not been handed to the runner. */
export interface Declared {
  name: string;
  body: Body;
}

export interface Suite {
  tests: Declared[];
  /** What is to be done when all of them have ended. */
  endings: Body[];
}

let collected: Suite | undefined;

/** Declares a test. */
export function test(name: string, body: Body): void {
  if (collected === undefined) runnerTest(name, body);
  else collected.tests.push({ name, body });
}

/** Declares what is done when all tests of the file have ended. */
export function after(body: Body): void {
  if (collected !== undefined) return void collected.endings.push(body);
  try {
    runnerAfter(body);
  } catch (error) {
    // Deno before 2.8 has no after(); but its runner tells modules that they are unloaded. It waits
    // for nothing that they do then: what is to happen must not await anything.
    if (!/not implemented/i.test(String(error))) throw error;
    globalThis.addEventListener("unload", () => void body());
  }
}

/** Collects what a suite declares while it is loaded; the runner gets none of it. */
export async function collect(load: () => Promise<unknown>): Promise<Suite> {
  if (collected !== undefined) throw new Error("Another suite is being collected.");
  const suite: Suite = collected = { tests: [], endings: [] };
  try {
    await load();
  } finally {
    collected = undefined;
  }
  return suite;
}
