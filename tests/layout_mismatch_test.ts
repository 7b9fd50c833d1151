/** Layouts that are kept with segments: who comes with another one is told what differs. */

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { atomicU32, DsmrError, f64, struct, text, u32, u64 } from "../lib/mod.ts";
import { assertFails, inScene, succeeded } from "./_scene.ts";

const first = struct({ hits: atomicU32, total: f64, label: text(16) });
const second = struct({ hits: u64, total: f64, note: u32 });

test("a segment made with a layout is attached with the same one, or with none", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const made = registry.getNamedSegmentSync("s", undefined, (segment) => {
      first.view(segment).label = "made";
    }, { layout: first });
    assertEquals(made.size, first.size);
    assertStrictEquals(
      registry.getNamedSegmentSync("s", first.size, undefined, { layout: first }),
      made,
    );
    assertStrictEquals(registry.getNamedSegmentSync("s"), made);
    const other = scene.open({ database: "other" });
    const found = await other.getNamedSegment("s", undefined, undefined, { layout: first });
    assertEquals([found.found, first.view(found).label], [true, "made"]);
    const [info] = [...registry.segments()];
    assertEquals(info?.layout, first.hash.toString(16).padStart(16, "0"));
    // Listings can be sent as they are.
    assert(JSON.stringify([...registry.segments()]).includes(info?.layout ?? "none"));
  }));

test("another layout is LAYOUT_MISMATCH, in every form, and says which fields differ", () =>
  inScene(async (scene) => {
    const maker = scene.open();
    maker.getNamedSegmentSync("s", 64, undefined, { layout: first });
    const told = ["s", '"hits"', '"label"', "only there", '"note"', "only here"];
    // The one who has it attached, and one who has not.
    for (const registry of [maker, scene.open({ database: "other" })]) {
      const options = { layout: second };
      assertFails(
        () => registry.getNamedSegmentSync("s", 64, undefined, options),
        "LAYOUT_MISMATCH",
        ...told,
      );
      let rejected: unknown;
      await registry.getNamedSegment("s", 64, undefined, options).catch((error) =>
        rejected = error
      );
      assert(rejected instanceof DsmrError, String(rejected));
      assertEquals(rejected.code, "LAYOUT_MISMATCH");
      for (const text of told) assert(rejected.message.includes(text), rejected.message);
    }
    // Nothing was attached by that.
    assertEquals([...maker.segments()].map(({ backends }) => backends), [1]);
  }));

test("of a layout with thousands of fields the first are told, and how many there are", () =>
  inScene((scene) => {
    const fields = Array.from({ length: 3000 }, (_, i): [string, typeof u32] => [`field${i}`, u32]);
    const many = struct(Object.fromEntries(fields));
    const less = struct(Object.fromEntries(fields.slice(0, 2999)));
    const moved = struct({ extra: u64, ...Object.fromEntries(fields.slice(1)) });
    const maker = scene.open();
    maker.getNamedSegmentSync("s", moved.size, undefined, { layout: many });
    const other = scene.open({ database: "other" });
    const mismatch = (layout: typeof many | typeof moved, ...told: (string | number)[]) =>
      assertFails(
        () => other.getNamedSegmentSync("s", moved.size, undefined, { layout }),
        "LAYOUT_MISMATCH",
        ...told,
      ).message;
    const same = mismatch(less, "2999 fields here, 3000 there", "are known");
    assert(!same.includes("only"), same);
    const message = mismatch(
      moved,
      'field "field1" is u32 at 8 here, u32 at 4 there',
      "more differ",
      "3000 fields here, 3000 there",
    );
    assert(!message.includes("only here"), message);
    // Who has the same is let in.
    const options = { layout: many };
    assertEquals(other.getNamedSegmentSync("s", moved.size, undefined, options).found, true);
  }));

test("a segment without a layout is not taken for one that has one", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const child = await scene.child("bun");
    succeeded(await child.ask({ do: "get", segment: "plain", size: 64 }));
    assertFails(
      () => registry.getNamedSegmentSync("plain", 64, undefined, { layout: first }),
      "LAYOUT_MISMATCH",
      "plain",
      "without a layout",
    );
    assertEquals(registry.getNamedSegmentSync("plain", 64).found, true);
  }));

test("the size is the layout's, or larger; what is no layout is refused", () =>
  inScene((scene) => {
    const registry = scene.open();
    assertFails(
      () => registry.getNamedSegmentSync("s", first.size - 1, undefined, { layout: first }),
      "SIZE_INVALID",
      first.size,
      first.size - 1,
    );
    assertEquals(registry.getNamedSegmentSync("s", 4096, undefined, { layout: first }).size, 4096);
    let refused: unknown;
    try {
      registry.getNamedSegmentSync("t", 64, undefined, { layout: { size: 64 } as typeof first });
    } catch (error) {
      refused = error;
    }
    assert(refused instanceof TypeError && refused.message.includes("struct()"), String(refused));
    assertEquals(registry.lookupSegment("t"), null);
  }));
