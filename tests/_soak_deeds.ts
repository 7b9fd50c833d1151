/**
 * What the members of a soak do. Who is inside a lock puts itself into the lock's fence, a word,
 * and finds nobody there but somebody who was killed: then, and only then, the lock of a segment
 * is abandoned. Shared holders find nobody there, from beginning to end.
 *
 * Locks of segments are nested in one order, and a task waits for nothing else meanwhile. Who
 * blocks the thread keeps all its tasks from letting go, so that is always limited.
 *
 * @module
 */

import { codeOf, isStolen, orBusyHere, type Patience, patience } from "./_soak_patience.ts";
import { type DsmrError, type LockMode, type LWLock, Registry, type Segment } from "../lib/mod.ts";
import {
  briefName,
  FENCES,
  insider,
  killedWord,
  lifeOf,
  lockOf,
  LOCKS,
  SIGNALS,
  STOLEN_LOCKS,
  stolenName,
  VARIABLES,
  WEB_FENCES,
  WEB_LOCKS,
  webName,
  WORDS,
  WORDS_AT,
} from "./_soak_layout.ts";

/** Not a measurement: who waits so long at the end waits for a lock that somebody has leaked. */
const FAREWELL_MS = 30_000;
const BRIEF_BYTES = 8192;
const BRIEF_MAGIC = 0x5eed;

export interface Place {
  registry: Registry;
  control: Int32Array;
  dir: string;
  life: number;
  task: number;
  random: () => number;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class Deeds {
  readonly #place: Place;
  readonly #field: Segment;
  readonly #words: Int32Array;
  readonly #kinds: [weight: number, name: string, run: () => unknown][] = [
    [20, "lock", () => this.#lock(this.#below(LOCKS))],
    [8, "lock sync", () => this.#lockSync(this.#below(LOCKS))],
    [4, "variable", () => this.#variable(this.#below(LOCKS))],
    [8, "word", () => this.#word()],
    [10, "notify", () => this.#notify()],
    [6, "signal", () => this.#signal()],
    [14, "request", () => this.#request(this.#below(WEB_LOCKS))],
    [4, "steal", () => this.#steal()],
    [2, "query", () => this.#query()],
    [4, "brief segment", () => this.#brief()],
    [1, "watch", () => this.#watch()],
    [1, "visit", () => this.#visit()],
  ];

  constructor(place: Place) {
    this.#place = place;
    this.#field = place.registry.getNamedSegmentSync("field");
    this.#words = new Int32Array(this.#field.buffer);
  }

  #below(limit: number): number {
    return Math.floor(this.#place.random() * limit);
  }

  #chance(one: number): boolean {
    return this.#below(one) === 0;
  }

  /** Does one, and returns what. */
  async one(): Promise<string> {
    let at = this.#place.random() * this.#kinds.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, name, run] of this.#kinds) {
      at -= weight;
      if (at >= 0) continue;
      try {
        await run();
      } catch (error) {
        throw new Error(`${name}: ${error instanceof Error ? error.stack : error}`);
      }
      return name;
    }
    return "nothing";
  }

  #patience(isLimited: boolean): Patience {
    return patience(this.#place.random, isLimited);
  }

  // ---- fences -----------------------------------------------------------------------------

  #isKilled(insider: number): boolean {
    return Atomics.load(this.#place.control, killedWord(lifeOf(insider))) !== 0;
  }

  /** Comes in alone. The lock, where it says whether somebody has died inside. */
  #enter(fence: number, what: string, lock?: LWLock): void {
    const { life, task } = this.#place;
    const found = Atomics.exchange(this.#words, fence, insider(life, task));
    const isAbandoned = lock?.abandoned;
    if (found !== 0 && (!this.#isKilled(found) || isAbandoned === false)) {
      throw new Error(`${what}: ${found} is inside, abandoned: ${isAbandoned}`);
    }
    if (isAbandoned === true) lock?.markConsistent();
  }

  #leave(fence: number, what: string): void {
    const { life, task } = this.#place;
    const found = Atomics.exchange(this.#words, fence, 0);
    if (found !== insider(life, task)) throw new Error(`${what}: ${found} has come in`);
  }

  #look(fence: number, what: string): void {
    const found = Atomics.load(this.#words, fence);
    if (found !== 0 && !this.#isKilled(found)) throw new Error(`${what}: ${found} is inside`);
  }

  #begin(lock: number, mode: LockMode): void {
    const what = `lock ${lock} ${mode}`;
    if (mode === "shared") return this.#look(FENCES + lock, what);
    this.#enter(FENCES + lock, what, lockOf(this.#field, lock));
  }

  #finish(lock: number, mode: LockMode): void {
    const what = `lock ${lock} ${mode}, at the end`;
    if (mode === "shared") return this.#look(FENCES + lock, what);
    if (this.#chance(3)) {
      const value = new BigInt64Array(this.#words.buffer, VARIABLES + lock * 8, 1);
      lockOf(this.#field, lock).updateVar(VARIABLES + lock * 8, Atomics.load(value, 0) + 1n);
    }
    this.#leave(FENCES + lock, what);
  }

  // ---- locks of segments ------------------------------------------------------------------

  async #section(lock: number, mode: LockMode, depth: number): Promise<void> {
    this.#begin(lock, mode);
    const way = this.#below(4);
    if (way < 2) await pause(this.#place.random() * 3);
    else if (way === 2) await undefined;
    if (depth < 2 && lock + 1 < LOCKS && this.#chance(5)) {
      await this.#lock(lock + 1 + this.#below(LOCKS - lock - 1), depth + 1);
    }
    this.#finish(lock, mode);
  }

  async #lock(lock: number, depth = 0): Promise<void> {
    const lwlock = lockOf(this.#field, lock);
    const mode = this.#chance(2) ? "exclusive" : "shared";
    const patience = this.#patience(false);
    const { options } = patience;
    const way = this.#below(5);
    try {
      if (way === 0) {
        return await lwlock.with(mode, () => this.#section(lock, mode, depth), options);
      }
      if (way === 1) {
        using _held = await lwlock.hold(mode, options);
        return await this.#section(lock, mode, depth);
      }
      if (way === 2) {
        if (!await lwlock.acquireOrWait(options)) return;
        await this.#section(lock, "exclusive", depth);
      } else if (way === 3) {
        if (!lwlock.tryAcquire(mode)) return;
        await this.#section(lock, mode, depth);
      } else {
        await lwlock.acquire(mode, options);
        await this.#section(lock, mode, depth);
      }
      lwlock.release();
    } catch (error) {
      // What another task has taken without the queue is nobody's but its own.
      if (way === 3) patience.accept(error, "ALREADY_HELD");
      else patience.accept(error);
    } finally {
      patience.end();
    }
  }

  #lockSync(lock: number): void {
    const lwlock = lockOf(this.#field, lock);
    const mode = this.#chance(2) ? "exclusive" : "shared";
    const section = (mode: LockMode) => {
      this.#begin(lock, mode);
      for (let spins = this.#below(2000); spins > 0; spins--) Atomics.load(this.#words, 0);
      this.#finish(lock, mode);
    };
    // Limited: whoever has it may be a task that waits for one of ours, which cannot go on.
    const options = { timeout: this.#below(this.#chance(8) ? 200 : 20) };
    const way = this.#below(5);
    try {
      if (way === 0) return lwlock.withSync(mode, () => section(mode), options);
      if (way === 1) {
        using _held = lwlock.holdSync(mode, options);
        return section(mode);
      }
      if (way === 2) {
        if (!lwlock.acquireOrWaitSync(options)) return;
        section("exclusive");
      } else if (way === 3) {
        if (!lwlock.tryAcquire(mode)) return;
        section(mode);
      } else {
        lwlock.acquireSync(mode, options);
        section(mode);
      }
      lwlock.release();
    } catch (error) {
      // Tasks of this program may hold it, and others may wait for what they hold.
      const codes = ["ALREADY_HELD", "DEADLOCK", "TIMEOUT"];
      if (!codes.includes(codeOf(error) ?? "")) throw error;
    }
  }

  async #variable(lock: number): Promise<void> {
    const lwlock = lockOf(this.#field, lock);
    const at = VARIABLES + lock * 8;
    const expected = Atomics.load(new BigInt64Array(this.#words.buffer, at, 1), 0);
    if (this.#chance(4)) {
      try {
        lwlock.waitForVarSync(at, expected, { timeout: this.#below(10) });
      } catch (error) {
        const code = codeOf(error) ?? "";
        if (!["TIMEOUT", "ALREADY_HELD", "DEADLOCK"].includes(code)) throw error;
      }
      return;
    }
    const patience = this.#patience(false);
    try {
      await lwlock.waitForVar(at, expected, patience.options);
    } catch (error) {
      // Of a lock that another task of this program holds or waits for.
      patience.accept(error, "ALREADY_HELD");
    } finally {
      patience.end();
    }
  }

  // ---- words and signals --------------------------------------------------------------------

  async #word(): Promise<void> {
    const at = WORDS_AT + this.#below(WORDS) * 4;
    const expected = Atomics.load(this.#words, at / 4);
    if (this.#chance(5)) {
      orBusyHere(() => this.#field.waitSync(at, expected, { timeout: this.#below(5) }));
      return;
    }
    const patience = this.#patience(true);
    try {
      await this.#field.wait(at, expected, patience.options);
    } catch (error) {
      patience.accept(error);
    } finally {
      patience.end();
    }
  }

  #notify(): void {
    const at = WORDS_AT + this.#below(WORDS) * 4;
    if (this.#chance(2)) Atomics.add(this.#words, at / 4, 1);
    orBusyHere(() => this.#field.notify(at, [1, 2, Infinity][this.#below(3)]));
    const signal = this.#place.registry.signal(`signal ${this.#below(SIGNALS)}`);
    orBusyHere(() => this.#chance(2) ? signal.notify() : signal.notifyAll());
  }

  async #signal(): Promise<void> {
    const signal = this.#place.registry.signal(`signal ${this.#below(SIGNALS)}`);
    const patience = this.#patience(true);
    try {
      const way = this.#below(6);
      if (way === 0) orBusyHere(() => signal.waitSync({ timeout: this.#below(5) }));
      else if (way === 1 && patience.options.signal !== undefined) {
        for await (const _ of signal.notifications({ signal: patience.options.signal })) {
          if (this.#chance(3)) break;
        }
      } else await signal.wait(patience.options);
    } catch (error) {
      if (codeOf(error) !== "TIMEOUT") patience.accept(error);
    } finally {
      patience.end();
    }
  }

  // ---- locks by name ------------------------------------------------------------------------

  async #request(lock: number): Promise<void> {
    const mode = this.#chance(2) ? "exclusive" : "shared";
    const what = `${webName(lock)} ${mode}`;
    const trouble = new Error("thrown by the callback");
    const body = async () => {
      if (mode === "exclusive") this.#enter(WEB_FENCES + lock, what);
      else this.#look(WEB_FENCES + lock, what);
      if (this.#chance(2)) await pause(this.#place.random() * 3);
      if (mode === "exclusive") this.#leave(WEB_FENCES + lock, what);
      else this.#look(WEB_FENCES + lock, `${what}, at the end`);
      if (this.#chance(20)) throw trouble;
    };
    const { locks } = this.#place.registry;
    const patience = this.#patience(false);
    const { signal } = patience.options;
    try {
      if (this.#chance(5)) {
        await locks.request(
          webName(lock),
          { mode, ifAvailable: true },
          (lock) => lock === null ? undefined : body(),
        );
      } else {
        await locks.request(webName(lock), { mode, ...(signal && { signal }) }, body);
      }
    } catch (error) {
      if (error !== trouble) patience.accept(error);
    } finally {
      patience.end();
    }
  }

  async #steal(): Promise<void> {
    const options = this.#chance(4) ? { steal: true } : {};
    try {
      await this.#place.registry.locks.request(
        stolenName(this.#below(STOLEN_LOCKS)),
        options,
        () => pause(this.#place.random() * 3),
      );
    } catch (error) {
      if (!isStolen(error)) throw error;
    }
  }

  async #query(): Promise<void> {
    const { registry } = this.#place;
    const { held, pending } = await registry.locks.query();
    for (const { name, clientId } of [...held, ...pending]) {
      if (!/^(web|stolen) \d$/.test(name) || clientId === "") throw new Error(`lock ${name}`);
    }
    try {
      for (const { pid } of registry.backends()) if (!(pid > 0)) throw new Error(`pid ${pid}`);
      for (const { segment } of registry.waits()) if (segment === "") throw new Error("nameless");
    } catch (error) {
      if (codeOf(error) !== "TIMEOUT") throw error;
    }
  }

  // ---- segments and registries ----------------------------------------------------------------

  async #brief(): Promise<void> {
    const { registry, task } = this.#place;
    const name = briefName(task);
    const trouble = new Error("thrown by the initialiser");
    const patience = this.#patience(false);
    const lifetime = this.#chance(2) ? "registry" : "attached";
    try {
      using segment = await registry.getNamedSegment(name, BRIEF_BYTES, async (fresh) => {
        const words = new Int32Array(fresh.buffer);
        if (words.some((word) => word !== 0)) throw new Error(`${name} is not fresh`);
        words.fill(BRIEF_MAGIC, 0, words.length / 2);
        if (this.#chance(2)) await pause(this.#place.random() * 5);
        if (this.#chance(8)) throw trouble;
        words.fill(BRIEF_MAGIC, words.length / 2);
      }, { ...patience.options, lifetime });
      const words = new Int32Array(segment.buffer);
      if (words.some((word) => word !== BRIEF_MAGIC)) throw new Error(`${name} is half-made`);
      if (this.#chance(3)) registry.dropSegment(name);
    } catch (error) {
      const isOurs = codeOf(error) === "INIT_FAILED" && (error as DsmrError).cause === trouble;
      if (!isOurs) patience.accept(error);
    } finally {
      patience.end();
    }
  }

  async #watch(): Promise<void> {
    const reason = new Error("seen enough");
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(reason), this.#below(300));
    try {
      for await (const change of this.#place.registry.watch({ signal: controller.signal })) {
        if (change.type === "backend-left" && this.#chance(3)) break;
      }
    } catch (error) {
      if (error !== reason) throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits by a backend of its own, which is closed meanwhile. */
  async #visit(): Promise<void> {
    const { dir, task } = this.#place;
    const patience = this.#patience(false);
    const { signal } = patience.options;
    try {
      const visitor = await Registry.open("soak", {
        dir,
        database: `visitor ${task}`,
        ...(signal && { signal }),
      });
      const field = visitor.getNamedSegmentSync("field");
      const waits = [
        lockOf(field, this.#below(LOCKS)).acquire(this.#chance(2) ? "exclusive" : "shared"),
        visitor.locks.request(webName(this.#below(WEB_LOCKS)), { mode: "shared" }, () => {}),
        field.wait(WORDS_AT, Atomics.load(this.#words, WORDS_AT / 4)),
        visitor.signal(`signal ${this.#below(SIGNALS)}`).wait(),
      ];
      const ends = Promise.allSettled(waits);
      await pause(this.#below(5));
      visitor.close();
      for (const end of await ends) {
        const code = end.status === "rejected" ? codeOf(end.reason) : "CLOSED";
        if (code !== "CLOSED" && code !== "DETACHED" && end.status === "rejected") throw end.reason;
      }
    } catch (error) {
      patience.accept(error);
    } finally {
      patience.end();
    }
  }

  /** Everything is to be had once more: what somebody living has leaked keeps us here. */
  async farewell(): Promise<void> {
    for (let lock = 0; lock < LOCKS; lock++) {
      await lockOf(this.#field, lock).with("exclusive", () => {
        this.#begin(lock, "exclusive");
        this.#finish(lock, "exclusive");
      }, { timeout: FAREWELL_MS });
    }
    for (let lock = 0; lock < WEB_LOCKS + STOLEN_LOCKS; lock++) {
      const isStealable = lock >= WEB_LOCKS;
      const name = isStealable ? stolenName(lock - WEB_LOCKS) : webName(lock);
      const signal = AbortSignal.timeout(FAREWELL_MS);
      try {
        await this.#place.registry.locks.request(name, { signal }, () => {
          if (isStealable) return;
          this.#enter(WEB_FENCES + lock, `${name}, farewell`);
          this.#leave(WEB_FENCES + lock, `${name}, farewell`);
        });
      } catch (error) {
        if (!isStealable || !isStolen(error)) throw error;
      }
    }
  }
}
