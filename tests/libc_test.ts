/**
 * glibc and musl processes on one registry. Both load the same library file, and each hangs its
 * death bells in mutexes of its own libc, whose layouts differ: either must hear the other's.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { muslLoader } from "../.ci/system_packages.ts";
import type { Registry } from "../lib/mod.ts";
import { kill } from "../lib/workers/member.ts";
import type { Report } from "./_agent.ts";
import { inScene, type Scene, succeeded, until } from "./_scene.ts";
import { Child, root, type RuntimeName, runtimes } from "./_spawn.ts";

/** A process that has segment "a". */
interface Party {
  child: Child;
  ask(what: "get" | "acquire" | "release"): Promise<Report>;
  send(what: "get" | "acquire" | "release"): void;
  add(): Promise<Report>;
}

async function native(scene: Scene, program: "interleave" | "interleave-musl"): Promise<Party> {
  const child = scene.adopt(new Child([join(root, "zig-out", "bin", program)]));
  assertEquals(await child.next(), { pid: child.pid });
  child.sendLine(`open ${scene.dir} test`);
  succeeded(await child.next());
  const lines = { get: "get a 64 0", acquire: "acquire exclusive", release: "release" };
  const send = (what: keyof typeof lines): void => child.sendLine(lines[what]);
  const ask = (what: keyof typeof lines): Promise<Report> => (send(what), child.next());
  succeeded(await ask("get"));
  return { child, send, ask, add: () => (child.sendLine("add 0 1"), child.next()) };
}

async function script(scene: Scene, runtime: RuntimeName): Promise<Party> {
  const child = await scene.child(runtime);
  const send: Party["send"] = (what) => {
    if (what === "get") child.send({ do: "get", segment: "a", size: 64 });
    else child.send({ do: what, segment: "a", mode: "exclusive" });
  };
  const ask: Party["ask"] = (what) => (send(what), child.next());
  succeeded(await ask("get"));
  const add = { do: "add", segment: "a", index: 0, value: 1 } as const;
  return { child, send, ask, add: () => child.ask(add) };
}

const kinds = {
  "glibc C": (scene: Scene) => native(scene, "interleave"),
  "deno": (scene: Scene) => script(scene, runtimes[0]),
  "bun": (scene: Scene) => script(scene, runtimes[1]),
};

/** Resolves once the process is seen waiting for a lock. */
function waits(registry: Registry, pid: number): Promise<void> {
  return until(() => [...registry.waits()].some((wait) => wait.pid === pid));
}

/** A test with musl processes, where they can run. */
function withMusl(name: string, body: (scene: Scene) => Promise<void>): void {
  test(name, async () => {
    if (existsSync(muslLoader)) return await inScene(body);
    console.log(`skipped: there is no ${muslLoader} (apt-get install musl)`);
  });
}

const startMusl = (scene: Scene): Promise<Party> => native(scene, "interleave-musl");

for (const [name, start] of Object.entries(kinds)) {
  withMusl(
    `a ${name} process and a musl process take turns, and inherit from the killed`,
    async (scene) => {
      const registry = scene.open();
      const parties = [await start(scene), await startMusl(scene)] as const;
      const rounds = 20;
      for (let round = 0; round < rounds; round++) {
        const first = parties[round % 2 === 0 ? 0 : 1];
        const second = parties[round % 2 === 0 ? 1 : 0];
        if (round === 0) assertEquals(succeeded(await first.ask("acquire")).abandoned, false);
        second.send("acquire");
        await waits(registry, second.child.pid);
        assertEquals((await first.add()).value, round + 1);
        succeeded(await first.ask("release"));
        assertEquals(succeeded(await second.child.next()).abandoned, false);
      }
      // The one that started has the lock now, for the rounds are even in number.
      succeeded(await parties[0].ask("release"));

      for (const victimsPlace of [0, 1] as const) {
        const [victim, heir] = victimsPlace === 0
          ? [await start(scene), await startMusl(scene)]
          : [await startMusl(scene), await start(scene)];
        assertEquals(succeeded(await victim.ask("acquire")).abandoned, false);
        heir.send("acquire");
        await waits(registry, heir.child.pid);
        victim.child.kill();
        assertEquals(succeeded(await heir.child.next()).abandoned, true);
        await victim.child.ended;
        heir.child.kill();
        await heir.child.ended;
        const pids = [...registry.backends()].map(({ pid }) => pid);
        assertEquals(pids.length, 3, `${pids}`);
        // It died inside, too: somebody has to put that right before the next round.
        const { lock } = registry.getNamedSegmentSync("a");
        lock.acquireSync("exclusive");
        assertEquals(lock.abandoned, true);
        lock.markConsistent();
        lock.release();
      }
    },
  );
}

/*
 * A forked child keeps the open file, and with it the kernel's lock on the slot's byte: of the
 * death of its parent nothing tells but the bell.
 */
const listeners = [
  { victim: "musl C", heir: "glibc C", start: startMusl, inherit: kinds["glibc C"] },
  { victim: "musl C", heir: "deno", start: startMusl, inherit: kinds["deno"] },
  { victim: "musl C", heir: "bun", start: startMusl, inherit: kinds["bun"] },
  { victim: "glibc C", heir: "musl C", start: kinds["glibc C"], inherit: startMusl },
];
for (const { victim: name, heir: other, start, inherit } of listeners) {
  withMusl(`the death bell of a ${name} process is heard by a ${other} process`, async (scene) => {
    const registry = scene.open();
    const [victim, heir] = [await start(scene), await inherit(scene)];
    succeeded(await victim.ask("acquire"));
    victim.child.sendLine("fork");
    const { value: keeper = 0 } = succeeded(await victim.child.next());
    // It ends by itself, too, some time.
    scene.atEnd(() => kill(keeper, "SIGKILL"));
    heir.send("acquire");
    await waits(registry, heir.child.pid);
    victim.child.kill();
    assertEquals(succeeded(await heir.child.next()).abandoned, true);
    const pids = [...registry.backends()].map(({ pid }) => pid);
    assertEquals(pids.sort(), [process.pid, heir.child.pid].sort());
  });
}
