/**
 * Processes of background workers and of supervisors that are killed in the middle of a change of
 * the workers' table, at one change after the other: whatever was registered runs, once.
 *
 * `background_worker_kill_test.ts` does so at every change that there is, but plays the workers;
 * here all of them are processes, and one dies while the others are at whatever they are at.
 */

import { assert, assertEquals } from "@std/assert";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Registry } from "../lib/mod.ts";
import { test } from "./_declare.ts";
import { type BackgroundScene, inBackground, isRunning, workerModule } from "./_background.ts";
import { DOUBLES, ENDS, RUNS } from "./_background_worker.ts";
import { succeeded, until } from "./_scene.ts";
import { otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

const preload = fileURLToPath(new URL("_background_preload.ts", import.meta.url));

/** Arguments by which a runtime loads it first. */
function preloading(runtime: RuntimeName): string[] {
  return [...runtime === "deno" ? ["--allow-all"] : [], "--preload", preload];
}

/** How often two of any of these were there at once. */
function doubles(scene: BackgroundScene, names: string[]): number {
  return names.reduce((sum, name) => sum + (scene.record(name)[DOUBLES] ?? 0), 0);
}

for (const runtime of runtimes) {
  test(`a ${runtime} worker is killed at every change that it makes: it runs again, once`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const log = join(scene.dir, "steps");
      process.env["DSMR_TEST_STEPS"] = log;
      const logged = (): string[] =>
        existsSync(log) ? readFileSync(log, "utf8").split("\n").filter(Boolean) : [];
      const spec = {
        runtime,
        runtimeArgs: preloading(runtime),
        restartTime: 0,
        function: "greets",
      };
      const counting = scene.register({ ...spec, name: "counts" });
      assertEquals(await counting.waitForShutdown(), { exitCode: 0, reason: null });
      await until(() => logged().length === 1);
      const steps = Number(/^counts: (\d+)$/.exec(logged()[0] ?? "")?.[1]);
      // Claimed, started, ready, ended: each of these is told, too.
      assert(steps >= 20, `only ${steps} steps`);
      const names = Array.from({ length: steps }, (_, i) => `dies at ${i + 1}`);
      const workers = names.map((name) => scene.register({ ...spec, name }));
      const ends = await Promise.all(workers.map((worker) => worker.waitForShutdown()));
      for (const end of ends) assertEquals(end, { exitCode: 0, reason: null });
      const dead = logged().filter((line) => !line.includes(":"));
      assertEquals(dead.sort(), [...names].sort(), "not every one has died");
      assertEquals(doubles(scene, names), 0);
      for (const [i, worker] of workers.entries()) {
        const record = scene.record(worker.name);
        // One that has said how it ends is not started again.
        const isAgain = worker.restarts === 1;
        assert(isAgain || record[ENDS] === 1, `${worker.name} has not run`);
        const runs = record[RUNS] ?? 0;
        assert(isAgain ? runs >= 1 && runs <= 2 : runs === 1, `${worker.name}: ${runs} runs`);
        assert(isAgain || i > names.length / 2, `${worker.name} was not restarted`);
      }
      console.log(`${dead.length} deaths`);
    }));
}

test("supervisors are killed at one change after the other: each worker runs on, or again, once", () =>
  inBackground({ supervise: false }, async (scene) => {
    const steady = scene.register({ name: "steady", runtime: "bun", restartTime: 0 });
    const names: string[] = [];
    let deaths = 0;
    let pid: number | null = null;
    for (let change = 1, hasDied = true; hasDied; change += 6) {
      // Something to start, to restart, and to settle, for each of them.
      const name = `throws ${change}`;
      names.push(name);
      const runtime = runtimes[deaths % 2] ?? "deno";
      const worker = scene.register({
        ...{ name, function: "throws", arg: 1, restartTime: 0, runtime: otherThan(runtime) },
      });
      const supervisor = await scene.member(runtime);
      supervisor.child.sendLine(JSON.stringify({ do: "dieAtChange", change }));
      supervisor.child.sendLine(
        JSON.stringify({ do: "open", dir: scene.dir, supervise: true }),
      );
      const end = worker.waitForShutdown().then(() => false);
      hasDied = await Promise.race([end, until(() => !isRunning(supervisor.pid)).then(() => true)]);
      if (hasDied) deaths++;
      else assertEquals(scene.record(name)[RUNS], 2);
      if (pid !== null) assertEquals([steady.state, steady.pid], ["ready", pid]);
      else if (steady.state === "ready") pid = steady.pid;
      if (!hasDied) await supervisor.killed();
    }
    // The last one finds what all of them have left.
    await scene.supervisor("bun");
    await until(() => [...scene.registry.workers()].length === 1);
    await steady.waitForReady();
    assertEquals(doubles(scene, ["steady", ...names]), 0);
    for (const name of names) {
      const [runs = 0] = scene.record(name);
      assert(runs === 2, `${name}: ${runs} runs`);
    }
    scene.assertRuns("steady", 1);
    console.log(`${deaths} deaths`);
    assert(deaths >= 8, `only ${deaths} deaths`);
    steady.terminate();
    assertEquals(await steady.waitForShutdown(), { exitCode: 0, reason: "terminated" });
  }));

for (const runtime of runtimes) {
  test(`a registry is destroyed in whose table a ${runtime} process has died: its workers end`, () =>
    inBackground({ supervise: false }, async (scene) => {
      await scene.supervisor(runtime);
      const worker = scene.register({ name: "a", runtime });
      const pid = await worker.waitForReady();
      const victim = await scene.member(otherThan(runtime), {});
      succeeded(await victim.ask({ do: "dieAtChange", change: 10 }));
      const spec = { name: "b", module: workerModule.href };
      victim.child.sendLine(JSON.stringify({ do: "register", spec }));
      assertEquals(await victim.child.ended, "SIGKILL");
      assert(Registry.destroy("test", { dir: scene.dir }));
      await until(() => !isRunning(pid ?? 0));
      const after = scene.scene.open();
      assertEquals([...after.workers()], []);
    }));
}
