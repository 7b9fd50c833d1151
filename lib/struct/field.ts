/**
 * What every kind of field of a struct is.
 *
 * @module
 */

import type { Place } from "./place.ts";

/** What a property of a view is made of. */
export type Accessor<T> = { get(this: DataView): T; set?(this: DataView, value: T): void };

/** The symbol under which a view with locks keeps where it is. */
export const PLACE: unique symbol = Symbol("place");

/** A view with locks, seen from inside. */
export type Placed = { readonly [PLACE]: Place };

/**
 * A kind of field: how large it is, and what it is read as. Comes from this package:
 * {@linkcode u32} and its like, {@linkcode text}, {@linkcode bytes}, {@linkcode array},
 * {@linkcode lwlock}; and every {@linkcode Struct} is one, too.
 */
export abstract class Field<T> {
  /** What it is read as: for the compiler only, there is no such property. */
  declare readonly valueType: T;
  /** Whether one assigns to it, or it is an object that stays. */
  abstract readonly isAssignable: boolean;
  /** How it is called in a layout's description. */
  readonly type: string;
  /** Its size in bytes. */
  readonly size: number;
  /** What its offset is a multiple of, as in C. */
  readonly align: number;

  /**
   * Internal: made by this package.
   *
   * @ignore
   */
  constructor(type: string, size: number, align: number) {
    this.type = type;
    this.size = size;
    this.align = align;
  }

  /**
   * Internal: the property on the prototype of views; undefined: each view has an object. Not
   * called accessor: older parsers of TypeScript take that for the keyword.
   *
   * @ignore
   */
  abstract accessorAt(offset: number, name: string): Accessor<T> | undefined;

  /**
   * Internal: the object, for fields without an accessor and for elements of arrays.
   *
   * @ignore
   */
  abstract make(place: Place, name: string): T;

  /**
   * Internal: its lines in a description.
   *
   * @ignore
   */
  lines(name: string, offset: number): string[] {
    return [`${name}: ${this.type} at ${offset}`];
  }

  /**
   * Internal: how many locks it has, and where they are.
   *
   * @ignore
   */
  *locks(_offset: number): Iterable<number> {}

  /**
   * Internal: whether it has any.
   *
   * @ignore
   */
  get hasLocks(): boolean {
    return false;
  }
}

/** A field that is assigned to: a number, a bigint, a boolean, a text. */
export abstract class ValueField<T> extends Field<T> {
  /** Always true. */
  override readonly isAssignable = true as const;
}

/** A field that is an object, which stays: it is changed through itself. */
export abstract class ObjectField<T> extends Field<T> {
  /** Always false. */
  override readonly isAssignable = false as const;

  /** @ignore */
  override accessorAt(_offset: number, _name: string): Accessor<T> | undefined {
    return undefined;
  }
}
