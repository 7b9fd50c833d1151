/**
 * child.ts in Bun, with Bun's own SQLite.
 *
 * @module
 */

import { Database } from "bun:sqlite";
import { join } from "node:path";
import { addStore, answer, runDir } from "./child.ts";
import { check, RECORD_BYTES } from "./store.ts";

const database = new Database(join(runDir, "sqlite"), { create: true, strict: true });
database.run("PRAGMA journal_mode = WAL");
database.run("PRAGMA synchronous = OFF");
database.run("CREATE TABLE IF NOT EXISTS kept (id INTEGER PRIMARY KEY, counter INTEGER, record BLOB)");
database.query("INSERT OR IGNORE INTO kept VALUES (1, 0, ?)").run(new Uint8Array(RECORD_BYTES));
const increment = database.query("UPDATE kept SET counter = counter + 1 WHERE id = 1");
const select = database.query<{ record: Uint8Array }, []>("SELECT record FROM kept WHERE id = 1");
const update = database.query("UPDATE kept SET record = ? WHERE id = 1");
await addStore("sqlite", 200, {
  increment: (count) => {
    for (let i = 0; i < count; i++) increment.run();
  },
  read: (count) => {
    for (let i = 0; i < count; i++) check(select.get()?.record);
  },
  write: (record) => void update.run(record),
  end: () => database.close(),
});
await answer();
