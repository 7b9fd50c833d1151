/**
 * Segments: attaching one, next to mapping a file; and asking again for one that is known.
 *
 * @module
 */

import { statSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../.ci/toolchain.ts";
import { Registry } from "../../lib/mod.ts";
import { interleave, ratioText, Samples } from "../harness.ts";
import { ns } from "../report/table.ts";
import { bar } from "../report/svg.ts";
import {
  type Part,
  runtimes,
  type Section,
  type Setting,
  startProgram,
  startScript,
} from "../setting.ts";
import { judge } from "../targets.ts";

async function measure({ dir, pick }: Setting): Promise<Section> {
  Registry.openSync("large", { dir, maxSegments: 1400 }).close();
  const c = startProgram("segments", dir);
  if (await c.next() !== "ready") throw new Error("segments is not ready");
  const partners = [
    { prefix: "C ", partner: c, question: "round" },
    ...runtimes.map((runtime) => ({
      prefix: `${runtime} `,
      partner: startScript(runtime, "subjects/segments_child.ts", dir),
      question: "round",
    })),
  ];
  const samples = new Samples("ns");
  await interleave(partners, { rounds: pick(51, 3), warmUp: pick(5, 1) }, samples);
  for (const { partner } of partners) await partner.end();
  for (const name of ["small", "large"]) Registry.destroy(name, { dir });
  return section(samples, dir);
}

function section(samples: Samples, dir: string): Section {
  const all = ["C", ...runtimes];
  const floor = "C map_file";
  const attach = (from: string) => samples.ratio(`${from} attach`, floor);
  const calls = samples.ratio("C attach_calls", floor);
  // Each with what the design's words leave out, on both sides.
  const used = (from: string) => samples.ratio(`${from} attach_touch`, "C map_file_touch");
  const detached = (from: string) => samples.ratio(`${from} attach_detach`, "C map_unmap_file");
  const many = (from: string) => samples.ratio(`${from} known_of_many`, `${from} known_of_one`);
  const times = (name: string) => all.map((from) => ns(samples.median(`${from} ${name}`)));
  const by = <Value>(of: (from: string) => Value) => ({
    Deno: [of("Deno")],
    Bun: [of("Bun")],
    C: [of("C")],
  });
  const both = (value: number) => ({ Deno: [value], Bun: [value], C: [value] });
  const { control, lock } = sizes(dir);
  const library = statSync(join(root, "zig-out", "lib", "libdsmr.so")).size;
  const exactly = (value: number) => value.toLocaleString("en");
  return {
    title: "Segments",
    tables: [{
      title: `The floor: open + fstat + mmap + close in C = ${ns(samples.median(floor))}`,
      rows: [
        ["", "C", "Deno", "Bun"],
        ["attach a segment for the first time", ...times("attach")],
        ["the same, to the floor", ...all.map((from) => ratioText(attach(from)))],
        ["what it asks of the kernel, to the floor", ratioText(calls)],
        ["attach + first use of the memory", ...times("attach_touch")],
        ["the same, to the floor + first use", ...all.map((from) => ratioText(used(from)))],
        ["attach + detach", ...times("attach_detach")],
        ["the same, to the floor + munmap", ...all.map((from) => ratioText(detached(from)))],
        [
          "open + attach + close, to the floor",
          ratioText(samples.ratio("C open_attach_close", floor)),
        ],
        ["getNamedSegment again, 1 segment", ...times("known_of_one")],
        ["the same, 1,000 segments", ...times("known_of_many")],
        ["1,000 segments, to 1", ...all.map((from) => ratioText(many(from)))],
        ["one FFI call", "", ...runtimes.map((from) => ns(samples.median(`${from} ffi_call`)))],
      ],
    }],
    charts: [{
      name: "segments",
      title: "Attaching a segment, next to mapping a file",
      unit: "us each",
      scale: "linear",
      groups: [{
        heading: "",
        bars: [
          ...bar("open + fstat + mmap + close", "floor", samples.summary(floor), 1000),
          ...bar(
            "all that an attach asks of the kernel",
            "other",
            samples.summary("C attach_calls"),
            1000,
          ),
          ...all.flatMap((from) =>
            bar(`attach, ${from}`, from, samples.summary(`${from} attach`), 1000)
          ),
          ...all.flatMap((from) =>
            bar(`attach + detach, ${from}`, from, samples.summary(`${from} attach_detach`), 1000)
          ),
          ...bar("open + attach + close, C", "C", samples.summary("C open_attach_close"), 1000),
        ],
      }],
    }],
    targets: [
      judge("known", by(many), String),
      judge(
        "attach",
        by(attach),
        String,
        `what an attach asks of the kernel takes ${
          ratioText(calls)
        } by itself: beside the floor's ` +
          "calls a lock of the registry's table, taken and let go, and the header, read; from C it " +
          `takes ${
            ratioText(attach("C"))
          }. With the first use of the memory on both sides it takes ` +
          `${
            all.map((from) => `${ratioText(used(from))} from ${from}`).join(", ")
          }; with detach, and ` +
          `munmap, ${all.map((from) => `${ratioText(detached(from))} from ${from}`).join(", ")}.`,
      ),
      judge("library", both(library), exactly),
      judge("control", both(control), exactly),
      judge("lock", both(lock), exactly),
    ],
    measures: samples.summaries(),
    absent: [],
  };
}

/** Bytes of a control region with all defaults; and of a lock, by where the next one may be. */
function sizes(dir: string): { control: number; lock: number } {
  using registry = Registry.openSync("defaults", { dir });
  const { size: control } = statSync(join(dir, "dsmr.r.defaults"));
  const tranche = registry.newTranche("sizes");
  const segment = registry.getNamedSegmentSync("locks", 4096, (fresh) => {
    fresh.initLock(0, tranche);
  });
  let lock = 1;
  while (!fits(() => segment.initLock(lock, tranche))) lock++;
  registry.dropSegment("locks");
  return { control, lock };
}

function fits(init: () => void): boolean {
  try {
    init();
    return true;
  } catch {
    return false;
  }
}

/** The part. */
export const segments: Part = { name: "segments", title: "segments", measure };
