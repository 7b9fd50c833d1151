/*
 * watching.h - waiting by watches, as a thread with an event loop does it.
 */
#ifndef WATCHING_H
#define WATCHING_H

#include "party.h"

#include <poll.h>

/* For what must come; nothing is checked to be fast. */
#define PATIENCE_MS 60000
/* For what must not come. */
#define SILENCE_MS 150

/* The calling thread's doorbell. */
static _Thread_local int doorbell = -1;

static inline void hang_doorbell(void) { doorbell = CHECK_OK(dsmr_doorbell(&check_error)); }

/* Waits for the bell; then all that has fired, at most `capacity`. 0 if it does not ring. */
static inline int32_t answer_within(int timeout_ms, uint32_t *ids, uint32_t capacity) {
  struct pollfd bell = {doorbell, POLLIN, 0};
  int got;
  do {
    got = poll(&bell, 1, timeout_ms);
  } while (got < 0 && errno == EINTR);
  if (got == 0) return 0;
  char bytes[64];
  CHECK(read(doorbell, bytes, sizeof bytes) > 0);
  return dsmr_doorbell_answer(ids, capacity);
}

/* This watch fires, and no other. */
static inline void check_fires(int32_t watch) {
  uint32_t id = 0;
  int32_t count;
  CHECK(watch > 0xffff);
  do {
    count = answer_within(PATIENCE_MS, &id, 1);
  } while (count == 0); /* rung for one that has ended since */
  CHECK_INT(count, 1);
  CHECK_INT(id, watch);
}

static inline void check_is_silent(void) {
  uint32_t id = 0;
  CHECK_INT(answer_within(SILENCE_MS, &id, 1), 0);
}

/* The whole acquisition. Nothing else of this thread's is watched. */
static inline int32_t await_lock(uint32_t lock, uint32_t mode) {
  for (;;) {
    int32_t outcome = dsmr_lock_watch(lock, mode);
    if (outcome <= 0xffff) return outcome;
    check_fires(outcome);
  }
}

#endif
