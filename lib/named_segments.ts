/**
 * Segments by name: who finds, who initialises, who waits, in one isolate. What backends agree on
 * among each other is the library's; here it is tasks, callbacks, and what they throw.
 *
 * @module
 */

import type { Backend, SegmentOptions } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { check, encodeName, encodeTimeout, messageOf, native, nothing } from "./ffi/native.ts";
import { insideInit, insideInitSync, isInsideInit } from "./init_scope.ts";
import { isPromise } from "./promise.ts";
import {
  type AsyncInitCallback,
  checkOwnName,
  checkRequest,
  checkSize,
  type InitCallback,
  initFailed,
  ownTaskInitializes,
  recursion,
  type SegmentRequest,
  stillInitializing,
} from "./requests.ts";
import { type Segment, setRepair } from "./segment.ts";
import { type AsyncWaitOptions, checkWaitOptions, patiently, within } from "./wait.ts";

/** See `Registry.getNamedSegmentSync`. */
export function getNamedSegmentSync<Argument>(
  backend: Backend,
  name: string,
  size: number | undefined,
  init: InitCallback<Argument> | undefined,
  options: SegmentRequest<Argument> | undefined,
): Segment {
  checkOwnName(name);
  return getSegmentSync(backend, name, size, init, options);
}

/** The same, also for the library's own segments. */
export function getSegmentSync<Argument>(
  backend: Backend,
  name: string,
  size: number | undefined,
  init: InitCallback<Argument> | undefined,
  options: SegmentRequest<Argument> | undefined,
): Segment {
  if (init !== undefined || options) checkRequest(init, options);
  const known = backend.current(name);
  if (known !== undefined && (size === undefined || size === known.size)) {
    if (options) setRepair(known, options.repair);
    return known;
  }
  const { arg, lifetime = "registry", timeout, repair } = options ?? {};
  const segment = beginSync(backend, name, {
    size: size === undefined ? 0 : checkSize(name, size),
    lifetime,
    timeout_ms: encodeTimeout(timeout),
  });
  setRepair(segment, repair);
  if (segment.found) return segment;
  try {
    if (init !== undefined) callSync(backend, segment, () => init(segment, arg as Argument));
    commit(backend, segment);
  } finally {
    backend.endInitializing(segment);
  }
  return segment;
}

function beginSync(backend: Backend, name: string, options: SegmentOptions): Segment {
  try {
    return backend.beginSync(name, options);
  } catch (error) {
    // The library knows the thread; which task of it this is, is known here.
    const isOwn = error instanceof DsmrError && error.code === "INIT_RECURSION";
    if (!isOwn || isInsideInit(backend.instance, name)) throw error;
    throw ownTaskInitializes(name);
  }
}

function callSync(backend: Backend, segment: Segment, init: () => unknown): void {
  try {
    const result = insideInitSync(backend.startInitializing(segment), init);
    if (isPromise(result)) {
      throw new TypeError(
        "The callback returned a promise, but the segment must be complete when it returns. Await " +
          "first, or use getNamedSegment, which awaits it.",
        { cause: result },
      );
    }
  } catch (cause) {
    segment.detach();
    throw initFailed(segment.name, `failed: ${messageOf(cause)}`, cause);
  }
}

/** Publishes what the callback has filled, unless that has given it up. */
function commit(backend: Backend, segment: Segment): void {
  try {
    void segment.buffer;
  } catch (cause) {
    if (!backend.isClosed) throw initFailed(segment.name, "detached it.", cause);
    const closed = new DsmrError("CLOSED", "The registry was closed.", { cause });
    throw initFailed(segment.name, "closed the registry.", closed);
  }
  try {
    backend.commit(segment);
  } catch (cause) {
    segment.detach();
    throw cause;
  }
}

/** See `Registry.getNamedSegment`. */
export async function getNamedSegment<Argument>(
  backend: Backend,
  name: string,
  size: number | undefined,
  init: AsyncInitCallback<Argument> | undefined,
  options: (SegmentRequest<Argument> & AsyncWaitOptions) | undefined,
): Promise<Segment> {
  checkOwnName(name);
  return await getSegment(backend, name, size, init, options);
}

/** The same, also for the library's own segments. */
export async function getSegment<Argument>(
  backend: Backend,
  name: string,
  size: number | undefined,
  init: AsyncInitCallback<Argument> | undefined,
  options: (SegmentRequest<Argument> & AsyncWaitOptions) | undefined,
): Promise<Segment> {
  if (init !== undefined || options) checkRequest(init, options);
  const waiting = checkWaitOptions(options);
  waiting.signal?.throwIfAborted();
  const { arg, lifetime = "registry", repair } = options ?? {};
  const request = { size: size === undefined ? 0 : checkSize(name, size), lifetime };
  const { segment, isOurs } = await patiently(async (left) => {
    for (;;) {
      const known = backend.current(name);
      if (known !== undefined && (size === undefined || size === known.size)) {
        return { segment: known, isOurs: false };
      }
      if (isInsideInit(backend.instance, name)) throw recursion(name);
      const other = backend.initializing(name);
      if (other === undefined) {
        const begun = await backend.begin(name, { ...request, timeout_ms: 0 }, left);
        if (begun !== undefined) return begun;
        continue;
      }
      await within(other, left, () => stillInitializing(name, waiting.timeout));
    }
  }, waiting);
  setRepair(segment, repair);
  if (!isOurs) return segment;
  try {
    try {
      if (init !== undefined) {
        await insideInit(backend.initialization(segment), () => init(segment, arg as Argument));
      }
    } catch (cause) {
      segment.detach();
      throw initFailed(name, `failed: ${messageOf(cause)}`, cause);
    }
    commit(backend, segment);
  } finally {
    backend.endInitializing(segment);
  }
  return segment;
}

/** See `Registry.lookupSegment`. */
export function lookupSegment(backend: Backend, name: string): Segment | null {
  checkOwnName(name);
  return backend.current(name) ?? backend.lookup(name);
}

/** See `Registry.dropSegment`. */
export function dropSegment(backend: Backend, name: string): boolean {
  checkOwnName(name);
  return removeSegment(backend, name);
}

/** The same, also for the library's own segments. */
export function removeSegment(backend: Backend, name: string): boolean {
  const { calls, error } = native();
  const encoded = encodeName("segment", name);
  return check(
    calls.dsmr_segment_drop(
      backend.handle,
      encoded.length === 0 ? nothing : encoded,
      encoded.length,
      error.bytes,
    ),
  ) === 1;
}
