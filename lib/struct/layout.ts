/**
 * What a layout says of itself: a text, a number made of it, and how two of them differ.
 *
 * @module
 */

/** What the registry needs to know of a layout. */
export interface Layout {
  /** In bytes. */
  readonly size: number;
  /** What its offset is a multiple of. */
  readonly align: number;
  /** 64 bits made of {@linkcode description}, never 0: layouts that differ have different ones. */
  readonly hash: bigint;
  /** One line for the whole, and one for each field: its name, its type and its offset. */
  readonly description: string;
}

/** What a description's first line is called; no field can have this name. */
const WHOLE = "struct";

export function describeLayout(size: number, align: number, lines: readonly string[]): string {
  return [`(${WHOLE}): ${size} bytes, aligned to ${align}`, ...lines].join("\n");
}

/** FNV-1a of the text as UTF-8, 64 bits; never 0, which means that there is no layout. */
export function hashOf(description: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(description)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hash === 0n ? 1n : hash;
}

/** What an excerpt's last line is called; no field can have this name, either. */
const EXCERPT = "(excerpt)";

/** The last line: how much of it is there, and what tells that nothing of it was changed. */
const EXCERPT_LINE = /^(.*)\n\(excerpt\): the first (\d+) of (\d+) fields, ([0-9a-f]+)$/s;

const checksum = (hash: bigint, text: string): string => hashOf(`${hash}\n${text}`).toString(16);

/**
 * The first lines of a description that is too long, for {@linkcode differences}; undefined if not
 * one field fits into so many bytes.
 */
export function excerptOf({ description, hash }: Layout, bytes_max: number): string | undefined {
  const lines = description.split("\n");
  const encoder = new TextEncoder();
  let bytes = 0;
  let count = 0;
  for (const line of lines) {
    bytes += encoder.encode(line).length + 1;
    if (bytes > bytes_max) break;
    count++;
  }
  if (count < 2) return undefined;
  const text = lines.slice(0, count).join("\n");
  return `${text}\n${EXCERPT}: the first ${count - 1} of ${lines.length - 1} fields, ${
    checksum(hash, text)
  }`;
}

/** Whether it is what {@linkcode excerptOf} gave for the layout of this hash. */
export function isExcerptOf(hash: bigint, text: string): boolean {
  const [, before, , , sum] = EXCERPT_LINE.exec(text) ?? [];
  return before !== undefined && checksum(hash, before) === sum;
}

/** By name: what its line says. */
function parse(description: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of description.split("\n")) {
    const end = line.indexOf(": ");
    if (end > 0) fields.set(line.slice(0, end), line.slice(end + 2));
  }
  return fields;
}

/** Differences that are told one by one. */
const TOLD_MAX = 8;

/**
 * Which fields differ, in words; empty if none do.
 *
 * @param mine The description of a layout here.
 * @param theirs That of the segment. It may be any text: it comes from shared memory.
 */
export function differences(mine: string, theirs: string): string {
  if (typeof mine !== "string" || typeof theirs !== "string") {
    throw new TypeError("differences() compares two descriptions: give it `layout.description`.");
  }
  const here = parse(mine);
  const there = parse(theirs);
  // Of an excerpt, what is not in it may be in the layout all the same.
  const [, , known, total] = EXCERPT_LINE.exec(theirs) ?? [];
  there.delete(EXCERPT);
  const told: string[] = [];
  let whole: string | undefined;
  for (const name of new Set([...here.keys(), ...there.keys()])) {
    const ours = here.get(name);
    const other = there.get(name);
    if (ours === other || (other === undefined && known !== undefined)) continue;
    const field = name.startsWith("(") ? "the whole" : `field ${JSON.stringify(name)}`;
    const said = ours === undefined
      ? `${field} is only there`
      : other === undefined
      ? `${field} is only here`
      : `${field} is ${ours} here, ${other} there`;
    if (name.startsWith("(")) whole = said;
    else told.push(said);
  }
  // Where fields differ, so does the sum of them, mostly.
  if (told.length === 0 && whole !== undefined) told.push(whole);
  const more = told.length - TOLD_MAX;
  if (more > 0) told.splice(TOLD_MAX, more, `${more} more differ`);
  if (known !== undefined) {
    told.push(
      `there are ${here.size - 1} fields here, ${total} there, of which ${known} are known`,
    );
  }
  return told.join("; ");
}
