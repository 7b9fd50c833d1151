/**
 * Whole suites once more, in a Worker: a Worker is a backend of its own, on a thread that is not
 * the program's first, and it has the same API.
 */

import { assert, assertEquals } from "@std/assert";
import { after, collect, test } from "./_declare.ts";
import { SuiteWorker } from "./_suite_worker.ts";

/** What is left out, for a reason. */
const ELSEWHERE = "what is tested is in other processes, whichever thread looks on";

/** One Worker for each, one after the other; and what is left out of it. */
const FILES: Readonly<Record<string, RegExp[]>> = {
  "registry_test.ts": [],
  "segments_test.ts": [],
  "input_test.ts": [],
  "limits_test.ts": [],
  "init_test.ts": [],
  "lock_test.ts": [],
  "lock_errors_test.ts": [],
  "lock_input_test.ts": [],
  "async_init_test.ts": [],
  "async_locks_test.ts": [],
  "async_abandoned_test.ts": [],
  "async_table_test.ts": [],
  "async_races_test.ts": [
    /waits of one (deno|bun) process on as many locks are all served/,
    /a (deno|bun) process ends by itself when nothing pends, and not before/,
    /50 (deno|bun) Workers terminated while they wait leave nothing, and no crash/,
  ],
  "words_test.ts": [],
  "signals_test.ts": [],
  "changes_test.ts": [],
  "web_locks_test.ts": [],
  "web_locks_process_test.ts": [
    /a process killed at every store while the table grows/,
    /several processes make the table grow at the same time/,
    /processes request at random, and are killed/,
  ],
};

for (const [file, left] of Object.entries(FILES)) {
  // Another module than the one that the runner may have loaded in this process. By a relative
  // name: in a file URL Bun overlooks the query.
  const { tests, endings } = await collect(() => import(`./${file}?collected`));
  for (const ending of endings) await ending();

  const names = tests.map(({ name }) => name);
  assert(names.length > 0, `${file} declares no test.`);
  assertEquals(new Set(names).size, names.length, `${file} has two tests of one name.`);
  const suite = new SuiteWorker(file, names);
  after(() => suite.terminate());

  for (const pattern of left) {
    assert(names.some((name) => pattern.test(name)), `${file} has no test ${pattern}.`);
  }
  const chosen = names.filter((name) => !left.some((pattern) => pattern.test(name)));
  const leftCount = names.length - chosen.length;
  if (leftCount > 0) {
    console.log(`skipped: in a Worker: ${leftCount} tests of ${file}: ${ELSEWHERE}`);
  }
  for (const name of chosen) test(`in a Worker: ${file}: ${name}`, () => suite.run(name));

  test(`in a Worker: ${file}: ${chosen.length} tests were run, and nothing is left`, async () => {
    assertEquals([...suite.ran], chosen);
    await suite.end();
  });
}
