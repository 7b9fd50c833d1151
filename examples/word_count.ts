/**
 * Four processes, two of Deno and two of Bun, count the words of one text together in one
 * named segment. Half-way one of them is killed with `kill -9`, and the others take over what
 * it was at. The result is compared with the count of a single process, and with what a C
 * program reads from the same registry.
 *
 *   npx --yes deno task demo
 *
 * @module
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Registry } from "../lib/mod.ts";
import { SEGMENT_NAME, WordSegment } from "./word_count_layout.ts";
import type { Report } from "./word_count_worker.ts";
import { countWords, grouped, readText, tableOf } from "./words.ts";

const TABLE_ROWS = 10; // word_table.c has the same
const PATIENCE_MS = 60_000;

const pathOf = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const deno = pathOf("../node_modules/.bin/deno");
const bun = pathOf("../node_modules/.bin/bun");
const wordTable = pathOf("../zig-out/bin/word_table");

/** A process that counts, and what it has reported. */
interface Worker {
  runtime: string;
  child: ChildProcess;
  pid: number;
  backendId: number;
  found: boolean | undefined;
  isKilled: boolean;
}

const workers: Worker[] = [];

// ---- output ----------------------------------------------------------------------------

const isTerminal = process.stdout.isTTY === true && process.env["TERM"] !== "dumb";
const hasColor = isTerminal && !process.env["NO_COLOR"];
const paint = (code: number, text: string): string =>
  hasColor ? `\x1b[${code}m${text}\x1b[0m` : text;
const bold = (text: string): string => paint(1, text);
const red = (text: string): string => paint(31, text);
const green = (text: string): string => paint(32, text);

const percent = (part: number, whole: number): string =>
  `${(whole === 0 ? 100 : (100 * part) / whole).toFixed(1)} %`;

/** What stands in the terminal's last line and is to be overwritten. */
let progress = "";
let quartersShown = 0;

function say(line = ""): void {
  process.stdout.write(progress === "" ? `${line}\n` : `\r\x1b[K${line}\n`);
  progress = "";
}

/** One line that changes on a terminal; else a line for each quarter. */
function showProgress(done: number, size: number): void {
  const text = `${percent(done, size).padStart(9)}  ${grouped(done)} of ${grouped(size)} bytes`;
  const quarters = Math.floor((4 * done) / size);
  if (isTerminal) {
    const filled = Math.floor((24 * done) / size);
    const line = `  ${"█".repeat(filled)}${"░".repeat(24 - filled)}${text}`;
    if (line !== progress) process.stdout.write(`\r\x1b[K${line}`);
    progress = line;
  } else if (quarters > quartersShown) {
    say(text);
  }
  quartersShown = quarters;
}

/** Leaves the progress line where it is. */
function endProgress(): void {
  if (progress !== "") process.stdout.write("\n");
  progress = "";
}

// ---- the processes -----------------------------------------------------------------------

/** Starts a process. `onReport` gets its reports; the promise fulfils when it has ended. */
function start(
  runtime: string,
  command: string[],
  onReport: (worker: Worker, report: Report) => void,
): Promise<void> {
  const [program = "", ...rest] = command;
  const child = spawn(program, rest, { stdio: ["pipe", "pipe", "inherit"] });
  const worker: Worker = {
    runtime,
    child,
    pid: 0,
    backendId: 0,
    found: undefined,
    isKilled: false,
  };
  workers.push(worker);
  // It may be killed while a line is on its way to it.
  child.stdin.on("error", () => {});
  createInterface({ input: child.stdout }).on("line", (line) => onReport(worker, JSON.parse(line)));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0 || worker.isKilled) resolve();
      else {reject(
          new Error(`${runtime} process ${child.pid} ended by ${signal ?? `exit ${code}`}`),
        );}
    });
  });
}

/** Starts all, lets them count, kills one half-way. Returns the segment when all is counted. */
async function countTogether(registry: Registry): Promise<WordSegment> {
  const script = pathOf("word_count_worker.ts");
  let words: WordSegment | undefined;
  const failure = Promise.withResolvers<never>();

  function handle(worker: Worker, report: Report): void {
    switch (report.kind) {
      case "ready":
        worker.pid = report.pid;
        worker.backendId = report.backendId;
        // All go at once, so that all want to initialise.
        if (workers.every(({ pid }) => pid !== 0)) {
          for (const { child } of workers) child.stdin?.write("go\n");
        }
        break;
      case "attached": {
        worker.found = report.found;
        const segment = registry.lookupSegment(SEGMENT_NAME);
        if (segment === null) throw new Error("the segment that a worker has is not there");
        words ??= new WordSegment(segment.buffer);
        break;
      }
      case "half-way":
        // It has claimed this chunk and waits for a line. It does not get one.
        worker.isKilled = true;
        process.kill(worker.pid, "SIGKILL");
        say(
          red(`  half-way: kill -9 ${worker.pid} (${worker.runtime}), which has claimed a chunk`),
        );
        break;
      case "counted":
        if (words !== undefined) showProgress(words.doneBytes, words.textSize);
        break;
    }
  }

  const guarded = (worker: Worker, report: Report): void => {
    try {
      handle(worker, report);
    } catch (error) {
      failure.reject(error);
    }
  };
  const late = () => failure.reject(new Error(`not done after ${PATIENCE_MS / 1000} s`));
  const patience = setTimeout(late, PATIENCE_MS);
  const args = [script, registry.name, registry.dir];
  const ends = [
    start("Deno", [deno, "run", "-A", ...args], guarded),
    start("Deno", [deno, "run", "-A", ...args], guarded),
    start("Bun", [bun, "run", ...args], guarded),
    start("Bun", [bun, "run", ...args], guarded),
  ];
  await Promise.race([Promise.all(ends), failure.promise]);
  clearTimeout(patience);
  if (words === undefined) throw new Error("no process got the segment");
  return words;
}

// ---- the result --------------------------------------------------------------------------

/** Who did what, a line each. Throws if that cannot be. */
function shares(words: WordSegment): string[] {
  const bytes = new Map<number, number>();
  let inherited = { bytes: 0, by: 0, from: 0 };
  for (let chunk = 0; chunk < words.chunkCount; chunk++) {
    const { start, end } = words.range(chunk);
    const { worker, takenFrom } = words.credit(chunk);
    bytes.set(worker, (bytes.get(worker) ?? 0) + end - start);
    if (takenFrom !== 0) inherited = { bytes: end - start, by: worker, from: takenFrom };
  }
  const killed = workers.filter(({ isKilled }) => isKilled);
  const initialisers = workers.filter(({ found }) => found === false);
  if (initialisers.length !== 1 || initialisers[0]?.backendId !== words.initialiser) {
    throw new Error(`${initialisers.length} processes initialised the segment`);
  }
  if (killed.length !== 1 || killed[0]?.backendId !== inherited.from) {
    throw new Error(
      `${killed.length} processes were killed, one chunk was taken over from another`,
    );
  }
  const rows = workers.map(({ runtime, pid, backendId, isKilled }) => {
    const done = bytes.get(backendId) ?? 0;
    bytes.delete(backendId);
    const notes: string[] = [];
    if (backendId === words.initialiser) notes.push("initialised");
    if (isKilled) notes.push(red("killed"));
    if (backendId === inherited.by) {
      notes.push(`took over ${grouped(inherited.bytes)} of ${killed[0]?.pid}`);
    }
    const share = percent(done, words.textSize);
    return `  ${runtime.padEnd(7)}${`${pid}`.padStart(9)}${grouped(done).padStart(11)}` +
      `${share.padStart(9)}  ${notes.join(", ")}`.trimEnd();
  });
  if (bytes.size !== 0) throw new Error("a process that is not ours has counted");
  return [bold("  runtime      pid      bytes    share  what it did"), ...rows];
}

/** The words whose counts differ between the two. */
function differences(left: Map<string, number>, right: Map<string, number>): string[] {
  const words = new Set([...left.keys(), ...right.keys()]);
  return [...words].filter((word) => left.get(word) !== right.get(word));
}

/** Runs the C program on the registry; returns the table it prints. */
function tableFromC(registry: Registry): string[] {
  const result = spawnSync(wordTable, [registry.name, registry.dir], { encoding: "utf8" });
  if (result.error) throw new Error(`cannot run ${wordTable}: ${result.error.message}`);
  if (result.status !== 0) throw new Error(result.stderr.trim());
  return result.stdout.trimEnd().split("\n");
}

/** Says whether it is so; returns it. */
function verdict(isEqual: boolean, toWhat: string): boolean {
  say(`  ${isEqual ? green("equal") : red("NOT EQUAL")} to ${toWhat}`);
  return isEqual;
}

async function main(registry: Registry): Promise<boolean> {
  const text = readText();
  say(bold("Counting words in shared memory"));
  say();
  say(
    `  text      ${text.fileCount} library declarations of TypeScript, ` +
      `${grouped(text.bytes.length)} bytes`,
  );
  say(`  registry  ${registry.name} in ${registry.dir}, with one segment, ${SEGMENT_NAME}`);
  say("  workers   2 Deno and 2 Bun processes");
  say();

  const words = await countTogether(registry);
  endProgress();
  say();
  for (const line of shares(words)) say(line);
  say();

  const counts = words.total();
  const table = tableOf(counts, TABLE_ROWS);
  for (const [i, line] of table.entries()) say(i === 0 ? bold(line) : line);
  say();

  const alone = countWords(text.bytes);
  const different = differences(counts, alone);
  const sum = [...alone.values()].reduce((total, count) => total + count, 0);
  const summary = different.length === 0
    ? `${grouped(sum)} words, ${grouped(alone.size)} different`
    : `${grouped(different.length)} words differ, such as ${different.slice(0, 3).join(", ")}`;
  const isSumEqual = verdict(different.length === 0, `a single-process count: ${summary}`);
  const isTableEqual = verdict(
    tableFromC(registry).join("\n") === table.join("\n"),
    "the table that a C program prints, zig-out/bin/word_table",
  );
  return isSumEqual && isTableEqual;
}

const registry = Registry.openSync(`word-count-${process.pid}`, {
  mode: "create",
  maxBackends: 8,
  maxSegments: 4,
});

// However this process ends, nothing stays behind. Only its own kill -9 leaves the registry.
process.on("exit", () => {
  for (const { child } of workers) child.kill("SIGKILL");
  registry.close();
  Registry.destroy(registry.name, { dir: registry.dir });
});
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
// The reader of a pipe has left.
process.stdout.on("error", () => process.exit(1));

let isEqual = false;
try {
  isEqual = await main(registry);
} catch (error) {
  endProgress();
  process.stderr.write(`word_count: ${error instanceof Error ? error.message : error}\n`);
}
// What was written before is out when this is.
process.stdout.write("", () => process.exit(isEqual ? 0 : 1));
