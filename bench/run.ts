/**
 * The benchmark: `deno task bench`. Builds, measures part by part, prints tables as it goes, and
 * writes bench/results/latest.md, latest.json and charts.
 *
 * Everything that it makes while it measures is in one folder in shared memory, and every process
 * that it starts is in a group of its own: whatever happens, both go.
 *
 * @module
 */

import {
  accessSync,
  constants as modes,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { deno, zig, zigEnv } from "../.ci/toolchain.ts";
import { describeMachine } from "./machine.ts";
import { type Options, parseOptions, USAGE, UsageError } from "./options.ts";
import { allEnded, endAll, run, stopAll } from "./partner.ts";
import { installPeers } from "./peers/install.ts";
import { peers, shmObject } from "./peers/peers.ts";
import { BEGIN, END, withBlock } from "./report/readme.ts";
import {
  filesOf,
  replaceFile,
  type Report,
  type TimedSection,
  writeReport,
} from "./report/report.ts";
import { columns } from "./report/table.ts";
import { contention } from "./scaling/contention.ts";
import { growth } from "./scaling/growth.ts";
import { memory } from "./scaling/memory.ts";
import { reading } from "./scaling/reading.ts";
import type { Part, Setting } from "./setting.ts";
import { async } from "./subjects/async.ts";
import { death } from "./subjects/death.ts";
import { locks } from "./subjects/locks.ts";
import { ping } from "./subjects/ping.ts";
import { segments } from "./subjects/segments.ts";
import { struct } from "./subjects/struct.ts";
import { allVerdicts } from "./targets.ts";
import { processes } from "./whole_process/processes.ts";

/** In the order in which they are measured and shown. */
const parts: readonly Part[] = [
  ...[locks, contention, reading, peers, segments, growth, memory],
  ...[processes, death, ping, async, struct],
];

function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

async function build(): Promise<void> {
  progress("building");
  await run(zig(), ["build", "bench"], zigEnv() as NodeJS.ProcessEnv);
}

function print({ title, tables, absent }: TimedSection): void {
  console.log(`\n== ${title} ==`);
  for (const { title, rows, note } of tables) {
    console.log(`\n${title}\n\n${columns(rows).join("\n")}`);
    if (note !== undefined) console.log(`\n${note}`);
  }
  for (const line of absent) console.log(`\nNot measured: ${line}`);
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** Measures all parts that were asked for; returns also what has failed. */
async function measure(
  setting: Omit<Setting, "dir">,
): Promise<{ sections: TimedSection[]; failed: string[] }> {
  const { only } = setting.options;
  const sections: TimedSection[] = [];
  const failed: string[] = [];
  for (const part of parts) {
    if (only.length > 0 && !only.includes(part.name)) continue;
    progress(`${part.name}: ${part.title}`);
    const begun = performance.now();
    const own = join(dir, part.name);
    mkdirSync(own);
    try {
      const section = await part.measure({ ...setting, dir: own });
      const seconds = (performance.now() - begun) / 1000;
      progress(`${part.name}: ${seconds.toFixed(1)} s`);
      sections.push({ part: part.name, seconds, ...section });
      print({ part: part.name, seconds, ...section });
    } catch (error) {
      if (stoppedBy !== undefined) throw error;
      // The others are worth having, after minutes of work.
      progress(`${part.name}: FAILED: ${messageOf(error)}`);
      failed.push(`part ${part.name}: it failed: ${messageOf(error).split("\n")[0]}`);
      await endAll();
    }
    rmSync(own, { recursive: true, force: true });
  }
  return { sections, failed };
}

/** The texts as the tests want what is committed: formatted, charts, too. */
async function formatted(files: ReadonlyMap<string, string>): Promise<Map<string, string>> {
  const folder = join(dir, "report");
  mkdirSync(folder);
  for (const [name, text] of files) writeFileSync(join(folder, name), text);
  await run(deno, ["fmt", "--quiet", "--no-config", "--line-width=100", folder]);
  return new Map(
    [...files.keys()].map((name) => [name, readFileSync(join(folder, name), "utf8")]),
  );
}

/** Writes the results, when all of them are ready: an interrupted run changes nothing. */
async function publish(report: Report): Promise<void> {
  const { out, readme } = options;
  const { text, why } = readme === undefined ? {} : withBlock(readme, report, out);
  const files = filesOf(report);
  if (text !== undefined) files.set("README.md", text);
  const results = await formatted(files);
  const newReadme = results.get("README.md");
  results.delete("README.md");
  writeReport(results, out);
  progress(`${join(out, "latest.md")} and ${results.size - 1} more are written`);
  if (why !== undefined) progress(`the README is as it was: ${why}`);
  if (readme === undefined || newReadme === undefined) return;
  replaceFile(readme, newReadme);
  progress(`${readme} is rewritten between ${BEGIN} and ${END}`);
}

async function bench(options: Options, words: string[]): Promise<void> {
  const begun = performance.now();
  const machine = await describeMachine();
  for (const note of machine.notes) progress(note);
  const absentPeers = await installPeers(options, progress);
  await build();
  const { sections, failed } = await measure({
    options,
    cores: machine.cores,
    pick: (full, quick) => options.isQuick ? quick : full,
    progress,
  });
  const notes = [...machine.notes, ...machine.stolen()];
  if (options.isQuick) {
    notes.push("A quick run: few rounds, which show that everything works and not how fast.");
  }
  const verdicts = sections.flatMap(({ targets }) => targets);
  const report: Report = {
    command: ["deno task bench", ...words].join(" "),
    ...{ date: machine.date, commit: machine.commit, isQuick: options.isQuick },
    seconds: (performance.now() - begun) / 1000,
    ...{ machine: machine.lines, notes, sections },
    targets: options.only.length === 0 ? allVerdicts(verdicts) : verdicts,
    absent: [...new Set([...failed, ...absentPeers, ...sections.flatMap(({ absent }) => absent)])],
  };
  console.log("\n== Targets ==\n");
  console.log(
    columns([
      ["", "target", "Deno", "Bun", "C", ""],
      ...report.targets.map(({ what, limit, measured, outcome }) => [
        ...[what, limit, measured.Deno ?? "", measured.Bun ?? "", measured.C ?? ""],
        outcome === "missed" ? "MISSED" : outcome,
      ]),
    ]).join("\n"),
  );
  for (const line of machine.lines) console.log(`\n${line}`);
  for (const line of report.absent) progress(`absent: ${line}`);

  if (sections.length === 0) throw new Error("nothing was measured");
  await publish(report);
  if (failed.length > 0) process.exitCode = 1;
  progress(`all of it took ${report.seconds.toFixed(0)} s`);
}

function readOptions(words: string[]): Options {
  try {
    const options = parseOptions(words, parts.map(({ name }) => name));
    accessSync(options.shm, modes.W_OK);
    return options;
  } catch (error) {
    progress(
      error instanceof UsageError
        ? error.message
        : `The folder of the run cannot be made: ${(error as Error).message}`,
    );
    process.exit(2);
  }
}

if (process.platform !== "linux") {
  progress("the floors and peers are those of Linux: nothing is measured on other systems.");
  process.exit(1);
}
const words = process.argv.slice(2).filter((word) => word !== "--");
if (words.includes("--help")) {
  console.log(`${USAGE}\nParts: ${parts.map(({ name }) => name).join(", ")}.`);
  process.exit(0);
}
const options = readOptions(words);
const dir = mkdtempSync(join(options.shm, "dsmr-bench-"));
let stoppedBy: keyof typeof constants.signals | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => {
    if (stoppedBy === undefined) progress(`${signal}: stopping; the last results stay as they are`);
    stoppedBy = signal;
    stopAll();
  });
}
try {
  await bench(options, words);
} catch (error) {
  if (stoppedBy === undefined) progress(messageOf(error));
  process.exitCode = 1;
} finally {
  stopAll();
  await allEnded();
  rmSync(dir, { recursive: true, force: true });
  rmSync(join("/dev/shm", shmObject(dir)), { force: true });
}
if (stoppedBy !== undefined) process.exitCode = 128 + constants.signals[stoppedBy];
process.exit();
