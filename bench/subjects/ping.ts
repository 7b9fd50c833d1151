/**
 * Ping-pong: how long it takes to wake another process.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { ratioText, Samples } from "../harness.ts";
import type { Partner } from "../partner.ts";
import { bar } from "../report/svg.ts";
import { type Part, type Section, type Setting, startProgram, startScript } from "../setting.ts";

const kinds = [
  ["futex", "futex, C and C: the floor"],
  ["mutex", "glibc robust mutex + condition, C and C"],
  ["dsmr", "dsmr updateVar + waitForVar, C and C"],
  ["Deno + Bun", "the same, Deno and Bun"],
] as const;

async function measure({ dir, pick }: Setting): Promise<Section> {
  const warmUp = pick(500, 50);
  const pings = pick(2500, 200);
  const times = new Samples("us");
  using registry = Registry.openSync("lock", { dir });
  const tranche = registry.newTranche("ping");
  let segments = 0;
  for (let round = 0; round < pick(9, 2); round++) {
    for (const [kind] of kinds) {
      const segment = `ping-${++segments}`;
      // Exclusive locks that each side holds throughout; the variables are zero.
      registry.getNamedSegmentSync(segment, 4096, (fresh) => {
        fresh.initLock(0, tranche);
        fresh.initLock(64, tranche);
      });
      const side = (role: string): Partner =>
        kind !== "Deno + Bun"
          ? startProgram("ping", dir, segment, role, `${pings}`, kind)
          : startScript(
            role === "0" ? "Deno" : "Bun",
            "subjects/ping_child.ts",
            ...[dir, segment, role, `${pings}`],
          );
      const [line = ""] = await Promise.all([side("0").end(), side("1").end()]);
      times.add(kind, ...line.trim().split(/\s+/).map(Number).slice(warmUp));
      registry.dropSegment(segment);
    }
  }
  Registry.destroy(registry.name, { dir });
  const us = (value: number) => `${value.toFixed(2)} us`;
  return {
    title: "Ping-pong",
    tables: [{
      title: "One way",
      rows: [
        ["", "min", "median", "99 %", "to the floor", "to C and C"],
        ...kinds.map(([kind, label]) => [
          label,
          ...[times.min(kind), times.median(kind), times.quantile(kind, 0.99)].map(us),
          ...["futex", "dsmr"].map((floor) => ratioText(times.ratio(kind, floor))),
        ]),
      ],
    }],
    charts: [{
      name: "ping",
      title: "Waking another process, one way",
      unit: "us",
      scale: "log",
      groups: [{
        heading: "",
        bars: kinds.flatMap(([kind, label]) =>
          bar(
            label,
            kind === "futex" ? "floor" : kind === "Deno + Bun" ? "Deno and Bun" : "C",
            times.summary(kind),
          )
        ),
      }],
    }],
    targets: [],
    measures: times.summaries(),
    absent: [],
  };
}

/** The part. */
export const ping: Part = { name: "ping", title: "two processes wake each other", measure };
