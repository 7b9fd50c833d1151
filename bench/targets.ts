/**
 * The targets of the design, and what became of them in this run. The order is the design's.
 *
 * @module
 */

import { FEWEST_ROUNDS, type Ratio, ratioText } from "./harness.ts";

/** Where the number comes from that was measured. */
export type Column = "Deno" | "Bun" | "C";

export type Outcome = "met" | "missed" | "undecided" | "not measured";

interface Target {
  what: string;
  limit: number;
  /** The limit in words. */
  limitText: string;
}

/**
 * What is quoted of PostgreSQL's own locks was measured on another machine, where a CAS + swap pair
 * took 10.1 ns; a pair of its LWLock 14.8 ns (1.25 times that is 1.8 of those), and with two
 * backends at it 221 ns in exclusive and 67 ns in shared mode: 21.9 and 6.6 of those. Where it was
 * measured in the same run, that decides instead: see {@linkcode toPeer}.
 */
export const targets = {
  pair: {
    what: "acquire + release, uncontended, exclusive / shared: to CAS + swap in C",
    limit: 1.8,
    limitText: "at most 1.80x",
  },
  pairPeer: {
    what: "the same: to a pair of PostgreSQL's LWLock, measured in this run",
    limit: 1.25,
    limitText: "at most 1.25x",
  },
  stretch: {
    what: "stretch: the same, as PostgreSQL's LWLock in C",
    limit: 1.45,
    limitText: "at most 1.45x, quoted",
  },
  robust: {
    what: "the same from C: to glibc's robust mutex",
    limit: 1,
    limitText: "at most 1.00x",
  },
  contendedExclusive: {
    what: "two processes at one lock, exclusive: to CAS + swap, uncontended",
    limit: 21.9,
    limitText: "at most 21.9x, as PostgreSQL's LWLock, quoted",
  },
  contendedShared: {
    what: "two processes at one lock, shared: to CAS + swap, uncontended",
    limit: 6.6,
    limitText: "at most 6.6x, as PostgreSQL's LWLock, quoted",
  },
  known: {
    what: "getNamedSegment of a known name, with 1,000 segments: to one with 1",
    limit: 1.1,
    limitText: "at most 1.10x",
  },
  attach: {
    what: "first attach: to open + fstat + mmap + close in C",
    limit: 1.5,
    limitText: "at most 1.50x",
  },
  startDeno: {
    what: "import + open + attach, on top of an empty Deno program",
    limit: 10,
    limitText: "at most 10 ms",
  },
  startBun: {
    what: "import + open + attach, on top of an empty Bun program",
    limit: 5,
    limitText: "at most 5 ms",
  },
  deathMedian: {
    what: "kill -9 of a holder to the next owner running, median",
    limit: 1,
    limitText: "at most 1 ms",
  },
  deathWorst: {
    what: "kill -9 of a holder to the next owner running, worst",
    limit: 20,
    limitText: "at most 20 ms",
  },
  library: { what: "the shared library", limit: 65_536, limitText: "at most 65,536 bytes" },
  control: {
    what: "the control region of a registry, by default",
    limit: 1_048_576,
    limitText: "at most 1,048,576 bytes",
  },
  lock: { what: "a lock", limit: 64, limitText: "64 bytes" },
} as const satisfies Record<string, Target>;

export type TargetName = keyof typeof targets;

const toPeerTexts = {
  stretch: "stretch: the same,",
  contendedExclusive: "two processes at one lock, exclusive:",
  contendedShared: "two processes at one lock, shared:",
} as const;

/** What became of a target. */
export interface Verdict {
  target: TargetName;
  what: string;
  limit: string;
  /** What was measured, as text, by column. */
  measured: Partial<Record<Column, string>>;
  /** The same for programs; null where a ratio cannot be trusted. */
  numbers: Partial<Record<Column, (number | null)[]>>;
  outcome: Outcome;
  /** What else was measured that says why; for a target that is missed. */
  reason?: string;
}

export type Measured = Partial<Record<Column, readonly (Ratio | number | undefined)[]>>;

/**
 * The same target where what is quoted of PostgreSQL was measured in the same run, as `peer`: then
 * ours is compared with that, round by round.
 */
export function toPeer(target: keyof typeof toPeerTexts, peer: string | undefined): Target {
  if (peer === undefined) return targets[target];
  return {
    what: `${toPeerTexts[target]} to ${peer} in this run`,
    ...{ limit: 1, limitText: "at most 1.00x" },
  };
}

/**
 * Judges what was measured: ratios, or numbers in the target's unit. A ratio that cannot be trusted
 * is not shown; but it decides if nine of ten rounds are on one side of the limit. `target` may be
 * given in other words, with another limit.
 */
export function judge(
  target: TargetName,
  measured: Measured,
  format: (value: number) => string,
  reason?: string,
  { what, limit, limitText }: Target = targets[target],
): Verdict {
  const values = Object.values(measured).flat();
  const texts = Object.entries(measured).map(([column, list]) => [
    column,
    list.map((value) => textOf(value, limit, format)).join(" / "),
  ]);
  const numbers = Object.entries(measured).map(([column, list]) => [
    column,
    list.map((value) =>
      typeof value === "number" ? value : value?.isTrusted === true ? value.value : null
    ),
  ]);
  const verdict: Verdict = {
    ...{ target, what, limit: limitText },
    ...{ measured: Object.fromEntries(texts), numbers: Object.fromEntries(numbers) },
    outcome: outcomeOf(values, limit),
  };
  return verdict.outcome === "missed" && reason !== undefined ? { ...verdict, reason } : verdict;
}

/** On which side of the limit a ratio is, where that is sure. */
function sideOf(ratio: Ratio, limit: number): "under" | "over" | undefined {
  if (ratio.isTrusted) return ratio.value <= limit ? "under" : "over";
  if (ratio.rounds < FEWEST_ROUNDS) return undefined;
  if (ratio.high <= limit) return "under";
  return ratio.low > limit ? "over" : undefined;
}

function textOf(
  value: Ratio | number | undefined,
  limit: number,
  format: (value: number) => string,
): string {
  if (typeof value === "number") return format(value);
  if (value === undefined || value.isTrusted) return ratioText(value);
  const side = sideOf(value, limit);
  return side === undefined ? ratioText(value) : `${side} ${limit}x`;
}

function outcomeOf(values: readonly (Ratio | number | undefined)[], limit: number): Outcome {
  if (values.length === 0 || values.some((value) => value === undefined)) return "not measured";
  const sides = values.map((value) =>
    typeof value === "object" ? sideOf(value, limit) : Number(value) <= limit ? "under" : "over"
  );
  if (sides.includes("over")) return "missed";
  return sides.includes(undefined) ? "undecided" : "met";
}

/** All targets, also those of which nothing was measured. */
export function allVerdicts(found: readonly Verdict[]): Verdict[] {
  return (Object.keys(targets) as TargetName[]).map((name) =>
    found.find(({ target }) => target === name) ?? judge(name, {}, String)
  );
}
