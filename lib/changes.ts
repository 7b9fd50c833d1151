/**
 * Segments and backends that come and go, as they do.
 *
 * The library keeps a number that grows with each change, and a flag of those who sleep on it; a
 * death is a change when somebody has noticed it, which a watch does by itself. What has changed
 * is found by comparing two listings: so nothing is missed, but what comes and goes between two
 * of them is not seen.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { lastError, native } from "./ffi/native.ts";
import { type BackendInfo, listBackends, listSegments, type SegmentInfo } from "./listing.ts";
import { Turns } from "./turns.ts";
import { impatiently, patiently, wait } from "./wait.ts";

/** What has changed in a registry; see {@linkcode Registry.watch}. */
export type Change =
  | {
    /** A segment is initialised, or has lost its name. */
    type: "segment-created" | "segment-removed";
    /** As it was listed; of a removed one: for the last time. */
    segment: SegmentInfo;
  }
  | {
    /** A backend has attached, or has left or died. */
    type: "backend-attached" | "backend-left";
    /** As it was listed; of one that has left: for the last time. */
    backend: BackendInfo;
  };

interface Snapshot {
  segments: Map<number, SegmentInfo>;
  backends: Map<number, BackendInfo>;
}

function snapshot(handle: number): Snapshot {
  const segments = listSegments(handle).filter(({ ready }) => ready);
  return {
    segments: new Map(segments.map((segment) => [segment.id, segment])),
    backends: new Map(listBackends(handle).map((backend) => [backend.id, backend])),
  };
}

/** What is in `a` and not in `b`. */
function missing<Info>(a: Map<number, Info>, b: Map<number, Info>): Info[] {
  return [...a].filter(([id]) => !b.has(id)).map(([, info]) => info);
}

function differences(before: Snapshot, after: Snapshot): Change[] {
  const of = <Type extends string, Info>(type: Type, infos: Info[]) =>
    infos.map((info) => ({ type, info }));
  return [
    ...of("backend-left" as const, missing(before.backends, after.backends)),
    ...of("backend-attached" as const, missing(after.backends, before.backends)),
  ].map(({ type, info }): Change => ({ type, backend: info })).concat(
    [
      ...of("segment-removed" as const, missing(before.segments, after.segments)),
      ...of("segment-created" as const, missing(after.segments, before.segments)),
    ].map(({ type, info }): Change => ({ type, segment: info })),
  );
}

/** What it returns; undefined if a stopped process holds the registry's tables. */
function unlessBusy<Result>(look: () => Result): Result | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof DsmrError && error.code === "TIMEOUT") return undefined;
    throw error;
  }
}

/** The changes of a backend's registry, from this call on. */
export function changes(
  backend: Backend,
  options: { signal?: AbortSignal },
): AsyncIterableIterator<Change> {
  const seen = new Uint32Array(1);
  const attempt = (): number => {
    const { calls, error } = native();
    const bytes = new Uint8Array(seen.buffer);
    const status = calls.dsmr_registry_watch(backend.handle, bytes, error.bytes);
    if (status < 0) throw lastError(status);
    return status;
  };
  // The number first, then the listing: what changes in between is compared once more.
  attempt();
  const look = (): Snapshot => impatiently(backend.handle, () => snapshot(backend.handle));
  let before = unlessBusy(look);
  const found: Change[] = [];
  return new Turns(async (signal) => {
    for (;;) {
      const change = found.shift();
      if (change !== undefined) return change;
      // While a stopped process holds the tables nobody else changes them.
      before ??= await patiently(look, { signal });
      await wait({ attempt, late: () => undefined }, { signal });
      // Listing the backends clears the dead away, so that the next wait does not end for them.
      const after = await patiently(look, { signal });
      found.push(...differences(before, after));
      before = after;
    }
  }, options);
}
