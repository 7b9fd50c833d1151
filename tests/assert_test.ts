/** The stand-in for `@std/assert`: what it accepts, and what it refuses. */

import { test } from "node:test";
import {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  assertExists,
  assertFalse,
  assertGreater,
  assertGreaterOrEqual,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertLessOrEqual,
  assertMatch,
  assertNotEquals,
  assertNotStrictEquals,
  assertObjectMatch,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  fail,
  unreachable,
} from "@std/assert";

/** Uses nothing that is under test. */
function refused(fn: () => void): void {
  try {
    fn();
  } catch (error) {
    if (error instanceof AssertionError && error.name === "AssertionError") return;
    throw error;
  }
  throw new Error(`not refused: ${fn}`);
}

test("assert functions accept what holds", () => {
  const object = { a: 1 };
  assert(object);
  assertFalse(0);
  assertExists(0);
  assertEquals({ a: [1, new Map([["k", 2n]])] }, { a: [1, new Map([["k", 2n]])] });
  assertEquals(NaN, NaN);
  assertEquals(0, -0);
  assertEquals(new Uint8Array([1]), new Uint8Array([1]));
  assertNotEquals({ a: 1 }, { a: 2 });
  assertStrictEquals(object, object);
  assertNotStrictEquals({ a: 1 }, object);
  assertAlmostEquals(0.1 + 0.2, 0.3);
  assertAlmostEquals(10, 11, 1);
  assertGreater(2, 1);
  assertGreaterOrEqual(2n, 2n);
  assertLess(1, 2);
  assertLessOrEqual(2, 2);
  assertMatch("segment 7", /\d/);
  assertStringIncludes("segment", "men");
  assertArrayIncludes([{ a: 1 }, { a: 2 }, { a: 3 }], [{ a: 3 }, { a: 1 }]);
  assertObjectMatch({ a: { b: 1, c: 2 }, d: 3 }, { a: { c: 2 } });
  assertInstanceOf(new TypeError("x"), Error);
});

test("assert functions refuse what does not hold", () => {
  const object = { a: 1 };
  refused(() => assert(""));
  refused(() => assertFalse([]));
  refused(() => assertExists(null));
  refused(() => assertEquals({ a: 1, b: undefined }, { a: 1 }));
  refused(() => assertEquals<unknown>(1, "1"));
  refused(() => assertNotEquals([1], [1]));
  refused(() => assertStrictEquals({ a: 1 }, object));
  refused(() => assertNotStrictEquals(object, object));
  refused(() => assertAlmostEquals(1, 1.001));
  refused(() => assertAlmostEquals(NaN, 1, 5));
  refused(() => assertGreater(1, 1));
  refused(() => assertGreaterOrEqual(NaN, 1));
  refused(() => assertLess(1, 1));
  refused(() => assertLessOrEqual(2, 1));
  refused(() => assertMatch("segment", /\d/));
  refused(() => assertStringIncludes("segment", "x"));
  refused(() => assertArrayIncludes([1, 2], [3]));
  refused(() => assertObjectMatch({ a: { b: 1 } }, { a: { c: 2 } }));
  refused(() => assertInstanceOf({}, Error));
  refused(() => fail());
  refused(() => unreachable("really"));
});

test("assertThrows() returns the error, after checking class and message", () => {
  const thrower = () => {
    throw new RangeError("size is 0");
  };
  const error: RangeError = assertThrows(thrower, RangeError, "is 0");
  assertEquals(error.message, "size is 0");
  assertEquals(
    assertThrows(() => {
      throw 7;
    }),
    7,
  );
  refused(() => assertThrows(() => {}));
  refused(() => assertThrows(thrower, TypeError));
  refused(() => assertThrows(thrower, RangeError, "is 1"));
});

test("assertRejects() returns the error, and refuses a synchronous throw", async () => {
  const rejecter = () => Promise.reject(new RangeError("size is 0"));
  const error: RangeError = await assertRejects(rejecter, RangeError, "is 0");
  assertEquals(error.message, "size is 0");
  await assertRejects(() => assertRejects(() => Promise.resolve()), AssertionError);
  await assertRejects(() => assertRejects(rejecter, TypeError), AssertionError);
  await assertRejects(
    () =>
      assertRejects(() => {
        throw new RangeError("too early");
      }, RangeError),
    AssertionError,
    "it threw",
  );
});

test("a message of the caller ends up in the error", () => {
  assertThrows(() => assertEquals(1, 2, "in round 3"), AssertionError, "in round 3");
});

test("assert() narrows types", () => {
  const value = [1][0];
  assert(value !== undefined);
  assertEquals(value.toFixed(0), "1");
});
