/**
 * A suite that runs in a Worker of this process.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { inspect } from "node:util";
import { Worker } from "node:worker_threads";
import type { Order, Reply } from "./_in_worker.ts";

/** Not a measurement: what takes this long is stuck. Less than the runner's own limit. */
const PATIENCE_MS = 240_000;

interface Running {
  worker: Worker;
  /** Resolves with the exit code. */
  exit: Promise<number>;
}

/** Whoever waits for a reply. */
interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

export class SuiteWorker {
  readonly #file: string;
  /** Of all tests of the file, as the main thread sees them. */
  readonly #names: readonly string[];
  #running: Running | undefined;
  #waiting: Waiting | undefined;
  /** What went wrong while nobody waited for a reply. */
  #trouble: Error | undefined;
  readonly #ran: string[] = [];

  constructor(file: string, names: readonly string[]) {
    this.#file = file;
    this.#names = names;
  }

  /** Which tests have run, in order, whatever came of them. */
  get ran(): readonly string[] {
    return this.#ran;
  }

  /** Runs a test in the Worker; the first one starts it. Rejects with what the test threw. */
  async run(name: string): Promise<void> {
    const { worker } = this.#running ?? await this.#start();
    const { ran } = await this.#order(worker, `"${name}"`, { run: name });
    assertEquals(ran, name);
    this.#ran.push(name);
  }

  /** Ends the suite. The Worker must then end by itself: nothing is left that keeps it alive. */
  async end(): Promise<void> {
    const running = this.#running;
    assert(running !== undefined, `No Worker runs ${this.#file}.`);
    const { ended } = await this.#order(running.worker, "the end", { end: true });
    assertEquals(ended, true);
    this.#running = undefined;
    let isStuck = false;
    const limit = setTimeout(() => {
      isStuck = true;
      void running.worker.terminate();
    }, PATIENCE_MS);
    const code = await running.exit;
    clearTimeout(limit);
    assertEquals([code, isStuck], [0, false], `${this.#file}: something kept the Worker alive.`);
  }

  /** Ends the Worker if it is still there: the run was broken off. */
  async terminate(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    await running?.worker.terminate();
  }

  async #start(): Promise<Running> {
    const { declared } = await this.#reply("the names of its tests", () => {
      const worker = new Worker(new URL("./_in_worker.ts", import.meta.url), {
        workerData: { suite: `./${this.#file}` },
      });
      const exit = new Promise<number>((resolve) => worker.on("exit", resolve));
      const running: Running = this.#running = { worker, exit };
      // What it says after it has been given up is nobody's.
      const take = (what: Reply | Error): void => {
        if (this.#running === running) this.#take(what);
      };
      const failed = (error: Error): void => {
        take(error);
        // The next test starts another one.
        if (this.#running === running) this.#running = undefined;
      };
      worker.on("message", take);
      // Nobody has caught it, so it ends the Worker.
      worker.on("error", (thrown: unknown) => failed(errorOf(thrown)));
      void exit.then((code) => {
        failed(new Error(`${this.#file}: the Worker has ended, with exit code ${code}.`));
      });
    });
    // Neither fewer than on the main thread, nor others.
    assertEquals(declared, this.#names);
    assert(this.#running !== undefined);
    return this.#running;
  }

  #take(what: Reply | Error): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (!(what instanceof Error)) waiting?.resolve(what);
    else if (waiting === undefined) this.#trouble ??= what;
    else waiting.reject(what);
  }

  async #order(worker: Worker, what: string, order: Order): Promise<Reply> {
    const reply = await this.#reply(what, () => worker.postMessage(order));
    if (reply.failed === undefined) return reply;
    if (reply.ran !== undefined) this.#ran.push(reply.ran);
    throw new Error(`${this.#file} in a Worker: ${what}:\n${reply.failed}`);
  }

  async #reply(what: string, ask: () => void): Promise<Reply> {
    assertEquals(
      this.#waiting,
      undefined,
      `${this.#file}: what came before ${what} has not ended.`,
    );
    const trouble = this.#trouble;
    this.#trouble = undefined;
    if (trouble !== undefined) {
      throw new Error(`${this.#file}: before ${what}, while no test ran`, { cause: trouble });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiting = { resolve, reject };
    const limit = setTimeout(() => {
      this.#take(new Error(`${this.#file}: ${what}: not within ${PATIENCE_MS / 1000} s.`));
      void this.terminate();
    }, PATIENCE_MS);
    try {
      ask();
      return await promise;
    } finally {
      clearTimeout(limit);
    }
  }
}

function errorOf(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(`The Worker threw ${inspect(thrown)}.`);
}
