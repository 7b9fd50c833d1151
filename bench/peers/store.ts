/**
 * The work that all stores do: count, and keep one record for everybody. And how dsmr does it.
 *
 * @module
 */

import { Registry } from "../../lib/mod.ts";

export const RECORD_BYTES = 1024;

/** Something that processes share. A loop of its own in each, for the sake of compilers. */
export interface Store {
  /** Adds one to a counter, so that none is lost, `count` times. */
  increment(count: number): void | Promise<void>;
  /** Gets a copy of the record, of one moment, and checks that it is; `count` times. */
  read(count: number): void | Promise<void>;
  /** Replaces the record, for readers in one step. */
  write(record: Uint8Array): void | Promise<void>;
  end(): void;
}

/** Writers fill the record with one number. */
export function check(record: Uint8Array | null | undefined): void {
  if (record?.length !== RECORD_BYTES) throw new Error("The record is lost.");
  if (record[0] !== record[RECORD_BYTES - 1]) throw new Error("The record is of two moments.");
}

/** A segment with its lock. */
export function openDsmr(dir: string): Store {
  const registry = Registry.openSync("store", { dir });
  const { buffer, lock } = registry.getNamedSegmentSync("record", 64 + RECORD_BYTES);
  const counter = new Float64Array(buffer, 0, 1);
  const shared = new Uint8Array(buffer, 64, RECORD_BYTES);
  return {
    increment: (count) => {
      for (let i = 0; i < count; i++) {
        lock.acquireSync();
        counter[0] = (counter[0] ?? 0) + 1;
        lock.release();
      }
    },
    read: (count) => {
      for (let i = 0; i < count; i++) {
        lock.acquireSync("shared");
        const copy = shared.slice();
        lock.release();
        check(copy);
      }
    },
    write: (record) => {
      lock.acquireSync();
      shared.set(record);
      lock.release();
    },
    end: () => registry.close(),
  };
}
