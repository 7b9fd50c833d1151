/** The async forms of a lock whose holder has died inside. */

import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { test } from "./_declare.ts";
import type { Segment } from "../lib/mod.ts";
import { assertNothingLeft, assertRefused, attach, holder, SIZE } from "./_async.ts";
import { assertFails, inScene, until } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

for (const runtime of runtimes) {
  test(`a lock that a killed ${runtime} process held is repaired before any async form returns`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      let repairs = 0;
      const repair = (segment: Segment): void => {
        repairs++;
        assert(segment.lock.heldByMe("exclusive"));
      };
      const { lock } = registry.getNamedSegmentSync("a", SIZE, undefined, { repair });
      const forms: (() => Promise<unknown>)[] = [
        () => lock.acquire(),
        () => lock.with("exclusive", () => assertEquals(lock.abandoned, false)),
        () => lock.hold(),
        () => lock.acquireOrWait(),
      ];
      for (const [i, acquire] of forms.entries()) {
        const child = await holder(scene, runtime, "exclusive");
        if (i === 3) {
          // It waits for nobody but the dead.
          await child.killed();
        }
        const waiting = acquire();
        if (i < 3) {
          await until(() => [...registry.waits()].length === 1);
          await child.killed();
        }
        await waiting;
        assertEquals([repairs, lock.abandoned], [i + 1, false]);
        registry.releaseAll();
      }
      assertNothingLeft(registry, lock);
    }));

  test(`a repair that throws leaves a ${runtime} process's lock abandoned and free`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const cause = new Error("as planned");
      let outcome: (() => unknown) | undefined = () => {
        throw cause;
      };
      const { lock } = registry.getNamedSegmentSync("a", SIZE, undefined, {
        repair: () => outcome?.() as void,
      });
      const child = await holder(scene, runtime, "exclusive");
      const waiting = [lock.acquire(), lock.acquire("exclusive")];
      const refused = waiting.map((promise) => assertRefused(promise, "ABANDONED", '"a"', "threw"));
      await until(() => [...registry.waits()].length === 1);
      await child.killed();
      // The first lets go, and the second tries.
      for (const promise of refused) assertStrictEquals((await promise).cause, cause);
      assertEquals([lock.heldByMe(), lock.abandoned], [false, true]);
      // It works, shared.
      await lock.with("shared", () => assert(lock.abandoned));
      outcome = async () => await Promise.resolve();
      const error = await assertRefused(lock.with("exclusive", () => assert(false)), "ABANDONED");
      assert(error.cause instanceof TypeError);
      outcome = undefined;
      await lock.acquire();
      assertEquals(lock.abandoned, false);
      lock.release();
      assertNothingLeft(registry, lock);
    }));
}

for (const mode of ["exclusive", "shared"] as const) {
  test(`who has no time takes the lock over from a killed process that held it ${mode}`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const none = { timeout: 0 };
      // Whether it has the lock then; else it has seen that it is free.
      const forms: Record<string, () => boolean | Promise<boolean>> = {
        tryAcquire: () => lock.tryAcquire(),
        acquireSync: () => (lock.acquireSync("exclusive", none), true),
        withSync: () => lock.withSync("exclusive", () => lock.heldByMe("exclusive"), none),
        holdSync: () => (lock.holdSync("exclusive", none), true),
        // The first waits for the end of the dead one, which has come.
        acquireOrWaitSync: () => lock.acquireOrWaitSync(none) || lock.acquireOrWaitSync(none),
        waitForVarSync: () => lock.waitForVarSync(0, 0n, none).released,
        acquire: () => lock.acquire("exclusive", none).then(() => true),
        with: () => lock.with("exclusive", () => lock.heldByMe("exclusive"), none),
        hold: () => lock.hold("exclusive", none).then(() => true),
        acquireOrWait: () => lock.acquireOrWait(none),
        waitForVar: async () => (await lock.waitForVar(0, 0n, none)).released,
      };
      // It waits for no shared holder, dead or not.
      if (mode === "shared") delete forms["acquireOrWaitSync"];
      const failed: string[] = [];
      for (const [i, [name, call]] of Object.entries(forms).entries()) {
        const child = await holder(scene, runtimes[i % 2] ?? "deno", mode);
        await child.killed();
        try {
          assertEquals(await call(), true);
          const isHeld = !name.startsWith("waitForVar") && !name.startsWith("with");
          assertEquals([lock.heldByMe(), lock.abandoned], [isHeld, mode === "exclusive"]);
        } catch (error) {
          failed.push(`${name}: ${error}`);
        }
        registry.releaseAll();
        // Also what has just failed.
        lock.withSync("exclusive", () => lock.markConsistent(), { timeout: 1000 });
      }
      assertEquals(failed, []);
      assertNothingLeft(registry, lock);
    }));
}

test("an abandoned lock without repair is told by abandoned, until markConsistent", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    await (await holder(scene, "deno", "exclusive")).killed();
    await lock.with("exclusive", () => assert(lock.abandoned));
    await lock.acquire("shared");
    assert(lock.abandoned);
    assertFails(() => lock.markConsistent(), "NOT_HELD");
    lock.release();
    await lock.with("exclusive", () => lock.markConsistent());
    assertEquals(lock.abandoned, false);
    assertNothingLeft(registry, lock);
  }));
