/**
 * Whole processes in Deno, Bun and C: what it costs to start, to import, to open, and some work.
 *
 * The programs use the library as its users do: the package that .ci/package.ts puts together, by
 * one import, and no other module. (In Deno `node:process`, to read the command line by, takes
 * longer than ours.) So each is written for its run: programs/ has the texts, with DIR and SIZE
 * where the directory and the size of a segment go.
 *
 * @module
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { stage } from "../../.ci/package.ts";
import { Registry } from "../../lib/mod.ts";
import { ratioText, Samples } from "../harness.ts";
import { ms } from "../report/table.ts";
import { bar } from "../report/svg.ts";
import {
  command,
  type Part,
  program,
  type Runtime,
  runtimes,
  type Section,
  type Setting,
} from "../setting.ts";
import { judge } from "../targets.ts";
import { type Program, timer } from "./hyperfine.ts";

const KIB = 1024;

/** Name, label, program, more words; and how many runs a round, in full. */
const rows: readonly { name: string; label: string; words: string[]; runs: number }[] = [
  { name: "empty", label: "empty program", words: ["empty"], runs: 5 },
  { name: "import", label: "import only", words: ["import"], runs: 5 },
  { name: "open", label: "open a registry", words: ["open", "DIR"], runs: 5 },
  { name: "lock", label: "open + attach + one lock", words: ["lock", "DIR"], runs: 5 },
  { name: "pairs", label: "10 million lock pairs", words: ["pairs", "DIR"], runs: 2 },
  { name: "segments", label: "create 1,000 segments", words: ["segments", "DIR"], runs: 3 },
  {
    name: "64KiB",
    label: "create and fill 64 KiB",
    words: ["fill", "DIR", `${64 * KIB}`],
    runs: 3,
  },
  {
    name: "64MiB",
    label: "create and fill 64 MiB",
    words: ["fill", "DIR", `${64 * KIB * KIB}`],
    runs: 3,
  },
];
const sides = ["C", ...runtimes] as const;

function commandOf(
  side: "C" | Runtime,
  { name, words }: { name: string; words: string[] },
  dir: string,
): string[] {
  return side === "C"
    ? [program("whole"), ...words.map((word) => word === "DIR" ? dir : word)]
    : command(side, join(dir, "programs", `${name}.ts`));
}

/** Writes the programs, and the package that they import. */
function write(dir: string): void {
  stage(join(dir, "package"));
  const entry = pathToFileURL(join(dir, "package", "dist", "lib", "mod.js")).href;
  mkdirSync(join(dir, "programs"));
  for (const { name, words: [what = "", , size = ""] } of rows) {
    const text = readFileSync(new URL(`./programs/${what}.ts`, import.meta.url), "utf8")
      .replace('"../../../lib/mod.ts"', JSON.stringify(entry))
      .replace('"DIR"', JSON.stringify(dir))
      .replace('"SIZE"', JSON.stringify(size));
    writeFileSync(join(dir, "programs", `${name}.ts`), text);
  }
}

async function measure({ dir, pick, options }: Setting): Promise<Section> {
  const { time, fewest, name: timedBy, absent } = timer(dir);
  Registry.openSync("whole", { dir }).close();
  write(dir);
  const rounds = pick(7, 1);
  const times = new Samples("ms");
  const prepare = [program("whole"), "destroy", dir];
  const measured = options.isQuick ? rows.filter(({ name }) => name !== "64MiB") : rows;
  // Rounds, and not all runs of a program at once: a slow minute must not meet only one of them.
  for (let round = 0; round < rounds; round++) {
    for (const row of measured) {
      const { name, runs } = row;
      const programs: Program[] = sides.map((side) => ({
        name: `${side} ${name}`,
        command: commandOf(side, row, dir),
        prepare,
      }));
      const found = await time(
        programs,
        pick(runs, fewest),
        round === 0 ? pick(1, 0) : 0,
      );
      for (const [program, values] of found) times.add(program, ...values);
    }
  }
  for (const name of ["whole", "many"]) Registry.destroy(name, { dir });
  return section(times, measured, timedBy, absent);
}

function section(
  times: Samples,
  measured: typeof rows,
  timedBy: string,
  absent: string[],
): Section {
  const onTop = (side: string, name: string): number =>
    times.median(`${side} ${name}`) - times.median(`${side} empty`);
  const inMs = (value: number): string => `${value.toFixed(1)} ms`;
  const steps = (side: string): string =>
    `the import alone takes ${inMs(onTop(side, "import"))}, with open ${
      inMs(onTop(side, "open"))
    }.`;
  return {
    title: "Whole processes",
    tables: [
      {
        title: `Timed by ${timedBy}: median (min to max)`,
        rows: [
          ["", ...sides],
          ...measured.map(({ name, label }) => [
            label,
            ...sides.map((side) => {
              const key = `${side} ${name}`;
              return `${ms(times.median(key))} (${ms(times.min(key))} to ${ms(times.max(key))})`;
            }),
          ]),
        ],
      },
      {
        title: "On top of an empty program of the runtime; and to C, as a whole",
        rows: [
          ["", ...sides, ...runtimes.map((runtime) => `${runtime} to C`)],
          ...measured.filter(({ name }) => name !== "empty").map(({ name, label }) => [
            label,
            ...sides.map((side) => inMs(onTop(side, name))),
            ...runtimes.map((runtime) => ratioText(times.ratio(`${runtime} ${name}`, `C ${name}`))),
          ]),
        ],
      },
    ],
    charts: [{
      name: "processes",
      title: "Whole processes",
      unit: "ms from start to end",
      scale: "log",
      groups: measured.map(({ name, label }) => ({
        heading: label,
        bars: sides.flatMap((side) => bar(side, side, times.summary(`${side} ${name}`))),
      })),
    }],
    targets: [
      judge("startDeno", { Deno: [onTop("Deno", "lock")] }, inMs, steps("Deno")),
      judge("startBun", { Bun: [onTop("Bun", "lock")] }, inMs, steps("Bun")),
    ],
    measures: times.summaries(),
    absent,
  };
}

/** The part. */
export const processes: Part = {
  name: "processes",
  title: "whole processes in C, Deno and Bun",
  measure,
};
