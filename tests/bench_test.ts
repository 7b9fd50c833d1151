/**
 * The benchmark: its arithmetic with a clock of the test's own, its charts and texts, and a quick
 * run of it. Nothing here says how fast anything is.
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import {
  type Asked,
  interleave,
  ratioText,
  Samples,
  type Subject,
  turn,
} from "../bench/harness.ts";
import { parseOptions, UsageError } from "../bench/options.ts";
import { findPostgres } from "../bench/peers/postgres.ts";
import { BEGIN, END, withBlock } from "../bench/report/readme.ts";
import type { Report } from "../bench/report/report.ts";
import { type Chart, drawChart } from "../bench/report/svg.ts";
import { allVerdicts, judge, toPeer } from "../bench/targets.ts";
import { inside, Run } from "./_bench_run.ts";
import { test } from "./_declare.ts";
import { root } from "./_spawn.ts";

/* ---- the harness ---------------------------------------------------------------------------- */

/** A clock that goes only when a subject lets it. */
class FakeClock {
  now = 1000;
  readonly done: string[] = [];

  /** A subject of which one repetition takes so many nanoseconds, round by round. */
  subject(name: string, ...ns: number[]): Subject {
    let round = 0;
    return {
      name,
      count: 10,
      run: (count) => {
        this.now += (ns[round++ % ns.length] ?? 0) * count / 1e6;
        this.done.push(name);
      },
      after: () => void (this.now += 5),
    };
  }

  partner(...subjects: Subject[]): Asked {
    return { ask: () => turn(subjects, () => this.now) };
  }
}

test("subjects of several partners take turns, and what they undo is not timed", async () => {
  const clock = new FakeClock();
  const samples = new Samples("ns");
  await interleave(
    [
      { prefix: "C ", partner: clock.partner(clock.subject("a", 100)), question: "round" },
      {
        prefix: "B ",
        partner: clock.partner(clock.subject("b", 150), clock.subject("c", 40)),
        question: "round",
      },
    ],
    { rounds: 3, warmUp: 1 },
    samples,
  );
  assertEquals(clock.done.join(""), "abc".repeat(4));
  assertEquals(samples.names, ["C a", "B b", "B c"]);
  assertEquals(samples.values("B b"), [150, 150, 150]);
  assertEquals(ratioText(samples.ratio("B b", "C a")), "1.50x");
  assertEquals(samples.summary("B c"), {
    ...{ unit: "ns", count: 3, min: 40, median: 40, p99: 40, max: 40 },
  });
});

test("an asynchronous subject is awaited before the clock is read", async () => {
  const clock = new FakeClock();
  const line = await turn([{
    name: "slow",
    count: 2,
    run: async (count) => {
      await Promise.resolve();
      clock.now += 3 * count / 1e6;
    },
  }], () => clock.now);
  assertEquals(line, "slow 3.000");
});

test("a slow moment of the whole machine does not change a ratio", () => {
  const samples = new Samples("ns");
  for (const slowness of [1, 1, 7, 1, 3]) {
    samples.add("floor", 10 * slowness);
    samples.add("ours", 16 * slowness);
  }
  const ratio = samples.ratio("ours", "floor");
  assertEquals(ratio, {
    ...{ value: 1.6, spread: 0, low: 1.6, high: 1.6 },
    ...{ rounds: 5, isTrusted: true },
  });
});

test("a ratio is refused when its rounds spread widely, or are few", () => {
  const samples = new Samples("ns");
  for (const time of [10, 14, 20, 30, 12]) {
    samples.add("floor", 10);
    samples.add("wild", time);
  }
  const wild = samples.ratio("wild", "floor");
  assertEquals(wild?.isTrusted, false);
  assertEquals(ratioText(wild), "? (+-29 %)");
  const few = new Samples("ns");
  for (const name of ["floor", "ours", "floor", "ours"]) few.add(name, 10);
  assertEquals(ratioText(few.ratio("ours", "floor")), "? (2 rounds)");
  assertEquals(ratioText(few.ratio("nothing", "floor")), "");
  few.add("ours", 10);
  assertThrows(() => few.ratio("ours", "floor"), Error, "has 3 rounds, floor has 2");
});

test("what is not a number is not taken for one", () => {
  const samples = new Samples("ns");
  assertThrows(() => samples.addLine("C ", "mutex oops"), Error, "C mutex");
  assertThrows(() => samples.add("nothing"), Error, "nothing was measured");
});

test("a target is met, missed, undecided or not measured", () => {
  const sure = (value: number) => ({
    ...{ value, spread: 0, low: value, high: value },
    ...{ rounds: 9, isTrusted: true },
  });
  const unsure = { value: 1.7, spread: 1, low: 1.1, high: 4, rounds: 9, isTrusted: false };
  const outcome = (...values: Parameters<typeof judge>[1]["C"][]) =>
    judge("pair", { Deno: values.flat() }, String, "because").outcome;
  assertEquals(outcome([sure(1.8), sure(1.2)]), "met");
  assertEquals(outcome([sure(1.2), sure(1.81)]), "missed");
  assertEquals(outcome([sure(1.2), unsure]), "undecided");
  assertEquals(outcome([sure(1.9), unsure]), "missed");
  // It is not shown, but sure to be on one side.
  assertEquals(outcome([{ ...unsure, high: 1.7 }]), "met");
  assertEquals(outcome([{ ...unsure, low: 1.9 }]), "missed");
  assertEquals(outcome([{ ...unsure, high: 1.7, rounds: 2 }]), "undecided");
  const shown = judge("pair", { Bun: [{ ...unsure, high: 1.7 }, sure(1.5), unsure] }, String);
  assertEquals(shown.measured.Bun, "under 1.8x / 1.50x / ? (+-50 %)");
  assertEquals(shown.numbers.Bun, [null, 1.5, null]);
  assertEquals(outcome([sure(1.2), undefined]), "not measured");
  assertEquals(judge("deathWorst", { C: [NaN] }, String).outcome, "missed");
  assertEquals(judge("pair", { Deno: [sure(2)] }, String, "because").reason, "because");
  assert(allVerdicts([]).every((verdict) => verdict.outcome === "not measured"));
});

test("what is quoted of a peer gives way to the peer, where that is measured", () => {
  const ratio = { value: 1.2, spread: 0, low: 1.2, high: 1.2, rounds: 9, isTrusted: true };
  const verdict = (peer: string | undefined) =>
    judge("stretch", { Deno: [ratio] }, String, undefined, toPeer("stretch", peer));
  assertEquals(verdict(undefined), judge("stretch", { Deno: [ratio] }, String));
  assertEquals([verdict(undefined).outcome, verdict("Some 1").outcome], ["met", "missed"]);
  assertEquals(verdict("Some 1").what, "stretch: the same, to Some 1 in this run");
});

/* ---- texts ---------------------------------------------------------------------------------- */

/** Throws unless it is well-formed: every tag is closed, in order, and nothing is left over. */
function checkXml(text: string): void {
  const open: string[] = [];
  let at = 0;
  const token =
    /<\/(?<end>[\w:]+)>|<(?<begin>[\w:]+)(?:\s+[\w:-]+="[^"<]*")*\s*(?<empty>\/?)>|[^<>]+/gy;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    at = token.lastIndex;
    const { end, begin, empty } = match.groups ?? {};
    if (end !== undefined) assertEquals(open.pop(), end, `at ${at}`);
    else if (begin !== undefined && empty === "") open.push(begin);
    assert(!/&(?!(amp|lt|gt|quot|#\d+);)/.test(match[0]), `a bare & at ${at}: ${match[0]}`);
  }
  assertEquals(at, text.length, `not XML: ${text.slice(at, at + 80)}`);
  assertEquals(open, [], "not closed");
}

test("the check for XML finds what is not well-formed", () => {
  checkXml('<a b="1"><c/>text &amp; more</a>\n');
  for (const text of ["<a>", "<a></b>", "<a b=1></a>", "<a>x & y</a>", '<a b="<"></a>', "a > b"]) {
    assertThrows(() => checkXml(text), Error);
  }
});

const chart: Chart = {
  name: "some",
  title: "Fast & <slow>",
  unit: "ns a pair",
  scale: "linear",
  groups: [{
    heading: 'A "group"',
    bars: [
      { label: "a & b", series: "C", min: 1, median: 2, max: 3 },
      { label: "far", series: "Deno", min: 1, median: 2, max: 300 },
    ],
  }],
};

test("a chart has its unit and the machine, and is XML whatever its words are", () => {
  for (const scale of ["linear", "log"] as const) {
    const text = drawChart({ ...chart, scale }, "2 x <Some> & Co\nDeno 1");
    checkXml(text);
    for (const part of ["ns a pair", "2 x &lt;Some&gt; &amp; Co", "a &amp; b", "(to 300)"]) {
      assertEquals(text.includes(part), scale === "linear" || part !== "(to 300)", part);
    }
    assert(!/NaN|Infinity|undefined/.test(text));
  }
});

test("there is no chart without a unit, a machine or a bar", () => {
  assertThrows(() => drawChart({ ...chart, unit: "" }, "machine"), Error, "lacks its unit");
  assertThrows(() => drawChart(chart, ""), Error, "lacks its unit or its machine");
  assertThrows(() => drawChart({ ...chart, groups: [] }, "machine"), Error, "no bars");
});

test("the command line is read, and what is wrong in it is named", () => {
  const parts = ["locks", "peers"];
  const options = parseOptions(["--", "--quick", "--only=locks,peers", "--out=/tmp/x"], parts);
  assertEquals([options.isQuick, options.only, options.out], [true, parts, "/tmp/x"]);
  assertEquals(options.readme, undefined, "a quick run leaves the README alone");
  assert(parseOptions(["--quick"], parts).out.endsWith("partial"), "and what is committed");
  assertEquals(parseOptions([], parts).out, join(root, "bench", "results"));
  assertEquals(parseOptions([], parts).readme, join(root, "README.md"));
  assertEquals(parseOptions(["--no-readme"], parts).readme, undefined);
  assertEquals(parseOptions(["--quick", "--readme=/tmp/R.md"], parts).readme, "/tmp/R.md");
  assertThrows(() => parseOptions(["--only=all"], parts), UsageError, "No part is named all");
  for (const word of ["--quick=1", "quick", "--out", "--out=", "--slow"]) {
    assertThrows(() => parseOptions([word], parts), UsageError, `"${word}" is not understood`);
  }
});

test("the README is rewritten between its marks and nowhere else", () => {
  const scratch = mkdtempSync("/tmp/dsmr-bench-test-");
  try {
    const readme = join(scratch, "README.md");
    const report: Report = {
      ...{ command: "deno task bench", date: "2026-01-02", commit: "abc", isQuick: false },
      ...{ seconds: 1, machine: ["2 x Some"], notes: [], absent: [], sections: [] },
      targets: allVerdicts([judge("library", { C: [70_000] }, String, "it grew.")]),
    };
    const folder = join(scratch, "bench", "results");
    assertEquals(withBlock(readme, report, folder), { why: `there is no ${readme}` });
    for (const text of ["no marks\n", `${END}\n${BEGIN}\n`, `${BEGIN}\n`]) {
      writeFileSync(readme, text);
      assert(withBlock(readme, report, folder).why?.includes("has no <!-- bench:begin -->"));
    }
    writeFileSync(readme, `before\n${BEGIN}\nSTALE\n${END}\nafter`);
    for (let time = 0; time < 2; time++) {
      const { text = "" } = withBlock(readme, report, folder);
      writeFileSync(readme, text);
      assert(text.startsWith(`before\n${BEGIN}\n\n![`) && text.endsWith(`\n\n${END}\nafter`));
      assert(!text.includes("STALE"));
      for (
        const part of ["](bench/results/latest-locks.svg)", " 70000 |", "it grew.", "2 x Some"]
      ) {
        assert(text.includes(part), `${part} is not in ${text}`);
      }
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
});

/* ---- runs ----------------------------------------------------------------------------------- */

/** The benchmark is one program, of both runtimes: one suite starts it. */
const whyNot = process.platform !== "linux"
  ? "the benchmark measures on Linux only"
  : process.versions["bun"] !== undefined
  ? "the other suite runs the benchmark, which starts both runtimes"
  : undefined;

function runTest(name: string, body: () => Promise<void>): void {
  if (whyNot === undefined) test(name, body);
  else console.log(`skipped: ${name}: ${whyNot}`);
}

runTest("a quick run without any peer writes all results, and names what is absent", async () => {
  const run = new Run([`--readme=/dev/null/README.md`], { PATH: "" });
  try {
    assertEquals(await run.ended(), "0", run.printed);
    run.checkNothingIsLeft();
    const report = JSON.parse(readFileSync(join(run.out, "latest.json"), "utf8")) as Report;
    assertEquals(report.isQuick, true);
    assertEquals(report.targets.length, 15);
    const parts = [
      ...["locks", "contention", "reading", "peers", "segments", "growth", "memory"],
      ...["processes", "death", "ping", "async", "struct"],
    ];
    assertEquals(report.sections.map(({ part }) => part), parts);
    for (const { part, seconds, measures } of report.sections) {
      assert(seconds > 0 && Object.keys(measures).length > 0, part);
      for (const [name, { unit, min, median, p99, max }] of Object.entries(measures)) {
        assert(unit !== "", `${part}: ${name}`);
        assert(min <= median && median <= p99 && p99 <= max, `${part}: ${name} is in disorder`);
      }
      assert(run.printed.includes(`bench: ${part}: ${seconds.toFixed(1)} s`), "the part's time");
    }
    for (
      const absent of [
        "hyperfine",
        "Redis",
        "PostgreSQL",
        "lmdb",
        "proper-lockfile",
        "shm-typed-array",
      ]
    ) {
      assert(report.absent.some((line) => line.startsWith(absent)), `${absent} is not named`);
      assert(run.printed.includes(`bench: absent: ${absent}`), `${absent} is not said`);
    }

    const markdown = readFileSync(join(run.out, "latest.md"), "utf8");
    const [machine = ""] = report.machine;
    for (const part of [machine, "## Targets", "## Not measured", "hyperfine: not installed"]) {
      assert(markdown.includes(part), `${part} is not in latest.md`);
    }
    const charts = readdirSync(run.out).filter((name) => name.endsWith(".svg"));
    assert(charts.length >= 10, `only ${charts}`);
    for (const name of charts) {
      assert(markdown.includes(`](${name})`), `${name} is not in latest.md`);
      const text = readFileSync(join(run.out, name), "utf8");
      checkXml(text);
      assert(text.includes(machine.replaceAll("&", "&amp;")), `${name} lacks its machine`);
      assert(/>(ns|us|ms)[ ,][^<]*bar: median/.test(text), `${name} lacks its unit`);
    }
    assert(run.printed.includes("the README is as it was: there is no"), "said of the README");
  } finally {
    run.end();
  }
});

runTest("a part that fails is named, and the others are published", async () => {
  const bin = mkdtempSync("/tmp/dsmr-bench-test-");
  writeFileSync(join(bin, "hyperfine"), "#!/bin/sh\nexit 3\n", { mode: 0o755 });
  const run = new Run(["--only=memory,processes"], { PATH: bin });
  try {
    assertEquals(await run.ended(), "1", run.printed);
    assert(run.printed.includes("bench: processes: FAILED"), run.printed);
    const report = JSON.parse(readFileSync(join(run.out, "latest.json"), "utf8")) as Report;
    assertEquals(report.sections.map(({ part }) => part), ["memory"]);
    assert(report.absent.some((line) => line.startsWith("part processes: it failed:")));
    run.checkNothingIsLeft();
  } finally {
    run.end();
    rmSync(bin, { recursive: true });
  }
});

for (const [part, processes] of [["contention", 8], ["peers", 3], ["processes", 2]] as const) {
  runTest(`SIGINT in part ${part} leaves no process, no registry and no file`, async () => {
    const run = new Run([`--only=${part}`]);
    try {
      await run.until(`bench: ${part}:`);
      await run.untilBusy(processes);
      run.interrupt();
      // One runtime's spawn() tells 130 as the signal that it stands for.
      assert(["130", "SIGINT"].includes(await run.ended()), run.printed);
      assert(run.printed.includes("SIGINT: stopping"), run.printed);
      run.checkNothingIsLeft();
      assertEquals(existsSync(run.out), false, "results of half a run");
    } finally {
      run.end();
    }
  });
}

/** How far PostgreSQL has come, by what there is in its folder. */
const moments: readonly (readonly [string, (folder: string) => boolean])[] = [
  ["makes its cluster", (folder) => existsSync(join(folder, "data", "global", "pg_control"))],
  ["starts its server", (folder) => existsSync(join(folder, ".s.PGSQL.5432"))],
  // Two that contend, and who lets them. A backend's title says whom it serves.
  [
    "measures its lock",
    (folder) => inside(join(folder, "data"), "[local]").length === 3,
  ],
];
const noPostgres = whyNot === undefined ? (await findPostgres()).missing : [];
for (const [what, hasCome] of moments) {
  const name = `SIGINT while PostgreSQL ${what} leaves no server and no shared memory`;
  if (noPostgres.length > 0) {
    console.log(`skipped: ${name}: apt-get install ${noPostgres.join(" ")}`);
    continue;
  }
  runTest(name, async () => {
    const run = new Run(["--only=locks"]);
    try {
      await run.untilSeen(() => hasCome(run.postgresOf("locks")));
      run.interrupt();
      assert(["130", "SIGINT"].includes(await run.ended()), run.printed);
      run.checkNothingIsLeft();
    } finally {
      run.end();
    }
  });
}
