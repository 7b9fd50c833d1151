/** Requested tranches: their locks, names and limits, beside those of newTranche(). */

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { type Addin, defineAddin, DsmrError, type LWLock, type Registry } from "../lib/mod.ts";
import { check, native } from "../lib/ffi/native.ts";
import { handleOf } from "../lib/segment.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene, until } from "./_scene.ts";

/** What test_lwlock_tranches requests at startup: sets of 1 and 10 locks. */
function preloaded(): Addin {
  return defineAddin({
    name: "test-lwlock-tranches",
    request(ctx) {
      ctx.requestTranche("test_lwlock_tranches_startup", 1);
      ctx.requestTranche("test_lwlock_tranches_startup10", 10);
    },
  });
}

/** The ids of the tranches by this name. */
function idsOf(registry: Registry, name: string): (number | null)[] {
  return [...registry.tranches()].filter((tranche) => tranche.name === name).map(({ id }) => id);
}

test("requested sets of 1 and 10 locks are held all at once, and released in another order", () =>
  inScene((scene) => {
    const addin = preloaded();
    const registry = scene.open({ addins: [addin] });
    const other = scene.open({ addins: [addin], database: "other" });
    const [one] = registry.getTranche("test_lwlock_tranches_startup");
    const ten = registry.getTranche("test_lwlock_tranches_startup10");
    assert(one !== undefined);
    assertEquals([registry.getTranche("test_lwlock_tranches_startup").length, ten.length], [1, 10]);
    const all: LWLock[] = [one, ...ten];
    const seen = [
      ...other.getTranche("test_lwlock_tranches_startup"),
      ...other.getTranche("test_lwlock_tranches_startup10"),
    ];
    assertEquals(new Set(all).size, 11);
    for (const [i, lock] of all.entries()) lock.acquireSync(i % 2 ? "shared" : "exclusive");
    assertEquals(seen.map((lock) => lock.tryAcquire("exclusive")), all.map(() => false));
    // The rest first from the middle on, then from the front.
    for (const lock of [...all.slice(5), ...all.slice(0, 5)]) {
      lock.release();
      assertEquals(lock.heldByMe(), false);
      const same = seen[all.indexOf(lock)];
      assertEquals(same?.tryAcquire("exclusive"), true);
      same?.release();
    }
    assertEquals(registry.releaseAll(), 0);
    // The same objects again: they are the isolate's.
    assertStrictEquals(registry.getTranche("test_lwlock_tranches_startup")[0], one);
  }));

test("names of requested and dynamic tranches resolve by their ids; all ids are distinct", () =>
  inScene((scene) => {
    const addin = preloaded();
    const registry = scene.open({ addins: [addin] });
    const dynamic = [
      registry.newTranche("test_lwlock_tranches_dynamic"),
      registry.newTranche("test_lwlock_tranches_dynamic"),
      registry.newTranche("test_lwlock_tranches_startup"),
    ];
    const names = new Map([...registry.tranches()].map(({ id, name }) => [id, name]));
    const startup = idsOf(registry, "test_lwlock_tranches_startup");
    const startup10 = idsOf(registry, "test_lwlock_tranches_startup10");
    assertEquals([startup.length, startup10.length], [2, 1]);
    for (const { id, name } of dynamic) assertEquals(names.get(id), name);
    const ids = new Set([...startup, ...startup10, ...dynamic.map(({ id }) => id)]);
    assertEquals([ids.size, ids.has(null)], [5, false]);
    // The same in another backend; it needs no add-in to see them.
    const other = scene.open({ database: "other" });
    assertEquals(new Map([...other.tranches()].map(({ id, name }) => [id, name])), names);
    assertEquals(other.getTranche("test_lwlock_tranches_startup10").length, 10);
  }));

test("a wait for a lock of a requested tranche shows up under the tranche's name", () =>
  inScene(async (scene) => {
    const addin = preloaded();
    const registry = scene.open({ addins: [addin] });
    const [mine] = registry.getTranche("test_lwlock_tranches_startup");
    const other = scene.open({ addins: [addin], database: "other" });
    const [theirs] = other.getTranche("test_lwlock_tranches_startup");
    mine?.acquireSync();
    const waiting = theirs?.acquire();
    await until(() => [...registry.waits()].length > 0);
    const [wait] = registry.waits();
    assertEquals([wait?.tranche, wait?.mode], ["test_lwlock_tranches_startup", "exclusive"]);
    mine?.release();
    await waiting;
    theirs?.release();
    const row = [...registry.tranches()].find(({ name }) => {
      return name === "test_lwlock_tranches_startup";
    });
    assertEquals(row?.contended, 1);
  }));

test("errors of tranches: no name, a long one, unknown, dynamic, a number that there is not", () =>
  inScene((scene) => {
    const addin = preloaded();
    const registry = scene.open({ addins: [addin] });
    const none = [null, undefined, "", 1] as unknown as string[];
    for (const name of none) assertFails(() => registry.newTranche(name), "NAME_INVALID");
    assertFails(() => registry.newTranche("x".repeat(64)), "NAME_TOO_LONG", 63);
    registry.newTranche("x".repeat(63)).drop();
    assertFails(() => registry.getTranche("unknown"), "NOT_FOUND", '"unknown"', "requested");
    registry.newTranche("dynamic");
    assertFails(() => registry.getTranche("dynamic"), "NOT_FOUND", '"dynamic"', "newTranche()");
    const segment = registry.getNamedSegmentSync("locks", 64);
    const { calls, error } = native();
    const init = (id: number) =>
      check(calls.dsmr_lock_init(handleOf(segment), 0, 0, id, error.bytes));
    assertFails(() => init(65_535), "NOT_FOUND", 65_535);
    const dropped = registry.newTranche("dropped");
    dropped.drop();
    assertFails(() => segment.initLock(0, dropped), "NOT_FOUND");
    assertFails(() => segment.lockAt(0), "CORRUPT");
  }));

test("without add-ins no tranche is requested: getTranche() says so", () =>
  inScene((scene) => {
    const registry = scene.open();
    registry.newTranche("dynamic");
    assertFails(() => registry.getTranche("a"), "NOT_FOUND", '"a"', "opened with add-ins");
    assertFails(() => registry.getTranche("dynamic"), "NOT_FOUND", "newTranche()");
    // Nor has it made anything.
    assertEquals(scene.files(), ["dsmr.r.test"]);
  }));

test("what a request hook may ask for: names, counts, each name once", () =>
  inScene((scene) => {
    const refusals: [string, unknown, DsmrError["code"]][] = [
      ["", 1, "NAME_INVALID"],
      ["a/b", 1, "NAME_INVALID"],
      ["\u0001x", 1, "NAME_INVALID"],
      ["x".repeat(64), 1, "NAME_TOO_LONG"],
      ["x", 0, "SIZE_INVALID"],
      ["x", -1, "SIZE_INVALID"],
      ["x", 1.5, "SIZE_INVALID"],
      ["x", "1", "SIZE_INVALID"],
      ["x", 16_385, "SIZE_INVALID"],
      ["twice", 1, "EXISTS"],
    ];
    let refused = 0;
    const first = defineAddin({
      name: "first",
      request(ctx) {
        ctx.requestTranche("twice", 2);
        for (const size of [0, -1, 1.5, NaN, 2 ** 53, null] as number[]) {
          assertFails(() => ctx.requestSpace(size), "SIZE_INVALID", '"first"');
        }
        for (const [name, count, code] of refusals) {
          assertFails(() => ctx.requestTranche(name, count as number), code);
          refused++;
        }
      },
    });
    const second = defineAddin({
      name: "second",
      request(ctx) {
        assertFails(
          () => ctx.requestTranche("twice", 1),
          "EXISTS",
          '"twice"',
          '"first"',
          '"second"',
        );
        ctx.requestTranche("x".repeat(63), 16_384);
      },
    });
    const registry = scene.open({ addins: [first, second] });
    assertEquals(refused, refusals.length);
    assertEquals(registry.getTranche("twice").length, 2);
    const many = registry.getTranche("x".repeat(63));
    assertEquals(many.length, 16_384);
    many.at(-1)?.withSync("exclusive", () => assertEquals(many[0]?.tryAcquire(), true));
    many[0]?.release();
  }));

test("the tranche table filled: the one more fails with the limit stated, also when requested", () =>
  inScene((scene) => {
    const registry = scene.open();
    const all = [];
    for (;;) {
      try {
        all.push(registry.newTranche("filling"));
      } catch (error) {
        assert(error instanceof DsmrError && error.code === "TRANCHES_FULL", String(error));
        assertEquals([error.actual, error.requested], [all.length, all.length + 1]);
        assert(error.message.includes(String(all.length)), error.message);
        break;
      }
    }
    assertEquals(all.length, 1024);
    assertEquals(new Set(all.map(({ id }) => id)).size, all.length);
    const addin = preloaded();
    const open = () => scene.open({ addins: [addin] });
    assertFails(open, "TRANCHES_FULL", 1024);
    // Not even with room for the first of three.
    all.pop()?.drop();
    assertFails(open, "TRANCHES_FULL");
    assertEquals(idsOf(registry, "test_lwlock_tranches_startup"), []);
    for (const tranche of all.splice(0, 2)) tranche.drop();
    assertEquals(open().getTranche("test_lwlock_tranches_startup10").length, 10);
    assertFails(() => registry.newTranche("one more"), "TRANCHES_FULL");
  }));

test("locks with a tranche of newTranche() inside a part of the main area", () =>
  inScene((scene) => {
    const addin = defineAddin({
      name: "own-locks",
      request: (ctx) => ctx.requestSpace(192),
      startup: (ctx) =>
        ctx.addinInitLock.withSync("exclusive", () => {
          const { found, segment, byteOffset } = ctx.initStruct("own-locks", 192);
          const tranche = found ? undefined : ctx.registry.newTranche("own-locks");
          return [64, 128].map((at) =>
            tranche === undefined
              ? segment.lockAt(byteOffset + at)
              : segment.initLock(byteOffset + at, tranche)
          );
        }),
    });
    const one = scene.open({ addins: [addin] }).addin(addin);
    const two = scene.open({ addins: [addin], database: "b" }).addin(addin);
    one[1]?.acquireSync();
    assertEquals([two[0]?.tryAcquire(), two[1]?.tryAcquire()], [true, false]);
    two[0]?.release();
    one[1]?.release();
    assert(one[0] !== one[1]);
    assertEquals(idsOf(scene.open(), "own-locks").length, 1);
  }));
