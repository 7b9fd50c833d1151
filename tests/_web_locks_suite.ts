/**
 * What the Web Locks specification says, for whatever implements it: the meaning of the public
 * web-platform-tests for it, in our own words. What is about frames, documents and origins has no
 * meaning here.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "node:test";
import type { WebLock, WebLockInfo, WebLockOptions, WebLocksSnapshot } from "../lib/mod.ts";

/** What `navigator.locks` and `registry.locks` have in common. */
export interface Locks {
  request<Result>(
    name: string,
    callback: (lock: WebLock | null) => Result,
  ): Promise<Awaited<Result>>;
  request<Result>(
    name: string,
    options: WebLockOptions,
    callback: (lock: WebLock | null) => Result,
  ): Promise<Awaited<Result>>;
  query(): Promise<WebLocksSnapshot>;
}

/** A request whose callback is under the test's control. */
export interface Held {
  /** Resolves when the callback runs. */
  granted: Promise<WebLock | null>;
  /** Lets the callback end, with this. */
  end(value?: unknown): void;
  /** What `request` has returned. */
  result: Promise<unknown>;
}

/** Makes a request that is held until it is ended. */
export function hold(locks: Locks, name: string, options: WebLockOptions = {}): Held {
  const granted = Promise.withResolvers<WebLock | null>();
  const ended = Promise.withResolvers<unknown>();
  const result = locks.request(name, options, (lock) => {
    granted.resolve(lock);
    return ended.promise;
  });
  result.catch(granted.reject);
  granted.promise.catch(() => {});
  return { granted: granted.promise, end: ended.resolve, result };
}

let nameCount = 0;

/** A name that no other test has. */
export function freshName(): string {
  return `name ${++nameCount}`;
}

/** Whether it has settled, after everything that was on its way has happened. */
async function isPending(locks: Locks, promise: Promise<unknown>): Promise<boolean> {
  let hasSettled = false;
  promise.then(() => hasSettled = true, () => hasSettled = true);
  for (let turn = 0; turn < 3; turn++) {
    await locks.query();
    await new Promise((resolve) => setTimeout(resolve));
  }
  return !hasSettled;
}

/** The modes of what is held and of what waits for a name, in order. */
async function modes(locks: Locks, name: string): Promise<[string[], string[]]> {
  const { held, pending } = await locks.query();
  const of = (infos: WebLockInfo[]) =>
    infos.filter((info) => info.name === name).map(({ mode }) => mode as string);
  return [of(held), of(pending)];
}

async function rejectsWith(promise: Promise<unknown>, name: string): Promise<void> {
  const error = await assertRejects(() => promise) as Error;
  assertEquals(error.name, name, String(error));
}

/** Calls with what TypeScript would refuse. */
function requestOf(locks: Locks): (...args: unknown[]) => Promise<unknown> {
  return (...args) => Reflect.apply(locks.request, locks, args) as Promise<unknown>;
}

function never(): never {
  throw new Error("This callback must not run.");
}

/** Defines the tests. What differs from the specification by itself is left out, with a word. */
export function suite(
  label: string,
  locksOf: () => Locks,
  differences: Readonly<Record<string, string>> = {},
): void {
  const check = (what: string, body: (locks: Locks, name: string) => Promise<void>): void => {
    const difference = differences[what];
    if (difference !== undefined) {
      console.log(`not compared: ${label}: ${what}: ${difference}`);
      return;
    }
    test(`${label}: ${what}`, async () => {
      // A held lock alone does not keep a program alive, and a test waits for its end.
      const alive = setInterval(() => {}, 1_000_000);
      try {
        await body(locksOf(), freshName());
      } finally {
        clearInterval(alive);
      }
    });
  };

  // ---- arguments ------------------------------------------------------------------------

  check("too few arguments, or a callback that is none, are a TypeError", async (locks, name) => {
    const request = requestOf(locks);
    for (const args of [[], [name], [name, undefined], [name, null], [name, {}], [name, "f"]]) {
      await rejectsWith(request(...args), "TypeError");
    }
    for (const callback of [undefined, null, 1, "f", {}, []]) {
      await rejectsWith(request(name, {}, callback), "TypeError");
    }
  });

  check(
    "a mode that is none, a signal that is none, options that are none",
    async (locks, name) => {
      const request = requestOf(locks);
      for (const mode of ["foo", "", "Exclusive", null, 1]) {
        await rejectsWith(request(name, { mode }, never), "TypeError");
      }
      for (const signal of ["string", 12.34, false, {}, Symbol(), () => {}, globalThis]) {
        await rejectsWith(request(name, { signal }, never), "TypeError");
      }
      for (const options of [1, "exclusive", true]) {
        await rejectsWith(request(name, options, never), "TypeError");
      }
      await rejectsWith(request(Symbol("a"), never), "TypeError");
      assertEquals(await modes(locks, name), [[], []]);
    },
  );

  check("options may be undefined, null or empty", async (locks, name) => {
    const request = requestOf(locks);
    for (const options of [undefined, null, {}, { mode: undefined, signal: undefined }]) {
      const mode = await request(name, options, (lock: WebLock) => lock.mode);
      assertEquals(mode, "exclusive");
    }
  });

  check("options that contradict each other are not supported", async (locks, name) => {
    const { signal } = new AbortController();
    for (
      const options of [
        { steal: true, ifAvailable: true },
        { steal: true, mode: "shared" as const },
        { signal, steal: true },
        { signal, ifAvailable: true },
      ]
    ) {
      await rejectsWith(locks.request(name, options, never), "NotSupportedError");
    }
    await locks.request(name, { signal, steal: false, ifAvailable: false }, () => {});
  });

  check("names may be anything that does not begin with a minus", async (locks) => {
    const names = [
      "",
      "abc",
      " ",
      "a-",
      "\0",
      "a\0b",
      "Ünïcödé",
      "日本",
      "🦕",
      "__proto__",
      "\u0001",
    ];
    for (const name of names) {
      const held = hold(locks, name);
      assertEquals((await held.granted)?.name, name);
      held.end();
      await held.result;
    }
    for (const name of ["-", "-abc", "--"]) {
      await rejectsWith(locks.request(name, never), "NotSupportedError");
    }
  });

  check("a name that is no string is converted to one", async (locks) => {
    assertEquals(await requestOf(locks)(12.5, (lock: WebLock) => lock.name), "12.5");
    assertEquals(await requestOf(locks)(null, (lock: WebLock) => lock.name), "null");
  });

  check("different names are different locks", async (locks, name) => {
    const names = [name, `${name} `, name.toUpperCase(), `${name}\0`, `${name}é`, `${name}日`, ""];
    const all = names.map((each) => hold(locks, each));
    await Promise.all(all.map((held) => held.granted));
    for (const held of all) held.end();
    await Promise.all(all.map((held) => held.result));
  });

  // ---- the callback -----------------------------------------------------------------------

  check("the callback gets the lock: its name and mode", async (locks, name) => {
    for (const mode of ["exclusive", "shared"] as const) {
      await locks.request(name, { mode }, (lock) => {
        assertEquals([lock?.name, lock?.mode], [name, mode]);
      });
    }
  });

  check("the callback runs after request has returned", async (locks, name) => {
    let hasReturned = false;
    const result = locks.request(name, () => assert(hasReturned));
    hasReturned = true;
    assert(result instanceof Promise);
    await result;
  });

  check("request resolves to what the callback returns, awaited", async (locks, name) => {
    assertEquals(await locks.request(name, () => 123), 123);
    assertEquals(await locks.request(name, () => Promise.resolve("abc")), "abc");
    assertEquals(await locks.request(name, () => undefined), undefined);
    assertEquals(await locks.request(name, { ifAvailable: true }, () => 5), 5);
  });

  check("request rejects with what the callback throws, and lets go", async (locks, name) => {
    const reason = new RangeError("mine");
    const failing = [
      () => {
        throw reason;
      },
      () => Promise.reject(reason),
    ];
    for (const callback of failing) {
      for (const options of [{}, { ifAvailable: true }, { steal: true }]) {
        const caught = await assertRejects(() => locks.request(name, options, callback));
        assertEquals(caught === reason, true);
        assertEquals(await modes(locks, name), [[], []]);
      }
    }
  });

  check("a lock is held until the callback's promise has settled", async (locks, name) => {
    const one = hold(locks, name);
    await one.granted;
    const two = hold(locks, name);
    assert(await isPending(locks, two.granted));
    assert(await isPending(locks, one.result));
    one.end("done");
    await two.granted;
    assertEquals(await one.result, "done");
    two.end();
    await two.result;
    assertEquals(await modes(locks, name), [[], []]);
  });

  check("a callback may ask for other locks, and for its own after it", async (locks, name) => {
    const seen: string[] = [];
    let later: Promise<void> | undefined;
    await locks.request(name, async () => {
      later = locks.request(name, () => void seen.push("later"));
      await locks.request(`${name} inner`, () => void seen.push("inner"));
      seen.push("outer");
    });
    await later;
    assertEquals(seen, ["inner", "outer", "later"]);
  });

  // ---- modes and order --------------------------------------------------------------------

  check("exclusive requests are granted one by one, in order", async (locks, name) => {
    const granted: number[] = [];
    let inside = 0;
    await Promise.all([1, 2, 3, 4, 5].map((i) =>
      locks.request(name, async () => {
        granted.push(i);
        assertEquals(++inside, 1);
        await new Promise((resolve) => setTimeout(resolve));
        inside--;
      })
    ));
    assertEquals(granted, [1, 2, 3, 4, 5]);
  });

  check("shared requests are granted together", async (locks, name) => {
    const all = [1, 2, 3].map(() => hold(locks, name, { mode: "shared" }));
    await Promise.all(all.map((held) => held.granted));
    assertEquals(await modes(locks, name), [["shared", "shared", "shared"], []]);
    for (const held of all) held.end();
    await Promise.all(all.map((held) => held.result));
  });

  check("a shared request behind an exclusive one that waits, waits", async (locks, name) => {
    const readers = [1, 2].map(() => hold(locks, name, { mode: "shared" }));
    await Promise.all(readers.map((held) => held.granted));
    const writer = hold(locks, name);
    const late = [1, 2].map(() => hold(locks, name, { mode: "shared" }));
    assert(await isPending(locks, late[0]?.granted ?? Promise.resolve()));
    assertEquals(await modes(locks, name), [
      ["shared", "shared"],
      ["exclusive", "shared", "shared"],
    ]);
    readers[0]?.end();
    await readers[0]?.result;
    assert(await isPending(locks, writer.granted));
    readers[1]?.end();
    await writer.granted;
    assert(await isPending(locks, late[0]?.granted ?? Promise.resolve()));
    writer.end();
    await Promise.all(late.map((held) => held.granted));
    for (const held of late) held.end();
    await Promise.all(late.map((held) => held.result));
  });

  check("locks of other names are granted meanwhile", async (locks, name) => {
    const one = hold(locks, name);
    await one.granted;
    assertEquals(await locks.request(`${name} other`, () => 1), 1);
    one.end();
    await one.result;
  });

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
