/**
 * Children of a test: Deno, Bun and C processes, and Workers in them.
 *
 * @module
 */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Command, Report } from "./_agent.ts";

const here = dirname(fileURLToPath(import.meta.url));
export const root: string = dirname(here);

/** The JavaScript runtimes, by the name of their program. */
export const runtimes = ["deno", "bun"] as const;
export type RuntimeName = (typeof runtimes)[number];

/** The other of the two. */
export function otherThan(runtime: RuntimeName): RuntimeName {
  return runtime === "deno" ? "bun" : "deno";
}

/** Not a measurement: a child that takes this long is stuck, however slow the machine. */
const ANSWER_LIMIT_MS = 120_000;

/** What a promise is fulfilled with; or, when it is not in time, an error that says what was awaited. */
export function patient<Result>(
  promise: Promise<Result>,
  describe: () => string,
  milliseconds: number = ANSWER_LIMIT_MS,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const limit = setTimeout(
      () => reject(new Error(`Not within ${milliseconds / 1000} s: ${describe()}`)),
      milliseconds,
    );
    promise.finally(() => clearTimeout(limit)).then(resolve, reject);
  });
}

/** The gate's step "oldest" names others than the pinned ones. */
const programs: Readonly<Record<RuntimeName, string>> = {
  deno: process.env["DSMR_DENO"] ?? join(root, "node_modules", ".bin", "deno"),
  bun: process.env["DSMR_BUN"] ?? join(root, "node_modules", ".bin", "bun"),
};

export function program(runtime: RuntimeName): string {
  return programs[runtime];
}

/** The command line that runs a script of this folder. */
export function commandLine(
  runtime: RuntimeName,
  script: string,
  flags: string[] = ["-A"],
): string[] {
  const path = join(here, script);
  return runtime === "deno"
    ? [program("deno"), "run", "--quiet", ...flags, path]
    : [program("bun"), "run", path];
}

/** Reports in the order they came, and whoever waits for them. */
class Inbox {
  readonly #reports: Report[] = [];
  readonly #waiting: { resolve(report: Report): void; reject(error: Error): void }[] = [];
  #ended: string | undefined;

  put(report: Report): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) this.#reports.push(report);
    else waiting.resolve(report);
  }

  end(why: string): void {
    this.#ended ??= why;
    for (const { reject } of this.#waiting.splice(0)) reject(new Error(this.#ended));
  }

  get(describe: () => string, giveUp: () => void): Promise<Report> {
    const report = this.#reports.shift();
    if (report !== undefined) return Promise.resolve(report);
    if (this.#ended !== undefined) return Promise.reject(new Error(`${this.#ended}${describe()}`));
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => {
        reject(new Error(`No answer within ${ANSWER_LIMIT_MS / 1000} s.${describe()}`));
        giveUp();
      }, ANSWER_LIMIT_MS);
      this.#waiting.push({
        resolve: (report) => (clearTimeout(limit), resolve(report)),
        reject: (error) => (
          clearTimeout(limit), reject(new Error(`${error.message}${describe()}`))
        ),
      });
    });
  }
}

/** Whether every thread of a process is stopped. Where there is no /proc it is taken for granted. */
export function isStopped(pid: number): boolean {
  if (process.platform !== "linux") return true;
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
      return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
    } catch {
      // It has ended since.
      return true;
    }
  });
}

/** A child process that takes commands. */
export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  /** By number of the Worker; 0 is the main thread. */
  readonly #inboxes = new Map<number, Inbox>();
  #end: string | undefined;
  #hasEnded = false;
  #printed = "";
  readonly name: string;
  /** Resolves when it has ended, and nobody has its output open, with its exit code or signal. */
  readonly whenEnded: Promise<string>;

  constructor(command: string[], env: Record<string, string> = {}) {
    const [path = "", ...args] = command;
    this.name = command.join(" ");
    this.#process = spawn(path, args, {
      cwd: root,
      env: { ...process.env, DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1", ...env },
    });
    // A line written to a child that has died is lost; its report is missed soon enough.
    this.#process.stdin.on("error", () => {});
    let rest = "";
    this.#process.stdout.setEncoding("utf8").on("data", (text: string) => {
      this.#printed += text;
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#take(line);
    });
    this.#process.stderr.setEncoding("utf8").on("data", (text: string) => this.#printed += text);
    this.whenEnded = new Promise((resolve) => {
      this.#process.on("error", (error) => {
        this.#hasEnded = true;
        this.#endInboxes(String(error));
        resolve(String(error));
      });
      this.#process.on("close", (code, signal) => {
        const how = signal ?? `exit code ${code}`;
        this.#hasEnded = true;
        this.#endInboxes(`It ended with ${how}.`);
        resolve(how);
      });
    });
  }

  /** The same for one that is about to end: rejects when it does not. */
  get ended(): Promise<string> {
    return patient(
      this.whenEnded,
      () => `the end of ${this.name}\nIt has printed:\n${this.#printed.slice(-4000)}`,
    );
  }

  #inbox(number: number): Inbox {
    let inbox = this.#inboxes.get(number);
    if (inbox === undefined) this.#inboxes.set(number, inbox = new Inbox());
    if (this.#end !== undefined) inbox.end(this.#end);
    return inbox;
  }

  #endInboxes(why: string): void {
    this.#end ??= why;
    for (const inbox of this.#inboxes.values()) inbox.end(this.#end);
  }

  #take(line: string): void {
    if (!line.startsWith("{")) return;
    try {
      const { worker = 0, ...report } = JSON.parse(line) as Report & { worker?: number };
      this.#inbox(worker).put(report);
    } catch {
      this.#endInboxes(`Not JSON: ${line}`);
    }
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  /** As far as this process has heard. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Everything that it has written, to both streams. */
  get printed(): string {
    return this.#printed;
  }

  send(command: Command | { go: true }): void {
    this.sendLine(JSON.stringify(command));
  }

  /** For programs that take other commands. */
  sendLine(line: string): void {
    this.#process.stdin.write(line + "\n");
  }

  /** The next report, of the main thread or a Worker. */
  next(worker = 0): Promise<Report> {
    const describe = () => `\nChild: ${this.name}\nIt has printed:\n${this.#printed.slice(-4000)}`;
    return this.#inbox(worker).get(describe, () => this.kill());
  }

  /** Sends a command; the next report is the reply. */
  ask(command: Command): Promise<Report> {
    this.send(command);
    return this.next();
  }

  /** Lets an init callback that holds go on. */
  go(): void {
    this.send({ go: true });
  }

  /** At once, without a goodbye. */
  kill(signal: "SIGKILL" | "SIGSTOP" | "SIGCONT" = "SIGKILL"): void {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null || this.#process.pid === undefined) return;
    try {
      // By number: Deno's own kill() does nothing the second time.
      process.kill(this.#process.pid, signal);
    } catch (error) {
      // It has ended by itself, and the event that says so is still to come.
      if ((error as { code?: string }).code !== "ESRCH") throw error;
    }
  }

  endInput(): void {
    this.#process.stdin.end();
  }
}

/** A Worker in a child that runs `_host.ts`; it takes the same commands. */
export class HostedWorker {
  readonly #host: Child;
  readonly #number: number;

  constructor(host: Child, number: number) {
    this.#host = host;
    this.#number = number;
    this.#tell("start");
  }

  #tell(what: "start" | "go" | "end" | Command): void {
    this.#host.sendLine(JSON.stringify({ worker: this.#number, what }));
  }

  send(command: Command): void {
    this.#tell(command);
  }

  next(): Promise<Report> {
    return this.#host.next(this.#number);
  }

  ask(command: Command): Promise<Report> {
    this.send(command);
    return this.next();
  }

  go(): void {
    this.#tell("go");
  }

  /** Resolves when terminate() has; the thread may take longer. */
  async terminate(): Promise<void> {
    this.#tell("end");
    const { said } = await this.next();
    if (said !== "terminated") throw new Error(`Expected "terminated", got "${said}".`);
  }
}
