/**
 * What the package costs inside a running program. Prints lines "name nanoseconds", each the
 * median of several rounds in which the subjects take turns. Run by run.ts in each runtime.
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../lib/mod.ts";
import { native } from "../lib/ffi/native.ts";

const rounds = 31;
const [dir] = process.argv.slice(2);
if (dir === undefined) throw new Error("usage: in_process.ts DIRECTORY");

const small = Registry.openSync("small", { dir });
const large = Registry.openSync("large", { dir });
small.getNamedSegmentSync("segment-0", 4096);
for (let i = 0; i < 1000; i++) large.getNamedSegmentSync(`segment-${i}`, 4096);
large.lookupSegment("segment-7")?.detach();
const { calls } = native();

const subjects: { name: string; calls: number; run: (count: number) => void }[] = [
  {
    // The cheapest call there is: a handle that is none.
    name: "ffi_call",
    calls: 200_000,
    run: (count) => {
      for (let i = 0; i < count; i++) calls.dsmr_segment_is_current(0);
    },
  },
  {
    name: "known_of_one",
    calls: 200_000,
    run: (count) => {
      for (let i = 0; i < count; i++) small.getNamedSegmentSync("segment-0", 4096);
    },
  },
  {
    name: "known_of_many",
    calls: 200_000,
    run: (count) => {
      for (let i = 0; i < count; i++) large.getNamedSegmentSync("segment-0", 4096);
    },
  },
  {
    name: "attach_detach",
    calls: 1000,
    run: (count) => {
      for (let i = 0; i < count; i++) large.lookupSegment("segment-7")?.detach();
    },
  },
];

const times = subjects.map((): number[] => []);
for (let round = 0; round < rounds; round++) {
  subjects.forEach(({ calls, run }, i) => {
    const started = performance.now();
    run(calls);
    times[i]?.push((performance.now() - started) * 1e6 / calls);
  });
}
subjects.forEach(({ name }, i) => {
  const sorted = (times[i] ?? []).sort((a, b) => a - b);
  console.log(name, (sorted[rounds >> 1] ?? NaN).toFixed(2));
});

small.close();
large.close();
