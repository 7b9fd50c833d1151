/**
 * `dsmr rm`: destroys a registry.
 *
 * @module
 */

import { Registry } from "../lib/mod.ts";
import {
  type Command,
  type Context,
  FOUND,
  type Invocation,
  OK,
  placeOf,
  UsageError,
} from "./command.ts";
import { listed } from "./ls.ts";
import { json, many, printable } from "./text.ts";

/** What is lost, as a question. */
function question(name: string, invocation: Invocation): string {
  const info = listed(invocation).find((one) => one.name === name);
  const what = info === undefined
    ? "not there, or not yours"
    : info.problem !== null
    ? info.problem
    : `${many(info.segments, "segment")}, ${many(info.backends, "backend")} attached`;
  return `Destroy registry ${printable(name)} (${what}) and all that is in it? [y/N] `;
}

async function run(context: Context, invocation: Invocation): Promise<number> {
  const { operands, values } = invocation;
  const name = operands[0] ?? "";
  if (values["yes"] !== true) {
    if (!context.canAsk) {
      throw new UsageError("There is no terminal to ask at. Add --yes to destroy it unasked.");
    }
    const answer = await context.ask(question(name, invocation));
    if (!/^y(es)?$/i.test(answer.trim())) {
      context.complain("Nothing was removed.");
      return FOUND;
    }
  }
  const removed = Registry.destroy(name, placeOf(invocation));
  if (values["json"] === true) await context.write(json({ registry: name, removed }));
  else if (removed) await context.write(`Destroyed ${printable(name)}.\n`);
  else context.complain(`There is no registry ${printable(name)}. See dsmr ls.`);
  return removed ? OK : FOUND;
}

/** The command. */
export const rm: Command = {
  name: "rm",
  summary: "destroy a registry and all its segments",
  operands: ["REGISTRY"],
  details:
    "Destroys a registry, also one that is damaged or of another version. Backends that are " +
    "attached keep the memory that they have mapped; whatever else they do with the registry fails " +
    "with CLOSED. The name is free at once.\n\n" +
    "Asks first; where there is no terminal, it wants --yes. The exit code is 1 if there was none.",
  examples: [["dsmr rm shop", "asks"], ["dsmr rm shop --yes", "does not"]],
  options: { yes: { type: "boolean", short: "y", help: "do not ask" } },
  run,
};
