/**
 * Add-ins: what a library brings along for a registry, and how it says so.
 *
 * @module
 */

import type { AddinInitLock } from "./init_lock.ts";
import { DsmrError } from "../errors.ts";
import { describe, encodeName } from "../ffi/native.ts";
import { isOwnName } from "../listing.ts";
import type { LWLock } from "../lwlock.ts";
import type { MainAreaStruct } from "./main_area.ts";
import type { Registry } from "../registry.ts";
import type { ShmemRequest } from "./handle.ts";
import type { Segment } from "../segment.ts";
import type { BackgroundWorker } from "../workers/handle.ts";
import type { WorkerSpec } from "../workers/spec.ts";

/** What an add-in's request hook is given: PostgreSQL's `shmem_request_hook`. */
export interface RequestContext {
  /** The add-in's name. */
  readonly addin: string;
  /**
   * Requests memory of the main area for {@linkcode StartupContext.initStruct}; as
   * RequestAddinShmemSpace. What is requested by several calls adds up, each rounded up to a
   * multiple of 64, as parts are.
   *
   * @param bytes A whole number from 1 on.
   * @throws {DsmrError} `UNSUPPORTED`: outside of the request hook. `SIZE_INVALID`.
   */
  requestSpace(bytes: number): void;
  /**
   * Requests `count` locks in the main area, under one name; as RequestNamedLWLockTranche. They
   * take 64 bytes each, beside what `requestSpace` has requested.
   *
   * @param name 1 to 63 bytes of UTF-8, without NUL and slash. Best begins with the add-in's.
   * @param count A whole number from 1 to 16,384.
   * @throws {DsmrError} `UNSUPPORTED`: outside of the request hook. `EXISTS`: requested already,
   * by this add-in or another. `NAME_INVALID`, `NAME_TOO_LONG`, `SIZE_INVALID`.
   * `TRANCHES_FULL`: 256 have been requested.
   */
  requestTranche(name: string, count: number): void;
}

/**
 * What an add-in's startup hook is given: PostgreSQL's `shmem_startup_hook`. It can be kept, and
 * used until the program has closed the registry.
 */
export interface StartupContext {
  /** The add-in's name. */
  readonly addin: string;
  /**
   * The registry that is being opened. If the program opens it several times, this is the first of
   * them, and of no use once that one is closed.
   */
  readonly registry: Registry;
  /**
   * Whether the main area was sized with what this add-in requests. False: it was made by
   * backends without it, and has neither its tranches nor room for it. Segments of
   * {@linkcode Registry.getNamedSegmentSync} are to be had then, too.
   */
  readonly preloaded: boolean;
  /** To be held around {@linkcode initStruct}. The same for all add-ins. */
  readonly addinInitLock: AddinInitLock;
  /**
   * The locks of a tranche that a request hook has requested; as GetNamedLWLockTranche. The same
   * in every process.
   *
   * @throws {DsmrError} `NOT_FOUND`: nobody has requested it, or it was made by `newTranche`, or
   * the main area was sized without this add-in. `UNSUPPORTED`: inside the request hook.
   * `CLOSED`, `CORRUPT`.
   */
  getTranche(name: string): LWLock[];
  /**
   * The part `name` of the main area: found, or made of `size` zeroed bytes, which the caller is
   * to initialise before it lets go of {@linkcode addinInitLock}; as ShmemInitStruct. Several
   * add-ins may share one by its name; it comes out of what the first has requested.
   *
   * @param name 1 to 63 bytes of UTF-8, without NUL and slash.
   * @param size In bytes.
   * @throws {DsmrError} `NOT_HELD`: the lock is not held exclusively. `SIZE_MISMATCH`: it is
   * there with another size. `NO_SPACE`: more than the add-in has requested, or the main area was
   * sized without it, or all 256 parts are in use. `NAME_INVALID`, `NAME_TOO_LONG`,
   * `SIZE_INVALID`. `UNSUPPORTED`: inside the request hook. `CLOSED`, `CORRUPT`. Nothing has
   * changed then.
   */
  initStruct(name: string, size: number): MainAreaStruct;
}

/** What an add-in's `init` is given: dynpgext's handle. */
export interface AddinHandle {
  /** The add-in's name. */
  readonly name: string;
  /** The registry that is being opened. */
  readonly registry: Registry;
  /**
   * Requests a segment, which is there when the registry is open: of all backends that request
   * it, exactly one runs the callback. It is an ordinary segment, by exactly this name.
   *
   * Memory comes when `init` has ended, or at its {@linkcode lookupShmem} before. Then opening
   * fails with `SIZE_MISMATCH`, `SCOPE_MISMATCH` if it is there otherwise; `INIT_FAILED` if the
   * callback throws.
   *
   * @throws {TypeError} A member of the wrong type.
   * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`, `SIZE_INVALID`. `UNSUPPORTED`: after
   * `init` has ended.
   */
  allocateShmem<Payload = undefined>(request: ShmemRequest<Payload>): void;
  /**
   * What was allocated by this name: in the database, else in the registry as a whole. Its
   * callback has ended. Null if there is none.
   *
   * @throws {DsmrError} As {@linkcode Registry.lookupShmem}.
   */
  lookupShmem(name: string): Segment | null;
  /**
   * Registers a background worker once, however many backends do so. See
   * {@linkcode Registry.registerBackgroundWorker}, which registers another with each call.
   */
  registerBackgroundWorker(spec: WorkerSpec): BackgroundWorker;
}

/**
 * What an add-in does. Each hook may return a promise where the registry is opened by
 * {@linkcode Registry.open}, which awaits it.
 */
export interface AddinDefinition<Started = undefined> {
  /** 1 to 63 bytes of UTF-8, without NUL and slash. Tells it from all others. */
  name: string;
  /**
   * Says what it needs of the main area. Runs in exactly one backend of the registry: the first
   * that opens it with add-ins, before the main area is made. If that one throws or dies, the
   * next does it.
   */
  request?: (ctx: RequestContext) => void | PromiseLike<void>;
  /**
   * Runs in every backend that opens the registry with the add-in, once, shortly after it has
   * attached. What it returns is {@linkcode Registry.addin} of the add-in.
   */
  startup?: (ctx: StartupContext) => Started | PromiseLike<Started>;
  /** Runs after `startup`: allocations and background workers, as dynpgext has them. */
  init?: (handle: AddinHandle) => void | PromiseLike<void>;
}

// For the other modules of this package, and for nobody else: not a member of the class.

/** What an add-in does. */
export let definitionOf: <Started>(addin: Addin<Started>) => AddinDefinition<Started>;

/** An add-in, as {@linkcode defineAddin} makes it. */
export class Addin<out Started = unknown> {
  static {
    definitionOf = (addin) => addin.#definition;
  }

  readonly #definition: AddinDefinition<Started>;

  /** Its name. */
  readonly name: string;

  /**
   * Internal: made by `defineAddin`, never by hand.
   *
   * @ignore
   */
  constructor(definition: AddinDefinition<Started>) {
    this.#definition = definition;
    this.name = definition.name;
  }
}

/**
 * Defines an add-in: what a library needs in shared memory, and what it does when a registry is
 * opened. Give it to {@linkcode Registry.openSync} among the `addins`, in every process. What is
 * memory and locks known beforehand comes from the main area, by `request` and `startup`; what is
 * a segment or a worker, from `init`.
 *
 * @throws {TypeError} A hook that is not a function, or that there is not.
 * @throws {DsmrError} `NAME_INVALID`, `NAME_TOO_LONG`.
 *
 * @example
 * ```ts
 * import { defineAddin, Registry } from "@dsmr/registry";
 *
 * const stats = defineAddin({
 *   name: "call-stats",
 *   request(ctx) {
 *     ctx.requestSpace(8);
 *     ctx.requestTranche("call-stats", 1);
 *   },
 *   startup(ctx) {
 *     const [lock] = ctx.getTranche("call-stats");
 *     const area = ctx.addinInitLock.withSync("exclusive", () => ctx.initStruct("call-stats", 8));
 *     const calls = new Float64Array(area.segment.buffer, area.byteOffset, 1);
 *     const count = () => calls[0] = (calls[0] ?? 0) + 1;
 *     return { count: () => lock?.withSync("exclusive", count) };
 *   },
 * });
 *
 * using registry = Registry.openSync("doc-addin", { addins: [stats] });
 * console.log(registry.addin(stats).count()); // 1: counts across processes
 * Registry.destroy("doc-addin");
 * ```
 */
export function defineAddin<Started = undefined>(
  definition: AddinDefinition<Started>,
): Addin<Started> {
  if (typeof definition !== "object" || definition === null) {
    throw new TypeError(`The add-in is ${describe(definition)}, not an object with a name.`);
  }
  const { name } = definition;
  checkName("add-in", name);
  for (const hook of ["request", "startup", "init"] as const) {
    const callback: unknown = definition[hook];
    if (callback === undefined || typeof callback === "function") continue;
    throw new TypeError(`The ${hook} hook of add-in "${name}" is ${describe(callback)}.`);
  }
  for (const other of Object.keys(definition)) {
    if (["name", "request", "startup", "init"].includes(other)) continue;
    throw new TypeError(
      `Add-in "${name}" has ${
        JSON.stringify(other)
      }, which is no hook: there are request, startup ` +
        "and init.",
    );
  }
  return new Addin({ ...definition });
}

/** A name as all of them are here: 1 to 63 bytes, without NUL, slash and U+0001 in front. */
export function checkName(what: string, name: unknown): asserts name is string {
  const length = encodeName(what, name).length;
  const text = name as string;
  if (length > 63) {
    throw new DsmrError(
      "NAME_TOO_LONG",
      `The ${what} name ${
        JSON.stringify(text.slice(0, 80))
      } has ${length} bytes; 63 are allowed. Shorten it.`,
      { actual: 63, requested: length },
    );
  }
  if (length > 0 && !/[\0/]/.test(text) && !isOwnName(text)) return;
  throw new DsmrError(
    "NAME_INVALID",
    `The ${what} name ${JSON.stringify(text)} is empty, has a NUL or a slash, or begins with ` +
      "U+0001. Give it 1 to 63 bytes of UTF-8 without these.",
  );
}

/** A whole number from 1 to `max`. */
export function checkCount(what: string, value: unknown, max: number): asserts value is number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= max) return;
  throw new DsmrError(
    "SIZE_INVALID",
    `${what} is ${describe(value)}; it must be a whole number from 1 to ${max}.`,
    typeof value === "number" ? { actual: max, requested: value } : {},
  );
}

/** The add-ins of the options, each once. */
export function checkAddins(addins: unknown): readonly Addin[] {
  if (addins === undefined || addins === null) return [];
  if (!Array.isArray(addins)) {
    throw new TypeError(`The addins are ${describe(addins)}, not an array.`);
  }
  const byName = new Map<string, Addin>();
  for (const addin of addins as unknown[]) {
    if (!(addin instanceof Addin)) {
      throw new TypeError(`An add-in is ${describe(addin)}, not one of defineAddin().`);
    }
    const known = byName.get(addin.name);
    if (known !== undefined && known !== addin) throw namesake(addin.name);
    byName.set(addin.name, addin);
  }
  return [...byName.values()];
}

/** The error for two add-ins of one name. */
export function namesake(name: string): DsmrError {
  return new DsmrError(
    "EXISTS",
    `There are two add-ins named "${name}". Give one of them another name; or if it is one ` +
      "library loaded twice, load it once.",
  );
}
