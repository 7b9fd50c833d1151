/**
 * The benchmark: `deno task bench`. Prints tables of times, of ratios to what the machine
 * itself costs, and of DESIGN's targets, all measured in this run.
 *
 * @module
 */

import { constants, cpus, release } from "node:os";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { bun, deno, root, zig, zigEnv } from "../.ci/toolchain.ts";
import { Registry } from "../lib/mod.ts";
import { measureAsync, printAsync } from "./async.ts";
import { measureLocks, printLocks } from "./locks.ts";
import { allEnded, run, stopAll } from "./processes.ts";
import { ns, printTable, ratio, Samples, target } from "./table.ts";

const START_ROUNDS = 15;
const ATTACH_RATIO = 1.5;
/** 1,000 segments to one: "as fast", within what the machine lets one tell apart. */
const MANY_RATIO = 1.1;
const START_MS = { deno: 10, bun: 5 };

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

function parseTimes(text: string): Map<string, number> {
  const lines = text.trim().split("\n").map((line) => line.split(" "));
  return new Map(lines.map(([name = "", time]) => [name, Number(time)]));
}

/** Milliseconds that whole processes take; they take turns, as the subjects within do. */
async function startTimes(dir: string): Promise<Samples> {
  const runtimes: [string, string, string[]][] = [
    ["deno", deno, ["run", "--allow-all"]],
    ["bun", bun, ["run"]],
  ];
  const times = new Samples();
  // The first round warms the caches and is thrown away.
  for (let round = -1; round < START_ROUNDS; round++) {
    for (const [runtime, path, args] of runtimes) {
      for (const program of ["empty", "import", "attach"]) {
        const started = performance.now();
        await run(path, [...args, `bench/start/${program}.ts`, dir]);
        if (round >= 0) times.add(`${runtime} ${program}`, performance.now() - started);
      }
    }
  }
  return times;
}

type Times = Map<string, number>;

function printSegments(c: Times, inDeno: Times, inBun: Times): void {
  const get = (times: Times, name: string): number => times.get(name) ?? NaN;
  const all = [c, inDeno, inBun];
  const floor = get(c, "map_file");
  const attach = all.map((t) => get(t, "attach_detach") / floor);
  const many = all.map((t) => get(t, "known_of_many") / get(t, "known_of_one"));
  const x = (values: number[]) => values.map((value) => ratio(value, 1));
  printTable(`Segments. The floor: open + fstat + mmap + close + munmap in C = ${ns(floor)}`, [
    ["", "C", "Deno", "Bun", "target"],
    [
      "attach + detach a known segment, to floor",
      ...x(attach),
      target(attach, ATTACH_RATIO, "x", 2),
    ],
    ["open + attach + close, to floor", ratio(get(c, "open_attach_close"), floor)],
    ["getNamedSegment again, 1 segment", ...all.map((t) => ns(get(t, "known_of_one")))],
    ["the same, 1,000 segments, to 1", ...x(many), target(many, MANY_RATIO, "x", 2)],
    ["one FFI call", "", ns(get(inDeno, "ffi_call")), ns(get(inBun, "ffi_call"))],
  ]);
}

function printStart(times: Samples): void {
  const onTop = (program: string) =>
    (["deno", "bun"] as const).flatMap((runtime) => {
      const ms = times.median(`${runtime} ${program}`) - times.median(`${runtime} empty`);
      return [`${ms.toFixed(1)} ms`, target([ms], START_MS[runtime], " ms", 0)];
    });
  printTable(`Whole processes, median of ${START_ROUNDS}`, [
    ["", "Deno", "target", "Bun", "target"],
    [
      "empty program",
      ...["deno", "bun"].flatMap((r) => [`${times.median(`${r} empty`).toFixed(1)} ms`, ""]),
    ],
    ["import, on top", ...onTop("import")],
    ["import + open + attach, on top", ...onTop("attach")],
  ]);
}

async function build(): Promise<void> {
  progress("building");
  await run(zig(), ["build", "bench"], zigEnv() as NodeJS.ProcessEnv);
  for (const name of ["floor", "pair", "pair_static", "death", "ping"]) {
    const path = join(root, "zig-out", "bin", name);
    if (!existsSync(path)) throw new Error(`The build has made no ${path}.`);
  }
}

async function measure(dir: string): Promise<void> {
  await build();
  progress("segments from C, Deno and Bun");
  const c = parseTimes(await run(join(root, "zig-out", "bin", "floor"), [dir]));
  for (const name of ["small", "large"]) Registry.destroy(name, { dir });
  const inDeno = parseTimes(await run(deno, ["run", "--allow-all", "bench/in_process.ts", dir]));
  for (const name of ["small", "large"]) Registry.destroy(name, { dir });
  const inBun = parseTimes(await run(bun, ["run", "bench/in_process.ts", dir]));
  const locks = await measureLocks(dir, progress);
  const async = await measureAsync(dir, progress);
  progress("fields of a struct in Deno and Bun");
  const fields = [
    await run(deno, ["run", "--allow-all", "bench/struct.ts", dir]),
    await run(bun, ["run", "bench/struct.ts", dir]),
  ];
  progress("starting processes");
  Registry.openSync("start", { dir }).close();
  const start = await startTimes(dir);

  const cores = cpus();
  console.log(`\n${cores.length} x ${cores[0]?.model}, Linux ${release()}`);
  if (cores.length === 1) {
    console.log("\nOne core: where two processes are involved, this is how the scheduler lets");
    console.log("them take turns, and not how fast they could be.");
  }
  printSegments(c, inDeno, inBun);
  printLocks(locks);
  printAsync(async);
  for (const text of fields) console.log(text.trimEnd());
  printStart(start);
}

if (process.platform !== "linux") {
  progress("the floors and peers are those of Linux: nothing is measured on other systems.");
  process.exit(1);
}
// In shared memory, with all registries in it: whatever happens, it goes as a whole.
const dir = mkdtempSync("/dev/shm/dsmr-bench-");
let stoppedBy: keyof typeof constants.signals | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    stoppedBy = signal;
    stopAll();
  });
}
try {
  await measure(dir);
} catch (error) {
  if (stoppedBy === undefined) progress(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
} finally {
  stopAll();
  await allEnded();
  rmSync(dir, { recursive: true, force: true });
}
if (stoppedBy !== undefined) process.exitCode = 128 + constants.signals[stoppedBy];
process.exit();
