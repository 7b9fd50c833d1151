/**
 * The processes that the benchmark starts: none of them outlives it. Each leads a process group of
 * its own, and ends with all that it has started: hyperfine's programs, say, or a server's. One
 * that would leave something else behind is asked to end by a signal of its own.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { root } from "../.ci/toolchain.ts";

/** What is special about a program. */
export interface Manner {
  /** The folder it starts in; the repository's if none is given. */
  cwd?: string;
  /** Whom it runs as; only root may say so. */
  user?: { uid: number; gid: number } | undefined;
  /**
   * The signal at which it ends by itself, with all that it has started and made: it alone gets
   * that one. Without, it and its group get SIGKILL.
   */
  endsBy?: NodeJS.Signals;
}

const running = new Map<ChildProcess, Manner>();
let isStopping = false;

/** A program that answers each line of input with a line of output, or just runs. */
export class Partner {
  readonly #command: string;
  readonly #child;
  readonly #lines: string[] = [];
  readonly #ended: Promise<void>;
  #hasEnded = false;
  #output = "";
  #errors = "";
  #wake: () => void = () => {};

  constructor(
    command: string,
    args: string[],
    env: NodeJS.ProcessEnv = process.env,
    manner: Manner = {},
  ) {
    if (isStopping) throw new Error("the benchmark is stopping");
    this.#command = [command, ...args].join(" ");
    this.#child = spawn(command, args, {
      cwd: manner.cwd ?? root,
      ...manner.user,
      env: { ...env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
    });
    const child = this.#child;
    running.set(child, manner);
    // Writing to one that has ended fails here; that it has ended is told below.
    child.stdin.on("error", () => {});
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#output + text).split("\n");
      this.#output = lines.pop() ?? "";
      this.#lines.push(...lines);
      this.#wake();
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.#errors += text);
    this.#ended = new Promise((resolve, reject) => {
      const end = (trouble: string | undefined) => {
        running.delete(child);
        this.#hasEnded = true;
        if (trouble === undefined) resolve();
        else reject(new Error(`${this.#command}: ${trouble}\n${this.#errors}`));
        this.#wake();
      };
      child.on("error", (error) => end(error.message));
      child.on("close", (code, signal) => {
        end(code === 0 ? undefined : `ended with ${signal ?? code}`);
      });
    });
    // Whoever asks or waits gets it.
    this.#ended.catch(() => {});
  }

  /** Sends a line and returns the answer. */
  ask(line: string): Promise<string> {
    this.#child.stdin.write(`${line}\n`);
    return this.next();
  }

  /** The next line that it says. */
  async next(): Promise<string> {
    while (this.#lines.length === 0) {
      if (this.#hasEnded) {
        await this.#ended;
        throw new Error(`${this.#command} ended without an answer`);
      }
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#lines.shift() ?? "";
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Why one that has ended did so, in one line; empty if all went well. */
  async trouble(): Promise<string> {
    try {
      await this.#ended;
      return "";
    } catch (error) {
      return String(error).split("\n")[0] ?? "";
    }
  }

  /** Ends one that does not end by itself. */
  async stop(): Promise<void> {
    endGroup(this.#child);
    await this.#ended.catch(() => {});
  }

  /** Closes its input, waits for its end and returns what is left of its output. */
  async end(): Promise<string> {
    this.#child.stdin.end();
    await this.#ended;
    return [...this.#lines, this.#output].join("\n");
  }
}

/** Runs a program to its end and returns what it printed. */
export function run(
  command: string,
  args: string[],
  env?: NodeJS.ProcessEnv,
  manner?: Manner,
): Promise<string> {
  return new Partner(command, args, env, manner).end();
}

/** Groups that were told to end, but may not be gone: what a child has started dies after it. */
const dying = new Set<number>();

/** The child and what it has started. Its own end is not yet known, so the number is still its. */
function endGroup(child: ChildProcess): void {
  const { pid } = child;
  const manner = running.get(child);
  if (pid === undefined || manner === undefined) return;
  try {
    if (manner.endsBy === undefined) process.kill(-pid, "SIGKILL");
    else process.kill(pid, manner.endsBy);
    dying.add(pid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Whether a process of these groups still runs; one that is dead may wait for ever to be buried. */
function anyRuns(groups: ReadonlySet<number>): boolean {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).some((pid) => {
    try {
      // After the program's name, in brackets: state, parent, group.
      const [state = "", , group] = readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /s, "").split(" ");
      return !"ZX".includes(state) && groups.has(Number(group));
    } catch {
      // It has ended meanwhile.
      return false;
    }
  });
}

/** Ends what runs, and resolves when nothing runs any more. */
export async function endAll(): Promise<void> {
  for (const child of running.keys()) endGroup(child);
  await allEnded();
}

/** Ends what runs, and lets nothing start any more. */
export function stopAll(): void {
  isStopping = true;
  for (const child of running.keys()) endGroup(child);
}

/** Resolves when nothing runs any more. */
export async function allEnded(): Promise<void> {
  const pause = () => new Promise((resolve) => setTimeout(resolve, 5));
  while (running.size > 0) await pause();
  while (dying.size > 0 && anyRuns(dying)) await pause();
  dying.clear();
}
