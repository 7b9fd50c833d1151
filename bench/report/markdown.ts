/**
 * The report as Markdown: targets, charts, tables, and what is absent.
 *
 * @module
 */

import type { Verdict } from "../targets.ts";
import type { Report } from "./report.ts";

/** A table, padded as `deno fmt` wants it: the first column to the left, the others to the right. */
export function markdownTable(rows: readonly (readonly string[])[]): string {
  const count = Math.max(...rows.map((row) => row.length));
  const cells = rows.map((row) =>
    Array.from({ length: count }, (_, i) => (row[i] ?? "").replaceAll("|", "\\|"))
  );
  const widths = Array.from(
    { length: count },
    (_, i) => Math.max(3, ...cells.map((row) => row[i]?.length ?? 0)),
  );
  const line = (row: readonly string[]) =>
    `| ${
      row.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))
        .join(" | ")
    } |`;
  const [head = [], ...body] = cells;
  const rule = `| ${
    widths.map((width, i) => i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`).join(" | ")
  } |`;
  return [line(head), rule, ...body.map(line)].join("\n");
}

/** The targets of the design: target, Deno, Bun, C, met or missed. */
export function targetTable(verdicts: readonly Verdict[]): string {
  return markdownTable([
    ["what", "target", "Deno", "Bun", "C", "outcome"],
    ...verdicts.map(({ what, limit, measured, outcome }) => [
      what,
      limit,
      measured.Deno ?? "",
      measured.Bun ?? "",
      measured.C ?? "",
      outcome,
    ]),
  ]);
}

/** Why targets are missed, as far as something was measured that says so. */
export function reasons(verdicts: readonly Verdict[]): string[] {
  return verdicts.flatMap(({ what, outcome, reason }) =>
    outcome === "undecided" && reason !== undefined
      ? [`- Undecided: ${what}: ${reason}`]
      : outcome !== "missed"
      ? []
      : [`- Missed: ${what}: ${reason ?? "no reason was measured."}`]
  );
}

/** The whole report. */
export function markdown(report: Report): string {
  const lines = [
    "# Benchmark",
    "",
    `Measured by \`${report.command}\` on ${report.date}${
      report.commit === "" ? "" : `, commit ${report.commit}`
    }, in ${report.seconds.toFixed(0)} s.`,
    "",
    ...report.machine.map((line) => `${line}  `).map((line, i, all) =>
      i === all.length - 1 ? line.trimEnd() : line
    ),
    "",
    ...report.notes.flatMap((note) => [note, ""]),
    "Subjects take turns, round by round. A ratio is the median of the rounds' ratios; where the " +
    "middle half of the rounds spans more than a quarter of it, or there are fewer than three, a " +
    "question mark stands instead; or, with a target, on which side of it nine of ten rounds are.",
    "",
    "## Targets",
    "",
    targetTable(report.targets),
    "",
    ...reasons(report.targets).flatMap((line) => [line, ""]),
  ];
  if (report.absent.length > 0) {
    lines.push("## Not measured", "", ...report.absent.map((line) => `- ${line}`), "");
  }
  for (const section of report.sections) {
    lines.push(`## ${section.title}`, "");
    for (const { name, title } of section.charts) {
      lines.push(`![${title}](latest-${name}.svg)`, "");
    }
    for (const { title, rows, note } of section.tables) {
      lines.push(`### ${title}`, "", markdownTable(rows), "");
      if (note !== undefined) lines.push(note, "");
    }
    lines.push(`This part took ${section.seconds.toFixed(0)} s.`, "");
  }
  return `${lines.join("\n").trimEnd()}\n`;
}
