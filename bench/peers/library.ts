/**
 * npm packages that may or may not be installed, in a folder of their own.
 *
 * @module
 */

import { createRequire } from "node:module";
import { join } from "node:path";

/** A package could not be loaded; the message says why, in one line. */
export class Absent extends Error {
  override name = "Absent";
}

/**
 * Loads a package of `folder`/node_modules.
 *
 * @throws {Absent} It is not installed, or does not load here.
 */
export function load<Library>(folder: string, name: string): Library {
  try {
    return createRequire(join(folder, "package.json"))(name) as Library;
  } catch (error) {
    const { code, message = "" } = error as NodeJS.ErrnoException;
    if (code === "MODULE_NOT_FOUND") {
      throw new Absent(
        `${name}: not installed (npm ci --prefix ${folder} --ignore-scripts=false)`,
      );
    }
    throw new Absent(`${name}: installed, but does not load: ${message.split("\n")[0]}`);
  }
}
