/**
 * `dsmr top`: a registry's locks, live.
 *
 * @module
 */

import { DsmrError } from "../lib/mod.ts";
import {
  attach,
  type Command,
  type Context,
  databaseOption,
  FOUND,
  type Invocation,
  numberOf,
  OK,
  textOf,
  UsageError,
} from "./command.ts";
import { type Sample, Sampler } from "./sample.ts";
import { json, printable } from "./text.ts";
import { isOrder, type Order, picture, plain } from "./top_view.ts";

const ENTER_SCREEN = "\u001b[?1049h\u001b[?25l";
const LEAVE_SCREEN = "\u001b[?25h\u001b[?1049l";
const HOME = "\u001b[H";
const CLEAR_LINE = "\u001b[K";
const CLEAR_BELOW = "\u001b[J";

const CTRL_C = "\u0003";

/** What the person at the keyboard wants, and when to look again. */
class Steering {
  order: Order;
  isOver = false;
  #wake: (() => void) | undefined;

  constructor(order: Order) {
    this.order = order;
  }

  key(key: string): void {
    if (key === "q" || key === "Q" || key === CTRL_C) return this.stop();
    if (isOrder(key)) {
      this.order = key;
      this.#wake?.();
    }
  }

  stop(): void {
    this.isOver = true;
    this.#wake?.();
  }

  /** Resolves after so long, or when a key wants something. Returns whether a key did. */
  pause(milliseconds: number): Promise<boolean> {
    if (this.isOver) return Promise.resolve(true);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#wake = undefined;
        resolve(false);
      }, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve(true);
      };
    });
  }
}

interface Output {
  show(sample: Sample): Promise<void>;
  isLive: boolean;
}

/** Looks until it is over. */
async function watch(
  sampler: Sampler,
  steering: Steering,
  output: Output,
  plan: { interval: number; count: number },
): Promise<void> {
  for (let taken = 0; taken < plan.count && !steering.isOver; taken++) {
    const sample = sampler.take();
    await output.show(sample);
    if (taken + 1 === plan.count) return;
    const next = performance.now() + plan.interval;
    // A key sorts what is on the screen anew; what is there is looked at when it is time.
    for (let left = plan.interval; left > 0 && !steering.isOver; left = next - performance.now()) {
      if (await steering.pause(left) && output.isLive && !steering.isOver) {
        await output.show(sample);
      }
    }
  }
}

async function run(context: Context, invocation: Invocation): Promise<number> {
  const isWhole = false;
  const seconds = numberOf(invocation, "interval", { min: 0.1, max: 3600, isWhole }) ?? 1;
  const max = Number.MAX_SAFE_INTEGER;
  const count = numberOf(invocation, "count", { min: 1, max, isWhole: true }) ?? Infinity;
  const sort = textOf(invocation, "sort") ?? "w";
  if (!isOrder(sort)) {
    throw new UsageError(`--sort is ${JSON.stringify(sort)}; it must be w, t, a or n.`);
  }
  const isJson = invocation.values["json"] === true;
  const isLive = context.isTerminal && !isJson;
  using registry = attach(invocation);
  const steering = new Steering(sort);
  const show = async (sample: Sample): Promise<void> => {
    if (isJson) return await context.write(json(sample));
    if (!isLive) return await context.write(plain(sample, steering.order));
    const lines = picture(context, sample, steering.order, context.size());
    await context.write(
      HOME + lines.map((line) => line + CLEAR_LINE).join("\r\n") + CLEAR_BELOW,
    );
  };
  const forgetStop = context.onStop(() => steering.stop());
  const forgetKeys = isLive ? context.onKey((key) => steering.key(key)) : undefined;
  let isGone = false;
  try {
    if (isLive) await context.write(ENTER_SCREEN);
    await watch(new Sampler(registry), steering, { show, isLive }, {
      interval: seconds * 1000,
      count,
    });
  } catch (error) {
    if (!(error instanceof DsmrError) || error.code !== "CLOSED") throw error;
    isGone = true;
  } finally {
    if (isLive) await context.write(LEAVE_SCREEN);
    forgetKeys?.();
    forgetStop();
  }
  if (isGone) context.complain(`Registry ${printable(registry.name)} was destroyed.`);
  return isGone ? FOUND : OK;
}

/** The command. */
export const top: Command = {
  name: "top",
  summary: "watch a registry's locks live",
  operands: ["REGISTRY"],
  details:
    "Shows, again and again, the locks that are held and waited for, by which processes and since " +
    "when, and the tranches that are waited for most. On a terminal in place: w, t, a and n sort, q " +
    "quits. Elsewhere as lines, and with --json one JSON object in each line.\n\n" +
    "It attaches as a backend of its own, and looks; it takes no lock of the registry's users. " +
    "When the registry is destroyed it says so and ends, with exit code 1.",
  examples: [
    ["dsmr top shop", "until q"],
    ["dsmr top shop --count 2 --json | tail -n 1", "the rates of one second, for programs"],
  ],
  options: {
    interval: {
      type: "string",
      short: "i",
      value: "SECONDS",
      help: "from look to look (default: 1)",
    },
    count: { type: "string", short: "n", value: "N", help: "end after so many looks" },
    sort: {
      type: "string",
      short: "s",
      value: "KEY",
      help: "w, t, a or n, as the keys (default: w)",
    },
    database: databaseOption,
  },
  run,
};
