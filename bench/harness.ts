/**
 * How everything here is measured: subjects take turns, round by round (A B C A B C ...), so that
 * a slow moment of the machine meets all of them; a ratio is that of two subjects of the same
 * round, and its spread over the rounds says whether it can be believed. The C programs do the
 * same (bench.h) and answer with the same lines.
 *
 * @module
 */

/** Milliseconds, from any beginning. */
export type Clock = () => number;

/** Something that is repeated `count` times in a round. */
export interface Subject {
  name: string;
  count: number;
  run: (count: number) => void | Promise<void>;
  /** Undoes it, outside of what is timed. */
  after?: () => void;
}

/** Whatever answers a line with a line: a child process, or a test's stand-in. */
export interface Asked {
  ask(line: string): Promise<string>;
}

/**
 * A ratio is shown only if the middle half of the rounds lies within so much of it. Half of this,
 * to either side, is more than what decides about any target here.
 */
export const WIDEST_SPREAD = 0.25;

/** With fewer, the spread says nothing. */
export const FEWEST_ROUNDS = 3;

/** What was measured of one subject. */
export interface Summary {
  unit: string;
  count: number;
  min: number;
  median: number;
  p99: number;
  max: number;
}

/** How one subject compares with another in the same rounds. */
export interface Ratio {
  value: number;
  /** What the middle half of the rounds spans, as a part of `value`. */
  spread: number;
  /** Nine of ten rounds are at or above this. */
  low: number;
  /** Nine of ten rounds are at or below this. */
  high: number;
  rounds: number;
  isTrusted: boolean;
}

/** The value that `share` of all are below; NaN if there are none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** What was measured, by name: in each round one number, or several. */
export class Samples {
  readonly unit: string;
  readonly #rounds = new Map<string, number[][]>();

  constructor(unit: string) {
    this.unit = unit;
  }

  /** Adds a round. */
  add(name: string, ...values: number[]): void {
    if (values.length === 0 || values.some((value) => !Number.isFinite(value))) {
      throw new Error(`${name}: ${values.length === 0 ? "nothing" : values} was measured`);
    }
    const rounds = this.#rounds.get(name) ?? [];
    rounds.push(values);
    this.#rounds.set(name, rounds);
  }

  /** Adds a round of "name value name value ..."; `prefix` goes before each name. */
  addLine(prefix: string, line: string): void {
    const words = line.trim().split(/\s+/);
    for (let i = 0; i + 1 < words.length; i += 2) {
      this.add(`${prefix}${words[i]}`, Number(words[i + 1]));
    }
  }

  get names(): string[] {
    return [...this.#rounds.keys()];
  }

  has(name: string): boolean {
    return this.#rounds.has(name);
  }

  /** All values of all rounds. */
  values(name: string): number[] {
    return this.#rounds.get(name)?.flat() ?? [];
  }

  quantile(name: string, share: number): number {
    return quantile(this.values(name), share);
  }

  median(name: string): number {
    return this.quantile(name, 0.5);
  }

  min(name: string): number {
    return this.quantile(name, 0);
  }

  max(name: string): number {
    return this.quantile(name, 1);
  }

  summary(name: string): Summary | undefined {
    const values = this.values(name);
    if (values.length === 0) return undefined;
    const [min = NaN, median = NaN, p99 = NaN, max = NaN] = [0, 0.5, 0.99, 1].map((share) =>
      quantile(values, share)
    );
    return { unit: this.unit, count: values.length, min, median, p99, max };
  }

  /** All summaries, by name. */
  summaries(prefix = ""): Record<string, Summary> {
    return Object.fromEntries(
      this.names.map((name) => [`${prefix}${name}`, this.summary(name) as Summary]),
    );
  }

  /** `name` to `floor`, by the medians of each round; undefined if either was not measured. */
  ratio(name: string, floor: string): Ratio | undefined {
    const [tops = [], bottoms = []] = [name, floor].map((each) => this.#rounds.get(each));
    if (tops.length === 0 || bottoms.length === 0) return undefined;
    if (tops.length !== bottoms.length) {
      throw new Error(`${name} has ${tops.length} rounds, ${floor} has ${bottoms.length}`);
    }
    const ratios = tops.map((top, i) => quantile(top, 0.5) / quantile(bottoms[i] ?? [], 0.5));
    const value = quantile(ratios, 0.5);
    const spread = (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / value;
    const isTrusted = ratios.length >= FEWEST_ROUNDS && spread <= WIDEST_SPREAD;
    const [low, high] = [quantile(ratios, 0.1), quantile(ratios, 0.9)];
    return { value, spread, low, high, rounds: ratios.length, isTrusted };
  }
}

/** A ratio, or why there is none: "1.62x", "? (+-31 %)". */
export function ratioText(ratio: Ratio | undefined): string {
  if (ratio === undefined) return "";
  if (ratio.isTrusted) return `${ratio.value.toFixed(2)}x`;
  if (ratio.rounds < FEWEST_ROUNDS) {
    return `? (${ratio.rounds} round${ratio.rounds === 1 ? "" : "s"})`;
  }
  return `? (+-${(ratio.spread * 50).toFixed(0)} %)`;
}

/** One round of subjects in this process: the line "name ns name ns ...". */
export async function turn(
  subjects: readonly Subject[],
  clock: Clock = () => performance.now(),
): Promise<string> {
  const answer: string[] = [];
  for (const { name, count, run, after } of subjects) {
    const started = clock();
    // Not an await where there is nothing to wait for: that would be a turn of the loop.
    const running = run(count);
    if (running !== undefined) await running;
    answer.push(`${name} ${((clock() - started) * 1e6 / count).toFixed(3)}`);
    after?.();
  }
  return answer.join(" ");
}

/**
 * Rounds in which all partners take turns; `warmUp` more before, which are thrown away: until the
 * runtimes' compilers are done and the caches are warm.
 */
export async function interleave(
  partners: readonly { prefix: string; partner: Asked; question: string }[],
  options: { rounds: number; warmUp: number },
  samples: Samples,
): Promise<void> {
  for (let round = -options.warmUp; round < options.rounds; round++) {
    for (const { prefix, partner, question } of partners) {
      const line = await partner.ask(question);
      if (round >= 0) samples.addLine(prefix, line);
    }
  }
}
