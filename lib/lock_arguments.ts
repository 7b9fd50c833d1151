/**
 * What the calls of locks are given, as the library takes it.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { buildAdvice, checkOptions, describe, encodeTimeout, native, quote } from "./ffi/native.ts";
import type { Segment } from "./segment.ts";

/** One holder, or many. */
export type LockMode = "exclusive" | "shared";

/** Mends a segment's data after an exclusive holder of its lock has died inside. */
export type Repair = (segment: Segment) => void;

/** How long to wait. */
export interface WaitOptions {
  /** In milliseconds. Default: for ever. */
  timeout?: number;
}

/** What {@linkcode LWLock.waitForVarSync} found. */
export interface VarState {
  /** True when nobody holds the lock exclusively any more. */
  released: boolean;
  /** The variable's value, where it has another one than expected; else the expected one. */
  value: bigint;
}

// Named in TypeScript, asserted against the library when the first lock is made.
/** A mode. */
export const SHARED = 1;
/** A mode. */
export const EXCLUSIVE = 2;
/** An outcome: acquired, and its exclusive holder had died inside. */
export const ABANDONED = 1;
/** An outcome: not acquired. */
export const BUSY = 2;
/** An outcome of acquireOrWait: still waiting. */
export const NOT_YET = 3;
/** In a state: the lock is abandoned. */
export const STATE_ABANDONED = 4;
/** In a state: others want it. */
export const STATE_WANTED = 32;

let isChecked = false;

/** Throws if the library has other numbers than these. */
export function assertNumbers(): void {
  if (isChecked) return;
  const { number } = native();
  const expected = {
    DSMR_SHARED: SHARED,
    DSMR_EXCLUSIVE: EXCLUSIVE,
    DSMR_LOCK_ABANDONED: ABANDONED,
    DSMR_LOCK_BUSY: BUSY,
    DSMR_LOCK_NOT_YET: NOT_YET,
  };
  for (const [name, value] of Object.entries(expected)) {
    if (number(name) !== value) {
      throw new DsmrError(
        "VERSION_MISMATCH",
        `${name} is ${number(name)} in the native library and ${value} in the TypeScript. ` +
          `The library is of another version. ${buildAdvice}.`,
      );
    }
  }
  isChecked = true;
}

/** The timeout of the options, as the library takes it. */
export function encodeTimeoutOf(options: WaitOptions | undefined): number {
  checkOptions(options);
  return encodeTimeout(options?.timeout);
}

/** A variable's value, as the library takes it. */
export function encodeValue(value: bigint): BigUint64Array<ArrayBuffer> {
  if (typeof value !== "bigint") {
    throw new TypeError(`The value is ${describe(value)}, not a bigint.`);
  }
  return new BigUint64Array([BigInt.asUintN(64, value)]);
}

/** A callback is a function. */
export function checkCallback(callback: unknown): void {
  if (typeof callback === "function") return;
  throw new TypeError(`The callback is ${describe(callback)}, not a function.`);
}

/** A mode, as the library takes it. */
export function modeNumber(mode: LockMode): number {
  if (mode === "exclusive") return EXCLUSIVE;
  if (mode === "shared") return SHARED;
  throw new TypeError(`The mode is ${quote(mode)}, not "exclusive" or "shared".`);
}

/** What a `using` block lets go of. */
export class Hold implements Disposable {
  #release: (() => void) | undefined;

  constructor(release: () => void) {
    this.#release = release;
  }

  /** Lets go, once. */
  [Symbol.dispose](): void {
    const release = this.#release;
    this.#release = undefined;
    release?.();
  }
}

/** An offset as the library takes it; what cannot be one is refused there. */
export function halves(byteOffset: number): [number, number] {
  if (!Number.isSafeInteger(byteOffset) || byteOffset < 0) {
    throw new DsmrError(
      "SIZE_INVALID",
      `The byte offset is ${describe(byteOffset)}; it must be a whole number from 0 on.`,
      typeof byteOffset === "number" ? { requested: byteOffset } : {},
    );
  }
  // Not -0, which not every runtime passes as a number of 32 bits.
  return [byteOffset % 2 ** 32 + 0, Math.floor(byteOffset / 2 ** 32) + 0];
}
