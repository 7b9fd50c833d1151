/**
 * `dsmr gc`: removes what dead registries have left behind. See leftovers.ts for why nothing that
 * lives is among it.
 *
 * @module
 */

import { Registry } from "../lib/mod.ts";
import { directory } from "../lib/requests.ts";
import { type Command, type Context, FOUND, type Invocation, OK, placeOf } from "./command.ts";
import { findLeftovers, type Leftover, removeLeftover, TEMPORARY_AGE_MS } from "./leftovers.ts";
import { bytes, joined, json, many, paint, table } from "./text.ts";

/** What became of each. */
type Fate = "would remove" | "removed" | "gone meanwhile" | "kept" | "failed";

type Judged = Leftover & { fate: Fate };

function clear(leftover: Leftover, isForced: boolean): Judged {
  if (!leftover.isOrphan) return { ...leftover, fate: "kept" };
  if (!isForced) return { ...leftover, fate: "would remove" };
  // Listing, below, has finished off what was half destroyed.
  if (leftover.kind === "registry") return { ...leftover, fate: "removed" };
  try {
    return { ...leftover, fate: removeLeftover(leftover) ? "removed" : "gone meanwhile" };
  } catch (error) {
    return { ...leftover, fate: "failed", why: String(error) };
  }
}

async function run(context: Context, invocation: Invocation): Promise<number> {
  const place = placeOf(invocation);
  const isForced = invocation.values["force"] === true;
  const dir = directory(place);
  const found = findLeftovers(dir, context.host.uid);
  // Finishes off registries that somebody died while destroying, as every listing does.
  if (isForced) Registry.list(place);
  const files = found.map((leftover) => clear(leftover, isForced));
  const orphans = files.filter(({ isOrphan }) => isOrphan);
  const total = orphans.reduce((sum, { bytes }) => sum + bytes, 0);
  const isClean = orphans.every(({ fate }) => fate === "removed" || fate === "gone meanwhile");
  if (invocation.values["json"] === true) {
    await context.write(json({ dir, force: isForced, bytes: total, files }));
    return isClean ? OK : FOUND;
  }
  if (files.length === 0) {
    await context.write("Nothing is left over.\n");
    return OK;
  }
  const rows = files.map(({ fate, bytes: size, name, why }) => [fate, bytes(size), name, why]);
  const [head = "", ...lines] = table(["", "SIZE", "FILE", "WHY"], rows);
  const what = `${many(orphans.length, "file")}, ${bytes(total)}`;
  const end = orphans.length === 0
    ? "Nothing to remove."
    : isForced
    ? `Removed what nobody needs: ${what}.`
    : `Nobody needs these: ${what}. Remove them with: dsmr gc --force`;
  await context.write(joined([paint(context, "bold", head), ...lines, end]));
  return isClean ? OK : FOUND;
}

/** The command. */
export const gc: Command = {
  name: "gc",
  summary: "remove files that dead registries have left behind",
  operands: [],
  details:
    "Lists files that nobody needs any more, and removes them with --force: segments whose registry " +
    "is gone (its control file was removed by hand, for instance), registries that somebody died " +
    `while destroying, and temporary files older than ${
      TEMPORARY_AGE_MS / 60_000
    } minutes that no ` +
    "process has open.\n\n" +
    "Never removes a registry that can be opened, or any file of it, even if nobody is attached: " +
    "what is in it is kept for whoever comes next. That is for dsmr rm. It can run while registries " +
    "come and go.\n\n" +
    "Without --force the exit code is 1 if there is something to remove.",
  examples: [["dsmr gc", "what would go"], ["dsmr gc --force", "removes it"]],
  options: { force: { type: "boolean", short: "f", help: "remove them" } },
  run,
};
