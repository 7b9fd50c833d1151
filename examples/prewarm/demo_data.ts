/**
 * The demo's data: files whose every block can be told from all others, and reads of them that are
 * much more often of some blocks than of others.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { BLOCK_SIZE } from "./block_cache.ts";

const FILES = 4;
const BLOCKS_PER_FILE = 1024;
/** All blocks, 32 MiB. */
export const BLOCKS = FILES * BLOCKS_PER_FILE;

const WORDS = BLOCK_SIZE / 4;

/** A block of the data. */
export interface Block {
  path: string;
  block: number;
  /** Its number among all. */
  number: number;
}

/** Writes the files. */
export function writeData(folder: string): void {
  for (let file = 0; file < FILES; file++) {
    const words = new Uint32Array(BLOCKS_PER_FILE * WORDS);
    for (let i = 0; i < words.length; i++) {
      words[i] = wordOf(file * BLOCKS_PER_FILE + Math.floor(i / WORDS), i % WORDS);
    }
    writeFileSync(pathOf(folder, file), words);
  }
}

/** Asserts that the bytes are the block's. */
export function checkBlock(bytes: Uint8Array<ArrayBuffer>, number: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, WORDS);
  const wrong = words.findIndex((word, i) => word !== wordOf(number, i));
  if (wrong >= 0) throw new Error(`Word ${wrong} of block ${number} is wrong.`);
}

/** So many blocks at random, skewed: a quarter of the blocks gets four fifths of the reads. */
export function* skewedBlocks(folder: string, seed: number, count: number): Iterable<Block> {
  let state = seed;
  for (let i = 0; i < count; i++) {
    // The high bits of a linear congruential generator: good enough for this.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const rank = Math.floor(BLOCKS * (state / 2 ** 32) ** 7);
    // Hot blocks are everywhere: 1,237 and the number of blocks have no divisor in common.
    const number = (rank * 1237) % BLOCKS;
    const file = Math.floor(number / BLOCKS_PER_FILE);
    yield { path: pathOf(folder, file), block: number % BLOCKS_PER_FILE, number };
  }
}

const pathOf = (folder: string, file: number): string => join(folder, `data${file}`);

const wordOf = (number: number, i: number): number => (Math.imul(number + 1, 2654435761) + i) >>> 0;
