/**
 * Every change that the library makes to the table of background workers, one after the other: for
 * tests that end a process at each.
 *
 * @module
 */

import { TABLE_BYTES, WorkerTable } from "../lib/workers/table.ts";

/**
 * Calls `step` before each change of the table's memory from here on, by whatever call it is made;
 * and behind those that somebody is to be woken for, before he is. Between two changes nothing
 * happens that another process sees, so that these are all the moments at which it makes a
 * difference to die. (A time is stored in a way that cannot be watched; its method can.)
 */
export function watchTableChanges(step: () => void): void {
  const isTable = (target: unknown): boolean =>
    ArrayBuffer.isView(target) && target.buffer.byteLength === TABLE_BYTES;
  for (const name of ["store", "add"] as const) {
    const original = Atomics[name] as (...args: unknown[]) => unknown;
    const watched = (...args: unknown[]): unknown => {
      const isWatched = isTable(args[0]);
      if (isWatched) step();
      const result = original(...args);
      if (isWatched && name === "add") step();
      return result;
    };
    Object.assign(Atomics, { [name]: watched });
  }
  const { set } = Uint8Array.prototype;
  Uint8Array.prototype.set = function (source: ArrayLike<number>, offset?: number): void {
    if (isTable(this)) step();
    set.call(this, source, offset);
  };
  const { setTime } = WorkerTable.prototype;
  WorkerTable.prototype.setTime = function (slot: number, field: number, value: number): void {
    step();
    setTime.call(this, slot, field, value);
  };
}
