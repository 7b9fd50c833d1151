/**
 * Containers: participants in pid namespaces of their own, on one registry.
 *
 * Each namespace has one process of ours, and it is number 1 there: pid and tid are the same in
 * all of them, and belong to a stranger out here. What decides is what holds across namespaces:
 *
 * - The lock on the slot's byte belongs to an open file. No number is in it.
 * - The death bell has the thread's number in its word, so two bells may carry the same one. The
 *   kernel (handle_futex_death) walks the list of the thread that dies, which names only what this
 *   thread has hung, and marks a word only if the number in it is the thread's own as the thread
 *   itself knows it (task_pid_vnr), which is what its libc has written there. So a bell is neither
 *   rung for another's death nor missed for its owner's. A false ring needs both: a list that
 *   names a room which has another tenant by now, and equal numbers. A list is left like that only
 *   by a process that closes descriptors that are not its own, and lives on.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { spawnSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import type { Registry, Segment } from "../lib/mod.ts";
import { inScene, type Scene, succeeded, until } from "./_scene.ts";
import { Child, commandLine, otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

/** When unshare dies, the namespace's first process does, and with it all others there. */
const UNSHARE = [
  "unshare",
  // Anybody may make a user namespace, where the system allows it; there one may make the others.
  ...(process.getuid?.() === 0 ? [] : ["--user", "--map-current-user"]),
  ...["--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"],
];

function whyNot(): string | undefined {
  const [program = "", ...args] = UNSHARE;
  const tried = spawnSync(program, [...args, "true"], { encoding: "utf8" });
  if (tried.error !== undefined) return "unshare is not installed";
  return tried.status === 0 ? undefined : `no pid namespace: ${tried.stderr.trim()}`;
}

/** A process that is number 1 of a namespace of its own and has segment "a". */
async function contained(scene: Scene, runtime: RuntimeName): Promise<Child> {
  const child = scene.adopt(new Child([...UNSHARE, ...commandLine(runtime, "_child.ts")]));
  assertEquals(await child.next(), { pid: 1 });
  succeeded(await child.ask({ do: "open", options: { dir: scene.dir } }));
  succeeded(await child.ask({ do: "get", segment: "a", size: 64 }));
  return child;
}

async function killed(child: Child): Promise<void> {
  child.kill();
  await child.ended;
}

/** A test of containers, where the system lets us have any. */
function contain(
  name: string,
  body: (scene: Scene, registry: Registry, segment: Segment) => Promise<void>,
): void {
  test(name, async () => {
    const reason = whyNot();
    if (reason !== undefined) return console.log(`skipped: ${reason}`);
    await inScene((scene) => {
      const registry = scene.open();
      return body(scene, registry, registry.getNamedSegmentSync("a", 64));
    });
  });
}

/** The pids of the others, as they know them. Their threads have the same number. */
function others(registry: Registry): number[] {
  const infos = [...registry.backends()].filter(({ self }) => !self);
  for (const { pid, tid } of infos) assertEquals(tid, pid);
  return infos.map(({ pid }) => pid);
}

for (const runtime of runtimes) {
  const mode = "exclusive";
  const segment = "a";

  contain(
    `a ${runtime} holder killed in its pid namespace leaves the lock to one in another`,
    async (scene, registry) => {
      const holder = await contained(scene, runtime);
      const waiter = await contained(scene, otherThan(runtime));
      assertEquals(others(registry), [1, 1]);
      succeeded(await holder.ask({ do: "acquire", segment, mode }));
      waiter.send({ do: "acquire", segment, mode });
      await until(() => [...registry.waits()].some(({ pid }) => pid === 1));
      holder.kill();
      assertEquals(succeeded(await waiter.next()).abandoned, true);
      await holder.ended;
      assertEquals(others(registry), [1]);
      succeeded(await waiter.ask({ do: "mark", segment }));
      succeeded(await waiter.ask({ do: "release", segment }));
    },
  );

  contain(
    `a ${runtime} holder in a pid namespace is not robbed when another number 1 dies`,
    async (scene, registry, { lock }) => {
      const holder = await contained(scene, runtime);
      succeeded(await holder.ask({ do: "acquire", segment, mode }));
      // The second has neither the lock nor the wish for it; the third waits for it.
      for (const isWaiting of [false, true]) {
        const other = await contained(scene, otherThan(runtime));
        assertEquals(others(registry), [1, 1]);
        assertEquals((await other.ask({ do: "try", segment, mode })).held, false);
        if (isWaiting) {
          other.send({ do: "acquire", segment, mode });
          await until(() => [...registry.waits()].length === 1);
        }
        await killed(other);
        assertEquals(others(registry), [1]);
        assertEquals(lock.tryAcquire(mode), false);
      }
      const held = await holder.ask({ do: "state", segment });
      assertEquals([held.held, held.abandoned], [true, false]);
      succeeded(await holder.ask({ do: "release", segment }));
      assert(lock.tryAcquire(mode));
      assertEquals(lock.abandoned, false);
      lock.release();
    },
  );

  contain(
    `a lock goes from here into a ${runtime} process's pid namespace, and back when it is killed`,
    async (scene, registry, { lock }) => {
      const child = await contained(scene, runtime);
      lock.acquireSync(mode);
      child.send({ do: "acquire", segment, mode });
      await until(() => [...registry.waits()].length === 1);
      lock.release();
      assertEquals(succeeded(await child.next()).abandoned, false);
      assertEquals(lock.tryAcquire(mode), false);
      child.kill();
      // A wait in this thread: what it is to see is done by the kernel.
      lock.acquireSync(mode, { timeout: 120_000 });
      assertEquals(lock.abandoned, true);
      lock.markConsistent();
      lock.release();
    },
  );
}
