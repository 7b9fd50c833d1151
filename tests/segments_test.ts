/** Segments, as one process sees them, and as two do one after the other. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import type { Segment } from "../lib/mod.ts";
import { assertFails, inScene, succeeded } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/** PostgreSQL's test_dsm_registry, as far as it is about segments: cases 1 to 5. */
for (const runtime of runtimes) {
  test(`a segment outlives the ${runtime} process that made it, bytes and all`, () =>
    inScene(async (scene) => {
      const creator = await scene.child(runtime);
      assertEquals((await creator.ask({ do: "segments" })).segments, []);
      succeeded(await creator.ask({ do: "get", segment: "numbers", size: 4096 }));
      succeeded(await creator.ask({ do: "add", segment: "numbers", index: 1023, value: 1234 }));
      creator.endInput();
      assertEquals(await creator.ended, "exit code 0");

      const reader = await scene.child(otherThan(runtime));
      const got = await reader.ask({ do: "get", segment: "numbers", size: 4096 });
      assertEquals([got.found, got.size, got.initialised], [true, 4096, false]);
      const word = await reader.ask({ do: "add", segment: "numbers", index: 1023, value: 0 });
      assertEquals(word.value, 1234);
      const [info] = (await reader.ask({ do: "segments" })).segments ?? [];
      assertEquals([info?.name, info?.size, info?.backends], ["numbers", 4096, 1]);
      assertEquals(info?.creatorPid, creator.pid);
    }));
}

test("the init callback receives the segment and the very arg, and later callers do not", () =>
  inScene((scene) => {
    const registry = scene.open();
    const arg = { limit: 7 };
    const calls: [Segment, { limit: number }][] = [];
    const get = () =>
      registry.getNamedSegmentSync("a", 64, (segment, arg: { limit: number }) => {
        calls.push([segment, arg]);
      }, { arg });
    const first = get();
    assertStrictEquals(get(), first);
    assertEquals(calls.length, 1);
    assertStrictEquals(calls[0]?.[0], first);
    assertStrictEquals(calls[0]?.[1], arg);
    assertEquals([first.found, first.name, first.size], [false, "a", 64]);
    assertEquals(first.buffer.byteLength, 64);
  }));

test("a segment of any size is exactly that long, all zero, and writable to its end", () =>
  inScene((scene) => {
    const registry = scene.open();
    for (const size of [1, 3, 63, 64, 65, 4095, 4096, 4097, 1_000_003]) {
      const segment = registry.getNamedSegmentSync(`${size} bytes`, size);
      const bytes = new Uint8Array(segment.buffer);
      assertEquals([segment.size, bytes.length], [size, size]);
      assert(bytes.every((byte) => byte === 0), `${size} bytes: not zero`);
      bytes.fill(0xa5);
      assert(bytes.every((byte) => byte === 0xa5), `${size} bytes: not writable`);
    }
  }));

test("two backends of one process see each other's writes at once", () =>
  inScene((scene) => {
    const one = scene.open({ database: "one" }).getNamedSegmentSync("shared", 8);
    const two = scene.open({ database: "two" }).getNamedSegmentSync("shared", 8);
    assertEquals([one.found, two.found], [false, true]);
    Atomics.store(new Int32Array(one.buffer), 1, 77);
    assertEquals(Atomics.load(new Int32Array(two.buffer), 1), 77);
    one.detach();
    assertEquals(Atomics.add(new Int32Array(two.buffer), 1, 1), 77);
  }));

test("segments() lists each segment with name, size, lifetime and users, sorted by name", () =>
  inScene(async (scene) => {
    const begun = Date.now();
    const registry = scene.open();
    assertEquals([...registry.segments()], []);
    registry.getNamedSegmentSync("b", 100);
    registry.getNamedSegmentSync("a", 200, undefined, { lifetime: "attached" });
    registry.getNamedSegmentSync("ä", 300).detach();
    const child = await scene.child("bun");
    succeeded(await child.ask({ do: "get", segment: "b", size: 100 }));
    const infos = [...registry.segments()];
    assertEquals(
      infos.map((info) => [info.name, info.size, info.lifetime, info.backends, info.ready]),
      [["a", 200, "attached", 1, true], ["b", 100, "registry", 2, true], [
        "ä",
        300,
        "registry",
        0,
        true,
      ]],
    );
    assertEquals(new Set(infos.map((info) => info.id)).size, 3);
    for (const { createdAt } of infos) {
      assert(Math.abs(createdAt.getTime() - begun) < 3_600_000, String(createdAt));
    }
  }));

test("lookupSegment() attaches what is there, whatever its size, and null otherwise", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    assertEquals(registry.lookupSegment("a"), null);
    const child = await scene.child("deno");
    succeeded(await child.ask({ do: "get", segment: "a", size: 123, init: [{ fill: 9 }] }));
    const segment = registry.lookupSegment("a");
    assertEquals([segment?.found, segment?.size], [true, 123]);
    assertStrictEquals(registry.lookupSegment("a"), segment);
    assertStrictEquals(registry.getNamedSegmentSync("a", 123), segment);
    assertStrictEquals(registry.getNamedSegmentSync("a"), segment);

    child.send({ do: "get", segment: "b", size: 8, init: [{ hold: true }] });
    assertEquals(await child.next(), { holding: true });
    assertEquals(registry.lookupSegment("b"), null);
    assertEquals([...registry.segments()].map((info) => [info.name, info.ready]), [
      ["a", true],
      ["b", false],
    ]);
    child.go();
    succeeded(await child.next());
    assertEquals(registry.lookupSegment("b")?.size, 8);
  }));

test("dropSegment() frees the name; attached memory lives on, the next segment is fresh", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const child = await scene.child("bun");
    assertEquals(registry.dropSegment("a"), false);
    const old = registry.getNamedSegmentSync("a", 64, (s) => new Uint8Array(s.buffer).fill(1));
    succeeded(await child.ask({ do: "get", segment: "a" }));
    const [before] = [...registry.segments()];
    assertEquals((await child.ask({ do: "drop", segment: "a" })).value, 1);
    assertEquals((await child.ask({ do: "drop", segment: "a" })).value, 0);
    assertEquals([...registry.segments()], []);
    assertEquals(registry.lookupSegment("a"), null);
    // The file stays while somebody is attached: whoever reaps a dead one needs its locks.
    assertEquals(scene.files().filter((file) => file.startsWith("dsmr.s.")).length, 1);

    const fresh = registry.getNamedSegmentSync("a", 128);
    assert(new Uint8Array(fresh.buffer).every((byte) => byte === 0));
    assertEquals([fresh.found, fresh.size], [false, 128]);
    const [after] = [...registry.segments()];
    assert(after?.id !== before?.id, "ids are never given twice");

    // The old one still connects those that had it.
    const oldWords = new Int32Array(old.buffer);
    oldWords[3] = 40;
    assertEquals(
      (await child.ask({ do: "add", segment: "a", index: 3, value: 2 })).value,
      42,
    );
    assertEquals(oldWords[3], 42);
    assertEquals(new Int32Array(fresh.buffer)[3], 0);
    old.detach();
    assertEquals(registry.getNamedSegmentSync("a"), fresh);
    assertEquals(scene.files().filter((file) => file.startsWith("dsmr.s.")).length, 2);
    child.kill();
    await child.ended;
    assertEquals([...registry.backends()].length, 1);
    assertEquals(scene.files().filter((file) => file.startsWith("dsmr.s.")).length, 1);
  }));

test("a segment that is being initialised cannot be dropped", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const child = await scene.child("deno");
    child.send({ do: "get", segment: "a", size: 8, init: [{ fill: 3 }, { hold: true }] });
    assertEquals(await child.next(), { holding: true });
    assertEquals(registry.dropSegment("a"), false);
    child.go();
    succeeded(await child.next());
    assertEquals(new Uint8Array(registry.getNamedSegmentSync("a").buffer)[7], 3);
    assertEquals(registry.dropSegment("a"), true);
  }));

test("a segment of lifetime attached goes at the last detach, and not before", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const child = await scene.child("deno");
    const first = registry.getNamedSegmentSync("a", 8, (s) => new Uint8Array(s.buffer).fill(7), {
      lifetime: "attached",
    });
    succeeded(await child.ask({ do: "get", segment: "a" }));
    first.detach();
    assertEquals([...registry.segments()].map(({ backends }) => backends), [1]);
    succeeded(await child.ask({ do: "detach", segment: "a" }));
    assertEquals([...registry.segments()], []);
    assertEquals(scene.files(), ["dsmr.r.test"]);
    assertFails(() => registry.getNamedSegmentSync("a"), "NOT_FOUND", "a");
    assertEquals(new Uint8Array(registry.getNamedSegmentSync("a", 8).buffer)[0], 0);
  }));

for (const runtime of runtimes) {
  test(`a segment of lifetime attached goes when its last ${runtime} backend closes`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const child = await scene.child(runtime);
      succeeded(await child.ask({ do: "get", segment: "a", size: 8, lifetime: "attached" }));
      succeeded(await child.ask({ do: "close" }));
      assertEquals([...registry.segments()], []);
      assertEquals(scene.files(), ["dsmr.r.test"]);
    }));
}

test("using detaches at the end of the block", () =>
  inScene((scene) => {
    const registry = scene.open();
    let view: Uint8Array;
    {
      using segment = registry.getNamedSegmentSync("a", 8);
      view = new Uint8Array(segment.buffer);
      assertEquals(view.length, 8);
    }
    assertEquals(view.length, 0);
    assertEquals([...registry.segments()].map(({ backends }) => backends), [0]);
  }));

test("asking again after the buffer was transferred away gives a new object with the bytes", () =>
  inScene((scene) => {
    const registry = scene.open();
    const ask = [
      () => registry.getNamedSegmentSync("a", 8),
      () => registry.getNamedSegmentSync("a"),
      () => registry.lookupSegment("a"),
    ];
    let segment = registry.getNamedSegmentSync("a", 8, (s) => new Uint8Array(s.buffer).fill(4));
    for (const again of ask) {
      const taken = segment.buffer.transfer();
      const next = again();
      assert(next !== null && next !== segment);
      assertEquals([next.found, next.size, new Uint8Array(next.buffer)[7]], [true, 8, 4]);
      assertFails(() => segment.buffer, "DETACHED", '"a"');
      // Whoever has it reads nothing, but does not crash.
      assertEquals(new Uint8Array(taken)[7], 0);
      assertEquals([...registry.segments()].map(({ backends }) => backends), [1]);
      segment = next;
    }
  }));

/* Negative tests. */

test("after detach() the buffer getter throws DETACHED and every view is empty", () =>
  inScene((scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("gone", 64);
    const { buffer } = segment;
    const bytes = new Uint8Array(buffer);
    const words = new Int32Array(buffer, 8, 2);
    const view = new DataView(buffer);
    segment.detach();
    segment.detach();
    assertFails(() => segment.buffer, "DETACHED", '"gone"');
    assert(buffer.detached);
    assertEquals([buffer.byteLength, bytes.length, words.length, bytes[0]], [0, 0, 0, undefined]);
    assertThrows(() => view.getInt8(0), TypeError);
    assertThrows(() => new Uint8Array(buffer), TypeError);
    assertEquals(segment.size, 64);
    const again = registry.getNamedSegmentSync("gone", 64);
    assert(again !== segment && again.found);
  }));

test("another size for a name that is there is SIZE_MISMATCH with both sizes", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const child = await scene.child("bun");
    succeeded(await child.ask({ do: "get", segment: "sized", size: 100 }));
    const refuse = () => registry.getNamedSegmentSync("sized", 101);
    const error = assertFails(refuse, "SIZE_MISMATCH", '"sized"', 100, 101);
    assertEquals([error.actual, error.requested], [100, 101]);
    // Also when it is attached already.
    const segment = registry.getNamedSegmentSync("sized", 100);
    assertFails(refuse, "SIZE_MISMATCH", '"sized"', 100, 101);
    assertStrictEquals(registry.getNamedSegmentSync("sized", 100), segment);
  }));

test("a name without a size is NOT_FOUND when it is not there, and init does not run", () =>
  inScene((scene) => {
    const registry = scene.open();
    let calls = 0;
    assertFails(
      () => registry.getNamedSegmentSync("a", undefined, () => calls++),
      "NOT_FOUND",
      "a",
    );
    assertEquals(calls, 0);
    assertEquals([...registry.segments()], []);
  }));
