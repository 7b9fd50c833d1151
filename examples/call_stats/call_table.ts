/**
 * A row of the call statistics, and how the rows are printed.
 *
 * @module
 */

/** What is known of the calls by one name. Times are in milliseconds. */
export interface CallRow {
  name: string;
  calls: number;
  totalMs: number;
  meanMs: number;
  minMs: number;
  maxMs: number;
}

const HEADINGS = ["calls", "total ms", "mean ms", "min ms", "max ms"];

/** The rows as lines of text, with a heading, in columns. */
export function formatTable(rows: readonly CallRow[]): string {
  const lines = rows.map(({ calls, totalMs, meanMs, minMs, maxMs }) => [
    String(calls),
    ...[totalMs, meanMs, minMs, maxMs].map((ms) => ms.toFixed(3)),
  ]);
  const widths = HEADINGS.map((heading, i) =>
    Math.max(heading.length, ...lines.map((cells) => cells[i]?.length ?? 0))
  );
  const line = (cells: string[], name: string): string =>
    [...cells.map((cell, i) => cell.padStart(widths[i] ?? 0)), name].join("  ");
  return [
    line(HEADINGS, "name"),
    ...lines.map((cells, i) => line(cells, printable(rows[i]?.name ?? ""))),
    ...(rows.length === 0 ? ["no calls"] : []),
  ].join("\n");
}

/** A name may come from anywhere; a line feed or an escape must not reach a terminal. */
function printable(name: string): string {
  return name.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    return `\\u{${character.codePointAt(0)?.toString(16)}}`;
  });
}
