/** Scopes: names of the registry and of its databases, and databases that come and go. */

import { assert, assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { Registry, type Scope } from "../lib/mod.ts";
import { assertFailed, assertFails, inScene, succeeded } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

const own = { scope: "database" } as const;

test("a name is one thing globally and another in each database", () =>
  inScene(async (scene) => {
    const a = scene.open({ database: "a" });
    const b = scene.open({ database: "b" });
    const segments = [
      a.getNamedSegmentSync("x", 8),
      a.getNamedSegmentSync("x", 16, undefined, own),
      await b.getNamedSegment("x", 24, undefined, own),
    ];
    assertEquals(segments.map(({ size, found, scope }) => [size, found, scope]), [
      [8, false, "global"],
      [16, false, "database"],
      [24, false, "database"],
    ]);
    // Asked for again: the same object, in its scope.
    assertStrictEquals(a.getNamedSegmentSync("x", undefined, undefined, own), segments[1]);
    assertStrictEquals(await b.getNamedSegment("x", 24, undefined, own), segments[2]);
    assertStrictEquals(a.lookupSegment("x"), segments[0]);
    assertStrictEquals(b.lookupSegment("x", own), segments[2]);
    const global = b.getNamedSegmentSync("x", 8);
    assertEquals([global.found, global.scope], [true, "global"]);
    new Int32Array(segments[0]?.buffer ?? new ArrayBuffer(0))[0] = 5;
    assertEquals(new Int32Array(global.buffer)[0], 5);
    assertEquals(new Int32Array(segments[1]?.buffer ?? new ArrayBuffer(0))[0], 0);

    assertFails(() => a.getNamedSegmentSync("x", 24, undefined, own), "SIZE_MISMATCH", 16, 24);
    assertEquals(b.dropSegment("x", own), true);
    assertEquals(b.dropSegment("x", own), false);
    assertEquals(b.lookupSegment("x", own), null);
    assertEquals([a.lookupSegment("x", own)?.size, a.lookupSegment("x")?.size], [16, 8]);
  }));

for (const runtime of runtimes) {
  test(`${runtime} finds what another runtime has put in the same database, and nothing else`, () =>
    inScene(async (scene) => {
      const one = await scene.child(runtime, { database: "tenant" });
      const two = await scene.child(otherThan(runtime), { database: "tenant" });
      const other = await scene.child(runtime, { database: "other" });
      const get = { do: "get", segment: "s", size: 64, init: [{ fill: 7 }], ...own } as const;
      assertEquals(succeeded(await one.ask(get)).initialised, true);
      assertEquals(succeeded(await two.ask(get)).found, true);
      assertEquals(succeeded(await other.ask({ do: "lookup", segment: "s", ...own })).found, false);
      assertEquals(succeeded(await two.ask({ do: "lookup", segment: "s" })).found, false);
      const fresh = succeeded(await other.ask(get));
      assertEquals([fresh.initialised, fresh.wasZero], [true, true]);
    }));
}

test("segments() says whose each is, databases() counts them", () =>
  inScene((scene) => {
    const a = scene.open({ database: "a" });
    const b = scene.open({ database: "b" });
    a.getNamedSegmentSync("x", 8);
    a.getNamedSegmentSync("x", 8, undefined, own);
    b.getNamedSegmentSync("y", 8, undefined, own);
    const found = [...a.segments()].map(({ name, scope, database }) => [name, scope, database]);
    assertEquals(found.sort(), [
      ["x", "database", "a"],
      ["x", "global", null],
      ["y", "database", "b"],
    ]);
    const counted = [...a.databases()].map((it) => [it.name, it.id, it.backends, it.segments]);
    assertEquals(counted, [["a", 1, 1, 1], ["b", 2, 1, 1]]);
    assert([...a.databases()].every(({ createdAt }) => Date.now() - createdAt.getTime() < 60_000));
  }));

test("a database that is dropped is gone with its segments; its name starts clean", () =>
  inScene((scene) => {
    const keeper = scene.open();
    const old = scene.open({ database: "tenant" });
    const segment = old.getNamedSegmentSync("s", 8, ({ buffer }) => {
      new Int32Array(buffer)[0] = 1;
    }, own);
    const files = scene.files().length;
    assertEquals(keeper.dropDatabase("tenant"), true);
    assertEquals(keeper.dropDatabase("tenant"), false);
    assertEquals([...keeper.databases()].map(({ name }) => name), ["default"]);
    assertEquals([...keeper.segments()], []);

    // Who has it keeps the memory; the scope is closed, the rest is not.
    new Int32Array(segment.buffer)[1] = 2;
    assertEquals([...new Int32Array(segment.buffer)], [1, 2]);
    for (
      const call of [
        () => old.getNamedSegmentSync("s", 8, undefined, own),
        () => old.getNamedSegmentSync("t", 8, undefined, own),
        () => old.lookupSegment("s", own),
      ]
    ) assertFails(call, "CLOSED", "tenant");
    assertEquals(old.getNamedSegmentSync("global", 8).found, false);

    // The same name, opened in the same program: another database.
    const fresh = scene.open({ database: "tenant" });
    assertNotStrictEquals(fresh.backendId, old.backendId);
    const anew = fresh.getNamedSegmentSync("s", 16, undefined, own);
    assertEquals([anew.found, new Uint8Array(anew.buffer).some((byte) => byte !== 0)], [
      false,
      false,
    ]);
    const ids = [...keeper.databases()].map(({ name, id }) => [name, id]);
    assertEquals(ids, [["default", 1], ["tenant", 3]]);
    segment.detach();
    old.close();
    // The dropped one's file is gone; the global one's and the new one's have come.
    assertEquals(scene.files().length, files + 1);
  }));

for (const runtime of runtimes) {
  test(`a ${runtime} process whose database is dropped is told, and who waits for it there, too`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const initialiser = await scene.child(runtime, { database: "tenant" });
      const waiter = await scene.child(otherThan(runtime), { database: "tenant" });
      const get = { do: "get", segment: "s", size: 64, ...own } as const;
      const holding = initialiser.ask({ ...get, init: [{ hold: true }] });
      assertEquals(await holding, { holding: true });
      const waiting = waiter.ask(get);
      while ([...registry.backends()].every(({ waitingFor }) => waitingFor === null)) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assertEquals(registry.dropDatabase("tenant"), true);
      assertFailed(await waiting, "CLOSED", "tenant");
      initialiser.go();
      assertFailed(await initialiser.next(), "CLOSED", "tenant");
      assertEquals([...registry.segments()], []);
      assertEquals(scene.files().length, 1);
    }));
}

test("what is no scope, no database or no name is refused", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const scope = "galaxy" as Scope;
    let thrown: unknown[] = [];
    for (
      const call of [
        () => registry.getNamedSegmentSync("s", 8, undefined, { scope }),
        () => registry.lookupSegment("s", { scope }),
        () => registry.dropSegment("s", { scope }),
      ]
    ) {
      try {
        call();
      } catch (error) {
        thrown = [...thrown, error];
      }
    }
    assertEquals(thrown.map((error) => error instanceof TypeError), [true, true, true]);
    let rejected: unknown;
    await registry.getNamedSegment("s", 8, undefined, { scope }).catch((error) => rejected = error);
    assert(rejected instanceof TypeError && rejected.message.includes("galaxy"), String(rejected));
    assertFails(() => registry.dropDatabase(""), "NAME_INVALID");
    assertFails(() => registry.dropDatabase("x".repeat(64)), "NAME_TOO_LONG", 64);
    assertFails(() => registry.dropDatabase("a/b"), "NAME_INVALID");
    assertFails(
      () => Registry.openSync("test", { dir: scene.dir, database: "a/b" }),
      "NAME_INVALID",
    );
  }));

test("64 databases fit, the next is refused, and one dropped makes room", () =>
  inScene((scene) => {
    const registry = scene.open({ database: "0" });
    const open = (name: string) => Registry.openSync("test", { dir: scene.dir, database: name });
    for (let i = 1; i < 64; i++) open(String(i)).close();
    assertEquals([...registry.databases()].length, 64);
    assertFails(() => open("one more"), "REGISTRY_FULL", 64, "one more");
    assertEquals(registry.dropDatabase("17"), true);
    open("one more").close();
    assertEquals([...registry.databases()].length, 64);
  }));

test("init callbacks of one name in two databases do not meet, nor are they recursion", () =>
  inScene(async (scene) => {
    const a = scene.open({ database: "a" });
    const b = scene.open({ database: "b" });
    const order: string[] = [];
    await a.getNamedSegment("s", 8, async () => {
      order.push("a begins");
      await b.getNamedSegment("s", 8, () => void order.push("b"), own);
      a.getNamedSegmentSync("s", 8, () => void order.push("global"));
      order.push("a ends");
    }, own);
    assertEquals(order, ["a begins", "b", "global", "a ends"]);
    let inner: unknown;
    await a.getNamedSegment("t", 8, async () => {
      await a.getNamedSegment("t", 8, undefined, own).catch((error) => inner = error);
    }, own);
    assertFails(() => {
      throw inner;
    }, "INIT_RECURSION");
  }));

test("a Web Lock in a database that was dropped is refused, a global one is not", () =>
  inScene(async (scene) => {
    const old = scene.open({ database: "tenant" });
    scene.open().dropDatabase("tenant");
    let rejected: unknown;
    await old.locks.request("l", own, () => {}).catch((error) => rejected = error);
    assertFails(
      () => {
        throw rejected;
      },
      "CLOSED",
      "tenant",
    );
    assertEquals(await old.locks.request("l", () => "global"), "global");
  }));

test("a Web Lock of a database is one for those who have that open, and query() says so", () =>
  inScene(async (scene) => {
    const a = scene.open({ database: "a" });
    const b = scene.open({ database: "b" });
    const order: string[] = [];
    await a.locks.request("l", own, async () => {
      await b.locks.request("l", own, () => void order.push("b"));
      await b.locks.request("l", () => void order.push("global"));
      const taken = await a.locks.request("l", { ...own, ifAvailable: true }, (lock) => lock);
      assertEquals(taken, null);
      const clientId = String(a.backendId);
      const expected = { name: "l", mode: "exclusive", clientId, scope: "database" } as const;
      assertEquals(await a.locks.query(), { held: [expected], pending: [] });
      assertEquals(await b.locks.query(), { held: [], pending: [] });
    });
    assertEquals(order, ["b", "global"]);
    const long = "x".repeat(244);
    let rejected: unknown;
    await a.locks.request(long, own, () => {}).catch((error) => rejected = error);
    assertFails(
      () => {
        throw rejected;
      },
      "NAME_TOO_LONG",
      243,
      244,
    );
    assertEquals(await a.locks.request(long.slice(1), own, (lock) => lock?.name), long.slice(1));
  }));

test("mode look makes no database, and has none in it that is not there", () =>
  inScene(async (scene) => {
    const names = (registry: Registry) => [...registry.databases()].map(({ name }) => name);
    assertFails(() => scene.open({ mode: "look" }), "NOT_FOUND", '"test"');
    const tenant = scene.open({ database: "tenant" });
    tenant.getNamedSegmentSync("x", 64, undefined, own);
    const onlooker = scene.open({ mode: "look" });
    assertEquals(names(onlooker), ["tenant"]);
    assertEquals([...onlooker.backends()].map(({ database }) => database).sort(), ["", "tenant"]);
    assertFails(() => onlooker.lookupSegment("x", own), "CLOSED", '"default"');
    assertFails(() => onlooker.getNamedSegmentSync("y", 64, undefined, own), "CLOSED", '"default"');
    // Else it can do what any backend can.
    onlooker.getNamedSegmentSync("y", 64).lock.withSync("exclusive", () => {});
    assertEquals(
      scene.open({ mode: "look", database: "tenant" }).lookupSegment("x", own)?.size,
      64,
    );

    // Whoever opens it in this thread gets another backend, which is in the new database.
    const opened = scene.open();
    assertNotStrictEquals(opened.backendId, onlooker.backendId);
    opened.getNamedSegmentSync("z", 64, undefined, own);
    assertEquals(names(onlooker).sort(), ["default", "tenant"]);
    assertFails(() => onlooker.lookupSegment("z", own), "CLOSED", '"default"');
    const child = await scene.child("bun", { mode: "look" });
    assertEquals(succeeded(await child.ask({ do: "get", segment: "z", ...own })).size, 64);
  }));
