/**
 * lmdb: a memory-mapped database that processes share. Its files are in memory here.
 *
 * @module
 */

import { join } from "node:path";
import { load } from "./library.ts";
import { check, RECORD_BYTES, type Store } from "./store.ts";

interface Database {
  get(key: string): Uint8Array | undefined;
  putSync(key: string, value: Uint8Array): void;
  transactionSync(action: () => void): void;
  close(): Promise<void>;
}

interface Lmdb {
  open(options: { path: string; encoding: "binary"; noSync: boolean }): Database;
}

/** Opens it. Throws Absent. */
export function openLmdb(dir: string, folder: string): Store {
  const { open } = load<Lmdb>(folder, "lmdb");
  // Nothing else here survives a loss of power either.
  const database = open({ path: join(dir, "lmdb"), encoding: "binary", noSync: true });
  if (database.get("record") === undefined) {
    database.putSync("record", new Uint8Array(RECORD_BYTES));
  }
  return {
    increment: (count) => {
      for (let i = 0; i < count; i++) {
        database.transactionSync(() => {
          const value = new Uint8Array(8);
          const before = database.get("counter");
          if (before !== undefined) value.set(before);
          const view = new DataView(value.buffer);
          view.setBigUint64(0, view.getBigUint64(0) + 1n);
          database.putSync("counter", value);
        });
      }
    },
    read: (count) => {
      for (let i = 0; i < count; i++) check(database.get("record"));
    },
    write: (record) => database.putSync("record", record),
    end: () => void database.close(),
  };
}
