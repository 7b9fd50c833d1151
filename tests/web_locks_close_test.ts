/** Closing a registry while requests for locks by name are under way, at every stage of one. */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { Backend } from "../lib/backend.ts";
import { type DsmrError, Registry, type Segment } from "../lib/mod.ts";
import { turn } from "./_async.ts";
import { inScene, type Scene } from "./_scene.ts";
import { hold } from "./_web_locks.ts";

/** What a promise was rejected with: the code of ours, the name of others. */
async function outcomeOf(promise: Promise<unknown>): Promise<string> {
  return await promise.then(
    () => "fulfilled",
    (error: Partial<DsmrError>) => error.code ?? error.name ?? String(error),
  );
}

/** The segment that the requests are in, as another backend of this program has it. */
function tableOf(scene: Scene): Segment {
  const backend = Backend.open(scene.dir, "test", "other", {
    mode: "open",
    maxBackends: 256,
    maxSegments: 256,
    timeout_ms: 1000,
  });
  scene.atEnd(() => backend.release());
  return backend.ownSegmentSync("\u0001locks", 0);
}

test("close while a change of the table waits for the table: it is not made, and is CLOSED", () =>
  inScene(async (scene) => {
    for (let turns = 0; turns < 4; turns++) {
      const registry = scene.open();
      const held = hold(registry.locks, "a");
      await held.granted;
      const theirs = hold(scene.open({ database: "third" }).locks, "c");
      await theirs.granted;
      const table = tableOf(scene);
      // From here on there is one that looks for the dead.
      const waiting = registry.locks.request("a", () => {});
      for (let i = 0; i < 5; i++) await turn();
      table.lock.acquireSync();
      let hasRun = 0;
      const all = [
        waiting,
        held.result,
        registry.locks.request("a", () => void hasRun++),
        registry.locks.request("b", () => void hasRun++),
        registry.locks.request("c", () => void hasRun++),
        registry.locks.request("b", { mode: "shared" }, () => void hasRun++),
        registry.locks.query(),
      ].map(outcomeOf);
      // They are to be had at once when the registry is closed, or before.
      table.lock.release();
      for (let i = 0; i < turns; i++) await Promise.resolve();
      registry.close();
      assertEquals(await Promise.all(all), all.map(() => "CLOSED"));
      assertEquals(hasRun, 0);
      const { held: left, pending } = await scene.open({ database: "third" }).locks.query();
      assertEquals([left.map(({ name }) => name), pending], [["c"], []]);
      theirs.end();
      await theirs.result;
    }
  }));

test("close while another has the table: the locks are free when it lets go", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const held = hold(registry.locks, "a");
    await held.granted;
    const table = tableOf(scene);
    const waiting = registry.locks.request("a", () => {});
    const next = hold(scene.open({ database: "third" }).locks, "a");
    await turn();
    table.lock.acquireSync();
    registry.close();
    const all = [held.result, waiting].map(outcomeOf);
    assertEquals(await Promise.all(all), ["CLOSED", "CLOSED"]);
    table.lock.release();
    await next.granted;
    next.end();
    await next.result;
  }));

test("close in the turn of a grant: a callback that has not run does not run", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    let hasRun = false;
    const free = registry.locks.request("a", () => void (hasRun = true));
    await turn();
    assert(hasRun);
    assertEquals(await outcomeOf(free), "fulfilled");
    hasRun = false;
    // Granted in this turn; the callback would run in the next one.
    const granted = registry.locks.request("a", () => void (hasRun = true));
    registry.close();
    assertEquals([await outcomeOf(granted), hasRun], ["CLOSED", false]);
    // One behind another of the same registry: letting go of that one grants nothing.
    const again = scene.open();
    const held = hold(again.locks, "a");
    await held.granted;
    const behind = again.locks.request("a", () => void (hasRun = true));
    await turn();
    again.close();
    assertEquals([await outcomeOf(behind), hasRun], ["CLOSED", false]);
    assertEquals(await outcomeOf(held.result), "CLOSED");
  }));

test("two Registry objects of one program: requests go on until the last one is closed", () =>
  inScene(async (scene) => {
    const first = scene.open();
    const second = scene.open();
    assertEquals(first.backendId, second.backendId);
    const held = hold(first.locks, "a");
    await held.granted;
    const waiting = first.locks.request("a", () => "granted");
    first.close();
    await turn();
    assertEquals((await second.locks.query()).pending.length, 1);
    held.end("done");
    assertEquals([await held.result, await waiting], ["done", "granted"]);
    const last = hold(second.locks, "a");
    await last.granted;
    second.close();
    assertEquals(await outcomeOf(last.result), "CLOSED");
    assertEquals(Registry.destroy("test", { dir: scene.dir }), true);
  }));
