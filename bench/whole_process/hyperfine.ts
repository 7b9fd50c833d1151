/**
 * Whole processes, timed by hyperfine: without a shell, after warm-ups. Where it is not installed
 * they are timed here, more coarsely.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { installed } from "../../.ci/system_packages.ts";
import { run } from "../partner.ts";

/** What is timed, and what is run before each time, untimed. */
export interface Program {
  name: string;
  command: string[];
  prepare: string[];
}

/** Milliseconds of each run, by the program's name. */
export type Times = Map<string, number[]>;

/** Runs programs so often each, after so many warm-ups, one after the other. */
export type Timer = (programs: Program[], runs: number, warmUps: number) => Promise<Times>;

/** Words for hyperfine, which takes a command apart as a shell would. */
function quoted(command: readonly string[]): string {
  return command.map((word) =>
    /^[\w./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
  )
    .join(" ");
}

function hyperfine(path: string, dir: string): Timer {
  return async (programs, runs, warmUps) => {
    const file = join(dir, "hyperfine.json");
    const args = ["--shell=none", "--style=none", `--runs=${runs}`, `--warmup=${warmUps}`];
    for (const { name, command, prepare } of programs) {
      args.push("--prepare", quoted(prepare), "--command-name", name, quoted(command));
    }
    await run(path, [...args, "--export-json", file]);
    const { results } = JSON.parse(readFileSync(file, "utf8")) as {
      results: { command: string; times: number[] }[];
    };
    return new Map(results.map(({ command, times }) => [command, times.map((s) => s * 1000)]));
  };
}

const byHand: Timer = async (programs, runs, warmUps) => {
  const times: Times = new Map(programs.map(({ name }) => [name, []]));
  for (const { name, command, prepare } of programs) {
    const [path = "", ...words] = command;
    const [preparing = "", ...more] = prepare;
    for (let i = -warmUps; i < runs; i++) {
      await run(preparing, more);
      const started = performance.now();
      await run(path, words);
      if (i >= 0) times.get(name)?.push(performance.now() - started);
    }
  }
  return times;
};

interface Chosen {
  time: Timer;
  /** With fewer runs it does not begin. */
  fewest: number;
  name: string;
  absent: string[];
}

/** hyperfine, if it is installed; else our own, and why. */
export function timer(dir: string): Chosen {
  const path = installed("hyperfine");
  if (path !== undefined) {
    return { time: hyperfine(path, dir), fewest: 2, name: "hyperfine", absent: [] };
  }
  return {
    time: byHand,
    fewest: 1,
    name: "run.ts",
    absent: [
      "hyperfine: not installed (apt-get install hyperfine): whole processes are timed by run.ts",
    ],
  };
}
