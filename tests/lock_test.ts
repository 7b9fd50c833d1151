/** Locks: across processes of both runtimes, and through the deaths of their holders. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import type { LockMode, Registry, Segment } from "../lib/mod.ts";
import type { Report } from "./_agent.ts";
import { assertFailed, assertFails, inScene, type Scene, succeeded, until } from "./_scene.ts";
import { type Child, otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

const SIZE = 256;
const MODES: readonly LockMode[] = ["exclusive", "shared"];

/** Opens the registry and segment "a" in this process. */
function attach(scene: Scene): { registry: Registry; segment: Segment } {
  const registry = scene.open();
  return { registry, segment: registry.getNamedSegmentSync("a", SIZE) };
}

/** A process that has segment "a". */
async function party(scene: Scene, runtime: RuntimeName): Promise<Child> {
  const child = await scene.child(runtime);
  succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
  return child;
}

/** A process that holds the lock of segment "a". */
async function holder(scene: Scene, runtime: RuntimeName, mode: LockMode): Promise<Child> {
  const child = await party(scene, runtime);
  succeeded(await child.ask({ do: "acquire", segment: "a", mode }));
  return child;
}

async function killed(child: Child): Promise<void> {
  child.kill();
  assertEquals(await child.ended, "SIGKILL");
}

/** Resolves once the process is seen waiting for a lock. */
function waits(registry: Registry, pid: number): Promise<void> {
  return until(() => [...registry.waits()].some((wait) => wait.pid === pid));
}

for (const runtime of runtimes) {
  test(`a lock that a ${runtime} process holds exclusively is nobody else's, shared it is`, () =>
    inScene(async (scene) => {
      const { segment: { lock } } = attach(scene);
      const child = await holder(scene, runtime, "exclusive");
      const other = await party(scene, otherThan(runtime));
      for (const mode of MODES) {
        assertEquals(lock.tryAcquire(mode), false);
        assertEquals((await other.ask({ do: "try", segment: "a", mode })).held, false);
      }
      assertEquals(lock.heldByMe(), false);
      succeeded(await child.ask({ do: "release", segment: "a" }));
      for (const party of [child, other]) {
        assertEquals((await party.ask({ do: "try", segment: "a", mode: "shared" })).held, true);
      }
      assert(lock.tryAcquire("shared"));
      assertEquals([lock.heldByMe(), lock.heldByMe("shared"), lock.heldByMe("exclusive")], [
        true,
        true,
        false,
      ]);
      for (const party of [child, other]) {
        succeeded(await party.ask({ do: "release", segment: "a" }));
      }
      lock.release();
      assert(lock.tryAcquire());
      assertEquals([lock.heldByMe("exclusive"), lock.heldByMe("shared")], [true, false]);
    }));

  test(`a ${runtime} process that waits for a lock is seen, and gets it when it is let go`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      const waiter = await party(scene, runtime);
      for (const mode of MODES) {
        const other = mode === "shared" ? "exclusive" : "shared";
        lock.acquireSync(other);
        waiter.send({ do: "acquire", segment: "a", mode });
        await waits(registry, waiter.pid);
        const [self, child] = [...registry.backends()].sort((a, b) =>
          Number(b.self) - Number(a.self)
        );
        const [wait, ...more] = [...registry.waits()];
        assertEquals(more, []);
        assert(wait?.since instanceof Date && wait.since.getTime() <= Date.now() + 1000);
        const shown = { tranche: "a", segment: "a", byteOffset: null };
        assertEquals(wait, {
          ...shown,
          mode,
          since: wait.since,
          backend: child?.id ?? -1,
          pid: waiter.pid,
          holders: [registry.backendId],
        });
        assertEquals(self?.held, [{ ...shown, mode: other, since: null }]);
        assertEquals(self?.waitsFor, null);
        assertEquals(child?.held, []);
        assertEquals([child?.waitsFor?.mode, child?.waitsFor?.segment], [mode, "a"]);
        lock.release();
        assertEquals(succeeded(await waiter.next()).abandoned, false);
        assertEquals([...registry.waits()], []);
        assertEquals(lock.tryAcquire("exclusive"), false);
        succeeded(await waiter.ask({ do: "release", segment: "a" }));
      }
      const [tranche] = [...registry.tranches()];
      assertEquals([tranche?.name, tranche?.id, tranche?.contended, tranche?.abandoned], [
        "a",
        null,
        2,
        0,
      ]);
      assert((tranche?.waited ?? 0) > 0);
    }));

  test(`a lock whose holder, a ${runtime} process, is killed is abandoned until it is marked`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      const survivor = await party(scene, otherThan(runtime));
      const victim = await holder(scene, runtime, "exclusive");
      survivor.send({ do: "acquire", segment: "a", mode: "exclusive" });
      await waits(registry, survivor.pid);
      await killed(victim);
      assertEquals(succeeded(await survivor.next()).abandoned, true);
      succeeded(await survivor.ask({ do: "release", segment: "a" }));
      assert(lock.abandoned);
      // It works meanwhile, in any mode.
      lock.withSync("shared", () => assert(lock.abandoned));
      assertFails(() => lock.markConsistent(), "NOT_HELD", '"a"');
      lock.acquireSync();
      assert(lock.abandoned);
      lock.markConsistent();
      assertEquals(lock.abandoned, false);
      lock.release();
      const again = await survivor.ask({ do: "acquire", segment: "a" });
      assertEquals(succeeded(again).abandoned, false);
      assertEquals([...registry.tranches()].map(({ abandoned }) => abandoned), [1]);
    }));

  test(`a ${runtime} process killed while it holds a lock shared leaves nothing behind`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      const victim = await holder(scene, runtime, "shared");
      const writer = await party(scene, otherThan(runtime));
      writer.send({ do: "acquire", segment: "a", mode: "exclusive" });
      await waits(registry, writer.pid);
      await killed(victim);
      assertEquals(succeeded(await writer.next()).abandoned, false);
      succeeded(await writer.ask({ do: "release", segment: "a" }));
      lock.acquireSync();
      assertEquals(lock.abandoned, false);
    }));

  test(`a ${runtime} process killed while it waits for a lock is in nobody's way`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      const survivor = await party(scene, otherThan(runtime));
      for (const mode of MODES) {
        const victim = await party(scene, runtime);
        lock.acquireSync("exclusive");
        victim.send({ do: "acquire", segment: "a", mode });
        survivor.send({ do: "acquire", segment: "a", mode: "exclusive" });
        await waits(registry, victim.pid);
        await waits(registry, survivor.pid);
        await killed(victim);
        lock.release();
        assertEquals(succeeded(await survivor.next()).abandoned, false);
        succeeded(await survivor.ask({ do: "release", segment: "a" }));
      }
    }));

  test(`a lock that a ${runtime} process takes to its orderly end is abandoned, too`, () =>
    inScene(async (scene) => {
      const { segment: { lock } } = attach(scene);
      for (const how of ["detach", "close", "exit"] as const) {
        const child = await holder(scene, runtime, "exclusive");
        if (how === "exit") {
          child.endInput();
          assertEquals(await child.ended, "exit code 0");
        } else {
          succeeded(await child.ask(how === "detach" ? { do: how, segment: "a" } : { do: how }));
        }
        lock.acquireSync();
        assert(lock.abandoned, how);
        lock.markConsistent();
        lock.release();
      }
    }));

  test(`TIMEOUT names the lock and the ${runtime} process that has it`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      for (const mode of MODES) {
        const child = await holder(scene, runtime, mode);
        for (const timeout of [0, 30]) {
          const error = assertFails(
            () => lock.acquireSync("exclusive", { timeout }),
            "TIMEOUT",
            '"a"',
            `process ${child.pid}`,
            `${timeout} ms`,
          );
          assertEquals([error.actual, error.requested ?? 0], [child.pid, timeout]);
          assertEquals(lock.heldByMe(), false);
          assertEquals([...registry.waits()], []);
        }
        if (mode === "exclusive") {
          assertFails(() => lock.withSync("shared", () => {}, { timeout: 0 }), "TIMEOUT");
          assertFails(() => lock.holdSync("shared", { timeout: 0 }), "TIMEOUT");
          assertFails(() => lock.acquireOrWaitSync({ timeout: 30 }), "TIMEOUT", child.pid);
          assertFails(() => lock.waitForVarSync(0, 0n, { timeout: 30 }), "TIMEOUT", child.pid);
        }
        // A stopped holder is waited for, never robbed.
        child.kill("SIGSTOP");
        assertFails(() => lock.acquireSync("exclusive", { timeout: 150 }), "TIMEOUT");
        child.kill("SIGCONT");
        assertEquals((await child.ask({ do: "state", segment: "a", mode })).held, true);
        succeeded(await child.ask({ do: "release", segment: "a" }));
        assert(lock.tryAcquire());
        lock.release();
      }
    }));

  test(`readers that meet in a lock often enough mark themselves; ${runtime} writers see them`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      const pass = (): void => lock.withSync("shared", () => {});
      const readers = [
        await holder(scene, runtime, "shared"),
        await party(scene, runtime),
      ] as const;
      const writer = await party(scene, otherThan(runtime));
      // As many meetings as there may be backends, which is 256; and a few more.
      for (let i = 0; i < 300; i++) pass();
      const read = (child: Child) => child.ask({ do: "acquire", segment: "a", mode: "shared" });
      const leave = (child: Child) => child.ask({ do: "release", segment: "a" });
      for (const reader of readers) {
        // Once to see it, and then by its mark.
        if (reader === readers[0]) succeeded(await leave(reader));
        succeeded(await read(reader));
        succeeded(await leave(reader));
        succeeded(await read(reader));
      }
      await lock.acquire("shared");
      assert(lock.heldByMe("shared"));
      assertEquals((await writer.ask({ do: "try", segment: "a" })).held, false);
      writer.send({ do: "acquire", segment: "a" });
      await waits(registry, writer.pid);
      const holders = [...registry.backends()].filter(({ held }) => held.length > 0);
      assertEquals(holders.map(({ held }) => held.map(({ mode }) => mode)), [
        ...[["shared"], ["shared"], ["shared"]],
      ]);
      const [wait] = [...registry.waits()];
      assertEquals(new Set(wait?.holders), new Set(holders.map(({ id }) => id)));
      // One lets go, one is killed, and one is the last.
      succeeded(await leave(readers[0]));
      await killed(readers[1]);
      assertEquals(lock.heldByMe("shared"), true);
      lock.release();
      assertEquals(succeeded(await writer.next()).abandoned, false);
      assertEquals(lock.tryAcquire("shared"), false);
      const attempt = await readers[0].ask({ do: "try", segment: "a", mode: "shared" });
      assertEquals(attempt.held, false);
      succeeded(await leave(writer));
      pass();
      assert(lock.tryAcquire());
    }));

  test(`a variable of a lock is waited for until a ${runtime} process changes it`, () =>
    inScene(async (scene) => {
      const { segment } = attach(scene);
      const child = await party(scene, runtime);
      const values = new BigUint64Array(segment.buffer);
      segment.lock.acquireSync();
      child.send({ do: "watch", segment: "a", value: 0 });
      segment.lock.updateVar(0, 5n);
      const { released, value } = succeeded(await child.next());
      assertEquals([released, value], [false, 5]);
      child.send({ do: "watch", segment: "a", value: 5 });
      segment.lock.updateVar(0, 2n ** 64n - 1n, { release: true });
      succeeded(await child.next());
      assertEquals(values[0], 2n ** 64n - 1n);
      assertEquals(segment.lock.heldByMe(), false);
      // Between two others; and when the holder dies.
      const other = await party(scene, otherThan(runtime));
      succeeded(await child.ask({ do: "acquire", segment: "a" }));
      other.send({ do: "watch", segment: "a", value: -1 });
      succeeded(await child.ask({ do: "update", segment: "a", value: 6 }));
      const seen = succeeded(await other.next());
      assertEquals([seen.released, seen.value], [false, 6]);
      assertEquals(segment.lock.waitForVarSync(0, 5n), { released: false, value: 6n });
      other.send({ do: "watch", segment: "a", value: 6 });
      await killed(child);
      assertEquals(succeeded(await other.next()).released, true);
      assertEquals(segment.lock.waitForVarSync(0, 6n), { released: true, value: 6n });
      assert(segment.lock.acquireOrWaitSync());
      assert(segment.lock.abandoned);
    }));

  test(`a ${runtime} process that waits for a lock gets CLOSED when the registry is destroyed`, () =>
    inScene(async (scene) => {
      const { registry, segment: { lock } } = attach(scene);
      const waiter = await party(scene, runtime);
      lock.acquireSync();
      waiter.send({ do: "acquire", segment: "a" });
      await waits(registry, waiter.pid);
      const destroyer = await scene.child(otherThan(runtime));
      assertEquals((await destroyer.ask({ do: "destroy" })).value, 1);
      assertFailed(await waiter.next(), "CLOSED", '"a"');
    }));
}

test("a Deno and a Bun process that wait for each other: one gets DEADLOCK, the other the lock", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    for (const segment of ["a", "b"]) registry.getNamedSegmentSync(segment, SIZE);
    const parties = [await party(scene, "deno"), await party(scene, "bun")] as const;
    for (const child of parties) {
      succeeded(await child.ask({ do: "get", segment: "b", size: SIZE }));
    }
    for (const mode of MODES) {
      const names = ["a", "b"] as const;
      const wanted = mode === "shared" ? "exclusive" : "shared";
      for (const [i, child] of parties.entries()) {
        succeeded(await child.ask({ do: "acquire", segment: names[i] ?? "", mode }));
      }
      const answers = parties.map((child, i) =>
        child.ask({ do: "acquire", segment: names[1 - i] ?? "", mode: wanted })
          .then((report) => ({ report, i }))
      );
      const { report, i: loser } = await Promise.race(answers);
      const winner = 1 - loser;
      assertFailed(report, "DEADLOCK", `"${names[winner]}"`, parties[winner]?.pid ?? -1);
      assertEquals((await parties[loser]?.ask({ do: "releaseAll" }))?.value, 1);
      succeeded((await answers[winner])?.report as Report);
      assertEquals((await parties[winner]?.ask({ do: "releaseAll" }))?.value, 2);
    }
  }));

test("withSync and holdSync let go however the block ends", () =>
  inScene((scene) => {
    const { registry, segment: { lock } } = attach(scene);
    const thrown = new RangeError("no such account");
    for (const mode of MODES) {
      assertEquals(lock.withSync(mode, () => [lock.heldByMe(mode), 7]), [true, 7]);
      assertEquals(lock.heldByMe(), false);
      assertStrictEquals(
        assertThrows(() =>
          lock.withSync(mode, () => {
            throw thrown;
          })
        ),
        thrown,
      );
      assertEquals(lock.heldByMe(), false);
      assertStrictEquals(
        assertThrows(() => {
          using _held = lock.holdSync(mode);
          assert(lock.heldByMe(mode));
          throw thrown;
        }),
        thrown,
      );
      assertEquals(lock.heldByMe(), false);
      // Let go of early, it is not let go of twice.
      lock.withSync(mode, () => lock.release());
      {
        using _held = lock.holdSync(mode);
        registry.releaseAll();
      }
    }
    const error = assertThrows(() => lock.withSync("shared", () => Promise.resolve()), TypeError);
    assert(error.message.includes("promise"));
    assertEquals(lock.heldByMe(), false);
    assertEquals(lock.abandoned, false);
  }));

test("releaseAll lets go of every lock, and says how many", () =>
  inScene((scene) => {
    const { registry, segment } = attach(scene);
    const other = registry.getNamedSegmentSync("b", SIZE);
    const tranche = registry.newTranche("parts");
    const locks = [segment.lock, other.lock, other.initLock(64, tranche)];
    for (const [i, lock] of locks.entries()) lock.acquireSync(MODES[i % 2]);
    const held = [...registry.backends()][0]?.held ?? [];
    assertEquals(
      held.map(({ tranche, segment, byteOffset, mode }) => [tranche, segment, byteOffset, mode])
        .sort(),
      [["a", "a", null, "exclusive"], ["b", "b", null, "shared"], ["parts", "b", 64, "exclusive"]],
    );
    assertEquals([registry.releaseAll(), registry.releaseAll()], [3, 0]);
    for (const lock of locks) assertEquals([lock.heldByMe(), lock.abandoned], [false, false]);
    assertEquals([...registry.backends()][0]?.held, []);
  }));

test("locks made in init are found by every process, and are apart from each other", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const buckets = registry.newTranche("buckets");
    assert(buckets.id > 0);
    const segment = registry.getNamedSegmentSync("a", SIZE, (fresh) => {
      for (let at = 64; at < SIZE; at += 64) fresh.initLock(at, buckets);
    });
    assertStrictEquals(segment.lockAt(64), segment.lockAt(64));
    assertStrictEquals(segment.lock, segment.lock);
    segment.lockAt(64).acquireSync();
    for (const runtime of runtimes) {
      const child = await party(scene, runtime);
      const tried = [64, 128, undefined].map((at) =>
        child.ask({ do: "try", segment: "a", ...(at === undefined ? {} : { at }) })
      );
      assertEquals((await Promise.all(tried)).map(({ held }) => held), [false, true, true]);
      child.send({ do: "acquire", segment: "a", at: 64 });
      await waits(registry, child.pid);
      const [wait] = [...registry.waits()];
      assertEquals([wait?.tranche, wait?.byteOffset], ["buckets", 64]);
      segment.lockAt(64).release();
      succeeded(await child.next());
      assertFails(() => segment.initLock(64, buckets), "ALREADY_HELD", 64);
      await killed(child);
      segment.lockAt(64).acquireSync();
      assert(segment.lockAt(64).abandoned);
      segment.lockAt(64).markConsistent();
      assertEquals(
        segment.lockAt(128).withSync("exclusive", () => segment.lockAt(128).abandoned),
        true,
      );
    }
    const counted = [...registry.tranches()].find(({ name }) => name === "buckets");
    assertEquals([counted?.id, counted?.abandoned], [buckets.id, 4]);
    assert((counted?.contended ?? 0) >= 2);
  }));

test("a tranche is listed until it is dropped, or its segment is", () =>
  inScene((scene) => {
    const { registry, segment } = attach(scene);
    const names = () => [...registry.tranches()].map(({ name }) => name).sort();
    const [lasting, ours] = [registry.newTranche("x"), registry.newTranche("y", { segment })];
    const lock = segment.initLock(64, lasting);
    assertEquals([names(), ours.name], [["a", "x", "y"], "y"]);
    assertEquals([lasting.drop(), lasting.drop()], [true, false]);
    assertEquals(names(), ["a", "y"]);
    assert(registry.newTranche("z").id !== lasting.id);
    assertEquals(
      lock.withSync("exclusive", () => [...registry.backends()][0]?.held[0]?.tranche),
      "",
    );
    registry.dropSegment("a");
    segment.detach();
    assertEquals([names(), ours.drop()], [["z"], false]);
  }));
