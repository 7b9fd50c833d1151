/**
 * docs/install.md as a new user walks through it: from an empty folder, in this suite's runtime,
 * with the commands and programs that stand there, word for word. Only where the package comes from
 * is another place: nothing is downloaded, so the registries' part is played by what they would be
 * sent, and by what JSR would make of it for npm.
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { stageNpmForm } from "../.ci/npm_form.ts";
import { stage } from "../.ci/package.ts";
import { oldestVersions } from "../.ci/toolchain.ts";
import { native } from "../lib/ffi/native.ts";
import { Registry } from "../lib/mod.ts";
import { after, test } from "./_declare.ts";
import { inScene, type Scene, until } from "./_scene.ts";
import { program, root } from "./_spawn.ts";
import { hasTerminals, RunningTool } from "./_tool.ts";

/** The other suite walks in the other one. */
const { name: runtime } = native().runtime;

const guide = readFileSync(join(root, "docs", "install.md"), "utf8");

/** The blocks of code below a heading, up to the next one. */
function blocks(heading: string, language: string): string[] {
  const [, rest = ""] = guide.split(new RegExp(`^#+ ${heading}$`, "m"), 2);
  const [section = ""] = rest.split(/^#+ /m, 1);
  const found = [...section.matchAll(/^```(\w+)\n([^]*?)^```$/gm)]
    .filter(([, name]) => name === language).map(([, , text = ""]) => text);
  assert(found.length > 0, `docs/install.md has no ${language} below "${heading}".`);
  return found;
}

/** The command of this runtime below a heading: each has one of each. */
function command(heading: string): string {
  const found = blocks(heading, "sh").map((text) => text.trim());
  assertEquals(found.map((line) => line.split(/x?[ ]/, 1)[0]), ["deno", "bun"], heading);
  return found[runtime === "deno" ? 0 : 1] ?? "";
}

const folder = mkdtempSync(join(tmpdir(), "dsmr-walk-"));
after(() => rmSync(folder, { recursive: true, force: true }));

/** As if they were installed: by their plain names. */
const programs = join(folder, "bin");
mkdirSync(programs);
for (const name of ["deno", "bun"] as const) symlinkSync(program(name), join(programs, name));

function environment(scene?: Scene): Record<string, string> {
  return {
    PATH: `${programs}:${process.env["PATH"]}`,
    // A home, and caches, in which nothing is.
    HOME: folder,
    XDG_CACHE_HOME: "",
    DENO_DIR: join(folder, "deno"),
    BUN_INSTALL_CACHE_DIR: join(folder, "bun"),
    DSMR_LIBRARY: "",
    DSMR_CACHE: "",
    NO_COLOR: "1",
    DENO_NO_UPDATE_CHECK: "1",
    ...(scene === undefined ? {} : { DSMR_DIR: scene.dir }),
  };
}

interface Ran {
  status: number | null;
  printed: string;
}

/** Types a line into a shell, and waits. */
function ran(line: string, cwd: string, env: Record<string, string>): Ran {
  const { status, stdout, stderr, error } = spawnSync("sh", ["-c", line], {
    cwd,
    env: { ...process.env, ...env },
    encoding: "utf8",
    timeout: 120_000,
  });
  if (error !== undefined) throw error;
  return { status, printed: `${stdout}${stderr}` };
}

function well(line: string, cwd: string, env: Record<string, string>): string {
  const { status, printed } = ran(line, cwd, env);
  assertEquals(status, 0, `${line}:\n${printed}`);
  return printed;
}

const packageFolder = join(folder, "package");

/** Packs a folder; the path of the .tgz. */
function packed(from: string): string {
  const to = join(folder, `packed-${from.split("/").at(-1)}`);
  well(`bun pm pack --destination '${to}'`, from, environment());
  const [name = ""] = readdirSync(to);
  return join(to, name);
}

const CHECKOUT = "../dsmr/zig-out/package";

/** How it comes into a project. */
const ways: { readonly [name: string]: (project: string) => void } = runtime === "deno"
  ? {
    "from a checkout": (project) => {
      const [text = ""] = blocks("From a checkout", "json");
      assert(text.includes(`"${CHECKOUT}/`), text);
      writeFileSync(join(project, "deno.json"), text.replaceAll(CHECKOUT, packageFolder));
    },
    "as JSR has it": (project) => {
      const [add = ""] = blocks("Install", "sh");
      const [, name = ""] = /^deno add jsr:(\S+)\n$/.exec(add) ?? [];
      // What is sent to that registry, and no more.
      const published = join(folder, "jsr");
      const manifest = readFileSync(join(packageFolder, "deno.json"), "utf8");
      const { publish, version } = JSON.parse(manifest);
      for (const entry of publish.include as string[]) {
        cpSync(join(packageFolder, entry), join(published, entry), { recursive: true });
      }
      // `deno add` writes the second line. The first says that this package is here.
      // Not by its whole path, of which Deno 2.7 makes another one.
      const links = ["../jsr"];
      const imports = { [name]: `jsr:${name}@^${version}` };
      writeFileSync(join(project, "deno.json"), JSON.stringify({ links, imports }));
    },
  }
  : {
    "as a .tgz": (project) => {
      const [line = ""] = blocks("From a checkout", "sh");
      const [path = ""] = /\S+\.tgz/.exec(line) ?? [];
      assert(path.startsWith(`${CHECKOUT}/`), line);
      const tgz = packed(packageFolder);
      assertEquals(path.split("/").at(-1), tgz.split("/").at(-1));
      well(line.replace(path, tgz), project, environment());
    },
    "as JSR makes it for npm": (project) => {
      const form = join(folder, "npm-form");
      stageNpmForm(packageFolder, form);
      // `bunx jsr add @dsmr/registry` ends in this line, with the address of that registry.
      well(`bun add '@dsmr/registry@${packed(form)}'`, project, environment());
    },
  };

const made = new Map<string, string>();

/** The folder of a user who has installed the package that way, and saved the programs. */
function project(way: string): string {
  const there = made.get(way);
  if (there !== undefined) return there;
  if (made.size === 0) stage(packageFolder);
  const path = join(folder, `project-${made.size}`);
  mkdirSync(path);
  ways[way]?.(path);
  for (const [name, heading] of [["first", "The first segment"], ["lock", "The first lock"]]) {
    writeFileSync(join(path, `${name}.ts`), blocks(heading ?? "", "ts")[0] ?? "");
  }
  made.set(way, path);
  return path;
}

/** Types a line into a shell that nobody waits for; or into a terminal. */
function started(line: string, cwd: string, scene: Scene, onTerminal = false): RunningTool {
  const words = `cd '${cwd}' && exec ${line}`;
  return new RunningTool(
    onTerminal
      ? ["script", "-qec", `stty cols 100 rows 24; ${words}`, "/dev/null"]
      : ["sh", "-c", words],
    environment(scene),
  );
}

test("the guide names the oldest versions that are tested", () => {
  for (const [name, version] of Object.entries(oldestVersions)) {
    assertMatch(guide, new RegExp(`^\\| ${name} +\\| ${version.replaceAll(".", "\\.")} `, "im"));
  }
});

for (const way of Object.keys(ways)) {
  test(`${runtime}, ${way}: the first segment is made, and found from then on`, () =>
    inScene((scene) => {
      const path = project(way);
      const line = command("The first segment");
      if (runtime === "deno") assert(line.includes(" --allow-ffi "), "no more than that is needed");
      const env = environment(scene);
      assertEquals(well(line, path, env), "made it visit 1\n");
      assertEquals(well(line, path, env), "found it visit 2\n");
    }));

  test(`${runtime}, ${way}: the first lock is waited for, seen by dsmr top, and inherited`, () =>
    inScene(async (scene) => {
      const path = project(way);
      const env = environment(scene);
      well(command("The first segment"), path, env);
      const registry = Registry.openSync("first", { dir: scene.dir, mode: "attach" });
      scene.atEnd(() => registry.close());

      const line = command("The first lock");
      const first = started(line, path, scene);
      await first.says(/^I have the lock$/m);
      const second = started(line, path, scene);
      await until(() => [...registry.waits()].length === 1);

      const top = command("Looking at it");
      const seen = new RegExp(`visits.*${first.pid} exclusive.*${second.pid} exclusive`);
      assertMatch(well(`${top} --count 1`, path, env), seen);
      if (hasTerminals()) {
        const live = started(top, path, scene, true);
        await live.says(seen);
        live.type("q");
        assertEquals(await live.ended, 0);
      } else {
        console.log("skipped: dsmr top on a terminal: there is no script of util-linux");
      }

      // Ctrl-C.
      first.kill("SIGINT");
      await first.ended;
      await second.says(/^whoever had it before was ended inside\nI have the lock$/m);
      second.kill("SIGINT");
      await second.ended;

      assertMatch(well(command("Tidying up"), path, env), /first/);
      assertEquals([...Registry.list({ dir: scene.dir })], []);
    }));
}

if (runtime === "deno") {
  test("deno check is content with a program and the package, however it was installed", () => {
    for (const way of Object.keys(ways)) {
      const path = project(way);
      well("deno check first.ts lock.ts", path, environment());
      writeFileSync(
        join(path, "wrong.ts"),
        'import { Registry } from "@dsmr/registry";\nRegistry.openSync(5);\n',
      );
      const { status, printed } = ran("deno check wrong.ts", path, environment());
      assert(status !== 0 && printed.includes("wrong.ts:2:"), printed);
    }
  });

  test("in deno a single file is compiled, and works without the rest", () =>
    inScene((scene) => {
      for (const way of Object.keys(ways)) {
        const path = project(way);
        const env = environment(scene);
        const line = command("A single file");
        const { status, printed } = ran(line, path, env);
        if (status === 0) {
          assertSingleFile(scene, path);
          continue;
        }
        const [, denort] = /^Download (\S*denort\S*)$/m.exec(printed) ?? [];
        assert(denort !== undefined && /error sending request/.test(printed), printed);
        // All but that: what is put into the program is found by reading the imports. The whole
        // runtime can stand for the part that is missing, until the program is started.
        const embedded = well(line, path, { ...env, DENORT_BIN: program("deno") });
        assertMatch(embedded, /\bfirst\.ts \(/);
        assertMatch(embedded, /\blinux_\w+-\w+\.js \(\d+/);
        rmSync(join(path, "first"));
        console.log(`skipped: starting what deno compile makes: it cannot download ${denort}`);
      }
    }));
} else {
  test("in bun a single file is compiled, and works without the rest", () =>
    inScene((scene) => {
      for (const way of Object.keys(ways)) {
        const path = project(way);
        well(command("A single file"), path, environment(scene));
        assertSingleFile(scene, path);
      }
    }));

  test("in bun tsc is content with a program and the package, however it was installed", () => {
    for (const way of Object.keys(ways)) {
      const path = project(way);
      for (const name of ["bun-types", "@types", "undici-types"]) {
        symlinkSync(join(root, "node_modules", name), join(path, "node_modules", name));
      }
      const [text = ""] = blocks("Type checking", "json");
      const { compilerOptions } = JSON.parse(text);
      // JavaScript needs no leave to name TypeScript.
      if (way === "as JSR makes it for npm") delete compilerOptions.allowImportingTsExtensions;
      const check = (file: string): Ran => {
        const config = JSON.stringify({ compilerOptions, include: [file] });
        writeFileSync(join(path, "tsconfig.json"), config);
        return ran(`'${join(root, "node_modules", ".bin", "tsc")}' -p .`, path, environment());
      };
      for (const file of ["first.ts", "lock.ts"]) {
        assertEquals(check(file), { status: 0, printed: "" }, way);
      }
      writeFileSync(
        join(path, "wrong.ts"),
        'import { Registry } from "@dsmr/registry";\nRegistry.openSync(5);\n',
      );
      const { status, printed } = check("wrong.ts");
      assert(status !== 0 && printed.includes("wrong.ts(2,"), printed);
      rmSync(join(path, "tsconfig.json"));
    }
  });
}

/** Somewhere else, where neither the package nor a runtime is. */
function assertSingleFile(scene: Scene, path: string): void {
  const elsewhere = join(scene.dir, "elsewhere");
  mkdirSync(elsewhere, { recursive: true });
  const before = [...Registry.list({ dir: scene.dir })].length;
  const line = `PATH=/nonexistent exec '${join(path, "first")}'`;
  const said = well(line, elsewhere, environment(scene));
  assertMatch(said, before === 0 ? /^made it visit 1\n$/ : /^found it visit \d+\n$/);
  rmSync(join(path, "first"));
}
