/**
 * The rows of what does not block: async locks and Web Locks next to the sync ones, hand-over
 * between runtimes, and what thousands of waits cost those who wait.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";
import { interleave, quantile, ratioText, Samples } from "../harness.ts";
import type { Partner } from "../partner.ts";
import { ms, ns, percent, us } from "../report/table.ts";
import { bar, type Chart } from "../report/svg.ts";
import {
  type Part,
  type Runtime,
  runtimes,
  type Section,
  type Setting,
  startScript,
  type Table,
} from "../setting.ts";

const RELAY_WARM_UP = 500;
const WAITS = 1000;

type Sides = Record<Runtime, Partner>;

const contests = ["sync", "async"];
const relays = ["acquireSync", "acquire", "waitSync", "wait", "signal"];
const pendings = [0, 1, WAITS];

interface Times {
  /** ns a pair: "Deno acquire". */
  pairs: Samples;
  /** ns a pair with two at it: "async". */
  contended: Samples;
  /** The smaller one's: "async". */
  share: Samples;
  /** us one way: "Deno acquire" is from Deno to Bun. */
  relay: Samples;
  /** us: "Deno immediate 1000", "Deno timer 1000", and CPU time: "Deno idle 1000". */
  loop: Samples;
}

async function measure(setting: Setting): Promise<Section> {
  const { dir, pick } = setting;
  using registry = Registry.openSync("lock", { dir });
  const tranche = registry.newTranche("async");
  registry.getNamedSegmentSync("many", WAITS * 64, (segment) => {
    for (let i = 0; i < WAITS; i++) segment.initLock(i * 64, tranche);
  });
  const start = (runtime: Runtime) => startScript(runtime, "subjects/async_child.ts", dir);
  const sides: Sides = { Deno: start("Deno"), Bun: start("Bun") };
  const times: Times = {
    pairs: new Samples("ns"),
    contended: new Samples("ns"),
    share: new Samples("share"),
    relay: new Samples("us"),
    loop: new Samples("us"),
  };
  await interleave(
    runtimes.map((runtime) => ({
      prefix: `${runtime} `,
      partner: sides[runtime],
      question: "pairs",
    })),
    { rounds: pick(51, 3), warmUp: pick(8, 2) },
    times.pairs,
  );
  let met = await measureContended(sides, times, pick(9, 2), pick(100, 20));
  const turns = RELAY_WARM_UP + pick(2000, 100);
  for (let round = 0; round < pick(5, 1); round++) {
    for (const kind of relays) {
      for (let trial = 1;; trial++) {
        registry.getNamedSegmentSync(`relay-${++met}`, 192, (segment) => {
          for (const at of [0, 64, 128]) {
            if (kind.startsWith("acquire")) segment.initLock(at, tranche);
          }
        });
        if (await measureRelay(sides, kind, met, turns, times.relay)) break;
        if (trial === 3) throw new Error("the clocks of Deno and Bun cannot be compared here");
      }
    }
  }
  const holder = start("Bun");
  await holder.ask(`hold ${WAITS}`);
  const idleMs = pick(2000, 40);
  for (const runtime of runtimes) {
    await measureLoop(runtime, sides[runtime], times.loop, pick(1000, 40), idleMs);
  }
  await Promise.all([...Object.values(sides), holder].map((side) => side.end()));
  Registry.destroy(registry.name, { dir });
  return {
    title: "Without blocking",
    tables: [
      pairTable(times.pairs),
      contendedTable(times),
      relayTable(times.relay),
      loopTable(times.loop, idleMs),
    ],
    charts: [relayChart(times.relay)],
    targets: [],
    measures: {
      ...times.pairs.summaries("pair: "),
      ...times.contended.summaries("contended: "),
      ...times.share.summaries("contended, smaller share: "),
      ...times.relay.summaries("hand-over: "),
      ...times.loop.summaries("event loop: "),
    },
    absent: [],
  };
}

const numbers = (line: string): number[] => line.trim().split(/\s+/).map(Number);

/** Returns how often they have met. */
async function measureContended(
  sides: Sides,
  { contended, share }: Times,
  rounds: number,
  milliseconds: number,
): Promise<number> {
  let met = 0;
  for (let round = 0; round < rounds; round++) {
    for (const kind of contests) {
      const question = `contend ${kind} ${milliseconds} ${++met}`;
      const answers = await Promise.all(runtimes.map((runtime) => sides[runtime].ask(question)));
      const parts = answers.map(numbers);
      const counts = parts.map(([count = 0]) => count);
      const count = counts.reduce((sum, one) => sum + one);
      const ms = parts.reduce((sum, [, elapsed = 0]) => sum + elapsed, 0) / parts.length;
      contended.add(kind, ms * 1e6 / count);
      share.add(kind, Math.min(...counts) / count);
    }
  }
  return met;
}

/**
 * Of each turn: when it was woken and when it let the other one go on. Returns whether the clocks
 * of both agreed: a virtual machine that is moved may make them jump meanwhile.
 */
async function measureRelay(
  sides: Sides,
  kind: string,
  number: number,
  turns: number,
  times: Samples,
): Promise<boolean> {
  const answers = await Promise.all(
    runtimes.map((runtime, role) => sides[runtime].ask(`relay ${kind} ${role} ${turns} ${number}`)),
  );
  const [first = [], second = []] = answers.map(numbers);
  const woken = (of: number[], turn: number) => of[2 * turn] ?? NaN;
  const passed = (of: number[], turn: number) => of[2 * turn + 1] ?? NaN;
  // The locks rotate by three, so that the first one is a turn ahead.
  const ahead = kind.startsWith("acquire") ? 1 : 0;
  const counted = Array.from({ length: turns - RELAY_WARM_UP }, (_, i) => RELAY_WARM_UP + i);
  const there = counted.map((turn) => (woken(second, turn) - passed(first, turn)) / 1000);
  const back = counted.map((turn) => (woken(first, turn) - passed(second, turn - ahead)) / 1000);
  if (quantile(there, 0.5) <= 0 || quantile(back, 0.5) <= 0) return false;
  times.add(`Deno ${kind}`, ...there);
  times.add(`Bun ${kind}`, ...back);
  return true;
}

async function measureLoop(
  runtime: Runtime,
  side: Partner,
  times: Samples,
  loopMs: number,
  idleMs: number,
): Promise<void> {
  // Once for the compiler.
  await side.ask(`loop ${loopMs}`);
  for (const count of pendings) {
    if (count > 0) await side.ask(`wait ${count}`);
    const [immediates = "", timers = ""] = (await side.ask(`loop ${loopMs}`)).split(";");
    times.add(`${runtime} immediate ${count}`, ...numbers(immediates));
    times.add(`${runtime} timer ${count}`, ...numbers(timers));
    times.add(`${runtime} idle ${count}`, Number(await side.ask(`idle ${idleMs}`)));
    if (count > 0) await side.ask("unwait");
  }
}

/* ---- tables ----------------------------------------------------------------------------- */

function pairTable(pairs: Samples): Table {
  const row = (label: string, name: string): string[] => [
    label,
    ...runtimes.flatMap((runtime) => [
      ns(pairs.median(`${runtime} ${name}`)),
      ratioText(pairs.ratio(`${runtime} ${name}`, `${runtime} sync`)),
    ]),
  ];
  return {
    title: "Uncontended, a pair",
    rows: [
      ["", "Deno", "to sync", "Bun", "to sync"],
      row("acquireSync + release", "sync"),
      row("await acquire + release", "acquire"),
      row("await with", "with"),
      row("registry.locks.request", "request"),
    ],
  };
}

function contendedTable({ contended, share }: Times): Table {
  return {
    title: "Deno and Bun at one lock, a pair of either",
    rows: [
      ["", "min", "median", "to sync", "smaller share"],
      ...contests.map((kind) => [
        kind === "sync" ? "acquireSync + release" : "await acquire + release",
        ...[contended.min(kind), contended.median(kind)].map(ns),
        ratioText(contended.ratio(kind, "sync")),
        percent(share.median(kind)),
      ]),
    ],
  };
}

const relayLabels = new Map([
  ["acquireSync", "acquireSync"],
  ["acquire", "await acquire"],
  ["waitSync", "segment.waitSync"],
  ["wait", "await segment.wait"],
  ["signal", "await signal.wait"],
]);

function relayTable(times: Samples): Table {
  return {
    title: "From letting go in one process to going on in the other, one way",
    rows: [
      ["", "Deno to Bun", "99 %", "Bun to Deno", "99 %"],
      ...relays.map((kind) => [
        relayLabels.get(kind) ?? kind,
        ...runtimes.flatMap((runtime) =>
          [0.5, 0.99].map((share) => us(times.quantile(`${runtime} ${kind}`, share)))
        ),
      ]),
    ],
  };
}

function relayChart(times: Samples): Chart {
  return {
    name: "hand-over",
    title: "From letting go in one process to going on in the other",
    unit: "us one way",
    scale: "log",
    groups: runtimes.map((runtime) => ({
      heading: runtime === "Deno" ? "Deno to Bun" : "Bun to Deno",
      bars: relays.flatMap((kind) =>
        bar(relayLabels.get(kind) ?? kind, runtime, times.summary(`${runtime} ${kind}`))
      ),
    })),
  };
}

function loopTable(times: Samples, idleMs: number): Table {
  const spread = (name: string) =>
    [times.median(name), times.quantile(name, 0.99), times.max(name)].map(us);
  return {
    title: `A busy event loop while waits are pending, and CPU time in ${idleMs} ms without work`,
    rows: [
      ["", "setImmediate", "99 %", "worst", "1 ms timer late", "99 %", "worst", "CPU time"],
      ...runtimes.flatMap((runtime) =>
        pendings.map((count) => [
          `${runtime}, ${count.toLocaleString("en")} pending`,
          ...spread(`${runtime} immediate ${count}`),
          ...spread(`${runtime} timer ${count}`),
          ms(times.median(`${runtime} idle ${count}`) / 1000),
        ])
      ),
    ],
  };
}

/** The part. */
export const async: Part = {
  name: "async",
  title: "locks and waits that do not block",
  measure,
};
