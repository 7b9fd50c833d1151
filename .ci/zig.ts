/**
 * Runs the pinned Zig: `deno run -A .ci/zig.ts build test`.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import process from "node:process";
import { root, withoutZigNoise, zig, zigEnv } from "./toolchain.ts";

const result = spawnSync(zig(), process.argv.slice(2), {
  cwd: root,
  env: zigEnv(),
  encoding: "utf8",
  stdio: ["inherit", "inherit", "pipe"],
});
process.stderr.write(withoutZigNoise(result.stderr));
process.exit(result.status ?? 1);
