/** Deno, Bun and C on one registry. */

import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { test } from "node:test";
import type { Command, Report } from "./_agent.ts";
import { assertFailed, assertFails, inScene, type Scene, succeeded, until } from "./_scene.ts";
import { Child, root } from "./_spawn.ts";

/** Deno, Bun or C: what the tests below need of each. */
interface Party {
  name: string;
  child: Child;
  /** Asks for a segment, and fills it with the byte if it is the one to initialise it. */
  get(segment: string, size: number, byte: number): void;
  /** The same, but its init callback holds. */
  hold(segment: string, size: number, byte: number): void;
  /** The same, but its init callback fails. */
  fail(segment: string, size: number): void;
  /** Adds to a word of the segment that it has asked for last. */
  add(index: number, value: number): void;
  drop(segment: string): void;
  detach(): void;
}

function script(name: string, child: Child): Party {
  let last = "";
  const get = (segment: string, size: number, init: NonNullable<InitOf>): void => {
    last = segment;
    child.send({ do: "get", segment, size, init });
  };
  return {
    name,
    child,
    get: (segment, size, byte) => get(segment, size, [{ fill: byte }]),
    hold: (segment, size, byte) => get(segment, size, [{ hold: true }, { fill: byte }]),
    fail: (segment, size) => get(segment, size, [{ throw: "as planned" }]),
    add: (index, value) => child.send({ do: "add", segment: last, index, value }),
    drop: (segment) => child.send({ do: "drop", segment }),
    detach: () => child.send({ do: "detach", segment: last }),
  };
}
type InitOf = Extract<Command, { do: "get" }>["init"];

function native(child: Child): Party {
  return {
    name: "c",
    child,
    get: (segment, size, byte) => child.sendLine(`get ${segment} ${size} ${byte}`),
    hold: (segment, size, byte) => child.sendLine(`hold ${segment} ${size} ${byte}`),
    fail: (segment, size) => child.sendLine(`fail ${segment} ${size}`),
    add: (index, value) => child.sendLine(`add ${index} ${value}`),
    drop: (segment) => child.sendLine(`drop ${segment}`),
    detach: () => child.sendLine("detach"),
  };
}

async function startNative(scene: Scene): Promise<Child> {
  const child = scene.adopt(new Child([join(root, "zig-out", "bin", "interleave")]));
  assertEquals(await child.next(), { pid: child.pid });
  child.sendLine(`open ${scene.dir} test`);
  succeeded(await child.next());
  return child;
}

async function startParties(scene: Scene): Promise<Party[]> {
  const [deno, bun] = [await scene.child("deno"), await scene.child("bun")];
  return [script("deno", deno), script("bun", bun), native(await startNative(scene))];
}

const others = (parties: Party[], party: Party): Party[] => parties.filter((p) => p !== party);

test("Deno, Bun and C see one registry: programs, segments, sizes and each other's words", () =>
  inScene(async (scene) => {
    const registry = scene.open();
    const parties = await startParties(scene);
    const programs = [...registry.backends()].filter(({ self }) => !self).map((b) => b.program);
    assertEquals(programs.map((program) => program.split(" ")[0]), ["deno", "bun", "interleave"]);
    for (const [i, first] of parties.entries()) {
      first.get(`made by ${first.name}`.replaceAll(" ", "-"), 100, i + 1);
      const made = succeeded(await first.child.next());
      assertEquals([made.found, made.wasZero, made.size], [false, true, 100]);
      let sum = 0x01010101 * (i + 1);
      for (const party of parties) {
        party.get(`made-by-${first.name}`, 100, 99);
        const got = succeeded(await party.child.next());
        assertEquals([got.size, got.initialised], [100, false]);
        party.add(0, 1000);
        assertEquals((await party.child.next()).value, sum += 1000, party.name);
      }
      const here = registry.getNamedSegmentSync(`made-by-${first.name}`, 100);
      assertEquals(new Int32Array(here.buffer)[0], sum);
      assertEquals(new Uint8Array(here.buffer)[99], i + 1);
    }
    assertEquals([...registry.segments()].map(({ backends }) => backends), [4, 4, 4]);
    // Each detaches what it has asked for last: the one that C made.
    for (const party of parties) {
      party.detach();
      succeeded(await party.child.next());
    }
    assertEquals([...registry.segments()].map(({ backends }) => backends), [4, 1, 4]);
  }));

test("Deno, Bun and C race for 200 fresh names, init runs once, and counts are exact", () =>
  inScene(async (scene) => {
    const parties = await startParties(scene);
    const winners = new Set<string>();
    for (let round = 0; round < 200; round++) {
      // Whoever is told first has an advantage: take turns.
      const order = parties.map((_, i) => parties[(round + i) % 3] ?? parties[0]!);
      for (const party of order) party.get(`round-${round}`, 64, 1 + parties.indexOf(party));
      const reports = await Promise.all(order.map((party) => party.child.next()));
      const first = reports.findIndex((report) => succeeded(report).initialised);
      const winner = order[first];
      assert(winner !== undefined, "nobody initialised");
      winners.add(winner.name);
      assertEquals(reports.filter((report) => report.initialised).length, 1);
      assertEquals(reports[first]?.wasZero, true);
      const value = 0x01010101 * (1 + parties.indexOf(winner));
      for (const report of reports) assertEquals(report.value, value);
      for (const party of order) party.add(15, 1);
      const counts = await Promise.all(order.map((party) => party.child.next()));
      const sorted = counts.map((report) => (report.value ?? 0) - value).sort();
      assertEquals(sorted, [1, 2, 3]);
      const dropper = order[1] ?? winner;
      dropper.drop(`round-${round}`);
      assertEquals((await dropper.child.next()).value, 1);
      for (const party of order) party.detach();
      for (const party of order) succeeded(await party.child.next());
    }
    assert(winners.size > 1, `only ${[...winners]} ever came first: there was no race`);
    assertEquals(scene.files(), ["dsmr.r.test"]);
  }));

for (const name of ["deno", "bun", "c"]) {
  test(`an initialiser in ${name} is waited for, replaced when it fails, replaced when killed`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const parties = await startParties(scene);
      const first = parties.find((party) => party.name === name);
      assert(first !== undefined);
      const rest = others(parties, first);

      first.hold("waited", 8, 3);
      assertEquals(await first.child.next(), { holding: true });
      for (const party of rest) party.get("waited", 8, 4);
      await allWait(rest, () => [...registry.backends()].map((b) => b.waitingFor), "waited");
      first.child.go();
      const all = await Promise.all(parties.map((party) => party.child.next()));
      assertEquals(all.map((report) => report.value), [0x03030303, 0x03030303, 0x03030303]);

      first.fail("failed", 8);
      assertFailed(await first.child.next(), "INIT_FAILED", '"failed"');
      for (const party of rest) party.get("failed", 16, 5);
      const after = await Promise.all(rest.map((party) => party.child.next()));
      assertEquals(after.map((report) => [report.size, report.value]), [
        [16, 0x05050505],
        [16, 0x05050505],
      ]);

      first.hold("killed", 8, 6);
      assertEquals(await first.child.next(), { holding: true });
      for (const party of rest) party.get("killed", 8, 7);
      await allWait(rest, () => [...registry.backends()].map((b) => b.waitingFor), "killed");
      first.child.kill();
      const heirs = await Promise.all(rest.map((party) => party.child.next()));
      const heir = (report: Report): boolean => report.initialised === true;
      assertEquals(heirs.filter(heir).length, 1);
      assertEquals(heirs.find(heir)?.wasZero, true);
      assertEquals(heirs.map((report) => report.value), [0x07070707, 0x07070707]);
    }));
}

function allWait(
  parties: Party[],
  waitingFor: () => (string | null)[],
  name: string,
): Promise<void> {
  return until(() => waitingFor().filter((waiting) => waiting === name).length === parties.length);
}

/* Negative tests. */

test("C and TypeScript refuse the same with the same codes and the same sentences", () =>
  inScene(async (scene) => {
    const registry = scene.open({ maxSegments: 1 });
    const child = await startNative(scene);
    const party = native(child);
    registry.getNamedSegmentSync("a", 8);
    party.get("a", 16, 0);
    const mismatch = assertFails(() => registry.getNamedSegmentSync("a", 16), "SIZE_MISMATCH");
    assertFailed(await child.next(), "SIZE_MISMATCH", mismatch.message);
    party.get("b", 16, 0);
    const full = assertFails(() => registry.getNamedSegmentSync("b", 16), "REGISTRY_FULL");
    assertFailed(await child.next(), "REGISTRY_FULL", full.message);
    const long = "x".repeat(64);
    party.get(long, 16, 0);
    const name = assertFails(() => registry.getNamedSegmentSync(long, 16), "NAME_TOO_LONG");
    assertFailed(await child.next(), "NAME_TOO_LONG", name.message);
  }));
