/**
 * The benchmark: `deno task bench`. Prints a table of times and of ratios to what the machine
 * itself costs, all measured in this run.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, release } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { bun, deno, root, zig, zigEnv } from "../.ci/toolchain.ts";
import { Registry } from "../lib/mod.ts";

const startRounds = 15;

type Times = Map<string, number>;

/** Runs a program to its end and returns what it printed. */
function run(command: string, args: string[], env: NodeJS.ProcessEnv = process.env): string {
  const result = spawnSync(command, args, { cwd: root, encoding: "utf8", env });
  if (result.error) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ${args.join(" ")}\n${result.stderr}`);
  return result.stdout;
}

function parseTimes(text: string): Times {
  const lines = text.trim().split("\n").map((line) => line.split(" "));
  return new Map(lines.map(([name = "", time]) => [name, Number(time)]));
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? NaN;
}

/** Milliseconds that whole processes take; they take turns, as the subjects within do. */
function startTimes(dir: string): Times {
  const runtimes: [string, string, string[]][] = [
    ["deno", deno, ["run", "--allow-all"]],
    ["bun", bun, ["run"]],
  ];
  const programs = ["empty", "import", "attach"];
  const times = new Map<string, number[]>();
  // The first round warms the caches and is thrown away.
  for (let round = -1; round < startRounds; round++) {
    for (const [runtime, path, args] of runtimes) {
      for (const program of programs) {
        const started = performance.now();
        run(path, [...args, `bench/start/${program}.ts`, dir]);
        const list = times.get(`${runtime} ${program}`) ?? [];
        if (round >= 0) list.push(performance.now() - started);
        times.set(`${runtime} ${program}`, list);
      }
    }
  }
  return new Map([...times].map(([name, list]) => [name, median(list)]));
}

function printTable(rows: string[][]): void {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0))
  );
  for (const row of rows) {
    console.log(
      row.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))
        .join("  "),
    );
  }
}

const get = (times: Times, name: string): number => times.get(name) ?? NaN;
const ns = (value: number): string =>
  value < 1000 ? `${value.toFixed(1)} ns` : `${(value / 1000).toFixed(2)} us`;
const ratio = (value: number, floor: number): string => `${(value / floor).toFixed(2)}x`;

const dir = mkdtempSync("/dev/shm/dsmr-bench-");
process.on("SIGINT", () => {
  rmSync(dir, { recursive: true, force: true });
  process.exit(130);
});
try {
  process.stderr.write("bench: building\n");
  run(zig(), ["build", "bench"], zigEnv() as NodeJS.ProcessEnv);
  process.stderr.write("bench: C, Deno and Bun in turn\n");
  const c = parseTimes(run(join(root, "zig-out", "bin", "floor"), []));
  const inDeno = parseTimes(run(deno, ["run", "--allow-all", "bench/in_process.ts", dir]));
  const inBun = parseTimes(run(bun, ["run", "bench/in_process.ts", dir]));
  process.stderr.write("bench: starting processes\n");
  Registry.openSync("start", { dir }).close();
  const start = startTimes(dir);

  const floor = get(c, "map_file");
  console.log(`\n${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}\n`);
  console.log("Floor: open + fstat + mmap + close + munmap in C =", ns(floor), "\n");
  printTable([
    ["", "C", "Deno", "Bun"],
    [
      "attach + detach a known segment, to floor",
      ...[c, inDeno, inBun].map((t) => ratio(get(t, "attach_detach"), floor)),
    ],
    ["open + attach + close, to floor", ratio(get(c, "open_attach_close"), floor), "", ""],
    [
      "getNamedSegment again, 1 segment",
      ...[c, inDeno, inBun].map((t) => ns(get(t, "known_of_one"))),
    ],
    [
      "the same, 1,000 segments, to 1",
      ...[c, inDeno, inBun].map((t) => ratio(get(t, "known_of_many"), get(t, "known_of_one"))),
    ],
    ["one FFI call", "", ns(get(inDeno, "ffi_call")), ns(get(inBun, "ffi_call"))],
  ]);
  console.log("\nWhole processes, median of", startRounds, "\n");
  printTable([
    ["", "Deno", "Bun"],
    ["empty program", ...["deno", "bun"].map((r) => `${get(start, `${r} empty`).toFixed(1)} ms`)],
    ...["import", "attach"].map((program) => [
      program === "import" ? "import, on top" : "import + open + attach, on top",
      ...["deno", "bun"].map((r) =>
        `${(get(start, `${r} ${program}`) - get(start, `${r} empty`)).toFixed(1)} ms`
      ),
    ]),
  ]);
} finally {
  // All of it, registries included: nobody is attached any more.
  rmSync(dir, { recursive: true, force: true });
}
