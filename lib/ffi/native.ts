/**
 * The native library: found, opened on first use, and asked for its numbers.
 *
 * @module
 */

import { codes, DsmrError, type DsmrErrorCode } from "../errors.ts";
import { bunCommand } from "./bun.ts";
import { denoCommand } from "./deno.ts";
import { packaged } from "./packaged.ts";
import { type Fields, Record } from "./record.ts";
import { runtime } from "./runtime.ts";
import type { Calls, ModuleCommand, Runtime } from "./symbols.ts";
import { openPackaged } from "./unpack.ts";

/** The opened library. */
export interface Native {
  readonly calls: Calls;
  readonly runtime: Runtime;
  /** Filled by calls that fail; read at once, by {@linkcode check}. */
  readonly error: Record;
  /** A new structure, or array of them. */
  record(name: string, count?: number): Record;
  /** A number that the library was built with. */
  number(name: string): number;
  readonly codeOf: ReadonlyMap<number, DsmrErrorCode>;
}

/** How each runtime runs a module as a process, whichever this is. */
export const moduleCommands: { readonly [Name in Runtime["name"]]: ModuleCommand } = {
  deno: denoCommand,
  bun: bunCommand,
};

/** How to get a library that fits: a part of a sentence. */
export const buildAdvice: string = "Build it with `npx --yes deno task build`";

let opened: Native | undefined;

/** The library, opened when it is asked for the first time. */
export function native(): Native {
  opened ??= open();
  return opened;
}

/**
 * Opens, in this order: the library that DSMR_LIBRARY names; the one that the package brings; and
 * in a checkout, which brings none, the one that was built there last.
 */
function openLibrary(runtime: Runtime): Calls {
  const named = runtime.environment("DSMR_LIBRARY") ?? "";
  const advice = packaged === undefined
    ? `${buildAdvice}, set DSMR_LIBRARY to where it is,`
    : "Unset DSMR_LIBRARY to take the one that the package brings,";
  if (named !== "") return openAt(runtime, named, advice);
  if (packaged === undefined) return openAt(runtime, checkoutPath(runtime), advice);
  const { library, platforms } = packaged;
  if (library === undefined) {
    throw unsupportedPlatform(runtime, platforms, "The package brings none. ");
  }
  try {
    return openPackaged(runtime, library);
  } catch (thrown) {
    if (thrown instanceof DsmrError) throw thrown;
    throw new DsmrError(
      "UNSUPPORTED",
      `Cannot load the native library ${library.soname}, which the package brings: ` +
        `${messageOf(thrown)} Allow FFI (--allow-ffi, without a path) where the runtime asks for ` +
        "that, or set DSMR_LIBRARY to a library.",
      { cause: thrown },
    );
  }
}

function openAt(runtime: Runtime, path: string, advice: string): Calls {
  try {
    return runtime.open(path);
  } catch (cause) {
    throw new DsmrError(
      "UNSUPPORTED",
      `Cannot load the native library ${path}: ${messageOf(cause)} ` +
        `${advice} and allow FFI (--allow-ffi) where the runtime asks for that.`,
      { cause },
    );
  }
}

function checkoutPath(runtime: Runtime): string {
  const { platform } = runtime;
  if (platform !== "linux" && platform !== "darwin") {
    throw unsupportedPlatform(runtime, "Linux (x64 or arm64) or macOS", "");
  }
  const name = platform === "darwin" ? "libdsmr.dylib" : "libdsmr.so";
  const url = new URL(`../../zig-out/lib/${name}`, import.meta.url);
  if (url.protocol !== "file:") {
    throw new DsmrError(
      "UNSUPPORTED",
      `The native library cannot be loaded from ${url.protocol}. ` +
        "Use a checkout, or set DSMR_LIBRARY to the library's path.",
    );
  }
  return decodeURIComponent(url.pathname);
}

function unsupportedPlatform(
  { platform, arch }: Runtime,
  platforms: string,
  more: string,
): DsmrError {
  return new DsmrError(
    "UNSUPPORTED",
    `There is no native library for ${platform} ${arch}. ${more}` +
      `Use ${platforms}, or set DSMR_LIBRARY to a library that you have built.`,
  );
}

function open(): Native {
  if (runtime === undefined) {
    throw new DsmrError(
      "UNSUPPORTED",
      "This runtime offers no foreign function interface we know. Use Deno or Bun.",
    );
  }
  const calls = openLibrary(runtime);
  const abi = new Abi(calls);
  const record = (name: string, count = 1): Record => new Record(abi.structure(name), count);
  const number = (name: string): number => abi.number(name);
  const codeOf = new Map(codes.map((code) => [number(`DSMR_E_${code}`), code]));
  return { calls, runtime, error: record("dsmr_error"), record, number, codeOf };
}

function mismatch(what: string): DsmrError {
  return new DsmrError(
    "VERSION_MISMATCH",
    `The native library ${what}: it was built from another version. ${buildAdvice}, ` +
      "and check DSMR_LIBRARY.",
  );
}

/**
 * The text of dsmr_abi: lines of "name value", "structure 0 size", "structure.field at size". Of some
 * 300 a program needs a few dozen, so each is looked for when it is asked for the first time: reading
 * all of them takes longer than attaching.
 */
class Abi {
  readonly #text: string;
  readonly #numbers = new Map<string, number>();
  readonly #structures = new Map<string, Fields>();

  constructor(calls: Calls) {
    let bytes = new Uint8Array(8192);
    const length = calls.dsmr_abi(bytes, bytes.length);
    if (length > bytes.length) {
      bytes = new Uint8Array(length);
      calls.dsmr_abi(bytes, bytes.length);
    }
    this.#text = `\n${new TextDecoder().decode(bytes.subarray(0, length))}\n`;
  }

  number(name: string): number {
    let value = this.#numbers.get(name);
    if (value === undefined) {
      const at = this.#text.indexOf(`\n${name} `);
      if (at < 0) throw mismatch(`has no number ${name}`);
      value = parseInt(this.#text.slice(at + name.length + 2, at + name.length + 14), 10);
      this.#numbers.set(name, value);
    }
    return value;
  }

  structure(name: string): Fields {
    let fields = this.#structures.get(name);
    if (fields === undefined) {
      fields = this.#fields(name);
      if (fields.size === 0) throw mismatch(`has no structure ${name}`);
      this.#structures.set(name, fields);
    }
    return fields;
  }

  /** Its lines, which stand together. By hand: a regular expression takes longer than an attach. */
  #fields(name: string): Map<string, { offset: number; size: number }> {
    const fields = new Map<string, { offset: number; size: number }>();
    let at = this.#text.indexOf(`\n${name} `) + 1;
    while (at > 0 && this.#text.startsWith(name, at)) {
      const end = this.#text.indexOf("\n", at);
      const [field = "", offset, size] = this.#text.slice(at + name.length, end).split(" ");
      if (field !== "" && field[0] !== ".") break;
      fields.set(field.slice(1), { offset: Number(offset), size: Number(size) });
      at = end + 1;
    }
    return fields;
  }
}

/**
 * What to do next, where the library's own message ends with the system's words. Here, for the
 * library is as large as it may be.
 */
function nextStep(code: DsmrErrorCode, message: string): string {
  if (code === "PERMISSION") {
    return " Let this user read and write it, or name another directory: the option dir, or DSMR_DIR.";
  }
  if (code === "NO_SPACE") {
    return " Make room there; `dsmr doctor` looks at the directory, `ulimit -a` tells the limits of " +
      "this process.";
  }
  const isOfDirectory = code === "NOT_FOUND" && /^Cannot (create|list) /.test(message);
  return isOfDirectory
    ? " Make the directory, or name another one: the option dir, or DSMR_DIR."
    : "";
}

/** The error that the last failed call has described. */
export function lastError(status: number): DsmrError {
  const { codeOf, error } = native();
  const actual = error.u64("actual");
  const requested = error.u64("requested");
  const saysNumbers = actual !== 0 || requested !== 0;
  const errno = error.i32("os_errno");
  const code = codeOf.get(status) ?? "UNSUPPORTED";
  const message = error.text("message", error.u32("message_length"));
  return new DsmrError(
    code,
    errno === 0 ? message : `${message}${nextStep(code, message)}`,
    {
      // Some are marks of 64 bits, which a number here cannot tell exactly.
      ...(saysNumbers && Number.isSafeInteger(actual) ? { actual } : {}),
      ...(saysNumbers && Number.isSafeInteger(requested) ? { requested } : {}),
      ...(errno === 0 ? {} : { errno }),
    },
  );
}

/** What has become of a registry that cannot be used any more: a part of a sentence. */
export function fateOf(registry: number): string {
  const isOpen = native().calls.dsmr_registry_is_usable(registry) >= 0;
  return isOpen ? "was destroyed" : "was closed";
}

/** Passes a successful result on; throws the library's error for a failure. */
export function check(status: number): number {
  if (status < 0) throw lastError(status);
  return status;
}

const encoder = new TextEncoder();
/** Stands for "none": a buffer argument cannot be null in every runtime. */
export const nothing: Uint8Array<ArrayBuffer> = new Uint8Array(1);

/**
 * A name as the library takes it. It checks the rest; but lone surrogates, which UTF-8 cannot
 * express, would all become the same character here.
 */
export function encodeName(what: string, name: unknown): Uint8Array<ArrayBuffer> {
  if (typeof name !== "string") {
    throw new DsmrError("NAME_INVALID", `The ${what} name is ${describe(name)}, not a string.`);
  }
  if (!name.isWellFormed()) {
    throw new DsmrError(
      "NAME_INVALID",
      `The ${what} name ${quote(name)} has half a surrogate pair, which is no text. ` +
        "Choose another one, or call toWellFormed() on it.",
    );
  }
  return encoder.encode(name);
}

/** A wrong value, short enough for a message. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** The same, but a text as it is: for values of which one is asked for by name. */
export function quote(value: unknown): string {
  if (typeof value !== "string") return describe(value);
  return value.length <= 80 ? JSON.stringify(value) : `${JSON.stringify(value.slice(0, 80))}...`;
}

/** What somebody's code has thrown, in its own words. Never throws, whatever it was. */
export function textOf(thrown: unknown): string {
  let text: string;
  try {
    const message: unknown = thrown instanceof Error ? thrown.message : String(thrown);
    text = typeof message === "string" ? message : describe(message);
  } catch {
    // An object without a toString(), or with a bad one.
    text = describe(thrown);
  }
  return text === "" ? describe(thrown) : text;
}

/** The same as a sentence. */
export function messageOf(thrown: unknown): string {
  const text = textOf(thrown);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** Milliseconds, of which there are some or none, in whole ones as the library takes them. */
export function wholeMilliseconds(timeout: number): number {
  // Not -0, which not every runtime passes as a number of 32 bits.
  return Math.min(Math.ceil(timeout), 0x7fffffff) + 0;
}

/** The same of what was asked for: -1 is for ever. */
export function encodeTimeout(timeout: number | null | undefined): number {
  if (timeout === undefined || timeout === null || timeout === Infinity) return -1;
  if (typeof timeout !== "number" || !(timeout >= 0)) {
    throw new RangeError(
      `The timeout is ${describe(timeout)}; it must be 0 or more milliseconds, or omitted.`,
    );
  }
  return wholeMilliseconds(timeout);
}

/** Options are an object, or omitted. */
export function checkOptions(options: unknown): void {
  if (options === undefined || options === null || typeof options === "object") return;
  throw new TypeError(`The options are ${describe(options)}, not an object.`);
}

/** As many structures as a listing call has, in one consistent answer. */
export function readAll(
  structure: string,
  call: (infos: Uint8Array<ArrayBuffer>, capacity: number) => number,
): { infos: Record; count: number } {
  for (let capacity = 32;;) {
    const infos = native().record(structure, capacity);
    const count = check(call(infos.bytes, capacity));
    if (count <= capacity) return { infos, count };
    // Room for some that come between this call and the next.
    capacity = count + 16;
  }
}
