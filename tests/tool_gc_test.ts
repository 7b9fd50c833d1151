/** `dsmr gc` removes what nobody needs, and nothing that lives. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  renameSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Registry } from "../lib/mod.ts";
import { findLeftovers, removeLeftover } from "../tool/leftovers.ts";
import { test } from "./_declare.ts";
import { inScene, type Scene } from "./_scene.ts";
import { Child, commandLine, runtimes } from "./_spawn.ts";
import { tool, toolJson } from "./_tool.ts";

type Collected = { force: boolean; files: { name: string; fate: string; why: string }[] };

const control = (scene: Scene, name: string): string => join(scene.dir, `dsmr.r.${name}`);

/** Makes a registry with a segment, and leaves it. */
function leave(scene: Scene, name: string): string[] {
  const before = new Set(scene.files());
  const registry = Registry.openSync(name, { dir: scene.dir, maxBackends: 4, maxSegments: 4 });
  registry.getNamedSegmentSync("a", 64);
  registry.close();
  return scene.files().filter((file) => !before.has(file) && file.startsWith("dsmr.s."));
}

function found(scene: Scene): [string, boolean][] {
  return findLeftovers(scene.dir, process.getuid?.())
    .map(({ name, isOrphan }) => [name, isOrphan]);
}

for (const runtime of runtimes) {
  test(`${runtime}: gc shows what it would remove, and removes it when told to`, () =>
    inScene(async (scene) => {
      const args = ["gc", "--dir", scene.dir];
      const kept = scene.open();
      kept.getNamedSegmentSync("here", 64);
      leave(scene, "unattended");
      const alive = scene.files();
      const clean = await tool(runtime, args);
      assertEquals([clean.code, clean.out], [0, "Nothing is left over.\n"]);

      const [orphan = ""] = leave(scene, "lost");
      unlinkSync(control(scene, "lost"));
      const dry = await tool(runtime, args);
      assertEquals(dry.code, 1);
      assertMatch(dry.out, /would remove +192 B +dsmr\.s\.lost\..* its registry is gone\n/);
      assertMatch(dry.out, /dsmr gc --force\n$/);
      assertEquals(scene.files(), [...alive, orphan].sort(), "nothing was touched");

      const { code, value } = await toolJson<Collected>(runtime, [...args, "--force"]);
      assertEquals(code, 0);
      assertEquals(value.files.map(({ name, fate }) => [name, fate]), [[orphan, "removed"]]);
      assertEquals(scene.files(), alive);
      assert(kept.lookupSegment("here") !== null);
    }));

  test(`${runtime}: gc finishes off what somebody died while destroying`, () =>
    inScene(async (scene) => {
      leave(scene, "half");
      const DESTROYED = 2;
      const descriptor = openSync(control(scene, "half"), "r+");
      writeSync(descriptor, Uint8Array.of(DESTROYED, 0, 0, 0), 0, 4, 12);
      closeSync(descriptor);
      const files = scene.files();
      const dry = await toolJson<Collected>(runtime, ["gc", "--dir", scene.dir]);
      assertEquals([dry.code, dry.value.files.map(({ fate }) => fate)], [1, ["would remove"]]);
      assertEquals(scene.files(), files);
      const forced = await toolJson<Collected>(runtime, ["gc", "--force", "--dir", scene.dir]);
      assertEquals([forced.code, scene.files()], [0, []]);
    }));
}

test("gc: a segment of an earlier registry of the same name is an orphan, one of this is not", () =>
  inScene((scene) => {
    const [old = ""] = leave(scene, "again");
    unlinkSync(control(scene, "again"));
    leave(scene, "again");
    assertEquals(found(scene), [[old, true]]);
  }));

test("gc: what is mapped is kept; what cannot be judged is kept", () =>
  inScene((scene) => {
    const registry = scene.open();
    const segment = registry.getNamedSegmentSync("a", 64);
    const [file = ""] = scene.files().filter((name) => name.startsWith("dsmr.s."));
    const place = control(scene, "test");
    const aside = join(scene.dir, "aside");
    renameSync(place, aside);
    const [mapped] = findLeftovers(scene.dir, process.getuid?.());
    assertEquals([mapped?.name, mapped?.isOrphan], [file, false]);
    assertMatch(mapped?.why ?? "", new RegExp(`process ${process.pid} still has it mapped`));
    segment.detach();
    registry.close();
    assertEquals(found(scene), [[file, true]]);

    // Not to be understood, or not a file: then nothing of it is known to be dead.
    copyFileSync(aside, place);
    truncateSync(place, 63);
    assertEquals(found(scene), [[file, false]]);
    writeFileSync(place, "x".repeat(100));
    assertEquals(found(scene), [[file, false]]);
    unlinkSync(place);
    symlinkSync("nowhere", place);
    assertEquals(found(scene), [[file, false]]);
    unlinkSync(place);
    mkdirSync(place);
    assertEquals(found(scene), [[file, false]]);
  }));

test("gc: a temporary file is left over when it is old, and nobody has it open", () =>
  inScene((scene) => {
    const name = `dsmr.t.${"a".repeat(16)}`;
    const path = join(scene.dir, name);
    const descriptor = openSync(path, "w");
    assertEquals(found(scene), [], "young");
    utimesSync(path, 1000, 1000);
    const [open] = findLeftovers(scene.dir, process.getuid?.());
    assertEquals(open?.isOrphan, false);
    assertMatch(open?.why ?? "", new RegExp(`process ${process.pid} still has it open`));
    closeSync(descriptor);
    assertEquals(found(scene), [[name, true]]);
  }));

test("gc: links, folders, and names that only look like ours are not touched", () =>
  inScene((scene) => {
    const tail = `${"0".repeat(16)}.${"1".repeat(16)}`;
    symlinkSync("/etc/hostname", join(scene.dir, `dsmr.s.link.${tail}`));
    mkdirSync(join(scene.dir, `dsmr.s.folder.${tail}`));
    for (
      const name of [
        `dsmr.s.${tail}`,
        `dsmr.s.x.${tail}0`,
        `dsmr.s.${"n".repeat(64)}.${tail}`,
        "dsmr.t.x",
      ]
    ) writeFileSync(join(scene.dir, name), "");
    assertEquals(found(scene), []);
    // This one is.
    const hostile = `dsmr.s.a\n\u001b.${tail}`;
    writeFileSync(join(scene.dir, hostile), "");
    assertEquals(found(scene), [[hostile, true]]);
  }));

test("gc: nothing that lives is removed while processes create, use and destroy", () =>
  inScene(async (scene) => {
    const rounds = 150;
    const creators = runtimes.map((runtime) => {
      // A folder for each: their registries have the same names.
      const dir = join(scene.dir, runtime);
      mkdirSync(dir);
      const child = new Child([...commandLine(runtime, "_tool_creator.ts"), dir, String(rounds)]);
      return { dir, child: scene.adopt(child) };
    });
    const running = new Set(creators);
    for (const creator of creators) {
      void creator.child.whenEnded.then(() => running.delete(creator));
    }
    let removed = 0;
    const collect = (dir: string): void => {
      for (const leftover of findLeftovers(dir, process.getuid?.())) {
        if (leftover.isOrphan && leftover.kind === "segment" && removeLeftover(leftover)) removed++;
      }
      // As the command does.
      Registry.list({ dir });
    };
    while (running.size > 0) {
      for (const { dir } of running) collect(dir);
      // A turn of the loop, in which the ends of children are heard.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    for (const { dir, child } of creators) {
      assertEquals(await child.ended, "exit code 0", child.printed);
      collect(dir);
      assertEquals(findLeftovers(dir, process.getuid?.()), []);
    }
    assertEquals(removed, rounds * creators.length, "each orphan was removed once");
  }));
