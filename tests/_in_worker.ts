/**
 * The Worker of `in_workers_test.ts`: loads a suite, and runs one test of it after the other.
 *
 * @module
 */

import { inspect } from "node:util";
import { parentPort, workerData } from "node:worker_threads";
import { collect } from "./_declare.ts";

/** Runs the test of that name, or what the suite does at its end. */
export type Order = { run: string } | { end: true };

export interface Reply {
  /** The names of the suite's tests, in order; the first reply. */
  declared?: string[];
  /** The test that has run. */
  ran?: string;
  ended?: true;
  /** Of a test or the end: what it threw, with its stack and its causes. */
  failed?: string;
}

const port = parentPort;
if (port === null) throw new Error("This is a Worker's program.");
const { suite } = workerData as { suite: string };
const { tests, endings } = await collect(() => import(new URL(suite, import.meta.url).href));

async function obey(order: Order): Promise<void> {
  if ("end" in order) {
    for (const ending of endings) await ending();
  } else {
    const declared = tests.find(({ name }) => name === order.run);
    if (declared === undefined) throw new Error(`${suite} declares no test "${order.run}".`);
    await declared.body();
  }
}

const take = async (order: Order): Promise<void> => {
  const reply: Reply = "end" in order ? { ended: true } : { ran: order.run };
  try {
    await obey(order);
  } catch (error) {
    reply.failed = inspect(error);
  }
  port.postMessage(reply);
  // Nothing else should keep the Worker alive.
  if ("end" in order) port.off("message", take);
};
port.on("message", take);
port.postMessage({ declared: tests.map(({ name }) => name) } satisfies Reply);
