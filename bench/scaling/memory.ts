/**
 * What a registry, a segment, a lock and a backend cost: in shared memory, and in each process.
 *
 * @module
 */

import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { Registry } from "../../lib/mod.ts";
import { Samples } from "../harness.ts";
import { bytes } from "../report/table.ts";
import { type Part, runtimes, type Section, type Setting, startScript } from "../setting.ts";

const SEGMENTS = 1000;
const LOCKS = 4000;

/** Bytes that a file takes, which is more than it has. */
function taken(path: string): number {
  return statSync(path).blocks * 512;
}

async function measure({ dir, pick }: Setting): Promise<Section> {
  const size = (options: { maxBackends?: number; maxSegments?: number }): number => {
    Registry.openSync("sized", { dir, ...options }).close();
    const { size } = statSync(join(dir, "dsmr.r.sized"));
    Registry.destroy("sized", { dir });
    return size;
  };
  const whole = size({});
  const backend = (size({ maxBackends: 256 }) - size({ maxBackends: 128 })) / 128;
  const entry = (size({ maxSegments: 4096 }) - size({ maxSegments: 2048 })) / 2048;

  using registry = Registry.openSync("memory", { dir });
  const fileOf = (bytes: number): number => {
    const before = new Set(readdirSync(dir));
    registry.getNamedSegmentSync("one", bytes);
    const name = readdirSync(dir).find((name) => !before.has(name) && name.startsWith("dsmr.s."));
    if (name === undefined) throw new Error("a segment has no file");
    const size = taken(join(dir, name));
    registry.dropSegment("one");
    return size;
  };
  const [least = NaN, page = NaN, large = NaN] = [1, 4096, 1_048_576].map(fileOf);
  const tranche = registry.newTranche("locks");
  for (let i = 0; i < SEGMENTS; i++) registry.getNamedSegmentSync(`segment-${i}`, 64).detach();
  registry.getNamedSegmentSync("many", (LOCKS + 1) * 64, (segment) => {
    for (let i = 0; i < LOCKS; i++) segment.initLock(i * 64, tranche);
  });

  const samples = new Samples("bytes");
  for (let round = 0; round < pick(3, 1); round++) {
    for (const runtime of runtimes) {
      const child = startScript(runtime, "scaling/memory_child.ts", dir);
      samples.addLine(`${runtime} `, await child.ask("measure"));
      await child.end();
    }
  }
  Registry.destroy(registry.name, { dir });
  return {
    title: "Memory",
    tables: [
      {
        title: "In shared memory, once for all processes",
        rows: [
          ["", "bytes"],
          ["a registry with all defaults: its control region", bytes(whole)],
          ["of that, a backend that could be", bytes(backend)],
          ["of that, a segment that could be", bytes(entry)],
          ["a segment of 1 byte", bytes(least)],
          ["a segment of 4,096 bytes", bytes(page)],
          ["a segment of 1 MiB", bytes(large)],
          ["a lock in a segment", bytes(64)],
        ],
      },
      {
        title: "In each process that uses it: private memory written to, for one of many",
        rows: [
          ["", ...runtimes],
          ...[
            ["segment", "an attached segment"],
            ["lock", "a lock that is used"],
            ["backend", "an open registry"],
            ["wait", "a pending wait"],
          ].map(([kind = "", label = ""]) => [
            label,
            ...runtimes.map((runtime) => bytes(samples.median(`${runtime} ${kind}`))),
          ]),
        ],
      },
    ],
    charts: [],
    targets: [],
    measures: samples.summaries(),
    absent: [],
  };
}

/** The part. */
export const memory: Part = { name: "memory", title: "memory", measure };
