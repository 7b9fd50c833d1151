/**
 * Where the numbers come from: the line that is below every chart, and what to know about it.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { bun, deno, root } from "../.ci/toolchain.ts";
import { installed } from "../.ci/system_packages.ts";
import { run } from "./partner.ts";

export interface Machine {
  /** Cores that this process may use. */
  cores: number;
  lines: string[];
  notes: string[];
  date: string;
  commit: string;
}

/** A program's first line of output; empty where it is not there or fails. */
async function firstLine(program: string, ...args: string[]): Promise<string> {
  const path = program.includes("/") ? program : installed(program);
  if (path === undefined) return "";
  try {
    return (await run(path, args)).split("\n")[0]?.trim() ?? "";
  } catch {
    // Nothing is measured by it: a name is missing, which one sees.
    return "";
  }
}

/** Looks at the machine, before anything is measured. */
export async function describeMachine(): Promise<Machine> {
  const cores = availableParallelism();
  const model = cpus()[0]?.model.trim() || "an unnamed processor";
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    version: string;
  };
  const denoVersion = /\d+\.\d+\.\d+/.exec(await firstLine(deno, "--version"))?.[0] ?? "";
  const bunVersion = await firstLine(bun, "--version");
  const libc = await firstLine("getconf", "GNU_LIBC_VERSION");
  const commit = await firstLine("git", "-C", root, "rev-parse", "--short", "HEAD");
  const [load = 0] = loadavg();
  const notes: string[] = [];
  if (cores === 1) {
    notes.push(
      "One core: where several processes are involved, this is how the scheduler lets them take " +
        "turns, and not how fast they could be.",
    );
  }
  if (load > cores / 4) {
    notes.push(
      `The machine was busy before the run began: load ${load.toFixed(1)}, with ${cores} ` +
        `core${cores === 1 ? "" : "s"}. The numbers are worse than what it can do.`,
    );
  }
  return {
    cores,
    lines: [
      `${cores} x ${model}, Linux ${release()}, ${arch()}`,
      [`Deno ${denoVersion}`, `Bun ${bunVersion}`, libc, `dsmr ${version}`]
        .filter((name) => name.trim() !== "").join(", "),
    ],
    notes,
    date: new Date().toISOString().slice(0, 10),
    commit,
  };
}
