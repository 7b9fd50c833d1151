/** Sync and async forms of one lock in one isolate. */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import type { LockMode } from "../lib/mod.ts";
import { assertNothingLeft, attach, holder, observe, turn } from "./_async.ts";
import { assertFails, inScene, succeeded, until } from "./_scene.ts";

/** The word where `releaseLater` counts. */
const RELEASED = 128;
const MODES: readonly LockMode[] = ["exclusive", "shared"];

test("a sync acquire while a task holds the lock is DEADLOCK at once, in every sync form", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    for (const mode of MODES) {
      await lock.with(mode, () => {
        for (const wanted of MODES) {
          // Sync code shares what tasks share: that is tested below.
          if (mode === "shared" && wanted === "shared") continue;
          assertFails(() => lock.acquireSync(wanted), "DEADLOCK", '"a"', "Await the async form");
        }
        assertFails(() => lock.withSync("exclusive", () => 1), "DEADLOCK", '"a"');
        assertFails(() => lock.holdSync(), "DEADLOCK", '"a"');
        assertFails(() => lock.acquireOrWaitSync(), "DEADLOCK", '"a"');
        assert(lock.heldByMe(mode));
      });
    }
    assertNothingLeft(registry, lock);
  }));

test("a sync acquire while a task merely waits comes first, and the task goes on after it", () =>
  inScene(async (scene) => {
    const { registry, segment, lock } = attach(scene);
    const child = await holder(scene, "bun", "exclusive");
    const forms = [
      () => lock.acquireSync(),
      () => void lock.holdSync("exclusive", { timeout: 60_000 }),
      () => assertEquals(lock.tryAcquire(), true),
      () => assertEquals(lock.acquireOrWaitSync(), true),
    ];
    for (const [round, acquire] of forms.entries()) {
      const task = observe(lock.acquire());
      await until(() => [...registry.waits()].length === 1);
      assertEquals([lock.tryAcquire(), lock.tryAcquire("shared")], [false, false]);
      assertFails(() => lock.acquireSync("exclusive", { timeout: 0 }), "TIMEOUT", '"a"');
      assertFails(() => lock.acquireOrWaitSync({ timeout: 0 }), "TIMEOUT", '"a"');
      await child.begin({ do: "releaseLater", segment: "a" });
      // Blocks: no event of ours comes between its release and what follows.
      segment.waitSync(RELEASED, round);
      if (!task.settled) {
        acquire();
        assertEquals([lock.heldByMe("exclusive"), task.settled], [true, false]);
        await turn();
        assertEquals(task.settled, false);
        lock.release();
      } else {
        console.log("not tested: the task had the lock before this thread went on");
      }
      await task.promise;
      lock.release();
      succeeded(await child.next());
      await child.ask({ do: "acquire", segment: "a" });
    }
    const task = lock.acquire();
    await until(() => [...registry.waits()].length === 1);
    await child.begin({ do: "releaseLater", segment: "a" });
    if (lock.acquireOrWaitSync()) lock.release();
    await task;
    lock.release();
    succeeded(await child.next());
    assertNothingLeft(registry, lock);
  }));

test("a task that asks while sync code holds the lock gets it when that lets go", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const letGo = [
      () => lock.release(),
      () => lock.updateVar(0, 1n, { release: true }),
      () => assertEquals(registry.releaseAll(), 1),
    ];
    for (const release of letGo) {
      lock.acquireSync();
      const tasks = [lock.acquire("exclusive"), lock.acquire("shared")].map(observe);
      await turn();
      assertEquals(tasks.map(({ settled }) => settled), [false, false]);
      release();
      await tasks[0]?.promise;
      assertEquals([lock.heldByMe("exclusive"), tasks[1]?.settled], [true, false]);
      lock.release();
      await tasks[1]?.promise;
      lock.release();
      assertEquals(await lock.acquireOrWait(), true);
      const waiting = observe(lock.acquireOrWait());
      await turn();
      assertEquals(waiting.settled, false);
      lock.release();
      assertEquals(await waiting.promise, false);
    }
    assertNothingLeft(registry, lock);
  }));

test("sync code shares what tasks hold shared, and each gives back its own share", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const isFree = () => ![...registry.backends()].some(({ held }) => held.length > 0);
    await lock.acquire("shared");
    const using = await lock.hold("shared");
    lock.acquireSync("shared");
    const usingSync = lock.holdSync("shared");
    assertEquals(lock.withSync("shared", () => lock.heldByMe("shared")), true);
    assertEquals(lock.tryAcquire("shared"), true);
    // Whoever waits here waits for our own isolate: sync code cannot wait for it.
    const writer = observe(lock.acquire("exclusive"));
    assertEquals(lock.tryAcquire("shared"), false);
    lock.acquireSync("shared", { timeout: 0 });
    assertFails(() => lock.acquireSync("exclusive"), "DEADLOCK", '"a"');
    assertFails(() => lock.acquireOrWaitSync(), "DEADLOCK", '"a"');
    // Four are release's: those of acquire, acquireSync (twice) and tryAcquire.
    for (let i = 0; i < 4; i++) lock.release();
    assertFails(() => lock.release(), "NOT_HELD", '"a"');
    assertFails(() => lock.withSync("shared", () => lock.release()), "NOT_HELD", '"a"');
    await turn();
    assertEquals([writer.settled, lock.heldByMe("shared")], [false, true]);
    using[Symbol.dispose]();
    using[Symbol.dispose]();
    await turn();
    assertEquals([writer.settled, lock.heldByMe("shared")], [false, true]);
    usingSync[Symbol.dispose]();
    await writer.promise;
    // The second time it is nobody else's.
    usingSync[Symbol.dispose]();
    assertEquals(lock.heldByMe("exclusive"), true);
    lock.release();
    assert(isFree());

    // The last share is sync code's.
    await lock.acquire("shared");
    lock.acquireSync("shared");
    lock.release();
    assert(lock.heldByMe("shared"));
    lock.release();
    assert(isFree());
    assertFails(() => lock.release(), "NOT_HELD", '"a"');
    // What sync code has taken first tasks wait for; they do not share it.
    lock.acquireSync("shared");
    assertFails(() => lock.acquireSync("shared"), "ALREADY_HELD", '"a"');
    const task = observe(lock.acquire("shared"));
    await turn();
    assertEquals(task.settled, false);
    lock.release();
    await task.promise;
    lock.release();
    assertNothingLeft(registry, lock);
  }));

test("a sync block that has lost its lock does not take it from the task that has it now", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    for (const mode of MODES) {
      const lost = lock.holdSync(mode);
      lock.release();
      await lock.acquire("shared");
      lost[Symbol.dispose]();
      assert(lock.heldByMe("shared"));
      lock.release();
      // Shared with a task, and then all taken away.
      await lock.acquire("shared");
      const taken = lock.holdSync("shared");
      assertEquals(registry.releaseAll(), 1);
      await lock.acquire("shared");
      taken[Symbol.dispose]();
      assert(lock.heldByMe("shared"));
      lock.release();
    }
    assertNothingLeft(registry, lock);
  }));

test("tryAcquire joins shared tasks, and takes nothing that would need a wait", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    await lock.acquire("shared");
    assertEquals([lock.tryAcquire("exclusive"), lock.tryAcquire("shared")], [false, true]);
    const writer = observe(lock.acquire("exclusive"));
    // A task waits already.
    assertEquals(lock.tryAcquire("shared"), false);
    lock.release();
    await turn();
    assertEquals([writer.settled, lock.heldByMe("shared")], [false, true]);
    lock.release();
    await writer.promise;
    assertEquals([lock.tryAcquire("exclusive"), lock.tryAcquire("shared")], [false, false]);
    lock.release();
    assertNothingLeft(registry, lock);
  }));

test("waitForVarSync is DEADLOCK while a task holds the lock, ALREADY_HELD after acquireSync", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const wait = () => lock.waitForVarSync(0, 0n);
    await lock.with("exclusive", () => {
      assertFails(wait, "DEADLOCK", '"a"', "Await the async form");
    });
    lock.acquireSync();
    assertFails(wait, "ALREADY_HELD", '"a"');
    // Also when a task waits: it does not hold it.
    const task = lock.acquire();
    assertFails(wait, "ALREADY_HELD", '"a"');
    lock.release();
    await task;
    assertFails(wait, "DEADLOCK", '"a"');
    lock.release();
    await lock.acquire("shared");
    assertEquals(wait(), { released: true, value: 0n });
    lock.release();
    assertNothingLeft(registry, lock);
  }));
