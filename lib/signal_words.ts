/**
 * The words of a signal, and how they are changed.
 *
 * The hardest race is between a notification and those who begin or end to wait just then. Were
 * the number to grow first and somebody be woken next, then who comes in between, and has seen
 * the new number, could be woken in the place of one who has waited for it; and who dies in
 * between would leave those asleep who were notified. The answer is one word and one lock:
 *
 * - The number and a flag, that somebody waits, are one word. While the flag is not set nobody
 *   does, and to notify is to make the number grow, by one exchange of the word that finds the
 *   flag still so.
 * - Whoever waits is parked and sets the flag under the lock of the table of those who wait, and
 *   that exchange tells the number, too. So a wait either was there before a notification, or sees
 *   it.
 * - With the flag set, a notification is made under the same lock: first the rows, then the
 *   number. Nobody comes or goes on in between, so it wakes exactly one if there is one, and who
 *   is woken finds a number that has grown.
 * - Who was woken goes on when the notifier is through, also if it gives up meanwhile: told is told.
 * - Who dies before the number has grown has not notified: those that were woken already find the
 *   number as it was, and wait again, behind the others. After that nothing is left to do.
 *
 * To drop a signal is the same with a mark in the place of the number: end the rows, set the mark,
 * take the name away, under that lock. Who dies after the mark leaves a name that means a dropped
 * signal; the next that asks for it takes it away, and cannot take away a new one by mistake, since
 * every name of a signal goes under the lock, by somebody who has seen that it still means the
 * dropped one.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { check, encodeName, native } from "./ffi/native.ts";
import type { Address } from "./parking_rows.ts";
import { encodeScope } from "./scope.ts";
import { handleOf, idOf, type Segment } from "./segment.ts";

/** The number, in the 31 upper bits, and the flag. */
const NUMBER = 0;
/** Not 0 when the signal is dropped. */
const DROPPED = 1;
/** Of the first word: perhaps somebody waits. Unset: nobody does. */
const WAITED = 1;
/** The largest number; the next is 0. */
export const NUMBER_MAX = 0x7fffffff;

const SIZE = 64;

/** What the first word was, of dropped signals: when that is noticed the segment is given back. */
const noticed = new WeakMap<Segment, number>();

/** The words of a signal, while it is there. */
function wordsOf(segment: Segment): Int32Array {
  return new Int32Array(segment.buffer, 0, 2);
}

/** Whether it is dropped. Gives its memory back, for then the registry has room for another. */
export function isDropped(segment: Segment): boolean {
  if (noticed.has(segment)) return true;
  const words = wordsOf(segment);
  if (Atomics.load(words, DROPPED) === 0) return false;
  noticed.set(segment, Atomics.load(words, NUMBER));
  // Who still waits for it here is rejected, if that has not happened yet.
  segment.detach();
  return true;
}

/** Whether this process has seen before that it is dropped. */
export function noticedDrop(segment: Segment): boolean {
  return noticed.has(segment);
}

/** Under what address those who wait for it are parked. */
export function addressOf(segment: Segment): Address {
  return { id: idOf(segment), offset: 0 };
}

/** How many notifications there have been; of a dropped one: until it was noticed. */
export function numberOf(segment: Segment): number {
  return (noticed.get(segment) ?? Atomics.load(wordsOf(segment), NUMBER)) >>> 1;
}

/** Whether to wait, asked of who has just been parked and has seen that number. */
export function mayWait(segment: Segment, seen: number): boolean {
  const words = wordsOf(segment);
  if (Atomics.load(words, DROPPED) !== 0) return false;
  if (Atomics.load(words, NUMBER) >>> 1 !== seen) return false;
  // Sets the flag, and tells the number at that very moment.
  return Atomics.or(words, NUMBER, WAITED) >>> 1 === seen;
}

/** Wakes at most `count` of those who wait, and makes the number grow; returns how many. */
export function notify(backend: Backend, segment: Segment, count: number): number {
  const words = wordsOf(segment);
  for (let seen = Atomics.load(words, NUMBER); (seen & WAITED) === 0;) {
    const found = Atomics.compareExchange(words, NUMBER, seen, seen + 2 | 0);
    if (found === seen) return 0;
    seen = found;
  }
  return backend.parking.change((wake) => {
    const woken = wake(addressOf(segment), count);
    // Last: it is what makes it a notification. Others can only make the number grow meanwhile, and
    // only if the flag is not set any more.
    for (let seen = Atomics.load(words, NUMBER);;) {
      const flag = woken < count ? 0 : seen & WAITED;
      const found = Atomics.compareExchange(words, NUMBER, seen, (seen + 2 | 0) & ~WAITED | flag);
      if (found === seen) return woken;
      seen = found;
    }
  });
}

/** Whether the name still means this very signal. */
export function isCurrent(segment: Segment): boolean {
  return native().calls.dsmr_segment_is_current(handleOf(segment)) === 1;
}

/** Takes away the name of a signal that is marked as dropped. With the lock held. */
function removeName(backend: Backend, segment: Segment): void {
  const { calls, error } = native();
  const encoded = encodeName("segment", segment.name);
  check(
    calls.dsmr_segment_drop(
      backend.handle,
      encoded,
      encoded.length,
      encodeScope("global"),
      error.bytes,
    ),
  );
}

/** Ends all waits for it, and takes its name away. False: it was dropped already. */
export function drop(backend: Backend, segment: Segment): boolean {
  const words = wordsOf(segment);
  const wasThere = backend.parking.change((wake) => {
    // Somebody was faster; the name may mean another one by now.
    if (!isCurrent(segment)) return false;
    const isFirst = Atomics.load(words, DROPPED) === 0;
    if (isFirst) {
      wake(addressOf(segment), Infinity, "end");
      // Now it is dropped. All have been told, and none of them goes on before we are through.
      Atomics.store(words, DROPPED, 1);
    }
    removeName(backend, segment);
    return isFirst;
  });
  isDropped(segment);
  return wasThere;
}

/** The signals that are attached, so that those of which nobody thinks any more are noticed, too. */
const attached = new WeakMap<Backend, Set<Segment>>();

/** Attaches the signal; makes it where there is none. */
export function attach(backend: Backend, name: string): Segment {
  // There is a place to wait for every signal, also to drop it when the registry has got full.
  void backend.parking;
  for (;;) {
    const segment = backend.ownSegmentSync(name, SIZE);
    if (Atomics.load(wordsOf(segment), DROPPED) !== 0) {
      // By somebody who is still at it, or has died.
      drop(backend, segment);
      continue;
    }
    const known = attached.get(backend) ?? new Set();
    attached.set(backend, known);
    if (known.has(segment)) return segment;
    for (const other of known) if (isDropped(other)) known.delete(other);
    known.add(segment);
    return segment;
  }
}
