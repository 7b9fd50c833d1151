/** The async forms of a lock under fire: aborts in the moment of acquisition, deaths, numbers. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "./_declare.ts";
import { DsmrError, type LWLock, Registry } from "../lib/mod.ts";
import { attach, isLinux, observe, Party, party, SIZE, turn } from "./_async.ts";
import { assertFails, inScene, type Scene, succeeded, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/** How often a wait is aborted in the moment in which it ends; 100,000 in a long run. */
const ABORTS = Number(process.env.DSMR_TEST_ABORTS ?? 1000);
const TIMEOUTS = 200;
const MANY = 10_000;
/** The word of a lock that names who starves: layout.h. */
/** In the owner word: somebody sleeps. */
const WAITERS = 1 << 30;
const STARVING_WORD = 11;

/** Nobody of this isolate has the lock or waits for it, and another process can take it. */
async function assertNothingLeft(scene: Scene, registry: Registry, lock: LWLock): Promise<void> {
  assertEquals([...registry.waits()], []);
  const own = [...registry.backends()].find(({ self }) => self);
  assertEquals([own?.held, own?.waitsFor, lock.heldByMe()], [[], null, false]);
  const other = await party(scene, "bun");
  for (const mode of ["shared", "exclusive"] as const) {
    assertEquals((await other.ask({ do: "acquire", segment: "a", mode })).held, true);
    await other.ask({ do: "release", segment: "a" });
  }
  assert(lock.tryAcquire());
  lock.release();
}

/** The shortest turn of the event loop. */
function immediate(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What came of the rounds of a race. */
interface Tally {
  acquired: number;
  rejected: number;
}

/** After a wait has ended: it has the lock, or was refused for the reason and has it not. */
async function settle(
  lock: LWLock,
  waiting: Promise<void>,
  isReason: (thrown: unknown) => boolean,
  tally: Tally,
): Promise<boolean> {
  const outcome = await waiting.then(() => undefined, (thrown: unknown) => ({ thrown }));
  if (outcome === undefined) {
    assert(lock.heldByMe(), "fulfilled, and not held");
    lock.release();
    tally.acquired++;
  } else {
    assert(isReason(outcome.thrown), `refused with ${outcome.thrown}`);
    assert(!lock.heldByMe(), "refused, and held");
    tally.rejected++;
  }
  assert(!lock.heldByMe(), "held after the release");
  return outcome === undefined;
}

for (const runtime of runtimes) {
  test(`aborts in the moment of acquisition, against a ${runtime} process: never held unnoticed`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const contender = await party(scene, runtime);
      await contender.begin({ do: "contend", segment: "a", inside: 30, outside: 60 });
      const tally = { acquired: 0, rejected: 0 };
      const reason = { why: "aborted" };
      // How long to wait before the abort, in microseconds: where every other wait is acquired.
      let delay = 100;
      const rounds = Math.ceil(ABORTS / runtimes.length);
      while (tally.acquired + tally.rejected < rounds) {
        const round = tally.acquired + tally.rejected;
        const controller = new AbortController();
        const mode = round % 5 === 0 ? "shared" : "exclusive";
        const waiting = observe(lock.acquire(mode, { signal: controller.signal }));
        if (lock.heldByMe()) {
          // It was free: no race. The other one is about to take it.
          await waiting.promise;
          lock.release();
          await immediate();
          continue;
        }
        const until = performance.now() + delay / 1000;
        do {
          await immediate();
        } while (!waiting.settled && performance.now() < until);
        // A third of them in the very turn in which it is granted, if it was.
        if (round % 3 === 0) queueMicrotask(() => controller.abort(reason));
        else controller.abort(reason);
        const isAcquired = await settle(lock, waiting.promise, (t) => t === reason, tally);
        delay = Math.min(Math.max(delay * (isAcquired ? 0.9 : 1.1), 1), 100_000);
      }
      await contender.killed();
      const sum = tally.acquired + tally.rejected;
      console.log(`aborts against ${runtime}: ${JSON.stringify(tally)}`);
      assert(tally.acquired > sum / 20 && tally.rejected > sum / 20, JSON.stringify(tally));
      await assertNothingLeft(scene, registry, lock);
    }));

  test(`timeouts in the moment of acquisition, against a ${runtime} process: the same`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const contender = await party(scene, runtime);
      await contender.begin({ do: "contend", segment: "a", inside: 3000, outside: 100 });
      const tally = { acquired: 0, rejected: 0 };
      const isTimeout = (thrown: unknown): boolean =>
        thrown instanceof DsmrError && thrown.code === "TIMEOUT";
      let timeout = 2;
      while (tally.acquired + tally.rejected < TIMEOUTS) {
        const waiting = lock.acquire("exclusive", { timeout });
        if (lock.heldByMe()) {
          await waiting;
          lock.release();
          await immediate();
          continue;
        }
        const isAcquired = await settle(lock, waiting, isTimeout, tally);
        timeout = Math.min(Math.max(timeout * (isAcquired ? 0.7 : 1.3), 0.01), 50);
      }
      await contender.killed();
      const sum = tally.acquired + tally.rejected;
      console.log(`timeouts against ${runtime}: ${JSON.stringify(tally)}`);
      assert(tally.acquired > sum / 20 && tally.rejected > sum / 20, JSON.stringify(tally));
      await assertNothingLeft(scene, registry, lock);
    }));

  test(`a ${runtime} process and a ${otherThan(runtime)} process hand a lock to and fro`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const parties = [
        await party(scene, runtime),
        await party(scene, otherThan(runtime)),
      ] as const;
      await parties[0].ask({ do: "acquire", segment: "a" });
      for (let round = 0; round < 100; round++) {
        const [has, wants] = round % 2 === 0 ? parties : [parties[1], parties[0]];
        await wants.begin({ do: "acquire", segment: "a" });
        await has.ask({ do: "release", segment: "a" });
        assertEquals(succeeded(await wants.next()), { ok: true, held: true, abandoned: false });
      }
      await parties[0].ask({ do: "release", segment: "a" });
      await assertNothingLeft(scene, registry, lock);
    }));

  test(`a killed ${runtime} holder is found out; a stopped one is waited for`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const [holder, awaiting] = [
        await party(scene, runtime),
        await party(scene, otherThan(runtime)),
      ];
      await holder.ask({ do: "acquire", segment: "a" });
      await awaiting.begin({ do: "acquire", segment: "a" });
      holder.child.kill("SIGSTOP");
      const late = lock.acquire("exclusive", { timeout: 300 }).then(() => "held", (e) => e.code);
      assertEquals(await late, "TIMEOUT");
      await awaiting.begin({ do: "answer" });
      succeeded(await awaiting.next());
      await holder.killed();
      assertEquals(succeeded(await awaiting.next()), { ok: true, held: true, abandoned: true });
      await awaiting.ask({ do: "release", segment: "a" });
      await lock.with("exclusive", () => lock.markConsistent());
      await assertNothingLeft(scene, registry, lock);
    }));

  test(`a ${runtime} process killed while it awaits a lock is in nobody's way, nor one that starves`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const segment = registry.getNamedSegmentSync("a", SIZE, (fresh) => {
        fresh.initLock(0, registry.newTranche("t"));
      });
      const lock = segment.lockAt(0);
      const words = new Uint32Array(segment.buffer);
      const starving = (): number => Atomics.load(words, STARVING_WORD);
      for (const starves of [false, true]) {
        for (const mode of ["exclusive", "shared"] as const) {
          const victim = await party(scene, runtime);
          const survivor = await party(scene, otherThan(runtime));
          lock.acquireSync();
          await victim.begin({ do: "acquire", segment: "a", at: 0, mode });
          await until(() => [...registry.waits()].some(({ pid }) => pid === victim.pid));
          // Listed comes first: only from here on does a release wake it.
          await until(() => (Atomics.load(words, 0) & WAITERS) !== 0);
          if (starves && isLinux("that a process has stopped")) {
            // It sleeps through a release, and finds, late, that it waits on.
            await victim.stopped();
            lock.release();
            lock.acquireSync();
            // Who has waited for less than 2 ms does not starve yet.
            const [wait] = registry.waits();
            await until(() => Date.now() - Number(wait?.since ?? Infinity) > 20);
            victim.child.kill("SIGCONT");
            await until(() => starving() !== 0);
          }
          await survivor.begin({ do: "acquire", segment: "a", at: 0 });
          await victim.killed();
          const ours = lock.acquire();
          lock.release();
          // One of the two, then the other.
          const theirs = survivor.next().then(async (report) => {
            assertEquals(succeeded(report).held, true);
            await survivor.ask({ do: "release", segment: "a", at: 0 });
          });
          await Promise.all([theirs, ours.then(() => lock.release())]);
          assertEquals([[...registry.waits()], starving(), lock.abandoned], [[], 0, false]);
          await survivor.killed();
        }
      }
    }));

  test(`${MANY} waits of one ${runtime} process on as many locks are all served`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const segment = registry.getNamedSegmentSync("many", MANY * 64, (fresh) => {
        const tranche = registry.newTranche("many");
        for (let i = 0; i < MANY; i++) fresh.initLock(i * 64, tranche);
      });
      // A backend can hold 128 locks: so many parties hold them, each for a while.
      const child = await Party.start(scene, runtime);
      await child.ask({ do: "get", segment: "many", size: MANY * 64 });
      // Each lock's owner word says that somebody lives there, who is us.
      const own = segment.lockAt(0);
      own.acquireSync();
      const words = new Int32Array(segment.buffer);
      const held = Atomics.load(words, 0);
      for (let i = 1; i < MANY; i++) Atomics.store(words, i * 16, held);
      await child.begin({ do: "acquireAll", segment: "many", count: MANY });
      await child.begin({ do: "answer" });
      succeeded(await child.next());
      const flags = Array.from({ length: MANY }, (_, i) => Atomics.load(words, i * 16) !== held);
      assertEquals(flags.filter(Boolean).length, MANY, "all of them wait");
      own.release();
      // No wake-up: what the thread has no room to sleep on it looks at by itself.
      for (let i = 1; i < MANY; i++) Atomics.store(words, i * 16, 0);
      assertEquals(succeeded(await child.next()).value, MANY);
      assertEquals([...registry.waits()], []);
      await child.endsWell();
    }));

  test(`in ${runtime} the loop turns while a lock is awaited, and uncontended ones start no thread`, () =>
    inScene(async (scene) => {
      const { registry, lock } = attach(scene);
      const child = await party(scene, runtime);
      const threads = async (): Promise<number> =>
        (await child.ask({ do: "threads" })).value ?? NaN;
      const looks = isLinux("the number of threads");
      for (const mode of ["exclusive", "shared"] as const) {
        await child.ask({ do: "acquire", segment: "a", mode });
        await child.ask({ do: "release", segment: "a" });
      }
      if (looks) assertEquals(await threads(), 0);
      lock.acquireSync();
      await child.begin({ do: "acquire", segment: "a" });
      await until(() => [...registry.waits()].length === 1);
      if (looks) assertEquals(await threads(), 1);
      const before = (await child.ask({ do: "count" })).value ?? NaN;
      for (let after = before; after < before + 50;) {
        after = (await child.ask({ do: "count" })).value ?? NaN;
      }
      lock.release();
      assertEquals(succeeded(await child.next()).held, true);
      await child.ask({ do: "release", segment: "a" });
      if (!looks) return;
      // It ends when there is nothing to watch, and starts again.
      for (let count = 1; count > 0;) count = await threads();
      lock.acquireSync();
      await child.begin({ do: "acquire", segment: "a" });
      await until(() => [...registry.waits()].length === 1);
      assertEquals(await threads(), 1);
      lock.release();
      assertEquals(succeeded(await child.next()).held, true);
    }));

  test(`a ${runtime} process ends by itself when nothing pends, and not before`, () =>
    inScene(async (scene) => {
      const { registry, lock, segment } = attach(scene);
      // Has waited, and has the registry open.
      const idle = await party(scene, runtime);
      lock.acquireSync();
      await idle.begin({ do: "acquire", segment: "a" });
      await until(() => [...registry.waits()].length === 1);
      lock.release();
      succeeded(await idle.next());
      await idle.ask({ do: "release", segment: "a" });
      await idle.begin({ do: "wait", segment: "a" });
      await until(() => segment.notify(0) === 1);
      assertEquals(succeeded(await idle.next()).said, "ok");
      await idle.endsWell();

      // Each kind of wait keeps it alive until it is served.
      const never = await party(scene, "deno");
      await never.begin({ do: "init", segment: "slow", size: 8, how: "hold" });
      assertEquals(await never.next(), { holding: true });
      const served: [Parameters<Party["begin"]>[0], () => unknown][] = [
        [{ do: "acquire", segment: "a" }, () => lock.release()],
        [{ do: "waitForVar", segment: "a", expected: 0 }, () => lock.updateVar(0, 1n)],
        [{ do: "wait", segment: "a", at: 16 }, () => until(() => segment.notify(16) === 1)],
        [{ do: "init", segment: "slow", size: 8, how: "fill" }, () => never.go()],
      ];
      for (const [command, serve] of served) {
        const child = await party(scene, runtime);
        if (!lock.heldByMe()) lock.acquireSync();
        await child.begin(command);
        child.child.endInput();
        // It has nothing but its wait. Another process starts and ends meanwhile.
        const ended = observe(child.child.ended);
        await (await party(scene, runtime)).endsWell();
        assertEquals(ended.settled, false, `${command.do}: ${child.child.printed}`);
        await serve();
        succeeded(await child.next());
        assertEquals(await ended.promise, "exit code 0", child.child.printed);
      }
      if (lock.heldByMe()) lock.release();
    }));

  test(`50 ${runtime} Workers terminated while they wait leave nothing, and no crash`, () =>
    inScene(async (scene) => {
      const { registry, lock, segment } = attach(scene);
      const host = await party(scene, runtime);
      lock.acquireSync();
      const begin = [
        { do: "open", dir: scene.dir },
        { do: "get", segment: "a", size: SIZE },
      ] as const;
      const waits = [
        { do: "acquire", segment: "a" },
        { do: "acquire", segment: "a", mode: "shared" },
        { do: "waitForVar", segment: "a", expected: 0 },
        { do: "wait", segment: "a" },
        { do: "init", segment: "b", size: 8, how: "never" },
      ] as const;
      for (const wait of waits) {
        await host.ask({ do: "workers", count: 10, commands: [...begin, wait] });
        await until(() => [...registry.backends()].length === 2);
        assertEquals([...registry.waits()], []);
      }
      lock.release();
      assertEquals(segment.notify(0), 0);
      // The host's own waits work.
      lock.acquireSync();
      await host.begin({ do: "acquire", segment: "a" });
      await until(() => [...registry.waits()].length === 1);
      lock.release();
      assertEquals(succeeded(await host.next()), { ok: true, held: true, abandoned: false });
      await host.ask({ do: "release", segment: "a" });
      assertEquals(registry.getNamedSegmentSync("b", 8).found, false);
      await host.endsWell();
    }));
}

test("detach(), close() and destroy() while tasks wait for a lock: every one is told", () =>
  inScene(async (scene) => {
    for (const how of ["detach", "close", "destroy"] as const) {
      const { registry, segment, lock } = attach(scene);
      const child = await party(scene, "deno");
      await child.ask({ do: "acquire", segment: "a" });
      const waits = [
        lock.acquire(),
        lock.acquire("shared"),
        lock.with("exclusive", () => assert(false)),
        lock.hold(),
        lock.acquireOrWait({ timeout: 60_000 }),
        lock.waitForVar(0, 0n),
      ].map((promise) => observe<unknown>(promise));
      await until(() => [...registry.waits()].length === 1);
      await turn();
      assertEquals(waits.map(({ settled }) => settled), Array(6).fill(false));
      if (how === "detach") segment.detach();
      else if (how === "close") registry.close();
      else Registry.destroy("test", { dir: scene.dir });
      for (const { promise } of waits) {
        const code = await promise.then(() => "held", (error) => error.code);
        assertEquals(code, how === "detach" ? "DETACHED" : "CLOSED");
      }
      if (how !== "detach") assertFails(() => registry.segments(), "CLOSED");
      if (how !== "destroy") await child.ask({ do: "release", segment: "a" });
      registry.close();
      await child.killed();
    }
  }));

test("detach(), close() and destroy() while a task holds a lock: its end is no error", () =>
  inScene(async (scene) => {
    for (const how of ["detach", "close", "destroy"] as const) {
      const { registry, segment, lock } = attach(scene);
      const next: { promise: Promise<unknown>; settled: boolean }[] = [];
      await lock.with("exclusive", async () => {
        using _shared = await registry.getNamedSegmentSync("b", 64).lock.hold("shared");
        next.push(observe(lock.acquire()));
        if (how === "detach") segment.detach();
        else if (how === "close") registry.close();
        else Registry.destroy("test", { dir: scene.dir });
        await turn();
      });
      const code = await next[0]?.promise.then(() => "held", (error) => error.code);
      // What is mapped works on in a destroyed registry, as it does for sync code.
      assertEquals(code, { destroy: "held", detach: "DETACHED", close: "CLOSED" }[how]);
      registry.close();
    }
  }));
