/**
 * The same work by other people's libraries, from JavaScript: a lock and unlock, counting, and
 * reading a record. Each is optional, and named where it is absent.
 *
 * @module
 */

import { basename, dirname } from "node:path";
import { installed } from "../../.ci/system_packages.ts";
import { Registry } from "../../lib/mod.ts";
import { type Asked, interleave, ratioText, Samples } from "../harness.ts";
import { Partner } from "../partner.ts";
import { ns } from "../report/table.ts";
import { type Bar, bar, type Chart } from "../report/svg.ts";
import {
  type Part,
  runtimes,
  type Section,
  type Setting,
  startScript,
  type Table,
} from "../setting.ts";
import { startRedis } from "./redis.ts";

/** Subjects, what they are called, and the sort of work. */
const rows = [
  ["lock:dsmr", "dsmr: acquireSync + release"],
  ["lock:dsmr-async", "dsmr: await acquire + release"],
  ["lock:dsmr-request", "dsmr: registry.locks.request"],
  ["lock:navigator", "navigator.locks.request (one process)"],
  ["lock:file-sync", "Deno.FsFile.lockSync + unlockSync"],
  ["lock:file", "Deno.FsFile.lock + unlock"],
  ["lock:redis", "Redis: SET NX PX + script"],
  ["lock:lockfile", "proper-lockfile"],
  ["update:dsmr", "dsmr: lock, add, release"],
  ["update:shm", "shm-typed-array: Atomics.add (no lock)"],
  ["update:lmdb", "lmdb: transactionSync"],
  ["update:sqlite", "SQLite of Bun: UPDATE"],
  ["update:redis", "Redis: INCR"],
  ["read:dsmr", "dsmr: shared lock, copy, release"],
  ["read:shm", "shm-typed-array: copy (no lock)"],
  ["read:lmdb", "lmdb: get"],
  ["read:sqlite", "SQLite of Bun: SELECT"],
  ["read:redis", "Redis: GET"],
] as const;

const works = [
  ["lock", "Lock and unlock"],
  ["update", "Count, so that nothing is lost"],
  ["read", "Read a record of 1,024 bytes, of one moment"],
] as const;

/** The object that shm-typed-array makes, which is not in the run's folder `runDir`. */
export function shmObject(runDir: string): string {
  return `/${basename(runDir)}.peer`;
}

interface Child {
  prefix: string;
  partner: Partner;
}

async function start(
  { dir, options }: Setting,
  redis: boolean,
): Promise<{ children: Child[]; absent: string[] }> {
  const absent: string[] = [];
  const children: Child[] = [];
  const words = [dir, options.peers, redis ? "redis" : ""];
  for (const runtime of runtimes) {
    const script = `peers/in_${runtime.toLowerCase()}.ts`;
    children.push({ prefix: runtime, partner: startScript(runtime, script, ...words) });
  }
  const node = installed("node");
  // Deno puts a stand-in of its own there, where there is none.
  if (node === undefined || node.includes("node_compat_bin")) {
    absent.push("shm-typed-array: there is no Node.js, which it needs");
  } else {
    const args = ["bench/peers/in_node.cjs", options.peers, shmObject(dirname(dir))];
    children.push({ prefix: "Node.js", partner: new Partner(node, args) });
  }
  for (const { prefix, partner } of [...children]) {
    const missing = JSON.parse(await partner.next()) as string[];
    for (const what of missing) {
      // Neither has what the other has; only what both lack is missing.
      if (!what.startsWith("navigator.locks")) absent.push(what);
    }
    if (prefix === "Node.js" && missing.length > 0) {
      await partner.end();
      children.pop();
    }
  }
  return { children, absent: [...new Set(absent)] };
}

async function measure(setting: Setting): Promise<Section> {
  const { dir, pick } = setting;
  Registry.openSync("lock", { dir }).close();
  Registry.openSync("store", { dir }).close();
  const { server, why: noRedis } = await startRedis(dir);
  const { children, absent } = await start(setting, server !== undefined);
  if (noRedis !== undefined) absent.push(noRedis);
  const times = new Samples("ns");
  await interleave(
    children.map(({ prefix, partner }) => ({
      prefix: `${prefix} `,
      partner: partner as Asked,
      question: "round",
    })),
    { rounds: pick(41, 3), warmUp: pick(4, 1) },
    times,
  );
  for (const { partner } of children) await partner.end();
  await server?.stop();
  for (const name of ["lock", "store"]) Registry.destroy(name, { dir });
  return {
    title: "Next to other libraries, from JavaScript",
    tables: works.map(([work, title]) => table(times, work, title)),
    charts: works.map(([work, title]) => chart(times, work, title)),
    targets: [],
    measures: times.summaries(),
    absent,
  };
}

/** What is awaited and asked for by name; ours is, too. */
const byName = ["lock:navigator", "lock:redis", "lock:lockfile"];

/** Ours, of the same work and runtime. */
function floorOf(from: string, subject: string): string {
  const [work = ""] = subject.split(":");
  const own = byName.includes(subject) ? "lock:dsmr-request" : `${work}:dsmr`;
  return `${from === "Node.js" ? "Bun" : from} ${own}`;
}

const head = (from: string): string[] => [
  from,
  from === "Node.js" ? "to dsmr in Bun" : "to dsmr",
];

function table(times: Samples, work: string, title: string): Table {
  const columns = [
    ...runtimes,
    ...(times.names.some((name) => name.startsWith("Node.js ") && name.includes(` ${work}:`))
      ? ["Node.js"]
      : []),
  ];
  return {
    title: `${title}: median`,
    rows: [
      ["", ...columns.flatMap(head)],
      ...rows.filter(([subject]) => subject.startsWith(`${work}:`)).flatMap(([subject, label]) => {
        const cells = columns.flatMap((column) => [
          ns(times.median(`${column} ${subject}`)),
          ratioText(times.ratio(`${column} ${subject}`, floorOf(column, subject))),
        ]);
        return cells.every((cell) => cell === "") ? [] : [[label, ...cells]];
      }),
    ],
    ...(work === "lock"
      ? {
        note:
          "What is asked for by name and awaited (navigator.locks, Redis, proper-lockfile) is " +
          "compared with registry.locks.request, the others with acquireSync.",
      }
      : {}),
  };
}

function chart(times: Samples, work: string, title: string): Chart {
  const names = { lock: "peers", update: "peers-update", read: "peers-read" };
  const bars: Bar[] = rows.filter(([subject]) => subject.startsWith(`${work}:`)).flatMap((
    [subject, label],
  ) =>
    [...runtimes, "Node.js"].flatMap((from) =>
      bar(label, from, times.summary(`${from} ${subject}`), 1000)
    )
  );
  return {
    name: names[work as keyof typeof names],
    title: `${title}, from JavaScript`,
    unit: "us each",
    scale: "log",
    groups: [{ heading: "", bars }],
  };
}

/** The part. */
export const peers: Part = {
  name: "peers",
  title: "other libraries, from JavaScript",
  measure,
};
