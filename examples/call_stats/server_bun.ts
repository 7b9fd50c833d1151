/**
 * A Bun server whose calls are counted together with those of others, also of server_deno.ts:
 *
 *   bun run examples/call_stats/server_bun.ts [PORT] [REGISTRY]
 *
 * It ends when its input does, so that it never outlives demo.ts.
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../../lib/mod.ts";
import { callStats } from "./call_stats.ts";
import { createHandler } from "./handler.ts";

const [port = "0", name = "call-stats"] = Bun.argv.slice(2);
const registry = Registry.openSync(name, { addins: [callStats] });

const server = Bun.serve({
  port: Number(port),
  hostname: "127.0.0.1",
  fetch: createHandler(registry.addin(callStats)),
});
console.log(`Listening on ${server.url}`);

process.stdin.resume().on("end", () => {
  registry.close();
  process.exit(0);
});
