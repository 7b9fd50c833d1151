/**
 * What a request for a lock by name is made with, and how that is checked.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { quote } from "./ffi/native.ts";
import type { LockMode } from "./lock_arguments.ts";
import type { Scope } from "./scope.ts";
import { type Manner, NAME_LENGTH_MAX } from "./web_locks_table.ts";

/** A lock that is held, as the callback of {@linkcode WebLocks.request} gets it. */
export interface WebLock {
  /** What was asked for. */
  readonly name: string;
  /** How it is held. */
  readonly mode: LockMode;
}

/** How long the part of a name may be that says whose it is. */
const PREFIX_LENGTH_MAX = "-4294967295:".length;

/**
 * The name as it stands in the table. That of a database begins with "-", as no name that can be
 * asked for does, and with the database's number, so that a new database of an old name is another.
 */
export function nameInTable(name: string, scope: Scope, databaseId: number): string {
  return scope === "global" ? name : `-${databaseId}:${name}`;
}

/** The reverse: the name, and the number of the database whose it is, 0 for a global one. */
export function nameFromTable(inTable: string): { name: string; databaseId: number } {
  const [prefix, id] = /^-(\d+):/.exec(inTable) ?? [];
  if (prefix === undefined) return { name: inTable, databaseId: 0 };
  return { name: inTable.slice(prefix.length), databaseId: Number(id) };
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
  /**
   * `"global"` (default): one lock of this name for all who have the registry open. `"database"`:
   * one for those who have the same database of it open. Not in the specification.
   */
  scope?: Scope;
}

function notSupported(why: string): DOMException {
  return new DOMException(why, "NotSupportedError");
}

/** A request that makes sense. */
export interface CheckedRequest<Result> {
  name: string;
  mode: LockMode;
  manner: Manner;
  scope: Scope;
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
  const { ifAvailable, mode = "exclusive", signal, steal, scope = "global" } = options as Record<
    string,
    unknown
  >;
  if (mode !== "exclusive" && mode !== "shared") {
    throw new TypeError(`The mode is ${quote(mode)}, not "exclusive" or "shared".`);
  }
  if (scope !== "global" && scope !== "database") {
    throw new TypeError(`The scope is ${quote(scope)}, not "global" or "database".`);
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
  const most = NAME_LENGTH_MAX - (scope === "global" ? 0 : PREFIX_LENGTH_MAX);
  if (name.length > most) {
    throw new DsmrError(
      "NAME_TOO_LONG",
      `The name ${quote(`${name.slice(0, 40)}...`)} has ${name.length} UTF-16 code units; ` +
        `${most} are the most. Shorten it.`,
      { actual: most, requested: name.length },
    );
  }
  return {
    name,
    mode,
    scope,
    manner: steal ? "steal" : ifAvailable ? "try" : "queue",
    signal: signal as AbortSignal | undefined,
    callback: callback as (lock: WebLock | null) => Result,
  };
}
