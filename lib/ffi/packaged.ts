/**
 * The native libraries that a package brings along: in a checkout none. `.ci/package.ts` writes
 * the package's own version of this file, which imports the one that fits, and no other.
 *
 * @module
 */

/** A library's bytes, as a generated module exports them. */
export interface PackagedLibrary {
  /** What the library calls itself (its DT_SONAME): `libdsmr-`, 16 hexadecimal digits, `.so`. */
  readonly soname: string;
  /** The SHA-256 of its bytes, in hexadecimal. */
  readonly sha256: string;
  /** Its bytes, in base64. */
  readonly base64: string;
}

/** What a package knows about itself. */
export interface Packaged {
  /** What it brings libraries for, for messages. */
  readonly platforms: string;
  /** The one for this system, if there is one. */
  readonly library: PackagedLibrary | undefined;
}

/** Undefined in a checkout: there the library is what was built last. */
export const packaged: Packaged | undefined = undefined;
