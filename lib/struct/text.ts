/**
 * Text of a fixed number of bytes: UTF-8, with NULs behind it.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import { describe } from "../ffi/native.ts";
import { gone } from "./memory.ts";

// A byte order mark is text, too: what was written is read.
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** Longer ones are for the decoder: a call of it costs about as much as so many steps here. */
const SHORT = 24;
/** The same for the encoder: larger fields are filled by it. */
const SHORT_TO_WRITE = 64;

/** Whether its bytes are its characters; not if there is a NUL. */
function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0 || code > 0x7f) return false;
  }
  return true;
}

/**
 * What stands there, up to the first NUL. What is no UTF-8 reads as U+FFFD.
 *
 * @throws {TypeError} the buffer is detached.
 */
export function readText(bytes: Uint8Array, offset: number, size: number): string {
  let text = "";
  const short = Math.min(size, SHORT);
  let i = 0;
  for (; i < short; i++) {
    const byte = bytes[offset + i] ?? gone();
    if (byte === 0) return text;
    if (byte > 0x7f) break;
    text += String.fromCharCode(byte);
  }
  if (i === size) return text;
  const own = bytes.subarray(offset, offset + size);
  const end = own.indexOf(0);
  return decoder.decode(end < 0 ? own : own.subarray(0, end));
}

/**
 * Puts a text there. All of it, or nothing at all: it is never cut.
 *
 * @param name The field's, for errors.
 */
export function writeText(
  bytes: Uint8Array,
  offset: number,
  size: number,
  text: string,
  name: string,
): void {
  if (typeof text !== "string") {
    throw new TypeError(`Field "${name}" is a text; it cannot be ${describe(text)}.`);
  }
  // From here on no code of others runs, which could detach it.
  if (bytes[offset] === undefined) gone();
  if (size <= SHORT_TO_WRITE && text.length <= size && isAscii(text)) {
    for (let i = 0; i < text.length; i++) bytes[offset + i] = text.charCodeAt(i);
    for (let i = text.length; i < size; i++) bytes[offset + i] = 0;
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
  if (encoded.length > size) {
    throw new DsmrError(
      "SIZE_INVALID",
      `The text for field "${name}" takes ${encoded.length} bytes as UTF-8; the field has ` +
        `${size}. Shorten it, or make the field larger.`,
      { actual: size, requested: encoded.length },
    );
  }
  bytes.set(encoded, offset);
  bytes.fill(0, offset + encoded.length, offset + size);
}
