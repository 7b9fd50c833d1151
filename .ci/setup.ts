/**
 * Installs the pinned npm packages, Zig, and the oldest runtimes that are tested. Does nothing, quickly, when they are there.
 *
 * Tasks in deno.json start it by `env deno`. A bare `deno` there would be looked up in
 * node_modules/.bin, and deno task runs what it finds there as JavaScript, also a native program.
 * The other tasks name the pinned deno by its path, which avoids that too.
 *
 * npm downloads the exact versions of package-lock.json. Deno has no lock file of its own
 * ("lock": false in deno.json): two lock files for one set of packages would drift apart.
 *
 * @module
 */

import process from "node:process";
import { installNodeModules, oldestRuntimes, SetupError, zig } from "./toolchain.ts";

try {
  installNodeModules();
  zig();
  oldestRuntimes();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  process.stderr.write(`setup: ${error.message}\n`);
  process.exit(1);
}
