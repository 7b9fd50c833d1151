/**
 * Runs the hooks of add-ins: those of the requests in one backend of the registry, the others in
 * each.
 *
 * The request hooks run while the directory of the main area is being initialised: the registry's
 * init-once sees to it that exactly one backend is at it, that all others wait, and that the next
 * takes over, on zeroed memory, when it fails or dies.
 *
 * @module
 */

import { Addin, definitionOf, namesake } from "./addin.ts";
import { Context, Requests } from "./context.ts";
import { ADDINS_MAX, DIRECTORY_NAME, DIRECTORY_SIZE } from "./directory.ts";
import { Handle, type RegisterStatic } from "./handle.ts";
import type { Backend } from "../backend.ts";
import { DsmrError } from "../errors.ts";
import { describe, messageOf } from "../ffi/native.ts";
import { insideInit, isInsideInit } from "../init_scope.ts";
import type { LWLock } from "../lwlock.ts";
import { dynamicHint, MainArea, plainly, unwrapped } from "./main_area.ts";
import { getSegment, getSegmentSync } from "../named_segments.ts";
import { isPromise } from "../promise.ts";
import type { Registry } from "../registry.ts";
import type { Segment } from "../segment.ts";
import { type AsyncWaitOptions, within } from "../wait.ts";

/** How an add-in stands with a backend. Told apart by a text: so all settings of tsc can. */
type State =
  /** `ended` settles when its hooks have ended, if a task runs them. Never rejects. */
  | { is: "starting"; ended: Promise<void> | undefined }
  | { is: "started"; result: unknown };

/** What the hooks run for. */
export interface Opening {
  /** The registry that is being opened. */
  registry: Registry;
  /** Whether no hook has closed it. */
  isOpen: () => boolean;
  registerStatic: RegisterStatic;
}

/** By backend: what was started lasts as long as it. */
const all = new WeakMap<Backend, Addins>();

/** The add-ins of a backend. */
export function addinsOf(backend: Backend, registry: string): Addins {
  let addins = all.get(backend);
  if (addins === undefined) all.set(backend, addins = new Addins(backend, registry));
  return addins;
}

/** The add-ins of one backend. */
export class Addins {
  readonly #backend: Backend;
  readonly #registry: string;
  readonly #states = new Map<Addin, State>();
  #area: MainArea | undefined;

  constructor(backend: Backend, registry: string) {
    this.#backend = backend;
    this.#registry = registry;
  }

  /** What the startup hook has returned. */
  result(addin: Addin): unknown {
    if (!(addin instanceof Addin)) {
      throw new TypeError(`The add-in is ${describe(addin)}, not one of defineAddin().`);
    }
    const state = this.#states.get(addin);
    if (state?.is === "started") return state.result;
    throw new DsmrError(
      "NOT_FOUND",
      state === undefined
        ? `Registry "${this.#registry}" was opened without add-in "${addin.name}". Open it with ` +
          "{ addins: [...] }; it may be open already."
        : `Add-in "${addin.name}" is still starting: its hooks have not ended. Ask for it when ` +
          "the registry has been opened.",
    );
  }

  /** The locks of a requested tranche. */
  tranche(name: string): LWLock[] {
    this.#area ??= MainArea.lookup(this.#backend, this.#registry);
    if (this.#area !== undefined) return this.#area.tranche(name);
    throw new DsmrError(
      "NOT_FOUND",
      `No add-in has requested tranche "${name}": registry "${this.#registry}" has not been ` +
        `opened with add-ins.${dynamicHint(this.#backend, name)}`,
    );
  }

  // ---- blocking -------------------------------------------------------------------------------

  /** Starts those that are not started yet. */
  startSync(addins: readonly Addin[], opening: Opening, timeout: number): void {
    for (const addin of addins) {
      this.#checkName(addin);
      const state = this.#states.get(addin);
      if (state?.is === "started") continue;
      if (state !== undefined) {
        throw this.#alreadyAt(`the hooks of add-in "${addin.name}"`, this.#isInside(addin, state));
      }
      const running: State = { is: "starting", ended: undefined };
      this.#states.set(addin, running);
      try {
        const area = this.#attachSync(addins, timeout);
        this.#states.set(addin, { is: "started", result: this.#runSync(addin, area, opening) });
      } finally {
        this.#forget(addin, running);
      }
    }
  }

  #runSync(addin: Addin, area: MainArea, opening: Opening): unknown {
    const { startup, init } = definitionOf(addin);
    const { registry } = opening;
    const context = Context.forStartup(addin.name, registry, () => this.#usable(area));
    const result = this.#hookSync(addin, "startup", () => startup?.(context), opening);
    if (init === undefined) return result;
    const handle = new Handle(addin.name, registry, opening.registerStatic);
    try {
      this.#hookSync(addin, "init", () => init(handle), opening);
      this.#allocate(addin, () => handle.endSync());
    } finally {
      handle.close();
    }
    return result;
  }

  #hookSync(addin: Addin, hook: string, run: () => unknown, opening?: Opening): unknown {
    let result: unknown;
    try {
      result = run();
      if (isPromise(result)) {
        throw new TypeError(
          "It returned a promise, which openSync() cannot wait for. Use await Registry.open(...).",
          { cause: result },
        );
      }
    } catch (cause) {
      throw this.#failed(addin, hook, cause);
    }
    this.#checkOpen(addin, hook, opening);
    return result;
  }

  #attachSync(addins: readonly Addin[], timeout: number): MainArea {
    if (this.#area !== undefined) return this.#area;
    let directory: Segment;
    try {
      directory = getSegmentSync(
        this.#backend,
        DIRECTORY_NAME,
        DIRECTORY_SIZE,
        (fresh) => this.#makeSync(addins, fresh),
        { timeout },
      );
    } catch (cause) {
      throw this.#explained(cause);
    }
    return this.#area = new MainArea(this.#backend, this.#registry, directory);
  }

  #makeSync(addins: readonly Addin[], directory: Segment): void {
    const requests = checkCount(addins);
    for (const addin of addins) {
      const context = Context.forRequest(addin.name, requests);
      try {
        this.#hookSync(addin, "request", () => definitionOf(addin).request?.(context));
      } finally {
        context.close();
      }
    }
    MainArea.makeSync(this.#backend, directory, requests.all);
  }

  // ---- without blocking -------------------------------------------------------------------------

  /** Starts those that are not started yet; waits for those that another task starts. */
  async start(
    addins: readonly Addin[],
    opening: Opening,
    waiting: AsyncWaitOptions,
  ): Promise<void> {
    for (const addin of addins) {
      this.#checkName(addin);
      while (this.#states.get(addin)?.is !== "started") {
        const state = this.#states.get(addin);
        if (state === undefined) {
          await this.#startOne(addin, addins, opening, waiting);
          continue;
        }
        const what = `the hooks of add-in "${addin.name}"`;
        if (state.is === "started") break;
        if (this.#isInside(addin, state) || state.ended === undefined) {
          throw this.#alreadyAt(what, true);
        }
        await within(state.ended, waiting, () => this.#late(what, waiting));
      }
    }
  }

  async #startOne(
    addin: Addin,
    addins: readonly Addin[],
    opening: Opening,
    waiting: AsyncWaitOptions,
  ): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const running: State = { is: "starting", ended: promise };
    this.#states.set(addin, running);
    try {
      const result = await insideInit(
        {
          name: this.#scopeOf(addin),
          databaseId: 0,
          instance: this.#backend.instance,
          isOver: () => this.#states.get(addin) !== running,
        },
        async () => await this.#run(addin, await this.#attach(addins, waiting), opening),
      );
      this.#states.set(addin, { is: "started", result });
    } finally {
      this.#forget(addin, running);
      resolve();
    }
  }

  async #run(addin: Addin, area: MainArea, opening: Opening): Promise<unknown> {
    const { startup, init } = definitionOf(addin);
    const { registry } = opening;
    const context = Context.forStartup(addin.name, registry, () => this.#usable(area));
    const result = await this.#hook(addin, "startup", () => startup?.(context), opening);
    if (init === undefined) return result;
    const handle = new Handle(addin.name, registry, opening.registerStatic);
    try {
      await this.#hook(addin, "init", () => init(handle), opening);
      await this.#allocate(addin, () => handle.end());
    } finally {
      handle.close();
    }
    return result;
  }

  async #hook(
    addin: Addin,
    hook: string,
    run: () => unknown,
    opening?: Opening,
  ): Promise<unknown> {
    let result: unknown;
    try {
      result = await run();
    } catch (cause) {
      throw this.#failed(addin, hook, cause);
    }
    this.#checkOpen(addin, hook, opening);
    return result;
  }

  async #attach(addins: readonly Addin[], waiting: AsyncWaitOptions): Promise<MainArea> {
    if (this.#area !== undefined) return this.#area;
    let directory: Segment;
    try {
      directory = await getSegment(
        this.#backend,
        DIRECTORY_NAME,
        DIRECTORY_SIZE,
        async (fresh) => await this.#make(addins, fresh),
        waiting,
      );
    } catch (cause) {
      throw this.#explained(cause);
    }
    return this.#area ??= new MainArea(this.#backend, this.#registry, directory);
  }

  async #make(addins: readonly Addin[], directory: Segment): Promise<void> {
    const requests = checkCount(addins);
    for (const addin of addins) {
      const context = Context.forRequest(addin.name, requests);
      try {
        await this.#hook(addin, "request", () => definitionOf(addin).request?.(context));
      } finally {
        context.close();
      }
    }
    await MainArea.make(this.#backend, directory, requests.all);
  }

  // ---- what goes wrong ---------------------------------------------------------------------------

  /** Runs what makes an add-in's allocations; its errors tell whose they are. */
  #allocate<Result>(addin: Addin, make: () => Result): Result {
    const explain = (cause: unknown): unknown =>
      cause instanceof DsmrError
        ? new DsmrError(
          cause.code,
          `Add-in "${addin.name}" cannot have what it allocates in its init hook: ${cause.message}`,
          { ...cause, cause: cause.cause ?? cause },
        )
        : cause;
    try {
      const result = make();
      if (!(result instanceof Promise)) return result;
      return result.catch((cause) => {
        throw explain(cause);
      }) as Result;
    } catch (cause) {
      throw explain(cause);
    }
  }

  /** What startup has been given serves as long as the backend, whichever registry is closed. */
  #usable(area: MainArea): MainArea {
    if (!this.#backend.isClosed) return area;
    throw new DsmrError("CLOSED", `Registry "${this.#registry}" is closed. Open it again.`);
  }

  #checkName(addin: Addin): void {
    for (const other of this.#states.keys()) {
      if (other !== addin && other.name === addin.name) throw namesake(addin.name);
    }
  }

  /** It has not been started. */
  #forget(addin: Addin, running: State): void {
    if (this.#states.get(addin) === running) this.#states.delete(addin);
  }

  /** Whether the running code is called by the hooks of the add-in. */
  #isInside(addin: Addin, state: State): boolean {
    return state.is === "starting" && state.ended === undefined ||
      isInsideInit(this.#backend.instance, 0, this.#scopeOf(addin));
  }

  /** The name under which a task notes that it is inside the hooks of an add-in. */
  #scopeOf(addin: Addin): string {
    return `\u0001addin\0${this.#backend.id}\0${addin.name}`;
  }

  #failed(addin: Addin, hook: string, cause: unknown): DsmrError {
    return new DsmrError(
      "INIT_FAILED",
      `The ${hook} hook of add-in "${addin.name}" failed: ${messageOf(cause)} Registry ` +
        `"${this.#registry}" was not opened.`,
      { cause },
    );
  }

  #checkOpen(addin: Addin, hook: string, opening: Opening | undefined): void {
    if (opening === undefined || opening.isOpen()) return;
    throw this.#failed(addin, hook, new DsmrError("CLOSED", "It has closed the registry."));
  }

  #alreadyAt(what: string, isInside: boolean): DsmrError {
    return isInside
      ? new DsmrError(
        "INIT_RECURSION",
        `${
          capital(what)
        } open registry "${this.#registry}" with the add-in itself, and would wait ` +
          "for their own end. Use the registry that the hook is given.",
      )
      : new DsmrError(
        "DEADLOCK",
        `A task of this program is running ${what}. Blocking here would keep it from ever ending. ` +
          "Use await Registry.open(...).",
      );
  }

  #late(what: string, { timeout }: AsyncWaitOptions): DsmrError {
    return new DsmrError(
      "TIMEOUT",
      `Another task of this program is still running ${what} for registry "${this.#registry}" after ` +
        `${timeout} ms. Give it more time, or see what that task is doing.`,
      { requested: timeout ?? 0 },
    );
  }

  /** An error about the directory, in terms of add-ins. */
  #explained(thrown: unknown): unknown {
    const cause = unwrapped(thrown);
    // A hook of ours has failed, or what they request cannot be had: that says it all.
    if (cause !== thrown || !(cause instanceof DsmrError)) return cause;
    const { code, message } = cause;
    if (code === "SIZE_MISMATCH") {
      return new DsmrError(
        "VERSION_MISMATCH",
        `The main area of registry "${this.#registry}" was made by another version of this library. ` +
          "Destroy the registry, or use one version.",
        { ...cause, cause },
      );
    }
    if (code === "INIT_RECURSION") return this.#alreadyAt("the request hooks", true);
    const isTask = this.#backend.initializing(DIRECTORY_NAME) !== undefined;
    if (code === "DEADLOCK" && isTask) return this.#alreadyAt("the request hooks", false);
    if (code !== "TIMEOUT" && code !== "DEADLOCK") return cause;
    return new DsmrError(
      code,
      `Another backend of registry "${this.#registry}" is still running its request hooks: ` +
        plainly(message),
      { ...cause, cause },
    );
  }
}

/** The requests of as many add-ins as fit. */
function checkCount(addins: readonly Addin[]): Requests {
  if (addins.length <= ADDINS_MAX) return new Requests();
  throw new DsmrError(
    "NO_SPACE",
    `${addins.length} add-ins are given; the main area has room for ${ADDINS_MAX}. Open the ` +
      "registry with fewer.",
    { actual: ADDINS_MAX, requested: addins.length },
  );
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
