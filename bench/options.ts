/**
 * The command line of the benchmark.
 *
 * @module
 */

import { join, resolve } from "node:path";
import { root } from "../.ci/toolchain.ts";

export interface Options {
  /** Few rounds of everything, under a minute: does it work, and not how fast is it. */
  isQuick: boolean;
  /** Only these parts; empty: all. */
  only: string[];
  /** Install Debian's packages and the npm peers first. */
  installsPeers: boolean;
  /** The folder that the results are written to. */
  out: string;
  /** Where the folder of the run is made: in shared memory. */
  shm: string;
  /** The folder with the package.json of the npm peers, and their node_modules. */
  peers: string;
  /** The README whose table is rewritten, if any. */
  readme: string | undefined;
}

export const USAGE: string = `usage: deno task bench [--quick] [--only=PART,...] [OPTION ...]

  --quick            few rounds, under a minute: shows that everything works; writes no README
  --only=PART,...    only these parts; results of the others are not in the output
  --install-peers    first install what can be compared with: npm packages (as any full run does)
                     and, as root on Debian, hyperfine, redis-server, libboost-dev and PostgreSQL
                     with its headers for servers
  --readme[=FILE]    write chart and table between the marks in FILE (README.md);
                     a full run of all parts does so to README.md anyway
  --no-readme        never
  --out=FOLDER       where the results go (bench/results, or bench/results/partial of a run that
                     is quick or not of all parts)
  --shm=FOLDER       where registries and other files of the run are made (/dev/shm)
  --peers=FOLDER     where the npm packages to compare with are (bench/peers)
`;

/** A command line that is not understood; the message is for people. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Reads the command line. Throws a UsageError. */
export function parseOptions(words: readonly string[], parts: readonly string[]): Options {
  let isQuick = false;
  let only: string[] = [];
  let installsPeers = false;
  let out: string | undefined;
  let shm = "/dev/shm";
  let peers = join(root, "bench", "peers");
  let readme: string | false | undefined;
  for (const word of words) {
    // What separates a task's own arguments from the others.
    if (word === "--") continue;
    const [name = "", ...rest] = word.split("=");
    const value = rest.length === 0 ? undefined : rest.join("=");
    if (name === "--quick" && value === undefined) isQuick = true;
    else if (name === "--install-peers" && value === undefined) installsPeers = true;
    else if (name === "--no-readme" && value === undefined) readme = false;
    else if (name === "--readme") readme = resolve(value ?? join(root, "README.md"));
    else if (name === "--out" && value) out = resolve(value);
    else if (name === "--shm" && value) shm = resolve(value);
    else if (name === "--peers" && value) peers = resolve(value);
    else if (name === "--only" && value) {
      only = value.split(",");
      const unknown = only.filter((part) => !parts.includes(part));
      if (unknown.length > 0) {
        throw new UsageError(`No part is named ${unknown.join(", ")}. Parts: ${parts.join(", ")}.`);
      }
    } else throw new UsageError(`"${word}" is not understood.\n${USAGE}`);
  }
  const isWhole = !isQuick && only.length === 0;
  readme ??= isWhole ? join(root, "README.md") : undefined;
  const results = join(root, "bench", "results");
  // What is committed is of whole runs.
  out ??= isWhole ? results : join(results, "partial");
  return {
    ...{ isQuick, only, installsPeers, out, shm, peers },
    readme: readme === false ? undefined : readme,
  };
}
