/*
 * word_table.c - prints the most frequent words that several processes have counted.
 *
 *   word_table <registry> [<directory>]
 *
 * A C program on a registry of Deno and Bun processes. It attaches, reads the segment "words"
 * and prints the table that word_count.ts prints. Nothing that it reads is trusted: another
 * process wrote it. Exits with 0, or 1 and a sentence on stderr.
 */
#include <dsmr.h>

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_ROWS 10u

/* ---- the segment's layout: word_count_layout.ts describes it ------------------------ */

#define MAGIC 0x44524f57u /* "WORD" */
#define VERSION 1u
#define STATE_DONE UINT32_MAX
#define RECORD_SIZE 5u /* count and length, without the word */
#define WORD_LENGTH_MAX 63u

struct header {
  uint32_t magic;
  uint32_t version;
  uint32_t text_size;
  uint32_t chunk_count;
  uint32_t area_size;
  uint32_t initialiser;
  uint32_t reserved[2];
};

struct chunk {
  _Atomic uint32_t state;
  uint32_t start;
  uint32_t end;
  uint32_t records_size;
  uint32_t worker;
  uint32_t taken_from;
  uint32_t reserved[2];
};

_Static_assert(sizeof(struct header) == 32, "word_count_layout.ts says so");
_Static_assert(sizeof(struct chunk) == 32, "word_count_layout.ts says so");

static _Noreturn void fail(const char *what, uint64_t which) {
  (void)fprintf(stderr, "word_table: %s (%" PRIu64 ")\n", what, which);
  exit(1);
}

/* ---- words and their counts: a hash table with open addressing ------------------------ */

struct word {
  uint64_t count; /* 0: the cell is empty */
  char text[WORD_LENGTH_MAX + 1];
};

static struct word *cells;
static size_t cell_count; /* a power of two */
static size_t word_count;

static struct word *find_cell(const char *text) {
  uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
  for (const char *c = text; *c != '\0'; c++) {
    hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211);
  }
  size_t i = (size_t)hash & (cell_count - 1);
  while (cells[i].count != 0 && strcmp(cells[i].text, text) != 0) i = (i + 1) & (cell_count - 1);
  return &cells[i];
}

static void grow(void) {
  struct word *old = cells;
  size_t old_count = cell_count;
  cell_count = old_count == 0 ? 16384 : 2 * old_count;
  cells = calloc(cell_count, sizeof *cells);
  if (cells == NULL) fail("no memory for so many words", cell_count);
  for (size_t i = 0; i < old_count; i++) {
    if (old[i].count != 0) *find_cell(old[i].text) = old[i];
  }
  free(old);
}

static void add_word(const char *text, uint32_t count) {
  if (2 * word_count >= cell_count) grow();
  struct word *word = find_cell(text);
  if (word->count == 0) {
    word_count++;
    memcpy(word->text, text, strlen(text) + 1);
  }
  word->count += count;
}

/* Most frequent first; words of one frequency by the alphabet; empty cells last. */
static int by_rank(const void *left, const void *right) {
  const struct word *a = left;
  const struct word *b = right;
  if (a->count != b->count) return a->count < b->count ? 1 : -1;
  return strcmp(a->text, b->text);
}

/* ---- reading the segment --------------------------------------------------------------- */

static void read_area(const uint8_t *area, uint32_t size, uint32_t chunk) {
  for (uint32_t at = 0; at < size;) {
    uint32_t count;
    if (size - at < RECORD_SIZE) fail("a record is cut off, in chunk", chunk);
    memcpy(&count, area + at, sizeof count);
    uint32_t length = area[at + 4];
    if (count == 0 || length < 1 || length > WORD_LENGTH_MAX || size - at - RECORD_SIZE < length) {
      fail("a record has an impossible count or length, in chunk", chunk);
    }
    char text[WORD_LENGTH_MAX + 1];
    memcpy(text, area + at + RECORD_SIZE, length);
    text[length] = '\0';
    for (uint32_t i = 0; i < length; i++) {
      if (text[i] < 'a' || text[i] > 'z') fail("a word is not of letters a to z, in chunk", chunk);
    }
    add_word(text, count);
    at += RECORD_SIZE + length;
  }
}

static void read_segment(void *address, uint64_t size) {
  struct header header;
  if (size < sizeof header) fail("the segment has not even a header; bytes", size);
  memcpy(&header, address, sizeof header);
  if (header.magic != MAGIC) fail("the segment holds no words; magic", header.magic);
  if (header.version != VERSION) fail("the segment has an unknown layout; version", header.version);

  /* By division: a product of such numbers could overflow. */
  uint64_t per_chunk = sizeof(struct chunk) + (uint64_t)header.area_size;
  if (header.chunk_count != (size - sizeof header) / per_chunk ||
      (size - sizeof header) % per_chunk != 0) {
    fail("the segment has not the size that its header says; chunks", header.chunk_count);
  }

  struct chunk *chunks = (struct chunk *)((uint8_t *)address + sizeof header);
  const uint8_t *areas = (const uint8_t *)(chunks + header.chunk_count);
  uint32_t position = 0;
  for (uint32_t i = 0; i < header.chunk_count; i++) {
    /* Acquire; pairs with the store of DONE in word_count_layout.ts: the area is complete. */
    if (atomic_load_explicit(&chunks[i].state, memory_order_acquire) != STATE_DONE) {
      fail("the words are still being counted; chunk", i);
    }
    uint32_t start = chunks[i].start;
    uint32_t end = chunks[i].end;
    uint32_t records_size = chunks[i].records_size;
    if (start != position || end < start || end > header.text_size) {
      fail("a chunk does not follow the one before it; chunk", i);
    }
    if (records_size > header.area_size) fail("a chunk has more records than room; chunk", i);
    read_area(areas + (uint64_t)i * header.area_size, records_size, i);
    position = end;
  }
  if (position != header.text_size) fail("the chunks are not the whole text; bytes", position);
}

/* ---- the table ------------------------------------------------------------------------- */

/* 1234567 as "1,234,567". */
static const char *grouped(uint64_t value, char text[32]) {
  char *at = text + 31;
  *at = '\0';
  for (int digits = 0; digits == 0 || value != 0; digits++, value /= 10) {
    if (digits != 0 && digits % 3 == 0) *--at = ',';
    *--at = (char)('0' + value % 10);
  }
  return at;
}

static void print_table(void) {
  char text[32];
  if (word_count != 0) qsort(cells, cell_count, sizeof *cells, by_rank);
  printf("  rank  %-24s%11s\n", "word", "count");
  for (size_t i = 0; i < word_count && i < TABLE_ROWS; i++) {
    printf("  %4zu  %-24s%11s\n", i + 1, cells[i].text, grouped(cells[i].count, text));
  }
}

int main(int argument_count, char **arguments) {
  if (argument_count < 2 || argument_count > 3) {
    (void)fprintf(stderr, "usage: word_table <registry> [<directory>]\n");
    return 2;
  }
  const char *name = arguments[1];
  const char *directory = argument_count == 3 ? arguments[2] : "";

  dsmr_error error;
  dsmr_registry_options options = {
      .mode = DSMR_MODE_ATTACH, .timeout_ms = -1, .label = "word_table"};
  int32_t registry =
      dsmr_registry_open(name, (uint32_t)strlen(name), directory, (uint32_t)strlen(directory), NULL,
                         0, &options, &error);
  if (registry < 0) {
    (void)fprintf(stderr, "word_table: %s\n", error.message);
    return 1;
  }

  dsmr_segment_ticket ticket = {0};
  int32_t status = dsmr_segment_lookup((uint32_t)registry, "words", 5, 0, &ticket, &error);
  if (status < 0) {
    (void)fprintf(stderr, "word_table: %s\n", error.message);
    return 1;
  }

  read_segment(dsmr_segment_address(ticket.segment), dsmr_segment_size(ticket.segment));
  print_table();
  free(cells);
  dsmr_registry_close((uint32_t)registry);
  return fflush(stdout) == 0 ? 0 : 1;
}
