/**
 * What the library's own segments are called in messages: their names are nobody's business.
 *
 * @module
 */

import { DsmrError } from "./errors.ts";

const TABLES: Readonly<Record<string, string>> = {
  parking: "the table of those who wait",
  locks: "the table of locks by name",
};

/** The native library shows "?" for what is not to be printed; JSON an escape. */
const OWN_NAME = /[Ss]egment "(?:\p{Cc}|\\u0001|\?)(parking|locks)\d*"/gu;

/** What a segment of the library's own is called; of those that have a name in words. */
export function titleOf(name: string): string {
  return TABLES[name.replace("\u0001", "").replace(/\d+$/, "")] ?? JSON.stringify(name);
}

function inWords(message: string): string {
  return message.replace(OWN_NAME, (_, key: string, at: number) => {
    const title = TABLES[key] ?? key;
    return at === 0 ? `The${title.slice(3)}` : title;
  });
}

/** The same error without names of the library's own segments. */
export function inOwnWords(thrown: unknown): unknown {
  if (!(thrown instanceof DsmrError)) return thrown;
  const message = inWords(thrown.message);
  if (message === thrown.message) return thrown;
  const { code, actual, requested, errno, cause } = thrown;
  return new DsmrError(code, message, {
    ...(cause === undefined ? {} : { cause }),
    ...(actual === undefined ? {} : { actual }),
    ...(requested === undefined ? {} : { requested }),
    ...(errno === undefined ? {} : { errno }),
  });
}
