/**
 * Gets what can be compared with onto the machine, as far as that is asked for and possible. None
 * of it is needed: what is absent is named in the output.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { installed } from "../../.ci/system_packages.ts";
import type { Options } from "../options.ts";
import { run } from "../partner.ts";
import { findPostgres } from "./postgres.ts";

/** Where Debian puts the headers of libboost-dev. */
export const BOOST = "/usr/include/boost/interprocess/sync/interprocess_mutex.hpp";

const packages: { name: string; isThere: () => boolean }[] = [
  { name: "hyperfine", isThere: () => installed("hyperfine") !== undefined },
  { name: "redis-server", isThere: () => installed("redis-server") !== undefined },
  { name: "libboost-dev", isThere: () => existsSync(BOOST) },
];

function firstLineOf(error: unknown): string {
  const lines = (error instanceof Error ? error.message : String(error)).split("\n");
  return lines.find((line) => /error|unable|fail|cannot/i.test(line)) ?? lines[0] ?? "";
}

/** Installs Debian's packages if told to. */
async function installPackages(asked: boolean, progress: (text: string) => void): Promise<void> {
  if (!asked) return;
  const missing = [
    ...packages.filter(({ isThere }) => !isThere()).map(({ name }) => name),
    ...(await findPostgres()).missing,
  ];
  if (missing.length === 0) return;
  const apt = installed("apt-get");
  if (apt === undefined || process.getuid?.() !== 0) {
    progress(
      `not installed: ${missing.join(" ")}: ` +
        (apt === undefined ? "this is not a Debian-like system" : "only root can"),
    );
    return;
  }
  const common = ["-qq", "-o", "DPkg::Lock::Timeout=60", "-o", "Acquire::http::Timeout=20"];
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const words = [...common, "install", "--yes", "--no-install-recommends"];
  progress(`apt-get install ${missing.join(" ")}`);
  try {
    await run(apt, [...words, ...missing], env);
  } catch {
    // The lists of packages may be missing or old.
    try {
      await run(apt, [...common, "update"], env);
      await run(apt, [...words, ...missing], env);
    } catch (error) {
      progress(`apt-get failed: ${firstLineOf(error)}`);
    }
  }
}

/** The command that a person would type. */
export function installCommand(folder: string): string {
  return `npm ci --prefix ${folder} --ignore-scripts=false`;
}

/** Installs the npm packages at the versions of package-lock.json; returns why not. */
async function installNpm(
  folder: string,
  progress: (text: string) => void,
): Promise<string | undefined> {
  const lock = join(folder, "package-lock.json");
  if (!existsSync(lock)) return `${lock} is not there`;
  const wanted = createHash("sha256").update(readFileSync(lock)).digest("hex");
  // Inside node_modules, which npm ci removes first: an install that was interrupted has none.
  const stamp = join(folder, "node_modules", ".package-lock.sha256");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return undefined;
  const npm = installed("npm");
  if (npm === undefined) return "npm is not on PATH";
  progress(installCommand(folder));
  try {
    const args = ["ci", "--no-audit", "--no-fund", "--ignore-scripts=false"];
    const patience = ["--fetch-retries=1", "--fetch-timeout=20000"];
    await run(npm, [...args, ...patience, "--prefix", folder]);
  } catch (error) {
    return `npm failed: ${firstLineOf(error)}`;
  }
  writeFileSync(stamp, wanted);
  return undefined;
}

/**
 * Installs what the options ask for: npm's packages in every run that is not quick, Debian's if
 * told to. Returns what could not be.
 */
export async function installPeers(
  options: Options,
  progress: (text: string) => void,
): Promise<string[]> {
  const { isQuick, installsPeers, only, peers } = options;
  await installPackages(installsPeers, progress);
  const usesNpm = only.length === 0 || only.includes("peers");
  if (!installsPeers && (isQuick || !usesNpm)) return [];
  const why = await installNpm(peers, progress);
  return why === undefined ? [] : [`the npm packages: ${why} (${installCommand(peers)})`];
}
