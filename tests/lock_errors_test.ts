/** Locks: repairing what the dead have left, Workers, and what is refused. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import type { LockMode, Registry, Repair, Segment } from "../lib/mod.ts";
import { assertFailed, assertFails, inScene, type Scene, succeeded } from "./_scene.ts";
import { type RuntimeName, runtimes } from "./_spawn.ts";

const SIZE = 256;

/** Opens the registry and segment "a" in this process. */
function attach(scene: Scene, repair?: Repair): { registry: Registry; segment: Segment } {
  const registry = scene.open();
  const options = repair === undefined ? {} : { repair };
  return { registry, segment: registry.getNamedSegmentSync("a", SIZE, () => {}, options) };
}

/** A process dies while it has the lock of segment "a", after it has changed one word. */
async function abandon(scene: Scene, runtime: RuntimeName): Promise<void> {
  const child = await scene.child(runtime);
  succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
  succeeded(await child.ask({ do: "acquire", segment: "a" }));
  succeeded(await child.ask({ do: "add", segment: "a", index: 0, value: 1 }));
  child.kill();
  await child.ended;
}

for (const runtime of runtimes) {
  test(`repair mends what a killed ${runtime} process left, before the lock is had`, () =>
    inScene(async (scene) => {
      let repairs = 0;
      const { segment } = attach(scene, (broken) => {
        repairs++;
        assertStrictEquals(broken, segment);
        assert(broken.lock.heldByMe("exclusive"));
        assert(broken.lock.abandoned);
        const mended = new Int32Array(broken.buffer);
        mended[1] = mended[0] ?? 0;
      });
      const { lock } = segment;
      const words = new Int32Array(segment.buffer);
      const ways: (() => void)[] = [
        () => lock.acquireSync("exclusive"),
        () => lock.acquireSync("exclusive", { timeout: 60_000 }),
        () => {
          // A try waits for nobody, not even for the dead to be found.
          assertEquals(lock.waitForVarSync(8, 0n).released, true);
          assert(lock.tryAcquire());
        },
        () => void lock.holdSync(),
        () => {
          // It waits for the dead one's end, does not take it, and finds it free then.
          assertEquals(lock.acquireOrWaitSync(), false);
          assert(lock.acquireOrWaitSync());
        },
      ];
      for (const [i, way] of ways.entries()) {
        await abandon(scene, runtime);
        way();
        assertEquals([repairs, words[0], words[1]], [i + 1, i + 1, i + 1]);
        assertEquals([lock.heldByMe("exclusive"), lock.abandoned], [true, false]);
        lock.release();
      }
      // Sharing it repairs nothing: the data must not be changed.
      await abandon(scene, runtime);
      lock.withSync("shared", () => assert(lock.abandoned));
      assertEquals(repairs, ways.length);
      lock.withSync("exclusive", () => assertEquals(lock.abandoned, false));
      assertEquals([repairs, words[1]], [ways.length + 1, ways.length + 1]);
      // In order, it is not called.
      lock.withSync("exclusive", () => {});
      assertEquals(repairs, ways.length + 1);
    }));

  test(`a Worker of ${runtime} that ends inside leaves the lock abandoned`, () =>
    inScene(async (scene) => {
      const { segment: { lock } } = attach(scene);
      const host = await scene.host(runtime);
      const [inside, beside] = [await scene.worker(host), await scene.worker(host)];
      for (const worker of [inside, beside]) {
        succeeded(await worker.ask({ do: "get", segment: "a", size: SIZE }));
      }
      succeeded(await inside.ask({ do: "acquire", segment: "a" }));
      // Another thread of the same process is another backend.
      assertEquals((await beside.ask({ do: "try", segment: "a" })).held, false);
      assertFailed(await beside.ask({ do: "release", segment: "a" }), "NOT_HELD");
      await inside.terminate();
      assertEquals(succeeded(await beside.ask({ do: "acquire", segment: "a" })).abandoned, true);
      succeeded(await beside.ask({ do: "mark", segment: "a" }));
      succeeded(await beside.ask({ do: "release", segment: "a" }));
      assert(lock.tryAcquire());
      assertEquals(lock.abandoned, false);
    }));
}

test("a repair that throws gives ABANDONED with its cause; the next owner tries", () =>
  inScene(async (scene) => {
    const thrown = new RangeError("beyond repair");
    const { registry, segment } = attach(scene, () => {
      throw thrown;
    });
    const { lock } = segment;
    await abandon(scene, "deno");
    for (const take of [() => lock.acquireSync(), () => lock.tryAcquire()]) {
      assertStrictEquals(assertFails(take, "ABANDONED", '"a"').cause, thrown);
      assertEquals([lock.heldByMe(), lock.abandoned], [false, true]);
    }
    let ran = false;
    assertFails(() => lock.withSync("exclusive", () => void (ran = true)), "ABANDONED");
    assertEquals(ran, false);
    // Others can take it, and the last repair given counts.
    const child = await scene.child("bun");
    succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
    assertEquals((await child.ask({ do: "try", segment: "a" })).abandoned, true);
    succeeded(await child.ask({ do: "release", segment: "a" }));
    registry.getNamedSegmentSync("a", SIZE, undefined, { repair: () => void (ran = true) });
    lock.acquireSync();
    assertEquals([ran, lock.abandoned], [true, false]);
  }));

/* Negative tests. */

test("a lock that is held is ALREADY_HELD, in any mode, and stays held", () =>
  inScene((scene) => {
    const { segment: { lock } } = attach(scene);
    for (const mode of ["exclusive", "shared"] as const) {
      lock.acquireSync(mode);
      for (const again of ["exclusive", "shared"] as const) {
        assertFails(() => lock.acquireSync(again), "ALREADY_HELD", '"a"');
        assertFails(() => lock.acquireSync(again, { timeout: 5 }), "ALREADY_HELD");
        assertFails(() => lock.tryAcquire(again), "ALREADY_HELD");
        assertFails(() => lock.withSync(again, () => {}), "ALREADY_HELD");
        assertFails(() => lock.holdSync(again), "ALREADY_HELD");
      }
      assertFails(() => lock.acquireOrWaitSync(), "ALREADY_HELD");
      if (mode === "exclusive") assertFails(() => lock.waitForVarSync(0, 0n), "ALREADY_HELD");
      assert(lock.heldByMe(mode));
      lock.release();
    }
  }));

test("what is not held cannot be released, marked or updated", () =>
  inScene(async (scene) => {
    const { segment: { lock } } = attach(scene);
    const child = await scene.child("deno");
    succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
    for (const command of ["release", "mark", "update"] as const) {
      assertFailed(await child.ask({ do: command, segment: "a" }), "NOT_HELD", '"a"');
    }
    succeeded(await child.ask({ do: "acquire", segment: "a" }));
    assertFails(() => lock.release(), "NOT_HELD", '"a"');
    assertFails(() => lock.updateVar(0, 1n), "NOT_HELD");
    assertFails(() => lock.markConsistent(), "NOT_HELD");
    assertEquals((await child.ask({ do: "state", segment: "a" })).held, true);
    succeeded(await child.ask({ do: "release", segment: "a" }));
    lock.acquireSync("shared");
    assertFails(() => lock.updateVar(0, 1n, { release: true }), "NOT_HELD");
    assertFails(() => lock.markConsistent(), "NOT_HELD");
    lock.release();
    assertFails(() => lock.release(), "NOT_HELD");
  }));

test("a lock of a segment that was detached is DETACHED", () =>
  inScene((scene) => {
    const { registry, segment } = attach(scene);
    const { lock } = segment;
    const tranche = registry.newTranche("parts");
    const inner = segment.initLock(64, tranche);
    lock.acquireSync();
    segment.detach();
    for (const one of [lock, inner]) {
      const calls: (() => unknown)[] = [
        () => one.acquireSync(),
        () => one.tryAcquire("shared"),
        () => one.release(),
        () => one.withSync("shared", () => {}),
        () => one.holdSync(),
        () => one.acquireOrWaitSync(),
        () => one.waitForVarSync(0, 0n),
        () => one.updateVar(0, 0n),
        () => one.heldByMe(),
        () => one.abandoned,
        () => one.markConsistent(),
      ];
      for (const call of calls) assertFails(call, "DETACHED", '"a"');
    }
    assertFails(() => segment.lock, "DETACHED", '"a"');
    assertFails(() => segment.lockAt(64), "DETACHED", '"a"');
    assertFails(() => segment.initLock(64, tranche), "DETACHED", '"a"');
    // Attached again it is another object; the old one's lock was let go of as by the dead.
    const again = registry.getNamedSegmentSync("a");
    assertFails(() => lock.acquireSync(), "DETACHED");
    again.lock.withSync("exclusive", () => {
      assert(again.lock.abandoned);
      again.detach();
    });
    const held = registry.getNamedSegmentSync("a").lock.holdSync();
    registry.close();
    held[Symbol.dispose]();
    assertFails(() => registry.waits(), "CLOSED");
    assertFails(() => registry.tranches(), "CLOSED");
    assertFails(() => registry.releaseAll(), "CLOSED");
    assertFails(() => registry.newTranche("t"), "CLOSED");
  }));

test("an offset that is misaligned, outside or no whole number is SIZE_INVALID", () =>
  inScene((scene) => {
    const { registry, segment } = attach(scene);
    const tranche = registry.newTranche("parts");
    const none = [-64, -1, 0.5, NaN, Infinity, 2 ** 53, "64" as unknown as number];
    for (const at of [...none, 1, 32, SIZE, SIZE - 32, 2 ** 32, 2 ** 40]) {
      assertFails(() => segment.initLock(at, tranche), "SIZE_INVALID");
      assertFails(() => segment.lockAt(at), "SIZE_INVALID");
    }
    const { lock } = segment;
    lock.acquireSync();
    for (const at of [...none, 1, 4, SIZE, SIZE - 4, 2 ** 32, 2 ** 40]) {
      assertFails(() => lock.updateVar(at, 0n, { release: true }), "SIZE_INVALID");
      assertFails(() => lock.waitForVarSync(at, 0n), "SIZE_INVALID");
    }
    lock.updateVar(SIZE - 8, -1n, { release: true });
    assertEquals(new BigInt64Array(segment.buffer)[SIZE / 8 - 1], -1n);
    assertEquals(lock.waitForVarSync(SIZE - 8, 0n).released, true);
  }));

test("where no lock was made there is none, and none is made of a dropped tranche", () =>
  inScene((scene) => {
    const { registry, segment } = attach(scene);
    const tranche = registry.newTranche("parts");
    assertFails(() => segment.lockAt(0), "CORRUPT", 0);
    assertFails(() => segment.lockAt(128), "CORRUPT", 128);
    tranche.drop();
    assertFails(() => segment.initLock(0, tranche), "NOT_FOUND", tranche.id);
    assertFails(() => segment.lockAt(0), "CORRUPT");
  }));

test("a mode that is none is a TypeError, and a timeout that is none is refused", () =>
  inScene((scene) => {
    const { segment: { lock } } = attach(scene);
    for (const mode of ["both", "", 1, null, "Exclusive"] as unknown as LockMode[]) {
      assertThrows(() => lock.acquireSync(mode), TypeError);
      assertThrows(() => lock.tryAcquire(mode), TypeError);
      assertThrows(() => lock.withSync(mode, () => {}), TypeError);
      assertThrows(() => lock.holdSync(mode), TypeError);
      assertThrows(() => lock.heldByMe(mode), TypeError);
    }
    for (const timeout of [-1, NaN, "5" as unknown as number]) {
      assertThrows(() => lock.acquireSync("shared", { timeout }));
      assertThrows(() => lock.acquireOrWaitSync({ timeout }));
      assertThrows(() => lock.waitForVarSync(0, 0n, { timeout }));
    }
    assertEquals(lock.heldByMe(), false);
  }));

test("a tranche has a name as segments have, and 1,024 are all there is room for", () =>
  inScene((scene) => {
    const registry = scene.open();
    for (const name of ["", "a/b", "a\0b"]) {
      assertFails(() => registry.newTranche(name), "NAME_INVALID");
    }
    assertFails(() => registry.newTranche("n".repeat(64)), "NAME_TOO_LONG");
    const longest = registry.newTranche("ü".repeat(31));
    assertEquals([...registry.tranches()], [
      { name: longest.name, id: longest.id, contended: 0, waited: 0, abandoned: 0 },
    ]);
    const ids = new Set(Array.from({ length: 1023 }, () => registry.newTranche("t").id));
    assertEquals(ids.size, 1023);
    const error = assertFails(() => registry.newTranche("one more"), "TRANCHES_FULL", "one more");
    assertEquals([error.actual, error.requested], [1024, 1025]);
    assert(longest.drop());
    const { id } = registry.newTranche("one more");
    assert(id !== longest.id && !ids.has(id));
  }));

test("a backend holds 128 locks and no more", () =>
  inScene((scene) => {
    const registry = scene.open();
    const tranche = registry.newTranche("many");
    const segment = registry.getNamedSegmentSync("a", 129 * 64);
    const locks = Array.from({ length: 129 }, (_, i) => segment.initLock(64 * i, tranche));
    for (const lock of locks.slice(0, 128)) lock.acquireSync();
    assertFails(() => locks[128]?.acquireSync(), "NO_SPACE", '"many"', 128);
    assertFails(() => locks[128]?.tryAcquire("shared"), "NO_SPACE");
    assertEquals(locks[128]?.heldByMe(), false);
    locks[5]?.release();
    assert(locks[128]?.tryAcquire());
    assertEquals(registry.releaseAll(), 128);
  }));
