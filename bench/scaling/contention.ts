/**
 * One lock and more and more processes: throughput and fairness, in both modes and with mixtures.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { ratioText, Samples } from "../harness.ts";
import type { Partner } from "../partner.ts";
import { type Postgres, startPostgres, type Uses } from "../peers/postgres.ts";
import { ns, percent } from "../report/table.ts";
import { bar, type Chart } from "../report/svg.ts";
import {
  type Part,
  type Runtime,
  runtimes,
  type Section,
  type Setting,
  startProgram,
  startScript,
  type Table,
} from "../setting.ts";
import { judge, toPeer } from "../targets.ts";

/** In per cent of all uses; the others are in shared mode. */
const mixtures = [100, 50, 10, 1, 0] as const;
/** Of pair.c: a bare pair, uncontended, without a loop that draws what is next. */
const FLOOR = "pair cas_swap";
/** Of PostgreSQL's lock: more would take the longer, and no target asks for them. */
const BACKENDS_MAX = 4;

const numbers = (line: string): number[] => line.trim().split(/\s+/).map(Number);

/** What can be measured, by name. */
type Subjects = Map<string, (processes: number, writes: number) => Promise<Uses>>;

function describe(writes: number): string {
  if (writes === 100) return "exclusive";
  return writes === 0 ? "shared" : `${writes} % writes`;
}

async function measure({ dir, pick, options }: Setting): Promise<Section> {
  const counts = options.isQuick ? [1, 2, 4] : [1, 2, 4, 8, 16];
  const rounds = pick(7, 1);
  // Long enough that everybody gets a turn, also where there are more processes than cores.
  const milliseconds = (processes: number): number => pick(50, 8) * Math.max(1, processes / 4);
  using registry = Registry.openSync("lock", { dir });
  registry.getNamedSegmentSync("data", 4096);
  registry.getNamedSegmentSync("barrier", 64);

  const c = startProgram("contention", dir);
  const pair = startProgram("pair", dir, "pairs");
  const { postgres, why: noPostgres } = await startPostgres(dir);
  const subjects: Subjects = new Map();
  for (const kind of ["dsmr", "rwlock", "robust"]) {
    subjects.set(kind === "dsmr" ? "C" : kind, async (processes, writes) => {
      const line = await c.ask(`${kind} ${processes} ${writes} ${milliseconds(processes)}`);
      const [ns = NaN, ...counts] = numbers(line);
      return { ns, counts };
    });
  }
  if (postgres !== undefined) {
    subjects.set(
      "PostgreSQL",
      (processes, writes) => postgres.contend(processes, milliseconds(processes), "mixed", writes),
    );
  }
  const crowd: Record<Runtime, Partner[]> = { Deno: [], Bun: [] };
  let met = 0;
  for (const runtime of runtimes) {
    for (let i = 0; i < Math.max(...counts); i++) {
      crowd[runtime].push(startScript(runtime, "scaling/contention_child.ts", dir, `${i}`));
    }
    subjects.set(runtime, async (processes, writes) => {
      met += processes;
      const question = `use ${met} ${writes} ${milliseconds(processes)}`;
      const lines = await Promise.all(
        crowd[runtime].slice(0, processes).map((one) => one.ask(question)),
      );
      const answers = lines.map(numbers);
      const ns = answers.reduce((sum, [time = NaN]) => sum + time, 0) / processes;
      return { ns, counts: answers.map(([, count = NaN]) => count) };
    });
  }

  const times = new Samples("ns");
  const fairness = new Samples("share");
  const measureOne = async (name: string, processes: number, writes: number) => {
    const subject = subjects.get(name);
    if (subject === undefined) throw new Error(`no subject ${name}`);
    const { ns, counts } = await subject(processes, writes);
    const all = counts.reduce((sum, count) => sum + count, 0);
    times.add(`${name} ${writes} ${processes}`, ns / all);
    fairness.add(`${name} ${writes} ${processes}`, Math.min(...counts) * processes / all);
  };
  // Once for the compilers.
  for (const runtime of runtimes) {
    for (const writes of [50, 100, 0]) await subjects.get(runtime)?.(Math.max(...counts), writes);
  }
  for (let round = 0; round < rounds; round++) {
    times.addLine("pair ", await pair.ask("pairs"));
    for (const writes of mixtures) {
      for (const processes of counts) {
        for (const name of ["C", ...runtimes, "rwlock"]) await measureOne(name, processes, writes);
        // It has one mode only.
        if (writes === 100) await measureOne("robust", processes, writes);
        if (postgres !== undefined && processes <= BACKENDS_MAX) {
          await measureOne("PostgreSQL", processes, writes);
        }
      }
    }
  }
  for (const one of [c, pair, ...runtimes.flatMap((runtime) => crowd[runtime])]) await one.end();
  await postgres?.stop();
  Registry.destroy(registry.name, { dir });
  return {
    ...section(times, fairness, counts, postgres),
    absent: noPostgres === undefined ? [] : [noPostgres],
  };
}

function section(
  times: Samples,
  fairness: Samples,
  counts: readonly number[],
  postgres: Postgres | undefined,
): Omit<Section, "absent"> {
  const contended = (writes: number) =>
    Object.fromEntries(["Deno", "Bun", "C"].map((from) => {
      const floor = postgres === undefined ? FLOOR : `PostgreSQL ${writes} 2`;
      return [from, [times.ratio(`${from} ${writes} 2`, floor)]];
    }));
  const verdict = (target: "contendedExclusive" | "contendedShared", writes: number) => {
    const [own = "", ours = ""] = ["PostgreSQL", "C"].map((name) => {
      const key = `${name} ${writes} 2`;
      if (!times.has(key)) return "";
      return `${ns(times.min(key))} to ${ns(times.max(key))}, median ${ns(times.median(key))}`;
    });
    const reason = postgres === undefined
      ? undefined
      : `PostgreSQL's took ${own}, ours from C ${ours}; the part locks has another loop of two.`;
    return judge(target, contended(writes), String, reason, toPeer(target, postgres?.label));
  };
  return {
    title: "One lock and many processes",
    tables: [
      ...mixtures.map((writes) => table(times, fairness, counts, writes, postgres)),
    ],
    charts: [100, 10, 0].map((writes) => chart(times, counts, writes, postgres)),
    targets: [verdict("contendedExclusive", 100), verdict("contendedShared", 0)],
    measures: {
      ...times.summaries("a use: "),
      ...fairness.summaries("fairness: "),
    },
  };
}

function table(
  times: Samples,
  fairness: Samples,
  counts: readonly number[],
  writes: number,
  postgres: Postgres | undefined,
): Table {
  const others = [...(writes === 100 ? ["robust"] : []), "rwlock"];
  if (postgres !== undefined) others.push("PostgreSQL");
  const names = [...others, "C", ...runtimes];
  const labels = new Map([
    ...[["robust", "glibc robust mutex"], ["rwlock", "glibc rwlock"]] as const,
    ["PostgreSQL", postgres?.label],
  ]);
  return {
    title: `${describe(writes)}: a use of any process, and the least share to an even one`,
    rows: [
      ["", ...counts.map((count) => `${count} process${count === 1 ? "" : "es"}`)],
      ...names.map((name) => [
        labels.get(name) ?? `dsmr, ${name}`,
        ...counts.map((count) => {
          const key = `${name} ${writes} ${count}`;
          if (!times.has(key)) return "";
          return `${ns(times.median(key))}, ${percent(fairness.median(key))}`;
        }),
      ]),
      ...["C", ...runtimes].map((name) => [
        `dsmr, ${name}, to glibc rwlock`,
        ...counts.map((count) =>
          ratioText(times.ratio(`${name} ${writes} ${count}`, `rwlock ${writes} ${count}`))
        ),
      ]),
      ...(postgres === undefined ? [] : ["C", ...runtimes].map((name) => [
        `dsmr, ${name}, to ${postgres.label}`,
        ...counts.map((count) =>
          count > BACKENDS_MAX
            ? ""
            : ratioText(times.ratio(`${name} ${writes} ${count}`, `PostgreSQL ${writes} ${count}`))
        ),
      ])),
    ],
    // Once is enough.
    ...(postgres === undefined || writes !== 100 ? {} : { note: postgres.note }),
  };
}

function chart(
  times: Samples,
  counts: readonly number[],
  writes: number,
  postgres: Postgres | undefined,
): Chart {
  const labels = new Map([["rwlock", "glibc rwlock"], ["PostgreSQL", postgres?.label]]);
  return {
    name: `contention-${writes}`,
    title: `One lock, many processes: ${describe(writes)}`,
    unit: "ns a use, of any process",
    scale: "linear",
    groups: counts.map((count) => ({
      heading: `${count} process${count === 1 ? "" : "es"}`,
      bars: ["rwlock", "PostgreSQL", "C", ...runtimes].flatMap((name) =>
        bar(
          labels.get(name) ?? `dsmr, ${name}`,
          labels.has(name) ? "other" : name,
          times.summary(`${name} ${writes} ${count}`),
        )
      ),
    })),
  };
}

/** The part. */
export const contention: Part = {
  name: "contention",
  title: "one lock and many processes",
  measure,
};
