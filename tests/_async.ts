/**
 * What the tests of the async forms share: processes that live on their event loops, and
 * promises that are looked at.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import process from "node:process";
import { DsmrError, type DsmrErrorCode } from "../lib/mod.ts";
import type { LockMode, LWLock, Registry, Segment } from "../lib/mod.ts";
import type { Report } from "./_agent.ts";
import type { AsyncCommand } from "./_async_agent.ts";
import { type Scene, succeeded, until } from "./_scene.ts";
import { Child, commandLine, isStopped, type RuntimeName } from "./_spawn.ts";

/** A process that runs `_async_child.ts`, attached to the scene's registry. */
export class Party {
  readonly child: Child;

  private constructor(child: Child) {
    this.child = child;
  }

  static async start(scene: Scene, runtime: RuntimeName): Promise<Party> {
    const child = scene.adopt(new Child(commandLine(runtime, "_async_child.ts")));
    assertEquals(await child.next(), { pid: child.pid });
    const party = new Party(child);
    await party.ask({ do: "open", dir: scene.dir });
    return party;
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Sends a command; resolves when it has begun. */
  async begin(command: AsyncCommand): Promise<void> {
    this.child.sendLine(JSON.stringify(command));
    assertEquals(await this.child.next(), { said: "begun" });
  }

  /** Sends a command that must succeed; resolves with its report, when it has ended. */
  async ask(command: AsyncCommand): Promise<Report> {
    await this.begin(command);
    return succeeded(await this.child.next());
  }

  /** The same for one that may fail. */
  async try(command: AsyncCommand): Promise<Report> {
    await this.begin(command);
    return await this.child.next();
  }

  next(): Promise<Report> {
    return this.child.next();
  }

  go(): void {
    this.child.go();
  }

  async killed(): Promise<void> {
    this.child.kill();
    assertEquals(await this.child.ended, "SIGKILL");
  }

  /** Nothing pends any more, so it must end by itself, and well. */
  async endsWell(): Promise<void> {
    this.child.endInput();
    assertEquals(await this.child.ended, "exit code 0", this.child.printed);
  }

  /** Stops it; resolves when every thread has stopped. Linux only. */
  async stopped(): Promise<void> {
    this.child.kill("SIGSTOP");
    await until(() => isStopped(this.pid));
  }
}

/** Of segment "a". */
export const SIZE = 256;

/** Opens the registry and segment "a" in this process. */
export function attach(scene: Scene): { registry: Registry; segment: Segment; lock: LWLock } {
  const registry = scene.open();
  const segment = registry.getNamedSegmentSync("a", SIZE);
  return { registry, segment, lock: segment.lock };
}

/** A process that has segment "a". */
export async function party(scene: Scene, runtime: RuntimeName): Promise<Party> {
  const party = await Party.start(scene, runtime);
  await party.ask({ do: "get", segment: "a", size: SIZE });
  return party;
}

/** A process that holds the lock of segment "a". */
export async function holder(scene: Scene, runtime: RuntimeName, mode: LockMode): Promise<Party> {
  const child = await party(scene, runtime);
  assertEquals((await child.ask({ do: "acquire", segment: "a", mode })).held, true);
  return child;
}

/** Nobody holds the lock or waits for it, as far as can be seen. */
export function assertNothingLeft(registry: Registry, lock: LWLock): void {
  assertEquals([...registry.waits()], []);
  assertEquals([...registry.backends()].map(({ held, waitsFor }) => [held, waitsFor]), [
    ...[...registry.backends()].map(() => [[], null]),
  ]);
  assert(lock.tryAcquire("exclusive"));
  lock.release();
}

/** Asserts that the promise is rejected with a DsmrError of the code, whose message has the texts. */
export async function assertRefused(
  promise: Promise<unknown>,
  code: DsmrErrorCode,
  ...texts: (string | number)[]
): Promise<DsmrError> {
  let result: unknown;
  try {
    result = await promise;
  } catch (error) {
    assert(error instanceof DsmrError, `Expected a DsmrError ${code}, got ${error}`);
    assertEquals([error.code, error.name], [code, "DsmrError"], error.message);
    for (const text of texts) {
      assert(error.message.includes(String(text)), `"${text}" is not in: ${error.message}`);
    }
    return error;
  }
  throw new Error(`Expected DsmrError ${code}; it was fulfilled with ${result}.`);
}

/** Asserts that the promise is rejected with this very value. */
export async function assertRejectedWith(
  promise: Promise<unknown>,
  reason: unknown,
): Promise<void> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (thrown: unknown) => ({ thrown }),
  );
  assert(
    "thrown" in outcome && Object.is(outcome.thrown, reason),
    `Got ${JSON.stringify(outcome)}`,
  );
}

/** Whether a promise has settled; kept up to date, and never unhandled. */
export function observe<T>(promise: Promise<T>): { promise: Promise<T>; settled: boolean } {
  const observed = { promise, settled: false };
  const settle = (): void => void (observed.settled = true);
  promise.then(settle, settle);
  return observed;
}

/** One turn of the event loop, in which whatever was due has been done. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

/** What every async form refuses alike, before it does anything. */
export async function assertChecksOptions(
  call: (options: { timeout?: number; signal?: AbortSignal }) => Promise<unknown>,
): Promise<void> {
  for (const timeout of [NaN, -1, -Infinity, "1" as unknown as number]) {
    await assertRejects(() => call({ timeout }), RangeError, "timeout");
  }
  const reason = { why: "before" };
  await assertRejectedWith(call({ signal: AbortSignal.abort(reason) }), reason);
  await assertRejects(
    () => call({ signal: {} as AbortSignal }),
    TypeError,
    "The signal is an object, not an AbortSignal.",
  );
}

/** Whether things that only Linux tells can be tested here; else says so. */
export function isLinux(what: string): boolean {
  if (process.platform === "linux") return true;
  console.log(`not tested: ${what} is looked up in /proc, which is Linux's`);
  return false;
}
