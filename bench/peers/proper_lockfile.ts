/**
 * proper-lockfile: a lock that is a folder on disk, here in memory.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { load } from "./library.ts";

interface ProperLockfile {
  lock(file: string): Promise<() => Promise<void>>;
}

/** One lock and unlock. Throws Absent. */
export function properLockfile(dir: string, folder: string): () => Promise<void> {
  const { lock } = load<ProperLockfile>(folder, "proper-lockfile");
  const file = join(dir, `locked-${process.pid}`);
  writeFileSync(file, "");
  return async () => {
    const unlock = await lock(file);
    await unlock();
  };
}
