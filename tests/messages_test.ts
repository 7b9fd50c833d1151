/**
 * Every message that a user can meet says what happened to which thing, with the numbers, and what
 * to do next: shown for each code by one that was really thrown, and for all the rest by reading
 * the sources for sentences that begin with what to do.
 */

import { assert, assertEquals } from "@std/assert";
import { readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { oldestVersions } from "../.ci/toolchain.ts";
import { codes } from "../lib/errors.ts";
import { native } from "../lib/ffi/native.ts";
import { listenTo } from "../lib/wait.ts";
import { defineAddin, DsmrError, type DsmrErrorCode, Registry, struct, u32 } from "../lib/mod.ts";
import { test } from "./_declare.ts";
import { assertFails, inScene, type Scene } from "./_scene.ts";
import { root } from "./_spawn.ts";

/** Words by which a sentence, or the second half of one, tells somebody to do something. */
const ORDERS = "Acquire|Allow|Ask|Await|Begin|Build|Call|Choose|Close|Destroy|Destroying|Detach|" +
  "Drop|Free|Get|Give|Initialise|Leave|Let|Load|Make|Name|Omit|Open|Put|Raise|Release|Remove|" +
  "Request|Set|Shorten|Start|Stop|Take|Terminate|Use|Wait";
const NEXT_STEP = new RegExp(`(?:^|[.:;?] |, or |\\bit )(?:${ORDERS})\\b`, "i");
/** Or it says whose turn it is, or the rule that was broken. */
const OTHERWISE = new RegExp(
  "the next (?:owner|one)|whoever asks for it next|it must (?:be|have)|see |Names are|" +
    "a size is a|(?:segment|registry) has 1 to|not a string",
  "i",
);

interface Row {
  provoke(scene: Scene): unknown;
  /** The names and numbers that must be in it. */
  says: (string | number)[];
}

const named = (registry: Registry) => registry.getNamedSegmentSync("jobs", 4096);

/** For each code one way to meet it, in one process. */
const table: Readonly<Record<Exclude<DsmrErrorCode, "ABORTED">, Row>> = {
  EXISTS: {
    provoke: (scene) => (scene.open(), scene.open({ mode: "create" })),
    says: ['"test"', "create"],
  },
  NOT_FOUND: {
    provoke: (scene) => scene.open({ mode: "attach" }),
    says: ['"test"', "DSMR_DIR"],
  },
  SIZE_MISMATCH: {
    provoke(scene) {
      const registry = scene.open();
      named(registry);
      registry.getNamedSegmentSync("jobs", 8192);
    },
    says: ['"jobs"', 4096, 8192, "Drop it first, or omit the size"],
  },
  LAYOUT_MISMATCH: {
    provoke(scene) {
      const registry = scene.open();
      const make = (name: string) =>
        registry.getNamedSegmentSync("jobs", undefined, undefined, {
          layout: struct({ [name]: u32 }),
        });
      make("before");
      make("after");
    },
    says: ['"jobs"', "before", "after"],
  },
  SCOPE_MISMATCH: {
    provoke(scene) {
      const addin = defineAddin({
        name: "stats",
        init(handle) {
          handle.allocateShmem({ name: "stats:1", size: 64, scope: "global" });
          handle.allocateShmem({ name: "stats:1", size: 64, scope: "database" });
        },
      });
      try {
        scene.open({ addins: [addin] });
      } catch (error) {
        throw (error as DsmrError).cause ?? error;
      }
    },
    says: ['"stats"', '"stats:1"', "global", "database", 64],
  },
  NAME_INVALID: { provoke: (scene) => scene.open({}, "a/b"), says: ['"a/b"', "byte 1 of 3"] },
  NAME_TOO_LONG: { provoke: (scene) => scene.open({}, "n".repeat(64)), says: ["nnn", 64, 63] },
  SIZE_INVALID: {
    provoke: (scene) => scene.open().getNamedSegmentSync("jobs", 1.5),
    says: ['"jobs"', 1.5],
  },
  NO_SPACE: {
    provoke: (scene) => scene.open().getNamedSegmentSync("jobs", 2 ** 43),
    says: ['"jobs"', 2 ** 43],
  },
  REGISTRY_FULL: {
    provoke(scene) {
      const registry = scene.open({ maxSegments: 1 });
      for (const name of ["a", "b", "c", "d"]) registry.getNamedSegmentSync(name, 64);
    },
    says: ['"test"', "maxSegments"],
  },
  BACKENDS_FULL: {
    async provoke(scene) {
      scene.open({ maxBackends: 1 });
      const child = await scene.start("bun");
      const command = { do: "open", name: "test", options: { dir: scene.dir } } as const;
      const { ok, code, message } = await child.ask(command);
      assertEquals(ok, false);
      throw new DsmrError(code as DsmrErrorCode, message ?? "");
    },
    says: ['"test"', "all 1 backends", "maxBackends"],
  },
  TRANCHES_FULL: {
    provoke(scene) {
      const registry = scene.open();
      for (let i = 0; i < 10_000; i++) registry.newTranche(`t${i}`);
    },
    says: ['"test"', '"t'],
  },
  PERMISSION: {
    provoke(scene) {
      symlinkSync("/dev/null", join(scene.dir, "dsmr.r.test"));
      scene.open();
    },
    says: ["dsmr.r.test", "symbolic link"],
  },
  CORRUPT: {
    provoke(scene) {
      const path = join(scene.dir, "dsmr.r.test");
      writeFileSync(path, "");
      truncateSync(path, 4096);
      scene.open();
    },
    says: ["dsmr.r.test", "found 0"],
  },
  VERSION_MISMATCH: {
    provoke(scene) {
      scene.open().close();
      const path = join(scene.dir, "dsmr.r.test");
      const bytes = readFileSync(path);
      bytes.writeUInt32LE(0x01020304, 8);
      writeFileSync(path, bytes);
      scene.open();
    },
    says: ["dsmr.r.test", "01020304"],
  },
  INIT_FAILED: {
    provoke(scene) {
      scene.open().getNamedSegmentSync("jobs", 64, () => {
        throw new Error("the migration has failed");
      });
    },
    says: ['"jobs"', "the migration has failed"],
  },
  INIT_RECURSION: {
    provoke(scene) {
      const registry = scene.open();
      try {
        registry.getNamedSegmentSync("jobs", 64, () => void named(registry));
      } catch (error) {
        throw (error as DsmrError).cause ?? error;
      }
    },
    says: ['"jobs"', "callback"],
  },
  TIMEOUT: {
    async provoke(scene) {
      const registry = scene.open();
      const { lock } = named(registry);
      await lock.acquire();
      await Promise.all([lock.acquire("exclusive", { timeout: 1 })]);
    },
    says: ['"jobs"', "1 ms"],
  },
  ABANDONED: {
    provoke(scene) {
      const before = scene.open();
      named(before).lock.acquireSync();
      before.close();
      const segment = scene.open().getNamedSegmentSync("jobs", 4096, undefined, {
        repair() {
          throw new Error("beyond repair");
        },
      });
      segment.lock.acquireSync();
    },
    says: ['"jobs"', "still abandoned"],
  },
  NOT_HELD: { provoke: (scene) => named(scene.open()).lock.release(), says: ['"jobs"'] },
  ALREADY_HELD: {
    provoke(scene) {
      const { lock } = named(scene.open());
      lock.acquireSync();
      lock.acquireSync();
    },
    says: ['"jobs"'],
  },
  DEADLOCK: {
    async provoke(scene) {
      const { lock } = named(scene.open());
      await lock.with("exclusive", async () => {
        // In a turn of its own: by code that is not the task that holds it.
        await new Promise<void>((resolve, reject) =>
          setTimeout(() => {
            try {
              lock.acquireSync();
              resolve();
            } catch (error) {
              reject(error);
            }
          })
        );
      });
    },
    says: ['"jobs"'],
  },
  DETACHED: {
    provoke(scene) {
      const segment = named(scene.open());
      segment.detach();
      return segment.buffer;
    },
    says: ['"jobs"'],
  },
  CLOSED: {
    provoke(scene) {
      const registry = scene.open();
      registry.close();
      named(registry);
    },
    says: ['"test"'],
  },
  UNSUPPORTED: {
    provoke(scene) {
      let kept: { requestSpace(bytes: number): void } | undefined;
      const addin = defineAddin({
        name: "stats",
        request(ctx) {
          kept = ctx;
        },
      });
      scene.open({ addins: [addin] });
      kept?.requestSpace(64);
    },
    says: ['"stats"', "requestSpace()"],
  },
};

for (const [code, { provoke, says }] of Object.entries(table)) {
  test(`${code}: a message names what, which, the numbers, and the next step`, () =>
    inScene(async (scene) => {
      let thrown: unknown;
      try {
        await provoke(scene);
      } catch (error) {
        thrown = error;
      }
      assert(thrown instanceof DsmrError, `Expected ${code}, got ${thrown}`);
      const { message } = thrown;
      assertEquals(thrown.code, code as DsmrErrorCode, message);
      for (const text of says) assert(message.includes(String(text)), `"${text}": ${message}`);
      assert(NEXT_STEP.test(message) || OTHERWISE.test(message), `no next step: ${message}`);
      assert(
        /^(?:[A-Z"]|\w+\(\) )/.test(message) && /\.$/.test(message),
        `no sentences: ${message}`,
      );
    }));
}

test("each code has been met, but that of an abort, which throws what its signal says", () => {
  assertEquals([...Object.keys(table), "ABORTED"].sort(), [...codes].sort());
});

/** What is a part of another message, or is told to nobody but another part of the library. */
const PARTS: readonly RegExp[] = [
  // The reasons of INIT_FAILED, which goes on with what becomes of the segment or the registry.
  /^The registry was closed\.$/,
  /^It has closed the registry\.$/,
  /^The registry was destroyed\.$/,
  // Handed on, word for word or within a sentence.
  /^[\s${}\w.,:()]*$/,
  /\$\{(?:cause\.message|plainly\(|messageOf\(|why\}|this\.#advice\(|dynamicHint\()/,
  /^Another backend of registry .* request hooks: $/,
];

/** C, where each byte counts: known to say less than they should. */
const TERSE: readonly RegExp[] = [
  /random numbers/,
  /is no scope of a segment|is no mode to open|is no lifetime|was not filled by begin/,
  /the byte offset is no multiple of 8/,
  /^%s failed\.$/,
  /^%s$/,
  /^There is no segment .* in registry .*"%s\\"\.$/,
  /it belongs to|There is nothing to commit/i,
  /no memory, thread or watch is left/,
  /The ticket is none of this registry/,
  /^The directory's path has a NUL/,
  /^Cannot open registry .*: out of memory\.$/,
];

/** The texts among a call's arguments. */
function textsIn(source: string): string[] {
  return [...source.matchAll(/"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`|'([^'\n]*)'/g)]
    .map(([, a, b, c]) => a ?? b ?? c ?? "").filter((text) => !/^(?:DSMR_E_)?[A-Z_]+$/.test(text));
}

/** From behind an opening bracket to the one that closes it. */
function argumentsAt(source: string, begin: number): string {
  let depth = 1;
  let at = begin;
  for (; depth > 0 && at < source.length; at++) {
    if (source[at] === "(") depth++;
    if (source[at] === ")") depth--;
  }
  return source.slice(begin, at - 1);
}

function messagesOf(folder: string, ending: string, call: RegExp): [string, string[]][] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(ending) && !name.startsWith("tests/"))
    .flatMap((name) => {
      const source = readFileSync(join(root, folder, name), "utf8");
      return [...source.matchAll(call)].map(({ 0: { length }, index }): [string, string[]] => {
        const line = source.slice(0, index).split("\n").length;
        return [`${folder}/${name}:${line}`, textsIn(argumentsAt(source, index + length))];
      });
    });
}

test("every message of the library says what to do next, or is known not to", () => {
  const ours = messagesOf("lib", ".ts", /new DsmrError\(/g);
  const native = messagesOf("c", ".c", /\bFAIL(?:_NUMBERS)?\(/g);
  assert(ours.length > 90 && native.length > 50, `only ${ours.length} and ${native.length} found`);
  const silent = [...ours, ...native]
    .map(([place, texts]) => [place, texts.join("")] as const)
    .filter(([, text]) => !NEXT_STEP.test(text) && !OTHERWISE.test(text))
    .filter(([, text]) => ![...PARTS, ...TERSE].some((known) => known.test(text)))
    .map(([place, text]) => `${place}: ${text}`);
  assertEquals(silent, []);
});

test("what the system refuses is told with its words and the next step", () =>
  inScene((scene) => {
    const gone = join(scene.dir, "gone");
    const calls = [
      [
        () => Registry.openSync("test", { dir: gone }),
        `Cannot create registry "test" in ${gone}: No`,
      ],
      [() => Registry.list({ dir: gone }), `Cannot list ${gone}: No such file`],
    ] as const;
    for (const [call, says] of calls) {
      const { message } = assertFails(call, "NOT_FOUND");
      assert(message.startsWith(says), message);
      assert(
        message.endsWith(". Make the directory, or name another one: the option dir, or DSMR_DIR."),
      );
    }
  }));

test("a runtime that makes no socket of a descriptor hears which ones do", async () => {
  const { runtime: own } = native();
  // What Deno 2.7.11 says.
  const listen = () => Promise.reject(new Error("Not implemented: net.Socket with fd option"));
  const runtime = { ...own, listen };
  const thrown = await listenTo(runtime, 12, () => {}, () => {}).catch((error: unknown) => error);
  assert(thrown instanceof DsmrError && thrown.code === "UNSUPPORTED", String(thrown));
  const { deno, bun } = oldestVersions;
  for (const part of [`${own.label} made no socket`, `Use Deno ${deno} or Bun ${bun}, or later`]) {
    assert(thrown.message.includes(part), thrown.message);
  }
});

/** Messages of the runtimes, which are in none of our files. */
const FOREIGN: readonly RegExp[] = [
  /^GET \.\.\.\/dsmr/,
  /^error sending request for url/,
];

/** The first sentence of a message, as a pattern: what is filled in may be anything. */
function firstSentence(text: string): RegExp {
  const parts = text.replaceAll('\\"', '"')
    .split(/(\$\{(?:[^{}]|\{[^}]*\})*\}|%-?\d*(?:\.\*)?l*[usdxc]?)/);
  let pattern = "";
  for (const [i, part] of parts.entries()) {
    if (i % 2 === 1) {
      pattern += ".*";
      // Some are sentences, with a full stop of their own.
      if (/messageOf\(/.test(part) || /^ [A-Z]/.test(parts[i + 1] ?? "")) break;
      continue;
    }
    const end = /[.?](?= |$)/.exec(part);
    const words = end === null ? part : part.slice(0, end.index);
    pattern += words.replaceAll(/[\\^$.*+?()[\]{}|]/g, "\\$&");
    if (end !== null) break;
  }
  return new RegExp(`^${pattern}`);
}

test("each message that the troubleshooting guide quotes is one that is printed", () => {
  const guide = readFileSync(join(root, "docs", "troubleshooting.md"), "utf8");
  const quoted = [...guide.matchAll(/^### `(.*)`$/gm)].map(([, text = ""]) => text);
  assert(quoted.length >= 30, `only ${quoted.length} were found`);
  const calls = /new (?:Dsmr)?Error\(|#finish\(|\bmismatch\(/g;
  const patterns = [
    ...messagesOf("lib", ".ts", calls),
    ...messagesOf("c", ".c", /\bFAIL(?:_NUMBERS)?\(/g),
    // Of two that a condition chooses from, each by itself.
  ].flatMap(([, texts]) => [texts.join(""), ...texts]).map(firstSentence)
    // One that is filled in as a whole would fit everything.
    .filter(({ source }) => source.replaceAll(".*", "").length > 12);
  const unknown = quoted.filter((message) =>
    ![...patterns, ...FOREIGN].some((pattern) => pattern.test(message))
  );
  assertEquals(unknown, []);
});
