/**
 * The checker of a storm: reads what all members wrote down, and says whether the locks kept
 * their word.
 *
 * A life is one process from its start to its end, be it that it was killed. Every lock guards
 * a cell (`_storm_layout.ts`): a fencing token in two words, who wrote it, and a check sum,
 * written one after the other by plain stores; and the word INSIDE, the life that is inside
 * exclusively. A life has a book that only it writes: an entry is complete or not there, and
 * the memory outlives it. Every entry has a tick of one clock that all share, taken by an
 * atomic addition; who holds a lock takes its ticks between acquiring and releasing.
 *
 * An exclusive section: tick; put oneself INSIDE; find the cell intact with token t; BEGIN t+1;
 * write the first word; linger, or use a second lock; write the rest; COMMIT t+1; take oneself
 * from INSIDE; release. After a death inside: REPAIR r, r being the larger word; write r
 * everywhere; clear INSIDE; mark consistent. A shared section: tick; find the cell intact;
 * linger; find it unchanged; READ. An abandoned one is READ_BROKEN. GIVE_UP comes before a
 * detach or a close in an exclusive section, which is as good as a death there.
 *
 * What it shows, and why:
 *
 *   - Two inside at once. Sections have lengths in ticks. If two of a lock overlap, one of them
 *     exclusive, then both took ticks while both were inside: certain, if both lived to write
 *     it down. They also meet in INSIDE or in a torn or changed cell, and say so at once.
 *   - A lost update, a token given twice or passed over. By their ticks the sections of a lock
 *     are in the order in which they happened. Replayed, every BEGIN is the last token plus one,
 *     every READ finds the last token.
 *   - A gap is explained by nothing but a death: a BEGIN without COMMIT is allowed as the last
 *     word that a killed life, or one that gave up, said on the lock. Was the token written or
 *     not? The REPAIR that must follow says so, and the replay goes on from there.
 *   - A death that nobody is told of: a BEGIN without COMMIT that no REPAIR follows. The entry
 *     is written inside, so the death was inside.
 *   - A living holder robbed, stopped or not: it is found INSIDE by a REPAIR though it was
 *     neither killed nor gave up; or it goes on, and overlaps. And more repairs than deaths.
 *   - A leaked holder, exclusive or shared, or a lost wake-up: nobody comes in any more, and
 *     at the end a member does not end: all of them take every lock before they leave.
 *
 * What it cannot show: a life that is killed before it has noted down what it saw was no
 * witness. With thousands of sections for each death that does not save a fault for long.
 *
 * @module
 */

import { BEGIN, COMMIT, type Entry, GIVE_UP, READ, READ_BROKEN, REPAIR } from "./_storm_layout.ts";

export interface Life {
  id: number;
  /** By us; else it ended by itself. */
  wasKilled: boolean;
  book: Entry[];
}

/** What is in a lock's cell when all is over. */
export interface Final {
  first: number;
  second: number;
  isIntact: boolean;
  /** Whether the lock says so. */
  isAbandoned: boolean;
}

export interface Tally {
  /** Exclusive sections from end to end. */
  commits: number;
  reads: number;
  repairs: number;
  /** Exclusive sections that a kill, a detach or a close has cut off. */
  cutOff: number;
  /** Those of these whose token was in the cell all the same, or was not. */
  kept: number;
  undone: number;
  faults: string[];
}

type Kind = "write" | "read" | "repair";

interface Span {
  kind: Kind;
  life: Life;
  token: number;
  from: number;
  to: number;
  /** write: it has a COMMIT; read: the lock was not abandoned. */
  isWhole: boolean;
  /** repair: who was INSIDE. */
  found: number;
}

const FAULTS_MAX = 20;

export function checkHistory(lives: Life[], finals: Final[]): Tally {
  const tally: Tally = {
    commits: 0,
    reads: 0,
    repairs: 0,
    cutOff: 0,
    kept: 0,
    undone: 0,
    faults: [],
  };
  const spans: Span[][] = finals.map(() => []);
  /** Lives that gave a lock up, by lock, as often as they did. */
  const givenUp: number[][] = finals.map(() => []);
  for (const life of lives) readLife(life, spans, givenUp, tally.faults);
  for (const [lock, final] of finals.entries()) {
    const ofLock = (spans[lock] ?? []).sort((one, other) => one.from - other.from);
    const faults: string[] = [];
    checkOverlaps(ofLock, faults);
    replay(ofLock, final, tally, faults);
    checkRepairs(ofLock, lives, givenUp[lock] ?? [], faults);
    for (const fault of faults) tally.faults.push(`lock ${lock}: ${fault}`);
  }
  // The first ones say it; a lost update has thousands behind it.
  tally.faults.splice(FAULTS_MAX);
  return tally;
}

/** Turns a book into sections. */
function readLife(life: Life, spans: Span[][], givenUp: number[][], faults: string[]): void {
  const open = new Map<number, Span>();
  let last = 0;
  for (const { kind, lock, token, extra, tick } of life.book) {
    const ofLock = spans[lock];
    const own = open.get(lock);
    if (ofLock === undefined || tick <= last) {
      faults.push(`life ${life.id}: entry ${kind} of lock ${lock} at tick ${tick} after ${last}`);
      return;
    }
    last = tick;
    if (kind === COMMIT) {
      if (own?.token !== token) faults.push(`life ${life.id}: COMMIT ${token} without its BEGIN`);
      else [own.to, own.isWhole] = [tick, true];
      open.delete(lock);
      continue;
    }
    if (kind === GIVE_UP) {
      if (own === undefined) {
        faults.push(`life ${life.id}: GIVE_UP of lock ${lock} without a BEGIN`);
      } else own.to = tick;
      open.delete(lock);
      givenUp[lock]?.push(life.id);
      continue;
    }
    if (own !== undefined) {
      faults.push(
        `lock ${lock}: life ${life.id} came in again at tick ${tick} and had not left, ` +
          `token ${own.token}`,
      );
      open.delete(lock);
    }
    const span = { life, token, from: extra, to: tick, isWhole: false, found: 0 };
    if (kind === BEGIN) {
      const begun: Span = { kind: "write", ...span };
      open.set(lock, begun);
      ofLock.push(begun);
    } else if (kind === READ || kind === READ_BROKEN) {
      ofLock.push({ ...span, kind: "read", isWhole: kind === READ });
    } else if (kind === REPAIR) {
      ofLock.push({ ...span, kind: "repair", from: tick, found: extra });
    } else {
      faults.push(`life ${life.id}: entry of kind ${kind}`);
    }
  }
  if (life.wasKilled) return;
  for (const [lock, { token }] of open) {
    faults.push(`lock ${lock}: life ${life.id} was not killed and never finished token ${token}`);
  }
}

/** No two at once, unless both read. */
function checkOverlaps(spans: Span[], faults: string[]): void {
  let [write, read]: (Span | undefined)[] = [];
  for (const span of spans) {
    const others = span.kind === "read" ? [write] : [write, read];
    for (const other of others) {
      if (other !== undefined && other.to >= span.from) {
        faults.push(`two inside at once: ${describe(other)} and ${describe(span)}`);
      }
    }
    if (span.kind === "read") {
      if (read === undefined || read.to < span.to) read = span;
    } else if (write === undefined || write.to < span.to) write = span;
  }
}

/** Goes through what happened to the token, in order. */
function replay(spans: Span[], final: Final, tally: Tally, faults: string[]): void {
  let token = 0;
  /** Cut off: the token is this one, or the one before. */
  let cut: Span | undefined;
  for (const span of spans) {
    if (span.kind === "repair") {
      tally.repairs++;
      const isKept = cut !== undefined && span.token === cut.token;
      if (span.token !== token && !isKept) {
        faults.push(`${describe(span)} goes on from another token than ${token}`);
      }
      if (cut !== undefined) tally[isKept ? "kept" : "undone"]++;
      cut = undefined;
      token = span.token;
    } else if (span.kind === "read") {
      tally.reads++;
      if (!span.isWhole) continue;
      if (cut !== undefined) faults.push(`nobody told ${describe(span)} of ${describe(cut)}`);
      else if (span.token !== token) faults.push(`${describe(span)} sees not ${token}`);
    } else {
      if (cut !== undefined) {
        faults.push(`nobody told ${describe(span)} of ${describe(cut)}`);
        // Whatever it was, it is not counted twice.
        token = span.token - 1;
      }
      if (span.token !== token + 1) faults.push(`${describe(span)} follows token ${token}`);
      cut = span.isWhole ? undefined : span;
      if (span.isWhole) token = span.token;
      tally[span.isWhole ? "commits" : "cutOff"]++;
    }
  }
  const { first, second, isIntact, isAbandoned } = final;
  const largest = Math.max(first, second);
  if (largest !== token && largest !== cut?.token) {
    faults.push(`ends with token ${first}, ${second}, not ${cut?.token ?? token}`);
  }
  if (!isAbandoned && !isIntact) faults.push(`ends torn (${first}, ${second}), not abandoned`);
  if (!isAbandoned && cut !== undefined) {
    faults.push(`at the end nobody is told of ${describe(cut)}`);
  }
}

/** A repair needs a death, and the dead do not live. */
function checkRepairs(spans: Span[], lives: Life[], givenUp: number[], faults: string[]): void {
  const repairs = spans.filter(({ kind }) => kind === "repair");
  const dead = new Set([...givenUp, ...lives.filter((life) => life.wasKilled).map(({ id }) => id)]);
  for (const repair of repairs) {
    if (repair.found !== 0 && !dead.has(repair.found)) {
      faults.push(`${describe(repair)} found life ${repair.found} inside, which was not killed`);
    }
  }
  const deaths = givenUp.length + lives.filter((life) => life.wasKilled).length;
  if (repairs.length > deaths) faults.push(`${repairs.length} repairs of ${deaths} deaths`);
}

function describe({ kind, life, token, from, to }: Span): string {
  return `${kind} of token ${token} by life ${life.id} (ticks ${from} to ${to})`;
}
