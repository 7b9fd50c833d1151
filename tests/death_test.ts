/** kill -9: initialisers, waiters and users die, and the others go on. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { hashOf, patternByte } from "./_agent.ts";
import { randomFrom } from "./_random.ts";
import { assertFails, inScene, succeeded, until } from "./_scene.ts";
import { type Child, otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

/** Gives the moment to the microsecond, which a timer would not. */
function spin(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

const KILLS = 200;
const SIZE = 20_000;

test("an initialiser killed at a random moment is replaced, on zeroed memory, 200 times", () =>
  inScene(async (scene) => {
    const seed = Number(process.env["DSMR_SEED"] ?? Date.now() % 1_000_000);
    console.log(`kill moments: DSMR_SEED=${seed}`);
    const random = randomFrom(seed);
    const registry = scene.open();
    const waiters = { deno: await scene.child("deno"), bun: await scene.child("bun") };
    // Two ahead: starting a process takes longer than killing one.
    const victims: Promise<Child>[] = [];
    const runtimeOf = (round: number): RuntimeName => runtimes[round % 2] ?? "deno";
    for (let round = 0; round < 2; round++) victims.push(scene.child(runtimeOf(round)));
    let replaced = 0;
    for (let round = 0; round < KILLS; round++) {
      const victim = await victims.shift();
      assert(victim !== undefined);
      if (round + 2 < KILLS) victims.push(scene.child(runtimeOf(round)));
      const waiter = waiters[otherThan(runtimeOf(round))];
      const segment = `round ${round}`;
      // Every other time it never finishes; else it may be hit before, in and after its init.
      const isEndless = round % 4 < 2;
      const get = { do: "get", segment, size: SIZE } as const;
      victim.send({
        ...get,
        init: isEndless ? [{ say: "begun" }, { spin: 1e9 }] : [{ spin: 0.2 }, { pattern: round }],
      });
      if (isEndless) assertEquals(await victim.next(), { said: "begun" });
      const waitFirst = random() < 0.5;
      if (waitFirst) waiter.send({ ...get, init: [{ pattern: round }] });
      spin(random() * (isEndless ? 1 : 3));
      victim.kill();
      if (!waitFirst) waiter.send({ ...get, init: [{ pattern: round }] });
      const report = succeeded(await waiter.next());
      const expected = hashOf(Uint8Array.from({ length: SIZE }, (_, i) => patternByte(round, i)));
      assertEquals([report.size, report.hash], [SIZE, expected], `round ${round}`);
      assertEquals(report.initialised, !report.found, `round ${round}`);
      if (report.initialised) {
        assert(report.wasZero, `round ${round}: not zero`);
        replaced++;
      }
      if (isEndless) assert(report.initialised, `round ${round}: nobody had finished`);
      await victim.ended;
      succeeded(await waiter.ask({ do: "detach", segment }));
      const left = [...registry.segments()].map((info) => [info.name, info.ready, info.backends]);
      assertEquals(left, [[segment, true, 0]]);
      assertEquals(registry.dropSegment(segment), true);
      assertEquals(scene.files(), ["dsmr.r.test"], `round ${round}`);
    }
    assert(replaced >= KILLS / 2 && replaced <= KILLS);
  }));

for (const runtime of runtimes) {
  test(`of many waiters one replaces a killed ${runtime} initialiser, the others find it done`, () =>
    inScene(async (scene) => {
      const victim = await scene.child(runtime);
      const waiters = await Promise.all(
        Array.from({ length: 8 }, (_, i) => scene.child(runtimes[i % 2] ?? "deno")),
      );
      const init = [{ fill: 1 }, { hold: true as const }];
      victim.send({ do: "get", segment: "a", size: 100, init });
      assertEquals(await victim.next(), { holding: true });
      for (const waiter of waiters) {
        waiter.send({ do: "get", segment: "a", size: 100, init: [{ pattern: waiter.pid }] });
      }
      victim.kill();
      const reports = await Promise.all(waiters.map((waiter) => waiter.next()));
      const first = reports.filter((report) => succeeded(report).initialised);
      assertEquals([first.length, first[0]?.wasZero], [1, true]);
      for (const report of reports) assertEquals(report.hash, first[0]?.hash);
    }));

  test(`a killed ${runtime} waiter disturbs nobody`, () =>
    inScene(async (scene) => {
      const initialiser = await scene.child(otherThan(runtime));
      const victim = await scene.child(runtime);
      initialiser.send({ do: "get", segment: "a", size: 8, init: [{ hold: true }] });
      assertEquals(await initialiser.next(), { holding: true });
      const registry = scene.open();
      const find = () => [...registry.backends()].find(({ pid }) => pid === victim.pid);
      victim.send({ do: "get", segment: "a", size: 8 });
      await until(() => find()?.waitingFor === "a");
      victim.kill();
      await victim.ended;
      assertEquals(find(), undefined);
      initialiser.go();
      assertEquals(succeeded(await initialiser.next()).initialised, true);
      assertEquals(registry.getNamedSegmentSync("a", 8).found, true);
    }));

  test(`a segment of lifetime attached goes when its last user, a ${runtime} process, is killed`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const [one, two] = [await scene.child(runtime), await scene.child(otherThan(runtime))];
      succeeded(
        await one.ask({
          do: "get",
          segment: "a",
          size: 8,
          lifetime: "attached",
          init: [{ fill: 5 }],
        }),
      );
      assertEquals((await two.ask({ do: "get", segment: "a" })).value, 0x05050505);
      two.kill();
      await two.ended;
      assertEquals([...registry.segments()].map(({ backends }) => backends), [1]);
      one.kill();
      await one.ended;
      assertFails(() => registry.getNamedSegmentSync("a"), "NOT_FOUND", '"a"');
      const fresh = registry.getNamedSegmentSync("a", 8);
      assertEquals([fresh.found, new Uint8Array(fresh.buffer)[0]], [false, 0]);
      fresh.detach();
      registry.dropSegment("a");
      assertEquals(scene.files(), ["dsmr.r.test"]);
    }));

  test(`a ${runtime} process killed with segments leaves them, and its slot, to others`, () =>
    inScene(async (scene) => {
      // One slot beside ours: whoever comes next must reuse the dead one's.
      const registry = scene.open({ maxBackends: 2 });
      const ids = new Set<number>();
      for (let i = 0; i < 5; i++) {
        const child = await scene.child(i % 2 === 0 ? runtime : otherThan(runtime));
        const report = await child.ask({ do: "get", segment: "a", size: 8 });
        assertEquals([report.found, report.value], [i > 0, i]);
        succeeded(await child.ask({ do: "add", segment: "a", index: 0, value: 1 }));
        const infos = [...registry.backends()];
        assertEquals(infos.map(({ pid }) => pid).sort(), [process.pid, child.pid].sort());
        for (const { id, self } of infos) if (!self) ids.add(id);
        child.kill();
        await child.ended;
      }
      assertEquals(ids.size, 5, "ids are not used again");
      assertEquals([...registry.segments()].map(({ backends }) => backends), [0]);
    }));
}

test("a stopped process that is not inside the tables holds nobody up", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const child = await scene.child("deno");
    succeeded(await child.ask({ do: "get", segment: "a", size: 8 }));
    child.kill("SIGSTOP");
    try {
      assertEquals(registry.getNamedSegmentSync("a").found, true);
      registry.getNamedSegmentSync("b", 8);
      assertEquals([...registry.backends()].length, 2);
      assertEquals([...registry.segments()].map(({ backends }) => backends), [2, 1]);
    } finally {
      child.kill("SIGCONT");
    }
    assertEquals((await child.ask({ do: "lookup", segment: "b" })).found, true);
  }));
