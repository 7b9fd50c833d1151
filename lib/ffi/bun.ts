/**
 * The seam to Bun: `bun:ffi`. One of two files that know a runtime's name.
 *
 * @module
 */

import process from "node:process";
import { type Calls, type Runtime, symbols } from "./symbols.ts";

/** What we use of bun:ffi, so that other type checkers need not know it. */
interface BunFfi {
  dlopen(
    path: string,
    symbols: Record<string, { args: readonly string[]; returns: "i32" }>,
  ): { symbols: unknown };
  toArrayBuffer(address: number, byteOffset: number, byteLength: number): ArrayBuffer;
}

/** Bun, if this is Bun. */
export async function bunRuntime(): Promise<Runtime | undefined> {
  const bun = (globalThis as { Bun?: { version: string } }).Bun;
  if (bun === undefined) return undefined;
  // Not written into the import itself: other runtimes would try to resolve it.
  const specifier = "bun:ffi";
  const ffi = await import(specifier) as BunFfi;
  return {
    label: `bun ${bun.version}`,
    open(path: string): Calls {
      const table: Record<string, { args: readonly string[]; returns: "i32" }> = {};
      for (const [name, args] of Object.entries(symbols)) {
        table[name] = { args, returns: "i32" };
      }
      return ffi.dlopen(path, table).symbols as Calls;
    },
    view(address: bigint, byteLength: number): ArrayBuffer {
      // User addresses are below 2^48 on every machine we build for.
      return ffi.toArrayBuffer(Number(address), 0, byteLength);
    },
    permissionAdvice: "Bun asks for no permission: please report this.",
    environment(name: string): string | undefined {
      return process.env[name];
    },
  };
}
