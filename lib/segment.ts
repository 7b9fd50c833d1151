/**
 * A segment: shared memory with a name, attached.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";

/** How long a segment stays. */
export type Lifetime = "registry" | "attached";

/**
 * A segment that this backend has attached. Comes from
 * {@linkcode Registry.getNamedSegmentSync} or {@linkcode Registry.lookupSegment}; the same
 * object for the same segment, until it is detached.
 *
 * @example
 * ```ts
 * import { Registry } from "@dsmr/registry";
 *
 * const registry = Registry.openSync("doc-segment");
 * const segment = registry.getNamedSegmentSync("counters", 64);
 * const counters = new Int32Array(segment.buffer);
 * Atomics.add(counters, 0, 1); // atomic across processes
 *
 * segment.detach();
 * registry.close();
 * Registry.destroy("doc-segment");
 * ```
 */
export class Segment implements Disposable {
  readonly #backend: Backend;
  readonly #buffer: ArrayBuffer;
  #isAttached = true;

  /** The segment's name. */
  readonly name: string;
  /** Its size in bytes. */
  readonly size: number;
  /** False for the backend that initialised the segment, true for every other. */
  readonly found: boolean;

  /** Made by the registry, never by hand. */
  constructor(
    backend: Backend,
    name: string,
    found: boolean,
    readonly handle: number,
    buffer: ArrayBuffer,
  ) {
    this.#backend = backend;
    this.#buffer = buffer;
    this.name = name;
    this.size = buffer.byteLength;
    this.found = found;
  }

  /**
   * The shared bytes themselves: nothing is copied. All backends see every write; use
   * `Atomics` on typed arrays over it where they meet. It is detached by
   * {@linkcode detach}, and with it every view: their later use throws, or reads undefined.
   *
   * @throws {DsmrError} `DETACHED` after {@linkcode detach} or the registry's `close()`.
   */
  get buffer(): ArrayBuffer {
    if (!this.#isAttached) {
      throw new DsmrError(
        "DETACHED",
        `Segment "${this.name}" is detached. Ask the registry for it again.`,
      );
    }
    return this.#buffer;
  }

  /**
   * Gives the memory back: detaches {@linkcode buffer} and every view of it, then unmaps. The
   * segment stays for others, unless its lifetime is `"attached"` and this was the last
   * backend. Does nothing the second time. Inside the init callback it gives the segment up.
   *
   * Do not detach while a runtime's own input or output still works on the buffer.
   */
  detach(): void {
    if (!this.#isAttached) return;
    this.#isAttached = false;
    const isOurs = !this.#buffer.detached;
    // Nothing is copied: the bytes are not ours to move. The result is dropped.
    if (isOurs) this.#buffer.transfer();
    this.#backend.detachSegment(this, isOurs);
  }

  /** Detaches: for `using`. */
  [Symbol.dispose](): void {
    this.detach();
  }
}
