/**
 * A cache of file blocks in shared memory: what one process has read, all others have.
 *
 * Blocks are of 8 KiB. The cache has 16 partitions, and the file's path and the block's number say
 * in which one a block is, in every process and after every restart. A partition has a lock, frames
 * for blocks, and a hash table that leads to them: chains of frames. Looking for a block takes the
 * lock shared, and copies the bytes out. A block that is not there is read from the file without
 * any lock; only then the lock is taken exclusively, a frame is chosen by the clock (frames that
 * were used since the hand came by last are spared), and the bytes are copied in. Two processes may
 * both read a block that neither has found; the second one finds it there and is done.
 *
 * The files must not change while they are cached.
 *
 * What others see when a process is killed:
 *
 * - While it looks for a block: nothing. A dead shared holder is taken out of the lock.
 * - While it fills a frame: a frame that is FREE. It becomes so before the first of its bytes is
 *   changed, and TAKEN by one store after the last; a frame that is FREE is believed by nobody,
 *   whichever chain leads to it. So what is TAKEN is whole, always.
 * - Then, too: chains that lack frames which they should have. They are no more than an index: who
 *   gets the lock exclusively next finds it abandoned, and makes them anew from the frames. Until
 *   then, a reader may read a block from the file that it could have had from memory. No chain is
 *   ever a ring: see `#link`.
 * - While it notes a new path: nothing. The path counts from the store that raises `fileCount`.
 *
 * All stores but the bytes' are atomic, so that they happen in the order in which they are written
 * here, and the bytes between those around them.
 *
 * @module
 */

import { closeSync, openSync, readSync } from "node:fs";
import { isAbsolute } from "node:path";
import {
  array,
  atomicU32,
  atomicU64,
  bytes,
  lwlock,
  type Registry,
  struct,
  text,
  u32,
  type View,
} from "../../lib/mod.ts";

export const BLOCK_SIZE = 8192;
/** How many files can have blocks in the cache. Those of further ones are read from the file. */
export const FILES_MAX = 255;
/** The bytes of a path, as UTF-8. Files with longer ones are not cached. */
export const PATH_SIZE = 512;

const SEGMENT_NAME = "prewarm:0.1:blocks";
const PARTITIONS = 16;

/** States of a frame. */
const FREE = 0;
const TAKEN = 1;
/** So many rounds of the clock an unused frame is spared at most. */
const USAGE_MAX = 5;

/** A partition: of each array, one element is of one frame. Frames in chains are counted from 1. */
const partitionLayout = (frames: number) =>
  struct({
    lock: lwlock,
    hits: atomicU64,
    misses: atomicU64,
    /** Which frame the clock looks at next. */
    hand: atomicU32,
    /** The first frame of each chain, or 0. */
    buckets: array(u32, frames),
    /** The frame behind it in its chain, or 0. */
    nexts: array(u32, frames),
    states: array(u32, frames),
    /** Which path it is of. */
    files: array(u32, frames),
    /** Which block of the file. */
    blocks: array(u32, frames),
    /** Which hash they have. */
    hashes: array(u32, frames),
    /** How many bytes the block has: the last one of a file is shorter. */
    sizes: array(u32, frames),
    /** How often it was used lately. The only one that is changed with the lock shared. */
    usages: array(u32, frames),
    data: bytes(frames * BLOCK_SIZE),
  });

const cacheLayout = (frames: number) =>
  struct({
    pathsLock: lwlock,
    /** So many files have a path. Only ever grows. */
    fileCount: atomicU32,
    paths: array(text(PATH_SIZE), FILES_MAX),
    partitions: array(partitionLayout(frames), PARTITIONS),
  });

type PartitionView = View<ReturnType<typeof partitionLayout>["fields"]>;
type CacheView = View<ReturnType<typeof cacheLayout>["fields"]>;

/** A block, as a partition looks for it. */
interface Key {
  file: number;
  block: number;
  hash: number;
}

/** The blocks of a file that are in the cache, or are to be. */
export interface CachedFile {
  path: string;
  /** Ascending. */
  blocks: number[];
}

class Partition {
  readonly #view: PartitionView;
  readonly #frames: number;

  constructor(view: PartitionView) {
    this.#view = view;
    this.#frames = view.states.length;
  }

  /** A copy of the block's bytes; undefined if it is not here. */
  find(key: Key): Uint8Array<ArrayBuffer> | undefined {
    const { lock, data, sizes, usages, hits } = this.#view;
    return lock.withSync("shared", () => {
      const frame = this.#search(key);
      if (frame === undefined) return undefined;
      if (Atomics.load(usages, frame) < USAGE_MAX) Atomics.add(usages, frame, 1);
      hits.add(1n);
      const start = frame * BLOCK_SIZE;
      return data.slice(start, start + (sizes[frame] ?? 0));
    });
  }

  countMiss(): void {
    this.#view.misses.add(1n);
  }

  get counts(): { hits: number; misses: number } {
    const { hits, misses } = this.#view;
    return { hits: Number(hits.load()), misses: Number(misses.load()) };
  }

  /**
   * Puts a block into a frame. With `evict` into one of another block, if need be; without it,
   * returns false when no frame is free.
   */
  insert(key: Key, content: Uint8Array, evict: boolean): boolean {
    const { lock, data, states, files, blocks, hashes, sizes, usages } = this.#view;
    return lock.withSync("exclusive", () => {
      if (lock.abandoned) {
        this.#linkAll();
        lock.markConsistent();
      }
      // Another process may have been faster.
      if (this.#search(key) !== undefined) return true;
      const frame = this.#freeFrame() ?? (evict ? this.#victim() : undefined);
      if (frame === undefined) return false;
      data.set(content, frame * BLOCK_SIZE);
      Atomics.store(files, frame, key.file);
      Atomics.store(blocks, frame, key.block);
      Atomics.store(hashes, frame, key.hash);
      Atomics.store(sizes, frame, content.length);
      Atomics.store(usages, frame, 1);
      // From here on it is the block.
      Atomics.store(states, frame, TAKEN);
      this.#link(frame);
      return true;
    });
  }

  /** Calls back with each block that is here. */
  forEach(visit: (file: number, block: number) => void): void {
    const { lock, states, files, blocks } = this.#view;
    lock.withSync("shared", () => {
      for (let frame = 0; frame < this.#frames; frame++) {
        if (states[frame] === TAKEN) visit(files[frame] ?? 0, blocks[frame] ?? 0);
      }
    });
  }

  #search({ file, block, hash }: Key): number | undefined {
    const { buckets, nexts, states, files, blocks } = this.#view;
    let next = buckets[hash % this.#frames] ?? 0;
    // No chain is longer, unless somebody has overwritten it.
    for (let steps = 0; next !== 0 && steps < this.#frames; steps++) {
      const frame = next - 1;
      const isIt = states[frame] === TAKEN && files[frame] === file && blocks[frame] === block;
      if (isIt) return frame;
      next = nexts[frame] ?? 0;
    }
    return undefined;
  }

  #freeFrame(): number | undefined {
    const frame = this.#view.states.indexOf(FREE);
    return frame < 0 ? undefined : frame;
  }

  /** The next frame that was not used lately; now it is FREE. There is none that is so already. */
  #victim(): number {
    const { hand, states, usages } = this.#view;
    for (;;) {
      const frame = hand.load() % this.#frames;
      hand.store((frame + 1) % this.#frames);
      const usage = Math.min(usages[frame] ?? 0, USAGE_MAX);
      if (usage > 0) {
        // Nobody raises it meanwhile: the lock is held exclusively. So the search ends.
        Atomics.store(usages, frame, usage - 1);
        continue;
      }
      // An exchange, for nothing behind it may happen before it.
      Atomics.exchange(states, frame, FREE);
      this.#unlink(frame);
      return frame;
    }
  }

  /**
   * Puts a frame in front of its chain. It is in no chain, so what it leads to does not lead back.
   * One that is not linked because its filler has died here is in none until #linkAll.
   */
  #link(frame: number): void {
    const { buckets, nexts, hashes } = this.#view;
    const bucket = (hashes[frame] ?? 0) % this.#frames;
    Atomics.store(nexts, frame, buckets[bucket] ?? 0);
    Atomics.store(buckets, bucket, frame + 1);
  }

  /** Takes a frame out of its chain, by one store. */
  #unlink(frame: number): void {
    const { buckets, nexts, hashes } = this.#view;
    const bucket = (hashes[frame] ?? 0) % this.#frames;
    const behind = nexts[frame] ?? 0;
    if (buckets[bucket] === frame + 1) return void Atomics.store(buckets, bucket, behind);
    let next = buckets[bucket] ?? 0;
    for (let steps = 0; next !== 0 && steps < this.#frames; steps++) {
      if (nexts[next - 1] === frame + 1) return void Atomics.store(nexts, next - 1, behind);
      next = nexts[next - 1] ?? 0;
    }
  }

  /** Makes all chains anew. Who dies here leaves it to the next one. */
  #linkAll(): void {
    const { buckets, states } = this.#view;
    for (let bucket = 0; bucket < this.#frames; bucket++) Atomics.store(buckets, bucket, 0);
    for (let frame = 0; frame < this.#frames; frame++) {
      if (states[frame] === TAKEN) this.#link(frame);
    }
  }
}

/** The cache, as a process uses it. Its calls block while another process changes a partition. */
export class BlockCache {
  readonly #view: CacheView;
  readonly #partitions: Partition[] = [];
  /** The numbers of the paths that are known here. */
  readonly #files = new Map<string, number>();

  /** Reads of this process that were found in the cache. */
  hits = 0;
  /** Those that were not. */
  misses = 0;

  private constructor(view: CacheView) {
    this.#view = view;
    for (const partition of view.partitions) this.#partitions.push(new Partition(partition));
  }

  /**
   * The registry's cache; made when it is not there.
   *
   * @param frames How many blocks it has room for; rounded up to a multiple of 16. All processes
   * must name the same.
   * @throws {DsmrError} `LAYOUT_MISMATCH`: it is there with another size. What
   * `getNamedSegmentSync` throws.
   */
  static openSync(registry: Registry, frames: number): BlockCache {
    const layout = cacheLayout(Math.ceil(frames / PARTITIONS));
    const segment = registry.getNamedSegmentSync(SEGMENT_NAME, layout.size, (fresh) => {
      layout.init(fresh, { tranche: registry.newTranche("prewarm", { segment: fresh }) });
    }, { layout });
    return new BlockCache(layout.view(segment));
  }

  /**
   * The bytes of a block, from the cache or else from the file: 8,192, less at the file's end, none
   * behind it. A copy.
   *
   * @param path Absolute.
   * @param block Its number: 0 for the first 8 KiB of the file, and so on.
   * @throws {TypeError} The path. {@linkcode RangeError}: the block. What opening and reading the
   * file throws.
   */
  read(path: string, block: number): Uint8Array<ArrayBuffer> {
    const { key, partition } = this.#locate(path, block);
    const cached = key.file === 0 ? undefined : partition.find(key);
    if (cached !== undefined) {
      this.hits++;
      return cached;
    }
    this.misses++;
    partition.countMiss();
    const content = readBlock(path, block);
    this.#insert(path, key, partition, content, true);
    return content;
  }

  /**
   * Reads a block into a frame that is free, unless it is in the cache. Counts as neither hit nor
   * miss.
   *
   * @returns whether it is there now.
   * @throws As {@linkcode read}.
   */
  warm(path: string, block: number): boolean {
    const { key, partition } = this.#locate(path, block);
    return this.#insert(path, key, partition, readBlock(path, block), false);
  }

  /** What is in the cache, in the order of paths and blocks. */
  list(): CachedFile[] {
    const blocksOf = new Map<number, number[]>();
    for (const partition of this.#partitions) {
      partition.forEach((file, block) => {
        const blocks = blocksOf.get(file);
        if (blocks === undefined) blocksOf.set(file, [block]);
        else blocks.push(block);
      });
    }
    this.#learn();
    return [...this.#files]
      .map(([path, file]) => ({ path, blocks: blocksOf.get(file) ?? [] }))
      .filter(({ blocks }) => blocks.length > 0)
      .map(({ path, blocks }) => ({ path, blocks: blocks.sort((a, b) => a - b) }))
      .sort((a, b) => a.path < b.path ? -1 : 1);
  }

  /** The hits and misses of all processes, since the cache was made. */
  totals(): { hits: number; misses: number } {
    let hits = 0;
    let misses = 0;
    for (const { counts } of this.#partitions) {
      hits += counts.hits;
      misses += counts.misses;
    }
    return { hits, misses };
  }

  #locate(path: string, block: number): { key: Key; partition: Partition } {
    if (!isAbsolute(path)) throw new TypeError(`The path "${path}" is not absolute.`);
    if (!Number.isInteger(block) || block < 0 || block >= 2 ** 32) {
      throw new RangeError(`There is no block ${block}; blocks are 0 to 2 ** 32 - 1.`);
    }
    const hash = hashOf(path, block);
    const partition = this.#partitions[hash % PARTITIONS];
    if (partition === undefined) throw new Error(`There is no partition for hash ${hash}.`);
    const file = this.#files.get(path) ?? this.#learn().get(path) ?? 0;
    return { key: { file, block, hash: Math.floor(hash / PARTITIONS) }, partition };
  }

  #insert(
    path: string,
    key: Key,
    partition: Partition,
    content: Uint8Array,
    evict: boolean,
  ): boolean {
    if (content.length === 0) return false;
    const file = key.file === 0 ? this.#addFile(path) : key.file;
    return file !== undefined && partition.insert({ ...key, file }, content, evict);
  }

  /** Notes the paths that have been added, here or elsewhere. They are counted from 1. */
  #learn(): Map<string, number> {
    const { fileCount, paths } = this.#view;
    const count = fileCount.load();
    for (let i = this.#files.size; i < count; i++) this.#files.set(paths.at(i), i + 1);
    return this.#files;
  }

  /** The number of a path, which it gets here if it has none; undefined if there is no room. */
  #addFile(path: string): number | undefined {
    const isStorable = path.isWellFormed() && new TextEncoder().encode(path).length <= PATH_SIZE;
    if (!isStorable) return undefined;
    const { pathsLock, fileCount, paths } = this.#view;
    return pathsLock.withSync("exclusive", () => {
      const known = this.#learn().get(path);
      const count = fileCount.load();
      if (known === undefined && count < FILES_MAX) {
        paths.set(count, path);
        fileCount.store(count + 1);
      }
      // A path that was half noted by one who has died was overwritten, or will be.
      if (pathsLock.abandoned) pathsLock.markConsistent();
      return known ?? this.#learn().get(path);
    });
  }
}

function readBlock(path: string, block: number): Uint8Array<ArrayBuffer> {
  const content = new Uint8Array(BLOCK_SIZE);
  const file = openSync(path, "r");
  try {
    let size = 0;
    while (size < BLOCK_SIZE) {
      const count = readSync(file, content, size, BLOCK_SIZE - size, block * BLOCK_SIZE + size);
      if (count === 0) break;
      size += count;
    }
    return content.subarray(0, size);
  } finally {
    closeSync(file);
  }
}

/** FNV-1a of the path and the block, its bits mixed well. Must never change: see the top. */
function hashOf(path: string, block: number): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < path.length; i++) hash = Math.imul(hash ^ path.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ block, 0x01000193);
  hash = Math.imul(hash ^ hash >>> 16, 0x21f0aaad);
  hash = Math.imul(hash ^ hash >>> 15, 0x735a2d97);
  return (hash ^ hash >>> 15) >>> 0;
}
