/**
 * A server of several Bun processes on one port that share one rate limiter; Deno processes of
 * limited_server_deno.ts may join them.
 *
 *   bun run examples/limited_server_bun.ts [PORT]
 *
 * Start it as often as there are cores. 100 requests a second are answered, by all of them
 * together, whichever gets them.
 *
 * @module
 */

import { Registry } from "../lib/mod.ts";
import { RateLimiter } from "./rate_limiter.ts";

const [port = "8000", name = "limited-server"] = Bun.argv.slice(2);
const registry = Registry.openSync(name);
const limiter = new RateLimiter(registry, "requests", 100, 100);

const server = Bun.serve({
  port: Number(port),
  // The same address for both runtimes, which differ in what they take by themselves: only then
  // does the system share the requests out among them.
  hostname: "0.0.0.0",
  reusePort: true,
  async fetch() {
    if (await limiter.allows()) return new Response(`Hello from ${process.pid}.\n`);
    return new Response("Too many requests.\n", { status: 429 });
  },
});
console.log(`Listening on http://localhost:${server.port}/`);
