/**
 * Builds the program that uses Boost.Interprocess, where Debian's libboost-dev is installed.
 *
 * @module
 */

import { existsSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { root, zig, zigEnv } from "../../.ci/toolchain.ts";
import { run } from "../partner.ts";
import { BOOST } from "./install.ts";

/** The program's path, or why there is none. */
export async function buildBoost(): Promise<{ path?: string; why?: string }> {
  if (!existsSync(BOOST)) {
    return { why: "Boost.Interprocess: not installed (apt-get install libboost-dev)" };
  }
  const source = join(root, "bench", "peers", "boost.cpp");
  const path = join(root, "zig-out", "bin", "boost");
  if (existsSync(path) && statSync(path).mtimeMs >= statSync(source).mtimeMs) return { path };
  try {
    // The system's headers come last: the C library's are those that Zig brings.
    const args = ["c++", "-std=c++17", "-O2", "-idirafter", "/usr/include", source];
    const made = `${path}.${process.pid}`;
    await run(zig(), [...args, "-o", made], zigEnv() as NodeJS.ProcessEnv);
    renameSync(made, path);
    return { path };
  } catch (error) {
    const lines = (error instanceof Error ? error.message : String(error)).split("\n");
    const line = lines.find((text) => text.includes("error:")) ?? lines[0];
    return { why: `Boost.Interprocess: boost.cpp does not build: ${line}` };
  }
}
