/** Hostile memory: a directory of the main area that makes no sense is refused, or is harmless. */

import { assert, assertEquals } from "@std/assert";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Backend } from "../lib/backend.ts";
import { defineAddin, DsmrError, Registry } from "../lib/mod.ts";
import { removeSegment } from "../lib/named_segments.ts";
import { test } from "./_declare.ts";
import { randomFrom } from "./_random.ts";
import { assertFails, inScene, type Scene } from "./_scene.ts";

const addin = defineAddin({
  name: "victim",
  request(ctx) {
    ctx.requestSpace(1024);
    ctx.requestTranche("victim", 2);
  },
  startup: (ctx) =>
    ctx.addinInitLock.withSync("exclusive", () => {
      const area = ctx.initStruct("victim", 512);
      if (!area.found) area.bytes.fill(1);
      return area;
    }),
});

// The format, as lib/addin_directory.ts has it.
const ADDINS = 192;
const TRANCHES = ADDINS + 64 * 88;
const AREAS = TRANCHES + 256 * 88;
const SIZE = AREAS + 256 * 88;
const [LENGTH, MARK, OFFSET, COUNT] = [0, 4, 8, 16];

/** The directory as others see it: written to while it is attached. */
class Directory {
  readonly #path: string;
  readonly #start: number;

  constructor(scene: Scene) {
    const magic = new TextEncoder().encode("adi1");
    for (const file of scene.files()) {
      const path = join(scene.dir, file);
      const start = readFileSync(path).indexOf(magic);
      if (start < 0) continue;
      this.#path = path;
      this.#start = start;
      return;
    }
    throw new Error("There is no directory.");
  }

  #write(offset: number, bytes: Uint8Array): void {
    const file = openSync(this.#path, "r+");
    writeSync(file, bytes, 0, bytes.length, this.#start + offset);
    closeSync(file);
  }

  u32(offset: number, value: number): void {
    this.#write(offset, new Uint8Array(new Uint32Array([value]).buffer));
  }

  f64(offset: number, value: number): void {
    this.#write(offset, new Uint8Array(new Float64Array([value]).buffer));
  }

  bytes(offset: number, bytes: Uint8Array): void {
    this.#write(offset, bytes);
  }
}

type Damage = [what: string, damage: (directory: Directory) => void];

const strange = [NaN, Infinity, -Infinity, -64, 0.5, 2 ** 53, 1e300, 63];

const damages: Damage[] = [
  ["no magic", (d) => d.u32(0, 0)],
  ["too many add-ins", (d) => d.u32(4, 65)],
  ["very many add-ins", (d) => d.u32(4, 0xffffffff)],
  ["too many tranches", (d) => d.u32(8, 257)],
  ...[LENGTH].flatMap((at): Damage[] =>
    [0, 64, 0xffffffff].flatMap((value): Damage[] => [
      [`an add-in's name of ${value} bytes`, (d) => d.u32(ADDINS + at, value)],
      [`a tranche's name of ${value} bytes`, (d) => d.u32(TRANCHES + at, value)],
      [`a part's name of ${value} bytes`, (d) => d.u32(AREAS + at, value)],
    ])
  ),
  ...strange.flatMap((value): Damage[] => [
    [`a main area of ${value} bytes`, (d) => d.f64(32, value)],
    [`an add-in at ${value}`, (d) => d.f64(ADDINS + OFFSET, value)],
    [`a tranche at ${value}`, (d) => d.f64(TRANCHES + OFFSET, value)],
    [`a part at ${value}`, (d) => d.f64(AREAS + OFFSET, value)],
  ]),
  ...strange.slice(0, -1).flatMap((value): Damage[] => [
    [`an add-in of ${value} bytes`, (d) => d.f64(ADDINS + COUNT, value)],
    [`a tranche of ${value} locks`, (d) => d.f64(TRANCHES + COUNT, value)],
    [`a part of ${value} bytes`, (d) => d.f64(AREAS + COUNT, value)],
  ]),
  ["another main area", (d) => d.f64(32, 64)],
  ["a much larger main area", (d) => d.f64(32, 2 ** 52)],
  ["rows for more than there are", (d) => d.u32(4, 2)],
  ["a tranche where no locks are", (d) => d.f64(TRANCHES + OFFSET, 192)],
  ["the init lock overwritten", (d) => d.bytes(128, new Uint8Array(64).fill(0xff))],
];

for (const [what, damage] of damages) {
  test(`a directory with ${what}: CORRUPT, before and after it is attached`, () =>
    inScene((scene) => {
      const registry = scene.open({ addins: [addin] });
      const use = (database: string) => {
        const opened = scene.open({ addins: [addin], database });
        opened.getTranche("victim")[0]?.withSync("exclusive", () => {});
        return opened.addin(addin).found;
      };
      assertEquals(use("before"), true);
      damage(new Directory(scene));
      let isRefused = false;
      try {
        use("after");
      } catch (error) {
        assert(error instanceof DsmrError, String(error));
        // From the hook, or before it.
        const cause = error.code === "INIT_FAILED" ? error.cause : error;
        assert(cause instanceof DsmrError && cause.code === "CORRUPT", String(cause));
        isRefused = true;
      }
      assert(isRefused, "nobody has noticed");
      // Who has it attached meets the same, or what it knew before; never a crash.
      try {
        registry.getTranche("victim");
      } catch (error) {
        assert(error instanceof DsmrError && error.code === "CORRUPT", String(error));
      }
      // A plain open is not concerned, and destroying helps.
      assert(scene.open({ database: "plain" }).backendId > 0);
    }));
}

test("marks that no hold has made: such parts are not there, or their numbers are used up", () =>
  inScene((scene) => {
    scene.open({ addins: [addin] });
    const directory = new Directory(scene);
    const open = (database: string) => scene.open({ addins: [addin], database }).addin(addin);
    // As one leaves it that has died between its last store and the header's.
    directory.u32(AREAS + MARK, 7);
    const anew = open("leftover");
    assertEquals([anew.found, anew.bytes[511]], [false, 1]);
    assertEquals(open("whole").found, true);
    // All numbers used up: nothing can be made any more, and that is said.
    directory.u32(12, 0xffffffff);
    directory.u32(AREAS + MARK, 0);
    const error = assertFails(() => open("no more"), "INIT_FAILED", "numbers");
    assert(error.cause instanceof DsmrError && error.cause.code === "CORRUPT");
  }));

test("a row without its mark, as a death before the last store leaves it, is a free one", () =>
  inScene((scene) => {
    scene.open({ addins: [addin] });
    const directory = new Directory(scene);
    directory.u32(AREAS + MARK, 0);
    const { found, bytes } = scene.open({ addins: [addin], database: "b" }).addin(addin);
    assertEquals([found, bytes[0]], [false, 1]);
  }));

test("a main area that is gone, and one of another size: CORRUPT", () =>
  inScene((scene) => {
    scene.open({ addins: [addin] });
    // No program of this library does that.
    const stranger = Backend.open(scene.dir, "test", "stranger", {
      mode: "attach",
      maxBackends: 0,
      maxSegments: 0,
      timeout_ms: 1000,
    });
    scene.atEnd(() => stranger.release());
    assertEquals(stranger.lookup("\u0001addins")?.size, SIZE);
    assertEquals(stranger.lookup("\u0001main")?.size, 1024 + 128);
    assertEquals(removeSegment(stranger, "\u0001main"), true);
    const open = (database: string) => scene.open({ addins: [addin], database });
    for (const there of ["none", "64"]) {
      const failed = assertFails(() => open(there), "INIT_FAILED", "1152", there);
      assert(failed.cause instanceof DsmrError && failed.cause.code === "CORRUPT");
      stranger.ownSegmentSync("\u0001main", 64);
    }
  }));

test("noise in the directory, while backends come: an error or a part, never a crash or a hang", () =>
  inScene((scene) => {
    const seed = Number(process.env.DSMR_SEED ?? Date.now() % 2 ** 31);
    console.log(`DSMR_SEED=${seed}`);
    const random = randomFrom(seed);
    let refused = 0;
    const { dir } = scene;
    for (let round = 0; round < 150; round++) {
      {
        using _first = Registry.openSync("test", { dir, addins: [addin] });
        const directory = new Directory(scene);
        for (let i = 0; i < 4; i++) {
          // The header and the rows that are in use.
          const starts = [0, ADDINS, TRANCHES, AREAS];
          const at = (starts[Math.floor(random() * 4)] ?? 0) + Math.floor(random() * 88);
          directory.bytes(at, new Uint8Array([Math.floor(random() * 256)]));
        }
        for (const database of ["a", "b"]) {
          try {
            using other = Registry.openSync("test", { dir, addins: [addin], database });
            for (const lock of other.getTranche("victim")) lock.tryAcquire();
            assertEquals(other.addin(addin).bytes.length, 512);
          } catch (error) {
            assert(error instanceof DsmrError, String(error));
            refused++;
          }
        }
      }
      Registry.destroy("test", { dir });
    }
    assert(refused > 0, "no damage was noticed");
  }));
