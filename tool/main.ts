#!/usr/bin/env bun
/**
 * The command-line tool `dsmr`: `dsmr --help` says what it does. Runs in both runtimes; this is the
 * one file of it that knows of the process and the terminal.
 *
 * ```sh
 * deno run -A jsr:@dsmr/registry/tool ls
 * bun node_modules/@dsmr/registry/dist/tool/main.js ls
 * ```
 *
 * @module
 */

import { release } from "node:os";
import process from "node:process";
import { createInterface } from "node:readline";
import { runLine } from "./cli.ts";
import { type Context, FOUND } from "./command.ts";

const { stdin, stdout, stderr } = process;

function runtime(): string {
  const name = ["deno", "bun", "node"].find((one) => process.versions[one] !== undefined) ?? "";
  return `${name} ${process.versions[name]}`;
}

/** NO_COLOR, whatever it is set to; see no-color.org. */
function hasColor(): boolean {
  const { NO_COLOR, TERM } = process.env;
  return stdout.isTTY === true && (NO_COLOR === undefined || NO_COLOR === "") && TERM !== "dumb";
}

const context: Context = {
  host: {
    platform: process.platform,
    arch: process.arch,
    release: release(),
    uid: process.getuid?.(),
    pid: process.pid,
    runtime: runtime(),
  },
  isTerminal: stdout.isTTY === true,
  canAsk: stdin.isTTY === true && stdout.isTTY === true,
  hasColor: hasColor(),
  size: () => ({ columns: stdout.columns ?? 80, rows: stdout.rows ?? 24 }),
  write(text) {
    return new Promise((resolve) => stdout.write(text, () => resolve()));
  },
  complain: (text) => void stderr.write(text + "\n"),
  ask(question) {
    const lines = createInterface({ input: stdin, output: stdout });
    return new Promise((resolve) => {
      // The end of the input is a no.
      lines.once("close", () => resolve(""));
      lines.question(question, (answer) => {
        resolve(answer);
        lines.close();
      });
    });
  },
  onKey(hear) {
    if (stdin.isTTY !== true) return () => {};
    const listener = (chunk: Uint8Array | string): void => {
      for (const key of chunk.toString()) hear(key);
    };
    stdin.setRawMode(true);
    stdin.on("data", listener);
    stdin.resume();
    return () => {
      stdin.off("data", listener);
      stdin.setRawMode(false);
      stdin.pause();
      stdin.unref();
    };
  },
  onStop(hear) {
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
    for (const signal of signals) process.on(signal, hear);
    return () => {
      for (const signal of signals) process.off(signal, hear);
    };
  },
};

// Whoever reads has had enough, as `head` does: no reason for a message. A full disk is one.
stdout.on("error", (error: Error & { code?: string }) => {
  if (error.code === "EPIPE") process.exit(0);
  stderr.write(`dsmr: ${error.message}\n`, () => process.exit(FOUND));
});

process.exitCode = await runLine(context, process.argv.slice(2));
