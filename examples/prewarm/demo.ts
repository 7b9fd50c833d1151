/**
 * Two Deno and two Bun processes read blocks of files through one cache, some blocks much more often
 * than others. Then everything is stopped, the registry destroyed, and all started again: first
 * with a cold cache, then with what the list of hot blocks has brought back.
 *
 *   npx --yes deno task demo:prewarm
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Registry } from "../../lib/mod.ts";
import { BLOCKS, writeData } from "./demo_data.ts";
import { FIRST_READS, READS, type Report } from "./demo_reader.ts";
import { prewarm, type PrewarmOptions } from "./prewarm.ts";

/** A quarter of the data. */
const FRAMES = BLOCKS / 4;
const PATIENCE_MS = 120_000;

const pathOf = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const deno = [pathOf("../../node_modules/.bin/deno"), "run", "-A"];
const bun = [pathOf("../../node_modules/.bin/bun"), "run"];

const folder = mkdtempSync(join(tmpdir(), "dsmr-prewarm-"));
const listFile = join(folder, "hot_blocks");
const options: PrewarmOptions = { listFile, frames: FRAMES, saveEvery: 0 };
const warm = prewarm(options);
const name = `prewarm-${process.pid}`;
let registry: Registry | undefined;
const children: ChildProcess[] = [];
/** The processes of the savers. */
const savers: number[] = [];

// ---- the processes that read -------------------------------------------------------------

class Reader {
  readonly runtime: string;
  readonly #child: ChildProcess;
  readonly #reports: AsyncIterator<string>;
  readonly #ended: Promise<void>;

  constructor(runtime: string, [program = "", ...args]: string[], seed: number) {
    this.runtime = runtime;
    const script = pathOf("demo_reader.ts");
    const child = this.#child = spawn(
      program,
      [...args, script, name, JSON.stringify(options), folder, `${seed}`],
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    children.push(child);
    this.#reports = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    this.#ended = new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => {
        if (code === 0) resolve();
        else reject(new Error(`A ${runtime} reader ended with ${signal ?? `exit code ${code}`}.`));
      });
    });
    // Also told by whoever waits for a report, or for the end.
    this.#ended.catch(() => {});
  }

  /** The next report. */
  async next(): Promise<Report> {
    const { value, done } = await this.#reports.next();
    if (done !== true) return JSON.parse(value) as Report;
    await this.#ended;
    throw new Error(`A ${this.runtime} reader ended without a word.`);
  }

  go(): void {
    this.#child.stdin?.write("go\n");
  }

  async end(): Promise<void> {
    this.#child.stdin?.end();
    await this.#ended;
  }
}

// ---- a round: everything started, and stopped ----------------------------------------------

interface Row {
  runtime: string;
  hits: number;
  firstHits: number;
}

/** Starts all, has it read, and stops all. */
async function round(firstSeed: number): Promise<{ rows: Row[]; loaded: number; saved: number }> {
  registry = Registry.openSync(name, { mode: "create", addins: [warm], supervise: true });
  const mine = registry.addin(warm);
  if (mine.saver === undefined) throw new Error("The saver was not registered.");
  // The list is loaded, if there is one. Reading could begin before that.
  const pid = await mine.saver.waitForReady();
  if (pid !== null) savers.push(pid);
  const { loaded, problem } = mine.status;
  if (problem !== undefined) throw new Error(problem);

  const readers = [["Deno", deno], ["Deno", deno], ["Bun", bun], ["Bun", bun]] as const;
  const rows: Row[] = [];
  const all = readers.map(([runtime, command], i) =>
    new Reader(runtime, [...command], firstSeed + i)
  );
  // All are there before one begins.
  await Promise.all(all.map((reader) => reader.next()));
  for (const reader of all) reader.go();
  for (const reader of all) {
    const report = await reader.next();
    if (report.kind !== "done") throw new Error(`A reader said ${report.kind}.`);
    rows.push({ runtime: reader.runtime, ...report });
  }
  await Promise.all(all.map((reader) => reader.end()));

  // The saver saves once more, and ends.
  mine.saver.terminate();
  const { exitCode, reason } = await mine.saver.waitForShutdown();
  if (exitCode !== 0) throw new Error(`The saver ended with ${exitCode}: ${reason}`);
  const { saved } = mine.status;
  registry.close();
  Registry.destroy(name, { dir: registry.dir });
  return { rows, loaded, saved };
}

// ---- what comes of it ----------------------------------------------------------------------

const percent = (part: number, whole: number): string => `${(100 * part / whole).toFixed(1)} %`;
const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0);
const grouped = (count: number): string => count.toLocaleString("en-US");

function table(cold: Row[], warmed: Row[]): string {
  const cells = (rows: Row[]): string[] => [
    percent(sum(rows.map(({ firstHits }) => firstHits)), rows.length * FIRST_READS),
    percent(sum(rows.map(({ hits }) => hits)), rows.length * READS),
  ];
  const line = (name: string, cells: string[]): string =>
    "  " + name.padEnd(10) + cells.map((cell) => cell.padStart(15)).join("");
  const first = `first ${FIRST_READS}`;
  const both = (which: (row: Row, i: number) => boolean): string[] => [
    ...cells(cold.filter(which)),
    ...cells(warmed.filter(which)),
  ];
  return [
    line("", ["cold", "", "prewarmed", ""]),
    line("hit rate", [first, `all ${grouped(READS)}`, first, `all ${grouped(READS)}`]),
    ...cold.map(({ runtime }, at) => line(runtime, both((_, i) => i === at))),
    line("together", both(() => true)),
  ].join("\n");
}

async function main(): Promise<boolean> {
  writeData(folder);
  console.log(`${grouped(BLOCKS)} blocks of 8 KiB in ${folder},`);
  console.log(`a cache with room for ${grouped(FRAMES)} of them, in registry ${name}.\n`);
  const cold = await round(1);
  console.log(
    `Stopped; the saver has saved a list of ${grouped(cold.saved)} blocks, ` +
      `${grouped(statSync(listFile).size)} bytes.`,
  );
  const again = await round(101);
  console.log(`Started again; the saver has loaded ${grouped(again.loaded)} of them.\n`);
  console.log(table(cold.rows, again.rows));
  const hits = (rows: Row[]): number => sum(rows.map(({ firstHits }) => firstHits));
  const isWarm = again.loaded === cold.saved && hits(again.rows) > hits(cold.rows);
  if (!isWarm) console.error("\nprewarm: the list has not made the cache warm");
  return await leaveNothing() && isWarm;
}

// ---- the end -------------------------------------------------------------------------------

/** Removes everything, and looks whether it is gone. */
async function leaveNothing(): Promise<boolean> {
  clean();
  // They have said that they end; the system takes a moment.
  for (const pid of savers) while (isRunning(pid)) await sleep(5);
  const left = [
    ...children.filter(({ exitCode }) => exitCode === null).map(({ pid }) => `process ${pid}`),
    ...(existsSync(folder) ? [folder] : []),
    ...[...Registry.list()].filter((info) => info.name === name).map(() => `registry ${name}`),
  ];
  const isNothing = left.length === 0;
  console.log(
    `\nLeft behind: ${isNothing ? "no process, no file, no registry" : left.join(", ")}.`,
  );
  return isNothing;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/**
 * Nothing stays behind, however this process ends. Only its own kill -9 leaves the files, the
 * registry and the saver, which waits to be adopted, until Registry.destroy ends both of these.
 */
function clean(): void {
  for (const child of children) child.kill("SIGKILL");
  registry?.close();
  Registry.destroy(name);
  rmSync(folder, { recursive: true, force: true });
}
process.on("exit", clean);
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
// The reader of a pipe has left.
process.stdout.on("error", () => process.exit(1));
const patience = setTimeout(() => {
  console.error(`prewarm: not done after ${PATIENCE_MS / 1000} s`);
  process.exit(1);
}, PATIENCE_MS);

let isWell = false;
try {
  isWell = await main();
} catch (error) {
  console.error(`prewarm: ${error instanceof Error ? error.message : error}`);
}
clearTimeout(patience);
// What was written before is out when this is.
process.stdout.write("", () => process.exit(isWell ? 0 : 1));
