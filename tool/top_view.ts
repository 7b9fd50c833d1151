/**
 * How `dsmr top` looks: a picture for a terminal, or lines for anything else.
 *
 * @module
 */

import type { Context } from "./command.ts";
import { lockName } from "./locks.ts";
import type { BusyLock, Party, Sample, TrancheRate } from "./sample.ts";
import { type Cell, duration, joined, many, paint, printable, since, table } from "./text.ts";
import { cut as cutTo } from "./width.ts";

/** What the tranches are sorted by, and the key for it. */
export const orders = {
  w: { name: "waits/s", of: (one: TrancheRate): number => one.waitsPerSecond },
  t: { name: "waited/s", of: (one: TrancheRate): number => one.waitedPerSecond },
  a: { name: "waits in all", of: (one: TrancheRate): number => one.contended },
  n: { name: "name", of: (): number => 0 },
} as const;

/** A key of {@linkcode orders}. */
export type Order = keyof typeof orders;

/** Whether a key means an order. */
export function isOrder(key: string): key is Order {
  return Object.hasOwn(orders, key);
}

/** The tranches, hottest first. */
export function sorted(tranches: readonly TrancheRate[], order: Order): TrancheRate[] {
  const { of } = orders[order];
  const byName = (a: TrancheRate, b: TrancheRate) => a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
  const byCount = (a: TrancheRate, b: TrancheRate) => order === "n" ? 0 : b.contended - a.contended;
  return tranches.toSorted((a, b) => of(b) - of(a) || byCount(a, b) || byName(a, b));
}

function party({ pid, mode, since: from }: Party, at: Date): string {
  return from === null ? `${pid} ${mode}` : `${pid} ${mode} for ${since(from, at.getTime())}`;
}

function parties(all: readonly Party[], at: Date): string {
  const shown = all.slice(0, 4).map((one) => party(one, at));
  const more = all.length - shown.length;
  return shown.length === 0 ? "-" : shown.join(", ") + (more > 0 ? `, ${more} more` : "");
}

function lockRow(lock: BusyLock, at: Date): Cell[] {
  const { tranche, segment, byteOffset, holders, waiters } = lock;
  const name = lockName({ tranche, segment, byteOffset, mode: "shared", since: null });
  return [name, parties(holders, at), parties(waiters, at)];
}

function trancheRow(one: TrancheRate): Cell[] {
  return [
    one.name,
    one.waitsPerSecond.toFixed(1).padStart(9),
    `${one.waitedPerSecond.toFixed(1)} ms`.padStart(11),
    one.contended,
    duration(one.waited).padStart(11),
    one.abandoned,
  ];
}

const TRANCHE_HEADS = ["TRANCHE", "  WAITS/S", "   WAITED/S", "WAITS", "     WAITED", "ABANDONED"];

function summary(sample: Sample): string {
  return [
    many(sample.backends, "backend"),
    many(sample.segments, "segment"),
    `${sample.held} held`,
    `${sample.waiting} waiting`,
    `${sample.waitsPerSecond.toFixed(1)} waits/s`,
    `${sample.waitedPerSecond.toFixed(1)} ms waited/s`,
  ].join(", ");
}

/** So many lines of at most so many columns. */
function fit(lines: readonly string[], rows: number): string[] {
  if (lines.length <= rows) return [...lines];
  return [...lines.slice(0, Math.max(0, rows - 1)), `  ... ${lines.length - rows + 1} more`];
}

/** The picture: as many lines as fit, none wider than the terminal. */
export function picture(
  context: Pick<Context, "hasColor">,
  sample: Sample,
  order: Order,
  size: { columns: number; rows: number },
): string[] {
  const cut = (line: string): string => cutTo(line, Math.max(1, size.columns));
  const bold = (line: string): string => paint(context, "bold", cut(line));
  const [lockHead = "", ...locks] = table(
    ["LOCK", "HELD BY", "WAITED FOR BY"],
    sample.locks.map((lock) => lockRow(lock, sample.at)),
  );
  const rows = sorted(sample.tranches, order);
  const [trancheHead = "", ...tranches] = table(TRANCHE_HEADS, rows.map(trancheRow));
  // Two lines above, two heads, two empty ones, and the keys.
  const room = Math.max(2, size.rows - 7);
  const lockRoom = Math.min(Math.max(1, locks.length), Math.ceil(room / 2));
  const painted = fit(locks, lockRoom).map((line, i) =>
    (sample.locks[i]?.waiters.length ?? 0) > 0 ? paint(context, "yellow", cut(line)) : cut(line)
  );
  const lines = [
    bold(`dsmr top: ${printable(sample.registry)} in ${printable(sample.dir)}`),
    cut(summary(sample)),
    "",
    bold(lockHead),
    ...(painted.length === 0 ? [cut("  no lock is held or waited for")] : painted),
    "",
    bold(trancheHead),
    ...fit(tranches, room - lockRoom).map(cut),
    paint(
      context,
      "dim",
      cut(`sorted by ${orders[order].name}; w waits/s  t waited/s  a waits in all  n name  q quit`),
    ),
  ];
  // Where not even one lock and one tranche fit, the end goes: a screen that scrolls is of no use.
  return lines.slice(0, Math.max(1, size.rows));
}

/** Tranches that are in the lines, at most. */
const LINES_MAX = 5;

/** The same as lines, for files and pipes: only what happens. */
export function plain(sample: Sample, order: Order): string {
  const lines = [`${sample.at.toISOString()} ${printable(sample.registry)}: ${summary(sample)}`];
  for (const lock of sample.locks) {
    const [name = "", holders, waiters] = lockRow(lock, sample.at).map(String);
    lines.push(`  lock ${printable(name)}: held by ${holders}; waited for by ${waiters}`);
  }
  const hot = sorted(sample.tranches, order).filter(({ contended }) => contended > 0);
  for (const one of hot.slice(0, LINES_MAX)) {
    lines.push(
      `  tranche ${printable(one.name)}: ${one.waitsPerSecond.toFixed(1)} waits/s, ` +
        `${one.waitedPerSecond.toFixed(1)} ms waited/s, ${one.contended} waits in all, ` +
        `${duration(one.waited)} waited, ${one.abandoned} abandoned`,
    );
  }
  return joined(lines);
}
