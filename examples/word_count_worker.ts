/**
 * One of the processes that count, started by word_count.ts in either runtime:
 *
 *   word_count_worker.ts <registry> <directory>
 *
 * It reports on stdout, one line of JSON at a time, and goes on when a line comes in on stdin.
 *
 * @module
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { Registry } from "../lib/mod.ts";
import {
  CHUNK_SIZE_MAX,
  initialise,
  SEGMENT_NAME,
  segmentSize,
  WordSegment,
} from "./word_count_layout.ts";
import { countWords, cutAtWhitespace, readText } from "./words.ts";

/** What a worker says on stdout. */
export type Report =
  /** It is attached and has read the text. It waits for a line. */
  | { kind: "ready"; backendId: number; pid: number }
  /** It has the segment. */
  | { kind: "attached"; found: boolean }
  /** It has claimed the chunk in the middle of the text. It waits for a line. */
  | { kind: "half-way"; chunk: number }
  /** It has counted a chunk. */
  | { kind: "counted"; chunk: number };

const commands = createInterface({ input: process.stdin });
// Whoever started this is gone.
commands.on("close", () => process.exit(1));

/** Reports, and returns once that is written. */
function report(report: Report): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write(JSON.stringify(report) + "\n", () => resolve());
  });
}

/** Reports, and returns once a line has come in. */
async function reportAndWait(message: Report): Promise<void> {
  const line = new Promise((resolve) => commands.once("line", resolve));
  await report(message);
  await line;
}

const [name = "", dir = ""] = process.argv.slice(2);
const registry = Registry.openSync(name, { dir, mode: "attach" });
const { backendId } = registry;
const { bytes } = readText();
const cuts = cutAtWhitespace(bytes, CHUNK_SIZE_MAX);
await reportAndWait({ kind: "ready", backendId, pid: process.pid });

// All workers come here at the same time. One of them runs the callback.
const segment = registry.getNamedSegmentSync(
  SEGMENT_NAME,
  segmentSize(cuts),
  (fresh) => initialise(fresh.buffer, cuts, backendId),
  { timeout: 10_000 },
);
const words = new WordSegment(segment.buffer);
await report({ kind: "attached", found: segment.found });

function claimFromDead() {
  const alive = new Set(Array.from(registry.backends(), ({ id }) => id));
  return words.claimFromDead(backendId, (id) => alive.has(id));
}

while (!words.isAllDone) {
  const claim = words.claimFree(backendId) ?? claimFromDead();
  if (claim === undefined) {
    // What is left is claimed by processes that live. They finish or die, and neither can be
    // awaited in this version: look again.
    await setTimeout(2);
    continue;
  }
  const { chunk, takenFrom } = claim;
  if (words.isMiddle(chunk) && takenFrom === 0) await reportAndWait({ kind: "half-way", chunk });
  const { start, end } = words.range(chunk);
  // In private memory: the segment sees a chunk's counts when they are complete.
  words.finish(claim, backendId, countWords(bytes.subarray(start, end)));
  await report({ kind: "counted", chunk });
}

registry.close();
process.exit(0);
