/**
 * What every test stands in: a directory of its own, registries and children that are gone
 * when the test is over, however it ends.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { DsmrError, type DsmrErrorCode, type OpenOptions, Registry } from "../lib/mod.ts";
import type { Report } from "./_agent.ts";
import { Child, commandLine, HostedWorker, patient, type RuntimeName } from "./_spawn.ts";

/**
 * Not a measurement: a test that takes this long hangs. Before its runner, which may have no limit,
 * ends it without a word; more where a variable asks for more of everything.
 */
const TEST_LIMIT_MS = ["DSMR_TEST_ABORTS", "DSMR_STORM_MS"].some((name) => process.env[name])
  ? 3_600_000
  : 230_000;

export class Scene {
  // The gate looks for names that start with "dsmr." when everything is over.
  readonly dir: string = mkdtempSync(
    join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "dsmr.test."),
  );
  readonly #registries: Registry[] = [];
  readonly #children: Child[] = [];
  #workerCount = 0;
  readonly #endings: (() => void)[] = [];
  /** What else there is to say of a test that does not go on. */
  readonly details: ((registry: Registry) => Iterable<unknown>)[] = [
    (registry) => registry.waits(),
    (registry) => registry.backends(),
  ];

  /** Opens a registry here, in this process. */
  open(options: OpenOptions = {}, name: string = "test"): Registry {
    const registry = Registry.openSync(name, { dir: this.dir, ...options });
    this.#registries.push(registry);
    return registry;
  }

  /** Starts a process that runs the agent, not yet attached. */
  async start(runtime: RuntimeName, env: Record<string, string> = {}): Promise<Child> {
    const child = this.adopt(new Child(commandLine(runtime, "_child.ts"), env));
    assertEquals(await child.next(), { pid: child.pid });
    return child;
  }

  /** Starts a process that runs the agent, and has it open a registry here. */
  async child(runtime: RuntimeName, options: OpenOptions = {}, name = "test"): Promise<Child> {
    const child = await this.start(runtime);
    const { dir } = this;
    succeeded(await child.ask({ do: "open", name, options: { dir, ...options } }));
    return child;
  }

  adopt(child: Child): Child {
    this.#children.push(child);
    return child;
  }

  /** Starts a process that can have Workers. */
  async host(runtime: RuntimeName): Promise<Child> {
    const child = this.adopt(new Child(commandLine(runtime, "_host.ts")));
    assertEquals(await child.next(), { pid: child.pid });
    return child;
  }

  /** Starts a Worker in such a process, and has it open a registry here. */
  async worker(host: Child): Promise<HostedWorker> {
    const worker = new HostedWorker(host, ++this.#workerCount);
    assertEquals(await worker.next(), { said: "ready" });
    succeeded(await worker.ask({ do: "open", options: { dir: this.dir } }));
    return worker;
  }

  /** Something to undo at the end, before the directory goes. */
  atEnd(ending: () => void): void {
    this.#endings.push(ending);
  }

  /** The names of the files in the directory, sorted. */
  files(): string[] {
    return readdirSync(this.dir).sort();
  }

  /** Where everybody is, for a test that does not go on. */
  describe(): string {
    const lines = this.#children.map(({ pid, name, printed }) =>
      `process ${pid}: ${name}\n${printed.slice(-1000)}`
    );
    for (const registry of this.#registries) {
      try {
        for (const tell of this.details) {
          for (const detail of tell(registry)) lines.push(JSON.stringify(detail));
        }
      } catch (error) {
        lines.push(`and registry "${registry.name}" does not say more: ${error}`);
      }
    }
    return lines.join("\n");
  }

  /** Runs a test's body, which must end in time. */
  async run(body: () => void | Promise<void>): Promise<void> {
    const running = (async () => await body())();
    await patient(running, () => `the end of the test\n${this.describe()}`, TEST_LIMIT_MS);
  }

  async end(): Promise<void> {
    for (const child of this.#children) child.kill();
    try {
      // Where there are none nothing is awaited: who ends with a runner that has no after() has no
      // time for it (see _declare.ts).
      const ends = this.#children.map((child) => child.ended);
      if (ends.length > 0) await Promise.all(ends);
    } finally {
      for (const registry of this.#registries) registry.close();
      for (const ending of this.#endings.reverse()) ending();
      rmSync(this.dir, { recursive: true, force: true });
    }
  }
}

/** Runs a test's body in a scene, and ends the scene. */
export async function inScene(body: (scene: Scene) => void | Promise<void>): Promise<void> {
  const scene = new Scene();
  try {
    await scene.run(() => body(scene));
  } finally {
    await scene.end();
  }
}

/** Not a measurement: what takes this long never happens. */
export const PATIENCE_MS = 120_000;

/** Resolves once the condition holds, for what happens in another process at its own time. */
export async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!condition()) {
    assert(performance.now() < end, `Not within ${PATIENCE_MS / 1000} s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** The report, which must not be one of a failure. */
export function succeeded(report: Report): Report {
  assert(report.ok, JSON.stringify(report));
  return report;
}

/** Asserts that it throws a DsmrError of this code whose message contains all the texts. */
export function assertFails(
  call: () => unknown,
  code: DsmrErrorCode,
  ...texts: (string | number)[]
): DsmrError {
  let result: unknown;
  try {
    result = call();
  } catch (error) {
    assert(error instanceof DsmrError, `Expected a DsmrError ${code}, got ${error}`);
    assertEquals([error.code, error.name], [code, "DsmrError"], error.message);
    for (const text of texts) {
      assert(error.message.includes(String(text)), `"${text}" is not in: ${error.message}`);
    }
    return error;
  }
  throw new Error(`Expected DsmrError ${code}; it returned ${result}.`);
}

/** The same for what an agent reports. */
export function assertFailed(
  report: Report,
  code: DsmrErrorCode,
  ...texts: (string | number)[]
): void {
  assertEquals([report.ok, report.code], [false, code], JSON.stringify(report));
  for (const text of texts) {
    assert(report.message?.includes(String(text)), `"${text}" is not in: ${report.message}`);
  }
}
