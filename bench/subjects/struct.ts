/**
 * Fields of a struct, to the same done by hand.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { interleave, ratioText, Samples } from "../harness.ts";
import { type Part, runtimes, type Section, type Setting, startScript } from "../setting.ts";

async function measure({ dir, pick }: Setting): Promise<Section> {
  // Made here, or both would make it.
  Registry.openSync("struct", { dir }).close();
  const partners = runtimes.map((runtime) => ({
    prefix: `${runtime} `,
    partner: startScript(runtime, "subjects/struct_child.ts", dir),
    question: "round",
  }));
  const times = new Samples("ns");
  await interleave(partners, { rounds: pick(31, 2), warmUp: pick(3, 0) }, times);
  for (const { partner } of partners) await partner.end();
  Registry.destroy("struct", { dir });

  const subjects = [...new Set(times.names.map((name) => name.replace(/^\w+ |:\d$/g, "")))];
  const ns = (value: number) => Number.isNaN(value) ? "" : value.toFixed(2);
  return {
    title: "Fields of a struct",
    tables: runtimes.map((runtime) => ({
      title: `In ns, ${runtime}: min / median`,
      rows: [
        ["", "by hand", "a class", "struct()", "to by hand", "to a class"],
        ...subjects.map((subject) => {
          const key = (way: number) => `${runtime} ${subject}:${way}`;
          const cell = (way: number) =>
            times.has(key(way)) ? `${ns(times.min(key(way)))} / ${ns(times.median(key(way)))}` : "";
          const to = (way: number) => ratioText(times.ratio(key(2), key(way)));
          return [subject.replaceAll("_", " "), cell(0), cell(1), cell(2), to(0), to(1)];
        }),
      ],
    })),
    charts: [],
    targets: [],
    measures: times.summaries(),
    absent: [],
  };
}

/** The part. */
export const struct: Part = { name: "struct", title: "fields of a struct, and by hand", measure };
