/*
 * handle.c - the process's handle table.
 *
 * The hardest race: one thread looks a handle up while another destroys it and frees the
 * object. The answer: a cell names the thread that made the handle, and only that thread is
 * given the object, and only it destroys it. So a lookup is a few loads and no lock, and what
 * it returns stays for the length of the call.
 */
#include "handle.h"

#include "dsmr.h"
#include "os.h"
#include "process.h"

struct table {
  uint32_t is_started; /* zero again in a forked child */
  uint32_t first_generation; /* another in a child, so that handles of the parent stay stale */
  uint32_t used;       /* cells ever given out */
  uint32_t first_free; /* index + 1 */
  uint32_t last_free;
  struct handle_cell cells[HANDLES_MAX];
};

static struct table *_Atomic table_address;
struct handle_cell *_Atomic handle_cells;

static struct table *table(void) {
  return atomic_load_explicit(&table_address, memory_order_acquire);
}

int32_t handle_start(void) {
  struct table *t = table();
  if (t == NULL) {
    t = os_memory_wiped_by_fork(sizeof *t);
    if (t == NULL) return DSMR_E_NO_SPACE;
    /* Release; pairs with the acquires in table() and handle_cell(). */
    atomic_store_explicit(&table_address, t, memory_order_release);
    atomic_store_explicit(&handle_cells, t->cells, memory_order_release);
  }
  t->first_generation = os_pid() * 2654435761u >> 18;
  t->is_started = 1;
  return 0;
}

#define GENERATION(tag) ((tag) & 0x7fffu)

uint32_t handle_create(enum handle_kind kind, void *object) {
  process_lock();
  struct table *t = table();
  uint32_t index;
  /* The free queue is drawn on only when every cell has been used once: see above. */
  if (t->used < HANDLES_MAX) {
    index = t->used++;
  } else if (t->first_free != 0) {
    index = t->first_free - 1;
    t->first_free = t->cells[index].next_free;
    if (t->first_free == 0) t->last_free = 0;
  } else {
    process_unlock();
    return 0;
  }
  struct handle_cell *cell = &t->cells[index];
  uint32_t tag = atomic_load_explicit(&cell->tag, memory_order_relaxed);
  uint32_t generation = (tag == 0 ? t->first_generation : GENERATION(tag)) + 1;
  if (generation > 0x7fffu) generation = 1;
  cell->object = object;
  atomic_store_explicit(&cell->thread, process_thread(), memory_order_relaxed);
  /* Release; pairs with the acquire in handle_cell: another thread that sees the tag sees that
   * the thread is not itself. */
  atomic_store_explicit(&cell->tag, HANDLE_TAG(kind, generation), memory_order_release);
  process_unlock();
  return generation << 16 | index;
}

void handle_destroy(uint32_t handle) {
  process_lock();
  struct table *t = table();
  struct handle_cell *cell = &t->cells[HANDLE_INDEX(handle)];
  uint32_t tag = atomic_load_explicit(&cell->tag, memory_order_relaxed);
  if (tag >> 16 != 0 && GENERATION(tag) == handle >> 16) {
    atomic_store_explicit(&cell->tag, GENERATION(tag), memory_order_release);
    cell->next_free = 0;
    if (t->last_free != 0) {
      t->cells[t->last_free - 1].next_free = HANDLE_INDEX(handle) + 1;
    } else {
      t->first_free = HANDLE_INDEX(handle) + 1;
    }
    t->last_free = HANDLE_INDEX(handle) + 1;
  }
  process_unlock();
}
