/**
 * The descriptions of layouts, kept in the registry: so that who comes with another layout than a
 * segment's is told in words what differs. A registry entry itself has but the hash.
 *
 * They stand in a segment of the library's own, one record behind the other; a record is never
 * changed once it counts. How many bytes count stands in one word, `used`, which is the only thing
 * that is ever overwritten, under the segment's lock.
 *
 * What others see if a writer dies: before the lock, nothing. With the lock, while it writes a
 * record, bytes behind `used`, at which nobody looks; the next writer gets the lock abandoned,
 * finds nothing to repair, and writes over them. After the store of `used`, a record that is whole:
 * the store is sequentially consistent and comes last, so whoever loads the new `used` sees the
 * bytes before it. Readers take no lock: they load `used` once, and what is before it stays as it
 * is.
 *
 * It is a help and no more: no room, no lock at once, or a segment that makes no sense, and the
 * description is just not kept, or not found. A record counts only if its text has its hash, or is an
 * excerpt with a checksum: of a long description the first fields are kept, and how many there are.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { DsmrError, type DsmrErrorCode } from "./errors.ts";
import type { Segment } from "./segment.ts";
import { excerptOf, hashOf, isExcerptOf, type Layout } from "./struct/layout.ts";
import { TABLE_PATIENCE_MS } from "./wait.ts";

/** The library's own segment, which listings leave out. */
export const LAYOUTS_NAME = "\u0001layouts";
/** Its size: some hundred layouts of ten fields. */
export const LAYOUTS_SIZE = 65_536;

/** A header of one word: how many bytes of records count. The records begin behind it. */
const RECORDS = 8;
/** Of a record, before its text: the hash (8 bytes), the text's bytes (4), 4 unused. */
const RECORD_HEADER = 16;
/** A longer description would take the room of many others: of it, an excerpt is kept. */
const TEXT_MAX = 8192;
/** How much of it, in bytes: some sixty fields. */
const EXCERPT_MAX = 2048;

/**
 * Not kept or not found, and the caller goes on without: no room, somebody who is stopped in the
 * way, or a segment that is damaged or another's.
 */
const HARMLESS: readonly DsmrErrorCode[] = [
  "CORRUPT",
  "NO_SPACE",
  "PERMISSION",
  "REGISTRY_FULL",
  "SIZE_MISMATCH",
  "TIMEOUT",
];

const roundUp = (bytes: number): number => Math.ceil(bytes / 8) * 8;

/** The records of an attached segment. */
class Records {
  readonly #words: Int32Array;
  readonly #view: DataView;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor({ buffer }: Segment) {
    this.#words = new Int32Array(buffer, 0, 1);
    this.#view = new DataView(buffer, RECORDS);
    this.#bytes = new Uint8Array(buffer, RECORDS);
  }

  /** How many bytes count; undefined if that makes no sense. */
  #used(): number | undefined {
    const used = Atomics.load(this.#words, 0);
    return used >= 0 && used <= this.#bytes.length && used % 8 === 0 ? used : undefined;
  }

  find(hash: bigint): string | undefined {
    const used = this.#used() ?? 0;
    for (let at = 0; at + RECORD_HEADER <= used;) {
      const length = this.#view.getUint32(at + 8, true);
      const next = at + RECORD_HEADER + roundUp(length);
      // Behind a record without an end there is nothing to be found.
      if (next > used) return undefined;
      if (this.#view.getBigUint64(at, true) === hash) {
        const text = this.#text(at + RECORD_HEADER, length);
        if (hashOf(text) === hash || isExcerptOf(hash, text)) return text;
      }
      at = next;
    }
    return undefined;
  }

  #text(at: number, length: number): string {
    // A byte order mark is text, too; what is no UTF-8 comes out with another hash.
    return new TextDecoder("utf-8", { ignoreBOM: true })
      .decode(this.#bytes.subarray(at, at + length));
  }

  /** Puts one behind the others, with the lock held; false if there is no room. */
  append(hash: bigint, text: Uint8Array): boolean {
    const used = this.#used();
    if (used === undefined) return false;
    const end = used + RECORD_HEADER + roundUp(text.length);
    if (end > this.#bytes.length) return false;
    this.#view.setBigUint64(used, hash, true);
    this.#view.setUint32(used + 8, text.length, true);
    this.#bytes.set(text, used + RECORD_HEADER);
    // From here on it counts.
    Atomics.store(this.#words, 0, end);
    return true;
  }
}

/** Undefined: the segment is none of this version's. */
function recordsOf(segment: Segment): Records | undefined {
  return segment.size >= RECORDS ? new Records(segment) : undefined;
}

/** What is kept of it; undefined: nothing. */
function textOf(layout: Layout): Uint8Array | undefined {
  const encoder = new TextEncoder();
  const text = encoder.encode(layout.description);
  if (text.length <= TEXT_MAX) return text;
  const excerpt = excerptOf(layout, EXCERPT_MAX);
  return excerpt === undefined ? undefined : encoder.encode(excerpt);
}

function put(segment: Segment, layout: Layout): boolean {
  const { hash } = layout;
  const records = recordsOf(segment);
  if (records === undefined) return false;
  // Mostly it is there. Without the lock.
  if (records.find(hash) !== undefined) return true;
  const text = textOf(layout);
  if (text === undefined) return false;
  const { lock } = segment;
  lock.acquireSync("exclusive", { timeout: TABLE_PATIENCE_MS });
  try {
    // A writer that died has left nothing that counts.
    if (lock.abandoned) lock.markConsistent();
    return records.find(hash) !== undefined || records.append(hash, text);
  } finally {
    lock.release();
  }
}

function excuse<Result>(cause: unknown, result: Result): Result {
  if (cause instanceof DsmrError && HARMLESS.includes(cause.code)) return result;
  throw cause;
}

/**
 * Keeps a layout's description. Blocks for some milliseconds at most.
 *
 * @returns whether it is kept, or was already; false: there is no room, or no getting in.
 * @throws {DsmrError} `CLOSED` and the like: the registry cannot be used.
 */
export async function remember(backend: Backend, layout: Layout): Promise<boolean> {
  try {
    return put(await backend.ownSegment(LAYOUTS_NAME, LAYOUTS_SIZE), layout);
  } catch (cause) {
    return excuse(cause, false);
  }
}

/** As {@linkcode remember}; blocks while another backend makes the segment. */
export function rememberSync(backend: Backend, layout: Layout): boolean {
  try {
    return put(backend.ownSegmentSync(LAYOUTS_NAME, LAYOUTS_SIZE), layout);
  } catch (cause) {
    return excuse(cause, false);
  }
}

/**
 * The description that was kept under this hash, if any, or an excerpt of it. Never waits, and makes nothing.
 *
 * @throws {DsmrError} As {@linkcode remember}.
 */
export function recall(backend: Backend, hash: bigint): string | undefined {
  try {
    const segment = backend.current(LAYOUTS_NAME) ?? backend.lookup(LAYOUTS_NAME);
    return segment === null ? undefined : recordsOf(segment)?.find(hash);
  } catch (cause) {
    return excuse(cause, undefined);
  }
}
