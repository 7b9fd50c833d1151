/**
 * Processes of all three languages use locks at random while they are killed and stopped: one
 * short round. `deno task storm` runs rounds for minutes. And the checker is shown faults.
 */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { inScene } from "./_scene.ts";
import { runStorm, summary } from "./_storm.ts";
import { checkHistory, type Final, type Life, type Tally } from "./_storm_history.ts";
import { BEGIN, COMMIT, type Entry, GIVE_UP, READ, READ_BROKEN, REPAIR } from "./_storm_layout.ts";

const SECONDS = 8;

test("a storm of Deno, Bun and C processes that get killed breaks no lock", () =>
  inScene(async (scene) => {
    const seed = Number(process.env["DSMR_SEED"] ?? Date.now() % 1_000_000);
    console.log(`storm: DSMR_SEED=${seed}`);
    const storm = await runStorm(scene, { seed, seconds: SECONDS });
    console.log(`storm: ${summary(storm)}`);
    // It was one.
    assertEquals(storm.languages, ["bun", "c", "deno"]);
    for (const count of [storm.commits, storm.reads, storm.kills, storm.stops, storm.repairs]) {
      assert(count > 0, summary(storm));
    }
  }));

/** Entries in the order in which they were made: tick, life, kind, token, extra; of lock 0. */
type Line = [tick: number, life: number, kind: number, token: number, extra?: number];

const intact = (token: number): Final => ({
  first: token,
  second: token,
  isIntact: true,
  isAbandoned: false,
});

/** Life 9 is one that was killed. */
function check(lines: Line[], final: Final): Tally {
  const lives = new Map<number, Life>();
  for (const [tick, id, kind, token, extra = 0] of lines) {
    const life = lives.get(id) ?? { id, wasKilled: id === 9, book: [] };
    lives.set(id, life);
    const entry: Entry = { kind, lock: 0, token, extra, tick };
    life.book.push(entry);
  }
  return checkHistory([...lives.values()], [final]);
}

/** Asserts that there is a fault whose text has this in it. */
function assertFault(lines: Line[], final: Final, text: string): void {
  const { faults } = check(lines, final);
  assert(faults.some((fault) => fault.includes(text)), `"${text}" not in: ${faults.join("; ")}`);
}

/** Two sections, one after the other. */
const peace: Line[] = [[2, 1, BEGIN, 1, 1], [3, 1, COMMIT, 1], [5, 2, BEGIN, 2, 4], [
  6,
  2,
  COMMIT,
  2,
]];
/** A section, and one that a kill has cut off. */
const death: Line[] = [[2, 1, BEGIN, 1, 1], [3, 1, COMMIT, 1], [5, 9, BEGIN, 2, 4]];

test("the storm's checker accepts what is in order", () => {
  const quiet = check([...peace, [8, 1, READ, 2, 7], [9, 2, READ, 2, 7]], intact(2));
  assertEquals(quiet.faults, []);
  assertEquals([quiet.commits, quiet.reads], [2, 2]);
  for (const kept of [1, 2]) {
    const lines: Line[] = [
      ...death,
      [7, 1, READ_BROKEN, 2, 6],
      [8, 1, REPAIR, kept, 9],
      [10, 1, BEGIN, kept + 1, 9],
      [11, 1, COMMIT, kept + 1],
    ];
    const told = check(lines, intact(kept + 1));
    assertEquals(told.faults, []);
    assertEquals([told.cutOff, told.kept, told.undone], [1, kept - 1, 2 - kept]);
  }
  const torn = { first: 2, second: 1, isIntact: false, isAbandoned: true };
  assertEquals(check(death, torn).faults, []);
  const left: Line[] = [[2, 1, BEGIN, 1, 1], [3, 1, GIVE_UP, 0], [4, 1, REPAIR, 1, 1]];
  assertEquals(check(left, intact(1)).faults, []);
});

test("the storm's checker finds tokens given twice, passed over and lost", () => {
  const second: Line[] = [[2, 1, BEGIN, 1, 1], [3, 1, COMMIT, 1]];
  const begin = (token: number): Line[] => [[5, 2, BEGIN, token, 4], [6, 2, COMMIT, token]];
  assertFault([...second, ...begin(1)], intact(1), "token 1 by life 2 (ticks 4 to 6) follows");
  assertFault([...second, ...begin(3)], intact(3), "token 3 by life 2 (ticks 4 to 6) follows");
  assertFault(peace, intact(1), "ends with token 1, 1, not 2");
  assertFault([...peace, [8, 3, READ, 1, 7]], intact(2), "sees not 2");
  assertFault([...death, [8, 1, REPAIR, 0, 9]], intact(0), "goes on from another token than 1");
  assertFault([...peace, [8, 1, REPAIR, 3]], intact(3), "goes on from another token than 2");
});

test("the storm's checker finds two inside at once", () => {
  const both: Line[] = [[2, 1, BEGIN, 1, 1], [4, 2, BEGIN, 2, 3], [5, 1, COMMIT, 1], [
    6,
    2,
    COMMIT,
    2,
  ]];
  assertFault(both, intact(2), "two inside at once: write of token 1");
  assertFault([...peace, [7, 3, READ, 2, 5]], intact(2), "and read of token 2");
  assertFault([[1, 9, READ, 0, 0], [4, 3, READ, 0, 1], [3, 1, BEGIN, 1, 2], [5, 1, COMMIT, 1]], {
    ...intact(1),
  }, "two inside at once: read of token 0 by life 3");
  assertFault([...peace, [7, 1, BEGIN, 3, 6], [8, 1, COMMIT, 3]], intact(3), "two inside at once");
});

test("the storm's checker finds gaps, deaths and repairs that nothing explains", () => {
  assertFault([...peace, [8, 1, BEGIN, 3, 7]], intact(3), "never finished token 3");
  assertFault([...peace, [8, 1, BEGIN, 3, 7], [10, 1, BEGIN, 4, 9]], intact(4), "came in again");
  const unaware: Line[] = [...death, [8, 1, BEGIN, 3, 7], [9, 1, COMMIT, 3]];
  assertFault(unaware, intact(3), "nobody told write of token 3");
  assertFault([...death, [8, 1, READ, 2, 7]], intact(2), "nobody told read of token 2");
  assertFault(death, intact(2), "at the end nobody is told");
  assertFault([...peace, [8, 1, REPAIR, 2, 2]], intact(2), "found life 2 inside");
  assertFault([...peace, [8, 1, REPAIR, 2]], intact(2), "1 repairs of 0 deaths");
});

test("the storm's checker finds records that are torn or out of order", () => {
  assertFault(peace, { ...intact(2), second: 1, isIntact: false }, "ends torn (2, 1)");
  assertFault([[2, 1, BEGIN, 1, 1], [3, 1, COMMIT, 2]], intact(1), "COMMIT 2 without its BEGIN");
  assertFault([[2, 1, GIVE_UP, 0]], intact(0), "GIVE_UP of lock 0 without a BEGIN");
  assertFault([[3, 1, BEGIN, 1, 1], [3, 1, COMMIT, 1]], intact(1), "tick 3 after 3");
  assertFault([[3, 1, 77, 1, 1]], intact(0), "entry of kind 77");
});
