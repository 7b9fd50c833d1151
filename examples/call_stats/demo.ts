/**
 * Two Deno and two Bun servers count their calls in one table. This program starts them, sends
 * requests to all of them, prints the table (as a fifth process), compares it with what it has
 * sent, and resets it.
 *
 *   npx --yes deno task demo:call-stats
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Registry } from "../../lib/mod.ts";
import { callStats } from "./call_stats.ts";

const REQUESTS = 5000;
/** So many are on their way at a time. */
const LANES = 32;
const PATIENCE_MS = 120_000;

const pathOf = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
const deno = [pathOf("../../node_modules/.bin/deno"), "run", "-A", pathOf("server_deno.ts")];
const bun = [pathOf("../../node_modules/.bin/bun"), "run", pathOf("server_bun.ts")];

const children: ChildProcess[] = [];

/** A server that listens. */
interface Server {
  runtime: string;
  pid: number;
  url: string;
  /** Rejects if it ends before it is told to. */
  ended: Promise<void>;
}

/** Starts a server; resolves when it listens. */
async function start(runtime: string, [program = "", ...args]: string[]): Promise<Server> {
  const child = spawn(program, [...args, "0", registry.name], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  children.push(child);
  const ended = new Promise<void>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(`The ${runtime} server ended with ${signal ?? `exit code ${code}`}.`));
    });
  });
  const listening = new Promise<string>((resolve) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, url] = /^Listening on (\S+)$/.exec(line) ?? [];
      if (url !== undefined) resolve(url);
    });
  });
  const tooEarly = ended.then(() => {
    throw new Error(`The ${runtime} server ended before it listened.`);
  });
  const url = await Promise.race([listening, tooEarly]);
  // From here on `ended` itself tells.
  tooEarly.catch(() => {});
  return { runtime, pid: child.pid ?? 0, url, ended };
}

// ---- the requests ------------------------------------------------------------------------

interface Call {
  /** What the servers count it as. */
  name: string;
  method: string;
  path: string;
  body?: string;
  status: number;
}

/** The i-th call of the mix. */
function callOf(i: number): Call {
  const method = "GET";
  const status = 200;
  switch (i % 10) {
    case 0:
      return { name: "GET /report", method, path: "/report", status };
    case 1:
      return { name: "not found", method, path: `/nowhere/${i}`, status: 404 };
    case 2:
    case 3: {
      const body = JSON.stringify({ prices: [i, 1, 2] });
      return { name: "POST /orders", method: "POST", path: "/orders", body, status };
    }
    case 4:
    case 5:
    case 6:
      return { name: "GET /users/:id", method, path: `/users/${i}`, status };
    default:
      return { name: "GET /", method, path: "/", status };
  }
}

/** Sends all of them, each in turn to another server; returns how many of which name. */
async function sendAll(servers: Server[]): Promise<Map<string, number>> {
  const sent = new Map<string, number>();
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < REQUESTS) {
      const i = next++;
      const { name, method, path, body, status } = callOf(i);
      // Not by i % 4 alone: each server gets calls of every kind.
      const { url = "" } = servers[(i + Math.floor(i / 20)) % servers.length] ?? {};
      const response = await fetch(new URL(path, url), { method, body: body ?? null });
      await response.text();
      if (response.status !== status) throw new Error(`${name} was answered ${response.status}`);
      sent.set(name, (sent.get(name) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return sent;
}

// ---- the whole ---------------------------------------------------------------------------

async function main(): Promise<boolean> {
  const stats = registry.addin(callStats);
  const servers = await Promise.all([
    start("Deno", deno),
    start("Deno", deno),
    start("Bun", bun),
    start("Bun", bun),
  ]);
  console.log(`Four servers count their calls in registry ${registry.name}:\n`);
  for (const { runtime, pid, url } of servers) console.log(`  ${runtime.padEnd(4)} ${pid}  ${url}`);

  const begin = performance.now();
  const sent = await Promise.race([sendAll(servers), anyFailure(servers)]);
  const seconds = (performance.now() - begin) / 1000;
  console.log(
    `\n${REQUESTS} requests in ${seconds.toFixed(1)} s, seen by process ${process.pid}:\n`,
  );
  console.log(stats.table());

  const rows = stats.reset();
  const isExact = rows.length === sent.size &&
    rows.every(({ name, calls }) => sent.get(name) === calls);
  console.log(`\n${isExact ? "Equal" : "NOT EQUAL"} to the requests that were sent.`);
  console.log(`\nAfter a reset:\n\n${stats.table()}`);

  for (const { stdin } of children) stdin?.end();
  await Promise.all(servers.map(({ ended }) => ended));
  return isExact && stats.rows().length === 0;
}

/** Rejects when a server ends that should not. */
async function anyFailure(servers: Server[]): Promise<never> {
  await Promise.race(servers.map(({ ended }) => ended));
  throw new Error("A server has ended while requests were sent.");
}

const registry = Registry.openSync(`call-stats-${process.pid}`, {
  mode: "create",
  addins: [callStats],
});

// However this process ends, nothing stays behind; the servers end with their input. Only its own
// kill -9 leaves the registry, until somebody calls Registry.destroy with its name.
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  registry.close();
  Registry.destroy(registry.name, { dir: registry.dir });
});
process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
// The reader of a pipe has left.
process.stdout.on("error", () => process.exit(1));
const patience = setTimeout(() => {
  console.error(`call_stats: not done after ${PATIENCE_MS / 1000} s`);
  process.exit(1);
}, PATIENCE_MS);

let isWell = false;
try {
  isWell = await main();
} catch (error) {
  console.error(`call_stats: ${error instanceof Error ? error.message : error}`);
}
clearTimeout(patience);
// What was written before is out when this is.
process.stdout.write("", () => process.exit(isWell ? 0 : 1));
