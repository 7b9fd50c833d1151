/**
 * A program whose callbacks return promises that fail, which nobody awaits: prints what each
 * call threw, and must end as if nothing were.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import process from "node:process";
import { DsmrError, Registry } from "../lib/mod.ts";

const [dir = ""] = process.argv.slice(2);
using registry = Registry.openSync("test", { dir });

/** Not a Promise, but one is in it. */
class Thenable {
  readonly #promise = Promise.reject(new Error("too late"));

  then(resolve: () => void, reject: (error: unknown) => void): void {
    void this.#promise.then(resolve, reject);
  }
}

const fail = async (): Promise<never> => {
  await Promise.resolve();
  throw new Error("too late");
};
const { lock } = registry.getNamedSegmentSync("locked", 8);
const calls = [
  () => registry.getNamedSegmentSync("a", 8, fail),
  () => registry.getNamedSegmentSync("a", 8, () => new Thenable()),
  () => lock.withSync("exclusive", fail),
  () => lock.withSync("exclusive", () => new Thenable()),
];
const threw = calls.map((call) => {
  try {
    call();
    return "nothing";
  } catch (error) {
    return error instanceof DsmrError ? error.code : (error as Error).name;
  }
});
// Runtimes look for unhandled rejections between two turns of the event loop.
for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
console.log(JSON.stringify(threw));
