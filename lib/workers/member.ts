/**
 * What a supervisor has started: processes, and threads of its own process.
 *
 * Neither keeps the supervisor's program alive by itself. Each is told of once when it has ended;
 * the system keeps a child's number until then, so that signals reach nobody else.
 *
 * @module
 */

import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Worker } from "node:worker_threads";
import { messageOf, moduleCommands, native, textOf } from "../ffi/native.ts";
import type { ProcessEnd } from "./ends.ts";
import { processEntry, threadEntry } from "./entries.ts";
import type { Attempt } from "./lifecycle.ts";
import type { StoredSpec } from "./spec.ts";

/** What a worker's process or thread is told: where its row is. */
export interface Orders extends Attempt {
  /** Its name, for people: also of those who look at the system's processes. */
  worker: string;
  dir: string;
  name: string;
  database: string;
  /** Tells the registry from a later one of its name. In decimal. */
  instance: string;
}

/** A process or thread that was started for one attempt. */
export class Member {
  readonly attempt: Attempt;
  readonly isThread: boolean;
  /** How long it may take to end. */
  readonly grace: number;
  readonly startedAt: number = Date.now();
  /** How it has ended. */
  end: ProcessEnd | undefined;
  /** When its backend was found dead before its end was told. */
  deadSince: number | undefined;
  #process: ChildProcess | undefined;
  #thread: Worker | undefined;
  readonly #ended: (() => void)[];

  private constructor(attempt: Attempt, spec: StoredSpec, ended: () => void) {
    this.attempt = attempt;
    this.isThread = spec.thread;
    this.grace = spec.grace;
    this.#ended = [ended];
  }

  /** Starts one. If that fails, it has ended at once, with the reason. Calls `ended` later on. */
  static async start(orders: Orders, spec: StoredSpec, ended: () => void): Promise<Member> {
    const { slot, generation, attempt } = orders;
    const member = new Member({ slot, generation, attempt }, spec, ended);
    try {
      // It would run itself, again and again, each with a worker of its own.
      if (native().runtime.isSingleFile) {
        throw new Error(
          "a program that was compiled into a single file has no modules to run. " +
            "Let a program that was not supervise the registry.",
        );
      }
      if (spec.thread) await member.#startThread(orders);
      else await member.#startProcess(orders, spec);
    } catch (cause) {
      member.#finish({ code: null, signal: null, error: messageOf(cause) });
    }
    return member;
  }

  async #startProcess(orders: Orders, spec: StoredSpec): Promise<void> {
    const { spawn } = await import("node:child_process");
    const command = moduleCommands[spec.runtime];
    const { runtime } = native();
    const named = runtime.environment(command.variable) ?? "";
    const isOwn = spec.runtime === runtime.name;
    const program = named !== "" ? named : isOwn ? process.execPath : command.program;
    const child = spawn(program, [
      ...command.run,
      ...(spec.runtimeArgs ?? command.permissions),
      processEntry.protocol === "file:" ? fileURLToPath(processEntry) : processEntry.href,
      JSON.stringify(orders),
    ], {
      // What it prints is printed here. It is no pipe: the worker may outlive us.
      stdio: ["ignore", "inherit", "inherit"],
    });
    this.#process = child;
    child.on("exit", (code, signal) => this.#finish({ code, signal }));
    child.on("error", (cause) => {
      if (child.pid !== undefined) return;
      this.#finish({
        code: null,
        signal: null,
        error: `cannot run ${program}: ${messageOf(cause)} Set ${command.variable} to the ` +
          "program's path.",
      });
    });
    if (child.pid !== undefined) child.unref();
  }

  async #startThread(orders: Orders): Promise<void> {
    const { Worker } = await import("node:worker_threads");
    const thread = new Worker(threadEntry, { workerData: orders });
    this.#thread = thread;
    thread.unref();
    let error: string | undefined;
    thread.on("error", (cause) => error = textOf(cause));
    thread.on("exit", (code) =>
      this.#finish(
        error === undefined ? { code, signal: null } : { code: null, signal: null, error },
      ));
  }

  #finish(end: ProcessEnd): void {
    if (this.end !== undefined) return;
    this.end = end;
    // Not before the caller knows the member.
    queueMicrotask(() => {
      for (const ended of this.#ended) ended();
    });
  }

  /** Calls back when it has ended. */
  whenEnded(callback: () => void): void {
    if (this.end === undefined) this.#ended.push(callback);
    else callback();
  }

  /** The process; undefined for a thread, and where it could not be started. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Sends a signal to a process that has not ended. A thread hears of nothing but SIGKILL. */
  signal(signal: "SIGTERM" | "SIGKILL"): void {
    if (this.end !== undefined) return;
    if (this.#thread !== undefined) {
      if (signal === "SIGKILL") void this.#thread.terminate();
    } else if (this.#process?.pid !== undefined) {
      kill(this.#process.pid, signal);
    }
  }

  /** Keeps the program alive until it has ended. */
  hold(): void {
    if (this.end !== undefined) return;
    this.#process?.ref();
    this.#thread?.ref();
  }
}

/** Sends a signal. That the process is gone is as good. */
export function kill(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as { code?: string }).code !== "ESRCH") throw error;
  }
}

/**
 * Whether a process is the one that was started with these orders, as far as the system tells:
 * numbers of processes are used again, and mean others in other containers.
 */
export function isProcessOf(pid: number, attempt: Attempt, instance: bigint): boolean {
  if (process.platform !== "linux") return true;
  let line: string;
  try {
    line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch (error) {
    // Not allowed to look: then the number must do.
    return (error as { code?: string }).code !== "ENOENT";
  }
  const { slot, generation } = attempt;
  return [`"instance":"${instance}"`, `"slot":${slot},`, `"generation":${generation},`]
    .every((part) => line.includes(part));
}
