/**
 * Checks the models of the protocols with SPIN: every state of each, and that each mutation is
 * caught.
 *
 *   deno run -A c/tests/models/run.ts                  everything, two at a time
 *   deno run -A c/tests/models/run.ts --small          every mutation, and the smaller bounds
 *   deno run -A c/tests/models/run.ts --only=M_NO      checks whose line contains "M_NO"
 *
 * Needs `spin` (6.5) and a C compiler: $CC, cc, gcc, clang, or the repository's Zig. Without them
 * it says so and exits with 77. The last line on stdout is `N passed, N failed`.
 *
 * Exhaustive means that: no bitstate hashing, no hash compaction, no partial-order reduction, no
 * search that was cut short. Each check's bounds are in its defines; the models explain them.
 *
 * @module
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "..", "..", "..");

/** What a check is to find: nothing, or how SPIN words the error. */
const CLEAN = "";
const WRONG = "assertion violated";
const STUCK = "invalid end state";
const ENDLESS = "non-progress cycle";

interface Check {
  model: string;
  defines: string;
  mutation?: string;
  expected: string;
  /** Takes too long for the gate. */
  isLarge?: boolean;
  /** Looks for cycles, too: with time-outs when nothing else can happen, there must be none. */
  cycles?: boolean;
}

/** A bounded run of a model as it is. */
function real(model: string, defines: string, cycles = false): Check {
  return { model, defines, expected: CLEAN, cycles };
}

/** The same, with bounds that only `deno task models` has the time for. */
function large(model: string, defines: string, cycles = false): Check {
  return { ...real(model, defines, cycles), isLarge: true };
}

function mutant(
  mutation: string,
  expected: string,
  model: string,
  defines: string,
  cycles = false,
): Check {
  return { model, defines, mutation, expected, cycles };
}

const ONE_DIES = "KILLS=1 TIMEOUTS=1";
const NOBODY_DIES = "KILLS=0 TIMEOUTS=0";
const STARVING = "KILLS=0 TIMEOUTS=0 STARVE=1";

/** The longest first. */
const checks: Check[] = [
  // Nobody dies, nobody times out: no wake-up is lost.
  large("lwlock", `${STARVING} CANCELS=1`),
  large("lwlock", `${STARVING} CANCELS=0 CHANCE=1`),
  real("lwlock", "KILLS=1 TENANTS=0 TIMEOUTS=1 STARVE=1 CANCELS=0 CHANCE=1"),
  large("lwlock", `${STARVING} CANCELS=0 ROUNDS=2 EXCLUSIVE_ONLY=1`),
  // Deaths, also of reapers and inside the table lock, and slots that get a next tenant.
  large("init_once", "KILLS=2 TENANTS=1 TIMEOUTS=1"),
  large("lwlock", "KILLS=2 TENANTS=1 TIMEOUTS=1 CANCELS=0"),
  large("lwlock", "KILLS=1 TENANTS=1 TIMEOUTS=1 STARVE=1 CANCELS=0 EXCLUSIVE_ONLY=1"),
  large("lwlock", "KILLS=2 TENANTS=0 TIMEOUTS=1 STARVE=1 CANCELS=0"),
  // One dies, and nobody is there to help but those that wait: all get in.
  large("lwlock", "KILLS=1 TENANTS=0 TIMEOUTS=2 STARVE=1 CANCELS=0 EXCLUSIVE_ONLY=1", true),
  real("lwlock", "KILLS=1 TENANTS=0 TIMEOUTS=2 CANCELS=0", true),
  real("lwlock", `${ONE_DIES} CANCELS=1`),
  real("lwlock", `${NOBODY_DIES} CANCELS=1`),
  real("init_once", ONE_DIES),
  real("init_once", NOBODY_DIES),
  real("table_lock", "ROUNDS=3"),

  // Readers that come in by their marks.
  large("lwlock", "BIAS=1 KILLS=2 TENANTS=1 TIMEOUTS=1 CANCELS=1"),
  large("lwlock", "BIAS=1 KILLS=1 TENANTS=0 TIMEOUTS=1 STARVE=1 CANCELS=0"),
  large("lwlock", "BIAS=1 KILLS=0 TIMEOUTS=0 CANCELS=1 ROUNDS=2"),
  large("lwlock", "BIAS=1 KILLS=1 TENANTS=0 TIMEOUTS=2 CANCELS=0", true),
  real("lwlock", "BIAS=1 KILLS=1 TIMEOUTS=1 CANCELS=1"),
  real("lwlock", "BIAS=1 KILLS=0 TIMEOUTS=0 CANCELS=1"),
  mutant("M_BIAS_FIRST", WRONG, "lwlock", "BIAS=1 KILLS=1 TIMEOUTS=1"),
  mutant("M_BIAS_REAPED", WRONG, "lwlock", "BIAS=1 KILLS=1 TIMEOUTS=1"),
  mutant("M_BIAS_GIVEN_UP", WRONG, "lwlock", "BIAS=1 KILLS=0 TIMEOUTS=1 CANCELS=1 ROUNDS=2"),
  mutant("M_MARK_AFTER_LOOK", WRONG, "lwlock", "BIAS=1 KILLS=0 TIMEOUTS=1"),
  mutant("M_UNMARK_SILENTLY", STUCK, "lwlock", "BIAS=1 KILLS=0 TIMEOUTS=0"),

  // A reader's store passes its load: either half of Dekker.
  mutant("M_NO_FENCE", WRONG, "lwlock", "KILLS=0 TIMEOUTS=1"),
  mutant("M_NO_FENCE_DRAIN", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_REAP_WITHOUT_TABLE_LOCK", WRONG, "lwlock", ONE_DIES),
  mutant("M_NO_JOURNAL_FIRST", WRONG, "lwlock", ONE_DIES),
  mutant("M_PHASE_BEFORE_DRAIN", WRONG, "lwlock", ONE_DIES),
  mutant("M_PHASE_AFTER_OWNER", WRONG, "lwlock", ONE_DIES),
  mutant("M_NOW_ABANDON_PHASE_FIRST", WRONG, "lwlock", ONE_DIES),
  mutant("M_NO_WAITERS_KEPT", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_NO_WAITERS_FLAG", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_NO_PASS_ON", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_RELEASE_WITHOUT_WAKE", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_NO_DRAIN_FLAG", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_NO_LOOK_BEFORE_SLEEP", STUCK, "lwlock", NOBODY_DIES),
  mutant("M_NO_RECHECK", STUCK, "lwlock", NOBODY_DIES),
  mutant(
    "M_NO_LOOK_FOR_THE_DEAD",
    ENDLESS,
    "lwlock",
    "KILLS=1 TENANTS=0 TIMEOUTS=2 CANCELS=0",
    true,
  ),
  mutant("M_NOW_SLEEP_ON_NAME", STUCK, "lwlock", `${STARVING} CANCELS=0`),
  mutant("M_NOW_CLEAR_FLAG", STUCK, "lwlock", `${STARVING} CANCELS=0 ROUNDS=2 EXCLUSIVE_ONLY=1`),
  mutant(
    "M_REAP_NAME_FIRST",
    WRONG,
    "lwlock",
    "KILLS=2 TENANTS=0 TIMEOUTS=1 STARVE=1 CANCELS=0",
  ),

  mutant("M_REAP_WITHOUT_TABLE_LOCK", WRONG, "init_once", "KILLS=2 TENANTS=1 TIMEOUTS=1"),
  mutant("M_COMMIT_BEFORE_FILL", WRONG, "init_once", "KILLS=0 TIMEOUTS=1"),
  mutant("M_WORD_FIRST", WRONG, "init_once", ONE_DIES),
  mutant("M_ID_TWICE", WRONG, "init_once", ONE_DIES),
  mutant("M_NO_SWEEP", WRONG, "init_once", ONE_DIES),
  mutant("M_NOW_DETACH_FIRST", WRONG, "init_once", ONE_DIES),
  mutant("M_NO_RECHECK", STUCK, "init_once", NOBODY_DIES),
  mutant("M_NO_WAKE_AFTER_COMMIT", STUCK, "init_once", NOBODY_DIES),
  mutant("M_NO_WAKE_AFTER_ABORT", STUCK, "init_once", NOBODY_DIES),

  mutant("M_NO_RECHECK", STUCK, "table_lock", "ROUNDS=3"),
  mutant("M_SLEEP_WITHOUT_TRYING", STUCK, "table_lock", "ROUNDS=3"),
  mutant("M_CLEAR_WHEN_LOCKED", STUCK, "table_lock", "ROUNDS=3"),
  mutant("M_CLEAR_BEFORE_RELEASE", STUCK, "table_lock", "ROUNDS=3"),
];

const MISSING_TOOL = 77;
const STEP_LIMIT_MS = 5 * 60 * 1000;

/** What one check may need; two run at once. */
const MEMORY_LIMIT_MB = 1500;

const running = new Set<ChildProcess>();
let passed = 0;
let failed = 0;

/** The output of a program, both streams, and its exit code. Never rejects. */
function run(folder: string, command: string[]): Promise<{ output: string; code: number }> {
  return new Promise((resolve) => {
    const [program = "", ...args] = command;
    const child = spawn(program, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    running.add(child);
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8");
      stream.on("data", (chunk: string) => output += chunk);
    }
    const limit = setTimeout(() => child.kill("SIGKILL"), STEP_LIMIT_MS);
    const end = (code: number) => {
      clearTimeout(limit);
      running.delete(child);
      resolve({ output, code });
    };
    child.on("error", (error) => {
      output += String(error);
      end(-1);
    });
    child.on("close", (code) => end(code ?? -1));
  });
}

function works(command: string[]): boolean {
  const [program = "", ...args] = command;
  return spawnSync(program, args, { stdio: "ignore" }).status === 0;
}

function findCompiler(): string[] | undefined {
  const candidates = [["cc"], ["gcc"], ["clang"]];
  const named = process.env["CC"];
  if (named !== undefined && named !== "") candidates.unshift(named.split(" "));
  const tools = join(root, ".tools");
  for (const name of existsSync(tools) ? readdirSync(tools) : []) {
    if (name.startsWith("ziglang-")) candidates.push([join(tools, name, "ziglang", "zig"), "cc"]);
  }
  return candidates.find((command) => works([...command, "--version"]));
}

/** The verdict on one check: what there is to say about it, or throws an Error. */
async function verdict(check: Check, folder: string, compiler: string[]): Promise<string> {
  const defines = check.defines.split(" ").map((define) => `-D${define}`);
  if (check.mutation !== undefined) defines.push(`-D${check.mutation}`);
  const model = join(here, `${check.model}.pml`);

  // SPIN runs its preprocessor through a shell, and knows only gcc by itself.
  const preprocessor = `-P${compiler.join(" ")} -E -x c`;
  const made = await run(folder, ["spin", preprocessor, ...defines, "-a", model]);
  if (made.code !== 0 || !existsSync(join(folder, "pan.c"))) throw new Error(made.output);

  // No reduction: the kill of a process depends on every other process's steps.
  const search = [
    check.cycles === true ? "-DNP" : "-DSAFETY",
    "-DNOREDUCE",
    `-DMEMLIM=${MEMORY_LIMIT_MB}`,
  ];
  const effort = check.expected === CLEAN ? "-O2" : "-O0";
  const flags = [effort, "-w", ...search, "-o", "pan", "pan.c"];
  const built = await run(folder, [...compiler, ...flags]);
  if (built.code !== 0) throw new Error(built.output);

  const table = check.expected === CLEAN ? "-w23" : "-w20";
  const options = [...(check.cycles === true ? ["-l"] : []), "-m200000", table];
  const { output } = await run(folder, [join(folder, "pan"), ...options]);
  if (check.expected === CLEAN) {
    const states = /(\d+) states, stored/.exec(output)?.[1];
    const isWhole = /errors: 0$/m.test(output) && states !== undefined &&
      !/too small|not completed|out of memory|truncated|limit reached/i.test(output);
    if (!isWhole) throw new Error(await trail(check, folder, preprocessor, defines, output));
    return `${Number(states).toLocaleString("en-US")} states, exhaustive`;
  }
  const [, what = "", depth = ""] = /^pan:1: (.*) \(at depth (\d+)\)/m.exec(output) ?? [];
  if (what === "") throw new Error(`not caught:\n${output}`);
  if (!what.startsWith(check.expected)) {
    throw new Error(`caught by something else than "${check.expected}": ${what}`);
  }
  return `caught after ${depth} steps: ${check.expected}`;
}

/** The way to an error that should not be there. */
async function trail(
  check: Check,
  folder: string,
  preprocessor: string,
  defines: string[],
  output: string,
): Promise<string> {
  const file = readdirSync(folder).find((name) => name.endsWith(".trail"));
  const model = join(here, `${check.model}.pml`);
  const name = file === undefined ? [] : ["-k", join(folder, file)];
  const replay = ["spin", preprocessor, ...defines, ...name, "-p", "-g", model];
  const { output: steps } = await run(folder, replay);
  return `${output}\n${steps.split("\n").slice(-150).join("\n")}`;
}

async function runCheck(check: Check, folder: string, compiler: string[]): Promise<void> {
  mkdirSync(folder);
  const begun = performance.now();
  const name = [check.model, check.mutation].filter((part) => part !== undefined).join(" ");
  let line: string;
  try {
    line = `ok     ${name}: ${await verdict(check, folder, compiler)}`;
    passed++;
  } catch (error) {
    line = `FAILED ${name}: ${error instanceof Error ? error.message : String(error)}`;
    failed++;
  }
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(`${line} [${check.defines}] ${seconds} s`);
  rmSync(folder, { recursive: true, force: true });
}

const compiler = findCompiler();
const missing = [];
if (!works(["spin", "-V"])) missing.push("spin (Debian and Ubuntu: apt-get install spin)");
if (compiler === undefined) missing.push("a C compiler (gcc, clang, or Zig by `deno task setup`)");
if (missing.length > 0 || compiler === undefined) {
  console.error(`The models are not checked. Missing: ${missing.join("; ")}.`);
  process.exit(MISSING_TOOL);
}

const only = process.argv.slice(2).find((argument) => argument.startsWith("--only="))?.slice(7);
const isSmall = process.argv.includes("--small");
const queue = checks
  .filter((check) => {
    if (isSmall && check.isLarge === true) return false;
    const text = `${check.model} ${check.mutation ?? ""} ${check.defines}`;
    return only === undefined || text.includes(only);
  })
  .entries();

const temporary = mkdtempSync(join(tmpdir(), "dsmr-models-"));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    for (const child of running) child.kill("SIGKILL");
    rmSync(temporary, { recursive: true, force: true });
    process.exit(130);
  });
}
try {
  const worker = async () => {
    for (const [index, check] of queue) {
      await runCheck(check, join(temporary, String(index)), compiler);
    }
  };
  await Promise.all([worker(), worker()]);
} finally {
  rmSync(temporary, { recursive: true, force: true });
}
if (passed + failed === 0) console.log("no check has that in its line");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
