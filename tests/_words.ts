/**
 * What tests have in common that kill processes in the midst of changing the table of those who
 * wait on words and signals.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { Registry, Segment } from "../lib/mod.ts";
import { Backend } from "../lib/backend.ts";
import type { Parking } from "../lib/parking.ts";
import { PARKED, ParkedRows, PARKING_NAME, PARKING_SIZE } from "../lib/parking_rows.ts";
import { observe } from "./_async.ts";
import { type Scene, until } from "./_scene.ts";
import { Child, commandLine } from "./_spawn.ts";
import type { WordsCommand } from "./_words_member.ts";

export class Member {
  readonly child: Child;

  constructor(child: Child) {
    this.child = child;
  }

  send(command: WordsCommand): void {
    this.child.sendLine(JSON.stringify(command));
  }

  async says(...expected: string[]): Promise<void> {
    for (const said of expected) assertEquals((await this.child.next()).said, said);
  }

  async ask(command: WordsCommand, ...expected: string[]): Promise<void> {
    this.send(command);
    await this.says(...expected);
  }

  async kill(): Promise<void> {
    this.child.kill();
    assertEquals(await this.child.ended, "SIGKILL");
  }

  /** It is to die at a change; each step is a little later than the one before. */
  async arm(step: number): Promise<void> {
    const change = Math.floor(step / 2) + 1;
    await this.ask({ do: "die", change, when: step % 2 === 0 ? "before" : "after" }, "armed");
  }

  /** Whether it died of what it has been told to do. If not, it says so, and is killed now. */
  async died(...expected: string[]): Promise<boolean> {
    let hasDied = false;
    for (const said of expected) {
      const outcome = await this.child.next().then((report) => report.said, () => "died");
      hasDied ||= outcome === "died";
      if (!hasDied) assertEquals(outcome, said);
    }
    await this.kill();
    return hasDied;
  }
}

/** How many waits this process has, which nobody else's death is to disturb. */
export const OURS = 3;

export class Stage {
  readonly scene: Scene;
  readonly registry: Registry;
  readonly segment: Segment;
  readonly parking: Parking;
  readonly #rows: ParkedRows;
  #count = 0;
  #next: Promise<Member>;

  constructor(scene: Scene, maxSegments = 16) {
    this.scene = scene;
    this.registry = scene.open({ maxSegments });
    this.segment = this.registry.getNamedSegmentSync("a", 64);
    const backend = Backend.open(scene.dir, "test", "default", {
      mode: "attach",
      maxBackends: 0,
      maxSegments: 0,
      timeout_ms: 1000,
    });
    scene.atEnd(() => backend.release());
    this.parking = backend.parking;
    const table = backend.ownSegmentSync(PARKING_NAME, PARKING_SIZE);
    this.#rows = new ParkedRows(backend, table, () => {});
    this.#next = this.#start();
  }

  async #start(): Promise<Member> {
    // Mostly the one that starts faster.
    const runtime = this.#count++ % 4 === 0 ? "deno" : "bun";
    const child = this.scene.adopt(new Child(commandLine(runtime, "_words_member.ts")));
    assertEquals(await child.next(), { pid: child.pid });
    const member = new Member(child);
    await member.ask({ do: "open", dir: this.scene.dir }, "open");
    return member;
  }

  /** A process; the next one starts meanwhile. */
  async member(): Promise<Member> {
    const member = await this.#next;
    this.#next = this.#start();
    return member;
  }

  /** How many waits stand in the table, those of the dead too. Looks without its lock. */
  get parked(): number {
    const rows = Array.from({ length: this.#rows.used }, (_, row) => this.#rows.state(row));
    return rows.filter((state) => state === PARKED).length;
  }

  /**
   * Until so many more waits are parked than before. That they have begun says little: who finds
   * the table's lock taken, if only by one that is about to listen to its mail, parks later.
   */
  async parks(count: number, begin: () => unknown): Promise<void> {
    const before = this.parked;
    await begin();
    await until(() => this.parked === before + count);
  }

  /** The last one is not needed any more. */
  async end(): Promise<void> {
    await (await this.#next).kill();
  }
}

/** What becomes of waits of this process. */
export class Waits<Result> {
  readonly all: { promise: Promise<Result>; settled: boolean }[];

  private constructor(begin: () => Promise<Result>) {
    this.all = Array.from({ length: OURS }, () => observe(begin()));
  }

  /** Begins them; they are parked, in their order. */
  static async parked<Result>(
    stage: Stage,
    begin: () => Promise<Result>,
  ): Promise<Waits<Result>> {
    let waits: Waits<Result> | undefined;
    await stage.parks(OURS, () => void (waits = new Waits(begin)));
    assert(waits !== undefined);
    return waits;
  }

  get settled(): boolean[] {
    return this.all.map(({ settled }) => settled);
  }

  get count(): number {
    return this.settled.filter(Boolean).length;
  }
}

/** The table has room again for all that have ever been in it, and grows for none of them. */
export async function assertNothingLeaks(stage: Stage, most: number): Promise<void> {
  const { segment, parking } = stage;
  const { used, taken } = parking.sweep();
  assertEquals(taken, 0, "a row is taken for ever");
  assert(used <= most, `${used} rows have been in use`);
  const all = Array.from({ length: used }, () => segment.wait(16, 0));
  assertEquals(parking.sweep(), { used, taken: used, parked: used });
  assertEquals([segment.notify(16), segment.notify(16)], [used, 0]);
  assertEquals(new Set(await Promise.all(all)), new Set(["ok"]));
}
