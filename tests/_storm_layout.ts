/**
 * What the members of a storm share, in TypeScript. c/tests/storm_member.c says the same in C.
 *
 * @module
 */

import type { LWLock, Registry, Segment } from "../lib/mod.ts";

/** The segments that are fought for. Each has its own lock, and two in its bytes. */
export const ARENAS = ["left", "middle", "right"] as const;
export const LOCKS_OF_ARENA = 3;
/** Of the nine places the last one is not used: arenas need not be alike. */
export const LOCKS = 8;

const LOCK_BYTES = 64;
const CELL_BYTES = 64;
const CELLS_BEGIN = LOCK_BYTES * (LOCKS_OF_ARENA - 1);
export const ARENA_BYTES: number = CELLS_BEGIN + CELL_BYTES * LOCKS_OF_ARENA;

export function arenaOf(lock: number): number {
  return Math.floor(lock / LOCKS_OF_ARENA);
}

/** Undefined: the lock that the segment carries. */
export function byteOffsetOf(lock: number): number | undefined {
  const place = lock % LOCKS_OF_ARENA;
  return place === 0 ? undefined : LOCK_BYTES * (place - 1);
}

export function lockOf(arena: Segment, lock: number): LWLock {
  const byteOffset = byteOffsetOf(lock);
  return byteOffset === undefined ? arena.lock : arena.lockAt(byteOffset);
}

/**
 * Words of a cell, the data that one lock guards. 32 bits are enough: a round of a storm has
 * fewer than 2^32 sections.
 */
export const INSIDE = 0; // the life that is inside exclusively, or 0
export const FIRST = 1; // the fencing token, written first
export const SECOND = 2; // the same, written last
export const WRITER = 3; // the life that wrote it
export const CHECK = 4; // mix() of token and writer
const CELL_WORDS = 5;

export function cellOf(arena: Segment, lock: number): Uint32Array {
  const begin = CELLS_BEGIN + CELL_BYTES * (lock % LOCKS_OF_ARENA);
  return new Uint32Array(arena.buffer, begin, CELL_WORDS);
}

export function mix(token: number, writer: number): number {
  return Math.imul(Math.imul(token, 0x9e3779b1) ^ writer, 0x85ebca6b) >>> 0;
}

export function isIntact(cell: Uint32Array): boolean {
  const [, first = 0, second = 0, writer = 0, check = 0] = cell;
  return first === second && check === mix(first, writer);
}

/** Words of the segment "control". */
export const CLOCK = 0; // ticks at every entry of a book
export const STOP = 1; // 1: leave
export const DEADLINE = 2; // seconds since 1970: leave even if nobody is there to say so
export const CONTROL_WORDS = 16;

/** A book is what one life writes down, in volumes: segments "book LIFE.VOLUME" of this size. */
export const VOLUME_ENTRIES = 4096;
export const ENTRY_WORDS = 4;
export const VOLUME_BYTES: number = VOLUME_ENTRIES * ENTRY_WORDS * 4;
/** A life begins the next volume when so little is left. One turn writes less. */
export const VOLUME_REST = 32;

export function volumeName(life: number, volume: number): string {
  return `book ${life}.${volume}`;
}

/** What an entry says. Its first word is this, plus the lock times 256. */
export const BEGIN = 1; // is about to write the token; extra: the tick when it came in
export const COMMIT = 2; // has written the token everywhere, and is about to leave
export const REPAIR = 3; // was told of a death; goes on from the token; extra: INSIDE as found
export const READ = 4; // has left; the token that was seen; extra: the tick when it came in
export const READ_BROKEN = 5; // the same, and the lock was abandoned
export const GIVE_UP = 6; // is about to detach or close while inside exclusively

/** One entry, decoded. */
export interface Entry {
  kind: number;
  lock: number;
  token: number;
  extra: number;
  /** The tick when it was written. Written last: an entry with 0 is none. */
  tick: number;
}

/** All entries of a life, which must have ended. Leaves the volumes to others. */
export function readBook(registry: Registry, life: number): Entry[] {
  const entries: Entry[] = [];
  for (let volume = 0;; volume++) {
    const segment = registry.lookupSegment(volumeName(life, volume));
    if (segment === null) return entries;
    const words = new Uint32Array(segment.buffer);
    for (let at = 0; at < words.length; at += ENTRY_WORDS) {
      const [first = 0, token = 0, extra = 0, tick = 0] = words.subarray(at, at + ENTRY_WORDS);
      if (tick === 0) break;
      entries.push({ kind: first & 255, lock: first >>> 8, token, extra, tick });
    }
    segment.detach();
  }
}
