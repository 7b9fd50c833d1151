/**
 * A request for a lock by name, as the task that makes it knows it; and what it is told when it
 * is not granted, or its lock is lost.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { quote } from "./ffi/native.ts";
import type { WebLock } from "./web_locks_arguments.ts";
import { REQUESTS_MAX } from "./web_locks_table.ts";

/** A request of this isolate. */
export class Request {
  readonly granted: PromiseWithResolvers<WebLock | null> = Promise.withResolvers();
  /** Rejected when the lock is held no more, though the callback is not through. */
  readonly lost: PromiseWithResolvers<never> = Promise.withResolvers();
  readonly lock: WebLock;
  /** As long as it has one. */
  row: number | undefined;
  isQueued = false;
  /** Why it has ended before its callback was run. */
  #ended: { reason: unknown } | undefined;

  constructor(lock: WebLock) {
    this.lock = lock;
    // It may come when nobody listens.
    this.lost.promise.catch(() => {});
  }

  get isOver(): boolean {
    return this.#ended !== undefined;
  }

  /** It is not to be granted any more; also if it has been, and nobody has noticed. */
  end(reason: unknown): void {
    this.#ended ??= { reason };
    this.granted.reject(reason);
  }

  throwIfOver(): void {
    if (this.#ended !== undefined) throw this.#ended.reason;
  }
}

/** The registry has gone. */
export function closed(): DsmrError {
  return new DsmrError(
    "CLOSED",
    "The registry of these locks was closed or destroyed. They have been let go, and requests for " +
      "them are not granted any more. Open it again.",
  );
}

/** The table must not grow any more. */
export function full(): DsmrError {
  return new DsmrError(
    "NO_SPACE",
    `${REQUESTS_MAX} requests for locks are held or pending in this registry, which is all it ` +
      "has room for. Let some of them go first.",
    { actual: REQUESTS_MAX, requested: REQUESTS_MAX + 1 },
  );
}

/** Another request has taken the lock away. */
export function stolen(name: string): DOMException {
  return new DOMException(
    `Somebody has stolen the lock ${quote(name)}: a request with the option steal.`,
    "AbortError",
  );
}
