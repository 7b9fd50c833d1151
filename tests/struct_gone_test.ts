/**
 * Typed views whose memory is gone: every kind of field throws, read and stored, however the memory
 * went. Typed arrays alone would lose the store without a word.
 *
 * All of it twice: with views of generated source, and in a program that forbids to generate any.
 */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import {
  array,
  atomicI32,
  atomicI64,
  atomicU32,
  atomicU64,
  bool,
  bytes,
  DsmrError,
  f32,
  f64,
  i16,
  i32,
  i64,
  i8,
  lwlock,
  Registry,
  type Segment,
  struct,
  text,
  u16,
  u32,
  u64,
  u8,
} from "../lib/mod.ts";
import { assertFails, inScene, type Scene } from "./_scene.ts";

const numbers = { i8, u8, i16, u16, i32, u32, f32, f64 };
const values = { ...numbers, i64, u64, bool, text: text(8), long: text(100) };
type Values = typeof values;
const stored: { [N in keyof Values]: unknown } = {
  i8: 1,
  u8: 1,
  i16: 1,
  u16: 1,
  i32: 1,
  u32: 1,
  f32: 1,
  f64: 1,
  i64: 1n,
  u64: 1n,
  bool: true,
  text: "a",
  long: "é",
};
const names = Object.keys(values) as (keyof Values)[];

/** A layout of its own each time: classes of views are made with the first view. */
function layoutOf() {
  const row = struct(values);
  return struct({
    ...values,
    a: atomicI32,
    b: atomicU32,
    c: atomicI64,
    d: atomicU64,
    lock: lwlock,
    raw: bytes(3),
    inner: row,
    rows: array(row, 3),
    kept: array(struct({ ...values, hits: atomicU32 }), 3),
    texts: array(text(4), 2),
    words: array(u32, 2),
  });
}

/** Runs it with generated views, and with those of a program that forbids them. */
function inBothWays(name: string, run: (scene: Scene) => void): void {
  test(name, () => inScene(run));
  test(`${name}; without generated code`, () =>
    inScene((scene) => {
      const { Function: original } = globalThis;
      let refused = 0;
      const forbidden = function (): never {
        refused++;
        throw new EvalError("Code generation from strings disallowed for this context");
      };
      globalThis.Function = forbidden as unknown as FunctionConstructor;
      try {
        run(scene);
      } finally {
        globalThis.Function = original;
      }
      assert(refused > 0, "nothing was to be generated");
    }));
}

/** Views of a segment, with some elements kept, and what takes the memory away. */
function* scenes(
  scene: Scene,
): Iterable<{ view: ReturnType<typeof viewOf>; how: string; go: () => void }> {
  const ways: [string, (segment: Segment, registry: Registry) => void][] = [
    ["detach", (segment) => segment.detach()],
    ["close", (_segment, registry) => registry.close()],
    ["transfer", (segment) => void segment.buffer.transfer()],
    ["drop and detach", (segment, registry) => {
      registry.dropSegment(segment.name);
      segment.detach();
    }],
  ];
  for (const [how, go] of ways) {
    const registry = scene.open();
    const layout = layoutOf();
    const segment = registry.getNamedSegmentSync(how, layout.size, (fresh) => {
      layout.init(fresh, { tranche: registry.newTranche(how) });
    });
    yield { view: viewOf(layout, segment), how, go: () => go(segment, registry) };
    // The last object of the registry that is closed closes it.
    registry.close();
  }
}

function viewOf(layout: ReturnType<typeof layoutOf>, segment: Segment) {
  const view = layout.view(segment);
  // So that engines and arrays have seen them: what is gone later must not depend on that.
  view.kept.at(0).u8 = 1;
  view.rows.at(0).u8 = 1;
  return { view, row: view.rows.at(1) };
}

inBothWays(
  "every kind of field reads and stores, and then throws, whatever took the memory",
  (scene) => {
    for (const { view: { view, row }, how, go } of scenes(scene)) {
      const targets: [string, Record<string, unknown>][] = [
        ["view", view],
        ["inner", view.inner],
        ["a row that was held", row],
      ];
      const later: [string, () => Record<string, unknown>][] = [
        ["rows", () => view.rows.at(0)],
        ["the last row", () => view.rows.at(2)],
        ["kept", () => view.kept.at(0)],
      ];
      for (const [, target] of [...targets, ...later.map(([n, get]) => [n, get()] as const)]) {
        for (const name of names) {
          target[name] = stored[name];
          assertEquals(target[name], stored[name], name);
        }
      }
      go();
      for (const [what, target] of [...targets, ...later.map(([n, get]) => [n, get()] as const)]) {
        for (const name of names) {
          const where = `${how}: ${what}.${name}`;
          assertThrows(() => target[name], TypeError, "", where);
          assertThrows(() => target[name] = stored[name], TypeError, "", where);
        }
      }
      for (const get of [() => view.kept.at(1), () => view.kept.at(1).u8]) {
        assertThrows(get, TypeError, "", `${how}: an element never made`);
      }
      for (const cell of [view.a, view.b, view.c, view.d]) {
        const one = cell === view.c || cell === view.d ? 1n : 1;
        for (const name of ["load", "store", "add", "sub", "and", "or", "xor", "exchange"]) {
          const call = Reflect.get(cell, name) as (value: unknown) => unknown;
          assertThrows(() => call.call(cell, one), TypeError, "", `${how}: ${name}`);
        }
        const { compareExchange } = cell as { compareExchange(a: unknown, b: unknown): unknown };
        assertThrows(() => compareExchange.call(cell, one, one), TypeError);
      }
      assertThrows(() => view.texts.at(0), TypeError);
      assertThrows(() => view.texts.set(0, "a"), TypeError);
      assertEquals([view.words.length, view.raw.length], [0, 0]);
      // The lock is in the library, not in the buffer; of a transferred segment it still works.
      if (how !== "transfer") assertThrows(() => view.lock, DsmrError);
    }
  },
);

inBothWays(
  "a value that takes the memory away while it is stored is not lost silently",
  (scene) => {
    for (const name of names) {
      if (name === "bool" || name === "text" || name === "long") continue;
      for (const  of of["view", "row"] as const) {
        const registry = scene.open();
        const layout = layoutOf();
        const segment = registry.getNamedSegmentSync(`${name} ${of}`, layout.size);
        const view = layout.view(segment);
        const target: Record<string, unknown> = of === "view" ? view : view.rows.at(1);
        const value = {
          valueOf(): unknown {
            segment.detach();
            return stored[name];
          },
        };
        assertThrows(() => target[name] = value, TypeError, "detached", `${of}.${name}`);
      }
    }
  },
);

inBothWays("a destroyed registry leaves a view what it has, until it is detached", (scene) => {
  const registry = scene.open();
  const layout = layoutOf();
  const segment = registry.getNamedSegmentSync("a", layout.size);
  const view = layout.view(segment);
  Registry.destroy("test", { dir: scene.dir });
  view.u32 = 7;
  assertEquals(view.u32, 7);
  segment.detach();
  assertThrows(() => view.u32 = 8, TypeError, "detached");
  assertThrows(() => view.u32, TypeError, "detached");
});

inBothWays("names of fields are names, whatever they say; and misspelt ones are refused", () => {
  const evil = ["constructor", "toString", "hasOwnProperty", "then", "View", "base", "memory"];
  evil.push("value", "index", "gone", "fields", "this", "class", "valueOf", "größe");
  const layout = struct(Object.fromEntries(evil.map((name) => [name, u32])));
  const list = struct({ rows: array(layout, 2) });
  const view = layout.view({ buffer: new ArrayBuffer(layout.size) });
  const { rows } = list.view({ buffer: new ArrayBuffer(list.size) });
  for (const target of [view, rows.at(1)]) {
    evil.forEach((name, i) => target[name] = i + 1);
    assertEquals(evil.map((name) => target[name]), evil.map((_, i) => i + 1));
    for (const name of ["valu", "__proto__", "0", "isPrototypeOf", 'x"]; throw 1; //']) {
      assertThrows(() => target[name] = 1, TypeError, "", name);
    }
    assertStrictEquals(Object.getOwnPropertyNames(target).length, 0);
  }
  const get = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(view), "value")?.get;
  assertThrows(() => get?.call({}), TypeError);
});

test("views over a part of a buffer, and arrays of records, keep to their own bytes", () => {
  const record = struct({ count: u32, total: f64, label: text(3), on: bool, big: i64 });
  const layout = struct({ before: u8, records: array(record, 3), after: u8 });
  const buffer = new ArrayBuffer(64 + layout.size + 64);
  const view = layout.view({ buffer }, 64);
  [...view.records].forEach((row, i) => {
    Object.assign(row, { count: i + 1, total: i / 2, label: `${i}`, on: i === 1, big: BigInt(-i) });
  });
  const data = new DataView(buffer);
  const isLittle = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  for (let i = 0; i < 3; i++) {
    const at = 64 + layout.offsets.records + i * record.size;
    const { offsets } = record;
    assertEquals(data.getUint32(at + offsets.count, isLittle), i + 1);
    assertEquals(data.getFloat64(at + offsets.total, isLittle), i / 2);
    assertEquals(data.getUint8(at + offsets.label), 48 + i);
    assertEquals(data.getUint8(at + offsets.on), i === 1 ? 1 : 0);
    assertEquals(data.getBigInt64(at + offsets.big, isLittle), BigInt(-i));
    assertEquals({ ...view.records.at(i) }, {});
  }
  assertEquals([view.before, view.after], [0, 0]);
  for (const index of [-1, 3, 0.5, NaN, Infinity, 2 ** 31, 2 ** 32 + 1]) {
    assertThrows(() => view.records.at(index), RangeError, "elements 0 to 2");
  }
  for (const index of ["1", "1x", null, undefined, {}, 1n]) {
    assertThrows(() => view.records.at(index as unknown as number), TypeError);
  }
  assertFails(() => view.records.at(1).label = "long", "SIZE_INVALID", "label");
});
