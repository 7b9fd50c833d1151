/**
 * The command-line tool, run as a process: to its end, or watched while it runs; also on a terminal
 * of its own, where `script` can make one.
 *
 * @module
 */

import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import process from "node:process";
import { assert } from "@std/assert";
import type { Registry } from "../lib/mod.ts";
import { type Scene, succeeded, until } from "./_scene.ts";
import { type Child, commandLine, patient, type RuntimeName } from "./_spawn.ts";

/** Ends of the tools that run, for when a test fails. */
const running = new Set<ChildProcessWithoutNullStreams>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** A tool that runs. */
export class RunningTool {
  readonly #process: ChildProcessWithoutNullStreams;
  /** What it has written. */
  out = "";
  err = "";
  readonly #whenEnded: Promise<number | string>;
  #end: number | string | undefined;

  constructor(command: string[], env: Record<string, string>) {
    const [path = "", ...args] = command;
    const { NO_COLOR: _, ...own } = process.env;
    const child = this.#process = spawn(path, args, {
      env: { ...own, DENO_NO_UPDATE_CHECK: "1", TERM: "xterm", ...env },
    });
    running.add(child);
    child.stdin.on("error", () => {});
    child.stdout.setEncoding("utf8").on("data", (text: string) => this.out += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => this.err += text);
    this.#whenEnded = new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => {
        running.delete(child);
        resolve(this.#end = code ?? signal ?? "");
      });
    });
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  /** Resolves when it has ended, with its exit code or signal; rejects when it does not. */
  get ended(): Promise<number | string> {
    const { spawnargs } = this.#process;
    return patient(
      this.#whenEnded,
      () =>
        `the end of ${spawnargs.join(" ")}\nIt has printed: ${
          JSON.stringify([this.out, this.err])
        }`,
    );
  }

  /** Resolves when it has written that; it must not end before. */
  async says(pattern: RegExp): Promise<void> {
    await until(() => pattern.test(this.out) || this.#end !== undefined);
    assert(pattern.test(this.out), `Without ${pattern}: ${JSON.stringify([this.out, this.err])}`);
  }

  type(text: string): void {
    this.#process.stdin.write(text);
  }

  kill(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Closes the pipe that it writes to. */
  stopReading(): void {
    this.#process.stdout.destroy();
  }
}

/** Starts the tool. */
export function startTool(
  runtime: RuntimeName,
  args: string[],
  env: Record<string, string> = {},
): RunningTool {
  return new RunningTool([...commandLine(runtime, "../tool/main.ts"), ...args], env);
}

export interface Ran {
  code: number | string;
  out: string;
  err: string;
}

/** Runs the tool to its end. */
export async function tool(
  runtime: RuntimeName,
  args: string[],
  env: Record<string, string> = {},
): Promise<Ran> {
  const started = startTool(runtime, args, env);
  const code = await started.ended;
  return { code, out: started.out, err: started.err };
}

/** The same, with `--json`: what it has printed, parsed. */
export async function toolJson<T>(
  runtime: RuntimeName,
  args: string[],
): Promise<{ code: number | string; value: T }> {
  const { code, out, err } = await tool(runtime, [...args, "--json"]);
  assert(out.endsWith("\n"), `No JSON: ${JSON.stringify([out, err])}`);
  return { code, value: JSON.parse(out) as T };
}

/** Whether `script` of util-linux is there, which makes terminals. */
export function hasTerminals(): boolean {
  const { stdout } = spawnSync("script", ["--version"], { encoding: "utf8" });
  return typeof stdout === "string" && stdout.includes("util-linux");
}

/** A command on a terminal of 100 columns and 24 rows. */
export function onTerminal(command: string[]): string[] {
  const words = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`);
  return ["script", "-qec", `stty cols 100 rows 24; exec ${words.join(" ")}`, "/dev/null"];
}

/** Starts the tool there. */
export function startOnTerminal(
  runtime: RuntimeName,
  args: string[],
  env: Record<string, string> = {},
): RunningTool {
  return new RunningTool(onTerminal([...commandLine(runtime, "../tool/main.ts"), ...args]), env);
}

/** A registry "test" with a segment "jobs" whose lock one child holds and the other waits for. */
export async function contended(
  scene: Scene,
): Promise<{ registry: Registry; holder: Child; waiter: Child }> {
  const registry = scene.open();
  registry.getNamedSegmentSync("jobs", 4096);
  const [holder, waiter] = [await scene.child("deno"), await scene.child("bun")];
  for (const child of [holder, waiter]) succeeded(await child.ask({ do: "get", segment: "jobs" }));
  succeeded(await holder.ask({ do: "acquire", segment: "jobs" }));
  waiter.send({ do: "acquire", segment: "jobs", mode: "shared" });
  await until(() => [...registry.waits()].length === 1);
  return { registry, holder, waiter };
}
