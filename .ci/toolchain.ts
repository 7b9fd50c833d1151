/**
 * The pinned tools: where they are, and how they get there.
 *
 * Everything lands inside the repository: npm packages in node_modules, Python packages in
 * .tools. An install becomes visible by its last step, a rename or a stamp file, so that one
 * that was interrupted is done again and never taken for complete.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The repository's folder. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const bin = join(root, "node_modules", ".bin");
const tools = join(root, ".tools");

export const deno = join(bin, "deno");
export const bun = join(bin, "bun");
export const tsc = join(bin, "tsc");

/** build.zig.zon pins Zig; nothing else names the version. */
export const zigVersion = pinnedZigVersion();

const clangTidyVersion = "23.1.4";

/**
 * The oldest versions that the package works in; the gate's steps "oldest" show it. The package and
 * docs/install.md name them. Deno before 2.7.12 makes no socket of a descriptor, by which the
 * library wakes those who wait without blocking; Bun before 1.4 crashed where several Workers
 * loaded a library at once.
 */
export const oldestVersions = { deno: "2.7.12", bun: "1.4.0" } as const;

/** A setup step failed in a way that the user can mend. */
export class SetupError extends Error {
  override name = "SetupError";
}

/** Runs `npm ci` unless node_modules already holds what package-lock.json says. */
export function installNodeModules(): void {
  const lock = readFileSync(join(root, "package-lock.json"));
  const wanted = createHash("sha256").update(lock).digest("hex");
  // Inside node_modules, because npm ci begins by removing that folder.
  const stamp = join(root, "node_modules", ".package-lock.sha256");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  npm(["ci"], root);
  writeFileSync(stamp, wanted);
}

function npm(args: string[], cwd: string): void {
  // Install scripts must run: bun's and deno's put the programs in place.
  const options = ["--no-audit", "--no-fund", "--ignore-scripts=false"];
  run("npm", [...args, ...options], "Install Node.js with npm.", cwd);
}

let zigPath: string | undefined;

/** The path of the pinned Zig, which is installed if need be. */
export function zig(): string {
  zigPath ??= zigOnPath() ?? join(installFromPyPI("ziglang", zigVersion), "ziglang", "zig");
  return zigPath;
}

/** The folder of Zig's standard library and of the libc headers that it brings. */
export function zigLibFolder(): string {
  const env = spawnSync(zig(), ["env"], { encoding: "utf8" });
  const folder = /\.lib_dir = "([^"]+)"/.exec(env.stdout)?.[1];
  if (folder === undefined) throw new SetupError(`zig env names no lib_dir: ${env.stderr}`);
  return folder;
}

/** The environment that Zig runs in. */
export function zigEnv(): Record<string, string | undefined> {
  // Zig compiles its own build system on first use. The debug build of that takes 15 s, the
  // optimised one 90 s, and our build graph is too small to win the difference back.
  return { ...process.env, ZIG_DEBUG_CMD: "1" };
}

/** Removes the lines that ZIG_DEBUG_CMD adds to Zig's output. */
export function withoutZigNoise(output: string): string {
  return output.replace(/^debug: configuration cache .*\n/gm, "");
}

/** The path of the pinned clang-tidy, which is installed if need be. */
export function clangTidy(): string {
  const folder = installFromPyPI("clang-tidy", clangTidyVersion);
  return join(folder, "clang_tidy", "data", "bin", "clang-tidy");
}

/** The programs of {@linkcode oldestVersions}, which are installed if need be. */
export function oldestRuntimes(): { readonly deno: string; readonly bun: string } {
  const { deno, bun } = oldestVersions;
  const folder = installTool(`deno-${deno}-bun-${bun}`, (partial) => {
    mkdirSync(partial);
    // Else npm takes it for a part of a project further up.
    const manifest = { private: true, allowScripts: { deno: true, bun: true } };
    writeFileSync(join(partial, "package.json"), JSON.stringify(manifest));
    npm(["install", "--save-exact", `deno@${deno}`, `bun@${bun}`], partial);
  });
  const programs = join(folder, "node_modules", ".bin");
  return { deno: join(programs, "deno"), bun: join(programs, "bun") };
}

function pinnedZigVersion(): string {
  const manifest = readFileSync(join(root, "build.zig.zon"), "utf8");
  const version = /\.minimum_zig_version = "([^"]+)"/.exec(manifest)?.[1];
  if (version === undefined) throw new SetupError("build.zig.zon names no minimum_zig_version");
  return version;
}

function zigOnPath(): string | undefined {
  const found = spawnSync("zig", ["version"], { encoding: "utf8" });
  return found.status === 0 && found.stdout.trim() === zigVersion ? "zig" : undefined;
}

/** Installs one Python package into a folder of its own; returns the folder. */
function installFromPyPI(name: string, version: string): string {
  const advice = "Install Python 3 with pip (Debian, Ubuntu: apt-get install python3-pip)" +
    (name === "ziglang" ? `, or put zig ${version} on PATH.` : ".");
  return installTool(`${name}-${version}`, (partial) => {
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"];
    run("python3", [...pip, "--target", partial, `${name}==${version}`], advice);
  });
}

/**
 * Makes a folder of this name in .tools, unless it is there: `install` fills another, which then
 * gets the name. Returns its path.
 */
function installTool(name: string, install: (partial: string) => void): string {
  const folder = join(tools, name);
  if (existsSync(folder)) return folder;
  const partial = join(tools, `.partial-${process.pid}`);
  mkdirSync(tools, { recursive: true });
  removeAbandonedInstalls();
  try {
    install(partial);
    try {
      renameSync(partial, folder);
    } catch (error) {
      // Another setup may have been quicker; its folder is as good as ours.
      if (!existsSync(folder)) throw error;
    }
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return folder;
}

/** Removes what interrupted installs left; one that another process is at work on stays. */
function removeAbandonedInstalls(): void {
  for (const entry of readdirSync(tools)) {
    const pid = /^\.partial-(\d+)$/.exec(entry)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) {
      rmSync(join(tools, entry), { recursive: true, force: true });
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Runs a command of an install. Its output goes to stderr: stdout belongs to the task. */
function run(command: string, args: string[], advice: string, cwd = root): void {
  process.stderr.write(`setup: ${[command, ...args].join(" ")}\n`);
  const result = spawnSync(command, args, {
    cwd,
    env: { ...process.env, PIP_ROOT_USER_ACTION: "ignore" },
    stdio: ["ignore", 2, 2],
  });
  if (result.error) {
    throw new SetupError(`cannot run ${command}: ${result.error.message}. ${advice}`);
  }
  if (result.status !== 0) throw new SetupError(`${command} failed. ${advice}`);
}
