/**
 * Runs of the benchmark, as programs, and what they leave behind.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { program, root } from "./_spawn.ts";

/** Marks the processes of a run, so that those that are left are found. */
const MARK = "DSMR_BENCH_TEST";

/** The processes with the mark: those that a run has started, and it. */
function marked(mark: string): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`, "utf8").includes(`${MARK}=${mark}`);
    } catch {
      // It has ended meanwhile, or is another user's.
      return false;
    }
  });
}

/**
 * The processes that are in a folder or below, with `word` in their command line: also those that
 * have overwritten their mark.
 */
export function inside(folder: string, word = ""): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/cwd`).startsWith(folder) &&
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(word);
    } catch {
      // It has ended meanwhile, or is another user's.
      return false;
    }
  });
}

/** System V shared memory whose maker is gone, and PostgreSQL's own: what a killed one leaves. */
function orphans(): string[] {
  const [, ...rows] = readFileSync("/proc/sysvipc/shm", "utf8").trim().split("\n");
  const pieces = rows.map((row) => row.trim().split(/\s+/))
    .filter(([, , , , maker]) => !existsSync(`/proc/${maker}`)).map(([, id]) => `System V ${id}`);
  return [...pieces, ...readdirSync("/dev/shm").filter((name) => name.startsWith("PostgreSQL."))];
}

/** A run of the benchmark with all its places in a scratch folder. */
export class Run {
  readonly scratch = mkdtempSync("/dev/shm/dsmr.bench-test-");
  readonly out = join(this.scratch, "out");
  readonly #mark = `${process.pid}.${Math.random()}`;
  readonly #before = orphans();
  readonly #child;
  readonly #ended: Promise<string>;
  printed = "";
  #look: () => void = () => {};

  constructor(words: string[], env: Record<string, string> = {}) {
    // PostgreSQL's server may be another user.
    chmodSync(this.scratch, 0o711);
    mkdirSync(join(this.scratch, "shm"));
    mkdirSync(join(this.scratch, "peers"));
    const places = ["shm", "out", "peers"].map((name) => `--${name}=${join(this.scratch, name)}`);
    this.#child = spawn(
      program("deno"),
      ["run", "-A", "--no-check", "bench/run.ts", "--quick", ...places, ...words],
      { cwd: root, env: { ...process.env, ...env, NO_COLOR: "1", [MARK]: this.#mark } },
    );
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.printed += text;
        this.#look();
      });
    }
    this.#ended = new Promise((resolve) => {
      this.#child.on("close", (code, signal) => resolve(`${signal ?? code}`));
    });
  }

  /** Until it has printed that, or has ended. */
  async until(text: string): Promise<void> {
    const seen = new Promise<void>((resolve) => {
      this.#look = () => this.printed.includes(text) && resolve();
      this.#look();
    });
    await Promise.race([seen, this.#ended]);
    assert(this.printed.includes(text), `It has ended without "${text}":\n${this.printed}`);
  }

  /** Until it has started more than `count` processes. */
  untilBusy(count: number): Promise<void> {
    return this.untilSeen(() => marked(this.#mark).length > count);
  }

  /** Until other people's children have come so far: they tell nobody. */
  async untilSeen(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      assert(this.#child.exitCode === null, `It has ended:\n${this.printed}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The folder of the part's PostgreSQL; it may not be there yet. */
  postgresOf(part: string): string {
    const [run = "not yet"] = readdirSync(join(this.scratch, "shm"));
    return join(this.scratch, "shm", run, part, "postgres");
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  ended(): Promise<string> {
    return this.#ended;
  }

  /** Nothing is left: no process, no registry, no file. */
  checkNothingIsLeft(): void {
    assertEquals(marked(this.#mark), [], "processes are left");
    assertEquals(inside(this.scratch), [], "processes are left in the folder of the run");
    const others = orphans().filter((name) => !this.#before.includes(name));
    assertEquals(others, [], "shared memory is left");
    assertEquals(readdirSync(join(this.scratch, "shm")), [], "files are left");
    const peers = readdirSync("/dev/shm").filter((name) => /^dsmr-bench-.*\.peer$/.test(name));
    const own = peers.filter((name) => this.printed.includes(name));
    assertEquals(own, [], "a peer's shared memory is left");
  }

  end(): void {
    this.#child.kill("SIGKILL");
    for (const pid of [...marked(this.#mark), ...inside(this.scratch)]) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }
    rmSync(this.scratch, { recursive: true, force: true });
  }
}
