/** Add-ins in one process: their hooks, what these may do, and what is refused. */

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  type AddinDefinition,
  defineAddin,
  DsmrError,
  type OpenOptions,
  Registry,
  type RequestContext,
  type StartupContext,
} from "../lib/mod.ts";
import { assertHookFails, openWith, take } from "./_addins.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene } from "./_scene.ts";

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

test("add-ins that request nothing need no main area", () =>
  inScene((scene) => {
    const ctx = openWith(scene, { name: "idle", startup: (ctx) => ctx });
    assertEquals(ctx.preloaded, true);
    assertFails(
      () => ctx.addinInitLock.withSync("exclusive", () => ctx.initStruct("x", 1)),
      "NO_SPACE",
      '"idle" has requested 0',
    );
    const nothing = defineAddin({ name: "nothing" });
    const registry = scene.open({ addins: [nothing] });
    assertStrictEquals(registry.addin(nothing), undefined);
    for (const wrong of [null, undefined, "nothing", { name: "nothing" }]) {
      const ask = () => registry.addin(wrong as typeof nothing);
      assertThrows(ask, TypeError, "not one of defineAddin()");
    }
  }));

test("requests outside of the request hook, and the main area inside of it, are refused", () =>
  inScene((scene) => {
    let early: RequestContext | undefined;
    const refused: unknown[] = [];
    const ctx = openWith(scene, {
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

test("an add-in that fails takes back none that have started; with a new backend all start anew", () =>
  inScene((scene) => {
    const order: string[] = [];
    const good = defineAddin({ name: "good", startup: () => void order.push("good") });
    const bad = defineAddin({
      name: "bad",
      startup() {
        order.push("bad");
        throw new Error("as planned");
      },
    });
    const keep = scene.open();
    assertFails(() => scene.open({ addins: [good, bad] }), "INIT_FAILED", '"bad"');
    scene.open({ addins: [good] }).close();
    assertEquals(order, ["good", "bad"]);
    assertEquals([...keep.backends()].length, 1);
    keep.close();
    scene.open({ addins: [good] });
    assertEquals(order, ["good", "bad", "good"]);
  }));

test("a registry that was destroyed is sized anew, by whoever opens it first", () =>
  inScene((scene) => {
    const make = (name: string) =>
      defineAddin({
        name,
        request(ctx) {
          ctx.requestSpace(64);
          ctx.requestTranche(name, 1);
        },
        startup: (ctx) => ctx,
      });
    const [first, second] = [make("first"), make("second")];
    const old = scene.open({ addins: [first] });
    assertEquals(scene.open({ addins: [second] }).addin(second).preloaded, false);
    const area = take(old.addin(first), "a", 64);
    Registry.destroy("test", { dir: scene.dir });
    const anew = scene.open({ addins: [second] });
    assertEquals(anew.addin(second).preloaded, true);
    assertEquals(take(anew.addin(second), "a", 64).found, false);
    assertEquals([...anew.tranches()].map(({ name }) => name).sort(), ["addin-init", "second"]);
    // Who is still in the old one has its memory, and no more.
    assertEquals(area.bytes[0], 7);
    assertFails(() => old.getTranche("first"), "CLOSED");
    assertFails(() => take(old.addin(first), "a", 64), "CLOSED");
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
    let runs = 0;
    for (const hook of ["request", "startup"] as const) {
      const entered = Promise.withResolvers<void>();
      const gate = Promise.withResolvers<void>();
      const addin = defineAddin({
        name: "gated",
        async [hook]() {
          runs++;
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
      const other = { dir, addins: [addin], database: "other" };
      // Another backend of this thread has hooks of its own, but only one runs the request hooks.
      const otherOpening = hook === "request" ? Registry.open(hook, other) : undefined;
      if (otherOpening !== undefined) {
        assertFails(() => Registry.openSync(hook, other), "DEADLOCK", "task of this program");
      }
      const abort = new AbortController();
      const aborted = Registry.open(hook, { dir, addins: [addin], signal: abort.signal })
        .then(() => "opened", (error: unknown) => error);
      abort.abort("enough");
      assertEquals(await aborted, "enough");
      gate.resolve();
      using registry = await opening;
      (await otherOpening)?.close();
      assertEquals(runs, 1);
      runs = 0;
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
    const second = Registry.openSync("other", { dir: scene.dir });
    registry.close();
    // But of all, as long as it is open by another object.
    kept?.addinInitLock.withSync("exclusive", () => {});
    assertFails(() => kept?.registry.backendId, "CLOSED");
    second.close();
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
    assertThrows(() => open(7), TypeError, "array");
    assertEquals(scene.files(), []);
    const registry = open([one, one]);
    assertFails(() => open([two]), "EXISTS", '"x"');
    assertFails(() => registry.addin(two), "NOT_FOUND", '"x"', "addins");
    assertEquals([...registry.backends()].length, 1);
    assertEquals([...Registry.list({ dir: scene.dir })][0]?.backends, 1);
  }));

test("no add-ins at all may be said as null, as with every option", () =>
  inScene((scene) => {
    const options = { addins: null, supervise: null } as unknown as OpenOptions;
    assertEquals([...scene.open(options).segments()], []);
  }));
