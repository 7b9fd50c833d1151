// shm-typed-array, in the runtime that it is made for. Answers as child.ts does.
//
//   in_node.cjs FOLDER NAME
//
// NAME is of a POSIX shared memory object, which is made, and removed at the end.

"use strict";

const { createRequire } = require("node:module");
const { join } = require("node:path");
const { createInterface } = require("node:readline");

const RECORD_BYTES = 1024;
const [folder, name] = process.argv.slice(2);

let shm;
try {
  shm = createRequire(join(folder, "package.json"))("shm-typed-array");
} catch (error) {
  const why = error.code === "MODULE_NOT_FOUND"
    ? "not installed, or it did not build"
    : `does not load: ${error.message.split("\n")[0]}`;
  console.log(JSON.stringify([`shm-typed-array in Node.js ${process.version}: ${why}`]));
  process.exit();
}
const bytes = shm.create(4096, "Uint8Array", name);
if (bytes === null) throw new Error(`${name} is there`);
const counter = new BigUint64Array(bytes.buffer, bytes.byteOffset, 1);
const record = bytes.subarray(64, 64 + RECORD_BYTES);

const subjects = [
  ["update:shm", 20000, (count) => {
    for (let i = 0; i < count; i++) Atomics.add(counter, 0, 1n);
  }],
  ["read:shm", 20000, (count) => {
    for (let i = 0; i < count; i++) {
      const copy = record.slice();
      if (copy[0] !== copy[RECORD_BYTES - 1]) throw new Error("The record is of two moments.");
    }
  }],
];

console.log("[]");
createInterface({ input: process.stdin }).on("line", () => {
  const answer = subjects.map(([name, count, run]) => {
    const started = performance.now();
    run(count);
    return `${name} ${((performance.now() - started) * 1e6 / count).toFixed(3)}`;
  });
  console.log(answer.join(" "));
}).on("close", () => {
  shm.destroy(name);
  process.exit();
});
