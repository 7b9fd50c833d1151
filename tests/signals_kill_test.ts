/**
 * Processes that are killed at every single change that they make to a signal and to those who wait
 * for it: a notification was made, or it was not; a signal is dropped, or it is not.
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import { assertRefused } from "./_async.ts";
import { inScene, until } from "./_scene.ts";
import { assertNothingLeaks, type Member, OURS, Stage, Waits } from "./_words.ts";
import type { WordsCommand } from "./_words_member.ts";

/** The signal's number before anything happens. */
const BEFORE = 2;

interface Deed {
  /** Before it is to die. */
  before?: (stage: Stage) => Promise<void>;
  last: WordsCommand;
  says: string[];
  /** How many of our waits end, if it is done. */
  ends: number;
  /** The native library is called in between: killed both before and after that. */
  isClose?: true;
  /** Whether the signal is dropped, if it is done. */
  drops?: true;
}

/** Others have begun to drop the signal, and have died: before it was, and after that. */
function dropper(step: number): (stage: Stage) => Promise<void> {
  return async (stage) => {
    const member: Member = await stage.member();
    await member.arm(step);
    member.send({ do: "dropSignal" });
    assert(await member.died("true"));
  };
}

const deeds: Record<string, Deed> = {
  "while it begins to wait": { last: { do: "signalWait" }, says: ["waits"], ends: 0 },
  "while it notifies one": { last: { do: "signalNotify" }, says: ["true"], ends: 1, isClose: true },
  "while it notifies all": { last: { do: "signalNotifyAll" }, says: [`${OURS}`], ends: OURS },
  "while it drops it": {
    last: { do: "dropSignal" },
    says: ["true"],
    ends: OURS,
    isClose: true,
    drops: true,
  },
  "while it drops what another was about to drop": {
    before: dropper(9),
    last: { do: "dropSignal" },
    says: ["true"],
    ends: OURS,
    drops: true,
  },
};

for (const [when, { before, last, says, ends, isClose, drops }] of Object.entries(deeds)) {
  test(`a process killed at every change of a signal ${when} has done it, or not`, () =>
    inScene(async (scene) => {
      // No room for signals that are never gone.
      const stage = new Stage(scene, 8);
      const { registry, parking } = stage;
      let deaths = 0;
      let done = 0;
      let step = 0;
      for (let hasDied = true; hasDied; step += isClose ? 1 : 2) {
        const at = `killed at step ${step}`;
        const signal = registry.signal("s");
        for (let i = 0; i < BEFORE; i++) signal.notifyAll();
        const victim = await stage.member();
        const waits = await Waits.parked(stage, () => signal.wait());
        await before?.(stage);
        await victim.arm(step);
        victim.send(last);
        hasDied = await victim.died(...says);
        if (hasDied) deaths++;
        // Those that were woken by somebody who died before it was done wait again.
        await until(() => {
          const { taken, parked } = parking.sweep();
          return taken === parked && parked + waits.count === OURS;
        });
        const isDone = waits.count > 0 || ends === 0;
        if (isDone) done++;
        assertEquals(waits.count, isDone ? ends : 0, at);
        if (drops) {
          // Who asks for it, or who drops it, finishes what is left to do.
          const asks = Math.floor(step / 2) % 2 === 0;
          if (asks) assertEquals(registry.signal("s").sequence, isDone ? 0 : BEFORE, at);
          assertEquals(registry.dropSignal("s"), !isDone || asks, at);
          for (const { promise } of waits.all) await assertRefused(promise, "NOT_FOUND", '"s"');
          const fresh = registry.signal("s");
          const waiting = fresh.wait();
          assertEquals([fresh.sequence, fresh.notify(), await waiting], [0, true, 1], at);
        } else {
          if (ends > 0) assertEquals(signal.sequence, BEFORE + (isDone ? 1 : 0), at);
          if (isDone && ends === 1) assertEquals(waits.settled, [true, false, false], at);
          for (let count = waits.count; count < OURS; count++) {
            assertEquals(signal.notify(), true, at);
            await until(() => waits.count > count);
            assertEquals(waits.count, count + 1, at);
          }
          for (const { promise } of waits.all) assert(await promise > BEFORE, at);
          assertEquals(signal.notify(), false, at);
        }
        await assertNothingLeaks(stage, OURS + 3);
        assert(registry.dropSignal("s"));
      }
      await stage.end();
      console.log(`${deaths} deaths; done all the same in ${done - 1}`);
      assert(deaths > 5, `only ${deaths} deaths`);
    }));
}
