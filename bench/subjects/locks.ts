/**
 * Taking a lock and letting it go, uncontended and with two processes at it: from C, Deno and Bun,
 * next to what the C library, the kernel, Boost and PostgreSQL offer. All take turns, in one run.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { type Asked, interleave, ratioText, Samples } from "../harness.ts";
import { Partner } from "../partner.ts";
import { buildBoost } from "../peers/boost.ts";
import { type Postgres, startPostgres } from "../peers/postgres.ts";
import { ns, percent } from "../report/table.ts";
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
import { judge, toPeer } from "../targets.ts";

const modes = ["exclusive", "shared"] as const;
const FLOOR = "C cas_swap";
const ROBUST = "C robust_mutex";
/** The same as the floor, in the backend in which PostgreSQL's lock is measured. */
const POSTGRES_FLOOR = "PostgreSQL cas_swap";

/** Subjects of pair.c and boost.cpp, and what they are called. */
const peers = [
  ["C cas_swap", "CAS + swap: the floor"],
  ["C mutex", "glibc mutex"],
  ["C robust_mutex", "glibc robust mutex"],
  ["C rwlock_write", "glibc rwlock, write"],
  ["C rwlock_read", "glibc rwlock, read"],
  ["C semaphore", "POSIX semaphore"],
  ["boost mutex", "Boost.Interprocess mutex"],
  ["boost sharable_write", "Boost.Interprocess sharable mutex, write"],
  ["boost sharable_read", "Boost.Interprocess sharable mutex, read"],
  ["boost semaphore", "Boost.Interprocess semaphore"],
  ["C flock", "flock"],
  ["C ofd", "OFD lock (fcntl)"],
] as const;

async function measure({ dir, pick }: Setting): Promise<Section> {
  using registry = Registry.openSync("lock", { dir });
  const sides = runtimes.map((runtime) => startScript(runtime, "subjects/locks_child.ts", dir));
  const boost = await buildBoost();
  const { postgres, why: noPostgres } = await startPostgres(dir);
  const partners = [
    { prefix: "C ", partner: startProgram("pair", dir, "pairs") },
    { prefix: "static ", partner: startProgram("pair_static", dir, "pairs") },
    ...runtimes.map((runtime, i) => ({ prefix: `${runtime} `, partner: sides[i] as Partner })),
  ];
  if (boost.path !== undefined) {
    partners.push({ prefix: "boost ", partner: new Partner(boost.path, [dir]) });
  }
  const asked: { prefix: string; partner: Asked }[] = [...partners];
  if (postgres !== undefined) asked.push({ prefix: "PostgreSQL ", partner: postgres });
  const pairs = new Samples("ns");
  await interleave(
    asked.map((one) => ({ ...one, question: "pairs" })),
    { rounds: pick(101, 5), warmUp: pick(20, 4) },
    pairs,
  );
  const contended = new Samples("ns");
  const share = new Samples("share");
  const rounds = pick(9, 2);
  const milliseconds = pick(100, 20);
  await measureContended(dir, sides, postgres, { rounds, milliseconds }, contended, share);
  for (const { partner } of partners) await partner.end();
  await postgres?.stop();
  Registry.destroy(registry.name, { dir });
  const stretchFloor = (mode: string) => postgres === undefined ? FLOOR : `PostgreSQL ${mode}`;
  return {
    title: "Locks: acquire and release",
    tables: [
      pairTable(pairs, postgres),
      contendedTable(contended, share, postgres, rounds, milliseconds),
    ],
    charts: [pairChart(pairs, postgres)],
    targets: [
      judge(
        "pair",
        {
          Deno: modes.map((mode) => pairs.ratio(`Deno ${mode}`, FLOOR)),
          Bun: modes.map((mode) => pairs.ratio(`Bun ${mode}`, FLOOR)),
        },
        String,
        reason(pairs),
      ),
      ...(postgres === undefined ? [] : [judge(
        "pairPeer",
        {
          Deno: modes.map((mode) => pairs.ratio(`Deno ${mode}`, `PostgreSQL ${mode}`)),
          Bun: modes.map((mode) => pairs.ratio(`Bun ${mode}`, `PostgreSQL ${mode}`)),
        },
        String,
        reasonToPostgres(pairs),
      )]),
      judge(
        "stretch",
        {
          Deno: modes.map((mode) => pairs.ratio(`Deno ${mode}`, stretchFloor(mode))),
          Bun: modes.map((mode) => pairs.ratio(`Bun ${mode}`, stretchFloor(mode))),
        },
        String,
        "as above.",
        toPeer("stretch", postgres?.label),
      ),
      judge(
        "robust",
        { C: modes.map((mode) => pairs.ratio(`C ${mode}`, ROBUST)) },
        String,
        `linked statically, without the way through a shared library, it takes ${
          modes.map((mode) => ratioText(pairs.ratio(`static ${mode}`, ROBUST))).join(" / ")
        }.`,
      ),
    ],
    measures: {
      ...pairs.summaries("pair: "),
      ...contended.summaries("contended: "),
      ...share.summaries("contended, smaller share: "),
    },
    absent: [boost.why, noPostgres].filter((why) => why !== undefined),
  };
}

/** What a pair consists of, to the floor: what C does, the way there, and lib/. */
function reason(pairs: Samples): string {
  const both = (of: (mode: string) => string) =>
    modes.map((mode) => ratioText(pairs.ratio(of(mode), FLOOR))).join(" / ");
  const ways = runtimes.map((runtime) =>
    `from ${runtime} ${both((mode) => `${runtime} raw_${mode}`)}, and with lib/ around them ${
      both((mode) => `${runtime} ${mode}`)
    }`
  );
  return `the two calls of a pair alone take ${both((mode) => `C ${mode}`)} from C, ${
    ways.join(", ")
  }. What is more than from C is the runtime's way into a library, and then ours.`;
}

/** The same to PostgreSQL's own pair. */
function reasonToPostgres(pairs: Samples): string {
  const ratio = (from: string, mode: string, floor: string) =>
    ratioText(pairs.ratio(`${from}${mode}`, floor));
  const own = modes.map((mode) => ratio("PostgreSQL ", mode, POSTGRES_FLOOR)).join(" / ");
  const [c = "", deno = "", bun = ""] = ["C ", "Deno raw_", "Bun raw_"].map((from) =>
    modes.map((mode) => ratio(from, mode, `PostgreSQL ${mode}`)).join(" / ")
  );
  return `PostgreSQL's pair takes ${own} of the CAS + swap in its own process. To it, our two calls ` +
    `alone take ${c} from C, ${deno} from Deno, ${bun} from Bun; the rest is as above.`;
}

const numbers = (line: string): number[] => line.trim().split(/\s+/).map(Number);

async function measureContended(
  dir: string,
  sides: readonly Partner[],
  postgres: Postgres | undefined,
  { rounds, milliseconds }: { rounds: number; milliseconds: number },
  times: Samples,
  share: Samples,
): Promise<void> {
  const c = startProgram("pair", dir, "contend", String(milliseconds));
  let met = 0;
  for (let round = 0; round < rounds; round++) {
    times.addLine("C ", await c.ask("contend"));
    for (const mode of modes) {
      const question = `contend ${mode} ${milliseconds} ${++met}`;
      const answers = await Promise.all(sides.map((side) => side.ask(question)));
      const parts = answers.map(numbers);
      const counts = parts.map(([count = 0]) => count);
      const count = counts.reduce((sum, one) => sum + one);
      const ms = parts.reduce((sum, [, elapsed = 0]) => sum + elapsed, 0) / parts.length;
      times.add(`Deno + Bun ${mode}`, ms * 1e6 / count);
      share.add(mode, Math.min(...counts) / count);
      if (postgres === undefined) continue;
      const uses = await postgres.contend(2, milliseconds, mode);
      const all = uses.counts.reduce((sum, one) => sum + one);
      times.add(`PostgreSQL ${mode}`, uses.ns / all);
      share.add(`PostgreSQL ${mode}`, Math.min(...uses.counts) / all);
    }
  }
  await c.end();
}

/* ---- tables ----------------------------------------------------------------------------- */

function pairTable(pairs: Samples, postgres: Postgres | undefined): Table {
  const row = (name: string, label: string, floor = FLOOR): string[][] =>
    !pairs.has(name) ? [] : [[
      label,
      ...[pairs.min(name), pairs.median(name), pairs.quantile(name, 0.99)].map(ns),
      ratioText(pairs.ratio(name, floor)),
      ratioText(pairs.ratio(name, ROBUST)),
    ]];
  return {
    title: `Uncontended, a pair: ${pairs.summary(FLOOR)?.count} rounds`,
    rows: [
      ["", "min", "median", "99 %", "to CAS + swap", "to robust"],
      ...peers.flatMap(([name, label]) => row(name, label)),
      ...row(POSTGRES_FLOOR, "CAS + swap in PostgreSQL's backend"),
      ...modes.flatMap((mode) =>
        row(`PostgreSQL ${mode}`, `${postgres?.label}, ${mode}`, POSTGRES_FLOOR)
      ),
      ...modes.flatMap((mode) => [
        ...row(`C ${mode}`, `dsmr from C, ${mode}`),
        ...row(`static ${mode}`, "... linked statically"),
        ...runtimes.flatMap((runtime) => [
          ...row(`${runtime} ${mode}`, `dsmr from ${runtime}, ${mode}`),
          ...row(`${runtime} raw_${mode}`, "... without lib/, two bare calls"),
        ]),
      ]),
      ...["C", ...runtimes].flatMap((from) =>
        row(`${from} cheap_calls`, `two calls of dsmr_segment_is_current, ${from}`)
      ),
    ],
    ...(postgres === undefined ? {} : {
      note: `${postgres.note} Its ratio is to the CAS + swap in the same backend.`,
    }),
  };
}

function contendedTable(
  times: Samples,
  share: Samples,
  postgres: Postgres | undefined,
  rounds: number,
  milliseconds: number,
): Table {
  const row = (label: string, name: string, peer: string, mode = ""): string[] => [
    ...[label, ns(times.min(name)), ns(times.median(name)), ns(times.max(name))],
    ...[ratioText(times.ratio(name, ROBUST)), ratioText(times.ratio(name, peer))],
    mode === "" ? "" : percent(share.median(mode)),
  ];
  const backends = (mode: string, peer: string): string[][] => {
    if (postgres === undefined) return [];
    const name = `PostgreSQL ${mode}`;
    return [row(`${postgres.label}, ${mode}, two backends`, name, peer, name)];
  };
  const write = "C rwlock_write";
  const read = "C rwlock_read";
  return {
    title: `Two processes at one lock, a pair of either: ${rounds} rounds of ${milliseconds} ms`,
    rows: [
      ["", "min", "median", "max", "to robust", "to rwlock", "smaller share"],
      row("CAS + swap, spinning", "C cas_swap", write),
      row("glibc mutex", "C mutex", write),
      row("glibc robust mutex", "C robust_mutex", write),
      row("POSIX semaphore", "C semaphore", write),
      row("flock", "C flock", write),
      row("OFD lock (fcntl)", "C ofd", write),
      row("glibc rwlock, write", write, write),
      ...backends("exclusive", write),
      row("dsmr exclusive, C and C", "C exclusive", write),
      row("dsmr exclusive, Deno and Bun", "Deno + Bun exclusive", write, "exclusive"),
      row("glibc rwlock, read", read, read),
      ...backends("shared", read),
      row("dsmr shared, C and C", "C shared", read),
      row("dsmr shared, Deno and Bun", "Deno + Bun shared", read, "shared"),
    ],
    note: "CAS + swap does not wait: it spins, and would for ever if its holder died.",
  };
}

function pairChart(pairs: Samples, postgres: Postgres | undefined): Chart {
  return {
    name: "locks",
    title: "Acquire and release a lock, uncontended",
    unit: "ns a pair",
    scale: "log",
    groups: [
      {
        heading: "C: without a registry",
        bars: [
          ...peers.flatMap(([name, label]) =>
            bar(label, name === FLOOR ? "floor" : "other", pairs.summary(name))
          ),
          ...modes.flatMap((mode) =>
            bar(`${postgres?.label}, ${mode}`, "other", pairs.summary(`PostgreSQL ${mode}`))
          ),
        ],
      },
      {
        heading: "dsmr: the holder may die at any instruction",
        bars: modes.flatMap((mode) =>
          ["C", ...runtimes].flatMap((from) =>
            bar(`${mode}, from ${from}`, from, pairs.summary(`${from} ${mode}`))
          )
        ),
      },
    ],
  };
}

/** The part. */
export const locks: Part = {
  name: "locks",
  title: "locks next to those of glibc, the kernel, Boost and PostgreSQL",
  measure,
};
