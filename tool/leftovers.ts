/**
 * Files that nobody needs any more: segments whose registry is gone, registries that somebody died
 * while destroying, temporary files of creators that died.
 *
 * Why nothing live is among them, also while registries come and go:
 *
 * - A registry gets a random instance when it is created, and no two have the same. Its control
 *   file has its name before the first segment's file is made, and segments' names contain the
 *   instance. The control file is looked at after the segment's file was seen: if it is not there
 *   then, or has another instance, then the segment's registry has been there and is gone; and it
 *   never comes back, so that stays true however late the file is removed. Nobody can attach the
 *   segment any more.
 * - Who has it mapped keeps the memory when the name goes. Even so, such a file is kept as long as
 *   a process has it mapped: its control file may have been removed by hand, and a person may want
 *   to see that. And a damaged instance in a control file would make its segments look like
 *   another's.
 * - A temporary file (`dsmr.t.`) is made where the file system has no nameless files. Its creator
 *   has it open from when it has a name until it is renamed. So one that is old and that no process
 *   has open has lost its creator. Processes in other namespaces cannot be seen; for them there is
 *   the age: a creator takes milliseconds. Should it have been stopped for so long, then it fails
 *   to rename the file, and says so: nobody uses it before that.
 * - A registry that is marked as destroyed is finished off by the library, under its table lock,
 *   whenever it is listed. Nothing is removed by name here.
 *
 * What others see if this process dies in between: some of the files are gone, some are not.
 *
 * @module
 */

import { readdirSync, readFileSync, readlinkSync, unlinkSync } from "node:fs";
import { basename, join } from "node:path";
import { codeOf, type Control, look, parseName, readControl } from "./files.ts";
import { duration } from "./text.ts";

/** How old a temporary file must be. */
export const TEMPORARY_AGE_MS = 10 * 60_000;

/** A file that is left over, or that looks like it. */
export interface Leftover {
  name: string;
  path: string;
  bytes: number;
  kind: "segment" | "registry" | "temporary";
  /** Whose it was, where the name says that. */
  registry: string | null;
  /** Whether nobody needs it any more. */
  isOrphan: boolean;
  /** Why it is one, or why it is kept. */
  why: string;
}

/** Who uses files of ours, as far as this user sees: by inode mapped, by name open. */
interface Use {
  mapped: Map<number, number>;
  open: Map<string, number>;
}

function tried<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch (error) {
    // Another user's process; or it has ended meanwhile; or there is no /proc.
    if (["EACCES", "EPERM", "ENOENT", "ESRCH"].includes(codeOf(error) ?? "")) return otherwise;
    throw error;
  }
}

/** Looks through the processes. What cannot be seen is not in it. */
function usedFiles(): Use {
  const use: Use = { mapped: new Map(), open: new Map() };
  for (const entry of tried(() => readdirSync("/proc"), [])) {
    if (!/^\d+$/.test(entry)) continue;
    const maps = tried(() => readFileSync(`/proc/${entry}/maps`, "utf8"), "");
    for (const [, inode] of maps.matchAll(/^\S+ \S+ \S+ \S+ (\d+) +\/.*dsmr\./gm)) {
      use.mapped.set(Number(inode), Number(entry));
    }
    for (const descriptor of tried(() => readdirSync(`/proc/${entry}/fd`), [])) {
      const target = tried(() => readlinkSync(`/proc/${entry}/fd/${descriptor}`), "");
      const name = basename(target);
      if (name.startsWith("dsmr.t.")) use.open.set(name, Number(entry));
    }
  }
  return use;
}

/** Of a segment's file that was seen before its control file. */
function judgeSegment(
  instance: bigint,
  control: Control,
): { isOrphan: boolean; why: string } | undefined {
  if (control.is === "absent") return { isOrphan: true, why: "its registry is gone" };
  if (control.is === "unclear") return { isOrphan: false, why: control.why };
  if (control.instance === instance) return undefined;
  return { isOrphan: true, why: "its registry is gone; another has its name now" };
}

/** What looks left over in a directory, by name. */
export function findLeftovers(
  dir: string,
  uid: number | undefined,
  temporaryAge: number = TEMPORARY_AGE_MS,
): Leftover[] {
  const found: (Leftover & { inode: number })[] = [];
  for (const name of readdirSync(dir).sort()) {
    const parsed = parseName(name);
    if (parsed === undefined) continue;
    const path = join(dir, name);
    const file = look(path);
    // What is not a file of ours we did not make.
    if (file === undefined || !file.isFile() || (uid !== undefined && file.uid !== uid)) continue;
    const registry = parsed.kind === "temporary" ? null : parsed.registry;
    const add = (kind: Leftover["kind"], isOrphan: boolean, why: string): void => {
      found.push({ name, path, bytes: file.size, kind, registry, isOrphan, why, inode: file.ino });
    };
    if (parsed.kind === "temporary") {
      const age = Date.now() - file.mtimeMs;
      if (age >= temporaryAge) add("temporary", true, `its creator is gone, for ${duration(age)}`);
    } else if (parsed.kind === "segment") {
      const judged = judgeSegment(parsed.instance, readControl(dir, parsed.registry, uid));
      if (judged !== undefined) add("segment", judged.isOrphan, judged.why);
    } else {
      const control = readControl(dir, parsed.registry, uid);
      if (control.is === "there" && control.isDestroyed) {
        add("registry", true, "somebody died while destroying it");
      }
    }
  }
  // After all of them have been seen, and before any is removed.
  const use = found.length === 0 ? undefined : usedFiles();
  return found.map(({ inode, ...leftover }) => {
    const user = leftover.kind === "segment"
      ? use?.mapped.get(inode)
      : use?.open.get(leftover.name);
    if (!leftover.isOrphan || user === undefined) return leftover;
    const how = leftover.kind === "segment" ? "has it mapped" : "has it open";
    return { ...leftover, isOrphan: false, why: `process ${user} still ${how}` };
  });
}

/** Removes the file of a segment, or a temporary one. False: somebody else was faster. */
export function removeLeftover({ path }: Leftover): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}
