/**
 * What the Web Locks specification says about `ifAvailable`, `steal`, `signal` and `query`: the
 * second part of `_web_locks_suite.ts`.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Check, hold, isPending, modes, never, rejectsWith } from "./_web_locks.ts";

/** Defines the tests. */
export function optionsSuite(check: Check): void {
  // ---- ifAvailable ------------------------------------------------------------------------

  check(
    "ifAvailable: the lock where it is free, else null, and nobody is disturbed",
    async (locks, name) => {
      assert(await locks.request(name, { ifAvailable: true }, (lock) => lock !== null));
      const held = hold(locks, name);
      await held.granted;
      for (const mode of ["exclusive", "shared"] as const) {
        const options = { mode, ifAvailable: true };
        assertEquals(await locks.request(name, options, (lock) => [lock]), [null]);
      }
      assertEquals(await modes(locks, name), [["exclusive"], []]);
      held.end();
      await held.result;
      assert(await locks.request(name, { ifAvailable: true }, (lock) => lock !== null));
    },
  );

  check("ifAvailable: what the callback does with null counts as ever", async (locks, name) => {
    const held = hold(locks, name);
    await held.granted;
    const reason = new Error("mine");
    const fail = () => Promise.reject(reason);
    const caught = await assertRejects(() => locks.request(name, { ifAvailable: true }, fail));
    assert(caught === reason);
    held.end();
    await held.result;
  });

  check("ifAvailable: shared beside shared, but not past one that waits", async (locks, name) => {
    const shared = { mode: "shared", ifAvailable: true } as const;
    const reader = hold(locks, name, { mode: "shared" });
    await reader.granted;
    assertEquals(await locks.request(name, shared, (lock) => lock?.mode), "shared");
    assertEquals(await locks.request(name, { ifAvailable: true }, (lock) => lock), null);
    const writer = hold(locks, name);
    assertEquals(await locks.request(name, shared, (lock) => lock), null);
    reader.end();
    await writer.granted;
    writer.end();
    await writer.result;
  });

  check("ifAvailable: held as long as any other", async (locks, name) => {
    const held = hold(locks, name, { ifAvailable: true });
    await held.granted;
    const next = hold(locks, name);
    assert(await isPending(locks, next.granted));
    held.end();
    await next.granted;
    next.end();
    await Promise.all([held.result, next.result]);
  });

  // ---- steal --------------------------------------------------------------------------------

  check("steal: what is free is just taken", async (locks, name) => {
    assertEquals(await locks.request(name, { steal: true }, (lock) => lock?.mode), "exclusive");
  });

  check(
    "steal: the robbed is rejected, what its callback does later counts no more",
    async (locks, name) => {
      const robbed = hold(locks, name);
      await robbed.granted;
      const thief = hold(locks, name, { steal: true });
      await thief.granted;
      await rejectsWith(robbed.result, "AbortError");
      assertEquals(await modes(locks, name), [["exclusive"], []]);
      robbed.end("too late");
      const next = hold(locks, name);
      assert(await isPending(locks, next.granted));
      thief.end("mine");
      assertEquals(await thief.result, "mine");
      await next.granted;
      next.end();
      await next.result;
    },
  );

  check("steal: all shared holders are robbed", async (locks, name) => {
    const readers = [1, 2, 3].map(() => hold(locks, name, { mode: "shared" }));
    await Promise.all(readers.map((held) => held.granted));
    assertEquals(await locks.request(name, { steal: true }, () => 1), 1);
    for (const { result } of readers) await rejectsWith(result, "AbortError");
    assertEquals(await modes(locks, name), [[], []]);
  });

  check(
    "steal: those who wait keep their places, and thieves can be robbed",
    async (locks, name) => {
      const robbed = hold(locks, name);
      await robbed.granted;
      const waiting = [hold(locks, name), hold(locks, name, { mode: "shared" })] as const;
      const thief = hold(locks, name, { steal: true });
      await thief.granted;
      const second = hold(locks, name, { steal: true });
      await second.granted;
      await rejectsWith(robbed.result, "AbortError");
      await rejectsWith(thief.result, "AbortError");
      assert(await isPending(locks, waiting[0].granted));
      assertEquals(await modes(locks, name), [["exclusive"], ["exclusive", "shared"]]);
      second.end();
      await waiting[0].granted;
      assert(await isPending(locks, waiting[1].granted));
      waiting[0].end();
      await waiting[1].granted;
      waiting[1].end();
      await Promise.all(waiting.map(({ result }) => result));
    },
  );

  check(
    "steal: a callback that fails after the theft is not heard any more",
    async (locks, name) => {
      const ended = Promise.withResolvers<never>();
      const granted = Promise.withResolvers<void>();
      const robbed = locks.request(name, () => {
        granted.resolve();
        return ended.promise;
      });
      await granted.promise;
      await locks.request(name, { steal: true }, () => {});
      await rejectsWith(robbed, "AbortError");
      ended.reject(new Error("too late"));
      await new Promise((resolve) => setTimeout(resolve));
    },
  );

  // ---- signal -------------------------------------------------------------------------------

  check("signal: aborted before, nothing is requested", async (locks, name) => {
    await rejectsWith(locks.request(name, { signal: AbortSignal.abort() }, never), "AbortError");
    const reason = { mine: true };
    const result = locks.request(name, { signal: AbortSignal.abort(reason) }, never);
    assert(await assertRejects(() => result) === reason);
    assertEquals(await modes(locks, name), [[], []]);
  });

  check("signal: an abort ends the waiting, with its reason", async (locks, name) => {
    const held = hold(locks, name);
    await held.granted;
    const reasons = [undefined, "My reason", new RangeError("mine")];
    for (const reason of reasons) {
      const controller = new AbortController();
      const { signal } = controller;
      const result = locks.request(name, { signal }, never);
      result.catch(() => {});
      assertEquals(await modes(locks, name), [["exclusive"], ["exclusive"]]);
      controller.abort(reason);
      assert(await assertRejects(() => result) === signal.reason);
      assertEquals(await modes(locks, name), [["exclusive"], []]);
    }
    held.end();
    await held.result;
  });

  check("signal: an abort in the turn of the request is in time", async (locks, name) => {
    const controller = new AbortController();
    const result = locks.request(name, { signal: controller.signal }, never);
    controller.abort();
    await rejectsWith(result, "AbortError");
    assertEquals(await locks.request(name, () => 1), 1);
  });

  check("signal: an abort after the grant has no effect", async (locks, name) => {
    const controller = new AbortController();
    const held = hold(locks, name, { signal: controller.signal });
    await held.granted;
    controller.abort();
    assert(await isPending(locks, held.result));
    assertEquals(await modes(locks, name), [["exclusive"], []]);
    held.end("done");
    assertEquals(await held.result, "done");
    // Nor has one after all is over.
    const later = new AbortController();
    assertEquals(await locks.request(name, { signal: later.signal }, () => 2), 2);
    later.abort();
    assertEquals(await locks.request(name, () => 3), 3);
  });

  check("signal: inside the callback it is too late", async (locks, name) => {
    const controller = new AbortController();
    const result = await locks.request(name, { signal: controller.signal }, () => {
      controller.abort();
      return "done";
    });
    assertEquals(result, "done");
  });

  check("signal: what stood behind an aborted request moves up", async (locks, name) => {
    const reader = hold(locks, name, { mode: "shared" });
    await reader.granted;
    const controller = new AbortController();
    const writer = hold(locks, name, { signal: controller.signal });
    const late = hold(locks, name, { mode: "shared" });
    assert(await isPending(locks, late.granted));
    controller.abort();
    await late.granted;
    await rejectsWith(writer.result, "AbortError");
    reader.end();
    late.end();
    await Promise.all([reader.result, late.result]);
  });

  check("signal: one for many requests ends those that wait", async (locks, name) => {
    const controller = new AbortController();
    const { signal } = controller;
    const all = [1, 2, 3].map(() => hold(locks, name, { signal }));
    await all[0]?.granted;
    controller.abort();
    for (const held of all.slice(1)) await rejectsWith(held.result, "AbortError");
    all[0]?.end("done");
    assertEquals(await all[0]?.result, "done");
  });

  // ---- query --------------------------------------------------------------------------------

  check("query: who holds and who waits, in order, with modes and clients", async (locks, name) => {
    const other = `${name} other`;
    const all = [
      hold(locks, name, { mode: "shared" }),
      hold(locks, other),
      hold(locks, name),
      hold(locks, name, { mode: "shared" }),
      hold(locks, name),
      hold(locks, other, { mode: "shared" }),
    ];
    await Promise.all(all.slice(0, 2).map((held) => held.granted));
    assertEquals(await modes(locks, name), [["shared"], ["exclusive", "shared", "exclusive"]]);
    assertEquals(await modes(locks, other), [["exclusive"], ["shared"]]);
    const { held, pending } = await locks.query();
    for (const info of [...held, ...pending]) {
      assertEquals(typeof info.clientId, "string");
      assert(info.clientId.length > 0);
    }
    for (const each of all) each.end();
    await Promise.all(all.map((each) => each.result));
  });

  check("query: a snapshot, which does not change", async (locks, name) => {
    const held = hold(locks, name);
    await held.granted;
    const before = await locks.query();
    const copy = structuredClone(before.held.map((info) => ({ ...info })));
    held.end();
    await held.result;
    assertEquals(before.held.map((info) => ({ ...info })), copy);
    assertEquals(copy.filter((info) => info.name === name).length, 1);
    assertEquals(await modes(locks, name), [[], []]);
  });

  check("query: shows what was requested before it in the same turn", async (locks, name) => {
    const held = hold(locks, name);
    const waiting = hold(locks, name, { mode: "shared" });
    assertEquals(await modes(locks, name), [["exclusive"], ["shared"]]);
    held.end();
    waiting.end();
    await Promise.all([held.result, waiting.result]);
  });

  check("query: a deadlock can be seen", async (locks, name) => {
    const [a, b] = [`${name} a`, `${name} b`];
    const both = [hold(locks, a), hold(locks, b)] as const;
    await Promise.all(both.map((held) => held.granted));
    const crossed = [hold(locks, b), hold(locks, a)] as const;
    for (const each of [a, b]) {
      assertEquals(await modes(locks, each), [["exclusive"], ["exclusive"]]);
    }
    for (const held of [...both, ...crossed]) held.end();
    await Promise.all([...both, ...crossed].map((held) => held.result));
  });
}
