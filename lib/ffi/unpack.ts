/**
 * From a packaged library's bytes to an opened library: through memory where that is possible,
 * else through a file in a private folder.
 *
 * The runtimes open libraries by path only. Memory has one: a file that memfd_create() makes, which
 * no file system holds, is reached as /proc/self/fd/N. The calls for that are libc's, and libc is
 * there already; so FFI alone is enough, nothing is written to a disk, nobody else can change what
 * was written, and neither a read-only home nor a file system mounted noexec is in the way.
 *
 * One difficulty: each thread that runs JavaScript evaluates this module for itself, but the
 * library must be there once in a process, because it keeps what the process has mapped. A file has
 * one inode, by which the dynamic linker knows it again; two memory files have two. And there is no
 * lock to take before a library is loaded. So each thread loads its own copy, and then asks the
 * linker for a library of that name (DT_SONAME, which has the content's hash in it). Of several the
 * linker gives the one that was loaded first. That one is used; the thread's own copy, if it is
 * another, was never called and is let go. Why all that use one use the same: the linker appends
 * to its list, under its lock, and asking counts as a use. While F is used by someone it stays in
 * the list, and nothing was before it when that one asked, so nothing ever will be; whoever asks
 * gets F.
 *
 * musl does not compare these names. There, and where the system forbids one of the steps, the
 * library goes into a file: once for each user, in a folder that only the user can write to,
 * under the hash of its content. Each process compares it byte by byte with what it would have
 * written, so a file that was changed is refused, and one that is half-written has no name yet.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import type { PackagedLibrary } from "./packaged.ts";
import { type Calls, type Runtime, symbols } from "./symbols.ts";

/** On musl this is another name for the libc that there is. */
const LIBC = "libc.so.6";

const MFD_CLOEXEC = 1;
/** No permission to execute it as a program, which systems may demand. Libraries need none. */
const MFD_NOEXEC_SEAL = 8;

/** Opens the packaged library. Throws a DsmrError that says what was tried. */
export function openPackaged(runtime: Runtime, library: PackagedLibrary): Calls {
  const chosen = runtime.environment("DSMR_CACHE") ?? "";
  let whyNotMemory = "";
  if (chosen === "") {
    try {
      return openInMemory(runtime, library);
    } catch (thrown) {
      // The cache would be denied the same thing, and it would be the less clear message.
      if (isDenied(thrown)) throw thrown;
      whyNotMemory = `It could not be loaded from memory (${textOf(thrown)}). `;
    }
  }
  const path = unpacked(runtime, library, chosen, whyNotMemory);
  try {
    return runtime.open(path);
  } catch (thrown) {
    if (isDenied(thrown)) throw thrown;
    // It is the right file, so it is the place that is wrong.
    throw new DsmrError(
      "UNSUPPORTED",
      `${whyNotMemory}Cannot load the native library from ${path}: ${textOf(thrown)}. Set ` +
        "DSMR_CACHE to a folder on a file system that is not mounted noexec, or DSMR_LIBRARY to " +
        "a library.",
      { cause: thrown },
    );
  }
}

/* ---- in memory ---------------------------------------------------------------------- */

function openInMemory(runtime: Runtime, library: PackagedLibrary): Calls {
  const libc = runtime.openOther(LIBC, {
    // Never called: that it is there tells glibc from musl.
    gnu_get_libc_version: [],
    memfd_create: ["buffer", "u32"],
    write: ["i32", "buffer", "usize"],
    close: ["i32"],
  });
  try {
    const { memfd_create, write, close } = libc.calls;
    const name = new TextEncoder().encode(`${library.soname}\0`);
    let descriptor = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    // A kernel before 6.3 does not know the second flag.
    if (descriptor < 0) descriptor = memfd_create(name, MFD_CLOEXEC);
    if (descriptor < 0) throw new Error("the system makes no files in memory");
    try {
      const bytes = bytesOf(library);
      for (let at = 0; at < bytes.length;) {
        const written = write(descriptor, bytes.subarray(at), bytes.length - at);
        if (written <= 0) throw new Error(`only ${at} of ${bytes.length} bytes could be written`);
        at += written;
      }
      // Some call there must be; this one takes the least to make.
      const { dsmr_registry_is_usable } = symbols;
      const own = runtime.openOther(memoryPath(library, descriptor), { dsmr_registry_is_usable });
      try {
        return runtime.open(library.soname);
      } finally {
        own.close();
      }
    } finally {
      close(descriptor);
    }
  } finally {
    libc.close();
  }
}

/**
 * The path of a file in memory, of which the linker takes the same spelling for the same library,
 * also when the descriptor has been closed and its number given to another file. So the spelling
 * has the content's hash in it: a slash more is a 0, a slash and a dot is a 1.
 */
function memoryPath({ soname }: PackagedLibrary, descriptor: number): string {
  const digits = soname.replace(/^libdsmr-|\.so$/g, "");
  const bits = BigInt(`0x${digits}`).toString(2).padStart(digits.length * 4, "0");
  const spelling = bits.replaceAll("0", "/").replaceAll("1", "/.");
  return `/proc/self/fd${spelling}/${descriptor}`;
}

/* ---- in a file ---------------------------------------------------------------------- */

/** What we use of node:fs, which is loaded only where it is needed. */
type FileSystem = typeof import("node:fs");

/** As `process` of node:process has it; but importing that takes Deno 12 ms, for everybody. */
function fileSystem(): FileSystem {
  const { process } = globalThis as unknown as {
    process: { getBuiltinModule(name: "node:fs"): FileSystem };
  };
  return process.getBuiltinModule("node:fs");
}

/** The path of the library's file, which is there and right when this returns. */
function unpacked(
  runtime: Runtime,
  library: PackagedLibrary,
  chosen: string,
  whyNotMemory: string,
): string {
  const directory = cacheDirectory(runtime, chosen, whyNotMemory);
  const path = `${directory}/${library.sha256}.so`;
  const fs = fileSystem();
  const user = userNumber(runtime);
  const bytes = bytesOf(library);
  try {
    // For the user alone, and so are the folders above that are made here.
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
    checkPrivate(fs.lstatSync(directory), directory, user, true);
    if (!isThere(fs, path)) write(fs, path, bytes);
    checkFile(fs, path, bytes, user);
    return path;
  } catch (thrown) {
    if (thrown instanceof DsmrError) throw thrown;
    const code = (thrown as { code?: unknown }).code;
    throw new DsmrError(
      code === "ENOSPC" || code === "EDQUOT" ? "NO_SPACE" : "PERMISSION",
      `${whyNotMemory}Cannot keep the native library as ${path}: ${textOf(thrown)}. ` +
        "Set DSMR_CACHE to a folder that can be written to, or DSMR_LIBRARY to a library, and " +
        "allow the program to read and write there.",
      { cause: thrown },
    );
  }
}

function cacheDirectory(runtime: Runtime, chosen: string, whyNotMemory: string): string {
  if (chosen !== "") {
    if (chosen.startsWith("/")) return chosen.replace(/\/+$/, "");
    throw new DsmrError(
      "NAME_INVALID",
      `DSMR_CACHE is "${chosen}", not an absolute path. Give one that starts with a slash.`,
    );
  }
  // A relative one is to be ignored, says the XDG Base Directory Specification.
  const cache = runtime.environment("XDG_CACHE_HOME") ?? "";
  if (cache.startsWith("/")) return `${cache}/dsmr`;
  const home = runtime.environment("HOME") ?? "";
  if (home.startsWith("/")) return `${home}/.cache/dsmr`;
  throw new DsmrError(
    "UNSUPPORTED",
    `${whyNotMemory}There is no folder to keep the native library in: HOME is not set, or may ` +
      "not be read. Set DSMR_CACHE to a folder, or DSMR_LIBRARY to a library. Where the runtime " +
      "asks for permissions, allow FFI without a path, and reading these variables.",
  );
}

/** The user whose files are ours: libc tells without another permission. */
function userNumber(runtime: Runtime): number {
  const libc = runtime.openOther(LIBC, { geteuid: [] });
  try {
    return libc.calls.geteuid() >>> 0;
  } finally {
    libc.close();
  }
}

function isThere(fs: FileSystem, path: string): boolean {
  try {
    fs.lstatSync(path);
    return true;
  } catch (thrown) {
    if ((thrown as { code?: unknown }).code === "ENOENT") return false;
    throw thrown;
  }
}

/**
 * Writes the file under another name first: whoever dies in between leaves that, which nobody opens.
 * Of several that write at the same time the first one's file stays: where the dynamic linker knows
 * libraries by their inodes alone, another file would be another library in the same process.
 */
function write(fs: FileSystem, path: string, bytes: Uint8Array): void {
  const temporary = `${path}.${globalThis.crypto.randomUUID()}`;
  const descriptor = fs.openSync(temporary, "wx", 0o600);
  try {
    try {
      for (let at = 0; at < bytes.length;) at += fs.writeSync(descriptor, bytes, at);
      // Else a crash of the system could leave the new name with nothing in it.
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    // Whatever the umask has left of the mode.
    fs.chmodSync(temporary, 0o500);
    try {
      fs.linkSync(temporary, path);
    } catch (thrown) {
      if ((thrown as { code?: unknown }).code !== "EEXIST") throw thrown;
    }
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

/**
 * What was checked is what is opened after that: in a folder that is the user's alone nobody else
 * can put another file in its place.
 */
function checkFile(fs: FileSystem, path: string, bytes: Uint8Array, user: number): void {
  checkPrivate(fs.lstatSync(path), path, user, false);
  const found = fs.readFileSync(path);
  if (found.length === bytes.length && bytes.every((byte, at) => byte === found[at])) return;
  throw new DsmrError(
    "CORRUPT",
    `The file ${path} is not the native library that this package has put there: it has ` +
      `${found.length} bytes of other content, ${bytes.length} were written. Somebody has ` +
      "changed it. Remove it, and find out who did.",
    { actual: found.length, requested: bytes.length },
  );
}

function checkPrivate(
  found: ReturnType<FileSystem["lstatSync"]>,
  path: string,
  user: number,
  isDirectory: boolean,
): void {
  const kind = isDirectory ? "folder" : "file";
  const refuse = (what: string, thing = `The ${kind} ${path}`): never => {
    throw new DsmrError(
      "PERMISSION",
      `${thing} ${what}; a native library from there could be anybody's. Remove it, ` +
        "or set DSMR_CACHE to another folder.",
    );
  };
  if (found === undefined) return refuse("is gone");
  // A symbolic link is neither.
  if (!(isDirectory ? found.isDirectory() : found.isFile())) {
    return refuse(found.isSymbolicLink() ? "is a symbolic link" : `is not a ${kind}`, path);
  }
  if (Number(found.uid) !== user) return refuse(`belongs to user ${found.uid}, not to ${user}`);
  const mode = Number(found.mode) & 0o777;
  if ((mode & 0o022) !== 0) return refuse(`can be written to by others (mode ${mode.toString(8)})`);
}

/* ---- helpers ------------------------------------------------------------------------ */

/** By what the runtimes have for it: a loop, which nothing has compiled yet, takes 5 ms. */
function bytesOf({ base64 }: PackagedLibrary): Uint8Array<ArrayBuffer> {
  return (Uint8Array as unknown as {
    fromBase64(text: string): Uint8Array<ArrayBuffer>;
  }).fromBase64(base64);
}

/** Whether the runtime has forbidden FFI, as opposed to the system something. */
function isDenied(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === "NotCapable";
}

/** Without the full stop: it becomes a part of a sentence. */
function textOf(thrown: unknown): string {
  return (thrown instanceof Error ? thrown.message : String(thrown)).replace(/\.$/, "");
}
