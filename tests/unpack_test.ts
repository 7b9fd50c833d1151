/**
 * The packaged library as a file in the user's cache, which is what is left where the system loads
 * none from memory. `package_test.ts` has the same from whole packages, and the way through memory.
 */

import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { native } from "../lib/ffi/native.ts";
import type { PackagedLibrary } from "../lib/ffi/packaged.ts";
import type { Calls, OtherLibrary, Runtime } from "../lib/ffi/symbols.ts";
import { openPackaged } from "../lib/ffi/unpack.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene } from "./_scene.ts";
import { root } from "./_spawn.ts";

/** Every byte that there is: what a library is made of does not matter to who keeps it. */
const bytes = Uint8Array.from({ length: 70_000 }, (_, at) => at * 31 >> 3);
const library: PackagedLibrary = {
  soname: "libdsmr-0011223344556677.so",
  sha256: createHash("sha256").update(bytes).digest("hex"),
  base64: Buffer.from(bytes).toString("base64"),
};

/** What the fake system is like. */
interface System {
  /** The variables that can be read. */
  environment?: Record<string, string>;
  /** Who we are, if somebody else. */
  user?: number;
  /** What opening the file fails with. */
  refusal?: Error;
}

/** This runtime in a system that makes no files in memory. Opens nothing: returns the path. */
function open({ environment = {}, user, refusal }: System): string {
  const { runtime } = native();
  let opened = "";
  const fake: Runtime = {
    ...runtime,
    environment: (name) => environment[name],
    openOther<Name extends string>(
      path: string,
      table: Parameters<typeof runtime.openOther<Name>>[1],
    ): OtherLibrary<Name> {
      if ("memfd_create" in table) throw new Error("no files in memory.");
      const other = runtime.openOther(path, table);
      if (user === undefined || !("geteuid" in table)) return other;
      const calls = { ...other.calls, geteuid: () => user };
      return { calls, close: () => other.close() };
    },
    open(path) {
      if (refusal !== undefined) throw refusal;
      opened = path;
      return {} as Calls;
    },
  };
  openPackaged(fake, library);
  return opened;
}

/** The path in a folder that may become a cache. */
function fileIn(folder: string): string {
  return join(folder, `${library.sha256}.so`);
}

function mode(path: string): number {
  return statSync(path).mode & 0o7777;
}

test("the library is kept under its hash, for its user alone, and used from then on", () =>
  inScene(({ dir }) => {
    const HOME = join(dir, "home");
    const cache = join(HOME, ".cache", "dsmr");
    const before = process.umask(0);
    try {
      assertEquals(open({ environment: { HOME } }), fileIn(cache));
    } finally {
      process.umask(before);
    }
    assertEquals([mode(cache), mode(fileIn(cache))], [0o700, 0o500]);
    assertEquals(new Uint8Array(readFileSync(fileIn(cache))), bytes);
    assertEquals(readdirSync(cache), [`${library.sha256}.so`]);

    const { ino } = statSync(fileIn(cache));
    assertEquals(open({ environment: { HOME } }), fileIn(cache));
    assertEquals(statSync(fileIn(cache)).ino, ino);
  }));

test("DSMR_CACHE goes before XDG_CACHE_HOME, and that before HOME", () =>
  inScene(({ dir }) => {
    const [HOME, XDG_CACHE_HOME, DSMR_CACHE] = ["h", "x", "d"].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    assertEquals(
      open({ environment: { HOME, XDG_CACHE_HOME, DSMR_CACHE: `${DSMR_CACHE}/` } }),
      fileIn(DSMR_CACHE),
    );
    assertEquals(
      open({ environment: { HOME, XDG_CACHE_HOME } }),
      fileIn(join(XDG_CACHE_HOME, "dsmr")),
    );
    assert(!existsSync(HOME));
    // The specification has relative ones ignored.
    const XDG_RELATIVE = { HOME, XDG_CACHE_HOME: "cache" };
    assertEquals(open({ environment: XDG_RELATIVE }), fileIn(join(HOME, ".cache", "dsmr")));
  }));

test("what was left by one who died while writing is in nobody's way", () =>
  inScene(({ dir }) => {
    writeFileSync(`${fileIn(dir)}.7f4c`, "half");
    assertEquals(open({ environment: { DSMR_CACHE: dir } }), fileIn(dir));
    assertEquals(new Uint8Array(readFileSync(fileIn(dir))), bytes);
  }));

test("of two that unpack at the same time the first one's file stays", () =>
  inScene(({ dir }) => {
    const environment = { DSMR_CACHE: dir };
    // The second has seen that there is none; before it has made its own, the first is done.
    const { randomUUID } = crypto;
    let first = 0;
    crypto.randomUUID = () => {
      crypto.randomUUID = randomUUID;
      first = statSync(open({ environment })).ino;
      return crypto.randomUUID();
    };
    try {
      open({ environment });
    } finally {
      crypto.randomUUID = randomUUID;
    }
    assert(first !== 0, "nothing was written at the same time");
    assertEquals(statSync(fileIn(dir)).ino, first);
    assertEquals(readdirSync(dir).length, 1);
  }));

/* Negative tests. */

test("a file in the cache with one byte changed, cut or grown is CORRUPT, by its path", () =>
  inScene(({ dir }) => {
    const environment = { DSMR_CACHE: dir };
    const path = open({ environment });
    const changed = Uint8Array.from(bytes);
    changed[69_999] = (changed[69_999] ?? 0) ^ 1;
    for (const content of [changed, bytes.subarray(1), new Uint8Array(70_001), new Uint8Array()]) {
      chmodSync(path, 0o700);
      writeFileSync(path, content);
      chmodSync(path, 0o500);
      const error = assertFails(() => open({ environment }), "CORRUPT", path, "Remove it");
      assertEquals([error.actual, error.requested], [content.length, bytes.length]);
      assertEquals(readFileSync(path).length, content.length);
    }
  }));

test("a file or a folder that others can write to is refused, by its path and mode", () =>
  inScene(({ dir }) => {
    const environment = { DSMR_CACHE: join(dir, "cache") };
    const path = open({ environment });
    for (const [target, bits] of [[path, 0o520], [path, 0o502], [environment.DSMR_CACHE, 0o770]]) {
      const before = mode(String(target));
      chmodSync(String(target), Number(bits));
      const octal = Number(bits).toString(8);
      assertFails(() => open({ environment }), "PERMISSION", target ?? "", `mode ${octal}`);
      chmodSync(String(target), before);
    }
    assertEquals(open({ environment }), path);
  }));

test("a cache of another user is refused, and says whose it is", () =>
  inScene(({ dir }) => {
    const environment = { DSMR_CACHE: join(dir, "cache") };
    open({ environment });
    const { uid } = statSync(environment.DSMR_CACHE);
    const user = uid + 1;
    const text = `belongs to user ${uid}, not to ${user}`;
    assertFails(() => open({ environment, user }), "PERMISSION", environment.DSMR_CACHE, text);
  }));

test("symbolic links and other things in the place of the file or the folder are refused", () =>
  inScene(({ dir }) => {
    const DSMR_CACHE = join(dir, "cache");
    const environment = { DSMR_CACHE };
    const path = open({ environment });
    renameSync(path, join(dir, "library"));
    symlinkSync(join(dir, "library"), path);
    assertFails(() => open({ environment }), "PERMISSION", `${path} is a symbolic link`);

    renameSync(path, join(dir, "link"));
    mkdirSync(path);
    assertFails(() => open({ environment }), "PERMISSION", path, "is not a file");

    renameSync(DSMR_CACHE, join(dir, "other"));
    symlinkSync(join(dir, "other"), DSMR_CACHE);
    assertFails(() => open({ environment }), "PERMISSION", `${DSMR_CACHE} is a symbolic link`);
  }));

test("a folder from which no library can be loaded is named, and another one advised", () =>
  inScene(({ dir }) => {
    const environment = { DSMR_CACHE: dir };
    const refusal = new Error("failed to map segment from shared object.");
    const advice = ["Set DSMR_CACHE to a folder", "noexec", refusal.message];
    assertFails(() => open({ environment, refusal }), "UNSUPPORTED", fileIn(dir), ...advice);
  }));

test("a home that cannot be written to is PERMISSION, and says what else there is", () => {
  // Nobody can make a folder there, root neither.
  const HOME = "/sys";
  const advice = ["no files in memory", "DSMR_CACHE", "DSMR_LIBRARY"];
  assertFails(() => open({ environment: { HOME } }), "PERMISSION", "/sys/.cache/dsmr", ...advice);
});

test("a home that is a file is PERMISSION, by the path that was tried", () =>
  inScene(({ dir }) => {
    const HOME = join(dir, "file");
    writeFileSync(HOME, "");
    assertFails(() => open({ environment: { HOME } }), "PERMISSION", HOME, "DSMR_CACHE");
  }));

test("without a home there is UNSUPPORTED, and says why not from memory", () => {
  for (const environment of [{}, { HOME: "" }, { HOME: "relative" }]) {
    assertFails(() => open({ environment }), "UNSUPPORTED", "HOME", "no files in memory");
  }
});

test("DSMR_CACHE that is not absolute is NAME_INVALID", () => {
  assertFails(() => open({ environment: { DSMR_CACHE: "a/b" } }), "NAME_INVALID", '"a/b"');
});

test("calls that are used for the first time are those of the library that was opened", () =>
  inScene((scene) => {
    const name = process.platform === "darwin" ? "libdsmr.dylib" : "libdsmr.so";
    const path = join(scene.dir, name);
    copyFileSync(join(root, "zig-out", "lib", name), path);
    const calls = native().runtime.open(path);
    const text = new Uint8Array(1);
    const length = calls.dsmr_abi(text, 1);
    // As an upgrade does it: another file under that name.
    writeFileSync(`${path}.new`, "no library");
    renameSync(`${path}.new`, path);
    assertEquals(calls.dsmr_abi(text, 1), length);
    assertEquals(calls.dsmr_registry_is_usable(0), native().calls.dsmr_registry_is_usable(0));
    assert(calls.dsmr_lock_release(0) < 0);
  }));
