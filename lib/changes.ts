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
import { lastError, native } from "./ffi/native.ts";
import { type BackendInfo, listBackends, listSegments, type SegmentInfo } from "./listing.ts";
import { wait } from "./wait.ts";

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
  return new Changes(backend, attempt, options.signal);
}

/**
 * An async generator, but for `return`, which would stand in line behind a `next` that waits: it
 * ends that one.
 */
class Changes implements AsyncIterableIterator<Change> {
  readonly #end = new AbortController();
  readonly #changes: AsyncGenerator<Change, undefined, undefined>;

  constructor(backend: Backend, attempt: () => number, signal: AbortSignal | undefined) {
    const end = this.#end.signal;
    const before = snapshot(backend.handle);
    const either = signal === undefined ? end : AbortSignal.any([signal, end]);
    this.#changes = follow(backend, before, attempt, either, end);
  }

  next(): Promise<IteratorResult<Change, undefined>> {
    return this.#changes.next();
  }

  return(): Promise<IteratorResult<Change, undefined>> {
    this.#end.abort();
    return this.#changes.return(undefined);
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Change> {
    return this;
  }
}

async function* follow(
  backend: Backend,
  before: Snapshot,
  attempt: () => number,
  signal: AbortSignal,
  end: AbortSignal,
): AsyncGenerator<Change, undefined, undefined> {
  for (;;) {
    try {
      await wait({ attempt, late: () => undefined }, { signal });
    } catch (error) {
      if (end.aborted) return;
      throw error;
    }
    // Listing the backends clears the dead away, so that the next wait does not end for them.
    const after = snapshot(backend.handle);
    yield* differences(before, after);
    before = after;
  }
}
