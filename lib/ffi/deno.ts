/**
 * The seam to Deno: `Deno.dlopen`. One of two files that know a runtime's name.
 *
 * @module
 */

import {
  type Calls,
  type Listener,
  type ModuleCommand,
  type OtherLibrary,
  type Runtime,
  symbols,
} from "./symbols.ts";

/** What we use of Deno, so that other type checkers need not know it. */
interface DenoFfi {
  version: { deno: string };
  build: { standalone?: boolean };
  dlopen(
    path: string,
    symbols: Record<string, { parameters: readonly string[]; result: "i32" }>,
  ): { symbols: unknown; close(): void };
  UnsafePointer: { create(address: bigint): unknown };
  UnsafePointerView: { getArrayBuffer(pointer: unknown, byteLength: number): ArrayBuffer };
  permissions: {
    querySync(
      what: { name: "env"; variable: string } | { name: "ffi"; path: string },
    ): { state: string };
    requestSync(what: { name: "ffi" }): { state: string };
  };
  env: { get(name: string): string | undefined };
}

/** How Deno runs a module. */
export const denoCommand: ModuleCommand = {
  program: "deno",
  variable: "DSMR_DENO",
  run: ["run", "--quiet"],
  permissions: ["--allow-all"],
};

/** Deno, if this is Deno. */
export function denoRuntime(): Runtime | undefined {
  const deno = (globalThis as { Deno?: DenoFfi }).Deno;
  if (deno === undefined) return undefined;
  const open = (path: string, calls: Readonly<Record<string, readonly string[]>>) => {
    const table: Record<string, { parameters: readonly string[]; result: "i32" }> = {};
    for (const [name, parameters] of Object.entries(calls)) {
      table[name] = { parameters, result: "i32" };
    }
    // At a terminal, ask for all of it before Deno asks for this path alone: one path is not
    // enough, and Deno would look for a name without a folder in the current one.
    const { state } = deno.permissions.querySync({ name: "ffi", path });
    if (state === "prompt") deno.permissions.requestSync({ name: "ffi" });
    return deno.dlopen(path, table);
  };
  return {
    name: "deno",
    label: `deno ${deno.version.deno}`,
    isSingleFile: deno.build.standalone === true,
    open: (path: string): Calls => open(path, symbols).symbols as Calls,
    openOther<Name extends string>(
      path: string,
      table: { readonly [_ in Name]: readonly string[] },
    ): OtherLibrary<Name> {
      const library = open(path, table);
      return {
        calls: library.symbols as OtherLibrary<Name>["calls"],
        close: () => library.close(),
      };
    },
    view(address: bigint, byteLength: number): ArrayBuffer {
      return deno.UnsafePointerView.getArrayBuffer(deno.UnsafePointer.create(address), byteLength);
    },
    async listen(descriptor, ring, gone): Promise<Listener> {
      // Only now: the module takes some milliseconds, and not everybody waits.
      const { Socket } = await import("node:net");
      const socket = new Socket({ fd: descriptor, readable: true, writable: false });
      socket.on("data", ring);
      socket.on("error", gone);
      socket.on("close", gone);
      socket.resume();
      socket.unref();
      return { hold: (isHeld) => void (isHeld ? socket.ref() : socket.unref()) };
    },
    permissionAdvice: "Deno needs --allow-ffi without a path.",
    environment(name: string): string | undefined {
      // Ask first: reading without the permission would prompt the person at the terminal.
      const { state } = deno.permissions.querySync({ name: "env", variable: name });
      return state === "granted" ? deno.env.get(name) : undefined;
    },
  };
}
