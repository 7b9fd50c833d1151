/**
 * `dsmr ls`: the registries of a directory.
 *
 * @module
 */

import { Registry, type RegistryInfo } from "../lib/mod.ts";
import { directory } from "../lib/requests.ts";
import { type Command, type Context, FOUND, type Invocation, OK, placeOf } from "./command.ts";
import { segmentBytes } from "./files.ts";
import { bytes, joined, json, paint, printable, since, table } from "./text.ts";

/** A registry with what its segments' files take. */
export interface ListedRegistry extends RegistryInfo {
  /** Bytes of its segments' files. */
  segmentBytes: number;
}

/** The registries, those that cannot be attached included. */
export function listed(invocation: Invocation): ListedRegistry[] {
  const place = placeOf(invocation);
  const all = [...Registry.list(place)];
  const sizes = segmentBytes(directory(place));
  return all.map((info) => ({ ...info, segmentBytes: sizes.get(info.name) ?? 0 }));
}

async function run(context: Context, invocation: Invocation): Promise<number> {
  const all = listed(invocation);
  const code = all.some(({ problem }) => problem !== null) ? FOUND : OK;
  if (invocation.values["json"] === true) {
    await context.write(json(all));
  } else if (invocation.values["names"] === true) {
    await context.write(joined(all.map(({ name }) => printable(name))));
  } else if (all.length === 0) {
    const place = directory(placeOf(invocation));
    await context.write(`There are no registries of yours in ${printable(place)}.\n`);
  } else {
    const rows = all.map((info) =>
      info.problem === null
        ? [
          info.name,
          bytes(info.size + info.segmentBytes),
          `${info.backends} of ${info.maxBackends}`,
          `${info.segments} of ${info.maxSegments}`,
          since(info.createdAt),
          "ok",
        ]
        : [info.name, bytes(info.segmentBytes), "-", "-", "-", info.problem]
    );
    const heads = ["REGISTRY", "SIZE", "BACKENDS", "SEGMENTS", "UP", "STATE"];
    const [head = "", ...lines] = table(heads, rows);
    const painted = lines.map((line, i) =>
      all[i]?.problem === null ? line : paint(context, "red", line)
    );
    await context.write(joined([paint(context, "bold", head), ...painted]));
    if (code !== OK) {
      context.complain(
        "Damaged registries, and those of other versions, are refused by whoever opens them. " +
          "When nothing uses one any more: dsmr rm REGISTRY.",
      );
    }
  }
  return code;
}

/** The command. */
export const ls: Command = {
  name: "ls",
  summary: "list the registries",
  operands: [],
  details:
    "Lists the registries of this user: what their files take, backends and segments of so " +
    "many that fit, how long ago each was created, and whether it can be attached. Attaches to " +
    "none of them.\n\nThe exit code is 1 if one is damaged or of another version.",
  examples: [["dsmr ls", "what is there"], ["dsmr ls --json | jq '.[].name'", "for programs"]],
  options: { names: { type: "boolean", help: "print the names only" } },
  run,
};
