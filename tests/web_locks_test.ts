/** Locks by name: what the Web Locks specification says, within one program. */

import { assert, assertEquals } from "@std/assert";
import { after, test } from "./_declare.ts";
import { type DsmrError, Registry } from "../lib/mod.ts";
import { inScene, Scene } from "./_scene.ts";
import { hold, type Locks } from "./_web_locks.ts";
import { suite } from "./_web_locks_suite.ts";

const scene = new Scene();
const registry = scene.open();
// A backend of its own, in the same program.
const other = scene.open({ database: "other" });
after(() => scene.end());

suite("registry.locks", () => registry.locks);

let turn = 0;
const next = (): Locks => (turn++ % 2 === 0 ? registry : other).locks;
/** Every request is another client's than the one before. */
const alternating: Locks = {
  request: (...args: unknown[]) => {
    const locks = next();
    return Reflect.apply(locks.request, locks, args);
  },
  query: () => next().query(),
};
suite("two clients", () => alternating);

const own = (navigator as unknown as { locks?: Locks }).locks;
if (own === undefined) {
  console.log("not compared: this runtime has no navigator.locks");
} else {
  suite("navigator.locks", () => own, {
    "the callback runs after request has returned": "Deno 2.9 calls it inside of request",
    "a name that is no string is converted to one": "Deno 2.9 hands the number to the callback",
    "ifAvailable: shared beside shared, but not past one that waits":
      "Deno 2.9 lets it wait behind that one, and the callback never gets null",
    "signal: what stood behind an aborted request moves up":
      "Deno 2.9 grants it only when a holder lets go",
  });
}

/** What a promise was rejected with: the code of ours, the name of others. */
async function failureOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "nothing";
  } catch (error) {
    return (error as DsmrError).code ?? (error as Error).name;
  }
}

test("lone surrogates are names of their own, and long names are refused", async () => {
  const names = ["\ud800", "\ud801", "\udc00", "\ufffd", "\udc00\ud800", "é", "Ã©"];
  const all = names.map((name) => hold(registry.locks, name));
  const locks = await Promise.all(all.map((held) => held.granted));
  assertEquals(locks.map((lock) => lock?.name), names);
  const { held } = await other.locks.query();
  assertEquals(held.map(({ name }) => name), names);
  for (const each of all) each.end();
  await Promise.all(all.map((each) => each.result));
  for (const name of ["a".repeat(255), "日".repeat(255)]) {
    await registry.locks.request(name, async () => {
      assertEquals((await other.locks.query()).held.map((info) => info.name), [name]);
    });
    assertEquals(await failureOf(registry.locks.request(name + "a", () => {})), "NAME_TOO_LONG");
  }
});

test("each client has an id, which is its backend's", async () => {
  const both = [hold(registry.locks, "id"), hold(other.locks, "id")] as const;
  await both[0].granted;
  const { held, pending } = await registry.locks.query();
  assertEquals([...held, ...pending].map(({ clientId }) => clientId), [
    String(registry.backendId),
    String(other.backendId),
  ]);
  for (const each of both) each.end();
  await Promise.all(both.map(({ result }) => result));
});

test("an abort at the moment of the grant: the callback runs or the request rejects, 10,000 times", async () => {
  const counts = { granted: 0, aborted: 0 };
  for (let round = 0; round < 10_000; round++) {
    const holder = hold(registry.locks, "race");
    await holder.granted;
    const controller = new AbortController();
    let hasRun = false;
    const waiting = other.locks.request("race", { signal: controller.signal }, () => {
      hasRun = true;
    }).then(() => "granted" as const, () => "aborted" as const);
    holder.end();
    // From the same turn until after the other client has had its mail.
    for (let i = round % 8; i > 0; i--) await (i > 5 ? holder.result : Promise.resolve());
    if (round % 8 === 7) await new Promise((resolve) => setTimeout(resolve));
    controller.abort();
    const outcome = await waiting;
    assertEquals(hasRun, outcome === "granted");
    counts[outcome]++;
    await holder.result;
  }
  assertEquals(await registry.locks.query(), { held: [], pending: [] });
  console.log(`${counts.granted} granted, ${counts.aborted} aborted`);
  assert(counts.granted > 0 && counts.aborted > 0, JSON.stringify(counts));
});

test("1,000 requests for one name, of two clients, are granted in order", async () => {
  const granted: number[] = [];
  await Promise.all(
    Array.from({ length: 1000 }, (_, i) =>
      alternating.request("fifo", async () => {
        granted.push(i);
        await Promise.resolve();
      })),
  );
  assertEquals(granted, Array.from({ length: 1000 }, (_, i) => i));
});

test("10,000 names come and go, 5,000 at once, and use the same memory again", () =>
  inScene(async (scene) => {
    const { locks } = scene.open();
    const second = scene.open({ database: "other" }).locks;
    for (let i = 0; i < 10_000; i++) await locks.request(`name ${i}`, () => {});
    const few = scene.files().length;
    for (let round = 0; round < 3; round++) {
      const all = Array.from(
        { length: 5000 },
        (_, i) => hold(i % 2 === 0 ? locks : second, `${i}`),
      );
      await Promise.all(all.map((held) => held.granted));
      assertEquals((await second.query()).held.length, 5000);
      for (const held of all) held.end();
      await Promise.all(all.map((held) => held.result));
      // 1,024 rows, and as many again, three times.
      assertEquals(scene.files().length, few + 3);
    }
    assertEquals(await locks.query(), { held: [], pending: [] });
  }));

test("close: what is held is let go, what is held or waited for here is CLOSED", () =>
  inScene(async (scene) => {
    const leaving = scene.open();
    const staying = scene.open({ database: "other" });
    const held = hold(leaving.locks, "a");
    await held.granted;
    const theirs = hold(staying.locks, "b");
    await theirs.granted;
    const pending = leaving.locks.request("b", () => {});
    const next = hold(staying.locks, "a");
    assertEquals((await staying.locks.query()).pending.length, 2);
    const { locks } = leaving;
    leaving.close();
    assertEquals(await failureOf(held.result), "CLOSED");
    assertEquals(await failureOf(pending), "CLOSED");
    assertEquals(await failureOf(locks.request("c", () => {})), "CLOSED");
    assertEquals(await failureOf(locks.query()), "CLOSED");
    await next.granted;
    const { held: left, pending: waiting } = await staying.locks.query();
    assertEquals([left.map(({ name }) => name), waiting], [["b", "a"], []]);
    for (const each of [theirs, next]) each.end();
    await Promise.all([theirs.result, next.result]);
    held.end();
    // The same name opened anew is another client.
    assertEquals(await scene.open().locks.request("a", () => 1), 1);
  }));

test("close in the turn of the request, and inside the callback", () =>
  inScene(async (scene) => {
    const first = scene.open();
    const result = first.locks.request("a", () => {});
    first.close();
    assertEquals(await failureOf(result), "CLOSED");
    const second = scene.open();
    assertEquals(await failureOf(second.locks.request("a", () => second.close())), "CLOSED");
    assertEquals(await scene.open().locks.request("a", () => 1), 1);
  }));

test("destroy: what is held or waited for is CLOSED", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const held = hold(registry.locks, "a");
    await held.granted;
    const pending = registry.locks.request("a", () => {});
    // Else nothing would keep this program alive.
    const alive = setInterval(() => {}, 1000);
    Registry.destroy("test", { dir: scene.dir });
    assertEquals(await failureOf(pending), "CLOSED");
    assertEquals(await failureOf(held.result), "CLOSED");
    clearInterval(alive);
    assertEquals(await failureOf(registry.locks.request("a", () => {})), "CLOSED");
  }));

test("a full registry has no room for locks, and says so", () =>
  inScene(async (scene) => {
    const registry = scene.open({ maxSegments: 1 });
    registry.getNamedSegmentSync("a", 8);
    assertEquals(await failureOf(registry.locks.request("a", () => {})), "REGISTRY_FULL");
    registry.dropSegment("a");
    assertEquals(await registry.locks.request("a", () => 1), 1);
    // Nor can the table grow: those that fit are granted.
    const all = Array.from({ length: 2000 }, (_, i) => hold(registry.locks, `${i}`));
    const ends = all.map((held) => failureOf(held.result));
    await Promise.race(ends);
    for (const held of all) held.end();
    const outcomes = await Promise.all(ends);
    assertEquals(outcomes.filter((outcome) => outcome === "nothing").length, 1024);
    assertEquals(outcomes.filter((outcome) => outcome === "REGISTRY_FULL").length, 976);
    assertEquals(await registry.locks.query(), { held: [], pending: [] });
  }));

test("who holds as many other locks as there can be lets go of this one as soon as it can", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const other = scene.open({ database: "other" });
    const many = registry.getNamedSegmentSync("many", 128 * 64, (segment) => {
      const tranche = registry.newTranche("many");
      for (let at = 0; at < segment.size; at += 64) segment.initLock(at, tranche);
    });
    const held = hold(registry.locks, "a");
    await held.granted;
    const next = hold(other.locks, "a");
    await other.locks.query();
    for (let at = 0; at < many.size; at += 64) many.lockAt(at).acquireSync();
    held.end("done");
    assertEquals(await failureOf(registry.locks.request("b", () => {})), "NO_SPACE");
    registry.releaseAll();
    await next.granted;
    assertEquals(await held.result, "done");
    next.end();
    await next.result;
    assertEquals(await registry.locks.request("b", () => 1), 1);
  }));

test("a table that cannot grow still lets go", () =>
  inScene(async (scene) => {
    const registry = scene.open({ maxSegments: 1 });
    const all = Array.from({ length: 1024 }, (_, i) => hold(registry.locks, `${i}`));
    await Promise.all(all.map((held) => held.granted));
    for (const held of all) held.end("done");
    const late = Array.from(
      { length: 100 },
      (_, i) => registry.locks.request(`late ${i}`, () => {}),
    );
    const outcomes = await Promise.all(late.map(failureOf));
    assert(outcomes.every((outcome) => ["nothing", "REGISTRY_FULL"].includes(outcome)));
    for (const held of all) assertEquals(await held.result, "done");
    assertEquals(await registry.locks.query(), { held: [], pending: [] });
  }));

test("two clients of one thread make the table at the same time", async () => {
  for (let round = 0; round < 20; round++) {
    await inScene(async (scene) => {
      const all = ["a", "b", "c"].map((database) => scene.open({ database }).locks);
      const order: number[] = [];
      await Promise.all(all.map((locks, i) => locks.request("x", () => void order.push(i))));
      assertEquals(order.sort(), [0, 1, 2]);
    });
  }
});
