/** What the README and the guides promise to be there: files, tests, and code that type-checks. */

import { assert, assertEquals } from "@std/assert";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "./_declare.ts";

const root = new URL("../", import.meta.url);
const guides = readdirSync(new URL("docs/", root)).filter((name) => name.endsWith(".md"));
const texts = new Map(
  [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    ...guides.map((name) => `docs/${name}`),
  ].map((file) => [
    file,
    readFileSync(new URL(file, root), "utf8"),
  ]),
);

test("every file that the README and the guides link to is there", () => {
  let count = 0;
  for (const [file, text] of texts) {
    for (const [, target = ""] of text.matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)) {
      const url = new URL(target, new URL(file, root));
      assert(existsSync(url), `${file} links to ${target}, which is not there.`);
      count++;
    }
  }
  assert(count > 20, `Only ${count} links were found.`);
});

test("each counterpart of the source documents names a test that there is", () => {
  const readme = texts.get("README.md") ?? "";
  const rows = [...readme.matchAll(/\| \[(\w+_test\.ts)\]\(tests\/\1\)(?:: (.*?))? +\|/g)];
  assert(rows.length >= 25, `Only ${rows.length} rows were found.`);
  // None without a test.
  const [, section = ""] = readme.split("## What the source documents name");
  const lines = section.split("\n## ")[0]?.match(/^\|.*\|$/gm) ?? [];
  assertEquals(lines.length, rows.length + ["there | here | test", "---"].length);
  for (const [, file = "", name] of rows) {
    const source = readFileSync(new URL(`tests/${file}`, root), "utf8");
    assert(
      name === undefined ? /test\(/.test(source) : hasTest(source, name.trim()),
      `tests/${file} has no test named: ${name}`,
    );
  }
});

test("CONTRIBUTING.md names every source that the call of its example is in", () => {
  const example = /^## Adding a call[^]*?(?=^## )/m.exec(texts.get("CONTRIBUTING.md") ?? "")?.[0] ??
    "";
  const sources = ["c", "lib"].flatMap((folder) =>
    readdirSync(new URL(`${folder}/`, root), { recursive: true, encoding: "utf8" })
      .filter((name) => /\.(?:c|h|ts)$/.test(name)).map((name) => `${folder}/${name}`)
  );
  const places = sources.filter((path) =>
    /dsmr_databases|database_info\b|\bDatabaseInfo\b/.test(
      readFileSync(new URL(path, root), "utf8"),
    )
  );
  assert(places.length >= 8, `Only these were found: ${places.join()}`);
  for (const path of places) {
    assert(example.includes(`](${path})`), `the example does not name ${path}`);
  }
});

/** Whether a name stands there, also where a part of it is filled in. */
function hasTest(source: string, name: string): boolean {
  return source.replaceAll(/\$\{\w+\}/g, "startup").includes(name) || source.includes(name);
}
