/**
 * A program that uses a registry and nothing else, to be run with few permissions: prints what
 * it got, or the error.
 *
 * @module
 */

import process from "node:process";
import { DsmrError, Registry } from "../lib/mod.ts";

const [dir] = process.argv.slice(2);
try {
  const registry = Registry.openSync("test", dir === undefined ? {} : { dir });
  const segment = registry.getNamedSegmentSync("a", 64, (segment) => {
    new Uint8Array(segment.buffer).fill(5);
  });
  const { found, size } = segment;
  console.log(JSON.stringify({ ok: true, found, size, value: new Uint8Array(segment.buffer)[63] }));
  registry.close();
} catch (error) {
  const { code, message } = error as DsmrError;
  console.log(JSON.stringify({ ok: false, code, message }));
}
