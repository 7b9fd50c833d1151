/** Background workers of a registry that is gone, or whose table somebody has overwritten. */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { DsmrError, Registry } from "../lib/mod.ts";
import { inBackground, rejection, workerModule } from "./_background.ts";
import { assertFails } from "./_scene.ts";

for (const supervise of [false, true]) {
  const who = supervise ? "its supervisor" : "one that does not supervise";
  test(`a destroyed registry's workers are CLOSED for ${who}, whatever is asked`, () =>
    inBackground({ supervise }, async (scene) => {
      const { registry } = scene;
      const worker = scene.register({ name: "a" });
      if (supervise) await worker.waitForReady();
      const waiting = rejection(worker.waitForShutdown());
      assert(Registry.destroy("test", { dir: scene.dir }));
      const spec = { name: "b", module: workerModule };
      const calls: [string, () => unknown][] = [
        ["register", () => registry.registerBackgroundWorker(spec)],
        ["workers", () => registry.workers()],
        ["state", () => worker.state],
        ["pid", () => worker.pid],
        ["reason", () => worker.reason],
        ["exitCode", () => worker.exitCode],
        ["restarts", () => worker.restarts],
        ["terminate", () => worker.terminate()],
        ["startup", () => worker.waitForStartupSync({ timeout: 0 })],
        ["ready", () => worker.waitForReadySync({ timeout: 0 })],
        ["shutdown", () => worker.waitForShutdownSync({ timeout: 0 })],
      ];
      for (const [what, call] of calls) {
        const error = assertFails(call, "CLOSED");
        assert(error.message.includes("destroyed"), `${what}: ${error.message}`);
      }
      const late = [worker.waitForStartup(), worker.waitForReady(), worker.waitForShutdown()];
      for (const wait of [...late.map(rejection), waiting]) {
        const error = await wait;
        assert(error instanceof DsmrError && error.code === "CLOSED", String(error));
      }
      // What was there before is not what it is now.
      const after = scene.scene.open();
      assertEquals([...after.workers()], []);
    }));
}
