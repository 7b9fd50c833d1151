/**
 * What the package costs inside a running program: segments, from JavaScript. Started by
 * segments.ts in each runtime, when segments.c has filled the registries; each line of input is
 * answered with a round.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { native } from "../../lib/ffi/native.ts";
import { Registry } from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";

const SEGMENTS = 1000;

const [dir] = process.argv.slice(2);
if (dir === undefined) throw new Error("usage: segments_child.ts DIRECTORY");

const small = Registry.openSync("small", { dir });
const large = Registry.openSync("large", { dir });
small.getNamedSegmentSync("segment-0", 4096);
for (let i = 0; i < SEGMENTS; i++) large.getNamedSegmentSync(`segment-${i}`, 4096);
large.lookupSegment("segment-7")?.detach();
const { calls } = native();

const subjects: Subject[] = [
  {
    // The cheapest call there is: a handle that is none.
    name: "ffi_call",
    count: 100_000,
    run: (count) => {
      for (let i = 0; i < count; i++) calls.dsmr_segment_is_current(0);
    },
  },
  {
    name: "known_of_one",
    count: 100_000,
    run: (count) => {
      for (let i = 0; i < count; i++) small.getNamedSegmentSync("segment-0", 4096);
    },
  },
  {
    name: "known_of_many",
    count: 100_000,
    run: (count) => {
      for (let i = 0; i < count; i++) large.getNamedSegmentSync("segment-0", 4096);
    },
  },
  {
    name: "attach_detach",
    count: 1000,
    run: (count) => {
      for (let i = 0; i < count; i++) large.lookupSegment("segment-7")?.detach();
    },
  },
];

for await (const _ of createInterface({ input: process.stdin })) {
  process.stdout.write(`${await turn(subjects)}\n`);
}
small.close();
large.close();
