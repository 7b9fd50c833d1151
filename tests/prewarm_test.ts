/** The add-in of examples/prewarm: its cache, its list, its saver, its demo. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { BLOCK_SIZE } from "../examples/prewarm/block_cache.ts";
import { ListError, loadList, saveList } from "../examples/prewarm/block_list.ts";
import { prewarm } from "../examples/prewarm/prewarm.ts";
import { main } from "../examples/prewarm/saver.ts";
import { defineAddin, Registry, type WorkerContext } from "../lib/mod.ts";
import { isRunning } from "./_background.ts";
import {
  countBlocks,
  Member,
  onStage,
  range,
  readAll,
  type Stage,
  temporaries,
} from "./_prewarm.ts";
import { checkContent, randomBlocks, writeBlocks, writeFiles } from "./_prewarm_data.ts";
import { assertFails, until } from "./_scene.ts";
import { Child, commandLine, otherThan, runtimes } from "./_spawn.ts";

const SEED = Number(process.env["DSMR_SEED"] ?? 1);

// ---- the cache -------------------------------------------------------------------------------

test("four processes and this one read through a cache that is much too small: all bytes are right", () =>
  onStage(async (stage) => {
    const { folder } = stage;
    writeFiles(folder);
    const started = await stage.start();
    const { cache } = started;
    const members = await Promise.all(
      [...runtimes, ...runtimes].map((runtime) => Member.start(stage, runtime, {})),
    );
    const count = 4000;
    for (const [i, member] of members.entries()) {
      member.send({ do: "readRandom", folder, seed: SEED + i, count });
    }
    for (const { path, block } of randomBlocks(folder, SEED + 99, count)) {
      checkContent(cache.read(path, block), path, block);
    }
    const reports = await Promise.all(members.map((member) => member.well()));
    let { hits, misses } = cache;
    for (const report of reports) {
      hits += report.hits ?? 0;
      misses += report.misses ?? 0;
    }
    assertEquals(hits + misses, 5 * count);
    assertEquals(cache.totals(), { hits, misses });
    assert(countBlocks(cache.list()) <= 64);
    // Had it not evicted, each of the 162 blocks would have been missed by each process once.
    assert(misses > 5 * 162, `${misses} misses`);
    assert(hits > count, `${hits} hits`);
    await started.stop();
  }));

test("a block that is used is spared by the clock", () =>
  onStage(async (stage) => {
    writeBlocks(stage.path("large"), 400 * BLOCK_SIZE);
    const started = await stage.start();
    const { cache } = started;
    const path = stage.path("large");
    for (const block of range(400).slice(1)) {
      readAll(started, path, [0, block]);
      // Before the next one comes, so that it is used once more than any.
      readAll(started, path, [0]);
    }
    // Block 0 was missed once; each of the others was new.
    assertEquals(cache.misses, 400);
    assertEquals(cache.hits, 2 * 399 - 1);
    await started.stop();
  }));

test("what cannot be cached is read all the same; what makes no sense is an error", () =>
  onStage(async (stage) => {
    const started = await stage.start();
    const { cache } = started;
    const deep = stage.path("d".repeat(200)) + "/" + "e".repeat(200) + "/" + "f".repeat(200);
    mkdirSync(deep.slice(0, deep.lastIndexOf("/")), { recursive: true });
    writeBlocks(deep, BLOCK_SIZE);
    for (const _ of range(2)) checkContent(cache.read(deep, 0), deep, 0);
    assertEquals([cache.hits, cache.misses, cache.list()], [0, 2, []]);
    // As many files as there is room for, and one more.
    for (const i of range(256)) {
      writeBlocks(stage.path(`f-${i}`), BLOCK_SIZE);
      readAll(started, stage.path(`f-${i}`), [0]);
    }
    const { hits } = cache;
    readAll(started, stage.path("f-254"), [0, 0]);
    assertEquals(cache.hits - hits, 2);
    readAll(started, stage.path("f-255"), [0, 0]);
    assertEquals(cache.hits - hits, 2);
    assertThrows(() => cache.read("relative", 0), TypeError, "not absolute");
    for (const block of [-1, 0.5, NaN, 2 ** 32]) {
      assertThrows(() => cache.read(deep, block), RangeError, "no block");
    }
    assertThrows(() => cache.read(stage.path("nothing"), 0), Error, "ENOENT");
    assertThrows(() => prewarm(stage.options({ listFile: "relative" })), TypeError, "absolute");
    assertThrows(() => prewarm(stage.options({ frames: 0 })), RangeError, "frames");
    assertThrows(() => prewarm(stage.options({ saveEvery: -1 })), RangeError, "every");
    await started.stop();
  }));

// ---- the list --------------------------------------------------------------------------------

test("what was hot is in the cache after a restart, without a miss", () =>
  onStage(async (stage) => {
    const [a, b, gone] = ["a", "b", "gone"].map((name) => stage.path(name)) as [
      string,
      string,
      string,
    ];
    for (const path of [a, b, gone]) writeBlocks(path, 20 * BLOCK_SIZE);
    const first = await stage.start({ frames: 512 });
    assertEquals(first.mine.status, {
      isLoaded: true,
      loaded: 0,
      left: 0,
      problem: undefined,
      saves: 0,
      saved: 0,
    });
    readAll(first, b, [3, 4, 5, 19]);
    readAll(first, gone, [0, 1]);
    await first.mine.saveNow();
    assertEquals(first.mine.status.saved, 6);
    readAll(first, a, [7, 0, 1]);
    const list = first.cache.list();
    assertEquals(list, [
      { path: a, blocks: [0, 1, 7] },
      { path: b, blocks: [3, 4, 5, 19] },
      { path: gone, blocks: [0, 1] },
    ]);
    // The saver saves at its end, too.
    await first.stop();
    assertEquals(loadList(stage.listFile), list);
    assertEquals(temporaries(stage), []);

    rmSync(gone);
    truncateSync(b, 19 * BLOCK_SIZE);
    const second = await stage.start({ frames: 512 });
    const { loaded, left } = second.mine.status;
    assertEquals([loaded, left], [6, 3]);
    readAll(second, a, [0, 1, 7]);
    readAll(second, b, [3, 4, 5]);
    assertEquals([second.cache.hits, second.cache.misses], [6, 0]);
    // Its own are loaded only: another process sees the same.
    const member = await Member.start(stage, otherThan("deno"), { frames: 512 });
    assertEquals(await member.ask({ do: "read", path: a, block: 7 }), {
      ok: true,
      hits: 1,
      misses: 0,
    });
    await second.stop();

    // A smaller one takes as many as there is room for, and evicts nothing for the rest.
    const third = await stage.start({ frames: 1 });
    const status = third.mine.status;
    assertEquals(status.loaded + status.left, 6);
    assertEquals(countBlocks(third.cache.list()), status.loaded);
    assert(status.loaded > 0);
    await third.stop();
  }));

test("the list is saved every so often", () =>
  onStage(async (stage) => {
    const path = stage.path("a");
    writeBlocks(path, 4 * BLOCK_SIZE);
    const started = await stage.start({ saveEvery: 5 });
    readAll(started, path, [2]);
    await until(() => started.mine.status.saved === 1);
    assertEquals(loadList(stage.listFile), [{ path, blocks: [2] }]);
    const { saves } = started.mine.status;
    await until(() => started.mine.status.saves > saves + 2);
    await started.stop();
  }));

test("temporary files of others, and of who lives, stay", () =>
  onStage(async (stage) => {
    const dead = new Child(commandLine("bun", "_prewarm_member.ts"));
    dead.kill();
    await dead.ended;
    const stay = [`hot_blocks.${process.ppid}.tmp`, "hot_blocks.tmp", "other.1.tmp"];
    for (const name of [...stay, `hot_blocks.${dead.pid}.tmp`]) writeFileSync(stage.path(name), "");
    const started = await stage.start();
    assertEquals(temporaries(stage).sort(), stay.sort());
    await started.stop();
  }));

test("a save that fails leaves the old list, no temporary file, and says why", () =>
  onStage((stage) => {
    mkdirSync(stage.listFile);
    writeFileSync(stage.path("hot_blocks/in the way"), "");
    assertThrows(() => saveList(stage.listFile, []), Error, "hot_blocks");
    assertEquals(temporaries(stage), []);
  }));

// ---- the saver -------------------------------------------------------------------------------

test("a saver that is told to end while it loads leaves the list as it is", () =>
  onStage(async (stage) => {
    const path = stage.path("a");
    writeBlocks(path, 4 * BLOCK_SIZE);
    saveList(stage.listFile, [{ path, blocks: range(4) }]);
    const before = readFileSync(stage.listFile);
    const registry = stage.scene.open();
    const ready: string[] = [];
    const context: WorkerContext = {
      registry,
      arg: stage.options(),
      name: "saver",
      type: "saver",
      database: null,
      restarts: 0,
      signal: AbortSignal.abort(),
      ready: () => ready.push("ready"),
    };
    await main(context);
    assertEquals(ready, []);
    assertEquals(readFileSync(stage.listFile), before);
    // The next one knows that it was not loaded.
    const started = await stage.start();
    assertEquals(started.mine.status.loaded, 4);
    await started.stop();
  }));

test("a registry that is destroyed ends its saver, and leaves the list", () =>
  onStage(async (stage) => {
    const path = stage.path("a");
    writeBlocks(path, BLOCK_SIZE);
    const started = await stage.start();
    readAll(started, path, [0]);
    await started.mine.saveNow();
    const pid = started.saver.pid ?? 0;
    Registry.destroy("test", { dir: stage.scene.dir });
    await until(() => !isRunning(pid));
    assertEquals(loadList(stage.listFile), [{ path, blocks: [0] }]);
    assertEquals(temporaries(stage), []);
  }));

// ---- lists that are refused ------------------------------------------------------------------

/** A list with the checksum that belongs to it. */
function signed(body: string): string {
  return `prewarm 1 ${createHash("sha256").update(body).digest("hex")}\n${body}`;
}

test("a list that is damaged is refused, told, and replaced; the saver and the cache work", () =>
  onStage(async (stage) => {
    const { listFile: file } = stage;
    const path = stage.path("a");
    writeBlocks(path, 4 * BLOCK_SIZE);
    const good = signed(`["${path}","0-2"]\n["${path}b","0"]\n`);
    const cases: [string, string | Uint8Array, string][] = [
      ["empty", "", 'it begins with "", not with "prewarm 1"'],
      ["something else", "\x7fELF", "it begins with"],
      ["another version", good.replace("prewarm 1", "prewarm 2"), 'begins with "prewarm 2"'],
      ["cut", good.slice(0, -9), "checksum"],
      ["cut in its first line", good.slice(0, 40), "checksum"],
      ["a digit changed", good.replace("0-2", "0-3"), "checksum"],
      ["no UTF-8", new Uint8Array([...new TextEncoder().encode(good), 0xff]), "checksum"],
    ];
    for (const [what, content, message] of cases) {
      writeFileSync(file, content);
      const started = await stage.start();
      const { problem, loaded } = started.mine.status;
      assert(problem?.includes(file) && problem.includes(message), `${what}: ${problem}`);
      assertEquals(loaded, 0);
      readAll(started, path, [1, 1]);
      assertEquals(started.cache.hits, 1);
      await started.mine.saveNow();
      assertEquals(loadList(file), [{ path, blocks: [1] }]);
      await started.stop();
    }
  }));

test("lines that make no sense are refused, whatever their checksum", () =>
  onStage((stage) => {
    const lines = [
      "x",
      "null",
      "{}",
      "[]",
      '["/a"]',
      '["/a",5]',
      '["a","5"]',
      '["/a",""]',
      '["/a","-1"]',
      '["/a","5-"]',
      '["/a","5-4"]',
      '["/a","5,5"]',
      '["/a","5,4"]',
      '["/a","1.5"]',
      '["/a","4294967296"]',
      '["/a","0-4294967295"]',
    ];
    for (const line of lines) {
      writeFileSync(stage.listFile, signed(`["/a","0-2,4"]\n${line}\n`));
      const error = assertThrows(() => loadList(stage.listFile), ListError, "line 3");
      assert(error.message.startsWith(stage.listFile), error.message);
    }
    writeFileSync(stage.listFile, signed('["/a","0-2,4"]\n'));
    assertEquals(loadList(stage.listFile), [{ path: "/a", blocks: [0, 1, 2, 4] }]);
  }));

// ---- how it comes to its memory --------------------------------------------------------------

test("a registry that was made without the add-in takes it later, here and in other processes", () =>
  onStage(async (stage) => {
    const preloaded: boolean[] = [];
    const other = defineAddin({
      name: "other",
      request: (ctx) => ctx.requestSpace(64),
      startup: (ctx) => void preloaded.push(ctx.preloaded),
    });
    const registry = stage.scene.open({ addins: [other] });
    const path = stage.path("a");
    writeBlocks(path, BLOCK_SIZE);
    const members = await Promise.all(runtimes.map((runtime) => Member.start(stage, runtime, {})));
    const reports = [];
    for (const member of members) reports.push(await member.ask({ do: "read", path, block: 0 }));
    const started = await stage.start();
    readAll(started, path, [0]);
    assertEquals(reports.map(({ hits, misses }) => [hits, misses]), [[0, 1], [1, 0]]);
    assertEquals([started.cache.hits, started.cache.misses], [1, 0]);
    assertEquals(preloaded, [true]);
    assertEquals([...registry.workers()].length, 1);
    await started.stop();
  }));

test("a cache of another size is refused", () =>
  onStage(async (stage) => {
    const started = await stage.start({ frames: 64 });
    const dir = stage.scene.dir;
    const larger = prewarm(stage.options({ frames: 128 }));
    const database = "other";
    const error = assertFails(
      () => Registry.openSync("test", { dir, database, addins: [larger] }),
      "INIT_FAILED",
      "prewarm",
    );
    assertEquals((error.cause as { code?: string }).code, "LAYOUT_MISMATCH");
    await started.stop();
  }));

// ---- the demo --------------------------------------------------------------------------------

/** Asserts that no process has the text in its command line. */
function isNobodyLeft(text: string): boolean {
  if (!existsSync("/proc/self/cmdline")) return true;
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).every((pid) => {
    try {
      return !readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text) ||
        !isRunning(Number(pid));
    } catch {
      // It has ended in this moment.
      return true;
    }
  });
}

for (const runtime of runtimes) {
  const demo = (stage: Stage): Child =>
    stage.scene.adopt(
      new Child(commandLine(runtime, "../examples/prewarm/demo.ts"), {
        DSMR_DIR: stage.scene.dir,
        TMPDIR: stage.folder,
      }),
    );

  test(`the demo, led by ${runtime}, shows a warm cache, and leaves nothing`, () =>
    onStage(async (stage) => {
      const child = demo(stage);
      assertEquals(await child.ended, "exit code 0", child.printed);
      for (
        const text of [
          /^Stopped; the saver has saved a list of 1,024 blocks/m,
          /^Started again; the saver has loaded 1,024 of them/m,
          /^ {2}together( +\d\d\.\d %){4}$/m,
          /^Left behind: no process, no file, no registry\.$/m,
        ]
      ) assert(text.test(child.printed), `${text} is not in:\n${child.printed}`);
      assertEquals([stage.scene.files(), readdirSync(stage.folder)], [[], []]);
      assert(isNobodyLeft(`prewarm-${child.pid}`));
    }));

  test(`the demo, led by ${runtime}, interrupted in the middle, leaves nothing`, () =>
    onStage(async (stage) => {
      const child = demo(stage);
      await until(() => child.printed.includes("Stopped"));
      process.kill(child.pid, "SIGINT");
      assertEquals(await child.ended, "exit code 130", child.printed);
      await until(() => isNobodyLeft(`prewarm-${child.pid}`));
      assertEquals([stage.scene.files(), readdirSync(stage.folder)], [[], []]);
    }));
}
