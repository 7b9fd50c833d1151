/**
 * Tranches: named families of locks.
 *
 * @module
 */

import type { Backend } from "./backend.ts";
import { check, encodeName, native, nothing } from "./ffi/native.ts";

// For the other modules of this package, and for nobody else: not a member of the class.

/** The backend that has made a tranche. */
export let backendOf: (tranche: Tranche) => Backend;

/**
 * A named family of locks, which is what a wait shows up as. Comes from
 * {@linkcode Registry.newTranche}; make one for each kind of lock, not for each lock.
 */
export class Tranche {
  static {
    backendOf = (tranche) => tranche.#backend;
  }

  readonly #backend: Backend;

  /** Its name. Several tranches may have the same. */
  readonly name: string;
  /** Its number: the same in every process. */
  readonly id: number;

  /**
   * Internal: made by the registry, never by hand.
   *
   * @ignore
   */
  constructor(backend: Backend, name: string, id: number) {
    this.#backend = backend;
    this.name = name;
    this.id = id;
  }

  /**
   * Gives the number back. Locks of the tranche go on working, under no name.
   *
   * @returns false if it was gone already.
   * @throws {DsmrError} `CLOSED`.
   */
  drop(): boolean {
    const { calls, error } = native();
    return check(calls.dsmr_tranche_drop(this.#backend.handle, this.id, error.bytes)) === 1;
  }
}

/** Makes a tranche; with the handle of a segment (else 0) one that goes with it. */
export function makeTranche(backend: Backend, name: string, segmentHandle: number): Tranche {
  const { calls, error } = native();
  const encoded = encodeName("tranche", name);
  const id = calls.dsmr_tranche_new(
    backend.handle,
    encoded.length === 0 ? nothing : encoded,
    encoded.length,
    segmentHandle,
    error.bytes,
  );
  return new Tranche(backend, name, check(id));
}
