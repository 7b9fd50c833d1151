/**
 * What a struct's accessors cost, to the same done by hand with typed arrays, in the runtime that
 * runs it. Started by struct.ts; each line of input is answered with a round.
 *
 * By hand is twice: typed arrays with numbers for the indexes, held by constants of the module, which
 * engines put into the code as addresses; and a class written for these fields, with getters and
 * setters over typed arrays, as one writes it to have names. Neither notices a store into a buffer
 * that is detached; views do. Every loop stands in the source by itself, for engines keep what they
 * learn with the source. Before, forty other layouts are used, as in a program that has many: what
 * is shared between layouts must not get slow by it.
 *
 * Each loop is called often and briefly before it is measured, as functions of a program are: a
 * loop that is entered once and runs for long is compiled in another way, which is not what is asked
 * here.
 *
 * How to read "add to f64" in Bun: its compiler unrolls a loop that has only this in it, if the body
 * is small enough, and then the sum stays in a register for some rounds. Code by hand is, accessors
 * that check are not. With `BUN_JSC_usePartialLoopUnrolling=0` all are the same; and with anything
 * else in the loop a class by hand is not unrolled either: "add samples to f64".
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import {
  array,
  atomicI64,
  atomicU32,
  bool,
  f64,
  Registry,
  struct,
  text,
  u32,
  u64,
  u8,
} from "../../lib/mod.ts";
import { type Subject, turn } from "../harness.ts";

/** Calls of each loop before it is measured, and their length. */
const WARM_CALLS = 2000;
const WARM_COUNT = 100;
/** Of records, a power of two. */
const RECORDS = 64;

const record = struct({ count: u32, least: u32, total: f64 });
const layout = struct({
  small: u8,
  isOn: bool,
  number: u32,
  ratio: f64,
  big: u64,
  hits: atomicU32,
  bytes: atomicI64,
  label: text(16),
  records: array(record, RECORDS),
});

/** The class that one would write by hand for these fields. */
class Written {
  readonly #u8: Uint8Array;
  readonly #u32: Uint32Array;
  readonly #f64: Float64Array;
  readonly #u64: BigUint64Array;

  constructor(buffer: ArrayBuffer) {
    this.#u8 = new Uint8Array(buffer);
    this.#u32 = new Uint32Array(buffer);
    this.#f64 = new Float64Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
  }
  get small(): number {
    return this.#u8[0] ?? 0;
  }
  set small(value: number) {
    this.#u8[0] = value;
  }
  get number(): number {
    return this.#u32[1] ?? 0;
  }
  set number(value: number) {
    this.#u32[1] = value;
  }
  get ratio(): number {
    return this.#f64[1] ?? 0;
  }
  set ratio(value: number) {
    this.#f64[1] = value;
  }
  get big(): bigint {
    return this.#u64[2] ?? 0n;
  }
  set big(value: bigint) {
    this.#u64[2] = value;
  }
  addHits(value: number): number {
    return Atomics.add(this.#u32, 6, value);
  }
  loadHits(): number {
    return Atomics.load(this.#u32, 6);
  }
}

/** A record of an array, as one writes it by hand to have names. */
class WrittenRecord {
  readonly #u32: Uint32Array;
  readonly #f64: Float64Array;
  readonly #index: number;

  constructor(u32: Uint32Array, f64: Float64Array, index: number) {
    this.#u32 = u32;
    this.#f64 = f64;
    this.#index = index;
  }
  get count(): number {
    return this.#u32[4 * this.#index] ?? 0;
  }
  set count(value: number) {
    this.#u32[4 * this.#index] = value;
  }
  get least(): number {
    return this.#u32[4 * this.#index + 1] ?? 0;
  }
  set least(value: number) {
    this.#u32[4 * this.#index + 1] = value;
  }
  get total(): number {
    return this.#f64[2 * this.#index + 1] ?? 0;
  }
  set total(value: number) {
    this.#f64[2 * this.#index + 1] = value;
  }
}

/** An array of them. */
class WrittenRecords {
  readonly #u32: Uint32Array;
  readonly #f64: Float64Array;
  readonly #length: number;

  constructor(buffer: ArrayBuffer, byteOffset: number, length: number) {
    this.#u32 = new Uint32Array(buffer, byteOffset, 4 * length);
    this.#f64 = new Float64Array(buffer, byteOffset, 2 * length);
    this.#length = length;
  }
  at(index: number): WrittenRecord {
    if (!(index >= 0 && index < this.#length)) throw new RangeError(`No record ${index}.`);
    return new WrittenRecord(this.#u32, this.#f64, index);
  }
}

const [dir = ""] = process.argv.slice(2);
const registry = Registry.openSync("struct", { dir });
const segment = registry.getNamedSegmentSync("struct", layout.size);
const { buffer } = segment;

/** Uses other layouts with the same kinds of fields at other places. */
function pollute(): number {
  let sum = 0;
  for (let i = 0; i < 40; i++) {
    const other = struct({
      before: array(u8, i + 1),
      small: u8,
      number: u32,
      ratio: f64,
      big: u64,
      hits: atomicU32,
      inner: record,
    });
    const view = other.view({ buffer: new ArrayBuffer(other.size) });
    for (let n = 0; n < 5000; n++) {
      view.small = n;
      view.number = view.small + 0x7fff0000 + n * 0x10000;
      view.ratio = view.number / 3;
      view.big = BigInt(n);
      view.inner.count++;
      sum += view.hits.add(1) + view.ratio + Number(view.big) + view.inner.count;
    }
  }
  return sum;
}

type Loop = (count: number) => unknown;
const subjects: Subject[] = [];

/** What the loops come to, so that no engine leaves them out. */
let result: unknown;

/** By hand, by a class, by the view. */
function subject(name: string, count: number, ...loops: (Loop | undefined)[]): void {
  loops.forEach((loop, i) => {
    if (loop === undefined) return;
    const run = (count: number) => {
      result = loop(count);
    };
    subjects.push({ name: `${name.replaceAll(" ", "_")}:${i}`, count, run });
  });
}

const at = layout.offsets;
if (at.small !== 0 || at.number !== 4 || at.ratio !== 8 || at.big !== 16 || at.hits !== 24) {
  throw new Error("The class written by hand has other offsets than the layout.");
}
const view = layout.view(segment);
const written = new Written(buffer);
const writtenRecords = new WrittenRecords(buffer, layout.offsets.records, RECORDS);
const bytes = new Uint8Array(buffer);
const words = new Uint32Array(buffer);
const doubles = new Float64Array(buffer);
const bigs = new BigUint64Array(buffer);
const signedBigs = new BigInt64Array(buffer);
/** What a program adds up. */
const samples = Float64Array.from({ length: 1024 }, (_, i) => i / 8);
const [NUMBER, RATIO, BIG, HITS] = [1, 1, 2, 6] as const;
const BYTES = at.bytes / 8;
const FIRST = at.records / 8;

subject("read u32", 1e6, (count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + (words[NUMBER] ?? 0)) | 0;
  return sum;
}, (count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + written.number) | 0;
  return sum;
}, (count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + view.number) | 0;
  return sum;
});
subject("write u32", 1e6, (count) => {
  for (let i = 0; i < count; i++) words[NUMBER] = i;
}, (count) => {
  for (let i = 0; i < count; i++) written.number = i;
}, (count) => {
  for (let i = 0; i < count; i++) view.number = i;
});
subject("write u8", 1e6, (count) => {
  for (let i = 0; i < count; i++) bytes[0] = i;
}, (count) => {
  for (let i = 0; i < count; i++) written.small = i;
}, (count) => {
  for (let i = 0; i < count; i++) view.small = i;
});
subject("add to f64", 1e6, (count) => {
  for (let i = 0; i < count; i++) doubles[RATIO] = (doubles[RATIO] ?? 0) + 1.5;
}, (count) => {
  for (let i = 0; i < count; i++) written.ratio += 1.5;
}, (count) => {
  for (let i = 0; i < count; i++) view.ratio += 1.5;
});
subject("add samples to f64", 1e6, (count) => {
  for (let i = 0; i < count; i++) {
    doubles[RATIO] = (doubles[RATIO] ?? 0) + (samples[i & 1023] ?? 0);
  }
}, (count) => {
  for (let i = 0; i < count; i++) written.ratio += samples[i & 1023] ?? 0;
}, (count) => {
  for (let i = 0; i < count; i++) view.ratio += samples[i & 1023] ?? 0;
});
subject("add to u64", 3e5, (count) => {
  for (let i = 0; i < count; i++) bigs[BIG] = (bigs[BIG] ?? 0n) + 3n;
}, (count) => {
  for (let i = 0; i < count; i++) written.big += 3n;
}, (count) => {
  for (let i = 0; i < count; i++) view.big += 3n;
});
subject("atomic add u32", 5e5, (count) => {
  for (let i = 0; i < count; i++) Atomics.add(words, HITS, 1);
}, (count) => {
  for (let i = 0; i < count; i++) written.addHits(1);
}, (count) => {
  for (let i = 0; i < count; i++) view.hits.add(1);
});
subject("atomic load u32", 5e5, (count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + Atomics.load(words, HITS)) | 0;
  return sum;
}, (count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + written.loadHits()) | 0;
  return sum;
}, (count) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + view.hits.load()) | 0;
  return sum;
});
subject(
  "atomic add i64",
  3e5,
  (count) => {
    for (let i = 0; i < count; i++) Atomics.add(signedBigs, BYTES, 1n);
  },
  undefined,
  (count) => {
    for (let i = 0; i < count; i++) view.bytes.add(1n);
  },
);
// What a program does with records: one of many, three fields of it. The least is found early.
subject(
  "update a record",
  3e5,
  (count) => {
    for (let i = 0; i < RECORDS; i++) words[2 * FIRST + 4 * i + 1] = 0xffff_ffff;
    for (let i = 0; i < count; i++) {
      const double = FIRST + 2 * ((i * 7) & (RECORDS - 1));
      const word = 2 * double;
      words[word] = (words[word] ?? 0) + 1;
      if (i < (words[word + 1] ?? 0)) words[word + 1] = i;
      doubles[double + 1] = (doubles[double + 1] ?? 0) + i;
    }
  },
  (count) => {
    for (let i = 0; i < RECORDS; i++) writtenRecords.at(i).least = 0xffff_ffff;
    for (let i = 0; i < count; i++) {
      const record = writtenRecords.at((i * 7) & (RECORDS - 1));
      record.count++;
      if (i < record.least) record.least = i;
      record.total += i;
    }
  },
  (count) => {
    const { records } = view;
    for (let i = 0; i < RECORDS; i++) records.at(i).least = 0xffff_ffff;
    for (let i = 0; i < count; i++) {
      const record = records.at((i * 7) & (RECORDS - 1));
      record.count++;
      if (i < record.least) record.least = i;
      record.total += i;
    }
  },
);
const decoder = new TextDecoder();
const label = new Uint8Array(buffer, at.label, 16);
subject(
  "read text(16)",
  3e4,
  (count) => {
    let length = 0;
    for (let i = 0; i < count; i++) {
      const end = label.indexOf(0);
      length += decoder.decode(end < 0 ? label : label.subarray(0, end)).length;
    }
    return length;
  },
  undefined,
  (count) => {
    let length = 0;
    for (let i = 0; i < count; i++) length += view.label.length;
    return length;
  },
);
const encoder = new TextEncoder();
subject(
  "write text(16)",
  3e4,
  (count) => {
    for (let i = 0; i < count; i++) {
      label.fill(0, encoder.encodeInto("front page", label).written);
    }
  },
  undefined,
  (count) => {
    for (let i = 0; i < count; i++) view.label = "front page";
  },
);

if (Number.isNaN(pollute())) throw new Error("The other layouts give no numbers.");
view.label = "front page";
// As a program has it: engines make a function of what is called often. Of a loop that is entered
// once they make something else, in which small loops fare better than others.
for (const { run } of subjects) for (let i = 0; i < WARM_CALLS; i++) void run(WARM_COUNT);
for await (const _ of createInterface({ input: process.stdin })) {
  process.stdout.write(`${await turn(subjects)}\n`);
}
if (typeof result === "symbol") throw new Error("A loop has come to nothing.");
registry.close();
