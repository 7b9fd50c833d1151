/*
 * reserve.h - the space of large segments, reserved by a thread of its own.
 */
#ifndef DSMR_RESERVE_H
#define DSMR_RESERVE_H

#include "backend.h"

/* From this many bytes on an asynchronous begin reserves apart: a MiB takes about 0.3 ms. */
#define RESERVE_APART_MIN (UINT64_C(1) << 20)

/* A file without a name, and how reserving its space went. */
struct reservation {
  struct reservation *next; /* of the backend */
  uint64_t size;            /* of the segment */
  uint64_t room;            /* see os_file_reserve */
  int32_t outcome;          /* of os_file_reserve; or -ENOTSUP: it must be done the other way */
  int fd;
  uint32_t watch;
  bool is_done;
  bool is_forgotten; /* the thread is to free it */
};

/* Takes a finished reservation of that size off the backend's list, or returns NULL. */
struct reservation *reserve_take(struct backend *backend, uint64_t size);
void reserve_free(struct reservation *reservation);
/* Gives all back. */
void reserve_forget(struct backend *backend);

#endif
