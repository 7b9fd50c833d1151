/** The examples that are about several processes, as they are: started, and looked at. */

import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { test } from "node:test";
import { inScene, type Scene, until } from "./_scene.ts";
import { Child, commandLine, type RuntimeName, runtimes } from "./_spawn.ts";

const NAME = "example";

/** Starts an example of the folder, on a registry in the scene's directory. */
function start(
  scene: Scene,
  runtime: RuntimeName,
  example: string,
  args: string[],
  flags: string[] = [],
): Child {
  const command = commandLine(runtime, `../examples/${example}`, ["-A", ...flags])
    .filter((part) => part !== "--quiet");
  return scene.adopt(new Child([...command, ...args], { DSMR_DIR: scene.dir }));
}

/** Resolves when it has printed the text; it must not end before. */
async function prints(child: Child, text: string | RegExp): Promise<void> {
  let ended: string | undefined;
  void child.whenEnded.then((how) => ended = how);
  const has = () =>
    typeof text === "string" ? child.printed.includes(text) : text.test(child.printed);
  await until(() => has() || ended !== undefined);
  assert(has(), `It ended with ${ended}, without ${text}:\n${child.printed}`);
}

/** Whether it has migrated itself, and when that was done, as it says. */
function migration(child: Child): { itself: boolean; at: string } {
  const [, pid, what, at = ""] =
    /^(\d+): (has migrated|found it migrated), at (\S+)$/m.exec(child.printed) ?? [];
  assertEquals(Number(pid), child.pid, child.printed);
  return { itself: what === "has migrated", at };
}

/** The steps of the migration that it has done. */
function steps(child: Child): number {
  return child.printed.match(/: (create tables|copy rows|build indexes)$/gm)?.length ?? 0;
}

async function endWell(children: Child[]): Promise<void> {
  for (const child of children) assertEquals(await child.ended, "exit code 0", child.printed);
}

test("migrate_once: of several processes of both runtimes, exactly one migrates", () =>
  inScene(async (scene) => {
    const startAll = () =>
      [...runtimes, ...runtimes, ...runtimes]
        .map((runtime) => start(scene, runtime, "migrate_once.ts", [NAME]));
    const children = startAll();
    await endWell(children);
    const all = children.map(migration);
    assertEquals(all.filter(({ itself }) => itself).length, 1);
    assertEquals(new Set(all.map(({ at }) => at)).size, 1);
    assertEquals(children.map(steps).sort(), [0, 0, 0, 0, 0, 3]);
    // And never again.
    const late = startAll().slice(0, 6);
    await endWell(late);
    assertEquals(
      new Set(late.map((child) => JSON.stringify(migration(child)))),
      new Set([
        JSON.stringify({ itself: false, at: all[0]?.at }),
      ]),
    );
  }));

for (const runtime of runtimes) {
  test(`migrate_once: a ${runtime} process is killed at it, another takes over`, () =>
    inScene(async (scene) => {
      const victim = start(scene, runtime, "migrate_once.ts", [NAME]);
      await prints(victim, "copy rows");
      // So early that nobody can have gone on; they wait, or come later.
      const heirs = runtimes.map((runtime) => start(scene, runtime, "migrate_once.ts", [NAME]));
      victim.kill();
      assertEquals(await victim.ended, "SIGKILL");
      await endWell(heirs);
      assertEquals(heirs.map((child) => migration(child).itself).sort(), [false, true]);
      assertEquals(heirs.map(steps).sort(), [0, 3]);
    }));
}

test("leader: one leads; when it is killed, or resigns, the next one does", () =>
  inScene(async (scene) => {
    const leads = (child: Child) => child.printed.includes(`${child.pid}: leads`);
    let waiting = runtimes.map((runtime) => start(scene, runtime, "leader.ts", [NAME]));
    for (const how of ["SIGKILL", "SIGINT", "SIGKILL", "SIGINT"] as const) {
      for (const child of waiting) await prints(child, `${child.pid}: waits`);
      await until(() => waiting.some(leads));
      const [leader, ...others] = waiting.filter(leads);
      assert(leader !== undefined);
      assertEquals(others, []);
      process.kill(leader.pid, how);
      const ended = await leader.ended;
      if (how === "SIGKILL") assertEquals(ended, "SIGKILL");
      else {
        assertEquals(ended, "exit code 0", leader.printed);
        assert(leader.printed.includes(`${leader.pid}: has resigned`), leader.printed);
      }
      // The one that has waited leads; the new one, of the runtime that has ended, waits.
      const [heir] = waiting.filter((child) => child !== leader);
      assert(heir !== undefined);
      await prints(heir, `${heir.pid}: leads`);
      const runtime = leader.name.includes("/deno run") ? "deno" : "bun";
      waiting = [heir, start(scene, runtime, "leader.ts", [NAME])];
    }
  }));

/** Starts a server of the example, by default on a free port; resolves with its address. */
async function serve(
  scene: Scene,
  runtime: RuntimeName,
  wanted: string = "0",
): Promise<{ url: string; port: string; child: Child }> {
  const flags = runtime === "deno" ? ["--unstable-net"] : [];
  const child = start(scene, runtime, `limited_server_${runtime}.ts`, [wanted, NAME], flags);
  const listening = /Listening on http:\/\/\S+:([1-9]\d*)/;
  await prints(child, listening);
  const port = listening.exec(child.printed)?.[1] ?? "";
  return { url: `http://127.0.0.1:${port}/`, port, child };
}

/** What one request, by a connection of its own, is answered. */
async function request(url: string): Promise<string> {
  const response = await fetch(url, { headers: { connection: "close" } });
  return await response.text();
}

for (const [first, second] of [["deno", "bun"], ["bun", "deno"]] as const) {
  test(`limited_server: ${second} joins ${first} on its port, and both answer`, () =>
    inScene(async (scene) => {
      if (process.platform !== "linux") {
        console.log("not tested: only Linux shares out what comes to one port among processes");
        return;
      }
      const { url, port, child } = await serve(scene, first);
      const joined = await serve(scene, second, port);
      assertEquals(joined.port, port);
      const seen = new Set<string>();
      const pids = [child, joined.child].map(({ pid }) => `Hello from ${pid}.\n`);
      // Each is a connection of its own, which the system gives to either.
      for (let left = 10_000; left > 0 && !pids.every((text) => seen.has(text)); left--) {
        seen.add(await request(url));
      }
      seen.delete("Too many requests.\n");
      assertEquals([...seen].sort(), pids.sort());
    }));
}

test("limited_server: Deno and Bun let 100 requests a second through, both together", () =>
  inScene(async (scene) => {
    const servers = await Promise.all(runtimes.map((runtime) => serve(scene, runtime)));
    const count = 300;
    const begin = performance.now();
    const answers = await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const { url, child } = servers[i % 2] ?? {};
        const response = await fetch(url ?? "");
        return { status: response.status, text: await response.text(), pid: child?.pid };
      }),
    );
    const seconds = (performance.now() - begin) / 1000;
    const allowed = answers.filter(({ status }) => status === 200);
    for (const { text, pid } of allowed) assertEquals(text, `Hello from ${pid}.\n`);
    for (const { status, text } of answers) {
      if (status !== 200) assertEquals([status, text], [429, "Too many requests.\n"]);
    }
    // Their clocks and ours may differ a little.
    const most = 100 + 100 * seconds + 10;
    assert(
      allowed.length >= 100 && allowed.length <= most,
      `${allowed.length} of ${count} were let through, within ${seconds} s.`,
    );
  }));
