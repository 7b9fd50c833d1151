/**
 * `dsmr show`: all there is in a registry.
 *
 * @module
 */

import { DsmrError, Registry } from "../lib/mod.ts";
import {
  attach,
  type Command,
  type Context,
  databaseOption,
  FOUND,
  type Invocation,
  OK,
  placeOf,
} from "./command.ts";
import { lockText } from "./locks.ts";
import { bytes, type Cell, joined, json, many, paint, printable, section, since } from "./text.ts";

/** A part of the registry, or why it cannot be read. */
type Part<T> = { items: T[]; problem: string | null };

function part<T>(read: () => Iterable<T>): Part<T> {
  try {
    return { items: [...read()], problem: null };
  } catch (error) {
    // What one part is damaged of must not hide the others. A registry that is gone is another thing.
    if (!(error instanceof DsmrError) || error.code === "CLOSED") throw error;
    return { items: [], problem: error.message };
  }
}

function look(registry: Registry) {
  return {
    segments: part(() => registry.segments()),
    backends: part(() => registry.backends()),
    waits: part(() => registry.waits()),
    tranches: part(() => registry.tranches()),
    databases: part(() => registry.databases()),
    workers: part(() => registry.workers()),
  };
}

type Seen = ReturnType<typeof look>;

function segmentRow(info: Seen["segments"]["items"][number]): Cell[] {
  const { name, database, size, backends, layout, lifetime, ready, createdAt } = info;
  return [
    name,
    database === null ? "global" : `database ${database}`,
    bytes(size),
    backends,
    lifetime,
    layout ?? "-",
    since(createdAt),
    ready ? "ready" : "being initialised",
  ];
}

function backendRow(info: Seen["backends"]["items"][number]): Cell[] {
  const { id, pid, program, database, segments, attachedAt, held, waitsFor, self } = info;
  const waiting = waitsFor !== null
    ? lockText(waitsFor)
    : info.waitingFor === null
    ? "-"
    : `initialisation of ${info.waitingFor}`;
  return [
    id,
    pid,
    self ? `${program} (this tool)` : program,
    database === "" ? "-" : database,
    segments,
    since(attachedAt),
    held.length === 0 ? "-" : held.map(lockText).join(", "),
    waiting,
  ];
}

function lines(context: Context, title: string, seen: Seen): string[] {
  const { segments, backends, tranches, databases, workers } = seen;
  const parts: [string, Part<unknown>, string[], Cell[][]][] = [
    [
      "Segments",
      segments,
      ["NAME", "SCOPE", "SIZE", "BACKENDS", "LIFETIME", "LAYOUT", "AGE", "STATE"],
      segments.items.map(segmentRow),
    ],
    [
      "Backends",
      backends,
      ["ID", "PID", "PROGRAM", "DATABASE", "SEGMENTS", "ATTACHED", "HOLDS", "WAITS FOR"],
      backends.items.map(backendRow),
    ],
    [
      "Tranches",
      tranches,
      ["NAME", "ID", "WAITS", "WAITED", "ABANDONED"],
      tranches.items.map(({ name, id, contended, waited, abandoned }) => [
        name,
        id === null ? "-" : String(id),
        contended,
        `${waited.toFixed(1)} ms`,
        abandoned,
      ]),
    ],
    [
      "Databases",
      databases,
      ["NAME", "ID", "BACKENDS", "SEGMENTS", "AGE"],
      databases.items.map((info) => [
        info.name,
        info.id,
        info.backends,
        info.segments,
        since(info.createdAt),
      ]),
    ],
    [
      "Workers",
      workers,
      ["NAME", "TYPE", "DATABASE", "STATE", "PID", "RUNTIME", "RESTARTS", "REASON"],
      workers.items.map((info) => [
        info.name,
        info.type,
        info.database ?? "-",
        info.state,
        info.pid === null ? "-" : String(info.pid),
        info.thread ? `${info.runtime}, thread` : info.runtime,
        info.restarts,
        info.reason ?? "-",
      ]),
    ],
  ];
  const text = [title];
  for (const [name, { problem }, heads, rows] of parts) {
    const shown = problem === null ? section(context, name, heads, rows) : [
      paint(context, "bold", name),
      paint(context, "red", `  ${printable(problem)}`),
    ];
    text.push("", ...shown);
  }
  return text;
}

async function run(context: Context, invocation: Invocation): Promise<number> {
  using registry = attach(invocation);
  const { name, dir, backendId } = registry;
  const seen = look(registry);
  const info = [...Registry.list(placeOf(invocation))].find((one) => one.name === name) ?? null;
  const isWhole = Object.values(seen).every(({ problem }) => problem === null);
  if (invocation.values["json"] === true) {
    const items = Object.entries(seen).map(([key, { items }]) => [key, items]);
    const problems = Object.entries(seen)
      .flatMap(([part, { problem }]) => problem === null ? [] : [{ part, problem }]);
    await context.write(
      json({ registry: info ?? { name, dir }, backendId, ...Object.fromEntries(items), problems }),
    );
  } else {
    const age = info === null
      ? ""
      : `, up ${since(info.createdAt)}, created by process ${info.creatorPid}`;
    const title = `${paint(context, "bold", printable(name))} in ${printable(dir)}${age}: ` +
      `${many(seen.segments.items.length, "segment")}, ${
        many(seen.backends.items.length, "backend")
      }` +
      `, ${many(seen.waits.items.length, "wait")}`;
    await context.write(joined(lines(context, title, seen)));
  }
  return isWhole ? OK : FOUND;
}

/** The command. */
export const show: Command = {
  name: "show",
  summary: "show what is in a registry, and who holds and waits for what",
  operands: ["REGISTRY"],
  details:
    "Shows segments (with their scope and the hash of their layout), backends (with the locks that " +
    "they hold and the one that they wait for), tranches, databases and background workers.\n\n" +
    "It attaches for a moment, as a backend of its own, which is marked; it takes no lock of the " +
    "registry's users. A worker that is to start with the first backend that attaches starts then. " +
    "What is waited for is known since when; what is held is not: noting that down would cost more " +
    "than the lock.",
  examples: [
    ["dsmr show shop", "who holds what"],
    ["dsmr show shop --json | jq '.backends[] | select(.waitsFor)'", "who waits"],
  ],
  options: { database: databaseOption },
  run,
};
