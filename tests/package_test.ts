/**
 * The package as its users get it: put together, packed, installed into an empty project, type-
 * checked and run there, in both runtimes and as single-file programs. Nothing of it is downloaded.
 */

import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { stage } from "../.ci/package.ts";
import { native } from "../lib/ffi/native.ts";
import type { PackagedLibrary } from "../lib/ffi/packaged.ts";
import type { Report } from "./_agent.ts";
import { after, test } from "./_declare.ts";
import { assertFailed, inScene, type Scene, succeeded } from "./_scene.ts";
import { program, root, type RuntimeName } from "./_spawn.ts";

/** Each suite tests what is run by its own runtime: the other suite does the rest. */
const { name: runtime } = native().runtime;

const folder = mkdtempSync(join(tmpdir(), "dsmr-package-"));
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ran {
  status: number | null;
  printed: string;
}

/** Runs a command to its end, without what the tests' own environment says about libraries. */
function run(command: string[], cwd: string, env: Record<string, string> = {}): Ran {
  const [path = "", ...args] = command;
  const { DSMR_LIBRARY: _library, DSMR_CACHE: _cache, ...inherited } = process.env;
  const { status, stdout, stderr, error } = spawnSync(path, args, {
    cwd,
    env: { ...inherited, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...env },
    encoding: "utf8",
    timeout: 120_000,
  });
  if (error !== undefined) throw error;
  return { status, printed: `${stdout}${stderr}` };
}

function runWell(command: string[], cwd: string, env: Record<string, string> = {}): string {
  const { status, printed } = run(command, cwd, env);
  assertEquals(status, 0, `${command.join(" ")}:\n${printed}`);
  return printed;
}

/** What a program of ours has printed: one line of JSON and nothing else. */
function reportOf(printed: string): Report & { visits: number; maps: string[] } {
  assert(/^\{.*\}\n$/.test(printed), printed);
  return JSON.parse(printed);
}

let staged: string | undefined;

/** The folder of the package, put together when it is asked for the first time. */
function packageFolder(): string {
  if (staged === undefined) stage(staged = join(folder, "package"));
  return staged;
}

let made: string | undefined;

/** An empty project that has installed the package, and one program. */
function project(): string {
  if (made !== undefined) return made;
  const path = join(folder, "project");
  mkdirSync(path);
  if (runtime === "deno") {
    const imports = { "@dsmr/registry": `${packageFolder()}/dist/lib/mod.js` };
    writeFileSync(join(path, "deno.json"), JSON.stringify({ imports }));
  } else {
    writeFileSync(join(path, "package.json"), '{ "private": true, "type": "module" }');
    const destination = join(folder, "tgz");
    runWell([program("bun"), "pm", "pack", "--destination", destination], packageFolder());
    const [tgz = ""] = readdirSync(destination);
    runWell([program("bun"), "add", join(destination, tgz)], path);
  }
  copyFileSync(join(root, "tests", "_package_program.ts"), join(path, "program.ts"));
  copyFileSync(join(root, "tests", "_package_member.ts"), join(path, "member.ts"));
  return made = path;
}

/** Runs the program in the project. */
function runProgram(
  args: string[],
  flags: string[],
  env: Record<string, string> = {},
): string {
  const command = runtime === "deno"
    ? [program("deno"), "run", "--quiet", "--no-prompt", ...flags, "program.ts"]
    : [program("bun"), "run", "program.ts"];
  return runWell([...command, ...args], project(), env);
}

test("the generated modules are the libraries that were built, under their hashes", async () => {
  const modules = join(packageFolder(), "dist");
  for (const arch of ["x86_64", "aarch64"]) {
    const names = readdirSync(modules).filter((name) => name.startsWith(`linux_${arch}-`));
    assertEquals(names.length, 1);
    const library = await import(`${modules}/${names[0]}`) as PackagedLibrary;
    const bytes = Buffer.from(library.base64, "base64");
    assertEquals(createHash("sha256").update(bytes).digest("hex"), library.sha256);
    const built = readFileSync(join(root, "zig-out", "cross", `${arch}-linux`, "libdsmr.so"));
    assertEquals(bytes.length, built.length);
    const digits = createHash("sha256").update(built).digest("hex").slice(0, 16);
    assertEquals(library.soname, `libdsmr-${digits}.so`);
    const at = bytes.indexOf(library.soname);
    assert(at > 0);
    built.write(library.soname, at);
    assertEquals(Buffer.compare(bytes, built), 0);
  }
});

test("what the package exports has the names that it is exported under", async () => {
  const exported: Record<string, unknown> = await import(`${packageFolder()}/dist/lib/mod.js`);
  const expected: Record<string, unknown> = await import("../lib/mod.ts");
  assertEquals(Object.keys(exported).sort(), Object.keys(expected).sort());
  for (const [name, value] of Object.entries(exported)) {
    if (/^[A-Z]/.test(name)) assertEquals((value as { name: string }).name, name);
  }
});

test(`the package works in an empty ${runtime} project, and keeps no file of its own`, () =>
  inScene((scene) => {
    const HOME = join(scene.dir, "home");
    mkdirSync(HOME);
    // In Deno --allow-ffi is all that it needs.
    const env = { HOME, XDG_CACHE_HOME: "", DENO_DIR: join(scene.dir, "deno") };
    for (const visits of [1, 2]) {
      const report = reportOf(runProgram([scene.dir, "0"], ["--allow-ffi"], env));
      assertEquals([report.ok, report.visits], [true, visits]);
    }
    assert(!existsSync(join(HOME, ".cache", "dsmr")));
  }));

for (const way of ["memory", "the cache"]) {
  test(`${runtime} Workers that load the library from ${way} at once share one`, () =>
    inScene((scene) => {
      const cache = join(scene.dir, "dsmr-cache");
      const env: Record<string, string> = way === "memory" ? {} : { DSMR_CACHE: cache };
      // Several times: a race is lost now and then only.
      for (let round = 1; round <= 3; round++) {
        const printed = runProgram([scene.dir, "8"], ["-A"], env);
        const { ok, visits, maps } = reportOf(printed);
        assertEquals([ok, visits, maps.length], [true, 9 * round, 1], printed);
        assert(maps[0]?.includes(way === "memory" ? "memfd:libdsmr-" : cache), printed);
      }
    }));
}

test(`the package's background workers run in a ${runtime} project`, () =>
  inScene((scene) => {
    // What docs/install.md says that a supervisor needs.
    const flags = ["--allow-ffi", "--allow-run", "--allow-env"];
    const printed = runProgram([scene.dir, "supervise"], flags);
    assertEquals(JSON.parse(printed), { ok: true, exitCode: 0, reason: "terminated" });
  }));

test(`in ${runtime} a changed file in the cache is refused, by its path`, () =>
  inScene((scene) => {
    const env = { DSMR_CACHE: join(scene.dir, "cache") };
    reportOf(runProgram([scene.dir, "0"], ["-A"], env));
    const [name = ""] = readdirSync(env.DSMR_CACHE);
    const path = join(env.DSMR_CACHE, name);
    assertEquals(statSync(path).mode & 0o777, 0o500);
    rmSync(path);
    writeFileSync(path, "not a library", { mode: 0o500 });
    const report = reportOf(runProgram([scene.dir, "0"], ["-A"], env));
    assertFailed(report, "CORRUPT", path, "Remove it");
  }));

test(`in ${runtime} a system that the package brings no library for is named`, () =>
  inScene((scene) => {
    const path = join(project(), "elsewhere.ts");
    writeFileSync(
      path,
      `import process from "node:process";
Object.defineProperty(process, "arch", { value: "riscv64" });
const { ["De" + "no"]: it } = globalThis;
if (it !== undefined) {
  Object.defineProperty(it, "build", { value: { ...it.build, arch: "riscv64" } });
}
await import("./program.ts");
`,
    );
    const { status, printed } = run(
      runtime === "deno"
        ? [program("deno"), "run", "--quiet", "-A", path, scene.dir]
        : [program("bun"), "run", path, scene.dir],
      project(),
    );
    assertEquals(status, 0, printed);
    const texts = [`${process.platform} riscv64`, "Linux (x64 or arm64)", "DSMR_LIBRARY"];
    assertFailed(reportOf(printed), "UNSUPPORTED", ...texts);
  }));

test(`DSMR_LIBRARY goes before the library of the package in ${runtime}`, () =>
  inScene((scene) => {
    const DSMR_LIBRARY = join(scene.dir, "no-library.so");
    const printed = runProgram([scene.dir, "0"], ["-A"], { DSMR_LIBRARY });
    assertFailed(reportOf(printed), "UNSUPPORTED", DSMR_LIBRARY, "Unset DSMR_LIBRARY");
  }));

/** Tests of what only one runtime has. */
function testIn(name: RuntimeName, what: string, body: () => void | Promise<void>): void {
  if (runtime === name) test(what, body);
}

testIn("deno", "in Deno the package says which permission is missing", () =>
  inScene((scene) => {
    const args = [scene.dir, "0"];
    const none = reportOf(runProgram(args, []));
    assertFailed(none, "UNSUPPORTED", "libdsmr", "--allow-ffi, without a path");
    const elsewhere = reportOf(runProgram(args, ["--allow-ffi=/no/such/folder"]));
    assertFailed(elsewhere, "UNSUPPORTED", "libdsmr", "--allow-ffi, without a path");
    // Only who asks for a cache needs more, and is told what. (Below /dev Deno wants all.)
    const env = { DSMR_CACHE: join(folder, "cache") };
    const flags = ["--allow-ffi", "--allow-env=DSMR_CACHE"];
    assertFailed(reportOf(runProgram(args, flags, env)), "PERMISSION", "--allow-write");
    const all = [...flags, `--allow-read=${folder}`, `--allow-write=${folder}`];
    succeeded(reportOf(runProgram(args, all, env)));
  }));

/** It works where its sources are not; and it does not start itself as a background worker. */
function worksAsSingleFile(scene: Scene, target: string): void {
  const report = reportOf(runWell([target, scene.dir, "0"], scene.dir));
  assertEquals([report.ok, report.visits], [true, 1]);
  const supervising = reportOf(runWell([target, scene.dir, "supervise"], scene.dir));
  assertFailed(supervising, "INIT_FAILED", "could not be started", "compiled into a single file");
  rmSync(target);
}

testIn("bun", "tsc checks a program with the installed package, its declarations too", () => {
  const path = project();
  for (const name of ["bun-types", "@types", "undici-types"]) {
    const target = join(path, "node_modules", name);
    if (!existsSync(target)) symlinkSync(join(root, "node_modules", name), target);
  }
  const compilerOptions = {
    ...{ target: "esnext", module: "esnext", moduleResolution: "bundler", lib: ["esnext"] },
    ...{ types: ["bun-types"], noEmit: true, allowImportingTsExtensions: true },
    ...{ strict: true, skipLibCheck: false },
  };
  const tsc = [join(root, "node_modules", ".bin", "tsc"), "-p", "."];
  const write = (include: string[]) =>
    writeFileSync(join(path, "tsconfig.json"), JSON.stringify({ compilerOptions, include }));
  write(["program.ts"]);
  assertEquals(runWell(tsc, path), "");
  // That it has seen the types: a wrong one is refused.
  writeFileSync(
    join(path, "wrong.ts"),
    'import { Registry } from "@dsmr/registry";\nRegistry.openSync(5);\n',
  );
  write(["wrong.ts"]);
  const { status, printed } = run(tsc, path);
  assert(status !== 0 && printed.includes("wrong.ts(2,"), printed);
});

testIn(
  "bun",
  "bun build --compile makes a single-file program that works elsewhere",
  () =>
    inScene((scene) => {
      const target = join(folder, "single-bun");
      const build = ["build", "--compile", "program.ts", "--outfile", target];
      runWell([program("bun"), ...build], project());
      worksAsSingleFile(scene, target);
    }),
);

testIn(
  "deno",
  "deno compile makes a single-file program that works elsewhere",
  () =>
    inScene((scene) => {
      const target = join(folder, "single-deno");
      // It puts into the program what it finds by reading the imports.
      const graph = runWell([program("deno"), "info", "--no-remote", "program.ts"], project());
      for (const arch of ["x86_64", "aarch64"]) assert(graph.includes(`linux_${arch}-`), graph);
      const build = ["compile", "-A", "--output", target, "program.ts"];
      const { status, printed } = run([program("deno"), ...build], project());
      // It needs a second program of Deno's, which it downloads.
      const [, denort] = /^Download (\S*denort\S*)$/m.exec(printed) ?? [];
      if (status !== 0 && denort !== undefined && /error sending request/.test(printed)) {
        return console.log(`skipped: deno compile cannot download ${denort}`);
      }
      assertEquals(status, 0, printed);
      worksAsSingleFile(scene, target);
    }),
);
