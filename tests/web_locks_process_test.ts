/** Locks by name among processes and Workers, which are killed, stopped and terminated. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "./_declare.ts";
import { inScene, type Scene, until } from "./_scene.ts";
import { Child, commandLine, isStopped, otherThan, type RuntimeName, runtimes } from "./_spawn.ts";
import type { LocksCommand, RequestCommand } from "./_web_locks_member.ts";
import { hold } from "./_web_locks.ts";

/** A process, or a Worker of one. */
class Member {
  readonly child: Child;
  readonly #number: number;

  constructor(child: Child, number = 0) {
    this.child = child;
    this.#number = number;
  }

  send(command: LocksCommand): void {
    const { child } = this;
    const sent = this.#number === 0 ? command : { worker: this.#number, command };
    child.sendLine(JSON.stringify(sent));
  }

  request(id: number, name: string, options: Partial<RequestCommand> = {}): void {
    this.send({ do: "request", id, name, ...options });
  }

  async says(...expected: string[]): Promise<void> {
    for (const said of expected) assertEquals((await this.child.next(this.#number)).said, said);
  }

  async saysInAnyOrder(...expected: string[]): Promise<void> {
    const said: (string | undefined)[] = [];
    while (said.length < expected.length) said.push((await this.child.next(this.#number)).said);
    assertEquals(said.sort(), expected.sort());
  }

  /** Sends it, and reads what it says. */
  async ask(command: LocksCommand, ...expected: string[]): Promise<void> {
    this.send(command);
    await this.says(...expected);
  }

  /** All that it has asked for is in the table. */
  sync(): Promise<void> {
    return this.ask({ do: "sync" }, "sync");
  }

  async kill(): Promise<void> {
    this.child.kill();
    await this.child.ended;
  }

  worker(number: number): Member {
    this.send({ do: "start", number });
    return new Member(this.child, number);
  }
}

async function start(scene: Scene, runtime: RuntimeName): Promise<Member> {
  const child = scene.adopt(new Child(commandLine(runtime, "_web_locks_member.ts")));
  assertEquals(await child.next(), { pid: child.pid });
  const member = new Member(child);
  await member.ask({ do: "open", dir: scene.dir }, "open");
  return member;
}

for (const runtime of runtimes) {
  const other = otherThan(runtime);

  test(`${runtime} and ${other} processes get a lock in the order in which they asked`, () =>
    inScene(async (scene) => {
      const { locks, backendId } = scene.open();
      const [a, b] = [await start(scene, runtime), await start(scene, other)];
      a.request(1, "x");
      await a.says("granted 1");
      b.request(2, "x", { options: { mode: "shared" } });
      await b.sync();
      const mine = hold(locks, "x", { mode: "shared" });
      const { held, pending } = await locks.query();
      assertEquals([...held, ...pending].map(({ mode }) => mode), [
        "exclusive",
        "shared",
        "shared",
      ]);
      assertEquals(new Set([...held, ...pending].map(({ clientId }) => clientId)).size, 3);
      assertEquals(pending[1]?.clientId, String(backendId));
      a.request(3, "x");
      await a.sync();
      a.send({ do: "end", id: 1 });
      await a.says("done 1");
      await b.says("granted 2");
      await mine.granted;
      b.request(4, "x", { options: { ifAvailable: true, mode: "shared" } });
      await b.says("null 4");
      b.send({ do: "end", id: 4 });
      await b.says("done 4");
      b.send({ do: "end", id: 2 });
      await b.says("done 2");
      await a.ask({ do: "query" }, "held 1 pending 1");
      mine.end();
      await mine.result;
      await a.says("granted 3");
    }));

  test(`a ${runtime} process steals from ${other}, and is aborted in time`, () =>
    inScene(async (scene) => {
      const [a, b] = [await start(scene, runtime), await start(scene, other)];
      b.request(1, "x");
      await b.says("granted 1");
      b.request(2, "x");
      await b.sync();
      a.request(3, "x", { abortable: true });
      await a.sync();
      a.send({ do: "abort", id: 3 });
      await a.says("AbortError 3");
      a.request(4, "x", { options: { steal: true } });
      await a.says("granted 4");
      await b.says("AbortError 1");
      await b.ask({ do: "query" }, "held 1 pending 1");
      a.send({ do: "end", id: 4 });
      await a.says("done 4");
      await b.says("granted 2");
    }));

  test(`a ${runtime} process that is killed holds, and waits for, nothing any more`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      const victims = await Promise.all([runtime, other, runtime].map((r) => start(scene, r)));
      const [holder, waiter, thief] = victims;
      assert(holder !== undefined && waiter !== undefined && thief !== undefined);
      const last = await start(scene, other);
      holder.request(1, "x");
      await holder.says("granted 1");
      waiter.request(2, "x");
      await waiter.sync();
      last.request(3, "x");
      await last.sync();
      await waiter.kill();
      await holder.kill();
      await last.says("granted 3");
      thief.request(4, "x", { options: { steal: true } });
      await thief.says("granted 4");
      await last.says("AbortError 3");
      const mine = hold(locks, "x");
      await locks.query();
      await thief.kill();
      await mine.granted;
      await last.ask({ do: "query" }, "held 1 pending 0");
      mine.end();
      await mine.result;
      // Nobody waits, so nobody has noticed: but what the dead hold is to be had.
      last.request(5, "x");
      await last.says("granted 5");
      await last.kill();
      assertEquals(await locks.request("x", { ifAvailable: true }, (lock) => lock?.name), "x");
    }));

  test(`a stopped ${runtime} process is waited for`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      const [a, b] = [await start(scene, runtime), await start(scene, other)];
      a.request(1, "x");
      await a.says("granted 1");
      b.request(2, "x");
      await b.sync();
      a.child.kill("SIGSTOP");
      // Others go on meanwhile.
      assertEquals(await locks.request("y", () => 1), 1);
      assertEquals(await locks.request("x", { ifAvailable: true }, (lock) => lock), null);
      await b.ask({ do: "query" }, "held 1 pending 1");
      a.child.kill("SIGCONT");
      a.send({ do: "end", id: 1 });
      await a.says("done 1");
      await b.says("granted 2");
    }));

  test(`a ${runtime} process that closes, or ends, lets go`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      const [a, b] = [await start(scene, runtime), await start(scene, runtime)];
      a.request(1, "x");
      await a.says("granted 1");
      b.request(2, "y");
      await b.says("granted 2");
      const all = [hold(locks, "x"), hold(locks, "y")] as const;
      a.request(3, "y");
      await a.sync();
      a.send({ do: "close" });
      await a.says("close", "CLOSED 3", "CLOSED 1");
      await all[0].granted;
      // A lock that is held does not keep the program alive.
      b.send({ do: "finish" });
      assertEquals(await b.child.ended, "exit code 0");
      await all[1].granted;
      for (const held of all) held.end();
      await Promise.all(all.map(({ result }) => result));
    }));

  test(`waiting for a lock keeps a ${runtime} process alive`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      const a = await start(scene, runtime);
      const held = hold(locks, "x");
      await held.granted;
      a.request(1, "x");
      await a.sync();
      a.send({ do: "end", id: 1 });
      a.send({ do: "finish" });
      held.end();
      await held.result;
      await a.says("granted 1", "done 1");
      assertEquals(await a.child.ended, "exit code 0");
    }));

  test(`${runtime} Workers are clients of their own, and may be terminated`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      const host = await start(scene, runtime);
      const both = [host.worker(1), host.worker(2)] as const;
      for (const worker of both) {
        await worker.says("ready");
        await worker.ask({ do: "open", dir: scene.dir }, "open");
      }
      both[0].request(1, "x");
      await both[0].says("granted 1");
      both[1].request(2, "x");
      await both[1].sync();
      host.request(3, "x");
      await host.sync();
      const mine = hold(locks, "x");
      const { held, pending } = await locks.query();
      const clients = [...held, ...pending].map(({ clientId }) => clientId);
      assertEquals([held.length, clients.length, new Set(clients).size], [1, 4, 4]);
      // The one that waits, then the one that holds.
      host.send({ do: "terminate", number: 2 });
      await host.says("terminated");
      host.send({ do: "terminate", number: 1 });
      // Its death is heard of in two ways, and the lock may be the faster one.
      await host.saysInAnyOrder("granted 3", "terminated");
      host.send({ do: "end", id: 3 });
      await host.says("done 3");
      await mine.granted;
      mine.end();
      await mine.result;
      host.child.endInput();
      assertEquals(await host.child.ended, "exit code 0", host.child.printed);
    }));
}

/** What the victim does until it dies; both others wait for "x". */
const deaths: Record<string, { before: LocksCommand[]; last: LocksCommand }> = {
  "while it asks": { before: [], last: { do: "request", id: 1, name: "y" } },
  "while it lets go of what others wait for": {
    before: [{ do: "request", id: 1, name: "x" }],
    last: { do: "end", id: 1 },
  },
  "while it steals": {
    before: [],
    last: { do: "request", id: 1, name: "x", options: { steal: true } },
  },
};

for (const [when, { before, last }] of Object.entries(deaths)) {
  test(`a process killed at every store ${when} leaves all others working`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      let store = 1;
      for (let hasDied = true; hasDied; store++) {
        const victim = await start(scene, runtimes[store % 2] ?? "bun");
        const isFirst = before.length > 0;
        const first = isFirst ? undefined : hold(locks, "x");
        for (const command of before) await victim.ask(command, "granted 1");
        await victim.sync();
        const readers = [1, 2].map(() => hold(locks, "x", { mode: "shared" }));
        const writer = hold(locks, "x");
        await locks.query();
        victim.send({ do: "die", store, signal: "SIGKILL" });
        victim.send(last);
        // It may be robbed.
        first?.result.catch(() => {});
        // It lives: it has not come to so many stores.
        const outcome = await Promise.race([
          victim.child.ended,
          victim.child.next().then(({ said }) => said, () => victim.child.ended),
        ]);
        hasDied = outcome === "SIGKILL";
        await victim.kill();
        first?.end();
        await Promise.all(readers.map((held) => held.granted));
        assertEquals((await locks.query()).pending.map(({ mode }) => mode), ["exclusive"]);
        for (const held of readers) held.end();
        await writer.granted;
        writer.end();
        await Promise.all([...readers, writer].map((held) => held.result));
        assertEquals(await locks.query(), { held: [], pending: [] }, `store ${store}`);
        assertEquals(await locks.request("y", { ifAvailable: true }, (lock) => lock?.name), "y");
      }
      console.log(`killed at ${store - 2} stores`);
      assert(store > 5, `only ${store} stores`);
    }));
}

test("a process killed at every store while the table grows leaves all others working", async () => {
  let store = 1;
  for (let hasDied = true; hasDied; store++) {
    await inScene(async (scene) => {
      const { locks } = scene.open();
      // All rows but one.
      const all = Array.from({ length: 1023 }, (_, i) => hold(locks, `mine ${i}`));
      await Promise.all(all.map((held) => held.granted));
      const victim = await start(scene, runtimes[store % 2] ?? "bun");
      victim.send({ do: "die", store, signal: "SIGKILL" });
      victim.request(1, "a");
      victim.request(2, "b");
      const both = victim.says("granted 1", "granted 2").then(() => "granted", () => "dead");
      hasDied = await both === "dead";
      await victim.kill();
      for (const name of ["a", "b", "c", "d"]) all.push(hold(locks, name));
      await Promise.all(all.map((held) => held.granted));
      assertEquals((await locks.query()).held.length, 1027);
      for (const held of all) held.end();
      await Promise.all(all.map((held) => held.result));
    });
  }
  console.log(`killed at ${store - 2} stores`);
});

test("several processes make the table grow at the same time", () =>
  inScene(async (scene) => {
    const { locks } = scene.open();
    const members = await Promise.all(
      ["bun", "deno", "bun"].map((runtime) => start(scene, runtime as RuntimeName)),
    );
    for (let round = 0; round < 3; round++) {
      for (const member of members) member.send({ do: "many", count: 3000 });
      for (const member of members) await member.says("many");
      assertEquals(await locks.query(), { held: [], pending: [] });
    }
  }));

for (const runtime of runtimes) {
  test(`a ${runtime} process stopped in the midst of a change blocks no event loop`, () =>
    inScene(async (scene) => {
      const { locks } = scene.open();
      const [stopped, other] = [
        await start(scene, runtime),
        await start(scene, otherThan(runtime)),
      ];
      for (const member of [stopped, other]) await member.sync();
      const asks = stopped.says("granted 1");
      stopped.send({ do: "die", store: 6, signal: "SIGSTOP" });
      stopped.request(1, "x");
      await until(() => isStopped(stopped.child.pid));
      other.request(2, "x");
      const mine = hold(locks, "y");
      let hasGranted = false;
      mine.granted.then(() => hasGranted = true);
      // The loop turns, and nothing is granted.
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setTimeout(resolve));
      assertEquals(hasGranted, false);
      stopped.child.kill("SIGCONT");
      await Promise.all([asks, mine.granted]);
      stopped.send({ do: "end", id: 1 });
      await stopped.says("done 1");
      await other.says("granted 2");
      mine.end();
      await mine.result;
    }));
}

const STORM_MS = Number(process.env["DSMR_STORM_MS"] ?? 4000);

test("processes request at random, and are killed: nobody is ever where another is alone", () =>
  inScene(async (scene) => {
    const seed = Number(process.env["DSMR_SEED"] ?? Date.now() % 1_000_000);
    console.log(`storm: DSMR_SEED=${seed}`);
    const { locks } = scene.open();
    let total = 0;
    let kills = 0;
    const end = performance.now() + STORM_MS;
    const party = async (number: number): Promise<void> => {
      // However long a start takes: the first is killed, and the last is not.
      for (let round = 0, isVictim = true; isVictim; round++) {
        const member = await start(scene, runtimes[(number + round) % 2] ?? "deno");
        const milliseconds = Math.max(end - performance.now(), 100);
        member.send({ do: "storm", seed: seed + number * 100 + round, milliseconds });
        isVictim = round === 0 || performance.now() + 500 < end;
        if (isVictim) {
          await new Promise((resolve) => setTimeout(resolve, 100 + (seed * (round + 7)) % 300));
          member.child.kill();
        }
        const said = await member.child.next().then((report) => report.said ?? "", String);
        assert(!said.includes("VIOLATION"), said);
        if (isVictim) kills++;
        else total += Number(/^storm (\d+)$/.exec(said)?.[1] ?? NaN);
        await member.kill();
      }
    };
    await Promise.all([0, 1, 2].map(party));
    console.log(`${kills} kills, and ${total} locks held by the survivors`);
    assert(total > 0 && kills > 0);
    await until(() => [...scene.open().backends()].length === 1);
    assertEquals(await locks.query(), { held: [], pending: [] });
  }));
