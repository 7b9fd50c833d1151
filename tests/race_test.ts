/** Many at once: the first use of one name. */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { hashOf, patternByte } from "./_agent.ts";
import { inScene, succeeded } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

const PROCESSES = 64;
const ROUNDS = 100;
const SIZE = 1000;

test("getNamedSegmentSync() runs init once for 64 processes of both runtimes, 100 times", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const counter = new Int32Array(registry.getNamedSegmentSync("counter", 4).buffer);
    const children = await Promise.all(
      Array.from({ length: PROCESSES }, (_, i) => scene.child(runtimes[i % 2] ?? "deno")),
    );
    const winners = new Map<number, number>();
    for (let round = 0; round < ROUNDS; round++) {
      // Whoever is told first has an advantage: take turns.
      for (const i of children.keys()) {
        children[(i + round) % PROCESSES]?.send({
          do: "get",
          segment: `round ${round}`,
          size: SIZE,
          init: [{ bump: "counter" }, { pattern: round }],
        });
      }
      const reports = await Promise.all(children.map((child) => child.next()));
      const expected = hashOf(Uint8Array.from({ length: SIZE }, (_, i) => patternByte(round, i)));
      for (const report of reports) {
        succeeded(report);
        assertEquals(report.hash, expected, `round ${round}`);
        assertEquals(report.found, !report.initialised);
        assert(report.found || report.wasZero, `round ${round}: not zero`);
      }
      // Counted in shared memory, not by what the processes say.
      assertEquals(Atomics.load(counter, 0), round + 1, `round ${round}`);
      const winner = reports.findIndex((report) => report.found === false);
      assertEquals(reports.filter((report) => report.found === false).length, 1);
      winners.set(winner, (winners.get(winner) ?? 0) + 1);
      const info = [...registry.segments()].find(({ name }) => name === `round ${round}`);
      assertEquals([info?.backends, info?.ready, info?.size], [PROCESSES, true, SIZE]);
    }
    assert(winners.size > 1, "one process always came first: there was no race");
    assertEquals([...registry.backends()].length, PROCESSES + 1);
  }));

test("openSync() of a fresh name by 32 processes at once makes one registry", () =>
  inScene(async (scene) => {
    const children = await Promise.all(
      Array.from({ length: 32 }, (_, i) => scene.start(runtimes[i % 2] ?? "deno")),
    );
    for (let round = 0; round < 20; round++) {
      const name = `fresh ${round}`;
      for (const child of children) child.send({ do: "open", name, options: { dir: scene.dir } });
      const opened = await Promise.all(children.map((child) => child.next()));
      const ids = new Set(opened.map((report) => succeeded(report).backendId));
      assertEquals(ids.size, children.length, "each backend has an id of its own");
      assertEquals(scene.files().filter((file) => file === `dsmr.r.${name}`).length, 1);
      for (const child of children) child.send({ do: "get", segment: "one", size: 8 });
      const got = await Promise.all(children.map((child) => child.next()));
      assertEquals(got.filter((report) => succeeded(report).found === false).length, 1);
    }
  }));

test("mode create of a fresh name succeeds for exactly one of 16 processes", () =>
  inScene(async (scene) => {
    const children = await Promise.all(
      Array.from({ length: 16 }, (_, i) => scene.start(runtimes[i % 2] ?? "deno")),
    );
    for (let round = 0; round < 20; round++) {
      const options = { dir: scene.dir, mode: "create" } as const;
      for (const child of children) child.send({ do: "open", name: `new ${round}`, options });
      const opened = await Promise.all(children.map((child) => child.next()));
      assertEquals(opened.filter((report) => report.ok).length, 1);
      for (const report of opened) assert(report.ok || report.code === "EXISTS", report.message);
    }
  }));
