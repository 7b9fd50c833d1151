/**
 * A member of a storm, in Deno and in Bun; c/tests/storm_member.c is the same in C. What it does
 * and why that shows every fault is written in `_storm_history.ts`.
 *
 *   _storm_member.ts DIRECTORY LIFE SEED
 *
 * @module
 */

import { writeSync } from "node:fs";
import process from "node:process";
import { DsmrError, type LockMode, type LWLock, Registry, type Segment } from "../lib/mod.ts";
import { randomFrom } from "./_random.ts";
import {
  arenaOf,
  ARENAS,
  BEGIN,
  byteOffsetOf,
  cellOf,
  CHECK,
  CLOCK,
  COMMIT,
  DEADLINE,
  ENTRY_WORDS,
  FIRST,
  GIVE_UP,
  INSIDE,
  isIntact,
  lockOf,
  LOCKS,
  LOCKS_OF_ARENA,
  mix,
  READ,
  READ_BROKEN,
  REPAIR,
  SECOND,
  STOP,
  VOLUME_BYTES,
  VOLUME_ENTRIES,
  VOLUME_REST,
  volumeName,
  WRITER,
} from "./_storm_layout.ts";

const [dir = "", lifeText = "", seedText = ""] = process.argv.slice(2);
const life = Number(lifeText);
const random = randomFrom(Number(seedText));
const chance = (one: number): boolean => random() * one < 1;

/** Thrown from inside a section whose locks are gone: detached or closed while held. */
class Deserted extends Error {}

interface Held {
  lock: number;
  mode: LockMode;
  /** Whether plain release() or releaseAll() ends it, not a block or a callback. */
  isPlain: boolean;
}

let registry: Registry;
let control: Uint32Array;
let arenas: Segment[];
let book: Segment;
let entries: Uint32Array;
let volume = 0;
/** Entries in the volume. */
let count = 0;
/** From the outermost one on. */
let held: Held[] = [];
/** Locks of inner sections that are over, left to the releaseAll() of the outer one. */
let kept = 0;

function violation(what: string): never {
  writeSync(1, JSON.stringify({ violation: `life ${life}: ${what}` }) + "\n");
  process.exit(1);
}

function attach(): void {
  registry = Registry.openSync("storm", { dir, mode: "attach" });
  control = new Uint32Array(registry.getNamedSegmentSync("control").buffer);
  arenas = [];
  for (const arena of ARENAS.keys()) attachArena(arena);
  attachBook();
}

function attachArena(arena: number): void {
  const repair = (segment: Segment): void => {
    // Some are left to the next one.
    if (chance(8)) throw new Error("left abandoned");
    const own = arena * LOCKS_OF_ARENA;
    mend(cellOf(segment, own), own);
  };
  arenas[arena] = registry.getNamedSegmentSync(ARENAS[arena] ?? "", undefined, undefined, {
    repair,
  });
}

function attachBook(): void {
  book = registry.getNamedSegmentSync(volumeName(life, volume), VOLUME_BYTES);
  entries = new Uint32Array(book.buffer);
}

function tick(): number {
  return Atomics.add(control, CLOCK, 1) + 1;
}

function note(kind: number, lock: number, token: number, extra: number): void {
  const at = count++ * ENTRY_WORDS;
  const now = tick();
  // Atomic, in this order: a kill in between leaves no entry, for the tick is still 0.
  Atomics.store(entries, at, kind + lock * 256);
  Atomics.store(entries, at + 1, token);
  Atomics.store(entries, at + 2, extra);
  Atomics.store(entries, at + 3, now);
}

const nobody = new Int32Array(new SharedArrayBuffer(4));

/** Spends a moment, so that others come, and a kill finds us here. */
function linger(): void {
  // Asleep, the others get to run, and into us.
  if (chance(100)) Atomics.wait(nobody, 0, 0, random());
  else for (let spins = random() * 200; spins > 0; spins--) Atomics.load(control, STOP);
}

/** The lock is ours, exclusively, and abandoned. Never lowers the token. */
function mend(cell: Uint32Array, lock: number): void {
  const token = Math.max(cell[FIRST] ?? 0, cell[SECOND] ?? 0);
  note(REPAIR, lock, token, Atomics.load(cell, INSIDE));
  cell[FIRST] = token;
  cell[SECOND] = token;
  cell[WRITER] = life;
  cell[CHECK] = mix(token, life);
  Atomics.store(cell, INSIDE, 0);
}

/** Detaches or closes, with locks held. */
function desert(): never {
  const arena = arenaOf(held[0]?.lock ?? 0);
  const detaches = held.every(({ lock }) => arenaOf(lock) === arena) && chance(2);
  for (const { lock, mode } of held) if (mode === "exclusive") note(GIVE_UP, lock, 0, 0);
  if (detaches) {
    arenas[arena]?.detach();
    attachArena(arena);
  } else {
    registry.close();
    attach();
  }
  throw new Deserted();
}

/** What happens in the middle of every section. */
function middle(lock: number): void {
  if (chance(1000)) desert();
  linger();
  if (held.length < 2 && lock + 1 < LOCKS && chance(4)) {
    // In lock order, so that there is no cycle.
    use(lock + 1 + Math.floor(random() * (LOCKS - lock - 1)));
  }
}

function write(lwlock: LWLock, cell: Uint32Array, lock: number): void {
  if (lwlock.abandoned) {
    // Told so, and the segment's own lock was mended by the callback.
    if (byteOffsetOf(lock) === undefined) violation(`lock ${lock} is abandoned after its repair`);
    if (chance(8)) return;
    mend(cell, lock);
    lwlock.markConsistent();
  }
  const entered = tick();
  const found = Atomics.exchange(cell, INSIDE, life);
  if (found !== 0) violation(`came into lock ${lock}, and life ${found} was inside`);
  if (!isIntact(cell)) violation(`lock ${lock} is torn, and not abandoned: ${cell}`);
  const token = (cell[FIRST] ?? 0) + 1;
  note(BEGIN, lock, token, entered);
  // So that a kill may also come between the announcement and the first word.
  if (chance(2)) linger();
  cell[FIRST] = token;
  middle(lock);
  cell[SECOND] = token;
  cell[WRITER] = life;
  linger();
  cell[CHECK] = mix(token, life);
  if (cell[FIRST] !== token) violation(`somebody wrote ${cell[FIRST]} over token ${token}`);
  note(COMMIT, lock, token, 0);
  const left = Atomics.exchange(cell, INSIDE, 0);
  if (left !== life) violation(`leaves lock ${lock}, and life ${left} is inside`);
}

function read(lwlock: LWLock, cell: Uint32Array, lock: number): void {
  const entered = tick();
  const { abandoned } = lwlock;
  const before = cell.slice();
  if (!abandoned && (before[INSIDE] !== 0 || !isIntact(before))) {
    violation(`reads lock ${lock} torn, and not abandoned: ${before}`);
  }
  middle(lock);
  const after = cell.slice();
  if (before.some((word, i) => word !== after[i]) || lwlock.abandoned !== abandoned) {
    violation(`lock ${lock} changed under a reader: ${before} to ${after}`);
  }
  note(abandoned ? READ_BROKEN : READ, lock, before[FIRST] ?? 0, entered);
}

/** One use of a lock, in a random mode and by a random call; may not get it. */
function use(lock: number): void {
  const arena = arenas[arenaOf(lock)];
  if (arena === undefined) throw new Error("no such arena");
  const lwlock = lockOf(arena, lock);
  const way = Math.floor(random() * 8);
  let mode: LockMode = chance(3) ? "shared" : "exclusive";
  const body = (): void => {
    held.push({ lock, mode, isPlain: way > 1 });
    const cell = cellOf(arena, lock);
    if (mode === "shared") read(lwlock, cell, lock);
    else write(lwlock, cell, lock);
    held.pop();
  };
  const timeout = chance(3) ? { timeout: Math.floor(random() * 4) } : {};
  try {
    if (way === 0) return lwlock.withSync(mode, body, timeout);
    if (way === 1) {
      using _held = lwlock.holdSync(mode, timeout);
      return body();
    }
    if (way === 2) {
      if (!lwlock.tryAcquire(mode)) return;
    } else if (way === 3) {
      mode = "exclusive";
      if (!lwlock.acquireOrWaitSync(timeout)) return;
    } else {
      lwlock.acquireSync(mode, timeout);
    }
    body();
    if (held.at(-1)?.isPlain && chance(2)) kept++;
    else if (kept > 0 || (held.length === 0 && chance(8))) releaseAll();
    else lwlock.release();
  } catch (error) {
    const isTimeout = error instanceof DsmrError && error.code === "TIMEOUT";
    if (!isTimeout && !isLeftAbandoned(error)) throw error;
  }
}

/** The repair callback has left it to the next one. */
function isLeftAbandoned(error: unknown): boolean {
  return error instanceof DsmrError && error.code === "ABANDONED";
}

function releaseAll(): void {
  const released = registry.releaseAll();
  if (released !== kept + 1) violation(`releaseAll() let go of ${released}, not ${kept + 1} locks`);
  kept = 0;
}

function turn(): void {
  if (count + VOLUME_REST > VOLUME_ENTRIES) {
    book.detach();
    volume++;
    count = 0;
    attachBook();
  }
  try {
    // Two of them are crowded: a segment's own, and one in its bytes.
    use(chance(2) ? 4 * Math.floor(random() * 2) : Math.floor(random() * LOCKS));
  } catch (error) {
    if (!(error instanceof Deserted)) throw error;
    held = [];
  }
  linger();
}

/** Everything is to be had once more: a lock that somebody living has leaked keeps us here. */
function sayFarewell(): void {
  for (let lock = 0; lock < LOCKS; lock++) {
    const arena = arenas[arenaOf(lock)];
    if (arena === undefined) throw new Error("no such arena");
    try {
      lockOf(arena, lock).withSync("exclusive", () => {});
    } catch (error) {
      if (!isLeftAbandoned(error)) throw error;
    }
  }
}

function run(): void {
  attach();
  writeSync(1, JSON.stringify({ pid: process.pid }) + "\n");
  while (Atomics.load(control, STOP) === 0 && Date.now() / 1000 < (control[DEADLINE] ?? 0)) turn();
  sayFarewell();
  registry.close();
}

try {
  run();
} catch (error) {
  violation(String(error instanceof Error ? error.stack : error));
}
