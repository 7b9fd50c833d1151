/** Asking for what this very isolate initialises: by a task, by sync code, by the callback itself. */

import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { test } from "./_declare.ts";
import type { Segment } from "../lib/mod.ts";
import { within } from "../lib/wait.ts";
import { assertRefused, assertRejectedWith, observe, turn } from "./_async.ts";
import { assertFails, inScene } from "./_scene.ts";

const wordOf = (segment: Segment): number | undefined => new Uint8Array(segment.buffer)[0];
const fill = (byte: number) => (segment: Segment): void =>
  void new Uint8Array(segment.buffer).fill(byte);

test("a sync ask for what a task of the same program initialises is an error, not a hang", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const gate = Promise.withResolvers<void>();
    const task = registry.getNamedSegment("a", 8, () => gate.promise);
    await turn();
    const other = scene.open({ database: "other" });
    for (const one of [registry, other]) {
      for (const size of [8, undefined]) {
        const ask = () => one.getNamedSegmentSync("a", size, undefined, { timeout: 60_000 });
        assertFails(ask, "DEADLOCK", '"a"', "Await getNamedSegment");
      }
    }
    gate.resolve();
    assertStrictEquals(registry.lookupSegment("a"), null);
    const segment = await task;
    assertStrictEquals(registry.getNamedSegmentSync("a"), segment);
  }));

test("what a task initialises, tasks of another database of the same registry wait for", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const other = scene.open({ database: "other" });
    assert(other.backendId !== registry.backendId);
    const gate = Promise.withResolvers<void>();
    const first = registry.getNamedSegment("a", 8, async (segment) => {
      await gate.promise;
      fill(5)(segment);
    });
    await turn();
    const controller = new AbortController();
    const aborted = other.getNamedSegment("a", 8, fill(6), { signal: controller.signal });
    const waiting = [1, 2].map(() => observe(other.getNamedSegment("a", 8, fill(6))));
    await assertRefused(other.getNamedSegment("a", 8, fill(6), { timeout: 3 }), "TIMEOUT", '"a"');
    controller.abort("enough");
    await assertRejectedWith(aborted, "enough");
    assertEquals(waiting.map(({ settled }) => settled), [false, false]);
    gate.resolve();
    const segments = await Promise.all([first, ...waiting.map(({ promise }) => promise)]);
    assertEquals(segments.map(wordOf), [5, 5, 5]);
    assertEquals(segments.map(({ found }) => found), [false, true, true]);

    // The first one gives up: the other takes over.
    for (const end of ["rejects", "detaches", "closes"] as const) {
      const third = scene.open({ database: "third" });
      const inside = Promise.withResolvers<Segment>();
      const fails = observe(third.getNamedSegment(end, 8, (segment) => {
        inside.resolve(segment);
        return end === "rejects" ? turn().then(() => assert(false)) : new Promise(() => {});
      }));
      const segment = await inside.promise;
      const next = other.getNamedSegment(end, 8, fill(7));
      if (end === "detaches") segment.detach();
      if (end === "closes") third.close();
      assertEquals([wordOf(await next), (await next).found], [7, false]);
      assertEquals(fails.settled, end === "rejects");
      third.close();
    }
  }));

test("init that asks for its own segment by another database gets INIT_RECURSION", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const other = scene.open({ database: "other" });
    const ask = () => other.getNamedSegment("a", 8);
    const askSync = () => other.getNamedSegmentSync("a", 8);
    await registry.getNamedSegment("a", 8, async () => {
      await assertRefused(ask(), "INIT_RECURSION", '"a"');
      assertFails(askSync, "INIT_RECURSION", '"a"');
      await turn();
      await other.getNamedSegment("b", 8, async () => {
        await assertRefused(ask(), "INIT_RECURSION", '"a"');
        assertFails(askSync, "INIT_RECURSION", '"a"');
      });
    });
    assertEquals((await ask()).found, true);
    // Of the same name in another registry: another segment.
    const elsewhere = scene.open({}, "elsewhere");
    await registry.getNamedSegment("c", 8, async () => {
      await elsewhere.getNamedSegment("c", 8);
    });

    const asked: Promise<unknown>[] = [];
    registry.getNamedSegmentSync("d", 8, () => {
      assertFails(() => other.getNamedSegmentSync("d"), "INIT_RECURSION", '"d"');
      asked.push(
        assertRefused(other.getNamedSegment("d", 8), "INIT_RECURSION", '"d"'),
        assertRefused(registry.getNamedSegment("d", 8), "INIT_RECURSION", '"d"'),
      );
    });
    await Promise.all(asked);
    assertEquals(other.getNamedSegmentSync("d").found, true);
  }));

test("what an init callback has left running waits for the next initialiser like others", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const goOn = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    let left: Promise<Segment> | undefined;
    const fails = registry.getNamedSegment("a", 8, () => {
      left = goOn.promise.then(() => registry.getNamedSegment("a", 8));
      throw new Error("as planned");
    });
    await assertRefused(fails, "INIT_FAILED", "as planned");
    const next = registry.getNamedSegment("a", 8, async (segment) => {
      await gate.promise;
      fill(4)(segment);
    });
    await turn();
    goOn.resolve();
    await turn();
    gate.resolve();
    assert(left !== undefined);
    assertStrictEquals(await left, await next);
    assertEquals(wordOf(await left), 4);
  }));

test("init that asks for its own segment gets INIT_RECURSION, also later and deeper", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const codes: string[] = [];
    const ask = async (): Promise<void> => {
      codes.push(
        (await assertRefused(registry.getNamedSegment("a", 8), "INIT_RECURSION", '"a"')).code,
      );
    };
    const segment = await registry.getNamedSegment("a", 8, async () => {
      await ask();
      await turn();
      await ask();
      assertFails(() => registry.getNamedSegmentSync("a", 8), "INIT_RECURSION", '"a"');
      await registry.getNamedSegment("b", 8, async () => {
        await turn();
        await ask();
        await registry.getNamedSegment("c", 8, ask);
      });
      await Promise.all([ask(), new Promise<void>((r) => setTimeout(() => ask().then(r)))]);
    });
    assertEquals(codes.length, 6);
    // Afterwards it is a segment as any other.
    assertStrictEquals(await registry.getNamedSegment("a", 8), segment);
    assertEquals([...registry.segments()].map(({ ready }) => ready), [true, true, true]);
  }));

test("a timeout longer than timers know is no shorter", async () => {
  const { setTimeout } = globalThis;
  // For timers of this length the day has come, three times.
  let days = 3;
  const passed = Promise.withResolvers<void>();
  globalThis.setTimeout = ((run: () => void, delay?: number) => {
    if (delay !== 2 ** 31 - 1) return setTimeout(run, delay);
    if (days-- > 0) return setTimeout(run, 0);
    passed.resolve();
    return setTimeout(run, delay);
  }) as typeof setTimeout;
  try {
    const gate = Promise.withResolvers<void>();
    const waiting = observe(within(gate.promise, { timeout: 2 ** 40 }, () => new Error("late")));
    await Promise.race([passed.promise, waiting.promise]);
    assertEquals(waiting.settled, false);
    gate.resolve();
    await waiting.promise;
    await assertRejects(
      () => within(new Promise(() => {}), { timeout: 3 }, () => new Error("late")),
      Error,
      "late",
    );
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});
