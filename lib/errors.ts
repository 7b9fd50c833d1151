/**
 * The one error class, and its codes.
 *
 * @module
 */

/**
 * What went wrong, for programs.
 *
 * | code | meaning |
 * |---|---|
 * | `EXISTS` | asked to create what is there |
 * | `NOT_FOUND` | no such registry, segment or directory; the signal was dropped |
 * | `SIZE_MISMATCH` | the segment has another size than requested |
 * | `LAYOUT_MISMATCH`, `SCOPE_MISMATCH` | it has another layout, another scope |
 * | `NAME_INVALID`, `NAME_TOO_LONG` | names are 1 to 63 bytes of UTF-8 without NUL and slash |
 * | `SIZE_INVALID` | a size or a limit is out of its range |
 * | `NO_SPACE` | file system, memory or file descriptors are used up |
 * | `REGISTRY_FULL`, `BACKENDS_FULL`, `TRANCHES_FULL` | a table of the registry is full |
 * | `PERMISSION` | a file is not ours, or we are not allowed to use it |
 * | `CORRUPT`, `VERSION_MISMATCH` | a file is not what it must be, or of another version |
 * | `INIT_FAILED` | the init callback threw: see `cause` |
 * | `INIT_RECURSION` | the init callback asked for its own segment |
 * | `TIMEOUT`, `ABORTED` | the time given is up; the signal was aborted |
 * | `ABANDONED`, `NOT_HELD`, `ALREADY_HELD` | of locks |
 * | `DEADLOCK` | waiting would close a cycle |
 * | `DETACHED`, `CLOSED` | used after `detach()`; after `close()` or a destroy |
 * | `UNSUPPORTED` | this system, or this use, cannot work |
 */
export type DsmrErrorCode =
  | "EXISTS"
  | "NOT_FOUND"
  | "SIZE_MISMATCH"
  | "LAYOUT_MISMATCH"
  | "SCOPE_MISMATCH"
  | "NAME_INVALID"
  | "NAME_TOO_LONG"
  | "SIZE_INVALID"
  | "NO_SPACE"
  | "REGISTRY_FULL"
  | "BACKENDS_FULL"
  | "TRANCHES_FULL"
  | "PERMISSION"
  | "CORRUPT"
  | "VERSION_MISMATCH"
  | "INIT_FAILED"
  | "INIT_RECURSION"
  | "TIMEOUT"
  | "ABORTED"
  | "ABANDONED"
  | "NOT_HELD"
  | "ALREADY_HELD"
  | "DEADLOCK"
  | "DETACHED"
  | "CLOSED"
  | "UNSUPPORTED";

/** The same for programs; the type makes sure that none is left out. */
const isCode: { readonly [Code in DsmrErrorCode]: true } = {
  EXISTS: true,
  NOT_FOUND: true,
  SIZE_MISMATCH: true,
  LAYOUT_MISMATCH: true,
  SCOPE_MISMATCH: true,
  NAME_INVALID: true,
  NAME_TOO_LONG: true,
  SIZE_INVALID: true,
  NO_SPACE: true,
  REGISTRY_FULL: true,
  BACKENDS_FULL: true,
  TRANCHES_FULL: true,
  PERMISSION: true,
  CORRUPT: true,
  VERSION_MISMATCH: true,
  INIT_FAILED: true,
  INIT_RECURSION: true,
  TIMEOUT: true,
  ABORTED: true,
  ABANDONED: true,
  NOT_HELD: true,
  ALREADY_HELD: true,
  DEADLOCK: true,
  DETACHED: true,
  CLOSED: true,
  UNSUPPORTED: true,
};

/** Every code that a {@linkcode DsmrError} may have. */
export const codes: readonly DsmrErrorCode[] = Object.keys(isCode) as DsmrErrorCode[];

/** The particulars of a {@linkcode DsmrError}. */
export interface DsmrErrorDetails {
  /** What caused it: for `INIT_FAILED`, what the init callback threw. */
  cause?: unknown;
  /** The number that is there: a size, a count, a limit, a process id. */
  actual?: number;
  /** The number that was asked for. */
  requested?: number;
  /** The system's error number, where the system refused. */
  errno?: number;
}

/**
 * Whatever goes wrong in this package, but for arguments of a wrong type (`TypeError`) and
 * timeouts out of range (`RangeError`). The message names the thing, the numbers and the next
 * step; {@linkcode code} is for programs.
 *
 * @example
 * ```ts
 * import { DsmrError } from "@dsmr/registry";
 *
 * const error = new DsmrError("SIZE_MISMATCH", "too small", { actual: 1, requested: 2 });
 * console.log(error.code, error.actual, error.requested); // SIZE_MISMATCH 1 2
 * ```
 */
export class DsmrError extends Error {
  /** Always `"DsmrError"`. */
  override readonly name: string = "DsmrError";
  /** What went wrong, for programs. */
  readonly code: DsmrErrorCode;
  /** The number that is there, where one says something. */
  declare readonly actual?: number;
  /** The number that was asked for, where one says something. */
  declare readonly requested?: number;
  /** The system's error number, where the system refused. */
  declare readonly errno?: number;

  /** Internal: made by this package. */
  constructor(code: DsmrErrorCode, message: string, details: DsmrErrorDetails = {}) {
    super(message, "cause" in details ? { cause: details.cause } : undefined);
    this.code = code;
    // Only those that say something, so that a printed error is short.
    if (details.actual !== undefined) this.actual = details.actual;
    if (details.requested !== undefined) this.requested = details.requested;
    if (details.errno !== undefined) this.errno = details.errno;
  }
}
