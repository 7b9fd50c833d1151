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

/** Writes latest.md, latest.json and the charts into a folder, and returns their paths. */
export function writeReport(report: Report, folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  const machine = report.machine.join("\n");
  const files = new Map<string, string>();
  for (const { charts } of report.sections) {
    for (const chart of charts) files.set(`latest-${chart.name}.svg`, drawChart(chart, machine));
  }
  files.set("latest.json", jsonOf(report));
  files.set("latest.md", markdown(report));
  const paths: string[] = [];
  for (const [name, text] of files) {
    const path = join(folder, name);
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
    paths.push(path);
  }
  // Charts of an earlier run that this one has not made.
  for (const name of readdirSync(folder)) {
    if (/^latest-.*\.svg$/.test(name) && !files.has(name)) rmSync(join(folder, name));
  }
  return paths;
}
