/**
 * What a part of the benchmark is given, and what it hands back.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { bun, deno, root } from "../.ci/toolchain.ts";
import type { Summary } from "./harness.ts";
import type { Options } from "./options.ts";
import { Partner } from "./partner.ts";
import type { Chart } from "./report/svg.ts";
import type { Verdict } from "./targets.ts";

export const runtimes = ["Deno", "Bun"] as const;
export type Runtime = (typeof runtimes)[number];

/** What one part is given. */
export interface Setting {
  /** The part's own, in shared memory: everything that it makes is in here, and goes with it. */
  dir: string;
  options: Options;
  cores: number;
  /** The number of rounds or the like: in full, and when it must be quick. */
  pick(full: number, quick: number): number;
  progress(text: string): void;
}

/** Rows of text, the first one is the head. */
export interface Table {
  title: string;
  rows: string[][];
  note?: string;
}

/** What one part has measured. */
export interface Section {
  title: string;
  tables: Table[];
  charts: Chart[];
  targets: Verdict[];
  /** Everything that the tables are made of, by name. */
  measures: Record<string, Summary>;
  /** What could not be measured, and what to do about it. */
  absent: string[];
}

/** A part of the benchmark; `name` is what --only takes. */
export interface Part {
  name: string;
  title: string;
  measure(setting: Setting): Promise<Section>;
}

/** The path of a C program of the benchmark. */
export function program(name: string): string {
  const path = join(root, "zig-out", "bin", name);
  if (!existsSync(path)) throw new Error(`The build has made no ${path}.`);
  return path;
}

/** The command that runs a script of bench/ in a runtime. */
export function command(runtime: Runtime, script: string, ...args: string[]): string[] {
  const path = isAbsolute(script) ? script : join("bench", script);
  return runtime === "Deno"
    ? [deno, "run", "--allow-all", "--no-check", path, ...args]
    : [bun, "run", path, ...args];
}

/** Starts a C program of the benchmark. */
export function startProgram(name: string, ...args: string[]): Partner {
  return new Partner(program(name), args);
}

/** Starts a script of bench/. */
export function startScript(runtime: Runtime, script: string, ...args: string[]): Partner {
  const [path = "", ...words] = command(runtime, script, ...args);
  return new Partner(path, words);
}
