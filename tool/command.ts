/**
 * What a command of the tool is, and what it is given: everything that it knows of the process and
 * the terminal comes in through {@linkcode Context}.
 *
 * @module
 */

import { isAbsolute, resolve } from "node:path";
import { type DirectoryOptions, DsmrError, Registry } from "../lib/mod.ts";
import { directory } from "../lib/requests.ts";

/** Exit codes. */
export const OK = 0;
/** Something was found that somebody should look at, or what was asked for has failed. */
export const FOUND = 1;
/** The command line makes no sense. */
export const USAGE = 2;

/** A command line that makes no sense; the message says why. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}

/** The machine and the runtime. */
export interface Host {
  /** As `process.platform`: "linux". */
  readonly platform: string;
  /** As `process.arch`: "x64". */
  readonly arch: string;
  /** The kernel's release: "6.18.44". */
  readonly release: string;
  /** Of the user; undefined on systems that have no such number. */
  readonly uid: number | undefined;
  /** Of this process. */
  readonly pid: number;
  /** Name and version of the runtime: "deno 2.9.5". */
  readonly runtime: string;
}

/** What a command does everything through that is not the library. */
export interface Context {
  readonly host: Host;
  /** Whether the output is a terminal. */
  readonly isTerminal: boolean;
  /** Whether somebody can be asked: input and output are terminals. */
  readonly canAsk: boolean;
  /** Whether to use colours. */
  readonly hasColor: boolean;
  /** The terminal's size, which may change. */
  size(): { columns: number; rows: number };
  /** Writes to the output as it is; resolves when there is room for more. */
  write(text: string): Promise<void>;
  /** Writes a line to where errors go. */
  complain(text: string): void;
  /** Asks for a line. */
  ask(question: string): Promise<string>;
  /** Hears each key until the result is called. */
  onKey(hear: (key: string) => void): () => void;
  /** Hears that the process is to end, until the result is called. */
  onStop(hear: () => void): () => void;
}

/** An option of a command. */
export interface Option {
  type: "boolean" | "string";
  short?: string;
  /** What its value is called in the help. */
  value?: string;
  help: string;
}

/** What a command line says. */
export interface Invocation {
  operands: readonly string[];
  values: { readonly [name: string]: string | boolean | undefined };
}

/** A command of the tool. */
export interface Command {
  name: string;
  /** One line. */
  summary: string;
  /** What comes after the command: each must be there. */
  operands: readonly ("REGISTRY" | "SEGMENT" | "SHELL")[];
  /** What a person should know: paragraphs. */
  details: string;
  /** Command lines, and what they do. */
  examples: readonly (readonly [line: string, what: string])[];
  options: { readonly [name: string]: Option };
  /** Returns the exit code. */
  run(context: Context, invocation: Invocation): number | Promise<number>;
}

/** Options that every command has. */
export const commonOptions: { readonly [name: string]: Option } = {
  json: { type: "boolean", help: "print JSON, for programs" },
  dir: {
    type: "string",
    value: "PATH",
    help: "the directory of the registries (default: DSMR_DIR, else /dev/shm)",
  },
  help: { type: "boolean", short: "h", help: "print this" },
};

/** The option of those that attach. */
export const databaseOption: Option = {
  type: "string",
  value: "NAME",
  help: 'the database to be in while looking (default: "default")',
};

/** The directory that the command line names. */
export function placeOf({ values }: Invocation): DirectoryOptions {
  const { dir } = values;
  if (typeof dir !== "string") return {};
  if (dir === "") throw new UsageError("--dir is empty. Omit it, or name a directory.");
  return { dir: isAbsolute(dir) ? dir : resolve(dir) };
}

/** An option's text. */
export function textOf({ values }: Invocation, name: string): string | undefined {
  const value = values[name];
  return typeof value === "string" ? value : undefined;
}

/** A number that an option names, decimal or, if whole, hexadecimal with 0x. */
export function numberOf(
  invocation: Invocation,
  name: string,
  range: { min: number; max: number; isWhole: boolean },
): number | undefined {
  const text = textOf(invocation, name);
  if (text === undefined) return undefined;
  const { min, max, isWhole } = range;
  const form = isWhole ? /^(\d+|0x[\da-f]+)$/i : /^\d+(\.\d+)?$/;
  const value = form.test(text) ? Number(text) : NaN;
  if (value >= min && value <= max) return value;
  throw new UsageError(
    `--${name} is ${JSON.stringify(text)}; it must be a ${isWhole ? "whole " : ""}number from ` +
      `${min} to ${max}.`,
  );
}

/** How long to wait for a stopped process in the registry's tables. */
const OPEN_TIMEOUT_MS = 5000;

/** Attaches to the registry that is there, to look at it. */
export function attach(invocation: Invocation): Registry {
  const [name = ""] = invocation.operands;
  const place = placeOf(invocation);
  const database = textOf(invocation, "database");
  try {
    return Registry.openSync(name, {
      ...place,
      mode: "look",
      timeout: OPEN_TIMEOUT_MS,
      ...(database === undefined ? {} : { database }),
    });
  } catch (error) {
    if (!(error instanceof DsmrError) || error.code !== "NOT_FOUND") throw error;
    // The library's own advice is for programs.
    throw new DsmrError(
      "NOT_FOUND",
      `There is no registry "${name}" in ${directory(place)}. See dsmr ls, or name another ` +
        "directory with --dir.",
      { cause: error },
    );
  }
}
