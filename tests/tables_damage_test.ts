/**
 * The library's own tables, overwritten by somebody who can write there: every wait ends by what was
 * to end it, and what is said is CORRUPT and names the table.
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { Backend } from "../lib/backend.ts";
import { DsmrError, Registry, type Segment } from "../lib/mod.ts";
import { assertRefused, assertRejectedWith, observe, turn } from "./_async.ts";
import { randomFrom } from "./_random.ts";
import { inScene, type Scene } from "./_scene.ts";
import { hold } from "./_web_locks.ts";

const WORDS = "the table of those who wait";
const LOCKS = "the table of locks by name";
type Table = "parking" | "locks";

interface Victim {
  registry: Registry;
  segment: Segment;
  /** Everything in a table: it must be there. */
  words(table: Table): Int32Array;
}

function victim(scene: Scene): Victim {
  const registry = scene.open();
  const segment = registry.getNamedSegmentSync("a", 64);
  const words = (table: Table): Int32Array => {
    const backend = Backend.open(scene.dir, "test", "other", {
      mode: "open",
      maxBackends: 256,
      maxSegments: 256,
      timeout_ms: 1000,
    });
    scene.atEnd(() => backend.release());
    return new Int32Array(backend.ownSegmentSync(`\u0001${table}`, 0).buffer);
  };
  return { registry, segment, words };
}

test("a wait whose row is overwritten ends by its timeout, its abort and its registry's end", () =>
  inScene(async (scene) => {
    const { registry, segment, words } = victim(scene);
    const signal = registry.signal("s");
    const controller = new AbortController();
    const ofAbort = { signal: controller.signal };
    const waits = ([
      signal.wait({ timeout: 50 }),
      segment.wait(0, 0, { timeout: 50 }),
      signal.wait(ofAbort),
      segment.wait(0, 0, ofAbort),
      signal.wait(),
      segment.wait(0, 0),
    ] as Promise<unknown>[]).map((wait) => observe(wait));
    // Parked, all of them, and in this turn: no time can be over before.
    words("parking").fill(0);
    await assertRefused(waits[0]?.promise ?? turn(), "CORRUPT", WORDS);
    await assertRefused(waits[1]?.promise ?? turn(), "CORRUPT", WORDS);
    assertEquals(waits.slice(2).map(({ settled }) => settled), [false, false, false, false]);
    controller.abort();
    await assertRefused(waits[2]?.promise ?? turn(), "CORRUPT", WORDS);
    await assertRefused(waits[3]?.promise ?? turn(), "CORRUPT", WORDS);
    registry.close();
    for (const { promise } of waits.slice(4)) {
      const code = await promise.then(() => "ok", (error: DsmrError) => error.code);
      assert(["CORRUPT", "CLOSED", "DETACHED"].includes(code), code);
    }
  }));

test("a row that is given out twice ends both waits, and no close leaves one behind", () =>
  inScene(async (scene) => {
    const { registry, segment, words } = victim(scene);
    const signal = registry.signal("s");
    const all: Promise<unknown>[] = [signal.wait(), signal.wait(), segment.wait(0, 0)];
    const waits = all.map((wait) => observe(wait));
    await turn();
    words("parking").fill(0);
    await assertRefused(segment.wait(4, 0), "CORRUPT", WORDS);
    await assertRefused(signal.wait(), "CORRUPT", WORDS);
    registry.close();
    const codes = await Promise.all(
      waits.map(({ promise }) => promise.then(() => "ok", (error: DsmrError) => error.code)),
    );
    // The first two rows are what the table has given out again.
    assertEquals(codes.slice(0, 2), ["CORRUPT", "CORRUPT"]);
    assert(codes.every((code) => ["CORRUPT", "CLOSED", "DETACHED"].includes(code)), `${codes}`);
  }));

test("a lock by name whose row is overwritten is lost, which its holder is told", () =>
  inScene(async (scene) => {
    const { registry, words } = victim(scene);
    const held = hold(registry.locks, "a");
    const next = hold(registry.locks, "a");
    await held.granted;
    await turn();
    words("locks").fill(0);
    await assertRefused(registry.locks.request("b", () => {}), "CORRUPT", LOCKS);
    await assertRefused(held.result, "CORRUPT", LOCKS);
    await assertRefused(registry.locks.request("b", () => {}), "CORRUPT", LOCKS);
    await assertRefused(next.result, "CORRUPT", LOCKS);
    held.end();
  }));

test("an extent that is said to be there, and is not, is CORRUPT and not made", () =>
  inScene(async (scene) => {
    const { registry, words } = victim(scene);
    await registry.locks.request("a", () => {});
    const table = words("locks");
    const before = [table.slice(), scene.files()];
    // Of the words that are zero, the one that says it is among the first.
    for (let at = 0; at < 16; at++) {
      const was = table[at] ?? 0;
      if (was !== 0) continue;
      table[at] = 7;
      await registry.locks.request("b", () => {}).catch((error) => {
        assert(error instanceof DsmrError && error.code === "CORRUPT", String(error));
        assert(error.message.includes(LOCKS), error.message);
      });
      table.set(before[0] as Int32Array);
    }
    assertEquals(scene.files(), before[1]);
    assertEquals(await registry.locks.request("b", () => 1), 1);
  }));

/** Values that are no rows, or others than they should be. */
const HOSTILE = [-1, -(2 ** 31), 2 ** 31 - 1, 70_000, 16_384, 1025, 300, 3, 2, 1, 0];

test("tables with random words in them: a call ends as it should or says CORRUPT, and so does close", () =>
  inScene(async (scene) => {
    const next = randomFrom(20261121);
    const outcomes = new Map<string, number>();
    const note = (outcome: string): void =>
      void outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    const end = async (call: () => unknown): Promise<void> => {
      try {
        await call();
        note("ended");
      } catch (error) {
        assert(error instanceof DsmrError || error instanceof DOMException, String(error));
        note(error instanceof DsmrError ? error.code : error.name);
        if (error instanceof DsmrError && error.code === "CORRUPT") {
          assert(error.message.includes(WORDS) || error.message.includes(LOCKS), error.message);
        }
      }
    };
    for (let round = 0; round < 60; round++) {
      const { registry, segment, words } = victim(scene);
      const signal = registry.signal("s");
      const pending: Promise<void>[] = [];
      for (let i = 0; i < 8; i++) {
        pending.push(
          end(() => segment.wait(i % 4 * 4, 0)),
          end(() => signal.wait()),
          end(() => registry.locks.request(`${i % 3}`, () => new Promise(() => {}))),
        );
      }
      await turn();
      for (const table of ["parking", "locks"] as const) {
        const all = words(table);
        // Most of what is used is at the beginning of the header, or where rows begin.
        for (let count = 4 ** Math.floor(next() * 5); count > 0; count--) {
          const among = next() < 0.5 ? 600 : 12_000;
          all[Math.floor(next() * among)] = HOSTILE[Math.floor(next() * HOSTILE.length)] ?? 0;
        }
      }
      const brief = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(5) });
      await Promise.all([
        end(() => segment.notify(0)),
        end(() => signal.notify()),
        end(() => segment.wait(0, 0, { timeout: 2 })),
        end(() => signal.wait({ timeout: 2 })),
        end(() => segment.waitSync(4, 0, { timeout: 1 })),
        end(() => registry.locks.request("1", brief(), () => {})),
        end(() => registry.locks.request("1", { steal: true }, () => {})),
        Promise.race([end(() => registry.locks.query()), turn()]),
        end(() => signal.notifyAll()),
      ]);
      registry.close();
      await Promise.all(pending);
    }
    console.log(JSON.stringify(Object.fromEntries(outcomes)));
    const expected = ["ended", "CORRUPT", "CLOSED", "DETACHED", "TIMEOUT", "TimeoutError"];
    for (const outcome of outcomes.keys()) {
      assert([...expected, "AbortError", "NO_SPACE"].includes(outcome), outcome);
    }
    assert((outcomes.get("CORRUPT") ?? 0) > 100);
  }));

test("messages do not tell the names of the library's own segments", () =>
  inScene(async (scene) => {
    const errors: DsmrError[] = [];
    const note = async (call: () => unknown): Promise<void> => {
      try {
        await call();
      } catch (error) {
        assert(error instanceof DsmrError, String(error));
        errors.push(error);
      }
    };
    const small = scene.open({ maxSegments: 1 }, "small");
    const only = small.getNamedSegmentSync("a", 64);
    await note(() => small.locks.request("a", () => {}));
    await note(() => only.wait(0, 0));
    await note(() => only.waitSync(0, 0));
    await note(() => small.signal("s"));
    assertEquals(errors.map(({ code }) => code), Array(4).fill("REGISTRY_FULL"));

    const { registry, segment } = victim(scene);
    const signal = registry.signal("s");
    await registry.locks.request("a", () => {});
    const many = registry.getNamedSegmentSync("many", 128 * 64, (fresh) => {
      const tranche = registry.newTranche("many");
      for (let at = 0; at < fresh.size; at += 64) fresh.initLock(at, tranche);
    });
    for (let at = 0; at < many.size; at += 64) many.lockAt(at).acquireSync();
    await note(() => registry.locks.request("a", () => {}));
    await note(() => segment.wait(0, 0));
    await note(() => segment.waitSync(0, 0));
    await note(() => signal.wait());
    assertEquals(errors.slice(4).map(({ code }) => code), Array(4).fill("NO_SPACE"));
    registry.releaseAll();

    const held = hold(registry.locks, "a");
    await held.granted;
    const pending = [held.result, registry.locks.request("a", () => {}), segment.wait(0, 0)];
    const all = pending.map((promise) => note(() => promise));
    await turn();
    // Else nothing would keep this program alive.
    const alive = setInterval(() => {}, 1000);
    Registry.destroy("test", { dir: scene.dir });
    await Promise.all(all);
    clearInterval(alive);
    assertEquals(errors.slice(8).map(({ code }) => code), Array(3).fill("CLOSED"));
    for (const error of errors) {
      for (let it: unknown = error; it instanceof Error; it = it.cause) {
        // deno-lint-ignore no-control-regex
        assert(!/\u0001|\\u0001|"\?|undefined/.test(it.message), it.message);
      }
    }
  }));

test("ten thousand waits with one AbortSignal listen to it once, and end with it", () =>
  inScene(async (scene) => {
    const { registry, segment } = victim(scene);
    const { lock } = segment;
    const held = hold(registry.locks, "a");
    await held.granted;
    lock.acquireSync();
    const controller = new AbortController();
    const { signal } = controller;
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    signal.addEventListener = (...args: unknown[]): void => {
      listeners++;
      Reflect.apply(add, signal, args);
    };
    const waits = Array.from({ length: 10_000 }, (_, i) => {
      if (i % 4 === 0) return registry.locks.request("a", { signal }, () => {});
      if (i % 4 === 1) return lock.acquire("exclusive", { signal });
      return segment.wait(0, 0, { signal });
    });
    await turn();
    const reason = { why: "enough" };
    controller.abort(reason);
    await Promise.all(waits.map((wait) => assertRejectedWith(wait, reason)));
    assertEquals(listeners, 1);
    held.end();
    await held.result;
    lock.release();
    assertEquals(segment.notify(0), 0);
    await assertRejectedWith(segment.wait(0, 0, { signal }), reason);
  }));
