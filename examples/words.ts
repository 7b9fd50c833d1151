/**
 * The text that the demo counts, what a word is, and how a table of words looks.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The longest word, in letters. A longer run of letters is several words. */
export const WORD_LENGTH_MAX = 63;

/** Some files, one behind the other. */
export interface Text {
  bytes: Uint8Array;
  fileCount: number;
}

/**
 * TypeScript's own library declarations, which setup has installed: every process reads the
 * same files in the same order.
 */
export function readText(): Text {
  const packages = fileURLToPath(new URL("../node_modules/@typescript", import.meta.url));
  const folder = join(packages, `typescript-${process.platform}-${process.arch}`, "lib");
  const names = readdirSync(folder).filter((name) => name.endsWith(".d.ts")).sort();
  const bytes = Buffer.concat(names.map((name) => readFileSync(join(folder, name))));
  return { bytes, fileCount: names.length };
}

/**
 * How often each word occurs in a part of the text. A word is a run of the letters a to z; it
 * is counted in lower case. A part that begins and ends at whitespace cuts no word.
 */
export function countWords(bytes: Uint8Array): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [match] of new TextDecoder().decode(bytes).matchAll(letters)) {
    const word = match.toLowerCase();
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

const letters = new RegExp(`[A-Za-z]{1,${WORD_LENGTH_MAX}}`, "g");

/**
 * Cuts a text at whitespace into chunks of at most `size` bytes. Chunk i is everything from
 * the i-th cut to the next.
 */
export function cutAtWhitespace(bytes: Uint8Array, size: number): number[] {
  const cuts = [0];
  let start = 0;
  while (bytes.length - start > size) {
    let end = start + size;
    while (end > start && !isWhitespace(bytes[end])) end--;
    if (end === start) throw new Error(`no whitespace in ${size} bytes of text, from ${start} on`);
    cuts.push(end);
    start = end;
  }
  cuts.push(bytes.length);
  return cuts;
}

const isWhitespace = (byte: number | undefined): boolean =>
  byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);

/** The most frequent words as lines of text. word_table.c prints the same. */
export function tableOf(counts: Map<string, number>, rows: number): string[] {
  // Words are ASCII, so that < is strcmp's order.
  const ranked = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return [
    `  rank  ${"word".padEnd(24)}${"count".padStart(11)}`,
    ...ranked.slice(0, rows).map(([word, count], i) =>
      `  ${`${i + 1}`.padStart(4)}  ${word.padEnd(24)}${grouped(count).padStart(11)}`
    ),
  ];
}

/** 1234567 as "1,234,567". */
export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}
