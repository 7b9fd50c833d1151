/**
 * From kill -9 of a lock's holder to the next owner running.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { Samples } from "../harness.ts";
import { run } from "../partner.ts";
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
import { judge, type Measured } from "../targets.ts";

async function measure({ dir, pick }: Setting): Promise<Section> {
  // In so many turns.
  const rounds = pick(4, 1);
  const deaths = pick(250, 20) * rounds;
  const waiters = ["mutex", "C", ...runtimes];
  const times = new Samples("us");
  using registry = Registry.openSync("lock", { dir });
  registry.getNamedSegmentSync("data", 4096);
  for (let round = 0; round < rounds; round++) {
    for (const waiter of waiters) {
      const kind = waiter === "mutex" ? waiter : "dsmr";
      const words = waiter === "mutex" || waiter === "C"
        ? []
        : command(waiter as Runtime, "subjects/death_child.ts", dir);
      const line = await run(program("death"), [dir, kind, `${deaths / rounds}`, ...words]);
      times.add(waiter, ...line.trim().split(/\s+/).map(Number));
    }
  }
  Registry.destroy(registry.name, { dir });
  const ms = (us: number) => `${(us / 1000).toFixed(3)} ms`;
  const label = (waiter: string) =>
    waiter === "mutex" ? "glibc robust mutex, C" : `dsmr, the next owner in ${waiter}`;
  const by = (of: (name: string) => number): Measured => ({
    Deno: [of("Deno") / 1000],
    Bun: [of("Bun") / 1000],
    C: [of("C") / 1000],
  });
  const sameWith = (what: string, share: number): string =>
    `with glibc's robust mutex, where the kernel itself wakes the next owner, the ${what} was ${
      ms(times.quantile("mutex", share))
    } in the same run.`;
  const inMs = (value: number) => `${value.toFixed(value < 10 ? 2 : 1)} ms`;
  return {
    title: "Death of a lock's holder",
    tables: [{
      title: `From kill -9 of the holder to the next owner running, ${deaths} deaths each`,
      rows: [
        ["", "min", "median", "99 %", "worst"],
        ...waiters.map((waiter) => [
          label(waiter),
          ...[0, 0.5, 0.99, 1].map((share) => ms(times.quantile(waiter, share))),
        ]),
      ],
    }],
    charts: [{
      name: "death",
      title: "From kill -9 of a lock's holder to the next owner running",
      unit: "us",
      scale: "log",
      groups: [{
        heading: "",
        bars: waiters.flatMap((waiter) =>
          bar(label(waiter), waiter === "mutex" ? "other" : waiter, times.summary(waiter))
        ),
      }],
    }],
    targets: [
      judge("deathMedian", by((name) => times.median(name)), inMs, sameWith("median", 0.5)),
      judge("deathWorst", by((name) => times.max(name)), inMs, sameWith("worst", 1)),
    ],
    measures: times.summaries(),
    absent: [],
  };
}

/** The part. */
export const death: Part = { name: "death", title: "holders of a lock are killed", measure };
