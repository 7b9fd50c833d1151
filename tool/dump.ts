/**
 * `dsmr dump`: the bytes of a segment, and its fields.
 *
 * @module
 */

import { DsmrError } from "../lib/mod.ts";
import { recall } from "../lib/layouts.ts";
import { backendOfSegment } from "../lib/segment.ts";
import {
  attach,
  type Command,
  type Context,
  databaseOption,
  type Invocation,
  numberOf,
  OK,
  textOf,
  UsageError,
} from "./command.ts";
import { type FieldValue, fieldValues, hexLines, toHex } from "./bytes.ts";
import { bytes, joined, json, paint, printable, table } from "./text.ts";

/** More than this at once is for a program of its own. */
const LENGTH_MAX = 64 * 1024 * 1024;
const LENGTH_DEFAULT = 4096;

async function run(context: Context, invocation: Invocation): Promise<number> {
  const name = invocation.operands[1] ?? "";
  const isWhole = true;
  const max = Number.MAX_SAFE_INTEGER;
  const offset = numberOf(invocation, "offset", { min: 0, max, isWhole }) ?? 0;
  const wanted = numberOf(invocation, "length", { min: 1, max: LENGTH_MAX, isWhole });
  const scope = textOf(invocation, "scope") ?? "global";
  if (scope !== "global" && scope !== "database") {
    throw new UsageError(`--scope is ${JSON.stringify(scope)}; it must be global or database.`);
  }
  using registry = attach(invocation);
  const info = [...registry.segments()].find((one) =>
    one.name === name && one.database === (scope === "global" ? null : registry.database)
  );
  // A database that is not there has none.
  using segment = info === undefined ? null : registry.lookupSegment(name, { scope });
  if (segment === null) {
    const isThere = info !== undefined;
    throw new DsmrError(
      "NOT_FOUND",
      isThere
        ? `Segment "${name}" is still being initialised. See dsmr show.`
        : `There is no ${scope} segment "${name}" in registry "${registry.name}". See dsmr show; ` +
          "for one of a database: --scope database --database NAME.",
    );
  }
  const { size } = segment;
  if (offset > size) throw new UsageError(`--offset is ${offset}; the segment has ${size} bytes.`);
  const length = Math.min(wanted ?? LENGTH_DEFAULT, size - offset);
  // A copy, once, without a lock: its users go on meanwhile.
  const copy = new Uint8Array(segment.buffer, offset, length).slice();
  const layout = info?.layout ?? null;
  const description = layout === null
    ? undefined
    : recall(backendOfSegment(segment), BigInt(`0x${layout}`));
  const fields = description === undefined ? null : fieldValues(description, segment.buffer);
  if (invocation.values["json"] === true) {
    const hex = toHex(copy);
    await context.write(json({ segment: name, scope, size, layout, offset, length, hex, fields }));
    return OK;
  }
  const title = `${paint(context, "bold", printable(name))}: ${bytes(size)}` +
    (layout === null ? "" : `, layout ${layout}`);
  await context.write(`${title}\n`);
  if (fields !== null) await context.write(fieldText(context, fields));
  for (const chunk of hexLines(copy, offset)) await context.write(chunk);
  const left = size - offset - length;
  if (left > 0 && wanted === undefined) {
    context.complain(`${left} bytes more: see --offset and --length.`);
  }
  return OK;
}

function fieldText(context: Context, fields: readonly FieldValue[]): string {
  const rows = fields.map(({ name, type, offset, value }) => [
    offset === null ? "-" : `+${offset}`,
    name,
    type,
    value === null ? "-" : Array.isArray(value) ? value.join(" ") : String(value),
  ]);
  const [head = "", ...lines] = table(["OFFSET", "FIELD", "TYPE", "VALUE"], rows);
  return joined([paint(context, "dim", head), ...lines, ""]);
}

/** The command. */
export const dump: Command = {
  name: "dump",
  summary: "print a segment's bytes, and its fields where its layout is known",
  operands: ["REGISTRY", "SEGMENT"],
  details:
    "Prints bytes of a segment as hex and text, a line of equal ones as *. Where the segment was " +
    "made with a layout, and the registry has kept its description, the fields and their values " +
    "come first. The bytes are copied once, without a lock: what is being changed right then may " +
    "be half changed.",
  examples: [
    ["dsmr dump shop cache", `the first ${LENGTH_DEFAULT} bytes`],
    ["dsmr dump shop cache --offset 0x100 --length 64", "some of them"],
    ["dsmr dump shop cart --scope database --database tenant-a", "that of a database"],
  ],
  options: {
    offset: { type: "string", value: "BYTES", help: "where to begin (default: 0; 0x for hex)" },
    length: {
      type: "string",
      value: "BYTES",
      help: `how many, at most ${LENGTH_MAX} (default: ${LENGTH_DEFAULT})`,
    },
    scope: {
      type: "string",
      value: "SCOPE",
      help: "global (default) or database: whose name it is",
    },
    database: databaseOption,
  },
  run,
};
