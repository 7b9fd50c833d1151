/** The main area and the add-in init lock, in one process. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { defineAddin, DsmrError } from "../lib/mod.ts";
import { assertHookFails, openWith, take } from "./_addins.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene } from "./_scene.ts";

test("initStruct() makes a part once, of zeroed bytes, and finds it from then on", () =>
  inScene((scene) => {
    const spaces = defineAddin({
      name: "spaces",
      request(ctx) {
        ctx.requestSpace(100);
        ctx.requestSpace(1000);
      },
      startup: (ctx) => [take(ctx, "first", 100), take(ctx, "second", 1000)],
    });
    const [first, second] = scene.open({ addins: [spaces] }).addin(spaces);
    const [foundFirst, foundSecond] = scene.open({ addins: [spaces], database: "b" }).addin(spaces);
    assert(first && second && foundFirst && foundSecond);
    assertEquals([first.found, second.found], [false, false]);
    assertEquals([foundFirst.found, foundSecond.found], [true, true]);
    assertEquals([first.name, first.byteLength, first.bytes.length], ["first", 100, 100]);
    assertEquals([first.byteOffset % 64, second.byteOffset % 64], [0, 0]);
    assert(Math.abs(first.byteOffset - second.byteOffset) >= 100);
    assertEquals(new Uint8Array(first.segment.buffer)[first.byteOffset + 99], 7);
    assertEquals(foundSecond.bytes[999], 7);
    second.bytes[5] = 42;
    assertEquals(foundSecond.bytes[5], 42);
  }));

test("the main area is none of the segments that are listed", () =>
  inScene((scene) => {
    const spaces = defineAddin({
      name: "spaces",
      request: (ctx) => ctx.requestSpace(100),
      startup: (ctx) => take(ctx, "first", 100),
    });
    const registry = scene.open({ addins: [spaces] });
    assertEquals([...registry.segments()], []);
    assertEquals([...registry.tranches()].map(({ name }) => name), ["addin-init"]);
  }));

test("more than requested, another size, without the lock: each a clear error, nothing changed", () =>
  inScene((scene) => {
    const ctx = openWith(scene, {
      name: "tight",
      request: (ctx) => ctx.requestSpace(200),
      startup: (ctx) => ctx,
    });
    assertFails(() => ctx.initStruct("a", 64), "NOT_HELD", '"a"', "addinInitLock");
    assertFails(
      () => ctx.addinInitLock.withSync("shared", () => ctx.initStruct("a", 64)),
      "NOT_HELD",
      "exclusively",
    );
    const tooMuch = assertFails(
      () => take(ctx, "a", 257),
      "NO_SPACE",
      257,
      "requested 256",
      "of 64",
    );
    assertEquals([tooMuch.actual, tooMuch.requested], [256, 257]);
    take(ctx, "a", 100);
    const more = assertFails(() => take(ctx, "b", 150), "NO_SPACE", "128 are in use", '"tight"');
    assertEquals([more.actual, more.requested], [128, 150]);
    const other = assertFails(() => take(ctx, "a", 101), "SIZE_MISMATCH", '"a"', 100, 101);
    assertEquals([other.actual, other.requested], [100, 101]);
    assertEquals(take(ctx, "a", 100).found, true);
    assertEquals(take(ctx, "b", 128).found, false);
    for (const size of [0, -1, 1.5, NaN, Infinity, 2 ** 53, "8" as unknown as number]) {
      assertFails(() => take(ctx, "c", size), "SIZE_INVALID", '"c"');
    }
    for (const name of ["", "a/b", "\0", "\u0001main", 7 as unknown as string, "\ud800"]) {
      assertFails(() => take(ctx, name, 1), "NAME_INVALID");
    }
    assertFails(() => take(ctx, "x".repeat(64), 1), "NAME_TOO_LONG", 64, 63);
  }));

test("parts count for nothing when the callback that made them throws or returns a promise", () =>
  inScene((scene) => {
    const ctx = openWith(scene, {
      name: "failing",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    const make = () => {
      const area = ctx.initStruct("a", 100);
      area.bytes.fill(1);
      return area;
    };
    assertThrows(() =>
      ctx.addinInitLock.withSync("exclusive", () => {
        assertEquals(make().found, false);
        throw new Error("as planned");
      })
    );
    assertEquals(ctx.addinInitLock.heldByMe(), false);
    assertThrows(
      () => ctx.addinInitLock.withSync("exclusive", async () => void await make()),
      TypeError,
      "promise",
    );
    // With any size: nothing is there.
    const fresh = take(ctx, "a", 128);
    assertEquals([fresh.found, fresh.bytes[127]], [false, 7]);
    assertEquals(take(ctx, "a", 128).found, true);
  }));

test("a part asked for twice in one hold is the same, still to be initialised", () =>
  inScene((scene) => {
    const ctx = openWith(scene, {
      name: "twice",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    ctx.addinInitLock.withSync("exclusive", () => {
      const area = ctx.initStruct("a", 64);
      area.bytes[0] = 1;
      assertStrictEquals(ctx.initStruct("a", 64), area);
      assertFails(() => ctx.initStruct("a", 65), "SIZE_MISMATCH");
      assertEquals([area.found, area.bytes[0]], [false, 1]);
      assertEquals(ctx.initStruct("b", 64).found, false);
    });
    assertEquals([take(ctx, "a", 64).found, take(ctx, "b", 64).found], [true, true]);
  }));

test("every form of the init lock publishes what was made, when it is let go of", () =>
  inScene(async (scene) => {
    const ctx = openWith(scene, {
      name: "forms",
      request: (ctx) => ctx.requestSpace(64 * 10),
      startup: (ctx) => ctx,
    });
    const lock = ctx.addinInitLock;
    const forms: ((make: () => void) => void | Promise<void>)[] = [
      (make) => lock.withSync("exclusive", make),
      (make) => lock.with("exclusive", make),
      (make) => lock.with("exclusive", async () => (await Promise.resolve(), make())),
      (make) => {
        using _held = lock.holdSync();
        make();
      },
      async (make) => {
        using _held = await lock.hold();
        make();
      },
      (make) => {
        lock.acquireSync();
        make();
        lock.release();
      },
      async (make) => {
        await lock.acquire();
        make();
        lock.release();
      },
      (make) => {
        assertEquals(lock.tryAcquire(), true);
        make();
        lock.release();
      },
      (make) =>
        lock.withSync("exclusive", () => {
          make();
          lock.release();
        }),
    ];
    const other = defineAddin({ name: "other", startup: (ctx) => ctx });
    const seen = scene.open({ addins: [other], database: "b" }).addin(other);
    for (const [i, form] of forms.entries()) {
      await form(() => assertEquals(ctx.initStruct(`form ${i}`, 64).found, false));
      assertEquals(
        [lock.heldByMe(), take(seen, `form ${i}`, 64).found],
        [false, true],
        `form ${i}`,
      );
    }
    // Nor does it when a task fails.
    let message = "";
    await lock.with("exclusive", async () => {
      ctx.initStruct("failed", 64);
      await Promise.reject(new Error("as planned"));
    }).catch((error: Error) => message = error.message);
    assertEquals(message, "as planned");
    assertEquals(take(ctx, "failed", 64).found, false);
    assertFails(() => lock.release(), "NOT_HELD");
    lock.withSync("shared", () => assertFails(() => lock.acquireSync(), "ALREADY_HELD"));
    assertThrows(() => lock.withSync("exclusive", 1 as unknown as () => void), TypeError);
  }));

test("releaseAll() in the middle takes the hold away: what it made is never published", () =>
  inScene((scene) => {
    const addin = defineAddin({
      name: "robbed",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    const registry = scene.open({ addins: [addin] });
    const ctx = registry.addin(addin);
    const other = scene.open({ addins: [addin], database: "b" }).addin(addin);
    ctx.addinInitLock.withSync("exclusive", () => {
      ctx.initStruct("a", 64).bytes.fill(1);
      assertEquals(registry.releaseAll(), 1);
      assertFails(() => ctx.initStruct("b", 64), "NOT_HELD");
      // Another makes it, and is not through when the first one ends.
      other.addinInitLock.acquireSync();
      assertEquals(other.initStruct("a", 64).bytes[0], 0);
    });
    // It fails, as far as others know.
    assertEquals(scene.open({ database: "b" }).releaseAll(), 1);
    ctx.addinInitLock.withSync("exclusive", () => {
      assertEquals(ctx.initStruct("a", 64).found, false);
      registry.releaseAll();
    });
    assertEquals(take(ctx, "a", 64).found, false);
  }));

test("a hold that was taken away undoes nothing of those that came after it", () =>
  inScene(async (scene) => {
    const addin = defineAddin({
      name: "robbed",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    const registry = scene.open({ addins: [addin] });
    const ctx = registry.addin(addin);
    const other = scene.open({ addins: [addin], database: "b" }).addin(addin);
    const held = ctx.addinInitLock.holdSync();
    ctx.initStruct("a", 64);
    registry.releaseAll();
    take(other, "b", 64);
    // The lock is this backend's again, but not that hold's.
    const later = ctx.addinInitLock.acquire();
    held[Symbol.dispose]();
    await later;
    assertEquals(ctx.initStruct("a", 64).found, false);
    assertEquals(ctx.initStruct("b", 64).found, true);
    ctx.addinInitLock.release();
  }));

test("a main area that somebody has detached is attached anew", () =>
  inScene((scene) => {
    const ctx = openWith(scene, {
      name: "detached",
      request(ctx) {
        ctx.requestSpace(64);
        ctx.requestTranche("detached", 1);
      },
      startup: (ctx) => ctx,
    });
    const area = take(ctx, "a", 64);
    const [lock] = ctx.getTranche("detached");
    area.segment.detach();
    assertEquals(area.bytes.length, 0);
    assertFails(() => lock?.acquireSync(), "DETACHED");
    assertEquals([take(ctx, "a", 64).found, take(ctx, "a", 64).bytes[63]], [true, 7]);
    ctx.getTranche("detached")[0]?.withSync("exclusive", () => {});
  }));

test("too many add-ins, tranches and parts: each limit is stated", () =>
  inScene((scene) => {
    const many = Array.from({ length: 65 }, (_, i) => defineAddin({ name: `addin ${i}` }));
    const tooMany = assertFails(() => scene.open({ addins: many }), "NO_SPACE", 65, 64);
    assertEquals([tooMany.actual, tooMany.requested], [64, 65]);
    const cause = assertHookFails(
      scene,
      {
        name: "greedy",
        request(ctx) {
          for (let i = 0; i <= 256; i++) ctx.requestTranche(`tranche ${i}`, 1);
        },
      },
      "request",
      "256",
    );
    assert(cause instanceof DsmrError && cause.code === "TRANCHES_FULL");
    const ctx = openWith(scene, {
      name: "parts",
      request: (ctx) => ctx.requestSpace(300 * 64),
      startup: (ctx) => ctx,
    });
    for (let i = 0; i < 256; i++) assertEquals(take(ctx, `part ${i}`, 1).found, false);
    const full = assertFails(() => take(ctx, "one more", 1), "NO_SPACE", 256);
    assertEquals([full.actual, full.requested], [256, 257]);
    assertEquals(take(ctx, "part 255", 1).bytes[0], 7);
  }));
