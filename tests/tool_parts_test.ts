/** What the command-line tool is made of, by itself. */

import { assert, assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fieldValues, hexLines } from "../tool/bytes.ts";
import { checkKernel, checkSpace, checkVersions, isAtLeast, removeIpcIn } from "../tool/machine.ts";
import { type Sample, Sampler } from "../tool/sample.ts";
import { bytes, duration, json, printable, table } from "../tool/text.ts";
import { picture, sorted } from "../tool/top_view.ts";
import { OLDEST, VERSION } from "../tool/version.ts";
import { cut, pad, width } from "../tool/width.ts";
import { oldestVersions } from "../.ci/toolchain.ts";
import { test } from "./_declare.ts";
import { inScene, succeeded } from "./_scene.ts";
import { root } from "./_spawn.ts";
import { contended } from "./_tool.ts";

const ESCAPE = "\u001b";

test("a sampler counts waits per second, and who waits since when", () =>
  inScene(async (scene) => {
    const { registry, holder, waiter } = await contended(scene);
    const sampler = new Sampler(registry);
    const before = sampler.take();
    assertEquals([before.held, before.waiting, before.waitsPerSecond], [1, 1, 0]);
    const [lock] = before.locks;
    assertEquals(lock?.holders.map(({ pid, since }) => [pid, since]), [[holder.pid, null]]);
    assertEquals(lock?.waiters.map(({ pid, mode }) => [pid, mode]), [[waiter.pid, "shared"]]);
    assert(lock?.waiters[0]?.since instanceof Date);
    succeeded(await holder.ask({ do: "release", segment: "jobs" }));
    succeeded(await waiter.next());
    const after = sampler.take();
    assertEquals([after.held, after.waiting], [1, 0]);
    assert(after.waitsPerSecond > 0 && after.waitedPerSecond > 0, JSON.stringify(after));
    assertEquals(sampler.take().waitsPerSecond, 0);
  }));

test("texts: units, tables, and nothing that a terminal would obey", () => {
  assertEquals([0, 1023, 1024, 1536, 5e9].map(bytes), [
    "0 B",
    "1023 B",
    "1 KiB",
    "1.5 KiB",
    "4.7 GiB",
  ]);
  assertEquals(
    [0, 999, 1000, 59_999, 61_000, 3_700_000, 2e8, NaN, -1].map(duration),
    ["0 ms", "999 ms", "1.0 s", "59 s", "1 min 1 s", "1 h 1 min", "2 d 7 h", "0 ms", "0 ms"],
  );
  assertEquals(printable(`a${ESCAPE}b\nc\ud800`), "a\\u{1b}b\\u{a}c\ufffd");
  assertEquals(JSON.parse(json(`\u009b\u202e${ESCAPE}é`)), `\u009b\u202e${ESCAPE}é`);
  assertEquals(table(["A", "N"], [["x", 1], ["long", 20]]), ["A      N", "x      1", "long  20"]);
});

test("tables stand straight, whatever language the names are in", () => {
  const columns: [string, number][] = [
    ["plain", 5],
    ["日本語", 6],
    ["한국어", 6],
    ["ｆｕｌｌ", 8],
    ["café", 4],
    ["cafe\u0301", 4], // the accent is a character of its own
    ["\u0301", 0],
    ["Ω≈ç", 3],
    ["🔒", 2],
    ["❤\ufe0f", 2],
    ["❤", 1],
    ["👩\u200d👩\u200d👧", 2], // three, joined
    ["🇪🇺", 2],
    ["1\ufe0f\u20e3", 2],
    ["\u{20000}", 2],
    ["עברית", 5],
  ];
  for (const [text, count] of columns) assertEquals(width(text), count, JSON.stringify(text));
  const lines = table(["NAME", "N"], columns.map(([text]) => [text, 7]));
  for (const line of lines) assertEquals(width(line), 8 + 2 + 1, line);
  assertEquals(["日本語", "日本語", "a🇪🇺b", "plain"].map((text, i) => cut(text, i + 2)), [
    "日",
    "日",
    "a🇪🇺b",
    "plain",
  ]);
  assertEquals([pad("日本", 6), pad("日本", 6, "start"), pad("日本", 3)], [
    "日本  ",
    "  日本",
    "日本",
  ]);
});

test("fields of a description from shared memory are checked before they are read", () => {
  const buffer = new Uint32Array([1, 2, 3, 4]).buffer;
  const lines = [
    "(struct): 16 bytes, aligned to 4",
    "a: u32 at 4",
    "far: u32 at 13",
    "text: text(99999) at 0",
    "huge: array(u32, 999999999999) at 0",
    "most: array(u32, 4) at 0",
    "toString: constructor at 0",
    "odd: array(text(4), 2) at 0",
    "no colon",
    "list[].x: u16 at 2",
  ];
  const found = fieldValues(lines.join("\n"), buffer).map(({ name, value }) => [name, value]);
  assertEquals(found, [
    ["a", 2],
    ["far", null],
    ["text", null],
    ["huge", null],
    ["most", [1, 2, 3, 4]],
    ["toString", null],
    ["odd", null],
    ["list[].x", null],
  ]);
  assertEquals([...hexLines(new Uint8Array(0), 5)].join(""), "00000005\n");
  const many = [...hexLines(Uint8Array.from({ length: 100_000 }, (_, i) => i >> 4), 0)].join("");
  assertEquals(many.split("\n").length, 100_000 / 16 + 2);
});

test("what doctor reads of the machine", () => {
  assert(isAtLeast("6.1.0-13-amd64", 5, 16) && isAtLeast("5.16", 5, 16));
  assert(!isAtLeast("5.15.200", 5, 16) && !isAtLeast("3.16.1", 5, 16) && !isAtLeast("odd", 3, 15));
  const host = { platform: "linux", arch: "x64", uid: 0, pid: 1, runtime: "" };
  const old = checkKernel({ ...host, release: "3.10.0" });
  assertEquals(old.map(({ status }) => status), ["fail", "warn"]);
  assertEquals(checkKernel({ ...host, release: "6.1.0" }).map(({ status }) => status), [
    "ok",
    "ok",
  ]);
  const runs = (runtime: string) => checkVersions({ ...host, release: "6.1.0", runtime });
  for (const runtime of ["deno 2.7.12", "deno 2.10.0", "bun 1.4.0", "bun 1.4.0-canary.1", "x 1"]) {
    assertEquals(runs(runtime).status, "ok", runtime);
  }
  for (const [runtime, oldest] of [["deno 2.7.11", "deno 2.7.12"], ["bun 1.3.14", "bun 1.4.0"]]) {
    const { status, advice } = runs(runtime ?? "");
    assertEquals(status, "fail");
    assert(advice?.includes(`Use ${oldest} or later`), advice ?? "");
  }
  assertEquals(removeIpcIn(["[Login]\n#RemoveIPC=no\n"]), undefined);
  assertEquals(removeIpcIn(["[Login]\nRemoveIPC=yes", "[Login]\nRemoveIPC = no\n"]), false);
  assertEquals(removeIpcIn(["[Other]\nRemoveIPC=no\n[Login]\nRemoveIPC=on"]), true);
  assert(checkSpace("/").found.includes("free of"));
});

test("the version of the tool is that of the package, and the oldest runtimes those of the gate", () => {
  for (const file of ["deno.json", "package.json"]) {
    const { version } = JSON.parse(readFileSync(join(root, file), "utf8")) as { version: string };
    assertEquals(version, VERSION, file);
  }
  assertEquals(OLDEST, oldestVersions);
});

test("top looks as the guide shows it, on a terminal of any size", () => {
  const at = new Date(1_000_000);
  const party = (pid: number, mode: "exclusive" | "shared", waited: number | null) => ({
    ...{ backend: 1, pid, program: "bun", mode },
    since: waited === null ? null : new Date(at.getTime() - waited),
  });
  const tranche = { id: null, abandoned: 0 };
  const sample: Sample = {
    ...{ at, registry: "shop", dir: "/dev/shm", backends: 3, segments: 2, waiting: 1, held: 2 },
    ...{ waitsPerSecond: 118.4, waitedPerSecond: 96.2 },
    locks: [
      {
        ...{ tranche: "cache", segment: "cache", byteOffset: null },
        holders: [party(24560, "exclusive", null)],
        waiters: [party(24679, "shared", 3)],
      },
      {
        ...{ tranche: "queue", segment: "cache", byteOffset: 128 },
        holders: [party(24801, "shared", null)],
        waiters: [],
      },
    ],
    tranches: [
      {
        ...{ ...tranche, name: "queue", contended: 212, waited: 18, abandoned: 1 },
        ...{ waitsPerSecond: 6.4, waitedPerSecond: 0.4 },
      },
      {
        ...{ ...tranche, name: "cache", contended: 4031, waited: 3400 },
        ...{ waitsPerSecond: 112, waitedPerSecond: 95.8 },
      },
    ],
  };
  const draw = (columns: number, rows: number, hasColor = false): string[] =>
    picture({ hasColor }, sample, "w", { columns, rows });
  const guide = readFileSync(join(root, "docs", "tool.md"), "utf8");
  assert(
    guide.includes("```text\n" + draw(100, 24).join("\n") + "\n```\n"),
    draw(100, 24).join("\n"),
  );
  for (const columns of [1, 20, 79]) {
    for (const rows of [1, 3, 9, 10]) {
      const lines = draw(columns, rows);
      assert(lines.every((line) => line.length <= columns), lines.join("\n"));
      assert(lines.length <= rows, `${lines.length} lines for ${rows}`);
    }
  }
  const order = (key: "t" | "a" | "n") => sorted(sample.tranches, key).map(({ name }) => name);
  assertEquals([order("t"), order("a"), order("n")], Array(3).fill(["cache", "queue"]));
});
