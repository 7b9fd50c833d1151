/** Registry.watch(): segments and backends that come and go. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import process from "node:process";
import { test } from "./_declare.ts";
import { type Change, Registry } from "../lib/mod.ts";
import { assertRefused, assertRejectedWith, observe, Party, turn } from "./_async.ts";
import { assertFails, inScene, type Scene, succeeded } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

type Watch = AsyncIterableIterator<Change>;

/** A change, as short as it can be told. */
function told(change: Change): string {
  return `${change.type} ${"segment" in change ? change.segment.name : change.backend.pid}`;
}

/** The next changes, so many. */
async function next(watch: Watch, count: number): Promise<string[]> {
  const changes: string[] = [];
  while (changes.length < count) {
    const { value, done } = await watch.next();
    assert(done !== true);
    changes.push(told(value));
  }
  return changes;
}

/** Asserts that these are the next changes, in whatever order and in however many turns. */
async function assertNext(watch: Watch, ...changes: string[]): Promise<void> {
  assertEquals((await next(watch, changes.length)).sort(), changes.sort());
}

/** Another backend of this process. */
function other(scene: Scene, database: string): Registry {
  return scene.open({ database });
}

test("segments and backends are told as they come and go, and as they are listed", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    registry.getNamedSegmentSync("before", 64);
    const watch = registry.watch();
    assertEquals(watch[Symbol.asyncIterator](), watch);
    const first = watch.next();
    const waiting = observe(first);
    for (let i = 0; i < 3; i++) await turn();
    assertEquals(waiting.settled, false);

    registry.getNamedSegmentSync("a", 64);
    const [info] = [...registry.segments()];
    assert(info !== undefined);
    assertEquals(await first, { done: false, value: { type: "segment-created", segment: info } });
    assert(registry.dropSegment("a"));
    const { value: removed } = await watch.next();
    assertEquals(removed, { type: "segment-removed", segment: info });

    const second = other(scene, "other");
    const { value: attached } = await watch.next();
    assert(attached?.type === "backend-attached");
    const { backend } = attached;
    assertEquals([backend.id, backend.pid, backend.database, backend.self], [
      second.backendId,
      process.pid,
      "other",
      false,
    ]);
    second.close();
    const { value: left } = await watch.next();
    assert(left?.type === "backend-left");
    assertEquals(left.backend.id, backend.id);

    // The same name again is another segment.
    registry.getNamedSegmentSync("a", 128);
    await assertNext(watch, "segment-created a");
    assert(registry.dropSegment("a"));
    registry.getNamedSegmentSync("a", 64);
    await assertNext(watch, "segment-removed a", "segment-created a");
    await watch.return?.();
  }));

test("nothing is missed between watch() and the first turn, nor while the body runs", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    registry.getNamedSegmentSync("old", 64);
    const watch = registry.watch();
    const early = registry.watch();
    registry.getNamedSegmentSync("a", 64);
    registry.dropSegment("old");
    // Comes and goes: not seen.
    registry.getNamedSegmentSync("brief", 64);
    registry.dropSegment("brief");
    other(scene, "brief").close();
    const second = other(scene, "other");
    const seen: string[] = [];
    for await (const change of watch) {
      seen.push(told(change));
      if (seen.length === 3) {
        registry.getNamedSegmentSync("b", 64);
        second.close();
      }
      if (seen.length === 5) break;
    }
    const { pid } = process;
    assertEquals(seen.slice(0, 3).sort(), [
      `backend-attached ${pid}`,
      "segment-created a",
      "segment-removed old",
    ]);
    assertEquals(seen.slice(3).sort(), [`backend-left ${pid}`, "segment-created b"]);
    // One that looks only now compares with its own beginning.
    await assertNext(early, "segment-created a", "segment-created b", "segment-removed old");
    assertEquals(await watch.next(), { done: true, value: undefined });
  }));

test("segments of the library's own are not told of", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const watch = registry.watch();
    const segment = registry.getNamedSegmentSync("mine", 64);
    await assertNext(watch, "segment-created mine");
    const pending = watch.next();
    const waiting = observe(pending);
    const signal = registry.signal("s");
    const wait = signal.wait();
    assertEquals(signal.notifyAll(), 1);
    await wait;
    const word = segment.wait(0, 0);
    assertEquals([segment.notify(0), await word], [1, "ok"]);
    assertEquals(await registry.locks.request("lock", () => 5), 5);
    for (let i = 0; i < 3; i++) await turn();
    assertEquals(waiting.settled, false);
    registry.getNamedSegmentSync("end", 64);
    assertEquals(told((await pending).value as Change), "segment-created end");
  }));

test("an abort ends a watch with its reason: before, while it waits, and while its body runs", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const reason = { why: "enough" };
    await assertRejectedWith(registry.watch({ signal: AbortSignal.abort(reason) }).next(), reason);
    const controller = new AbortController();
    const watches = [1, 2, 3].map(() => registry.watch({ signal: controller.signal }));
    const pending = watches.map((watch) => watch.next());
    pending.forEach(observe);
    const running = registry.watch({ signal: controller.signal });
    const unaffected = registry.watch();
    const still = unaffected.next();
    await turn();
    controller.abort(reason);
    for (const one of pending) await assertRejectedWith(one, reason);
    registry.getNamedSegmentSync("a", 64);
    await assertRejectedWith(running.next(), reason);
    assertEquals(told((await still).value as Change), "segment-created a");

    const inBody = new AbortController();
    const watch = registry.watch({ signal: inBody.signal });
    registry.getNamedSegmentSync("b", 64);
    let turns = 0;
    await assertRejectedWith(
      (async () => {
        for await (const _ of watch) {
          turns++;
          inBody.abort(reason);
        }
      })(),
      reason,
    );
    assertEquals(turns, 1);
  }));

test("return() ends a watch at once, also while next() waits, and nothing keeps running", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const { signal } = new AbortController();
    const end = { done: true, value: undefined } as const;
    for (const options of [{}, { signal }]) {
      const watch = registry.watch(options);
      // Two that wait in line.
      const pending = [watch.next(), watch.next()];
      const waiting = pending.map(observe);
      await turn();
      assertEquals(waiting.map(({ settled }) => settled), [false, false]);
      assertEquals(await watch.return?.(), end);
      assertEquals(await Promise.all(pending), [end, end]);
      registry.getNamedSegmentSync("a", 64);
      registry.dropSegment("a");
      assertEquals([await watch.next(), await watch.return?.()], [end, end]);

      const unused = registry.watch(options);
      assertEquals([await unused.return?.(), await unused.next()], [end, end]);
      // Between two changes of one turn.
      const between = registry.watch(options);
      registry.getNamedSegmentSync("b", 64);
      registry.getNamedSegmentSync("c", 64);
      assertEquals((await between.next()).done, false);
      assertEquals([await between.return?.(), await between.next()], [end, end]);
      registry.dropSegment("b");
      registry.dropSegment("c");
    }
    // A loop that somebody else ends; and one that ends itself while another next() waits.
    const watch = registry.watch();
    const loop = (async () => {
      for await (const _ of watch) assert(false, "never");
      return "ended";
    })();
    await turn();
    await watch.return?.();
    assertEquals(await loop, "ended");
    const own = registry.watch();
    let ahead: Promise<IteratorResult<Change>> | undefined;
    registry.getNamedSegmentSync("d", 64);
    for await (const _ of own) {
      ahead = own.next();
      await turn();
      break;
    }
    assertEquals(await ahead, end);
    // After an abort it is over, too: an error once, and then the end.
    const controller = new AbortController();
    const aborted = registry.watch({ signal: controller.signal });
    const last = aborted.next();
    controller.abort("enough");
    await assertRejectedWith(last, "enough");
    assertEquals([await aborted.return?.(), await aborted.next()], [end, end]);
  }));

test("close() and destroy() end every watch with CLOSED", () =>
  inScene(async (scene) => {
    for (const how of ["close", "destroy"] as const) {
      const registry = scene.open();
      const pending = [registry.watch().next(), registry.watch().next()];
      pending.forEach(observe);
      const loop = (async () => {
        for await (const _ of registry.watch()) assert(false, "never");
      })();
      observe(loop);
      const begun = registry.watch();
      await turn();
      if (how === "close") registry.close();
      else assert(Registry.destroy("test", { dir: scene.dir }));
      for (const one of [...pending, loop]) await assertRefused(one, "CLOSED");
      await assertRefused(begun.next(), "CLOSED");
      assertFails(() => registry.watch(), "CLOSED");
      registry.close();
    }
  }));

test("options of a watch are checked at once", () =>
  inScene((scene) => {
    const registry = scene.open();
    assertThrows(() => registry.watch(5 as unknown as object), TypeError, "not an object");
    assertThrows(() => registry.watch({ signal: {} as AbortSignal }), TypeError, "AbortSignal");
  }));

for (const runtime of runtimes) {
  test(`a ${runtime} process that attaches, leaves, or is killed, is told of by itself`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const watch = registry.watch();
      for (let round = 0; round < 3; round++) {
        const child = await Party.start(scene, runtime);
        const { value: attached } = await watch.next();
        assert(attached?.type === "backend-attached");
        assertEquals(attached.backend.pid, child.pid);
        assert(attached.backend.program.startsWith(runtime), attached.backend.program);
        await child.ask({ do: "get", segment: `from ${round}`, size: 64 });
        await assertNext(watch, `segment-created from ${round}`);
        assertEquals((await child.ask({ do: "drop", segment: `from ${round}` })).value, 1);
        await assertNext(watch, `segment-removed from ${round}`);
        if (round === 0) {
          await child.ask({ do: "close" });
          await assertNext(watch, `backend-left ${child.pid}`);
          await child.endsWell();
          continue;
        }
        // Killed while this waits, or before it waits; nobody lists or opens anything.
        const pending = round === 1 ? watch.next() : undefined;
        await child.killed();
        const { value: left } = await (pending ?? watch.next());
        assert(left?.type === "backend-left");
        assertEquals([left.backend.pid, left.backend.id], [child.pid, attached.backend.id]);
      }
    }));

  test(`several processes killed at once: each is told of, by ${runtime} too`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const watcher = await Party.start(scene, runtime);
      const watch = registry.watch();
      const victims = [
        await Party.start(scene, runtime),
        await Party.start(scene, otherThan(runtime)),
        await Party.start(scene, runtime),
      ];
      await assertNext(watch, ...victims.map(({ pid }) => `backend-attached ${pid}`));
      const pending = next(watch, victims.length);
      await Promise.all(victims.map((victim) => victim.killed()));
      assertEquals(
        (await pending).sort(),
        victims.map(({ pid }) => `backend-left ${pid}`).sort(),
      );
      // The same in that process: it watches, and does nothing else.
      const last = await Party.start(scene, otherThan(runtime));
      await watcher.begin({ do: "watch" });
      await watcher.ask({ do: "answer" });
      await last.killed();
      assertEquals(succeeded(await watcher.next()).said, `backend-left ${last.pid}`);
    }));

  test(`a segment that ${runtime} initialises is told of when it is done`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const child = await Party.start(scene, runtime);
      const watch = registry.watch();
      await child.begin({ do: "init", segment: "slow", size: 64, how: "hold" });
      assertEquals(await child.next(), { holding: true });
      registry.getNamedSegmentSync("meanwhile", 64);
      await assertNext(watch, "segment-created meanwhile");
      child.go();
      await assertNext(watch, "segment-created slow");
      succeeded(await child.next());
      // One that dies inside has never been there.
      await child.begin({ do: "init", segment: "never", size: 64, how: "never" });
      assertEquals(await child.next(), { holding: true });
      await child.killed();
      await assertNext(watch, `backend-left ${child.pid}`);
      registry.getNamedSegmentSync("end", 64);
      await assertNext(watch, "segment-created end");
    }));

  test(`a segment that stays as long as it is attached goes with a killed ${runtime} process`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const child = await scene.child(runtime);
      succeeded(
        await child.ask({ do: "get", segment: "a", size: 64, lifetime: "attached" }),
      );
      const watch = registry.watch();
      child.kill();
      await assertNext(watch, `backend-left ${child.pid}`, "segment-removed a");
    }));
}
