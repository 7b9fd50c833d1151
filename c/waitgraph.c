/*
 * waitgraph.c - cycles among backends that wait, for locks and for initialisations alike.
 *
 * Everything is read from the slots: what a backend waits for, and its journal of what it
 * holds. The owners change both without the table lock, while we read. The hardest race is a
 * cycle that never was: A waits for B is read, then B lets go and waits for A is read.
 *
 * The answer: each wait has a time that names it (waiting_since_ns). A cycle counts only if,
 * after it has been walked, every member still is in the same wait and every link still
 * stands. Then there was a moment, between the two readings, in which all members waited.
 * A backend that waits runs no other code of ours, so its journal is exact in that moment;
 * and a link "X waits for what Y holds" whose Y really holds cannot be one that X has got.
 */
#include "waitgraph.h"

#include "entry.h"
#include "os.h"
#include "segment.h"

/* One backend's wait, as read at one time. */
struct graph_wait {
  uint64_t since_ns;
  uint64_t lock;  /* the record, or 0 */
  uint64_t variable; /* where it is in the lock's file, or 0 */
  uint64_t expected;
  uint64_t entry; /* the id of the entry, or 0 */
  uint32_t entry_index;
};

static struct graph_wait wait_of(const struct control *control, uint32_t slot) {
  const struct backend_slot *row = &control->backends[slot];
  struct graph_wait wait = {0};
  /* Acquire; pairs with publish_waiting: the time belongs to the record. */
  wait.lock = atomic_load_explicit(&row->waiting_lock, memory_order_acquire);
  wait.since_ns = atomic_load_explicit(&row->waiting_since_ns, memory_order_acquire);
  wait.variable = atomic_load_explicit(&row->waiting_variable, memory_order_acquire);
  wait.expected = atomic_load_explicit(&row->waiting_expected, memory_order_acquire);
  wait.entry = atomic_load_explicit(&row->waiting_entry_id, memory_order_acquire);
  uint32_t index = atomic_load_explicit(&row->waiting_entry, memory_order_relaxed);
  wait.entry_index = index - 1;
  if (index < 1 || index > control->entry_capacity) wait.entry = 0;
  return wait;
}

static bool is_live(const struct control *control, uint32_t slot) {
  uint32_t word = atomic_load_explicit(&control->backends[slot].word, memory_order_acquire);
  return SLOT_STATE(word) == SLOT_LIVE;
}

/*
 * Is the variable that a wait is for still what it was? If not, the wait is over, though its
 * backend has not gone on yet. The one that would change it is in the cycle, and so has waited
 * since before we look.
 */
static bool variable_stands(const struct control *control, const struct graph_wait *wait) {
  uint32_t index = HELD_ENTRY(wait->lock);
  if (index >= control->entry_capacity || !entry_is_attachable(control, index)) return false;
  const struct entry *entry = &control->entries[index];
  if (wait->variable % sizeof(uint64_t) != 0 || wait->variable < SEGMENT_DATA_OFFSET ||
      wait->variable - SEGMENT_DATA_OFFSET >= entry->size) {
    return false;
  }
  struct mapping *mapping = NULL;
  int32_t fd = segment_open(control, "", entry->id, NULL);
  if (fd < 0) return false;
  bool stands = false;
  if (segment_map(fd, control, "", entry->id, entry->size, &mapping, NULL) == 0) {
    if (wait->variable <= mapping->size - sizeof(uint64_t)) {
      const char *place = (const char *)mapping->address + wait->variable;
      stands = atomic_load((const _Atomic uint64_t *)(const void *)place) == wait->expected;
    }
    mapping_release(mapping);
  }
  os_file_close(fd);
  return stands;
}

/* Is the backend in `holder` in the way of a wait for a lock? */
static bool blocks_lock(const struct control *control, const struct graph_wait *wait, uint32_t holder) {
  if (wait->variable != 0 && !variable_stands(control, wait)) return false;
  const struct backend_slot *row = &control->backends[holder];
  uint64_t wanted = HELD_LOCK(wait->lock & ~UINT64_C(0xfc));
  uint64_t own_wait = atomic_load_explicit(&row->waiting_lock, memory_order_acquire);
  bool waits_for_same = own_wait != 0 && HELD_LOCK(own_wait & ~UINT64_C(0xfc)) == wanted;
  for (uint32_t i = 0; i < HELD_CELLS; i++) {
    uint64_t record = atomic_load_explicit(&row->held[i], memory_order_acquire);
    if (record == 0 || HELD_LOCK(record) != wanted) continue;
    uint32_t mode = HELD_MODE(record);
    if (WAITING_KIND(wait->lock) == WAITING_READERS) {
      if (mode == 1 && !waits_for_same) return true;
    } else if (mode == 2) {
      /* The owner word is its, whether it is inside or drains. */
      if (!waits_for_same || WAITING_KIND(own_wait) == WAITING_READERS) return true;
    }
  }
  return false;
}

static bool blocks(const struct control *control, const struct graph_wait *wait, uint32_t holder) {
  if (!is_live(control, holder)) return false;
  if (wait->lock != 0) return blocks_lock(control, wait, holder);
  if (wait->entry == 0) return false;
  const struct entry *entry = &control->entries[wait->entry_index];
  uint32_t word = atomic_load_explicit(&control->backends[holder].word, memory_order_acquire);
  return entry->id == wait->entry &&
         ENTRY_STATE(entry_word(control, wait->entry_index)) == ENTRY_INITIALIZING &&
         entry->owner == BACKEND_ID(SLOT_GENERATION(word), holder);
}

/*
 * A thread may be several backends (of several databases). It waits as one: what any of them
 * holds is let go only when the one that waits goes on. Damaged memory may have no thread.
 */
static bool is_one_thread(const struct control *control, uint32_t a, uint32_t b) {
  return a == b || (control->backends[a].thread == control->backends[b].thread &&
                    control->backends[a].thread != 0);
}

/* The backend of the thread of `slot` that waits, or `slot`. */
static uint32_t waiting_slot_of(const struct control *control, uint32_t slot) {
  for (uint32_t i = 0; i < control->backend_count_max; i++) {
    if (!is_live(control, i) || !is_one_thread(control, i, slot)) continue;
    struct graph_wait wait = wait_of(control, i);
    if (wait.lock != 0 || wait.entry != 0) return i;
  }
  return slot;
}

struct search {
  const struct control *control;
  uint32_t start;
  uint32_t length; /* of the path; path[0] is the start */
  uint8_t path[DSMR_BACKENDS_MAX]; /* backends that wait */
  uint8_t holder[DSMR_BACKENDS_MAX]; /* whom each of them waits for */
  struct graph_wait waits[DSMR_BACKENDS_MAX];
  bool is_visited[DSMR_BACKENDS_MAX];
};

static bool same(const struct graph_wait *a, const struct graph_wait *b) {
  return a->since_ns == b->since_ns && a->lock == b->lock && a->entry == b->entry &&
         a->variable == b->variable && a->expected == b->expected;
}

/* Do all members still wait as they did, and all links still stand? */
static bool is_confirmed(const struct search *search) {
  for (uint32_t i = 0; i < search->length; i++) {
    struct graph_wait now = wait_of(search->control, search->path[i]);
    if (!same(&now, &search->waits[i])) return false;
    if (!blocks(search->control, &now, search->holder[i])) return false;
  }
  for (uint32_t i = 0; i < search->length; i++) {
    struct graph_wait now = wait_of(search->control, search->path[i]);
    if (!same(&now, &search->waits[i])) return false;
  }
  return true;
}

static bool push(struct search *search, uint32_t slot) {
  struct graph_wait wait = wait_of(search->control, slot);
  search->is_visited[slot] = true;
  if (wait.lock == 0 && wait.entry == 0) return false;
  search->path[search->length] = (uint8_t)slot;
  search->waits[search->length] = wait;
  search->length++;
  return true;
}

bool waitgraph_has_cycle(const struct control *control, uint32_t slot) {
  struct search search = {.control = control, .start = slot};
  if (!push(&search, slot)) return false;
  uint32_t tried[DSMR_BACKENDS_MAX] = {0};
  while (search.length > 0) {
    uint32_t top = search.length - 1;
    uint32_t holder = tried[top]++;
    if (holder >= control->backend_count_max) {
      tried[top] = 0;
      search.length--;
      continue;
    }
    if (!blocks(control, &search.waits[top], holder)) continue;
    search.holder[top] = (uint8_t)holder;
    if (is_one_thread(control, holder, slot)) {
      if (is_confirmed(&search)) return true;
      continue;
    }
    uint32_t next = waiting_slot_of(control, holder);
    if (!search.is_visited[next] && push(&search, next)) tried[search.length - 1] = 0;
  }
  return false;
}
