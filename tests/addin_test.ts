/** Add-ins in one process: their hooks, the main area, and what is refused. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import {
  type AddinDefinition,
  defineAddin,
  DsmrError,
  type MainAreaStruct,
  Registry,
  type RequestContext,
  type StartupContext,
} from "../lib/mod.ts";
import { assertFails, inScene, type Scene } from "./_scene.ts";

/** Takes a part of the main area, filled with 7 where it is fresh. */
function take(ctx: StartupContext, name: string, size: number): MainAreaStruct {
  return ctx.addinInitLock.withSync("exclusive", () => {
    const area = ctx.initStruct(name, size);
    if (!area.found) {
      assert(area.bytes.every((byte) => byte === 0), "fresh memory is not zero");
      area.bytes.fill(7);
    }
    return area;
  });
}

/** Hands its startup context out. */
function open(scene: Scene, definition: AddinDefinition<StartupContext>): StartupContext {
  const addin = defineAddin(definition);
  return scene.open({ addins: [addin] }).addin(addin);
}

/** Asserts that opening fails because of a hook, and that it leaves no backend. */
function assertHookFails(
  scene: Scene,
  definition: AddinDefinition<unknown>,
  hook: string,
  ...texts: string[]
): unknown {
  const addin = defineAddin(definition);
  const error = assertFails(
    () => scene.open({ addins: [addin] }),
    "INIT_FAILED",
    `${hook} hook`,
    `"${addin.name}"`,
    ...texts,
  );
  assertEquals([...scene.open().backends()].length, 1);
  return error.cause;
}

test("hooks run in order: requests of all, then startup and init of each", () =>
  inScene((scene) => {
    const order: string[] = [];
    const make = (name: string) =>
      defineAddin({
        name,
        request: () => void order.push(`${name} request`),
        startup: () => {
          order.push(`${name} startup`);
          return name.length;
        },
        init: (handle) => void order.push(`${handle.name} init`),
      });
    const [one, three] = [make("a"), make("abc")];
    const registry = scene.open({ addins: [one, three] });
    assertEquals(order, [
      "a request",
      "abc request",
      "a startup",
      "a init",
      "abc startup",
      "abc init",
    ]);
    assertEquals([registry.addin(one), registry.addin(three)], [1, 3]);
    // Once for each backend, however often it is opened.
    const again = scene.open({ addins: [three, one, one] });
    assertEquals([order.length, again.addin(three)], [6, 3]);
    assertEquals(scene.open().addin(one), 1);
    const other = scene.open({ addins: [one], database: "other" });
    assertEquals([order.length, order.at(-2), other.addin(one)], [8, "a startup", 1]);
  }));

test("initStruct() makes a part once, of zeroed bytes, and finds it from then on", () =>
  inScene((scene) => {
    const spaces = defineAddin({
      name: "spaces",
      request(ctx) {
        ctx.requestSpace(100);
        ctx.requestSpace(1000);
      },
      startup: (ctx) => [take(ctx, "first", 100), take(ctx, "second", 1000)],
    });
    const [first, second] = scene.open({ addins: [spaces] }).addin(spaces);
    const [foundFirst, foundSecond] = scene.open({ addins: [spaces], database: "b" }).addin(spaces);
    assert(first && second && foundFirst && foundSecond);
    assertEquals([first.found, second.found], [false, false]);
    assertEquals([foundFirst.found, foundSecond.found], [true, true]);
    assertEquals([first.name, first.byteLength, first.bytes.length], ["first", 100, 100]);
    assertEquals([first.byteOffset % 64, second.byteOffset % 64], [0, 0]);
    assert(Math.abs(first.byteOffset - second.byteOffset) >= 100);
    assertEquals(new Uint8Array(first.segment.buffer)[first.byteOffset + 99], 7);
    assertEquals(foundSecond.bytes[999], 7);
    second.bytes[5] = 42;
    assertEquals(foundSecond.bytes[5], 42);
  }));

test("the main area is none of the segments that are listed", () =>
  inScene((scene) => {
    const spaces = defineAddin({
      name: "spaces",
      request: (ctx) => ctx.requestSpace(100),
      startup: (ctx) => take(ctx, "first", 100),
    });
    const registry = scene.open({ addins: [spaces] });
    assertEquals([...registry.segments()], []);
    assertEquals([...registry.tranches()].map(({ name }) => name), ["addin-init"]);
  }));

test("add-ins that request nothing need no main area", () =>
  inScene((scene) => {
    const ctx = open(scene, { name: "idle", startup: (ctx) => ctx });
    assertEquals(ctx.preloaded, true);
    assertFails(
      () => ctx.addinInitLock.withSync("exclusive", () => ctx.initStruct("x", 1)),
      "NO_SPACE",
      '"idle" has requested 0',
    );
    const nothing = defineAddin({ name: "nothing" });
    assertStrictEquals(scene.open({ addins: [nothing] }).addin(nothing), undefined);
  }));

test("requests outside of the request hook, and the main area inside of it, are refused", () =>
  inScene((scene) => {
    let early: RequestContext | undefined;
    const refused: unknown[] = [];
    const ctx = open(scene, {
      name: "early",
      request(ctx) {
        early = ctx;
        ctx.requestSpace(64);
        const startup = ctx as unknown as StartupContext;
        for (
          const call of [
            () => startup.initStruct("x", 1),
            () => startup.getTranche("x"),
            () => startup.addinInitLock,
            () => startup.registry,
            () => startup.preloaded,
          ]
        ) refused.push(assertFails(call, "UNSUPPORTED", "request hook", '"early"', "startup hook"));
      },
      startup: (ctx) => ctx,
    });
    assertEquals(refused.length, 5);
    const late = ctx as unknown as RequestContext;
    for (const context of [early, late]) {
      assert(context !== undefined);
      const texts = ["outside of the request hook", '"early"', "getNamedSegment()"];
      assertFails(() => context.requestSpace(64), "UNSUPPORTED", "requestSpace()", ...texts);
      assertFails(() => context.requestTranche("t", 1), "UNSUPPORTED", "requestTranche", ...texts);
    }
    // They have not been counted.
    take(ctx, "all", 64);
    assertFails(() => take(ctx, "more", 1), "NO_SPACE");
  }));

test("more than requested, another size, without the lock: each a clear error, nothing changed", () =>
  inScene((scene) => {
    const ctx = open(scene, {
      name: "tight",
      request: (ctx) => ctx.requestSpace(200),
      startup: (ctx) => ctx,
    });
    assertFails(() => ctx.initStruct("a", 64), "NOT_HELD", '"a"', "addinInitLock");
    assertFails(
      () => ctx.addinInitLock.withSync("shared", () => ctx.initStruct("a", 64)),
      "NOT_HELD",
      "exclusively",
    );
    const tooMuch = assertFails(
      () => take(ctx, "a", 257),
      "NO_SPACE",
      257,
      "requested 256",
      "of 64",
    );
    assertEquals([tooMuch.actual, tooMuch.requested], [256, 257]);
    take(ctx, "a", 100);
    const more = assertFails(() => take(ctx, "b", 150), "NO_SPACE", "128 are in use", '"tight"');
    assertEquals([more.actual, more.requested], [128, 150]);
    const other = assertFails(() => take(ctx, "a", 101), "SIZE_MISMATCH", '"a"', 100, 101);
    assertEquals([other.actual, other.requested], [100, 101]);
    assertEquals(take(ctx, "a", 100).found, true);
    assertEquals(take(ctx, "b", 128).found, false);
    for (const size of [0, -1, 1.5, NaN, Infinity, 2 ** 53, "8" as unknown as number]) {
      assertFails(() => take(ctx, "c", size), "SIZE_INVALID", '"c"');
    }
    for (const name of ["", "a/b", "\0", "\u0001main", 7 as unknown as string, "\ud800"]) {
      assertFails(() => take(ctx, name, 1), "NAME_INVALID");
    }
    assertFails(() => take(ctx, "x".repeat(64), 1), "NAME_TOO_LONG", 64, 63);
  }));

test("parts count for nothing when the callback that made them throws or returns a promise", () =>
  inScene((scene) => {
    const ctx = open(scene, {
      name: "failing",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    const make = () => {
      const area = ctx.initStruct("a", 100);
      area.bytes.fill(1);
      return area;
    };
    assertThrows(() =>
      ctx.addinInitLock.withSync("exclusive", () => {
        assertEquals(make().found, false);
        throw new Error("as planned");
      })
    );
    assertEquals(ctx.addinInitLock.heldByMe(), false);
    assertThrows(
      () => ctx.addinInitLock.withSync("exclusive", async () => void await make()),
      TypeError,
      "promise",
    );
    // With any size: nothing is there.
    const fresh = take(ctx, "a", 128);
    assertEquals([fresh.found, fresh.bytes[127]], [false, 7]);
    assertEquals(take(ctx, "a", 128).found, true);
  }));

test("a part asked for twice in one hold is the same, still to be initialised", () =>
  inScene((scene) => {
    const ctx = open(scene, {
      name: "twice",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    ctx.addinInitLock.withSync("exclusive", () => {
      const area = ctx.initStruct("a", 64);
      area.bytes[0] = 1;
      assertStrictEquals(ctx.initStruct("a", 64), area);
      assertFails(() => ctx.initStruct("a", 65), "SIZE_MISMATCH");
      assertEquals([area.found, area.bytes[0]], [false, 1]);
      assertEquals(ctx.initStruct("b", 64).found, false);
    });
    assertEquals([take(ctx, "a", 64).found, take(ctx, "b", 64).found], [true, true]);
  }));

test("every form of the init lock publishes what was made, when it is let go of", () =>
  inScene(async (scene) => {
    const ctx = open(scene, {
      name: "forms",
      request: (ctx) => ctx.requestSpace(64 * 10),
      startup: (ctx) => ctx,
    });
    const lock = ctx.addinInitLock;
    const forms: ((make: () => void) => void | Promise<void>)[] = [
      (make) => lock.withSync("exclusive", make),
      (make) => lock.with("exclusive", make),
      (make) => lock.with("exclusive", async () => (await Promise.resolve(), make())),
      (make) => {
        using _held = lock.holdSync();
        make();
      },
      async (make) => {
        using _held = await lock.hold();
        make();
      },
      (make) => {
        lock.acquireSync();
        make();
        lock.release();
      },
      async (make) => {
        await lock.acquire();
        make();
        lock.release();
      },
      (make) => {
        assertEquals(lock.tryAcquire(), true);
        make();
        lock.release();
      },
      (make) =>
        lock.withSync("exclusive", () => {
          make();
          lock.release();
        }),
    ];
    const other = defineAddin({ name: "other", startup: (ctx) => ctx });
    const seen = scene.open({ addins: [other], database: "b" }).addin(other);
    for (const [i, form] of forms.entries()) {
      await form(() => assertEquals(ctx.initStruct(`form ${i}`, 64).found, false));
      assertEquals(
        [lock.heldByMe(), take(seen, `form ${i}`, 64).found],
        [false, true],
        `form ${i}`,
      );
    }
    // Nor does it when a task fails.
    let message = "";
    await lock.with("exclusive", async () => {
      ctx.initStruct("failed", 64);
      await Promise.reject(new Error("as planned"));
    }).catch((error: Error) => message = error.message);
    assertEquals(message, "as planned");
    assertEquals(take(ctx, "failed", 64).found, false);
    assertFails(() => lock.release(), "NOT_HELD");
    lock.withSync("shared", () => assertFails(() => lock.acquireSync(), "ALREADY_HELD"));
    assertThrows(() => lock.withSync("exclusive", 1 as unknown as () => void), TypeError);
  }));

test("releaseAll() in the middle takes the hold away: what it made is never published", () =>
  inScene((scene) => {
    const addin = defineAddin({
      name: "robbed",
      request: (ctx) => ctx.requestSpace(128),
      startup: (ctx) => ctx,
    });
    const registry = scene.open({ addins: [addin] });
    const ctx = registry.addin(addin);
    const other = scene.open({ addins: [addin], database: "b" }).addin(addin);
    ctx.addinInitLock.withSync("exclusive", () => {
      ctx.initStruct("a", 64).bytes.fill(1);
      assertEquals(registry.releaseAll(), 1);
      assertFails(() => ctx.initStruct("b", 64), "NOT_HELD");
      // Another makes it, and is not through when the first one ends.
      other.addinInitLock.acquireSync();
      assertEquals(other.initStruct("a", 64).bytes[0], 0);
    });
    // It fails, as far as others know.
    assertEquals(scene.open({ database: "b" }).releaseAll(), 1);
    assertEquals(take(ctx, "a", 64).found, false);
  }));

test("a main area that somebody has detached is attached anew", () =>
  inScene((scene) => {
    const ctx = open(scene, {
      name: "detached",
      request(ctx) {
        ctx.requestSpace(64);
        ctx.requestTranche("detached", 1);
      },
      startup: (ctx) => ctx,
    });
    const area = take(ctx, "a", 64);
    const [lock] = ctx.getTranche("detached");
    area.segment.detach();
    assertEquals(area.bytes.length, 0);
    assertFails(() => lock?.acquireSync(), "DETACHED");
    assertEquals([take(ctx, "a", 64).found, take(ctx, "a", 64).bytes[63]], [true, 7]);
    ctx.getTranche("detached")[0]?.withSync("exclusive", () => {});
  }));

test("a hook that throws makes opening fail, and leaves nothing", () =>
  inScene((scene) => {
    const throws = () => {
      throw new RangeError("as planned");
    };
    for (const hook of ["request", "startup", "init"] as const) {
      const cause = assertHookFails(
        scene,
        { name: `bad ${hook}`, [hook]: throws },
        hook,
        "as planned",
        '"test"',
      );
      assert(cause instanceof RangeError);
    }
    // What failed may come again, in the same program.
    let fails = true;
    const retry = defineAddin({
      name: "retry",
      request: (ctx) => ctx.requestSpace(64),
      startup(ctx) {
        if (fails) throws();
        return ctx.preloaded;
      },
    });
    const { dir } = scene;
    const openNew = () => Registry.openSync("new", { dir, addins: [retry] });
    assertFails(openNew, "INIT_FAILED");
    fails = false;
    using registry = openNew();
    assertEquals(registry.addin(retry), true);
  }));

test("async hooks: refused by openSync(), awaited by open()", () =>
  inScene(async (scene) => {
    const order: string[] = [];
    for (const hook of ["request", "startup", "init"] as const) {
      const cause = assertHookFails(
        scene,
        { name: hook, [hook]: () => Promise.reject(new Error("unheard")) },
        hook,
        "await Registry.open",
      );
      assert(cause instanceof TypeError);
    }
    const slow = defineAddin({
      name: "slow",
      async request(ctx) {
        await Promise.resolve();
        ctx.requestSpace(64);
        order.push("request");
      },
      async startup(ctx) {
        await Promise.resolve();
        order.push("startup");
        return await ctx.addinInitLock.with("exclusive", async () => {
          const area = ctx.initStruct("slow", 64);
          await Promise.resolve();
          area.bytes.fill(9);
          return area;
        });
      },
      async init(handle) {
        await Promise.resolve();
        handle.allocateShmem({
          name: "slow:value",
          size: 8,
          callback: async (segment, value) => {
            await Promise.resolve();
            new Uint8Array(segment.buffer)[0] = value;
          },
          payload: 5,
        });
        order.push("init");
      },
    });
    const { dir } = scene;
    const options = { dir, addins: [slow] };
    const all = await Promise.all(Array.from({ length: 5 }, () => Registry.open("async", options)));
    assertEquals(order, ["request", "startup", "init"]);
    for (const registry of all) {
      assertEquals(registry.addin(slow).bytes[0], 9);
      const value = registry.lookupShmem("slow:value");
      assertEquals(value && new Uint8Array(value.buffer)[0], 5);
      registry.close();
    }
    // One that fails leaves nothing, and the next tries.
    const rejects = defineAddin({
      name: "rejects",
      startup: () => Promise.reject(new Error("no")),
    });
    const failures = await Promise.allSettled(
      Array.from({ length: 3 }, () => Registry.open("async", { dir, addins: [rejects] })),
    );
    for (const failure of failures) {
      assert(failure.status === "rejected");
      const reason: unknown = failure.reason;
      assert(reason instanceof DsmrError && reason.code === "INIT_FAILED", String(reason));
    }
    using registry = Registry.openSync("async", { dir });
    assertEquals([...registry.backends()].length, 1);
  }));

test("opening inside a hook with the same add-in is an error, with another it works", () =>
  inScene(async (scene) => {
    const { dir } = scene;
    const within: unknown[] = [];
    const inner = defineAddin({ name: "inner", startup: () => "in" });
    const outer = defineAddin({
      name: "outer",
      request() {
        const again = () => Registry.openSync("test", { dir, addins: [outer] });
        within.push(assertFails(again, "INIT_RECURSION", '"outer"', '"test"'));
        const other = () => Registry.openSync("test", { dir, addins: [inner] });
        within.push(assertFails(other, "INIT_RECURSION", "request hooks"));
      },
      startup(ctx): string {
        assertFails(() => ctx.registry.addin(outer), "NOT_FOUND", "still starting");
        const again = () => Registry.openSync("test", { dir, addins: [outer] });
        within.push(assertFails(again, "INIT_RECURSION"));
        using registry = Registry.openSync("test", { dir, addins: [inner] });
        return registry.addin(inner) + "out";
      },
    });
    const registry = scene.open({ addins: [outer, inner] });
    assertEquals([registry.addin(outer), within.length], ["inout", 3]);

    const fails = async (options: Parameters<typeof Registry.open>[1]) => {
      const error: unknown = await Registry.open("async", options).then(() => "opened", (e) => e);
      assert(error instanceof DsmrError, String(error));
      return error.code;
    };
    const codes: string[] = [];
    const task = defineAddin({
      name: "task",
      async request() {
        codes.push(await fails({ dir, addins: [task] }), await fails({ dir, addins: [inner] }));
        assertFails(() => Registry.openSync("async", { dir, addins: [inner] }), "INIT_RECURSION");
      },
      async startup() {
        codes.push(await fails({ dir, addins: [task] }));
        assertFails(() => Registry.openSync("async", { dir, addins: [task] }), "INIT_RECURSION");
      },
    });
    using opened = await Registry.open("async", { dir, addins: [task] });
    assertEquals(codes, ["INIT_RECURSION", "INIT_RECURSION", "INIT_RECURSION"]);
    assertStrictEquals(opened.addin(task), undefined);
  }));

test("openSync() while a task runs the same hooks is an error, not a hang", () =>
  inScene(async (scene) => {
    const { dir } = scene;
    for (const hook of ["request", "startup"] as const) {
      const entered = Promise.withResolvers<void>();
      const gate = Promise.withResolvers<void>();
      const addin = defineAddin({
        name: "gated",
        async [hook]() {
          entered.resolve();
          await gate.promise;
        },
      });
      const opening = Registry.open(hook, { dir, addins: [addin] });
      await entered.promise;
      assertFails(() => Registry.openSync(hook, { dir, addins: [addin] }), "DEADLOCK", "open(");
      const late = await Registry.open(hook, { dir, addins: [addin], timeout: 1 })
        .then(() => "opened", (error: DsmrError) => error);
      assert(late instanceof DsmrError && late.code === "TIMEOUT", String(late));
      const abort = new AbortController();
      const aborted = Registry.open(hook, { dir, addins: [addin], signal: abort.signal })
        .then(() => "opened", (error: unknown) => error);
      abort.abort("enough");
      assertEquals(await aborted, "enough");
      gate.resolve();
      using registry = await opening;
      assertEquals(Registry.openSync(hook, { dir, addins: [addin] }).close(), undefined);
      assertEquals([...registry.backends()].length, 1);
    }
  }));

test("a hook that closes the registry makes opening fail", () =>
  inScene((scene) => {
    const close = (ctx: { registry: Registry }) => ctx.registry.close();
    for (const hook of ["startup", "init"] as const) {
      const cause = assertHookFails(scene, { name: hook, [hook]: close }, hook, "closed");
      assert(cause instanceof DsmrError && cause.code === "CLOSED");
    }
    assertHookFails(
      scene,
      {
        name: "locked",
        request: (ctx) => ctx.requestSpace(64),
        startup: (ctx) =>
          ctx.addinInitLock.withSync("exclusive", () => {
            ctx.initStruct("a", 64);
            ctx.registry.close();
          }),
      },
      "startup",
    );
    // The context of an earlier open is of no use when all is closed.
    let kept: StartupContext | undefined;
    const addin = defineAddin({ name: "kept", startup: (ctx) => void (kept = ctx) });
    const registry = Registry.openSync("other", { dir: scene.dir, addins: [addin] });
    registry.close();
    assertFails(() => kept?.getTranche("x"), "CLOSED");
    assertFails(() => kept?.addinInitLock, "CLOSED");
    assertFails(() => registry.addin(addin), "CLOSED");
    assertFails(() => registry.getTranche("x"), "CLOSED");
    assertFails(() => registry.lookupShmem("x"), "CLOSED");
  }));

test("names and members that are wrong are refused, before anything is opened", () =>
  inScene((scene) => {
    const define = (definition: unknown) => defineAddin(definition as AddinDefinition);
    for (const wrong of [undefined, null, 1, "x"]) {
      assertThrows(() => define(wrong), TypeError, "add-in");
    }
    for (const name of [undefined, 1, "", "a/b", "\u0001x", "\0"]) {
      assertFails(() => define({ name }), "NAME_INVALID", "add-in");
    }
    assertFails(() => define({ name: "x".repeat(64) }), "NAME_TOO_LONG", 64);
    define({ name: "x".repeat(63) });
    for (const hook of ["request", "startup", "init"]) {
      assertThrows(() => define({ name: "x", [hook]: 1 }), TypeError, `${hook} hook`);
    }
    const one = defineAddin({ name: "x" });
    const two = defineAddin({ name: "x" });
    const open = (addins: unknown) => scene.open({ addins: addins as [] });
    assertFails(() => open([one, two]), "EXISTS", '"x"', "twice");
    assertThrows(() => open(one), TypeError, "array");
    assertThrows(() => open([{ name: "x" }]), TypeError, "defineAddin");
    assertThrows(() => open(null), TypeError, "array");
    assertEquals(scene.files(), []);
    const registry = open([one, one]);
    assertFails(() => open([two]), "EXISTS", '"x"');
    assertFails(() => registry.addin(two), "NOT_FOUND", '"x"', "addins");
    assertEquals([...registry.backends()].length, 1);
    assertEquals([...Registry.list({ dir: scene.dir })][0]?.backends, 1);
  }));

test("too many add-ins, tranches and parts: each limit is stated", () =>
  inScene((scene) => {
    const many = Array.from({ length: 65 }, (_, i) => defineAddin({ name: `addin ${i}` }));
    const tooMany = assertFails(() => scene.open({ addins: many }), "NO_SPACE", 65, 64);
    assertEquals([tooMany.actual, tooMany.requested], [64, 65]);
    const cause = assertHookFails(
      scene,
      {
        name: "greedy",
        request(ctx) {
          for (let i = 0; i <= 256; i++) ctx.requestTranche(`tranche ${i}`, 1);
        },
      },
      "request",
      "256",
    );
    assert(cause instanceof DsmrError && cause.code === "TRANCHES_FULL");
    const ctx = open(scene, {
      name: "parts",
      request: (ctx) => ctx.requestSpace(300 * 64),
      startup: (ctx) => ctx,
    });
    for (let i = 0; i < 256; i++) assertEquals(take(ctx, `part ${i}`, 1).found, false);
    const full = assertFails(() => take(ctx, "one more", 1), "NO_SPACE", 256);
    assertEquals([full.actual, full.requested], [256, 257]);
    assertEquals(take(ctx, "part 255", 1).bytes[0], 7);
  }));
