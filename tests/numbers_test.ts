/** Numbers that are odd, in every call that takes one: -0 is 0, and a wait for it ends. */

import { assert, assertEquals } from "@std/assert";
import { LockQueue } from "../lib/lock_queue.ts";
import { Registry, type Segment } from "../lib/mod.ts";
import { wait, within } from "../lib/wait.ts";
import { assertNothingLeft, assertRefused, assertRejectedWith, attach, holder } from "./_async.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene, type Scene } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

/** What Math.ceil makes of a little less than nothing. */
const MINUS_ZERO = Math.ceil(-0.4);
const NONE = { timeout: MINUS_ZERO };

/** Every call that takes a number of which 0 is one, with -0 in its place. */
function calls(
  scene: Scene,
  registry: Registry,
  segment: Segment,
): Record<string, () => unknown> {
  const { lock } = segment;
  const { dir } = scene;
  const tranche = registry.newTranche("t");
  return {
    "Registry.openSync timeout": () => Registry.openSync("other", { dir, ...NONE }).close(),
    "Registry.open timeout": async () => (await Registry.open("other", { dir, ...NONE })).close(),
    "getNamedSegmentSync timeout": () => registry.getNamedSegmentSync("s", 8, undefined, NONE),
    "getNamedSegment timeout": () => registry.getNamedSegment("t", 8, undefined, NONE),
    "initLock offset": () => segment.initLock(MINUS_ZERO, tranche),
    "lockAt offset": () => segment.lockAt(MINUS_ZERO),
    "acquireSync timeout": () => lock.acquireSync("exclusive", NONE),
    "updateVar offset": () => lock.updateVar(MINUS_ZERO, 1n, { release: true }),
    "holdSync timeout": () => lock.holdSync("shared", NONE)[Symbol.dispose](),
    "withSync timeout": () => lock.withSync("exclusive", () => {}, NONE),
    "acquireOrWaitSync timeout": () => lock.acquireOrWaitSync(NONE) && lock.release(),
    "acquire timeout": () => lock.acquire("exclusive", NONE).then(() => lock.release()),
    "with timeout": () => lock.with("exclusive", () => {}, NONE),
    "hold timeout": async () => (await lock.hold("exclusive", NONE))[Symbol.dispose](),
    "acquireOrWait timeout": async () => await lock.acquireOrWait(NONE) && lock.release(),
    "waitForVarSync": () => lock.waitForVarSync(MINUS_ZERO, 0n, NONE),
    "waitForVar": () => lock.waitForVar(MINUS_ZERO, 0n, NONE),
    "waitSync": () => segment.waitSync(MINUS_ZERO, MINUS_ZERO, NONE),
    "wait": () => segment.wait(MINUS_ZERO, MINUS_ZERO, NONE),
    "notify": () => segment.notify(MINUS_ZERO, MINUS_ZERO),
  };
}

test("-0 is 0, as any number of any call", () =>
  inScene(async (scene) => {
    const { registry, segment, lock } = attach(scene);
    const failed: string[] = [];
    for (const [name, call] of Object.entries(calls(scene, registry, segment))) {
      try {
        await call();
      } catch (error) {
        failed.push(`${name}: ${error}`);
      }
    }
    assertEquals(failed, []);
    const signal = registry.signal("s");
    assertFails(() => signal.waitSync({ since: MINUS_ZERO, ...NONE }), "TIMEOUT", "within 0 ms");
    await assertRefused(signal.wait({ since: MINUS_ZERO, ...NONE }), "TIMEOUT", "within 0 ms");
    assertFails(() => registry.getNamedSegmentSync("z", MINUS_ZERO), "SIZE_INVALID", "of 0 bytes");
    assertNothingLeft(registry, lock);
  }));

for (const runtime of runtimes) {
  test(`a wait of -0 ms for a lock that a ${runtime} process holds ends, and never owns it`, () =>
    inScene(async (scene) => {
      const child = await holder(scene, runtime, "exclusive");
      const { registry, lock } = attach(scene);
      assertFails(() => lock.acquireSync("exclusive", NONE), "TIMEOUT", "within 0 ms");
      assertFails(() => lock.acquireOrWaitSync(NONE), "TIMEOUT", "within 0 ms");
      assertFails(() => lock.waitForVarSync(0, 0n, NONE), "TIMEOUT", "within 0 ms");
      for (
        const wait of [
          () => lock.acquire("exclusive", NONE),
          () => lock.with("shared", () => {}, NONE),
          () => lock.hold("shared", NONE),
          () => lock.acquireOrWait(NONE),
          () => lock.waitForVar(0, 0n, NONE),
        ]
      ) await assertRefused(wait(), "TIMEOUT", "within 0 ms");
      // Nobody waits any more: when it is free it stays so.
      await child.ask({ do: "release", segment: "a" });
      await lock.with("exclusive", () => {});
      assertEquals(lock.heldByMe(), false);
      assertNothingLeft(registry, lock);
    }));
}

test("a wait whose error cannot be made is told why, and waits no more", async () => {
  const broken = new Error("as planned");
  const late = () => {
    throw broken;
  };
  // Never to be had.
  const queue = new LockQueue({
    watch: () => 0,
    cancel: () => {},
    free: () => {},
    isHeld: () => true,
    isWanted: () => false,
    late,
  });
  await assertRejectedWith(queue.enqueue("exclusive", { timeout: 0 }), broken);
  await assertRejectedWith(queue.run(() => assert(false), { timeout: 1 }), broken);
  assertEquals([queue.waiters, queue.busy], [0, 0]);
  await assertRejectedWith(within(new Promise(() => {}), { timeout: 1 }, late), broken);
  // An outcome that is no watch of anybody's.
  const attempt = () => 0x7fffffff;
  await assertRejectedWith(wait({ attempt, late }, { timeout: 1 }), broken);
  const giveUp = late;
  const { signal, abort } = withAbort();
  const waiting = wait({ attempt, giveUp, late: () => undefined }, { signal });
  abort();
  await assertRejectedWith(waiting, broken);
});

function withAbort(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}
