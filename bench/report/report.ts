/**
 * The results of a run, and the files they become. Each file replaces the one of the run before in
 * one step, and only when everything has been measured: an interrupted run changes nothing.
 *
 * @module
 */

import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Section } from "../setting.ts";
import type { Verdict } from "../targets.ts";
import { markdown } from "./markdown.ts";
import { drawChart } from "./svg.ts";

/** A section and how long it took. */
export interface TimedSection extends Section {
  part: string;
  seconds: number;
}

export interface Report {
  command: string;
  /** Year, month and day. */
  date: string;
  /** Abbreviated; empty where there is no repository. */
  commit: string;
  isQuick: boolean;
  seconds: number;
  /** Processor, system, runtimes: lines for people. */
  machine: string[];
  /** What the reader must know of the circumstances. */
  notes: string[];
  targets: Verdict[];
  absent: string[];
  sections: TimedSection[];
}

/** The report for programs. `format` is raised when a field changes its meaning. */
export function jsonOf(report: Report): string {
  const sections = report.sections.map(({ part, title, seconds, measures, tables, charts }) => ({
    ...{ part, title, seconds, measures, tables },
    charts: charts.map(({ name }) => `latest-${name}.svg`),
  }));
  return `${JSON.stringify({ format: 1, ...report, sections }, rounded, 2)}\n`;
}

/** Four digits are more than was measured. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isInteger(value)
    ? Number(value.toPrecision(5))
    : value;
}

/** The files of a report, by name: latest.md, latest.json and the charts. */
export function filesOf(report: Report): Map<string, string> {
  const machine = report.machine.join("\n");
  const files = new Map([["latest.md", markdown(report)], ["latest.json", jsonOf(report)]]);
  for (const { charts } of report.sections) {
    for (const chart of charts) files.set(`latest-${chart.name}.svg`, drawChart(chart, machine));
  }
  return files;
}

/** Replaces a file in one step. */
export function replaceFile(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

/** Writes the files of a report into a folder, and removes charts that an earlier run has made. */
export function writeReport(files: ReadonlyMap<string, string>, folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of files) replaceFile(join(folder, name), text);
  for (const name of readdirSync(folder)) {
    if (/^latest-.*\.svg$/.test(name) && !files.has(name)) rmSync(join(folder, name));
  }
}
