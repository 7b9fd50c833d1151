/** The async forms of a lock whose memory was overwritten: an outcome or CORRUPT, never a hang. */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { DsmrError, type LockMode, type LWLock, type Registry, type Segment } from "../lib/mod.ts";
import { assertRefused, observe, Party, turn } from "./_async.ts";
import { randomFrom } from "./_random.ts";
import { inScene, type Scene, until } from "./_scene.ts";
import { runtimes } from "./_spawn.ts";

const LOCK = 64;
const MODES: readonly LockMode[] = ["exclusive", "shared"];

/** A segment of so many locks, with room behind them; and its bytes, to overwrite them. */
function locksOf(scene: Scene, count: number): {
  registry: Registry;
  segment: Segment;
  bytes: Uint8Array;
} {
  const registry = scene.open();
  const segment = registry.getNamedSegmentSync("a", (count + 1) * LOCK, (fresh) => {
    const tranche = registry.newTranche("damaged");
    for (let i = 0; i < count; i++) fresh.initLock(i * LOCK, tranche);
  });
  return { registry, segment, bytes: new Uint8Array(segment.buffer) };
}

const forms: ((lock: LWLock) => Promise<unknown>)[] = [
  (lock) => lock.acquire(),
  (lock) => lock.acquire("shared"),
  (lock) => lock.with("exclusive", () => assert(false)),
  (lock) => lock.hold("shared"),
  (lock) => lock.acquireOrWait(),
  // Behind the locks.
  (lock) => lock.waitForVar((forms.length + 1) * LOCK, 0n),
];

for (const runtime of runtimes) {
  test(`a lock that names a living ${runtime} process which does not hold it is CORRUPT`, () =>
    inScene(async (scene) => {
      const COUNT = forms.length + 1;
      const { registry, segment, bytes } = locksOf(scene, COUNT);
      const child = await Party.start(scene, runtime);
      await child.ask({ do: "get", segment: "a" });
      const fresh = bytes.slice();
      const waits: Promise<unknown>[] = [];
      for (let at = 0; at < COUNT * LOCK; at += LOCK) {
        // An old state of it is put back.
        await child.ask({ do: "acquire", segment: "a", at });
        const old = bytes.slice(at, at + LOCK);
        await child.ask({ do: "release", segment: "a", at });
        bytes.set(old, at);
      }
      const locks = Array.from({ length: COUNT }, (_, i) => segment.lockAt(i * LOCK));
      // Each form alone; and all of them at once.
      for (const [i, lock] of locks.entries()) {
        for (const form of i < forms.length ? forms.slice(i, i + 1) : forms) {
          waits.push(form(lock));
        }
      }
      await Promise.all(waits.map((wait) => assertRefused(wait, "CORRUPT", '"a"')));
      assertEquals([...registry.waits()], []);
      // In order again: nothing of the waits is left.
      bytes.set(fresh);
      for (const lock of locks) {
        for (const mode of MODES) await lock.with(mode, () => assert(lock.heldByMe(mode)));
      }
    }));

  test(`a lock that is overwritten while a ${runtime} process holds it is CORRUPT, not waited for`, () =>
    inScene(async (scene) => {
      const { registry, segment, bytes } = locksOf(scene, forms.length + 1);
      const child = await Party.start(scene, runtime);
      await child.ask({ do: "get", segment: "a" });
      const lock = segment.lockAt(0);
      // Where a lock that nobody has is not zero, it says that it is one; and what it is for.
      const says = [...bytes.slice(0, LOCK)].flatMap((byte, i) => byte === 0 ? [] : [i]);
      await child.ask({ do: "acquire", segment: "a", at: 0 });
      const waits = forms.map((call) => observe(call(lock)));
      await until(() => [...registry.waits()].length === 1);
      // A holder that holds it is no damage, however long.
      for (let turns = 0; turns < 100; turns++) await turn();
      assertEquals(waits.map(({ settled }) => settled), waits.map(() => false));
      const held = bytes.slice(0, LOCK);
      for (const i of says) bytes[i] = 0x5a;
      await Promise.all(waits.map(({ promise }) => assertRefused(promise, "CORRUPT", '"a"')));
      for (const i of says) bytes[i] = held[i] ?? 0;
      await child.ask({ do: "release", segment: "a", at: 0 });
      for (const mode of MODES) await lock.with(mode, () => assert(lock.heldByMe(mode)));
    }));
}

test("locks of random bytes: every wait ends, with the lock or with CORRUPT", () =>
  inScene(async (scene) => {
    const COUNT = 96;
    const { registry, segment, bytes } = locksOf(scene, COUNT);
    const other = scene.open({ database: "other" }).getNamedSegmentSync("a");
    const fresh = bytes.slice(0, LOCK);
    const locks = Array.from({ length: COUNT }, (_, i) => segment.lockAt(i * LOCK));
    const others = locks.map((_, i) => other.lockAt(i * LOCK));
    const next = randomFrom(20261121);
    for (const [i] of locks.entries()) {
      for (let at = 0; at < LOCK; at++) bytes[i * LOCK + at] = next() * 256;
      // Most of them still look like locks.
      if (i % 4 !== 0) fresh.forEach((byte, at) => byte !== 0 && (bytes[i * LOCK + at] = byte));
      const words = new Uint32Array(segment.buffer, i * LOCK, LOCK / 4);
      // Of the backends that there are, rather than of some thousand that never were.
      if (i % 3 === 0) words.forEach((word, at) => words[at] = word & 0xe0000003);
    }
    const outcomes = new Map<string, number>();
    const end = async (lock: LWLock, wait: Promise<unknown>): Promise<void> => {
      const outcome = await wait.then(() => "ended", (error: unknown) => {
        assert(error instanceof DsmrError, String(error));
        return error.code;
      });
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (outcome === "ended" && lock.heldByMe()) lock.release();
    };
    await Promise.all(locks.flatMap((lock, i) => {
      const mode = MODES[i % 2];
      return [
        end(lock, lock.acquire(mode)),
        end(others[i] ?? lock, (others[i] ?? lock).acquire(MODES[(i + 1) % 2])),
        // Last: its end is to let go of nothing.
        lock.waitForVar(COUNT * LOCK, 0n).then(
          () => {},
          (error) => assertEquals(error.code, "CORRUPT"),
        ),
      ];
    }));
    assertEquals([...outcomes.keys()].filter((key) => key !== "ended" && key !== "CORRUPT"), []);
    console.log(`${JSON.stringify(Object.fromEntries(outcomes))} of ${2 * COUNT} acquisitions`);
    assertEquals([...registry.waits()], []);
  }));
