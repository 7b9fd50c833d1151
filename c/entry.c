/*
 * entry.c - the entry table.
 *
 * The hardest race is against death. Every change is a series of stores that nobody looks
 * at, then one store of the word. Killed before it: nothing has happened. Killed after: it
 * has happened. What remains to be done after a word's store (unlinking the file of a
 * DROPPING entry, the count) is found and finished by entry_forget_backend, which runs when
 * the dead backend is reaped, and may itself be killed and run again at any point.
 */
#include "entry.h"

#include "database.h"
#include "os.h"
#include "segment.h"
#include "tranche.h"

#include <string.h>

static uint32_t hash_of(uint32_t database_id, const char *name, uint32_t length) {
  uint32_t hash = 2166136261u ^ database_id * 0x9e3779b1u; /* FNV-1a, begun elsewhere for each */
  for (uint32_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
  return hash ^ hash >> 15;
}

uint32_t entry_word(const struct control *control, uint32_t index) {
  /* Acquire; pairs with the release in set_state: who sees READY sees the segment filled. */
  return atomic_load_explicit(&control->entries[index].word, memory_order_acquire);
}

static uint32_t state_of(const struct control *control, uint32_t index) {
  return ENTRY_STATE(entry_word(control, index));
}

static uint32_t set_state(struct control *control, uint32_t index, enum entry_state state) {
  _Atomic uint32_t *word = &control->entries[index].word;
  uint32_t next = ENTRY_NEXT(atomic_load_explicit(word, memory_order_relaxed), state);
  /* Release; pairs with the acquire in entry_word. */
  atomic_store_explicit(word, next, memory_order_release);
  return next;
}

static void add_to_count(struct control *control, uint32_t change) {
  _Atomic uint32_t *count = &control->header->segment_count;
  /* Relaxed, and not one step: the table lock orders the writers. */
  atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + change,
                        memory_order_relaxed);
}

uint32_t entry_name_length(const struct entry *entry) {
  return entry->name_length < DSMR_NAME_SIZE ? entry->name_length : DSMR_NAME_SIZE - 1;
}

static uint32_t next_index(const struct control *control, uint32_t index) {
  return (index + 1) & (control->entry_capacity - 1);
}

uint32_t entry_find(const struct control *control, uint32_t database_id, const char *name,
                    uint32_t name_length) {
  uint32_t hash = hash_of(database_id, name, name_length);
  uint32_t index = hash & (control->entry_capacity - 1);
  for (uint32_t i = 0; i < control->entry_capacity; i++, index = next_index(control, index)) {
    const struct entry *entry = &control->entries[index];
    uint32_t state = state_of(control, index);
    if (state == ENTRY_EMPTY) return ENTRY_NONE;
    if (state != ENTRY_INITIALIZING && state != ENTRY_READY) continue;
    if (entry->name_hash == hash && entry->database_id == database_id &&
        entry->name_length == name_length &&
        memcmp(entry->name, name, name_length) == 0) {
      return index;
    }
  }
  return ENTRY_NONE;
}

uint32_t entry_insert(struct control *control, const struct entry_birth *birth) {
  if (atomic_load_explicit(&control->header->segment_count, memory_order_relaxed) >=
      control->segment_count_max) {
    return ENTRY_NONE;
  }
  uint32_t hash = hash_of(birth->database_id, birth->name, birth->name_length);
  uint32_t index = hash & (control->entry_capacity - 1);
  for (uint32_t i = 0; i < control->entry_capacity; i++, index = next_index(control, index)) {
    uint32_t state = state_of(control, index);
    if (state != ENTRY_EMPTY && state != ENTRY_TOMBSTONE) continue;
    struct entry *entry = &control->entries[index];
    entry->owner = birth->owner;
    entry->id = birth->id;
    entry->size = birth->size;
    entry->created_ns = os_wall_ns();
    entry->creator_pid = os_pid();
    entry->flags = birth->flags;
    entry->layout = birth->layout;
    entry->database_id = birth->database_id;
    entry->name_hash = hash;
    entry->name_length = birth->name_length;
    memset(entry->name, 0, sizeof entry->name);
    memcpy(entry->name, birth->name, birth->name_length);
    memset(entry->attached, 0, sizeof entry->attached);
    memset(&entry->counters, 0, sizeof entry->counters);
    set_state(control, index, ENTRY_INITIALIZING);
    add_to_count(control, 1);
    return index;
  }
  return ENTRY_NONE;
}

uint32_t entry_publish(struct control *control, uint32_t index) {
  uint32_t word = set_state(control, index, ENTRY_READY);
  control_announce(control);
  os_futex_wake(&control->entries[index].word, UINT32_MAX);
  return word;
}

/*
 * A cell before an EMPTY one need not be a TOMBSTONE: no probe goes on behind it. Turning
 * the run of them into EMPTY, from its end, keeps probes short; cut short by a death it has
 * only turned fewer.
 */
static void sweep_tombstones(struct control *control, uint32_t index) {
  if (state_of(control, next_index(control, index)) != ENTRY_EMPTY) return;
  for (uint32_t i = 0; i < control->entry_capacity; i++) {
    if (state_of(control, index) != ENTRY_TOMBSTONE) return;
    set_state(control, index, ENTRY_EMPTY);
    index = (index - 1) & (control->entry_capacity - 1);
  }
}

/* Has the entry a name? Those are what a registry has room for; the table has twice as many. */
static bool is_named(uint32_t state) { return state == ENTRY_INITIALIZING || state == ENTRY_READY; }

void entry_remove(struct control *control, uint32_t index) {
  if (is_named(state_of(control, index))) add_to_count(control, UINT32_MAX);
  if (state_of(control, index) != ENTRY_DROPPING) set_state(control, index, ENTRY_DROPPING);
  segment_unlink(control, control->entries[index].id);
  if ((control->entries[index].flags & ENTRY_HAS_TRANCHES) != 0) {
    tranche_forget_segment(control, control->entries[index].id);
  }
  set_state(control, index, ENTRY_TOMBSTONE);
  control_announce(control);
  os_futex_wake(&control->entries[index].word, UINT32_MAX);
  sweep_tombstones(control, index);
}

void entry_drop(struct control *control, uint32_t index) {
  if (entry_attached_count(&control->entries[index]) == 0) {
    entry_remove(control, index);
  } else {
    set_state(control, index, ENTRY_DROPPED);
    control_announce(control);
    add_to_count(control, UINT32_MAX);
  }
}

static void drop_if_homeless(struct control *control, uint32_t index) {
  uint32_t database_id = control->entries[index].database_id;
  if (database_id == 0 || state_of(control, index) != ENTRY_READY) return;
  if (database_row_of(control, database_id) == NULL) entry_drop(control, index);
}

void entry_drop_homeless(struct control *control) {
  for (uint32_t i = 0; i < control->entry_capacity; i++) drop_if_homeless(control, i);
}

bool entry_is_attachable(const struct control *control, uint32_t index) {
  uint32_t state = state_of(control, index);
  return state == ENTRY_READY || state == ENTRY_DROPPED;
}

void entry_attach(struct control *control, uint32_t index, uint32_t slot) {
  control->entries[index].attached[slot / 64] |= UINT64_C(1) << slot % 64;
}

uint32_t entry_attached_count(const struct entry *entry) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < DSMR_BACKENDS_MAX / 64; i++) {
    for (uint64_t left = entry->attached[i]; left != 0; left &= left - 1) count++;
  }
  return count;
}

void entry_detach(struct control *control, uint32_t index, uint32_t slot) {
  struct entry *entry = &control->entries[index];
  entry->attached[slot / 64] &= ~(UINT64_C(1) << slot % 64);
  bool goes_with_last = (entry->flags & ENTRY_LIFETIME_ATTACHED) != 0 ||
                        state_of(control, index) == ENTRY_DROPPED;
  if (goes_with_last && entry_attached_count(entry) == 0) entry_remove(control, index);
}

void entry_forget_backend(struct control *control, uint32_t backend_id) {
  uint32_t slot = BACKEND_SLOT(backend_id);
  uint32_t count = 0;
  for (uint32_t i = 0; i < control->entry_capacity; i++) {
    switch (state_of(control, i)) {
      case ENTRY_INITIALIZING:
        if (control->entries[i].owner == backend_id) entry_remove(control, i);
        break;
      case ENTRY_READY:
      case ENTRY_DROPPED:
        entry_detach(control, i, slot);
        /* It may have been dropping a database. */
        drop_if_homeless(control, i);
        break;
      case ENTRY_DROPPING:
        entry_remove(control, i);
        break;
      default:
        break;
    }
    if (is_named(state_of(control, i))) count++;
  }
  atomic_store_explicit(&control->header->segment_count, count, memory_order_relaxed);
}
