/**
 * Leader election: of all processes that run this, exactly one leads at any time. When it ends,
 * or is killed, the next one leads, at once.
 *
 *   deno run --allow-ffi examples/leader.ts
 *   bun run examples/leader.ts
 *
 * Start it several times, and kill the one that leads. Ctrl-C ends one that leads in good order.
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../lib/mod.ts";

using registry = Registry.openSync(process.argv[2] ?? "leader");
const stopping = Promise.withResolvers<void>();
process.on("SIGINT", () => stopping.resolve());

console.log(`${process.pid}: waits`);
// Leads as long as the callback runs: until the process ends, in whatever way.
await registry.locks.request("leader", async () => {
  console.log(`${process.pid}: leads`);
  const beat = setInterval(() => console.log(`${process.pid}: still leads`), 1000);
  await stopping.promise;
  clearInterval(beat);
});
console.log(`${process.pid}: has resigned`);
