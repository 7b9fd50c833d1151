/**
 * What the Web Locks specification says, for whatever implements it: the meaning of the public
 * web-platform-tests for it, in our own words. What is about frames, documents and origins has no
 * meaning here.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { test } from "./_declare.ts";
import type { WebLock } from "../lib/mod.ts";
import {
  type Check,
  freshName,
  hold,
  isPending,
  type Locks,
  modes,
  never,
  rejectsWith,
  requestOf,
} from "./_web_locks.ts";
import { optionsSuite } from "./_web_locks_options_suite.ts";

/** Defines the tests. What differs from the specification by itself is left out, with a word. */
export function suite(
  label: string,
  locksOf: () => Locks,
  differences: Readonly<Record<string, string>> = {},
): void {
  const check: Check = (what, body) => {
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

  optionsSuite(check);
}
