/**
 * Other people's locks, to be measured next to ours: lock and unlock, once.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, type Socket } from "node:net";
import { delimiter, join } from "node:path";
import process from "node:process";

/** One lock and unlock. */
export type Pair = () => Promise<void>;

interface ProperLockfile {
  lock(file: string): Promise<() => Promise<void>>;
}

/** proper-lockfile, if it is installed: here, or in a folder of NODE_PATH. */
export function properLockfile(dir: string): Pair | undefined {
  const folders = (process.env["NODE_PATH"] ?? "").split(delimiter).filter((path) => path !== "");
  const bases = [import.meta.url, ...folders.map((folder) => join(folder, "..", "any.js"))];
  let library: ProperLockfile | undefined;
  for (const base of bases) {
    try {
      library ??= createRequire(base)("proper-lockfile") as ProperLockfile;
    } catch {
      // Not there.
    }
  }
  if (library === undefined) return undefined;
  const { lock } = library;
  const file = join(dir, `locked-${process.pid}`);
  writeFileSync(file, "");
  return async () => {
    const unlock = await lock(file);
    await unlock();
  };
}

/** Just enough of a client: one command at a time, and replies of one line or one string. */
class Redis {
  readonly #socket: Socket;
  #received = "";
  #reply: PromiseWithResolvers<string | null> | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("utf8").on("data", (text) => this.#receive(String(text)));
    socket.on("error", (error) => this.#reply?.reject(error));
    socket.on("close", () => this.#reply?.reject(new Error("Redis has closed the connection")));
  }

  static open(path: string): Promise<Redis> {
    return new Promise((resolve, reject) => {
      const socket = connect({ path });
      socket.once("error", reject);
      socket.once("connect", () => resolve(new Redis(socket)));
    });
  }

  command(...words: string[]): Promise<string | null> {
    const reply = Promise.withResolvers<string | null>();
    this.#reply = reply;
    const parts = words.map((word) => `$${word.length}\r\n${word}\r\n`);
    this.#socket.write(`*${words.length}\r\n${parts.join("")}`);
    return reply.promise;
  }

  end(): void {
    this.#socket.destroy();
  }

  #receive(text: string): void {
    this.#received += text;
    const end = this.#received.indexOf("\r\n");
    if (end < 0) return;
    const line = this.#received.slice(1, end);
    const kind = this.#received[0];
    let value: string | null = line;
    let length = end + 2;
    if (kind === "$") {
      const size = Number(line);
      value = size < 0 ? null : this.#received.slice(length, length + size);
      if (size >= 0) length += size + 2;
      if (this.#received.length < length) return;
    }
    this.#received = this.#received.slice(length);
    if (kind === "-") this.#reply?.reject(new Error(`Redis: ${line}`));
    else this.#reply?.resolve(value);
  }
}

/** Deletes the key if it still has our token. */
const UNLOCK =
  'if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0';

/** The lock that Redis' documentation describes, with one server. */
export async function redisLock(path: string): Promise<{ pair: Pair; end: () => void }> {
  const redis = await Redis.open(path);
  const script = await redis.command("SCRIPT", "LOAD", UNLOCK) ?? "";
  const pair = async () => {
    const token = randomUUID();
    const taken = await redis.command("SET", "lock", token, "NX", "PX", "30000");
    if (taken !== "OK") throw new Error("the lock is taken");
    const freed = await redis.command("EVALSHA", script, "1", "lock", token);
    if (freed !== "1") throw new Error("the lock was lost");
  };
  return { pair, end: () => redis.end() };
}
