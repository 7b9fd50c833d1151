/**
 * The package as JSR serves it for npm to who installs it by `bunx jsr add` or `bun add
 * npm:@jsr/dsmr__registry`: made here from the folder that .ci/package.ts puts together, as that
 * registry makes it, so that tests can install what its users get.
 *
 * What it does (jsr-io/jsr, api/src/npm, and packages that it serves): every file stays. Each
 * TypeScript module that the exports reach by imports, of types or of values, gets a JavaScript file
 * beside it and a declaration file in _dist, and imports name those. An export that is JavaScript
 * stays what it is, and has the types that its `@ts-self-types` names. The package.json is its own,
 * without "bin".
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { deno, root, tsc } from "./toolchain.ts";

interface Manifest {
  name: string;
  version: string;
  exports: Record<string, string>;
}

/** Relative specifiers of TypeScript files, of static and of dynamic imports. */
const SPECIFIER = /(\bfrom\s*|\bimport\s*\(?\s*)"(\.\.?\/[^"]+)\.ts"/g;

const asJavaScript = (text: string): string => text.replaceAll(SPECIFIER, '$1"$2.js"');

function run(program: string, args: string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error !== undefined) throw error;
  if (status === 0) return stdout;
  throw new Error(`${[program, ...args].join(" ")} failed:\n${stdout}${stderr}`);
}

/** The modules that the exports reach by imports, as paths in the package. */
function reached(folder: string, entries: readonly string[]): string[] {
  const found = entries.flatMap((entry) => {
    const graph = run(deno, ["info", "--json", "--no-lock", entry], folder);
    const { modules } = JSON.parse(graph) as { modules: { local?: string }[] };
    return modules.flatMap(({ local }) => local === undefined ? [] : [relative(folder, local)]);
  });
  return [...new Set(found)].filter((path) => path.endsWith(".ts") && !path.startsWith(".."));
}

/** Where the types of an export are: in itself, or where it says. */
function typesOf(folder: string, path: string): string {
  if (path.endsWith(".ts")) return path;
  const [, types] = /@ts-self-types="([^"]+)"/.exec(readFileSync(join(folder, path), "utf8")) ?? [];
  if (types === undefined) throw new Error(`${path} does not say where its types are.`);
  return join(dirname(path), types);
}

/** Makes it in a folder that is emptied first, from that of the package. */
export function stageNpmForm(packageFolder: string, folder: string): void {
  const manifest: Manifest = JSON.parse(readFileSync(join(packageFolder, "deno.json"), "utf8"));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(packageFolder)) {
    if (name === "package.json" || name.endsWith(".tgz")) continue;
    cpSync(join(packageFolder, name), join(folder, name), { recursive: true });
  }

  const entries = Object.values(manifest.exports);
  const modules = reached(folder, entries);
  const emitted = join(folder, "_dist");
  const options = [
    ...["--target", "esnext", "--module", "esnext", "--moduleResolution", "bundler"],
    ...["--lib", "esnext", "--strict", "--allowImportingTsExtensions"],
    ...["--rewriteRelativeImportExtensions", "--declaration", "--skipLibCheck"],
    ...["--typeRoots", join(root, "node_modules", "@types"), "--types", "node"],
    ...["--rootDir", folder, "--outDir", emitted],
  ];
  run(tsc, [...options, ...modules], folder);
  for (const path of modules) {
    const compiled = join(emitted, path.replace(/\.ts$/, ".js"));
    cpSync(compiled, join(folder, path.replace(/\.ts$/, ".js")));
    rmSync(compiled);
    const types = join(emitted, path.replace(/\.ts$/, ".d.ts"));
    // Declarations name JavaScript, too; the compiler looks for the declarations beside that.
    for (const file of [join(folder, path), types]) {
      writeFileSync(file, asJavaScript(readFileSync(file, "utf8")));
    }
  }

  const exports = Object.fromEntries(
    Object.entries(manifest.exports).map(([name, path]) => {
      const types = `./${join("_dist", typesOf(folder, path)).replace(/\.ts$/, ".d.ts")}`;
      return [name, { types, default: path.replace(/\.ts$/, ".js") }];
    }),
  );
  const [, scope, name] = /^@(.+)\/(.+)$/.exec(manifest.name) ?? [];
  const own = {
    name: `@jsr/${scope}__${name}`,
    version: manifest.version,
    type: "module",
    dependencies: {},
    exports,
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify(own, null, 2));
}
