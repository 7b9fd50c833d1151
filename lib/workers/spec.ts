/**
 * What a background worker is: as users say it, and as the registry keeps it, which is JSON.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import { describe, encodeName, messageOf, native, quote } from "../ffi/native.ts";

/** When a worker starts, once there is a supervisor. */
export type WorkerStartTime = "registry-start" | "first-attach" | "first-database-attach";

/** What becomes of a worker, as the `notify` callback hears it. */
export interface WorkerEvent {
  /**
   * `"started"`: its function has been entered. `"ready"`: it has called `ready()`.
   * `"restarting"`: it has ended, and will be started again. `"stopped"`: it has ended for good.
   */
  type: "started" | "ready" | "restarting" | "stopped";
  /** The worker's name. */
  name: string;
  /** Its database; null for a global one. */
  database: string | null;
  /** Its process, where it has one at the moment. */
  pid: number | null;
  /** Why it has ended, where there is something to say. */
  reason: string | null;
  /** With which code it has ended. Null: by a signal, or not yet. */
  exitCode: number | null;
  /** How often it has been restarted. */
  restarts: number;
}

/** A background worker, as it is registered; PostgreSQL's `BackgroundWorker`. */
export interface WorkerSpec {
  /** For people, and for static registrations the key. 1 to 63 bytes of UTF-8, as all names. */
  name: string;
  /** What kind of worker it is, for people. Default: the name. */
  type?: string;
  /** The module: an absolute URL, for instance `new URL("./saver.ts", import.meta.url)`. */
  module: URL | string;
  /** The function that the module exports. Default: `"default"`. */
  function?: string;
  /** Handed to the function as `ctx.arg`: anything that JSON can say. */
  arg?: unknown;
  /** One worker in all (default), or one for each database. */
  scope?: "global" | "database";
  /** Hears what becomes of the worker, in the isolate that registers it. */
  notify?: (event: WorkerEvent) => void;
  /**
   * `"registry-start"` (default): as soon as there is a supervisor. `"first-attach"`: when a
   * backend is attached that is neither the supervisor nor a worker. `"first-database-attach"`:
   * when such a backend has opened a database of a name other than `"default"`; for scope
   * `"database"`, when such a backend has opened that database.
   */
  startTime?: WorkerStartTime;
  /**
   * How long after an end by an error to start it again, in milliseconds. Default: `"never"`.
   * After a crash it takes at least 100 ms, twice as long for each further crash, up to 60 s.
   */
  restartTime?: "never" | number;
  /** What runs the process. Default `"same"`: the runtime of who registers it. */
  runtime?: "same" | "deno" | "bun";
  /** A Worker thread of the supervisor's process, instead of a process. Default: false. */
  thread?: boolean;
  /** How long it may take to end when it is told to, in milliseconds. Then it is killed. */
  grace?: number;
  /**
   * Arguments of the runtime, before the script. Default: Deno gets `--allow-all`, which is left
   * out when there are any here.
   */
  runtimeArgs?: readonly string[];
}

/** The same as it stands in a row, nothing left out. */
export interface StoredSpec {
  name: string;
  type: string;
  module: string;
  function: string;
  /** Missing when there is none. */
  arg?: unknown;
  scope: "global" | "database";
  startTime: WorkerStartTime;
  /** In milliseconds; -1 is never. */
  restartTime: number;
  runtime: "deno" | "bun";
  thread: boolean;
  grace: number;
  runtimeArgs: string[] | null;
  /** The add-in that it is a static worker of. */
  addin: string | null;
}

/** How long a worker's JSON may be. */
export const SPEC_BYTES_MAX = 3072;
export const GRACE_MS = 5000;
/** What timers keep. */
const DELAY_MAX_MS = 0x7fffffff;

const startTimes = ["registry-start", "first-attach", "first-database-attach"];

function oneOf<Value>(what: string, value: unknown, values: readonly Value[]): Value {
  for (const known of values) if (value === known) return known;
  const names = values.map((known) => JSON.stringify(known)).join(", ");
  throw new TypeError(`The worker's ${what} is ${quote(value)}, not one of ${names}.`);
}

function checkText(what: string, value: unknown): string {
  if (typeof value !== "string") {
    const is = describe(value);
    throw new DsmrError("NAME_INVALID", `The worker's ${what} is ${is}, not a string.`);
  }
  const text = encodeName(what === "name" ? "worker" : `worker ${what}`, value);
  if (text.length === 0 || text.length > 63 || value.includes("\0")) {
    throw new DsmrError(
      text.length > 63 ? "NAME_TOO_LONG" : "NAME_INVALID",
      `The worker's ${what} ${quote(value)} has ${text.length} bytes of UTF-8; it must have 1 to ` +
        "63, and no NUL.",
      { actual: text.length, requested: 63 },
    );
  }
  return value;
}

/**
 * What pathToFileURL of node:url is for, which takes Deno milliseconds to load at every start: all of a path
 * is a name: also "#" and "?", which the setter knows, and what it would read or leave out.
 */
function urlOfPath(path: string): string {
  const url = new URL("file:///");
  url.pathname = path.replace(/[%\\\t\n\r]/g, encodeURIComponent);
  return url.href;
}

function checkModule(module: unknown): string {
  if (!(module instanceof URL) && typeof module !== "string") {
    throw new TypeError(`The worker's module is ${describe(module)}, not a URL.`);
  }
  if (module instanceof URL) return module.href;
  // It would be another one: half a surrogate pair becomes U+FFFD in a URL.
  encodeName("worker module", module);
  if (module.startsWith("/")) return urlOfPath(module);
  if (URL.canParse(module)) return new URL(module).href;
  throw new TypeError(
    `The worker's module ${quote(module)} is no absolute URL, and the worker runs elsewhere. ` +
      'Give new URL("./worker.ts", import.meta.url).',
  );
}

function checkDelay(what: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value <= DELAY_MAX_MS) return Math.ceil(value);
  throw new RangeError(
    `The worker's ${what} is ${describe(value)}; it must be 0 to ${DELAY_MAX_MS} milliseconds.`,
  );
}

/** Checks a grace period given by hand. */
export function checkGrace(value: number | null | undefined, fallback: number): number {
  return value === undefined || value === null ? fallback : checkDelay("grace", value);
}

function checkArguments(value: unknown): string[] | null {
  if (value === undefined || value === null) return null;
  if (Array.isArray(value) && value.every((part) => typeof part === "string")) return value;
  throw new TypeError("The worker's runtimeArgs are not a list of texts.");
}

/** The name of the runtime that runs this. */
export function ownRuntime(): "deno" | "bun" {
  return native().runtime.name;
}

/** Checks what a user says, and returns it as a row has it. */
export function encodeSpec(
  spec: WorkerSpec,
  addin: string | null,
): { stored: StoredSpec; bytes: Uint8Array } {
  if (typeof spec !== "object" || spec === null) {
    throw new TypeError(`The worker is ${describe(spec)}, not an object.`);
  }
  const name = checkText("name", spec.name);
  // Of what may be left out, null is as left out. (Of arg it is JSON's null.)
  const { notify } = spec;
  const thread = spec.thread ?? false;
  const runtime = spec.runtime ?? "same";
  if (notify !== undefined && notify !== null && typeof notify !== "function") {
    throw new TypeError(`The worker's notify is ${quote(notify)}, not a function.`);
  }
  if (typeof thread !== "boolean") {
    throw new TypeError(`The worker's thread is ${quote(thread)}, not true or false.`);
  }
  oneOf("runtime", runtime, ["same", "deno", "bun"]);
  const runtimeArgs = checkArguments(spec.runtimeArgs);
  if (thread && (runtime !== "same" || runtimeArgs !== null)) {
    throw new TypeError(
      "A worker that is a thread runs in the supervisor's process: leave runtime and runtimeArgs " +
        "out, or thread.",
    );
  }
  const restartTime = spec.restartTime ?? "never";
  const stored: StoredSpec = {
    name,
    type: checkText("type", spec.type ?? name),
    module: checkModule(spec.module),
    function: checkText("function", spec.function ?? "default"),
    scope: oneOf("scope", spec.scope ?? "global", ["global", "database"] as const),
    startTime: oneOf(
      "startTime",
      spec.startTime ?? "registry-start",
      startTimes as WorkerStartTime[],
    ),
    restartTime: restartTime === "never" ? -1 : checkDelay("restartTime", restartTime),
    runtime: runtime === "same" ? ownRuntime() : runtime,
    thread,
    grace: checkGrace(spec.grace, GRACE_MS),
    runtimeArgs,
    addin,
  };
  const { arg } = spec;
  let text: string;
  try {
    if (arg !== undefined && JSON.stringify(arg) === undefined) {
      throw new TypeError(`it is ${describe(arg)}`);
    }
    text = JSON.stringify(arg === undefined ? stored : { ...stored, arg });
  } catch (cause) {
    throw new TypeError(`The worker's arg cannot be said in JSON: ${messageOf(cause)}`, { cause });
  }
  const bytes = new TextEncoder().encode(text);
  if (bytes.length > SPEC_BYTES_MAX) {
    throw new DsmrError(
      "SIZE_INVALID",
      `Worker "${name}" takes ${bytes.length} bytes of JSON, ${SPEC_BYTES_MAX} are allowed. Put ` +
        "what is large into a segment, and its name into arg.",
      { actual: bytes.length, requested: SPEC_BYTES_MAX },
    );
  }
  return { stored, bytes };
}

/** Reads what a row has. Undefined: that is no worker, so somebody has overwritten it. */
export function decodeSpec(bytes: Uint8Array): StoredSpec | undefined {
  let spec: Partial<Record<keyof StoredSpec, unknown>> | null;
  try {
    spec = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
  if (typeof spec !== "object" || spec === null) return undefined;
  const isText = (value: unknown): boolean => typeof value === "string";
  const isDelay = (value: unknown, least: number): boolean =>
    typeof value === "number" && value >= least && value <= DELAY_MAX_MS;
  const isWhole = [spec.name, spec.type, spec.module, spec.function].every(isText) &&
    (spec.scope === "global" || spec.scope === "database") &&
    startTimes.includes(spec.startTime as string) &&
    isDelay(spec.restartTime, -1) && isDelay(spec.grace, 0) &&
    (spec.runtime === "deno" || spec.runtime === "bun") && typeof spec.thread === "boolean" &&
    (spec.runtimeArgs === null ||
      Array.isArray(spec.runtimeArgs) && spec.runtimeArgs.every(isText)) &&
    (spec.addin === null || isText(spec.addin));
  return isWhole ? spec as StoredSpec : undefined;
}
