/**
 * Only one process runs the migration, the others wait: without blocking, and without a lock
 * file that a crash would leave behind.
 *
 *   deno run --allow-ffi examples/migrate_once.ts
 *   bun run examples/migrate_once.ts
 *
 * Start it several times at once. The first one migrates; the others go on when it is done. If
 * it throws, or is killed, the next one takes over.
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../lib/mod.ts";

using registry = Registry.openSync(process.argv[2] ?? "migrate-once");

/** Stands for what takes long: here nothing but time. */
async function migrate(): Promise<void> {
  for (const step of ["create tables", "copy rows", "build indexes"]) {
    console.log(`${process.pid}: ${step}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

// The name says which version of the data is meant: the next one migrates anew.
const migrated = await registry.getNamedSegment("schema-v2", 8, async (segment) => {
  await migrate();
  new Float64Array(segment.buffer)[0] = Date.now();
});
const at = new Date(new Float64Array(migrated.buffer)[0] ?? 0).toISOString();
console.log(`${process.pid}: ${migrated.found ? "found it migrated" : "has migrated"}, at ${at}`);
