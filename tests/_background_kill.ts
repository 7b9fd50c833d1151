/**
 * What the tests have in common in which processes are killed at every change that they make to the
 * table of background workers.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { restartsOf } from "../lib/workers/lifecycle.ts";
import { isRunning } from "../lib/workers/rows.ts";
import { EXIT_CODE, ROWS_MAX, RUNS, STATE, STOPPED, TERMINATE } from "../lib/workers/table.ts";
import { BackgroundTable, specOf } from "./_background_table.ts";
import type { Deed, VictimCommand, VictimReport } from "./_background_victim.ts";
import { inScene, type Scene } from "./_scene.ts";
import { Child, commandLine, otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

/** What somebody is about to do, and what must be found when he has died of it. */
export interface Stage {
  /** Somebody has died of this before, in the middle of it. */
  first?: { deed: Deed; step: number };
  deed: Deed;
  /** Before anybody else has looked; and what is to be asserted in the end. */
  died: (step: number) => () => void;
}

/** Why a worker has ended that was killed. */
export const died: string = "its process has died without a word: it was killed, or has crashed";
/** What most of them do. */
export const supervise: Deed = { do: "supervise" };
export const list: Deed = { do: "list" };

/**
 * How many registries there are at a time: each has a table of 1 MiB. One death is enough for all of
 * them: why, is told in _background_victim.ts.
 */
const BATCH = 32;

export class Victim {
  readonly #child: Child;

  private constructor(child: Child) {
    this.#child = child;
  }

  static async start(scene: Scene, runtime: RuntimeName): Promise<Victim> {
    const child = scene.adopt(new Child(commandLine(runtime, "_background_victim.ts")));
    assertEquals(await child.next(), { pid: child.pid });
    return new Victim(child);
  }

  async count(command: Omit<VictimCommand & { do: "count" }, "do">): Promise<number> {
    this.#child.sendLine(JSON.stringify({ do: "count", ...command }));
    const { steps } = await this.#child.next() as unknown as VictimReport;
    this.#child.kill();
    await this.#child.ended;
    return steps ?? 0;
  }

  /** It must die of it, and of nothing else. */
  async die(command: Omit<VictimCommand & { do: "die" }, "do">): Promise<void> {
    this.#child.sendLine(JSON.stringify({ do: "die", ...command }));
    assertEquals(await this.#child.ended, "SIGKILL", this.#child.printed);
  }
}

/** Kills at each step. Returns how many of these there are, and how many have died. */
async function killAtEach(
  scene: Scene,
  runtime: RuntimeName,
  prepare: (place: BackgroundTable) => Stage,
): Promise<{ steps: number; deaths: number }> {
  const { dir } = scene;
  const counting = new BackgroundTable(scene, "counting");
  const { deed, first: earlier } = prepare(counting);
  /** Has somebody die in all of these, and be found there. */
  const before = async (names: string[]): Promise<void> => {
    if (earlier === undefined) return;
    const { deed, step } = earlier;
    const killer = await Victim.start(scene, otherThan(runtime));
    await killer.die({ dir, registries: names.map((name) => ({ name, step })), deed });
  };
  await before([counting.name]);
  const counter = await Victim.start(scene, runtime);
  const steps = await counter.count({ dir, registry: "counting", deed });
  counting.destroy();
  let deaths = 0;
  for (let first = 1; first <= steps; first += BATCH) {
    const victim = await Victim.start(scene, runtime);
    const places: { place: BackgroundTable; stage: Stage; step: number }[] = [];
    for (let step = first; step <= steps && places.length < BATCH; step++) {
      const place = new BackgroundTable(scene, `killed at ${step}`);
      places.push({ place, stage: prepare(place), step });
    }
    const registries = places.map(({ place: { name }, step }) => ({ name, step }));
    await before(registries.map(({ name }) => name));
    await victim.die({ dir, registries, deed });
    for (const { place, stage, step } of places) {
      try {
        assert(place.isAbandoned, "nobody has died with the lock held");
        deaths++;
        lookAfter(place, stage, step);
      } catch (error) {
        throw new Error(`killed at step ${step} of ${steps}: ${error}`, { cause: error });
      }
    }
  }
  return { steps, deaths };
}

/** The first who comes is a supervisor, or one that looks, or one that registers. */
function lookAfter(place: BackgroundTable, stage: Stage, step: number): void {
  const finish = stage.died(step);
  if (step % 3 === 1) Array.from(place.registry.workers());
  const hasRoom = place.rows.length < ROWS_MAX ||
    place.rows.some((slot) => place.get(slot, STATE) === STOPPED);
  const next = step % 3 === 2 && hasRoom ? place.register(specOf("next")) : -1;
  const before = place.claims.get(next) ?? 0;
  place.elect();
  place.settle();
  finish();
  if (next >= 0) assertEquals(place.claims.get(next), before + 1, "the next one does not run");
  place.assertEndsAndFills();
  place.destroy();
}

/** A worker that runs. */
export function runningIn(place: BackgroundTable, name = "w", more = {}): number {
  const slot = place.register(specOf(name, more));
  place.elect();
  place.settle();
  place.resign();
  return slot;
}

/** Asserts that a worker that was to end has ended, and for good; or that it runs as before. */
export function endedOrNot(place: BackgroundTable, slot: number, reason: string): () => void {
  const { table } = place;
  const isDone = table.has(slot, TERMINATE) || place.get(slot, STATE) === STOPPED;
  const before = place.claims.get(slot) ?? 0;
  const wasRunning = isRunning(table, slot);
  return () => {
    const runs = place.claims.get(slot) ?? 0;
    if (isDone) {
      assertEquals([place.get(slot, STATE), runs], [STOPPED, before]);
      assertEquals(table.reason(slot), reason);
    } else {
      assert(isRunning(table, slot));
      assertEquals([runs, restartsOf(table, slot)], [wasRunning ? before : before + 1, 0]);
    }
  };
}

/** Asserts state, restarts, crashes in a row, runs, exit code and reason. */
export function assertRow(
  place: BackgroundTable,
  slot: number,
  expected: [number, number, number, number],
  exitCode: number,
  reason: string,
): void {
  const { table } = place;
  const isUp = isRunning(table, slot) ? 1 : 0;
  assertEquals([isUp, ...place.countsOf(slot), table.get(slot, RUNS)], expected);
  assertEquals([table.get(slot, EXIT_CODE), table.reason(slot)], [exitCode, reason]);
}

export function killsAtEach(
  name: string,
  runtime: RuntimeName,
  prepare: (place: BackgroundTable) => Stage,
  least: number,
): void {
  test(`killed at every change: a ${runtime} process that ${name}`, () =>
    inScene(async (scene) => {
      const { steps, deaths } = await killAtEach(scene, runtime, prepare);
      console.log(`${deaths} deaths, of ${steps} steps`);
      assertEquals(deaths, steps);
      assert(steps >= least, `only ${steps} steps`);
    }));
}

let count = 0;
/** Both take part, in turn. */
export function nextRuntime(): RuntimeName {
  return runtimes[count++ % 2] ?? "deno";
}
