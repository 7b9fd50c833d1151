/**
 * A Deno server whose calls are counted together with those of others, also of server_bun.ts:
 *
 *   deno run -A examples/call_stats/server_deno.ts [PORT] [REGISTRY]
 *
 * It ends when its input does, so that it never outlives demo.ts.
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../../lib/mod.ts";
import { callStats } from "./call_stats.ts";
import { createHandler } from "./handler.ts";

const [port = "0", name = "call-stats"] = Deno.args;
const registry = Registry.openSync(name, { addins: [callStats] });

Deno.serve({
  port: Number(port),
  hostname: "127.0.0.1",
  onListen: ({ port }) => console.log(`Listening on http://127.0.0.1:${port}/`),
}, createHandler(registry.addin(callStats)));

process.stdin.resume().on("end", () => {
  registry.close();
  process.exit(0);
});
