/**
 * How long the members of a soak wait, and what that may end with.
 *
 * @module
 */

import { DsmrError } from "../lib/mod.ts";

/** How long to wait, and what that may end with. */
export interface Patience {
  options: { timeout?: number; signal?: AbortSignal };
  /** Ends by itself if it is aborted or late; else throws. */
  accept(error: unknown, ...codes: string[]): void;
  end(): void;
}

export function codeOf(error: unknown): string | undefined {
  return error instanceof DsmrError ? error.code : undefined;
}

export function isStolen(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/**
 * Words have a table with a lock, which the backend of a visit may just have been given, in this
 * very thread: then its task must go on first. Nothing has changed.
 */
export function orBusyHere<Result>(run: () => Result): Result | undefined {
  try {
    return run();
  } catch (error) {
    if (codeOf(error) !== "DEADLOCK") throw error;
    return undefined;
  }
}

/** Some wait for ever, unless it `isLimited`; others are late, or aborted, at times already. */
export function patience(random: () => number, isLimited: boolean): Patience {
  const below = (limit: number) => Math.floor(random() * limit);
  const way = isLimited ? 1 + below(3) : below(6);
  const options: Patience["options"] = {};
  const reason = new Error("aborted by the soak");
  let timer: ReturnType<typeof setTimeout> | undefined;
  if (way === 1 || way === 3) options.timeout = below(8) === 0 ? 0 : below(40);
  if (way === 2 || way === 3) {
    const controller = new AbortController();
    options.signal = controller.signal;
    if (below(10) === 0) controller.abort(reason);
    else timer = setTimeout(() => controller.abort(reason), below(30));
  }
  return {
    options,
    accept(error, ...codes) {
      if (error === reason && options.signal?.aborted === true) return;
      const code = codeOf(error);
      if (code === "TIMEOUT" && options.timeout !== undefined) return;
      if (code === undefined || !codes.includes(code)) throw error;
    },
    end: () => clearTimeout(timer),
  };
}
