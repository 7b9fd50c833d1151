/**
 * Typed views of shared memory: `struct({ hits: atomicU32, total: f64 })`.
 *
 * @module
 */

import { DsmrError } from "../errors.ts";
import { describe, messageOf } from "../ffi/native.ts";
import { makeLock } from "../segment.ts";
import { AtomicBigint, AtomicNumber } from "./atomics.ts";
import type { FieldArray } from "./arrays.ts";
import { Field, ObjectField, type ValueField } from "./field.ts";
import { SIZE_MAX } from "./fields.ts";
import { describeLayout, hashOf, type Layout } from "./layout.ts";
import { type Place, placeIn, type ViewTarget } from "./place.ts";
import { Tranche } from "../tranche.ts";
import { type Property, Views } from "./views.ts";

/** The fields of a struct, by name, in their order. */
export type Fields = { readonly [name: string]: Field<unknown> };

/** What a field is read as. */
export type ValueOf<F> = F extends Field<infer T> ? T : never;

/** What a struct of these fields is read as: a property for each. */
export type View<F extends Fields> =
  & { -readonly [N in keyof F as F[N] extends ValueField<unknown> ? N : never]: ValueOf<F[N]> }
  & { readonly [N in keyof F as F[N] extends ValueField<unknown> ? never : N]: ValueOf<F[N]> };

/** What {@linkcode Struct.init} is given. */
export interface StructInitOptions {
  /** The tranche of the locks. */
  tranche: Tranche;
  /** Where in the target the struct begins. Default: 0. */
  byteOffset?: number;
}

/** Names that one can write behind a dot. Numbers would change the order of the fields. */
const NAME = /^[\p{ID_Start}_$][\p{ID_Continue}$]*$/u;

const roundUp = (value: number, multiple: number): number => Math.ceil(value / multiple) * multiple;

function badName(name: string): DsmrError {
  return new DsmrError(
    "NAME_INVALID",
    name === "__proto__"
      ? 'A field cannot be named "__proto__": that is the prototype.'
      : `A field cannot be named ${JSON.stringify(name)}: it must be an identifier.`,
  );
}

function checkFields(fields: Fields): [string, Field<unknown>][] {
  if (typeof fields !== "object" || fields === null) {
    throw new TypeError(`The fields of a struct are ${describe(fields)}, not an object.`);
  }
  if (Object.getOwnPropertySymbols(fields).length > 0) {
    throw new TypeError("A field of a struct has a symbol as its name; it must be a string.");
  }
  // What `{ __proto__: u32 }` makes: no field, but a prototype.
  if (Object.getPrototypeOf(fields) instanceof Field) throw badName("__proto__");
  const entries = Object.entries(fields);
  if (entries.length === 0) {
    throw new DsmrError("SIZE_INVALID", "The struct has no fields. Give it one at least.");
  }
  for (const [name, field] of entries) {
    if (!NAME.test(name) || name === "__proto__") throw badName(name);
    if (!(field instanceof Field)) {
      throw new TypeError(
        `Field "${name}" is ${describe(field)}, which is no kind of field. Kinds are u32, f64, ` +
          "text(32), lwlock and their like; see struct().",
      );
    }
  }
  return entries;
}

/**
 * A layout: which field is where, and views by it. Comes from {@linkcode struct}. It can be a field
 * of another struct, or the element of an array.
 */
export class Struct<F extends Fields> extends ObjectField<View<F>> implements Layout {
  /** Made for the first view: many layouts are only fields of others. */
  #views: Views | undefined;
  readonly #entries: readonly [string, Field<unknown>][];
  /** Those that have a getter. */
  readonly #properties: readonly Property[];
  /** The others: each view has objects for them. */
  readonly #objects: readonly Property[];

  /** The fields, as they were given. */
  readonly fields: F;
  /** Where each field begins, in bytes. */
  readonly offsets: { readonly [N in keyof F]: number };
  /** Made when they are asked for: many layouts are only fields of others, also many deep. */
  #description: string | undefined;
  #hash: bigint | undefined;

  /**
   * Internal: made by {@linkcode struct}.
   *
   * @ignore
   */
  constructor(fields: F) {
    const entries = checkFields(fields);
    const offsets: Record<string, number> = {};
    let end = 0;
    let align = 1;
    for (const [name, field] of entries) {
      const offset = roundUp(end, field.align);
      offsets[name] = offset;
      end = offset + field.size;
      align = Math.max(align, field.align);
    }
    const size = roundUp(end, align);
    if (size > SIZE_MAX) {
      throw new DsmrError(
        "SIZE_INVALID",
        `The struct has ${size} bytes; ${SIZE_MAX} is the most. Make it smaller.`,
        { actual: SIZE_MAX, requested: size },
      );
    }
    super(`struct(${size})`, size, align);
    // As they were checked: a getter may say something else the second time.
    this.fields = Object.freeze(Object.fromEntries(entries)) as F;
    this.offsets = Object.freeze(offsets) as { readonly [N in keyof F]: number };
    this.#entries = entries;
    const placed = entries.map(([name, field]): Property => [name, field, offsets[name] ?? 0]);
    this.#properties = placed.filter(([, { read }]) => read !== undefined);
    this.#objects = placed.filter(([, { read }]) => read === undefined);
  }

  /** One line for the whole, and one for each field: its name, its type and its offset. */
  get description(): string {
    return this.#description ??= describeLayout(this.size, this.align, this.#lines("", 0));
  }

  /** 64 bits made of {@linkcode description}, never 0: layouts that differ have different ones. */
  get hash(): bigint {
    return this.#hash ??= hashOf(this.description);
  }

  #lines(prefix: string, offset: number): string[] {
    return this.#entries.flatMap(([name, field]) =>
      field.lines(prefix + name, offset + (this.offsets[name] ?? 0))
    );
  }

  /** @ignore */
  override lines(name: string, offset: number): string[] {
    return [...super.lines(name, offset), ...this.#lines(`${name}.`, offset)];
  }

  /** @ignore */
  override *locks(offset: number): Iterable<number> {
    for (const [name, field] of this.#entries) {
      yield* field.locks(offset + (this.offsets[name] ?? 0));
    }
  }

  /** @ignore */
  override get hasLocks(): boolean {
    return this.#entries.some(([, field]) => field.hasLocks);
  }

  get #maker(): Views {
    const entries = this.#entries;
    return this.#views ??= new Views(this.#properties, this.size, {
      [INSPECT]: {
        value(this: object): object {
          return shown(this, entries);
        },
      },
    });
  }

  /** @ignore */
  override make(place: Place, path: string): View<F> {
    const view = this.#maker.view(place);
    for (const [name, field, offset] of this.#objects) {
      const value = field.make(place.at(offset), path === "" ? name : `${path}.${name}`);
      Object.defineProperty(view, name, { value, enumerable: true });
    }
    return view as View<F>;
  }

  /** @ignore */
  override makeArray(place: Place, name: string, count: number): FieldArray<View<F>> {
    const elements = this.#objects.length === 0
      ? this.#maker.elements(place, name, count) as FieldArray<View<F>> | undefined
      : undefined;
    return elements ?? super.makeArray(place, name, count);
  }

  /**
   * A view: an object whose properties are the fields. Nothing is copied, and nothing kept: make
   * it once and hold it, for making it costs a microsecond or so, the layout's first a tenth of a
   * millisecond, and using it nothing.
   *
   * After the segment's `detach()` its numbers and texts throw a `TypeError`, read and assigned, its
   * locks `DETACHED`; its typed arrays are empty, as typed arrays are.
   *
   * @param target The segment; or a stretch of one, or of any buffer, such as a typed array.
   * @param byteOffset Where in it the struct begins. Default: 0.
   * @throws {DsmrError} `SIZE_INVALID`: it does not fit, or is not aligned. `DETACHED`.
   * {@linkcode TypeError}: the target is none.
   */
  view(target: ViewTarget, byteOffset: number = 0): View<F> {
    return this.make(placeIn(target, byteOffset, this.size, this.align), "");
  }

  /**
   * Makes all locks of the struct, those in nested structs and arrays, too. Belongs into the init
   * callback: once, before anybody uses them. If it throws, some are made; the init callback that
   * lets it throw gives the whole segment up.
   *
   * @returns a view.
   * @throws {DsmrError} As {@linkcode view} and {@linkcode Segment.initLock}; `UNSUPPORTED`: the
   * target is no segment. {@linkcode TypeError}: the tranche.
   *
   * @example
   * ```ts
   * import { array, lwlock, Registry, struct, u32 } from "@dsmr/registry";
   *
   * const layout = struct({ buckets: array(struct({ lock: lwlock, count: u32 }), 8) });
   * using registry = Registry.openSync("doc-struct-init");
   * const segment = registry.getNamedSegmentSync("table", layout.size, (fresh) => {
   *   layout.init(fresh, { tranche: registry.newTranche("buckets") });
   * });
   * const bucket = layout.view(segment).buckets.at(3);
   * bucket.lock.withSync("exclusive", () => bucket.count++);
   * Registry.destroy("doc-struct-init");
   * ```
   */
  init(target: ViewTarget, options: StructInitOptions): View<F> {
    if (typeof options !== "object" || options === null) {
      throw new TypeError(`The options are ${describe(options)}, not { tranche }.`);
    }
    const { tranche, byteOffset = 0 } = options;
    if (!(tranche instanceof Tranche)) {
      throw new TypeError(`The tranche is ${describe(tranche)}, not a Tranche of newTranche().`);
    }
    const place = placeIn(target, byteOffset, this.size, this.align);
    const segment = place.segment("A lock");
    for (const offset of this.locks(place.offset)) makeLock(segment, offset, tranche);
    return this.make(place, "");
  }
}

/** How consoles show a view: as a plain object, whose fields they would not find otherwise. */
const INSPECT = Symbol.for("nodejs.util.inspect.custom");

function shown(view: object, entries: readonly [string, Field<unknown>][]): object {
  const read = (name: string, field: Field<unknown>): unknown => {
    // Looking must not fail: there may be no lock yet, or the segment may be gone.
    if (field.read !== undefined && !field.isAssignable) return field.type;
    try {
      const value: unknown = Reflect.get(view, name);
      return value instanceof AtomicNumber || value instanceof AtomicBigint ? value.load() : value;
    } catch (cause) {
      return messageOf(cause);
    }
  };
  return Object.fromEntries(entries.map(([name, field]) => [name, read(name, field)]));
}

/**
 * Defines what is where in a stretch of shared memory, and gives views of it: objects with a plain
 * property for each field, which costs about what a typed array indexed by hand does.
 *
 * | field | read as | bytes |
 * |---|---|---|
 * | `i8 u8 i16 u16 i32 u32 f32 f64` | number | 1, 2, 4, 8 |
 * | `i64 u64` | bigint | 8 |
 * | `bool` | boolean | 1 |
 * | `atomicI32 atomicU32` | {@linkcode AtomicNumber}: `view.hits.add(1)` | 4 |
 * | `atomicI64 atomicU64` | {@linkcode AtomicBigint} | 8 |
 * | `text(n)` | string, UTF-8 | n |
 * | `bytes(n)` | `Uint8Array` | n |
 * | `lwlock` | {@linkcode LWLock} | 64 |
 * | `array(number, n)` | its typed array | |
 * | `array(text(m), n)` | {@linkcode TextArray}: `view.names.at(3)` | |
 * | `array(other, n)` | {@linkcode FieldArray}: `view.slots.at(3).key` | |
 * | another struct | its view | |
 *
 * Fields lie as in C: in their order, each at a multiple of its alignment (its size; of an array
 * its element's, of a struct its largest field's, of texts and bytes 1), the whole rounded up to
 * the largest. So a C struct with the same fields has the same offsets.
 *
 * Numbers are stored as a typed array stores them: cut to the size of the field, `1.5` in a `u32`
 * is 1 and `2 ** 32` is 0; a number for a bigint, or a bigint for a number, is a `TypeError`. A
 * check would cost more than the store itself. All accesses but the atomic ones are plain: where
 * several processes change a field, use an atomic or a lock.
 *
 * @throws {DsmrError} `NAME_INVALID`: a field's name is no identifier. `SIZE_INVALID`: no fields,
 * or more than 2 to the 40 bytes. {@linkcode TypeError}: something is no field.
 *
 * @example
 * ```ts
 * import { atomicU32, f64, Registry, struct, text } from "@dsmr/registry";
 *
 * const page = struct({ hits: atomicU32, longest: f64, label: text(32) });
 * using registry = Registry.openSync("doc-struct");
 * const segment = registry.getNamedSegmentSync("page", page.size, (fresh) => {
 *   page.view(fresh).label = "front";
 * });
 * const view = page.view(segment);
 * view.hits.add(1);
 * segment.lock.withSync("exclusive", () => {
 *   view.longest = Math.max(view.longest, 12.5);
 * });
 * console.log(view.label, view.hits.load(), page.offsets.longest);
 * Registry.destroy("doc-struct");
 * ```
 */
export function struct<const F extends Fields>(fields: F): Struct<F> {
  return new Struct(fields);
}
