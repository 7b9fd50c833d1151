/**
 * Counts the machine instructions of the library's fast paths, and compares them with the numbers
 * that are committed beside this: what makes a path slower shows at once, on a busy machine, too.
 *
 *   deno run -A c/tests/instructions/run.ts             compares
 *   deno run -A c/tests/instructions/run.ts --update    writes down what was counted
 *
 * Counted is what callgrind sees executed inside the library, and nothing of libc or the kernel:
 * in the file that users get, built by the pinned Zig for any processor of its architecture, so
 * the numbers are the same on every machine. Of two runs, one with a hundred calls more, the
 * difference is those calls. They are averages: a call that takes a longer way now and then makes a
 * fraction.
 *
 * Instructions are not time: a cache line that moves between processors counts as nothing. For that
 * there is the benchmark.
 *
 * Needs `valgrind`. Without it, or on a system that nobody has counted on, it says so and exits
 * with 77. The last line on stdout is `N passed, N failed`.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { arch, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { installed } from "../../../.ci/system_packages.ts";
import { root, zig, zigEnv } from "../../../.ci/toolchain.ts";

const here = dirname(fileURLToPath(import.meta.url));
const countsPath = join(here, "counts.json");

/** How far a count may be from the committed one. */
const TOLERANCE = 0.02;
/** What a count must differ by at least: less is no news for a call of a few instructions. */
const SLACK = 1;

const CALLS = 100;

/** Instructions of one call of each subject, by the processor's architecture. */
type Counts = { [cpu: string]: { [subject: string]: number } };

const cpu = arch() === "arm64" ? "aarch64" : "x86_64";
const library = join(root, "zig-out", "cross", `${cpu}-linux`, "libdsmr.so");

function run(program: string, args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root,
    env: { ...process.env, ...zigEnv() },
    encoding: "utf8",
  });
  if (error !== undefined) throw error;
  if (status === 0) return stdout;
  throw new Error(`${[program, ...args].join(" ")} failed:\n${stdout}${stderr}`);
}

/**
 * What callgrind has counted inside the library. The file names the object ("ob=") for the lines of
 * costs that follow; "calls=" comes before a line that has the costs of what was called, which is
 * counted where it was executed.
 */
function instructionsIn(profile: string): number {
  const names = new Map<string, string>();
  let isOurs = false;
  let isCallee = false;
  let sum = 0;
  for (const line of profile.split("\n")) {
    const object = /^ob=(\(\d+\))(?: (.*))?$/.exec(line);
    if (object !== null) {
      const [, id = "", name] = object;
      if (name !== undefined) names.set(id, name);
      isOurs = names.get(id) === library;
    } else if (/^cob=\(\d+\) /.test(line)) {
      const [, id = "", name = ""] = /^cob=(\(\d+\)) (.*)$/.exec(line) ?? [];
      names.set(id, name);
    } else if (line.startsWith("calls=")) {
      isCallee = true;
    } else if (/^[+\-*\d]/.test(line)) {
      if (isOurs && !isCallee) sum += Number(line.split(" ")[1]);
      isCallee = false;
    }
  }
  return sum;
}

function count(program: string, folder: string, subject: string, calls: number): number {
  const profile = join(folder, "profile");
  // A registry of its own each time: what the last run has left is not this one's.
  const directory = mkdtempSync(join(folder, "registry-"));
  run("valgrind", [
    ...["--tool=callgrind", "--quiet", `--callgrind-out-file=${profile}`],
    ...[program, library, directory, subject, String(calls)],
  ]);
  return instructionsIn(readFileSync(profile, "utf8"));
}

function countAll(folder: string): { [subject: string]: number } {
  const program = join(folder, "subjects");
  const source = join(here, "subjects.c");
  run(zig(), ["build", "cross"]);
  // valgrind does not know the latest processors.
  const flags = ["-std=c17", "-D_GNU_SOURCE", "-O1", "-mcpu=baseline"];
  run(zig(), ["cc", ...flags, "-Ic", source, "-o", program]);
  const subjects = run(program, [library, folder]).trim().split("\n");
  return Object.fromEntries(subjects.map((subject) => {
    const [few = 0, many = 0] = [10, 10 + CALLS].map((n) => count(program, folder, subject, n));
    return [subject, (many - few) / CALLS];
  }));
}

function skip(why: string): never {
  console.log(`skipped: ${why}`);
  process.exit(77);
}

if (process.platform !== "linux") skip("the library for Linux is counted, and this is not Linux");
if (installed("valgrind") === undefined) {
  skip("valgrind is not installed (apt-get install valgrind)");
}
const committed: Counts = existsSync(countsPath)
  ? JSON.parse(readFileSync(countsPath, "utf8"))
  : {};
const isUpdate = process.argv.includes("--update");
const expected = committed[cpu];
if (expected === undefined && !isUpdate) skip(`nobody has counted on ${cpu} yet: see --update`);

// The registries are in it, too: nothing is left behind, whatever happens.
const folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "dsmr-count-"));
let found: { [subject: string]: number };
try {
  found = countAll(folder);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
if (isUpdate) {
  writeFileSync(countsPath, JSON.stringify({ ...committed, [cpu]: found }, null, 2) + "\n");
}
let failed = 0;
for (const subject of new Set([...Object.keys(expected ?? {}), ...Object.keys(found)])) {
  const [was, is] = [expected?.[subject], found[subject]];
  const allowed = Math.max((was ?? 0) * TOLERANCE, SLACK);
  const isSame = was !== undefined && is !== undefined && Math.abs(is - was) <= allowed;
  if (!isSame && !isUpdate) failed++;
  console.log(
    `${isSame ? "ok   " : isUpdate ? "new  " : "FAIL "} ${subject}: ${
      is ?? "not counted any more"
    }` +
      (isSame ? "" : `, ${was ?? "nothing"} is committed`),
  );
}
if (failed > 0) {
  console.log("Fewer is better, more needs a reason; either way:");
  console.log("  node_modules/.bin/deno run -A c/tests/instructions/run.ts --update");
}
console.log(`${Object.keys(found).length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
