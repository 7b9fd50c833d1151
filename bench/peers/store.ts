/**
 * The work that all stores do: count, and keep one record for everybody. And how dsmr does it.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";

export const RECORD_BYTES = 1024;

/** Something that processes share. What it returns may be a promise: then that is awaited. */
export interface Store {
  /** Adds one to a counter, so that none is lost. */
  increment(): void | Promise<void>;
  /** A copy of the record, of one moment. */
  read(): Uint8Array | Promise<Uint8Array>;
  /** Replaces the record, for readers in one step. */
  write(record: Uint8Array): void | Promise<void>;
  end(): void;
}

/** A segment with its lock. */
export function openDsmr(dir: string): Store {
  const registry = Registry.openSync("store", { dir });
  const { buffer, lock } = registry.getNamedSegmentSync("record", 64 + RECORD_BYTES);
  const counter = new BigUint64Array(buffer, 0, 1);
  const shared = new Uint8Array(buffer, 64, RECORD_BYTES);
  return {
    increment: () => {
      lock.acquireSync();
      counter[0] = (counter[0] ?? 0n) + 1n;
      lock.release();
    },
    read: () => {
      lock.acquireSync("shared");
      const copy = shared.slice();
      lock.release();
      return copy;
    },
    write: (record) => {
      lock.acquireSync();
      shared.set(record);
      lock.release();
    },
    end: () => registry.close(),
  };
}
