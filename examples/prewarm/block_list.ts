/**
 * The file with the list of hot blocks: a line with a checksum, then a line for each file.
 *
 *     prewarm 1 <SHA-256 of what follows>
 *     ["/data/orders","0-17,23"]
 *
 * A new list is written to a temporary file, brought to the disk, and given the old one's name; that
 * is one step to everybody, and the directory is brought to the disk after it. So whenever the
 * process is killed, or the machine loses its power, the file is the old list or the new one. What
 * may be left is the temporary file, which the next saver removes.
 *
 * @module
 */

import { createHash } from "node:crypto";
import {
  closeSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, isAbsolute, join } from "node:path";
import process from "node:process";
import type { CachedFile } from "./block_cache.ts";

const MAGIC = "prewarm 1";

/** Where a save has got to. */
export type SaveStep = "opened" | "written" | "synced" | "renamed" | "directory synced";

/** A list that is refused. The message says which file, and why. */
export class ListError extends Error {
  override readonly name = "ListError";

  constructor(file: string, why: string) {
    super(`${file} is no list of blocks: ${why}. It is left out, and will be overwritten.`);
  }
}

/**
 * Replaces the list.
 *
 * @param onStep Called when a step is done. For tests.
 * @throws What the file system throws: then the old list is there, and no temporary file.
 */
export function saveList(
  file: string,
  list: readonly CachedFile[],
  onStep: (step: SaveStep) => void = () => {},
): void {
  const body = list.map((entry) => lineOf(entry) + "\n").join("");
  // A name of its own: another registry's saver may be at the same list.
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    withFile(temporary, "w", (opened) => {
      onStep("opened");
      writeFileSync(opened, `${MAGIC} ${checksum(body)}\n${body}`);
      onStep("written");
      fsyncSync(opened);
      onStep("synced");
    });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  onStep("renamed");
  withFile(dirname(file), "r", fsyncSync);
  onStep("directory synced");
}

/**
 * Reads the list. There may be none: then it is empty.
 *
 * @throws {ListError} It is damaged, or something else. What the file system throws.
 */
export function loadList(file: string): CachedFile[] {
  let content: string;
  try {
    content = readFileSync(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
  const [head = ""] = content.split("\n", 1);
  const body = content.slice(head.length + 1);
  if (!head.startsWith(`${MAGIC} `)) {
    const start = JSON.stringify(content.slice(0, MAGIC.length));
    throw new ListError(file, `it begins with ${start}, not with "${MAGIC}"`);
  }
  if (head !== `${MAGIC} ${checksum(body)}`) {
    throw new ListError(file, `the checksum of its ${body.length} characters is another one`);
  }
  return body.split("\n").slice(0, -1).map((line, i) => {
    const entry = parseLine(line);
    if (entry === undefined) throw new ListError(file, `line ${i + 2} makes no sense`);
    return entry;
  });
}

/** Removes the temporary files of savers that are gone. */
export function removeLeftovers(file: string): void {
  const start = `${basename(file)}.`;
  for (const name of readdirSync(dirname(file))) {
    if (!name.startsWith(start)) continue;
    const [, pid] = /^(\d+)\.tmp$/.exec(name.slice(start.length)) ?? [];
    // Our own number: of one that had it before.
    const isLeft = pid !== undefined && (Number(pid) === process.pid || !isRunning(Number(pid)));
    if (isLeft) rmSync(join(dirname(file), name), { force: true });
  }
}

/** The error's code, where the system has given it one: "ENOENT" and the like. */
export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

// ---- lines -------------------------------------------------------------------------------

/** Runs of blocks are short: "0-17,23". */
function lineOf({ path, blocks }: CachedFile): string {
  const runs: string[] = [];
  for (let i = 0; i < blocks.length; i++) {
    const first = blocks[i] ?? 0;
    let last = first;
    while (blocks[i + 1] === last + 1) last = blocks[++i] ?? 0;
    runs.push(first === last ? `${first}` : `${first}-${last}`);
  }
  return JSON.stringify([path, runs.join(",")]);
}

function parseLine(line: string): CachedFile | undefined {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (!Array.isArray(entry)) return undefined;
  const [path, runs] = entry as unknown[];
  if (typeof path !== "string" || !isAbsolute(path) || typeof runs !== "string") return undefined;
  const blocks: number[] = [];
  for (const run of runs.split(",")) {
    const [, from, to = from] = /^(\d+)(?:-(\d+))?$/.exec(run) ?? [];
    const first = Number(from);
    const last = Number(to);
    // Also what is no number. Ascending, so it ends; and a run is no longer than any cache.
    if (!(first > (blocks.at(-1) ?? -1) && last >= first && last < 2 ** 32)) return undefined;
    if (last - first >= 2 ** 24) return undefined;
    for (let block = first; block <= last; block++) blocks.push(block);
  }
  return { path, blocks };
}

// ---- files -------------------------------------------------------------------------------

function checksum(body: string): string {
  return createHash("sha256").update(body).digest("hex");
}

function withFile(path: string, flags: string, use: (file: number) => void): void {
  const file = openSync(path, flags, 0o600);
  try {
    use(file);
  } finally {
    closeSync(file);
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // Not ours to signal, but there.
    return codeOf(error) === "EPERM";
  }
}
