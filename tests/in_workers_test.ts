/**
 * Whole suites once more, in a Worker: a Worker is a backend of its own, on a thread that is not
 * the program's first, and it has the same API.
 */

import { assert, assertEquals } from "@std/assert";
import { readdirSync } from "node:fs";
import { after, collect, test } from "./_declare.ts";
import { SuiteWorker } from "./_suite_worker.ts";

/** Why tests are left out. */
const ELSEWHERE = "what is tested is in other processes, whichever thread looks on";

/** One Worker for each, one after the other; and what is left out of it. */
const FILES: Readonly<Record<string, RegExp[]>> = {
  "registry_test.ts": [],
  "segments_test.ts": [],
  "input_test.ts": [],
  "limits_test.ts": [],
  "messages_test.ts": [],
  "init_test.ts": [],
  "lock_test.ts": [],
  "lock_errors_test.ts": [],
  "lock_input_test.ts": [],
  "numbers_test.ts": [],
  "async_init_test.ts": [],
  "async_locks_test.ts": [],
  "async_abandoned_test.ts": [],
  "async_damage_test.ts": [],
  "async_mixed_test.ts": [],
  "async_recursion_test.ts": [],
  "async_table_test.ts": [],
  "async_unsettled_test.ts": [],
  "async_races_test.ts": [
    /waits of one (deno|bun) process on as many locks are all served/,
    /a (deno|bun) process ends by itself when nothing pends, and not before/,
    /50 (deno|bun) Workers terminated while they wait leave nothing, and no crash/,
  ],
  "addin_test.ts": [],
  "addin_area_test.ts": [],
  "addin_handle_test.ts": [],
  "addin_hostile_test.ts": [],
  "addin_tranches_test.ts": [],
  "call_stats_test.ts": [/the demo, led by/],
  "words_test.ts": [],
  "signals_test.ts": [],
  "signals_drop_test.ts": [],
  "changes_test.ts": [],
  "scopes_test.ts": [],
  "layout_mismatch_test.ts": [],
  "layouts_test.ts": [],
  "struct_test.ts": [],
  "struct_gone_test.ts": [],
  "struct_segment_test.ts": [],
  "tables_damage_test.ts": [],
  "web_locks_test.ts": [],
  "web_locks_close_test.ts": [],
  "web_locks_process_test.ts": [
    /a process killed at every store while the table grows/,
    /several processes make the table grow at the same time/,
    /processes request at random, and are killed/,
  ],
};

/** The other files, which are run on the main thread only. */
const MAIN_THREAD: Readonly<Record<string, string>> = {
  "abi_test.ts": "reads sources",
  "addin_process_test.ts": ELSEWHERE,
  "addin_scope_test.ts": ELSEWHERE,
  "addin_worker_test.ts": ELSEWHERE,
  "background_worker_crash_test.ts": ELSEWHERE,
  "background_worker_damage_test.ts": ELSEWHERE,
  "background_worker_end_test.ts": ELSEWHERE,
  "background_worker_kill_end_test.ts": ELSEWHERE,
  "background_worker_kill_process_test.ts": ELSEWHERE,
  "background_worker_kill_test.ts": ELSEWHERE,
  "background_worker_register_test.ts": ELSEWHERE,
  "background_worker_scopes_test.ts": ELSEWHERE,
  "background_worker_test.ts": ELSEWHERE,
  "assert_test.ts": "tests the tests' own assertions",
  "bench_test.ts": ELSEWHERE,
  "call_stats_death_test.ts": ELSEWHERE,
  "death_test.ts": ELSEWHERE,
  "docs_test.ts": ELSEWHERE,
  "examples_test.ts": ELSEWHERE,
  "files_test.ts": "sets the umask, which is the process's",
  "in_workers_test.ts": "is this one",
  "libc_test.ts": ELSEWHERE,
  "memory_format_test.ts": "reads texts",
  "namespaces_test.ts": ELSEWHERE,
  "package_test.ts": ELSEWHERE,
  "permissions_test.ts": ELSEWHERE,
  "prewarm_death_test.ts": ELSEWHERE,
  "prewarm_test.ts": ELSEWHERE,
  "readme_test.ts": "reads texts",
  "race_test.ts": ELSEWHERE,
  "reference_test.ts": ELSEWHERE,
  "runtimes_test.ts": ELSEWHERE,
  "signals_kill_test.ts": ELSEWHERE,
  "storm_test.ts": ELSEWHERE,
  "targets_test.ts": "reads libraries",
  "tool_gc_test.ts": ELSEWHERE,
  "tool_parts_test.ts": ELSEWHERE,
  "tool_test.ts": ELSEWHERE,
  "unpack_test.ts": "sets the umask, which is the process's",
  "walk_test.ts": ELSEWHERE,
  "words_kill_test.ts": ELSEWHERE,
  "words_stop_test.ts": ELSEWHERE,
  "workers_test.ts": ELSEWHERE,
};

test("every file of tests is run in a Worker, or there is a reason why not", () => {
  const all = readdirSync(new URL(".", import.meta.url)).filter((name) => /_test\.ts$/.test(name));
  assertEquals([...Object.keys(FILES), ...Object.keys(MAIN_THREAD)].sort(), all.sort());
});

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
    assertEquals([...suite.ran], chosen, "not all have run, or there is a filter");
    await suite.end();
  });
}
