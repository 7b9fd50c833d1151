/**
 * The program of a background worker's thread. Its data is where its row is.
 *
 * @module
 */

import type { Orders } from "./member.ts";
import { runWorker } from "./run.ts";

const { workerData } = await import("node:worker_threads");

await runWorker(workerData as Orders, true);
