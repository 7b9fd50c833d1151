/**
 * Where a struct lies: a stretch of a buffer, and the segment that it is of, if any.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import { describe } from "../ffi/native.ts";
import type { LWLock } from "../lwlock.ts";
import { Segment } from "../segment.ts";

/**
 * What a view can be put over: a segment; a stretch of one, as `initStruct` of an add-in gives;
 * or a stretch of any buffer, such as a typed array, where there are no locks and no waits.
 */
export type ViewTarget =
  | Segment
  | {
    /** The segment. */
    readonly segment: Segment;
    /** Where in it the stretch begins. Default: 0. */
    readonly byteOffset?: number;
    /** How long the stretch is. Default: to the end. */
    readonly byteLength?: number;
  }
  | {
    /** The buffer. */
    readonly buffer: ArrayBuffer;
    /** Where in it the stretch begins. Default: 0. */
    readonly byteOffset?: number;
    /** How long the stretch is. Default: to the end. */
    readonly byteLength?: number;
  };

/** Where one struct, or one field, begins. */
export class Place {
  readonly buffer: ArrayBuffer;
  /** In the buffer, which is where it is in the segment, too. */
  readonly offset: number;
  readonly #segment: Segment | undefined;

  constructor(buffer: ArrayBuffer, offset: number, segment: Segment | undefined) {
    this.buffer = buffer;
    this.offset = offset;
    this.#segment = segment;
  }

  /** What begins so many bytes further on. */
  at(offset: number): Place {
    return new Place(this.buffer, this.offset + offset, this.#segment);
  }

  /** The segment; `what` needs it. */
  segment(what: string): Segment {
    if (this.#segment !== undefined) return this.#segment;
    throw new DsmrError(
      "UNSUPPORTED",
      `${what} needs a segment, and this view is over a mere buffer. Make the view of the ` +
        "segment, or of { segment, byteOffset }.",
    );
  }

  lock(offset: number): LWLock {
    return this.segment("A lock").lockAt(this.offset + offset);
  }
}

function integer(what: string, value: unknown): number {
  if (typeof value !== "number") throw new TypeError(`The ${what} is ${describe(value)}.`);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new DsmrError(
    "SIZE_INVALID",
    `The ${what} is ${value}; it must be a whole number, 0 or more.`,
    { requested: value },
  );
}

/** The place of `size` bytes aligned to `align`, `byteOffset` bytes into the target. */
export function placeIn(
  target: ViewTarget,
  byteOffset: number,
  size: number,
  align: number,
): Place {
  if (typeof target !== "object" || target === null) {
    throw new TypeError(
      `A view is made of a Segment, or of { buffer }, not of ${describe(target)}.`,
    );
  }
  const segment = target instanceof Segment
    ? target
    : "segment" in target
    ? target.segment
    : undefined;
  if (segment !== undefined && !(segment instanceof Segment)) {
    throw new TypeError(`What should be a Segment is ${describe(segment)}.`);
  }
  const buffer = segment?.buffer ?? (target as { buffer: ArrayBuffer }).buffer;
  if (!(buffer instanceof ArrayBuffer)) {
    throw new TypeError(`A view is made over an ArrayBuffer, not over ${describe(buffer)}.`);
  }
  if (buffer.detached) {
    throw new DsmrError(
      "DETACHED",
      "The buffer is detached. Ask the registry for the segment again.",
    );
  }
  const stretch: { byteOffset?: number; byteLength?: number } = target instanceof Segment
    ? {}
    : target;
  const begin = integer("target's byteOffset", stretch.byteOffset ?? 0);
  const length = integer("target's byteLength", stretch.byteLength ?? buffer.byteLength - begin);
  const offset = begin + integer("byteOffset", byteOffset);
  const end = Math.min(begin + length, buffer.byteLength);
  const where = segment === undefined ? "the buffer" : `segment "${segment.name}"`;
  if (offset + size > end) {
    throw new DsmrError(
      "SIZE_INVALID",
      `A struct of ${size} bytes at byte ${offset} ends at ${offset + size}; there ${
        end === buffer.byteLength ? `is ${where} of ${end} bytes` : `are ${end} bytes of ${where}`
      }. Make it larger, or take the layout's size.`,
      { actual: end, requested: offset + size },
    );
  }
  if (offset % align !== 0) {
    throw new DsmrError(
      "SIZE_INVALID",
      `Byte ${offset} of ${where} is no place for this struct: it must be a multiple of ${align}.`,
      { actual: align, requested: offset },
    );
  }
  return new Place(buffer, offset, segment);
}
