/**
 * Redis over a Unix socket, by ioredis. The server is the benchmark's own.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { installed } from "../../.ci/system_packages.ts";
import { Partner } from "../partner.ts";
import { load } from "./library.ts";
import { check, RECORD_BYTES, type Store } from "./store.ts";

const socketIn = (dir: string): string => join(dir, "redis.socket");

/** A server without a port or a file but its socket, or why there is none. */
export async function startRedis(dir: string): Promise<{ server?: Partner; why?: string }> {
  const program = installed("redis-server");
  if (program === undefined) {
    return { why: "Redis: not installed (apt-get install redis-server)" };
  }
  const socket = socketIn(dir);
  const options = { unixsocket: socket, port: "0", save: "", appendonly: "no", dir };
  const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
  const server = new Partner(program, words);
  while (!existsSync(socket)) {
    if (server.hasEnded) {
      return { why: `Redis: redis-server ends at once: ${await server.trouble()}` };
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return { server };
}

interface Client {
  connect(): Promise<void>;
  set(
    key: string,
    value: string | Uint8Array,
    ...more: (string | number)[]
  ): Promise<string | null>;
  incr(key: string): Promise<number>;
  getBuffer(key: string): Promise<Uint8Array | null>;
  script(what: "LOAD", text: string): Promise<string>;
  evalsha(script: string, keys: number, ...words: string[]): Promise<unknown>;
  disconnect(): void;
}

interface IoRedis {
  Redis: new (options: { path: string; lazyConnect: boolean; retryStrategy: null }) => Client;
}

async function open(dir: string, folder: string): Promise<Client> {
  const { Redis } = load<IoRedis>(folder, "ioredis");
  const client = new Redis({ path: socketIn(dir), lazyConnect: true, retryStrategy: null });
  await client.connect();
  return client;
}

/** Opens it as a store. Throws Absent; the server must be there. */
export async function openRedis(dir: string, folder: string): Promise<Store> {
  const client = await open(dir, folder);
  await client.set("record", Buffer.alloc(RECORD_BYTES), "NX");
  return {
    increment: async (count) => {
      for (let i = 0; i < count; i++) await client.incr("counter");
    },
    read: async (count) => {
      for (let i = 0; i < count; i++) check(await client.getBuffer("record"));
    },
    write: async (record) => void await client.set("record", Buffer.from(record)),
    end: () => client.disconnect(),
  };
}

/** Deletes the key if it still has our token. */
const UNLOCK =
  'if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0';

/** The lock that Redis' documentation describes, with one server. Throws Absent. */
export async function redisLock(
  dir: string,
  folder: string,
): Promise<{ pair: () => Promise<void>; end: () => void }> {
  const client = await open(dir, folder);
  const script = await client.script("LOAD", UNLOCK);
  const pair = async () => {
    const token = randomUUID();
    if (await client.set("lock", token, "PX", 30_000, "NX") !== "OK") {
      throw new Error("the lock is taken");
    }
    if (await client.evalsha(script, 1, "lock", token) !== 1) throw new Error("the lock was lost");
  };
  return { pair, end: () => client.disconnect() };
}
