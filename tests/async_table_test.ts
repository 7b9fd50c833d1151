/** Async forms where the library's own tables and locks are in the way, and in its own order. */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { DsmrError, Registry } from "../lib/mod.ts";
import {
  assertRefused,
  assertRejectedWith,
  attach,
  holder,
  isLinux,
  observe,
  Party,
  turn,
} from "./_async.ts";
import { freezer, Intruder } from "./_intruder.ts";
import { assertFails, inScene, succeeded, until } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

const SIZE = 64;

/** Counts turns of the event loop until told otherwise. */
function countTurns(): { count: number; end(): void } {
  const turns = { count: 0, end: () => clearInterval(timer) };
  const timer = setInterval(() => turns.count++);
  return turns;
}

test("a stopped process in the tables: open and getNamedSegment wait, and the loop goes on", () =>
  inScene(async (scene) => {
    if (!isLinux("a registry that is frozen")) return;
    const registry = scene.open();
    const { dir } = scene;
    const frozen = await Intruder.start(scene);
    await frozen.ask(`freeze ${dir} test`);
    const turns = countTurns();
    try {
      const other = (timeout?: number, signal?: AbortSignal): Promise<Registry> =>
        Registry.open("test", {
          dir,
          database: "other",
          ...(timeout === undefined ? {} : { timeout }),
          ...(signal === undefined ? {} : { signal }),
        });
      for (const timeout of [0, 1, 60]) {
        await assertRefused(other(timeout), "TIMEOUT", '"test"', "Is it stopped?");
        await assertRefused(
          registry.getNamedSegment("a", SIZE, undefined, { timeout }),
          "TIMEOUT",
          '"test"',
        );
      }
      const controllers = [new AbortController(), new AbortController()] as const;
      const waits = [
        other(undefined, controllers[0].signal),
        registry.getNamedSegment("a", SIZE, undefined, { signal: controllers[1].signal }),
      ].map((promise) => observe<unknown>(promise));
      const before = turns.count;
      await until(() => turns.count > before + 20);
      assertEquals(waits.map(({ settled }) => settled), [false, false]);
      for (const [i, controller] of controllers.entries()) {
        controller.abort(`enough ${i}`);
        await assertRejectedWith(waits[i]?.promise ?? turn(), `enough ${i}`);
      }
      const opening = observe(other());
      const getting = observe(registry.getNamedSegment("a", SIZE));
      const then = turns.count;
      await until(() => turns.count > then + 20);
      assertEquals([opening.settled, getting.settled], [false, false]);
      await frozen.ask("thaw");
      (await opening.promise).close();
      assertEquals((await getting.promise).found, false);
    } finally {
      turns.end();
    }
  }));

/** Asserts that it pends while the loop goes on, with the tables frozen. */
async function assertPends(...pending: { settled: boolean }[]): Promise<void> {
  const turns = countTurns();
  await until(() => turns.count > 20 || pending.some(({ settled }) => settled));
  turns.end();
  assertEquals(pending.map(({ settled }) => settled), pending.map(() => false));
}

test("a stopped process in the tables: watch begins, goes on and ends without blocking", () =>
  inScene(async (scene) => {
    if (!isLinux("a registry that is frozen")) return;
    const registry = scene.open();
    const frozen = await freezer(scene);
    await frozen.freeze();
    const changes = registry.watch();
    const first = observe(changes.next());
    await assertPends(first);
    await frozen.thaw();
    let count = 0;
    await until(() => {
      // The first of them may come before it looks.
      if (!first.settled) registry.getNamedSegmentSync(`a${count++}`, SIZE);
      return first.settled;
    });
    const { value } = await first.promise;
    assert(value?.type === "segment-created", JSON.stringify(value));

    for (const how of ["goes on", "return", "abort"]) {
      const child = await Party.start(scene, "bun");
      const controller = new AbortController();
      const { signal } = controller;
      const watched = registry.watch({ signal });
      const left = observe(watched.next());
      // Nobody else can tell of a change now.
      await frozen.freeze();
      await child.killed();
      await assertPends(left);
      if (how === "return") await watched.return?.();
      if (how === "return") assertEquals((await left.promise).done, true);
      if (how === "abort") controller.abort("enough");
      if (how === "abort") await assertRejectedWith(left.promise, "enough");
      await frozen.thaw();
      if (how !== "goes on") continue;
      const { value } = await left.promise;
      assert(value?.type === "backend-left", JSON.stringify(value));
      assertEquals(value.backend.pid, child.pid);
    }
  }));

test("a stopped process in the tables: the first wait on a word does not block", () =>
  inScene(async (scene) => {
    if (!isLinux("a registry that is frozen")) return;
    const segment = scene.open().getNamedSegmentSync("a", SIZE);
    const frozen = await freezer(scene);
    await frozen.freeze();
    for (const timeout of [0, 1, 60]) {
      assertEquals(await segment.wait(0, 0, { timeout }), "timed-out");
      assertEquals(await segment.wait(0, 1, { timeout }), "not-equal");
    }
    const controller = new AbortController();
    const aborted = observe(segment.wait(0, 0, { signal: controller.signal }));
    const waits = [segment.wait(0, 0), segment.wait(0, 1)].map(observe);
    await assertPends(aborted, ...waits);
    const reason = new DsmrError("TIMEOUT", "as planned");
    controller.abort(reason);
    await assertRejectedWith(aborted.promise, reason);
    await frozen.thaw();
    assertEquals(await waits[1]?.promise, "not-equal");
    await until(() => segment.notify(0) === 1);
    assertEquals(await waits[0]?.promise, "ok");
  }));

test("a stopped process in the tables: what is initialised waits to be published", () =>
  inScene(async (scene) => {
    if (!isLinux("a registry that is frozen")) return;
    const registry = scene.open();
    const frozen = await freezer(scene);
    let isFilled = false;
    const getting = observe(registry.getNamedSegment("a", SIZE, async () => {
      await frozen.freeze();
      isFilled = true;
    }));
    await until(() => isFilled);
    await assertPends(getting);
    await frozen.thaw();
    assertEquals((await getting.promise).found, false);
    assertEquals(registry.lookupSegment("a"), await getting.promise);
  }));

test("a stopped process in the tables: opening what is open already waits", () =>
  inScene(async (scene) => {
    if (!isLinux("a registry that is frozen")) return;
    const registry = scene.open();
    const { dir } = scene;
    const frozen = await freezer(scene);
    await frozen.freeze();
    for (const timeout of [0, 1]) {
      await assertRefused(Registry.open("test", { dir, timeout }), "TIMEOUT", "Is it stopped?");
      // Also what blocks does so no longer than it was told to.
      assertFails(() => Registry.openSync("test", { dir, timeout }), "TIMEOUT", "for 1 ms");
    }
    const opening = observe(Registry.open("test", { dir }));
    await assertPends(opening);
    await frozen.thaw();
    using again = await opening.promise;
    assertEquals(again.backendId, registry.backendId);
  }));

for (const runtime of runtimes) {
  test(`a stopped process in the tables: waiting for a killed ${runtime} process does not block`, () =>
    inScene(async (scene) => {
      if (!isLinux("a registry that is frozen")) return;
      const { lock } = attach(scene);
      const child = await holder(scene, runtime, "exclusive");
      const frozen = await freezer(scene);
      await frozen.freeze();
      await child.killed();
      assertEquals(lock.tryAcquire(), false);
      for (const timeout of [0, 1, 60]) {
        await assertRefused(lock.acquire("exclusive", { timeout }), "TIMEOUT", `${timeout} ms`);
        await assertRefused(lock.waitForVar(0, 0n, { timeout }), "TIMEOUT", `${timeout} ms`);
      }
      const released = observe(lock.waitForVar(0, 0n));
      const acquired = observe(lock.acquire("shared"));
      await assertPends(released, acquired);
      await frozen.thaw();
      assertEquals((await released.promise).released, true);
      await acquired.promise;
      assert(lock.abandoned && lock.heldByMe("shared"));
      lock.release();
    }));
}

for (const runtime of runtimes) {
  test(`sync code of a ${runtime} process takes the lock before its first wait has begun`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const { lock } = registry.getNamedSegmentSync("a", SIZE);
      const child = await Party.start(scene, runtime);
      await child.ask({ do: "get", segment: "a", size: SIZE });
      lock.acquireSync();
      child.child.sendLine(JSON.stringify({ do: "syncBeforeFirst", segment: "a" }));
      assertEquals(await child.next(), { holding: true });
      lock.release();
      assertEquals(await child.next(), { said: "begun" });
      assertEquals(succeeded(await child.next()).held, true);
      await child.ask({ do: "release", segment: "a" });
      assertEquals([...registry.waits()], []);
    }));
}

test("while another process is in the table of words, waits and aborts do not block", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("a", SIZE);
    // Makes the table, in the library's own segment.
    assertEquals(await segment.wait(0, 1), "not-equal");
    const parked = segment.wait(0, 0);
    const intruder = await Intruder.inWords(scene);
    const controller = new AbortController();
    const aborted = observe(segment.wait(4, 0, { signal: controller.signal }));
    const waits = [segment.wait(4, 1), segment.wait(4, 0), segment.wait(0, 1)].map(observe);
    controller.abort("enough");
    for (let i = 0; i < 5; i++) await turn();
    assertEquals(waits.map(({ settled }) => settled), [false, false, false]);
    // Whenever the first goes on, in whatever microtask: notify is no DEADLOCK among our tasks.
    let told = 0;
    const hops = async (): Promise<void> => {
      for (let i = 0; i < 30; i++) {
        told += segment.notify(0);
        await Promise.resolve();
      }
    };
    const first = waits[0]?.promise.then(hops);
    await intruder.ask("release");
    await first;
    await assertRejectedWith(aborted.promise, "enough");
    assertEquals([await waits[0]?.promise, await waits[2]?.promise], ["not-equal", "not-equal"]);
    assertEquals([await parked, told], ["ok", 1]);
    assertEquals(segment.notify(4), 1);
    assertEquals(await waits[1]?.promise, "ok");
    assertEquals(registry.releaseAll(), 0);
  }));

test("a process killed inside the table of words: it is put in order", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("a", SIZE);
    const waits = [segment.wait(0, 0), segment.wait(0, 0), segment.wait(4, 0)].map(observe);
    await turn();
    const intruder = await Intruder.inWords(scene);
    const last = observe(segment.wait(0, 0));
    await turn();
    intruder.child.kill();
    assertEquals(await intruder.child.ended, "SIGKILL");
    await until(() => segment.notify(4) === 1 || waits[2]?.settled === true);
    assertEquals(await waits[2]?.promise, "ok");
    await until(() => last.settled || segment.notify(0, 1) === 1 && last.settled);
    segment.notify(0);
    assertEquals(await Promise.all(waits.map(({ promise }) => promise)), ["ok", "ok", "ok"]);
    assertEquals([await last.promise, segment.notify(0)], ["ok", 0]);
  }));

test("releaseAll while tasks wait for the table of words does not break into it", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("a", SIZE);
    assertEquals(await segment.wait(0, 1), "not-equal");
    const intruder = await Intruder.inWords(scene);
    for (let round = 0; round < 20; round++) {
      if (round > 0) await intruder.ask("acquire exclusive");
      const waits = Array.from({ length: 10 }, () => segment.wait(0, 0));
      const released = intruder.ask("release");
      const all = Promise.allSettled(waits);
      for (let i = 0; i < round; i++) await Promise.resolve();
      registry.releaseAll();
      await released;
      registry.releaseAll();
      let woken = 0;
      await until(() => {
        registry.releaseAll();
        return (woken += segment.notify(0)) === 10;
      });
      for (const outcome of await all) {
        const reason = outcome.status === "rejected" ? outcome.reason : undefined;
        assert(reason === undefined, reason instanceof DsmrError ? reason.message : `${reason}`);
      }
    }
  }));

test("sync calls on words never meet their table held by a task of another database", () =>
  inScene(async (scene) => {
    const segments = ["one", "two"].map((database) =>
      scene.open({ database }).getNamedSegmentSync("a", SIZE)
    );
    const [first, second] = segments;
    assert(first !== undefined && second !== undefined);
    assertEquals([await first.wait(0, 1), await second.wait(0, 1)], ["not-equal", "not-equal"]);
    const intruder = await Intruder.inWords(scene);
    // More than are answered in one turn of the loop, and than a stack is deep.
    const COUNT = 5_000;
    const waits = Array.from({ length: COUNT }, (_, i) => segments[i % 2]?.wait(0, 1));
    const parked = first.wait(4, 0);
    // Between any two steps that those tasks may take.
    const calls = async (): Promise<void> => {
      for (let i = 0; i < 2000; i++) {
        assertEquals([first.waitSync(0, 1), second.waitSync(0, 1)], ["not-equal", "not-equal"]);
        assertEquals(second.notify(8), 0);
        await Promise.resolve();
      }
    };
    const called = Promise.all([waits[0]?.then(calls), waits[1]?.then(calls)]);
    await intruder.ask("release");
    await called;
    for (const outcome of await Promise.all(waits)) assertEquals(outcome, "not-equal");
    await until(() => second.notify(4) === 1);
    assertEquals(await parked, "ok");
  }));
