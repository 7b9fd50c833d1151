/** Signals that are dropped, loops over them that end, and counts that agree in a storm. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "./_declare.ts";
import { Registry } from "../lib/mod.ts";
import { assertRefused, observe, Party, turn } from "./_async.ts";
import { assertFailed, assertFails, inScene, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";
import { Stage } from "./_words.ts";
import type { Account } from "./_words_member.ts";

test("a signal that is dropped ends every wait and every loop; its name is free", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const signal = registry.signal("s");
    const keep = observe(registry.signal("t").wait());
    signal.notify();
    const loop = (async () => {
      for await (const _ of signal) assert(false, "never");
    })();
    const notifications = signal.notifications();
    const next = notifications.next();
    const waits = [signal.wait(), signal.wait({ timeout: 1e6 }), signal.wait({ since: 1 }), next];
    for (const one of [...waits, loop]) observe<unknown>(one);
    await turn();
    assertEquals([registry.dropSignal("s"), registry.dropSignal("s")], [true, false]);
    for (const one of [...waits, loop]) {
      await assertRefused(one, "NOT_FOUND", 'Signal "s" was dropped', "Ask the registry");
    }
    assertEquals(await notifications.next(), { value: undefined, done: true });
    const calls = [
      () => signal.sequence,
      () => signal.notify(),
      () => signal.notifyAll(),
      () => signal.waitSync(),
      () => signal.notifications(),
    ];
    for (const call of calls) assertFails(call, "NOT_FOUND", 'Signal "s"');
    await assertRefused(signal.wait({ since: 0 }), "NOT_FOUND", 'Signal "s"');
    // The new one has nothing to do with it.
    const fresh = registry.signal("s");
    const waiting = observe(fresh.wait());
    assertFails(() => signal.notify(), "NOT_FOUND");
    await turn();
    assertEquals([fresh.sequence, waiting.settled, keep.settled], [0, false, false]);
    assertEquals([fresh.notify(), await waiting.promise], [true, 1]);
    assertEquals([registry.signal("t").notify(), await keep.promise], [true, 1]);
    // What was notified before the drop has been notified.
    const last = [fresh.wait(), fresh.wait()];
    assert(fresh.notify());
    assert(registry.dropSignal("s"));
    assertEquals(await last[0], 2);
    await assertRefused(last[1] ?? turn(), "NOT_FOUND");
  }));

test("dropSignal() checks names, and the registry", () =>
  inScene((scene) => {
    const registry = scene.open();
    assertEquals([registry.dropSignal("s"), registry.dropSignal("x".repeat(61))], [false, false]);
    assertFails(() => registry.dropSignal("x".repeat(62)), "NAME_TOO_LONG", "62 bytes", "61");
    for (const name of ["", "a/b", 5, undefined] as string[]) {
      assertFails(() => registry.dropSignal(name), "NAME_INVALID", "signal");
    }
    // Segments have names of their own.
    registry.getNamedSegmentSync("s", 64);
    assertEquals(registry.dropSignal("s"), false);
    registry.signal("s");
    assertEquals([registry.dropSegment("s"), registry.dropSignal("s")], [true, true]);
    Registry.destroy("test", { dir: scene.dir });
    assertFails(() => registry.dropSignal("s"), "CLOSED");
    registry.close();
    assertFails(() => registry.dropSignal("s"), "CLOSED", "test");
  }));

test("signals that come and go take no room, also those that nobody looks at any more", () =>
  inScene(async (scene) => {
    // Two of them are the table of those who wait, and the segment of the other process.
    const registry = scene.open({ maxSegments: 6 });
    const child = await Party.start(scene, "bun");
    await child.ask({ do: "get", segment: "a", size: 64 });
    for (let i = 0; i < 50; i++) {
      const name = `day ${i}`;
      const signal = registry.signal(name);
      await child.ask({ do: "signal", name, how: "notify" });
      assertEquals(signal.sequence, 1);
      assert(registry.dropSignal(name));
    }
  }));

for (const runtime of runtimes) {
  test(`what waits in a ${runtime} process for a signal that is dropped is told`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const [waiter, dropper] = [
        await Party.start(scene, runtime),
        await Party.start(scene, otherThan(runtime)),
      ];
      for (const how of ["wait", "waitSync"] as const) {
        const signal = registry.signal("s");
        const ours = observe(signal.wait({ since: 0 }));
        const before = (await dropper.ask({ do: "signal", name: "s", how: "notifyAll" })).value;
        assertEquals([before, await ours.promise], [1, 1]);
        const second = observe(signal.wait());
        waiter.child.sendLine(JSON.stringify({ do: "signal", name: "s", how, since: 1 }));
        if (how === "wait") assertEquals(await waiter.next(), { said: "begun" });
        // Those that block cannot say so; they are told all the same, before or after they sleep.
        assertEquals((await dropper.ask({ do: "dropSignal", name: "s" })).value, 1);
        await assertRefused(second.promise, "NOT_FOUND");
        if (how === "waitSync") assertEquals(await waiter.next(), { said: "begun" });
        const report = await waiter.next();
        // One that was so late that it got the new signal has found another number.
        if (report.ok === true) assertEquals(report.value, 0);
        else assertFailed(report, "NOT_FOUND", 'Signal "s"');
        registry.dropSignal("s");
      }
      await waiter.endsWell();
      await dropper.endsWell();
    }));
}

test("return() ends a loop whose next() is pending at once, and takes no notification with it", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const signal = registry.signal("s");
    for (let round = 0; round < 20; round++) {
      const [first, second] = [signal.notifications(), signal.notifications()];
      const pending = [first.next(), first.next(), first.next()];
      const other = observe(second.next());
      if (round % 2 === 0) await turn();
      assertEquals(await first.return?.(), { value: undefined, done: true });
      for (const one of pending) assertEquals(await one, { value: undefined, done: true });
      assertEquals(await first.next(), { value: undefined, done: true });
      // The one behind it gets the notification.
      assertEquals([other.settled, signal.notify()], [false, true]);
      assertEquals(await other.promise, { value: 1, done: false });
      // One that has been woken already keeps what it has got; it is the last.
      const [third, fourth] = [second.next(), second.next()];
      const behind = observe(signal.wait());
      assertEquals(signal.notify(), true);
      await second.return?.();
      assertEquals(await third, { value: 1, done: false });
      assertEquals(await fourth, { value: undefined, done: true });
      assertEquals([behind.settled, signal.notifyAll()], [false, 1]);
      await behind.promise;
    }
    assertEquals(signal.notifyAll(), 0);
    // throw(), too; and a loop that nobody has begun.
    const loop = signal.notifications();
    const pending = loop.next();
    const why = new Error("why");
    assertEquals(await loop.throw?.(why).catch((error) => error), why);
    assertEquals(await pending, { value: undefined, done: true });
    const unused = signal.notifications();
    assertEquals((await unused.return?.())?.done, true);
    assertEquals([(await unused.next()).done, signal.notifyAll()], [true, 0]);
    // The same of what watches the registry.
    const changes = registry.watch();
    const change = changes.next();
    await turn();
    assertEquals(await changes.return?.(), { value: undefined, done: true });
    assertEquals(await change, { value: undefined, done: true });
  }));

const STORM_MS = Number(process.env["DSMR_STORM_MS"] ?? 2000);

test("waits and notifications at random: each that is counted ends one wait, and none is stolen", () =>
  inScene(async (scene) => {
    const seed = Number(process.env["DSMR_SEED"] ?? Date.now() % 1_000_000);
    console.log(`storm: DSMR_SEED=${seed}`);
    const stage = new Stage(scene);
    const members = [await stage.member(), await stage.member(), await stage.member()];
    const total: Account = { ok: 0, woken: 0, ended: 0, counted: 0, unmoved: 0 };
    members.forEach((member, i) =>
      member.send({ do: "storm", seed: seed + i, milliseconds: STORM_MS })
    );
    for (const member of members) {
      const account = JSON.parse((await member.child.next()).said ?? "") as Account;
      for (const key of Object.keys(total) as (keyof Account)[]) total[key] += account[key];
    }
    console.log(JSON.stringify(total));
    assert(total.ok > 0 && total.counted > 0);
    assertEquals(total.ok, total.woken);
    // Who has not slept yet sees the number by itself.
    assert(total.ended >= total.counted);
    assertEquals(total.unmoved, 0);
    await until(() => stage.parking.sweep().taken === 0);
    await stage.end();
  }));
