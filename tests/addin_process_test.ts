/** Add-ins in several processes of both runtimes: who runs which hooks, and who dies in them. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { defineAddin, DsmrError, Registry } from "../lib/mod.ts";
import type { AddinSpec, HookStep } from "./_addin_member.ts";
import { logged, Member, well } from "./_addins.ts";
import { randomFrom } from "./_random.ts";
import { assertFails, inScene, type Scene, until } from "./_scene.ts";
import { otherThan, runtimes } from "./_spawn.ts";

/** One part of 4,096 bytes, full of 5s; a counter that each backend adds to; a tranche. */
const counter: AddinSpec = {
  name: "counter",
  request: [{ log: "request" }, { space: 4096 }, { tranche: "counter", count: 3 }],
  startup: [{ log: "startup" }, { part: "counter", size: 4096, value: 5 }, { bump: "counter" }],
};

/** The same with more steps in its request hook. */
function counterWith(steps: HookStep[]): AddinSpec {
  return { ...counter, request: [...counter.request ?? [], ...steps] };
}

for (const isAsync of [false, true]) {
  test(`of 8 processes that open at once, one runs the request hooks; async: ${isAsync}`, () =>
    inScene(async (scene) => {
      const all = await Promise.all(
        [...runtimes, ...runtimes, ...runtimes, ...runtimes]
          .map((runtime) => Member.start(scene, runtime)),
      );
      for (const member of all) {
        member.send({ do: "open", dir: scene.dir, addins: [counter], isAsync });
      }
      const reports = await Promise.all(all.map((member) => member.next()));
      const found = reports.map((report) => well(report).parts?.counter?.found);
      assertEquals(found.filter((found) => found === false).length, 1);
      assertEquals(logged(scene).filter((line) => line === "request").length, 1);
      assertEquals(logged(scene).filter((line) => line === "startup").length, 8);
      for (const member of all) {
        const { parts } = await member.ask({ do: "parts" });
        assertEquals(parts?.counter?.value, 5 + 8);
        const { count } = well(await member.ask({ do: "tranche", tranche: "counter" }));
        assertEquals(count, 3);
      }
    }));
}

for (const runtime of runtimes) {
  test(`who dies in the request hook (${runtime}) is replaced, on zeroed memory`, () =>
    inScene(async (scene) => {
      const [dying, next] = [
        await Member.start(scene, runtime),
        await Member.start(scene, otherThan(runtime)),
      ];
      const addins = [counterWith([{ space: 10 ** 6 }, { hold: "request" }])];
      dying.send({ do: "open", dir: scene.dir, addins });
      await dying.holds("request");
      next.send({ do: "open", dir: scene.dir, addins: [counter] });
      const registry = scene.open();
      await until(() => [...registry.backends()].some(({ waitingFor }) => waitingFor !== null));
      await dying.kill();
      const { parts } = well(await next.next());
      assertEquals(parts?.counter, { found: false, wasZero: true, value: 6 });
      assertEquals(logged(scene), ["request", "request", "startup"]);
      // With its requests, not those of the dead.
      assertEquals(registry.getTranche("counter").length, 3);
    }));

  const dying: [string, HookStep[], boolean][] = [
    ["before initStruct", [{ locked: [{ hold: "here" }] }], false],
    ["after initStruct, the part filled", [
      { part: "counter", size: 4096, value: 9, inside: [{ hold: "here" }] },
    ], false],
    ["in a later hold, the part there already", [
      { part: "counter", size: 4096, value: 5 },
      { part: "other", size: 64, value: 9, inside: [{ hold: "here" }] },
    ], true],
  ];
  for (const [where, startup, isThere] of dying) {
    test(`who dies holding the init lock (${runtime}) ${where}: the next gets it, and the truth`, () =>
      inScene(async (scene) => {
        const [dying, next] = [
          await Member.start(scene, runtime),
          await Member.start(scene, otherThan(runtime)),
        ];
        const request: HookStep[] = [...counter.request ?? [], { space: 64 }];
        dying.send({ do: "open", dir: scene.dir, addins: [{ ...counter, request, startup }] });
        await dying.holds("here");
        next.send({ do: "open", dir: scene.dir, addins: [counter] });
        const registry = scene.open();
        await until(() => [...registry.waits()].length > 0);
        const [wait] = registry.waits();
        assertEquals([wait?.tranche, wait?.pid], ["addin-init", next.pid]);
        await dying.kill();
        const { parts } = well(await next.next());
        assertEquals(parts?.counter, { found: isThere, wasZero: !isThere, value: 6 });
        assertEquals([...registry.waits()], []);
      }));
  }
}

/** Opens in this process, in a registry of its own; the part must be there as a whole, or not. */
function checkPart(scene: Scene, name: string): boolean {
  const addin = defineAddin({
    name: "counter",
    request(ctx) {
      // Not what the dead one has asked for, which may have left its main area behind.
      ctx.requestSpace(10_000);
      ctx.requestTranche("counter", 3);
    },
    startup: (ctx) =>
      ctx.addinInitLock.withSync("exclusive", () => {
        const { found, bytes } = ctx.initStruct("counter", 4096);
        const words = new Int32Array(bytes.buffer, bytes.byteOffset, 1024);
        // Those who found it, and lived, have added to the first.
        assert(words.every((word, i) => i === 0 || word === (found ? 5 : 0)), "half a part");
        if (!found) words.fill(5);
        return found;
      }),
  });
  const registry = scene.open({ addins: [addin] }, name);
  for (const lock of registry.getTranche("counter")) lock.withSync("exclusive", () => {});
  const ids = [...registry.tranches()].map(({ name }) => name).sort();
  assertEquals(ids, ["addin-init", "counter"]);
  const isFound = registry.addin(addin);
  registry.close();
  return isFound;
}

for (const where of ["request", "startup"] as const) {
  test(`killed at each store from the ${where} hook on: whoever comes next finds all of it or nothing`, () =>
    inScene(async (scene) => {
      const found: boolean[] = [];
      for (let n = 1;; n++) {
        const name = `${where} ${n}`;
        const die: HookStep = { dieAtStore: n };
        const addin = where === "request"
          ? { ...counter, request: [die, ...counter.request ?? []] }
          : { ...counter, startup: [die, ...counter.startup ?? []] };
        const member = await Member.start(scene, runtimes[n % 2] ?? "deno");
        member.send({ do: "open", dir: scene.dir, name, addins: [addin] });
        const how = await Promise.race([member.ended, member.next().then(() => "lives", () => "")]);
        if (how === "lives") {
          assertEquals(checkPart(scene, name), true);
          break;
        }
        assertEquals(await member.ended, "SIGKILL");
        found.push(checkPart(scene, name));
      }
      // Deaths before it is published, then perhaps after; never back again.
      assert(found.length >= (where === "request" ? 10 : 3), `only ${found.length} stores`);
      assertEquals(found, [...found].sort());
      assertEquals(found[0], false);
    }));
}

test("killed at random moments while they open, in both runtimes: the next finds all or nothing", () =>
  inScene(async (scene) => {
    const seed = Number(process.env.DSMR_SEED ?? Date.now() % 2 ** 31);
    console.log(`DSMR_SEED=${seed}`);
    const random = randomFrom(seed);
    for (let round = 0; round < 8; round++) {
      const name = `round ${round}`;
      const members = await Promise.all(
        [...runtimes, ...runtimes].map((runtime) => Member.start(scene, runtime)),
      );
      await Promise.all(members.map(async (member, i) => {
        member.send({ do: "open", dir: scene.dir, name, addins: [counter] });
        if (i === 3) return void well(await member.next());
        await new Promise((resolve) => setTimeout(resolve, random() * 30));
        await member.kill();
      }));
      assertEquals(checkPart(scene, name), true);
      await Promise.all(members.map((member) => member.kill()));
    }
  }));

test("a late add-in: open again in the same process, its hooks run then, and no others", () =>
  inScene(async (scene) => {
    const quiet: AddinSpec = {
      name: "quiet",
      request: [{ log: "quiet request" }, { space: 64 }],
      startup: [{ log: "quiet startup" }, { part: "quiet", size: 64, value: 1 }],
    };
    for (const runtime of runtimes) {
      const member = await Member.start(scene, runtime);
      const open = { do: "open", dir: scene.dir, name: runtime } as const;
      well(await member.ask({ ...open, addins: [quiet] }));
      // What it makes without the main area goes on working.
      const late: AddinSpec = {
        name: "late",
        request: [{ log: "late request" }, { space: 64 }],
        startup: [{ log: "late startup" }],
        init: [{ log: "late init" }, { shmem: "late:value", size: 8, value: 3 }],
      };
      const { preloaded } = well(await member.ask({ do: "openMore", addins: [quiet, late] }));
      assertEquals(preloaded, { quiet: true, late: false });
      const value = well(await member.ask({ do: "lookup", shmem: "late:value" }));
      assertEquals([value.size, value.value], [8, 3]);
      const grabbing: AddinSpec = {
        name: "grabbing",
        startup: [{ part: "late", size: 64, value: 1 }],
      };
      const refused = await member.ask({ do: "openMore", addins: [grabbing] });
      assertEquals([refused.ok, refused.code], [false, "INIT_FAILED"]);
      for (
        const text of ['without add-in "grabbing"', `process ${member.pid} (`, '"quiet"', "Destroy"]
      ) assert(refused.cause?.includes(text), refused.cause);
      // The one who failed is not in the way of the rest.
      assertEquals(well(await member.ask({ do: "parts" })).parts?.quiet?.value, 1);
    }
    const each = ["quiet request", "quiet startup", "late startup", "late init"];
    assertEquals(logged(scene), [...each, ...each]);
  }));

test("an add-in that the creator did not have: its hooks run, and it is told what is possible", () =>
  inScene(async (scene) => {
    // A plain backend that came before does not spoil it.
    const plain = scene.open();
    const creator = await Member.start(scene, "bun");
    well(await creator.ask({ do: "open", dir: scene.dir, addins: [counter] }));
    const started: unknown[] = [];
    const foreign = defineAddin({
      name: "foreign",
      request: () => void started.push("request"),
      startup(ctx) {
        const made = `process ${creator.pid} (bun `;
        const say = [
          'without add-in "foreign"',
          made,
          '"counter"',
          "getNamedSegment() and newTranche()",
        ];
        assertEquals(ctx.preloaded, false);
        const init = () =>
          ctx.addinInitLock.withSync("exclusive", () => ctx.initStruct("foreign", 64));
        assertFails(init, "NO_SPACE", ...say);
        assertFails(() => ctx.getTranche("foreign"), "NOT_FOUND", ...say);
        // What others have there is to be had; and the dynamic route is open.
        const part = ctx.addinInitLock.withSync("exclusive", () => ctx.initStruct("counter", 4096));
        assertEquals([part.found, ctx.getTranche("counter").length], [true, 3]);
        const tranche = ctx.registry.newTranche("foreign");
        const segment = ctx.registry.getNamedSegmentSync("foreign", 64, (segment) => {
          segment.initLock(0, tranche);
        });
        assertFails(() => ctx.getTranche("foreign"), "NOT_FOUND", "newTranche() has made", ...say);
        started.push("startup");
        return segment.lockAt(0);
      },
    });
    const registry = scene.open({ addins: [foreign] });
    assertEquals(registry.backendId, plain.backendId);
    assertEquals(started, ["startup"]);
    registry.addin(foreign).withSync("exclusive", () => {});
    assertFails(() => registry.getTranche("foreign"), "NOT_FOUND", "newTranche() has made");
  }));

test("a request that cannot be met: each attempt fails cleanly, in the same process", () =>
  inScene(async (scene) => {
    for (const runtime of runtimes) {
      const member = await Member.start(scene, runtime);
      const open = { do: "open", dir: scene.dir, name: runtime } as const;
      const failing = counterWith([{ throw: "as planned" }]);
      const oversized = counterWith([{ space: 2 ** 43 }]);
      for (let i = 0; i < 2; i++) {
        const failed = await member.ask({ ...open, addins: [failing] });
        assertEquals([failed.ok, failed.code, failed.cause], [false, "INIT_FAILED", "as planned"]);
        const tooLarge = await member.ask({ ...open, addins: [oversized], isAsync: i === 1 });
        assertEquals([tooLarge.ok, tooLarge.code], [false, "NO_SPACE"], JSON.stringify(tooLarge));
        for (const text of ["make the main area of ", "8796093", '"counter"']) {
          assert(tooLarge.message?.includes(text), tooLarge.message);
        }
      }
      assertEquals([...scene.open({}, runtime).tranches()], []);
      const { parts } = well(await member.ask({ ...open, addins: [counter] }));
      assertEquals(parts?.counter, { found: false, wasZero: true, value: 6 });
    }
  }));

test("requested tranches: the same ids and locks in all processes; a dead holder is no obstacle", () =>
  inScene(async (scene) => {
    const [one, two] = [await Member.start(scene, "deno"), await Member.start(scene, "bun")];
    for (const member of [one, two]) {
      well(await member.ask({ do: "open", dir: scene.dir, addins: [counter] }));
    }
    const ask = { do: "tranche", tranche: "counter", lock: 2 } as const;
    const { ids = [], held } = await one.ask({ ...ask, what: "acquire" });
    assertEquals([ids.length, held], [1, true]);
    assertEquals(await two.ask({ ...ask, what: "try" }), { ok: true, count: 3, ids, held: false });
    assertEquals((await two.ask({ ...ask, lock: 1, what: "try" })).held, true);
    await one.kill();
    assertEquals((await two.ask({ ...ask, what: "acquire" })).held, true);
    const lock = scene.open().getTranche("counter")[2];
    assertEquals([lock?.abandoned, lock?.tryAcquire()], [true, false]);
  }));

test("a stopped process in the request hooks: others say so when their time is over", () =>
  inScene(async (scene) => {
    const member = await Member.start(scene, "deno");
    const addins = [counterWith([{ hold: "request" }])];
    member.send({ do: "open", dir: scene.dir, addins });
    await member.holds("request");
    const addin = defineAddin({ name: "counter", startup: (ctx) => ctx.preloaded });
    const options = { dir: scene.dir, addins: [addin], timeout: 10 };
    assertFails(() => scene.open(options), "TIMEOUT", "request hooks", member.pid);
    const late: unknown = await Registry.open("test", options).then(() => "", (error) => error);
    assert(late instanceof DsmrError && late.code === "TIMEOUT", String(late));
    assert(late.message.includes("request hooks"), late.message);
    member.go();
    well(await member.next());
    assertEquals(scene.open(options).addin(addin), true);
  }));
