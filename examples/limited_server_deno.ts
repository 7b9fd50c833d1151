/**
 * A server of several Deno processes on one port that share one rate limiter; Bun processes of
 * limited_server_bun.ts may join them.
 *
 *   deno run --allow-ffi --allow-net --unstable-net examples/limited_server_deno.ts [PORT]
 *
 * Start it as often as there are cores. 100 requests a second are answered, by all of them
 * together, whichever gets them.
 *
 * @module
 */

import { Registry } from "../lib/mod.ts";
import { RateLimiter } from "./rate_limiter.ts";

const [port = "8000", name = "limited-server"] = Deno.args;
const registry = Registry.openSync(name);
const limiter = new RateLimiter(registry, "requests", 100, 100);

// The same address for both runtimes, which differ in what they take by themselves: only then does
// the system share the requests out among them.
Deno.serve({ port: Number(port), hostname: "0.0.0.0", reusePort: true }, async () => {
  if (await limiter.allows()) return new Response(`Hello from ${Deno.pid}.\n`);
  return new Response("Too many requests.\n", { status: 429 });
});
