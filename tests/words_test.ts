/** Waiting on words of segments: Atomics.wait, waitAsync and notify across processes. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import { Backend } from "../lib/backend.ts";
import { Registry, type Segment } from "../lib/mod.ts";
import { PARKING_NAME } from "../lib/parking_rows.ts";
import {
  assertChecksOptions,
  assertRefused,
  assertRejectedWith,
  observe,
  Party,
  turn,
} from "./_async.ts";
import { untilParked } from "./_parked.ts";
import { assertFails, inScene, type Scene, succeeded, until } from "./_scene.ts";
import { otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

const SIZE = 64;
/** How many waits a registry has room for. */
const ROOM = 16_384;
const MANY = 10_000;

function attach(scene: Scene): { registry: Registry; segment: Segment; words: Int32Array } {
  const registry = scene.open();
  const segment = registry.getNamedSegmentSync("a", SIZE);
  return { registry, segment, words: new Int32Array(segment.buffer) };
}

async function party(scene: Scene, runtime: RuntimeName): Promise<Party> {
  const party = await Party.start(scene, runtime);
  await party.ask({ do: "get", segment: "a", size: SIZE });
  return party;
}

/** Wakes exactly so many, once that many are parked; one by one, so that none is woken before. */
async function wakes(segment: Segment, byteOffset: number, count: number): Promise<void> {
  let woken = 0;
  await until(() => (woken += segment.notify(byteOffset, count - woken)) === count);
}

test("a wait ends by notify, by another value and by the timeout, as Atomics.wait says", () =>
  inScene(async (scene) => {
    const { segment, words } = attach(scene);
    assertEquals(segment.notify(0), 0);
    const waiting = observe(segment.wait(0, 0));
    await turn();
    assertEquals([waiting.settled, segment.notify(4), segment.notify(0), segment.notify(0)], [
      false,
      0,
      1,
      0,
    ]);
    assertEquals(await waiting.promise, "ok");
    // A change alone wakes nobody, and notify does not ask what is there.
    const unchanged = segment.wait(0, 0);
    assertEquals([segment.notify(0), await unchanged], [1, "ok"]);
    Atomics.store(words, 0, -1);
    assertEquals(await segment.wait(0, 0), "not-equal");
    assertEquals(segment.waitSync(0, 0), "not-equal");
    for (const timeout of [0, 0.5, 2]) {
      // The same bits, signed or not.
      for (const expected of [-1, 0xffffffff]) {
        assertEquals(await segment.wait(0, expected, { timeout }), "timed-out");
        assertEquals(segment.waitSync(0, expected, { timeout }), "timed-out");
      }
    }
    for (const timeout of [2 ** 31, 2 ** 40, Infinity]) {
      const long = observe(segment.wait(60, 0, { timeout }));
      for (let i = 0; i < 3; i++) await turn();
      assertEquals([long.settled, segment.notify(60)], [false, 1]);
      assertEquals(await long.promise, "ok");
    }
    assertEquals(segment.notify(0), 0);
  }));

test("notify wakes in the order of arrival, and exactly as many as it says", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const order: number[] = [];
    const waits = Array.from({ length: 10 }, (_, i) =>
      segment.wait(8, 0).then((outcome) => {
        order.push(i);
        return outcome;
      }));
    const elsewhere = observe(segment.wait(12, 0));
    assertEquals([segment.notify(8, 0), segment.notify(8, 0.9), segment.notify(8, 3)], [0, 0, 3]);
    await Promise.all(waits.slice(0, 3));
    assertEquals(order, [0, 1, 2]);
    assertEquals(segment.notify(8, 1.5), 1);
    assertEquals(await waits[3], "ok");
    assertEquals([segment.notify(8), segment.notify(8)], [6, 0]);
    assertEquals(await Promise.all(waits), Array(10).fill("ok"));
    assertEquals([order, elsewhere.settled], [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], false]);
    assertEquals(segment.notify(12, Number.MAX_VALUE), 1);
    assertEquals(await elsewhere.promise, "ok");
  }));

test("notify wakes in the order of arrival, also where the table was not to be had for the first", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    // Makes the table.
    assertEquals(await segment.wait(0, 1), "not-equal");
    const other = Backend.open(scene.dir, "test", "other", {
      ...{ mode: "open", maxBackends: 0, maxSegments: 0, timeout_ms: 10_000 },
    });
    scene.atEnd(() => other.release());
    const { lock } = other.ownSegmentSync(PARKING_NAME, 0);
    for (let round = 0; round < 10; round++) {
      lock.acquireSync();
      const waits = [observe(segment.wait(0, 0))];
      lock.release();
      waits.push(observe(segment.wait(0, 0)), observe(segment.wait(0, 0)));
      await untilParked(scene, 3);
      for (const count of [1, 2, 3]) {
        assertEquals(segment.notify(0, 1), 1);
        await until(() => waits.filter(({ settled }) => settled).length === count);
        assertEquals(waits.map(({ settled }) => settled), [1, 2, 3].map((i) => i <= count));
      }
    }
  }));

test("an abort ends the wait with its reason, and takes no notification with it", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const controllers = Array.from({ length: 4 }, () => new AbortController());
    const waits = controllers.map(({ signal }) => segment.wait(0, 0, { signal }));
    const reason = { why: "enough" };
    controllers[0]?.abort(reason);
    controllers[2]?.abort(undefined);
    await assertRejectedWith(waits[0] ?? turn(), reason);
    await assertRejectedWith(waits[2] ?? turn(), controllers[2]?.signal.reason);
    assertEquals(segment.notify(0, 1), 1);
    // Told already: an abort is too late.
    controllers[1]?.abort(reason);
    assertEquals(await waits[1], "ok");
    assertEquals(segment.notify(0), 1);
    controllers[3]?.abort(reason);
    assertEquals([await waits[3], segment.notify(0)], ["ok", 0]);
  }));

test("aborts, timeouts and notifications at the same moment: each wait ends once, counts agree", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const child = await party(scene, "bun");
    let counted = 0;
    const outcomes = { ok: 0, other: 0 };
    for (let round = 0; round < 300; round++) {
      const controller = new AbortController();
      const waits = [
        segment.wait(0, 0, { signal: controller.signal }),
        segment.wait(0, 0, { timeout: round % 3 }),
        segment.wait(0, 0, { signal: controller.signal, timeout: 1 }),
      ];
      const all = Promise.allSettled(waits);
      if (round % 4 === 0) await turn();
      child.child.sendLine(JSON.stringify({ do: "notify", segment: "a", count: round % 4 }));
      if (round % 2 === 0) await turn();
      controller.abort();
      for (const outcome of await all) {
        const isOk = outcome.status === "fulfilled" && outcome.value === "ok";
        outcomes[isOk ? "ok" : "other"]++;
      }
      assertEquals(await child.next(), { said: "begun" });
      counted += (await child.next()).value ?? NaN;
      assertEquals([segment.notify(0), outcomes.ok], [0, counted], `round ${round}`);
    }
    assertEquals(outcomes.ok + outcomes.other, 900);
    assert(outcomes.ok > 0 && outcomes.other > 0, JSON.stringify(outcomes));
  }));

test("detach(), close() and destroy() end every wait, the loop goes on", () =>
  inScene(async (scene) => {
    for (const how of ["detach", "close", "destroy"] as const) {
      const { registry, segment } = attach(scene);
      const keep = registry.getNamedSegmentSync("b", SIZE);
      const waits = [1, 2, 3].map(() => segment.wait(0, 0));
      const other = observe(keep.wait(0, 0));
      await turn();
      if (how === "detach") segment.detach();
      else if (how === "close") registry.close();
      else Registry.destroy("test", { dir: scene.dir });
      for (const wait of waits) {
        await assertRefused(wait, how === "destroy" ? "CLOSED" : "DETACHED");
      }
      if (how === "detach") {
        await turn();
        assertEquals([other.settled, keep.notify(0)], [false, 1]);
        assertEquals(await other.promise, "ok");
        await assertRefused(segment.wait(0, 0), "DETACHED", '"a"');
        assertFails(() => segment.waitSync(0, 0), "DETACHED", '"a"');
        assertFails(() => segment.notify(0), "DETACHED", '"a"');
        // Nobody waits in the one that is attached now.
        assertEquals(attach(scene).segment.notify(0), 0);
      } else {
        await assertRefused(other.promise, how === "destroy" ? "CLOSED" : "DETACHED");
      }
      registry.close();
      Registry.destroy("test", { dir: scene.dir });
    }
  }));

test("a segment that is dropped goes on for those who have it, and is not its successor", () =>
  inScene(async (scene) => {
    const { registry, segment } = attach(scene);
    const child = await party(scene, "deno");
    await child.begin({ do: "wait", segment: "a" });
    const waiting = observe(segment.wait(0, 0));
    assert(registry.dropSegment("a"));
    const next = registry.getNamedSegmentSync("a", SIZE);
    assertEquals(next.notify(0), 0);
    await wakes(segment, 0, 2);
    assertEquals([await waiting.promise, (await child.next()).said], ["ok", "ok"]);
  }));

test("offsets, counts and options are checked", () =>
  inScene(async (scene) => {
    const { registry, segment } = attach(scene);
    for (const at of [-4, 1, 2, 63, SIZE, 2 ** 40, NaN, 1.5, "0" as unknown as number]) {
      await assertRefused(segment.wait(at, 0), "SIZE_INVALID", '"a"', "multiple of 4");
      assertFails(() => segment.waitSync(at, 0), "SIZE_INVALID", '"a"');
      assertFails(() => segment.notify(at), "SIZE_INVALID", '"a"');
    }
    for (const count of [-1, NaN]) {
      assertThrows(() => segment.notify(0, count), RangeError, "count");
    }
    await assertChecksOptions((options) => segment.wait(0, 0, options));
    assertThrows(() => segment.waitSync(0, 0, { timeout: -1 }), RangeError, "timeout");
    // The last word, of a segment whose size is no multiple of 4.
    const odd = registry.getNamedSegmentSync("odd", 7);
    const waiting = odd.wait(0, 0);
    assertEquals([odd.notify(0), await waiting], [1, "ok"]);
    await assertRefused(odd.wait(4, 0), "SIZE_INVALID", "7 bytes");
    const tiny = registry.getNamedSegmentSync("tiny", 3);
    await assertRejects(() => tiny.wait(0, 0));
  }));

test(`${MANY} waits pend in one process; the table is full at ${ROOM}, and works again after`, () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const child = await party(scene, "bun");
    await child.begin({ do: "waitAll", segment: "a", count: MANY });
    await wakes(segment, 0, MANY);
    assertEquals((await child.next()).value, MANY);

    const all = Array.from({ length: ROOM }, () => segment.wait(4, 0));
    const error = await assertRefused(segment.wait(0, 0), "NO_SPACE", ROOM);
    assertEquals([error.actual, error.requested], [ROOM, ROOM + 1]);
    assertFails(() => segment.waitSync(0, 0), "NO_SPACE", ROOM);
    assertEquals(segment.notify(4, 1), 1);
    assertEquals(await all[0], "ok");
    const one = segment.wait(0, 0);
    assertEquals([segment.notify(4), segment.notify(0)], [ROOM - 1, 1]);
    assertEquals(new Set([...await Promise.all(all), await one]), new Set(["ok"]));
  }));

test("rows of processes that were killed make room when the table is full", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const child = await party(scene, "deno");
    await child.begin({ do: "waitAll", segment: "a", count: MANY });
    // The last one is parked when a wait on it can be told apart: all of them are.
    await wakes(segment, 0, 1);
    await child.ask({ do: "answer" });
    await child.killed();
    const all = Array.from({ length: ROOM }, () => segment.wait(4, 0));
    await assertRefused(segment.wait(4, 0), "NO_SPACE", ROOM);
    assertEquals([segment.notify(0), segment.notify(4)], [0, ROOM]);
    assertEquals(new Set(await Promise.all(all)), new Set(["ok"]));
  }));

for (const runtime of runtimes) {
  const other = otherThan(runtime);

  test(`${runtime} waits, ${other} notifies, in the order of arrival across processes`, () =>
    inScene(async (scene) => {
      const { segment, words } = attach(scene);
      const [first, second] = [await party(scene, runtime), await party(scene, other)];
      for (let round = 0; round < 20; round++) {
        const ours = observe(segment.wait(0, 0));
        await untilParked(scene, 1);
        await first.begin({ do: "wait", segment: "a" });
        await untilParked(scene, 2);
        assertEquals((await second.ask({ do: "notify", segment: "a", count: 1 })).value, 1);
        assertEquals(await ours.promise, "ok");
        assertEquals((await second.ask({ do: "notify", segment: "a", count: 5 })).value, 1);
        assertEquals(succeeded(await first.next()).said, "ok");
      }
      Atomics.store(words, 0, 1);
      assertEquals((await first.ask({ do: "wait", segment: "a" })).said, "not-equal");
      // A thread that blocks, here and there.
      first.child.sendLine(JSON.stringify({ do: "waitSync", segment: "a", at: 8 }));
      await wakes(segment, 8, 1);
      assertEquals(await first.next(), { said: "begun" });
      assertEquals(succeeded(await first.next()).said, "ok");
    }));

  test(`a ${runtime} process killed while it waits is not counted, and swallows nothing`, () =>
    inScene(async (scene) => {
      const { registry, segment } = attach(scene);
      for (let round = 0; round < 3; round++) {
        const victim = await party(scene, runtime);
        const survivor = await party(scene, other);
        await victim.begin({ do: "waitAll", segment: "a", count: 5 });
        await untilParked(scene, 5);
        const before = segment.wait(0, 0);
        await untilParked(scene, 6);
        await survivor.begin({ do: "wait", segment: "a" });
        await untilParked(scene, 7);
        await victim.killed();
        assertEquals(segment.notify(0, 1), 1);
        assertEquals(await before, "ok");
        assertEquals(segment.notify(0, 10), 1);
        assertEquals(succeeded(await survivor.next()).said, "ok");
        await survivor.killed();
        assertEquals([...registry.backends()].length, 1);
      }
      // What takes their slots gets nobody else's mail.
      const fresh = await party(scene, runtime);
      await fresh.begin({ do: "wait", segment: "a" });
      await untilParked(scene, 1);
      assertEquals(segment.notify(0), 1);
      assertEquals(succeeded(await fresh.next()).said, "ok");
    }));

  test(`a ${runtime} process killed right after it was told leaves its slot in order`, () =>
    inScene(async (scene) => {
      const { segment } = attach(scene);
      for (let round = 0; round < 3; round++) {
        const victim = await party(scene, runtime);
        await victim.begin({ do: "waitAll", segment: "a", count: 3 });
        // Its answer to the next command: nobody else was at the table, so it has parked them, and
        // does not have the table's lock when it is stopped.
        await victim.ask({ do: "answer" });
        // Stopped: it cannot fetch its mail.
        victim.child.kill("SIGSTOP");
        assertEquals(segment.notify(0, 2), 2);
        await victim.killed();
        assertEquals(segment.notify(0), 0);
      }
      const heir = await party(scene, runtime);
      await heir.begin({ do: "wait", segment: "a" });
      await untilParked(scene, 1);
      assertEquals(segment.notify(0, 1), 1);
      assertEquals(succeeded(await heir.next()).said, "ok");
      const waits = Array.from({ length: 20 }, () => segment.wait(0, 0));
      assertEquals(segment.notify(0), 20);
      assertEquals(await Promise.all(waits), Array(20).fill("ok"));
    }));

  test(`a ${runtime} process killed while it notifies leaves every wait in order`, () =>
    inScene(async (scene) => {
      const { segment } = attach(scene);
      for (let round = 0; round < 5; round++) {
        const victim = await party(scene, runtime);
        const waits = Array.from({ length: 2000 }, () => segment.wait(0, 0));
        const settled = waits.map(observe);
        victim.child.sendLine(JSON.stringify({ do: "notify", segment: "a" }));
        // Somewhere in the middle of it, or before, or after.
        if (round > 0) await until(() => settled.some((one) => one.settled) || round === 1);
        await victim.killed();
        segment.notify(0);
        assertEquals(new Set(await Promise.all(waits)), new Set(["ok"]));
        assertEquals(segment.notify(0), 0);
      }
    }));

  test(`a ${runtime} Worker that blocks in waitSync is woken by its main thread`, () =>
    inScene(async (scene) => {
      const { segment } = attach(scene);
      const child = await party(scene, runtime);
      const commands = [
        { do: "open", dir: scene.dir },
        { do: "get", segment: "a", size: SIZE },
        { do: "waitSync", segment: "a" },
      ] as const;
      child.child.sendLine(JSON.stringify({ do: "workerWoken", commands, segment: "a" }));
      assertEquals(await child.next(), { said: "begun" });
      assertEquals(succeeded(await child.next()), { ok: true, value: 1, said: "ok" });
      assertEquals(segment.notify(0), 0);
    }));
}
