/**
 * Text for people: tables, units, colours; and nothing in it that a terminal would obey.
 *
 * @module
 */

import type { Context } from "./command.ts";
import { pad, width } from "./width.ts";

// Control characters, line separators, marks that turn the direction, halves of surrogate pairs.
// deno-lint-ignore no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/**
 * A text as it can be shown: names come from shared memory and from file names, where anybody may
 * have put commands for the terminal.
 */
export function printable(text: string): string {
  return text.toWellFormed().replaceAll(
    UNPRINTABLE,
    (character) => `\\u{${character.charCodeAt(0).toString(16)}}`,
  );
}

/** One line of JSON that is safe to print, too. */
export function json(value: unknown): string {
  const text = JSON.stringify(value).replaceAll(
    UNPRINTABLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return text + "\n";
}

/** Bytes, with a unit: "1.5 MiB". */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  let value = count;
  while (value >= 1024 && power < units.length - 1) {
    value /= 1024;
    power++;
  }
  const digits = power === 0 || value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${units[power]}`;
}

/** A time, in its two largest units: "3 h 12 min". */
export function duration(milliseconds: number): string {
  if (!(milliseconds >= 0)) return "0 ms";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 60) {
    return milliseconds < 10_000 ? `${(milliseconds / 1000).toFixed(1)} s` : `${seconds} s`;
  }
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago that was. */
export function since(date: Date, now: number = Date.now()): string {
  return duration(Math.max(0, now - date.getTime()));
}

/** "1 backend", "2 backends". */
export function many(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** A cell of a table; numbers stand at the right. */
export type Cell = string | number;

/** Lines of columns, the first row being their heads. */
export function table(heads: readonly string[], rows: readonly (readonly Cell[])[]): string[] {
  const isNumeric = heads.map((_, i) =>
    rows.length > 0 && rows.every((row) => typeof row[i] === "number")
  );
  const all = [heads, ...rows].map((row) => row.map((cell) => printable(String(cell))));
  const widths = heads.map((_, i) => Math.max(...all.map((row) => width(row[i] ?? ""))));
  return all.map((row) =>
    row.map((cell, i) => {
      return pad(cell, widths[i] ?? 0, isNumeric[i] ? "start" : "end");
    }).join("  ").trimEnd()
  );
}

/** A colour, or weight, of a text. */
export type Style = "bold" | "dim" | "red" | "green" | "yellow";

const codes: { readonly [S in Style]: number } = {
  bold: 1,
  dim: 2,
  red: 31,
  green: 32,
  yellow: 33,
};

/** The text in a style, where that is wanted. */
export function paint({ hasColor }: Pick<Context, "hasColor">, style: Style, text: string): string {
  return hasColor && text !== "" ? `\u001b[${codes[style]}m${text}\u001b[0m` : text;
}

/** A table with its head in bold, indented. */
export function section(
  context: Pick<Context, "hasColor">,
  title: string,
  heads: readonly string[],
  rows: readonly (readonly Cell[])[],
): string[] {
  const lines = [paint(context, "bold", title)];
  if (rows.length === 0) return [...lines, "  none"];
  const [head = "", ...rest] = table(heads, rows);
  return [...lines, `  ${paint(context, "dim", head)}`, ...rest.map((line) => `  ${line}`)];
}

/** Lines as one text. */
export function joined(lines: readonly string[]): string {
  return lines.map((line) => line + "\n").join("");
}
