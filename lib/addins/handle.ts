/**
 * What an add-in's `init` works with: the handle of dynpgext.
 *
 * @module
 */

import { type AddinHandle, checkName } from "./addin.ts";
import { DsmrError } from "../errors.ts";
import { describe, quote } from "../ffi/native.ts";
import type { Registry } from "../registry.ts";
import { type AsyncInitCallback, checkSize, type InitCallback } from "../requests.ts";
import type { Scope } from "../scope.ts";
import type { Segment } from "../segment.ts";
import type { BackgroundWorker } from "../workers/handle.ts";
import type { WorkerSpec } from "../workers/spec.ts";

/** What {@linkcode AddinHandle.allocateShmem} is asked for. */
export interface ShmemRequest<Payload = undefined> {
  /**
   * Of the segment. With a version in it, as `"my_ext:0.1:value"`, versions with other contents
   * live side by side.
   */
  name: string;
  /** In bytes. */
  size: number;
  /** Fills the fresh memory, whose bytes are all zero, in exactly one backend. */
  callback?: AsyncInitCallback<Payload>;
  /** Handed to the callback as it is. */
  payload?: Payload;
  /** `"global"` (default): one for the registry. `"database"`: one for each database. */
  scope?: Scope;
}

/**
 * Registers a worker of an add-in, once by its name. Given by the registry, so that add-ins know
 * nothing of how workers are run.
 */
export type RegisterStatic = (addin: string, spec: WorkerSpec) => BackgroundWorker;

/** What was allocated by this name: in the database, else in the registry as a whole. */
export function lookupShmem(registry: Registry, name: string): Segment | null {
  let own: Segment | null = null;
  let dropped: unknown;
  try {
    own = registry.lookupSegment(name, { scope: "database" });
  } catch (error) {
    // The database was dropped: it has none any more, but the registry may.
    if (!(error instanceof DsmrError) || error.code !== "CLOSED") throw error;
    dropped = error;
  }
  const found = own ?? registry.lookupSegment(name, { scope: "global" });
  if (found === null && dropped !== undefined) throw dropped;
  return found;
}

/** One name means one thing: not a block in a database and another one in the registry. */
function checkScope(registry: Registry, { name, scope }: ShmemRequest<unknown>): void {
  const other = scope === "database" ? "global" : "database";
  if (registry.lookupSegment(name, { scope: other }) === null) return;
  throw new DsmrError(
    "SCOPE_MISMATCH",
    `Segment "${name}" is there with scope "${other}", and was requested with "${scope}". Put the ` +
      "version into the name.",
  );
}

/** The handle of one run of `init`. */
export class Handle implements AddinHandle {
  readonly name: string;
  readonly registry: Registry;
  readonly #registerStatic: RegisterStatic;
  readonly #requests = new Map<string, ShmemRequest<unknown>>();
  #isOpen = true;

  constructor(name: string, registry: Registry, registerStatic: RegisterStatic) {
    this.name = name;
    this.registry = registry;
    this.#registerStatic = registerStatic;
  }

  allocateShmem<Payload = undefined>(request: ShmemRequest<Payload>): void {
    this.#checkOpen("allocateShmem");
    if (typeof request !== "object" || request === null) {
      throw new TypeError(`What to allocate is ${describe(request)}, not an object.`);
    }
    const { name, size, callback, scope = "global" } = request;
    checkName("segment", name);
    checkSize(name, size);
    if (callback !== undefined && typeof callback !== "function") {
      throw new TypeError(`The callback of "${name}" is ${quote(callback)}, not a function.`);
    }
    if (scope !== "global" && scope !== "database") {
      throw new TypeError(`The scope of "${name}" is ${quote(scope)}, not "global" or "database".`);
    }
    const earlier = this.#requests.get(name);
    if (earlier === undefined) {
      this.#requests.set(name, { ...(request as ShmemRequest<unknown>), scope });
    } else if (earlier.scope !== scope || earlier.size !== size) {
      throw new DsmrError(
        earlier.scope === scope ? "SIZE_MISMATCH" : "SCOPE_MISMATCH",
        `Add-in "${this.name}" has requested "${name}" with ${earlier.size} bytes and scope ` +
          `"${earlier.scope}" already; now it is ${size} and "${scope}". Put the version into the ` +
          "name.",
        { actual: earlier.size, requested: size },
      );
    }
  }

  lookupShmem(name: string): Segment | null {
    const request = this.#requests.get(name);
    if (request === undefined) return lookupShmem(this.registry, name);
    // Its own, not made yet: now, for the callback must have ended.
    const segment = this.#allocateSync(request);
    this.#requests.delete(name);
    return segment;
  }

  registerBackgroundWorker(spec: WorkerSpec): BackgroundWorker {
    this.#checkOpen("registerBackgroundWorker");
    return this.#registerStatic(this.name, spec);
  }

  /** `init` has ended: makes what it has requested, in order. */
  endSync(): void {
    this.#isOpen = false;
    for (const request of this.#requests.values()) this.#allocateSync(request);
  }

  /** The same without blocking; the callbacks may be asynchronous. */
  async end(): Promise<void> {
    this.#isOpen = false;
    for (const request of this.#requests.values()) {
      const { name, size, callback, payload, scope = "global" } = request;
      checkScope(this.registry, request);
      await this.registry.getNamedSegment(name, size, callback, { arg: payload, scope });
    }
  }

  /** No more calls, however it went. */
  close(): void {
    this.#isOpen = false;
  }

  #allocateSync(request: ShmemRequest<unknown>): Segment {
    const { name, size, callback, payload, scope = "global" } = request;
    checkScope(this.registry, request);
    // One that returns a promise is refused there.
    const init = callback as InitCallback<unknown> | undefined;
    return this.registry.getNamedSegmentSync(name, size, init, { arg: payload, scope });
  }

  #checkOpen(call: string): void {
    if (this.#isOpen) return;
    throw new DsmrError(
      "UNSUPPORTED",
      `${call}() is called outside of the init hook of add-in "${this.name}". Call it there; later ` +
        "on, use the calls of the registry.",
    );
  }
}
