/** What must agree without anything else making it so: header and bindings, seam and layers. */

import { assert, assertEquals } from "@std/assert";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { codes } from "../lib/errors.ts";
import { native } from "../lib/ffi/native.ts";
import { symbols } from "../lib/ffi/symbols.ts";
import { root } from "./_spawn.ts";

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

const header = read("c/dsmr.h").replaceAll(/\/\*[^]*?\*\//g, "");

/** Calls with pointers or types that only C programs can use. */
const cOnly = [
  "dsmr_segment_address",
  "dsmr_segment_size",
  "dsmr_get_named_segment",
  "dsmr_status_name",
];

interface Prototype {
  result: string;
  parameters: string[];
}

/** The exported calls of the header, parameters without their names. */
function prototypes(): Map<string, Prototype> {
  const found = new Map<string, Prototype>();
  for (
    const [, result = "", name = "", list = ""] of header.matchAll(
      /^DSMR_API\s+([\w\s]*?[\s*]+)(dsmr_\w+)\(([^)]*)\);/gm,
    )
  ) {
    const parameters = list.split(",").map((text) =>
      text.trim().replaceAll(/\s+/g, " ").replace(/\w+$/, "").trim()
    );
    found.set(name, { result: result.trim(), parameters });
  }
  return found;
}

function parameterOf(type: string): string {
  if (type.endsWith("*")) return "buffer";
  return { uint32_t: "u32", int32_t: "i32" }[type] ?? `${type}, which has no place in symbols.ts`;
}

test("every call of symbols.ts is in dsmr.h, with the same parameters in the same order", () => {
  const known = prototypes();
  assert(known.size >= 20, `only ${known.size} prototypes found: is the parser broken?`);
  for (const [name, parameters] of Object.entries(symbols)) {
    const prototype = known.get(name);
    assert(prototype !== undefined, `${name} is not in dsmr.h`);
    assertEquals(prototype.result, "int32_t", name);
    assertEquals(prototype.parameters.map(parameterOf), [...parameters], name);
  }
});

test("every call of dsmr.h is in symbols.ts, except those that are for C alone", () => {
  const declared = [...prototypes().keys()].sort();
  assertEquals(declared.length, [...header.matchAll(/^DSMR_API/gm)].length);
  assertEquals([...Object.keys(symbols), ...cOnly].sort(), declared);
});

test("the comment above each call of symbols.ts is its prototype in dsmr.h", () => {
  const squeeze = (text: string) => text.replaceAll(/\s+/g, " ").replaceAll("( ", "(");
  const prototypesIn = squeeze(header);
  const comments = read("lib/ffi/symbols.ts").matchAll(
    /((?:^ {2}\/\/ .*\n)+) {2}(dsmr_\w+): \[/gm,
  );
  let count = 0;
  for (const [, comment = "", name = ""] of comments) {
    const prototype = squeeze(comment.replaceAll(/^ {2}\/\/ /gm, "")).trim();
    assert(prototype.includes(` ${name}(`), `the comment above ${name} is another's`);
    assert(prototypesIn.includes(`DSMR_API ${prototype};`), `not in dsmr.h: ${prototype}`);
    count++;
  }
  assertEquals(count, Object.keys(symbols).length);
});

test("the statuses of dsmr.h are the codes of errors.ts, and the library's numbers", () => {
  const statuses = [...header.matchAll(/^\s*X\((\w+), (-\d+)\)/gm)];
  assertEquals(statuses.map(([, name]) => name), [...codes]);
  for (const [, name = "", value] of statuses) {
    assertEquals(native().number(`DSMR_E_${name}`), Number(value));
    assert(Number(value) < -4096, `${name} could be mistaken for an errno`);
    assertEquals(native().codeOf.get(Number(value)) as string, name);
  }
});

test("every code of errors.ts is explained in its table", () => {
  const table = read("lib/errors.ts").match(/\* \| code \|[^]*?\*\//)?.[0] ?? "";
  for (const code of codes) assert(table.includes(`\`${code}\``), `${code} is not in the table`);
});

/** The TypeScript files below these folders. */
function sources(...folders: string[]): string[] {
  return folders.filter((folder) => existsSync(join(root, folder))).flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") || name.endsWith(".js"))
      .filter((name) => !name.includes("node_modules"))
      .map((name) => `${folder}/${name}`)
  );
}

/** Without comments: prose may name a runtime. */
function code(path: string): string {
  return read(path).replaceAll(/\/\*[^]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "$1");
}

// Put together here, or this file would be found, too.
const names = ["De" + "no", "B" + "un"];
const anyName = `(${names.join("|")})`;
const leaks = [
  `\\b${anyName}(\\?|!)?\\.[a-z]`,
  `["'\`]b${"un:"}`,
  `globalThis\\b.{0,40}\\b${anyName}\\b`,
  `typeof ${anyName}\\b`,
  `["']${anyName}["']\\s+in\\b`,
].map((source) => new RegExp(source));
const isLeak = (text: string) => leaks.some((leak) => leak.test(text));

test("only lib/ffi/deno.ts and lib/ffi/bun.ts know a runtime", () => {
  const paths = sources("lib", "tool", "tests", "examples", "bench", ".ci");
  assert(paths.length > 20, `only ${paths.length} files found`);
  // An example is allowed to be one of its runtime, and a peer of the benchmark to be what only one
  // has; and garbage is collected by a name.
  const seam = [
    "bench/peers/in_bun.ts",
    "bench/peers/in_deno.ts",
    "examples/call_stats/server_bun.ts",
    "examples/call_stats/server_deno.ts",
    "examples/limited_server_bun.ts",
    "examples/limited_server_deno.ts",
    "lib/ffi/bun.ts",
    "lib/ffi/deno.ts",
    "tests/_soak_member.ts",
  ];
  for (const name of names) {
    for (
      const way of ["X.env", "X?.env", "globalThis.X", 'globalThis["X"]', "typeof X", '"X" in a']
    ) {
      assert(isLeak(way.replace("X", name)), `${way} would not be found`);
    }
    assert(!isLeak(`"${name} in words."`));
  }
  const found = paths.filter((path) => isLeak(code(path)));
  assertEquals(found.sort(), seam);
});

/** What each file of lib may import: files further down this list, never up. */
const layers = [
  ["mod.ts", "workers/main.ts", "workers/thread.ts"],
  ["workers/run.ts"],
  ["registry.ts"],
  ["addins/hooks.ts"],
  ["addins/context.ts", "addins/handle.ts"],
  ["addins/addin.ts"],
  ["addins/main_area.ts"],
  ["addins/init_lock.ts"],
  ["addins/directory.ts"],
  ["named_segments.ts", "opening.ts"],
  ["requests.ts"],
  ["workers/workers.ts"],
  ["workers/supervisor.ts", "workers/handle.ts"],
  ["workers/rounds.ts"],
  ["workers/member.ts", "workers/view.ts"],
  ["workers/ends.ts"],
  ["workers/lifecycle.ts"],
  ["workers/rows.ts"],
  ["workers/table.ts"],
  ["workers/spec.ts", "workers/context.ts", "workers/entries.ts"],
  ["changes.ts", "signal.ts"],
  ["signal_words.ts", "layouts.ts"],
  ["backend.ts"],
  ["parking.ts", "web_locks.ts"],
  ["web_locks_request.ts"],
  ["web_locks_arguments.ts"],
  ["parking_rows.ts", "web_locks_table.ts"],
  ["shared_table.ts"],
  ["listing.ts"],
  ["struct/struct.ts"],
  ["struct/fields.ts", "struct/views.ts"],
  ["struct/scalars.ts"],
  ["struct/field.ts"],
  ["struct/atomics.ts", "struct/arrays.ts"],
  ["struct/text.ts"],
  ["struct/memory.ts"],
  ["struct/place.ts", "struct/layout.ts"],
  ["segment.ts"],
  ["lwlock.ts", "tranche.ts"],
  ["lock_tasks.ts"],
  ["lock_queue.ts", "native_lock.ts", "init_scope.ts"],
  ["lock_arguments.ts"],
  ["scope.ts"],
  ["wait.ts"],
  ["ffi/native.ts"],
  ["ffi/unpack.ts"],
  ["ffi/packaged.ts"],
  ["ffi/runtime.ts"],
  ["ffi/deno.ts", "ffi/bun.ts", "ffi/record.ts"],
  ["ffi/symbols.ts"],
  ["own_names.ts"],
  ["aborts.ts", "errors.ts", "promise.ts", "turns.ts"],
];

test("imports in lib point one way: mod, features, seam", () => {
  const files = sources("lib").map((path) => path.slice("lib/".length)).sort();
  assertEquals(files, layers.flat().sort(), "give a new file its place in the layers");
  const layerOf = (file: string) => layers.findIndex((layer) => layer.includes(file));
  for (const file of files) {
    const imports = code(`lib/${file}`).matchAll(
      /^(?:import|export)\s+(type\s)?[^;]*?from\s+"([^"]+)"/gm,
    );
    for (const [, type, specifier = ""] of imports) {
      if (specifier.startsWith("node:")) {
        if (type !== undefined) continue;
        // Each takes Deno milliseconds at every start. These are loaded only where somebody
        // supervises, or is a worker.
        const isLate = ["member", "rounds", "supervisor", "run", "main", "thread"]
          .some((name) => file === `workers/${name}.ts`);
        assert(isLate, `${file} loads ${specifier} at every start`);
        const allowed = file === "workers/member.ts" ? ["node:fs", "node:url"] : [];
        assert([...allowed, "node:process"].includes(specifier), `${file}: ${specifier}`);
        continue;
      }
      assert(/^\.\.?\/.*\.ts$/.test(specifier), `${file} imports ${specifier}`);
      const target = join(file, "..", specifier);
      // Types leave nothing behind at run time; only they may point up.
      const isBelow = layerOf(target) > layerOf(file);
      assert(isBelow || type !== undefined, `${file} imports ${target}, which is above it`);
    }
  }
  for (const seam of ["ffi/deno.ts", "ffi/bun.ts"]) {
    const imports = [...code(`lib/${seam}`).matchAll(/from\s+"(\.[^"]+)"/g)].map(([, s]) => s);
    assertEquals(imports, ["./symbols.ts"], "the seam knows the symbol table alone");
  }
});

/** Entries of a 64-bit little-endian ELF file's dynamic section: tag and value. */
function dynamicSection(elf: DataView): [number, number][] {
  assertEquals(elf.getUint32(0), 0x7f454c46, "not an ELF file");
  assertEquals([elf.getUint8(4), elf.getUint8(5)], [2, 1], "not 64-bit little-endian");
  const begin = Number(elf.getBigUint64(0x20, true));
  const [size, count] = [elf.getUint16(0x36, true), elf.getUint16(0x38, true)];
  const entries: [number, number][] = [];
  for (let at = begin; at < begin + size * count; at += size) {
    const PT_DYNAMIC = 2;
    if (elf.getUint32(at, true) !== PT_DYNAMIC) continue;
    const offset = Number(elf.getBigUint64(at + 8, true));
    const length = Number(elf.getBigUint64(at + 32, true));
    for (let entry = offset; entry < offset + length; entry += 16) {
      const tag = Number(elf.getBigInt64(entry, true));
      if (tag === 0) break;
      entries.push([tag, Number(elf.getBigUint64(entry + 8, true))]);
    }
  }
  return entries;
}

test("libdsmr.so is at most 64 KiB and needs no library: one file for glibc and musl", () => {
  const path = join(root, "zig-out", "lib", "libdsmr.so");
  if (!existsSync(path)) {
    console.log(`not tested: there is no ${path}; not a Linux build`);
    return;
  }
  const { size } = statSync(path);
  assert(size <= 64 * 1024, `${size} bytes`);
  const bytes = readFileSync(path);
  const entries = dynamicSection(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  assert(entries.length > 5, "no dynamic section found: is the parser broken?");
  // The only hash table that it has (c/dsmr.ld): without it no symbol is found.
  const DT_GNU_HASH = 0x6ffffef5;
  assert(entries.some(([tag]) => tag === DT_GNU_HASH), "no .gnu.hash");
  const DT_NEEDED = 1;
  assertEquals(entries.filter(([tag]) => tag === DT_NEEDED), []);
});
