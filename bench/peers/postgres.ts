/**
 * PostgreSQL, for its LWLock: a server of the benchmark's own, with a cluster in the part's folder
 * and no port, and sessions in whose backends postgres.c takes the lock.
 *
 * The hardest is to leave nothing behind. Backends lead process groups of their own, and a server
 * has a piece of System V shared memory (those of initdb a POSIX one, too), which outlives whoever
 * is killed. So nobody is: the server gets SIGQUIT, at which it ends its backends and removes that
 * memory at once; while it starts, the signal waits. initdb gets SIGTERM, and ends when the server
 * of its present step has, in less than a second.
 *
 * @module
 */

import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync } from "node:fs";
import { readFileSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { installed } from "../../.ci/system_packages.ts";
import { root, zig, zigEnv } from "../../.ci/toolchain.ts";
import { type Manner, Partner, run } from "../partner.ts";

/** Where one is installed that libraries can be built for. */
interface Installation {
  /** As in "15.20". */
  version: string;
  programs: string;
  headers: string;
}

/** Debian's packages: the server, and the headers for whatever version it is. */
const ALL = ["postgresql", "postgresql-server-dev-all"];

/** What is installed; or what is missing of it, as Debian's packages. */
export async function findPostgres(): Promise<{ found?: Installation; missing: string[] }> {
  const config = installed("pg_config");
  if (config === undefined) return { missing: ALL };
  let answer: string;
  try {
    answer = await run(config, ["--version", "--bindir", "--includedir-server"]);
  } catch {
    // Debian's is a script that fails where it finds nothing to tell of.
    return { missing: ALL };
  }
  const [line = "", programs = "", headers = ""] = answer.split("\n");
  const version = /\d\S*/.exec(line)?.[0] ?? "";
  if (!existsSync(join(programs, "initdb"))) return { missing: ALL };
  if (!existsSync(join(headers, "postgres.h"))) {
    return { missing: [`postgresql-server-dev-${parseInt(version)}`] };
  }
  return { found: { version, programs, headers }, missing: [] };
}

/** Builds the library that the server loads; returns its path. */
async function build({ version, headers }: Installation): Promise<string> {
  const sources = ["bench/peers/postgres.c", "bench/bench.h"].map((path) => join(root, path));
  const path = join(root, "zig-out", "bin", `postgres-${version}.so`);
  const newest = Math.max(...sources.map((source) => statSync(source).mtimeMs));
  if (existsSync(path) && statSync(path).mtimeMs >= newest) return path;
  const words = ["cc", "-std=gnu17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra"];
  const folders = ["-I", join(root, "c"), "-isystem", headers];
  const made = `${path}.${process.pid}`;
  const args = [...words, ...folders, ...sources.slice(0, 1), "-o", made];
  await run(zig(), args, zigEnv() as NodeJS.ProcessEnv);
  renameSync(made, path);
  return path;
}

/** Whom the server runs as: it refuses to be root's. */
function userOfServer(): Manner["user"] {
  if (process.getuid?.() !== 0) return undefined;
  const line = readFileSync("/etc/passwd", "utf8").split("\n")
    .find((line) => line.startsWith("postgres:"));
  if (line === undefined) throw new Error("it refuses to run as root, and no user is postgres");
  const [, , uid, gid] = line.split(":").map(Number);
  return { uid: uid ?? NaN, gid: gid ?? NaN };
}

/** Without what else there may be for clients and servers of this machine. */
function environment(): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith("PG"));
  return { ...Object.fromEntries(own), LC_ALL: "C" };
}

/** Nothing of the cluster is worth keeping; and nothing is to happen while it is measured. */
const settings = {
  listen_addresses: "",
  unix_socket_permissions: "0700",
  // In files of the cluster, which go with it.
  dynamic_shared_memory_type: "mmap",
  shared_buffers: "1MB",
  max_connections: "16",
  max_wal_senders: "0",
  wal_level: "minimal",
  fsync: "off",
  autovacuum: "off",
};

const functions = [
  "pairs() RETURNS text",
  "contend(int, text, int) RETURNS void",
  "let_contend(int, float8) RETURNS text",
];

/** How often each has had the lock, and how long that took in all. */
export interface Uses {
  ns: number;
  counts: number[];
}

/** A server that runs. */
export class Postgres {
  /** As in "PostgreSQL 15 LWLock". */
  readonly label: string;
  /** How it is measured, for those who read the results. */
  readonly note: string;
  readonly #server: Partner;
  readonly #connect: () => Partner;
  readonly #sessions: Partner[] = [];

  constructor(version: string, server: Partner, connect: () => Partner) {
    this.label = `PostgreSQL ${parseInt(version)} LWLock`;
    this.note = `PostgreSQL ${version}: the LWLock of a tranche that was asked for with ` +
      "RequestNamedLWLockTranche when the server started, in loops inside of its backends.";
    this.#server = server;
    this.#connect = connect;
  }

  /** The session of that number. */
  #session(number: number): Partner {
    return this.#sessions[number] ??= this.#connect();
  }

  /** A round of pairs, uncontended, in one backend: a line as of pair.c. */
  ask(): Promise<string> {
    return this.#session(0).ask("SELECT pairs();");
  }

  /** So many backends at the lock; postgres.c says what the words mean. */
  async contend(
    backends: number,
    milliseconds: number,
    use: "exclusive" | "shared" | "mixed",
    writes = 0,
  ): Promise<Uses> {
    const [answer = ""] = await Promise.all([
      this.#session(0).ask(`SELECT let_contend(${backends}, ${milliseconds});`),
      ...Array.from(
        { length: backends },
        (_, i) => this.#session(1 + i).ask(`SELECT contend(${i}, '${use}', ${writes});`),
      ),
    ]);
    const [told = NaN, stopped = NaN, ...counts] = answer.split(" ").map(Number);
    // The times that pair.c and contention.c take.
    return { ns: use === "mixed" ? stopped : told, counts };
  }

  async stop(): Promise<void> {
    for (const session of this.#sessions) await session.end();
    await this.#server.stop();
  }
}

/** Whether every user gets at a file: a repository may be root's own. */
function isOpenToAll(path: string): boolean {
  if ((statSync(path).mode & 0o005) !== 0o005) return false;
  for (let folder = dirname(path); folder !== dirname(folder); folder = dirname(folder)) {
    if ((statSync(folder).mode & 0o001) === 0) return false;
  }
  return true;
}

async function start(
  { version, programs, headers }: Installation,
  dir: string,
): Promise<Postgres> {
  const built = await build({ version, programs, headers });
  const user = userOfServer();
  const folder = join(dir, "postgres");
  mkdirSync(folder, { mode: 0o700 });
  if (user !== undefined) {
    chownSync(folder, user.uid, user.gid);
    // The way there, and not what else is in them.
    for (const above of [dir, dirname(dir)]) chmodSync(above, 0o711);
  }
  let library = built;
  if (user !== undefined && !isOpenToAll(built)) {
    library = join(folder, "lwlock.so");
    copyFileSync(built, library);
    chmodSync(library, 0o755);
  }
  const data = join(folder, "data");
  const env = environment();
  const manner: Manner = { cwd: folder, user };
  const words = ["--no-sync", "--no-locale", "--auth=trust", "--username=bench"];
  words.push("--wal-segsize=1", `--pgdata=${data}`);
  try {
    await run(join(programs, "initdb"), words, env, { ...manner, endsBy: "SIGTERM" });
  } catch (error) {
    // Of the user or of a folder on the way, which nothing else here tells.
    if (user === undefined || !/ E(PERM|ACCES)$/m.test(messageOf(error))) throw error;
    throw new Error(`root cannot start it as user postgres in ${folder}: ${lineOf(error)}`);
  }
  const all = {
    ...settings,
    unix_socket_directories: `"${folder}"`,
    shared_preload_libraries: `"${library}"`,
  };
  const server = new Partner(
    join(programs, "postgres"),
    ["-D", data, ...Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    env,
    { ...manner, endsBy: "SIGQUIT" },
  );
  const client = ["-XqtA", "-v", "ON_ERROR_STOP=1", "-h", folder, "-U", "bench", "postgres"];
  const connect = () => new Partner(join(programs, "psql"), client, env, manner);
  try {
    while (!isReady(data)) {
      if (server.hasEnded) {
        // Its last words say why, if it has not been told to.
        await server.end();
        throw new Error("the server has ended before it was ready");
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const session = connect();
    const path = library.replaceAll("'", "''");
    for (const declaration of functions) {
      await session.ask(
        `CREATE FUNCTION ${declaration} STRICT LANGUAGE C AS '${path}'; SELECT 'made';`,
      );
    }
    await session.end();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return new Postgres(version, server, connect);
}

/** Whether it takes connections: it says so in the file of its number, as its own tools read it. */
function isReady(data: string): boolean {
  const path = join(data, "postmaster.pid");
  return existsSync(path) && readFileSync(path, "utf8").split("\n")[7]?.trim() === "ready";
}

/** A server, or why there is none. */
export async function startPostgres(dir: string): Promise<{ postgres?: Postgres; why?: string }> {
  const { found, missing } = await findPostgres();
  if (found === undefined) {
    return { why: `PostgreSQL: not installed (apt-get install ${missing.join(" ")})` };
  }
  try {
    return { postgres: await start(found, dir) };
  } catch (error) {
    return { why: `PostgreSQL ${found.version}: ${lineOf(error)}` };
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** The line of its message that says most. */
function lineOf(error: unknown): string {
  const lines = messageOf(error).split("\n");
  return lines.find((line) => /error:|fatal:/i.test(line)) ?? lines[0] ?? "";
}
