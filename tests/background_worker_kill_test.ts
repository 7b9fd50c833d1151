/**
 * Processes that are killed at every single change that they make to the table of background
 * workers: what they were about to do is done, or it is not, and the next supervisor has nothing
 * to do but to go on.
 *
 * The hardest race is a death in the middle of settling the death of another: what is counted must
 * not be counted twice, and what the first has stored must not change how the second one judges.
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { type Attempt, pause, restartsOf, setKillAt, terminate } from "../lib/workers/lifecycle.ts";
import { isRunning } from "../lib/workers/rows.ts";
import {
  CRASHES,
  DATABASE_ID,
  DUE_AT,
  EXIT_CODE,
  GENERATION,
  OUTCOME,
  READY_RUN,
  ROWS_MAX,
  RUNS,
  SILENT,
  STARTED,
  STARTED_AT,
  STARTING,
  STATE,
  STOPPED,
  STOPPED_AT,
  TEMPLATE,
  TERMINATE,
  THREW,
  WAITING,
} from "../lib/workers/table.ts";
import { registerStatic } from "../lib/workers/workers.ts";
import { BackgroundTable, specOf } from "./_background_table.ts";
import type { Deed, VictimCommand, VictimReport } from "./_background_victim.ts";
import { inScene, type Scene } from "./_scene.ts";
import { Child, commandLine, type RuntimeName, runtimes } from "./_spawn.ts";

/** What somebody is about to do, and what must be found when he has died of it. */
interface Stage {
  deed: Deed;
  /** Before anybody else has looked; and what is to be asserted in the end. */
  died: (step: number) => () => void;
}

/** How many registries there are at a time: each has a table of 1 MiB. */
const BATCH = 32;

class Victim {
  readonly #child: Child;

  private constructor(child: Child) {
    this.#child = child;
  }

  static async start(scene: Scene, runtime: RuntimeName): Promise<Victim> {
    const child = scene.adopt(new Child(commandLine(runtime, "_background_victim.ts")));
    assertEquals(await child.next(), { pid: child.pid });
    return new Victim(child);
  }

  async count(command: Omit<VictimCommand & { do: "count" }, "do">): Promise<number> {
    this.#child.sendLine(JSON.stringify({ do: "count", ...command }));
    const { steps } = await this.#child.next() as unknown as VictimReport;
    this.#child.kill();
    await this.#child.ended;
    return steps ?? 0;
  }

  /** It must die of it, and of nothing else. */
  async die(command: Omit<VictimCommand & { do: "die" }, "do">): Promise<void> {
    this.#child.sendLine(JSON.stringify({ do: "die", ...command }));
    assertEquals(await this.#child.ended, "SIGKILL", this.#child.printed);
  }
}

/** Kills at each step, or at each of those that are so far apart. Returns how many have died. */
async function killAtEach(
  scene: Scene,
  runtime: RuntimeName,
  prepare: (place: BackgroundTable) => Stage | Promise<Stage>,
  apart = 1,
): Promise<{ steps: number; deaths: number }> {
  const { dir } = scene;
  const counting = new BackgroundTable(scene, "counting");
  const { deed } = await prepare(counting);
  const counter = await Victim.start(scene, runtime);
  const steps = await counter.count({ dir, registry: "counting", deed });
  counting.destroy();
  let deaths = 0;
  for (let first = 1; first <= steps; first += BATCH * apart) {
    const victim = await Victim.start(scene, runtime);
    const places: { place: BackgroundTable; stage: Stage; step: number }[] = [];
    for (let step = first; step <= steps && places.length < BATCH; step += apart) {
      const place = new BackgroundTable(scene, `killed at ${step}`);
      places.push({ place, stage: await prepare(place), step });
    }
    const registries = places.map(({ place: { name }, step }) => ({ name, step }));
    await victim.die({ dir, registries, deed });
    for (const { place, stage, step } of places) {
      try {
        assert(place.isAbandoned, "nobody has died with the lock held");
        deaths++;
        lookAfter(place, stage, step);
      } catch (error) {
        throw new Error(`killed at step ${step} of ${steps}: ${error}`, { cause: error });
      }
    }
  }
  return { steps, deaths };
}

/** The first who comes is a supervisor, or one that looks, or one that registers. */
function lookAfter(place: BackgroundTable, stage: Stage, step: number): void {
  const finish = stage.died(step);
  if (step % 3 === 1) Array.from(place.registry.workers());
  const hasRoom = place.rows.length < ROWS_MAX ||
    place.rows.some((slot) => place.get(slot, STATE) === STOPPED);
  const next = step % 3 === 2 && hasRoom ? place.register(specOf("next")) : -1;
  const before = place.claims.get(next) ?? 0;
  place.elect();
  place.settle();
  finish();
  if (next >= 0) assertEquals(place.claims.get(next), before + 1, "the next one does not run");
  place.assertEndsAndFills();
  place.destroy();
}

/** A worker that runs. */
function runningIn(place: BackgroundTable, name = "w", more = {}): number {
  const slot = place.register(specOf(name, more));
  place.elect();
  place.settle();
  place.resign();
  return slot;
}

/** Asserts that a worker that was to end has ended, and for good; or that it runs as before. */
function endedOrNot(place: BackgroundTable, slot: number, reason: string): () => void {
  const { table } = place;
  const isDone = table.has(slot, TERMINATE) || place.get(slot, STATE) === STOPPED;
  const before = place.claims.get(slot) ?? 0;
  const wasRunning = isRunning(table, slot);
  return () => {
    const runs = place.claims.get(slot) ?? 0;
    if (isDone) {
      assertEquals([place.get(slot, STATE), runs], [STOPPED, before]);
      assertEquals(table.reason(slot), reason);
    } else {
      assert(isRunning(table, slot));
      assertEquals([runs, restartsOf(table, slot)], [wasRunning ? before : before + 1, 0]);
    }
  };
}

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

/** Asserts state, restarts, crashes in a row, runs, exit code and reason. */
function assertRow(
  place: BackgroundTable,
  slot: number,
  expected: [number, number, number, number],
  exitCode: number,
  reason: string,
): void {
  const { table } = place;
  const isUp = isRunning(table, slot) ? 1 : 0;
  assertEquals([isUp, ...place.countsOf(slot), table.get(slot, RUNS)], expected);
  assertEquals([table.get(slot, EXIT_CODE), table.reason(slot)], [exitCode, reason]);
}

const died = "its process has died without a word: it was killed, or has crashed";
const supervise: Deed = { do: "supervise" };
const list: Deed = { do: "list" };

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

const deeds: Record<string, (place: BackgroundTable) => Stage | Promise<Stage>> = {
  "registers a worker": (place) => {
    return {
      deed: { do: "register", spec: specOf("w") },
      died: () => {
        const isDone = place.rowOf("w") >= 0;
        return () => {
          const slot = place.rowOf("w");
          assertEquals([slot >= 0, place.claims.get(slot) ?? 0], [isDone, isDone ? 1 : 0]);
        };
      },
    };
  },

  "registers a worker where all rows are in use but one that has stopped": (place) => {
    const stopped = runningIn(place, "stopped");
    place.elect();
    place.end(stopped);
    place.settle();
    for (let i = 1; i < 256; i++) {
      place.register(specOf(`${i}`, { startTime: "first-database-attach" }));
    }
    place.resign();
    return {
      deed: { do: "register", spec: specOf("w") },
      died: (step) => {
        const isDone = place.rowOf("w") >= 0;
        // There is room for it, unless somebody was before.
        if (step % 3 !== 2 && !isDone) assertEquals(place.register(specOf("w2")), stopped);
        return () => assertEquals(place.rowOf("w") >= 0, isDone);
      },
    };
  },

  "registers a static worker that an earlier server has left": (place) => {
    const spec = specOf("w");
    const { slot } = registerStatic(place.backend, "add-in", spec);
    place.elect();
    place.settle();
    place.end(slot);
    place.settle();
    place.change((table) => table.setTime(slot, STOPPED_AT, 1));
    place.resign();
    return {
      deed: { do: "register", spec, addin: "add-in" },
      died: (step) => {
        // Sometimes not before the next supervisor has done what there is to do.
        if (step % 2 === 0) registerStatic(place.backend, "add-in", spec);
        return () => {
          const id = registerStatic(place.backend, "add-in", spec).slot;
          place.settle();
          const rows = place.rows.filter((row) => place.table.spec(row)?.name === "w");
          assertEquals([rows, isRunning(place.table, id)], [[id], true]);
        };
      },
    };
  },

  "registers a static worker of each database that an earlier server has left": (place) => {
    const spec = specOf("w", { scope: "database" });
    const leave = place.visit("b");
    const { slot } = registerStatic(place.backend, "add-in", spec);
    place.elect();
    place.settle();
    // One has returned, the other has died with everybody else.
    const [one = -1, two = -1] = [...place.runners.keys()];
    place.end(one);
    place.settle();
    place.die(two);
    place.change((table) => {
      table.setTime(one, STOPPED_AT, 1);
      table.setTime(two, STARTED_AT, 1);
    });
    place.resign();
    return {
      deed: { do: "register", spec, addin: "add-in" },
      died: (step) => {
        // Where nothing was done yet, and a supervisor comes first, they are its workers.
        const isBegun = place.get(slot, STATE) !== TEMPLATE || place.get(slot, GENERATION) > 1 ||
          place.rows.length < 3;
        if (step % 2 === 0) registerStatic(place.backend, "add-in", spec);
        return () => {
          registerStatic(place.backend, "add-in", spec);
          place.settle();
          const databases = [...place.runners.keys()]
            .filter((slot) => place.table.spec(slot)?.name === "w")
            .map((slot) => place.table.database(slot));
          if (step % 2 === 0 || isBegun) {
            assertEquals(new Set(databases), new Set(["b", "default"]));
          }
          assertEquals(new Set(databases).size, databases.length, "two in one database");
          leave();
        };
      },
    };
  },

  "terminates a worker that waits": (place) => {
    const slot = place.register(specOf("w"));
    return {
      deed: { do: "terminate", slot, grace: 60_000 },
      died: () => endedOrNot(place, slot, "terminated before it had started"),
    };
  },

  "terminates a worker that is to be started again later": (place) => {
    const slot = runningIn(place, "w", { restartTime: 40_000 });
    place.elect();
    place.end(slot, THREW, 1, "thrown");
    place.round();
    place.resign();
    const due = place.table.time(slot, DUE_AT);
    assert(due > Date.now());
    return {
      deed: { do: "terminate", slot, grace: 60_000 },
      died: () => {
        const { table } = place;
        const isDone = table.has(slot, TERMINATE) || place.get(slot, STATE) === STOPPED;
        if (!isDone) {
          assertEquals([place.get(slot, STATE), table.time(slot, DUE_AT)], [WAITING, due]);
        }
        return () => {
          assertEquals(place.claims.get(slot), isDone ? 1 : 2);
          assertEquals(table.reason(slot), isDone ? "terminated" : "thrown");
        };
      },
    };
  },

  "terminates a worker that is being started": (place) => {
    const slot = place.register(specOf("w"));
    place.elect();
    const [attempt] = place.round().starts;
    assert(attempt !== undefined);
    place.resign();
    return {
      deed: { do: "terminate", slot, grace: 60_000 },
      died: (step) => {
        const check = endedOrNot(place, slot, "terminated before it had started");
        const isRaised = place.get(slot, STATE) !== STARTING ||
          place.attemptOf(slot).attempt !== attempt.attempt;
        if (step % 2 === 0) return check;
        // It comes before the next supervisor, and may have a row to claim.
        const isClaimed = place.run(attempt);
        assertEquals(isClaimed, !isRaised);
        if (!isClaimed) return check;
        return () => {
          if (!place.table.has(slot, TERMINATE)) return assertEquals(place.claims.get(slot), 1);
          assertEquals([place.get(slot, STATE), place.claims.get(slot)], [STOPPED, 1]);
        };
      },
    };
  },

  "terminates a worker that runs": (place) => {
    const slot = runningIn(place);
    return {
      deed: { do: "terminate", slot, grace: 60_000 },
      died: () => endedOrNot(place, slot, "terminated"),
    };
  },

  "terminates a worker of two databases": (place) => {
    const leave = place.visit("b");
    const slot = runningIn(place, "w", { scope: "database" });
    const instances = [...place.runners.keys()];
    assertEquals(instances.length, 2);
    return {
      deed: { do: "terminate", slot, grace: 60_000 },
      died: () => {
        const isDone = place.table.has(slot, TERMINATE) || place.get(slot, STATE) === STOPPED;
        const state = isDone ? STOPPED : TEMPLATE;
        return () => {
          assertEquals(place.get(slot, STATE), state);
          for (const row of instances) {
            assertEquals([isRunning(place.table, row), place.claims.get(row)], [!isDone, 1]);
          }
          leave();
        };
      },
    };
  },

  "drops a database with workers that run, wait, and have stopped": (place) => {
    const leave = place.visit("b");
    const all = ["runs", "waits", "stopped"].map((name) =>
      runningIn(place, name, { scope: "database", restartTime: 40_000 })
    );
    const { table } = place;
    const rows = place.rows.filter((slot) => table.database(slot) === "b");
    const [, waits = -1, stopped = -1] = rows;
    place.elect();
    place.end(waits, THREW, 1, "thrown");
    place.end(stopped);
    place.round();
    place.resign();
    assertEquals([all.length, rows.length], [3, 3]);
    const id = place.get(stopped, DATABASE_ID);
    return {
      deed: { do: "dropDatabase", database: "b" },
      died: () => () => {
        // Not even the one that waits was started again. Some rows may be another's by now.
        for (const row of rows) assertEquals(place.claims.get(row), 1);
        for (const row of rows) assertEquals(isRunning(table, row), false);
        assertEquals(
          [...place.runners.keys()].filter((row) => place.get(row, DATABASE_ID) === id),
          [],
        );
        leave();
        place.settle();
        const left = place.rows.filter((row) => place.get(row, DATABASE_ID) === id);
        assertEquals(left, [], "a row of a dropped database is kept");
        for (const template of all) assertEquals(place.get(template, STATE), TEMPLATE);
      },
    };
  },

  "is elected, and starts a worker": (place) => {
    const slot = place.register(specOf("w"));
    return {
      deed: supervise,
      died: (step) => {
        if (place.get(slot, STATE) !== STARTING) {
          return () => assertEquals(place.claims.get(slot), 1);
        }
        const attempt = place.attemptOf(slot);
        // What it has started, if it has, may be earlier than the next supervisor, or later.
        if (step % 2 === 0) assert(place.run(attempt));
        return () => {
          assertEquals(place.claims.get(slot), 1);
          assert(!place.run(attempt), "one that comes too late claims");
          assertRow(place, slot, [1, 0, 0, 1], -1, "");
        };
      },
    };
  },

  "is elected, and starts three workers": (place) => {
    const slots = ["a", "b", "c"].map((name) => place.register(specOf(name)));
    return {
      deed: supervise,
      died: () => () => {
        for (const slot of slots) assertRow(place, slot, [1, 0, 0, 1], -1, "");
      },
    };
  },

  "is elected, and makes a worker for each of two databases": (place) => {
    const leave = place.visit("b");
    place.register(specOf("w", { scope: "database" }));
    return {
      deed: supervise,
      died: () => () => {
        const rows = place.rows.filter((slot) => isRunning(place.table, slot))
          .filter((slot) => place.table.spec(slot)?.name === "w");
        const databases = rows.map((slot) => place.table.database(slot)).sort();
        assertEquals(databases, ["b", "default"]);
        for (const slot of rows) assertEquals(place.claims.get(slot), 1);
        leave();
      },
    };
  },

  "hears from a worker's process that it has ended well, without a word": deadStage(
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
  ),

  "starts a worker in vain": (place) => {
    const slot = place.register(specOf("w"));
    return {
      deed: { do: "startInVain", code: 9 },
      died: () => {
        const isSettled = place.get(slot, STATE) === WAITING && place.get(slot, CRASHES) > 0;
        return () => {
          const count = isSettled ? 1 : 0;
          // What it has said of that stays, whether it was counted or not.
          const reason = place.table.reason(slot);
          if (isSettled) assertEquals(reason, "could not be started: exit code 9");
          assertRow(place, slot, [1, count, count, 1], place.get(slot, EXIT_CODE), reason);
        };
      },
    };
  },

  "leaves, and nobody else supervises": (place) => {
    const slots = [runningIn(place, "a"), runningIn(place, "b")];
    const starting = place.register(specOf("c"));
    place.elect();
    const [attempt] = place.round().starts;
    assert(attempt !== undefined);
    return {
      deed: { do: "pauseAll" },
      died: (step) => {
        if (step % 2 === 0) place.run(attempt);
        return () => {
          for (const slot of [...slots, starting]) {
            assertEquals([isRunning(place.table, slot), restartsOf(place.table, slot)], [true, 0]);
          }
          assert(!place.run(attempt), "one that comes too late claims");
        };
      },
    };
  },
};

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

function declare(
  name: string,
  runtime: RuntimeName,
  prepare: (place: BackgroundTable) => Stage | Promise<Stage>,
  least: number,
  apart = 1,
): void {
  test(`killed at every change: a ${runtime} process that ${name}`, () =>
    inScene(async (scene) => {
      const { steps, deaths } = await killAtEach(scene, runtime, prepare, apart);
      console.log(`${deaths} deaths, of ${steps} steps`);
      assertEquals(deaths, Math.ceil(steps / apart));
      assert(steps >= least, `only ${steps} steps`);
    }));
}

let count = 0;
/** Both take part, in turn. */
const nextRuntime = (): RuntimeName => runtimes[count++ % 2] ?? "deno";

for (const [name, prepare] of Object.entries(deeds)) declare(name, nextRuntime(), prepare, 4);
for (const how of ["returns", "throws", "exits"] as const) {
  declare(`claims a row, runs, and ${how}`, nextRuntime(), life(how), 15);
}
for (const [whose, stage] of Object.entries(ends)) {
  declare(`is elected, and settles the end ${whose}`, nextRuntime(), stage(supervise), 10);
  declare(`looks, and settles the end ${whose}`, nextRuntime(), stage(list), 8);
}

// Of the rows, which are alike, one in each dozen.
declare(
  "mends what another has left that was killed",
  nextRuntime(),
  async (place) => {
    const slot = runningIn(place);
    const killer = await Victim.start(place.scene, "bun");
    const deed: Deed = { do: "terminate", slot, grace: 60_000 };
    const { dir } = place.scene;
    await killer.die({ dir, registries: [{ name: place.name, step: 2 }], deed });
    assert(place.table.has(slot, TERMINATE));
    return { deed: list, died: () => endedOrNot(place, slot, "terminated") };
  },
  514,
  24,
);
