/**
 * What the processes and the saver tell each other, in shared memory.
 *
 * @module
 */

import { atomicU32, type Registry, struct, text, type View } from "../../lib/mod.ts";

const SEGMENT_NAME = "prewarm:0.1:state";
const PROBLEM_SIZE = 512;

const stateLayout = struct({
  /** 1 from when the list was loaded, or refused, on. */
  isLoaded: atomicU32,
  /** How many blocks were loaded. */
  loaded: atomicU32,
  /** How many were on the list, and could not be: no room, or no such file any more. */
  left: atomicU32,
  /** How often somebody has asked for a save; and which of these was answered last. */
  asked: atomicU32,
  answered: atomicU32,
  /** How often the list was saved, and with how many blocks the last time. */
  saves: atomicU32,
  saved: atomicU32,
  /** Why the list was refused; or nothing. Written before `isLoaded`. */
  problem: text(PROBLEM_SIZE),
});

/** A view of it. */
export type PrewarmState = View<typeof stateLayout.fields>;

/** The registry's; made when it is not there, all zero. */
export function openState(registry: Registry): PrewarmState {
  const { size } = stateLayout;
  const segment = registry.getNamedSegmentSync(SEGMENT_NAME, size, undefined, {
    layout: stateLayout,
  });
  return stateLayout.view(segment);
}

/** As much of a message as fits. */
export function fitting(message: string): string {
  const legal = message.toWellFormed().replaceAll("\0", "\u{fffd}");
  const { read } = new TextEncoder().encodeInto(legal, new Uint8Array(PROBLEM_SIZE));
  return legal.slice(0, read);
}
