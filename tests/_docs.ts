/**
 * The documents as their readers take them: files that are written down, and commands that are
 * typed, in the order of the text.
 *
 * A block of TypeScript or JSON whose first line is a comment with a name, `// table.ts`, is that
 * file. A block of `console` is what somebody sees at a terminal: lines with a prompt are typed,
 * the others are printed. The prompt says which terminal: `$`, or `one$`, `two$`. A block of `sh` that
 * begins with the comment "In each terminal" is typed in each. Everything that a command prints is
 * shown, but
 *
 * - 24600 to 24699 stand for process ids, each for the same one from its first line on,
 * - points in time, durations (`548 ms`) and counts of waits stand for any,
 * - a command that is shown again in its terminal has run all the time: the first time it has
 *   printed so much, the second time more.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";

export interface Block {
  /** Of its first line in the document. */
  line: number;
  language: string;
  /** What file it is, if it is one. */
  file: string | undefined;
  text: string;
}

export interface Document {
  /** Its path in the repository. */
  path: string;
  text: string;
  blocks: Block[];
}

/** A command, as the document shows it. */
export interface Step {
  line: number;
  terminal: string;
  command: string;
  /** What it has printed by then. */
  shown: string;
  /** It goes on: a later step shows more of it. */
  isUnfinished: boolean;
}

const root = new URL("../", import.meta.url);

/** The README and everything in `docs/`. */
export function documents(): Document[] {
  const guides = readdirSync(new URL("docs/", root)).filter((name) => name.endsWith(".md"));
  return ["README.md", ...guides.map((name) => `docs/${name}`)].map((path) => {
    const text = readFileSync(new URL(path, root), "utf8");
    return { path, text, blocks: blocksOf(text) };
  });
}

function blocksOf(document: string): Block[] {
  const found = document.matchAll(/^```(\w*)\n([^]*?)^```$/gm);
  return [...found].map(({ index, 1: language = "", 2: text = "" }) => ({
    line: document.slice(0, index).split("\n").length + 1,
    language,
    file: /^\/\/ ([\w-]+\.\w+)\n/.exec(text)?.[1],
    text,
  }));
}

export function isTypeScript({ language }: Block): boolean {
  return language === "ts" || language === "tsx";
}

/** What is typed in each terminal before anything else. */
export function setupOf({ blocks }: Document): string {
  return blocks.filter(({ language, text }) =>
    language === "sh" && text.startsWith("# In each terminal")
  ).map(({ text }) => text).join("");
}

/** What is typed, in the order of the document. */
export function stepsOf({ blocks }: Document): Step[] {
  const steps: Step[] = [];
  for (const { language, line, text } of blocks) {
    if (language !== "console") continue;
    text.split("\n").slice(0, -1).forEach((shown, i) => {
      const [, terminal, command] = /^(\w*)\$ (.*)$/.exec(shown) ?? [];
      if (terminal !== undefined && command !== undefined) {
        steps.push({ line: line + i, terminal, command, shown: "", isUnfinished: false });
        return;
      }
      const step = steps.at(-1);
      if (step === undefined) throw new Error(`Line ${line + i}: nobody has typed anything.`);
      step.shown += `${shown}\n`;
    });
  }
  return steps.map((step, i) => ({
    ...step,
    isUnfinished: steps.slice(i + 1).find(({ terminal }) => terminal === step.terminal)?.command ===
      step.command,
  }));
}

const TIME = String.raw`\d{4}-\d\d-\d\dT[\d:.]+Z`;
const DURATION = String.raw`\d+(?:\.\d+)? (?:ms|s|min|h)\b`;
const WAITS = String.raw`\d+(?:\.\d+)? (?:waits\/s|waits in all)`;
const PID = String.raw`\b246\d\d\b`;

/**
 * Whether this was printed where that is shown. Process ids that are seen for the first time are
 * added to `pids`.
 */
export function matches(shown: string, printed: string, pids: Map<string, string>): boolean {
  const isNamed = new Set<string>();
  const parts = shown.split(new RegExp(`(${TIME}|${WAITS}|${DURATION}|${PID})`));
  const pattern = parts.map((part, i) => {
    if (i % 2 === 0) return RegExp.escape(part);
    for (const kind of [TIME, WAITS, DURATION]) {
      if (new RegExp(`^${kind}$`).test(part)) return kind;
    }
    const known = pids.get(part);
    if (known !== undefined) return known;
    if (isNamed.has(part)) return `\\k<p${part}>`;
    isNamed.add(part);
    return `(?<p${part}>\\d+)`;
  });
  const match = new RegExp(`^${pattern.join("")}$`).exec(printed);
  if (match === null) return false;
  for (const [group, pid] of Object.entries(match.groups ?? {})) pids.set(group.slice(1), pid);
  return true;
}

/** The command with the process ids of this machine. */
export function withPids(command: string, pids: Map<string, string>): string {
  return command.replaceAll(new RegExp(PID, "g"), (shown) => {
    const pid = pids.get(shown);
    if (pid === undefined) throw new Error(`No process has been shown with the id ${shown}.`);
    return pid;
  });
}

/** The names of the sections, as links name them. */
export function anchorsOf({ text }: Document): Set<string> {
  const withoutBlocks = text.replaceAll(/^```[^]*?^```$/gm, "");
  const headings = [...withoutBlocks.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => heading);
  return new Set(
    headings.map((heading) =>
      heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-")
    ),
  );
}
