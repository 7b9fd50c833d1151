/**
 * What the README and the guides show: every block of TypeScript type-checks, and what stands there
 * as a file and is run there prints what is shown there. In this suite's runtime: Bun's exchanges
 * the two in all commands.
 */

import { assert, assertEquals } from "@std/assert";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { native } from "../lib/ffi/native.ts";
import { test } from "./_declare.ts";
import {
  anchorsOf,
  type Document,
  documents,
  isTypeScript,
  matches,
  setupOf,
  type Step,
  stepsOf,
  withPids,
} from "./_docs.ts";
import { inScene, type Scene, until } from "./_scene.ts";
import { program, root } from "./_spawn.ts";

/** Not a measurement: what has not been printed by then will not be. */
const PATIENCE_MS = 100_000;

const { name: runtime } = native().runtime;
const all = documents();

/** What a reader would have copied out of `examples/`, by the name that the documents import. */
const COPIED: Readonly<Record<string, string>> = {
  "call_stats.ts": "examples/call_stats/call_stats.ts",
  "prewarm.ts": "examples/prewarm/prewarm.ts",
};

const DENO_SETTINGS = { imports: { "@dsmr/registry": "../dsmr/lib/mod.ts" } };
const BUN_SETTINGS = {
  compilerOptions: {
    ...{ target: "esnext", module: "esnext", moduleResolution: "bundler", lib: ["esnext"] },
    ...{ types: ["bun-types"], typeRoots: [join(root, "node_modules")] },
    ...{ noEmit: true, allowImportingTsExtensions: true, strict: true, skipLibCheck: true },
    paths: { "@dsmr/registry": ["../dsmr/lib/mod.ts"] },
  },
};

/** A folder with the document's files, beside a checkout; not with its other blocks. */
function folderOf(scene: Scene, { path, blocks }: Document): string {
  const checkout = join(scene.dir, "dsmr");
  if (!existsSync(checkout)) symlinkSync(root, checkout);
  const folder = join(scene.dir, path.replaceAll(/\W/g, "-"));
  mkdirSync(folder);
  writeFileSync(join(folder, "deno.json"), JSON.stringify(DENO_SETTINGS));
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(BUN_SETTINGS));
  for (const [name, source] of Object.entries(COPIED)) {
    writeFileSync(join(folder, name), `export * from "../dsmr/${source}";\n`);
  }
  for (const { file, text } of blocks) {
    if (file !== undefined) writeFileSync(join(folder, file), text);
  }
  return folder;
}

function runWell(command: string[], cwd: string): void {
  const [path = "", ...args] = command;
  const env = { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" };
  const { status, stdout, stderr, error } = spawnSync(path, args, { cwd, env, encoding: "utf8" });
  if (error !== undefined) throw error;
  assertEquals(status, 0, `${command.join(" ")}:\n${stdout}${stderr}`);
}

test("every block of TypeScript is a module that type-checks", () =>
  inScene((scene) => {
    let count = 0;
    const folders = all.map((document) => {
      const folder = folderOf(scene, document);
      for (const block of document.blocks.filter(isTypeScript)) {
        count++;
        if (block.file !== undefined) continue;
        writeFileSync(join(folder, `line_${block.line}.ts`), block.text);
      }
      return folder;
    });
    assert(count > 20, `Only ${count} blocks were found.`);
    // The documents' own settings are for running; here all have the same.
    const settings = join(scene.dir, "settings");
    mkdirSync(settings);
    if (runtime === "deno") {
      const file = join(settings, "deno.json");
      writeFileSync(file, JSON.stringify(DENO_SETTINGS));
      runWell([program("deno"), "check", "--quiet", `--config=${file}`, ...folders], scene.dir);
    } else {
      const file = join(settings, "tsconfig.json");
      const include = folders.map((folder) => join(folder, "*.ts"));
      writeFileSync(file, JSON.stringify({ ...BUN_SETTINGS, include }));
      runWell([join(root, "node_modules", ".bin", "tsc"), "-p", file], scene.dir);
    }
  }));

/** A terminal of the reader's, in which a command runs until it ends. */
class Terminal {
  readonly #child: ChildProcess;
  printed = "";
  hasEnded = false;
  /** The document shows more of it later. */
  isUnfinished = false;

  constructor(setup: string, typed: string, folder: string, env: Record<string, string>) {
    // Both outputs in one, in their order. A shell that stayed would say in its own words who has
    // been killed.
    const line = /^(deno|bun) [^|&;()<>]*$/.test(typed) ? `exec ${typed}` : typed;
    this.#child = spawn("bash", ["-c", `exec 2>&1\nshopt -s expand_aliases\n${setup}\n${line}`], {
      cwd: folder,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "ignore"],
      detached: true,
    });
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => this.printed += text);
    this.#child.on("error", (error) => this.printed += error);
    this.#child.on("close", (_, signal) => {
      // As an interactive shell says it.
      if (signal === "SIGKILL") this.printed += "Killed\n";
      this.hasEnded = true;
    });
  }

  end(): void {
    const { pid } = this.#child;
    // There is no bash. Number 0 would be all of this process' group.
    if (pid === undefined) return;
    try {
      process.kill(-pid, "SIGKILL");
    } catch {
      // All of it has ended.
    }
  }
}

/** The same with the runtimes exchanged, in Bun's suite. */
function exchanged(command: string): string {
  if (runtime === "deno") return command;
  return command.replaceAll(
    /deno run(?: --allow-\w+)+|bun run/g,
    (found) => found === "bun run" ? "deno run --allow-ffi" : "bun run",
  );
}

/** Types all that a document has typed, and compares what is printed. */
async function walk(scene: Scene, document: Document): Promise<void> {
  const folder = folderOf(scene, document);
  const env = {
    ...{ NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", DSMR_DIR: scene.dir },
    PATH: [join(root, "node_modules", ".bin"), process.env["PATH"]].join(":"),
  };

  const setup = setupOf(document);
  const pids = new Map<string, string>();
  const terminals = new Map<string, Terminal>();
  scene.atEnd(() => {
    for (const terminal of terminals.values()) terminal.end();
  });
  for (const step of stepsOf(document)) {
    let terminal = terminals.get(step.terminal);
    if (terminal?.isUnfinished !== true) {
      const typed = exchanged(withPids(step.command, pids));
      terminals.set(step.terminal, terminal = new Terminal(setup, typed, folder, env));
    }
    await look(terminal, step, pids);
    // What looks at others may come before they have got so far: a reader would look again.
    for (let left = 50; left > 0 && isLate(step, terminal, pids); left--) {
      terminals.set(
        step.terminal,
        terminal = new Terminal(setup, step.command, folder, env),
      );
      await look(terminal, step, pids);
    }
    terminal.isUnfinished = step.isUnfinished;
    const { hasEnded, printed } = terminal;
    assert(
      matches(step.shown, printed, pids) && hasEnded !== step.isUnfinished,
      `${document.path}, line ${step.line}: ${step.command}\n` +
        `should ${step.isUnfinished ? "go on after" : "end with"}:\n${step.shown}` +
        `but has ${hasEnded ? "ended with" : "come to"}:\n${printed}`,
    );
  }
}

/** Waits until it has ended, or has printed what is shown of it where it goes on. */
async function look(terminal: Terminal, step: Step, pids: Map<string, string>): Promise<void> {
  const limit = performance.now() + PATIENCE_MS;
  await until(() =>
    terminal.hasEnded || performance.now() > limit ||
    step.isUnfinished && matches(step.shown, terminal.printed, new Map(pids))
  );
}

/** Whether the command only looks, and has not seen yet what is shown. */
function isLate(step: Step, terminal: Terminal, pids: Map<string, string>): boolean {
  return step.command.startsWith("dsmr top ") &&
    !matches(step.shown, terminal.printed, new Map(pids));
}

// A document is walked where it has files. Without any, what its terminals show is a picture.
const walked = all.filter(({ blocks }) => blocks.some(({ file }) => file !== undefined));

for (const document of walked) {
  test(`${document.path}: its programs print what it shows, ${runtime} first`, () =>
    inScene((scene) => walk(scene, document)));

  test(`${document.path}: each of its programs is run, or is a part of one that is`, () => {
    const typed = stepsOf(document).map(({ command }) => command).join("\n");
    for (const { file, text, line } of document.blocks) {
      if (file === undefined || file.endsWith(".json")) continue;
      const isPart = document.blocks.some((other) =>
        other.text !== text && other.file !== undefined && other.text.includes(`"./${file}"`)
      );
      assert(isPart || typed.includes(file), `Nobody runs ${file}, of line ${line}.`);
    }
  });
}

test("what is walked are the README, the tutorial and the guides", () => {
  const paths = walked.map(({ path }) => path);
  for (const name of ["tutorial", "segments", "locks", "async", "words-and-signals", "databases"]) {
    assert(paths.includes(`docs/${name}.md`), name);
  }
  assert(paths.includes("README.md"));
});

test("every section that the documents link to is there", () => {
  let count = 0;
  for (const { path, text } of all) {
    for (const [, target = "", anchor = ""] of text.matchAll(/\]\(([^)#:]*)#([^)]+)\)/g)) {
      const url = new URL(target === "" ? path : target, `file:///${path}`);
      const other = target === "" ? path : url.pathname.slice(1);
      const document = all.find(({ path }) => path === other);
      // Whether the file is there is asked in readme_test.ts.
      if (document === undefined) continue;
      assert(anchorsOf(document).has(anchor), `${path} links to ${other}#${anchor}.`);
      count++;
    }
  }
  assert(count > 0, "No link was found.");
});
