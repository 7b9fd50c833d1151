/** The call statistics of the examples: exact, for several processes and under resets. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { callStats, NAME_SIZE, NAMES_MAX, OTHERS } from "../examples/call_stats/call_stats.ts";
import { type CallRow, formatTable } from "../examples/call_stats/call_table.ts";
import { defineAddin, Registry } from "../lib/mod.ts";
import { byName, callsByName, Member, open, sum } from "./_call_stats.ts";
import { callsOf, expectedRows } from "./_call_stats_traffic.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene, type Scene, until } from "./_scene.ts";
import { Child, commandLine, type RuntimeName, runtimes } from "./_spawn.ts";

test("record() counts calls, total, shortest and longest; rows() has the largest total first", () =>
  inScene((scene) => {
    const { stats } = open(scene);
    assertEquals(stats.rows(), []);
    for (const ms of [2, 0.5, 1]) stats.record("a", ms);
    stats.record("b", 10);
    stats.record("none", 0);
    assertEquals(stats.rows(), [
      { name: "b", calls: 1, totalMs: 10, meanMs: 10, minMs: 10, maxMs: 10 },
      { name: "a", calls: 3, totalMs: 3.5, meanMs: 3.5 / 3, minMs: 0.5, maxMs: 2 },
      { name: "none", calls: 1, totalMs: 0, meanMs: 0, minMs: 0, maxMs: 0 },
    ]);
    for (const ms of [-1, NaN, Infinity, 1e9 + 1]) {
      assertThrows(() => stats.record("a", ms), RangeError, `"a" took ${ms} ms`);
    }
    const rows = stats.rows();
    assertEquals(stats.reset(), rows);
    assertEquals(stats.rows(), []);
    stats.record("a", 7);
    assertEquals(stats.rows(), [
      { name: "a", calls: 1, totalMs: 7, meanMs: 7, minMs: 7, maxMs: 7 },
    ]);
  }));

test("measure() counts what returns, throws, resolves and rejects, and passes it on", () =>
  inScene(async (scene) => {
    const { stats } = open(scene);
    const error = new Error("as planned");
    const thrower = (): never => {
      throw error;
    };
    assertEquals(stats.measure("sync", () => 5), 5);
    assertStrictEquals(assertThrows(() => stats.measure("sync", thrower)), error);
    const { promise, resolve } = Promise.withResolvers<string>();
    const measured = stats.measure("async", () => promise);
    assertEquals(callsByName(stats.rows()), { sync: 2 }, "counted before it has ended");
    resolve("done");
    assertEquals(await measured, "done");
    const rejected = await stats.measure("async", () => Promise.reject(error)).catch((e) => e);
    assertStrictEquals(rejected, error);
    assertEquals(callsByName(stats.rows()), { sync: 2, async: 2 });
  }));

test("table() prints columns, and nothing that a terminal would obey", () =>
  inScene((scene) => {
    const { stats } = open(scene);
    assertEquals(stats.table(), formatTable([]));
    assertEquals(stats.table().split("\n").at(-1), "no calls");
    stats.record("GET /", 1234.5);
    stats.record("GET /", 0.25);
    stats.record("red \x1b[31m\n\u202e", 1);
    assertEquals(stats.table().split("\n"), [
      "calls  total ms  mean ms  min ms    max ms  name",
      "    2  1234.750  617.375   0.250  1234.500  GET /",
      "    1     1.000    1.000   1.000     1.000  red \\u{1b}[31m\\u{a}\\u{202e}",
    ]);
  }));

test("the counts of four processes of both runtimes are exact", () =>
  inScene(async (scene) => {
    const { stats } = open(scene);
    const members = await Member.startFour(scene);
    const count = 20_000;
    const nameCount = 50;
    for (const [seed, member] of members.entries()) {
      member.send({ do: "storm", seed, count, nameCount });
    }
    await Promise.all(members.map((member) => member.well()));
    const calls = members.flatMap((_, seed) => [...callsOf(seed, count, nameCount)]);
    const expected = expectedRows(calls);
    assertEquals(byName(stats.rows()), expected);
    for (const member of members) {
      const { rows = [] } = await member.ask({ do: "rows" });
      assertEquals(rows, stats.rows());
    }
  }));

test("processes that add the same names at the same time make one entry of each", () =>
  inScene(async (scene) => {
    const { stats } = open(scene);
    const members = await Member.startFour(scene);
    const names = Array.from({ length: 400 }, (_, i) => `new ${i}`);
    for (const [i, member] of members.entries()) {
      // From another beginning, so that each is the first with some.
      const order = [...names.slice(i * 100), ...names.slice(0, i * 100)];
      member.send({ do: "record", calls: order.map((name) => [name, 1]) });
    }
    await Promise.all(members.map((member) => member.well()));
    assertEquals(callsByName(stats.rows()), Object.fromEntries(names.map((name) => [name, 4])));
  }));

test("resets under traffic lose no call and count none twice", () =>
  inScene(async (scene) => {
    const { stats } = open(scene);
    const members = await Member.startFour(scene);
    const count = 20_000;
    const nameCount = 20;
    const taken: CallRow[] = [];
    const calls: [string, number][] = [];
    // Until enough resets have come in the middle of traffic.
    let resets = 0;
    for (let seed = 0; resets < 20;) {
      for (const member of members) {
        calls.push(...callsOf(seed, count, nameCount));
        member.send({ do: "storm", seed: seed++, count, nameCount });
      }
      let isOver = false;
      const over = Promise.all(members.map((member) => member.well())).finally(() => isOver = true);
      while (!isOver) {
        const rows = stats.reset();
        taken.push(...rows);
        const part = sum(rows.map(({ calls }) => calls));
        if (part > 0 && part < count * members.length) resets++;
        await new Promise((resolve) => setTimeout(resolve));
      }
      await over;
    }
    taken.push(...stats.reset());
    assertEquals(stats.rows(), []);
    for (const [name, expected] of expectedRows(calls)) {
      const rows = taken.filter((row) => row.name === name);
      assertEquals(sum(rows.map(({ calls }) => calls)), expected.calls, name);
      const total = sum(rows.map(({ totalMs }) => Math.round(totalMs * 1e6)));
      assertEquals(total, Math.round(expected.totalMs * 1e6), name);
      assertEquals(Math.max(...rows.map(({ maxMs }) => maxMs)), expected.maxMs, name);
    }
  }));

for (const runtime of runtimes) {
  test(`a ${runtime} process that is overtaken while it counts loses neither longest nor shortest`, () =>
    inScene(async (scene) => {
      const { stats } = open(scene);
      const member = await Member.start(scene, runtime);
      const races: [overtaken: number, overtaking: number, min: number, max: number][] = [
        [9, 7, 1, 9],
        [7, 9, 1, 9],
        [0.25, 0.5, 0.25, 1],
        [0.5, 0.25, 0.25, 1],
      ];
      for (const [overtaken, overtaking, minMs, maxMs] of races) {
        stats.reset();
        stats.record("a", 1);
        await member.ask({ do: "rows" });
        // The first store is to the total, the second to the longest or the shortest.
        await member.holdAt(2, { do: "record", calls: [["a", overtaken]] });
        stats.record("a", overtaking);
        await member.go();
        const totalMs = 1 + overtaken + overtaking;
        assertEquals(stats.rows(), [
          { name: "a", calls: 3, totalMs, meanMs: totalMs / 3, minMs, maxMs },
        ]);
      }
    }));

  test(`a call between any two stores of a ${runtime} process's reset counts once`, () =>
    inScene(async (scene) => {
      const { stats } = open(scene);
      const member = await Member.start(scene, runtime);
      stats.record("a", 1);
      stats.record("b", 1);
      // Twice a flag, and four counters of three entries.
      for (let n = 1; n <= 14; n++) {
        await member.holdAt(n, { do: "reset" });
        stats.record("a", 1);
        stats.record("b", 1);
        const { rows: taken = [] } = await member.go();
        const rows = [...taken, ...stats.reset()];
        for (const name of ["a", "b"]) {
          const own = rows.filter((row) => row.name === name);
          const sums = [sum(own.map(({ calls }) => calls)), sum(own.map(({ totalMs }) => totalMs))];
          assertEquals(sums, [2, 2], `${name}, ${n}`);
        }
        stats.record("a", 1);
        stats.record("b", 1);
      }
    }));
}

test(`a full table counts further names as ${OTHERS}, in all processes`, () =>
  inScene(async (scene) => {
    const { stats } = open(scene);
    stats.record("first", 1);
    const members = await Member.startFour(scene);
    const each = NAMES_MAX / 2;
    for (const [i, member] of members.entries()) {
      const names = Array.from({ length: each }, (_, n) => `${i} ${n}`);
      member.send({ do: "record", calls: [...names, ...names].map((name) => [name, 1]) });
    }
    await Promise.all(members.map((member) => member.well()));
    const calls = callsByName(stats.rows());
    // They have filled it together; whoever came in time has both calls in a row.
    assertEquals(Object.keys(calls).length, NAMES_MAX + 1);
    for (const [name, count] of Object.entries(calls)) {
      assertEquals(
        count,
        name === "first" ? 1 : name === OTHERS ? 2 * (each * 4 - NAMES_MAX + 1) : 2,
      );
    }
    // After a reset the names have their entries still.
    stats.reset();
    stats.record("first", 1);
    stats.record("late", 1);
    for (const member of members) {
      await member.ask({ do: "record", calls: [["first", 1], ["late too", 1], [OTHERS, 1]] });
    }
    assertEquals(callsByName(stats.rows()), { first: 5, [OTHERS]: 9 });
  }));

test("odd names are the same in all processes, and too long ones are cut between characters", () =>
  inScene(async (scene) => {
    const { stats } = open(scene);
    const names: [name: string, kept: string][] = [
      ["", ""],
      ["__proto__", "__proto__"],
      ["\ufeffmark", "\ufeffmark"],
      ["a\0b", "a\ufffdb"],
      ["half \ud83d", "half \ufffd"],
      ["x".repeat(NAME_SIZE), "x".repeat(NAME_SIZE)],
      ["y".repeat(NAME_SIZE + 1), "y".repeat(NAME_SIZE)],
      ["ä".repeat(60), "ä".repeat(NAME_SIZE / 2)],
      ["z".repeat(NAME_SIZE - 3) + "😀 and more", "z".repeat(NAME_SIZE - 3)],
      ["z".repeat(NAME_SIZE - 4) + "😀 and more", "z".repeat(NAME_SIZE - 4) + "😀"],
      ["€".repeat(10_000), "€".repeat(NAME_SIZE / 3)],
    ];
    const calls = names.map(([name]): [string, number] => [name, 1]);
    for (const [name, ms] of calls) stats.record(name, ms);
    for (const runtime of runtimes) {
      const member = await Member.start(scene, runtime);
      await member.ask({ do: "record", calls: [...calls, ...calls] });
    }
    const expected = new Map(names.map(([, kept]) => [kept, 5]));
    assertEquals(new Map(stats.rows().map(({ name, calls }) => [name, calls])), expected);
  }));

test("a registry whose main area was sized without the add-in refuses it, and says so", () =>
  inScene((scene) => {
    const other = defineAddin({ name: "other", request: (ctx) => ctx.requestSpace(64) });
    const registry = scene.open({ addins: [other] });
    const opening = () => Registry.openSync("test", { dir: scene.dir, addins: [callStats] });
    assertFails(opening, "INIT_FAILED", "startup", '"call-stats"', "sized without", '"other"');
    assertEquals([...registry.backends()].length, 1);
  }));

/** Starts the demo; resolves with the pids of its servers when they listen. */
async function startDemo(
  scene: Scene,
  runtime: RuntimeName,
): Promise<{ child: Child; pids: number[] }> {
  const command = commandLine(runtime, "../examples/call_stats/demo.ts");
  const child = scene.adopt(new Child(command, { DSMR_DIR: scene.dir }));
  let ended: string | undefined;
  void child.whenEnded.then((how) => ended = how);
  const pids = () =>
    [...child.printed.matchAll(/^ {2}(?:Deno|Bun) +(\d+) {2}http/gm)].map(([, pid]) => +(pid ?? 0));
  await until(() => pids().length === 4 || ended !== undefined);
  assertEquals(pids().length, 4, child.printed);
  return { child, pids: pids() };
}

for (const runtime of runtimes) {
  test(`the demo, led by ${runtime}: four servers, exact counts, nothing left`, () =>
    inScene(async (scene) => {
      const { child } = await startDemo(scene, runtime);
      assertEquals(await child.ended, "exit code 0", child.printed);
      const lines = child.printed.split("\n");
      assert(lines.includes("Equal to the requests that were sent."), child.printed);
      const rows = lines.filter((line) => /^ *\d+( +\d+\.\d{3}){4} {2}\S/.test(line));
      const calls = rows.map((row) => Number(row.trim().split(" ")[0]));
      assertEquals([rows.length, sum(calls)], [5, 5000], child.printed);
      assertEquals(lines.at(-2), "no calls");
      assertEquals(scene.files(), []);
    }));

  test(`the demo, led by ${runtime}, is killed: its servers end`, () =>
    inScene(async (scene) => {
      const { child, pids } = await startDemo(scene, runtime);
      child.kill();
      assertEquals(await child.ended, "SIGKILL");
      const registry = scene.open({ mode: "attach" }, `call-stats-${child.pid}`);
      await until(() => [...registry.backends()].every(({ pid }) => !pids.includes(pid)));
      assertEquals([...registry.backends()].length, 1);
    }));
}
