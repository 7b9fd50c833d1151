/**
 * Promises where there must be none.
 *
 * @module
 */

/**
 * Whether a callback has returned a promise, of whatever make. The caller refuses it, and
 * nobody will await it.
 */
export function isPromise(result: unknown): boolean {
  const then = (result as { then?: unknown } | null | undefined)?.then;
  if (typeof then !== "function") return false;
  // Its failure is told already, by the error that refuses it. Unhandled, it would end the
  // whole process as well.
  Promise.resolve(result).catch(() => {});
  return true;
}
