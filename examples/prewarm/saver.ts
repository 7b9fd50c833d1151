/**
 * The background worker: loads the list of hot blocks when it starts, then saves it every so often,
 * when somebody asks for it, and when it is told to end.
 *
 * Killed while it loads, it loads again when it is restarted; it does not save before it has loaded
 * all, so the list is never replaced by a part of it. Killed later, it goes on saving: what is in
 * the cache is there still. Killed while it saves: see block_list.ts.
 *
 * @module
 */

import { setImmediate } from "node:timers/promises";
import { DsmrError, type WorkerContext } from "../../lib/mod.ts";
import { BlockCache, type CachedFile } from "./block_cache.ts";
import { codeOf, ListError, loadList, removeLeftovers, saveList } from "./block_list.ts";
import { fitting, openState, type PrewarmState } from "./prewarm_state.ts";

/** What the saver is told; see PrewarmOptions. */
export interface SaverArgument {
  listFile: string;
  frames: number;
  /** In milliseconds; 0: not by itself. */
  saveEvery: number;
}

/** So many blocks are loaded between two looks at whether to end. */
const BATCH = 64;

/** The worker's function. */
export async function main(ctx: WorkerContext): Promise<void> {
  try {
    await serve(ctx);
  } catch (error) {
    // The registry was destroyed, and with it the cache. The last list is as good as any.
    const isGone = error instanceof DsmrError && ["CLOSED", "DETACHED"].includes(error.code);
    if (!isGone) throw error;
  }
}

async function serve(ctx: WorkerContext): Promise<void> {
  const { listFile, frames, saveEvery } = ctx.arg as SaverArgument;
  const cache = BlockCache.openSync(ctx.registry, frames);
  const state = openState(ctx.registry);
  removeLeftovers(listFile);
  if (state.isLoaded.load() === 0) {
    await load(cache, state, readList(listFile, state), ctx.signal);
    // Not the whole of it: the list is to stay as it is.
    if (ctx.signal.aborted) return;
    state.isLoaded.store(1);
  }
  ctx.ready();
  while (await isDue(state, saveEvery, ctx.signal)) save(cache, state, listFile);
  save(cache, state, listFile);
}

/** The list; an empty one if it is refused. */
function readList(listFile: string, state: PrewarmState): CachedFile[] {
  try {
    return loadList(listFile);
  } catch (error) {
    if (!(error instanceof ListError)) throw error;
    console.error(`prewarm: ${error.message}`);
    state.problem = fitting(error.message);
    return [];
  }
}

async function load(
  cache: BlockCache,
  state: PrewarmState,
  list: readonly CachedFile[],
  signal: AbortSignal,
): Promise<void> {
  let loaded = 0;
  let left = 0;
  for (const { path, blocks } of list) {
    for (let i = 0; i < blocks.length && !signal.aborted; i++) {
      if (i % BATCH === 0) await setImmediate();
      try {
        if (cache.warm(path, blocks[i] ?? 0)) loaded++;
        else left++;
      } catch (error) {
        // The file is gone, or nobody may read it any more. Whoever reads it will hear of it.
        if (codeOf(error) === undefined) throw error;
        left += blocks.length - i;
        break;
      }
    }
  }
  state.loaded.store(loaded);
  state.left.store(left);
}

/** Waits until the list is to be saved; false: the worker is to end. */
async function isDue(
  state: PrewarmState,
  saveEvery: number,
  signal: AbortSignal,
): Promise<boolean> {
  // The number that was answered. If there is another one by now, it does not wait.
  const answered = state.answered.load();
  const timeout = saveEvery === 0 ? Infinity : saveEvery;
  try {
    await state.asked.wait(answered, { timeout, signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return !signal.aborted;
}

function save(cache: BlockCache, state: PrewarmState, listFile: string): void {
  const asked = state.asked.load();
  const list = cache.list();
  saveList(listFile, list);
  state.saved.store(list.reduce((sum, { blocks }) => sum + blocks.length, 0));
  state.saves.add(1);
  state.answered.store(asked);
  state.answered.notify();
}
