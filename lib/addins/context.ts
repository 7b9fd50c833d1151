/**
 * What the request and startup hooks of an add-in are given.
 *
 * @module
 */

import { checkCount, checkName, type RequestContext, type StartupContext } from "./addin.ts";
import { inUnits, REQUESTED_TRANCHES_MAX } from "./directory.ts";
import type { AddinInitLock } from "./init_lock.ts";
import { DsmrError } from "../errors.ts";
import type { LWLock } from "../lwlock.ts";
import type { AddinRequests, MainArea, MainAreaStruct } from "./main_area.ts";
import type { Registry } from "../registry.ts";

/** How many locks a tranche may have: as many fit into a process several times. */
const LOCKS_MAX = 16_384;

/** All that the request hooks of one backend ask for. */
export class Requests {
  readonly all: AddinRequests[] = [];
  readonly #tranches = new Map<string, string>();

  /** The requests of one add-in, still none. */
  start(addin: string): AddinRequests {
    const requests = { addin, space: 0, tranches: [] };
    this.all.push(requests);
    return requests;
  }

  addTranche(requests: AddinRequests, name: string, count: number): void {
    const earlier = this.#tranches.get(name);
    if (earlier !== undefined) {
      throw new DsmrError(
        "EXISTS",
        `Add-in "${requests.addin}" requests tranche "${name}", which add-in "${earlier}" has ` +
          "requested already. Request it once, or begin its name with the add-in's.",
      );
    }
    if (this.#tranches.size === REQUESTED_TRANCHES_MAX) {
      throw new DsmrError(
        "TRANCHES_FULL",
        `Add-in "${requests.addin}" requests tranche "${name}": ${REQUESTED_TRANCHES_MAX} have been ` +
          "requested, which is all there is room for. Request fewer: one with many locks counts once.",
        { actual: REQUESTED_TRANCHES_MAX, requested: REQUESTED_TRANCHES_MAX + 1 },
      );
    }
    this.#tranches.set(name, requests.addin);
    requests.tranches.push({ name, count });
  }
}

/** One object for both hooks: what does not belong into the one says so. */
export class Context implements RequestContext, StartupContext {
  readonly addin: string;
  readonly #where: { requests: Requests; own: AddinRequests } | { registry: Registry };
  readonly #area: (() => MainArea) | undefined;
  #isRequesting: boolean;

  private constructor(
    addin: string,
    where: { requests: Requests; own: AddinRequests } | { registry: Registry },
    area?: () => MainArea,
  ) {
    this.addin = addin;
    this.#where = where;
    this.#area = area;
    this.#isRequesting = area === undefined;
  }

  static forRequest(addin: string, requests: Requests): Context {
    return new Context(addin, { requests, own: requests.start(addin) });
  }

  static forStartup(addin: string, registry: Registry, area: () => MainArea): Context {
    return new Context(addin, { registry }, area);
  }

  /** The request hook has ended. */
  close(): void {
    this.#isRequesting = false;
  }

  requestSpace(bytes: number): void {
    const { own } = this.#requesting("requestSpace");
    checkCount(`The space that add-in "${this.addin}" requests`, bytes, 2 ** 52);
    own.space += inUnits(bytes);
  }

  requestTranche(name: string, count: number): void {
    const { own, requests } = this.#requesting("requestTranche");
    checkName("tranche", name);
    checkCount(`The number of locks of tranche "${name}"`, count, LOCKS_MAX);
    requests.addTranche(own, name, count);
  }

  get registry(): Registry {
    if ("registry" in this.#where) return this.#where.registry;
    throw this.#tooEarly("registry");
  }

  get preloaded(): boolean {
    return this.#started("preloaded").includes(this.addin);
  }

  get addinInitLock(): AddinInitLock {
    return this.#started("addinInitLock").initLock;
  }

  getTranche(name: string): LWLock[] {
    const area = this.#started("getTranche()");
    checkName("tranche", name);
    return area.tranche(name, this.addin);
  }

  initStruct(name: string, size: number): MainAreaStruct {
    const area = this.#started("initStruct()");
    checkName("main area part's", name);
    checkCount(`The size of "${name}" in the main area`, size, Number.MAX_SAFE_INTEGER);
    return area.initStruct(this.addin, name, size);
  }

  #requesting(call: string): { requests: Requests; own: AddinRequests } {
    if (this.#isRequesting && "own" in this.#where) return this.#where;
    throw new DsmrError(
      "UNSUPPORTED",
      `${call}() is called outside of the request hook of add-in "${this.addin}". The main area ` +
        "has its size when the hook has ended. Call it there; or use getNamedSegment() and " +
        "newTranche(), which need no request.",
    );
  }

  #started(what: string): MainArea {
    if (this.#area === undefined) throw this.#tooEarly(what);
    return this.#area();
  }

  #tooEarly(what: string): DsmrError {
    return new DsmrError(
      "UNSUPPORTED",
      `${what} is not there in the request hook of add-in "${this.addin}": the main area is made ` +
        "when all request hooks have ended. Use it in the startup hook.",
    );
  }
}
