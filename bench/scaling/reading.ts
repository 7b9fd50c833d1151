/**
 * Read-mostly sharing: more and more processes read a record that one process replaces every
 * millisecond, in a segment and in other people's stores.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { ratioText, Samples } from "../harness.ts";
import type { Partner } from "../partner.ts";
import { startRedis } from "../peers/redis.ts";
import { ns, percent } from "../report/table.ts";
import { bar } from "../report/svg.ts";
import { type Part, runtimes, type Section, type Setting, startScript } from "../setting.ts";

const stores = [
  ["dsmr", "dsmr: shared lock, copy, release"],
  ["lmdb", "lmdb: get"],
  ["redis", "Redis: GET"],
] as const;

const numbers = (line: string): number[] => line.trim().split(/\s+/).map(Number);

async function measure(setting: Setting): Promise<Section> {
  const { dir, pick, options } = setting;
  const counts = options.isQuick ? [1, 2] : [1, 2, 4, 8];
  const milliseconds = pick(60, 10);
  Registry.openSync("store", { dir }).close();
  const { server, why: noRedis } = await startRedis(dir);
  const child = (runtime: (typeof runtimes)[number]): Partner =>
    startScript(runtime, "scaling/reading_child.ts", dir, options.peers);
  const writer = child("Bun");
  const readers = runtimes.map((runtime) => ({
    runtime,
    all: Array.from({ length: Math.max(...counts) }, () => child(runtime)),
  }));
  const everyone = [writer, ...readers.flatMap(({ all }) => all)];
  const absent: string[] = [];
  const times = new Samples("ns");
  const fairness = new Samples("share");
  for (let round = -1; round < pick(7, 1); round++) {
    for (const [store] of stores) {
      if (store === "redis" && server === undefined) continue;
      const answers = await Promise.all(everyone.map((one) => one.ask(`open ${store}`)));
      const why = answers.find((answer) => answer !== "ready");
      if (why !== undefined) {
        absent.push(why);
        continue;
      }
      for (const { runtime, all } of readers) {
        for (const count of counts) {
          const [, ...lines] = await Promise.all([
            writer.ask(`write ${milliseconds}`),
            ...all.slice(0, count).map((one) => one.ask(`read ${milliseconds}`)),
          ]);
          // The first round is for the compilers.
          if (round < 0) continue;
          const reads = lines.map(numbers);
          const sum = reads.reduce((total, [, reads = NaN]) => total + reads, 0);
          const mean = reads.reduce((total, [ns = NaN]) => total + ns, 0) / count;
          const key = `${runtime} ${store} ${count}`;
          times.add(key, mean / sum);
          fairness.add(key, Math.min(...reads.map(([, reads = NaN]) => reads)) * count / sum);
        }
      }
    }
  }
  for (const one of everyone) await one.end();
  await server?.stop();
  if (noRedis !== undefined) absent.push(noRedis);
  Registry.destroy("store", { dir });
  return section(times, fairness, counts, [...new Set(absent)]);
}

function section(
  times: Samples,
  fairness: Samples,
  counts: readonly number[],
  absent: string[],
): Section {
  const plural = (count: number) => `${count} reader${count === 1 ? "" : "s"}`;
  const measured = stores.filter(([store]) => times.has(`Deno ${store} ${counts[0]}`));
  return {
    title: "Read-mostly sharing",
    tables: [
      ...runtimes.map((runtime) => ({
        title:
          `${runtime}: a read of 1,024 bytes by any reader, and the least share to an even one`,
        rows: [
          ["", ...counts.map(plural)],
          ...measured.map(([store, label]) => [
            label,
            ...counts.map((count) => {
              const key = `${runtime} ${store} ${count}`;
              return `${ns(times.median(key))}, ${percent(fairness.median(key))}`;
            }),
          ]),
          ...measured.slice(1).map(([store, label]) => [
            `${label}, to dsmr`,
            ...counts.map((count) =>
              ratioText(
                times.ratio(`${runtime} ${store} ${count}`, `${runtime} dsmr ${count}`),
              )
            ),
          ]),
        ],
        note:
          "One more process replaces the record every millisecond. Every read is checked to be " +
          "of one moment.",
      })),
    ],
    charts: [{
      name: "reading",
      title: "Reading a record of 1,024 bytes that another process replaces",
      unit: "ns a read, of any reader",
      scale: "log",
      groups: counts.map((count) => ({
        heading: plural(count),
        bars: measured.flatMap(([store, label]) =>
          runtimes.flatMap((runtime) =>
            bar(label, runtime, times.summary(`${runtime} ${store} ${count}`))
          )
        ),
      })),
    }],
    targets: [],
    measures: { ...times.summaries("a read: "), ...fairness.summaries("fairness: ") },
    absent,
  };
}

/** The part. */
export const reading: Part = {
  name: "reading",
  title: "many readers and one writer",
  measure,
};
