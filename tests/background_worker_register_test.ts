/** What can be registered as a background worker, and how many. */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import type { WorkerSpec } from "../lib/mod.ts";
import { encodeSpec } from "../lib/workers/spec.ts";
import { inBackground, workerModule } from "./_background.ts";
import { assertFails } from "./_scene.ts";

test("bad workers are refused, each with what is wrong, and nothing is registered", () =>
  inBackground({ supervise: false }, (scene) => {
    const { registry } = scene;
    const good = { name: "a", module: workerModule };
    const register = (spec: unknown) => registry.registerBackgroundWorker(spec as WorkerSpec);
    const wrong: [unknown, string][] = [
      [undefined, "undefined"],
      [null, "null"],
      ["a", "string"],
      [{ ...good, module: 1 }, "module"],
      [{ ...good, module: "./relative.ts" }, "import.meta.url"],
      [{ ...good, scope: "cluster" }, '"cluster"'],
      [{ ...good, startTime: "later" }, '"registry-start"'],
      [{ ...good, runtime: "node" }, '"node"'],
      [{ ...good, thread: "yes" }, "thread"],
      [{ ...good, thread: true, runtime: "bun" }, "thread"],
      [{ ...good, runtimeArgs: "-A" }, "runtimeArgs"],
      [{ ...good, runtimeArgs: [1] }, "runtimeArgs"],
      [{ ...good, notify: "me" }, "notify"],
      [{ ...good, arg: 1n }, "JSON"],
      [{ ...good, arg: () => {} }, "JSON"],
    ];
    for (const [spec, text] of wrong) {
      const error = assertThrows(() => register(spec), TypeError);
      assert(error.message.includes(text), error.message);
    }
    for (const restartTime of [-1, NaN, Infinity, "1", 2 ** 31]) {
      assertThrows(() => register({ ...good, restartTime }), RangeError, "restartTime");
    }
    assertThrows(() => register({ ...good, grace: -1 }), RangeError, "grace");
    // Paths: all of one is names. What begins otherwise must be a URL.
    assertThrows(() => register({ ...good, module: "http://[" }), TypeError, "no absolute URL");
    assertFails(() => register({ ...good, module: "/\ud800.ts" }), "NAME_INVALID", "surrogate");
    const { stored } = encodeSpec({ name: "a", module: "/a b/c#d?e%20.ts" }, null);
    assertEquals(stored.module, "file:///a%20b/c%23d%3Fe%2520.ts");
    const nameless = assertFails(() => register({ module: workerModule }), "NAME_INVALID");
    assertEquals(nameless.message, "The worker's name is undefined, not a string.");
    const typed = assertFails(() => register({ ...good, type: 5 }), "NAME_INVALID");
    assertEquals(typed.message, "The worker's type is 5, not a string.");
    assertFails(() => register({ ...good, name: "\ud800" }), "NAME_INVALID", "The worker name ");
    assertFails(() => register({ ...good, name: "" }), "NAME_INVALID");
    assertFails(() => register({ ...good, name: "x".repeat(64) }), "NAME_TOO_LONG", 64, 63);
    assertFails(() => register({ ...good, name: "a\0" }), "NAME_INVALID");
    assertFails(() => register({ ...good, function: "" }), "NAME_INVALID", "function");
    assertFails(() => register({ ...good, type: "x".repeat(64) }), "NAME_TOO_LONG", "type");
    const arg = "x".repeat(4000);
    assertFails(() => register({ ...good, arg }), "SIZE_INVALID", 3072, "segment");
    assertEquals([...registry.workers()], []);
    assertThrows(
      () => scene.scene.open({ supervise: 1 as unknown as boolean }, "other"),
      TypeError,
      "supervise",
    );
    registry.close();
    assertFails(() => register(good), "CLOSED");
    return Promise.resolve();
  }));

test("null is as left out, for all that may be left out", () =>
  inBackground({ supervise: true }, async (scene) => {
    const options = [
      ...["type", "function", "scope", "notify", "startTime", "restartTime", "runtime", "thread"],
      ...["grace", "runtimeArgs"],
    ];
    const nothing = Object.fromEntries(options.map((option) => [option, null]));
    const worker = scene.register({ name: "a", ...nothing });
    const plain = scene.register({ name: "a" });
    await Promise.all([worker.waitForReady(), plain.waitForReady()]);
    const [one, other] = [...scene.registry.workers()].map((info) => ({
      ...info,
      ...{ pid: null, registeredAt: null, startedAt: null },
    }));
    assertEquals(one, other);
    for (const each of [worker, plain]) each.terminate();
    // Of the argument it is a value.
    const told = scene.register({ name: "t", function: "tells", arg: null });
    await told.waitForShutdown();
    const bytes = new Uint8Array(scene.registry.getNamedSegmentSync("told by t").buffer);
    const text = new TextDecoder().decode(bytes.slice()).replaceAll("\0", "");
    assertEquals(JSON.parse(text).arg, null);
    await Promise.all([worker.waitForShutdown(), plain.waitForShutdown()]);
  }));

test("the table has room for 256 workers; those that have stopped make room", () =>
  inBackground({ supervise: false }, async (scene) => {
    const all = Array.from({ length: 256 }, (_, i) => scene.register({ name: `worker ${i}` }));
    assertEquals([...scene.registry.workers()].map(({ name }) => name), all.map((w) => w.name));
    assertFails(() => scene.register({ name: "one more" }), "REGISTRY_FULL", 256);
    const [first, second] = all;
    assert(first !== undefined && second !== undefined);
    first.terminate();
    // It had nothing that needs to be ended.
    assertEquals(await first.waitForShutdown(), {
      exitCode: null,
      reason: "terminated before it had started",
    });
    const next = scene.register({ name: "next" });
    assertEquals([next.slot, next.state], [first.slot, "not-yet-started"]);
    // The handle of the one whose row it was knows that it is not its own any more.
    assertEquals(first.state, "stopped");
    first.terminate();
    assertEquals(next.state, "not-yet-started");
    assertFails(() => scene.register({ name: "one more" }), "REGISTRY_FULL", 256);
    // One at a time, the one that has stopped first.
    for (const worker of all.slice(1)) worker.terminate();
    for (let i = 0; i < 300; i++) scene.register({ name: `again ${i}` }).terminate();
    assertEquals(next.state, "not-yet-started");
    assertEquals([...scene.registry.workers()].length, 256);
  }));
