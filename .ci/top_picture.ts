/**
 * Draws docs/pictures/top.svg: what `dsmr top` shows of a registry that is in use, as it stands on
 * a terminal.
 *
 *   node_modules/.bin/deno run -A .ci/top_picture.ts
 *
 * It makes a registry "shop", starts members of both runtimes that are in each other's way, runs
 * the tool on a terminal that tmux emulates, and draws the characters that are on the screen after
 * some seconds, when somebody waits. Every number in the picture is one that was shown. Needs tmux, and no registry
 * "shop" in the default directory.
 *
 * @module
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Registry } from "../lib/mod.ts";

const here = fileURLToPath(import.meta.url);
const root = dirname(dirname(here));
const NAME = "shop";
const COLUMNS = 94;
const ROWS = 19;
const BUCKETS = 8;
const SECONDS = 6;

/** Is in the others' way until it is killed. */
async function live(): Promise<void> {
  using registry = Registry.openSync(NAME, { mode: "attach" });
  const cache = registry.getNamedSegmentSync("cache");
  const table = registry.getNamedSegmentSync("table");
  const buckets = Array.from({ length: BUCKETS }, (_, i) => table.lockAt(i * 64));
  const work = (ms: number): void => {
    const end = performance.now() + ms;
    while (performance.now() < end);
  };
  for (;;) {
    const mode = Math.random() < 0.3 ? "exclusive" : "shared";
    cache.lock.withSync(mode, () => work(mode === "shared" ? 2 : 12));
    await buckets[Math.floor(Math.random() * BUCKETS)]?.with("exclusive", () => pause(10));
    await registry.locks.request("report", () => work(0.5));
    await pause(5 + 10 * Math.random());
  }
}

const program = (runtime: string): string => join(root, "node_modules", ".bin", runtime);
const server = `dsmr-top-picture-${process.pid}`;
const tmux = (...args: string[]): string =>
  execFileSync("tmux", ["-L", server, "-f", "/dev/null", ...args], { encoding: "utf8" });

/** The lines on the screen, with the escape sequences of their colours. */
async function screen(): Promise<string[]> {
  // What mode "create" would find there belongs to somebody: it fails, and nothing is destroyed.
  using registry = Registry.openSync(NAME, { mode: "create" });
  const members: ChildProcess[] = [];
  try {
    const tranche = registry.newTranche("buckets");
    registry.getNamedSegmentSync("cache", 1 << 20);
    registry.getNamedSegmentSync("table", BUCKETS * 64, (fresh) => {
      for (let i = 0; i < BUCKETS; i++) fresh.initLock(i * 64, tranche);
    });
    for (const runtime of ["deno", "deno", "bun", "bun"]) {
      const args = runtime === "deno" ? ["run", "-A"] : ["run"];
      members.push(spawn(program(runtime), [...args, here, "member"], { stdio: "inherit" }));
    }
    const tool = `${program("bun")} run ${join(root, "tool", "main.ts")} top ${NAME}`;
    tmux("new-session", "-d", "-x", String(COLUMNS), "-y", String(ROWS), tool);
    tmux("set-option", "-g", "status", "off");
    await pause(SECONDS * 1000);
    for (let looks = 0;; looks++) {
      const lines = tmux("capture-pane", "-e", "-p").split("\n").slice(0, ROWS);
      // Each look is another moment: one in which somebody waits, and another lock is held, too. (Who
      // has just let go, or tries, may be listed as a holder beside the one: that would mislead.)
      const text = lines.join("\n");
      const isBusy = /buckets in [^]* for [1-9]| for [1-9][^]*buckets in/.test(text) &&
        !/exclusive, \d/.test(text);
      if (isBusy || looks === 200) return lines;
      await pause(200);
    }
  } finally {
    for (const member of members) member.kill("SIGKILL");
    try {
      tmux("kill-server");
    } catch (error) {
      console.error(`tmux had ended: ${String(error)}`);
    }
    Registry.destroy(NAME);
  }
}

interface Run {
  text: string;
  column: number;
  style: string;
}

/** What the tool uses, and what ends it. The background (49) stays as it is. */
const styles: Readonly<Record<number, string>> = {
  0: "",
  1: "bold",
  2: "dim",
  22: "",
  33: "yellow",
  39: "",
};

/** Stretches of a line that look alike; and how the next line begins, for tmux tells changes only. */
function runsOf(line: string, begin: string): { runs: Run[]; style: string } {
  const runs: Run[] = [];
  let style = begin;
  let column = 0;
  // deno-lint-ignore no-control-regex
  for (const part of line.split(/(\u001b\[[\d;]*m)/)) {
    // deno-lint-ignore no-control-regex
    const codes = /^\u001b\[([\d;]*)m$/.exec(part)?.[1];
    if (codes === undefined) {
      if (part.trim() !== "") runs.push({ text: part, column, style });
      column += part.length;
      continue;
    }
    for (const code of codes.split(";")) style = styles[Number(code)] ?? style;
  }
  return { runs, style };
}

const WIDTH = 8.4;
const HEIGHT = 18;
const EDGE = 16;

function draw(lines: readonly string[]): string {
  const escape = (text: string): string =>
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  let carried = "";
  const texts = lines.flatMap((line, row) => {
    const { runs, style: next } = runsOf(line, carried);
    carried = next;
    return runs.map(({ text, column, style }) => {
      // Blanks at either end would be lost, or stretched.
      const words = text.trim();
      const x = (EDGE + (column + text.indexOf(words)) * WIDTH).toFixed(1);
      const y = EDGE + 20 + (row + 1) * HEIGHT - 5;
      const kind = style === "" ? "" : ` class="${style}"`;
      const length = (words.length * WIDTH).toFixed(1);
      return `  <text${kind} x="${x}" y="${y}" textLength="${length}" xml:space="preserve">` +
        `${escape(words)}</text>`;
    });
  });
  const [width, height] = [COLUMNS * WIDTH + 2 * EDGE, lines.length * HEIGHT + 2 * EDGE + 20];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width.toFixed(0)} ${height}">`,
    "  <title>dsmr top</title>",
    "  <!-- Made by .ci/top_picture.ts. -->",
    "  <style>",
    "    text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #e2e8f0 }",
    "    .bold { font-weight: bold; fill: #ffffff }",
    "    .dim { fill: #94a3b8 }",
    "    .yellow { fill: #fde047 }",
    "  </style>",
    `  <rect width="${width.toFixed(0)}" height="${height}" rx="10" fill="#0f172a" />`,
    '  <g><circle cx="20" cy="18" r="5" fill="#f87171" /><circle cx="38" cy="18" r="5" fill="#fbbf24" />' +
    '<circle cx="56" cy="18" r="5" fill="#4ade80" /></g>',
    ...texts,
    "</svg>",
    "",
  ].join("\n");
}

if (process.argv[2] === "member") {
  await live();
} else {
  const lines = await screen();
  while (lines.at(-1)?.trim() === "") lines.pop();
  const file = join(root, "docs", "pictures", "top.svg");
  writeFileSync(file, draw(lines));
  execFileSync(program("deno"), ["fmt", "--quiet", file]);
  // deno-lint-ignore no-control-regex
  console.log(lines.join("\n").replaceAll(/\u001b\[[\d;]*m/g, ""));
}
