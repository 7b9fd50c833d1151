/**
 * The add-in init lock: PostgreSQL's AddinShmemInitLock.
 *
 * What is made in the main area while it is held counts once it is let go of. A hold that ends
 * badly (its callback throws, or its process dies) has made nothing: who comes next starts anew.
 *
 * @module
 */

import type { AddinDirectory } from "./directory.ts";
import { checkCallback, Hold, type LockMode, type WaitOptions } from "../lock_arguments.ts";
import type { LWLock } from "../lwlock.ts";
import { isPromise } from "../promise.ts";
import type { AsyncWaitOptions } from "../wait.ts";

// For the other modules of this package, and for nobody else: not a member of the class.

/** What the running hold has made; undefined if this backend does not hold it exclusively. */
export let holdOf: <Area>(lock: AddinInitLock) => InitHold<Area> | undefined;

/** One exclusive hold of the lock. */
export interface InitHold<Area> {
  /** What it has made, by name. */
  readonly areas: Map<string, Area>;
  /** Its number in the directory, from its first area on. */
  number: number | undefined;
  /** Whether `release` may end it: not if it is an async callback's or a task's. */
  readonly isOpen: boolean;
}

/**
 * The lock that add-ins hold around {@linkcode StartupContext.initStruct}. One for each registry;
 * it has the calls of an {@linkcode LWLock}.
 *
 * Areas of the main area that are made while it is held are there for others when it is let go
 * of. They are not, and the next who asks finds zeroed memory and `found: false`, when the
 * callback of {@linkcode withSync} or {@linkcode with} throws or its process dies. With the other
 * forms, letting go says that all went well: so prefer those two.
 *
 * A death inside does not leave it abandoned: what it guards mends itself. Data that is changed
 * later belongs under locks of the add-in's own, see {@linkcode RequestContext.requestTranche}.
 *
 * @example
 * ```ts
 * import { defineAddin, Registry } from "@dsmr/registry";
 *
 * const counter = defineAddin({
 *   name: "counter",
 *   request: (ctx) => ctx.requestSpace(64),
 *   startup: (ctx) =>
 *     ctx.addinInitLock.withSync("exclusive", () => {
 *       const area = ctx.initStruct("counter", 64);
 *       const words = new Int32Array(area.segment.buffer, area.byteOffset, 16);
 *       if (!area.found) words[0] = 100;
 *       return words;
 *     }),
 * });
 * using registry = Registry.openSync("doc-init-lock", { addins: [counter] });
 * console.log(Atomics.add(registry.addin(counter), 0, 1)); // 100
 * Registry.destroy("doc-init-lock");
 * ```
 */
export class AddinInitLock {
  static {
    holdOf = <Area>(lock: AddinInitLock) => lock.#current as InitHold<Area> | undefined;
  }

  readonly #lock: LWLock;
  readonly #directory: AddinDirectory;
  #hold: InitHold<unknown> | undefined;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(lock: LWLock, directory: AddinDirectory) {
    this.#lock = lock;
    this.#directory = directory;
  }

  /** `releaseAll` may have taken it away. */
  get #current(): InitHold<unknown> | undefined {
    return this.#lock.heldByMe("exclusive") ? this.#hold : undefined;
  }

  /**
   * Takes it; as {@linkcode LWLock.acquireSync}.
   *
   * @throws As {@linkcode LWLock.acquireSync}.
   */
  acquireSync(mode: LockMode = "exclusive", options?: WaitOptions): void {
    this.#lock.acquireSync(mode, options);
    this.#begin(mode, true);
  }

  /**
   * Takes it without blocking; as {@linkcode LWLock.acquire}.
   *
   * @throws As {@linkcode LWLock.acquire}.
   */
  async acquire(mode: LockMode = "exclusive", options?: AsyncWaitOptions): Promise<void> {
    await this.#lock.acquire(mode, options);
    this.#begin(mode, true);
  }

  /**
   * Takes it if it is free at once; as {@linkcode LWLock.tryAcquire}.
   *
   * @returns false if it is not, and nothing has changed.
   */
  tryAcquire(mode: LockMode = "exclusive"): boolean {
    const isHeld = this.#lock.tryAcquire(mode);
    if (isHeld) this.#begin(mode, true);
    return isHeld;
  }

  /**
   * Lets go. What was made while it was held is there for others from now on.
   *
   * @throws {DsmrError} `NOT_HELD`, `DETACHED`, `CLOSED`.
   */
  release(): void {
    const hold = this.#hold;
    if (hold?.isOpen === true) this.#commit(hold);
    this.#lock.release();
  }

  /**
   * Runs `callback` with the lock held. If it throws, or returns a promise, what it has made in
   * the main area counts for nothing.
   *
   * @returns what the callback returns.
   * @throws As {@linkcode LWLock.withSync}.
   */
  withSync<Result>(mode: LockMode, callback: () => Result, options?: WaitOptions): Result {
    checkCallback(callback);
    let hold: InitHold<unknown> | undefined;
    try {
      return this.#lock.withSync(mode, () => {
        hold = this.#begin(mode, true);
        const result = callback();
        if (!isPromise(result)) this.#commit(hold);
        return result;
      }, options);
    } finally {
      this.#forget(hold);
    }
  }

  /**
   * The same without blocking; `callback` may return a promise, which is awaited.
   *
   * @returns what the callback returns, awaited.
   * @throws As {@linkcode LWLock.with}.
   */
  async with<Result>(
    mode: LockMode,
    callback: () => Result,
    options?: AsyncWaitOptions,
  ): Promise<Awaited<Result>> {
    checkCallback(callback);
    let hold: InitHold<unknown> | undefined;
    try {
      return await this.#lock.with(mode, async () => {
        hold = this.#begin(mode, false);
        const result = await callback();
        this.#commit(hold);
        return result;
      }, options);
    } finally {
      this.#forget(hold);
    }
  }

  /**
   * Takes it until the end of a `using` block, which also when it throws ends well: what it has
   * made is there for others. {@linkcode withSync} knows better.
   *
   * @throws As {@linkcode LWLock.acquireSync}.
   */
  holdSync(mode: LockMode = "exclusive", options?: WaitOptions): Disposable {
    const held = this.#lock.holdSync(mode, options);
    return this.#disposable(this.#begin(mode, true), held);
  }

  /**
   * The same without blocking: `using held = await lock.hold();`
   *
   * @throws As {@linkcode LWLock.acquire}.
   */
  async hold(mode: LockMode = "exclusive", options?: AsyncWaitOptions): Promise<Disposable> {
    const held = await this.#lock.hold(mode, options);
    return this.#disposable(this.#begin(mode, false), held);
  }

  /** Whether this backend holds it, in any mode or in the given one. */
  heldByMe(mode?: LockMode): boolean {
    return this.#lock.heldByMe(mode);
  }

  #disposable(hold: InitHold<unknown> | undefined, held: Disposable): Disposable {
    return new Hold(() => {
      try {
        this.#commit(hold);
      } finally {
        held[Symbol.dispose]();
      }
    });
  }

  #begin(mode: LockMode, isOpen: boolean): InitHold<unknown> | undefined {
    if (mode === "shared") return undefined;
    // The holder before died. Its areas have not been committed, which is all there is to mend.
    if (this.#lock.abandoned) this.#lock.markConsistent();
    return this.#hold = { areas: new Map(), number: undefined, isOpen };
  }

  /** With the lock still held: nobody else sees the areas before they are committed. */
  #commit(hold: InitHold<unknown> | undefined): void {
    if (hold === undefined || hold !== this.#hold) return;
    this.#hold = undefined;
    // Not if releaseAll has let go of the lock in between: another may be at it by now.
    if (hold.number === undefined || !this.#lock.heldByMe("exclusive")) return;
    this.#directory.commit(hold.number);
  }

  #forget(hold: InitHold<unknown> | undefined): void {
    if (hold !== undefined && hold === this.#hold) this.#hold = undefined;
  }
}
