/**
 * Installs the system's programs that some checks need and npm and PyPI do not have: on Debian
 * and its like, as root. Elsewhere, and when that fails, it says so and ends well: the checks
 * that need such a program say that they are skipped.
 *
 * Does nothing, quickly, when they are there.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { arch } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The dynamic loader of musl programs: its place is part of their ABI. */
export const muslLoader: string = `/lib/ld-musl-${arch() === "arm64" ? "aarch64" : "x86_64"}.so.1`;

/** The path of a program, if it is installed. */
export function installed(program: string): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.map((folder) => join(folder, program)).find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The emulator that runs arm64 programs here. */
export function qemu(): string | undefined {
  return installed("qemu-aarch64") ?? installed("qemu-aarch64-static");
}

/** Debian's names of the packages, and whether what we want of them is there. */
const packages: { name: string; isThere: () => boolean }[] = [
  { name: "spin", isThere: () => installed("spin") !== undefined },
  { name: "musl", isThere: () => existsSync(muslLoader) },
  { name: "valgrind", isThere: () => installed("valgrind") !== undefined },
  { name: "hyperfine", isThere: () => installed("hyperfine") !== undefined },
  { name: "qemu-user", isThere: () => arch() === "arm64" || qemu() !== undefined },
];

function missing(): string[] {
  return packages.filter(({ isThere }) => !isThere()).map(({ name }) => name);
}

/** Another set-up may be at work, so it waits for apt's lock; the network may be missing. */
function apt(...args: string[]): boolean {
  const command = [
    ...["-qq", "-o", "DPkg::Lock::Timeout=120"],
    ...["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"],
    ...args,
  ];
  process.stderr.write(`setup: apt-get ${args.join(" ")}\n`);
  const result = spawnSync("apt-get", command, {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    stdio: ["ignore", 2, 2],
    timeout: 5 * 60 * 1000,
  });
  return result.status === 0;
}

function install(names: string[]): boolean {
  return names.length === 0 || apt("install", "--yes", "--no-install-recommends", ...names);
}

/** Returns why something is still missing, or undefined. */
function installMissing(): string | undefined {
  if (missing().length === 0) return undefined;
  if (installed("apt-get") === undefined) return "this is not a Debian-like system";
  if (process.getuid?.() !== 0) return "only root can install packages";
  if (install(missing())) return undefined;
  // The lists of packages may be missing or old.
  apt("update");
  if (install(missing())) return undefined;
  // One that this system does not have must not keep the others away.
  for (const name of missing()) install([name]);
  return missing().length === 0 ? undefined : "apt-get failed";
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const why = installMissing();
  if (why !== undefined) {
    const names = missing().join(" ");
    process.stderr.write(
      `setup: not installed: ${names}: ${why}. Checks that need them are skipped ` +
        `(apt-get install ${names}).\n`,
    );
  }
}
