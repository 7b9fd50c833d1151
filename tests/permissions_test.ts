/** Deno's permissions: --allow-ffi is enough, and without it the error says so. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import type { Report } from "./_agent.ts";
import { assertFailed, inScene, type Scene, succeeded } from "./_scene.ts";
import { Child, commandLine, root } from "./_spawn.ts";
import { hasTerminals, onTerminal, RunningTool } from "./_tool.ts";

/** Runs the program with these flags; its report, which must be all that it prints. */
async function run(
  scene: Scene,
  flags: string[],
  dir: string[] = [scene.dir],
  env: Record<string, string> = {},
): Promise<Report> {
  const command = commandLine("deno", "_permissions.ts", ["--no-prompt", ...flags]);
  const child = scene.adopt(new Child([...command, ...dir], env));
  const report = await child.next();
  assertEquals(await child.ended, "exit code 0", child.printed);
  assertEquals(child.printed.trim(), JSON.stringify(report));
  return report;
}

test("in Deno the package works with --allow-ffi alone", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const first = succeeded(await run(scene, ["--allow-ffi"]));
    assertEquals([first.found, first.size, first.value], [false, 64, 5]);
    const second = succeeded(await run(scene, ["--allow-ffi"]));
    assertEquals([second.found, second.size, second.value], [true, 64, 5]);
    assertEquals(new Uint8Array(registry.getNamedSegmentSync("a").buffer)[0], 5);
  }));

test("DSMR_DIR counts in Deno with and without the permission to read it", () =>
  inScene(async (scene) => {
    const env = { DSMR_DIR: scene.dir };
    assertEquals((await run(scene, ["--allow-ffi"], [], env)).found, false);
    assertEquals((await run(scene, ["--allow-ffi", "--allow-env"], [], env)).found, true);
  }));

test("at a terminal Deno asks once, for all of FFI, and a yes is enough", async () => {
  if (!hasTerminals()) {
    return console.log("skipped: Deno that asks: script of util-linux is not installed");
  }
  await inScene(async (scene) => {
    // With a flag for another path, too.
    for (const flags of [[], ["--allow-ffi=/nowhere"]]) {
      const command = [...commandLine("deno", "_permissions.ts", flags), scene.dir];
      const asked = new RunningTool(onTerminal(command), {});
      await asked.says(/\[y\/n\/A\]/);
      // It throws away what comes before it reads, so again until it has read.
      const again = setInterval(() => asked.type("y\n"), 100);
      try {
        await asked.says(/Granted|Denied/);
      } finally {
        clearInterval(again);
      }
      assertEquals(await asked.ended, 0, asked.out);
      assertStringIncludes(asked.out, '{"ok":true');
      assertEquals(asked.out.match(/\[y\/n\/A\]/g)?.length, 1, asked.out);
    }
  });
});

/* Negative tests. */

test("without --allow-ffi the error is UNSUPPORTED, names the library and says what to do", () =>
  inScene(async (scene) => {
    for (const flags of [[], ["--allow-read", "--allow-env"], ["--deny-ffi"]]) {
      assertFailed(await run(scene, flags), "UNSUPPORTED", "--allow-ffi", "libdsmr");
    }
    assertEquals(scene.files(), []);
  }));

test("--allow-ffi with a path is PERMISSION, and says to leave the path out", () =>
  inScene(async (scene) => {
    const flag = `--allow-ffi=${process.env["DSMR_LIBRARY"] ?? `${root}/zig-out`}`;
    assertFailed(
      await run(scene, [flag]),
      "PERMISSION",
      '"a"',
      "--allow-ffi without a path",
    );
    assertEquals([...scene.open().segments()], []);
  }));

test("a library that is not there is UNSUPPORTED, by its path, and says how to build it", () =>
  inScene(async (scene) => {
    const env = { DSMR_LIBRARY: `${root}/no/such/library.so` };
    const report = await run(scene, ["-A"], [scene.dir], env);
    assertFailed(
      report,
      "UNSUPPORTED",
      env.DSMR_LIBRARY,
      ". Build it",
      "npx --yes deno task build",
    );
    assert(process.env["DSMR_LIBRARY"] !== env.DSMR_LIBRARY);
  }));
