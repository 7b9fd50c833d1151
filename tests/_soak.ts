/**
 * A soak: Deno and Bun processes wait for whatever one can wait for, with and without blocking,
 * while a killer kills some and stops others for a while. Two of them live from the beginning to
 * the end and tell what they use. In the end nothing is held, nothing pending, nothing has grown.
 *
 * @module
 */

import { statSync } from "node:fs";
import { join } from "node:path";
import { Registry, type Segment } from "../lib/mod.ts";
import { randomFrom } from "./_random.ts";
import type { Scene } from "./_scene.ts";
import {
  briefName,
  DEADLINE,
  FENCES,
  killedWord,
  type Line,
  LIVES_MAX,
  lockOf,
  LOCKS,
  makeField,
  type Sample,
  SIGNALS,
  STOP,
  TASKS,
  WEB_FENCES,
  WEB_LOCKS,
  WORDS,
  WORDS_AT,
} from "./_soak_layout.ts";
import { Child, commandLine, type RuntimeName, runtimes } from "./_spawn.ts";

/** Not a measurement: who has not ended by then is stuck. */
const END_LIMIT_MS = 60_000;
const MEMBERS = 6;
/** Between two deeds of the killer, and how long somebody is stopped, at most. */
const PAUSE_MS = 900;
const STOP_MS = 150;
const SAMPLES = 100;
/** Of the time: until compilers, caches and pools are as large as they will be. */
const WARM_UP = 0.2;

/**
 * By how much the second half may exceed the first one, of the medians. What grows steadily grows
 * by four tenths of all between the two, so a leak of 15 MiB in the whole time is found. Medians
 * of what does not leak were seen to differ by 2 MiB (Bun's heap, from collection to collection).
 *
 * Only the process's own pages count. Those of libraries and of shared memory come and go with
 * whoever looks at them; a segment that stays mapped is seen as a file and as a descriptor.
 */
const GROWTH = { own: 6 * 2 ** 20, heap: 3 * 2 ** 20, descriptors: 8, threads: 8 };
/**
 * V8 lets its young generation grow to some 64 MiB within a minute and keeps it, at whatever a
 * collection leaves. That would hide a leak, and look like one in a short soak.
 */
const V8_FLAGS = "--v8-flags=--expose-gc,--max-semi-space-size=1";
/** Segments that come and go, each perhaps twice for a moment, and all that stay. */
const FILES_MAX = 64;

interface Member {
  child: Child;
  runtime: RuntimeName;
  life: number;
  isLasting: boolean;
  wasKilled: boolean;
  isReady: boolean;
  isStopped: boolean;
  hasEnded: boolean;
}

/** What a soak has shown, one after the other. */
export interface Finding {
  what: string;
  /** What was wrong; undefined if nothing was. */
  trouble: string | undefined;
  /** To be read by people. */
  details: string;
}

export class Soak {
  readonly #scene: Scene;
  readonly #seconds: number;
  readonly #random: () => number;
  readonly #registry: Registry;
  readonly #control: Int32Array;
  readonly #field: Segment;
  readonly #members = new Set<Member>();
  readonly #lasting: Member[] = [];
  readonly #troubles: string[] = [];
  readonly #deeds = new Map<string, number>();
  /** Files and bytes in the directory, over time. */
  readonly #directory: { files: number; bytes: number }[] = [];
  #starts = 0;
  #kills = 0;
  #stops = 0;

  constructor(scene: Scene, seconds: number, seed: number) {
    this.#scene = scene;
    this.#seconds = seconds;
    this.#random = randomFrom(seed);
    this.#registry = scene.open({ mode: "create" }, "soak");
    const { control, field } = makeField(this.#registry);
    this.#control = control;
    this.#field = field;
    // Should we be killed ourselves, the members end all the same.
    control[DEADLINE] = Math.ceil(Date.now() / 1000 + seconds + END_LIMIT_MS / 1000);
  }

  /** Starts nobody any more. */
  stop(): void {
    Atomics.store(this.#control, STOP, 1);
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #start(isLasting: boolean): void {
    const life = ++this.#starts % LIVES_MAX;
    const runtime = runtimes[life % 2] ?? "deno";
    const flags = ["-A", V8_FLAGS];
    const deeds = isLasting || this.#below(2) === 0 ? 0 : 200 + this.#below(3000);
    const sampleMs = isLasting ? Math.max(this.#seconds * 1000 / SAMPLES, 100) : 0;
    const child = this.#scene.adopt(
      new Child([
        ...commandLine(runtime, "_soak_member.ts", flags),
        ...[this.#scene.dir, life, this.#below(2 ** 31), deeds, sampleMs].map(String),
      ]),
    );
    const member: Member = {
      child,
      runtime,
      life,
      isLasting,
      wasKilled: false,
      isReady: false,
      isStopped: false,
      hasEnded: false,
    };
    this.#members.add(member);
    if (isLasting) this.#lasting.push(member);
    child.next().then(() => member.isReady = true, () => {});
    child.whenEnded.then((how) => this.#ended(member, how, deeds > 0));
  }

  #ended(member: Member, how: string, mayEnd: boolean): void {
    member.hasEnded = true;
    this.#members.delete(member);
    const isOver = Atomics.load(this.#control, STOP) === 1;
    // It may have ended, or found a fault, just before the kill.
    const isExpected = member.wasKilled && how === "SIGKILL" ||
      how === "exit code 0" && (isOver || mayEnd);
    if (!isExpected) {
      this.#troubles.push(
        `${member.runtime} life ${member.life} ended with ${how}: ${
          member.child.printed.slice(-3000)
        }`,
      );
    }
    const deeds = linesOf(member).findLast((line) => line.deeds !== undefined)?.deeds ?? {};
    for (const [name, count] of Object.entries(deeds)) {
      this.#deeds.set(name, (this.#deeds.get(name) ?? 0) + count);
    }
    if (!isOver && !member.isLasting) this.#start(false);
  }

  /** One deed. */
  #strike(): void {
    const all = [...this.#members].filter(({ isReady, wasKilled }) => isReady && !wasKilled);
    const victim = all[this.#below(all.length)];
    if (victim === undefined) return;
    if (this.#below(2) === 0 && !victim.isLasting) {
      this.#kills++;
      victim.wasKilled = true;
      // Before, so that nobody finds it dead and unexplained.
      Atomics.store(this.#control, killedWord(victim.life), 1);
      this.#signal(victim, "SIGKILL");
    } else if (!victim.isStopped) {
      this.#stops++;
      victim.isStopped = true;
      this.#signal(victim, "SIGSTOP");
      setTimeout(() => this.#continue(victim), this.#random() * STOP_MS);
    }
  }

  #continue(member: Member): void {
    if (!member.isStopped || member.hasEnded) return;
    member.isStopped = false;
    if (!member.wasKilled) this.#signal(member, "SIGCONT");
  }

  #signal({ child }: Member, signal: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void {
    try {
      child.kill(signal);
    } catch {
      // It has ended, and the event is still to come.
    }
  }

  #lookAtDirectory(): void {
    let bytes = 0;
    const files = this.#scene.files();
    for (const file of files) {
      try {
        bytes += statSync(join(this.#scene.dir, file)).size;
      } catch {
        // Gone.
      }
    }
    this.#directory.push({ files: files.length, bytes });
  }

  /** Runs it, and says what came of it. */
  async run(): Promise<Finding[]> {
    for (let i = 0; i < MEMBERS; i++) this.#start(i < runtimes.length);
    const end = performance.now() + this.#seconds * 1000;
    // No call of the registry from here until nobody is stopped any more: one that is stopped
    // while it has the tables would have us wait for ourselves.
    const isStopped = () => Atomics.load(this.#control, STOP) === 1;
    while (performance.now() < end && this.#troubles.length === 0 && !isStopped()) {
      await pause(this.#random() ** 2 * PAUSE_MS);
      this.#strike();
      this.#lookAtDirectory();
    }
    for (const member of this.#members) this.#continue(member);
    this.stop();
    await this.#waitForEnd();
    const summary = `${this.#starts} lives, ${this.#kills} killed, ${this.#stops} stops`;
    const findings = [{
      what: "nobody has found a fault, and all have ended by themselves",
      trouble: this.#troubles.length === 0 ? undefined : this.#troubles.join("\n"),
      details: `${summary}; ${[...this.#deeds].map((deed) => deed.join(": ")).join(", ")}`,
    }];
    // What remains may wait for those that are stuck.
    if (this.#troubles.length > 0) return findings;
    findings.push(await finding("nothing is held or pending", () => this.#checkNothingLeft()));
    findings.push(await finding("the directory does not fill up", () => this.#checkDirectory()));
    for (const member of this.#lasting) {
      findings.push(
        await finding(`${member.runtime} does not grow`, () => Promise.resolve(growth(member))),
      );
    }
    return findings;
  }

  async #waitForEnd(): Promise<void> {
    let limit: ReturnType<typeof setTimeout> | undefined;
    const isStuck = new Promise<true>((resolve) => {
      limit = setTimeout(() => resolve(true), END_LIMIT_MS);
    });
    const all = Promise.all([...this.#members].map(({ child }) => child.whenEnded));
    if (await Promise.race([all, isStuck]) === true) this.#troubles.push(this.#diagnosis());
    clearTimeout(limit);
  }

  #diagnosis(): string {
    const stuck = [...this.#members].map(({ runtime, life, child }) =>
      `${runtime} life ${life}, process ${child.pid}`
    );
    const lines = [`stuck for ${END_LIMIT_MS / 1000} s: ${stuck.join("; ")}`];
    try {
      for (const wait of this.#registry.waits()) lines.push(JSON.stringify(wait));
      for (const backend of this.#registry.backends()) lines.push(JSON.stringify(backend));
    } catch (error) {
      lines.push(`and the registry does not say why: ${error}`);
    }
    return lines.join("\n");
  }

  async #checkNothingLeft(): Promise<string> {
    const registry = this.#registry;
    const left: unknown[] = [...registry.waits()];
    for (const backend of registry.backends()) {
      if (!backend.self || backend.held.length > 0) left.push(backend);
    }
    const { held, pending } = await registry.locks.query();
    left.push(...held, ...pending);
    for (let lock = 0; lock < LOCKS; lock++) {
      const lwlock = lockOf(this.#field, lock);
      if (!lwlock.tryAcquire()) left.push(`lock ${lock} is held`);
      // Every member has gone through every lock at the end.
      else if (lwlock.abandoned) left.push(`lock ${lock} is abandoned`);
    }
    registry.releaseAll();
    const words = new Int32Array(this.#field.buffer);
    for (const [at, count] of [[FENCES, LOCKS], [WEB_FENCES, WEB_LOCKS]] as const) {
      for (let i = at; i < at + count; i++) {
        if (words[i] !== 0) left.push(`${words[i]} is inside fence ${i}`);
      }
    }
    let parked = 0;
    for (let word = 0; word < WORDS; word++) parked += this.#field.notify(WORDS_AT + word * 4);
    for (let i = 0; i < SIGNALS; i++) parked += registry.signal(`signal ${i}`).notifyAll();
    if (parked > 0) left.push(`${parked} waits on words`);
    if (left.length > 0) throw new Error(left.map((one) => JSON.stringify(one)).join("\n"));
    return `${LOCKS} locks, ${WORDS} words, ${SIGNALS} signals, no locks by name`;
  }

  #checkDirectory(): Promise<string> {
    const half = this.#directory.slice(this.#directory.length / 2);
    const most = Math.max(...this.#directory.map(({ files }) => files));
    const last = this.#scene.files().length;
    for (let task = 0; task <= TASKS; task++) this.#registry.dropSegment(briefName(task));
    const names = [...this.#registry.segments()].map(({ name }) => name);
    if (most > FILES_MAX) throw new Error(`there were ${most} files: ${this.#scene.files()}`);
    if (names.join() !== "control,field") throw new Error(`left: ${names}`);
    const bytes = Math.max(...half.map(({ bytes }) => bytes));
    this.#registry.close();
    Registry.destroy("soak", { dir: this.#scene.dir });
    const rest = this.#scene.files();
    if (rest.length > 0) throw new Error(`left behind: ${rest}`);
    return Promise.resolve(
      `at most ${most} files, ${(bytes / 2 ** 20).toFixed(1)} MiB; ${last} at the end, ` +
        "none after destroying",
    );
  }
}

async function finding(what: string, check: () => Promise<string>): Promise<Finding> {
  try {
    return { what, trouble: undefined, details: await check() };
  } catch (error) {
    return { what, trouble: error instanceof Error ? error.message : String(error), details: "" };
  }
}

function linesOf({ child }: Member): Line[] {
  return child.printed.split("\n").filter((line) => line.startsWith("{") && line.endsWith("}"))
    .map((line) => JSON.parse(line) as Line);
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

/** Compares what a member uses in the second half of its life to the first one. */
function growth(member: Member): Promise<string> {
  const samples = linesOf(member).flatMap(({ sample }) => sample === undefined ? [] : [sample]);
  const warm = samples.slice(Math.ceil(samples.length * WARM_UP));
  const middle = Math.floor(warm.length / 2);
  const halves = [warm.slice(0, middle), warm.slice(middle)];
  const of = (name: keyof Sample) => halves.map((half) => median(half.map((one) => one[name])));
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  const lines: string[] = [];
  const troubles: string[] = [];
  for (const name of ["rss", "own", "heap", "descriptors", "threads"] as const) {
    const [first = NaN, second = NaN] = of(name);
    const isCount = name === "descriptors" || name === "threads";
    const show = isCount ? String : mib;
    lines.push(`${name} ${show(first)} -> ${show(second)}`);
    // Also where there are no samples.
    if (name !== "rss" && !(second <= first + GROWTH[name])) {
      troubles.push(`${name} grew from ${show(first)} to ${show(second)}`);
    }
  }
  if (troubles.length > 0) throw new Error(`${troubles.join("; ")} (${lines.join(", ")})`);
  const course = samples.filter((_, i) => i % Math.ceil(samples.length / 10) === 0);
  const own = course.map(({ own }) => (own / 2 ** 20).toFixed(0)).join(" ");
  return Promise.resolve(`${samples.length} samples: ${lines.join(", ")}; own in MiB: ${own}`);
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
