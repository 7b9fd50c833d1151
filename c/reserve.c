/*
 * reserve.c - reserving space for large segments without blocking the thread that asks.
 *
 * The space is reserved in a file that has no name yet, and no entry: a process that dies
 * meanwhile leaves nothing, and somebody else may make the segment first. What is shared with the
 * reserving thread is one reservation, under the process lock; the last one to need it frees it.
 */
#include "reserve.h"

#include "os.h"
#include "segment.h"
#include "watch.h"

#include <errno.h>
#include <stdlib.h>

void reserve_free(struct reservation *reservation) {
  if (reservation->fd >= 0) os_file_close(reservation->fd);
  free(reservation);
}

static void reserve_apart(void *argument) {
  struct reservation *reservation = argument;
  uint64_t room = 0;
  int32_t outcome =
      os_file_reserve(reservation->fd, reservation->size + SEGMENT_DATA_OFFSET, &room);
  process_lock();
  reservation->outcome = outcome;
  reservation->room = room;
  reservation->is_done = true;
  bool is_forgotten = reservation->is_forgotten;
  uint32_t watch = reservation->watch;
  process_unlock();
  if (is_forgotten) reserve_free(reservation);
  else watch_fire(watch);
}

/* Takes the first of that size off the list; a finished one, or any. */
static struct reservation *unlist(struct backend *backend, uint64_t size, bool needs_done) {
  process_lock();
  struct reservation **link = &backend->reservations;
  while (*link != NULL && ((*link)->size != size || (needs_done && !(*link)->is_done))) {
    link = &(*link)->next;
  }
  struct reservation *found = *link;
  if (found != NULL) *link = found->next;
  process_unlock();
  return found;
}

struct reservation *reserve_take(struct backend *backend, uint64_t size) {
  return unlist(backend, size, true);
}

static void forget(struct reservation *reservation) {
  process_lock();
  bool is_done = reservation->is_done;
  reservation->is_forgotten = true;
  process_unlock();
  if (is_done) reserve_free(reservation);
}

void reserve_forget(struct backend *backend) {
  while (backend->reservations != NULL) {
    forget(unlist(backend, backend->reservations->size, false));
  }
}

int32_t dsmr_segment_reserve(uint32_t registry, uint32_t size_low, uint32_t size_high,
                             uint32_t gives_up) {
  struct backend *backend = NULL;
  int32_t outcome = backend_find(registry, &backend, NULL);
  if (outcome != 0) return outcome;
  uint64_t size = (uint64_t)size_high << 32 | size_low;
  if (gives_up != 0) {
    struct reservation *given_up = unlist(backend, size, false);
    if (given_up != NULL) forget(given_up);
    return 0;
  }
  struct reservation *reservation = calloc(1, sizeof *reservation);
  if (reservation == NULL) return DSMR_E_NO_SPACE;
  reservation->size = size;
  bool is_named = false;
  reservation->fd =
      os_file_create_nameless(backend->control.place.directory, NULL, &is_named);
  int32_t watch = 0;
  if (reservation->fd >= 0) {
    struct watch_request request = {.backend = backend};
    watch = watch_set(&request);
  }
  if (watch > 0) {
    reservation->watch = (uint32_t)watch;
    outcome = os_thread_start(reserve_apart, reservation);
  }
  if (watch <= 0 || outcome != 0) {
    /* Then the next begin does it itself. */
    if (watch > 0) (void)watch_end((uint32_t)watch);
    watch = 0;
    reservation->outcome = -ENOTSUP;
    reservation->is_done = true;
  }
  process_lock();
  reservation->next = backend->reservations;
  backend->reservations = reservation;
  process_unlock();
  return watch;
}
