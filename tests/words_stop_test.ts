/**
 * Processes that are stopped at every single change that they make while they notify: whoever gives
 * up meanwhile does so at once, and was counted or was not.
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { isLinux, observe, turn } from "./_async.ts";
import { inScene, until } from "./_scene.ts";
import { isStopped } from "./_spawn.ts";
import { type Member, OURS, Stage } from "./_words.ts";
import type { WordsCommand } from "./_words_member.ts";

/** Has it do something, and be stopped in it. Undefined: it did not come so far; else what it says. */
async function stopped(
  member: Member,
  change: number,
  command: WordsCommand,
): Promise<{ said: Promise<string>; isStopped: boolean }> {
  await member.ask({ do: "stop", change }, "armed");
  member.send(command);
  const report = observe(member.child.next());
  const { pid } = member.child;
  await until(() => report.settled || isStopped(pid));
  return { said: report.promise.then(({ said }) => said ?? ""), isStopped: !report.settled };
}

test("a process stopped at every change while it notifies counts those that have not given up", () =>
  inScene(async (scene) => {
    if (!isLinux("being stopped")) return;
    const stage = new Stage(scene);
    const { segment, parking } = stage;
    const member = await stage.member();
    let stops = 0;
    const given = [0, 0];
    for (let change = 1, isStopped = true; isStopped; change++) {
      const controllers = Array.from({ length: OURS }, () => new AbortController());
      const waits = controllers.map(({ signal }) =>
        segment.wait(0, 0, { signal }).catch((reason) => reason)
      );
      const found = await stopped(member, change, { do: "notify", count: OURS });
      isStopped = found.isStopped;
      if (isStopped) stops++;
      // The last and the first, while the other process is in the middle of it.
      for (const i of [2, 0]) controllers[i]?.abort("gone");
      const [first, last] = [await waits[0], await waits[2]];
      // One that comes now is not heard, nor does it block: it is too late, or parked after it.
      const late = segment.wait(0, 0, { timeout: 0 });
      if (isStopped) assertEquals(await late, "timed-out");
      member.child.kill("SIGCONT");
      const counted = Number(await found.said);
      assertEquals(counted, [await waits[1], first, last].filter((it) => it === "ok").length);
      for (const it of [first, last]) given[it === "ok" ? 0 : 1]!++;
      await late;
      assertEquals([segment.notify(0), parking.sweep().taken], [0, 0], `at change ${change}`);
    }
    console.log(`${stops} stops; ${given[0]} were notified first, ${given[1]} gave up first`);
    assert(stops > 10 && (given[0] ?? 0) > 0 && (given[1] ?? 0) > 0);
    await member.kill();
    await stage.end();
  }));

test("a process stopped at every change while it notifies a signal wakes one that still waits", () =>
  inScene(async (scene) => {
    if (!isLinux("being stopped")) return;
    const stage = new Stage(scene);
    const signal = stage.registry.signal("s");
    const member = await stage.member();
    let stops = 0;
    for (let change = 1, isStopped = true; isStopped; change++) {
      const before = signal.sequence;
      const controller = new AbortController();
      const first = observe(signal.wait({ signal: controller.signal }).catch(() => "gone"));
      const second = observe(signal.wait());
      const found = await stopped(member, change, { do: "signalNotify" });
      isStopped = found.isStopped;
      if (isStopped) stops++;
      controller.abort();
      // Has seen the number as it is now, and comes behind those.
      const newcomer = observe(signal.wait({ since: signal.sequence }));
      member.child.kill("SIGCONT");
      assertEquals(await found.said, "true");
      const at = `at change ${change}`;
      // Exactly one of the two.
      if (await first.promise === "gone") assertEquals(await second.promise, before + 1, at);
      else {
        assertEquals([await first.promise, second.settled], [before + 1, false], at);
        assertEquals(signal.notify(), true);
        await second.promise;
      }
      // It ends by a number that is not the one it has begun with, or still waits for that.
      await until(() => newcomer.settled || stage.parking.sweep().parked === 1);
      while (!newcomer.settled) {
        signal.notify();
        await turn();
      }
      assert(await newcomer.promise > before, at);
      assertEquals([signal.notifyAll(), stage.parking.sweep().taken], [0, 0], at);
    }
    console.log(`${stops} stops`);
    assert(stops > 5);
    await member.kill();
    await stage.end();
  }));
