/** Bad input: names, sizes and limits. Each is refused, by name and number, and leaves nothing. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import { type DsmrErrorCode, Registry } from "../lib/mod.ts";
import { assertFails, inScene } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

/** Every call that takes a name, and what the message calls it. */
function takers(dir: string, registry: Registry): [string, (name: string) => unknown][] {
  return [
    ["registry", (name) => Registry.openSync(name, { dir })],
    ["registry", (name) => Registry.destroy(name, { dir })],
    ["database", (database) => Registry.openSync("other", { dir, database })],
    ["segment", (name) => registry.getNamedSegmentSync(name, 8)],
    ["segment", (name) => registry.getNamedSegmentSync(name)],
    ["segment", (name) => registry.lookupSegment(name)],
    ["segment", (name) => registry.dropSegment(name)],
  ];
}

test("names of 1 to 63 bytes of UTF-8 work, whatever is in them", () =>
  inScene((scene) => {
    const names = [
      "a",
      ".",
      "..",
      " ",
      "a b",
      "\n",
      "%s%n",
      "x".repeat(63),
      "é".repeat(31),
      "日本語",
      "🦕".repeat(15) + "abc",
      "-rf",
      '"quoted"',
      "\u{10ffff}",
      "__proto__",
    ];
    for (const name of names) {
      const registry = scene.open({ database: name }, name);
      assertEquals([registry.name, registry.database], [name, name]);
      registry.getNamedSegmentSync(name, 8, (s) => new Uint8Array(s.buffer).fill(1));
      assertEquals([...registry.segments()].map((info) => info.name), [name]);
      assertEquals([...registry.backends()].map((info) => info.database), [name]);
      assertEquals(registry.lookupSegment(name)?.name, name);
    }
    const listed = [...Registry.list({ dir: scene.dir })].map((info) => info.name);
    assertEquals(listed, names.toSorted((a, b) => a < b ? -1 : 1));
    for (const name of names) assert(Registry.destroy(name, { dir: scene.dir }), name);
    assertEquals(scene.files(), []);
  }));

test("names that differ in bytes are different, however alike they look", () =>
  inScene((scene) => {
    const registry = scene.open();
    const names = ["é", "e\u0301", "E", "e", " e", "e "];
    for (const [i, name] of names.entries()) {
      registry.getNamedSegmentSync(name, 8, (s) => new Uint8Array(s.buffer).fill(i));
    }
    for (const [i, name] of names.entries()) {
      assertEquals(new Uint8Array(registry.getNamedSegmentSync(name).buffer)[0], i);
    }
    assertEquals([...registry.segments()].length, names.length);
  }));

for (const runtime of runtimes) {
  test(`a ${runtime} process and this one mean the same by a name that is not ASCII`, () =>
    inScene(async (scene) => {
      const name = "größe 🦕";
      const registry = scene.open({ database: name }, name);
      registry.getNamedSegmentSync(name, 8, (s) => new Uint8Array(s.buffer).fill(2));
      const child = await scene.child(runtime, { database: name }, name);
      assertEquals((await child.ask({ do: "lookup", segment: name })).value, 0x02020202);
    }));
}

/* Negative tests. */

test("a bad name is refused with its code by every call that takes one", () =>
  inScene((scene) => {
    const registry = scene.open();
    const cases: [unknown, DsmrErrorCode, ...(string | number)[]][] = [
      ["", "NAME_INVALID"],
      ["a/b", "NAME_INVALID", '"a/b"', 1, 3],
      ["/", "NAME_INVALID"],
      ["a\0b", "NAME_INVALID", '"a?b"'],
      ["\0", "NAME_INVALID"],
      ["half \ud83e pair", "NAME_INVALID", "half"],
      ["\udd95", "NAME_INVALID"],
      ["x".repeat(64), "NAME_TOO_LONG", 64, 63],
      ["é".repeat(32), "NAME_TOO_LONG", 64, 63],
      ["x".repeat(100_000), "NAME_TOO_LONG", 100_000, 63],
      [5, "NAME_INVALID", 5],
      [null, "NAME_INVALID", "null"],
      [{}, "NAME_INVALID", "object"],
      [["a"], "NAME_INVALID", "object"],
      [Symbol("a"), "NAME_INVALID", "symbol"],
    ];
    for (const [what, take] of takers(scene.dir, registry)) {
      for (const [name, code, ...texts] of cases) {
        const error = assertFails(() => take(name as string), code, what, ...texts);
        assert(error.message.length < 300, `a message of ${error.message.length} characters`);
        assert(!error.message.includes("\0"), "a NUL in the message");
      }
    }
    // Not the database: there it means the default one.
    for (const [what, take] of takers(scene.dir, registry)) {
      if (what === "database") continue;
      assertFails(() => take(undefined as never), "NAME_INVALID", "undefined");
    }
    assertEquals([...registry.segments()], []);
    assertEquals(scene.files(), ["dsmr.r.test"]);
    // Nor is what is attached found by what is no name, but reads as one.
    for (const scope of ["global", "database"] as const) {
      registry.getNamedSegmentSync("5", 8, undefined, { scope });
      for (const name of [5, Symbol("a"), ["5"]] as unknown[]) {
        const look = () => registry.lookupSegment(name as string, { scope });
        assertFails(look, "NAME_INVALID", "not a string");
      }
    }
  }));

test("a size that is no whole number from 1 on is SIZE_INVALID", () =>
  inScene((scene) => {
    const registry = scene.open();
    const sizes = [0, -0, -1, 1.5, NaN, Infinity, -Infinity, 2 ** 53, 2 ** 64, 1e300];
    for (const size of sizes) {
      const get = () => registry.getNamedSegmentSync("sized", size);
      const error = assertFails(get, "SIZE_INVALID", '"sized"', String(size));
      assertEquals(error.requested, size);
    }
    for (const size of ["8", null, 8n, {}, true]) {
      const get = () => registry.getNamedSegmentSync("sized", size as number);
      assertFails(get, "SIZE_INVALID", '"sized"');
    }
    assertEquals([...registry.segments()], []);
    assertEquals(scene.files(), ["dsmr.r.test"]);
  }));

test("a size beyond all bounds is refused at once and leaves nothing", () =>
  inScene((scene) => {
    const registry = scene.open();
    for (const size of [2 ** 43, 2 ** 44, 2 ** 45, 2 ** 53 - 1]) {
      let calls = 0;
      const get = () => registry.getNamedSegmentSync("huge", size, () => calls++);
      // 16 TiB: what a segment may have at most, however large the directory is.
      const code = size <= 2 ** 44 ? "NO_SPACE" : "SIZE_INVALID";
      const error = assertFails(get, code, '"huge"', size);
      assertEquals(error.requested, size);
      assertEquals(calls, 0);
    }
    assertEquals([...registry.segments()], []);
    assertEquals(scene.files(), ["dsmr.r.test"]);
    assertEquals(registry.getNamedSegmentSync("huge", 8).found, false);
  }));

test("maxBackends and maxSegments out of range are SIZE_INVALID and create nothing", () =>
  inScene((scene) => {
    const bad = [0, -1, 1.5, NaN, Infinity, 2 ** 32, "5" as never, null as never];
    const limits = { maxBackends: 256, maxSegments: 65_536 };
    for (const [option, most] of Object.entries(limits)) {
      for (const value of [...bad, most + 1]) {
        assertFails(() => scene.open({ [option]: value }), "SIZE_INVALID", option, most);
      }
      assertEquals(scene.files(), []);
      for (const value of [1, most]) {
        scene.open({ [option]: value }).getNamedSegmentSync("a", 8);
        assertEquals([...Registry.list({ dir: scene.dir })][0]?.[option as "maxBackends"], value);
        Registry.destroy("test", { dir: scene.dir });
      }
    }
  }));

test("options that are null are as omitted, and a wrong one of any type is told by name", () =>
  inScene(async (scene) => {
    const nothing = null as never;
    for (const mode of [5n, Symbol("s"), null, {}, () => {}]) {
      assertThrows(() => scene.open({ mode: mode as never }), TypeError, "mode");
    }
    const registry = scene.open();
    const { lock } = registry.getNamedSegmentSync("a", 8, undefined, nothing);
    const again = await registry.getNamedSegment("b", 8, undefined, nothing);
    assertEquals(again.found, false);
    assertThrows(() => lock.acquireSync(5n as never), TypeError, "mode");
    lock.acquireSync("exclusive", nothing);
    lock.updateVar(0, 1n, nothing);
    lock.release();
    assertEquals(registry.newTranche("t", nothing).name, "t");
    assertThrows(() => registry.newTranche("t", { segment: {} as never }), TypeError, "segment");
    for (const offset of [5n, "0", Symbol("s"), -1]) {
      const at = () => registry.getNamedSegmentSync("a").lockAt(offset as never);
      assertFails(at, "SIZE_INVALID", "offset");
    }
    assert(Array.isArray([...Registry.list(nothing)]));
    assertEquals(Registry.destroy("dsmr test: nobody has this", nothing), false);
    assertFails(() => registry.getNamedSegmentSync(5n as never, 0), "NAME_INVALID", 5);
  }));

test("an unknown mode is a TypeError, an empty database NAME_INVALID", () =>
  inScene((scene) => {
    assertThrows(() => scene.open({ mode: "replace" as "open" }), TypeError, "replace");
    assertFails(() => scene.open({ database: "" }), "NAME_INVALID", "database");
    assertEquals(scene.files(), []);
  }));
