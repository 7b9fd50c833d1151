/**
 * Command lines: parsed by `node:util`, explained, and handed to their commands.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { DsmrError } from "../lib/mod.ts";
import { bench } from "./bench.ts";
import {
  type Command,
  commonOptions,
  type Context,
  FOUND,
  type Invocation,
  OK,
  type Option,
  USAGE,
  UsageError,
} from "./command.ts";
import { completionOf } from "./completion.ts";
import { doctor } from "./doctor.ts";
import { dump } from "./dump.ts";
import { codeOf } from "./files.ts";
import { gc } from "./gc.ts";
import { ls } from "./ls.ts";
import { rm } from "./rm.ts";
import { show } from "./show.ts";
import { supervise } from "./supervise.ts";
import { joined, json, paint, printable } from "./text.ts";
import { top } from "./top.ts";
import { VERSION } from "./version.ts";

const most: readonly Command[] = [ls, show, top, dump, rm, gc, doctor, supervise, bench];

/** All of them, in the order of the help. */
export const commands: readonly Command[] = [...most, completionOf(most)];

/** Words in lines of at most 80 columns. */
function wrapped(text: string): string[] {
  return text.split("\n").flatMap((paragraph) => {
    const lines = [""];
    for (const word of paragraph.split(" ")) {
      const line = lines.at(-1) ?? "";
      if (line !== "" && line.length + 1 + word.length > 80) lines.push(word);
      else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
    }
    return lines;
  });
}

/** Two columns. */
function listed(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([first]) => first.length));
  return rows.map(([first, second]) => `  ${first.padEnd(width)}  ${second}`);
}

function overview(context: Context): string {
  const bold = (text: string): string => paint(context, "bold", text);
  return joined([
    `dsmr ${VERSION}: looks at named shared memory, and clears it away`,
    "",
    `${bold("Usage:")} dsmr COMMAND [OPTIONS]`,
    "",
    bold("Commands:"),
    ...listed(
      commands.map(({ name, operands, summary }) => [[name, ...operands].join(" "), summary]),
    ),
    "",
    `${bold("Help on one:")} dsmr COMMAND --help`,
    `${bold("Exit codes:")} 0 all is well, 1 something was found or has failed, 2 wrong usage`,
  ]);
}

function optionRows(options: { readonly [name: string]: Option }): [string, string][] {
  return Object.entries(options).map(([name, { short, value, help }]) => [
    `${short === undefined ? "    " : `-${short}, `}--${name}${
      value === undefined ? "" : ` ${value}`
    }`,
    help,
  ]);
}

function helpOf(context: Context, command: Command): string {
  const bold = (text: string): string => paint(context, "bold", text);
  const { name, operands, summary, details, examples, options } = command;
  return joined([
    `dsmr ${name}: ${summary}`,
    "",
    `${bold("Usage:")} ${["dsmr", name, ...operands, "[OPTIONS]"].join(" ")}`,
    "",
    ...wrapped(details),
    "",
    bold("Options:"),
    ...listed(optionRows({ ...options, ...commonOptions })),
    "",
    bold("Examples:"),
    ...listed(examples),
  ]);
}

/** Single characters that make one word of the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function commandOf(name: string): Command {
  const found = commands.find((command) => command.name === name);
  if (found !== undefined) return found;
  if (name.startsWith("-")) {
    throw new UsageError(`The command comes first, then options: dsmr COMMAND ${name}`);
  }
  const near = commands.find((command) => distance(command.name, name) <= 2);
  const hint = near === undefined ? "See dsmr --help." : `Did you mean ${near.name}?`;
  throw new UsageError(`There is no command ${JSON.stringify(name)}. ${hint}`);
}

/** What the arguments of a command say. */
function parse(command: Command, args: readonly string[]): Invocation {
  const all = { ...command.options, ...commonOptions };
  const options = Object.fromEntries(
    Object.entries(all).map(([name, { type, short }]) => [
      name,
      short === undefined ? { type } : { type, short },
    ]),
  );
  let parsed;
  try {
    parsed = parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    if (!codeOf(error)?.startsWith("ERR_PARSE_ARGS")) throw error;
    const [what = ""] = (error as Error).message.split(/\. To specify|\n/);
    const stop = /[.!?]$/.test(what) ? "" : ".";
    throw new UsageError(`${what}${stop} See dsmr ${command.name} --help.`);
  }
  const values: { [name: string]: string | boolean | undefined } = {};
  for (const [name, value] of Object.entries(parsed.values)) {
    if (!Array.isArray(value)) values[name] = value;
  }
  if (values["help"] === true) return { operands: [], values };
  const { operands } = command;
  if (parsed.positionals.length !== operands.length) {
    const wanted = ["dsmr", command.name, ...operands].join(" ");
    const extra = parsed.positionals[operands.length];
    const what = extra === undefined
      ? `${operands[parsed.positionals.length]} is missing`
      : `${JSON.stringify(extra)} is too much`;
    throw new UsageError(`${what}. Usage: ${wanted} [OPTIONS]`);
  }
  return { operands: parsed.positionals, values };
}

/** How a failure is told; also as JSON, where that was asked for. */
async function tell(context: Context, error: unknown, isJson: boolean): Promise<number> {
  const isUsage = error instanceof UsageError;
  // Deno's, where a permission is missing: its message says which.
  const isForbidden = error instanceof Error && error.name === "NotCapable";
  const system = isForbidden ? "EPERM" : codeOf(error);
  // What is none of these is a mistake of the tool's own: with the place where it happened.
  if (!isUsage && !(error instanceof DsmrError) && !/^E[A-Z]+$/.test(system ?? "")) throw error;
  const { message } = error as Error;
  const code = error instanceof DsmrError ? error.code : isUsage ? "USAGE" : system;
  if (isJson) await context.write(json({ error: { code, message } }));
  context.complain(`dsmr: ${printable(message)}`);
  return isUsage ? USAGE : FOUND;
}

/** Runs a command line; returns the exit code. */
export async function runLine(context: Context, args: readonly string[]): Promise<number> {
  const [first = "", ...rest] = args;
  const isJson = args.includes("--json");
  try {
    if (first === "") {
      context.complain(overview(context).trimEnd());
      return USAGE;
    }
    const isOverview = first === "help" && (rest[0] ?? "-").startsWith("-");
    if (first === "--help" || first === "-h" || isOverview) {
      await context.write(overview(context));
      return OK;
    }
    if (first === "--version" || first === "-V" || first === "version") {
      await context.write(isJson ? json({ version: VERSION }) : `dsmr ${VERSION}\n`);
      return OK;
    }
    const isHelp = first === "help";
    const command = commandOf(isHelp ? rest[0] ?? "" : first);
    const invocation: Invocation = isHelp
      ? { operands: [], values: { help: true } }
      : parse(command, rest);
    if (invocation.values["help"] === true) {
      await context.write(helpOf(context, command));
      return OK;
    }
    return await command.run(context, invocation);
  } catch (error) {
    return await tell(context, error, isJson);
  }
}
