/**
 * What a child process or a Worker does for a test: it takes commands and reports.
 *
 * The same code runs in both runtimes, in processes (`_child.ts`) and in Workers (`_worker.ts`).
 *
 * @module
 */

import { type BackendInfo, DsmrError, type OpenOptions, Registry } from "../lib/mod.ts";
import type {
  Lifetime,
  LockMode,
  LWLock,
  Scope,
  Segment,
  SegmentInfo,
  WaitInfo,
} from "../lib/mod.ts";

/** What an init callback does, step by step. */
export type InitStep =
  /** Sets every byte. */
  | { fill: number }
  /** Bytes that follow from the number; see {@linkcode patternByte}. */
  | { pattern: number }
  /** Adds one to the first word of another segment, which must be there. */
  | { bump: string }
  /** Reports this, and goes on. */
  | { say: string }
  /** Reports `{ holding: true }` and blocks until it is told to go on. */
  | { hold: true }
  /** Writes bytes for so many milliseconds. */
  | { spin: number }
  /** Runs a command and reports its reply. */
  | { run: Command }
  | { throw: string };

export interface GetCommand {
  do: "get";
  segment: string;
  size?: number;
  init?: readonly InitStep[];
  lifetime?: Lifetime;
  timeout?: number;
  scope?: Scope;
}

/** What is done with a lock of an attached segment. */
export interface LockCommand {
  do: "acquire" | "try" | "orWait" | "watch" | "update" | "release" | "mark" | "state";
  segment: string;
  /** The lock at this place. Default: the one that the segment carries. */
  at?: number;
  mode?: LockMode;
  timeout?: number;
  /** Of the variable at byte 0: watch: what is expected there; update: what to put there. */
  value?: number;
}

export type Command =
  | { do: "open"; name?: string; options: OpenOptions }
  | GetCommand
  | LockCommand
  | { do: "lookup" | "drop"; segment: string; scope?: Scope }
  | { do: "detach"; segment: string }
  | { do: "dropDatabase"; database: string }
  /** Adds to a word of an attached segment, atomically; reports what is there then. */
  | { do: "add"; segment: string; index: number; value: number }
  /** Takes the buffer away from the segment, as sending it to another Worker does. */
  | { do: "transfer"; segment: string }
  /** Reports the hash of all bytes of the buffer that was taken away last. */
  | { do: "peek" }
  /** Sends the buffer away for good: out of a Worker. */
  | { do: "give"; segment: string }
  | { do: "segments" | "backends" | "waits" | "releaseAll" | "close" | "destroy" };

/** A reply, or a report on the way. Only what the command has to say is there. */
export interface Report {
  ok?: boolean;
  /** Of a failure. */
  error?: string;
  code?: string;
  message?: string;
  cause?: string;
  actual?: number;
  requested?: number;
  /** open */
  backendId?: number;
  pid?: number;
  /** get, lookup */
  found?: boolean;
  size?: number;
  hash?: number;
  /** get: whether our init callback ran, and found nothing but zeros. */
  initialised?: boolean;
  wasZero?: boolean;
  /** get, lookup, add: the first, or the named word; drop: 0 or 1 */
  value?: number;
  segments?: SegmentInfo[];
  backends?: BackendInfo[];
  waits?: WaitInfo[];
  /** try, orWait, state: whether the lock is held now. */
  held?: boolean;
  /** acquire, try, orWait, state */
  abandoned?: boolean;
  /** watch: whether nobody has the lock exclusively any more. */
  released?: boolean;
  /** from inside an init callback */
  said?: string;
  holding?: boolean;
  nested?: Report;
  /** What the buffers that Workers gave away hash to. */
  hashes?: number[];
}

/** Where the agent lives. */
export interface Host {
  report(report: Report): void;
  /** Blocks until the test says so. */
  waitForGo(): void;
  /** Reports the buffer itself. A process cannot. */
  give?(buffer: ArrayBuffer): void;
}

/** Not the same twice in a row, and different for every seed. */
export function patternByte(seed: number, index: number): number {
  return (Math.imul(seed + 1, 2654435761) + Math.imul(index, 40503)) >>> 11 & 0xff;
}

/** FNV-1a: tells whether two saw the same bytes. */
export function hashOf(bytes: Uint8Array): number {
  let hash = 2166136261;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 16777619);
  return hash >>> 0;
}

function wordOf(segment: Segment): number {
  const { buffer } = segment;
  return buffer.byteLength < 4
    ? new Uint8Array(buffer)[0] ?? 0
    : Atomics.load(new Int32Array(buffer, 0, 1), 0);
}

export class Agent {
  readonly #host: Host;
  #registry: Registry | undefined;
  readonly #segments = new Map<string, Segment>();
  #transferred = new ArrayBuffer(0);

  constructor(host: Host) {
    this.#host = host;
  }

  /** Never throws. */
  run(command: Command): Report {
    try {
      return { ok: true, ...this.#run(command) };
    } catch (error) {
      return failure(error);
    }
  }

  get #open(): Registry {
    if (this.#registry === undefined) throw new Error("This agent has no registry.");
    return this.#registry;
  }

  #run(command: Command): Report {
    switch (command.do) {
      case "open":
        this.#registry = Registry.openSync(command.name ?? "test", command.options);
        return { backendId: this.#registry.backendId };
      case "get":
        return this.#get(command);
      case "lookup": {
        const segment = this.#open.lookupSegment(command.segment, command);
        return segment === null ? { found: false } : this.#keep(segment);
      }
      case "drop":
        return { value: Number(this.#open.dropSegment(command.segment, command)) };
      case "dropDatabase":
        return { value: Number(this.#open.dropDatabase(command.database)) };
      case "detach":
        this.#attached(command.segment).detach();
        this.#segments.delete(command.segment);
        return {};
      case "add": {
        const words = new Int32Array(this.#attached(command.segment).buffer);
        return { value: Atomics.add(words, command.index, command.value) + command.value };
      }
      case "transfer":
        this.#transferred = this.#attached(command.segment).buffer.transfer();
        return {};
      case "peek":
        return { hash: hashOf(new Uint8Array(this.#transferred)) };
      case "give":
        this.#host.give?.(this.#attached(command.segment).buffer);
        return {};
      case "acquire":
      case "try":
      case "orWait":
      case "watch":
      case "update":
      case "release":
      case "mark":
      case "state":
        return this.#lock(command);
      case "releaseAll":
        return { value: this.#open.releaseAll() };
      case "waits":
        return { waits: [...this.#open.waits()] };
      case "segments":
        return { segments: [...this.#open.segments()] };
      case "backends":
        return { backends: [...this.#open.backends()] };
      case "close":
        this.#registry?.close();
        return {};
      case "destroy":
        return { value: Number(Registry.destroy(this.#open.name, { dir: this.#open.dir })) };
    }
  }

  #attached(name: string): Segment {
    const segment = this.#segments.get(name);
    if (segment === undefined) throw new Error(`This agent has no segment "${name}".`);
    return segment;
  }

  #lock({ do: what, segment, at, mode, value = 0, ...options }: LockCommand): Report {
    const attached = this.#attached(segment);
    const lock: LWLock = at === undefined ? attached.lock : attached.lockAt(at);
    const wait = options.timeout === undefined ? {} : { timeout: options.timeout };
    switch (what) {
      case "acquire":
        lock.acquireSync(mode, wait);
        return { abandoned: lock.abandoned };
      case "try":
        return { held: lock.tryAcquire(mode), abandoned: lock.abandoned };
      case "orWait":
        return { held: lock.acquireOrWaitSync(wait), abandoned: lock.abandoned };
      case "watch": {
        const state = lock.waitForVarSync(0, BigInt(value), wait);
        return { released: state.released, value: Number(state.value) };
      }
      case "update":
        lock.updateVar(0, BigInt(value));
        return {};
      case "release":
        lock.release();
        return {};
      case "mark":
        lock.markConsistent();
        return {};
      case "state":
        return { held: lock.heldByMe(mode), abandoned: lock.abandoned };
    }
  }

  #keep(segment: Segment): Report {
    this.#segments.set(segment.name, segment);
    const { found, size } = segment;
    return { found, size, value: wordOf(segment), hash: hashOf(new Uint8Array(segment.buffer)) };
  }

  #get(command: GetCommand): Report {
    let initialised = false;
    let wasZero = false;
    const init = (segment: Segment): void => {
      initialised = true;
      wasZero = new Uint8Array(segment.buffer).every((byte) => byte === 0);
      for (const step of command.init ?? []) this.#step(step, segment);
    };
    const segment = this.#open.getNamedSegmentSync(command.segment, command.size, init, {
      ...(command.lifetime === undefined ? {} : { lifetime: command.lifetime }),
      ...(command.timeout === undefined ? {} : { timeout: command.timeout }),
      ...(command.scope === undefined ? {} : { scope: command.scope }),
    });
    return { ...this.#keep(segment), initialised, wasZero };
  }

  #step(step: InitStep, segment: Segment): void {
    const bytes = new Uint8Array(segment.buffer);
    if ("fill" in step) {
      bytes.fill(step.fill);
    } else if ("pattern" in step) {
      for (let i = 0; i < bytes.length; i++) bytes[i] = patternByte(step.pattern, i);
    } else if ("bump" in step) {
      const words = new Int32Array(this.#open.getNamedSegmentSync(step.bump).buffer);
      Atomics.add(words, 0, 1);
    } else if ("say" in step) {
      this.#host.report({ said: step.say });
    } else if ("hold" in step) {
      this.#host.report({ holding: true });
      this.#host.waitForGo();
    } else if ("spin" in step) {
      const end = performance.now() + step.spin;
      for (let i = 0; performance.now() < end; i = (i + 1) % bytes.length) bytes[i] = 0xff;
    } else if ("run" in step) {
      this.#host.report({ nested: this.run(step.run) });
    } else {
      throw new Error(step.throw);
    }
  }
}

function failure(error: unknown): Report {
  if (!(error instanceof Error)) return { ok: false, error: String(error) };
  const report: Report = { ok: false, error: error.name, message: error.message };
  if (error.cause instanceof Error) report.cause = error.cause.message;
  if (error instanceof DsmrError) {
    report.code = error.code;
    if (error.actual !== undefined) report.actual = error.actual;
    if (error.requested !== undefined) report.requested = error.requested;
  }
  return report;
}
