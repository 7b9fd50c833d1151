/** Typed views of segments: locks, waiting, detaching, and other processes. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import {
  array,
  atomicI32,
  atomicI64,
  atomicU32,
  bool,
  f64,
  LWLock,
  lwlock,
  struct,
  text,
  u32,
  u64,
  u8,
} from "../lib/mod.ts";
import { assertFails, inScene, succeeded } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

test("a lock field is as large, and aligned, as the library's lock", () =>
  inScene((scene) => {
    const registry = scene.open();
    const tranche = registry.newTranche("t");
    const { size, align } = lwlock;
    const segment = registry.getNamedSegmentSync("a", size);
    segment.initLock(0, tranche);
    const small = registry.getNamedSegmentSync("b", size - 1);
    assertFails(() => small.initLock(0, tranche), "SIZE_INVALID");
    const large = registry.getNamedSegmentSync("c", align * 2 + size);
    large.initLock(align, tranche);
    assertFails(() => large.initLock(align / 2, tranche), "SIZE_INVALID");
  }));

test("locks are made in the init callback, everywhere in the struct, and work", () =>
  inScene((scene) => {
    const registry = scene.open();
    const bucket = struct({ lock: lwlock, count: u32 });
    const layout = struct({
      lock: lwlock,
      one: bucket,
      all: array(bucket, 3),
      l: array(lwlock, 2),
    });
    const segment = registry.getNamedSegmentSync("a", 128 + layout.size, (fresh) => {
      const view = layout.view(fresh, 128);
      assertFails(() => view.all.at(1).lock, "CORRUPT");
      const tranche = registry.newTranche("buckets");
      layout.init(fresh, { tranche, byteOffset: 128 }).all.at(1).count = 5;
      assertEquals(view.all.at(1).count, 5);
    });
    const view = layout.view({ segment, byteOffset: 128 });
    const locks = [
      view.lock,
      view.one.lock,
      ...[...view.all].map(({ lock }) => lock),
      ...view.l,
    ];
    assertEquals(new Set(locks).size, 7);
    for (const lock of locks) {
      assert(lock instanceof LWLock);
      lock.acquireSync("exclusive");
    }
    const { offsets } = layout;
    const places = [...registry.backends()].flatMap(({ held }) => held)
      .map(({ tranche, byteOffset }) => `${tranche} ${byteOffset}`).sort();
    const expected = [
      offsets.lock,
      offsets.one,
      ...[0, 1, 2].map((i) => offsets.all + i * bucket.size),
      ...[0, 1].map((i) => offsets.l + i * 64),
    ].map((offset) => `buckets ${offset + 128}`).sort();
    assertEquals(places, expected);
    assertEquals(registry.releaseAll(), 7);
    const { buffer } = segment;
    const bare = layout.view({ buffer, byteOffset: 128 });
    assertFails(() => bare.lock, "UNSUPPORTED", "needs a segment");
    const tranche = registry.newTranche("other");
    assertFails(() => layout.init({ buffer }, { tranche }), "UNSUPPORTED", "needs a segment");
    assertFails(() => layout.init(segment, { tranche, byteOffset: 192 }), "SIZE_INVALID");
    type Loose = Parameters<typeof layout.init>[1];
    for (const options of [undefined, null, {}, { tranche: "buckets" }]) {
      assertThrows(() => layout.init(segment, options as unknown as Loose), TypeError);
    }
  }));

test("a struct may have more locks than a process can use at a time", () =>
  inScene((scene) => {
    const registry = scene.open();
    const count = 66_000;
    const layout = struct({ buckets: array(struct({ lock: lwlock }), count) });
    const segment = registry.getNamedSegmentSync("a", layout.size, (fresh) => {
      layout.init(fresh, { tranche: registry.newTranche("buckets") });
    });
    const { buckets } = layout.view(segment);
    for (const index of [0, count - 1]) {
      buckets.at(index).lock.withSync("exclusive", () => {
        assert(buckets.at(index).lock.heldByMe("exclusive"));
      });
    }
    assertThrows(() => buckets.at(count), RangeError);
  }));

test("after a detach nothing reads or writes: errors, and empty typed arrays", () =>
  inScene((scene) => {
    const registry = scene.open();
    const layout = struct({
      a: u32,
      b: f64,
      c: u64,
      d: bool,
      e: text(8),
      f: atomicU32,
      g: atomicI64,
      h: lwlock,
      i: struct({ x: u8 }),
      j: array(u32, 2),
      k: array(struct({ x: u8 }), 2),
      l: array(text(4), 2),
    });
    const segment = registry.getNamedSegmentSync("a", layout.size, (fresh) => {
      layout.init(fresh, { tranche: registry.newTranche("t") });
    });
    const view = layout.view(segment);
    view.k.at(0).x = 1;
    view.l.set(0, "a");
    const { h } = view;
    segment.detach();
    const reads: (() => unknown)[] = [
      () => view.a,
      () => view.b,
      () => view.c,
      () => view.d,
      () => view.e,
      () => view.f.load(),
      () => view.g.load(),
      () => view.i.x,
      () => view.k.at(0).x,
      () => view.k.at(1).x,
      () => view.l.at(0),
      () => view.a = 1,
      () => view.b = 1,
      () => view.c = 1n,
      () => view.d = true,
      () => view.e = "",
      () => view.f.add(1),
      () => view.g.exchange(1n),
      () => view.i.x = 1,
      () => view.l.set(0, ""),
    ];
    for (const read of reads) assertThrows(read, TypeError);
    assertFails(() => view.h, "DETACHED");
    assertFails(() => h.acquireSync(), "DETACHED");
    assertFails(() => view.f.notify(), "DETACHED");
    assertFails(() => layout.view(segment), "DETACHED");
    assertEquals([view.j.length, view.j[0]], [0, undefined]);
  }));

test("waiting for an atomic: told, timed out, and what it is already", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const layout = struct({ a: u64, flag: atomicI32 });
    const segment = registry.getNamedSegmentSync("a", 64 + layout.size);
    const { flag } = layout.view(segment, 64);
    assertEquals(flag.waitSync(1), "not-equal");
    assertEquals(flag.waitSync(0, { timeout: 1 }), "timed-out");
    const waiting = flag.wait(0);
    flag.store(-1);
    assertEquals(flag.notify(), 1);
    assertEquals(await waiting, "ok");
    assertEquals(await flag.wait(0), "not-equal");
  }));

for (const runtime of runtimes) {
  test(`a ${runtime} and a ${otherThan(runtime)} process count with one atomic field`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const layout = struct({ label: text(6), hits: atomicU32 });
      assertEquals(layout.offsets.hits, 8);
      const segment = registry.getNamedSegmentSync("a", layout.size);
      const { hits } = layout.view(segment);
      const children = await Promise.all(
        [runtime, otherThan(runtime)].map((name) => scene.child(name)),
      );
      for (const child of children) {
        succeeded(await child.ask({ do: "get", segment: "a", size: layout.size }));
      }
      for (let i = 0; i < 20; i++) {
        for (const child of children) child.send({ do: "add", segment: "a", index: 2, value: 1 });
        hits.add(1);
      }
      for (const child of [...children, ...children]) {
        for (let i = 0; i < 10; i++) succeeded(await child.next());
      }
      assertEquals(hits.load(), 60);
    }));
}
