/**
 * Call statistics: how often something is called and how long it takes, by name, for all processes
 * of a server together. After PostgreSQL's pg_stat_statements.
 *
 * An add-in. It requests its memory and its lock before the registry's main area is made, so the
 * first who opens the registry must bring it along:
 *
 *   const registry = Registry.openSync("shop", { addins: [callStats] });
 *   const stats = registry.addin(callStats);
 *   await stats.measure("GET /users/:id", () => answer(request));
 *   console.log(stats.table());
 *
 * An entry, once it is there, is the same name's for as long as the registry lives. So a process
 * finds each name once, keeps the entry in a map, and from then on counts with a few atomic
 * operations and no lock. (pg_stat_statements evicts entries, so it holds its lock, shared, for
 * each count.) The price: the table has room for 1,000 names, and when it is full, calls by further
 * names are counted together as "(others)". So name the route, not the address with its numbers.
 *
 * The lock is exclusive for a new name and for a reset, and shared for reading, which so never sees
 * a table half reset. What others see when a process is killed:
 *
 * - At a new name: nothing. The entry counts from the one store that raises `used`; until then the
 *   next who adds a name overwrites it.
 * - While it counts: a call's time, but not the call, for the call is added last. At most one call
 *   of each thread that was killed.
 * - At a reset: an empty table. `isResetting` tells the next who takes the lock that it is to be
 *   finished first; what was counted since the kill goes, too.
 *
 * @module
 */

import {
  array,
  type AtomicBigint,
  atomicU32,
  atomicU64,
  bytes,
  defineAddin,
  type LWLock,
  struct,
  text,
  type View,
} from "../../lib/mod.ts";
import { type CallRow, formatTable } from "./call_table.ts";

/** How many names have an entry of their own. */
export const NAMES_MAX = 1000;
/** The bytes of a name, as UTF-8. Longer ones are cut, between two characters. */
export const NAME_SIZE = 96;
/** The entry for the names that have none. */
export const OTHERS = "(others)";

/** The longest call that can be recorded, in milliseconds: some 11 days. */
const MS_MAX = 1e9;
const NS_PER_MS = 1e6;
/** The shortest time of no calls at all. */
const NEVER = 2n ** 64n - 1n;

// 128 bytes, the table's header 64: what two processes count for two names is never in one line of
// the processor's cache. Times are in nanoseconds; a total overflows after 584 years.
const entryLayout = struct({
  calls: atomicU64,
  total: atomicU64,
  shortest: atomicU64,
  longest: atomicU64,
  /** Written before `used` covers the entry, and never again. */
  name: text(NAME_SIZE),
});

const tableLayout = struct({
  /** So many entries have a name. Only ever grows, under the exclusive lock. */
  used: atomicU32,
  /** 1 while a reset is going on, under the exclusive lock. */
  isResetting: atomicU32,
  reserved: bytes(56),
  /** The first is OTHERS. */
  entries: array(entryLayout, 1 + NAMES_MAX),
});

type Entry = View<typeof entryLayout.fields>;
type Table = View<typeof tableLayout.fields>;

/** The statistics, as a process uses them. */
export class CallStats {
  readonly #table: Table;
  readonly #lock: LWLock;
  readonly #entries = new Map<string, Entry>();

  constructor(table: Table, lock: LWLock) {
    this.#table = table;
    this.#lock = lock;
  }

  /**
   * Counts a call that took so long. Costs a fraction of a microsecond.
   *
   * A name of more than 96 bytes is cut. When the table is full, a new name counts as "(others)".
   * Takes the lock, and may wait for it, only where the name is new to the table.
   *
   * @param ms In milliseconds, 0 to 1e9; counted in nanoseconds.
   * @throws {RangeError} the time. {@linkcode TypeError}: the registry is closed.
   */
  record(name: string, ms: number): void {
    if (!(ms >= 0 && ms <= MS_MAX)) {
      throw new RangeError(`A call of "${name}" took ${ms} ms; 0 to ${MS_MAX} can be recorded.`);
    }
    const entry = this.#entries.get(name) ?? this.#find(name);
    const time = BigInt(Math.round(ms * NS_PER_MS));
    entry.total.add(time);
    moveTo(entry.longest, time, (longest) => time > longest);
    moveTo(entry.shortest, time, (shortest) => time < shortest);
    entry.calls.add(1n);
  }

  /**
   * Runs `call` and counts it, also when it throws. If it returns a promise, it lasts until that
   * has settled. Close the registry after the last call has.
   *
   * @returns what it returns.
   */
  measure<Result>(name: string, call: () => Result): Result {
    const begin = performance.now();
    const end = () => this.record(name, performance.now() - begin);
    let result: Result;
    try {
      result = call();
    } catch (error) {
      end();
      throw error;
    }
    if (result instanceof Promise) return result.finally(end) as Result;
    end();
    return result;
  }

  /** What has been called since the last reset; the longest total first. */
  rows(): CallRow[] {
    const load = () => this.#read((counter) => counter.load());
    const rows = this.#lock.withSync("shared", () => this.#lock.abandoned ? undefined : load());
    // A reset that was killed: to end it takes the exclusive lock.
    return rows ?? this.#exclusively(load);
  }

  /**
   * Sets all counters back. The names keep their entries, so calls can be counted meanwhile: each is
   * in the rows that are returned, or counts from here on. (One that is being counted at this very
   * moment may have its time in the one and its call in the other.)
   *
   * @returns the rows as they were.
   */
  reset(): CallRow[] {
    return this.#exclusively(() => this.#resetAll());
  }

  /** The rows as text, in columns. */
  table(): string {
    return formatTable(this.rows());
  }

  /** The entry of a name that the map does not have. */
  #find(anyName: string): Entry {
    const name = fitting(anyName);
    this.#learn();
    const isFull = this.#table.used.load() > NAMES_MAX;
    const known = this.#entries.get(name) ?? (isFull ? this.#entries.get(OTHERS) : undefined);
    return known ?? this.#exclusively(() => this.#add(name));
  }

  /** Notes the entries that have been added, here or elsewhere. */
  #learn(): void {
    const used = this.#table.used.load();
    for (let i = this.#entries.size; i < used; i++) {
      const entry = this.#table.entries.at(i);
      this.#entries.set(entry.name, entry);
    }
  }

  #add(name: string): Entry {
    const { used, entries } = this.#table;
    // Others may have been faster, with this name or with the last free entry.
    this.#learn();
    const known = this.#entries.get(name);
    if (known !== undefined) return known;
    const index = used.load();
    if (index > NAMES_MAX) return entries.at(0);
    write(entries.at(index), name);
    used.store(index + 1);
    this.#learn();
    return entries.at(index);
  }

  #resetAll(): CallRow[] {
    const { isResetting } = this.#table;
    isResetting.store(1);
    const rows = this.#read((counter, empty) => counter.exchange(empty));
    isResetting.store(0);
    return rows;
  }

  /** Makes rows; `take` gives a counter's value, and is told what an empty one has. */
  #read(take: (counter: AtomicBigint, empty: bigint) => bigint): CallRow[] {
    this.#learn();
    const rows: CallRow[] = [];
    for (const [name, entry] of this.#entries) {
      const calls = Number(take(entry.calls, 0n));
      const totalMs = toMs(take(entry.total, 0n));
      const maxMs = toMs(take(entry.longest, 0n));
      const shortest = take(entry.shortest, NEVER);
      const minMs = shortest === NEVER ? 0 : toMs(shortest);
      if (calls === 0 && totalMs === 0) continue;
      rows.push({ name, calls, totalMs, meanMs: totalMs / Math.max(calls, 1), minMs, maxMs });
    }
    return rows.sort((a, b) => b.totalMs - a.totalMs);
  }

  #exclusively<Result>(change: () => Result): Result {
    return this.#lock.withSync("exclusive", () => {
      if (this.#lock.abandoned) {
        // Who held it was killed. A new name needs nothing; a reset is brought to its end.
        if (this.#table.isResetting.load() !== 0) this.#resetAll();
        this.#lock.markConsistent();
      }
      return change();
    });
  }
}

/** Sets the counter to the value while that still is an improvement on what others have set. */
function moveTo(
  counter: AtomicBigint,
  value: bigint,
  isBetter: (than: bigint) => boolean,
): void {
  let seen = counter.load();
  while (isBetter(seen)) {
    const before = counter.compareExchange(seen, value);
    if (before === seen) return;
    seen = before;
  }
}

/** Nobody else sees the entry yet. Its other counters are zero, as fresh memory is. */
function write(entry: Entry, name: string): void {
  entry.shortest.store(NEVER);
  entry.name = name;
}

/** The name as an entry can have it: so long at most, whole characters, no NUL. */
function fitting(name: string): string {
  const legal = name.toWellFormed().replaceAll("\0", "\u{fffd}");
  const { read } = new TextEncoder().encodeInto(legal, new Uint8Array(NAME_SIZE));
  return legal.slice(0, read);
}

const toMs = (nanoseconds: bigint): number => Number(nanoseconds) / NS_PER_MS;

/** The add-in. */
export const callStats = defineAddin({
  name: "call-stats",
  request(ctx) {
    ctx.requestSpace(tableLayout.size);
    ctx.requestTranche("call-stats", 1);
  },
  startup(ctx) {
    const [lock] = ctx.getTranche("call-stats") as [LWLock];
    const table = ctx.addinInitLock.withSync("exclusive", () => {
      const { found, segment, byteOffset } = ctx.initStruct("call-stats", tableLayout.size);
      const table = tableLayout.view(segment, byteOffset);
      if (!found) {
        write(table.entries.at(0), OTHERS);
        table.used.store(1);
      }
      return table;
    });
    return new CallStats(table, lock);
  },
});
