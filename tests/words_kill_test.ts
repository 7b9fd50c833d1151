/**
 * Processes that are killed at every single change that they make to the table of those who wait
 * on words and signals: whoever survives finds it in order.
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { inScene, until } from "./_scene.ts";
import { assertNothingLeaks, type Member, OURS, Stage, Waits } from "./_words.ts";
import type { WordsCommand } from "./_words_member.ts";

interface Deed {
  /** Before our waits are parked. */
  first?: (stage: Stage, victim: Member) => Promise<void>;
  /** Before it is to die. */
  before?: (stage: Stage, victim: Member) => Promise<void>;
  last: WordsCommand | ((stage: Stage) => void);
  says: string[];
  /** The native library is called in between: killed both before and after that. */
  isClose?: true;
  /** How many of our waits may have been notified. */
  notified: number[];
}

/** A process is parked on word 0 so many times, and dies. */
async function dead(stage: Stage, count: number): Promise<void> {
  const member = await stage.member();
  await stage.parks(count, () => member.ask({ do: "wait", at: 0, count }, "waits"));
  await member.kill();
}

/** A process has died after it has made the first of our rows notified, and no more. */
async function abandon(stage: Stage): Promise<void> {
  const member = await stage.member();
  await member.arm(1);
  member.send({ do: "notify", count: 2 });
  assert(await member.died("2"));
}

const deeds: Record<string, Deed> = {
  "while it is parked": {
    last: { do: "wait", at: 0, count: 1 },
    says: ["waits"],
    notified: [0],
  },
  "while its wait is aborted": {
    first: (stage, victim) =>
      stage.parks(1, () => victim.ask({ do: "wait", at: 0, count: 1 }, "waits")),
    last: { do: "abort" },
    says: ["AbortError"],
    notified: [0],
  },
  "while its wait times out": {
    last: { do: "waitSync", at: 0, timeout: 1 },
    says: ["timed-out"],
    notified: [0],
  },
  "while it notifies one": {
    last: { do: "notify", count: 1 },
    says: ["1"],
    isClose: true,
    notified: [0, 1],
  },
  "while it notifies all": {
    last: { do: "notify", count: 99 },
    says: [`${OURS}`],
    notified: [0, 1, 2, 3],
  },
  "while it receives notifications": {
    first: (stage, victim) =>
      stage.parks(2, () => victim.ask({ do: "wait", at: 0, count: 2 }, "waits")),
    last: ({ segment }) => assertEquals(segment.notify(0, 2), 2),
    says: ["ok", "ok"],
    notified: [0],
  },
  "while it notifies and finds the dead": {
    first: (stage) => dead(stage, 2),
    last: { do: "notify", count: 1 },
    says: ["1"],
    notified: [0, 1],
  },
  "while it sweeps the dead away": {
    first: (stage) => dead(stage, 2),
    last: { do: "sweep" },
    says: [`${OURS}`],
    notified: [0],
  },
  "while it mends what one has left that was killed while it notified": {
    before: abandon,
    last: { do: "notify", count: 0 },
    says: ["0"],
    notified: [1],
  },
};

for (const [when, deed] of Object.entries(deeds)) {
  test(`a process killed at every change ${when} leaves every wait on a word in order`, () =>
    inScene(async (scene) => {
      const stage = new Stage(scene);
      const { segment, parking } = stage;
      let step = 0;
      let deaths = 0;
      for (let hasDied = true; hasDied; step += deed.isClose ? 1 : 2) {
        const victim = await stage.member();
        await deed.first?.(stage, victim);
        const waits = await Waits.parked(stage, () => segment.wait(0, 0));
        await deed.before?.(stage, victim);
        await victim.arm(step);
        if (typeof deed.last === "function") deed.last(stage);
        else victim.send(deed.last);
        hasDied = await victim.died(...deed.says);
        if (hasDied) deaths++;
        const at = `killed at step ${step}`;
        // Whoever comes first: one that notifies, or one that looks at all rows.
        const isNotifier = Math.floor(step / 2) % 2 === 0;
        const first = isNotifier ? segment.notify(0, 1) : 0;
        const { parked } = parking.sweep();
        const notified = OURS - parked - first;
        assert(deed.notified.includes(notified), `${notified} notified, ${at}`);
        if (parked > 0 && isNotifier) assertEquals(first, 1, at);
        // All those are told, and nobody else.
        await until(() => waits.count >= OURS - parked);
        for (let i = OURS - parked; i < OURS; i++) {
          assertEquals(waits.settled, waits.all.map((_, j) => j < i), at);
          assertEquals(segment.notify(0, 1), 1);
          await until(() => waits.count > i);
        }
        for (const { promise } of waits.all) assertEquals(await promise, "ok");
        assertEquals(segment.notify(0), 0);
        await assertNothingLeaks(stage, OURS + 3);
      }
      await stage.end();
      console.log(`${deaths} deaths`);
      assert(deaths > 5, `only ${deaths} deaths`);
    }));
}
