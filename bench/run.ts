/**
 * The benchmark: `deno task bench`. Builds, measures part by part, prints tables as it goes, and
 * writes bench/results/latest.md, latest.json and charts.
 *
 * Everything that it makes while it measures is in one folder in shared memory, and every process
 * that it starts is in a group of its own: whatever happens, both go.
 *
 * @module
 */

import { accessSync, constants as modes, mkdtempSync, rmSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { deno, zig, zigEnv } from "../.ci/toolchain.ts";
import { describeMachine } from "./machine.ts";
import { type Options, parseOptions, UsageError } from "./options.ts";
import { allEnded, run, stopAll } from "./partner.ts";
import { installPeers } from "./peers/install.ts";
import { peers, shmObject } from "./peers/peers.ts";
import { rewriteReadme } from "./report/readme.ts";
import { type Report, type TimedSection, writeReport } from "./report/report.ts";
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

/** Measures all parts that were asked for. */
async function measure(setting: Setting): Promise<TimedSection[]> {
  const { only } = setting.options;
  const sections: TimedSection[] = [];
  for (const part of parts) {
    if (only.length > 0 && !only.includes(part.name)) continue;
    progress(`${part.name}: ${part.title}`);
    const begun = performance.now();
    const section = await part.measure(setting);
    const seconds = (performance.now() - begun) / 1000;
    progress(`${part.name}: ${seconds.toFixed(1)} s`);
    sections.push({ part: part.name, seconds, ...section });
    print({ part: part.name, seconds, ...section });
  }
  return sections;
}

async function bench(options: Options, words: string[]): Promise<void> {
  const begun = performance.now();
  const machine = await describeMachine();
  for (const note of machine.notes) progress(note);
  const absentPeers = await installPeers(options, progress);
  await build();
  const setting: Setting = {
    dir,
    options,
    cores: machine.cores,
    pick: (full, quick) => options.isQuick ? quick : full,
    progress,
  };
  const sections = await measure(setting);
  const notes = [...machine.notes];
  if (options.isQuick) {
    notes.push("A quick run: few rounds, which show that everything works and not how fast.");
  }
  const report: Report = {
    command: ["deno task bench", ...words].join(" "),
    ...{ date: machine.date, commit: machine.commit, isQuick: options.isQuick },
    seconds: (performance.now() - begun) / 1000,
    ...{ machine: machine.lines, notes, sections },
    targets: allVerdicts(sections.flatMap(({ targets }) => targets)),
    absent: [...new Set([...absentPeers, ...sections.flatMap(({ absent }) => absent)])],
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

  const written = writeReport(report, options.out);
  const texts = written.filter((path) => !path.endsWith(".svg"));
  if (options.readme !== undefined) {
    const trouble = rewriteReadme(options.readme, report, options.out);
    if (trouble === undefined) texts.push(options.readme);
    else progress(`the README is as it was: ${trouble}`);
  }
  // They are committed, and the tests check how what is committed is formatted.
  await run(deno, ["fmt", "--quiet", "--line-width", "100", ...texts]);
  progress(`${join(options.out, "latest.md")} and ${written.length - 1} other files are written`);
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
  if (stoppedBy === undefined) progress(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
} finally {
  stopAll();
  await allEnded();
  rmSync(dir, { recursive: true, force: true });
  rmSync(join("/dev/shm", shmObject(dir)), { force: true });
}
if (stoppedBy !== undefined) process.exitCode = 128 + constants.signals[stoppedBy];
process.exit();
