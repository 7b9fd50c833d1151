/**
 * One round of a storm: Deno, Bun and C processes use eight locks in three segments at random,
 * while a killer kills some and stops others for a while; then the history is checked. See
 * `_storm_history.ts` for what it shows.
 *
 * @module
 */

import { join } from "node:path";
import { Registry } from "../lib/mod.ts";
import { randomFrom } from "./_random.ts";
import { Scene } from "./_scene.ts";
import { Child, commandLine, root, type RuntimeName } from "./_spawn.ts";
import { checkHistory, type Final, type Life, type Tally } from "./_storm_history.ts";
import {
  ARENA_BYTES,
  arenaOf,
  ARENAS,
  byteOffsetOf,
  cellOf,
  COMMIT,
  CONTROL_WORDS,
  DEADLINE,
  FIRST,
  INSIDE,
  isIntact,
  lockOf,
  LOCKS,
  LOCKS_OF_ARENA,
  readBook,
  SECOND,
  STOP,
} from "./_storm_layout.ts";

export interface StormOptions {
  seed: number;
  /** How long members come and go. The end comes on top. */
  seconds: number;
  /** How many at a time. Default: 7. */
  members?: number;
}

export interface Storm extends Tally {
  /** Acquisitions that had to wait. */
  contended: number;
  kills: number;
  stops: number;
  lives: number;
  /** In which languages somebody finished an exclusive section. */
  languages: string[];
}

/** Not a measurement: who has not ended by then is stuck. */
const END_LIMIT_MS = 60_000;

/** Waited between two deeds of the killer, and how long somebody is stopped, at most. */
const PAUSE_MS = 40;
const STOP_MS = 60;

type Language = RuntimeName | "c";
/** C starts soonest, so there are most of it, and of their deaths. */
const LANGUAGES: readonly Language[] = ["c", "c", "deno", "bun"];

interface Member {
  child: Child;
  life: Life;
  language: Language;
  /** One of each language lives to the end, so that each has been at it. */
  isLasting: boolean;
  isReady: boolean;
  /** Resolves when it is, or has ended before. */
  ready: Promise<void>;
  isStopped: boolean;
  hasEnded: boolean;
}

class Round {
  readonly #scene: Scene;
  readonly #options: StormOptions;
  readonly #random: () => number;
  readonly #registry: Registry;
  readonly #control: Uint32Array;
  readonly #members = new Set<Member>();
  readonly #all: Member[] = [];
  readonly #troubles: string[] = [];
  #starts = 0;
  #kills = 0;
  #stops = 0;

  constructor(scene: Scene, options: StormOptions) {
    this.#scene = scene;
    this.#options = options;
    this.#random = randomFrom(options.seed);
    this.#registry = scene.open({ mode: "create", maxSegments: 16_384 }, "storm");
    scene.atEnd(() => Registry.destroy("storm", { dir: scene.dir }));
    const control = this.#registry.getNamedSegmentSync("control", CONTROL_WORDS * 4);
    this.#control = new Uint32Array(control.buffer);
    // Should we be killed ourselves, the members end all the same.
    this.#control[DEADLINE] = Math.ceil(
      Date.now() / 1000 + options.seconds + 2 * END_LIMIT_MS / 1000,
    );
    for (const arena of ARENAS) {
      this.#registry.getNamedSegmentSync(arena, ARENA_BYTES, (segment) => {
        const tranche = this.#registry.newTranche(`storm ${arena}`);
        for (let lock = ARENAS.indexOf(arena) * LOCKS_OF_ARENA; lock < LOCKS; lock++) {
          const byteOffset = byteOffsetOf(lock);
          if (ARENAS[arenaOf(lock)] !== arena) break;
          if (byteOffset !== undefined) segment.initLock(byteOffset, tranche);
        }
      });
    }
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<Item>(items: readonly Item[]): Item | undefined {
    return items[this.#below(items.length)];
  }

  #start(): void {
    const id = ++this.#starts;
    // Of each at least one at the beginning.
    const isLasting = id < LANGUAGES.length;
    const language = LANGUAGES[id] ?? this.#pick(LANGUAGES) ?? "c";
    const program = language === "c"
      ? [join(root, "zig-out", "bin", "storm_member")]
      : commandLine(language, "_storm_member.ts");
    const args = [this.#scene.dir, String(id), String(this.#below(2 ** 31))];
    const child = this.#scene.adopt(new Child([...program, ...args]));
    const life: Life = { id, wasKilled: false, book: [] };
    const member: Member = {
      child,
      life,
      language,
      isLasting,
      isReady: false,
      ready: child.next().then(() => void (member.isReady = true), () => {}),
      isStopped: false,
      hasEnded: false,
    };
    this.#all.push(member);
    this.#members.add(member);
    child.whenEnded.then((how) => {
      member.hasEnded = true;
      this.#members.delete(member);
      const expected = life.wasKilled ? ["SIGKILL"] : ["exit code 0"];
      const isOver = this.#control[STOP] === 1;
      // It may have found a fault, or ended, just before the kill.
      if (life.wasKilled && how === "exit code 0" && isOver) return;
      if (!expected.includes(how) || (!life.wasKilled && !isOver)) {
        this.#troubles.push(`${language} life ${life.id} ended with ${how}: ${child.printed}`);
      }
    });
  }

  /** One deed. */
  #strike(): void {
    const all = [...this.#members].filter(({ life }) => !life.wasKilled);
    // Seldom one that has not come in yet: starting takes long, and is tested elsewhere.
    const victims = all.filter(({ isReady }) => isReady || this.#below(50) === 0);
    const victim = this.#pick(victims);
    if (victim === undefined) return;
    const deed = this.#below(8);
    if (deed < 4 && !victim.isLasting) {
      this.#kills++;
      victim.life.wasKilled = true;
      this.#signal(victim, "SIGKILL");
      this.#start();
    } else if (deed < 7 && !victim.isStopped) {
      this.#stops++;
      victim.isStopped = true;
      this.#signal(victim, "SIGSTOP");
      setTimeout(() => this.#continue(victim), this.#random() * STOP_MS);
    }
  }

  #continue(member: Member): void {
    if (!member.isStopped || member.life.wasKilled || member.hasEnded) return;
    member.isStopped = false;
    this.#signal(member, "SIGCONT");
  }

  #signal({ child }: Member, signal: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void {
    try {
      child.kill(signal);
    } catch {
      // It has ended, by itself or by an earlier kill, and the event is still to come.
    }
  }

  async run(): Promise<Storm> {
    const { seconds, members = 7, seed } = this.#options;
    for (let i = 0; i < members; i++) this.#start();
    // However long they take to start.
    await Promise.all(this.#all.filter(({ isLasting }) => isLasting).map(({ ready }) => ready));
    const end = performance.now() + seconds * 1000;
    // No call of the registry from here until nobody is stopped any more: one that is stopped
    // while it has the tables would have us wait for ourselves.
    while (performance.now() < end && this.#troubles.length === 0) {
      await pause(this.#random() ** 2 * PAUSE_MS);
      this.#strike();
    }
    for (const member of this.#members) this.#continue(member);
    Atomics.store(this.#control, STOP, 1);
    await this.#waitForEnd();
    if (this.#troubles.length > 0) throw new Error(`seed ${seed}: ${this.#troubles.join("\n")}`);
    const storm = this.#check();
    if (storm.faults.length > 0) throw new Error(`seed ${seed}: ${storm.faults.join("\n")}`);
    return storm;
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
    const stuck = [...this.#members].map(({ language, life, child }) =>
      `${language} life ${life.id}, process ${child.pid}`
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

  #check(): Storm {
    const registry = this.#registry;
    const strangers = [...registry.backends()].filter(({ self }) => !self);
    if (strangers.length > 0) throw new Error(`still there: ${JSON.stringify(strangers)}`);
    const finals: Final[] = [];
    const faults: string[] = [];
    for (let lock = 0; lock < LOCKS; lock++) {
      const arena = registry.getNamedSegmentSync(ARENAS[arenaOf(lock)] ?? "");
      const lwlock = lockOf(arena, lock);
      if (!lwlock.tryAcquire("exclusive")) {
        faults.push(`lock ${lock} is held, and everybody has gone`);
      }
      const cell = cellOf(arena, lock);
      const { [FIRST]: first = 0, [SECOND]: second = 0, [INSIDE]: inside = 0 } = cell;
      const isAbandoned = lwlock.abandoned;
      finals.push({ first, second, isIntact: isIntact(cell), isAbandoned });
      if (!isAbandoned && inside !== 0) faults.push(`lock ${lock}: life ${inside} is inside`);
      registry.releaseAll();
    }
    const languages = new Set<Language>();
    for (const { life, language } of this.#all) {
      life.book = readBook(registry, life.id);
      if (life.book.some(({ kind }) => kind === COMMIT)) languages.add(language);
    }
    const lives = this.#all.map(({ life }) => life);
    const tally = checkHistory(lives, finals);
    tally.faults.push(...faults);
    const contended = [...registry.tranches()].reduce((sum, tranche) => sum + tranche.contended, 0);
    return {
      ...tally,
      contended,
      kills: this.#kills,
      stops: this.#stops,
      lives: lives.length,
      languages: [...languages].sort(),
    };
  }
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Runs one round. Throws what went wrong, with the seed. */
export async function runStorm(scene: Scene, options: StormOptions): Promise<Storm> {
  return await new Round(scene, options).run();
}

export function summary(storm: Storm): string {
  const { commits, reads, contended, repairs, cutOff, kept, undone, kills, stops, lives } = storm;
  return `${lives} lives, ${kills} killed, ${stops} stops; ${commits} exclusive and ${reads} ` +
    `shared sections, ${contended} contended; ${cutOff} cut off (${kept} written, ${undone} not), ${repairs} repairs`;
}
