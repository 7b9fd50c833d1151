/** Locks: what is given to their calls, what a repair may do, and cycles of every kind of wait. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import process from "node:process";
import { assertRefused } from "./_async.ts";
import { test } from "./_declare.ts";
import { Registry, type Repair, type Segment, type Tranche, type WaitOptions } from "../lib/mod.ts";
import type { Command, Report } from "./_agent.ts";
import { assertFailed, assertFails, inScene, type Scene, succeeded } from "./_scene.ts";

const SIZE = 256;

/** Opens the registry and segment "a" in this process. */
function attach(scene: Scene, repair?: Repair): { registry: Registry; segment: Segment } {
  const registry = scene.open();
  const options = repair === undefined ? {} : { repair };
  return { registry, segment: registry.getNamedSegmentSync("a", SIZE, () => {}, options) };
}

test("initLock takes a Tranche of the segment's own registry, and nothing else", () =>
  inScene((scene) => {
    const { registry, segment } = attach(scene);
    const tranche = registry.newTranche("parts");
    for (const none of [undefined, null, 1, "parts", {}, { ...tranche }, segment]) {
      assertThrows(() => segment.initLock(64, none as Tranche), TypeError);
    }
    const other = scene.open({}, "other");
    const foreign = other.newTranche("theirs");
    assertFails(() => segment.initLock(64, foreign), "NOT_FOUND", '"theirs"', '"a"');
    assertFails(() => segment.lockAt(64), "CORRUPT", 64);
    assertFails(() => other.newTranche("t", { segment }), "NOT_FOUND", '"a"', '"other"');
    assertThrows(() => registry.newTranche("t", { segment: {} as Segment }), TypeError);
    assertEquals([...other.tranches()].map(({ name }) => name), ["theirs"]);
    // Another object of the same registry is as good.
    const again = scene.open();
    const lock = segment.initLock(64, again.newTranche("more", { segment }));
    assertEquals(lock.withSync("exclusive", () => lock.heldByMe()), true);
  }));

test("a hold lets go once, whoever has taken the lock since", () =>
  inScene(async (scene) => {
    const { segment: { lock } } = attach(scene);
    const first = lock.holdSync();
    first[Symbol.dispose]();
    lock.acquireSync();
    first[Symbol.dispose]();
    assert(lock.heldByMe());
    lock.release();
    const second = await lock.hold("shared");
    second[Symbol.dispose]();
    const third = await lock.hold("shared");
    second[Symbol.dispose]();
    assert(lock.heldByMe("shared"));
    third[Symbol.dispose]();
    third[Symbol.dispose]();
    assertEquals(lock.heldByMe(), false);
  }));

test("options that are no object are a TypeError, and nothing is taken", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const { lock } = segment;
    for (const none of [5, 0, "5", "", true, false, 1n, () => {}]) {
      const options = none as unknown as WaitOptions;
      assertThrows(() => lock.acquireSync("exclusive", options), TypeError);
      assertThrows(() => lock.withSync("shared", () => {}, options), TypeError);
      assertThrows(() => lock.holdSync("exclusive", options), TypeError);
      assertThrows(() => lock.acquireOrWaitSync(options), TypeError);
      assertThrows(() => lock.waitForVarSync(0, 0n, options), TypeError);
      await assertRejects(() => lock.acquire("exclusive", options), TypeError);
      await assertRejects(() => lock.with("exclusive", () => {}, options), TypeError);
      await assertRejects(() => lock.hold("shared", options), TypeError);
      await assertRejects(() => lock.acquireOrWait(options), TypeError);
      await assertRejects(() => lock.waitForVar(0, 0n, options), TypeError);
      assertEquals(lock.heldByMe(), false);
      lock.withSync("exclusive", () => {
        assertThrows(() => lock.updateVar(0, 1n, options as { release?: boolean }), TypeError);
      });
    }
    assertEquals(new BigInt64Array(segment.buffer)[0], 0n);
  }));

test("options and a timeout that are null are as omitted", () =>
  inScene(async (scene) => {
    const { segment: { lock } } = attach(scene);
    for (const none of [null, { timeout: null }, { timeout: undefined }, { signal: null }]) {
      const options = none as unknown as WaitOptions;
      lock.acquireSync("exclusive", options);
      lock.release();
      assertEquals(lock.withSync("shared", () => 7, options), 7);
      lock.holdSync("exclusive", options)[Symbol.dispose]();
      assert(lock.acquireOrWaitSync(options));
      lock.release();
      assertEquals(lock.waitForVarSync(0, 0n, options).released, true);
      await lock.acquire("exclusive", options);
      lock.release();
      assertEquals(await lock.with("shared", () => 7, options), 7);
      (await lock.hold("exclusive", options))[Symbol.dispose]();
      assert(await lock.acquireOrWait(options));
      lock.release();
      assertEquals((await lock.waitForVar(0, 0n, options)).released, true);
    }
    assertEquals(lock.heldByMe(), false);
  }));

test("with no function to run nothing is taken", () =>
  inScene(async (scene) => {
    const { registry, segment: { lock } } = attach(scene);
    // Not even looked at: it is another's, and would be a TIMEOUT.
    const child = await scene.child("deno");
    succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
    succeeded(await child.ask({ do: "acquire", segment: "a" }));
    for (const none of [undefined, null, 5, "f", {}]) {
      const callback = none as unknown as () => void;
      const options = { timeout: 0 };
      assertThrows(() => lock.withSync("exclusive", callback, options), TypeError);
      await assertRejects(() => lock.with("exclusive", callback, options), TypeError);
      assertEquals([lock.heldByMe(), registry.releaseAll()], [false, 0]);
    }
  }));

test("a variable is a bigint: a number is a TypeError, and changes nothing", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const { lock } = segment;
    const values = new BigInt64Array(segment.buffer);
    lock.withSync("exclusive", () => lock.updateVar(0, 3n));
    for (const none of [5, "5", undefined, null, NaN, {}]) {
      const value = none as unknown as bigint;
      lock.acquireSync();
      assertThrows(() => lock.updateVar(0, value, { release: true }), TypeError);
      assertEquals([lock.heldByMe("exclusive"), values[0]], [true, 3n]);
      lock.release();
      assertThrows(() => lock.waitForVarSync(0, value), TypeError);
      await assertRejects(() => lock.waitForVar(0, value), TypeError);
    }
  }));

test("a repair that lets go of the lock has not mended: ABANDONED, and it is not held", () =>
  inScene(async (scene) => {
    const repairs: Repair[] = [
      ({ lock }) => lock.release(),
      ({ lock }) => {
        lock.release();
        lock.acquireSync("shared");
      },
      ({ lock }) => {
        // What it says before it lets go does not count either.
        lock.release();
        assertFails(() => lock.markConsistent(), "NOT_HELD");
      },
    ];
    let repair: Repair = () => {};
    const { segment: { lock } } = attach(scene, (broken) => repair(broken));
    for (repair of repairs) {
      const child = await scene.child("deno");
      succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
      succeeded(await child.ask({ do: "acquire", segment: "a" }));
      child.kill();
      await child.ended;
      for (
        const take of [() => lock.acquireSync(), () => lock.holdSync(), () => lock.tryAcquire()]
      ) {
        const error = assertFails(take, "ABANDONED", '"a"');
        assert(error.cause instanceof Error);
        assertEquals([lock.heldByMe(), lock.abandoned], [false, true]);
      }
      let abandoned = false;
      await lock.acquire().catch(({ code }) => abandoned = code === "ABANDONED");
      assertEquals([abandoned, lock.heldByMe(), lock.abandoned], [true, false, true]);
      repair = () => {};
      lock.acquireSync();
      assertEquals(lock.abandoned, false);
      lock.release();
    }
  }));

test("messages name the segment, and the tranche and the byte of a lock inside", () =>
  inScene(async (scene) => {
    const { registry, segment } = attach(scene);
    const inner = segment.initLock(128, registry.newTranche("parts"));
    const child = await scene.child("bun");
    succeeded(await child.ask({ do: "get", segment: "a", size: SIZE }));
    for (const lock of [segment.lock, inner]) {
      const at = lock === inner ? { at: 128 } : {};
      const texts = lock === inner ? ['"parts"', "byte 128", 'segment "a"'] : ['segment "a"'];
      assertFails(() => lock.release(), "NOT_HELD", ...texts);
      assertFails(() => lock.markConsistent(), "NOT_HELD", ...texts);
      lock.withSync("exclusive", () => {
        assertFails(() => lock.acquireSync("shared"), "ALREADY_HELD", ...texts);
      });
      succeeded(await child.ask({ do: "acquire", segment: "a", ...at }));
      const error = assertFails(
        () => lock.acquireSync("shared", { timeout: 20 }),
        "TIMEOUT",
        ...texts,
        `process ${child.pid}`,
        "20 ms",
      );
      assertEquals(error.message.includes("byte"), lock === inner);
      assertEquals([error.actual, error.requested], [child.pid, 20]);
      succeeded(await child.ask({ do: "release", segment: "a", ...at }));
    }
  }));

test("acquireOrWaitSync and waitForVarSync in a cycle: one process gets DEADLOCK", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const names = ["a", "b"] as const;
    const ways = ["acquire", "orWait", "watch"] as const;
    for (const name of names) registry.getNamedSegmentSync(name, SIZE);
    const parties = [await scene.child("deno"), await scene.child("bun")] as const;
    for (const child of parties) {
      for (const segment of names) {
        succeeded(await child.ask({ do: "get", segment, size: SIZE }));
      }
    }
    for (const [first, second] of ways.flatMap((one) => ways.map((two) => [one, two] as const))) {
      for (const [i, child] of parties.entries()) {
        succeeded(await child.ask({ do: "acquire", segment: names[i] ?? "" }));
      }
      const answers = parties.map(async (child, i) => {
        const command: Command = { do: i === 0 ? first : second, segment: names[1 - i] ?? "" };
        return { report: await child.ask(command), i };
      });
      const { report, i: loser } = await Promise.race(answers);
      const winner = 1 - loser;
      assertFailed(report, "DEADLOCK", `"${names[winner]}"`, parties[winner]?.pid ?? -1);
      assertEquals((await parties[loser]?.ask({ do: "releaseAll" }))?.value, 1);
      const won = succeeded((await answers[winner])?.report as Report);
      const way = winner === 0 ? first : second;
      // It was let go, and is not had.
      if (way === "orWait") assertEquals(won.held, false);
      if (way === "watch") assertEquals(won.released, true);
      const count = way === "acquire" ? 2 : 1;
      assertEquals((await parties[winner]?.ask({ do: "releaseAll" }))?.value, count);
      assertEquals([...registry.waits()], []);
    }
  }));

test("an offset that is no place for a variable is named, by every call that takes one", () =>
  inScene(async (scene) => {
    const { segment: { lock } } = attach(scene);
    for (const at of [4, SIZE, SIZE - 4, 2 ** 40]) {
      const texts = [`Byte ${at} `, '"a"', `${SIZE} bytes`, "multiple of 8"] as const;
      const errors = [
        assertFails(() => lock.waitForVarSync(at, 0n), "SIZE_INVALID", ...texts),
        await assertRefused(lock.waitForVar(at, 0n), "SIZE_INVALID", ...texts),
        lock.withSync(
          "exclusive",
          () => assertFails(() => lock.updateVar(at, 0n), "SIZE_INVALID", ...texts),
        ),
      ];
      for (const { actual, requested } of errors) assertEquals([actual, requested], [SIZE, at]);
    }
  }));

test("TIMEOUT says when it is this very program that has the lock", () =>
  inScene(async (scene) => {
    const { segment: { lock } } = attach(scene);
    await lock.acquire();
    const own = await assertRefused(
      lock.acquire("exclusive", { timeout: 1 }),
      "TIMEOUT",
      "this program has it itself",
    );
    assertEquals([own.actual, own.requested], [process.pid, 1]);
    const other = scene.open({ database: "other" }).getNamedSegmentSync("a").lock;
    assertFails(
      () => other.acquireSync("shared", { timeout: 1 }),
      "TIMEOUT",
      `process ${process.pid} has it`,
      "Worker or another database",
    );
    lock.release();
  }));

test("with 128 locks held, waits on words and requests of locks by name say so", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("many", 129 * 64);
    const tranche = registry.newTranche("many");
    for (let at = 64; at <= 128 * 64; at += 64) segment.initLock(at, tranche).acquireSync();
    const texts = ["holds 128 locks", "the library's own table"] as const;
    assertFails(() => segment.waitSync(0, 0), "NO_SPACE", ...texts);
    await assertRefused(segment.wait(0, 0), "NO_SPACE", ...texts);
    await assertRefused(registry.locks.request("l", () => {}), "NO_SPACE", ...texts);
    assertEquals(registry.releaseAll(), 128);
    await registry.locks.request("l", () => {});
  }));

test("a wait that ends because its registry was destroyed says that, and nothing else", () =>
  inScene(async (scene) => {
    const { segment } = attach(scene);
    const waiting = segment.wait(0, 0);
    Registry.destroy("test", { dir: scene.dir });
    const { message } = await assertRefused(waiting, "CLOSED", "was destroyed");
    assert(!message.includes("memory") && !message.includes("closed"), message);
  }));
