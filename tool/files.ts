/**
 * The files of registries, as they lie in the directory: read without attaching, see
 * c/layout.h for their names and for the first 64 bytes of a control file, which mean the same in
 * every version.
 *
 * @module
 */

import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  type Stats,
} from "node:fs";
import { join } from "node:path";

const SEGMENT = /^dsmr\.s\.([^/]+)\.([0-9a-f]{16})\.([0-9a-f]{16})$/s;
const TEMPORARY = /^dsmr\.t\.[0-9a-f]{16}$/;
const CONTROL = /^dsmr\.r\.([^/]+)$/s;

/** What a file's name says. */
export type FileName =
  | { kind: "segment"; registry: string; instance: bigint }
  | { kind: "temporary" }
  | { kind: "control"; registry: string };

/** What the name means; undefined: it is none of ours. */
export function parseName(name: string): FileName | undefined {
  if (TEMPORARY.test(name)) return { kind: "temporary" };
  const [, registry, instance] = SEGMENT.exec(name) ?? [];
  if (registry !== undefined && isRegistryName(registry)) {
    return { kind: "segment", registry, instance: BigInt(`0x${instance}`) };
  }
  const [, own] = CONTROL.exec(name) ?? [];
  return own !== undefined && isRegistryName(own) ? { kind: "control", registry: own } : undefined;
}

/** 1 to 63 bytes. A file name that is no UTF-8 was read with U+FFFD in it, and is not found again. */
function isRegistryName(name: string): boolean {
  return new TextEncoder().encode(name).length <= 63;
}

/** A system error's code, for example "ENOENT". */
export function codeOf(error: unknown): string | undefined {
  const code: unknown = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** What is under the path, not followed; undefined if nothing is. */
export function look(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Bytes of the segments' files, by the name of their registry. */
export function segmentBytes(dir: string): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const name of readdirSync(dir)) {
    const parsed = parseName(name);
    if (parsed?.kind !== "segment") continue;
    const found = look(join(dir, name));
    if (found === undefined || !found.isFile()) continue;
    sizes.set(parsed.registry, (sizes.get(parsed.registry) ?? 0) + found.size);
  }
  return sizes;
}

/** What the control file of a registry says. */
export type Control =
  | { is: "absent" }
  | { is: "there"; instance: bigint; isDestroyed: boolean }
  /** Another user's, damaged, no file: nothing can be said of what belongs to it. */
  | { is: "unclear"; why: string };

const MAGIC = "DSMR_CT1";
const STATE_OFFSET = 12;
const INSTANCE_OFFSET = 24;
const STABLE_SIZE = 64;
const DESTROYED = 2;

/** Reads the stable part of a control file; never writes, never blocks, follows no link. */
export function readControl(dir: string, registry: string, uid: number | undefined): Control {
  let descriptor: number;
  try {
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    descriptor = openSync(join(dir, `dsmr.r.${registry}`), flags);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return { is: "absent" };
    return { is: "unclear", why: `its control file cannot be opened (${code ?? String(error)})` };
  }
  try {
    const found = fstatSync(descriptor);
    if (!found.isFile() || (uid !== undefined && found.uid !== uid)) {
      return { is: "unclear", why: "its control file is not a file of this user" };
    }
    const bytes = new Uint8Array(STABLE_SIZE);
    const length = readSync(descriptor, bytes, 0, STABLE_SIZE, 0);
    const magic = new TextDecoder().decode(bytes.subarray(0, MAGIC.length));
    if (length < STABLE_SIZE || magic !== MAGIC) {
      return { is: "unclear", why: "its control file is damaged" };
    }
    const view = new DataView(bytes.buffer);
    return {
      is: "there",
      instance: view.getBigUint64(INSTANCE_OFFSET, true),
      isDestroyed: view.getUint32(STATE_OFFSET, true) === DESTROYED,
    };
  } finally {
    closeSync(descriptor);
  }
}
