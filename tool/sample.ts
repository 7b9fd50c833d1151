/**
 * What `dsmr top` looks at, once for each picture: who holds and waits for which lock, and what
 * has been waited for since the last time.
 *
 * @module
 */

import type { BackendInfo, LockInfo, LockMode, Registry, TrancheInfo } from "../lib/mod.ts";

/** Who holds a lock, or waits for it. */
export interface Party {
  backend: number;
  pid: number;
  program: string;
  mode: LockMode;
  /** Since when it waits; null: it holds. */
  since: Date | null;
}

/** A lock that somebody holds or waits for. */
export interface BusyLock {
  tranche: string;
  segment: string;
  byteOffset: number | null;
  holders: Party[];
  waiters: Party[];
}

/** A tranche, with what has happened since the last time, per second. */
export interface TrancheRate extends TrancheInfo {
  waitsPerSecond: number;
  /** Milliseconds that were waited, all waiters together, per second. */
  waitedPerSecond: number;
}

/** One look at a registry. */
export interface Sample {
  at: Date;
  registry: string;
  dir: string;
  /** Without the one that looks. */
  backends: number;
  segments: number;
  waiting: number;
  held: number;
  waitsPerSecond: number;
  waitedPerSecond: number;
  locks: BusyLock[];
  tranches: TrancheRate[];
}

/** The locks that backends hold or wait for, most waited for first. */
export function busyLocks(backends: readonly BackendInfo[]): BusyLock[] {
  const locks = new Map<string, BusyLock>();
  for (const { id, pid, program, held, waitsFor } of backends) {
    const add = (lock: LockInfo, role: "holders" | "waiters"): void => {
      const { tranche, segment, byteOffset, mode, since } = lock;
      const key = JSON.stringify([segment, byteOffset, tranche]);
      let busy = locks.get(key);
      if (busy === undefined) {
        locks.set(key, busy = { tranche, segment, byteOffset, holders: [], waiters: [] });
      }
      busy[role].push({ backend: id, pid, program, mode, since });
    };
    for (const lock of held) add(lock, "holders");
    if (waitsFor !== null) add(waitsFor, "waiters");
  }
  return [...locks.values()].sort((a, b) =>
    b.waiters.length - a.waiters.length || b.holders.length - a.holders.length
  );
}

/** Looks at a registry again and again. */
export class Sampler {
  readonly #registry: Registry;
  #before = new Map<string, TrancheInfo>();
  #beforeAt: number | undefined;

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  /** Throws `CLOSED` when the registry was destroyed. */
  take(): Sample {
    const registry = this.#registry;
    const backends = [...registry.backends()].filter(({ self }) => !self);
    const locks = busyLocks(backends);
    const tranches = this.#rates([...registry.tranches()]);
    const sum = (numbers: number[]): number => numbers.reduce((total, one) => total + one, 0);
    return {
      at: new Date(),
      registry: registry.name,
      dir: registry.dir,
      backends: backends.length,
      segments: [...registry.segments()].length,
      waiting: sum(locks.map(({ waiters }) => waiters.length)),
      held: sum(locks.map(({ holders }) => holders.length)),
      waitsPerSecond: sum(tranches.map(({ waitsPerSecond }) => waitsPerSecond)),
      waitedPerSecond: sum(tranches.map(({ waitedPerSecond }) => waitedPerSecond)),
      locks,
      tranches,
    };
  }

  #rates(tranches: TrancheInfo[]): TrancheRate[] {
    const now = performance.now();
    const seconds = this.#beforeAt === undefined ? Infinity : (now - this.#beforeAt) / 1000;
    const seen = new Map<string, TrancheInfo>();
    const rates = tranches.map((info) => {
      // Names need not be unique: the segments' own locks have no number.
      let key = `${info.id} ${info.name}`;
      while (seen.has(key)) key += "'";
      seen.set(key, info);
      const before = this.#before.get(key) ?? { contended: 0, waited: 0 };
      const rate = (was: number, is: number): number => Math.max(0, is - was) / seconds;
      return {
        ...info,
        waitsPerSecond: rate(before.contended, info.contended),
        waitedPerSecond: rate(before.waited, info.waited),
      };
    });
    this.#before = seen;
    this.#beforeAt = now;
    return rates;
  }
}
