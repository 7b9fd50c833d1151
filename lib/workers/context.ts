/**
 * What a background worker's function is called with.
 *
 * @module
 */

import type { Registry } from "../registry.ts";

/** What a background worker's function gets. */
export interface WorkerContext<Argument = unknown> {
  /** The registry, open, in the worker's database. A backend of the worker's own. */
  readonly registry: Registry;
  /** What it was registered with. */
  readonly arg: Argument;
  /** The worker's name. */
  readonly name: string;
  /** Its type. */
  readonly type: string;
  /** Its database; null for a global one. */
  readonly database: string | null;
  /** How often it has been restarted. */
  readonly restarts: number;
  /**
   * Aborted when the worker is to end: terminated, told by SIGTERM or SIGINT, its supervisor gone
   * for the time being, or the registry destroyed. Return then. After the grace it is killed.
   */
  readonly signal: AbortSignal;
  /** Tells those who wait for it that the worker is ready for its work. */
  ready(): void;
}

/** The function that a worker's module exports. */
export type WorkerFunction<Argument = unknown> = (
  context: WorkerContext<Argument>,
) => void | PromiseLike<void>;
