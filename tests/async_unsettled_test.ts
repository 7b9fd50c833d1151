/** Callbacks that never settle: what keeps their locks, and what frees them. */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { assertRefused, attach, observe, party, turn } from "./_async.ts";
import { assertFails, inScene, succeeded, until } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

const never = (): Promise<void> => new Promise(() => {});

for (const runtime of runtimes) {
  test(`close() frees what a callback that never settles keeps from a ${runtime} process`, () =>
    inScene(async (scene) => {
      const observer = scene.open({ database: "observer" });
      const { registry, segment, lock } = attach(scene);
      const inside = observe(lock.with("exclusive", never));
      const shared = registry.getNamedSegmentSync("b", 64).lock;
      const alsoInside = [
        observe(shared.with("shared", never)),
        observe(shared.with("shared", never)),
      ];
      const request = observe(registry.locks.request("web", never));
      await until(() => registry.getNamedSegmentSync("b").lock.heldByMe("shared"));
      await turn();

      const behind = [
        lock.acquire(),
        lock.acquire("shared"),
        lock.with("exclusive", () => assert(false, "never")),
        lock.hold("shared"),
        lock.acquireOrWait(),
        lock.waitForVar(0, 0n),
        shared.acquire("exclusive"),
        registry.locks.request("web", () => assert(false, "never")),
      ].map((promise) => observe<unknown>(promise));
      const child = await party(scene, runtime);
      await child.begin({ do: "acquire", segment: "a" });
      const elsewhere = observer.locks.request("web", () => "got it");
      await until(() => [...observer.waits()].some(({ pid }) => pid === child.pid));
      await turn();
      // Nothing but the end of the holders could let anybody in.
      assertEquals(behind.map(({ settled }) => settled), behind.map(() => false));

      registry.close();
      for (const { promise } of behind) await assertRefused(promise, "CLOSED");
      await assertRefused(request.promise, "CLOSED");
      assertEquals([inside, ...alsoInside].map(({ settled }) => settled), [false, false, false]);
      // As if the program had died in the middle of it.
      assertEquals(succeeded(await child.next()), { ok: true, held: true, abandoned: true });
      assertEquals(await elsewhere, "got it");
      assert(observer.getNamedSegmentSync("b").lock.tryAcquire());
      assertEquals(observer.getNamedSegmentSync("b").lock.abandoned, false);
      for (const call of [() => lock.acquireSync(), () => lock.release(), () => lock.abandoned]) {
        assertFails(call, "CLOSED", '"a"');
      }
      await assertRefused(lock.acquire(), "CLOSED", '"a"');
      await assertRefused(lock.waitForVar(0, 0n), "CLOSED", '"a"');
      assertFails(() => segment.buffer, "DETACHED", '"a"');
    }));

  test(`a ${runtime} process whose tasks wait for nothing ends, and frees what they hold`, () =>
    inScene(async (scene) => {
      const { lock } = attach(scene);
      const child = await party(scene, runtime);
      await child.ask({ do: "acquire", segment: "a" });
      const waiting = lock.acquire();
      await child.endsWell();
      await waiting;
      assert(lock.abandoned);
      lock.markConsistent();
      lock.release();
    }));
}

test("the signal that ended the wait for a lock does not end the callback that has it", () =>
  inScene(async (scene) => {
    const { registry, lock } = attach(scene);
    const controller = new AbortController();
    const gate = Promise.withResolvers<string>();
    const inside = observe(
      lock.with("exclusive", () => gate.promise, { signal: controller.signal, timeout: 1 }),
    );
    const behind = observe(lock.acquire());
    await turn();
    controller.abort("too late");
    await turn();
    assertEquals([inside.settled, behind.settled], [false, false]);
    gate.resolve("done");
    assertEquals(await inside.promise, "done");
    await behind.promise;
    lock.release();
    assertEquals([...registry.waits()], []);
  }));
