/**
 * A lock as the library has it, for one isolate: what its outcomes mean, and mending.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { lastError, native, wholeMilliseconds } from "./ffi/native.ts";
import type { Calls } from "./ffi/symbols.ts";
import { assertNumbers, BUSY, EXCLUSIVE, type Repair } from "./lock_arguments.ts";
import { isPromise } from "./promise.ts";
import type { Segment } from "./segment.ts";

/** One lock of one segment. */
export class NativeLock {
  readonly segment: Segment;
  readonly handle: number;
  readonly calls: Calls;
  readonly #gone: () => DsmrError | undefined;
  readonly #repair: () => Repair | undefined;

  /** `gone`: why it cannot be used any more, if that is so. */
  constructor(
    segment: Segment,
    handle: number,
    gone: () => DsmrError | undefined,
    repair: () => Repair | undefined,
  ) {
    assertNumbers();
    this.segment = segment;
    this.handle = handle;
    this.calls = native().calls;
    this.#gone = gone;
    this.#repair = repair;
  }

  /** How this isolate holds it, by whatever call: a mode, or 0 or less. */
  get held(): number {
    return this.calls.dsmr_lock_state(this.handle) % 4;
  }

  /**
   * Goes on with what a call that takes the lock has returned: when its time was over it may not
   * have looked whether who is in the way lives, with no time never. A try does, and takes over.
   */
  lastTry(status: number, mode: number): number {
    if (!this.isLate(status)) return status;
    const tried = this.calls.dsmr_lock_try(this.handle, mode);
    return tried === BUSY ? status : tried;
  }

  /** Whether a call has failed with TIMEOUT. */
  isLate(status: number): boolean {
    return status < 0 && native().codeOf.get(status) === "TIMEOUT";
  }

  /** Lets go, if it is held. */
  free(): void {
    if (this.held > 0) this.check(this.calls.dsmr_lock_release(this.handle));
  }

  /** The lock is ours, exclusively, and was abandoned. `letGo`: when that fails. */
  mend(letGo: () => void): void {
    const repair = this.#repair();
    if (repair === undefined) return;
    try {
      const result: unknown = repair(this.segment);
      if (isPromise(result)) {
        throw new TypeError(
          "The repair callback returned a promise. The data must be in order when it returns.",
          { cause: result },
        );
      }
      if (this.held !== EXCLUSIVE) throw new Error("The repair callback has let go of the lock.");
    } catch (cause) {
      // Whoever holds it here.
      if (this.held > 0) this.calls.dsmr_lock_release(this.handle);
      letGo();
      throw new DsmrError(
        "ABANDONED",
        `The repair callback of segment "${this.segment.name}" threw. The lock was released, ` +
          "and is still abandoned: the next owner tries.",
        { cause },
      );
    }
    this.check(this.calls.dsmr_lock_mark_consistent(this.handle));
  }

  /** Throws what a failed call means; `timeout` and `byteOffset` are what it had. */
  check(status: number, timeout: number = -1, byteOffset?: number): number {
    if (status >= 0) return status;
    this.checkAttached();
    const error = this.#explain(status, timeout);
    if (error.code !== "SIZE_INVALID" || byteOffset === undefined) throw error;
    const { name, size } = this.segment;
    throw new DsmrError(
      "SIZE_INVALID",
      `Byte ${byteOffset} is no place for a variable of 8 bytes in segment "${name}" of ${size} ` +
        "bytes: it must be a multiple of 8, with room behind it.",
      { actual: size, requested: byteOffset },
    );
  }

  /** Throws DETACHED or CLOSED, where that is so. */
  checkAttached(): void {
    const gone = this.#gone();
    if (gone !== undefined) throw gone;
  }

  /** What the library would have said. */
  failure(code: "TIMEOUT" | "NOT_HELD", timeout: number = -1): DsmrError {
    return this.#explain(native().number(`DSMR_E_${code}`), timeout);
  }

  #explain(status: number, timeout: number): DsmrError {
    const { error } = native();
    this.calls.dsmr_lock_explain(
      this.handle,
      status,
      wholeMilliseconds(timeout),
      error.bytes,
    );
    return this.#inOurWords(lastError(status));
  }

  /** With what the library does not know: that its process is this one, and what is its own. */
  #inOurWords(error: DsmrError): DsmrError {
    let { message } = error;
    if (error.code === "TIMEOUT" && error.actual === native().runtime.pid) {
      message = this.held > 0
        ? message.replace(
          /process \d+ has it, or .*$/,
          "this program has it itself. Give it more time, or see what its other tasks are doing.",
        )
        // Processes of other containers count from 1, too.
        : message.replace(
          /\. Give it more time.*$/,
          ": this one, for a Worker or another database of it, or one of another container. Give " +
            "it more time, or see what that is doing.",
        );
    }
    // It shows "?" for what is not to be printed.
    if (this.segment.name.startsWith("\u0001")) {
      message = message.replace(/segment "\?(\w+)"/, 'the library\'s own table "$1"');
    }
    if (message === error.message) return error;
    const { code, actual, requested, errno } = error;
    return new DsmrError(code, message, {
      ...(actual === undefined ? {} : { actual }),
      ...(requested === undefined ? {} : { requested }),
      ...(errno === undefined ? {} : { errno }),
    });
  }
}
