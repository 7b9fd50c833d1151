/**
 * Registries as a whole: attaching to one, and destroying it.
 *
 * @module
 */

import { Backend } from "./backend.ts";
import { DsmrError } from "./errors.ts";
import { check, encodeName, native, nothing, quote } from "./ffi/native.ts";
import { directory, type DirectoryOptions, limit, type OpenOptions } from "./requests.ts";

const modes: readonly unknown[] = ["open", "create", "attach", "look"];

/** See `Registry.openSync`. */
export function attachBackend(
  name: string,
  options: OpenOptions | undefined,
  timeout_ms: number,
): { backend: Backend; dir: string; database: string } {
  const { database = "default", mode = "open", ...rest } = options ?? {};
  if (database === "") {
    throw new DsmrError("NAME_INVALID", "The database name is empty. Omit it, or name one.");
  }
  if (!modes.includes(mode)) {
    throw new TypeError(`The mode is ${quote(mode)}, not "open", "create", "attach" or "look".`);
  }
  if (typeof (rest.supervise ?? false) !== "boolean") {
    throw new TypeError(`supervise is ${quote(rest.supervise)}, not true or false.`);
  }
  const dir = directory(rest);
  const backend = Backend.open(dir, name, database, {
    mode,
    maxBackends: limit("maxBackends", rest.maxBackends, "DSMR_BACKENDS_MAX"),
    maxSegments: limit("maxSegments", rest.maxSegments, "DSMR_SEGMENTS_MAX"),
    timeout_ms,
  });
  return { backend, dir, database };
}

/** See `Registry.destroy`. */
export function destroyRegistry(name: string, options: DirectoryOptions | undefined): boolean {
  const { calls, error } = native();
  const encoded = encodeName("registry", name);
  const dir = new TextEncoder().encode(directory(options));
  const status = calls.dsmr_registry_destroy(
    encoded.length === 0 ? nothing : encoded,
    encoded.length,
    dir,
    dir.length,
    error.bytes,
  );
  return check(status) === 1;
}

/** See `Registry.dropDatabase`. */
export function dropDatabase(backend: Backend, name: string): boolean {
  const { calls, error } = native();
  const encoded = encodeName("database", name);
  const status = calls.dsmr_database_drop(
    backend.handle,
    encoded.length === 0 ? nothing : encoded,
    encoded.length,
    error.bytes,
  );
  return check(status) === 1;
}
