/**
 * The lock rows: uncontended, contended, ping-pong and death, from C, Deno and Bun, next to
 * what the C library offers. All of them take turns, in one run.
 *
 * @module
 */

import { join } from "node:path";
import { bun, deno, root } from "../.ci/toolchain.ts";
import { Registry } from "../lib/mod.ts";
import { Partner, run } from "./processes.ts";
import { ns, printTable, ratio, Samples, target } from "./table.ts";

const PAIR_ROUNDS = 101;
/** Until the compilers of the runtimes are done; not counted. */
const PAIR_WARM_UP = 20;
const CONTEND_ROUNDS = 11;
const CONTEND_MS = 100;
const PING_ROUNDS = 5;
const PING_WARM_UP = 500;
const PINGS = 2500;
const DEATHS = 1000;
/** In so many turns. */
const DEATH_ROUNDS = 4;

const childOf: Record<string, (args: string[]) => [string, string[]]> = {
  Deno: (args) => [deno, ["run", "--allow-all", "bench/lock_child.ts", ...args]],
  Bun: (args) => [bun, ["run", "bench/lock_child.ts", ...args]],
};
const runtimes = Object.keys(childOf);
const modes = ["exclusive", "shared"];

function program(name: string): string {
  return join(root, "zig-out", "bin", name);
}

function startChild(runtime: string, ...args: string[]): Partner {
  const command = childOf[runtime]?.(args);
  if (command === undefined) throw new Error(`no runtime ${runtime}`);
  return new Partner(...command);
}

export interface LockTimes {
  /** ns a pair: "C exclusive", "Deno raw_shared", "static cas_swap". */
  pairs: Samples;
  /** ns a pair with two at it; "Deno + Bun exclusive", "share exclusive": the smaller one's. */
  contended: Samples;
  /** us one way. */
  ping: Samples;
  /** us. */
  death: Samples;
}

/** Measures. The processes attach to a registry "lock" in `dir`, which must stay until then. */
export async function measureLocks(
  dir: string,
  progress: (text: string) => void,
): Promise<LockTimes> {
  using registry = Registry.openSync("lock", { dir });
  const times = {
    pairs: new Samples(),
    contended: new Samples(),
    ping: new Samples(),
    death: new Samples(),
  };
  progress("locks, uncontended and contended");
  await measurePairs(dir, times);
  progress("ping-pong");
  await measurePing(registry, times.ping);
  progress(`${DEATHS} holders die`);
  for (let round = 0; round < DEATH_ROUNDS; round++) {
    for (const waiter of ["mutex", "C", ...runtimes]) {
      const kind = waiter === "mutex" ? waiter : "dsmr";
      const command = childOf[waiter]?.([dir, "wait"]).flat() ?? [];
      const args = [dir, kind, String(DEATHS / DEATH_ROUNDS), ...command];
      times.death.add(waiter, ...numbers(await run(program("death"), args)));
    }
  }
  return times;
}

function numbers(line: string): number[] {
  return line.trim().split(/\s+/).map(Number);
}

async function measurePairs(dir: string, times: LockTimes): Promise<void> {
  const inDeno = startChild("Deno", dir, "turns");
  const inBun = startChild("Bun", dir, "turns");
  const partners: [string, Partner][] = [
    ["C", new Partner(program("pair"), [dir, "pairs"])],
    ["static", new Partner(program("pair_static"), [dir, "pairs"])],
    ["Deno", inDeno],
    ["Bun", inBun],
  ];
  for (let round = -PAIR_WARM_UP; round < PAIR_ROUNDS; round++) {
    for (const [name, partner] of partners) {
      const line = await partner.ask("pairs");
      if (round >= 0) times.pairs.addLine(`${name} `, line);
    }
  }

  const contended = new Partner(program("pair"), [dir, "contend"]);
  let met = 0;
  for (let round = 0; round < CONTEND_ROUNDS; round++) {
    times.contended.addLine("C ", await contended.ask("contend"));
    for (const mode of modes) {
      const question = `contend ${mode} ${CONTEND_MS} ${++met}`;
      const answers = await Promise.all([inDeno.ask(question), inBun.ask(question)]);
      const [[denoCount = 0, denoMs = 0] = [], [bunCount = 0, bunMs = 0] = []] = answers.map(
        numbers,
      );
      const count = denoCount + bunCount;
      times.contended.add(`Deno + Bun ${mode}`, (denoMs + bunMs) / 2 * 1e6 / count);
      times.contended.add(`share ${mode}`, Math.min(denoCount, bunCount) / count);
    }
  }
  for (const partner of [contended, ...partners.map(([, partner]) => partner)]) {
    await partner.end();
  }
}

async function measurePing(registry: Registry, times: Samples): Promise<void> {
  const tranche = registry.newTranche("ping");
  let segments = 0;
  const cKinds = ["futex", "mutex", "dsmr"];
  for (let round = 0; round < PING_ROUNDS; round++) {
    for (const kind of [...cKinds, "Deno + Bun"]) {
      const segment = `ping-${++segments}`;
      // Exclusive locks that each side holds throughout; the variables are zero.
      registry.getNamedSegmentSync(segment, 4096, (fresh) => {
        fresh.initLock(0, tranche);
        fresh.initLock(64, tranche);
      });
      const { dir } = registry;
      const side = (role: string): Partner => {
        if (cKinds.includes(kind)) {
          return new Partner(program("ping"), [dir, segment, role, `${PINGS}`, kind]);
        }
        return startChild(role === "0" ? "Deno" : "Bun", dir, "ping", segment, role, `${PINGS}`);
      };
      const [line = ""] = await Promise.all([side("0").end(), side("1").end()]);
      times.add(kind, ...numbers(line).slice(PING_WARM_UP));
      registry.dropSegment(segment);
    }
  }
}

/* ---- tables ----------------------------------------------------------------------------- */

/** DESIGN's targets, as ratios and milliseconds. */
const TO_ROBUST_FROM_C = 1;
const TO_FLOOR_FROM_SCRIPT = 1.8;
const DEATH_MEDIAN_MS = 1;
const DEATH_WORST_MS = 20;

export function printLocks(times: LockTimes): void {
  printPairs(times.pairs);
  printContended(times.contended);
  printPing(times.ping);
  printDeath(times.death);
}

function printPairs(times: Samples): void {
  const floor = times.median("C cas_swap");
  const robust = times.median("C robust_mutex");
  const row = (label: string, name: string, verdict = ""): string[] => {
    const median = times.median(name);
    return [
      ...[label, ns(times.min(name)), ns(median)],
      ...[ratio(median, floor), ratio(median, robust), verdict],
    ];
  };
  const toRobust = (name: string) =>
    `to robust ${target([times.median(name) / robust], TO_ROBUST_FROM_C, "x", 2)}`;
  const toFloor = (name: string) =>
    `to CAS ${target([times.median(name) / floor], TO_FLOOR_FROM_SCRIPT, "x", 2)}`;
  const subjects = modes.flatMap((mode) => [
    row(`dsmr from C, ${mode}`, `C ${mode}`, toRobust(`C ${mode}`)),
    row(`  linked statically`, `static ${mode}`),
    ...runtimes.flatMap((runtime) => [
      row(`dsmr from ${runtime}, ${mode}`, `${runtime} ${mode}`, toFloor(`${runtime} ${mode}`)),
      row(`  without lib/, two bare calls`, `${runtime} raw_${mode}`),
    ]),
  ]);
  printTable(`Lock and unlock, uncontended: ${PAIR_ROUNDS} rounds`, [
    ["", "min", "median", "to CAS", "to robust", "target"],
    row("CAS + swap: the floor", "C cas_swap"),
    row("glibc mutex", "C mutex"),
    row("glibc robust mutex", "C robust_mutex"),
    row("glibc rwlock, write", "C rwlock_write"),
    row("glibc rwlock, read", "C rwlock_read"),
    ...subjects,
    ...["C", ...runtimes].map((from) =>
      row(`two calls of dsmr_segment_is_current, ${from}`, `${from} cheap_calls`)
    ),
  ]);
}

function printContended(times: Samples): void {
  const row = (label: string, name: string, peer: string, share = ""): string[] => [
    ...[label, ns(times.min(name)), ns(times.median(name))],
    ...[ratio(times.median(name), times.median("C robust_mutex"))],
    ...[ratio(times.median(name), times.median(peer)), share],
  ];
  const percent = (mode: string) => `${(times.median(`share ${mode}`) * 100).toFixed(0)} %`;
  printTable(
    `Two processes at one lock, a pair of either: ${CONTEND_ROUNDS} rounds of ${CONTEND_MS} ms`,
    [
      ["", "min", "median", "to robust", "to rwlock", "smaller share"],
      row("CAS + swap, spinning", "C cas_swap", "C rwlock_write"),
      row("glibc mutex", "C mutex", "C rwlock_write"),
      row("glibc robust mutex", "C robust_mutex", "C rwlock_write"),
      row("glibc rwlock, write", "C rwlock_write", "C rwlock_write"),
      row("dsmr exclusive, C and C", "C exclusive", "C rwlock_write"),
      row(
        "dsmr exclusive, Deno and Bun",
        "Deno + Bun exclusive",
        "C rwlock_write",
        percent("exclusive"),
      ),
      row("glibc rwlock, read", "C rwlock_read", "C rwlock_read"),
      row("dsmr shared, C and C", "C shared", "C rwlock_read"),
      row("dsmr shared, Deno and Bun", "Deno + Bun shared", "C rwlock_read", percent("shared")),
    ],
  );
  console.log("\nThe target is the throughput of PostgreSQL's LWLock, which is not measured here.");
}

function printPing(times: Samples): void {
  const us = (value: number) => `${value.toFixed(2)} us`;
  const row = (label: string, name: string): string[] => [
    ...[label, us(times.min(name)), us(times.median(name))],
    ratio(times.median(name), times.median("dsmr")),
  ];
  printTable("Ping-pong, one way", [
    ["", "min", "median", "to C and C"],
    row("futex, C and C: the floor", "futex"),
    row("glibc robust mutex + condition, C and C", "mutex"),
    row("dsmr updateVar + waitForVar, C and C", "dsmr"),
    row("the same, Deno and Bun", "Deno + Bun"),
  ]);
}

function printDeath(times: Samples): void {
  const ms = (us: number) => `${(us / 1000).toFixed(3)} ms`;
  const spread = (name: string) =>
    [times.median(name), times.quantile(name, 0.99), times.max(name)].map(ms);
  printTable(`From kill -9 of the holder to the next owner running, ${DEATHS} deaths`, [
    ["", "median", "99 %", "worst", "target, median", "worst"],
    ["glibc robust mutex, C", ...spread("mutex")],
    ...["C", ...runtimes].map((name) => [
      `dsmr, the next owner in ${name}`,
      ...spread(name),
      target([times.median(name) / 1000], DEATH_MEDIAN_MS, " ms", 0),
      target([times.max(name) / 1000], DEATH_WORST_MS, " ms", 0),
    ]),
  ]);
}
