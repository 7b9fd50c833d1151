/** Locks by name: what the Web Locks specification says, in one program. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import process from "node:process";
import { after, test } from "node:test";
import { DsmrError } from "../lib/mod.ts";
import { Scene } from "./_scene.ts";
import { hold, type Locks, suite } from "./_web_locks_suite.ts";

const scene = new Scene();
const registry = scene.open();
// A backend of its own, in the same program.
const other = scene.open({ database: "other" });
after(() => scene.end());

suite("registry.locks", () => registry.locks);

let turn = 0;
/** Every request is another client's than the one before. */
const alternating: Locks = {
  request(...args: unknown[]) {
    const { locks } = turn++ % 2 === 0 ? registry : other;
    return Reflect.apply(locks.request, locks, args);
  },
  query: () => (turn++ % 2 === 0 ? registry : other).locks.query(),
};
suite("two clients", () => alternating);

const own = (navigator as unknown as { locks?: Locks }).locks;
if (own === undefined || !process.env.NAV) {
  console.log("not tested: this runtime has no navigator.locks to compare with");
} else suite("navigator.locks", () => own);
void [assert, assertEquals, assertRejects, test, DsmrError, hold];
