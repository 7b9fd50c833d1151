/**
 * The rows of what does not block: async locks and Web Locks next to the sync ones and to other
 * people's, hand-over between runtimes, and what thousands of waits cost those who wait.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { installed } from "../.ci/system_packages.ts";
import { bun, deno } from "../.ci/toolchain.ts";
import { Registry } from "../lib/mod.ts";
import { Partner } from "./processes.ts";
import { ns, printTable, ratio, Samples } from "./table.ts";

const PAIR_ROUNDS = 31;
/** Until the compilers of the runtimes are done; not counted. */
const PAIR_WARM_UP = 8;
const CONTEND_ROUNDS = 11;
const CONTEND_MS = 100;
const RELAY_ROUNDS = 5;
const RELAY_WARM_UP = 500;
const RELAYS = 2500;
const WAITS = 1000;
const LOOP_MS = 1000;
const IDLE_MS = 2000;

const runtimes = ["Deno", "Bun"] as const;
type Runtime = (typeof runtimes)[number];
type Sides = Record<Runtime, Partner>;

const contests = ["sync", "async"];
const relays = ["acquireSync", "acquire", "waitSync", "wait", "signal"];
const pendings = [0, 1, WAITS];

export interface AsyncTimes {
  /** ns a pair: "Deno acquire", "Bun redis". */
  pairs: Samples;
  /** Why there is no such row, by peer. */
  absent: Map<string, string>;
  /** ns a pair with two at it: "async"; "share async": the smaller one's. */
  contended: Samples;
  /** ns one way: "Deno acquire" is from Deno to Bun. */
  relay: Samples;
  /** us: "Deno immediate 1000", "Deno timer 1000"; "Deno idle 1000": CPU time in IDLE_MS. */
  loop: Samples;
}

/** Measures. The processes attach to the registry "lock" in `dir`, as those of locks.ts do. */
export async function measureAsync(
  dir: string,
  progress: (text: string) => void,
): Promise<AsyncTimes> {
  using registry = Registry.openSync("lock", { dir });
  const tranche = registry.newTranche("async");
  registry.getNamedSegmentSync("many", WAITS * 64, (segment) => {
    for (let i = 0; i < WAITS; i++) segment.initLock(i * 64, tranche);
  });
  const start = (runtime: Runtime): Partner => {
    const args = ["bench/async_child.ts", dir];
    return runtime === "Deno"
      ? new Partner(deno, ["run", "--allow-all", ...args])
      : new Partner(bun, ["run", ...args]);
  };
  const sides = { Deno: start("Deno"), Bun: start("Bun") };
  const times: AsyncTimes = {
    pairs: new Samples(),
    absent: new Map(),
    contended: new Samples(),
    relay: new Samples(),
    loop: new Samples(),
  };
  progress("async locks, uncontended and contended");
  await measurePairs(sides, dir, times);
  let met = await measureContended(sides, times.contended);
  progress("hand-over between Deno and Bun");
  for (let round = 0; round < RELAY_ROUNDS; round++) {
    for (const kind of relays) {
      registry.getNamedSegmentSync(`relay-${++met}`, 192, (segment) => {
        for (const at of [0, 64, 128]) {
          if (kind.startsWith("acquire")) segment.initLock(at, tranche);
        }
      });
      await measureRelay(sides, kind, met, times.relay);
    }
  }
  progress(`${WAITS} pending waits`);
  const holder = start("Bun");
  await holder.ask(`hold ${WAITS}`);
  for (const runtime of runtimes) await measureLoop(runtime, sides[runtime], times.loop);
  await Promise.all([...Object.values(sides), holder].map((side) => side.end()));
  return times;
}

async function measurePairs(sides: Sides, dir: string, times: AsyncTimes): Promise<void> {
  const server = await startRedis(dir);
  if (server === undefined) {
    times.absent.set("redis", "not installed (apt-get install redis-server)");
  }
  const questions = ["pairs", "peer lockfile"];
  if (server !== undefined) questions.push(`peer redis ${server.socket}`);
  for (let round = -PAIR_WARM_UP; round < PAIR_ROUNDS; round++) {
    for (const runtime of runtimes) {
      for (const question of questions) {
        const line = await sides[runtime].ask(question);
        if (line === "absent") {
          times.absent.set(
            "lockfile",
            "not installed (npm install --no-save proper-lockfile)",
          );
        } else if (round >= 0) {
          times.pairs.addLine(`${runtime} `, line);
        }
      }
    }
  }
  await server?.partner.stop();
}

/** A server of our own, without a port or a file but its socket. */
async function startRedis(dir: string): Promise<{ partner: Partner; socket: string } | undefined> {
  const program = installed("redis-server");
  if (program === undefined) return undefined;
  const socket = join(dir, "redis.socket");
  const options = { unixsocket: socket, port: "0", save: "", appendonly: "no", dir };
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
  const partner = new Partner(program, words);
  while (!existsSync(socket)) {
    if (partner.hasEnded) throw new Error(`redis-server has ended: ${await partner.end()}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return { partner, socket };
}

const numbers = (line: string): number[] => line.trim().split(/\s+/).map(Number);

async function measureContended(sides: Sides, times: Samples): Promise<number> {
  let met = 0;
  for (let round = 0; round < CONTEND_ROUNDS; round++) {
    for (const kind of contests) {
      const question = `contend ${kind} ${CONTEND_MS} ${++met}`;
      const answers = await Promise.all(runtimes.map((runtime) => sides[runtime].ask(question)));
      const parts = answers.map(numbers);
      const counts = parts.map(([count = 0]) => count);
      const count = counts.reduce((sum, one) => sum + one);
      const ms = parts.reduce((sum, [, elapsed = 0]) => sum + elapsed, 0) / parts.length;
      times.add(kind, ms * 1e6 / count);
      times.add(`share ${kind}`, Math.min(...counts) / count);
    }
  }
  return met;
}

/** Of each turn: when it was woken and when it let the other one go on. */
async function measureRelay(
  sides: Sides,
  kind: string,
  number: number,
  times: Samples,
): Promise<void> {
  const answers = await Promise.all(
    runtimes.map((runtime, role) =>
      sides[runtime].ask(`relay ${kind} ${role} ${RELAYS} ${number}`)
    ),
  );
  const [first = [], second = []] = answers.map(numbers);
  const woken = (of: number[], turn: number) => of[2 * turn] ?? NaN;
  const passed = (of: number[], turn: number) => of[2 * turn + 1] ?? NaN;
  // The locks rotate by three, so that the first one is a turn ahead.
  const ahead = kind.startsWith("acquire") ? 1 : 0;
  for (let turn = RELAY_WARM_UP; turn < RELAYS; turn++) {
    times.add(`Deno ${kind}`, woken(second, turn) - passed(first, turn));
    times.add(`Bun ${kind}`, woken(first, turn) - passed(second, turn - ahead));
  }
}

async function measureLoop(runtime: Runtime, side: Partner, times: Samples): Promise<void> {
  // Once for the compiler.
  await side.ask(`loop ${LOOP_MS}`);
  for (const count of pendings) {
    if (count > 0) await side.ask(`wait ${count}`);
    const [immediates = "", timers = ""] = (await side.ask(`loop ${LOOP_MS}`)).split(";");
    times.add(`${runtime} immediate ${count}`, ...numbers(immediates));
    times.add(`${runtime} timer ${count}`, ...numbers(timers));
    times.add(`${runtime} idle ${count}`, Number(await side.ask(`idle ${IDLE_MS}`)));
    if (count > 0) await side.ask("unwait");
  }
}

/* ---- tables ----------------------------------------------------------------------------- */

export function printAsync(times: AsyncTimes): void {
  printPairs(times);
  printContended(times.contended);
  printRelay(times.relay);
  printLoop(times.loop);
}

function printPairs({ pairs, absent }: AsyncTimes): void {
  const row = (label: string, name: string, peer: string): string[] => [
    label,
    ...runtimes.flatMap((runtime) => {
      const median = pairs.median(`${runtime} ${name}`);
      if (Number.isNaN(median)) return ["", ""];
      return [ns(median), ratio(median, pairs.median(`${runtime} ${peer}`))];
    }),
  ];
  const others = [
    ["navigator.locks.request", "navigator"],
    ["proper-lockfile", "lockfile"],
    ["Redis over a Unix socket", "redis"],
  ].map(([label = "", name = ""]) => {
    const why = absent.get(name);
    return why === undefined ? row(label, name, "request") : [`${label}: ${why}`];
  });
  printTable(`Without blocking, uncontended, a pair: median of ${PAIR_ROUNDS} rounds`, [
    ["", "Deno", "to sync", "Bun", "to sync"],
    row("acquireSync + release", "sync", "sync"),
    row("await acquire + release", "acquire", "sync"),
    row("await with", "with", "sync"),
    row("registry.locks.request", "request", "sync"),
  ]);
  printTable("By name, and other people's, to registry.locks.request", [
    ["", "Deno", "to ours", "Bun", "to ours"],
    row("registry.locks.request", "request", "request"),
    ...others.filter(([, ...cells]) => cells.length > 0),
  ]);
  for (const [why = "", ...cells] of others) if (cells.length === 0) console.log(why);
}

function printContended(times: Samples): void {
  printTable(
    `Deno and Bun at one lock, a pair of either: ${CONTEND_ROUNDS} rounds of ${CONTEND_MS} ms`,
    [
      ["", "min", "median", "to sync", "smaller share"],
      ...contests.map((kind) => [
        kind === "sync" ? "acquireSync + release" : "await acquire + release",
        ...[ns(times.min(kind)), ns(times.median(kind))],
        ratio(times.median(kind), times.median("sync")),
        `${(times.median(`share ${kind}`) * 100).toFixed(0)} %`,
      ]),
    ],
  );
}

const us = (value: number): string => `${value.toFixed(1)} us`;

function printRelay(times: Samples): void {
  const labels = new Map([
    ["acquireSync", "acquireSync"],
    ["acquire", "await acquire"],
    ["waitSync", "segment.waitSync"],
    ["wait", "await segment.wait"],
    ["signal", "await signal.wait"],
  ]);
  printTable("From letting go in one process to going on in the other, one way", [
    ["", "Deno to Bun", "99 %", "Bun to Deno", "99 %"],
    ...relays.map((kind) => [
      labels.get(kind) ?? kind,
      ...runtimes.flatMap((runtime) =>
        [0.5, 0.99].map((share) => us(times.quantile(`${runtime} ${kind}`, share) / 1000))
      ),
    ]),
  ]);
}

function printLoop(times: Samples): void {
  const spread = (name: string) =>
    [times.median(name), times.quantile(name, 0.99), times.max(name)].map(us);
  printTable(
    `A busy event loop while waits are pending, and CPU time in ${IDLE_MS / 1000} s without work`,
    [
      ["", "setImmediate", "99 %", "worst", "1 ms timer late", "99 %", "worst", "CPU time"],
      ...runtimes.flatMap((runtime) =>
        pendings.map((count) => [
          `${runtime}, ${count.toLocaleString("en")} pending`,
          ...spread(`${runtime} immediate ${count}`),
          ...spread(`${runtime} timer ${count}`),
          `${(times.median(`${runtime} idle ${count}`) / 1000).toFixed(1)} ms`,
        ])
      ),
    ],
  );
}
