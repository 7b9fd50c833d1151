/**
 * Segments by name: who finds, who initialises, who waits, in one isolate. What backends agree on
 * among each other is the library's; here it is tasks, callbacks, and what they throw.
 *
 * @module
 */

import type { Backend, SegmentOptions } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { check, encodeName, encodeTimeout, messageOf, native, nothing } from "./ffi/native.ts";
import { insideInit, insideInitSync } from "./init_scope.ts";
import { recall, remember, rememberSync } from "./layouts.ts";
import { isPromise } from "./promise.ts";
import {
  type AsyncInitCallback,
  checkOwnName,
  checkRequest,
  checkScope,
  type InitCallback,
  initFailed,
  ownTaskInitializes,
  recursion,
  type ScopeOptions,
  type SegmentRequest,
  sizeOf,
  stillInitializing,
} from "./requests.ts";
import { encodeScope, keyOf, type Scope } from "./scope.ts";
import { layoutOf, type Segment, setRepair } from "./segment.ts";
import { differences, type Layout } from "./struct/layout.ts";
import { type AsyncWaitOptions, checkWaitOptions, impatiently, patiently, within } from "./wait.ts";

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
  const known = backend.current(keyOf(name, options?.scope ?? "global"));
  if (known !== undefined && (size === undefined || size === known.size)) {
    if (options) {
      checkLayout(backend, known, options.layout);
      setRepair(known, options.repair);
    }
    return known;
  }
  const { arg, timeout, repair, layout } = options ?? {};
  const segment = beginSync(backend, name, {
    // Also null is omitted.
    ...request(backend, name, size, options ?? {}),
    timeout_ms: encodeTimeout(timeout),
  });
  setRepair(segment, repair);
  if (layout !== undefined) rememberSync(backend, layout);
  if (segment.found) return segment;
  try {
    if (init !== undefined) callSync(backend, segment, () => init(segment, arg as Argument));
    commit(backend, segment);
  } finally {
    backend.endInitializing(segment);
  }
  return segment;
}

/** What both forms ask the library for. */
function request<Argument>(
  backend: Backend,
  name: string,
  size: number | undefined,
  { scope = "global", lifetime = "registry", layout }: SegmentRequest<Argument>,
): Omit<SegmentOptions, "timeout_ms"> {
  return {
    size: sizeOf(name, size, layout),
    scope,
    lifetime,
    ...(layout === undefined ? {} : {
      layout: layout.hash,
      otherLayout: (hash) => otherLayout(backend, name, layout, hash),
    }),
  };
}

/** Refuses what is attached already if it is there with another layout. */
function checkLayout(backend: Backend, segment: Segment, layout: Layout | undefined): void {
  if (layout === undefined || layout.hash === layoutOf(segment)) return;
  throw otherLayout(backend, segment.name, layout, layoutOf(segment));
}

function otherLayout(backend: Backend, name: string, mine: Layout, hash: bigint): DsmrError {
  const start = `Cannot attach segment "${name}": `;
  const end = " Drop it first, or omit the layout to take it as it is.";
  if (hash === 0n) {
    return new DsmrError(
      "LAYOUT_MISMATCH",
      `${start}it was made without a layout, and one was requested.${end}`,
    );
  }
  const theirs = recall(backend, hash);
  const told = theirs === undefined ? "" : differences(mine.description, theirs);
  return new DsmrError(
    "LAYOUT_MISMATCH",
    told === ""
      ? `${start}its layout is ${hex(hash)}, ${hex(mine.hash)} was requested.${end}`
      : `${start}its layout is another one: ${told}.${end}`,
  );
}

const hex = (hash: bigint): string => hash.toString(16).padStart(16, "0");

function beginSync(backend: Backend, name: string, options: SegmentOptions): Segment {
  try {
    return backend.beginSync(name, options);
  } catch (error) {
    // The library knows the thread; which task of it this is, is known here.
    const isOwn = error instanceof DsmrError && error.code === "INIT_RECURSION";
    if (!isOwn || backend.isInsideInit(name, options.scope ?? "global")) throw error;
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

/** How long a commit waits for a stopped process in the registry's tables. */
const COMMIT_TIMEOUT_MS = 10_000;

/** Publishes what the callback has filled, unless that has given it up. */
function commit(backend: Backend, segment: Segment): void {
  checkStillOurs(backend, segment);
  try {
    backend.commit(segment);
  } catch (cause) {
    segment.detach();
    throw cause;
  }
}

/** The same without blocking. */
async function commitLater(backend: Backend, segment: Segment): Promise<void> {
  try {
    await patiently(() => {
      checkStillOurs(backend, segment);
      impatiently(backend.handle, () => backend.commit(segment));
    }, { timeout: COMMIT_TIMEOUT_MS });
  } catch (cause) {
    segment.detach();
    throw cause;
  }
}

function checkStillOurs(backend: Backend, segment: Segment): void {
  try {
    void segment.buffer;
  } catch (cause) {
    if (!backend.isClosed) throw initFailed(segment.name, "detached it.", cause);
    const closed = new DsmrError("CLOSED", "The registry was closed.", { cause });
    throw initFailed(segment.name, "closed the registry.", closed);
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
  const { arg, repair, scope = "global", layout } = options ?? {};
  const wanted = request(backend, name, size, options ?? {});
  const key = keyOf(name, scope);
  const { segment, isOurs } = await patiently(async (left) => {
    for (;;) {
      const known = backend.current(key);
      if (known !== undefined && (size === undefined || size === known.size)) {
        checkLayout(backend, known, layout);
        return { segment: known, isOurs: false };
      }
      if (backend.isInsideInit(name, scope)) throw recursion(name);
      const other = backend.initializing(key);
      if (other === undefined) {
        const begun = await backend.begin(name, { ...wanted, timeout_ms: 0 }, left);
        if (begun !== undefined) return begun;
        continue;
      }
      await within(other, left, () => stillInitializing(name, waiting.timeout));
    }
  }, waiting);
  setRepair(segment, repair);
  if (!isOurs) {
    if (layout !== undefined) await remember(backend, layout);
    return segment;
  }
  try {
    try {
      if (layout !== undefined) await remember(backend, layout);
      if (init !== undefined) {
        await insideInit(backend.initialization(segment), () => init(segment, arg as Argument));
      }
    } catch (cause) {
      segment.detach();
      throw initFailed(name, `failed: ${messageOf(cause)}`, cause);
    }
    await commitLater(backend, segment);
  } finally {
    backend.endInitializing(segment);
  }
  return segment;
}

/** See `Registry.lookupSegment`. */
export function lookupSegment(
  backend: Backend,
  name: string,
  options: ScopeOptions | undefined,
): Segment | null {
  checkOwnName(name);
  const scope = checkScope(options);
  return backend.current(keyOf(name, scope)) ?? backend.lookup(name, scope);
}

/** See `Registry.dropSegment`. */
export function dropSegment(
  backend: Backend,
  name: string,
  options: ScopeOptions | undefined,
): boolean {
  checkOwnName(name);
  return removeSegment(backend, name, checkScope(options));
}

/** The same, also for the library's own segments. */
export function removeSegment(backend: Backend, name: string, scope: Scope = "global"): boolean {
  const { calls, error } = native();
  const encoded = encodeName("segment", name);
  return check(
    calls.dsmr_segment_drop(
      backend.handle,
      encoded.length === 0 ? nothing : encoded,
      encoded.length,
      encodeScope(scope),
      error.bytes,
    ),
  ) === 1;
}
