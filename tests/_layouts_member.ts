/**
 * A process that remembers layouts, and dies at a store of its: arguments are the directory, how
 * many stores it may do, and the number of the layout. Prints what came of it, if it comes to that.
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { Backend } from "../lib/backend.ts";
import { LAYOUTS_SIZE, rememberSync } from "../lib/layouts.ts";
import { layoutOf, openOptions } from "./_layouts.ts";

const [dir = "", stores = "", number = ""] = process.argv.slice(2);

let left = Infinity;
/** Dies instead of the store to the segment that is one too many. */
function count({ buffer }: ArrayBufferView): void {
  // Others are arguments of the library.
  if (buffer.byteLength !== LAYOUTS_SIZE) return;
  if (left-- === 0) process.kill(process.pid, "SIGKILL");
}

// All ways in which lib/layouts.ts writes; the test sees how many stores there were.
const { set } = Uint8Array.prototype;
const { setBigUint64, setUint32 } = DataView.prototype;
const { store } = Atomics;
Object.assign(Uint8Array.prototype, {
  set(this: Uint8Array, source: ArrayLike<number>, offset: number): void {
    count(this);
    set.call(this, source, offset);
  },
});
Object.assign(DataView.prototype, {
  setUint32(this: DataView, offset: number, value: number, isLittleEndian: boolean): void {
    count(this);
    setUint32.call(this, offset, value, isLittleEndian);
  },
  setBigUint64(this: DataView, offset: number, value: bigint, isLittleEndian: boolean): void {
    count(this);
    setBigUint64.call(this, offset, value, isLittleEndian);
  },
});
Object.assign(Atomics, {
  store(words: Int32Array, index: number, value: number): number {
    count(words);
    return store(words, index, value);
  },
});

const backend = Backend.open(dir, "test", "", openOptions);
left = Number(stores);
const isKept = rememberSync(backend, layoutOf(Number(number)));
const unused = left;
left = Infinity;
writeSync(1, JSON.stringify({ said: `${isKept} ${Number(stores) - unused}` }) + "\n");
backend.release();
