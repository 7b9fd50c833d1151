/** Background workers of databases, of add-ins, and those that wait for somebody to attach. */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { Backend } from "../lib/backend.ts";
import type { WorkerInfo } from "../lib/mod.ts";
import { dropDatabase } from "../lib/opening.ts";
import {
  databaseIdOf,
  registerStatic,
  supervisorOf,
  terminateDatabase,
} from "../lib/workers/workers.ts";
import { FLAGS, STATE, WorkerTable } from "../lib/workers/table.ts";
import {
  type BackgroundMember,
  type BackgroundScene,
  inBackground,
  isRunning,
  rejection,
  sendTo,
  workerModule,
} from "./_background.ts";
import { DOUBLES, ENDS, RUNS } from "./_background_worker.ts";
import { succeeded, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/** Database and state of each worker of the name, by database. */
function states(scene: BackgroundScene, name: string): string[] {
  return infos(scene, name).map(({ database, state }) => `${database} ${state}`);
}

function infos(scene: BackgroundScene, name: string): WorkerInfo[] {
  return [...scene.registry.workers()].filter((worker) => worker.name === name)
    .sort((a, b) => String(a.database) < String(b.database) ? -1 : 1);
}

function runs(scene: BackgroundScene, name: string, database?: string): number[] {
  const record = scene.record(name, database);
  return [record[RUNS] ?? 0, record[DOUBLES] ?? 0];
}

for (const runtime of runtimes) {
  test(`a ${runtime} worker of each database runs once in each; a global one once in all`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const local = scene.register({ name: "local", scope: "database", runtime });
      const global = scene.register({ name: "global", runtime });
      await Promise.all([local.waitForReady(), global.waitForReady()]);
      assertEquals(states(scene, "local"), ["default ready"]);
      // Another database, and others that come to the same ones.
      const members: BackgroundMember[] = [];
      for (const database of ["b", "b", "default", "c"]) {
        members.push(await scene.member(otherThan(runtime), { database }));
      }
      await until(() => states(scene, "local").every((state) => state.endsWith("ready")));
      await until(() => states(scene, "local").length === 3);
      await until(() => states(scene, "local").every((state) => state.endsWith("ready")));
      assertEquals(states(scene, "local"), ["b ready", "c ready", "default ready"]);
      for (const database of ["default", "b", "c"]) {
        assertEquals(runs(scene, "local", database), [1, 0], database);
      }
      scene.assertRuns("global", 1);
      // Those who leave take no worker with them, those who come again get no second one.
      for (const member of members) await member.killed();
      await scene.member(runtime, { database: "b" });
      await scene.register({ name: "later", function: "once", runtime }).waitForShutdown();
      assertEquals(states(scene, "local"), ["b ready", "c ready", "default ready"]);
      assertEquals(runs(scene, "local", "b"), [1, 0]);
      // All of them end together.
      const pids = infos(scene, "local").map(({ pid }) => pid ?? 0);
      assertEquals(local.pid, infos(scene, "local")[2]?.pid);
      local.terminate();
      assertEquals((await local.waitForShutdown()).reason, "terminated");
      await until(() => !pids.some(isRunning));
      assertEquals(global.state, "ready");
    }));

  test(`a ${runtime} worker is restarted in its database, and ends with it`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const member = await scene.member(runtime, { database: "b" });
      const worker = scene.register({ name: "w", scope: "database", runtime, restartTime: 0 });
      await until(() => infos(scene, "w").filter(({ state }) => state === "ready").length === 2);
      const [b] = infos(scene, "w");
      assertEquals(b?.database, "b");
      sendTo(b?.pid, "SIGKILL");
      await until(() => infos(scene, "w")[0]?.restarts === 1);
      await until(() => infos(scene, "w")[0]?.state === "ready");
      assertEquals(runs(scene, "w", "b"), [2, 0]);
      assertEquals(runs(scene, "w", "default"), [1, 0]);
      // As dropDatabase() does it.
      const inB = Backend.open(scene.dir, "test", "b", {
        mode: "attach",
        maxBackends: 0,
        maxSegments: 0,
        timeout_ms: 10_000,
      });
      scene.scene.atEnd(() => inB.release());
      const pid = infos(scene, "w")[0]?.pid ?? 0;
      terminateDatabase(scene.backend(), databaseIdOf(inB));
      await until(() => !isRunning(pid));
      await until(() => states(scene, "w")[0] !== "b ready");
      // Somebody is still in it: it is not made anew for that.
      await scene.register({ name: "later", function: "once", runtime }).waitForShutdown();
      assertEquals(states(scene, "w"), ["b stopped", "default ready"]);
      assertEquals(worker.state, "ready");
      inB.release();
      await member.killed();
      // Nobody is: nothing is kept of it.
      await until(() => states(scene, "w").length === 1);
      assertEquals(runs(scene, "w", "b"), [2, 0]);
    }));

  test(`a ${runtime} worker whose database is dropped while it loads does not make it anew`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const member = await scene.member(runtime, { database: "b" });
      const record = scene.record("slow");
      const worker = scene.register({
        ...{ name: "slow", scope: "database", startTime: "first-database-attach", runtime },
        module: new URL("./_background_slow.ts", import.meta.url),
      });
      await until(() => Atomics.load(record, ENDS) === -1);
      assertEquals(worker.state, "not-yet-started");
      assert(scene.registry.dropDatabase("b"));
      await until(() => {
        // It stores that when it begins; and another one, of "default", may have.
        Atomics.store(record, ENDS, 0);
        return states(scene, "slow").includes("b stopped");
      });
      // Its function was entered: to end, by the signal.
      assertEquals(runs(scene, "slow", "b"), [1, 0]);
      assertEquals([...scene.registry.databases()].map(({ name }) => name), ["default"]);
      await member.killed();
    }));

  const droppers = [["this library", "default"], ["this library", "b"], ["C", "default"]] as const;
  for (const [who, database] of droppers) {
    test(`a ${runtime} worker makes no database that ${who} has dropped; supervised from "${database}"`, () =>
      inBackground({ supervise: false }, async (scene) => {
        const gate = scene.gate(runtime);
        const supervisor = await scene.member(runtime, { supervise: true, database }, gate.env);
        await scene.elected([supervisor]);
        await scene.member(runtime, { database: "b" });
        scene.register({
          ...{ name: "w", scope: "database", startTime: "first-database-attach", runtime },
        });
        // It may be "default" that is started first: the test's own process is there.
        await until(() => gate.pids().length === 2);
        // Who would kill it before it comes that far.
        await supervisor.killed();
        const drop = (name: string) => dropDatabase(scene.backend(), name);
        assert(who !== "C" ? scene.registry.dropDatabase("b") : drop("b"));
        gate.open();
        await until(() => gate.pids().filter(isRunning).length === 1);
        await until(() => states(scene, "w").includes("default ready"));
        assertEquals([...scene.registry.databases()].map(({ name }) => name), ["default"]);
        assertEquals(runs(scene, "w", "b"), [0, 0]);
      }));
  }

  test(`${runtime} workers that wait for somebody to attach`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const attach = scene.register({ name: "attach", startTime: "first-attach", runtime });
      const database = scene.register({
        ...{ name: "database", startTime: "first-database-attach", runtime },
      });
      const local = scene.register({
        ...{ name: "local", startTime: "first-database-attach", scope: "database", runtime },
      });
      // Workers that attach, in whatever way, are nobody; nor is the supervisor.
      await scene.register({ name: "now", runtime }).waitForReady();
      await scene.register({ name: "thread", thread: true }).waitForReady();
      assertEquals([attach.state, database.state, local.state], [
        ...["not-yet-started", "not-yet-started", "not-yet-started"],
      ]);
      await scene.member(runtime, {});
      await attach.waitForReady();
      await local.waitForReady();
      assertEquals(database.state, "not-yet-started");
      assertEquals(states(scene, "local"), ["default ready"]);
      const member = await scene.member(runtime, { database: "b" });
      await database.waitForReady();
      await until(() => states(scene, "local").includes("b ready"));
      // It is about the first start only.
      await member.killed();
      assertEquals(states(scene, "local"), ["b ready", "default ready"]);
      for (const name of ["attach", "database"]) scene.assertRuns(name, 1);
    }));

  test(`a static ${runtime} worker is one, however often it is registered`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const backend = scene.backend();
      const spec = { name: "w", module: workerModule, runtime };
      const first = registerStatic(backend, "add-in", spec);
      const second = registerStatic(backend, "add-in", spec);
      const other = registerStatic(backend, "other", spec);
      assertEquals([second.slot === first.slot, other.slot === first.slot], [true, false]);
      // Which makes a second one of the name, and the tests count by names.
      other.terminate();
      await first.waitForReady();
      await other.waitForShutdown();
      const mine = infos(scene, "w").find(({ addin }) => addin === "add-in");
      assertEquals([mine?.state, mine?.pid], ["ready", second.pid]);
      // One that was told to stop stays stopped, whoever registers it.
      first.terminate();
      await first.waitForShutdown();
      const third = registerStatic(backend, "add-in", spec);
      assertEquals([third.slot, third.state], [first.slot, "stopped"]);
      // Also if there is hardly room: its row is kept.
      for (let i = 0; i < 300; i++) scene.register({ name: `${i}`, runtime }).terminate();
      assertEquals(registerStatic(backend, "add-in", spec).state, "stopped");
      // One that has returned does not run again either.
      const once = { ...spec, name: "once", function: "once" };
      await registerStatic(backend, "add-in", once).waitForShutdown();
      assertEquals(registerStatic(backend, "add-in", once).state, "stopped");
      scene.assertRuns("once", 1);
    }));

  test(`static workers of several ${runtime} processes at once: one of each`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const members = await Promise.all(
        Array.from({ length: 4 }, () => scene.member(runtime, { supervise: true })),
      );
      const spec = { name: "w", module: workerModule.href };
      const slots = await Promise.all(members.map(async (member) => {
        const report = await member.ask({ do: "registerStatic", addin: "add-in", spec });
        return succeeded(report).value;
      }));
      assertEquals(new Set(slots).size, 1);
      await scene.hasRun("w", 1);
      await until(() => states(scene, "w")[0] === "null ready");
      scene.assertRuns("w", 1);
      assertEquals(infos(scene, "w").length, 1);
    }));
}

test("a supervisor whose database was dropped has no worker started there", () =>
  inBackground({ supervise: false }, async (scene) => {
    const supervisor = scene.scene.open({ supervise: true, database: "s" });
    assert(supervisor.dropDatabase("s"));
    const local = scene.register({ name: "local", scope: "database" });
    await local.waitForReady();
    await scene.register({ name: "later", function: "once" }).waitForShutdown();
    assertEquals(states(scene, "local"), ["default ready"]);
    assertEquals([...scene.registry.databases()].map(({ name }) => name), ["default"]);
  }));

test("rows that somebody has overwritten are errors, and disturb no other", () =>
  inBackground({ supervise: false }, async (scene) => {
    const backend = scene.backend();
    const bad = Array.from({ length: 6 }, (_, i) => scene.register({ name: `bad ${i}` }));
    const good = scene.register({ name: "good" });
    const table = WorkerTable.open(backend);
    const set = (i: number, change: (slot: number) => void) => {
      const slot = bad[i]?.slot ?? -1;
      table.changeSync(() => change(slot));
    };
    const text = (value: string) => new TextEncoder().encode(value);
    set(0, (slot) => table.setSpec(slot, text('{"name":')));
    set(1, (slot) => table.setSpec(slot, text('{"name":"a","grace":"much"}')));
    set(2, (slot) => table.setSpec(slot, new Uint8Array(3072).fill(0xff)));
    set(3, (slot) => table.set(slot, STATE, 77));
    set(4, (slot) => table.set(slot, STATE, -1));
    // The length of the spec; the flags.
    set(5, (slot) => {
      table.set(slot, 18, 0x7fffffff);
      table.set(slot, 19, -5);
      table.set(slot, FLAGS, 0);
    });
    assertEquals([...scene.registry.workers()].length, 7);
    scene.scene.open({ supervise: true, database: "supervisor" });
    await good.waitForReady();
    for (const worker of bad) {
      const { reason } = await worker.waitForShutdown();
      assert(reason?.includes("damaged"), `${reason}`);
      assertEquals((await rejection(worker.waitForStartup())).message.includes("damaged"), true);
    }
    // One that runs: it is watched on, and stopped when it has ended.
    table.changeSync(() => table.setSpec(good.slot, text("null")));
    sendTo(good.pid, "SIGKILL");
    assert((await good.waitForShutdown()).reason?.includes("damaged"));
    // Their rows can be used again.
    await scene.register({ name: "next" }).waitForReady();
    assert(supervisorOf(backend) !== undefined);
  }));
