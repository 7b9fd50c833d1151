/** Layouts: their descriptions and hashes, what differs in words, and the store of them. */

import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { test } from "./_declare.ts";
import { Backend } from "../lib/backend.ts";
import { LAYOUTS_NAME, LAYOUTS_SIZE, recall, remember, rememberSync } from "../lib/layouts.ts";
import { hashOf } from "../lib/struct/layout.ts";
import {
  array,
  atomicU32,
  bytes,
  differences,
  f64,
  lwlock,
  struct,
  text,
  u32,
  u64,
  u8,
} from "../lib/mod.ts";
import { layoutOf, openOptions } from "./_layouts.ts";
import { inScene, type Scene } from "./_scene.ts";
import { Child, commandLine, type RuntimeName, runtimes } from "./_spawn.ts";

function open(scene: Scene, database = ""): Backend {
  const backend = Backend.open(scene.dir, "test", database, openOptions);
  scene.atEnd(() => backend.release());
  return backend;
}

test("a description has a line for each field, nested ones too", () => {
  const point = struct({ x: u8, y: f64 });
  const layout = struct({
    hits: atomicU32,
    label: text(5),
    at: point,
    path: array(point, 3),
    grid: array(array(point, 2), 2),
    raw: bytes(3),
    sums: array(u32, 4),
  });
  assertEquals(layout.description.split("\n"), [
    "(struct): 168 bytes, aligned to 8",
    "hits: atomicU32 at 0",
    "label: text(5) at 4",
    "at: struct(16) at 16",
    "at.x: u8 at 16",
    "at.y: f64 at 24",
    "path: array(struct(16), 3) at 32",
    "path[].x: u8 at 0",
    "path[].y: f64 at 8",
    "grid: array(array(struct(16), 2), 2) at 80",
    "grid[][].x: u8 at 0",
    "grid[][].y: f64 at 8",
    "raw: bytes(3) at 144",
    "sums: array(u32, 4) at 148",
  ]);
  assertEquals(layout.hash, hashOf(layout.description));
});

test("the hash is FNV-1a, 64 bits; each difference in a layout is one in the hash", () => {
  // The reference values of its authors.
  assertEquals(hashOf(""), 0xcbf29ce484222325n);
  assertEquals(hashOf("a"), 0xaf63dc4c8601ec8cn);
  assertEquals(hashOf("foobar"), 0x85944171f73967e8n);
  const a = struct({ a: u32, b: u64 });
  assertEquals(a.hash, struct({ a: u32, b: u64 }).hash);
  const others = [
    struct({ a: u32, c: u64 }),
    struct({ b: u64, a: u32 }),
    struct({ a: u32, b: f64 }),
    struct({ a: atomicU32, b: u64 }),
    struct({ a: u32, b: u64, c: u8 }),
    struct({ a: u32, b: bytes(8) }),
    struct({ a: u32, b: array(u64, 1) }),
    struct({ a: u32, b: struct({ c: u64 }) }),
    struct({ a: u32, b: struct({ d: u64 }) }),
  ];
  assertEquals(new Set([a, ...others].map(({ hash }) => hash)).size, others.length + 1);
});

test("differences are told field by field", () => {
  const mine = struct({ hits: u32, total: f64, lock: lwlock });
  const theirs = struct({ hits: u64, total: f64, label: text(4) });
  assertEquals(
    differences(mine.description, theirs.description),
    'field "hits" is u32 at 0 here, u64 at 0 there; field "lock" is only here; ' +
      'field "label" is only there',
  );
  assertEquals(differences(mine.description, mine.description), "");
  const moved = struct({ a: u8, b: u8, in: array(struct({ x: u8 }), 2) });
  const other = struct({ b: u8, a: u8, in: array(struct({ x: f64 }), 3) });
  assertEquals(
    differences(moved.description, other.description),
    'field "a" is u8 at 0 here, u8 at 1 there; field "b" is u8 at 1 here, u8 at 0 there; ' +
      'field "in" is array(struct(1), 2) at 2 here, array(struct(8), 3) at 8 there; ' +
      'field "in[].x" is u8 at 0 here, f64 at 0 there',
  );
  const many = struct(Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`f${i}`, u8])));
  assertMatch(differences(mine.description, many.description), /; 25 more differ$/);
  // Whatever else may stand there.
  assertEquals(
    differences("(struct): 8 bytes, aligned to 8\na: u64 at 0", "(struct): 9 bytes\na: u64 at 0"),
    "the whole is 8 bytes, aligned to 8 here, 9 bytes there",
  );
  assertMatch(differences(mine.description, "\0\n: \nno line"), /^field "hits" is only here;/);
});

test("what is remembered is recalled, by every backend, once in the memory", () =>
  inScene(async (scene) => {
    const first = open(scene);
    const second = open(scene, "other");
    const [a, b, c] = [layoutOf(1), layoutOf(2), layoutOf(3)];
    // Looking makes nothing.
    assertEquals(recall(first, a.hash), undefined);
    assertEquals(first.lookup(LAYOUTS_NAME), null);
    assertEquals([rememberSync(first, a), await remember(second, b)], [true, true]);
    const used = new Int32Array(first.ownSegmentSync(LAYOUTS_NAME, LAYOUTS_SIZE).buffer);
    const before = used[0] ?? 0;
    assert(before > 0);
    assertEquals([rememberSync(second, a), await remember(first, b)], [true, true]);
    assertEquals(used[0], before);
    for (const backend of [first, second]) {
      assertEquals(recall(backend, a.hash), a.description);
      assertEquals(recall(backend, b.hash), b.description);
      assertEquals(recall(backend, c.hash), undefined);
    }
  }));

test("when the store is full a description is not kept, and the others are still there", () =>
  inScene((scene) => {
    const backend = open(scene);
    let kept = 0;
    while (rememberSync(backend, layoutOf(kept))) kept++;
    assert(kept > 500, `only ${kept}`);
    for (let i = 0; i < kept; i++) {
      const { hash, description } = layoutOf(i);
      assertEquals(recall(backend, hash), description);
    }
    assertEquals(recall(backend, layoutOf(kept).hash), undefined);
    assertEquals(rememberSync(backend, layoutOf(0)), true);
    const long = layoutOf(1, "x".repeat(10_000));
    assertEquals(rememberSync(open(scene, "other"), long), false);
  }));

test("of a description that is too long its first lines are kept, and only as they were", () =>
  inScene((scene) => {
    const backend = open(scene);
    const fields = Array.from({ length: 1000 }, (_, i): [string, typeof u8] => [`größe${i}`, u8]);
    const layout = struct(Object.fromEntries(fields));
    assert(layout.description.length > 8192);
    assertEquals(rememberSync(backend, layout), true);
    const kept = recall(backend, layout.hash);
    assert(kept !== undefined);
    const lines = kept.split("\n");
    assert(lines.length > 20 && kept.length < 2200, kept);
    assert(layout.description.startsWith(`${lines.slice(0, -1).join("\n")}\n`));
    assertMatch(
      differences(layout.description, kept),
      new RegExp(
        `^there are 1000 fields here, 1000 there, of which ${lines.length - 2} are known$`,
      ),
    );
    const { buffer } = backend.ownSegmentSync(LAYOUTS_NAME, LAYOUTS_SIZE);
    const all = new Uint8Array(buffer);
    const used = new Int32Array(buffer)[0] ?? 0;
    for (let at = 8; at < 8 + used; at += 7) {
      const good = all[at] ?? 0;
      for (const value of [0, good ^ 1]) {
        all[at] = value;
        const found = recall(backend, layout.hash);
        assert(found === undefined || found === kept, `byte ${at} is ${value}: ${found}`);
      }
      all[at] = good;
    }
    assertEquals(recall(backend, layout.hash), kept);
  }));

test("a registry without room for the segment: not kept, and no error", () =>
  inScene(async (scene) => {
    const options = { ...openOptions, maxSegments: 1 };
    const backend = Backend.open(scene.dir, "test", "", options);
    scene.atEnd(() => backend.release());
    const capacity = 64;
    let made = 0;
    while (made < capacity) {
      try {
        backend.ownSegmentSync(`s${made}`, 8);
        made++;
      } catch {
        break;
      }
    }
    assert(made > 0 && made < capacity, `${made} segments, where one was asked for`);
    assertEquals([rememberSync(backend, layoutOf(1)), await remember(backend, layoutOf(1))], [
      false,
      false,
    ]);
    assertEquals(recall(backend, layoutOf(1).hash), undefined);
  }));

test("while somebody stopped has the lock: not kept, in time, and recalled all the same", () =>
  inScene(async (scene) => {
    const backend = open(scene);
    const other = open(scene, "other");
    assertEquals(rememberSync(backend, layoutOf(1)), true);
    const { lock } = other.ownSegmentSync(LAYOUTS_NAME, LAYOUTS_SIZE);
    lock.acquireSync("exclusive");
    assertEquals([rememberSync(backend, layoutOf(2)), await remember(backend, layoutOf(2))], [
      false,
      false,
    ]);
    assertEquals(rememberSync(backend, layoutOf(1)), true);
    assertEquals(recall(backend, layoutOf(1).hash), layoutOf(1).description);
    lock.release();
    assertEquals(rememberSync(backend, layoutOf(2)), true);
  }));

test("damaged content is ignored, whatever it is", () =>
  inScene((scene) => {
    const backend = open(scene);
    const layouts = [layoutOf(1), layoutOf(2), layoutOf(3)];
    for (const layout of layouts) assertEquals(rememberSync(backend, layout), true);
    const { buffer } = backend.ownSegmentSync(LAYOUTS_NAME, LAYOUTS_SIZE);
    const all = new Uint8Array(buffer);
    const good = all.slice();
    const used = new Int32Array(buffer)[0] ?? 0;
    // Every byte that counts, and the word that says so, to several values.
    for (let at = 0; at < 8 + used; at++) {
      for (const value of [0, 0xff, 0x80, (good[at] ?? 0) ^ 1]) {
        all.set(good);
        all[at] = value;
        for (const { hash, description } of layouts) {
          const found = recall(backend, hash);
          assert(found === undefined || found === description, `byte ${at} is ${value}: ${found}`);
        }
        // Never throws; what it keeps it finds, if there was nothing in front.
        rememberSync(backend, layoutOf(4));
        const found = recall(backend, layoutOf(4).hash);
        assert(found === undefined || found === layoutOf(4).description, `byte ${at}`);
      }
    }
    // Less counts than the last record has; and what no writer would have left.
    const words = new Int32Array(buffer);
    const recalled = () => layouts.map(({ hash }) => recall(backend, hash) !== undefined);
    all.set(good);
    words[0] = used - 8;
    assertEquals(recalled(), [true, true, false]);
    words[0] = used - 1;
    assertEquals([...recalled(), rememberSync(backend, layoutOf(5))], [false, false, false, false]);
    all.fill(0xff);
    assertEquals([rememberSync(backend, layoutOf(5)), recall(backend, layoutOf(1).hash)], [
      false,
      undefined,
    ]);
    // A segment too short to be one.
    const other = Backend.open(scene.dir, "short", "", openOptions);
    scene.atEnd(() => other.release());
    other.ownSegmentSync(LAYOUTS_NAME, 4);
    assertEquals([recall(other, 1n), rememberSync(other, layoutOf(1))], [undefined, false]);
  }));

test("a segment whose file is damaged: not found, not kept, and no error", () =>
  inScene((scene) => {
    const first = Backend.open(scene.dir, "test", "", openOptions);
    const files = scene.files();
    assertEquals(rememberSync(first, layoutOf(1)), true);
    const [file, ...others] = scene.files().filter((name) => !files.includes(name));
    assert(file !== undefined && others.length === 0, `not one new file: ${others}`);
    const keeper = Backend.open(scene.dir, "test", "keeper", openOptions);
    scene.atEnd(() => keeper.release());
    first.release();
    const path = join(scene.dir, file);
    assertEquals(recall(open(scene, "before"), layoutOf(1).hash), layoutOf(1).description);
    truncateSync(path, 0);
    const second = open(scene, "after");
    assertEquals(recall(second, layoutOf(1).hash), undefined);
    assertEquals(rememberSync(second, layoutOf(2)), false);
  }));

/** Runs a member; resolves to what it said, or how it ended. */
async function run(
  scene: Scene,
  runtime: RuntimeName,
  stores: number,
  number: number,
): Promise<string> {
  const command = [...commandLine(runtime, "_layouts_member.ts"), scene.dir, `${stores}`];
  const child = scene.adopt(new Child([...command, `${number}`]));
  const how = await child.ended;
  if (how !== "exit code 0") return how;
  return (await child.next()).said ?? "nothing";
}

for (const runtime of runtimes) {
  test(`a ${runtime} process killed at each store leaves nothing half`, () =>
    inScene(async (scene) => {
      const backend = open(scene);
      assertEquals(rememberSync(backend, layoutOf(0)), true);
      const segment = backend.ownSegmentSync(LAYOUTS_NAME, LAYOUTS_SIZE);
      // How many stores there are: hash, length, text, used; so that none is missed.
      const said = await run(scene, runtime, 100, 1);
      assertEquals(said, "true 4");
      const before = new Int32Array(segment.buffer)[0];
      let record: Uint8Array | undefined;
      for (let stores = 0; stores < 4; stores++) {
        const number = 10 + stores;
        assertEquals(await run(scene, runtime, stores, number), "SIGKILL");
        // Who gets the lock finds out; it stays as it is for the next writer.
        segment.lock.withSync("exclusive", () => {
          assertEquals(segment.lock.abandoned, true, "it did not die inside");
        });
        assertEquals(new Int32Array(segment.buffer)[0], before);
        assertEquals(recall(backend, layoutOf(number).hash), undefined);
        assertEquals(recall(backend, layoutOf(0).hash), layoutOf(0).description);
        assertEquals(recall(backend, layoutOf(1).hash), layoutOf(1).description);
        const tail = new Uint8Array(segment.buffer).slice(8 + (before ?? 0));
        if (record !== undefined) assertNotEquals(tail, record);
        record = tail;
      }
      // The next writer gets in, over what they left.
      assertEquals(rememberSync(backend, layoutOf(20)), true);
      assertEquals(segment.lock.abandoned, false);
      for (const number of [0, 1, 20]) {
        assertEquals(recall(backend, layoutOf(number).hash), layoutOf(number).description);
      }
      // After its last store it counts, whoever dies then.
      assertEquals(await run(scene, runtime, 4, 21), "true 4");
      assertEquals(recall(backend, layoutOf(21).hash), layoutOf(21).description);
    }));
}

test("many processes at once: what is kept is whole, and there once", () =>
  inScene(async (scene) => {
    const backend = open(scene);
    // Two of each.
    const numbers = [1, 2, 3, 1, 2, 3];
    const said = await Promise.all(
      numbers.map((number, i) => run(scene, runtimes[i % 2] ?? "deno", 100, number)),
    );
    // One that met another inside for too long has not kept it, and has stored nothing.
    for (const what of said) assertMatch(what, /^(true [04]|false 0)$/);
    const kept = numbers.filter((_, i) => said[i]?.startsWith("true"));
    assert(kept.length > 0, `nobody got in: ${said}`);
    for (const number of kept) {
      assertEquals(recall(backend, layoutOf(number).hash), layoutOf(number).description);
    }
    assertEquals(said.filter((what) => what === "true 4").length, new Set(kept).size);
  }));
