/** Signals: condition variables by name, across processes. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import { Registry, type Signal } from "../lib/mod.ts";
import {
  assertChecksOptions,
  assertRefused,
  assertRejectedWith,
  observe,
  Party,
  turn,
} from "./_async.ts";
import { assertFailed, assertFails, inScene, succeeded, until } from "./_scene.ts";
import { untilParked } from "./_parked.ts";
import type { Report } from "./_agent.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/**
 * Notifies until the child has reported that its wait is over. Whether it was woken or has seen the
 * number change before it slept is not to be told from here.
 */
async function notifyUntil(signal: Signal, ended: Promise<Report>): Promise<Report> {
  const observed = observe(ended);
  await until(() => {
    if (!observed.settled) signal.notify();
    return observed.settled;
  });
  return succeeded(await ended);
}

/** Has the child wait, in a way that may block it; it has begun and ended when this resolves. */
async function waitsOnce(signal: Signal, child: Party, how: "wait" | "waitSync"): Promise<void> {
  child.child.sendLine(JSON.stringify({ do: "signal", name: "s", how }));
  const begun = child.next();
  const ended = notifyUntil(signal, child.next());
  assertEquals(await begun, { said: "begun" });
  await ended;
}

/** Nobody is to be told of segments that are not his. */
function assertSpeaksOf(message: string, name: string): void {
  assert(message.includes(`ignal "${name}"`), message);
  // deno-lint-ignore no-control-regex
  assert(!/[\u0001?]!|[Ss]egment "[\u0001?]/.test(message), message);
}

async function assertClosed(waiting: Promise<unknown>, name: string): Promise<void> {
  const { message } = await assertRefused(waiting, "CLOSED", "closed or destroyed");
  assertSpeaksOf(message, name);
}

test("notify wakes the first that waits, notifyAll all of them; both count up", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const signal = registry.signal("s");
    assertEquals([signal.name, signal.sequence], ["s", 0]);
    assertEquals([signal.notify(), signal.notifyAll(), signal.sequence], [false, 0, 2]);
    const order: number[] = [];
    const waits = [0, 1, 2, 3].map((i) =>
      signal.wait().then((sequence) => {
        order.push(i);
        return sequence;
      })
    );
    await turn();
    assertEquals([order.length, signal.notify()], [0, true]);
    assertEquals([await waits[0], order], [3, [0]]);
    assertEquals([signal.notifyAll(), signal.notifyAll()], [3, 0]);
    assertEquals([await Promise.all(waits), order], [[3, 5, 5, 5], [0, 1, 2, 3]]);
    // The same for whoever asks, and another one by another name.
    const again = registry.signal("s");
    const elsewhere = observe(registry.signal("t").wait());
    const waiting = again.wait();
    assertEquals([again.sequence, signal.notifyAll(), await waiting], [5, 1, 6]);
    await turn();
    assertEquals([elsewhere.settled, registry.signal("t").sequence], [false, 0]);
    assertEquals([registry.signal("t").notify(), await elsewhere.promise], [true, 1]);
  }));

test("a wait since a number that was seen misses nothing", () =>
  inScene(async (scene) => {
    const signal = scene.open().signal("s");
    const seen = signal.sequence;
    // Another number than the present one: it does not matter which.
    for (const since of [1, 2 ** 30, 2 ** 31 - 1]) {
      assertEquals([await signal.wait({ since }), signal.waitSync({ since })], [0, 0]);
    }
    const waiting = observe(signal.wait({ since: seen }));
    await turn();
    assertEquals([waiting.settled, signal.notify(), await waiting.promise], [false, true, 1]);
    signal.notifyAll();
    assertEquals([await signal.wait({ since: seen }), signal.waitSync({ since: seen })], [2, 2]);
    assertFails(() => signal.waitSync({ since: 2, timeout: 0 }), "TIMEOUT");
    assertEquals(signal.notifyAll(), 0);
  }));

test("what takes too long is TIMEOUT, and not counted any more", () =>
  inScene(async (scene) => {
    const signal = scene.open().signal("late");
    for (const timeout of [0, 0.5, 2]) {
      const error = await assertRefused(signal.wait({ timeout }), "TIMEOUT", `${timeout} ms`);
      const same = assertFails(() => signal.waitSync({ timeout }), "TIMEOUT", `${timeout} ms`);
      for (const { message, requested } of [error, same]) {
        assertEquals(requested, timeout);
        assertSpeaksOf(message, "late");
      }
    }
    assertEquals([signal.notify(), signal.notifyAll()], [false, 0]);
    for (const timeout of [2 ** 31, Infinity]) {
      const waiting = observe(signal.wait({ timeout }));
      await turn();
      assertEquals([waiting.settled, signal.notify()], [false, true]);
      await waiting.promise;
    }
  }));

test("an abort ends a wait with its reason, and takes no notification with it", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const signal = registry.signal("s");
    const controllers = [0, 1, 2].map(() => new AbortController());
    const waits = controllers.map((controller) => signal.wait({ signal: controller.signal }));
    const reason = { why: "enough" };
    controllers[0]?.abort(reason);
    await assertRejectedWith(waits[0] ?? turn(), reason);
    assertEquals(signal.notify(), true);
    // Told already: an abort is too late.
    controllers[1]?.abort(reason);
    assertEquals(await waits[1], 1);
    // Also an error of ours is a reason as it is.
    const own = assertFails(() => registry.signal(""), "NAME_INVALID");
    controllers[2]?.abort(own);
    await assertRejectedWith(waits[2] ?? turn(), own);
    assertEquals(signal.notifyAll(), 0);
    // Before all else.
    const aborted = AbortSignal.abort(reason);
    await assertRejectedWith(signal.wait({ since: 77, signal: aborted }), reason);
  }));

test("a loop gets the notifications from its beginning on, counted since its last turn", () =>
  inScene(async (scene) => {
    const signal = scene.open().signal("s");
    signal.notifyAll();
    const notifications = signal.notifications();
    for (let i = 0; i < 3; i++) signal.notify();
    const counts: number[] = [];
    for await (const count of notifications) {
      counts.push(count);
      // While the body runs: the next turn's.
      if (counts.length === 1) { for (let i = 0; i < 5; i++) signal.notifyAll(); }
      // While nobody runs.
      if (counts.length === 2) setTimeout(() => signal.notify());
      if (counts.length === 3) break;
    }
    assertEquals([counts, signal.sequence], [[3, 5, 1], 10]);
    // Broken off: nobody waits.
    assertEquals(signal.notifyAll(), 0);
    // The signal itself is the same.
    setTimeout(() => signal.notifyAll());
    for await (const count of signal) {
      assertEquals(count, 1);
      break;
    }
    assertEquals(signal.notifyAll(), 0);
    // Two loops get each of them.
    const loops = [signal.notifications(), signal.notifications()];
    const turns = loops.map((loop) => loop.next());
    await turn();
    assertEquals(signal.notifyAll(), 2);
    assertEquals(await Promise.all(turns), Array(2).fill({ value: 1, done: false }));
    assertEquals(await loops[0]?.return?.(), { value: undefined, done: true });
  }));

test("a loop ends by an abort: before, while it waits, and while its body runs", () =>
  inScene(async (scene) => {
    const signal = scene.open().signal("s");
    const reason = { why: "enough" };
    await assertRejectedWith(
      signal.notifications({ signal: AbortSignal.abort(reason) }).next(),
      reason,
    );
    for (const when of ["waits", "runs"]) {
      const controller = new AbortController();
      const notifications = signal.notifications({ signal: controller.signal });
      signal.notify();
      let turns = 0;
      const loop = (async () => {
        for await (const count of notifications) {
          turns += count;
          if (when === "waits") setTimeout(() => controller.abort(reason));
          else {
            signal.notify();
            controller.abort(reason);
          }
        }
      })();
      await assertRejectedWith(loop, reason);
      assertEquals([turns, signal.notifyAll()], [1, 0]);
      assertEquals((await notifications.next()).done, true);
    }
  }));

test("names are 1 to 61 bytes of UTF-8, apart from those of segments", () =>
  inScene((scene) => {
    const registry = scene.open();
    for (const name of ["a", "x".repeat(61), "é".repeat(30), "\u0001", "parking", 'a "b"']) {
      const signal = registry.signal(name);
      assertEquals([signal.name, signal.sequence, signal.notify()], [name, 0, false]);
      assertEquals(registry.signal(name).sequence, 1);
    }
    for (const [name, length] of [["x".repeat(62), 62], ["é".repeat(31), 62]] as const) {
      const error = assertFails(
        () => registry.signal(name),
        "NAME_TOO_LONG",
        "61",
        `${length} bytes`,
      );
      assertEquals([error.actual, error.requested], [length, 61]);
      assertSpeaksOf(error.message.replace("name ", ""), name);
    }
    assertFails(() => registry.signal("x".repeat(1e6)), "NAME_TOO_LONG", "1000000 bytes");
    for (const name of ["", "a/b", "a\0", "\ud800", 5, null, undefined, {}]) {
      const error = assertFails(() => registry.signal(name as string), "NAME_INVALID", "signal");
      assert(!/segment/.test(error.message), error.message);
    }
    assertEquals([...registry.segments()], []);
    registry.getNamedSegmentSync("a", 64);
    assert(registry.dropSegment("a"));
    assertEquals([registry.signal("a").sequence, [...registry.segments()]], [1, []]);
    registry.close();
    assertFails(() => registry.signal("a"), "CLOSED", "test");
  }));

test("options are checked, each by its name", () =>
  inScene(async (scene) => {
    const signal = scene.open().signal("s");
    await assertChecksOptions((options) => signal.wait(options));
    assertThrows(() => signal.waitSync({ timeout: -1 }), RangeError, "timeout");
    for (const since of [-1, 0.5, NaN, Infinity, 2 ** 31]) {
      assertThrows(() => signal.waitSync({ since }), RangeError, "since");
      await assertRejects(() => signal.wait({ since }), RangeError, `${since}`);
    }
    for (const since of ["0", 0n, {}, true] as unknown as number[]) {
      assertThrows(() => signal.waitSync({ since }), TypeError, "since");
      await assertRejects(() => signal.wait({ since }), TypeError, "since");
    }
    for (const options of [5, "x", () => {}] as unknown as { timeout: number }[]) {
      assertThrows(() => signal.waitSync(options), TypeError, "not an object");
      await assertRejects(() => signal.wait(options), TypeError, "not an object");
      assertThrows(() => signal.notifications(options as object), TypeError, "not an object");
    }
    assertThrows(
      () => signal.notifications({ signal: {} as AbortSignal }),
      TypeError,
      "not an AbortSignal",
    );
    assertEquals([signal.notifyAll(), signal.sequence], [0, 1]);
  }));

test("a registry that is full says so of the signal", () =>
  inScene((scene) => {
    for (const maxSegments of [1, 2]) {
      const registry = scene.open({ maxSegments }, `full ${maxSegments}`);
      // Room for those who wait, but not for the signal; or not even that.
      if (maxSegments === 2) registry.getNamedSegmentSync("a", 64);
      const { message, actual } = assertFails(() => registry.signal("s"), "REGISTRY_FULL");
      assertSpeaksOf(message, "s");
      assertEquals(actual, maxSegments);
      if (maxSegments === 1) continue;
      assert(registry.dropSegment("a"));
      const signal = registry.signal("s");
      assertEquals(signal.notify(), false);
      // What is full has room again by a drop.
      assertFails(() => registry.signal("t"), "REGISTRY_FULL");
      assert(registry.dropSignal("s"));
      assertEquals(registry.signal("t").notify(), false);
    }
  }));

test("close() and destroy() end every wait with CLOSED, and all that comes after", () =>
  inScene(async (scene) => {
    for (const how of ["close", "destroy"] as const) {
      const registry = scene.open();
      const signal = registry.signal("s");
      const waits = [signal.wait(), signal.wait({ timeout: 1e9 }), signal.notifications().next()];
      const loop = (async () => {
        for await (const _ of signal) assert(false, "never");
      })();
      for (const wait of waits) observe<unknown>(wait);
      observe(loop);
      await turn();
      const begun = signal.notifications();
      if (how === "close") registry.close();
      else assert(Registry.destroy("test", { dir: scene.dir }));
      for (const wait of [...waits, loop]) await assertClosed(wait, "s");
      await assertClosed(begun.next(), "s");
      await assertClosed(signal.wait(), "s");
      const calls = [
        () => signal.sequence,
        () => signal.notify(),
        () => signal.notifyAll(),
        () => signal.waitSync(),
        () => signal.notifications(),
        () => signal[Symbol.asyncIterator](),
      ];
      for (const call of calls) assertSpeaksOf(assertFails(call, "CLOSED").message, "s");
      registry.close();
      Registry.destroy("test", { dir: scene.dir });
    }
  }));

for (const runtime of runtimes) {
  const other = otherThan(runtime);

  test(`${runtime} waits, ${other} notifies`, () =>
    inScene(async (scene) => {
      const signal = scene.open().signal("s");
      const [first, second] = [
        await Party.start(scene, runtime),
        await Party.start(scene, other),
      ];
      for (let round = 0; round < 20; round++) {
        const ours = observe(signal.wait());
        await untilParked(scene, 1);
        await first.begin({ do: "signal", name: "s", how: "wait" });
        await untilParked(scene, 2);
        assertEquals((await second.ask({ do: "signal", name: "s", how: "notify" })).value, 1);
        assertEquals(await ours.promise, 2 * round + 1);
        assertEquals((await second.ask({ do: "signal", name: "s", how: "notifyAll" })).value, 1);
        assertEquals(succeeded(await first.next()).value, 2 * round + 2);
      }
      // Notified before it begins: nothing is missed.
      assertEquals((await second.ask({ do: "signal", name: "s", how: "notify" })).value, 0);
      const late = { do: "signal", name: "s", since: 40 } as const;
      assertEquals((await first.ask({ ...late, how: "wait" })).value, 41);
      assertEquals((await first.ask({ ...late, how: "waitSync" })).value, 41);
      // A thread that blocks, there and here.
      await waitsOnce(signal, first, "waitSync");
      await first.begin({ do: "signalUntilGo", name: "s" });
      assert(signal.waitSync() > 41);
      first.go();
      succeeded(await first.next());
      assertEquals(signal.notifyAll(), 0);
    }));

  test(`loops in ${runtime} and here count every notification of ${other}`, () =>
    inScene(async (scene) => {
      const signal = scene.open().signal("s");
      const [listener, notifier] = [
        await Party.start(scene, runtime),
        await Party.start(scene, other),
      ];
      const count = 500;
      const notifications = signal.notifications();
      await listener.begin({ do: "signalCount", name: "s", count });
      await listener.ask({ do: "answer" });
      await notifier.begin({ do: "signalMany", name: "s", count });
      let total = 0;
      for await (const some of notifications) {
        assert(some > 0);
        if ((total += some) >= count) break;
      }
      assertEquals(total, count);
      // Two answers by two processes, in either order; both must be good.
      succeeded(await notifier.next());
      assertEquals(succeeded(await listener.next()).value, count);
      assertEquals([signal.sequence, signal.notifyAll()], [count, 0]);
    }));

  test(`a ${runtime} process killed while it waits is not counted, and swallows nothing`, () =>
    inScene(async (scene) => {
      const signal = scene.open().signal("s");
      const survivor = await Party.start(scene, other);
      for (let round = 0; round < 3; round++) {
        const victim = await Party.start(scene, runtime);
        await victim.begin({ do: "signalWaits", name: "s", count: 5 });
        await untilParked(scene, 5);
        await survivor.begin({ do: "signal", name: "s", how: "wait" });
        await untilParked(scene, 6);
        const ours = observe(signal.wait());
        await untilParked(scene, 7);
        await victim.killed();
        assertEquals([signal.notify(), ours.settled], [true, false]);
        succeeded(await survivor.next());
        assertEquals([signal.notifyAll(), signal.notify()], [1, false]);
        await ours.promise;
      }
      const victim = await Party.start(scene, runtime);
      await victim.begin({ do: "signalWaits", name: "s", count: 5 });
      await untilParked(scene, 5);
      await victim.killed();
      assertEquals([signal.notifyAll(), signal.notify()], [0, false]);
    }));

  test(`a ${runtime} process that waits for a signal of a destroyed registry is told`, () =>
    inScene(async (scene) => {
      for (const how of ["wait", "waitSync"] as const) {
        const registry = scene.open();
        const signal = registry.signal("s");
        const child = await Party.start(scene, runtime);
        await waitsOnce(signal, child, how);
        child.child.sendLine(JSON.stringify({ do: "signal", name: "s", how }));
        if (how === "wait") assertEquals(await child.next(), { said: "begun" });
        assert(Registry.destroy("test", { dir: scene.dir }));
        if (how === "waitSync") assertEquals(await child.next(), { said: "begun" });
        // One that blocks may have been too late to do so; it is told the same.
        const report = await child.next();
        assertFailed(report, "CLOSED");
        assertSpeaksOf(report.message ?? "", "s");
        registry.close();
      }
    }));
}
