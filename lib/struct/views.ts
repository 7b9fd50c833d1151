/**
 * The classes of views, one for each layout: getters and setters over the typed arrays of a
 * {@linkcode Memory}.
 *
 * Their source is generated, for engines keep what they learn about a line of source with the line:
 * one getter that all layouts shared would find the array anew each time, which costs eight times
 * the read in Bun. Where the arrays are found in a `DataView` instead, which engines know how to read
 * whoever it belongs to, a store costs 0.2 ns more in Deno; and views of elements would have to be
 * kept, for a DataView cannot be optimized away.
 *
 * The source has nothing in it but what this file says, and numbers: names of fields never get into
 * it. Where the program forbids to make code of strings, the same is done by the fields' own
 * `read` and `write`, slower.
 *
 * @module
 */

import { badIndex, FieldArray } from "./arrays.ts";
import type { Field } from "./field.ts";
import { gone, isLittleEndian, type Kind, Memory } from "./memory.ts";
import type { Place } from "./place.ts";
import { ScalarField } from "./scalars.ts";

/** A field with a getter. */
export type Property = readonly [name: string, field: Field<unknown>, offset: number];

/** A view: `base` bytes into the memory. */
type ViewClass = new (memory: Memory, base: number) => object;
/** An array whose elements are nothing but views. */
type ElementsClass = new (name: string, length: number, memory: Memory) => FieldArray<object>;

interface Classes {
  View: ViewClass;
  /** In the order of the fields. */
  accessors: PropertyDescriptor[];
  Elements: ElementsClass;
}

/** Up to here an offset in an array can be computed in 32 bits, with a sign. */
const INDEXED_MAX = 2 ** 31 - 1;

/** Sources that are the same share what engines learn about them: so none are. */
let generated = 0;

function accessorSource(
  field: Field<unknown>,
  offset: number,
  i: number,
  layoutSize: number,
): string {
  if (!(field instanceof ScalarField)) {
    return `{
      get() { return fields[${i}].read(this.#memory, this.#base + ${offset}); },
      ${
      field.write === undefined ? "" : `set(value) {
        fields[${i}].write(this.#memory, this.#base + ${offset}, value, names[${i}]);
      },`
    }
    },`;
  }
  const { kind } = field;
  if (kind === "data") {
    const what = field.type === "i64" ? "BigInt64" : "BigUint64";
    const where = `this.#base + ${offset}`;
    return `{
      get() { return this.#memory.data.get${what}(${where}, ${isLittleEndian}); },
      set(value) { this.#memory.data.set${what}(${where}, value, ${isLittleEndian}); },
    },`;
  }
  const isBoolean = field.type === "bool";
  const shift = Math.log2(field.size);
  // The first form is the faster one; the second is right beyond 32 bits, too, where base is 0.
  const index = layoutSize <= INDEXED_MAX
    ? `(this.#base + ${offset}) >> ${shift}`
    : `(this.#base >> ${shift}) + ${offset / field.size}`;
  const element = `(this.#memory.${kind}[${index}] ?? gone())`;
  // See memory.ts for why it is read again.
  return `{
      get() { return ${element}${isBoolean ? " !== 0" : ""}; },
      set(value) {
        const index = ${index};
        const array = this.#memory.${kind};
        array[index] = value${isBoolean ? " ? 1 : 0" : ""};
        if (array[index] === undefined) gone();
      },
    },`;
}

function generate(properties: readonly Property[], size: number): Classes {
  const source = `"use strict";
  // Layout ${generated++}
  const View = class View {
    #memory;
    #base;
    constructor(memory, base) {
      this.#memory = memory;
      this.#base = base;
    }
    static accessors = [
      ${properties.map(([, field, offset], i) => accessorSource(field, offset, i, size)).join("\n")}
    ];
  };
  // Symbols, not private names: those are assigned twice, and so are no constants to an engine.
  const NAME = Symbol("name");
  const MEMORY = Symbol("memory");
  const Elements = class Elements extends FieldArray {
    constructor(name, length, memory) {
      super(length);
      this[NAME] = name;
      this[MEMORY] = memory;
    }
    at(index) {
      if (!(index >= 0 && index < this.length && index === (index | 0))) {
        throw badIndex(index, this.length, this[NAME]);
      }
      return new View(this[MEMORY], index * ${size});
    }
  };
  return { View, accessors: View.accessors, Elements };`;
  return new Function("FieldArray", "badIndex", "gone", "fields", "names", source)(
    FieldArray,
    badIndex,
    gone,
    properties.map(([, field]) => field),
    properties.map(([name]) => name),
  );
}

/** The same without generated source. */
function written(properties: readonly Property[], size: number): Classes {
  class View {
    readonly #memory: Memory;
    readonly #base: number;

    constructor(memory: Memory, base: number) {
      this.#memory = memory;
      this.#base = base;
    }

    static accessors = properties.map(([name, field, offset]): PropertyDescriptor => ({
      get(this: View): unknown {
        return field.read?.(this.#memory, this.#base + offset);
      },
      ...field.write === undefined ? {} : {
        set(this: View, value: unknown): void {
          field.write?.(this.#memory, this.#base + offset, value, name);
        },
      },
    }));
  }
  class Elements extends FieldArray<object> {
    readonly #name: string;
    readonly #memory: Memory;

    constructor(name: string, length: number, memory: Memory) {
      super(length);
      this.#name = name;
      this.#memory = memory;
    }

    override at(index: number): object {
      if (!(index >= 0 && index < this.length && index === (index | 0))) {
        throw badIndex(index, this.length, this.#name);
      }
      return new View(this.#memory, index * size);
    }
  }
  return { View, accessors: View.accessors, Elements };
}

function classesOf(properties: readonly Property[], size: number): Classes {
  try {
    return generate(properties, size);
  } catch (cause) {
    // The program is not allowed to make code of strings.
    if (cause instanceof EvalError) return written(properties, size);
    throw cause;
  }
}

/**
 * Behind the prototype of each view: a misspelt field is an error, not a property that nobody else
 * sees. Making the views themselves refuse it would cost more than making them.
 */
const END: object = new Proxy(Object.prototype, {
  set(_target, name): never {
    throw new TypeError(`The struct has no field ${JSON.stringify(String(name))} to assign to.`);
  },
});

/** Makes the views of a layout. */
export class Views {
  readonly #size: number;
  readonly #kinds = new Set<Kind>();
  readonly #View: ViewClass;
  readonly #Elements: ElementsClass;

  /** @param extra Other properties of the prototype. */
  constructor(properties: readonly Property[], size: number, extra: PropertyDescriptorMap) {
    const { View, accessors, Elements } = classesOf(properties, size);
    for (const [, { kind }] of properties) {
      if (kind !== undefined) this.#kinds.add(kind);
    }
    // A field may have this name.
    Reflect.deleteProperty(View.prototype, "constructor");
    properties.forEach(([name], i) => {
      Object.defineProperty(View.prototype, name, { ...accessors[i], enumerable: true });
    });
    Object.defineProperties(View.prototype, extra);
    Object.setPrototypeOf(View.prototype, END);
    this.#size = size;
    this.#View = View;
    this.#Elements = Elements;
  }

  view(place: Place): object {
    return new this.#View(new Memory(place, this.#size, this.#kinds), 0);
  }

  /** An array of them; undefined: it is too large. */
  elements(place: Place, name: string, count: number): FieldArray<object> | undefined {
    const size = this.#size * count;
    if (size > INDEXED_MAX) return undefined;
    return new this.#Elements(name, count, new Memory(place, size, this.#kinds));
  }
}
