/**
 * The part of `@std/assert` that the tests use, over `node:assert/strict`.
 *
 * Tests import `@std/assert`, the name that Deno's users know. tests/import_map.json and
 * tsconfig.json point that name here, so that the tests need no JSR and run under Bun as well.
 * Names, arguments and results are those of `@std/assert`; texts of messages may differ.
 *
 * @module
 */

import nodeAssert from "node:assert/strict";
import { inspect } from "node:util";

/** What every failed assertion throws. */
export class AssertionError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;
// deno-lint-ignore no-explicit-any
type Class<T> = abstract new (...args: any[]) => T;

function refuse(what: string, msg: string | undefined): never {
  throw new AssertionError(msg === undefined ? what : `${what}: ${msg}`);
}

/** Asserts that `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Asserts that `expr` is falsy. */
export function assertFalse(expr: unknown, msg = ""): asserts expr is 0 | "" | false | null {
  if (expr) throw new AssertionError(msg);
}

/** Asserts that `actual` is neither null nor undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T> {
  if (actual === undefined || actual === null) {
    refuse(`Expected a value, got ${actual}`, msg);
  }
}

/** Asserts deep equality. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  const difference = differs(actual, expected);
  if (difference !== undefined) refuse(difference, msg);
}

/** Asserts that deep equality does not hold. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (differs(actual, expected) === undefined) {
    refuse(`Expected a value other than ${show(expected)}`, msg);
  }
}

/** Asserts that both are one and the same value, by `Object.is`. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (!Object.is(actual, expected)) {
    refuse(`Expected ${show(expected)} itself, got ${show(actual)}`, msg);
  }
}

/** Asserts that the two are not one and the same value, by `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void {
  if (Object.is(actual, expected)) {
    refuse(`Expected a value other than ${show(expected)} itself`, msg);
  }
}

/**
 * Asserts that two numbers are at most `tolerance` apart.
 *
 * The default tolerance is a ten-millionth of `expected`, and never below `Number.EPSILON`.
 */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance?: number,
  msg?: string,
): void {
  if (Object.is(actual, expected)) return;
  const wanted = tolerance ?? (Number.isFinite(expected) ? expected * 1e-7 : 1e-7);
  const limit = Math.max(Number.EPSILON, Math.abs(wanted));
  // Also refuses NaN, which compares false with everything.
  if (!(Math.abs(expected - actual) <= limit)) {
    refuse(`Expected ${actual} to be within ${limit} of ${expected}`, msg);
  }
}

/** Asserts `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual > expected)) refuse(`Expected ${show(actual)} > ${show(expected)}`, msg);
}

/** Asserts `actual >= expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual >= expected)) refuse(`Expected ${show(actual)} >= ${show(expected)}`, msg);
}

/** Asserts `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual < expected)) refuse(`Expected ${show(actual)} < ${show(expected)}`, msg);
}

/** Asserts `actual <= expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual <= expected)) refuse(`Expected ${show(actual)} <= ${show(expected)}`, msg);
}

/** Asserts that `actual` matches the expression. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!expected.test(actual)) refuse(`Expected ${show(actual)} to match ${expected}`, msg);
}

/** Asserts that `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) {
    refuse(`Expected ${show(actual)} to contain ${show(expected)}`, msg);
  }
}

/** Asserts that each element of `expected` deeply equals some element of `actual`. */
export function assertArrayIncludes<T>(
  actual: ArrayLike<T>,
  expected: ArrayLike<T>,
  msg?: string,
): void {
  const all = Array.from(actual);
  const missing = Array.from(expected).filter((wanted) =>
    !all.some((element) => differs(element, wanted) === undefined)
  );
  if (missing.length > 0) refuse(`Expected ${show(actual)} to include ${show(missing)}`, msg);
}

/** Asserts that what `expected` has, `actual` has too, deeply; `actual` may have more. */
export function assertObjectMatch(
  // deno-lint-ignore no-explicit-any
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  if (!includes(actual, expected)) {
    refuse(`Expected ${show(actual)} to match ${show(expected)}`, msg);
  }
}

/** Asserts that `actual` is an instance of the class. */
export function assertInstanceOf<T>(
  actual: unknown,
  expectedType: Class<T>,
  msg?: string,
): asserts actual is T {
  if (!(actual instanceof expectedType)) {
    refuse(`Expected an instance of ${expectedType.name}, got ${show(actual)}`, msg);
  }
}

/** Asserts that `fn` throws; returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Asserts that `fn` throws an error of this class whose message contains the text. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  classOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  const wanted = expectation(classOrMsg, msgIncludes, msg);
  try {
    fn();
  } catch (error) {
    return checkError(error, wanted);
  }
  refuse("Expected function to throw", wanted.msg);
}

/** Asserts that `fn` returns a promise that rejects; resolves to the reason. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Asserts that the promise rejects with an error of this class whose message has the text. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const wanted = expectation(classOrMsg, msgIncludes, msg);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch {
    // A function that throws at once never gave its caller a promise to await.
    refuse("Expected function to reject, but it threw", wanted.msg);
  }
  try {
    await promise;
  } catch (error) {
    return checkError(error, wanted);
  }
  refuse("Expected function to reject", wanted.msg);
}

/** Fails. */
export function fail(msg?: string): never {
  refuse("Failed assertion", msg);
}

/** Fails because a line was reached that should not be. */
export function unreachable(reason?: string): never {
  refuse("Unreachable", reason);
}

interface Expectation {
  ErrorClass: ErrorClass<Error> | undefined;
  msgIncludes: string | undefined;
  msg: string | undefined;
}

function expectation(
  classOrMsg: ErrorClass<Error> | string | undefined,
  msgIncludes: string | undefined,
  msg: string | undefined,
): Expectation {
  return typeof classOrMsg === "string"
    ? { ErrorClass: undefined, msgIncludes: undefined, msg: classOrMsg }
    : { ErrorClass: classOrMsg, msgIncludes, msg };
}

function checkError(error: unknown, { ErrorClass, msgIncludes, msg }: Expectation): unknown {
  if (ErrorClass === undefined) return error;
  if (!(error instanceof Error)) refuse(`Expected an Error, got ${show(error)}`, msg);
  if (!(error instanceof ErrorClass)) {
    refuse(`Expected ${ErrorClass.name}, got ${error}`, msg);
  }
  if (msgIncludes !== undefined && !error.message.includes(msgIncludes)) {
    refuse(`Expected the message to contain "${msgIncludes}", got "${error.message}"`, msg);
  }
  return error;
}

/** The explanation of a difference, or undefined when there is none. */
function differs(actual: unknown, expected: unknown): string | undefined {
  // @std/assert takes 0 and -0 for equal, node:assert does not.
  if (actual === expected) return undefined;
  try {
    nodeAssert.deepStrictEqual(actual, expected);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function includes(actual: unknown, expected: unknown): boolean {
  if (!isPlain(expected) || !isPlain(actual)) return differs(actual, expected) === undefined;
  if (Array.isArray(expected)) {
    // Elements are matched by place. A shorter expectation matches the beginning.
    return Array.isArray(actual) &&
      expected.every((element, i) => i < actual.length && includes(actual[i], element));
  }
  return Reflect.ownKeys(expected).every((key) =>
    key in actual && includes(actual[key], expected[key])
  );
}

/** True for what is compared part by part: plain objects, class instances and arrays. */
function isPlain(value: unknown): value is Record<PropertyKey, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const whole = [Date, RegExp, Map, Set, Error, ArrayBuffer];
  return !ArrayBuffer.isView(value) && !whole.some((type) => value instanceof type);
}

function show(value: unknown): string {
  return inspect(value, { depth: 4, breakLength: 100 });
}
