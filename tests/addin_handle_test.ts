/** The handle of an add-in's init, as dynpgext has it: allocations, lookups, workers. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { Handle } from "../lib/addins/handle.ts";
import {
  type AddinDefinition,
  type AddinHandle,
  defineAddin,
  type Registry,
  type ShmemRequest,
} from "../lib/mod.ts";
import type { AddinSpec } from "./_addin_member.ts";
import { logged, Member, well } from "./_addins.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene, type Scene, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/** Opens with an add-in of this init. */
function open(scene: Scene, init: NonNullable<AddinDefinition["init"]>, name = "my_ext"): Registry {
  return scene.open({ addins: [defineAddin({ name, init })] });
}

function firstWord(registry: Registry, name: string): number | undefined {
  const segment = registry.lookupShmem(name);
  return segment === null ? undefined : new Int32Array(segment.buffer)[0];
}

/** Allocates one value, and logs each run of the callback. */
function extension(version: string, size: number, value: number): AddinSpec {
  const shmem = `my_ext:${version}:value`;
  return {
    name: `my_ext ${version}`,
    init: [{ shmem, size, value, inside: [{ log: `callback ${version}` }] }],
  };
}

for (const runtime of runtimes) {
  test(`an allocation of a ${runtime} process: initial value, written value, kept for new processes`, () =>
    inScene(async (scene) => {
      const spec = extension("0.1", 1024, 7);
      const lookup = { do: "lookup", shmem: "my_ext:0.1:value" } as const;
      const one = await Member.start(scene, runtime);
      well(await one.ask({ do: "open", dir: scene.dir, addins: [spec] }));
      assertEquals(await one.ask(lookup), { ok: true, found: true, size: 1024, value: 7 });
      // A write is visible in a new process, where the callback is not run again.
      const plain = scene.open();
      const segment = plain.lookupShmem("my_ext:0.1:value");
      assert(segment !== null);
      new Int32Array(segment.buffer)[0] = 42;
      const two = await Member.start(scene, otherThan(runtime));
      well(await two.ask({ do: "open", dir: scene.dir, addins: [spec] }));
      assertEquals((await two.ask(lookup)).value, 42);
      // Loaded once more by the same process: nothing is run again, either.
      well(await two.ask({ do: "openMore", addins: [spec] }));
      await one.kill();
      await two.kill();
      const three = await Member.start(scene, runtime);
      well(await three.ask({ do: "open", dir: scene.dir, addins: [spec] }));
      assertEquals((await three.ask(lookup)).value, 42);
      assertEquals(logged(scene), ["callback 0.1"]);
      // The exact name and size are listed; what is absent is null.
      assertEquals([...plain.segments()].map(({ name, size }) => [name, size]), [
        ["my_ext:0.1:value", 1024],
      ]);
      assertStrictEquals(plain.lookupShmem("my_ext:0.2:value"), null);
      assertEquals((await three.ask({ ...lookup, shmem: "absent" })).found, false);
    }));
}

test("of 8 processes of both runtimes that allocate at once, one runs the callback", () =>
  inScene(async (scene) => {
    const members = await Promise.all(
      [...runtimes, ...runtimes, ...runtimes, ...runtimes]
        .map((runtime) => Member.start(scene, runtime)),
    );
    const addins = [extension("0.1", 4096, 7)];
    for (const member of members) member.send({ do: "open", dir: scene.dir, addins });
    await Promise.all(members.map(async (member) => well(await member.next())));
    assertEquals(logged(scene), ["callback 0.1"]);
    for (const member of members) {
      const report = await member.ask({ do: "lookup", shmem: "my_ext:0.1:value" });
      assertEquals(report, { ok: true, found: true, size: 4096, value: 7 });
    }
  }));

for (const runtime of runtimes) {
  test(`who dies in the callback of an allocation (${runtime}) is replaced; no lookup sees the half`, () =>
    inScene(async (scene) => {
      const [dying, next] = [
        await Member.start(scene, runtime),
        await Member.start(scene, otherThan(runtime)),
      ];
      const shmem = { shmem: "half", size: 64, value: 3 };
      const addins = [{ name: "half", init: [{ ...shmem, inside: [{ hold: "callback" }] }] }];
      dying.send({ do: "open", dir: scene.dir, addins });
      await dying.holds("callback");
      const registry = scene.open();
      // Not before its callback has ended.
      assertStrictEquals(registry.lookupShmem("half"), null);
      next.send({ do: "open", dir: scene.dir, addins: [{ name: "half", init: [shmem] }] });
      await until(() => [...registry.backends()].some(({ waitingFor }) => waitingFor === "half"));
      await dying.kill();
      well(await next.next());
      assertEquals(firstWord(registry, "half"), 3);
    }));
}

test("versions live side by side, each with its size and contents", () =>
  inScene((scene) => {
    const version = (name: string, size: number, value: number) =>
      defineAddin({
        name: `my_ext ${name}`,
        init: (handle) =>
          handle.allocateShmem({
            name: `my_ext:${name}:value`,
            size,
            callback: (segment, payload) => void new Int32Array(segment.buffer).fill(payload),
            payload: value,
          }),
      });
    const [old, next] = [version("0.1", 1024, 1), version("0.2", 2048, 2)];
    const registry = scene.open({ addins: [old] });
    const upgraded = scene.open({ addins: [next, old], database: "b" });
    for (const each of [registry, upgraded]) {
      assertEquals(firstWord(each, "my_ext:0.1:value"), 1);
      assertEquals(firstWord(each, "my_ext:0.2:value"), 2);
    }
    assertEquals([...registry.segments()].map(({ name, size }) => [name, size]), [
      ["my_ext:0.1:value", 1024],
      ["my_ext:0.2:value", 2048],
    ]);
  }));

test("the callback gets the segment, zeroed, and the payload as it is; it may be left out", () =>
  inScene((scene) => {
    const payload = { answer: 42 };
    let seen: unknown;
    const registry = open(scene, (handle) => {
      assertEquals(handle.name, "my_ext");
      handle.allocateShmem({
        name: "with",
        size: 16,
        payload,
        callback(segment, given) {
          seen = given;
          assertEquals([segment.name, segment.size, segment.found], ["with", 16, false]);
          assertEquals(new Uint8Array(segment.buffer), new Uint8Array(16));
        },
      });
      handle.allocateShmem({ name: "without", size: 4 });
    });
    assertStrictEquals(seen, payload);
    assertEquals(firstWord(registry, "without"), 0);
  }));

test("lookupShmem() in init: null when absent, after the callback when it is the add-in's own", () =>
  inScene((scene) => {
    let runs = 0;
    let words: (number | undefined)[] = [];
    const registry = open(scene, (handle) => {
      assertStrictEquals(handle.lookupShmem("absent"), null);
      handle.allocateShmem({
        name: "own",
        size: 4,
        callback: (segment) => {
          runs++;
          new Int32Array(segment.buffer)[0] = 9;
        },
      });
      words = [handle.lookupShmem("own"), handle.lookupShmem("own")]
        .map((segment) => segment?.buffer && new Int32Array(segment.buffer)[0]);
    });
    assertEquals([words, runs], [[9, 9], 1]);
    assertStrictEquals(registry.lookupShmem("own"), registry.lookupSegment("own"));
  }));

test("an allocation that fails makes opening fail, and leaves no record", () =>
  inScene((scene) => {
    const allocate = (request: ShmemRequest) => () =>
      open(scene, (handle) => handle.allocateShmem(request));
    scene.open().getNamedSegmentSync("there", 100);
    const other = assertFails(
      allocate({ name: "there", size: 101 }),
      "SIZE_MISMATCH",
      '"my_ext"',
      '"there"',
      100,
      101,
    );
    assertEquals([other.actual, other.requested], [100, 101]);
    const thrown = new Error("as planned");
    const failed = assertFails(
      allocate({
        name: "failing",
        size: 8,
        callback() {
          throw thrown;
        },
      }),
      "INIT_FAILED",
      '"my_ext"',
      '"failing"',
      "as planned",
    );
    assertStrictEquals(failed.cause, thrown);
    const promise = { name: "promise", size: 8, callback: () => Promise.resolve() };
    assertFails(allocate(promise), "INIT_FAILED", '"promise"', "promise");
    assertFails(
      allocate({ name: "huge", size: Number.MAX_SAFE_INTEGER }),
      "SIZE_INVALID",
      '"huge"',
    );
    assertFails(allocate({ name: "huge", size: 2 ** 43 }), "NO_SPACE", '"huge"');
    const registry = scene.open();
    assertEquals([...registry.segments()].map(({ name }) => name), ["there"]);
    assertEquals([...registry.backends()].length, 1);
    // What init itself is told, it may deal with.
    open(scene, (handle) => {
      for (const size of [0, -1, 1.5, Infinity, "8"] as number[]) {
        assertFails(() => handle.allocateShmem({ name: "x", size }), "SIZE_INVALID", '"x"');
      }
      for (const name of ["", "a/b", "\u0001x", 1] as string[]) {
        assertFails(() => handle.allocateShmem({ name, size: 8 }), "NAME_INVALID");
      }
      assertFails(() => handle.allocateShmem({ name: "x".repeat(64), size: 8 }), "NAME_TOO_LONG");
      const wrong = (request: unknown) => () => handle.allocateShmem(request as ShmemRequest);
      assertThrows(wrong(undefined), TypeError);
      assertThrows(wrong({ name: "x", size: 8, callback: 1 }), TypeError, "callback");
      assertThrows(wrong({ name: "x", size: 8, scope: "local" }), TypeError, "scope");
      handle.allocateShmem({ name: "twice", size: 8 });
      handle.allocateShmem({ name: "twice", size: 8 });
      assertFails(() => handle.allocateShmem({ name: "twice", size: 9 }), "SIZE_MISMATCH", 8, 9);
    });
    assertEquals([...registry.segments()].map(({ name }) => name), ["there", "twice"]);
  }));

test("an init hook that throws after it has asked for memory gets none", () =>
  inScene((scene) => {
    const init = (handle: AddinHandle) => {
      handle.allocateShmem({ name: "a", size: 8 });
      throw new Error("as planned");
    };
    assertFails(() => open(scene, init), "INIT_FAILED", "init hook", "as planned");
    assertEquals([...scene.open().segments()], []);
  }));

test("the handle is of no use once init has ended, but for looking up", () =>
  inScene((scene) => {
    let kept: AddinHandle | undefined;
    const registry = open(scene, (handle) => {
      handle.allocateShmem({ name: "a", size: 8 });
      kept = handle;
    });
    assert(kept !== undefined);
    const handle = kept;
    assertFails(() => handle.allocateShmem({ name: "b", size: 8 }), "UNSUPPORTED", "init hook");
    assertFails(() => handle.registerBackgroundWorker({} as never), "UNSUPPORTED", "init hook");
    assertStrictEquals(handle.lookupShmem("a"), registry.lookupSegment("a"));
    assertStrictEquals(handle.lookupShmem("b"), null);
  }));

test("workers are registered through what the registry passes in, under the add-in's name", () =>
  inScene((scene) => {
    const registered: unknown[] = [];
    const handle = new Handle("my_ext", scene.open(), (addin, spec) => {
      registered.push([addin, spec]);
      return "its handle" as never;
    });
    const spec = { name: "worker", module: "data:text/javascript,", function: "main" };
    assertEquals<unknown>(handle.registerBackgroundWorker(spec), "its handle");
    assertEquals(registered, [["my_ext", spec]]);
    handle.endSync();
    assertFails(() => handle.registerBackgroundWorker(spec), "UNSUPPORTED", "init hook");
    assertEquals(registered.length, 1);
  }));

test("a block lives while somebody has it, when its lifetime is attached: counted by backends", () =>
  inScene(async (scene) => {
    const options = { lifetime: "attached" } as const;
    const one = scene.open();
    const two = scene.open({ database: "two" });
    const make = (registry: Registry) =>
      registry.getNamedSegmentSync("counted", 64, undefined, options);
    const counted = () => [...one.segments()].map(({ name, backends }) => [name, backends]);
    const [first, second] = [make(one), make(two)];
    assertEquals([first.found, second.found, counted()], [false, true, [["counted", 2]]]);
    first.detach();
    assertEquals(counted(), [["counted", 1]]);
    second.detach();
    assertEquals([counted(), two.lookupShmem("counted")], [[], null]);
    // A third time: nothing, and no error.
    second.detach();
    assertEquals(make(one).found, false);
    // A process that dies counts no more.
    const child = await scene.child("bun");
    assertEquals((await child.ask({ do: "get", segment: "counted" })).found, true);
    assertEquals(counted(), [["counted", 2]]);
    child.kill();
    await child.ended;
    assertEquals([...one.backends()].length, 2);
    assertEquals(counted(), [["counted", 1]]);
  }));

test("SCOPE_MISMATCH: one add-in asks for one name in two scopes", () =>
  inScene((scene) => {
    open(scene, (handle) => {
      handle.allocateShmem({ name: "a", size: 8 });
      const again = () => handle.allocateShmem({ name: "a", size: 8, scope: "database" });
      assertFails(again, "SCOPE_MISMATCH", '"a"', '"global"', '"database"');
    });
  }));
