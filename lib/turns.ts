/**
 * Async iterators that end when they are told to, and not when what they wait for has come: a
 * generator would queue its `return()` behind the `next()` that is pending, perhaps for ever.
 *
 * @module
 */

/** What a pending turn is rejected with, and nobody sees. */
const ENDED = Symbol("ended");

const over = { value: undefined, done: true } as const;

/** Takes turns: one after the other, however many are asked for at once. */
export class Turns<Item> implements AsyncIterableIterator<Item> {
  readonly #take: (signal: AbortSignal) => Promise<Item>;
  readonly #end = new AbortController();
  readonly #signal: AbortSignal;
  /** Turns that were asked for and are not over, and when the last of them is. */
  #unfinished = 0;
  #last: Promise<unknown> = Promise.resolve();
  #isOver = false;

  /**
   * @param take Waits for the next item. When its signal is aborted it rejects with the reason, at
   * once, unless the item has come already.
   */
  constructor(
    take: (signal: AbortSignal) => Promise<Item>,
    { signal }: { signal?: AbortSignal } = {},
  ) {
    this.#take = take;
    this.#signal = signal === undefined
      ? this.#end.signal
      : AbortSignal.any([signal, this.#end.signal]);
  }

  next(): Promise<IteratorResult<Item, undefined>> {
    // The first begins now: what comes from here on is for it.
    const turn = this.#unfinished++ === 0 ? this.#turn() : this.#last.then(() => this.#turn());
    // Whoever has asked hears of a failure.
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #turn(): Promise<IteratorResult<Item, undefined>> {
    try {
      if (this.#isOver) return over;
      return { value: await this.#take(this.#signal), done: false };
    } catch (error) {
      this.#isOver = true;
      if (error === ENDED) return over;
      throw error;
    } finally {
      this.#unfinished--;
    }
  }

  /**
   * Ends the iteration. A turn that is pending is over at once: as the last one, or with an item
   * that has come already, so that nothing is lost that was given to it.
   */
  return(): Promise<IteratorResult<Item, undefined>> {
    this.#isOver = true;
    this.#end.abort(ENDED);
    return Promise.resolve(over);
  }

  throw(cause?: unknown): Promise<IteratorResult<Item, undefined>> {
    void this.return();
    return Promise.reject(cause);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
