/**
 * The README's charts and table, between two marks.
 *
 * @module
 */

import { existsSync, readFileSync } from "node:fs";
import { dirname, relative } from "node:path";
import { reasons, targetTable } from "./markdown.ts";
import type { Report } from "./report.ts";

export const BEGIN = "<!-- bench:begin -->";
export const END = "<!-- bench:end -->";

/** The charts that the README shows. */
const charts = [
  ["locks", "Acquire and release a lock: dsmr next to glibc, Boost, PostgreSQL and the kernel"],
  ["peers", "Lock and unlock from JavaScript: dsmr next to other libraries"],
] as const;

/** What goes between the marks; `results` is the folder of the results, from the README's. */
export function readmeBlock(report: Report, results: string): string {
  return [
    ...charts.flatMap(([name, title]) => [`![${title}](${results}/latest-${name}.svg)`, ""]),
    targetTable(report.targets),
    "",
    ...reasons(report.targets).flatMap((line) => [line, ""]),
    "`? (+-n %)`: the rounds spread too widely for a ratio; `under` or `over` a limit: nine of ten " +
    "were. Two processes at one lock are those of the part `contention`.",
    "",
    `Measured by \`${report.command}\` on ${report.machine[0] ?? ""}; all tables and charts: ` +
    `[${results}/latest.md](${results}/latest.md).`,
  ].join("\n");
}

/**
 * The README's text with what is between the marks made anew, or why it cannot be. The rest of the
 * text stays as it is, to the byte.
 */
export function withBlock(
  path: string,
  report: Report,
  folder: string,
): { text?: string; why?: string } {
  if (!existsSync(path)) return { why: `there is no ${path}` };
  const text = readFileSync(path, "utf8");
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) return { why: `${path} has no ${BEGIN} followed by ${END}` };
  const results = relative(dirname(path), folder).replaceAll("\\", "/");
  const block = readmeBlock(report, results);
  const before = text.slice(0, begin + BEGIN.length);
  return { text: `${before}\n\n${block}\n\n${text.slice(end)}` };
}
