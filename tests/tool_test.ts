/** The command-line tool as people and programs use it: as a process, in both runtimes. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { spawnSync } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { i32, Registry, struct, text, u64 } from "../lib/mod.ts";
import { commands } from "../tool/cli.ts";
import { VERSION } from "../tool/version.ts";
import { inBackground, isRunning } from "./_background.ts";
import { test } from "./_declare.ts";
import { inScene, until } from "./_scene.ts";
import { commandLine, otherThan, runtimes } from "./_spawn.ts";
import {
  contended,
  hasTerminals,
  RunningTool,
  startOnTerminal,
  startTool,
  tool,
  toolJson,
} from "./_tool.ts";

const ESCAPE = "\u001b";

for (const runtime of runtimes) {
  test(`${runtime}: ls lists registries, and tells of a damaged one by its exit code`, () =>
    inScene(async (scene) => {
      const place = ["--dir", scene.dir];
      const empty = await tool(runtime, ["ls", ...place]);
      assertEquals([empty.code, empty.err], [0, ""]);
      assertMatch(empty.out, /There are no registries/);

      const registry = scene.open({ maxBackends: 8, maxSegments: 16 });
      registry.getNamedSegmentSync("jobs", 100_000);
      const listed = await tool(runtime, ["ls", ...place]);
      assertEquals([listed.code, listed.err], [0, ""]);
      assertMatch(listed.out, /^REGISTRY +SIZE +BACKENDS +SEGMENTS +UP +STATE\n/);
      assertMatch(listed.out, /\ntest +\d+ KiB +1 of 8 +1 of 16 +.+ +ok\n$/);
      assert(!listed.out.includes(ESCAPE), "a pipe has no colours");

      writeFileSync(join(scene.dir, "dsmr.r.bad"), "no registry");
      const bad = await tool(runtime, ["ls", ...place]);
      assertEquals(bad.code, 1);
      assertMatch(bad.out, /\nbad .* CORRUPT\n/);
      assertMatch(bad.err, /dsmr rm/);
      const { code, value } = await toolJson<{ name: string; segmentBytes: number }[]>(
        runtime,
        ["ls", ...place],
      );
      assertEquals([code, value.map(({ name }) => name)], [1, ["bad", "test"]]);
      assertEquals(value[1]?.segmentBytes, 100_128);
      assertEquals((await tool(runtime, ["ls", "--names", ...place])).out, "bad\ntest\n");
    }));

  test(`${runtime}: show says who holds what and who waits, and what else there is`, () =>
    inScene(async (scene) => {
      const { registry, holder, waiter } = await contended(scene);
      registry.newTranche("queue");
      scene.open({ database: "tenant" }).getNamedSegmentSync("cart", 64, undefined, {
        scope: "database",
      });
      registry.registerBackgroundWorker({ name: "saver", module: "data:text/javascript," });
      const { code, out, err } = await tool(runtime, ["show", "test", "--dir", scene.dir]);
      assertEquals([code, err], [0, ""]);
      assertMatch(out, /^test in .*: 2 segments, 5 backends, 1 wait\n/);
      assertMatch(out, new RegExp(` ${holder.pid} +deno .* +jobs \\(exclusive\\) +-\n`));
      assertMatch(out, new RegExp(` ${waiter.pid} +bun .* - +jobs \\(shared for .*\\)\n`));
      assertMatch(out, /\(this tool\)/);
      assertMatch(out, /\n {2}cart +database tenant +64 B/);
      assertMatch(out, /\n {2}queue +\d+ +0 /);
      assertMatch(out, /\n {2}tenant +\d+ +1 +1 /);
      assertMatch(out, /\n {2}saver +saver +- +not-yet-started/);

      type Shown = {
        registry: { name: string };
        backendId: number;
        backends: { id: number; pid: number; held: { segment: string }[] }[];
        waits: { pid: number; holders: number[] }[];
        segments: { name: string }[];
        workers: { name: string }[];
        problems: unknown[];
      };
      const { value } = await toolJson<Shown>(runtime, ["show", "test", "--dir", scene.dir]);
      assertEquals(value.registry.name, "test");
      assertEquals(value.segments.map(({ name }) => name), ["cart", "jobs"]);
      const held = value.backends.find(({ pid }) => pid === holder.pid);
      assertEquals(held?.held.map(({ segment }) => segment), ["jobs"]);
      assertEquals(value.waits.map(({ pid, holders }) => [pid, holders]), [[
        waiter.pid,
        [held?.id],
      ]]);
      assertEquals(value.workers.map(({ name }) => name), ["saver"]);
      assertEquals(value.problems, []);
      assert(value.backends.some(({ id }) => id === value.backendId));
      // It has gone again.
      assertEquals([...registry.backends()].length, 4);
    }));

  test(`${runtime}: top prints lines where there is no terminal, and ends when told to`, () =>
    inScene(async (scene) => {
      const { holder, waiter, registry } = await contended(scene);
      const args = ["top", "test", "--dir", scene.dir, "--interval", "0.1"];
      const { code, out } = await tool(runtime, [...args, "--count", "2"]);
      const heads = out.match(/^\d{4}-\S+Z test: 3 backends, 1 segment, 1 held, 1 waiting, /gm);
      assertEquals([code, heads?.length], [0, 2], out);
      const who = `held by ${holder.pid} exclusive; waited for by ${waiter.pid} shared for `;
      assert(out.includes(`\n  lock jobs: ${who}`), out);
      assert(!out.includes(ESCAPE), "no control sequences");

      const lines = startTool(runtime, [...args, "--json"]);
      await lines.says(/\n.*\n/);
      const [first = ""] = lines.out.split("\n");
      const sample = JSON.parse(first) as { held: number; locks: { holders: { pid: number }[] }[] };
      assertEquals(sample.held, 1);
      assertEquals(sample.locks[0]?.holders[0]?.pid, holder.pid);
      lines.kill("SIGTERM");
      assertEquals(await lines.ended, 0, lines.err);
      await until(() => [...registry.backends()].length === 3);
    }));

  test(`${runtime}: top ends with a message when its registry is destroyed, and when nobody reads`, () =>
    inScene(async (scene) => {
      scene.open();
      const args = ["top", "test", "--dir", scene.dir, "--interval", "0.1"];
      const unread = startTool(runtime, args);
      await unread.says(/\n/);
      unread.stopReading();
      assertEquals(await unread.ended, 0, unread.err);
      const watching = startTool(runtime, args);
      await watching.says(/\n/);
      Registry.destroy("test", { dir: scene.dir });
      assertEquals(await watching.ended, 1);
      assertMatch(watching.err, /Registry test was destroyed\.\n$/);
    }));

  test(`${runtime}: on a terminal top draws in place, sorts by keys and quits; NO_COLOR holds`, async () => {
    if (!hasTerminals()) {
      return console.log("skipped: top on a terminal: script of util-linux is not installed");
    }
    await inScene(async (scene) => {
      await contended(scene);
      const args = ["top", "test", "--dir", scene.dir];
      for (const env of [{}, { NO_COLOR: "1" }]) {
        const live = startOnTerminal(runtime, args, env);
        await live.says(/sorted by waits\/s/);
        live.type("n");
        await live.says(/sorted by name/);
        live.type("q");
        assertEquals(await live.ended, 0, live.out);
        assert(
          live.out.includes(`${ESCAPE}[?1049h`) && live.out.includes(`${ESCAPE}[?1049l`),
          "screen",
        );
        assert(live.out.includes(`${ESCAPE}[?25h`), "the cursor is back");
        assertEquals(live.out.includes(`${ESCAPE}[1m`), !("NO_COLOR" in env), "colours");
      }
    });
  });

  test(`${runtime}: looking on makes no database`, () =>
    inScene(async (scene) => {
      const registry = scene.open({ database: "tenant" });
      registry.getNamedSegmentSync("jobs", 64);
      const place = ["test", "--dir", scene.dir];
      for (const args of [["show"], ["top", "--count", "1"], ["show", "--database", "b"]]) {
        const [command = "", ...more] = args;
        const { code, err } = await tool(runtime, [command, ...place, ...more]);
        assertEquals([code, err], [0, ""]);
      }
      assertEquals((await tool(runtime, ["dump", ...place, "jobs"])).code, 0);
      const missing = await tool(runtime, ["dump", ...place, "jobs", "--scope", "database"]);
      assertEquals(missing.code, 1);
      assertMatch(missing.err, /no database segment "jobs"/);
      assertEquals([...registry.databases()].map(({ name }) => name), ["tenant"]);
    }));

  test(`${runtime}: dump prints bytes, and the fields of a layout`, () =>
    inScene(async (scene) => {
      const registry = scene.open({ database: "tenant" });
      const layout = struct({ visits: i32, total: u64, name: text(12) });
      registry.getNamedSegmentSync("page", 96, (segment) => {
        Object.assign(layout.view(segment), { visits: -4, total: 2n ** 60n, name: "start" });
      }, { layout });
      registry.getNamedSegmentSync("cart", 40, (segment) => {
        new Uint8Array(segment.buffer).fill(0x41);
      }, { scope: "database" });
      const place = ["--dir", scene.dir];
      const page = await tool(runtime, ["dump", "test", "page", ...place]);
      assertEquals([page.code, page.err], [0, ""]);
      assertMatch(page.out, /^page: 96 B, layout [0-9a-f]{16}\n/);
      assertMatch(page.out, /\n\+0 +visits +i32 +-4\n\+8 +total +u64 +1152921504606846976\n/);
      assertMatch(page.out, /\n\+16 +name +text\(12\) +start\n/);
      assertMatch(
        page.out,
        /\n00000000 {2}fc ff ff ff .*\n00000010 {2}73 74 61 72 74 .*\|start\.+\|\n/,
      );
      assertMatch(page.out, /\n\*\n00000060\n$/);
      type Dumped = { hex: string; fields: { name: string; value: unknown }[] };
      const range = ["--offset", "0x10", "--length", "5"];
      const { value } = await toolJson<Dumped>(runtime, [
        "dump",
        "test",
        "page",
        ...range,
        ...place,
      ]);
      assertEquals(value.hex, "7374617274");
      assertEquals(value.fields.map(({ value }) => value), [-4, String(2n ** 60n), "start"]);

      const own = ["--scope", "database", "--database", "tenant", ...place];
      const cart = await tool(runtime, ["dump", "test", "cart", ...own]);
      assertMatch(cart.out, /\n00000000 {2}(41 ){7}41 {2}(41 ){7}41 {2}\|A{16}\|\n\*\n/);
      const none = await tool(runtime, ["dump", "test", "cart", ...place]);
      assertEquals([none.code, none.out], [1, ""]);
      assertMatch(none.err, /There is no global segment "cart".*--scope database/);
      const far = await tool(runtime, ["dump", "test", "page", "--offset", "97", ...place]);
      assertEquals(far.code, 2);
    }));

  test(`${runtime}: rm wants a yes, and removes`, () =>
    inScene(async (scene) => {
      const args = ["rm", "test", "--dir", scene.dir];
      scene.open().getNamedSegmentSync("a", 64);
      const unasked = await tool(runtime, args);
      assertEquals(unasked.code, 2);
      assertMatch(unasked.err, /--yes/);
      if (hasTerminals()) {
        const asked = startOnTerminal(runtime, args);
        await asked.says(/1 segment, 1 backend attached.*\[y\/N\]/);
        asked.type("no\n");
        assertEquals(await asked.ended, 1, asked.out);
        assertEquals(scene.files().length, 2);
        const sure = startOnTerminal(runtime, args);
        await sure.says(/\[y\/N\]/);
        sure.type("y\n");
        assertEquals(await sure.ended, 0, sure.out);
      } else {
        console.log("skipped: rm that asks: script of util-linux is not installed");
        assertEquals((await tool(runtime, [...args, "--yes"])).code, 0);
      }
      assertEquals(scene.files(), []);
      const { code, value } = await toolJson(runtime, [...args, "--yes"]);
      assertEquals([code, value], [1, { registry: "test", removed: false }]);
    }));

  test(`${runtime}: doctor finds this machine in order, and says what is not`, () =>
    inScene(async (scene) => {
      type Examined = { ok: boolean; findings: { name: string; status: string; advice: string }[] };
      const place = ["--dir", scene.dir];
      const { code, value } = await toolJson<Examined>(runtime, ["doctor", ...place]);
      assertEquals([code, value.ok], [0, true], JSON.stringify(value));
      const { out } = await tool(runtime, ["doctor", ...place]);
      for (const { name } of value.findings) assert(out.includes(name), name);
      assertEquals(scene.files(), [], "it leaves nothing");

      writeFileSync(join(scene.dir, "dsmr.r.bad"), "no registry");
      writeFileSync(join(scene.dir, `dsmr.s.gone.${"0".repeat(16)}.${"1".repeat(16)}`), "x");
      const warned = await toolJson<Examined>(runtime, ["doctor", ...place]);
      const warnings = warned.value.findings.filter(({ status }) => status === "warn");
      assertEquals(warnings.map(({ name }) => name).slice(-2), ["registries", "left over"]);
      assert(warnings.at(-1)?.advice.includes("dsmr gc"), warnings.at(-1)?.advice);

      const nowhere = await tool(runtime, ["doctor", "--dir", join(scene.dir, "nowhere")]);
      assertEquals(nowhere.code, 1);
      assertMatch(nowhere.out, /fail +directory +.*ENOENT\n +-> Create it/);
      const missing = { DSMR_LIBRARY: join(scene.dir, "no.so") };
      const unloaded = await tool(runtime, ["doctor"], missing);
      assertEquals(unloaded.code, 1);
    }));

  test(`${runtime}: supervise runs the workers until it is told to end`, () =>
    inBackground({ supervise: false }, async (scene) => {
      const worker = scene.register({
        name: "w",

        runtime: otherThan(runtime),
      });
      const supervisor = startTool(runtime, ["supervise", "test", "--dir", scene.dir]);
      await supervisor.says(/sees to the workers of test/);
      await worker.waitForReady({ timeout: 60_000 });
      const { pid } = worker;
      assert(pid !== null && isRunning(pid));
      type Shown = { workers: { name: string; state: string; pid: number; runtime: string }[] };
      const { value } = await toolJson<Shown>(runtime, ["show", "test", "--dir", scene.dir]);
      const [shown] = value.workers;
      assertEquals(
        [shown?.name, shown?.state, shown?.pid, shown?.runtime],
        ["w", "ready", pid, otherThan(runtime)],
      );
      supervisor.kill("SIGTERM");
      assertEquals(await supervisor.ended, 0, supervisor.err);
      assertMatch(supervisor.out, /Ended;/);
      assert(!isRunning(pid), "it has waited for its worker");

      const again = startTool(runtime, ["supervise", "test", "--json", "--dir", scene.dir]);
      await again.says(/"event":"supervising"/);
      await worker.waitForReady({ timeout: 60_000 });
      Registry.destroy("test", { dir: scene.dir });
      assertEquals(await again.ended, 1, again.err);
      assertMatch(again.out, /"event":"destroyed"/);
    }));

  test(`${runtime}: bench measures, and leaves nothing`, () =>
    inScene(async (scene) => {
      type Measured = { results: { name: string; nanoseconds: number; ratio: number }[] };
      const args = ["bench", "--milliseconds", "1", "--dir", scene.dir];
      const { code, value } = await toolJson<Measured>(runtime, args);
      assertEquals(code, 0);
      assertEquals(
        value.results.map(({ name }) => name),
        ["atomic", "exclusive", "shared", "known", "attach", "open"],
      );
      for (const { nanoseconds, ratio } of value.results) assert(nanoseconds > 0 && ratio > 0);
      assertMatch(
        (await tool(runtime, args)).out,
        /acquire and release, exclusive +[\d.]+ ns +[\d.]+ x\n/,
      );
      assertEquals(scene.files(), []);
    }));

  test(`${runtime}: a wrong command line is refused with exit code 2, and says why`, async () => {
    const wrong: [string[], RegExp][] = [
      [[], /Usage: dsmr COMMAND/],
      [["shwo"], /no command "shwo"\. Did you mean show\?/],
      [["qqqqqqq"], /See dsmr --help/],
      [["--dir", "/x", "ls"], /The command comes first/],
      [["ls", "--frob"], /Unknown option '--frob'\. See dsmr ls --help\./],
      [["ls", "extra"], /"extra" is too much/],
      [["show"], /REGISTRY is missing\. Usage: dsmr show REGISTRY/],
      [["top", "x", "--interval", "soon"], /--interval is "soon".*from 0\.1 to 3600/],
      [["completion", "csh"], /bash, zsh or fish/],
      [["ls", "--dir"], /--dir/],
    ];
    for (const [args, pattern] of wrong) {
      const { code, out, err } = await tool(runtime, args);
      assertEquals([code, out], [2, ""], `${args}: ${err}`);
      assertMatch(err, pattern);
      assert(!err.includes("    at "), "no stack");
    }
    const { code, value } = await toolJson<{ error: { code: string } }>(runtime, ["ls", "--frob"]);
    assertEquals([code, value.error.code], [2, "USAGE"]);
  });

  test(`${runtime}: what is damaged or not there is said in a sentence, with exit code 1`, () =>
    inScene(async (scene) => {
      const place = ["--dir", scene.dir];
      scene.open().close();
      truncateSync(join(scene.dir, "dsmr.r.test"), 100);
      for (const command of ["show", "top", "supervise"]) {
        const { code, err } = await tool(runtime, [command, "test", ...place]);
        assertEquals(code, 1, err);
        assertMatch(err, /^dsmr: Refused .*\n$/);
      }
      const { code, value } = await toolJson<{ error: { code: string } }>(
        runtime,
        ["show", "nope", ...place],
      );
      assertEquals([code, value.error.code], [1, "NOT_FOUND"]);
      const { err } = await tool(runtime, ["top", "nope", ...place]);
      assertEquals(
        err,
        `dsmr: There is no registry "nope" in ${scene.dir}. See dsmr ls, or name another ` +
          "directory with --dir.\n",
      );
      assertEquals((await tool(runtime, ["rm", "test", "--yes", ...place])).code, 0);
      assertEquals(scene.files(), []);
    }));

  test(`${runtime}: an output that cannot be written to is said in a sentence, with exit code 1`, async () => {
    const words = commandLine(runtime, "../tool/main.ts");
    const full = new RunningTool(
      ["sh", "-c", 'exec "$@" >/dev/full', "sh", ...words, "--help"],
      {},
    );
    assertEquals(await full.ended, 1);
    assertMatch(full.err, /^dsmr: .*no space left on device.*\n$/i);
  });

  test(`${runtime}: names cannot command the terminal`, () =>
    inScene(async (scene) => {
      const hostile = `evil${ESCAPE}[2J\u009b31m\u202e\n`;
      scene.open({}, hostile).getNamedSegmentSync(`seg${ESCAPE}]0;x\u0007`, 64);
      for (const args of [["ls"], ["show", hostile], ["top", hostile, "--count", "1"]]) {
        for (const json of [[], ["--json"]]) {
          const { code, out } = await tool(runtime, [...args, ...json, "--dir", scene.dir]);
          assertEquals(code, 0, out);
          // deno-lint-ignore no-control-regex
          assert(!/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/.test(out), JSON.stringify(out));
          assert(out.includes("evil"), out);
        }
      }
      assertMatch((await tool(runtime, ["ls", "--dir", scene.dir])).out, /evil\\u\{1b\}\[2J/);
    }));

  test(`${runtime}: every command explains itself; completion scripts parse`, async () => {
    const overview = await tool(runtime, ["--help"]);
    assertEquals([overview.code, overview.err], [0, ""]);
    for (const words of [["help"], ["help", "--help"]]) {
      assertEquals(await tool(runtime, words), overview);
    }
    for (const { name, options } of commands) {
      assertMatch(overview.out, new RegExp(`\n {2}${name} `));
      const { code, out, err } = await tool(runtime, [name, "--help"]);
      assertEquals([code, err], [0, ""], name);
      assertMatch(out, /^dsmr .*\n\nUsage: dsmr .*\n\n[^]*\nOptions:\n[^]*\nExamples:\n/);
      for (const option of [...Object.keys(options), "json", "dir"]) {
        assert(out.includes(`--${option}`), `${name} does not explain --${option}`);
      }
      assert(out.split("\n").every((line) => line.length <= 110), name);
    }
    assertEquals((await tool(runtime, ["--version"])).out, `dsmr ${VERSION}\n`);

    for (const [shell, ...flags] of [["bash", "-n"], ["zsh", "-n"], ["fish", "--no-execute"]]) {
      const { code, out } = await tool(runtime, ["completion", shell ?? ""]);
      assertEquals(code, 0);
      for (const { name } of commands) assert(out.includes(name), `${shell}: ${name}`);
      const check = spawnSync(shell ?? "", flags, { input: out, encoding: "utf8" });
      if (check.error !== undefined) {
        console.log(`skipped: does the completion for ${shell} parse: ${shell} is not installed`);
      } else assertEquals([check.status, check.stderr], [0, ""], shell);
    }
    const { out } = await tool(runtime, ["completion", "bash"]);
    const completed = (words: string): string => {
      const count = words.split(" ").length - 1;
      const script =
        `${out}\nCOMP_WORDS=(${words}); COMP_CWORD=${count}; _dsmr; echo "\${COMPREPLY[@]}"`;
      return spawnSync("bash", ["-c", script], { encoding: "utf8" }).stdout.trim();
    };
    assertEquals(completed("dsmr sh"), "show");
    assertEquals(completed("dsmr gc --f"), "--force");
    assertEquals(completed("dsmr completion z"), "zsh");
    // Nothing that a registry is called is run, and what is completed means the name.
    const names = ["$(echo run >&2)", "`echo run >&2`", "two words"];
    const script =
      `${out}\ndsmr() { printf '%s\\n' "$@"; }; _dsmr_registries() { dsmr "\${all[@]}"; }
all=("$@"); COMP_WORDS=(dsmr top ""); COMP_CWORD=2; _dsmr; eval "dsmr \${COMPREPLY[*]}"`;
    const listed = spawnSync("bash", ["-c", script, "bash", ...names], { encoding: "utf8" });
    assertEquals([listed.stdout, listed.stderr], [names.join("\n") + "\n", ""]);
  });
}
