/** Opening and initialising without blocking. */

import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { type LWLock, Registry, type Segment } from "../lib/mod.ts";
import {
  assertChecksOptions,
  assertRefused,
  assertRejectedWith,
  observe,
  Party,
  turn,
} from "./_async.ts";
import { assertFailed, inScene, succeeded } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

const wordOf = (segment: Segment): number | undefined => new Uint8Array(segment.buffer)[0];
const fill = (byte: number) => (segment: Segment): void =>
  void new Uint8Array(segment.buffer).fill(byte);

test("Registry.open opens, creates and attaches as openSync does, on the same backend", () =>
  inScene(async (scene) => {
    const { dir } = scene;
    await assertRefused(Registry.open("test", { dir, mode: "attach" }), "NOT_FOUND", '"test"');
    const first = await Registry.open("test", { dir, mode: "create", maxSegments: 2 });
    scene.atEnd(() => first.close());
    await assertRefused(Registry.open("test", { dir, mode: "create" }), "EXISTS", '"test"');
    const second = await Registry.open("test", { dir, mode: "attach" });
    assertEquals(second.backendId, first.backendId);
    assertEquals([second.name, second.dir, second.database], ["test", dir, "default"]);
    second.close();
    assertEquals([...first.backends()].length, 1);
  }));

test("Registry.open refuses what openSync refuses, as rejections, and leaves nothing behind", () =>
  inScene(async (scene) => {
    const { dir } = scene;
    await assertChecksOptions((options) => Registry.open("test", { dir, ...options }));
    await assertRejects(
      () => Registry.open("test", { dir, mode: "ajar" as "open" }),
      TypeError,
      '"ajar"',
    );
    await assertRefused(Registry.open("", { dir }), "NAME_INVALID");
    await assertRefused(Registry.open("x".repeat(64), { dir }), "NAME_TOO_LONG");
    await assertRefused(Registry.open("test", { dir: "" }), "NAME_INVALID");
    await assertRefused(Registry.open("test", { dir, maxBackends: 0 }), "SIZE_INVALID");
    await assertRefused(Registry.open("test", { dir: `${dir}/none` }), "NOT_FOUND");
    assertEquals(scene.files(), []);
  }));

test("getNamedSegment initialises once, and tasks that ask meanwhile wait for the whole of it", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const gate = Promise.withResolvers<void>();
    let runs = 0;
    const init = async (segment: Segment, arg: { byte: number }) => {
      runs++;
      fill(1)(segment);
      await gate.promise;
      fill(arg.byte)(segment);
    };
    const arg = { byte: 7 };
    const tasks = [1, 2, 3].map(() => observe(registry.getNamedSegment("a", 64, init, { arg })));
    tasks.push(observe(registry.getNamedSegment("a")));
    await turn();
    assertEquals([runs, tasks.map(({ settled }) => settled)], [1, [false, false, false, false]]);
    // It is not there yet.
    assertEquals(registry.lookupSegment("a"), null);
    assertEquals([...registry.segments()].map(({ name, ready }) => [name, ready]), [["a", false]]);
    assertEquals(registry.dropSegment("a"), false);
    gate.resolve();
    const segments = await Promise.all(tasks.map(({ promise }) => promise));
    assertEquals([runs, segments.map(wordOf)], [1, [7, 7, 7, 7]]);
    for (const segment of segments) assertStrictEquals(segment, segments[0]);
    assertEquals([segments[0]?.found, registry.lookupSegment("a") === segments[0]], [false, true]);
    assertStrictEquals(await registry.getNamedSegment("a"), segments[0]);
  }));

test("getNamedSegment takes sync callbacks, thenables, none, and what is there", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    assertEquals(wordOf(await registry.getNamedSegment("sync", 8, fill(3))), 3);
    const thenable = (segment: Segment): PromiseLike<void> => ({
      then: (resolve, reject) => turn().then(() => fill(4)(segment)).then(resolve, reject),
    });
    assertEquals(wordOf(await registry.getNamedSegment("thenable", 8, thenable)), 4);
    assertEquals(wordOf(await registry.getNamedSegment("none", 8)), 0);
    assertEquals(wordOf(await registry.getNamedSegment("none")), 0);
    registry.getNamedSegmentSync("there", 8, fill(5));
    assertEquals(wordOf(await registry.getNamedSegment("there", 8, fill(6))), 5);
  }));

test("when init rejects the next task takes over, on zeroed memory", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const cause = new Error("as planned");
    const seen: (number | undefined)[] = [];
    const attempt = (byte: number) => async (segment: Segment) => {
      seen.push(wordOf(segment));
      fill(byte)(segment);
      await turn();
      if (byte < 3) throw cause;
    };
    const tasks = [1, 2, 3, 4].map((byte) => registry.getNamedSegment("a", 8, attempt(byte)));
    for (const task of tasks.slice(0, 2)) {
      assertStrictEquals(
        (await assertRefused(task, "INIT_FAILED", '"a"', "as planned")).cause,
        cause,
      );
    }
    assertEquals((await Promise.all(tasks.slice(2))).map(wordOf), [3, 3]);
    assertEquals(seen, [0, 0, 0]);
  }));

test("waiting for an init that never settles ends by timeout, signal, close and detach", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const started = Promise.withResolvers<Segment>();
    const never = observe(registry.getNamedSegment("a", 8, (segment) => {
      started.resolve(segment);
      return new Promise<void>(() => {});
    }));
    const segment = await started.promise;
    for (const timeout of [0, 1, 5]) {
      await assertRefused(
        registry.getNamedSegment("a", 8, undefined, { timeout }),
        "TIMEOUT",
        '"a"',
      );
    }
    const controller = new AbortController();
    const aborted = registry.getNamedSegment("a", 8, undefined, { signal: controller.signal });
    await turn();
    controller.abort("enough");
    await assertRejectedWith(aborted, "enough");
    await assertChecksOptions((options) => registry.getNamedSegment("b", 8, undefined, options));
    assertEquals([...registry.segments()].map(({ name }) => name), ["a"]);
    // Given up by whoever has it: the next one takes over, though the callback never ends.
    const next = registry.getNamedSegment("a", 16, fill(9));
    segment.detach();
    assertEquals([(await next).size, wordOf(await next), never.settled], [16, 9, false]);
    assertStrictEquals(await registry.getNamedSegment("a"), await next);
  }));

test("init that detaches its segment fails, and the next one is not disturbed by its end", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
    const first = registry.getNamedSegment("a", 8, async (segment) => {
      segment.detach();
      await gates[0].promise;
    });
    await turn();
    const second = observe(registry.getNamedSegment("a", 8, async (segment) => {
      await gates[1].promise;
      fill(2)(segment);
    }));
    await turn();
    gates[0].resolve();
    await assertRefused(first, "INIT_FAILED", "detached it");
    // Somebody initialises: a third one must wait.
    const third = observe(registry.getNamedSegment("a", 8, fill(3)));
    await turn();
    assertEquals([second.settled, third.settled], [false, false]);
    gates[1].resolve();
    assertEquals([wordOf(await second.promise), wordOf(await third.promise)], [2, 2]);
  }));

test("a registry closed or destroyed while tasks initialise and wait: all of them are told", () =>
  inScene(async (scene) => {
    for (const end of ["close", "destroy"] as const) {
      const registry = scene.open();
      const gate = Promise.withResolvers<void>();
      const first = registry.getNamedSegment("a", 8, () => gate.promise);
      await turn();
      const waiting = observe(registry.getNamedSegment("a", 8));
      if (end === "close") {
        registry.close();
        await assertRefused(waiting.promise, "CLOSED");
      } else {
        Registry.destroy("test", { dir: scene.dir });
      }
      gate.resolve();
      if (end === "close") await assertRefused(first, "INIT_FAILED", "closed the registry");
      else await assertRefused(first, "CLOSED");
      await assertRefused(waiting.promise, "CLOSED");
      await assertRefused(registry.getNamedSegment("b", 8), "CLOSED");
      registry.close();
    }
    assertEquals(scene.open().getNamedSegmentSync("a", 8).found, false);
  }));

test("a size that is not the segment's is refused, also while it is initialised", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const gate = Promise.withResolvers<void>();
    const first = registry.getNamedSegment("a", 8, () => gate.promise);
    await turn();
    const second = observe(registry.getNamedSegment("a", 16));
    await turn();
    assertEquals(second.settled, false);
    gate.resolve();
    const error = await assertRefused(second.promise, "SIZE_MISMATCH", '"a"');
    assertEquals([error.actual, error.requested], [8, 16]);
    await first;
    await assertRefused(registry.getNamedSegment("b"), "NOT_FOUND", '"b"');
    for (const size of [0, -1, 1.5, NaN]) {
      await assertRefused(registry.getNamedSegment("b", size), "SIZE_INVALID", size);
    }
    await assertRefused(registry.getNamedSegment("", 8), "NAME_INVALID");
    await assertRejects(
      () => registry.getNamedSegment("b", 8, 1 as unknown as () => void),
      TypeError,
      "The init callback is 1",
    );
  }));

test("a large segment is made beside the event loop, all zero, and given up without a trace", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const before = scene.files();
    const size = 64 * 2 ** 20;
    const controller = new AbortController();
    const aborted = registry.getNamedSegment("a", size, undefined, { signal: controller.signal });
    controller.abort("enough");
    await assertRejectedWith(aborted, "enough");
    assertEquals([scene.files(), [...registry.segments()]], [before, []]);
    const segment = await registry.getNamedSegment("a", size, fill(0));
    assertEquals([segment.size, new Uint8Array(segment.buffer)[size - 1]], [size, 0]);
    segment.detach();
    assert(registry.dropSegment("a"));
    assertEquals(scene.files(), before);
  }));

for (const runtime of runtimes) {
  const other = otherThan(runtime);

  test(`an async initialiser in ${runtime} is waited for by this process and by ${other}`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const [first, second] = [await Party.start(scene, runtime), await Party.start(scene, other)];
      await first.begin({ do: "init", segment: "a", size: 64, how: "hold" });
      assertEquals(await first.next(), { holding: true });
      await second.begin({ do: "init", segment: "a", size: 64, how: "fill" });
      const here = observe(registry.getNamedSegment("a", 64, fill(9)));
      await second.child.sendLine(JSON.stringify({ do: "answer" }));
      assertEquals(await second.next(), { said: "begun" });
      // It answers: its loop goes on, and its wait has not ended.
      succeeded(await second.next());
      assertEquals([here.settled, registry.lookupSegment("a")], [false, null]);
      await assertRefused(
        registry.getNamedSegment("a", 64, undefined, { timeout: 1 }),
        "TIMEOUT",
        first.pid,
      );
      first.go();
      assertEquals(succeeded(await first.next()), { ok: true, initialised: true, value: 2 });
      assertEquals(succeeded(await second.next()), { ok: true, initialised: false, value: 2 });
      assertEquals(wordOf(await here.promise), 2);
    }));

  test(`an async initialiser in ${runtime} that rejects, or is killed, is replaced`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      for (const name of ["rejects", "killed"]) {
        const [first, second] = [
          await Party.start(scene, runtime),
          await Party.start(scene, other),
        ];
        await first.begin({ do: "init", segment: name, size: 64, how: "reject" });
        assertEquals(await first.next(), { holding: true });
        await second.begin({ do: "init", segment: name, size: 64, how: "fill" });
        let ran = 0;
        const here = registry.getNamedSegment(name, 64, (segment) => {
          ran++;
          assertEquals(wordOf(segment), 0);
          fill(2)(segment);
        });
        if (name === "rejects") {
          first.go();
          assertFailed(await first.next(), "INIT_FAILED", "as planned");
        } else {
          await first.killed();
        }
        const report = succeeded(await second.next());
        assertEquals([report.value, wordOf(await here)], [2, 2]);
        assertEquals(Number(report.initialised) + ran, 1);
      }
    }));

  test(`close() while waiting for an initialiser in ${runtime}: every wait is told`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const first = await Party.start(scene, runtime);
      await first.begin({ do: "init", segment: "a", size: 64, how: "hold" });
      assertEquals(await first.next(), { holding: true });
      const waits = [1, 2, 3].map(() => observe(registry.getNamedSegment("a", 64)));
      await turn();
      assertEquals(waits.map(({ settled }) => settled), [false, false, false]);
      registry.close();
      for (const { promise } of waits) await assertRefused(promise, "CLOSED");
      first.go();
      assertEquals(succeeded(await first.next()).initialised, true);
    }));

  test(`a ${runtime} process that waits for a lock is no reason for DEADLOCK elsewhere`, () =>
    inScene(async (scene) => {
      // We initialise "ours" and wait, in another task, for "theirs"; they ask for "ours".
      const registry = scene.open();
      const them = await Party.start(scene, runtime);
      await them.begin({ do: "init", segment: "theirs", size: 8, how: "hold" });
      assertEquals(await them.next(), { holding: true });
      const gate = Promise.withResolvers<void>();
      const ours = registry.getNamedSegment("ours", 8, () => gate.promise);
      const theirs = registry.getNamedSegment("theirs", 8);
      await turn();
      await them.begin({ do: "init", segment: "ours", size: 8, how: "fill" });
      gate.resolve();
      await ours;
      assertEquals(succeeded(await them.next()).initialised, false);
      them.go();
      assertEquals(succeeded(await them.next()).initialised, true);
      await theirs;
    }));
}

test("locks inside an init callback: the segment's own lock works before it is published", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const locks: LWLock[] = [];
    const segment = await registry.getNamedSegment("a", 64, async ({ lock }) => {
      locks.push(lock);
      await lock.with("exclusive", () => turn());
    });
    assertStrictEquals(segment.lock, locks[0]);
    assert(segment.lock.tryAcquire());
    segment.lock.release();
  }));
