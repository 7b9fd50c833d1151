/**
 * What the tests of background workers stand in: a scene whose workers are gone when the test is
 * over, however it ends.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { type BackgroundWorker, DsmrError, Registry, type WorkerSpec } from "../lib/mod.ts";
import { Backend } from "../lib/backend.ts";
import { listBackends } from "../lib/listing.ts";
import { impatiently } from "../lib/wait.ts";
import { kill } from "../lib/workers/member.ts";
import { WorkerTable } from "../lib/workers/table.ts";
import type { Report } from "./_agent.ts";
import type { BackgroundCommand } from "./_background_member.ts";
import { DOUBLES, recordOf, RUNS } from "./_background_worker.ts";
import { PATIENCE_MS, Scene, succeeded, until } from "./_scene.ts";
import { Child, commandLine, isStopped, program, type RuntimeName } from "./_spawn.ts";

/** The module with the workers. */
export const workerModule: URL = new URL("./_background_worker.ts", import.meta.url);

// How the workers' processes are started, here and in the members.
process.env["DSMR_DENO"] = program("deno");
process.env["DSMR_BUN"] = program("bun");

/** Whether a process is there, and no zombie: those of orphans nobody may collect. */
export function isRunning(pid: number): boolean {
  if (existsSync("/proc/self/stat")) {
    try {
      return !/^\d+ \(.*\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    } catch {
      return false;
    }
  }
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return true;
}

/** Sends a signal to a process that must be there. Number 0 would be all of this process' group. */
export function sendTo(pid: number | null | undefined, signal: "SIGKILL" | "SIGTERM"): void {
  assert(typeof pid === "number" && pid > 1, `There is no process ${pid} to be sent ${signal}.`);
  process.kill(pid, signal);
}

/** A process that supervises, registers or attaches. */
export class BackgroundMember {
  readonly child: Child;

  constructor(child: Child) {
    this.child = child;
  }

  async ask(command: BackgroundCommand): Promise<Report> {
    this.child.sendLine(JSON.stringify(command));
    return await this.child.next();
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Kills it, and waits until it is dead: its output may be held open by its workers. */
  async killed(): Promise<void> {
    this.child.kill();
    await until(() => !isRunning(this.pid));
  }
}

export class BackgroundScene {
  readonly scene: Scene = new Scene();
  /** Of this process; it does not supervise unless told so. */
  readonly registry: Registry;
  readonly #members: BackgroundMember[] = [];
  #folder: string | undefined;
  #gateCount = 0;

  constructor(supervise: boolean) {
    this.registry = this.scene.open({ supervise });
    this.scene.details.push((registry) => registry.workers());
    scenes.add(this);
  }

  get dir(): string {
    return this.scene.dir;
  }

  /** Registers a worker of the tests' module. */
  register(spec: Partial<WorkerSpec> & { name: string }): BackgroundWorker {
    return this.registry.registerBackgroundWorker({ module: workerModule, ...spec });
  }

  /** The words of a worker's record. */
  record(name: string, database?: string): Int32Array {
    return new Int32Array(recordOf(this.registry, name, database).buffer);
  }

  /** Waits until the worker has run so often. */
  async hasRun(name: string, count: number): Promise<void> {
    const segment = recordOf(this.registry, name);
    const words = new Int32Array(segment.buffer);
    for (;;) {
      const seen = Atomics.load(words, RUNS);
      if (seen >= count) return;
      const outcome = await segment.wait(RUNS * 4, seen, { timeout: PATIENCE_MS });
      assert(outcome !== "timed-out", `"${name}" has run ${seen} times, not ${count}.`);
    }
  }

  /** Asserts how often it has run, and that there were never two of it. */
  assertRuns(name: string, count: number): void {
    const words = this.record(name);
    assertEquals([words[RUNS], words[DOUBLES]], [count, 0], `[runs, doubles] of ${name}`);
  }

  /** Starts a process; it opens the registry if it is told how. */
  async member(
    runtime: RuntimeName,
    open?: { supervise?: boolean; database?: string },
    env: Record<string, string> = {},
  ): Promise<BackgroundMember> {
    const child = this.scene.adopt(new Child(commandLine(runtime, "_background_member.ts"), env));
    const member = new BackgroundMember(child);
    this.#members.push(member);
    assertEquals(await child.next(), { pid: child.pid });
    if (open !== undefined) {
      succeeded(await member.ask({ do: "open", dir: this.dir, ...open }));
    }
    return member;
  }

  /** A process that supervises, as soon as it is elected. */
  async supervisor(runtime: RuntimeName, env?: Record<string, string>): Promise<BackgroundMember> {
    const member = await this.member(runtime, { supervise: true }, env);
    await this.elected([member]);
    return member;
  }

  /** This process' own backend, as the registry of the scene has it. */
  backend(): Backend {
    const backend = Backend.open(this.dir, "test", "default", {
      mode: "attach",
      maxBackends: 0,
      maxSegments: 0,
      timeout_ms: 10_000,
    });
    this.scene.atEnd(() => backend.release());
    return backend;
  }

  /** The table of the workers, and the backend that has it. */
  table(): [Backend, WorkerTable] {
    const backend = this.backend();
    return [backend, WorkerTable.open(backend)];
  }

  /**
   * Stops a member where it has neither the registry's tables nor the workers': at another moment
   * everybody who needs them would wait for it.
   */
  async stop(member: BackgroundMember): Promise<void> {
    const [backend, table] = this.table();
    const canChange = (): boolean => {
      try {
        impatiently(backend.handle, () => listBackends(backend.handle));
        table.changeSync(() => undefined);
        return true;
      } catch (error) {
        if (!(error instanceof DsmrError) || error.code !== "TIMEOUT") throw error;
        return false;
      }
    };
    for (;;) {
      member.child.kill("SIGSTOP");
      // All of its threads: the signal is only on its way.
      await until(() => isStopped(member.pid));
      if (canChange()) return;
      member.child.kill("SIGCONT");
      await until(() => !isStopped(member.pid));
    }
  }

  /** The one of these that supervises, as soon as one does. */
  async elected(members: BackgroundMember[]): Promise<BackgroundMember> {
    const end = performance.now() + PATIENCE_MS;
    for (;;) {
      assert(performance.now() < end, `Nobody supervises after ${PATIENCE_MS / 1000} s.`);
      for (const member of members) {
        if (succeeded(await member.ask({ do: "isSupervisor" })).found === true) return member;
      }
    }
  }

  /**
   * A program that stands for a runtime: it runs it, but only when the file is there that `open`
   * makes; in its own place, or as a child of its. `arrived` tells whether somebody waits, `pids` who does, or did.
   */
  gate(runtime: RuntimeName, how: "exec" | "child" = "exec"): {
    env: Record<string, string>;
    arrived: () => boolean;
    pids: () => number[];
    open: () => void;
  } {
    this.#folder ??= mkdtempSync(join(tmpdir(), "dsmr.test."));
    const path = join(this.#folder, `${++this.#gateCount}-${runtime}`);
    const script = [
      "#!/bin/sh",
      `echo $$ >> ${path}.arrived`,
      // The folder goes at the end of the test, and this with it.
      `while [ ! -e ${path}.open ]; do [ -e ${path} ] || exit 9; sleep 0.02; done`,
      `${how === "exec" ? "exec " : ""}${program(runtime)} "$@"`,
    ];
    writeFileSync(path, script.join("\n") + "\n");
    chmodSync(path, 0o755);
    const pids = (): number[] =>
      existsSync(`${path}.arrived`)
        // The shell makes the file before it writes the first line.
        ? readFileSync(`${path}.arrived`, "utf8").split("\n").filter(Boolean).map(Number)
        : [];
    return {
      env: { [`DSMR_${runtime.toUpperCase()}`]: path },
      arrived: () => pids().length > 0,
      pids,
      open: () => writeFileSync(`${path}.open`, ""),
    };
  }

  /** Kills every process; returns those of workers. Blocks: also for a runner that gives up. */
  kill(): number[] {
    scenes.delete(this);
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true });
    // Those that supervise first, or they would start others.
    for (const member of this.#members) member.child.kill();
    const pids: number[] = [];
    try {
      const viewer = Registry.openSync("test", {
        dir: this.dir,
        mode: "attach",
        database: "viewer",
      });
      for (const { pid, thread } of viewer.workers()) {
        if (!thread && pid !== null && pid !== process.pid) pids.push(pid);
      }
      viewer.close();
    } catch (error) {
      // The test has destroyed it: its workers end by themselves.
      if (!(error instanceof DsmrError) || error.code !== "NOT_FOUND") throw error;
    }
    Registry.destroy("test", { dir: this.dir });
    // They end by themselves as well, now that it is gone: some have, since they were listed.
    for (const pid of pids) if (isRunning(pid)) kill(pid, "SIGKILL");
    return pids;
  }

  /** Kills every process of a worker, and everything else. */
  async end(): Promise<void> {
    let pids: number[] = [];
    try {
      pids = this.kill();
    } finally {
      // Its folder goes whatever happened.
      await this.scene.end();
    }
    for (const pid of pids) await until(() => !isRunning(pid));
  }
}

/** Those whose tests have not ended. */
const scenes = new Set<BackgroundScene>();
process.on("exit", () => {
  for (const scene of scenes) scene.kill();
});

/** Runs a test's body in a scene in which this process supervises, or does not. */
export async function inBackground(
  options: { supervise: boolean },
  body: (scene: BackgroundScene) => Promise<void>,
): Promise<void> {
  const scene = new BackgroundScene(options.supervise);
  try {
    await scene.scene.run(() => body(scene));
  } finally {
    await scene.end();
  }
}

/** The error that a promise is rejected with. */
export async function rejection(promise: Promise<unknown>): Promise<Error> {
  let result: unknown;
  try {
    result = await promise;
  } catch (error) {
    assert(error instanceof Error, String(error));
    return error;
  }
  throw new Error(`Expected a rejection; it is ${JSON.stringify(result)}.`);
}
