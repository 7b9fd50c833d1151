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

/** How Deno describes a function. */
interface Signature {
  parameters: readonly string[];
  result: "i32";
}

/** What we use of Deno, so that other type checkers need not know it. */
interface DenoFfi {
  version: { deno: string };
  build: { os: string; arch: string; standalone?: boolean };
  pid: number;
  dlopen(
    path: string,
    symbols: Record<string, Signature | { type: "pointer" }>,
  ): { symbols: unknown; close(): void };
  UnsafeFnPointer: new (pointer: unknown, signature: Signature) => {
    call(...args: unknown[]): number;
  };
  UnsafePointer: { create(address: bigint): unknown };
  UnsafePointerView: { getArrayBuffer(pointer: unknown, byteLength: number): ArrayBuffer };
  permissions: {
    querySync(
      what: { name: "env"; variable: string } | { name: "ffi"; path?: string },
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

/** Some calls of a library, by their names. */
type Table = Readonly<Record<string, readonly string[]>>;

/**
 * What a program calls while it starts or ends, and some times besides. Deno compiles machine code
 * for each call that it is told of, some 0.2 ms; of these it is told the address only, and then a
 * call takes a microsecond, which those with machine code take a hundredth of.
 */
const seldom: ReadonlySet<string> = new Set<keyof Calls>([
  "dsmr_abi",
  "dsmr_default_directory",
  "dsmr_registry_open",
  "dsmr_registry_describe",
  "dsmr_registry_patience",
  "dsmr_registry_close",
]);

/**
 * The calls, each made when it is first asked for: a program that locks and counts needs a dozen
 * of 54. Those of `atHand` are there from the beginning.
 *
 * The library is the same for all of them, whatever happens to its file: while it is loaded, which
 * it stays, glibc's dynamic linker knows it by the path that it was opened by, and looks no further
 * (and Deno's own builds are for glibc).
 *
 * Each getter keeps its call in a variable of its own, and the object never changes: so code that
 * runs often is compiled to a direct call of the function, as if it were a constant.
 */
function lazily(
  make: (name: keyof Calls) => { symbols: unknown },
  atHand: { readonly [name: string]: unknown },
): Calls {
  const calls = {};
  for (const name of Object.keys(symbols) as (keyof Calls)[]) {
    let call: unknown = atHand[name];
    const get = (): unknown => call ??= (make(name).symbols as { [name: string]: unknown })[name];
    Object.defineProperty(calls, name, { get, enumerable: true });
  }
  // Whether it can be opened at all is found out now.
  void (calls as Calls).dsmr_abi;
  return calls as Calls;
}

/** Deno, if this is Deno. */
export function denoRuntime(): Runtime | undefined {
  const deno = (globalThis as { Deno?: DenoFfi }).Deno;
  if (deno === undefined) return undefined;
  let asked = "";
  // Whether all of FFI is allowed. At a terminal, ask for that before Deno asks for this path alone:
  // one path is not enough, and Deno would look for a name without a folder in the current one.
  // Once, for a library is opened anew for each call of it that is used.
  const isAllowed = (path: string): boolean => {
    if (deno.permissions.querySync({ name: "ffi" }).state === "granted") return true;
    if (path === asked) return false;
    asked = path;
    const { state } = deno.permissions.querySync({ name: "ffi", path });
    return state === "prompt" && deno.permissions.requestSync({ name: "ffi" }).state === "granted";
  };
  const open = (path: string, calls: Table) => {
    isAllowed(path);
    const table: Record<string, Signature> = {};
    for (const [name, parameters] of Object.entries(calls)) {
      table[name] = { parameters, result: "i32" };
    }
    return deno.dlopen(path, table);
  };
  // The same without machine code, which must not be called with a permission for a path alone.
  const openByAddress = (path: string, calls: Table): ReturnType<typeof open> => {
    if (!isAllowed(path)) return open(path, calls);
    const entries = Object.entries(calls);
    const library = deno.dlopen(
      path,
      Object.fromEntries(entries.map(([name]) => [name, { type: "pointer" }])),
    );
    const addresses = library.symbols as { readonly [name: string]: unknown };
    const found = entries.map(([name, parameters]) => {
      const call = new deno.UnsafeFnPointer(addresses[name], { parameters, result: "i32" });
      return [name, (...args: unknown[]) => call.call(...args)];
    });
    return { symbols: Object.fromEntries(found), close: () => library.close() };
  };
  const { build } = deno;
  return {
    name: "deno",
    label: `deno ${deno.version.deno}`,
    // Deno's own words: node:process, which has Node's, takes it 12 ms to load.
    platform: build.os,
    arch: { x86_64: "x64", aarch64: "arm64" }[build.arch] ?? build.arch,
    pid: deno.pid,
    isSingleFile: build.standalone === true,
    open(path: string): Calls {
      const some = Object.entries(symbols).filter(([name]) => seldom.has(name));
      const { symbols: atHand } = openByAddress(path, Object.fromEntries(some));
      return lazily(
        (name) => open(path, { [name]: symbols[name] }),
        atHand as { readonly [name: string]: unknown },
      );
    },
    openOther<Name extends string>(
      path: string,
      table: { readonly [_ in Name]: readonly string[] },
    ): OtherLibrary<Name> {
      const library = openByAddress(path, table);
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
