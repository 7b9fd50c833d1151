/** Background workers, supervised by this process: how they start, end, and start again. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { DsmrError, Registry, type WorkerEvent, type WorkerSpec } from "../lib/mod.ts";
import { crashPause } from "../lib/workers/ends.ts";
import {
  type BackgroundScene,
  inBackground,
  isRunning,
  rejection,
  sendTo,
  workerModule,
} from "./_background.ts";
import { ABORTS, ENDS, LOST, ORDER, PID } from "./_background_worker.ts";
import { assertFails, until } from "./_scene.ts";
import { type RuntimeName, runtimes } from "./_spawn.ts";

/**
 * As processes of either runtime, which this process supervises; and as threads of a process of
 * either runtime, which supervises them. (As threads of this one Deno's test runner would check the
 * types of the whole library again for each, which takes seconds.)
 */
const kinds = [
  ...runtimes.map((runtime) => ({ kind: `${runtime} process`, host: undefined, how: { runtime } })),
  ...runtimes.map((host) => ({ kind: `${host} thread`, host, how: { thread: true } })),
] as const;

/** Runs a test's body where workers of a kind are supervised; it gets the host of the threads. */
function inKind(
  host: RuntimeName | undefined,
  body: (scene: BackgroundScene, hostPid: number | undefined) => Promise<void>,
): Promise<void> {
  return inBackground({ supervise: host === undefined }, async (scene) => {
    if (host === undefined) await body(scene, undefined);
    else await body(scene, (await scene.supervisor(host)).pid);
  });
}

for (const { kind, host, how } of kinds) {
  test(`worker as a ${kind}: it starts, is ready, does its work, is terminated`, () =>
    inKind(host, async (scene, hostPid) => {
      const before = [...scene.registry.backends()].length;
      const worker = scene.register({ name: "a", ...how });
      assertEquals([worker.state, worker.pid, worker.reason], ["not-yet-started", null, null]);
      const pid = await worker.waitForStartup();
      assertEquals(await worker.waitForReady(), pid);
      assertEquals([worker.state, worker.pid, worker.restarts], ["ready", pid, 0]);
      const record = scene.record("a");
      assertEquals(record[PID], pid);
      assertEquals(pid === hostPid, hostPid !== undefined);
      const [info, ...others] = [...scene.registry.workers()];
      assert(info !== undefined && others.length === 0);
      assertEquals([info.name, info.type, info.state, info.pid, info.database, info.addin], [
        ...["a", "a", "ready", pid, null, null],
      ]);
      assertEquals(info.thread, host !== undefined);
      assertEquals([info.module, info.function], [workerModule.href, "default"]);
      // It is a backend of its own.
      assertEquals([...scene.registry.backends()].length, before + 1);

      worker.terminate();
      assertEquals(await worker.waitForShutdown(), { exitCode: 0, reason: "terminated" });
      assertEquals([worker.state, worker.pid], ["stopped", null]);
      assertEquals([record[ABORTS], record[ENDS]], [1, 1]);
      assertEquals([...scene.registry.backends()].length, before);
      // Once more does nothing.
      worker.terminate();
      assertEquals(worker.state, "stopped");
      scene.assertRuns("a", 1);
    }));

  test(`worker as a ${kind}: it gets its argument, name, type and registry`, () =>
    inKind(host, async (scene) => {
      const arg = { text: 'äöü \u0000 "', list: [1, null, { deep: true }] };
      const worker = scene.register({ name: "t", type: "teller", function: "tells", arg, ...how });
      assertEquals(await worker.waitForShutdown(), { exitCode: 0, reason: null });
      const told = scene.registry.getNamedSegmentSync("told by t");
      const text = new TextDecoder().decode(new Uint8Array(told.buffer).slice());
      assertEquals(JSON.parse(text.replaceAll("\0", "")), {
        arg,
        ...{ name: "t", type: "teller", database: null, restarts: 0 },
        ...{ registry: "test", opened: "default" },
      });
    }));

  test(`worker as a ${kind}: returning ends it and unregisters it`, () =>
    inKind(host, async (scene) => {
      const worker = scene.register({ name: "a", function: "once", restartTime: 0, ...how });
      await worker.waitForStartup();
      assertEquals(await worker.waitForShutdown(), { exitCode: 0, reason: null });
      assertEquals([...scene.registry.workers()], []);
      scene.assertRuns("a", 1);
      const error = await rejection(worker.waitForReady());
      assert(error instanceof DsmrError && error.code === "INIT_FAILED", String(error));
    }));

  test(`worker as a ${kind}: a throw restarts it after its restart time, as often as it takes`, () =>
    inKind(host, async (scene) => {
      const worker = scene.register({
        ...{ name: "a", function: "throws", arg: 3, restartTime: 5, ...how },
      });
      assertEquals(await worker.waitForShutdown(), { exitCode: 0, reason: null });
      assertEquals(worker.restarts, 3);
      scene.assertRuns("a", 4);
    }));

  test(`worker as a ${kind}: without a restart time a throw stops it, and its message is kept`, () =>
    inKind(host, async (scene) => {
      const worker = scene.register({ name: "a", function: "throws", arg: 1, ...how });
      const end = { exitCode: 1, reason: "failure number 1" };
      assertEquals(await worker.waitForShutdown(), end);
      const [info] = [...scene.registry.workers()];
      assertEquals([info?.state, info?.reason, info?.exitCode], ["stopped", end.reason, 1]);
      scene.assertRuns("a", 1);
    }));

  const crashes = [
    [3, 3, "exit code 3"],
    ["uncaught", 70, "nobody has caught"],
    ["rejection", 70, "nobody catches this"],
  ] as const;
  for (const [arg, exitCode, reason] of crashes) {
    test(`worker as a ${kind}: a crash (${arg}) is told, and restarts it`, () =>
      inKind(host, async (scene) => {
        const never = scene.register({ name: "never", function: "ends", arg, ...how });
        const end = await never.waitForShutdown();
        assertEquals(end.exitCode, exitCode);
        assert(end.reason?.includes(reason), `${end.reason}`);
        scene.assertRuns("never", 1);
        const again = scene.register({
          ...{ name: "again", function: "ends", arg, restartTime: 0, ...how },
        });
        await scene.hasRun("again", 3);
        assert(again.restarts >= 2);
        assert(again.reason?.includes(reason), `${again.reason}`);
        again.terminate();
        await again.waitForShutdown();
      }));
  }

  test(`worker as a ${kind}: process.exit(0) unregisters it, process.exit(1) is as a throw`, () =>
    inKind(host, async (scene) => {
      const zero = scene.register({ name: "0", function: "ends", arg: 0, restartTime: 0, ...how });
      assertEquals(await zero.waitForShutdown(), { exitCode: 0, reason: null });
      scene.assertRuns("0", 1);
      const one = scene.register({ name: "1", function: "ends", arg: 1, ...how });
      assertEquals(await one.waitForShutdown(), { exitCode: 1, reason: "exit code 1" });
      const again = scene.register({ name: "2", function: "ends", arg: 1, restartTime: 0, ...how });
      await scene.hasRun("2", 3);
      again.terminate();
      await again.waitForShutdown();
      assertEquals(zero.state, "stopped");
    }));

  test(`worker as a ${kind}: what cannot be loaded says why`, () =>
    inKind(host, async (scene) => {
      const missing = new URL("./there_is_no_such_module.ts", import.meta.url);
      const cases: [Partial<WorkerSpec>, string][] = [
        [{ module: missing }, "there_is_no_such_module"],
        [{ function: "nowhere" }, 'exports no function "nowhere"'],
        [{ function: "notAFunction" }, 'exports "notAFunction", but that is 42, not a function'],
        [{ module: new URL("./_background_throws.ts", import.meta.url) }, "when it is imported"],
        [{ module: "data:text/javascript,export default (" }, ""],
      ];
      for (const [spec, text] of cases) {
        const worker = scene.register({ name: "a", ...spec, ...how });
        const error = await rejection(worker.waitForStartup());
        assert(error instanceof DsmrError && error.code === "INIT_FAILED", String(error));
        const end = await worker.waitForShutdown();
        assertEquals(end.exitCode, 1);
        assert(end.reason !== null && end.reason.includes(text), `${end.reason}`);
        assert(error.message.includes(end.reason), error.message);
      }
      // It is as any error of the worker: it is tried again.
      const again = scene.register({ name: "b", function: "nowhere", restartTime: 0, ...how });
      await until(() => again.restarts >= 2);
      assertEquals(again.state, "not-yet-started");
      again.terminate();
      await again.waitForShutdown();
    }));

  test(`worker as a ${kind}: it is killed when its grace is over`, () =>
    inKind(host, async (scene) => {
      const deaf = scene.register({ name: "deaf", function: "deaf", grace: 20, ...how });
      const pid = await deaf.waitForReady();
      const record = scene.record("deaf");
      // It hears of that at its own time, which may be more than 20 ms.
      deaf.terminate({ grace: 60_000 });
      await until(() => Atomics.load(record, ABORTS) === 1);
      deaf.terminate();
      const killed = "terminated; killed after its grace of 20 ms";
      assertEquals(await deaf.waitForShutdown(), { exitCode: null, reason: killed });
      assertEquals([record[ABORTS], record[ENDS]], [1, 0]);
      if (host === undefined) assert(!isRunning(pid ?? 0));
      // One that never returns to its event loop hears of nothing.
      const blocks = scene.register({ name: "blocks", function: "blocks", ...how });
      await blocks.waitForReady();
      blocks.terminate({ grace: 20 });
      // Deno 2.9 does not interrupt a thread that never returns: it is there until it does.
      if (host !== undefined) Atomics.store(scene.record("blocks"), ORDER, 1);
      const end = await blocks.waitForShutdown();
      // A thread that was told to may have returned just in time.
      if (host === undefined || end.exitCode === null) assertEquals(end.reason, killed);
      else assertEquals(end, { exitCode: 0, reason: "terminated" });
      if (host === undefined) assertEquals(end.exitCode, null);
      if (host === undefined) assertEquals(scene.record("blocks")[ABORTS], 0);
    }));

  test(`worker as a ${kind}: it ends when its registry is destroyed`, () =>
    inKind(host, async (scene) => {
      const steady = scene.register({ name: "steady", ...how });
      // A process is to be killed, be it before it has heard; a thread is to hear of it.
      const grace = host === undefined ? 50 : 60_000;
      const deaf = scene.register({ name: "deaf", function: "deaf", grace, ...how });
      const pids = [await steady.waitForReady(), await deaf.waitForReady()];
      const records = [scene.record("steady"), scene.record("deaf")] as const;
      assert(Registry.destroy("test", { dir: scene.dir }));
      await until(() => records[0][LOST] === 1 && records[0][ENDS] === 1);
      if (host !== undefined) await until(() => records[1][LOST] === 1);
      if (host === undefined) await until(() => !pids.some((pid) => isRunning(pid ?? 0)));
      const error = await rejection(steady.waitForShutdown());
      assert(error instanceof DsmrError && error.code === "CLOSED", String(error));
      // Nor does it say what stands in memory that is nobody's any more.
      assertFails(() => steady.pid, "CLOSED");
      assertFails(() => steady.terminate(), "CLOSED");
    }));

  test(`worker as a ${kind}: one that closes its registry runs on, alone`, () =>
    inKind(host, async (scene) => {
      const spec = { name: "a", function: "closes", restartTime: 0, ...how };
      const worker = scene.register(spec);
      const pid = await worker.waitForReady();
      // A round of the supervisor's later.
      await scene.register({ name: "b", function: "once", ...how }).waitForShutdown();
      assertEquals([worker.state, worker.pid], ["ready", pid]);
      worker.terminate();
      await worker.waitForShutdown();
      scene.assertRuns("a", 1);
    }));
}

for (const runtime of runtimes) {
  test(`a ${runtime} worker that is killed by a signal: told, and restarted`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const never = scene.register({ name: "never", runtime });
      sendTo(await never.waitForReady(), "SIGKILL");
      assertEquals(await never.waitForShutdown(), { exitCode: null, reason: "killed by SIGKILL" });
      const worker = scene.register({ name: "again", runtime, restartTime: 0 });
      const first = await worker.waitForReady();
      sendTo(first, "SIGKILL");
      await scene.hasRun("again", 2);
      await until(() => worker.state === "ready");
      assertEquals([worker.restarts, worker.reason], [1, "killed by SIGKILL"]);
      assert(worker.pid !== first);
      scene.assertRuns("again", 2);
      // Somebody else's SIGTERM ends it in order; that is as an error: it is started again.
      sendTo(worker.pid, "SIGTERM");
      await scene.hasRun("again", 3);
      assertEquals(scene.record("again")[ABORTS], 1);
      assertEquals(worker.reason, "ended by SIGTERM");
    }));

  test(`a ${runtime} worker that is killed before it has claimed its row starts again`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const gate = scene.gate(runtime);
      const before = { ...process.env };
      Object.assign(process.env, gate.env);
      try {
        const worker = scene.register({ name: "a", runtime, restartTime: 0 });
        const never = scene.register({ name: "never", runtime });
        await until(() => gate.pids().length >= 2);
        assertEquals([worker.state, worker.pid], ["not-yet-started", null]);
        for (const pid of gate.pids()) process.kill(pid, "SIGKILL");
        const { reason } = await never.waitForShutdown();
        assertEquals(reason, "could not be started: killed by SIGKILL");
        await until(() => gate.pids().length >= 3);
        gate.open();
        await worker.waitForReady();
        assertEquals(worker.restarts, 1);
        scene.assertRuns("a", 1);
      } finally {
        for (const name of Object.keys(gate.env)) process.env[name] = before[name] ?? "";
      }
    }));

  test(`a ${runtime} worker is terminated before it has claimed its row, and never runs`, () =>
    inBackground({ supervise: true }, async (scene) => {
      const gate = scene.gate(runtime);
      const before = { ...process.env };
      Object.assign(process.env, gate.env);
      try {
        const worker = scene.register({ name: "a", runtime, restartTime: 0 });
        await until(() => gate.arrived());
        worker.terminate();
        const { reason } = await worker.waitForShutdown();
        assertEquals(reason, "terminated before it had started");
        await until(() => gate.pids().every((pid) => !isRunning(pid)));
        scene.assertRuns("a", 0);
      } finally {
        for (const name of Object.keys(gate.env)) process.env[name] = before[name] ?? "";
      }
    }));
}

test("a worker whose runtime is started by a script is killed, not the script alone", () =>
  inBackground({ supervise: true }, async (scene) => {
    for (const runtime of runtimes) {
      const gate = scene.gate(runtime, "child");
      gate.open();
      const before = { ...process.env };
      Object.assign(process.env, gate.env);
      try {
        const worker = scene.register({ name: runtime, function: "blocks", runtime });
        const pid = await worker.waitForReady() ?? 0;
        assert(!gate.pids().includes(pid));
        worker.terminate({ grace: 20 });
        const killed = "terminated; killed after its grace of 20 ms";
        assertEquals(await worker.waitForShutdown(), { exitCode: null, reason: killed });
        await until(() => ![pid, ...gate.pids()].some(isRunning));
      } finally {
        for (const name of Object.keys(gate.env)) process.env[name] = before[name] ?? "";
      }
    }
  }));

test("a runtime that is not there is an error that names what to do", () =>
  inBackground({ supervise: true }, async (scene) => {
    const before = process.env["DSMR_BUN"] ?? "";
    process.env["DSMR_BUN"] = "/nonexistent/bun";
    try {
      const worker = scene.register({ name: "a", runtime: "bun" });
      const { reason } = await worker.waitForShutdown();
      assert(reason?.includes("/nonexistent/bun") && reason.includes("DSMR_BUN"), `${reason}`);
      const error = await rejection(worker.waitForStartup());
      assert(error.message.includes("DSMR_BUN"), error.message);
    } finally {
      process.env["DSMR_BUN"] = before;
    }
  }));

test("the pause after a crash doubles, from 100 ms or the restart time, up to a minute", () => {
  assertEquals([1, 2, 3, 4].map((n) => crashPause(0, n)), [100, 200, 400, 800]);
  assertEquals([1, 2, 3].map((n) => crashPause(1000, n)), [1000, 2000, 4000]);
  assertEquals([crashPause(0, 11), crashPause(0, 2 ** 31)], [60_000, 60_000]);
  assertEquals([crashPause(90_000, 1), crashPause(90_000, 9)], [90_000, 90_000]);
});

test("notify hears of start, readiness, restart and stop, in order", () =>
  inBackground({ supervise: true }, async (scene) => {
    const events: WorkerEvent[] = [];
    const notify = (event: WorkerEvent): void => void events.push(event);
    const worker = scene.register({ name: "a", notify, restartTime: 0 });
    const first = await worker.waitForReady();
    await until(() => events.length === 2);
    assertEquals(events.map(({ type, pid, name }) => [type, pid, name]), [
      ["started", first, "a"],
      ["ready", first, "a"],
    ]);
    sendTo(first, "SIGKILL");
    await until(() => events.length >= 5);
    assertEquals(events.slice(2).map(({ type }) => type), ["restarting", "started", "ready"]);
    assertEquals(events[2]?.reason, "killed by SIGKILL");
    assertEquals(events[4]?.restarts, 1);
    worker.terminate();
    await until(() => events.length >= 6);
    assertEquals([events[5]?.type, events[5]?.reason], ["stopped", "terminated"]);
    // One that is over before anybody looks.
    const all: string[] = [];
    const brief = scene.register({
      ...{ name: "b", function: "throws", arg: 1, restartTime: 0 },
      notify: ({ type }) => void all.push(type),
    });
    await brief.waitForShutdown();
    await until(() => all.includes("stopped"));
    assertEquals(all, ["started", "restarting", "started", "stopped"]);
  }));

test("without a supervisor nothing starts, and the errors say so", () =>
  inBackground({ supervise: false }, async (scene) => {
    const worker = scene.register({ name: "a" });
    const error = await rejection(worker.waitForStartup({ timeout: 10 }));
    assert(error instanceof DsmrError && error.code === "TIMEOUT", String(error));
    assert(error.message.includes("supervise: true"), error.message);
    assertFails(() => worker.waitForStartupSync({ timeout: 5 }), "TIMEOUT", "supervise: true");
    assertFails(() => worker.waitForShutdownSync({ timeout: 0 }), "TIMEOUT");
    const reason = new Error("enough");
    assertEquals(
      await rejection(worker.waitForReady({ signal: AbortSignal.abort(reason) })),
      reason,
    );
    const abort = new AbortController();
    const waiting = rejection(worker.waitForReady({ signal: abort.signal }));
    abort.abort(reason);
    assertEquals(await waiting, reason);
    assertEquals(worker.state, "not-yet-started");
    // Somebody who does comes: it starts.
    const other = scene.scene.open({ supervise: true, database: "other" });
    await worker.waitForReady();
    other.close();
    await until(() => worker.state === "not-yet-started");
    await until(() => scene.record("a")[ENDS] === 1);
    scene.assertRuns("a", 1);
  }));

test("the thread that supervises must not block for its own workers", () =>
  inBackground({ supervise: true }, async (scene) => {
    const worker = scene.register({ name: "a" });
    // Also before it is elected.
    assertFails(() => worker.waitForStartupSync(), "DEADLOCK", "asynchronous");
    await worker.waitForReady();
    assertEquals(worker.waitForReadySync(), worker.pid);
    assertFails(() => worker.waitForShutdownSync(), "DEADLOCK");
  }));

test("a supervisor that closes, without another, stops the workers until there is one", () =>
  inBackground({ supervise: false }, async (scene) => {
    const workers = runtimes.map((runtime) => scene.register({ name: runtime, runtime }));
    for (let round = 1; round <= 3; round++) {
      const other = scene.scene.open({ supervise: true, database: "other" });
      for (const worker of workers) await scene.hasRun(worker.name, round);
      const pids = await Promise.all(workers.map((worker) => worker.waitForReady()));
      other.close();
      await until(() => workers.every(({ state }) => state === "not-yet-started"));
      await until(() => !pids.some((pid) => isRunning(pid ?? 0)));
      for (const { name, restarts } of workers) {
        scene.assertRuns(name, round);
        assertEquals([scene.record(name)[ABORTS], restarts], [round, 0]);
      }
    }
  }));

test("100 workers are started and stopped", () =>
  inBackground({ supervise: true }, async (scene) => {
    const workers = Array.from({ length: 100 }, (_, i) => {
      // Bun takes less memory for each.
      return scene.register({ name: `${i}`, runtime: i % 5 === 0 ? "deno" : "bun" });
    });
    await Promise.all(workers.map((worker) => worker.waitForReady()));
    assertEquals(
      [...scene.registry.workers()].filter(({ state }) => state === "ready").length,
      100,
    );
    const pids = workers.map(({ pid }) => pid ?? 0);
    assertEquals(new Set(pids).size, 100);
    for (const worker of workers) worker.terminate();
    await Promise.all(workers.map((worker) => worker.waitForShutdown()));
    for (const { name } of workers) scene.assertRuns(name, 1);
    assertEquals([...scene.registry.backends()].length, 1);
    await until(() => !pids.some(isRunning));
  }));
