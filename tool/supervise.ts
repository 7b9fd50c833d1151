/**
 * `dsmr supervise`: a process that only sees to background workers.
 *
 * @module
 */

import { DsmrError, Registry } from "../lib/mod.ts";
import {
  type Command,
  type Context,
  databaseOption,
  FOUND,
  type Invocation,
  OK,
  placeOf,
  textOf,
} from "./command.ts";
import { json, printable } from "./text.ts";

async function run(context: Context, invocation: Invocation): Promise<number> {
  const database = textOf(invocation, "database");
  const name = invocation.operands[0] ?? "";
  const isJson = invocation.values["json"] === true;
  const end = new AbortController();
  // Before anything is started that would have to be ended.
  const forget = context.onStop(() => end.abort());
  const registry = Registry.openSync(name, {
    ...placeOf(invocation),
    mode: invocation.values["create"] === true ? "open" : "attach",
    supervise: true,
    ...(database === undefined ? {} : { database }),
  });
  const { pid } = context.host;
  const say = (event: string, text: string): Promise<void> =>
    context.write(isJson ? json({ event, registry: name, pid }) : `${text}\n`);
  try {
    await say(
      "supervising",
      `Process ${pid} sees to the workers of ${printable(name)}. End it with Ctrl-C.`,
    );
    // Nothing is done with what comes and goes; but this hears that the registry was destroyed.
    for await (const _ of registry.watch({ signal: end.signal }));
    return OK;
  } catch (error) {
    if (end.signal.aborted) {
      await say("ended", "Ended; another supervisor takes over, or the workers are told to stop.");
      return OK;
    }
    if (!(error instanceof DsmrError) || error.code !== "CLOSED") throw error;
    await say("destroyed", `Registry ${printable(name)} was destroyed.`);
    return FOUND;
  } finally {
    // The program lasts until the workers that it has started have ended, at most their grace.
    registry.close();
    forget();
  }
}

/** The command. */
export const supervise: Command = {
  name: "supervise",
  summary: "be a process that only sees to a registry's background workers",
  operands: ["REGISTRY"],
  details:
    "Starts, restarts and ends the registry's background workers until SIGTERM or SIGINT: for a " +
    "service manager. Where several processes are willing, one does it, and another one takes over " +
    "when it ends. When the last one ends, the workers are told to stop, and this process waits for " +
    "those that it has started, at most their grace.\n\n" +
    "The programs deno and bun are looked for on the PATH, or where DSMR_DENO and DSMR_BUN say.",
  examples: [["dsmr supervise shop", "until Ctrl-C"]],
  options: {
    create: { type: "boolean", help: "create the registry if it is not there" },
    database: { ...databaseOption, help: 'the database to be in (default: "default")' },
  },
  run,
};
