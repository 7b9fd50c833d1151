/** The async forms of a lock, among the tasks of one isolate. */

import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { test } from "./_declare.ts";
import type { LockMode } from "../lib/mod.ts";
import {
  assertChecksOptions,
  assertNothingLeft,
  assertRefused,
  assertRejectedWith,
  attach,
  holder,
  observe,
  party,
  SIZE,
  turn,
} from "./_async.ts";
import { assertFails, inScene, until } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

const MODES: readonly LockMode[] = ["exclusive", "shared"];
const other: Record<LockMode, LockMode> = { exclusive: "shared", shared: "exclusive" };

for (const mode of MODES) {
  test(`acquire, with and hold take a free lock ${mode}, and let go of it`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const holds = () => [lock.heldByMe(), lock.heldByMe(mode), lock.heldByMe(other[mode])];
      assertEquals(await lock.acquire(mode), undefined);
      assertEquals(holds(), [true, true, false]);
      lock.release();
      assertEquals(lock.heldByMe(), false);

      const value = { some: "value" };
      assertStrictEquals(await lock.with(mode, () => value), value);
      assertStrictEquals(
        await lock.with(mode, async () => {
          assertEquals(holds(), [true, true, false]);
          await turn();
          assertEquals(holds(), [true, true, false]);
          return value;
        }),
        value,
      );
      assertEquals(lock.heldByMe(), false);

      {
        using _held = await lock.hold(mode);
        assertEquals(holds(), [true, true, false]);
      }
      assertEquals(lock.heldByMe(), false);
      const held = await lock.hold(mode);
      held[Symbol.dispose]();
      const again = await lock.hold(mode);
      // The second time it is nobody else's.
      held[Symbol.dispose]();
      assertEquals(lock.heldByMe(), true);
      again[Symbol.dispose]();
      assertNothingLeft(registry, lock);
    }));

  test(`with lets go of a lock held ${mode} when the callback throws or rejects`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const reason = new Error("as planned");
      const fail = (): never => {
        throw reason;
      };
      await assertRejectedWith(lock.with(mode, fail), reason);
      assertEquals(lock.heldByMe(), false);
      await assertRejectedWith(lock.with(mode, () => Promise.reject(reason)), reason);
      const later = async () => {
        await turn();
        fail();
      };
      await assertRejectedWith(lock.with(mode, later), reason);
      assertNothingLeft(registry, lock);
    }));

  test(`the mode is exclusive if it is omitted, and ${mode} waits for it`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      await lock.acquire();
      const second = observe(lock.acquire(mode));
      await turn();
      assertEquals([second.settled, lock.heldByMe("exclusive")], [false, true]);
      lock.release();
      await second.promise;
      assertEquals(lock.heldByMe(mode), true);
      lock.release();
      assertNothingLeft(registry, lock);
    }));
}

test("every async form checks its options before it does anything", () =>
  inScene(async (scene) => {
    const { registry, lock, segment } = attach(scene);
    await assertChecksOptions((options) => lock.acquire("exclusive", options));
    await assertChecksOptions((options) => lock.with("shared", () => 1, options));
    await assertChecksOptions((options) => lock.hold("exclusive", options));
    await assertChecksOptions((options) => lock.acquireOrWait(options));
    await assertChecksOptions((options) => lock.waitForVar(0, 0n, options));
    await assertRejects(() => lock.acquire("both" as LockMode), TypeError, '"both"');
    await assertRefused(lock.waitForVar(4, 0n), "SIZE_INVALID", "a");
    await assertRefused(lock.waitForVar(SIZE, 0n), "SIZE_INVALID", "a");
    await assertRefused(lock.waitForVar(-8, 0n), "SIZE_INVALID", -8);
    assertNothingLeft(registry, lock);
    segment.detach();
    await assertRefused(lock.acquire(), "DETACHED", '"a"');
    await assertRefused(lock.with("shared", () => 1), "DETACHED", '"a"');
    await assertRefused(lock.acquireOrWait(), "DETACHED", '"a"');
    await assertRefused(lock.waitForVar(0, 0n), "DETACHED", '"a"');
  }));

test("a free lock is taken whatever the timeout, and one that is held not within 0 or 1 ms", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    for (const timeout of [0, 0.5, 1, 2 ** 31, 2 ** 40, Infinity]) {
      await lock.acquire("exclusive", { timeout });
      lock.release();
    }
    const child = await holder(scene, "deno", "exclusive");
    for (const timeout of [0, 0.5, 3]) {
      for (const mode of MODES) {
        await assertRefused(
          lock.acquire(mode, { timeout }),
          "TIMEOUT",
          '"a"',
          timeout === 3 ? 3 : "",
        );
      }
      await assertRefused(lock.acquireOrWait({ timeout }), "TIMEOUT", '"a"');
      await assertRefused(lock.waitForVar(0, 0n, { timeout }), "TIMEOUT", '"a"');
      assertEquals([...registry.waits()], []);
    }
    // So long that timers do not know it: not at once, at least.
    const long = [2 ** 31, 2 ** 40, Infinity].map((timeout) => lock.acquire("shared", { timeout }));
    const settled = long.map(observe);
    for (let i = 0; i < 5; i++) await turn();
    assertEquals(settled.map((one) => one.settled), [false, false, false]);
    await child.ask({ do: "release", segment: "a" });
    await Promise.all(long);
    for (const _ of long) lock.release();
    assertNothingLeft(registry, lock);
  }));

test("an abort while waiting ends the wait at once, with the very reason", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const child = await holder(scene, "bun", "exclusive");
    const calls = [
      (signal: AbortSignal) => lock.acquire("exclusive", { signal }),
      (signal: AbortSignal) => lock.acquire("shared", { signal }),
      (signal: AbortSignal) => lock.with("exclusive", () => assert(false), { signal }),
      (signal: AbortSignal) => lock.hold("exclusive", { signal }),
      (signal: AbortSignal) => lock.acquireOrWait({ signal }),
      (signal: AbortSignal) => lock.waitForVar(0, 0n, { signal }),
    ];
    for (const reason of [undefined, "a text", { an: "object" }, null]) {
      for (const call of calls) {
        const controller = new AbortController();
        const waiting = observe<unknown>(call(controller.signal));
        await turn();
        assertEquals(waiting.settled, false);
        controller.abort(reason);
        await assertRejectedWith(waiting.promise, controller.signal.reason);
        assertEquals([...registry.waits()], []);
      }
    }
    await child.ask({ do: "release", segment: "a" });
    assertNothingLeft(registry, lock);
  }));

test("tasks of one isolate get the lock in the order in which they asked", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const order: number[] = [];
    let inside = 0;
    const tasks = Array.from({ length: 50 }, (_, i) =>
      lock.with("exclusive", async () => {
        order.push(i);
        assertEquals(++inside, 1);
        await Promise.resolve();
        inside--;
      }));
    await Promise.all(tasks);
    assertEquals(order, Array.from({ length: 50 }, (_, i) => i));
    assertNothingLeft(registry, lock);
  }));

test("tasks that want it shared hold it together; a writer behind them comes before later ones", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const events: string[] = [];
    const gate = Promise.withResolvers<void>();
    const read = (name: string) =>
      lock.with("shared", async () => {
        events.push(name);
        await gate.promise;
      });
    const first = [read("r1"), read("r2"), read("r3")];
    const writer = lock.with("exclusive", () => {
      events.push("w");
      assert(lock.heldByMe("exclusive"));
    });
    const later = [read("r4"), read("r5")];
    await turn();
    // They could join those inside, but for the writer.
    assertEquals(events, ["r1", "r2", "r3"]);
    gate.resolve();
    await Promise.all([...first, writer, ...later]);
    assertEquals(events, ["r1", "r2", "r3", "w", "r4", "r5"]);
    assertNothingLeft(registry, lock);
  }));

test("release lets go of one shared task at a time, and the lock is free after the last", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    await Promise.all([lock.acquire("shared"), lock.acquire("shared"), lock.acquire("shared")]);
    const writer = observe(lock.acquire("exclusive"));
    for (let i = 0; i < 3; i++) {
      await turn();
      assertEquals([writer.settled, lock.heldByMe("shared")], [false, true]);
      lock.release();
    }
    await writer.promise;
    assert(lock.heldByMe("exclusive"));
    lock.release();
    assertFails(() => lock.release(), "NOT_HELD", '"a"');
    assertNothingLeft(registry, lock);
  }));

test("release does not take away what with or using hold", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    await lock.with("exclusive", () => void assertFails(() => lock.release(), "NOT_HELD", '"a"'));
    {
      using _held = await lock.hold("shared");
      assertFails(() => lock.release(), "NOT_HELD", '"a"');
      assert(lock.heldByMe("shared"));
    }
    assertNothingLeft(registry, lock);
  }));

test("a task that gives up in the queue is in nobody's way, wherever it stands", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const child = await holder(scene, "deno", "exclusive");
    const controllers = Array.from({ length: 4 }, () => new AbortController());
    const order: number[] = [];
    const tasks = controllers.map(({ signal }, i) =>
      lock.with("exclusive", () => void order.push(i), { signal })
    );
    const outcomes = Promise.allSettled(tasks);
    await until(() => [...registry.waits()].length === 1);
    controllers[0]?.abort("first");
    controllers[2]?.abort("third");
    await assertRejectedWith(tasks[0] ?? outcomes, "first");
    await assertRejectedWith(tasks[2] ?? outcomes, "third");
    await child.ask({ do: "release", segment: "a" });
    await outcomes;
    assertEquals(order, [1, 3]);
    assertNothingLeft(registry, lock);
  }));

test("ten thousand that wait, and give up in any order: the others keep theirs", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const child = await holder(scene, "deno", "exclusive");
    const COUNT = 10_000;
    const all = new AbortController();
    const some = Array.from({ length: COUNT }, () => new AbortController());
    const order: number[] = [];
    // Readers among them: where the mode changes, the first one's place is given back.
    const modeOf = (i: number): LockMode => i % 7 === 0 ? "shared" : "exclusive";
    const tasks = some.map(({ signal }, i) =>
      lock.with(modeOf(i), () => void order.push(i), { signal: i % 2 === 0 ? signal : all.signal })
    );
    const outcomes = Promise.allSettled(tasks);
    await until(() => [...registry.waits()].length === 1);
    // The first, the last, and those in between from both ends.
    const leaving = some.map((_, i) => i).filter((i) => i % 2 === 0 && i % 10 !== 4);
    for (let i = 0; i < leaving.length / 2; i++) {
      some[leaving[i] ?? 0]?.abort("some");
      some[leaving[leaving.length - 1 - i] ?? 0]?.abort("some");
    }
    all.abort("all");
    assertEquals([...registry.waits()].length, 1);
    await child.ask({ do: "release", segment: "a" });
    const reasons = (await outcomes).map((outcome) =>
      outcome.status === "rejected" ? outcome.reason : undefined
    );
    assertEquals(
      reasons,
      some.map((_, i) => i % 2 === 1 ? "all" : i % 10 === 4 ? undefined : "some"),
    );
    assertEquals(order, some.map((_, i) => i).filter((i) => i % 10 === 4));
    assertNothingLeft(registry, lock);
  }));

test("releaseAll takes the lock from every task, and those that wait get it", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    await lock.acquire("shared");
    const inside = lock.with("shared", async () => {
      const next = lock.acquire("exclusive");
      assertEquals(registry.releaseAll(), 1);
      await next;
      assert(lock.heldByMe("exclusive"));
    });
    await inside;
    // The end of `with` was not the end of the other task's hold.
    assert(lock.heldByMe("exclusive"));
    lock.release();
    assertNothingLeft(registry, lock);

    // In the turn in which it was acquired, before the task knows.
    const gone = lock.acquire("exclusive");
    assertEquals(registry.releaseAll(), 1);
    await gone;
    assertEquals(lock.heldByMe(), false);
    assertFails(() => lock.release(), "NOT_HELD", '"a"');
    await lock.with("exclusive", () => void assertFails(() => lock.release(), "NOT_HELD", '"a"'));
    assertNothingLeft(registry, lock);
  }));

for (const runtime of runtimes) {
  test(`acquireOrWait and waitForVar see what a ${runtime} process does with the lock`, () =>
    inScene(async (scene) => {
      const { registry, lock, segment } = attach(scene);
      assertEquals(await lock.acquireOrWait(), true);
      assert(lock.heldByMe("exclusive"));
      const child = await party(scene, runtime);
      await child.begin({ do: "waitForVar", segment: "a", expected: 0 });
      lock.updateVar(0, 7n);
      assertEquals(await child.next(), { ok: true, released: false, value: 7 });
      await child.begin({ do: "waitForVar", segment: "a", expected: 7 });
      lock.release();
      assertEquals(await child.next(), { ok: true, released: true, value: 7 });

      await child.ask({ do: "acquire", segment: "a" });
      const waits = [
        lock.waitForVar(0, 7n),
        lock.waitForVar(0, 7n, { timeout: 60_000 }),
        lock.acquireOrWait(),
      ].map((promise) => observe<unknown>(promise));
      assertEquals(await lock.waitForVar(0, 6n), { released: false, value: 7n });
      await turn();
      assertEquals(waits.map(({ settled }) => settled), [false, false, false]);
      await child.ask({ do: "release", segment: "a" });
      assertEquals(await Promise.all(waits.map(({ promise }) => promise)), [
        { released: true, value: 7n },
        { released: true, value: 7n },
        false,
      ]);
      assertEquals(await lock.waitForVar(0, 7n), { released: true, value: 7n });
      assertEquals(new BigUint64Array(segment.buffer)[0], 7n);
      assertNothingLeft(registry, lock);
    }));
}

test("waitForVar waits for another task of its isolate, and for sync code of it", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const takes: (() => unknown)[] = [() => lock.acquire(), () => lock.acquireSync()];
    let value = 0n;
    for (const take of takes) {
      await take();
      const changes = [
        () => lock.updateVar(0, ++value),
        () => lock.release(),
        () => lock.updateVar(0, value, { release: true }),
        () => registry.releaseAll(),
      ];
      for (const [i, change] of changes.entries()) {
        const before = value;
        const waits = [
          lock.waitForVar(0, before),
          lock.waitForVar(0, before, { timeout: 60_000 }),
        ].map(observe);
        await assertRefused(lock.waitForVar(0, before, { timeout: 1 }), "TIMEOUT", '"a"');
        assertEquals(await lock.waitForVar(0, before + 9n), { released: false, value: before });
        // Whatever is due has been done, and the watch looked at once more.
        for (let turns = 0; turns < 3; turns++) await turn();
        assertEquals(waits.map(({ settled }) => settled), [false, false]);
        change();
        for (const { promise } of waits) {
          assertEquals(await promise, { released: i > 0, value });
        }
        if (i > 0) await take();
      }
      lock.release();
    }
    assertNothingLeft(registry, lock);
  }));

test("waitForVar is not ended by a task that holds it shared, nor by one that waits", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    await lock.acquire("shared");
    const writer = observe(lock.acquire("exclusive"));
    assertEquals(await lock.waitForVar(0, 0n), { released: true, value: 0n });
    lock.release();
    await writer.promise;
    const reader = observe(lock.acquire("shared"));
    const waiting = observe(lock.waitForVar(0, 0n));
    await turn();
    assertEquals([reader.settled, waiting.settled], [false, false]);
    lock.updateVar(0, 1n, { release: true });
    assertEquals(await waiting.promise, { released: true, value: 0n });
    await reader.promise;
    lock.release();
    assertNothingLeft(registry, lock);
  }));
