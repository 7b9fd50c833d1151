/**
 * The library for every system that it is built for: the same calls, and for macOS, where no test
 * runs, at least that they are there.
 */

import { assert, assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root, zig, zigEnv } from "../.ci/toolchain.ts";
import { symbols } from "../lib/ffi/symbols.ts";
import { checkKernel } from "../tool/machine.ts";
import { test } from "./_declare.ts";

/** The text that begins there and ends with a zero. */
function textAt(file: DataView, at: number): string {
  const bytes = new Uint8Array(file.buffer, file.byteOffset + at);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

/** What a 64-bit little-endian ELF library gives to others: the symbols that it defines. */
function exportedByElf(file: DataView): string[] {
  assertEquals(file.getUint32(0), 0x7f454c46, "not an ELF file");
  const u64 = (at: number) => Number(file.getBigUint64(at, true));
  const [sections, size, count] = [
    u64(0x28),
    file.getUint16(0x3a, true),
    file.getUint16(0x3c, true),
  ];
  const section = (index: number) => {
    const at = sections + index * size;
    return {
      type: file.getUint32(at + 4, true),
      offset: u64(at + 24),
      size: u64(at + 32),
      link: file.getUint32(at + 40, true),
    };
  };
  const SHT_DYNSYM = 11;
  const found = Array.from({ length: count }, (_, i) => section(i))
    .find(({ type }) => type === SHT_DYNSYM);
  assert(found !== undefined, "no dynamic symbols");
  const names: string[] = [];
  for (let at = found.offset; at < found.offset + found.size; at += 24) {
    const isDefined = file.getUint16(at + 6, true) !== 0;
    if (isDefined) names.push(textAt(file, section(found.link).offset + file.getUint32(at, true)));
  }
  return names.sort();
}

/** The same of a 64-bit Mach-O library, where each name of C has an underscore before it. */
function exportedByMachO(file: DataView): string[] {
  assertEquals(file.getUint32(0, true), 0xfeedfacf, "not a 64-bit Mach-O file");
  const [MH_DYLIB, LC_SYMTAB, N_STAB, N_TYPE, N_SECT, N_EXT] = [6, 2, 0xe0, 0x0e, 0x0e, 0x01];
  assertEquals(file.getUint32(12, true), MH_DYLIB);
  const names: string[] = [];
  let at = 32;
  for (let i = 0; i < file.getUint32(16, true); i++, at += file.getUint32(at + 4, true)) {
    if (file.getUint32(at, true) !== LC_SYMTAB) continue;
    const [offset, count, strings] = [8, 12, 16].map((field) => file.getUint32(at + field, true));
    for (let n = 0; n < (count ?? 0); n++) {
      const symbol = (offset ?? 0) + n * 16;
      const type = file.getUint8(symbol + 4);
      const isExported = (type & N_STAB) === 0 && (type & N_EXT) !== 0 &&
        (type & N_TYPE) === N_SECT;
      if (!isExported) continue;
      names.push(textAt(file, (strings ?? 0) + file.getUint32(symbol, true)).replace(/^_/, ""));
    }
  }
  // Of the linker's own making.
  return names.filter((name) => name !== "__dso_handle" && name !== "_mh_dylib_header").sort();
}

test("the library exports the same calls on every system that it is built for", () => {
  // Warnings are errors there, also in the files of a system that nobody has run them on.
  const { status, stderr } = spawnSync(zig(), ["build", "cross"], {
    cwd: root,
    env: zigEnv(),
    encoding: "utf8",
  });
  assertEquals(status, 0, stderr);
  const view = (path: string): DataView => {
    const { buffer, byteOffset, byteLength } = readFileSync(join(root, "zig-out", "cross", path));
    return new DataView(buffer, byteOffset, byteLength);
  };
  const exported = {
    "x86_64-linux": exportedByElf(view("x86_64-linux/libdsmr.so")),
    "aarch64-linux": exportedByElf(view("aarch64-linux/libdsmr.so")),
    "x86_64-macos": exportedByMachO(view("x86_64-macos/libdsmr.dylib")),
    "aarch64-macos": exportedByMachO(view("aarch64-macos/libdsmr.dylib")),
  };
  const expected = exported["x86_64-linux"];
  assert(expected.length > Object.keys(symbols).length, `${expected}`);
  for (const name of Object.keys(symbols)) assert(expected.includes(name), name);
  for (const name of expected) assert(name.startsWith("dsmr_"), name);
  for (const [target, names] of Object.entries(exported)) assertEquals(names, expected, target);
});

test("the doctor says of macOS that the library for it was built and has never run", () => {
  const host = { arch: "arm64", release: "24.1.0", uid: 501, pid: 1, runtime: "a runtime" };
  const [finding, ...others] = checkKernel({ ...host, platform: "darwin" });
  assertEquals(others, []);
  assertEquals(finding?.status, "warn");
  assert(finding?.found.includes("never run"), finding?.found);
  const [elsewhere] = checkKernel({ ...host, platform: "win32" });
  assertEquals(elsewhere?.status, "fail");
});
