/**
 * The program of a background worker's process. Its last argument is where its row is, as JSON.
 *
 * @module
 */

import process from "node:process";
import type { Orders } from "./member.ts";
import { runWorker } from "./run.ts";

await runWorker(JSON.parse(process.argv.at(-1) ?? "") as Orders, false);
