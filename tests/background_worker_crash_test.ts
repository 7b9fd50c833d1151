/**
 * Supervisors and workers that are killed: another supervisor takes over, adopts what runs, and no
 * worker ever runs twice.
 */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { DUE_AT } from "../lib/workers/table.ts";
import {
  type BackgroundMember,
  type BackgroundScene,
  inBackground,
  isRunning,
  sendTo,
} from "./_background.ts";
import { ABORTS, ENDS } from "./_background_worker.ts";
import { freezer } from "./_intruder.ts";
import { isLinux } from "./_async.ts";
import { assertFailed, succeeded, until } from "./_scene.ts";
import { randomFrom } from "./_random.ts";
import { otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

/** Two that would supervise; the first one does. */
async function pair(
  scene: BackgroundScene,
  first: RuntimeName,
  env: Record<string, string> = {},
): Promise<[BackgroundMember, BackgroundMember]> {
  const supervisor = await scene.supervisor(first, env);
  const heir = await scene.member(otherThan(first), { supervise: true });
  return [supervisor, heir];
}

for (const runtime of runtimes) {
  const workers = otherThan(runtime);

  test(`a ${runtime} supervisor is killed: the next one adopts what runs, and restarts it`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const ready = scene.register({ name: "ready", runtime: workers, restartTime: 0 });
      const started = scene.register({
        ...{ name: "started", runtime, function: "unready", restartTime: 0 },
      });
      const pids = [await ready.waitForReady(), await started.waitForStartup()];
      await first.killed();
      await scene.elected([heir]);
      assertEquals([ready.state, started.state], ["ready", "started"]);
      assertEquals([ready.pid, started.pid], pids);
      // Started is who is about to be called: its function may not have counted itself yet.
      await scene.hasRun("started", 1);
      // It watches them, too.
      for (const pid of pids) sendTo(pid, "SIGKILL");
      await scene.hasRun("ready", 2);
      await scene.hasRun("started", 2);
      assert(ready.reason?.includes("without a word"), `${ready.reason}`);
      for (const worker of [ready, started]) {
        await until(() => worker.pid !== null);
        assertEquals(worker.restarts, 1);
        scene.assertRuns(worker.name, 2);
        worker.terminate();
        assertEquals((await worker.waitForShutdown()).reason, "terminated");
      }
    }));

  test(`a ${runtime} supervisor is killed while a process is stopped in the tables: then there is one`, () =>
    inBackground({ supervise: false }, async (scene) => {
      if (!isLinux("a registry that is frozen")) return;
      const [first, second] = await pair(scene, runtime);
      const frozen = await freezer(scene.scene);
      await frozen.freeze();
      await first.killed();
      // It hears of the death at once, cannot clear it away, and comes again: several times.
      const until = performance.now() + 100;
      while (performance.now() < until) {
        assertEquals(succeeded(await second.ask({ do: "isSupervisor" })).found, false);
      }
      await frozen.thaw();
      assertEquals(await scene.elected([second]), second);
    }));

  test(`a ${runtime} supervisor is killed: an adopted worker's own word on its end counts`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const worker = scene.register({ name: "a", runtime: workers });
      const pid = await worker.waitForReady();
      await first.killed();
      await scene.elected([heir]);
      sendTo(pid, "SIGTERM");
      // The supervisor that has started it is dead, and it was told to end by a signal: as if both
      // had got Ctrl-C. It belongs to the next one.
      await scene.hasRun("a", 2);
      scene.assertRuns("a", 2);
      worker.terminate();
      assertEquals(await worker.waitForShutdown(), { exitCode: 0, reason: "terminated" });
    }));

  test(`a ${runtime} supervisor is killed after it has raised the attempt, before the start`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const worker = scene.register({ name: "a", runtime: workers });
      const victim = await scene.member(runtime);
      victim.child.sendLine(JSON.stringify({ do: "beginAndDie", dir: scene.dir }));
      await until(() => !isRunning(victim.pid));
      assertEquals(worker.state, "not-yet-started");
      await scene.supervisor(runtime);
      await worker.waitForReady();
      assertEquals(worker.restarts, 0);
      scene.assertRuns("a", 1);
    }));

  test(`a ${runtime} supervisor is killed before the worker has claimed: the late one ends`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const gate = scene.gate(workers);
      const [first, heir] = await pair(scene, runtime, gate.env);
      const worker = scene.register({ name: "a", runtime: workers, restartTime: 0 });
      await until(() => gate.arrived());
      const [late = 0] = gate.pids();
      assertEquals(worker.state, "not-yet-started");
      await first.killed();
      await scene.elected([heir]);
      const pid = await worker.waitForReady();
      assert(pid !== late);
      gate.open();
      await until(() => !isRunning(late));
      assertEquals([worker.state, worker.pid, worker.restarts], ["ready", pid, 0]);
      scene.assertRuns("a", 1);
    }));

  test(`a ${runtime} supervisor is killed: the late one cannot claim what its heir has started`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const gates = [scene.gate(workers), scene.gate(workers)] as const;
      const first = await scene.supervisor(runtime, gates[0].env);
      const heir = await scene.member(runtime, { supervise: true }, gates[1].env);
      const worker = scene.register({ name: "a", runtime: workers, restartTime: 0 });
      await until(() => gates[0].arrived());
      const [late = 0] = gates[0].pids();
      await first.killed();
      await scene.elected([heir]);
      await until(() => gates[1].arrived());
      // The row is STARTING, for both of them.
      gates[0].open();
      await until(() => !isRunning(late));
      assertEquals([worker.state, worker.pid], ["not-yet-started", null]);
      gates[1].open();
      assertEquals(await worker.waitForReady(), gates[1].pids()[0]);
      scene.assertRuns("a", 1);
    }));

  test(`a ${runtime} supervisor is killed, and the worker claims before the next one comes`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const gate = scene.gate(workers);
      const first = await scene.supervisor(runtime, gate.env);
      const worker = scene.register({ name: "a", runtime: workers, restartTime: 0 });
      await until(() => gate.arrived());
      const [pid] = gate.pids();
      await first.killed();
      gate.open();
      // Nobody supervises: it claims all the same, for its attempt is the row's.
      assertEquals(await worker.waitForReady(), pid);
      const heir = await scene.supervisor(runtime);
      assertEquals([worker.state, worker.pid], ["ready", pid]);
      scene.assertRuns("a", 1);
      worker.terminate();
      await worker.waitForShutdown();
      succeeded(await heir.ask({ do: "close" }));
    }));

  test(`a ${runtime} supervisor is killed while the worker loads its module`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      // The module waits for the word of the test, and takes the process with it if it is told so.
      const record = scene.record("slow");
      const source = new URL("./_background_slow.ts", import.meta.url);
      const worker = scene.register({ name: "slow", module: source, runtime: workers });
      await until(() => record[ENDS] === -1);
      assertEquals(worker.state, "not-yet-started");
      await first.killed();
      await scene.elected([heir]);
      const { pid, state } = worker;
      assertEquals([state, pid !== null], ["not-yet-started", true]);
      Atomics.store(record, ENDS, 0);
      assertEquals(await worker.waitForReady(), pid);
      scene.assertRuns("slow", 1);
    }));

  test(`a ${runtime} supervisor is killed while it terminates: the next one kills`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const worker = scene.register({ name: "a", function: "blocks", runtime: workers });
      const pid = await worker.waitForReady();
      await scene.stop(first);
      worker.terminate({ grace: 30 });
      await first.killed();
      await scene.elected([heir]);
      const killed = "terminated; killed after its grace of 30 ms";
      assertEquals(await worker.waitForShutdown(), { exitCode: null, reason: killed });
      await until(() => !isRunning(pid ?? 0));
      scene.assertRuns("a", 1);
    }));

  test(`a ${runtime} supervisor is killed while a restart is due: the next one restarts`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const worker = scene.register({
        ...{ name: "a", function: "throws", arg: 1, restartTime: 60_000, runtime: workers },
      });
      await until(() => worker.restarts === 1);
      assertEquals([worker.state, worker.reason], ["not-yet-started", "failure number 1"]);
      await first.killed();
      await scene.elected([heir]);
      assertEquals(worker.state, "not-yet-started");
      // As if most of the minute were over.
      const [, table] = scene.table();
      table.changeSync(() => table.setTime(worker.slot, DUE_AT, Date.now() + 100));
      assertEquals(await worker.waitForShutdown(), { exitCode: 0, reason: null });
      scene.assertRuns("a", 2);
    }));

  test(`a ${runtime} supervisor and its worker are killed together`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const again = scene.register({ name: "again", runtime: workers, restartTime: 0 });
      const never = scene.register({ name: "never", runtime });
      const pids = [await again.waitForReady(), await never.waitForReady()];
      await scene.stop(first);
      for (const pid of pids) sendTo(pid, "SIGKILL");
      await first.killed();
      await scene.elected([heir]);
      await scene.hasRun("again", 2);
      assert((await never.waitForShutdown()).reason?.includes("without a word"));
      scene.assertRuns("again", 2);
      scene.assertRuns("never", 1);
    }));

  test(`a ${runtime} supervisor that is stopped disturbs no worker; it is still the one`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const worker = scene.register({ name: "a", runtime: workers, restartTime: 0 });
      const pid = await worker.waitForReady();
      await scene.stop(first);
      assertEquals(succeeded(await heir.ask({ do: "isSupervisor" })).found, false);
      assertEquals([worker.state, worker.pid], ["ready", pid]);
      const other = scene.register({ name: "b", runtime: workers });
      // The worker hears it from its row.
      worker.terminate();
      await until(() => scene.record("a")[ENDS] === 1);
      assertEquals(other.state, "not-yet-started");
      first.child.kill("SIGCONT");
      assertEquals((await worker.waitForShutdown()).reason, "terminated");
      await other.waitForReady();
      assertEquals(succeeded(await first.ask({ do: "isSupervisor" })).found, true);
    }));

  test(`a ${runtime} supervisor that closes hands over to one that is willing`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const worker = scene.register({ name: "a", runtime: workers, restartTime: 0 });
      const thread = scene.register({ name: "thread", thread: true });
      const pid = await worker.waitForReady();
      assertEquals(await thread.waitForReady(), first.pid);
      succeeded(await first.ask({ do: "close" }));
      await scene.elected([heir]);
      assertEquals([worker.state, worker.pid], ["ready", pid]);
      assertEquals(scene.record("a")[ABORTS], 0);
      // A thread ends with its process, and starts anew in the next one.
      await scene.hasRun("thread", 2);
      await until(() => thread.pid === heir.pid);
      scene.assertRuns("thread", 2);
      scene.assertRuns("a", 1);
      first.child.endInput();
      // Its output is not at its end: the worker has it, too.
      await until(() => !isRunning(first.pid));
      assertEquals([worker.state, worker.pid], ["ready", pid]);
    }));

  test(`a ${runtime} supervisor is killed with a thread worker: it starts in the next one`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const thread = scene.register({ name: "thread", thread: true, restartTime: 0 });
      assertEquals(await thread.waitForReady(), first.pid);
      await first.killed();
      await scene.hasRun("thread", 2);
      await until(() => thread.pid === heir.pid);
      scene.assertRuns("thread", 2);
      // That it is in another's process keeps nobody from killing only what is meant.
      thread.terminate();
      assertEquals((await thread.waitForShutdown()).reason, "terminated");
      assert(isRunning(heir.pid));
    }));

  test(`a ${runtime} supervisor that lets go of all its locks is replaced, and queues again`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const [first, heir] = await pair(scene, runtime);
      const worker = scene.register({ name: "a", runtime: workers, restartTime: 0 });
      const pid = await worker.waitForReady();
      assert((succeeded(await first.ask({ do: "releaseAll" })).value ?? 0) >= 1);
      await scene.elected([heir]);
      assertEquals([worker.state, worker.pid], ["ready", pid]);
      sendTo(pid, "SIGKILL");
      await scene.hasRun("a", 2);
      scene.assertRuns("a", 2);
      await heir.killed();
      await scene.elected([first]);
      await until(() => worker.state === "ready");
      sendTo(worker.pid, "SIGKILL");
      await scene.hasRun("a", 3);
      scene.assertRuns("a", 3);
    }));

  test(`a ${runtime} program that supervises ends: with its workers if nobody else would`, () =>
    inBackground({ supervise: false }, async (scene) => {
      for (const how of ["close", "exit"] as const) {
        const supervisor = await scene.supervisor(runtime);
        const worker = scene.register({ name: how, runtime: workers });
        const pid = await worker.waitForReady();
        if (how === "close") {
          succeeded(await supervisor.ask({ do: "close" }));
          supervisor.child.endInput();
        } else {
          supervisor.child.sendLine(JSON.stringify({ do: "exit" }));
        }
        assertEquals(await ended(supervisor), true);
        await until(() => !isRunning(pid ?? 0));
        assertEquals(scene.record(how)[ENDS], 1);
        assertEquals(worker.state, "not-yet-started");
        worker.terminate();
      }
      // And being willing, with nothing to watch, keeps no program alive.
      const idle = await scene.supervisor(runtime);
      idle.child.endInput();
      assertEquals(await ended(idle), true);
    }));

  test(`handles wait in a ${runtime} process that does not supervise, blocking`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const member = await scene.member(runtime, {});
      const spec = { name: "a", module: moduleOf(), runtime: workers };
      succeeded(await member.ask({ do: "register", spec }));
      const { said } = succeeded(await member.ask({ do: "waitForReadySync" }));
      const [info] = [...scene.registry.workers()];
      assertEquals(said, String(info?.pid));
      assertEquals(succeeded(await member.ask({ do: "waitForStartupSync" })).said, said);
      const late = await member.ask({ do: "waitForShutdownSync", timeout: 20 });
      assertFailed(late, "TIMEOUT", "20 ms");
      succeeded(await member.ask({ do: "terminate" }));
      const end = succeeded(await member.ask({ do: "waitForShutdownSync" }));
      assertEquals(end.said, JSON.stringify({ exitCode: 0, reason: "terminated" }));
      // The worker is not its child, and survives who has registered it.
      succeeded(await member.ask({ do: "register", spec: { ...spec, name: "b" } }));
      succeeded(await member.ask({ do: "waitForReadySync" }));
      await member.killed();
      assertEquals([...scene.registry.workers()].at(-1)?.state, "ready");
    }));
}

test("supervisors and workers are killed again and again: no worker ever runs twice", () =>
  inBackground({ supervise: false }, async (scene) => {
    const random = randomFrom(process.pid);
    console.log(`seed ${process.pid}`);
    const names = ["a", "b", "c", "d"];
    const all = names.map((name, i) =>
      scene.register({ name, runtime: runtimes[i % 2] ?? "bun", restartTime: 0 })
    );
    const start = (i: number) => scene.member(runtimes[i % 2] ?? "bun", { supervise: true });
    const members = await Promise.all([0, 1, 2].map(start));
    for (let round = 0; round < 12; round++) {
      const supervisor = await scene.elected(members);
      // At whatever moment: some have just been started.
      await new Promise((resolve) => setTimeout(resolve, random() * 60));
      if (round % 3 !== 2) {
        supervisor.child.kill();
        members.splice(members.indexOf(supervisor), 1);
        members.push(await start(round));
      }
      for (const worker of all) {
        const { pid } = worker;
        if (pid !== null && random() < 0.5) kill(pid);
      }
    }
    // They are all there in the end, once each; a death takes a moment to be noticed.
    await until(() =>
      all.every((worker) => {
        const { state, pid } = worker;
        return state === "ready" && pid !== null && isRunning(pid);
      })
    );
    for (const { name } of all) {
      const [, doubles] = scene.record(name);
      assertEquals(doubles, 0, name);
    }
    assertEquals(new Set(all.map(({ pid }) => pid)).size, names.length);
  }));

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has died since.
  }
}

function moduleOf(): string {
  return new URL("./_background_worker.ts", import.meta.url).href;
}

/** Resolves when the process has ended: true if by itself. */
async function ended(member: BackgroundMember): Promise<boolean> {
  await until(() => !isRunning(member.pid));
  const how = await member.child.ended;
  return how === "exit code 0";
}
