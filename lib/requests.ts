/**
 * What registries and segments are asked for with: options, callbacks, and what is wrong with them.
 *
 * @module
 */

import type { Addin } from "./addins/addin.ts";
import { DsmrError } from "./errors.ts";
import { check, describe, encodeName, encodeTimeout, native, quote } from "./ffi/native.ts";
import { isOwnName } from "./listing.ts";
import type { Repair } from "./lock_arguments.ts";
import type { Scope } from "./scope.ts";
import type { Lifetime, Segment } from "./segment.ts";
import type { Layout } from "./struct/layout.ts";

/** Where registries are. */
export interface DirectoryOptions {
  /**
   * An absolute path. Default: `DSMR_DIR` of the environment, else `/dev/shm`. All processes
   * that are to meet must name the same.
   */
  dir?: string;
}

/** Options of {@linkcode Registry.openSync}. */
export interface OpenOptions extends DirectoryOptions {
  /**
   * The database that the backend opens, created when it is not there: a scope for names of its
   * own, see {@linkcode ScopeOptions}. 1 to 63 bytes of UTF-8; at most 64 fit. Default: `"default"`.
   */
  database?: string;
  /**
   * `"open"` (default) attaches and creates where needed, `"create"` only creates (`EXISTS`),
   * `"attach"` only attaches (`NOT_FOUND`). `"look"` does, too, and makes no database: one that is
   * not there is for this backend as one that was dropped. For programs that only look on.
   */
  mode?: "open" | "create" | "attach" | "look";
  /** How many backends fit, 1 to 256 (default 256). Only the creator's counts. */
  maxBackends?: number;
  /** How many segments fit, 1 to 65,536 (default 1,024). Only the creator's counts. */
  maxSegments?: number;
  /**
   * How long to wait, in milliseconds, while another process changes the registry's tables.
   * Such changes take microseconds, unless that process is stopped. Default: 10 s.
   */
  timeout?: number;
  /**
   * Libraries that have memory, locks and workers in the registry: what {@linkcode defineAddin}
   * has made. Their request hooks run in the first backend that opens the registry with add-ins,
   * their other hooks in each. Others wait for the request hooks, for `timeout` as well.
   */
  addins?: readonly Addin[];
  /**
   * Whether this backend is willing to supervise background workers: to start them, to restart
   * them, to kill those that do not end. Of all that are willing one does; when it dies or closes,
   * another one takes over. Default: false.
   *
   * It keeps the program alive only while this backend is the one that supervises, and there are
   * workers that run or are to be restarted. It lasts until the last `Registry` of this isolate for
   * this registry and database is closed: then another one adopts the workers, or, if nobody else
   * is willing, they are told to stop until somebody is; the program waits for those that it has
   * started, at most their grace.
   */
  supervise?: boolean;
}

/** Whose a name is. */
export interface ScopeOptions {
  /**
   * `"global"` (default): the registry's, the same for all. `"database"`: that of the database which
   * the caller has opened; every database has its own. A name may be both.
   */
  scope?: Scope;
}

/** Options of {@linkcode Registry.getNamedSegmentSync}. */
export interface SegmentRequest<Argument = undefined> extends ScopeOptions {
  /** Handed to the init callback as it is. */
  arg?: Argument;
  /**
   * `"registry"` (default): the segment stays until it is dropped or the registry destroyed.
   * `"attached"`: until the last backend detaches or dies. Only the initialiser's counts.
   */
  lifetime?: Lifetime;
  /** How long to wait for another backend's initialisation, in milliseconds. Default: for ever. */
  timeout?: number;
  /**
   * What is in the segment, as `struct` has made it. The registry keeps its hash with the segment;
   * who comes with another one gets `LAYOUT_MISMATCH`. Omitted: taken as it is.
   */
  layout?: Layout;
  /**
   * Mends the data when an exclusive holder of the segment's lock has died inside. Runs with
   * the lock held, before the call that acquired it returns; the last one given counts.
   */
  repair?: Repair;
}

/**
 * Fills a fresh segment, whose bytes are all zero. Runs in exactly one backend; the others
 * wait until it returns. If it throws, the segment is freed and the next one tries. The same
 * if it returns a promise: await first, then ask for the segment.
 */
export type InitCallback<Argument> = (segment: Segment, arg: Argument) => void;

/** The same for {@linkcode Registry.getNamedSegment}, which awaits what it returns. */
export type AsyncInitCallback<Argument> = (
  segment: Segment,
  arg: Argument,
) => void | PromiseLike<void>;

/** The directory that the options, the environment or the system name. */
export function directory(options: DirectoryOptions | undefined): string {
  const { calls, error, runtime } = native();
  const { dir } = options ?? {};
  if (dir !== undefined && typeof dir !== "string") {
    throw new TypeError(`The directory is ${describe(dir)}, not a path.`);
  }
  if (dir === "") {
    throw new DsmrError("NAME_INVALID", "The directory is empty. Omit it, or name one.");
  }
  const named = dir ?? runtime.environment("DSMR_DIR");
  if (named !== undefined && named !== "") return named;
  const bytes = new Uint8Array(4096);
  const length = calls.dsmr_default_directory(bytes, bytes.length, error.bytes);
  return new TextDecoder().decode(bytes.subarray(0, check(length)));
}

/** A limit of a new registry; 0 leaves it to the library. */
export function limit(option: string, value: number | undefined, max: string): number {
  if (value === undefined) return 0;
  const most = native().number(max);
  if (!Number.isInteger(value) || value < 1 || value > most) {
    throw new DsmrError(
      "SIZE_INVALID",
      `${option} is ${describe(value)}; it must be a whole number from 1 to ${most}.`,
      typeof value === "number" ? { actual: most, requested: value } : {},
    );
  }
  return value;
}

/** A size is a whole number of bytes. */
export function checkSize(name: string, size: unknown): number {
  if (typeof size === "number" && Number.isSafeInteger(size) && size >= 1) return size;
  throw new DsmrError(
    "SIZE_INVALID",
    `Cannot create segment ${quote(name)} of ${describe(size)} bytes: ` +
      "a size is a whole number from 1 on.",
    typeof size === "number" ? { requested: size } : {},
  );
}

/** Checks the types of what is optional in a request, also where it will not be needed. */
export function checkRequest(init: unknown, request: SegmentRequest<unknown> | undefined): void {
  if (init !== undefined && typeof init !== "function") {
    throw new TypeError(`The init callback is ${quote(init)}, not a function.`);
  }
  // Also null is omitted.
  if (!request) return;
  const { lifetime, timeout, repair, layout } = request;
  checkScope(request);
  if (layout !== undefined && typeof layout?.hash !== "bigint") {
    throw new TypeError(`The layout is ${describe(layout)}, not one that struct() has made.`);
  }
  if (lifetime !== undefined && lifetime !== "registry" && lifetime !== "attached") {
    throw new TypeError(`The lifetime is ${quote(lifetime)}, not "registry" or "attached".`);
  }
  if (repair !== undefined && typeof repair !== "function") {
    throw new TypeError(`The repair callback is ${quote(repair)}, not a function.`);
  }
  encodeTimeout(timeout);
}

/** The scope that is asked for. */
export function checkScope(options: ScopeOptions | null | undefined): Scope {
  const scope = options?.scope ?? "global";
  if (scope === "global" || scope === "database") return scope;
  throw new TypeError(`The scope is ${quote(scope)}, not "global" or "database".`);
}

/** Bytes to ask for: 0 for whatever is there; without a size those of the layout. */
export function sizeOf(name: string, size: number | undefined, layout: Layout | undefined): number {
  if (size === undefined) return layout === undefined ? 0 : layout.size;
  checkSize(name, size);
  if (layout === undefined || size >= layout.size) return size;
  throw new DsmrError(
    "SIZE_INVALID",
    `Cannot create segment ${quote(name)} of ${size} bytes: its layout has ${layout.size}. Omit ` +
      "the size, or give it that much.",
    { actual: layout.size, requested: size },
  );
}

/** Refuses the names of the library's own segments, and what is no name of a segment at all. */
export function checkOwnName(name: unknown): void {
  // Here, for what is attached already is found by its name before that is encoded.
  if (typeof name !== "string") encodeName("segment", name);
  else if (!isOwnName(name)) return;
  throw new DsmrError(
    "NAME_INVALID",
    "Names that begin with U+0001 are the library's own. Choose another one.",
  );
}

/** Asked for by its own callback. */
export function recursion(name: string): DsmrError {
  return new DsmrError(
    "INIT_RECURSION",
    `Segment "${name}" is being initialised by the very callback that asks for it. It is the ` +
      "callback's argument; use that.",
  );
}

/** Asked for by sync code while a task initialises it. */
export function ownTaskInitializes(name: string): DsmrError {
  return new DsmrError(
    "DEADLOCK",
    `Segment "${name}" is being initialised by a task of this program. Blocking here would keep ` +
      "it from ever ending. Await getNamedSegment instead.",
  );
}

/** Another task took too long. */
export function stillInitializing(name: string, timeout: number | undefined): DsmrError {
  return new DsmrError(
    "TIMEOUT",
    `Segment "${name}" is still being initialised, by another task of this program, after ` +
      `${timeout} ms. Give it more time, or see what that task is doing.`,
  );
}

/** A callback has failed. */
export function initFailed(name: string, what: string, cause: unknown): DsmrError {
  return new DsmrError(
    "INIT_FAILED",
    `The init callback of segment "${name}" ${what} ` +
      "The segment was freed; whoever asks for it next initialises it.",
    { cause },
  );
}
