/**
 * What grows with the number of names and of backends, from JavaScript: see growth.c.
 *
 *     growth_child.ts DIRECTORY
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { Registry } from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";

const NAME_BYTES = 64;

const [dir = ""] = process.argv.slice(2);
const registry = Registry.openSync("names", { dir, mode: "attach" });
const place = { dir, mode: "attach" as const };
let names = 0;

function fill(count: number): string {
  for (let i = names; i <= count; i++) {
    const segment = registry.getNamedSegmentSync(`name-${i}`, NAME_BYTES);
    if (i === count) segment.detach();
  }
  names = count;
  return "ready";
}

const lookups: Subject[] = [
  {
    name: "known",
    count: 20_000,
    run: (count) => {
      for (let i = 0; i < count; i++) registry.getNamedSegmentSync("name-0", NAME_BYTES);
    },
  },
  {
    name: "attach",
    count: 200,
    run: (count) => {
      const name = `name-${names}`;
      for (let i = 0; i < count; i++) registry.lookupSegment(name)?.detach();
    },
  },
  {
    name: "absent",
    count: 2000,
    run: (count) => {
      for (let i = 0; i < count; i++) {
        if (registry.lookupSegment("name--1") !== null) throw new Error("It is there.");
      }
    },
  },
];
const opens: Subject[] = [{
  name: "open",
  count: 50,
  run: (count) => {
    for (let i = 0; i < count; i++) Registry.openSync("backends", place).close();
  },
}];

for await (const line of createInterface({ input: process.stdin })) {
  const [what, count] = line.split(" ");
  const answer = what === "names"
    ? fill(Number(count))
    : await turn(what === "lookups" ? lookups : opens);
  process.stdout.write(`${answer}\n`);
}
registry.close();
