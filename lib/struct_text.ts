/**
 * Text of a fixed number of bytes: UTF-8, with NULs behind it.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";
import { describe } from "./ffi/native.ts";

// A byte order mark is text, too: what was written is read.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** Longer ones are for the decoder: a call of it costs about as much as so many steps here. */
const SHORT = 24;
/** The same for the encoder. */
const SHORT_TO_WRITE = 64;

/** Whether it is so short, and so plain, that it is quicker written here. */
function isShortAscii(text: string): boolean {
  if (text.length > SHORT_TO_WRITE) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0 || code > 0x7f) return false;
  }
  return true;
}

/** What stands there, up to the first NUL. What is no UTF-8 reads as U+FFFD: never throws. */
export function readText(bytes: Uint8Array<ArrayBuffer>): string {
  let text = "";
  const short = Math.min(bytes.length, SHORT);
  let i = 0;
  for (; i < short; i++) {
    const byte = bytes[i] ?? 0;
    if (byte === 0) return text;
    if (byte > 0x7f) break;
    text += String.fromCharCode(byte);
  }
  if (i === bytes.length) return text;
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * Puts a text there. All of it, or nothing at all: it is never cut.
 *
 * @param name The field's, for errors.
 */
export function writeText(bytes: Uint8Array<ArrayBuffer>, text: string, name: string): void {
  if (typeof text !== "string") {
    throw new TypeError(`Field "${name}" is a text; it cannot be ${describe(text)}.`);
  }
  if (text.length <= bytes.length && isShortAscii(text)) {
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    for (let i = text.length; i < bytes.length; i++) bytes[i] = 0;
    return;
  }
  // Where reading would not give back what was written.
  if (text.includes("\0")) throw new RangeError(`The text for field "${name}" has a NUL in it.`);
  if (!text.isWellFormed()) {
    throw new RangeError(
      `The text for field "${name}" has half a surrogate pair, which is no text.`,
    );
  }
  const encoded = encoder.encode(text);
  if (encoded.length > bytes.length) {
    throw new DsmrError(
      "SIZE_INVALID",
      `The text for field "${name}" takes ${encoded.length} bytes as UTF-8; the field has ` +
        `${bytes.length}. Shorten it, or make the field larger.`,
      { actual: bytes.length, requested: encoded.length },
    );
  }
  bytes.set(encoded);
  bytes.fill(0, encoded.length);
}
