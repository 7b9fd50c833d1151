/**
 * Files for the tests of the cache of blocks: each byte tells the file, the block and its place.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { BLOCK_SIZE } from "../examples/prewarm/block_cache.ts";
import { randomFrom } from "./_random.ts";

/** The files that are read at random, by their sizes in bytes. */
const SIZES = [100 * BLOCK_SIZE + 100, 60 * BLOCK_SIZE, 1];

function bytesOf(path: string, block: number, size: number): Uint8Array {
  let seed = block * 7919;
  for (const character of basename(path)) seed = seed * 31 + (character.codePointAt(0) ?? 0) | 0;
  const words = new Uint32Array(BLOCK_SIZE / 4);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(seed + i, 2654435761);
  return new Uint8Array(words.buffer).subarray(0, size);
}

/** Writes a file of so many bytes. */
export function writeBlocks(path: string, size: number): void {
  const content = new Uint8Array(size);
  for (let at = 0; at < size; at += BLOCK_SIZE) {
    content.set(bytesOf(path, at / BLOCK_SIZE, Math.min(BLOCK_SIZE, size - at)), at);
  }
  writeFileSync(path, content);
}

export function writeFiles(folder: string): void {
  for (const [i, size] of SIZES.entries()) writeBlocks(join(folder, `file${i}`), size);
}

/** Throws if these are not the bytes of the block. */
export function checkContent(bytes: Uint8Array, path: string, block: number): void {
  const [, number] = /file(\d+)$/.exec(path) ?? [];
  // Others have whole blocks, and are not read behind their end.
  const fileSize = number === undefined ? Infinity : SIZES[Number(number)] ?? 0;
  const size = Math.max(0, Math.min(BLOCK_SIZE, fileSize - block * BLOCK_SIZE));
  const expected = bytesOf(path, block, size);
  const wrong = expected.findIndex((byte, i) => byte !== bytes[i]);
  if (wrong < 0 && bytes.length === size) return;
  throw new Error(
    `Block ${block} of ${path} has ${bytes.length} bytes of ${size}, the first wrong at ${wrong}.`,
  );
}

/** Blocks at random, the first of a file more often; some are behind its end. */
export function* randomBlocks(
  folder: string,
  seed: number,
  count: number,
): Iterable<{ path: string; block: number }> {
  const random = randomFrom(seed);
  for (let i = 0; i < count; i++) {
    const file = Math.floor(random() * SIZES.length);
    const blocks = Math.ceil((SIZES[file] ?? 0) / BLOCK_SIZE) + 1;
    yield { path: join(folder, `file${file}`), block: Math.floor(blocks * random() ** 2) };
  }
}
