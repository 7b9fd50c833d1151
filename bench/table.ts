/**
 * Numbers, and how they are shown.
 *
 * @module
 */

/** What was measured, by name: one number a round. */
export class Samples {
  readonly #values = new Map<string, number[]>();

  add(name: string, ...values: number[]): void {
    const list = this.#values.get(name) ?? [];
    list.push(...values);
    this.#values.set(name, list);
  }

  /** Of "name value name value ..."; `prefix` goes before each name. */
  addLine(prefix: string, line: string): void {
    const words = line.trim().split(/\s+/);
    for (let i = 0; i + 1 < words.length; i += 2) {
      this.add(`${prefix}${words[i]}`, Number(words[i + 1]));
    }
  }

  /** The value that `share` of all are below; 0.5 is the median. NaN if there are none. */
  quantile(name: string, share: number): number {
    const sorted = [...this.#values.get(name) ?? []].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  }

  median(name: string): number {
    return this.quantile(name, 0.5);
  }

  min(name: string): number {
    return this.quantile(name, 0);
  }

  max(name: string): number {
    return this.quantile(name, 1);
  }
}

/** Columns as wide as they must be, the first one to the left and numbers to the right. */
export function printTable(title: string, rows: string[][]): void {
  console.log(`\n${title}\n`);
  const columns = Math.max(...rows.map((row) => row.length));
  const widths = Array.from(
    { length: columns },
    (_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  for (const row of rows) {
    const cells = row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)
    );
    console.log(cells.join("  ").trimEnd());
  }
}

export const ns = (value: number): string =>
  value < 1000 ? `${value.toFixed(1)} ns` : `${(value / 1000).toFixed(2)} us`;

export const ratio = (value: number, floor: number): string => `${(value / floor).toFixed(2)}x`;

/** A target and whether it was met: "<= 1.80x, met". */
export function target(values: number[], limit: number, unit: string, digits: number): string {
  const isMet = values.every((value) => value <= limit);
  return `<= ${limit.toFixed(digits)}${unit}, ${isMet ? "met" : "MISSED"}`;
}
