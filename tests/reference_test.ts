/** `deno task reference`: the API's reference as web pages, made from the docstrings. */

import { assert, assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "./_declare.ts";
import * as library from "../lib/mod.ts";
import { root } from "./_spawn.ts";

interface Tasks {
  tasks: { reference: { command: string } };
}

test("the task writes a page for everything that the library exports, without the network", () => {
  const { tasks } = JSON.parse(readFileSync(join(root, "deno.json"), "utf8")) as Tasks;
  const output = mkdtempSync(join(tmpdir(), "dsmr.reference."));
  try {
    const [program = "", ...args] = tasks.reference.command
      .replace("--output=zig-out/reference", `--output=${output}`).split(" ");
    assert(args.includes(`--output=${output}`), "the task writes elsewhere");
    // A proxy that nobody is: whatever is fetched fails.
    const { status, stdout, stderr } = spawnSync(join(root, program), args, {
      cwd: root,
      encoding: "utf8",
      env: { ...process.env, HTTPS_PROXY: "http://127.0.0.1:9", HTTP_PROXY: "http://127.0.0.1:9" },
    });
    assertEquals(status, 0, stdout + stderr);
    const names = Object.keys(library);
    assert(names.length > 20, names.join());
    const missing = names.filter((name) => !existsSync(join(output, "~", `${name}.html`)));
    assertEquals(missing, []);
    const page = readFileSync(join(output, "~", "Registry.html"), "utf8");
    assert(page.includes("getNamedSegmentSync"));
    assert(readFileSync(join(output, "index.html"), "utf8").includes("@dsmr/registry"));
  } finally {
    rmSync(output, { recursive: true, force: true });
  }
});
