/**
 * Where the numbers come from: the line that is below every chart, and what to know about it.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, release } from "node:os";
import { join } from "node:path";
import { bun, deno, root } from "../.ci/toolchain.ts";
import { installed } from "../.ci/system_packages.ts";
import { run } from "./partner.ts";

export interface Machine {
  /** Cores that this process may use. */
  cores: number;
  lines: string[];
  notes: string[];
  /** What is to be added to the notes at the end. */
  stolen: () => string[];
  date: string;
  commit: string;
}

/** Time of all processors since the system began, in ticks: all of it, idle, stolen. */
interface Ticks {
  all: number;
  idle: number;
  /** Given to other virtual machines while this one had work. */
  stolen: number;
}

function ticks(): Ticks {
  const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  const [user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, stolen = 0] = line
    .split(/\s+/).slice(1).map(Number);
  const all = user + nice + system + idle + wait + irq + soft + stolen;
  return { all, idle: idle + wait, stolen };
}

const BUSY_SHARE = 0.1;
const STOLEN_SHARE = 0.02;
const LOOK_MS = 500;

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
  const before = ticks();
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  const after = ticks();
  const busy = 1 - (after.idle - before.idle) / Math.max(1, after.all - before.all);
  const notes: string[] = [];
  if (cores === 1) {
    notes.push(
      "One core: where several processes are involved, this is how the scheduler lets them take " +
        "turns, and not how fast they could be.",
    );
  }
  if (busy > BUSY_SHARE) {
    notes.push(
      `Other programs took ${
        (busy * 100).toFixed(0)
      } % of the processors before the run began: the ` +
        "numbers are worse than what the machine can do.",
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
    stolen: () => {
      const now = ticks();
      const share = (now.stolen - after.stolen) / Math.max(1, now.all - after.all);
      return share <= STOLEN_SHARE ? [] : [
        `${
          (share * 100).toFixed(0)
        } % of the processors' time went to other virtual machines during ` +
        "the run.",
      ];
    },
    date: new Date().toISOString().slice(0, 10),
    commit,
  };
}
