/**
 * What the members of a soak share, and where it is.
 *
 * @module
 */

import { type LWLock, Registry, type Segment } from "../lib/mod.ts";

/** Segment "control": words that say when to end, and which lives were killed. */
export const STOP = 0;
/** In seconds since 1970: by then members end though nobody has told them to. */
export const DEADLINE = 1;
const LIVES = 16;
export const LIVES_MAX = 65_536;
export const CONTROL_BYTES: number = (LIVES + LIVES_MAX) * 4;

/** Where it says that a life was killed. Set before it is. */
export function killedWord(life: number): number {
  return LIVES + life % LIVES_MAX;
}

/** Segment "field": its own lock, locks in its bytes, and what all of them guard. */
export const FIELD_BYTES = 4096;
export const LOCKS = 6;
/** Locks by name that are not stolen, and such that are. */
export const WEB_LOCKS = 5;
export const STOLEN_LOCKS = 2;
export const WORDS = 16;
export const SIGNALS = 4;
/** Tasks of a member. Each has a short-lived segment that only its likes use. */
export const TASKS = 5;

/** Who is inside, one word for each lock: 0, or `insider`. Atomic, in words. */
export const FENCES = 128;
export const WEB_FENCES = 160;
/** Bytes. */
export const VARIABLES = 768;
export const WORDS_AT = 1024;

export function webName(lock: number): string {
  return `web ${lock}`;
}

export function stolenName(lock: number): string {
  return `stolen ${lock}`;
}

export function briefName(task: number): string {
  return `brief ${task}`;
}

export function lockOf(field: Segment, lock: number): LWLock {
  return lock === 0 ? field.lock : field.lockAt((lock - 1) * 64);
}

/** A task of a life, as it stands in a fence. */
export function insider(life: number, task: number): number {
  return life * 16 + task + 1;
}

export function lifeOf(insider: number): number {
  return insider >> 4;
}

/** Makes the registry. */
export function makeField(registry: Registry): { control: Int32Array; field: Segment } {
  const tranche = registry.newTranche("soak");
  const field = registry.getNamedSegmentSync("field", FIELD_BYTES, (segment) => {
    for (let lock = 1; lock < LOCKS; lock++) segment.initLock((lock - 1) * 64, tranche);
  });
  const control = registry.getNamedSegmentSync("control", CONTROL_BYTES);
  return { control: new Int32Array(control.buffer), field };
}

/** What a member uses at the moment, after a forced collection of garbage. */
export interface Sample {
  /** Milliseconds since the member began. */
  at: number;
  /** Bytes: all that is resident, what of it is the process's own, and the heap. */
  rss: number;
  own: number;
  heap: number;
  descriptors: number;
  threads: number;
}

/** A line of a member's output. */
export interface Line {
  pid?: number;
  violation?: string;
  sample?: Sample;
  /** How often each deed was done; printed at the end, and with each sample. */
  deeds?: Record<string, number>;
}
