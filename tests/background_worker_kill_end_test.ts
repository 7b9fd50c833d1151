/**
 * Processes that are killed at every single change of the table of background workers while one of
 * these lives and ends: while it claims its row and writes down its end, and while somebody else
 * settles that.
 *
 * The hardest race is a death in the middle of settling the death of another: what is counted must
 * not be counted twice, and what the first has stored must not change how the second one judges.
 */

import { assert, assertEquals } from "@std/assert";
import { type Attempt, pause, setKillAt, terminate } from "../lib/workers/lifecycle.ts";
import { isRunning } from "../lib/workers/rows.ts";
import { OUTCOME, READY_RUN, SILENT, STARTED, STATE, THREW } from "../lib/workers/table.ts";
import {
  assertRow,
  died,
  endedOrNot,
  killsAtEach,
  list,
  nextRuntime,
  runningIn,
  type Stage,
  supervise,
} from "./_background_kill.ts";
import { type BackgroundTable, specOf } from "./_background_table.ts";
import type { Deed } from "./_background_victim.ts";

/** A worker that has died, or ended, and nobody has noticed. */
function deadStage(
  deed: Deed,
  how: (place: BackgroundTable, slot: number) => void,
  check: (place: BackgroundTable, slot: number) => void,
  more = {},
): (place: BackgroundTable) => Stage {
  return (place) => {
    const slot = runningIn(place, "w", more);
    how(place, slot);
    return { deed, died: () => () => check(place, slot) };
  };
}

/** The ends of workers that whoever comes first settles. */
const ends: Record<string, (deed: Deed) => (place: BackgroundTable) => Stage> = {
  "of a worker that has crashed": (deed) =>
    deadStage(
      deed,
      (place, slot) => place.die(slot),
      (place, slot) => assertRow(place, slot, [1, 1, 1, 2], -1, died),
    ),
  "of a worker that has thrown": (deed) =>
    deadStage(
      deed,
      (place, slot) => place.end(slot, THREW, 1, "thrown"),
      (place, slot) => assertRow(place, slot, [1, 1, 0, 2], 1, "thrown"),
    ),
  "of a worker that has thrown, and is not restarted": (deed) =>
    deadStage(
      deed,
      (place, slot) => place.end(slot, THREW, 1, "thrown"),
      (place, slot) => assertRow(place, slot, [0, 0, 0, 1], 1, "thrown"),
      { restartTime: "never" },
    ),
  "of a worker that has returned": (deed) =>
    deadStage(
      deed,
      (place, slot) => place.end(slot),
      (place, slot) => {
        assertRow(place, slot, [0, 0, 0, 1], 0, "");
        const names = Array.from(place.registry.workers(), ({ name }) => name);
        assertEquals(names.filter((name) => name !== "next"), []);
      },
    ),
  "of a worker that was terminated, and killed after its grace": (deed) =>
    deadStage(
      deed,
      (place, slot) => {
        place.change((table) => {
          terminate(table, slot, 77);
          setKillAt(table, slot, 1, 77);
        });
        place.die(slot);
      },
      (place, slot) => {
        assertRow(place, slot, [0, 0, 0, 1], -1, "terminated; killed after its grace of 77 ms");
      },
    ),
  "of a worker whose supervisor has gone": (deed) =>
    deadStage(
      deed,
      (place, slot) => {
        place.change((table) => pause(table, slot, 60_000));
        place.end(slot);
      },
      (place, slot) => assertRow(place, slot, [1, 0, 0, 2], 0, ""),
    ),
};

/** Whoever comes next was not told. */
const untold = deadStage(
  { do: "supervise", told: { code: 0 } },
  (place, slot) => place.die(slot),
  (place, slot) => {
    const names = Array.from(place.registry.workers(), ({ name }) => name);
    const isUp = isRunning(place.table, slot);
    // Whoever comes next was not told.
    if (isUp) assertRow(place, slot, [1, 1, 1, 2], -1, died);
    else assertRow(place, slot, [0, 0, 0, 1], 0, "");
    assertEquals(names.includes("w"), isUp);
    if (!isUp) return;
    // And it is no longer one that has ended well.
    place.change((table) => terminate(table, slot, 60_000));
    place.settle();
    const { state } = Array.from(place.registry.workers()).find(({ name }) => name === "w") ?? {};
    assertEquals(state, "stopped");
  },
);

/** A worker of which a process plays the whole life. */
function life(how: "returns" | "throws" | "exits"): (place: BackgroundTable) => Stage {
  return (place) => {
    const slot = place.register(specOf("w"));
    place.elect();
    const [attempt] = place.round().starts as [Attempt];
    place.resign();
    return {
      deed: { do: "work", attempt, how },
      died: () => {
        const { table } = place;
        const state = place.get(slot, STATE);
        const wasClaimed = isRunning(table, slot);
        const wasStarted = state >= STARTED;
        const wasReady = place.get(slot, READY_RUN) === 1;
        const hasSaid = place.get(slot, OUTCOME) !== SILENT;
        return () => {
          if (hasSaid && how === "returns") {
            return assertRow(place, slot, [0, 0, 0, 1], 0, "");
          }
          const runs = wasStarted ? 2 : 1;
          const isCrash = wasClaimed && !(hasSaid && how === "throws");
          const said = how === "throws" ? "thrown" : "exit code 3";
          const reason = !wasClaimed ? "" : hasSaid ? said : died;
          const crashes = isCrash ? 1 : 0;
          const counts: [number, number, number, number] = [1, wasClaimed ? 1 : 0, crashes, runs];
          assertRow(place, slot, counts, !hasSaid ? -1 : how === "throws" ? 1 : 3, reason);
          assertEquals(place.get(slot, READY_RUN), runs);
          assert(wasStarted || !wasReady);
        };
      },
    };
  };
}

killsAtEach("hears that a worker has ended well, without a word", nextRuntime(), untold, 10);
for (const how of ["returns", "throws", "exits"] as const) {
  killsAtEach(`claims a row, runs, and ${how}`, nextRuntime(), life(how), 15);
}
for (const [whose, stage] of Object.entries(ends)) {
  killsAtEach(`is elected, and settles the end ${whose}`, nextRuntime(), stage(supervise), 10);
  killsAtEach(`looks, and settles the end ${whose}`, nextRuntime(), stage(list), 8);
}

// It tells every row of the table of a change: that is most of the steps.
killsAtEach("mends what another has left that was killed", nextRuntime(), (place) => {
  const slot = runningIn(place);
  const deed: Deed = { do: "terminate", slot, grace: 60_000 };
  return {
    first: { deed, step: 2 },
    deed: list,
    died: () => endedOrNot(place, slot, "terminated"),
  };
}, 514);
