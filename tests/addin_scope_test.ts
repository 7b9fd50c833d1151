/** Allocations that each database has of its own, beside those of the registry as a whole. */

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { type Addin, defineAddin, type Registry, type Scope } from "../lib/mod.ts";
import type { AddinSpec } from "./_addin_member.ts";
import { logged, Member, well } from "./_addins.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/** Allocates one block, whose words are the value at first. */
function allocating(name: string, scope: Scope, value = 7, size = 64): Addin {
  return defineAddin({
    name: `${name} ${scope} ${size}`,
    init: (handle) =>
      handle.allocateShmem({
        name,
        size,
        scope,
        callback: (segment, payload) => void new Int32Array(segment.buffer).fill(payload),
        payload: value,
      }),
  });
}

function wordsOf(registry: Registry, name: string): Int32Array {
  const segment = registry.lookupShmem(name);
  assert(segment !== null, `${name} is not there`);
  return new Int32Array(segment.buffer);
}

for (const runtime of runtimes) {
  test(`a scope-local allocation (${runtime}): each database has its own initialised block, also one that comes later`, () =>
    inScene(async (scene) => {
      const spec: AddinSpec = {
        name: "my_ext",
        init: [
          {
            shmem: "my_ext:0.1:local",
            size: 64,
            value: 1,
            scope: "database",
            inside: [{ log: "local" }],
          },
          { shmem: "my_ext:0.1:global", size: 64, value: 2, inside: [{ log: "global" }] },
        ],
      };
      const open = async (member: Member, database: string) => {
        well(await member.ask({ do: "open", dir: scene.dir, database, addins: [spec] }));
        return await member.ask({ do: "lookup", shmem: "my_ext:0.1:local" });
      };
      const first = await Member.start(scene, runtime);
      assertEquals((await open(first, "a")).value, 1);
      const a = scene.open({ database: "a" });
      wordsOf(a, "my_ext:0.1:local")[0] = 42;
      wordsOf(a, "my_ext:0.1:global")[0] = 43;
      // Another process in the same database, and one in a database that comes later.
      const same = await Member.start(scene, otherThan(runtime));
      assertEquals((await open(same, "a")).value, 42);
      const later = await Member.start(scene, otherThan(runtime));
      assertEquals((await open(later, "b")).value, 1);
      assertEquals((await later.ask({ do: "lookup", shmem: "my_ext:0.1:global" })).value, 43);
      assertEquals(wordsOf(a, "my_ext:0.1:local")[0], 42);
      assertEquals(logged(scene).sort(), ["global", "local", "local"]);
      // Who has no add-in sees what is there, and no other database's.
      assertEquals(wordsOf(scene.open({ database: "b" }), "my_ext:0.1:local")[0], 1);
      const c = scene.open({ database: "c" });
      assertStrictEquals(c.lookupShmem("my_ext:0.1:local"), null);
      assertEquals(wordsOf(c, "my_ext:0.1:global")[0], 43);
    }));

  test(`who dies in the callback of a scope-local allocation (${runtime}) is replaced; other databases are not disturbed`, () =>
    inScene(async (scene) => {
      const [dying, next, other] = [
        await Member.start(scene, runtime),
        await Member.start(scene, otherThan(runtime)),
        await Member.start(scene, otherThan(runtime)),
      ];
      const shmem = { shmem: "half", size: 64, value: 3, scope: "database" } as const;
      const open = { do: "open", dir: scene.dir, database: "a" } as const;
      const holding = [{ name: "half", init: [{ ...shmem, inside: [{ hold: "callback" }] }] }];
      dying.send({ ...open, addins: holding });
      await dying.holds("callback");
      const registry = scene.open({ database: "a" });
      assertStrictEquals(registry.lookupShmem("half"), null);
      const addins = [{ name: "half", init: [shmem] }];
      well(await other.ask({ ...open, database: "b", addins }));
      assertEquals((await other.ask({ do: "lookup", shmem: "half" })).value, 3);
      next.send({ ...open, addins });
      await until(() => [...registry.backends()].some(({ waitingFor }) => waitingFor === "half"));
      await dying.kill();
      well(await next.next());
      assertEquals(wordsOf(registry, "half")[0], 3);
    }));
}

test("8 processes in 2 databases allocate at once: the callback runs once in each database", () =>
  inScene(async (scene) => {
    const members = await Promise.all(
      [...runtimes, ...runtimes, ...runtimes, ...runtimes]
        .map((runtime) => Member.start(scene, runtime)),
    );
    const addins: AddinSpec[] = [{
      name: "both",
      init: [{
        shmem: "both",
        size: 64,
        value: 7,
        scope: "database",
        inside: [{ log: "callback" }],
      }],
    }];
    for (const [i, member] of members.entries()) {
      const database = i % 4 < 2 ? "a" : "b";
      member.send({ do: "open", dir: scene.dir, database, addins, isAsync: i % 2 === 0 });
    }
    await Promise.all(members.map(async (member) => well(await member.next())));
    assertEquals(logged(scene), ["callback", "callback"]);
  }));

test("the same name in another scope, or of another size in the same: an error that says so", () =>
  inScene((scene) => {
    scene.open({ addins: [allocating("global", "global"), allocating("local", "database")] });
    const open = (addin: Addin, database = "default") => scene.open({ addins: [addin], database });
    for (
      const [name, scope] of [["global", "database"], ["local", "global"]] as const
    ) {
      const wrong = () => open(allocating(name, scope));
      assertFails(wrong, "SCOPE_MISMATCH", `"${name}"`, '"global"', '"database"');
    }
    assertFails(() => open(allocating("local", "database", 7, 65)), "SIZE_MISMATCH", 64, 65);
    // Another database has its own size; and the global one is in all databases.
    assertEquals(wordsOf(open(allocating("local", "database", 7, 128), "b"), "local").length, 32);
    assertFails(() => open(allocating("global", "database"), "b"), "SCOPE_MISMATCH");
    assertEquals([...scene.open().backends()].map(({ database }) => database).sort(), [
      "b",
      "default",
    ]);
  }));

test("in init, lookupShmem() gives the database's own block, its callback ended", () =>
  inScene((scene) => {
    const words: (number | undefined)[] = [];
    const addin = defineAddin({
      name: "own",
      init(handle) {
        handle.allocateShmem({
          name: "own",
          size: 4,
          scope: "database",
          callback: (segment) => void (new Int32Array(segment.buffer)[0] = 9),
        });
        const segment = handle.lookupShmem("own");
        words.push(segment === null ? undefined : new Int32Array(segment.buffer)[0]);
      },
    });
    const [a, b] = ["a", "b"].map((database) => scene.open({ database, addins: [addin] }));
    assertEquals(words, [9, 9]);
    assert(a !== undefined && b !== undefined);
    assert(a.lookupShmem("own") !== b.lookupShmem("own"));
  }));

test("a database dropped and made anew has a fresh block; who is still in the old one is told", () =>
  inScene((scene) => {
    const [local, global] = [allocating("local", "database"), allocating("global", "global")];
    const keep = scene.open({ database: "keep", addins: [local, global] });
    const old = scene.open({ database: "a", addins: [local] });
    wordsOf(old, "local")[0] = 42;
    wordsOf(keep, "local")[0] = 43;
    assertEquals(keep.dropDatabase("a"), true);
    assertFails(() => old.lookupShmem("local"), "CLOSED");
    assertEquals(wordsOf(old, "global")[0], 7);
    old.close();
    assertEquals(wordsOf(scene.open({ database: "a", addins: [local] }), "local")[0], 7);
    assertEquals(wordsOf(keep, "local")[0], 43);
  }));
