/** Processes that read through the cache of examples/prewarm, or save its list, and are killed. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { BLOCK_SIZE, type CachedFile, FILES_MAX } from "../examples/prewarm/block_cache.ts";
import { loadList, saveList, type SaveStep } from "../examples/prewarm/block_list.ts";
import { Registry } from "../lib/mod.ts";
import {
  assertAllFound,
  assertListed,
  killed,
  Member,
  onStage,
  range,
  readAll,
  temporaries,
} from "./_prewarm.ts";
import { writeBlocks } from "./_prewarm_data.ts";
import { randomFrom } from "./_random.ts";
import { until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

const SEED = Number(process.env["DSMR_SEED"] ?? 1);

/** So many that each of 16 partitions gets its 4 blocks, and more, whatever the path. */
const MANY = 640;

// ---- at the cache ---------------------------------------------------------------------------

for (const runtime of runtimes) {
  test(`a ${runtime} process is killed at each store of a miss; nothing wrong is believed`, () =>
    onStage(async (stage) => {
      const blocks = range(MANY);
      const old = stage.path("old");
      writeBlocks(old, blocks.length * BLOCK_SIZE);
      const started = await stage.start();
      const { cache } = started;
      readAll(started, old, blocks);
      let n = 1;
      for (;; n++) {
        // A file that is new, too; the cache is full.
        const path = stage.path(`new-${n}`);
        writeBlocks(path, BLOCK_SIZE);
        const victim = await Member.start(stage, runtime, {});
        await victim.ask({ do: "dieAtStore", n });
        victim.send({ do: "read", path, block: 0 });
        const end = await victim.wellOrDead();
        assertListed(started);
        readAll(started, path, [0, 0]);
        // Every partition is changed: what is to be mended there is mended.
        readAll(started, old, blocks);
        assertAllFound(started, `killed at store ${n}`);
        if (typeof end !== "string") break;
        assertEquals(end, "SIGKILL");
      }
      assert(n > 15, `A miss has ${n - 1} stores.`);
      // No path has an entry twice, and none was lost: there is room for so many more.
      for (const i of range(FILES_MAX - 1 - n)) {
        const path = stage.path(`more-${i}`);
        writeBlocks(path, BLOCK_SIZE);
        const { hits } = cache;
        readAll(started, path, [0, 0]);
        assertEquals(cache.hits - hits, 1, `file ${i} of ${FILES_MAX - 1 - n}`);
      }
      await started.stop();
    }));

  test(`a ${runtime} process is killed at each store of mending what another one has left`, () =>
    onStage(async (stage) => {
      const blocks = range(MANY);
      const old = stage.path("old");
      writeBlocks(old, blocks.length * BLOCK_SIZE);
      const started = await stage.start();
      readAll(started, old, blocks);
      let n = 1;
      for (;; n++) {
        const path = stage.path(`new-${n}`);
        writeBlocks(path, BLOCK_SIZE);
        // Its frame is taken, and in no chain.
        const first = await Member.start(stage, otherThan(runtime), {});
        await first.ask({ do: "dieAtStore", n: 10, afterExchange: true });
        first.send({ do: "read", path, block: 0 });
        assertEquals(await first.wellOrDead(), "SIGKILL");
        const second = await Member.start(stage, runtime, {});
        await second.ask({ do: "dieAtStore", n });
        second.send({ do: "read", path, block: 0 });
        const end = await second.wellOrDead();
        assertListed(started);
        readAll(started, path, [0]);
        readAll(started, old, blocks);
        assertAllFound(started, `killed at store ${n}`);
        if (typeof end !== "string") break;
        assertEquals(end, "SIGKILL");
      }
      assert(n > 8, `Mending has ${n - 1} stores.`);
      await started.stop();
    }));
}

// ---- at the list -----------------------------------------------------------------------------

const STEPS: readonly [SaveStep, "old" | "new"][] = [
  ["opened", "old"],
  ["written", "old"],
  ["synced", "old"],
  ["renamed", "new"],
  ["directory synced", "new"],
];

for (const runtime of runtimes) {
  test(`a ${runtime} process is killed at each step of a save: the old list or the new one`, () =>
    onStage(async (stage) => {
      const { listFile: file } = stage;
      for (const [dieAt, which] of STEPS) {
        const lists = {
          old: [{ path: "/data/old", blocks: [...range(1000), 2000, 2 ** 32 - 1] }],
          new: [{ path: `/data/"new"\n, ${dieAt}`, blocks: [5] }, { path: "/é", blocks: [1, 3] }],
        };
        saveList(file, lists.old);
        const victim = await Member.start(stage, runtime);
        victim.send({ do: "save", file, list: lists.new, dieAt });
        assertEquals(await victim.ended, "SIGKILL");
        assertEquals(loadList(file), lists[which], dieAt);
        // It is left by the dead, and the next saver takes it away.
        assertEquals(temporaries(stage).length, which === "old" ? 1 : 0, dieAt);
        const started = await stage.start();
        assertEquals(temporaries(stage), [], dieAt);
        await started.stop();
        rmSync(file);
      }
    }));
}

// ---- as the saver ----------------------------------------------------------------------------

test("a saver that saves all the time is killed at random: the list is always whole", () =>
  onStage(async (stage) => {
    const path = stage.path("a");
    const most = 1000;
    writeBlocks(path, most * BLOCK_SIZE);
    const random = randomFrom(SEED);
    let known = 0;
    for (let round = 0; round < 12; round++) {
      const started = await stage.start({ frames: 4096 });
      // What the one before had saved is here.
      const { loaded, problem } = started.mine.status;
      assertEquals([problem, loaded], [undefined, known]);
      assertEquals(started.cache.list(), loaded === 0 ? [] : [{ path, blocks: range(loaded) }]);
      const end = new AbortController();
      let acknowledged = loaded;
      let cached = loaded;
      const saving = (async () => {
        for (;;) {
          if (cached < most) readAll(started, path, [cached++]);
          await started.mine.saveNow({ signal: end.signal });
          acknowledged = cached;
        }
      })();
      saving.catch(() => {});
      const { pid } = started.saver;
      // Killed at any moment of its saving, which tells nobody where it is.
      await setTimeout(random() * 40);
      await killed(pid);
      const list = loadList(stage.listFile);
      known = list[0]?.blocks.length ?? 0;
      end.abort();
      await assertRejects(() => saving);
      // Old or new, and each a beginning of the file: never a mix.
      assertEquals(list, known === 0 ? [] : [{ path, blocks: range(known) }]);
      assert(known >= acknowledged && known <= cached, `${acknowledged} ${known} ${cached}`);
      assert(temporaries(stage).length <= 1);
      // Not even begun anew: the next round's is the next.
      started.registry.close();
      Registry.destroy("test", { dir: stage.scene.dir });
    }
    assert(known > 0, "nothing was ever saved");
  }));

test("a saver that was killed is started again, and goes on without loading", () =>
  onStage(async (stage) => {
    const path = stage.path("a");
    writeBlocks(path, 4 * BLOCK_SIZE);
    const started = await stage.start();
    readAll(started, path, [0, 1]);
    await started.mine.saveNow();
    readAll(started, path, [3]);
    const { pid } = started.saver;
    await killed(pid);
    // Asked for while nobody is there; answered by the next one.
    await started.mine.saveNow();
    assert(started.saver.pid !== pid);
    assertEquals(started.saver.restarts, 1);
    assertEquals(loadList(stage.listFile), [{ path, blocks: [0, 1, 3] }]);
    assertEquals(started.mine.status.loaded, 0);
    await started.stop();
  }));

test("a saver that is killed while it loads leaves the list; the next one loads it", () =>
  onStage(async (stage) => {
    const [a, b] = [stage.path("a"), stage.path("b")];
    writeBlocks(a, 4 * BLOCK_SIZE);
    const list: CachedFile[] = [{ path: a, blocks: [0, 1, 2] }, { path: b, blocks: [1] }];
    saveList(stage.listFile, list);
    const before = readFileSync(stage.listFile);
    // To open it blocks for ever.
    execFileSync("mkfifo", [b]);
    const started = stage.open();
    await until(() => started.cache.list()[0]?.blocks.length === 3);
    const { pid, state } = started.saver;
    assertEquals([state, started.mine.status.isLoaded], ["started", false]);
    await killed(pid);
    assertEquals(readFileSync(stage.listFile), before);
    rmSync(b);
    writeBlocks(b, 2 * BLOCK_SIZE);
    await started.saver.waitForReady();
    assertEquals(started.mine.status.loaded, 4);
    assertEquals(started.cache.list(), list);
    await started.stop();
    assertEquals(readFileSync(stage.listFile), before);
  }));
