/**
 * How many columns of a terminal a text takes: names are in all languages, and tables are to stand
 * straight.
 *
 * What belongs together as one character is the runtime's knowledge (Intl.Segmenter), and so is
 * what is an emoji. What else takes two columns is below: the blocks that Unicode's EastAsianWidth
 * has as wide or full-width, as whole blocks. Terminals differ in what is newer than they are; then
 * a line is off by a column or two, as it would be with any table.
 *
 * @module
 */

/** First and last code points of what is wide. */
const WIDE: readonly (readonly [first: number, last: number])[] = [
  [0x1100, 0x115f], // Hangul, leading consonants
  [0x2329, 0x232a], // angle brackets
  [0x2e80, 0x303e], // CJK radicals and punctuation
  [0x3041, 0x4dbf], // kana, bopomofo, CJK compatibility, extension A
  [0x4e00, 0xa4cf], // CJK ideographs, Yi
  [0xa960, 0xa97c], // Hangul, extended
  [0xac00, 0xd7a3], // Hangul syllables
  [0xf900, 0xfaff], // CJK compatibility ideographs
  [0xfe10, 0xfe19], // vertical forms
  [0xfe30, 0xfe6f], // CJK compatibility forms, small forms
  [0xff01, 0xff60], // full-width forms
  [0xffe0, 0xffe6],
  [0x16fe0, 0x18dff], // Tangut, Khitan
  [0x1aff0, 0x1b2ff], // kana, Nushu
  [0x1f200, 0x1f2ff], // enclosed ideographs
  [0x20000, 0x3fffd], // ideographs of the further planes
];

const EMOJI = /^\p{Emoji_Presentation}|^\p{Extended_Pictographic}\ufe0f|^[\d#*]\ufe0f\u20e3/u;

/** Takes no place by itself: marks, joiners, and other things one does not see. */
const INVISIBLE = /^[\p{Mn}\p{Me}\p{Cf}]+$/u;

const segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });

// What most names are made of.
const PLAIN = /^[\x20-\x7e]*$/;

function widthOfCharacter(character: string): number {
  const point = character.codePointAt(0) ?? 0;
  if (point < 0x300) return EMOJI.test(character) ? 2 : INVISIBLE.test(character) ? 0 : 1;
  if (INVISIBLE.test(character)) return 0;
  const isWide = WIDE.some(([first, last]) => point >= first && point <= last);
  return isWide || EMOJI.test(character) ? 2 : 1;
}

/** The columns that a printable text takes. */
export function width(text: string): number {
  if (PLAIN.test(text)) return text.length;
  let total = 0;
  for (const { segment } of segmenter.segment(text)) total += widthOfCharacter(segment);
  return total;
}

/** As much of the text as fits into so many columns; no character is cut in two. */
export function cut(text: string, columns: number): string {
  if (PLAIN.test(text)) return text.slice(0, columns);
  let total = 0;
  for (const { segment, index } of segmenter.segment(text)) {
    total += widthOfCharacter(segment);
    if (total > columns) return text.slice(0, index);
  }
  return text;
}

/** With spaces at its end, or before it, up to so many columns. */
export function pad(text: string, columns: number, where: "end" | "start" = "end"): string {
  const spaces = " ".repeat(Math.max(0, columns - width(text)));
  return where === "end" ? text + spaces : spaces + text;
}
