/**
 * docs/memory-format.md against what it describes: each offset, size and number in its tables is
 * that of c/layout.h, whose own static asserts the C compiler checks, or of the constants in lib.
 */

import { assert, assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "./_declare.ts";
import { root } from "./_spawn.ts";

const read = (path: string): string => readFileSync(join(root, path), "utf8");
const page = read("docs/memory-format.md");

// ---- the page ------------------------------------------------------------------------------

/** A row: its cells, without the marks of code. */
type Row = string[];
interface PageTable {
  heads: Row;
  rows: Row[];
}

/** The tables below a heading, up to the next heading of any depth. */
function tablesBelow(heading: string): PageTable[] {
  const begin = page.split("\n").findIndex((line) => line.replace(/^#+ /, "") === heading);
  assert(begin > 0, `the page has no heading "${heading}"`);
  const tables: PageTable[] = [];
  let isInside = false;
  for (const line of page.split("\n").slice(begin + 1)) {
    if (line.startsWith("#")) break;
    if (!line.startsWith("|")) {
      isInside = false;
      continue;
    }
    const cells = line.split("|").slice(1, -1).map((cell) => cell.replaceAll("`", "").trim());
    if (!isInside) tables.push({ heads: cells, rows: [] });
    else if (!/^-+$/.test(cells[0] ?? "")) tables.at(-1)?.rows.push(cells);
    isInside = true;
  }
  return tables;
}

function tableBelow(heading: string, head: string, nth = 0): Row[] {
  const table = tablesBelow(heading).filter(({ heads }) => heads[0] === head)[nth];
  assert(table !== undefined, `no table of "${head}" below "${heading}"`);
  assert(table.rows.length > 0);
  return table.rows;
}

interface Field {
  name: string;
  offset: number;
  size: number;
}

/** A table of offsets: without gaps, so that nothing is left out. The last may be of any size. */
function fieldsBelow(heading: string, nth = 0): Field[] {
  const fields = tableBelow(heading, "offset", nth).map(([offset, size, name = ""]) => ({
    name,
    offset: Number(offset),
    size: size === "..." ? Infinity : Number(size),
  }));
  fields.forEach(({ name, offset, size }, i) => {
    assert(Number.isInteger(offset) && size > 0, `${heading}: ${name}`);
    const next = fields[i + 1];
    if (next !== undefined) assertEquals(next.offset, offset + size, `${heading}: after ${name}`);
  });
  return fields;
}

// ---- c/layout.h ----------------------------------------------------------------------------

const withoutComments = (text: string): string => text.replaceAll(/\/\*[^]*?\*\//g, "");
const layout = withoutComments(read("c/layout.h"));
const defines = new Map(
  [...(withoutComments(read("c/dsmr.h")) + layout).matchAll(/^#define (\w+) ([^\n\\]+)$/gm)]
    .map(([, name = "", value = ""]) => [name, value.trim()]),
);

/** A number of C, a name of one, a quotient of two, or a shift. */
function numberInC(text: string): bigint {
  const plain = text.replaceAll(/\b(?:UINT32_C|UINT64_C|INT64_C)\((\w+)\)/g, "$1")
    .replace(/^\((.*)\)$/, "$1").trim();
  const operation = /^(\w+) (\/|<<|\+) (\w+)$/.exec(plain);
  if (operation !== null) {
    const [left, right] = [numberInC(operation[1] ?? ""), numberInC(operation[3] ?? "")];
    if (operation[2] === "+") return left + right;
    return operation[2] === "/" ? left / right : left << right;
  }
  if (/^(?:0x[\da-f]+|\d+)u?$/i.test(plain)) return BigInt(plain.replace(/u$/i, ""));
  const value = defines.get(plain);
  assert(value !== undefined, `not understood in c/layout.h: ${text}`);
  return numberInC(value);
}

interface Struct {
  size: number;
  align: number;
  fields: Field[];
}

const structs = new Map<string, Struct>();

function typeInC(name: string): { size: number; align: number } {
  const bits = /^u?int(\d+)_t$/.exec(name)?.[1];
  if (bits !== undefined) return { size: Number(bits) / 8, align: Number(bits) / 8 };
  const known = structs.get(name.replace("struct ", ""));
  if (name === "char") return { size: 1, align: 1 };
  assert(known !== undefined, `unknown type in c/layout.h: ${name}`);
  return known;
}

for (const [, name = "", body = ""] of layout.matchAll(/^struct (\w+) \{([^}]*)\};/gm)) {
  const struct: Struct = { size: 0, align: 1, fields: [] };
  for (const declaration of body.split(";").map((one) => one.trim()).filter((one) => one !== "")) {
    const found = /^(?:_Atomic )?((?:struct )?\w+) (\w+)(?:\[(.+)\])?$/.exec(declaration);
    assert(found !== null, `not understood in struct ${name}: ${declaration}`);
    const [, type = "", field = "", count] = found;
    const { size, align } = typeInC(type);
    const offset = Math.ceil(struct.size / align) * align;
    const bytes = size * (count === undefined ? 1 : Number(numberInC(count)));
    struct.fields.push({ name: field, offset, size: bytes });
    struct.size = offset + bytes;
    struct.align = Math.max(struct.align, align);
  }
  struct.size = Math.ceil(struct.size / struct.align) * struct.align;
  structs.set(name, struct);
}

function structNamed(name: string): Struct {
  const struct = structs.get(name);
  assert(struct !== undefined, `c/layout.h has no struct ${name}`);
  return struct;
}

/** Values of enumerators and of plain defines. */
function valueInC(name: string): number {
  const enumerator = new RegExp(`^ {2}${name} = (\\d+),`, "m").exec(layout)?.[1];
  const inLine = new RegExp(`[{,] ${name} = (\\d+)[ ,]`).exec(layout)?.[1];
  return Number(enumerator ?? inLine ?? numberInC(name));
}

test("c/layout.h is read here as its own static asserts say it is compiled", () => {
  let count = 0;
  for (
    const [, of, name = "", field, value = ""] of layout.matchAll(
      /static_assert\((sizeof|offsetof)\(struct (\w+)(?:, (\w+))?\) == (\w+),/g,
    )
  ) {
    const struct = structNamed(name);
    const actual = of === "sizeof"
      ? struct.size
      : struct.fields.find((one) => one.name === field)?.offset;
    assertEquals(actual, Number(numberInC(value)), `${name} ${field ?? ""}`);
    count++;
  }
  assert(count >= 20, `only ${count} asserts were found`);
});

test("the page has every field of every structure of c/layout.h where it is", () => {
  assert(structs.size >= 8, [...structs.keys()].join());
  for (const [name, { fields }] of structs) {
    assertEquals(fieldsBelow(`\`struct ${name}\``), fields, `struct ${name}`);
  }
});

test("states, flags and bits on the page are those of c/layout.h", () => {
  const values: [heading: string, nth: number, count: number][] = [
    ["`struct control_header`", 0, 2],
    ["`struct backend_slot`", 0, 2],
    ["`struct backend_slot`", 1, 2],
    ["`struct entry`", 0, 6],
    ["`struct entry`", 1, 2],
  ];
  for (const [heading, nth, count] of values) {
    const rows = tableBelow(heading, "value", nth);
    assertEquals(rows.length, count, heading);
    for (const [value, name = ""] of rows) assertEquals(Number(value), valueInC(name), name);
  }
  for (const [bit, name = ""] of tableBelow("`struct lwlock`", "bit")) {
    assertEquals(2n ** BigInt(bit ?? ""), numberInC(name), name);
  }
});

test("the parts of both files on the page are those of c/layout.h", () => {
  const sizes = tableBelow("The control file", "part").map((row) => Number(row[3]));
  const parts = ["control_header", "backend_slot", "database_row", "tranche_row", "entry"];
  assertEquals(sizes, parts.map((name) => structNamed(name).size));
  const [header, slots, databases, tranches] = tableBelow("The control file", "part");
  assertEquals(Number(header?.[2]), 1);
  assertEquals(slots?.[2], "backend_count_max");
  assertEquals(Number(databases?.[2]), valueInC("DSMR_DATABASES_MAX"));
  assertEquals(Number(tranches?.[2]), valueInC("TRANCHES_MAX"));
  assertEquals(numberInC("LOCK_BYTE_TABLE"), 2n ** 40n);
  assertEquals(numberInC("LOCK_BYTE_SLOT"), 2n ** 40n + 64n);
  const begins = tableBelow("The segment file", "offset").map(([offset]) => Number(offset));
  assertEquals(begins, [0, valueInC("SEGMENT_LOCK_OFFSET"), valueInC("SEGMENT_DATA_OFFSET")]);
  assertEquals(valueInC("LOCK_SIZE"), 64);
  const magic = (name: string, length: number): string => {
    const bytes = Array.from({ length }, (_, i) => Number(numberInC(name) >> BigInt(8 * i) & 255n));
    return String.fromCharCode(...bytes);
  };
  assert(page.includes(`\`${magic("CONTROL_MAGIC", 8)}\` in ASCII`));
  assert(page.includes(`\`${magic("SEGMENT_MAGIC", 8)}\` in ASCII`));
  assert(page.includes(`\`${magic("LOCK_MAGIC", 4)}\` in ASCII`));
});

test("the version and the format number on the page are those of c/layout.h", () => {
  const version = valueInC("FORMAT_VERSION");
  assert(page.includes(`This page describes format version ${version}.`));
  const changes = readFileSync(join(root, "CHANGELOG.md"), "utf8");
  // The newest entry comes first.
  assertEquals(/^- Version (\d+)\./m.exec(changes)?.[1], String(version), "CHANGELOG.md");
  const size = (name: string): number => structNamed(name).size;
  const format = version << 24 ^ size("control_header") << 14 ^ size("backend_slot") << 7 ^
    size("entry") << 1 ^ size("segment_header");
  assert(page.includes(`It is 0x${format.toString(16).padStart(8, "0")} in this version.`));
});

// ---- lib -----------------------------------------------------------------------------------

/** The numbers that the modules of lib define at their top, by file. */
const numbers = new Map<string, Map<string, number>>();

function numbersOf(file: string): Map<string, number> {
  const known = numbers.get(file);
  if (known !== undefined) return known;
  const found = new Map<string, number>();
  numbers.set(file, found);
  const source = read(file);
  const get = (name: string): number | undefined => {
    if (found.has(name)) return found.get(name);
    if (!/^[A-Z_]+$/.test(name)) return undefined;
    const from = new RegExp(`^import \\{[^}]*\\b${name}\\b[^}]*\\} from "([^"]+)";`, "m")
      .exec(source)?.[1];
    return from === undefined ? undefined : numbersOf(join(file, "..", from)).get(name);
  };
  // Sums and differences of products: what these files have.
  const product = (text: string): number | undefined =>
    text.split(" * ").reduce<number | undefined>((result, factor) => {
      const value = /^(?:\d[\d_]*|0x[\da-f]+)$/.test(factor)
        ? Number(factor.replaceAll("_", ""))
        : get(factor);
      return result === undefined || value === undefined ? undefined : result * value;
    }, 1);
  for (
    const [, name = "", expression = ""] of source.matchAll(
      /^(?:export )?const ([A-Z][A-Z_]*)(?:: number)? = ([\w +*-]+);/gm,
    )
  ) {
    const value = expression.split(" + ").reduce<number | undefined>((sum, term) => {
      const [first, ...others] = term.split(" - ").map(product);
      if (sum === undefined || first === undefined) return undefined;
      return others.reduce<number>((rest, other) => rest - (other ?? NaN), sum + first);
    }, 0);
    if (value !== undefined) found.set(name, value);
  }
  return found;
}

/** Which table of the page is made of which file's numbers, and in which unit those are. */
const tables: { heading: string; file: string; nth?: number; units: (name: string) => number }[] = [
  { heading: "Shared tables", file: "lib/shared_table.ts", units: () => 4 },
  { heading: "Shared tables", file: "lib/shared_table.ts", nth: 1, units: () => 4 },
  { heading: "Parked waits", file: "lib/parking_rows.ts", units: () => 4 },
  { heading: "Requests for named locks", file: "lib/web_locks_table.ts", units: () => 4 },
  { heading: "Signals", file: "lib/signal_words.ts", units: () => 4 },
  {
    heading: "The add-ins' directory",
    file: "lib/addins/directory.ts",
    // Words, as far as there are words; what is in other types counts bytes.
    units: (name) =>
      /^AT_(MAGIC|ADDINS|TRANCHES|COMMITTED|HOLD|PID|LABEL_LENGTH)$/.test(name) ? 4 : 1,
  },
  { heading: "The add-ins' directory", file: "lib/addins/directory.ts", nth: 1, units: () => 1 },
  { heading: "Background workers", file: "lib/workers/table.ts", units: () => 4 },
  {
    heading: "Background workers",
    file: "lib/workers/table.ts",
    nth: 1,
    units: (name) => /^(REASON|DATABASE|SPEC)_AT$/.test(name) ? 1 : 4,
  },
];

test("the page has the words of the library's own tables where they are", () => {
  let count = 0;
  for (const { heading, file, nth = 0, units } of tables) {
    for (const { name, offset } of fieldsBelow(heading, nth)) {
      if (name === "-") continue;
      const value = numbersOf(file).get(name);
      assert(value !== undefined, `${file} has no number ${name}`);
      assertEquals(offset, value * units(name), `${heading}: ${name}`);
      count++;
    }
  }
  assert(count > 75, `only ${count} fields`);
});

test("states, flags and outcomes on the page are those of the library's own tables", () => {
  const values: [heading: string, file: string, tables: number][] = [
    ["Parked waits", "lib/parking_rows.ts", 1],
    ["Requests for named locks", "lib/web_locks_table.ts", 1],
    ["Background workers", "lib/workers/table.ts", 3],
  ];
  for (const [heading, file, tables] of values) {
    for (let nth = 0; nth < tables; nth++) {
      for (const [value, name = ""] of tableBelow(heading, "value", nth)) {
        assertEquals(Number(value), numbersOf(file).get(name), `${file}: ${name}`);
      }
    }
  }
});

test("sizes that the page tells in words are those of the library's own tables", () => {
  const is = (file: string, name: string, value: number): void =>
    assertEquals(numbersOf(file).get(name), value, name);
  const says = (text: string): void =>
    assert(page.replaceAll(/\s+/g, " ").includes(text), `the page does not say: ${text}`);
  is("lib/parking_rows.ts", "BUCKETS", 1024);
  is("lib/parking_rows.ts", "BUCKET_WORDS", 12 / 4);
  is("lib/parking_rows.ts", "ROWS", 16_384);
  says("1,024 buckets of 12 bytes");
  says("Then 16,384 rows");
  is("lib/web_locks_table.ts", "BUCKET_WORDS", 8 / 4);
  is("lib/web_locks_table.ts", "NAME_WORDS", 512 / 4);
  says("1,024 buckets of 8 bytes");
  for (
    const [file, text] of [
      ["lib/parking_rows.ts", "rowWords: 12"],
      ["lib/web_locks_table.ts", "rows: 1024"],
      ["lib/web_locks_table.ts", "extents: 10"],
    ] as const
  ) assert(read(file).includes(text), `${file}: ${text}`);
  says("the row has 48 bytes");
  says("Then 1,024 rows; the table doubles up to 10 times");
  is("lib/signal_words.ts", "SIZE", 64);
  is("lib/layouts.ts", "LAYOUTS_SIZE", 65_536);
  is("lib/layouts.ts", "RECORDS", 8);
  is("lib/layouts.ts", "RECORD_HEADER", 16);
  is("lib/addins/directory.ts", "ROW", 88);
  is("lib/addins/directory.ts", "MAGIC", 0x31696461);
  is("lib/addins/directory.ts", "ADDINS_MAX", 64);
  is("lib/addins/directory.ts", "REQUESTED_TRANCHES_MAX", 256);
  is("lib/addins/directory.ts", "AREAS_MAX", 256);
  is("lib/workers/table.ts", "HEADER_BYTES", 4096);
  is("lib/workers/table.ts", "ROW_BYTES", 4096);
  is("lib/workers/table.ts", "ROWS_MAX", 256);
  is("lib/workers/table.ts", "REASON_BYTES", 512);
  is("lib/workers/table.ts", "DATABASE_BYTES", 64);
  is("lib/workers/spec.ts", "SPEC_BYTES_MAX", 3072);
});

/** Numbers of these files that say nothing of the memory. */
const elsewhere = new Set(["PATIENCE_MS", "TEXT_MAX", "EXTENT_PLACES", "GRACE_MS", "DELAY_MAX_MS"]);

test("every number that the files of the library's own tables define is on the page", () => {
  const files = new Set([...tables.map(({ file }) => file), "lib/layouts.ts"]);
  /** What the page tells otherwise than by that name. */
  const told = new Set([
    ...["BACKENDS", "SLOTS", "BUCKETS", "BUCKET_WORDS", "ROWS", "SIZE", "NUMBER_MAX"],
    ...["NAME_WORDS", "NAME_LENGTH_MAX", "MAGIC", "UNIT", "LABEL_MAX", "ROW", "NAME_MAX"],
    ...["ADDINS_MAX", "REQUESTED_TRANCHES_MAX", "AREAS_MAX", "FIRST_TRANCHE", "FIRST_AREA"],
    ...["DIRECTORY_SIZE", "TABLE_BYTES", "REASON_BYTES", "DATABASE_BYTES"],
  ]);
  let count = 0;
  for (const file of files) {
    for (const name of numbersOf(file).keys()) {
      if (elsewhere.has(name) || told.has(name)) continue;
      assert(page.includes(`\`${name}\``), `${name} of ${file} is not on the page`);
      count++;
    }
  }
  assert(count > 90, `only ${count} numbers`);
});
