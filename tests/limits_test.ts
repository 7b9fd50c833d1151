/** Full tables, full file systems, many segments, and nothing that leaks. */

import { assert, assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "./_declare.ts";
import { Registry, type Segment } from "../lib/mod.ts";
import { assertFailed, assertFails, inScene, type Scene, succeeded } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

/** What this process holds, as Linux counts it; undefined elsewhere, with a line that says so. */
function held(): { descriptors: number; maps: number } | undefined {
  if (!existsSync("/proc/self/maps")) {
    console.log("not tested: this system has no /proc to count descriptors and mappings in");
    return undefined;
  }
  // Ours only: a runtime opens and maps for itself at any time.
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    maps: maps.filter((line) => line.includes("/dsmr.")).length,
  };
}

test("1,000 cycles of open, get, detach and close leave no descriptor and no mapping", () =>
  inScene((scene) => {
    const keep = scene.open({}, "keep");
    keep.getNamedSegmentSync("a", 100);
    const cycle = (i: number) => {
      const registry = Registry.openSync("test", { dir: scene.dir });
      const kept = registry.getNamedSegmentSync("kept", 5000);
      const dropped = registry.getNamedSegmentSync(`dropped ${i}`, 100);
      assertEquals([kept.found, dropped.found], [i > 0, false]);
      registry.dropSegment(`dropped ${i}`);
      try {
        registry.getNamedSegmentSync("failing", 100, () => {
          throw new Error("as planned");
        });
      } catch {
        // Planned.
      }
      kept.detach();
      registry.getNamedSegmentSync("kept", 5000);
      // `dropped` and `kept` are left to close().
      registry.close();
    };
    for (let i = 0; i < 20; i++) cycle(i);
    const before = held();
    for (let i = 20; i < 1020; i++) cycle(i);
    const after = held();
    assertEquals(after?.maps, before?.maps);
    // The runtime's own come and go by a few.
    const more = (after?.descriptors ?? 0) - (before?.descriptors ?? 0);
    assert(more < 20, `${more} descriptors more after 1,000 cycles`);
    assertEquals([...scene.open().segments()].map(({ name }) => name), ["kept"]);
    assertEquals(scene.files().filter((file) => file.startsWith("dsmr.s.test.")).length, 1);
  }));

test("failing calls leave no descriptor and no mapping", () =>
  inScene((scene) => {
    const registry = scene.open({ maxBackends: 1, maxSegments: 1 });
    registry.getNamedSegmentSync("a", 100);
    const fail = () => {
      assertFails(() => scene.open({ database: "other" }), "BACKENDS_FULL");
      assertFails(() => scene.open({ mode: "create" }, "test"), "EXISTS");
      assertFails(() => scene.open({ mode: "attach" }, "missing"), "NOT_FOUND");
      assertFails(() => registry.getNamedSegmentSync("a", 101), "SIZE_MISMATCH");
      assertFails(() => registry.getNamedSegmentSync("b", 8), "REGISTRY_FULL");
    };
    for (let i = 0; i < 20; i++) fail();
    const before = held();
    for (let i = 0; i < 500; i++) fail();
    const after = held();
    assertEquals(after?.maps, before?.maps);
    const more = (after?.descriptors ?? 0) - (before?.descriptors ?? 0);
    assert(more < 20, `${more} descriptors more after 500 failures`);
  }));

test("one registry holds 1,000 segments, each its own, for both runtimes", () =>
  inScene(async (scene) => {
    const registry = scene.open({ maxSegments: 1000 });
    const segments: Segment[] = [];
    for (let i = 0; i < 1000; i++) {
      segments.push(registry.getNamedSegmentSync(`segment ${i}`, 64 + i, (segment) => {
        new Int32Array(segment.buffer, 0, 1)[0] = i;
      }));
    }
    assertFails(
      () => registry.getNamedSegmentSync("one more", 8),
      "REGISTRY_FULL",
      "one more",
      1000,
    );
    assertEquals([...registry.segments()].length, 1000);
    for (const [i, segment] of segments.entries()) {
      assertEquals([new Int32Array(segment.buffer, 0, 1)[0], segment.size], [i, 64 + i]);
    }
    for (const runtime of runtimes) {
      const child = await scene.child(runtime);
      for (let i = 0; i < 1000; i += 37) {
        const report = await child.ask({ do: "get", segment: `segment ${i}` });
        assertEquals([report.found, report.value, report.size], [true, i, 64 + i]);
      }
    }
    // Dropping in an order that leaves holes, then filling up again.
    for (let i = 0; i < 1000; i += 2) assert(registry.dropSegment(`segment ${i}`));
    for (let i = 1; i < 1000; i += 2) {
      assertEquals(registry.lookupSegment(`segment ${i}`)?.size, 64 + i);
    }
    for (let i = 0; i < 500; i++) registry.getNamedSegmentSync(`new ${i}`, 8).detach();
    assertFails(() => registry.getNamedSegmentSync("one more", 8), "REGISTRY_FULL", 1000);
  }));

test("names may come and go 20,000 times in a table of 4", () =>
  inScene((scene) => {
    const registry = scene.open({ maxSegments: 4 });
    registry.getNamedSegmentSync("stays", 8, (s) => new Uint8Array(s.buffer).fill(7));
    const ids = new Set<number>();
    for (let i = 0; i < 20_000; i++) {
      const segment = registry.getNamedSegmentSync(`${i}`, 8, undefined, { lifetime: "attached" });
      assert(!segment.found);
      if (i % 1000 === 0) {
        const id = [...registry.segments()].find(({ name }) => name === `${i}`)?.id ?? 0;
        assert(id > 0 && !ids.has(id), `${id} is given twice`);
        ids.add(id);
      }
      segment.detach();
    }
    assertEquals([...registry.segments()].map(({ name }) => name), ["stays"]);
    assertEquals(new Uint8Array(registry.getNamedSegmentSync("stays").buffer)[0], 7);
  }));

test("64 databases are 64 backends; the slot of each that leaves is used again, its id is not", () =>
  inScene((scene) => {
    const registries: Registry[] = [];
    for (let i = 0; i < 64; i++) registries.push(scene.open({ database: `database ${i}` }));
    const ids = new Set(registries.map((registry) => registry.backendId));
    assertEquals(ids.size, 64);
    for (let round = 0; round < 10; round++) {
      for (const [i, registry] of registries.entries()) {
        registry.close();
        const again = scene.open({ database: `database ${i}` });
        assert(!ids.has(again.backendId), "an id was used twice");
        ids.add(again.backendId);
        registries[i] = again;
      }
    }
    assertEquals([...registries[0]?.backends() ?? []].length, 64);
    assertFails(() => scene.open({ database: "one more" }), "REGISTRY_FULL", "one more", 64);
  }));

/* Negative tests. */

test("a full segment table is REGISTRY_FULL with its size, until one is dropped", () =>
  inScene((scene) => {
    const registry = scene.open({ maxSegments: 2 });
    registry.getNamedSegmentSync("a", 8);
    registry.getNamedSegmentSync("b", 8);
    const get = () => registry.getNamedSegmentSync("c", 8);
    const error = assertFails(get, "REGISTRY_FULL", '"c"', '"test"', 2);
    assertEquals([error.actual, error.requested], [2, 3]);
    assertEquals(registry.getNamedSegmentSync("a", 8).found, false);
    assertEquals(scene.files().length, 3);
    registry.dropSegment("a");
    assertEquals(get().found, false);
  }));

for (const runtime of runtimes) {
  test(`all slots used is BACKENDS_FULL with their number, for ${runtime}; a death frees one`, () =>
    inScene(async (scene) => {
      const registry = scene.open({ maxBackends: 2 });
      const first = await scene.child(runtime);
      const second = await scene.start(runtime);
      const open = { do: "open", options: { dir: scene.dir } } as const;
      assertFailed(await second.ask(open), "BACKENDS_FULL", '"test"', 2);
      const other = assertFails(() => scene.open({ database: "b" }), "BACKENDS_FULL", '"test"', 2);
      assertEquals([other.actual, other.requested], [2, 3]);
      first.kill();
      await first.ended;
      succeeded(await second.ask(open));
      assertEquals([...registry.backends()].length, 2);
      assertFails(() => scene.open({ database: "b" }), "BACKENDS_FULL");
    }));
}

/** A file system of 1 MiB in the scene's directory; undefined, with the reason, if not possible. */
function smallFileSystem(scene: Scene): string | undefined {
  const dir = join(scene.dir, "small");
  mkdirSync(dir);
  if (process.platform !== "linux" || process.geteuid?.() !== 0) {
    console.log("not tested: only root on Linux can mount a small file system");
    return undefined;
  }
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=1m", "dsmr-test", dir]);
  if (mounted.status !== 0) {
    console.log(`not tested: cannot mount: ${mounted.error ?? mounted.stderr}`);
    return undefined;
  }
  // Lazily: after a failure something may still be open.
  scene.atEnd(() => assertEquals(spawnSync("umount", ["-l", dir]).status, 0, `umount ${dir}`));
  return dir;
}

test("a full file system is NO_SPACE with both numbers, and nothing half-made is left", () =>
  inScene((scene) => {
    const dir = smallFileSystem(scene);
    if (dir === undefined) return;
    const mine = () => readdirSync(dir).sort();
    const tooBig = () => Registry.openSync("big", { dir, maxSegments: 65_536 });
    const control = assertFails(tooBig, "NO_SPACE", '"big"', dir);
    assert((control.actual ?? 0) <= 2 ** 20 && (control.requested ?? 0) > 2 ** 20);
    assertEquals(mine(), []);

    using registry = Registry.openSync("test", { dir, maxBackends: 4, maxSegments: 64 });
    let made = 0;
    const fill = () => {
      for (; made < 64; made++) registry.getNamedSegmentSync(`${made}`, 100_000);
    };
    const error = assertFails(fill, "NO_SPACE", `"${made}"`.slice(0, 1), 100_000, dir);
    assert(made > 3 && made < 11, `${made} segments of 100,000 bytes in 1 MiB`);
    assertEquals(error.requested, 100_000);
    assert((error.actual ?? Infinity) < 100_000 + 4096);
    assertEquals([...registry.segments()].length, made);
    assertEquals(mine().length, made + 1);
    // What is there can be written to the last byte: its space was reserved.
    for (let i = 0; i < made; i++) {
      new Uint8Array(registry.getNamedSegmentSync(`${i}`).buffer).fill(0xff);
    }
    assert(registry.dropSegment("0"));
    registry.lookupSegment("1");
    Registry.destroy("test", { dir });
    assertEquals(mine(), []);
  }));
