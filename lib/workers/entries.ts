/**
 * The modules that a background worker's process and thread begin with. `.ci/package.ts` writes the
 * package's own version of this file: there the modules are elsewhere.
 *
 * @module
 */

export const processEntry: URL = new URL("./main.ts", import.meta.url);
export const threadEntry: URL = new URL("./thread.ts", import.meta.url);
