/**
 * Charts: bars from zero (or from the least power of ten) to the median, with a whisker from the
 * least to the greatest value. On a ground of its own, so that it reads on light and dark pages.
 * Every chart has its unit and the line of the machine; there is no way to make one without.
 *
 * @module
 */

import type { Summary } from "../harness.ts";

export interface Bar {
  label: string;
  /** Names the colour; shown in the legend if there are several. */
  series: string;
  min: number;
  median: number;
  max: number;
}

export interface Chart {
  /** The file is named latest-NAME.svg. */
  name: string;
  title: string;
  /** What the axis shows: "ns a pair". */
  unit: string;
  scale: "linear" | "log";
  /** Bars that belong together, under a heading; an empty heading takes no line. */
  groups: { heading: string; bars: Bar[] }[];
}

/** A bar of what was measured, in another unit if need be; none if nothing was. */
export function bar(
  label: string,
  series: string,
  summary: Summary | undefined,
  divisor = 1,
): Bar[] {
  if (summary === undefined) return [];
  const { min, median, max } = summary;
  return [{ label, series, min: min / divisor, median: median / divisor, max: max / divisor }];
}

const WIDTH = 860;
const LEFT = 300;
const RIGHT = 130;
const PLOT = WIDTH - LEFT - RIGHT;
const BAR = 14;
const STEP = 22;
const HEADING = 26;
const FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\"";
const INK = "#1f2933";
const FAINT = "#52606d";
const GRID = "#d9dee4";

/** Told apart also by those who do not see red and green; dark enough on white. */
const colours: Record<string, string> = {
  C: "#4b5563",
  Deno: "#0f62ac",
  Bun: "#c2610c",
  "Node.js": "#2f7d4f",
  "Deno and Bun": "#7b3fa0",
  other: "#8a9aab",
  floor: "#b8c2cc",
};

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

/** Three digits, without an exponent. */
export function short(value: number): string {
  if (value === 0) return "0";
  const digits = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.abs(value)))));
  const text = value.toFixed(digits);
  return digits === 0 ? Number(text).toLocaleString("en") : text;
}

/** Round numbers from 0 to at least `max`, about five of them. */
function linearTicks(max: number): number[] {
  const rough = max / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough) ??
    10 * power;
  return Array.from({ length: Math.ceil(max / step - 1e-9) + 1 }, (_, i) => i * step);
}

function logTicks(min: number, max: number): number[] {
  const first = Math.floor(Math.log10(min));
  const last = Math.max(first + 1, Math.ceil(Math.log10(max)));
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
}

/** The chart as an SVG document. `machine` is the line that says where it was measured. */
export function drawChart(chart: Chart, machine: string): string {
  const bars = chart.groups.flatMap((group) => group.bars);
  if (bars.length === 0) throw new Error(`chart ${chart.name} has no bars`);
  if (chart.unit === "" || machine === "") {
    throw new Error(`chart ${chart.name} lacks its unit or its machine`);
  }
  const isLog = chart.scale === "log";
  // One outlier may be far away: then the axis ends behind the largest median, and an arrow says so.
  const largest = Math.max(...bars.map(({ median }) => median));
  const farthest = Math.max(...bars.map(({ max }) => max));
  const end = isLog || farthest < 2.5 * largest ? farthest : 1.5 * largest;
  const least = Math.min(...bars.map(({ min, median }) => min > 0 ? min : median));
  const ticks = isLog ? logTicks(least, end) : linearTicks(end);
  const [from = 0, to = 1] = [ticks[0], ticks.at(-1)];
  const share = (value: number): number => {
    const part = isLog
      ? (Math.log10(Math.max(value, from)) - Math.log10(from)) / (Math.log10(to) - Math.log10(from))
      : value / to;
    return LEFT + PLOT * Math.min(1, Math.max(0, part));
  };

  const series = [...new Set(bars.map((one) => one.series))]
    .filter((name) => name !== "other" && name !== "floor");
  const top = series.length > 1 ? 84 : 60;
  const rows = chart.groups.reduce(
    (sum, { heading, bars }) => sum + (heading === "" ? 0 : HEADING) + bars.length * STEP,
    0,
  );
  const bottom = top + rows + 8;
  const lines = machine.split("\n");
  const height = bottom + 58 + 15 * lines.length;
  const out: string[] = [];
  const text = (x: number, y: number, words: string, more = "", size = 12, fill = INK) =>
    out.push(
      `<text x="${x}" y="${y}" font-size="${size}" fill="${fill}"${more}>${escape(words)}</text>`,
    );

  text(20, 32, chart.title, ' font-weight="600"', 17);
  let x = 20;
  if (series.length > 1) {
    for (const name of series) {
      out.push(`<rect x="${x}" y="50" width="12" height="12" fill="${colourOf(name)}"/>`);
      text(x + 18, 61, name);
      x += 40 + 7 * name.length;
    }
  }
  for (const tick of ticks) {
    const at = share(tick).toFixed(1);
    out.push(`<line x1="${at}" y1="${top}" x2="${at}" y2="${bottom}" stroke="${GRID}"/>`);
    text(
      share(tick),
      bottom + 16,
      tick.toLocaleString("en", { maximumSignificantDigits: 3 }),
      ' text-anchor="middle"',
      11,
      FAINT,
    );
  }
  let y = top;
  for (const { heading, bars } of chart.groups) {
    if (heading !== "") {
      text(20, y + 18, heading, ' font-weight="600"', 12, FAINT);
      y += HEADING;
    }
    for (const one of bars) {
      drawBar(out, one, y, share, to, text);
      y += STEP;
    }
  }
  text(
    LEFT + PLOT / 2,
    bottom + 34,
    `${chart.unit}${isLog ? ", logarithmic" : ""}; bar: median, line: least to greatest`,
    ' text-anchor="middle"',
  );
  lines.forEach((line, i) => text(20, bottom + 60 + 15 * i, line, "", 11, FAINT));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img" ${FONT}>`,
    `<title>${escape(chart.title)}</title>`,
    `<desc>${escape(`In ${chart.unit}. ${machine}`)}</desc>`,
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${
      height - 1
    }" rx="8" fill="#ffffff" stroke="#c3cbd4"/>`,
    ...out,
    "</svg>",
    "",
  ].join("\n");
}

function colourOf(series: string): string {
  return colours[series] ?? "#8a9aab";
}

function drawBar(
  out: string[],
  { label, series, min, median, max }: Bar,
  y: number,
  share: (value: number) => number,
  to: number,
  text: (x: number, y: number, words: string, more?: string, size?: number, fill?: string) => void,
): void {
  const middle = y + STEP / 2;
  text(LEFT - 10, middle + 4, label, ' text-anchor="end"');
  const width = Math.max(1, share(median) - LEFT);
  out.push(
    `<rect x="${LEFT}" y="${middle - BAR / 2}" width="${width.toFixed(1)}" height="${BAR}" fill="${
      colourOf(series)
    }"/>`,
  );
  const [left, right] = [share(min).toFixed(1), share(max).toFixed(1)];
  // White below, so that the line shows on its bar, too.
  for (const [stroke, thickness] of [["#ffffff", 4], ["#111827", 1.5]]) {
    out.push(
      `<path d="M${left} ${middle}H${right}M${left} ${middle - 4}v8${
        max > to ? "" : `M${right} ${middle - 4}v8`
      }" stroke="${stroke}" stroke-width="${thickness}" fill="none"/>`,
    );
  }
  const beyond = max > to ? ` (to ${short(max)})` : "";
  text(Math.max(share(median), share(max)) + 8, middle + 4, short(median) + beyond);
}
