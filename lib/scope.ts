/**
 * Scopes: whose a name is.
 *
 * @module
 */

import { native } from "./ffi/native.ts";

/**
 * `"global"`: one for the whole registry. `"database"`: one in each database; the same name may be
 * both.
 */
export type Scope = "global" | "database";

/** What one backend knows a name by: names have no NUL. A global one, which is usual, costs nothing. */
export function keyOf(name: string, scope: Scope): string {
  return scope === "global" ? name : `\0${name}`;
}

/** The scope as the library takes it. */
export function encodeScope(scope: Scope): number {
  return native().number(scope === "global" ? "DSMR_SCOPE_GLOBAL" : "DSMR_SCOPE_DATABASE");
}
