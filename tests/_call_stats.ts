/**
 * What the tests of the call statistics have in common.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type CallStats, callStats } from "../examples/call_stats/call_stats.ts";
import type { CallRow } from "../examples/call_stats/call_table.ts";
import type { Registry } from "../lib/mod.ts";
import type { StatsCommand, StatsReport } from "./_call_stats_member.ts";
import type { Scene } from "./_scene.ts";
import { Child, commandLine, type RuntimeName, runtimes } from "./_spawn.ts";

/** A process that counts calls. */
export class Member {
  readonly #child: Child;

  private constructor(child: Child) {
    this.#child = child;
  }

  static async start(
    scene: Scene,
    runtime: RuntimeName,
    registry: string = "test",
  ): Promise<Member> {
    const command = commandLine(runtime, "_call_stats_member.ts");
    const member = new Member(scene.adopt(new Child(command)));
    assertEquals(await member.next(), { pid: member.#child.pid });
    await member.ask({ do: "open", dir: scene.dir, registry });
    return member;
  }

  /** Starts two of each runtime. */
  static async startFour(scene: Scene): Promise<Member[]> {
    return await Promise.all(
      [...runtimes, ...runtimes].map((runtime) => Member.start(scene, runtime)),
    );
  }

  get pid(): number {
    return this.#child.pid;
  }

  send(command: StatsCommand): void {
    this.#child.sendLine(JSON.stringify(command));
  }

  async next(): Promise<StatsReport> {
    return await this.#child.next() as unknown as StatsReport;
  }

  /** The next report, which must not be one of a failure. */
  async well(): Promise<StatsReport> {
    const report = await this.next();
    assert(report.ok === true, JSON.stringify(report));
    return report;
  }

  async ask(command: StatsCommand): Promise<StatsReport> {
    this.send(command);
    return await this.well();
  }

  /** Has it begin `command`, and stop before its n-th store. */
  async holdAt(n: number, command: StatsCommand): Promise<void> {
    await this.ask({ do: "atStore", n, then: "hold" });
    this.send(command);
    assertEquals(await this.next(), { isHolding: true });
  }

  /** Lets it go on to the end. */
  async go(): Promise<StatsReport> {
    this.#child.sendLine("go");
    return await this.well();
  }

  async kill(): Promise<void> {
    this.#child.kill();
    await this.#child.ended;
  }

  get ended(): Promise<string> {
    return this.#child.ended;
  }
}

export function open(
  scene: Scene,
  name: string = "test",
): { registry: Registry; stats: CallStats } {
  const registry = scene.open({ addins: [callStats] }, name);
  return { registry, stats: registry.addin(callStats) };
}

export const byName = (rows: CallRow[]): Map<string, CallRow> =>
  new Map(rows.map((row) => [row.name, row]));

/** Calls by name, of rows whose names must differ. */
export function callsByName(rows: CallRow[]): Record<string, number> {
  assertEquals(byName(rows).size, rows.length, "two rows of one name");
  return Object.fromEntries(rows.map(({ name, calls }) => [name, calls]));
}

export const sum = (numbers: number[]): number =>
  numbers.reduce((total, number) => total + number, 0);
