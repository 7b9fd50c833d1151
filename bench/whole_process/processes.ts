/**
 * Whole processes in Deno, Bun and C: what it costs to start, to import, to open, and some work.
 *
 * @module
 */

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

function commandOf(side: "C" | Runtime, words: string[], dir: string): string[] {
  const [what = "", ...more] = words.map((word) => word === "DIR" ? dir : word);
  return side === "C"
    ? [program("whole"), what, ...more]
    : command(side, `whole_process/programs/${what}.ts`, ...more);
}

async function measure({ dir, pick, options }: Setting): Promise<Section> {
  const { time, fewest, name: timedBy, absent } = timer(dir);
  Registry.openSync("whole", { dir }).close();
  const rounds = pick(7, 1);
  const times = new Samples("ms");
  const prepare = [program("whole"), "destroy", dir];
  const measured = options.isQuick ? rows.filter(({ name }) => name !== "64MiB") : rows;
  // Rounds, and not all runs of a program at once: a slow minute must not meet only one of them.
  for (let round = 0; round < rounds; round++) {
    for (const { name, words, runs } of measured) {
      const programs: Program[] = sides.map((side) => ({
        name: `${side} ${name}`,
        command: commandOf(side, words, dir),
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
