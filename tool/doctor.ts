/**
 * `dsmr doctor`: whether this machine has what the library needs, and what to do where not.
 *
 * @module
 */

import { Registry } from "../lib/mod.ts";
import { directory } from "../lib/requests.ts";
import { type Command, type Context, FOUND, type Invocation, OK, placeOf } from "./command.ts";
import {
  checkDirectory,
  checkKernel,
  checkNameless,
  checkRemoveIpc,
  checkSeccomp,
  checkSpace,
  checkVersions,
  type Finding,
  isWorking,
} from "./machine.ts";
import { findLeftovers } from "./leftovers.ts";
import { bytes, joined, json, many, paint, printable, type Style } from "./text.ts";

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A finding of something that may fail to be looked at. */
function attempt(name: string, find: () => Finding): Finding {
  try {
    return find();
  } catch (error) {
    return { name, status: "fail", found: messageOf(error), advice: null };
  }
}

/** Does all of it once, in a registry of its own: files, locks, memory. */
function checkUse(context: Context, dir: string): Finding {
  const name = `doctor.${context.host.pid}.${crypto.randomUUID()}`;
  using registry = Registry.openSync(name, { dir, mode: "create", maxBackends: 2, maxSegments: 4 });
  try {
    const segment = registry.getNamedSegmentSync("probe", 64);
    segment.lock.withSync("exclusive", () => new Int32Array(segment.buffer).fill(1));
  } finally {
    Registry.destroy(name, { dir });
  }
  return isWorking("use", "created a registry, took a lock, wrote to memory, and removed it");
}

function checkRegistries(dir: string): Finding {
  const all = [...Registry.list({ dir })];
  const bad = all.filter(({ problem }) => problem !== null);
  if (bad.length === 0) return isWorking("registries", `${all.length}, none damaged`);
  return {
    name: "registries",
    status: "warn",
    found: `of ${all.length}, refused: ${
      bad.map((one) => `${one.name} (${one.problem})`).join(", ")
    }`,
    advice: "When nothing uses them any more: dsmr rm REGISTRY",
  };
}

function checkLeftovers(dir: string, uid: number | undefined): Finding {
  const orphans = findLeftovers(dir, uid).filter(({ isOrphan }) => isOrphan);
  if (orphans.length === 0) return isWorking("left over", "nothing");
  const total = orphans.reduce((sum, one) => sum + one.bytes, 0);
  return {
    name: "left over",
    status: "warn",
    found: `${many(orphans.length, "file")} that nobody needs, ${bytes(total)}`,
    advice: "See dsmr gc; remove them with dsmr gc --force",
  };
}

/** Everything, in the order in which a person would ask. */
function examine(context: Context, invocation: Invocation): Finding[] {
  const { host } = context;
  const versions = checkVersions(host);
  let dir: string;
  try {
    dir = directory(placeOf(invocation));
  } catch (error) {
    // The native library could not be loaded; its message says what to do.
    return [versions, { name: "library", status: "fail", found: messageOf(error), advice: null }];
  }
  return [
    versions,
    ...checkKernel(host),
    attempt("seccomp", checkSeccomp),
    attempt("directory", () => checkDirectory(dir)),
    attempt("space", () => checkSpace(dir)),
    attempt("O_TMPFILE", () => checkNameless(dir, host.platform)),
    attempt("RemoveIPC", () => checkRemoveIpc(dir, host.uid)),
    attempt("use", () => checkUse(context, dir)),
    attempt("registries", () => checkRegistries(dir)),
    attempt("left over", () => checkLeftovers(dir, host.uid)),
  ];
}

const styles: { readonly [S in Finding["status"]]: Style } = {
  ok: "green",
  warn: "yellow",
  fail: "red",
  unknown: "dim",
};

async function run(context: Context, invocation: Invocation): Promise<number> {
  const findings = examine(context, invocation);
  const hasFailed = findings.some(({ status }) => status === "fail");
  if (invocation.values["json"] === true) {
    await context.write(json({ ok: !hasFailed, findings }));
    return hasFailed ? FOUND : OK;
  }
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.flatMap(({ name, status, found, advice }) => [
    `${paint(context, styles[status], status.padEnd(7))}  ${name.padEnd(width)}  ${
      printable(found)
    }`,
    ...(advice === null ? [] : [`${" ".repeat(width + 11)}-> ${printable(advice)}`]),
  ]);
  await context.write(joined(lines));
  return hasFailed ? FOUND : OK;
}

/** The command. */
export const doctor: Command = {
  name: "doctor",
  summary: "check what the library needs of this machine, and say what to do",
  operands: [],
  details:
    "Looks at versions, what the kernel offers, the directory of the registries, its size and free " +
    "space, what removes files from it behind our backs (RemoveIPC), damaged registries and files " +
    "that are left over. It also does all of it once, in a registry of its own, which it removes.\n\n" +
    "The exit code is 1 if something fails; what is only worth a look (warn) does not count.",
  examples: [["dsmr doctor", "what is wrong"]],
  options: {},
  run,
};
