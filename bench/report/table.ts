/**
 * Numbers as text, and columns of text for a terminal.
 *
 * @module
 */

/** Columns as wide as they must be, the first one to the left and the others to the right. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const count = Math.max(...rows.map((row) => row.length));
  const widths = Array.from(
    { length: count },
    (_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))
      .join("  ").trimEnd()
  );
}

/** Nanoseconds, in the unit that suits them. */
export function ns(value: number): string {
  if (Number.isNaN(value)) return "";
  if (value < 1000) return `${value.toFixed(1)} ns`;
  if (value < 1e6) return `${(value / 1e3).toFixed(2)} us`;
  return `${(value / 1e6).toFixed(2)} ms`;
}

export function us(value: number): string {
  return Number.isNaN(value) ? "" : `${value.toFixed(1)} us`;
}

export function ms(value: number): string {
  return Number.isNaN(value) ? "" : `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}

export function bytes(value: number): string {
  if (Number.isNaN(value)) return "";
  if (value < 10 * 1024) return `${value.toFixed(0)} bytes`;
  if (value < 10 * 1024 ** 2) return `${(value / 1024).toFixed(0)} KiB`;
  return `${(value / 1024 ** 2).toFixed(0)} MiB`;
}

export function percent(share: number): string {
  return Number.isNaN(share) ? "" : `${(share * 100).toFixed(0)} %`;
}
