/**
 * Processes that are killed at every single change that they make to the table of background
 * workers, while they register, terminate, drop or supervise: what they were about to do is done,
 * or it is not, and the next supervisor has nothing to do but to go on.
 *
 * The hardest race is a death in the middle of what concerns several rows: of the workers of a
 * template, or of a database, all end or none, and what has lost its template does not run.
 */

import { assert, assertEquals } from "@std/assert";
import { test } from "./_declare.ts";
import { restartsOf } from "../lib/workers/lifecycle.ts";
import { isRunning } from "../lib/workers/rows.ts";
import {
  CRASHES,
  DATABASE_ID,
  DUE_AT,
  EXIT_CODE,
  GENERATION,
  GRACE,
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
import {
  assertRow,
  endedOrNot,
  killsAtEach,
  nextRuntime,
  runningIn,
  type Stage,
  supervise,
  Victim,
} from "./_background_kill.ts";
import { BackgroundTable, specOf } from "./_background_table.ts";
import type { Deed } from "./_background_victim.ts";
import { inScene } from "./_scene.ts";

const deeds: Record<string, (place: BackgroundTable) => Stage> = {
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
    const [two = -1, one = -1] = [...place.runners.keys()];
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
        const isEarly = Math.floor(step / 2) % 2 === 0;
        if (isEarly) registerStatic(place.backend, "add-in", spec);
        return () => {
          registerStatic(place.backend, "add-in", spec);
          place.settle();
          const databases = [...place.runners.keys()]
            .filter((slot) => place.table.spec(slot)?.name === "w")
            .map((slot) => place.table.database(slot));
          if (isEarly || isBegun) {
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

  "is elected, and adopts what runs, is to end, and has not been told all of it": (place) => {
    const runs = runningIn(place, "runs");
    const ends = runningIn(place, "ends");
    const leave = place.visit("b");
    const all = runningIn(place, "all", { scope: "database" });
    const waits = place.register(specOf("waits"));
    place.change((table) => {
      table.set(all, GRACE, 60_000);
      for (const slot of [ends, all, waits]) table.raise(slot, TERMINATE);
    });
    const rows = place.rows;
    return {
      deed: supervise,
      died: () => () => {
        assertRow(place, runs, [1, 0, 0, 1], -1, "");
        for (const slot of rows) {
          if (slot === runs) continue;
          assertEquals([place.get(slot, STATE), place.claims.get(slot) ?? 0], [
            ...[STOPPED, [all, waits].includes(slot) ? 0 : 1],
          ]);
        }
        leave();
      },
    };
  },

  "is elected, and frees the row of a database that is gone": (place) => {
    const leave = place.visit("b");
    const slot = runningIn(place, "w", { scope: "database" });
    const row = place.rows.find((row) => place.table.database(row) === "b") ?? -1;
    place.elect();
    assert(place.registry.dropDatabase("b"));
    place.settle();
    assertEquals(place.get(row, STATE), STOPPED);
    const id = place.get(row, DATABASE_ID);
    place.resign();
    leave();
    return {
      deed: supervise,
      died: () => () => {
        assertEquals(place.rows.filter((row) => place.get(row, DATABASE_ID) === id), []);
        assertEquals(place.get(slot, STATE), TEMPLATE);
      },
    };
  },

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

for (const [name, prepare] of Object.entries(deeds)) killsAtEach(name, nextRuntime(), prepare, 4);

// Nobody looks but who waits: he hears of the death itself, and looks.
test("killed at every change: who terminates a worker; who waits for its end hears of it", () =>
  inScene(async (scene) => {
    const prepare = (name: string) => {
      const place = new BackgroundTable(scene, name);
      const worker = place.registry.registerBackgroundWorker(specOf("w"));
      return { place, worker, ended: worker.waitForShutdown() };
    };
    const { dir } = scene;
    const counting = prepare("counting");
    const deed: Deed = { do: "terminate", slot: counting.worker.slot, grace: 60_000 };
    const counter = await Victim.start(scene, nextRuntime());
    const steps = await counter.count({ dir, registry: "counting", deed });
    const all = Array.from({ length: steps }, (_, i) => prepare(`killed at ${i + 1}`));
    const registries = all.map(({ place: { name } }, i) => ({ name, step: i + 1 }));
    await (await Victim.start(scene, nextRuntime())).die({ dir, registries, deed });
    assert(steps > 5);
    const reason = "terminated before it had started";
    for (const [i, { place, worker, ended }] of [...all, counting].entries()) {
      // Before the first change nothing is done, and before the second one it is.
      if (i === 0) worker.terminate();
      assertEquals(await ended, { exitCode: null, reason });
      place.assertEndsAndFills();
      place.destroy();
    }
  }));
