/**
 * The gate: builds, linters and every test, for one verdict.
 *
 *   deno task test                                       everything
 *   deno run -A tests/gate.ts --only=deno,bun            these steps
 *   deno run -A tests/gate.ts --only=bun --filter=init   tests whose name contains "init"
 *   deno run -A tests/gate.ts --verbose                  the output of every step
 *
 * A step's line appears when the step ends; its output appears only if it failed. The last line
 * on stdout is `N passed, N failed`. A check counts as one; a test step counts its tests.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { arch, platform } from "node:os";
import { join } from "node:path";
import process from "node:process";
import {
  bun,
  clangTidy,
  deno,
  oldestRuntimes,
  root,
  tsc,
  withoutZigNoise,
  zig,
  zigEnv,
  zigLibFolder,
} from "../.ci/toolchain.ts";
import { installed, qemu } from "../.ci/system_packages.ts";

const STEP_LIMIT_MS = 20 * 60 * 1000;

/** How long a step's output may stay open after its program ended. */
const CLOSE_LIMIT_MS = 5000;

/**
 * In the environment of every process that a step starts, however far down and in whatever
 * session, followed by the step's name. So what a step leaves behind can be found.
 */
const MARK_NAME = "DSMR_GATE";
const MARK = `${process.pid}.${Date.now()}.`;

interface Counts {
  passed: number;
  failed: number;
  /** Why the counts are not to be believed. */
  problem?: string;
}

interface Step {
  name: string;
  /** The program and its arguments. A function, because it may have to install the program. */
  command: () => string[];
  /** Why it cannot run on this machine, if so. */
  skip?: () => string | undefined;
  /** Reads a test runner's closing lines. Without it the exit code is the one result. */
  count?: (output: string) => Counts;
}

interface Ended {
  output: string;
  /** Why it failed, or undefined if it exited with 0. */
  trouble: string | undefined;
}

const options = new Map(
  process.argv.slice(2).map((argument) => {
    const [name = "", value = ""] = argument.split("=", 2);
    return [name, value];
  }),
);
const filter = options.get("--filter");
const verbose = options.has("--verbose");

/** `deno task soak` runs ten minutes of it. */
const SOAK_SECONDS = "60";

const IMPORT_MAP = "--import-map=tests/import_map.json";

const build: Step = { name: "build", command: () => [zig(), "build"] };

/** Checks that change nothing and measure nothing: two at a time. */
const checks: Step[] = [
  { name: "clang-tidy", command: clangTidyCommand },
  { name: "zig-fmt", command: () => [zig(), "fmt", "--check", "build.zig"] },
  { name: "cross", command: () => [zig(), "build", "cross"], count: librariesThatFit },
  { name: "fmt", command: () => [deno, "fmt", "--check"] },
  { name: "lint", command: () => [deno, "lint"] },
  { name: "check", command: () => [deno, "check", IMPORT_MAP, ...typescriptFolders()] },
  { name: "tsc", command: () => [tsc, "--noEmit", "-p", "tsconfig.json"] },
  { name: "package", command: () => [deno, "run", "-A", ".ci/package.ts", "--check"] },
  // Every public symbol is documented, and no type is public that is not exported.
  { name: "doc-lint", command: () => [deno, "doc", "--lint", "lib/mod.ts"] },
  {
    // What people copy out of the documentation comments. They mean the registry's own folder.
    name: "doc",
    command: () => [deno, "test", "-A", "--doc", "lib"],
    count: countDeno,
  },
  { name: "tsc-plain", command: () => [tsc, "-p", "tests/tsconfig.plain.json", "--strict"] },
  { name: "tsc-loose", command: () => [tsc, "-p", "tests/tsconfig.plain.json"] },
];

/** The C tests, built in several ways: two at a time, or they would take the longest by far. */
const cSteps: Step[] = [
  cTests("c", "none"),
  cTests("c-undefined", "undefined"),
  cTests("c-thread", "thread"),
  // The other libc, in one program with the library: its lists of mutexes are not glibc's.
  { ...cTests("c-musl", "none", "-Dtest-target=musl"), skip: () => unlessLinux() },
  {
    // Without robust mutexes, which the emulator does not have: the library's other ways, too.
    ...cTests("c-arm64", "none", "-Dtest-target=arm64", `-Demulator=${qemu()}`),
    skip: () => {
      if (qemu() !== undefined) return unlessLinux();
      return arch() === "arm64"
        ? "this machine is one: step c runs them"
        : "qemu-aarch64 is not installed (apt-get install qemu-user)";
    },
  },
  {
    name: "models",
    command: () => [deno, "run", "-A", "c/tests/models/run.ts", "--small"],
    skip: () =>
      installed("spin") === undefined ? "spin is not installed (apt-get install spin)" : undefined,
    count: (output) => countClosingLines(output, 1),
  },
  {
    // What makes a fast path slower, without measuring time.
    name: "instructions",
    command: () => [deno, "run", "-A", "c/tests/instructions/run.ts"],
    skip: () => {
      if (installed("valgrind") === undefined) {
        return "valgrind is not installed (apt-get install valgrind)";
      }
      return arch() === "x64" ? unlessLinux() : "the committed numbers are those of x86_64";
    },
    count: (output) => countClosingLines(output, 1),
  },
];

/**
 * Both at a time: they wait for processes more than they compute, and what holds on an idle machine
 * has to hold on a busy one.
 */
const suites: Step[] = [
  {
    name: "deno",
    command: () => [
      // The step "check" has checked the types; here it would be done anew for every Worker.
      ...[deno, "test", "-A", "--no-check", IMPORT_MAP],
      ...(filter === undefined ? [] : [`--filter=${filter}`]),
      "tests/",
    ],
    count: countDeno,
  },
  {
    name: "bun",
    command: () => [
      ...[bun, "test", "--timeout", "300000"],
      ...(filter === undefined ? [] : ["-t", filter]),
      "tests/",
    ],
    count: countBun,
  },
];

/** What is run in the oldest runtimes, too: the package, and something of each part of it. */
const OLDEST = [
  ...["registry", "segments", "init", "limits", "lock", "lock_errors", "numbers", "scopes"],
  ...["async_init", "async_locks", "async_mixed", "words", "signals", "changes", "web_locks"],
  ...["struct", "struct_segment", "addin", "addin_handle", "addin_tranches", "workers"],
  ...["background_worker", "runtimes", "death", "permissions", "unpack", "package", "walk", "tool"],
].map((name) => `./tests/${name}_test.ts`);

/** A suite in the oldest runtime of its kind; its children are the oldest ones, too. */
function oldest(name: "deno" | "bun", command: (program: string) => string[]): Step {
  return {
    name: `oldest-${name}`,
    command: () => {
      const programs = oldestRuntimes();
      const variables = [`DSMR_DENO=${programs.deno}`, `DSMR_BUN=${programs.bun}`];
      return ["env", ...variables, ...command(programs[name]), ...OLDEST];
    },
    count: name === "deno" ? countDeno : countBun,
  };
}

const oldestSuites: Step[] = [
  oldest("deno", (program) => [program, "test", "-A", "--no-check", IMPORT_MAP]),
  oldest("bun", (program) => [program, "test", "--timeout", "300000"]),
];

/** By itself: it judges how processes grow. */
const alone: Step[] = [
  {
    // Its members are of both runtimes.
    name: "soak",
    command: () => [deno, "run", "-A", IMPORT_MAP, "tests/soak.ts", SOAK_SECONDS],
    count: (output) => countClosingLines(output, 1),
  },
];

function unlessLinux(): string | undefined {
  return platform() === "linux" ? undefined : "this is not Linux";
}

function cTests(name: string, sanitize: string, ...more: string[]): Step {
  return {
    name,
    command: () => [zig(), "build", "test", `-Dsanitize=${sanitize}`, ...more],
    count: countC,
  };
}

/**
 * clang-tidy reads the library as the Linux build does: against the musl headers that Zig brings,
 * so that the machine needs no C headers of its own.
 */
function clangTidyCommand(): string[] {
  const cpu = arch() === "arm64" ? "aarch64" : "x86_64";
  const family = cpu === "aarch64" ? cpu : "x86";
  const headers = [`${cpu}-linux-musl`, "generic-musl", `${family}-linux-any`, "any-linux-any"];
  const include = join(zigLibFolder(), "libc", "include");
  return [
    ...[clangTidy(), "--quiet", ...filesIn("c", ".c").filter((file) => !file.includes("darwin"))],
    ...["--", "-std=c17", "-D_GNU_SOURCE", `--target=${cpu}-linux-musl`, "-nostdlibinc"],
    ...headers.flatMap((folder) => ["-isystem", join(include, folder)]),
  ];
}

function typescriptFolders(): string[] {
  const folders = ["lib", "tool", "tests", "examples", "bench", "c", ".ci"];
  return folders.filter((folder) => readdirSync(root).includes(folder));
}

function filesIn(folder: string, ending: string): string[] {
  return readdirSync(join(root, folder))
    .filter((name) => name.endsWith(ending))
    .map((name) => join(folder, name));
}

function countC(output: string): Counts {
  return countClosingLines(output, filesIn("c/tests", "_test.c").length);
}

/** Adds up closing lines like our own: exactly one from each program. */
function countClosingLines(output: string, programs: number): Counts {
  const lines = [...output.matchAll(/^(\d+) passed, (\d+) failed$/gm)];
  const counts = {
    passed: sum(lines.map((line) => line[1])),
    failed: sum(lines.map((line) => line[2])),
  };
  if (lines.length === programs) return counts;
  return { ...counts, problem: `${programs} programs printed ${lines.length} closing lines` };
}

function countDeno(output: string): Counts {
  const last = [...output.matchAll(/^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed/gm)].at(-1);
  return last === undefined
    ? NO_CLOSING_LINE
    : { passed: Number(last[1]), failed: Number(last[2]) };
}

function countBun(output: string): Counts {
  // Closing lines come last; a test may print lines that look like them.
  const lines = [...output.matchAll(/^ *(\d+) (pass|fail)$/gm)];
  const last = (kind: string) => Number(lines.findLast((line) => line[2] === kind)?.[1] ?? 0);
  if (!/^Ran \d+ tests? across \d+ files?/m.test(output)) return NO_CLOSING_LINE;
  return { passed: last("pass"), failed: last("fail") };
}

function sum(numbers: (string | undefined)[]): number {
  return numbers.reduce((total, number) => total + Number(number), 0);
}

/** Each architecture has its own code, so the library may fit for one and not for the other. */
function librariesThatFit(): Counts {
  const sizes = ["x86_64", "aarch64"].map((arch) => {
    const { size } = statSync(join(root, "zig-out", "cross", `${arch}-linux`, "libdsmr.so"));
    return { text: `${arch}-linux/libdsmr.so has ${size} bytes`, fits: size <= 64 * 1024 };
  });
  const tooLarge = sizes.filter(({ fits }) => !fits);
  const counts = { passed: sizes.length - tooLarge.length, failed: tooLarge.length };
  if (tooLarge.length === 0) return counts;
  return {
    ...counts,
    problem: tooLarge.map(({ text }) => `${text}, 65536 are allowed`).join("; "),
  };
}

const NO_CLOSING_LINE: Counts = { passed: 0, failed: 0, problem: "its closing line is missing" };

const running = new Set<ChildProcess>();
const total: Counts = { passed: 0, failed: 0 };

/** Runs a step, prints its line, and adds its counts to the total. */
async function runStep(step: Step): Promise<void> {
  const reason = step.skip?.();
  if (reason !== undefined) return print(`skip   ${step.name.padEnd(11)} skipped: ${reason}`);
  const begun = performance.now();
  const { output, trouble } = await runCommand(step);
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);

  let counts: Counts;
  let problem = trouble;
  if (step.count === undefined) {
    counts = problem === undefined ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
  } else {
    counts = step.count(output);
    problem ??= counts.problem;
    if (counts.passed + counts.failed === 0) problem ??= "no test ran";
    // A problem that no test owns still counts.
    if (problem !== undefined && counts.failed === 0) counts = { ...counts, failed: 1 };
    if (counts.failed > 0) problem ??= "tests failed";
  }

  const details = step.count === undefined
    ? ""
    : `, ${counts.passed} passed, ${counts.failed} failed`;
  const verdict = problem === undefined ? "ok" : "FAILED";
  // Set off from the gate's own lines, above all from its last one.
  if (problem !== undefined || verbose) print(output.trimEnd().replace(/^/gm, "  | "));
  print(`${verdict.padEnd(6)} ${step.name.padEnd(11)} ${seconds.padStart(6)} s${details}`);
  if (problem !== undefined) print(`       ${step.name}: ${problem}`);
  // A test that cannot run here says so by such a line.
  const skipped = new Set([...output.matchAll(/^ *skipped: (.*)$/gm)].map((line) => line[1]));
  if (!verbose) { for (const why of skipped) print(`       skipped in ${step.name}: ${why}`); }
  total.passed += counts.passed;
  total.failed += counts.failed;
}

/** Runs a step's command to its end, in a process group of its own. Never rejects. */
function runCommand(step: Step): Promise<Ended> {
  let command: string[];
  try {
    command = step.command();
  } catch (error) {
    return Promise.resolve({ output: "", trouble: String(error) });
  }
  return new Promise((resolve) => {
    const [program = "", ...args] = command;
    const child = spawn(program, args, {
      cwd: root,
      detached: true,
      env: {
        ...zigEnv(),
        NO_COLOR: "1",
        DENO_NO_UPDATE_CHECK: "1",
        [MARK_NAME]: MARK + step.name,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    running.add(child);
    // stdout and stderr in one text as they come, which is how a person would have seen them.
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (chunk: string) => output += chunk);
    }

    let trouble: string | undefined;
    const end = () => {
      clearTimeout(limit);
      running.delete(child);
      resolve({ output: withoutZigNoise(output), trouble });
    };
    let limit = setTimeout(() => {
      trouble = `it ran for more than ${STEP_LIMIT_MS / 1000} s`;
      kill(child);
      killMarked(step.name);
    }, STEP_LIMIT_MS);
    child.on("error", (error) => {
      trouble ??= `cannot start ${program}: ${error.message}`;
      if (child.pid === undefined) end();
    });
    child.on("exit", (code, signal) => {
      if (code !== 0) trouble ??= signal === null ? `exit code ${code}` : `killed by ${signal}`;
      // A process left behind may hold the output open for ever. The last check names it.
      clearTimeout(limit);
      limit = setTimeout(() => {
        trouble ??= "something it started still holds its output";
        end();
      }, CLOSE_LIMIT_MS);
    });
    child.on("close", end);
  });
}

function kill(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch {
    // The group is already gone.
  }
}

interface Marked {
  pid: number;
  step: string;
  command: string;
}

/** The living processes that this run started, found by their environment. Linux only. */
function marked(): Marked[] {
  const found: Marked[] = [];
  for (const entry of listing("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const environment = readFileSync(`/proc/${entry}/environ`, "utf8");
      const begin = environment.indexOf(`${MARK_NAME}=${MARK}`);
      if (begin < 0) continue;
      const [step = ""] = environment.slice(begin + `${MARK_NAME}=${MARK}`.length).split("\0", 1);
      const command = readFileSync(`/proc/${entry}/cmdline`, "utf8").replaceAll("\0", " ").trim();
      found.push({ pid: Number(entry), step, command });
    } catch {
      // It ended while we looked, or it is another user's.
    }
  }
  return found;
}

function killMarked(step?: string): void {
  for (const process_ of marked()) {
    if (step !== undefined && process_.step !== step) continue;
    try {
      process.kill(process_.pid, "SIGKILL");
    } catch {
      // It ended by itself.
    }
  }
}

/** Our files in shared memory. */
function sharedFiles(): string[] {
  return listing("/dev/shm").filter((name) => name.startsWith("dsmr."));
}

function listing(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // Not on this system.
  }
}

/** One check that nothing is left. Something may be on its way out, so it looks for a while. */
async function checkLeft(name: string, look: () => string[]): Promise<void> {
  let left = look();
  for (let i = 0; i < 20 && left.length > 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    left = look();
  }
  total[left.length === 0 ? "passed" : "failed"]++;
  print(`${left.length === 0 ? "ok    " : "FAILED"} ${name}`);
  for (const line of left) print(`       left behind: ${line}`);
}

function print(line: string): void {
  if (line !== "") console.log(line);
}

function chosen(steps: Step[]): Step[] {
  const only = options.get("--only")?.split(",");
  return only === undefined ? steps : steps.filter((step) => only.includes(step.name));
}

function refuseUnknownOptions(): void {
  const names = [build, ...checks, ...cSteps, ...suites, ...oldestSuites, ...alone].map((step) =>
    step.name
  );
  const unknown = [...options.keys()]
    .filter((name) => !["--only", "--filter", "--verbose"].includes(name))
    .concat((options.get("--only") ?? names.join()).split(",").filter((n) => !names.includes(n)));
  if (unknown.length === 0) return;
  console.error(`unknown: ${unknown.join(" ")}; steps: ${names.join(" ")}`);
  process.exit(2);
}

refuseUnknownOptions();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    running.forEach(kill);
    killMarked();
    process.exit(130);
  });
}

const before = new Set(sharedFiles());

// Everything else uses what this step builds, so it comes first.
for (const step of chosen([build])) await runStep(step);

for (const steps of [checks, cSteps, suites, oldestSuites]) {
  const queue = chosen(steps);
  const worker = async () => {
    for (let step = queue.shift(); step !== undefined; step = queue.shift()) await runStep(step);
  };
  await Promise.all([worker(), worker()]);
}

for (const step of chosen(alone)) await runStep(step);

await checkLeft("no shared memory left", () => sharedFiles().filter((name) => !before.has(name)));
await checkLeft(
  "no process left",
  () => marked().map(({ pid, step, command }) => `process ${pid} of step ${step}: ${command}`),
);
killMarked();

print(`${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);
