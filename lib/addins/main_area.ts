/**
 * The main area: memory and locks that add-ins have requested before it was sized.
 *
 * One segment of the library's own: first the locks of the requested tranches, then a region for
 * each add-in, as large as it has requested. `initStruct` gives out areas of a region, first fit.
 *
 * Sized once, inside the init-once of the directory, so that exactly one backend does it. The
 * order matters for deaths: the main area is made and published first, then the directory, which
 * alone makes it known. A death in between leaves a main area that nobody knows; whoever gets to
 * initialise the directory next drops it, and makes its own.
 *
 * @module
 */

import {
  AddinDirectory,
  AREAS_MAX,
  AT_LOCK,
  DIRECTORY_NAME,
  inUnits,
  MAIN_NAME,
  type Place,
  type Plan,
  UNIT,
} from "./directory.ts";
import { AddinInitLock, holdOf, type InitHold } from "./init_lock.ts";
import type { Backend } from "../backend.ts";
import { DsmrError } from "../errors.ts";
import { messageOf, native } from "../ffi/native.ts";
import { listTranches } from "../listing.ts";
import type { LWLock } from "../lwlock.ts";
import { getSegment, getSegmentSync, removeSegment } from "../named_segments.ts";
import { handleOf, type Segment } from "../segment.ts";
import { makeTranche } from "../tranche.ts";

/** A part of the main area, as {@linkcode StartupContext.initStruct} gives it. */
export interface MainAreaStruct {
  /** Its name. */
  readonly name: string;
  /**
   * False: its bytes are all zero, and are to be initialised before the lock is let go of. True:
   * that has been done, here or elsewhere.
   */
  readonly found: boolean;
  /** The main area, all of it. What it holds of others is none of your business. */
  readonly segment: Segment;
  /** Where the part begins in the segment: a multiple of 64, so that a lock can be there. */
  readonly byteOffset: number;
  /** How long it is, in bytes. */
  readonly byteLength: number;
  /** The part alone. Gone with the registry's `close()`. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** What one add-in has requested. */
export interface AddinRequests {
  addin: string;
  /** In bytes, whole units. */
  space: number;
  tranches: { name: string; count: number }[];
}

/** Where everything goes. */
function planOf(requests: readonly AddinRequests[]): Plan {
  let end = 0;
  const place = (name: string, size: number, unit: number): Place => {
    const offset = end;
    end += size * unit;
    return { name, offset, size };
  };
  const tranches = requests.flatMap((request) =>
    request.tranches.map(({ name, count }) => ({ ...place(name, count, UNIT), id: 0 }))
  );
  const addins = requests.map(({ addin, space }) => place(addin, space, 1));
  if (!Number.isSafeInteger(end)) {
    throw new DsmrError(
      "NO_SPACE",
      `The add-ins have requested ${end} bytes together. Request fewer.`,
    );
  }
  return { mainSize: end, addins, tranches };
}

/** The main area of a registry, as one backend sees it. */
export class MainArea {
  readonly #backend: Backend;
  readonly #registry: string;
  readonly #directory: AddinDirectory;
  readonly initLock: AddinInitLock;

  /** For a directory that is published. */
  constructor(backend: Backend, registry: string, segment: Segment) {
    this.#backend = backend;
    this.#registry = registry;
    this.#directory = new AddinDirectory(registry, segment);
    this.#directory.check();
    this.initLock = new AddinInitLock(segment.lockAt(AT_LOCK), this.#directory);
  }

  /** The main area, if the registry has one already. Never waits. */
  static lookup(backend: Backend, registry: string): MainArea | undefined {
    const segment = backend.current(DIRECTORY_NAME) ?? backend.lookup(DIRECTORY_NAME);
    return segment === null ? undefined : new MainArea(backend, registry, segment);
  }

  /**
   * Sizes and makes the main area, and fills the fresh directory, which is to be published then.
   * On failure nothing is left but the directory, to be given up.
   */
  static makeSync(backend: Backend, directory: Segment, requests: readonly AddinRequests[]): void {
    const plan = planOf(requests);
    const { mainSize } = plan;
    dropMain(backend);
    try {
      if (mainSize > 0) {
        getSegmentSync(backend, MAIN_NAME, mainSize, (main) => furnish(backend, main, plan), {});
      }
    } catch (cause) {
      throw noMainArea(plan, cause);
    }
    fill(backend, directory, plan);
  }

  /** The same without blocking, should the memory take long to reserve. */
  static async make(
    backend: Backend,
    directory: Segment,
    requests: readonly AddinRequests[],
  ): Promise<void> {
    const plan = planOf(requests);
    const { mainSize } = plan;
    dropMain(backend);
    try {
      if (mainSize > 0) {
        await getSegment(backend, MAIN_NAME, mainSize, (main) => furnish(backend, main, plan), {});
      }
    } catch (cause) {
      throw noMainArea(plan, cause);
    }
    fill(backend, directory, plan);
  }

  /** Whether it was sized with the requests of this add-in. */
  includes(addin: string): boolean {
    return this.#directory.addin(addin) !== undefined;
  }

  /** Who sized it, for messages. */
  get #history(): string {
    const { pid, program, createdAt, addins } = this.#directory.creator;
    const names = addins.map((name) => JSON.stringify(name)).join(", ");
    return `by process ${pid} (${program}) at ${createdAt.toISOString()}, with ${names}`;
  }

  /** The end of an error for an add-in that it was sized without. */
  #advice(addin: string): string {
    return `The main area of registry "${this.#registry}" was sized without add-in "${addin}", ` +
      `${this.#history}, and keeps its size. Destroy the registry, or open it with this add-in ` +
      "first; getNamedSegment() and newTranche() are open to it all the same.";
  }

  /** The locks of a requested tranche. `addin`: who asks, where that is known. */
  tranche(name: string, addin?: string): LWLock[] {
    const place = this.#directory.tranche(name);
    if (place === undefined) {
      const what = `No add-in has requested tranche "${name}".${dynamicHint(this.#backend, name)}`;
      const isForeign = addin !== undefined && !this.includes(addin);
      throw new DsmrError("NOT_FOUND", what + (isForeign ? ` ${this.#advice(addin)}` : ""));
    }
    const main = this.#main();
    return Array.from({ length: place.size }, (_, i) => main.lockAt(place.offset + i * UNIT));
  }

  /** See `StartupContext.initStruct`. The arguments have been checked. */
  initStruct(addin: string, name: string, size: number): MainAreaStruct {
    const hold = holdOf<MainAreaStruct>(this.initLock);
    if (hold === undefined) {
      throw new DsmrError(
        "NOT_HELD",
        `Cannot look for "${name}" in the main area: addinInitLock is not held exclusively. ` +
          "Call initStruct() inside ctx.addinInitLock.withSync(...).",
      );
    }
    const ours = hold.areas.get(name);
    if (ours !== undefined) return sameSize(ours, size);
    const place = this.#directory.ready().find((area) => area.name === name);
    if (place === undefined) return this.#make(hold, addin, name, size);
    return sameSize(this.#struct(place, true), size);
  }

  #make(
    hold: InitHold<MainAreaStruct>,
    addin: string,
    name: string,
    size: number,
  ): MainAreaStruct {
    const region = this.#directory.addin(addin);
    if (region === undefined) {
      throw new DsmrError(
        "NO_SPACE",
        `There is no "${name}" in the main area, and no room for it. ${this.#advice(addin)}`,
        { actual: 0, requested: size },
      );
    }
    hold.number ??= this.#directory.begin();
    const others = this.#directory.all().filter(({ offset }) =>
      offset >= region.offset && offset < region.offset + region.size
    );
    const offset = firstFit(region, others, inUnits(size));
    if (offset === undefined) throw noRoom(region, others, name, size);
    const area = this.#struct({ name, offset, size }, false);
    // Before it is noted down: what a failed hold has left there is never seen.
    area.bytes.fill(0);
    if (!this.#directory.add({ name, offset, size }, hold.number)) {
      throw new DsmrError(
        "NO_SPACE",
        `Cannot make "${name}" in the main area: it has ${AREAS_MAX} parts, which is all it has ` +
          "room for. Make fewer, larger ones.",
        { actual: AREAS_MAX, requested: AREAS_MAX + 1 },
      );
    }
    hold.areas.set(name, area);
    return area;
  }

  #struct({ name, offset, size }: Place, found: boolean): MainAreaStruct {
    const segment = this.#main();
    const bytes = new Uint8Array(segment.buffer, offset, size);
    return { name, found, segment, byteOffset: offset, byteLength: size, bytes };
  }

  /** Attached anew where somebody has detached it. */
  #main(): Segment {
    const main = this.#backend.current(MAIN_NAME) ?? this.#backend.lookup(MAIN_NAME);
    const { mainSize } = this.#directory;
    if (main?.size !== mainSize) {
      throw this.#directory.damaged(
        `it tells of ${mainSize} bytes, and there are ${main?.size ?? "none"}`,
      );
    }
    return main;
  }
}

/** The first gap of a region that is large enough. */
function firstFit(region: Place, others: Place[], size: number): number | undefined {
  let begin = region.offset;
  for (const other of others.sort((a, b) => a.offset - b.offset)) {
    if (other.offset - begin >= size) break;
    begin = Math.max(begin, other.offset + inUnits(other.size));
  }
  return begin + size <= region.offset + region.size ? begin : undefined;
}

function noRoom(region: Place, others: Place[], name: string, size: number): DsmrError {
  const used = others.reduce((sum, other) => sum + inUnits(other.size), 0);
  return new DsmrError(
    "NO_SPACE",
    `Cannot make "${name}" of ${size} bytes in the main area: add-in "${region.name}" has requested ` +
      `${region.size}, of which ${used} are in use; each part takes a multiple of ${UNIT}, this one ` +
      `${inUnits(size)}. Request more with requestSpace(): the main area is sized anew when the ` +
      "registry has been destroyed. Or use getNamedSegment().",
    { actual: region.size - used, requested: size },
  );
}

function sameSize(area: MainAreaStruct, size: number): MainAreaStruct {
  if (area.byteLength === size) return area;
  throw new DsmrError(
    "SIZE_MISMATCH",
    `"${area.name}" is in the main area with ${area.byteLength} bytes, and ${size} were asked for. ` +
      "Ask for as many, or put the version into the name.",
    { actual: area.byteLength, requested: size },
  );
}

/** Why a tranche that is there is not found. */
export function dynamicHint(backend: Backend, name: string): string {
  const isDynamic = listTranches(backend.handle).some((tranche) => {
    return tranche.name === name && tranche.id !== null;
  });
  if (!isDynamic) return "";
  return " There is one by that name that newTranche() has made: its locks are where its maker " +
    "has put them, see lockAt().";
}

/** What a creator has left that died before it published the directory. */
function dropMain(backend: Backend): void {
  backend.current(MAIN_NAME)?.detach();
  removeSegment(backend, MAIN_NAME);
}

/** The library's own segments, as people call them: their names do not print. */
export function plainly(message: string): string {
  return message.replaceAll(/segment "[^a-z]main"/gi, "the main area")
    .replaceAll(/segment "[^a-z]addins"/gi, "the main area's directory");
}

/** What has failed inside an init callback of our own; else what it is. */
export function unwrapped(cause: unknown): unknown {
  return cause instanceof DsmrError && cause.code === "INIT_FAILED" ? cause.cause : cause;
}

function noMainArea(plan: Plan, thrown: unknown): unknown {
  const cause = unwrapped(thrown);
  if (!(cause instanceof DsmrError)) return cause;
  const names = plan.addins.map(({ name }) => JSON.stringify(name)).join(", ");
  return new DsmrError(
    cause.code,
    `Cannot make the main area of ${plan.mainSize} bytes, which add-ins ${names} have requested ` +
      `together: ${plainly(messageOf(cause))}`,
    { requested: plan.mainSize, ...cause, cause },
  );
}

/** Makes the locks of the requested tranches, which go with the main area. */
function furnish(backend: Backend, main: Segment, plan: Plan): void {
  for (const tranche of plan.tranches) {
    const made = makeTranche(backend, tranche.name, handleOf(main));
    for (let i = 0; i < tranche.size; i++) main.initLock(tranche.offset + i * UNIT, made);
    tranche.id = made.id;
  }
}

function fill(backend: Backend, directory: Segment, plan: Plan): void {
  directory.initLock(AT_LOCK, makeTranche(backend, "addin-init", handleOf(directory)));
  new AddinDirectory("", directory).fill(plan, native().runtime.label, native().runtime.pid);
}
