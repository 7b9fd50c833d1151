/**
 * What the tests of add-ins have in common.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { MemberCommand, MemberReport } from "./_addin_member.ts";
import {
  type AddinDefinition,
  defineAddin,
  type MainAreaStruct,
  type StartupContext,
} from "../lib/mod.ts";
import { assertFails, type Scene } from "./_scene.ts";
import { Child, commandLine, type RuntimeName } from "./_spawn.ts";

/** A process of `_addin_member.ts`. */
export class Member {
  readonly #child: Child;

  private constructor(child: Child) {
    this.#child = child;
  }

  static async start(scene: Scene, runtime: RuntimeName): Promise<Member> {
    const env = { ADDIN_LOG: join(scene.dir, "log") };
    const member = new Member(
      scene.adopt(new Child(commandLine(runtime, "_addin_member.ts"), env)),
    );
    assertEquals(await member.next(), { pid: member.pid });
    return member;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** The next report. */
  async next(): Promise<MemberReport> {
    return await this.#child.next() as unknown as MemberReport;
  }

  send(command: MemberCommand): void {
    this.#child.sendLine(JSON.stringify(command));
  }

  async ask(command: MemberCommand): Promise<MemberReport> {
    this.send(command);
    return await this.next();
  }

  /** Its next report must say that it holds here. */
  async holds(where: string): Promise<void> {
    const report = await this.next();
    assertEquals(report.holding, where, JSON.stringify(report));
  }

  /** Lets it go on. */
  go(): void {
    this.#child.sendLine("go");
  }

  /** At once, without a goodbye. */
  async kill(): Promise<void> {
    this.#child.kill();
    await this.#child.ended;
  }

  /** How it has ended, by itself. */
  get ended(): Promise<string> {
    return this.#child.ended;
  }
}

/** The lines that the processes have logged, without their pids. */
export function logged(scene: Scene): string[] {
  const path = join(scene.dir, "log");
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8").trimEnd().split("\n").map((line) => line.replace(/^\d+ /, ""));
}

/** The report, which must not be one of a failure. */
export function well(report: MemberReport): MemberReport {
  assert(report.ok, JSON.stringify(report));
  return report;
}

/** Takes a part of the main area, filled with 7 where it is fresh. */
export function take(ctx: StartupContext, name: string, size: number): MainAreaStruct {
  return ctx.addinInitLock.withSync("exclusive", () => {
    const area = ctx.initStruct(name, size);
    if (!area.found) {
      assert(area.bytes.every((byte) => byte === 0), "fresh memory is not zero");
      area.bytes.fill(7);
    }
    return area;
  });
}

/** Hands its startup context out. */
export function openWith(
  scene: Scene,
  definition: AddinDefinition<StartupContext>,
): StartupContext {
  const addin = defineAddin(definition);
  return scene.open({ addins: [addin] }).addin(addin);
}

/** Asserts that opening fails because of a hook, and that it leaves no backend. */
export function assertHookFails(
  scene: Scene,
  definition: AddinDefinition<unknown>,
  hook: string,
  ...texts: string[]
): unknown {
  const addin = defineAddin(definition);
  const error = assertFails(
    () => scene.open({ addins: [addin] }),
    "INIT_FAILED",
    `${hook} hook`,
    `"${addin.name}"`,
    ...texts,
  );
  assertEquals([...scene.open().backends()].length, 1);
  return error.cause;
}
