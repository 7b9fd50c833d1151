/**
 * The seam to Bun: `bun:ffi`. One of two files that know a runtime's name.
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

/** What we use of bun:ffi, so that other type checkers need not know it. */
interface BunFfi {
  dlopen(
    path: string,
    symbols: Record<string, { args: readonly string[]; returns: "i32" }>,
  ): { symbols: unknown; close(): void };
  toArrayBuffer(address: number, byteOffset: number, byteLength: number): ArrayBuffer;
}

/** What we use of Bun itself. */
interface Bun {
  version: string;
  connect(options: {
    fd: number;
    socket: { data(): void; error(socket: unknown, cause: unknown): void; close(): void };
  }): Promise<{ ref(): void; unref(): void }>;
}

/** What we use of its `process`, which the import would load in other runtimes, at length. */
interface BunProcess {
  getBuiltinModule(name: "bun:ffi"): unknown;
  env: { [name: string]: string | undefined };
  platform: string;
  arch: string;
  pid: number;
}

/** How Bun runs a module. */
export const bunCommand: ModuleCommand = {
  program: "bun",
  variable: "DSMR_BUN",
  run: ["run"],
  permissions: [],
};

/** Bun, if this is Bun. */
export function bunRuntime(): Runtime | undefined {
  const { Bun: bun, process } = globalThis as unknown as { Bun?: Bun; process: BunProcess };
  if (bun === undefined) return undefined;
  // Not imported: other runtimes would try to resolve it.
  const ffi = process.getBuiltinModule("bun:ffi") as BunFfi;
  const open = (path: string, calls: Readonly<Record<string, readonly string[]>>) => {
    const table: Record<string, { args: readonly string[]; returns: "i32" }> = {};
    for (const [name, args] of Object.entries(calls)) {
      table[name] = { args, returns: "i32" };
    }
    return ffi.dlopen(path, table);
  };
  return {
    name: "bun",
    label: `bun ${bun.version}`,
    platform: process.platform,
    arch: process.arch,
    pid: process.pid,
    // The modules of such a program are in a file system of this name.
    isSingleFile: import.meta.url.includes("/$bunfs/"),
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
      // User addresses are below 2^48 on every machine we build for.
      return ffi.toArrayBuffer(Number(address), 0, byteLength);
    },
    async listen(descriptor, ring, gone): Promise<Listener> {
      const socket = await bun.connect({
        fd: descriptor,
        socket: { data: ring, error: (_, cause) => gone(cause), close: () => gone(undefined) },
      });
      socket.unref();
      return { hold: (isHeld) => isHeld ? socket.ref() : socket.unref() };
    },
    permissionAdvice: "Bun asks for no permission: please report this.",
    environment(name: string): string | undefined {
      return process.env[name];
    },
  };
}
