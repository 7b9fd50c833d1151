/**
 * The runtime that this is.
 *
 * @module
 */

import { bunRuntime } from "./bun.ts";
import { denoRuntime } from "./deno.ts";
import type { Runtime } from "./symbols.ts";

/** Undefined: none that we know. */
export const runtime: Runtime | undefined = denoRuntime() ?? bunRuntime();
