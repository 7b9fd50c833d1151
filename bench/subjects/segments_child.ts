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
import { Registry, type Segment } from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";

/** Attached, and others to be attached. */
const SEGMENTS = 1000;
const OTHERS = 300;

const [dir] = process.argv.slice(2);
if (dir === undefined) throw new Error("usage: segments_child.ts DIRECTORY");

const small = Registry.openSync("small", { dir });
const large = Registry.openSync("large", { dir });
small.getNamedSegmentSync("segment-0", 4096);
for (let i = 0; i < SEGMENTS; i++) large.getNamedSegmentSync(`segment-${i}`, 4096);
const others = Array.from({ length: OTHERS }, (_, i) => `segment-${SEGMENTS + i}`);
const attached: (Segment | null)[] = [];
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
    name: "attach",
    count: OTHERS,
    run: () => {
      for (const name of others) attached.push(large.lookupSegment(name));
    },
    after: () => {
      for (const segment of attached.splice(0)) segment?.detach();
    },
  },
  {
    name: "attach_touch",
    count: OTHERS,
    run: () => {
      for (const name of others) {
        const segment = large.lookupSegment(name);
        if (segment !== null) new Uint32Array(segment.buffer)[0] = 1;
        attached.push(segment);
      }
    },
    after: () => {
      for (const segment of attached.splice(0)) segment?.detach();
    },
  },
  {
    name: "attach_detach",
    count: 500,
    run: (count) => {
      for (let i = 0; i < count; i++) large.lookupSegment("segment-1007")?.detach();
    },
  },
];

for await (const _ of createInterface({ input: process.stdin })) {
  process.stdout.write(`${await turn(subjects)}\n`);
}
small.close();
large.close();
