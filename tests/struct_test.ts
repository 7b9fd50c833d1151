/** Typed views: where fields lie, what they read and take, and what is refused. */

import { assert, assertEquals, assertMatch, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import { inspect } from "node:util";
import {
  array,
  atomicI32,
  atomicI64,
  AtomicNumber,
  atomicU32,
  atomicU64,
  bool,
  bytes,
  f32,
  f64,
  type FieldArray,
  i16,
  i32,
  i64,
  i8,
  LWLock,
  lwlock,
  struct,
  text,
  type TextArray,
  u16,
  u32,
  u64,
  u8,
  type View,
} from "../lib/mod.ts";
import { assertFails } from "./_scene.ts";

/** A buffer of a struct's own. */
function over<S extends { size: number }>(layout: S): { buffer: ArrayBuffer } {
  return { buffer: new ArrayBuffer(layout.size) };
}

/** Exactly the same type, not merely one that fits. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true
  : false;
const isTrue = <_T extends true>(): void => {};

test("fields lie where a C compiler puts them", () => {
  // The numbers are what offsetof and sizeof gave, from clang on x86-64 and C17.
  const a = struct({
    a: u8,
    b: u16,
    c: u8,
    d: u32,
    e: u8,
    f: f64,
    g: bool,
    h: f32,
    i: i64,
    j: text(5),
    k: i16,
  });
  assertEquals([a.size, a.align], [48, 8]);
  assertEquals(a.offsets, {
    a: 0,
    b: 2,
    c: 4,
    d: 8,
    e: 12,
    f: 16,
    g: 24,
    h: 28,
    i: 32,
    j: 40,
    k: 46,
  });
  const inner = struct({ x: u8, y: f64, z: u8 });
  const b = struct({ a: u8, n: inner, b: array(u16, 3), m: array(inner, 2), c: u8 });
  assertEquals([b.size, b.align], [96, 8]);
  assertEquals(b.offsets, { a: 0, n: 8, b: 32, m: 40, c: 88 });
  const c = struct({
    a: u8,
    l: lwlock,
    b: u32,
    s: array(struct({ k: u32, l: lwlock }), 2),
    t: u8,
  });
  assertEquals([c.size, c.align], [512, 64]);
  assertEquals(c.offsets, { a: 0, l: 64, b: 128, s: 192, t: 448 });
});

test("every scalar reads back its extremes, and lies in its own bytes alone", () => {
  const layout = struct({
    i8,
    u8,
    i16,
    u16,
    i32,
    u32,
    f32,
    f64,
    i64,
    u64,
    bool,
    end: u8,
  });
  const target = over(layout);
  const view = layout.view(target);
  const all = new Uint8Array(target.buffer);
  const extremes: [keyof typeof layout.fields, unknown, string][] = [
    ["i8", -128, "80"],
    ["i8", 127, "7f"],
    ["u8", 255, "ff"],
    ["i16", -32768, "0080"],
    ["u16", 65535, "ffff"],
    ["i32", -(2 ** 31), "00000080"],
    ["u32", 2 ** 32 - 1, "ffffffff"],
    ["f32", 1.5, "0000c03f"],
    ["f32", -Infinity, "000080ff"],
    ["f64", Number.MAX_VALUE, "ffffffffffffef7f"],
    ["i64", -(2n ** 63n), "0000000000000080"],
    ["u64", 2n ** 64n - 1n, "ffffffffffffffff"],
    ["bool", true, "01"],
  ];
  const isLittle = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  for (const [name, value, hex] of extremes) {
    all.fill(0);
    Object.assign(view, { [name]: value });
    assertEquals(view[name] as unknown, value, name);
    const begin = layout.offsets[name];
    const own = all.slice(begin, begin + layout.fields[name].size);
    if (!isLittle) own.reverse();
    assertEquals(hexOf(own), hex, name);
    own.fill(0);
    all.set(own, begin);
    assert(all.every((byte) => byte === 0), `${name} has changed its neighbours`);
  }
  view.f64 = NaN;
  assert(Number.isNaN(view.f64));
  all[layout.offsets.bool] = 7;
  assertEquals(view.bool, true);
  view.bool = false;
  assertEquals(all[layout.offsets.bool], 0);
});

function hexOf(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

test("numbers are stored as typed arrays store them; bigints and numbers are not mixed", () => {
  const layout = struct({ u8, u32, i16, i64, f64 });
  const view = layout.view(over(layout));
  const typed = { u8: new Uint8Array(1), u32: new Uint32Array(1), i16: new Int16Array(1) };
  for (const name of ["u8", "u32", "i16"] as const) {
    for (const value of [1.5, -1, 2 ** 32, 2 ** 32 + 3, -40000, NaN, Infinity, 1e300]) {
      view[name] = value;
      typed[name][0] = value;
      assertEquals(view[name], typed[name][0], `${name} = ${value}`);
    }
  }
  view.i64 = 2n ** 64n + 5n;
  assertEquals(view.i64, 5n);
  const loose = view as unknown as Record<string, unknown>;
  assertThrows(() => loose.i64 = 7, TypeError);
  assertThrows(() => loose.u32 = 7n, TypeError);
  assertThrows(() => loose.f64 = Symbol("no"), TypeError);
  assertEquals([view.i64, view.f64], [5n, 0]);
});

test("atomics do what Atomics does", () => {
  const layout = struct({ a: atomicI32, b: atomicU32, c: atomicI64, d: atomicU64 });
  const view = layout.view(over(layout));
  for (const cell of [view.a, view.b]) {
    const isSigned = cell === view.a;
    cell.store(5);
    assertEquals([cell.add(3), cell.sub(10), cell.load()], [5, 8, isSigned ? -2 : 2 ** 32 - 2]);
    assertEquals(cell.exchange(12), isSigned ? -2 : 2 ** 32 - 2);
    assertEquals([cell.and(10), cell.or(1), cell.xor(3), cell.load()], [12, 8, 9, 10]);
    assertEquals([cell.compareExchange(9, 1), cell.load()], [10, 10]);
    assertEquals([cell.compareExchange(10, 1), cell.load()], [10, 1]);
  }
  for (const cell of [view.c, view.d]) {
    const isSigned = cell === view.c;
    cell.store(5n);
    const below = isSigned ? -2n : 2n ** 64n - 2n;
    assertEquals([cell.add(3n), cell.sub(10n), cell.load()], [5n, 8n, below]);
    assertEquals(cell.exchange(12n), below);
    assertEquals([cell.and(10n), cell.or(1n), cell.xor(3n), cell.load()], [12n, 8n, 9n, 10n]);
    assertEquals([cell.compareExchange(9n, 1n), cell.load()], [10n, 10n]);
    assertEquals([cell.compareExchange(10n, 1n), cell.load()], [10n, 1n]);
  }
  assertFails(() => view.a.notify(), "UNSUPPORTED", "needs a segment");
  assertFails(() => view.a.waitSync(0), "UNSUPPORTED", "needs a segment");
});

test("texts are UTF-8 with NULs behind them, whole or not at all", () => {
  const layout = struct({ before: u8, label: text(8), after: u8 });
  const target = over(layout);
  const view = layout.view(target);
  const own = new Uint8Array(target.buffer, layout.offsets.label, 8);
  for (const value of ["", "a", "12345678", "héß", "€€", "😀😀", "\ufeffab", "z"]) {
    own.fill(0xee);
    view.label = value;
    assertEquals(view.label, value);
    const encoded = new TextEncoder().encode(value);
    assertEquals([...own], [...encoded, ...new Array(8 - encoded.length).fill(0)], value);
  }
  view.label = "kept";
  // One byte too long, in each number of bytes a character has.
  for (const [value, length] of [["123456789", 9], ["1234567ß", 9], ["€€€", 9], ["😀😀a", 9]]) {
    const error = assertFails(() => view.label = String(value), "SIZE_INVALID", '"label"', "8", 9);
    assertEquals([error.actual, error.requested], [8, Number(length)]);
  }
  assertThrows(() => view.label = "a\0b", RangeError, "NUL");
  assertThrows(() => view.label = "\ud83d", RangeError, "surrogate");
  const loose = view as unknown as Record<string, unknown>;
  for (const value of [1, null, undefined, {}, ["a"]]) {
    assertThrows(() => loose.label = value, TypeError, '"label"');
  }
  assertEquals([view.label, view.before, view.after], ["kept", 0, 0]);
  // What another program may have put there.
  own.set([0x61, 0xff, 0xc3, 0, 0x62]);
  assertEquals(view.label, "a\ufffd\ufffd");
  own.fill(0xf0);
  assertEquals(view.label, "\ufffd".repeat(8));
});

test("texts of every length around the ways of reading and writing them read back", () => {
  const layout = struct({ label: text(200) });
  const view = layout.view(over(layout));
  for (let length = 0; length <= 200; length++) {
    for (const value of ["x".repeat(length), "y".repeat(Math.max(length - 2, 0)) + "é"]) {
      if (new TextEncoder().encode(value).length > 200) continue;
      view.label = value;
      assertStrictEquals(view.label, value);
    }
  }
});

test("arrays of numbers are typed arrays over the memory, bytes are a Uint8Array", () => {
  const layout = struct({
    a: array(u16, 3),
    b: array(f64, 2),
    c: array(u64, 2),
    d: array(bool, 2),
    e: bytes(5),
    f: array(array(i8, 2), 3),
  });
  const target = over(layout);
  const view = layout.view(target);
  assert(view.a instanceof Uint16Array && view.b instanceof Float64Array);
  assert(view.c instanceof BigUint64Array && view.d instanceof Uint8Array);
  assertEquals([view.a.length, view.b.length, view.c.length, view.e.length], [3, 2, 2, 5]);
  for (const name of ["a", "b", "c", "d", "e"] as const) {
    assertStrictEquals(view[name].buffer, target.buffer);
    assertEquals(view[name].byteOffset, layout.offsets[name], name);
  }
  view.f.at(2)[1] = -7;
  assertEquals(new Int8Array(target.buffer)[layout.offsets.f + 5], -7);
});

test("arrays of structs, atomics and texts are indexed, with bounds", () => {
  const point = struct({ x: f32, name: text(4) });
  const layout = struct({
    points: array(point, 3),
    counts: array(atomicU32, 2),
    names: array(text(4), 2),
    end: u8,
  });
  const target = over(layout);
  const view = layout.view(target);
  view.points.at(2).x = 1.5;
  assertEquals(new Float32Array(target.buffer)[4], 1.5);
  // Of numbers and texts alone a view is made each time; all else is kept.
  const [one, other] = [view.points.at(2), view.points.at(2)];
  one.x = 2.5;
  assertEquals(other.x, 2.5);
  other.x = 1.5;
  assertStrictEquals(view.counts.at(1), view.counts.at(1));
  assertEquals([...view.points].map(({ x }) => x), [0, 0, 1.5]);
  view.counts.at(1).add(3);
  assertEquals([...view.counts].map((cell) => cell.load()), [0, 3]);
  view.names.set(0, "abcd");
  view.names.set(1, "ef");
  assertEquals([...view.names], ["abcd", "ef"]);
  assertEquals([view.points.length, view.counts.length, view.names.length], [3, 2, 2]);
  for (const index of [-1, 3, 1.5, NaN, Infinity, 2 ** 32]) {
    assertThrows(() => view.points.at(index), RangeError, '"points" has elements 0 to 2');
    assertThrows(() => view.names.at(index), RangeError, '"names"');
    assertThrows(() => view.names.set(index, "a"), RangeError, '"names"');
  }
  assertThrows(() => view.points.at("1x" as unknown as number), TypeError);
  assertFails(() => view.names.set(1, "fghij"), "SIZE_INVALID", '"names[1]"', 5, 4);
  assertFails(() => view.points.at(1).name = "fghij", "SIZE_INVALID", "name", 5, 4);
  assertEquals([...view.names, view.end], ["abcd", "ef", 0]);
  // Too many to keep.
  const many = struct({ points: array(point, 70_000) });
  const far = many.view(over(many));
  far.points.at(69_999).x = 2;
  assertEquals(far.points.at(69_999).x, 2);
  assertThrows(() => far.points.at(70_000), RangeError);
});

test("beyond 2 GiB fields, and elements of arrays, are where they should be", () => {
  // Nobody touches the pages between.
  const buffer = new ArrayBuffer(2 ** 31 + 4096);
  const data = new DataView(buffer);
  const isLittle = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  const layout = struct({ low: u32, pad: bytes(2 ** 31), high: u32, ratio: f64, label: text(4) });
  const view = layout.view({ buffer });
  Object.assign(view, { low: 1, high: 2, ratio: 0.5, label: "far" });
  const { offsets } = layout;
  assertEquals([view.low, view.high, view.ratio, view.label], [1, 2, 0.5, "far"]);
  assertEquals(data.getUint32(offsets.low, isLittle), 1);
  assertEquals(data.getUint32(offsets.high, isLittle), 2);
  assertEquals(data.getFloat64(offsets.ratio, isLittle), 0.5);
  assertEquals(data.getUint8(offsets.label), 0x66);
  // One of views that have memory of their own, for it ends beyond.
  const row = struct({ id: u32, big: i64, label: text(2 ** 30) });
  const large = struct({ rows: array(row, 2) });
  Object.assign(large.view({ buffer }).rows.at(1), { id: 3, big: -4n });
  assertEquals(data.getUint32(row.size, isLittle), 3);
  assertEquals(data.getBigInt64(row.size + row.offsets.big, isLittle), -4n);
  // And the largest of those that share it.
  const small = struct({ a: u32, b: f64 });
  const many = struct({ rows: array(small, 2 ** 27 - 1) });
  many.view({ buffer }).rows.at(2 ** 27 - 2).b = 2.5;
  assertEquals(data.getFloat64(16 * (2 ** 27 - 2) + 8, isLittle), 2.5);
});

test("nested structs are views, and no property is added or replaced", () => {
  const point = struct({ x: i32, y: i32 });
  const line = struct({ from: point, to: point, hits: atomicU32, byteLength: u8, buffer: u8 });
  const view = line.view(over(line));
  view.to.y = 4;
  view.byteLength = 9;
  assertEquals([view.from.x, view.to.y, view.byteLength, view.buffer], [0, 4, 9, 0]);
  const loose = view as unknown as Record<string, unknown>;
  for (const name of ["from", "hits", "new"]) {
    assertThrows(() => loose[name] = 5, TypeError);
  }
  assertEquals(loose.getUint8, undefined);
  assert(view.hits instanceof AtomicNumber);
});

test("a console shows the fields, whatever state they are in", () => {
  const layout = struct({
    a: u8,
    b: text(4),
    c: atomicU32,
    d: u64,
    e: struct({ x: f64 }),
    f: lwlock,
  });
  const target = over(layout);
  const view = layout.view(target);
  Object.assign(view, { a: 7, b: "abc", d: 5n });
  view.e.x = 1.5;
  view.c.store(9);
  assertEquals(
    inspect(view).replaceAll(/\s+/g, " "),
    '{ a: 7, b: "abc", c: 9, d: 5n, e: { x: 1.5 }, f: "lwlock" }'
      .replaceAll('"', inspect("")[0] ?? ""),
  );
  target.buffer.transfer();
  assertMatch(inspect(view), /detached/);
});

test("the compiler knows what each field is", () => {
  const inner = struct({ n: u8 });
  const layout = struct({
    a: u32,
    b: u64,
    c: text(4),
    d: bool,
    e: lwlock,
    f: inner,
    g: array(inner, 2),
    h: array(f64, 2),
    i: array(text(4), 2),
    j: atomicU32,
  });
  type V = View<typeof layout.fields>;
  isTrue<Same<V["a"], number>>();
  isTrue<Same<V["b"], bigint>>();
  isTrue<Same<V["c"], string>>();
  isTrue<Same<V["d"], boolean>>();
  isTrue<Same<V["e"], LWLock>>();
  isTrue<Same<V["f"]["n"], number>>();
  isTrue<Same<V["g"], FieldArray<View<typeof inner.fields>>>>();
  isTrue<Same<V["h"], Float64Array<ArrayBuffer>>>();
  isTrue<Same<V["i"], TextArray>>();
  isTrue<Same<V["j"], AtomicNumber>>();
  isTrue<Same<ReturnType<typeof layout.view>, V>>();
  const check = (view: V, other: V): void => {
    // @ts-expect-error: there is no such field.
    void view.z;
    // @ts-expect-error: it is a number.
    view.a = "1";
    // @ts-expect-error: it is a bigint.
    view.b = 1;
    // @ts-expect-error: it stays.
    view.j = other.j;
    // @ts-expect-error: it stays.
    view.f = other.f;
  };
  assertEquals(typeof check, "function");
});

test("what cannot be a struct is refused", () => {
  const fails = (call: () => unknown, type: typeof TypeError, message: string) =>
    assertThrows(call, type, message);
  type Loose = Parameters<typeof struct>[0];
  fails(() => struct(null as unknown as Loose), TypeError, "null");
  fails(() => struct("u32" as unknown as Loose), TypeError, "a string");
  fails(() => struct({ a: "u32" } as unknown as Loose), TypeError, '"a" is a string');
  fails(() => struct({ a: undefined } as unknown as Loose), TypeError, '"a" is undefined');
  fails(() => struct({ a: text } as unknown as Loose), TypeError, '"a" is a function');
  fails(() => struct({ a: u8, [Symbol("b")]: u8 } as unknown as Loose), TypeError, "symbol");
  assertFails(() => struct({}), "SIZE_INVALID", "no fields");
  for (const name of ["", "1", "a b", "a.b", "a\n", "a:", "["]) {
    assertFails(() => struct({ [name]: u8 }), "NAME_INVALID", JSON.stringify(name));
  }
  assertFails(() => struct({ ["__proto__"]: u8 }), "NAME_INVALID", "__proto__");
  // Here it is no field: the struct would be without it.
  assertFails(
    () => struct({ __proto__: u32, a: u8 } as unknown as Loose),
    "NAME_INVALID",
    "__proto__",
  );
  // Asked once: the second time they are others.
  let asked = 0;
  const fickle = struct({
    get a() {
      return asked++ === 0 ? u32 : u8;
    },
  } as { a: typeof u32 });
  assertEquals([asked, fickle.size, fickle.fields.a === u32], [1, 4, true]);
  // Each of them with a description of all below it would be megabytes of text, and bigints for each.
  let deep = struct({ a: u8 }) as unknown as typeof u8;
  for (let depth = 1; depth < 300; depth++) deep = struct({ a: deep }) as unknown as typeof u8;
  const lines = (deep as unknown as { description: string }).description.split("\n");
  assertEquals([lines.length, lines.at(-1)], [301, `${"a.".repeat(299)}a: u8 at 0`]);
  assertEquals(struct({ größe: u8, $: u8, _a1: u8, constructor: u8 }).size, 4);
  for (const make of [text, bytes, (count: number) => array(u32, count)]) {
    for (const size of [0, -1, 1.5, NaN, Infinity, 2 ** 41, 2 ** 53]) {
      assertFails(() => make(size), "SIZE_INVALID", String(size));
    }
    fails(() => make("8" as unknown as number), TypeError, "a string");
  }
  fails(() => array("u32" as unknown as typeof u32, 2), TypeError, "a string");
  const large = bytes(2 ** 40);
  assertFails(() => struct({ a: large, b: large }), "SIZE_INVALID", String(2 ** 41));
  assertFails(() => array(struct({ a: large }), 2), "SIZE_INVALID", "from 1 to 1");
});

test("a view is refused that does not fit, is misaligned, or is over nothing", () => {
  const layout = struct({ a: u32, b: f64 });
  const buffer = new ArrayBuffer(64);
  assertEquals(Object.keys(layout.view({ buffer }, 48)), []);
  const error = assertFails(() => layout.view({ buffer }, 56), "SIZE_INVALID", 16, 72, 64);
  assertEquals([error.actual, error.requested], [64, 72]);
  assertFails(() => layout.view({ buffer }, 4), "SIZE_INVALID", "multiple of 8");
  assertFails(() => layout.view({ buffer, byteOffset: 4 }), "SIZE_INVALID", "multiple of 8");
  assertFails(() => layout.view({ buffer, byteLength: 15 }), "SIZE_INVALID", 15);
  assertFails(() => layout.view(new Uint8Array(buffer, 8, 24), 16), "SIZE_INVALID", 32);
  for (const offset of [-8, 0.5, NaN, Infinity, 2 ** 53]) {
    assertFails(() => layout.view({ buffer }, offset), "SIZE_INVALID");
    assertFails(() => layout.view({ buffer, byteOffset: offset }), "SIZE_INVALID");
    assertFails(() => layout.view({ buffer, byteLength: -1 }), "SIZE_INVALID");
  }
  type Loose = Parameters<typeof layout.view>[0];
  for (const target of [null, undefined, 1, "a", {}, { buffer: 1 }, { segment: 1 }]) {
    assertThrows(() => layout.view(target as unknown as Loose), TypeError);
  }
  const shared = { buffer: new SharedArrayBuffer(64) };
  assertThrows(() => layout.view(shared as unknown as Loose), TypeError);
  const view = layout.view(new Uint8Array(buffer, 8, 24), 8);
  view.a = 7;
  assertEquals(new Uint32Array(buffer)[4], 7);
  buffer.transfer();
  assertFails(() => layout.view({ buffer }), "DETACHED");
});
