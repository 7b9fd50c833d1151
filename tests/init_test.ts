/** The init callback: failing, nested, waited for, and waiting in a circle. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "./_declare.ts";
import { DsmrError, type Registry } from "../lib/mod.ts";
import { assertFailed, assertFails, inScene, succeeded, until } from "./_scene.ts";
import { Child, commandLine, otherThan, runtimes } from "./_spawn.ts";

test("nested requests inside an init callback work, three deep", () =>
  inScene((scene) => {
    const registry = scene.open();
    const order: string[] = [];
    const outer = registry.getNamedSegmentSync("outer", 8, (segment) => {
      order.push("outer begins");
      const middle = registry.getNamedSegmentSync("middle", 16, (segment) => {
        const inner = registry.getNamedSegmentSync("inner", 32, () => void order.push("inner"));
        new Uint8Array(inner.buffer)[0] = 1;
        new Uint8Array(segment.buffer)[0] = 2;
        order.push("middle");
      });
      assertEquals(new Uint8Array(middle.buffer)[0], 2);
      new Uint8Array(segment.buffer)[0] = 3;
      order.push("outer ends");
    });
    assertEquals(order, ["outer begins", "inner", "middle", "outer ends"]);
    assertEquals(new Uint8Array(outer.buffer)[0], 3);
    assertEquals([...registry.segments()].map(({ name, ready }) => [name, ready]), [
      ["inner", true],
      ["middle", true],
      ["outer", true],
    ]);
  }));

for (const runtime of runtimes) {
  test(`a process waits until a ${runtime} process has initialised, and sees all of it`, () =>
    inScene(async (scene) => {
      const initialiser = await scene.child(runtime);
      const waiter = await scene.child(otherThan(runtime));
      const init = [{ fill: 1 }, { hold: true as const }, { fill: 2 }];
      initialiser.send({ do: "get", segment: "a", size: 5000, init });
      assertEquals(await initialiser.next(), { holding: true });
      waiter.send({ do: "get", segment: "a", size: 5000, init: [{ fill: 3 }] });
      const registry = scene.open();
      await waits(registry, waiter.pid, "a");
      initialiser.go();
      const [first, second] = [await initialiser.next(), await waiter.next()];
      assertEquals([first.found, first.initialised, first.wasZero], [false, true, true]);
      assertEquals([second.found, second.initialised], [true, false]);
      assertEquals(second.value, 0x02020202);
      assertEquals(second.hash, first.hash);
    }));

  test(`when init throws in a ${runtime} process the next waiter initialises, with its size`, () =>
    inScene(async (scene) => {
      const failing = await scene.child(runtime);
      const waiter = await scene.child(otherThan(runtime));
      const init = [{ fill: 1 }, { hold: true as const }, { throw: "out of ideas" }];
      failing.send({ do: "get", segment: "a", size: 100, init });
      assertEquals(await failing.next(), { holding: true });
      waiter.send({ do: "get", segment: "a", size: 300, init: [{ fill: 2 }] });
      await waits(scene.open(), waiter.pid, "a");
      failing.go();
      const failure = await failing.next();
      assertFailed(failure, "INIT_FAILED", '"a"', "out of ideas");
      assertEquals(failure.cause, "out of ideas");
      const report = await waiter.next();
      assertEquals([report.found, report.size, report.wasZero], [false, 300, true]);
      // The one that failed may come again.
      const again = await failing.ask({ do: "get", segment: "a", size: 300 });
      assertEquals([again.found, again.value], [true, 0x02020202]);
    }));
}

test("init that returns a promise is refused: the segment would be published half-made", () =>
  inScene((scene) => {
    const registry = scene.open();
    for (const promise of [Promise.resolve(), { then: () => {} }]) {
      const get = () => registry.getNamedSegmentSync("a", 8, () => promise);
      const error = assertFails(get, "INIT_FAILED", '"a"', "promise", "Await first");
      assert(error.cause instanceof TypeError);
      assertStrictEquals(error.cause.cause, promise);
      assertEquals([...registry.segments()], []);
    }
    // What only looks like one is none.
    assertEquals(registry.getNamedSegmentSync("a", 8, () => ({ then: 5 })).found, false);
  }));

for (const runtime of runtimes) {
  test(`promises that init and a lock's callback drop, and that fail, leave ${runtime} alive`, () =>
    inScene(async (scene) => {
      const command = commandLine(runtime, "_promises.ts");
      const child = scene.adopt(new Child([...command, scene.dir]));
      assertEquals(await child.ended, "exit code 0", child.printed);
      assertEquals(child.printed.trim(), '["INIT_FAILED","INIT_FAILED","TypeError","TypeError"]');
    }));
}

/** Resolves once the process is seen waiting for the segment. */
function waits(registry: Registry, pid: number, name: string): Promise<void> {
  return until(() => [...registry.backends()].find((b) => b.pid === pid)?.waitingFor === name);
}

/* Negative tests. */

test("a failing init gives INIT_FAILED with its cause, frees the memory, and can be repeated", () =>
  inScene((scene) => {
    const registry = scene.open();
    const thrown = new RangeError("no such shop");
    let view: Uint8Array | undefined;
    const fail = () =>
      registry.getNamedSegmentSync("a", 100, (segment) => {
        view = new Uint8Array(segment.buffer).fill(1);
        throw thrown;
      });
    for (let i = 0; i < 3; i++) {
      const error = assertFails(fail, "INIT_FAILED", '"a"', "no such shop");
      assertStrictEquals(error.cause, thrown);
      assertEquals(view?.length, 0);
      assertEquals([...registry.segments()], []);
      assertEquals(scene.files(), ["dsmr.r.test"]);
      assertEquals(registry.lookupSegment("a"), null);
    }
    const segment = registry.getNamedSegmentSync("a", 250);
    assertEquals([segment.found, segment.size], [false, 250]);
    assert(new Uint8Array(segment.buffer).every((byte) => byte === 0));
  }));

test("init may throw anything at all", () =>
  inScene((scene) => {
    const registry = scene.open();
    const odd = [
      Object.defineProperty(new Error(), "message", { value: Symbol("m") }),
      Object.defineProperty(new Error(), "message", {
        get() {
          throw new Error("no message either");
        },
      }),
      { toString: () => 5n },
      new Error(""),
      "",
      5n,
    ];
    for (const thrown of ["text", 42, undefined, null, Symbol("s"), Object.create(null), ...odd]) {
      const error = assertFails(
        () =>
          registry.getNamedSegmentSync("a", 8, () => {
            throw thrown;
          }),
        "INIT_FAILED",
        '"a"',
      );
      assertStrictEquals(error.cause, thrown);
      assert("cause" in error);
    }
    assertEquals([...registry.segments()], []);
  }));

test("init that asks for its own segment gets INIT_RECURSION, also through others", () =>
  inScene((scene) => {
    const registry = scene.open();
    let caught: unknown;
    const segment = registry.getNamedSegmentSync("self", 8, () => {
      try {
        registry.getNamedSegmentSync("self", 8);
      } catch (error) {
        caught = error;
      }
    });
    assert(caught instanceof DsmrError);
    assertEquals(caught.code, "INIT_RECURSION");
    assert(caught.message.includes('"self"'), caught.message);
    // Caught inside, it does no harm.
    assertEquals(segment.found, false);
    assertStrictEquals(registry.getNamedSegmentSync("self", 8), segment);

    const outer = assertFails(() =>
      registry.getNamedSegmentSync("a", 8, () => {
        registry.getNamedSegmentSync("b", 8, () => {
          registry.getNamedSegmentSync("a", 8);
        });
      }), "INIT_FAILED");
    const inner = outer.cause;
    assert(inner instanceof DsmrError && inner.cause instanceof DsmrError);
    assertEquals([inner.code, inner.cause.code], ["INIT_FAILED", "INIT_RECURSION"]);
    assertEquals([...registry.segments()].map(({ name }) => name), ["self"]);
  }));

test("init may detach its segment or close the registry: an error, and nothing is left", () =>
  inScene((scene) => {
    const registry = scene.open();
    const detach = () => registry.getNamedSegmentSync("a", 8, (s) => s.detach());
    const detached = assertFails(detach, "INIT_FAILED", '"a"', "detached");
    assert(detached.cause instanceof DsmrError && detached.cause.code === "DETACHED");
    assertEquals([...registry.segments()], []);
    const close = () => registry.getNamedSegmentSync("a", 8, () => registry.close());
    const closed = assertFails(close, "INIT_FAILED", '"a"', "closed the registry");
    assert(closed.cause instanceof DsmrError && closed.cause.code === "CLOSED");
    assertEquals([...scene.open().segments()], []);
    assertEquals(scene.files(), ["dsmr.r.test"]);
  }));

for (const runtime of runtimes) {
  test(`of two processes that wait in a circle exactly one gets DEADLOCK (${runtime} first)`, () =>
    inScene(async (scene) => {
      const pair = [await scene.child(runtime), await scene.child(otherThan(runtime))] as const;
      const names = ["a", "b"] as const;
      for (const [i, child] of pair.entries()) {
        const other = names[1 - i] ?? "";
        child.send({
          do: "get",
          segment: names[i] ?? "",
          size: 8,
          init: [{ fill: i + 1 }, { hold: true }, { run: { do: "get", segment: other, size: 8 } }],
        });
        assertEquals(await child.next(), { holding: true });
      }
      for (const child of pair) child.go();
      const nested = await Promise.all(pair.map(async (child) => (await child.next()).nested));
      const refused = nested.findIndex((report) => report?.ok === false);
      const [loser, winner] = [nested[refused] ?? {}, nested[1 - refused] ?? {}];
      const other = pair[1 - refused];
      assertFailed(loser, "DEADLOCK", `"${names[1 - refused]}"`, other?.pid ?? "no process");
      // The other one waits until the loser's init has returned, then finds its segment.
      assertEquals([winner.ok, winner.found, winner.value], [
        true,
        true,
        (refused + 1) * 0x01010101,
      ]);
      for (const child of pair) succeeded(await child.next());
      const ready = [...scene.open().segments()].map((info) => [info.name, info.ready]);
      assertEquals(ready, [["a", true], ["b", true]]);
    }));

  test(`waiting for a ${runtime} initialiser ends with TIMEOUT, which names its pid`, () =>
    inScene(async (scene) => {
      const registry = scene.open();
      const child = await scene.child(runtime);
      child.send({ do: "get", segment: "slow", size: 8, init: [{ hold: true }] });
      assertEquals(await child.next(), { holding: true });
      for (const timeout of [0, 1, 150]) {
        const get = () => registry.getNamedSegmentSync("slow", 8, undefined, { timeout });
        assertFails(get, "TIMEOUT", '"slow"', child.pid, `${timeout} ms`);
      }
      assertEquals([...registry.backends()].find(({ self }) => self)?.waitingFor, null);
      child.go();
      succeeded(await child.next());
      assertEquals(registry.getNamedSegmentSync("slow", 8, undefined, { timeout: 0 }).found, true);
    }));
}

test("a timeout that is negative, NaN or no number is a RangeError", () =>
  inScene((scene) => {
    const registry = scene.open();
    for (const timeout of [-1, -0.5, NaN, -Infinity, "5", {}]) {
      const options = { timeout: timeout as number };
      assertThrows(() => registry.getNamedSegmentSync("a", 8, undefined, options), RangeError);
      assertThrows(() => scene.open(options, "other"), RangeError);
    }
    assertEquals([...registry.segments()], []);
    registry.getNamedSegmentSync("a", 8, undefined, { timeout: Infinity });
    assertEquals(scene.files().filter((file) => file.startsWith("dsmr.r.")), ["dsmr.r.test"]);
  }));

test("what is of the wrong type is a TypeError, also where the segment is attached already", () =>
  inScene((scene) => {
    const registry = scene.open();
    const get = (init: unknown, options?: unknown) =>
      registry.getNamedSegmentSync("a", 8, init as undefined, options as undefined);
    const refused = () => {
      for (const init of [5, 5n, null, {}]) assertThrows(() => get(init), TypeError, "init");
      for (const lifetime of ["eternal", null, 5n, Symbol("s"), {}]) {
        assertThrows(() => get(undefined, { lifetime }), TypeError, "lifetime");
      }
      for (const repair of [5, null]) {
        assertThrows(() => get(undefined, { repair }), TypeError, "repair");
      }
      assertThrows(() => get(undefined, { timeout: -1 }), RangeError, "-1");
    };
    refused();
    assertEquals([...registry.segments()], []);
    const segment = get(undefined, null);
    refused();
    assertStrictEquals(get(() => {}, { lifetime: "attached", timeout: 5 }), segment);
  }));
