/** Background workers that add-ins register in their init hook. */

import { assert, assertEquals } from "@std/assert";
import { type BackgroundWorker, defineAddin, type Registry } from "../lib/mod.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene } from "./_scene.ts";

const counting = new URL("./_background_counts.ts", import.meta.url);

test("a worker that an add-in registers in each backend is one worker; another add-in has its own", () =>
  inScene(async (scene) => {
    const workers: BackgroundWorker[] = [];
    const events: string[] = [];
    const make = (name: string, arg: number) =>
      defineAddin({
        name,
        init(handle) {
          workers.push(handle.registerBackgroundWorker({
            name: "counter",
            module: counting,
            function: "main",
            arg,
            notify: ({ type }) => events.push(type),
          }));
        },
      });
    const [one, two] = [make("one", 1), make("two", 10)];
    const registry = scene.open({ addins: [one], supervise: true });
    scene.open({ addins: [one, two], database: "other" });
    assertEquals(workers.length, 3);
    const [first, same, other] = workers;
    assert(first !== undefined && same !== undefined && other !== undefined);
    await Promise.all(workers.map((worker) => worker.waitForReady()));
    assertEquals([first.pid, first.pid === other.pid], [same.pid, false]);
    const words = new Int32Array(registry.getNamedSegmentSync("runs", 8).buffer);
    assertEquals(words[0], 11);
    assertEquals([...registry.workers()].length, 2);
    for (const worker of [first, other]) worker.terminate();
    await Promise.all(workers.map((worker) => worker.waitForShutdown()));
    assertEquals(words[0], 11);
    assert(events.includes("started"), String(events));
  }));

test("a worker that makes no sense makes opening fail, named with its add-in", () =>
  inScene((scene) => {
    const addin = defineAddin({
      name: "bad",
      init: (handle) => void handle.registerBackgroundWorker({ name: "", module: counting }),
    });
    const error = assertFails(
      () => scene.open({ addins: [addin] }),
      "INIT_FAILED",
      "init hook",
      '"bad"',
    );
    assert(error.cause instanceof Error);
    assertEquals([...scene.open().workers()], []);
  }));

test("a worker that has stopped is registered anew when all who were attached then have gone", () =>
  inScene(async (scene) => {
    const workers: BackgroundWorker[] = [];
    const addin = defineAddin({
      name: "starts-with-the-server",
      init: (handle) =>
        void workers.push(
          handle.registerBackgroundWorker({ name: "once", module: counting, function: "once" }),
        ),
    });
    const open = (database: string) => scene.open({ addins: [addin], supervise: true, database });
    const runs = (registry: Registry) =>
      new Int32Array(registry.getNamedSegmentSync("runs", 8).buffer)[0];
    const first = open("a");
    await workers[0]?.waitForShutdown();
    assertEquals(runs(first), 1);
    // One comes, and the first goes: the second was not there when it stopped, but the first still
    // is, and then nobody is who was.
    const second = open("b");
    assertEquals(workers[1]?.state, "stopped");
    first.close();
    assertEquals(runs(second), 1);
    second.close();
    const third = open("a");
    assertEquals(workers.length, 3);
    await workers[2]?.waitForShutdown();
    assertEquals(runs(third), 2);
    // Those who come now find it stopped.
    open("c");
    assertEquals([workers[3]?.state, runs(third)], ["stopped", 2]);
  }));
