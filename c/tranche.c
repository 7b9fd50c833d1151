/*
 * tranche.c - the tranche table.
 *
 * A row is made and given back by one store of its word, under the table lock; a death before
 * it leaves the row as it was. Ids carry a generation, so that the id of a tranche that is
 * gone names nothing, rather than the row's next tenant.
 */
#include "tranche.h"

#include <string.h>

static uint32_t row_word(const struct control *control, uint32_t row) {
  /* Acquire; pairs with the release in tranche_create: the name is there. */
  return atomic_load_explicit(&control->tranches[row].word, memory_order_acquire);
}

static bool is_used(uint32_t word) { return word != 0 && TRANCHE_ROW(word) != TRANCHE_NO_ROW; }

/* The row of an id, or NULL. */
static struct tranche_row *row_of(const struct control *control, uint32_t id) {
  uint32_t row = TRANCHE_ROW(id);
  if (id == 0 || TRANCHE_IS_OF_ENTRY(id) || row >= TRANCHES_MAX) return NULL;
  return row_word(control, row) == id ? &control->tranches[row] : NULL;
}

uint32_t tranche_create(struct control *control, const char *name, uint32_t name_length,
                        uint64_t owner) {
  for (uint32_t row = 0; row < TRANCHES_MAX; row++) {
    uint32_t word = row_word(control, row);
    if (is_used(word)) continue;
    struct tranche_row *tranche = &control->tranches[row];
    memset(tranche->name, 0, sizeof tranche->name);
    memcpy(tranche->name, name, name_length);
    tranche->name_length = name_length;
    tranche->owner = owner;
    memset(&tranche->counters, 0, sizeof tranche->counters);
    uint32_t generation = TRANCHE_GENERATION(word) + 1;
    if (generation > 0x7ffffu) generation = 1;
    uint32_t id = TRANCHE_ID(generation, row);
    atomic_store_explicit(&tranche->word, id, memory_order_release);
    return id;
  }
  return 0;
}

bool tranche_remove(struct control *control, uint32_t id) {
  struct tranche_row *tranche = row_of(control, id);
  if (tranche == NULL) return false;
  atomic_store_explicit(&tranche->word, TRANCHE_ID(TRANCHE_GENERATION(id), TRANCHE_NO_ROW),
                        memory_order_release);
  return true;
}

void tranche_forget_segment(struct control *control, uint64_t segment_id) {
  for (uint32_t row = 0; row < TRANCHES_MAX; row++) {
    uint32_t word = row_word(control, row);
    if (is_used(word) && control->tranches[row].owner == segment_id) {
      (void)tranche_remove(control, word);
    }
  }
}

bool tranche_exists(const struct control *control, uint32_t id) {
  return row_of(control, id) != NULL;
}

static uint32_t copy_name(const char *from, uint32_t length, char name[DSMR_NAME_SIZE]) {
  memcpy(name, from, DSMR_NAME_SIZE);
  name[DSMR_NAME_SIZE - 1] = '\0';
  return length < DSMR_NAME_SIZE ? length : DSMR_NAME_SIZE - 1;
}

uint32_t tranche_name(const struct control *control, uint32_t id, char name[DSMR_NAME_SIZE]) {
  if (TRANCHE_IS_OF_ENTRY(id)) {
    if (TRANCHE_ENTRY(id) >= control->entry_capacity) return 0;
    const struct entry *entry = &control->entries[TRANCHE_ENTRY(id)];
    return copy_name(entry->name, entry->name_length, name);
  }
  const struct tranche_row *tranche = row_of(control, id);
  return tranche == NULL ? 0 : copy_name(tranche->name, tranche->name_length, name);
}

struct lock_counters *tranche_counters(const struct control *control, uint32_t id) {
  if (TRANCHE_IS_OF_ENTRY(id)) {
    if (TRANCHE_ENTRY(id) >= control->entry_capacity) return NULL;
    return &control->entries[TRANCHE_ENTRY(id)].counters;
  }
  struct tranche_row *tranche = row_of(control, id);
  return tranche == NULL ? NULL : &tranche->counters;
}
