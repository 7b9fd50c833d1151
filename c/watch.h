/*
 * watch.h - waiting without blocking: one thread of the process watches words for all others.
 *
 * A watch is a few futex words with what they were when somebody looked. When one of them
 * changes, or is woken, or when a backend that is in the way has died, the watch fires, once:
 * its id is queued for the thread that has set it, and that thread's doorbell is rung. The
 * thread then looks for itself: a watch acquires nothing, and owns nothing.
 */
#ifndef DSMR_WATCH_H
#define DSMR_WATCH_H

#include "backend.h"
#include "os.h"

/* The lock's owner or drain word, and the bells of some in the way. */
#define WATCH_WORDS 4u

struct watch_request {
  struct backend *backend;
  const struct attachment *attachment; /* whose memory the words are in; NULL: the registry's */
  struct os_futex_wait_on words[WATCH_WORDS];
  uint32_t word_count;
  /* Is there a reason to look again, other than a word and the registry's end? Asked now and
   * then, by the watching thread, until the watch is gone. NULL: no. */
  bool (*look)(const struct watch_request *request);
  bool looks_rarely; /* a word tells of what `look` would find, but for what nobody can rely on */
  const struct claim *claim; /* for `look`, and for whom it is in the way of */
  uint32_t owner; /* likewise; with a claim: its enum claim_state when the watch was set */
  /* A release has told the claim's backend, and perhaps nobody else. If that has not answered
   * after this time, it is somebody else's turn. 0: that does not matter. */
  uint32_t answer_ns;
};

/* Sets a watch of the calling thread. Returns its id (over 65,535), or NO_SPACE; UNSUPPORTED
 * where the thread has no doorbell. */
int32_t watch_set(const struct watch_request *request);
/* Ends a watch, whether it has fired or not. False if there is none with the id. */
bool watch_end(uint32_t id);
/* Ends the watches on an attachment; with NULL, all of the backend's. Before the memory goes. */
void watch_end_all(struct backend *backend, const struct attachment *attachment);

/* Fires a watch, if it is there, from any thread. */
void watch_fire(uint32_t id);

/* In a forked child: what the parent watched is not ours. */
void watch_after_fork(void);

#endif
