/*
 * handle.h - u32 handles for objects of this process.
 *
 *   31  30          16 15           0
 *  +---+--------------+--------------+
 *  | 0 |  generation  |    index     |     generation 1 to 32,767, so a handle is never 0
 *  +---+--------------+--------------+
 *
 * A handle is checked against the table's generation, and the thread that made it, at every
 * use: a stale one, another thread's, one of another kind or a made-up one finds nothing.
 * Indices are given out first freed, first used, so that a generation comes round as late as
 * possible. Bit 31 is 0: a handle is also a successful return value.
 *
 * The table is wiped by fork: in a child, every handle of the parent is stale.
 */
#ifndef DSMR_HANDLE_H
#define DSMR_HANDLE_H

#include "os.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum handle_kind { HANDLE_REGISTRY = 1, HANDLE_SEGMENT = 2, HANDLE_LOCK = 3 };

#define HANDLES_MAX 65536u

/* Prepares the (zeroed) table. Returns 0 or DSMR_E_NO_SPACE. */
int32_t handle_start(void);

/* Returns 0 when all are in use. */
uint32_t handle_create(enum handle_kind kind, void *object);
void handle_destroy(uint32_t handle);

/* tag: kind << 16 | generation; kind 0 = free. */
struct handle_cell {
  void *object; /* the thread's own business */
  _Atomic uintptr_t thread;
  _Atomic uint32_t tag;
  uint32_t next_free; /* index + 1; under the process lock */
};
#define HANDLE_INDEX(handle) ((handle) & 0xffffu)
#define HANDLE_TAG(kind, generation) ((uint32_t)(kind) << 16 | (uint32_t)(generation))

/* The table's cells, or NULL before handle_start. */
extern struct handle_cell *_Atomic handle_cells;

static inline struct handle_cell *handle_cell(uint32_t handle, enum handle_kind kind) {
  /* Acquire; pairs with the release in handle_start. */
  struct handle_cell *cells = atomic_load_explicit(&handle_cells, memory_order_acquire);
  if (cells == NULL) return NULL;
  struct handle_cell *cell = &cells[HANDLE_INDEX(handle)];
  /* Acquire; pairs with the release in handle_create. A handle with bit 31 has a generation
   * that no tag has. */
  uint32_t tag = atomic_load_explicit(&cell->tag, memory_order_acquire);
  return tag == HANDLE_TAG(kind, handle >> 16) ? cell : NULL;
}

/* The object, or NULL. Inline: every lock call begins with it. */
static inline void *handle_find(uint32_t handle, enum handle_kind kind) {
  const struct handle_cell *cell = handle_cell(handle, kind);
  if (cell == NULL) return NULL;
  if (atomic_load_explicit(&cell->thread, memory_order_relaxed) != os_thread()) return NULL;
  return cell->object;
}
/* After NULL: is it because the handle is another thread's? */
static inline bool handle_is_foreign(uint32_t handle, enum handle_kind kind) {
  return handle_cell(handle, kind) != NULL;
}

#endif
