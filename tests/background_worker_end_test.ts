/** What is told of a background worker's end: its exit code and its reason. */

import { assertEquals } from "@std/assert";
import { test } from "node:test";
import { inBackground } from "./_background.ts";
import { runtimes } from "./_spawn.ts";

for (const runtime of runtimes) {
  for (const thread of [false, true]) {
    const kind = `${runtime} ${thread ? "thread" : "process"}`;
    const how = thread ? { thread } : { runtime };

    test(`worker as a ${kind}: one that has to be killed says so, whoever was first`, () =>
      inBackground({ supervise: false }, async (scene) => {
        await scene.supervisor(runtime);
        const workers = Array.from(
          { length: 6 },
          (_, i) => scene.register({ name: `${i}`, function: "deaf", grace: 60_000, ...how }),
        );
        for (const worker of workers) await worker.waitForReady();
        // Near each other: the worker's own timer and the supervisor's.
        const graces = [0, 1, 5, 10, 20, 40];
        for (const [i, worker] of workers.entries()) worker.terminate({ grace: graces[i] ?? 0 });
        for (const [i, worker] of workers.entries()) {
          assertEquals(await worker.waitForShutdown(), {
            exitCode: null,
            reason: `terminated; killed after its grace of ${graces[i]} ms`,
          });
        }
        const inTime = scene.register({ name: "in time", ...how });
        await inTime.waitForReady();
        inTime.terminate();
        assertEquals(await inTime.waitForShutdown(), { exitCode: 0, reason: "terminated" });
      }));

    test(`worker as a ${kind}: its exit code is modulo 256, as the system has it`, () =>
      inBackground({ supervise: false }, async (scene) => {
        await scene.supervisor(runtime);
        const codes = [[256, 0], [257, 1], [259, 3], [-1, 255], [-256, 0], [
          2 ** 31 + 2,
          2,
        ]] as const;
        const workers = codes.map(([arg]) =>
          scene.register({ name: `${arg}`, function: "ends", arg, ...how })
        );
        for (const [i, [, exitCode]] of codes.entries()) {
          const reason = exitCode === 0 ? null : `exit code ${exitCode}`;
          assertEquals(await workers[i]?.waitForShutdown(), { exitCode, reason }, `${codes[i]}`);
        }
      }));

    test(`worker as a ${kind}: its reason is what it has thrown, as it was said`, () =>
      inBackground({ supervise: false }, async (scene) => {
        await scene.supervisor(runtime);
        const thrown = [
          ['new Error("no full stop")', "no full stop"],
          // None with a dot: in such a URL it begins a file's extension to Bun.
          ['new Error("it is one!")', "it is one!"],
          ['"a text"', "a text"],
          ["null", "threw null"],
          ["undefined", "threw undefined"],
          ["5", "threw 5"],
        ] as const;
        const workers = thrown.map(([what]) => {
          const module = `data:text/javascript,export default () => { throw ${what}; }`;
          return scene.register({ name: "thrower", module, ...how });
        });
        for (const [i, [what, reason]] of thrown.entries()) {
          assertEquals(await workers[i]?.waitForShutdown(), { exitCode: 1, reason }, what);
        }
        const module = "data:text/javascript,export default 1";
        const number = scene.register({ name: "number", module, ...how });
        assertEquals(await number.waitForShutdown(), {
          exitCode: 1,
          reason: `"${new URL(module).href}" exports "default", but that is 1, not a function`,
        });
      }));
  }
}
