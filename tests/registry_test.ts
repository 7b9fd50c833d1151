/** Registries: open, close, destroy, list; databases and backends. */

import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "./_declare.ts";
import { DsmrError, Registry } from "../lib/mod.ts";
import { assertFailed, assertFails, inScene, succeeded, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

test("openSync() creates one file and knows the registry's name, directory and database", () =>
  inScene((scene) => {
    const registry = scene.open();
    assertEquals([registry.name, registry.dir, registry.database], ["test", scene.dir, "default"]);
    assert(Number.isInteger(registry.backendId) && registry.backendId > 0);
    assertEquals(scene.files(), ["dsmr.r.test"]);
  }));

test("mode create only creates, mode attach only attaches", () =>
  inScene(async (scene) => {
    const missing = assertFails(() => scene.open({ mode: "attach" }), "NOT_FOUND", '"test"');
    assert(missing.message.includes(scene.dir));
    assertEquals(scene.files(), []);
    const registry = scene.open({ mode: "create" });
    assertFails(() => scene.open({ mode: "create" }), "EXISTS", '"test"', scene.dir);
    for (const runtime of runtimes) {
      const child = await scene.start(runtime);
      const { dir } = scene;
      assertFailed(await child.ask({ do: "open", options: { dir, mode: "create" } }), "EXISTS");
      succeeded(await child.ask({ do: "open", options: { dir, mode: "attach" } }));
    }
    assertEquals([...registry.backends()].length, 3);
    registry.close();
    assertFails(() => scene.open({ mode: "create" }), "EXISTS", '"test"', scene.dir);
    assertEquals(scene.open({ mode: "attach" }).name, "test");
  }));

test("the same registry and database opened twice share one backend until both are closed", () =>
  inScene((scene) => {
    const one = scene.open();
    const two = scene.open();
    assertEquals(one.backendId, two.backendId);
    assertEquals([...one.backends()].length, 1);
    const segment = one.getNamedSegmentSync("a", 8);
    assertStrictEquals(two.getNamedSegmentSync("a", 8), segment);
    one.close();
    one.close();
    assertFails(() => one.backendId, "CLOSED", '"test"');
    new Uint8Array(segment.buffer)[0] = 1;
    assertStrictEquals(two.getNamedSegmentSync("a", 8), segment);
    two.close();
    assertFails(() => segment.buffer, "DETACHED", '"a"');
    const three = scene.open();
    assertNotEquals(three.getNamedSegmentSync("a", 8), segment);
    assertEquals(new Uint8Array(three.getNamedSegmentSync("a", 8).buffer)[0], 1);
  }));

test("one registry opened by several paths is one backend until all are closed", () =>
  inScene((scene) => {
    const link = join(scene.dir, "link");
    symlinkSync(scene.dir, link);
    const paths = [scene.dir, `${scene.dir}/`, `${scene.dir}//`, link, `${link}/.`];
    const registries = paths.map((dir) => scene.open({ dir }));
    const [one] = registries;
    assertEquals(new Set(registries.map(({ backendId }) => backendId)).size, 1);
    assertEquals([...one?.backends() ?? []].length, 1);
    const segments = registries.map((registry) => registry.getNamedSegmentSync("a", 8));
    assertEquals(new Set(segments).size, 1);
    // What asks for its own segment by another path would wait for itself for ever.
    assertFails(
      () =>
        registries[0]?.getNamedSegmentSync(
          "b",
          8,
          () => void registries[3]?.getNamedSegmentSync("b", 8),
        ),
      "INIT_FAILED",
      '"b"',
    );
    for (const registry of registries.slice(0, -1)) registry.close();
    assertEquals(segments[0]?.buffer.byteLength, 8);
    assertEquals(scene.open({ dir: `${scene.dir}/` }).backendId, registries.at(-1)?.backendId);
    // Another database is another backend, another registry too.
    const other = scene.open({ dir: link, database: "other" });
    assertNotEquals(other.backendId, registries.at(-1)?.backendId);
    assertEquals([...other.backends()].length, 2);
    assertEquals([...scene.open({ dir: link }, "next").backends()].length, 1);
  }));

test("after a destroy another path gives the new registry, not the old backend", () =>
  inScene((scene) => {
    const link = join(scene.dir, "link");
    symlinkSync(scene.dir, link);
    const old = scene.open();
    old.getNamedSegmentSync("a", 8);
    Registry.destroy("test", { dir: scene.dir });
    const next = scene.open({ dir: link });
    assertEquals([...next.segments()], []);
    assertEquals(scene.open().backendId, next.backendId);
    assertFails(() => old.segments(), "CLOSED", '"test"');
  }));

test("two databases of one registry are two backends", () =>
  inScene((scene) => {
    const one = scene.open({ database: "tenant a" });
    const two = scene.open({ database: "tenant b" });
    assertNotEquals(one.backendId, two.backendId);
    const infos = [...one.backends()];
    assertEquals(infos.map(({ database }) => database).sort(), ["tenant a", "tenant b"]);
    assertEquals(infos.filter(({ self }) => self).map(({ id }) => id), [one.backendId]);
    two.close();
    assertEquals([...one.backends()].map(({ id }) => id), [one.backendId]);
  }));

test("backends() tells pid, program, segments and since when of every backend", () =>
  inScene(async (scene) => {
    const begun = Date.now();
    const registry = scene.open();
    const programs = new Map<number, string>();
    for (const runtime of runtimes) {
      const child = await scene.child(runtime);
      programs.set(child.pid, runtime);
      succeeded(await child.ask({ do: "get", segment: "a", size: 8 }));
    }
    registry.getNamedSegmentSync("a");
    registry.getNamedSegmentSync("b", 8);
    const infos = [...registry.backends()];
    assertEquals(infos.length, 3);
    for (const info of infos) {
      assertEquals(info.self, info.pid === process.pid);
      assertEquals(info.segments, info.self ? 2 : 1);
      assertEquals([info.waitingFor, info.database], [null, "default"]);
      assert(Math.abs(info.attachedAt.getTime() - begun) < 3_600_000);
      const program = programs.get(info.pid) ?? "";
      assert(info.program.startsWith(program) && /^(deno|bun) \d+\.\d+/.test(info.program));
      assert(info.tid > 0);
    }
    assertEquals(infos.find(({ self }) => self)?.id, registry.backendId);
  }));

test("Registry.list() tells what is in a directory, sorted by name", () =>
  inScene(async (scene) => {
    const { dir } = scene;
    assertEquals([...Registry.list({ dir })], []);
    scene.open({ maxBackends: 3, maxSegments: 5 }, "shop").getNamedSegmentSync("a", 8);
    await scene.child("deno", {}, "shop");
    scene.open({}, "bank").close();
    const infos = [...Registry.list({ dir })];
    assertEquals(
      infos.map((info) => [info.name, info.dir, info.problem, info.backends, info.segments]),
      [["bank", dir, null, 0, 0], ["shop", dir, null, 2, 1]],
    );
    assertEquals([infos[1]?.maxBackends, infos[1]?.maxSegments], [3, 5]);
    assertEquals([infos[0]?.maxBackends, infos[0]?.maxSegments], [256, 1024]);
    for (const info of infos) {
      assertEquals(info.creatorPid, process.pid);
      assert(info.size >= 4096 && info.size <= 1024 * 1024, `${info.size} bytes`);
      assert(Math.abs(info.createdAt.getTime() - Date.now()) < 3_600_000);
    }
  }));

for (const runtime of runtimes) {
  test(`DSMR_DIR names the directory of a ${runtime} process, and the dir option overrides it`, () =>
    inScene(async (scene) => {
      const { dir } = scene;
      const sub = join(dir, "sub");
      mkdirSync(sub);
      const child = await scene.start(runtime, { DSMR_DIR: sub });
      succeeded(await child.ask({ do: "open", name: "named", options: {} }));
      assertEquals([...Registry.list({ dir: sub })].map(({ name }) => name), ["named"]);
      succeeded(await child.ask({ do: "open", name: "given", options: { dir } }));
      assertEquals([...Registry.list({ dir })].map(({ name }) => name), ["given"]);
    }));
}

test("Registry.destroy() removes the registry and its files, and says whether there was one", () =>
  inScene((scene) => {
    const { dir } = scene;
    assertEquals(Registry.destroy("test", { dir }), false);
    const registry = scene.open();
    for (let i = 0; i < 5; i++) registry.getNamedSegmentSync(`segment ${i}`, 100);
    scene.open({}, "tes").getNamedSegmentSync("other", 100);
    assertEquals(scene.files().length, 8);
    assertEquals(Registry.destroy("test", { dir }), true);
    assertEquals(Registry.destroy("test", { dir }), false);
    assertEquals(scene.files().filter((file) => !file.includes(".tes.")), ["dsmr.r.tes"]);
    assertEquals(scene.files().length, 2);
  }));

for (const runtime of runtimes) {
  test(`a registry destroyed under ${runtime}: mapped memory lives on, all else is CLOSED`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const child = await scene.child(runtime);
      const segment = registry.getNamedSegmentSync(
        "a",
        64,
        (s) => new Uint8Array(s.buffer).fill(1),
      );
      succeeded(await child.ask({ do: "get", segment: "a" }));
      assertEquals((await child.ask({ do: "destroy" })).value, 1);
      assertEquals(scene.files(), []);

      const calls = [
        () => registry.getNamedSegmentSync("a", 64),
        () => registry.getNamedSegmentSync("b", 64),
        () => registry.lookupSegment("a"),
        () => registry.dropSegment("a"),
        () => registry.segments(),
        () => registry.backends(),
      ];
      for (const call of calls) assertFails(call, "CLOSED", '"test"');
      for (const command of ["segments", "backends"] as const) {
        assertFailed(await child.ask({ do: command }), "CLOSED", '"test"');
      }
      // The memory still connects the two.
      new Int32Array(segment.buffer)[5] = 10;
      const added = await child.ask({ do: "add", segment: "a", index: 5, value: 5 });
      assertEquals([added.value, new Int32Array(segment.buffer)[5]], [15, 15]);

      // A new one of the same name has nothing to do with it.
      const next = scene.open();
      assertEquals([...next.backends()].length, 1);
      assertEquals(next.getNamedSegmentSync("a", 8).found, false);
      assertFails(() => registry.segments(), "CLOSED", '"test"');
      succeeded(await child.ask({ do: "detach", segment: "a" }));
      succeeded(await child.ask({ do: "close" }));
      segment.detach();
      registry.close();
      assertEquals([...next.segments()].map(({ name, size }) => [name, size]), [["a", 8]]);
    }));

  test(`a destroy wakes a ${runtime} waiter with CLOSED; the initialiser gets it at its end`, () =>
    inScene(async (scene) => {
      const initialiser = await scene.child(otherThan(runtime));
      const waiter = await scene.child(runtime);
      const registry = scene.open();
      initialiser.send({ do: "get", segment: "a", size: 8, init: [{ hold: true }] });
      assertEquals(await initialiser.next(), { holding: true });
      waiter.send({ do: "get", segment: "a", size: 8 });
      await until(() => [...registry.backends()].some(({ waitingFor }) => waitingFor === "a"));
      assertEquals(Registry.destroy("test", { dir: scene.dir }), true);
      assertFailed(await waiter.next(), "CLOSED", '"test"');
      initialiser.go();
      assertFailed(await initialiser.next(), "CLOSED", '"test"');
      assertEquals(scene.files(), []);
    }));
}

test("using closes at the end of the block, and close() detaches every segment", () =>
  inScene((scene) => {
    const views: Uint8Array[] = [];
    {
      using registry = Registry.openSync("test", { dir: scene.dir });
      for (const name of ["a", "b"]) {
        views.push(new Uint8Array(registry.getNamedSegmentSync(name, 8).buffer));
      }
    }
    assertEquals(views.map((view) => view.length), [0, 0]);
    assertEquals([...Registry.list({ dir: scene.dir })].map(({ backends }) => backends), [0]);
  }));

/* Negative tests. */

test("everything but close() is CLOSED after close(), and the message names the registry", () =>
  inScene((scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("a", 8);
    registry.close();
    registry.close();
    registry[Symbol.dispose]();
    const calls = [
      () => registry.backendId,
      () => registry.getNamedSegmentSync("a", 8),
      () => registry.lookupSegment("a"),
      () => registry.dropSegment("a"),
      () => registry.segments(),
      () => registry.backends(),
    ];
    for (const call of calls) assertFails(call, "CLOSED", '"test"');
    segment.detach();
    assertEquals(registry.name, "test");
    // A second close must not close somebody else's.
    const other = scene.open();
    registry.close();
    assertEquals([...other.backends()].length, 1);
  }));

test("a directory that is not there, no directory, or no path is refused by name", () =>
  inScene((scene) => {
    const dir = join(scene.dir, "missing");
    const calls = [
      () => Registry.openSync("test", { dir }),
      () => Registry.list({ dir }),
    ];
    for (const call of calls) assertFails(call, "NOT_FOUND", dir);
    assertEquals(Registry.destroy("test", { dir }), false);
    scene.open();
    const file = join(scene.dir, "dsmr.r.test");
    assertThrows(() => Registry.openSync("test", { dir: file }), DsmrError, file);
    assertFails(() => Registry.openSync("test", { dir: "relative" }), "NAME_INVALID", "relative");
    assertFails(() => Registry.openSync("test", { dir: "" }), "NAME_INVALID", "directory");
    assertFails(() => Registry.openSync("test", { dir: "/a\0b" }), "NAME_INVALID");
    const long = "/" + "x".repeat(5000);
    assertFails(() => Registry.openSync("test", { dir: long }), "NAME_TOO_LONG", 5001);
    assertThrows(() => Registry.openSync("test", { dir: 5 as never }), TypeError, "5");
  }));
