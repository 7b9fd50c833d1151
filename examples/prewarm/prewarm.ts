/**
 * Prewarm: a cache of file blocks that is warm again after a restart. After PostgreSQL's
 * pg_prewarm, whose background worker is called autoprewarm.
 *
 * An add-in. It needs nothing of the registry's main area: its memory are segments, so it can be
 * added to a registry that was made without it.
 *
 *   const warm = prewarm({ listFile: "/var/lib/shop/hot_blocks" });
 *   const registry = Registry.openSync("shop", { addins: [warm], supervise: true });
 *   const { cache } = registry.addin(warm);
 *   const bytes = cache.read("/var/lib/shop/orders", 17);
 *
 * All processes of a registry name the same options. Some of them must be willing to supervise, or
 * nobody runs the saver (see saver.ts), and the cache begins cold.
 *
 * @module
 */

import { isAbsolute } from "node:path";
import { type Addin, type BackgroundWorker, defineAddin, type Registry } from "../../lib/mod.ts";
import { BlockCache } from "./block_cache.ts";
import { openState, type PrewarmState } from "./prewarm_state.ts";
import type { SaverArgument } from "./saver.ts";

/** Options of {@linkcode prewarm}. */
export interface PrewarmOptions {
  /** Where the list of hot blocks is saved: an absolute path. One for each registry. */
  listFile: string;
  /** How many blocks of 8 KiB the cache has room for. Default: 4,096, which are 32 MiB. */
  frames?: number;
  /**
   * How often the list is saved, in milliseconds; 0: only when the saver ends, or somebody asks.
   * Default: 5 minutes.
   */
  saveEvery?: number;
}

/** What a process has of the add-in: `registry.addin(warm)`. */
export class Prewarm {
  readonly #state: PrewarmState;
  /** The blocks. */
  readonly cache: BlockCache;
  /** The saver. It is ready when the list was loaded. */
  saver: BackgroundWorker | undefined;

  constructor(registry: Registry, frames: number) {
    this.cache = BlockCache.openSync(registry, frames);
    this.#state = openState(registry);
  }

  /**
   * Waits until the list was saved with all that is in the cache now. Where no saver runs, that is
   * until one does.
   *
   * @throws The signal's reason.
   */
  async saveNow(options?: { signal?: AbortSignal }): Promise<void> {
    const { asked, answered } = this.#state;
    const number = asked.add(1) + 1;
    asked.notify();
    for (;;) {
      const seen = answered.load();
      if ((seen - number | 0) >= 0) return;
      await answered.wait(seen, options);
    }
  }

  /** What came of the list. */
  get status(): {
    /** Whether the list was loaded, or refused. */
    isLoaded: boolean;
    /** How many of its blocks were loaded; how many were left out. */
    loaded: number;
    left: number;
    /** Why it was refused, if it was. */
    problem: string | undefined;
    /** How often it was saved since; with how many blocks the last time. */
    saves: number;
    saved: number;
  } {
    const { isLoaded, loaded, left, problem, saves, saved } = this.#state;
    return {
      isLoaded: isLoaded.load() === 1,
      loaded: loaded.load(),
      left: left.load(),
      problem: isLoaded.load() === 1 && problem !== "" ? problem : undefined,
      saves: saves.load(),
      saved: saved.load(),
    };
  }
}

/**
 * Makes the add-in. Once in a program for each list.
 *
 * @throws {TypeError} The path of the list. {@linkcode RangeError}: a number.
 */
export function prewarm(options: PrewarmOptions): Addin<Prewarm> {
  const { listFile, frames = 4096, saveEvery = 300_000 } = options;
  if (!isAbsolute(listFile)) throw new TypeError(`The list "${listFile}" is no absolute path.`);
  if (!Number.isInteger(frames) || frames < 1 || frames > 2 ** 20) {
    throw new RangeError(`${frames} frames cannot be; 1 to ${2 ** 20} can.`);
  }
  if (!(saveEvery >= 0 && saveEvery < 2 ** 31)) {
    throw new RangeError(
      `The list cannot be saved every ${saveEvery} ms; 0 to 2 ** 31 - 1 can be.`,
    );
  }
  const arg: SaverArgument = { listFile, frames, saveEvery };
  const started = new WeakMap<Registry, Prewarm>();
  return defineAddin({
    name: "prewarm",
    startup({ registry }) {
      const prewarm = new Prewarm(registry, frames);
      started.set(registry, prewarm);
      return prewarm;
    },
    init(handle) {
      const saver = handle.registerBackgroundWorker({
        name: "prewarm saver",
        module: new URL("./saver.ts", import.meta.url),
        function: "main",
        arg,
        restartTime: 1000,
      });
      const prewarm = started.get(handle.registry);
      if (prewarm !== undefined) prewarm.saver = saver;
    },
  });
}
