/**
 * `dsmr bench`: what the library costs here, roughly, within a few seconds.
 *
 * @module
 */

import { Registry } from "../lib/mod.ts";
import { type Command, type Context, type Invocation, numberOf, OK, placeOf } from "./command.ts";
import { joined, json, paint, table } from "./text.ts";

/** Turns that the subjects take; each gives one number, and the median counts. */
const ROUNDS = 15;
const MILLISECONDS = 1e6;

interface Subject {
  name: string;
  what: string;
  run: (count: number) => void;
}

/** What is measured; the first is what the others are compared with. */
function subjects(registry: Registry, name: string): Subject[] {
  const place = { dir: registry.dir, mode: "attach" as const };
  const segment = registry.getNamedSegmentSync("bench", 4096);
  registry.getNamedSegmentSync("other", 4096).detach();
  const words = new Int32Array(segment.buffer);
  const { lock } = segment;
  const repeat = (body: () => void) => (count: number): void => {
    for (let i = 0; i < count; i++) body();
  };
  const pair = (mode: "exclusive" | "shared") =>
    repeat(() => {
      lock.acquireSync(mode);
      lock.release();
    });
  return [
    {
      name: "atomic",
      what: "one Atomics.add in the segment",
      run: repeat(() => void Atomics.add(words, 0, 1)),
    },
    { name: "exclusive", what: "acquire and release, exclusive", run: pair("exclusive") },
    { name: "shared", what: "acquire and release, shared", run: pair("shared") },
    {
      name: "known",
      what: "ask for a segment that is attached",
      run: repeat(() => void registry.getNamedSegmentSync("bench", 4096)),
    },
    {
      name: "attach",
      what: "attach and detach a segment",
      run: repeat(() => registry.lookupSegment("other")?.detach()),
    },
    {
      // In another database, or it would share the backend that is open.
      name: "open",
      what: "open and close the registry",
      run: repeat(() => Registry.openSync(name, { ...place, database: "bench" }).close()),
    },
  ];
}

/** How many calls take about so long. */
function countFor(run: Subject["run"], milliseconds: number): number {
  for (let count = 1;; count *= 4) {
    const started = performance.now();
    run(count);
    const took = performance.now() - started;
    if (took >= milliseconds / 2) return Math.max(1, Math.round(count * milliseconds / took));
  }
}

function median(numbers: number[]): number {
  return numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? NaN;
}

function measure(all: readonly Subject[], milliseconds: number): number[] {
  const counts = all.map(({ run }) => countFor(run, milliseconds));
  const times = all.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    all.forEach(({ run }, i) => {
      const count = counts[i] ?? 1;
      const started = performance.now();
      run(count);
      times[i]?.push((performance.now() - started) * MILLISECONDS / count);
    });
  }
  return times.map(median);
}

async function run(context: Context, invocation: Invocation): Promise<number> {
  const range = { min: 1, max: 10_000, isWhole: true };
  const milliseconds = numberOf(invocation, "milliseconds", range) ?? 10;
  const place = placeOf(invocation);
  const name = `bench.${context.host.pid}.${crypto.randomUUID()}`;
  const registry = Registry.openSync(name, {
    ...place,
    mode: "create",
    maxBackends: 4,
    maxSegments: 8,
  });
  try {
    const all = subjects(registry, name);
    const times = measure(all, milliseconds);
    const [base = NaN] = times;
    const results = all.map(({ name, what }, i) => {
      const nanoseconds = times[i] ?? NaN;
      return { name, what, nanoseconds, ratio: nanoseconds / base };
    });
    const { runtime, platform, arch } = context.host;
    if (invocation.values["json"] === true) {
      await context.write(json({ runtime, platform, arch, results }));
      return OK;
    }
    const rows = results.map(({ what, nanoseconds, ratio }) => [
      what,
      `${nanoseconds.toFixed(1)} ns`.padStart(12),
      `${ratio.toFixed(1)} x`.padStart(10),
    ]);
    const [head = "", ...lines] = table(
      ["OPERATION", "EACH".padStart(12), "RATIO".padStart(10)],
      rows,
    );
    await context.write(joined([
      paint(context, "bold", head),
      ...lines,
      `In one process, nobody else contending; ${runtime}, ${platform} ${arch}. With several ` +
      "processes, and against other libraries: deno task bench, in a checkout.",
    ]));
    return OK;
  } finally {
    registry.close();
    Registry.destroy(name, place);
  }
}

/** The command. */
export const bench: Command = {
  name: "bench",
  summary: "measure briefly what locks and attaching cost here",
  operands: [],
  details:
    "Makes a registry of its own, measures in this process for a few seconds, and removes it. " +
    `Each number is the median of ${ROUNDS} rounds in which the operations take turns; the ratio is ` +
    "to one atomic addition in shared memory. On a busy machine the numbers say little.",
  examples: [["dsmr bench", "a table"], ["dsmr bench --json", "for programs"]],
  options: {
    milliseconds: {
      type: "string",
      value: "N",
      help: "how long a round of each takes (default: 10)",
    },
  },
  run,
};
