/**
 * What a request for a lock by name is made with, and how that is checked.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { quote } from "./ffi/native.ts";
import type { LockMode } from "./lwlock.ts";
import { type Manner, NAME_LENGTH_MAX } from "./web_locks_table.ts";

/** A lock that is held, as the callback of {@linkcode WebLocks.request} gets it. */
export interface WebLock {
  /** What was asked for. */
  readonly name: string;
  /** How it is held. */
  readonly mode: LockMode;
}

/** Options of {@linkcode WebLocks.request}. */
export interface WebLockOptions {
  /** One holder, or many. Default: `"exclusive"`. */
  mode?: LockMode;
  /** Does not wait: if the lock is not to be had at once, the callback gets null. */
  ifAvailable?: boolean;
  /**
   * Takes the lock from whoever holds it, whose `request` is rejected with an `AbortError`, and
   * before all who wait. What the robbed are doing they go on doing: for emergencies.
   */
  steal?: boolean;
  /** Ends the waiting: the request is rejected with its reason. No effect once it is held. */
  signal?: AbortSignal;
}

function notSupported(why: string): DOMException {
  return new DOMException(why, "NotSupportedError");
}

/** A request that makes sense. */
export interface CheckedRequest<Result> {
  name: string;
  mode: LockMode;
  manner: Manner;
  signal: AbortSignal | undefined;
  callback: (lock: WebLock | null) => Result;
}

/** Converts as Web IDL does, then checks in the order of the specification. */
export function checkArguments<Result>(args: readonly unknown[]): CheckedRequest<Result> {
  if (args.length < 2) {
    throw new TypeError(`A request takes a name and a callback; it got ${args.length} arguments.`);
  }
  // Not String(): symbols are no names.
  const name = `${args[0]}`;
  const options = args.length === 2 ? {} : args[1] ?? {};
  const callback = args.length === 2 ? args[1] : args[2];
  if (typeof options !== "object" && typeof options !== "function") {
    throw new TypeError(`The options are ${quote(options)}, not an object.`);
  }
  const { ifAvailable, mode = "exclusive", signal, steal } = options as Record<string, unknown>;
  if (mode !== "exclusive" && mode !== "shared") {
    throw new TypeError(`The mode is ${quote(mode)}, not "exclusive" or "shared".`);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError(`The signal is ${quote(signal)}, not an AbortSignal.`);
  }
  if (typeof callback !== "function") {
    throw new TypeError(`The callback is ${quote(callback)}, not a function.`);
  }
  if (name.startsWith("-")) {
    throw notSupported(`The name ${quote(name)} begins with "-": such names are reserved.`);
  }
  if (steal && ifAvailable) {
    throw notSupported("steal and ifAvailable are both given: a lock that is stolen is available.");
  }
  if (steal && mode !== "exclusive") {
    throw notSupported(`steal takes a lock exclusively, and the mode is ${quote(mode)}.`);
  }
  if (signal !== undefined && (steal || ifAvailable)) {
    throw notSupported("A signal ends the waiting, and with steal or ifAvailable nothing waits.");
  }
  if (name.length > NAME_LENGTH_MAX) {
    throw new DsmrError(
      "NAME_TOO_LONG",
      `The name ${quote(`${name.slice(0, 40)}...`)} has ${name.length} UTF-16 code units; ` +
        `${NAME_LENGTH_MAX} are the most.`,
      { actual: NAME_LENGTH_MAX, requested: name.length },
    );
  }
  return {
    name,
    mode,
    manner: steal ? "steal" : ifAvailable ? "try" : "queue",
    signal,
    callback: callback as (lock: WebLock | null) => Result,
  };
}
