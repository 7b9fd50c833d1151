/**
 * child.ts in Deno, with Deno's own lock of a file.
 *
 * @module
 */

import { join } from "node:path";
import { add, answer, runDir } from "./child.ts";

const options = { read: true, write: true, create: true };
const [one, other] = ["sync", "async"].map((name) =>
  Deno.openSync(join(runDir, `file-${name}`), options)
);
if (one === undefined || other === undefined) throw new Error("no files");
await add("lock:file-sync", 1000, (count) => {
  for (let i = 0; i < count; i++) {
    one.lockSync(true);
    one.unlockSync();
  }
});
await add("lock:file", 100, async (count) => {
  for (let i = 0; i < count; i++) {
    await other.lock(true);
    await other.unlock();
  }
});
await answer();
