/** Background workers of a registry that is gone, or whose table somebody has overwritten. */

import { assert, assertEquals } from "@std/assert";
import { closeSync, openSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { DsmrError, Registry } from "../lib/mod.ts";
import { Backend } from "../lib/backend.ts";
import type { Orders } from "../lib/workers/member.ts";
import { TABLE_BYTES, TABLE_NAME } from "../lib/workers/table.ts";
import {
  type BackgroundScene,
  inBackground,
  isRunning,
  rejection,
  workerModule,
} from "./_background.ts";
import { assertFailed, assertFails, type Scene, until } from "./_scene.ts";
import { Child, commandLine, runtimes } from "./_spawn.ts";

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

/** Overwrites the lock of the worker table. */
function damageLock(scene: Scene): void {
  // The segment's own lock stands before its bytes, in the file too.
  const header = 128;
  const [file, ...others] = scene.files()
    .map((name) => join(scene.dir, name))
    .filter((path) => statSync(path).size === header + TABLE_BYTES);
  assert(file !== undefined && others.length === 0, "one file is the table's");
  const fd = openSync(file, "r+");
  try {
    writeSync(fd, new Uint8Array(64).fill(0xa5), 0, 64, 64);
  } finally {
    closeSync(fd);
  }
}

/** What is said on console.error meanwhile. */
function listen(): { lines: string[]; end: () => void } {
  const lines: string[] = [];
  const before = console.error;
  console.error = (...parts: unknown[]): void => void lines.push(parts.map(String).join(" "));
  return { lines, end: () => console.error = before };
}

test("a damaged table ends supervising and notify, in one line each, and no program", () =>
  inBackground({ supervise: true }, async (scene) => {
    const { registry } = scene;
    const events: string[] = [];
    const worker = scene.register({ name: "a", notify: ({ type }) => void events.push(type) });
    const pid = await worker.waitForReady() ?? 0;
    await until(() => events.length === 2);
    // Willing, too: each will be elected, and cannot go on either.
    const heirs = await Promise.all(
      runtimes.map((runtime) => scene.member(runtime, { supervise: true })),
    );
    const said = listen();
    try {
      const waiting = rejection(worker.waitForShutdown());
      damageLock(scene.scene);
      // Something to do for the supervisor.
      process.kill(pid, "SIGKILL");
      const failure = await waiting;
      assert(failure instanceof DsmrError && failure.code === "CORRUPT", String(failure));
      await until(() => said.lines.length >= 2);
      const spec = { name: "b", module: workerModule };
      for (
        const call of [
          () => registry.registerBackgroundWorker(spec),
          () => registry.workers(),
          () => worker.state,
          () => worker.terminate(),
        ]
      ) assertFails(call, "CORRUPT");
      Registry.openSync("test", { dir: scene.dir, database: "b" }).close();
      assertFails(() => registry.dropDatabase("b"), "CORRUPT");
      assert([...registry.databases()].every(({ name }) => name !== "b"));
      const late = await rejection(worker.waitForReady());
      assert(late instanceof DsmrError && late.code === "CORRUPT", String(late));
      for (const heir of heirs) {
        await until(() => heir.child.printed.includes("dsmr: no more background workers"));
        assertFailed(
          await heir.ask({ do: "register", spec: { ...spec, module: workerModule.href } }),
          "CORRUPT",
        );
        assert(isRunning(heir.pid));
        assertEquals(heir.child.printed.split("dsmr: ").length, 2, heir.child.printed);
      }
      assertEquals(said.lines.length, 2, said.lines.join("\n"));
      assert(said.lines.every((line) => /^dsmr: .*damaged|^dsmr: .*lock/.test(line)));
      assert(said.lines.every((line) => !line.includes("\n")));
      assert(said.lines.some((line) => line.includes('registry "test"')), said.lines.join("\n"));
      assert(said.lines.some((line) => line.includes('worker "a"')), said.lines.join("\n"));
    } finally {
      said.end();
    }
    // The rest of the registry works.
    const segment = registry.getNamedSegmentSync("s", 64);
    await segment.lock.acquire();
    segment.lock.release();
    // The scene cannot ask for the workers any more; a registry that is gone has none.
    Registry.destroy("test", { dir: scene.dir });
  }));

test("a database goes although the workers' table is damaged, and then that is said", () =>
  inBackground({ supervise: false }, (scene) => {
    scene.register({ name: "a", scope: "database" });
    scene.scene.open({ database: "b" });
    damageLock(scene.scene);
    try {
      assertFails(() => scene.registry.dropDatabase("b"), "CORRUPT", "background workers");
      assertEquals([...scene.registry.databases()].map(({ name }) => name), ["default"]);
    } finally {
      // Its workers cannot be listed any more.
      Registry.destroy("test", { dir: scene.dir });
    }
    return Promise.resolve();
  }));

/** For the first start of a worker in the row. */
function ordersFor(scene: BackgroundScene, slot: number): Orders {
  const backend = Backend.open(scene.dir, "test", "default", {
    ...{ mode: "attach", maxBackends: 0, maxSegments: 0, timeout_ms: 10_000 },
  });
  const instance = String(backend.instance);
  backend.release();
  return {
    ...{ slot, generation: 1, attempt: 1, worker: "a", dir: scene.dir, name: "test" },
    ...{ database: "default", instance },
  };
}

for (const runtime of runtimes) {
  test(`a ${runtime} worker whose registry is destroyed before it claims its row ends without a word`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const { slot } = scene.register({ name: "a", runtime });
      const orders = ordersFor(scene, slot);
      const holder = Backend.open(scene.dir, "test", "holder", {
        ...{ mode: "attach", maxBackends: 0, maxSegments: 0, timeout_ms: 10_000 },
      });
      scene.scene.atEnd(() => holder.release());
      holder.lookup(TABLE_NAME)?.lock.acquireSync();
      const command = [...commandLine(runtime, "../lib/workers/main.ts"), JSON.stringify(orders)];
      const child = scene.scene.adopt(new Child(command));
      await until(() => [...scene.registry.backends()].some(({ waitsFor }) => waitsFor !== null));
      Registry.destroy("test", { dir: scene.dir });
      assertEquals(await child.ended, "exit code 0");
      assertEquals(child.printed, "");
    }));

  test(`a ${runtime} worker that finds the table damaged says so in one line, and ends with 70`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const { slot } = scene.register({ name: "a", runtime });
      const orders = ordersFor(scene, slot);
      damageLock(scene.scene);
      try {
        // As its supervisor starts it.
        const command = [...commandLine(runtime, "../lib/workers/main.ts"), JSON.stringify(orders)];
        const child = scene.scene.adopt(new Child(command));
        assertEquals(await child.ended, "exit code 70");
        const [line = "", ...others] = child.printed.trimEnd().split("\n");
        assertEquals(others, []);
        const texts = [
          'dsmr: background worker "a"',
          'registry "test"',
          scene.dir,
          "ends with code 70",
        ];
        for (const text of [...texts, "damaged", "Destroy the registry"]) {
          assert(line.includes(text), `${text} is not in: ${line}`);
        }
        console.log(line);
      } finally {
        Registry.destroy("test", { dir: scene.dir });
      }
    }));
}
