/**
 * What grows with a registry: looking names up, with 1 to 10,000 of them; and opening it, with 1 to
 * 256 backends.
 *
 * @module
 */

import { statfsSync } from "node:fs";
import { Registry } from "../../lib/mod.ts";
import { interleave, ratioText, Samples } from "../harness.ts";
import { ns } from "../report/table.ts";
import { bar, type Chart } from "../report/svg.ts";
import {
  type Part,
  runtimes,
  type Section,
  type Setting,
  startProgram,
  startScript,
  type Table,
} from "../setting.ts";

/** What a segment of few bytes takes, and the control region besides; with room to spare. */
const BYTES_A_NAME = 16_384;
const BACKENDS_MAX = 256;

const lookups = [
  ["known", "getNamedSegment of an attached one"],
  ["attach", "lookup of another, attach + detach"],
  ["absent", "lookup of a name that is not there"],
] as const;
const sides = ["C", ...runtimes];

async function measure({ dir, pick, options }: Setting): Promise<Section> {
  const absent: string[] = [];
  const { bavail, bsize } = statfsSync(dir);
  const room = bavail * bsize;
  const names = (options.isQuick ? [1, 10, 100] : [1, 10, 100, 1000, 10_000])
    .filter((count) => count * BYTES_A_NAME <= room);
  if (!options.isQuick && !names.includes(10_000)) {
    absent.push(
      `10,000 names: ${dir} has only ${Math.floor(room / 1024 ** 2)} MiB left (docker run ` +
        "--shm-size=1g gives a container more)",
    );
  }
  const backends = options.isQuick ? [1, 16, 64] : [1, 4, 16, 64, BACKENDS_MAX];
  const rounds = pick(21, 2);

  Registry.openSync("names", { dir, maxSegments: 10_002 }).close();
  Registry.openSync("backends", { dir, maxBackends: BACKENDS_MAX }).close();
  const partners = sides.map((side) => ({
    prefix: side,
    partner: side === "C"
      ? startProgram("growth", dir)
      : startScript(side === "Deno" ? "Deno" : "Bun", "scaling/growth_child.ts", dir),
  }));
  const ask = async (question: string, times: Samples, count: number) =>
    await interleave(
      partners.map(({ prefix, partner }) => ({ prefix: `${prefix} ${count} `, partner, question })),
      { rounds, warmUp: 1 },
      times,
    );
  const times = new Samples("ns");
  for (const count of names) {
    for (const { partner } of partners) await partner.ask(`names ${count}`);
    await ask("lookups", times, count);
  }
  const opens = new Samples("ns");
  const holder = startProgram("growth", dir);
  for (const count of backends) {
    // The last one is whoever opens it.
    await holder.ask(`backends ${count - 1}`);
    await ask("opens", opens, count);
  }
  for (const partner of [holder, ...partners.map(({ partner }) => partner)]) await partner.end();
  for (const name of ["names", "backends"]) Registry.destroy(name, { dir });
  return {
    title: "Growing registries",
    tables: [...lookupTables(times, names), openTable(opens, backends)],
    charts: [lookupChart(times, names), openChart(opens, backends)],
    targets: [],
    measures: { ...times.summaries("names: "), ...opens.summaries("backends: ") },
    absent,
  };
}

const thousands = (count: number): string => count.toLocaleString("en");
const plural = (count: number, what: string): string =>
  `${thousands(count)} ${what}${count === 1 ? "" : "s"}`;

function lookupTables(times: Samples, names: readonly number[]): Table[] {
  return lookups.map(([kind, label]) => ({
    title: `Names: ${label}`,
    rows: [
      ["", ...names.map((count) => plural(count, "name"))],
      ...sides.map((side) => [
        side,
        ...names.map((count) => ns(times.median(`${side} ${count} ${kind}`))),
      ]),
      ...sides.map((side) => [
        `${side}, to 1 name`,
        ...names.map((count) =>
          ratioText(times.ratio(`${side} ${count} ${kind}`, `${side} 1 ${kind}`))
        ),
      ]),
    ],
  }));
}

function openTable(opens: Samples, backends: readonly number[]): Table {
  return {
    title: "Backends: open + close, as the last one of so many",
    rows: [
      ["", ...backends.map((count) => plural(count, "backend"))],
      ...sides.map((side) => [
        side,
        ...backends.map((count) => ns(opens.median(`${side} ${count} open`))),
      ]),
    ],
  };
}

function lookupChart(times: Samples, names: readonly number[]): Chart {
  return {
    name: "names",
    title: "Asking for a known name, by how many there are",
    unit: "ns each",
    scale: "log",
    groups: lookups.slice(0, 2).flatMap(([kind, label]) =>
      names.map((count) => ({
        heading: `${label}: ${plural(count, "name")}`,
        bars: sides.flatMap((side) => bar(side, side, times.summary(`${side} ${count} ${kind}`))),
      }))
    ),
  };
}

function openChart(opens: Samples, backends: readonly number[]): Chart {
  return {
    name: "backends",
    title: "Opening and closing a registry, by how many backends it has",
    unit: "us each",
    scale: "linear",
    groups: backends.map((count) => ({
      heading: plural(count, "backend"),
      bars: sides.flatMap((side) => bar(side, side, opens.summary(`${side} ${count} open`), 1000)),
    })),
  };
}

/** The part. */
export const growth: Part = {
  name: "growth",
  title: "registries with many names and many backends",
  measure,
};
