/** The call statistics of the examples, with processes that are killed in the middle of it. */

import { assert, assertEquals } from "@std/assert";
import { test } from "node:test";
import type { CallStats } from "../examples/call_stats/call_stats.ts";
import { byName, callsByName, Member, open } from "./_call_stats.ts";
import type { StatsCommand } from "./_call_stats_member.ts";
import { callsOf, expectedRows } from "./_call_stats_traffic.ts";
import { randomFrom } from "./_random.ts";
import { inScene, type Scene, until } from "./_scene.ts";
import { otherThan, type RuntimeName, runtimes } from "./_spawn.ts";

/** A process that is to die at a store, and what must be true then. */
interface Plan {
  runtime: RuntimeName;
  /** What it dies in. */
  what: StatsCommand;
  /** What others do before, in the same registry. */
  before?: (scene: Scene, registry: string) => Promise<void>;
  check: (stats: CallStats, isDead: boolean) => void;
}

/** Starts a process that dies before its n-th store in `what`; whether it did. */
async function diesAt(scene: Scene, registry: string, n: number, plan: Plan): Promise<boolean> {
  const victim = await Member.start(scene, plan.runtime, registry);
  // What is stored once only, by whoever reads for the first time, does not count.
  await victim.ask({ do: "rows" });
  await plan.before?.(scene, registry);
  await victim.ask({ do: "atStore", n, then: "die" });
  victim.send(plan.what);
  const isDead = await victim.next().then((report) => {
    assert(report.ok, JSON.stringify(report));
    return false;
  }, () => true);
  if (isDead) assertEquals(await victim.ended, "SIGKILL");
  await victim.kill();
  return isDead;
}

/** Tries each store, in a registry of its own, until one is past the last; how many there are. */
async function atEachStore(scene: Scene, plan: Plan): Promise<number> {
  for (let n = 1;; n++) {
    const { stats, registry } = open(scene, `store-${n}`);
    stats.record("a", 1);
    stats.record("b", 2);
    const isDead = await diesAt(scene, registry.name, n, plan);
    plan.check(stats, isDead);
    // The lock is not the dead one's any more, and nothing is left to mend.
    stats.record("next", 3);
    assertEquals(byName(stats.rows()).get("next")?.calls, 1);
    assertEquals(registry.getTranche("call-stats").map(({ abandoned }) => abandoned), [false]);
    registry.close();
    if (!isDead) return n - 1;
  }
}

/** A reset leaves it as new, and it counts. */
function checkUsable(stats: CallStats): void {
  stats.reset();
  stats.record("a", 4);
  assertEquals(stats.rows(), [
    { name: "a", calls: 1, totalMs: 4, meanMs: 4, minMs: 4, maxMs: 4 },
  ]);
}

for (const runtime of runtimes) {
  test(`kill -9 of a ${runtime} recorder at random moments: the table stays true`, () =>
    inScene(async (scene) => {
      const { registry, stats } = open(scene);
      const survivor = await Member.start(scene, otherThan(runtime));
      const words = new Int32Array(registry.getNamedSegmentSync("tally", 8).buffer);
      const random = randomFrom(5);
      for (let round = 0; round < 6; round++) {
        words.fill(0);
        const name = `victim ${round}`;
        const victim = await Member.start(scene, runtime);
        victim.send({ do: "tally", name });
        survivor.send({ do: "storm", seed: round, count: 5000, nameCount: 10 });
        const enough = 1 + Math.floor(random() * 20_000);
        await until(() => Atomics.load(words, 1) >= enough);
        await victim.kill();
        await survivor.well();
        const [begun = 0, ended = 0] = words;
        assert(begun - ended <= 1);
        const row = byName(stats.rows()).get(name);
        assert(row !== undefined && row.calls >= ended && row.calls <= begun, JSON.stringify(row));
        // The time of a call comes before the call itself.
        assert(row.totalMs >= row.calls && row.totalMs <= begun, JSON.stringify(row));
        assertEquals([row.minMs, row.maxMs], [1, 1]);
        await survivor.ask({ do: "record", calls: [[`after ${round}`, 1]] });
        assertEquals(byName(stats.rows()).get(`after ${round}`)?.calls, 1);
      }
      const storms = Array.from({ length: 6 }, (_, seed) => [...callsOf(seed, 5000, 10)]).flat();
      const rows = byName(stats.rows());
      for (const [name, row] of expectedRows(storms)) assertEquals(rows.get(name), row);
    }));

  test(`a ${runtime} process is killed at each store of a new name's first call`, () =>
    inScene(async (scene) => {
      const seen: (number | undefined)[] = [];
      const stores = await atEachStore(scene, {
        runtime,
        what: { do: "record", calls: [["new", 5]] },
        check(stats, isDead) {
          const rows = byName(stats.rows());
          assertEquals([rows.get("a")?.calls, rows.get("b")?.calls], [1, 1]);
          const row = rows.get("new");
          seen.push(row?.calls);
          if (!isDead) assertEquals(row, { ...row, calls: 1, totalMs: 5, minMs: 5, maxMs: 5 });
          // The half-written entry is the next name's; it would be the empty name's.
          for (const name of ["", "other"]) {
            stats.record(name, 1);
            const whole = { name, calls: 1, totalMs: 1, meanMs: 1, minMs: 1, maxMs: 1 };
            assertEquals(byName(stats.rows()).get(name), whole);
          }
          stats.record("new", 5);
          assertEquals(byName(stats.rows()).get("new")?.calls, (row?.calls ?? 0) + 1);
        },
      });
      assert(stores >= 7, `${stores} stores`);
      // Nothing at first, then the time, at last the call.
      assertEquals(seen[0], undefined);
      assertEquals(seen.slice(-2), [0, 1]);
    }));

  test(`a ${runtime} process is killed at each store of a reset: all or nothing`, () =>
    inScene(async (scene) => {
      const outcomes: Record<string, number>[] = [];
      const stores = await atEachStore(scene, {
        runtime,
        what: { do: "reset" },
        check(stats) {
          outcomes.push(callsByName(stats.rows()));
          checkUsable(stats);
        },
      });
      // Twice the flag, and four counters of three entries.
      assertEquals(stores, 14);
      assertEquals(outcomes, [{ a: 1, b: 1 }, ...Array.from({ length: 14 }, () => ({}))]);
    }));

  test(`a ${runtime} process is killed while it finishes the reset of one that was killed`, () =>
    inScene(async (scene) => {
      const stores = await atEachStore(scene, {
        runtime,
        what: { do: "rows" },
        async before(scene, registry) {
          const first = { runtime: otherThan(runtime), what: { do: "reset" }, check() {} } as const;
          assert(await diesAt(scene, registry, 7, first));
        },
        check(stats) {
          assertEquals(stats.rows(), []);
          checkUsable(stats);
        },
      });
      assertEquals(stores, 14);
    }));

  for (const what of ["record", "reset"] as const) {
    test(`a ${runtime} process is killed in ${what} with the lock, while another waits for it`, () =>
      inScene(async (scene) => {
        const { registry, stats } = open(scene);
        stats.record("a", 1);
        const holder = await Member.start(scene, runtime);
        const waiter = await Member.start(scene, otherThan(runtime));
        await holder.ask({ do: "rows" });
        await holder.holdAt(
          2,
          what === "record" ? { do: what, calls: [["held", 1]] } : { do: what },
        );
        // Known names are counted meanwhile: that takes no lock.
        stats.record("a", 1);
        waiter.send({ do: "record", calls: [["new", 1]] });
        await until(() => [...registry.waits()].length === 1);
        const [wait] = registry.waits();
        assertEquals([wait?.tranche, wait?.pid], ["call-stats", waiter.pid]);
        await holder.kill();
        await waiter.well();
        const expected = what === "record" ? { a: 2, new: 1 } : { new: 1 };
        assertEquals(callsByName(stats.rows()), expected);
      }));
  }
}
