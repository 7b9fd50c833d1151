/**
 * One side of the ping-pong from JavaScript, as ping.c with kind "dsmr". Started by ping.ts.
 *
 *     ping_child.ts DIRECTORY SEGMENT ROLE ROUNDS
 *
 * @module
 */

import process from "node:process";
import { Registry } from "../../lib/mod.ts";

const [dir = "", segmentName = "", roleText, roundsText] = process.argv.slice(2);
const role = Number(roleText);
const rounds = Number(roundsText);
const registry = Registry.openSync("lock", { dir });
const segment = registry.getNamedSegmentSync(segmentName, 4096);
const own = segment.lockAt(role * 64);
const other = segment.lockAt(64 - role * 64);
const ownVariable = 128 + role * 64;
const otherVariable = 192 - role * 64;
const arrived = new Int32Array(segment.buffer, 256, 1);
const meet = (everyone: number) => {
  Atomics.add(arrived, 0, 1);
  while (Atomics.load(arrived, 0) < everyone) { /* The other one comes at once. */ }
};
const times = new Float64Array(rounds);
own.acquireSync("exclusive");
meet(2);
for (let round = 1; round <= rounds; round++) {
  const started = performance.now();
  if (role === 0) own.updateVar(ownVariable, BigInt(round));
  const { value } = other.waitForVarSync(otherVariable, BigInt(round - 1));
  if (value !== BigInt(round)) throw new Error(`${value} instead of ${round}`);
  if (role === 1) own.updateVar(ownVariable, BigInt(round));
  times[round - 1] = (performance.now() - started) * 1e3 / 2;
}
// The other one may still be looking at our lock.
meet(4);
if (role === 0) console.log([...times].map((time) => time.toFixed(2)).join(" "));
registry.close();
