/**
 * Creates, uses and destroys registries, and leaves orphans behind, round after round, while somebody
 * else collects garbage. Anything that is not as it must be ends it with an error.
 *
 * @module
 */

import { unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Registry } from "../lib/mod.ts";

const [dir = "", rounds = ""] = process.argv.slice(2);

function expect(isTrue: boolean, what: string): void {
  if (!isTrue) throw new Error(what);
}

/** A registry that lives: everything of it must be there until it is destroyed. */
function live(name: string): void {
  const first = Registry.openSync(name, { dir, mode: "create", maxBackends: 8, maxSegments: 8 });
  const words = new Int32Array(first.getNamedSegmentSync("a", 4096).buffer);
  words[0] = 4711;
  // Nobody is attached for a moment: what is in it stays all the same.
  first.close();
  using again = Registry.openSync(name, { dir, mode: "attach" });
  using other = Registry.openSync(name, { dir, mode: "attach", database: "other" });
  const there = other.lookupSegment("a");
  expect(
    there !== null && new Int32Array(there.buffer)[0] === 4711,
    `${name} has lost its segment`,
  );
  again.getNamedSegmentSync("b", 64);
  expect([...other.segments()].length === 2, `${name} has not both segments`);
  expect(Registry.destroy(name, { dir }), `${name} was destroyed by somebody else`);
}

/** A registry whose control file is removed by hand. */
function orphan(name: string): void {
  const registry = Registry.openSync(name, { dir, mode: "create", maxBackends: 8, maxSegments: 8 });
  registry.getNamedSegmentSync("lost", 4096);
  registry.close();
  unlinkSync(join(dir, `dsmr.r.${name}`));
}

for (let round = 0; round < Number(rounds); round++) {
  live("busy");
  // The same name each time: the next one's segments are of another instance.
  orphan("orphan");
}
writeSync(1, JSON.stringify({ ok: true }) + "\n");
